//! Moving vectors from the tail into the graph, building graphs anew, and writing their snapshots.
//!
//! Runs on the maintenance thread only, so a graph has one writer. Killed at any point it leaves what
//! there was: vectors stay in the tail until the view says that the graph has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ochre_index::{BuildOptions, Graph, GraphParameters, Node, SnapshotHeader, View};
use ochre_model::HnswConfiguration;
use ochre_store::CollectionRow;

use crate::database::Inner;
use crate::error::Error;
use crate::loaded::Loaded;

/// Vectors that decide how a graph codes its vectors.
const SAMPLE: usize = 4096;
/// A view is published after about this many nodes were linked.
const PUBLISH_EVERY: usize = 2000;
/// Vectors that are coded in one step.
const CODE_AT_ONCE: usize = 10_000;
/// Orphans are looked for once this share of the graph was added since the last time.
const CHECK_SHARE: usize = 50;
/// A snapshot is worth writing once this share of the graph is not in it.
const SNAPSHOT_SHARE: usize = 10;

impl Inner {
    /// The graph of a collection that is being loaded, from its snapshot; and the nodes that no walk finds.
    pub(crate) fn read_graph(&self, row: &CollectionRow, records: u64) -> Option<(Arc<Graph>, Vec<Node>)> {
        let dimension = row.dimension?;
        if records < self.options.graph_records_min as u64 {
            return None;
        }
        let hnsw = row.schema.hnsw();
        let parameters = GraphParameters::new(&hnsw, dimension);
        let graph = self.snapshots.read(self.store.epoch(), row.id, parameters, hnsw.resize_factor)?;
        self.signals.note_snapshot(row.number, graph.len());
        let lost = graph.relink_orphans();
        Some((Arc::new(graph), lost))
    }

    /// Brings the graph of a collection up to date, if enough waits for it. With `all`, everything.
    pub(crate) fn sync_index(&self, number: u32, all: bool) -> Result<(), Error> {
        let Some(loaded) = self.loaded.read().get(&number).cloned() else { return Ok(()) };
        let (Some(view), Ok(row)) = (loaded.view(), self.row(loaded.id)) else { return Ok(()) };
        let Some(dimension) = row.dimension else { return Ok(()) };
        let hnsw = row.schema.hnsw();
        let parameters = GraphParameters::new(&hnsw, dimension);
        let records = view.live().len();
        if records < self.options.graph_records_min {
            // Far below the limit the graph goes; near it, it stays, so that it does not come and go.
            if view.graph().is_some() && records < self.options.graph_records_min / 2 {
                loaded.change(|view| view.set_graph(None));
                self.snapshots.remove_graph(row.id);
            }
            return Ok(());
        }
        let rebuild = match view.graph() {
            None => true,
            Some(graph) => graph.parameters() != parameters || self.is_decayed(&view, graph),
        };
        if rebuild {
            self.rebuild(&loaded, &view, parameters, &hnsw);
        } else {
            let waits_for_us = view.tail_len() * dimension * 4 > self.options.tail_bytes_max / 2;
            if view.tail_len() == 0 || (view.tail_len() < hnsw.sync_threshold.max(1) && !all && !waits_for_us) {
                return Ok(());
            }
        }
        self.drain_tail(&loaded, &hnsw);
        self.finish(&loaded, &row, all)
    }

    fn is_decayed(&self, view: &View, graph: &Graph) -> bool {
        let nodes = graph.linked().len();
        let dead = nodes - view.in_graph().len().min(nodes);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let share = dead as f64 / nodes.max(1) as f64;
        share > self.options.graph_dead_share_max
    }

    /// A graph for everything live: published at once, coded but not linked, if there was none; else built
    /// beside the one that serves.
    fn rebuild(&self, loaded: &Loaded, view: &View, parameters: GraphParameters, hnsw: &HnswConfiguration) {
        let live = view.live();
        let step = (live.len() / SAMPLE).max(1);
        let sample: Vec<&[f32]> =
            live.iter().step_by(step).filter_map(|offset| Some(view.vector(offset).ok()?.0)).collect();
        let graph = Arc::new(Graph::new(parameters, Graph::capacity_for(live.len(), hnsw.resize_factor), &sample));
        if view.graph().is_some() {
            let offsets: Vec<u32> = live.iter().collect();
            for batch in offsets.chunks(PUBLISH_EVERY) {
                if !append(&graph, view, batch, hnsw) || !self.link_next(&graph, view, hnsw) {
                    return;
                }
            }
        }
        self.signals.note_snapshot(loaded.number, 0);
        self.signals.note_checked(loaded.number, 0);
        loaded.change(|view| view.set_graph(Some(graph)));
    }

