//! The planner: exact search or a walk of the graph, whichever is cheaper, and exact whenever the graph
//! cannot give what was asked.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::bitmap::Bitmap;
use crate::distance::Metric;
use crate::view::{Damaged, View};

/// A walk measures about this many nodes for each candidate it keeps.
const MEASURED_PER_KEPT: usize = 12;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'a> {
    /// The query, of the collection's dimension.
    pub query: &'a [f32],
    /// How many to find.
    pub k: usize,
    /// Candidates a walk keeps; raised to `k` if lower.
    pub ef_search: usize,
    /// Up to this many matches are all measured: that beats any walk.
    pub exact_max: usize,
    /// Only these offsets, if given; they must be live.
    pub matches: Option<&'a Bitmap>,
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its offset.
    pub offset: u32,
    /// Its exact distance.
    pub distance: f32,
}

/// How an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// There was nothing to search.
    Empty,
    /// Every match was measured.
    Exact,
    /// The graph was walked, and the tail measured.
    Graph,
    /// The graph was walked, found too few or took too long, and every match was measured after all.
    GraphThenExact,
}

/// What a search did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the answer was found.
    pub strategy: Strategy,
    /// Nodes of the graph that were measured by code.
    pub visited: usize,
    /// Vectors that were measured exactly.
    pub measured: usize,
    /// Records the filter left, the whole collection without one.
    pub matches: usize,
    /// How many of the measured ones were in the tail.
    pub tail: usize,
}

/// The `k` matches nearest to the query, nearest first, ties by offset; exactly min(k, matches) of them.
/// Distances are exact; which records are found is approximate when the graph was walked.
///
/// # Errors
/// [`Damaged`] if a vector that had to be measured cannot be read.
pub fn nearest(view: &View, wanted: Nearest<'_>) -> Result<(Vec<Hit>, Plan), Damaged> {
    let matches = wanted.matches.unwrap_or_else(|| view.live());
    let mut plan = Plan { strategy: Strategy::Empty, visited: 0, measured: 0, matches: matches.len(), tail: 0 };
    if wanted.k == 0 || matches.is_empty() {
        return Ok((Vec::new(), plan));
    }
    let metric = Metric::new(view.space(), wanted.query);
    if let Some(hits) = walk(view, &wanted, matches, &metric, &mut plan)? {
        return Ok((hits, plan));
    }
    plan.strategy = if plan.visited > 0 { Strategy::GraphThenExact } else { Strategy::Exact };
    let mut best = Best::new(wanted.k);
    for offset in matches.iter() {
        measure(view, &metric, offset, &mut best)?;
    }
    plan.measured += matches.len();
    Ok((best.into_sorted(), plan))
}

/// Walks the graph if that is worth it; `None` if every match has to be measured.
fn walk(
    view: &View, wanted: &Nearest<'_>, matches: &Bitmap, metric: &Metric<'_>, plan: &mut Plan,
) -> Result<Option<Vec<Hit>>, Damaged> {
    let Some(graph) = view.graph().filter(|graph| !graph.is_empty()) else { return Ok(None) };
    let ef = wanted.ef_search.max(wanted.k);
    // With a filter that lets through one node in s, a walk crosses s times as many for each it keeps.
    let walked = ef.saturating_mul(MEASURED_PER_KEPT).saturating_mul(view.live().len()) / matches.len();
    if matches.len() <= wanted.exact_max || walked >= matches.len() {
        return Ok(None);
    }
    let query = graph.encode(wanted.query);
    let mut accept = |node| {
        let node = graph.node(node);
        view.vector_id(node.offset) == Some(node.vector_id)
            && view.in_graph().contains(node.offset)
            && wanted.matches.is_none_or(|matches| matches.contains(node.offset))
    };
    let found = graph.walk(&query, ef, matches.len(), &mut accept);
    plan.visited = found.visited;
    // A vector that was lost from the graph and added again has two nodes.
    let mut offsets: Vec<u32> = found.nodes.iter().map(|node| graph.node(*node).offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let in_graph = matches.and(view.in_graph()).len();
    if found.gave_up || offsets.len() < wanted.k.min(in_graph) || found.nodes.len() < ef.min(in_graph) {
        return Ok(None);
    }
    plan.strategy = Strategy::Graph;
    let mut best = Best::new(wanted.k);
    for offset in &offsets {
        measure(view, metric, *offset, &mut best)?;
    }
    let tail = matches.and_not(view.in_graph());
    for offset in tail.iter() {
        measure(view, metric, offset, &mut best)?;
    }
    plan.tail = tail.len();
    plan.measured = offsets.len() + tail.len();
    Ok(Some(best.into_sorted()))
}

fn measure(view: &View, metric: &Metric<'_>, offset: u32, best: &mut Best) -> Result<(), Damaged> {
    let (vector, norm) = view.vector(offset)?;
    best.offer(Hit { offset, distance: metric.distance(vector, norm) });
    Ok(())
}

impl Eq for Hit {}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.offset.cmp(&other.offset))
    }
}

/// The `k` best hits so far.
struct Best {
    k: usize,
    hits: BinaryHeap<Hit>,
}

impl Best {
    fn new(k: usize) -> Self {
        // `k` may be far beyond what there is to find.
        Self { k, hits: BinaryHeap::with_capacity(k.min(1024) + 1) }
    }

    fn offer(&mut self, hit: Hit) {
        if self.hits.len() < self.k {
            self.hits.push(hit);
        } else if self.hits.peek().is_some_and(|worst| hit < *worst) {
            self.hits.pop();
            self.hits.push(hit);
        }
    }

    fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec()
    }
}
