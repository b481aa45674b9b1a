//! What is asked of collections: filters by their shape, keys and kinds of tests, never by their values.

use std::collections::HashMap;
use std::time::Duration;

use ochre_index::View;
use ochre_model::{Filter, Scalar, Test};
use ochre_store::CollectionNumber;
use parking_lot::Mutex;

use crate::metadata_index::definition::{COLUMNS_MAX, ColumnDefinition};
use crate::schemas::unix_seconds;

/// Shapes that are told apart, over all collections.
const SHAPES_MAX: usize = 1000;
/// Longer conjunctions, and longer keys, are not remembered.
const CLAUSES_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 128;
/// Collections with fewer records are scanned in microseconds.
pub(super) const RECORDS_MIN: usize = 10_000;

/// Filters by shape: keys and kinds of tests.
#[derive(Default)]
pub(crate) struct Workload(Mutex<HashMap<(CollectionNumber, Vec<Clause>), Asked>>);

/// A test on a key, without its operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Clause {
    key: String,
    kind: Kind,
}

/// What kind of test: those that let an index go on with the next column first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Equal,
    In,
    Contains,
    Range,
}

/// How often a shape was asked, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) times: u64,
    pub(super) by_index: u64,
    pub(super) micros: u64,
    pub(super) matched: u64,
    pub(super) records: u64,
    pub(super) last: i64,
}

impl Workload {
    /// Notes a filter that was evaluated.
    pub(crate) fn note(
        &self, number: CollectionNumber, filter: &Filter, took: Duration, matched: usize, records: usize,
        by_index: bool,
    ) {
        if records < RECORDS_MIN {
            return;
        }
        let Some(shape) = shape(filter) else { return };
        if shape.len() > CLAUSES_MAX || shape.iter().any(|clause| clause.key.len() > KEY_BYTES_MAX) {
            return;
        }
        // One that is not counted because another is costs less than one that waits.
        let Some(mut shapes) = self.0.try_lock() else { return };
        if shapes.len() >= SHAPES_MAX && !shapes.contains_key(&(number, shape.clone())) {
            // The one that was not asked for longest makes room.
            if let Some(oldest) = shapes.iter().min_by_key(|(_, asked)| asked.last).map(|(shape, _)| shape.clone()) {
                shapes.remove(&oldest);
            }
        }
        let asked = shapes.entry((number, shape)).or_default();
        asked.times += 1;
        asked.by_index += u64::from(by_index);
        asked.micros += u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        asked.matched += matched as u64;
        asked.records += records as u64;
        asked.last = unix_seconds();
    }

    pub(super) fn of(&self, number: CollectionNumber) -> Vec<(Vec<Clause>, Asked)> {
        let shapes = self.0.lock();
        shapes
            .iter()
            .filter(|((own, _), _)| *own == number)
            .map(|((_, shape), asked)| (shape.clone(), *asked))
            .collect()
    }
}

/// The tests of a filter that an index could answer, if it is a conjunction that has any.
pub(crate) fn shape(filter: &Filter) -> Option<Vec<Clause>> {
    let mut clauses = Vec::new();
    gather(filter, &mut clauses);
    clauses.sort_unstable();
    clauses.dedup();
    (!clauses.is_empty()).then_some(clauses)
}

fn gather(filter: &Filter, clauses: &mut Vec<Clause>) {
    match filter {
        Filter::All(parts) => parts.iter().for_each(|part| gather(part, clauses)),
        Filter::Key { key, test } => {
            let kind = match test {
                Test::Eq(_) => Kind::Equal,
                Test::In(_) => Kind::In,
                Test::Contains(_) => Kind::Contains,
                // No index answers ranges of strings.
                Test::Compare(_, operand) if !matches!(operand, Scalar::Str(_)) => Kind::Range,
                _ => return,
            };
            clauses.push(Clause { key: key.clone(), kind });
        }
        _ => {}
    }
}

/// The columns of an index that would answer a shape: equality first, then one list or range.
pub(crate) fn columns(shape: &[Clause], view: &View) -> Vec<ColumnDefinition> {
    let distinct = |key: &str| view.distinct(key);
    let mut equal: Vec<&Clause> = shape.iter().filter(|clause| matches!(clause.kind, Kind::Equal | Kind::In)).collect();
    // The most selective first: it is of use to other filters as well.
    equal.sort_by_key(|clause| (clause.kind, std::cmp::Reverse(distinct(&clause.key))));
    let contains = shape.iter().find(|clause| clause.kind == Kind::Contains);
    let range =
        shape.iter().find(|clause| clause.kind == Kind::Range && equal.iter().all(|other| other.key != clause.key));
    let mut columns: Vec<ColumnDefinition> = equal.iter().map(|clause| ColumnDefinition::key(&clause.key)).collect();
    columns.extend(contains.map(|clause| ColumnDefinition::typed(&clause.key, "list")));
    columns.extend(range.map(|clause| ColumnDefinition::key(&clause.key)));
    columns.dedup();
    columns.truncate(COLUMNS_MAX);
    columns
}

/// A name for an index of these columns.
pub(crate) fn index_name(collection: &str, columns: &[ColumnDefinition]) -> String {
    let plain =
        |name: &str| -> String { name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect() };
    let keys: Vec<String> = columns.iter().map(|column| plain(&column.key)).collect();
    let mut name = format!("{}_by_{}", plain(collection), keys.join("_"));
    name.truncate(100);
    name
}
