//! What the native programs of the benchmarks share: vectors from files.

use std::path::Path;

/// All numbers of a file of little-endian f32.
///
/// # Errors
/// Whatever the operating system says.
pub fn read_floats(path: &Path) -> std::io::Result<Vec<f32>> {
    Ok(bytemuck::pod_collect_to_vec(&std::fs::read(path)?))
}
