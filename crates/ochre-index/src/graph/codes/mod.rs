//! How a graph keeps its vectors: as 4-bit codes where those keep neighbours apart, else as 8-bit codes,
//! else as they are.
//!
//! Codes are of a vector minus the mean of the collection; cosine is the inner product of normalised
//! vectors. A search compares codes, what it finds is reranked with exact distances, so codes need only keep the
//! true neighbours among the candidates. That is evaluated on a sample before they are used: vectors that
//! lie far apart in tight clusters, or have few dimensions, do not survive coding.

mod full_precision;
mod sq4;
mod sq8;

use ochre_kernels::{Arena, Slab, dot};
use ochre_model::{Space, norm};

use super::GraphParameters;
use super::reorder::NodePermutation;
pub(super) use full_precision::FullPrecision;
pub(super) use sq4::Sq4;
pub(super) use sq8::Sq8;

/// Below this many dimensions, 4-bit codes err too much to be worth a try.
const SQ4_DIMENSION_MIN: usize = 64;
/// Below this many dimensions, 8-bit codes save nothing worth their error.
const SQ8_DIMENSION_MIN: usize = 32;
/// Vectors of the sample that are used as queries when codes are evaluated.
const EVALUATED: usize = 32;
/// Of the nearest this many by exact distance …
const NEAREST: usize = 10;
/// … this share must be among the `2 · NEAREST` nearest by code.
const RECALL_KEPT_MIN: f32 = 0.95;
/// How far codes err is measured without the largest errors, those of one node in this many.
const EXTREME_SHARE: usize = 100;
/// Vectors that are longer than the median by more than this factor have no part in the mean.
const EXTREME_LENGTH: f32 = 8.0;
/// A coded distance errs by less than this many standard deviations, for all that a search can tell: errors are no bell
/// curve, least of all that of a vector's distance from itself.
const DEVIATIONS: f32 = 6.0;

/// The vectors of a graph, by node number.
pub(super) enum Codes {
    Sq4(Sq4),
    Sq8(Sq8),
    FullPrecision(FullPrecision),
}

/// A vector that nodes are measured against.
pub(crate) enum Query {
    Sq4(sq4::Query),
    Sq8(sq8::Query),
    FullPrecision(Vec<f32>),
}

/// A vector as a node keeps it.
pub(super) enum Encoded {
    Sq4(sq4::Encoded),
    Sq8(sq8::Encoded),
    FullPrecision(Vec<f32>),
}

/// Where memory comes from: the next piece of so many bytes, if there is one.
pub(super) type Allocator<'a> = &'a mut dyn FnMut(usize) -> Option<Slab>;

/// An arena in the next piece of memory, of which `len` elements are there.
pub(super) fn arena<T: bytemuck::Pod>(take: Allocator<'_>, capacity: usize, len: usize) -> Option<Arena<T>> {
    Arena::over(take(capacity.checked_mul(size_of::<T>())?)?, len)
}

/// Memory of the heap, which there is always more of.
pub(super) fn heap(bytes: usize) -> Option<Slab> {
    Some(Slab::zeroed(bytes))
}

/// How vectors are coded.
#[derive(Clone, Debug)]
pub(super) enum Quantization {
    /// With the mean, and how far codes are from exact distances.
    Sq4(Vec<f32>, f32),
    Sq8(Vec<f32>, f32),
    FullPrecision,
}

impl Codes {
    /// How a sample says that vectors are best coded.
    pub(super) fn choose(parameters: GraphParameters, sample: &[&[f32]]) -> Quantization {
        let GraphParameters { space, dimension, .. } = parameters;
        let mean = mean(space, dimension, sample);
        type Make = fn(Vec<f32>, f32) -> Quantization;
        let codings: [(usize, Make); 2] =
            [(SQ4_DIMENSION_MIN, Quantization::Sq4), (SQ8_DIMENSION_MIN, Quantization::Sq8)];
        for (_, make) in codings.into_iter().filter(|(dimension_min, _)| dimension >= *dimension_min) {
            // Nothing is known of the error: everything a search finds is compared exactly.
            if sample.len() <= 2 * NEAREST {
                return make(mean, f32::INFINITY);
            }
            let evaluation =
                evaluate_quantization(&Self::new(parameters, make(mean.clone(), 0.0), sample.len()), space, sample);
            if evaluation.recall >= RECALL_KEPT_MIN {
                return make(mean, evaluation.error_stddev);
            }
        }
        Quantization::FullPrecision
    }

