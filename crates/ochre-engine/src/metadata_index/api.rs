//! What may be asked of the metadata indexes of a database.

use crate::database::Database;
use crate::error::Error;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{IndexChange, IndexSelection};
use crate::metadata_index::status::{IndexEstimate, IndexVerification, MetadataIndex};
use crate::metadata_index::suggestion::Suggestion;

impl Database {
    /// Declares a metadata index, of a collection or of every collection of a database, and begins to build it. One
    /// that exists as asked for is left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad definition, [`Error::NotFound`] if there is no such collection or database,
    /// [`Error::Conflict`] if another index has the name, [`Error::Store`].
    pub fn create_metadata_index(&self, definition: &IndexDefinition) -> Result<(MetadataIndex, IndexChange), Error> {
        self.inner.metadata_indexes.create(definition)
    }

    /// Whether these metadata indexes may be declared together: no other has the name of one, and there is room.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn check_metadata_indexes(&self, definitions: &[IndexDefinition]) -> Result<(), Error> {
        self.inner.metadata_indexes.check_declarations(definitions)
    }

    /// Whether there is room for these metadata indexes once those of these places (tenant, database, name) are gone.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn check_metadata_index_room(
        &self, definitions: &[IndexDefinition], gone: &[[String; 3]],
    ) -> Result<(), Error> {
        self.inner.metadata_indexes.check_room_for(definitions, gone)
    }

    /// What a definition would come to: size, time, and what is there already. Nothing is changed.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn plan_metadata_index(&self, definition: &IndexDefinition) -> Result<IndexEstimate, Error> {
        self.inner.metadata_indexes.plan(definition)
    }

    /// The declared indexes, by name. Those of a collection include the ones that its database has for all.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn metadata_indexes(&self, selection: &IndexSelection) -> Result<Vec<MetadataIndex>, Error> {
        self.inner.metadata_indexes.list(selection)
    }

    /// A declared index.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        self.inner.metadata_indexes.show(tenant, database, name)
    }

    /// Makes the index `name` what it is asked to be: in place if only its name, `hidden` or `comment` differ, else by
    /// a build beside the one that serves. A build under way is superseded; of another collection than before, it takes
    /// the place of the one there was. One that does not exist is made.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`]; [`Error::NotFound`] if one is to be renamed that does not exist.
    pub fn put_metadata_index(
        &self, name: &str, definition: &IndexDefinition,
    ) -> Result<(MetadataIndex, IndexChange), Error> {
        self.inner.metadata_indexes.put(name, definition)
    }

    /// Builds an index from the records again, beside the one that serves.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn rebuild_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        self.inner.metadata_indexes.rebuild(tenant, database, name)
    }

    /// Stops a build under way; whether there was one. What served before goes on serving.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`]; [`Error::Conflict`] for an index of a database whose definition changes.
    pub fn cancel_metadata_index(
        &self, tenant: &str, database: &str, name: &str,
    ) -> Result<(MetadataIndex, bool), Error> {
        self.inner.metadata_indexes.cancel(tenant, database, name)
    }

    /// Deletes an index, and stops its build.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn delete_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        self.inner.metadata_indexes.delete(tenant, database, name)
    }

    /// Compares an index with the records; of a collection where they differ, it is used no more until it is rebuilt.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`]; [`Error::Conflict`] if it is not built yet.
    pub fn verify_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<IndexVerification, Error> {
        self.inner.metadata_indexes.verify(tenant, database, name)
    }

    /// Indexes that the filters of the past requests would have profited from, with ready requests.
    pub fn suggest_metadata_indexes(&self, selection: &IndexSelection) -> Vec<Suggestion> {
        self.inner.metadata_indexes.suggest_indexes(selection)
    }
}
