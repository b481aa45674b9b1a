//! Which builds of declared indexes the views of a collection have.

use std::sync::Arc;

use ochre_index::CompositeIndex;
use ochre_store::CollectionNumber;

use crate::collection::Collections;
use crate::metadata_index::registry::Entry;

impl Collections {
    /// Lets the views of a collection have the builds that its index should have.
    pub(crate) fn show_builds(&self, entry: &Entry) {
        let kept: Vec<u64> = entry.builds().iter().map(|(generation, ..)| *generation).collect();
        self.cache.remove_index_files(entry.collection, entry.id, &kept);
        let Some(loaded) = self.get(entry.number) else { return };
        let id = entry.id.into_bytes();
        loaded.change(|view| {
            // As it is now: two changes must not overtake each other.
            let builds = entry.builds();
            view.remove_index(id, |generation| builds.iter().all(|(other, ..)| *other != generation));
            for (generation, shape, is_hidden, serves) in &builds {
                if view.index(id, *generation).is_none() {
                    view.add_index(CompositeIndex::new(Arc::clone(shape), *generation, *is_hidden));
                }
                if *serves {
                    view.ready_index(id, *generation);
                }
                view.describe_index(shape, *generation, *is_hidden);
            }
        });
    }

    /// Lets a view that was just loaded have the builds that its indexes should have by now; whether it has any.
    pub(crate) fn show_all_builds(&self, number: CollectionNumber) -> bool {
        let entries = self.registry.of(number);
        entries.iter().for_each(|entry| self.show_builds(entry));
        !entries.is_empty()
    }
}
