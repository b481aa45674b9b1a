//! Bodies to the model and back, and what is refused of them, in Chroma's words.
#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use ochre_model::{Filter, Scalar, Test, Value};
use ochre_wire::admin::explain::Explain;
use ochre_wire::admin::indexes::{IndexEstimate, IndexList, IndexVerification, SuggestionList};
use ochre_wire::{
    AddCollectionRecordsPayload, IncludeList, Row, UpdateCollectionRecordsPayload, create_options, document_filter,
    get_response, metadata_filter, query_response,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

fn parsed<T: DeserializeOwned>(body: &Json) -> T {
    serde_json::from_value(body.clone()).unwrap()
}

fn refused(body: &Json) -> String {
    match serde_json::from_value::<AddCollectionRecordsPayload>(body.clone()) {
        Ok(payload) => payload.into_batch().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn records_come_through_as_they_were_sent() {
    let body = json!({
        "ids": ["a", "b"], "embeddings": [[0.25, -1.5], [3.0, 4.0]], "documents": ["one", null],
        "uris": [null, "file:b"], "metadatas": [{"year": 1999, "rate": 0.5, "new": true, "tags": ["x", "y"]}, null],
    });
    let batch = parsed::<AddCollectionRecordsPayload>(&body).into_batch().unwrap();
    assert_eq!(batch.ids, ["a", "b"]);
    let embeddings = batch.embeddings.unwrap();
    assert_eq!((embeddings.row(0), embeddings.row(1)), (Some(&[0.25, -1.5][..]), Some(&[3.0, 4.0][..])));
    let metadata = batch.metadatas.unwrap();
    let first: Vec<(&str, Value)> =
        metadata[0].as_ref().unwrap().iter().map(|(key, value)| (key, value.unwrap().clone())).collect();
    let expected = [
        ("new", Value::Bool(true)),
        ("rate", Value::Float(0.5)),
        ("tags", Value::Strs(vec!["x".into(), "y".into()])),
        ("year", Value::Int(1999)),
    ];
    for (key, value) in expected {
        assert!(first.contains(&(key, value.clone())), "{key}: {first:?}");
    }
}

#[test]
fn base64_is_the_same_as_numbers() {
    // Two little-endian floats: 1.0 and -2.0.
    let sent = json!({"ids": ["a"], "embeddings": ["AACAPwAAAMA="]});
    let numbers = json!({"ids": ["a"], "embeddings": [[1.0, -2.0]]});
    let of = |body: &Json| parsed::<AddCollectionRecordsPayload>(body).into_batch().unwrap().embeddings.unwrap();
    assert_eq!(of(&sent).row(0), of(&numbers).row(0));
    for (embedding, words) in
        [("AACAPwAAAA==", "divisible by 4"), ("not base64!", "base64"), ("AADAfw==", "Non-finite")]
    {
        let text = refused(&json!({"ids": ["a"], "embeddings": [embedding]}));
        assert!(text.contains(words), "{embedding}: {text}");
    }
}

#[test]
fn bad_records_are_refused_in_chromas_words() {
    for (body, words) in [
        (json!({"ids": ["a"], "embeddings": [[]]}), "Each embedding must have at least 1 dimension"),
        (json!({"ids": ["a"], "embeddings": [[1e39]]}), "Embeddings must not contain NaN or Infinity values"),
        (json!({"embeddings": [[1.0]]}), "missing field `ids`"),
        (json!({"ids": [7], "embeddings": [[1.0]]}), "invalid type: integer `7`, expected a string"),
        (json!({"ids": ["a"], "embeddings": [[1.0]], "metadatas": [{"k": {"nested": 1}}]}), "metadata"),
    ] {
        let text = refused(&body);
        assert!(text.to_lowercase().contains(&words.to_lowercase()), "{body}: {text}");
    }
    // An update may leave embeddings out.
    let update = parsed::<UpdateCollectionRecordsPayload>(&json!({"ids": ["a"], "metadatas": [{"gone": null}]}));
    assert!(update.into_batch().unwrap().embeddings.is_none());
}

#[test]
fn filters_mean_what_they_say_or_are_refused() {
    let year = |test| Filter::Key { key: "year".into(), test };
    for (json, filter) in [
        (json!({"year": 1999}), year(Test::Eq(Scalar::Int(1999)))),
        (json!({"year": {"$eq": 1.5}}), year(Test::Eq(Scalar::Float(1.5)))),
        (json!({"year": {"$in": [1, 2]}}), year(Test::In(vec![Scalar::Int(1), Scalar::Int(2)]))),
        (json!({"year": {"$gte": 3}}), year(Test::Compare(Test::GREATER_OR_EQUAL, Scalar::Int(3)))),
        (
            json!({"$and": [{"year": 1}, {"year": 2}]}),
            Filter::All(vec![year(Test::Eq(Scalar::Int(1))), year(Test::Eq(Scalar::Int(2)))]),
        ),
    ] {
        assert_eq!(format!("{:?}", metadata_filter(&json).unwrap()), format!("{filter:?}"), "{json}");
    }
    for json in [json!({"year": {"$about": 3}}), json!({"$and": {}}), json!({"year": {"$in": []}}), json!([])] {
        assert!(metadata_filter(&json).is_err(), "{json}");
    }
    for json in [json!({"$contains": 7}), json!({"$matches": "x"}), json!({"$regex": "("})] {
        assert!(document_filter(&json).is_err(), "{json}");
    }
}

struct Found(&'static str);

impl Row for Found {
    fn id(&self) -> &str {
        self.0
    }

    fn embedding(&self) -> Option<&[f32]> {
        Some(&[0.1, 2.0])
    }

    fn document(&self) -> Option<&str> {
        Some("a \"quoted\" line\n")
    }

    fn uri(&self) -> Option<&str> {
        None
    }

    fn metadata(&self) -> Option<&str> {
        Some(r#"{"year":1999}"#)
    }

    fn distance(&self) -> Option<f32> {
        Some(0.5)
    }
}

#[test]
fn answers_have_what_was_asked_for_and_null_for_the_rest() {
    let include: IncludeList = parsed(&json!(["documents", "metadatas", "embeddings", "distances"]));
    let body: Json = serde_json::from_slice(&get_response(&[Found("a")], &include, None)).unwrap();
    assert_eq!(body["ids"], json!(["a"]));
    assert_eq!(body["documents"], json!(["a \"quoted\" line\n"]));
    assert_eq!(body["metadatas"], json!([{"year": 1999}]));
    assert_eq!(body["uris"], Json::Null);
    let body: Json = serde_json::from_slice(&query_response(&[vec![Found("a")], vec![]], &include)).unwrap();
    assert_eq!((&body["ids"], &body["distances"]), (&json!([["a"], []]), &json!([[0.5], []])));
}

/// What the server writes, its clients read, and write again alike.
fn round_trip<T: Serialize + DeserializeOwned>(json: &Json) {
    assert_eq!(serde_json::to_value(parsed::<T>(json)).unwrap(), *json);
}

#[test]
fn answers_of_administration_are_read_as_they_were_written() {
    round_trip::<IndexList>(&json!({"indexes": [{
        "id": "0", "index_name": "by_year", "tenant": "t", "database": "d", "collection": "films",
        "collection_id": "1", "columns": ["year", {"key": "tags", "type": "list"}, {"key": "int_value"}],
        "where": {"status": "open"}, "hidden": false, "comment": "", "kind": "auto", "status": "building",
        "origin": "declared",
        "progress": {"phase": "collecting", "done": 1, "total": 2, "started": "2026-01-01T00:00:00Z",
            "elapsed_seconds": 1, "eta_seconds": 1},
        "error": null, "created_at": "2026-01-01T00:00:00Z", "built_at": null, "verified_at": null,
        "serving_columns": ["year"],
        "statistics": {"loaded": true, "bytes_on_disk": 1, "bytes_in_memory": 2, "entries": 3, "distinct_keys": 4,
            "largest_key": 5, "segments": 6, "records_indexed": 7, "records": null},
        "usage": {"uses": 1, "rows": 2, "last_used": null, "since": "2026-01-01T00:00:00Z"},
    }]}));
    round_trip::<IndexEstimate>(&json!({
        "dry_run": true, "index_name": "by_year", "collection": null, "collections": 2, "records": 1,
        "estimated_entries": 1, "estimated_bytes": 2, "estimated_seconds": 0.5, "overlaps": [], "exists": false,
    }));
    round_trip::<IndexVerification>(&json!({
        "index_name": "by_year", "valid": false, "records_compared": 1, "records_wrong": 1, "records_outside": 0,
        "status": "invalid",
    }));
    round_trip::<SuggestionList>(&json!({"suggestions": [
        {"kind": "missing", "tenant": "t", "database": "d", "collection": "films", "reason": "r",
            "columns": ["year"], "asked": 1, "average_micros": 2, "expected_gain": "about 3x", "estimated_bytes": 4,
            "request": {"method": "POST", "path": "/_admin/metadata_indexes", "body": {}}},
        {"kind": "unused", "tenant": "t", "database": "d", "collection": null, "index_name": "by_year", "reason": "r",
            "request": {"method": "DELETE", "path": "/_admin/metadata_index/by_year"}},
    ]}));
    round_trip::<Explain>(&json!({
        "index": null, "strategy": "graph", "matches_estimated": 1, "matches_actual": 1, "rows_examined": 1,
        "coverage": 0.5,
        "indexes": [{"index": "by_year", "columns_used": ["year"], "estimated": 1, "used": true, "reason": "used"}],
        "filter_micros": 1, "search_micros": 2,
        "plans": [{"strategy": "graph", "visited": 1, "scanned": 2, "reranked": 3, "unindexed": 4, "unreachable": 5,
            "fell_back": false, "measured": 3, "tail": 4}],
        "text": "t",
    }));
}

#[test]
fn a_schema_and_another_configuration_are_refused_together() {
    let cosine = json!({"vector_index": {"enabled": true, "config": {"space": "cosine"}}});
    let own = json!({"defaults": {}, "keys": {"#embedding": {"float_list": cosine}}});
    let function =
        |name: &str| json!({"configuration": {"embedding_function": {"type": "known", "name": name, "config": {}}}});
    let cases = [
        (json!({}), true),
        (function("default"), true),
        (json!({"configuration": {"embedding_function": {"type": "unknown"}}}), true),
        (json!({"configuration": {"hnsw": {"space": "l2"}}, "metadata": {"hnsw:space": "l2"}}), true),
        (json!({"configuration": {"spann": {"search_nprobe": 3}}}), true),
        (function("openai"), false),
        (json!({"configuration": {"embedding_function": {"type": "legacy"}}}), false),
        (json!({"configuration": {"hnsw": {"space": "cosine"}}}), false),
        (json!({"configuration": {"spann": {"space": "ip"}}}), false),
        (json!({"metadata": {"hnsw:space": "cosine"}}), false),
        (json!({"metadata": {"hnsw:M": 40}}), false),
    ];
    for (more, is_accepted) in cases {
        let mut body = json!({"name": "notes", "schema": own, "metadata": null});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = create_options(parsed(&body));
        match made {
            Ok(options) => {
                assert!(is_accepted, "{body}");
                assert_eq!((options.schema.hnsw().space.name(), options.schema.embedding_function()), ("cosine", None));
            }
            Err(refused) => {
                assert!(!is_accepted && refused.to_string().contains("Cannot set both"), "{refused}: {body}")
            }
        }
        // With a schema that says nothing the configuration counts.
        body["schema"] = json!({"defaults": {}, "keys": {}});
        assert!(create_options(parsed(&body)).is_ok(), "{body}");
    }
}
