//! Credentials: keys, tokens and passwords, and whom they belong to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ochre_auth::{Authz, Grant, Htpasswd, KeyHash, KeySecret, Principal, Roles};
use ochre_engine::Database;
use ochre_extension::OwnPermission;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::audit::Audit;
use super::caller::Caller;
use super::keys::Keys;
use super::limits::{Failures, Usage};
use crate::config::{AuthConfig, Config, ConfigError};
use crate::error::ApiError;

/// A password that was right is not looked at again for so long: bcrypt is slow on purpose.
const PASSWORD_MEMORY: Duration = Duration::from_secs(300);
/// So many right passwords are remembered.
const PASSWORDS_MAX: usize = 1000;

/// What the names of roles begin with that come from an older server's file.
const AUTHZ_ROLE: &str = "authz.";
/// So many passwords are looked at at once: each takes a processor for a while.
const PASSWORDS_AT_ONCE: usize = 2;

/// Why nobody is let in.
pub(super) enum Refusal {
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
    pub(super) usage: Usage,
    pub(super) audit: Audit,
}

fn unauthenticated(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "AuthError", message)
}

/// Who is known from the configuration and the files that it names.
struct Known {
    roles: Roles,
    secret: KeySecret,
    /// Tokens by their hash.
    tokens: Vec<(KeyHash, Arc<Principal>)>,
    users: HashMap<String, Arc<Principal>>,
}

fn wrong(key: &str, reason: String) -> ConfigError {
    ConfigError::Value { source_name: "the configuration".into(), key: format!("auth.{key}"), reason }
}

impl Known {
    /// Nobody, and the roles there are.
    fn new(raw: &AuthConfig, own: Vec<OwnPermission>) -> Result<Self, ConfigError> {
        let mut roles = Roles::default();
        roles.extend(own);
        for role in &raw.roles {
            let (name, permissions) = role
                .split_once('=')
                .ok_or_else(|| wrong("roles", format!("holds \"{role}\"; expected \"name=permission,permission\"")))?;
            let permissions: Vec<String> = permissions.split(',').map(|name| name.trim().to_owned()).collect();
            roles.define(name.trim(), &permissions).map_err(|error| wrong("roles", format!("{name}: {error}")))?;
        }
        Ok(Self { roles, secret: KeySecret::new(), tokens: Vec::new(), users: HashMap::new() })
    }

    fn read_root_key(&mut self, raw: &AuthConfig) -> Result<(), ConfigError> {
        let Some(root) = std::env::var(&raw.root_key_variable).ok().filter(|root| !root.is_empty()) else {
            return Ok(());
        };
        if root.len() < 16 {
            let text = format!("names {}, whose value has less than 16 characters", raw.root_key_variable);
            return Err(wrong("root_key_variable", text));
        }
        let grants = vec![Grant::admin(&self.roles)];
        self.tokens.push((self.secret.hash(&root), Arc::new(Principal { name: "root".into(), grants })));
        Ok(())
    }

