//! Conditional transactions against a serial model: what is committed is as if nobody else had written in between.

use std::collections::{BTreeMap, HashMap, HashSet};

use ochre_engine::model::WriteKind;
use ochre_engine::{
    Collection, ConditionalCommit, ConditionalWrite, Database, DeleteRequest, Error, GetRequest, Include, NewRecords,
    StoreError,
};

use crate::support::small;

/// The value of each record, and how often each id was written to or deleted.
#[derive(Default)]
struct Model {
    records: BTreeMap<String, f32>,
    versions: HashMap<String, u32>,
    deletions: u32,
}

impl Model {
    fn upsert(&mut self, id: &str, value: f32) {
        if self.records.insert(id.to_owned(), value) != Some(value) {
            *self.versions.entry(id.to_owned()).or_default() += 1;
        }
    }

    fn delete(&mut self, id: &str) {
        if self.records.remove(id).is_some() {
            *self.versions.entry(id.to_owned()).or_default() += 1;
            self.deletions += 1;
        }
    }

    fn version(&self, id: &str) -> u32 {
        self.versions.get(id).copied().unwrap_or(0)
    }
}

/// A transaction under way: which version of which id it read.
struct Transaction {
    at: u64,
    read: HashMap<String, u32>,
    deletions: u32,
}

fn ids(rng: &mut fastrand::Rng, count_max: usize) -> Vec<String> {
    let ids: HashSet<String> = (0..rng.usize(1..=count_max)).map(|_| format!("r{}", rng.u8(0..80))).collect();
    ids.into_iter().collect()
}

fn records(ids: &[String], value: f32) -> NewRecords {
    NewRecords::new(ids.iter().cloned(), ids.iter().map(|_| [value, 1.0]))
}

/// The ids that are found with their values, and the position that they are of.
fn read(tests: &Collection, ids: &[String], since: Option<u64>) -> Result<(BTreeMap<String, f32>, u64), Error> {
    let request = GetRequest { unchanged_since: since, include: Include::ALL, ..GetRequest::of(ids.iter().cloned()) };
    let found = tests.get_results(&request)?;
    let values = found.records.into_iter().map(|record| (record.id, record.embedding.unwrap()[0])).collect();
    Ok((values, found.position))
}

/// Reads more within a transaction: what is found is as it was at its first read, or it is told that it is not.
fn read_more(rng: &mut fastrand::Rng, tests: &Collection, model: &Model, open: &mut Transaction, then: &Versions) {
    let ids = ids(rng, 4);
    let was = |id: &String| then.get(id).copied().unwrap_or(0);
    let has_changed = |id: &&String| model.records.contains_key(*id) && model.version(id) != was(id);
    match read(tests, &ids, Some(open.at)) {
        Ok((found, _)) => {
            assert!(!ids.iter().any(|id| has_changed(&id)));
            assert!(found.iter().all(|(id, value)| model.records[id] == *value));
            open.read.extend(ids.iter().map(|id| (id.clone(), was(id))));
        }
        Err(Error::Store(StoreError::StaleRead(_))) => assert!(ids.iter().any(|id| has_changed(&id))),
        Err(other) => panic!("{other}"),
    }
}

type Versions = HashMap<String, u32>;

