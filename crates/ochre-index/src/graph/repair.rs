//! Making sure that searches find every node, and mending the graph where they do not.
//!
//! Links to a node are lost when lists are pruned, and greedy searches end in the wrong place where distances say
//! nothing: between variants of one text, far from everything, on the way from one cluster to another. So each node is
//! searched for by its own vector once it is linked, as a query would at default parameters. One that is missed gets a
//! link from where its search ended; what is missed all the same is known ([`Graph::lost`]), and stays among the
//! unindexed vectors, which are scanned.
//!
//! Not here: when that is done (`ochre-engine`).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::build::BuildOptions;
use super::codes::Query;
use super::reorder::NodePermutation;
use super::search::{Ended, Search, SearchContext};
use super::{Graph, Near, Node};

/// How many neighbours queries usually ask for.
const USUAL_K: usize = 10;
/// Rounds of linking missed nodes and searching for them again.
const ROUNDS: usize = 8;
/// Nodes with at most this many incoming links are searched for again when the graph has grown.
const LINKS_FEW: u8 = 3;
/// Of the nodes that searches take too long for, at most one in this many is linked where its search ends,
const GIVEN_UP_SHARE: usize = 20;
/// but always up to this many.
const GIVEN_UP_FEW: usize = 16;
/// Candidates that searches usually keep, at least and at most: others search as if it were these.
const EF_MIN: usize = 10;
const EF_MAX: usize = 100;

/// What is known of which nodes searches find.
#[derive(Clone, Default)]
pub(super) struct Connectivity {
    /// How many nodes were linked when incoming links were last counted.
    checked: usize,
    /// Nodes that were searched for by their own vector and missed, whatever was tried.
    missed: Vec<u32>,
    /// Nodes that are still to be searched for.
    unsearched: Vec<u32>,
}

impl Connectivity {
    /// As a snapshot says it: what was lost then is looked for again.
    pub(super) fn of_snapshot(count: usize, lost: Vec<u32>) -> Self {
        Self { checked: count, missed: lost.clone(), unsearched: lost }
    }

    pub(super) fn renamed(&self, numbering: &NodePermutation) -> Self {
        Self {
            checked: self.checked,
            missed: numbering.all_renamed(&self.missed),
            unsearched: numbering.all_renamed(&self.unsearched),
        }
    }

    pub(super) fn note_linked(&mut self, nodes: Range<u32>) {
        self.unsearched.extend(nodes);
    }

