//! The graph: recall, few vectors visited, snapshots that are loaded, damage that is repaired.

use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value};
use ochre_engine::{Collection, Database, DeleteRequest, NewRecords, Options, QueryRequest, Strategy};

const COUNT: usize = 12_000;
const DIMENSION: usize = 48;

/// Points around some hundred centres, as embeddings of texts are.
fn points(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut centres = fastrand::Rng::with_seed(99);
    let centres: Vec<Vec<f32>> = (0..200).map(|_| (0..DIMENSION).map(|_| centres.f32() - 0.5).collect()).collect();
    (0..count).map(|_| rng.choice(&centres).unwrap().iter().map(|x| x + 0.25 * (rng.f32() - 0.5)).collect()).collect()
}

fn fill(database: &Database, vectors: &[Vec<f32>]) -> Collection {
    let options = ochre_engine::CollectionOptions { get_or_create: true, ..Default::default() };
    let collection = database.create_collection_in("default_tenant", "default_database", "points", options).unwrap();
    for (start, chunk) in vectors.chunks(2000).enumerate() {
        let ids = (0..chunk.len()).map(|index| (start * 2000 + index).to_string());
        let metadatas = (0..chunk.len()).map(|index| -> Metadata {
            [("mod10", Value::Int((index % 10) as i64)), ("mod2", Value::Bool(index % 2 == 0))].into_iter().collect()
        });
        collection.add(NewRecords::new(ids, chunk).metadatas(metadatas)).unwrap();
    }
    collection
}

fn nearest(vectors: &[Vec<f32>], query: &[f32], keep: impl Fn(usize) -> bool) -> Vec<String> {
    let distance = |vector: &[f32]| -> f32 { vector.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum() };
    let mut all: Vec<(f32, usize)> =
        vectors.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(index, v)| (distance(v), index)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.iter().take(10).map(|(_, index)| index.to_string()).collect()
}

/// A filter, and which points it keeps.
type Restriction = (Filter, fn(usize) -> bool);

/// Recall@10 over some queries, and the largest share of the vectors that one of them visited.
fn recall(
    collection: &Collection, vectors: &[Vec<f32>], filter: Option<&Restriction>, hint: Option<Strategy>,
) -> (f64, f64) {
    let (mut found, mut visited) = (0, 0);
    let queries = points(100, 7);
    for query in &queries {
        let mut request = QueryRequest::nearest_to(query.clone());
        request.hint = hint;
        request.filter = filter.map(|(filter, _)| filter.clone());
        let answer = collection.query(&request).unwrap();
        assert_eq!(answer.results[0].len(), 10);
        let expected = nearest(vectors, query, |index| filter.is_none_or(|(_, keep)| keep(index)));
        found += answer.results[0].iter().filter(|hit| expected.contains(&hit.record.id)).count();
        visited = visited.max(answer.plans[0].visited + answer.plans[0].reranked);
    }
    (found as f64 / (queries.len() * 10) as f64, visited as f64 / vectors.len() as f64)
}

