//! `ochre indexes`: the metadata indexes of a running server, as tables.

use anyhow::Context;
use serde_json::{Value as Json, json};

use crate::client::{Connection, Server, encoded};
use crate::output::{Exit, Output, table, text};

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
                let answer = named.ask("GET", "", output)?;
                output.data(&serde_json::to_string_pretty(&answer)?)?;
                Ok(Exit::Ok)
            }
            Self::Create(create) => create.run(output),
            Self::Rename(rename) => rename.run(output),
            Self::Delete(named) => named.tell("DELETE", "", output, |_| "deleted".into()),
            Self::Rebuild(named) => named.tell("POST", "/rebuild", output, |answer| text(&answer["status"])),
            Self::Cancel(named) => named.tell("POST", "/cancel", output, |answer| text(&answer["status"])),
            Self::Verify(named) => {
                let answer = named.ask("GET", "/verify", output)?;
                let valid = answer["valid"] == true;
                let found = match answer["error"].as_str() {
                    Some(error) => error.to_owned(),
                    None if valid => "they agree".to_owned(),
                    None => format!("{} differ", answer["records_wrong"]),
                };
                output.status(&format!(
                    "{}: {} records compared, {found}",
                    text(&answer["index_name"]),
                    answer["records_compared"]
                ));
                Ok(if valid { Exit::Ok } else { Exit::DamageFound })
            }
        }
    }
}

impl List {
    fn run(
        self, under: &str, output: &mut Output, show: fn(&Json, &mut Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<Exit> {
        let collection = self.collection.map_or(String::new(), |name| format!("&collection={}", encoded(&name)));
        let path = format!("/_admin/metadata_indexes{under}?{}{collection}", self.home.query());
        let body = Server::named_by(self.home.connection, output)?.get(&path)?;
        if self.json {
            output.data(&body)?;
        } else {
            show(&serde_json::from_str(&body).context("the answer is no JSON")?, output)?;
        }
        Ok(Exit::Ok)
    }
}

impl Named {
    fn ask(self, method: &str, under: &str, output: &mut Output) -> anyhow::Result<Json> {
        let path = format!("/_admin/metadata_index/{}{under}?{}", encoded(&self.name), self.home.query());
        let body = Server::named_by(self.home.connection, output)?.patiently().ask(method, &path, None)?;
        serde_json::from_str(&body).context("the answer is no JSON")
    }

    fn tell(self, method: &str, under: &str, output: &mut Output, state: fn(&Json) -> String) -> anyhow::Result<Exit> {
        let name = self.name.clone();
        let answer = self.ask(method, under, output)?;
        output.status(&format!("{name} is {}", state(&answer)));
        Ok(Exit::Ok)
    }
}

impl Rename {
    fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { named: Named { name, home }, new_name } = self;
        let path = format!("/_admin/metadata_index/{}?{}", encoded(&name), home.query());
        let server = Server::named_by(home.connection, output)?.patiently();
        let shown: Json = serde_json::from_str(&server.get(&path)?).context("the answer is no JSON")?;
        let mut body = json!({"index_name": new_name});
        for member in ["columns", "where", "hidden", "comment", "kind"] {
            if let Some(value) = shown.get(member) {
                body[member] = value.clone();
            }
        }
        server.ask("PUT", &path, Some(&body.to_string()))?;
        output.status(&format!("{name} is {new_name} now"));
        Ok(Exit::Ok)
    }
}

impl Create {
    fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let columns: Vec<Json> = self
            .columns
            .iter()
            .map(|column| match column.split_once(':') {
                Some((key, ty)) => json!({"key": key, "type": ty}),
                None => json!(column),
            })
            .collect();
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
        let answer = server.ask("POST", &path, Some(&body.to_string()))?;
        let answer: Json = serde_json::from_str(&answer).context("the answer is no JSON")?;
        if self.dry_run {
            output.data(&serde_json::to_string_pretty(&answer)?)?;
        } else {
            output.status(&format!("{} is {}", self.name, text(&answer["status"])));
        }
        Ok(Exit::Ok)
    }
}

fn show_list(answer: &Json, output: &mut Output) -> anyhow::Result<()> {
    let rows: Vec<[String; 6]> = answer["indexes"]
        .as_array()
        .context("the answer names no indexes")?
        .iter()
        .map(|index| {
            let columns = index["columns"].as_array().map_or(String::new(), |columns| {
                let names = columns.iter().map(|column| column.as_str().or(column["key"].as_str()).unwrap_or_default());
                names.collect::<Vec<_>>().join(", ")
            });
            let mut status = text(&index["status"]);
            if index["hidden"] == true {
                status += ", hidden";
            }
            if let (Some(done), Some(total)) = (index["progress"]["done"].as_u64(), index["progress"]["total"].as_u64())
            {
                status += &format!(" ({} %)", done * 100 / total.max(1));
            }
            let bytes = index["statistics"]["bytes_on_disk"].to_string();
            let name = text(&index["index_name"]);
            let collection = match &index["collections"] {
                Json::Array(all) => format!("* ({})", all.len()),
                _ => text(&index["collection"]),
            };
            [name, collection, columns, status, bytes, index["usage"]["uses"].to_string()]
        })
        .collect();
    table(["index", "collection", "columns", "status", "bytes", "uses"], &rows, output)
}

fn show_suggestions(answer: &Json, output: &mut Output) -> anyhow::Result<()> {
    let suggestions = answer["suggestions"].as_array().context("the answer has no suggestions")?;
    if suggestions.is_empty() {
        output.status("nothing to suggest: no filter that was asked often and finds little scans columns");
    }
    for suggestion in suggestions {
        output.data(&format!(
            "{} {}: {}",
            text(&suggestion["kind"]),
            text(&suggestion["collection"]),
            text(&suggestion["reason"])
        ))?;
        output.data(&format!("    {}", suggestion["request"]))?;
    }
    Ok(())
}
