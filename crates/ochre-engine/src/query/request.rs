//! What get and query are asked, and what they answer.

use ochre_index::{Hints, Plan, Strategy};
use ochre_model::{Cursor, Filter, OrderBy};

use crate::collection::record::{Include, Record};
use crate::metadata_index::unindexed::UnindexedFilter;
use crate::query::explain::Explain;

/// Which records to get: all that satisfy everything given, in the order they were first inserted unless another is
/// given.
#[derive(Clone, Debug, Default)]
pub struct GetRequest {
    /// Only these ids; unknown ones are skipped.
    pub ids: Option<Vec<String>>,
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Skip this many first.
    pub offset: u32,
    /// What they are sorted by: the first that differs decides.
    pub order_by: Vec<OrderBy>,
    /// Only those that come after this.
    pub after: Option<Cursor>,
    /// Say where the next page begins, also where they are neither sorted nor after anything.
    pub is_paged: bool,
    /// Only if none of those found was inserted or changed after this position, that of an earlier read.
    pub unchanged_since: Option<u64>,
    /// What to return of each.
    pub include: Include,
    /// How declared indexes may be used.
    pub hints: Hints,
    /// Say how the records were found.
    pub explain: bool,
}

impl GetRequest {
    /// The records of these ids.
    pub fn of<Id: Into<String>>(ids: impl IntoIterator<Item = Id>) -> Self {
        Self { ids: Some(ids.into_iter().map(Into::into).collect()), ..Self::default() }
    }
}

/// What to search for, and among which records.
#[derive(Clone, Debug)]
pub struct Query {
    /// The query embeddings; each has an answer of its own.
    pub embeddings: Vec<Vec<f32>>,
    /// How many records to find for each; fewer come back only if fewer match.
    pub k: usize,
}

/// A search: [`Query`] plus what restricts and shapes the answer.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// What to search for.
    pub query: Query,
    /// Only these ids; unknown ones are ignored.
    pub ids: Option<Vec<String>>,
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// None that are farther; fewer than `k` may come back then.
    pub max_distance: Option<f32>,
    /// What to return of each record found.
    pub include: Include,
    /// How to search, whatever it costs, as far as that is possible; the planner's choice if absent.
    pub hint: Option<Strategy>,
    /// How declared indexes may be used.
    pub hints: Hints,
    /// Say how the records were found.
    pub explain: bool,
}

impl QueryRequest {
    /// The ten records nearest to one embedding, ids and distances only.
    pub fn nearest_to(embedding: impl Into<Vec<f32>>) -> Self {
        let query = Query { embeddings: vec![embedding.into()], k: 10 };
        Self {
            query,
            ids: None,
            filter: None,
            max_distance: None,
            include: Include::NONE,
            hint: None,
            hints: Hints::default(),
            explain: false,
        }
    }

    /// How many to find.
    #[must_use]
    pub fn k(mut self, k: usize) -> Self {
        self.query.k = k;
        self
    }

    /// Only what passes this.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// None that are farther.
    #[must_use]
    pub fn max_distance(mut self, max_distance: f32) -> Self {
        self.max_distance = Some(max_distance);
        self
    }

    /// What to return.
    #[must_use]
    pub fn include(mut self, include: Include) -> Self {
        self.include = include;
        self
    }
}

/// What a filter should be looked at for: the request was answered all the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterWarnings {
    /// Parts that can never match what the collection declares, a sentence each.
    pub never_match: Vec<String>,
    /// That no declared index answers it, and what to do about it, if that is to be said.
    pub unindexed: Option<UnindexedFilter>,
}

/// The answer to a get.
#[derive(Clone, Debug, Default)]
pub struct GetResults {
    /// The records, in the order that was asked for.
    pub records: Vec<Record>,
    /// The place of the last of them, if this is a page and others come after it.
    pub next: Option<Cursor>,
    /// The position of the collection that they are of.
    pub position: u64,
    /// What the filter should be looked at for.
    pub warnings: FilterWarnings,
    /// How they were found, if that was asked for.
    pub explain: Option<Explain>,
}

/// A record that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryHit {
    /// The record.
    pub record: Record,
    /// Its exact distance, in the collection's space. Smaller is nearer.
    pub distance: f32,
}

/// The answer to a query.
#[derive(Clone, Debug, Default)]
pub struct QueryResults {
    /// For each query embedding its hits, nearest first, ties by insertion order.
    pub results: Vec<Vec<QueryHit>>,
    /// How each was found.
    pub plans: Vec<Plan>,
    /// What the filter should be looked at for.
    pub warnings: FilterWarnings,
    /// How all of it was found, if that was asked for.
    pub explain: Option<Explain>,
}
