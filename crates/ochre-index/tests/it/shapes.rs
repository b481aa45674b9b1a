//! Recall on data as people have it, where averages hide groups of records that are never found.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fastrand::Rng;
use ochre_index::{BuildOptions, Graph, GraphParameters, Hit, Nearest, Node, Strategy, View, nearest};
use ochre_model::{HnswConfiguration, Space};
use ochre_testkit::{Shape, shapes};

use crate::{InMemory, make_sure};

const COUNT: usize = 4000;
/// Records that are searched for, of each shape.
const SEARCHED: usize = 300;

/// A view with a graph over vectors that were added in this order, half of them before the rest.
fn view_of(vectors: &[Vec<f32>], space: Space) -> View {
    configured_view_of(vectors, &HnswConfiguration { space, ..HnswConfiguration::default() })
}

fn configured_view_of(vectors: &[Vec<f32>], configuration: &HnswConfiguration) -> View {
    let sample: Vec<&[f32]> = vectors.iter().step_by(4).map(Vec::as_slice).collect();
    let graph = Graph::new(GraphParameters::new(configuration, vectors[0].len()), vectors.len(), &sample);
    let stop = AtomicBool::new(false);
    let nodes: Vec<(Node, &[f32])> = (0u32..)
        .zip(vectors)
        .map(|(offset, vector)| (Node { offset, vector_id: u64::from(offset) + 1 }, vector.as_slice()))
        .collect();
    let vector = |node: Node| Some(vectors[node.offset as usize].as_slice());
    for part in nodes.chunks(vectors.len().div_ceil(2)) {
        assert!(graph.append(part, 2));
        graph.link_next(usize::MAX, vector, BuildOptions { threads: 2, stop: &stop });
        graph.calibrate();
        make_sure(&graph, vectors);
    }
    graph.search_all_again();
    make_sure(&graph, vectors);
    let mut view = View::new(configuration.space);
    let block = view.add_block(Arc::new(InMemory(vectors.to_vec())));
    for offset in 0..vectors.len() as u32 {
        view.set_vector(offset, u64::from(offset) + 1, Some((block, offset)));
    }
    view.set_graph(Some(Arc::new(graph.copied(0))));
    view
}

fn find(view: &View, query: &[f32], k: usize, strategy: Strategy) -> Vec<Hit> {
    search(view, query, k, Some(strategy))
}

fn search(view: &View, query: &[f32], k: usize, hint: Option<Strategy>) -> Vec<Hit> {
    let wanted = Nearest { query, k, ef_search: 100, exact_max: 0, matches: None, hint };
    nearest(view, wanted).expect("vectors are in memory").0
}

/// Hits that are as near as the last of the exact ones.
fn as_near(hits: &[Hit], exact: &[Hit]) -> usize {
    let farthest = exact.last().expect("there are more than ten").distance;
    hits.iter().filter(|hit| hit.distance <= farthest + 1e-6 * (1.0 + farthest.abs())).count()
}

#[test]
fn every_record_is_first_for_its_own_vector_and_brings_its_neighbours_by_l2() {
    every_record_is_found(Space::L2);
}

#[test]
fn every_record_is_first_for_its_own_vector_and_brings_its_neighbours_by_cosine() {
    every_record_is_found(Space::Cosine);
}

#[test]
fn every_record_brings_its_neighbours_by_ip() {
    every_record_is_found(Space::Ip);
}

fn every_record_is_found(space: Space) {
    for is_shuffled in [false, true] {
        for Shape { name, mut vectors, mut hard } in shapes(COUNT, &mut Rng::with_seed(5)) {
            let mut rng = Rng::with_seed(6);
            if is_shuffled {
                let mut order: Vec<usize> = (0..vectors.len()).collect();
                rng.shuffle(&mut order);
                let mut places = vec![0; order.len()];
                order.iter().enumerate().for_each(|(new, old)| places[*old] = new);
                vectors = order.iter().map(|old| vectors[*old].clone()).collect();
                hard = hard.iter().map(|old| places[*old]).collect();
            }
            rng.shuffle(&mut hard);
            let case = format!("{name}, {space:?}, shuffled: {is_shuffled}");
            let view = view_of(&vectors, space);
            let mut recalls = Vec::new();
            for index in hard.into_iter().take(SEARCHED) {
                let query = &vectors[index];
                let exact = find(&view, query, 10, Strategy::Exact);
                // By inner product, longer vectors come before a vector itself.
                for k in if space == Space::Ip { [].iter() } else { [1, 10].iter() } {
                    let first = find(&view, query, *k, Strategy::Graph)[0];
                    assert!(as_near(&[first], &exact[..1]) == 1, "{case}: record {index}, {k} asked for");
                }
                // Left to itself, a search that takes too long scans.
                let hint = (space != Space::Ip).then_some(Strategy::Graph);
                recalls.push(as_near(&search(&view, query, 10, hint), &exact));
            }
            recalls.sort_unstable();
            let (mean, worst) = (recalls.iter().sum::<usize>(), recalls[recalls.len() / 100]);
            assert!(mean * 100 >= recalls.len() * 970 && worst >= 8, "{case}: {mean} of {}0, {worst}", recalls.len());
        }
    }
}

