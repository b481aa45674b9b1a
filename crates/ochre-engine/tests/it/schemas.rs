//! Schemas and introspection: counts that are always right, validation that no write slips past.

use std::sync::atomic::{AtomicBool, Ordering};

use ochre_engine::model::{DeclarationChange, Metadata, Space, ValidationType, Value};
use ochre_engine::schema::SuggestedTypes;
use ochre_engine::{
    Alteration, BackupTargets, Collection, Database, Error, IntrospectMode, IntrospectRequest, Invalid, NewRecords,
    Options, Repository, RestoreAt, RestoreOptions, Validation,
};
use ochre_testkit::{Generator, Operation, Oracle, OracleRecord};
use serde_json::{Value as Json, json};

use crate::support::{apply, collection, open, same_counts, same_records, small, step};

/// Counts, as they are kept and as they are gathered.
fn check_counts(collection: &Collection, oracle: &Oracle) {
    same_counts(collection, oracle, IntrospectMode::Fast);
    same_counts(collection, oracle, IntrospectMode::Full);
}

#[test]
fn counts_are_exact_after_random_operations_restarts_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let (home, target) = (folder.path().join("home"), folder.path().join("backups"));
    let target = target.to_string_lossy().into_owned();
    let options = || Options { backup_target: Some(target.clone()), background: true, ..small() };
    let mut database = Database::open_with(&home, options()).unwrap();
    let (mut generator, mut oracle) = (Generator::new(23, 40, 3000), Oracle::default());
    for round in 0..12 {
        let tests = collection(&database, Space::L2);
        for _ in 0..25 {
            step(&tests, &mut oracle, generator.operation(60));
        }
        check_counts(&tests, &oracle);
        if round % 3 == 2 {
            drop(tests);
            database.close();
            database = Database::open_with(&home, options()).unwrap();
            check_counts(&collection(&database, Space::L2), &oracle);
        }
    }
    database.scheduler().run_now("backup").unwrap();
    while database.scheduler().history("backup", 1).unwrap().iter().all(|run| run.ended.is_none()) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let restored = folder.path().join("restored");
    Repository::new(BackupTargets::default().open(&target).unwrap())
        .restore(&RestoreOptions { at: RestoreAt::Latest, ..RestoreOptions::default() }, &restored)
        .unwrap();
    check_counts(&collection(&open(&restored), Space::L2), &oracle);
}

#[test]
fn fast_introspection_reads_no_values_however_many_records_there_are() {
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = collection(&database, Space::L2);
    let look = |mode| tests.introspect(&IntrospectRequest { mode, ..IntrospectRequest::default() }).unwrap();
    let mut written = 0;
    for records in [1000, 20_000] {
        for from in (written..records).step_by(1000) {
            let numbers = from..from + 1000;
            let metadata = |n: usize| {
                let mixed = if n.is_multiple_of(50) { Value::Str("x".into()) } else { Value::Int(1) };
                Metadata::from_iter([("a", Value::Int(n as i64)), ("b", Value::Int(n as i64 % 7)), ("c", mixed)])
            };
            let ids = numbers.clone().map(|n| format!("r{n}"));
            let vectors = numbers.clone().map(|n| [n as f32, 1.0]);
            tests.add(NewRecords::new(ids, vectors).metadatas(numbers.map(metadata))).unwrap();
        }
        written = records;
        let fast = look(IntrospectMode::Fast);
        assert_eq!((fast.records, fast.keys.len(), fast.values_examined), (records as u64, 3, 0));
        let mixed = fast.keys.iter().find(|key| key.name == "c").unwrap();
        assert_eq!(mixed.offender_count, records as u64 / 50);
        // Every value once, and once more those whose type is not the one meant.
        let full = look(IntrospectMode::Full);
        assert_eq!(full.values_examined, 3 * records as u64 + records as u64 / 50);
    }
}

