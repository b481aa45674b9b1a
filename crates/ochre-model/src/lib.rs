//! What the database talks about: names, values, records, filters and configuration.
//!
//! Everything here is parsed once and then trusted: a `Filter` that exists is well-formed, an
//! `Embeddings` holds only finite numbers of one dimension. No I/O, no clock, no locks.
//!
//! Not here: JSON bodies of the HTTP API (`ochre-wire`), how anything is stored (`ochre-store`).

mod batch;
pub mod budget;
mod declaration;
mod filter;
mod name;
mod number;
mod order;
mod rank;
mod schema;
mod space;
mod sparse;
mod text_analyzer;
mod value;

pub use batch::{Embeddings, RecordBatch, WriteKind, norm};
pub use declaration::{
    Declaration, DeclarationChange, SCHEMA_KEY, VALIDATING_PARTY_KEY, VALIDATION_TYPE_KEY, ValidatingParty,
    ValidationType,
};
pub use filter::{DocumentTest, Filter, Scalar, Test};
pub use name::{InvalidName, check_collection_name, check_database_name, check_tenant_name};
pub use number::compare_int_float;
pub use order::{Cursor, OrderBy, OrderKey, order_value, order_values};
pub use rank::{GroupBy, GroupOrder, Knn, KnnQuery, Rank};
pub use schema::{HnswConfiguration, IndexSchema, InvalidSchema, SparseIndex};
pub use space::Space;
pub use sparse::{InvalidSparseVector, SparseVector};
pub use text_analyzer::{InvalidTextAnalyzer, Language, StopWords, TEXT_ANALYZER_KEY, TextAnalyzer};
pub use value::{InvalidMetadata, Metadata, MetadataPatch, NotAValue, Value, ValueType, check_key};

/// The metadata key that stands for a record's document when a client writes or filters by it.
pub const DOCUMENT_KEY: &str = "chroma:document";
/// The metadata key that stands for a record's URI when a client writes it.
pub const URI_KEY: &str = "chroma:uri";
/// Keys with this prefix are stored and filterable, but never returned.
pub const HIDDEN_PREFIX: &str = "chroma:";
