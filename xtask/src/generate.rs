//! The generated references: what the binary says of itself, kept where a reviewer sees it change.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::root;

/// The references: file, and how to make its text.
fn references() -> Result<Vec<(PathBuf, String)>> {
    let folder = root().join("docs/reference");
    let api = serde_json::to_string_pretty(&ochre_server::openapi_document())? + "\n";
    let configuration = format!(
        "# Configuration\n\nEvery setting with its default, as `ochre config default` prints it.\n\n```toml\n{}\n```\n",
        ochre_server::DEFAULT_TOML.trim_end()
    );
    let mut cli = String::from("# Command line\n\nWhat `ochre --help` and its subcommands print.\n");
    const COMMANDS: [&[&str]; 35] = [
        &[],
        &["run"],
        &["check"],
        &["health"],
        &["memory"],
        &["introspect"],
        &["mcp"],
        &["indexes"],
        &["indexes", "list"],
        &["indexes", "show"],
        &["indexes", "create"],
        &["indexes", "delete"],
        &["indexes", "rebuild"],
        &["indexes", "cancel"],
        &["indexes", "verify"],
        &["indexes", "suggest"],
        &["jobs"],
        &["jobs", "list"],
        &["jobs", "show"],
        &["jobs", "run"],
        &["jobs", "cancel"],
        &["jobs", "pause"],
        &["jobs", "resume"],
        &["jobs", "history"],
        &["keys"],
        &["keys", "create"],
        &["keys", "list"],
        &["keys", "revoke"],
        &["backup"],
        &["backup", "now"],
        &["backup", "list"],
        &["backup", "verify"],
        &["restore"],
        &["config"],
        &["config", "show"],
    ];
    for command in COMMANDS {
        let mut words = command.to_vec();
        words.push("--help");
        cli += &format!("\n## `ochre {}`\n\n```text\n{}\n```\n", words.join(" "), ask(&words)?.trim_end());
    }
    Ok(vec![
        (folder.join("openapi.json"), api),
        (folder.join("configuration.md"), configuration),
        (folder.join("cli.md"), cli),
    ])
}

/// Rewrites the references.
pub(crate) fn write() -> Result<()> {
    crate::command::run("cargo", &["build", "--release"])?;
    for (file, text) in references()? {
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Fails if a reference is not what it would be generated as.
pub(crate) fn verify() -> Result<()> {
    crate::command::run("cargo", &["build", "--release"])?;
    for (file, text) in references()? {
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        ensure!(committed == text, "{} is out of date: run `cargo xtask generate` and commit it", file.display());
    }
    Ok(())
}

fn ask(arguments: &[&str]) -> Result<String> {
    let output = Command::new(root().join("target/release/ochre")).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?)
}
