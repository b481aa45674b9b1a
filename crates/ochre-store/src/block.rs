//! A block of vectors: what one request appended, or what compaction put together, of one collection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::segment::Segment;

/// Vectors that cannot be read: which file and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged: {reason}", path.display())]
pub struct Damage {
    /// The damaged file.
    pub path: PathBuf,
    /// What is wrong and where.
    pub reason: String,
}

/// Vectors of one collection with their ids and norms, row-major `f32[len × dimension]`.
///
/// The rows of a mapped block are verified against their checksum when they are first touched.
#[derive(Debug)]
pub struct VectorBlock {
    dimension: usize,
    ids: Box<[u64]>,
    norms: Box<[f32]>,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    /// In memory: just written, or read from a segment that is not sealed.
    Owned(Box<[f32]>),
    /// In a mapped, sealed segment.
    Mapped { segment: Arc<Segment>, start: usize, checksum: u32, state: AtomicU8 },
    /// Known to be unreadable.
    Lost(Damage),
}

/// Not touched since opening.
const UNVERIFIED: u8 = 0;
const SOUND: u8 = 1;
const DAMAGED: u8 = 2;

impl VectorBlock {
    pub(crate) fn owned(dimension: usize, ids: Vec<u64>, norms: Vec<f32>, values: Vec<f32>) -> Self {
        debug_assert_eq!(ids.len() * dimension, values.len());
        Self { dimension, ids: ids.into(), norms: norms.into(), payload: Payload::Owned(values.into()) }
    }

    pub(crate) fn mapped(
        dimension: usize, ids: Vec<u64>, norms: Vec<f32>, segment: Arc<Segment>, start: usize, checksum: u32,
    ) -> Self {
        let payload = Payload::Mapped { segment, start, checksum, state: AtomicU8::new(UNVERIFIED) };
        Self { dimension, ids: ids.into(), norms: norms.into(), payload }
    }

    pub(crate) fn lost(dimension: usize, ids: Vec<u64>, norms: Vec<f32>, damage: Damage) -> Self {
        Self { dimension, ids: ids.into(), norms: norms.into(), payload: Payload::Lost(damage) }
    }

    /// Whether the block is known to be unreadable; then its ids are only those it may have held.
    pub fn is_lost(&self) -> bool {
        matches!(self.payload, Payload::Lost(_))
    }

    /// How many vectors the block holds.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Floats per vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The ids of the vectors, ascending.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// The Euclidean norm of each vector.
    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// Bytes of the heap that this block holds, mapped files not counted.
    pub fn heap_bytes(&self) -> usize {
        let rows = if let Payload::Owned(values) = &self.payload { size_of_val::<[f32]>(values) } else { 0 };
        rows + self.ids.len() * 12
    }

    /// One vector.
    ///
    /// # Errors
    /// [`Damage`] if the rows do not have the checksum they were written with.
    pub fn row(&self, index: usize) -> Result<&[f32], Damage> {
        Ok(&self.rows()?[index * self.dimension..(index + 1) * self.dimension])
    }

    /// All vectors of the block.
    ///
    /// # Errors
    /// As for [`VectorBlock::row`].
    pub fn rows(&self) -> Result<&[f32], Damage> {
        match &self.payload {
            Payload::Owned(values) => Ok(values),
            Payload::Lost(damage) => Err(damage.clone()),
            Payload::Mapped { segment, start, checksum, state } => {
                let bytes = segment.mapped_bytes(*start, self.ids.len() * self.dimension * 4);
                let damage = || Damage {
                    path: segment.path().to_owned(),
                    reason: format!("the vectors at byte {start} do not match their checksum"),
                };
                match state.load(Ordering::Acquire) {
                    SOUND => {}
                    DAMAGED => return Err(damage()),
                    _ => {
                        let sound = crc32c::crc32c(bytes) == *checksum;
                        state.store(if sound { SOUND } else { DAMAGED }, Ordering::Release);
                        if !sound {
                            return Err(damage());
                        }
                    }
                }
                Ok(bytemuck::cast_slice(bytes))
            }
        }
    }
}
