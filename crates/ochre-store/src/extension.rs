//! Tables that extensions keep beside everything else: each with a name of its own, which its tables begin with,
//! and with migrations of its own.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{Error, Result};

/// What an extension does with its tables, in one transaction.
pub type TableWork<'a> = &'a mut dyn FnMut(&Connection) -> rusqlite::Result<()>;

/// The table that says which extensions have tables, and of which version.
pub(crate) const EXTENSIONS_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS extensions (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID";

/// Brings the tables of an extension to the newest version: `migrations[n]` brings version `n` to `n + 1`.
///
/// Its tables, indexes, triggers and views are named `<name>_…`: a migration that touches others is refused.
pub(crate) fn migrate(connection: &Connection, name: &str, migrations: &[&str]) -> Result<(), Failure> {
    let refused = |problem: String| Failure::Refused(Error::Extension { name: name.to_owned(), problem });
    if !is_name(name) {
        return Err(refused("its name may have lower-case letters, digits and _, and begins with a letter".into()));
    }
    connection.execute_batch(EXTENSIONS_TABLE)?;
    let mut statement = connection.prepare_cached("SELECT version FROM extensions WHERE name = ?1")?;
    let known: Option<i64> = statement.query_row([name], |row| row.get(0)).optional()?;
    let version = known.unwrap_or(0);
    let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if version > newest {
        return Err(refused(format!(
            "its tables are of version {version}, and this program knows versions up to {newest}; use a newer one"
        )));
    }
    if version == newest {
        return Ok(());
    }
    let (before, prefix) = (objects(connection)?, format!("{name}_"));
    if let Some((object, _)) = before.iter().find(|(object, _)| known.is_none() && object.starts_with(&prefix)) {
        return Err(refused(format!("there is {object} already, which is somebody else's; choose another name")));
    }
    for script in &migrations[usize::try_from(version).unwrap_or(0)..] {
        connection.execute_batch(script).map_err(|error| match error.sqlite_error_code() {
            // The disk and such are no fault of the migration's.
            Some(code) if code != rusqlite::ErrorCode::Unknown => Failure::Sqlite(error),
            _ => refused(format!("a migration fails: {error}")),
        })?;
    }
    let after = objects(connection)?;
    let others = others(connection, &prefix)?;
    let is_own = |object: &str| {
        object.starts_with(&prefix) && others.iter().all(|other| !object.starts_with(&format!("{other}_")))
    };
    if let Some((object, _)) = before.symmetric_difference(&after).find(|(object, _)| !is_own(object)) {
        return Err(refused(format!("a migration touches {object}; what it makes has to be named {prefix}…")));
    }
    connection.prepare_cached("INSERT OR REPLACE INTO extensions VALUES (?1, ?2)")?.execute(params![name, newest])?;
    Ok(())
}

/// Whether an extension may be called this.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_plain)
}

/// Extensions whose names begin like this one's tables.
fn others(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM extensions WHERE substr(name, 1, length(?1)) = ?1")?;
    let rows = statement.query_map([prefix], |row| row.get(0))?;
    rows.collect()
}

/// Everything that is defined, with its definition; what SQLite makes by itself is left out.
fn objects(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The tables of all extensions, and the one that says which there are.
pub(crate) fn tables(connection: &Connection, schema: &str) -> rusqlite::Result<Vec<String>> {
    let exists = |table: &str| {
        let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?1");
        connection.prepare(&sql)?.exists([table])
    };
    if !exists("extensions")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(&format!(
        "SELECT t.name FROM {schema}.sqlite_schema t JOIN {schema}.extensions e
         ON substr(t.name, 1, length(e.name) + 1) = e.name || '_' WHERE t.type = 'table' ORDER BY 1"
    ))?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut tables = vec!["extensions".to_owned()];
    tables.extend(found.collect::<rusqlite::Result<BTreeSet<_>>>()?);
    Ok(tables)
}

/// A migration that did not happen: refused, or because SQLite failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(connection: &Connection, name: &str, migrations: &[&str], words: Option<&str>) {
        connection.execute_batch("SAVEPOINT test").unwrap();
        match (migrate(connection, name, migrations), words) {
            (Ok(()), None) => connection.execute_batch("RELEASE test").unwrap(),
            (Err(Failure::Refused(error)), Some(words)) => {
                assert!(error.to_string().contains(words), "{error}");
                connection.execute_batch("ROLLBACK TO test; RELEASE test").unwrap();
            }
            (other, _) => panic!("{name} {migrations:?}: {other:?}"),
        }
    }

    #[test]
    fn extensions_stay_within_their_names_and_versions() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE records (id TEXT)").unwrap();
        let first = "CREATE TABLE notes_text (id TEXT PRIMARY KEY); CREATE INDEX notes_by_id ON notes_text (id);";
        check(&connection, "notes", &[first], None);
        check(&connection, "notes", &[first], None);
        check(&connection, "notes", &[first, "ALTER TABLE notes_text ADD COLUMN at INTEGER"], None);
        check(&connection, "notes", &[first], Some("a newer one"));
        check(&connection, "other", &["CREATE TABLE notes_more (id TEXT)"], Some("named other_"));
        check(&connection, "other", &["DROP TABLE records"], Some("touches records"));
        check(&connection, "other", &["ALTER TABLE records ADD COLUMN x TEXT"], Some("touches records"));
        check(&connection, "Other", &[], Some("lower-case"));
        check(&connection, "other", &["CREATE TABLE other_x (id TEXT"], Some("a migration fails"));
        check(&connection, "notes_more", &["CREATE TABLE notes_more_text (id TEXT)"], None);
        let second = "ALTER TABLE notes_text ADD COLUMN at INTEGER";
        check(&connection, "notes", &[first, second, "DROP TABLE notes_more_text"], Some("touches notes_more_text"));
        connection.execute_batch("CREATE TABLE vector_blocks (id TEXT)").unwrap();
        check(&connection, "vector", &["DROP TABLE vector_blocks"], Some("somebody else's"));
        connection.execute_batch("DROP TABLE notes_more_text").unwrap();
        assert_eq!(tables(&connection, "main").unwrap(), ["extensions", "notes_text"]);
    }
}
