//! What a search scores records by, and how it groups them. Lower scores are better, as for distances.

use crate::sparse::SparseVector;

/// An expression whose value is the score of a record.
///
/// Arithmetic is that of `f32`. A record has no value where one of the parts has none for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Rank {
    /// The same value for every record.
    Value(f32),
    /// How near a record is to a query.
    Knn(Knn),
    /// All of them added, from left to right; there is at least one, here and in the other lists.
    Sum(Vec<Rank>),
    /// All of them multiplied.
    Product(Vec<Rank>),
    /// The largest.
    Max(Vec<Rank>),
    /// The smallest.
    Min(Vec<Rank>),
    /// The first less the second.
    Difference(Box<[Rank; 2]>),
    /// The first divided by the second; infinite or not a number where the second is 0.
    Quotient(Box<[Rank; 2]>),
    /// Without its sign.
    Abs(Box<Rank>),
    /// e raised to it.
    Exp(Box<Rank>),
    /// Its natural logarithm; not a number below 0.
    Log(Box<Rank>),
}

/// The records nearest to a query, as a part of a [`Rank`]: those have their distance or their rank as their value.
#[derive(Clone, Debug, PartialEq)]
pub struct Knn {
    /// What they are compared with.
    pub query: KnnQuery,
    /// How many are found, at least 1; of the records that pass the filter.
    pub limit: u32,
    /// The value of every other record that another part of the expression finds; without one, those have no score.
    pub default: Option<f32>,
    /// The value is the place among those found, from 0, instead of the distance.
    pub return_rank: bool,
    /// None that are farther are found.
    pub max_distance: Option<f32>,
}

/// What a [`Knn`] compares records with.
#[derive(Clone, Debug, PartialEq)]
pub enum KnnQuery {
    /// Their embeddings with this one, of the collection's dimension, in its space.
    Embedding(Vec<f32>),
    /// Their sparse vectors under a metadata key with this one: the distance is 1 less the inner product. Records that
    /// share no index with it are not found.
    Sparse {
        /// The key, which has an index of sparse vectors.
        key: String,
        /// The query.
        vector: SparseVector,
    },
    /// Their documents with the words of this text: the distance is 1 less the score of BM25. Documents that share no
    /// word with it are not found.
    Text(String),
}

impl Knn {
    /// The 16 nearest, by their distances; no other record has a value.
    pub fn new(query: impl Into<Vec<f32>>) -> Self {
        Self::of(KnnQuery::Embedding(query.into()))
    }

    /// The 16 nearest by their sparse vectors under a key.
    pub fn sparse(key: impl Into<String>, vector: SparseVector) -> Self {
        Self::of(KnnQuery::Sparse { key: key.into(), vector })
    }

    /// The 16 whose documents fit a text best, by its words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(KnnQuery::Text(text.into()))
    }

    fn of(query: KnnQuery) -> Self {
        Self { query, limit: 16, default: None, return_rank: false, max_distance: None }
    }

    /// How many are found.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// The value of every other record.
    #[must_use]
    pub fn default(mut self, default: f32) -> Self {
        self.default = Some(default);
        self
    }

    /// None that are farther are found.
    #[must_use]
    pub fn max_distance(mut self, max_distance: f32) -> Self {
        self.max_distance = Some(max_distance);
        self
    }

    /// Gives places instead of distances.
    #[must_use]
    pub fn return_rank(mut self) -> Self {
        self.return_rank = true;
        self
    }
}

impl From<Knn> for Rank {
    fn from(knn: Knn) -> Self {
        Self::Knn(knn)
    }
}

impl Rank {
    /// Reciprocal rank fusion: −Σ weight / (`k` + rank), of parts that give places ([`Knn::return_rank`]); 60 is the
    /// usual `k`. Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
    /// Rank Learning Methods" (SIGIR 2009).
    pub fn reciprocal_rank_fusion(parts: impl IntoIterator<Item = (Rank, f32)>, k: f32) -> Self {
        let term =
            |(rank, weight)| Self::Quotient(Box::new([Self::Value(weight), Self::Sum(vec![Self::Value(k), rank])]));
        Self::Product(vec![Self::Value(-1.0), Self::Sum(parts.into_iter().map(term).collect())])
    }

    /// Calls `visit` with every [`Knn`], in the order in which the expression is written.
    pub fn for_each_knn<'r>(&'r self, visit: &mut impl FnMut(&'r Knn)) {
        match self {
            Self::Value(_) => {}
            Self::Knn(knn) => visit(knn),
            Self::Sum(parts) | Self::Product(parts) | Self::Max(parts) | Self::Min(parts) => {
                parts.iter().for_each(|part| part.for_each_knn(visit));
            }
            Self::Difference(parts) | Self::Quotient(parts) => parts.iter().for_each(|part| part.for_each_knn(visit)),
            Self::Abs(part) | Self::Exp(part) | Self::Log(part) => part.for_each_knn(visit),
        }
    }
}

/// Puts the records that a search scored into groups, and keeps some of each.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupBy {
    /// The metadata keys whose values make a group, at least one. Records that lack a key are a group of their own;
    /// numbers are compared as real numbers.
    pub keys: Vec<String>,
    /// What the records of a group are ordered by, the first first; ties by score, then by insertion order. A missing
    /// value is less than any other.
    pub order_by: Vec<GroupOrder>,
    /// Whether those with the largest values are kept instead of those with the smallest.
    pub keeps_largest: bool,
    /// How many of each group are kept, at least 1.
    pub k: u32,
}

/// What the records of a group are ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOrder {
    /// Their scores.
    Score,
    /// Their values under a metadata key: booleans before numbers before strings.
    Key(String),
}
