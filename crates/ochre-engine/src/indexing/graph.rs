//! Putting vectors into the graph that are not in it yet, rebuilding graphs, and writing their snapshots.
//!
//! Whoever does it holds the lock `graphs`, so a graph has one writer. Killed at any point it leaves what there
//! was: vectors stay among the unindexed vectors until the view says that the graph has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ochre_index::{
    Bitmap, BuildOptions, Graph, GraphParameters, Hit, Nearest, Node, SnapshotHeader, Strategy, View, nearest,
};
use ochre_model::HnswConfiguration;
use ochre_scheduler::{Context, Failure, Progress, TaskSettings};
use ochre_store::{CollectionNumber, CollectionRow};

use crate::collection::state::CollectionState;
use crate::error::Error;
use crate::indexing::Indexing;

/// Vectors that decide how a graph codes its vectors.
const SAMPLE: usize = 4096;
/// Nodes that are linked in one step, for each thread that links; a view is published after each.
const LINK_AT_ONCE: usize = 256;
/// Vectors that are coded in one step.
const CODE_AT_ONCE: usize = 10_000;
/// A graph with so many times more nodes than there are records is started over.
const DEAD_NODES_MAX: usize = 3;
/// Nodes that few links lead to are looked for once this share of the graph was added since the last time.
const CHECK_SHARE: usize = 50;
/// All nodes are searched for again once the graph grew by its size divided by this.
const SEARCH_AGAIN_SHARE: usize = 2;
/// Nodes that are searched for in one step, for each thread that searches.
const SEARCH_AT_ONCE: usize = 512;
/// A graph that takes more than one part in so many of the memory there may be is moved into its snapshot.
const HEAP_SHARE: u64 = 16;
/// While it is built, a graph is moved into a file whenever nodes on the heap take more than one part in so many.
const BUILDING_SHARE: u64 = 8;
/// Vectors that are compared with a sample in one step.
const SCAN_AT_ONCE: usize = 10_000;
/// Neighbours that a sampled record should have found.
const SAMPLED_NEAREST: usize = 10;
/// A snapshot is worth writing once this share of the graph is not in it.
const SNAPSHOT_SHARE: usize = 10;

/// Whether a collection's index has to follow what changed.
pub(crate) enum Pending {
    /// Nothing changed that concerns it.
    Nothing,
    /// So many vectors wait for more.
    Later(usize),
    /// Now, and why.
    Now(String),
    /// Writes are about to have to wait.
    Urgent(String),
}

/// A graph that may have to be rebuilt.
pub(crate) struct RebuildCandidate {
    pub(crate) number: CollectionNumber,
    pub(crate) why: String,
    pub(crate) dead_share: f64,
    /// Only if a sample says so.
    pub(crate) is_to_be_sampled: bool,
}

