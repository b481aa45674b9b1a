//! What introspection says of a collection, as JSON and as Markdown.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use ochre_model::Value;
use serde::Serialize;
use serde_json::Value as Json;

use crate::suggest::IndexSuggestion;
use crate::validate::{VALUE_CHARACTERS_MAX, Violation};

/// Everything that is found out about a collection's records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The collection's name.
    pub collection: String,
    /// Its records, or those that pass the filter the report is restricted to.
    pub records: u64,
    /// `fast`: counts only; `full`: every value was looked at; `sample`: values of some records were.
    pub mode: &'static str,
    /// Which records' values were looked at, if not all.
    pub sample: Option<Sample>,
    /// Whether the time budget ended before everything was looked at.
    pub truncated: bool,
    /// How many values were read for it: none in fast mode, whatever the collection's size.
    pub values_examined: u64,
    /// A key each, by name.
    pub keys: Vec<KeyReport>,
    /// The documents.
    pub documents: DocumentReport,
    /// What looks wrong, gravest first.
    pub warnings: Vec<Warning>,
    /// A schema that accepts all of these records.
    pub suggested_schema: Json,
    /// The schema the collection declares.
    pub declared_schema: Option<Json>,
    /// How it validates.
    pub validation_type: Option<&'static str>,
    /// How the records stand to the declared schema.
    pub compliance: Option<Compliance>,
    /// What the declared schema and the data do not have in common.
    pub drift: Vec<String>,
    /// Keys that filters would profit from.
    pub index_suggestions: Vec<IndexSuggestion>,
    /// The last violations that were accepted, newest first.
    pub recent_violations: Vec<RecentViolation>,
}

/// A violation that was accepted a while ago.
#[derive(Clone, Debug, Serialize)]
pub struct RecentViolation {
    /// When, in RFC 3339.
    pub at: String,
    /// Where the record stood in its batch, and its id; absent for who may not see what is in records.
    #[serde(flatten)]
    pub record: Option<ViolatingRecord>,
    /// The metadata key, `#document`, `#embedding`, or `#record`.
    pub key: String,
    /// Which rule.
    pub rule: &'static str,
    /// The type that was found, or `absent`.
    pub actual_type: &'static str,
    /// What else tells the value; absent where values are not shown.
    #[serde(flatten)]
    pub values: Option<ViolationValues>,
}

/// Which record breaks a rule.
#[derive(Clone, Debug, Serialize)]
pub struct ViolatingRecord {
    /// Where it stood in its batch.
    pub index: usize,
    /// Its id.
    pub id: String,
}

/// What of a violation tells the value that breaks the rule, or those that would not.
#[derive(Clone, Debug, Serialize)]
pub struct ViolationValues {
    /// What the schema demands.
    pub expected: String,
    /// The value, cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// All of it in one sentence.
    pub message: String,
}

impl RecentViolation {
    /// Of a violation; without values for who may not see them.
    pub fn new(at: String, record: ViolatingRecord, violation: Violation, are_values_shown: bool) -> Self {
        let Violation { key, rule, expected, actual_type, value, message, .. } = violation;
        let values = are_values_shown.then_some(ViolationValues { expected, value, message });
        Self { at, record: Some(record), key, rule, actual_type, values }
    }
}

/// A uniform sample of records.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Records whose values were looked at.
    pub records: u64,
    /// Of so many.
    pub of: u64,
    /// The seed they were drawn with.
    pub seed: u64,
    /// A value in this share of records is missed with a probability of 5 %.
    pub missed_share: f64,
}

/// How many records have documents.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct DocumentReport {
    pub count: u64,
    pub presence: f64,
}

/// Something that looks wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Warning {
    /// `error` where a declared schema is broken, else `warning`, or `info`.
    pub level: &'static str,
    /// The key it is about; absent if it is about the collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What kind of fault it is.
    pub code: &'static str,
    /// In a sentence.
    pub message: String,
    /// Records to look at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

/// A record whose value under a key is not what is expected there.
#[derive(Clone, Debug, Serialize)]
pub struct Offender {
    /// The record.
    pub id: String,
    /// The type of its value.
    #[serde(rename = "type")]
    pub value_type: &'static str,
    /// The value, cut; absent where values are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Which rule it breaks, if it is not the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
}

/// An offending value with how often it stands there.
#[derive(Clone, Debug, Serialize)]
pub struct Aggregate {
    /// Its type.
    #[serde(rename = "type")]
    pub value_type: &'static str,
    /// The value, cut; absent where values are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// In how many records.
    pub count: u64,
}

/// A value as reports show it: cut if it is long.
pub fn shown_value(value: &Value) -> Json {
    match value {
        Value::Str(text) => match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]).into(),
            None => text.as_str().into(),
        },
        value => value.to_json(),
    }
}

/// How records stand to the declared schema.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compliance {
    /// Records that were validated.
    pub validated: u64,
    /// Of those, how many break no rule.
    pub compliant: u64,
    /// `compliant / validated`; 1 for no records.
    pub rate: f64,
    /// How often each rule is broken, most often first.
    pub rules: Vec<RuleCount>,
    /// The collection's position that was validated.
    pub position: u64,
    /// When a background audit counted this, in RFC 3339; absent if it was counted now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audited_at: Option<String>,
    /// Where each key and rule stands among the rules, while records are counted.
    #[serde(skip)]
    places: HashMap<(String, &'static str), usize>,
}