#[test]
fn a_suggested_schema_accepts_the_records_it_came_from_in_every_mode() {
    for seed in 0..20 {
        let database = Database::ephemeral_with(small()).unwrap();
        let tests = collection(&database, Space::L2);
        let (mut generator, mut oracle) = (Generator::new(seed, 40, 3000), Oracle::default());
        for _ in 0..30 {
            apply(&tests, &mut oracle, generator.operation(60)).unwrap();
        }
        let union = IntrospectRequest { types: SuggestedTypes::Union, ..IntrospectRequest::default() };
        let report = tests.introspect(&union).unwrap();
        for mode in ValidationType::ALL {
            let validation =
                Validation { schema: Some(report.suggested_schema.clone()), mode: Some(mode), batch: None };
            let found = tests.validate(&validation).unwrap();
            assert_eq!((found.validated, found.compliant), (report.records, report.records), "{:?}", found.rules);
        }
        // By the majority's types, the records that are refused are those of another type: the offenders.
        let report =
            tests.introspect(&IntrospectRequest { offenders: 100_000, ..IntrospectRequest::default() }).unwrap();
        let schema = Some(report.suggested_schema.clone());
        let found = tests.validate(&Validation { schema, mode: Some(ValidationType::Strict), batch: None }).unwrap();
        // No type that is declared stands for sparse vectors: where those are meant, none is suggested.
        let is_typed = |key: &str| report.suggested_schema["properties"][key]["type"].is_string();
        let typed = report.keys.iter().filter(|key| is_typed(&key.name));
        let offending: std::collections::BTreeSet<&str> =
            typed.flat_map(|key| &key.offenders).map(|offender| offender.id.as_str()).collect();
        assert_eq!(found.validated - found.compliant, offending.len() as u64, "{:?}", found.rules);
        for key in report.keys.iter().filter(|key| !is_typed(&key.name)) {
            let is_sparse = |record: &OracleRecord| {
                matches!(record.metadata.as_ref().and_then(|metadata| metadata.get(&key.name)), Some(Value::Sparse(_)))
            };
            assert!(oracle.records.iter().any(is_sparse), "one type is meant by {}", key.name);
        }
    }
}

#[test]
fn one_wrong_in_ten_leaves_no_doubt_what_is_meant() {
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = collection(&database, Space::L2);
    for n in 0..100 {
        let value = if n % 10 == 0 { Value::Str("1999".into()) } else { Value::Int(1900 + n) };
        add(&tests, &format!("r{n}"), "year", value).unwrap();
    }
    let report = tests.introspect(&IntrospectRequest::default()).unwrap();
    assert_eq!(report.suggested_schema["properties"]["year"]["type"], "int");
    let warning = report.warnings.iter().find(|warning| warning.code == "mixed-types").unwrap();
    assert!(warning.message.contains("int is meant most likely"), "{}", warning.message);
    assert_eq!(report.suggested_schema["properties"]["year"]["examples"].as_array().unwrap().len(), 5);
    declare(&tests, &report.suggested_schema, ValidationType::Strict).unwrap();
}

fn declare(collection: &Collection, schema: &Json, mode: ValidationType) -> Result<(), Error> {
    let declaration = DeclarationChange {
        schema: Some(Some(schema.clone())),
        validation_type: Some(Some(mode)),
        ..DeclarationChange::default()
    };
    collection.alter(Alteration { declaration, ..Alteration::default() }).map(drop)
}

fn add(collection: &Collection, id: &str, key: &str, value: Value) -> Result<(), Error> {
    let metadata: Metadata = [(key, value)].into_iter().collect();
    collection.add(NewRecords::new([id], [[1.0, 2.0]]).metadatas([metadata])).map(drop)
}

