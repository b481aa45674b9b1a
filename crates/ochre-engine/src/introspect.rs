//! Finds out what the records of a collection look like, and how they stand to a schema.
//!
//! Counts of keys and types are kept with the columns, so they are exact and cost nothing; values come from the
//! columns, all of them or a uniform sample. One committed state is looked at, whatever is written meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ochre_index::{Bitmap, TypeCounts, Values, View};
use ochre_model::{Filter, HIDDEN_PREFIX, Metadata, ValidationType, Value, ValueType};
use ochre_schema::{
    Aggregate, Compliance, DocumentReport, Format, KeyReport, KeyStatistics, MetadataSchema, Offender, Report,
    ReportOptions, Sample, Subject, Warning, expected_types, prepare, similar_names, suggest_indexes, suggest_schema,
    type_name, violations,
};
use ochre_store::{CollectionRow, Parts};
use serde_json::{Value as Json, json};

use crate::database::Inner;
use crate::error::Error;
use crate::read::Pinned;

/// Values of at most this many records times keys are all looked at, unless asked otherwise.
const VALUES_MAX: u64 = 25_000_000;
/// How many records a sample has, unless asked otherwise.
const SAMPLE_RECORDS: usize = 100_000;
/// Different offending values that are told apart.
const AGGREGATES_MAX: usize = 10_000;
/// Offending values that are listed.
const AGGREGATES_LISTED: usize = 20;
/// Records judged between two looks at the clock.
const JUDGED_AT_ONCE: usize = 1000;
/// Ids listed with each broken rule.
pub(crate) const RULE_IDS: usize = 20;
/// With fewer records to look at, one thread does it.
const PARALLEL_MIN: usize = 10_000;
/// So many threads look at keys at most.
const THREADS_MAX: usize = 4;
/// Below this share of the majority's type a key is called mixed up rather than having a few slips.
const CONFIDENT: f64 = 0.95;

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
    /// Whether records are judged by the declared schema.
    pub compliance: bool,
    /// How many offending records are listed for each key.
    pub offenders: usize,
    /// How many of the most frequent values are listed for each key.
    pub top: usize,
    /// Whether quantiles are among the statistics of numbers.
    pub quantiles: bool,
    pub against: Against,
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
        }
    }
}

/// What to judge by what.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// The schema, as it would be declared; the declared one if absent.
    pub schema: Option<Json>,
    /// How strictly; as declared if absent.
    pub mode: Option<ValidationType>,
    /// A batch that is not stored; the stored records if absent.
    pub batch: Option<Vec<Candidate>>,
}

/// A record that might be written.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Candidate {
    pub id: String,
    pub metadata: Option<Metadata>,
    pub document: Option<String>,
}

/// Feeds the values of a column into statistics.
struct Gather<'a>(&'a mut KeyStatistics);

impl Values for Gather<'_> {
    fn bools(&mut self, value: bool, records: u64) {
        self.0.bools(value, records);
    }

    fn int(&mut self, value: i64) {
        self.0.int(value);
    }

    fn float(&mut self, value: f64) {
        self.0.float(value);
    }

    fn strings(&mut self, value: &str, records: u64) {
        self.0.strings(value, records);
    }

    fn list(&mut self, value: &Value) {
        self.0.list(value);
    }
}

/// One report being put together.
struct Inspection<'a> {
    pinned: Pinned<'a>,
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

/// What looking at one key takes: it can be done for several at once.
struct Lens<'a> {
    view: &'a View,
    request: &'a IntrospectRequest,
    schema: Option<&'a MetadataSchema>,
    within: &'a Bitmap,
    looked_at: Option<&'a Bitmap>,
    is_sample: bool,
    deadline: Option<Instant>,
}

/// What was found out about a key.
#[derive(Default)]
struct Seen {
    report: KeyReport,
    format: Option<Format>,
    /// Records that are not as expected, by offset, until their ids are known.
    offenders: Vec<(u32, Offender)>,
    /// The records that have a key which few have.
    rare: Vec<u32>,
    warnings: Vec<Warning>,
    truncated: bool,
}

