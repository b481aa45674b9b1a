//! Which index answers which part of a filter, and why the others do not.

use std::ops::Range;

use ochre_model::{Filter, Scalar, Test, ValueType};

use super::key::{any_value, beginning_with, number_range, push_element, push_missing, push_name, push_operand};
use super::{CompositeIndex, CompositeSegment, IndexColumn, IndexShape};
use crate::bitmap::Bitmap;
use crate::evaluate::{Hints, flatten};
use crate::view::View;

/// A lookup has at most so many ranges of keys: lists of operands multiply. [`Reason::TooManyValues`] says it too.
const RANGES_MAX: usize = 1000;
/// Finding a record in an index takes about as long as testing so many values of a column.
const ENTRY_COST: usize = 8;
/// Testing a record that an index does not show takes as long as testing up to so many, since others are beside it.
const OUTSIDE_COST: usize = 64;
/// Finding where a range begins and ends takes about as long as testing so many values.
const RANGE_COST: usize = 200;

/// What became of an index when a filter was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The index.
    pub index: String,
    /// Which of its columns the filter can use, in their order.
    pub columns: Vec<String>,
    /// Entries in the ranges of keys, and records that changed since: no fewer than match. Of one that does not exist a
    /// guess from counts.
    pub estimated: usize,
    /// Why it is used, or is not.
    pub reason: Reason,
}

/// Why an index is used, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Reason {
    Used,
    Building,
    Hidden,
    Ignored,
    /// The filter does not name the first column; whether it names another.
    PrefixMissing(bool),
    /// It names the first column by a test that no index answers, or with an operand that none has.
    NotByIndex,
    TooManyValues,
    PartialFilter,
    ScanIsCheaper,
    OtherIsCheaper,
    Hypothetical,
}

impl Reason {
    /// The reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Building => "it is being built",
            Self::Hidden => "it is hidden",
            Self::Ignored => "the request ignores it",
            Self::PrefixMissing(true) => "prefix missing: the filter names a later column, but not the first",
            Self::PrefixMissing(false) => "the filter names none of its columns",
            Self::NotByIndex => "the test on its first column is answered by no index",
            Self::TooManyValues => {
                "the filter names more values of its first column than are looked up in an index: 1,000"
            }
            Self::PartialFilter => "the filter does not imply the filter of the index",
            Self::ScanIsCheaper => "scanning the columns is cheaper",
            Self::OtherIsCheaper => "another index is cheaper",
            Self::Hypothetical => "it would be used if it existed",
        }
    }
}

/// A part of a filter that an index answers.
pub(crate) struct Choice<'a> {
    pub(crate) index: &'a CompositeIndex,
    /// Which parts of the conjunction it answers.
    pub(crate) answered: Vec<usize>,
    /// Of each segment the entries to look at.
    spans: Vec<Vec<Range<usize>>>,
    estimated: usize,
}

