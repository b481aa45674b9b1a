//! Chroma's JSON shapes, and their way to and from the model.
//!
//! Names of types and fields are Chroma's own where an error text shows them to clients. Shared by the
//! server and (later) the Python module. No I/O.

mod collection;
mod embeddings;
mod filter;
mod metadata;
mod records;
mod response;

pub use collection::{
    Collection, CollectionConfiguration, CreateCollectionPayload, CreateDatabasePayload, CreateOptions,
    CreateTenantPayload, Database, UpdateCollectionPayload, UpdateTenantPayload, create_options, shown_metadata,
};
pub use embeddings::{EmbeddingsPayload, QueryNumber, UpdateEmbeddingsPayload};
pub use filter::{document_filter, metadata_filter};
pub use metadata::{MetadataPayload, MetadataValue, SparseVector, UpdateMetadataValue};
pub use records::{
    AddCollectionRecordsPayload, DeleteCollectionRecordsPayload, ForkCollectionPayload, GetRequestPayload, Include,
    IncludeList, QueryRequestPayload, SearchRequestPayload, UpdateCollectionRecordsPayload,
    UpsertCollectionRecordsPayload,
};
pub use response::{Row, get_response, query_response};

/// Why a request that has the right shape is refused. The texts are Chroma's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Fix the request.
    #[error("{0}")]
    Invalid(String),
    /// Not served yet.
    #[error("{0}")]
    Unimplemented(String),
}
