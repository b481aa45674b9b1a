//! Finds out what the records of a collection look like, and how they stand to a schema.
//!
//! Counts of keys and types are kept with the columns, so they are exact and cost nothing; values come from the
//! columns, all of them or a uniform sample. One committed state is looked at, whatever is written meanwhile.

mod key;
pub(crate) mod validate;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ochre_index::{Bitmap, TypeCounts};
use ochre_model::budget::{self, Exceeded};
use ochre_model::{Filter, HIDDEN_PREFIX};
use ochre_scheduler::Timestamp;
use ochre_schema::{
    Compliance, DocumentReport, Format, KeyReport, MetadataSchema, Offender, RecentViolation, Report, Sample,
    SuggestedTypes, ViolatingRecord, Warning, similar_names, suggest_indexes, suggest_schema,
};
use ochre_store::{CollectionRow, Parts};

use crate::collection::Collections;
use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;
use crate::introspect::key::{KeyFindings, KeyInspector};
use crate::introspect::validate::{ValidationContext, validation_mode};
use crate::query::Queries;
use crate::schemas::{Schemas, parsed};
use crate::throttle::load_monitor::LoadMonitor;
use crate::violations::RecordViolation;

/// For so many unknown keys the nearest known one is looked for.
const SUGGESTED_MAX: usize = 5;

/// Values of at most this many records times keys are all looked at, unless asked otherwise.
const VALUES_MAX: u64 = 25_000_000;
/// How many records a sample has, unless asked otherwise.
const SAMPLE_RECORDS: usize = 100_000;
/// With fewer records to look at, one thread does it.
const PARALLEL_MIN: usize = 10_000;
/// So many threads look at keys at most.
const THREADS_MAX: usize = 4;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntrospectMode {
    /// `Full`, or `Sample` for collections too large for it.
    #[default]
    Auto,
    /// Only what is counted anyway: keys, types, presence.
    Fast,
    /// Every value.
    Full,
    /// Values of some records, drawn uniformly.
    Sample,
}

/// What values are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// The declared schema, or the majority's type if there is none.
    #[default]
    Declared,
    /// The type that most records have.
    Majority,
}

/// What to find out.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in docs/guide/introspection.md")]
pub struct IntrospectRequest {
    pub mode: IntrospectMode,
    /// How many records a sample has.
    pub sample: Option<usize>,
    pub seed: u64,
    /// What is not looked at by then is left out, and the report is marked as truncated.
    pub time: Option<Duration>,
    /// Only these keys.
    pub keys: Option<Vec<String>>,
    /// Only records that pass this.
    pub filter: Option<Filter>,
    /// Whether values are shown.
    pub values: bool,
    /// Whether keys that the schema calls sensitive are named at all.
    pub sensitive_keys: bool,
    /// Whether records are validated by the declared schema.
    pub compliance: bool,
    /// How many offending records are listed for each key.
    pub offenders: usize,
    /// How many of the most frequent values are listed for each key.
    pub top: usize,
    /// Whether quantiles are among the statistics of numbers.
    pub quantiles: bool,
    pub against: Against,
    /// Which types the suggested schema has.
    pub types: SuggestedTypes,
}

impl Default for IntrospectRequest {
    fn default() -> Self {
        Self {
            mode: IntrospectMode::Auto,
            sample: None,
            seed: 0,
            time: None,
            keys: None,
            filter: None,
            values: true,
            sensitive_keys: true,
            compliance: true,
            offenders: 20,
            top: 10,
            quantiles: true,
            against: Against::Declared,
            types: SuggestedTypes::default(),
        }
    }
}

/// One report being put together.
struct Inspection<'a> {
    snapshot: ReadSnapshot<'a>,
    request: &'a IntrospectRequest,
    schema: Option<Arc<MetadataSchema>>,
    within: Bitmap,
    /// The records whose values are looked at; absent in fast mode.
    looked_at: Option<Bitmap>,
    deadline: Option<Instant>,
    report: Report,
    /// The format that all strings of a key have.
    formats: BTreeMap<String, Format>,
}

/// Whoever finds out what records look like.
pub(crate) struct Introspection {
    collections: Arc<Collections>,
    queries: Arc<Queries>,
    schemas: Arc<Schemas>,
    monitor: Arc<LoadMonitor>,
}

impl Introspection {
    pub(crate) fn new(queries: &Arc<Queries>, monitor: Arc<LoadMonitor>) -> Self {
        let (collections, queries) = (Arc::clone(&queries.collections), Arc::clone(queries));
        Self { schemas: Arc::clone(&collections.catalog.schemas), collections, queries, monitor }
    }

