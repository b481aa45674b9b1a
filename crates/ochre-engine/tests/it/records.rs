//! Snapshots of records: used where they fit, with what changed since, and never believed where they do not.

use std::path::{Path, PathBuf};

use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value};
use ochre_engine::{Collection, Database, DeleteRequest, GetRequest, Include, NewRecords, Options};

fn open(folder: &Path) -> Database {
    let options = Options { background: false, graph_records_min: 100, ..Options::default() };
    Database::open_with(folder, options).unwrap()
}

fn colour(index: usize) -> &'static str {
    ["blue", "red", "green"][index % 3]
}

/// 300 records of three colours, and where their snapshot is.
fn fill(folder: &Path) -> PathBuf {
    let database = open(folder);
    let collection = database.create_collection("things").unwrap();
    let metadatas = (0..300).map(|index| -> Metadata {
        [("colour", Value::Str(colour(index).into())), ("n", Value::Int(index as i64))].into_iter().collect()
    });
    let ids = (0..300).map(|index| index.to_string());
    let vectors = (0..300).map(|index| [index as f32, 1.0]);
    let documents = (0..300).map(|index| format!("thing {index}"));
    collection.add(NewRecords::new(ids, vectors).metadatas(metadatas).documents(documents)).unwrap();
    database.maintain().unwrap();
    let snapshot = folder.join("cache").join(collection.id().to_string()).join("records.snapshot");
    drop(collection);
    database.close();
    assert!(snapshot.is_file());
    snapshot
}

fn ids(collection: &Collection, filter: Filter) -> Vec<String> {
    let request = GetRequest { filter: Some(filter), ..GetRequest::default() };
    collection.get(&request).unwrap().into_iter().map(|record| record.id).collect()
}

fn is(key: &str, value: Scalar) -> Filter {
    Filter::Key { key: key.into(), test: Test::Eq(value) }
}

fn of_colour(collection: &Collection, colour: &str) -> usize {
    ids(collection, is("colour", Scalar::Str(colour.into()))).len()
}

/// Changes a snapshot so that it still fits its checksum: whoever uses it is told by the answers.
fn paint(snapshot: &Path, from: &str, to: &str) {
    let mut bytes = std::fs::read(snapshot).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is in there");
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    let end = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    std::fs::write(snapshot, bytes).unwrap();
}

#[test]
fn records_are_loaded_from_their_snapshot_and_what_changed_since() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = fill(folder.path());
    paint(&snapshot, "blue", "bleu");
    let database = open(folder.path());
    let collection = database.collection("things").unwrap();
    assert_eq!((of_colour(&collection, "bleu"), of_colour(&collection, "blue")), (100, 0), "it is used");

    // Few enough changes are replayed on top of it at the next start.
    let blue: Metadata = [("colour", Value::Str("blue".into()))].into_iter().collect();
    collection.upsert(NewRecords::new(["0", "new"], [[500.0, 1.0], [501.0, 1.0]]).metadatas(vec![blue; 2])).unwrap();
    collection.delete(DeleteRequest { ids: Some(vec!["3".into(), "4".into()]), ..DeleteRequest::default() }).unwrap();
    drop(collection);
    // Not closed in order: no snapshot is written.
    drop(database);
    let database = open(folder.path());
    let collection = database.collection("things").unwrap();
    assert_eq!((of_colour(&collection, "bleu"), of_colour(&collection, "blue")), (98, 2));
    assert_eq!(ids(&collection, is("n", Scalar::Int(4))), [""; 0]);
    assert_eq!(ids(&collection, is("n", Scalar::Int(0))), ["0"], "metadata is merged with what the truth has");
    assert_eq!(collection.count().unwrap(), 299);
    let request = GetRequest { include: Include::ALL, ..GetRequest::of(["0", "new", "5"]) };
    let vectors: Vec<Vec<f32>> =
        collection.get(&request).unwrap().into_iter().filter_map(|record| record.embedding).collect();
    assert_eq!(vectors, [[500.0, 1.0], [5.0, 1.0], [501.0, 1.0]]);
    let answer = collection.query(&ochre_engine::QueryRequest::nearest_to([501.0, 1.0]).k(2)).unwrap();
    assert_eq!(answer.results[0].iter().map(|hit| hit.record.id.as_str()).collect::<Vec<_>>(), ["new", "0"]);
}

#[test]
fn a_snapshot_that_does_not_fit_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = fill(folder.path());
    let sound = std::fs::read(&snapshot).unwrap();
    let right = |why: &str| {
        let database = open(folder.path());
        let collection = database.collection("things").unwrap();
        assert_eq!(of_colour(&collection, "blue"), 100, "{why}");
        // No snapshot is written.
        drop(collection);
        drop(database);
    };
    std::fs::write(&snapshot, &sound[..sound.len() / 2]).unwrap();
    right("cut short");
    assert!(!snapshot.exists(), "it never will fit");
    std::fs::write(&snapshot, b"").unwrap();
    right("empty");
    std::fs::remove_file(&snapshot).ok();
    right("gone");

    // More changed than is worth replaying.
    std::fs::write(&snapshot, &sound).unwrap();
    paint(&snapshot, "blue", "bleu");
    let database = open(folder.path());
    let collection = database.collection("things").unwrap();
    let changed = (0..150).map(|index| index.to_string());
    let seen: Metadata = [("seen", Value::Bool(true))].into_iter().collect();
    collection.update(NewRecords::ids(changed).metadatas(vec![seen; 150])).unwrap();
    drop(collection);
    drop(database);
    right("too much changed");

    // The log no longer reaches back to it.
    let database = open(folder.path());
    let collection = database.collection("things").unwrap();
    assert_eq!(of_colour(&collection, "blue"), 100);
    for round in 0..1_100 {
        collection.upsert(NewRecords::new(["5"], [[round as f32, 2.0]])).unwrap();
    }
    database.maintain().unwrap();
    assert!(snapshot.exists(), "it was written again");
    drop(collection);
    drop(database);
    std::fs::write(&snapshot, &sound).unwrap();
    paint(&snapshot, "blue", "bleu");
    right("pruned");
}
