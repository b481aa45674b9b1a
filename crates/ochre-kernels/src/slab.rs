//! The memory that graphs lie in: pieces of zeroed heap, or of a file that is mapped privately, so that what is
//! written stays in this process and what is not is read from the file when it is needed.
//!
//! Invariants:
//! - A slab's bytes belong to it alone: a region hands out disjoint ones, in order, and keeps nothing.
//! - Slabs begin at a multiple of [`ALIGN`] and never move.
//! - Whoever has a slab reaches its bytes through atomics, or as an [`Arena`](crate::Arena) does.
#![expect(unsafe_code, reason = "owns memory that is shared and written at the same time, by atomics or in turns")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapMut, MmapOptions};

/// Slabs begin at a multiple of this, a cache line.
pub(crate) const ALIGN: usize = 64;
/// Slabs of the heap from this size on are pages of their own, which go back to the system with them.
const PAGES_MIN: usize = 1 << 20;
/// From this size on they are large pages where the system has such: fewer addresses to look up.
const LARGE_PAGES_MIN: usize = 8 << 20;

/// What slabs are pieces of.
enum Memory {
    /// A little more than a slab, so that an aligned one fits.
    Small { _words: Vec<u64> },
    /// Anonymous pages, or a private mapping of a file.
    Pages { map: MmapMut, is_file: bool },
}

/// Memory that is handed out in pieces, one after the other.
pub struct Region {
    memory: Arc<Memory>,
    start: NonNull<u8>,
    bytes: usize,
}

/// A piece of memory that nobody else reaches.
pub struct Slab {
    memory: Arc<Memory>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a slab owns its bytes; sharing it gives access by atomics only, or through `Arena`, which has its own
// rules. A region gives no access to its bytes at all.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}
// SAFETY: as above.
unsafe impl Send for Region {}

impl Region {
    /// Maps a whole file. What is written into its slabs is never written to the file. With `in_large_pages` it is read
    /// and mapped in pages of megabytes, if the file system can and the file is large: much faster to look up, but more
    /// at once than may be wanted where memory is short.
    ///
    /// The file must never change: it is renamed into place when it is whole, and only ever unlinked.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn map(file: &File, in_large_pages: bool) -> io::Result<Self> {
        // SAFETY: the file does not change, by the contract above, so neither do pages that were not written.
        let map = unsafe { MmapOptions::new().map_copy(file) }?;
        if in_large_pages {
            ask_for_large_pages(&map);
        }
        Ok(Self::of_pages(map, true))
    }

    /// Memory with so many bytes read from somewhere, for those who do not map files.
    ///
    /// # Errors
    /// Whatever reading fails with.
    pub fn read(from: &mut dyn io::Read, bytes: usize) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(bytes.max(1))?;
        from.read_exact(&mut map[..bytes])?;
        Ok(Self::of_pages(map, false))
    }

    fn of_pages(mut map: MmapMut, is_file: bool) -> Self {
        let (start, bytes) = (NonNull::from(&mut map[..]).cast::<u8>(), map.len());
        // Pages do not move with the handle that owns them.
        Self { memory: Arc::new(Memory::Pages { map, is_file }), start, bytes }
    }

    /// The next piece, beginning at a cache line; `None` if less is left.
    pub fn take(&mut self, bytes: usize) -> Option<Slab> {
        let taken = bytes.checked_next_multiple_of(ALIGN)?;
        let rest = self.bytes.checked_sub(taken)?;
        let slab = Slab { memory: Arc::clone(&self.memory), start: self.start, bytes };
        // SAFETY: within the memory, or just behind it if nothing is left.
        (self.start, self.bytes) = (unsafe { self.start.add(taken) }, rest);
        Some(slab)
    }
}

