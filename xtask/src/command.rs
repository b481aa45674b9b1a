//! Running other programs: each is shown before it runs with the time it took, and a failure names what failed.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

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

/// Runs lists of programs side by side, each list in its order and to its end whatever fails; what a program prints is
/// shown when it has ended. Fails if one of them does.
pub(crate) fn run_side_by_side(lists: Vec<Vec<Command>>) -> Result<()> {
    let folder = crate::root().join("target/xtask");
    std::fs::create_dir_all(&folder)?;
    let run_list = |number: usize, list: Vec<Command>| -> Result<()> {
        let output = folder.join(format!("output-{number}"));
        let mut result = Ok(());
        for mut command in list {
            result = result.and(start_captured(&mut command, &output));
        }
        result
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            lists.into_iter().enumerate().map(|(number, list)| scope.spawn(move || run_list(number, list))).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("lists do not panic"));
        ends.fold(Ok(()), Result::and)
    })
}

/// Runs a program that is described whole.
pub(crate) fn start(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    println!("$ {shown}");
    let begun = Instant::now();
    let status = without_own_variables(command).status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    println!("  ({} s)", begun.elapsed().as_secs());
    Ok(())
}

fn start_captured(command: &mut Command, output: &Path) -> Result<()> {
    let shown = format!("{command:?}");
    let file = File::create(output).with_context(|| format!("cannot create {}", output.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let begun = Instant::now();
    let status = without_own_variables(command).status().with_context(|| format!("cannot start {shown}"))?;
    let mut printed = Vec::new();
    File::open(output)?.read_to_end(&mut printed)?;
    println!("$ {shown}\n{}  ({} s)", String::from_utf8_lossy(&printed), begun.elapsed().as_secs());
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}

/// Cargo set these for `xtask`; build scripts that depend on them would run again, and with them half of the build.
fn without_own_variables(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}
