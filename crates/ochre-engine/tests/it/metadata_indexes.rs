//! Declared metadata indexes: built by themselves, found again after a restart, and never changing an answer.

use std::path::Path;
use std::time::{Duration, Instant};

use ochre_engine::model::{Filter, Metadata, Scalar, Space, Test, Value};
use ochre_engine::{
    CollectionOptions, Database, DeleteRequest, Error, GetRequest, GetResults, Hints, IndexChange, IndexDefinition,
    IndexOrigin, IndexSelection, IndexStatus, NewRecords, Options, QueryRequest, SuggestionKind,
};
use ochre_testkit::{Generator, Oracle};
use serde_json::{Value as Json, json};

use crate::support::{PATIENCE, collection, same_answers, same_records, small, step};

fn definition(json: Json) -> IndexDefinition {
    IndexDefinition::from_json(json).unwrap()
}

fn films(database: &Database, count: usize) {
    let films = database.create_collection("films").unwrap();
    for from in (0..count).step_by(5000) {
        let numbers = from..count.min(from + 5000);
        let metadata = |n: usize| {
            let genre = if n.is_multiple_of(500) { "rare" } else { ["drama", "comedy", "crime"][n % 3] };
            Metadata::from_iter([("year", Value::Int(1900 + n as i64 % 120)), ("genre", Value::Str(genre.into()))])
        };
        let ids = numbers.clone().map(|n| format!("f{n}"));
        let embeddings = numbers.clone().map(|n| [n as f32, 1.0]);
        films.add(NewRecords::new(ids, embeddings).metadatas(numbers.map(metadata))).unwrap();
    }
}

fn by_genre() -> Json {
    json!({"index_name": "by_genre", "collection": "films", "columns": ["genre", "year"]})
}

fn rare() -> Filter {
    Filter::Key { key: "genre".into(), test: Test::Eq(Scalar::Str("rare".into())) }
}

fn status(database: &Database, name: &str) -> String {
    let shown = database.metadata_index("default_tenant", "default_database", name).unwrap();
    shown.status.name().to_owned()
}

fn wait_for(database: &Database, name: &str, wanted: &str) {
    let patience = Instant::now() + PATIENCE;
    while status(database, name) != wanted {
        assert!(Instant::now() < patience, "{name} is {}, not {wanted}", status(database, name));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn index_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(index_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "index") {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
fn an_index_is_built_by_the_schedule_used_counted_and_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), Options { background: true, ..Options::default() }).unwrap();
    films(&database, 20_000);
    let (shown, change) = database.create_metadata_index(&definition(by_genre())).unwrap();
    assert_eq!((change, shown.definition.collection.as_deref()), (IndexChange::Building, Some("films")));
    wait_for(&database, "by_genre", "ready");
    let look = |database: &Database| {
        let request = GetRequest { filter: Some(rare()), explain: true, ..GetRequest::default() };
        let GetResults { records, explain, .. } = database.collection("films").unwrap().get_results(&request).unwrap();
        let explain = explain.unwrap();
        assert_eq!(records.len(), 40);
        explain
    };
    let explain = look(&database);
    assert_eq!((explain.index.as_deref(), explain.strategy, explain.coverage), (Some("by_genre"), "index", 1.0));
    assert_eq!((explain.rows_examined, explain.matches_estimated, explain.matches_actual), (40, 40, 40));
    let query = QueryRequest { explain: true, ..QueryRequest::nearest_to([7.0, 1.0]).filter(rare()) };
    let answer = database.collection("films").unwrap().query(&query).unwrap();
    assert_eq!(answer.explain.unwrap().index.as_deref(), Some("by_genre"));
    let shown = database.metadata_index("default_tenant", "default_database", "by_genre").unwrap();
    assert_eq!((shown.usage.uses, shown.usage.rows), (2, 80));
    assert!(shown.statistics.bytes_on_disk > 80_000, "{shown:?}");
    let files = index_files(folder.path());
    let stamp = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = files.iter().map(|path| stamp(path)).collect();
    database.close();
    // Nobody is there to build anything.
    let database = Database::open_with(folder.path(), Options { background: false, ..Options::default() }).unwrap();
    assert_eq!(status(&database, "by_genre"), "ready");
    let explain = look(&database);
    assert_eq!((explain.index.as_deref(), explain.rows_examined, explain.coverage), (Some("by_genre"), 40, 1.0));
    let shown = database.metadata_index("default_tenant", "default_database", "by_genre").unwrap();
    assert_eq!(shown.usage.uses, 3);
    assert_eq!(index_files(folder.path()), files);
    assert_eq!(files.iter().map(|path| stamp(path)).collect::<Vec<_>>(), before);
}

