//! How many records a filter lets pass, guessed from counts: for explanations and advice, where no index has looked.

use ochre_model::{Filter, Test, ValueType};

use crate::view::View;

/// The share that passes a range, where nothing is known of it.
const RANGE_SHARE: f64 = 1.0 / 3.0;
/// The share of documents that passes a search in them, where nothing is known of it.
const TEXT_SHARE: f64 = 0.1;

impl View {
    /// How many different values a key has, about: exact for strings, of other types as many as have one, at most.
    pub fn distinct(&self, key: &str) -> usize {
        let Some(column) = self.column(key) else { return 0 };
        let counts = column.counts();
        let of = |ty: ValueType| usize::try_from(counts[ty as usize]).unwrap_or(usize::MAX);
        let strings = column.dictionary().len().min(of(ValueType::Str));
        strings + of(ValueType::Int) + of(ValueType::Float) + of(ValueType::Bool).min(2)
    }

    /// How many records pass all of these filters, about, as if they and their parts had nothing to do with each other.
    pub fn estimate<'f>(&self, filters: impl IntoIterator<Item = &'f Filter>) -> usize {
        let records = self.live().len() as f64;
        let share: f64 = filters.into_iter().map(|filter| self.share(filter)).product();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let count = (share.clamp(0.0, 1.0) * records).round() as usize;
        count
    }

    fn share(&self, filter: &Filter) -> f64 {
        let records = self.live().len().max(1) as f64;
        match filter {
            Filter::All(parts) => parts.iter().map(|part| self.share(part)).product(),
            Filter::Any(parts) => 1.0 - parts.iter().map(|part| 1.0 - self.share(part)).product::<f64>(),
            Filter::Key { key, test } => {
                let Some(column) = self.column(key) else { return if test.negated().is_some() { 1.0 } else { 0.0 } };
                let counts = column.counts();
                let scalars: u64 = counts[..4].iter().sum();
                let lists: u64 = counts[4..8].iter().sum();
                let (scalars, lists) = (scalars as f64 / records, lists as f64 / records);
                let strings = counts[ValueType::Str as usize];
                let distinct = if strings > 0 { column.dictionary().len().max(1) } else { 10 };
                let each = scalars / distinct as f64;
                match test {
                    Test::Eq(_) => each,
                    Test::Ne(_) => 1.0 - each,
                    Test::In(list) => (each * list.len() as f64).min(scalars),
                    Test::NotIn(list) => 1.0 - (each * list.len() as f64).min(scalars),
                    Test::Compare(..) => scalars * RANGE_SHARE,
                    Test::Contains(_) => lists * TEXT_SHARE,
                    Test::NotContains(_) => 1.0 - lists * TEXT_SHARE,
                    Test::ContainsAll(_) => lists * TEXT_SHARE,
                    Test::ContainsAny(list) => (lists * TEXT_SHARE * list.len() as f64).min(lists),
                    Test::Prefix(_) => scalars * TEXT_SHARE,
                    Test::Size(_) => lists * RANGE_SHARE,
                    Test::Exists => counts.iter().sum::<u64>() as f64 / records,
                    Test::Missing => 1.0 - counts.iter().sum::<u64>() as f64 / records,
                }
            }
            Filter::Document(test) => {
                let share = self.with_document().len() as f64 / records * TEXT_SHARE;
                if test.is_negative() { 1.0 - share } else { share }
            }
            Filter::Ids(ids) => ids.len() as f64 / records,
            Filter::NotIds(ids) => (1.0 - ids.len() as f64 / records).max(0.0),
        }
    }
}
