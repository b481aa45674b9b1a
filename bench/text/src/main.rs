//! Ranked text search in process, one thread, beside tantivy: the same terms, the ten best, nothing fetched.
//!
//!     cargo run --release -- DOCUMENTS QUERIES [ROUNDS]
//!
//! Both files have one text a line, its terms in lower case divided by spaces. Prints a JSON object: microseconds a
//! query of either, by kind of query, and the median over rounds of their ratio.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ochre_index::{Analyzer, Bitmap, NearestText, Rows, TextBuilder, TextHeader, TextSegment, View};
use ochre_model::{Space, TextAnalyzer};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{TextAnalyzer as Tokenizer, WhitespaceTokenizer};
use tantivy::{Index, IndexReader, TantivyDocument, Term};

/// How many of the best are asked for.
const K: usize = 10;
/// Every tenth document passes the filter.
const FILTERED: usize = 10;
/// The size of a builder, in bytes, at which its segment is full, as in the engine.
const SEGMENT_BYTES: usize = 64 << 20;

/// Nothing is outside segments here.
struct NoRows;

impl Rows for NoRows {
    type Error = std::convert::Infallible;

    fn documents(&mut self, _: &Bitmap, _: &mut dyn FnMut(u32, &str)) -> Result<(), Self::Error> {
        Ok(())
    }

    fn offsets(&mut self, _: &std::collections::HashSet<String>) -> Result<Bitmap, Self::Error> {
        Ok(Bitmap::new())
    }
}

struct Ochre {
    view: View,
    analyzer: Arc<Analyzer>,
    filter: Bitmap,
}

impl Ochre {
    fn new(documents: &[&str]) -> Result<Self> {
        let analyzer = Arc::new(Analyzer::new(&TextAnalyzer::default()));
        let mut view = View::new(Space::L2);
        view.set_position(1);
        let (mut segments, mut first) = (Vec::new(), 0);
        let mut builder = TextBuilder::new(Arc::clone(&analyzer));
        for (offset, document) in (0_u32..).zip(documents) {
            view.set_vector(offset, u64::from(offset) + 1, None);
            view.set_document(offset, true, true);
            builder.add(offset, document);
            if builder.heap_bytes() >= SEGMENT_BYTES || offset as usize + 1 == documents.len() {
                let header = TextHeader { epoch: 1, collection: [0; 16], position: 1 };
                let full = std::mem::replace(&mut builder, TextBuilder::new(Arc::clone(&analyzer)));
                let segment =
                    TextSegment::open(Arc::new(full.finish(&header)), 1, [0; 16]).map_err(anyhow::Error::msg)?;
                segments.push((Arc::new(segment), (first..=offset).collect()));
                first = offset + 1;
            }
        }
        eprintln!("ochre: {} segments", segments.len());
        view.load_text(segments);
        let filter = (0..documents.len() as u32).filter(|offset| *offset as usize % FILTERED == 0).collect();
        Ok(Self { view, analyzer, filter })
    }

    fn search(&self, text: &str, is_filtered: bool) -> Result<Vec<(f32, u32)>> {
        let matches = is_filtered.then_some(&self.filter);
        let wanted = NearestText { analyzer: &self.analyzer, text, kept_bytes_max: 0, k: K, matches };
        let Ok((hits, _)) = self.view.nearest_text(&wanted, &mut NoRows);
        Ok(hits.into_iter().map(|hit| (1.0 - hit.distance, hit.offset)).collect())
    }
}

struct Tantivy {
    reader: IndexReader,
    text: Field,
    flag: Field,
}

