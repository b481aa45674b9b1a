//! What tests need beyond cargo: a virtual environment with the Python client, and the npm packages.
//!
//! Made once below `.cache/`, and again when the lists of packages change.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run_in;
use crate::root;

/// Makes what is missing; the Python interpreter to run tests with.
pub(crate) fn setup() -> Result<PathBuf> {
    let cache = root().join(".cache");
    std::fs::create_dir_all(&cache)?;
    let python = environment(&cache, "venv", &root().join("conformance/requirements.txt"))?;
    // The tests find it there.
    environment(&cache, "s3", &root().join("conformance/s3/requirements.txt"))?;
    environment(&cache, "tools", &root().join("conformance/tools/requirements.txt"))?;
    environment(&cache, "clients", &root().join("conformance/clients/requirements.txt"))?;
    let javascript = root().join("conformance/javascript");
    once(&javascript.join("package-lock.json"), &cache.join("npm.made"), || {
        run_in(&javascript, "npm", &["ci", "--no-audit", "--no-fund", "--silent"])
    })?;
    Ok(python)
}

/// The interpreter of the virtual environment with libraries that are built on the Python client.
pub(crate) fn clients() -> PathBuf {
    root().join(".cache/clients/bin/python")
}

/// The interpreter of a virtual environment with what the benchmarks compare with.
pub(crate) fn bench() -> Result<PathBuf> {
    let cache = root().join(".cache");
    std::fs::create_dir_all(&cache)?;
    environment(&cache, "bench", &root().join("bench/compare/requirements.txt"))
}

/// The interpreter of the virtual environment of this name, made if need be.
fn environment(cache: &Path, name: &str, requirements: &Path) -> Result<PathBuf> {
    let environment = cache.join(name);
    let python = environment.join("bin/python");
    let interpreter = python.to_str().context("the path of the workspace is not Unicode")?.to_owned();
    once(requirements, &cache.join(format!("{name}.made")), || {
        let _ = std::fs::remove_dir_all(&environment);
        run_in(cache, "python3", &["-m", "venv", name])?;
        let list = requirements.to_str().context("the path of the workspace is not Unicode")?;
        run_in(cache, &interpreter, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list])
    })?;
    Ok(python)
}

/// Runs `make` unless it was run for this content of `list` before.
fn once(list: &Path, mark: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = std::fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    if std::fs::read(mark).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    make()?;
    std::fs::write(mark, wanted)?;
    Ok(())
}
