//! Forks in memory: they begin with the view and the files of their source, and share both until either changes.

use std::sync::Arc;

use ochre_index::{Graph, View};
use ochre_store::CollectionRow;

use crate::collection::Collections;
use crate::collection::dirty::IndexState;
use crate::collection::state::CollectionState;

impl Collections {
    /// Lets a fork begin with what there is of its source, in files and in memory. Called before either is written to,
    /// so that no file is of a later position than the fork.
    pub(crate) fn begin_fork(&self, source: &CollectionRow, fork: &CollectionRow) {
        let loaded = self.get(source.number);
        let view = loaded.as_ref().and_then(|loaded| loaded.view());
        let texts = view.as_ref().map(|view| view.text().iter().map(|(text, _)| Arc::clone(text)).collect::<Vec<_>>());
        let [has_graph, has_records] = self.cache.link(source.id, fork.id, texts.as_deref());
        let (Some(loaded), Some(view)) = (loaded, view) else { return };
        let head = self.store.read().and_then(|reader| reader.head(fork.number));
        if !matches!(head, Ok(Some(head)) if head.position == view.position()) {
            return;
        }
        let mut view = View::clone(&view);
        // Declared indexes belong to the source; those of the database are added when its job runs.
        view.clear_indexes();
        let remembered = self.dirty.index_state(source.number);
        let state = CollectionState::with_view(fork, view);
        state.note_changes(loaded.changes().saturating_sub(remembered.records));
        let mut all = self.loaded.write();
        if all.contains_key(&fork.number) {
            // Somebody was faster, and loads it.
            return;
        }
        self.dirty.update_index_state(fork.number, |own| {
            *own = IndexState {
                snapshot: if has_graph { remembered.snapshot } else { 0 },
                records: 0,
                records_position: if has_records { remembered.records_position } else { 0 },
                ..remembered
            };
        });
        all.insert(fork.number, Arc::new(state));
        drop(all);
        // Vectors may wait for the graph, or lie elsewhere by now.
        self.dirty.mark_dirty(fork.number);
        if self.dirty.is_moved(source.number) {
            self.dirty.mark_moved(fork.number);
        }
    }

    /// The collections in memory that have this graph.
    pub(crate) fn sharing(&self, graph: &Arc<Graph>) -> Vec<Arc<CollectionState>> {
        let has_it = |view: &View| view.graph().is_some_and(|own| Arc::ptr_eq(own, graph));
        self.all().into_iter().filter(|loaded| loaded.view().is_some_and(|view| has_it(&view))).collect()
    }
}
