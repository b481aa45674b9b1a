//! Reading rows: one read transaction on a pooled connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};

use super::connection::{first_rowid, offset_of, read_meta};
use super::layers::{Layer, Layers};
use super::records::TransactionRows;
use super::store::SqliteStore;
use super::{catalog, records};
use crate::block::VectorBlock;
use crate::error::Result;
use crate::resolve::resolve;
use crate::store::{CollectionNumber, Head, Parts, Reader, RowRef, Write};

/// When at least this share of a range of offsets is wanted, reading the range beats seeking each row.
const RANGE_SHARE_MIN: usize = 4;

/// One read snapshot of the database.
pub(super) struct SqliteReader<'a> {
    store: &'a SqliteStore,
    /// Taken only by `drop`.
    connection: Option<Connection>,
    /// What was asked for so far of how collections are layered.
    layers: RefCell<HashMap<CollectionNumber, Rc<Layers>>>,
}

impl SqliteStore {
    /// A snapshot of what is committed now.
    pub(super) fn reader(&self) -> Result<SqliteReader<'_>> {
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open_reader()?,
        };
        SqliteReader::begin(self, connection)
    }
}

impl<'a> SqliteReader<'a> {
    pub(super) fn begin(store: &'a SqliteStore, connection: Connection) -> Result<Self> {
        let reader = Self { store, connection: Some(connection), layers: RefCell::default() };
        // The snapshot is taken by the first read, so one is made at once.
        let transactions = reader.query_rows("begin reading", |connection| {
            connection.prepare_cached("BEGIN")?.execute([])?;
            read_meta(connection, "transactions")
        })?;
        store.refuse_foreign(transactions.cast_unsigned())?;
        Ok(reader)
    }

    /// Runs a query, with errors in the store's terms.
    pub(super) fn query_rows<T>(
        &self, action: &'static str, query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        query(self.connection()).map_err(self.store.error(action))
    }

    /// Resolves a write on this state, for its validator.
    pub(super) fn preview(&self, write: &Write) -> Result<()> {
        let found = self.query_rows("read collection", |connection| {
            let row = catalog::collection_by_id(connection, write.collection)?;
            let head = row.as_ref().map(|row| catalog::head(connection, row.number)).transpose()?.flatten();
            Ok(row.zip(head))
        })?;
        let Some((row, head)) = found else { return Ok(()) };
        let layers = self.layers(row.number)?;
        let mut rows = TransactionRows {
            connection: self.connection(),
            path: &self.store.path,
            segments: &self.store.segments,
            collection: row.number,
            layers: &layers,
            position: head.position,
            staged: &|_| None,
        };
        match resolve(write, &row, &mut rows) {
            // Said when it is committed.
            Err(error) if !error.is_storage() => Ok(()),
            resolved => resolved.map(drop),
        }
    }

    /// The layers of a collection in this state.
    fn layers(&self, collection: CollectionNumber) -> Result<Rc<Layers>> {
        if !self.store.has_forks.load(Ordering::Acquire) {
            return Ok(Rc::new(Layers::single(collection)));
        }
        if let Some(known) = self.layers.borrow().get(&collection) {
            return Ok(Rc::clone(known));
        }
        let layers = Rc::new(self.query_rows("read layers", |connection| Layers::of(connection, collection))?);
        self.layers.borrow_mut().insert(collection, Rc::clone(&layers));
        Ok(layers)
    }

    /// Calls `visit` with the rows at these offsets, in their order; offsets without a row are skipped.
    fn visit_at(
        &self, action: &'static str, collection: CollectionNumber, offsets: &[u32], columns: &str,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return Ok(()) };
        let layers = self.layers(collection)?;
        self.query_rows(action, |connection| {
            if is_dense(offsets) {
                let mut wanted = offsets.iter().copied().peekable();
                return visit_range(connection, &layers, columns, [first, last], &mut |offset, row| {
                    while wanted.next_if(|wanted| *wanted < offset).is_some() {}
                    if wanted.next_if_eq(&offset).is_none() {
                        Ok(ControlFlow::Continue(()))
                    } else {
                        visit(offset, row)
                    }
                });
            }
            let mut statement =
                connection.prepare_cached(&format!("SELECT {columns} FROM records WHERE rowid = ?1"))?;
            for offset in offsets {
                for layer in layers.at(*offset) {
                    let mut rows = statement.query([first_rowid(layer.number) + i64::from(*offset)])?;
                    let Some(row) = rows.next()? else { continue };
                    if !records::is_deleted(row)? && visit(*offset, row)?.is_break() {
                        return Ok(());
                    }
                    break;
                }
            }
            Ok(())
        })
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("the connection is only taken by drop")
    }
}

impl Drop for SqliteReader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.prepare_cached("ROLLBACK").and_then(|mut statement| statement.execute([])).is_ok()
        {
            self.store.give_back(connection);
        }
    }
}

