//! Derived files in `cache/<collection>/`, snapshots of graphs and records, text segments and metadata indexes: written
//! beside and renamed, deleted when useless.
//!
//! A fork begins with links to the files of its source, so what a file says of its owner is the family: the collection
//! that a collection and its forks descend from.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ochre_index::{
    CompositeHeader, CompositeSegment, Graph, GraphParameters, SnapshotError, SnapshotHeader, StoredRecords,
    TextHeader, TextSegment, View, verify_snapshot,
};
use ochre_kernels::Region;
use ochre_model::Space;
use ochre_store::{CollectionRow, Disk, DiskWriter, SharedBytes, read_shared};
use uuid::Uuid;

use crate::settings::Settings;

/// Where derived files lie within the database directory.
pub(crate) const FOLDER: &str = "cache";
const FILE: &str = "graph.snapshot";
const RECORDS: &str = "records.snapshot";
/// A graph that is being built and too large for the heap. Left behind by a crash, it is a stray.
const BUILDING: &str = "building.writing";
/// Graphs that take more than one part in so many of the memory there may be are mapped in small pages.
const LARGE_PAGES_SHARE: u64 = 4;
/// The extension of text segments.
const TEXT: &str = "text";
/// The extension of segments of metadata indexes.
const INDEX: &str = "index";
/// The extension of files that are being written.
const WRITING: &str = "writing";
/// With less free on the disk, in bytes, nothing is written that can be made again.
const FREE_TO_WRITE_MIN: u64 = 4 << 20;

/// The snapshots of a database; none are kept for one without a directory.
pub(crate) struct CacheDir {
    folder: Option<PathBuf>,
    disk: Arc<dyn Disk>,
    map: bool,
    verified_bytes_max: u64,
    memory_limit: u64,
}

/// A graph as its snapshot has it.
pub(crate) struct FoundGraph {
    pub(crate) graph: Graph,
    /// Its codes and links were not compared with their checksums yet.
    pub(crate) is_unverified: bool,
}

impl CacheDir {
    /// Below a directory, if there is one, with so much resident memory at the most.
    pub(crate) fn new(directory: Option<&Path>, disk: &Arc<dyn Disk>, settings: &Settings, memory_limit: u64) -> Self {
        Self {
            folder: directory.map(|directory| directory.join(FOLDER)),
            disk: Arc::clone(disk),
            map: settings.map_segments,
            verified_bytes_max: settings.snapshot_verified_bytes_max,
            memory_limit,
        }
    }

    /// Writes a file beside its place, durably, and renames it; nothing is left of it if that fails.
    fn write_atomically(
        &self, path: &Path, write: impl FnOnce(&mut BufWriter<DiskWriter>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let folder = path.parent().expect("a derived file lies in its collection's folder");
        if !folder.is_dir() {
            self.disk.create_dir(folder)?;
        }
        if ochre_store::free_bytes(folder).is_some_and(|free| free < FREE_TO_WRITE_MIN) {
            let text = "less than 4 MiB of the disk are free, which is kept for deleting records";
            return Err(std::io::Error::new(ErrorKind::StorageFull, text));
        }
        let beside = path.with_extension(WRITING);
        // What a crash left of it.
        let _ = self.disk.remove(&beside);
        let written = (|| {
            let mut out = BufWriter::with_capacity(1 << 20, DiskWriter::new(self.disk.create(&beside)?));
            write(&mut out)?;
            out.flush()?;
            out.get_ref().sync()?;
            self.disk.rename(&beside, path)?;
            self.disk.sync_dir(folder)
        })();
        if written.is_err() {
            // On a full disk a half-written file would only take more of it.
            let _ = self.disk.remove(&beside);
        }
        written
    }

    fn path(&self, collection: Uuid, name: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(collection.to_string()).join(name))
    }

    /// The graph of a collection, if there is a usable snapshot. Others are removed: they never will be.
    pub(crate) fn read(&self, epoch: u64, row: &CollectionRow, parameters: GraphParameters) -> Option<FoundGraph> {
        let collection = row.id;
        let path = self.path(collection, FILE)?;
        let mut file = File::open(&path).ok()?;
        match self.open_graph(epoch, row.family, parameters, &mut file) {
            Ok((found, position)) => {
                tracing::debug!(%collection, position, nodes = found.graph.len(), "read a snapshot of a graph");
                Some(found)
            }
            Err(error) => {
                tracing::warn!(%collection, file = %path.display(), %error, "discarded a graph snapshot; the graph is rebuilt");
                if !matches!(error, SnapshotError::Io(ref io) if io.kind() != ErrorKind::UnexpectedEof) {
                    let _ = self.disk.remove(&path);
                }
                None
            }
        }
    }

