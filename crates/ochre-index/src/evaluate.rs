//! From a filter to the set of records that pass it: declared indexes first where they are cheaper, column scans
//! next, documents last, and of those only what is left and cannot be told from their trigrams.
//!
//! Means exactly what `Filter::matches` means for one record; a property test compares the two.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use memchr::memmem::Finder;
use ochre_model::{DocumentTest, Filter, Scalar, Test, Value, compare_int_float};

use crate::bitmap::{Bitmap, WORDS, Words};
use crate::column::{Chunk, Column};
use crate::composite::{Choice, Considered, IndexShape};
use crate::text::Needs;
use crate::view::View;

/// What evaluation has to ask of the store: ids and documents are not in memory.
pub trait Rows {
    /// Why the store could not answer.
    type Error;
    /// Reads the documents of these offsets.
    ///
    /// # Errors
    /// Whatever the store says.
    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Self::Error>;
    /// Asked before each part of a filter; an error ends the evaluation.
    ///
    /// # Errors
    /// Why it shall end.
    fn check_budget(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Takes memory for as long as the request lasts.
    ///
    /// # Errors
    /// Why it cannot have more.
    fn charge(&mut self, bytes: usize) -> Result<(), Self::Error> {
        let _ = bytes;
        Ok(())
    }
    /// The offsets of these ids.
    ///
    /// # Errors
    /// Whatever the store says.
    fn offsets(&mut self, ids: &HashSet<String>) -> Result<Bitmap, Self::Error>;
}

/// How indexes may be used.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Use this one wherever it can answer anything, even if it is hidden or scanning is cheaper.
    pub use_index: Option<String>,
    /// Use none of these; `*` is all.
    pub ignore_indexes: Vec<String>,
    /// Say of these what would become of them.
    pub hypothetical: Vec<Arc<IndexShape>>,
    /// Say only of those that are used that they are.
    pub is_quiet: bool,
}

impl Hints {
    pub(crate) fn ignores(&self, name: &str) -> bool {
        self.ignore_indexes.iter().any(|ignored| ignored == name || ignored == "*")
    }
}

/// What evaluating a filter took.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Entries of indexes, values of columns and documents that were looked at.
    pub examined: u64,
    /// Every index, and what became of it.
    pub considered: Vec<Considered>,
    /// How many records would pass at most, by what was looked up for the whole filter, if anything was.
    pub estimated: Option<usize>,
    /// For how many records the entries of the indexes used are up to date, of how many; nothing if none was used.
    pub coverage: Option<(usize, usize)>,
    /// Values of columns were tested.
    pub by_column: bool,
    /// The trigrams of documents were asked.
    pub by_trigram: bool,
    /// Documents were read.
    pub by_document: bool,
}

impl Trace {
    /// Notes that no more than so many records are expected to pass.
    fn expect(&mut self, count: usize) {
        self.estimated = Some(self.estimated.map_or(count, |estimated| estimated.min(count)));
    }
}

/// The records among `candidates` that pass `filter`, in the state that `view` shows.
///
/// # Errors
/// Whatever `rows` fails with.
pub fn evaluate<R: Rows>(filter: &Filter, view: &View, candidates: &Bitmap, rows: &mut R) -> Result<Bitmap, R::Error> {
    evaluate_with(filter, view, candidates, rows, &Hints::default(), &mut Trace::default())
}

/// As [`evaluate`], with hints, and saying what it took.
///
/// # Errors
/// Whatever `rows` fails with.
pub fn evaluate_with<R: Rows>(
    filter: &Filter, view: &View, candidates: &Bitmap, rows: &mut R, hints: &Hints, trace: &mut Trace,
) -> Result<Bitmap, R::Error> {
    Evaluation { view, rows, hints, trace, is_whole: true }.pass(filter, candidates)
}

/// A filter being evaluated.
struct Evaluation<'a, R> {
    view: &'a View,
    rows: &'a mut R,
    hints: &'a Hints,
    trace: &'a mut Trace,
    /// What is looked at next is the whole filter, not a part of it.
    is_whole: bool,
}

