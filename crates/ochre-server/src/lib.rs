//! The HTTP server that speaks Chroma's API.
//!
//! Handlers extract, call the engine on a blocking thread, and wrap; body limits, request ids,
//! compression and CORS are layers. Async begins here and ends at `App::run`.
//!
//! Not here: what JSON bodies look like (`ochre-wire`), what requests mean (`ochre-engine`).

mod app;
mod auth;
mod body;
mod body_budget;
mod config;
mod connections;
mod embedding;
mod error;
mod exposition;
mod extensions;
mod finder;
mod layers;
mod openapi;
mod operations;
mod parameters;
mod paths;
mod requests;
mod routes;
mod s3;
mod sending;
mod serve;
mod tls;
mod user_jobs;
mod webhooks;

pub use app::App;
pub use auth::{Auth, KeyError, Keys, Maker, NewKey, key_tables};
pub use config::{Config, ConfigError, DEFAULT_TOML, Source};
pub use extensions::{ExtensionOptions, Extensions, Loaded, serve_mcp};
pub use serve::{Server, service};
pub use user_jobs::user_job_tables;
pub use webhooks::Webhooks;

/// The version of Chroma's API that is spoken; clients only show it.
pub const API_VERSION: &str = "1.0.0";