impl Tantivy {
    fn new(documents: &[&str]) -> Result<Self> {
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer("spaces").set_index_option(IndexRecordOption::WithFreqs);
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let plain = TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic);
        let flag = schema.add_text_field("flag", TextOptions::default().set_indexing_options(plain));
        let index = Index::create_in_ram(schema.build());
        index.tokenizers().register("spaces", Tokenizer::from(WhitespaceTokenizer::default()));
        let mut writer = index.writer_with_num_threads(1, 500 << 20)?;
        for (number, document) in documents.iter().enumerate() {
            let mut added = TantivyDocument::default();
            added.add_text(text, document);
            added.add_text(flag, if number % FILTERED == 0 { "1" } else { "0" });
            writer.add_document(added)?;
        }
        writer.commit()?;
        let segments = index.searchable_segment_ids()?;
        if segments.len() > 1 {
            writer.merge(&segments).wait()?;
        }
        writer.wait_merging_threads()?;
        let reader = index.reader()?;
        reader.reload()?;
        eprintln!("tantivy: {} segments", reader.searcher().segment_readers().len());
        Ok(Self { reader, text, flag })
    }

    fn search(&self, text: &str, is_filtered: bool) -> Result<Vec<(f32, u32)>> {
        let terms = text.split(' ').map(|term| {
            let term = TermQuery::new(Term::from_field_text(self.text, term), IndexRecordOption::WithFreqs);
            (Occur::Should, Box::new(term) as Box<dyn Query>)
        });
        let mut query = BooleanQuery::new(terms.collect());
        if is_filtered {
            let flag = TermQuery::new(Term::from_field_text(self.flag, "1"), IndexRecordOption::Basic);
            let flag = ConstScoreQuery::new(Box::new(flag), 0.0);
            query = BooleanQuery::new(vec![(Occur::Must, Box::new(query)), (Occur::Must, Box::new(flag))]);
        }
        let hits = self.reader.searcher().search(&query, &TopDocs::with_limit(K).order_by_score())?;
        Ok(hits.into_iter().map(|(score, address)| (score, address.doc_id)).collect())
    }
}

/// How many of the documents that one found the other found too, and how many those were.
fn overlap(ours: &[(f32, u32)], theirs: &[(f32, u32)]) -> (usize, usize) {
    let shared = ours.iter().filter(|(_, offset)| theirs.iter().any(|(_, other)| other == offset)).count();
    (shared, ours.len())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut file = |what: &str| -> Result<String> {
        let path = arguments.next().with_context(|| format!("give the file of {what}"))?;
        std::fs::read_to_string(&path).with_context(|| path.clone())
    };
    let (documents, queries) = (file("documents")?, file("queries")?);
    let rounds: usize = arguments.next().map_or(Ok(9), |rounds| rounds.parse())?;
    let documents: Vec<&str> = documents.lines().collect();
    // The kind of a query is how many terms it has.
    let mut kinds: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for query in queries.lines().filter(|query| !query.is_empty()) {
        kinds.entry(query.split(' ').count()).or_default().push(query);
    }
    let (ochre, tantivy) = (Ochre::new(&documents)?, Tantivy::new(&documents)?);
    let mut lines = Vec::new();
    for is_filtered in [false, true] {
        for (terms, queries) in &kinds {
            let time = |search: &dyn Fn(&str) -> Result<Vec<(f32, u32)>>| -> Result<f64> {
                let began = Instant::now();
                for query in queries {
                    black_box(search(query)?);
                }
                Ok(began.elapsed().as_secs_f64() * 1e6 / queries.len() as f64)
            };
            let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..=rounds {
                let own = || time(&|query| ochre.search(query, is_filtered));
                let other = || time(&|query| tantivy.search(query, is_filtered));
                let (own, other) = if round % 2 == 0 {
                    (own()?, other()?)
                } else {
                    let o = other()?;
                    (own()?, o)
                };
                // The first warms up.
                if round > 0 {
                    ours.push(own);
                    theirs.push(other);
                    ratios.push(other / own);
                }
            }
            let mut shared = (0, 0);
            for query in queries {
                let found = overlap(&ochre.search(query, is_filtered)?, &tantivy.search(query, is_filtered)?);
                shared = (shared.0 + found.0, shared.1 + found.1);
            }
            lines.push(format!(
                r#"{{"terms": {terms}, "filtered": {is_filtered}, "queries": {}, "ochre_us": {:.2}, "tantivy_us": {:.2}, "ratio": {:.3}, "shared": {:.4}}}"#,
                queries.len(),
                median(ours),
                median(theirs),
                median(ratios),
                shared.0 as f64 / shared.1.max(1) as f64,
            ));
        }
    }
    println!("[{}]", lines.join(",\n"));
    Ok(())
}