impl Indexing {
    /// Whether a collection's index has to follow what changed `since`.
    pub(crate) fn pending(&self, number: CollectionNumber, since: Duration, unindexed_age: Duration) -> Pending {
        let Some(loaded) = self.collections.get(number) else { return Pending::Nothing };
        let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else {
            return Pending::Nothing;
        };
        let Some(dimension) = row.dimension else { return Pending::Nothing };
        let name = &row.name;
        let (waiting, records) = (view.pending_len(), view.live().len());
        let outside_text = view.outside_text().len();
        let has_other_terms = !view.text().is_empty() && view.has_other_terms(&loaded.analyzer(&row));
        let is_large = view.with_document().len() > self.settings.text_unindexed_max;
        let is_text_due = row.schema.is_text_searchable()
            && is_large
            && (outside_text > self.settings.text_unindexed_max || has_other_terms);
        let text = || {
            Pending::Now(if has_other_terms {
                format!("documents of '{name}' were split into terms by another analyzer")
            } else {
                format!("{outside_text} documents of '{name}' are in no text segment")
            })
        };
        if records < self.settings.graph_records_min {
            let has_surplus = view.graph().is_some() && records < self.settings.graph_records_min / 2;
            return if is_text_due {
                text()
            } else if has_surplus {
                Pending::Now(format!("'{name}' has become too small for a graph"))
            } else {
                Pending::Nothing
            };
        }
        if view.graph().is_none() {
            return Pending::Now(format!("'{name}' has {records} records and no graph"));
        }
        if self.dirty.index_state(number).is_unverified {
            return Pending::Now(format!("the graph of '{name}' was not read through since it was loaded"));
        }
        if view.graph().is_some_and(|graph| graph.unsearched() > 0) {
            return Pending::Now(format!("vectors in the graph of '{name}' were not searched for yet"));
        }
        if waiting * dimension * 4 > self.settings.unindexed_bytes_max / 2 {
            return Pending::Urgent(format!("{waiting} vectors of '{name}' wait for the graph"));
        }
        let threshold = row.schema.hnsw().sync_threshold.max(1);
        if waiting >= threshold || waiting > 0 && since >= unindexed_age {
            return Pending::Now(format!("{waiting} vectors of '{name}' wait for the graph"));
        }
        if is_text_due {
            return text();
        }
        if let Some(why) = self.records_due(&loaded, &view) {
            return Pending::Now(format!("'{name}': {why}"));
        }
        if waiting == 0 { Pending::Nothing } else { Pending::Later(waiting) }
    }

    /// Brings the indexes of every loaded collection up to date, whatever little is missing.
    pub(crate) fn sync_everything(&self) -> Result<(), Error> {
        let _graphs = self.graphs.hold_patiently();
        self.relocate_moved()?;
        let (settings, loaded) =
            (TaskSettings::default(), self.collections.all().iter().map(|loaded| loaded.number).collect::<Vec<_>>());
        for number in loaded {
            self.dirty.clear_dirty(number);
            match self.sync_index(number, true, &Context::unhurried(&settings)) {
                Ok(()) => self.sync_text(number, true)?,
                Err(Failure::Failed(reason)) => return Err(Error::Maintenance { job: "index-sync".into(), reason }),
                Err(Failure::Stopped(_)) => return Err(Error::Closed),
            }
        }
        Ok(())
    }

    /// Waits for the next step of what works on graphs, and makes room for it: what was sealed meanwhile leaves the
    /// heap, since writes may wait for just that, and pages go where memory is short.
    fn next_step(&self, progress: Progress, context: &Context<'_>) -> Result<(), Failure> {
        // It must not wait for room that it takes itself.
        self.collections.release_pages();
        context.step(progress)?;
        self.relocate_moved()?;
        self.collections.release_pages();
        Ok(())
    }

