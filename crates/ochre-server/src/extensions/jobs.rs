//! Administration of jobs: what maintenance does, when, and what became of it.

use std::sync::{Arc, OnceLock};

use ochre_engine::scheduler::{Error as ScheduleError, JobState, JobStatus, Kind, Run, Scheduler};
use ochre_extension::{
    Access, Answer, ApiExtension, Call, Description, Failure, Operation, Parameter, Permission, StatusCode,
};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::user_jobs::UserJobs;

/// Runs that are shown unless asked for more.
const HISTORY: usize = 20;
/// Runs that are shown at most.
const HISTORY_MAX: usize = 1000;
/// What asks for runs.
const KINDS: [&str; 4] = ["scheduled", "manual", "signalled", "once"];
const READ: Access = Access::Scope(Permission::JobRead);
const WRITE: Access = Access::Scope(Permission::JobWrite);

/// The extension.
pub(super) struct Jobs {
    app: Arc<OnceLock<App>>,
}

impl Jobs {
    pub(super) const fn new(app: Arc<OnceLock<App>>) -> Self {
        Self { app }
    }

    fn made_by_users(&self) -> Result<&UserJobs, Failure> {
        let jobs = self.app.get().and_then(|app| app.user_jobs());
        jobs.map(Arc::as_ref).ok_or_else(|| Failure::internal("the server was started without jobs of users"))
    }

    fn list(&self, call: &Call<'_>) -> Answer {
        let scheduler = call.database().scheduler();
        let jobs: Vec<Json> = scheduler.jobs().iter().map(|status| self.with_user_job(call, summary(status))).collect();
        let pressure = call.database().pressure();
        json!({"jobs": jobs, "implementation": scheduler.implementation(), "pressure": pressure}).into()
    }

    fn create(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let job = self.made_by_users()?.create(call.database(), call.caller(), call.body()?)?;
        tracing::info!(job = job.name, task = job.task, by = job.made_by, "made a job");
        let shown = self.with_user_job(call, whole(&call.database().scheduler().job(&job.name)?));
        let audited = job.audited();
        Ok(Answer::from(shown).with_status(StatusCode::CREATED).with_audited(audited))
    }

    fn delete(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let job = self.made_by_users()?.delete(call.database(), call.path("name"))?;
        Ok(Answer::from(json!({"deleted": job.name})).with_audited(json!({"job": job.name, "task": job.task})))
    }

    fn show(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let (scheduler, name, given) = (call.database().scheduler(), call.path("name"), call.query::<HistoryQuery>()?);
        let status = scheduler.job(name)?;
        let count = given.history.unwrap_or(HISTORY).min(HISTORY_MAX);
        let mut history = scheduler.history(name, if given.kind.is_some() { HISTORY_MAX } else { count })?;
        history.retain(|run| given.kind.is_none_or(|kind| run.kind == kind));
        history.truncate(count);
        let mut shown = self.with_user_job(call, whole(&status));
        shown["history"] = history.iter().map(run).collect();
        Ok(shown.into())
    }

    /// What is shown of a job, with what a user said of it.
    fn with_user_job(&self, call: &Call<'_>, mut shown: Json) -> Json {
        let jobs = self.app.get().and_then(|app| app.user_jobs());
        let job = jobs.and_then(|jobs| jobs.find(shown["name"].as_str().unwrap_or_default()));
        if let (Some(job), Some(shown)) = (job, shown.as_object_mut())
            && let Json::Object(members) = job.shown(call.caller())
        {
            shown.extend(members);
        }
        shown
    }
}

