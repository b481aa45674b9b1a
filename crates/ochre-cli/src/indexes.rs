//! `ochre indexes`: the metadata indexes of a running server, as tables.

use anyhow::Context;
use ochre_wire::admin::indexes::{Column, IndexAnswer, IndexList, IndexVerification, Suggestion, SuggestionList};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::client::{Connection, Server, encoded, parsed};
use crate::output::{Exit, Output, table};

/// Declare, list, rebuild, verify and delete the metadata indexes of a running server
#[derive(clap::Subcommand)]
pub(crate) enum Indexes {
    /// List the declared indexes: status, size and use
    List(List),
    /// Show an index as JSON: its definition, progress, statistics and use
    Show(Named),
    /// Declare an index over metadata keys, in the order in which filters use them
    Create(Create),
    /// Delete an index
    Delete(Named),
    /// Rename an index
    Rename(Rename),
    /// Rebuild an index in the background; the present one stays active until then
    Rebuild(Named),
    /// Stop a build
    Cancel(Named),
    /// Compare an index with the records; exit code 3 if they differ
    Verify(Named),
    /// Suggest indexes for the filters of past requests
    Suggest(List),
}

/// In which tenant and database.
#[derive(clap::Args)]
pub(crate) struct Home {
    /// The tenant
    #[arg(long, default_value = "default_tenant")]
    tenant: String,
    /// The database
    #[arg(long, default_value = "default_database")]
    database: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Only of this collection, by name or id
    #[arg(long)]
    collection: Option<String>,
    /// Print the server's response as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    home: Home,
}

#[derive(clap::Args)]
pub(crate) struct Named {
    /// The index
    name: String,
    #[command(flatten)]
    home: Home,
}

#[derive(clap::Args)]
pub(crate) struct Create {
    /// The index's name
    name: String,
    /// The collection, by name or id; `*` for every collection of the database, present and future
    collection: String,
    /// The metadata keys: first those compared for equality, last one compared by range. KEY:TYPE gives a type, such as
    /// tags:list
    #[arg(required = true)]
    columns: Vec<String>,
    /// Only records that pass this filter, as JSON
    #[arg(long, value_name = "JSON")]
    r#where: Option<String>,
    /// Keep the index up to date, but do not use it for queries
    #[arg(long)]
    hidden: bool,
    /// Estimate size and time, and declare nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    home: Home,
}

#[derive(clap::Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    named: Named,
    /// Its new name
    new_name: String,
}

impl Home {
    fn query(&self) -> String {
        format!("tenant={}&database={}", encoded(&self.tenant), encoded(&self.database))
    }
}

impl Indexes {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::List(list) => list.run("", output, show_list),
            Self::Suggest(list) => list.run("/suggestions", output, show_suggestions),
            Self::Show(named) => {
                let answer: Json = named.ask("GET", "", output)?;
                output.data(&serde_json::to_string_pretty(&answer)?)?;
                Ok(Exit::Ok)
            }
            Self::Create(create) => create.run(output),
            Self::Rename(rename) => rename.run(output),
            Self::Delete(named) => {
                let name = named.name.clone();
                let _: Json = named.ask("DELETE", "", output)?;
                output.status(&format!("{name} is deleted"));
                Ok(Exit::Ok)
            }
            Self::Rebuild(named) => named.change("/rebuild", output),
            Self::Cancel(named) => named.change("/cancel", output),
            Self::Verify(named) => {
                let IndexVerification { index_name, valid, records_compared, records_wrong, error, .. } =
                    named.ask("GET", "/verify", output)?;
                let found = match error {
                    Some(error) => error,
                    None if valid => "they agree".to_owned(),
                    None => format!("{records_wrong} differ"),
                };
                output.status(&format!("{index_name}: {records_compared} records compared, {found}"));
                Ok(if valid { Exit::Ok } else { Exit::DamageFound })
            }
        }
    }
}

