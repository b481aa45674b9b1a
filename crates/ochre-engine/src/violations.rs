//! Rules of a schema that records break, as whoever wrote them is told.

use std::collections::BTreeMap;
use std::fmt;

use ochre_schema::Violation;
use serde::Serialize;

/// An answer lists at most so many violations, and counts the rest.
const LISTED_MAX: usize = 100;
/// A message spells out so many.
pub(crate) const SPELLED_MAX: usize = 10;

/// A rule that a record of a batch breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordViolation {
    /// Where the record stands in the batch.
    pub index: usize,
    /// The record's id.
    pub id: String,
    /// What it breaks.
    #[serde(flatten)]
    pub violation: Violation,
}

/// The violations of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// The first of them.
    pub listed: Vec<RecordViolation>,
    /// All of them, by key and rule.
    pub counts: BTreeMap<(String, &'static str), u64>,
}

impl Violations {
    pub(crate) fn extend(&mut self, index: usize, id: &str, violations: Vec<Violation>) {
        for violation in violations {
            *self.counts.entry((violation.key.clone(), violation.rule)).or_default() += 1;
            if self.listed.len() < LISTED_MAX {
                self.listed.push(RecordViolation { index, id: id.to_owned(), violation });
            }
        }
    }

    /// The same without any value of the records: for who writes and may not read.
    #[must_use]
    pub fn without_values(&self) -> Self {
        let mut hidden = self.clone();
        for RecordViolation { violation, .. } in &mut hidden.listed {
            violation.value = None;
            let Violation { key, rule, expected, actual_type, .. } = &*violation;
            violation.message = format!("key {key:?}: {rule}: expected {expected}, found {actual_type}");
        }
        hidden
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "the schema of the collection is broken {total} time{}; nothing was written: ", plural(total))?;
        for (number, RecordViolation { index, id, violation }) in self.listed.iter().take(SPELLED_MAX).enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(f, "{separator}record {index} (id {id:?}): {}", violation.message)?;
        }
        if total > SPELLED_MAX as u64 {
            let mut keys: Vec<&str> = self.counts.keys().map(|(key, _)| key.as_str()).collect();
            keys.dedup();
            write!(f, "; … of the keys {}", keys.join(", "))?;
        }
        Ok(())
    }
}

/// What became of a write that breaks rules of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationOutcome {
    /// Nothing of it was written.
    Refused,
    /// It was written, and reported.
    Accepted,
}

impl ViolationOutcome {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Accepted => "accepted",
        }
    }
}

/// How often a rule was broken by requests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ViolationCount {
    pub collection: String,
    pub key: String,
    pub rule: &'static str,
    /// `refused` or `accepted`.
    pub outcome: ViolationOutcome,
    pub count: u64,
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
