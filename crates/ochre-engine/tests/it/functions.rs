//! Attached functions: their outputs against a recount, through writes, reopening and deletion.

use std::collections::BTreeMap;

use ochre_engine::model::{Metadata, Space, SparseVector, Value};
use ochre_engine::{Collection, Database, Error, Function, GetRequest, Include, NewRecords};
use ochre_testkit::{Generator, Oracle};

use crate::support::{collection, open, small, step};

/// The metadata of each record of an output, by id.
fn output(database: &Database, name: &str) -> BTreeMap<String, Metadata> {
    let request = GetRequest { include: Include::ALL, ..GetRequest::default() };
    let records = database.collection(name).unwrap().get(&request).unwrap();
    records.into_iter().map(|record| (record.id, record.metadata.unwrap().parse().unwrap())).collect()
}

/// The tag, type and text of a value, as ids and metadata of statistics have them.
fn tagged(value: &Value) -> Vec<(String, &'static str, String)> {
    let one = |tag: &str, name, text: String| (format!("{tag}:{text}"), name, text);
    let float = |value: &f64| one("f", "float", format!("{value:.16e}"));
    match value {
        Value::Bool(value) => vec![one("b", "bool", value.to_string())],
        Value::Int(value) => vec![one("i", "int", value.to_string())],
        Value::Float(value) => vec![float(value)],
        Value::Str(value) => vec![one("s", "str", value.clone())],
        Value::Bools(list) => list.iter().map(|value| one("b", "bool", value.to_string())).collect(),
        Value::Ints(list) => list.iter().map(|value| one("i", "int", value.to_string())).collect(),
        Value::Floats(list) => list.iter().map(float).collect(),
        Value::Strs(list) => list.iter().map(|value| one("s", "str", value.clone())).collect(),
        Value::Sparse(vector) => vector.indices().iter().map(|index| one("sv", "sparse", index.to_string())).collect(),
    }
}

/// The same, recounted from the records of a model.
fn recounted(oracle: &Oracle) -> BTreeMap<String, Metadata> {
    let mut counts: BTreeMap<(String, String), (&'static str, String, i64)> = BTreeMap::new();
    for (key, value) in oracle.records.iter().flat_map(|record| record.metadata.iter().flat_map(Metadata::iter)) {
        for (tag, name, text) in tagged(value) {
            counts.entry((key.to_owned(), tag)).or_insert((name, text, 0)).2 += 1;
        }
    }
    let total = oracle.records.len() as i64;
    counts.insert(("summary".into(), "s:total_count".into()), ("str", "total_count".into(), total));
    let record = |((key, tag), (name, text, count)): ((String, String), (&str, String, i64))| {
        let metadata = Metadata::from_iter([
            ("count", Value::Int(count)),
            ("key", Value::Str(key.clone())),
            ("type", Value::Str(name.into())),
            ("value", Value::Str(text)),
        ]);
        (format!("{key}::{tag}"), metadata)
    };
    counts.into_iter().map(record).collect()
}

#[test]
fn statistics_are_what_a_recount_gives_after_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open(folder.path());
    let mut generator = Generator::new(41, 4, 200);
    let mut oracle = Oracle::default();
    let (attached, is_new) =
        collection(&database, Space::L2).attach_function("stats", Function::Statistics, "output").unwrap();
    assert!(is_new && attached.output_collection == "output");
    for round in 0..80 {
        let operation = generator.operation(30);
        step(&collection(&database, Space::L2), &mut oracle, operation);
        if round % 8 == 0 {
            database.maintain().unwrap();
            let mut counted = output(&database, "output");
            counted.values_mut().for_each(|metadata| metadata.set("value_label".into(), None));
            assert_eq!(counted, recounted(&oracle), "round {round}");
            let found = collection(&database, Space::L2).attached_function("stats").unwrap();
            assert!(round == 0 || found.position > 0);
        }
        if round % 20 == 19 {
            database.close();
            database = open(folder.path());
        }
    }
    assert!(oracle.records.len() > 20, "there was something to count");
}

#[test]
fn records_are_counted_and_sparse_vectors_by_their_tokens() {
    let database = Database::ephemeral_with(small()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    let vector = SparseVector::new(vec![3, 9], vec![0.5, 0.25], Some(vec!["tea".into(), "cup".into()])).unwrap();
    let metadata = Metadata::from_iter([("words", Value::Sparse(Box::new(vector)))]);
    notes.add(NewRecords::new(["a", "b"], [[0.0], [1.0]]).metadatas([metadata, Metadata::default()])).unwrap();
    notes.attach_function("stats", Function::Statistics, "counted").unwrap();
    database.maintain().unwrap();
    let counted = output(&database, "counted");
    let label = |id: &str| counted[id].get("value_label").cloned();
    assert_eq!(label("words::sv:3"), Some(Value::Str("tea".into())));
    assert_eq!(label("words::sv:9"), Some(Value::Str("cup".into())));
    notes.detach_function("stats").unwrap();
    notes.attach_function("count", Function::RecordCounter, "count").unwrap();
    database.maintain().unwrap();
    assert_eq!(output(&database, "count")["function_output"].get("total_count"), Some(&Value::Int(2)));
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_collection_has_one_function_which_goes_with_either_collection() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(folder.path());
    let attach = |collection: &Collection, name: &str, output: &str| {
        collection
            .attach_function(name, Function::RecordCounter, output)
            .map(|(attached, is_new)| (attached.id, is_new))
    };
    let notes = database.create_collection("notes").unwrap();
    let (id, is_new) = attach(&notes, "count", "counted").unwrap();
    assert!(is_new);
    assert_eq!(attach(&notes, "count", "counted").unwrap(), (id, false));
    let text = refused(attach(&notes, "another", "other"));
    assert!(text.contains("already has an attached function: name=count, function=record_counter"), "{text}");
    let counted = database.collection("counted").unwrap();
    assert_eq!(refused(attach(&counted, "x", "y")), "cannot attach function to an output collection");
    let films = database.create_collection("films").unwrap();
    assert_eq!(refused(attach(&films, "count", "counted")), "Output collection [counted] already exists");
    assert_eq!(refused(attach(&films, "count", "notes")), "Output collection [notes] already exists");
    let delete = |name: &str| database.delete_collection_in("default_tenant", "default_database", name).unwrap();
    delete("counted");
    assert!(matches!(notes.attached_function("count"), Err(Error::NotFound(_))));
    attach(&notes, "count", "counted").unwrap();
    delete("notes");
    assert!(database.collection("counted").is_ok(), "the output stays");
    attach(&films, "count", "of films").unwrap_err();
    attach(&films, "count", "of-films").unwrap();
    // A fork has the records and not the function.
    let fork = films.fork("cuts").unwrap();
    assert!(matches!(fork.attached_function("count"), Err(Error::NotFound(_))));
    drop((notes, counted, films, fork));
    database.close();
    let database = open(folder.path());
    let films = database.collection("films").unwrap();
    assert_eq!(films.attached_function("count").unwrap().output_collection, "of-films");
    films.detach_function("count").unwrap();
    assert!(matches!(films.detach_function("count"), Err(Error::NotFound(_))));
}