    /// Moves the whole tail into the graph, batch by batch: what has no code yet is coded first.
    fn drain_tail(&self, loaded: &Loaded, hnsw: &HnswConfiguration) {
        let mut tried = ochre_index::Bitmap::new();
        loop {
            let Some(view) = loaded.view() else { return };
            let Some(graph) = view.graph() else { return };
            let mut graph = Arc::clone(graph);
            // A vector that cannot be read stays in the tail; it is not tried twice.
            let tail = view.live().and_not(view.in_graph()).and_not(&tried);
            let uncoded: Vec<u32> = tail.iter().filter(|offset| !view.is_coded(*offset)).take(CODE_AT_ONCE).collect();
            if !uncoded.is_empty() {
                tried = tried.or(&uncoded.iter().copied().collect());
                if graph.capacity() - graph.len() < uncoded.len() {
                    let capacity = Graph::capacity_for(graph.len() + uncoded.len(), hnsw.resize_factor);
                    let (grown, mut is_replaced) = (Arc::new(graph.grown(capacity)), false);
                    loaded.change(|view| is_replaced = view.replace_graph(&graph, Arc::clone(&grown)));
                    if !is_replaced {
                        return;
                    }
                    graph = grown;
                }
                let before = graph.len();
                if !append(&graph, &view, &uncoded, hnsw) {
                    return;
                }
                loaded.change(|view| view.mark_coded(&graph, before));
                // While many wait, all are coded first: that alone makes them fast to find. A few that keep
                // coming must not hold up linking.
                if uncoded.len() == CODE_AT_ONCE {
                    continue;
                }
            }
            let before = graph.linked().len();
            if before == graph.len() || !self.link_next(&graph, &view, hnsw) {
                return;
            }
            loaded.change(|view| view.mark_linked(&graph, before));
        }
    }

    /// Links some nodes; `false` when maintenance has to stop.
    fn link_next(&self, graph: &Graph, view: &View, hnsw: &HnswConfiguration) -> bool {
        let stop = self.signals.stopped();
        let vector = |node: Node| {
            let is_current = view.vector_id(node.offset) == Some(node.vector_id);
            view.vector(node.offset).ok().filter(|_| is_current).map(|(vector, _)| vector)
        };
        graph.link_next(PUBLISH_EVERY, vector, BuildOptions { threads: threads(hnsw), stop });
        !stop.load(Ordering::Relaxed)
    }

    /// Makes sure that everything can be found, and writes a snapshot if that is worth it.
    fn finish(&self, loaded: &Loaded, row: &CollectionRow, all: bool) -> Result<(), Error> {
        let Some(view) = loaded.view() else { return Ok(()) };
        let Some(graph) = view.graph().cloned() else { return Ok(()) };
        // Looking at every link costs as much as the graph is large, so it has to have grown by some share.
        let unchecked = graph.len() - self.signals.checked(loaded.number).min(graph.len());
        if unchecked > graph.len() / CHECK_SHARE || (all && unchecked > 0) {
            let lost = graph.relink_orphans();
            if !lost.is_empty() {
                loaded.change(|view| unmark(view, &lost));
            }
            self.signals.note_checked(loaded.number, graph.len());
        }
        let written = self.signals.snapshot(loaded.number);
        let fresh = graph.len() - written.min(graph.len());
        if fresh > graph.len() / SNAPSHOT_SHARE || (all && fresh > 0) {
            self.write_snapshot(row, &view, &graph);
            // Vectors of a finished graph are best read from mapped files.
            let dead_share_max = self.options.segment_dead_share_max;
            self.store.upkeep(ochre_store::Upkeep::SealVectors { min_bytes: 4 << 20, dead_share_max })?;
        }
        Ok(())
    }

    fn write_snapshot(&self, row: &CollectionRow, view: &View, graph: &Graph) {
        let header =
            SnapshotHeader { epoch: self.store.epoch(), collection: row.id.into_bytes(), position: view.position() };
        match self.snapshots.write(&header, graph) {
            Ok(()) => self.signals.note_snapshot(row.number, graph.len()),
            Err(error) => {
                tracing::warn!(collection = %row.id, %error, "could not write a graph snapshot; the next start rebuilds the graph")
            }
        }
    }

    /// Writes the snapshots of all graphs that changed since theirs.
    pub(crate) fn write_snapshots(&self) {
        let _maintaining = self.maintaining.lock();
        let loaded: Vec<Arc<Loaded>> = self.loaded.read().values().cloned().collect();
        for loaded in loaded {
            let (Some(view), Ok(row)) = (loaded.view(), self.row(loaded.id)) else { continue };
            if let Some(graph) = view.graph()
                && graph.linked().len() != self.signals.snapshot(loaded.number)
            {
                self.write_snapshot(&row, &view, graph);
            }
        }
    }
}

/// Adds the codes of the current vectors of these offsets.
fn append(graph: &Graph, view: &View, offsets: &[u32], hnsw: &HnswConfiguration) -> bool {
    let nodes: Vec<(Node, &[f32])> = offsets
        .iter()
        .filter_map(|offset| {
            let node = Node { offset: *offset, vector_id: view.vector_id(*offset)? };
            Some((node, view.vector(*offset).ok()?.0))
        })
        .collect();
    graph.append(&nodes, threads(hnsw))
}

fn threads(hnsw: &HnswConfiguration) -> usize {
    hnsw.num_threads.clamp(1, 64)
}

/// Puts the vectors of nodes that no walk finds back into the tail.
pub(crate) fn unmark(view: &mut View, lost: &[Node]) {
    for node in lost {
        if view.vector_id(node.offset) == Some(node.vector_id) {
            view.unmark_linked(node.offset);
        }
    }
}