#[test]
fn answers_stay_the_same_whatever_happens_to_indexes() {
    let shapes = [
        ("a_b", json!(["a", "b"])),
        ("strings", json!(["string_value"])),
        ("elements", json!([{"key": "c", "type": "list"}, "a"])),
        ("deep", json!(["deep key"])),
    ];
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: true, ..small() };
    for seed in 0..2 {
        let home = folder.path().join(seed.to_string());
        let mut database = Database::open_with(&home, options()).unwrap();
        let (mut generator, mut oracle) = (Generator::new(seed + 50, 40, 3000), Oracle::default());
        for _ in 0..20 {
            step(&collection(&database, Space::L2), &mut oracle, generator.operation(60));
        }
        for round in 0..150 {
            let tests = collection(&database, Space::L2);
            step(&tests, &mut oracle, generator.operation(60));
            let (name, columns) = &shapes[generator.rng.usize(0..shapes.len())];
            let place = ("default_tenant", "default_database");
            let mut wanted = json!({"index_name": name, "columns": columns});
            // Of the collection, or of all that its database has.
            if generator.rng.bool() {
                wanted["collection"] = json!("tests");
            }
            // What is not there cannot be rebuilt, hidden or deleted: all the same.
            match generator.rng.u8(0..9) {
                0..=2 => drop(database.put_metadata_index(name, &definition(wanted))),
                3 => drop(database.rebuild_metadata_index(place.0, place.1, name)),
                4 => drop(database.cancel_metadata_index(place.0, place.1, name)),
                5 => {
                    let hidden = json!({"index_name": name, "columns": columns, "hidden": generator.rng.bool()});
                    drop(database.put_metadata_index(name, &definition(hidden)));
                }
                6 => drop(database.delete_metadata_index(place.0, place.1, name)),
                _ => {}
            }
            for _ in 0..3 {
                same_answers(&tests, &oracle, Space::L2, &mut generator);
            }
            drop(tests);
            if round % 30 == 29 {
                database.close();
                database = Database::open_with(&home, options()).unwrap();
                same_records(&collection(&database, Space::L2), &oracle);
            }
        }
        database.maintain().unwrap();
        for index in database.metadata_indexes(&IndexSelection::default()).unwrap() {
            let name = &index.definition.index_name;
            if index.status == IndexStatus::Ready {
                let verified = database.verify_metadata_index("default_tenant", "default_database", name).unwrap();
                assert!(verified.is_valid(), "{verified:?}");
            }
        }
    }
}

#[test]
fn changes_during_a_build_do_what_is_asked() {
    let database = Database::ephemeral_with(Options { background: false, ..Options::default() }).unwrap();
    films(&database, 10_000);
    let place = ("default_tenant", "default_database");
    database.create_metadata_index(&definition(by_genre())).unwrap();
    assert_eq!(status(&database, "by_genre"), "pending");
    // The same once more: nothing. Otherwise under the same name: refused. By PUT: it takes the place.
    assert_eq!(database.create_metadata_index(&definition(by_genre())).unwrap().1, IndexChange::Nothing);
    let mut other = by_genre();
    other["columns"] = json!(["year"]);
    assert!(matches!(database.create_metadata_index(&definition(other)), Err(Error::Conflict(_))));
    let put = json!({"index_name": "by_genre", "columns": ["year"]});
    assert_eq!(database.put_metadata_index("by_genre", &definition(put)).unwrap().1, IndexChange::Building);
    database.maintain().unwrap();
    assert_eq!(status(&database, "by_genre"), "ready");
    let explain = |hints: Hints| {
        let filter = Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(1950)) };
        let request = GetRequest { filter: Some(filter), hints, explain: true, ..GetRequest::default() };
        let GetResults { records, explain, .. } = database.collection("films").unwrap().get_results(&request).unwrap();
        let explain = explain.unwrap();
        assert_eq!(records.len(), 83);
        explain
    };
    assert_eq!(explain(Hints::default()).index.as_deref(), Some("by_genre"));
    // Rebuilt beside what serves, which goes on serving; cancelled, it is as before.
    database.rebuild_metadata_index(place.0, place.1, "by_genre").unwrap();
    assert_eq!(status(&database, "by_genre"), "rebuilding");
    assert_eq!(explain(Hints::default()).index.as_deref(), Some("by_genre"));
    assert!(database.cancel_metadata_index(place.0, place.1, "by_genre").unwrap().1);
    assert!(!database.cancel_metadata_index(place.0, place.1, "by_genre").unwrap().1);
    assert_eq!(status(&database, "by_genre"), "ready");
    // Hidden at once, without a build, and still of use to who names it.
    let hidden = json!({"index_name": "by_genre", "columns": ["year"], "hidden": true});
    assert_eq!(database.put_metadata_index("by_genre", &definition(hidden)).unwrap().1, IndexChange::Changed);
    assert_eq!(explain(Hints::default()).index, None);
    let named = Hints { use_index: Some("by_genre".into()), ..Hints::default() };
    assert_eq!(explain(named).index.as_deref(), Some("by_genre"));
    // A build that is cancelled before any serves.
    database
        .create_metadata_index(&definition(json!({"index_name": "x", "collection": "films", "columns": ["genre"]})))
        .unwrap();
    database.cancel_metadata_index(place.0, place.1, "x").unwrap();
    assert_eq!(status(&database, "x"), "cancelled");
    database.maintain().unwrap();
    assert_eq!(status(&database, "x"), "cancelled");
    database.rebuild_metadata_index(place.0, place.1, "x").unwrap();
    database.maintain().unwrap();
    assert_eq!(status(&database, "x"), "ready");
    // Deleted with its build, and with its collection.
    database.rebuild_metadata_index(place.0, place.1, "x").unwrap();
    database.delete_metadata_index(place.0, place.1, "x").unwrap();
    let gone = database.metadata_index(place.0, place.1, "x").unwrap_err().to_string();
    assert!(gone.contains("no metadata index 'x'"), "{gone}");
    database.maintain().unwrap();
    database.delete_collection_in(place.0, place.1, "films").unwrap();
    assert!(database.metadata_indexes(&IndexSelection::default()).unwrap().is_empty());
}