    /// Lets views find vectors where sealing or compaction put them. All of them are read for that, so their pages go
    /// again where memory is short.
    pub(crate) fn relocate_moved(&self) -> Result<(), Error> {
        let mut failed = None;
        for number in self.dirty.take_moved() {
            self.collections.release_pages();
            let loaded = self.collections.get(number);
            if let Some(Err(error)) = loaded.map(|loaded| loaded.relocate(&*self.store)) {
                self.dirty.mark_moved(number);
                failed = Some(error);
            }
            self.dirty.end_relocation(number);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Moves the unindexed vectors of a collection into its graph, making one if there is none; with `all`, also finds
    /// what is lost and writes the snapshot where there is little that is new.
    pub(crate) fn sync_index(&self, number: CollectionNumber, all: bool, context: &Context<'_>) -> Result<(), Failure> {
        let Some(loaded) = self.collections.get(number) else { return Ok(()) };
        let Ok(row) = self.collections.catalog.row(loaded.id) else { return Ok(()) };
        self.verify_graph(&loaded, &row, context)?;
        let (Some(view), Some(dimension)) = (loaded.view(), row.dimension) else { return Ok(()) };
        let hnsw = row.schema.hnsw();
        let records = view.live().len();
        if records < self.settings.graph_records_min {
            // Far below the limit the graph goes; near it, it stays, so that it does not come and go.
            if view.graph().is_some() && records < self.settings.graph_records_min / 2 {
                loaded.change(|view| view.set_graph(None));
                self.cache.remove_graph(row.id);
                self.delete_records_snapshot(&row)?;
            }
            return Ok(());
        }
        if view.graph().is_none() {
            let graph = empty_graph(&view, GraphParameters::new(hnsw, dimension), hnsw);
            self.publish_graph(&loaded, graph);
        }
        self.index_pending(&loaded, hnsw, context)?;
        self.finish(&loaded, &row, all, context)
    }

    /// Reads the snapshot through that a graph is used from, if that was not done yet; a graph that is damaged goes.
    fn verify_graph(
        &self, loaded: &CollectionState, row: &CollectionRow, context: &Context<'_>,
    ) -> Result<(), Failure> {
        if !self.dirty.index_state(loaded.number).is_unverified {
            return Ok(());
        }
        let sound = self.cache.verify_graph(row.id, &mut |done, all| {
            context.step(Progress { done, total: Some(all), what: "bytes of the graph's snapshot read through".into() })
        })?;
        if let Err(error) = sound {
            tracing::warn!(collection = row.name, %error, "a graph snapshot is damaged; the graph is rebuilt");
            self.cache.remove_graph(row.id);
            loaded.change(|view| view.set_graph(None));
            self.dirty.update_index_state(loaded.number, |remembered| remembered.snapshot = 0);
        }
        self.dirty.update_index_state(loaded.number, |remembered| remembered.is_unverified = false);
        Ok(())
    }

    /// Graphs that have to be rebuilt, or may have to, the worst first.
    pub(crate) fn rebuild_candidates(&self, dead_share_max: f64, with_samples: bool) -> Vec<RebuildCandidate> {
        let loaded: Vec<Arc<CollectionState>> = self.collections.all();
        let mut rebuild_candidates: Vec<RebuildCandidate> = loaded
            .iter()
            .filter_map(|loaded| {
                let (view, row) = (loaded.view()?, self.collections.catalog.row(loaded.id).ok()?);
                let (graph, number) = (view.graph()?, loaded.number);
                let dead_share = dead_share(&view, graph);
                let (nodes, sampled) = (graph.linked().len(), self.dirty.index_state(number).sampled);
                let found =
                    |why, is_to_be_sampled| Some(RebuildCandidate { number, why, dead_share, is_to_be_sampled });
                if graph.parameters() != GraphParameters::new(row.schema.hnsw(), row.dimension?) {
                    found(format!("the parameters of '{}' changed", row.name), false)
                } else if dead_share > dead_share_max {
                    found(format!("{:.0} % of the graph of '{}' is dead", dead_share * 100.0, row.name), false)
                } else if with_samples && nodes > 0 && view.pending_len() == 0 && nodes > sampled + sampled / 2 {
                    found(format!("the recall of '{}' was not sampled since its graph grew", row.name), true)
                } else {
                    None
                }
            })
            .collect();
        rebuild_candidates.sort_by(|a, b| b.dead_share.total_cmp(&a.dead_share));
        rebuild_candidates
    }

    /// Which share of the [`SAMPLED_NEAREST`] nearest neighbours of some records the graph finds, of those that are
    /// there.
    pub(crate) fn recall(
        &self, number: CollectionNumber, sample: usize, context: &Context<'_>,
    ) -> Result<f64, Failure> {
        let Some(loaded) = self.collections.get(number) else { return Ok(1.0) };
        let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { return Ok(1.0) };
        let Some(graph) = view.graph() else { return Ok(1.0) };
        let nodes = graph.linked().len();
        if !graph.is_searchable() {
            // All codes are scanned: another graph would find no more.
            self.dirty.update_index_state(number, |remembered| remembered.sampled = nodes);
            return Ok(1.0);
        }
        let (live, ef_search) = (view.live(), row.schema.hnsw().ef_search);
        let offsets: Vec<u32> = live.iter().collect();
        let queries: Vec<u32> =
            offsets.iter().step_by((offsets.len() / sample.max(1)).max(1)).take(sample).copied().collect();
        let search = |query: u32, matches: Option<&Bitmap>, hint| {
            let (query, _) = view.vector(query)?;
            let wanted = Nearest { query, k: SAMPLED_NEAREST, ef_search, exact_max: 0, matches, hint: Some(hint) };
            nearest(&view, wanted).map(|(hits, _)| hits)
        };
        // All at once, part by part: whatever memory there may be, every vector is read once.
        let mut exact: Vec<Vec<Hit>> = vec![Vec::new(); queries.len()];
        for (index, part) in offsets.chunks(SCAN_AT_ONCE).enumerate() {
            let (done, total) = ((index * SCAN_AT_ONCE) as u64, Some(offsets.len() as u64));
            self.next_step(Progress { done, total, what: "records compared with a sample".into() }, context)?;
            let part = part.iter().copied().collect();
            for (query, best) in queries.iter().zip(&mut exact) {
                best.extend(search(*query, Some(&part), Strategy::Exact).unwrap_or_default());
                best.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.offset.cmp(&b.offset)));
                best.truncate(SAMPLED_NEAREST);
            }
        }
        let (mut found, mut there) = (0, 0);
        for (query, best) in queries.iter().zip(&exact) {
            self.collections.release_pages();
            if let Ok(hits) = search(*query, None, Strategy::Graph) {
                there += best.len();
                found += best.iter().filter(|hit| hits.iter().any(|other| other.offset == hit.offset)).count();
            }
        }
        let recall = found as f64 / there.max(1) as f64;
        tracing::debug!(collection = row.name, recall, "sampled the recall of a graph");
        self.dirty.update_index_state(number, |remembered| remembered.sampled = nodes);
        Ok(if there == 0 { 1.0 } else { recall })
    }

