//! One process per directory: an operating-system lock on the file `lock`.
//!
//! The lock itself decides, and dies with its process. The text in the file (process, host, time) only
//! informs whoever finds the directory taken.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The lock on a database directory; given back when dropped.
#[derive(Debug)]
pub struct Owner {
    _file: File,
}

impl Owner {
    /// Takes the directory, and writes who took it.
    ///
    /// # Errors
    /// [`Error::Locked`] at once if another process has it.
    pub fn take(directory: &Path) -> Result<Self> {
        let path = directory.join("lock");
        let io = |error: &std::io::Error| Error::io("lock", &path, error);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| io(&e))?;
        Self::lock(directory, &mut file)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = format!("process {} on {}, since {seconds} (Unix seconds)\n", std::process::id(), host.trim());
        // Informing is best effort: on a full disk the lock still holds.
        let _ = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Self { _file: file })
    }

    /// Takes the directory without writing anything; `None` if it has no lock file, so nobody has it.
    ///
    /// # Errors
    /// [`Error::Locked`] at once if another process has it.
    pub fn take_silently(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path, &error)),
        };
        Self::lock(directory, &mut file)?;
        Ok(Some(Self { _file: file }))
    }

    fn lock(directory: &Path, file: &mut File) -> Result<()> {
        match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                Err(Error::Locked { path: directory.to_owned(), owner: owner.trim().to_owned() })
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &directory.join("lock"), &error)),
        }
    }
}