#[test]
fn writes_after_a_build_are_found_at_once_and_covered_in_time() {
    let database = Database::ephemeral_with(Options { background: false, ..Options::default() }).unwrap();
    films(&database, 20_000);
    database.create_metadata_index(&definition(by_genre())).unwrap();
    database.maintain().unwrap();
    let films = database.collection("films").unwrap();
    let hints = Hints { use_index: Some("by_genre".into()), ..Hints::default() };
    let request = GetRequest { filter: Some(rare()), hints, explain: true, ..GetRequest::default() };
    let look = || {
        let GetResults { records, explain, .. } = films.get_results(&request).unwrap();
        let explain = explain.unwrap();
        (records.len(), explain.index.is_some(), explain.coverage)
    };
    assert_eq!(look(), (40, true, 1.0));
    films.delete(DeleteRequest { ids: Some(vec!["f0".into(), "f500".into()]), ..DeleteRequest::default() }).unwrap();
    assert_eq!(look(), (38, true, 1.0));
    let rare = || Metadata::from_iter([("genre", Value::Str("rare".into()))]);
    let ids = |from: usize| (from..from + 100).map(|n| format!("f{n}"));
    films.update(NewRecords::ids(ids(1)).metadatas((0..100).map(|_| rare()))).unwrap();
    let (found, by_index, coverage) = look();
    assert_eq!((found, by_index), (138, true));
    assert!(coverage < 1.0, "{coverage}");
    films
        .add(
            NewRecords::new((0..5000).map(|n| format!("new {n}")), (0..5000).map(|n| [n as f32, 2.0]))
                .metadatas((0..5000).map(|_| rare())),
        )
        .unwrap();
    assert_eq!(look().0, 5138);
    database.maintain().unwrap();
    assert_eq!((look().0, look().2), (5138, 1.0));
}

#[test]
fn bad_definitions_are_refused_with_what_is_wrong_and_nothing_is_made() {
    let database = Database::ephemeral_with(small()).unwrap();
    films(&database, 100);
    database.create_collection_in("default_tenant", "default_database", "empty", CollectionOptions::default()).unwrap();
    let with = |changes: Json| {
        let mut json = by_genre();
        json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json
    };
    for (json, words) in [
        (json!([]), "an index is an object"),
        (json!({"columns": ["year"], "collection": "films"}), "index_name"),
        (with(json!({"colums": []})), "did you mean 'columns'?"),
        (with(json!({"index_name": ""})), "1 to 128"),
        (with(json!({"index_name": "../etc"})), "letters, digits"),
        (with(json!({"index_name": "a/b"})), "letters, digits"),
        (with(json!({"index_name": "x".repeat(129)})), "1 to 128"),
        (with(json!({"columns": []})), "at least one"),
        (with(json!({"columns": "year"})), "invalid type"),
        (with(json!({"columns": [5]})), "found 5"),
        (with(json!({"columns": [{"name": "year"}]})), "names no key"),
        (with(json!({"columns": [{"key": "year", "order": 1}]})), "\"order\""),
        (with(json!({"columns": [{"key": "year", "type": "date"}]})), "there is no type"),
        (with(json!({"columns": ["year", "year"]})), "twice"),
        (with(json!({"columns": ["yaer"]})), "did you mean \"year\"?"),
        (with(json!({"columns": ["nothing like it"]})), "write a record with it first"),
        (with(json!({"columns": ["chroma:document"]})), "reserved"),
        (
            with(json!({"columns": [{"key": "genre", "type": "list"}, {"key": "year", "type": "list[int]"}]})),
            "at most one such column",
        ),
        (with(json!({"columns": ["string_value", "int_value"]})), "at most one such column"),
        (with(json!({"columns": vec!["year"; 9]})), "the limit of 8"),
        (with(json!({"collection": "flims"})), "no collection 'flims'"),
        (with(json!({"collection": ""})), "no collection ''"),
        (with(json!({"collection": null, "database": "other"})), "no database 'other'"),
        (with(json!({"tenant": "other"})), "tenant 'other'"),
        (with(json!({"kind": "hash"})), "auto and ordered"),
        (with(json!({"comment": "x".repeat(2000)})), "1024"),
        (with(json!({"where": {}})), "restricts nothing"),
        (with(json!({"where": {"$or": []}})), "$or cannot be"),
        (with(json!({"where": {"year": {"$ne": 5}}})), "knows no $ne"),
        (with(json!({"where": {"year": {"$gt": "x"}}})), "compares numbers"),
        (with(json!({"where": {"year": []}})), "found []"),
    ] {
        let made = IndexDefinition::from_json(json.clone()).and_then(|new| database.create_metadata_index(&new));
        let Err(error) = made else { panic!("{json} was taken") };
        assert!(error.to_string().contains(words), "{json}: {error}");
    }
    assert!(database.metadata_indexes(&IndexSelection::default()).unwrap().is_empty());
    // In a collection without records nobody knows better.
    let ahead = json!({"index_name": "ahead", "collection": "empty", "columns": ["anything"]});
    database.create_metadata_index(&definition(ahead)).unwrap();
    let planned = database.plan_metadata_index(&definition(by_genre())).unwrap();
    assert_eq!(planned.entries, 100);
    assert_eq!(database.metadata_indexes(&IndexSelection::default()).unwrap().len(), 1);
}

