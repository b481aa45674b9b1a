//! Administration: what the server holds in memory.

use axum::Json;
use axum::extract::State;
use ochre_engine::{CollectionRow, Memory};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::admin::memory::{CollectionMemory, MemoryAnswer, MemoryParts, ProcessMemory};

use super::served::Served;
use crate::app::App;
use crate::error::ApiError;

pub(super) fn operations() -> Vec<Served> {
    vec![Served::new(
        Description::get(
            "/_admin/memory",
            "Get the memory used, in bytes by collection and part",
            Access::Scope(Permission::SystemRead),
        )
        .answers(200, "MemoryAnswer"),
        memory,
    )]
}

async fn memory(State(app): State<App>) -> Result<Json<MemoryAnswer>, ApiError> {
    app.run(|database| {
        let collections = database.memory().iter().map(|(row, memory)| collection_memory(row, memory)).collect();
        Ok(Json(MemoryAnswer { process: process(), collections }))
    })
    .await
}

fn collection_memory(row: &CollectionRow, memory: &Memory) -> CollectionMemory {
    let Memory { columns, vectors, locations, quantized, links, text, indexes } = *memory;
    CollectionMemory {
        id: row.id.to_string(),
        name: row.name.clone(),
        tenant: row.tenant.clone(),
        database: row.database.clone(),
        bytes: MemoryParts {
            vectors,
            quantized,
            links,
            columns,
            text,
            indexes,
            locations,
            codes: quantized,
            places: locations,
            total: memory.total(),
        },
    }
}

/// What the operating system says of this process; nothing where it does not.
fn process() -> ProcessMemory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map(|kib| kib * 1024)
    };
    ProcessMemory { resident: bytes("VmRSS"), anonymous: bytes("RssAnon"), mapped: bytes("RssFile") }
}
