//! Searching the graph: from the entry point towards a query, level by level.

use std::cmp::Ordering;
use std::sync::atomic;

use super::codes::Query;
use super::{Graph, Near};

/// Searches that end by distance may keep this many times more candidates than those that end by rank,
const WIDER: usize = 3;
/// and this many where codes cannot tell which are the best: those are compared exactly.
const UNCLEAR_MAX: usize = 4096;
/// They follow at least `ef` divided by this: where all distances are about equal, as between the variants of a text,
/// the best so far says nothing of the best.
const FOLLOWED_SHARE: usize = 4;
/// Nodes whose neighbours tell how distances grow with rank, from one rank …
const CALIBRATED: usize = 64;
const CALIBRATED_NEAR: usize = 10;
/// … to another.
const CALIBRATED_FAR: usize = 100;
/// Parts of the growth that searches go by: usually the first makes those that end by distance find as much, over all
/// queries, as those that keep a fixed number of candidates: the hard ones gain what the easy ones lose. Where all are
/// hard, more is needed.
const DISTANCE_GROWTH_SHARES: [f32; 6] = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0];
/// Where distances do not grow by a power of rank, as inner products do not, this many times more candidates may be
/// needed.
const WIDTHS: [f32; 4] = [1.0, 1.5, 2.0, 3.0];
/// Of the nearest [`CALIBRATED_NEAR`] nodes searches find this part at least, on average,
const RECALL_MIN: f32 = 0.985;
/// and fewer than this
const RECALL_EACH_MIN: usize = 8;
/// for at most one node in this many.
const POOR_SHARE: usize = 50;
/// Nodes whose nearest are looked for by scanning all codes, to know what searches miss.
const SCANNED_FOR: usize = 16;
/// Searches that find less than this part of these are given up: all codes are scanned instead,
const SEARCHABLE_MIN: f32 = 0.9;
/// unless there are more than this: a scan takes longer than anybody waits then.
const SCANNED_MAX: usize = 1_000_000;
/// Codes that are measured at once.
const SCANNED_AT_ONCE: usize = 1024;
/// What snapshots have in place of how distances grow if searches do not find the nearest.
const UNSEARCHABLE: f32 = f32::NEG_INFINITY;

/// A node that a search came across.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    distance: f32,
    node: u32,
    /// Its links were followed.
    is_expanded: bool,
    /// It may be returned; others are only crossed.
    is_accepted: bool,
}

impl Candidate {
    fn of(Near { distance, node }: Near, is_accepted: bool) -> Self {
        Self { distance, node, is_expanded: false, is_accepted }
    }
}

/// Memory that searches use over and over.
#[derive(Default)]
pub(super) struct SearchContext {
    /// A bit for each node seen; all clear between searches.
    seen: Vec<u64>,
    touched: Vec<u32>,
    /// What was found so far, nearest first.
    candidates: Vec<Candidate>,
    /// The distances of the best `k` accepted ones, ascending.
    best: Vec<f32>,
    unvisited: Vec<u32>,
    /// Nodes whose links were followed, in this order.
    followed: Vec<u32>,
    /// Nodes with the code of one that is expanded, to be looked at.
    same: Vec<u32>,
    /// Such nodes that may be returned.
    duplicates: Vec<Near>,
    distances: Vec<f32>,
}

impl SearchContext {
    fn begin(&mut self, capacity: usize) {
        self.seen.resize(capacity.div_ceil(64), 0);
        for node in self.touched.drain(..) {
            self.seen[node as usize / 64] = 0;
        }
        self.candidates.clear();
        self.best.clear();
        self.duplicates.clear();
        self.followed.clear();
    }

    fn see(&mut self, node: u32) -> bool {
        see(&mut self.seen, &mut self.touched, node)
    }

    /// What the last search of a level accepted of the nodes that it came by, nearest first; duplicates of them apart.
    pub(super) fn found(&self) -> impl Iterator<Item = Near> {
        let accepted = self.candidates.iter().filter(|candidate| candidate.is_accepted);
        accepted.map(|candidate| Near { distance: candidate.distance, node: candidate.node })
    }

