//! The planner: measure all matches, scan their codes, or search the graph, whichever is cheapest, with a
//! scan to fall back on whenever a search cannot give what was asked or takes longer than that.
//!
//! Whatever finds them, candidates are compared exactly, nearest by code first, until no other can be
//! among the best, given how far codes are known to err.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::bitmap::Bitmap;
use crate::distance::Metric;
use crate::graph::{GRAPH_SEARCH_COST, Graph, Near, Query, Wanted};
use crate::view::{Damaged, View};

/// A search measures about this many nodes on its way down to the lowest level …
const GRAPH_SEARCH_START: usize = 150;
/// … and this many for each candidate it keeps or crosses there.
const GRAPH_SEARCH_EACH: usize = 15;
/// Vectors asked for ahead of the one that is measured …
const ROWS_AHEAD: usize = 6;
/// … and before that where they lie, and before that whose they are: each tells where the next is.
const PLACES_AHEAD: usize = 12;
const NODES_AHEAD: usize = 18;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'a> {
    /// The query, of the collection's dimension.
    pub query: &'a [f32],
    /// How many to find.
    pub k: usize,
    /// Candidates a search keeps; raised to `k` if lower.
    pub ef_search: usize,
    /// Up to this many matches are all compared exactly, without a look at codes.
    pub exact_max: usize,
    /// Only these offsets, if given; they must be live.
    pub matches: Option<&'a Bitmap>,
    /// How to search, whatever it costs, as far as that is possible; the planner's choice if absent.
    pub hint: Option<Strategy>,
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
    /// Every match was compared exactly.
    Exact,
    /// The codes of every match were scanned.
    Scan,
    /// The graph was searched, and the unindexed vectors scanned.
    Graph,
    /// The graph was searched, found too few or took too long, and codes were scanned after all.
    GraphThenScan,
    /// The sparse vectors that share an index with the query were found by their indices.
    Postings,
    /// The documents that share a word with the query were found by their words.
    Terms,
}

impl Strategy {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Exact => "exact",
            Self::Scan => "scan",
            Self::Graph => "graph",
            Self::GraphThenScan => "graph-then-scan",
            Self::Postings => "postings",
            Self::Terms => "terms",
        }
    }
}

/// What a search did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the answer was found.
    pub strategy: Strategy,
    /// Nodes of the graph that a search measured by code.
    pub visited: usize,
    /// Codes that a scan measured; of sparse vectors and documents the postings that were read.
    pub scanned: usize,
    /// Vectors that were compared exactly; documents whose scores were completed.
    pub reranked: usize,
    /// Records the filter left, the whole collection without one.
    pub matches: usize,
    /// How many matches no search finds, because they are not linked yet.
    pub unindexed: usize,
    /// Vectors of the collection that the last check of its graph could not reach; they are among the unindexed
    /// vectors.
    pub unreachable: usize,
}

impl Plan {
    /// What was done, in a phrase.
    pub fn phrase(&self) -> String {
        let Self { strategy, visited, scanned, reranked, .. } = self;
        let name = strategy.name();
        match strategy {
            Strategy::Postings => format!("{name}: {scanned} postings read, {reranked} sparse vectors compared"),
            Strategy::Terms => format!("{name}: {scanned} postings read, {reranked} documents scored"),
            _ => format!(
                "{name}: {visited} nodes visited, {scanned} quantized vectors scanned, {reranked} vectors reranked"
            ),
        }
    }

    /// Of a search that has not begun.
    pub fn of(strategy: Strategy, matches: usize) -> Self {
        Self { strategy, visited: 0, scanned: 0, reranked: 0, matches, unindexed: 0, unreachable: 0 }
    }
}

/// The `k` matches nearest to the query, nearest first, ties by offset; exactly min(k, matches) of them.
/// Distances are exact; which records are found is approximate when the graph was searched.
///
/// # Errors
/// [`Damaged`] if a vector that had to be measured cannot be read.
pub fn nearest(view: &View, wanted: Nearest<'_>) -> Result<(Vec<Hit>, Plan), Damaged> {
    let matches = wanted.matches.unwrap_or_else(|| view.live());
    let mut plan = Plan { unreachable: view.unreachable_len(), ..Plan::of(Strategy::Empty, matches.len()) };
    if wanted.k == 0 || matches.is_empty() {
        return Ok((Vec::new(), plan));
    }
    let mut search = Search { view, metric: Metric::new(view.space(), wanted.query), best: Best::new(wanted.k) };
    let is_exact = match wanted.hint {
        None => matches.len() <= wanted.exact_max,
        Some(hint) => hint == Strategy::Exact,
    };
    let graph = view.graph().filter(|graph| !graph.is_empty() && !is_exact);
    let Some(graph) = graph else {
        plan.strategy = Strategy::Exact;
        search.measure_all(matches)?;
        plan.reranked = matches.len();
        return Ok((search.best.into_sorted(), plan));
    };
    let unindexed = if view.unindexed_len() == 0 { Bitmap::new() } else { matches.and_not(view.in_graph()) };
    plan.unindexed = unindexed.len();
    let query = graph.query(wanted.query);
    let linked = matches.len() - unindexed.len();
    let candidates = match search_graph(view, graph, &query, &wanted, linked, &mut plan) {
        Some(mut candidates) => {
            candidates.extend(scan(view, graph, &query, &unindexed, wanted.k, &mut plan));
            candidates.sort_unstable();
            candidates
        }
        None => {
            plan.strategy = if plan.visited > 0 { Strategy::GraphThenScan } else { Strategy::Scan };
            scan(view, graph, &query, matches, wanted.k, &mut plan)
        }
    };
    for offset in unindexed.iter().filter(|offset| !view.is_coded(*offset)) {
        search.measure(offset)?;
        plan.reranked += 1;
    }
    plan.reranked += search.measure_candidates(graph, &candidates, graph.error_bound(&query))?;
    Ok((search.best.into_sorted(), plan))
}

