//! Space kept aside, so that a full disk is no dead end: deleting, and giving space back, need some themselves.
//!
//! A file of a MiB lies in the database directory. Where a change that makes room finds the disk full, the file goes
//! and the change is tried again; once there is space, it is made again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// The file's name within the database directory.
pub(crate) const RESERVE_FILE: &str = "reserve";
/// How much is kept aside, in bytes: enough for the log of a step that removes some records.
const RESERVE_BYTES: u64 = 1 << 20;
/// The reserve is made where so many times as much is free.
const FREE_TIMES_MIN: u64 = 16;
/// With less free than this, in bytes, a database is opened without it.
const FREE_TO_OPEN_MIN: u64 = 256 << 10;

/// Space kept aside in a directory.
pub(crate) struct Reserve {
    path: PathBuf,
    is_there: Mutex<bool>,
}

impl Reserve {
    /// What is kept aside in this directory; given up at once if the disk is too full to open the database.
    pub(crate) fn open(directory: &Path, free_bytes: Option<u64>) -> Self {
        let path = directory.join(RESERVE_FILE);
        let is_there = path.metadata().is_ok_and(|file| file.len() >= RESERVE_BYTES);
        let reserve = Self { path, is_there: Mutex::new(is_there) };
        if free_bytes.is_some_and(|free| free < FREE_TO_OPEN_MIN) {
            reserve.release();
        }
        reserve
    }

    /// Gives the space to whoever needs it now; whether there was any.
    pub(crate) fn release(&self) -> bool {
        let mut is_there = self.is_there.lock();
        std::mem::take(&mut *is_there) && std::fs::remove_file(&self.path).is_ok()
    }

    /// Whether space is kept aside.
    pub(crate) fn is_there(&self) -> bool {
        *self.is_there.lock()
    }

    /// Keeps space aside again, if much more is free.
    pub(crate) fn renew(&self, free_bytes: Option<u64>) {
        let mut is_there = self.is_there.lock();
        if *is_there || free_bytes.is_none_or(|free| free < FREE_TIMES_MIN * RESERVE_BYTES) {
            return;
        }
        let made = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path).and_then(fill);
        *is_there = made.is_ok();
        if !*is_there {
            // Half of it would only take space.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes what only has to be there; a file with a hole would keep nothing.
fn fill(mut file: File) -> std::io::Result<()> {
    // Not zeros, which some file systems do not store.
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for _ in 0..RESERVE_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_comes_and_goes_with_the_space_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RESERVE_FILE);
        let reserve = Reserve::open(folder.path(), Some(1 << 40));
        assert!(!reserve.release(), "none yet");
        reserve.renew(Some(1 << 20));
        assert!(!path.exists(), "there is too little to keep some aside");
        reserve.renew(Some(1 << 40));
        assert_eq!(path.metadata().unwrap().len(), RESERVE_BYTES);
        assert!(reserve.release() && !path.exists() && !reserve.release());
        reserve.renew(Some(1 << 40));
        let full = Reserve::open(folder.path(), Some(100));
        assert!(!path.exists() && !full.release(), "it was given up to open the database");
    }
}