/// How often one rule of one key is broken.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RuleCount {
    pub key: String,
    pub rule: &'static str,
    pub expected: String,
    pub count: u64,
    pub ids: Vec<String>,
    /// What is wrong with the first of them; absent where values are not shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Compliance {
    /// Leaves out what tells values: messages, and the records that have them.
    pub fn hide_values(&mut self) {
        for rule in &mut self.rules {
            rule.message.clear();
            rule.ids.clear();
        }
    }

    /// Nothing counted yet, of a collection at this position.
    pub fn at(position: u64) -> Self {
        Self { position, ..Self::default() }
    }

    /// Counts a record with what it breaks; at most `ids` ids are kept for each rule.
    pub fn count(&mut self, id: &str, violations: &[Violation], ids: usize) {
        self.validated += 1;
        self.compliant += u64::from(violations.is_empty());
        for violation in violations {
            let place = (violation.key.clone(), violation.rule);
            let index = *self.places.entry(place).or_insert_with(|| {
                let Violation { key, rule, expected, message, .. } = violation.clone();
                self.rules.push(RuleCount { key, rule, expected, count: 0, ids: Vec::new(), message });
                self.rules.len() - 1
            });
            let rule = &mut self.rules[index];
            rule.count += 1;
            if rule.ids.len() < ids {
                rule.ids.push(id.to_owned());
            }
        }
    }

    /// Works out the rate and the order, once all records are counted.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.rate = share(self.compliant, self.validated).unwrap_or(1.0);
        self.places.clear();
        self.rules.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.key, a.rule).cmp(&(&b.key, b.rule))));
        self
    }
}

/// `part / whole`; `None` of nothing.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// What is found out about one key. Sections that do not apply are absent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KeyReport {
    /// The key.
    pub name: String,
    /// In how many records it is.
    pub count: u64,
    /// In which share of them.
    pub presence: f64,
    /// How many records have a value of each type.
    pub types: BTreeMap<&'static str, u64>,
    /// The type most of them have; integers and floats together count as numbers.
    #[serde(rename = "type")]
    pub majority: &'static str,
    /// The share of that type, and the lower end of its 95 % confidence interval (Wilson).
    pub confidence: f64,
    /// `uniform`, `numeric` (integers and floats) or `mixed`.
    pub verdict: &'static str,
    /// Records whose type is another, or that break the declared schema; at most so many as was asked for.
    pub offenders: Vec<Offender>,
    /// How many there are.
    pub offender_count: u64,
    /// Their values, most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offending_values: Vec<Aggregate>,
    /// How many different values; absent in fast mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cardinality: Option<u64>,
    /// `cardinality / count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_ratio: Option<f64>,
    /// Of numbers: minimum, maximum, mean, standard deviation, quantiles, zeros, negatives, non-integral share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Json>,
    /// Of strings: lengths, blanks, case variants, formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strings: Option<Json>,
    /// Of booleans: how many are true and false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booleans: Option<Json>,
    /// Of lists: lengths and elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists: Option<Json>,
    /// The most frequent values, each with its count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Json>,
    /// Values that stand there once, if there are few of them among many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rare: Vec<Json>,
    /// What catches the eye: `constant`, `unique`, `high-cardinality`, `sparse`, `imbalanced`, …
    pub alerts: Vec<&'static str>,
    /// What the schema declares of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<DeclaredKey>,
}

/// What a schema declares of a key.
#[derive(Clone, Debug, Serialize)]
pub struct DeclaredKey {
    /// The types it may have.
    pub types: Vec<&'static str>,
    /// Whether every record has it.
    pub required: bool,
    /// What it means.
    pub description: Option<String>,
}

impl Report {
    /// Leaves out which records are meant, for who may not see what is in them.
    pub fn hide_ids(&mut self) {
        self.keys.iter_mut().for_each(|key| key.offenders.clear());
        self.warnings.iter_mut().for_each(|warning| warning.ids.clear());
        self.compliance.iter_mut().for_each(Compliance::hide_values);
        self.recent_violations.iter_mut().for_each(|violation| violation.record = None);
    }

    /// The report as a page of Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text).expect("a string takes everything");
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# {}\n", self.collection)?;
        writeln!(
            out,
            "{} records, {} keys, {} documents; {} mode.",
            self.records,
            self.keys.len(),
            self.documents.count,
            self.mode
        )?;
        if let Some(sample) = self.sample {
            writeln!(
                out,
                "Values are from a uniform sample of {} of {} records; counts and types are exact. A value in {:.3} % of the records is missed once in twenty times.",
                sample.records,
                sample.of,
                sample.missed_share * 100.0
            )?;
        }
        if self.truncated {
            writeln!(out, "\n**Truncated:** the time budget ended before every value was looked at.")?;
        }
        if let Some(compliance) = &self.compliance {
            writeln!(
                out,
                "\n{:.2} % of {} records comply with the declared schema.",
                compliance.rate * 100.0,
                compliance.validated
            )?;
        }
        writeln!(out, "\n| key | type | present | types | distinct | alerts |\n|---|---|---|---|---|---|")?;
        for key in &self.keys {
            let types: Vec<String> = key.types.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let distinct = key.cardinality.map_or_else(|| "–".to_owned(), |count| count.to_string());
            let name = key.name.replace('|', "\\|");
            writeln!(
                out,
                "| {name} | {} | {:.1} % | {} | {distinct} | {} |",
                key.majority,
                key.presence * 100.0,
                types.join(", "),
                key.alerts.join(", ")
            )?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "\n## Warnings\n")?;
            for warning in &self.warnings {
                write!(out, "- **{}** {}", warning.level, warning.message)?;
                if !warning.ids.is_empty() {
                    write!(out, " ({})", warning.ids.join(", "))?;
                }
                writeln!(out)?;
            }
        }
        let schema = serde_json::to_string_pretty(&self.suggested_schema).unwrap_or_default();
        writeln!(out, "\n## Suggested schema\n\n```json\n{schema}\n```")
    }
}
