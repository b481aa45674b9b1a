//! What the command prints and how it exits.

use std::io::Write;
use std::process::ExitCode;

use ochre_engine::{Error, StoreError};
use ochre_server::ConfigError;
use serde_json::Value as Json;

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
        let engine = error.downcast_ref::<Error>();
        match engine {
            Some(Error::DamagedBackup(_)) => return Self::DamageFound,
            Some(Error::Options(_)) => return Self::Usage,
            _ => (),
        }
        let store = error.downcast_ref::<StoreError>().or(match engine {
            Some(Error::Store(store)) => Some(store),
            _ => None,
        });
        match store {
            Some(StoreError::Locked { .. }) => Self::InUse,
            Some(StoreError::Corrupt { .. } | StoreError::Lost { .. }) => Self::DamageFound,
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
    status: std::io::Stderr,
}

impl Output {
    pub(crate) fn standard() -> Self {
        Self { data: std::io::stdout(), status: std::io::stderr() }
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
        let _ = write!(self.status, "\r{line}").and_then(|()| self.status.flush());
    }

    /// A line of words.
    pub(crate) fn status(&mut self, line: &str) {
        let _ = writeln!(self.status, "{line}");
    }
}

/// Rows under a head, in columns as wide as need be. Cells with nothing in them show it.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], output: &mut Output) -> anyhow::Result<()> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(head[column].len());
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    output.data(&line(&head))?;
    rows.iter().try_for_each(|row| output.data(&line(&row.iter().map(|cell| shown(cell)).collect::<Vec<_>>())))
}

/// A cell of a table, or what stands for none.
fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// A JSON value as a cell of a table.
pub(crate) fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".into(),
        Json::String(text) => text.clone(),
        Json::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A time without its fractions of a second.
pub(crate) fn seconds(time: &str) -> String {
    time.split_once('.').map_or(time.to_owned(), |(whole, _)| format!("{whole}Z"))
}
