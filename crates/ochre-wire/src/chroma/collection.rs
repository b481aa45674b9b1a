//! Bodies of the tenant, database and collection routes.

use std::collections::HashMap;

use ochre_model::{
    Declaration, DeclarationChange, HIDDEN_PREFIX, HnswConfiguration, IndexSchema, Metadata, Space, Value,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::metadata::{MetadataPayload, MetadataValue};
use crate::Refused;

/// Body of creating a tenant.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateTenantPayload {
    /// At least three characters.
    pub name: String,
}

/// Body of changing a tenant.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpdateTenantPayload {
    /// The name that resource names of collections begin with.
    pub resource_name: String,
}

/// Body of creating a database.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateDatabasePayload {
    /// 3 to 512 of `[a-zA-Z0-9._-]`.
    pub name: String,
}

/// A database.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Database {
    pub id: String,
    pub name: String,
    pub tenant: String,
}

/// Body of creating a collection.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateCollectionPayload {
    /// 3 to 512 of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// An index schema; not together with a configuration.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<SchemaPayload>,
    /// Parameters of the index, and the embedding function.
    #[serde(default)]
    pub configuration: Option<CollectionConfiguration>,
    /// Not empty if given.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<MetadataPayload<MetadataValue>>,
    /// Return the existing collection of this name instead of failing.
    #[serde(default)]
    pub get_or_create: bool,
}

/// Body of changing a collection.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpdateCollectionPayload {
    /// The new name.
    pub new_name: Option<String>,
    /// Replaces all metadata.
    #[schema(value_type = Option<Object>)]
    pub new_metadata: Option<MetadataPayload<Option<MetadataValue>>>,
    /// Merged into the configuration.
    pub new_configuration: Option<UpdateCollectionConfiguration>,
}

/// Parameters of the index, and the embedding function.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CollectionConfiguration {
    /// For the graph.
    pub hnsw: Option<HnswPayload>,
    /// Accepted; its space is used, the rest is Chroma's cloud's.
    #[schema(value_type = Option<Object>)]
    pub spann: Option<SpannPayload>,
    /// Kept verbatim for clients.
    #[schema(value_type = Option<Object>)]
    pub embedding_function: Option<EmbeddingFunction>,
}

/// Parameters that can be changed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpdateCollectionConfiguration {
    /// For the graph.
    pub hnsw: Option<UpdateHnswPayload>,
    /// Accepted and without effect.
    #[schema(value_type = Option<Object>)]
    pub spann: Option<UpdateSpannPayload>,
    /// Replaces the description.
    #[schema(value_type = Option<Object>)]
    pub embedding_function: Option<EmbeddingFunction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SpaceName {
    L2,
    Cosine,
    Ip,
}

impl From<SpaceName> for Space {
    fn from(name: SpaceName) -> Self {
        match name {
            SpaceName::L2 => Self::L2,
            SpaceName::Cosine => Self::Cosine,
            SpaceName::Ip => Self::Ip,
        }
    }
}

/// Parameters of the graph; absent ones have defaults.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HnswPayload {
    space: Option<SpaceName>,
    ef_construction: Option<usize>,
    ef_search: Option<usize>,
    max_neighbors: Option<usize>,
    num_threads: Option<usize>,
    resize_factor: Option<f64>,
    sync_threshold: Option<usize>,
    batch_size: Option<usize>,
}

/// Parameters of the graph that can be changed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateHnswPayload {
    ef_search: Option<usize>,
    max_neighbors: Option<usize>,
    num_threads: Option<usize>,
    resize_factor: Option<f64>,
    sync_threshold: Option<usize>,
    batch_size: Option<usize>,
}

/// Parameters of an index that only Chroma's cloud has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read to be checked; only the space has an effect here")]
pub struct SpannPayload {
    space: Option<SpaceName>,
    search_nprobe: Option<u32>,
    write_nprobe: Option<u32>,
    ef_construction: Option<usize>,
    ef_search: Option<usize>,
    max_neighbors: Option<usize>,
    reassign_neighbor_count: Option<u32>,
    split_threshold: Option<u32>,
    merge_threshold: Option<u32>,
}

