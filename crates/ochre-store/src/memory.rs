//! The truth in memory: for ephemeral databases and for tests.
//!
//! Written against the [`Store`] contract, not against SQLite; the contract suite holds the two equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_model::Metadata;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rusqlite::Connection;
use uuid::Uuid;

use crate::block::VectorBlock;
use crate::error::{Error, Resource, Result};
use crate::extension::{self, TableWork};
use crate::report::Report;
use crate::resolve::{Resolved, Rows, Stored, learn_keys, merge_records, resolve, validate};
use crate::store::{
    Alteration, Change, CollectionNumber, CollectionRow, Committed, Copy, DEFAULT_DATABASE, DEFAULT_TENANT,
    DatabaseRow, Debt, Head, HeldByForks, IDEMPOTENCY_SECONDS, LOG_ENTRIES_KEPT, NewCollection, Observer, Operation,
    Outcome, Page, Parts, Put, Reader, RowRef, Statistics, Store, Tenant, Upkeep, Write, refuse_more_forks,
};

/// The truth in memory. It goes with the process.
pub struct MemoryStore {
    /// Held through a whole commit, observer included, so that observers see commits in order.
    commit: Mutex<()>,
    state: RwLock<State>,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    /// What extensions keep.
    tables: Mutex<Connection>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        let tables = Connection::open_in_memory().expect("a database in memory needs no file");
        Self {
            commit: Mutex::default(),
            state: RwLock::default(),
            observer: RwLock::default(),
            tables: Mutex::new(tables),
        }
    }
}

struct State {
    epoch: u64,
    tenants: BTreeMap<String, Option<String>>,
    databases: BTreeMap<(String, String), Uuid>,
    collections: BTreeMap<Uuid, Collection>,
    next_number: CollectionNumber,
    next_vector_id: u64,
    idempotency: HashMap<(Uuid, String), (u128, Outcome, Instant)>,
}

#[derive(Clone)]
struct Collection {
    row: CollectionRow,
    position: u64,
    next_offset: u32,
    operations: u64,
    /// Shared with forks until one of them writes.
    records: Arc<BTreeMap<u32, Arc<Record>>>,
    offsets: Arc<HashMap<Arc<str>, u32>>,
    blocks: Vec<Arc<VectorBlock>>,
    log: BTreeMap<u64, Vec<u32>>,
}

/// A record, the position of the commit that last changed it, and its metadata as text.
type Record = (Stored, u64, Option<String>);

impl Collection {
    fn changed_since(&self, position: u64) -> Option<BTreeSet<u32>> {
        let entries: Vec<_> = self.log.range(position + 1..).collect();
        let complete = entries.len() as u64 == self.position.saturating_sub(position);
        complete.then(|| entries.into_iter().flat_map(|(_, offsets)| offsets).copied().collect())
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            epoch: u64::from_ne_bytes(Uuid::new_v4().as_bytes()[..8].try_into().expect("eight bytes")),
            tenants: BTreeMap::from([(DEFAULT_TENANT.to_owned(), None)]),
            databases: BTreeMap::from([((DEFAULT_TENANT.to_owned(), DEFAULT_DATABASE.to_owned()), Uuid::nil())]),
            collections: BTreeMap::new(),
            next_number: 1,
            next_vector_id: 1,
            idempotency: HashMap::new(),
        }
    }
}

impl State {
    fn named<'a>(&'a self, tenant: &'a str, database: &'a str, name: &str) -> Option<&'a Collection> {
        self.of(tenant, database).find(|collection| collection.row.name == name)
    }

    fn of<'a>(&'a self, tenant: &'a str, database: &'a str) -> impl Iterator<Item = &'a Collection> {
        self.collections.values().filter(move |c| c.row.tenant == tenant && c.row.database == database)
    }

    fn numbered(&self, number: CollectionNumber) -> Option<&Collection> {
        self.collections.values().find(|collection| collection.row.number == number)
    }
}

fn page<T>(items: impl Iterator<Item = T>, page: Page) -> Vec<T> {
    let limit = page.limit.map_or(usize::MAX, |limit| limit as usize);
    items.skip(page.offset as usize).take(limit).collect()
}

