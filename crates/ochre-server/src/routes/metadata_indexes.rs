//! Administration of metadata indexes: declared, listed, changed, built anew, verified, suggested.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ochre_engine::{DEFAULT_DATABASE, DEFAULT_TENANT, Database, IndexChange, IndexDefinition, IndexSelection};
use serde::Deserialize;
use serde_json::{Value as Json_, json};

use super::Operation;
use crate::app::App;
use crate::auth::Caller;
use crate::body::{JsonBytes, Query};
use crate::error::ApiError;
use ochre_auth::{Permission, Target};
use uuid::Uuid;

/// One request declares at most so many indexes.
const DEFINITIONS_MAX: usize = 100;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/_admin/metadata_indexes",
        summary: "Declare a metadata index, or several; with replace the list becomes the whole set",
        request: Some("MetadataIndexes"),
        response: (202, "object"),
        query: &["dry_run", "replace", "collection", "tenant", "database"],
    },
    Operation {
        method: "get",
        path: "/_admin/metadata_indexes",
        summary: "The declared metadata indexes",
        request: None,
        response: (200, "object"),
        query: &["collection", "status", "tenant", "database"],
    },
    Operation {
        method: "delete",
        path: "/_admin/metadata_indexes",
        summary: "Delete the metadata indexes of a collection, a database or a tenant",
        request: None,
        response: (200, "object"),
        query: &["collection", "tenant", "database", "confirm", "dry_run"],
    },
    Operation {
        method: "get",
        path: "/_admin/metadata_indexes/suggestions",
        summary: "Metadata indexes that past filters would have profited from, each with a ready request",
        request: None,
        response: (200, "object"),
        query: &["collection", "tenant", "database"],
    },
    Operation {
        method: "get",
        path: "/_admin/metadata_index/{index_name}",
        summary: "A metadata index: its definition, status, progress, size and usage",
        request: None,
        response: (200, "object"),
        query: &["tenant", "database"],
    },
    Operation {
        method: "put",
        path: "/_admin/metadata_index/{index_name}",
        summary: "Make a metadata index what the body says, building beside what serves if need be",
        request: Some("MetadataIndex"),
        response: (202, "object"),
        query: &["tenant", "database"],
    },
    Operation {
        method: "delete",
        path: "/_admin/metadata_index/{index_name}",
        summary: "Delete a metadata index, and stop its build",
        request: None,
        response: (200, "object"),
        query: &["tenant", "database"],
    },
    Operation {
        method: "post",
        path: "/_admin/metadata_index/{index_name}/rebuild",
        summary: "Build a metadata index anew, beside what serves",
        request: None,
        response: (202, "object"),
        query: &["tenant", "database"],
    },
    Operation {
        method: "post",
        path: "/_admin/metadata_index/{index_name}/cancel",
        summary: "Stop a build; what served before goes on serving",
        request: None,
        response: (202, "object"),
        query: &["tenant", "database"],
    },
    Operation {
        method: "get",
        path: "/_admin/metadata_index/{index_name}/verify",
        summary: "Compare a metadata index with the records; what differs is not used until it is rebuilt",
        request: None,
        response: (200, "object"),
        query: &["tenant", "database"],
    },
];

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/_admin/metadata_indexes", get(list).post(create).delete(delete_many))
        .route("/_admin/metadata_indexes/suggestions", get(suggest))
        .route("/_admin/metadata_index/{index_name}", get(show).put(replace).delete(delete))
        .route("/_admin/metadata_index/{index_name}/rebuild", post(rebuild))
        .route("/_admin/metadata_index/{index_name}/cancel", post(cancel))
        .route("/_admin/metadata_index/{index_name}/verify", get(verify))
}

#[derive(Deserialize)]
struct Scope {
    tenant: Option<String>,
    database: Option<String>,
    collection: Option<String>,
    status: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    confirm: bool,
}

impl Scope {
    fn selection(&self) -> IndexSelection {
        IndexSelection {
            tenant: self.tenant.clone(),
            database: self.database.clone(),
            collection: self.collection.clone(),
            status: self.status.clone(),
        }
    }
}

/// The database that an index's name is unique in.
#[derive(Deserialize)]
struct Home {
    tenant: Option<String>,
    database: Option<String>,
}