impl Slab {
    /// Zeroed heap. What is not written takes no memory if it is large.
    pub fn zeroed(bytes: usize) -> Self {
        if bytes >= PAGES_MIN
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            ask_for_large_pages(&map);
            let Region { memory, start, .. } = Region::of_pages(map, false);
            return Self { memory, start, bytes };
        }
        let mut words = vec![0u64; bytes.div_ceil(8) + ALIGN / 8];
        let start = NonNull::from(&mut words[..]).cast::<u8>();
        let skipped = start.align_offset(ALIGN);
        // SAFETY: room for this was added above.
        let start = unsafe { start.add(skipped) };
        // The words do not move with the vector that owns them.
        Self { memory: Arc::new(Memory::Small { _words: words }), start, bytes }
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are pages of a file, as long as they were not written.
    pub fn file_bytes(&self) -> usize {
        if matches!(&*self.memory, Memory::Pages { is_file: true, .. }) { self.bytes } else { 0 }
    }

    /// Its bytes as numbers that anybody may read and write.
    pub fn atomics(&self) -> &[AtomicU32] {
        // SAFETY: the bytes are initialised, aligned, live as long as the slab, and reached in no other way.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<AtomicU32>()) }
    }

    /// Lets go of the pages of the file that this is a piece of, all of them: they are read again where they are
    /// needed. What was written stays.
    pub fn drop_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Memory::Pages { map, is_file: true } = &*self.memory {
            /// `MADV_PAGEOUT`, Linux 5.4 and later; changes no byte.
            const PAGE_OUT: i32 = 21;
            unsafe extern "C" {
                fn madvise(start: *mut u8, bytes: usize, advice: i32) -> i32;
            }
            // SAFETY: the C library's function of this name and type; the range is that of a mapping, of which it
            // takes pages away that come back as they were.
            // Refused, the pages stay: that costs memory and nothing else.
            unsafe { madvise(map.as_ptr().cast_mut(), map.len(), PAGE_OUT) };
        }
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// Refused, pages are small: slower and nothing else.
fn ask_for_large_pages(map: &MmapMut) {
    #[cfg(target_os = "linux")]
    if map.len() >= LARGE_PAGES_MIN {
        let _ = map.advise(Advice::HugePage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::Arena;

    #[test]
    fn heap_is_zeroed_and_aligned_whatever_its_size() {
        for bytes in [0, 1, 64, 1000, PAGES_MIN, LARGE_PAGES_MIN + 12] {
            let slab = Slab::zeroed(bytes);
            assert_eq!(slab.start() as usize % ALIGN, 0);
            assert_eq!((slab.bytes(), slab.file_bytes()), (bytes, 0));
            assert!(slab.atomics().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        }
    }

    #[test]
    fn a_mapped_file_is_read_and_never_written() {
        let path = std::env::temp_dir().join(format!("ochre-slab-{}", std::process::id()));
        let numbers: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        File::create(&path).unwrap().write_all(&numbers).unwrap();
        let mut region = Region::map(&File::open(&path).unwrap(), true).unwrap();
        let (first, second) = (region.take(100).unwrap(), region.take(80_000).unwrap());
        assert!(region.take(100_000).is_none(), "more than is left");
        assert_eq!(first.atomics().len(), 25);
        let number = |slab: &Slab, index: usize| u32::from_le(slab.atomics()[index].load(Ordering::Relaxed));
        assert_eq!((number(&first, 24), number(&second, 0)), (24, 32), "pieces begin at cache lines");
        second.atomics()[1].store(7, Ordering::Relaxed);
        let arena = Arena::<u32>::over(second, 2).unwrap();
        assert!(arena.append(&[9]));
        assert_eq!((arena.len(), arena.as_slice()[1], arena.as_slice()[2]), (3, 7, 9));
        arena.drop_pages();
        assert_eq!(arena.as_slice()[1..], [7, 9], "what was written stays");
        assert_eq!(number(&first, 1), 1, "and the rest comes back");
        assert!(std::fs::read(&path).unwrap() == numbers, "the file is as it was");
        std::fs::remove_file(&path).unwrap();
    }
}
