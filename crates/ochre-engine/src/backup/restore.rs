//! Making a database directory out of a backup.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ochre_scheduler::{Clock, SystemClock, Timestamp};
use ochre_store::{ExtensionTables, SqliteStore, free_bytes};

use crate::backup::folders::{UNFINISHED_RESTORE, partial};
use crate::backup::manifest::{BackupKind, Manifest};
use crate::backup::repository::Repository;
use crate::error::Error;
use crate::maintenance::job_store::begin_from;

/// Which backup to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RestoreAt {
    /// The last.
    #[default]
    Latest,
    /// The last that had seen at most so many changes.
    Position(u64),
    /// The last that was taken by then.
    Timestamp(Timestamp),
    /// The one of this id.
    Id(String),
}

impl std::str::FromStr for RestoreAt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Timestamp(time));
        }
        if text.ends_with("-full") || text.ends_with("-incremental") {
            return Ok(Self::Id(text.to_owned()));
        }
        Err(Error::Backup(format!(
            "'{text}' is no backup's id, no position, no RFC 3339 time such as 2026-03-29T01:00:00Z, and not 'latest'"
        )))
    }
}

impl Repository {
    /// Makes a database in `directory`, as [`Repository::restore`] does; its tables may be those that are `known`.
    /// `finish` is called with the directory before it counts as whole.
    pub(crate) fn restore_whole(
        &self, at: &RestoreAt, known: &[ExtensionTables], directory: &Path,
        finish: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Manifest, Error> {
        let is_interrupted = directory.join(UNFINISHED_RESTORE).exists();
        let is_empty =
            is_interrupted || std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        if !is_empty {
            let text = format!("{} is not empty; restore into a new directory", directory.display());
            return Err(Error::Backup(text));
        }
        let place = Place::of(directory)?;
        let (path, mark) = (place.path(), place.begin()?);
        let restored = self.restore_into(at, known, path).and_then(|manifest| {
            finish(path)?;
            place.finish()?;
            Ok(manifest)
        });
        drop(mark);
        if restored.is_err() {
            place.give_up();
        }
        restored
    }

    fn restore_into(&self, at: &RestoreAt, known: &[ExtensionTables], directory: &Path) -> Result<Manifest, Error> {
        let (manifests, faults) = self.manifests()?;
        let chosen = choose(&manifests, at).ok_or_else(|| {
            let wanted = match at {
                RestoreAt::Latest => "any backup".to_owned(),
                RestoreAt::Position(position) => format!("a backup at or before position {position}"),
                RestoreAt::Timestamp(time) => format!("a backup taken by {time}"),
                RestoreAt::Id(id) => format!("backup {id}"),
            };
            let unreadable = faults.0.first().map(|fault| format!("; {fault}")).unwrap_or_default();
            Error::Backup(format!("{} does not hold {wanted}{unreadable}", self.describe()))
        })?;
        let chain = Self::chain(&manifests, chosen)?;
        check_space(&chain, directory)?;
        for manifest in chain {
            for file in &manifest.files {
                let path = directory.join(&file.name);
                self.write_file(file, &path)?;
                if manifest.kind == BackupKind::Incremental {
                    SqliteStore::apply_increment(directory, &path, known)?;
                    std::fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
                }
            }
            if manifest.kind == BackupKind::Full {
                SqliteStore::examine_restored(directory, known)?;
            }
        }
        SqliteStore::finish_restore(directory, &|connection| begin_from(connection, SystemClock.now()))?;
        Ok(chosen.clone())
    }

    fn write_file(&self, file: &super::manifest::BackedUpFile, path: &Path) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder).map_err(|error| failed("create", folder, &error))?;
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let mut out = BufWriter::new(created.map_err(|error| failed("create", path, &error))?);
        self.unpack(file, &mut out)?;
        let file = out.into_inner().map_err(|error| failed("write", path, error.error()))?;
        file.sync_all().map_err(|error| failed("sync", path, &error))
    }
}

