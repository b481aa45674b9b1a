//! What every handler has: the database, the configuration, and the one bridge from async to the engine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ochre_engine::Database;
use ochre_engine::model::budget::{self, Budget, RequestMemory};
use tokio::sync::Semaphore;

use crate::auth::{Auth, current_room};
use crate::body_budget::BodyBudget;
use crate::config::Config;
use crate::embedding::EmbeddingFunction;
use crate::error::ApiError;
use crate::requests::Requests;
use crate::user_jobs::{Reach, UserJobs};
use crate::webhooks::Webhooks;

/// The server's state. Cheap to clone.
#[derive(Clone)]
pub struct App {
    database: Database,
    config: Arc<Config>,
    running: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    requests: Requests,
    embedding_function: Option<Arc<EmbeddingFunction>>,
    auth: Option<Arc<Auth>>,
    user_jobs: Option<Arc<UserJobs>>,
    arriving: Arc<BodyBudget>,
    memory: Arc<RequestMemory>,
    /// What one request may have of it, in bytes.
    request_bytes: u64,
}

/// Bodies that may be in memory before they are worked on, in bytes, and no more than a quarter of the memory limit.
const ARRIVING_BYTES_MAX: u64 = 1 << 30;

/// All requests together may use one part in so many of the memory limit.
const ALL_REQUESTS_SHARE: u64 = 4;
/// One request may use one part in so many of it,
const REQUEST_SHARE: u64 = 8;
/// and no more than this, in bytes.
const REQUEST_BYTES_MAX: u64 = 1 << 30;

/// A read that is started on the thread that took the request takes at most this long,
const TIME_IN_PLACE_MAX: Duration = Duration::from_millis(3);
/// and at most this much memory, in bytes.
const BYTES_IN_PLACE_MAX: u64 = 1 << 20;

impl App {
    /// A server over this database.
    pub fn new(database: Database, config: Config) -> Self {
        let running = Arc::new(Semaphore::new(config.server.concurrent_requests_max));
        // Writes that wait for the index to catch up must leave room for reads.
        let writing = Arc::new(Semaphore::new(config.server.concurrent_requests_max.div_ceil(2)));
        let arriving = usize::try_from(ARRIVING_BYTES_MAX.min(database.resident().1 / 4)).unwrap_or(usize::MAX);
        // One at least, however large.
        let arriving = arriving.max(config.server.max_payload_size_bytes);
        let embedding_function = EmbeddingFunction::new(&config.embedding).map(Arc::new);
        let (config, arriving) = (Arc::new(config), BodyBudget::new(arriving));
        let (requests, auth, user_jobs) = (Requests::default(), None, None);
        let (_, memory_limit) = database.resident();
        let memory = RequestMemory::new(memory_limit / ALL_REQUESTS_SHARE);
        let request_bytes = (memory_limit / REQUEST_SHARE).min(REQUEST_BYTES_MAX);
        Self {
            database,
            config,
            running,
            writing,
            requests,
            embedding_function,
            auth,
            user_jobs,
            arriving,
            memory,
            request_bytes,
        }
    }

    /// Knows the keys of the database; asks every request who it is from if the configuration wants that.
    #[must_use]
    pub fn with_auth(self, auth: Auth) -> Self {
        Self { auth: Some(Arc::new(auth)), ..self }
    }

    /// Makes embeddings of texts by this function.
    #[must_use]
    pub(crate) fn with_function(self, function: EmbeddingFunction) -> Self {
        Self { embedding_function: Some(Arc::new(function)), ..self }
    }

    /// Reads the jobs that users made, and schedules them. After [`App::with_auth`], within the runtime that serves.
    ///
    /// # Errors
    /// The configuration names what cannot be used, or the database cannot be read.
    pub fn with_user_jobs(self, webhooks: &Arc<Webhooks>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let reach = Reach {
            database: self.database.downgrade(),
            auth: self.auth().cloned(),
            webhooks: Arc::clone(webhooks),
            targets: self.config.backup.targets()?,
            runtime: tokio::runtime::Handle::current(),
        };
        let jobs = UserJobs::open(&self.database, Arc::new(reach))?;
        webhooks.start();
        Ok(Self { user_jobs: Some(Arc::new(jobs)), ..self })
    }

    /// The jobs that users made.
    pub(crate) fn user_jobs(&self) -> Option<&Arc<UserJobs>> {
        self.user_jobs.as_ref()
    }

    /// Who may do what, if that is asked.
    pub(crate) fn auth(&self) -> Option<&Arc<Auth>> {
        self.auth.as_ref().filter(|_| self.config.auth.enabled)
    }