    /// Nodes that searches may not find: known to be lost, or not looked for yet.
    pub(super) fn not_known_to_be_found(&self) -> Vec<u32> {
        let mut nodes = [&self.missed[..], &self.unsearched].concat();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

impl Graph {
    /// Has those nodes searched for again that few links lead to, or none: links are lost when lists are pruned.
    pub fn search_weakly_linked_again(&self) {
        let linked = self.linked().len();
        let mut links_to = vec![0u8; self.len()];
        for node in (0u32..).take(linked) {
            for link in self.entries(node, 0) {
                let count = &mut links_to[link.node as usize];
                // Duplicates are found as long as the first of them is.
                *count = if link.is_duplicate { u8::MAX } else { count.saturating_add(1) };
            }
        }
        let weak = (0u32..).zip(&links_to).take(linked).filter(|(_, count)| **count <= LINKS_FEW).map(|(node, _)| node);
        let mut reached = self.reached.lock();
        reached.checked = linked;
        reached.unsearched.extend(weak);
        reached.unsearched.sort_unstable();
        reached.unsearched.dedup();
    }

    /// The nodes that searches were known to miss when that was last looked at; the caller keeps those among the
    /// unindexed vectors.
    pub fn unreachable(&self) -> Vec<Node> {
        self.lost_nodes().into_iter().map(|node| self.node(node)).collect()
    }

    /// How many there are of them.
    pub fn unreachable_count(&self) -> usize {
        self.unreachable_count.load(Ordering::Relaxed)
    }

    /// Sets what is known of which nodes searches find.
    pub(super) fn set_reached(&self, reached: Connectivity) {
        *self.reached.lock() = reached;
        self.unreachable_count.store(self.lost_nodes().len(), Ordering::Relaxed);
    }

    fn lost_nodes(&self) -> HashSet<u32> {
        let mut open = self.reached.lock().missed.clone();
        let mut lost = HashSet::new();
        while let Some(node) = open.pop() {
            // With a node, all of its duplicates.
            if lost.insert(node) {
                open.extend(self.duplicates(node));
            }
        }
        lost
    }

    /// How many nodes were linked since [`Graph::search_weakly_linked_again`].
    pub fn unchecked(&self) -> usize {
        self.linked().len().saturating_sub(self.reached.lock().checked)
    }

    /// How many nodes are still to be searched for ([`Graph::search_own`]).
    pub fn unsearched(&self) -> usize {
        self.reached.lock().unsearched.len()
    }

    /// Has every node searched for again.
    pub fn search_all_again(&self) {
        let linked = u32::try_from(self.linked().len()).expect("nodes are numbered by u32");
        self.reached.lock().unsearched = (0..linked).collect();
    }

    /// Searches for the next `count_max` nodes that were not searched for yet by their own vectors, as queries that
    /// keep `ef` candidates do, and links those that are missed to where their searches end. `vector` gives a node's
    /// vector, or nothing if it is not current, and need not be found. Nothing may be linked meanwhile.
    pub fn search_own<'v>(
        &self, count_max: usize, ef: usize, vector: impl Fn(Node) -> Option<&'v [f32]> + Sync,
        options: BuildOptions<'_>,
    ) {
        if !self.is_searchable() {
            // All codes are scanned, so nothing is missed.
            self.set_reached(Connectivity { checked: self.linked().len(), ..Connectivity::default() });
            return;
        }
        let nodes: Vec<u32> = {
            let reached = self.reached.lock();
            reached.unsearched.iter().copied().rev().take(count_max).collect()
        };
        let ef = ef.clamp(EF_MIN, EF_MAX);
        let query = |node: u32| self.any_current(node, &vector).map(|vector| self.codes.query(vector));
        // Duplicates are found if the first of them is.
        let mut firsts: Vec<u32> = nodes.iter().map(|node| self.first_of(*node)).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let mut missed = self.missed(&firsts, ef, &query, options);
        // A new link leads some searches elsewhere, so those are looked at again that go by where it is.
        for _ in 1..ROUNDS {
            if missed.is_empty() {
                break;
            }
            let affected = self.introduce_all(missed, ef, &query);
            missed = self.missed(&affected, ef, &query, options);
        }
        if options.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut reached = self.reached.lock();
        let left = reached.unsearched.len() - nodes.len();
        reached.unsearched.truncate(left);
        let searched: HashSet<u32> = nodes.into_iter().chain(firsts).chain(missed.iter().copied()).collect();
        reached.missed.retain(|node| !searched.contains(node));
        reached.missed.extend(missed);
        drop(reached);
        self.unreachable_count.store(self.lost_nodes().len(), Ordering::Relaxed);
    }

    /// Those of these nodes that a search for their own vector misses; several threads search.
    fn missed(
        &self, nodes: &[u32], ef: usize, query: &(impl Fn(u32) -> Option<Query> + Sync), options: BuildOptions<'_>,
    ) -> Vec<u32> {
        let (next, missed, given_up) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let work = || {
            while let Some(node) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                if options.stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut best = f32::INFINITY;
                match query(*node)
                    .map(|query| self.search_own_vector(*node, &query, ef, |context| best = context.nearest()))
                {
                    Some(Ended::Done) => missed.lock().push(*node),
                    Some(Ended::GaveUp) => given_up.lock().push(Near { distance: best, node: *node }),
                    Some(Ended::Met) | None => {}
                }
            }
        };
        options.on_threads(nodes.len(), &work);
        let (mut missed, mut given_up): (Vec<u32>, Vec<Near>) = (missed.into_inner(), given_up.into_inner());
        // A scan finds what searches take too long for. Where that is the rule, only those are linked that lie farthest
        // off.
        given_up.sort_unstable_by(|a, b| b.cmp(a));
        given_up.truncate((nodes.len() / GIVEN_UP_SHARE).max(GIVEN_UP_FEW));
        missed.extend(given_up.iter().map(|near| near.node));
        missed.sort_unstable();
        missed
    }

