//! Disk space: what is deleted comes back, damage is named, other formats and owners are refused.

use ochre_engine::tables::{Connection, OpenFlags};
use ochre_engine::{
    Collection, Database, DeleteRequest, Error, GetRequest, Include, NewRecords, Options, QueryRequest, StoreError,
};

fn options() -> Options {
    Options { segment_bytes: 256 << 10, background: false, ..Options::default() }
}

fn fill(database: &Database, name: &str, count: usize) -> Collection {
    let collection = database.create_collection(name).unwrap();
    let mut rng = fastrand::Rng::with_seed(count as u64);
    for start in (0..count).step_by(100) {
        let ids = (start..start + 100).map(|index| index.to_string());
        let rows: Vec<Vec<f32>> = (0..100).map(|_| (0..128).map(|_| rng.f32()).collect()).collect();
        collection.add(NewRecords::new(ids, rows).documents((0..100).map(|_| "text ".repeat(40)))).unwrap();
    }
    collection
}

fn bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.file_type().unwrap().is_dir() { bytes(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

#[test]
fn deleted_records_and_collections_give_their_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let kept = fill(&database, "kept", 1000);
    database.maintain().unwrap();
    let small = bytes(folder.path());
    fill(&database, "dropped", 8000);
    let thinned = fill(&database, "thinned", 8000);
    database.maintain().unwrap();
    let large = bytes(folder.path());
    database.delete_collection_in("default_tenant", "default_database", "dropped").unwrap();
    thinned
        .delete(DeleteRequest { ids: Some((0..8000).map(|i| i.to_string()).collect()), ..DeleteRequest::default() })
        .unwrap();
    database.maintain().unwrap();
    drop(thinned);
    database.close();
    drop(kept);
    let after = bytes(folder.path());
    assert!(large > small * 8, "{small} then {large}");
    assert!(after < small * 2, "{small}, {large}, and {after} in the end");
    let database = Database::open_with(folder.path(), options()).unwrap();
    let kept = database.collection("kept").unwrap();
    assert_eq!(kept.get(&GetRequest { include: Include::ALL, ..GetRequest::default() }).unwrap().len(), 1000);
    assert!(ochre_engine::check(folder.path()).is_err(), "an open database cannot be checked");
    drop(kept);
    drop(database);
    assert!(ochre_engine::check(folder.path()).unwrap().is_clean());
}

#[test]
fn a_second_owner_is_refused_at_once_and_told_who_the_first_is() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let Err(Error::Store(StoreError::Locked { owner, .. })) = Database::open(folder.path()).map(drop) else {
        panic!("a second opening must be refused");
    };
    assert!(owner.contains(&format!("process {}", std::process::id())), "{owner}");
    drop(database);
    Database::open(folder.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    Database::open(folder.path()).unwrap().close();
    let path = folder.path().join("ochre.sqlite3");
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "ochre").unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Database::open(folder.path()).map(drop).unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("up to 5") && error.contains("newer"), "{error}");
}

#[test]
fn damage_is_named_and_what_does_not_need_it_still_works() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    drop(fill(&database, "notes", 1000));
    database.close();
    let segments: Vec<_> =
        std::fs::read_dir(folder.path().join("segments")).unwrap().map(|e| e.unwrap().path()).collect();
    let victim = segments.iter().min().unwrap();
    let mut bytes = std::fs::read(victim).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0xFF;
    std::fs::write(victim, bytes).unwrap();

    let report = ochre_engine::check(folder.path()).unwrap();
    assert!(report.findings.iter().any(|finding| finding.file.contains(".seg")), "{:?}", report.findings);
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.collection("notes").unwrap();
    assert_eq!(notes.count().unwrap(), 1000);
    let plain = GetRequest { include: Include { documents: true, ..Include::NONE }, ..GetRequest::default() };
    assert_eq!(notes.get(&plain).unwrap().len(), 1000);
    let error = notes.query(&QueryRequest::nearest_to(vec![0.5; 128])).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Damaged(text) if text.contains(".seg")), "{error}");

    // Writing the embeddings again repairs it.
    let mut rng = fastrand::Rng::with_seed(1000);
    let rows: Vec<Vec<f32>> = (0..1000).map(|_| (0..128).map(|_| rng.f32()).collect()).collect();
    notes.upsert(NewRecords::new((0..1000).map(|i| i.to_string()), rows)).unwrap();
    assert_eq!(notes.query(&QueryRequest::nearest_to(vec![0.5; 128])).unwrap().results[0].len(), 10);
}

