//! Every read asks whether it may go on: nothing works on for a client that left.

use std::sync::Arc;
use std::time::Duration;

use ochre_engine::model::budget::{self, Budget, Exceeded, RequestMemory};
use ochre_engine::model::{Filter, GroupBy, GroupOrder, Knn, Metadata, Rank, Scalar, Test, Value};
use ochre_engine::{
    Candidate, Collection, Database, Error, GetRequest, IndexDefinition, IntrospectMode, IntrospectRequest, NewRecords,
    QueryRequest, Search, Validation,
};
use serde_json::json;

type Read = fn(&Database, &Collection) -> Result<(), Error>;

fn filter() -> Option<Filter> {
    Some(Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(1950)) })
}

fn introspect(collection: &Collection, request: &IntrospectRequest) -> Result<(), Error> {
    collection.introspect(request).map(drop)
}

fn validation() -> Validation {
    Validation { schema: Some(json!({"year": "int"})), ..Validation::default() }
}

/// Searches of which one part takes long: many parts over many records, and many groups.
fn search(films: &Collection, rank: Rank, group_by: Option<GroupBy>) -> Result<(), Error> {
    films.search(&Search { rank: Some(rank), group_by, ..Search::default() }.into()).map(drop)
}

const READS: [(&str, Read); 10] = [
    ("get", |_, films| films.get(&GetRequest::default()).map(drop)),
    ("get with a filter", |_, films| films.get(&GetRequest { filter: filter(), ..GetRequest::default() }).map(drop)),
    ("query", |_, films| films.query(&QueryRequest::nearest_to([1.0, 1.0])).map(drop)),
    ("search", |_, films| search(films, Rank::Sum(vec![Rank::Value(1.0); 100]), None)),
    ("search in groups", |_, films| {
        let (keys, order_by) = (vec!["year".into()], vec![GroupOrder::Score]);
        search(
            films,
            Knn::new([1.0, 1.0]).limit(9).into(),
            Some(GroupBy { keys, order_by, keeps_largest: false, k: 1 }),
        )
    }),
    ("introspect", |_, films| introspect(films, &IntrospectRequest::default())),
    ("introspect a sample", |_, films| {
        let request =
            IntrospectRequest { mode: IntrospectMode::Sample, sample: Some(100), ..IntrospectRequest::default() };
        introspect(films, &request)
    }),
    ("validate", |_, films| films.validate(&validation()).map(drop)),
    ("validate a batch", |_, films| {
        let batch = Some(vec![Candidate { id: "x".into(), ..Candidate::default() }]);
        films.validate(&Validation { batch, ..validation() }).map(drop)
    }),
    ("verify an index", |database, _| {
        database.verify_metadata_index("default_tenant", "default_database", "by_year").map(drop)
    }),
];

#[test]
fn no_read_goes_on_after_its_client_left_or_its_time_is_over() {
    let database = Database::ephemeral().unwrap();
    let films = database.create_collection("films").unwrap();
    let metadata = (0..20_000).map(|n| Metadata::from_iter([("year", Value::Int(1900 + n % 120))]));
    films
        .add(
            NewRecords::new((0..20_000).map(|n| n.to_string()), (0..20_000).map(|n| [n as f32, 1.0]))
                .metadatas(metadata),
        )
        .unwrap();
    let by_year = json!({"index_name": "by_year", "collection": "films", "columns": ["year"]});
    database.create_metadata_index(&IndexDefinition::from_json(by_year).unwrap()).unwrap();
    database.maintain().unwrap();
    for (name, read) in READS {
        read(&database, &films).unwrap_or_else(|error| panic!("{name}: {error}"));
        let memory = || RequestMemory::new(u64::MAX);
        let left = Budget::new(u64::MAX, memory(), Duration::ZERO);
        left.cancel();
        let late = Budget::new(u64::MAX, memory(), Duration::from_nanos(1));
        for (budget, expected) in [(left, Exceeded::Cancelled), (late, Exceeded::Time { millis: 0 })] {
            let within = budget::enter(Arc::clone(&budget));
            let ended = read(&database, &films);
            assert!(matches!(&ended, Err(Error::Exceeded(exceeded)) if *exceeded == expected), "{name}: {ended:?}");
            drop(within);
        }
    }
}

#[test]
fn groups_take_no_more_memory_than_a_request_may() {
    let database = Database::ephemeral().unwrap();
    let films = database.create_collection("films").unwrap();
    let metadata = (0..2000).map(|n| Metadata::from_iter([("year", Value::Str(format!("{n:1000}")))]));
    let records = NewRecords::new((0..2000).map(|n| n.to_string()), (0..2000).map(|n| [n as f32, 1.0]));
    films.add(records.metadatas(metadata)).unwrap();
    let group_by = |keys: usize| {
        let (keys, order_by) = (vec!["year".into(); keys], vec![GroupOrder::Score]);
        Some(GroupBy { keys, order_by, keeps_largest: false, k: 1 })
    };
    let knn = || Rank::from(Knn::new([1.0, 1.0]).limit(2000));
    let within = budget::enter(Budget::new(2 << 20, RequestMemory::new(u64::MAX), Duration::ZERO));
    search(&films, knn(), None).unwrap();
    let ended = search(&films, knn(), group_by(16));
    assert!(matches!(ended, Err(Error::Exceeded(Exceeded::Memory { .. }))), "{ended:?}");
    drop(within);
    search(&films, knn(), group_by(16)).unwrap();
    let text = search(&films, knn(), group_by(17)).unwrap_err().to_string();
    assert!(text.contains("group_by.keys: 17 keys are more than the limit of 16"), "{text}");
}