    /// Builds a graph for everything live beside the one that serves, and puts it in its place.
    pub(crate) fn rebuild_index(&self, number: CollectionNumber, context: &Context<'_>) -> Result<(), Failure> {
        let Some(loaded) = self.collections.get(number) else { return Ok(()) };
        let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { return Ok(()) };
        let Some(dimension) = row.dimension else { return Ok(()) };
        let hnsw = row.schema.hnsw();
        let mut graph = empty_graph(&view, GraphParameters::new(hnsw, dimension), hnsw);
        let mut is_movable = true;
        let offsets: Vec<u32> = view.live().iter().collect();
        for batch in offsets.chunks(LINK_AT_ONCE) {
            self.next_step(nodes_done(&graph, offsets.len()), context)?;
            let threads = self.admission.threads(threads(hnsw));
            if !append(&graph, &view, batch, threads) || !self.link_next(&graph, &view, threads) {
                return Ok(());
            }
            let is_linked = graph.linked().len() == graph.len();
            if is_movable && is_linked && self.is_large_to_build(&graph, false) {
                graph.search_weakly_linked_again();
                match self.moved_to_file(&loaded, &graph, graph.capacity()) {
                    Some(moved) => graph = moved,
                    None => is_movable = false,
                }
            }
        }
        while graph.linked().len() < graph.len() {
            self.next_step(nodes_done(&graph, offsets.len()), context)?;
            let before = graph.linked().len();
            let threads = self.admission.threads(threads(hnsw));
            if !self.link_next(&graph, &view, threads) || graph.linked().len() == before {
                return Ok(());
            }
        }
        self.next_step(nodes_done(&graph, offsets.len()), context)?;
        // Searches go by it from their first on.
        graph.calibrate();
        let calibrated = graph.len();
        self.publish_graph(&loaded, graph);
        self.dirty.update_index_state(number, |remembered| remembered.calibrated = calibrated);
        self.collections.note_freed();
        // What changed meanwhile is among the unindexed vectors.
        self.index_pending(&loaded, hnsw, context)?;
        self.finish(&loaded, &row, true, context)
    }

