//! `ochre keys`: the keys that a server knows its clients by.

use anyhow::Context;
use ochre_engine::{Database, Error, StoreError};
use ochre_server::{Auth, Config, Extensions, Maker, NewKey};
use serde_json::{Value as Json, json};

use crate::client::{Connection, Server, encoded};
use crate::output::{Exit, Output, seconds, table, text};
use crate::run::{Settings, options};

/// Create, list and revoke API keys
#[derive(clap::Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it; it is shown only once
    Create(Create),
    /// List the keys; the secret part is not shown
    List(List),
    /// Revoke a key by its id; it is rejected from then on
    Revoke(Revoke),
}

/// The limits of a key, and what they count.
const LIMITS: [(&str, &str); 5] = [
    ("requests_per_second", "requests/s"),
    ("concurrent_requests", "at once"),
    ("batch_records", "records a write"),
    ("collections", "collections"),
    ("collection_records", "records a collection"),
];

/// Of which server or directory.
#[derive(clap::Args)]
pub(crate) struct Of {
    #[command(flatten)]
    connection: Connection,
    /// Use the database directory directly, while no server has it open; for the first key
    #[arg(long)]
    offline: bool,
}

#[derive(clap::Args)]
pub(crate) struct Create {
    /// The name of the key: what it is used for
    name: String,
    /// What it grants: ROLE, ROLE:TENANT, ROLE:TENANT/DATABASE or ROLE:TENANT/DATABASE/COLLECTION, with * for any
    /// characters
    #[arg(long = "grant", required = true, value_name = "GRANT")]
    grants: Vec<String>,
    /// The key expires after this time, such as 30d or 12h
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// At most N requests per second
    #[arg(long, value_name = "REQUESTS")]
    requests_per_second: Option<u32>,
    /// At most N concurrent requests
    #[arg(long, value_name = "REQUESTS")]
    concurrent_requests: Option<u32>,
    /// At most N records in one write
    #[arg(long, value_name = "RECORDS")]
    batch_records: Option<u32>,
    /// At most N collections in the databases where the key may create collections
    #[arg(long, value_name = "COLLECTIONS")]
    collections: Option<u32>,
    /// At most N records in a collection that the key writes to
    #[arg(long, value_name = "RECORDS")]
    collection_records: Option<u32>,
    #[command(flatten)]
    of: Of,
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Print the keys as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    of: Of,
}

#[derive(clap::Args)]
pub(crate) struct Revoke {
    /// The key's id, as `ochre keys list` shows it
    id: String,
    #[command(flatten)]
    of: Of,
}

impl Keys {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::Create(create) => create.run(extensions, output),
            Self::List(list) => list.run(extensions, output),
            Self::Revoke(revoke) => revoke.run(extensions, output),
        }
    }
}

/// Does something with the keys of a directory that no server has open.
fn offline<T>(
    settings: Settings, extensions: &Extensions, work: impl FnOnce(&Auth, &Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config: Config = settings.resolve()?;
    let loaded = extensions.load(&config)?;
    let options = ochre_engine::Options { background: false, ..options(&config, &loaded)? };
    let database = Database::open_with(&config.database.path, options).map_err(|error| {
        let is_in_use = matches!(error, Error::Store(StoreError::Locked { .. }));
        let error = anyhow::Error::new(error);
        if is_in_use {
            error.context(
                "a server has the directory open: leave --offline out and ask it, with a key of yours in OCHRE_TOKEN; for the first key stop it",
            )
        } else {
            error
        }
    })?;
    let auth = Auth::new(&config, &database, loaded.permissions()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let done = work(&auth, &database);
    database.close();
    done
}

impl Create {
    fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let expires_at = match &self.expires_in {
            None => None,
            Some(text) => {
                let span: ochre_engine::scheduler::Span =
                    text.parse().map_err(|error| anyhow::anyhow!("--expires-in: {error}"))?;
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
                Some(i64::try_from((now + span.0).as_secs())?)
            }
        };
        let new = NewKey {
            name: self.name,
            grants: self.grants,
            expires_at,
            requests_per_second: self.requests_per_second,
            concurrent_requests: self.concurrent_requests,
            batch_records: self.batch_records,
            collections: self.collections,
            collection_records: self.collection_records,
        };
        let made: Json = if self.of.offline {
            offline(self.of.connection.settings, extensions, |auth, database| {
                Ok(auth.keys().create(database, auth.roles(), new, Maker::Entitled)?)
            })?
        } else {
            let body = json!(new).to_string();
            let answer = Server::named_by(self.of.connection, output)?.ask("POST", "/_admin/keys", Some(&body))?;
            serde_json::from_str(&answer).context("the answer is no JSON")?
        };
        output.status(&format!("made key {}: keep it, it is not shown again", text(&made["id"])));
        if let Some(warning) = made["warning"].as_str() {
            output.status(&format!("warning: {warning}"));
        }
        output.data(&text(&made["key"]))?;
        Ok(Exit::Ok)
    }
}

impl List {
    fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let keys: Vec<Json> = if self.of.offline {
            offline(self.of.connection.settings, extensions, |auth, _| Ok(auth.keys().list()))?
        } else {
            let answer: Json =
                serde_json::from_str(&Server::named_by(self.of.connection, output)?.get("/_admin/keys")?)?;
            answer["keys"].as_array().cloned().context("the answer names no keys")?
        };
        if self.json {
            output.data(&json!({"keys": keys}).to_string())?;
            return Ok(Exit::Ok);
        }
        let rows: Vec<[String; 7]> = keys
            .iter()
            .map(|key| {
                let grants = key["grants"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
                let state = match (&key["revoked_at"], &key["valid"]) {
                    (Json::Null, Json::Bool(true)) if key["made_without_authentication"] == true => {
                        "valid, made without authentication"
                    }
                    (Json::Null, Json::Bool(true)) => "valid",
                    (Json::Null, _) => "expired",
                    _ => "revoked",
                };
                let at = |name: &str| key[name].as_str().map_or("-".to_owned(), seconds);
                let limits =
                    LIMITS.iter().filter_map(|(limit, words)| Some(format!("{} {words}", key[*limit].as_u64()?)));
                let limits = limits.collect::<Vec<_>>().join(", ");
                let (expires, used) = (at("expires_at"), at("last_used"));
                [text(&key["id"]), text(&key["name"]), grants, state.to_owned(), expires, used, limits]
            })
            .collect();
        table(["id", "name", "grants", "state", "expires", "last used", "limits"], &rows, output)?;
        Ok(Exit::Ok)
    }
}

impl Revoke {
    fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let id = self.id.clone();
        if self.of.offline {
            let is_known = offline(self.of.connection.settings, extensions, |auth, database| {
                Ok(auth.keys().revoke(database, auth.roles(), &id)?)
            })?;
            anyhow::ensure!(is_known, "there is no key '{id}'");
        } else {
            Server::named_by(self.of.connection, output)?.ask(
                "DELETE",
                &format!("/_admin/keys/{}", encoded(&id)),
                None,
            )?;
        }
        output.status(&format!("key {id} is revoked"));
        Ok(Exit::Ok)
    }
}