    fn open_graph(
        &self, epoch: u64, family: Uuid, parameters: GraphParameters, file: &mut File,
    ) -> Result<(FoundGraph, u64), SnapshotError> {
        let bytes = file.metadata()?.len();
        if bytes == 0 {
            return Err(SnapshotError::Unusable("it is empty"));
        }
        // What is not mapped is read whole anyway.
        let is_unverified = self.map && bytes > self.verified_bytes_max;
        if !is_unverified {
            let sound: Result<_, std::convert::Infallible> = verify_snapshot(file, &mut |_, _| Ok(()));
            let Ok(sound) = sound;
            sound?;
        }
        let memory = if self.map {
            Region::map(file, bytes <= self.memory_limit / LARGE_PAGES_SHARE)?
        } else {
            file.seek(SeekFrom::Start(0))?;
            let bytes = usize::try_from(bytes).map_err(|_| SnapshotError::Unusable("it does not fit memory"))?;
            Region::read(file, bytes)?
        };
        let (graph, position) = Graph::from_snapshot(epoch, family.into_bytes(), parameters, memory)?;
        Ok((FoundGraph { graph, is_unverified }, position))
    }

    /// Reads the snapshot of a graph through and compares it with its checksums; why it is not sound. `step` is
    /// asked now and then, and may end it.
    pub(crate) fn verify_graph<E>(
        &self, collection: Uuid, step: &mut dyn FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<Result<(), SnapshotError>, E> {
        let Some(path) = self.path(collection, FILE) else { return Ok(Ok(())) };
        match File::open(path) {
            Ok(mut file) => verify_snapshot(&mut file, step),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Writes a snapshot durably, or not at all.
    pub(crate) fn write(
        &self, collection: Uuid, header: &SnapshotHeader, graph: &Graph, capacity: usize,
    ) -> std::io::Result<()> {
        let Some(path) = self.path(collection, FILE) else { return Ok(()) };
        self.write_atomically(&path, |out| graph.write_snapshot(header, capacity, out))
    }

    /// A copy of a graph that lies in a file without a name, which goes with it; `None` if files are not mapped here.
    pub(crate) fn move_to_file(
        &self, header: &SnapshotHeader, graph: &Graph, capacity: usize,
    ) -> Result<Option<Graph>, SnapshotError> {
        let path = self.path(Uuid::from_bytes(header.collection), BUILDING).filter(|_| self.map);
        let Some(path) = path else { return Ok(None) };
        std::fs::create_dir_all(path.parent().expect("a derived file lies in its collection's folder"))?;
        let moved = (|| {
            let mut options = File::options();
            let mut out = BufWriter::with_capacity(
                1 << 20,
                options.read(true).write(true).create(true).truncate(true).open(&path)?,
            );
            graph.write_snapshot(header, capacity, &mut out)?;
            let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            let memory = Region::map(&file, false)?;
            Ok(Graph::from_snapshot(header.epoch, header.collection, graph.parameters(), memory)?.0)
        })();
        // Mapped, it stays as long as it is; on a full disk, half of it would only take more.
        let _ = std::fs::remove_file(&path);
        moved.map(Some)
    }

    /// What the snapshot of a collection's records says, if there is a usable one. Others are removed.
    pub(crate) fn read_records(&self, epoch: u64, row: &CollectionRow, space: Space) -> Option<StoredRecords> {
        let (collection, family) = (row.id, row.family.into_bytes());
        let path = self.path(collection, RECORDS).filter(|path| path.is_file())?;
        let read = read_shared(&path, self.map).map_err(|error| error.to_string());
        let read = read.and_then(|bytes| Ok(View::read_records((*bytes).as_ref(), epoch, family, space)?));
        match read {
            Ok(records) => Some(records),
            Err(error) => {
                tracing::warn!(%collection, file = %path.display(), error, "discarded a snapshot of records; they are read again");
                let _ = self.disk.remove(&path);
                None
            }
        }
    }

    /// Writes a snapshot of records durably, or not at all.
    pub(crate) fn write_records(
        &self, collection: Uuid, header: &SnapshotHeader, view: &View, changed: &[(u32, u64)],
    ) -> std::io::Result<()> {
        let Some(path) = self.path(collection, RECORDS) else { return Ok(()) };
        self.write_atomically(&path, |out| view.write_records(header, changed, out))
    }

    /// Whether anything is kept on disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    /// Removes the snapshot of a collection's records; whether there was one.
    pub(crate) fn remove_records(&self, collection: Uuid) -> bool {
        self.path(collection, RECORDS).is_some_and(|path| self.disk.remove(&path).is_ok())
    }

    /// The usable text segments of a collection. Others are removed.
    pub(crate) fn read_text(&self, epoch: u64, row: &CollectionRow) -> Vec<Arc<TextSegment>> {
        self.read_segments(row.id, TEXT, &|bytes| TextSegment::open(bytes, epoch, row.family.into_bytes()))
    }

    /// The usable segments of all metadata indexes of a collection. Others are removed.
    pub(crate) fn read_indexes(&self, epoch: u64, collection: Uuid) -> Vec<Arc<CompositeSegment>> {
        self.read_segments(collection, INDEX, &|bytes| CompositeSegment::open(bytes, epoch, collection.into_bytes()))
    }

    fn read_segments<S>(
        &self, collection: Uuid, extension: &str, open: &dyn Fn(SharedBytes) -> Result<S, &'static str>,
    ) -> Vec<Arc<S>> {
        let mut segments = Vec::new();
        for path in self.files(collection, extension) {
            let opened = read_shared(&path, self.map).map_err(|error| error.to_string());
            match opened.and_then(|bytes| Ok(open(bytes)?)) {
                Ok(segment) => segments.push(Arc::new(segment)),
                Err(error) => {
                    tracing::warn!(%collection, file = %path.display(), error, "discarded a segment; it is built again");
                    let _ = self.disk.remove(&path);
                }
            }
        }
        segments
    }

    /// The files of a collection with this extension.
    fn files(&self, collection: Uuid, extension: &str) -> Vec<PathBuf> {
        let Some(folder) = self.path(collection, "") else { return Vec::new() };
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|own| own == extension)).collect()
    }

    /// Puts a text segment, whose first document has the offset `first`, into its file, and gives it back
    /// from there.
    pub(crate) fn write_text(
        &self, collection: Uuid, header: &TextHeader, first: u32, bytes: Vec<u8>,
    ) -> std::io::Result<TextSegment> {
        let shared = self.share(collection, &text_name(header.position, first), bytes)?;
        TextSegment::open(shared, header.epoch, header.collection).map_err(std::io::Error::other)
    }

    /// Puts a segment of a metadata index, whose first record has the offset `first`, into its file, and gives it
    /// back from there.
    pub(crate) fn write_index(
        &self, header: &CompositeHeader, first: u32, bytes: Vec<u8>,
    ) -> std::io::Result<CompositeSegment> {
        let shared = self.share(Uuid::from_bytes(header.collection), &index_name(header, first), bytes)?;
        CompositeSegment::open(shared, header.epoch, header.collection).map_err(std::io::Error::other)
    }

    fn share(&self, collection: Uuid, name: &str, bytes: Vec<u8>) -> std::io::Result<SharedBytes> {
        let Some(path) = self.path(collection, name) else { return Ok(Arc::new(bytes)) };
        self.write_atomically(&path, |out| out.write_all(&bytes))?;
        read_shared(&path, self.map)
    }

    /// Removes the files of text segments, unless others took their place.
    pub(crate) fn remove_text(&self, collection: Uuid, gone: &[Arc<TextSegment>], new: &[Arc<TextSegment>]) {
        self.remove_files(collection, gone.iter().map(segment_name), &new.iter().map(segment_name).collect::<Vec<_>>());
    }

    /// Removes the files of segments of metadata indexes, unless others took their place.
    pub(crate) fn remove_index_segments(
        &self, collection: Uuid, gone: &[Arc<CompositeSegment>], new: &[Arc<CompositeSegment>],
    ) {
        let name = |segment: &Arc<CompositeSegment>| index_name(segment.header(), segment.first().unwrap_or(0));
        self.remove_files(collection, gone.iter().map(name), &new.iter().map(name).collect::<Vec<_>>());
    }

    fn remove_files(&self, collection: Uuid, gone: impl Iterator<Item = String>, kept: &[String]) {
        for name in gone.filter(|name| !kept.contains(name)) {
            if let Some(path) = self.path(collection, &name) {
                let _ = self.disk.remove(&path);
            }
        }
    }

    /// The files of a metadata index, each with the build it belongs to.
    fn index_files(&self, collection: Uuid, index: Uuid) -> Vec<(PathBuf, u64)> {
        let prefix = format!("{}-", index.simple());
        let files = self.files(collection, INDEX).into_iter().filter_map(|path| {
            let generation = path.file_stem()?.to_str()?.strip_prefix(&prefix)?.split('-').next()?.parse().ok()?;
            Some((path, generation))
        });
        files.collect()
    }

    /// Removes the files of a metadata index but those of the builds that are kept.
    pub(crate) fn remove_index_files(&self, collection: Uuid, index: Uuid, kept: &[u64]) {
        for (path, _) in self.index_files(collection, index).iter().filter(|(_, build)| !kept.contains(build)) {
            let _ = self.disk.remove(path);
        }
    }

    /// Removes the files of metadata indexes but those of these builds.
    pub(crate) fn keep_index_files(&self, collection: Uuid, kept: &[(Uuid, u64)]) {
        for path in self.files(collection, INDEX) {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let is_kept = kept.iter().any(|(id, build)| name.starts_with(&format!("{}-{build}-", id.simple())));
            if !is_kept {
                let _ = self.disk.remove(&path);
            }
        }
    }

    /// Bytes on disk of a build of a metadata index.
    pub(crate) fn index_bytes(&self, collection: Uuid, index: Uuid, build: Option<u64>) -> u64 {
        let files = self.index_files(collection, index).into_iter().filter(|(_, own)| Some(*own) == build);
        files.map(|(path, _)| std::fs::metadata(path).map_or(0, |file| file.len())).sum()
    }

    /// Lets a fork begin with the files of its source, but for those of metadata indexes, which are not its own;
    /// whether it has its snapshots: of the graph, and of the records. Where files cannot be linked, they are made
    /// again. Of texts those that are given, or all.
    pub(crate) fn link(&self, source: Uuid, fork: Uuid, texts: Option<&[Arc<TextSegment>]>) -> [bool; 2] {
        let (Some(from), Some(to)) = (self.path(source, ""), self.path(fork, "")) else { return [false; 2] };
        let files = std::fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut linked = [false; 2];
        for path in files {
            let Some(name) = path.file_name() else { continue };
            let is_used = |texts: &[Arc<TextSegment>]| texts.iter().any(|text| *name == *segment_name(text));
            let is_text = path.extension().is_some_and(|extension| extension == TEXT) && texts.is_none_or(is_used);
            if !is_text && name != FILE && name != RECORDS {
                continue;
            }
            let link = std::fs::create_dir_all(&to).and_then(|()| std::fs::hard_link(&path, to.join(name)));
            if let Err(error) = &link {
                tracing::info!(file = %path.display(), %error, "a fork cannot share a file; it is made again");
            }
            linked[0] |= name == FILE && link.is_ok();
            linked[1] |= name == RECORDS && link.is_ok();
        }
        linked
    }

    /// Whether anything is kept of a collection.
    pub(crate) fn has(&self, collection: Uuid) -> bool {
        self.path(collection, "").is_some_and(|folder| folder.is_dir())
    }

    /// Removes what is kept of a collection.
    pub(crate) fn remove(&self, collection: Uuid) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder.join(collection.to_string()));
        }
    }

    /// Removes the graph that is kept of a collection.
    pub(crate) fn remove_graph(&self, collection: Uuid) {
        if let Some(path) = self.path(collection, FILE) {
            let _ = self.disk.remove(&path);
        }
    }

    /// What is kept of collections that are no more, and files whose writing was cut short.
    pub(crate) fn orphaned_files(&self, exists: impl Fn(Uuid) -> bool) -> Vec<PathBuf> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let mut orphaned_files = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok());
            if id.is_some_and(|id| !exists(id)) {
                orphaned_files.push(entry.path());
                continue;
            }
            for file in std::fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|file| file.path()) {
                if file.extension().is_some_and(|extension| extension == WRITING) {
                    orphaned_files.push(file);
                }
            }
        }
        orphaned_files
    }

    /// Removes them; how many there were. Nothing may be written meanwhile.
    pub(crate) fn remove_orphaned_files(&self, exists: impl Fn(Uuid) -> bool) -> usize {
        let orphaned_files = self.orphaned_files(exists);
        for stray in &orphaned_files {
            // What cannot be removed now is a stray next time.
            let _ = if stray.is_dir() { std::fs::remove_dir_all(stray) } else { self.disk.remove(stray) };
        }
        orphaned_files.len()
    }
}

/// Whether this is a snapshot of a graph.
pub(crate) fn is_graph(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == FILE)
}

/// Whether this is a file that ends with the checksum of what comes before.
pub(crate) fn is_summed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == RECORDS)
        || path.extension().is_some_and(|extension| extension == TEXT || extension == INDEX)
}

/// The name of the file of a text segment.
fn segment_name(segment: &Arc<TextSegment>) -> String {
    text_name(segment.position(), segment.offsets().next().unwrap_or(0))
}

/// Where a segment's documents were read, and which comes first: no two current ones share both.
fn text_name(position: u64, first: u32) -> String {
    format!("{position}-{first}.{TEXT}")
}

/// Which index and build a segment is of, where its records were read, and which comes first.
fn index_name(header: &CompositeHeader, first: u32) -> String {
    let index = Uuid::from_bytes(header.index).simple();
    format!("{index}-{}-{}-{first}.{INDEX}", header.generation, header.position)
}