fn not_found(kind: Resource, name: impl std::fmt::Display) -> Error {
    Error::NotFound { kind, name: name.to_string() }
}

impl Store for MemoryStore {
    fn create_tenant(&self, name: &str) -> Result<()> {
        let mut state = self.state.write();
        if state.tenants.contains_key(name) {
            return Err(Error::AlreadyExists { kind: Resource::Tenant, name: name.to_owned() });
        }
        state.tenants.insert(name.to_owned(), None);
        Ok(())
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        let state = self.state.read();
        let tenant = state.tenants.get(name);
        Ok(tenant.map(|resource_name| Tenant { name: name.to_owned(), resource_name: resource_name.clone() }))
    }

    fn tenant_by_resource_name(&self, resource_name: &str) -> Result<Option<Tenant>> {
        let state = self.state.read();
        let found = state.tenants.iter().find(|(_, name)| name.as_deref() == Some(resource_name));
        Ok(found.map(|(name, resource_name)| Tenant { name: name.clone(), resource_name: resource_name.clone() }))
    }

    fn set_resource_name(&self, tenant: &str, resource_name: &str) -> Result<()> {
        let mut state = self.state.write();
        let slot = state.tenants.get_mut(tenant).ok_or_else(|| not_found(Resource::Tenant, tenant))?;
        *slot = Some(resource_name.to_owned());
        Ok(())
    }

    fn create_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow> {
        let key = (tenant.to_owned(), name.to_owned());
        let mut state = self.state.write();
        if state.databases.contains_key(&key) {
            return Err(Error::AlreadyExists { kind: Resource::Database, name: name.to_owned() });
        }
        let id = Uuid::new_v4();
        state.databases.insert(key, id);
        Ok(DatabaseRow { id, name: name.to_owned(), tenant: tenant.to_owned() })
    }

    fn database(&self, tenant: &str, name: &str) -> Result<Option<DatabaseRow>> {
        let state = self.state.read();
        let id = state.databases.get(&(tenant.to_owned(), name.to_owned()));
        Ok(id.map(|id| DatabaseRow { id: *id, name: name.to_owned(), tenant: tenant.to_owned() }))
    }

    fn databases(&self, tenant: &str, slice: Page) -> Result<Vec<DatabaseRow>> {
        let state = self.state.read();
        let rows = state.databases.iter().filter(|((owner, _), _)| owner == tenant);
        Ok(page(
            rows.map(|((tenant, name), id)| DatabaseRow { id: *id, name: name.clone(), tenant: tenant.clone() }),
            slice,
        ))
    }

    fn delete_database(&self, tenant: &str, name: &str) -> Result<()> {
        let mut state = self.state.write();
        let removed = state.databases.remove(&(tenant.to_owned(), name.to_owned()));
        removed.ok_or_else(|| not_found(Resource::Database, name))?;
        state.collections.retain(|_, collection| collection.row.tenant != tenant || collection.row.database != name);
        Ok(())
    }

    fn create_collection(&self, new: NewCollection) -> Result<CollectionRow> {
        let mut state = self.state.write();
        if !state.databases.contains_key(&(new.tenant.clone(), new.database.clone())) {
            return Err(not_found(Resource::Database, &new.database));
        }
        if state.named(&new.tenant, &new.database, &new.name).is_some() {
            return Err(Error::AlreadyExists { kind: Resource::Collection, name: new.name });
        }
        let id = Uuid::new_v4();
        let row = CollectionRow {
            number: state.next_number,
            id,
            tenant: new.tenant,
            database: new.database,
            name: new.name,
            metadata: new.metadata,
            declaration: new.declaration.map(Arc::new),
            schema: new.schema,
            dimension: None,
            family: id,
        };
        state.next_number += 1;
        let collection = Collection {
            row: row.clone(),
            position: 0,
            next_offset: 0,
            operations: 0,
            records: Arc::default(),
            offsets: Arc::default(),
            blocks: Vec::new(),
            log: BTreeMap::new(),
        };
        state.collections.insert(row.id, collection);
        Ok(row)
    }

