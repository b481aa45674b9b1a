//! The inner product over 8-bit codes: what a graph search computes instead of full distances.
#![expect(unsafe_code, reason = "intrinsics need it; each use is guarded by the tier and the lengths")]

use crate::simd_level::{SimdLevel, simd_level};

/// The inner product of two code vectors, `Σ aᵢ·bᵢ`, exact. Codes lie in −127..=127 and dimensions
/// stay under 2¹⁶, so the sum fits an `i32`.
///
/// # Panics
/// If the lengths differ.
pub fn byte_dot(a: &[i8], b: &[i8]) -> i32 {
    assert_eq!(a.len(), b.len(), "codes of different dimension");
    match simd_level() {
        SimdLevel::Scalar => byte_dot_scalar(a, b),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd_level` never names an instruction set that the processor lacks; lengths are equal.
        SimdLevel::Avx2 => unsafe { byte_dot_avx2(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx512 => unsafe { byte_dot_avx512(a, b) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx512Vnni => unsafe { byte_dot_vnni(a, b) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => byte_dot_scalar(a, b),
    }
}

pub(crate) fn byte_dot_scalar(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// Needs AVX2, and slices of equal length.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn byte_dot_avx2(a: &[i8], b: &[i8]) -> i32 {
        let blocks = a.len() / 16 * 16;
        let mut sum = _mm256_setzero_si256();
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 16 <= blocks <= len` of both slices; the loads are unaligned ones.
            let (x, y) =
                unsafe { (_mm_loadu_si128(a.as_ptr().add(i).cast()), _mm_loadu_si128(b.as_ptr().add(i).cast())) };
            let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(x), _mm256_cvtepi8_epi16(y));
            sum = _mm256_add_epi32(sum, products);
            i += 16;
        }
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        let last = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter));
        _mm_cvtsi128_si32(last) + super::byte_dot_scalar(&a[blocks..], &b[blocks..])
    }

    /// # Safety
    /// Needs AVX-512 F and BW, and slices of equal length.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn byte_dot_avx512(a: &[i8], b: &[i8]) -> i32 {
        let blocks = a.len() / 32 * 32;
        let mut sum = _mm512_setzero_si512();
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 32 <= blocks <= len` of both slices; the loads are unaligned ones.
            let (x, y) =
                unsafe { (_mm256_loadu_si256(a.as_ptr().add(i).cast()), _mm256_loadu_si256(b.as_ptr().add(i).cast())) };
            let products = _mm512_madd_epi16(_mm512_cvtepi8_epi16(x), _mm512_cvtepi8_epi16(y));
            sum = _mm512_add_epi32(sum, products);
            i += 32;
        }
        _mm512_reduce_add_epi32(sum) + super::byte_dot_scalar(&a[blocks..], &b[blocks..])
    }

    /// The instruction multiplies unsigned by signed bytes: `a` is raised by 128, and what that adds, 128
    /// times the sum of `b`, is taken off again.
    ///
    /// # Safety
    /// Needs AVX-512 F, BW and VNNI, and slices of equal length.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn byte_dot_vnni(a: &[i8], b: &[i8]) -> i32 {
        let blocks = a.len() / 64 * 64;
        let raised = _mm512_set1_epi8(i8::MIN);
        let (mut sum, mut excess) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let mut i = 0;
        while i < blocks {
            // SAFETY: `i + 64 <= blocks <= len` of both slices; the loads are unaligned ones.
            let (x, y) =
                unsafe { (_mm512_loadu_si512(a.as_ptr().add(i).cast()), _mm512_loadu_si512(b.as_ptr().add(i).cast())) };
            sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(x, raised), y);
            excess = _mm512_dpbusd_epi32(excess, raised, y);
            i += 64;
        }
        let sum = _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, excess));
        sum + super::byte_dot_scalar(&a[blocks..], &b[blocks..])
    }
}
#[cfg(target_arch = "x86_64")]
use x86::{byte_dot_avx2, byte_dot_avx512, byte_dot_vnni};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_gives_the_exact_sum() {
        let mut rng = fastrand::Rng::with_seed(3);
        for len in (0..70).chain([383, 384, 385, 4096]) {
            let a: Vec<i8> = (0..len).map(|_| rng.i8(-127..=127)).collect();
            let b: Vec<i8> = (0..len).map(|_| rng.i8(-127..=127)).collect();
            let exact: i64 = a.iter().zip(&b).map(|(x, y)| i64::from(*x) * i64::from(*y)).sum();
            assert_eq!(i64::from(byte_dot_scalar(&a, &b)), exact, "scalar, len {len}");
            assert_eq!(i64::from(byte_dot(&a, &b)), exact, "dispatched, len {len}");
            #[cfg(target_arch = "x86_64")]
            {
                if crate::simd_level::supported() >= SimdLevel::Avx2 {
                    // SAFETY: the processor has the instructions; the lengths are equal.
                    assert_eq!(i64::from(unsafe { byte_dot_avx2(&a, &b) }), exact, "avx2, len {len}");
                }
                if crate::simd_level::supported() >= SimdLevel::Avx512 {
                    // SAFETY: as above.
                    assert_eq!(i64::from(unsafe { byte_dot_avx512(&a, &b) }), exact, "avx512, len {len}");
                }
                if crate::simd_level::supported() >= SimdLevel::Avx512Vnni {
                    // SAFETY: as above.
                    assert_eq!(i64::from(unsafe { byte_dot_vnni(&a, &b) }), exact, "avx512-vnni, len {len}");
                }
            }
        }
    }
}
