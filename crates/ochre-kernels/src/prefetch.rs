//! Asking the processor for memory before it is needed. A hint: it changes no result.
#![expect(unsafe_code, reason = "an intrinsic; it reads nothing and cannot fault")]

/// Asks for the first cache line of `slice[index]`; nothing happens if there is no such element.
#[inline]
pub fn prefetch<T>(slice: &[T], index: usize) {
    if let Some(element) = slice.get(index) {
        line(std::ptr::from_ref(element).cast());
    }
}

/// Asks for all of a row of floats.
#[inline]
pub fn prefetch_row(row: &[f32]) {
    for part in row.chunks(16) {
        line(part.as_ptr().cast());
    }
}

#[inline]
fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching any address is harmless; this one lies within a slice.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