#[test]
fn a_large_collection_is_searched_through_its_graph_and_survives_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: false, ..Options::default() };
    let vectors = points(COUNT, 1);
    let database = Database::open_with(folder.path(), options()).unwrap();
    let collection = fill(&database, &vectors);
    database.maintain().unwrap();
    assert_eq!(collection.index_progress().unwrap(), (COUNT, 0));

    let (unfiltered, visited) = recall(&collection, &vectors, None, None);
    assert!(unfiltered >= 0.98, "recall {unfiltered}");
    assert!(visited < 0.2, "a query visited {visited} of the vectors");
    let even = Filter::Key { key: "mod2".into(), test: Test::Eq(Scalar::Bool(true)) };
    let (half, _) = recall(&collection, &vectors, Some(&(even, |index| index % 2 == 0)), Some(Strategy::Graph));
    assert!(half >= 0.98, "recall {half} with half of the records");
    let third = Filter::Key { key: "mod10".into(), test: Test::Eq(Scalar::Int(3)) };
    let third = (third, (|index| index % 10 == 3) as fn(usize) -> bool);
    let (tenth, _) = recall(&collection, &vectors, Some(&third), Some(Strategy::Graph));
    assert!(tenth >= 0.98, "recall {tenth} with a tenth of the records");
    let (scanned, _) = recall(&collection, &vectors, Some(&third), None);
    assert!(scanned >= 0.999, "recall {scanned} of a scan");

    // A restart loads the snapshot: the graph is there before any maintenance ran.
    let nodes = collection.graph_nodes().unwrap();
    database.close();
    drop(collection);
    let database = Database::open_with(folder.path(), options()).unwrap();
    let collection = database.collection("points").unwrap();
    let answer = collection.query(&QueryRequest::nearest_to(vectors[5].clone())).unwrap();
    assert_eq!(answer.plans[0].strategy, Strategy::Graph);
    assert_eq!(answer.results[0][0].record.id, "5");
    assert_eq!(collection.graph_nodes().unwrap(), nodes);
    let id = collection.id();
    database.close();
    drop(collection);

    // A damaged snapshot is noticed, answers stay right without it, and maintenance rebuilds it.
    let snapshot = folder.path().join("cache").join(id.to_string()).join("graph.snapshot");
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&snapshot, bytes).unwrap();
    let database = Database::open_with(folder.path(), options()).unwrap();
    let collection = database.collection("points").unwrap();
    let answer = collection.query(&QueryRequest::nearest_to(vectors[5].clone())).unwrap();
    assert_eq!((answer.plans[0].strategy, answer.results[0][0].record.id.as_str()), (Strategy::Exact, "5"));
    database.maintain().unwrap();
    let answer = collection.query(&QueryRequest::nearest_to(vectors[5].clone())).unwrap();
    assert_eq!((answer.plans[0].strategy, answer.results[0][0].record.id.as_str()), (Strategy::Graph, "5"));
    assert!(snapshot.is_file());
}

/// Nodes of a graph that is large beside the memory there may be lie in a file while it is built.
#[test]
fn vectors_that_are_sealed_while_a_graph_is_built_leave_the_heap_meanwhile() {
    const BATCH: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let segment_bytes = (BATCH * DIMENSION * 4) as u64;
    let options = Options { background: false, segment_bytes, ..Options::default() };
    let database = Database::open_with(folder.path(), options).unwrap();
    let collection = fill(&database, &points(COUNT, 1));
    let more = points(8 * BATCH, 3);
    std::thread::scope(|scope| {
        let maintaining = scope.spawn(|| database.maintain().unwrap());
        // Once it builds, it brings along whatever is written before it is through.
        while collection.index_progress().unwrap().0 == 0 {
            assert!(!maintaining.is_finished());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        for (number, batch) in more.chunks(BATCH).enumerate() {
            let ids = (0..BATCH).map(|index| format!("more-{number}-{index}"));
            collection.add(NewRecords::new(ids, batch)).unwrap();
        }
        let ids_and_norms = 12 * (COUNT + more.len());
        let owned = || collection.memory().unwrap().vectors.saturating_sub(ids_and_norms) as u64;
        let is_building = || collection.index_progress().unwrap().1 > 0;
        let mut least = u64::MAX;
        loop {
            let now = owned();
            if !is_building() {
                break;
            }
            least = least.min(now);
        }
        assert!(least < 3 * segment_bytes, "at least {least} bytes of vectors stayed; a segment has {segment_bytes}");
    });
    assert_eq!(collection.index_progress().unwrap(), (COUNT + more.len(), 0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_graph_too_large_for_memory_is_built_in_a_file() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let folder = tempfile::tempdir().unwrap();
    let vectors = points(COUNT, 1);
    // Graphs come only once the limit is set: this process may always have more than that, and would not be let write.
    let unlimited = Options { background: false, graph_records_min: usize::MAX, ..Options::default() };
    let database = Database::open_with(folder.path(), unlimited).unwrap();
    drop(fill(&database, &vectors));
    database.close();

    let limited = Options { background: false, memory_limit: Some(8 << 20), ..Options::default() };
    let database = Database::open_with(folder.path(), limited).unwrap();
    let collection = database.collection("points").unwrap();
    let answer = collection.query(&QueryRequest::nearest_to(vectors[5].clone())).unwrap();
    assert_eq!(answer.plans[0].strategy, Strategy::Exact, "there is no graph yet");
    let (stop, own) = (AtomicBool::new(false), folder.path().to_str().unwrap());
    let mapped = || -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(own)).map(str::to_owned).collect()
    };
    let was_built_in_file = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut was_seen = false;
            while !stop.load(Ordering::Relaxed) {
                was_seen |= mapped().iter().any(|line| line.contains("building.writing"));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            was_seen
        });
        let maintained = database.maintain();
        stop.store(true, Ordering::Relaxed);
        maintained.unwrap();
        watcher.join().unwrap()
    });
    assert!(was_built_in_file);
    assert!(mapped().iter().any(|line| line.contains("graph.snapshot")), "{:?}", mapped());
    assert!(mapped().iter().all(|line| !line.contains("building.writing")), "it lies in its snapshot now");
    assert_eq!(collection.index_progress().unwrap(), (COUNT, 0));
    let files = std::fs::read_dir(folder.path().join("cache").join(collection.id().to_string())).unwrap();
    assert!(files.flatten().all(|file| file.path().extension().is_none_or(|end| end != "writing")));
    let (found, visited) = recall(&collection, &vectors, None, None);
    assert!(found >= 0.98 && visited < 0.2, "recall {found}, visited {visited}");
}

