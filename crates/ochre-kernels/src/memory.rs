//! Giving memory back to the operating system, by way of the C library's allocator.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "calls of the C library that take and return plain numbers")
)]

/// Returns memory that was freed but is still held by the C library's allocator; costs milliseconds. With
/// other allocators than glibc's it does nothing.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(keep_bytes: usize) -> i32;
        }
        // SAFETY: glibc's function of this name and type; it may be called at any time from any thread.
        unsafe {
            malloc_trim(0);
        }
    }
}

/// Buffers from this size on go back to the operating system as soon as they are freed, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 512 << 10;

/// Has large buffers of the whole process given back as soon as they are freed. glibc otherwise comes to keep what is
/// smaller than the largest buffer ever freed, up to 32 MiB, between buffers that are in use. For programs, before
/// they have threads; a library leaves this to the program it is part of. Whoever set glibc's own variables is left
/// alone.
pub fn set_mmap_threshold() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// `M_MMAP_THRESHOLD`: larger buffers are mappings of their own.
        const MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        let is_set = |name: &&str| std::env::var_os(name).is_some();
        if ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"].iter().any(is_set) {
            return;
        }
        // SAFETY: glibc's function of this name and type, with a parameter it knows.
        unsafe {
            mallopt(MMAP_THRESHOLD, LARGE);
        }
    }
}
