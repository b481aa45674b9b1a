//! Access to the tables of jobs, `jobs` and `job_runs`, beside everything else. What their rows mean is their owner's.

use rusqlite::Connection;

use super::connection::Failure;
use super::store::SqliteStore;
use crate::error::Result;

impl SqliteStore {
    /// Reads the tables of jobs in one state.
    ///
    /// # Errors
    /// [`Error`](crate::Error) of the database.
    pub fn read_jobs<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.reader()?.query_rows("read jobs", read)
    }

    /// Changes the tables of jobs in one transaction, where the disk is full by what the store keeps for that.
    ///
    /// # Errors
    /// [`Error`](crate::Error) of the database: nothing was changed.
    pub fn change_jobs<T>(&self, change: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.making_room(|| self.change_catalog(|connection| change(connection).map_err(Failure::from)))
    }
}
