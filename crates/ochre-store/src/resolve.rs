//! What a write means: from a request and the rows as they are to the changes to be made.
//!
//! Pure decisions, shared by every store, so that all of them give the same meaning to duplicate ids,
//! merged metadata, unknown ids and filters that were resolved on an older view.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ochre_model::{Filter, IndexSchema, Metadata, RecordBatch, WriteKind, norm};

use crate::error::{Error, Result};
use crate::store::{
    CollectionRow, Conditional, KEYS_PER_COLLECTION_MAX, Operation, PartialWrite, PendingRecord, Reads,
    RecordValidator, Selection, Write,
};

/// A record as it is before the write.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) offset: u32,
    pub(crate) id: String,
    pub(crate) vector_id: u64,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) uri: Option<String>,
    pub(crate) document: Option<String>,
}

/// The rows that a write may look at, as the transaction sees them.
pub(crate) trait Rows {
    fn by_id(&mut self, id: &str) -> Result<Option<Stored>>;
    fn by_offset(&mut self, offset: u32) -> Result<Option<Stored>>;
    /// The position of the commit that last changed the record of this id, if there is one.
    fn last_change(&mut self, id: &str) -> Result<Option<u64>>;
    /// Whether the stored vector has exactly these bits.
    fn has_vector(&mut self, vector_id: u64, vector: &[f32]) -> Result<bool>;
    /// The offsets touched by commits after `position`; `None` if the log no longer reaches back that far.
    fn changed_since(&mut self, position: u64) -> Result<Option<BTreeSet<u32>>>;
    /// The collection's position now.
    fn position(&self) -> u64;
}

/// A record as it shall be.
#[derive(Clone, Debug)]
pub(crate) struct PutRecord {
    /// The last place in the batch that speaks of it.
    index: usize,
    /// What is there now; `None` for a new record.
    pub(crate) before: Option<Stored>,
    pub(crate) id: String,
    /// The row of the batch whose embedding it gets; `None` keeps the one it has.
    pub(crate) embedding: Option<usize>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) uri: Option<String>,
    pub(crate) document: Option<String>,
}

impl PutRecord {
    pub(crate) fn metadata_changed(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.metadata != self.metadata)
    }

    pub(crate) fn document_changed(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.document != self.document)
    }

    fn changes_anything(&self) -> bool {
        self.embedding.is_some()
            || self.metadata_changed()
            || self.document_changed()
            || self.before.as_ref().is_none_or(|before| before.uri != self.uri)
    }
}

/// The changes a write makes.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) puts: Vec<PutRecord>,
    pub(crate) deletes: Vec<Stored>,
    /// The count to answer.
    pub(crate) deleted: u64,
    /// The vectors to append, in the order of the puts that have one: values row-major, and norms.
    pub(crate) values: Vec<f32>,
    pub(crate) norms: Vec<f32>,
    pub(crate) dimension: Option<usize>,
}

impl Resolved {
    pub(crate) fn is_nothing(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// Adds the changes of a write to other records.
    fn append(&mut self, other: Self) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self.deleted += other.deleted;
        self.values.extend(other.values);
        self.norms.extend(other.norms);
        self.dimension = self.dimension.or(other.dimension);
    }
}

/// Decides what `write` does to a collection.
pub(crate) fn resolve(write: &Write, collection: &CollectionRow, rows: &mut dyn Rows) -> Result<Resolved> {
    match &write.operation {
        Operation::Records { kind, batch } => {
            resolve_records(write, *kind, batch, collection, collection.dimension, rows)
        }
        Operation::Delete(Selection::Ids(ids)) => resolve_ids(ids, rows),
        Operation::Conditional(Conditional { reads, writes }) => {
            reads.as_ref().map_or(Ok(()), |reads| check_unchanged(reads, rows))?;
            let mut all = Resolved::default();
            for part in writes {
                let dimension = collection.dimension.or(all.dimension);
                all.append(match part {
                    PartialWrite::Records { kind, batch } => {
                        resolve_records(write, *kind, batch, collection, dimension, rows)?
                    }
                    PartialWrite::Delete(ids) => resolve_ids(ids, rows)?,
                });
            }
            Ok(all)
        }
        Operation::Delete(Selection::Matching { offsets, at, filter, limit }) => {
            resolve_matching(offsets, *at, filter, *limit, rows)
        }
    }
}

fn resolve_records(
    write: &Write, kind: WriteKind, batch: &RecordBatch, collection: &CollectionRow, dimension: Option<usize>,
    rows: &mut dyn Rows,
) -> Result<Resolved> {
    let puts = merge_records(kind, batch, dimension, rows)?;
    let puts = validate(write.validator.as_deref(), collection, batch, puts)?;
    Ok(with_vectors(batch, puts))
}