/// What a filter can use of an index: parts that are answered, column names, and ranges of keys.
struct Fit {
    answered: Vec<usize>,
    columns: Vec<String>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Choice<'a> {
    /// The cheapest way to answer some of these tests, all of which have to hold, by an index; `None` if scanning
    /// `candidates` is cheaper.
    pub(crate) fn of(
        parts: &[&Filter], view: &'a View, candidates: &Bitmap, hints: &Hints, considered: &mut Vec<Considered>,
    ) -> Option<Self> {
        let mut note = |index: &str, columns: &[String], estimated, reason| {
            if hints.is_quiet && reason != Reason::Used {
                return;
            }
            let columns = columns.to_vec();
            let new = Considered { index: index.to_owned(), columns, estimated, reason };
            match considered.iter_mut().find(|old| old.index == new.index) {
                // Of several parts of a filter the one that uses the index is told.
                Some(old) if old.reason == Reason::Used || reason != Reason::Used => {}
                Some(old) => *old = new,
                None => considered.push(new),
            }
        };
        let mut best: Option<(usize, Self, Vec<String>)> = None;
        for index in &view.indexes {
            let name = index.shape.name.as_str();
            let fit = match Fit::of(&index.shape, parts, view) {
                Ok(fit) => fit,
                Err(reason) => {
                    note(name, &[], 0, reason);
                    continue;
                }
            };
            if let Some(reason) = refusal(index, hints) {
                note(name, &fit.columns, 0, reason);
                continue;
            }
            let is_wanted = hints.use_index.as_deref() == Some(name);
            let searches = (fit.ranges.len() * index.segments().len()).saturating_mul(RANGE_COST);
            // Each test but the first sees what the ones before it left.
            let scan = candidates.len() + (fit.answered.len() - 1) * candidates.len() / 4;
            if searches >= scan && !is_wanted {
                note(name, &fit.columns, 0, Reason::ScanIsCheaper);
                continue;
            }
            let spans = fit.spans(index);
            let entries: usize = spans.iter().flatten().map(Range::len).sum();
            let outside = view.live().len().saturating_sub(index.covered().len());
            // A few here and there cost whole chunks of columns.
            let besides = outside.saturating_mul(OUTSIDE_COST).min(view.live().len());
            let cost = entries * ENTRY_COST + searches + besides;
            if cost >= scan && !is_wanted {
                note(name, &fit.columns, entries + outside, Reason::ScanIsCheaper);
                continue;
            }
            let choice = Self { index, answered: fit.answered, spans, estimated: entries + outside };
            // More answered at the same cost leaves less to test.
            let rank = if is_wanted { 0 } else { cost + 1 };
            let is_better = best.as_ref().is_none_or(|(other, chosen, _)| {
                (rank, usize::MAX - choice.answered.len()) < (*other, usize::MAX - chosen.answered.len())
            });
            if is_better {
                if let Some((_, other, columns)) = best.replace((rank, choice, fit.columns)) {
                    note(&other.index.shape.name, &columns, other.estimated, Reason::OtherIsCheaper);
                }
            } else {
                note(name, &fit.columns, choice.estimated, Reason::OtherIsCheaper);
            }
        }
        for shape in &hints.hypothetical {
            match Fit::of(shape, parts, view) {
                Ok(fit) => {
                    let estimated = view.estimate(fit.answered.iter().map(|number| parts[*number]));
                    note(&shape.name, &fit.columns, estimated, Reason::Hypothetical);
                }
                Err(reason) => note(&shape.name, &[], 0, reason),
            }
        }
        let (_, choice, columns) = best?;
        note(&choice.index.shape.name, &columns, choice.estimated, Reason::Used);
        Some(choice)
    }

    /// Entries in the ranges, and records that the index does not show.
    pub(crate) fn estimated(&self) -> usize {
        self.estimated
    }

    /// Entries in the ranges.
    pub(crate) fn entries(&self) -> usize {
        self.spans.iter().flatten().map(Range::len).sum()
    }

    /// The candidates that the index says pass; what it does not show is not among them.
    pub(crate) fn look_up(&self, candidates: &Bitmap) -> Bitmap {
        let mut found = Bitmap::new();
        for ((segment, current), spans) in self.index.segments().iter().zip(&self.spans) {
            for entry in spans.iter().flat_map(Clone::clone) {
                let offset = segment.offset(entry);
                if current.contains(offset) && candidates.contains(offset) {
                    found.insert(offset);
                }
            }
        }
        found
    }
}

/// Whether an index that serves can narrow down what passes a filter, whether or not scanning would be cheaper. True
/// for filters without a test of metadata: documents and ids are looked up in other ways.
pub fn is_answerable(filter: &Filter, view: &View, hints: &Hints) -> bool {
    let mut tests_metadata = false;
    filter.for_each_leaf(&mut |leaf| tests_metadata |= matches!(leaf, Filter::Key { .. }));
    !tests_metadata || is_narrowed(filter, view, hints)
}

fn is_narrowed(filter: &Filter, view: &View, hints: &Hints) -> bool {
    let by_index = |parts: &[&Filter]| {
        let mut serving = view.indexes.iter().filter(|index| {
            let (name, wanted) = (index.shape.name.as_str(), hints.use_index.as_deref());
            index.is_ready && !hints.ignores(name) && (!index.is_hidden || wanted == Some(name))
        });
        serving.any(|index| Fit::of(&index.shape, parts, view).is_ok())
    };
    match filter {
        Filter::All(_) => {
            let mut parts = Vec::new();
            flatten(filter, &mut parts);
            // A test of documents is cheap only where something else leaves few of them; to leave ids out leaves many.
            let others = || parts.iter().filter(|part| matches!(part, Filter::Any(_) | Filter::Ids(_)));
            parts.is_empty() || by_index(&parts) || others().any(|part| is_narrowed(part, view, hints))
        }
        Filter::Any(parts) => parts.iter().all(|part| is_answerable(part, view, hints)),
        Filter::Key { .. } => by_index(&[filter]),
        Filter::Document(_) | Filter::Ids(_) | Filter::NotIds(_) => true,
    }
}

