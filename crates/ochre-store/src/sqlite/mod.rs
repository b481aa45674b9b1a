//! The embedded store: SQLite for catalog, records and log; segment files for vectors.
//!
//! Invariants:
//! - One writer connection; nothing but SQLite opens the database file.
//! - Vectors are durable before the transaction that makes them live commits; that transaction also
//!   records each segment's committed length.
//! - After a failed sync or commit nothing is retried: the store is reopened and asked what it holds.
//!
//! The tables are described in `docs/formats/database.md`.

mod backup;
mod catalog;
pub(crate) mod checksums;
pub(crate) mod connection;
mod idempotency;
mod jobs;
mod layer_upkeep;
pub(crate) mod layers;
mod log;
pub(crate) mod migrations;
pub(crate) mod open;
pub(crate) mod reader;
mod records;
mod restore;
pub(crate) mod segment_rows;
mod state;
mod store;
mod upkeep;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

pub use self::migrations::SCHEMA_VERSION;
pub use self::store::{SqliteOptions, SqliteStore};

use self::connection::{DATABASE_FILE, Failure, connect, read_meta};
use crate::check::{check_database, check_pages};
use crate::error::{Error, Result};
use crate::extension::{self, TableWork};
use crate::report::Report;
use crate::store::{
    Alteration, CollectionNumber, CollectionRow, Copy, DatabaseRow, Debt, HeldByForks, NewCollection, Observer,
    Outcome, Page, Reader, Statistics, Store, Tenant, Upkeep, Write,
};

impl Store for SqliteStore {
    fn create_tenant(&self, name: &str) -> Result<()> {
        self.change_catalog(|transaction| catalog::create_tenant(transaction, name))
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        self.reader()?.query_rows("read tenant", |connection| catalog::tenant(connection, name))
    }

    fn tenant_by_resource_name(&self, resource_name: &str) -> Result<Option<Tenant>> {
        self.reader()?
            .query_rows("read tenant", |connection| catalog::tenant_by_resource_name(connection, resource_name))
    }

    fn set_resource_name(&self, tenant: &str, resource_name: &str) -> Result<()> {
        self.change_catalog(|transaction| catalog::set_resource_name(transaction, tenant, resource_name))
    }

    fn create_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow> {
        self.change_catalog(|transaction| catalog::create_database(transaction, tenant, name))
    }

    fn database(&self, tenant: &str, name: &str) -> Result<Option<DatabaseRow>> {
        self.reader()?.query_rows("read database", |connection| catalog::database(connection, tenant, name))
    }

    fn databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>> {
        self.reader()?.query_rows("list databases", |connection| catalog::databases(connection, tenant, page))
    }

    fn delete_database(&self, tenant: &str, name: &str) -> Result<()> {
        self.making_room(|| {
            self.change_catalog(|transaction| {
                let collections = catalog::delete_database(transaction, tenant, name)?;
                collections.iter().try_for_each(|number| self.mark_deleted(transaction, *number))
            })
        })
    }

    fn create_collection(&self, new: NewCollection) -> Result<CollectionRow> {
        self.change_catalog(|transaction| catalog::create_collection(transaction, &new))
    }

    fn fork_collection(&self, source: Uuid, name: &str) -> Result<CollectionRow> {
        self.fork(source, name)
    }

    fn count_family(&self, family: Uuid) -> Result<u64> {
        self.reader()?.query_rows("count forks", |connection| catalog::count_family(connection, family))
    }

    fn held_by_forks(&self) -> Result<Vec<HeldByForks>> {
        if !self.has_forks.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        self.cold_read("look for what forks hold", layer_upkeep::held_by_forks)
    }

    fn collection(&self, tenant: &str, database: &str, name: &str) -> Result<Option<CollectionRow>> {
        self.reader()?
            .query_rows("read collection", |connection| catalog::collection(connection, tenant, database, name))
    }

    fn collection_by_id(&self, id: Uuid) -> Result<Option<CollectionRow>> {
        self.reader()?.query_rows("read collection", |connection| catalog::collection_by_id(connection, id))
    }

    fn collections(&self, tenant: &str, database: &str, page: Page) -> Result<Vec<CollectionRow>> {
        self.reader()?
            .query_rows("list collections", |connection| catalog::collections(connection, tenant, database, page))
    }

    fn all_collections(&self) -> Result<Vec<CollectionRow>> {
        self.cold_read("list collections", catalog::all_collections)
    }

    fn position(&self) -> Result<u64> {
        self.reader()?.query_rows("read position", backup::position)
    }

