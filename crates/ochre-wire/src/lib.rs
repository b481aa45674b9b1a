//! JSON shapes: Chroma's, with their way to and from the model, and those of the administration of Ochre.
//!
//! Shared by the server and its clients. No I/O.

pub mod admin;
mod chroma;

pub use chroma::*;

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
