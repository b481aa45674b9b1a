//! Files that may be data and belong to no transaction: moved aside when a database is opened, never deleted there.
//!
//! A crash leaves files that the catalog does not know: a segment that was just begun, or one that compaction had not
//! finished. They are removed once a later commit shows that they never can be committed. What is moved aside because
//! a loss was accepted stays until somebody removes it.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::{Error, Result};

/// The folder's name within the database directory.
pub(crate) const QUARANTINE_FOLDER: &str = "quarantine";

/// What was moved aside, to be removed after the next commit.
#[derive(Default)]
pub(crate) struct Quarantine {
    files: Mutex<Vec<PathBuf>>,
}

impl Quarantine {
    /// Moves files aside that no transaction refers to, and takes over what earlier openings moved.
    pub(crate) fn take(disk: &dyn Disk, directory: &Path, files: &[PathBuf]) -> Result<Self> {
        let folder = directory.join(QUARANTINE_FOLDER);
        if !files.is_empty() {
            disk.create_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
        }
        for file in files {
            move_into(disk, &folder, file)?;
        }
        let there = if folder.is_dir() { disk.list(&folder) } else { Ok(Vec::new()) };
        let there = there.map_err(|error| Error::io("list", &folder, &error))?;
        Ok(Self { files: Mutex::new(there.into_iter().filter(|path| path.is_file()).collect()) })
    }

    /// Removes what was moved aside.
    pub(crate) fn clear(&self, disk: &dyn Disk) {
        let mut files = self.files.lock();
        for file in files.drain(..) {
            // What stays is tried again after the next opening.
            let _ = disk.remove(&file);
        }
    }

    /// How many files were moved aside.
    pub(crate) fn len(&self) -> usize {
        self.files.lock().len()
    }
}

/// Moves a file into a folder, under a name that nothing there has.
pub(crate) fn move_into(disk: &dyn Disk, folder: &Path, file: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(name.clone()).chain((2..).map(|count| format!("{name}.{count}")));
    let mut free = names.map(|name| folder.join(name)).filter(|path| !path.exists());
    let to = free.next().unwrap_or_else(|| folder.join(&name));
    disk.rename(file, &to).map_err(|error| Error::io("move aside", file, &error))
}
