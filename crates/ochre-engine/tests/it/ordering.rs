//! Records in the order of their values, page after page; and queries that end at a distance.

use std::cmp::Ordering;

use ochre_engine::model::{Cursor, Filter, Metadata, OrderBy, OrderKey, Scalar, Test, Value};
use ochre_engine::{Collection, Database, DeleteRequest, Error, GetRequest, NewRecords, QueryRequest, Record};

const KEYS: [&str; 3] = ["a", "b", "c"];

/// Values of every type, many of them equal; 2⁵³ + 1 is no float.
fn value(rng: &mut fastrand::Rng) -> Option<Value> {
    Some(match rng.u8(0..9) {
        0 | 1 => return None,
        2 => Value::Bool(rng.bool()),
        3 | 4 => Value::Int(*rng.choice(&[-1, 0, 1, 2, 9_007_199_254_740_993]).unwrap()),
        5 => Value::Float(*rng.choice(&[-0.5, 0.0, 1.0, 1.5, 9_007_199_254_740_992.0]).unwrap()),
        6 => Value::Strs(vec!["x".into()]),
        _ => Value::Str((*rng.choice(&["", "a", "B", "ä"]).unwrap()).into()),
    })
}

fn metadata(rng: &mut fastrand::Rng) -> Metadata {
    KEYS.iter().filter_map(|key| Some(((*key).to_owned(), value(rng)?))).collect()
}

/// A value as what it is compared by: 2⁵³ and its neighbour differ.
fn rank(metadata: &Metadata, key: &str) -> (u8, i128, String) {
    let scaled = |float: f64| (float * 2.0) as i128;
    match metadata.get(key) {
        Some(Value::Bool(b)) => (1, i128::from(*b), String::new()),
        Some(Value::Int(int)) => (2, i128::from(*int) * 2, String::new()),
        Some(Value::Float(float)) => (2, scaled(*float), String::new()),
        Some(Value::Str(text)) => (3, 0, text.clone()),
        _ => (0, 0, String::new()),
    }
}

/// The ids in the order that is asked for, from records in the order of insertion.
fn sorted(records: &[(String, Metadata)], order_by: &[OrderBy]) -> Vec<String> {
    let mut all: Vec<(usize, &(String, Metadata))> = records.iter().enumerate().collect();
    all.sort_by(|(at, (_, a)), (other, (_, b))| {
        for order in order_by {
            let compared = match &order.key {
                OrderKey::Inserted => at.cmp(other),
                OrderKey::Metadata(key) => rank(a, key).cmp(&rank(b, key)),
            };
            if compared != Ordering::Equal {
                return if order.is_descending { compared.reverse() } else { compared };
            }
        }
        at.cmp(other)
    });
    all.into_iter().map(|(_, (id, _))| id.clone()).collect()
}

fn order_by(rng: &mut fastrand::Rng) -> Vec<OrderBy> {
    let one = |rng: &mut fastrand::Rng| {
        let key = match rng.usize(0..4) {
            3 => OrderKey::Inserted,
            number => OrderKey::Metadata(KEYS[number].into()),
        };
        OrderBy { key, is_descending: rng.bool() }
    };
    (0..rng.usize(0..4)).map(|_| one(rng)).collect()
}

/// One page of at most `limit` records, and the place of its last one.
fn page(tests: &Collection, request: &GetRequest, limit: u32, after: Option<Cursor>) -> (Vec<String>, Option<Cursor>) {
    let request = GetRequest { limit: Some(limit), after, ..request.clone() };
    let results = tests.get_results(&request).unwrap();
    (results.records.into_iter().map(|record: Record| record.id).collect(), results.next)
}

fn filled(rng: &mut fastrand::Rng, count: usize) -> (Database, Collection, Vec<(String, Metadata)>) {
    let database = Database::ephemeral().unwrap();
    let tests = database.create_collection("tests").unwrap();
    let records: Vec<(String, Metadata)> = (0..count).map(|number| (format!("r{number}"), metadata(rng))).collect();
    let embeddings = (0..count).map(|number| [number as f32]);
    let new = NewRecords::new(records.iter().map(|(id, _)| id.clone()), embeddings);
    tests.add(new.metadatas(records.iter().map(|(_, metadata)| metadata.clone()))).unwrap();
    (database, tests, records)
}