    fn count_collections(&self, tenant: &str, database: &str) -> Result<u64> {
        self.reader()?
            .query_rows("count collections", |connection| catalog::count_collections(connection, tenant, database))
    }

    fn alter_collection(&self, id: Uuid, alteration: Alteration) -> Result<CollectionRow> {
        self.change_catalog(|transaction| catalog::alter_collection(transaction, id, &alteration))
    }

    fn delete_collection(&self, id: Uuid) -> Result<()> {
        self.making_room(|| {
            self.change_catalog(|transaction| {
                let number = catalog::delete_collection(transaction, id)?;
                self.mark_deleted(transaction, number)
            })
        })
    }

    fn reset(&self) -> Result<()> {
        let epoch = self.change_catalog(|transaction| {
            let (collections, epoch) = catalog::reset(transaction)?;
            collections.iter().try_for_each(|number| self.mark_deleted(transaction, *number))?;
            Ok(epoch)
        })?;
        self.adopt_epoch(epoch);
        Ok(())
    }

    fn database_id(&self) -> Result<u64> {
        let reader = self.reader()?;
        reader.query_rows("read the database's id", |connection| {
            read_meta(connection, "database_id").map(i64::cast_unsigned)
        })
    }

    fn epoch(&self) -> u64 {
        *self.epoch.read()
    }

    fn preview(&self, write: &Write) -> Result<()> {
        self.reader()?.preview(write)
    }

    fn commit(&self, write: Write) -> Result<Outcome> {
        if write.operation.adds() {
            self.commit_in_group(write)
        } else {
            self.making_room(|| self.commit_in_group(write.clone()))
        }
    }

    fn read(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self.reader()?))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        *self.observer.write() = Some(observer);
    }

    fn upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        let done = match upkeep {
            // It gives nothing back before it takes.
            Upkeep::MergeLayers => self.run_upkeep(upkeep),
            _ => self.making_room(|| self.run_upkeep(upkeep)),
        };
        if matches!(upkeep, Upkeep::Checkpoint { .. }) {
            self.reserve.renew(self.free_bytes());
        }
        done
    }

    fn statistics(&self) -> Result<Statistics> {
        self.measure()
    }

    fn debt(&self) -> Result<Debt> {
        self.measure_debt()
    }

    fn retain_log(&self, holder: &str, positions: &[(CollectionNumber, u64)]) -> Result<()> {
        self.set_log_holds(holder, positions)
    }

    fn retain_log_for_snapshot(&self, collection: CollectionNumber, position: Option<u64>) -> Result<()> {
        self.set_snapshot_hold(collection, position)
    }

    fn copy_whole(&self, folder: &Path) -> Result<Copy> {
        self.copy_whole_into(folder)
    }

    fn copy_changes(&self, before: &Copy, folder: &Path) -> Result<Copy> {
        self.copy_changes_into(before, folder)
    }

    fn scrub(&self, pace: &mut dyn FnMut(&str, u64) -> bool) -> Result<Option<Report>> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut report = Report::default();
        // A connection of its own: the pool's are for requests.
        let connection = connect(&self.path, self.vfs.as_deref())?;
        let checked = check_pages(&connection, &mut report, pace).and_then(|is_whole| {
            connection.execute_batch("BEGIN")?;
            Ok(is_whole && check_database(&connection, directory, &mut report, pace)?)
        });
        match checked {
            Ok(is_whole) => Ok(is_whole.then_some(report)),
            Err(error) => match self.error("check")(error) {
                Error::Corrupt { reason, .. } => {
                    report.find(DATABASE_FILE, reason);
                    Ok(Some(report))
                }
                error => Err(error),
            },
        }
    }

    fn waited_for_upkeep(&self) -> Duration {
        self.wait.total()
    }

    fn drop_pages(&self) {
        self.drop_mapped_pages();
    }

    fn extend(&self, name: &str, migrations: &[&str]) -> Result<()> {
        self.change_catalog(|transaction| {
            extension::migrate(transaction, name, migrations)?;
            Ok::<_, Failure>(())
        })
    }

    fn change_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.change_catalog(|transaction| {
            work(transaction)?;
            Ok::<_, Failure>(catalog::log(transaction, "change_tables", "")?)
        })
    }

    fn touch_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.change_catalog(|transaction| Ok::<_, Failure>(work(transaction)?))
    }

    fn read_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.reader()?.query_rows("read tables of extensions", |connection| work(connection))
    }
}