#[test]
fn damaged_files_change_no_answer_and_what_is_wrong_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: false, ..Options::default() };
    let database = Database::open_with(folder.path(), options()).unwrap();
    films(&database, 20_000);
    database.create_metadata_index(&definition(by_genre())).unwrap();
    database.maintain().unwrap();
    database.close();
    let [file] = &index_files(folder.path())[..] else { panic!("one file") };
    let sound = std::fs::read(file).unwrap();
    let request = GetRequest { filter: Some(rare()), explain: true, ..GetRequest::default() };
    let look = |database: &Database| {
        let GetResults { records, explain, .. } = database.collection("films").unwrap().get_results(&request).unwrap();
        let explain = explain.unwrap();
        (records.len(), explain.index.is_some())
    };
    // A damaged file is discarded, and made again.
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 0x10;
    std::fs::write(file, &damaged).unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    assert_eq!(look(&database), (40, false));
    database.maintain().unwrap();
    assert_eq!(look(&database), (40, true));
    database.close();
    // One that was forged, checksum and all, is found by verification, and used no more.
    let [file] = &index_files(folder.path())[..] else { panic!("one file") };
    let mut forged = std::fs::read(file).unwrap();
    let end = forged.len() - 4;
    let place = forged.windows(4).position(|bytes| bytes == b"rare").unwrap();
    forged[place] = b'R';
    let checksum = crc32c::crc32c(&forged[..end]).to_le_bytes();
    forged[end..].copy_from_slice(&checksum);
    std::fs::write(file, &forged).unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let verified = database.verify_metadata_index("default_tenant", "default_database", "by_genre").unwrap();
    assert_eq!((verified.is_valid(), verified.status), (false, IndexStatus::Invalid));
    assert!(verified.records_wrong > 0, "{verified:?}");
    assert_eq!(look(&database), (40, false));
    database.rebuild_metadata_index("default_tenant", "default_database", "by_genre").unwrap();
    database.maintain().unwrap();
    assert_eq!((status(&database, "by_genre").as_str(), look(&database)), ("ready", (40, true)));
}

#[test]
fn filters_that_are_asked_often_suggest_indexes() {
    let database = Database::ephemeral_with(Options { background: false, ..Options::default() }).unwrap();
    films(&database, 20_000);
    let films = database.collection("films").unwrap();
    let from = Filter::Key { key: "year".into(), test: Test::Compare(Test::GREATER, Scalar::Int(2017)) };
    let request = GetRequest { filter: Some(Filter::All(vec![from, rare()])), explain: true, ..GetRequest::default() };
    for _ in 0..20 {
        films.get(&request).unwrap();
    }
    let all = IndexSelection::default();
    let suggestions = database.suggest_metadata_indexes(&all);
    let [suggestion] = &suggestions[..] else { panic!("{suggestions:?}") };
    let SuggestionKind::Missing(missing) = &suggestion.kind else { panic!("{suggestion:?}") };
    assert_eq!((&missing.columns, missing.asked), (&vec!["genre".into(), "year".into()], 20));
    let text = format!("{suggestion:?}");
    assert!(!text.contains("rare") && !text.contains("2017"), "values are nobody's business: {text}");
    // Its definition is ready to be used.
    database.create_metadata_index(&suggestion.definition().unwrap()).unwrap();
    database.maintain().unwrap();
    assert!(films.get_results(&request).unwrap().explain.unwrap().index.is_some());
    assert!(database.suggest_metadata_indexes(&all).is_empty());
    let shorter = json!({"index_name": "shorter", "collection": "films", "columns": ["genre"]});
    database.create_metadata_index(&definition(shorter)).unwrap();
    let suggestions = database.suggest_metadata_indexes(&all);
    assert_eq!((suggestions.len(), &suggestions[0].kind), (1, &SuggestionKind::Redundant));
}