impl Home {
    fn parts(&self) -> (&str, &str) {
        (self.tenant.as_deref().unwrap_or(DEFAULT_TENANT), self.database.as_deref().unwrap_or(DEFAULT_DATABASE))
    }
}

/// Fails unless the caller may do this to an index, as it is shown: as if it were not there, if nothing is granted there.
fn check(caller: &Caller, permission: Permission, index: &Json_) -> Result<(), ApiError> {
    let part = |name: &str| index[name].as_str().unwrap_or_default();
    caller.check(permission, part("tenant"), part("database"), part("collection"))
}

/// An index that a caller may do this to; where nothing is granted, as if it were not there.
fn find(
    caller: &Caller, permission: Permission, database: &Database, (tenant, home): (&str, &str), name: &str,
) -> Result<Json_, ApiError> {
    let hidden = || ApiError::not_found(format!("there is no metadata index '{name}'"));
    let is_everywhere = caller.principal().may(permission, Target::default());
    let index = database.metadata_index(tenant, home, name).map_err(|error| {
        // Names that are alike are told to those who may see all of them.
        if is_everywhere { ApiError::from(error) } else { hidden() }
    })?;
    check(caller, permission, &index).map_err(|error| if error.is_not_found() { hidden() } else { error })?;
    Ok(index)
}

/// Somebody else's index has the name.
fn taken(name: &str) -> ApiError {
    let text = format!("index_name: the name '{name}' is taken in this database; choose another");
    ApiError::new(StatusCode::CONFLICT, "ChromaError", text)
}

/// Fails unless the caller may declare this.
fn may_write(caller: &Caller, database: &Database, new: &IndexDefinition) -> Result<(), ApiError> {
    // By its name, whichever way it is named.
    let row = Uuid::parse_str(&new.collection)
        .ok()
        .filter(|_| database.collection_in(&new.tenant, &new.database, &new.collection).is_err())
        .and_then(|id| database.collection_by_id(id).and_then(|collection| collection.info()).ok())
        .filter(|row| row.tenant == new.tenant && row.database == new.database);
    let name = row.map_or_else(|| new.collection.clone(), |row| row.name.clone());
    let target = Target { tenant: Some(&new.tenant), database: Some(&new.database), collection: Some(&name) };
    caller.check_given(Permission::IndexWrite, target, &new.collection)?;
    may_filter(caller, new, &name)
}

/// Fails if the definition has a filter and the caller may see no values: counts of what passes it tell them.
fn may_filter(caller: &Caller, new: &IndexDefinition, name: &str) -> Result<(), ApiError> {
    match &new.partial {
        Some(_) => caller.check(Permission::IntrospectValues, &new.tenant, &new.database, name),
        None => Ok(()),
    }
}

/// A definition, which the request may complete.
fn definition(mut json: Json_, home: &[(&str, Option<&String>)]) -> Result<IndexDefinition, ApiError> {
    if let Some(members) = json.as_object_mut() {
        for (name, value) in home {
            if let Some(value) = value {
                members.entry(*name).or_insert_with(|| value.as_str().into());
            }
        }
    }
    Ok(IndexDefinition::from_json(json)?)
}