impl<R: Rows> Evaluation<'_, R> {
    fn pass(&mut self, filter: &Filter, candidates: &Bitmap) -> Result<Bitmap, R::Error> {
        let is_whole = std::mem::replace(&mut self.is_whole, false);
        self.rows.check_budget()?;
        match filter {
            Filter::All(parts) => {
                let mut open = Vec::new();
                parts.iter().for_each(|part| flatten(part, &mut open));
                self.pass_all(&open, candidates, is_whole)
            }
            Filter::Any(parts) => {
                let mut passed = Bitmap::new();
                let (cheap, dear): (Vec<_>, Vec<_>) = parts.iter().partition(|part| !part.reads_documents());
                for part in cheap.into_iter().chain(dear) {
                    // While nothing passed, nothing needs to be taken away.
                    let found = if passed.is_empty() {
                        self.pass(part, candidates)?
                    } else {
                        self.pass(part, &candidates.and_not(&passed))?
                    };
                    passed = passed.or(&found);
                }
                Ok(passed)
            }
            Filter::Key { .. } => self.pass_all(&[filter], candidates, is_whole),
            Filter::Document(test) => self.documents(test, candidates, is_whole),
            Filter::Ids(ids) => Ok(candidates.and(&self.rows.offsets(ids)?)),
            Filter::NotIds(ids) => Ok(candidates.and_not(&self.rows.offsets(ids)?)),
        }
    }

    /// What passes every part.
    fn pass_all(&mut self, parts: &[&Filter], candidates: &Bitmap, is_whole: bool) -> Result<Bitmap, R::Error> {
        let view = self.view;
        let choice = if view.indexes.is_empty() && self.hints.hypothetical.is_empty() {
            None
        } else {
            Choice::of(parts, view, candidates, self.hints, &mut self.trace.considered)
        };
        let mut left = None;
        if let Some(choice) = &choice {
            if is_whole {
                self.trace.expect(choice.estimated());
            }
            left = Some(self.look_up(choice, parts, candidates)?);
        }
        let answered = choice.map(|choice| choice.answered).unwrap_or_default();
        let open = parts.iter().enumerate().filter(|(number, _)| !answered.contains(number)).map(|(_, part)| *part);
        let (cheap, dear): (Vec<_>, Vec<_>) = open.partition(|part| !part.reads_documents());
        for part in cheap.into_iter().chain(dear) {
            let open = left.as_ref().unwrap_or(candidates);
            if open.is_empty() {
                break;
            }
            self.rows.check_budget()?;
            left = Some(match part {
                Filter::Key { key, test } => self.scan(key, test, open),
                Filter::Document(test) => self.documents(test, open, is_whole)?,
                part => self.pass(part, open)?,
            });
        }
        Ok(left.unwrap_or_else(|| candidates.clone()))
    }

    /// What passes the parts that an index answers: as it says, and of what it does not show by the columns.
    fn look_up(&mut self, choice: &Choice<'_>, parts: &[&Filter], candidates: &Bitmap) -> Result<Bitmap, R::Error> {
        let (covered, live) = (choice.index.covered(), self.view.live());
        self.trace.coverage = Some(match self.trace.coverage {
            Some((least, of)) => (least.min(covered.len()), of),
            None => (covered.len(), live.len()),
        });
        self.trace.examined += choice.entries() as u64;
        let found = choice.look_up(candidates);
        if covered.len() == live.len() {
            return Ok(found);
        }
        let mut outside = candidates.and_not(covered);
        for number in &choice.answered {
            self.rows.check_budget()?;
            if let Filter::Key { key, test } = parts[*number] {
                outside = self.scan(key, test, &outside);
            }
        }
        Ok(found.or(&outside))
    }

    /// What passes a test, by the column.
    fn scan(&mut self, key: &str, test: &Test, candidates: &Bitmap) -> Bitmap {
        self.trace.examined += candidates.len() as u64;
        self.trace.by_column = true;
        let positive = test.negated();
        let column = self.view.column(key);
        let matching =
            column.map_or_else(Bitmap::new, |column| scan(column, positive.as_ref().unwrap_or(test), candidates));
        if positive.is_some() { candidates.and_not(&matching) } else { matching }
    }

    fn documents(&mut self, test: &DocumentTest, candidates: &Bitmap, is_whole: bool) -> Result<Bitmap, R::Error> {
        let Documents { matches: mut positive, candidates: to_read, by_trigram } =
            Documents::of(test, self.view, candidates);
        self.trace.examined += to_read.len() as u64;
        self.trace.by_trigram |= by_trigram;
        self.trace.by_document |= !to_read.is_empty();
        // Trigrams say what may pass; of the others it is known.
        if is_whole && by_trigram && !test.is_negative() {
            self.trace.expect(positive.len() + to_read.len());
        }
        match test {
            // The searcher is made once for all documents.
            DocumentTest::Contains(needle) | DocumentTest::NotContains(needle) => {
                let finder = Finder::new(needle.as_bytes());
                self.rows.documents(&to_read, &mut |offset, text| {
                    if finder.find(text.as_bytes()).is_some() {
                        positive.insert(offset);
                    }
                })?;
            }
            _ => self.rows.documents(&to_read, &mut |offset, text| {
                if test.matches(Some(text)) != test.is_negative() {
                    positive.insert(offset);
                }
            })?,
        }
        Ok(if test.is_negative() { candidates.and_not(&positive) } else { positive })
    }
}

