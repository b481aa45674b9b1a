//! Searches evaluated the naive way: one record at a time, from the definition of a rank expression.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use ochre_model::{Filter, GroupBy, GroupOrder, Knn, KnnQuery, Rank, Space, SparseVector, Value};

use crate::generate::Generator;
use crate::oracle::{Oracle, OracleRecord, distance};

/// A search over the records of an oracle.
#[derive(Clone, Debug)]
pub struct NaiveSearch {
    /// What restricts it.
    pub filter: Option<Filter>,
    /// What records are scored by.
    pub rank: Option<Rank>,
    /// What they are grouped by.
    pub group_by: Option<GroupBy>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Skip this many.
    pub offset: u32,
    /// The keys whose sparse vectors are weighted as BM25 has it.
    pub bm25_keys: Vec<String>,
}

impl NaiveSearch {
    /// The ids of what is found, in order, each with its score.
    pub fn run(&self, oracle: &Oracle, space: Space) -> Vec<(String, Option<f32>)> {
        let matching = oracle.matching(None, self.filter.as_ref());
        let scored: Vec<(usize, Option<f32>)> = match &self.rank {
            None => matching.iter().map(|index| (*index, None)).collect(),
            Some(rank) => self.scored(rank, oracle, space, &matching),
        };
        let page = scored.into_iter().skip(self.offset as usize).take(self.limit.map_or(usize::MAX, |l| l as usize));
        page.map(|(index, score)| (oracle.records[index].id.clone(), score)).collect()
    }

    /// The values of a sparse query, times how rare their indices are if the key is weighted.
    fn weights(&self, key: &str, query: &SparseVector, records: &[OracleRecord]) -> Vec<(u32, f32)> {
        let rarity = |wanted: u32| {
            let has =
                |record: &&OracleRecord| sparse(record, key).is_some_and(|vector| vector.indices().contains(&wanted));
            let (all, having) = (records.len() as f32, records.iter().filter(has).count() as f32);
            ((all - having + 0.5) / (having + 0.5)).ln_1p()
        };
        let is_weighted = self.bm25_keys.iter().any(|own| own == key);
        query.iter().map(|(index, value)| (index, if is_weighted { rarity(index) * value } else { value })).collect()
    }

    fn scored(&self, rank: &Rank, oracle: &Oracle, space: Space, matching: &[usize]) -> Vec<(usize, Option<f32>)> {
        let mut knns: Vec<(&Knn, Vec<(usize, f64)>)> = Vec::new();
        rank.for_each_knn(&mut |knn| {
            let records = matching.iter().map(|index| (*index, &oracle.records[*index]));
            let mut all: Vec<(usize, f64)> = match &knn.query {
                KnnQuery::Embedding(query) => {
                    records.map(|(index, record)| (index, distance(space, query, &record.embedding))).collect()
                }
                KnnQuery::Sparse { key, vector } => {
                    let weights = self.weights(key, vector, &oracle.records);
                    let distances =
                        records.map(|(index, record)| (index, sparse_distance(&weights, sparse(record, key))));
                    distances.filter_map(|(index, distance)| Some((index, distance?))).collect()
                }
                KnnQuery::Text(text) => {
                    let documents = oracle.records.iter().map(|record| record.document.as_deref());
                    let distances = bm25_distances(text, &documents.collect::<Vec<_>>());
                    records.filter_map(|(index, _)| Some((index, distances[index]?))).collect()
                }
            };
            #[expect(clippy::cast_possible_truncation, reason = "distances are f32")]
            all.retain(|(_, distance)| knn.max_distance.is_none_or(|max| *distance as f32 <= max));
            all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
            all.truncate(knn.limit as usize);
            knns.push((knn, all));
        });
        let is_found =
            |index| knns.is_empty() || knns.iter().any(|(_, found)| found.iter().any(|(at, _)| *at == index));
        let mut scored = Vec::new();
        for index in matching.iter().copied().filter(|index| is_found(*index)) {
            let mut of_knns = knns.iter().map(|(knn, found)| {
                let place = found.iter().position(|(at, _)| *at == index);
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "scores are f32")]
                place.map(|place| if knn.return_rank { place as f32 } else { found[place].1 as f32 }).or(knn.default)
            });
            if let Some(score) = value(rank, &mut of_knns) {
                scored.push((index, score));
            }
        }
        scored.sort_by(|a, b| by_score(a.1, b.1).then(a.0.cmp(&b.0)));
        if let Some(group_by) = &self.group_by {
            scored = kept(group_by, &scored, &oracle.records);
        }
        scored.into_iter().map(|(index, score)| (index, Some(score))).collect()
    }
}

