//! Every read asks whether it may go on: nothing works on for a client that left.

use std::sync::Arc;
use std::time::Duration;

use ochre_engine::model::budget::{self, Budget, Exceeded, RequestMemory};
use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value};
use ochre_engine::{
    Candidate, Collection, Database, Error, GetRequest, IndexDefinition, IntrospectMode, IntrospectRequest, NewRecords,
    QueryRequest, Validation,
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

const READS: [(&str, Read); 8] = [
    ("get", |_, films| films.get(&GetRequest::default()).map(drop)),
    ("get with a filter", |_, films| films.get(&GetRequest { filter: filter(), ..GetRequest::default() }).map(drop)),
    ("query", |_, films| films.query(&QueryRequest::nearest_to([1.0, 1.0])).map(drop)),
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
