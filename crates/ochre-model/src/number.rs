//! Exact comparison of integers with floating-point numbers, also where an `i64` has no `f64`.

use std::cmp::Ordering;

/// Compares `int` with `float` as real numbers; `None` only for NaN.
///
/// Converting either side would be wrong past 2⁵³: `2⁵³ + 1` is not the float `2⁵³`.
pub fn compare_int_float(int: i64, float: f64) -> Option<Ordering> {
    /// 2⁶³: the first float above every `i64`.
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= ABOVE {
        return Some(Ordering::Less);
    }
    if float < -ABOVE {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "−2⁶³ ≤ whole < 2⁶³, and whole has no fraction")]
    let order = int.cmp(&(whole as i64));
    Some(order.then_with(|| 0.0f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    fn check(int: i64, float: f64, expected: Option<Ordering>) {
        assert_eq!(compare_int_float(int, float), expected, "{int} against {float}");
    }

    #[test]
    fn integers_and_floats_compare_as_real_numbers() {
        check(1, 1.0, Some(Equal));
        check(1, 1.5, Some(Less));
        check(2, 1.5, Some(Greater));
        check(-1, -1.5, Some(Greater));
        check(-2, -1.5, Some(Less));
        check(0, -0.0, Some(Equal));
        check(0, f64::NAN, None);
    }

    #[test]
    fn comparison_is_exact_beyond_the_53_bits_of_a_float() {
        const P53: i64 = 1 << 53;
        check(P53, P53 as f64, Some(Equal));
        check(P53 + 1, P53 as f64, Some(Greater));
        check(-P53 - 1, -(P53 as f64), Some(Less));
        check(i64::MAX, i64::MAX as f64, Some(Less));
        check(i64::MIN, i64::MIN as f64, Some(Equal));
        check(i64::MAX, f64::INFINITY, Some(Less));
        check(i64::MIN, f64::NEG_INFINITY, Some(Greater));
    }
}
