//! The server's own operations, a file per resource: each is described once, together with what serves it. Router,
//! permissions, the description of the API and its checks come from this list.
//!
//! Not here: what extensions serve (`extensions`).

mod admin;
mod collections;
mod conditional;
mod databases;
pub(crate) mod documentation;
mod explain;
pub(crate) mod find;
mod forks;
mod functions;
mod keys;
mod legacy;
mod metrics;
mod planning;
mod records;
mod schemas;
mod search;
pub(crate) mod served;
mod system;
mod tenants;
pub(crate) mod unknown;

use axum::Router;
use ochre_extension::Description;

use self::served::Served;
use crate::app::App;

/// All of them, in the order of the reference.
fn operations() -> impl Iterator<Item = Served> {
    [
        system::operations(),
        tenants::operations(),
        databases::operations(),
        collections::operations(),
        records::operations(),
        search::operations(),
        schemas::operations(),
        find::operations(),
        admin::operations(),
        keys::operations(),
        metrics::operations(),
        forks::operations(),
        functions::operations(),
        conditional::operations(),
        documentation::operations(),
        legacy::operations(),
    ]
    .into_iter()
    .flatten()
}

/// The routes of the server itself.
pub(crate) fn router() -> Router<App> {
    operations().fold(Router::new(), |router, served| router.route(served.description.path, served.route))
}

/// What they are, in the order of the reference.
pub(crate) fn descriptions() -> impl Iterator<Item = Description> {
    operations().map(|served| served.description)
}
