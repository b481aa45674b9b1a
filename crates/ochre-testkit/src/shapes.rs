//! Vectors as people have them, on which graphs lose whole groups of records: variants of a template, copies, clusters
//! and curves in the order they were made, outliers.

use fastrand::Rng;

/// Vectors, and which of them are hard to find.
#[derive(Debug)]
pub struct Shape {
    /// What it is.
    pub name: &'static str,
    /// The vectors, in the order they are added.
    pub vectors: Vec<Vec<f32>>,
    /// The indices of those that are hard to find.
    pub hard: Vec<usize>,
}

/// Distance of a variant from its template, of which the length is 1: 0.07 as cosine distance.
const VARIANT: f32 = 0.39;
/// The same for copies that hardly differ.
const NEAR_COPY: f32 = 0.05;

/// Every shape, of about so many vectors each.
pub fn shapes(count: usize, rng: &mut Rng) -> Vec<Shape> {
    vec![
        templates(count, rng),
        one_template(count, rng),
        copies(count, rng),
        near_copies(count, rng),
        clusters_in_order(count, rng),
        curve(count, rng),
        outliers(count, rng),
    ]
}

fn normal(rng: &mut Rng) -> f32 {
    // Box and Muller; 1 − u is above 0.
    (-2.0 * (1.0 - rng.f32()).ln()).sqrt() * (std::f32::consts::TAU * rng.f32()).cos()
}

fn random(dimension: usize, rng: &mut Rng) -> Vec<f32> {
    (0..dimension).map(|_| normal(rng)).collect()
}

/// A vector of length 1 in any direction.
fn unit(dimension: usize, rng: &mut Rng) -> Vec<f32> {
    let vector = random(dimension, rng);
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn around(centre: &[f32], spread: f32, rng: &mut Rng) -> Vec<f32> {
    centre.iter().zip(unit(centre.len(), rng)).map(|(x, noise)| x + spread * noise).collect()
}

/// Texts with a hundred variants each.
fn templates(count: usize, rng: &mut Rng) -> Shape {
    let centres: Vec<Vec<f32>> = (0..count / 100).map(|_| unit(384, rng)).collect();
    let vectors: Vec<Vec<f32>> =
        centres.iter().flat_map(|centre| (0..100).map(|_| around(centre, VARIANT, rng)).collect::<Vec<_>>()).collect();
    Shape { name: "templates", hard: (0..vectors.len()).step_by(3).collect(), vectors }
}

/// A hundred variants of one text among others.
fn one_template(count: usize, rng: &mut Rng) -> Shape {
    let centre = unit(384, rng);
    let mut vectors: Vec<Vec<f32>> = (0..100).map(|_| around(&centre, VARIANT, rng)).collect();
    vectors.extend((100..count).map(|_| unit(384, rng)));
    Shape { name: "one template", hard: (0..100).collect(), vectors }
}

/// A fifth of all is one vector, then come its neighbours, then others.
fn copies(count: usize, rng: &mut Rng) -> Shape {
    let (same, near) = (count / 5, count / 24);
    let centre = unit(384, rng);
    let mut vectors = vec![centre.clone(); same];
    vectors.extend((0..near).map(|_| around(&centre, VARIANT, rng)));
    vectors.extend((same + near..count).map(|_| unit(384, rng)));
    Shape { name: "copies", hard: (same..same + near).chain((0..same).step_by(50)).collect(), vectors }
}

/// Many that hardly differ, after others.
fn near_copies(count: usize, rng: &mut Rng) -> Shape {
    let near = count / 8;
    let centre = unit(384, rng);
    let mut vectors: Vec<Vec<f32>> = (near..count).map(|_| unit(384, rng)).collect();
    vectors.extend((0..near).map(|_| around(&centre, NEAR_COPY, rng)));
    Shape { name: "near copies", hard: (count - near..count).collect(), vectors }
}

/// Documents added chunk by chunk: each cluster is whole before the next one begins.
fn clusters_in_order(count: usize, rng: &mut Rng) -> Shape {
    let centres: Vec<Vec<f32>> = (0..count / 110).map(|_| random(48, rng)).collect();
    let vectors: Vec<Vec<f32>> = centres
        .iter()
        .flat_map(|centre| {
            (0..110).map(|_| centre.iter().map(|x| x + 0.2 * normal(rng)).collect()).collect::<Vec<Vec<f32>>>()
        })
        .collect();
    Shape { name: "clusters in order", hard: (0..vectors.len()).step_by(3).collect(), vectors }
}

/// Measurements that change slowly, one after the other.
fn curve(count: usize, rng: &mut Rng) -> Shape {
    let waves: Vec<(f32, f32)> = (0..48).map(|_| (0.1 + 0.9 * rng.f32(), 6.0 * rng.f32())).collect();
    #[expect(clippy::cast_precision_loss, reason = "some thousand")]
    let time = |index: usize| 40.0 * index as f32 / 12_000.0;
    let vectors =
        (0..count).map(|index| waves.iter().map(|(speed, phase)| (time(index) * speed + phase).sin()).collect());
    Shape { name: "curve", vectors: vectors.collect(), hard: (0..count).step_by(3).collect() }
}

/// One vector near zero and extreme ones among normal points.
fn outliers(count: usize, rng: &mut Rng) -> Shape {
    let mut vectors: Vec<Vec<f32>> = (0..count).map(|_| random(48, rng)).collect();
    for (index, factor) in [(count / 2, 1e-4), (7, 1e4), (count / 3, -1e4), (count - 5, 1e3)] {
        vectors[index].iter_mut().for_each(|x| *x *= factor);
    }
    let hard = [count / 2, 7, count / 3, count - 5].into_iter().chain(8..count.min(500)).collect();
    Shape { name: "outliers", vectors, hard }
}