    fn fork_collection(&self, source: Uuid, name: &str) -> Result<CollectionRow> {
        let _commit = self.commit.lock();
        let (source, fork) = {
            let mut state = self.state.write();
            let source = state.collections.get(&source).ok_or_else(|| not_found(Resource::Collection, source))?;
            let (tenant, database) = (&source.row.tenant, &source.row.database);
            if state.named(tenant, database, name).is_some() {
                return Err(Error::AlreadyExists { kind: Resource::Collection, name: name.to_owned() });
            }
            let family = state.collections.values().filter(|other| other.row.family == source.row.family).count();
            refuse_more_forks(&source.row.name, family as u64 - 1)?;
            let row = CollectionRow {
                number: state.next_number,
                id: Uuid::new_v4(),
                name: name.to_owned(),
                ..source.row.clone()
            };
            let (source, fork) = (source.row.clone(), Collection { row: row.clone(), ..source.clone() });
            state.next_number += 1;
            state.collections.insert(row.id, fork);
            (source, row)
        };
        if let Some(observer) = self.observer.read().clone() {
            observer.forked(&source, &fork);
        }
        Ok(fork)
    }

    fn count_family(&self, family: Uuid) -> Result<u64> {
        let state = self.state.read();
        Ok(state.collections.values().filter(|collection| collection.row.family == family).count() as u64)
    }

    /// What forks share goes with the last of them, and lies nowhere but in memory.
    fn held_by_forks(&self) -> Result<Vec<HeldByForks>> {
        Ok(Vec::new())
    }

    fn collection(&self, tenant: &str, database: &str, name: &str) -> Result<Option<CollectionRow>> {
        Ok(self.state.read().named(tenant, database, name).map(|collection| collection.row.clone()))
    }

    fn collection_by_id(&self, id: Uuid) -> Result<Option<CollectionRow>> {
        Ok(self.state.read().collections.get(&id).map(|collection| collection.row.clone()))
    }

    fn collections(&self, tenant: &str, database: &str, slice: Page) -> Result<Vec<CollectionRow>> {
        let state = self.state.read();
        Ok(page(state.of(tenant, database).map(|collection| collection.row.clone()), slice))
    }

    fn all_collections(&self) -> Result<Vec<CollectionRow>> {
        Ok(self.state.read().collections.values().map(|collection| collection.row.clone()).collect())
    }

    fn position(&self) -> Result<u64> {
        Ok(self.state.read().collections.values().map(|collection| collection.position).sum())
    }

    fn count_collections(&self, tenant: &str, database: &str) -> Result<u64> {
        Ok(self.state.read().of(tenant, database).count() as u64)
    }

    fn alter_collection(&self, id: Uuid, change: Alteration) -> Result<CollectionRow> {
        let _commit = self.commit.lock();
        let mut state = self.state.write();
        let collection = state.collections.get(&id).ok_or_else(|| not_found(Resource::Collection, id))?;
        if change.at.is_some_and(|at| at != collection.position) {
            return Err(Error::Stale { head: collection.position });
        }
        let row = collection.row.clone();
        if let Some(name) = change.name.as_ref().filter(|name| **name != row.name)
            && state.named(&row.tenant, &row.database, name).is_some()
        {
            return Err(Error::AlreadyExists { kind: Resource::Collection, name: name.clone() });
        }
        let row = &mut state.collections.get_mut(&id).ok_or_else(|| not_found(Resource::Collection, id))?.row;
        change.apply_to_schema(&mut row.schema);
        row.declaration = change.declared(row.declaration.as_ref());
        if let Some(name) = change.name {
            row.name = name;
        }
        if let Some(metadata) = change.metadata {
            row.metadata = metadata;
        }
        Ok(row.clone())
    }

    fn delete_collection(&self, id: Uuid) -> Result<()> {
        let removed = self.state.write().collections.remove(&id);
        removed.map(drop).ok_or_else(|| not_found(Resource::Collection, id))
    }

    fn reset(&self) -> Result<()> {
        let _commit = self.commit.lock();
        let mut state = self.state.write();
        let (next_number, next_vector_id) = (state.next_number, state.next_vector_id);
        *state = State { next_number, next_vector_id, ..State::default() };
        Ok(())
    }

    fn database_id(&self) -> Result<u64> {
        // It cannot be backed up, and so needs no id.
        Ok(0)
    }

