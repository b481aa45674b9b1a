//! A disk that remembers: every write, cut and sync of the database, in order, so that the state after a
//! power failure at any of them can be laid out in a directory and opened.
//!
//! Segment files are recorded through the store's `Disk`; SQLite's files through a VFS that passes
//! everything on to the platform's own. Both can be told to fail their n-th operation.
//!
//! What a power failure leaves of a file: everything up to its last sync, and of what was written since
//! either nothing, everything, or a part with a torn last write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ochre_engine::{Disk, DiskFile, RealDisk};
use parking_lot::Mutex;

mod vfs;

/// What happened to a file.
#[derive(Clone, Debug)]
enum Event {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Sync(PathBuf),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Records everything that happens to a database's files, and makes operations fail on demand.
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    /// Counts down to the operation that fails; negative when none shall.
    countdown: AtomicI64,
    fails_full: std::sync::atomic::AtomicBool,
    vfs: String,
}

/// What of the writes that no sync covers a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashImage {
    /// Nothing.
    OnlySynced,
    /// All of them, as after kill -9.
    Everything,
    /// The first of them, and half of the next.
    Torn,
}

impl Recorder {
    /// A recorder, with its VFS registered under a name of its own.
    pub fn new() -> Arc<Self> {
        let vfs = format!("ochre-recorder-{}", uuid::Uuid::new_v4());
        let recorder = Arc::new(Self {
            events: Mutex::default(),
            countdown: AtomicI64::new(-1),
            fails_full: false.into(),
            vfs: vfs.clone(),
        });
        vfs::register(&vfs, Arc::clone(&recorder));
        recorder
    }

