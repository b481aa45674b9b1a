//! What is told of declared indexes: definition, status, progress, statistics, use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{CompositeSegment, View};
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::registry::{DatabaseIndex, Declared, Entry, State};
use crate::metadata_index::status::{
    CollectionIndex, IndexOrigin, IndexProgress, IndexStatistics, IndexStatus, IndexUsage, MetadataIndex,
};
use crate::schemas::unix_seconds;

impl MetadataIndexes {
    pub(super) fn describe(&self, declared: &Declared) -> Result<MetadataIndex, Error> {
        match declared {
            Declared::Collection(entry) => Ok(self.describe_entry(entry)),
            Declared::Database(index) => self.describe_database_index(index),
        }
    }

    pub(super) fn describe_entry(&self, entry: &Entry) -> MetadataIndex {
        let (state, view) = {
            let _showing = entry.showing.lock();
            let view = self.collections.loaded_view(entry.number);
            (entry.state.lock().clone(), view)
        };
        let statistics = self.statistics(entry, &state, view.as_deref());
        let mut definition = state.definition.clone();
        definition.collection = self.collections.catalog.row(entry.collection).ok().map(|row| row.name.clone());
        let serving = state.serving.as_ref().map(|(_, serving, _)| serving.columns.clone());
        MetadataIndex {
            id: entry.id,
            collection_id: Some(entry.collection),
            status: state.status(),
            origin: state.origin,
            progress: state.progress.map(|(done, total, began)| progress(done as u64, total as u64, began)),
            error: state.error,
            created_at: entry.created_at,
            built_at: state.built_at,
            verified_at: state.verified_at,
            serving_columns: serving.filter(|columns| *columns != definition.columns),
            statistics,
            usage: usage([entry]),
            collections: None,
            definition,
        }
    }

    /// What an index comes to; of a collection that is not loaded, what it came to when it was last brought up to date.
    pub(super) fn statistics(&self, entry: &Entry, state: &State, view: Option<&View>) -> IndexStatistics {
        let generation = state.serving.as_ref().map(|(generation, ..)| *generation);
        let bytes_on_disk = self.cache.index_bytes(entry.collection, entry.id, generation);
        let served = generation.and_then(|generation| view?.index(entry.id.into_bytes(), generation));
        let Some(index) = served else {
            // What is loaded without it has it in memory soon.
            let bytes_in_memory = if view.is_none() { Some(0) } else { None };
            let kept = state.statistics.unwrap_or_default();
            return IndexStatistics { loaded: false, bytes_on_disk, bytes_in_memory, ..kept };
        };
        let segments = || index.segments().iter().map(|(segment, _)| segment);
        let sum =
            |of: fn(&CompositeSegment) -> usize| Some(segments().map(|segment| of(segment)).sum::<usize>() as u64);
        IndexStatistics {
            loaded: true,
            bytes_on_disk,
            bytes_in_memory: sum(CompositeSegment::bytes),
            entries: sum(CompositeSegment::entries),
            distinct_keys: sum(CompositeSegment::keys),
            largest_key: Some(segments().map(|segment| segment.largest()).max().unwrap_or(0) as u64),
            segments: Some(index.segments().len() as u64),
            records_indexed: Some(index.covered().len() as u64),
            records: view.map(|view| view.live().len() as u64),
        }
    }

    fn describe_database_index(&self, index: &DatabaseIndex) -> Result<MetadataIndex, Error> {
        let definition = index.definition.lock().clone();
        let entries: HashMap<Uuid, Arc<Entry>> =
            self.registry.entries_of(index.id).into_iter().map(|entry| (entry.collection, entry)).collect();
        let rows = self.collections_of(&definition.tenant, &definition.database)?;
        let of_row = |row: &Arc<ochre_store::CollectionRow>| {
            // One that was made just now has no entry yet.
            let described = entries.get(&row.id).map(|entry| self.describe_entry(entry));
            in_collection(row.id, &row.name, described)
        };
        let collections: Vec<CollectionIndex> = rows.iter().map(of_row).collect();
        let at_work: Vec<IndexProgress> = collections.iter().filter_map(|one| one.progress).collect();
        let total = |of: fn(&IndexProgress) -> u64| at_work.iter().map(of).sum();
        let began = at_work.iter().map(|progress| progress.started).min();
        let failed = collections.iter().find_map(|one| Some((&one.collection, one.error.as_ref()?)));
        Ok(MetadataIndex {
            id: index.id,
            definition,
            collection_id: None,
            status: collections.iter().map(|one| one.status).min().unwrap_or(IndexStatus::Ready),
            origin: IndexOrigin::Declared,
            progress: began.map(|began| progress(total(|one| one.done), total(|one| one.total), began)),
            error: failed.map(|(collection, error)| format!("collection '{collection}': {error}")),
            created_at: index.created_at,
            built_at: collections.iter().filter_map(|one| one.built_at).max(),
            verified_at: collections.iter().filter_map(|one| one.verified_at).max(),
            serving_columns: None,
            statistics: summed(&collections),
            usage: usage(entries.values().map(Arc::as_ref)),
            collections: Some(collections),
        })
    }
}

fn in_collection(collection_id: Uuid, collection: &str, described: Option<MetadataIndex>) -> CollectionIndex {
    let collection = collection.to_owned();
    let Some(MetadataIndex { status, progress, error, built_at, verified_at, statistics, .. }) = described else {
        let (status, statistics) = (IndexStatus::Pending, None);
        let (progress, error, built_at, verified_at) = (None, None, None, None);
        return CollectionIndex {
            collection,
            collection_id,
            status,
            progress,
            error,
            built_at,
            verified_at,
            statistics,
        };
    };
    let statistics = Some(statistics);
    CollectionIndex { collection, collection_id, status, progress, error, built_at, verified_at, statistics }
}

/// What indexes come to together.
fn summed(collections: &[CollectionIndex]) -> IndexStatistics {
    let all = || collections.iter().filter_map(|one| one.statistics.as_ref());
    let sum = |of: fn(&IndexStatistics) -> Option<u64>| Some(all().filter_map(of).fold(0, u64::saturating_add));
    IndexStatistics {
        loaded: all().any(|one| one.loaded),
        bytes_on_disk: all().map(|one| one.bytes_on_disk).fold(0, u64::saturating_add),
        bytes_in_memory: sum(|one| one.bytes_in_memory),
        entries: sum(|one| one.entries),
        distinct_keys: sum(|one| one.distinct_keys),
        largest_key: all().filter_map(|one| one.largest_key).max(),
        segments: sum(|one| one.segments),
        records_indexed: sum(|one| one.records_indexed),
        records: sum(|one| one.records),
    }
}

fn progress(done: u64, total: u64, started: i64) -> IndexProgress {
    IndexProgress { done, total, started, elapsed_seconds: (unix_seconds() - started).max(0) }
}

/// How often entries were used.
fn usage<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> IndexUsage {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut sum = IndexUsage::default();
    for Entry { usage, .. } in entries {
        sum.uses += read(&usage.uses);
        sum.rows += read(&usage.rows);
        sum.last_used = sum.last_used.max(Some(read(&usage.last_used)).filter(|at| *at > 0));
        sum.since = Some(sum.since.map_or(read(&usage.since), |since| since.min(read(&usage.since))));
    }
    sum
}
