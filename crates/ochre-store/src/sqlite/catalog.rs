//! Tenants, databases and collections in SQLite.

use std::sync::Arc;

use ochre_model::{Declaration, IndexSchema, Metadata};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::connection::{Failure, new_epoch, not_found, read_meta, write_meta};
use crate::error::{Error, Resource};
use crate::store::{
    Alteration, COLLECTIONS_MAX, CollectionNumber, CollectionRow, DEFAULT_DATABASE, DEFAULT_TENANT, DatabaseRow, Head,
    NO_NUMBER_LEFT, NewCollection, Page, Tenant,
};

type Sqlite<T> = rusqlite::Result<T>;
/// A catalog change either fails by itself (the name is taken) or because SQLite failed.
type Changed<T> = Result<T, Failure>;

const COLUMNS: &str = "number, id, tenant, database, name, metadata, schema, dimension, declaration, family";

pub(super) fn log(connection: &Connection, operation: &str, subject: &str) -> Sqlite<()> {
    let mut statement = connection.prepare_cached("INSERT INTO catalog_log (operation, subject) VALUES (?1, ?2)")?;
    statement.execute([operation, subject]).map(drop)
}

pub(super) fn create_tenant(connection: &Connection, name: &str) -> Changed<()> {
    let inserted =
        connection.execute("INSERT INTO tenants (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", [name])?;
    if inserted == 0 {
        return Err(Error::AlreadyExists { kind: Resource::Tenant, name: name.to_owned() }.into());
    }
    log(connection, "create_tenant", name)?;
    Ok(())
}

pub(super) fn tenant(connection: &Connection, name: &str) -> Sqlite<Option<Tenant>> {
    let mut statement = connection.prepare_cached("SELECT name, resource_name FROM tenants WHERE name = ?1")?;
    statement.query_row([name], |row| Ok(Tenant { name: row.get(0)?, resource_name: row.get(1)? })).optional()
}

pub(super) fn tenant_by_resource_name(connection: &Connection, resource_name: &str) -> Sqlite<Option<Tenant>> {
    let mut statement =
        connection.prepare_cached("SELECT name, resource_name FROM tenants WHERE resource_name = ?1")?;
    let tenant = |row: &Row<'_>| Ok(Tenant { name: row.get(0)?, resource_name: row.get(1)? });
    statement.query_row([resource_name], tenant).optional()
}

pub(super) fn set_resource_name(connection: &Connection, tenant: &str, resource_name: &str) -> Changed<()> {
    let changed =
        connection.execute("UPDATE tenants SET resource_name = ?2 WHERE name = ?1", [tenant, resource_name])?;
    if changed == 0 {
        return Err(not_found(Resource::Tenant, tenant).into());
    }
    log(connection, "set_resource_name", tenant)?;
    Ok(())
}

pub(super) fn create_database(connection: &Connection, tenant: &str, name: &str) -> Changed<DatabaseRow> {
    let id = Uuid::new_v4();
    let inserted = connection.execute(
        "INSERT INTO databases (tenant, name, id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![tenant, name, id.as_bytes()],
    )?;
    if inserted == 0 {
        return Err(Error::AlreadyExists { kind: Resource::Database, name: name.to_owned() }.into());
    }
    log(connection, "create_database", &format!("{tenant}/{name}"))?;
    Ok(DatabaseRow { id, name: name.to_owned(), tenant: tenant.to_owned() })
}

fn database_row(row: &Row<'_>) -> Sqlite<DatabaseRow> {
    Ok(DatabaseRow { id: uuid(row, 0)?, name: row.get(1)?, tenant: row.get(2)? })
}

pub(super) fn database(connection: &Connection, tenant: &str, name: &str) -> Sqlite<Option<DatabaseRow>> {
    let mut statement =
        connection.prepare_cached("SELECT id, name, tenant FROM databases WHERE tenant = ?1 AND name = ?2")?;
    statement.query_row([tenant, name], database_row).optional()
}

pub(super) fn databases(connection: &Connection, tenant: &str, page: Page) -> Sqlite<Vec<DatabaseRow>> {
    let mut statement = connection
        .prepare_cached("SELECT id, name, tenant FROM databases WHERE tenant = ?1 ORDER BY name LIMIT ?2 OFFSET ?3")?;
    statement.query_map(params![tenant, limit(page), page.offset], database_row)?.collect()
}

