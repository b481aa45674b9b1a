//! The server's own routes, a file per resource. Each file has its handlers, its `router()` and its `OPERATIONS`.
//!
//! Not here: what extensions serve (`extensions`).

mod admin;
mod collections;
mod databases;
pub(crate) mod documentation;
pub(crate) mod find;
mod keys;
mod legacy;
mod metrics;
mod records;
mod schemas;
mod system;
mod tenants;
pub(crate) mod unknown;
mod unserved;

use axum::Router;
use ochre_extension::Description;

use crate::app::App;

/// The routes of the server itself.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .merge(system::router())
        .merge(tenants::router())
        .merge(databases::router())
        .merge(collections::router())
        .merge(records::router())
        .merge(schemas::router())
        .merge(find::router())
        .merge(admin::router())
        .merge(keys::router())
        .merge(metrics::router())
        .merge(unserved::router())
        .merge(legacy::router())
        .merge(documentation::router())
}

/// What they are, in the order of the reference.
pub(crate) fn descriptions() -> impl Iterator<Item = &'static Description> {
    [
        system::OPERATIONS,
        tenants::OPERATIONS,
        databases::OPERATIONS,
        collections::OPERATIONS,
        records::OPERATIONS,
        schemas::OPERATIONS,
        find::OPERATIONS,
        admin::OPERATIONS,
        keys::OPERATIONS,
        metrics::OPERATIONS,
        unserved::OPERATIONS,
        documentation::OPERATIONS,
        legacy::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}
