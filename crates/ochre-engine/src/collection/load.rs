//! Loading a collection: its records, its graph, its text segments and its declared indexes, from the files in `cache/`
//! and what the log says changed since, or from the store where there are none.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ochre_index::{Bitmap, CompositeIndex, Graph, GraphParameters, StoredRecords, View};
use ochre_model::{InvalidMetadata, Metadata, Value};
use ochre_store::{CollectionRow, Parts, Reader};
use uuid::Uuid;

use crate::cache_dir::FoundGraph;
use crate::collection::Collections;
use crate::collection::state::VectorLocations;
use crate::error::Error;
use crate::metadata_index::registry::Entry;

/// If more than one record in so many changed since a snapshot, all are read instead.
const REPLAYED_SHARE: usize = 3;

impl Collections {
    /// Reads a collection: its records on this thread, its graph meanwhile on another.
    pub(super) fn load_view(&self, row: &CollectionRow) -> Result<View, Error> {
        let reader = self.store.read()?;
        let records = reader.head(row.number)?.map_or(0, |head| head.records);
        std::thread::scope(|scope| {
            let read_graph = || self.read_graph(row, records);
            let graph = std::thread::Builder::new().spawn_scoped(scope, read_graph);
            let read = self.read_records(row, &*reader);
            let graph = match graph {
                // A snapshot is only a shortcut: whatever went wrong with it was logged.
                Ok(graph) => graph.join().unwrap_or_default(),
                Err(_) => read_graph(),
            };
            let (mut view, positions) = read?;
            self.load_text(row, &mut view, &positions);
            self.load_indexes(row, &mut view, &positions);
            if let Some(graph) = graph {
                view.set_graph(Some(graph));
            }
            Ok(view)
        })
    }

    /// The records of a collection that is being loaded: from their snapshot and what changed since, or all of them.
    pub(super) fn read_records(&self, row: &CollectionRow, reader: &dyn Reader) -> Result<(View, Positions), Error> {
        let space = row.schema.hnsw().space;
        if let Some(stored) = self.cache.read_records(self.store.epoch(), row, space) {
            let position = stored.view.position();
            if let Some((view, positions, changed)) = read_view_since(reader, row, stored)? {
                tracing::info!(collection = row.name, position, changed, "loaded records from their snapshot");
                self.state_of(row).note_changes(changed as u64);
                self.dirty.update_index_state(row.number, |remembered| {
                    (remembered.records, remembered.records_position) = (0, position);
                });
                return Ok((view, positions));
            }
            self.cache.remove_records(row.id);
        }
        // What was remembered is of a snapshot that is gone, and of changes counted before this load.
        self.dirty
            .update_index_state(row.number, |remembered| (remembered.records, remembered.records_position) = (0, 0));
        read_view(reader, row)
    }

    /// The graph of a collection that is being loaded, from its snapshot.
    pub(crate) fn read_graph(&self, row: &CollectionRow, records: u64) -> Option<Arc<Graph>> {
        let dimension = row.dimension?;
        if records < self.settings.graph_records_min as u64 {
            return None;
        }
        let hnsw = row.schema.hnsw();
        let parameters = GraphParameters::new(hnsw, dimension);
        let FoundGraph { graph, is_unverified } = self.cache.read(self.store.epoch(), row, parameters)?;
        tracing::info!(collection = row.name, nodes = graph.len(), "loaded the graph from its snapshot");
        self.dirty.update_index_state(row.number, |remembered| {
            (remembered.snapshot, remembered.calibrated, remembered.searched) = (graph.len(), graph.len(), graph.len());
            remembered.is_unverified = is_unverified;
        });
        Some(Arc::new(graph))
    }

    /// Puts the text segments of a collection into a view that is being loaded. `positions` gives, by
    /// ascending offset, the position at which each record was last changed.
    pub(crate) fn load_text(&self, row: &CollectionRow, view: &mut View, positions: &[(u32, u64)]) {
        let (mut segments, mut seen) = (Vec::new(), Bitmap::new());
        let mut found = self.cache.read_text(self.store.epoch(), row);
        found.sort_by_key(|segment| std::cmp::Reverse(segment.position()));
        for segment in found {
            let is_ahead = segment.position() > view.position();
            let mut records = positions.iter().peekable();
            let mut current = Bitmap::new();
            for offset in segment.offsets() {
                while records.next_if(|(other, _)| *other < offset).is_some() {}
                let is_current = records.next_if(|(other, at)| *other == offset && *at <= segment.position()).is_some();
                if is_current && !is_ahead && seen.insert(offset) {
                    current.insert(offset);
                }
            }
            // One that says nothing new was replaced just before the end, or all it has is gone. One that is
            // ahead of the collection is of another history.
            if current.is_empty() || is_ahead {
                self.cache.remove_text(row.id, &[segment], &[]);
            } else {
                segments.push((segment, current));
            }
        }
        view.load_text(segments);
    }