    pub(crate) fn introspect(&self, row: &CollectionRow, request: &IntrospectRequest) -> Result<Report, Error> {
        let _request = self.monitor.enter();
        if let Some(filter) = &request.filter {
            self.queries.check_filterable(row, filter)?;
        }
        let snapshot = self.collections.snapshot(row)?;
        let within = snapshot.matches(None, request.filter.as_ref())?.unwrap_or_else(|| snapshot.view.live().clone());
        let schema = self.schemas.of(row)?;
        let deadline = request.time.map(|time| Instant::now() + time);
        let mut inspection = Inspection {
            report: Report {
                collection: row.name.clone(),
                records: within.len() as u64,
                declared_schema: row.declaration.as_ref().and_then(|declared| parsed(declared.schema.as_ref()?)),
                validation_type: schema.as_ref().and(row.declaration.as_ref()).map(|declared| declared.mode().name()),
                ..Report::default()
            },
            snapshot,
            request,
            schema,
            within,
            looked_at: None,
            deadline,
            formats: BTreeMap::new(),
        };
        let keys = inspection.counted_keys();
        inspection.choose(keys.len());
        let seen = inspection.look(&keys)?;
        inspection.take(seen)?;
        if let (Some(schema), Some(declaration)) = (&inspection.schema, &row.declaration) {
            inspection.report.compliance = match (self.schemas.audit(row), &inspection.looked_at) {
                _ if !request.compliance => None,
                // The audit is of all records.
                (_, None) if request.filter.is_some() => None,
                (audit, None) => audit.map(|audit| audit.compliance),
                // Nothing changed since the last audit: it said all there is to say.
                (Some(audit), Some(_))
                    if audit.position == inspection.snapshot.view.position() && request.filter.is_none() =>
                {
                    Some(audit.compliance)
                }
                (_, Some(offsets)) => {
                    let validating = ValidationContext {
                        schema,
                        mode: validation_mode(declaration.mode()),
                        deadline,
                        ids: request.offenders,
                    };
                    let mut compliance = Compliance::default();
                    self.validate_stored(&inspection.snapshot, offsets, &validating, &mut compliance)?;
                    inspection.report.truncated |= compliance.validated < offsets.len() as u64;
                    Some(compliance.finish())
                }
            };
            if let Some(compliance) = inspection.report.compliance.as_mut().filter(|_| !request.values) {
                compliance.rules.iter_mut().for_each(|rule| rule.message.clear());
            }
            inspection.drift();
        }
        let recent = self.schemas.recent(row.number).into_iter();
        inspection.report.recent_violations = recent
            .map(|(at, RecordViolation { index, id, violation })| {
                let property = inspection.schema.as_ref().and_then(|schema| schema.property(&violation.key));
                // It may have become sensitive since.
                let are_values_shown = request.values && !property.is_some_and(|property| property.sensitive);
                let at = Timestamp::from_seconds(at).to_string();
                RecentViolation::new(at, ViolatingRecord { index, id }, violation, are_values_shown)
            })
            .collect();
        inspection.finish();
        Ok(inspection.report)
    }
}

