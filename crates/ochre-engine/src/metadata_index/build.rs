//! Building indexes, keeping them up to date, and finding them again when a collection is loaded.
//!
//! A build covers the records segment by segment, each from one state of the collection; what changes meanwhile is
//! covered by the next. Killed at any point it goes on from the segments there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{Bitmap, CompositeBuilder, CompositeHeader, CompositeSegment, IndexShape, View};
use ochre_scheduler::{Context, Failure, Progress};
use ochre_store::CollectionRow;

use crate::collection::state::CollectionState;
use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::registry::{BuildOutcome, Entry, State};
use crate::schemas::unix_seconds;

/// A segment with this many records is full.
const FULL_RECORDS: usize = 1 << 17;
/// A segment is full once it took this many bytes to build.
const FULL_BYTES: usize = 64 << 20;
/// A view that lacks a build is given it so often.
const SHOWN_MAX: usize = 3;
/// Records looked at in one step.
const RECORDS_AT_ONCE: usize = 2048;
/// So many records may be outside an index that serves, or this share of all.
const OUTSIDE_MAX: usize = 2000;
const OUTSIDE_SHARE: usize = 50;
/// A segment is merged with new records if it has at most so many times as many as there are new ones.
const MERGE_RATIO: usize = 4;

/// Tells one round of building from any other.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// Why a build ended without being complete.
enum Ended {
    /// By request, or because the collection is gone.
    Superseded,
    Stopped(Failure),
    Failed(String),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Stopped(failure)
    }
}

impl MetadataIndexes {
    /// What there is to do, in words: builds first.
    pub(crate) fn index_debt(&self) -> Option<String> {
        if self.registry.has_unsettled.load(Ordering::Relaxed) {
            return Some("new collections get the indexes of their database".into());
        }
        let building = self.registry.all().into_iter().filter(|entry| entry.state.lock().building.is_some()).count();
        if building > 0 {
            return Some(format!("{building} metadata indexes are to be built"));
        }
        let lagging =
            self.registry.all().into_iter().filter(|entry| self.lagging(entry, OUTSIDE_MAX).is_some()).count();
        (lagging > 0).then(|| format!("{lagging} metadata indexes lag behind their records"))
    }

    /// Builds what is to be built and brings up to date what lags behind; what was done. With `all`, whatever little
    /// is missing.
    pub(crate) fn work_on_indexes(&self, all: bool, context: &Context<'_>) -> Result<String, Failure> {
        let _working = self.registry.working.lock();
        let (mut built, mut synced) = (0, 0);
        self.settle_new_collections().map_err(|error| Failure::Failed(error.to_string()))?;
        for entry in self.registry.all() {
            if entry.state.lock().building.is_some() && self.build_index(&entry, context)? {
                built += 1;
            }
            if let Some(loaded) = self.lagging(&entry, if all { 0 } else { OUTSIDE_MAX }) {
                let serving = entry.state.lock().serving.clone();
                if let Some((generation, _, shape)) = serving {
                    self.sync_segments(&entry, &loaded, (generation, &shape), false, context)?;
                    let _changing = self.registry.changing.lock();
                    self.keep_statistics(&entry).map_err(|error| Failure::Failed(error.to_string()))?;
                }
                synced += 1;
            }
        }
        self.save_usage().map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(format!("built {built} metadata indexes, brought {synced} up to date"))
    }

    /// The collection of an index that serves and has more than so many records outside.
    fn lagging(&self, entry: &Entry, most: usize) -> Option<Arc<CollectionState>> {
        let generation = entry.state.lock().serving.as_ref().map(|(generation, ..)| *generation)?;
        let loaded = self.collections.get(entry.number)?;
        let view = loaded.view()?;
        let index = view.index(entry.id.into_bytes(), generation)?;
        let outside = view.live().len() - index.covered().len().min(view.live().len());
        let outside = outside.saturating_sub(entry.uncoverable.load(Ordering::Relaxed));
        let share = if most == 0 { 0 } else { view.live().len() / OUTSIDE_SHARE };
        (outside > most.max(share)).then_some(loaded)
    }

