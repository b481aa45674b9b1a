//! Searches by rank expressions against the naive evaluator, with writes, maintenance and reopening in between; and
//! what of a search is refused.

use ochre_engine::model::{
    Embeddings, GroupBy, GroupOrder, IndexSchema, Knn, KnnQuery, MetadataPatch, Rank, RecordBatch, Space, SparseVector,
    Value, WriteKind,
};
use ochre_engine::{Collection, CollectionOptions, Database, Error, Include, Search, SearchRequest, Select, Strategy};
use ochre_testkit::{Generator, NaiveSearch, Operation, Oracle, random_rank};

use serde_json::json;

use crate::support::{open, step};

const DIMENSION: usize = 6;
const KEYS: [&str; 3] = ["group", "order", "other"];
/// The second is weighted as BM25 has it.
const SPARSE_KEYS: [&str; 2] = ["sparse", "words"];

/// Embeddings of small integers: distances are exact, and many are equal.
fn embedding(generator: &mut Generator) -> Vec<f32> {
    (0..DIMENSION).map(|_| f32::from(generator.rng.i8(-2..3))).collect()
}

fn metadata(generator: &mut Generator) -> MetadataPatch {
    let mut pairs = Vec::new();
    for key in KEYS {
        let value = match generator.rng.u8(0..8) {
            0 => continue,
            1 => Value::Bool(generator.rng.bool()),
            2 | 3 => Value::Int(generator.rng.i64(-1..2)),
            4 => Value::Float(f64::from(generator.rng.i8(-2..3)) / 2.0),
            _ => Value::Str((*generator.rng.choice(&["a", "b", "ä"]).unwrap()).into()),
        };
        pairs.push((key.to_owned(), Some(value)));
    }
    for key in SPARSE_KEYS {
        if generator.rng.u8(0..4) > 0 {
            pairs.push((key.to_owned(), Some(Value::Sparse(Box::new(sparse(generator))))));
        } else if generator.rng.bool() {
            pairs.push((key.to_owned(), Some(Value::Int(1))));
        }
    }
    MetadataPatch::parse(pairs).unwrap()
}

/// A sparse vector of few indices out of few, some of them large, with values of both signs.
fn sparse(generator: &mut Generator) -> SparseVector {
    let mut indices: Vec<u32> = (0..generator.rng.usize(0..6)).map(|_| generator.rng.u32(0..12)).collect();
    indices.extend(generator.rng.bool().then_some(u32::MAX));
    indices.sort_unstable();
    indices.dedup();
    let value = |_: &u32| *generator.rng.choice(&[0.5, 1.0, 2.0, 0.1, -1.0, 3.7]).unwrap();
    let values = indices.iter().map(value).collect();
    SparseVector::new(indices, values, None).unwrap()
}

/// A text of words that are rare and frequent, with some that no document has.
fn text(generator: &mut Generator, words_max: usize) -> String {
    const WORDS: [&str; 12] =
        ["apple", "Apple", "a", "a", "a", "pear", "Bear", "bear", "zebra", "rare", "apples", "quince"];
    let count = generator.rng.usize(0..words_max);
    (0..count).map(|_| *generator.rng.choice(&WORDS).unwrap()).collect::<Vec<_>>().join(" ")
}

fn query(generator: &mut Generator) -> KnnQuery {
    match generator.rng.u8(0..7) {
        0 | 1 => KnnQuery::Embedding(embedding(generator)),
        2..=4 => KnnQuery::Text(text(generator, 6)),
        _ => KnnQuery::Sparse { key: (*generator.rng.choice(&SPARSE_KEYS).unwrap()).into(), vector: sparse(generator) },
    }
}

fn operation(generator: &mut Generator) -> Operation {
    let ids: Vec<String> = (0..generator.rng.usize(1..30)).map(|_| generator.id()).collect();
    if generator.rng.u8(0..5) == 0 {
        return Operation::DeleteIds(ids);
    }
    let values = ids.iter().flat_map(|_| embedding(generator)).collect();
    let metadatas = Some(ids.iter().map(|_| generator.rng.u8(0..9).gt(&0).then(|| metadata(generator))).collect());
    let documents = Some(ids.iter().map(|_| (generator.rng.u8(0..4) > 0).then(|| text(generator, 30))).collect());
    let embeddings = Some(Embeddings::from_rows(DIMENSION, values));
    Operation::Write(WriteKind::Upsert, RecordBatch { ids, embeddings, metadatas, documents, uris: None })
}

