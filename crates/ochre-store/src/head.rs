//! The head file: how far the catalog had come, kept outside the file that can be lost or put back from elsewhere.
//!
//! It is written after each transaction and before its answer, without a sync of its own unless the epoch changed
//! (`docs/formats/database.md`). So after a power failure it may lag behind the catalog; it never leads, and a catalog
//! that is behind it has lost what was acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};

/// The file's name within the database directory.
pub(crate) const HEAD_FILE: &str = "head";
const MAGIC: [u8; 8] = *b"OCHRHEAD";
const VERSION: u32 = 1;
/// A head takes this many bytes; two lie one after the other, written in turn, so that one is whole at any moment.
const SLOT_BYTES: usize = 512;
const CHECKSUM_AT: usize = 48;

/// Where the database stood after a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseHead {
    /// The database's epoch.
    pub(crate) epoch: u64,
    /// How many transactions were committed in the database's life.
    pub(crate) transactions: u64,
    /// The id that the next new vector gets.
    pub(crate) next_vector_id: u64,
}

impl DatabaseHead {
    fn to_slot(self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        slot[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        slot[24..32].copy_from_slice(&self.transactions.to_le_bytes());
        slot[32..40].copy_from_slice(&self.next_vector_id.to_le_bytes());
        let checksum = crc32c::crc32c(&slot[..CHECKSUM_AT]);
        slot[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    fn from_slot(slot: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
        let checksum = u32::from_le_bytes(slot.get(CHECKSUM_AT..CHECKSUM_AT + 4)?.try_into().ok()?);
        let is_sound = slot[..8] == MAGIC && crc32c::crc32c(&slot[..CHECKSUM_AT]) == checksum;
        is_sound.then_some(())?;
        Some(Self { epoch: number(16)?, transactions: number(24)?, next_vector_id: number(32)? })
    }
}

/// What the head file of a directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is none, as in databases that were written before there were heads.
    Missing,
    /// There is one that says nothing: it was damaged.
    Damaged,
    Head(DatabaseHead),
}

/// Reads the head of a database directory.
///
/// # Errors
/// [`Error::Io`] if it is there and cannot be read.
pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Found> {
    let path = directory.join(HEAD_FILE);
    let io = |error: &std::io::Error| Error::io("read", &path, error);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(io(&error)),
    };
    let len = usize::try_from(file.size().map_err(|error| io(&error))?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(2 * SLOT_BYTES)];
    file.read_at(&mut bytes, 0).map_err(|error| io(&error))?;
    // A crash right after it was made leaves it empty.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Found::Missing);
    }
    let heads = bytes.chunks(SLOT_BYTES).filter_map(DatabaseHead::from_slot);
    Ok(heads.max_by_key(|head| head.transactions).map_or(Found::Damaged, Found::Head))
}

/// The head file, open for writing.
pub(crate) struct HeadFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl HeadFile {
    /// Opens the head file, or makes it, and writes where the database stands now into both of its places.
    pub(crate) fn begin(disk: &Arc<dyn Disk>, directory: &Path, head: DatabaseHead) -> Result<Self> {
        let path = directory.join(HEAD_FILE);
        let io = |error: std::io::Error| Error::io("write", &path, &error);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(&path),
            opened => opened,
        };
        let file = file.map_err(io)?;
        let slot = head.to_slot();
        file.write_at(&[slot, slot].concat(), 0).map_err(io)?;
        file.sync().map_err(io)?;
        disk.sync_dir(directory).map_err(io)?;
        Ok(Self { path, file })
    }

    /// Syncs the file: an epoch that is more than one behind that of the catalog would be of another history.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|error| Error::io("sync", &self.path, &error))
    }

    /// Notes where the database stands, after a transaction was committed.
    ///
    /// A failure is no failure of the transaction: the head lags, and a loss of what came after it is not noticed.
    pub(crate) fn write(&self, head: DatabaseHead) -> Result<()> {
        let place = (head.transactions % 2) * SLOT_BYTES as u64;
        self.file.write_at(&head.to_slot(), place).map_err(|error| Error::io("write", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn one_of_two_heads_is_whole_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let read = || read(&RealDisk, folder.path()).unwrap();
        assert_eq!(read(), Found::Missing);
        let at = |transactions| DatabaseHead { epoch: 7, transactions, next_vector_id: transactions * 2 };
        let file = HeadFile::begin(&disk, folder.path(), at(4)).unwrap();
        assert_eq!(read(), Found::Head(at(4)));
        file.write(at(5)).unwrap();
        assert_eq!(read(), Found::Head(at(5)));
        file.write(at(6)).unwrap();
        let path = folder.path().join(HEAD_FILE);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let found = read();
            assert!([Found::Head(at(6)), Found::Head(at(5))].contains(&found), "bit {bit}: {found:?}");
            std::fs::write(&path, &bytes[..bit / 8]).unwrap();
            assert!(matches!(read(), Found::Head(_) | Found::Damaged | Found::Missing));
        }
        std::fs::write(&path, vec![1; 1024]).unwrap();
        assert_eq!(read(), Found::Damaged);
    }
}
