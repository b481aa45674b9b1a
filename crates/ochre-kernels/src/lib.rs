//! Distances between vectors, and the memory that graphs live in: slabs, and append-only arenas in them.
//!
//! Owns the project's SIMD and its lock-free storage, and with them nearly all of its `unsafe`. Every
//! kernel has a scalar twin that a property test compares it with; every tier can be forced with the
//! environment variable `OCHRE_KERNELS` (`scalar`, `avx2`, `avx512`, `avx512-vnni`).
//!
//! Not here: what a distance means for a space (`ochre-index`), where vectors come from.

mod arena;
mod float;
mod memory;
mod prefetch;
mod simd_level;
mod slab;
mod sq4;
mod sq8;
mod thread;

pub use arena::Arena;
pub use float::{dot, l2_squared};
pub use memory::{set_mmap_threshold, trim_heap};
pub use prefetch::{prefetch, prefetch_row};
pub use simd_level::{SimdLevel, simd_level};
pub use slab::{Region, Slab};
pub use sq4::{LINE_NIBBLES, Line, nibble_dots};
pub use sq8::byte_dot;
pub use thread::set_idle_priority;
