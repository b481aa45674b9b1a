//! Schedules and runs of jobs, in two tables beside everything else.
//!
//! One process owns the directory, so a run that another owner left is dead.

use std::time::Duration;

use ochre_scheduler::{Clock, Error, Finished, JobStore, Run, Schedule, SystemClock, Time};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::writer::Failure;

type Result<T> = std::result::Result<T, Error>;

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}

fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into()))
}

/// Saves a schedule if it is still of its version; whether it was.
fn save(connection: &Connection, schedule: &Schedule) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT version FROM jobs WHERE name = ?1")?;
    let stored: Option<i64> = statement.query_row([&schedule.name], |row| row.get(0)).optional()?;
    if stored.unwrap_or(0).cast_unsigned() != schedule.version {
        return Ok(false);
    }
    let next = Schedule { version: schedule.version + 1, ..schedule.clone() };
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3)")?;
    statement.execute(params![next.name, next.version.cast_signed(), to_json(&next)?])?;
    Ok(true)
}

/// Lets every schedule begin at a time: what was due before is neither due nor missed. One that cannot be read is made anew
/// from the configuration.
pub(super) fn begin_from(connection: &Connection, now: Time) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT name, schedule FROM jobs")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
    for (name, text) in rows {
        match serde_json::from_str::<Schedule>(&text) {
            Ok(mut schedule) if schedule.name == name && schedule.is_sound() => {
                schedule.begin_from(now);
                // One version, wherever it stands.
                schedule.version = 1;
                let sql = "UPDATE jobs SET version = 1, schedule = ?2 WHERE name = ?1";
                connection.execute(sql, params![name, to_json(&schedule)?])?;
            }
            _ => drop(connection.execute("DELETE FROM jobs WHERE name = ?1", [name])?),
        }
    }
    Ok(())
}

fn is_held(connection: &Connection, run: &Run) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM job_runs WHERE fence = ?1 AND job = ?2 AND ended IS NULL")?;
    statement.exists(params![run.fence.cast_signed(), run.job])
}

fn update(connection: &Connection, run: &Run) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE job_runs SET lease_until = ?2, ended = ?3, failed = ?4, run = ?5 WHERE fence = ?1")?;
    let ended = run.ended.map(Time::as_micros);
    let lease = run.lease_until.as_micros();
    statement.execute(params![run.fence.cast_signed(), lease, ended, run.status.is_failure(), to_json(run)?])?;
    Ok(())
}

impl SqliteStore {
    fn change_jobs<T>(&self, change: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.making_room(|| self.change_catalog(|connection| change(connection).map_err(Failure::from))).map_err(failed)
    }
}

impl JobStore for SqliteStore {
    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self) -> Result<Vec<Schedule>> {
        let reader = self.reader().map_err(failed)?;
        let load = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT schedule FROM jobs ORDER BY name")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        let texts = reader.ask("read jobs", load).map_err(failed)?;
        // One that cannot be read is as good as none: it is made anew from the configuration.
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    fn save(&self, schedule: &Schedule) -> Result<bool> {
        self.change_jobs(|connection| save(connection, schedule))
    }

    fn begin(&self, schedule: &Schedule, run: &Run, lease: Duration) -> Result<Option<Run>> {
        let lease_until = SystemClock.now() + lease;
        self.change_jobs(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT 1 FROM job_runs WHERE job = ?1 AND nominal = ?2 AND kind = ?3 AND attempt = ?4",
            )?;
            let kind = run.kind as i64;
            let key = params![run.job, run.nominal.as_micros(), kind, run.attempt];
            if statement.exists(key)? || !save(connection, schedule)? {
                return Ok(None);
            }
            let mut statement = connection.prepare_cached(
                "INSERT INTO job_runs (job, nominal, kind, attempt, owner, lease_until, failed, run)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, '')",
            )?;
            let lease = lease_until.as_micros();
            statement.execute(params![run.job, run.nominal.as_micros(), kind, run.attempt, run.owner, lease])?;
            let run = Run { fence: connection.last_insert_rowid().cast_unsigned(), lease_until, ..run.clone() };
            update(connection, &run)?;
            Ok(Some(run))
        })
    }

    fn beat(&self, run: &Run, lease: Duration) -> Result<bool> {
        let run = Run { lease_until: SystemClock.now() + lease, ..run.clone() };
        self.change_jobs(|connection| {
            let held = is_held(connection, &run)?;
            if held {
                update(connection, &run)?;
            }
            Ok(held)
        })
    }

    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished> {
        self.change_jobs(|connection| {
            if !is_held(connection, run)? {
                return Ok(Finished::NotHeld);
            }
            if !save(connection, schedule)? {
                return Ok(Finished::Changed);
            }
            update(connection, run)?;
            Ok(Finished::Done)
        })
    }

    fn abandoned(&self, owner: &str) -> Result<Vec<Run>> {
        let reader = self.reader().map_err(failed)?;
        let read = |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT run FROM job_runs WHERE ended IS NULL AND owner <> ?1")?;
            let rows = statement.query_map([owner], |row| from_json(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<Run>>>()
        };
        reader.ask("read runs", read).map_err(failed)
    }

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>> {
        let reader = self.reader().map_err(failed)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT run FROM job_runs WHERE job = ?1 ORDER BY fence DESC LIMIT ?2")?;
            let rows = statement.query_map(params![job, limit], |row| from_json(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<Run>>>()
        };
        reader.ask("read runs", read).map_err(failed)
    }

    fn prune(&self, job: &str, before: Time, max: usize, step: usize) -> Result<usize> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.change_jobs(|connection| {
            let mut statement = connection.prepare_cached(
                "DELETE FROM job_runs WHERE fence IN (
                     SELECT fence FROM (
                         SELECT fence, ended, failed, row_number() OVER (ORDER BY fence DESC) AS place
                         FROM job_runs WHERE job = ?1 AND ended IS NOT NULL)
                     WHERE place > 1 AND (place > ?3 OR ended < ?2) AND fence IS NOT (
                         SELECT max(fence) FROM job_runs WHERE job = ?1 AND ended IS NOT NULL AND failed = 1)
                     LIMIT ?4)",
            )?;
            statement.execute(params![job, before.as_micros(), number(max), number(step)])
        })
    }

    fn remove(&self, job: &str) -> Result<()> {
        self.change_jobs(|connection| {
            connection.execute("DELETE FROM jobs WHERE name = ?1", [job])?;
            connection.execute("DELETE FROM job_runs WHERE job = ?1", [job]).map(drop)
        })
    }
}
