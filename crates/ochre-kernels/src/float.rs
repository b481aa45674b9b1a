//! Distances over `f32` vectors.
//!
//! Sums are kept in several accumulators, so results of different tiers differ in the last bits; the
//! property test bounds the difference relative to the size of the terms.
#![expect(unsafe_code, reason = "intrinsics need it; each use is guarded by the tier and the lengths")]

use crate::simd_level::{SimdLevel, simd_level};

/// The squared Euclidean distance, `Σ (aᵢ − bᵢ)²`. Squared units; 0 for equal vectors.
///
/// # Panics
/// If the lengths differ.
pub fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimension");
    match simd_level() {
        SimdLevel::Scalar => l2_squared_scalar(a, b),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd_level` never names an instruction set that the processor lacks; lengths are equal.
        SimdLevel::Avx2 => unsafe { l2_squared_avx2(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx512 | SimdLevel::Avx512Vnni => unsafe { l2_squared_avx512(a, b) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => l2_squared_scalar(a, b),
    }
}

/// The inner product, `Σ aᵢ·bᵢ`.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimension");
    match simd_level() {
        SimdLevel::Scalar => dot_scalar(a, b),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd_level` never names an instruction set that the processor lacks; lengths are equal.
        SimdLevel::Avx2 => unsafe { dot_avx2(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx512 | SimdLevel::Avx512Vnni => unsafe { dot_avx512(a, b) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => dot_scalar(a, b),
    }
}

/// Accumulators of the scalar twins: enough for the compiler to vectorise the loop by itself.
const LANES: usize = 16;

fn sum_scalar(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for (x, y) in a_rest.iter().zip(b_rest) {
        sum += term(*x, *y);
    }
    sum
}

pub(crate) fn l2_squared_scalar(a: &[f32], b: &[f32]) -> f32 {
    sum_scalar(a, b, |x, y| (x - y) * (x - y))
}

pub(crate) fn dot_scalar(a: &[f32], b: &[f32]) -> f32 {
    sum_scalar(a, b, |x, y| x * y)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// Needs AVX2 and FMA, and slices of equal length.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn l2_squared_avx2(a: &[f32], b: &[f32]) -> f32 {
        let blocks = a.len() / 16 * 16;
        let (mut s0, mut s1) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 16 <= blocks <= len` of both slices; the loads are unaligned ones.
            unsafe {
                let d0 = _mm256_sub_ps(_mm256_loadu_ps(a.as_ptr().add(i)), _mm256_loadu_ps(b.as_ptr().add(i)));
                let d1 = _mm256_sub_ps(_mm256_loadu_ps(a.as_ptr().add(i + 8)), _mm256_loadu_ps(b.as_ptr().add(i + 8)));
                s0 = _mm256_fmadd_ps(d0, d0, s0);
                s1 = _mm256_fmadd_ps(d1, d1, s1);
            }
            i += 16;
        }
        horizontal_sum(_mm256_add_ps(s0, s1)) + super::l2_squared_scalar(&a[blocks..], &b[blocks..])
    }

    /// # Safety
    /// Needs AVX2 and FMA, and slices of equal length.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
        let blocks = a.len() / 16 * 16;
        let (mut s0, mut s1) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 16 <= blocks <= len` of both slices; the loads are unaligned ones.
            unsafe {
                s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a.as_ptr().add(i)), _mm256_loadu_ps(b.as_ptr().add(i)), s0);
                s1 =
                    _mm256_fmadd_ps(_mm256_loadu_ps(a.as_ptr().add(i + 8)), _mm256_loadu_ps(b.as_ptr().add(i + 8)), s1);
            }
            i += 16;
        }
        horizontal_sum(_mm256_add_ps(s0, s1)) + super::dot_scalar(&a[blocks..], &b[blocks..])
    }

    #[target_feature(enable = "avx2")]
    fn horizontal_sum(v: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
    }

    /// # Safety
    /// Needs AVX-512 F, and slices of equal length.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn l2_squared_avx512(a: &[f32], b: &[f32]) -> f32 {
        let blocks = a.len() / 32 * 32;
        let (mut s0, mut s1) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 32 <= blocks <= len` of both slices; the loads are unaligned ones.
            unsafe {
                let d0 = _mm512_sub_ps(_mm512_loadu_ps(a.as_ptr().add(i)), _mm512_loadu_ps(b.as_ptr().add(i)));
                let d1 =
                    _mm512_sub_ps(_mm512_loadu_ps(a.as_ptr().add(i + 16)), _mm512_loadu_ps(b.as_ptr().add(i + 16)));
                s0 = _mm512_fmadd_ps(d0, d0, s0);
                s1 = _mm512_fmadd_ps(d1, d1, s1);
            }
            i += 32;
        }
        _mm512_reduce_add_ps(_mm512_add_ps(s0, s1)) + super::l2_squared_scalar(&a[blocks..], &b[blocks..])
    }

    /// # Safety
    /// Needs AVX-512 F, and slices of equal length.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn dot_avx512(a: &[f32], b: &[f32]) -> f32 {
        let blocks = a.len() / 32 * 32;
        let (mut s0, mut s1) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 32 <= blocks <= len` of both slices; the loads are unaligned ones.
            unsafe {
                s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a.as_ptr().add(i)), _mm512_loadu_ps(b.as_ptr().add(i)), s0);
                s1 = _mm512_fmadd_ps(
                    _mm512_loadu_ps(a.as_ptr().add(i + 16)),
                    _mm512_loadu_ps(b.as_ptr().add(i + 16)),
                    s1,
                );
            }
            i += 32;
        }
        _mm512_reduce_add_ps(_mm512_add_ps(s0, s1)) + super::dot_scalar(&a[blocks..], &b[blocks..])
    }
}
#[cfg(target_arch = "x86_64")]
use x86::{dot_avx2, dot_avx512, l2_squared_avx2, l2_squared_avx512};

