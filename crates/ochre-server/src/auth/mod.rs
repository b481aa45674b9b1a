//! Who asks, and whether they may: credentials, the guard before every route, limits and the audit log.
//!
//! Invariants:
//! - With authentication on, a request reaches a handler only through [`guard`], with a [`Caller`] that holds what the
//!   table asks.
//! - A place in which nothing is granted to the caller is answered as if it were not there.

mod audit;
mod browser;
mod keys;
mod limits;
mod target;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ochre_auth::{Authz, Grant, Htpasswd, KeyHash, KeySecret, Permission, Principal, Roles, Target};
use ochre_engine::{Collection, CollectionRow, Database, GetRequest};
use ochre_extension::{Access, Failure, OwnPermission};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use self::audit::{Audit, Entry};
use self::keys::Key;
pub use self::keys::{KeyError, Keys, Maker, NewKey, key_tables};
use self::limits::Failures;
pub(crate) use self::limits::{ROOM, Usage, current_room};
use self::target::RequestTarget;
use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::error::ApiError;
use crate::operations::Permissions;

/// A password that was right is not looked at again for so long: bcrypt is slow on purpose.
const PASSWORD_MEMORY: Duration = Duration::from_secs(300);
/// So many right passwords are remembered.
const PASSWORDS_MAX: usize = 1000;

/// What the names of roles begin with that come from an older server's file.
const AUTHZ_ROLE: &str = "authz.";
/// Of a path so many characters are noted.
const AUDITED_PATH_MAX: usize = 512;
/// So many passwords are looked at at once: each takes a processor for a while.
const PASSWORDS_AT_ONCE: usize = 2;

/// What the audit log says of an answer beside the request: which key, index or schema.
#[derive(Clone)]
pub(crate) struct Audited(pub(crate) serde_json::Value);

/// Why nobody is let in.
enum Refusal {
    /// The credentials are wrong or missing.
    Wrong(ApiError),
    /// There were too many wrong ones.
    Wait(Duration),
}

/// Everything authentication needs; made once.
pub struct Auth {
    roles: Roles,
    /// Tokens of the configuration, by their hash.
    tokens: Vec<(KeyHash, Arc<Principal>)>,
    htpasswd: Htpasswd,
    users: HashMap<String, Arc<Principal>>,
    keys: Keys,
    secret: KeySecret,
    /// The environment variable that a key of everything is taken from.
    root_key_variable: String,
    passwords: Mutex<HashMap<(String, [u8; 32]), Instant>>,
    /// Room for passwords that are being looked at.
    verifying: Arc<Semaphore>,
    failures: Failures,
    usage: Usage,
    audit: Audit,
}

/// Who asks, with what limits their key has.
#[derive(Clone)]
pub(crate) struct Caller {
    who: ochre_extension::Caller,
    key: Option<Arc<Key>>,
}

impl Deref for Caller {
    type Target = ochre_extension::Caller;

    fn deref(&self) -> &Self::Target {
        &self.who
    }
}

impl Caller {
    fn new(principal: Arc<Principal>, key: Option<Arc<Key>>) -> Self {
        let batch_records = key.as_ref().and_then(|key| key.limits().batch_records).map(|most| most as usize);
        Self { who: ochre_extension::Caller::new(principal, batch_records), key }
    }

    /// Waits for others with this key that make collections, if it limits how many there are. To be awaited before room
    /// for work is taken, and held until the collection is made.
    pub(crate) async fn count_collections(&self) -> Option<OwnedMutexGuard<()>> {
        let key = self.key.as_ref().filter(|key| key.limits().collections.is_some())?;
        Some(key.counting_collections().await)
    }

    /// As [`Caller::count_collections`], for writing records.
    pub(crate) async fn count_records(&self) -> Option<OwnedMutexGuard<()>> {
        let key = self.key.as_ref().filter(|key| key.limits().collection_records.is_some())?;
        Some(key.counting_records().await)
    }

    /// Refuses one more collection than the key allows.
    pub(crate) fn check_collections(
        &self, database: &Database, tenant: &str, home: &str, name: &str,
    ) -> Result<(), ApiError> {
        let most = self.key.as_ref().and_then(|key| key.limits().collections);
        let Some(most) = most else { return Ok(()) };
        let may_make =
            |row: &&CollectionRow| self.may(Permission::CollectionWrite, &row.tenant, &row.database, &row.name);
        let is_there = database.collection_in(tenant, home, name).is_ok();
        if !is_there && database.all_collections()?.iter().filter(may_make).count() >= most as usize {
            return Err(ApiError::invalid(format!(
                "there are as many collections as this key's limit of {most}; delete some, or ask for a key with a higher one"
            )));
        }
        Ok(())
    }

