//! `ochre memory`: what a running server holds in memory, as a table.

use ochre_wire::admin::memory::{CollectionMemory, MemoryAnswer, MemoryParts};

use crate::client::{Connection, Server, parsed};
use crate::output::{Exit, Output};

/// A part of the memory of a collection, in bytes.
type Part = fn(&MemoryParts) -> usize;
/// The parts, in the order of the table.
const PARTS: [(&str, Part); 8] = [
    ("vectors", |bytes| bytes.vectors),
    ("quantized", |bytes| bytes.quantized),
    ("links", |bytes| bytes.links),
    ("columns", |bytes| bytes.columns),
    ("text", |bytes| bytes.text),
    ("indexes", |bytes| bytes.indexes),
    ("locations", |bytes| bytes.locations),
    ("total", |bytes| bytes.total),
];

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
        let MemoryAnswer { process, collections } = parsed(&body)?;
        let name = |row: &CollectionMemory| format!("{}/{}/{}", row.tenant, row.database, row.name);
        let width = collections.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max("collection".len());
        let heads: String = PARTS.iter().map(|(part, _)| format!("{part:>10}")).collect();
        output.data(&format!("{:width$}{heads}", "collection"))?;
        for row in &collections {
            let cell = |of: &Part| format!("{:>10}", megabytes(Some(of(&row.bytes) as u64)));
            let cells: String = PARTS.iter().map(|(_, of)| cell(of)).collect();
            output.data(&format!("{:width$}{cells}", name(row)))?;
        }
        output.status(&format!(
            "the process holds {} MB: {} MB of its own and {} MB of mapped files",
            megabytes(process.resident),
            megabytes(process.anonymous),
            megabytes(process.mapped),
        ));
        Ok(Exit::Ok)
    }
}

fn megabytes(bytes: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    bytes.map_or("?".into(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
}
