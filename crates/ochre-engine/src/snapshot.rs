//! Graph snapshots in `cache/<collection>/`: written beside and renamed, read once, deleted when useless.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use ochre_index::{Graph, GraphParameters, SnapshotError, SnapshotHeader};
use uuid::Uuid;

const FOLDER: &str = "cache";
const FILE: &str = "graph.snapshot";

/// The snapshots of a database; none are kept for one without a directory.
pub(crate) struct Snapshots {
    folder: Option<PathBuf>,
}

impl Snapshots {
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        Self { folder: directory.map(|directory| directory.join(FOLDER)) }
    }

    fn path(&self, collection: Uuid) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(collection.to_string()).join(FILE))
    }

    /// The snapshot of a collection, if there is a usable one. Others are removed: they never will be.
    pub(crate) fn read(
        &self, epoch: u64, collection: Uuid, parameters: GraphParameters, resize_factor: f64,
    ) -> Option<Graph> {
        let path = self.path(collection)?;
        let file = File::open(&path).ok()?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        match Graph::read_snapshot(epoch, collection.into_bytes(), parameters, resize_factor, &mut file) {
            Ok((graph, position)) => {
                tracing::info!(%collection, position, nodes = graph.len(), "loaded the graph from its snapshot");
                Some(graph)
            }
            Err(error) => {
                tracing::warn!(%collection, file = %path.display(), %error, "discarded a graph snapshot; the graph is rebuilt");
                if !matches!(error, SnapshotError::Io(ref io) if io.kind() != std::io::ErrorKind::UnexpectedEof) {
                    let _ = std::fs::remove_file(&path);
                }
                None
            }
        }
    }

    /// Writes a snapshot durably, or not at all.
    pub(crate) fn write(&self, header: &SnapshotHeader, graph: &Graph) -> std::io::Result<()> {
        let Some(path) = self.path(Uuid::from_bytes(header.collection)) else { return Ok(()) };
        let folder = path.parent().expect("a snapshot lies in its collection's folder");
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("writing");
        let written = (|| {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&beside)?);
            graph.write_snapshot(header, &mut file)?;
            file.flush()?;
            file.get_ref().sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            // On a full disk a half-written file would only take more of it.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Removes what is kept of a collection.
    pub(crate) fn remove(&self, collection: Uuid) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder.join(collection.to_string()));
        }
    }

    /// Removes what is kept of collections that are no more.
    pub(crate) fn remove_strays(&self, exists: impl Fn(Uuid) -> bool) {
        let Some(folder) = &self.folder else { return };
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok());
            if id.is_some_and(|id| !exists(id)) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
