//! What is refused of a batch before anything is looked up.

use ochre_model::{RecordBatch, WriteKind};

use crate::error::Error;

/// The largest dimension of an embedding.
const DIMENSION_MAX: usize = 65_535;

/// What Chroma refuses about the shape of a batch, in its words.
pub(super) fn check(kind: WriteKind, batch: &RecordBatch) -> Result<(), Error> {
    let invalid = |reason: &str| Err(Error::invalid(reason));
    let embeddings_invalid = |reason: &str| Err(Error::invalid_field("embeddings", reason));
    if !batch.is_even() {
        return invalid("Inconsistent number of IDs, embeddings, documents, URIs and metadatas");
    }
    if batch.ids.iter().any(String::is_empty) {
        return invalid("Empty ID, ID must have at least one character");
    }
    match &batch.embeddings {
        None if kind != WriteKind::Update && !batch.ids.is_empty() => {
            return embeddings_invalid("every record needs an embedding");
        }
        Some(embeddings) if embeddings.dimension() > DIMENSION_MAX => {
            return embeddings_invalid(&format!(
                "{} dimensions are more than the limit of {DIMENSION_MAX}",
                embeddings.dimension()
            ));
        }
        Some(embeddings) => {
            if kind != WriteKind::Update
                && (0..embeddings.len()).any(|index| embeddings.row(index).is_none())
                && embeddings.dimension() > 0
            {
                return embeddings_invalid("every record needs an embedding");
            }
            for row in (0..embeddings.len()).filter_map(|index| embeddings.row(index)) {
                if row.is_empty() {
                    return embeddings_invalid("Each embedding must have at least 1 dimension");
                }
                if row.iter().any(|x| !x.is_finite()) {
                    return embeddings_invalid("Embeddings must not contain NaN or Infinity values");
                }
            }
        }
        None => {}
    }
    Ok(())
}
