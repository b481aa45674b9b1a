//! Where nodes lie in memory: beside those that searches measure with them.
//!
//! Nodes arrive in an order that has nothing to do with their vectors, so each node that a search comes across lies on
//! cache lines and pages of its own. A copy of a graph, on the heap or as its snapshot, numbers its nodes as a search
//! of its links in depth comes across them: nearly as good as orders that take far more work to find.
//!
//! Source: Coleman et al., Graph Reordering for Cache-Efficient Near Neighbor Search, arXiv:2104.03221.

use bytemuck::Pod;
use ochre_kernels::Arena;

use super::{Graph, LEVEL_MAX, NO_ENTRY, level_of};

/// A node that has no number yet.
const NOWHERE: u32 = u32::MAX;

/// The numbers that the first nodes of a graph have in a copy.
pub(super) struct NodePermutation {
    /// By new number the old one.
    old: Vec<u32>,
    /// By old number the new one.
    new: Vec<u32>,
}

impl NodePermutation {
    fn give(&mut self, old: u32, new: usize) {
        self.new[old as usize] = u32::try_from(new).expect("nodes are numbered by u32");
        self.old[new] = old;
    }

    /// The old numbers, by the new ones.
    pub(super) fn old(&self) -> impl Iterator<Item = u32> {
        self.old.iter().copied()
    }

    /// The new number of a node, if it is in the copy.
    pub(super) fn renamed(&self, old: u32) -> Option<u32> {
        self.new.get(old as usize).copied()
    }

    /// The new numbers of those nodes that are in the copy.
    pub(super) fn all_renamed(&self, old: &[u32]) -> Vec<u32> {
        old.iter().filter_map(|old| self.renamed(*old)).collect()
    }

    /// The word of an entry point that is in the copy.
    pub(super) fn renamed_entry(&self, entry: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
        let new = self.renamed(entry as u32).filter(|_| entry != NO_ENTRY);
        new.map_or(NO_ENTRY, |new| entry >> 32 << 32 | u64::from(new))
    }

    /// Each node's row of `width` elements, by new numbers.
    pub(super) fn rows<'a, T>(&'a self, rows: &'a [T], width: usize) -> impl Iterator<Item = &'a [T]> {
        self.old().map(move |node| &rows[node as usize * width..(node as usize + 1) * width])
    }

    /// Appends these rows of an arena to one of the copy; `false` if there is no room.
    pub(super) fn append<T: Pod>(&self, to: &Arena<T>, from: &Arena<T>, width: usize) -> bool {
        self.rows(from.as_slice(), width).all(|row| to.append(row))
    }
}

impl Graph {
    /// The numbers that the first `count` nodes should have in a copy. Those that are not linked keep theirs, and the
    /// others get one of a node with the same highest level, which is a function of the number.
    pub(super) fn reordered(&self, count: usize) -> NodePermutation {
        let linked = self.linked().len().min(count);
        let mut numbering = NodePermutation { old: vec![NOWHERE; count], new: vec![NOWHERE; count] };
        #[expect(clippy::cast_possible_truncation, reason = "nodes are numbered by u32, levels go to `LEVEL_MAX`")]
        let (past, levels): (_, Vec<u8>) = (
            linked as u32..count as u32,
            (0..linked).map(|node| level_of(node, self.parameters.max_neighbors) as u8).collect(),
        );
        past.clone().for_each(|node| numbering.give(node, node as usize));
        // By level, the number from which on the next free one is to be found.
        let mut free = [0; LEVEL_MAX + 1];
        // Whether it had no number and got the next one.
        let mut visit = |node: u32| {
            let is_new = node < past.start && numbering.new[node as usize] == NOWHERE;
            if is_new {
                let level = levels[node as usize];
                let free = &mut free[usize::from(level)];
                while levels[*free] != level {
                    *free += 1;
                }
                numbering.give(node, *free);
                *free += 1;
            }
            is_new
        };
        // Nodes on the way to the one that is looked at, each with how many of its links were followed.
        let mut path: Vec<(u32, usize)> = Vec::new();
        let entry = self.entry().map(|(_, entry)| entry);
        for seed in entry.into_iter().chain(0..past.start) {
            if visit(seed) {
                path.push((seed, 0));
            }
            while let Some((node, followed)) = path.last_mut() {
                match self.lowest.nth(*node as usize, *followed) {
                    Some(link) => {
                        *followed += 1;
                        if visit(link) {
                            path.push((link, 0));
                        }
                    }
                    None => {
                        path.pop();
                    }
                }
            }
        }
        numbering
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::graph::graph_of;

    #[test]
    fn neighbours_lie_together_on_their_levels_and_what_is_not_linked_stays() {
        const COUNT: u32 = 3000;
        let mut rng = fastrand::Rng::with_seed(4);
        let centres: Vec<Vec<f32>> = (0..40).map(|_| (0..64).map(|_| rng.f32() - 0.5).collect()).collect();
        let vectors: Vec<Vec<f32>> = (0..COUNT)
            .map(|_| rng.choice(&centres).unwrap().iter().map(|x| x + 0.2 * (rng.f32() - 0.5)).collect())
            .collect();
        let graph = graph_of(&vectors, 2500);

        let numbering = graph.reordered(COUNT as usize);
        let mut old: Vec<u32> = numbering.old().collect();
        let level = |node: u32| level_of(node as usize, graph.parameters.max_neighbors);
        assert!((0u32..).zip(&old).all(|(new, old)| level(new) == level(*old)));
        assert!((0u32..).zip(&old).all(|(new, old)| numbering.renamed(*old) == Some(new)));
        assert!(old[2500..].iter().copied().eq(2500..COUNT));
        old.sort_unstable();
        assert!(old.into_iter().eq(0..COUNT), "every node has one number");

        let copy = graph.copied(4000);
        // Into how many runs of 64 nodes the links of a node lead.
        let runs = |graph: &Graph| -> usize {
            let runs = |node: u32| graph.links(node, 0).map(|link| link / 64).collect::<HashSet<_>>().len();
            (0..2500).map(runs).sum()
        };
        assert!(runs(&copy) * 3 < runs(&graph) * 2, "{} against {}", runs(&copy), runs(&graph));
        let gone = graph.reordered(100);
        assert_eq!((gone.renamed(100), gone.renamed_entry(NO_ENTRY)), (None, NO_ENTRY));
    }
}
