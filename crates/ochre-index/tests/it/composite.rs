//! Declared indexes: whatever their state, they change no answer.

use std::sync::Arc;

use ochre_index::{
    Bitmap, CompositeBuilder, CompositeHeader, CompositeIndex, CompositeSegment, Hints, IndexColumn, IndexShape,
    Reason, Trace, View, evaluate_with,
};
use ochre_model::{Filter, Metadata, Scalar, Space, Test, Value, ValueType, WriteKind};
use ochre_testkit::{Generator, Oracle, filter_matches};

use crate::Records;

fn shape(name: &str, columns: Vec<IndexColumn>, partial: Vec<Filter>) -> Arc<IndexShape> {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    Arc::new(IndexShape { id, name: name.into(), columns, partial })
}

/// Covers these records with segments of an index.
fn build(view: &mut View, shape: &Arc<IndexShape>, offsets: &[u32], per_segment: usize) {
    let segments = offsets.chunks(per_segment.max(1)).map(|offsets| {
        let mut builder = CompositeBuilder::default();
        view.collect_keys(shape, offsets, usize::MAX, &mut builder);
        let header = CompositeHeader {
            epoch: 1,
            collection: [1; 16],
            index: shape.id,
            generation: 1,
            position: view.position(),
        };
        let bytes = Arc::new(builder.finish(&header));
        let segment = CompositeSegment::open(bytes, 1, [1; 16]).unwrap_or_else(|error| panic!("{error}"));
        let current: Bitmap = segment.offsets().collect();
        (Arc::new(segment), current)
    });
    let segments: Vec<_> = segments.collect();
    let mut index = CompositeIndex::new(Arc::clone(shape), 1, false);
    index.load(segments, view.live(), true);
    view.add_index(index);
}

fn shapes() -> Vec<Arc<IndexShape>> {
    let key = |key: &str| IndexColumn::Key(key.into());
    vec![
        shape("a", vec![key("a")], vec![]),
        shape("ab", vec![key("a"), key("b")], vec![]),
        shape("bac", vec![key("b"), key("a"), key("c")], vec![]),
        shape("elements", vec![IndexColumn::Elements("c".into()), key("a")], vec![]),
        shape("last elements", vec![key("b"), IndexColumn::Elements("c".into())], vec![]),
        shape("strings", vec![IndexColumn::Every(ValueType::Str)], vec![]),
        shape("late strings", vec![key("b"), IndexColumn::Every(ValueType::Str)], vec![]),
        shape("bools", vec![IndexColumn::Every(ValueType::Bool), key("a")], vec![]),
        // Keys here have floats as well, so no test is answered by integers alone.
        shape("ints", vec![IndexColumn::Every(ValueType::Int)], vec![]),
        shape("partial", vec![key("a")], vec![Filter::Key { key: "b".into(), test: Test::Eq(Scalar::Int(1)) }]),
    ]
}

