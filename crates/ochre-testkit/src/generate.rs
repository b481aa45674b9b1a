//! Seeded generators of records, filters and operations, with collisions made likely.

use fastrand::Rng;
use ochre_model::{
    DocumentTest, Embeddings, Filter, MetadataPatch, RecordBatch, Scalar, SparseVector, Test, Value, WriteKind,
};
use regex::Regex;

/// One step of a random workload.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Add, update or upsert.
    Write(WriteKind, RecordBatch),
    /// Delete by ids.
    DeleteIds(Vec<String>),
    /// Delete by filter, ids and limit.
    DeleteMatching(Option<Vec<String>>, Filter, Option<u32>),
}

/// Makes things up, the same for the same seed.
pub struct Generator {
    /// The source of chance.
    pub rng: Rng,
    dimension: usize,
    ids: u32,
}

impl Generator {
    /// A generator of embeddings of this dimension, and of ids out of this many. `OCHRE_TEST_SEED` is added to the
    /// seed, and printed, so that other sequences can be tried, and one that failed again.
    #[expect(clippy::print_stdout, reason = "shown if the test fails")]
    pub fn new(seed: u64, dimension: usize, ids: u32) -> Self {
        let added = std::env::var("OCHRE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
        println!("OCHRE_TEST_SEED={added}");
        let seed = seed.wrapping_add(added);
        Self { rng: Rng::with_seed(seed), dimension, ids }
    }

    /// An id.
    pub fn id(&mut self) -> String {
        let number = self.rng.u32(0..self.ids);
        // Some ids are awkward on purpose.
        if number.is_multiple_of(97) { format!("id\0'\"ü {number}") } else { format!("id{number}") }
    }

    /// An embedding.
    pub fn embedding(&mut self) -> Vec<f32> {
        if self.rng.u8(0..40) == 0 {
            return vec![0.0; self.dimension];
        }
        (0..self.dimension).map(|_| self.rng.f32() * 2.0 - 1.0).collect()
    }

    fn text(&mut self) -> String {
        let words = ["apple", "Bear", "ça", "日本", "%_", "x", ""];
        (0..self.rng.usize(0..4)).map(|_| *self.rng.choice(&words).expect("not empty")).collect::<Vec<_>>().join(" ")
    }

    /// A number near the edges where integers and floats differ.
    fn int(&mut self) -> i64 {
        const P53: i64 = 1 << 53;
        *self.rng.choice(&[0, 1, 2, 3, -1, P53, P53 + 1, -P53 - 1, i64::MAX, i64::MIN]).expect("not empty")
    }

    fn float(&mut self) -> f64 {
        const P53: f64 = 9_007_199_254_740_992.0;
        *self.rng.choice(&[0.0, 1.0, 1.5, 2.0, -1.0, 0.25, P53, -P53, 9.3e18, -9.3e18, 1e300]).expect("not empty")
    }

    fn value(&mut self) -> Value {
        match self.rng.u8(0..10) {
            0 => Value::Bool(self.rng.bool()),
            1 | 2 => Value::Int(self.int()),
            3 | 4 => Value::Float(self.float()),
            5 => Value::Ints(vec![self.int(), self.int()]),
            6 => Value::Strs(vec![self.text()]),
            7 => Value::Floats(vec![self.float()]),
            8 => {
                let tokens = self.rng.bool().then(|| vec![self.text(), self.text()]);
                let vector = SparseVector::new(vec![self.rng.u32(0..9), u32::MAX], vec![0.1, -2.0], tokens);
                Value::Sparse(Box::new(vector.expect("is well-formed")))
            }
            _ => Value::Str(self.text()),
        }
    }

    /// A metadata key.
    fn key(&mut self) -> String {
        (*self.rng.choice(&["a", "b", "c", "a.b", "deep key"]).expect("not empty")).to_owned()
    }

    fn patch(&mut self, nulls: bool) -> MetadataPatch {
        let pairs: Vec<_> = (0..self.rng.usize(0..4))
            .map(|_| {
                let value = if nulls && self.rng.u8(0..4) == 0 { None } else { Some(self.value()) };
                (self.key(), value)
            })
            .collect();
        MetadataPatch::parse(pairs).expect("made to be valid")
    }

    /// An operand for a test on metadata.
    fn scalar(&mut self) -> Scalar {
        match self.rng.u8(0..5) {
            0 => Scalar::Bool(self.rng.bool()),
            1 => Scalar::Int(self.int()),
            2 => Scalar::Float(self.float()),
            _ => Scalar::Str(self.text()),
        }
    }

    fn number(&mut self) -> Scalar {
        if self.rng.bool() { Scalar::Int(self.int()) } else { Scalar::Float(self.float()) }
    }

    /// What a range begins or ends with: a number mostly, or a string.
    fn bound(&mut self) -> Scalar {
        if self.rng.u8(0..5) == 0 { Scalar::Str(self.text()) } else { self.number() }
    }

    fn test(&mut self) -> Test {
        match self.rng.u8(0..16) {
            0 => Test::Eq(self.scalar()),
            1 => Test::Ne(self.scalar()),
            2 => Test::Compare(Test::GREATER, self.bound()),
            3 => Test::Compare(Test::GREATER_OR_EQUAL, self.bound()),
            4 => Test::Compare(Test::LESS, self.bound()),
            5 => Test::Compare(Test::LESS_OR_EQUAL, self.bound()),
            6 => Test::In(vec![self.scalar(), self.number(), self.number()]),
            7 => Test::NotIn(vec![self.scalar(), self.scalar()]),
            8 => Test::Contains(self.scalar()),
            9 => Test::NotContains(self.scalar()),
            10 => {
                let text = self.text();
                let kept = self.rng.usize(0..3);
                Test::Prefix(text.chars().take(kept).collect())
            }
            14 | 15 => {
                let first = self.scalar();
                let mut operands = vec![first.clone()];
                for _ in 0..self.rng.usize(0..3) {
                    let other = self.scalar();
                    if other.value_type() == first.value_type() && !operands.contains(&other) {
                        operands.push(other);
                    }
                }
                if self.rng.bool() { Test::ContainsAll(operands) } else { Test::ContainsAny(operands) }
            }
            11 => Test::Size(self.rng.u64(0..4)),
            12 => Test::Exists,
            _ => Test::Missing,
        }
    }

    /// A filter, nested up to `depth`.
    pub fn filter(&mut self, depth: u32) -> Filter {
        match self.rng.u8(0..if depth == 0 { 6 } else { 10 }) {
            0..=3 => Filter::Key { key: self.key(), test: self.test() },
            4 | 5 => {
                let text = (*self.rng.choice(&["apple", "a", "日", "", "%", "Bear x"]).expect("not empty")).to_owned();
                let regex = Regex::new(self.rng.choice(&["^a", "(?i)bear", "日.", "x$", ""]).expect("not empty"))
                    .expect("valid");
                Filter::Document(match self.rng.u8(0..6) {
                    0 => DocumentTest::Contains(text),
                    1 => DocumentTest::NotContains(text),
                    2 => DocumentTest::Matches(regex),
                    3 => DocumentTest::NotMatches(regex),
                    4 => DocumentTest::Is(text),
                    _ => DocumentTest::IsNot(text),
                })
            }
            6 | 7 => Filter::All((0..self.rng.usize(0..4)).map(|_| self.filter(depth - 1)).collect()),
            8 => Filter::Any((0..self.rng.usize(0..4)).map(|_| self.filter(depth - 1)).collect()),
            _ => {
                let ids = (0..self.rng.usize(0..30)).map(|_| self.id()).collect();
                if self.rng.u8(0..4) == 0 { Filter::NotIds(ids) } else { Filter::Ids(ids) }
            }
        }
    }

    /// A batch of up to `count_max` records.
    pub fn batch(&mut self, kind: WriteKind, count_max: usize) -> RecordBatch {
        let count = self.rng.usize(1..=count_max);
        let ids: Vec<String> = (0..count).map(|_| self.id()).collect();
        let nulls = kind != WriteKind::Add;
        let embeddings = if kind == WriteKind::Update {
            let present: Vec<bool> = (0..count).map(|_| self.rng.bool()).collect();
            let rows = present.iter().filter(|present| **present).count();
            let values: Vec<f32> = (0..rows).flat_map(|_| self.embedding()).collect();
            let dimension = if rows == 0 { 0 } else { self.dimension };
            self.rng.bool().then(|| Embeddings::from_some_rows(dimension, values, &present))
        } else {
            let values = (0..count).flat_map(|_| self.embedding()).collect();
            Some(Embeddings::from_rows(self.dimension, values))
        };
        let some = |generator: &mut Self, chance: u8| generator.rng.u8(0..4) < chance;
        RecordBatch {
            ids,
            embeddings,
            metadatas: some(self, 3).then(|| (0..count).map(|_| some(self, 3).then(|| self.patch(nulls))).collect()),
            documents: some(self, 3).then(|| (0..count).map(|_| some(self, 3).then(|| self.text())).collect()),
            uris: some(self, 1).then(|| (0..count).map(|_| some(self, 2).then(|| self.text())).collect()),
        }
    }

    /// The next step of a workload with batches of up to `count_max` records.
    pub fn operation(&mut self, count_max: usize) -> Operation {
        match self.rng.u8(0..12) {
            0..=4 => Operation::Write(WriteKind::Add, self.batch(WriteKind::Add, count_max)),
            5 | 6 => Operation::Write(WriteKind::Update, self.batch(WriteKind::Update, count_max)),
            7 | 8 => Operation::Write(WriteKind::Upsert, self.batch(WriteKind::Upsert, count_max)),
            9 | 10 => Operation::DeleteIds((0..self.rng.usize(1..=count_max)).map(|_| self.id()).collect()),
            _ => {
                let ids = self.rng.bool().then(|| (0..self.rng.usize(0..40)).map(|_| self.id()).collect());
                let limit = self.rng.bool().then(|| self.rng.u32(0..20));
                let filter = self.filter(2);
                // Without ids, a filter without conditions is refused: it would delete everything.
                let ids = ids.or_else(|| filter.is_without_conditions().then(Vec::new));
                Operation::DeleteMatching(ids, filter, limit)
            }
        }
    }
}