    /// How far the nearest is that the last search of a level came by.
    pub(super) fn nearest(&self) -> f32 {
        self.candidates.first().map_or(f32::INFINITY, |candidate| candidate.distance)
    }

    /// The nodes whose links the last search of a level followed, in the order in which it did.
    pub(super) fn followed(&self) -> &[u32] {
        &self.followed
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct GraphHits {
    /// Accepted nodes, nearest first by coded distance; at most `ef`.
    pub(crate) nodes: Vec<Near>,
    /// How many nodes were measured.
    pub(crate) visited: usize,
    /// Whether it stopped at the limit rather than at its end.
    pub(crate) gave_up: bool,
}

/// What a search is to find.
pub(crate) struct Wanted<'a> {
    /// Accepted nodes that somebody asked for.
    pub(crate) k: usize,
    /// Accepted candidates kept on the way to them, if all queries are alike.
    pub(crate) ef: usize,
    /// The search stops when it has measured more nodes than this.
    pub(crate) visit_max: usize,
    /// Which nodes may be returned.
    pub(crate) accept: &'a mut dyn FnMut(u32) -> bool,
}

/// A bound on distances, by that of the `k`-th best.
#[derive(Clone, Copy)]
pub(super) struct DistanceBound {
    pub(super) k: usize,
    /// Candidates farther than the `k`-th best by this factor are not followed, if it is known how distances grow with
    /// rank,
    factor: Option<f32>,
    /// if that is more than codes usually err,
    error_stddev: f32,
    /// and may err at most;
    error_bound: f32,
    /// but at least this many are followed, however far they are.
    followed_min: usize,
    /// How many accepted candidates are kept at most where codes cannot tell which are among the best.
    unclear_max: usize,
}

/// The distances from which on candidates are not followed, are not kept, and are not among the best whatever codes
/// err; infinite where nothing can be said.
#[derive(Clone, Copy)]
struct Limits {
    follow: f32,
    keep: f32,
    unclear: f32,
}

impl Limits {
    const NONE: Self = Self { follow: f32::INFINITY, keep: f32::INFINITY, unclear: f32::NEG_INFINITY };
}

impl DistanceBound {
    fn limits(&self, best: &[f32]) -> Limits {
        let Some(kth) = best.last().filter(|_| best.len() == self.k) else { return Limits::NONE };
        // The margin is for two distances that err in opposite directions.
        let unclear = kth + self.error_bound;
        match self.factor {
            Some(factor) if *kth > 0.0 => {
                let follow = (kth * factor + self.error_stddev).max(kth + self.error_bound / 2.0);
                Limits { follow, keep: follow.max(unclear), unclear }
            }
            // Distances that are nothing but what codes err, or inner products, do not grow by a factor.
            _ => Limits { unclear, ..Limits::NONE },
        }
    }
}

/// How a search of a level ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing was left to follow.
    Done,
    /// It had measured as many nodes as it may.
    GaveUp,
    /// It came by the node it was for.
    Met,
}

/// How far a search of a level goes, and what it may return.
pub(super) struct Search<'a> {
    /// Accepted candidates kept.
    pub(super) ef: usize,
    /// Bounds distances too, if given.
    pub(super) distance_bound: Option<DistanceBound>,
    /// The search stops when it has measured more nodes than this.
    pub(super) visit_max: usize,
    /// Which nodes may be returned.
    pub(super) accept: &'a mut dyn FnMut(u32) -> bool,
    /// Duplicates that may be returned of each node that it comes by.
    pub(super) duplicates_max: usize,
    /// The search ends where it comes by this node.
    pub(super) until: Option<u32>,
}

impl<'a> Search<'a> {
    /// Keeps `ef` candidates, by rank, among nodes that have links.
    pub(super) fn plain(ef: usize, accept: &'a mut dyn FnMut(u32) -> bool) -> Self {
        Self { ef, distance_bound: None, visit_max: usize::MAX, accept, duplicates_max: 0, until: None }
    }
}

