//! Giving memory back to the operating system.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a call of the C library that takes and returns plain numbers")
)]

/// Returns memory that was freed but is still held by the C library's allocator; costs milliseconds. With
/// other allocators than glibc's it does nothing.
pub fn give_back_memory() {
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