    /// Builds an index until it is complete; whether it is.
    fn build_index(&self, entry: &Arc<Entry>, context: &Context<'_>) -> Result<bool, Failure> {
        let Ok(row) = self.collections.catalog.row(entry.collection) else { return Ok(false) };
        let generation = entry.state.lock().building.as_ref().map(|(generation, _)| *generation);
        match self.cover_all(entry, &row, context) {
            Ok(()) => Ok(true),
            Err(Ended::Superseded) => Ok(false),
            Err(Ended::Stopped(failure)) => Err(failure),
            Err(Ended::Failed(reason)) => {
                let _changing = self.registry.changing.lock();
                let name = entry.state.lock().definition.index_name.clone();
                let is_same = |state: &State| state.building.as_ref().map(|(building, _)| *building) == generation;
                if is_same(&entry.state.lock()) {
                    let noted = self.change_index(entry, |state| {
                        (state.building, state.progress) = (None, None);
                        state.outcome = if state.serving.is_some() { state.outcome } else { BuildOutcome::Failed };
                        state.error = Some(reason.clone());
                    });
                    // What serves goes on serving; of the build nothing stays.
                    noted.map_err(|error| Failure::Failed(error.to_string()))?;
                }
                Err(Failure::Failed(format!("could not build metadata index '{name}': {reason}")))
            }
        }
    }

    fn cover_all(&self, entry: &Arc<Entry>, row: &Arc<CollectionRow>, context: &Context<'_>) -> Result<(), Ended> {
        let failed = |error: Error| Ended::Failed(error.to_string());
        let Some((generation, shape)) = entry.state.lock().building.clone() else { return Err(Ended::Superseded) };
        let id = entry.id.into_bytes();
        entry.state.lock().progress.get_or_insert((0, 0, unix_seconds()));
        let (mut open, mut shown) = (None, 0);
        loop {
            let view = self.collections.view(row).map_err(failed)?;
            let Some(loaded) = self.collections.get(row.number) else { continue };
            let Some(index) = view.index(id, generation) else {
                let is_wanted = entry.builds().iter().any(|(wanted, ..)| *wanted == generation);
                if !is_wanted || shown > SHOWN_MAX {
                    return Err(Ended::Superseded);
                }
                // It was loaded while the build was begun.
                shown += 1;
                self.collections.show_builds(entry);
                continue;
            };
            {
                let mut state = entry.state.lock();
                if state.building.as_ref().is_none_or(|(building, _)| *building != generation) {
                    return Err(Ended::Superseded);
                }
                if let Some(progress) = &mut state.progress {
                    (progress.0, progress.1) = (index.covered().len(), view.live().len());
                }
            }
            // So many records as were outside in the beginning: those that change meanwhile are looked up in the
            // columns, or it would never end.
            let left = *open.get_or_insert_with(|| view.outside_index(index).len());
            let covered =
                if left == 0 { 0 } else { self.cover_next(entry, &loaded, row, generation, &shape, context)? };
            open = Some(left.saturating_sub(covered));
            // Records with more keys than an index takes stay outside for good.
            let is_done = left == 0 || covered == 0;
            if is_done {
                return self.complete(entry, generation, &shape).map_err(failed);
            }
        }
    }

    /// Lets a build serve that is complete.
    fn complete(&self, entry: &Arc<Entry>, generation: u64, shape: &Arc<IndexShape>) -> Result<(), Error> {
        let _changing = self.registry.changing.lock();
        if entry.state.lock().building.as_ref().is_none_or(|(building, _)| *building != generation) {
            return Ok(());
        }
        self.change_index(entry, |state| {
            // As it is named by now.
            let shape = state.building.take().map_or_else(|| Arc::clone(shape), |(_, shape)| shape);
            state.serving = Some((generation, state.definition.clone(), shape));
            (state.building, state.progress, state.error) = (None, None, None);
            (state.outcome, state.built_at) = (BuildOutcome::Ready, Some(unix_seconds()));
        })?;
        entry.is_discarded.store(false, Ordering::Relaxed);
        self.keep_statistics(entry)?;
        let collection = self.collections.catalog.row(entry.collection).map(|row| row.name.clone()).unwrap_or_default();
        tracing::info!(index = shape.name, collection, "built a metadata index");
        Ok(())
    }

