//! Scored sets of records, and rank expressions over them: whole sets are combined, never one record at a time.

use std::cmp::Ordering;

use ochre_model::budget::{self, Exceeded};
use ochre_model::{Knn, Rank};

/// The scores of records.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Records with a score of their own, by ascending offset.
    scored: Vec<(u32, f32)>,
    /// The score of every other record, if those have one.
    default: Option<f32>,
}

impl Scores {
    /// The same score for every record.
    pub fn constant(score: f32) -> Self {
        Self { scored: Vec::new(), default: Some(score) }
    }

    /// Scores of some records, each of which is there once, and of all others.
    pub fn new(scored: impl IntoIterator<Item = (u32, f32)>, default: Option<f32>) -> Self {
        let mut scored: Vec<_> = scored.into_iter().collect();
        scored.sort_unstable_by_key(|(offset, _)| *offset);
        Self { scored, default }
    }

    fn map(mut self, op: fn(f32) -> f32) -> Self {
        self.scored.iter_mut().for_each(|(_, score)| *score = op(*score));
        self.default = self.default.map(op);
        self
    }

    /// Both combined; a record that one of them has no score for has none.
    fn combine(mut self, other: &Self, op: fn(f32, f32) -> f32) -> Self {
        if let (true, Some(constant)) = (other.scored.is_empty(), other.default) {
            self.scored.iter_mut().for_each(|(_, score)| *score = op(*score, constant));
            self.default = self.default.map(|score| op(score, constant));
            return self;
        }
        let mut scored = Vec::with_capacity(self.scored.len().max(other.scored.len()));
        let (mut left, mut right) = (self.scored.iter().peekable(), other.scored.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let a = if order.is_le() { left.next() } else { None };
            let b = if order.is_ge() { right.next() } else { None };
            let offset = a.or(b).map(|(offset, _)| *offset);
            let score = |own: Option<&(u32, f32)>, default| own.map(|(_, score)| *score).or(default);
            if let (Some(offset), Some(a), Some(b)) = (offset, score(a, self.default), score(b, other.default)) {
                scored.push((offset, op(a, b)));
            }
        }
        let default = self.default.zip(other.default).map(|(a, b)| op(a, b));
        Self { scored, default }
    }

    /// How many records have a score of their own.
    pub fn len(&self) -> usize {
        self.scored.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.scored.is_empty()
    }

    /// The score that a record without one of its own has.
    pub fn default_score(&self) -> Option<f32> {
        self.default
    }

    /// The records with a score of their own, best first: lowest scores first, ties by offset; what is not a number
    /// comes last.
    pub fn into_sorted(self) -> Vec<(u32, f32)> {
        let mut scored = self.scored;
        scored.sort_unstable_by(|a, b| order_scores(a.1, b.1).then(a.0.cmp(&b.0)));
        scored
    }
}

/// Orders scores from best to worst; what is not a number comes last.
pub fn order_scores(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The scores that an expression gives, asking `find` for what each [`Knn`] finds, in the order they are written in.
///
/// # Errors
/// Whatever `find` fails with; [`Exceeded`] if the request may not go on.
pub fn evaluate_rank<E: From<Exceeded>>(
    rank: &Rank, find: &mut impl FnMut(&Knn) -> Result<Scores, E>,
) -> Result<Scores, E> {
    budget::check()?;
    match rank {
        Rank::Value(value) => Ok(Scores::constant(*value)),
        Rank::Knn(knn) => find(knn),
        Rank::Sum(parts) => fold(parts, |a, b| a + b, find),
        Rank::Product(parts) => fold(parts, |a, b| a * b, find),
        Rank::Max(parts) => fold(parts, f32::max, find),
        Rank::Min(parts) => fold(parts, f32::min, find),
        Rank::Difference(parts) => fold(&**parts, |a, b| a - b, find),
        Rank::Quotient(parts) => fold(&**parts, |a, b| a / b, find),
        Rank::Abs(part) => evaluate_rank(part, find).map(|scores| scores.map(f32::abs)),
        Rank::Exp(part) => evaluate_rank(part, find).map(|scores| scores.map(f32::exp)),
        Rank::Log(part) => evaluate_rank(part, find).map(|scores| scores.map(f32::ln)),
    }
}

fn fold<E: From<Exceeded>>(
    parts: &[Rank], op: fn(f32, f32) -> f32, find: &mut impl FnMut(&Knn) -> Result<Scores, E>,
) -> Result<Scores, E> {
    let mut all: Option<Scores> = None;
    for part in parts {
        let scores = evaluate_rank(part, find)?;
        all = Some(match all {
            Some(all) => all.combine(&scores, op),
            None => scores,
        });
    }
    Ok(all.unwrap_or(Scores { scored: Vec::new(), default: None }))
}