/// Changes to an index that only Chroma's cloud has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read to be checked, without effect here")]
pub struct UpdateSpannPayload {
    search_nprobe: Option<u32>,
    ef_search: Option<usize>,
}

/// What a client says of its embedding function; kept for it verbatim.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EmbeddingFunction {
    Legacy,
    Known { name: String, config: Json },
    Unknown,
}

/// An index schema: its two required parts checked, the rest kept as it is.
#[derive(Clone, Debug, Deserialize)]
pub struct SchemaPayload {
    defaults: ValueTypes,
    keys: HashMap<String, ValueTypes>,
    #[serde(default)]
    cmek: Option<Json>,
    #[serde(default)]
    source_attached_function_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct ValueTypes {
    string: Option<HashMap<String, IndexSwitch>>,
    float_list: Option<VectorTypes>,
    sparse_vector: Option<HashMap<String, IndexSwitch>>,
    int: Option<HashMap<String, IndexSwitch>>,
    float: Option<HashMap<String, IndexSwitch>>,
    bool: Option<HashMap<String, IndexSwitch>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct IndexSwitch {
    enabled: bool,
    config: Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct VectorTypes {
    vector_index: Option<VectorSwitch>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct VectorSwitch {
    enabled: bool,
    config: VectorConfig,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct VectorConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<SpaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_function: Option<EmbeddingFunction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hnsw: Option<SchemaHnsw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spann: Option<Json>,
}

/// Parameters of the graph inside a schema: all but the space, which stands beside them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SchemaHnsw {
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_construction: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_neighbors: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_search: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_threads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_threshold: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_factor: Option<f64>,
}

/// What a collection is created with.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Its metadata, without what it declares.
    pub metadata: Option<Metadata>,
    /// What it declares of its records.
    pub declaration: Declaration,
    /// How it is indexed.
    pub schema: IndexSchema,
    /// Return the existing collection of this name instead of failing.
    pub get_or_create: bool,
}

/// What a collection is created with, from everything a client can say about it.
///
/// # Errors
/// [`Refused::Invalid`] in Chroma's words for contradictions.
pub fn create_options(mut payload: CreateCollectionPayload) -> Result<CreateOptions, Refused> {
    let parts = payload.metadata.take().map(|metadata| metadata.into_parts("metadata")).transpose()?;
    let (metadata, declaration) = parts.unwrap_or_default();
    let get_or_create = payload.get_or_create;
    let schema = index_schema(payload, metadata.as_ref())?;
    Ok(CreateOptions { metadata, declaration, schema, get_or_create })
}

/// The index schema, from schema, configuration and metadata.
fn index_schema(payload: CreateCollectionPayload, metadata: Option<&Metadata>) -> Result<IndexSchema, Refused> {
    let configuration = payload.configuration.unwrap_or_default();
    if configuration.hnsw.is_some() && configuration.spann.is_some() {
        return Err(Refused::Invalid("Multiple vector index configurations provided".into()));
    }
    let mut hnsw = HnswConfiguration::default();
    if let Some(given) = &configuration.hnsw {
        given.apply(&mut hnsw);
    }
    if let Some(space) = configuration.spann.as_ref().and_then(|spann| spann.space) {
        hnsw.space = space.into();
    }
    let mut legacy = HnswConfiguration::default();
    if let Some(metadata) = metadata {
        legacy_parameters(metadata, &mut legacy)?;
    }
    let mut function = configuration.embedding_function.as_ref().map(to_json);
    if let Some(given) = payload.schema {
        let given = serde_json::to_value(json!({
            "defaults": given.defaults, "keys": given.keys, "cmek": given.cmek,
            "source_attached_function_id": given.source_attached_function_id,
        }))
        .unwrap_or_default();
        let schema = IndexSchema::complete(&given).map_err(|error| Refused::Invalid(error.to_string()))?;
        if !schema.is_default() {
            let default = HnswConfiguration::default();
            if (&hnsw, &legacy) != (&default, &default) || !function.as_ref().is_none_or(is_always_sent) {
                return Err(Refused::Invalid(
                    "Failed to reconcile schema: Cannot set both collection config and schema simultaneously".into(),
                ));
            }
            return Ok(schema);
        }
        function = function.or_else(|| schema.embedding_function().cloned());
    }
    // Who configured anything beyond the defaults knows the configuration: it is used alone.
    if hnsw == HnswConfiguration::default() && configuration.spann.is_none_or(|spann| spann.space.is_none()) {
        hnsw = legacy;
    }
    Ok(IndexSchema::new(&hnsw, function.as_ref()))
}

/// Whether a description of an embedding function is one that clients send whatever is configured.
fn is_always_sent(function: &Json) -> bool {
    function["type"] == "unknown" || function["type"] == "known" && function["name"] == "default"
}

fn to_json(function: &EmbeddingFunction) -> Json {
    serde_json::to_value(function).unwrap_or_default()
}

/// The `hnsw:*` keys that older clients put into metadata.
fn legacy_parameters(metadata: &Metadata, hnsw: &mut HnswConfiguration) -> Result<(), Refused> {
    for (key, value) in metadata.iter() {
        let Some(name) = key.strip_prefix("hnsw:") else { continue };
        let bad = || Refused::Invalid("Failed to parse hnsw parameters from segment metadata".into());
        let count = || match value {
            Value::Int(i) => usize::try_from(*i).map_err(|_| bad()),
            _ => Err(bad()),
        };
        match (name, value) {
            ("space", Value::Str(space)) => hnsw.space = Space::from_name(space).ok_or_else(bad)?,
            ("M", _) => hnsw.max_neighbors = count()?,
            ("construction_ef", _) => hnsw.ef_construction = count()?,
            ("search_ef", _) => hnsw.ef_search = count()?,
            ("num_threads", _) => hnsw.num_threads = count()?,
            ("batch_size", _) => hnsw.batch_size = count()?,
            ("sync_threshold", _) => hnsw.sync_threshold = count()?,
            ("resize_factor", Value::Float(factor)) => hnsw.resize_factor = *factor,
            #[expect(clippy::cast_precision_loss, reason = "a factor")]
            ("resize_factor", Value::Int(factor)) => hnsw.resize_factor = *factor as f64,
            _ => return Err(bad()),
        }
    }
    Ok(())
}

impl HnswPayload {
    fn apply(&self, hnsw: &mut HnswConfiguration) {
        if let Some(space) = self.space {
            hnsw.space = space.into();
        }
        hnsw.ef_construction = self.ef_construction.unwrap_or(hnsw.ef_construction);
        let changeable = UpdateHnswPayload {
            ef_search: self.ef_search,
            max_neighbors: self.max_neighbors,
            num_threads: self.num_threads,
            resize_factor: self.resize_factor,
            sync_threshold: self.sync_threshold,
            batch_size: self.batch_size,
        };
        changeable.apply(hnsw);
    }
}

impl UpdateHnswPayload {
    fn apply(&self, hnsw: &mut HnswConfiguration) {
        hnsw.ef_search = self.ef_search.unwrap_or(hnsw.ef_search);
        hnsw.max_neighbors = self.max_neighbors.unwrap_or(hnsw.max_neighbors);
        hnsw.num_threads = self.num_threads.unwrap_or(hnsw.num_threads);
        hnsw.resize_factor = self.resize_factor.unwrap_or(hnsw.resize_factor);
        hnsw.sync_threshold = self.sync_threshold.unwrap_or(hnsw.sync_threshold);
        hnsw.batch_size = self.batch_size.unwrap_or(hnsw.batch_size);
    }
}

impl UpdateCollectionPayload {
    /// The new metadata: `None` leaves it, `Some(None)` removes it; and what changes of the declaration.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for an empty object or a bad key.
    pub fn metadata(&mut self) -> Result<(Option<Option<Metadata>>, DeclarationChange), Refused> {
        let Some(metadata) = self.new_metadata.take() else { return Ok(Default::default()) };
        if metadata.is_empty() {
            return Err(Refused::Invalid("Validation error: new_metadata: Metadata cannot be empty".into()));
        }
        let declaration = metadata.declaration("new_metadata")?;
        Ok((Some(metadata.into_metadata("new_metadata")?), declaration))
    }

    /// The new graph parameters, laid over the current ones.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if two indexes are configured at once.
    pub fn hnsw(&self, current: &IndexSchema) -> Result<Option<HnswConfiguration>, Refused> {
        let Some(configuration) = &self.new_configuration else { return Ok(None) };
        if configuration.hnsw.is_some() && configuration.spann.is_some() {
            return Err(Refused::Invalid("Multiple vector index configurations provided".into()));
        }
        Ok(configuration.hnsw.as_ref().map(|change| {
            let mut hnsw = current.hnsw().clone();
            change.apply(&mut hnsw);
            hnsw
        }))
    }

    /// The new description of the embedding function.
    pub fn embedding_function(&self) -> Option<Json> {
        self.new_configuration.as_ref()?.embedding_function.as_ref().map(to_json)
    }
}

/// A collection as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "Chroma's names")]
pub struct Collection {
    pub id: String,
    pub name: String,
    #[schema(value_type = Object)]
    pub configuration_json: Json,
    #[schema(value_type = Object)]
    pub schema: Json,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Json>,
    pub dimension: Option<usize>,
    pub tenant: String,
    pub database: String,
    pub log_position: u64,
    pub version: u32,
}

/// Body of fork.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ForkCollectionPayload {
    /// The name of the new collection.
    pub new_name: String,
}

/// Answer of fork_count.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForkCountResponse {
    /// How many other collections descend from the same one.
    pub count: u64,
}

