//! Extensions of the store: tables, jobs and hooks of their own, beside what the database does itself.

use std::sync::Arc;

use ochre_scheduler::{Failure, Task};
use ochre_store::ExtensionTables;
use uuid::Uuid;

use crate::database::Database;
use crate::error::Error;
use crate::functions::{self, FUNCTIONS};
use crate::inner::WeakInner;
use crate::write::publish::Commit;

/// The tables of the server's keys, which are of no extension that could be left out.
const KEYS: &str = "auth";

/// What a database is given beside what it does itself: named in [`Options::extensions`](crate::Options), opened in
/// that order, after its tables were brought to the newest version and before the first request and the first job.
///
/// Its tables are reached by [`Database::read_tables`] and [`Database::change_tables`], and are part of backups.
pub trait StoreExtension: Send + Sync {
    /// Its name, in kebab-case. Its tables are named `<name>_…`, with `_` for `-`.
    fn name(&self) -> &'static str;

    /// Scripts of SQL: `migrations[n]` brings its tables from version `n` to `n + 1`.
    fn migrations(&self) -> &'static [&'static str] {
        &[]
    }

    /// Its jobs: listed, configured and run like all others.
    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        let _ = database;
        Vec::new()
    }

    /// The database was opened, and runs no job yet. Whatever keeps the database keeps it open: keep
    /// [`Database::downgrade`] of it.
    ///
    /// # Errors
    /// Whatever makes it impossible to go on: the database is not opened.
    fn opened(&self, database: &Database) -> Result<(), Error> {
        let _ = database;
        Ok(())
    }

    /// Whether it wants to be told of every commit.
    fn watches_commits(&self) -> bool {
        false
    }

    /// Records were written. Called in the order of commits by whoever commits, while nobody else can: it must be fast,
    /// and whatever it writes to the database itself waits for its own end, for ever.
    fn committed(&self, commit: &Commit) {
        let _ = commit;
    }

    /// A collection was deleted; all of them if none is named. Not told of what is deleted while the extension is not
    /// there, or just before a crash: compare in [`StoreExtension::opened`].
    fn deleted(&self, database: &Database, collection: Option<Uuid>) {
        let _ = (database, collection);
    }
}

/// A database that may be closing: what jobs hold of it.
#[derive(Clone)]
pub struct WeakDatabase(pub(crate) WeakInner);

impl WeakDatabase {
    /// The database, for as long as one step takes: it does not close meanwhile.
    ///
    /// # Errors
    /// [`Failure::Stopped`] if it is closing.
    pub fn open(&self) -> Result<Database, Failure> {
        self.0.open().map(Database::within)
    }
}

/// What its tables' names begin with.
pub(crate) fn tables_of(extension: &dyn StoreExtension) -> String {
    extension.name().replace('-', "_")
}

/// The tables of extensions, for comparing what a database defines with what they do.
pub(crate) fn tables_known(extensions: &[Arc<dyn StoreExtension>]) -> Vec<ExtensionTables> {
    let tables = |extension: &Arc<dyn StoreExtension>| ExtensionTables {
        name: tables_of(&**extension),
        migrations: extension.migrations().to_vec(),
    };
    let functions: Arc<dyn StoreExtension> = Arc::new(functions::extension::Extension::default());
    extensions
        .iter()
        .chain((!extensions.iter().any(|known| known.name() == FUNCTIONS)).then_some(&functions))
        .map(tables)
        .collect()
}

/// Refuses two of one name, and names that are taken.
pub(crate) fn check_extensions(extensions: &[Arc<dyn StoreExtension>]) -> Result<(), Error> {
    for (number, extension) in extensions.iter().enumerate() {
        let tables = tables_of(&**extension);
        if extensions[..number].iter().any(|other| tables_of(&**other) == tables) {
            return Err(Error::invalid(format!("extension '{}' is named twice", extension.name())));
        }
        if tables == FUNCTIONS {
            return Err(Error::invalid(format!("extension '{FUNCTIONS}': every database has one of this name")));
        }
        if tables == KEYS {
            return Err(Error::invalid(format!("extension '{KEYS}': the server keeps keys under this name")));
        }
    }
    Ok(())
}
