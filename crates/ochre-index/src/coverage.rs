//! Immutable segments over some of a collection's records, beside records that change: which records a segment
//! still shows as they are, and which none does.
//!
//! Invariants:
//! - No offset is current in two segments.
//! - What changes while a segment is being made is noted, and is not current in it.

use std::sync::Arc;

use crate::bitmap::Bitmap;

/// A segment, as far as its coverage goes.
pub(crate) trait Segment {
    /// The position that its records were read at.
    fn position(&self) -> u64;
    /// The offsets of its records.
    fn covered(&self) -> Bitmap;
}

/// Segments, each with the offsets that it shows as they are now.
pub(crate) struct Coverage<S> {
    segments: Vec<(Arc<S>, Bitmap)>,
    /// All of those offsets.
    covered: Bitmap,
    /// What changed since [`Coverage::begin`].
    changed: Bitmap,
    /// Who began to note it.
    token: u64,
}

impl<S> Default for Coverage<S> {
    fn default() -> Self {
        Self { segments: Vec::new(), covered: Bitmap::new(), changed: Bitmap::new(), token: 0 }
    }
}

impl<S> Clone for Coverage<S> {
    fn clone(&self) -> Self {
        Self {
            segments: self.segments.clone(),
            covered: self.covered.clone(),
            changed: self.changed.clone(),
            token: self.token,
        }
    }
}

impl<S: Segment> Coverage<S> {
    pub(crate) fn segments(&self) -> &[(Arc<S>, Bitmap)] {
        &self.segments
    }

    /// What segments show as it is.
    pub(crate) fn covered(&self) -> &Bitmap {
        &self.covered
    }

    /// A record changed: no segment shows it as it is.
    pub(crate) fn change(&mut self, offset: u32) {
        if self.covered.remove(offset) {
            for (_, current) in &mut self.segments {
                current.remove(offset);
            }
        }
        if self.token != 0 {
            self.changed.insert(offset);
        }
    }

    /// Begins to note what changes, until [`Coverage::replace`] with the same token, which is not 0 and not to be
    /// used again.
    pub(crate) fn begin(&mut self, token: u64) {
        (self.token, self.changed) = (token, Bitmap::new());
    }

    /// Puts new segments, made after [`Coverage::begin`], in place of those that are `gone`; `false`, and nothing
    /// done, if this was reloaded since, or `position` is older than they are. Of each only what is `within` counts.
    pub(crate) fn replace(
        &mut self, token: u64, position: u64, gone: &[Arc<S>], new: &[Arc<S>], within: &Bitmap,
    ) -> bool {
        // What was read ahead of this state must not answer for it.
        if self.token != token || new.iter().any(|segment| segment.position() > position) {
            return false;
        }
        self.segments.retain(|(segment, _)| gone.iter().all(|gone| !Arc::ptr_eq(gone, segment)));
        for segment in new {
            let current = segment.covered().and_not(&self.changed).and(within);
            self.segments.push((Arc::clone(segment), current));
        }
        (self.token, self.changed) = (0, Bitmap::new());
        self.sum_up();
        true
    }

    /// Uses segments that were found when the collection was loaded, each with the offsets that it shows as they
    /// are; no offset in two of these.
    pub(crate) fn load(&mut self, segments: Vec<(Arc<S>, Bitmap)>, within: &Bitmap) {
        self.segments = segments;
        self.segments.iter_mut().for_each(|(_, current)| *current = current.and(within));
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.covered = self.segments.iter().fold(Bitmap::new(), |all, (_, current)| all.or(current));
    }
}
