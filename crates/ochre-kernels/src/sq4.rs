//! Inner products over 4-bit codes, two to a byte: what a graph search computes most.
//!
//! A row of codes is a whole number of [`Line`]s, `B` bytes. Byte `j` holds component `j` in its low half
//! and component `B + j` in its high half, so a row is unpacked with one mask and one shift, and a query
//! is two plain runs of `B` signed bytes: first those for the low halves, then those for the high ones.
//! Components past the dimension are 0 on both sides.
#![expect(unsafe_code, reason = "intrinsics need it; each use is guarded by the tier and the lengths")]

use crate::simd_level::{SimdLevel, simd_level};

/// 64 bytes of codes, aligned so that a row touches no cache line in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

// SAFETY: 64 bytes without gaps, any of which may be anything.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// Codes in a line.
pub const LINE_NIBBLES: usize = 128;

/// The inner products of a query with some of the rows, `sums[i] = Σ query · rows[which[i]]`, exact.
/// Codes lie in 0..=15 and query components in −127..=127; up to 2¹⁶ components fit an `i32`.
///
/// # Panics
/// If `sums` and `which` differ in length, or a row is not there.
pub fn nibble_dots(query: &[i8], rows: &[Line], which: &[u32], sums: &mut [i32]) {
    let lines = query.len() / LINE_NIBBLES;
    assert_eq!(which.len(), sums.len(), "one sum for each row");
    assert_eq!(query.len(), lines * LINE_NIBBLES, "a query fills whole lines");
    match simd_level() {
        SimdLevel::Scalar => each(rows, lines, which, sums, |row| nibble_dot_scalar(query, row)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `simd_level` never names an instruction set that the processor lacks; the query has
        // `LINE_NIBBLES` components for each line of a row.
        SimdLevel::Avx2 | SimdLevel::Avx512 => unsafe { nibble_dots_avx2(query, rows, which, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx512Vnni => unsafe { nibble_dots_vnni(query, rows, which, sums) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => each(rows, lines, which, sums, |row| nibble_dot_scalar(query, row)),
    }
}

#[inline(always)]
fn each(rows: &[Line], lines: usize, which: &[u32], sums: &mut [i32], dot: impl Fn(&[Line]) -> i32) {
    for (row, sum) in which.iter().zip(sums) {
        *sum = dot(&rows[*row as usize * lines..(*row as usize + 1) * lines]);
    }
}

fn nibble_dot_scalar(query: &[i8], row: &[Line]) -> i32 {
    let (low, high) = query.split_at(query.len() / 2);
    let mut sum = 0;
    for ((line, low), high) in row.iter().zip(low.as_chunks::<64>().0).zip(high.as_chunks::<64>().0) {
        for ((codes, low), high) in line.0.iter().zip(low).zip(high) {
            sum += i32::from(codes & 15) * i32::from(*low) + i32::from(codes >> 4) * i32::from(*high);
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE_NIBBLES, Line, each};

    /// # Safety
    /// Needs AVX2, and 128 query components for each line of a row.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn nibble_dots_avx2(query: &[i8], rows: &[Line], which: &[u32], sums: &mut [i32]) {
        let lines = query.len() / LINE_NIBBLES;
        let ((fours, rest), (sums, sums_rest)) = (which.as_chunks::<4>(), sums.as_chunks_mut::<4>());
        for (four, sums) in fours.iter().zip(sums) {
            let four = four.map(|row| &rows[row as usize * lines..(row as usize + 1) * lines]);
            // SAFETY: the caller's promise, and each row has `lines` lines.
            *sums = unsafe { nibble_dots_4_avx2(query, four) };
        }
        // SAFETY: the caller's promise.
        each(rows, lines, rest, sums_rest, |row| unsafe { nibble_dot_avx2(query, row) });
    }

    /// Four rows at once, which share the loads of the query and the adding up at the end.
    ///
    /// # Safety
    /// Needs AVX2, and rows of one line for each 128 query components.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn nibble_dots_4_avx2(query: &[i8], rows: [&[Line]; 4]) -> [i32; 4] {
        /// Half lines whose products are added up in 16 bits: 4 · 4 · 15 · 127 < 2¹⁵.
        const NARROW: usize = 4;
        let (low, high) = query.split_at(query.len() / 2);
        let halves = low.len() / 32;
        let mut wide = [_mm256_setzero_si256(); 4];
        let mut half = 0;
        while half < halves {
            let mut narrow = [_mm256_setzero_si256(); 4];
            let end = halves.min(half + NARROW);
            while half < end {
                // SAFETY: both runs have 32 bytes for each half of a line; unaligned loads.
                let (low, high) = unsafe {
                    (
                        _mm256_loadu_si256(low.as_ptr().add(half * 32).cast()),
                        _mm256_loadu_si256(high.as_ptr().add(half * 32).cast()),
                    )
                };
                for (narrow, row) in narrow.iter_mut().zip(rows) {
                    // SAFETY: a row has two halves of 32 bytes for each line, as many as the query; its lines
                    // lie one after the other.
                    let codes = unsafe { _mm256_loadu_si256(row.as_ptr().cast::<u8>().add(half * 32).cast()) };
                    let (x, y) = halves_256(codes);
                    let products = _mm256_add_epi16(_mm256_maddubs_epi16(x, low), _mm256_maddubs_epi16(y, high));
                    *narrow = _mm256_add_epi16(*narrow, products);
                }
                half += 1;
            }
            for (wide, narrow) in wide.iter_mut().zip(narrow) {
                *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
            }
        }
        let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(wide[0], wide[1]), _mm256_hadd_epi32(wide[2], wide[3]));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let mut out = [0; 4];
        // SAFETY: `out` has room for four; an unaligned store.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
        out
    }

    /// # Safety
    /// Needs AVX-512 F, BW and VNNI, and 128 query components for each line of a row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn nibble_dots_vnni(query: &[i8], rows: &[Line], which: &[u32], sums: &mut [i32]) {
        let lines = query.len() / LINE_NIBBLES;
        let ((fours, rest), (sums, sums_rest)) = (which.as_chunks::<4>(), sums.as_chunks_mut::<4>());
        for (four, sums) in fours.iter().zip(sums) {
            let four = four.map(|row| &rows[row as usize * lines..(row as usize + 1) * lines]);
            // SAFETY: the caller's promise, and each row has `lines` lines.
            *sums = unsafe { nibble_dots_4_vnni(query, four) };
        }
        // SAFETY: the caller's promise.
        each(rows, lines, rest, sums_rest, |row| unsafe { nibble_dot_vnni(query, row) });
    }

    /// Four rows at once, which share the loads of the query and the adding up at the end.
    ///
    /// # Safety
    /// Needs AVX-512 F, BW and VNNI, and rows of one line for each 128 query components.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn nibble_dots_4_vnni(query: &[i8], rows: [&[Line]; 4]) -> [i32; 4] {
        let (low, high) = query.split_at(query.len() / 2);
        let mut wide = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 4];
        for line in 0..low.len() / 64 {
            // SAFETY: both runs have 64 bytes for each line; unaligned loads.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_si512(low.as_ptr().add(line * 64).cast()),
                    _mm512_loadu_si512(high.as_ptr().add(line * 64).cast()),
                )
            };
            for ((s0, s1), row) in wide.iter_mut().zip(rows) {
                // SAFETY: a row has a line of 64 bytes for each 128 query components.
                let codes = unsafe { _mm512_loadu_si512(row.as_ptr().add(line).cast()) };
                let (x, y) = halves_512(codes);
                *s0 = _mm512_dpbusd_epi32(*s0, x, low);
                *s1 = _mm512_dpbusd_epi32(*s1, y, high);
            }
        }
        let [a, b, c, d] = wide.map(|(s0, s1)| _mm512_add_epi32(s0, s1));
        // Each quarter of 128 bits of `sums` has a part of all four sums, in order.
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let sums = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let sums = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let mut out = [0; 4];
        // SAFETY: `out` has room for four; an unaligned store.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
        out
    }

    /// # Safety
    /// Needs AVX2, and 128 query components for each line.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn nibble_dot_avx2(query: &[i8], row: &[Line]) -> i32 {
        let (low, high) = query.split_at(query.len() / 2);
        let mut sum = _mm256_setzero_si256();
        for (index, line) in row.iter().enumerate() {
            for half in [0, 32] {
                // SAFETY: `half + 32 <= 64`, and both runs have 64 bytes for each line; unaligned loads.
                let (codes, low, high) = unsafe {
                    (
                        _mm256_loadu_si256(line.0.as_ptr().add(half).cast()),
                        _mm256_loadu_si256(low.as_ptr().add(index * 64 + half).cast()),
                        _mm256_loadu_si256(high.as_ptr().add(index * 64 + half).cast()),
                    )
                };
                let (x, y) = halves_256(codes);
                // Two products of at most 15 · 127 stay far below what 16 bits hold, and so do four.
                let products = _mm256_add_epi16(_mm256_maddubs_epi16(x, low), _mm256_maddubs_epi16(y, high));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
            }
        }
        sum_256(sum)
    }

    #[target_feature(enable = "avx2")]
    fn halves_256(codes: __m256i) -> (__m256i, __m256i) {
        let mask = _mm256_set1_epi8(15);
        (_mm256_and_si256(codes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask))
    }

    #[target_feature(enable = "avx2")]
    fn sum_256(sum: __m256i) -> i32 {
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
    }

    /// # Safety
    /// Needs AVX-512 F, BW and VNNI, and 128 query components for each line.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    pub(super) unsafe fn nibble_dot_vnni(query: &[i8], row: &[Line]) -> i32 {
        let (low, high) = query.split_at(query.len() / 2);
        let (mut s0, mut s1) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (index, line) in row.iter().enumerate() {
            // SAFETY: a line is 64 bytes, and both runs have 64 bytes for each; unaligned loads.
            let (codes, low, high) = unsafe {
                (
                    _mm512_loadu_si512(line.0.as_ptr().cast()),
                    _mm512_loadu_si512(low.as_ptr().add(index * 64).cast()),
                    _mm512_loadu_si512(high.as_ptr().add(index * 64).cast()),
                )
            };
            let (x, y) = halves_512(codes);
            s0 = _mm512_dpbusd_epi32(s0, x, low);
            s1 = _mm512_dpbusd_epi32(s1, y, high);
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(s0, s1))
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn halves_512(codes: __m512i) -> (__m512i, __m512i) {
        let mask = _mm512_set1_epi8(15);
        (_mm512_and_si512(codes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask))
    }
}
#[cfg(all(test, target_arch = "x86_64"))]
use x86::{nibble_dot_avx2, nibble_dot_vnni};
#[cfg(target_arch = "x86_64")]
use x86::{nibble_dots_avx2, nibble_dots_vnni};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_gives_the_exact_sums() {
        let mut rng = fastrand::Rng::with_seed(5);
        for lines in [1, 2, 3, 6, 12, 512] {
            let rows: Vec<Line> = (0..lines * 20).map(|_| Line(std::array::from_fn(|_| rng.u8(..)))).collect();
            // The extremes too: all sums at their largest must not overflow anywhere.
            let query: Vec<i8> =
                (0..lines * LINE_NIBBLES).map(|_| if lines == 512 { 127 } else { rng.i8(-127..=127) }).collect();
            let which: Vec<u32> = (0..23).map(|_| rng.u32(0..20)).collect();
            let mut sums = vec![0; which.len()];
            nibble_dots(&query, &rows, &which, &mut sums);
            let unpack = |row: u32| -> Vec<i64> {
                let bytes = rows[row as usize * lines..][..lines].iter().flat_map(|line| line.0);
                bytes.clone().map(|b| i64::from(b & 15)).chain(bytes.map(|b| i64::from(b >> 4))).collect()
            };
            for (row, sum) in which.iter().zip(sums) {
                let exact: i64 = unpack(*row).iter().zip(&query).map(|(c, q)| c * i64::from(*q)).sum();
                assert_eq!(i64::from(sum), exact, "dispatched, {lines} lines");
                let codes = &rows[*row as usize * lines..][..lines];
                assert_eq!(i64::from(nibble_dot_scalar(&query, codes)), exact, "scalar, {lines} lines");
                #[cfg(target_arch = "x86_64")]
                {
                    if crate::simd_level::supported() >= SimdLevel::Avx2 {
                        // SAFETY: the processor has the instructions; the lengths fit.
                        let dot = unsafe { nibble_dot_avx2(&query, codes) };
                        assert_eq!(i64::from(dot), exact, "avx2, {lines} lines");
                    }
                    if crate::simd_level::supported() >= SimdLevel::Avx512Vnni {
                        // SAFETY: as above.
                        let dot = unsafe { nibble_dot_vnni(&query, codes) };
                        assert_eq!(i64::from(dot), exact, "avx512-vnni, {lines} lines");
                    }
                }
            }
        }
    }
}
