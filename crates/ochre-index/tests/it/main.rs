//! Columns against the meaning of filters for one record, and graphs read and written at once.

mod composite;
mod ranked;
mod shapes;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ochre_index::{
    Analyzer, Bitmap, BuildOptions, Damaged, Graph, GraphParameters, Nearest, Node, Rows, Strategy, TextBuilder,
    TextHeader, TextSegment, VectorBlock, View, evaluate, nearest, verify_snapshot,
};
use ochre_kernels::Region;
use ochre_model::{DocumentTest, Filter, HnswConfiguration, Space, TextAnalyzer, norm};
use ochre_testkit::{Generator, Oracle, OracleRecord, filter_matches};
use regex::Regex;

/// Ids and documents for evaluation, straight from the oracle's records; the offset is the index.
struct Records<'a>(&'a [OracleRecord]);

impl Rows for Records<'_> {
    type Error = Infallible;

    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Infallible> {
        for offset in offsets.iter() {
            if let Some(document) = &self.0[offset as usize].document {
                visit(offset, document);
            }
        }
        Ok(())
    }

    fn offsets(&mut self, ids: &HashSet<String>) -> Result<Bitmap, Infallible> {
        Ok((0u32..).zip(self.0).filter(|(_, record)| ids.contains(&record.id)).map(|(offset, _)| offset).collect())
    }
}

#[test]
fn columns_mean_what_filters_mean_for_one_record() {
    let mut generator = Generator::new(17, 2, 100_000);
    let mut oracle = Oracle::default();
    while oracle.records.len() < 9000 {
        let batch = generator.batch(ochre_model::WriteKind::Add, 500);
        oracle.write(ochre_model::WriteKind::Add, &batch);
    }
    let mut view = View::new(Space::L2);
    for (offset, record) in (0u32..).zip(&oracle.records) {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, record.document.is_some(), true);
        if let Some(metadata) = &record.metadata {
            view.set_metadata(offset, metadata);
        }
    }
    let mut hits = 0;
    for _ in 0..400 {
        let filter = generator.filter(3);
        let found: Vec<u32> =
            evaluate(&filter, &view, view.live(), &mut Records(&oracle.records)).unwrap().iter().collect();
        let expected: Vec<u32> = (0u32..)
            .zip(&oracle.records)
            .filter(|(_, record)| filter_matches(&filter, record))
            .map(|(offset, _)| offset)
            .collect();
        assert_eq!(found, expected, "{filter:?}");
        for (_, record) in (0u32..).zip(&oracle.records).take(50) {
            let one = filter.matches(&record.id, record.metadata.as_ref(), record.document.as_deref());
            assert_eq!(one, filter_matches(&filter, record), "{filter:?} on {record:?}");
        }
        hits += usize::from(!found.is_empty());
    }
    assert!(hits > 200, "filters that match nothing prove nothing: {hits}");
}

/// Documents that count how often they are read.
struct Counted<'a>(&'a [String], usize);

impl Rows for Counted<'_> {
    type Error = Infallible;

    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Infallible> {
        self.1 += offsets.len();
        offsets.iter().for_each(|offset| visit(offset, &self.0[offset as usize]));
        Ok(())
    }

    fn offsets(&mut self, _: &HashSet<String>) -> Result<Bitmap, Infallible> {
        unreachable!("no filter here names ids")
    }
}