#[test]
fn indexes_are_created_by_themselves_within_a_budget_if_that_is_wanted() {
    let ask = |database: &Database| {
        let by_year = Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(1999)) };
        let misspelt = Filter::Key { key: "yaer".into(), test: Test::Eq(Scalar::Int(1999)) };
        for filter in [rare(), by_year, misspelt] {
            for _ in 0..20 {
                let request = GetRequest { filter: Some(filter.clone()), ..GetRequest::default() };
                database.collection("films").unwrap().get(&request).unwrap();
            }
        }
    };
    let names = |database: &Database| {
        let indexes = database.metadata_indexes(&IndexSelection::default()).unwrap();
        indexes.iter().map(|index| index.definition.index_name.clone()).collect::<Vec<_>>()
    };
    for (create, budget, expected) in [
        (false, 256 << 20, vec![]),
        (true, 1000, vec![]),
        // Room for one: an entry takes 12 bytes.
        (true, 20_000 * 12 + 1000, vec!["films_by_genre"]),
        (true, 256 << 20, vec!["films_by_genre", "films_by_year"]),
    ] {
        let options = Options { background: false, ..Options::default() }
            .setting("metadata-indexes", "create", create)
            .setting("metadata-indexes", "budget_bytes", budget);
        let database = Database::ephemeral_with(options).unwrap();
        films(&database, 20_000);
        ask(&database);
        database.maintain().unwrap();
        database.maintain().unwrap();
        let mut found = names(&database);
        if expected.len() == 1 {
            // Which of them took longer is not for a test to know.
            assert_eq!(found.len(), 1, "{found:?}");
            continue;
        }
        assert_eq!(found, expected, "{create} {budget}");
        // What is there is not created again.
        ask(&database);
        database.maintain().unwrap();
        found = names(&database);
        assert_eq!(found, expected);
        for name in &found {
            assert_eq!(status(&database, name), "ready");
            let shown = database.metadata_index("default_tenant", "default_database", name).unwrap();
            assert!(shown.definition.comment.starts_with("created automatically: 20 filters on"), "{shown:?}");
            assert_eq!(shown.origin, IndexOrigin::Automatic);
            assert!(shown.usage.uses > 0, "{shown:?}");
        }
    }
}

#[test]
fn filters_that_no_index_answers_are_told_or_refused_if_that_is_wanted() {
    use ochre_engine::UnindexedFilters as U;
    let year = |year| Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(year)) };
    let not = Filter::Key { key: "genre".into(), test: Test::Ne(Scalar::Str("rare".into())) };
    for policy in [U::Allow, U::Warn, U::Deny] {
        let options =
            Options { background: false, unindexed_filters: policy, unindexed_records_max: 1000, ..Options::default() };
        let database = Database::ephemeral_with(options).unwrap();
        films(&database, 1001);
        database.create_metadata_index(&definition(by_genre())).unwrap();
        let films = database.collection("films").unwrap();
        let get = |filter: &Filter| {
            let request = GetRequest { filter: Some(filter.clone()), ..GetRequest::default() };
            let told = films.get_results(&request).map(|results| results.warnings.unindexed);
            let (got, queried) =
                (films.get(&request), films.query(&QueryRequest::nearest_to([1.0, 1.0]).filter(filter.clone())));
            assert_eq!((got.is_err(), queried.is_err()), (told.is_err(), told.is_err()));
            assert_eq!(got.is_err(), policy == U::Deny && told.is_err());
            told.map(|found| found.map(|found| found.to_string())).map_err(|error| error.to_string())
        };
        let unindexed = |told: Result<Option<String>, String>, words: &str| match (policy, told) {
            (U::Allow, Ok(None)) => {}
            (U::Warn, Ok(Some(text))) | (U::Deny, Err(text)) => {
                assert!(text.contains("1001 records") && text.contains(words), "{text}");
            }
            (_, other) => panic!("{policy:?}: {other:?}"),
        };
        // Not before it is built.
        unindexed(get(&rare()), "index 'by_genre' (pending)");
        database.maintain().unwrap();
        assert_eq!(get(&rare()).unwrap(), None);
        assert_eq!(get(&Filter::All(vec![year(1950), rare()])).unwrap(), None);
        unindexed(get(&year(1950)), "declare one of year");
        unindexed(get(&Filter::Any(vec![rare(), year(1950)])), "declare one of year");
        let (documents, nothing) = (ochre_engine::model::DocumentTest::Contains("x".into()), Filter::All(vec![]));
        unindexed(get(&Filter::All(vec![year(1950), Filter::Document(documents.clone())])), "declare one of year");
        for answered in [
            Filter::All(vec![Filter::All(vec![year(1950), rare()]), Filter::Document(documents.clone())]),
            Filter::Document(documents),
            nothing,
        ] {
            assert_eq!(get(&answered).unwrap(), None, "{answered:?}");
        }
        unindexed(get(&not), "no index answers such tests");
        // Ids narrow it down, and small collections are scanned in no time.
        let some = GetRequest { filter: Some(year(1901)), ..GetRequest::of(["f1"]) };
        assert_eq!(films.get(&some).unwrap().len(), 1);
        films.delete(DeleteRequest { ids: Some(vec!["f0".into()]), ..DeleteRequest::default() }).unwrap();
        assert_eq!(get(&year(1950)).unwrap(), None);
    }
}