/// Why an index is not used whatever it would cost.
fn refusal(index: &CompositeIndex, hints: &Hints) -> Option<Reason> {
    let name = index.shape.name.as_str();
    if !index.is_ready {
        Some(Reason::Building)
    } else if hints.ignores(name) {
        Some(Reason::Ignored)
    } else if index.is_hidden && hints.use_index.as_deref() != Some(name) {
        Some(Reason::Hidden)
    } else {
        None
    }
}

impl Fit {
    /// Where the ranges of keys lie in each segment.
    fn spans(&self, index: &CompositeIndex) -> Vec<Vec<Range<usize>>> {
        let of_segment = |segment: &CompositeSegment| {
            let spans = self.ranges.iter().map(|(low, high)| segment.span(low, high));
            spans.filter(|span| !span.is_empty()).collect()
        };
        index.segments().iter().map(|(segment, _)| of_segment(segment)).collect()
    }

    fn of(shape: &IndexShape, parts: &[&Filter], view: &View) -> Result<Self, Reason> {
        let tests = || {
            parts.iter().enumerate().filter_map(|(number, part)| match part {
                Filter::Key { key, test } => Some((number, key.as_str(), test)),
                _ => None,
            })
        };
        let is_in = |partial: &Filter| match partial {
            Filter::Key { key, test } => tests().any(|(_, other, given)| other == key && given == test),
            _ => false,
        };
        if !shape.partial.iter().all(is_in) {
            return Err(Reason::PartialFilter);
        }
        let mut fit = Self { answered: Vec::new(), columns: Vec::new(), ranges: Vec::new() };
        let mut prefixes = vec![Vec::new()];
        let mut ranges = None;
        for (place, column) in shape.columns.iter().enumerate() {
            let fitting = || tests().filter(|(_, key, test)| names(column, key, test, view));
            // Equality first: it lets the next column be used as well.
            let equal = fitting().find_map(|(number, key, test)| {
                let operands = operands(column, test)?;
                let next = extended(
                    &prefixes,
                    column,
                    key,
                    operands,
                    matches!(test, Test::Contains(_) | Test::ContainsAny(_)),
                )?;
                Some((number, key, next))
            });
            if let Some((number, key, next)) = equal {
                fit.answered.push(number);
                fit.columns.push(key.to_owned());
                prefixes = next;
                continue;
            }
            // Records without a value under the first column are not in the index.
            let mut missing = fitting().filter(|(_, _, test)| place > 0 && matches!(test, Test::Missing));
            if let Some((number, key, _)) = missing.next() {
                fit.answered.push(number);
                fit.columns.push(key.to_owned());
                prefixes.iter_mut().for_each(push_missing);
                continue;
            }
            let mut compared: Vec<(usize, &str, &Test)> =
                fitting().filter(|(_, _, test)| matches!(test, Test::Compare(..))).collect();
            if let Some((_, first, _)) = compared.first().copied() {
                compared.retain(|(_, key, _)| *key == first);
                ranges = prefixes.iter().map(|prefix| bounded(prefix, column, &compared)).collect::<Option<Vec<_>>>();
                if ranges.is_some() {
                    fit.answered.extend(compared.iter().map(|(number, _, _)| *number));
                    fit.columns.push(format!("{first} (range)"));
                }
            } else if let Some((number, key, _)) = fitting().find(|(_, _, test)| matches!(test, Test::Exists)) {
                ranges = Some(prefixes.iter().map(|prefix| any_value(prefix)).collect());
                fit.answered.push(number);
                fit.columns.push(format!("{key} (any value)"));
            }
            break;
        }
        if fit.answered.is_empty() {
            return Err(unfit(shape, parts, view));
        }
        // What the index is restricted to is answered by being in it.
        let implied = tests().filter(|(_, key, test)| {
            shape
                .partial
                .iter()
                .any(|partial| matches!(partial, Filter::Key { key: own, test: same } if own == key && same == *test))
        });
        fit.answered.extend(implied.map(|(number, _, _)| number));
        fit.answered.sort_unstable();
        fit.answered.dedup();
        fit.ranges = ranges.unwrap_or_else(|| prefixes.into_iter().map(beginning_with).collect());
        Ok(fit)
    }
}

