//! Sealed segment files in memory: the store's only `unsafe`.
#![expect(unsafe_code, reason = "mapping a file is unsafe by nature; the invariants below carry it")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// A read-only mapping of a whole sealed segment.
///
/// Sound because a sealed segment is never written, cut or reused again: compaction writes new files
/// and unlinks old ones, which leaves existing mappings whole. The directory lock keeps other ochre
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
}
