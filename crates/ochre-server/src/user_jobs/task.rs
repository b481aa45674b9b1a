//! What user-made jobs do: the tasks there are, their arguments, and their runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ochre_engine::scheduler::{
    Context, Defaults, Failure as Stopped, Progress, Readiness, Task, TaskSettings, nearest, unknown_member,
};
use ochre_engine::{DEFAULT_DATABASE, DEFAULT_TENANT, Database, DeleteRequest, WeakDatabase};
use ochre_extension::{Caller, Failure, Permission};
use ochre_wire::DeleteCollectionRecordsPayload;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::{UserJob, may_change_jobs};
use crate::auth::Auth;
use crate::webhooks::Webhooks;

/// The tasks there are.
const TASKS: [&str; 3] = ["backup", "delete", "webhook"];
/// Records that are deleted in one step.
const DELETED_AT_ONCE: u32 = 1000;

/// What jobs reach: the database, whoever may do what, and the names that the configuration declares.
pub(crate) struct Reach {
    pub(crate) database: WeakDatabase,
    /// Absent while nobody is asked who they are.
    pub(crate) auth: Option<Arc<Auth>>,
    pub(crate) webhooks: Arc<Webhooks>,
    /// Targets of backups, by name.
    pub(crate) targets: BTreeMap<String, String>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// A task with its arguments.
pub(super) enum Work {
    /// A full backup to a target that the configuration names.
    Backup(BackupArguments),
    /// Deletes the records of a collection that pass a filter.
    Delete(DeleteArguments),
    /// Posts something to an endpoint that the configuration names.
    Webhook(WebhookArguments),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupArguments {
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteArguments {
    #[serde(default = "default_tenant")]
    tenant: String,
    #[serde(default = "default_database")]
    database: String,
    /// By name.
    collection: String,
    r#where: Option<Json>,
    where_document: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookArguments {
    webhook: String,
    #[serde(default)]
    body: Json,
}

fn default_tenant() -> String {
    DEFAULT_TENANT.into()
}

fn default_database() -> String {
    DEFAULT_DATABASE.into()
}

fn arguments<T: DeserializeOwned>(given: &Map<String, Json>) -> Result<T, String> {
    T::deserialize(Json::Object(given.clone())).map_err(|error| {
        let text = error.to_string();
        format!("arguments: {}", unknown_member(&text).unwrap_or(text))
    })
}

impl Work {
    pub(super) fn parse(task: &str, given: &Map<String, Json>) -> Result<Self, String> {
        match task {
            "backup" => arguments(given).map(Self::Backup),
            "delete" => {
                let delete: DeleteArguments = arguments(given)?;
                // All of a collection is deleted by deleting it.
                match delete.request()?.filter {
                    Some(filter) if !filter.is_without_conditions() => Ok(Self::Delete(delete)),
                    _ => Err("arguments: give where or where_document with a condition: without, every record would be deleted".into()),
                }
            }
            "webhook" => arguments(given).map(Self::Webhook),
            other => {
                let near = nearest(other, TASKS.into_iter());
                let hint = near.map_or_else(
                    || format!("there are {}", TASKS.join(", ")),
                    |near| format!("did you mean '{near}'?"),
                );
                Err(format!("task: there is no task '{other}'; {hint}"))
            }
        }
    }

    /// Fails unless a caller may do this: as if what it is about were not there, if nothing is granted there.
    pub(super) fn check(&self, caller: &Caller, database: &Database) -> Result<(), Failure> {
        may_change_jobs(caller)?;
        if let Self::Delete(DeleteArguments { tenant, database: home, collection, .. }) = self {
            caller.check(Permission::RecordWrite, tenant, home, collection)?;
            database.collection_in(tenant, home, collection)?;
        }
        Ok(())
    }
}

impl DeleteArguments {
    fn request(&self) -> Result<DeleteRequest, String> {
        let body = json!({"where": self.r#where, "where_document": self.where_document});
        let payload: DeleteCollectionRecordsPayload =
            serde_json::from_value(body).map_err(|error| format!("arguments: {error}"))?;
        let filter = payload.filter().map_err(|refused| format!("arguments: {refused}"))?;
        Ok(DeleteRequest { filter, limit: Some(DELETED_AT_ONCE), ..DeleteRequest::default() })
    }
}

impl Reach {
    /// Fails for a name that the configuration does not declare.
    pub(super) fn check(&self, work: &Work) -> Result<(), String> {
        match work {
            Work::Backup(BackupArguments { target }) => self.target(target).map(drop),
            Work::Webhook(WebhookArguments { webhook, .. }) => self.webhooks.check(webhook),
            Work::Delete(_) => Ok(()),
        }
    }

    fn target(&self, name: &str) -> Result<&str, String> {
        self.targets.get(name).map(String::as_str).ok_or_else(|| {
            let names = || self.targets.keys().map(String::as_str);
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean '{near}'?"),
                None if self.targets.is_empty() => "backup.targets is empty".to_owned(),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            format!("there is no target '{name}' in the configuration; {hint}")
        })
    }

    /// Whoever made a job, with what they may do now.
    fn caller(&self, made_by: &str) -> Result<Caller, String> {
        let Some(auth) = &self.auth else { return Ok(Caller::unrestricted(&ochre_auth::Roles::default())) };
        if made_by.is_empty() {
            return Err(
                "it was made while nobody was asked who they are: delete it and make it again, with a key".into()
            );
        }
        let principal = auth.principal_named(made_by);
        let principal = principal.ok_or_else(|| format!("whoever made it, {made_by}, is gone, revoked or expired"))?;
        Ok(Caller::new(principal, None))
    }
}

/// A user-made job as the scheduler runs it.
pub(super) struct UserTask {
    job: Arc<UserJob>,
    description: String,
    reach: Arc<Reach>,
    /// The id of the message that an endpoint did not take: it is posted again under the same.
    message: Mutex<Option<String>>,
}

impl UserTask {
    pub(super) fn new(job: Arc<UserJob>, reach: Arc<Reach>) -> Self {
        let what = match job.task.as_str() {
            "backup" => "takes a full backup",
            "delete" => "deletes the records that pass a filter",
            "webhook" => "posts to a webhook",
            other => other,
        };
        let by = if job.made_by.is_empty() { String::new() } else { format!("; made by {}", job.made_by) };
        Self { description: format!("{what}{by}"), job, reach, message: Mutex::default() }
    }

    fn delete(&self, arguments: &DeleteArguments, context: &Context<'_>) -> Result<String, Stopped> {
        let mut deleted = 0;
        loop {
            context.step(Progress { done: deleted, total: None, what: "records deleted".into() })?;
            let database = self.reach.database.open()?;
            let DeleteArguments { tenant, database: home, collection, .. } = arguments;
            let request = arguments.request().map_err(Stopped::Failed)?;
            let step = database.collection_in(tenant, home, collection)?.delete(request)?;
            deleted += step.deleted;
            if step.deleted == 0 {
                return Ok(format!("deleted {deleted} records"));
            }
        }
    }
}

impl Task for UserTask {
    fn name(&self) -> &str {
        &self.job.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn locks(&self) -> &'static [&'static str] {
        // As the database's own backups have.
        if self.job.task == "backup" { &["backup"] } else { &[] }
    }

    fn defaults(&self) -> Defaults {
        Defaults::every(Duration::from_secs(86_400))
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Stopped> {
        Ok(Readiness::Ready("it is due".into()))
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Stopped> {
        let work = Work::parse(&self.job.task, &self.job.arguments).map_err(Stopped::Failed)?;
        let caller = self.reach.caller(&self.job.made_by).map_err(Stopped::Failed)?;
        {
            let database = self.reach.database.open()?;
            let may = work.check(&caller, &database);
            may.map_err(|failure| Stopped::Failed(format!("whoever made it may not do this any more: {failure}")))?;
        }
        match &work {
            Work::Delete(arguments) => self.delete(arguments, context),
            Work::Backup(BackupArguments { target }) => {
                let url = self.reach.target(target).map_err(Stopped::Failed)?;
                let manifest = self.reach.database.open()?.back_up_to(url, context)?;
                Ok(format!("took {} at position {}", manifest.id, manifest.position))
            }
            Work::Webhook(WebhookArguments { webhook, body }) => {
                context.step(Progress::default())?;
                let body = json!({"type": "job.due", "data": {"job": self.job.name, "body": body}});
                let id = self.message.lock().get_or_insert_with(|| uuid::Uuid::new_v4().to_string()).clone();
                let posted = self.reach.runtime.block_on(self.reach.webhooks.post(webhook, &id, &body));
                posted.map_err(Stopped::Failed)?;
                self.message.lock().take();
                Ok(format!("posted {id} to webhook '{webhook}'"))
            }
        }
    }
}
