//! Which instruction set the kernels use: the best the processor has, unless the environment says less.

use std::sync::OnceLock;

/// An instruction set that the kernels have code for, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// Plain Rust: the reference that the others are tested against, and what aarch64 uses.
    Scalar,
    /// AVX2 and FMA: 8 floats or 32 bytes at a time.
    Avx2,
    /// AVX-512 F and BW: 16 floats or 64 bytes at a time.
    Avx512,
    /// AVX-512 with VNNI: four products of bytes summed in one instruction.
    Avx512Vnni,
}

impl SimdLevel {
    /// The name that `OCHRE_KERNELS` accepts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}

/// The tier in use: the widest that this processor supports, lowered (never raised) by `OCHRE_KERNELS`.
pub fn simd_level() -> SimdLevel {
    static TIER: OnceLock<SimdLevel> = OnceLock::new();
    *TIER.get_or_init(|| {
        let best = supported();
        match std::env::var("OCHRE_KERNELS").as_deref() {
            Ok("scalar") => SimdLevel::Scalar,
            Ok("avx2") => best.min(SimdLevel::Avx2),
            Ok("avx512") => best.min(SimdLevel::Avx512),
            _ => best,
        }
    })
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn supported() -> SimdLevel {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        if is_x86_feature_detected!("avx512vnni") { SimdLevel::Avx512Vnni } else { SimdLevel::Avx512 }
    } else if avx2 {
        SimdLevel::Avx2
    } else {
        SimdLevel::Scalar
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn supported() -> SimdLevel {
    SimdLevel::Scalar
}