    /// Refuses new records that would make a collection hold more than the key allows. Those that are there already may
    /// be written again.
    pub(crate) fn check_records(&self, collection: &Collection, ids: &[String]) -> Result<(), ApiError> {
        let most = self.key.as_ref().and_then(|key| key.limits().collection_records);
        let Some(most) = most else { return Ok(()) };
        let held = collection.count()?;
        if held + ids.len() as u64 > u64::from(most) {
            let raw: HashSet<&String> = ids.iter().collect();
            let new = raw.len() - collection.get(&GetRequest::of(raw.iter().copied()))?.len();
            if new > 0 && held + new as u64 > u64::from(most) {
                // Not how many: whoever may only write must not learn which are there.
                return Err(ApiError::invalid(format!(
                    "the collection would hold more records than this key's limit of {most}; delete some, or ask for a key with a higher one"
                )));
            }
        }
        Ok(())
    }

    /// Whether its key limits how many records a collection may hold.
    pub(crate) fn limits_records(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.limits().collection_records.is_some())
    }

    /// Lets handlers know who asks: those of the server and those that are streamed.
    fn enter(self, request: &mut Request) {
        request.extensions_mut().insert(self.who.clone());
        request.extensions_mut().insert(self);
    }

    /// Whether a request may pass.
    fn authorize(&self, access: Option<Access>, target: &RequestTarget) -> Result<(), ApiError> {
        let who = self.principal();
        let refused = |permission| {
            let is_seen = target.targets().iter().all(|target| who.can_see(*target));
            let said = target.display();
            let failure = if is_seen {
                ochre_extension::Caller::forbidden(permission)
            } else {
                ochre_extension::Caller::hidden(said)
            };
            Err(failure.into())
        };
        match access {
            Some(Access::Public | Access::Authenticated) => Ok(()),
            Some(Access::Scope(permission)) => {
                let allows = target.targets().iter().all(|target| who.may(permission, *target));
                if allows { Ok(()) } else { refused(permission) }
            }
            Some(Access::Any(permission)) => {
                let allows = target.targets().iter().all(|target| who.may_somewhere(permission, *target));
                if allows { Ok(()) } else { refused(permission) }
            }
            Some(Access::Either(permission, instead)) => {
                let allows = |permission| target.targets().iter().all(|target| who.may_somewhere(permission, *target));
                if allows(permission) || allows(instead) { Ok(()) } else { refused(permission) }
            }
            // What is in no table is for those who may do everything.
            None if Permission::ALL.into_iter().all(|permission| who.may(permission, Target::default())) => Ok(()),
            None => Err(Failure::forbidden("Permission denied.").into()),
        }
    }

    /// Fails unless everything in these grants may be done everywhere: nobody grants what they do not have.
    pub(crate) fn check_grants(&self, roles: &Roles, grants: &[String]) -> Result<(), ApiError> {
        for grant in grants.iter().filter_map(|grant| roles.grant(grant).ok()) {
            let lacking = roles.permissions(grant.role()).into_iter().flatten();
            let lacking = lacking.copied().find(|permission| !self.principal().may(*permission, Target::default()));
            if let Some(permission) = lacking {
                let text = format!(
                    "Permission denied: {grant} grants {permission}, which you do not have everywhere yourself"
                );
                return Err(Failure::forbidden(text).into());
            }
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Without the guard nobody is let in.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::internal("the request passed no guard"))
    }
}

fn unauthenticated(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "AuthError", message)
}