fn search(generator: &mut Generator) -> NaiveSearch {
    let rank = (generator.rng.u8(0..8) > 0).then(|| random_rank(generator, 3, &query));
    let key = |generator: &mut Generator| (*generator.rng.choice(&KEYS).unwrap()).to_owned();
    let group_by = (rank.is_some() && generator.rng.bool()).then(|| GroupBy {
        keys: (0..generator.rng.usize(1..3)).map(|_| key(generator)).collect(),
        order_by: (0..generator.rng.usize(1..3))
            .map(|_| if generator.rng.bool() { GroupOrder::Score } else { GroupOrder::Key(key(generator)) })
            .collect(),
        keeps_largest: generator.rng.bool(),
        k: generator.rng.u32(1..4),
    });
    NaiveSearch {
        filter: generator.rng.bool().then(|| generator.filter(2)),
        rank,
        group_by,
        limit: generator.rng.bool().then(|| generator.rng.u32(0..20)),
        offset: generator.rng.u32(0..4),
        bm25_keys: vec!["words".into()],
    }
}

fn same(tests: &Collection, oracle: &Oracle, generator: &mut Generator) -> usize {
    let searches: Vec<NaiveSearch> = (0..generator.rng.usize(1..4)).map(|_| search(generator)).collect();
    let request = SearchRequest {
        searches: searches
            .iter()
            .cloned()
            .map(|NaiveSearch { filter, rank, group_by, limit, offset, .. }| Search {
                filter,
                rank,
                group_by,
                limit,
                offset,
                select: Select::default(),
            })
            .collect(),
        // The graph may miss some.
        hint: Some(*generator.rng.choice(&[Strategy::Exact, Strategy::Scan]).unwrap()),
        explain: generator.rng.bool(),
        ..SearchRequest::default()
    };
    let answer = tests.search(&request).unwrap();
    for (search, hits) in searches.iter().zip(&answer.results) {
        let found: Vec<_> = hits.iter().map(|hit| (hit.record.id.clone(), hit.score.map(f32::to_bits))).collect();
        let expected = search.run(oracle, Space::L2);
        // What is not a number may be so with any bits.
        let is_same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|((id, bits), (expected, score))| {
                let score_found = bits.map(f32::from_bits);
                id == expected
                    && (score_found == *score || score_found.is_some_and(f32::is_nan) && score.is_some_and(f32::is_nan))
            });
        assert!(is_same, "{search:?}\nfound {found:?}\nexpected {expected:?}");
    }
    assert_eq!(answer.explain.map(|all| all.len()), request.explain.then_some(searches.len()));
    answer.results.iter().map(Vec::len).sum()
}

fn searched(database: &Database) -> Collection {
    let index =
        |bm25: bool| json!({"sparse_vector": {"sparse_vector_index": {"enabled": true, "config": {"bm25": bm25}}}});
    let hnsw = json!({"ef_search": 10, "sync_threshold": 20, "batch_size": 7});
    let embedding = json!({"float_list": {"vector_index": {"enabled": true, "config": {"hnsw": hnsw}}}});
    let keys = json!({"sparse": index(false), "words": index(true), "#embedding": embedding});
    let schema = IndexSchema::complete(&json!({"defaults": {}, "keys": keys})).unwrap();
    let options = CollectionOptions { schema: Some(schema), get_or_create: true, ..CollectionOptions::default() };
    database.create_collection_in("default_tenant", "default_database", "searched", options).unwrap()
}

#[test]
fn searches_find_what_the_naive_evaluator_finds() {
    let folder = tempfile::tempdir().unwrap();
    let mut generator = Generator::new(21, DIMENSION, 300);
    let mut oracle = Oracle::default();
    let mut database = open(folder.path());
    let mut found = 0;
    for _ in 0..150 {
        let tests = searched(&database);
        let operation = operation(&mut generator);
        step(&tests, &mut oracle, operation);
        for _ in 0..6 {
            found += same(&tests, &oracle, &mut generator);
        }
        match generator.rng.u8(0..12) {
            0 => database.maintain().unwrap(),
            1 => {
                drop(tests);
                database.close();
                database = open(folder.path());
            }
            _ => {}
        }
    }
    assert!(found > 1000, "searches that find nothing prove nothing: {found}");
}

