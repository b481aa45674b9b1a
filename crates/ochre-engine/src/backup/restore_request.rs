//! Restoring what somebody asks for: a backup as a whole, or one collection of it.

use std::path::Path;
use std::sync::Arc;

use ochre_store::ExtensionTables;

use crate::backup::manifest::Manifest;
use crate::backup::repository::Repository;
use crate::backup::restore::RestoreAt;
use crate::database::Database;
use crate::error::Error;
use crate::extension::{StoreExtension, tables_known};
use crate::options::Options;

/// How to restore.
#[derive(Clone)]
pub struct RestoreOptions {
    /// Which backup.
    pub at: RestoreAt,
    /// Only the collection of this name or id, not the whole database.
    pub collection: Option<String>,
    /// What extends the database: of a single collection, what extensions keep of the others goes.
    pub extensions: Vec<Arc<dyn StoreExtension>>,
    /// Tables that the program keeps beside those of extensions.
    pub tables: Vec<ExtensionTables>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { at: RestoreAt::Latest, collection: None, extensions: Options::default().extensions, tables: Vec::new() }
    }
}

impl Repository {
    /// Makes a database in `directory`, which has to be empty or not there, out of a backup. It holds exactly what was
    /// committed at that backup's position. A directory that is not there is made as `directory.partial` and renamed
    /// once it is whole; one that is there has a mark until then, with which it is not opened. If anything fails, what
    /// was written is removed.
    ///
    /// # Errors
    /// [`Error::Backup`]: there is no such backup, or the directory is not empty. [`Error::DamagedBackup`]: a chunk is
    /// missing or damaged.
    pub fn restore(&self, options: &RestoreOptions, directory: &Path) -> Result<Manifest, Error> {
        let mut known = tables_known(&options.extensions);
        known.extend(options.tables.iter().cloned());
        self.restore_whole(&options.at, &known, directory, |path| match &options.collection {
            Some(wanted) => keep_only(path, wanted, &options.extensions),
            None => Ok(()),
        })
    }
}

/// Removes every collection but one from a database.
fn keep_only(directory: &Path, wanted: &str, extensions: &[Arc<dyn StoreExtension>]) -> Result<(), Error> {
    let options = Options { background: false, extensions: extensions.to_vec(), ..Options::default() };
    let database = Database::open_unfinished(directory, options)?;
    let all = database.all_collections()?;
    let is_wanted = |row: &ochre_store::CollectionRow| row.name == wanted || row.id.to_string() == wanted;
    if !all.iter().any(is_wanted) {
        return Err(Error::Backup(format!("the backup holds no collection '{wanted}'")));
    }
    for row in all.iter().filter(|row| !is_wanted(row)) {
        database.delete_collection_in(&row.tenant, &row.database, &row.name)?;
    }
    database.maintain()?;
    database.close();
    Ok(())
}
