//! Forks: families of collections against models, in memory and on disk, through maintenance, reopening and failures.

use std::collections::BTreeMap;

use ochre_engine::model::Space;
use ochre_engine::{Collection, Database, Error, GetRequest, Include, IndexDefinition, NewRecords, StoreError};
use ochre_testkit::{CrashImage, Generator, Oracle, Recorder};
use serde_json::json;

use crate::support::{apply, collection, open, recorded, same_answers, same_records, small, step};

/// The models of a family, by name.
type Family = BTreeMap<String, Oracle>;

fn named(database: &Database, name: &str) -> Collection {
    database.collection(name).unwrap()
}

fn delete(database: &Database, name: &str) {
    database.delete_collection_in("default_tenant", "default_database", name).unwrap();
}

/// A member of a family by chance.
fn any(family: &Family, generator: &mut Generator) -> String {
    family.keys().nth(generator.rng.usize(0..family.len())).unwrap().clone()
}

/// Runs a workload on a family; `None` for a database in memory.
fn check(space: Space, seed: u64, steps: usize, is_durable: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut database = if is_durable { open(folder.path()) } else { Database::ephemeral_with(small()).unwrap() };
    let mut generator = Generator::new(seed, 24, 1000);
    let mut family = Family::from([("tests".to_owned(), Oracle::default())]);
    collection(&database, space);
    let (mut with_graph, mut reopened) = (0, 0);
    for round in 0..steps {
        let name = any(&family, &mut generator);
        match generator.rng.u8(0..40) {
            0 | 1 if family.len() < 5 => {
                let source = named(&database, &name);
                let fork = source.fork(&format!("fork-{round}")).unwrap();
                assert_eq!(fork.fork_count().unwrap(), family.len() as u64);
                assert_eq!(fork.graph_nodes().unwrap(), source.graph_nodes().unwrap(), "the graph is shared");
                with_graph += usize::from(fork.graph_nodes().unwrap() > 0);
                family.insert(format!("fork-{round}"), family[&name].clone());
            }
            2 if family.len() > 1 => {
                delete(&database, &name);
                family.remove(&name);
            }
            3 | 4 => database.maintain().unwrap(),
            5 if is_durable => {
                database.close();
                database = open(folder.path());
                reopened += 1;
            }
            _ => {
                let operation = generator.operation(50);
                step(&named(&database, &name), family.get_mut(&name).unwrap(), operation);
            }
        }
        for (name, oracle) in &family {
            same_answers(&named(&database, name), oracle, space, &mut generator);
        }
        if round % 20 == 19 {
            family.iter().for_each(|(name, oracle)| same_records(&named(&database, name), oracle));
        }
    }
    database.maintain().unwrap();
    family.iter().for_each(|(name, oracle)| same_records(&named(&database, name), oracle));
    assert!(with_graph > 0, "a workload without graphs proves nothing about them");
    if is_durable {
        assert!(reopened > 0);
        database.close();
        let report = ochre_engine::check(folder.path()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
    }
}

#[test]
fn a_family_answers_as_models_do_in_l2() {
    check(Space::L2, 5, 400, true);
}

#[test]
fn a_family_answers_as_models_do_in_cosine() {
    check(Space::Cosine, 6, 400, true);
}

#[test]
fn a_family_in_memory_answers_as_models_do() {
    check(Space::L2, 7, 400, false);
}

/// What a collection holds, in a form that compares.
fn held(collection: &Collection) -> Vec<(String, Vec<f32>, Option<String>)> {
    let request = GetRequest { include: Include::ALL, ..GetRequest::default() };
    let records = collection.get(&request).unwrap().into_iter();
    records.map(|record| (record.id, record.embedding.unwrap(), record.document)).collect()
}

fn expected(oracle: &Oracle) -> Vec<(String, Vec<f32>, Option<String>)> {
    let records = oracle.records.iter();
    records.map(|record| (record.id.clone(), record.embedding.clone(), record.document.clone())).collect()
}

/// Whether a database holds a family, and nothing else.
fn is_family(database: &Database, family: &Family) -> bool {
    let rows = database.all_collections().unwrap();
    let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    names.iter().eq(family.keys())
        && family.iter().all(|(name, oracle)| held(&named(database, name)) == expected(oracle))
}

/// One random step of a family, and what it is afterwards.
fn family_step(database: &Database, family: &Family, generator: &mut Generator, round: usize) -> Result<Family, Error> {
    let mut after = family.clone();
    let name = any(family, generator);
    match generator.rng.u8(0..8) {
        0 | 1 if family.len() < 4 => {
            let fork = format!("fork-{round}");
            named(database, &name).fork(&fork)?;
            after.insert(fork, family[&name].clone());
        }
        2 if family.len() > 2 => {
            database.delete_collection_in("default_tenant", "default_database", &name)?;
            after.remove(&name);
        }
        _ => {
            let operation = generator.operation(10);
            apply(&named(database, &name), after.get_mut(&name).unwrap(), operation)?;
        }
    }
    Ok(after)
}

#[test]
fn a_crash_at_any_sync_leaves_whole_forks_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let recorder = Recorder::new();
    let database = Database::open_with(&home, recorded(&recorder)).unwrap();
    collection(&database, Space::L2);
    let mut generator = Generator::new(22, 6, 100);
    let mut history = vec![(recorder.len(), Family::from([("tests".to_owned(), Oracle::default())]))];
    for round in 0..60 {
        let family = &history.last().unwrap().1;
        let after = family_step(&database, family, &mut generator, round).unwrap();
        history.push((recorder.len(), after));
        if round % 9 == 8 {
            database.maintain().unwrap();
        }
    }
    let forks = history.iter().map(|(_, family)| family.len()).max().unwrap();
    assert!(forks > 2, "there were forks");
    let (mut images, mut cut_short) = (0, 0);
    for at in recorder.syncs().into_iter().filter(|at| *at > history[0].0) {
        for (point, image) in [(at, CrashImage::OnlySynced), (at, CrashImage::Torn), (at + 1, CrashImage::OnlySynced)] {
            let place = folder.path().join("crashed");
            recorder.lay_out(point, image, &home, &place).unwrap();
            let reopened = Database::open_with(&place, small()).unwrap();
            let acknowledged = history.iter().rposition(|(event, _)| *event <= point).unwrap();
            let next = (acknowledged + 1).min(history.len() - 1);
            let is = |index: usize| is_family(&reopened, &history[index].1);
            assert!(is(acknowledged) || is(next), "event {point} ({image:?}): neither state {acknowledged} nor {next}");
            cut_short += usize::from(!is(next));
            drop(reopened);
            let report = ochre_engine::check(&place).unwrap();
            assert!(report.is_clean(), "event {point} ({image:?}): {:?}", report.findings);
            std::fs::remove_dir_all(&place).unwrap();
            images += 1;
        }
    }
    assert!(images > 200 && cut_short > 20, "{images} crashes, {cut_short} of them before the commit");
}