    /// The keys of the database, and roles, whether anybody is asked for them or not.
    pub(crate) fn keys(&self) -> Option<&Arc<Auth>> {
        self.auth.as_ref()
    }

    /// Memory for bodies that are arriving.
    pub(crate) fn arriving(&self) -> &Arc<BodyBudget> {
        &self.arriving
    }

    /// As [`App::run`], for writes: at most half of what runs at once.
    pub(crate) async fn run_write<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let permit = Arc::clone(&self.writing).acquire_owned().await.map_err(|_| ApiError::shutting_down())?;
        // With the work, which goes on when the client goes away.
        let work = move |database: &Database| {
            let _permit = permit;
            work(database)
        };
        self.run(work).await
    }

    /// Without authentication, administration and tools are only for this machine.
    pub(crate) fn check_local(&self) -> Result<(), ApiError> {
        if self.auth().is_some() {
            return Ok(());
        }
        let host = self.config.server.host.as_str();
        if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Ok(());
        }
        let text = format!(
            "the server listens on {host} without authentication, so /_admin and /mcp are refused; set auth.enabled = true, or let it listen on 127.0.0.1"
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, "ChromaError", text))
    }

    /// What is counted of requests.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What makes embeddings of texts, if it is configured.
    pub(crate) fn embedding_function(&self) -> Option<&EmbeddingFunction> {
        self.embedding_function.as_deref()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The database, for closing it once the server has stopped.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// As [`App::run`], for reads: a client that goes away ends the work, and so does `server.read_timeout_ms`.
    pub(crate) async fn run_read<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let budget = self.budget(Duration::from_millis(self.config.server.read_timeout_ms));
        // A client that goes away drops this future.
        let _gone = CancelWhenDropped(Arc::clone(&budget));
        self.run_within(budget, work).await
    }

    /// As [`App::run_read`], for reads that probably are short: they start on the thread that took
    /// the request, since handing one over takes longer than it does. What turns out to be long starts again elsewhere.
    pub(crate) async fn run_short_read<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Clone + Send + 'static,
    {
        if let Ok(permit) = self.running.try_acquire() {
            let bytes = BYTES_IN_PLACE_MAX.min(self.request_bytes);
            let budget = Budget::new(bytes, Arc::clone(&self.memory), TIME_IN_PLACE_MAX);
            let within = budget::enter(Arc::clone(&budget));
            let work = work.clone();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&self.database)));
            let done =
                done.unwrap_or_else(|_| Err(ApiError::internal("the request failed inside the server: it panicked")));
            if done.is_ok() || !budget.was_exceeded() {
                return done;
            }
            drop((within, permit));
        }
        self.run_read(work).await
    }

    /// What one request may use.
    fn budget(&self, time_limit: Duration) -> Arc<Budget> {
        Budget::new(self.request_bytes, Arc::clone(&self.memory), time_limit)
    }

    /// Runs `work` on a blocking thread, once there is room. A client that goes away does not stop it: a
    /// write that began is finished.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        self.run_within(self.budget(Duration::ZERO), work).await
    }

    async fn run_within<T, F>(&self, budget: Arc<Budget>, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| ApiError::shutting_down())?;
        let (database, room) = (self.database.clone(), current_room());
        let task = tokio::task::spawn_blocking(move || {
            let (_permit, _room, _within) = (permit, room, budget::enter(budget));
            work(&database)
        });
        task.await.map_err(|error| ApiError::internal(format!("the request failed inside the server: {error}")))?
    }
}

/// Ends the work for a request when nobody waits for its answer any more.
struct CancelWhenDropped(Arc<Budget>);

impl Drop for CancelWhenDropped {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::NewKey;
    use crate::auth::{ROOM, Usage};

    #[tokio::test]
    async fn work_that_outlasts_its_client_holds_what_its_key_may_do_at_once() {
        let app = App::new(Database::ephemeral().unwrap(), Config::default());
        let (usage, limits) = (Usage::default(), NewKey { concurrent_requests: Some(1), ..NewKey::default() });
        let room = usage.enter(&limits, "key").ok().map(Arc::new);
        let ((begun, begins), (go, goes)) = (mpsc::channel(), mpsc::channel::<()>());
        let asked = app.clone();
        let request = tokio::spawn(ROOM.scope(room, async move {
            let work = move |_: &Database| {
                begun.send(()).unwrap();
                Ok(goes.recv().is_ok())
            };
            asked.run(work).await
        }));
        tokio::task::spawn_blocking(move || begins.recv()).await.unwrap().unwrap();
        request.abort();
        assert!(request.await.is_err_and(|error| error.is_cancelled()), "the client left");
        assert!(usage.enter(&limits, "key").is_err(), "its work goes on");
        go.send(()).unwrap();
        while usage.enter(&limits, "key").is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
