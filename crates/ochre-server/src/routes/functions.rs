//! Functions attached to collections.

use axum::Json;
use axum::extract::{Path, State};
use ochre_engine::Function;
use ochre_extension::{Access, Description, Permission};
use ochre_wire::{
    AttachFunctionRequest, AttachFunctionResponse, AttachedFunctionApiResponse, AttachedFunctionInfo,
    DetachFunctionRequest, DetachFunctionResponse, GetAttachedFunctionResponse,
};
use serde::Deserialize;

use super::served::Served;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection, not_found_as};

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/functions/attach",
                "Attach a function, whose output is kept in a collection of its own",
                Access::Scope(Permission::CollectionWrite),
            )
            .takes("AttachFunctionRequest")
            .answers(200, "AttachFunctionResponse"),
            attach,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/functions/{function}",
                "Get an attached function",
                Access::Scope(Permission::CollectionRead),
            )
            .answers(200, "GetAttachedFunctionResponse"),
            read,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/attached_functions/{function}/detach",
                "Detach a function, and delete its output collection if that is asked",
                Access::Scope(Permission::CollectionWrite),
            )
            .takes("DetachFunctionRequest")
            .answers(200, "DetachFunctionResponse"),
            detach,
        ),
    ]
}

/// `…/collections/{collection}/functions/{function}`
#[derive(Deserialize)]
struct FunctionPath {
    #[serde(flatten)]
    collection: CollectionPath,
    function: String,
}

async fn attach(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Json<AttachFunctionResponse>, ApiError> {
    let counting = caller.count_collections().await;
    app.run(move |database| {
        let _counting = counting;
        let AttachFunctionRequest { name, function_id, output_collection, params } = body.parse()?;
        let function = Function::from_name(&function_id).ok_or_else(|| {
            let known: Vec<&str> = Function::ALL.iter().map(|function| function.name()).collect();
            ApiError::not_found(format!("function not found: '{function_id}'; there are {}", known.join(" and ")))
        })?;
        if params.is_some_and(|params| !params.is_null() && params != serde_json::json!({})) {
            return Err(ApiError::invalid("params must be empty - no functions currently accept parameters"));
        }
        let input = collection(database, &path)?;
        let info = input.info().map_err(not_found_as(&path))?;
        // Its output says what is in the records, in a collection that others may be able to read.
        caller.check(Permission::RecordRead, &path.tenant, &path.database, &info.name)?;
        caller.check(Permission::CollectionWrite, &path.tenant, &path.database, &output_collection)?;
        caller.check(Permission::RecordWrite, &path.tenant, &path.database, &output_collection)?;
        caller.check_collections(database, &path.tenant, &path.database, &output_collection)?;
        let attached = input.attach_function(&name, function, &output_collection);
        let (attached, created) = attached.map_err(not_found_as(&path))?;
        let attached_function = AttachedFunctionInfo {
            id: attached.id.to_string(),
            name: attached.name,
            function_name: attached.function.name().into(),
        };
        Ok(Json(AttachFunctionResponse { attached_function, created }))
    })
    .await
}

async fn read(
    State(app): State<App>, Path(path): Path<FunctionPath>,
) -> Result<Json<GetAttachedFunctionResponse>, ApiError> {
    app.run(move |database| {
        let attached = collection(database, &path.collection)?.attached_function(&path.function)?;
        let attached_function = AttachedFunctionApiResponse {
            id: attached.id.to_string(),
            name: attached.name,
            function_name: attached.function.name().into(),
            input_collection_id: attached.collection.to_string(),
            output_collection: attached.output_collection,
            output_collection_id: Some(attached.output_collection_id.to_string()),
            params: None,
            tenant_id: attached.tenant,
            database_id: attached.database,
            completion_offset: attached.position,
            min_records_for_invocation: 1,
            error: attached.error,
        };
        Ok(Json(GetAttachedFunctionResponse { attached_function }))
    })
    .await
}

async fn detach(
    State(app): State<App>, caller: Caller, Path(path): Path<FunctionPath>, body: JsonBytes,
) -> Result<Json<DetachFunctionResponse>, ApiError> {
    app.run(move |database| {
        let DetachFunctionRequest { delete_output } = body.parse()?;
        let input = collection(database, &path.collection)?;
        let attached = input.attached_function(&path.function)?;
        let (tenant, home, output) = (&attached.tenant, &attached.database, &attached.output_collection);
        if delete_output {
            caller.check(Permission::CollectionWrite, tenant, home, output)?;
        }
        if delete_output {
            // That detaches the function. By its id: another collection may have its name by now.
            match database.delete_collection_by_id(attached.output_collection_id) {
                // Somebody else was faster.
                Err(error) if error.not_found().is_some() => {}
                deleted => deleted?,
            }
        } else {
            input.detach_function(&path.function)?;
        }
        Ok(Json(DetachFunctionResponse { success: true }))
    })
    .await
}
