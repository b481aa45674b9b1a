//! A collection's index configuration: Chroma's `Schema` document, and the graph's parameters in it.
//!
//! The document is kept as the JSON that Chroma's clients exchange, completed with defaults, since
//! that form is the contract. Typed access is for what the engine acts on: the graph parameters and
//! which value types may be filtered.
//!
//! Not here: `chroma:schema`, by which records are validated (`declaration`, `ochre-schema`).

use std::sync::{Arc, OnceLock};

use serde_json::{Value as Json, json};

use crate::space::Space;
use crate::value::ValueType;

/// The parameters of a collection's graph, by Chroma's names.
#[derive(Clone, Debug, PartialEq)]
pub struct HnswConfiguration {
    /// The space distances are measured in; fixed at creation.
    pub space: Space,
    /// Candidates kept while a node is inserted; fixed at creation.
    pub ef_construction: usize,
    /// Candidates kept while searching; more is slower and finds more.
    pub ef_search: usize,
    /// Links per node (twice that on the lowest level).
    pub max_neighbors: usize,
    /// Threads that build the graph.
    pub num_threads: usize,
    /// By how much the graph's arrays grow when they are full.
    pub resize_factor: f64,
    /// Vectors that may wait outside the graph before they are moved into it.
    pub sync_threshold: usize,
    /// Kept for Chroma's clients; steps are sized by the engine.
    pub batch_size: usize,
}

impl Default for HnswConfiguration {
    fn default() -> Self {
        Self {
            space: Space::L2,
            ef_construction: 100,
            ef_search: 100,
            max_neighbors: 16,
            num_threads: processors(),
            resize_factor: 1.2,
            sync_threshold: 1000,
            batch_size: 100,
        }
    }
}

/// Processors this process may use. Asked once: the answer takes several system calls.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Why an index schema was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(pub String);

/// A complete index schema: defaults by type, and overrides by key. Copies share the document until one of them changes
/// it: every write holds one, and collections may have thousands of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexSchema {
    document: Arc<Json>,
    /// What the document says of the graph.
    hnsw: HnswConfiguration,
    /// Whether the document has a text index for documents.
    is_text_searchable: bool,
}

/// How sparse vectors under a key are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    /// The values of queries are multiplied by how rare their indices are among the records, as BM25 has it; those of
    /// records hold the rest of BM25.
    pub is_bm25: bool,
}

/// JSON pointer to the configuration of the embedding's index.
const EMBEDDING: &str = "/keys/#embedding/float_list/vector_index/config";
/// JSON pointer to the default configuration of vector indexes.
const DEFAULT_VECTOR: &str = "/defaults/float_list/vector_index/config";

impl IndexSchema {
    fn of(document: Json) -> Self {
        let is_text_searchable = document.pointer("/keys/#document/string/fts_index/enabled").and_then(Json::as_bool);
        Self {
            hnsw: hnsw_of(&document),
            is_text_searchable: is_text_searchable.unwrap_or(true),
            document: Arc::new(document),
        }
    }

    /// The schema of a collection created with these graph parameters and embedding function.
    pub fn new(hnsw: &HnswConfiguration, embedding_function: Option<&Json>) -> Self {
        let on = json!({"enabled": true, "config": {}});
        let off = json!({"enabled": false, "config": {}});
        let mut schema = Self::of(json!({
            "defaults": {
                "string": {"fts_index": off, "string_inverted_index": on},
                "float_list": {"vector_index": {"enabled": false, "config": {}}},
                "sparse_vector": {"sparse_vector_index": {
                    "enabled": false, "config": {"embedding_function": {"type": "unknown"}, "bm25": false}}},
                "int": {"int_inverted_index": on},
                "float": {"float_inverted_index": on},
                "bool": {"bool_inverted_index": on},
            },
            "keys": {
                "#document": {"string": {"fts_index": on, "string_inverted_index": off}},
                "#embedding": {"float_list": {"vector_index": {"enabled": true, "config": {"source_key": "#document"}}}},
            },
        }));
        schema.set_hnsw(hnsw);
        schema.set_embedding_function(embedding_function);
        schema
    }

    /// Completes what a client sent over the defaults.
    ///
    /// # Errors
    /// [`InvalidSchema`] for combinations that a single node does not have or that contradict each other.
    pub fn complete(given: &Json) -> Result<Self, InvalidSchema> {
        refuse_contradictions(given)?;
        let mut document = Arc::unwrap_or_clone(Self::new(&HnswConfiguration::default(), None).document);
        merge(&mut document, given);
        complete_sparse_indexes(&mut document);
        let mut schema = Self::of(document);
        let hnsw = schema.hnsw.clone();
        schema.set_hnsw(&hnsw);
        Ok(schema)
    }