fn resolve_ids(ids: &[String], rows: &mut dyn Rows) -> Result<Resolved> {
    let mut deletes = BTreeMap::new();
    for id in ids {
        if let Some(stored) = rows.by_id(id)? {
            deletes.insert(stored.offset, stored);
        }
    }
    Ok(Resolved { deletes: deletes.into_values().collect(), deleted: ids.len() as u64, ..Default::default() })
}

/// Refuses to go on if a record that was read has been changed, inserted or deleted since.
///
/// The log names deleted records by their offsets only. So a record that is not there counts as deleted if any was.
fn check_unchanged(reads: &Reads, rows: &mut dyn Rows) -> Result<()> {
    let head = rows.position();
    if reads.at > head {
        let text = "read_token: the collection has not come so far; use the token of a read of it";
        return Err(Error::Refused(text.into()));
    }
    if reads.at == head {
        return Ok(());
    }
    let mut is_any_missing = false;
    for id in &reads.ids {
        match rows.last_change(id)? {
            Some(position) if position > reads.at => return Err(Error::WriteConflict),
            Some(_) => {}
            None => is_any_missing = true,
        }
    }
    if !is_any_missing {
        return Ok(());
    }
    let changed = rows.changed_since(reads.at)?.ok_or_else(|| {
        Error::StaleRead("the read token is too old to tell whether a record has been deleted: read again".into())
    })?;
    for offset in changed {
        if rows.by_offset(offset)?.is_none() {
            return Err(Error::WriteConflict);
        }
    }
    Ok(())
}

/// The records that a batch changes, as they will be.
pub(crate) fn merge_records(
    kind: WriteKind, batch: &RecordBatch, dimension: Option<usize>, rows: &mut dyn Rows,
) -> Result<Vec<PutRecord>> {
    let given = batch.embeddings.as_ref().map_or(0, ochre_model::Embeddings::dimension);
    if let Some(expected) = dimension
        && given != 0
        && given != expected
    {
        return Err(Error::Dimension { expected, got: given });
    }
    let mut puts: Vec<PutRecord> = Vec::with_capacity(batch.ids.len());
    let mut staged: HashMap<&str, usize> = HashMap::with_capacity(batch.ids.len());
    for (index, id) in batch.ids.iter().enumerate() {
        let slot = match staged.get(id.as_str()) {
            Some(slot) => Some(*slot),
            None => match rows.by_id(id)? {
                Some(_) if kind == WriteKind::Add => continue,
                Some(stored) => {
                    puts.push(unchanged(stored, index));
                    staged.insert(id, puts.len() - 1);
                    Some(puts.len() - 1)
                }
                None => None,
            },
        };
        match (slot, kind) {
            // The first of a batch wins for add; an unknown id is skipped by update.
            (Some(_), WriteKind::Add) | (None, WriteKind::Update) => {}
            (Some(slot), WriteKind::Update | WriteKind::Upsert) => merge(&mut puts[slot], batch, index),
            (None, WriteKind::Add | WriteKind::Upsert) => {
                staged.insert(id, puts.len());
                puts.push(PutRecord {
                    index,
                    before: None,
                    id: id.clone(),
                    embedding: batch.embeddings.as_ref().and_then(|e| e.row(index)).map(|_| index),
                    metadata: batch
                        .metadata(index)
                        .map(ochre_model::MetadataPatch::to_metadata)
                        .filter(|m| !m.is_empty()),
                    uri: batch.uri(index).map(str::to_owned),
                    document: batch.document(index).map(str::to_owned),
                });
            }
        }
    }
    let mut changed = Vec::with_capacity(puts.len());
    for mut put in puts {
        let row = put.embedding.and_then(|index| batch.embeddings.as_ref()?.row(index));
        if let (Some(row), Some(before)) = (row, &put.before)
            && rows.has_vector(before.vector_id, row)?
        {
            put.embedding = None;
        }
        if put.changes_anything() {
            changed.push(put);
        }
    }
    Ok(changed)
}