/// Answer of indexing_status, in records that were inserted, changed or deleted.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "Chroma's names")]
pub struct IndexStatusResponse {
    /// The share of all that is indexed, 0 to 1.
    pub op_indexing_progress: f64,
    pub num_unindexed_ops: u64,
    pub num_indexed_ops: u64,
    pub total_ops: u64,
}

impl IndexStatusResponse {
    /// Of so many operations, of which some wait for an index.
    pub fn new(operations: u64, unindexed: u64) -> Self {
        let indexed = operations - unindexed;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let progress = if operations == 0 { 1.0 } else { indexed as f64 / operations as f64 };
        Self {
            op_indexing_progress: progress,
            num_unindexed_ops: unindexed,
            num_indexed_ops: indexed,
            total_ops: operations,
        }
    }
}

/// Metadata as clients see it, with what the collection declares among it.
pub fn shown_metadata(metadata: Option<&Metadata>, declaration: Option<&Declaration>) -> Option<Map<String, Json>> {
    let own = metadata.into_iter().flat_map(Metadata::iter).map(|(key, value)| (key.to_owned(), value.to_json()));
    let all = || own.chain(declaration.map(Declaration::to_metadata).unwrap_or_default()).collect();
    (metadata.is_some() || declaration.is_some()).then(all)
}

