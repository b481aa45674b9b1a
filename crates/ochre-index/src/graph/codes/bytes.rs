//! 8-bit codes: a signed byte for each component, scaled by the largest of the vector's own (as in LVQ,
//! arXiv:2304.04759 §3). Two codes are compared by one integer inner product and three stored numbers.

use ochre_kernels::{Arena, byte_dot, dot, prefetch};
use ochre_model::Space;

use super::{centred, signed};

/// Rows asked for before the first of them is measured.
const AHEAD: usize = 16;

/// What stands beside the codes of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::graph) struct ByteExtra {
    pub(in crate::graph) scale: f32,
    /// For `l2` the squared norm of the decoded, centred vector; otherwise its inner product with the mean.
    pub(in crate::graph) bias: f32,
}

pub(in crate::graph) struct Bytes {
    pub(in crate::graph) space: Space,
    pub(in crate::graph) mean: Vec<f32>,
    /// `⟨mean, mean⟩`
    mean_norm: f32,
    /// How far coded distances are from exact ones, per unit of a query's reach.
    pub(in crate::graph) deviation: f32,
    pub(in crate::graph) codes: Arena<i8>,
    pub(in crate::graph) extras: Arena<ByteExtra>,
}

pub(crate) struct Query {
    encoded: Encoded,
    /// The length of the centred query.
    pub(super) reach: f32,
}

pub(crate) struct Encoded {
    codes: Vec<i8>,
    extra: ByteExtra,
}

impl Bytes {
    pub(super) fn new(space: Space, mean: Vec<f32>, deviation: f32, capacity: usize) -> Self {
        let (mean_norm, dimension) = (dot(&mean, &mean), mean.len());
        let codes = Arena::with_capacity(capacity * dimension);
        Self { space, mean, mean_norm, deviation, codes, extras: Arena::with_capacity(capacity) }
    }

    pub(super) fn grown(&self, capacity: usize) -> Self {
        let copy = Self::new(self.space, self.mean.clone(), self.deviation, capacity);
        let fits = copy.codes.append(self.codes.as_slice()) && copy.extras.append(self.extras.as_slice());
        debug_assert!(fits, "a grown graph has room for what it grew from");
        copy
    }

    pub(super) fn append(&self, encoded: &Encoded) -> bool {
        self.codes.append(&encoded.codes) && self.extras.append(&[encoded.extra])
    }

    fn row(&self, node: u32) -> &[i8] {
        let dimension = self.mean.len();
        &self.codes.as_slice()[node as usize * dimension..(node as usize + 1) * dimension]
    }

    pub(super) fn encode(&self, vector: &[f32]) -> Encoded {
        let (codes, scale) = signed(&centred(self.space, vector, &self.mean));
        #[expect(clippy::cast_precision_loss, reason = "the sum of a few thousand squares of bytes")]
        let bias = match self.space {
            Space::L2 => scale * scale * byte_dot(&codes, &codes) as f32,
            Space::Cosine | Space::Ip => {
                scale * codes.iter().zip(&self.mean).map(|(code, mean)| f32::from(*code) * mean).sum::<f32>()
            }
        };
        Encoded { codes, extra: ByteExtra { scale, bias } }
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
        let reach = encoded.extra.scale * (byte_dot(&encoded.codes, &encoded.codes) as f32).sqrt();
        Query { encoded, reach }
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

    fn distance(&self, codes: &[i8], extra: ByteExtra, node: u32) -> f32 {
        let other = self.extras.as_slice()[node as usize];
        #[expect(clippy::cast_precision_loss, reason = "codes are an approximation")]
        let product = extra.scale * other.scale * byte_dot(codes, self.row(node)) as f32;
        match self.space {
            Space::L2 => extra.bias + other.bias - 2.0 * product,
            Space::Cosine | Space::Ip => 1.0 - (self.mean_norm + extra.bias + other.bias + product),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.codes.capacity() + self.extras.capacity() * size_of::<ByteExtra>()
    }
}
