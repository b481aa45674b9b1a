//! An append-only array of fixed capacity: one writer at a time appends, any number of readers look at
//! what was published, without locks.
//!
//! Invariants:
//! - Elements below the published length are initialised and never written again until the drop.
//! - The length is published (release) after the elements it covers; readers load it (acquire) first.
//! - The allocation never moves, so a published slice stays valid as long as the arena is borrowed.
#![expect(unsafe_code, reason = "shares initialised elements with readers while the writer appends behind them")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A growing array whose published elements are shared with readers while it is appended to.
///
/// `T: Copy` because elements are never dropped one by one.
pub struct Arena<T: Copy> {
    elements: Box<[UnsafeCell<MaybeUninit<T>>]>,
    published: AtomicUsize,
    writer: Mutex<()>,
}

// SAFETY: readers only reach published elements, which nobody writes any more; the writer only touches
// unpublished ones, under the mutex. Sending needs nothing beyond `T: Send`.
unsafe impl<T: Copy + Send + Sync> Sync for Arena<T> {}

impl<T: Copy> Arena<T> {
    /// An empty arena that can hold `capacity` elements. Memory is reserved, not touched.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut elements = Vec::with_capacity(capacity);
        // SAFETY: the capacity was just reserved, and `UnsafeCell<MaybeUninit<T>>` needs no initialisation.
        unsafe { elements.set_len(capacity) };
        Self { elements: elements.into_boxed_slice(), published: AtomicUsize::new(0), writer: Mutex::new(()) }
    }

    /// How many elements fit, in elements.
    pub fn capacity(&self) -> usize {
        self.elements.len()
    }

    /// How many elements are published.
    pub fn len(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// Whether nothing is published yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is published so far.
    pub fn as_slice(&self) -> &[T] {
        let len = self.len();
        // SAFETY: elements below `len` are initialised and never written again (see the header);
        // `UnsafeCell<MaybeUninit<T>>` has the layout of `T`.
        unsafe { std::slice::from_raw_parts(self.elements.as_ptr().cast::<T>(), len) }
    }

    /// Appends all of `items` and publishes them together; `false`, and nothing appended, if they do
    /// not fit.
    #[must_use]
    pub fn append(&self, items: &[T]) -> bool {
        let _writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = self.published.load(Ordering::Relaxed);
        if self.elements.len() - start < items.len() {
            return false;
        }
        for (cell, item) in self.elements[start..].iter().zip(items) {
            // SAFETY: unpublished, so no reader looks here; the mutex keeps other writers out.
            unsafe { (*cell.get()).write(*item) };
        }
        self.published.store(start + items.len(), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_whole_batches_in_order_while_a_writer_appends() {
        let arena = Arena::with_capacity(40_000);
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
        let arena = Arena::with_capacity(3);
        assert!(arena.append(&[1, 2]));
        assert!(!arena.append(&[3, 4]));
        assert_eq!(arena.as_slice(), [1, 2]);
    }
}
