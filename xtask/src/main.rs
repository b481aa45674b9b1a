//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! `setup` makes virtual environments and npm packages, `test` runs everything a change must pass,
//! `check` the lints and rules, `generate` the generated references, `conformance` and `bench` what
//! their folders hold. Each prints what it runs.
#![expect(clippy::print_stdout, reason = "this is a command")]

mod command;
mod cycles;
mod generate;
mod rules;
mod setup;
mod widths;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use command::{has, run};

const HELP: &str = "cargo xtask COMMAND

  setup                      make the virtual environment and install the clients
  test                       everything a change must pass, in capped form
  check                      formatting of sources, lints, rules, documentation, generated files
  generate                   rewrite the generated references
  conformance WHAT [ARGS]    python | javascript | upstream | clients | crash; see conformance/README.md
  bench [serve|graph|shapes|growth|engines|text|sparse|relevance|forks] [ARGS]
                             compare with Chroma, graph and text libraries, other engines; see bench/README.md";

/// The workspace's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, PathBuf::from)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("setup") => setup::setup().map(drop),
        Some("test") => test(),
        Some("check") => check(),
        Some("generate") => generate::write(),
        Some("conformance") => conformance(rest),
        Some("bench") => bench(rest),
        _ => bail!("{HELP}"),
    }
}

/// Everything of the workspace in one profile and with one set of features, so that nothing is compiled twice.
fn build() -> Result<()> {
    run("cargo", &["build", "--release", "--workspace"])
}

fn test() -> Result<()> {
    // What tests need from package registries comes while the compiler works.
    let python = std::thread::scope(|scope| {
        let python = scope.spawn(setup::setup);
        run("cargo", &["build", "--release", "--workspace", "--all-targets"])?;
        python.join().map_err(|_| anyhow!("the set-up panicked"))?
    })?;
    rules::check()?;
    generate::verify()?;
    rust_tests()?;
    let suite = |what: &str, more: &[&str]| suite(&python, what, more);
    let mut fuzz = Command::new(root().join("target/release/ochre-fuzz"));
    fuzz.args(["--seconds", "24", "--seed", "18"]);
    command::run_side_by_side(vec![
        vec![suite("python", &[])?, suite("clients", &[])?],
        vec![
            suite("upstream", &[])?,
            suite("javascript", &[])?,
            suite("crash", &["--kills", "60"])?,
            suite("crash", &["--kills", "15", "--signal", "TERM"])?,
            fuzz,
        ],
    ])?;
    println!("all tests passed");
    Ok(())
}

/// The tests in Rust; those that run kernels, on every tier of the processor.
fn rust_tests() -> Result<()> {
    let of_kernels = "package(ochre-kernels) | (package(ochre-index) & not test(/^shapes::/))";
    if has("cargo-nextest") {
        run("cargo", &["nextest", "run", "--release", "--workspace", "--no-fail-fast"])?;
        for tier in ["scalar", "avx2", "avx512"] {
            let arguments = ["nextest", "run", "--release", "--workspace", "-E", of_kernels, "--status-level", "fail"];
            command::run_with("cargo", &arguments, &[("OCHRE_KERNELS", tier)])?;
        }
    } else {
        run("cargo", &["test", "--release", "--workspace", "--lib", "--bins", "--tests"])?;
        for tier in ["scalar", "avx2", "avx512"] {
            let arguments =
                ["test", "--release", "-p", "ochre-kernels", "-p", "ochre-index", "-q", "--", "--skip", "shapes::"];
            command::run_with("cargo", &arguments, &[("OCHRE_KERNELS", tier)])?;
        }
    }
    run("cargo", &["test", "--release", "--workspace", "--doc"])
}

fn check() -> Result<()> {
    rules::check()?;
    generate::verify()?;
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    command::run_with("cargo", &["doc", "--release", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    if has("cargo-deny") {
        run("cargo", &["deny", "check", "licenses", "bans", "sources"])?;
    }
    println!("all checks passed");
    Ok(())
}

fn conformance(arguments: &[String]) -> Result<()> {
    let python = setup::setup()?;
    build()?;
    let what = arguments.first().map(String::as_str).unwrap_or_default();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    command::start(&mut suite(&python, what, &rest)?)
}

/// A suite of `conformance/`.
fn suite(python: &Path, what: &str, rest: &[&str]) -> Result<Command> {
    let mut command = if what == "clients" { Command::new(setup::clients()) } else { Command::new(python) };
    command.current_dir(root().join("conformance").join(what));
    match what {
        "python" => command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--durations=15"]),
        "javascript" | "upstream" | "clients" => command.arg("run.py"),
        "crash" => command.arg("kill.py"),
        _ => bail!("{HELP}"),
    };
    command.args(rest);
    Ok(command)
}

fn bench(arguments: &[String]) -> Result<()> {
    let (script, rest) = match arguments.split_first() {
        Some((what, rest))
            if ["serve", "graph", "shapes", "growth", "engines", "text", "sparse", "relevance", "forks"]
                .contains(&what.as_str()) =>
        {
            (format!("{what}.py"), rest)
        }
        Some((what, _)) if !what.starts_with('-') => bail!("{HELP}"),
        _ => ("serve.py".to_owned(), arguments),
    };
    let python = setup::bench()?;
    let python = python.to_str().context("the path of the virtual environment is not Unicode")?;
    build()?;
    let mut call = vec![script.as_str()];
    call.extend(rest.iter().map(String::as_str));
    command::run_in(&root().join("bench/compare"), python, &call)
}