    fn epoch(&self) -> u64 {
        self.state.read().epoch
    }

    /// On copies of the records that the write changes: nobody waits for the validator.
    fn preview(&self, write: &Write) -> Result<()> {
        let Operation::Records { kind, batch } = &write.operation else { return Ok(()) };
        let (row, puts) = {
            let state = self.state.read();
            let Some(collection) = state.collections.get(&write.collection) else { return Ok(()) };
            let puts = merge_records(*kind, batch, collection.row.dimension, &mut MemoryRows(collection));
            (collection.row.clone(), puts)
        };
        // What refuses the write is reported when it is committed.
        let _ = puts.and_then(|puts| validate(write.validator.as_deref(), &row, batch, puts));
        Ok(())
    }

    fn commit(&self, write: Write) -> Result<Outcome> {
        let _commit = self.commit.lock();
        let (outcome, committed) = self.state.write().apply(&write)?;
        let observer = self.observer.read().clone();
        if let (Some(committed), Some(observer)) = (committed, observer) {
            observer.committed(&Arc::new(committed));
        }
        Ok(outcome)
    }

    fn read(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(MemoryReader(self.state.read())))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        *self.observer.write() = Some(observer);
    }

    /// Drops blocks none of whose vectors is referenced, and old idempotency keys; there is nothing else
    /// to keep up.
    fn upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        match upkeep {
            Upkeep::CompactVectors { .. } => {
                let mut moved = Vec::new();
                for collection in self.state.write().collections.values_mut() {
                    let live: BTreeSet<u64> = collection.records.values().map(|record| record.0.vector_id).collect();
                    let before = collection.blocks.len();
                    collection.blocks.retain(|block| block.ids().iter().any(|id| live.contains(id)));
                    if collection.blocks.len() != before {
                        moved.push(collection.row.number);
                    }
                }
                if let Some(observer) = self.observer.read().clone().filter(|_| !moved.is_empty()) {
                    observer.relocated(&moved);
                }
            }
            Upkeep::PruneLog => {
                let kept = Duration::from_secs(IDEMPOTENCY_SECONDS.cast_unsigned());
                self.state.write().idempotency.retain(|_, (_, _, since)| since.elapsed() < kept);
            }
            _ => {}
        }
        Ok(false)
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(Statistics::default())
    }

    fn debt(&self) -> Result<Debt> {
        Ok(Debt::default())
    }

    fn retain_log(&self, _: &str, _: &[(CollectionNumber, u64)]) -> Result<()> {
        Ok(())
    }

    fn retain_log_for_snapshot(&self, _: CollectionNumber, _: Option<u64>) -> Result<()> {
        Ok(())
    }

    fn copy_whole(&self, _: &std::path::Path) -> Result<Copy> {
        Err(Error::Limit("a database in memory cannot be backed up: it has no files".into()))
    }

    fn copy_changes(&self, _: &Copy, folder: &std::path::Path) -> Result<Copy> {
        self.copy_whole(folder)
    }

    fn scrub(&self, _: &mut dyn FnMut(&str, u64) -> bool) -> Result<Option<Report>> {
        Ok(Some(Report::default()))
    }

    fn waited_for_upkeep(&self) -> Duration {
        Duration::ZERO
    }

    fn drop_pages(&self) {}

    fn extend(&self, name: &str, migrations: &[&str]) -> Result<()> {
        let mut tables = self.tables.lock();
        let mut change = || {
            let transaction = tables.transaction()?;
            extension::migrate(&transaction, name, migrations)?;
            Ok(transaction.commit()?)
        };
        change().map_err(|failure| match failure {
            extension::Failure::Refused(error) => error,
            extension::Failure::Sqlite(error) => failed(&error),
        })
    }

    fn change_tables(&self, work: TableWork<'_>) -> Result<()> {
        let mut tables = self.tables.lock();
        let mut change = || {
            let transaction = tables.transaction()?;
            work(&transaction)?;
            transaction.commit()
        };
        change().map_err(|error| failed(&error))
    }

    fn touch_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.change_tables(work)
    }

    fn read_tables(&self, work: TableWork<'_>) -> Result<()> {
        work(&self.tables.lock()).map_err(|error| failed(&error))
    }
}

