//! 8-bit codes: a signed byte for each component, scaled by the largest of the vector's own (as in LVQ,
//! arXiv:2304.04759 §3). Two codes are compared by one integer inner product and three stored numbers.

use ochre_kernels::{Arena, byte_dot, dot, prefetch};
use ochre_model::{Space, norm};

use super::{Allocator, NodePermutation, arena, centred, signed};

/// What is kept of a zero vector in `cosine`: its distance from everything is 1.
const WITHOUT_DIRECTION: [f32; 2] = [0.0, 0.0];
/// Rows asked for before the first of them is measured.
const AHEAD: usize = 16;

pub(in crate::graph) struct Sq8 {
    pub(in crate::graph) space: Space,
    pub(in crate::graph) mean: Vec<f32>,
    /// `⟨mean, mean⟩`
    mean_norm: f32,
    /// How far coded distances are from exact ones, per unit of a query's reach.
    pub(in crate::graph) error_stddev: f32,
    pub(in crate::graph) codes: Arena<i8>,
    /// The scale; and for `l2` and `cosine` the squared norm of the decoded, centred vector, for `ip` its inner product
    /// with the mean.
    pub(in crate::graph) extras: Arena<[f32; 2]>,
}

pub(crate) struct Query {
    encoded: Encoded,
    /// The length of the centred query.
    pub(super) distance_bound: f32,
}

pub(crate) struct Encoded {
    codes: Vec<i8>,
    extra: [f32; 2],
}

impl Sq8 {
    /// Room for `capacity` vectors, of which `len` are there.
    pub(super) fn allocate(
        space: Space, mean: Vec<f32>, error_stddev: f32, capacity: usize, len: usize, take: Allocator<'_>,
    ) -> Option<Self> {
        let (mean_norm, dimension) = (dot(&mean, &mean), mean.len());
        let codes = arena(take, capacity * dimension, len * dimension)?;
        Some(Self { space, mean, mean_norm, error_stddev, codes, extras: arena(take, capacity, len)? })
    }

    /// Appends vectors of another, with new numbers.
    pub(super) fn append_all(&self, other: &Self, numbering: &NodePermutation) -> bool {
        numbering.append(&self.codes, &other.codes, self.mean.len()) && numbering.append(&self.extras, &other.extras, 1)
    }

    pub(super) fn append(&self, encoded: &Encoded) -> bool {
        self.codes.append(&encoded.codes) && self.extras.append(&[encoded.extra])
    }

    fn row(&self, node: u32) -> &[i8] {
        let dimension = self.mean.len();
        &self.codes.as_slice()[node as usize * dimension..(node as usize + 1) * dimension]
    }

    pub(super) fn is_same(&self, node: u32, other: u32) -> bool {
        let extras = self.extras.as_slice();
        extras[node as usize] == extras[other as usize] && self.row(node) == self.row(other)
    }

    pub(super) fn encode(&self, vector: &[f32]) -> Encoded {
        if self.space == Space::Cosine && norm(vector) == 0.0 {
            return Encoded { codes: vec![0; vector.len()], extra: WITHOUT_DIRECTION };
        }
        let (codes, scale) = signed(&centred(self.space, vector, &self.mean));
        #[expect(clippy::cast_precision_loss, reason = "the sum of a few thousand squares of bytes")]
        let bias = match self.space {
            Space::L2 | Space::Cosine => scale * scale * byte_dot(&codes, &codes) as f32,
            Space::Ip => scale * codes.iter().zip(&self.mean).map(|(code, mean)| f32::from(*code) * mean).sum::<f32>(),
        };
        Encoded { codes, extra: [scale, bias] }
    }

    pub(super) fn query(&self, vector: &[f32]) -> Query {
        Self::query_from(self.encode(vector))
    }

    pub(super) fn query_of(&self, node: u32) -> Query {
        let extra = self.extras.as_slice()[node as usize];
        Self::query_from(Encoded { codes: self.row(node).to_vec(), extra })
    }

    fn query_from(encoded: Encoded) -> Query {
        #[expect(clippy::cast_precision_loss, reason = "the length of a code")]
        let distance_bound = encoded.extra[0] * (byte_dot(&encoded.codes, &encoded.codes) as f32).sqrt();
        Query { encoded, distance_bound }
    }

    pub(super) fn distances(&self, query: &Query, nodes: &[u32], out: &mut [f32]) {
        for (nodes, out) in nodes.chunks(AHEAD).zip(out.chunks_mut(AHEAD)) {
            for node in nodes {
                self.row(*node).chunks(64).for_each(|part| prefetch(part, 0));
            }
            for (node, out) in nodes.iter().zip(out) {
                *out = self.distance(&query.encoded.codes, query.encoded.extra, *node);
            }
        }
    }

    pub(super) fn between(&self, a: u32, b: u32) -> f32 {
        self.distance(self.row(a), self.extras.as_slice()[a as usize], b)
    }

    fn distance(&self, codes: &[i8], [scale, bias]: [f32; 2], node: u32) -> f32 {
        let [other_scale, other_bias] = self.extras.as_slice()[node as usize];
        #[expect(clippy::cast_precision_loss, reason = "codes are an approximation")]
        let product = scale * other_scale * byte_dot(codes, self.row(node)) as f32;
        match self.space {
            Space::Cosine if scale == 0.0 || other_scale == 0.0 => 1.0,
            Space::L2 => bias + other_bias - 2.0 * product,
            // Of normalised vectors half the squared distance: what both codes err alike in falls out, and of a
            // vector's distance from itself everything.
            Space::Cosine => (bias + other_bias) / 2.0 - product,
            Space::Ip => 1.0 - (self.mean_norm + bias + other_bias + product),
        }
    }
}
