//! What was administered, by whom: a line of JSON for each request.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::json;

/// The file's name within the database's directory, unless another is configured.
const FILE: &str = "audit.jsonl";
/// A file that has grown to this is renamed to `….1`, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A request to be noted.
pub(super) struct Entry {
    pub(super) who: String,
    pub(super) address: IpAddr,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) permission: &'static str,
    /// What was made, changed or deleted.
    pub(super) detail: Option<serde_json::Value>,
}

/// Where it is noted, if it is.
pub(super) struct Audit(Option<Mutex<Log>>);

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Audit {
    pub(super) fn off() -> Self {
        Self(None)
    }

    /// Opens the file that is configured; `off` for none.
    pub(super) fn open(configured: &str, directory: &Path) -> std::io::Result<Self> {
        let path = match configured {
            "off" => return Ok(Self::off()),
            "" => directory.join(FILE),
            path => PathBuf::from(path),
        };
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("cannot write the audit log {}: {error}", path.display()))
        };
        let file = open(&path).map_err(named)?;
        let bytes = file.metadata().map_err(named)?.len();
        Ok(Self(Some(Mutex::new(Log { path, file, bytes }))))
    }

    pub(super) fn note(&self, entry: &Entry, status: u16) {
        let Some(log) = &self.0 else { return };
        let now = ochre_engine::scheduler::Clock::now(&ochre_engine::scheduler::SystemClock);
        let mut line = json!({
            "time": now, "who": entry.who, "address": entry.address, "method": entry.method, "path": entry.path,
            "permission": entry.permission, "status": status, "detail": entry.detail,
        })
        .to_string();
        line.push('\n');
        let mut log = log.lock();
        if log.bytes + line.len() as u64 > FILE_BYTES_MAX {
            let mut old = log.path.clone().into_os_string();
            old.push(".1");
            let rotated = std::fs::rename(&log.path, old).and_then(|()| open(&log.path));
            if let Ok(file) = rotated {
                (log.file, log.bytes) = (file, 0);
            }
        }
        match log.file.write_all(line.as_bytes()) {
            Ok(()) => log.bytes += line.len() as u64,
            Err(error) => tracing::error!(%error, line = line.trim_end(), "could not write to the audit log"),
        }
    }
}

/// Opens a file that only its owner may read.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