#[test]
fn text_segments_spare_reading_documents() {
    let documents: Vec<String> = (0..5000).map(|number| format!("entry {number} of the 日記")).collect();
    let mut builder = TextBuilder::new(Arc::new(Analyzer::new(&TextAnalyzer::default())));
    (0u32..).zip(&documents).take(4000).for_each(|(offset, document)| builder.add(offset, document));
    let header = TextHeader { epoch: 1, collection: [0; 16], position: 1 };
    let segment = TextSegment::open(Arc::new(builder.finish(&header)), 1, [0; 16]).unwrap();
    let mut view = View::new(Space::L2);
    for offset in 0..5000 {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, true, true);
    }
    view.load_text(vec![(Arc::new(segment), (0..4000).collect())]);
    // Changed since: what the segment says of it no longer counts.
    view.set_document(17, true, true);
    let outside = 1001;
    let check = |test: DocumentTest, expected: usize, read: std::ops::RangeInclusive<usize>| {
        let mut rows = Counted(&documents, 0);
        let filter = Filter::Document(test);
        let found = evaluate(&filter, &view, view.live(), &mut rows).unwrap();
        assert_eq!(found.len(), expected, "{filter:?}");
        assert!(read.contains(&(rows.1 - outside)), "{filter:?} read {} indexed documents", rows.1 - outside);
    };
    check(DocumentTest::Contains("entry 1234 ".into()), 1, 1..=1);
    check(DocumentTest::NotContains("entry 1234 ".into()), 4999, 1..=1);
    check(DocumentTest::Matches(Regex::new("(?i)ENTRY 12[0-9]4 of").unwrap()), 10, 10..=400);
    // Of up to three bytes the index is sure, in any script.
    check(DocumentTest::Contains("7".into()), documents.iter().filter(|d| d.contains('7')).count(), 0..=0);
    check(DocumentTest::Contains("日".into()), 5000, 0..=0);
    check(DocumentTest::Contains("zebra".into()), 0, 0..=0);
    check(DocumentTest::Matches(Regex::new(".").unwrap()), 5000, 3999..=3999);
}

/// A graph over random vectors, half of them equal to each other if asked for.
fn graph(count: usize, equal: bool, threads: usize) -> (Graph, Vec<Vec<f32>>) {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut row = || -> Vec<f32> { (0..40).map(|_| rng.f32()).collect() };
    let vectors: Vec<Vec<f32>> =
        (0..count).map(|index| if equal && index % 2 == 0 { vec![0.5; 40] } else { row() }).collect();
    let parameters = GraphParameters::new(&HnswConfiguration::default(), 40);
    let sample: Vec<&[f32]> = vectors.iter().take(200).map(Vec::as_slice).collect();
    let graph = Graph::new(parameters, count, &sample);
    let stop = AtomicBool::new(false);
    for (start, chunk) in vectors.chunks(500).enumerate() {
        let nodes: Vec<(Node, &[f32])> = (0u32..)
            .zip(chunk)
            .map(|(index, vector)| {
                let offset = start as u32 * 500 + index;
                (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice())
            })
            .collect();
        assert!(graph.append(&nodes, threads));
        let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
        graph.link_next(usize::MAX, vector, BuildOptions { threads, stop: &stop });
    }
    (graph, vectors)
}

#[test]
fn every_node_is_found_once_it_was_searched_for() {
    for (equal, threads) in [(false, 1), (false, 4), (true, 1), (true, 4)] {
        let (graph, vectors) = graph(6000, equal, threads);
        assert_eq!((graph.linked().len(), graph.unsearched()), (6000, 6000));
        make_sure(&graph, &vectors);
        assert_eq!(
            (graph.unreachable(), graph.unsearched()),
            (vec![], 0),
            "equal vectors: {equal}, threads: {threads}"
        );
    }
}

/// Has every node searched for, by the vector at its offset.
fn make_sure(graph: &Graph, vectors: &[Vec<f32>]) {
    graph.search_weakly_linked_again();
    let vector = |node: Node| vectors.get(node.offset as usize).map(Vec::as_slice);
    while graph.unsearched() > 0 {
        graph.search_own(1000, 100, vector, BuildOptions { threads: 2, stop: &AtomicBool::new(false) });
    }
}

/// Vectors in memory, as a view reads them.
struct InMemory(Vec<Vec<f32>>);

impl VectorBlock for InMemory {
    fn row(&self, row: usize) -> Result<&[f32], Damaged> {
        Ok(&self.0[row])
    }