/// Removes the database and marks its collections deleted; their numbers.
pub(super) fn delete_database(connection: &Connection, tenant: &str, name: &str) -> Changed<Vec<CollectionNumber>> {
    let deleted = connection.execute("DELETE FROM databases WHERE tenant = ?1 AND name = ?2", [tenant, name])?;
    if deleted == 0 {
        return Err(not_found(Resource::Database, name).into());
    }
    log(connection, "delete_database", &format!("{tenant}/{name}"))?;
    let mut statement = connection.prepare_cached(
        "UPDATE collections SET deleted = 1 WHERE tenant = ?1 AND database = ?2 AND deleted = 0 RETURNING number",
    )?;
    let numbers = statement.query_map([tenant, name], |row| row.get(0))?.collect::<Sqlite<_>>()?;
    Ok(numbers)
}

pub(super) fn create_collection(connection: &Connection, new: &NewCollection) -> Changed<CollectionRow> {
    if database(connection, &new.tenant, &new.database)?.is_none() {
        return Err(not_found(Resource::Database, &new.database).into());
    }
    if collection(connection, &new.tenant, &new.database, &new.name)?.is_some() {
        return Err(Error::AlreadyExists { kind: Resource::Collection, name: new.name.clone() }.into());
    }
    let id = Uuid::new_v4();
    let mut statement = connection.prepare_cached(
        "INSERT INTO collections (id, tenant, database, name, metadata, schema, declaration)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let metadata = new.metadata.as_ref().map(Metadata::to_text);
    let (schema, declaration) = (new.schema.to_text(), declaration_text(new.declaration.as_ref()));
    statement.execute(params![id.as_bytes(), new.tenant, new.database, new.name, metadata, schema, declaration])?;
    let number = u32::try_from(connection.last_insert_rowid()).ok().filter(|number| *number < COLLECTIONS_MAX);
    let number = number.ok_or_else(|| Error::Limit(NO_NUMBER_LEFT.into()))?;
    log(connection, "create_collection", &id.to_string())?;
    Ok(CollectionRow {
        number,
        id,
        tenant: new.tenant.clone(),
        database: new.database.clone(),
        name: new.name.clone(),
        metadata: new.metadata.clone(),
        declaration: new.declaration.clone().map(Arc::new),
        schema: new.schema.clone(),
        dimension: None,
        family: id,
    })
}

fn declaration_text(declaration: Option<&Declaration>) -> Option<String> {
    declaration.map(|declaration| serde_json::to_string(declaration).expect("JSON has a text"))
}

fn collection_row(row: &Row<'_>) -> Sqlite<CollectionRow> {
    let bad = |column, text: String| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, text.into());
    let metadata: Option<String> = row.get(5)?;
    let metadata = metadata.map(|text| Metadata::from_text(&text)).transpose();
    let schema: String = row.get(6)?;
    let declaration: Option<String> = row.get(8)?;
    let declaration = declaration.map(|text| serde_json::from_str(&text)).transpose();
    Ok(CollectionRow {
        number: row.get(0)?,
        id: uuid(row, 1)?,
        tenant: row.get(2)?,
        database: row.get(3)?,
        name: row.get(4)?,
        metadata: metadata.map_err(|error| bad(5, error.to_string()))?,
        declaration: declaration.map_err(|error| bad(8, error.to_string()))?.map(Arc::new),
        family: row.get::<_, Option<[u8; 16]>>(9)?.map_or(uuid(row, 1)?, Uuid::from_bytes),
        schema: IndexSchema::from_text(&schema).map_err(|error| bad(6, error.to_string()))?,
        dimension: row.get::<_, Option<u32>>(7)?.map(|dimension| dimension as usize),
    })
}

pub(super) fn collection(
    connection: &Connection, tenant: &str, database: &str, name: &str,
) -> Sqlite<Option<CollectionRow>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM collections WHERE tenant = ?1 AND database = ?2 AND name = ?3 AND deleted = 0"
    ))?;
    statement.query_row([tenant, database, name], collection_row).optional()
}

pub(super) fn collection_by_id(connection: &Connection, id: Uuid) -> Sqlite<Option<CollectionRow>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM collections WHERE id = ?1 AND deleted = 0"))?;
    statement.query_row([id.as_bytes()], collection_row).optional()
}

pub(super) fn collections(
    connection: &Connection, tenant: &str, database: &str, page: Page,
) -> Sqlite<Vec<CollectionRow>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM collections WHERE tenant = ?1 AND database = ?2 AND deleted = 0
         ORDER BY id LIMIT ?3 OFFSET ?4"
    ))?;
    statement.query_map(params![tenant, database, limit(page), page.offset], collection_row)?.collect()
}

pub(super) fn all_collections(connection: &Connection) -> Sqlite<Vec<CollectionRow>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM collections WHERE deleted = 0 ORDER BY number"))?;
    statement.query_map([], collection_row)?.collect()
}