impl Graph {
    /// The accepted nodes nearest to `query`, approximately, at least `k` if the search comes by so many. Nodes that
    /// are not accepted are crossed but not returned.
    ///
    /// Once it is known how distances grow with rank ([`Graph::calibrate`]), the search ends by distance rather than by
    /// rank: where the next candidate is farther than the `k`-th best by the factor at which, on average, the
    /// `ef`-th is. Easy queries end sooner, hard ones are given up to [`WIDER`] times as many candidates.
    ///
    /// Sources: Malkov & Yashunin, arXiv:1603.09320, algorithms 2 and 5; Al-Jazzazi et al., arXiv:2505.15636
    /// (ending by distance).
    pub(crate) fn search(&self, query: &Query, wanted: Wanted<'_>) -> GraphHits {
        let Wanted { k, ef, visit_max, accept } = wanted;
        let mut context = self.take_context();
        let distance_bound = self.distance_bound(query, k, ef);
        let search = Search { visit_max, distance_bound, duplicates_max: k, ..Search::plain(ef, accept) };
        let (ended, visited) = self.search_levels(query, search, &mut context);
        let mut nodes: Vec<Near> = context.found().collect();
        if !context.duplicates.is_empty() {
            nodes.append(&mut context.duplicates);
            nodes.sort_unstable();
        }
        self.give_context(context);
        GraphHits { nodes, visited, gave_up: ended == Ended::GaveUp }
    }