    fn norm(&self, row: usize) -> f32 {
        norm(&self.0[row])
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[test]
fn what_is_not_linked_yet_is_scanned_or_measured_and_never_missed() {
    let mut rng = fastrand::Rng::with_seed(8);
    let vectors: Vec<Vec<f32>> = (0..3000).map(|_| (0..96).map(|_| rng.f32() - 0.5).collect()).collect();
    let sample: Vec<&[f32]> = vectors.iter().take(500).map(Vec::as_slice).collect();
    let graph = Arc::new(Graph::new(GraphParameters::new(&HnswConfiguration::default(), 96), 3000, &sample));
    let stop = AtomicBool::new(false);
    let nodes: Vec<(Node, &[f32])> = (0u32..)
        .zip(&vectors)
        .map(|(offset, vector)| (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice()))
        .collect();
    let mut view = View::new(Space::L2);
    let block = view.add_block(Arc::new(InMemory(vectors.clone())));
    for offset in 0..3000 {
        view.set_vector(offset, u64::from(offset) + 1, Some((block, offset)));
    }
    // A thousand linked, a thousand coded only, a thousand in no graph at all.
    assert!(graph.append(&nodes[..2000], 2));
    let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
    graph.link_next(1000, vector, BuildOptions { threads: 2, stop: &stop });
    view.set_graph(Some(Arc::clone(&graph)));
    assert_eq!((view.in_graph().len(), view.unindexed_len()), (1000, 2000));
    for hint in [Strategy::Graph, Strategy::Scan] {
        let (mut found, mut of_thirds) = (0, [0; 3]);
        for _ in 0..50 {
            let query: Vec<f32> = (0..96).map(|_| rng.f32() - 0.5).collect();
            let wanted =
                Nearest { query: &query, k: 10, ef_search: 200, exact_max: 0, matches: None, hint: Some(hint) };
            let (hits, plan) = nearest(&view, wanted).unwrap();
            assert_eq!((plan.strategy, plan.unindexed), (hint, 2000));
            assert_eq!(plan.scanned, if hint == Strategy::Graph { 1000 } else { 2000 });
            let exact = Nearest { hint: Some(Strategy::Exact), ..wanted };
            let (expected, _) = nearest(&view, exact).unwrap();
            assert_eq!(hits.len(), 10);
            found += hits.iter().filter(|hit| expected.contains(hit)).count();
            expected.iter().for_each(|hit| of_thirds[hit.offset as usize / 1000] += 1);
        }
        assert!(found >= 490, "{hint:?} found {found} of 500");
        assert!(of_thirds.iter().all(|count| *count > 100), "every third has neighbours: {of_thirds:?}");
    }
}

/// Points around centres, their graph, and a view of both.
fn clustered(count: u32, centres: &[Vec<f32>]) -> (Vec<Vec<f32>>, View) {
    let mut rng = fastrand::Rng::with_seed(21);
    let vectors: Vec<Vec<f32>> = (0..count)
        .map(|_| rng.choice(centres).expect("some centres").iter().map(|x| x + 0.4 * (rng.f32() - 0.5)).collect())
        .collect();
    let dimension = centres[0].len();
    let sample: Vec<&[f32]> = vectors.iter().step_by(8).map(Vec::as_slice).collect();
    let graph = Graph::new(GraphParameters::new(&HnswConfiguration::default(), dimension), count as usize, &sample);
    let nodes: Vec<(Node, &[f32])> = (0u32..)
        .zip(&vectors)
        .map(|(offset, vector)| (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice()))
        .collect();
    assert!(graph.append(&nodes, 2));
    let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
    graph.link_next(usize::MAX, vector, BuildOptions { threads: 2, stop: &AtomicBool::new(false) });
    let mut view = View::new(Space::L2);
    let block = view.add_block(Arc::new(InMemory(vectors.clone())));
    for offset in 0..count {
        view.set_vector(offset, u64::from(offset) + 1, Some((block, offset)));
    }
    view.set_graph(Some(Arc::new(graph)));
    (vectors, view)
}

/// Whatever share of the records a filter leaves, and whether those are near the query, far from it or
/// anywhere: the planner finds the nearest of them.
#[test]
fn recall_holds_at_every_selectivity_and_correlation() {
    const COUNT: u32 = 20_000;
    let mut rng = fastrand::Rng::with_seed(22);
    let centres: Vec<Vec<f32>> = (0..100).map(|_| (0..64).map(|_| rng.f32() - 0.5).collect()).collect();
    let (vectors, view) = clustered(COUNT, &centres);
    let distance = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum() };
    let mut strategies = HashSet::new();
    for share in [0.001, 0.005, 0.02, 0.1, 0.3, 0.5, 0.8, 1.0] {
        for correlation in ["none", "near", "far"] {
            let (mut found, mut wanted) = (0, 0);
            for _ in 0..12 {
                let query: Vec<f32> =
                    rng.choice(&centres).unwrap().iter().map(|x| x + 0.4 * (rng.f32() - 0.5)).collect();
                let mut order: Vec<u32> = (0..COUNT).collect();
                match correlation {
                    "none" => rng.shuffle(&mut order),
                    _ => order.sort_by(|a, b| {
                        let (a, b) = (distance(&vectors[*a as usize], &query), distance(&vectors[*b as usize], &query));
                        if correlation == "near" { a.total_cmp(&b) } else { b.total_cmp(&a) }
                    }),
                }
                let matches: Bitmap = order.iter().take((f64::from(COUNT) * share) as usize).copied().collect();
                let asked = Nearest {
                    query: &query,
                    k: 10,
                    ef_search: 100,
                    exact_max: 64,
                    matches: Some(&matches),
                    hint: None,
                };
                let (hits, plan) = nearest(&view, asked).unwrap();
                let (expected, _) = nearest(&view, Nearest { hint: Some(Strategy::Exact), ..asked }).unwrap();
                assert_eq!(hits.len(), 10, "always min(k, matches)");
                assert!(hits.iter().all(|hit| matches.contains(hit.offset)), "only matches");
                found += hits.iter().filter(|hit| expected.contains(hit)).count();
                wanted += 10;
                strategies.insert(format!("{:?}", plan.strategy));
            }
            assert!(found * 100 >= wanted * 98, "share {share}, correlation {correlation}: {found} of {wanted}");
        }
    }
    for strategy in ["Exact", "Scan", "Graph"] {
        assert!(strategies.contains(strategy), "no query went this way: {strategy}; {strategies:?}");
    }
}

#[test]
fn a_snapshot_holds_the_whole_graph_and_fits_only_what_it_is_of() {
    let (graph, mut vectors) = graph(1500, false, 1);
    let header = ochre_index::SnapshotHeader { epoch: 7, collection: [3; 16], position: 11 };
    graph.calibrate();
    make_sure(&graph, &vectors);
    assert_eq!(graph.unreachable(), []);
    let write = |graph: &Graph| {
        let mut file = Cursor::new(Vec::new());
        graph.write_snapshot(&header, Graph::capacity_for(graph.linked().len(), 1.2), &mut file).unwrap();
        file.into_inner()
    };
    let bytes = write(&graph);
    let read = |bytes: &[u8], epoch, collection, parameters| {
        let memory = Region::read(&mut &*bytes, bytes.len()).unwrap();
        Graph::from_snapshot(epoch, collection, parameters, memory).map_err(|error| error.to_string())
    };
    let (copy, position) = read(&bytes, 7, [3; 16], graph.parameters()).unwrap();
    assert!(same_nodes(&copy, &graph) && position == 11);
    assert_eq!((copy.unchecked(), copy.capacity()), (0, 1500 + 1024));
    assert!(bytes == write(&copy), "written again it is the same");
    assert!(read(&bytes, 8, [3; 16], graph.parameters()).is_err());
    assert!(read(&bytes, 7, [4; 16], graph.parameters()).is_err());
    let other = GraphParameters { max_neighbors: 8, ..graph.parameters() };
    assert!(read(&bytes, 7, [3; 16], other).is_err());

    // It goes on growing where it lies.
    vectors.extend((0..500).map(|index| vec![index as f32 / 500.0; 40]));
    let nodes: Vec<(Node, &[f32])> = (1500u32..)
        .zip(&vectors[1500..])
        .map(|(offset, vector)| (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice()))
        .collect();
    assert!(copy.append(&nodes, 1));
    copy.link_next(usize::MAX, |_| None, BuildOptions { threads: 2, stop: &AtomicBool::new(false) });
    make_sure(&copy, &vectors);
    assert_eq!((copy.linked().len(), copy.unreachable()), (2000, vec![]));
    let (longer, _) = read(&write(&copy), 7, [3; 16], graph.parameters()).unwrap();
    assert!(same_nodes(&longer, &copy));
}

/// However much of a graph is linked, a copy with other numbers answers as it does, and goes on growing.
#[test]
fn a_copy_of_a_graph_answers_as_it_does() {
    let mut rng = fastrand::Rng::with_seed(23);
    let centres: Vec<Vec<f32>> = (0..30).map(|_| (0..64).map(|_| rng.f32() - 0.5).collect()).collect();
    let (vectors, mut view) = clustered(3000, &centres);
    let whole = Arc::clone(view.graph().unwrap());
    let sample: Vec<&[f32]> = vectors.iter().take(300).map(Vec::as_slice).collect();
    let half = Arc::new(Graph::new(whole.parameters(), 3000, &sample));
    let nodes: Vec<(Node, &[f32])> =
        whole.nodes().map(|node| (node, vectors[node.offset as usize].as_slice())).collect();
    assert!(half.append(&nodes, 2));
    let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
    let stop = AtomicBool::new(false);
    half.link_next(1500, vector, BuildOptions { threads: 2, stop: &stop });
    for graph in [whole, half] {
        graph.calibrate();
        let copy = Arc::new(graph.copied(0));
        assert!(same_nodes(&copy, &graph) && copy.capacity() == 3000);
        for _ in 0..50 {
            let query: Vec<f32> = rng.choice(&centres).unwrap().iter().map(|x| x + 0.4 * (rng.f32() - 0.5)).collect();
            for hint in [Strategy::Graph, Strategy::Scan] {
                let wanted =
                    Nearest { query: &query, k: 10, ef_search: 50, exact_max: 0, matches: None, hint: Some(hint) };
                let mut answer = |graph: &Arc<Graph>| {
                    view.set_graph(Some(Arc::clone(graph)));
                    nearest(&view, wanted).unwrap()
                };
                let ((expected, plan), (found, of_copy)) = (answer(&graph), answer(&copy));
                assert_eq!(
                    (found, of_copy.visited, of_copy.unindexed),
                    (expected, plan.visited, plan.unindexed),
                    "{hint:?}"
                );
            }
        }
        let left = copy.len() - copy.linked().len();
        copy.link_next(left, vector, BuildOptions { threads: 2, stop: &stop });
        make_sure(&copy, &vectors);
        assert_eq!((copy.linked().len(), copy.unreachable()), (3000, vec![]));
    }
}

/// Whether two graphs have the same linked nodes, in whatever order.
fn same_nodes(a: &Graph, b: &Graph) -> bool {
    let sorted = |graph: &Graph| {
        let mut nodes: Vec<u64> = graph.linked().map(|node| node.vector_id).collect();
        nodes.sort_unstable();
        nodes
    };
    sorted(a) == sorted(b)
}

/// Whatever bytes are damaged: it is refused, or used without a panic and found out when it is read through.
#[test]
fn damage_to_a_snapshot_is_refused_or_found_out() {
    let (graph, vectors) = graph(600, false, 1);
    make_sure(&graph, &vectors);
    let header = ochre_index::SnapshotHeader { epoch: 7, collection: [3; 16], position: 11 };
    let mut file = Cursor::new(Vec::new());
    graph.write_snapshot(&header, Graph::capacity_for(graph.linked().len(), 1.2), &mut file).unwrap();
    let (sound, mut rng) = (file.into_inner(), fastrand::Rng::with_seed(9));
    let verified = |bytes: &[u8]| {
        let answer: Result<_, Infallible> = verify_snapshot(&mut Cursor::new(bytes), &mut |_, _| Ok(()));
        let Ok(answer) = answer;
        answer
    };
    assert!(verified(&sound).is_ok());
    let (mut refused, mut found_out) = (0, 0);
    for _ in 0..400 {
        let mut bytes = sound.clone();
        match rng.u8(0..4) {
            0 => bytes.truncate(rng.usize(0..sound.len())),
            1 => bytes[rng.usize(0..sound.len())] ^= 1 << rng.u8(0..8),
            _ => {
                let start = rng.usize(0..sound.len() - 64);
                bytes[start..start + 64].fill_with(|| rng.u8(..));
            }
        }
        let memory = Region::read(&mut bytes.as_slice(), bytes.len()).unwrap();
        let Ok((graph, _)) = Graph::from_snapshot(7, [3; 16], graph.parameters(), memory) else {
            refused += 1;
            continue;
        };
        assert!(verified(&bytes).is_err(), "every byte counts");
        found_out += 1;
        let mut view = View::new(graph.parameters().space);
        let vectors = InMemory(vec![vec![0.5; 40]; 600]);
        let block = view.add_block(Arc::new(vectors));
        (0..600).for_each(|offset| view.set_vector(offset, u64::from(offset) + 1, Some((block, offset))));
        view.set_graph(Some(Arc::new(graph)));
        let wanted = Nearest {
            query: &[0.5; 40],
            k: 10,
            ef_search: 100,
            exact_max: 0,
            matches: None,
            hint: Some(Strategy::Graph),
        };
        assert_eq!(nearest(&view, wanted).unwrap().0.len(), 10);
    }
    assert!(refused > 50 && found_out > 100, "{refused} refused, {found_out} found out");
}
