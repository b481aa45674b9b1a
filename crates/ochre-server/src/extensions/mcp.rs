//! Tools for language models, by the Model Context Protocol: for each collection one that finds records by typed
//! parameters, and one that describes it. Over HTTP at `/mcp`, and on standard input and output for `ochre mcp`.
//!
//! The tools are made from schemas and records whenever they are listed; a client with a session is told when they
//! changed.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use ochre_auth::Roles;
use ochre_engine::schema::Fields;
use ochre_engine::{CollectionRow, DEFAULT_DATABASE, DEFAULT_TENANT, Database, IntrospectMode, IntrospectRequest};
use ochre_extension::{
    Access, ApiExtension, Body, Caller, Description, Failure, Method, Operation, Permission, StatusCode, Streamed,
};
use parking_lot::Mutex;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServiceExt};
use serde_json::{Map, Value as Json, json};
use tokio::sync::watch;

use crate::app::App;
use crate::body::arrived;
use crate::error::ApiError;
use crate::finder;
use crate::paths::CollectionRef;
use crate::routes::find::{common_parameters, found_schema};

/// The header that names a session.
const SESSION: &str = "mcp-session-id";
/// Tools are made for so many collections, those made first.
const COLLECTIONS_MAX: usize = 100;
/// So many sessions are open at once.
const SESSIONS_MAX: usize = 256;
/// The longest name of a tool, in characters.
const NAME_MAX: usize = 64;
/// How often a session looks whether the tools changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

const INSTRUCTIONS: &str = "Each collection has a tool that finds its records, find_…, and one that tells what they look like, \
    describe_…: call that first if a filter finds nothing.";

/// What a caller needs of a collection to use its tools, which find and describe its records.
const TOOLS_NEED: [Permission; 3] = [Permission::ToolUse, Permission::RecordRead, Permission::IntrospectValues];

/// The tools of one server.
#[derive(Clone)]
pub(crate) struct Tools {
    app: App,
    /// Whether whoever uses them started the process: nobody is asked who they are.
    is_local: bool,
    /// Told when the tools changed; looked for only while somebody listens.
    changes: watch::Sender<u64>,
}

impl Tools {
    fn new(app: App, is_local: bool) -> Self {
        Self { app, is_local, changes: watch::Sender::new(0) }
    }

    /// Who asks. Each request of a session says it again.
    fn caller(&self, context: &RequestContext<RoleServer>) -> Caller {
        if self.is_local {
            return Caller::unrestricted(&Roles::default());
        }
        let parts = context.extensions.get::<axum::http::request::Parts>();
        parts.and_then(|parts| parts.extensions.get::<Caller>().cloned()).unwrap_or_else(Caller::anonymous)
    }

    /// Listens for changes; whoever is the first begins to look for them.
    fn listen(&self) -> watch::Receiver<u64> {
        let is_first = self.changes.receiver_count() == 0;
        let listener = self.changes.subscribe();
        if is_first {
            let (app, changes) = (self.app.clone(), self.changes.clone());
            tokio::spawn(async move {
                let mut known = app.run(fingerprint).await.ok();
                while changes.receiver_count() > 0 {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let now = app.run(fingerprint).await.ok();
                    if now != known {
                        changes.send_modify(|changes| *changes += 1);
                    }
                    known = now;
                }
            });
        }
        listener
    }
}

/// The extension: the route `/mcp`.
pub(super) struct Mcp {
    app: Arc<OnceLock<App>>,
    service: OnceLock<Service>,
}

/// What speaks the protocol.
struct Service {
    http: StreamableHttpService<Tools, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    /// Who began each session: nobody else may go on with it.
    owners: Mutex<HashMap<String, String>>,
    /// Ends its sessions.
    stop: Box<dyn Fn() + Send + Sync>,
}

impl Mcp {
    pub(super) const fn new(app: Arc<OnceLock<App>>) -> Self {
        Self { app, service: OnceLock::new() }
    }

