//! Publishing commits: as views of the collections in memory, and to whoever wants to be told.

use std::sync::{Arc, Weak};

use ochre_store::{Change, CollectionNumber, CollectionRow, Committed, Observer};
use uuid::Uuid;

use crate::collection::Collections;

/// What extensions are told of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The collection.
    pub collection: Uuid,
    /// Its position after the commit; one more than before it.
    pub position: u64,
    /// Records that were inserted or changed.
    pub put: usize,
    /// Records that were deleted.
    pub deleted: usize,
}

/// Whom a commit is told: a name, and what is called.
pub(crate) type Listener = (&'static str, Box<dyn Fn(&Commit) + Send + Sync>);

/// Publishes commits as views. Weak: the store must not keep the database alive.
pub(crate) struct Publisher {
    collections: Weak<Collections>,
    listeners: Vec<Listener>,
}

impl Publisher {
    pub(crate) fn new(collections: &Arc<Collections>, listeners: Vec<Listener>) -> Self {
        Self { collections: Arc::downgrade(collections), listeners }
    }

    /// Tells listeners of a commit. One that fails is not asked to do anything about it: the commit stands.
    fn tell(&self, committed: &Committed) {
        if self.listeners.is_empty() {
            return;
        }
        let put = committed.changes.iter().filter(|change| matches!(change, Change::Put(_))).count();
        let collection = committed.id;
        let commit = Commit { collection, position: committed.position, put, deleted: committed.changes.len() - put };
        for (extension, listener) in &self.listeners {
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| listener(&commit)));
            if told.is_err() {
                tracing::error!(extension, "an extension panicked when it was told of a commit");
            }
        }
    }
}

impl Observer for Publisher {
    fn committed(&self, commit: &Arc<Committed>) {
        let Some(collections) = self.collections.upgrade() else { return };
        if let Some(row) = &commit.row {
            collections.catalog.replace(row);
        }
        let Some(loaded) = collections.get(commit.collection) else { return self.tell(commit) };
        let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loaded.commit(commit)));
        if !matches!(applied, Ok(true)) {
            // The write stands; the view is reloaded by whoever needs it next.
            tracing::error!(
                collection = commit.collection,
                position = commit.position,
                "dropped a view that a commit did not fit"
            );
            collections.discard(commit.collection);
        }
        collections.dirty.mark_dirty(commit.collection);
        self.tell(commit);
    }

    fn relocated(&self, moved: &[CollectionNumber]) {
        if let Some(collections) = self.collections.upgrade() {
            moved.iter().for_each(|number| collections.dirty.mark_moved(*number));
        }
    }

    fn forked(&self, source: &CollectionRow, fork: &CollectionRow) {
        if let Some(collections) = self.collections.upgrade() {
            collections.begin_fork(source, fork);
        }
    }

    fn reopened(&self) {
        if let Some(collections) = self.collections.upgrade() {
            tracing::warn!("the store was reopened after a failure; views are loaded again");
            collections.catalog.forget_all();
            collections.forget_all();
            collections.catalog.schemas.forget_all();
        }
    }
}