#[cfg(test)]
mod tests {
    use super::*;

    type Kernel = fn(&[f32], &[f32]) -> f32;

    /// Every tier this processor has against plain `f64` arithmetic, at every length up to 70 and some beyond.
    fn check(reference: fn(f64, f64) -> f64, kernels: &[Kernel]) {
        let mut rng = fastrand::Rng::with_seed(7);
        for len in (0..70).chain([96, 100, 383, 384, 385, 1536]) {
            let a: Vec<f32> = (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect();
            let b: Vec<f32> = (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect();
            let terms = a.iter().zip(&b).map(|(x, y)| reference(f64::from(*x), f64::from(*y)));
            let (sum, size) = terms.fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
            for kernel in kernels {
                let got = f64::from(kernel(&a, &b));
                assert!((got - sum).abs() <= 1e-5 * size + 1e-12, "len {len}: {got} against {sum}");
            }
        }
    }

    #[test]
    fn l2_agrees_with_double_precision_on_every_tier() {
        let mut kernels: Vec<Kernel> = vec![l2_squared, l2_squared_scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd_level::supported() >= SimdLevel::Avx2 {
                // SAFETY: the processor has the instructions; `check` passes equal lengths.
                kernels.push(|a, b| unsafe { l2_squared_avx2(a, b) });
            }
            if crate::simd_level::supported() >= SimdLevel::Avx512 {
                // SAFETY: as above.
                kernels.push(|a, b| unsafe { l2_squared_avx512(a, b) });
            }
        }
        check(|x, y| (x - y) * (x - y), &kernels);
    }

    #[test]
    fn dot_agrees_with_double_precision_on_every_tier() {
        let mut kernels: Vec<Kernel> = vec![dot, dot_scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd_level::supported() >= SimdLevel::Avx2 {
                // SAFETY: the processor has the instructions; `check` passes equal lengths.
                kernels.push(|a, b| unsafe { dot_avx2(a, b) });
            }
            if crate::simd_level::supported() >= SimdLevel::Avx512 {
                // SAFETY: as above.
                kernels.push(|a, b| unsafe { dot_avx512(a, b) });
            }
        }
        check(|x, y| x * y, &kernels);
    }

    #[test]
    #[should_panic(expected = "different dimension")]
    fn different_lengths_are_refused() {
        l2_squared(&[1.0], &[1.0, 2.0]);
    }
}
