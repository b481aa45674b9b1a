//! Lists of links in flat memory: rows of whole cache lines, ended by [`NONE`] where they are not full.
//!
//! Readers look at a list while its writer changes it. Every slot holds a valid link or [`NONE`] at any
//! time, so a reader sees some of the old links and some of the new ones. Writers of one list take turns.

use std::sync::atomic::{AtomicU32, Ordering};

use ochre_kernels::prefetch;

/// No link: the end of a list.
const NONE: u32 = u32::MAX;
/// Links in a cache line.
const LINE: usize = 16;

#[repr(align(64))]
struct Line([AtomicU32; LINE]);

/// Lists of up to `length` links each, by number.
pub(super) struct Links {
    length: usize,
    lines: Box<[Line]>,
}

impl Links {
    pub(super) fn new(count: usize, length: usize) -> Self {
        let empty = || Line(std::array::from_fn(|_| AtomicU32::new(NONE)));
        Self { length, lines: (0..count * length.div_ceil(LINE)).map(|_| empty()).collect() }
    }

    /// Copies the lists of a smaller table with lists of the same length.
    pub(super) fn copy_from(&self, from: &Self) {
        for (to, from) in self.lines.iter().zip(&from.lines) {
            for (to, from) in to.0.iter().zip(&from.0) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// Links a list has room for.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn list(&self, list: usize) -> &[Line] {
        let lines = self.length.div_ceil(LINE);
        &self.lines[list * lines..(list + 1) * lines]
    }

    /// The links of a list.
    pub(super) fn get(&self, list: usize) -> impl Iterator<Item = u32> {
        // Acquire: whoever sees a link sees the codes of the node it leads to.
        let slots = self.list(list).iter().flat_map(|line| &line.0).take(self.length);
        slots.map(|slot| slot.load(Ordering::Acquire)).take_while(|link| *link != NONE)
    }

    /// Replaces a list; what does not fit is left out. One writer of a list at a time.
    pub(super) fn set(&self, list: usize, links: impl IntoIterator<Item = u32>) {
        let slots = self.list(list).iter().flat_map(|line| &line.0).take(self.length);
        let links = links.into_iter().chain(std::iter::repeat(NONE));
        slots.zip(links).for_each(|(slot, link)| slot.store(link, Ordering::Release));
    }

    /// Asks the processor for a list that will be read soon.
    pub(super) fn prefetch(&self, list: usize) {
        let lines = self.length.div_ceil(LINE);
        (0..lines).for_each(|line| prefetch(&self.lines, list * lines + line));
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }
}
