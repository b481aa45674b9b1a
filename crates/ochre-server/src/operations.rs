//! Every operation there is, of the server and of extensions: one table for the router, the permissions and the
//! description of the API.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, RawQuery, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::on;
use http_body_util::BodyExt;
use ochre_auth::{OwnPermission, Permission, Roles};
use ochre_engine::Database;
use ochre_extension::{Access, Answer, ApiExtension, Call, Description, Handler, Method, Operation, Work};

use crate::app::App;
use crate::auth::Audited;
use crate::auth::Caller;
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::openapi;
use crate::routes;
use crate::routes::served::method_filter;

/// What each operation needs: the one table. What is not in it needs every permission there is.
#[derive(Default)]
pub(crate) struct Permissions(HashMap<&'static str, Vec<(Method, Access)>>);

impl Permissions {
    /// The table of the server's own operations and those of extensions.
    pub(crate) fn of(extensions: &[Arc<dyn ApiExtension>]) -> Self {
        let mut table = Self::default();
        let own = extensions.iter().flat_map(|extension| Arc::clone(extension).operations());
        for description in routes::descriptions().chain(own.map(|operation| operation.description)) {
            table.0.entry(description.path).or_default().push((description.method, description.access));
        }
        table
    }

    /// Whether there is anything at a route.
    pub(crate) fn has(&self, route: &str) -> bool {
        self.0.contains_key(route)
    }

    /// What a request by this method to this route needs; absent if it is in no table.
    pub(crate) fn access(&self, method: &str, route: &str) -> Option<Access> {
        let method = if method == "HEAD" { "GET" } else { method };
        let of_route = self.0.get(route)?;
        of_route.iter().find(|(own, _)| own.name() == method).map(|(_, access)| *access)
    }
}

/// Fails if operations of extensions cannot be served beside each other and the server's own, or need permissions that
/// nobody can be granted; says which and why.
pub(crate) fn check(extensions: &[Arc<dyn ApiExtension>]) -> Result<(), String> {
    let roles = Roles::default();
    let mut served: Vec<(Method, &str, &str)> =
        routes::descriptions().map(|description| (description.method, description.path, "the server")).collect();
    let mut granted: Vec<OwnPermission> = Vec::new();
    let mut named = openapi::schemas();
    for extension in extensions {
        let name = extension.name();
        let wrong = |text: String| Err(format!("names '{name}', which cannot be used: {text}"));
        for own in extension.permissions() {
            if own.name.strip_prefix(name).is_none_or(|what| !what.starts_with(':') || what.len() == 1) {
                return wrong(format!("its permission '{}' must be named {name}:…", own.name));
            }
            let is_of_server = Permission::ALL.iter().any(|other| other.name().split(':').next() == Some(name));
            if is_of_server || granted.iter().any(|other| other.name == own.name) {
                return wrong(format!("there are permissions named like '{}' already", own.name));
            }
            if let Some(role) = own.roles.iter().find(|role| roles.permissions(role).is_none()) {
                return wrong(format!("its permission '{}' is for a role '{role}' that there is not", own.name));
            }
            granted.push(own);
        }
        let schemas = extension.schemas();
        if let Some(schema) = schemas.keys().find(|schema| named.contains(*schema)) {
            return wrong(format!("there is a schema {schema:?} already"));
        }
        named.extend(schemas.keys().cloned());
        for Operation { description: Description { method, path, access, request, .. }, .. } in
            Arc::clone(extension).operations()
        {
            let said = format!("{} {path}", method.name());
            if !is_path(path) {
                return wrong(format!("{said} has no path such as /{name}/{{collection}}/…"));
            }
            if let Access::Scope(Permission::Own(own)) | Access::Any(Permission::Own(own)) = access
                && !granted.contains(&own)
            {
                return wrong(format!("{said} needs '{}', which is not among its permissions", own.name));
            }
            if let Some((_, other, whose)) = served.iter().find(|(_, other, _)| clash(path, other)) {
                return wrong(format!("{said} cannot be told from {other} of {whose}; name parameters alike"));
            }
            if let Some((_, other, whose)) =
                served.iter().find(|(_, other, whose)| *whose != name && takes_over(path, other))
            {
                return wrong(format!("{said} would take requests from {other} of {whose}; choose another path"));
            }
            if let Some((.., whose)) = served.iter().find(|(own, other, _)| *own == method && *other == path) {
                return wrong(format!("{said} is served by {whose} already"));
            }
            if let Some(schema) = request.filter(|schema| !schemas.contains_key(*schema)) {
                return wrong(format!("{said} takes {schema:?}, which is not among its schemas"));
            }
            served.push((method, path, name));
        }
    }
    Ok(())
}

/// Whether a path is one: its parts are texts or parameters, `{name}` or at the end `{*name}`.
fn is_path(path: &str) -> bool {
    let Some(parts) = path.strip_prefix('/') else { return false };
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let count = parts.split('/').count();
    parts.split('/').enumerate().all(|(number, part)| {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(rest) => number + 1 == count && is_name(rest),
                None => is_name(name),
            },
            None => !part.is_empty() && !part.contains(['{', '}', '?', '#', '%']) && !part.starts_with([':', '*']),
        }
    })
}

