//! What functions compute: the records that an output collection should have.
//!
//! Ids and metadata are those of Chroma's own functions, which its clients read.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use ochre_index::{Values, View};
use ochre_model::{Metadata, Value, ValueType};
use ochre_store::Parts;

use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;
use crate::functions::attached::Function;

/// A record of an output, by its id.
pub(super) type Output = BTreeMap<String, OutputRecord>;

/// A record of an output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OutputRecord {
    pub(super) metadata: Metadata,
    pub(super) document: String,
}

/// What a function makes of a state of its input.
pub(super) fn compute(
    function: Function, snapshot: &ReadSnapshot<'_>, is_stopped: &dyn Fn() -> bool,
) -> Result<Output, Error> {
    match function {
        Function::RecordCounter => {
            let count = records(&snapshot.view);
            let metadata = Metadata::from_iter([("total_count", Value::Int(count))]);
            let document = format!("{count} records");
            Ok(Output::from([("function_output".to_owned(), OutputRecord { metadata, document })]))
        }
        Function::Statistics => statistics(snapshot, is_stopped),
    }
}

fn records(view: &View) -> i64 {
    i64::try_from(view.live().len()).unwrap_or(i64::MAX)
}

/// Keys with more different values are left out: those that are different in every record.
const VALUES_PER_KEY_MAX: usize = 100_000;
/// Once there are so many records, the keys that are left are left out.
const RECORDS_MAX: usize = 500_000;

/// How many records have each value under each key, in the order of keys; an element of a list counts as a value.
fn statistics(snapshot: &ReadSnapshot<'_>, is_stopped: &dyn Fn() -> bool) -> Result<Output, Error> {
    let view = &snapshot.view;
    let mut output = Output::new();
    let mut keys: Vec<String> = view.keys().map(|(key, _)| key.to_owned()).collect();
    keys.sort_unstable();
    for key in keys {
        if is_stopped() {
            return Err(Error::Closed);
        }
        let mut counts = Counts::default();
        view.visit_values(&key, view.live(), &mut counts)?;
        let dimensions = count_sparse(snapshot, &key)?;
        let values = counts.0.len() + dimensions.len();
        if values > VALUES_PER_KEY_MAX || output.len() + values > RECORDS_MAX {
            tracing::debug!(key, values, "statistics leave out a key with too many different values");
            continue;
        }
        output.extend(counts.0.into_iter().map(|(value, count)| value.record(&key, count, None)));
        let dimensions = dimensions.into_iter();
        output.extend(dimensions.map(|(index, (count, token))| Counted::Sparse(index).record(&key, count, token)));
    }
    let (id, total) = Counted::Str("total_count".into()).record("summary", records(view), None);
    output.insert(id, total);
    Ok(output)
}

/// How many sparse vectors under a key have each dimension, with the first token that one has for it. Tokens lie in the
/// records only.
fn count_sparse(snapshot: &ReadSnapshot<'_>, key: &str) -> Result<HashMap<u32, (i64, Option<String>)>, Error> {
    let (view, mut offsets) = (&snapshot.view, Vec::new());
    let mut counts: HashMap<u32, (i64, Option<String>)> = HashMap::new();
    view.visit_typed(key, view.live(), &[ValueType::Sparse], &mut |offset, _| {
        offsets.push(offset);
        ControlFlow::Continue(())
    })?;
    let parts = Parts { metadata: true, ..Parts::default() };
    let mut failed = None;
    snapshot.reader.rows(snapshot.number, &offsets, parts, &mut |row| {
        match row.metadata.map(Metadata::from_text) {
            Some(Ok(metadata)) => {
                if let Some(Value::Sparse(vector)) = metadata.get(key) {
                    for (at, index) in vector.indices().iter().enumerate() {
                        let (count, token) = counts.entry(*index).or_default();
                        *count += 1;
                        if token.is_none() {
                            *token = vector.tokens().and_then(|tokens| tokens.get(at)).cloned();
                        }
                    }
                }
            }
            Some(Err(error)) => failed = Some(Error::Damaged(format!("record '{}': {error}", row.id))),
            None => {}
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok(counts), Err)
}

/// A value as statistics tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Bool(bool),
    Int(i64),
    /// The bits of a float.
    Float(u64),
    Str(String),
    /// A dimension of sparse vectors.
    Sparse(u32),
}

impl Counted {
    /// The record that says how often it was found under a key, and its id; with how clients are to show the value.
    fn record(self, key: &str, count: i64, label: Option<String>) -> (String, OutputRecord) {
        let (prefix, name, value) = match self {
            Self::Bool(value) => ("b", "bool", value.to_string()),
            Self::Int(value) => ("i", "int", value.to_string()),
            Self::Float(bits) => ("f", "float", format!("{:.16e}", f64::from_bits(bits))),
            Self::Str(value) => ("s", "str", value),
            Self::Sparse(index) => ("sv", "sparse", index.to_string()),
        };
        let tagged = format!("{prefix}:{value}");
        let members = [("count", Value::Int(count)), ("key", Value::Str(key.to_owned()))];
        let members = members.into_iter().chain([("type", Value::Str(name.into())), ("value", Value::Str(value))]);
        let label = label.map(|label| ("value_label", Value::Str(label)));
        let metadata = Metadata::from_iter(members.chain(label));
        let document = format!("statistics about {key} for {tagged}");
        (format!("{key}::{tagged}"), OutputRecord { metadata, document })
    }
}

#[derive(Default)]
struct Counts(HashMap<Counted, i64>);

impl Counts {
    fn add(&mut self, value: Counted, records: u64) {
        *self.0.entry(value).or_default() += i64::try_from(records).unwrap_or(i64::MAX);
    }
}

impl Values for Counts {
    fn bools(&mut self, value: bool, records: u64) {
        self.add(Counted::Bool(value), records);
    }

    fn int(&mut self, value: i64) {
        self.add(Counted::Int(value), 1);
    }

    fn float(&mut self, value: f64) {
        self.add(Counted::Float(value.to_bits()), 1);
    }

    fn strings(&mut self, value: &str, records: u64) {
        self.add(Counted::Str(value.to_owned()), records);
    }

    fn list(&mut self, value: &Value) {
        match value {
            Value::Bools(list) => list.iter().for_each(|value| self.add(Counted::Bool(*value), 1)),
            Value::Ints(list) => list.iter().for_each(|value| self.add(Counted::Int(*value), 1)),
            Value::Floats(list) => list.iter().for_each(|value| self.add(Counted::Float(value.to_bits()), 1)),
            Value::Strs(list) => list.iter().for_each(|value| self.add(Counted::Str(value.clone()), 1)),
            _ => {}
        }
    }
}
