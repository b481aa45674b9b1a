//! Data on which graphs lose whole groups of records, through additions in parts, updates, deletions and a restart.

use fastrand::Rng;
use ochre_engine::model::{Filter, HnswConfiguration, IndexSchema, Metadata, Scalar, Space, Test, Value, WriteKind};
use ochre_engine::{
    Collection, CollectionOptions, Database, DeleteRequest, NewRecords, Options, QueryRequest, Strategy,
};
use ochre_testkit::{Shape, shapes};

const COUNT: usize = 2400;
/// Records that are searched for, of each shape.
const SEARCHED: usize = 150;

fn write(collection: &Collection, kind: WriteKind, shape: &Shape, indices: &[usize]) {
    let ids = indices.iter().map(usize::to_string);
    let metadatas = indices.iter().map(|index| -> Metadata {
        let is_hard = shape.hard.contains(index);
        [("is_hard", Value::Bool(is_hard)), ("mod3", Value::Int((index % 3) as i64))].into_iter().collect()
    });
    let records = NewRecords::new(ids, indices.iter().map(|index| &shape.vectors[*index])).metadatas(metadatas);
    collection.write(kind, records, None).unwrap();
}

fn distances(collection: &Collection, query: &[f32], k: usize, filter: Option<Filter>, hint: Strategy) -> Vec<f32> {
    let mut request = QueryRequest::nearest_to(query.to_vec());
    request.query.k = k;
    (request.filter, request.hint) = (filter, Some(hint));
    let answer = collection.query(&request).unwrap();
    answer.results[0].iter().map(|hit| hit.distance).collect()
}

/// How many are as near as the exact ones.
fn as_near(found: &[f32], exact: &[f32]) -> usize {
    let farthest = exact.last().unwrap();
    found.iter().filter(|distance| **distance <= farthest + 1e-6 * (1.0 + farthest.abs())).count()
}

fn check(space: Space) {
    for shape in shapes(COUNT, &mut Rng::with_seed(11)) {
        let folder = tempfile::tempdir().unwrap();
        let options = || Options { background: false, graph_records_min: 500, ..Options::default() };
        let database = Database::open_with(folder.path(), options()).unwrap();
        let hnsw = HnswConfiguration { space, ..HnswConfiguration::default() };
        let with = CollectionOptions { schema: Some(IndexSchema::new(&hnsw, None)), ..CollectionOptions::default() };
        let made = database.create_collection_in("default_tenant", "default_database", "shape", with);
        let (collection, count) = (made.unwrap(), shape.vectors.len());
        let indices: Vec<usize> = (0..count).collect();
        write(&collection, WriteKind::Add, &shape, &indices[..count / 2]);
        database.maintain().unwrap();
        write(&collection, WriteKind::Add, &shape, &indices[count / 2..]);
        database.maintain().unwrap();
        // Some are replaced by the same vector after another, and some go.
        let mut hard = shape.hard.clone();
        Rng::with_seed(12).shuffle(&mut hard);
        let updated = &hard[..hard.len() / 10];
        let ids = updated.iter().map(usize::to_string);
        let moved = updated.iter().map(|index| shape.vectors[*index].iter().map(|x| x + 1.0).collect::<Vec<f32>>());
        collection.write(WriteKind::Update, NewRecords::new(ids, moved), None).unwrap();
        write(&collection, WriteKind::Upsert, &shape, updated);
        let gone: Vec<usize> = (0..count).filter(|index| index % 9 == 4).collect();
        let request = DeleteRequest { ids: Some(gone.iter().map(usize::to_string).collect()), ..Default::default() };
        collection.delete(request).unwrap();
        database.maintain().unwrap();
        drop(collection);
        database.close();

        let database = Database::open_with(folder.path(), options()).unwrap();
        let collection = database.collection("shape").unwrap();
        let live = hard.iter().filter(|index| !gone.contains(index)).take(SEARCHED);
        let filters = [
            None,
            Some(Filter::Key { key: "is_hard".into(), test: Test::Eq(Scalar::Bool(true)) }),
            Some(Filter::Key { key: "mod3".into(), test: Test::Ne(Scalar::Int(1)) }),
        ];
        for (number, filter) in filters.into_iter().enumerate() {
            let case = format!("{}, {space:?}, filter {number}", shape.name);
            let mut recalls = Vec::new();
            for index in live.clone() {
                let query = &shape.vectors[*index];
                let exact = distances(&collection, query, 10, filter.clone(), Strategy::Exact);
                let found = distances(&collection, query, 10, filter.clone(), Strategy::Graph);
                if number == 0 {
                    assert_eq!(
                        as_near(&found[..1], &exact[..1]),
                        1,
                        "{case}: record {index}: {found:?}, exactly {exact:?}"
                    );
                }
                assert_eq!(found.len(), exact.len(), "{case}: record {index}");
                recalls.push(as_near(&found, &exact) * 10 / exact.len());
            }
            recalls.sort_unstable();
            let mean = recalls.iter().sum::<usize>() as f64 / recalls.len() as f64;
            assert!(mean >= 9.7 && recalls[recalls.len() / 100] >= 8, "{case}: {mean} of 10, {:?}", &recalls[..5]);
        }
        assert_eq!(collection.index_progress().unwrap().1, 0);
    }
}

#[test]
fn records_of_every_shape_are_found_by_cosine_whatever_happened() {
    check(Space::Cosine);
}

#[test]
fn records_of_every_shape_are_found_by_l2_whatever_happened() {
    check(Space::L2);
}
