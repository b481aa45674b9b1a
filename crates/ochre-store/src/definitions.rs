//! What a database file may define: the tables of this program, those of extensions it knows, and of unknown
//! extensions plain tables and indexes. A trigger or a view would run somebody else's SQL inside ordinary statements.
//!
//! Not here: running migrations (`extension`, `sqlite/migrations`).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::sqlite::migrations::SCRIPTS;

/// The tables of an extension that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionTables {
    /// The name that its tables begin with.
    pub name: String,
    /// Scripts of SQL: `migrations[n]` brings the tables from version `n` to `n + 1`.
    pub migrations: Vec<&'static str>,
}

/// A table, index, trigger or view, with its definition; spaces count once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Definition {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// The definitions of a database; `schema` is `main` or the name of an attached one.
pub(crate) fn definitions(connection: &Connection, schema: &str) -> rusqlite::Result<BTreeSet<Definition>> {
    let mut statement = connection.prepare(&format!("SELECT type, name, sql FROM {schema}.sqlite_schema"))?;
    let rows = statement.query_map([], |row| {
        let sql: Option<String> = row.get(2)?;
        Ok(Definition { kind: row.get(0)?, name: row.get(1)?, sql: one_space(&sql.unwrap_or_default()) })
    })?;
    rows.collect()
}

