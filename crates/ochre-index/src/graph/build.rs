//! Adding nodes: their codes are published first, which makes them fast to scan, then they are linked, by
//! several threads at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::codes::{Encoded, Query};
use super::links::Link;
use super::search::Search;
use super::{Graph, NO_ENTRY, Near, Node, level_of};

/// A link is left out if another one leads to a node that is nearer to its target by this factor. Above 1
/// some longer links stay, which saves steps.
const ALPHA: f32 = 1.2;

/// Nodes that are kept on the way down to where a node is linked: one that is linked into the wrong cluster is not
/// found.
const DESCENT_BEAM_WIDTH: usize = 4;

/// How nodes are added.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// Threads that link.
    pub threads: usize,
    /// Set to stop early; what is not linked then stays among the unindexed vectors.
    pub stop: &'a AtomicBool,
}

impl BuildOptions<'_> {
    /// Runs `work`, which takes its next piece itself until none is left, on this thread and others, as far as that
    /// many nodes are worth them.
    pub(super) fn on_threads(&self, nodes: usize, work: &(impl Fn() + Sync)) {
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(nodes / 16).max(1) {
                // If the system gives no more threads, fewer do the work.
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    }
}

impl Graph {
    /// Adds nodes with their codes, not linked yet; `false`, and nothing added, if they do not fit.
    ///
    /// One caller at a time. Readers may search meanwhile.
    #[must_use]
    pub fn append(&self, nodes: &[(Node, &[f32])], threads: usize) -> bool {
        if self.capacity() - self.nodes.len() < nodes.len() {
            return false;
        }
        let encoded = self.encode_all(nodes, threads);
        let identities: Vec<[u32; 3]> = nodes.iter().map(|(node, _)| node.to_words()).collect();
        // Codes before identities: a node that can be named can be measured.
        encoded.iter().all(|encoded| self.codes.append(encoded)) && self.nodes.append(&identities)
    }

