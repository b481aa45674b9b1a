//! Administration of jobs: what maintenance does, when, and what became of it.

use std::sync::{Arc, OnceLock};

use ochre_engine::scheduler::{
    Counters, Error as ScheduleError, JobState, JobStatus, Kind, Pending, Progress, Run, Scheduler,
};
use ochre_extension::{
    Access, Answer, ApiExtension, Call, Description, Failure, Operation, Parameter, Permission, StatusCode,
};
use ochre_wire::admin::jobs as wire;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::OpenApi;

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
        let jobs = scheduler.jobs().iter().map(|status| summary(status, self.user_job(call, &status.name))).collect();
        let (implementation, pressure) = (scheduler.implementation().to_owned(), call.database().pressure());
        answered(&wire::JobList { jobs, implementation, pressure }).into()
    }

    fn create(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let job = self.made_by_users()?.create(call.database(), call.caller(), call.body()?)?;
        tracing::info!(job = job.name, task = job.task, by = job.made_by, "made a job");
        let status = call.database().scheduler().job(&job.name)?;
        let shown = answered(&whole(&status, self.user_job(call, &job.name), None));
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
        Ok(answered(&whole(&status, self.user_job(call, name), Some(&history))).into())
    }

    /// What a user asked the job to do, if a user made it.
    fn user_job(&self, call: &Call<'_>, name: &str) -> Option<wire::UserJob> {
        let jobs = self.app.get()?.user_jobs()?;
        Some(jobs.find(name)?.shown(call.caller()))
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
                .answers(200, "JobList")
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
            .answers(200, "JobAnswer")
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
            .does(reset),
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
        let mut schemas = match json!(Answers::openapi())["components"]["schemas"].take() {
            Json::Object(schemas) => schemas,
            _ => Map::new(),
        };
        schemas.extend([("JobChange".to_owned(), schema), ("NewJob".to_owned(), new)]);
        schemas
    }
}

/// The shapes of answers.
#[derive(OpenApi)]
#[openapi(components(schemas(wire::JobList, wire::JobAnswer)))]
struct Answers;

#[derive(Deserialize)]
struct HistoryQuery {
    history: Option<usize>,
    kind: Option<Kind>,
}

fn change(call: &Call<'_>) -> Result<Answer, Failure> {
    let change: Map<String, Json> = call.body()?;
    let changed = whole(&call.database().scheduler().alter(call.path("name"), &change)?, None, None);
    Ok(Answer::from(answered(&changed)).with_audited(json!({"job": call.path("name"), "change": change})))
}

fn reset(call: &Call<'_>) -> Result<Answer, Failure> {
    let status = call.database().scheduler().reset(call.path("name"))?;
    Ok(answered(&whole(&status, None, None)).into())
}

/// Tells the scheduler to do something with a job, and shows what became of it.
fn tell(
    status: StatusCode, act: impl Fn(&dyn Scheduler, &str) -> Result<(), ScheduleError>,
) -> impl Fn(&Call<'_>) -> Result<Answer, Failure> {
    move |call| {
        let (scheduler, name) = (call.database().scheduler(), call.path("name"));
        act(scheduler, name)?;
        Ok(Answer::from(answered(&summary(&scheduler.job(name)?, None))).with_status(status))
    }
}