impl Inner {
    pub(crate) fn introspect(&self, row: &CollectionRow, request: &IntrospectRequest) -> Result<Report, Error> {
        let _visit = self.traffic.visit();
        if let Some(filter) = &request.filter {
            self.check_filterable(row, filter)?;
        }
        let pinned = self.pin(row)?;
        let within = pinned.matches(None, request.filter.as_ref())?.unwrap_or_else(|| pinned.view.live().clone());
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
            pinned,
            request,
            schema,
            within,
            looked_at: None,
            deadline,
            formats: BTreeMap::new(),
        };
        let keys = inspection.counted_keys();
        inspection.choose(keys.len());
        let seen = inspection.look(&keys);
        inspection.take(seen)?;
        if let (Some(schema), Some(declaration)) = (&inspection.schema, &row.declaration) {
            inspection.report.compliance = match (self.schemas.audit(row), &inspection.looked_at) {
                _ if !request.compliance => None,
                // The audit is of all records.
                (_, None) if request.filter.is_some() => None,
                (audit, None) => audit.map(|audit| audit.compliance),
                // Nothing changed since the last audit: it said all there is to say.
                (Some(audit), Some(_))
                    if audit.position == inspection.pinned.view.position() && request.filter.is_none() =>
                {
                    Some(audit.compliance)
                }
                (_, Some(offsets)) => {
                    let judging =
                        Judging { schema, mode: judging_mode(declaration.mode()), deadline, ids: request.offenders };
                    let mut compliance = Compliance::default();
                    self.judge_stored(&inspection.pinned, offsets, &judging, &mut compliance)?;
                    inspection.report.truncated |= compliance.judged < offsets.len() as u64;
                    Some(compliance.finish())
                }
            };
            inspection.drift();
        }
        let recent = self.schemas.recent(row.number).into_iter();
        inspection.report.recent_violations = recent
            .map(|(at, violation)| {
                let mut shown = serde_json::to_value(violation).unwrap_or_default();
                shown["at"] = at.into();
                let key = shown["key"].as_str().unwrap_or_default();
                let property = inspection.schema.as_ref().and_then(|schema| schema.property(key));
                // It may have become sensitive since.
                if !request.values || property.is_some_and(|property| property.sensitive) {
                    let members = shown.as_object_mut();
                    members.map(|shown| ["value", "message", "expected"].map(|name| shown.remove(name)));
                }
                shown
            })
            .collect();
        inspection.conclude();
        Ok(inspection.report)
    }

    /// Judges stored records, or a batch, by a schema.
    pub(crate) fn validate(&self, row: &CollectionRow, validation: &Validation) -> Result<Compliance, Error> {
        let _visit = self.traffic.visit();
        let schema = match &validation.schema {
            Some(written) => Arc::new(self.schemas.parse(written)?),
            None => self.schemas.of(row)?.ok_or_else(|| {
                Error::Invalid(format!("collection '{}' declares no schema; give one to validate by", row.name))
            })?,
        };
        let declared = row.declaration.as_ref().map_or(ValidationType::Strict, |declared| declared.mode());
        let mode = judging_mode(validation.mode.unwrap_or(declared));
        if let Some(batch) = &validation.batch {
            let mut compliance = Compliance::default();
            for Candidate { id, metadata, document } in batch {
                let mut metadata = metadata.clone();
                prepare(&schema, mode, true, &mut metadata);
                let subject =
                    Subject { id, metadata: metadata.as_ref(), document: document.as_deref(), embedding: None };
                compliance.count(id, &violations(&schema, mode, self.schemas.functions(), &subject), RULE_IDS);
            }
            return Ok(compliance.finish());
        }
        let pinned = self.pin(row)?;
        let judging = Judging { schema: &schema, mode, deadline: None, ids: RULE_IDS };
        let mut compliance = Compliance::at(pinned.view.position());
        self.judge_stored(&pinned, pinned.view.live(), &judging, &mut compliance)?;
        Ok(compliance.finish())
    }

    /// Judges the records at these offsets, and adds them up in `compliance`.
    pub(crate) fn judge_stored(
        &self, pinned: &Pinned<'_>, offsets: &Bitmap, judging: &Judging<'_>, compliance: &mut Compliance,
    ) -> Result<(), Error> {
        let offsets: Vec<u32> = offsets.iter().collect();
        let parts = Parts { metadata: true, document: judging.schema.looks_beyond_metadata(), uri: false };
        let mut damaged = None;
        for offsets in offsets.chunks(JUDGED_AT_ONCE) {
            if judging.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                break;
            }
            pinned.reader.rows(pinned.number, offsets, parts, &mut |row| {
                let metadata = match row.metadata.map(Metadata::from_text).transpose() {
                    Ok(metadata) => metadata,
                    Err(error) => {
                        damaged = Some(Error::Damaged(format!("record '{}': {error}", row.id)));
                        return ControlFlow::Break(());
                    }
                };
                let embedding = judging.schema.embedding.as_ref().and_then(|_| pinned.view.vector(row.offset).ok());
                let subject = Subject {
                    id: row.id,
                    metadata: metadata.as_ref(),
                    document: row.document,
                    embedding: embedding.map(|(vector, _)| vector),
                };
                let found = violations(judging.schema, judging.mode, self.schemas.functions(), &subject);
                compliance.count(row.id, &found, judging.ids);
                ControlFlow::Continue(())
            })?;
        }
        damaged.map_or(Ok(()), Err)
    }
}

