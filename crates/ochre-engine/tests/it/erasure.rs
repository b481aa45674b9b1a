//! What is deleted is gone from the disk: from files, log and caches, once maintenance has passed.

use std::path::Path;
use std::time::{Duration, Instant};

use ochre_engine::{Collection, Database, DeleteRequest, IndexDefinition, NewRecords, Options};
use serde_json::json;

use crate::support::{PATIENCE, small};

const SENTINEL: &str = "the-quick-sentinel-jumps-over-no-wall";
/// A vector whose bytes are found nowhere by chance.
const VECTOR: [f32; 4] = [1234.5679, -9876.543, 4242.4243, -1717.171];

/// Files that hold these bytes.
fn holding(folder: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            holding(&entry.path(), needle, found);
        } else if std::fs::read(entry.path()).is_ok_and(|bytes| memchr(&bytes, needle)) {
            found.push(entry.path().display().to_string());
        }
    }
}

fn memchr(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn traces(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    holding(folder, SENTINEL.as_bytes(), &mut found);
    let vector: Vec<u8> = VECTOR.iter().flat_map(|value| value.to_le_bytes()).collect();
    holding(folder, &vector, &mut found);
    found
}

/// Every job as it is by default, only sooner.
fn soon() -> Options {
    let mut options = Options { background: true, ..small() };
    for job in ["index-sync", "compact", "checkpoint", "vacuum", "sweep", "index-rebuild", "metadata-indexes", "erase"]
    {
        let change = options.jobs.entry(job.into()).or_default();
        change.insert("interval".into(), json!("100ms"));
        change.insert("policies".into(), json!({"class": "urgent"}));
    }
    options.setting("index-sync", "tail_age", "100ms")
}

fn plant(collection: &Collection) {
    let numbers = 0..200u16;
    let embeddings = numbers.clone().map(|number| [f32::from(number), 1.0, 2.0, 3.0]);
    let documents = numbers.clone().map(|number| format!("record {number} of no account"));
    let ids = numbers.map(|number| number.to_string());
    collection.add(NewRecords::new(ids, embeddings).documents(documents)).unwrap();
    let secret = NewRecords::new([format!("id-{SENTINEL}")], [VECTOR]).documents([SENTINEL]);
    let metadata = [("secret", ochre_engine::model::Value::Str(SENTINEL.into()))].into_iter().collect();
    collection.add(secret.metadatas([metadata])).unwrap();
}

fn check(erase: impl Fn(&Database, &Collection)) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), soon()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    plant(&notes);
    let by_secret = serde_json::json!({"index_name": "by_secret", "collection": "notes", "columns": ["secret"]});
    database.create_metadata_index(&IndexDefinition::from_json(by_secret).unwrap()).unwrap();
    let wait = |what: &str, holds: &dyn Fn() -> bool| {
        let patience = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < patience, "{what}: {:?}", traces(folder.path()));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let has_index = || notes.memory().unwrap().indexes > 0;
    // In the graph, in its snapshot, in a text segment and in an index, so that there is something to erase everywhere.
    wait("indexed", &|| notes.index_progress().unwrap() == (201, 0) && notes.memory().unwrap().text > 0 && has_index());
    assert!(!traces(folder.path()).is_empty());
    erase(&database, &notes);
    wait("erased", &|| traces(folder.path()).is_empty());
    drop(notes);
    database.close();
    assert_eq!(traces(folder.path()), Vec::<String>::new(), "closing brings nothing back");
    assert!(ochre_engine::check(folder.path()).unwrap().is_clean());
}

/// Runs the job by hand, and gives what it says.
fn erase(database: &Database) -> String {
    let last = || database.scheduler().history("erase", 1).unwrap().pop();
    let before = last().map(|run| run.fence);
    database.scheduler().run_now("erase").unwrap();
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(run) = last().filter(|run| Some(run.fence) != before && run.ended.is_some()) {
            return run.message;
        }
        assert!(Instant::now() < patience, "the job does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_record_that_a_fork_has_is_named_and_gone_once_all_have_deleted_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), soon()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    plant(&notes);
    let patience = Instant::now() + PATIENCE;
    while notes.index_progress().unwrap() != (201, 0) || notes.memory().unwrap().text == 0 {
        assert!(Instant::now() < patience, "it is not indexed");
        std::thread::sleep(Duration::from_millis(50));
    }
    let fork = notes.fork("copy").unwrap();
    let delete = |collection: &Collection| {
        let ids = Some(vec![format!("id-{SENTINEL}")]);
        collection.delete(DeleteRequest { ids, ..DeleteRequest::default() }).unwrap();
    };
    delete(&notes);
    let said = erase(&database);
    assert!(said.contains("not gone: 1 records of 'notes', which 'copy' still has"), "{said}");
    assert!(!traces(folder.path()).is_empty());
    assert_eq!(fork.count().unwrap(), 201);
    delete(&fork);
    let patience = Instant::now() + PATIENCE;
    while !traces(folder.path()).is_empty() {
        assert!(Instant::now() < patience, "{:?}", traces(folder.path()));
        let said = erase(&database);
        assert!(!said.contains("not gone"), "{said}");
    }
    drop((notes, fork));
    database.close();
    assert_eq!(traces(folder.path()), Vec::<String>::new(), "closing brings nothing back");
    assert!(ochre_engine::check(folder.path()).unwrap().is_clean());
}

#[test]
fn a_deleted_record_leaves_no_trace() {
    check(|_, notes| {
        let ids = Some(vec![format!("id-{SENTINEL}")]);
        notes.delete(DeleteRequest { ids, ..DeleteRequest::default() }).unwrap();
    });
}

#[test]
fn a_deleted_collection_leaves_no_trace() {
    check(|database, _| database.delete_collection_in("default_tenant", "default_database", "notes").unwrap());
}
