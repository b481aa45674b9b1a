//! `ochre keys`: the keys that a server knows its clients by.

use ochre_engine::{Database, Error, StoreError};
use ochre_server::{Auth, Config, Extensions, Maker, NewKey};
use ochre_wire::admin::keys::{KeyAnswer, KeyList};
use serde_json::json;

use crate::client::{Connection, Server, encoded};
use crate::output::{Exit, Output, seconds, table};
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
                let span: ochre_engine::scheduler::Interval =
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
        let made: KeyAnswer = if self.of.offline {
            offline(self.of.connection.settings, extensions, |auth, database| {
                Ok(auth.keys().create(database, auth.roles(), new, Maker::Entitled)?)
            })?
        } else {
            let server = Server::named_by(self.of.connection, output)?;
            server.answer("POST", "/_admin/keys", Some(&json!(new)))?
        };
        output.status(&format!("made key {}: keep it, it is not shown again", made.id));
        if let Some(warning) = made.warning {
            output.status(&format!("warning: {warning}"));
        }
        output.data(made.key.as_deref().unwrap_or_default())?;
        Ok(Exit::Ok)
    }
}

impl List {
    fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let keys: Vec<KeyAnswer> = if self.of.offline {
            offline(self.of.connection.settings, extensions, |auth, _| Ok(auth.keys().list()))?
        } else {
            let server = Server::named_by(self.of.connection, output)?;
            server.answer::<KeyList>("GET", "/_admin/keys", None)?.keys
        };
        if self.json {
            output.data(&serde_json::to_string(&KeyList { keys })?)?;
            return Ok(Exit::Ok);
        }
        let rows: Vec<[String; 7]> = keys.iter().map(row).collect();
        table(["id", "name", "grants", "state", "expires", "last used", "limits"], &rows, output)?;
        Ok(Exit::Ok)
    }
}

/// A key as a row of the table.
fn row(key: &KeyAnswer) -> [String; 7] {
    let state = match (&key.revoked_at, key.valid) {
        (None, true) if key.made_without_authentication => "valid, made without authentication",
        (None, true) => "valid",
        (None, false) => "expired",
        (Some(_), _) => "revoked",
    };
    let limits = [
        (key.requests_per_second, "requests/s"),
        (key.concurrent_requests, "at once"),
        (key.batch_records, "records a write"),
        (key.collections, "collections"),
        (key.collection_records, "records a collection"),
    ];
    let limits: Vec<String> =
        limits.iter().filter_map(|(limit, words)| Some(format!("{} {words}", (*limit)?))).collect();
    let at = |time: &Option<String>| time.as_deref().map_or("-".to_owned(), seconds);
    [
        key.id.clone(),
        key.name.clone(),
        key.grants.join(", "),
        state.to_owned(),
        at(&key.expires_at),
        at(&key.last_used),
        limits.join(", "),
    ]
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
