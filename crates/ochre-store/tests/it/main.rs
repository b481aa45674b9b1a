//! One contract for every store: the same checks run on SQLite and in memory.
#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod forks;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ochre_model::{
    Declaration, Embeddings, Filter, HnswConfiguration, IndexSchema, Metadata, MetadataPatch, RecordBatch, Scalar,
    Test, Value, WriteKind,
};
use ochre_store::{
    Alteration, Change, CollectionNumber, CollectionRow, Committed, Disk, DiskFile, Error, Idempotency, MemoryStore,
    NewCollection, Observer, Operation, Outcome, Page, Parts, PendingRecord, RealDisk, RecordValidator, Selection,
    SqliteOptions, SqliteStore, Store, Upkeep, Write,
};
use uuid::Uuid;

/// Runs a check on a fresh store of each kind.
fn on_every_store(check: impl Fn(&dyn Store)) {
    let folder = tempfile::tempdir().unwrap();
    check(&SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
    check(&MemoryStore::default());
}

fn collection(store: &dyn Store, name: &str) -> CollectionRow {
    store.create_collection(new_collection(name)).unwrap()
}

fn new_collection(name: &str) -> NewCollection {
    NewCollection {
        declaration: None,
        tenant: "default_tenant".into(),
        database: "default_database".into(),
        name: name.into(),
        metadata: None,
        schema: IndexSchema::new(&HnswConfiguration::default(), None),
    }
}

fn batch(ids: &[&str], first: f32) -> RecordBatch {
    let values = (0..ids.len()).flat_map(|index| [first + index as f32, 1.0]).collect();
    RecordBatch {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        embeddings: Some(Embeddings::from_rows(2, values)),
        ..RecordBatch::default()
    }
}

fn write(store: &dyn Store, collection: Uuid, kind: WriteKind, batch: RecordBatch) -> Result<Outcome, Error> {
    store.commit(Write {
        collection,
        operation: Operation::Records { kind, batch },
        idempotency: None,
        validator: None,
    })
}

fn delete(store: &dyn Store, collection: Uuid, selection: Selection) -> Result<Outcome, Error> {
    store.commit(Write { collection, operation: Operation::Delete(selection), idempotency: None, validator: None })
}

/// Ids with offset and position, in offset order.
fn rows(store: &dyn Store, number: CollectionNumber) -> Vec<(String, u32, u64)> {
    let mut rows = Vec::new();
    let visit = &mut |row: ochre_store::RowRef<'_>| {
        rows.push((row.id.to_owned(), row.offset, row.position));
        ControlFlow::Continue(())
    };
    store.read().unwrap().scan(number, visit).unwrap();
    rows
}

#[test]
fn positions_are_dense_and_offsets_are_kept_and_never_used_again() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        assert_eq!(write(store, notes.id, WriteKind::Add, batch(&["a", "b"], 0.0)).unwrap().position, 1);
        assert_eq!(write(store, notes.id, WriteKind::Upsert, batch(&["b", "c"], 5.0)).unwrap().position, 2);
        assert_eq!(delete(store, notes.id, Selection::Ids(vec!["a".into(), "x".into()])).unwrap().deleted, 2);
        assert_eq!(write(store, notes.id, WriteKind::Add, batch(&["a"], 9.0)).unwrap().position, 4);
        let expected = [("b", 1, 2), ("c", 2, 2), ("a", 3, 4)].map(|(id, o, p)| (id.to_owned(), o, p));
        assert_eq!(rows(store, notes.number), expected);
        let head = store.read().unwrap().head(notes.number).unwrap().unwrap();
        assert_eq!((head.position, head.records, head.next_offset), (4, 3, 4));
    });
}