fn run_now(call: &Call<'_>) -> Result<Answer, Failure> {
    let (scheduler, name) = (call.database().scheduler(), call.path("name"));
    let requested = scheduler.run_now(name)?;
    let requested = Some(requested.to_string());
    let shown = wire::JobSummary { requested, ..summary(&scheduler.job(name)?, None) };
    Ok(Answer::from(answered(&shown)).with_status(StatusCode::ACCEPTED))
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

/// What a user-made job was given, which is its user's own.
const ARGUMENTS: &str = "arguments";

/// Adds the names that members had before, at every depth but in what users gave.
fn with_old_names(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let mut all = Map::new();
            for (name, value) in members {
                let value = if name == ARGUMENTS { value } else { with_old_names(value) };
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

/// An answer, with the names that members had before.
fn answered(answer: &impl Serialize) -> Json {
    with_old_names(json!(answer))
}

/// The word for a value of an enum.
fn word(value: impl Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

fn progress(progress: &Progress) -> wire::Progress {
    let Progress { done, total, what } = progress.clone();
    wire::Progress { done, total, what }
}

fn summary(status: &JobStatus, user_job: Option<wire::UserJob>) -> wire::JobSummary {
    let last_run = status.last_run.as_ref();
    wire::JobSummary {
        name: status.name.clone(),
        description: status.description.clone(),
        state: word(status.state),
        trigger: status.trigger.clone(),
        next_runs: status.next_runs.iter().map(ToString::to_string).collect(),
        last_run: last_run.map(|run| run.started.to_string()),
        last_outcome: last_run.map(|run| word(run.status)),
        last_message: last_run.map(|run| run.message.clone()),
        last_check: status
            .last_check
            .as_ref()
            .map(|check| wire::LastCheck { at: check.at.to_string(), reason: check.reason.clone() }),
        held: status
            .held
            .as_ref()
            .map(|held| wire::Held { reason: held.reason.clone(), until: held.until.map(|until| until.to_string()) }),
        warning: status.warning.clone(),
        progress: status.progress.as_ref().map(progress),
        user_job,
        requested: None,
    }
}

fn whole(status: &JobStatus, user_job: Option<wire::UserJob>, history: Option<&[Run]>) -> wire::JobAnswer {
    let setting = |(name, value): (&String, &Json)| {
        let description = status.settings_descriptions.get(name.as_str()).map(|text| (*text).to_owned());
        (name.clone(), wire::Setting { value: value.clone(), description })
    };
    let Counters { ran, coalesced, nothing_to_do, missed, overlapped } = status.counters;
    let counters = [
        ("ran", ran),
        ("coalesced", coalesced),
        ("nothing_to_do", nothing_to_do),
        ("missed", missed),
        ("overlapped", overlapped),
    ];
    let pending = |pending: &Pending| wire::PendingRun {
        scheduled_at: pending.scheduled_at.to_string(),
        kind: word(pending.kind),
        attempt: pending.attempt,
        not_before: pending.not_before.to_string(),
    };
    wire::JobAnswer {
        summary: summary(status, user_job),
        enabled: status.state != JobState::Off,
        schedule: status.schedule.as_ref().map(|schedule| json!(schedule)),
        pending: status.pending.iter().map(pending).collect(),
        policies: match json!(status.policies) {
            Json::Object(policies) => policies,
            _ => Map::new(),
        },
        settings: status.settings.iter().map(setting).collect(),
        counters: counters.map(|(name, count)| (name.to_owned(), count)).into(),
        failures: status.failures,
        running: status.running.as_ref().map(run),
        history: history.map(|runs| runs.iter().map(run).collect()),
    }
}

fn run(run: &Run) -> wire::Run {
    wire::Run {
        scheduled_at: run.scheduled_at.to_string(),
        kind: word(run.kind),
        attempt: run.attempt,
        started: run.started.to_string(),
        ended: run.ended.map(|ended| ended.to_string()),
        seconds: run.ended.map(|ended| ended.since(run.started).as_secs_f64()),
        status: word(run.status),
        message: run.message.clone(),
        progress: run.progress.as_ref().map(progress),
        coalesced: run.coalesced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_added_everywhere_but_in_what_users_gave() {
        let given = json!({"settings": {"a": {"description": "x"}}, "arguments": {"where": {"description": "old"}}});
        let shown = with_old_names(given.clone());
        assert_eq!(shown["knobs"]["a"]["about"], "x");
        assert_eq!(shown["arguments"], given["arguments"]);
    }
}