impl Auth {
    /// Reads what the configuration names, and the keys of the database. `own` are the permissions that extensions
    /// bring.
    ///
    /// # Errors
    /// What in the configuration or its files cannot be used; or that the database cannot be read.
    pub fn new(
        config: &Config, database: &Database, own: Vec<OwnPermission>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let raw = &config.auth;
        let wrong = |key: &str, reason: String| ConfigError::Value {
            source_name: "the configuration".into(),
            key: format!("auth.{key}"),
            reason,
        };
        let mut roles = Roles::default();
        roles.extend(own);
        for role in &raw.roles {
            let (name, permissions) = role
                .split_once('=')
                .ok_or_else(|| wrong("roles", format!("holds \"{role}\"; expected \"name=permission,permission\"")))?;
            let permissions: Vec<String> = permissions.split(',').map(|name| name.trim().to_owned()).collect();
            roles.define(name.trim(), &permissions).map_err(|error| wrong("roles", format!("{name}: {error}")))?;
        }
        let (secret, mut tokens, mut users) = (KeySecret::new(), Vec::new(), HashMap::new());
        if let Ok(root) = std::env::var(&raw.root_key_variable)
            && !root.is_empty()
        {
            if root.len() < 16 {
                return Err(wrong(
                    "root_key_variable",
                    format!("names {}, whose value has less than 16 characters", raw.root_key_variable),
                )
                .into());
            }
            let grants = vec![Grant::admin(&roles)];
            tokens.push((secret.hash(&root), Arc::new(Principal { name: "root".into(), grants })));
        }
        if !raw.authz_file.is_empty() {
            let text = std::fs::read_to_string(&raw.authz_file)
                .map_err(|error| wrong("authz_file", format!("names {}: {error}", raw.authz_file)))?;
            let authz = Authz::parse(&text)
                .map_err(|problem| wrong("authz_file", format!("names {}: {problem}", raw.authz_file)))?;
            for (name, permissions) in &authz.roles {
                let names: Vec<String> = permissions.iter().map(|permission| permission.name().to_owned()).collect();
                // Under names of their own: keys that are granted a built-in role must not change with this file.
                roles
                    .define(&format!("{AUTHZ_ROLE}{name}"), &names)
                    .map_err(|error| wrong("authz_file", error.to_string()))?;
            }
            for user in authz.users {
                let tenant = user.tenant.as_deref().unwrap_or("*");
                let databases = if user.databases.is_empty() { vec!["*".to_owned()] } else { user.databases };
                let written = user.role.iter().flat_map(|role| {
                    databases.iter().map(move |database| format!("{AUTHZ_ROLE}{role}:{tenant}/{database}"))
                });
                let grants = written.map(|grant| roles.grant(&grant)).collect::<Result<Vec<_>, _>>();
                let grants = grants.map_err(|error| wrong("authz_file", format!("user '{}': {error}", user.id)))?;
                let principal = Arc::new(Principal { name: user.id.clone(), grants });
                tokens.extend(user.tokens.iter().map(|token| (secret.hash(token), Arc::clone(&principal))));
                users.insert(user.id, principal);
            }
        }
        for user in &raw.users {
            let parts = user.split_once('=');
            let (name, grants) =
                parts.ok_or_else(|| wrong("users", format!("holds \"{user}\"; expected \"name=grant,grant\"")))?;
            let grants = grants.split(',').map(|grant| roles.grant(grant.trim())).collect::<Result<Vec<_>, _>>();
            let grants = grants.map_err(|error| wrong("users", format!("{name}: {error}")))?;
            let principal = Principal { name: name.trim().to_owned(), grants };
            users.insert(name.trim().to_owned(), Arc::new(principal));
        }
        let mut htpasswd = Htpasswd::default();
        if !raw.htpasswd.is_empty() {
            let text = std::fs::read_to_string(&raw.htpasswd)
                .map_err(|error| wrong("htpasswd", format!("names {}: {error}", raw.htpasswd)))?;
            htpasswd = Htpasswd::parse(&text)
                .map_err(|error| wrong("htpasswd", format!("names {}: {error}", raw.htpasswd)))?;
            for user in htpasswd.users().filter(|user| !users.contains_key(*user)) {
                tracing::warn!(user, "a user has a password and no grant: nothing is allowed; name some in auth.users");
            }
        }
        let keys = Keys::load(database, &roles)?;
        if !raw.enabled && keys.has_any() {
            tracing::warn!("the database has keys, but authentication is off: set auth.enabled = true");
        }
        let audit = if raw.enabled { Audit::open(&raw.audit_log, &config.database.path)? } else { Audit::off() };
        let failures = Failures::new(raw.failures_per_minute);
        let passwords = Mutex::default();
        let (verifying, usage) = (Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)), Usage::default());
        let root_key_variable = raw.root_key_variable.clone();
        let auth = Self {
            roles,
            tokens,
            htpasswd,
            users,
            keys,
            secret,
            root_key_variable,
            passwords,
            verifying,
            failures,
            usage,
            audit,
        };
        if raw.enabled && auth.is_nobody_known() {
            tracing::warn!(
                "authentication is on and there is no key: make one with `ochre keys create NAME --grant admin --offline` while the server is stopped, or set {}",
                raw.root_key_variable
            );
        }
        let made_by_anybody = auth.keys.made_by_anybody();
        if raw.enabled && made_by_anybody > 0 {
            tracing::warn!(
                keys = made_by_anybody,
                "keys are valid that anybody may have made while authentication was off: look at `ochre keys list` and revoke those that are not yours"
            );
        }
        Ok(auth)
    }

    /// Whether there is nothing that anybody could be let in with.
    fn is_nobody_known(&self) -> bool {
        self.tokens.is_empty() && self.htpasswd.users().next().is_none() && !self.keys.has_any()
    }

    /// Whoever has this name now: a key that is valid, a user, or whoever a token of the configuration stands for.
    pub(crate) fn principal_named(&self, name: &str) -> Option<Arc<Principal>> {
        let tokens = self.tokens.iter().map(|(_, principal)| principal);
        let known = tokens.chain(self.users.values()).find(|principal| principal.name == name).cloned();
        known.or_else(|| self.keys.principal_named(name))
    }

    /// The keys of the database.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The roles there are.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Who sends these headers.
    async fn authenticate(self: &Arc<Self>, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Refusal> {
        let (mut token, mut basic) = (None, None);
        if let Some(value) = headers.get("x-chroma-token") {
            token = value.to_str().ok();
        }
        let mut scheme_is_known = true;
        if let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
            match scheme.to_ascii_lowercase().as_str() {
                "bearer" => token = Some(rest.trim()),
                "basic" => basic = Some(rest.trim()),
                _ => scheme_is_known = false,
            }
        }
        let token = token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token)).filter(|_| scheme_is_known);
        // A key has too many bits to be guessed: whoever has one never waits for what others at their address do.
        if let Some(key) = token.and_then(|token| self.keys.find(token)) {
            return Ok(Caller::new(Arc::clone(&key.principal), Some(key)));
        }
        if let Some(wait) = self.failures.is_blocked(address) {
            return Err(Refusal::Wait(wait));
        }
        // Counted before it is looked at, so that nobody gets more by asking at once or going away.
        self.failures.note(address);
        let wrong = |text: &str| Refusal::Wrong(unauthenticated(text));
        let caller = match (scheme_is_known, token, basic) {
            (false, ..) => return Err(wrong("Authorization: expected Bearer or Basic")),
            (_, Some(token), _) => self.by_token(token).ok_or_else(|| wrong("the token is not valid"))?,
            (_, None, Some(basic)) => {
                let text =
                    STANDARD.decode(basic).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
                let (user, password) = text.split_once(':').unwrap_or_default();
                let found = self.by_password(user, password).await?;
                found.ok_or_else(|| wrong("user or password is not valid"))?
            }
            (_, None, None) if self.is_nobody_known() => {
                return Err(wrong(&format!(
                    "there is no key yet: stop the server, run `ochre keys create NAME --grant admin --offline` with its --path or --config, and start it again; or start it with a key of your own in {}",
                    self.root_key_variable
                )));
            }
            (_, None, None) => {
                return Err(wrong(
                    "credentials are needed: Authorization: Bearer KEY, X-Chroma-Token: KEY, or Basic with user and password",
                ));
            }
        };
        self.failures.forgive(address);
        Ok(caller)
    }

    /// A token of the configuration.
    fn by_token(&self, token: &str) -> Option<Caller> {
        // All of them are compared, so that it takes as long whichever it is.
        let (hash, mut found) = (self.secret.hash(token), None);
        for (own, principal) in &self.tokens {
            if *own == hash {
                found = Some(principal);
            }
        }
        found.map(|principal| Caller::new(Arc::clone(principal), None))
    }

    async fn by_password(self: &Arc<Self>, user: &str, password: &str) -> Result<Option<Caller>, Refusal> {
        let remembered = (user.to_owned(), *self.secret.hash(&format!("{user}\0{password}")).as_bytes());
        let is_known = self.passwords.lock().get(&remembered).is_some_and(|at| at.elapsed() < PASSWORD_MEMORY);
        if !is_known {
            // Many of one user at once wait for each other: their address counts them meanwhile, so they are few.
            let Ok(room) = Arc::clone(&self.verifying).acquire_owned().await else {
                return Err(Refusal::Wait(Duration::ZERO));
            };
            let (auth, user, password) = (Arc::clone(self), user.to_owned(), password.to_owned());
            let verified = tokio::task::spawn_blocking(move || {
                let _room = room;
                auth.htpasswd.verify(&user, &password)
            });
            if !verified.await.unwrap_or(false) {
                return Ok(None);
            }
            let mut passwords = self.passwords.lock();
            if passwords.len() >= PASSWORDS_MAX {
                passwords.clear();
            }
            passwords.insert(remembered, Instant::now());
        }
        let nobody = || Arc::new(Principal { name: user.to_owned(), grants: Vec::new() });
        Ok(Some(Caller::new(self.users.get(user).cloned().unwrap_or_else(nobody), None)))
    }
}

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
    let authorize = caller.authorize(access, &target);
    let entry = entry.map(|entry| Entry { who: caller.principal().name.clone(), ..entry });
    let Some(entry) = entry else {
        return match authorize {
            Ok(()) => {
                caller.enter(&mut request);
                ROOM.scope(room, next.run(request)).await
            }
            Err(error) => error.into_response(),
        };
    };
    // In a task of its own: a client that goes away must not keep it from being noted.
    let answered = tokio::spawn(async move {
        let response = match authorize {
            Ok(()) => {
                caller.enter(&mut request);
                ROOM.scope(room, next.run(request)).await
            }
            Err(error) => error.into_response(),
        };
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