/// How many collections descend from one, itself among them if it is there still.
pub(super) fn count_family(connection: &Connection, family: Uuid) -> Sqlite<u64> {
    let mut statement =
        connection.prepare_cached("SELECT count(*) FROM collections WHERE ifnull(family, id) = ?1 AND deleted = 0")?;
    statement.query_row([family.as_bytes()], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

pub(super) fn count_collections(connection: &Connection, tenant: &str, database: &str) -> Sqlite<u64> {
    let mut statement = connection
        .prepare_cached("SELECT count(*) FROM collections WHERE tenant = ?1 AND database = ?2 AND deleted = 0")?;
    statement.query_row([tenant, database], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

pub(super) fn alter_collection(connection: &Connection, id: Uuid, change: &Alteration) -> Changed<CollectionRow> {
    let mut row = collection_by_id(connection, id)?.ok_or_else(|| not_found(Resource::Collection, id))?;
    if let Some(at) = change.at {
        let head = head(connection, row.number)?.map_or(0, |head| head.position);
        if head != at {
            return Err(Error::Stale { head }.into());
        }
    }
    if let Some(name) = change.name.clone().filter(|name| *name != row.name) {
        if collection(connection, &row.tenant, &row.database, &name)?.is_some() {
            return Err(Error::AlreadyExists { kind: Resource::Collection, name }.into());
        }
        row.name = name;
    }
    if let Some(metadata) = &change.metadata {
        row.metadata.clone_from(metadata);
    }
    change.apply_to_schema(&mut row.schema);
    row.declaration = change.declared(row.declaration.as_ref());
    let metadata = row.metadata.as_ref().map(Metadata::to_text);
    let declaration = declaration_text(row.declaration.as_deref());
    connection.execute(
        "UPDATE collections SET name = ?2, metadata = ?3, schema = ?4, declaration = ?5 WHERE number = ?1",
        params![row.number, row.name, metadata, row.schema.to_text(), declaration],
    )?;
    log(connection, "alter_collection", &id.to_string())?;
    Ok(row)
}

pub(super) fn delete_collection(connection: &Connection, id: Uuid) -> Changed<CollectionNumber> {
    let mut statement = connection
        .prepare_cached("UPDATE collections SET deleted = 1 WHERE id = ?1 AND deleted = 0 RETURNING number")?;
    let number = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    log(connection, "delete_collection", &id.to_string())?;
    Ok(number.ok_or_else(|| not_found(Resource::Collection, id))?)
}

/// Empties the catalog, and begins a new epoch; the collections that were deleted, and the epoch.
pub(super) fn reset(connection: &Connection) -> Changed<(Vec<CollectionNumber>, u64)> {
    let epoch = new_epoch();
    let previous = read_meta(connection, "epoch")?;
    write_meta(connection, "previous_epoch", previous)?;
    let mut statement =
        connection.prepare_cached("UPDATE collections SET deleted = 1 WHERE deleted = 0 RETURNING number")?;
    let numbers = statement.query_map([], |row| row.get(0))?.collect::<Sqlite<_>>()?;
    connection.execute("DELETE FROM tenants WHERE name <> ?1", [DEFAULT_TENANT])?;
    connection.execute("UPDATE tenants SET resource_name = NULL", [])?;
    connection.execute("DELETE FROM databases", [])?;
    connection.execute("INSERT INTO databases VALUES (?1, ?2, zeroblob(16))", [DEFAULT_TENANT, DEFAULT_DATABASE])?;
    connection.execute("DELETE FROM idempotency", [])?;
    write_meta(connection, "epoch", epoch)?;
    log(connection, "reset", "")?;
    Ok((numbers, epoch.cast_unsigned()))
}

fn uuid(row: &Row<'_>, column: usize) -> Sqlite<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

/// SQLite's spelling of "no limit" is −1.
fn limit(page: Page) -> i64 {
    page.limit.map_or(-1, i64::from)
}

pub(super) fn head(connection: &Connection, collection: CollectionNumber) -> rusqlite::Result<Option<Head>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, records, next_offset, operations FROM collections WHERE number = ?1 AND deleted = 0",
    )?;
    statement
        .query_row([collection], |row| {
            let next_offset = u32::try_from(row.get::<_, i64>(2)?).unwrap_or(u32::MAX);
            let (position, records) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
            let operations = row.get::<_, i64>(3)?.cast_unsigned();
            Ok(Head { position: position.cast_unsigned(), records: records.cast_unsigned(), next_offset, operations })
        })
        .optional()
}