#[test]
fn every_byte_of_a_snapshot_counts() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { background: false, graph_records_min: 50, ..Options::default() };
    let database = Database::open_with(folder.path(), options()).unwrap();
    let collection = fill(&database, &points(300, 3));
    database.maintain().unwrap();
    let id = collection.id();
    database.close();
    drop(collection);
    let snapshot = folder.path().join("cache").join(id.to_string()).join("graph.snapshot");
    let sound = std::fs::read(&snapshot).unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..60 {
        let mut bytes = sound.clone();
        if rng.bool() {
            bytes.truncate(rng.usize(0..bytes.len()));
        } else {
            let at = rng.usize(0..bytes.len());
            bytes[at] ^= 1 << rng.u8(0..8);
        }
        std::fs::write(&snapshot, bytes).unwrap();
        let database = Database::open_with(folder.path(), options()).unwrap();
        let collection = database.collection("points").unwrap();
        let answer = collection.query(&QueryRequest::nearest_to(points(300, 3)[9].clone())).unwrap();
        assert_eq!(answer.results[0][0].record.id, "9");
        assert_eq!(answer.plans[0].strategy, Strategy::Exact, "a damaged snapshot is never used");
    }
}

/// A snapshot that is too large to be read through first is used at once; its damage is found by maintenance, and no
/// record is lost meanwhile.
#[test]
fn a_large_snapshot_is_used_at_once_and_read_through_later() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options {
        background: false,
        graph_records_min: 50,
        exact_records_max: 0,
        snapshot_verified_bytes_max: 0,
        ..Options::default()
    };
    let vectors = points(3000, 4);
    let database = Database::open_with(folder.path(), options()).unwrap();
    let collection = fill(&database, &vectors);
    database.maintain().unwrap();
    let id = collection.id();
    database.close();
    drop(collection);
    let snapshot = folder.path().join("cache").join(id.to_string()).join("graph.snapshot");
    let sound = std::fs::read(&snapshot).unwrap();
    let search = |damaged: bool| {
        let database = Database::open_with(folder.path(), options()).unwrap();
        let collection = database.collection("points").unwrap();
        let request = QueryRequest { hint: Some(Strategy::Graph), ..QueryRequest::nearest_to(vectors[9].clone()) };
        let answer = collection.query(&request).unwrap();
        assert_eq!(answer.results[0].len(), 10);
        assert!(answer.plans[0].visited > 0, "the graph is there before it was read through");
        // More is written before the snapshot is looked at: what was read from it changes in memory only.
        let more = points(200, 5);
        let ids: Vec<String> = (0..more.len()).map(|index| format!("more {index}")).collect();
        collection.upsert(NewRecords::new(ids.clone(), &more)).unwrap();
        database.maintain().unwrap();
        assert_eq!(collection.index_progress().unwrap(), (3200, 0));
        assert_eq!(collection.graph_nodes().unwrap(), 3200, "damaged: {damaged}");
        for (vector, id) in [(&vectors[9], "9"), (&more[7], "more 7")] {
            let answer = collection.query(&QueryRequest::nearest_to(vector.clone())).unwrap();
            assert_eq!(answer.results[0][0].record.id, id);
        }
        collection.delete(DeleteRequest { ids: Some(ids), ..DeleteRequest::default() }).unwrap();
        drop(collection);
        database.close();
    };
    search(false);
    // The middle of the file is codes and links.
    let mut bytes = sound;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&snapshot, bytes).unwrap();
    search(true);
}
