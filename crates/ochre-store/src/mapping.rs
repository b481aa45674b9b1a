//! Files that never change, in memory: the store's only `unsafe`.
#![expect(unsafe_code, reason = "mapping a file is unsafe by nature; the invariants below carry it")]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// Bytes that are shared and never change.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A file of the cache folder: mapped, or read into memory where mapping is not wanted. Such files are
/// renamed into place when they are whole, and never written again.
///
/// # Errors
/// Whatever the operating system says.
pub fn read_shared(path: &Path, map: bool) -> io::Result<SharedBytes> {
    if map { Ok(Arc::new(Mapping::new(&File::open(path)?)?)) } else { Ok(Arc::new(std::fs::read(path)?)) }
}

/// A read-only mapping of a whole file that never changes.
///
/// Sound because such a file is never written, cut or reused again: new files take its place, and it is
/// unlinked, which leaves existing mappings whole. The directory lock keeps other ochre
/// processes out. Where the operating system itself may take pages away (network file systems), open
/// the database without mapping.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: see the type.
        unsafe { Mmap::map(file) }.map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lets go of the pages in memory; they are read from the file again where they are needed.
    pub(crate) fn drop_pages(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is shared, read-only and of a file that never changes, so the pages that
            // come back hold the same bytes.
            let advised = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Refused, the pages stay: that costs memory and nothing else.
            drop(advised);
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