/// The parts of nested conjunctions, side by side.
pub(crate) fn flatten<'f>(filter: &'f Filter, parts: &mut Vec<&'f Filter>) {
    match filter {
        Filter::All(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        part => parts.push(part),
    }
}

/// What is known of a test of documents before any is read.
struct Documents {
    /// Those that pass, whatever their text.
    matches: Bitmap,
    /// Those that may pass: they have to be read.
    candidates: Bitmap,
    by_trigram: bool,
}

impl Documents {
    fn of(test: &DocumentTest, view: &View, candidates: &Bitmap) -> Self {
        let with_document = candidates.and(view.with_document());
        if let DocumentTest::Contains(text) | DocumentTest::NotContains(text) = test
            && text.is_empty()
        {
            // No document needs to be read to know that it contains the empty text.
            return Self { matches: with_document, candidates: Bitmap::new(), by_trigram: false };
        }
        let (needs, is_exact) = Needs::of(test);
        if needs == Needs::Anything || view.text().is_empty() {
            return Self { matches: Bitmap::new(), candidates: with_document, by_trigram: false };
        }
        // Of the documents that are indexed, those are read that have what passing takes.
        let found = view.find_text(&needs).and(&with_document);
        let outside = with_document.and_not(view.in_text());
        let (matches, candidates) = if is_exact { (found, outside) } else { (Bitmap::new(), outside.or(&found)) };
        Self { matches, candidates, by_trigram: true }
    }
}

/// With fewer candidates per chunk their values are looked up one by one.
const SPARSE: usize = 16;

/// Tests the candidates' values in a column, with a positive test.
fn scan(column: &Column, test: &Test, candidates: &Bitmap) -> Bitmap {
    let has_set = matches!(test, Test::ContainsAll(_) | Test::ContainsAny(_));
    if candidates.len() < SPARSE * candidates.chunk_count() && !has_set {
        let passes = |offset: &u32| test.matches(column.value(*offset).as_ref());
        return candidates.iter().filter(passes).collect();
    }
    let scanner = Scanner::new(column, test);
    let mut result = Bitmap::new();
    for index in 0..candidates.chunk_count() {
        let mut words: Words = [0; WORDS];
        if let (Some(candidates), Some(chunk)) = (candidates.chunk(index), column.chunk(index)) {
            scanner.scan(chunk, &mut words);
            words.iter_mut().zip(candidates).for_each(|(word, candidates)| *word &= candidates);
        }
        result.push_chunk(&words);
    }
    result
}