fn sparse<'r>(record: &'r OracleRecord, key: &str) -> Option<&'r SparseVector> {
    match record.metadata.as_ref()?.get(key)? {
        Value::Sparse(vector) => Some(vector),
        _ => None,
    }
}

/// One less the inner product; nothing if no index is shared.
fn sparse_distance(query: &[(u32, f32)], vector: Option<&SparseVector>) -> Option<f64> {
    let of = |wanted: u32| vector?.iter().find(|(index, _)| *index == wanted).map(|(_, value)| value);
    let shared: Vec<f32> = query.iter().filter_map(|(index, weight)| Some(weight * of(*index)?)).collect();
    (!shared.is_empty()).then(|| f64::from(1.0 - shared.iter().fold(0.0, |sum, part| sum + part)))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

/// One less the score of each document by BM25, in steps of 2⁻¹⁸; nothing for those that share no word with the text.
/// Words are letters of English divided by spaces.
#[expect(clippy::cast_precision_loss, reason = "scores are floats")]
pub fn bm25_distances(text: &str, documents: &[Option<&str>]) -> Vec<Option<f64>> {
    let documents: Vec<Option<Vec<String>>> = documents.iter().map(|document| document.map(words)).collect();
    let known: Vec<&Vec<String>> = documents.iter().flatten().collect();
    let mean = known.iter().map(|words| words.len()).sum::<usize>() as f32 / known.len() as f32;
    let times = |words: &[String], wanted: &str| words.iter().filter(|word| *word == wanted).count();
    let queried = words(text);
    let different: BTreeSet<&String> = queried.iter().collect();
    let weight = |word: &&String| {
        let having = known.iter().filter(|words| words.contains(word)).count() as f32;
        let rarity = ((known.len() as f32 - having + 0.5) / (having + 0.5)).ln_1p();
        rarity * times(&queried, word) as f32 * (1.2_f32 + 1.0) * 262_144.0
    };
    let weights: Vec<f32> = different.iter().map(weight).collect();
    let score = |document: &Vec<String>| {
        let weighted = different.iter().zip(&weights).filter(|(word, _)| document.contains(word));
        let parts: Vec<f64> = weighted
            .map(|(word, weight)| {
                let norm = 1.2 * (1.0 - 0.75) + 1.2 * 0.75 / mean * document.len() as f32;
                f64::from((weight / (1.0 + norm / times(document, word) as f32) + 0.5).floor().max(1.0))
            })
            .collect();
        (!parts.is_empty()).then(|| 1.0 - parts.iter().sum::<f64>() / 262_144.0)
    };
    documents.iter().map(|document| document.as_ref().and_then(score)).collect()
}

fn by_score(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).expect("both are numbers"),
        (a, b) => a.cmp(&b),
    }
}

/// The value of an expression for one record, whose values of the queries come in order.
fn value(rank: &Rank, knns: &mut impl Iterator<Item = Option<f32>>) -> Option<f32> {
    // All parts are asked, so that every query is taken from the list where it belongs.
    let mut all = |parts: &[Rank]| -> Option<Vec<f32>> {
        let values: Vec<Option<f32>> = parts.iter().map(|part| value(part, knns)).collect();
        values.into_iter().collect()
    };
    Some(match rank {
        Rank::Value(value) => *value,
        Rank::Knn(_) => return knns.next().expect("one for each query"),
        Rank::Sum(parts) => all(parts)?.into_iter().reduce(|a, b| a + b)?,
        Rank::Product(parts) => all(parts)?.into_iter().reduce(|a, b| a * b)?,
        Rank::Max(parts) => all(parts)?.into_iter().reduce(f32::max)?,
        Rank::Min(parts) => all(parts)?.into_iter().reduce(f32::min)?,
        Rank::Difference(parts) => all(&**parts).map(|values| values[0] - values[1])?,
        Rank::Quotient(parts) => all(&**parts).map(|values| values[0] / values[1])?,
        Rank::Abs(part) => value(part, knns)?.abs(),
        Rank::Exp(part) => value(part, knns)?.exp(),
        Rank::Log(part) => value(part, knns)?.ln(),
    })
}