#[test]
fn pages_put_together_are_all_records_in_their_order() {
    let mut rng = fastrand::Rng::with_seed(17);
    let (_database, tests, records) = filled(&mut rng, 200);
    for _ in 0..60 {
        let filter = rng.bool().then(|| Filter::Key { key: "a".into(), test: Test::Ne(Scalar::Str("a".into())) });
        let (order_by, is_paged) = (order_by(&mut rng), true);
        let request = GetRequest { order_by, filter: filter.clone(), is_paged, ..GetRequest::default() };
        let passing: Vec<_> = records
            .iter()
            .filter(|(id, metadata)| filter.as_ref().is_none_or(|filter| filter.matches(id, Some(metadata), None)))
            .cloned()
            .collect();
        let expected = sorted(&passing, &request.order_by);
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (ids, next) = page(&tests, &request, rng.u32(1..60), after);
            found.extend(ids);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{:?}", request.order_by);
        let (limit, offset) = (rng.u32(0..30), rng.u32(0..250));
        let part: Vec<String> = expected.into_iter().skip(offset as usize).take(limit as usize).collect();
        assert_eq!(page(&tests, &GetRequest { offset, ..request }, limit, None).0, part);
    }
}

#[test]
fn pages_go_on_where_they_ended_while_others_write() {
    let mut rng = fastrand::Rng::with_seed(18);
    let (_database, tests, records) = filled(&mut rng, 300);
    let by = |key: &str| OrderBy { key: OrderKey::Metadata(key.into()), is_descending: true };
    let request = GetRequest { order_by: vec![by("a"), by("b")], ..GetRequest::default() };
    let (mut found, mut after, mut gone) = (Vec::new(), None, Vec::new());
    for round in 0.. {
        let (ids, next) = page(&tests, &request, 20, after);
        found.extend(ids);
        // The last one of the page, and one anywhere.
        let doomed = [found.last().unwrap().clone(), format!("r{}", rng.usize(0..300))];
        tests.delete(DeleteRequest { ids: Some(doomed.to_vec()), ..DeleteRequest::default() }).unwrap();
        gone.extend(doomed);
        let added = NewRecords::new([format!("new{round}")], [[0.0]]).metadatas([metadata(&mut rng)]);
        tests.add(added).unwrap();
        after = next;
        if after.is_none() {
            break;
        }
    }
    let stayed: Vec<(String, Metadata)> = records.into_iter().filter(|(id, _)| !gone.contains(id)).collect();
    found.retain(|id| !id.starts_with("new") && !gone.contains(id));
    assert_eq!(found, sorted(&stayed, &request.order_by));
}

#[test]
fn what_cannot_be_sorted_is_refused_and_distances_end_queries() {
    let mut rng = fastrand::Rng::with_seed(19);
    let (_database, tests, _) = filled(&mut rng, 10);
    let inserted = OrderBy { key: OrderKey::Inserted, is_descending: false };
    let refused = |request: GetRequest, text: &str| {
        let error = tests.get_results(&request).err();
        assert!(matches!(&error, Some(Error::Invalid(invalid)) if invalid.to_string().contains(text)), "{error:?}");
    };
    refused(GetRequest { order_by: vec![inserted.clone(); 5], ..GetRequest::default() }, "limit of 4");
    let after = Some(Cursor { values: vec![None, None], offset: 1 });
    refused(GetRequest { order_by: vec![inserted], after, ..GetRequest::default() }, "sorted by 2 keys, not 1");
    let found = |max_distance: f32| {
        let answer = tests.query(&QueryRequest::nearest_to([3.0]).max_distance(max_distance)).unwrap();
        answer.results[0].iter().map(|hit| hit.record.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(1.0), ["r3", "r2", "r4"]);
    assert_eq!(found(0.0), ["r3"]);
    assert_eq!(found(-1.0), Vec::<String>::new());
}