/// A disk on which the next read waits until it may go on, if it is told so.
#[derive(Clone)]
struct Stalling {
    stalls: Arc<AtomicBool>,
    stalled: mpsc::Sender<()>,
    goes_on: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Disk for Stalling {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(StallingFile(RealDisk.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(StallingFile(RealDisk.open(path)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

struct StallingFile(Box<dyn DiskFile>, Stalling);

impl DiskFile for StallingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.1.stalls.swap(false, Ordering::SeqCst) {
            self.1.stalled.send(()).unwrap();
            self.1.goes_on.lock().unwrap().recv().unwrap();
        }
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.0.is_removed()
    }

    fn mappable(&self) -> Option<&std::fs::File> {
        None
    }
}

#[test]
fn nobody_waits_for_vectors_that_are_read_from_a_slow_disk() {
    let folder = tempfile::tempdir().unwrap();
    let ((stalled, stalls), (go, goes_on)) = (mpsc::channel(), mpsc::channel());
    let disk = Stalling { stalls: Arc::default(), stalled, goes_on: Arc::new(Mutex::new(goes_on)) };
    let options = SqliteOptions { disk: Arc::new(disk.clone()), ..SqliteOptions::default() };
    let store = SqliteStore::open(folder.path(), options).unwrap();
    let (slow, other) = (collection(&store, "slow"), collection(&store, "other"));
    for notes in [&slow, &other] {
        write(&store, notes.id, WriteKind::Add, batch(&["a", "b"], 0.0)).unwrap();
    }
    disk.stalls.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.read().unwrap().vector_blocks(slow.number).unwrap().len());
        stalls.recv().unwrap();
        // Another reads, and writes; of the same collection, too.
        assert_eq!(store.read().unwrap().vector_blocks(other.number).unwrap().len(), 1);
        write(&store, other.id, WriteKind::Add, batch(&["c"], 5.0)).unwrap();
        write(&store, slow.id, WriteKind::Add, batch(&["c"], 5.0)).unwrap();
        go.send(()).unwrap();
        assert_eq!(reading.join().unwrap(), 1, "as it was when it began to read");
    });
    assert_eq!(store.read().unwrap().vector_blocks(slow.number).unwrap().len(), 2);
}

#[test]
fn what_changes_nothing_writes_nothing() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        write(store, notes.id, WriteKind::Add, batch(&["a", "b"], 0.0)).unwrap();
        let blocks = store.read().unwrap().vector_blocks(notes.number).unwrap().len();
        for kind in [WriteKind::Add, WriteKind::Upsert, WriteKind::Update] {
            assert_eq!(write(store, notes.id, kind, batch(&["a", "b"], 0.0)).unwrap().position, 1, "{kind:?}");
        }
        assert_eq!(write(store, notes.id, WriteKind::Update, batch(&["nobody"], 0.0)).unwrap().position, 1);
        assert_eq!(store.read().unwrap().vector_blocks(notes.number).unwrap().len(), blocks);
    });
}

#[test]
fn a_refused_batch_leaves_nothing() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        write(store, notes.id, WriteKind::Add, batch(&["a"], 0.0)).unwrap();
        let bad = RecordBatch { embeddings: Some(Embeddings::from_rows(3, vec![0.0; 6])), ..batch(&["b", "c"], 0.0) };
        let error = write(store, notes.id, WriteKind::Add, bad).unwrap_err();
        assert!(matches!(error, Error::Dimension { expected: 2, got: 3 }), "{error}");
        assert_eq!(rows(store, notes.number).len(), 1);
        let error = write(store, Uuid::new_v4(), WriteKind::Add, batch(&["b"], 0.0)).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    });
}

#[test]
fn a_delete_by_filter_is_checked_again_for_what_changed_since_it_was_resolved() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        let tagged = |ids: &[&str], tag: i64| {
            let metadata: Metadata = [("tag", Value::Int(tag))].into_iter().collect();
            let metadatas = ids.iter().map(|_| Some(MetadataPatch::from(metadata.clone()))).collect();
            RecordBatch { metadatas: Some(metadatas), ..batch(ids, 0.0) }
        };
        write(store, notes.id, WriteKind::Add, tagged(&["a", "b", "c"], 1)).unwrap();
        // Resolved now: a, b and c match. Then b stops matching, d begins to, and c goes.
        let (offsets, at) = (vec![0, 1, 2], 1);
        write(store, notes.id, WriteKind::Update, tagged(&["b"], 2)).unwrap();
        write(store, notes.id, WriteKind::Add, tagged(&["d"], 1)).unwrap();
        delete(store, notes.id, Selection::Ids(vec!["c".into()])).unwrap();
        let filter = Filter::Key { key: "tag".into(), test: Test::Eq(Scalar::Int(1)) };
        let outcome = delete(store, notes.id, Selection::Matching { offsets, at, filter, limit: None }).unwrap();
        assert_eq!(outcome.deleted, 2);
        assert_eq!(rows(store, notes.number).into_iter().map(|row| row.0).collect::<Vec<_>>(), ["b"]);
    });
}