    /// The schema as stored by [`IndexSchema::to_text`].
    ///
    /// # Errors
    /// [`InvalidSchema`] if the text is no JSON object.
    pub fn from_text(text: &str) -> Result<Self, InvalidSchema> {
        let json: Json = serde_json::from_str(text).map_err(|error| InvalidSchema(error.to_string()))?;
        if json.pointer(EMBEDDING).is_none() {
            return Err(InvalidSchema("the stored schema has no configuration for #embedding".into()));
        }
        Ok(Self::of(json))
    }

    /// The text to store.
    pub fn to_text(&self) -> String {
        self.document.to_string()
    }

    /// The document as clients see it.
    pub fn as_json(&self) -> &Json {
        &self.document
    }

    /// Whether this is what a collection created without any schema or configuration has. Clients'
    /// default embedding function does not count: they always send it.
    pub fn is_default(&self) -> bool {
        let mut plain = self.clone();
        if plain
            .embedding_function()
            .is_some_and(|function| function["type"] != "known" || function["name"] == "default")
        {
            plain.set_embedding_function(None);
        }
        plain == Self::new(&HnswConfiguration::default(), None)
    }

    /// The graph's parameters.
    pub const fn hnsw(&self) -> &HnswConfiguration {
        &self.hnsw
    }

    /// Replaces the graph's parameters, in the embedding's index and in the defaults.
    pub fn set_hnsw(&mut self, hnsw: &HnswConfiguration) {
        let document = Arc::make_mut(&mut self.document);
        for pointer in [EMBEDDING, DEFAULT_VECTOR] {
            let Some(config) = document.pointer_mut(pointer) else { continue };
            let parameters = json!({
                "ef_construction": hnsw.ef_construction,
                "max_neighbors": hnsw.max_neighbors,
                "ef_search": hnsw.ef_search,
                "num_threads": hnsw.num_threads,
                "batch_size": hnsw.batch_size,
                "sync_threshold": hnsw.sync_threshold,
                "resize_factor": hnsw.resize_factor,
            });
            let function = config.get("embedding_function").cloned();
            *config = in_order(hnsw.space, function, config.get("source_key").cloned(), parameters);
        }
        self.hnsw = hnsw_of(&self.document);
    }

    /// The embedding function's description, verbatim as the client gave it.
    pub fn embedding_function(&self) -> Option<&Json> {
        self.document.pointer(EMBEDDING)?.get("embedding_function")
    }

    /// Replaces the embedding function's description.
    pub fn set_embedding_function(&mut self, function: Option<&Json>) {
        let document = Arc::make_mut(&mut self.document);
        for pointer in [EMBEDDING, DEFAULT_VECTOR] {
            let Some(config) = document.pointer_mut(pointer) else { continue };
            let space = config["space"].as_str().and_then(Space::from_name).unwrap_or_default();
            *config = in_order(space, function.cloned(), config.get("source_key").cloned(), config["hnsw"].clone());
        }
    }

    /// The attached function that writes the records, if one does.
    pub fn source_function(&self) -> Option<&str> {
        self.document.get("source_attached_function_id")?.as_str()
    }

    /// Says which attached function writes the records.
    pub fn set_source_function(&mut self, id: &str) {
        if let Some(document) = Arc::make_mut(&mut self.document).as_object_mut() {
            document.insert("source_attached_function_id".into(), id.into());
        }
    }

    /// Whether records may be filtered by `key` with operands of this type.
    pub fn is_filterable(&self, key: &str, ty: ValueType) -> bool {
        let Some((kind, index)) = index_of(ty) else { return true };
        let enabled = |types: Option<&Json>| types?.get(kind)?.get(index)?.get("enabled")?.as_bool();
        enabled(self.document["keys"].get(key)).or_else(|| enabled(self.document.get("defaults"))).unwrap_or(true)
    }

    /// The index of sparse vectors under a key, if it has one.
    pub fn sparse_index(&self, key: &str) -> Option<SparseIndex> {
        let index = self.document["keys"].get(key)?.get("sparse_vector")?.get("sparse_vector_index")?;
        let is_bm25 = index["config"]["bm25"].as_bool().unwrap_or(false);
        index["enabled"].as_bool().unwrap_or(false).then_some(SparseIndex { is_bm25 })
    }

    /// The keys whose sparse vectors are indexed.
    pub fn sparse_keys(&self) -> Vec<&str> {
        let keys = self.document["keys"].as_object().into_iter().flat_map(|keys| keys.keys());
        keys.map(String::as_str).filter(|key| self.sparse_index(key).is_some()).collect()
    }

    /// Whether documents may be searched.
    pub const fn is_text_searchable(&self) -> bool {
        self.is_text_searchable
    }