#[test]
fn filters_that_are_refused_suggest_indexes_all_the_same() {
    let options = Options {
        background: false,
        unindexed_filters: ochre_engine::UnindexedFilters::Deny,
        unindexed_records_max: 1000,
        ..Options::default()
    };
    let database = Database::ephemeral_with(options).unwrap();
    films(&database, 10_001);
    let films = database.collection("films").unwrap();
    for year in 1900..1920 {
        let filter = Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(year)) };
        films.get(&GetRequest { filter: Some(filter.clone()), ..GetRequest::default() }).unwrap_err();
        // To leave some records out leaves most of them to be looked at.
        let others = Filter::All(vec![Filter::NotIds(["nobody".to_owned()].into()), filter]);
        films.get(&GetRequest { filter: Some(others), ..GetRequest::default() }).unwrap_err();
    }
    let suggestions = database.suggest_metadata_indexes(&IndexSelection::default());
    assert_eq!(suggestions.len(), 1, "{suggestions:?}");
    assert_eq!(suggestions[0].definition().unwrap().columns, ["year".into()]);
}

/// Two collections with years, and none yet that is named `third`.
fn years(database: &Database, name: &str, count: usize) {
    let made = database.create_collection(name).unwrap();
    let metadata = |n: usize| Metadata::from_iter([("year", Value::Int(1900 + n as i64))]);
    let ids = (0..count).map(|n| format!("y{n}"));
    made.add(NewRecords::new(ids, (0..count).map(|n| [n as f32])).metadatas((0..count).map(metadata))).unwrap();
}

/// The index that a filter on a year was answered by, if any, in a collection.
fn answered_by(database: &Database, collection: &str) -> Option<String> {
    let filter = Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(1950)) };
    let request = GetRequest { filter: Some(filter), explain: true, ..GetRequest::default() };
    let GetResults { records, explain, .. } = database.collection(collection).unwrap().get_results(&request).unwrap();
    let explain = explain.unwrap();
    assert_eq!(records.len(), 1);
    explain.index
}

const HOME: (&str, &str) = ("default_tenant", "default_database");

