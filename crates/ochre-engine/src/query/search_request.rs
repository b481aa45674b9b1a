//! What a search is asked, and what it answers.

use ochre_index::{Hints, Strategy};
use ochre_model::{Filter, GroupBy, Rank};

use crate::collection::record::{Include, Record};
use crate::query::explain::Explain;
use crate::query::request::FilterWarnings;

/// One search: the records that pass a filter, scored by an expression, best first.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// What records are scored by: those that at least one [`Knn`](ochre_model::Knn) of it finds, or all if it has
    /// none. Without an expression records have no scores, and come in the order they were first inserted.
    pub rank: Option<Rank>,
    /// Keeps some of each group of what was scored.
    pub group_by: Option<GroupBy>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Skip this many first.
    pub offset: u32,
    /// What to return of each.
    pub select: Select,
}

impl Search {
    /// The ten best by an expression, ids and scores only.
    pub fn by(rank: impl Into<Rank>) -> Self {
        Self { rank: Some(rank.into()), limit: Some(10), ..Self::default() }
    }

    /// Only what passes this.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What to return of each record beside its id and score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Whole parts.
    pub include: Include,
    /// Of metadata that is not returned whole, what is under these keys.
    pub keys: Vec<String>,
}

/// Searches that are answered together, from one committed state.
#[derive(Clone, Debug, Default)]
pub struct SearchRequest {
    /// The searches; each has an answer of its own.
    pub searches: Vec<Search>,
    /// How to search vectors, whatever it costs, as far as that is possible; the planner's choice if absent.
    pub hint: Option<Strategy>,
    /// How declared indexes may be used.
    pub hints: Hints,
    /// Say how the records were found.
    pub explain: bool,
}

impl From<Search> for SearchRequest {
    fn from(search: Search) -> Self {
        Self { searches: vec![search], ..Self::default() }
    }
}

/// A record that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// The record.
    pub record: Record,
    /// Its score, the lower the better; `None` if the search had no rank expression.
    pub score: Option<f32>,
}

/// The answer to a [`SearchRequest`].
#[derive(Clone, Debug, Default)]
pub struct SearchResults {
    /// For each search its hits, best first, ties by insertion order.
    pub results: Vec<Vec<SearchHit>>,
    /// What the filters should be looked at for.
    pub warnings: FilterWarnings,
    /// How each was answered, if that was asked for.
    pub explain: Option<Vec<Explain>>,
}
