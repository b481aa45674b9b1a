//! Schemas at work: compiled once per version, asked for every write, and what they found remembered.
//!
//! A record is validated inside the transaction that would change it, by the schema in force there: no write that began
//! before a schema was declared slips past it. Where that can take long, it is validated before the transaction begins,
//! and inside it only again if the record or the schema has changed since: nobody waits for a slow validator.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ochre_model::{Declaration, Filter, Metadata, ValidationType};
use ochre_schema::{Compliance, Functions, InvalidSchema, MetadataSchema, Subject, Verdict, lint, prepare, validate};
use ochre_store::{CollectionNumber, CollectionRow, PendingRecord, RecordValidator};
use parking_lot::{Mutex, RwLock};

use crate::error::Error;
use crate::violations::{RecordViolation, SPELLED_MAX, ViolationCount, ViolationOutcome, Violations};

/// So many kinds of violations of a collection are counted apart; the others together, as the key `…`.
const COUNTED_MAX: usize = 100;
/// So many accepted violations of a collection are remembered.
const REMEMBERED_MAX: usize = 100;
/// A collection's accepted violations make a line in the log at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The compiled schemas of a database, and what they let pass.
pub(crate) struct Schemas {
    functions: Functions,
    compiled: RwLock<HashMap<CollectionNumber, Compiled>>,
    noted: Mutex<HashMap<CollectionNumber, Noted>>,
}

/// A schema, and the declaration it was compiled from.
struct Compiled {
    declaration: Arc<Declaration>,
    schema: Arc<MetadataSchema>,
}

/// What is remembered of one collection.
#[derive(Default)]
struct Noted {
    recent: VecDeque<(i64, RecordViolation)>,
    /// By key, rule and outcome.
    counts: BTreeMap<(String, &'static str, ViolationOutcome), u64>,
    logged: Option<Instant>,
    unlogged: u64,
    audit: Option<Audit>,
}

/// What the last audit of a collection found.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) declaration: Arc<Declaration>,
    pub(crate) position: u64,
    pub(crate) compliance: Compliance,
}

impl Schemas {
    pub(crate) fn new(functions: Functions) -> Self {
        Self { functions, compiled: RwLock::default(), noted: Mutex::default() }
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Parses a schema that is to be declared.
    pub(crate) fn parse(&self, written: &serde_json::Value) -> Result<MetadataSchema, Error> {
        let schema = MetadataSchema::parse(written)?;
        match schema.missing_functions(&self.functions).first() {
            None => Ok(schema),
            Some(name) => {
                let known: Vec<&str> = self.functions.names().collect();
                let known =
                    if known.is_empty() { "none is".to_owned() } else { format!("there are {}", known.join(", ")) };
                let problem = format!("it names the validator function {name:?}, which is not registered; {known}");
                Err(InvalidSchema { pointer: String::new(), problem }.into())
            }
        }
    }

    /// The schema that a collection declares, compiled; `None` if it declares none.
    pub(crate) fn of(&self, row: &CollectionRow) -> Result<Option<Arc<MetadataSchema>>, InvalidSchema> {
        let Some(declaration) = &row.declaration else { return Ok(None) };
        let Some(written) = &declaration.schema else { return Ok(None) };
        if let Some(compiled) = self.compiled.read().get(&row.number)
            && (Arc::ptr_eq(&compiled.declaration, declaration) || compiled.declaration == *declaration)
        {
            return Ok(Some(Arc::clone(&compiled.schema)));
        }
        let schema = Arc::new(MetadataSchema::parse_stored(written)?);
        let compiled = Compiled { declaration: Arc::clone(declaration), schema: Arc::clone(&schema) };
        self.compiled.write().insert(row.number, compiled);
        Ok(Some(schema))
    }

    pub(crate) fn forget_all(&self) {
        self.compiled.write().clear();
        self.noted.lock().clear();
    }

    pub(crate) fn forget(&self, collection: CollectionNumber) {
        self.compiled.write().remove(&collection);
        self.noted.lock().remove(&collection);
    }

    /// Counts what a request broke.
    fn note(&self, row: &CollectionRow, violations: &Violations, outcome: ViolationOutcome) {
        if violations.counts.is_empty() {
            return;
        }
        let mut noted = self.noted.lock();
        let noted = noted.entry(row.number).or_default();
        for ((key, rule), count) in &violations.counts {
            let mut kind = (key.clone(), *rule, outcome);
            if noted.counts.len() >= COUNTED_MAX && !noted.counts.contains_key(&kind) {
                kind.0 = "…".into();
            }
            *noted.counts.entry(kind).or_default() += count;
        }
        if outcome == ViolationOutcome::Refused {
            return;
        }
        let now = unix_seconds();
        for violation in &violations.listed {
            noted.recent.push_front((now, violation.clone()));
        }
        noted.recent.truncate(REMEMBERED_MAX);
        noted.unlogged += violations.total();
        if noted.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            let first = violations.listed.first();
            let example = first.map_or("", |first| &first.violation.message);
            let record = first.map_or("", |first| &first.id);
            tracing::warn!(
                collection = row.name,
                violations = noted.unlogged,
                record,
                example,
                "records break their schema"
            );
            (noted.logged, noted.unlogged) = (Some(Instant::now()), 0);
        }
    }