fn failed(error: &rusqlite::Error) -> Error {
    Error::sqlite("use tables of extensions", Path::new(":memory:"), error)
}

impl State {
    fn apply(&mut self, write: &Write) -> Result<(Outcome, Option<Committed>)> {
        if let Some(key) = &write.idempotency
            && let Some((request, outcome, _)) = self.idempotency.get(&(write.collection, key.key.clone()))
        {
            return if *request == key.request {
                Ok((Outcome { replayed: true, ..*outcome }, None))
            } else {
                Err(Error::IdempotencyConflict { key: key.key.clone() })
            };
        }
        let missing = || not_found(Resource::Collection, write.collection);
        let collection = self.collections.get_mut(&write.collection).ok_or_else(missing)?;
        let row = collection.row.clone();
        let resolved = resolve(write, &row, &mut MemoryRows(collection))?;
        let (deleted, is_nothing) = (resolved.deleted, resolved.is_nothing());
        let committed =
            if is_nothing { None } else { Some(apply_resolved(collection, &mut self.next_vector_id, resolved)?) };
        let outcome = Outcome { position: collection.position, deleted, replayed: false };
        if let Some(key) = &write.idempotency {
            self.idempotency.insert((write.collection, key.key.clone()), (key.request, outcome, Instant::now()));
        }
        Ok((outcome, committed))
    }
}

/// Applies what a write comes to.
fn apply_resolved(collection: &mut Collection, next_vector_id: &mut u64, resolved: Resolved) -> Result<Committed> {
    let position = collection.position + 1;
    let mut schema = collection.row.schema.clone();
    let learned = learn_keys(&mut schema, &resolved)?;
    let dimension = collection.row.dimension.or(resolved.dimension);
    let first_id = *next_vector_id;
    let (mut changes, mut touched) = (Vec::new(), Vec::new());
    let (records, offsets) = (Arc::make_mut(&mut collection.records), Arc::make_mut(&mut collection.offsets));
    for put in resolved.puts {
        let offset = put.before.as_ref().map_or(collection.next_offset, |before| before.offset);
        if put.before.is_none() {
            collection.next_offset = offset.checked_add(1).ok_or_else(|| {
                Error::Limit("the collection has used all 2³² record offsets; copy it into a new one".into())
            })?;
        }
        let vector = put.embedding.map(|_| {
            *next_vector_id += 1;
            (0, usize::try_from(*next_vector_id - 1 - first_id).expect("a batch fits memory"))
        });
        let vector_id = match (&put.before, vector) {
            (Some(before), None) => before.vector_id,
            _ => *next_vector_id - 1,
        };
        touched.push(offset);
        changes.push(Change::Put(Put {
            offset,
            vector_id,
            vector,
            metadata: put.metadata_changed().then(|| put.metadata.clone().unwrap_or_default()),
            has_document: put.document.is_some(),
            document_changed: put.document_changed(),
        }));
        offsets.insert(put.id.as_str().into(), offset);
        let text = put.metadata.as_ref().map(Metadata::to_text);
        let stored =
            Stored { offset, id: put.id, vector_id, metadata: put.metadata, uri: put.uri, document: put.document };
        records.insert(offset, Arc::new((stored, position, text)));
    }
    for deleted in resolved.deletes {
        records.remove(&deleted.offset);
        offsets.remove(&*deleted.id);
        touched.push(deleted.offset);
        changes.push(Change::Delete { offset: deleted.offset });
    }
    collection.position = position;
    collection.operations += changes.len() as u64;
    collection.log.insert(position, touched);
    while collection.log.len() as u64 > LOG_ENTRIES_KEPT {
        collection.log.pop_first();
    }
    let mut blocks = Vec::new();
    if !resolved.norms.is_empty() {
        let ids = (first_id..*next_vector_id).collect();
        blocks.push(Arc::new(VectorBlock::owned(dimension.unwrap_or(0), ids, resolved.norms, resolved.values)));
        collection.blocks.extend(blocks.iter().cloned());
    }
    let row_changed = learned || dimension != collection.row.dimension;
    collection.row.schema = schema;
    collection.row.dimension = dimension;
    Ok(Committed {
        collection: collection.row.number,
        id: collection.row.id,
        position,
        changes,
        blocks,
        row: row_changed.then(|| Arc::new(collection.row.clone())),
    })
}

