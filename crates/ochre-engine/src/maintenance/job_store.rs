//! Schedules and runs of jobs, in two tables of the store beside everything else.
//!
//! One process owns the directory, so a run that another owner left is dead.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{Clock, Error, Finished, JobStore, Run, Schedule, SystemClock, Timestamp};
use ochre_store::SqliteStore;
use ochre_store::rusqlite::{self, Connection, OptionalExtension, Row, params};

/// The jobs of a database on disk.
pub(crate) struct SqliteJobs(pub(crate) Arc<SqliteStore>);

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

/// Lets every schedule begin at a time: what was due before is neither due nor missed. One that cannot be read is made
/// again from the configuration.
pub(crate) fn begin_from(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
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
    let ended = run.ended.map(Timestamp::as_micros);
    let lease = run.lease_until.as_micros();
    statement.execute(params![run.fence.cast_signed(), lease, ended, run.status.is_failure(), to_json(run)?])?;
    Ok(())
}

impl SqliteJobs {
    fn change<T>(&self, change: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.0.change_jobs(change).map_err(failed)
    }
}

impl JobStore for SqliteJobs {
    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self) -> Result<Vec<Schedule>> {
        let load = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT schedule FROM jobs ORDER BY name")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        let texts = self.0.read_jobs(load).map_err(failed)?;
        // One that cannot be read is as good as none: it is made again from the configuration.
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    fn save(&self, schedule: &Schedule) -> Result<bool> {
        self.change(|connection| save(connection, schedule))
    }

    fn begin(&self, schedule: &Schedule, run: &Run, lease: Duration) -> Result<Option<Run>> {
        let lease_until = SystemClock.now() + lease;
        self.change(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT 1 FROM job_runs WHERE job = ?1 AND nominal = ?2 AND kind = ?3 AND attempt = ?4",
            )?;
            let kind = run.kind as i64;
            let key = params![run.job, run.scheduled_at.as_micros(), kind, run.attempt];
            if statement.exists(key)? || !save(connection, schedule)? {
                return Ok(None);
            }
            let mut statement = connection.prepare_cached(
                "INSERT INTO job_runs (job, nominal, kind, attempt, owner, lease_until, failed, run)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, '')",
            )?;
            let lease = lease_until.as_micros();
            statement.execute(params![run.job, run.scheduled_at.as_micros(), kind, run.attempt, run.owner, lease])?;
            let run = Run { fence: connection.last_insert_rowid().cast_unsigned(), lease_until, ..run.clone() };
            update(connection, &run)?;
            Ok(Some(run))
        })
    }

    fn renew_lease(&self, run: &Run, lease: Duration) -> Result<bool> {
        let run = Run { lease_until: SystemClock.now() + lease, ..run.clone() };
        self.change(|connection| {
            let held = is_held(connection, &run)?;
            if held {
                update(connection, &run)?;
            }
            Ok(held)
        })
    }

    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished> {
        self.change(|connection| {
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
        let read = |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT run FROM job_runs WHERE ended IS NULL AND owner <> ?1")?;
            let rows = statement.query_map([owner], |row| from_json(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<Run>>>()
        };
        self.0.read_jobs(read).map_err(failed)
    }

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT run FROM job_runs WHERE job = ?1 ORDER BY fence DESC LIMIT ?2")?;
            let rows = statement.query_map(params![job, limit], |row| from_json(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<Run>>>()
        };
        self.0.read_jobs(read).map_err(failed)
    }

    fn prune(&self, job: &str, before: Timestamp, max: usize, step: usize) -> Result<usize> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.change(|connection| {
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
        self.change(|connection| {
            connection.execute("DELETE FROM jobs WHERE name = ?1", [job])?;
            connection.execute("DELETE FROM job_runs WHERE job = ?1", [job]).map(drop)
        })
    }
}

/// One contract for every job store: the same checks run on SQLite and in memory.
#[cfg(test)]
mod tests {
    use super::*;

    use ochre_scheduler::{Counters, Kind, MemoryJobStore, Policies, Status, Trigger};
    use ochre_store::SqliteOptions;

    const LEASE: Duration = Duration::from_secs(30);

    fn on_every_store(check: impl Fn(&dyn JobStore)) {
        let folder = tempfile::tempdir().unwrap();
        check(&SqliteJobs(Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap())));
        check(&MemoryJobStore::new(Arc::new(SystemClock), true));
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn schedule() -> Schedule {
        Schedule {
            name: "tidy".into(),
            trigger: Trigger::cron("30 2 * * MON-FRI", "Europe/Berlin").unwrap(),
            policies: Policies::default(),
            settings: serde_json::Map::new(),
            declared: serde_json::Value::Null,
            is_enabled: true,
            is_paused: false,
            is_broken: false,
            next: Some(at(60)),
            pending: Vec::new(),
            last_scheduled_at: None,
            last_run: None,
            last_check: None,
            counters: Counters::default(),
            failures: 0,
            version: 0,
        }
    }

    fn run(scheduled_at: i64) -> Run {
        Run {
            job: "tidy".into(),
            scheduled_at: at(scheduled_at),
            kind: Kind::Scheduled,
            attempt: 1,
            owner: "me".into(),
            fence: 0,
            lease_until: at(0),
            started: at(scheduled_at),
            ended: None,
            status: Status::Running,
            message: "there is work".into(),
            progress: None,
            coalesced: 0,
        }
    }

    fn stored(store: &dyn JobStore) -> Schedule {
        store.load().unwrap().remove(0)
    }

    fn ended(run: Run, status: Status) -> Run {
        Run { status, ended: Some(at(1000)), ..run }
    }

    #[test]
    fn a_schedule_is_saved_only_over_the_version_it_was_read_at() {
        on_every_store(|store| {
            assert!(store.save(&schedule()).unwrap());
            let read = stored(store);
            assert_eq!(read, Schedule { version: 1, ..schedule() });
            assert!(!store.save(&schedule()).unwrap(), "another is there");
            assert!(store.save(&Schedule { is_paused: true, ..read.clone() }).unwrap());
            assert!(!store.save(&read).unwrap(), "it has changed");
            assert!(stored(store).is_paused);
        });
    }

    #[test]
    fn a_run_begins_once_and_together_with_its_schedule() {
        on_every_store(|store| {
            store.save(&schedule()).unwrap();
            let read = stored(store);
            let moved = Schedule { next: Some(at(120)), ..read.clone() };
            let first = store.begin(&moved, &run(60), LEASE).unwrap().expect("the first");
            assert!(store.begin(&moved, &run(60), LEASE).unwrap().is_none(), "an older version");
            let read = stored(store);
            assert_eq!(read.next, Some(at(120)));
            assert!(store.begin(&read, &run(60), LEASE).unwrap().is_none(), "the same run");
            assert_eq!(stored(store).version, read.version, "who loses changes nothing");
            let second = store.begin(&read, &run(120), LEASE).unwrap().expect("another");
            assert!(second.fence > first.fence);
            let history = store.history("tidy", 10).unwrap();
            assert_eq!(history.iter().map(|run| run.fence).collect::<Vec<_>>(), [second.fence, first.fence]);
        });
    }

    #[test]
    fn only_the_holder_of_a_run_can_end_it_and_once() {
        on_every_store(|store| {
            store.save(&schedule()).unwrap();
            let run = store.begin(&stored(store), &run(60), LEASE).unwrap().expect("the first");
            assert!(store.renew_lease(&run, LEASE).unwrap());
            let thief = Run { fence: run.fence + 1, ..run.clone() };
            assert!(!store.renew_lease(&thief, LEASE).unwrap());
            let end = ended(run.clone(), Status::Succeeded);
            let finish = |schedule: &Schedule, run: &Run| store.finish(schedule, run).unwrap();
            assert_eq!(finish(&stored(store), &ended(thief, Status::Succeeded)), Finished::NotHeld);
            assert_eq!(finish(&schedule(), &end), Finished::Changed);
            assert_eq!(finish(&stored(store), &end), Finished::Done);
            assert_eq!(finish(&stored(store), &end), Finished::NotHeld);
            assert!(!store.renew_lease(&run, LEASE).unwrap());
            assert_eq!(store.history("tidy", 1).unwrap(), [end]);
        });
    }

    #[test]
    fn what_another_owner_left_under_way_is_abandoned() {
        on_every_store(|store| {
            store.save(&schedule()).unwrap();
            let run = store.begin(&stored(store), &run(60), LEASE).unwrap().expect("the first");
            assert!(store.abandoned("me").unwrap().is_empty());
            assert_eq!(store.abandoned("another").unwrap(), [run]);
        });
    }

    #[test]
    fn pruning_keeps_the_last_run_and_the_last_failure() {
        on_every_store(|store| {
            store.save(&schedule()).unwrap();
            for scheduled_at in 1..=10 {
                let run = store.begin(&stored(store), &run(scheduled_at), LEASE).unwrap().expect("a new one");
                let status = if scheduled_at == 3 { Status::Failed } else { Status::Succeeded };
                store.finish(&stored(store), &ended(run, status)).unwrap();
            }
            assert_eq!(store.prune("tidy", at(0), 6, 2).unwrap(), 2, "a step");
            while store.prune("tidy", at(0), 6, 2).unwrap() > 0 {}
            let nominals =
                |runs: Vec<Run>| runs.iter().map(|run| run.scheduled_at.as_micros() / 1_000_000).collect::<Vec<_>>();
            assert_eq!(nominals(store.history("tidy", 20).unwrap()), [10, 9, 8, 7, 6, 5, 3]);
            store.prune("tidy", at(2000), 100, 100).unwrap();
            assert_eq!(nominals(store.history("tidy", 20).unwrap()), [10, 3]);
        });
    }
}
