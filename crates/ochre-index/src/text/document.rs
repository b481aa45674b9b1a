//! A document as its terms.

use ochre_model::budget;

use super::analyzer::Analyzer;

/// Terms that are found between two questions whether the request may go on.
const TERMS_AT_ONCE: usize = 4096;

/// The different terms of a document, sorted, each with how often it is there.
#[derive(Debug)]
pub(crate) struct AnalyzedDocument {
    /// All terms, one after the other …
    text: Box<str>,
    /// … where each ends …
    ends: Box<[u32]>,
    /// … and how often it is there.
    counts: Box<[u16]>,
    /// How many words and characters the document has.
    length: u32,
}

impl AnalyzedDocument {
    /// The terms of a document.
    pub(crate) fn new(analyzer: &Analyzer, document: &str) -> Self {
        Self::while_allowed(analyzer, document, || true).expect("it is always allowed to go on")
    }

    /// The terms of a document that is searched for a request; `None` if that may not go on.
    pub(crate) fn of_request(analyzer: &Analyzer, document: &str) -> Option<Self> {
        Self::while_allowed(analyzer, document, || budget::check().is_ok())
    }

    fn while_allowed(analyzer: &Analyzer, document: &str, may_go_on: impl Fn() -> bool) -> Option<Self> {
        let (mut arena, mut ranges, mut length) = (String::new(), Vec::new(), 0_u32);
        let mut goes_on = true;
        analyzer.document_terms(document, &mut |term, is_counted| {
            let start = arena.len();
            arena.push_str(term);
            ranges.push((start, arena.len()));
            length = length.saturating_add(u32::from(is_counted));
            goes_on = ranges.len() % TERMS_AT_ONCE != 0 || may_go_on();
            goes_on
        });
        if !goes_on {
            return None;
        }
        ranges.sort_unstable_by(|a, b| arena[a.0..a.1].cmp(&arena[b.0..b.1]));
        let (mut text, mut ends, mut counts) = (String::new(), Vec::new(), Vec::<u16>::new());
        let mut last = "";
        for (start, end) in ranges {
            let term = &arena[start..end];
            if let (Some(count), true) = (counts.last_mut(), term == last) {
                *count = count.saturating_add(1);
                continue;
            }
            text.push_str(term);
            ends.push(u32::try_from(text.len()).expect("documents are far below 4 GiB"));
            counts.push(1);
            last = term;
        }
        Some(Self { text: text.into(), ends: ends.into(), counts: counts.into(), length })
    }

    /// How many words and characters it has.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// How many different terms it has.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn term(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[index] as usize]
    }

    /// The terms in their order, each with how often it is there.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (&str, u16)> {
        (0..self.len()).map(|index| (self.term(index), self.counts[index]))
    }

    /// How often a term is there; `None` if it is not.
    pub(crate) fn count(&self, term: &str) -> Option<u16> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.term(middle).cmp(term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(self.counts[middle]),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Bytes of the heap it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.ends.len() * 6
    }
}
