//! The routes, a file per resource. Each file has its handlers, its `router()` and its `OPERATIONS`.

mod admin;
mod collections;
mod databases;
mod documentation;
pub(crate) mod find;
mod introspection;
mod jobs;
mod keys;
mod legacy;
mod metadata_indexes;
mod metrics;
mod records;
mod schemas;
mod system;
mod tenants;
mod unserved;

use axum::Router;

use crate::app::App;

/// One operation of the API, for the generated reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// The schema of the body, if it takes one.
    pub(crate) request: Option<&'static str>,
    /// The status and the schema (or primitive type) of the answer.
    pub(crate) response: (u16, &'static str),
    /// Names of query parameters.
    pub(crate) query: &'static [&'static str],
}

/// All routes.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .merge(system::router())
        .merge(tenants::router())
        .merge(databases::router())
        .merge(collections::router())
        .merge(records::router())
        .merge(schemas::router())
        .merge(introspection::router())
        .merge(find::router())
        .merge(admin::router())
        .merge(jobs::router())
        .merge(keys::router())
        .merge(metadata_indexes::router())
        .merge(metrics::router())
        .merge(unserved::router())
        .merge(legacy::router())
        .merge(documentation::router())
}

/// All operations, in the order of the reference.
pub(crate) fn operations() -> impl Iterator<Item = &'static Operation> {
    [
        system::OPERATIONS,
        tenants::OPERATIONS,
        databases::OPERATIONS,
        collections::OPERATIONS,
        records::OPERATIONS,
        schemas::OPERATIONS,
        introspection::OPERATIONS,
        find::OPERATIONS,
        admin::OPERATIONS,
        jobs::OPERATIONS,
        keys::OPERATIONS,
        metadata_indexes::OPERATIONS,
        metrics::OPERATIONS,
        unserved::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}
