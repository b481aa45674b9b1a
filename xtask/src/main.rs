//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! `setup` makes virtual environments and npm packages, `test` runs everything a change must pass,
//! `check` the lints and rules, `generate` the generated references, `conformance` and `bench` what
//! their folders hold. Each prints what it runs.
#![expect(clippy::print_stdout, reason = "this is a command")]

mod command;
mod generate;
mod rules;
mod setup;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use command::{has, run};

const HELP: &str = "cargo xtask COMMAND

  setup                      make the virtual environment and install the clients
  test                       everything a change must pass, in capped form
  check                      formatting of sources, lints, rules, documentation, generated files
  generate                   rewrite the generated references
  conformance WHAT [ARGS]    python | javascript | upstream | crash; see conformance/README.md
  bench [serve|graph|shapes|growth|engines] [ARGS]
                             compare with Chroma, graph libraries, other engines; see bench/README.md";

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

/// One build profile for everything, so that dependencies compile once.
fn test() -> Result<()> {
    run("cargo", &["build", "--release", "--workspace"])?;
    rules::check()?;
    generate::verify()?;
    if has("cargo-nextest") {
        run("cargo", &["nextest", "run", "--release", "--workspace", "--no-fail-fast"])?;
    } else {
        run("cargo", &["test", "--release", "--workspace", "--lib", "--bins", "--tests"])?;
    }
    run("cargo", &["test", "--release", "--workspace", "--doc"])?;
    run("cargo", &["build", "--release", "--workspace", "--examples"])?;
    for tier in ["scalar", "avx2", "avx512"] {
        command::run_with(
            "cargo",
            &["test", "--release", "-p", "ochre-kernels", "-p", "ochre-index", "-q"],
            &[("OCHRE_KERNELS", tier)],
        )?;
    }
    conformance(&["python".into()])?;
    conformance(&["javascript".into()])?;
    conformance(&["crash".into(), "--kills".into(), "60".into()])?;
    conformance(&["crash".into(), "--kills".into(), "15".into(), "--signal".into(), "TERM".into()])?;
    conformance(&["upstream".into()])?;
    run("cargo", &["run", "--release", "-q", "-p", "ochre-fuzz", "--", "--seconds", "24", "--seed", "18"])?;
    println!("all tests passed");
    Ok(())
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
    let python = python.to_str().context("the path of the virtual environment is not Unicode")?;
    let what = arguments.first().map(String::as_str).unwrap_or_default();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let folder = root().join("conformance").join(what);
    let mut call = match what {
        "python" => vec!["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"],
        "javascript" | "upstream" => vec!["run.py"],
        "crash" => vec!["kill.py"],
        _ => bail!("{HELP}"),
    };
    call.extend(rest);
    run("cargo", &["build", "--release", "-p", "ochre-cli", "-p", "ochre-notes"])?;
    command::run_in(&folder, python, &call)
}

fn bench(arguments: &[String]) -> Result<()> {
    let (script, rest) = match arguments.split_first() {
        Some((what, rest)) if ["serve", "graph", "shapes", "growth", "engines"].contains(&what.as_str()) => {
            (format!("{what}.py"), rest)
        }
        Some((what, _)) if !what.starts_with('-') => bail!("{HELP}"),
        _ => ("serve.py".to_owned(), arguments),
    };
    let python = setup::bench()?;
    let python = python.to_str().context("the path of the virtual environment is not Unicode")?;
    run("cargo", &["build", "--release", "--workspace"])?;
    let mut call = vec![script.as_str()];
    call.extend(rest.iter().map(String::as_str));
    command::run_in(&root().join("bench/compare"), python, &call)
}