#[test]
fn no_write_slips_past_a_schema_that_is_being_declared() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path());
    let notes = database.create_collection("notes").unwrap();
    let (is_declared, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (notes, is_declared, stop) = (&notes, &is_declared, &stop);
                scope.spawn(move || {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let was_declared = is_declared.load(Ordering::SeqCst);
                        let added = add(notes, &format!("{writer}-{number}"), "n", Value::Str("bad".into()));
                        assert!(!(was_declared && added.is_ok()), "a record got past the schema");
                        number += 1;
                    }
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(100));
        declare(&notes, &json!({"n": "int"}), ValidationType::Strict).unwrap();
        is_declared.store(true, Ordering::SeqCst);
        let count = notes.count().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(notes.count().unwrap(), count);
    });
    drop(notes);
    database.close();
    let database = open(folder.path());
    let notes = database.collection("notes").unwrap();
    assert!(matches!(add(&notes, "x", "n", Value::Bool(true)), Err(Error::Violations(_))));
    add(&notes, "x", "n", Value::Int(1)).unwrap();
}

#[test]
fn an_embedders_function_validates_and_one_that_is_not_registered_is_refused() {
    let mut options = small();
    options.validators.register("even", |_, value| match value {
        Some(Value::Int(n)) if n % 2 == 0 => Ok(()),
        _ => Err("it is odd".into()),
    });
    let database = Database::ephemeral_with(options).unwrap();
    let notes = database.create_collection("notes").unwrap();
    let error = declare(&notes, &json!({"n": {"validators": [{"function": "evn"}]}}), ValidationType::Strict);
    assert!(error.unwrap_err().to_string().contains("there are even"));
    declare(&notes, &json!({"n": {"validators": [{"function": "even"}]}}), ValidationType::Strict).unwrap();
    add(&notes, "a", "n", Value::Int(2)).unwrap();
    assert!(add(&notes, "b", "n", Value::Int(3)).unwrap_err().to_string().contains("it is odd"));
}

#[test]
fn an_identical_upsert_of_a_bad_record_changes_nothing_and_is_accepted() {
    let database = Database::ephemeral_with(small()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    add(&notes, "a", "n", Value::Str("x".into())).unwrap();
    declare(&notes, &json!({"n": "int"}), ValidationType::Strict).unwrap();
    let metadata: Metadata = [("n", Value::Str("x".into()))].into_iter().collect();
    notes.upsert(NewRecords::new(["a"], [[1.0, 2.0]]).metadatas([metadata])).unwrap();
    // In lax mode a whole float is the integer it stands for: nothing changes either.
    declare(&notes, &json!({"n": "int"}), ValidationType::Lax).unwrap();
    let of = |value: Value| NewRecords::new(["a"], [[1.0, 2.0]]).metadatas([[("n", value)].into_iter().collect()]);
    let first = notes.upsert(of(Value::Int(7))).unwrap();
    assert_eq!(notes.upsert(of(Value::Float(7.0))).unwrap().position, first.position);
}

#[test]
fn random_writes_under_a_schema_leave_only_records_that_satisfy_it() {
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = collection(&database, Space::L2);
    let schema = json!({"properties": {"a": {"type": ["int", "float", "string"]}, "a.b": {"validators": [{"cel": "type(value) != bool"}]}}, "additional": "allow"});
    declare(&tests, &schema, ValidationType::Strict).unwrap();
    let (mut generator, mut oracle) = (Generator::new(3, 40, 3000), Oracle::default());
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..600 {
        let operation = generator.operation(60);
        // A refused write leaves nothing, so the oracle does not do it either.
        let is_write = matches!(operation, Operation::Write(..));
        match apply(&tests, &mut oracle, operation) {
            Ok(()) => accepted += usize::from(is_write),
            Err(Error::Violations(_)) => refused += 1,
            // A filter that can match nothing is refused by a strict schema.
            Err(Error::Invalid(Invalid { field: Some("where"), .. })) => {}
            Err(error) => panic!("{error}"),
        }
        let found = tests.validate(&Validation::default()).unwrap();
        assert_eq!(found.validated, found.compliant, "{:?}", found.rules);
    }
    same_records(&tests, &oracle);
    assert!(refused > 20 && accepted > 20, "{refused} refused, {accepted} accepted");
}