/// A value that is compared: nothing, then booleans, numbers and strings. Numbers of the tests fit `f64`.
#[derive(Clone, PartialEq)]
enum Key {
    Missing,
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Key {
    fn of(record: &OracleRecord, key: &str) -> Self {
        match record.metadata.as_ref().and_then(|metadata| metadata.get(key)) {
            None => Self::Missing,
            Some(Value::Bool(b)) => Self::Bool(*b),
            #[expect(clippy::cast_precision_loss, reason = "small in the tests")]
            Some(Value::Int(int)) => Self::Number(*int as f64),
            Some(Value::Float(float)) => Self::Number(*float),
            Some(Value::Str(text)) => Self::Text(text.clone()),
            Some(list) => panic!("no test groups by a list: {list:?}"),
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let class = |key: &Self| match key {
            Self::Missing => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        };
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => match (a.is_nan(), b.is_nan()) {
                (false, false) => a.partial_cmp(b).expect("both are numbers"),
                (a, b) => a.cmp(&b),
            },
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (a, b) => class(a).cmp(&class(b)),
        }
    }
}

/// Of scored records, best first, those that so few others of their group come before that they are kept.
fn kept(group_by: &GroupBy, scored: &[(usize, f32)], records: &[OracleRecord]) -> Vec<(usize, f32)> {
    let group = |index: usize| -> Vec<Key> { group_by.keys.iter().map(|key| Key::of(&records[index], key)).collect() };
    let comes_before = |a: (usize, f32), b: (usize, f32)| {
        for order in &group_by.order_by {
            let key = |record: (usize, f32)| match order {
                GroupOrder::Score => Key::Number(f64::from(record.1)),
                GroupOrder::Key(key) => Key::of(&records[record.0], key),
            };
            let order = key(a).order(&key(b));
            if order.is_ne() {
                return if group_by.keeps_largest { order.is_gt() } else { order.is_lt() };
            }
        }
        by_score(a.1, b.1).then(a.0.cmp(&b.0)).is_lt()
    };
    let is_kept = |record: &(usize, f32)| {
        let of_group = scored.iter().filter(|other| {
            group(other.0).iter().zip(group(record.0)).all(|(a, b)| a.order(&b).is_eq())
                && comes_before(**other, *record)
        });
        of_group.count() < group_by.k as usize
    };
    scored.iter().copied().filter(is_kept).collect()
}

/// A random expression of up to this depth, over queries that `query` makes.
pub fn random_rank(generator: &mut Generator, depth: u32, query: &dyn Fn(&mut Generator) -> KnnQuery) -> Rank {
    let list = |generator: &mut Generator| -> Vec<Rank> {
        (0..generator.rng.usize(1..4)).map(|_| random_rank(generator, depth - 1, query)).collect()
    };
    let one = |generator: &mut Generator| Box::new(random_rank(generator, depth - 1, query));
    let two = |generator: &mut Generator| {
        Box::new([random_rank(generator, depth - 1, query), random_rank(generator, depth - 1, query)])
    };
    match generator.rng.u8(0..if depth == 0 { 4 } else { 13 }) {
        0 => Rank::Value(*generator.rng.choice(&[0.0, 1.0, -1.0, 0.5, 60.0]).expect("not empty")),
        1..=3 => Rank::Knn(Knn {
            query: query(generator),
            limit: generator.rng.u32(1..40),
            default: generator.rng.bool().then(|| *generator.rng.choice(&[0.0, 3.0, 1000.0]).expect("not empty")),
            return_rank: generator.rng.bool(),
            max_distance: (generator.rng.u8(0..4) == 0)
                .then(|| *generator.rng.choice(&[-1.0, 0.5, 1.0, 6.0, 20.0]).expect("not empty")),
        }),
        4 => Rank::Product(list(generator)),
        5 => Rank::Max(list(generator)),
        6 => Rank::Min(list(generator)),
        7 => Rank::Difference(two(generator)),
        8 => Rank::Quotient(two(generator)),
        9 => Rank::Abs(one(generator)),
        10 => Rank::Exp(one(generator)),
        11 => Rank::Log(one(generator)),
        _ => Rank::Sum(list(generator)),
    }
}