    /// Room for `capacity` vectors on the heap.
    pub(super) fn new(parameters: GraphParameters, coding: Quantization, capacity: usize) -> Self {
        Self::allocate(parameters, coding, capacity, 0, &mut heap).expect("the heap always has more")
    }

    /// Room for `capacity` vectors, of which `len` are there; `None` if memory ends.
    pub(super) fn allocate(
        parameters: GraphParameters, coding: Quantization, capacity: usize, len: usize, take: Allocator<'_>,
    ) -> Option<Self> {
        let GraphParameters { space, dimension, .. } = parameters;
        Some(match coding {
            Quantization::Sq4(mean, error_stddev) => {
                Self::Sq4(Sq4::allocate(space, mean, error_stddev, capacity, len, take)?)
            }
            Quantization::Sq8(mean, error_stddev) => {
                Self::Sq8(Sq8::allocate(space, mean, error_stddev, capacity, len, take)?)
            }
            Quantization::FullPrecision => {
                Self::FullPrecision(FullPrecision::allocate(space, dimension, capacity, len, take)?)
            }
        })
    }

    pub(super) fn coding(&self) -> Quantization {
        match self {
            Self::Sq4(nibbles) => Quantization::Sq4(nibbles.mean.clone(), nibbles.error_stddev),
            Self::Sq8(bytes) => Quantization::Sq8(bytes.mean.clone(), bytes.error_stddev),
            Self::FullPrecision(_) => Quantization::FullPrecision,
        }
    }

    /// Appends vectors of others, which are coded alike, with new numbers; `false` if there is no room.
    pub(super) fn append_all(&self, others: &Self, numbering: &NodePermutation) -> bool {
        match (self, others) {
            (Self::Sq4(nibbles), Self::Sq4(others)) => nibbles.append_all(others, numbering),
            (Self::Sq8(bytes), Self::Sq8(others)) => bytes.append_all(others, numbering),
            (Self::FullPrecision(floats), Self::FullPrecision(others)) => {
                numbering.append(&floats.values, &others.values, floats.dimension)
            }
            _ => unreachable!("a copy is coded as what it is of"),
        }
    }

    pub(super) fn encode(&self, vector: &[f32]) -> Encoded {
        match self {
            Self::Sq4(nibbles) => Encoded::Sq4(nibbles.encode(vector)),
            Self::Sq8(bytes) => Encoded::Sq8(bytes.encode(vector)),
            Self::FullPrecision(floats) => Encoded::FullPrecision(prepared(floats.space, vector)),
        }
    }

    /// Appends the next node's vector; `false` if there is no room.
    pub(super) fn append(&self, encoded: &Encoded) -> bool {
        match (self, encoded) {
            (Self::Sq4(nibbles), Encoded::Sq4(encoded)) => nibbles.append(encoded),
            (Self::Sq8(bytes), Encoded::Sq8(encoded)) => bytes.append(encoded),
            (Self::FullPrecision(floats), Encoded::FullPrecision(values)) => floats.values.append(values),
            _ => unreachable!("a vector is coded by the graph it is added to"),
        }
    }

    pub(super) fn query(&self, vector: &[f32]) -> Query {
        match self {
            Self::Sq4(nibbles) => Query::Sq4(nibbles.query(vector)),
            Self::Sq8(bytes) => Query::Sq8(bytes.query(vector)),
            Self::FullPrecision(floats) => Query::FullPrecision(prepared(floats.space, vector)),
        }
    }

    /// A node's vector as a query, as far as its code tells.
    pub(super) fn query_of(&self, node: u32) -> Query {
        match self {
            Self::Sq4(nibbles) => Query::Sq4(nibbles.query_of(node)),
            Self::Sq8(bytes) => Query::Sq8(bytes.query_of(node)),
            Self::FullPrecision(floats) => Query::FullPrecision(floats.row(node).to_vec()),
        }
    }