/// A test translated to what lanes hold: codes for strings, bounds for numbers.
enum Scanner<'a> {
    Nothing,
    Bool(bool),
    String(u32),
    Number { orders: &'static [Ordering], operand: &'a Scalar },
    Set { bools: [bool; 2], ints: HashSet<i64>, floats: HashSet<u64>, strings: CodeSet },
    ListContains(&'a Scalar),
    ListSize(&'a Test),
    ListOf(ElementSet<'a>),
    Anything,
}

/// Elements that are looked for in lists, of one type.
struct ElementSet<'a> {
    bools: HashSet<bool>,
    ints: HashSet<i64>,
    floats: HashSet<u64>,
    strings: HashSet<&'a str>,
    /// How many of them have to be in a list.
    wanted: usize,
}

impl<'a> ElementSet<'a> {
    fn new(operands: &'a [Scalar], is_all: bool) -> Self {
        let mut set = Self {
            bools: HashSet::new(),
            ints: HashSet::new(),
            floats: HashSet::new(),
            strings: HashSet::new(),
            wanted: 1,
        };
        for operand in operands {
            match operand {
                Scalar::Bool(b) => drop(set.bools.insert(*b)),
                Scalar::Int(int) => drop(set.ints.insert(*int)),
                // 0.0 and −0.0 are one number.
                Scalar::Float(float) => drop(set.floats.insert((float + 0.0).to_bits())),
                Scalar::Str(text) => drop(set.strings.insert(text)),
            }
        }
        if is_all {
            set.wanted = set.bools.len() + set.ints.len() + set.floats.len() + set.strings.len();
        }
        set
    }

    /// Whether enough of them are in a list.
    fn are_in(&self, list: &Value) -> bool {
        fn has<T: std::hash::Hash + Eq>(set: &HashSet<T>, list: impl Iterator<Item = T>, wanted: usize) -> bool {
            let mut found = list.filter(|element| set.contains(element));
            if wanted == 1 { found.next().is_some() } else { found.collect::<HashSet<T>>().len() == wanted }
        }
        match list {
            Value::Bools(list) => has(&self.bools, list.iter().copied(), self.wanted),
            Value::Ints(list) => has(&self.ints, list.iter().copied(), self.wanted),
            Value::Floats(list) => has(&self.floats, list.iter().map(|float| (float + 0.0).to_bits()), self.wanted),
            Value::Strs(list) => has(&self.strings, list.iter().map(String::as_str), self.wanted),
            _ => false,
        }
    }
}

/// A set of codes of a dictionary: a bit for each, up to the largest.
#[derive(Default)]
struct CodeSet(Vec<u64>);

impl CodeSet {
    fn insert(&mut self, code: u32) {
        let word = code as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (code % 64);
    }

    fn contains(&self, code: u32) -> bool {
        self.0.get(code as usize / 64).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }
}

impl<'a> Scanner<'a> {
    fn new(column: &Column, test: &'a Test) -> Self {
        match test {
            Test::Eq(Scalar::Bool(b)) => Self::Bool(*b),
            Test::Eq(Scalar::Str(s)) => column.dictionary().find(s).map_or(Self::Nothing, Self::String),
            Test::Eq(operand) => Self::Number { orders: &[Ordering::Equal], operand },
            Test::Compare(orders, Scalar::Str(operand)) => {
                Self::strings(column, |text| orders.contains(&text.cmp(operand)))
            }
            Test::Prefix(prefix) => Self::strings(column, |text| text.starts_with(prefix)),
            Test::ContainsAll(list) => Self::ListOf(ElementSet::new(list, true)),
            Test::ContainsAny(list) => Self::ListOf(ElementSet::new(list, false)),
            Test::Size(_) => Self::ListSize(test),
            Test::Exists => Self::Anything,
            Test::Compare(orders, operand) => Self::Number { orders, operand },
            Test::In(list) => Self::set(column, list),
            Test::Contains(operand) => Self::ListContains(operand),
            Test::Ne(_) | Test::NotIn(_) | Test::NotContains(_) | Test::Missing => Self::Nothing,
        }
    }

    /// The strings that pass, each of which is looked at once, however many records have it.
    fn strings(column: &Column, passes: impl Fn(&str) -> bool) -> Self {
        let mut strings = CodeSet::default();
        column.dictionary().each_code(&mut |code, text| {
            if passes(text) {
                strings.insert(code);
            }
        });
        Self::Set { bools: [false; 2], ints: HashSet::new(), floats: HashSet::new(), strings }
    }

    fn set(column: &Column, list: &[Scalar]) -> Self {
        let mut bools = [false; 2];
        let (mut ints, mut floats, mut strings) = (HashSet::new(), HashSet::new(), CodeSet::default());
        for operand in list {
            match operand {
                Scalar::Bool(b) => bools[usize::from(*b)] = true,
                Scalar::Str(s) => column.dictionary().find(s).into_iter().for_each(|code| strings.insert(code)),
                Scalar::Int(i) => {
                    ints.insert(*i);
                    #[expect(clippy::cast_precision_loss, reason = "checked: only kept if it is exact")]
                    let float = *i as f64;
                    if compare_int_float(*i, float) == Some(Ordering::Equal) {
                        floats.insert(float.to_bits());
                    }
                }
                Scalar::Float(f) => {
                    // 0.0 and −0.0 are one number; stored zeros are positive.
                    floats.insert((f + 0.0).to_bits());
                    #[expect(clippy::cast_possible_truncation, reason = "checked: only kept if it is exact")]
                    let int = *f as i64;
                    if compare_int_float(int, *f) == Some(Ordering::Equal) {
                        ints.insert(int);
                    }
                }
            }
        }
        Self::Set { bools, ints, floats, strings }
    }

    fn scan(&self, chunk: &Chunk, words: &mut Words) {
        match self {
            Self::Nothing => {}
            Self::Bool(b) => chunk.bools.scan(words, |v| v == *b),
            Self::String(code) => {
                chunk.strings.scan_ordered(words, &[Ordering::Equal], |v| Some(v.cmp(code)), |v| v == *code);
            }
            Self::Number { orders, operand } => scan_numbers(chunk, words, orders, operand),
            Self::Set { bools, ints, floats, strings } => {
                chunk.bools.scan(words, |v| bools[usize::from(v)]);
                chunk.ints.scan(words, |v| ints.contains(&v));
                chunk.floats.scan(words, |v| floats.contains(&v.to_bits()));
                chunk.strings.scan(words, |v| strings.contains(v));
            }
            Self::ListContains(operand) => {
                for (local, list) in &chunk.lists {
                    if contains(list, operand) {
                        words[*local as usize / 64] |= 1 << (local % 64);
                    }
                }
            }
            Self::ListSize(test) => {
                let passing = chunk.lists.iter().filter(|(_, list)| test.matches(Some(list)));
                passing.for_each(|(local, _)| words[*local as usize / 64] |= 1 << (local % 64));
            }
            Self::ListOf(set) => {
                let passing = chunk.lists.iter().filter(|(_, list)| set.are_in(list));
                passing.for_each(|(local, _)| words[*local as usize / 64] |= 1 << (local % 64));
            }
            Self::Anything => {
                chunk.bools.scan(words, |_| true);
                chunk.ints.scan(words, |_| true);
                chunk.floats.scan(words, |_| true);
                chunk.strings.scan(words, |_| true);
                chunk.lists.iter().for_each(|(local, _)| words[*local as usize / 64] |= 1 << (local % 64));
            }
        }
    }
}

fn scan_numbers(chunk: &Chunk, words: &mut Words, orders: &[Ordering], operand: &Scalar) {
    let (less, equal, greater) =
        (orders.contains(&Ordering::Less), orders.contains(&Ordering::Equal), orders.contains(&Ordering::Greater));
    match operand {
        Scalar::Int(operand) => {
            let operand = *operand;
            let test = |v| (less & (v < operand)) | (equal & (v == operand)) | (greater & (v > operand));
            chunk.ints.scan_ordered(words, orders, |v| Some(v.cmp(&operand)), test);
            let order = |v| compare_int_float(operand, v).map(Ordering::reverse);
            chunk.floats.scan_ordered(words, orders, order, |v| order(v).is_some_and(|order| orders.contains(&order)));
        }
        Scalar::Float(operand) => {
            let operand = *operand;
            let test = |v| (less & (v < operand)) | (equal & (v == operand)) | (greater & (v > operand));
            chunk.floats.scan_ordered(words, orders, |v| v.partial_cmp(&operand), test);
            let order = |v| compare_int_float(v, operand);
            chunk.ints.scan_ordered(words, orders, order, |v| order(v).is_some_and(|order| orders.contains(&order)));
        }
        Scalar::Bool(_) | Scalar::Str(_) => {}
    }
}

fn contains(list: &Value, operand: &Scalar) -> bool {
    Test::Contains(operand.clone()).matches(Some(list))
}
