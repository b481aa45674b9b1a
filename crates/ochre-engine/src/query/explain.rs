//! How a request was answered, in numbers and in a sentence.

use std::time::Duration;

use ochre_index::{Considered, Plan, Reason, Trace, View};
use ochre_model::Filter;

/// How a request was answered.
#[derive(Clone, Debug, Default)]
pub struct Explain {
    /// The declared index that answered the filter; of several the first.
    pub index: Option<String>,
    /// `index`, `trigrams`, `scan` or `none` for the filter of a get; for queries how vectors were searched: `exact`,
    /// `scan` (of codes), `graph`, `graph-then-scan`, `empty`.
    pub strategy: &'static str,
    /// How many records were expected to pass.
    pub matches_estimated: usize,
    /// How many do.
    pub matches_actual: usize,
    /// Entries of indexes, values and documents that were looked at.
    pub rows_examined: u64,
    /// The share of the records that the index used shows as they are; 0 without one. The others were looked up in
    /// the columns.
    pub coverage: f64,
    /// Every index of the collection: which of its columns the filter can use, and why it was used or not.
    pub indexes: Vec<Considered>,
    /// How long evaluating the filter took, in microseconds.
    pub filter_micros: u64,
    /// How long searching vectors took, in microseconds; 0 for a get.
    pub search_micros: u64,
    /// How each query embedding or sparse query was answered, in order.
    pub plans: Vec<Plan>,
    /// All of it in a sentence.
    pub text: String,
}

/// What was measured on the way.
pub(crate) struct Measurements<'a> {
    pub(crate) view: &'a View,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) trace: &'a Trace,
    pub(crate) matched: usize,
    pub(crate) filter_time: Duration,
    pub(crate) search_time: Duration,
    pub(crate) plans: &'a [Plan],
}

impl Explain {
    pub(crate) fn new(measurements: &Measurements<'_>) -> Self {
        let Measurements { view, filter, trace, matched, plans, .. } = *measurements;
        let used: Vec<&str> = trace
            .considered
            .iter()
            .filter(|considered| considered.reason == Reason::Used)
            .map(|considered| considered.index.as_str())
            .collect();
        let records = view.live().len();
        let estimated = match (filter, trace.estimated) {
            (None, _) => records,
            (Some(_), Some(estimated)) => estimated.min(records),
            (Some(filter), None) => view.estimate([filter]),
        };
        let strategy = match plans.first() {
            Some(plan) => plan.strategy.name(),
            None if filter.is_none() => "none",
            None if !used.is_empty() => "index",
            None if trace.by_trigram => "trigrams",
            None => "scan",
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let coverage =
            trace.coverage.map_or(0.0, |(covered, of)| if of == 0 { 1.0 } else { covered as f64 / of as f64 });
        let text = sentence(measurements, &used, estimated);
        Self {
            index: used.first().map(|name| (*name).to_owned()),
            strategy,
            matches_estimated: estimated,
            matches_actual: matched,
            rows_examined: trace.examined,
            coverage,
            indexes: trace.considered.clone(),
            filter_micros: micros(measurements.filter_time),
            search_micros: micros(measurements.search_time),
            plans: plans.to_vec(),
            text,
        }
    }
}

/// All of it in a sentence.
fn sentence(measurements: &Measurements<'_>, used: &[&str], estimated: usize) -> String {
    let Measurements { view, filter, trace, matched, plans, .. } = *measurements;
    let records = view.live().len();
    let ways: Vec<String> = [
        (!used.is_empty()).then(|| format!("used index {}", used.join(", "))),
        trace.by_trigram.then(|| "used the trigrams of documents".to_owned()),
        trace.by_column.then(|| "scanned columns".to_owned()),
        trace.by_document.then(|| "read documents".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let by = match filter {
        None => "no filter".to_owned(),
        Some(_) if ways.is_empty() => "the filter looked records up".to_owned(),
        Some(_) => format!("the filter {}", ways.join(", ")),
    };
    let search = plans.first().map_or(String::new(), |plan| format!("; the search was {}", plan.phrase()));
    format!("{by}: {matched} of {records} records pass ({estimated} estimated), {} looked at{search}", trace.examined)
}
