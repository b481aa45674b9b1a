//! 4-bit codes: half a byte for each component, 16 levels spread evenly around the mean.
//!
//! A vector `x`, minus the mean, is coded as `c` in 0..=15 with `x ≈ s · (c − 7.5)`. The step of the
//! levels is the one, of a few that clip more or less of the tails, whose code points nearest in `x`'s
//! direction; `s` is then chosen so that the code measures the vector's own length exactly, which makes
//! inner products unbiased (RaBitQ, arXiv:2409.09913, §3). Queries are coded in signed bytes, whose error
//! is small beside that of the nodes.

use ochre_kernels::{Arena, LINE_NIBBLES, Line, dot, nibble_dots, prefetch};
use ochre_model::Space;

use super::{Allocator, NodePermutation, arena, centred, largest, signed};

/// The middle of the 16 levels.
const MIDDLE: f32 = 7.5;
/// Steps that are tried: from one that clips nothing down to one that clips the outer third.
const CLIPS: [f32; 6] = [1.0, 0.92, 0.84, 0.76, 0.68, 0.6];
/// Nodes measured in one go.
const BATCH: usize = 16;
/// Batches asked for ahead of the one that is measured.
const AHEAD: usize = 2;

pub(in crate::graph) struct Sq4 {
    pub(in crate::graph) space: Space,
    pub(in crate::graph) mean: Vec<f32>,
    /// `1 − ⟨mean, mean⟩`
    base: f32,
    /// How far coded distances are from exact ones, per unit of a query's reach.
    pub(in crate::graph) error_stddev: f32,
    pub(in crate::graph) rows: Arena<Line>,
    /// `s`; and for `l2` the squared length of the centred vector, otherwise minus its inner product with the mean.
    pub(in crate::graph) extras: Arena<[f32; 2]>,
    /// The sum of the codes: apart, since only comparing nodes with each other takes it.
    pub(in crate::graph) sums: Arena<f32>,
}

/// A query in two runs of bytes, as [`nibble_dots`] takes it, and what turns sums into distances:
/// `base + bias + scale · (middle − factor · sum)`.
pub(crate) struct Query {
    runs: Vec<i8>,
    base: f32,
    factor: f32,
    middle: f32,
    /// The length of the centred query.
    pub(super) distance_bound: f32,
}

pub(crate) struct Encoded {
    row: Vec<Line>,
    extra: [f32; 2],
    sum: f32,
}

impl Sq4 {
    /// Room for `capacity` vectors, of which `len` are there.
    pub(super) fn allocate(
        space: Space, mean: Vec<f32>, error_stddev: f32, capacity: usize, len: usize, take: Allocator<'_>,
    ) -> Option<Self> {
        let (base, lines) = (1.0 - dot(&mean, &mean), lines(mean.len()));
        Some(Self {
            space,
            mean,
            base,
            error_stddev,
            rows: arena(take, capacity * lines, len * lines)?,
            extras: arena(take, capacity, len)?,
            sums: arena(take, capacity, len)?,
        })
    }

    /// Appends vectors of another, with new numbers.
    pub(super) fn append_all(&self, other: &Self, numbering: &NodePermutation) -> bool {
        numbering.append(&self.rows, &other.rows, self.lines())
            && numbering.append(&self.extras, &other.extras, 1)
            && numbering.append(&self.sums, &other.sums, 1)
    }

    /// Cache lines of codes per vector.
    pub(in crate::graph) fn lines(&self) -> usize {
        lines(self.mean.len())
    }

    pub(super) fn append(&self, encoded: &Encoded) -> bool {
        self.rows.append(&encoded.row) && self.extras.append(&[encoded.extra]) && self.sums.append(&[encoded.sum])
    }

    fn row(&self, node: u32) -> &[Line] {
        &self.rows.as_slice()[node as usize * self.lines()..(node as usize + 1) * self.lines()]
    }

    pub(super) fn is_same(&self, node: u32, other: u32) -> bool {
        let (rows, extras) = (self.row(node).iter().zip(self.row(other)), self.extras.as_slice());
        extras[node as usize] == extras[other as usize] && rows.into_iter().all(|(a, b)| a.0 == b.0)
    }