#[test]
fn a_view_the_log_no_longer_reaches_is_called_stale() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        for round in 0..1_050 {
            write(store, notes.id, WriteKind::Upsert, batch(&["a"], round as f32)).unwrap();
        }
        while store.upkeep(Upkeep::PruneLog).unwrap() {}
        assert_eq!(store.debt().unwrap().prunable_entries, 0);
        let filter = Filter::All(Vec::new());
        let selection = |at| Selection::Matching { offsets: vec![0], at, filter: filter.clone(), limit: None };
        let error = delete(store, notes.id, selection(1)).unwrap_err();
        assert!(matches!(error, Error::Stale { head: 1_050 }), "{error}");
        assert_eq!(delete(store, notes.id, selection(1_049)).unwrap().deleted, 1);
    });
}

#[test]
fn log_entries_that_a_consumer_holds_are_kept_until_it_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let notes = collection(&store, "notes");
    for round in 0..1_500 {
        write(&store, notes.id, WriteKind::Upsert, batch(&["a"], round as f32)).unwrap();
    }
    let prunable = || store.debt().unwrap().prunable_entries;
    assert_eq!(prunable(), 500);
    store.retain_log("backup", &[(notes.number, 200)]).unwrap();
    assert_eq!(prunable(), 200);
    while store.upkeep(Upkeep::PruneLog).unwrap() {}
    assert_eq!(prunable(), 0);
    store.retain_log("backup", &[]).unwrap();
    assert_eq!(prunable(), 300);
    store.retain_log_for_snapshot(notes.number, Some(300)).unwrap();
    store.retain_log_for_snapshot(notes.number + 1, Some(1)).unwrap();
    assert_eq!(prunable(), 100);
    store.retain_log_for_snapshot(notes.number, None).unwrap();
    assert_eq!(prunable(), 300);
}

#[test]
fn log_entries_that_are_old_enough_are_not_needed_however_few_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { log_age: std::time::Duration::ZERO, ..SqliteOptions::default() };
    let store = SqliteStore::open(folder.path(), options).unwrap();
    let notes = collection(&store, "notes");
    for round in 0..10 {
        write(&store, notes.id, WriteKind::Upsert, batch(&["a"], round as f32)).unwrap();
    }
    store.retain_log("backup", &[(notes.number, 4)]).unwrap();
    assert_eq!(store.debt().unwrap().prunable_entries, 4);
    store.retain_log("backup", &[]).unwrap();
    while store.upkeep(Upkeep::PruneLog).unwrap() {}
    let changed = |position| store.read().unwrap().changed_since(notes.number, position).unwrap();
    assert_eq!((changed(9), changed(10)), (None, Some(vec![])));
    write(&store, notes.id, WriteKind::Upsert, batch(&["a"], 99.0)).unwrap();
    assert_eq!(changed(10), Some(vec![0]));
}

#[test]
fn the_log_tells_what_changed_as_far_as_it_reaches_back() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        write(store, notes.id, WriteKind::Add, batch(&["a", "b", "c"], 0.0)).unwrap();
        write(store, notes.id, WriteKind::Update, batch(&["b"], 7.0)).unwrap();
        delete(store, notes.id, Selection::Ids(vec!["c".into()])).unwrap();
        let changed = |position| store.read().unwrap().changed_since(notes.number, position).unwrap();
        assert_eq!(changed(0), Some(vec![0, 1, 2]));
        assert_eq!(changed(1), Some(vec![1, 2]));
        assert_eq!(changed(3), Some(vec![]));
        assert_eq!(changed(4), None, "a position of another history");
        for round in 0..1_200 {
            write(store, notes.id, WriteKind::Upsert, batch(&["a"], 100.0 + round as f32)).unwrap();
        }
        while store.upkeep(Upkeep::PruneLog).unwrap() {}
        assert_eq!((changed(3), changed(1_000)), (None, Some(vec![0])));
    });
}