/// Where a database is made before it is whole: in the directory itself if that is there, which may be where a disk is
/// mounted; else beside it, to be renamed.
enum Place {
    Within(PathBuf),
    Beside { partial: PathBuf, directory: PathBuf },
}

impl Place {
    fn of(directory: &Path) -> Result<Self, Error> {
        if directory.exists() {
            let canonical = directory.canonicalize().map_err(|error| failed("open", directory, &error))?;
            return Ok(Self::Within(canonical));
        }
        let partial = partial(directory);
        if partial.exists() && !partial.join(UNFINISHED_RESTORE).exists() {
            let text = format!("{} is in the way: a restore is made there first; move it away", partial.display());
            return Err(Error::Backup(text));
        }
        Ok(Self::Beside { partial, directory: directory.to_owned() })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Within(path) | Self::Beside { partial: path, .. } => path,
        }
    }

    /// Makes the directory one that nobody takes for a database; the mark is locked as long as it is worked on.
    fn begin(&self) -> Result<File, Error> {
        let path = self.path();
        let mark = path.join(UNFINISHED_RESTORE);
        let opened = std::fs::create_dir_all(path)
            .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(&mark));
        let mut file = opened.map_err(|error| failed("create", &mark, &error))?;
        if file.try_lock().is_err() {
            return Err(Error::Backup(format!("another restore into {} is under way", path.display())));
        }
        // What one that was interrupted left.
        empty(path)
            .and_then(|()| file.write_all(b"a restore was interrupted: remove this directory\n"))
            .map_err(|error| failed("empty", path, &error))?;
        Ok(file)
    }

    /// Lets a database that is whole be one.
    fn finish(&self) -> Result<(), Error> {
        let done = || {
            let path = self.path();
            std::fs::remove_file(path.join(UNFINISHED_RESTORE))?;
            sync(path)?;
            let Self::Beside { partial, directory } = self else { return Ok(()) };
            std::fs::rename(partial, directory)?;
            sync(directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        };
        done().map_err(|error| failed("finish", self.path(), &error))
    }

    /// Removes what was written.
    fn give_up(&self) {
        let _ = match self {
            Self::Within(path) => empty(path).and_then(|()| std::fs::remove_file(path.join(UNFINISHED_RESTORE))),
            Self::Beside { partial, .. } => std::fs::remove_dir_all(partial),
        };
    }
}

/// Removes everything in a directory but the mark.
fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == UNFINISHED_RESTORE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?
        } else {
            std::fs::remove_file(entry.path())?
        }
    }
    Ok(())
}

/// Makes what was changed in a directory outlive a power failure.
fn sync(directory: &Path) -> std::io::Result<()> {
    // Elsewhere directories cannot be opened, and renames are as durable as they are.
    if cfg!(unix) { std::fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Refuses what cannot fit: a backup may claim any size. What increments replace is not counted off.
fn check_space(chain: &[&Manifest], directory: &Path) -> Result<(), Error> {
    let needed = chain.iter().fold(0u64, |bytes, manifest| bytes.saturating_add(manifest.bytes));
    let there = directory.ancestors().find(|folder| folder.is_dir());
    match there.and_then(free_bytes) {
        Some(free) if free < needed => Err(Error::Backup(format!(
            "restoring takes {needed} bytes of disk at {}, and {free} are free: free some space, or restore elsewhere",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Backup(format!("cannot {action} {}: {error}", path.display()))
}

fn choose<'a>(manifests: &'a [Manifest], at: &RestoreAt) -> Option<&'a Manifest> {
    let is_wanted = |manifest: &&Manifest| match at {
        RestoreAt::Latest => true,
        RestoreAt::Position(position) => manifest.position <= *position,
        RestoreAt::Timestamp(time) => manifest.taken_at.parse::<Timestamp>().is_ok_and(|taken| taken <= *time),
        RestoreAt::Id(id) => manifest.id == *id,
    };
    manifests.iter().rev().find(is_wanted)
}