    fn serve(self: Arc<Self>, request: Request<Body>) -> Streamed {
        Box::pin(async move {
            let (Some(service), Some(app)) = (self.service.get(), self.app.get()) else {
                return refuse(&Failure::internal("tools are not started"));
            };
            let (parts, body, _room) = match arrived(app, request.map(axum::body::Body::new)).await {
                Ok(arrived) => arrived,
                Err(refused) => return refused.map(|body| body.map_err(Into::into).boxed_unsync()),
            };
            let request = Request::from_parts(parts, Full::new(body));
            let session =
                |headers: &HeaderMap| headers.get(SESSION).and_then(|session| session.to_str().ok()).map(str::to_owned);
            let given = session(request.headers());
            let caller = request.extensions().get::<Caller>();
            let name = caller.map(|caller| caller.principal().name.clone()).unwrap_or_default();
            let is_foreign = |session: &String| service.owners.lock().get(session).is_some_and(|owner| *owner != name);
            if given.as_ref().is_some_and(is_foreign) {
                return refuse(&Failure::not_found("there is no such session; begin one with initialize"));
            }
            let is_new = given.is_none();
            // Those of clients that went away end by themselves.
            if is_new && service.sessions.sessions.read().await.len() >= SESSIONS_MAX {
                let text =
                    format!("{SESSIONS_MAX} sessions are open; end one, or wait until an idle one ends by itself");
                return refuse(&Failure::new(StatusCode::TOO_MANY_REQUESTS, "RateLimitError", text));
            }
            let answer = service.http.handle(request).await;
            if let Some(begun) = session(answer.headers()).filter(|_| is_new) {
                let open = service.sessions.sessions.read().await;
                let mut owners = service.owners.lock();
                owners.retain(|session, _| open.keys().any(|id| **id == **session));
                owners.insert(begun, name);
            }
            answer.map(|body| body.map_err(|never| match never {}).boxed_unsync())
        })
    }
}

impl ApiExtension for Mcp {
    fn name(&self) -> &'static str {
        "mcp"
    }

    fn description(&self) -> &'static str {
        "tools for language models, by the Model Context Protocol"
    }

    fn operations(self: Arc<Self>) -> Vec<Operation> {
        // Of which collections is asked for each tool.
        let access = Access::Any(Permission::ToolUse);
        [Method::Get, Method::Post, Method::Delete]
            .map(|method| {
                let mcp = Arc::clone(&self);
                Description::new(method, "/mcp", "Tools for language models", access)
                    .unlisted()
                    .streams(move |request| Arc::clone(&mcp).serve(request))
            })
            .into()
    }

    fn started(&self, _: &Database) -> Result<(), Failure> {
        let app = self.app.get().ok_or_else(|| Failure::internal("tools are for a server"))?;
        // Browsers on this machine must not be talked into using it: no origin is allowed. Under which names it is
        // reached is looked at before any handler runs.
        let config = StreamableHttpServerConfig::default().enforce_origin_validation().disable_allowed_hosts();
        let (stop, tools) = (config.cancellation_token.clone(), Tools::new(app.clone(), false));
        let sessions = Arc::new(LocalSessionManager::default());
        let http = StreamableHttpService::new(move || Ok(tools.clone()), Arc::clone(&sessions), config);
        let stop = Box::new(move || stop.cancel());
        let _ = self.service.set(Service { http, sessions, owners: Mutex::default(), stop });
        Ok(())
    }

    fn stopped(&self) {
        self.service.get().into_iter().for_each(|service| (service.stop)());
    }
}

fn refuse(failure: &Failure) -> Response<Body> {
    let body = Full::from(failure.body().to_string()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = failure.status();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Serves one client on standard input and output, until it goes away.
///
/// # Errors
/// Why the client could not be served.
pub async fn serve_standard(app: App) -> std::io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
    let running = Tools::new(app, true).serve(rmcp::transport::io::stdio()).await.map_err(|error| failed(&error))?;
    running.waiting().await.map(drop).map_err(|error| failed(&error))
}

/// What a tool does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Find,
    Describe,
}

impl Does {
    const ALL: [Self; 2] = [Self::Find, Self::Describe];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Describe => "describe",
        }
    }
}

/// The tools of a collection, as they are listed.
pub(crate) fn tools_of(fields: &Fields) -> Vec<Json> {
    let name = plain(&fields.collection);
    Does::ALL
        .into_iter()
        .map(|does| serde_json::to_value(tool(fields, does, format!("{}_{name}", does.prefix()))).unwrap_or_default())
        .collect()
}

fn tool(fields: &Fields, does: Does, name: String) -> Tool {
    let object = |json: Json| if let Json::Object(object) = json { object } else { Map::new() };
    let (description, input) = match does {
        Does::Find => {
            let own = fields.parameters().into_iter().map(|parameter| (parameter.name, parameter.schema));
            let common = common_parameters().into_iter().map(|(name, schema)| (name.to_owned(), schema));
            let properties: Map<String, Json> = common.chain(own).collect();
            let input = json!({"type": "object", "properties": properties, "additionalProperties": false});
            (format!("Find records of {}: {}", fields.collection, fields.description), input)
        }
        Does::Describe => {
            let text =
                format!("What the records of {} look like: keys, types, ranges, frequent values", fields.collection);
            (text, json!({"type": "object", "properties": {}, "additionalProperties": false}))
        }
    };
    let tool = Tool::new(name, description, object(input))
        .with_annotations(ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(false));
    match does {
        Does::Find => tool.with_raw_output_schema(Arc::new(object(found_schema()))),
        Does::Describe => tool,
    }
}

