//! What answers show of declared indexes: definition, status, progress, statistics, use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{CompositeSegment, View};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::registry::{DatabaseIndex, Declared, Entry, State};
use crate::metadata_index::shown::MetadataIndex;
use crate::schemas::unix_seconds;

/// Of an index of a database, the states of its collections that its own is, the first of them that one has.
const STATUSES: [&str; 7] = ["failed", "invalid", "building", "rebuilding", "pending", "cancelled", "ready"];
/// Statistics that add up over collections.
const SUMS: [&str; 8] = [
    "bytes_on_disk",
    "bytes_in_memory",
    "entries",
    "distinct_keys",
    "segments",
    "records_indexed",
    "records",
    "largest_key",
];

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
        let definition = &state.definition;
        let row = self.collections.catalog.row(entry.collection).ok();
        let progress = state.progress.map(|(done, total, began)| progress(done as u64, total as u64, began));
        let serving = state.serving.as_ref().map(|(_, serving, _)| &serving.columns);
        let more = json!({
            "id": entry.id,
            "collection": row.as_ref().map(|row| &row.name),
            "collection_id": entry.collection,
            "status": state.status(),
            "progress": progress,
            "error": state.error,
            "created_at": entry.created_at,
            "built_at": state.built_at,
            "verified_at": state.verified_at,
            "serving_columns": serving.filter(|columns| **columns != definition.columns),
            "statistics": self.statistics(entry, &state, view.as_deref()),
            "usage": usage([entry]),
        });
        let collection = row.map(|row| row.name.clone());
        MetadataIndex::new(definition, collection, merged(json!(definition), more))
    }

    /// What an index comes to; of a collection that is not loaded, what it came to when it was last brought up to date.
    pub(super) fn statistics(&self, entry: &Entry, state: &State, view: Option<&View>) -> Json {
        let generation = state.serving.as_ref().map(|(generation, ..)| *generation);
        let bytes_on_disk = self.cache.index_bytes(entry.collection, entry.id, generation);
        let served = generation.and_then(|generation| view?.index(entry.id.into_bytes(), generation));
        let Some(index) = served else {
            let mut kept = state.statistics.clone().filter(Json::is_object).unwrap_or_else(|| json!({}));
            for name in SUMS.iter().filter(|name| kept.get(**name).is_none()).collect::<Vec<_>>() {
                kept[*name] = Json::Null;
            }
            kept["bytes_in_memory"] = view.map_or(json!(0), |_| Json::Null);
            (kept["bytes_on_disk"], kept["loaded"]) = (json!(bytes_on_disk), json!(false));
            return kept;
        };
        let segments = || index.segments().iter().map(|(segment, _)| segment);
        let sum = |of: fn(&CompositeSegment) -> usize| segments().map(|segment| of(segment)).sum::<usize>();
        json!({
            "loaded": true,
            "bytes_on_disk": bytes_on_disk,
            "bytes_in_memory": sum(CompositeSegment::bytes),
            "entries": sum(CompositeSegment::entries),
            "distinct_keys": sum(CompositeSegment::keys),
            "largest_key": segments().map(|segment| segment.largest()).max().unwrap_or(0),
            "segments": index.segments().len(),
            "records_indexed": index.covered().len(),
            "records": view.map(|view| view.live().len()),
        })
    }

    fn describe_database_index(&self, index: &DatabaseIndex) -> Result<MetadataIndex, Error> {
        let definition = index.definition.lock().clone();
        let entries: HashMap<Uuid, Arc<Entry>> =
            self.registry.entries_of(index.id).into_iter().map(|entry| (entry.collection, entry)).collect();
        let mut collections = Vec::new();
        for row in self.collections_of(&definition.tenant, &definition.database)? {
            // One that was made just now has no entry yet.
            let described = entries.get(&row.id).map(|entry| self.describe_entry(entry));
            let mut shown = json!({"collection": row.name, "collection_id": row.id, "status": "pending"});
            if let Some(described) = &described {
                for member in ["status", "progress", "error", "built_at", "verified_at", "statistics"] {
                    shown[member] = described[member].clone();
                }
            }
            collections.push(shown);
        }
        let all = |member: &'static str| collections.iter().map(move |one| &one[member]);
        let status = STATUSES.iter().find(|status| all("status").any(|own| own == **status)).unwrap_or(&"ready");
        let sum = |name: &str| all("statistics").filter_map(|one| one[name].as_u64()).fold(0, u64::saturating_add);
        let largest = all("statistics").filter_map(|one| one["largest_key"].as_u64()).max();
        let mut statistics: Json = SUMS.iter().map(|name| ((*name).to_owned(), json!(sum(name)))).collect();
        statistics["largest_key"] = json!(largest);
        statistics["loaded"] = all("statistics").any(|one| one["loaded"] == true).into();
        let at_work: Vec<&Json> = all("progress").filter(|progress| progress.is_object()).collect();
        let total = |name: &str| at_work.iter().filter_map(|progress| progress[name].as_u64()).sum::<u64>();
        let began = at_work.iter().filter_map(|progress| progress["started"].as_i64()).min();
        let error = collections.iter().find_map(|one| {
            one["error"]
                .as_str()
                .map(|error| format!("collection '{}': {error}", one["collection"].as_str().unwrap_or_default()))
        });
        let more = json!({
            "id": index.id,
            "collection": null,
            "collection_id": null,
            "status": status,
            "progress": began.map(|began| progress(total("done"), total("total"), began)),
            "error": error,
            "created_at": index.created_at,
            "built_at": all("built_at").filter_map(Json::as_i64).max(),
            "verified_at": all("verified_at").filter_map(Json::as_i64).max(),
            "serving_columns": null,
            "statistics": statistics,
            "usage": usage(entries.values().map(Arc::as_ref)),
            "collections": collections,
        });
        Ok(MetadataIndex::new(&definition, None, merged(json!(definition), more)))
    }
}

/// How far a build is, and how long it takes still by what was done.
fn progress(done: u64, total: u64, began: i64) -> Json {
    let elapsed = (unix_seconds() - began).max(0);
    let eta = (done > 0).then(|| elapsed.saturating_mul(total.saturating_sub(done).cast_signed()) / done.cast_signed());
    json!({
        "phase": "collecting", "done": done, "total": total, "started": began, "elapsed_seconds": elapsed,
        "eta_seconds": eta,
    })
}

/// How often entries were used.
fn usage<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Json {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (mut uses, mut rows, mut last_used, mut since) = (0, 0, 0, None);
    for Entry { usage, .. } in entries {
        uses += read(&usage.uses);
        rows += read(&usage.rows);
        last_used = read(&usage.last_used).max(last_used);
        since = Some(since.map_or(read(&usage.since), |since: u64| since.min(read(&usage.since))));
    }
    json!({"uses": uses, "rows": rows, "last_used": Some(last_used).filter(|at| *at > 0), "since": since})
}

/// One object of both, the second's members before the first's.
fn merged(mut shown: Json, more: Json) -> Json {
    if let (Some(shown), Json::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}
