//! What the command prints and how it exits.

use std::io::Write;
use std::process::ExitCode;

use ochre_engine::{Error, StoreError};
use ochre_server::ConfigError;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Failed,
    Usage,
    DamageFound,
    InUse,
    NotHealthy,
}

impl Exit {
    /// The exit code an error stands for.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if error.downcast_ref::<ConfigError>().is_some() {
            return Self::Usage;
        }
        let store = error.downcast_ref::<StoreError>().or(match error.downcast_ref::<Error>() {
            Some(Error::Store(store)) => Some(store),
            _ => None,
        });
        match store {
            Some(StoreError::Locked { .. }) => Self::InUse,
            Some(StoreError::Corrupt { .. }) => Self::DamageFound,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::DamageFound => 3,
            Exit::InUse => 4,
            Exit::NotHealthy => 5,
        })
    }
}

/// Standard output for data, standard error for words.
pub(crate) struct Output {
    data: std::io::Stdout,
    words: std::io::Stderr,
}

impl Output {
    pub(crate) fn standard() -> Self {
        Self { data: std::io::stdout(), words: std::io::stderr() }
    }

    /// A line of data.
    pub(crate) fn data(&mut self, line: &str) -> anyhow::Result<()> {
        match writeln!(self.data, "{line}").and_then(|()| self.data.flush()) {
            // Whoever read the output has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }

    /// Words that take the place of those drawn before, on the same line.
    pub(crate) fn redraw(&mut self, line: &str) {
        let _ = write!(self.words, "\r{line}").and_then(|()| self.words.flush());
    }

    /// A line of words.
    pub(crate) fn words(&mut self, line: &str) {
        let _ = writeln!(self.words, "{line}");
    }
}