    /// Builds again what caches hold of records that are deleted or replaced; whether anything was.
    pub(crate) fn erase_caches(&self, row: &CollectionRow, context: &Context<'_>) -> Result<bool, Failure> {
        let view = self.collections.view(row)?;
        let has_dead_nodes = view.graph().is_some_and(|graph| dead_share(&view, graph) > 0.0);
        if has_dead_nodes {
            self.rebuild_index(row.number, context)?;
        } else if view.graph().is_none() {
            self.cache.remove_graph(row.id);
        }
        let has_dead_documents = view.text().iter().any(|(segment, current)| current.len() < segment.len());
        if has_dead_documents {
            context.step(Progress { done: 0, total: None, what: "documents indexed again".into() })?;
            self.rewrite_text(row.number)?;
        }
        let loaded = self.collections.state_of(row);
        let has_dead_records = self.purge_records(&loaded, row)?;
        Ok(has_dead_nodes || has_dead_documents || has_dead_records)
    }

    fn publish_graph(&self, loaded: &CollectionState, graph: Graph) {
        self.dirty.update_index_state(loaded.number, |remembered| {
            (remembered.snapshot, remembered.calibrated, remembered.searched) = (0, 0, 0);
            remembered.is_unverified = false;
        });
        let graph = Arc::new(graph);
        loaded.publish_optimistic(|view| view.set_graph(Some(Arc::clone(&graph))));
    }

    /// Moves the whole tail into the graph, batch by batch: what has no code yet is coded first.
    fn index_pending(
        &self, loaded: &CollectionState, hnsw: &HnswConfiguration, context: &Context<'_>,
    ) -> Result<(), Failure> {
        let mut tried = ochre_index::Bitmap::new();
        let mut is_movable = true;
        loop {
            // No view is held while the step waits: it would keep on the heap what the next one has in files.
            let progress = loaded.view().and_then(|view| {
                let graph = view.graph()?;
                Some(nodes_done(graph, graph.linked().len() + view.unindexed_len()))
            });
            self.next_step(progress.unwrap_or_default(), context)?;
            let Some(view) = loaded.view() else { return Ok(()) };
            let Some(graph) = view.graph() else { return Ok(()) };
            let mut graph = Arc::clone(graph);
            if view.live().len() < self.settings.graph_records_min / 2 {
                // Too few are left to be worth a graph: the next round drops it.
                return Ok(());
            }
            if graph.len() > DEAD_NODES_MAX * view.live().len() {
                // Linking what is mostly dead takes longer than to begin again.
                let parameters = graph.parameters();
                self.publish_graph(loaded, empty_graph(&view, parameters, hnsw));
                self.collections.note_freed();
                continue;
            }
            let threads = self.admission.threads(threads(hnsw));
            // A vector that cannot be read stays among the unindexed vectors; it is not tried twice.
            let unindexed = view.live().and_not(view.in_graph()).and_not(&tried);
            let uncoded: Vec<u32> =
                unindexed.iter().filter(|offset| !view.is_coded(*offset)).take(CODE_AT_ONCE).collect();
            let has_to_grow = !uncoded.is_empty() || graph.linked().len() < graph.len();
            if has_to_grow && self.collections.sharing(&graph).len() > 1 {
                if self.take_own_copy(loaded, &graph, graph.len() + uncoded.len(), hnsw) {
                    continue;
                }
                return Ok(());
            }
            let lacks_room = graph.capacity() - graph.len() < uncoded.len();
            let is_to_move = is_movable && !graph.is_empty() && self.is_large_to_build(&graph, lacks_room);
            if is_to_move && graph.linked().len() == graph.len() {
                graph.search_weakly_linked_again();
                mark_unreachable(loaded, &graph);
                let capacity = Graph::capacity_for(graph.len() + view.unindexed_len(), hnsw.resize_factor);
                let moved = self.moved_to_file(loaded, &graph, capacity).map(Arc::new);
                is_movable = moved.is_some();
                if moved.is_some_and(|moved| !replace(loaded, &graph, &moved)) {
                    return Ok(());
                }
                continue;
            }
            // What is coded is linked first where the graph has to move.
            if !uncoded.is_empty() && !is_to_move {
                tried = tried.or(&uncoded.iter().copied().collect());
                if lacks_room {
                    let capacity = Graph::capacity_for(graph.len() + uncoded.len(), hnsw.resize_factor);
                    let copy = Arc::new(graph.copied(capacity));
                    if !replace(loaded, &graph, &copy) {
                        return Ok(());
                    }
                    graph = copy;
                }
                let before = graph.len();
                if !append(&graph, &view, &uncoded, threads) {
                    return Ok(());
                }
                loaded.change(|view| view.mark_coded(&graph, before));
                // While many wait, all are coded first: that alone makes them fast to find. A few that keep
                // coming must not hold up linking.
                if uncoded.len() == CODE_AT_ONCE {
                    continue;
                }
            }
            let before = graph.linked().len();
            if before == graph.len() || !self.link_next(&graph, &view, threads) {
                return Ok(());
            }
            loaded.change(|view| view.mark_linked(&graph, before));
        }
    }

