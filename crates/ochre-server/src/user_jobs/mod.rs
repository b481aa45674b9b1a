//! Jobs that users make over HTTP: a task with arguments, when to run it, and in whose name.
//!
//! A job does what whoever made it may do, asked again at each run; where it sends anything to is a name that the
//! configuration declares, never an address of a request.

mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use ochre_engine::scheduler::{Clock, Error as ScheduleError, Scheduler, SystemClock, Task, Timestamp, declare};
use ochre_engine::tables::params;
use ochre_engine::{Database, ExtensionTables};
use ochre_extension::{Caller, Failure, Permission, Target};
use ochre_wire::admin::jobs as wire;
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
/// The most that arguments may be, in bytes of JSON.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
/// Arguments that hold values of records, or what is sent.
const VALUES: [&str; 3] = ["where", "where_document", "body"];
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
    pub(crate) created_at: Timestamp,
    /// The database that it was made in: in a restored one it waits until somebody resumes it.
    #[serde(default)]
    pub(crate) database: String,
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
        let home = database.id()?;
        for (name, text) in rows {
            let job = match serde_json::from_str::<UserJob>(&text) {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(job = name, %error, "could not read a job that was made by a user; it is not run");
                    continue;
                }
            };
            let is_restored = job.database != home;
            let job = Arc::new(UserJob { database: home.clone(), ..job });
            // One whose arguments mean nothing any more says so when it runs.
            match jobs.schedule(database.scheduler(), &job) {
                Ok(()) if is_restored => {
                    // What it deletes may be what was restored, and what it posts to is told of the original.
                    tracing::warn!(job = name, "a job that a user made waits to be resumed, since the database was restored");
                    let paused = database.scheduler().pause(&name);
                    paused.and_then(|()| save(database, &job).map_err(|error| ScheduleError::Store(error.to_string())))
                }
                scheduled => scheduled,
            }
            .unwrap_or_else(|error| {
                tracing::warn!(job = name, %error, "could not schedule a job that was made by a user; delete it, or make it again");
            });
            jobs.all.lock().insert(name, job);
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
        let bytes = Json::Object(new.arguments.clone()).to_string().len();
        if bytes > ARGUMENTS_BYTES_MAX {
            return Err(Failure::invalid(format!(
                "arguments: they have {bytes} bytes, more than the limit of {ARGUMENTS_BYTES_MAX}"
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
            database: database.id()?,
        });
        let work = Work::parse(&job.task, &job.arguments).map_err(Failure::invalid)?;
        self.reach.check(&work).map_err(Failure::invalid)?;
        work.check(caller, database)?;
        let mut all = self.all.lock();
        if scheduler.job(&job.name).is_ok() || all.contains_key(&job.name) {
            return Err(Failure::conflict(format!("name: there is a job '{}' already; choose another name", job.name)));
        }
        if all.len() >= JOBS_MAX {
            return Err(Failure::invalid(format!("there are {JOBS_MAX} jobs that users made, the limit; delete some")));
        }
        self.schedule(scheduler, &job)?;
        if let Err(error) = save(database, &job) {
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
        match database.scheduler().remove(name) {
            // It could not be scheduled.
            Ok(()) | Err(ScheduleError::UnknownJob { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let deleted = database.change_tables(|connection| {
            connection.execute("DELETE FROM user_jobs_jobs WHERE name = ?1", [name]).map(drop)
        });
        if let Err(error) = deleted {
            // As it was.
            let _ = self.schedule(database.scheduler(), &job);
            return Err(error.into());
        }
        all.remove(name);
        Ok(job)
    }

    /// What a user said of a job, if one made it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<UserJob>> {
        self.all.lock().get(name).cloned()
    }
}

/// Puts a job into the database.
fn save(database: &Database, job: &UserJob) -> Result<(), ochre_engine::Error> {
    let text = serde_json::to_string(job).map_err(|error| ochre_engine::Error::invalid(error.to_string()))?;
    database.change_tables(|connection| {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO user_jobs_jobs VALUES (?1, ?2)")?;
        statement.execute(params![job.name, text]).map(drop)
    })
}

impl UserJob {
    /// What is shown of it: filters and messages only to who may see values.
    pub(crate) fn shown(&self, caller: &Caller) -> wire::UserJob {
        let mut arguments = self.arguments.clone();
        if !caller.principal().may(Permission::IntrospectValues, Target::default()) {
            VALUES.iter().for_each(|name| drop(arguments.remove(*name)));
        }
        let (task, made_by, created_at) = (self.task.clone(), self.made_by.clone(), self.created_at.to_string());
        wire::UserJob { task, arguments, made_by, created_at }
    }

    /// What the audit log says of it: no filters and no messages.
    pub(crate) fn audited(&self) -> Json {
        let mut arguments = self.arguments.clone();
        VALUES.iter().for_each(|name| drop(arguments.remove(*name)));
        json!({"job": self.name, "task": self.task, "arguments": arguments, "trigger": self.trigger})
    }
}

/// When a job is due, as it is kept: a delay counts from now on, and never again.
fn trigger(mut given: Map<String, Json>, now: Timestamp) -> Result<Map<String, Json>, Failure> {
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
        let span: ochre_engine::scheduler::Interval =
            text.parse().map_err(|error| Failure::invalid(format!("trigger: {error}")))?;
        given = Map::from_iter([("once".to_owned(), json!(now + span.0))]);
    }
    Ok(given)
}

/// Whether somebody may change jobs, which is needed to make one and asked again when it runs.
fn may_change_jobs(caller: &Caller) -> Result<(), Failure> {
    caller.check_in(Permission::JobWrite, Target::default())
}
