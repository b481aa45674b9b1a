//! Ranked search in documents against scoring each of them: many blocks and several segments, documents that changed
//! since, some that no segment has, filters of every size.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use ochre_index::{Analyzer, Bitmap, NearestText, Rows, TextBuilder, TextHeader, TextSegment, View};
use ochre_model::{Language, Space, TextAnalyzer};
use ochre_testkit::bm25_distances;

/// Documents by offset, and how many were read.
struct Documents<'a>(&'a [Option<String>], usize);

impl Rows for Documents<'_> {
    type Error = Infallible;

    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Infallible> {
        self.1 += offsets.len();
        offsets.iter().for_each(|offset| visit(offset, self.0[offset as usize].as_deref().expect("has a document")));
        Ok(())
    }

    fn offsets(&mut self, _: &HashSet<String>) -> Result<Bitmap, Infallible> {
        unreachable!("nothing here names ids")
    }
}

/// A document of words of which few are frequent and many rare.
fn document(rng: &mut fastrand::Rng) -> Option<String> {
    let length = if rng.u8(0..50) == 0 { 400 } else { rng.usize(0..25) };
    let word = |rng: &mut fastrand::Rng| {
        let rank = (3000.0_f64).powf(rng.f64());
        format!("{}w{}", ["", "W"][rng.usize(0..2)], rank as u32)
    };
    (rng.u8(0..30) > 0).then(|| (0..length).map(|_| word(rng)).collect::<Vec<_>>().join(" "))
}

fn segment(documents: &[Option<String>], offsets: std::ops::Range<usize>, position: u64) -> Arc<TextSegment> {
    let mut builder = TextBuilder::new(Arc::new(Analyzer::new(&TextAnalyzer::default())));
    for offset in offsets {
        if let Some(text) = &documents[offset] {
            builder.add(offset as u32, text);
        }
    }
    let header = TextHeader { epoch: 1, collection: [0; 16], position };
    Arc::new(TextSegment::open(Arc::new(builder.finish(&header)), 1, [0; 16]).expect("is sound"))
}

struct Case<'a> {
    view: &'a View,
    documents: &'a [Option<String>],
    analyzer: &'a Analyzer,
    kept_bytes_max: usize,
}

impl Case<'_> {
    /// Searches, and compares; how many were found.
    fn check(&self, text: &str, k: usize, matches: Option<&Bitmap>) -> usize {
        let wanted = NearestText { analyzer: self.analyzer, text, kept_bytes_max: self.kept_bytes_max, k, matches };
        let Ok((hits, plan)) = self.view.nearest_text(&wanted, &mut Documents(self.documents, 0));
        let documents: Vec<Option<&str>> = self.documents.iter().map(Option::as_deref).collect();
        let distances = bm25_distances(text, &documents);
        let mut expected: Vec<(u32, f64)> =
            (0..).zip(distances).filter_map(|(offset, distance)| Some((offset, distance?))).collect();
        expected.retain(|(offset, _)| matches.is_none_or(|matches| matches.contains(*offset)));
        expected.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        expected.truncate(k);
        let expected: Vec<(u32, f32)> =
            expected.into_iter().map(|(offset, distance)| (offset, distance as f32)).collect();
        let found: Vec<(u32, f32)> = hits.iter().map(|hit| (hit.offset, hit.distance)).collect();
        assert_eq!(found, expected, "{text:?} k {k} of {:?}: {plan:?}", matches.map(Bitmap::len));
        found.len()
    }
}

