//! What a server holds in memory.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a server holds in memory, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemoryAnswer {
    /// The process as a whole, as the operating system says; null where it does not.
    pub process: ProcessMemory,
    /// The collections that are loaded.
    pub collections: Vec<CollectionMemory>,
}

/// Memory of the process, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProcessMemory {
    /// All that is resident.
    pub resident: Option<u64>,
    /// Of it, what no file backs.
    pub anonymous: Option<u64>,
    /// Of it, pages of mapped files.
    pub mapped: Option<u64>,
}

/// Memory of a collection.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CollectionMemory {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its database.
    pub database: String,
    /// By part.
    pub bytes: MemoryParts,
}

/// Memory of a collection by part, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemoryParts {
    /// Vectors that are not mapped from files.
    pub vectors: usize,
    /// Quantized vectors.
    pub quantized: usize,
    /// Links of the graph.
    pub links: usize,
    /// Columns of metadata.
    pub columns: usize,
    /// Text segments.
    pub text: usize,
    /// Declared indexes.
    pub indexes: usize,
    /// Where each vector lies.
    pub locations: usize,
    /// The former name of `quantized`.
    pub codes: usize,
    /// The former name of `locations`.
    pub places: usize,
    /// All of it.
    pub total: usize,
}
