//! Which indexes would pay, and which are of no use: what is asked of collections beside what their records look like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{IndexColumn, IndexShape, View};
use ochre_model::ValueType;
use ochre_store::CollectionRow;
use serde_json::{Value as Json, json};

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{Declared, IndexSelection, State};
use crate::metadata_index::shown::{MissingIndex, Suggestion, SuggestionKind};
use crate::metadata_index::workload::{Asked, RECORDS_MIN, columns, index_name, keys};
use crate::schemas::unix_seconds;

/// A shape that was asked less often suggests nothing.
const ASKED_MIN: u64 = 10;
/// A shape whose matches are a larger share of the records is answered as fast by the columns.
const SELECTIVITY_MAX: f64 = 0.05;
/// Days after which an index that nothing used is pointed out.
const UNUSED_DAYS: i64 = 14;
/// Bytes that an entry takes, about: its offset and its share of a key.
pub(super) const ENTRY_BYTES: usize = 12;
/// Records that are put into an index in a second, about: for estimates only.
const RECORDS_PER_SECOND: usize = 500_000;

impl MetadataIndexes {
    pub(super) fn suggest_indexes(&self, selection: &IndexSelection) -> Vec<Suggestion> {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let mut suggestions = Vec::new();
        let loaded: Vec<_> = self.collections.all();
        for loaded in loaded {
            let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { continue };
            let is_wanted = is(&selection.tenant, &row.tenant)
                && is(&selection.database, &row.database)
                && (is(&selection.collection, &row.name) || is(&selection.collection, &row.id.to_string()));
            if is_wanted && view.live().len() >= RECORDS_MIN {
                suggestions.extend(self.missing_indexes(&row, &view));
            }
        }
        // Copied, so that no lock is held while another is taken.
        let entries = self.registry.all();
        let states: Vec<State> = entries.iter().map(|entry| entry.state.lock().clone()).collect();
        let definitions: Vec<&IndexDefinition> = states.iter().map(|state| &state.definition).collect();
        // What is being built, hidden or broken takes nobody's place.
        let serves = |state: &State| state.status() == "ready" && !state.definition.hidden;
        for (entry, definition) in entries.iter().zip(&definitions) {
            let Ok(row) = self.collections.catalog.row(entry.collection) else { continue };
            let is_wanted = is(&selection.tenant, &definition.tenant)
                && is(&selection.database, &definition.database)
                && (is(&selection.collection, &row.name) || is(&selection.collection, &row.id.to_string()));
            if entry.database_index.is_some() {
                // Of a database as a whole, below.
                continue;
            }
            let seen = entry.usage.last_used.load(Ordering::Relaxed).cast_signed();
            let since = seen.max(entry.usage.since.load(Ordering::Relaxed).cast_signed());
            let days = (unix_seconds() - since) / 86_400;
            if !is_wanted {
                continue;
            }
            let covering = entries.iter().zip(&states).find(|(other, state)| {
                let longer = &state.definition;
                other.number == entry.number
                    && serves(state)
                    && longer.columns.starts_with(&definition.columns)
                    && (longer.columns.len() > definition.columns.len() || other.database_index.is_some())
                    && longer.partial == definition.partial
            });
            if let Some((_, State { definition: IndexDefinition { index_name: name, .. }, .. })) = covering {
                let reason = format!("index '{name}' begins with the same columns and answers the same filters");
                suggestions.push(of_index(definition, Some(row.name.clone()), reason, SuggestionKind::Redundant));
            } else if days >= UNUSED_DAYS {
                let reason = format!("nothing used index '{}' for {days} days", definition.index_name);
                suggestions.push(of_index(definition, Some(row.name.clone()), reason, SuggestionKind::Unused));
            }
        }
        suggestions.extend(self.unused_database_indexes(selection));
        suggestions
    }

