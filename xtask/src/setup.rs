//! What tests need beyond cargo: a virtual environment with the Python client, and the npm packages.
//!
//! Made once below `.cache/`, and again when the lists of packages change.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::run_in;
use crate::root;

/// Makes what is missing; the Python interpreter to run tests with.
pub(crate) fn setup() -> Result<PathBuf> {
    let cache = root().join(".cache");
    std::fs::create_dir_all(&cache)?;
    let environment = cache.join("venv");
    let python = environment.join("bin/python");
    let interpreter = python.to_str().context("the path of the workspace is not Unicode")?.to_owned();
    let requirements = root().join("conformance/requirements.txt");
    once(&requirements, &cache.join("venv.made"), || {
        let _ = std::fs::remove_dir_all(&environment);
        run_in(&cache, "python3", &["-m", "venv", "venv"])?;
        let list = requirements.to_str().context("the path of the workspace is not Unicode")?;
        run_in(&cache, &interpreter, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list])
    })?;
    let javascript = root().join("conformance/javascript");
    once(&javascript.join("package-lock.json"), &cache.join("npm.made"), || {
        run_in(&javascript, "npm", &["ci", "--no-audit", "--no-fund", "--silent"])
    })?;
    Ok(python)
}

/// Runs `make` unless it was run for this content of `list` before.
fn once(list: &std::path::Path, mark: &std::path::Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = std::fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    if std::fs::read(mark).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    make()?;
    std::fs::write(mark, wanted)?;
    Ok(())
}
