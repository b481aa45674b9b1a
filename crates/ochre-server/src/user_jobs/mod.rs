//! Jobs that users make over HTTP: a task with arguments, when to run it, and in whose name.
//!
//! A job does what whoever made it may do, asked again at each run; where it sends anything to is a name that the
//! configuration declares, never an address of a request.

mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use ochre_engine::scheduler::{Clock, Error as ScheduleError, Scheduler, SystemClock, Task, Time, declare};
use ochre_engine::tables::params;
use ochre_engine::{Database, ExtensionTables};
use ochre_extension::{Caller, Failure, Permission, Target};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

pub(crate) use self::task::Reach;
use self::task::{UserTask, Work};

/// The tables that they are kept in.
const EXTENSION: &str = "user_jobs";
const MIGRATIONS: [&str; 1] =
    ["CREATE TABLE user_jobs_jobs (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;"];
/// So many there may be.
const JOBS_MAX: usize = 1000;
/// The longest name, in characters.
const NAME_MAX: usize = 64;

/// The tables of user-made jobs, which are of no extension that could be left out.
pub fn user_job_tables() -> ExtensionTables {
    ExtensionTables { name: EXTENSION.into(), migrations: MIGRATIONS.to_vec() }
}

/// What a request says of a job to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    name: String,
    /// `backup`, `delete` or `webhook`.
    task: String,
    #[serde(default)]
    arguments: Map<String, Json>,
    /// `interval`, `cron` with `zone`, `once` or `delay`.
    trigger: Map<String, Json>,
}

/// A job that a user made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UserJob {
    pub(crate) name: String,
    pub(crate) task: String,
    pub(crate) arguments: Map<String, Json>,
    /// As it was given; of a delay the time that it came to.
    pub(crate) trigger: Map<String, Json>,
    /// The name of whoever made it; empty if nobody was asked.
    pub(crate) made_by: String,
    pub(crate) created_at: Time,
}

/// The jobs that users made.
pub(crate) struct UserJobs {
    reach: Arc<Reach>,
    all: Mutex<BTreeMap<String, Arc<UserJob>>>,
}

