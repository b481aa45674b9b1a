//! The naive model of a collection: a list, searched from end to end.

use std::cmp::Ordering;

use ochre_model::{DocumentTest, Filter, Metadata, RecordBatch, Scalar, Space, Test, Value, WriteKind};

/// A record as the oracle has it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct OracleRecord {
    pub id: String,
    pub embedding: Vec<f32>,
    pub metadata: Option<Metadata>,
    pub document: Option<String>,
    pub uri: Option<String>,
}

/// A collection, in insertion order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Oracle {
    /// The records.
    pub records: Vec<OracleRecord>,
}

impl Oracle {
    /// Does what an add, update or upsert means.
    pub fn write(&mut self, kind: WriteKind, batch: &RecordBatch) {
        for (index, id) in batch.ids.iter().enumerate() {
            let at = self.records.iter().position(|record| record.id == *id);
            match (at, kind) {
                (Some(_), WriteKind::Add) | (None, WriteKind::Update) => {}
                (Some(at), WriteKind::Update | WriteKind::Upsert) => {
                    let record = &mut self.records[at];
                    if let Some(row) = batch.embeddings.as_ref().and_then(|embeddings| embeddings.row(index)) {
                        record.embedding = row.to_vec();
                    }
                    if let Some(patch) = batch.metadata(index) {
                        let mut metadata = record.metadata.take().unwrap_or_default();
                        for (key, value) in patch.iter() {
                            metadata.set(key.to_owned(), value.cloned());
                        }
                        record.metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
                    }
                    if let Some(document) = batch.document(index) {
                        record.document = Some(document.to_owned());
                    }
                    if let Some(uri) = batch.uri(index) {
                        record.uri = Some(uri.to_owned());
                    }
                }
                (None, WriteKind::Add | WriteKind::Upsert) => self.records.push(OracleRecord {
                    id: id.clone(),
                    embedding: batch
                        .embeddings
                        .as_ref()
                        .and_then(|e| e.row(index))
                        .expect("a new record has one")
                        .to_vec(),
                    metadata: batch
                        .metadata(index)
                        .map(ochre_model::MetadataPatch::to_metadata)
                        .filter(|metadata| !metadata.is_empty()),
                    document: batch.document(index).map(str::to_owned),
                    uri: batch.uri(index).map(str::to_owned),
                }),
            }
        }
    }

    /// The positions of the records that pass.
    pub fn matching(&self, ids: Option<&[String]>, filter: Option<&Filter>) -> Vec<usize> {
        let passes = |record: &OracleRecord| {
            ids.is_none_or(|ids| ids.contains(&record.id)) && filter.is_none_or(|filter| filter_matches(filter, record))
        };
        (0..self.records.len()).filter(|index| passes(&self.records[*index])).collect()
    }

    /// Deletes by ids, or by filter (and ids); how many the answer counts.
    pub fn delete(&mut self, ids: Option<&[String]>, filter: Option<&Filter>, limit: Option<u32>) -> u64 {
        if filter.is_none() {
            let ids = ids.unwrap_or_default();
            self.records.retain(|record| !ids.contains(&record.id));
            return ids.len() as u64;
        }
        let mut doomed = self.matching(ids, filter);
        doomed.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
        for index in doomed.iter().rev() {
            self.records.remove(*index);
        }
        doomed.len() as u64
    }

    /// The distances of all matches to a query, nearest first, ties by insertion order.
    pub fn nearest(&self, space: Space, query: &[f32], matches: &[usize]) -> Vec<(usize, f64)> {
        let mut found: Vec<(usize, f64)> =
            matches.iter().map(|index| (*index, distance(space, query, &self.records[*index].embedding))).collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        found
    }
}

pub(crate) fn distance(space: Space, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    let dot: f64 = pairs().map(|(x, y)| x * y).sum();
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    match space {
        Space::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum(),
        Space::Ip => 1.0 - dot,
        Space::Cosine if norm(a) == 0.0 || norm(b) == 0.0 => 1.0,
        Space::Cosine => 1.0 - dot / (norm(a) * norm(b)),
    }
}