impl ApiExtension for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn description(&self) -> &'static str {
        "administration of jobs"
    }

    fn operations(self: Arc<Self>) -> Vec<Operation> {
        let [lists, creates, deletes] = [&self, &self, &self].map(Arc::clone);
        vec![
            Description::get("/_admin/jobs", "List the jobs: state, next run, outcome of the last run", READ)
                .does(move |call: &Call<'_>| Ok(lists.list(call))),
            Description::post("/_admin/jobs", "Create a job: a task with arguments and a trigger", WRITE)
                .takes("NewJob")
                .answers(201, "object")
                .does(move |call: &Call<'_>| creates.create(call)),
            Description::delete("/_admin/jobs/{name}", "Delete a user-made job with its history", WRITE)
                .does(move |call: &Call<'_>| deletes.delete(call)),
            Description::get(
                "/_admin/jobs/{name}",
                "Get a job: its definition, next times, progress and history",
                READ,
            )
            .query(const { &[Parameter::count("history"), Parameter::one_of("kind", &KINDS)] })
            .does(move |call: &Call<'_>| self.show(call)),
            Description::patch("/_admin/jobs/{name}", "Change a job's schedule, policies or settings", WRITE)
                .takes("JobChange")
                .does(change),
            Description::delete(
                "/_admin/jobs/{name}/schedule",
                "Reset a job's schedule, policies and settings to those of the configuration, or the defaults",
                WRITE,
            )
            .does(|call: &Call<'_>| Ok(whole(&call.database().scheduler().reset(call.path("name"))?).into())),
            Description::post("/_admin/jobs/{name}/run", "Run a job as soon as possible", WRITE)
                .answers(202, "object")
                .does(run_now),
            Description::post("/_admin/jobs/{name}/cancel", "Stop a running job at its next step", WRITE)
                .answers(202, "object")
                .does(tell(StatusCode::ACCEPTED, |scheduler, name| scheduler.cancel(name))),
            Description::post("/_admin/jobs/{name}/pause", "Pause a job until it is resumed", WRITE)
                .does(tell(StatusCode::OK, |scheduler, name| scheduler.pause(name))),
            Description::post("/_admin/jobs/{name}/resume", "Run a paused or broken job again", WRITE)
                .does(tell(StatusCode::OK, |scheduler, name| scheduler.resume(name))),
            Description::post("/_admin/jobs/{name}/{action}", "What a job cannot be told", WRITE)
                .unlisted()
                .does(unknown_action),
        ]
    }

    fn schemas(&self) -> Map<String, Json> {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "interval": {"type": "string", "description": "Every so often: 30s, 5m, 2h, 7d"},
                "cron": {"type": "string", "description": "By calendar: five fields, six with seconds first, seven with a year last"},
                "zone": {"type": "string", "description": "The IANA time zone of the cron expression; that of the one before, else UTC"},
                "once": {
                    "type": ["string", "null"], "format": "date-time",
                    "description": "A time to come, beside a recurring schedule; null takes such times back",
                },
                "delay": {"type": "string", "description": "As once, counted from now: 30s, 5m, 2h"},
                "enabled": {"type": "boolean"},
                "policies": {"type": "object", "description": "Those named are changed; null means the default"},
                "settings": {"type": "object", "description": "Those named are changed; null means the default"},
            },
        });
        let new = json!({
            "type": "object",
            "required": ["name", "task", "trigger"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"},
                "task": {"enum": ["backup", "delete", "webhook"]},
                "arguments": {
                    "type": "object",
                    "description": "backup: target; delete: collection, where, where_document, tenant, database; webhook: webhook, body. Targets and webhooks by the names that the configuration declares",
                },
                "trigger": {
                    "type": "object",
                    "description": "interval, cron with zone, once or delay, as in JobChange",
                },
            },
        });
        Map::from_iter([("JobChange".to_owned(), schema), ("NewJob".to_owned(), new)])
    }
}

#[derive(Deserialize)]
struct HistoryQuery {
    history: Option<usize>,
    kind: Option<Kind>,
}

fn change(call: &Call<'_>) -> Result<Answer, Failure> {
    let change: Map<String, Json> = call.body()?;
    let changed = whole(&call.database().scheduler().alter(call.path("name"), &change)?);
    Ok(Answer::from(changed).with_audited(json!({"job": call.path("name"), "change": change})))
}

/// Tells the scheduler to do something with a job, and shows what became of it.
fn tell(
    status: StatusCode, act: impl Fn(&dyn Scheduler, &str) -> Result<(), ScheduleError>,
) -> impl Fn(&Call<'_>) -> Result<Answer, Failure> {
    move |call| {
        let (scheduler, name) = (call.database().scheduler(), call.path("name"));
        act(scheduler, name)?;
        Ok(Answer::from(summary(&scheduler.job(name)?)).with_status(status))
    }
}

fn run_now(call: &Call<'_>) -> Result<Answer, Failure> {
    let (scheduler, name) = (call.database().scheduler(), call.path("name"));
    let requested = scheduler.run_now(name)?;
    let mut shown = summary(&scheduler.job(name)?);
    shown["requested"] = json!(requested);
    Ok(Answer::from(shown).with_status(StatusCode::ACCEPTED))
}

fn unknown_action(call: &Call<'_>) -> Result<Answer, Failure> {
    let other = call.path("action");
    Err(Failure::not_found(format!("a job cannot be told to '{other}'; there are run, cancel, pause and resume")))
}

/// Members that were renamed: new names and those before. Answers have both for one version.
const RENAMED: [(&str, &str); 5] = [
    ("description", "about"),
    ("last_check", "last_look"),
    ("settings", "knobs"),
    ("counters", "tally"),
    ("scheduled_at", "nominal"),
];

/// Adds the names that members had before, at every depth.
fn with_old_names(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let mut all = Map::new();
            for (name, value) in members {
                let value = with_old_names(value);
                if let Some((_, old)) = RENAMED.iter().find(|(new, _)| *new == name) {
                    all.insert((*old).to_owned(), value.clone());
                }
                all.insert(name, value);
            }
            Json::Object(all)
        }
        Json::Array(list) => Json::Array(list.into_iter().map(with_old_names).collect()),
        other => other,
    }
}

fn summary(status: &JobStatus) -> Json {
    with_old_names(json!({
        "name": status.name,
        "description": status.description,
        "state": status.state,
        "trigger": status.trigger,
        "next_runs": status.next_runs,
        "last_run": status.last_run.as_ref().map(|run| run.started),
        "last_outcome": status.last_run.as_ref().map(|run| run.status),
        "last_message": status.last_run.as_ref().map(|run| &run.message),
        "last_check": status.last_check,
        "held": status.held,
        "warning": status.warning,
        "progress": status.progress,
    }))
}

fn whole(status: &JobStatus) -> Json {
    let mut shown = summary(status);
    let settings: Map<String, Json> = status
        .settings
        .iter()
        .map(|(name, value)| {
            (name.clone(), json!({"value": value, "description": status.settings_descriptions.get(name.as_str())}))
        })
        .collect();
    shown["enabled"] = json!(status.state != JobState::Off);
    shown["schedule"] = json!(status.schedule);
    shown["pending"] = json!(status.pending);
    shown["policies"] = json!(status.policies);
    shown["settings"] = Json::Object(settings);
    shown["counters"] = json!(status.counters);
    shown["failures"] = json!(status.failures);
    shown["running"] = json!(status.running.as_ref().map(run));
    with_old_names(shown)
}

fn run(run: &Run) -> Json {
    with_old_names(json!({
        "scheduled_at": run.scheduled_at,
        "kind": run.kind,
        "attempt": run.attempt,
        "started": run.started,
        "ended": run.ended,
        "seconds": run.ended.map(|ended| ended.since(run.started).as_secs_f64()),
        "status": run.status,
        "message": run.message,
        "progress": run.progress,
        "coalesced": run.coalesced,
    }))
}