struct MemoryRows<'a>(&'a Collection);

impl Rows for MemoryRows<'_> {
    fn by_id(&mut self, id: &str) -> Result<Option<Stored>> {
        let offset = self.0.offsets.get(id).copied();
        offset.map_or(Ok(None), |offset| self.by_offset(offset))
    }

    fn by_offset(&mut self, offset: u32) -> Result<Option<Stored>> {
        Ok(self.0.records.get(&offset).map(|record| record.0.clone()))
    }

    fn last_change(&mut self, id: &str) -> Result<Option<u64>> {
        let offset = self.0.offsets.get(id);
        Ok(offset.and_then(|offset| self.0.records.get(offset)).map(|record| record.1))
    }

    fn has_vector(&mut self, vector_id: u64, vector: &[f32]) -> Result<bool> {
        Ok(self.0.blocks.iter().any(|block| {
            let index = block.ids().binary_search(&vector_id);
            index.is_ok_and(|index| block.row(index).is_ok_and(|row| row == vector))
        }))
    }

    fn changed_since(&mut self, position: u64) -> Result<Option<BTreeSet<u32>>> {
        Ok(self.0.changed_since(position))
    }

    fn position(&self) -> u64 {
        self.0.position
    }
}

struct MemoryReader<'a>(RwLockReadGuard<'a, State>);

fn row_ref(record: &Record, parts: Parts) -> RowRef<'_> {
    let (stored, position, metadata) = record;
    RowRef {
        offset: stored.offset,
        id: &stored.id,
        vector_id: stored.vector_id,
        position: *position,
        metadata: metadata.as_deref().filter(|_| parts.metadata),
        uri: stored.uri.as_deref().filter(|_| parts.uri),
        document: stored.document.as_deref().filter(|_| parts.document),
        has_document: stored.document.is_some(),
    }
}

impl Reader for MemoryReader<'_> {
    fn head(&self, collection: CollectionNumber) -> Result<Option<Head>> {
        Ok(self.0.numbered(collection).map(|collection| Head {
            position: collection.position,
            records: collection.records.len() as u64,
            next_offset: collection.next_offset,
            operations: collection.operations,
        }))
    }

    fn rows(
        &self, collection: CollectionNumber, offsets: &[u32], parts: Parts,
        visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(collection) = self.0.numbered(collection) else { return Ok(()) };
        for entry in offsets.iter().filter_map(|offset| collection.records.get(offset)) {
            if visit(row_ref(entry, parts)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn documents(&self, collection: CollectionNumber, offsets: &[u32], visit: &mut dyn FnMut(u32, &str)) -> Result<()> {
        let Some(collection) = self.0.numbered(collection) else { return Ok(()) };
        for (offset, record) in offsets.iter().filter_map(|o| Some((o, collection.records.get(o)?))) {
            if let Some(document) = &record.0.document {
                visit(*offset, document);
            }
        }
        Ok(())
    }

    fn scan(&self, collection: CollectionNumber, visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let Some(collection) = self.0.numbered(collection) else { return Ok(()) };
        let parts = Parts { metadata: true, ..Parts::default() };
        for entry in collection.records.values() {
            if visit(row_ref(entry, parts)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn vector_blocks(&self, collection: CollectionNumber) -> Result<Vec<Arc<VectorBlock>>> {
        Ok(self.0.numbered(collection).map(|collection| collection.blocks.clone()).unwrap_or_default())
    }

    fn changed_since(&self, collection: CollectionNumber, position: u64) -> Result<Option<Vec<u32>>> {
        let collection = self.0.numbered(collection).filter(|collection| collection.position >= position);
        let changed = collection.and_then(|collection| collection.changed_since(position));
        Ok(changed.map(|changed| changed.into_iter().collect()))
    }

    fn offsets(&self, collection: CollectionNumber, ids: &mut dyn Iterator<Item = &str>) -> Result<Vec<u32>> {
        let Some(collection) = self.0.numbered(collection) else { return Ok(Vec::new()) };
        Ok(ids.filter_map(|id| collection.offsets.get(id).copied()).collect())
    }
}
