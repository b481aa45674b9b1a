//! Indexes that are created and deleted by themselves, if that is wanted: from suggestions, within a budget.

use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::advice::ENTRY_BYTES;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{IndexSelection, Registry};
use crate::metadata_index::status::IndexOrigin;
use crate::metadata_index::suggestion::SuggestionKind;

/// What the comments of such indexes begin with.
pub(super) const AUTOMATIC: &str = "created automatically";

impl MetadataIndexes {
    /// Definitions that would pay and fit into the budget, and places of indexes made so that are of no use.
    pub(crate) fn automatic_indexes(&self, budget_bytes: u64) -> (Vec<IndexDefinition>, Vec<[String; 3]>) {
        let suggestions = self.suggest_indexes(&IndexSelection::default());
        let (mut used, mut automatic, mut is_building) = (0, Vec::new(), false);
        for entry in self.registry.all() {
            let state = entry.state.lock().clone();
            let definition = state.definition;
            if entry.database_index.is_none() && state.origin == IndexOrigin::Automatic {
                is_building |= state.building.is_some();
                let generation = state.serving.as_ref().map(|(generation, ..)| *generation);
                let view = self.collections.loaded_view(entry.number);
                let estimated = view.map_or(0, |view| view.live().len() * ENTRY_BYTES) as u64;
                used += estimated.max(self.cache.index_bytes(entry.collection, entry.id, generation));
                automatic.push([definition.tenant, definition.database, definition.index_name]);
            }
        }
        let of_no_use = suggestions.iter().filter(|suggestion| suggestion.definition().is_none());
        let delete: Vec<[String; 3]> = of_no_use
            .map(|index| [index.tenant.clone(), index.database.clone(), index.index_name.clone()])
            .filter(|place| automatic.contains(place))
            .collect();
        let mut create = Vec::new();
        if is_building {
            // How large it gets is known once it is there.
            return (create, delete);
        }
        // The one that most time was spent on first.
        for suggestion in &suggestions {
            let (SuggestionKind::Missing(missing), Some(mut definition)) = (&suggestion.kind, suggestion.definition())
            else {
                continue;
            };
            let bytes = missing.estimated_bytes as u64;
            definition.comment = format!("{AUTOMATIC}: {}", suggestion.reason);
            let is_there =
                create.iter().any(|other: &IndexDefinition| Registry::place(other) == Registry::place(&definition));
            if !is_there && used.saturating_add(bytes) <= budget_bytes && self.may_be_created(&definition) {
                used += bytes;
                create.push(definition);
            }
        }
        (create, delete)
    }

    /// Whether nothing would refuse it: filters ask for keys, too, that no record has.
    fn may_be_created(&self, definition: &IndexDefinition) -> bool {
        let check = || {
            let shape = definition.shape(Uuid::nil())?;
            self.indexed_collections(definition)?.iter().try_for_each(|row| {
                self.check_columns(row, &shape)?;
                self.check_room(row, 1)
            })
        };
        !self.is_taken(definition) && check().is_ok()
    }

    /// Creates and deletes them; how many. What cannot be is left for the next time, and keeps nobody from building.
    pub(crate) fn change_automatic_indexes(&self, budget_bytes: u64) -> (usize, usize) {
        let (create, delete) = self.automatic_indexes(budget_bytes);
        let done = |name: &str, result: Result<(), Error>| {
            result.inspect_err(|error| tracing::warn!(index = name, %error, "could not follow a suggestion")).is_ok()
        };
        let deleted =
            delete.iter().filter(|[tenant, home, name]| done(name, self.delete(tenant, home, name).map(drop)));
        let deleted = deleted.count();
        let created = create.iter().filter(|definition| {
            done(&definition.index_name, self.create_of(IndexOrigin::Automatic, definition).map(drop))
        });
        (created.count(), deleted)
    }
}
