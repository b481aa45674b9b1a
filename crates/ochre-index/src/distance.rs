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
        match self.space {
            Space::L2 => l2_squared(self.query, vector),
            Space::Ip => 1.0 - dot(self.query, vector),
            Space::Cosine if self.norm == 0.0 || vector_norm == 0.0 => 1.0,
            Space::Cosine => {
                // The product of two norms may leave the range of f32, the quotient does not.
                let product = f64::from(self.norm) * f64::from(vector_norm);
                #[expect(clippy::cast_possible_truncation, reason = "a cosine fits f32")]
                let cosine = (f64::from(dot(self.query, vector)) / product) as f32;
                1.0 - cosine
            }
        }
    }
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
}