impl Inspection<'_> {
    /// The keys to report on, with their counts, by name.
    fn counted_keys(&self) -> Vec<(String, TypeCounts)> {
        let is_wanted = |key: &str| {
            !key.starts_with(HIDDEN_PREFIX)
                && self.may_name(key)
                && self.request.keys.as_ref().is_none_or(|keys| keys.iter().any(|wanted| wanted == key))
        };
        let view = &self.snapshot.view;
        let keys = view.keys().filter(|(key, _)| is_wanted(key));
        let mut keys: Vec<(String, TypeCounts)> = match &self.request.filter {
            None => keys.map(|(key, counts)| (key.to_owned(), *counts)).collect(),
            Some(_) => keys.map(|(key, _)| (key.to_owned(), view.count_types(key, &self.within))).collect(),
        };
        keys.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        keys
    }

    fn may_name(&self, key: &str) -> bool {
        let property = self.schema.as_ref().and_then(|schema| schema.property(key));
        self.request.sensitive_keys || !property.is_some_and(|property| property.sensitive)
    }

    /// Decides whose values are looked at.
    fn choose(&mut self, keys: usize) {
        let records = self.within.len();
        let is_too_large = (records as u64).saturating_mul(keys as u64) > VALUES_MAX && records > SAMPLE_RECORDS;
        let size = self.request.sample.unwrap_or(SAMPLE_RECORDS);
        let mode = match self.request.mode {
            IntrospectMode::Auto if is_too_large || self.request.sample.is_some() => IntrospectMode::Sample,
            IntrospectMode::Auto => IntrospectMode::Full,
            mode => mode,
        };
        (self.report.mode, self.looked_at) = match mode {
            IntrospectMode::Fast => ("fast", None),
            IntrospectMode::Sample if size < records => {
                #[expect(clippy::cast_precision_loss, reason = "a share for people")]
                let missed_share = 1.0 - 0.05f64.powf(1.0 / size.max(1) as f64);
                let sample = Sample { records: size as u64, of: records as u64, seed: self.request.seed, missed_share };
                self.report.sample = Some(sample);
                ("sample", Some(draw(&self.within, size, self.request.seed)))
            }
            _ => ("full", Some(self.within.clone())),
        };
    }

    /// Looks at every key, with several threads where that is worth it.
    fn look(&self, keys: &[(String, TypeCounts)]) -> Result<Vec<KeyFindings>, Exceeded> {
        let lens = KeyInspector {
            view: &self.snapshot.view,
            request: self.request,
            schema: self.schema.as_deref(),
            within: &self.within,
            looked_at: self.looked_at.as_ref(),
            is_sample: self.report.sample.is_some(),
            deadline: self.deadline,
        };
        let is_small = lens.looked_at.is_none_or(|looked_at| looked_at.len() < PARALLEL_MIN);
        let threads = if is_small { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let next = AtomicUsize::new(0);
        let budget = budget::current();
        let work = || {
            let _within = budget.clone().map(budget::enter);
            let mut seen = Vec::new();
            while let Some((index, (key, counts))) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                keys.get(index).map(|key| (index, key))
            } {
                seen.push((index, lens.key(key, counts)?));
            }
            Ok(seen)
        };
        let seen: Vec<Result<Vec<(usize, KeyFindings)>, Exceeded>> = std::thread::scope(|scope| {
            // A thread that cannot be had is done without.
            let helpers: Vec<_> = (1..threads.min(THREADS_MAX).min(keys.len()))
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let own = work();
            let others = helpers
                .into_iter()
                .map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            std::iter::once(own).chain(others).collect()
        });
        let mut seen: Vec<(usize, KeyFindings)> =
            seen.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        seen.sort_by_key(|(index, _)| *index);
        Ok(seen.into_iter().map(|(_, seen)| seen).collect())
    }

    /// Takes what was seen of the keys into the report, and finds the ids of offenders.
    fn take(&mut self, seen: Vec<KeyFindings>) -> Result<(), Error> {
        let offending = seen.iter().flat_map(|seen| &seen.offenders).map(|(offset, _)| *offset);
        let mut offsets: Vec<u32> = offending.chain(seen.iter().flat_map(|seen| seen.rare.iter().copied())).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let mut ids = HashMap::with_capacity(offsets.len());
        self.snapshot.reader.rows(self.snapshot.number, &offsets, Parts::default(), &mut |row| {
            ids.insert(row.offset, row.id.to_owned());
            ControlFlow::Continue(())
        })?;
        for KeyFindings { mut report, format, offenders, rare, warnings, truncated, examined } in seen {
            self.report.values_examined += examined;
            self.report.truncated |= truncated;
            if let Some(format) = format {
                self.formats.insert(report.name.clone(), format);
            }
            let named = offenders
                .into_iter()
                .map(|(offset, offender)| Offender { id: ids.get(&offset).cloned().unwrap_or_default(), ..offender });
            report.offenders.extend(named);
            self.report.warnings.extend(warnings.into_iter().map(|mut warning| {
                if matches!(warning.code, "mixed-types" | "mixed-date-formats") {
                    warning.ids = report.offenders.iter().map(|offender| offender.id.clone()).collect();
                } else if warning.code == "rare-key" {
                    warning.ids = rare.iter().filter_map(|offset| ids.get(offset).cloned()).collect();
                }
                warning
            }));
            self.report.keys.push(report);
        }
        Ok(())
    }

    /// What the schema declares and the data lacks, and the other way round.
    fn drift(&mut self) {
        let Some(schema) = self.schema.clone() else { return };
        let hidden: HashSet<String> = schema.properties.keys().filter(|key| !self.may_name(key)).cloned().collect();
        let report = &mut self.report;
        if let Some(compliance) = &mut report.compliance {
            compliance.rules.retain(|rule| !hidden.contains(&rule.key));
        }
        if self.request.keys.is_none() && self.request.filter.is_none() {
            let found: HashSet<&str> = report.keys.iter().map(|key| key.name.as_str()).collect();
            for key in schema.properties.keys().filter(|key| !found.contains(key.as_str()) && !hidden.contains(*key)) {
                report.drift.push(format!("key {key:?} is declared, and no record has it"));
            }
        }
        for key in report.keys.iter().filter(|key| schema.property(&key.name).is_none()) {
            report.drift.push(format!("key {:?} is in {} records and not declared", key.name, key.count));
        }
        for rule in report.compliance.iter().flat_map(|compliance| &compliance.rules) {
            report.warnings.push(Warning {
                level: "error",
                key: Some(rule.key.clone()),
                code: "violation",
                message: format!("{} records break the rule {} of key {:?}", rule.count, rule.rule, rule.key),
                ids: rule.ids.clone(),
            });
        }
    }

    /// What concerns the collection as a whole.
    fn finish(&mut self) {
        let report = &mut self.report;
        let known: HashSet<&str> = report.keys.iter().map(|found| found.name.as_str()).collect();
        let unknown: Vec<&String> =
            self.request.keys.iter().flatten().filter(|key| !known.contains(key.as_str())).collect();
        for (number, key) in unknown.into_iter().enumerate() {
            // Whoever misspelt more than some was not slipping, and comparing names takes time.
            let near = (number < SUGGESTED_MAX)
                .then(|| ochre_scheduler::nearest(key, self.snapshot.view.keys().map(|(key, _)| key)))
                .flatten();
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            let message = format!("no record has the key {key:?}{hint}");
            report.warnings.push(Warning {
                level: "warning",
                key: Some(key.clone()),
                code: "no-such-key",
                message,
                ids: Vec::new(),
            });
        }
        let documents = self.snapshot.view.with_document().and(&self.within).len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let presence = if report.records == 0 { 0.0 } else { documents as f64 / report.records as f64 };
        report.documents = DocumentReport { count: documents, presence };
        for names in similar_names(report.keys.iter().map(|key| key.name.as_str())) {
            report.warnings.push(Warning {
                level: "warning",
                key: None,
                code: "similar-names",
                message: format!(
                    "keys {} differ only in case or separators; one is meant most likely",
                    names.join(", ")
                ),
                ids: Vec::new(),
            });
        }
        if let Some((latitude, longitude)) = coordinates(&report.keys) {
            report.warnings.push(Warning {
                level: "info",
                key: None,
                code: "coordinates",
                message: format!("keys {latitude} and {longitude} look like coordinates in degrees"),
                ids: Vec::new(),
            });
        }
        let gravity = |warning: &Warning| ["error", "warning", "info"].iter().position(|level| *level == warning.level);
        report.warnings.sort_by_key(gravity);
        let (schema, types) = (self.schema.as_deref(), self.request.types);
        report.suggested_schema = suggest_schema(&report.keys, report.records, &self.formats, schema, types);
        report.index_suggestions = {
            let looked_at = report.sample.map_or(report.records, |sample| sample.records);
            suggest_indexes(&report.keys, report.records, looked_at)
        };
    }
}

/// A pair of keys that are named like latitude and longitude and whose numbers are within their ranges.
fn coordinates(keys: &[KeyReport]) -> Option<(&str, &str)> {
    let within = |key: &KeyReport, most: f64| {
        let number = |name: &str| key.numbers.as_ref().and_then(|numbers| numbers[name].as_f64());
        number("min").zip(number("max")).is_some_and(|(min, max)| min >= -most && max <= most)
    };
    let named = |names: &[&str], most: f64| {
        let found = keys.iter().find(|key| names.contains(&key.name.to_lowercase().as_str()));
        found.filter(|key| within(key, most)).map(|key| key.name.as_str())
    };
    named(&["lat", "latitude"], 90.0).zip(named(&["lon", "lng", "longitude"], 180.0))
}

/// Draws `size` of the offsets, each with the same probability (selection sampling: Knuth, TAOCP 3.4.2, S).
fn draw(offsets: &Bitmap, size: usize, seed: u64) -> Bitmap {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut wanted, mut left) = (size, offsets.len());
    offsets
        .iter()
        .filter(|_| {
            let is_drawn = wanted > 0 && rng.usize(0..left) < wanted;
            wanted -= usize::from(is_drawn);
            left -= 1;
            is_drawn
        })
        .collect()
}