    /// Links the next nodes that are not linked yet, at most `count_max`. `vector` gives a node's vector if
    /// it is still to be had; else its code has to do.
    ///
    /// One caller at a time. Readers may search meanwhile; they find a node once links lead to it.
    pub fn link_next<'v>(
        &self, count_max: usize, vector: impl Fn(Node) -> Option<&'v [f32]> + Sync, options: BuildOptions<'_>,
    ) {
        let first = self.linked().len();
        let nodes: Vec<Node> = self.nodes().skip(first).take(count_max).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(identity) = nodes.get(index).filter(|_| !options.stop.load(Ordering::Relaxed)) else {
                    return;
                };
                let node = u32::try_from(first + index).expect("nodes are numbered by u32");
                let query = vector(*identity).map(|vector| self.codes.query(vector));
                self.link(node, &query.unwrap_or_else(|| self.codes.query_of(node)));
            }
        };
        options.on_threads(nodes.len(), &work);
        if !options.stop.load(Ordering::Relaxed) {
            let linked = u32::try_from(first + nodes.len()).expect("nodes are numbered by u32");
            self.reached.lock().note_linked(u32::try_from(first).expect("nodes are numbered by u32")..linked);
            self.linked.store(linked, Ordering::Release);
        }
    }

    fn encode_all(&self, nodes: &[(Node, &[f32])], threads: usize) -> Vec<Encoded> {
        let encode = |part: &[(Node, &[f32])]| -> Vec<Encoded> {
            part.iter().map(|(_, vector)| self.codes.encode(vector)).collect()
        };
        let (mine, others) = nodes.split_at(nodes.len() / threads.max(1));
        std::thread::scope(|scope| {
            let parts: Vec<_> = others
                .chunks(nodes.len().div_ceil(threads.max(1)).max(16))
                .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || encode(part))))
                .collect();
            let mut encoded = encode(mine);
            for (part, thread) in parts {
                // A thread that the system does not give is done without.
                let done = thread.ok().and_then(|thread| thread.join().ok());
                encoded.extend(done.unwrap_or_else(|| encode(part)));
            }
            encoded
        })
    }

    /// Links one node into every level it has.
    ///
    /// Source: Malkov & Yashunin, arXiv:1603.09320, algorithm 1.
    fn link(&self, node: u32, query: &Query) {
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
        let mut context = self.take_context();
        let mut visited = 0;
        let mut entries = vec![self.near(query, entry)];
        self.descend(query, &mut entries, (level + 1..=top).rev(), DESCENT_BEAM_WIDTH, &mut context, &mut visited);
        for level in (0..=level.min(top)).rev() {
            let accept = &mut |found| found != node;
            let (ef, visit_max) = (self.parameters.ef_construction, usize::MAX);
            let search = Search { visit_max, ..Search::plain(ef, accept) };
            self.search_level(query, &entries, level, search, &mut context, &mut visited);
            let found: Vec<Near> = context.found().collect();
            let same = found.iter().map(|near| near.node).filter(|_| level == 0);
            if let Some(first) = same.into_iter().find(|other| self.codes.is_same(node, *other))
                && self.add_duplicate(first, node)
            {
                break;
            }
            // Measured like the links among themselves, so that equal vectors are equally far.
            let mut candidates = self.reranked(node, found.iter().map(|near| near.node).collect());
            candidates.sort_unstable();
            let chosen = self.prune(&candidates, self.links_max(level));
            self.set_links(node, level, &chosen);
            for near in &chosen {
                self.add_link(near.node, level, Near { distance: near.distance, node });
            }
            if !found.is_empty() {
                entries = found;
            }
        }
        self.give_context(context);
        if entry_guard.is_some() && level > top {
            self.entry.store((level as u64) << 32 | u64::from(node), Ordering::Release);
        }
    }

    /// Nodes with their distances from one.
    pub(super) fn reranked(&self, from: u32, nodes: Vec<u32>) -> Vec<Near> {
        let mut distances = vec![0.0; nodes.len()];
        self.codes.between(from, &nodes, &mut distances);
        nodes.into_iter().zip(distances).map(|(node, distance)| Near { distance, node }).collect()
    }

    /// Picks links that lead in different directions out of candidates, which stand nearest first: one is
    /// left out if it is nearer to one already taken than to the node itself; then, while there is room,
    /// if it is nearer by the factor [`ALPHA`].
    ///
    /// Source: Jayaram Subramanya et al., DiskANN, NeurIPS 2019, algorithm 2, in two rounds.
    fn prune(&self, candidates: &[Near], count_max: usize) -> Vec<Near> {
        /// The candidate was taken.
        const TAKEN: f32 = f32::INFINITY;
        // How much nearer each candidate is to one that was taken than to the node.
        let mut factors = vec![0.0f32; candidates.len()];
        let mut taken = Vec::with_capacity(count_max);
        // The candidates that may still be taken, and how far the one just taken is from each.
        let (mut open, mut nodes, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        for bar in [1.0, ALPHA] {
            for index in 0..candidates.len() {
                if taken.len() == count_max {
                    return taken;
                }
                if factors[index] > bar {
                    continue;
                }
                factors[index] = TAKEN;
                taken.push(candidates[index]);
                open.clear();
                open.extend((0..candidates.len()).filter(|other| factors[*other] <= ALPHA));
                nodes.clear();
                nodes.extend(open.iter().map(|other| candidates[*other].node));
                apart.resize(nodes.len(), 0.0);
                self.codes.between(candidates[index].node, &nodes, &mut apart);
                for (other, apart) in open.iter().zip(&apart) {
                    let (distance, factor) = (candidates[*other].distance, &mut factors[*other]);
                    // Inner products can be anything: what is no distance is near.
                    let is_distance = *apart > 0.0 && distance > 0.0;
                    let nearer = if *apart < distance { f32::MAX } else { 0.0 };
                    *factor = factor.max(if is_distance { distance / apart } else { nearer });
                }
            }
        }
        taken
    }

    /// Sets a node's own links. Others may have linked to the node meanwhile, and it back to them.
    fn set_links(&self, node: u32, level: usize, chosen: &[Near]) {
        let _lock = self.stripe(node).lock();
        let mut links: Vec<u32> = chosen.iter().map(|near| near.node).collect();
        links.extend(self.links(node, level).filter(|link| chosen.iter().all(|near| near.node != *link)));
        self.set_neighbours(node, level, links);
    }

    /// Adds a link to a node's list, thinning the list out if it is full.
    fn add_link(&self, node: u32, level: usize, near: Near) {
        let _lock = self.stripe(node).lock();
        let (mut links, length) = (Vec::new(), self.links_max(level));
        let mut room = length;
        for link in self.entries(node, level) {
            if link.is_duplicate {
                room -= 1;
            } else {
                links.push(link.node);
            }
        }
        if links.contains(&near.node) {
            return;
        }
        if links.len() < room {
            links.push(near.node);
        } else {
            let mut all = self.reranked(node, links);
            all.push(near);
            all.sort_unstable();
            // Some room is left, so that the next link does not thin the list out again.
            let keep = (length * 7 / 8).clamp(1, room.max(1));
            links = self.prune(&all, keep).iter().map(|near| near.node).collect();
        }
        self.set_neighbours(node, level, links);
    }

    /// Hangs a node below the first one with the same code: into its list, or, where that has a duplicate already, into
    /// that one's, and so on, so that lists become trees. `false` if no place was found.
    fn add_duplicate(&self, first: u32, node: u32) -> bool {
        /// Of a tree with 30 branches at each node, even of a billion duplicates.
        const DEPTH_MAX: usize = 16;
        {
            let _lock = self.stripe(node).lock();
            self.set_neighbours(node, 0, [first]);
        }
        let (mut at, mut branch) = (first, node as usize);
        for depth in 0..DEPTH_MAX {
            let _lock = self.stripe(at).lock();
            let mut entries: Vec<Link> = self.entries(at, 0).collect();
            let below: Vec<u32> = self.duplicates(at).collect();
            let is_full = entries.len() == self.links_max(0);
            // The first one keeps its links to neighbours; others need none.
            if below.is_empty() || depth > 0 && !is_full {
                if is_full {
                    entries.pop();
                }
                entries.insert(0, Link::duplicate(node));
                self.lowest.set(at as usize, entries);
                return true;
            }
            at = below[branch % below.len()];
            branch /= below.len();
        }
        false
    }

    /// Whether anything can be found.
    pub(super) fn has_entry(&self) -> bool {
        self.entry.load(Ordering::Acquire) != NO_ENTRY
    }
}
