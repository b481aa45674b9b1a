//! Texts become embeddings: asks an endpoint that speaks OpenAI's API (`POST …/embeddings`), such as Ollama.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::config::EmbeddingConfig;
use crate::error::ApiError;

/// How long the endpoint may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The embedding of a text, or why there is none.
pub(crate) type Embed = dyn Fn(&str) -> Result<Vec<f32>, String> + Send + Sync;

/// What makes embeddings of texts: a function of the program's own, or an endpoint.
pub(crate) enum EmbeddingFunction {
    Own { name: String, embed: Arc<Embed> },
    Endpoint(Endpoint),
}

/// An endpoint that speaks OpenAI's API.
pub(crate) struct Endpoint {
    url: String,
    model: String,
    key: Option<String>,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

impl EmbeddingFunction {
    /// The configured endpoint, if there is one.
    pub(crate) fn new(config: &EmbeddingConfig) -> Option<Self> {
        Endpoint::new(config).map(Self::Endpoint)
    }

    /// The embedding of a text.
    pub(crate) async fn embed(&self, text: &str) -> Result<Vec<f32>, ApiError> {
        match self {
            Self::Endpoint(endpoint) => endpoint.embed(text).await,
            Self::Own { name, embed } => {
                let (embed, text) = (Arc::clone(embed), text.to_owned());
                // It may take long.
                let made = tokio::task::spawn_blocking(move || embed(&text)).await;
                let made = made.unwrap_or_else(|_| Err("it panicked".into()));
                made.map_err(|reason| {
                    ApiError::bad_gateway(format!("the embedding function '{name}' failed: {reason}"))
                })
            }
        }
    }
}

impl Endpoint {
    fn new(config: &EmbeddingConfig) -> Option<Self> {
        if config.url.is_empty() {
            return None;
        }
        // Fails only if there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(PATIENCE).build().ok()?;
        let key = std::env::var(&config.key_variable).ok().filter(|key| !key.is_empty());
        let url = format!("{}/embeddings", config.url.trim_end_matches('/'));
        Some(Self { url, model: config.model.clone(), key, client })
    }

    async fn embed(&self, text: &str) -> Result<Vec<f32>, ApiError> {
        let failed = |reason: &dyn std::fmt::Display| {
            let text = format!("the embedding endpoint {} failed: {reason}; check [embedding]", self.url);
            tracing::warn!("{text}");
            ApiError::bad_gateway(text)
        };
        let failed_at = |error: reqwest::Error| {
            if error.is_timeout() {
                return failed(&format!("it did not answer within {} s", PATIENCE.as_secs()));
            }
            // What lies below says more than that a request failed.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            failed(&cause)
        };
        let body = json!({"model": self.model, "input": [text]}).to_string();
        let mut request = self.client.post(&self.url).header("content-type", "application/json").body(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(failed_at)?;
        let status = answer.status();
        let (mut bytes, mut answer) = (Vec::new(), answer);
        while let Some(chunk) = answer.chunk().await.map_err(failed_at)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(failed(&"its answer is too long"));
            }
        }
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
            return Err(failed(&format!("it answered {status} {text}")));
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        answer.data.into_iter().next().map(|first| first.embedding).ok_or_else(|| failed(&"it gave no embedding"))
    }
}
