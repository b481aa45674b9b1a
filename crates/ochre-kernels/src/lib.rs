//! Distances between vectors, and the memory that graphs live in: slabs, and append-only arenas in them.
//!
//! Owns the project's SIMD and its lock-free storage, and with them nearly all of its `unsafe`. Every
//! kernel has a scalar twin that a property test compares it with; every tier can be forced with the
//! environment variable `OCHRE_KERNELS` (`scalar`, `avx2`, `avx512`, `avx512-vnni`).
//!
//! Not here: what a distance means for a space (`ochre-index`), where vectors come from.

mod arena;
mod byte;
mod float;
mod memory;
mod nibble;
mod prefetch;
mod slab;
mod thread;
mod tier;

pub use arena::Arena;
pub use byte::byte_dot;
pub use float::{dot, l2_squared};
pub use memory::{give_back_large_buffers, give_back_memory};
pub use nibble::{LINE_NIBBLES, Line, nibble_dots};
pub use prefetch::{prefetch, prefetch_row};
pub use slab::{Region, Slab};
pub use thread::stand_back;
pub use tier::{Tier, tier};