/// Lets the validator see the records, and maybe change their metadata; what is left of the changes.
pub(crate) fn validate(
    validator: Option<&dyn RecordValidator>, collection: &CollectionRow, batch: &RecordBatch, mut puts: Vec<PutRecord>,
) -> Result<Vec<PutRecord>> {
    let Some(validator) = validator.filter(|_| collection.declaration.is_some()) else { return Ok(puts) };
    let row = |put: &PutRecord| put.embedding.and_then(|index| batch.embeddings.as_ref()?.row(index));
    let mut records: Vec<PendingRecord<'_>> = puts
        .iter_mut()
        .map(|put| PendingRecord {
            index: put.index,
            embedding: row(put),
            id: &put.id,
            before: put.before.as_ref().map(|before| (before.metadata.as_ref(), before.document.as_deref())),
            metadata: &mut put.metadata,
            document: put.document.as_deref(),
        })
        .collect();
    validator.validate(collection, &mut records).map_err(Error::Refused)?;
    puts.retain(PutRecord::changes_anything);
    Ok(puts)
}

fn with_vectors(batch: &RecordBatch, puts: Vec<PutRecord>) -> Resolved {
    let mut resolved = Resolved::default();
    let brought =
        batch.embeddings.iter().flat_map(|embeddings| puts.first().and_then(|put| embeddings.row(put.embedding?)));
    resolved.values.reserve(puts.len() * brought.map(<[f32]>::len).next().unwrap_or(0));
    for put in &puts {
        if let Some(row) = put.embedding.and_then(|index| batch.embeddings.as_ref()?.row(index)) {
            resolved.values.extend_from_slice(row);
            resolved.norms.push(norm(row));
            resolved.dimension = Some(row.len());
        }
    }
    resolved.puts = puts;
    resolved
}

fn unchanged(stored: Stored, index: usize) -> PutRecord {
    PutRecord {
        index,
        id: stored.id.clone(),
        embedding: None,
        metadata: stored.metadata.clone(),
        uri: stored.uri.clone(),
        document: stored.document.clone(),
        before: Some(stored),
    }
}

fn merge(put: &mut PutRecord, batch: &RecordBatch, index: usize) {
    put.index = index;
    if batch.embeddings.as_ref().is_some_and(|embeddings| embeddings.row(index).is_some()) {
        put.embedding = Some(index);
    }
    if let Some(patch) = batch.metadata(index) {
        let mut metadata = put.metadata.take().unwrap_or_default();
        metadata.merge(patch);
        put.metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    }
    if let Some(document) = batch.document(index) {
        put.document = Some(document.to_owned());
    }
    if let Some(uri) = batch.uri(index) {
        put.uri = Some(uri.to_owned());
    }
}

fn resolve_matching(
    offsets: &[u32], at: u64, filter: &Filter, limit: Option<u32>, rows: &mut dyn Rows,
) -> Result<Resolved> {
    let head = rows.position();
    let changed = if at == head { BTreeSet::new() } else { rows.changed_since(at)?.ok_or(Error::Stale { head })? };
    let mut matches: BTreeSet<u32> = offsets.iter().copied().filter(|offset| !changed.contains(offset)).collect();
    for offset in changed {
        if let Some(stored) = rows.by_offset(offset)?
            && filter.matches(&stored.id, stored.metadata.as_ref(), stored.document.as_deref())
        {
            matches.insert(offset);
        }
    }
    let mut resolved = Resolved::default();
    for offset in matches.into_iter().take(limit.map_or(usize::MAX, |limit| limit as usize)) {
        if let Some(stored) = rows.by_offset(offset)? {
            resolved.deletes.push(stored);
        }
    }
    resolved.deleted = resolved.deletes.len() as u64;
    Ok(resolved)
}

/// Adds the keys and types of new metadata to the schema; whether that changed it.
pub(crate) fn learn_keys(schema: &mut IndexSchema, resolved: &Resolved) -> Result<bool> {
    /// Records mostly have the same few keys; comparing them with these is quicker than asking the schema.
    const SEEN_MAX: usize = 16;
    let (mut changed, mut seen) = (false, Vec::with_capacity(SEEN_MAX));
    for put in resolved.puts.iter().filter(|put| put.metadata_changed()) {
        for (key, value) in put.metadata.iter().flat_map(Metadata::iter) {
            let pair = (key, value.value_type());
            if seen.contains(&pair) {
                continue;
            }
            changed |= schema.learn(key, pair.1);
            if seen.len() < SEEN_MAX {
                seen.push(pair);
            }
        }
    }
    if changed {
        let keys = schema.as_json()["keys"].as_object().map_or(0, serde_json::Map::len);
        if keys > KEYS_PER_COLLECTION_MAX {
            return Err(Error::Limit(format!(
                "the write would give the collection {keys} distinct metadata keys, more than the limit of {KEYS_PER_COLLECTION_MAX}"
            )));
        }
    }
    Ok(changed)
}
