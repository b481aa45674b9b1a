//! Ranked search in documents, for queries that come as text where nothing can turn text into an embedding.
//!
//! The trigrams find the documents that have any of the words; those are read and scored by BM25 (Robertson and
//! Zaragoza, 2009, "The Probabilistic Relevance Framework"). A word of the query also finds words that begin with it.

use std::collections::HashMap;

use ochre_model::{DocumentTest, Filter};
use ochre_store::CollectionRow;
use regex::Regex;

use crate::collection::record::{Include, Record};
use crate::error::Error;
use crate::query::Queries;

/// Words of a query beyond these are not looked for.
const WORDS_MAX: usize = 32;
/// Of documents that have any of the words, so many are read and scored, those inserted first.
const SCORED_MAX: usize = 20_000;
/// BM25's parameters: how fast further occurrences count less, and how much long documents are held back.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// What an occurrence inside a word counts, where one of a whole word or its beginning counts 1.
const INSIDE: f64 = 0.3;

/// A record that a text search found.
#[derive(Clone, Debug, PartialEq)]
pub struct TextHit {
    /// The record.
    pub record: Record,
    /// How well it fits; only good for comparing hits of one search.
    pub score: f64,
}

impl Queries {
    pub(crate) fn search_text(
        &self, row: &CollectionRow, text: &str, filter: Option<&Filter>, limit: usize, include: Include,
    ) -> Result<Vec<TextHit>, Error> {
        let _request = self.monitor.enter();
        let words = words(text);
        if words.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let any = words
            .iter()
            .map(|word| {
                // In the pattern's own text, which tells the trigrams what documents need.
                let pattern = Regex::new(&format!("(?i){}", regex::escape(word)));
                pattern.map(|pattern| Filter::Document(DocumentTest::Matches(pattern)))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::invalid(format!("the text cannot be searched for: {error}")))?;
        let any = Filter::Any(any);
        self.check_filterable(row, &any)?;
        let all = match filter {
            Some(filter) => {
                self.check_filterable(row, filter)?;
                Filter::All(vec![filter.clone(), any])
            }
            None => any,
        };
        let snapshot = self.collections.snapshot(row)?;
        let matches = snapshot.matches(None, Some(&all))?.unwrap_or_default();
        let offsets: Vec<u32> = matches.iter().take(SCORED_MAX).collect();
        let mut found: Vec<Scored> = Vec::with_capacity(offsets.len());
        snapshot.reader.documents(snapshot.number, &offsets, &mut |offset, document| {
            found.push(Scored::new(offset, document, &words));
        })?;
        let documents = snapshot.view.with_document().len();
        rank(&mut found, words.len(), documents);
        found.truncate(limit);
        let mut offsets: Vec<u32> = found.iter().map(|hit| hit.offset).collect();
        offsets.sort_unstable();
        let mut records = HashMap::with_capacity(offsets.len());
        snapshot.fetch(&offsets, include, &mut |offset, record| drop(records.insert(offset, record)))?;
        let hits = found
            .into_iter()
            .filter_map(|hit| Some(TextHit { record: records.remove(&hit.offset)?, score: hit.score }));
        Ok(hits.collect())
    }
}

/// The different words of a text, in lower case.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.truncate(WORDS_MAX);
    words
}

/// A document with how often it has each word of the query.
struct Scored {
    offset: u32,
    frequencies: Vec<f64>,
    length: f64,
    score: f64,
}

impl Scored {
    fn new(offset: u32, document: &str, words: &[String]) -> Self {
        let mut scored = Self { offset, frequencies: vec![0.0; words.len()], length: 0.0, score: 0.0 };
        let document = document.to_lowercase();
        for found in document.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            scored.length += 1.0;
            for (frequency, word) in scored.frequencies.iter_mut().zip(words) {
                if found.starts_with(word.as_str()) {
                    *frequency += 1.0;
                } else if found.contains(word.as_str()) {
                    *frequency += INSIDE;
                }
            }
        }
        scored
    }
}

/// Scores the documents that have any of the words, best first; ties by insertion order.
#[expect(clippy::cast_precision_loss, reason = "counts of documents are below 2³²")]
fn rank(found: &mut [Scored], words: usize, documents: usize) {
    let mean = found.iter().map(|scored| scored.length).sum::<f64>() / (found.len().max(1) as f64);
    let rarity: Vec<f64> = (0..words)
        .map(|word| {
            let having = found.iter().filter(|scored| scored.frequencies[word] > 0.0).count() as f64;
            (1.0 + (documents as f64 - having + 0.5).max(0.0) / (having + 0.5)).ln()
        })
        .collect();
    for scored in found.iter_mut() {
        let weight = K1 * (1.0 - B + B * scored.length / mean.max(1.0));
        let parts = scored.frequencies.iter().zip(&rarity);
        scored.score = parts.map(|(frequency, rarity)| rarity * frequency * (K1 + 1.0) / (frequency + weight)).sum();
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.offset.cmp(&b.offset)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which documents come, in their order.
    fn check(query: &str, documents: &[&str], expected: &[u32]) {
        let words = words(query);
        let mut found: Vec<Scored> =
            (0..).zip(documents).map(|(offset, document)| Scored::new(offset, document, &words)).collect();
        rank(&mut found, words.len(), 100);
        assert_eq!(found.iter().map(|scored| scored.offset).collect::<Vec<_>>(), expected, "{query}");
    }

    #[test]
    fn rare_words_frequent_words_and_short_documents_count_more() {
        check("red apple", &["a red thing", "a red apple", "red red red things that go on and on"], &[1, 2, 0]);
        check("apple", &["pineapple", "apples and pears"], &[1, 0]);
        check("Äpfel", &["äpfel und birnen", "Birnen"], &[0, 1]);
    }
}
