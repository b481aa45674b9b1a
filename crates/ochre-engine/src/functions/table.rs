//! Where attached functions are kept: a table of their own.

use ochre_store::Store;
use ochre_store::rusqlite::{self, params};
use uuid::Uuid;

use crate::error::Error;
use crate::functions::attached::{Function, State};

pub(super) const MIGRATIONS: [&str; 1] = ["
CREATE TABLE functions_attached (
    id BLOB PRIMARY KEY, collection BLOB NOT NULL UNIQUE, output BLOB NOT NULL, name TEXT NOT NULL,
    function TEXT NOT NULL, position INTEGER
) WITHOUT ROWID;
"];

/// Every function that is attached. One that this program does not know is left alone.
pub(super) fn read(store: &dyn Store) -> Result<Vec<State>, Error> {
    let mut found = Vec::new();
    store.read_tables(&mut |connection| {
        let mut statement =
            connection.prepare("SELECT id, collection, output, name, function, position FROM functions_attached")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = |column| Ok::<_, rusqlite::Error>(Uuid::from_bytes(row.get(column)?));
            let (name, function): (String, String) = (row.get(3)?, row.get(4)?);
            let Some(function) = Function::from_name(&function) else {
                tracing::warn!(name, function, "an attached function is of a newer version and is not computed");
                continue;
            };
            let position: Option<i64> = row.get(5)?;
            found.push(State::new(id(0)?, &name, function, id(1)?, id(2)?).at(position.map(i64::cast_unsigned)));
        }
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn insert(store: &dyn Store, state: &State) -> Result<(), Error> {
    let [id, collection, output] = [state.id, state.collection, state.output].map(Uuid::into_bytes);
    Ok(store.change_tables(&mut |connection| {
        let sql = "INSERT INTO functions_attached VALUES (?1, ?2, ?3, ?4, ?5, NULL)";
        connection.execute(sql, params![id, collection, output, state.name, state.function.name()]).map(drop)
    })?)
}

/// Notes the position that an output was computed at.
pub(super) fn set_position(store: &dyn Store, id: Uuid, position: u64) -> Result<(), Error> {
    Ok(store.touch_tables(&mut |connection| {
        let sql = "UPDATE functions_attached SET position = ?2 WHERE id = ?1";
        connection.execute(sql, params![id.into_bytes(), position.cast_signed()]).map(drop)
    })?)
}

pub(super) fn delete(store: &dyn Store, ids: &[Uuid]) -> Result<(), Error> {
    Ok(store.change_tables(&mut |connection| {
        let mut statement = connection.prepare("DELETE FROM functions_attached WHERE id = ?1")?;
        ids.iter().try_for_each(|id| statement.execute([id.into_bytes()]).map(drop))
    })?)
}
