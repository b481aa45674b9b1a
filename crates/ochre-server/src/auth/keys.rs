//! Keys: made, listed, revoked; kept in tables of their own, of each only a keyed hash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ochre_auth::{ApiKey, KeyHash, KeySecret, Principal, Roles};
use ochre_engine::scheduler::Timestamp;
use ochre_engine::tables::params;
use ochre_engine::{Database, ExtensionTables};
use ochre_wire::admin::keys::KeyAnswer;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::error::ApiError;

/// The extension of the store that these tables are.
const EXTENSION: &str = "auth";
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE auth_secret (id INTEGER PRIMARY KEY CHECK (id = 1), secret BLOB NOT NULL);
CREATE TABLE auth_keys (id TEXT PRIMARY KEY, hash BLOB NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
"];
/// The tables of keys, which are of no extension that could be left out.
pub fn key_tables() -> ExtensionTables {
    ExtensionTables { name: EXTENSION.into(), migrations: MIGRATIONS.to_vec() }
}

/// There are at most so many keys.
const KEYS_MAX: usize = 10_000;
/// The longest name of a key, in characters.
const NAME_MAX: usize = 128;

/// What a key is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For people and logs.
    pub name: String,
    /// `role:tenant/database/collection`, with patterns; nothing else is allowed.
    pub grants: Vec<String>,
    /// From then on it is refused.
    #[serde(default, with = "times")]
    pub expires_at: Option<i64>,
    /// Requests a second; more are answered with 429.
    #[serde(default)]
    pub requests_per_second: Option<u32>,
    /// Requests at once; more are answered with 429.
    #[serde(default)]
    pub concurrent_requests: Option<u32>,
    /// Records in one write; more are refused.
    #[serde(default)]
    pub batch_records: Option<u32>,
    /// Collections in what it may make some in; one more is refused.
    #[serde(default)]
    pub collections: Option<u32>,
    /// Records in a collection after a write; more are refused.
    #[serde(default)]
    pub collection_records: Option<u32>,
}

/// A time in RFC 3339, of seconds since 1970.
fn time(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

/// Times that are written in RFC 3339, and read as that or as seconds since 1970.
mod times {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Timestamp, time};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Seconds(i64),
        Text(String),
    }

    #[expect(clippy::ref_option, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(seconds: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        seconds.map(time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let given = Option::<Given>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a time such as 2030-01-31T00:00:00Z, or seconds since 1970"))?;
        match given {
            None => Ok(None),
            Some(Given::Seconds(seconds)) => Ok(Some(seconds)),
            Some(Given::Text(text)) => {
                let time: Timestamp = text.parse().map_err(D::Error::custom)?;
                Ok(Some(time.as_micros().div_euclid(1_000_000)))
            }
        }
    }
}

/// What is kept of a key beside its hash.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    key: NewKey,
    created_at: i64,
    revoked_at: Option<i64>,
    /// Anybody may have made it: authentication was off.
    #[serde(default)]
    made_by_anybody: bool,
}

/// Who makes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// A caller who may, or whoever has the directory.
    Entitled,
    /// Whoever reached the server while authentication was off.
    Anybody,
}

pub(crate) struct Key {
    hash: KeyHash,
    kept: Kept,
    pub(crate) principal: Arc<Principal>,
    last_used: AtomicI64,
    /// Held from counting what there is until more is there: collections, and records.
    counting: [Arc<tokio::sync::Mutex<()>>; 2],
}

/// All keys of a database.
pub struct Keys {
    secret: KeySecret,
    all: RwLock<BTreeMap<String, Arc<Key>>>,
}

pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Keys {
    /// Reads the keys of a database; a key whose role is no longer there grants nothing.
    ///
    /// # Errors
    /// Whatever the store says.
    pub fn load(database: &Database, roles: &Roles) -> Result<Self, ochre_engine::Error> {
        database.extend(EXTENSION, &MIGRATIONS)?;
        let secret = database.read_tables(|connection| {
            let mut statement = connection.prepare("SELECT secret FROM auth_secret")?;
            statement.query_map([], |row| row.get::<_, [u8; 32]>(0))?.next().transpose()
        })?;
        let secret = match secret {
            Some(secret) => KeySecret::from_bytes(secret),
            None => {
                let new = KeySecret::new();
                database.change_tables(|connection| {
                    connection.execute("INSERT INTO auth_secret VALUES (1, ?1)", [&new.as_bytes()[..]]).map(drop)
                })?;
                new
            }
        };
        let rows: Vec<(String, [u8; 32], String)> = database.read_tables(|connection| {
            let mut statement = connection.prepare("SELECT id, hash, state FROM auth_keys")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })?;
        let keys = Self { secret, all: RwLock::default() };
        for (id, hash, text) in rows {
            match serde_json::from_str::<Kept>(&text) {
                Ok(kept) => keys.put(&id, KeyHash::from_bytes(hash), kept, roles),
                Err(error) => tracing::error!(key = id, %error, "could not read a key; it is refused"),
            }
        }
        Ok(keys)
    }

    fn put(&self, id: &str, hash: KeyHash, kept: Kept, roles: &Roles) {
        let grants = kept.key.grants.iter().filter_map(|grant| {
            roles
                .grant(grant)
                .map_err(|error| tracing::warn!(key = id, %error, "a grant of a key is no longer valid"))
                .ok()
        });
        let principal = Arc::new(Principal { name: format!("key {} ({id})", kept.key.name), grants: grants.collect() });
        self.all.write().insert(
            id.to_owned(),
            Arc::new(Key { hash, kept, principal, last_used: AtomicI64::new(0), counting: Default::default() }),
        );
    }

    /// Whether there is any that is not revoked or expired.
    pub fn has_any(&self) -> bool {
        self.all.read().values().any(|key| key.is_valid())
    }

    /// The key that a text is, if it is one that is valid.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<Key>> {
        // Hashed whether there is such a key or not: it takes as long.
        let hash = self.secret.hash(text);
        let key = ApiKey::id_of(text).and_then(|id| self.all.read().get(id).cloned())?;
        if key.hash != hash || !key.is_valid() {
            return None;
        }
        key.last_used.store(now(), Ordering::Relaxed);
        Some(key)
    }

    /// What a valid key with this name of its principal may do.
    pub(crate) fn principal_named(&self, name: &str) -> Option<Arc<Principal>> {
        let all = self.all.read();
        let mut named = all.values().filter(|key| key.is_valid() && key.principal.name == name);
        named.next().map(|key| Arc::clone(&key.principal))
    }

    /// Makes a key; it is in the answer, and never shown again.
    pub fn create(&self, database: &Database, roles: &Roles, new: NewKey, maker: Maker) -> Result<KeyAnswer, KeyError> {
        if new.name.trim().is_empty() || new.name.chars().count() > NAME_MAX || new.name.chars().any(char::is_control) {
            return Err(KeyError::Invalid(format!("name: a key has a name of 1 to {NAME_MAX} characters")));
        }
        if new.grants.is_empty() {
            return Err(KeyError::Invalid(
                "grants: a key without a grant is good for nothing; give one such as reader".into(),
            ));
        }
        for grant in &new.grants {
            roles.grant(grant).map_err(|error| KeyError::Invalid(format!("grants: {error}")))?;
        }
        if new.expires_at.is_some_and(|at| at <= now()) {
            return Err(KeyError::Invalid(
                "expires_at: that is in the past; give a time to come, such as 2030-01-31T00:00:00Z".into(),
            ));
        }
        for (name, limit) in [
            ("requests_per_second", new.requests_per_second),
            ("concurrent_requests", new.concurrent_requests),
            ("batch_records", new.batch_records),
            ("collections", new.collections),
            ("collection_records", new.collection_records),
        ] {
            if limit == Some(0) {
                return Err(KeyError::Invalid(format!("{name}: must be at least 1; leave it out for no limit")));
            }
        }
        if self.all.read().values().filter(|key| key.is_valid()).count() >= KEYS_MAX {
            return Err(KeyError::Invalid(format!("there are {KEYS_MAX} valid keys, the limit; revoke some")));
        }
        let key = ApiKey::new();
        let hash = self.secret.hash(&key.text);
        let kept = Kept { key: new, created_at: now(), revoked_at: None, made_by_anybody: maker == Maker::Anybody };
        save(database, &key.id, &hash, &kept)?;
        self.put(&key.id, hash, kept, roles);
        let shown = self.show(&key.id).ok_or_else(|| KeyError::Invalid("the key was revoked at once".into()))?;
        Ok(KeyAnswer { key: Some(key.text), ..shown })
    }

    /// Every key, without what it is.
    pub fn list(&self) -> Vec<KeyAnswer> {
        let ids: Vec<String> = self.all.read().keys().cloned().collect();
        ids.iter().filter_map(|id| self.show(id)).collect()
    }

    /// How many valid keys were made while authentication was off.
    pub(crate) fn made_by_anybody(&self) -> usize {
        self.all.read().values().filter(|key| key.is_valid() && key.kept.made_by_anybody).count()
    }

    /// A key, without what it is.
    pub fn show(&self, id: &str) -> Option<KeyAnswer> {
        let key = self.all.read().get(id).cloned()?;
        let text = |seconds: i64| time(seconds).to_string();
        let NewKey {
            name,
            grants,
            expires_at,
            requests_per_second,
            concurrent_requests,
            batch_records,
            collections,
            collection_records,
        } = key.kept.key.clone();
        Some(KeyAnswer {
            id: id.to_owned(),
            name,
            grants,
            expires_at: expires_at.map(text),
            requests_per_second,
            concurrent_requests,
            batch_records,
            collections,
            collection_records,
            created_at: text(key.kept.created_at),
            revoked_at: key.kept.revoked_at.map(text),
            valid: key.is_valid(),
            made_without_authentication: key.kept.made_by_anybody,
            last_used: Some(key.last_used.load(Ordering::Relaxed)).filter(|at| *at > 0).map(text),
            key: None,
            warning: None,
        })
    }

    /// Revokes a key: from now on it is refused. It stays in the list. `false` if there is none.
    pub fn revoke(&self, database: &Database, roles: &Roles, id: &str) -> Result<bool, KeyError> {
        let Some(key) = self.all.read().get(id).cloned() else { return Ok(false) };
        let kept = Kept { revoked_at: key.kept.revoked_at.or(Some(now())), ..key.kept.clone() };
        save(database, id, &key.hash, &kept)?;
        self.put(id, key.hash, kept, roles);
        Ok(true)
    }
}

impl Key {
    fn is_valid(&self) -> bool {
        self.kept.revoked_at.is_none() && self.kept.key.expires_at.is_none_or(|at| now() < at)
    }

    /// What it is limited to.
    pub(crate) fn limits(&self) -> &NewKey {
        &self.kept.key
    }

    /// Keeps others with this key from making collections.
    pub(crate) async fn counting_collections(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.counting[0]).lock_owned().await
    }

    /// Keeps others with this key from adding records.
    pub(crate) async fn counting_records(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.counting[1]).lock_owned().await
    }
}

fn save(database: &Database, id: &str, hash: &KeyHash, kept: &Kept) -> Result<(), KeyError> {
    let text = serde_json::to_string(kept).map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(database.change_tables(|connection| {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO auth_keys VALUES (?1, ?2, ?3)")?;
        statement.execute(params![id, &hash.as_bytes()[..], text]).map(drop)
    })?)
}

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The request says what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ochre_engine::Error),
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(text) => Self::invalid(text),
            KeyError::Store(error) => error.into(),
        }
    }
}