    /// Adds a key that was seen in records, with the indexes its type has by default, a list with those of its
    /// elements; `true` if that changed anything.
    pub fn learn(&mut self, key: &str, ty: ValueType) -> bool {
        let kind = match ty {
            ValueType::Bool | ValueType::Bools => "bool",
            ValueType::Int | ValueType::Ints => "int",
            ValueType::Float | ValueType::Floats => "float",
            ValueType::Str | ValueType::Strs => "string",
            ValueType::Sparse => "sparse_vector",
        };
        if self.document["keys"].get(key).is_some_and(|types| types.get(kind).is_some()) {
            return false;
        }
        let document = Arc::make_mut(&mut self.document);
        let default = document["defaults"][kind].clone();
        if !document["keys"][key].is_object() {
            document["keys"][key] = json!({});
        }
        document["keys"][key][kind] = default;
        true
    }
}

/// The graph's parameters, as a document has them.
fn hnsw_of(document: &Json) -> HnswConfiguration {
    let defaults = HnswConfiguration::default();
    let config = document.pointer(EMBEDDING);
    let number = |name: &str, default: usize| {
        let value = config.and_then(|config| config["hnsw"][name].as_u64());
        value.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    HnswConfiguration {
        space: config.and_then(|config| config["space"].as_str()).and_then(Space::from_name).unwrap_or_default(),
        ef_construction: number("ef_construction", defaults.ef_construction),
        ef_search: number("ef_search", defaults.ef_search),
        max_neighbors: number("max_neighbors", defaults.max_neighbors),
        num_threads: number("num_threads", defaults.num_threads),
        resize_factor: config.and_then(|c| c["hnsw"]["resize_factor"].as_f64()).unwrap_or(defaults.resize_factor),
        sync_threshold: number("sync_threshold", defaults.sync_threshold),
        batch_size: number("batch_size", defaults.batch_size),
    }
}

/// The configuration of a vector index, its members in the order Chroma's server writes them.
fn in_order(space: Space, function: Option<Json>, source_key: Option<Json>, hnsw: Json) -> Json {
    let members = [
        ("space", Some(space.name().into())),
        ("embedding_function", function),
        ("source_key", source_key),
        ("hnsw", Some(hnsw)),
    ];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The names under which a scalar type's index stands in the document.
const fn index_of(ty: ValueType) -> Option<(&'static str, &'static str)> {
    match ty {
        ValueType::Str => Some(("string", "string_inverted_index")),
        ValueType::Int => Some(("int", "int_inverted_index")),
        ValueType::Float => Some(("float", "float_inverted_index")),
        ValueType::Bool => Some(("bool", "bool_inverted_index")),
        _ => None,
    }
}

/// Lays `over` on `base`: objects merge, null leaves the base, anything else replaces.
fn merge(base: &mut Json, over: &Json) {
    match (base, over) {
        (_, Json::Null) => {}
        (Json::Object(base), Json::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(slot) => merge(slot, value),
                    None if value.is_null() => {}
                    None => {
                        base.insert(key.clone(), without_nulls(value));
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Completes the indexes of sparse vectors that keys have with the defaults of their configuration.
fn complete_sparse_indexes(document: &mut Json) {
    let default = document["defaults"]["sparse_vector"]["sparse_vector_index"]["config"].clone();
    let keys = document["keys"].as_object_mut().into_iter().flat_map(|keys| keys.values_mut());
    for index in keys.filter_map(|types| types.get_mut("sparse_vector")?.get_mut("sparse_vector_index")) {
        let Some(index) = index.as_object_mut() else { continue };
        let mut config = default.clone();
        merge(&mut config, index.get("config").unwrap_or(&Json::Null));
        index.insert("config".to_owned(), config);
    }
}

/// The value without members that are null: an absent index, not one of type null.
fn without_nulls(value: &Json) -> Json {
    match value {
        Json::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        value => value.clone(),
    }
}

fn refuse_contradictions(given: &Json) -> Result<(), InvalidSchema> {
    let enabled = |json: &Json| json.get("enabled").and_then(Json::as_bool).unwrap_or(false);
    let invalid = |text: &str| Err(InvalidSchema(format!("Validation error: schema: {text}")));
    let defaults = &given["defaults"];
    if enabled(&defaults["float_list"]["vector_index"]) {
        return invalid("Vector index cannot be enabled by default. It can only be enabled on #embedding field.");
    }
    if enabled(&defaults["sparse_vector"]["sparse_vector_index"]) {
        return invalid("Sparse vector index cannot be enabled by default. Please enable it on specific keys.");
    }
    if enabled(&defaults["string"]["fts_index"]) {
        return invalid(
            "Full text search / regular expression index cannot be enabled by default. It can only be enabled on #document field.",
        );
    }
    if given.get("source_attached_function_id").is_some_and(|id| !id.is_null()) {
        return invalid("source_attached_function_id is reserved and cannot be set.");
    }
    let empty = serde_json::Map::new();
    for (key, types) in given["keys"].as_object().unwrap_or(&empty) {
        if key.starts_with('#') && key != "#document" && key != "#embedding" {
            return invalid(&format!("key '{key}' starts with '#', which is reserved for #document and #embedding"));
        }
        let has = |kind: &str| types.get(kind).is_some_and(|value| !value.is_null());
        if key != "#document" && enabled(&types["string"]["fts_index"]) {
            return invalid("Full text search / regular expression index can only be enabled on #document field.");
        }
        if key != "#embedding" && enabled(&types["float_list"]["vector_index"]) {
            return invalid("Vector index can only be enabled on #embedding field.");
        }
        if key == "#document" && ["float_list", "sparse_vector", "int", "float", "bool"].iter().any(|kind| has(kind)) {
            return invalid("#document can only have string indexes.");
        }
        if key == "#embedding" && ["string", "sparse_vector", "int", "float", "bool"].iter().any(|kind| has(kind)) {
            return invalid("#embedding can only have a float_list index.");
        }
        if key == "#document" && enabled(&types["string"]["string_inverted_index"]) {
            return invalid("String inverted index cannot be enabled on #document field.");
        }
        let vector = &types["float_list"]["vector_index"]["config"];
        if vector["source_key"].as_str().is_some_and(|source| source != "#document") {
            return invalid("Vector index can only source from #document.");
        }
        if key != "#embedding" && !vector["source_key"].is_null() && vector["embedding_function"].is_null() {
            return invalid("source_key can only be set together with an embedding function.");
        }
        if !vector["hnsw"].is_null() && !vector["spann"].is_null() {
            return invalid("hnsw and spann cannot both be set.");
        }
        let sparse = &types["sparse_vector"]["sparse_vector_index"]["config"];
        let has_function = !matches!(sparse["embedding_function"]["type"].as_str(), None | Some("unknown"));
        if !sparse["source_key"].is_null() && !has_function {
            return invalid("source_key can only be set together with an embedding function.");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_the_document_and_its_text() {
        let hnsw = HnswConfiguration { space: Space::Cosine, ef_search: 7, batch_size: 3, ..Default::default() };
        let schema = IndexSchema::new(&hnsw, None);
        assert_eq!(IndexSchema::from_text(&schema.to_text()).unwrap().hnsw(), &hnsw);
    }

    #[test]
    fn keys_are_learned_once_per_type_and_inherit_the_default() {
        let given =
            json!({"defaults": {"string": {"string_inverted_index": {"enabled": false, "config": {}}}}, "keys": {}});
        let mut schema = IndexSchema::complete(&given).unwrap();
        assert!(schema.learn("a", ValueType::Str));
        assert!(!schema.learn("a", ValueType::Str));
        assert!(schema.learn("a", ValueType::Int));
        assert!(!schema.learn("a", ValueType::Ints));
        assert!(schema.learn("tags", ValueType::Strs));
        let off = json!({"enabled": false, "config": {}});
        assert_eq!(
            schema.as_json()["keys"]["tags"],
            json!({"string": {"fts_index": off, "string_inverted_index": off}})
        );
        assert!(!schema.is_filterable("a", ValueType::Str));
        assert!(schema.is_filterable("a", ValueType::Int));
        assert!(!schema.is_filterable("unseen", ValueType::Str));
    }

    #[test]
    fn contradictions_are_refused() {
        let on = json!({"enabled": true, "config": {}});
        for given in [
            json!({"defaults": {"float_list": {"vector_index": on}}, "keys": {}}),
            json!({"defaults": {}, "keys": {"sp": {"sparse_vector": {"sparse_vector_index":
                {"enabled": true, "config": {"source_key": "text"}}}}}}),
            json!({"defaults": {}, "keys": {"#x": {}}}),
            json!({"defaults": {}, "keys": {"a": {"string": {"fts_index": on}}}}),
        ] {
            assert!(IndexSchema::complete(&given).is_err(), "{given}");
        }
        let no_switch = json!({"defaults": {}, "keys": {"a": {"sparse_vector": {"sparse_vector_index": 5}}}});
        assert!(IndexSchema::complete(&no_switch).is_ok_and(|schema| schema.sparse_index("a").is_none()));
    }

    #[test]
    fn copies_share_the_document_until_one_learns_a_key() {
        let schema = IndexSchema::new(&HnswConfiguration::default(), None);
        let mut copy = schema.clone();
        assert!(copy.learn("year", ValueType::Int));
        assert!(!Arc::ptr_eq(&schema.document, &copy.document) && !schema.as_json()["keys"]["year"].is_object());
        let mut next = copy.clone();
        assert!(!next.learn("year", ValueType::Int) && Arc::ptr_eq(&copy.document, &next.document));
        assert_eq!(next.hnsw(), schema.hnsw());
    }
}