/// By what records are judged, and how long.
pub(crate) struct Judging<'a> {
    pub(crate) schema: &'a MetadataSchema,
    pub(crate) mode: ValidationType,
    pub(crate) deadline: Option<Instant>,
    pub(crate) ids: usize,
}

/// The mode whose rules say whether records comply: where nothing is enforced, undeclared keys are no fault.
pub(crate) fn judging_mode(mode: ValidationType) -> ValidationType {
    if mode == ValidationType::None { ValidationType::Lax } else { mode }
}

/// A declared schema as an object, however it was written.
fn parsed(written: &Json) -> Option<Json> {
    match written {
        Json::String(text) => serde_json::from_str(text).ok(),
        json => Some(json.clone()),
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
        let view = &self.pinned.view;
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
    fn look(&self, keys: &[(String, TypeCounts)]) -> Vec<Seen> {
        let lens = Lens {
            view: &self.pinned.view,
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
        let work = || {
            let mut seen = Vec::new();
            while let Some((index, (key, counts))) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                keys.get(index).map(|key| (index, key))
            } {
                seen.push((index, lens.key(key, counts)));
            }
            seen
        };
        let mut seen: Vec<(usize, Seen)> = std::thread::scope(|scope| {
            // A thread that cannot be had is done without.
            let helpers: Vec<_> = (1..threads.min(THREADS_MAX).min(keys.len()))
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let own = work();
            own.into_iter().chain(helpers.into_iter().flat_map(|helper| helper.join().unwrap_or_default())).collect()
        });
        seen.sort_by_key(|(index, _)| *index);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    /// Takes what was seen of the keys into the report, and finds the ids of offenders.
    fn take(&mut self, seen: Vec<Seen>) -> Result<(), Error> {
        let offending = seen.iter().flat_map(|seen| &seen.offenders).map(|(offset, _)| *offset);
        let mut offsets: Vec<u32> = offending.chain(seen.iter().flat_map(|seen| seen.rare.iter().copied())).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let mut ids = HashMap::with_capacity(offsets.len());
        self.pinned.reader.rows(self.pinned.number, &offsets, Parts::default(), &mut |row| {
            ids.insert(row.offset, row.id.to_owned());
            ControlFlow::Continue(())
        })?;
        for Seen { mut report, format, offenders, rare, warnings, truncated } in seen {
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
    fn conclude(&mut self) {
        let report = &mut self.report;
        for key in self.request.keys.iter().flatten().filter(|key| !report.keys.iter().any(|found| found.name == **key))
        {
            let near = ochre_scheduler::nearest(key, self.pinned.view.keys().map(|(key, _)| key));
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
        let documents = self.pinned.view.with_document().and(&self.within).len() as u64;
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
        report.suggested_schema = suggest_schema(&report.keys, report.records, &self.formats, self.schema.as_deref());
        report.index_suggestions = {
            let looked_at = report.sample.map_or(report.records, |sample| sample.records);
            suggest_indexes(&report.keys, report.records, looked_at)
        };
    }
}

impl Lens<'_> {
    fn key(&self, key: &str, counts: &TypeCounts) -> Seen {
        let mut seen = Seen::default();
        let mut report = KeyReport::of_counts(key, counts, self.within.len() as u64);
        let declared = self.schema.and_then(|schema| schema.property(key));
        let is_shown = self.request.values && !declared.is_some_and(|property| property.sensitive);
        report.declared = declared.map(|property| {
            json!({
                "types": property.types.iter().map(|ty| type_name(*ty)).collect::<Vec<_>>(),
                "required": property.required, "description": property.description,
            })
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
            self.view.visit_values(key, looked_at, &mut Gather(&mut statistics));
            seen.format = statistics.format(1).filter(|_| !self.is_sample);
            if !others.is_empty() {
                self.offenders(key, &others, is_shown, &mut report, &mut seen.offenders);
            } else if let [main, _, ..] = statistics.date_formats()[..] {
                self.misdated(key, main, is_shown, &mut report, &mut seen.offenders);
            }
            statistics.report(
                &mut report,
                ReportOptions { top: self.request.top, values: is_shown, quantiles: self.request.quantiles },
            );
        }
        if self.is_rare(&report) && self.looked_at.is_some() {
            let most = self.request.offenders;
            self.view.visit_typed(key, self.within, &ValueType::ALL, &mut |offset, _| {
                seen.rare.push(offset);
                if seen.rare.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            seen.rare.truncate(most);
        }
        seen.warnings = self.warnings(&report, against.is_some());
        seen.report = report;
        seen
    }

    /// Whether so few of many records have a key that it is more likely a slip.
    fn is_rare(&self, report: &KeyReport) -> bool {
        let records = self.within.len() as u64;
        records >= 100 && (report.count <= 3 || report.count.saturating_mul(1000) <= records)
    }

    /// Second pass: the records whose type is not the expected one, and their values put together.
    fn offenders(
        &self, key: &str, types: &[ValueType], is_shown: bool, report: &mut KeyReport, open: &mut Vec<(u32, Offender)>,
    ) {
        let mut aggregates: HashMap<(&'static str, String), (u64, Value)> = HashMap::new();
        let (mut listed, most) = (0, self.request.offenders);
        self.view.visit_typed(key, self.within, types, &mut |offset, value| {
            let ty = type_name(value.value_type());
            if listed < most {
                listed += 1;
                let value = is_shown.then(|| cut(&value));
                open.push((offset, Offender { id: String::new(), value_type: ty, value, rule: None }));
            }
            if is_shown {
                let aggregate = aggregates.entry((ty, value.to_json().to_string())).or_insert((0, value));
                aggregate.0 += 1;
            }
            if aggregates.len() >= AGGREGATES_MAX || (!is_shown && listed >= most) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let mut values: Vec<Aggregate> = aggregates
            .into_iter()
            .map(|((value_type, _), (count, value))| Aggregate { value_type, value: Some(cut(&value)), count })
            .collect();
        values.sort_by_key(|aggregate| {
            (std::cmp::Reverse(aggregate.count), aggregate.value.as_ref().map(Json::to_string))
        });
        values.truncate(AGGREGATES_LISTED);
        report.offending_values = values;
    }

    /// Records whose date is written in another way than most.
    fn misdated(
        &self, key: &str, main: Format, is_shown: bool, report: &mut KeyReport, open: &mut Vec<(u32, Offender)>,
    ) {
        let (mut listed, most) = (0, self.request.offenders);
        self.view.visit_typed(key, self.within, &[ValueType::Str], &mut |offset, value| {
            let Value::Str(text) = &value else { return ControlFlow::Continue(()) };
            if Format::of(text).is_none_or(|format| format == main || !format.is_date()) {
                return ControlFlow::Continue(());
            }
            report.offender_count += 1;
            if listed < most {
                listed += 1;
                let value = is_shown.then(|| cut(&value));
                open.push((offset, Offender { id: String::new(), value_type: "string", value, rule: Some("format") }));
            }
            ControlFlow::Continue(())
        });
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

/// A value as reports show it: cut if it is long.
fn cut(value: &Value) -> Json {
    match value {
        Value::Str(text) => match text.char_indices().nth(ochre_schema::VALUE_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]).into(),
            None => text.as_str().into(),
        },
        value => value.to_json(),
    }
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
