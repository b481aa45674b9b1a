//! The generated references: what the `ochre` binary says of itself, kept where a reviewer sees it change.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::root;

/// The references: file, and how to make its text.
fn references() -> Result<Vec<(PathBuf, String)>> {
    let folder = root().join("docs/reference");
    let defaults = ochre(&["config", "default"])?;
    let configuration = format!(
        "# Configuration\n\nEvery setting with its default, as `ochre config default` prints it.\n\n```toml\n{}\n```\n",
        defaults.trim_end()
    );
    let mut cli = String::from("# Command line\n\nWhat `ochre --help` and its subcommands print.\n");
    append_help(&mut Vec::new(), &mut cli)?;
    Ok(vec![
        (folder.join("openapi.json"), ochre(&["openapi"])?),
        (folder.join("configuration.md"), configuration),
        (folder.join("cli.md"), cli),
    ])
}

/// Rewrites the references.
pub(crate) fn write() -> Result<()> {
    crate::build()?;
    for (file, text) in references()? {
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Fails if a reference is not what it would be generated as.
pub(crate) fn verify() -> Result<()> {
    crate::build()?;
    for (file, text) in references()? {
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        ensure!(committed == text, "{} is out of date: run `cargo xtask generate` and commit it", file.display());
    }
    Ok(())
}

/// Appends the help of a command and, depth first, of all its subcommands.
fn append_help(command: &mut Vec<String>, text: &mut String) -> Result<()> {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = ochre(&arguments)?;
    *text += &format!("\n## `ochre {}`\n\n```text\n{}\n```\n", arguments.join(" "), help.trim_end());
    for subcommand in subcommands(&help) {
        command.push(subcommand.to_owned());
        append_help(command, text)?;
        command.pop();
    }
    Ok(())
}

/// The names below `Commands:` in what `--help` prints.
fn subcommands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that is broken into lines goes on farther to the right.
    listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()).collect()
}

/// What `ochre` prints, away from any configuration file.
fn ochre(arguments: &[&str]) -> Result<String> {
    let elsewhere = root().join("docs/reference");
    let mut command = Command::new(root().join("target/release/ochre"));
    let output = command.args(arguments).current_dir(elsewhere).env_remove("OCHRE_CONFIG").output()?;
    ensure!(output.status.success(), "ochre {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::subcommands;

    #[test]
    fn subcommands_are_read_from_help() {
        let help = "Keys\n\nUsage: ochre keys <COMMAND>\n\nCommands:\n  create  Make a key\n          of length\n  list    List\n\nOptions:\n  -h, --help";
        assert_eq!(subcommands(help), ["create", "list"]);
        assert_eq!(subcommands("Usage: ochre run"), Vec::<&str>::new());
    }
}
