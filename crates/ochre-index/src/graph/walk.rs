//! Walking the graph: from the entry point towards a query, level by level.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{Encoded, Graph};

/// A node with its distance, ordered by distance and then by number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    pub(super) node: u32,
}

impl Eq for Near {}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.node.cmp(&other.node))
    }
}

/// Which nodes a walk has seen. Marks carry the number of the walk, so that nothing needs clearing.
#[derive(Default)]
pub(super) struct Visited {
    marks: Vec<u32>,
    walk: u32,
}

impl Visited {
    fn begin(&mut self, capacity: usize) {
        self.marks.resize(capacity, 0);
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Marks a node; whether it was new.
    fn visit(&mut self, node: u32) -> bool {
        let mark = &mut self.marks[node as usize];
        let is_new = *mark != self.walk;
        *mark = self.walk;
        is_new
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Accepted nodes, nearest first by coded distance; at most `ef`.
    pub(crate) nodes: Vec<u32>,
    /// How many nodes were measured.
    pub(crate) visited: usize,
    /// Whether it stopped at the limit rather than at its end.
    pub(crate) gave_up: bool,
}

impl Graph {
    /// The `ef` accepted nodes nearest to `query`, approximately. Nodes that are not accepted are
    /// crossed but not returned. Stops after measuring `visit_max` nodes.
    ///
    /// Source: Malkov & Yashunin, arXiv:1603.09320, algorithms 2 and 5.
    pub(crate) fn walk(
        &self, query: &Encoded, ef: usize, visit_max: usize, accept: &mut dyn FnMut(u32) -> bool,
    ) -> Walk {
        let Some((level, entry)) = self.entry() else { return Walk::default() };
        let mut visited = self.take_visited();
        let mut near = Near { distance: self.codes.distance(query, entry), node: entry };
        let mut count = 1;
        for level in (1..=level).rev() {
            near = self.descend(query, near, level, &mut count);
        }
        let (found, gave_up) = self.search_level(query, &[near], ef, 0, &mut visited, visit_max, &mut count, accept);
        self.give_visited(visited);
        Walk { nodes: found.into_iter().map(|near| near.node).collect(), visited: count, gave_up }
    }

    /// Follows the best link on a level until none is better.
    pub(super) fn descend(&self, query: &Encoded, mut near: Near, level: usize, count: &mut usize) -> Near {
        loop {
            let links = self.links(near.node, level).map(|node| {
                *count += 1;
                Near { distance: self.codes.distance(query, node), node }
            });
            match links.min() {
                Some(next) if next < near => near = next,
                _ => return near,
            }
        }
    }

    /// The `ef` nearest accepted nodes of a level, nearest first, found from `entries`; and whether the
    /// search stopped at `visit_max`.
    #[expect(clippy::too_many_arguments, reason = "the inner loop of everything; a struct would only rename them")]
    pub(super) fn search_level(
        &self, query: &Encoded, entries: &[Near], ef: usize, level: usize, visited: &mut Visited, visit_max: usize,
        count: &mut usize, accept: &mut dyn FnMut(u32) -> bool,
    ) -> (Vec<Near>, bool) {
        visited.begin(self.capacity());
        let mut open: BinaryHeap<Reverse<Near>> = BinaryHeap::with_capacity(ef * 2);
        let mut found: BinaryHeap<Near> = BinaryHeap::with_capacity(ef + 1);
        for near in entries {
            visited.visit(near.node);
            open.push(Reverse(*near));
            if accept(near.node) {
                found.push(*near);
            }
        }
        let mut gave_up = false;
        while let Some(Reverse(near)) = open.pop() {
            if found.len() >= ef && found.peek().is_some_and(|worst| near > *worst) {
                break;
            }
            if *count > visit_max {
                gave_up = true;
                break;
            }
            for node in self.links(near.node, level) {
                if !visited.visit(node) {
                    continue;
                }
                *count += 1;
                let next = Near { distance: self.codes.distance(query, node), node };
                if found.len() < ef || found.peek().is_some_and(|worst| next < *worst) {
                    open.push(Reverse(next));
                    if accept(node) {
                        found.push(next);
                        if found.len() > ef {
                            found.pop();
                        }
                    }
                }
            }
        }
        (found.into_sorted_vec(), gave_up)
    }

    pub(super) fn take_visited(&self) -> Visited {
        self.visited.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_visited(&self, visited: Visited) {
        let mut pool = self.visited.lock();
        if pool.len() < 16 {
            pool.push(visited);
        }
    }
}
