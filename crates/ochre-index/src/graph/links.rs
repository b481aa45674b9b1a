//! Lists of links in flat memory: rows of whole cache lines, ended by [`NONE`] where they are not full.
//!
//! Readers look at a list while its writer changes it. Every slot holds a valid link or [`NONE`] at any
//! time, so a reader sees some of the old links and some of the new ones. Writers of one list take turns.

use std::sync::atomic::{AtomicU32, Ordering};

use ochre_kernels::{Slab, prefetch};

/// Slots in a cache line.
const LINE: usize = 16;
/// No link: the end of a list. Slots hold a link's number plus one, so memory full of zeros is empty lists.
const NONE: u32 = 0;
/// The bit of a slot that says that its link leads to a duplicate.
const DUPLICATE: u32 = 1 << 31;

/// An entry of a list: a neighbour, or a node with the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) node: u32,
    pub(super) is_duplicate: bool,
}

impl Link {
    pub(super) fn neighbour(node: u32) -> Self {
        Self { node, is_duplicate: false }
    }

    pub(super) fn duplicate(node: u32) -> Self {
        Self { node, is_duplicate: true }
    }

    fn of_slot(slot: u32) -> Self {
        Self { node: (slot & !DUPLICATE).wrapping_sub(1), is_duplicate: slot & DUPLICATE != 0 }
    }

    fn to_slot(self) -> u32 {
        (self.node + 1) | if self.is_duplicate { DUPLICATE } else { 0 }
    }
}

/// Lists of up to `length` links each, by number.
pub(super) struct Links {
    length: usize,
    slab: Slab,
}

impl Links {
    /// Bytes of so many lists of so many links.
    pub(super) fn bytes(count: usize, length: usize) -> usize {
        count * Self::slots(length) * size_of::<AtomicU32>()
    }

    /// Lists in memory of this many bytes.
    pub(super) fn over(slab: Slab, length: usize) -> Self {
        Self { length, slab }
    }

    /// Slots of a list of so many links: whole cache lines.
    fn slots(length: usize) -> usize {
        length.next_multiple_of(LINE)
    }

    /// Links a list has room for.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The slots of a list; none if there is no such list.
    fn list(&self, list: usize) -> &[AtomicU32] {
        let first = list * Self::slots(self.length);
        self.slab.atomics().get(first..first + self.length).unwrap_or_default()
    }

    /// The entries of a list.
    pub(super) fn get(&self, list: usize) -> impl Iterator<Item = Link> {
        // Acquire: whoever sees a link sees the codes of the node it leads to.
        let slots = self.list(list).iter().map(|slot| slot.load(Ordering::Acquire));
        slots.take_while(|slot| *slot & !DUPLICATE != NONE).map(Link::of_slot)
    }

    /// Visits the neighbours in a list, below `nodes`, and puts duplicates into `duplicates`. As [`Links::get`], for
    /// searches: whatever is no neighbour is told by one comparison.
    #[inline]
    pub(super) fn visit(&self, list: usize, nodes: u32, duplicates: &mut Vec<u32>, mut neighbour: impl FnMut(u32)) {
        for slot in self.list(list) {
            let slot = slot.load(Ordering::Acquire);
            let node = slot.wrapping_sub(1);
            if node < nodes {
                neighbour(node);
            } else if slot & DUPLICATE != 0 && Link::of_slot(slot).node < nodes {
                duplicates.push(Link::of_slot(slot).node);
            } else {
                break;
            }
        }
    }

    /// Replaces a list; what does not fit is left out. One writer of a list at a time.
    pub(super) fn set(&self, list: usize, links: impl IntoIterator<Item = Link>) {
        let links = links.into_iter().map(Link::to_slot).chain(std::iter::repeat(NONE));
        self.list(list).iter().zip(links).for_each(|(slot, link)| slot.store(link, Ordering::Release));
    }

    /// The node that an entry of a list leads to; `None` behind the last.
    pub(super) fn nth(&self, list: usize, index: usize) -> Option<u32> {
        (self.list(list).get(index)?.load(Ordering::Acquire) & !DUPLICATE).checked_sub(1)
    }

    /// The slots of a list as a file has them, with those links only that have a number there.
    pub(super) fn row(&self, list: usize, renamed: impl Fn(u32) -> Option<u32>, out: &mut Vec<u8>) {
        let end = out.len() + Self::slots(self.length) * 4;
        let links = self.get(list).filter_map(|link| Some(Link { node: renamed(link.node)?, ..link }));
        links.for_each(|link| out.extend_from_slice(&link.to_slot().to_le_bytes()));
        out.resize(end, 0);
    }

    /// Asks the processor for a list that will be read soon.
    pub(super) fn prefetch(&self, list: usize) {
        let slots = Self::slots(self.length);
        (0..slots).step_by(LINE).for_each(|slot| prefetch(self.slab.atomics(), list * slots + slot));
    }

    /// Bytes that it takes, and how many of them are pages of a file.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.slab.bytes(), self.slab.file_bytes())
    }
}