fn plain(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
    plain.take(NAME_MAX - "describe_".len() - 4).collect()
}

/// Collections whose tools a caller may use, with the names of those, without the prefix.
fn named(database: &Database, caller: &Caller) -> Result<Vec<(String, CollectionRow)>, ApiError> {
    let mut named: Vec<(String, CollectionRow)> = Vec::new();
    let may_use = |row: &CollectionRow| {
        TOOLS_NEED.iter().all(|permission| caller.may(*permission, &row.tenant, &row.database, &row.name))
    };
    for row in database.all_collections()?.into_iter().filter(may_use).take(COLLECTIONS_MAX) {
        let is_default = row.tenant == DEFAULT_TENANT && row.database == DEFAULT_DATABASE;
        let whole = if is_default { row.name.clone() } else { format!("{}_{}_{}", row.tenant, row.database, row.name) };
        let whole = plain(&whole);
        let is_taken = |name: &str| named.iter().any(|(other, _)| other == name);
        let name = if is_taken(&whole) {
            (2..).map(|number| format!("{whole}_{number}")).find(|name| !is_taken(name)).expect("numbers do not end")
        } else {
            whole
        };
        named.push((name, row));
    }
    Ok(named)
}

/// Changes when the tools do: collections, schemas and the types of keys.
fn fingerprint(database: &Database) -> Result<u64, ApiError> {
    let mut hasher = DefaultHasher::new();
    for row in database.all_collections()? {
        (&row.tenant, &row.database, &row.name).hash(&mut hasher);
        row.schema.to_text().hash(&mut hasher);
        row.declaration.map(|declaration| format!("{declaration:?}")).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

impl Tools {
    async fn list(&self, caller: Caller) -> Result<Vec<Tool>, ApiError> {
        self.app
            .run_read(move |database| {
                let mut tools = Vec::new();
                for (name, row) in named(database, &caller)? {
                    // One that was deleted meanwhile, or cannot be read, has no tools.
                    let Ok(collection) = database.collection_by_id(row.id) else { continue };
                    let Ok(fields) = finder::fields(&collection, IntrospectMode::Auto) else { continue };
                    tools.extend(Does::ALL.map(|does| tool(&fields, does, format!("{}_{name}", does.prefix()))));
                }
                Ok(tools)
            })
            .await
    }

    async fn call(&self, caller: Caller, name: String, given: Map<String, Json>) -> Result<CallToolResult, ApiError> {
        let found = self
            .app
            .run(move |database| {
                let all = named(database, &caller)?;
                let of = |does: Does| name.strip_prefix(does.prefix()).and_then(|name| name.strip_prefix('_'));
                for does in Does::ALL {
                    if let Some((_, row)) = all.iter().find(|(known, _)| of(does) == Some(known)) {
                        return Ok((does, row.clone()));
                    }
                }
                Err(ApiError::not_found(format!(
                    "there is no tool {name:?}; list the tools again, they may have changed"
                )))
            })
            .await;
        let (does, row) = found?;
        let home = CollectionRef::new(row.tenant, row.database, row.name);
        match does {
            Does::Find => Ok(CallToolResult::structured(json!(finder::find(&self.app, home, given).await?))),
            Does::Describe => {
                let describe = move |database: &Database| {
                    let request = IntrospectRequest { sensitive_keys: false, ..IntrospectRequest::default() };
                    Ok(home.find(database)?.introspect(&request)?.to_markdown())
                };
                Ok(CallToolResult::success(vec![ContentBlock::text(self.app.run_read(describe).await?)]))
            }
        }
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("ochre", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let (mut changes, peer) = (self.listen(), context.peer);
        tokio::spawn(async move {
            while !peer.is_transport_closed() {
                match tokio::time::timeout(LOOK_EVERY, changes.changed()).await {
                    Ok(Ok(())) if peer.notify_tool_list_changed().await.is_ok() => {}
                    // Nothing changed: see whether the client is there still.
                    Err(_) => {}
                    Ok(_) => break,
                }
            }
        });
    }

    async fn list_tools(
        &self, _: Option<PaginatedRequestParams>, context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self
            .list(self.caller(&context))
            .await
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self, request: CallToolRequestParams, context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let (caller, given) = (self.caller(&context), request.arguments.unwrap_or_default());
        let called = self.call(caller, request.name.into_owned(), given).await;
        // A model reads what went wrong and tries again: that is a result, not a failure of the protocol.
        let result = called.unwrap_or_else(|error| CallToolResult::error(vec![ContentBlock::text(error.to_string())]));
        Ok(result.into())
    }
}
