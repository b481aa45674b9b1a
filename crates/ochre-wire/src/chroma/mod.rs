//! Chroma's JSON shapes, and their way to and from the model.
//!
//! Names of types and fields are Chroma's own where an error text shows them to clients.

mod collection;
mod conditional;
mod embeddings;
mod filter;
mod functions;
mod metadata;
mod order;
mod records;
mod response;
mod search;

pub use collection::{
    Collection, CollectionConfiguration, CreateCollectionPayload, CreateDatabasePayload, CreateOptions,
    CreateTenantPayload, Database, ForkCollectionPayload, ForkCountResponse, IndexStatusResponse,
    UpdateCollectionPayload, UpdateTenantPayload, create_options, shown_metadata,
};
pub use conditional::{
    ConditionalCommitPayload, ConditionalCommitResult, ConditionalGetPayload, ConditionalOperation, read_position,
    read_token,
};
pub use embeddings::{EmbeddingsPayload, QueryNumber, UpdateEmbeddingsPayload};
pub use filter::{document_filter, metadata_filter, search_filter};
pub use functions::{
    AttachFunctionRequest, AttachFunctionResponse, AttachedFunctionApiResponse, AttachedFunctionInfo,
    DetachFunctionRequest, DetachFunctionResponse, GetAttachedFunctionResponse,
};
pub use metadata::{MetadataPayload, MetadataValue, SparseVector, UpdateMetadataValue};
pub use order::{Direction, OrderByPayload};
pub use records::{
    AddCollectionRecordsPayload, DeleteCollectionRecordsPayload, GetRequestPayload, Include, IncludeList,
    QueryRequestPayload, UpdateCollectionRecordsPayload, UpsertCollectionRecordsPayload,
};
pub use response::{Row, get_response, query_response, search_response};
pub use search::{ReadLevel, SearchPayload, SearchRequestPayload, Selected};