    /// The last accepted violations of a collection, newest first, with the second each was noted in.
    pub(crate) fn recent(&self, collection: CollectionNumber) -> Vec<(i64, RecordViolation)> {
        self.noted.lock().get(&collection).map(|noted| noted.recent.iter().cloned().collect()).unwrap_or_default()
    }

    /// What the last audit found, if it was of this declaration.
    pub(crate) fn audit(&self, row: &CollectionRow) -> Option<Audit> {
        let noted = self.noted.lock();
        let audit = noted.get(&row.number)?.audit.as_ref()?;
        let is_same = row.declaration.as_ref().is_some_and(|declared| declared.has_same_schema(&audit.declaration));
        is_same.then(|| audit.clone())
    }

    pub(crate) fn audited(&self, collection: CollectionNumber, audit: Audit) {
        self.noted.lock().entry(collection).or_default().audit = Some(audit);
    }

    fn counts(&self, collection: CollectionNumber) -> Vec<(String, &'static str, ViolationOutcome, u64)> {
        let noted = self.noted.lock();
        let counts = noted.get(&collection).into_iter().flat_map(|noted| &noted.counts);
        counts.map(|((key, rule, outcome), count)| (key.clone(), *rule, *outcome, *count)).collect()
    }
}

/// The time now, in seconds since 1970.
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Validates the records of one request, and keeps what it found until the request has its outcome.
pub(crate) struct RequestValidator {
    schemas: Arc<Schemas>,
    found: Mutex<Found>,
    /// What was validated before the transaction, by the record's place in the batch.
    early: Mutex<HashMap<usize, Early>>,
    is_early: AtomicBool,
}

/// A verdict, and everything that it depends on.
struct Early {
    schema: Arc<MetadataSchema>,
    mode: ValidationType,
    /// Of the record as it was and as it would be.
    record: [u8; 32],
    prepared: Option<Metadata>,
    verdict: Verdict,
}