/// Whether everything that one path is for is for another as well, where that has a parameter and this a text.
fn takes_over(one: &str, other: &str) -> bool {
    let is_parameter = |part: &str| part.starts_with('{') && !part.starts_with("{*");
    let (own, their): (Vec<&str>, Vec<&str>) = (one.split('/').collect(), other.split('/').collect());
    one != other
        && own.len() == their.len()
        && own.iter().zip(&their).all(|(own, their)| own == their || is_parameter(their))
        && own.iter().zip(&their).any(|(own, their)| is_parameter(their) && !is_parameter(own))
}

/// Whether a router cannot tell two paths apart that are written differently.
fn clash(one: &str, other: &str) -> bool {
    let kind = |part: &str| (part.starts_with("{*"), part.starts_with('{'));
    for (own, their) in one.split('/').zip(other.split('/')) {
        match (kind(own), kind(their)) {
            // One takes a part, and the other everything from here on.
            ((true, _), (_, true)) | ((_, true), (true, _)) => return one != other,
            ((_, true), (_, true)) => {}
            _ if own == their => {}
            _ => return false,
        }
    }
    one != other && one.split('/').count() == other.split('/').count()
}

/// The routes of extensions.
pub(crate) fn router(extensions: &[Arc<dyn ApiExtension>]) -> Router<App> {
    let operations = extensions.iter().flat_map(|extension| Arc::clone(extension).operations());
    operations.fold(Router::new(), |router, Operation { description, handler }| {
        let filter = method_filter(description.method);
        let served = match handler {
            Handler::Work(work) => on(
                filter,
                async move |State(app): State<App>,
                            caller: Caller,
                            path: Result<Path<HashMap<String, String>>, PathRejection>,
                            RawQuery(query): RawQuery,
                            request: Request| {
                    let path = match path {
                        Ok(Path(path)) => path,
                        Err(PathRejection::MissingPathParams(_)) => HashMap::new(),
                        Err(rejection) => return ApiError::invalid(rejection.body_text()).into_response(),
                    };
                    let query = query.unwrap_or_default();
                    serve(app, description, Arc::clone(&work), (caller, path, query), request).await
                },
            ),
            Handler::Stream(stream) => on(filter, async move |request: Request| {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                stream(request).await.map(Body::new)
            }),
        };
        router.route(description.path, served)
    })
}