    /// Indexes of databases that no collection used for long.
    fn unused_database_indexes(&self, selection: &IndexSelection) -> Vec<Suggestion> {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let mut suggestions = Vec::new();
        for declared in self.registry.all_declared() {
            let Declared::Database(index) = &declared else { continue };
            let definition = declared.definition();
            let IndexDefinition { tenant, database, index_name, .. } = &definition;
            if selection.collection.is_some() || !is(&selection.tenant, tenant) || !is(&selection.database, database) {
                continue;
            }
            let entries = self.registry.entries(&declared);
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed).cast_signed();
            let seen = entries.iter().map(|entry| read(&entry.usage.last_used).max(read(&entry.usage.since))).max();
            let days = (unix_seconds() - seen.unwrap_or(0).max(index.created_at)) / 86_400;
            if days >= UNUSED_DAYS {
                let reason =
                    format!("nothing used index '{index_name}' in any collection of the database for {days} days");
                suggestions.push(of_index(&definition, None, reason, SuggestionKind::Unused));
            }
        }
        suggestions
    }

    fn missing_indexes(&self, row: &CollectionRow, view: &View) -> Vec<Suggestion> {
        // Of several shapes that the same columns answer one suggestion is made.
        let mut wanted: BTreeMap<String, (Vec<Json>, Asked)> = BTreeMap::new();
        for (shape, asked) in self.registry.workload().of(row.number) {
            let by_scan = asked.times - asked.by_index;
            let selectivity = asked.matched as f64 / asked.records.max(1) as f64;
            let is_past = unix_seconds() - asked.last > UNUSED_DAYS * 86_400;
            if is_past || by_scan < ASKED_MIN || asked.by_index > by_scan || selectivity > SELECTIVITY_MAX {
                continue;
            }
            let columns = columns(&shape, view);
            let entry =
                wanted.entry(Json::from(columns.clone()).to_string()).or_insert_with(|| (columns, Asked::default()));
            entry.1.times += by_scan;
            entry.1.micros += asked.micros;
            entry.1.matched += asked.matched;
            entry.1.records += asked.records;
        }
        let exists = |columns: &[Json]| {
            self.registry.of(row.number).iter().any(|entry| entry.state.lock().definition.columns.starts_with(columns))
        };
        let mut suggestions: Vec<(u64, Suggestion)> = wanted
            .into_values()
            .filter(|(columns, _)| !columns.is_empty() && !exists(columns))
            .map(|(columns, asked)| {
                let names: Vec<String> = keys(&columns).into_iter().map(str::to_owned).collect();
                let name = index_name(&row.name, &columns);
                let average = asked.micros / asked.times.max(1);
                let (records, matched) = (asked.records / asked.times.max(1), asked.matched / asked.times.max(1));
                let reason = format!(
                    "{} filters on {} looked at {records} records each to find {matched}, in {average} µs on average",
                    asked.times,
                    names.join(", ")
                );
                let missing = MissingIndex {
                    asked: asked.times,
                    average_micros: average,
                    gain: records / matched.max(1),
                    estimated_bytes: view.live().len() * ENTRY_BYTES,
                    columns,
                };
                let suggestion = Suggestion {
                    tenant: row.tenant.clone(),
                    database: row.database.clone(),
                    collection: Some(row.name.clone()),
                    index_name: name,
                    reason,
                    kind: SuggestionKind::Missing(missing),
                };
                (asked.micros, suggestion)
            })
            .collect();
        suggestions.sort_by_key(|(micros, _)| std::cmp::Reverse(*micros));
        suggestions.into_iter().map(|(_, suggestion)| suggestion).collect()
    }

    /// What an index of all collections of a database would come to.
    pub(super) fn estimate_database_index(
        &self, definition: &IndexDefinition, shape: &IndexShape,
    ) -> Result<Json, Error> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        let mut overlaps = BTreeSet::new();
        let rows = self.collections_of(&definition.tenant, &definition.database)?;
        for row in &rows {
            let one = self.estimate_index(row, definition, shape)?;
            for name in ["records", "estimated_entries", "estimated_bytes", "estimated_seconds"] {
                *sums.entry(name).or_default() += one[name].as_f64().unwrap_or_default();
            }
            let others = one["overlaps"].as_array().into_iter().flatten();
            overlaps.extend(others.filter_map(|name| name.as_str().map(str::to_owned)));
        }
        let sum = |name: &str| sums.get(name).copied().unwrap_or_default();
        let exists = self.registry.find(&definition.tenant, &definition.database, &definition.index_name).is_ok();
        Ok(json!({
            "dry_run": true, "index_name": definition.index_name, "collection": null, "collections": rows.len(),
            "records": sum("records") as u64,
            "estimated_entries": sum("estimated_entries") as u64,
            "estimated_bytes": sum("estimated_bytes") as u64,
            "estimated_seconds": sum("estimated_seconds"),
            "overlaps": overlaps,
            "exists": exists,
        }))
    }

    /// What an index would come to.
    pub(super) fn estimate_index(
        &self, row: &CollectionRow, definition: &IndexDefinition, shape: &IndexShape,
    ) -> Result<Json, Error> {
        let view = self.collections.view(row)?;
        let records = view.live().len();
        let first: u64 = match shape.columns.first() {
            Some(IndexColumn::Key(key) | IndexColumn::Elements(key)) => view.count_types(key, view.live()).iter().sum(),
            Some(IndexColumn::Every(ty)) => view.keys().map(|(_, counts)| counts[*ty as usize]).sum(),
            None => 0,
        };
        let overlaps: Vec<String> = self
            .registry
            .of(row.number)
            .iter()
            .map(|entry| entry.state.lock().definition.clone())
            .filter(|other| other.columns.first() == definition.columns.first())
            .map(|other| other.index_name)
            .collect();
        let exists = self.registry.find(&definition.tenant, &definition.database, &definition.index_name).is_ok();
        let keys: Vec<Json> = shape
            .columns
            .iter()
            .filter_map(|column| match column {
                IndexColumn::Key(key) | IndexColumn::Elements(key) => {
                    let counts = view.count_types(key, view.live());
                    let types: BTreeMap<&str, u64> = ValueType::ALL
                        .into_iter()
                        .filter(|ty| counts[*ty as usize] > 0)
                        .map(|ty| (ty.name(), counts[ty as usize]))
                        .collect();
                    Some(json!({"key": key, "records": counts.iter().sum::<u64>(), "types": types}))
                }
                IndexColumn::Every(_) => None,
            })
            .collect();
        Ok(json!({
            "dry_run": true, "index_name": definition.index_name, "collection": row.name, "records": records,
            "columns": keys,
            "estimated_entries": first,
            "estimated_bytes": first as usize * ENTRY_BYTES + records / 8,
            "estimated_seconds": records as f64 / RECORDS_PER_SECOND as f64,
            "overlaps": overlaps,
            "exists": exists,
        }))
    }
}

/// A suggestion about an index that there is.
fn of_index(
    definition: &IndexDefinition, collection: Option<String>, reason: String, kind: SuggestionKind,
) -> Suggestion {
    let IndexDefinition { tenant, database, index_name, .. } = definition.clone();
    Suggestion { tenant, database, collection, index_name, reason, kind }
}
