//! Looks at one key: its values, the records that are not as the others, and what is to be said about them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use ochre_index::{Bitmap, TypeCounts, Values, View};
use ochre_model::budget::{self, Exceeded};
use ochre_model::{Value, ValueType};
use ochre_schema::{
    Aggregate, DeclaredKey, Format, KeyReport, KeyStatistics, MetadataSchema, Offender, ReportOptions, Warning,
    expected_types, shown_value, type_name,
};

use crate::introspect::{Against, IntrospectRequest};

/// Offending values that are told apart.
const AGGREGATES_MAX: usize = 10_000;
/// Offending values that are listed.
const AGGREGATES_LISTED: usize = 20;
/// Below this share of the majority's type a key is called mixed up rather than having a few slips.
const CONFIDENT: f64 = 0.8;

/// Feeds the values of a column into statistics, and counts them.
struct Gather<'a> {
    statistics: &'a mut KeyStatistics,
    examined: &'a mut u64,
}

impl Values for Gather<'_> {
    fn bools(&mut self, value: bool, records: u64) {
        *self.examined += records;
        self.statistics.bools(value, records);
    }

    fn int(&mut self, value: i64) {
        *self.examined += 1;
        self.statistics.int(value);
    }

    fn float(&mut self, value: f64) {
        *self.examined += 1;
        self.statistics.float(value);
    }

    fn strings(&mut self, value: &str, records: u64) {
        *self.examined += records;
        self.statistics.strings(value, records);
    }

    fn list(&mut self, value: &Value) {
        *self.examined += 1;
        self.statistics.list(value);
    }
}

/// What looking at one key takes: it can be done for several at once.
pub(super) struct KeyInspector<'a> {
    pub(super) view: &'a View,
    pub(super) request: &'a IntrospectRequest,
    pub(super) schema: Option<&'a MetadataSchema>,
    pub(super) within: &'a Bitmap,
    pub(super) looked_at: Option<&'a Bitmap>,
    pub(super) is_sample: bool,
    pub(super) deadline: Option<Instant>,
}

/// What was found out about a key.
#[derive(Default)]
pub(super) struct KeyFindings {
    pub(super) report: KeyReport,
    pub(super) format: Option<Format>,
    /// Records that are not as expected, by offset, until their ids are known.
    pub(super) offenders: Vec<(u32, Offender)>,
    /// The records that have a key which few have.
    pub(super) rare: Vec<u32>,
    pub(super) warnings: Vec<Warning>,
    pub(super) truncated: bool,
    /// How many values were read.
    pub(super) examined: u64,
}

