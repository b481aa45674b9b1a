//! What a distance means in each space, exactly as Chroma answers it.

use ochre_kernels::{dot, l2_squared};
use ochre_model::{Space, norm};

/// A query in a space: measures the exact distance to any vector of its dimension.
pub struct Metric<'a> {
    space: Space,
    query: &'a [f32],
    norm: f32,
}

impl<'a> Metric<'a> {
    /// Prepares a query.
    pub fn new(space: Space, query: &'a [f32]) -> Self {
        Self { space, query, norm: norm(query) }
    }

    /// The distance to a vector of this norm, in `f32` arithmetic: squared units for `l2`, `1 − cos` for
    /// `cosine` (1 if either vector is zero), `1 − ⟨a, b⟩` for `ip`.
    pub fn distance(&self, vector: &[f32], vector_norm: f32) -> f32 {
        let distance = match self.space {
            Space::L2 => l2_squared(self.query, vector),
            Space::Ip => {
                let product = dot(self.query, vector);
                if product.is_finite() { 1.0 - product } else { narrow(1.0 - wide_dot(self.query, vector)) }
            }
            Space::Cosine if self.norm == 0.0 || vector_norm == 0.0 => 1.0,
            Space::Cosine => {
                // Products may leave the range of f32 on either side, their quotient does not.
                let product = dot(self.query, vector);
                let is_tame = product.is_normal() || (product == 0.0 && self.norm > 1e-15 && vector_norm > 1e-15);
                let product = if is_tame { f64::from(product) } else { wide_dot(self.query, vector) };
                1.0 - narrow(product / (f64::from(self.norm) * f64::from(vector_norm)))
            }
        };
        // Not a number is no nearer than anything.
        if distance.is_nan() { f32::INFINITY } else { distance }
    }
}

/// The inner product in double precision: for vectors whose products leave the range of f32.
fn wide_dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[expect(clippy::cast_possible_truncation, reason = "distances are f32")]
fn narrow(distance: f64) -> f32 {
    distance as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_chromas_to_the_last_digit() {
        let vectors = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [0.0, 0.0]];
        let check = |space, expected: [f32; 4]| {
            let metric = Metric::new(space, &[1.0, 1.0]);
            assert_eq!(vectors.map(|vector| metric.distance(&vector, norm(&vector))), expected, "{space:?}");
        };
        check(Space::L2, [1.0, 2.0, 13.0, 2.0]);
        check(Space::Cosine, [0.292_893_23, 0.292_893_23, 0.010_050_476, 1.0]);
        check(Space::Ip, [0.0, -1.0, -6.0, 1.0]);
    }

    #[test]
    fn extreme_numbers_have_distances_too() {
        let distance =
            |space, query: [f32; 2], vector: [f32; 2]| Metric::new(space, &query).distance(&vector, norm(&vector));
        assert_eq!(distance(Space::Cosine, [1e20, 0.0], [1e20, 1e20]), 0.292_893_23);
        assert_eq!(distance(Space::Cosine, [1e-30, 0.0], [1e-30, 1e-30]), 0.292_893_23);
        assert_eq!(distance(Space::Ip, [3e38, 3e38], [3e38, -3e38]), 1.0);
        assert_eq!(distance(Space::L2, [3e38, 0.0], [-3e38, 0.0]), f32::INFINITY);
    }
}
