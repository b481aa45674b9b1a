//! An operation of the server, together with what serves it.

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use ochre_extension::{Description, Method};

use crate::app::App;

/// An operation with what serves it.
pub(crate) struct Served {
    pub(super) description: Description,
    pub(super) route: MethodRouter<App>,
}

impl Served {
    /// `handler` answers requests of the method and to the path that the description names.
    pub(super) fn new<H: Handler<T, App>, T: 'static>(description: Description, handler: H) -> Self {
        Self { route: on(method_filter(description.method), handler), description }
    }
}

/// The requests that an operation of this method is for.
pub(crate) fn method_filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
        Method::Options => MethodFilter::OPTIONS,
    }
}
