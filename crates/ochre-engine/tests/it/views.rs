//! Many threads at once: every answer is one committed state, and nobody waits for ever.

use std::sync::atomic::{AtomicBool, Ordering};

use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value, WriteKind};
use ochre_engine::{
    Database, DeleteRequest, Error, GetRequest, Idempotency, Include, NewRecords, QueryRequest, StoreError,
};

use crate::support::small;

/// A batch writes the same number into all of its records; a reader must never see two numbers.
fn check(database: &Database) {
    let collection = database.create_collection("shared").unwrap();
    let ids: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let write = |round: i64| {
        let metadata: Metadata = [("round", Value::Int(round))].into_iter().collect();
        let rows = ids.iter().map(|_| [round as f32, 1.0, 2.0]);
        let records = NewRecords::new(ids.clone(), rows).metadatas(ids.iter().map(|_| metadata.clone()));
        collection.upsert(records).unwrap();
    };
    write(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let request = GetRequest { include: Include::ALL, ..GetRequest::default() };
                while !stop.load(Ordering::Relaxed) {
                    let records = collection.get(&request).unwrap();
                    assert_eq!(records.len(), 40);
                    let rounds: Vec<Metadata> =
                        records.iter().map(|r| r.metadata.as_ref().unwrap().parse().unwrap()).collect();
                    assert!(rounds.windows(2).all(|pair| pair[0] == pair[1]), "two states in one answer");
                    let first = records[0].embedding.as_ref().unwrap()[0];
                    assert_eq!(
                        rounds[0].get("round"),
                        Some(&Value::Int(first as i64)),
                        "vector and metadata of one state"
                    );
                    let answer = collection.query(&QueryRequest::nearest_to([0.0, 0.0, 0.0]).k(40)).unwrap();
                    let distances: Vec<f32> = answer.results[0].iter().map(|hit| hit.distance).collect();
                    assert!(distances.len() == 40 && distances.windows(2).all(|pair| pair[0] == pair[1]));
                }
            });
        }
        for round in 1..300 {
            write(round);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn readers_of_a_durable_database_see_whole_commits_only() {
    let folder = tempfile::tempdir().unwrap();
    check(&Database::open_with(folder.path(), small()).unwrap());
}

#[test]
fn readers_of_an_ephemeral_database_see_whole_commits_only() {
    check(&Database::ephemeral_with(small()).unwrap());
}

#[test]
fn concurrent_writers_are_committed_together_and_each_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), small()).unwrap();
    let collection = database.create_collection("shared").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let collection = &collection;
            scope.spawn(move || {
                for index in 0..50 {
                    let id = format!("{thread}-{index}");
                    collection.add(NewRecords::new([id], [[thread as f32, index as f32]])).unwrap();
                    // Every thread also fights for the same ids.
                    collection.add(NewRecords::new([format!("shared-{index}")], [[0.5, index as f32]])).unwrap();
                }
            });
        }
    });
    assert_eq!(collection.count().unwrap(), 8 * 50 + 50);
}

#[test]
fn deletes_by_filter_and_writes_at_once_leave_what_some_order_of_them_would() {
    let database = Database::ephemeral_with(small()).unwrap();
    let collection = database.create_collection("shared").unwrap();
    let doomed: Metadata = [("doomed", Value::Bool(true))].into_iter().collect();
    let filter = Filter::Key { key: "doomed".into(), test: Test::Eq(Scalar::Bool(true)) };
    let deleted: u64 = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 0..500 {
                let records = NewRecords::new([format!("{index}")], [[index as f32]]).metadatas([doomed.clone()]);
                collection.add(records).unwrap();
            }
        });
        let deleter = scope.spawn(|| {
            let mut deleted = 0;
            for _ in 0..200 {
                let request = DeleteRequest { filter: Some(filter.clone()), ..DeleteRequest::default() };
                deleted += collection.delete(request).unwrap().deleted;
            }
            deleted
        });
        writer.join().unwrap();
        deleter.join().unwrap()
    });
    assert_eq!(deleted + collection.count().unwrap(), 500, "each record was deleted at most once, and counted");
}

#[test]
fn an_idempotency_key_makes_a_repeated_write_harmless_and_refuses_another_request() {
    let folder = tempfile::tempdir().unwrap();
    let key = |request| Some(Idempotency { key: "k1".into(), request });
    let id = {
        let database = Database::open_with(folder.path(), small()).unwrap();
        let notes = database.create_collection("notes").unwrap();
        let first = notes.write(WriteKind::Add, NewRecords::new(["a"], [[1.0]]), key(7)).unwrap();
        assert!(!first.replayed);
        notes.delete(DeleteRequest { ids: Some(vec!["a".into()]), ..DeleteRequest::default() }).unwrap();
        notes.id()
    };
    // The key outlives the process.
    let database = Database::open_with(folder.path(), small()).unwrap();
    let notes = database.collection_by_id(id).unwrap();
    let again = notes.write(WriteKind::Add, NewRecords::new(["a"], [[1.0]]), key(7)).unwrap();
    assert!(again.replayed);
    assert_eq!(notes.count().unwrap(), 0, "the repeated add was not done again");
    let other = notes.write(WriteKind::Add, NewRecords::new(["b"], [[1.0]]), key(8));
    assert!(matches!(other, Err(Error::Store(StoreError::IdempotencyConflict { .. }))));
}

#[test]
fn bad_batches_are_refused_whole() {
    let database = Database::ephemeral().unwrap();
    let notes = database.create_collection("notes").unwrap();
    notes.add(NewRecords::new(["a"], [[1.0, 2.0]])).unwrap();
    for bad in [
        NewRecords::new(["b", ""], [[1.0, 2.0], [1.0, 2.0]]),
        NewRecords::new(["b"], [[1.0, f32::NAN]]),
        NewRecords::new(["b"], [[1.0, f32::INFINITY]]),
        NewRecords::new(["b"], [[1.0, 2.0, 3.0]]),
        NewRecords::new(["b", "c"], [[1.0, 2.0]]),
        NewRecords::new(["b"], [[]]),
        NewRecords::ids(["b"]),
    ] {
        assert!(notes.add(bad.clone()).is_err(), "{bad:?}");
        assert_eq!(notes.count().unwrap(), 1);
    }
    let rows: Vec<Vec<f32>> = vec![vec![1.0, 2.0], vec![1.0]];
    assert!(notes.add(NewRecords::new(["b", "c"], rows)).is_err());
    assert!(notes.query(&QueryRequest::nearest_to([1.0])).is_err());
    assert!(notes.query(&QueryRequest::nearest_to([f32::NAN, 1.0])).is_err());
}