/// In random directions of many dimensions all are about as far from each other: no search finds its way.
#[test]
fn where_searches_of_the_graph_miss_the_nearest_codes_are_scanned() {
    let mut rng = Rng::with_seed(8);
    let mut vectors = |dimension: usize| -> Vec<Vec<f32>> {
        (0..10_000).map(|_| (0..dimension).map(|_| rng.f32() + rng.f32() + rng.f32() - 1.5).collect()).collect()
    };
    // Few links make it worse.
    let configuration = HnswConfiguration { max_neighbors: 4, ef_construction: 40, ..HnswConfiguration::default() };
    for (dimension, expected) in [(64, Strategy::Scan), (4, Strategy::Graph)] {
        let vectors = vectors(dimension);
        let view = configured_view_of(&vectors, &configuration);
        let (mut recall, mut searched) = (0, 0);
        for query in vectors.iter().step_by(100) {
            let wanted = Nearest { query, k: 10, ef_search: 100, exact_max: 0, matches: None, hint: None };
            let (hits, plan) = nearest(&view, wanted).unwrap();
            assert_eq!(plan.strategy, expected);
            recall += as_near(&hits, &find(&view, query, 10, Strategy::Exact));
            searched += as_near(&find(&view, query, 10, Strategy::Graph), &find(&view, query, 10, Strategy::Exact));
        }
        assert!(recall >= 990, "{dimension}: {recall} of 1000");
        assert_eq!(searched < 900, expected == Strategy::Scan, "{dimension}: {searched} of 1000");
    }
}

#[test]
fn all_copies_of_a_vector_are_found() {
    let shape = shapes(COUNT, &mut Rng::with_seed(7)).into_iter().find(|shape| shape.name == "copies").unwrap();
    for space in [Space::Cosine, Space::L2, Space::Ip] {
        let view = view_of(&shape.vectors, space);
        let copies = COUNT / 5;
        let mut found: Vec<u32> =
            find(&view, &shape.vectors[0], copies, Strategy::Graph).iter().map(|hit| hit.offset).collect();
        found.sort_unstable();
        found.truncate(copies);
        if space == Space::Ip {
            assert_eq!(found.len(), copies);
        } else {
            assert!(found.into_iter().eq(0..copies as u32), "{space:?}");
        }
    }
}

/// Points of a curve so close to each other that the sample by which codes are chosen says nothing of it: what codes
/// err is all that their distances are.
#[test]
fn neighbours_that_codes_cannot_tell_apart_are_found() {
    let mut rng = Rng::with_seed(1);
    let waves: Vec<(f32, f32)> = (0..64).map(|_| (0.1 + 0.9 * rng.f32(), 6.0 * rng.f32())).collect();
    let point = |n: usize| waves.iter().map(|(speed, phase)| (n as f32 / 12_000.0 * speed + phase).sin()).collect();
    let vectors: Vec<Vec<f32>> = (0..12_000).map(point).collect();
    let view = view_of(&vectors, Space::Cosine);
    let mut recalls = Vec::new();
    for vector in vectors.iter().step_by(40) {
        let beside: Vec<f32> = vector.iter().map(|x| x + 0.04 * (rng.f32() - 0.5)).collect();
        for query in [vector, &beside] {
            let exact = find(&view, query, 10, Strategy::Exact);
            recalls.push(as_near(&find(&view, query, 10, Strategy::Graph), &exact));
        }
    }
    recalls.sort_unstable();
    let (mean, worst) = (recalls.iter().sum::<usize>(), recalls[recalls.len() / 100]);
    assert!(mean * 100 >= recalls.len() * 970 && worst >= 8, "{mean} of {}0, {worst}", recalls.len());
}