#[test]
fn no_index_changes_an_answer_whatever_it_covers_and_whatever_changed_since() {
    let mut rng = fastrand::Rng::with_seed(8);
    let (mut generator, mut oracle) = (Generator::new(18, 2, 100_000), Oracle::default());
    while oracle.records.len() < 6000 {
        let batch = generator.batch(WriteKind::Add, 500);
        oracle.write(WriteKind::Add, &batch);
    }
    let mut view = View::new(Space::L2);
    for (offset, record) in (0u32..).zip(&oracle.records) {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, record.document.is_some(), true);
        if let Some(metadata) = &record.metadata {
            view.set_metadata(offset, metadata);
        }
    }
    let all: Vec<u32> = view.live().iter().collect();
    let mut used = std::collections::HashMap::new();
    for round in 0..6 {
        for shape in shapes() {
            let covered: Vec<u32> = match round % 3 {
                0 => all.clone(),
                1 => all.iter().copied().filter(|_| rng.bool()).collect(),
                _ => all.iter().copied().filter(|offset| *offset < 3000).collect(),
            };
            build(&mut view, &shape, &covered, rng.usize(500..7000));
        }
        // Records change and go after the indexes were made.
        for _ in 0..300 {
            let (to, from) = (rng.usize(0..6000), rng.usize(0..6000));
            let metadata = oracle.records[from].metadata.clone();
            view.set_metadata(to as u32, metadata.as_ref().unwrap_or(&Metadata::default()));
            oracle.records[to].metadata = metadata;
        }
        for number in 0..600 {
            let mut filter = generator.filter(3);
            if number % 2 == 0 {
                // Conjunctions of what is there, so that something is found.
                let record = &oracle.records[rng.usize(0..6000)];
                let tests = record.metadata.iter().flat_map(Metadata::iter).map(|(key, value)| {
                    let test = match value {
                        _ if rng.u8(0..25) == 0 => Test::Exists,
                        Value::Ints(list) if rng.bool() => {
                            Test::ContainsAny(vec![Scalar::Int(list[0]), Scalar::Int(77)])
                        }
                        Value::Bool(b) => Test::Eq(Scalar::Bool(*b)),
                        Value::Int(i) if rng.bool() => Test::Compare(Test::GREATER_OR_EQUAL, Scalar::Int(*i)),
                        Value::Int(i) => Test::Eq(Scalar::Int(*i)),
                        Value::Float(f) if rng.bool() => Test::Compare(Test::LESS_OR_EQUAL, Scalar::Float(*f)),
                        Value::Float(f) => Test::In(vec![Scalar::Float(*f), Scalar::Int(3)]),
                        Value::Str(s) => Test::Eq(Scalar::Str(s.clone())),
                        Value::Ints(list) => Test::Contains(Scalar::Int(list[0])),
                        Value::Strs(list) => Test::Contains(Scalar::Str(list[0].clone())),
                        Value::Floats(list) => Test::Contains(Scalar::Float(list[0])),
                        Value::Bools(list) => Test::Contains(Scalar::Bool(list[0])),
                        Value::Sparse(_) => Test::Ne(Scalar::Int(1)),
                    };
                    Filter::Key { key: key.into(), test }
                });
                let mut tests: Vec<Filter> = tests.collect();
                let has = |key: &str| record.metadata.as_ref().is_some_and(|metadata| metadata.get(key).is_some());
                for key in ["a", "b", "c"].iter().filter(|key| !has(key) && number % 8 == 0) {
                    tests.push(Filter::Key { key: (*key).into(), test: Test::Missing });
                }
                if rng.u8(0..2) == 0 && number % 8 != 0 {
                    tests.push(Filter::Key { key: "b".into(), test: Test::Eq(Scalar::Int(1)) });
                }
                filter = Filter::All(tests);
            }
            let expected: Vec<u32> = (0u32..)
                .zip(&oracle.records)
                .filter(|(_, record)| filter_matches(&filter, record))
                .map(|(offset, _)| offset)
                .collect();
            let names = shapes().into_iter().map(|shape| Some(shape.name.clone()));
            for use_index in names.chain([None]) {
                let hints = Hints { use_index: use_index.clone(), ..Hints::default() };
                let mut trace = Trace::default();
                let found =
                    evaluate_with(&filter, &view, view.live(), &mut Records(&oracle.records), &hints, &mut trace);
                let found: Vec<u32> = found.unwrap().iter().collect();
                assert_eq!(found, expected, "{use_index:?} {filter:?}");
                for considered in trace.considered.iter().filter(|considered| considered.reason == Reason::Used) {
                    *used.entry(considered.index.clone()).or_insert(0) += usize::from(!found.is_empty());
                }
            }
        }
        for index in view.indexes() {
            let (compared, wrong) = view.verify_index(index, &mut |_| false);
            assert_eq!(wrong, 0, "{} of {compared} in {}", wrong, index.shape().name);
        }
    }
    for shape in shapes() {
        let times = used.get(&shape.name).copied().unwrap_or(0);
        assert!(times > 5 || shape.name == "ints", "{} found something {times} times: {used:?}", shape.name);
    }
}