async fn serve(
    app: App, description: Description, work: Work, (caller, path, query): (Caller, HashMap<String, String>, String),
    request: Request,
) -> Response {
    let body = match description.request {
        None => None,
        Some(_) => match JsonBytes::from_request(request, &app).await {
            Ok(body) => Some(body),
            Err(refused) => return refused,
        },
    };
    let answer = move |database: &Database| {
        let bytes = body.as_ref().map_or(&[][..], JsonBytes::bytes);
        Ok(work(&Call::new(database, &caller, &path, &query, bytes))?)
    };
    let answered = match description.method {
        _ if description.is_write => app.run_write(answer).await,
        Method::Get => app.run_read(answer).await,
        _ => app.run(answer).await,
    };
    match answered {
        Ok(Answer { status, content_type, body, audited }) => {
            let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
            if let Some(audited) = audited {
                response.extensions_mut().insert(Audited(audited));
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use ochre_extension::{Parameter, StatusCode};

    use super::*;
    use crate::config::Config;
    use crate::extensions::Extensions;

    #[test]
    fn the_table_says_what_operations_need() {
        let loaded = Extensions::built_in().load(&Config::default()).unwrap();
        let table = Permissions::of(loaded.api());
        let base = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}";
        assert_eq!(table.access("HEAD", base), Some(Access::Scope(Permission::CollectionRead)));
        assert_eq!(table.access("POST", "/_admin/metadata_indexes"), Some(Access::Any(Permission::IndexWrite)));
        assert_eq!(table.access("GET", "/api/v2/nothing"), None);
        assert_eq!(table.access("PATCH", base), None);
    }

    /// An extension that is wrong in one way.
    struct Wrong(&'static [OwnPermission], Vec<Description>);

    impl ApiExtension for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }

        fn description(&self) -> &'static str {
            "is wrong"
        }

        fn permissions(&self) -> Vec<OwnPermission> {
            self.0.to_vec()
        }

        fn operations(self: Arc<Self>) -> Vec<Operation> {
            let answer = |_: &Call<'_>| Ok(Answer::text("text/plain", String::new()).with_status(StatusCode::ACCEPTED));
            self.1.iter().map(|description| description.query(const { &[Parameter::text("x")] }).does(answer)).collect()
        }
    }

    #[test]
    fn extensions_that_cannot_be_served_are_refused_and_told_why() {
        const OWN: OwnPermission = OwnPermission { name: "wrong:read", roles: &["reader"], is_audited: false };
        let get = |path: &'static str| Description::get(path, "", Access::Authenticated);
        let own = Description::get("/wrong", "", Access::Scope(Permission::Own(OWN)));
        let cases: [(&'static [OwnPermission], Vec<Description>, Option<&str>); 21] = [
            (&[OWN], vec![own], None),
            (&[], vec![own], Some("not among its permissions")),
            (&[OwnPermission { name: "notes:read", ..OWN }], vec![], Some("must be named wrong:")),
            (&[OwnPermission { roles: &["king"], ..OWN }], vec![], Some("role 'king'")),
            (&[OWN, OWN], vec![], Some("already")),
            (&[], vec![get("/wrong/{")], Some("has no path")),
            (&[], vec![get("/wrong/{id}.json")], Some("has no path")),
            (&[], vec![get("/wrong/{*rest}/x")], Some("has no path")),
            (&[], vec![get("/wrong/:id")], Some("has no path")),
            (&[], vec![get("/")], Some("has no path")),
            (&[], vec![get("/api/v2/tenants/acme")], Some("would take requests from /api/v2/tenants/{tenant}")),
            (&[], vec![get("/_admin/jobs/all")], Some("of jobs; choose another path")),
            (&[], vec![get("/wrong/x"), get("/wrong/{x}")], None),
            (&[], vec![get("wrong")], Some("has no path")),
            (&[], vec![get("/wrong").takes("Something")], Some("not among its schemas")),
            (&[], vec![get("/_admin/jobs")], Some("served by jobs already")),
            (&[], vec![get("/api/v2/heartbeat")], Some("served by the server already")),
            (&[], vec![get("/_admin/jobs/{job}")], Some("cannot be told from /_admin/jobs/{name}")),
            (&[], vec![get("/wrong/{x}/a"), get("/wrong/{x}/{y}"), get("/wrong")], None),
            (&[], vec![get("/wrong/{x}"), get("/wrong/{*rest}")], Some("cannot be told from /wrong/{x}")),
            (&[], vec![get("/wrong/{x}"), get("/wrong/{x}")], Some("served by wrong already")),
        ];
        let built_in = Extensions::built_in().load(&Config::default()).unwrap();
        for (permissions, descriptions, words) in cases {
            let said = format!("{descriptions:?}");
            let mut all = built_in.api().to_vec();
            all.push(Arc::new(Wrong(permissions, descriptions)));
            match (check(&all), words) {
                (Ok(()), None) => drop(router(&all)),
                (Err(text), Some(words)) => assert!(text.contains("'wrong'") && text.contains(words), "{text}"),
                (other, _) => panic!("{said}: {other:?}"),
            }
        }
    }
}
