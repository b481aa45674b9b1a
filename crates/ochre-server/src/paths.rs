//! What routes name: databases and collections, by name or id.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use ochre_engine::{Collection, DEFAULT_DATABASE, DEFAULT_TENANT, Database, StoreError};
use ochre_extension::find_collection;
use uuid::Uuid;

use crate::body::Query;
use crate::error::ApiError;

/// The collection that a data route names, within the tenant and database of the path: by UUID, or by name where
/// the path has none.
pub(crate) fn collection(database: &Database, path: &CollectionPath) -> Result<Collection, ApiError> {
    match path.uuid() {
        Ok(id) => match database.collection_by_id(id) {
            Ok(collection) => within(collection, path),
            Err(error) if error.not_found().is_some() => Err(path.missing()),
            Err(error) => Err(error.into()),
        },
        Err(no_uuid) => match database.collection_in(&path.tenant, &path.database, &path.collection) {
            Ok(collection) => Ok(collection),
            // As Chroma answers, which takes nothing but UUIDs here.
            Err(error) if error.not_found().is_some() => Err(no_uuid),
            Err(error) => Err(error.into()),
        },
    }
}

/// As [`collection`], if it is named by its UUID and the catalog has it in memory: nothing is read from disk, so it may
/// be called on any thread.
pub(crate) fn collection_in_memory(database: &Database, path: &CollectionPath) -> Result<Option<Collection>, ApiError> {
    let found = path.uuid().ok().and_then(|id| database.collection_in_memory(id));
    found.map(|collection| within(collection, path)).transpose()
}

/// A collection, if it is where the path says.
fn within(collection: Collection, path: &CollectionPath) -> Result<Collection, ApiError> {
    let info =
        collection.info().map_err(|error| if error.not_found().is_some() { path.missing() } else { error.into() })?;
    if info.tenant != path.tenant || info.database != path.database {
        return Err(path.missing());
    }
    Ok(collection)
}

/// A collection as our own routes name it: by name or UUID, the name first; tenant and database are the default ones
/// where the path does not say them.
#[derive(Clone, Debug)]
pub(crate) struct CollectionRef {
    tenant: String,
    database: String,
    name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for CollectionRef {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Home {
            tenant: Option<String>,
            database: Option<String>,
        }
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Path(mut path) = path.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        let Query(home) = Query::<Home>::from_request_parts(parts, state).await?;
        Ok(Self {
            tenant: path.remove("tenant").or(home.tenant).unwrap_or_else(|| DEFAULT_TENANT.into()),
            database: path.remove("database").or(home.database).unwrap_or_else(|| DEFAULT_DATABASE.into()),
            name: path.remove("collection").unwrap_or_default(),
        })
    }
}

impl CollectionRef {
    pub(crate) fn new(tenant: String, database: String, name: String) -> Self {
        Self { tenant, database, name }
    }

    /// Tenant and database.
    pub(crate) fn home(&self) -> [&str; 2] {
        [&self.tenant, &self.database]
    }

    /// The collection.
    pub(crate) fn find(&self, database: &Database) -> Result<Collection, ApiError> {
        Ok(find_collection(database, &self.tenant, &self.database, &self.name)?)
    }
}

/// Gone between two steps of one request: the same answer as if it had never been there.
pub(crate) fn not_found_as(path: &CollectionPath) -> impl Fn(ochre_engine::Error) -> ApiError {
    let text = format!("Collection [{}] does not exist.", path.id_text());
    move |error| match &error {
        ochre_engine::Error::Store(StoreError::NotFound { .. }) => ApiError::not_found(text.clone()),
        _ => error.into(),
    }
}

/// `…/tenants/{tenant}/databases/{database}`
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct DatabasePath {
    pub(crate) tenant: String,
    pub(crate) database: String,
}

/// `…/collections/{collection}` under a database.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct CollectionPath {
    pub(crate) tenant: String,
    pub(crate) database: String,
    pub(crate) collection: String,
}

impl CollectionPath {
    pub(crate) fn uuid(&self) -> Result<Uuid, ApiError> {
        Uuid::parse_str(&self.collection).map_err(|_| ApiError::invalid("Collection ID is not a valid UUIDv4"))
    }

    /// What is answered if there is no such collection.
    fn missing(&self) -> ApiError {
        ApiError::not_found(format!("Collection [{}] does not exist.", self.id_text()))
    }

    /// The id in its usual spelling.
    fn id_text(&self) -> String {
        self.uuid().map_or_else(|_| self.collection.clone(), |id| id.to_string())
    }
}
