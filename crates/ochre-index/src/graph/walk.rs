//! Walking the graph: from the entry point towards a query, level by level.

use std::cmp::Ordering;

use super::codes::Query;
use super::{Graph, Near};

/// Candidates this close behind the one being expanded have their links asked for ahead of time.
const AHEAD: usize = 4;

/// A node that a walk came across.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    distance: f32,
    node: u32,
    /// Its links were followed.
    is_expanded: bool,
    /// It may be returned; others are only crossed.
    is_accepted: bool,
}

/// Memory that walks use over and over.
#[derive(Default)]
pub(super) struct Scratch {
    /// A bit for each node seen; all clear between walks.
    seen: Vec<u64>,
    touched: Vec<u32>,
    /// What was found so far, nearest first.
    pool: Vec<Candidate>,
    fresh: Vec<u32>,
    distances: Vec<f32>,
}

impl Scratch {
    fn begin(&mut self, capacity: usize) {
        self.seen.resize(capacity.div_ceil(64), 0);
        for node in self.touched.drain(..) {
            self.seen[node as usize / 64] = 0;
        }
        self.pool.clear();
    }

    /// Marks a node; whether it was new.
    fn see(&mut self, node: u32) -> bool {
        let word = &mut self.seen[node as usize / 64];
        let is_new = *word >> (node % 64) & 1 == 0;
        if is_new {
            *word |= 1 << (node % 64);
            self.touched.push(node);
        }
        is_new
    }

    /// What the last search of a level accepted, nearest first.
    pub(super) fn found(&self) -> impl Iterator<Item = Near> {
        let accepted = self.pool.iter().filter(|candidate| candidate.is_accepted);
        accepted.map(|candidate| Near { distance: candidate.distance, node: candidate.node })
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Accepted nodes, nearest first by coded distance; at most `ef`.
    pub(crate) nodes: Vec<Near>,
    /// How many nodes were measured.
    pub(crate) visited: usize,
    /// Whether it stopped at the limit rather than at its end.
    pub(crate) gave_up: bool,
}

/// How far a search of a level goes, and what it may return.
pub(super) struct Search<'a> {
    /// Accepted candidates kept.
    pub(super) ef: usize,
    /// The search stops when it has measured more nodes than this.
    pub(super) visit_max: usize,
    /// Which nodes may be returned.
    pub(super) accept: &'a mut dyn FnMut(u32) -> bool,
}

impl Graph {
    /// The `ef` accepted nodes nearest to `query`, approximately. Nodes that are not accepted are
    /// crossed but not returned. Stops after measuring `visit_max` nodes.
    ///
    /// Source: Malkov & Yashunin, arXiv:1603.09320, algorithms 2 and 5.
    pub(crate) fn walk(&self, query: &Query, ef: usize, visit_max: usize, accept: &mut dyn FnMut(u32) -> bool) -> Walk {
        let Some((level, entry)) = self.entry() else { return Walk::default() };
        let mut scratch = self.take_scratch();
        let mut visited = 1;
        let mut near = self.near(query, entry);
        for level in (1..=level).rev() {
            near = self.descend(query, near, level, &mut scratch, &mut visited);
        }
        let search = Search { ef, visit_max, accept };
        let gave_up = self.search_level(query, &[near], 0, search, &mut scratch, &mut visited);
        let nodes = scratch.found().collect();
        self.give_scratch(scratch);
        Walk { nodes, visited, gave_up }
    }

    /// A node with its distance from the query.
    pub(super) fn near(&self, query: &Query, node: u32) -> Near {
        let mut distance = [0.0];
        self.codes.distances(query, &[node], &mut distance);
        Near { distance: distance[0], node }
    }

    /// Follows the best link on a level until none is better.
    pub(super) fn descend(
        &self, query: &Query, mut near: Near, level: usize, scratch: &mut Scratch, visited: &mut usize,
    ) -> Near {
        let Scratch { fresh, distances, .. } = scratch;
        loop {
            fresh.clear();
            fresh.extend(self.links(near.node, level));
            distances.resize(fresh.len(), 0.0);
            self.codes.distances(query, fresh, distances);
            *visited += fresh.len();
            let nodes = fresh.iter().zip(&*distances).map(|(node, distance)| Near { distance: *distance, node: *node });
            match nodes.min() {
                Some(next) if next < near => near = next,
                _ => return near,
            }
        }
    }

    /// Finds the accepted nodes of a level nearest to the query, from `entries`; they are
    /// [`Scratch::found`]. Whether the search stopped at its limit.
    ///
    /// All that was found is one sorted list: nodes that are not accepted stand in it too, to be expanded
    /// in their turn, and whatever lies behind the `ef`-th accepted one is dropped.
    pub(super) fn search_level(
        &self, query: &Query, entries: &[Near], level: usize, search: Search<'_>, scratch: &mut Scratch,
        visited: &mut usize,
    ) -> bool {
        let Search { ef, visit_max, accept } = search;
        scratch.begin(self.capacity());
        let mut accepted = 0;
        for near in entries {
            if scratch.see(near.node) {
                insert(&mut scratch.pool, *near, accept(near.node), ef, &mut accepted);
            }
        }
        let mut next = 0;
        while let Some(candidate) = scratch.pool.get_mut(next) {
            if candidate.is_expanded {
                next += 1;
                continue;
            }
            if *visited > visit_max {
                return true;
            }
            candidate.is_expanded = true;
            let node = candidate.node;
            scratch.fresh.clear();
            for link in self.links(node, level) {
                if scratch.see(link) {
                    scratch.fresh.push(link);
                }
            }
            *visited += scratch.fresh.len();
            scratch.distances.resize(scratch.fresh.len(), 0.0);
            self.codes.distances(query, &scratch.fresh, &mut scratch.distances);
            let mut first = next + 1;
            for (node, distance) in scratch.fresh.iter().zip(&scratch.distances) {
                let near = Near { distance: *distance, node: *node };
                if accepted >= ef && scratch.pool.last().is_some_and(|worst| near.distance >= worst.distance) {
                    continue;
                }
                let at = insert(&mut scratch.pool, near, accept(*node), ef, &mut accepted);
                first = first.min(at);
                if at < next + AHEAD {
                    self.prefetch_links(*node, level);
                }
            }
            next = first;
        }
        false
    }

    pub(super) fn take_scratch(&self) -> Scratch {
        self.scratch.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_scratch(&self, scratch: Scratch) {
        let mut pool = self.scratch.lock();
        if pool.len() < 16 {
            pool.push(scratch);
        }
    }
}

/// Puts a candidate in its place, and drops what then lies behind the `ef`-th accepted one; its place.
fn insert(pool: &mut Vec<Candidate>, near: Near, is_accepted: bool, ef: usize, accepted: &mut usize) -> usize {
    let Near { distance, node } = near;
    let at = pool.partition_point(|other| other.distance.total_cmp(&distance) != Ordering::Greater);
    pool.insert(at, Candidate { distance, node, is_expanded: false, is_accepted });
    *accepted += usize::from(is_accepted);
    while *accepted >= ef {
        match pool.last() {
            Some(last) if last.is_accepted && *accepted == ef => break,
            Some(last) => *accepted -= usize::from(last.is_accepted),
            None => break,
        }
        pool.pop();
    }
    at
}
