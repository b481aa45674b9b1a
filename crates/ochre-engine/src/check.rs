//! Verifying a database at rest: what the store holds, and what was derived of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ochre_index::{SnapshotError, verify_snapshot};
use ochre_store::{Error as StoreError, ExtensionTables, Finding, Report};

use crate::cache_dir::{FOLDER, is_graph, is_summed};
use crate::extension::{StoreExtension, tables_known};
use crate::options::Options;

/// Checks a database at rest, as [`check_with`] the extensions that come with the engine.
///
/// # Errors
/// As [`check_with`].
pub fn check(directory: &Path) -> Result<Report, StoreError> {
    check_with(directory, &Options::default().extensions, &[])
}

/// Checks a database at rest: its structure, every checksum, every reference, and that it defines nothing but what it
/// and these extensions do. Damage is no error: it is in the report.
///
/// # Errors
/// [`StoreError::Locked`] if a process has it open, [`StoreError::TooNew`], [`StoreError::Io`] if it cannot be read.
pub fn check_with(
    directory: &Path, extensions: &[Arc<dyn StoreExtension>], tables: &[ExtensionTables],
) -> Result<Report, StoreError> {
    let mut known = tables_known(extensions);
    known.extend(tables.iter().cloned());
    let mut report = ochre_store::check(directory, &known)?;
    for folder in std::fs::read_dir(directory.join(FOLDER)).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if let Some(problem) = problem_of(&path) {
                let file = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
                report.findings.push(Finding { file, problem: format!("{problem}; delete it, it is rebuilt") });
            }
        }
    }
    Ok(report)
}

/// What is wrong with a derived file; nothing with one of another version, which is not used.
fn problem_of(path: &Path) -> Option<String> {
    if is_graph(path) {
        let verified = File::open(path).map_err(SnapshotError::from).and_then(|mut file| {
            let sound: Result<_, std::convert::Infallible> = verify_snapshot(&mut file, &mut |_, _| Ok(()));
            let Ok(sound) = sound;
            sound
        });
        let problem = verified.err()?.to_string();
        return problem.contains("checksum").then_some(problem);
    }
    if !is_summed(path) {
        return None;
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Some(format!("it cannot be read: {error}")),
    };
    let is_sound = bytes
        .split_last_chunk::<4>()
        .is_some_and(|(body, checksum)| crc32c::crc32c(body) == u32::from_le_bytes(*checksum));
    (!is_sound).then(|| "it does not match its checksum".into())
}
