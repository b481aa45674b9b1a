//! Vectors as they are, for those that no code serves.

use ochre_kernels::{Arena, dot, l2_squared, prefetch_row};
use ochre_model::Space;

use super::{Allocator, arena};

/// Rows asked for before the first of them is measured.
const AHEAD: usize = 8;

pub(in crate::graph) struct FullPrecision {
    pub(in crate::graph) space: Space,
    pub(in crate::graph) dimension: usize,
    pub(in crate::graph) values: Arena<f32>,
}

impl FullPrecision {
    /// Room for `capacity` vectors, of which `len` are there.
    pub(super) fn allocate(
        space: Space, dimension: usize, capacity: usize, len: usize, take: Allocator<'_>,
    ) -> Option<Self> {
        Some(Self { space, dimension, values: arena(take, capacity * dimension, len * dimension)? })
    }

    pub(super) fn row(&self, node: u32) -> &[f32] {
        &self.values.as_slice()[node as usize * self.dimension..(node as usize + 1) * self.dimension]
    }

    pub(super) fn distances(&self, values: &[f32], nodes: &[u32], out: &mut [f32]) {
        for (nodes, out) in nodes.chunks(AHEAD).zip(out.chunks_mut(AHEAD)) {
            nodes.iter().for_each(|node| prefetch_row(self.row(*node)));
            for (node, out) in nodes.iter().zip(out) {
                *out = self.distance(values, *node);
            }
        }
    }

    pub(super) fn distance(&self, values: &[f32], node: u32) -> f32 {
        match self.space {
            Space::L2 => l2_squared(values, self.row(node)),
            Space::Cosine | Space::Ip => 1.0 - dot(values, self.row(node)),
        }
    }
}