    /// Goes down all levels and searches the lowest; how that ended, and how many nodes were measured.
    pub(super) fn search_levels(
        &self, query: &Query, search: Search<'_>, context: &mut SearchContext,
    ) -> (Ended, usize) {
        let Some((top, entry)) = self.entry() else { return (Ended::Done, 0) };
        let mut visited = 1;
        let mut entries = vec![self.near(query, entry)];
        let width = descent_beam_width(self.linked().len(), self.parameters.max_neighbors);
        self.descend(query, &mut entries, (1..=top).rev(), width, context, &mut visited);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, and half a candidate does not matter"
        )]
        let ef = match search.distance_bound {
            Some(DistanceBound { factor: Some(_), .. }) => search.ef.saturating_mul(WIDER),
            Some(_) => (search.ef as f32 * self.width()) as usize,
            None => search.ef,
        };
        let ended = self.search_level(query, &entries, 0, Search { ef, ..search }, context, &mut visited);
        (ended, visited)
    }

    /// How far searches for the `k` best go that keep `ef` candidates, once it is known how far codes err.
    pub(super) fn distance_bound(&self, query: &Query, k: usize, ef: usize) -> Option<DistanceBound> {
        let (error_stddev, error_bound) = (self.codes.error_stddev(query), self.codes.error_bound(query));
        #[expect(clippy::cast_precision_loss, reason = "a ratio of small numbers")]
        let ratio = ef as f32 / k.max(1) as f32;
        let factor = self.distance_growth().map(|distance_growth| ratio.max(1.0).powf(distance_growth));
        let followed_min = (ef / FOLLOWED_SHARE).max(k.min(ef));
        let unclear_max = UNCLEAR_MAX.max(ef.saturating_mul(WIDER));
        error_bound.is_finite().then_some(DistanceBound {
            k,
            factor,
            error_stddev,
            error_bound,
            followed_min,
            unclear_max,
        })
    }

    /// Measures how distances grow with rank, on some nodes' neighbours, and how far searches have to go by that to
    /// find them. Searches end by distance from then on.
    pub fn calibrate(&self) {
        self.set_distance_growth(0.0);
        let linked = self.linked().len();
        let step = (linked / CALIBRATED).max(1);
        let (mut sum, mut count) = (0.0, 0usize);
        let mut samples: Vec<(u32, Vec<u32>)> = Vec::new();
        for node in (0..linked).step_by(step) {
            let node = u32::try_from(node).expect("nodes are numbered by u32");
            let found = self.neighbours(node, CALIBRATED_FAR, CALIBRATED_FAR * WIDER);
            if let (Some(near), Some(far)) = (found.get(CALIBRATED_NEAR - 1), found.get(CALIBRATED_FAR - 1))
                && near.distance > 0.0
                && far.distance.is_finite()
            {
                sum += (far.distance / near.distance).ln();
                count += 1;
            }
            samples.push((node, found.iter().take(CALIBRATED_NEAR).map(|near| near.node).collect()));
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (ranks, mean) = ((CALIBRATED_FAR as f32 / CALIBRATED_NEAR as f32).ln(), sum / count.max(1) as f32);
        let is_power = count * 2 > linked.min(CALIBRATED) && mean > 0.0;
        let growths: Vec<f32> = if is_power {
            DISTANCE_GROWTH_SHARES.iter().map(|share| mean / ranks * share).collect()
        } else {
            WIDTHS.iter().map(|width| -width).collect()
        };
        for distance_growth in growths {
            self.set_distance_growth(distance_growth);
            if self.finds_neighbours(&samples) {
                break;
            }
        }
        // Among vectors in random directions of many dimensions all are about as far: there is no way to the nearest.
        let is_scanned = linked <= SCANNED_MAX && self.scanned_recall() < SEARCHABLE_MIN;
        if self.is_scanned.swap(is_scanned, atomic::Ordering::Relaxed) && !is_scanned {
            // While all codes were scanned nobody looked at what searches miss.
            self.search_all_again();
        }
    }

    /// What [`Graph::calibrate`] found out, as snapshots have it.
    pub(super) fn calibration(&self) -> f32 {
        if self.is_searchable() { self.stored_growth() } else { UNSEARCHABLE }
    }

    pub(super) fn set_calibration(&self, calibration: f32) {
        self.is_scanned.store(calibration == UNSEARCHABLE, atomic::Ordering::Relaxed);
        self.set_distance_growth(if calibration == UNSEARCHABLE { 0.0 } else { calibration });
    }

    /// Whether searches find about what a scan of all codes finds, as far as [`Graph::calibrate`] has tried. If not,
    /// all codes are scanned.
    pub fn is_searchable(&self) -> bool {
        !self.is_scanned.load(atomic::Ordering::Relaxed)
    }

    /// Which part of the nearest neighbours that a scan of all codes finds, searches at default parameters find.
    fn scanned_recall(&self) -> f32 {
        let linked = u32::try_from(self.linked().len()).expect("nodes are numbered by u32");
        let step = (linked as usize / SCANNED_FOR).max(1);
        let (mut hits, mut wanted) = (0, 0);
        for node in (0..linked).step_by(step) {
            let query = self.codes.query_of(node);
            let (mut best, mut distances) = (Vec::new(), Vec::new());
            let others: Vec<u32> = (0..linked).filter(|other| *other != node).collect();
            for nodes in others.chunks(SCANNED_AT_ONCE) {
                distances.resize(nodes.len(), 0.0);
                self.codes.distances(&query, nodes, &mut distances);
                for distance in &distances {
                    keep_best(&mut best, *distance, CALIBRATED_NEAR);
                }
            }
            let Some(farthest) = best.last() else { continue };
            let found = self.neighbours(node, CALIBRATED_NEAR, CALIBRATED_FAR);
            // Those that are as far as the farthest are as right.
            hits += found.iter().filter(|near| near.distance <= *farthest).count();
            wanted += best.len();
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let recall = hits as f32 / wanted.max(1) as f32;
        if wanted == 0 { 1.0 } else { recall }
    }

    /// Whether searches at default parameters find the nearest neighbours of sampled nodes.
    fn finds_neighbours(&self, samples: &[(u32, Vec<u32>)]) -> bool {
        let (mut hits, mut wanted, mut poor) = (0, 0, 0);
        for (node, nearest) in samples {
            let found = self.neighbours(*node, CALIBRATED_NEAR, CALIBRATED_FAR);
            let here = nearest.iter().filter(|near| found.iter().any(|other| other.node == **near)).count();
            (hits, wanted) = (hits + here, wanted + nearest.len());
            poor += usize::from(here * CALIBRATED_NEAR < nearest.len() * RECALL_EACH_MIN);
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let recall = hits as f32 / wanted.max(1) as f32;
        recall >= RECALL_MIN && poor * POOR_SHARE <= samples.len()
    }

    /// The `k` nearest neighbours of a node that a search finds which keeps `ef` candidates.
    fn neighbours(&self, node: u32, k: usize, ef: usize) -> Vec<Near> {
        let accept = &mut |found| found != node;
        let mut nodes = self.search(&self.codes.query_of(node), Wanted { k, ef, visit_max: usize::MAX, accept }).nodes;
        nodes.truncate(k);
        nodes
    }

    fn set_distance_growth(&self, distance_growth: f32) {
        self.distance_growth.store(distance_growth.to_bits(), atomic::Ordering::Relaxed);
    }

    /// The power of the ratio of two ranks by which their distances differ, as far as searches go by it.
    fn distance_growth(&self) -> Option<f32> {
        Some(self.stored_growth()).filter(|distance_growth| *distance_growth > 0.0)
    }

    /// How many times more candidates searches keep where they end by rank.
    fn width(&self) -> f32 {
        (-self.stored_growth()).clamp(1.0, WIDTHS[WIDTHS.len() - 1])
    }

    fn stored_growth(&self) -> f32 {
        f32::from_bits(self.distance_growth.load(atomic::Ordering::Relaxed))
    }

    /// A node with its distance from the query.
    pub(super) fn near(&self, query: &Query, node: u32) -> Near {
        let mut distance = [0.0];
        self.codes.distances(query, &[node], &mut distance);
        Near { distance: distance[0], node }
    }

    /// Goes down these levels: on each the `width` nodes that seem nearest, from those of the level above.
    ///
    /// HNSW keeps one, which in clusters within clusters often ends in the wrong one, and stays there.
    pub(super) fn descend(
        &self, query: &Query, entries: &mut Vec<Near>, levels: impl Iterator<Item = usize>, width: usize,
        context: &mut SearchContext, visited: &mut usize,
    ) {
        for level in levels {
            self.search_level(query, entries, level, Search::plain(width, &mut |_| true), context, visited);
            entries.clear();
            entries.extend(context.found());
        }
    }

    /// Finds the accepted nodes of a level nearest to the query, from `entries`; they are
    /// [`SearchContext::found`].
    ///
    /// All that was found is one sorted list: nodes that are not accepted stand in it too, to be expanded
    /// in their turn, and whatever lies behind the `ef`-th accepted one is dropped.
    pub(super) fn search_level(
        &self, query: &Query, entries: &[Near], level: usize, search: Search<'_>, context: &mut SearchContext,
        visited: &mut usize,
    ) -> Ended {
        let Search { mut ef, distance_bound, visit_max, accept, duplicates_max, until } = search;
        context.begin(self.capacity());
        let mut accepted = 0;
        for near in entries.iter().filter(|near| see(&mut context.seen, &mut context.touched, near.node)) {
            let is_accepted = accept(near.node);
            insert(&mut context.candidates, Candidate::of(*near, is_accepted), ef, &mut accepted);
            if let Some(distance_bound) = distance_bound.filter(|_| is_accepted) {
                keep_best(&mut context.best, near.distance, distance_bound.k);
            }
            if until == Some(near.node) {
                return Ended::Met;
            }
        }
        let mut limits = distance_bound.map_or(Limits::NONE, |distance_bound| distance_bound.limits(&context.best));
        let followed_min = distance_bound.map_or(0, |distance_bound| distance_bound.followed_min);
        let nodes = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let mut next = 0;
        while let Some(candidate) = context.candidates.get_mut(next) {
            if candidate.is_expanded {
                next += 1;
                continue;
            }
            if candidate.distance > limits.follow && context.followed.len() >= followed_min {
                break;
            }
            if *visited > visit_max {
                return Ended::GaveUp;
            }
            candidate.is_expanded = true;
            let Candidate { node, distance, .. } = *candidate;
            context.followed.push(node);
            self.measure_unvisited(query, node, level, nodes, context);
            *visited += context.unvisited.len();
            let mut first = next + 1;
            for (node, distance) in context.unvisited.iter().zip(&context.distances) {
                let near = Near { distance: *distance, node: *node };
                if accepted >= ef
                    && let Some(worst) = context.candidates.last()
                {
                    // One of the two would go: not while it may be among the best for all that codes can tell.
                    let is_unclear = near.distance.max(worst.distance) <= limits.unclear;
                    match distance_bound.filter(|bound| is_unclear && ef < bound.unclear_max) {
                        Some(bound) => ef = ef.saturating_mul(2).min(bound.unclear_max),
                        None if near.distance >= worst.distance => continue,
                        None => {}
                    }
                }
                if near.distance > limits.keep && context.candidates.len() >= followed_min {
                    continue;
                }
                let is_accepted = accept(*node);
                let at = insert(&mut context.candidates, Candidate::of(near, is_accepted), ef, &mut accepted);
                if let Some(distance_bound) = distance_bound.filter(|_| is_accepted)
                    && keep_best(&mut context.best, near.distance, distance_bound.k)
                {
                    limits = distance_bound.limits(&context.best);
                }
                if until == Some(*node) {
                    return Ended::Met;
                }
                first = first.min(at);
                // Most of those that are kept are followed, sooner or later.
                self.prefetch_links(*node, level);
            }
            let best_changed = self.take_duplicates(distance, duplicates_max, accept, distance_bound, context, visited);
            if let (true, Some(distance_bound)) = (best_changed, distance_bound) {
                limits = distance_bound.limits(&context.best);
            }
            next = first;
        }
        Ended::Done
    }

    /// Measures the neighbours of a node that the search has not come by, and finds its duplicates.
    #[inline]
    fn measure_unvisited(&self, query: &Query, node: u32, level: usize, nodes: u32, context: &mut SearchContext) {
        let SearchContext { seen, touched, unvisited, same, distances, .. } = context;
        unvisited.clear();
        same.clear();
        let (table, list) = self.list(node, level);
        table.visit(list, nodes, same, |link| {
            if see(seen, touched, link) {
                unvisited.push(link);
            }
        });
        distances.resize(unvisited.len(), 0.0);
        self.codes.distances(query, unvisited, distances);
    }

    /// Takes up to `room` of the duplicates of a node that was expanded, which are as near as it is; whether the best
    /// distances changed. They have no links to follow, and must not take the place of what has.
    #[inline]
    fn take_duplicates(
        &self, distance: f32, mut room: usize, accept: &mut dyn FnMut(u32) -> bool,
        distance_bound: Option<DistanceBound>, context: &mut SearchContext, visited: &mut usize,
    ) -> bool {
        let mut best_changed = false;
        while room > 0
            && let Some(same) = context.same.pop()
        {
            if !context.see(same) {
                continue;
            }
            *visited += 1;
            context.same.extend(self.duplicates(same));
            if accept(same) {
                room -= 1;
                context.duplicates.push(Near { distance, node: same });
                if let Some(distance_bound) = distance_bound {
                    best_changed |= keep_best(&mut context.best, distance, distance_bound.k);
                }
            }
        }
        best_changed
    }

    pub(super) fn take_context(&self) -> SearchContext {
        self.context.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_context(&self, context: SearchContext) {
        let mut candidates = self.context.lock();
        if candidates.len() < 16 {
            candidates.push(context);
        }
    }
}

/// Marks a node; whether it was new.
#[inline]
fn see(seen: &mut [u64], touched: &mut Vec<u32>, node: u32) -> bool {
    let word = &mut seen[node as usize / 64];
    let is_new = *word >> (node % 64) & 1 == 0;
    if is_new {
        *word |= 1 << (node % 64);
        touched.push(node);
    }
    is_new
}

/// How many nodes a search keeps on each level on its way down: one less than graphs of this size have levels above the
/// lowest. What is as large as that takes more, since there are more clusters to end up in the wrong one of.
fn descent_beam_width(nodes: usize, max_neighbors: usize) -> usize {
    let levels = nodes.checked_ilog(max_neighbors.max(4)).unwrap_or(0);
    (levels as usize).saturating_sub(1).max(1)
}

/// Keeps the `k` smallest distances, ascending; whether this is one of them.
fn keep_best(best: &mut Vec<f32>, distance: f32, k: usize) -> bool {
    // What is no number is farther than anything.
    if best.len() >= k && best.last().is_none_or(|last| distance.total_cmp(last) != Ordering::Less) {
        return false;
    }
    let at = best.partition_point(|other| other.total_cmp(&distance) != Ordering::Greater);
    best.truncate(k.saturating_sub(1));
    best.insert(at, distance);
    true
}

/// Puts a candidate in its place, and drops what then lies behind the `ef`-th accepted one; its place.
fn insert(candidates: &mut Vec<Candidate>, candidate: Candidate, ef: usize, accepted: &mut usize) -> usize {
    let at = candidates.partition_point(|other| other.distance.total_cmp(&candidate.distance) != Ordering::Greater);
    candidates.insert(at, candidate);
    *accepted += usize::from(candidate.is_accepted);
    while *accepted >= ef {
        match candidates.last() {
            Some(last) if last.is_accepted && *accepted == ef => break,
            Some(last) => *accepted -= usize::from(last.is_accepted),
            None => break,
        }
        candidates.pop();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{graph_of, level_of};

    #[test]
    fn more_than_one_way_down_leads_to_the_right_cluster() {
        const QUERIES: usize = 300;
        let mut rng = fastrand::Rng::with_seed(6);
        let mut vectors = vec![vec![0.0f32; 64]];
        for spread in [1.2, 1.0, 0.8, 1.0f32] {
            let mut around = |centre: &Vec<f32>| -> Vec<Vec<f32>> {
                (0..10).map(|_| centre.iter().map(|x| x + spread * (rng.f32() - 0.5)).collect()).collect()
            };
            vectors = vectors.iter().flat_map(&mut around).collect();
        }
        rng.shuffle(&mut vectors);
        let queries = vectors.split_off(vectors.len() - QUERIES);
        let graph = graph_of(&vectors, vectors.len());

        let (top, entry) = graph.entry().unwrap();
        let above: Vec<u32> = (0u32..).take(vectors.len()).filter(|node| level_of(*node as usize, 16) > 0).collect();
        let mut found = [0; 4];
        for query in &queries {
            let query = graph.query(query);
            let nearest = above.iter().map(|node| graph.near(&query, *node)).min().unwrap();
            for (width, found) in (1..).zip(&mut found) {
                let mut entries = vec![graph.near(&query, entry)];
                graph.descend(&query, &mut entries, (1..=top).rev(), width, &mut SearchContext::default(), &mut 0);
                assert!(entries.len() <= width && entries.is_sorted());
                *found += usize::from(entries[0] == nearest);
            }
        }
        assert!(found.is_sorted() && found[3] * 10 > QUERIES * 9 && found[0] * 10 < QUERIES * 9, "{found:?}");
    }

    #[test]
    fn the_larger_the_graph_the_more_ways_down() {
        let widths = [0, 1, 4095, 4096, 60_000, 65_536, 1_000_000, 1 << 20];
        assert_eq!(widths.map(|nodes| descent_beam_width(nodes, 16)), [1, 1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(descent_beam_width(1 << 20, 2), descent_beam_width(1 << 20, 4));
    }

    #[test]
    fn the_best_distances_are_the_smallest_whatever_comes() {
        let (mut rng, odd) = (fastrand::Rng::with_seed(2), [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0]);
        for k in 1..6 {
            let (mut best, mut all) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let distance = if rng.u8(0..4) == 0 { odd[rng.usize(0..4)] } else { rng.f32() };
                all.push(distance);
                all.sort_by(f32::total_cmp);
                let before = best.clone();
                let is_kept = keep_best(&mut best, distance, k);
                let expected = &all[..all.len().min(k)];
                assert!(best.iter().zip(expected).all(|(a, b)| a.total_cmp(b).is_eq()) && best.len() == expected.len());
                assert_eq!(
                    is_kept,
                    best.len() > before.len() || best.iter().zip(&before).any(|(a, b)| a.total_cmp(b).is_ne())
                );
            }
        }
    }
}
