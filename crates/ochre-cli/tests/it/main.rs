//! The command as its users run it: what it prints where, and how it exits.
#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// The command in a folder of its own, away from any configuration.
fn ochre(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ochre"));
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OCHRE_") || name.starts_with("CHROMA_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it; it has to exit with `code` and say all of `words`, on standard error if it fails, else on standard output.
#[track_caller]
fn check(arguments: &[&str], code: i32, words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    check_in(&folder, arguments, code, words)
}

#[track_caller]
fn check_in(folder: &TempDir, arguments: &[&str], code: i32, words: &[&str]) -> Output {
    let output = ochre(folder.path()).args(arguments).output().unwrap();
    let said = if code == 0 { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(said);
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    output
}

/// A server over a database in `folder`; it is ended when this is dropped.
struct Running(Child, String);

impl Running {
    fn start(folder: &TempDir) -> Self {
        let mut child = ochre(folder.path())
            .args(["run", "--port", "0", "--path", "data"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first line says where it listens; a log may come before.
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split("http://").nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
        Self(child, format!("http://{url}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_cannot_be_meant_exits_with_2_and_names_what_was_meant() {
    check(&["rnu"], 2, &["rnu"]);
    check(&["run", "--prot", "1"], 2, &["--port"]);
    check(&["jobs", "lst"], 2, &["list"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ochre.toml"), "[server]\nprot = 1\n").unwrap();
    check_in(&folder, &["run"], 2, &["server.prot", "did you mean `server.port`"]);
    std::fs::write(folder.path().join("ochre.toml"), "[jobs.vacum]\ninterval = \"1h\"\n").unwrap();
    check_in(&folder, &["run", "--port", "0"], 2, &["vacum", "vacuum"]);
}

#[test]
fn settings_are_printed_as_a_file_that_is_read_back() {
    let printed = check(&["config", "default"], 0, &["[server]", "port = 8000"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ochre.toml"), &printed.stdout).unwrap();
    let shown = check_in(&folder, &["config", "show"], 0, &["port = 8000"]);
    assert!(!shown.stdout.is_empty());
}

#[test]
fn the_description_of_the_api_is_printed_without_a_server() {
    let printed = check(&["openapi"], 0, &["\"openapi\"", "/_admin/jobs"]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.starts_with('{') && text.trim_end().ends_with('}'));
}

#[test]
fn commands_without_a_server_say_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    check_in(&folder, &["health", "--url", "http://127.0.0.1:9"], 5, &["127.0.0.1:9"]);
    check_in(&folder, &["jobs", "list", "--url", "http://127.0.0.1:9"], 1, &["127.0.0.1:9", "ochre run"]);
    check_in(&folder, &["check", "--path", "nowhere"], 1, &["nowhere"]);
}

#[test]
fn a_database_that_is_open_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder);
    check_in(&folder, &["check", "--path", "data"], 4, &["in use"]);
    check_in(&folder, &["run", "--path", "data", "--port", "0"], 4, &["in use"]);
    check_in(&folder, &["health", "--url", &running.1], 0, &[]);
    check_in(&folder, &["jobs", "list", "--url", &running.1], 0, &["index-sync", "vacuum"]);
    check_in(&folder, &["jobs", "show", "vacum", "--url", &running.1], 1, &["vacuum"]);
    drop(running);
    check_in(&folder, &["check", "--path", "data"], 0, &[]);
}

#[test]
fn damage_is_found_named_and_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    drop(Running::start(&folder));
    let file = folder.path().join("data/ochre.sqlite3");
    std::fs::write(&file, b"no database").unwrap();
    check_in(&folder, &["check", "--path", "data"], 3, &[]);
}

#[test]
fn every_command_is_in_the_reference() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
    let reference = std::fs::read_to_string(reference).unwrap();
    let mut open = vec![ochre_cli::command()];
    let mut names: Vec<String> = Vec::new();
    let mut counted = 0;
    while let Some(command) = open.pop() {
        let path = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
        counted += 1;
        if !reference.contains(&format!("## `{path} --help`")) {
            names.push(path.clone());
        }
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            open.push(subcommand.clone().bin_name(format!("{path} {}", subcommand.get_name())));
        }
    }
    assert!(names.is_empty() && counted > 35, "{counted} commands, of which the reference lacks {names:?}");
}