async fn create(
    State(app): State<App>, caller: Caller, Query(scope): Query<Scope>, body: JsonBytes,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let body: Json_ = body.parse()?;
        let is_list = body.is_array() || body.get("indexes").is_some();
        let list = match body {
            Json_::Array(list) => list,
            Json_::Object(mut members) if members.contains_key("indexes") => match members.remove("indexes") {
                Some(Json_::Array(list)) => list,
                _ => return Err(ApiError::invalid("indexes: expected a list of indexes")),
            },
            one => vec![one],
        };
        if list.len() > DEFINITIONS_MAX {
            let text = format!("{} indexes in one request are more than the limit of {DEFINITIONS_MAX}", list.len());
            return Err(ApiError::invalid(text));
        }
        let home = [
            ("tenant", scope.tenant.as_ref()),
            ("database", scope.database.as_ref()),
            ("collection", scope.collection.as_ref()),
        ];
        let definitions: Vec<IndexDefinition> =
            list.into_iter().map(|json| definition(json, &home)).collect::<Result<_, _>>()?;
        for (number, definition) in definitions.iter().enumerate() {
            let name = &definition.index_name;
            if definitions[..number].iter().any(|other| other.index_name == *name) {
                return Err(ApiError::invalid(format!("index_name: {name:?} stands twice in the list")));
            }
        }
        for new in &definitions {
            may_write(&caller, database, new)?;
            if let Ok(old) = database.metadata_index(&new.tenant, &new.database, &new.index_name) {
                // What has the name now may be of another collection.
                check(&caller, Permission::IndexWrite, &old).map_err(|_| taken(&new.index_name))?;
            }
        }
        // All of them are looked at before any is made.
        let plans: Vec<Json_> =
            definitions.iter().map(|new| database.plan_metadata_index(new)).collect::<Result<_, _>>()?;
        if !scope.replace {
            database.check_metadata_indexes(&definitions)?;
        }
        let gone = if scope.replace { left_out(database, &scope, &definitions) } else { Vec::new() };
        let mut gone = gone;
        gone.retain(|index| check(&caller, Permission::IndexRead, index).is_ok());
        gone.iter().try_for_each(|index| check(&caller, Permission::IndexWrite, index))?;
        if scope.dry_run {
            let shown = if is_list { json!({"indexes": plans, "deletes": names(&gone)}) } else { plans[0].clone() };
            return Ok((StatusCode::OK, Json(shown)));
        }
        // First, so that there is room for the new ones.
        for index in &gone {
            drop_index(database, index)?;
        }
        let mut is_building = false;
        let mut shown = Vec::new();
        for new in &definitions {
            let made =
                if scope.replace { database.put_metadata_index(new) } else { database.create_metadata_index(new) };
            let (index, change) = made?;
            is_building |= change == IndexChange::Building;
            shown.push(with_change(index, change));
        }
        let status = if is_building { StatusCode::ACCEPTED } else { StatusCode::OK };
        let shown = if is_list { json!({"indexes": shown, "deleted": names(&gone)}) } else { shown.remove(0) };
        Ok((status, Json(shown)))
    })
    .await
}

/// The indexes in the scope of a request that its list does not name.
fn left_out(database: &Database, scope: &Scope, definitions: &[IndexDefinition]) -> Vec<Json_> {
    let default = |given: &Option<String>, default: &str| Some(given.clone().unwrap_or_else(|| default.to_owned()));
    let selection = IndexSelection {
        tenant: default(&scope.tenant, DEFAULT_TENANT),
        database: default(&scope.database, DEFAULT_DATABASE),
        collection: scope.collection.clone(),
        status: None,
    };
    let mut indexes = database.metadata_indexes(&selection);
    indexes.retain(|index| definitions.iter().all(|new| index["index_name"] != new.index_name.as_str()));
    indexes
}

fn names(indexes: &[Json_]) -> Vec<&Json_> {
    indexes.iter().map(|index| &index["index_name"]).collect()
}

fn drop_index(database: &Database, index: &Json_) -> Result<Json_, ApiError> {
    let part = |name: &str| index[name].as_str().unwrap_or_default();
    Ok(database.delete_metadata_index(part("tenant"), part("database"), part("index_name"))?)
}

fn with_change(mut index: Json_, change: IndexChange) -> Json_ {
    index["change"] = match change {
        IndexChange::Building => "building",
        IndexChange::Changed => "changed",
        IndexChange::Nothing => "none",
    }
    .into();
    index
}

async fn list(State(app): State<App>, caller: Caller, Query(scope): Query<Scope>) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let mut indexes = database.metadata_indexes(&scope.selection());
        indexes.retain(|index| check(&caller, Permission::IndexRead, index).is_ok());
        Ok(Json(json!({"indexes": indexes})))
    })
    .await
}

