//! How a graph keeps its vectors: as 8-bit codes where that keeps neighbours apart, else as they are.
//!
//! A byte code is a vector minus the mean of the collection, scaled by the largest of its own
//! components: `x ≈ mean + scale · c`, `c` in −127..=127 (as in LVQ, arXiv:2304.04759 §3). Two codes are
//! compared by one integer inner product and three stored numbers. Cosine is the inner product of
//! normalised vectors.
//!
//! Codes are judged on a sample before they are used: vectors that lie far apart in tight clusters, or
//! have few dimensions, do not survive them and are kept as `f32`.

use ochre_kernels::{Arena, byte_dot, dot, l2_squared};
use ochre_model::{Space, norm};

use super::GraphParameters;

/// Below this, codes save nothing worth their error.
const DIMENSION_MIN: usize = 32;
/// Vectors of the sample that are used as queries when codes are judged.
const JUDGED: usize = 32;
/// Of the nearest this many by exact distance …
const NEAREST: usize = 10;
/// … this share must be among the `2 · NEAREST` nearest by code.
const KEPT_MIN: f32 = 0.95;

/// The vectors of a graph, by node number.
pub(super) enum Codes {
    Bytes(Bytes),
    Floats(Floats),
}

/// A vector coded as the nodes of a graph are.
#[derive(Clone, Debug)]
pub(crate) enum Encoded {
    Bytes { codes: Vec<i8>, extra: Extra },
    Floats(Vec<f32>),
}

/// What stands beside the codes of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extra {
    pub(super) scale: f32,
    /// For `l2` the squared norm of the decoded, centred vector; otherwise its inner product with the mean.
    pub(super) bias: f32,
}

pub(super) struct Bytes {
    pub(super) space: Space,
    pub(super) mean: Vec<f32>,
    /// `⟨mean, mean⟩`
    mean_norm: f32,
    pub(super) codes: Arena<i8>,
    pub(super) extras: Arena<Extra>,
}

pub(super) struct Floats {
    pub(super) space: Space,
    pub(super) dimension: usize,
    pub(super) values: Arena<f32>,
}

impl Codes {
    pub(super) fn choose(parameters: GraphParameters, capacity: usize, sample: &[&[f32]]) -> Self {
        let GraphParameters { space, dimension, .. } = parameters;
        if dimension >= DIMENSION_MIN {
            let bytes = Self::bytes(space, mean(space, dimension, sample), capacity);
            if sample.len() <= 2 * NEAREST || kept_share(&bytes, space, sample) >= KEPT_MIN {
                return bytes;
            }
        }
        Self::floats(space, dimension, capacity)
    }

    pub(super) fn bytes(space: Space, mean: Vec<f32>, capacity: usize) -> Self {
        let (mean_norm, dimension) = (dot(&mean, &mean), mean.len());
        let codes = Arena::with_capacity(capacity * dimension);
        Self::Bytes(Bytes { space, mean, mean_norm, codes, extras: Arena::with_capacity(capacity) })
    }

    pub(super) fn floats(space: Space, dimension: usize, capacity: usize) -> Self {
        Self::Floats(Floats { space, dimension, values: Arena::with_capacity(capacity * dimension) })
    }

