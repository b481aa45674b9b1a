//! Administration: what the server holds in memory.

use axum::Json;
use axum::extract::State;
use ochre_extension::{Access, Description, Permission};
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::error::ApiError;

pub(super) fn operations() -> Vec<Served> {
    vec![Served::new(
        Description::get(
            "/_admin/memory",
            "Get the memory used, in bytes by collection and part",
            Access::Scope(Permission::SystemRead),
        ),
        memory,
    )]
}

async fn memory(State(app): State<App>) -> Result<Json<Json_>, ApiError> {
    app.run(|database| {
        let collections = database.memory();
        let collections: Vec<Json_> = collections
            .iter()
            .map(|(row, memory)| {
                json!({
                    "id": row.id.to_string(),
                    "name": row.name,
                    "tenant": row.tenant,
                    "database": row.database,
                    "bytes": {
                        "vectors": memory.vectors,
                        "quantized": memory.quantized,
                        "links": memory.links,
                        "columns": memory.columns,
                        "text": memory.text,
                        "indexes": memory.indexes,
                        "locations": memory.locations,
                        // The names of before, for one version.
                        "codes": memory.quantized,
                        "places": memory.locations,
                        "total": memory.total(),
                    },
                })
            })
            .collect();
        Ok(Json(json!({"process": process(), "collections": collections})))
    })
    .await
}

/// What the operating system says of this process; null where it does not.
fn process() -> Json_ {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map(|kib| kib * 1024)
    };
    json!({"resident": bytes("VmRSS"), "anonymous": bytes("RssAnon"), "mapped": bytes("RssFile")})
}
