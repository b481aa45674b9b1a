//! Files below a directory, reached part by part without ever following a symbolic link: whoever can write there
//! cannot make this program read, write or remove anything elsewhere.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fsync, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;

/// The ending of files that are being written.
const WRITING: &str = ".writing";

/// A directory that was opened.
pub(super) struct ContainedDir(OwnedFd);

/// Whether a name is made of plain parts: letters, digits, `.`, `_` and `-`, and no part begins with a `.`.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn bad_name(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of an object"))
}

/// What a link in the way is reported as.
fn no_links(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::InvalidInput,
            "a symbolic link, or a file where a folder should be, is in the way: links are not followed",
        ),
        error => error.into(),
    }
}

impl ContainedDir {
    /// Opens a directory; its own path may lead through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn enter(folder: &OwnedFd, part: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(folder, part, flags, Mode::empty()).map_err(no_links)
    }

    /// The folder of an object and the object's own name in it; folders are made if `make`.
    fn folder<'n>(&self, name: &'n str, make: bool) -> io::Result<(OwnedFd, &'n str)> {
        if !name.split('/').all(is_plain) {
            return Err(bad_name(name));
        }
        let (folders, last) = name.rsplit_once('/').map_or(("", name), |(folders, last)| (folders, last));
        let mut folder = self.0.try_clone()?;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            if make {
                match mkdirat(&folder, part, Mode::RWXU) {
                    // What is put into it must not be lost with it when the power fails.
                    Ok(()) => fsync(&folder)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = Self::enter(&folder, part)?;
        }
        Ok((folder, last))
    }

    /// The bytes of a file, if there is one; an error if it has more than `limit`.
    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let found = self.folder(name, false).and_then(|(folder, last)| {
            // Not to wait for whoever should write into a pipe that lies there.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(&folder, last, flags, Mode::empty()).map_err(no_links)
        });
        let file = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => File::from(found?),
        };
        let description = file.metadata()?;
        if !description.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        if description.len() > limit {
            return Err(too_large(description.len(), limit));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(description.len()).unwrap_or(0));
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64, limit)) } else { Ok(Some(bytes)) }
    }

    /// Writes a file, whole or not at all, readable by its owner only.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (folder, last) = self.folder(name, true)?;
        let beside = format!("{last}{WRITING}");
        remove_at(&folder, &beside)?;
        let written = (|| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&folder, &beside, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(bytes)?;
            file.sync_all()?;
            renameat(&folder, &beside, &folder, last)?;
            File::from(folder.try_clone()?).sync_all()
        })();
        if written.is_err() {
            // On a full disk a half-written file would only take more of it.
            let _ = remove_at(&folder, &beside);
        }
        written
    }

    /// Removes a file; nothing happens if there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self.folder(name, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            found => {
                let (folder, last) = found?;
                remove_at(&folder, last)
            }
        }
    }

    /// The files below a folder, whose name ends with `/`, with their sizes. What has a name that no object has, links
    /// and files that are being written are left out.
    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let start = format!("{prefix}x");
        match self.folder(&start, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            folder => list_into(&folder?.0, prefix, &mut found)?,
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn too_large(bytes: u64, limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has {bytes} bytes, and none has more than {limit}"))
}

fn remove_at(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn list_into(folder: &OwnedFd, prefix: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| is_plain(name)) else { continue };
        let description = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            description => description?,
        };
        match FileType::from_raw_mode(description.st_mode) {
            FileType::Directory => list_into(&ContainedDir::enter(folder, name)?, &format!("{prefix}{name}/"), found)?,
            FileType::RegularFile if !name.ends_with(WRITING) => {
                found.push((format!("{prefix}{name}"), u64::try_from(description.st_size).unwrap_or(0)));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_odd_names_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("secret"), inside.join("file")).unwrap();
        symlink(outside.join("secret"), inside.join("new.writing")).unwrap();
        std::fs::create_dir(inside.join("deep")).unwrap();
        let beneath = ContainedDir::open(&inside).unwrap();
        for name in ["../outside/secret", "/etc/passwd", "deep/../file", "", ".hidden", "a//b", "a\\b", "a\0b"] {
            assert!(beneath.read(name, 9).is_err(), "{name:?}");
            assert!(beneath.write(name, b"x").is_err(), "{name:?}");
            assert!(beneath.remove(name).is_err(), "{name:?}");
        }
        assert!(beneath.read("folder/secret", 9).is_err());
        assert!(beneath.write("folder/secret", b"x").is_err());
        assert!(beneath.remove("folder/secret").is_err());
        assert!(beneath.read("file", 9).is_err());
        beneath.write("new", b"mine").unwrap();
        beneath.write("file", b"mine").unwrap();
        beneath.write("deep/er/one", b"mine").unwrap();
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
        assert_eq!(beneath.read("file", 4).unwrap().unwrap(), b"mine");
        assert!(beneath.read("file", 3).unwrap_err().to_string().contains("more than 3"));
        assert_eq!(beneath.read("deep/none", 3).unwrap(), None);
        let names = |prefix: &str| beneath.list(prefix).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(""), ["deep/er/one", "file", "new"]);
        assert_eq!(names("deep/"), ["deep/er/one"]);
        beneath.remove("deep/er/one").unwrap();
        assert_eq!(names("deep/"), Vec::<String>::new());
    }
}