    /// Keeps what an index comes to, for when its collection is not loaded.
    fn keep_statistics(&self, entry: &Arc<Entry>) -> Result<(), Error> {
        let view = self.collections.loaded_view(entry.number);
        let Some(view) = view else { return Ok(()) };
        let statistics = self.statistics(entry, &entry.state.lock().clone(), Some(&view));
        self.change_index(entry, |state| state.statistics = Some(statistics))
    }

    /// Covers the next records that are outside; how many.
    fn cover_next(
        &self, entry: &Entry, loaded: &CollectionState, row: &CollectionRow, generation: u64, shape: &Arc<IndexShape>,
        context: &Context<'_>,
    ) -> Result<usize, Ended> {
        let (id, token) = (entry.id.into_bytes(), NEXT_TOKEN.fetch_add(1, Ordering::Relaxed));
        // Whatever changes from here on is noted; values are read after that.
        loaded.change(|view| view.begin_index(id, generation, token));
        let Some(view) = loaded.view() else { return Err(Ended::Superseded) };
        let Some(index) = view.index(id, generation) else { return Err(Ended::Superseded) };
        let (done, total) = (index.covered().len(), view.live().len());
        let outside: Vec<u32> = view.outside_index(index).iter().collect();
        let Some(segment) = self.make_segment(&view, row, generation, shape, &outside, &mut |records| {
            let what = format!("records in metadata index '{}'", shape.name);
            if let Some(progress) = &mut entry.state.lock().progress {
                (progress.0, progress.1) = (done + records, total);
            }
            Ok(context.step(Progress { done: (done + records) as u64, total: Some(total as u64), what })?)
        })?
        else {
            return Ok(0);
        };
        let mut is_replaced = false;
        let new = [Arc::clone(&segment)];
        loaded.change(|view| is_replaced = view.replace_index_segments(id, generation, token, &[], &new));
        if !is_replaced {
            self.cache.remove_index_segments(row.id, &new, &[]);
            // Unloaded, or asked for otherwise: the next look goes on.
            return Err(Ended::Superseded);
        }
        Ok(segment.len())
    }

    /// Makes one segment of the first of these records; `None` if no record can be in one.
    fn make_segment(
        &self, view: &View, row: &CollectionRow, generation: u64, shape: &IndexShape, offsets: &[u32],
        step: &mut dyn FnMut(usize) -> Result<(), Failure>,
    ) -> Result<Option<Arc<CompositeSegment>>, Ended> {
        let mut builder = CompositeBuilder::default();
        for (number, chunk) in offsets.chunks(RECORDS_AT_ONCE).enumerate() {
            step(number * RECORDS_AT_ONCE)?;
            view.collect_keys(shape, chunk, FULL_BYTES, &mut builder);
            if builder.len() >= FULL_RECORDS || builder.heap_bytes() >= FULL_BYTES {
                break;
            }
        }
        let Some(first) = builder.first() else { return Ok(None) };
        let header = CompositeHeader {
            epoch: self.store.epoch(),
            collection: row.id.into_bytes(),
            index: shape.id,
            generation,
            position: view.position(),
        };
        let written = self.cache.write_index(&header, first, builder.finish(&header));
        written.map(|segment| Some(Arc::new(segment))).map_err(|error| {
            Ended::Failed(format!("its file could not be written: {error}; free some space and rebuild it"))
        })
    }