impl Reader for SqliteReader<'_> {
    fn head(&self, collection: CollectionNumber) -> Result<Option<Head>> {
        self.query_rows("read head", |connection| catalog::head(connection, collection))
    }

    fn rows(
        &self, collection: CollectionNumber, offsets: &[u32], parts: Parts,
        visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.visit_at("read records", collection, offsets, &columns(parts), &mut |_, row| Ok(visit(row_ref(row)?)))
    }

    fn documents(&self, collection: CollectionNumber, offsets: &[u32], visit: &mut dyn FnMut(u32, &str)) -> Result<()> {
        self.visit_at("read documents", collection, offsets, "rowid, vector_id, document", &mut |offset, row| {
            if let Some(document) = text(row, 2)? {
                visit(offset, document);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn scan(&self, collection: CollectionNumber, visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let columns = format!("{}, document IS NOT NULL", columns(Parts { metadata: true, ..Parts::default() }));
        let layers = self.layers(collection)?;
        self.query_rows("scan records", |connection| {
            visit_range(connection, &layers, &columns, [0, u32::MAX], &mut |_, row| {
                let has_document = row.get(7)?;
                Ok(visit(RowRef { has_document, ..row_ref(row)? }))
            })
        })
    }

    fn vector_blocks(&self, collection: CollectionNumber) -> Result<Vec<Arc<VectorBlock>>> {
        let segments = &self.store.segments;
        let layers = self.layers(collection)?;
        // Commits wait for this, and not for what has to be read from disk.
        let found: Vec<_> = {
            let _publishing = self.store.publishing.read();
            layers.block_numbers().map(|number| (number, segments.find_blocks(number))).collect()
        };
        Ok(found.iter().flat_map(|(number, found)| segments.load_blocks(*number, found)).collect())
    }

    fn changed_since(&self, collection: CollectionNumber, position: u64) -> Result<Option<Vec<u32>>> {
        self.query_rows("read the log", |connection| {
            let Some(head) = catalog::head(connection, collection)?.filter(|head| head.position >= position) else {
                return Ok(None);
            };
            let changed = records::changed_since(connection, collection, position, head.position)?;
            Ok(changed.map(|changed| changed.into_iter().collect()))
        })
    }

    fn offsets(&self, collection: CollectionNumber, ids: &mut dyn Iterator<Item = &str>) -> Result<Vec<u32>> {
        let layers = self.layers(collection)?;
        self.query_rows("look up ids", |connection| {
            let mut offsets = Vec::new();
            for id in ids {
                let found = records::find_id(connection, &layers, "rowid, vector_id", id, |row| row.get(0))?;
                offsets.extend(found.map(offset_of));
            }
            Ok(offsets)
        })
    }
}

/// Calls `visit` with the row of each record of a collection whose offset lies in a range, in the order of offsets.
pub(crate) fn visit_range(
    connection: &Connection, layers: &Layers, columns: &str, [first, last]: [u32; 2], visit: &mut Visit<'_>,
) -> rusqlite::Result<()> {
    let sql = format!("SELECT {columns} FROM records WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid");
    let span = |layer: &Layer| [first, last].map(|offset| first_rowid(layer.number) + i64::from(offset));
    if layers.is_single() {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(span(layers.own()))?;
        while let Some(row) = rows.next()? {
            if visit(offset_of(row.get(0)?), row)?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    let mut statements =
        layers.iter().map(|_| connection.prepare_cached(&sql)).collect::<rusqlite::Result<Vec<_>>>()?;
    let mut cursors = Vec::with_capacity(statements.len());
    for (statement, layer) in statements.iter_mut().zip(layers.iter()) {
        let mut rows = statement.query(span(layer))?;
        rows.advance()?;
        cursors.push(rows);
    }
    let offset = |rows: &Rows<'_>| rows.get().map(|row| row.get(0).map(offset_of)).transpose();
    loop {
        let offsets = cursors.iter().map(offset).collect::<rusqlite::Result<Vec<_>>>()?;
        let Some(next) = offsets.iter().flatten().min().copied() else { return Ok(()) };
        let mut at_next = cursors.iter_mut().zip(&offsets).filter(|(_, offset)| **offset == Some(next));
        // The topmost layer decides.
        if let Some((rows, _)) = at_next.next() {
            if let Some(row) = rows.get()
                && !records::is_deleted(row)?
                && visit(next, row)?.is_break()
            {
                return Ok(());
            }
            rows.advance()?;
        }
        at_next.try_for_each(|(rows, _)| rows.advance())?;
    }
}

/// Is given the offset of a record and its row.
pub(crate) type Visit<'a> = dyn FnMut(u32, &Row<'_>) -> rusqlite::Result<ControlFlow<()>> + 'a;

/// Whether reading the whole range of these offsets beats seeking each of them.
fn is_dense(offsets: &[u32]) -> bool {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return false };
    offsets.len() > 64 && offsets.is_sorted() && (last - first) as usize / offsets.len() < RANGE_SHARE_MIN
}

fn columns(parts: Parts) -> String {
    let column = |wanted, name| if wanted { name } else { "NULL" };
    format!(
        "rowid, vector_id, id, updated_at_position, {}, {}, {}",
        column(parts.metadata, "metadata"),
        column(parts.uri, "uri"),
        column(parts.document, "document"),
    )
}

fn row_ref<'r>(row: &'r Row<'_>) -> rusqlite::Result<RowRef<'r>> {
    Ok(RowRef {
        offset: offset_of(row.get(0)?),
        id: row.get_ref(2)?.as_str()?,
        vector_id: row.get::<_, i64>(1)?.cast_unsigned(),
        position: row.get::<_, i64>(3)?.cast_unsigned(),
        metadata: text(row, 4)?,
        uri: text(row, 5)?,
        document: text(row, 6)?,
        has_document: false,
    })
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r str>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        value => Ok(Some(value.as_str()?)),
    }
}