    /// Puts the indexes of a collection into a view that is being loaded. `positions` gives, by ascending offset,
    /// the position at which each record was last changed.
    pub(crate) fn load_indexes(&self, row: &CollectionRow, view: &mut View, positions: &[(u32, u64)]) {
        let wanted = self.empty_indexes(row);
        let kept: Vec<(Uuid, u64)> =
            wanted.iter().map(|(index, _)| (Uuid::from_bytes(index.shape().id), index.generation())).collect();
        self.cache.keep_index_files(row.id, &kept);
        if wanted.is_empty() {
            return;
        }
        let mut found = self.cache.read_indexes(self.store.epoch(), row.id);
        found.sort_by_key(|segment| std::cmp::Reverse(segment.header().position));
        for (mut index, serves) in wanted {
            let (mut segments, mut seen, mut there) = (Vec::new(), Bitmap::new(), 0);
            for segment in found.iter().filter(|segment| {
                segment.header().index == index.shape().id && segment.header().generation == index.generation()
            }) {
                there += 1;
                let at = segment.header().position;
                let is_ahead = at > view.position();
                let mut records = positions.iter().peekable();
                let mut current = Bitmap::new();
                for offset in segment.offsets() {
                    while records.next_if(|(other, _)| *other < offset).is_some() {}
                    let is_current = records.next_if(|(other, changed)| *other == offset && *changed <= at).is_some();
                    if is_current && !is_ahead && seen.insert(offset) {
                        current.insert(offset);
                    }
                }
                // One that says nothing new was replaced just before the end; one that is ahead is of another history.
                if current.is_empty() || is_ahead {
                    self.cache.remove_index_segments(row.id, &[Arc::clone(segment)], &[]);
                } else {
                    segments.push((Arc::clone(segment), current));
                }
            }
            if serves && there == 0 {
                let entries = self.registry.of(row.number);
                let entry = entries.iter().find(|entry| entry.id.into_bytes() == index.shape().id);
                // It had some: an empty collection has none.
                let had_any = |entry: &Entry| {
                    let state = entry.state.lock();
                    state.statistics.as_ref().and_then(|kept| kept.segments).is_some_and(|count| count > 0)
                };
                if let Some(entry) = entry.filter(|entry| had_any(entry)) {
                    entry.is_discarded.store(true, Ordering::Relaxed);
                    tracing::warn!(
                        collection = row.name,
                        index = index.shape().name,
                        "the files of a metadata index are missing or damaged; filters are answered from columns until it is rebuilt"
                    );
                }
            }
            index.load(segments, view.live(), serves);
            view.add_index(index);
        }
    }

    /// Makes the indexes of a view that is being loaded, without their segments.
    pub(super) fn empty_indexes(&self, row: &CollectionRow) -> Vec<(CompositeIndex, bool)> {
        let entries = self.registry.of(row.number);
        let builds = entries.iter().flat_map(|entry| entry.builds());
        builds
            .map(|(generation, shape, is_hidden, serves)| (CompositeIndex::new(shape, generation, is_hidden), serves))
            .collect()
    }
}

/// By ascending offset, the position at which each record was last changed.
pub(crate) type Positions = Vec<(u32, u64)>;

/// Reads a collection's state as `reader` sees it, without graph and text.
pub(crate) fn read_view(reader: &dyn Reader, row: &CollectionRow) -> Result<(View, Positions), Error> {
    let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
    let mut view = View::new(row.schema.hnsw().space);
    view.set_position(head.position);
    // A block that is newer than the snapshot does no harm, one that went since belongs to vectors that
    // commits after the snapshot replaced.
    let places = VectorLocations::add_all(&mut view, reader.vector_blocks(row.number)?);
    let (mut failed, mut positions) = (None, Vec::new());
    reader.scan(row.number, &mut |record| {
        view.set_vector(record.offset, record.vector_id, places.find(record.vector_id));
        view.set_document(record.offset, record.has_document, true);
        positions.push((record.offset, record.position));
        let mut set = |key: &str, value: Value| view.set_value(record.offset, key, &value);
        let visited = record.metadata.map_or(Ok(()), |text| Metadata::visit_text(text, &mut set));
        failed = visited.err().map(|error| damaged(row, record.id, &error));
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok((view, positions)), Err)
}

/// As [`read_view`], from a snapshot of its records and what changed since; `None` if that is no shorter, or the
/// snapshot is of another history. Also says how many records changed.
pub(crate) fn read_view_since(
    reader: &dyn Reader, row: &CollectionRow, stored: StoredRecords,
) -> Result<Option<(View, Positions, usize)>, Error> {
    let StoredRecords { mut view, places: records } = stored;
    let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
    let Some(changed) = reader.changed_since(row.number, view.position())? else { return Ok(None) };
    if changed.len() > records.len() / REPLAYED_SHARE {
        return Ok(None);
    }
    let places = VectorLocations::add_all(&mut view, reader.vector_blocks(row.number)?);
    let (mut next, mut positions) = (0, Vec::with_capacity(records.len() + changed.len()));
    for record in &records {
        view.set_vector(record.offset, record.vector_id, places.find_from(record.vector_id, &mut next));
        positions.push((record.offset, record.changed));
    }
    let mut fresh: BTreeMap<u32, u64> = BTreeMap::new();
    let mut failed = None;
    let parts = Parts { metadata: true, document: true, uri: false };
    reader.rows(row.number, &changed, parts, &mut |record| {
        view.set_vector(record.offset, record.vector_id, places.find(record.vector_id));
        view.set_document(record.offset, record.document.is_some(), true);
        fresh.insert(record.offset, record.position);
        let metadata = record.metadata.map_or(Ok(Metadata::default()), Metadata::from_text);
        match metadata {
            Ok(metadata) => view.set_metadata(record.offset, &metadata),
            Err(error) => failed = Some(damaged(row, record.id, &error)),
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    changed.iter().filter(|offset| !fresh.contains_key(offset)).for_each(|offset| view.remove(*offset));
    positions.retain(|(offset, _)| changed.binary_search(offset).is_err());
    positions.extend(fresh);
    positions.sort_unstable_by_key(|(offset, _)| *offset);
    view.set_position(head.position);
    let is_whole = view.live().len() as u64 == head.records;
    Ok(is_whole.then_some((view, positions, changed.len())))
}

fn damaged(row: &CollectionRow, id: &str, error: &InvalidMetadata) -> Error {
    Error::Damaged(format!("record '{id}' of collection '{}': {error}", row.name))
}