#[test]
fn an_index_of_a_database_is_one_for_all_its_collections_present_and_future() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: false, ..Options::default() };
    let database = Database::open_with(folder.path(), options()).unwrap();
    years(&database, "first", 3000);
    let everywhere = || definition(json!({"index_name": "by_year", "columns": ["year"]}));
    let planned = database.plan_metadata_index(&everywhere()).unwrap();
    assert_eq!((planned.collections, planned.entries), (Some(1), 3000));
    let (shown, change) = database.create_metadata_index(&everywhere()).unwrap();
    assert_eq!((change, &shown.definition.collection), (IndexChange::Building, &None));
    assert_eq!(database.create_metadata_index(&everywhere()).unwrap().1, IndexChange::Nothing);
    years(&database, "second", 3000);
    database.create_collection("empty").unwrap();
    let states = |database: &Database| -> Vec<(String, String)> {
        let shown = database.metadata_index(HOME.0, HOME.1, "by_year").unwrap();
        let collections = shown.collections.as_ref().unwrap();
        let mut states: Vec<_> =
            collections.iter().map(|one| (one.collection.clone(), one.status.name().to_owned())).collect();
        states.sort();
        states
    };
    let all = |status: &str| ["empty", "first", "second"].map(|name| (name.to_owned(), status.to_owned())).to_vec();
    assert_eq!(states(&database), all("pending"));
    database.maintain().unwrap();
    assert_eq!(states(&database), all("ready"));
    let by_year = Some("by_year".to_owned());
    assert_eq!((answered_by(&database, "first"), answered_by(&database, "second")), (by_year.clone(), by_year.clone()));
    // Listed once, also where one collection is asked for; what it comes to is the sum.
    let listed = |collection: Option<&str>| {
        let selection = IndexSelection { collection: collection.map(str::to_owned), ..IndexSelection::default() };
        database.metadata_indexes(&selection).unwrap()
    };
    assert_eq!((listed(None).len(), listed(Some("second")).len()), (1, 1));
    assert_eq!(listed(None)[0].statistics.records_indexed, Some(6000));
    assert_eq!(listed(None)[0].usage.uses, 2);
    let verified = database.verify_metadata_index(HOME.0, HOME.1, "by_year").unwrap();
    assert_eq!((verified.is_valid(), verified.records_compared), (true, 6000));
    // Its name is nobody else's, and it counts among the indexes of a collection.
    let bound = json!({"index_name": "by_year", "collection": "first", "columns": ["year"]});
    assert!(matches!(database.create_metadata_index(&definition(bound)), Err(Error::Conflict(_))));
    // Renamed and hidden as one, without a build, and found again.
    let renamed = json!({"index_name": "years", "columns": ["year"]});
    assert_eq!(database.put_metadata_index("by_year", &definition(renamed)).unwrap().1, IndexChange::Changed);
    assert!(database.metadata_index(HOME.0, HOME.1, "by_year").is_err());
    assert_eq!(answered_by(&database, "second").as_deref(), Some("years"));
    database.close();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let shown = database.metadata_index(HOME.0, HOME.1, "years").unwrap();
    assert_eq!(shown.statistics.records_indexed, Some(6000), "known before anything is loaded: {shown:?}");
    assert_eq!(
        (status(&database, "years").as_str(), answered_by(&database, "first").as_deref()),
        ("ready", Some("years"))
    );
    let hidden = json!({"index_name": "years", "columns": ["year"], "hidden": true});
    database.put_metadata_index("years", &definition(hidden)).unwrap();
    assert_eq!((answered_by(&database, "first"), answered_by(&database, "second")), (None, None));
    // A collection that was deleted is gone from it; a database that was deleted has none.
    database.delete_collection_in(HOME.0, HOME.1, "second").unwrap();
    assert_eq!(database.metadata_index(HOME.0, HOME.1, "years").unwrap().collections.unwrap().len(), 2);
    database.delete_metadata_index(HOME.0, HOME.1, "years").unwrap();
    assert_eq!(index_files(folder.path()), Vec::<std::path::PathBuf>::new());
    database.create_database("default_tenant", "other").unwrap();
    let other = json!({"index_name": "by_year", "database": "other", "columns": ["year"]});
    database.create_metadata_index(&definition(other)).unwrap();
    database.delete_database("default_tenant", "other").unwrap();
    database.create_database("default_tenant", "other").unwrap();
    assert_eq!(database.metadata_indexes(&IndexSelection::default()).unwrap(), []);
}

#[test]
fn an_index_that_gets_another_collection_is_never_lost_on_the_way() {
    let database = Database::ephemeral_with(small()).unwrap();
    years(&database, "first", 3000);
    years(&database, "second", 3000);
    let with = |collection: Json, name: &str| {
        definition(json!({"index_name": name, "columns": ["year"], "collection": collection}))
    };
    database.create_metadata_index(&with(json!("first"), "by_year")).unwrap();
    database.create_metadata_index(&with(json!("second"), "taken")).unwrap();
    database.maintain().unwrap();
    let used = || [answered_by(&database, "first"), answered_by(&database, "second")].map(Option::unwrap_or_default);
    assert_eq!(used(), ["by_year", "taken"]);
    // What is refused leaves everything as it is.
    for (refused, words) in [
        (with(json!("third"), "by_year"), "no collection 'third'"),
        (with(json!("second"), "taken"), "index 'taken' already"),
        (definition(json!({"index_name": "by_year", "collection": "second", "columns": ["yaer"]})), "year"),
    ] {
        let error = database.put_metadata_index("by_year", &refused).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(used(), ["by_year", "taken"]);
    }
    // To another collection, and with another name at once.
    database.put_metadata_index("by_year", &with(json!("second"), "moved")).unwrap();
    assert_eq!(
        database.metadata_index(HOME.0, HOME.1, "moved").unwrap().definition.collection.as_deref(),
        Some("second")
    );
    assert!(database.metadata_index(HOME.0, HOME.1, "by_year").is_err());
    database.maintain().unwrap();
    assert_eq!(answered_by(&database, "first"), None);
    // Renamed in the middle of a build, it is ready by its new name.
    database.rebuild_metadata_index(HOME.0, HOME.1, "moved").unwrap();
    database.put_metadata_index("moved", &with(Json::Null, "renamed")).unwrap();
    database.delete_metadata_index(HOME.0, HOME.1, "taken").unwrap();
    database.maintain().unwrap();
    assert_eq!((status(&database, "renamed").as_str(), &used()[1][..]), ("ready", "renamed"));
}