#[test]
fn the_best_documents_are_found_exactly() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut documents: Vec<Option<String>> = (0..14_000).map(|_| document(&mut rng)).collect();
    let mut view = View::new(Space::L2);
    view.set_position(1);
    for (offset, document) in (0..).zip(&documents) {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, document.is_some(), true);
    }
    let analyzer = Analyzer::new(&TextAnalyzer::default());
    let mut found = 0;
    for round in 0..6 {
        for _ in 0..10 {
            let words = rng.usize(0..8);
            let text: Vec<String> = (0..words).map(|_| format!("w{}", (4000.0_f64).powf(rng.f64()) as u32)).collect();
            let share = *rng.choice(&[1.0, 0.5, 0.05, 0.0005]).unwrap();
            let matches: Bitmap = (0..documents.len() as u32).filter(|_| rng.f64() < share).collect();
            let k = *rng.choice(&[1, 3, 10, 1000, 100_000]).unwrap();
            let matches = rng.bool().then_some(&matches);
            // Little is kept, or much.
            let kept_bytes_max = if round % 2 == 0 { 1 << 20 } else { 1 << 30 };
            let case = Case { view: &view, documents: &documents, analyzer: &analyzer, kept_bytes_max };
            found += case.check(&text.join(" "), k, matches);
        }
        // The first rounds have no segment, the last ones several with documents that changed since.
        if round == 1 {
            view.begin_text(1);
            let new = [segment(&documents, 0..5000, 1), segment(&documents, 5000..13_500, 1)];
            assert!(view.replace_text(1, &[], &new));
        } else if round > 1 {
            for _ in 0..500 {
                let offset = rng.usize(0..documents.len());
                documents[offset] = document(&mut rng);
                view.set_document(offset as u32, documents[offset].is_some(), true);
            }
        }
    }
    assert!(found > 5000, "searches that find nothing prove nothing: {found}");
}

#[test]
fn documents_are_analyzed_once_and_again_when_they_or_the_analyzer_change() {
    let mut documents: Vec<Option<String>> = (0..500).map(|number| Some(format!("note w{number}"))).collect();
    let mut view = View::new(Space::L2);
    for offset in 0..500 {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, true, true);
    }
    let plain = Analyzer::new(&TextAnalyzer::default());
    let english = Analyzer::new(&TextAnalyzer::of(Language::English));
    let read = |view: &View, documents: &[Option<String>], analyzer: &Analyzer| {
        let mut rows = Documents(documents, 0);
        let Ok((_, left)) = view.recent_documents(analyzer, 1 << 30, &mut rows);
        assert!(left.is_empty());
        rows.1
    };
    assert_eq!((read(&view, &documents, &plain), read(&view, &documents, &plain)), (500, 0));
    let before = view.clone();
    documents[7] = Some("another".into());
    view.set_document(7, true, true);
    let old = documents.iter().map(|_| Some("old".to_owned())).collect::<Vec<_>>();
    assert_eq!((read(&view, &documents, &plain), read(&before, &old, &plain)), (1, 0));
    Case { view: &view, documents: &documents, analyzer: &plain, kept_bytes_max: 0 }.check("another w7 w8", 10, None);
    assert_eq!((read(&view, &documents, &english), read(&view, &documents, &plain)), (500, 500));
    view.begin_text(1);
    assert!(view.replace_text(1, &[], &[segment(&documents, 0..400, 0)]));
    assert_eq!(read(&view, &documents, &plain), 100);
    assert!(!view.has_other_terms(&plain) && view.has_other_terms(&english));
    assert_eq!(read(&view, &documents, &english), 500);
}

#[test]
fn views_are_copied_measured_and_searched_at_once() {
    let documents: Vec<Option<String>> = (0..50).map(|number| Some(format!("note w{number}"))).collect();
    let mut view = View::new(Space::L2);
    for offset in 0..50 {
        view.set_vector(offset, u64::from(offset) + 1, None);
        view.set_document(offset, true, true);
    }
    view.load_text(vec![(segment(&documents, 0..40, 0), (0..39).collect())]);
    let plain = Analyzer::new(&TextAnalyzer::default());
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20_000).for_each(|_| drop(view.clone())));
        scope.spawn(|| (0..20_000).for_each(|_| assert!(view.memory().text > 0)));
        scope.spawn(|| {
            let case = Case { view: &view, documents: &documents, analyzer: &plain, kept_bytes_max: 1 << 20 };
            (0..200).for_each(|_| assert_eq!(case.check("note", 100, None), 50));
        });
    });
}
