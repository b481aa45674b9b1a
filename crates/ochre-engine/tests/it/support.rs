//! What several tests need: opening with small thresholds, running a workload, comparing with the oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ochre_engine::model::{HnswConfiguration, IndexSchema, Metadata, Space};
use ochre_engine::schema::type_name;
use ochre_engine::{
    Collection, CollectionOptions, Database, DeleteRequest, Error, GetRequest, Hints, Include, IntrospectMode,
    IntrospectRequest, NewRecords, Options, Plan, QueryHit, QueryRequest, Strategy,
};
use ochre_testkit::{Generator, Operation, Oracle, Recorder};

/// A test waits at most so long for what happens by itself: maintenance gives way on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Thresholds so low that small workloads reach the graph, several segments and their compaction.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        graph_records_min: 60,
        exact_records_max: 20,
        text_unindexed_max: 20,
        background: false,
        ..Options::default()
    }
    .setting("memory", "idle_unload", "0s")
}

/// The same, on a recording disk.
pub(crate) fn recorded(recorder: &Arc<Recorder>) -> Options {
    Options { disk: Arc::<Recorder>::clone(recorder), vfs: Some(recorder.vfs()), ..small() }
}

pub(crate) fn open(directory: &Path) -> Database {
    Database::open_with(directory, small()).unwrap()
}

/// The collection of the tests, made if it is not there.
pub(crate) fn collection(database: &Database, space: Space) -> Collection {
    let hnsw =
        HnswConfiguration { space, sync_threshold: 20, batch_size: 7, ef_search: 10, ..HnswConfiguration::default() };
    let options = CollectionOptions {
        schema: Some(IndexSchema::new(&hnsw, None)),
        get_or_create: true,
        ..CollectionOptions::default()
    };
    database.create_collection_in("default_tenant", "default_database", "tests", options).unwrap()
}

/// Does a step on both, and compares what they say of it.
pub(crate) fn step(collection: &Collection, oracle: &mut Oracle, operation: Operation) {
    apply(collection, oracle, operation).unwrap();
}

/// Does a step on the database and, if it worked, on the oracle.
pub(crate) fn apply(collection: &Collection, oracle: &mut Oracle, operation: Operation) -> Result<(), Error> {
    match operation {
        Operation::Write(kind, batch) => {
            collection.write(kind, NewRecords::from(batch.clone()), None)?;
            oracle.write(kind, &batch);
        }
        Operation::DeleteIds(ids) => {
            let outcome = collection.delete(DeleteRequest { ids: Some(ids.clone()), ..DeleteRequest::default() })?;
            assert_eq!(outcome.deleted, oracle.delete(Some(&ids), None, None));
        }
        Operation::DeleteMatching(ids, filter, limit) => {
            let request = DeleteRequest { ids: ids.clone(), filter: Some(filter.clone()), limit };
            let outcome = collection.delete(request)?;
            assert_eq!(outcome.deleted, oracle.delete(ids.as_deref(), Some(&filter), limit), "{filter:?}");
        }
    }
    Ok(())
}

/// What introspection counts is what a recount of every record gives: for each key, how many records have which type.
pub(crate) fn same_counts(collection: &Collection, oracle: &Oracle, mode: IntrospectMode) {
    let mut expected: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for (key, value) in oracle.records.iter().flat_map(|record| record.metadata.iter().flat_map(Metadata::iter)) {
        if !key.starts_with("chroma:") {
            *expected.entry(key.to_owned()).or_default().entry(type_name(value.value_type())).or_default() += 1;
        }
    }
    let report = collection.introspect(&IntrospectRequest { mode, ..IntrospectRequest::default() }).unwrap();
    let found: BTreeMap<_, _> = report.keys.into_iter().map(|key| (key.name, key.types)).collect();
    assert_eq!(report.records, oracle.records.len() as u64);
    assert_eq!(found, expected);
}

/// Everything a collection holds is what the oracle holds, in its order.
pub(crate) fn same_records(collection: &Collection, oracle: &Oracle) {
    same_counts(collection, oracle, IntrospectMode::Fast);
    assert_eq!(collection.count().unwrap(), oracle.records.len() as u64);
    let records = collection.get(&GetRequest { include: Include::ALL, ..GetRequest::default() }).unwrap();
    assert_eq!(records.len(), oracle.records.len());
    for (record, expected) in records.iter().zip(&oracle.records) {
        assert_eq!(record.id, expected.id);
        assert_eq!(record.embedding.as_deref(), Some(expected.embedding.as_slice()), "{}", record.id);
        assert_eq!(record.document, expected.document, "{}", record.id);
        assert_eq!(record.uri, expected.uri, "{}", record.id);
        let metadata = record.metadata.as_ref().map(|metadata| metadata.parse().unwrap()).filter(|m| !m.is_empty());
        assert_eq!(metadata, expected.metadata, "{}", record.id);
    }
}