/// Records with a year, a genre, and a note that only some have.
fn films(count: u32) -> View {
    let mut view = View::new(Space::L2);
    for offset in 0..count {
        view.set_vector(offset, u64::from(offset) + 1, None);
        let genre = Value::Str(
            ["drama", "comedy", "crime", "rare"][if offset % 500 == 0 { 3 } else { offset as usize % 3 }].into(),
        );
        let mut metadata =
            Metadata::from_iter([("year", Value::Int(1900 + i64::from(offset) % 120)), ("genre", genre)]);
        if offset % 1000 == 7 {
            metadata.set("note".into(), Some(Value::Str("seen".into())));
        }
        view.set_metadata(offset, &metadata);
    }
    view
}

#[test]
fn the_reason_for_using_an_index_or_not_is_told() {
    let mut view = films(20_000);
    let all: Vec<u32> = view.live().iter().collect();
    let key = |key: &str| IndexColumn::Key(key.into());
    build(&mut view, &shape("genre year", vec![key("genre"), key("year")], vec![]), &all, 7000);
    build(&mut view, &shape("year genre", vec![key("year"), key("genre")], vec![]), &all, 7000);
    let is = |key: &str, test: Test| Filter::Key { key: key.into(), test };
    let genre = |genre: &str| is("genre", Test::Eq(Scalar::Str(genre.into())));
    let from = |year: i64| is("year", Test::Compare(Test::GREATER_OR_EQUAL, Scalar::Int(year)));
    let check = |filter: Filter, hints: Hints| {
        let mut trace = Trace::default();
        let found = evaluate_with(&filter, &view, view.live(), &mut Records(&[]), &hints, &mut trace).unwrap();
        let of = |name: &str| trace.considered.iter().find(|considered| considered.index == name).cloned();
        (found.len(), trace.examined, of("genre year").unwrap(), of("year genre").unwrap())
    };
    // Equality first, then a range: both columns. A range first: only that.
    let (found, examined, first, second) = check(Filter::All(vec![from(2019), genre("rare")]), Hints::default());
    assert_eq!((first.reason, first.columns), (Reason::Used, vec!["genre".into(), "year (range)".into()]));
    assert_eq!((second.reason, second.columns), (Reason::OtherIsCheaper, vec!["year (range)".into()]));
    assert!(found == 0 && examined == 0, "{found} found by looking at {examined}");
    let (found, examined, first, second) = check(genre("rare"), Hints::default());
    assert_eq!((first.reason, first.columns, found), (Reason::Used, vec!["genre".into()], 40));
    assert_eq!((second.reason, examined), (Reason::PrefixMissing(true), 40));
    // Most records pass: columns are faster.
    assert_eq!(check(genre("drama"), Hints::default()).2.reason, Reason::ScanIsCheaper);
    let forced = Hints { use_index: Some("genre year".into()), ..Hints::default() };
    assert_eq!(check(genre("drama"), forced).2.reason, Reason::Used);
    let ignored = Hints { ignore_indexes: vec!["*".into()], ..Hints::default() };
    assert_eq!(check(genre("rare"), ignored).2.reason, Reason::Ignored);
    assert_eq!(check(is("note", Test::Eq(Scalar::Int(1))), Hints::default()).2.reason, Reason::PrefixMissing(false));
    let not = is("genre", Test::Ne(Scalar::Str("rare".into())));
    assert_eq!(check(not, Hints::default()).2.reason, Reason::NotByIndex);
    let note = shape("note", vec![key("note")], vec![]);
    let what_if = Hints { hypothetical: vec![note], ..Hints::default() };
    let mut trace = Trace::default();
    let filter = is("note", Test::Eq(Scalar::Str("seen".into())));
    let found = evaluate_with(&filter, &view, view.live(), &mut Records(&[]), &what_if, &mut trace).unwrap();
    let considered = trace.considered.last().unwrap();
    assert_eq!((found.len(), considered.reason), (20, Reason::Hypothetical));
    assert!(considered.estimated > 0, "guessed from counts");
    // Only one branch is answered by an index: what that expects says nothing of the whole.
    let either = Filter::Any(vec![genre("rare"), is("note", Test::Eq(Scalar::Str("seen".into())))]);
    let mut trace = Trace::default();
    evaluate_with(&either, &view, view.live(), &mut Records(&[]), &Hints::default(), &mut trace).unwrap();
    assert!(trace.estimated.is_none() && trace.coverage.is_some() && trace.by_column, "{trace:?}");
    // More values than are looked up.
    let many: Vec<Scalar> = (0..1001).map(|n| Scalar::Str(format!("genre {n}"))).collect();
    let named = Hints { use_index: Some("genre year".into()), ..Hints::default() };
    assert_eq!(check(is("genre", Test::In(many[1..].to_vec())), named.clone()).2.reason, Reason::Used);
    assert_eq!(check(is("genre", Test::In(many)), named).2.reason, Reason::TooManyValues);
    let (shape, generation) = (Arc::clone(view.indexes()[0].shape()), view.indexes()[0].generation());
    view.describe_index(&shape, generation, true);
    let mut trace = Trace::default();
    evaluate_with(&genre("rare"), &view, view.live(), &mut Records(&[]), &Hints::default(), &mut trace).unwrap();
    assert_eq!(trace.considered[0].reason, Reason::Hidden);
}