impl Collection {
    /// The object for a collection of this tenant, database and name.
    pub fn new(
        id: Uuid, [tenant, database, name]: [&str; 3], metadata: Option<Map<String, Json>>, schema: &IndexSchema,
        dimension: Option<usize>,
    ) -> Self {
        let hnsw = schema.hnsw();
        let mut shown = schema.as_json().clone();
        if let Some(keys) = shown.get_mut("keys").and_then(Json::as_object_mut) {
            keys.retain(|key, _| !key.starts_with(HIDDEN_PREFIX));
        }
        Self {
            id: id.to_string(),
            name: name.to_owned(),
            configuration_json: json!({
                "hnsw": {
                    "space": hnsw.space.name(),
                    "ef_construction": hnsw.ef_construction,
                    "ef_search": hnsw.ef_search,
                    "max_neighbors": hnsw.max_neighbors,
                    "resize_factor": hnsw.resize_factor,
                    "sync_threshold": hnsw.sync_threshold,
                },
                "spann": null,
                "embedding_function": schema.embedding_function(),
            }),
            schema: shown,
            metadata: metadata.map(Json::Object),
            dimension,
            tenant: tenant.to_owned(),
            database: database.to_owned(),
            log_position: 0,
            version: 0,
        }
    }

    /// The same, of a collection that so many commits have changed.
    #[must_use]
    pub fn at_version(self, version: u64) -> Self {
        Self { version: u32::try_from(version).unwrap_or(u32::MAX), ..self }
    }
}
