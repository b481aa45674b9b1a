//! `ochre introspect`: what a collection's records look like, as a table.

use anyhow::Context;
use serde_json::Value as Json;

use crate::client::{Connection, Server, encoded};
use crate::output::{Exit, Output, table, text};

/// So many ids of offending records are shown of a key.
const OFFENDERS_SHOWN: usize = 10;

/// Report the keys, types, values and inconsistencies of a collection's records
#[derive(clap::Args)]
pub(crate) struct Introspect {
    /// The collection, by name or id
    collection: String,
    /// Its tenant
    #[arg(long, default_value = "default_tenant")]
    tenant: String,
    /// Its database
    #[arg(long, default_value = "default_database")]
    database: String,
    /// How thorough: auto, fast, full or sample
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Only these keys, separated by commas
    #[arg(long)]
    keys: Option<String>,
    /// Only records that pass this filter, as JSON
    #[arg(long, value_name = "JSON")]
    r#where: Option<String>,
    /// Examine the values of N randomly sampled records
    #[arg(long, value_name = "RECORDS")]
    sample: Option<usize>,
    /// Seed of the random sample; the same seed gives the same sample
    #[arg(long)]
    seed: Option<u64>,
    /// Time limit in milliseconds; what has not been examined by then is left out of the report
    #[arg(long, value_name = "MILLISECONDS")]
    max_ms: Option<u64>,
    /// List at most N offending records for each key
    #[arg(long, value_name = "RECORDS")]
    offenders: Option<usize>,
    /// List at most N of the most frequent values for each key
    #[arg(long, value_name = "VALUES")]
    top: Option<usize>,
    /// Types of the suggested schema: the one that most records have, or the union of all: majority, union
    #[arg(long, default_value = "majority")]
    types: String,
    /// Do not show values
    #[arg(long)]
    no_values: bool,
    /// Print the whole report as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the report as Markdown
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Introspect {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("mode", &self.mode);
        query.append_pair("types", &self.types);
        query.append_pair("values", if self.no_values { "false" } else { "true" });
        query.append_pair("format", if self.markdown { "markdown" } else { "json" });
        if let Some(keys) = &self.keys {
            query.append_pair("keys", keys);
        }
        if let Some(filter) = &self.r#where {
            query.append_pair("where", filter);
        }
        let numbers = [
            ("sample", self.sample.map(|records| records.to_string())),
            ("seed", self.seed.map(|seed| seed.to_string())),
            ("max_ms", self.max_ms.map(|most| most.to_string())),
            ("offenders", self.offenders.map(|records| records.to_string())),
            ("top", self.top.map(|values| values.to_string())),
        ];
        for (name, number) in numbers {
            number.map(|number| query.append_pair(name, &number));
        }
        let path = format!(
            "/api/v2/tenants/{}/databases/{}/collections/{}/introspect?{}",
            encoded(&self.tenant),
            encoded(&self.database),
            encoded(&self.collection),
            query.finish()
        );
        let body = Server::named_by(self.connection, output)?.patiently().get(&path)?;
        if self.json || self.markdown {
            output.data(&body)?;
            return Ok(Exit::Ok);
        }
        print(&serde_json::from_str(&body).context("the answer is no JSON")?, output)?;
        Ok(Exit::Ok)
    }
}

fn print(report: &Json, output: &mut Output) -> anyhow::Result<()> {
    output.status(&format!(
        "{}: {} records, {} of them with a document; {} mode{}",
        text(&report["collection"]),
        report["records"],
        report["documents"]["count"],
        text(&report["mode"]),
        if report["truncated"] == true { ", cut short by the time budget" } else { "" },
    ));
    let rows: Vec<[String; 6]> = report["keys"].as_array().into_iter().flatten().map(row).collect();
    table(["key", "type", "present", "types", "distinct", "range or frequent values"], &rows, output)?;
    let offending =
        report["keys"].as_array().into_iter().flatten().filter(|key| key["offender_count"].as_u64() > Some(0));
    let offending: Vec<[String; 4]> = offending.map(offenders).collect();
    if !offending.is_empty() {
        output.data("")?;
        table(["key", "offending", "of type", "ids"], &offending, output)?;
    }
    for warning in report["warnings"].as_array().into_iter().flatten() {
        output.data(&format!("{}: {}", text(&warning["level"]), text(&warning["message"])))?;
    }
    if let Some(rate) = report["compliance"]["rate"].as_f64() {
        output.status(&format!("{:.2} % of the records satisfy the declared schema", rate * 100.0));
    }
    Ok(())
}

/// The records whose value of a key is not as the others'.
fn offenders(key: &Json) -> [String; 4] {
    let listed: Vec<&Json> = key["offenders"].as_array().into_iter().flatten().collect();
    let mut types: Vec<String> = listed.iter().map(|offender| text(&offender["type"])).collect();
    types.sort();
    types.dedup();
    let mut ids: Vec<String> = listed.iter().take(OFFENDERS_SHOWN).map(|offender| text(&offender["id"])).collect();
    if key["offender_count"].as_u64() > Some(ids.len() as u64) {
        ids.push("…".to_owned());
    }
    [text(&key["name"]), text(&key["offender_count"]), types.join(", "), ids.join(", ")]
}

fn row(key: &Json) -> [String; 6] {
    let types: Vec<String> =
        key["types"].as_object().into_iter().flatten().map(|(name, count)| format!("{name} {count}")).collect();
    let numbers = &key["numbers"];
    let values = if numbers["min"].is_null() {
        let top = key["top"].as_array().into_iter().flatten().take(3);
        let shown = top.map(|top| text(if top["value"].is_null() { &top["element"] } else { &top["value"] }));
        shown.collect::<Vec<_>>().join(", ")
    } else {
        format!("{} to {}", numbers["min"], numbers["max"])
    };
    [
        text(&key["name"]),
        text(&key["type"]),
        format!("{:.1} %", key["presence"].as_f64().unwrap_or(0.0) * 100.0),
        types.join(", "),
        text(&key["cardinality"]),
        values.chars().take(60).collect(),
    ]
}
