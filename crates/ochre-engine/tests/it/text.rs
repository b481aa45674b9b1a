//! Text segments: found again after a restart, right after changes, rebuilt after damage.

use ochre_engine::model::{Declaration, DeclarationChange, DocumentTest, Filter, Language, TextAnalyzer};
use ochre_engine::{
    Alteration, Collection, CollectionOptions, Database, DeleteRequest, GetRequest, Include, NewRecords, Options,
};

fn options() -> Options {
    Options { background: false, text_unindexed_max: 100, ..Options::default() }
}

/// The ids of the records whose document contains a text.
fn containing(collection: &Collection, text: &str) -> Vec<String> {
    let filter = Filter::Document(DocumentTest::Contains(text.into()));
    let request = GetRequest { filter: Some(filter), ..GetRequest::default() };
    collection.get(&request).unwrap().into_iter().map(|record| record.id).collect()
}

fn files(folder: &std::path::Path, collection: &Collection) -> Vec<std::path::PathBuf> {
    let cache = folder.join("cache").join(collection.id().to_string());
    let entries = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "text")).collect()
}

#[test]
fn text_segments_survive_restarts_changes_and_damage() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    let ids = |range: std::ops::Range<usize>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    let documents =
        |range: std::ops::Range<usize>| range.map(|number| format!("note {number} about größe")).collect::<Vec<_>>();
    let add = |range: std::ops::Range<usize>| {
        let records = NewRecords::new(ids(range.clone()), range.clone().map(|number| [number as f32]));
        notes.add(records.documents(documents(range))).unwrap();
    };
    add(0..1000);
    assert_eq!(containing(&notes, "note 77 "), ["77"]);
    assert_eq!(notes.memory().unwrap().text, 0);
    database.maintain().unwrap();
    assert!(notes.memory().unwrap().text > 0);
    assert_eq!(files(folder.path(), &notes).len(), 1);
    assert_eq!(containing(&notes, "note 77 "), ["77"]);

    // Changed, deleted and new documents are found as they are now, indexed or not.
    notes.update(NewRecords::ids(["77"]).documents(["another thing"])).unwrap();
    notes.delete(DeleteRequest { ids: Some(vec!["78".into()]), ..DeleteRequest::default() }).unwrap();
    add(1000..1050);
    let is_right = |notes: &Collection| {
        assert_eq!(containing(notes, "note 77 "), Vec::<String>::new());
        assert_eq!(containing(notes, "another"), ["77"]);
        assert_eq!(
            containing(notes, "note 78"),
            ids(780..790).iter().filter(|id| *id != "78").cloned().collect::<Vec<_>>()
        );
        assert_eq!(containing(notes, "note 1049"), ["1049"]);
        assert_eq!(containing(notes, "ö").len(), 1048);
    };
    is_right(&notes);
    database.maintain().unwrap();
    is_right(&notes);
    add(1050..3000);
    database.maintain().unwrap();
    is_right_with_more(&notes);
    let (sound, id) = (files(folder.path(), &notes), notes.id());
    database.close();
    drop(notes);

    // A restart finds the segments, before any maintenance.
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.collection("notes").unwrap();
    is_right_with_more(&notes);
    assert!(notes.memory().unwrap().text > 0);
    assert_eq!((files(folder.path(), &notes), notes.id()), (sound.clone(), id));
    database.close();
    drop(notes);

    // A damaged one is noticed, done without, and rebuilt.
    let mut bytes = std::fs::read(&sound[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&sound[0], bytes).unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.collection("notes").unwrap();
    is_right_with_more(&notes);
    assert!(!sound[0].exists());
    database.maintain().unwrap();
    assert!(!files(folder.path(), &notes).is_empty());
    is_right_with_more(&notes);
}

fn is_right_with_more(notes: &Collection) {
    assert_eq!(containing(notes, "note 77 "), Vec::<String>::new());
    assert_eq!(containing(notes, "another"), ["77"]);
    assert_eq!(containing(notes, "note 2999"), ["2999"]);
    assert_eq!(containing(notes, "ö").len(), 2998);
}

