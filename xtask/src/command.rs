//! Running other programs: shown before they run, and a failure names what failed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs a program in the workspace's root.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    start(Command::new(program).args(arguments).current_dir(crate::root()))
}

/// Runs a program with more environment.
pub(crate) fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    start(Command::new(program).args(arguments).envs(environment.iter().copied()).current_dir(crate::root()))
}

/// Runs a program in a folder.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    start(Command::new(program).args(arguments).current_dir(folder))
}

/// Whether a program can be found.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

fn start(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    println!("$ {shown}");
    // Cargo set these for `xtask`; build scripts that depend on them would run again, and with them half of the build.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}
