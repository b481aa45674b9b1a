//! The guard before every route: who asks, whether they may, how much at once, and a line in the audit log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ochre_auth::Roles;
use ochre_extension::{Access, OwnPermission};

use super::audit::Entry;
use super::browser;
use super::caller::{Audited, Caller};
use super::credentials::{Auth, Refusal};
use super::limits::ROOM;
use super::target::RequestTarget;
use crate::app::App;
use crate::error::ApiError;
use crate::operations::Permissions;

/// Of a path so many characters are noted.
const AUDITED_PATH_MAX: usize = 512;

/// What the guard looks at.
#[derive(Clone)]
pub(crate) struct Guard {
    app: App,
    permissions: Arc<Permissions>,
    /// Whoever there is while authentication is off.
    anybody: Caller,
}

impl Guard {
    /// A guard of operations that need these permissions, of which extensions bring some.
    pub(crate) fn new(app: App, permissions: Permissions, own: Vec<OwnPermission>) -> Self {
        let mut roles = Roles::default();
        roles.extend(own);
        let anybody = Caller { who: ochre_extension::Caller::unrestricted(&roles), key: None };
        Self { app, permissions: Arc::new(permissions), anybody }
    }
}

/// Lets a request through if whoever sends it may do what it asks for.
pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Guard { app, permissions, anybody } = guard;
    if let Err(error) = browser::check(&app, request.method(), request.uri(), request.headers()) {
        return error.into_response();
    }
    let route = request.extensions().get::<MatchedPath>().map_or(String::new(), |path| path.as_str().to_owned());
    if !route.is_empty() && !permissions.has(&route) {
        return ApiError::internal(format!("{route} is in no table of permissions")).into_response();
    }
    let Some(auth) = app.auth() else {
        let is_for_this_machine = route.starts_with("/_admin/") || route == "/mcp";
        if let Err(error) = if is_for_this_machine { app.check_local() } else { Ok(()) } {
            return error.into_response();
        }
        anybody.enter(&mut request);
        return next.run(request).await;
    };
    let auth = Arc::clone(auth);
    let access = permissions.access(request.method().as_str(), &route);
    if access == Some(Access::Public) {
        Caller { who: ochre_extension::Caller::anonymous(), key: None }.enter(&mut request);
        return next.run(request).await;
    }
    let address =
        request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let permission = match access {
        Some(Access::Scope(permission) | Access::Any(permission) | Access::Either(permission, _)) => Some(permission),
        _ => None,
    };
    let entry = permission.filter(|permission| permission.is_audited()).map(|permission| Entry {
        who: String::new(),
        address,
        method: request.method().to_string(),
        path: request.uri().path().chars().take(AUDITED_PATH_MAX).collect(),
        permission: permission.name(),
        detail: None,
    });
    let caller = match auth.authenticate(request.headers(), address).await {
        Ok(caller) => caller,
        Err(Refusal::Wait(wait)) => {
            return too_many("too many failed attempts to authenticate from this address", wait);
        }
        Err(Refusal::Wrong(error)) => {
            if let Some(entry) = entry {
                auth.audit.note(&entry, StatusCode::UNAUTHORIZED.as_u16());
            }
            let mut response = error.into_response();
            let schemes = HeaderValue::from_static("Bearer realm=\"ochre\", Basic realm=\"ochre\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, schemes);
            return response;
        }
    };
    let room = match caller.key.as_ref().map(|key| auth.usage.enter(key.limits(), &caller.principal().name)) {
        None => None,
        Some(Ok(room)) => Some(Arc::new(room)),
        Some(Err((text, wait))) => return too_many(text, wait),
    };
    let target = RequestTarget::of(&request, &route).resolved(app.database()).await;
    if let Err(error) = caller.authorize(access, &target) {
        if let Some(entry) = entry {
            let entry = Entry { who: caller.principal().name.clone(), ..entry };
            auth.audit.note(&entry, error.status().as_u16());
        }
        return error.into_response();
    }
    let who = caller.principal().name.clone();
    caller.enter(&mut request);
    let answering = ROOM.scope(room, next.run(request));
    match entry {
        None => answering.await,
        Some(entry) => audited(answering, auth, Entry { who, ..entry }).await,
    }
}

/// The answer to a request, noted in the audit log, in a task of its own: a client that goes away must not keep it from
/// being noted.
async fn audited(
    answering: impl Future<Output = Response> + Send + 'static, auth: Arc<Auth>, entry: Entry,
) -> Response {
    let answered = tokio::spawn(async move {
        let response = answering.await;
        let detail = response.extensions().get::<Audited>().map(|audited| audited.0.clone());
        auth.audit.note(&Entry { detail, ..entry }, response.status().as_u16());
        response
    });
    answered.await.unwrap_or_else(|error| ApiError::internal(format!("the request failed: {error}")).into_response())
}

fn too_many(text: &str, wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let error =
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitError", format!("{text}; try again in {seconds} s"));
    let mut response = error.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
