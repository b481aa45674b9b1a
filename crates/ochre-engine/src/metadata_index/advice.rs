//! Which indexes would pay, and which are of no use: what is asked of collections beside what their records look like.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{IndexColumn, IndexShape, View};
use ochre_model::ValueType;
use ochre_store::CollectionRow;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::definition::{ColumnDefinition, IndexDefinition};
use crate::metadata_index::registry::{Declared, IndexSelection, State};
use crate::metadata_index::status::{ColumnEstimate, IndexEstimate, IndexStatus};
use crate::metadata_index::suggestion::{MissingIndex, Suggestion, SuggestionKind};
use crate::metadata_index::workload::{Asked, RECORDS_MIN, columns, index_name};
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
        let serves = |state: &State| state.status() == IndexStatus::Ready && !state.definition.hidden;
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
        let mut wanted: BTreeMap<Vec<ColumnDefinition>, Asked> = BTreeMap::new();
        for (shape, asked) in self.registry.workload().of(row.number) {
            let by_scan = asked.times - asked.by_index;
            let selectivity = asked.matched as f64 / asked.records.max(1) as f64;
            let is_past = unix_seconds() - asked.last > UNUSED_DAYS * 86_400;
            if is_past || by_scan < ASKED_MIN || asked.by_index > by_scan || selectivity > SELECTIVITY_MAX {
                continue;
            }
            let entry = wanted.entry(columns(&shape, view)).or_default();
            entry.times += by_scan;
            entry.micros += asked.micros;
            entry.matched += asked.matched;
            entry.records += asked.records;
        }
        let exists = |columns: &[ColumnDefinition]| {
            self.registry.of(row.number).iter().any(|entry| entry.state.lock().definition.columns.starts_with(columns))
        };
        let mut suggestions: Vec<(u64, Suggestion)> = wanted
            .into_iter()
            .filter(|(columns, _)| !columns.is_empty() && !exists(columns))
            .map(|(columns, asked)| {
                let names: Vec<&str> = columns.iter().map(|column| column.key.as_str()).collect();
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
    ) -> Result<IndexEstimate, Error> {
        let rows = self.collections_of(&definition.tenant, &definition.database)?;
        let mut sum = IndexEstimate {
            index_name: definition.index_name.clone(),
            collection: None,
            collections: Some(rows.len()),
            records: 0,
            columns: Vec::new(),
            entries: 0,
            bytes: 0,
            seconds: 0.0,
            overlaps: Vec::new(),
            exists: self.is_taken(definition),
        };
        for row in &rows {
            let one = self.estimate_index(row, definition, shape)?;
            sum.records += one.records;
            sum.entries += one.entries;
            sum.bytes += one.bytes;
            sum.seconds += one.seconds;
            sum.overlaps.extend(one.overlaps);
        }
        sum.overlaps.sort_unstable();
        sum.overlaps.dedup();
        Ok(sum)
    }

    /// What an index would come to.
    pub(super) fn estimate_index(
        &self, row: &CollectionRow, definition: &IndexDefinition, shape: &IndexShape,
    ) -> Result<IndexEstimate, Error> {
        let view = self.collections.view(row)?;
        let records = view.live().len();
        let first: u64 = match shape.columns.first() {
            Some(IndexColumn::Key(key) | IndexColumn::Elements(key)) => view.count_types(key, view.live()).iter().sum(),
            Some(IndexColumn::Every(ty)) => view.keys().map(|(_, counts)| counts[*ty as usize]).sum(),
            None => 0,
        };
        let others = self.registry.of(row.number);
        let others = others.iter().map(|entry| entry.state.lock().definition.clone());
        let overlaps = others.filter(|other| other.columns.first() == definition.columns.first());
        let of_key = |column: &IndexColumn| match column {
            IndexColumn::Key(key) | IndexColumn::Elements(key) => {
                let counts = view.count_types(key, view.live());
                let types = ValueType::ALL.into_iter().map(|ty| (ty, counts[ty as usize]));
                Some(ColumnEstimate {
                    key: key.to_string(),
                    records: counts.iter().sum(),
                    types: types.filter(|(_, count)| *count > 0).collect(),
                })
            }
            IndexColumn::Every(_) => None,
        };
        Ok(IndexEstimate {
            index_name: definition.index_name.clone(),
            collection: Some(row.name.clone()),
            collections: None,
            records: records as u64,
            columns: shape.columns.iter().filter_map(of_key).collect(),
            entries: first,
            bytes: first * ENTRY_BYTES as u64 + records as u64 / 8,
            seconds: records as f64 / RECORDS_PER_SECOND as f64,
            overlaps: overlaps.map(|other| other.index_name).collect(),
            exists: self.is_taken(definition),
        })
    }

    /// Whether there is an index of the name.
    pub(super) fn is_taken(&self, definition: &IndexDefinition) -> bool {
        self.registry.find(&definition.tenant, &definition.database, &definition.index_name).is_ok()
    }
}

/// A suggestion about an index that there is.
fn of_index(
    definition: &IndexDefinition, collection: Option<String>, reason: String, kind: SuggestionKind,
) -> Suggestion {
    let IndexDefinition { tenant, database, index_name, .. } = definition.clone();
    Suggestion { tenant, database, collection, index_name, reason, kind }
}
