//! Reading rows: one read transaction on a pooled connection.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connection::{first_rowid, offset_of, read_meta};
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
        let reader = Self { store, connection: Some(connection) };
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
        let mut rows = TransactionRows {
            connection: self.connection(),
            path: &self.store.path,
            segments: &self.store.segments,
            collection: row.number,
            position: head.position,
            staged: &|_| None,
        };
        match resolve(write, &row, &mut rows) {
            // Said when it is committed.
            Err(error) if !error.is_storage() => Ok(()),
            resolved => resolved.map(drop),
        }
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
        let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return Ok(()) };
        let columns = columns(parts);
        let dense = is_dense(offsets);
        self.query_rows("read records", |connection| {
            if dense {
                let sql = format!("SELECT {columns} FROM records WHERE rowid BETWEEN ?1 AND ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                let base = first_rowid(collection);
                let mut rows = statement.query(params![base + i64::from(first), base + i64::from(last)])?;
                let mut wanted = offsets.iter().copied().peekable();
                while let Some(row) = rows.next()? {
                    let row = row_ref(row)?;
                    while wanted.next_if(|offset| *offset < row.offset).is_some() {}
                    if wanted.next_if_eq(&row.offset).is_some() && visit(row).is_break() {
                        return Ok(());
                    }
                }
                return Ok(());
            }
            let mut statement =
                connection.prepare_cached(&format!("SELECT {columns} FROM records WHERE rowid = ?1"))?;
            for offset in offsets {
                let mut rows = statement.query([first_rowid(collection) + i64::from(*offset)])?;
                if let Some(row) = rows.next()?
                    && visit(row_ref(row)?).is_break()
                {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn documents(&self, collection: CollectionNumber, offsets: &[u32], visit: &mut dyn FnMut(u32, &str)) -> Result<()> {
        let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return Ok(()) };
        let base = first_rowid(collection);
        self.query_rows("read documents", |connection| {
            if !is_dense(offsets) {
                let mut statement = connection.prepare_cached("SELECT document FROM records WHERE rowid = ?1")?;
                for offset in offsets {
                    let mut rows = statement.query([base + i64::from(*offset)])?;
                    if let Some(row) = rows.next()?
                        && let Some(document) = text(row, 0)?
                    {
                        visit(*offset, document);
                    }
                }
                return Ok(());
            }
            let mut statement =
                connection.prepare_cached("SELECT rowid, document FROM records WHERE rowid BETWEEN ?1 AND ?2")?;
            let mut rows = statement.query(params![base + i64::from(first), base + i64::from(last)])?;
            let mut wanted = offsets.iter().copied().peekable();
            while let Some(row) = rows.next()? {
                let offset = offset_of(row.get(0)?);
                while wanted.next_if(|wanted| *wanted < offset).is_some() {}
                if wanted.next_if_eq(&offset).is_some()
                    && let Some(document) = text(row, 1)?
                {
                    visit(offset, document);
                }
            }
            Ok(())
        })
    }

    fn scan(&self, collection: CollectionNumber, visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let parts = Parts { metadata: true, ..Parts::default() };
        self.query_rows("scan records", |connection| {
            let sql = format!(
                "SELECT {}, document IS NOT NULL FROM records WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid",
                columns(parts)
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let base = first_rowid(collection);
            let mut rows = statement.query(params![base, base + i64::from(u32::MAX)])?;
            while let Some(row) = rows.next()? {
                let has_document = row.get(7)?;
                if visit(RowRef { has_document, ..row_ref(row)? }).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn vector_blocks(&self, collection: CollectionNumber) -> Result<Vec<Arc<VectorBlock>>> {
        let segments = &self.store.segments;
        // Commits wait for this, and not for what has to be read from disk.
        let found = {
            let _publishing = self.store.publishing.read();
            segments.find_blocks(collection)
        };
        Ok(segments.load_blocks(collection, &found))
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
        self.query_rows("look up ids", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT rowid FROM records WHERE collection = ?1 AND id = ?2")?;
            let mut offsets = Vec::new();
            for id in ids {
                let rowid: Option<i64> = statement.query_row(params![collection, id], |row| row.get(0)).optional()?;
                offsets.extend(rowid.map(offset_of));
            }
            Ok(offsets)
        })
    }
}

/// Whether reading the whole range of these offsets beats seeking each of them.
fn is_dense(offsets: &[u32]) -> bool {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return false };
    offsets.len() > 64 && offsets.is_sorted() && (last - first) as usize / offsets.len() < RANGE_SHARE_MIN
}

fn columns(parts: Parts) -> String {
    let column = |wanted, name| if wanted { name } else { "NULL" };
    format!(
        "rowid, id, vector_id, updated_at_position, {}, {}, {}",
        column(parts.metadata, "metadata"),
        column(parts.uri, "uri"),
        column(parts.document, "document"),
    )
}

fn row_ref<'r>(row: &'r Row<'_>) -> rusqlite::Result<RowRef<'r>> {
    Ok(RowRef {
        offset: offset_of(row.get(0)?),
        id: row.get_ref(1)?.as_str()?,
        vector_id: row.get::<_, i64>(2)?.cast_unsigned(),
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