    /// Searches for a node by its own vector until it comes by it, as queries for one neighbour and for as many as is
    /// usual do; then shows what the last of these searches found on the way.
    ///
    /// Either may miss what the other finds: their limits differ, and so does what they follow first.
    fn search_own_vector(&self, node: u32, query: &Query, ef: usize, show: impl FnOnce(&SearchContext)) -> Ended {
        // A query that takes longer scans all codes.
        let visit_max = self.linked().len() / super::GRAPH_SEARCH_COST;
        let mut context = self.take_context();
        let mut ended = Ended::Met;
        for k in [USUAL_K, 1] {
            let accept = &mut |_| true;
            let search = Search {
                distance_bound: self.distance_bound(query, k, ef),
                visit_max,
                duplicates_max: k,
                until: Some(node),
                ..Search::plain(ef, accept)
            };
            (ended, _) = self.search_levels(query, search, &mut context);
            if ended != Ended::Met {
                break;
            }
        }
        show(&context);
        self.give_context(context);
        ended
    }

    /// The node that searches come by before they find this one: itself, or the first with the same code.
    fn first_of(&self, node: u32) -> u32 {
        // A duplicate's own link leads there.
        let first = self.links(node, 0).next();
        let is_below = |first: &u32| self.codes.is_same(node, *first) && self.duplicates(*first).next().is_some();
        first.filter(is_below).unwrap_or(node)
    }

    /// The vector of a node that has to be found by way of this one: its own, or, if that is not current, a
    /// duplicate's.
    fn any_current<'v>(&self, node: u32, vector: &impl Fn(Node) -> Option<&'v [f32]>) -> Option<&'v [f32]> {
        /// Duplicates that are looked at.
        const LOOKED_AT_MAX: usize = 1000;
        let mut open = vec![node];
        for _ in 0..LOOKED_AT_MAX {
            let node = open.pop()?;
            let found = vector(self.node(node));
            if found.is_some() {
                return found;
            }
            open.extend(self.duplicates(node));
        }
        None
    }

    /// Links nodes that searches miss to where their searches end; these, and those whose searches may change by that.
    fn introduce_all(&self, missed: Vec<u32>, ef: usize, query: &impl Fn(u32) -> Option<Query>) -> Vec<u32> {
        let mut affected = Vec::new();
        for node in missed {
            let Some(query) = query(node) else { continue };
            affected.push(node);
            let mut followed: Vec<u32> = Vec::new();
            if self.search_own_vector(node, &query, ef, |context| followed.extend(context.followed())) == Ended::Met {
                continue;
            }
            if let Some((parent, displaced)) = self.place(node, &followed) {
                affected.extend(self.links(parent, 0));
                affected.extend(displaced);
                self.link_below(parent, node, displaced);
            }
        }
        affected.sort_unstable();
        affected.dedup();
        affected
    }

    /// Where to put a link to a node, of those that its search follows, in that order: in the list of the first that is
    /// about as near as any, since searches reach that first; and the neighbour that gives way, if one has to.
    fn place(&self, node: u32, followed: &[u32]) -> Option<(u32, Option<u32>)> {
        /// What is farther by less is about as far: codes err, and what gives way to what is as near comes back.
        const ABOUT: f32 = 1.2;
        let mut places: Vec<(Near, Option<u32>)> = Vec::new();
        for near in self.reranked(node, followed.to_vec()) {
            let neighbours = || self.reranked(near.node, self.links(near.node, 0).collect());
            if self.has_room(near.node) {
                places.push((near, None));
            } else if let Some(farthest) = neighbours().into_iter().max()
                && farthest.distance > near.distance.max(0.0) * ABOUT
            {
                places.push((near, Some(farthest.node)));
            }
        }
        let nearest = places.iter().map(|(near, _)| near.distance).min_by(f32::total_cmp)?;
        let (near, displaced) = places.into_iter().find(|(near, _)| near.distance <= nearest.max(0.0) * ABOUT)?;
        Some((near.node, displaced))
    }

    fn has_room(&self, node: u32) -> bool {
        self.entries(node, 0).count() < self.links_max(0)
    }

    /// Adds a link from `parent` to `node`, which leads on to the neighbour that gives way to it, if one has to.
    fn link_below(&self, parent: u32, node: u32, displaced: Option<u32>) {
        if let Some(displaced) = displaced {
            // What the node lets go of, nobody reached through it.
            let mut own: Vec<u32> = self.links(node, 0).filter(|link| *link != displaced).collect();
            own.truncate(self.links_max(0) - 1 - self.duplicates(node).count());
            own.push(displaced);
            let _lock = self.stripe(node).lock();
            self.set_neighbours(node, 0, own);
        }
        let links = self.links(parent, 0).filter(|link| *link != node && Some(*link) != displaced);
        let links: Vec<u32> = links.chain([node]).collect();
        let _lock = self.stripe(parent).lock();
        self.set_neighbours(parent, 0, links);
    }
}