#[test]
fn on_a_failing_disk_a_fork_is_there_as_a_whole_or_not_at_all() {
    for full in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::new();
        let database = Database::open_with(folder.path(), recorded(&recorder)).unwrap();
        collection(&database, Space::L2);
        let mut generator = Generator::new(33, 6, 100);
        let (mut family, mut failed) = (Family::from([("tests".to_owned(), Oracle::default())]), 0);
        for round in 0..150 {
            recorder.fail_once(round % 19, full);
            let name = any(&family, &mut generator);
            let fork = format!("fork-{round}");
            if round % 4 == 0 && family.len() < 4 {
                match named(&database, &name).fork(&fork) {
                    Ok(_) => drop(family.insert(fork, family[&name].clone())),
                    Err(Error::Store(StoreError::OutcomeUnknown { .. })) => {
                        recorder.stop_failing();
                        if database.collection(&fork).is_ok() {
                            family.insert(fork, family[&name].clone());
                        }
                        failed += 1;
                    }
                    Err(Error::Store(_)) => {
                        recorder.stop_failing();
                        assert!(database.collection(&fork).is_err(), "a fork that was refused is not there");
                        failed += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            } else {
                let mut after = family[&name].clone();
                let operation = generator.operation(8);
                match apply(&named(&database, &name), &mut after, operation) {
                    Ok(()) => drop(family.insert(name, after)),
                    Err(Error::Store(_)) => failed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            recorder.stop_failing();
            assert!(is_family(&database, &family), "round {round}");
            if round % 20 == 19 {
                database.maintain().unwrap();
            }
        }
        assert!(failed > 10, "the faults were met: {failed}");
        drop(database);
        let report = ochre_engine::check(folder.path()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        assert!(is_family(&open(folder.path()), &family));
    }
}

#[test]
fn a_fork_begins_with_what_its_source_declares_and_goes_its_own_way() {
    let database = Database::ephemeral_with(small()).unwrap();
    let films = database.create_collection("films").unwrap();
    let for_all = json!({"index_name": "by_year", "columns": ["year"]});
    database.create_metadata_index(&IndexDefinition::from_json(for_all).unwrap()).unwrap();
    let only_films = json!({"index_name": "by_title", "collection": "films", "columns": ["title"]});
    database.create_metadata_index(&IndexDefinition::from_json(only_films).unwrap()).unwrap();
    films.add(NewRecords::new(["a", "b"], [[0.0, 1.0], [1.0, 1.0]])).unwrap();
    let fork = films.fork("cuts").unwrap();
    assert_eq!(fork.info().unwrap().dimension, Some(2));
    assert_eq!(fork.info().unwrap().family, films.id());
    database.maintain().unwrap();
    assert_eq!(fork.metadata_index_names().unwrap(), ["by_year"], "declared for every collection of the database");
    fork.add(NewRecords::new(["c"], [[2.0, 1.0]])).unwrap();
    films.add(NewRecords::new(["d"], [[3.0, 1.0]])).unwrap();
    let ids = |collection: &Collection| held(collection).into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
    assert_eq!((ids(&films), ids(&fork)), (ids_of(["a", "b", "d"]), ids_of(["a", "b", "c"])));
    for (name, problem) in [("films", "already exists"), ("no good name!", "Expected a name")] {
        let refused = films.fork(name).map(drop).unwrap_err().to_string();
        assert!(refused.contains(problem), "{refused}");
    }
    delete(&database, "films");
    assert!(matches!(films.fork("again"), Err(Error::Store(StoreError::NotFound { .. }))));
    assert_eq!(fork.fork_count().unwrap(), 0);
    assert_eq!(ids(&fork), ids_of(["a", "b", "c"]));
}

fn ids_of<const N: usize>(ids: [&str; N]) -> Vec<String> {
    ids.map(str::to_owned).to_vec()
}