/// What a filter means for one record.
pub fn filter_matches(filter: &Filter, record: &OracleRecord) -> bool {
    match filter {
        Filter::All(parts) => parts.iter().all(|part| filter_matches(part, record)),
        Filter::Any(parts) => parts.iter().any(|part| filter_matches(part, record)),
        Filter::Ids(ids) => ids.contains(&record.id),
        Filter::NotIds(ids) => !ids.contains(&record.id),
        Filter::Key { key, test } => {
            test_matches(test, record.metadata.as_ref().and_then(|metadata| metadata.get(key)))
        }
        Filter::Document(test) => {
            let document = record.document.as_deref();
            match test {
                DocumentTest::Contains(text) => document.is_some_and(|document| document.contains(text.as_str())),
                DocumentTest::NotContains(text) => !document.is_some_and(|document| document.contains(text.as_str())),
                DocumentTest::Matches(regex) => document.is_some_and(|document| regex.is_match(document)),
                DocumentTest::NotMatches(regex) => !document.is_some_and(|document| regex.is_match(document)),
                DocumentTest::Is(text) => document == Some(text),
                DocumentTest::IsNot(text) => document != Some(text),
            }
        }
    }
}

fn test_matches(test: &Test, value: Option<&Value>) -> bool {
    let equals = |operand: &Scalar| value.is_some_and(|value| order(value, operand) == Some(Ordering::Equal));
    match test {
        Test::Eq(operand) => equals(operand),
        Test::Ne(operand) => !equals(operand),
        Test::In(list) => list.iter().any(equals),
        Test::NotIn(list) => !list.iter().any(equals),
        Test::Compare(orders, operand) => {
            let has_order = !matches!(operand, Scalar::Bool(_));
            has_order && value.and_then(|value| order(value, operand)).is_some_and(|order| orders.contains(&order))
        }
        Test::Contains(operand) => contains(value, operand),
        Test::NotContains(operand) => !contains(value, operand),
        Test::ContainsAll(operands) => operands.iter().all(|operand| contains(value, operand)),
        Test::ContainsAny(operands) => operands.iter().any(|operand| contains(value, operand)),
        Test::Prefix(prefix) => match value {
            Some(Value::Str(text)) => text.as_bytes().get(..prefix.len()) == Some(prefix.as_bytes()),
            _ => false,
        },
        Test::Size(size) => match value {
            Some(Value::Bools(list)) => list.len() as u64 == *size,
            Some(Value::Ints(list)) => list.len() as u64 == *size,
            Some(Value::Floats(list)) => list.len() as u64 == *size,
            Some(Value::Strs(list)) => list.len() as u64 == *size,
            _ => false,
        },
        Test::Exists => value.is_some(),
        Test::Missing => value.is_none(),
    }
}

fn contains(value: Option<&Value>, operand: &Scalar) -> bool {
    match (value, operand) {
        (Some(Value::Bools(list)), Scalar::Bool(x)) => list.contains(x),
        (Some(Value::Ints(list)), Scalar::Int(x)) => list.contains(x),
        (Some(Value::Floats(list)), Scalar::Float(x)) => list.contains(x),
        (Some(Value::Strs(list)), Scalar::Str(x)) => list.contains(x),
        _ => false,
    }
}

/// Compares as exact rationals: an i64 and an f64 both fit an i128 scaled by 2⁻ᵏ, or differ in size.
fn order(value: &Value, operand: &Scalar) -> Option<Ordering> {
    match (value, operand) {
        (Value::Bool(a), Scalar::Bool(b)) => (a == b).then_some(Ordering::Equal),
        (Value::Str(a), Scalar::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Int(a), Scalar::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Scalar::Float(b)) => exact(*a, *b),
        (Value::Float(a), Scalar::Int(b)) => exact(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

fn exact(int: i64, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= 1e30 {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    // Both scaled by 2²⁰: exact for every float whose lowest bit is no finer, which the generator keeps to.
    #[expect(clippy::cast_possible_truncation, reason = "below 2¹²⁰")]
    let scaled = (float * 1_048_576.0) as i128;
    Some((i128::from(int) << 20).cmp(&scaled))
}
