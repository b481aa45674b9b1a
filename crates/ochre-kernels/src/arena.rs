//! An append-only array of fixed capacity: one writer at a time appends, any number of readers look at
//! what was published, without locks.
//!
//! Invariants:
//! - Elements below the published length are never written again until the drop.
//! - The length is published (release) after the elements it covers; readers load it (acquire) first.
//! - The slab never moves, so a published slice stays valid as long as the arena is borrowed.
#![expect(unsafe_code, reason = "shares initialised elements with readers while the writer appends behind them")]

use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;

use crate::slab::{ALIGN, Slab};

/// A growing array whose published elements are shared with readers while it is appended to.
///
/// `T: Pod` because its memory may be that of a file: any bytes are an element, and elements have no gaps.
pub struct Arena<T: Pod> {
    slab: Slab,
    capacity: usize,
    published: AtomicUsize,
    writer: Mutex<()>,
    elements: PhantomData<T>,
}

impl<T: Pod> Arena<T> {
    /// An empty arena that can hold `capacity` elements. Memory is reserved, not touched.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::new(Slab::zeroed(capacity * size_of::<T>()), capacity, 0)
    }

    /// An arena in a slab whose first `len` elements are published; `None` if it has fewer.
    pub fn over(slab: Slab, len: usize) -> Option<Self> {
        let capacity = slab.bytes() / size_of::<T>();
        (len <= capacity).then(|| Self::new(slab, capacity, len))
    }

    fn new(slab: Slab, capacity: usize, len: usize) -> Self {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= ALIGN, "slabs are aligned for it") };
        Self { slab, capacity, published: AtomicUsize::new(len), writer: Mutex::new(()), elements: PhantomData }
    }

    /// How many elements fit, in elements.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many elements are published.
    pub fn len(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// Whether nothing is published yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes, published or not.
    pub fn bytes(&self) -> usize {
        self.slab.bytes()
    }

    /// As [`Slab::file_bytes`].
    pub fn file_bytes(&self) -> usize {
        self.slab.file_bytes()
    }

    /// As [`Slab::drop_pages`].
    pub fn drop_pages(&self) {
        self.slab.drop_pages();
    }

    /// What is published so far.
    pub fn as_slice(&self) -> &[T] {
        let len = self.len();
        // SAFETY: the slab is aligned, has room for `capacity >= len` elements and is initialised, any bytes are a
        // `T`, and published elements are never written again (see the header).
        unsafe { std::slice::from_raw_parts(self.slab.start().cast::<T>(), len) }
    }

    /// Appends all of `items` and publishes them together; `false`, and nothing appended, if they do
    /// not fit.
    #[must_use]
    pub fn append(&self, items: &[T]) -> bool {
        let _writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = self.published.load(Ordering::Relaxed);
        if self.capacity - start < items.len() {
            return false;
        }
        // SAFETY: there is room, nobody reads unpublished elements, the mutex keeps other writers out, and `items`
        // cannot lie in memory that only this arena reaches and has not published.
        unsafe { self.slab.start().cast::<T>().add(start).copy_from_nonoverlapping(items.as_ptr(), items.len()) };
        self.published.store(start + items.len(), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_whole_batches_in_order_while_a_writer_appends() {
        let arena = Arena::<u64>::with_capacity(40_000);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while arena.len() < 40_000 {
                        let seen = arena.as_slice();
                        assert_eq!(seen.len() % 4, 0, "a batch is published whole");
                        assert!(seen.iter().enumerate().all(|(i, x)| *x == i as u64));
                    }
                });
            }
            for i in (0..40_000u64).step_by(4) {
                assert!(arena.append(&[i, i + 1, i + 2, i + 3]));
            }
        });
        assert!(!arena.append(&[0]), "a full arena refuses");
        assert_eq!(arena.len(), arena.capacity());
    }

    #[test]
    fn what_does_not_fit_is_not_appended_in_part() {
        let arena = Arena::<i32>::with_capacity(3);
        assert!(arena.append(&[1, 2]));
        assert!(!arena.append(&[3, 4]));
        assert_eq!(arena.as_slice(), [1, 2]);
    }
}