    /// How far each node is from a query, about in the measure of the space; `out` is as long as `nodes`.
    pub(super) fn distances(&self, query: &Query, nodes: &[u32], out: &mut [f32]) {
        match (self, query) {
            (Self::Sq4(nibbles), Query::Sq4(query)) => nibbles.distances(query, nodes, out),
            (Self::Sq8(bytes), Query::Sq8(query)) => bytes.distances(query, nodes, out),
            (Self::FullPrecision(floats), Query::FullPrecision(values)) => floats.distances(values, nodes, out),
            _ => unreachable!("a query is coded by the graph it is asked of"),
        }
    }

    /// How far a node is from each of others; `out` is as long as `others`.
    pub(super) fn between(&self, node: u32, others: &[u32], out: &mut [f32]) {
        match self {
            Self::Sq4(nibbles) => nibbles.between(node, others, out),
            Self::Sq8(bytes) => {
                others.iter().zip(out).for_each(|(other, out)| *out = bytes.between(node, *other));
            }
            Self::FullPrecision(floats) => floats.distances(floats.row(node), others, out),
        }
    }

    /// Whether two nodes have the same code, so that no search tells them apart.
    pub(super) fn is_same(&self, node: u32, other: u32) -> bool {
        match self {
            Self::Sq4(nibbles) => nibbles.is_same(node, other),
            Self::Sq8(bytes) => bytes.is_same(node, other),
            Self::FullPrecision(floats) => floats.row(node) == floats.row(other),
        }
    }

    /// How far a coded distance from this query usually is from the exact one: the standard deviation.
    pub(super) fn error_stddev(&self, query: &Query) -> f32 {
        match (self, query) {
            (Self::Sq4(nibbles), Query::Sq4(query)) => nibbles.error_stddev * query.distance_bound,
            (Self::Sq8(bytes), Query::Sq8(query)) => bytes.error_stddev * query.distance_bound,
            _ => 0.0,
        }
    }

    /// How far a coded distance from this query may be from the exact one.
    pub(super) fn error_bound(&self, query: &Query) -> f32 {
        DEVIATIONS * self.error_stddev(query)
    }

    /// The memory the vectors take in bytes, and how much of it are pages of a file.
    pub(super) fn bytes(&self) -> (usize, usize) {
        match self {
            Self::Sq4(nibbles) => sum([bytes_of(&nibbles.rows), bytes_of(&nibbles.extras), bytes_of(&nibbles.sums)]),
            Self::Sq8(bytes) => sum([bytes_of(&bytes.codes), bytes_of(&bytes.extras)]),
            Self::FullPrecision(floats) => bytes_of(&floats.values),
        }
    }
}

/// The bytes of an arena, and how many of them are pages of a file.
pub(super) fn bytes_of<T: bytemuck::Pod>(arena: &Arena<T>) -> (usize, usize) {
    (arena.bytes(), arena.file_bytes())
}

/// Sums of both parts.
pub(super) fn sum<const N: usize>(parts: [(usize, usize); N]) -> (usize, usize) {
    parts.into_iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

/// The vector whose plain distances order neighbours as the space does: normalised for cosine.
fn prepared(space: Space, vector: &[f32]) -> Vec<f32> {
    let length = if space == Space::Cosine { norm(vector) } else { 1.0 };
    if length == 1.0 || length == 0.0 { vector.to_vec() } else { vector.iter().map(|x| x / length).collect() }
}

/// A prepared vector minus the mean.
fn centred(space: Space, vector: &[f32], mean: &[f32]) -> Vec<f32> {
    let mut centred = prepared(space, vector);
    centred.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
    centred
}

/// The largest component, as a magnitude.
fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()))
}

/// A vector as signed bytes and the number that one step stands for.
fn signed(vector: &[f32]) -> (Vec<i8>, f32) {
    let largest = largest(vector);
    let step = if largest > 0.0 && largest.is_finite() { largest / 127.0 } else { 1.0 };
    let per_step = 1.0 / step;
    // Rounded by truncating a positive number, which unlike rounding every processor does in one instruction.
    #[expect(clippy::cast_possible_truncation, reason = "within 0.5..=254.5; `as` saturates")]
    let code = |x: &f32| ((x * per_step).clamp(-127.0, 127.0) + 127.5) as i32 as i16;
    #[expect(clippy::cast_possible_truncation, reason = "within −127..=127")]
    let codes = vector.iter().map(|x| (code(x) - 127) as i8).collect();
    (codes, step)
}