/// Why an index answers none of these tests.
fn unfit(shape: &IndexShape, parts: &[&Filter], view: &View) -> Reason {
    let tests = || {
        parts.iter().filter_map(|part| match part {
            Filter::Key { key, test } => Some((key.as_str(), test)),
            _ => None,
        })
    };
    let names_column = |column: &IndexColumn| {
        tests().any(|(key, _)| matches!(column, IndexColumn::Key(own) | IndexColumn::Elements(own) if own == key))
    };
    let has_many = |column: &IndexColumn| {
        tests().any(|(key, test)| {
            names(column, key, test, view) && operands(column, test).is_some_and(|operands| operands.len() > RANGES_MAX)
        })
    };
    let first = shape.columns.first();
    if first.is_some_and(has_many) {
        Reason::TooManyValues
    } else if first.is_some_and(names_column) {
        Reason::NotByIndex
    } else {
        Reason::PrefixMissing(shape.columns.iter().any(names_column))
    }
}

/// Whether a column of an index has all values that this test could find under a key.
fn names(column: &IndexColumn, key: &str, test: &Test, view: &View) -> bool {
    match column {
        IndexColumn::Key(own) | IndexColumn::Elements(own) => own == key,
        IndexColumn::Every(ty) => {
            let fits = |operand: &Scalar| match (operand, ty) {
                (Scalar::Bool(_), ValueType::Bool) | (Scalar::Str(_), ValueType::Str) => true,
                (Scalar::Int(_) | Scalar::Float(_), ValueType::Int | ValueType::Float) => {
                    // Integers and floats compare, and the column has only one of them.
                    let other = if *ty == ValueType::Int { ValueType::Float } else { ValueType::Int };
                    view.column(key).is_none_or(|column| column.counts()[other as usize] == 0)
                }
                _ => false,
            };
            match test {
                Test::Eq(operand) | Test::Compare(_, operand) => fits(operand),
                Test::In(list) => list.iter().all(fits),
                _ => false,
            }
        }
    }
}

/// The operands of which the value has to equal one.
fn operands<'t>(column: &IndexColumn, test: &'t Test) -> Option<&'t [Scalar]> {
    match (test, column) {
        (Test::Eq(operand), _) | (Test::Contains(operand), IndexColumn::Elements(_)) => {
            Some(std::slice::from_ref(operand))
        }
        (Test::In(list), _) | (Test::ContainsAny(list), IndexColumn::Elements(_)) => Some(list),
        _ => None,
    }
}

/// Every prefix followed by every operand; `None` if those are too many, or one is in no index.
fn extended(
    prefixes: &[Vec<u8>], column: &IndexColumn, key: &str, operands: &[Scalar], is_element: bool,
) -> Option<Vec<Vec<u8>>> {
    if prefixes.len().saturating_mul(operands.len()) > RANGES_MAX {
        return None;
    }
    let mut next = Vec::with_capacity(prefixes.len() * operands.len());
    for operand in operands {
        let mut end = Vec::new();
        if matches!(column, IndexColumn::Every(_)) {
            push_name(&mut end, key);
        }
        let is_known = if is_element { push_element(&mut end, operand) } else { push_operand(&mut end, operand) };
        if !is_known {
            return None;
        }
        next.extend(prefixes.iter().map(|prefix| [prefix.as_slice(), &end].concat()));
    }
    Some(next)
}

/// The keys after a prefix that are in all of these ranges.
fn bounded(prefix: &[u8], column: &IndexColumn, compared: &[(usize, &str, &Test)]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut prefix = prefix.to_vec();
    if let (IndexColumn::Every(_), Some((_, key, _))) = (column, compared.first()) {
        push_name(&mut prefix, key);
    }
    let mut range: Option<(Vec<u8>, Vec<u8>)> = None;
    for (_, _, test) in compared {
        let Test::Compare(orders, operand) = test else { continue };
        let (low, high) = number_range(&prefix, orders, operand)?;
        range = Some(match range {
            None => (low, high),
            Some((lowest, highest)) => (low.max(lowest), high.min(highest)),
        });
    }
    range.map(|(low, high)| if low < high { (low, high) } else { (high.clone(), high) })
}