    pub(super) fn encode(&self, vector: &[f32]) -> Encoded {
        let centred = centred(self.space, vector, &self.mean);
        let largest = largest(&centred);
        let whole = if largest > 0.0 && largest.is_finite() { largest / MIDDLE } else { 1.0 };
        let aligned = |clip: &f32| {
            let per_step = 1.0 / (whole * clip);
            let (mut product, mut square) = (0.0f32, 0.0f32);
            for x in &centred {
                let level = level(*x, per_step) - MIDDLE;
                product += x * level;
                square += level * level;
            }
            product / square.sqrt()
        };
        let clips = CLIPS.map(|clip| (aligned(&clip), clip));
        let clip = clips.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, clip)| *clip);
        let per_step = 1.0 / (whole * clip);
        let mut row = vec![Line([0; 64]); self.lines()];
        let half = row.len() * 64;
        let (mut product, mut sum) = (0.0f32, 0.0f32);
        for (index, x) in centred.iter().enumerate() {
            let level = level(*x, per_step);
            product += x * (level - MIDDLE);
            sum += level;
            let byte = index % half;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a level is 0..=15")]
            let code = (level as u8) << if index < half { 0 } else { 4 };
            row[byte / 64].0[byte % 64] |= code;
        }
        let square = dot(&centred, &centred);
        let scale = if product > 0.0 { square / product } else { 0.0 };
        let bias = match self.space {
            Space::L2 => square,
            Space::Cosine | Space::Ip => -dot(&centred, &self.mean),
        };
        Encoded { row, extra: [scale, bias], sum }
    }

    pub(super) fn query(&self, vector: &[f32]) -> Query {
        let centred = centred(self.space, vector, &self.mean);
        let (codes, step) = signed(&centred);
        let distance_bound = dot(&centred, &centred).sqrt();
        self.query_from(&codes, step, distance_bound, dot(&centred, &self.mean))
    }

    pub(super) fn query_of(&self, node: u32) -> Query {
        let (row, [scale, bias]) = (self.row(node), self.extras.as_slice()[node as usize]);
        // `s · (c − 7.5)` is `s/2 · (2c − 15)`.
        let levels = unpacked(row).into_iter().take(self.mean.len());
        let codes: Vec<i8> = levels.map(|level| level * 2 - 15).collect();
        let step = scale / 2.0;
        #[expect(clippy::cast_precision_loss, reason = "the length of a code")]
        let square = codes.iter().map(|code| i32::from(*code) * i32::from(*code)).sum::<i32>() as f32;
        let to_mean = match self.space {
            Space::L2 => 0.0,
            Space::Cosine | Space::Ip => -bias,
        };
        self.query_from(&codes, step, step * square.sqrt(), to_mean)
    }

    fn query_from(&self, codes: &[i8], step: f32, distance_bound: f32, to_mean: f32) -> Query {
        let mut runs = codes.to_vec();
        runs.resize(self.lines() * LINE_NIBBLES, 0);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
        let sum = codes.iter().map(|code| i32::from(*code)).sum::<i32>() as f32;
        let (base, factor) = match self.space {
            Space::L2 => (distance_bound * distance_bound, 2.0 * step),
            // ⟨q, x⟩ = ⟨q′, x′⟩ + ⟨q′, mean⟩ + ⟨x′, mean⟩ + ⟨mean, mean⟩, the primed ones being centred.
            Space::Cosine | Space::Ip => (self.base - to_mean, step),
        };
        Query { runs, base, factor, middle: factor * MIDDLE * sum, distance_bound }
    }

    pub(super) fn distances(&self, query: &Query, nodes: &[u32], out: &mut [f32]) {
        let (rows, extras) = (self.rows.as_slice(), self.extras.as_slice());
        let mut sums = [0; BATCH];
        nodes.iter().take(AHEAD * BATCH).for_each(|node| self.prefetch(*node));
        for (index, (part, out)) in nodes.chunks(BATCH).zip(out.chunks_mut(BATCH)).enumerate() {
            nodes.iter().skip((index + AHEAD) * BATCH).take(BATCH).for_each(|node| self.prefetch(*node));
            let sums = &mut sums[..part.len()];
            nibble_dots(&query.runs, rows, part, sums);
            for ((node, sum), out) in part.iter().zip(sums).zip(out) {
                let [scale, bias] = extras[*node as usize];
                #[expect(clippy::cast_precision_loss, reason = "codes are an approximation")]
                let product = query.factor * *sum as f32 - query.middle;
                *out = query.base + bias - scale * product;
            }
        }
    }

    fn prefetch(&self, node: u32) {
        let (rows, lines) = (self.rows.as_slice(), self.lines());
        prefetch(self.extras.as_slice(), node as usize);
        (0..lines).for_each(|line| prefetch(rows, node as usize * lines + line));
    }

    pub(super) fn between(&self, node: u32, others: &[u32], out: &mut [f32]) {
        let (rows, extras, code_sums) = (self.rows.as_slice(), self.extras.as_slice(), self.sums.as_slice());
        let [own_scale, own_bias] = extras[node as usize];
        #[expect(clippy::cast_precision_loss, reason = "a few thousand components")]
        let constant = MIDDLE * MIDDLE * self.mean.len() as f32;
        let own_sum = code_sums[node as usize];
        // The node's codes are a query of small numbers, none of them negative.
        let (runs, mut sums) = (unpacked(self.row(node)), [0; BATCH]);
        for (part, out) in others.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let sums = &mut sums[..part.len()];
            nibble_dots(&runs, rows, part, sums);
            for ((other, sum), out) in part.iter().zip(sums).zip(out) {
                let [scale, bias] = extras[*other as usize];
                #[expect(clippy::cast_precision_loss, reason = "codes are an approximation")]
                let levels = *sum as f32 - MIDDLE * (own_sum + code_sums[*other as usize]) + constant;
                let product = own_scale * scale * levels;
                *out = match self.space {
                    Space::L2 => own_bias + bias - 2.0 * product,
                    Space::Cosine | Space::Ip => self.base + own_bias + bias - product,
                };
            }
        }
    }
}

/// The codes of a row, as the runs of a query.
fn unpacked(row: &[Line]) -> Vec<i8> {
    let mut runs = Vec::with_capacity(row.len() * LINE_NIBBLES);
    row.iter().for_each(|line| runs.extend(line.0.map(|byte| (byte & 15).cast_signed())));
    row.iter().for_each(|line| runs.extend(line.0.map(|byte| (byte >> 4).cast_signed())));
    runs
}

/// The level nearest to a component, 0 to 15.
#[inline]
fn level(x: f32, per_step: f32) -> f32 {
    // Truncation of a positive number, which unlike rounding every processor does in one instruction.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "clamped to 0..=15.5 first")]
    let level = (x * per_step + (MIDDLE + 0.5)).clamp(0.0, 15.5) as i32 as f32;
    level
}

fn lines(dimension: usize) -> usize {
    dimension.div_ceil(LINE_NIBBLES)
}