pub(crate) fn one_space(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What scripts define in an empty database.
pub(crate) fn defined_by(scripts: &[&str]) -> rusqlite::Result<BTreeSet<Definition>> {
    let connection = Connection::open_in_memory()?;
    for script in scripts {
        connection.execute_batch(script)?;
    }
    Ok(definitions(&connection, "main")?.into_iter().filter(|found| !is_of_sqlite(found)).collect())
}

/// Whether SQLite makes this by itself; a name alone proves nothing in a file that somebody tampered with.
fn is_of_sqlite(definition: &Definition) -> bool {
    match definition.kind.as_str() {
        "table" => ["sqlite_sequence", "sqlite_stat1", "sqlite_stat4"].contains(&definition.name.as_str()),
        "index" => definition.name.starts_with("sqlite_autoindex_") && definition.sql.is_empty(),
        _ => false,
    }
}

/// The versions of the extensions that have tables in a database.
pub(crate) fn extensions(connection: &Connection, schema: &str) -> rusqlite::Result<BTreeMap<String, i64>> {
    let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = 'extensions'");
    if !connection.prepare(&sql)?.exists([])? {
        return Ok(BTreeMap::new());
    }
    let mut statement = connection.prepare(&format!("SELECT name, version FROM {schema}.extensions"))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Whether this belongs to the extension: its name begins with the extension's, and with no longer one's.
pub(crate) fn belongs_to(name: &str, extension: &str, all: &BTreeMap<String, i64>) -> bool {
    let begins = |extension: &str| name.strip_prefix(extension).is_some_and(|rest| rest.starts_with('_'));
    begins(extension) && !all.keys().any(|other| other.len() > extension.len() && begins(other))
}

/// What a known extension's tables of this version are; an error text if the program does not know the version.
pub(crate) fn expected_of(
    known: &ExtensionTables, version: i64,
) -> rusqlite::Result<Result<BTreeSet<Definition>, String>> {
    match usize::try_from(version).ok().and_then(|version| known.migrations.get(..version)) {
        Some(migrations) => defined_by(migrations).map(Ok),
        None => Ok(Err(format!(
            "extension '{}' has tables of version {version}, and this program knows versions up to {}",
            known.name,
            known.migrations.len()
        ))),
    }
}

/// Everything that a database of this program does not define; empty if all is as it should be.
pub(crate) fn foreign(connection: &Connection, known: &[ExtensionTables]) -> rusqlite::Result<Vec<String>> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    let scripts = SCRIPTS.get(..usize::try_from(version).unwrap_or(0)).unwrap_or(&SCRIPTS);
    let all = extensions(connection, "main")?;
    let mut expected = defined_by(scripts)?;
    let mut problems = Vec::new();
    for known in known {
        let Some(version) = all.get(&known.name) else { continue };
        match expected_of(known, *version)? {
            Ok(definitions) => expected.extend(definitions),
            Err(problem) => problems.push(problem),
        }
    }
    let unknown: Vec<&String> = all.keys().filter(|name| !known.iter().any(|known| known.name == **name)).collect();
    let found = definitions(connection, "main")?;
    for definition in found.difference(&expected) {
        let Definition { kind, name, sql } = definition;
        let is_plain = kind == "table" && sql.starts_with("CREATE TABLE ")
            || kind == "index" && (sql.starts_with("CREATE INDEX ") || sql.starts_with("CREATE UNIQUE INDEX "));
        let is_of_unknown = is_plain && unknown.iter().any(|extension| belongs_to(name, extension, &all));
        if !(is_of_sqlite(definition) || is_of_unknown || is_table_of_extensions(definition)) {
            problems.push(format!("the {kind} '{name}' is none that this program makes"));
        }
    }
    for Definition { kind, name, .. } in expected.difference(&found) {
        if !found.iter().any(|found| found.name == *name) {
            problems.push(format!("the {kind} '{name}' is missing"));
        }
    }
    Ok(problems)
}

fn is_table_of_extensions(definition: &Definition) -> bool {
    definition.kind == "table"
        && definition.name == "extensions"
        && definition.sql == one_space(crate::extension::EXTENSIONS_TABLE).replace("IF NOT EXISTS ", "")
}

/// The definitions of one extension among those of a database.
pub(crate) fn of_extension(
    definitions: &BTreeSet<Definition>, extension: &str, all: &BTreeMap<String, i64>,
) -> BTreeSet<Definition> {
    definitions
        .iter()
        .filter(|found| belongs_to(&found.name, extension, all) && !is_of_sqlite(found))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SCHEMA_VERSION;

    const NOTES: &str = "CREATE TABLE notes_text (id TEXT PRIMARY KEY); CREATE INDEX notes_by_id ON notes_text (id);";

    /// A database with an extension's tables and `more`; what is found foreign in it.
    fn check(more: &str, known: &[ExtensionTables]) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        SCRIPTS.iter().for_each(|script| connection.execute_batch(script).unwrap());
        connection.pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
        crate::extension::migrate(&connection, "notes", &[NOTES]).unwrap();
        connection.execute_batch(more).unwrap();
        foreign(&connection, known).unwrap()
    }

    #[test]
    fn only_what_programs_make_is_accepted() {
        let known = [ExtensionTables { name: "notes".into(), migrations: vec![NOTES] }];
        assert_eq!(check("ANALYZE", &known), Vec::<String>::new());
        assert_eq!(check("", &[]), Vec::<String>::new());
        assert_eq!(check("CREATE INDEX notes_more ON notes_text (id)", &[]), Vec::<String>::new());
        for (more, name) in [
            ("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END", "trigger 't'"),
            ("CREATE TRIGGER notes_t AFTER INSERT ON records BEGIN SELECT 1; END", "trigger 'notes_t'"),
            ("CREATE VIEW v AS SELECT 1", "view 'v'"),
            ("CREATE TABLE more (id)", "table 'more'"),
            ("CREATE INDEX more ON records (uri)", "index 'more'"),
            ("DROP INDEX records_by_id", "index 'records_by_id' is missing"),
            ("ALTER TABLE records ADD COLUMN x TEXT", "table 'records'"),
        ] {
            for known in [&known[..], &[]] {
                let problems = check(more, known);
                assert!(problems.len() == 1 && problems[0].contains(name), "{more}: {problems:?}");
            }
        }
        assert_eq!(check("CREATE INDEX notes_more ON notes_text (id)", &known).len(), 1);
    }
}