#[test]
fn an_idempotency_key_replays_its_outcome_and_refuses_another_request() {
    on_every_store(|store| {
        let notes = collection(store, "notes");
        let keyed = |id: &str, request| {
            let operation = Operation::Records { kind: WriteKind::Add, batch: batch(&[id], 0.0) };
            store.commit(Write {
                collection: notes.id,
                operation,
                idempotency: Some(Idempotency { key: "k".into(), request }),
                validator: None,
            })
        };
        assert!(!keyed("a", 1).unwrap().replayed);
        delete(store, notes.id, Selection::Ids(vec!["a".into()])).unwrap();
        assert_eq!(keyed("a", 1).unwrap(), Outcome { position: 1, deleted: 0, replayed: true });
        assert!(rows(store, notes.number).is_empty());
        assert!(matches!(keyed("b", 2), Err(Error::IdempotencyConflict { .. })));
    });
}

/// Writes to another collection while it validates, from another thread.
struct WritesMeanwhile {
    store: Arc<dyn Store>,
    other: Uuid,
    is_written: AtomicBool,
}

impl std::fmt::Debug for WritesMeanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WritesMeanwhile")
    }
}

impl RecordValidator for WritesMeanwhile {
    fn validate(&self, _: &CollectionRow, records: &mut [PendingRecord<'_>]) -> Result<(), String> {
        assert_eq!((records.len(), records[0].id, records[0].before.is_none()), (1, "a", true));
        let (store, other, (done, is_done)) = (Arc::clone(&self.store), self.other, mpsc::channel());
        std::thread::spawn(move || {
            write(&*store, other, WriteKind::Add, batch(&["b"], 0.0)).unwrap();
            let _ = done.send(());
        });
        self.is_written.store(is_done.recv_timeout(Duration::from_secs(20)).is_ok(), Ordering::Relaxed);
        Err("previews refuse nothing".into())
    }
}

#[test]
fn nobody_waits_for_the_validator_of_a_preview() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [(&str, Arc<dyn Store>); 2] = [
        ("SQLite", Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap())),
        ("memory", Arc::new(MemoryStore::default())),
    ];
    for (name, store) in stores {
        let other = collection(&*store, "other").id;
        let declaration = Declaration { schema: Some(r#"{"year": "int"}"#.into()), ..Declaration::default() };
        let row = store.create_collection(NewCollection { declaration: Some(declaration), ..new_collection("films") });
        let validator = Arc::new(WritesMeanwhile { store: Arc::clone(&store), other, is_written: false.into() });
        let operation = Operation::Records { kind: WriteKind::Add, batch: batch(&["a"], 0.0) };
        let films = row.unwrap().id;
        let write = Write { collection: films, operation, idempotency: None, validator: Some(validator.clone()) };
        store.preview(&write).unwrap();
        assert!(validator.is_written.load(Ordering::Relaxed), "{name}");
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(u64, usize)>>);

impl Observer for Seen {
    fn committed(&self, commit: &Arc<Committed>) {
        for change in &commit.changes {
            if let Change::Put(put) = change
                && let Some((block, row)) = put.vector
            {
                assert_eq!(commit.blocks[block].ids()[row], put.vector_id, "a change leads to its vector");
            }
        }
        self.0.lock().unwrap().push((commit.position, commit.changes.len()));
    }

    fn relocated(&self, _: &[CollectionNumber]) {}

    fn forked(&self, _: &CollectionRow, _: &CollectionRow) {}

    fn reopened(&self) {}
}

#[test]
fn observers_see_every_commit_once_in_order_and_before_its_answer() {
    on_every_store(|store| {
        let seen = Arc::new(Seen::default());
        store.observe(Arc::<Seen>::clone(&seen));
        let notes = collection(store, "notes");
        write(store, notes.id, WriteKind::Add, batch(&["a", "b"], 0.0)).unwrap();
        assert_eq!(*seen.0.lock().unwrap(), [(1, 2)]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for index in 0..25 {
                        write(store, notes.id, WriteKind::Add, batch(&[&format!("{thread}-{index}")], 0.0)).unwrap();
                    }
                });
            }
        });
        let positions: Vec<u64> = seen.0.lock().unwrap().iter().map(|(position, _)| *position).collect();
        assert!(positions.into_iter().eq(1..=101));
    });
}