impl KeyInspector<'_> {
    pub(super) fn key(&self, key: &str, counts: &TypeCounts) -> Result<KeyFindings, Exceeded> {
        budget::check()?;
        let mut seen = KeyFindings::default();
        let mut report = KeyReport::of_counts(key, counts, self.within.len() as u64);
        let declared = self.schema.and_then(|schema| schema.property(key));
        let is_shown = self.request.values && !declared.is_some_and(|property| property.sensitive);
        report.declared = declared.map(|property| {
            let types = property.types.iter().map(|ty| type_name(*ty)).collect();
            DeclaredKey { types, required: property.required, description: property.description.clone() }
        });
        let against = declared.filter(|_| self.request.against == Against::Declared);
        let expected = expected_types(&report, against);
        let others: Vec<ValueType> =
            ValueType::ALL.into_iter().filter(|ty| counts[*ty as usize] > 0 && !expected.contains(ty)).collect();
        report.offender_count = others.iter().map(|ty| counts[*ty as usize]).sum();
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() > deadline);
        seen.truncated = is_late && self.looked_at.is_some();
        if let Some(looked_at) = self.looked_at.filter(|_| !is_late) {
            let mut statistics = KeyStatistics::default();
            let mut gather = Gather { statistics: &mut statistics, examined: &mut seen.examined };
            self.view.visit_values(key, looked_at, &mut gather)?;
            seen.format = statistics.format(1).filter(|_| !self.is_sample);
            if !others.is_empty() {
                self.offenders(key, &others, is_shown, &mut report, &mut seen)?;
            } else if let [main, _, ..] = statistics.date_formats()[..] {
                self.misdated(key, main, is_shown, &mut report, &mut seen)?;
            }
            statistics.report(
                &mut report,
                ReportOptions { top: self.request.top, values: is_shown, quantiles: self.request.quantiles },
            );
        }
        if self.is_rare(&report) && self.looked_at.is_some() {
            let most = self.request.offenders;
            self.view.visit_typed(key, self.within, &ValueType::ALL, &mut |offset, _| {
                seen.examined += 1;
                seen.rare.push(offset);
                if seen.rare.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            seen.rare.truncate(most);
        }
        seen.warnings = self.warnings(&report, against.is_some());
        seen.report = report;
        Ok(seen)
    }

    /// Whether so few of many records have a key that it is more likely a slip.
    fn is_rare(&self, report: &KeyReport) -> bool {
        let records = self.within.len() as u64;
        records >= 100 && (report.count <= 3 || report.count.saturating_mul(1000) <= records)
    }

    /// Second pass: the records whose type is not the expected one, and their values put together.
    fn offenders(
        &self, key: &str, types: &[ValueType], is_shown: bool, report: &mut KeyReport, seen: &mut KeyFindings,
    ) -> Result<(), Exceeded> {
        let mut aggregates: HashMap<(&'static str, String), (u64, Value)> = HashMap::new();
        let (mut listed, most) = (0, self.request.offenders);
        self.view.visit_typed(key, self.within, types, &mut |offset, value| {
            seen.examined += 1;
            let ty = type_name(value.value_type());
            if listed < most {
                listed += 1;
                let value = is_shown.then(|| shown_value(&value));
                seen.offenders.push((offset, Offender { id: String::new(), value_type: ty, value, rule: None }));
            }
            if is_shown {
                let aggregate = aggregates.entry((ty, value.to_json().to_string())).or_insert((0, value));
                aggregate.0 += 1;
            }
            if aggregates.len() >= AGGREGATES_MAX || (!is_shown && listed >= most) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let mut values: Vec<Aggregate> = aggregates
            .into_iter()
            .map(|((value_type, _), (count, value))| Aggregate { value_type, value: Some(shown_value(&value)), count })
            .collect();
        values.sort_by_key(|aggregate| {
            (std::cmp::Reverse(aggregate.count), aggregate.value.as_ref().map(ToString::to_string))
        });
        values.truncate(AGGREGATES_LISTED);
        report.offending_values = values;
        Ok(())
    }

    /// Records whose date is written in another way than most.
    fn misdated(
        &self, key: &str, main: Format, is_shown: bool, report: &mut KeyReport, seen: &mut KeyFindings,
    ) -> Result<(), Exceeded> {
        let (mut listed, most) = (0, self.request.offenders);
        self.view.visit_typed(key, self.within, &[ValueType::Str], &mut |offset, value| {
            seen.examined += 1;
            let Value::Str(text) = &value else { return ControlFlow::Continue(()) };
            if Format::of(text).is_none_or(|format| format == main || !format.is_date()) {
                return ControlFlow::Continue(());
            }
            report.offender_count += 1;
            if listed < most {
                listed += 1;
                let value = is_shown.then(|| shown_value(&value));
                seen.offenders
                    .push((offset, Offender { id: String::new(), value_type: "string", value, rule: Some("format") }));
            }
            ControlFlow::Continue(())
        })
    }

    fn warnings(&self, report: &KeyReport, is_declared: bool) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let key = &report.name;
        let types = || {
            let parts: Vec<String> = report.types.iter().map(|(name, count)| format!("{count} {name}")).collect();
            parts.join(", ")
        };
        let mut add = |level, code, message| {
            warnings.push(Warning { level, key: Some(key.clone()), code, message, ids: Vec::new() });
        };
        if report.offender_count > 0
            && (report.verdict == "mixed" || is_declared)
            && !report.alerts.contains(&"mixed-date-formats")
        {
            let level = if is_declared { "error" } else { "warning" };
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = 1.0 - report.offender_count as f64 / report.count.max(1) as f64;
            let what = if is_declared {
                format!("key {key:?} has {} values of a type that is not declared: {}", report.offender_count, types())
            } else if share < CONFIDENT {
                format!("key {key:?} mixes types: {}; no type is clearly meant", types())
            } else {
                format!("key {key:?} mixes types: {}; {} is meant most likely", types(), report.majority)
            };
            add(level, "mixed-types", what);
        } else if report.verdict == "numeric" {
            add(
                "info",
                "mixed-numbers",
                format!("key {key:?} holds integers and floats: {}; filters compare them as numbers", types()),
            );
        }
        for alert in &report.alerts {
            let what = match *alert {
                "mixed-date-formats" => {
                    "holds dates in several notations, which do not sort; use one, such as 2026-01-31"
                }
                "numbers-in-strings" => "holds numbers in strings, which no range filter finds; store numbers",
                "booleans-in-strings" => "holds booleans in strings; store booleans",
                "json-in-strings" => "holds JSON in strings, which filters cannot look into; store keys of their own",
                "case-variants" => "holds values that differ only in case or blanks around them",
                "untrimmed" => "holds values with blanks around them",
                _ => continue,
            };
            let level = if matches!(*alert, "case-variants" | "untrimmed") { "info" } else { "warning" };
            add(level, alert, format!("key {key:?} {what}"));
        }
        if self.is_rare(report) {
            add(
                "info",
                "rare-key",
                format!("key {key:?} is in {} of {} records only", report.count, self.within.len()),
            );
        }
        warnings
    }
}