#[test]
fn an_index_whose_files_are_gone_is_not_said_to_be_valid() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: false, ..Options::default() };
    let database = Database::open_with(folder.path(), options()).unwrap();
    films(&database, 1000);
    database.create_metadata_index(&definition(by_genre())).unwrap();
    database.maintain().unwrap();
    database.close();
    index_files(folder.path()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let database = Database::open_with(folder.path(), options()).unwrap();
    let verified = database.verify_metadata_index(HOME.0, HOME.1, "by_genre").unwrap();
    assert_eq!((verified.is_valid(), verified.records_compared), (false, 0));
    assert_eq!(verified.discarded.len(), 1, "{verified:?}");
    database.rebuild_metadata_index(HOME.0, HOME.1, "by_genre").unwrap();
    database.maintain().unwrap();
    let verified = database.verify_metadata_index(HOME.0, HOME.1, "by_genre").unwrap();
    assert_eq!((verified.is_valid(), verified.records_compared), (true, 1000));
}

#[test]
fn a_cancelled_change_keeps_the_new_name_and_what_served() {
    let database = Database::ephemeral_with(small()).unwrap();
    years(&database, "first", 3000);
    let by_year = json!({"index_name": "by_year", "columns": ["year"], "collection": "first"});
    database.create_metadata_index(&definition(by_year)).unwrap();
    database.maintain().unwrap();
    let changed = json!({"index_name": "renamed", "columns": [{"key": "year", "type": "int"}]});
    assert_eq!(database.put_metadata_index("by_year", &definition(changed)).unwrap().1, IndexChange::Building);
    let (shown, was_building) = database.cancel_metadata_index(HOME.0, HOME.1, "renamed").unwrap();
    assert!(was_building);
    assert_eq!((shown.definition.index_name.as_str(), &shown.definition.columns), ("renamed", &vec!["year".into()]));
    assert_eq!(answered_by(&database, "first").as_deref(), Some("renamed"));
    assert!(database.metadata_index(HOME.0, HOME.1, "by_year").is_err());
    database.delete_metadata_index(HOME.0, HOME.1, "renamed").unwrap();
    assert_eq!(database.metadata_indexes(&IndexSelection::default()).unwrap(), []);
}

#[test]
fn an_index_whose_records_all_changed_was_not_discarded() {
    let database = Database::ephemeral_with(small()).unwrap();
    years(&database, "first", 500);
    let by_year = json!({"index_name": "by_year", "columns": ["year"], "collection": "first"});
    database.create_metadata_index(&definition(by_year)).unwrap();
    database.maintain().unwrap();
    let first = database.collection("first").unwrap();
    let metadata = |n: usize| Metadata::from_iter([("year", Value::Int(n as i64))]);
    let ids = (0..500).map(|n| format!("y{n}"));
    first.upsert(NewRecords::new(ids, (0..500).map(|n| [n as f32])).metadatas((0..500).map(metadata))).unwrap();
    let verified = database.verify_metadata_index(HOME.0, HOME.1, "by_year").unwrap();
    assert_eq!((verified.is_valid(), verified.records_outside), (true, 500), "{verified:?}");
}

#[test]
fn a_database_has_no_more_indexes_for_all_collections_than_one_may_have() {
    let database = Database::ephemeral_with(small()).unwrap();
    let numbered = |n: usize, collection: Option<&str>| {
        definition(json!({"index_name": format!("i{n}"), "columns": [format!("k{n}")], "collection": collection}))
    };
    // As long as there is no collection, too.
    for n in 0..64 {
        database.create_metadata_index(&numbered(n, None)).unwrap();
    }
    let error = database.create_metadata_index(&numbered(64, None)).unwrap_err().to_string();
    assert!(error.contains("64"), "{error}");
    database.create_collection("notes").unwrap();
    let error = database.create_metadata_index(&numbered(64, Some("notes"))).unwrap_err().to_string();
    assert!(error.contains("64"), "{error}");
    // One takes the place of another.
    database.put_metadata_index("i0", &numbered(0, Some("notes"))).unwrap();
    let others: Vec<IndexDefinition> = (100..103).map(|n| numbered(n, Some("notes"))).collect();
    let gone = |count: usize| -> Vec<[String; 3]> {
        (1..=count).map(|n| [HOME.0.to_owned(), HOME.1.to_owned(), format!("i{n}")]).collect()
    };
    assert!(database.check_metadata_index_room(&others, &gone(2)).is_err());
    assert!(database.check_metadata_index_room(&others, &gone(3)).is_ok());
}