impl UserJobs {
    /// Reads the jobs of a database and schedules them.
    pub(crate) fn open(database: &Database, reach: Arc<Reach>) -> Result<Self, ochre_engine::Error> {
        database.extend(EXTENSION, &MIGRATIONS)?;
        let rows: Vec<(String, String)> = database.read_tables(|connection| {
            let mut statement = connection.prepare("SELECT name, state FROM user_jobs_jobs ORDER BY name")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let jobs = Self { reach, all: Mutex::default() };
        for (name, text) in rows {
            let job = match serde_json::from_str::<UserJob>(&text) {
                Ok(job) => Arc::new(job),
                Err(error) => {
                    tracing::error!(job = name, %error, "could not read a job that was made by a user; it is not run");
                    continue;
                }
            };
            // One whose arguments mean nothing any more says so when it runs.
            match jobs.schedule(database.scheduler(), &job) {
                Ok(()) => drop(jobs.all.lock().insert(name, job)),
                Err(error) => tracing::warn!(job = name, %error, "could not schedule a job that was made by a user"),
            }
        }
        Ok(jobs)
    }

    fn schedule(&self, scheduler: &dyn Scheduler, job: &Arc<UserJob>) -> Result<(), ScheduleError> {
        let task: Arc<dyn Task> = Arc::new(UserTask::new(Arc::clone(job), Arc::clone(&self.reach)));
        scheduler.add_task(Arc::clone(&task))?;
        let declared = declare(scheduler, &*task, &job.trigger).map(drop);
        if declared.is_err() {
            // Its task must not stand in the way of another try.
            let _ = scheduler.remove(&job.name);
        }
        declared
    }

    /// Makes a job, in the name of whoever asks.
    pub(crate) fn create(&self, database: &Database, caller: &Caller, new: NewJob) -> Result<Arc<UserJob>, Failure> {
        let scheduler = database.scheduler();
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &new.name;
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) || name.starts_with('-') {
            return Err(Failure::invalid(format!(
                "name: {name:?} is no name of a job; it has 1 to {NAME_MAX} lower-case letters, digits and '-', and does not begin with '-'"
            )));
        }
        let now = SystemClock.now();
        let trigger = trigger(new.trigger, now)?;
        let job = Arc::new(UserJob {
            name: new.name,
            task: new.task,
            arguments: new.arguments,
            trigger,
            made_by: caller.principal().name.clone(),
            created_at: now,
        });
        let work = Work::parse(&job.task, &job.arguments).map_err(Failure::invalid)?;
        self.reach.check(&work).map_err(Failure::invalid)?;
        work.check(caller, database)?;
        let mut all = self.all.lock();
        if scheduler.job(&job.name).is_ok() {
            return Err(Failure::conflict(format!("name: there is a job '{}' already; choose another name", job.name)));
        }
        if all.len() >= JOBS_MAX {
            return Err(Failure::invalid(format!("there are {JOBS_MAX} jobs that users made, the limit; delete some")));
        }
        let text = serde_json::to_string(&*job).map_err(|error| Failure::internal(error.to_string()))?;
        self.schedule(scheduler, &job)?;
        let saved = database.change_tables(|connection| {
            let mut statement = connection.prepare_cached("INSERT INTO user_jobs_jobs VALUES (?1, ?2)")?;
            statement.execute(params![job.name, text]).map(drop)
        });
        if let Err(error) = saved {
            let _ = scheduler.remove(&job.name);
            return Err(error.into());
        }
        all.insert(job.name.clone(), Arc::clone(&job));
        Ok(job)
    }

    /// Deletes a job with its history. Those that the database has by itself can only be switched off.
    pub(crate) fn delete(&self, database: &Database, name: &str) -> Result<Arc<UserJob>, Failure> {
        let mut all = self.all.lock();
        let Some(job) = all.get(name).cloned() else {
            // Says which name was meant.
            database.scheduler().job(name)?;
            return Err(Failure::invalid(format!(
                "job '{name}' is one of the database's own and stays; switch it off: PATCH /_admin/jobs/{name} {{\"enabled\": false}}"
            )));
        };
        database.change_tables(|connection| {
            connection.execute("DELETE FROM user_jobs_jobs WHERE name = ?1", [name]).map(drop)
        })?;
        all.remove(name);
        database.scheduler().remove(name)?;
        Ok(job)
    }

    /// What a user said of a job, if one made it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<UserJob>> {
        self.all.lock().get(name).cloned()
    }
}

impl UserJob {
    pub(crate) fn shown(&self) -> Json {
        json!({
            "task": self.task, "arguments": self.arguments, "made_by": self.made_by, "created_at": self.created_at,
        })
    }
}

/// When a job is due, as it is kept: a delay counts from now on, and never again.
fn trigger(mut given: Map<String, Json>, now: Time) -> Result<Map<String, Json>, Failure> {
    const MEMBERS: [&str; 5] = ["interval", "cron", "zone", "once", "delay"];
    if let Some(other) = given.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let near = ochre_engine::scheduler::nearest(other, MEMBERS.into_iter());
        let hint =
            near.map_or_else(|| format!("there are {}", MEMBERS.join(", ")), |near| format!("did you mean '{near}'?"));
        return Err(Failure::invalid(format!("trigger: there is no member '{other}'; {hint}")));
    }
    if !given.keys().any(|name| name != "zone") {
        return Err(Failure::invalid(
            "trigger: say when the job is due, such as {\"interval\": \"1h\"}, {\"cron\": \"0 3 * * *\"} or {\"once\": \"2030-01-31T00:00:00Z\"}",
        ));
    }
    if let Some(delay) = given.get("delay").filter(|_| given.len() == 1) {
        let text = delay.as_str().ok_or_else(|| {
            Failure::invalid(format!("trigger: delay is {delay}; it has to be a text such as \"10m\""))
        })?;
        let span: ochre_engine::scheduler::Span =
            text.parse().map_err(|error| Failure::invalid(format!("trigger: {error}")))?;
        given = Map::from_iter([("once".to_owned(), json!(now + span.0))]);
    }
    Ok(given)
}

/// Whether somebody may change jobs, which is needed to make one and asked again when it runs.
fn may_change_jobs(caller: &Caller) -> Result<(), Failure> {
    caller.check_in(Permission::JobWrite, Target::default())
}
