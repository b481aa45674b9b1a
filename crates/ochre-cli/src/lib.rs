//! The `ochre` command: reads arguments, prints, exits; everything else is in the libraries.
//!
//! A library, so that a program with extensions of its own is all of `ochre` with them: it calls [`main`].
//!
//! Data goes to standard output, words to standard error. Exit codes: 0 fine, 1 failed, 2 bad usage or
//! configuration, 3 damage found, 4 the directory is in use, 5 the server is not healthy.

mod backup;
mod check;
mod client;
mod config;
mod health;
mod indexes;
mod introspect;
mod jobs;
mod keys;
mod mcp;
mod memory;
mod openapi;
mod output;
mod restore;
mod run;

use clap::{Parser, Subcommand};
use ochre_server::Extensions;
use output::{Exit, Output};

/// An embedding database that looks after itself, speaking Chroma's HTTP API.
#[derive(Parser)]
#[command(name = "ochre", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 fine, 1 failed, 2 bad usage or configuration, 3 damage found,\n4 the directory is in use, 5 the server is not healthy."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Health(health::Health),
    Memory(memory::Memory),
    Introspect(introspect::Introspect),
    Mcp(mcp::Mcp),
    #[command(subcommand)]
    Indexes(indexes::Indexes),
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    #[command(subcommand)]
    Keys(keys::Keys),
    #[command(subcommand)]
    Backup(backup::Backup),
    Restore(restore::Restore),
    #[command(subcommand)]
    Config(config::Config),
    Openapi(openapi::OpenApi),
    /// Print the version.
    Version,
}

/// The command line as it is read: commands, options and their help.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// The whole program, with these extensions.
pub fn main(extensions: &Extensions) -> std::process::ExitCode {
    let mut output = Output::standard();
    let exit = match Arguments::parse().command {
        Command::Run(run) => run.run(extensions, &mut output),
        Command::Check(check) => check.run(extensions, &mut output),
        Command::Health(health) => health.run(&mut output),
        Command::Memory(memory) => memory.run(&mut output),
        Command::Introspect(introspect) => introspect.run(&mut output),
        Command::Mcp(mcp) => mcp.run(extensions),
        Command::Indexes(indexes) => indexes.run(&mut output),
        Command::Jobs(jobs) => jobs.run(&mut output),
        Command::Keys(keys) => keys.run(extensions, &mut output),
        Command::Backup(backup) => backup.run(extensions, &mut output),
        Command::Restore(restore) => restore.run(extensions, &mut output),
        Command::Config(config) => config.run(&mut output),
        Command::Openapi(openapi) => openapi.run(extensions, &mut output),
        Command::Version => output.data(&format!("ochre {}", env!("CARGO_PKG_VERSION"))).map(|()| Exit::Ok),
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(error) => {
            output.status(&format!("error: {error:#}"));
            Exit::of(&error).into()
        }
    }
}