    pub(super) fn grown(&self, capacity: usize) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let copy = Self::bytes(bytes.space, bytes.mean.clone(), capacity);
                if let Self::Bytes(copy) = &copy {
                    let fits = copy.codes.append(bytes.codes.as_slice()) && copy.extras.append(bytes.extras.as_slice());
                    debug_assert!(fits, "a grown graph has room for what it grew from");
                }
                copy
            }
            Self::Floats(floats) => {
                let copy = Self::floats(floats.space, floats.dimension, capacity);
                if let Self::Floats(copy) = &copy {
                    let fits = copy.values.append(floats.values.as_slice());
                    debug_assert!(fits, "a grown graph has room for what it grew from");
                }
                copy
            }
        }
    }

    pub(super) fn encode(&self, vector: &[f32]) -> Encoded {
        match self {
            Self::Bytes(bytes) => bytes.encode(vector),
            Self::Floats(floats) => Encoded::Floats(prepared(floats.space, vector)),
        }
    }

    /// Appends the next node's vector; `false` if there is no room.
    pub(super) fn append(&self, encoded: &Encoded) -> bool {
        match (self, encoded) {
            (Self::Bytes(bytes), Encoded::Bytes { codes, extra }) => {
                bytes.codes.append(codes) && bytes.extras.append(&[*extra])
            }
            (Self::Floats(floats), Encoded::Floats(values)) => floats.values.append(values),
            _ => unreachable!("a vector is coded by the graph it is added to"),
        }
    }

    /// How far a node is from a coded vector, in an order-preserving measure of the space.
    #[inline]
    pub(super) fn distance(&self, from: &Encoded, node: u32) -> f32 {
        match (self, from) {
            (Self::Bytes(bytes), Encoded::Bytes { codes, extra }) => bytes.distance(codes, *extra, node),
            (Self::Floats(floats), Encoded::Floats(values)) => floats.distance(values, node),
            _ => unreachable!("a query is coded by the graph it is asked of"),
        }
    }

    /// How far two nodes are from each other.
    pub(super) fn between(&self, a: u32, b: u32) -> f32 {
        match self {
            Self::Bytes(bytes) => bytes.distance(bytes.row(a), bytes.extras.as_slice()[a as usize], b),
            Self::Floats(floats) => floats.distance(floats.row(a), b),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.codes.capacity() + bytes.extras.capacity() * size_of::<Extra>(),
            Self::Floats(floats) => floats.values.capacity() * 4,
        }
    }
}

impl Bytes {
    fn row(&self, node: u32) -> &[i8] {
        let dimension = self.mean.len();
        &self.codes.as_slice()[node as usize * dimension..(node as usize + 1) * dimension]
    }

    fn encode(&self, vector: &[f32]) -> Encoded {
        let mut centred = prepared(self.space, vector);
        centred.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
        let largest = centred.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = if largest > 0.0 && largest.is_finite() { largest / 127.0 } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, reason = "within −127..=127; `as` saturates")]
        let codes: Vec<i8> = centred.iter().map(|x| (x / scale).round().clamp(-127.0, 127.0) as i8).collect();
        #[expect(clippy::cast_precision_loss, reason = "the sum of a few thousand squares of bytes")]
        let bias = match self.space {
            Space::L2 => scale * scale * byte_dot(&codes, &codes) as f32,
            Space::Cosine | Space::Ip => {
                scale * codes.iter().zip(&self.mean).map(|(code, mean)| f32::from(*code) * mean).sum::<f32>()
            }
        };
        Encoded::Bytes { codes, extra: Extra { scale, bias } }
    }

    #[inline]
    fn distance(&self, codes: &[i8], extra: Extra, node: u32) -> f32 {
        let other = self.extras.as_slice()[node as usize];
        #[expect(clippy::cast_precision_loss, reason = "codes are an approximation")]
        let product = extra.scale * other.scale * byte_dot(codes, self.row(node)) as f32;
        match self.space {
            Space::L2 => extra.bias + other.bias - 2.0 * product,
            Space::Cosine | Space::Ip => 1.0 - (self.mean_norm + extra.bias + other.bias + product),
        }
    }
}

impl Floats {
    fn row(&self, node: u32) -> &[f32] {
        &self.values.as_slice()[node as usize * self.dimension..(node as usize + 1) * self.dimension]
    }

    fn distance(&self, values: &[f32], node: u32) -> f32 {
        match self.space {
            Space::L2 => l2_squared(values, self.row(node)),
            Space::Cosine | Space::Ip => 1.0 - dot(values, self.row(node)),
        }
    }
}

/// The vector whose plain distances order neighbours as the space does: normalised for cosine.
fn prepared(space: Space, vector: &[f32]) -> Vec<f32> {
    let length = if space == Space::Cosine { norm(vector) } else { 1.0 };
    if length == 1.0 || length == 0.0 { vector.to_vec() } else { vector.iter().map(|x| x / length).collect() }
}