    /// Lets a collection have a graph of its own with room for so many nodes, instead of one that it shares with forks;
    /// `false` if it has another by now. A large one lies in a file.
    fn take_own_copy(
        &self, loaded: &CollectionState, graph: &Arc<Graph>, nodes: usize, hnsw: &HnswConfiguration,
    ) -> bool {
        let capacity = Graph::capacity_for(nodes, hnsw.resize_factor).max(graph.capacity());
        let is_movable = graph.linked().len() == graph.len() && self.is_large_to_build(graph, true);
        let moved = is_movable.then(|| self.moved_to_file(loaded, graph, capacity)).flatten();
        replace(loaded, graph, &Arc::new(moved.unwrap_or_else(|| graph.copied(capacity))))
    }

    /// Whether so much of a graph lies on the heap, or would once it has grown, that it had better lie in a file.
    fn is_large_to_build(&self, graph: &Graph, has_to_grow: bool) -> bool {
        let heap_max = self.collections.memory_limit() / BUILDING_SHARE;
        graph.unsaved_bytes() as u64 > heap_max
            || has_to_grow && (graph.codes_bytes() + graph.links_bytes()) as u64 > heap_max
    }

    /// The graph, all linked, in a file with room for so many nodes; `None` if that cannot be had.
    fn moved_to_file(&self, loaded: &CollectionState, graph: &Graph, capacity: usize) -> Option<Graph> {
        let header = SnapshotHeader { epoch: self.store.epoch(), collection: loaded.id.into_bytes(), position: 0 };
        let moved = self.cache.move_to_file(&header, graph, capacity);
        moved.unwrap_or_else(|error| {
            tracing::warn!(collection = %loaded.id, %error, "could not move a graph into a file; it is built on the heap");
            None
        })
    }

    /// Links some nodes; `false` when maintenance has to stop.
    fn link_next(&self, graph: &Graph, view: &View, threads: usize) -> bool {
        let stop = self.dirty.stopped();
        let vector = |node: Node| {
            let is_current = view.vector_id(node.offset) == Some(node.vector_id);
            view.vector(node.offset).ok().filter(|_| is_current).map(|(vector, _)| vector)
        };
        graph.link_next(LINK_AT_ONCE * threads, vector, BuildOptions { threads, stop });
        !stop.load(Ordering::Relaxed)
    }

