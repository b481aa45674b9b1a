//! Webhooks: what is posted to the endpoints that the configuration names, signed and tried again.
//!
//! Signed as Standard Webhooks says (standardwebhooks.com, version 1): `webhook-id`, `webhook-timestamp`, and
//! `webhook-signature: v1,<base64 of HMAC-SHA256 of "id.timestamp.body">`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ochre_engine::scheduler::{JobEvent, JobObserver, nearest};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, mpsc};

use crate::config::{ConfigError, WebhooksConfig};

/// How long an endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// When an event is posted again that an endpoint did not take: after so long each.
const AGAIN_AFTER: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];
/// Events that wait to be posted; more are dropped, and logged.
const WAITING_MAX: usize = 1000;
/// Events that were not taken and are posted again; more are dropped, and logged.
const AGAIN_MAX: usize = 100;
/// The shortest secret, in bytes, as Standard Webhooks has it.
const SECRET_BYTES_MIN: usize = 24;
/// What the secret of Standard Webhooks begins with, before base64.
const SECRET_PREFIX: &str = "whsec_";

/// The endpoints that the configuration names.
pub struct Webhooks {
    endpoints: BTreeMap<String, String>,
    key: Option<ring::hmac::Key>,
    client: reqwest::Client,
    /// Which endpoint is told of jobs.
    of_jobs: Option<String>,
    events: mpsc::Sender<JobEvent>,
    waiting: Mutex<Option<mpsc::Receiver<JobEvent>>>,
}

impl Webhooks {
    /// Those of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`]: an endpoint that is none, or a secret that cannot be one.
    pub fn new(config: &WebhooksConfig) -> Result<Arc<Self>, ConfigError> {
        let wrong = |key: &str, reason: String| ConfigError::Value {
            source_name: "the configuration".into(),
            key: format!("webhooks.{key}"),
            reason,
        };
        let mut endpoints = BTreeMap::new();
        for endpoint in &config.endpoints {
            let parts = endpoint.split_once('=').map(|(name, url)| (name.trim(), url.trim()));
            match parts {
                Some((name, url))
                    if !name.is_empty() && (url.starts_with("https://") || url.starts_with("http://")) =>
                {
                    endpoints.insert(name.to_owned(), url.to_owned());
                }
                _ => {
                    let reason = format!("holds \"{}\"; expected \"name=https://…\"", without_path(endpoint));
                    return Err(wrong("endpoints", reason));
                }
            }
        }
        let of_jobs = Some(config.jobs.clone()).filter(|name| !name.is_empty());
        if let Some(name) = of_jobs.as_ref().filter(|name| !endpoints.contains_key(*name)) {
            return Err(wrong("jobs", format!("names '{name}', which is not among webhooks.endpoints")));
        }
        let secret = std::env::var(&config.secret_variable).ok().filter(|secret| !secret.is_empty());
        let key = match secret {
            None => None,
            Some(secret) => {
                let bytes = match secret.strip_prefix(SECRET_PREFIX) {
                    None => secret.into_bytes(),
                    Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                        let reason = format!(
                            "names {}, whose value begins with {SECRET_PREFIX} and is no base64",
                            config.secret_variable
                        );
                        wrong("secret_variable", reason)
                    })?,
                };
                if bytes.len() < SECRET_BYTES_MIN {
                    let reason =
                        format!("names {}, whose value has less than {SECRET_BYTES_MIN} bytes", config.secret_variable);
                    return Err(wrong("secret_variable", reason));
                }
                Some(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes))
            }
        };
        // Fails only if there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong("endpoints", format!("cannot be used: {error}")))?;
        let (events, waiting) = mpsc::channel(WAITING_MAX);
        Ok(Arc::new(Self { endpoints, key, client, of_jobs, events, waiting: Mutex::new(Some(waiting)) }))
    }

    /// What tells an endpoint of jobs that fail, break and recover, if one is to be told.
    pub fn observer(self: &Arc<Self>) -> Option<JobObserver> {
        self.of_jobs.as_ref()?;
        let events = self.events.clone();
        Some(Arc::new(move |event: &JobEvent| {
            if events.try_send(event.clone()).is_err() {
                tracing::warn!(job = event.job, "too many events wait for their webhook; this one is dropped");
            }
        }))
    }

    /// Posts events of jobs from now on: each once in the order in which they came, and those that are not taken again
    /// later, without holding up others.
    pub(crate) fn start(self: &Arc<Self>) {
        let (Some(name), Some(mut waiting)) = (self.of_jobs.clone(), self.waiting.lock().take()) else { return };
        let (webhooks, again) = (Arc::clone(self), Arc::new(Semaphore::new(AGAIN_MAX)));
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let (id, body) = message(&event);
                let Err(reason) = webhooks.post(&name, &id, &body).await else { continue };
                tracing::warn!(webhook = name, job = event.job, reason, "a webhook was not taken; it is posted again");
                let Ok(room) = Arc::clone(&again).try_acquire_owned() else {
                    tracing::error!(
                        webhook = name,
                        job = event.job,
                        "too many webhooks were not taken; this event is dropped"
                    );
                    continue;
                };
                let (webhooks, name) = (Arc::clone(&webhooks), name.clone());
                tokio::spawn(async move {
                    let _room = room;
                    webhooks.post_again(&name, &event.job, &id, &body).await;
                });
            }
        });
    }

    async fn post_again(&self, name: &str, job: &str, id: &str, body: &Json) {
        let mut last = String::new();
        for wait in AGAIN_AFTER {
            tokio::time::sleep(wait).await;
            match self.post(name, id, body).await {
                Ok(()) => return,
                Err(reason) => last = reason,
            }
        }
        tracing::error!(webhook = name, job, reason = last, "a webhook was never taken; the event is dropped");
    }

    /// Fails unless an endpoint of this name is configured.
    pub(crate) fn check(&self, name: &str) -> Result<(), String> {
        if self.endpoints.contains_key(name) {
            return Ok(());
        }
        let names = || self.endpoints.keys().map(String::as_str);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean '{near}'?"),
            None if self.endpoints.is_empty() => "webhooks.endpoints is empty".to_owned(),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        Err(format!("there is no webhook '{name}' in the configuration; {hint}"))
    }

    /// Posts once. The same id says that it is the same message.
    pub(crate) async fn post(&self, name: &str, id: &str, body: &Json) -> Result<(), String> {
        self.check(name)?;
        let (url, body) = (&self.endpoints[name], body.to_string());
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp.to_string());
        if let Some(key) = &self.key {
            let signature = ring::hmac::sign(key, format!("{id}.{timestamp}.{body}").as_bytes());
            request = request.header("webhook-signature", format!("v1,{}", STANDARD.encode(signature.as_ref())));
        }
        // Addresses may hold secrets, so errors do not repeat them.
        let answer = request.body(body).send().await.map_err(|error| causes(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("the endpoint answered {status}")) }
    }
}

/// The id and the body of what is posted of an event.
fn message(event: &JobEvent) -> (String, Json) {
    let kind = serde_json::to_value(event.kind).unwrap_or_default();
    let body = json!({"type": format!("job.{}", kind.as_str().unwrap_or_default()), "data": event});
    (uuid::Uuid::new_v4().to_string(), body)
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An endpoint as it is shown: what comes after the host may be a secret.
pub(crate) fn without_path(endpoint: &str) -> String {
    let end = endpoint.find("://").and_then(|scheme| {
        let host = scheme + 3;
        endpoint[host..].find('/').map(|path| host + path)
    });
    end.map_or_else(|| endpoint.to_owned(), |end| format!("{}/…", &endpoint[..end]))
}