    fn read_authz_file(&mut self, raw: &AuthConfig) -> Result<(), ConfigError> {
        if raw.authz_file.is_empty() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&raw.authz_file)
            .map_err(|error| wrong("authz_file", format!("names {}: {error}", raw.authz_file)))?;
        let authz = Authz::parse(&text)
            .map_err(|problem| wrong("authz_file", format!("names {}: {problem}", raw.authz_file)))?;
        for (name, permissions) in &authz.roles {
            let names: Vec<String> = permissions.iter().map(|permission| permission.name().to_owned()).collect();
            // Under names of their own: keys that are granted a built-in role must not change with this file.
            self.roles
                .define(&format!("{AUTHZ_ROLE}{name}"), &names)
                .map_err(|error| wrong("authz_file", error.to_string()))?;
        }
        for user in authz.users {
            let tenant = user.tenant.as_deref().unwrap_or("*");
            let databases = if user.databases.is_empty() { vec!["*".to_owned()] } else { user.databases };
            let written = user.role.iter().flat_map(|role| {
                databases.iter().map(move |database| format!("{AUTHZ_ROLE}{role}:{tenant}/{database}"))
            });
            let grants = written.map(|grant| self.roles.grant(&grant)).collect::<Result<Vec<_>, _>>();
            let grants = grants.map_err(|error| wrong("authz_file", format!("user '{}': {error}", user.id)))?;
            let principal = Arc::new(Principal { name: user.id.clone(), grants });
            self.tokens.extend(user.tokens.iter().map(|token| (self.secret.hash(token), Arc::clone(&principal))));
            self.users.insert(user.id, principal);
        }
        Ok(())
    }

    fn read_users(&mut self, raw: &AuthConfig) -> Result<(), ConfigError> {
        for user in &raw.users {
            let parts = user.split_once('=');
            let (name, grants) =
                parts.ok_or_else(|| wrong("users", format!("holds \"{user}\"; expected \"name=grant,grant\"")))?;
            let grants = grants.split(',').map(|grant| self.roles.grant(grant.trim())).collect::<Result<Vec<_>, _>>();
            let grants = grants.map_err(|error| wrong("users", format!("{name}: {error}")))?;
            let principal = Principal { name: name.trim().to_owned(), grants };
            self.users.insert(name.trim().to_owned(), Arc::new(principal));
        }
        Ok(())
    }

    fn read_htpasswd(&self, raw: &AuthConfig) -> Result<Htpasswd, ConfigError> {
        if raw.htpasswd.is_empty() {
            return Ok(Htpasswd::default());
        }
        let text = std::fs::read_to_string(&raw.htpasswd)
            .map_err(|error| wrong("htpasswd", format!("names {}: {error}", raw.htpasswd)))?;
        let htpasswd =
            Htpasswd::parse(&text).map_err(|error| wrong("htpasswd", format!("names {}: {error}", raw.htpasswd)))?;
        for user in htpasswd.users().filter(|user| !self.users.contains_key(*user)) {
            tracing::warn!(user, "a user has a password and no grant: nothing is allowed; name some in auth.users");
        }
        Ok(htpasswd)
    }
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
        let mut known = Known::new(raw, own)?;
        known.read_root_key(raw)?;
        known.read_authz_file(raw)?;
        known.read_users(raw)?;
        let htpasswd = known.read_htpasswd(raw)?;
        let Known { roles, secret, tokens, users } = known;
        let keys = Keys::load(database, &roles)?;
        let audit = if raw.enabled { Audit::open(&raw.audit_log, &config.database.path)? } else { Audit::off() };
        let auth = Self {
            roles,
            tokens,
            htpasswd,
            users,
            keys,
            secret,
            root_key_variable: raw.root_key_variable.clone(),
            passwords: Mutex::default(),
            verifying: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            failures: Failures::new(raw.failures_per_minute),
            usage: Usage::default(),
            audit,
        };
        auth.warn(raw.enabled);
        Ok(auth)
    }

    /// Warns of settings that leave everybody in, or nobody.
    fn warn(&self, is_enabled: bool) {
        if !is_enabled {
            if self.keys.has_any() {
                tracing::warn!("the database has keys, but authentication is off: set auth.enabled = true");
            }
            return;
        }
        if self.is_nobody_known() {
            tracing::warn!(
                "authentication is on and there is no key: make one with `ochre keys create NAME --grant admin --offline` while the server is stopped, or set {}",
                self.root_key_variable
            );
        }
        let made_by_anybody = self.keys.made_by_anybody();
        if made_by_anybody > 0 {
            tracing::warn!(
                keys = made_by_anybody,
                "keys are valid that anybody may have made while authentication was off: look at `ochre keys list` and revoke those that are not yours"
            );
        }
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
    pub(super) async fn authenticate(
        self: &Arc<Self>, headers: &HeaderMap, address: IpAddr,
    ) -> Result<Caller, Refusal> {
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
