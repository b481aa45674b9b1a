//! The files of a database: a few bytes of some are changed, and it is checked, opened and asked. What it answers is
//! right, or an error.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use ochre_engine::model::Metadata;
use ochre_engine::{Database, Error, GetRequest, Include, NewRecords, Options, QueryRequest, check};

use crate::{Fed, State};

/// A database as `kill -9` leaves it, and its answers.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    expected: String,
}

fn options() -> Options {
    Options {
        background: false,
        graph_records_min: 50,
        segment_bytes: 16 << 10,
        text_unindexed_max: 20,
        ..Options::default()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).expect("files can be copied");
        }
    }
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(all_files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

fn answers(home: &Path) -> Result<String, Error> {
    let database = Database::open_with(home, options())?;
    let records = database.collection("records")?;
    let all = records.get(&GetRequest { include: Include::ALL, ..GetRequest::default() })?;
    let mut text = String::new();
    for record in &all {
        let metadata = record.metadata.as_ref().map(|metadata| metadata.as_json().to_owned());
        text += &format!("{} {:?} {:?} {metadata:?};", record.id, record.embedding, record.document);
    }
    for record in all.iter().step_by(29) {
        let found = records.query(&QueryRequest::nearest_to(record.embedding.clone().unwrap_or_default()).k(1))?;
        text += &found.results[0].iter().map(|hit| hit.record.id.clone()).collect::<String>();
    }
    Ok(text)
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let open = folder.path().join("open");
        let database = Database::open_with(&open, options()).expect("a new database opens");
        let records = database.create_collection("records").expect("it is new");
        let mut rng = Rng::with_seed(5);
        for part in 0..6 {
            let embeddings: Vec<Vec<f32>> = (0..40).map(|_| (0..8).map(|_| rng.f32()).collect()).collect();
            let metadatas = (0..40).map(|n| Metadata::from_text(&format!(r#"{{"n":{n}}}"#)).expect("it is right"));
            let new = NewRecords::new((0..40).map(|n| format!("{part}-{n}")), embeddings)
                .documents((0..40).map(|n| format!("document {n}")))
                .metadatas(metadatas);
            records.upsert(new).expect("records are written");
            if part == 4 {
                database.maintain().expect("maintenance works");
            }
        }
        copy(&open, &folder.path().join("killed"));
        drop((records, database));
        copy(&folder.path().join("killed"), &folder.path().join("whole"));
        let expected = answers(&folder.path().join("whole")).expect("it is whole");
        Self { folder, expected }
    }
}

pub(crate) fn files(state: &mut State, rng: &mut Rng) -> Fed {
    let files = state.files.get_or_insert_with(Files::new);
    let home = files.folder.path().join("home");
    let _ = std::fs::remove_dir_all(&home);
    copy(&files.folder.path().join("killed"), &home);
    let mut paths = all_files(&home);
    paths.retain(|path| {
        !path.ends_with("lock") && !path.ends_with("reserve") && !path.display().to_string().ends_with("-shm")
    });
    let path = &paths[rng.usize(..paths.len())];
    let mut bytes = std::fs::read(path).unwrap_or_default();
    match rng.u8(0..10) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 => bytes.extend((0..rng.usize(1..5000)).map(|_| rng.u8(..))),
        _ => {
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = rng.u8(..);
                }
            }
        }
    }
    std::fs::write(path, bytes).expect("it can be written");
    let is_clean = check(&home).is_ok_and(|report| report.is_clean());
    match answers(&home) {
        Ok(answers) => {
            assert!(
                answers == files.expected || !is_clean,
                "{}: a wrong answer that check does not explain",
                path.display()
            );
            Fed::Accepted
        }
        Err(_) => Fed::Refused,
    }
}