/// Three records at distances 0, 1 and 4 from the origin.
fn three(database: &Database) -> Collection {
    let tests = database.create_collection("tests").unwrap();
    let metadata =
        |pairs: &[(&str, Value)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let records = ochre_engine::NewRecords::new(["a", "b", "c"], [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        .documents(["first", "second", "third"])
        .metadatas([
            metadata(&[("n", Value::Int(1)), ("tags", Value::Strs(vec!["x".into()]))]),
            metadata(&[("n", Value::Int(2))]),
            metadata(&[("m", Value::Int(3))]),
        ]);
    tests.add(records).unwrap();
    tests
}

#[test]
fn only_what_is_selected_comes_back() {
    let database = Database::ephemeral().unwrap();
    let tests = three(&database);
    let mut by_n = Search::by(Knn::new([0.0, 0.0]));
    by_n.select = Select { include: Include::NONE, keys: vec!["n".into(), "absent".into()] };
    let hits = tests.search(&by_n.into()).unwrap().results.remove(0);
    let shown: Vec<_> = hits.iter().map(|hit| hit.record.metadata.as_ref().map(|m| m.as_json().to_owned())).collect();
    assert_eq!(shown, [Some(r#"{"n":1}"#.to_owned()), Some(r#"{"n":2}"#.to_owned()), None]);
    assert!(hits.iter().all(|hit| hit.record.document.is_none() && hit.record.embedding.is_none()));
    let fused = Rank::reciprocal_rank_fusion([(Knn::new([0.0, 0.0]).return_rank().into(), 1.0)], 60.0);
    let hits = tests.search(&Search::by(fused).limit(2).into()).unwrap().results.remove(0);
    let scores: Vec<_> = hits.iter().map(|hit| (hit.record.id.as_str(), hit.score)).collect();
    assert_eq!(scores, [("a", Some(-1.0 / 60.0)), ("b", Some(-1.0 / 61.0))]);
}

#[test]
fn what_cannot_be_searched_is_refused_with_its_place() {
    let database = Database::ephemeral().unwrap();
    let tests = three(&database);
    let refused = |search: Search, text: &str| {
        let error =
            tests.search(&SearchRequest { searches: vec![Search::default(), search], ..SearchRequest::default() });
        let shown = error.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert!(
            matches!(error, Err(Error::Invalid(_) | Error::Store(_))) && shown.contains(text),
            "{shown} for {text}"
        );
    };
    let near = || Knn::new([0.0, 0.0]);
    let words = SparseVector::new(vec![1], vec![1.0], None).unwrap();
    refused(Search::by(Knn::sparse("words", words)), "no enabled index of sparse vectors (no key has one)");
    refused(Search::by(Knn::new([0.0])), "dimension of 2, got 1");
    refused(Search::by(Knn::new([f32::NAN, 0.0])), "searches[1].rank: the query of $knn number 1");
    refused(Search::by(Knn::new(Vec::new())), "searches[1].rank");
    refused(Search::by(Rank::Sum(vec![near().into(), near().limit(0).into()])), "searches[1].rank: the limit");
    let group_by = |keys: &[&str], order_by: Vec<GroupOrder>, k| GroupBy {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        order_by,
        keeps_largest: false,
        k,
    };
    let grouped = |group_by| Search { group_by: Some(group_by), ..Search::by(near()) };
    refused(grouped(group_by(&["tags"], vec![GroupOrder::Score], 1)), "searches[1].group_by.keys: records have lists");
    refused(grouped(group_by(&["n"], vec![GroupOrder::Key("tags".into())], 1)), "searches[1].group_by.aggregate");
    refused(grouped(group_by(&[], vec![GroupOrder::Score], 1)), "searches[1].group_by.keys");
    refused(grouped(group_by(&["n"], Vec::new(), 1)), "searches[1].group_by.aggregate");
    refused(grouped(group_by(&["n"], vec![GroupOrder::Score], 0)), "searches[1].group_by.aggregate");
    let unranked = Search { rank: None, ..grouped(group_by(&["n"], vec![GroupOrder::Score], 1)) };
    refused(unranked, "searches[1].group_by");
    assert_eq!(tests.count().unwrap(), 3);
}