/// A random get and a random query give the oracle's answers; how the query was found.
pub(crate) fn same_answers(collection: &Collection, oracle: &Oracle, space: Space, generator: &mut Generator) -> Plan {
    let filter = (generator.rng.u8(0..3) > 0).then(|| generator.filter(2));
    let ids: Option<Vec<String>> =
        (generator.rng.u8(0..5) == 0).then(|| (0..generator.rng.usize(0..50)).map(|_| generator.id()).collect());
    let matches = oracle.matching(ids.as_deref(), filter.as_ref());
    let expected: Vec<&str> = matches.iter().map(|index| oracle.records[*index].id.as_str()).collect();

    let (limit, offset) = (generator.rng.bool().then(|| generator.rng.u32(0..20)), generator.rng.u32(0..5));
    // Tests that declare indexes use these names; one that is not there is no help.
    let use_index =
        *generator.rng.choice(&[None, Some("a_b"), Some("strings"), Some("elements"), Some("deep")]).unwrap();
    let hints = Hints { use_index: use_index.map(str::to_owned), ..Hints::default() };
    let (filter_, hints_) = (filter.clone(), hints.clone());
    let request = GetRequest {
        ids: ids.clone(),
        filter: filter_,
        limit,
        offset,
        include: Include::NONE,
        hints: hints_,
        ..GetRequest::default()
    };
    let got: Vec<String> = collection.get(&request).unwrap().into_iter().map(|record| record.id).collect();
    let page: Vec<&str> =
        expected.iter().skip(offset as usize).take(limit.map_or(usize::MAX, |l| l as usize)).copied().collect();
    assert_eq!(got, page, "{filter:?}");

    let (query, k) = (generator.embedding(), generator.rng.usize(0..15));
    let mut request = QueryRequest::nearest_to(query.clone()).k(k);
    (request.ids, request.filter, request.hints) = (ids, filter, hints);
    request.hint = *generator.rng.choice(&[None, Some(Strategy::Scan), Some(Strategy::Graph)]).unwrap();
    let answer = collection.query(&request).unwrap();
    let nearest = oracle.nearest(space, &query, &matches);
    let hits = &answer.results[0];
    assert_eq!(hits.len(), if collection.info().unwrap().dimension.is_some() { k.min(matches.len()) } else { 0 });
    let plan = answer.plans.first().copied();
    let is_exact = plan.is_none_or(|plan| matches!(plan.strategy, Strategy::Exact | Strategy::Empty));
    if plan.is_some_and(|plan| matches!(plan.strategy, Strategy::Scan | Strategy::GraphThenScan)) {
        // A scan misses a neighbour only if its code errs far more than those of a sample did.
        let near = |hit: &QueryHit, expected: &(usize, f64)| f64::from(hit.distance) <= expected.1 + 1e-4;
        let missed = hits.iter().zip(&nearest).filter(|(hit, expected)| !near(hit, expected)).count();
        assert!(missed <= 1, "a scan missed {missed} of {}", hits.len());
    }
    for (hit, expected) in hits.iter().zip(&nearest) {
        // Rounding may swap neighbours at the same distance; the distances must agree all the same.
        if is_exact {
            assert!((f64::from(hit.distance) - expected.1).abs() < 1e-4, "{hit:?} against {expected:?}");
        }
        let index = oracle.records.iter().position(|record| record.id == hit.record.id).unwrap();
        let own = oracle.nearest(space, &query, &[index])[0].1;
        assert!((f64::from(hit.distance) - own).abs() < 1e-4, "a distance is exact however its record was found");
        assert!(matches.contains(&index), "only matches are returned");
    }
    let mut distinct: Vec<&str> = hits.iter().map(|hit| hit.record.id.as_str()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), hits.len(), "no record is returned twice");
    plan.unwrap_or(Plan {
        strategy: Strategy::Empty,
        visited: 0,
        scanned: 0,
        reranked: 0,
        matches: 0,
        unindexed: 0,
        unreachable: 0,
    })
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