/// Searches the graph if that is worth it; `None` if codes have to be scanned.
fn search_graph(
    view: &View, graph: &Graph, query: &Query, wanted: &Nearest<'_>, linked: usize, plan: &mut Plan,
) -> Option<Vec<Near>> {
    let ef = wanted.ef_search.max(wanted.k).min(linked);
    // A search that may return one node in s crosses s of them for each it keeps.
    let crossed = ef.saturating_mul(view.in_graph().len()) / linked.max(1);
    let visits = GRAPH_SEARCH_START + crossed.saturating_mul(GRAPH_SEARCH_EACH);
    let is_forced = wanted.hint == Some(Strategy::Graph);
    let is_dear = visits.saturating_mul(GRAPH_SEARCH_COST) >= linked;
    if linked == 0 || wanted.hint == Some(Strategy::Scan) || !is_forced && (is_dear || !graph.is_searchable()) {
        return None;
    }
    let visit_max = if is_forced { usize::MAX } else { linked / GRAPH_SEARCH_COST };
    let (len, matches) = (graph.len(), wanted.matches);
    let is_whole = matches.is_none() && view.in_graph().len() == len;
    let mut accept = |node: u32| {
        if is_whole {
            // Nodes that were added since are not in this view.
            return (node as usize) < len;
        }
        let offset = graph.node(node).offset;
        view.node(offset) == Some(node)
            && view.in_graph().contains(offset)
            && matches.is_none_or(|matches| matches.contains(offset))
    };
    let found = graph.search(query, Wanted { k: wanted.k.min(linked), ef, visit_max, accept: &mut accept });
    plan.visited = found.visited;
    plan.strategy = Strategy::Graph;
    (!found.gave_up && found.nodes.len() >= wanted.k.min(linked)).then_some(found.nodes)
}

/// Measures the codes of all these offsets that have one; those that may be among the `k` nearest, nearest
/// first.
fn scan(view: &View, graph: &Graph, query: &Query, offsets: &Bitmap, k: usize, plan: &mut Plan) -> Vec<Near> {
    let nodes: Vec<u32> = offsets.iter().filter_map(|offset| view.node(offset)).collect();
    plan.scanned += nodes.len();
    let mut distances = vec![0.0; nodes.len()];
    graph.distances(query, &nodes, &mut distances);
    let nodes = nodes.iter().zip(&distances);
    // Of a vector that is too large for codes nothing is known: it is measured.
    let known = |distance: f32| if distance.is_nan() { f32::NEG_INFINITY } else { distance };
    let mut all: Vec<Near> = nodes.map(|(node, distance)| Near { distance: known(*distance), node: *node }).collect();
    if k < all.len() {
        let (_, kth, _) = all.select_nth_unstable(k - 1);
        // This one and any other may be off, in opposite directions.
        let farthest = kth.distance + graph.error_bound(query);
        all.retain(|near| near.distance <= farthest || farthest.is_nan());
    }
    all.sort_unstable();
    all
}

/// A search under way.
struct Search<'a> {
    view: &'a View,
    metric: Metric<'a>,
    best: Best,
}

impl Search<'_> {
    fn measure(&mut self, offset: u32) -> Result<(), Damaged> {
        let (vector, norm) = self.view.vector(offset)?;
        self.best.offer(Hit { offset, distance: self.metric.distance(vector, norm) });
        Ok(())
    }

    fn measure_all(&mut self, offsets: &Bitmap) -> Result<(), Damaged> {
        offsets.iter().try_for_each(|offset| self.measure(offset))
    }

    /// Measures candidates, nearest by code first, until the rest cannot be among the best; how many.
    fn measure_candidates(&mut self, graph: &Graph, candidates: &[Near], margin: f32) -> Result<usize, Damaged> {
        let ask_node = |near: &Near| graph.prefetch_node(near.node);
        let ask_place = |near: &Near| self.view.prefetch_place(graph.node(near.node).offset);
        let ask_row = |near: &Near| self.view.prefetch_vector(graph.node(near.node).offset);
        candidates.iter().take(NODES_AHEAD).for_each(ask_node);
        candidates.iter().take(PLACES_AHEAD).for_each(ask_place);
        candidates.iter().take(ROWS_AHEAD).for_each(ask_row);
        for (index, near) in candidates.iter().enumerate() {
            if self.best.worst().is_some_and(|worst| near.distance - margin > worst.distance) {
                return Ok(index);
            }
            candidates.get(index + NODES_AHEAD).into_iter().for_each(ask_node);
            candidates.get(index + PLACES_AHEAD).into_iter().for_each(ask_place);
            candidates.get(index + ROWS_AHEAD).into_iter().for_each(ask_row);
            self.measure(graph.node(near.node).offset)?;
        }
        Ok(candidates.len())
    }
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
pub(crate) struct Best {
    k: usize,
    hits: BinaryHeap<Hit>,
}

impl Best {
    pub(crate) fn new(k: usize) -> Self {
        // `k` may be far beyond what there is to find.
        Self { k, hits: BinaryHeap::with_capacity(k.min(1024) + 1) }
    }

    /// How many are kept, at least 1.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn offer(&mut self, hit: Hit) {
        if self.hits.len() < self.k {
            self.hits.push(hit);
        } else if self.hits.peek().is_some_and(|worst| hit < *worst) {
            self.hits.pop();
            self.hits.push(hit);
        }
    }

    /// The worst of the best, once there are `k`.
    pub(crate) fn worst(&self) -> Option<&Hit> {
        self.hits.peek().filter(|_| self.hits.len() == self.k)
    }

    pub(crate) fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec()
    }
}