#[test]
fn text_is_found_whatever_the_case_of_its_letters_indexed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.create_collection("notes").unwrap();
    let texts = ["Quarterly Report", "ÉTÉ À LA MER", "ΟΔΟΣ ΑΘΗΝΩΝ", "Привет МИР", "300 \u{212A}elvin"];
    let filler = (texts.len()..500).map(|number| format!("filler {number}"));
    let documents: Vec<String> = texts.iter().map(|text| (*text).to_owned()).chain(filler).collect();
    let ids = (0..documents.len()).map(|number| number.to_string());
    let records = NewRecords::new(ids, (0..documents.len()).map(|number| [number as f32]));
    notes.add(records.documents(documents)).unwrap();
    let queries = ["report", "REPORT", "ete", "été", "Mer", "οδος", "ΑΘΗΝΩΝ", "привет", "мир", "kelvin", "KELVIN"];
    let found = || -> Vec<Vec<String>> {
        let ids = |query: &&str| {
            let hits = notes.search_text(query, None, 10, Include::default()).unwrap();
            hits.into_iter().map(|hit| hit.record.id).collect()
        };
        queries.iter().map(ids).collect()
    };
    let expected: Vec<[&str; 1]> =
        ["0", "0", "1", "1", "1", "2", "2", "3", "3", "4", "4"].into_iter().map(|id| [id]).collect();
    assert_eq!(found(), expected, "before there is an index");
    database.maintain().unwrap();
    assert!(notes.memory().unwrap().text > 0);
    assert_eq!(found(), expected, "by the index");
}

/// The ids that a text finds, best first.
fn ranked(notes: &Collection, text: &str) -> Vec<String> {
    let hits = notes.search_text(text, None, 3, Include::default()).unwrap();
    hits.into_iter().map(|hit| hit.record.id).collect()
}

#[test]
fn the_analyzer_is_declared_and_may_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let text_analyzer = Some(TextAnalyzer::of(Language::English));
    let declaration = Declaration { text_analyzer, ..Declaration::default() };
    let created = CollectionOptions { declaration, ..CollectionOptions::default() };
    let notes = database.create_collection_in("default_tenant", "default_database", "notes", created).unwrap();
    let filler = (1..500).map(|number| format!("filler {number}"));
    let documents: Vec<String> = std::iter::once("The runner was running".to_owned()).chain(filler).collect();
    let ids = (0..documents.len()).map(|number| number.to_string());
    let records = NewRecords::new(ids, (0..documents.len()).map(|number| [number as f32]));
    notes.add(records.documents(documents)).unwrap();
    let is_english = |notes: &Collection| {
        assert_eq!(ranked(notes, "runs the"), ["0"]);
        assert_eq!(ranked(notes, "the"), Vec::<String>::new());
    };
    is_english(&notes);
    database.maintain().unwrap();
    is_english(&notes);
    database.close();
    drop(notes);
    let database = Database::open_with(folder.path(), options()).unwrap();
    let notes = database.collection("notes").unwrap();
    is_english(&notes);

    // Searches follow at once, segments when maintenance comes to it.
    let segments =
        || -> Vec<Vec<u8>> { files(folder.path(), &notes).iter().map(|path| std::fs::read(path).unwrap()).collect() };
    let before = segments();
    let change = DeclarationChange { text_analyzer: Some(None), ..DeclarationChange::default() };
    notes.alter(Alteration { declaration: change, ..Alteration::default() }).unwrap();
    let is_plain = || {
        assert_eq!(ranked(&notes, "the"), ["0"]);
        assert_eq!(ranked(&notes, "runs"), Vec::<String>::new());
        assert_eq!(containing(&notes, "runner"), ["0"]);
    };
    is_plain();
    database.maintain().unwrap();
    is_plain();
    assert_ne!(segments(), before);
}