fn mean(space: Space, dimension: usize, sample: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0.0f64; dimension];
    let mut lengths: Vec<f32> = sample.iter().map(|vector| norm(vector)).collect();
    let middle = lengths.len() / 2;
    let median = if lengths.is_empty() { 0.0 } else { *lengths.select_nth_unstable_by(middle, f32::total_cmp).1 };
    let mut count = 0usize;
    for vector in sample.iter().filter(|vector| space == Space::Cosine || norm(vector) <= EXTREME_LENGTH * median) {
        for (sum, x) in sum.iter_mut().zip(prepared(space, vector)) {
            *sum += f64::from(x);
        }
        count += 1;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a mean of f32")]
    let mean: Vec<f32> = sum.iter().map(|sum| (sum / count.max(1) as f64) as f32).collect();
    if dot(&mean, &mean).is_finite() { mean } else { vec![0.0; dimension] }
}

/// What a sample says of codes.
struct Evaluation {
    /// The share of exact nearest neighbours, within the sample, that are near by code too.
    recall: f32,
    /// The standard deviation of coded from exact distances, per unit of the query's reach: that of the worst query.
    error_stddev: f32,
}

/// Compares coded with exact distances within a sample, on empty codes with room for it.
fn evaluate_quantization(coded: &Codes, space: Space, sample: &[&[f32]]) -> Evaluation {
    let dimension = sample.first().map_or(0, |vector| vector.len());
    let exact =
        FullPrecision::allocate(space, dimension, sample.len(), 0, &mut heap).expect("the heap always has more");
    for vector in sample {
        let fits = exact.values.append(&prepared(space, vector)) && coded.append(&coded.encode(vector));
        debug_assert!(fits, "made for exactly this many");
    }
    let nodes: Vec<u32> = (0..u32::try_from(sample.len()).unwrap_or(u32::MAX)).collect();
    let nearest = |distances: &[f32], count: usize| {
        let mut all: Vec<(f32, u32)> = distances.iter().copied().zip(nodes.iter().copied()).collect();
        let count = count.min(all.len());
        all.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0));
        all.truncate(count);
        all
    };
    let (mut kept, mut wanted, mut square) = (0usize, 0usize, 0.0f64);
    let (mut by_float, mut by_code) = (vec![0.0; nodes.len()], vec![0.0; nodes.len()]);
    for vector in sample.iter().step_by((sample.len() / EVALUATED).max(1)) {
        exact.distances(&prepared(space, vector), &nodes, &mut by_float);
        let query = coded.query(vector);
        coded.distances(&query, &nodes, &mut by_code);
        let distance_bound = match &query {
            Query::Sq4(query) => query.distance_bound,
            Query::Sq8(query) => query.distance_bound,
            Query::FullPrecision(_) => 1.0,
        };
        let squares =
            by_float.iter().zip(&by_code).map(|(a, b)| f64::from((a - b) / distance_bound.max(1e-30)).powi(2));
        let mut squares: Vec<f64> = squares.collect();
        // Vectors that are far longer than most err by as much more, but are not near.
        squares.sort_unstable_by(f64::total_cmp);
        squares.truncate(nodes.len() - nodes.len() / EXTREME_SHARE);
        square = square.max(squares.iter().sum::<f64>() / squares.len().max(1) as f64);
        let (near, coded_near) = (nearest(&by_float, NEAREST), nearest(&by_code, 2 * NEAREST));
        wanted += near.len();
        kept += near.iter().filter(|(_, node)| coded_near.iter().any(|(_, other)| other == node)).count();
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share and a deviation")]
    let evaluation = Evaluation { recall: kept as f32 / wanted.max(1) as f32, error_stddev: square.sqrt() as f32 };
    evaluation
}

#[cfg(test)]
mod tests {
    use ochre_kernels::l2_squared;

    use super::*;

    fn parameters(space: Space, dimension: usize) -> GraphParameters {
        GraphParameters { space, dimension, max_neighbors: 16, ef_construction: 100 }
    }

    fn vectors(count: usize, dimension: usize, mut value: impl FnMut(usize) -> f32) -> Vec<Vec<f32>> {
        (0..count).map(|row| (0..dimension).map(|_| value(row)).collect()).collect()
    }