impl List {
    fn run<T: DeserializeOwned>(
        self, under: &str, output: &mut Output, show: fn(&T, &mut Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<Exit> {
        let collection = self.collection.map_or(String::new(), |name| format!("&collection={}", encoded(&name)));
        let path = format!("/_admin/metadata_indexes{under}?{}{collection}", self.home.query());
        let body = Server::named_by(self.home.connection, output)?.get(&path)?;
        if self.json {
            output.data(&body)?;
        } else {
            show(&parsed(&body)?, output)?;
        }
        Ok(Exit::Ok)
    }
}

impl Named {
    fn ask<T: DeserializeOwned>(self, method: &str, under: &str, output: &mut Output) -> anyhow::Result<T> {
        let path = format!("/_admin/metadata_index/{}{under}?{}", encoded(&self.name), self.home.query());
        Server::named_by(self.home.connection, output)?.patiently().answer(method, &path, None)
    }

    fn change(self, under: &str, output: &mut Output) -> anyhow::Result<Exit> {
        let IndexAnswer { index_name, status, .. } = self.ask("POST", under, output)?;
        output.status(&format!("{index_name} is {status}"));
        Ok(Exit::Ok)
    }
}

impl Rename {
    fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { named: Named { name, home }, new_name } = self;
        let path = format!("/_admin/metadata_index/{}?{}", encoded(&name), home.query());
        let server = Server::named_by(home.connection, output)?.patiently();
        let IndexAnswer { columns, partial, hidden, comment, kind, .. } = server.answer("GET", &path, None)?;
        let mut body = json!({
            "index_name": new_name, "columns": columns, "hidden": hidden, "comment": comment, "kind": kind,
        });
        if let Some(filter) = partial {
            body["where"] = filter;
        }
        let _: Json = server.answer("PUT", &path, Some(&body))?;
        output.status(&format!("{name} is {new_name} now"));
        Ok(Exit::Ok)
    }
}

impl Create {
    fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let column = |column: &String| match column.split_once(':') {
            Some((key, ty)) => Column::Typed { key: key.into(), ty: Some(ty.into()) },
            None => Column::Key(column.clone()),
        };
        let columns: Vec<Column> = self.columns.iter().map(column).collect();
        let mut body = json!({
            "index_name": self.name, "columns": columns, "hidden": self.hidden,
            "tenant": self.home.tenant, "database": self.home.database,
        });
        if self.collection != "*" {
            body["collection"] = json!(self.collection);
        }
        if let Some(filter) = &self.r#where {
            body["where"] = serde_json::from_str(filter).context("--where is no JSON")?;
        }
        let path = format!("/_admin/metadata_indexes?dry_run={}", self.dry_run);
        let server = Server::named_by(self.home.connection, output)?.patiently();
        if self.dry_run {
            let answer: Json = server.answer("POST", &path, Some(&body))?;
            output.data(&serde_json::to_string_pretty(&answer)?)?;
        } else {
            let IndexAnswer { status, .. } = server.answer("POST", &path, Some(&body))?;
            output.status(&format!("{} is {status}", self.name));
        }
        Ok(Exit::Ok)
    }
}

fn show_list(IndexList { indexes }: &IndexList, output: &mut Output) -> anyhow::Result<()> {
    let row = |index: &IndexAnswer| {
        let columns: Vec<&str> = index.columns.iter().map(Column::key).collect();
        let mut status = index.status.clone();
        if index.hidden {
            status += ", hidden";
        }
        if let Some(progress) = &index.progress {
            status += &format!(" ({} %)", progress.done * 100 / progress.total.max(1));
        }
        let collection = match &index.collections {
            Some(all) => format!("* ({})", all.len()),
            None => index.collection.clone().unwrap_or_default(),
        };
        let bytes = index.statistics.bytes_on_disk.to_string();
        [index.index_name.clone(), collection, columns.join(", "), status, bytes, index.usage.uses.to_string()]
    };
    let rows: Vec<[String; 6]> = indexes.iter().map(row).collect();
    table(["index", "collection", "columns", "status", "bytes", "uses"], &rows, output)
}

fn show_suggestions(SuggestionList { suggestions }: &SuggestionList, output: &mut Output) -> anyhow::Result<()> {
    if suggestions.is_empty() {
        output.status("nothing to suggest: no filter that was asked often and finds little scans columns");
    }
    for Suggestion { kind, collection, reason, request, .. } in suggestions {
        output.data(&format!("{kind} {}: {reason}", collection.as_deref().unwrap_or("-")))?;
        output.data(&format!("    {}", serde_json::to_string(request)?))?;
    }
    Ok(())
}
