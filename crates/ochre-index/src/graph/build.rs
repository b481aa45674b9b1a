//! Adding nodes: codes are published first, then nodes are linked, by several threads at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::walk::Near;
use super::{Encoded, Graph, NO_ENTRY, Node, STRIPES, level_of};

/// How nodes are added.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// Threads that link.
    pub threads: usize,
    /// Set to stop early; what is not linked then stays in the tail.
    pub stop: &'a AtomicBool,
}

impl Graph {
    /// Adds nodes and links them; `false`, and nothing added, if they do not fit.
    ///
    /// One caller at a time. Readers may walk meanwhile; they find a node once links lead to it.
    #[must_use]
    pub fn add(&self, nodes: &[(Node, &[f32])], options: BuildOptions<'_>) -> bool {
        let first = self.nodes.len();
        if self.capacity() - first < nodes.len() {
            return false;
        }
        let encoded: Vec<Encoded> = nodes.iter().map(|(_, vector)| self.codes.encode(vector)).collect();
        let identities: Vec<Node> = nodes.iter().map(|(node, _)| *node).collect();
        // Codes before identities: a node that can be named can be measured.
        if !encoded.iter().all(|encoded| self.codes.append(encoded)) || !self.nodes.append(&identities) {
            return false;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= encoded.len() || options.stop.load(Ordering::Relaxed) {
                    return;
                }
                self.link(u32::try_from(first + index).expect("nodes are numbered by u32"), &encoded[index]);
            }
        };
        let threads = options.threads.min(nodes.len() / 16).max(1);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // If the system gives no more threads, fewer do the work.
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        if !options.stop.load(Ordering::Relaxed) {
            let linked = u32::try_from(first + nodes.len()).expect("nodes are numbered by u32");
            self.linked.store(linked, Ordering::Release);
        }
        true
    }

    /// Links one node into every level it has.
    ///
    /// Source: Malkov & Yashunin, arXiv:1603.09320, algorithm 1.
    fn link(&self, node: u32, encoded: &Encoded) {
        let level = level_of(node as usize, self.parameters.max_neighbors);
        let mut entry_guard = None;
        let (top, entry) = loop {
            match self.entry() {
                // Raising the entry point is rare and done alone.
                Some((top, entry)) if level <= top || entry_guard.is_some() => break (top, entry),
                None if entry_guard.is_some() => {
                    self.entry.store((level as u64) << 32 | u64::from(node), Ordering::Release);
                    return;
                }
                _ => entry_guard = Some(self.entry_lock.lock()),
            }
        };
        let mut visited = self.take_visited();
        let mut count = 0;
        let mut near = Near { distance: self.codes.distance(encoded, entry), node: entry };
        for level in (level + 1..=top).rev() {
            near = self.descend(encoded, near, level, &mut count);
        }
        let mut entries = vec![near];
        for level in (0..=level.min(top)).rev() {
            let ef = self.parameters.ef_construction;
            let accept = &mut |found| found != node;
            let (found, _) =
                self.search_level(encoded, &entries, ef, level, &mut visited, usize::MAX, &mut count, accept);
            let chosen = self.choose(&found, self.parameters.max_neighbors);
            self.set_links(node, level, &chosen);
            for near in &chosen {
                self.add_link(near.node, level, Near { distance: near.distance, node });
            }
            if !found.is_empty() {
                entries = found;
            }
        }
        self.give_visited(visited);
        if entry_guard.is_some() && level > top {
            self.entry.store((level as u64) << 32 | u64::from(node), Ordering::Release);
        }
    }

    /// Picks links that lead in different directions: a candidate is taken unless one already taken is
    /// nearer to it than the node itself.
    ///
    /// Source: Malkov & Yashunin, arXiv:1603.09320, algorithm 4.
    fn choose(&self, candidates: &[Near], count_max: usize) -> Vec<Near> {
        let mut chosen: Vec<Near> = Vec::with_capacity(count_max);
        for candidate in candidates {
            if chosen.len() == count_max {
                break;
            }
            if chosen.iter().all(|taken| self.codes.between(candidate.node, taken.node) >= candidate.distance) {
                chosen.push(*candidate);
            }
        }
        chosen
    }

    /// Sets a node's own links. Others may have linked to the node meanwhile, and it back to them.
    fn set_links(&self, node: u32, level: usize, chosen: &[Near]) {
        let _lock = self.stripes[node as usize % STRIPES].lock();
        let mut links: Vec<u32> = chosen.iter().map(|near| near.node).collect();
        links.extend(self.links(node, level).filter(|link| chosen.iter().all(|near| near.node != *link)));
        self.write_list(node, level, links);
    }

    /// Adds a link to a node's list, thinning the list out if it is full.
    fn add_link(&self, node: u32, level: usize, near: Near) {
        let _lock = self.stripes[node as usize % STRIPES].lock();
        let mut links: Vec<u32> = self.links(node, level).collect();
        if links.contains(&near.node) {
            return;
        }
        if links.len() < self.list(node, level).len() - 1 {
            links.push(near.node);
        } else {
            let mut all: Vec<Near> =
                links.iter().map(|link| Near { distance: self.codes.between(node, *link), node: *link }).collect();
            all.push(near);
            all.sort_unstable();
            links = self.choose(&all, self.list(node, level).len() - 1).iter().map(|near| near.node).collect();
        }
        self.write_list(node, level, links);
    }

    /// Replaces a list; the caller holds the node's lock.
    fn write_list(&self, node: u32, level: usize, links: Vec<u32>) {
        let list = self.list(node, level);
        let count = links.len().min(list.len() - 1);
        for (slot, link) in list[1..].iter().zip(links) {
            slot.store(link, Ordering::Release);
        }
        list[0].store(u32::try_from(count).expect("a short list"), Ordering::Release);
    }

    /// Makes every linked node reachable on the lowest level from the entry point: links to a node are
    /// lost when lists are thinned out, and a node nothing links to is never found. Returns the nodes
    /// that stayed unreachable; the caller keeps those in the tail.
    pub fn relink_orphans(&self) -> Vec<Node> {
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let orphans = self.orphans();
            if orphans.is_empty() {
                return Vec::new();
            }
            let mut previous = None;
            for orphan in orphans {
                self.adopt(orphan, previous);
                previous = Some(orphan);
            }
        }
        self.orphans().into_iter().map(|orphan| self.node(orphan)).collect()
    }

    fn orphans(&self) -> Vec<u32> {
        let Some((_, entry)) = self.entry() else { return Vec::new() };
        let mut reached = vec![false; self.len()];
        let mut open = vec![entry];
        reached[entry as usize] = true;
        while let Some(node) = open.pop() {
            for link in self.links(node, 0) {
                if !std::mem::replace(&mut reached[link as usize], true) {
                    open.push(link);
                }
            }
        }
        (0u32..)
            .zip(&reached)
            .filter(|(node, reached)| !**reached && (*node as usize) < self.linked().len())
            .map(|(node, _)| node)
            .collect()
    }

    /// Gives an orphan a link from the nearest node that has room, else from the orphan adopted before it
    /// (many equal vectors crowd around the same full lists, and are strung together like this), else in
    /// place of a node's last link.
    fn adopt(&self, orphan: u32, previous: Option<u32>) {
        let encoded = match &self.codes {
            super::codes::Codes::Bytes(bytes) => {
                let dimension = bytes.mean.len();
                let row = &bytes.codes.as_slice()[orphan as usize * dimension..(orphan as usize + 1) * dimension];
                Encoded::Bytes { codes: row.to_vec(), extra: bytes.extras.as_slice()[orphan as usize] }
            }
            super::codes::Codes::Floats(floats) => {
                let dimension = floats.dimension;
                let row = &floats.values.as_slice()[orphan as usize * dimension..(orphan as usize + 1) * dimension];
                Encoded::Floats(row.to_vec())
            }
        };
        let walk = self.walk(&encoded, self.parameters.ef_construction, usize::MAX, &mut |node| node != orphan);
        let room = |node: &&u32| self.links(**node, 0).count() < self.list(**node, 0).len() - 1;
        let strung = previous.as_ref().filter(room);
        let Some(parent) = walk.nodes.iter().find(room).or(strung).or(walk.nodes.first()) else { return };
        let _lock = self.stripes[*parent as usize % STRIPES].lock();
        let mut links: Vec<u32> = self.links(*parent, 0).collect();
        if links.len() == self.list(*parent, 0).len() - 1 {
            links.pop();
        }
        links.push(orphan);
        self.write_list(*parent, 0, links);
    }

    /// Whether anything can be found.
    pub(super) fn has_entry(&self) -> bool {
        self.entry.load(Ordering::Acquire) != NO_ENTRY
    }
}
