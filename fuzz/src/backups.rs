//! Backup targets in which somebody else writes: manifests with other content and a right hash, and chunks of any
//! bytes.

use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use ochre_engine::{Database, DirectoryTarget, NewRecords, Options, Repository, RestoreOptions};
use serde_json::Value;

use crate::json::disturb;
use crate::{Fed, State};

/// A target with a full backup and an increment.
pub(crate) struct Backups {
    folder: tempfile::TempDir,
    manifests: Vec<(PathBuf, Vec<u8>)>,
    chunks: Vec<(PathBuf, Vec<u8>)>,
}

fn files(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| {
            if path.is_dir() { files(&path) } else { vec![(path.clone(), std::fs::read(&path).unwrap_or_default())] }
        })
        .collect()
}

impl Backups {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let target = folder.path().join("target");
        let options = Options { backup_target: Some(target.display().to_string()), ..Options::default() };
        let database = Database::open_with(folder.path().join("home"), options).expect("a new database opens");
        let records = database.create_collection("records").expect("it is new");
        for (job, ids) in [("backup", ["a", "b"]), ("backup-incremental", ["b", "c"])] {
            records.upsert(NewRecords::new(ids, [[1.0, 2.0], [3.0, 4.0]])).expect("records are written");
            database.scheduler().run_now(job).expect("there is such a job");
            let ended =
                || database.scheduler().history(job, 1).is_ok_and(|runs| runs.iter().any(|run| run.ended.is_some()));
            while !ended() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        database.close();
        let (manifests, chunks) = (files(&target.join("manifests")), files(&target.join("chunks")));
        assert_eq!(manifests.len(), 2, "two backups were taken");
        Self { folder, manifests, chunks }
    }

    fn restore(&self) -> Fed {
        let into = self.folder.path().join("restored");
        let repository = Repository::new(Arc::new(DirectoryTarget::new(self.folder.path().join("target"))));
        let restored = repository.restore(&RestoreOptions::default(), &into);
        let _ = std::fs::remove_dir_all(&into);
        let names = std::fs::read_dir(self.folder.path()).map_or(0, Iterator::count);
        assert_eq!(names, 2, "nothing was written elsewhere");
        if restored.is_ok() { Fed::Accepted } else { Fed::Refused }
    }

    fn put_back(&self) {
        for (path, bytes) in self.manifests.iter().chain(&self.chunks) {
            std::fs::write(path, bytes).expect("the target is there");
        }
    }
}

pub(crate) fn manifests(state: &mut State, rng: &mut Rng) -> Fed {
    let backups = state.backups.get_or_insert_with(Backups::new);
    let (path, bytes) = &backups.manifests[rng.usize(..backups.manifests.len())];
    let mut stored: Value = serde_json::from_slice(bytes).expect("it was written here");
    for _ in 0..rng.usize(1..4) {
        disturb(rng, &mut stored["manifest"]);
    }
    if rng.u8(0..4) > 0 {
        stored["hash"] = blake3::hash(stored["manifest"].to_string().as_bytes()).to_hex().to_string().into();
    }
    std::fs::write(path, crate::json::bytes(rng, &stored)).expect("the target is there");
    let fed = backups.restore();
    backups.put_back();
    fed
}

pub(crate) fn chunks(state: &mut State, rng: &mut Rng) -> Fed {
    let backups = state.backups.get_or_insert_with(Backups::new);
    let at = rng.usize(..backups.chunks.len());
    let (path, packed) = &backups.chunks[at];
    let mut bytes = zstd::stream::decode_all(packed.as_slice()).expect("it was written here");
    for _ in 0..rng.usize(1..20) {
        let at = rng.usize(..bytes.len());
        bytes[at] = rng.u8(..);
    }
    // Under its own name, which every manifest that named the old one names now.
    let (old, new) = (
        path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        blake3::hash(&bytes).to_hex().to_string(),
    );
    let folder = backups.folder.path().join("target/chunks").join(&new[..2]);
    std::fs::create_dir_all(&folder).expect("the target is there");
    let packed = zstd::bulk::compress(&bytes, 1).expect("bytes compress");
    std::fs::write(folder.join(&new), packed).expect("the target is there");
    for (path, manifest) in &backups.manifests {
        let mut stored: Value = serde_json::from_slice(manifest).expect("it was written here");
        stored["manifest"] =
            serde_json::from_str(&stored["manifest"].to_string().replace(&old, &new)).expect("still JSON");
        stored["hash"] = blake3::hash(stored["manifest"].to_string().as_bytes()).to_hex().to_string().into();
        std::fs::write(path, stored.to_string()).expect("the target is there");
    }
    let fed = backups.restore();
    let _ = std::fs::remove_file(folder.join(&new));
    backups.put_back();
    fed
}