    /// Makes sure that everything can be found, and writes a snapshot if that is worth it.
    fn finish(
        &self, loaded: &CollectionState, row: &CollectionRow, all: bool, context: &Context<'_>,
    ) -> Result<(), Failure> {
        let Some(view) = loaded.view() else { return Ok(()) };
        let Some(graph) = view.graph().cloned() else { return Ok(()) };
        self.repair(loaded, &view, row.schema.hnsw(), &graph, all, context)?;
        let remembered = self.dirty.index_state(loaded.number);
        let fresh = graph.len() - remembered.snapshot.min(graph.len());
        if fresh > graph.len() / SNAPSHOT_SHARE || (all && fresh > 0) {
            context.step(nodes_done(&graph, graph.len()))?;
            self.write_snapshot(row, &view, &graph);
            if let Some(copy) = self.copy_in_order(row, &graph, fresh) {
                replace(loaded, &graph, &Arc::new(copy));
            }
            self.collections.note_freed();
            // Vectors of a finished graph are best read from mapped files.
            let seal = ochre_store::Upkeep::SealVectors { min_bytes: 4 << 20, dead_share_max: 1.0 };
            self.store.upkeep(seal)?;
        }
        self.write_records_if_stale(loaded, row, all, context)
    }

    /// Makes sure that searches find every node; those that they miss all the same stay among the unindexed vectors,
    /// which are scanned.
    fn repair(
        &self, loaded: &CollectionState, view: &View, hnsw: &HnswConfiguration, graph: &Arc<Graph>, all: bool,
        context: &Context<'_>,
    ) -> Result<(), Failure> {
        let remembered = self.dirty.index_state(loaded.number);
        // How distances grow with rank changes little while a graph grows.
        if remembered.calibrated < graph.len() / 2 {
            context.step(nodes_done(graph, graph.len()))?;
            graph.calibrate();
            self.dirty.update_index_state(loaded.number, |remembered| remembered.calibrated = graph.len());
        }
        let unreachable = graph.unreachable_count();
        // Looking at every link costs as much as the graph is large, so it has to have grown by some share.
        let unchecked = graph.unchecked();
        if unchecked > graph.len() / CHECK_SHARE || (all && unchecked > 0) {
            context.step(nodes_done(graph, graph.len()))?;
            graph.search_weakly_linked_again();
        }
        // What is linked later takes the place of links that led to others.
        if graph.len() > remembered.searched + remembered.searched / SEARCH_AGAIN_SHARE {
            graph.search_all_again();
            self.dirty.update_index_state(loaded.number, |remembered| remembered.searched = graph.len());
        }
        let current = |node: Node| {
            let is_current = view.vector_id(node.offset) == Some(node.vector_id);
            view.vector(node.offset).ok().filter(|_| is_current).map(|(vector, _)| vector)
        };
        while graph.unsearched() > 0 {
            let (done, total) = ((graph.len() - graph.unsearched()) as u64, Some(graph.len() as u64));
            context.step(Progress { done, total, what: "vectors that were searched for".into() })?;
            let options = BuildOptions { threads: self.admission.threads(threads(hnsw)), stop: self.dirty.stopped() };
            graph.search_own(SEARCH_AT_ONCE * options.threads, hnsw.ef_search, current, options);
            if options.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        if (unreachable, graph.unreachable_count()) != (0, 0) {
            tracing::debug!(collection = %loaded.id, unreachable = graph.unreachable_count(), "vectors that searches of the graph miss are scanned");
            // Forks that share the graph may have been made while nodes were searched for.
            self.collections.sharing(graph).iter().for_each(|loaded| mark_unreachable(loaded, graph));
        }
        Ok(())
    }

    fn write_snapshot(&self, row: &CollectionRow, view: &View, graph: &Graph) {
        if graph.unchecked() > 0 {
            graph.search_weakly_linked_again();
        }
        let header = SnapshotHeader {
            epoch: self.store.epoch(),
            collection: row.family.into_bytes(),
            position: view.position(),
        };
        let capacity = Graph::capacity_for(graph.linked().len(), row.schema.hnsw().resize_factor);
        match self.cache.write(row.id, &header, graph, capacity) {
            Ok(()) => self.dirty.update_index_state(row.number, |remembered| remembered.snapshot = graph.len()),
            Err(error) => {
                tracing::warn!(collection = row.name, %error, "could not write a graph snapshot; the next start rebuilds the graph")
            }
        }
    }

    /// A graph as searches read it, if much of it is new. One that takes much of the memory there may be, or lay in a
    /// file before, is that of its snapshot, just written: the pages of that can be let go of.
    fn copy_in_order(&self, row: &CollectionRow, graph: &Graph, fresh: usize) -> Option<Graph> {
        let bytes = (graph.codes_bytes() + graph.links_bytes()) as u64;
        let is_large = bytes > self.collections.memory_limit() / HEAP_SHARE;
        if !is_large && fresh <= graph.len() / SNAPSHOT_SHARE {
            return None;
        }
        if !is_large && graph.file_bytes() == 0 {
            return Some(graph.copied(graph.capacity()));
        }
        let is_written = self.dirty.index_state(row.number).snapshot == graph.len();
        if !is_written || graph.linked().len() != graph.len() {
            return None;
        }
        Some(self.cache.read(self.store.epoch(), row, graph.parameters())?.graph)
    }

    /// Writes the snapshots of all graphs and records that changed since theirs.
    pub(crate) fn write_snapshots(&self) {
        let _graphs = self.graphs.hold_patiently();
        let loaded: Vec<Arc<CollectionState>> = self.collections.all();
        for loaded in loaded {
            let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { continue };
            if let Some(graph) = view.graph()
                && graph.linked().len() != self.dirty.index_state(loaded.number).snapshot
            {
                self.write_snapshot(&row, &view, graph);
            }
            self.write_records_on_close(&loaded, &row, &view);
        }
    }
}

/// Puts a copy of a graph in its place; `false` if there is another by now.
fn replace(loaded: &CollectionState, graph: &Arc<Graph>, copy: &Arc<Graph>) -> bool {
    loaded.publish_optimistic(|view| view.replace_graph(graph, Arc::clone(copy)));
    loaded.view().and_then(|view| view.graph().cloned()).is_some_and(|now| Arc::ptr_eq(&now, copy))
}

/// Marks those nodes as unindexed that searches are known to miss, and those only.
fn mark_unreachable(loaded: &CollectionState, graph: &Arc<Graph>) {
    loaded.change(|view| {
        view.mark_linked(graph, 0);
        view.unmark_linked(&graph.unreachable());
    });
}

/// Adds the codes of the current vectors of these offsets.
fn append(graph: &Graph, view: &View, offsets: &[u32], threads: usize) -> bool {
    let nodes: Vec<(Node, &[f32])> = offsets
        .iter()
        .filter_map(|offset| {
            let node = Node { offset: *offset, vector_id: view.vector_id(*offset)? };
            Some((node, view.vector(*offset).ok()?.0))
        })
        .collect();
    graph.append(&nodes, threads)
}

/// A graph without nodes that has room for everything live, and codes that fit a sample of it.
fn empty_graph(view: &View, parameters: GraphParameters, hnsw: &HnswConfiguration) -> Graph {
    let live = view.live();
    let step = (live.len() / SAMPLE).max(1);
    let sample: Vec<&[f32]> =
        live.iter().step_by(step).filter_map(|offset| Some(view.vector(offset).ok()?.0)).collect();
    Graph::new(parameters, Graph::capacity_for(live.len(), hnsw.resize_factor), &sample)
}

/// The share of a graph's nodes that were replaced or deleted.
fn dead_share(view: &View, graph: &Graph) -> f64 {
    let nodes = graph.linked().len();
    let dead = nodes - view.in_graph().len().min(nodes);
    dead as f64 / nodes.max(1) as f64
}

fn nodes_done(graph: &Graph, all: usize) -> Progress {
    Progress { done: graph.linked().len() as u64, total: Some(all as u64), what: "vectors in the graph".into() }
}

fn threads(hnsw: &HnswConfiguration) -> usize {
    hnsw.num_threads.clamp(1, 64)
}