#[test]
fn a_segment_shorter_than_committed_is_damage_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    drop(fill(&database, "notes", 100));
    database.close();
    let segment = std::fs::read_dir(folder.path().join("segments")).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(1000).unwrap();
    let report = ochre_engine::check(folder.path()).unwrap();
    assert!(report.findings.iter().any(|finding| finding.problem.contains("committed")), "{:?}", report.findings);
    let database = Database::open_with(folder.path(), options()).unwrap();
    assert_eq!(database.collection("notes").unwrap().count().unwrap(), 100);
}

#[test]
fn an_empty_catalog_beside_vectors_is_refused_and_nothing_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    drop(fill(&database, "notes", 100));
    database.close();
    let segments = folder.path().join("segments");
    let before = bytes(&segments);
    let catalog = folder.path().join("ochre.sqlite3");
    for is_emptied in [true, false] {
        if is_emptied {
            std::fs::write(&catalog, "").unwrap();
        } else {
            std::fs::remove_file(&catalog).unwrap();
        }
        let error = Database::open_with(folder.path(), options()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Lost { .. })), "{error}");
        assert_eq!(bytes(&segments), before);
    }
}

#[test]
fn rewriting_the_same_records_takes_no_more_space_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), Options { background: false, ..Options::default() }).unwrap();
    let notes = database.create_collection("notes").unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        let rows: Vec<Vec<f32>> = (0..200).map(|_| (0..128).map(|_| rng.f32()).collect()).collect();
        notes.upsert(NewRecords::new((0..200).map(|i| i.to_string()), rows)).unwrap();
    }
    assert!(notes.memory().unwrap().vectors > 8 << 20);
    database.maintain().unwrap();
    let (memory, disk) = (notes.memory().unwrap().vectors, bytes(&folder.path().join("segments")));
    assert!(memory < 1 << 20 && disk < 1 << 20, "{memory} bytes in memory, {disk} on disk");
    assert_eq!(notes.count().unwrap(), 200);
}

#[test]
fn idle_collections_leave_memory_and_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { background: false, graph_records_min: 400, ..Options::default() }.setting(
        "memory",
        "idle_unload",
        "0s",
    );
    let database = Database::open_with(folder.path(), options).unwrap();
    let (small, large) = (database.create_collection("small").unwrap(), database.create_collection("large").unwrap());
    for (collection, count) in [(&small, 100), (&large, 500)] {
        let ids = (0..count).map(|number| number.to_string());
        collection.add(NewRecords::new(ids, (0..count).map(|number| [number as f32, 1.0]))).unwrap();
    }
    assert_eq!(database.memory().len(), 2);
    database.maintain().unwrap();
    let held: Vec<String> = database.memory().iter().map(|(row, _)| row.name.clone()).collect();
    assert_eq!(held, ["large"], "what has a graph stays");
    assert_eq!(small.loaded_records(), None);
    small.add(NewRecords::new(["new"], [[7.2f32, 1.0]])).unwrap();
    let answer = small.query(&ochre_engine::QueryRequest::nearest_to([7.3f32, 1.0]).k(2)).unwrap();
    let ids: Vec<&str> = answer.results[0].iter().map(|hit| hit.record.id.as_str()).collect();
    assert_eq!(ids, ["new", "7"]);
    assert_eq!(small.loaded_records(), Some(101));
}