async fn delete_many(
    State(app): State<App>, caller: Caller, Query(scope): Query<Scope>,
) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        if scope.collection.is_none() && scope.database.is_none() && scope.tenant.is_none() {
            return Err(ApiError::invalid(
                "say which indexes to delete: ?collection=NAME, with database and tenant if they are not the default ones, or ?database=NAME",
            ));
        }
        let mut selection = scope.selection();
        if selection.collection.is_some() || selection.database.is_some() {
            selection.tenant.get_or_insert_with(|| DEFAULT_TENANT.into());
        }
        if selection.collection.is_some() {
            selection.database.get_or_insert_with(|| DEFAULT_DATABASE.into());
        }
        let mut indexes = database.metadata_indexes(&selection);
        indexes.retain(|index| check(&caller, Permission::IndexRead, index).is_ok());
        indexes.iter().try_for_each(|index| check(&caller, Permission::IndexWrite, index))?;
        if !scope.dry_run && !scope.confirm {
            let text = format!("this deletes {} indexes; add confirm=true to do it, or dry_run=true to see which", indexes.len());
            return Err(ApiError::invalid(text));
        }
        if !scope.dry_run {
            indexes.iter().try_for_each(|index| drop_index(database, index).map(drop))?;
        }
        let verb = if scope.dry_run { "would_delete" } else { "deleted" };
        indexes.sort_by_key(|index| index["index_name"].to_string());
        Ok(Json(json!({verb: names(&indexes)})))
    })
    .await
}

async fn suggest(State(app): State<App>, caller: Caller, Query(scope): Query<Scope>) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let mut suggestions = database.suggest_metadata_indexes(&scope.selection());
        suggestions.retain(|suggestion| check(&caller, Permission::IndexRead, suggestion).is_ok());
        Ok(Json(json!({"suggestions": suggestions})))
    })
    .await
}

async fn show(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>,
) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let (tenant, home) = home.parts();
        find(&caller, Permission::IndexRead, database, (tenant, home), &name)?;
        Ok(Json(database.metadata_index(tenant, home, &name)?))
    })
    .await
}

async fn replace(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>, body: JsonBytes,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let body: Json_ = body.parse()?;
        if let Some(other) = body.get("index_name").filter(|other| **other != name.as_str()) {
            let text = format!("index_name: the path names {name:?} and the body {other}; an index keeps its name");
            return Err(ApiError::invalid(text));
        }
        let home =
            [("index_name", Some(&name)), ("tenant", home.tenant.as_ref()), ("database", home.database.as_ref())];
        let new = definition(body, &home)?;
        // Both where it is and where it shall be.
        if let Ok(old) = database.metadata_index(&new.tenant, &new.database, &name) {
            check(&caller, Permission::IndexWrite, &old).map_err(|_| taken(&name))?;
            if new.collection.is_empty() {
                may_filter(&caller, &new, old["collection"].as_str().unwrap_or_default())?;
            }
        }
        if !new.collection.is_empty() {
            may_write(&caller, database, &new)?;
        }
        let (index, change) = database.put_metadata_index(&new)?;
        let status = if change == IndexChange::Building { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok((status, Json(with_change(index, change))))
    })
    .await
}

async fn delete(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>,
) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let (tenant, home) = home.parts();
        find(&caller, Permission::IndexWrite, database, (tenant, home), &name)?;
        let index = database.delete_metadata_index(tenant, home, &name)?;
        Ok(Json(json!({"deleted": index["index_name"]})))
    })
    .await
}

async fn rebuild(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let (tenant, home) = home.parts();
        find(&caller, Permission::IndexWrite, database, (tenant, home), &name)?;
        Ok((StatusCode::ACCEPTED, Json(database.rebuild_metadata_index(tenant, home, &name)?)))
    })
    .await
}

async fn cancel(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let (tenant, home) = home.parts();
        find(&caller, Permission::IndexWrite, database, (tenant, home), &name)?;
        let (mut index, was_building) = database.cancel_metadata_index(tenant, home, &name)?;
        index["change"] = if was_building { "cancelled" } else { "none" }.into();
        Ok((StatusCode::ACCEPTED, Json(index)))
    })
    .await
}

async fn verify(
    State(app): State<App>, caller: Caller, Path(name): Path<String>, Query(home): Query<Home>,
) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let (tenant, home) = home.parts();
        find(&caller, Permission::IndexRead, database, (tenant, home), &name)?;
        Ok(Json(database.verify_metadata_index(tenant, home, &name)?))
    })
    .await
}
