//! `ochre memory`: what a running server holds in memory, as a table.

use anyhow::Context;
use serde_json::Value as Json;

use crate::client::{Connection, Server};
use crate::output::{Exit, Output};

/// The parts, as the server names them and in the order of the table.
const PARTS: [&str; 8] = ["vectors", "quantized", "links", "columns", "text", "indexes", "locations", "total"];

/// Show the memory of a running server, in megabytes by collection and part.
#[derive(clap::Args)]
pub(crate) struct Memory {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's response as JSON, in bytes
    #[arg(long)]
    json: bool,
}

impl Memory {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let server = Server::named_by(self.connection, output)?;
        let body = server.get("/_admin/memory")?;
        if self.json {
            output.data(&body)?;
            return Ok(Exit::Ok);
        }
        let answer: Json = serde_json::from_str(&body).context("the answer is no JSON")?;
        let collections = answer["collections"].as_array().context("the answer names no collections")?;
        let name = |row: &Json| {
            let part = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            format!("{}/{}/{}", part("tenant"), part("database"), part("name"))
        };
        let width = collections.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max("collection".len());
        let heads: String = PARTS.iter().map(|part| format!("{part:>10}")).collect();
        output.data(&format!("{:width$}{heads}", "collection"))?;
        for row in collections {
            let cells: String = PARTS.iter().map(|part| format!("{:>10}", megabytes(&row["bytes"][part]))).collect();
            output.data(&format!("{:width$}{cells}", name(row)))?;
        }
        let process = &answer["process"];
        output.status(&format!(
            "the process holds {} MB: {} MB of its own and {} MB of mapped files",
            megabytes(&process["resident"]),
            megabytes(&process["anonymous"]),
            megabytes(&process["mapped"]),
        ));
        Ok(Exit::Ok)
    }
}

fn megabytes(bytes: &Json) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    bytes.as_u64().map_or("?".into(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
}
