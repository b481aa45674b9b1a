//! Databases written by released versions: each opens, is clean, and holds what was written.
//!
//! `tests/fixtures/v1` was written by version 0.1.0: three records in `notes`, of which one was changed and
//! one deleted, and 80 points in `points`, 70 of them in the graph of its snapshot. `tests/fixtures/v2` has the same
//! `notes`, with metadata of its own, and jobs: `check` ran by hand, and `vacuum` was given another interval.

use std::path::PathBuf;

use ochre_engine::model::Metadata;
use ochre_engine::{Alteration, Database, GetRequest, Include, NewRecords, Options, QueryRequest, Strategy};

use crate::support::{copy, small};

/// A copy of a fixture, opened, with what is in `notes` checked.
fn open(version: &str, options: Options) -> (tempfile::TempDir, Database) {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version);
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(version);
    copy(&fixture, &home);
    assert!(ochre_engine::check(&home).unwrap().is_clean());
    let database = Database::open_with(&home, options).unwrap();
    let notes = database.collection("notes").unwrap();
    let records = notes.get(&GetRequest { include: Include::ALL, ..GetRequest::default() }).unwrap();
    let shown: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.id.as_str(),
                record.document.as_deref(),
                record.metadata.as_ref().map(ochre_engine::StoredMetadata::as_json),
            )
        })
        .collect();
    assert_eq!(shown, [("a", Some("first"), Some(r#"{"n":1}"#)), ("b", Some("changed"), Some(r#"{"n":2.5,"s":"x"}"#))]);
    (folder, database)
}

#[test]
fn a_database_of_version_2_opens_and_its_jobs_go_on() {
    let (_folder, database) = open("v2", Options { background: true, ..small() });
    let notes = database.collection("notes").unwrap();
    assert_eq!(notes.info().unwrap().metadata.as_ref().map(Metadata::to_text).unwrap(), r#"{"owner":"me"}"#);
    let runs = database.scheduler().history("check", 9).unwrap();
    assert!(runs.iter().any(|run| run.message.contains("are sound")), "{runs:?}");
    let trigger = database.scheduler().job("vacuum").unwrap().trigger;
    assert_eq!(trigger, "every 7m");
    let declaration = ochre_engine::model::DeclarationChange {
        schema: Some(Some(serde_json::json!({"n": "float", "s": "string"}))),
        ..Default::default()
    };
    notes.alter(Alteration { declaration, ..Alteration::default() }).unwrap();
    assert!(
        notes
            .add(NewRecords::new(["z"], [[0.0, 1.0]]).metadatas([Metadata::from_text(r#"{"n":"x"}"#).unwrap()]))
            .is_err()
    );
}

#[test]
fn a_database_of_version_1_opens_and_holds_what_was_written() {
    let (_folder, database) = open("v1", small());
    let points = database.collection("points").unwrap();
    // Snapshots are derived: one of an older version is rebuilt, and answers are right meanwhile.
    for strategy in [Strategy::Exact, Strategy::Graph] {
        let mut request = QueryRequest::nearest_to([7.0, 0.0]).k(3);
        request.hint = Some(Strategy::Graph);
        let answer = points.query(&request).unwrap();
        assert_eq!(answer.plans[0].strategy, strategy);
        let ids: Vec<&str> = answer.results[0].iter().map(|hit| hit.record.id.as_str()).collect();
        assert_eq!(ids, ["7", "6", "8"]);
        database.maintain().unwrap();
    }
}