/// Commits a transaction; whether it was kept.
fn commit(rng: &mut fastrand::Rng, tests: &Collection, model: &mut Model, open: &Transaction) -> bool {
    let mut written = ids(rng, 5);
    let deleted = written.split_off(rng.usize(0..=written.len()));
    let value = rng.f32();
    let mut writes = vec![ConditionalWrite::Delete(deleted.clone())];
    if !written.is_empty() {
        writes.push(ConditionalWrite::Records(WriteKind::Upsert, records(&written, value)));
    }
    let commit = ConditionalCommit { read_ids: open.read.keys().cloned().collect(), read_at: Some(open.at), writes };
    let has_conflict = open.read.iter().any(|(id, version)| model.version(id) != *version);
    match tests.commit(commit, None) {
        Ok(_) => {
            assert!(!has_conflict, "it relied on what was changed since");
            deleted.iter().for_each(|id| model.delete(id));
            written.iter().for_each(|id| model.upsert(id, value));
            true
        }
        Err(Error::Store(StoreError::WriteConflict)) => {
            // What was not there counts as deleted if anything was.
            let is_missing = open.read.keys().any(|id| !model.records.contains_key(id));
            assert!(has_conflict || is_missing && model.deletions > open.deletions, "there was no conflict");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn check(database: &Database, seed: u64) {
    let tests = database.create_collection("tests").unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut model, mut open): (Model, Vec<(Transaction, Versions)>) = (Model::default(), Vec::new());
    let (mut kept, mut refused) = (0, 0);
    for round in 0..1500 {
        match rng.u8(0..10) {
            0 | 1 => {
                let (ids, value) = (ids(&mut rng, 3), rng.f32());
                tests.upsert(records(&ids, value)).unwrap();
                ids.iter().for_each(|id| model.upsert(id, value));
            }
            2 if rng.bool() => {
                let ids = ids(&mut rng, 2);
                tests.delete(DeleteRequest { ids: Some(ids.clone()), ..DeleteRequest::default() }).unwrap();
                ids.iter().for_each(|id| model.delete(id));
            }
            3..=5 => {
                let ids = ids(&mut rng, 4);
                let (found, at) = read(&tests, &ids, None).unwrap();
                assert!(found.iter().all(|(id, value)| model.records[id] == *value));
                let read = ids.iter().map(|id| (id.clone(), model.version(id))).collect();
                open.push((Transaction { at, read, deletions: model.deletions }, model.versions.clone()));
            }
            6 if !open.is_empty() => {
                let index = rng.usize(0..open.len());
                let (transaction, then) = &mut open[index];
                read_more(&mut rng, &tests, &model, transaction, then);
            }
            _ if !open.is_empty() => {
                let (transaction, _) = open.swap_remove(rng.usize(0..open.len()));
                let is_kept = commit(&mut rng, &tests, &mut model, &transaction);
                (kept, refused) = (kept + u32::from(is_kept), refused + u32::from(!is_kept));
            }
            _ => {}
        }
        if round % 100 == 0 {
            database.maintain().unwrap();
        }
    }
    let all: Vec<String> = (0..80).map(|number| format!("r{number}")).collect();
    assert_eq!(read(&tests, &all, None).unwrap().0, model.records);
    assert!(kept > 50 && refused > 50, "{kept} were kept and {refused} refused");
}

#[test]
fn transactions_are_as_if_one_followed_the_other() {
    check(&Database::ephemeral_with(small()).unwrap(), 1);
    let folder = tempfile::tempdir().unwrap();
    check(&Database::open_with(folder.path(), small()).unwrap(), 2);
}

#[test]
fn of_threads_that_count_up_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), small()).unwrap();
    let tests = database.create_collection("tests").unwrap();
    tests.add(records(&["count".into()], 0.0)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut done = 0;
                while done < 25 {
                    let (found, at) = read(&tests, &["count".into()], None).unwrap();
                    let next = records(&["count".into()], found["count"] + 1.0);
                    let writes = vec![ConditionalWrite::Records(WriteKind::Update, next)];
                    let commit = ConditionalCommit { read_ids: vec!["count".into()], read_at: Some(at), writes };
                    match tests.commit(commit, None) {
                        Ok(_) => done += 1,
                        Err(Error::Store(StoreError::WriteConflict)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert_eq!(read(&tests, &["count".into()], None).unwrap().0["count"], 100.0);
}

#[test]
fn several_writes_are_kept_together_or_not_at_all() {
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = database.create_collection("tests").unwrap();
    let write = |ids: &[&str], value: f32| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        ConditionalWrite::Records(WriteKind::Add, records(&ids, value))
    };
    let odd = ConditionalWrite::Records(WriteKind::Add, NewRecords::new(["c"], [[1.0, 2.0, 3.0]]));
    let commit = |writes: Vec<ConditionalWrite>| {
        tests.commit(ConditionalCommit { writes, ..ConditionalCommit::default() }, None).map(|(outcome, _)| outcome)
    };
    assert!(commit(vec![write(&["a"], 0.0), odd]).unwrap_err().to_string().contains("dimension"));
    let twice = commit(vec![write(&["a"], 0.0), ConditionalWrite::Delete(vec!["a".into()])]).unwrap_err();
    assert!(twice.to_string().contains("operation 1 writes to record 'a'"), "{twice}");
    assert_eq!(tests.count().unwrap(), 0);
    assert_eq!(commit(vec![write(&["a"], 0.0), write(&["b", "c"], 1.0)]).unwrap().position, 1, "one commit");
    assert_eq!(tests.count().unwrap(), 3);
    let unread = ConditionalCommit { read_ids: vec!["a".into()], ..ConditionalCommit::default() };
    assert!(tests.commit(unread, None).unwrap_err().to_string().contains("read_token"));
    let ahead = ConditionalCommit { read_at: Some(2), ..ConditionalCommit::default() };
    assert!(tests.commit(ahead, None).unwrap_err().to_string().contains("has not come so far"));
}

#[test]
fn a_token_that_is_too_old_is_called_stale_where_the_log_is_needed() {
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = database.create_collection("tests").unwrap();
    tests.add(records(&["kept".into()], 0.0)).unwrap();
    for number in 0..1100 {
        tests.upsert(records(&["other".into()], number as f32)).unwrap();
    }
    let commit = |id: &str| {
        let writes = vec![ConditionalWrite::Delete(vec!["nothing".into()])];
        tests.commit(ConditionalCommit { read_ids: vec![id.into()], read_at: Some(1), writes }, None)
    };
    assert!(commit("kept").is_ok(), "the record itself says when it was changed");
    assert!(matches!(commit("other"), Err(Error::Store(StoreError::WriteConflict))));
    assert!(matches!(commit("missing"), Err(Error::Store(StoreError::StaleRead(_)))));
}