/// A hash of everything of a record that a verdict may depend on.
fn hash_of(record: &PendingRecord<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |tag: u8, bytes: &[u8]| {
        hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(0, record.id.as_bytes());
    let sides = [record.before, Some((record.metadata.as_ref(), record.document))];
    for (tag, side) in (1..).zip(sides) {
        let Some((metadata, document)) = side else { continue };
        part(tag, &[]);
        metadata.into_iter().for_each(|metadata| part(tag + 2, metadata.to_text().as_bytes()));
        document.into_iter().for_each(|document| part(tag + 4, document.as_bytes()));
    }
    for x in record.embedding.into_iter().flatten() {
        hasher.update(&x.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[derive(Default)]
struct Found {
    row: Option<Arc<CollectionRow>>,
    refused: Violations,
    reported: Violations,
}

impl fmt::Debug for RequestValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestValidator")
    }
}

impl RequestValidator {
    pub(crate) fn new(schemas: &Arc<Schemas>) -> Arc<Self> {
        Arc::new(Self {
            schemas: Arc::clone(schemas),
            found: Mutex::default(),
            early: Mutex::default(),
            is_early: AtomicBool::new(false),
        })
    }

    /// Whether validating can take long under the schema that a collection declares now.
    pub(crate) fn is_costly(&self, row: &CollectionRow) -> bool {
        let is_validated =
            row.declaration.as_ref().is_some_and(|declaration| declaration.mode() != ValidationType::None);
        is_validated && self.schemas.of(row).is_ok_and(|schema| schema.is_some_and(|schema| schema.is_costly()))
    }

    /// Validates what `show` shows, for later.
    pub(crate) fn validate_early<T>(&self, show: impl FnOnce() -> T) -> T {
        self.is_early.store(true, Ordering::Relaxed);
        let shown = show();
        self.is_early.store(false, Ordering::Relaxed);
        *self.found.lock() = Found::default();
        shown
    }

    /// Validates a record, or finds what was validated of the very same before.
    fn verdict(&self, schema: &Arc<MetadataSchema>, mode: ValidationType, record: &mut PendingRecord<'_>) -> Verdict {
        let is_early = self.is_early.load(Ordering::Relaxed);
        let known = self.early.lock().remove(&record.index);
        let hash = (is_early || known.is_some()).then(|| hash_of(record));
        if let (Some(known), Some(hash)) = (known, hash)
            && Arc::ptr_eq(&known.schema, schema)
            && (known.mode, known.record) == (mode, hash)
        {
            *record.metadata = known.prepared;
            return known.verdict;
        }
        let id = record.id;
        let before = record.before.map(|(metadata, document)| Subject { id, metadata, document, embedding: None });
        prepare(schema, mode, before.is_none(), record.metadata);
        let (document, embedding) = (record.document, record.embedding);
        let after = Subject { id, metadata: record.metadata.as_ref(), document, embedding };
        let verdict = validate(schema, mode, &self.schemas.functions, before, after);
        if let (true, Some(record_hash)) = (is_early, hash) {
            let prepared = record.metadata.clone();
            let (schema, verdict) = (Arc::clone(schema), verdict.clone());
            self.early.lock().insert(record.index, Early { schema, mode, record: record_hash, prepared, verdict });
        }
        verdict
    }

    /// What was found, once the write has its outcome: the violations that refused it, or those it was
    /// accepted with.
    pub(crate) fn finish(&self, is_written: bool) -> Result<Violations, Arc<Violations>> {
        let mut found = std::mem::take(&mut *self.found.lock());
        let Some(row) = found.row else { return Ok(Violations::default()) };
        if !found.refused.counts.is_empty() {
            // Looked for here, where nobody waits for the writer.
            if let Ok(Some(schema)) = self.schemas.of(&row) {
                let spelled = found.refused.listed.iter_mut().take(SPELLED_MAX).map(|listed| &mut listed.violation);
                for violation in spelled.filter(|violation| violation.rule == "additional") {
                    if let Some(near) = schema.nearest_key(&violation.key) {
                        violation.message += &format!("; did you mean {near:?}?");
                    }
                }
            }
            self.schemas.note(&row, &found.refused, ViolationOutcome::Refused);
            return Err(Arc::new(found.refused));
        }
        if is_written {
            self.schemas.note(&row, &found.reported, ViolationOutcome::Accepted);
        }
        Ok(found.reported)
    }
}

impl RecordValidator for RequestValidator {
    fn validate(&self, row: &CollectionRow, records: &mut [PendingRecord<'_>]) -> Result<(), String> {
        let mode = row.declaration.as_ref().map_or(ValidationType::None, |declaration| declaration.mode());
        if mode == ValidationType::None {
            return Ok(());
        }
        let schema = match self.schemas.of(row) {
            Ok(Some(schema)) => schema,
            Ok(None) => return Ok(()),
            Err(error) => return Err(format!("the stored schema cannot be used, so nothing was written: {error}")),
        };
        let (mut refused, mut reported) = (Violations::default(), Violations::default());
        for record in records {
            let id = record.id;
            let verdict = self.verdict(&schema, mode, record);
            refused.extend(record.index, id, verdict.refused);
            reported.extend(record.index, id, verdict.reported);
        }
        let is_refused = !refused.counts.is_empty();
        let row = (is_refused || !reported.counts.is_empty()).then(|| Arc::new(row.clone()));
        *self.found.lock() = Found { row, refused, reported };
        if is_refused { Err("the schema is broken".into()) } else { Ok(()) }
    }
}

impl Schemas {
    /// What in a filter can never match what the collection declares: an error in strict mode, else told.
    pub(crate) fn lint(&self, row: &CollectionRow, filter: &Filter) -> Result<Vec<String>, Error> {
        let Some(declaration) = &row.declaration else { return Ok(Vec::new()) };
        let mode = declaration.mode();
        if mode == ValidationType::None {
            return Ok(Vec::new());
        }
        let Ok(Some(schema)) = self.of(row) else { return Ok(Vec::new()) };
        let found = lint(&schema, mode, filter);
        match found.first() {
            Some(_) if mode == ValidationType::Strict => Err(Error::invalid_field(
                "where",
                format!(
                    "{}; to look for records that break the schema, introspect the collection or make its validation type lax",
                    found.join("; ")
                ),
            )),
            _ => Ok(found),
        }
    }

    /// How often rules were broken by requests since the start.
    pub(crate) fn violation_counts(&self, rows: &[Arc<CollectionRow>]) -> Vec<ViolationCount> {
        let of = |row: &Arc<CollectionRow>| {
            let collection = format!("{}/{}/{}", row.tenant, row.database, row.name);
            self.counts(row.number).into_iter().map(move |(key, rule, outcome, count)| ViolationCount {
                collection: collection.clone(),
                key,
                rule,
                outcome,
                count,
            })
        };
        rows.iter().flat_map(of).collect()
    }
}

/// A declared schema as an object, however it was written.
pub(crate) fn parsed(written: &serde_json::Value) -> Option<serde_json::Value> {
    match written {
        serde_json::Value::String(text) => serde_json::from_str(text).ok(),
        json => Some(json.clone()),
    }
}