#[test]
fn every_key_of_a_type_answers_for_keys_that_have_no_other_numbers() {
    let mut view = films(5000);
    let all: Vec<u32> = view.live().iter().collect();
    let ints = shape("ints", vec![IndexColumn::Every(ValueType::Int)], vec![]);
    build(&mut view, &ints, &all, 5000);
    let filter = Filter::Key { key: "year".into(), test: Test::Compare(Test::GREATER, Scalar::Float(2018.5)) };
    let look = |view: &View| {
        let (hints, mut trace) = (Hints { use_index: Some("ints".into()), ..Hints::default() }, Trace::default());
        let found = evaluate_with(&filter, view, view.live(), &mut Records(&[]), &hints, &mut trace).unwrap();
        (found.len(), trace.considered[0].reason)
    };
    assert_eq!(look(&view), (41, Reason::Used));
    view.set_metadata(3, &Metadata::from_iter([("year", Value::Float(2018.75))]));
    assert_eq!(look(&view), (42, Reason::PrefixMissing(false)));
}

#[test]
fn records_with_too_many_keys_are_found_by_the_columns() {
    let mut view = films(2000);
    let long: Vec<i64> = (0..20_000).collect();
    view.set_metadata(5, &Metadata::from_iter([("tags", Value::Ints(long))]));
    view.set_metadata(6, &Metadata::from_iter([("tags", Value::Ints(vec![19_999, 19_999]))]));
    let all: Vec<u32> = view.live().iter().collect();
    build(&mut view, &shape("tags", vec![IndexColumn::Elements("tags".into())], vec![]), &all, 1000);
    assert!(!view.indexes()[0].covered().contains(5) && view.indexes()[0].covered().contains(6));
    let filter = Filter::Key { key: "tags".into(), test: Test::Contains(Scalar::Int(19_999)) };
    let (hints, mut trace) = (Hints { use_index: Some("tags".into()), ..Hints::default() }, Trace::default());
    let found = evaluate_with(&filter, &view, view.live(), &mut Records(&[]), &hints, &mut trace).unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), [5, 6]);
    assert_eq!(trace.coverage, Some((1999, 2000)));
}