    /// The name of the VFS, for `Options::vfs`.
    pub fn vfs(&self) -> String {
        self.vfs.clone()
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.lock().len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions of all syncs.
    pub fn syncs(&self) -> Vec<usize> {
        let events = self.events.lock();
        let is_sync = |event: &Event| matches!(event, Event::Sync(_) | Event::SyncDir(_));
        events.iter().enumerate().filter(|(_, event)| is_sync(event)).map(|(index, _)| index).collect()
    }

    /// Lets the operation `after` this many fail, once: with "disk full" or with an I/O error.
    pub fn fail_once(&self, after: i64, full: bool) {
        self.fails_full.store(full, Ordering::SeqCst);
        self.countdown.store(after, Ordering::SeqCst);
    }

    /// Stops failing; whether the failure came.
    pub fn stop_failing(&self) -> bool {
        self.countdown.swap(-1, Ordering::SeqCst) < 0
    }

    /// Whether this operation is the one that fails.
    fn fails(&self) -> Option<bool> {
        let fails = self.countdown.load(Ordering::SeqCst) >= 0 && self.countdown.fetch_sub(1, Ordering::SeqCst) == 0;
        fails.then(|| self.fails_full.load(Ordering::SeqCst))
    }

    fn record(&self, event: Event) {
        self.events.lock().push(event);
    }

    /// Lays out below `to` what a crash right before event `at` leaves of the files below `from`.
    ///
    /// # Errors
    /// Whatever writing the files fails with.
    pub fn lay_out(&self, at: usize, image: CrashImage, from: &Path, to: &Path) -> io::Result<()> {
        let mut durable: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
        let mut current: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
        let mut named: BTreeSet<&Path> = BTreeSet::new();
        let mut pending: BTreeMap<&Path, Vec<&Event>> = BTreeMap::new();
        let events = self.events.lock();
        for event in &events[..at] {
            match event {
                Event::Create(path) => {
                    current.insert(path, Vec::new());
                    durable.insert(path, Vec::new());
                }
                Event::Write(path, ..) | Event::SetLen(path, _) => {
                    apply(current.entry(path).or_default(), event, usize::MAX);
                    pending.entry(path).or_default().push(event);
                }
                Event::Sync(path) => {
                    durable.insert(path, current.get(path.as_path()).cloned().unwrap_or_default());
                    pending.remove(path.as_path());
                    // SQLite's own files need no sync of the folder here; segments do.
                    if path.extension().is_none_or(|extension| extension != "seg") {
                        named.insert(path);
                    }
                }
                Event::SyncDir(path) => named.extend(current.keys().filter(|file| file.parent() == Some(path))),
                Event::Rename(from, to) => {
                    for files in [&mut current, &mut durable] {
                        if let Some(content) = files.remove(from.as_path()) {
                            files.insert(to, content);
                        }
                    }
                    if let Some(events) = pending.remove(from.as_path()) {
                        pending.insert(to, events);
                    }
                    if named.remove(from.as_path()) {
                        named.insert(to);
                    }
                }
                Event::Remove(path) => {
                    current.remove(path.as_path());
                    durable.remove(path.as_path());
                    pending.remove(path.as_path());
                    named.remove(path.as_path());
                }
            }
        }
        let paths: BTreeSet<&Path> = current.keys().chain(durable.keys()).copied().collect();
        for path in paths {
            let content = match image {
                CrashImage::Everything => current.get(path).cloned().unwrap_or_default(),
                _ if !named.contains(path) => continue,
                CrashImage::OnlySynced => durable.get(path).cloned().unwrap_or_default(),
                CrashImage::Torn => {
                    let mut content = durable.get(path).cloned().unwrap_or_default();
                    let events = pending.get(path).map(Vec::as_slice).unwrap_or_default();
                    for (index, event) in events.iter().enumerate().take(events.len() / 2 + 1) {
                        let is_last = index == events.len() / 2;
                        let kept = if let Event::Write(_, _, bytes) = event { bytes.len() / 2 } else { 0 };
                        apply(&mut content, event, if is_last { kept } else { usize::MAX });
                    }
                    content
                }
            };
            let Ok(relative) = path.strip_prefix(from) else { continue };
            let target = to.join(relative);
            std::fs::create_dir_all(target.parent().unwrap_or(to))?;
            std::fs::write(target, content)?;
        }
        Ok(())
    }
}

/// Applies a write, of which at most `kept` bytes arrive, or a cut.
fn apply(content: &mut Vec<u8>, event: &Event, kept: usize) {
    match event {
        Event::Write(_, offset, bytes) => {
            let (start, bytes) =
                (usize::try_from(*offset).expect("test files are small"), &bytes[..kept.min(bytes.len())]);
            if content.len() < start + bytes.len() {
                content.resize(start + bytes.len(), 0);
            }
            content[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Event::SetLen(_, len) => content.resize(usize::try_from(*len).expect("test files are small"), 0),
        _ => {}
    }
}

fn failure(full: bool) -> io::Error {
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, "made to fail by the test")
}

/// The recorder as the store's disk.
impl Disk for Recorder {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if let Some(full) = self.fails() {
            return Err(failure(full));
        }
        let inner = RealDisk.create(path)?;
        self.record(Event::Create(path.to_owned()));
        Ok(Box::new(RecordedFile { inner, path: path.to_owned(), recorder: self.me() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RecordedFile { inner: RealDisk.open(path)?, path: path.to_owned(), recorder: self.me() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        self.record(Event::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.record(Event::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(full) = self.fails() {
            return Err(failure(full));
        }
        RealDisk.sync_dir(path)?;
        self.record(Event::SyncDir(path.to_owned()));
        Ok(())
    }
}

impl Recorder {
    /// This recorder as the registry holds it.
    fn me(&self) -> Arc<Self> {
        vfs::registered(&self.vfs).expect("a recorder is registered as long as the process runs")
    }
}

struct RecordedFile {
    inner: Box<dyn DiskFile>,
    path: PathBuf,
    recorder: Arc<Recorder>,
}

impl DiskFile for RecordedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(full) = self.recorder.fails() {
            return Err(failure(full));
        }
        self.inner.write_at(bytes, offset)?;
        self.recorder.record(Event::Write(self.path.clone(), offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(full) = self.recorder.fails() {
            return Err(failure(full));
        }
        // The recorder is what counts as durable; a real sync would only cost time.
        self.recorder.record(Event::Sync(self.path.clone()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.recorder.record(Event::SetLen(self.path.clone(), len));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.inner.is_removed()
    }

    fn mappable(&self) -> Option<&std::fs::File> {
        self.inner.mappable()
    }
}