    /// Coded distances against exact ones, from a query and between nodes, in every space.
    fn distances_are_close(dimension: usize, allowed: f32, is_chosen: impl Fn(&Codes) -> bool) {
        let mut rng = fastrand::Rng::with_seed(1);
        let data = vectors(300, dimension, |_| rng.f32() - 0.3);
        let sample: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        for space in [Space::L2, Space::Cosine, Space::Ip] {
            let parameters = parameters(space, dimension);
            let codes = Codes::new(parameters, Codes::choose(parameters, &sample), 300);
            assert!(is_chosen(&codes), "{space:?}");
            assert!(data.iter().all(|vector| codes.append(&codes.encode(vector))));
            let (vector, query) = (prepared(space, &data[7]), codes.query(&data[7]));
            let (error_bound, mut out) = (codes.error_bound(&query), vec![0.0; 300]);
            codes.distances(&query, &(0..300).collect::<Vec<u32>>(), &mut out);
            let (mut inside, mut between) = (0, vec![0.0; 300]);
            codes.between(7, &(0..300).collect::<Vec<u32>>(), &mut between);
            for (node, other) in (0u32..).zip(&data) {
                let other = prepared(space, other);
                let exact = if space == Space::L2 { l2_squared(&vector, &other) } else { 1.0 - dot(&vector, &other) };
                for coded in [out[node as usize], between[node as usize]] {
                    let error = (exact - coded).abs() / (1.0 + exact.abs());
                    assert!(error < allowed, "{space:?}: {exact} against {coded}");
                }
                inside += usize::from((exact - out[node as usize]).abs() <= error_bound);
            }
            assert!(inside >= 297, "{space:?}: the margin holds for {inside} of 300");
            let mut own = [0.0];
            codes.distances(&codes.query_of(7), &[9], &mut own);
            assert!((own[0] - out[9]).abs() < allowed * (1.0 + out[9].abs()), "a node's own query");
        }
    }

    #[test]
    fn nibble_distances_are_close_to_exact_ones() {
        distances_are_close(200, 0.2, |codes| matches!(codes, Codes::Sq4(_)));
    }

    #[test]
    fn byte_distances_are_close_to_exact_ones() {
        distances_are_close(40, 0.05, |codes| matches!(codes, Codes::Sq8(_)));
    }

    #[test]
    fn a_vector_is_its_own_nearest_by_its_bytes_also_far_from_what_codes_were_made_for() {
        let mut rng = fastrand::Rng::with_seed(3);
        let data = vectors(300, 48, |_| rng.f32() - 0.3);
        let sample: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        for space in [Space::L2, Space::Cosine] {
            let parameters = parameters(space, 48);
            let codes = Codes::new(parameters, Codes::choose(parameters, &sample), 400);
            assert!(matches!(codes, Codes::Sq8(_)));
            // A curve that leads away from the sample, each point a little further on.
            let point =
                |n: usize| (0..48).map(|i| ((n as f32) * 1e-3 * (i + 1) as f32).sin() - 1.0).collect::<Vec<f32>>();
            let curve: Vec<Vec<f32>> = (0..300).map(point).collect();
            assert!(curve.iter().all(|vector| codes.append(&codes.encode(vector))));
            let (nodes, mut out) = ((0..300).collect::<Vec<u32>>(), vec![0.0; 300]);
            for (node, vector) in curve.iter().enumerate() {
                codes.distances(&codes.query(vector), &nodes, &mut out);
                let least = out.iter().copied().fold(f32::INFINITY, f32::min);
                assert!(out[node] <= least + 1e-6, "{space:?}: {node} at {}, another at {least}", out[node]);
            }
            if space == Space::Cosine {
                // Without a direction it is as far from everything as what is at right angles.
                let none = vec![0.0; 48];
                assert!(codes.append(&codes.encode(&none)));
                let mut zero = [0.0];
                for vector in &curve {
                    codes.distances(&codes.query(vector), &[300], &mut zero);
                    assert_eq!(zero[0], 1.0);
                }
            }
        }
    }

    #[test]
    fn tight_clusters_far_apart_are_not_coded() {
        let mut rng = fastrand::Rng::with_seed(2);
        let data = vectors(400, 64, |row| if row % 2 == 0 { 1e4 } else { -1e4 } + rng.f32());
        let sample: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        assert!(matches!(Codes::choose(parameters(Space::L2, 64), &sample), Quantization::FullPrecision));
    }
}
