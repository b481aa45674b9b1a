//! The project's own rules: which crate may depend on which, and that documents name what exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cycles::cycles;
use crate::root;

/// What each crate may name in `[dependencies]`; a new edge is an architecture decision.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ochre-auth", &[]),
    ("ochre-kernels", &[]),
    ("ochre-model", &[]),
    ("ochre-scheduler", &[]),
    ("ochre-schema", &["ochre-model"]),
    ("ochre-store", &["ochre-model"]),
    ("ochre-index", &["ochre-kernels", "ochre-model"]),
    (
        "ochre-engine",
        &["ochre-index", "ochre-kernels", "ochre-model", "ochre-scheduler", "ochre-schema", "ochre-store"],
    ),
    ("ochre-extension", &["ochre-auth", "ochre-engine"]),
    ("ochre-wire", &["ochre-model"]),
    ("ochre-server", &["ochre-auth", "ochre-engine", "ochre-extension", "ochre-wire"]),
    ("ochre-cli", &["ochre-engine", "ochre-server", "ochre-wire"]),
    ("ochre-notes", &["ochre-cli", "ochre-engine", "ochre-extension", "ochre-server"]),
    ("ochre-testkit", &["ochre-engine", "ochre-model"]),
    ("ochre-bench", &["ochre-engine", "ochre-index", "ochre-kernels", "ochre-model"]),
    ("ochre-fuzz", &["ochre-engine", "ochre-extension", "ochre-wire"]),
    ("xtask", &[]),
];

/// Documents whose every path in backticks must exist.
const CHECKED_DOCUMENTS: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];

/// Folders that a checkout has besides sources.
const TOP_FOLDERS: &[&str] =
    &["crates/", "docs/", "bench/", "conformance/", "examples/", "fuzz/", "xtask/", ".ci/", ".cargo/"];

/// Fails with everything that breaks a rule.
pub(crate) fn check() -> Result<()> {
    let mut broken = surplus_dependencies()?;
    broken.extend(missing_paths()?);
    broken.extend(headless_sources(&root())?);
    broken.extend(long_cycles()?);
    broken.extend(scattered_inner()?);
    broken.extend(misplaced_words()?);
    broken.extend(crate::widths::broken()?);
    ensure!(broken.is_empty(), "rules are broken:\n  {}", broken.join("\n  "));
    Ok(())
}

fn surplus_dependencies() -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            broken.push(format!("{name} has no entry in the table of allowed dependencies"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let ours = dependencies.filter(|dependency| dependency["path"].is_string() && dependency["kind"].is_null());
        for dependency in ours.filter_map(|dependency| dependency["name"].as_str()) {
            if !allowed.contains(&dependency) {
                broken.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    Ok(broken)
}

fn missing_paths() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for document in CHECKED_DOCUMENTS {
        let text = std::fs::read_to_string(root().join(document)).with_context(|| format!("cannot read {document}"))?;
        for path in
            text.split('`').skip(1).step_by(2).filter(|path| TOP_FOLDERS.iter().any(|top| path.starts_with(top)))
        {
            let is_pattern = path.contains(['*', '<', '{', ' ']);
            if !is_pattern && !root().join(path).exists() {
                broken.push(format!("{document} names {path}, which does not exist"));
            }
        }
    }
    Ok(broken)
}

/// An import cycle within a crate has at most so many files.
const CYCLE_FILES_MAX: usize = 4;

/// Import cycles of more files than may be.
fn long_cycles() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(root().join("crates"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.join("src").is_dir() {
            continue;
        }
        for cycle in cycles(&path.join("src"))?.into_iter().filter(|cycle| cycle.len() > CYCLE_FILES_MAX) {
            broken.push(format!("{name}: {} files import each other: {}", cycle.len(), cycle.join(", ")));
        }
    }
    Ok(broken)
}

/// `Inner` only wires the engine's owners: its methods are few and in one file.
const INNER_METHODS_MAX: usize = 15;

fn scattered_inner() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in sources(&root().join("crates/ochre-engine/src"))? {
        let text = std::fs::read_to_string(&path)?;
        let Some((_, block)) = text.split_once("\nimpl Inner {\n") else { continue };
        let block = block.split("\n}\n").next().unwrap_or_default();
        let methods = block.lines().filter(|line| line.starts_with("    ") && line.contains("fn ")).count();
        if !path.ends_with("inner.rs") || methods > INNER_METHODS_MAX {
            broken.push(format!("{} gives `Inner` {methods} methods: it only wires owners", path.display()));
        }
    }
    Ok(broken)
}

/// The crates that know neither HTTP nor Chroma, and JSON only where it is the thing itself.
const INNER_CRATES: &[&str] = &["ochre-engine", "ochre-store", "ochre-index"];
/// What these crates do not say: the words of the edge.
const EDGE_WORDS: &[&str] = &["serde_json", "/_admin", "/api/v2", "Validation error"];
/// Files that may, since they read and write formats on disk, schemas, settings of jobs, or what clients describe in
/// JSON.
const JSON_FILES: &[&str] = &[
    "ochre-engine/src/backup/manifest.rs",
    "ochre-engine/src/catalog.rs",
    "ochre-engine/src/introspect/validate.rs",
    "ochre-engine/src/maintenance/job_store.rs",
    "ochre-engine/src/maintenance/mod.rs",
    "ochre-engine/src/metadata_index/definition.rs",
    "ochre-engine/src/metadata_index/shape.rs",
    "ochre-engine/src/metadata_index/table.rs",
    "ochre-engine/src/options.rs",
    "ochre-engine/src/schemas.rs",
    "ochre-engine/src/settings.rs",
    "ochre-store/src/resolve.rs",
    "ochre-store/src/sqlite/catalog.rs",
    "ochre-store/src/store.rs",
];

/// Words of the edge in the crates that do not know it; tests may ask in them.
fn misplaced_words() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for name in INNER_CRATES {
        for path in sources(&root().join("crates").join(name).join("src"))? {
            let text = std::fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let may_use_json = JSON_FILES.iter().any(|file| path.ends_with(file));
            for word in EDGE_WORDS.iter().filter(|word| **word != "serde_json" || !may_use_json) {
                if code.contains(word) {
                    broken.push(format!("{} says {word:?}, which belongs to the edge", path.display()));
                }
            }
        }
    }
    Ok(broken)
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Every source file says in its first line what it owns.
fn headless_sources(root: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for folder in ["crates", "bench", "fuzz", "xtask"] {
        for path in sources(&root.join(folder))? {
            if !std::fs::read_to_string(&path)?.starts_with("//!") {
                broken.push(format!("{} does not begin with a //! header", path.display()));
            }
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    #[test]
    fn crates_depend_only_downwards() {
        assert_eq!(super::surplus_dependencies().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn documents_name_only_paths_that_exist() {
        assert_eq!(super::missing_paths().unwrap(), Vec::<String>::new());
    }
}