    /// Covers what is outside an index that serves, merging small and worn segments; with `erase`, every segment that
    /// has anything of records as they no longer are.
    fn sync_segments(
        &self, entry: &Entry, loaded: &CollectionState, build: (u64, &Arc<IndexShape>), erase: bool,
        context: &Context<'_>,
    ) -> Result<(), Failure> {
        let (generation, shape) = build;
        let Ok(row) = self.collections.catalog.row(entry.collection) else { return Ok(()) };
        let (id, token) = (entry.id.into_bytes(), NEXT_TOKEN.fetch_add(1, Ordering::Relaxed));
        loaded.change(|view| view.begin_index(id, generation, token));
        let Some(view) = loaded.view() else { return Ok(()) };
        let Some(index) = view.index(id, generation) else { return Ok(()) };
        let outside = view.outside_index(index);
        let is_worn = |segment: &CompositeSegment, current: &Bitmap| {
            let is_small = segment.len() <= outside.len().saturating_mul(MERGE_RATIO).min(FULL_RECORDS / 2);
            if erase { current.len() < segment.len() } else { is_small || current.len() < segment.len() / 2 }
        };
        let (gone, worn): (Vec<_>, Vec<&Bitmap>) = index
            .segments()
            .iter()
            .filter(|(segment, current)| is_worn(segment, current))
            .map(|(segment, current)| (Arc::clone(segment), current))
            .unzip();
        let open = worn.into_iter().fold(outside, |open, current| open.or(current));
        let (mut left, mut new): (Vec<u32>, Vec<Arc<CompositeSegment>>) = (open.iter().collect(), Vec::new());
        let total = left.len();
        while !left.is_empty() {
            let done = total - left.len();
            let made = self.make_segment(&view, &row, generation, shape, &left, &mut |records| {
                let what = format!("records brought up to date in metadata index '{}'", shape.name);
                Ok(context.step(Progress { done: (done + records) as u64, total: Some(total as u64), what })?)
            });
            match made {
                Ok(Some(segment)) => {
                    let last = segment.offsets().last().unwrap_or(u32::MAX);
                    left.retain(|offset| *offset > last);
                    new.push(segment);
                }
                Ok(None) => break,
                Err(ended) => {
                    self.discard_segments(&row, loaded, entry, generation, &new);
                    return Err(match ended {
                        Ended::Stopped(failure) => failure,
                        Ended::Failed(reason) => Failure::Failed(reason),
                        Ended::Superseded => return Ok(()),
                    });
                }
            }
        }
        let mut is_replaced = false;
        loaded.change(|view| is_replaced = view.replace_index_segments(id, generation, token, &gone, &new));
        if is_replaced {
            self.cache.remove_index_segments(row.id, &gone, &new);
            let covered: usize = new.iter().map(|segment| segment.len()).sum();
            entry.uncoverable.store(total - covered.min(total), Ordering::Relaxed);
        } else {
            self.discard_segments(&row, loaded, entry, generation, &new);
        }
        Ok(())
    }

    /// Removes the files of segments that nothing uses.
    fn discard_segments(
        &self, row: &CollectionRow, loaded: &CollectionState, entry: &Entry, generation: u64,
        unused: &[Arc<CompositeSegment>],
    ) {
        let view = loaded.view();
        let index = view.as_ref().and_then(|view| view.index(entry.id.into_bytes(), generation));
        let used: Vec<_> =
            index.iter().flat_map(|index| index.segments()).map(|(segment, _)| Arc::clone(segment)).collect();
        self.cache.remove_index_segments(row.id, unused, &used);
    }

    /// Builds every segment again that holds anything of records as they no longer are; whether there was one.
    pub(crate) fn erase_index_segments(&self, row: &CollectionRow, context: &Context<'_>) -> Result<bool, Failure> {
        let _working = self.registry.working.lock();
        let mut had_any = false;
        for entry in self.registry.of(row.number) {
            let Some(loaded) = self.collections.get(row.number) else { continue };
            let Some(view) = loaded.view() else { continue };
            for (generation, shape, ..) in entry.builds() {
                let Some(index) = view.index(entry.id.into_bytes(), generation) else { continue };
                if index.segments().iter().any(|(segment, current)| current.len() < segment.len()) {
                    had_any = true;
                    self.sync_segments(&entry, &loaded, (generation, &shape), true, context)?;
                }
            }
        }
        Ok(had_any)
    }
}