fn mean(space: Space, dimension: usize, sample: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0.0f64; dimension];
    for vector in sample {
        for (sum, x) in sum.iter_mut().zip(prepared(space, vector)) {
            *sum += f64::from(x);
        }
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a mean of f32")]
    let mean: Vec<f32> = sum.iter().map(|sum| (sum / sample.len().max(1) as f64) as f32).collect();
    if mean.iter().all(|x| x.is_finite()) { mean } else { vec![0.0; dimension] }
}

/// The share of exact nearest neighbours, within the sample, that are near by code too.
fn kept_share(codes: &Codes, space: Space, sample: &[&[f32]]) -> f32 {
    let Codes::Bytes(bytes) = codes else { return 1.0 };
    let floats: Vec<Vec<f32>> = sample.iter().map(|vector| prepared(space, vector)).collect();
    let exact =
        Floats { space, dimension: bytes.mean.len(), values: Arena::with_capacity(sample.len() * bytes.mean.len()) };
    let coded = Codes::bytes(space, bytes.mean.clone(), sample.len());
    for (vector, values) in sample.iter().zip(&floats) {
        let fits = exact.values.append(values) && coded.append(&coded.encode(vector));
        debug_assert!(fits, "made for exactly this many");
    }
    let nearest = |distance: &dyn Fn(u32) -> f32, count: usize| {
        let mut all: Vec<(f32, u32)> =
            (0..sample.len()).map(|node| u32::try_from(node).unwrap_or(0)).map(|node| (distance(node), node)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.truncate(count);
        all
    };
    let step = (sample.len() / JUDGED).max(1);
    let (mut kept, mut wanted) = (0usize, 0usize);
    for query in (0..sample.len()).step_by(step) {
        let near = nearest(&|node| exact.distance(&floats[query], node), NEAREST);
        let encoded = coded.encode(sample[query]);
        let by_code = nearest(&|node| coded.distance(&encoded, node), 2 * NEAREST);
        wanted += near.len();
        kept += near.iter().filter(|(_, node)| by_code.iter().any(|(_, other)| other == node)).count();
    }
    #[expect(clippy::cast_precision_loss, reason = "a share of a few hundred")]
    let share = kept as f32 / wanted.max(1) as f32;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(space: Space, dimension: usize) -> GraphParameters {
        GraphParameters { space, dimension, max_neighbors: 16, ef_construction: 100 }
    }

    fn vectors(count: usize, dimension: usize, mut value: impl FnMut(usize) -> f32) -> Vec<Vec<f32>> {
        (0..count).map(|row| (0..dimension).map(|_| value(row)).collect()).collect()
    }

    #[test]
    fn coded_distances_are_close_to_exact_ones_in_every_space() {
        let mut rng = fastrand::Rng::with_seed(1);
        let data = vectors(300, 64, |_| rng.f32() - 0.3);
        let sample: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        for space in [Space::L2, Space::Cosine, Space::Ip] {
            let codes = Codes::choose(parameters(space, 64), 300, &sample);
            assert!(matches!(codes, Codes::Bytes(_)), "{space:?} can be coded");
            for vector in &data {
                assert!(codes.append(&codes.encode(vector)));
            }
            let query = prepared(space, &data[7]);
            for (node, vector) in (0u32..).zip(&data) {
                let vector = prepared(space, vector);
                let exact = if space == Space::L2 { l2_squared(&query, &vector) } else { 1.0 - dot(&query, &vector) };
                let coded = codes.between(7, node);
                assert!((exact - coded).abs() < 0.05 * (1.0 + exact.abs()), "{space:?}: {exact} against {coded}");
            }
        }
    }

    #[test]
    fn tight_clusters_far_apart_are_not_coded() {
        let mut rng = fastrand::Rng::with_seed(2);
        let data = vectors(400, 64, |row| if row % 2 == 0 { 1e4 } else { -1e4 } + rng.f32());
        let sample: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        assert!(matches!(Codes::choose(parameters(Space::L2, 64), 400, &sample), Codes::Floats(_)));
    }
}
