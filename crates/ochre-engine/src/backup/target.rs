//! Where backups go: named objects of bytes, in a directory or wherever an embedder knows how to put them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ochre_store::{Disk, RealDisk};

use crate::backup::contained_dir::ContainedDir;
use crate::error::Error;

/// Named objects of bytes. Names are paths with `/` between their parts.
pub trait BackupTarget: Send + Sync {
    /// Puts an object there, whole or not at all, replacing one of this name.
    ///
    /// # Errors
    /// [`Error::Backup`], as everywhere here, naming the target and the object.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error>;
    /// The bytes of an object; `None` if there is none of this name. One of more than `limit` bytes is an error,
    /// without being read whole.
    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error>;
    /// The names below a prefix that ends with `/`, with the size of each in bytes.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error>;
    /// Removes an object; nothing happens if there is none.
    fn delete(&self, name: &str) -> Result<(), Error>;
    /// How it is named in messages.
    fn describe(&self) -> String;
}

type Open = Box<dyn Fn(&str) -> Result<Arc<dyn BackupTarget>, Error> + Send + Sync>;

/// The kinds of targets there are, by the scheme of their URLs. A path without a scheme is a directory.
#[derive(Default)]
pub struct BackupTargets(BTreeMap<String, Open>);

impl BackupTargets {
    /// Adds a kind: URLs that begin with `scheme://` are opened by `open`.
    pub fn register(
        &mut self, scheme: &str, open: impl Fn(&str) -> Result<Arc<dyn BackupTarget>, Error> + Send + Sync + 'static,
    ) {
        self.0.insert(scheme.to_owned(), Box::new(open));
    }

    /// Opens the target of a URL or path.
    ///
    /// # Errors
    /// [`Error::Backup`] for a scheme that nobody registered, or whatever opening fails with.
    pub fn open(&self, target: &str) -> Result<Arc<dyn BackupTarget>, Error> {
        match target.split_once("://") {
            None => Ok(Arc::new(DirectoryTarget::new(target))),
            Some(("file", path)) => Ok(Arc::new(DirectoryTarget::new(path))),
            Some((scheme, _)) => match self.0.get(scheme) {
                Some(open) => open(target),
                None => {
                    let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                    Err(Error::Backup(format!(
                        "'{target}': no target of the kind '{scheme}' is known; use a directory{}",
                        if known.is_empty() { String::new() } else { format!(" or one of {}", known.join(", ")) }
                    )))
                }
            },
        }
    }
}

/// A directory.
pub struct DirectoryTarget(PathBuf);

impl DirectoryTarget {
    /// The directory at this path, made when something is put there.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    fn failed(&self, action: &str, name: &str, error: &std::io::Error) -> Error {
        Error::Backup(format!("cannot {action} {}: {error}", self.0.join(name).display()))
    }

    /// The directory, if it is there.
    fn open(&self) -> std::io::Result<Option<ContainedDir>> {
        match ContainedDir::open(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }
}

impl BackupTarget for DirectoryTarget {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let made = if self.0.is_dir() { Ok(()) } else { RealDisk.create_dir(&self.0) };
        let written =
            made.and_then(|()| ContainedDir::open(&self.0)).and_then(|directory| directory.write(name, bytes));
        written.map_err(|error| self.failed("write", name, &error))
    }

    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let read = self.open().and_then(|directory| directory.map_or(Ok(None), |found| found.read(name, limit)));
        read.map_err(|error| self.failed("read", name, &error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let found = self.open().and_then(|directory| directory.map_or(Ok(Vec::new()), |found| found.list(prefix)));
        found.map_err(|error| self.failed("list", prefix, &error))
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let removed = self.open().and_then(|directory| directory.map_or(Ok(()), |found| found.remove(name)));
        removed.map_err(|error| self.failed("remove", name, &error))
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}