#[test]
fn a_reader_keeps_its_state_while_others_write() {
    // In memory a reader keeps writers out instead, so this is a check of the durable store.
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let notes = collection(&store, "notes");
    write(&store, notes.id, WriteKind::Add, batch(&["a"], 0.0)).unwrap();
    let reader = store.read().unwrap();
    write(&store, notes.id, WriteKind::Add, batch(&["b"], 0.0)).unwrap();
    assert_eq!(reader.head(notes.number).unwrap().unwrap().position, 1);
    let mut ids = Vec::new();
    let visit = &mut |row: ochre_store::RowRef<'_>| {
        ids.push(row.id.to_owned());
        ControlFlow::Continue(())
    };
    reader.rows(notes.number, &[0, 1], Parts::default(), visit).unwrap();
    assert_eq!(ids, ["a"]);
}

#[test]
fn the_catalog_keeps_names_apart_and_learns_from_records() {
    on_every_store(|store| {
        store.create_tenant("acme").unwrap();
        assert!(matches!(store.create_tenant("acme"), Err(Error::AlreadyExists { .. })));
        store.set_resource_name("acme", "res").unwrap();
        assert_eq!(store.tenant_by_resource_name("res").unwrap().unwrap().name, "acme");
        store.create_database("acme", "books").unwrap();
        assert_eq!(store.databases("acme", Page::default()).unwrap().len(), 1);
        let notes = collection(store, "notes");
        let other = collection(store, "other");
        let rename = Alteration { name: Some("other".into()), ..Alteration::default() };
        assert!(matches!(store.alter_collection(notes.id, rename), Err(Error::AlreadyExists { .. })));
        let metadata: Metadata = [("key", Value::Int(1))].into_iter().collect();
        let records = RecordBatch { metadatas: Some(vec![Some(metadata.into())]), ..batch(&["a"], 0.0) };
        write(store, notes.id, WriteKind::Add, records).unwrap();
        let row = store.collection_by_id(notes.id).unwrap().unwrap();
        assert_eq!(row.dimension, Some(2));
        assert!(row.schema.as_json()["keys"]["key"]["int"].is_object());
        assert_eq!(store.count_collections("default_tenant", "default_database").unwrap(), 2);
        store.delete_collection(other.id).unwrap();
        assert!(store.collection_by_id(other.id).unwrap().is_none());
        collection(store, "other");
        while store.upkeep(Upkeep::SweepDeleted).unwrap() {}
    });
}

#[test]
fn a_reset_leaves_only_the_defaults_and_begins_an_epoch() {
    on_every_store(|store| {
        let epoch = store.epoch();
        let notes = collection(store, "notes");
        write(store, notes.id, WriteKind::Add, batch(&["a"], 0.0)).unwrap();
        store.reset().unwrap();
        assert_ne!(store.epoch(), epoch);
        assert!(store.collection_by_id(notes.id).unwrap().is_none());
        assert!(store.tenant("default_tenant").unwrap().is_some());
        assert!(store.database("default_tenant", "default_database").unwrap().unwrap().id.is_nil());
        let again = collection(store, "notes");
        assert_ne!(again.number, notes.number, "a number is never used again");
    });
}

/// SQLite reads a page that it has just allocated for a table, beyond the end of the file, depending on how many pages
/// there are.
#[test]
fn tables_are_made_however_many_pages_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let notes = collection(&store, "notes");
    for number in 0..60 {
        let name = format!("tables_{number}");
        let script = format!(
            "CREATE TABLE {name}_of (id BLOB PRIMARY KEY, other BLOB UNIQUE) WITHOUT ROWID;
             CREATE INDEX {name}_by ON {name}_of (other, id);"
        );
        store.extend(&name, &[&script]).unwrap();
        write(&store, notes.id, WriteKind::Add, batch(&[&name], 0.0)).unwrap();
        if number % 7 == 0 {
            store.upkeep(Upkeep::Checkpoint { truncate: true }).unwrap();
        }
    }
    assert!(store.scrub(&mut |_, _| true).unwrap().unwrap().findings.is_empty());
}
