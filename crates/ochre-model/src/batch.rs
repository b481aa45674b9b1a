//! What a client sends to be written: ids with embeddings, metadata, documents and URIs beside them.

use crate::value::{MetadataPatch, Value};
use crate::{DOCUMENT_KEY, URI_KEY};

/// The Euclidean norm of a vector, summed in double precision: what cosine distances divide by.
pub fn norm(vector: &[f32]) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    norm
}

/// Which of the three record-carrying writes a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// New ids are inserted; existing ones are left as they are, silently.
    Add,
    /// Existing records are changed; unknown ids are skipped, silently.
    Update,
    /// Existing records are changed, unknown ids are inserted.
    Upsert,
}

/// Embeddings for a batch, row-major: `rows × dimension` finite floats. A row may be absent (an update
/// that leaves it as it is).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    dimension: usize,
    values: Vec<f32>,
    /// For each record the row in `values`, or `None`; empty when every record has its row in order.
    rows: Option<Vec<Option<u32>>>,
    count: usize,
}

impl Embeddings {
    /// One row per record, `values.len() / dimension` of them.
    ///
    /// The caller has checked that every value is finite and that the length is a multiple of
    /// `dimension`.
    pub fn from_rows(dimension: usize, values: Vec<f32>) -> Self {
        let count = values.len().checked_div(dimension).unwrap_or(0);
        debug_assert_eq!(count * dimension, values.len(), "rows of one dimension");
        Self { dimension, values, rows: None, count }
    }

    /// Rows for some of the records: `present[i]` says whether record `i` has the next row.
    pub fn from_some_rows(dimension: usize, values: Vec<f32>, present: &[bool]) -> Self {
        let mut next = 0;
        let rows = present.iter().map(|present| {
            present.then(|| {
                next += 1;
                next - 1
            })
        });
        let rows: Vec<_> = rows.collect();
        Self { dimension, values, count: rows.len(), rows: Some(rows) }
    }

    /// The number of floats in each row; 0 when there is no row at all.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How many records this speaks of, rows present or not.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it speaks of no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The embedding of record `index`, if it has one.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let row = match &self.rows {
            Some(rows) => (*rows.get(index)?)? as usize,
            None if index < self.count => index,
            None => return None,
        };
        self.values.get(row * self.dimension..(row + 1) * self.dimension)
    }
}

/// The records of one add, update or upsert. Each part is absent or as long as `ids`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordBatch {
    /// One id per record; not empty strings. The same id may stand here twice.
    pub ids: Vec<String>,
    /// Required for add and upsert.
    pub embeddings: Option<Embeddings>,
    /// Metadata to set and keys to remove; a record may have none.
    pub metadatas: Option<Vec<Option<MetadataPatch>>>,
    /// Documents; a record may have none. `None` never removes one.
    pub documents: Option<Vec<Option<String>>>,
    /// URIs; as documents.
    pub uris: Option<Vec<Option<String>>>,
}

impl RecordBatch {
    /// Whether every part that is present is as long as `ids`.
    pub fn is_even(&self) -> bool {
        let count = self.ids.len();
        self.embeddings.as_ref().is_none_or(|part| part.len() == count)
            && self.metadatas.as_ref().is_none_or(|part| part.len() == count)
            && self.documents.as_ref().is_none_or(|part| part.len() == count)
            && self.uris.as_ref().is_none_or(|part| part.len() == count)
    }

    /// Moves what metadata says about documents and URIs (`chroma:document`, `chroma:uri`) to where it
    /// belongs, unless that says something itself. A value that is no string is dropped; null means absent.
    pub fn lift_reserved_keys(&mut self) {
        let count = self.ids.len();
        for (key, column) in [(DOCUMENT_KEY, &mut self.documents), (URI_KEY, &mut self.uris)] {
            for (index, patch) in self.metadatas.iter_mut().flatten().enumerate() {
                if let Some(Some(Value::Str(text))) = patch.as_mut().and_then(|patch| patch.take(key)) {
                    column.get_or_insert_with(|| vec![None; count])[index].get_or_insert(text);
                }
            }
        }
    }

    /// The metadata patch of record `index`.
    pub fn metadata(&self, index: usize) -> Option<&MetadataPatch> {
        self.metadatas.as_ref()?.get(index)?.as_ref()
    }

    /// The document of record `index`.
    pub fn document(&self, index: usize) -> Option<&str> {
        self.documents.as_ref()?.get(index)?.as_deref()
    }

    /// The URI of record `index`.
    pub fn uri(&self, index: usize) -> Option<&str> {
        self.uris.as_ref()?.get(index)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_says_itself_wins_over_its_metadata() {
        let said = |text: &str| -> MetadataPatch {
            let value = |text: String| Some(Value::Str(text));
            let pairs = [(DOCUMENT_KEY.into(), value(text.into())), (URI_KEY.into(), value(format!("of {text}")))];
            MetadataPatch::parse(pairs).unwrap()
        };
        let mut batch = RecordBatch {
            ids: vec!["a".into(), "b".into()],
            documents: Some(vec![Some("own".into()), None]),
            metadatas: Some(vec![Some(said("x")), Some(said("y"))]),
            ..RecordBatch::default()
        };
        batch.lift_reserved_keys();
        assert_eq!((batch.document(0), batch.document(1)), (Some("own"), Some("y")));
        assert_eq!((batch.uri(0), batch.uri(1)), (Some("of x"), Some("of y")));
        assert!((0..2).all(|index| batch.metadata(index).is_some_and(|patch| patch.iter().next().is_none())));
    }

    #[test]
    fn rows_are_found_whether_all_or_some_are_present() {
        let all = Embeddings::from_rows(2, vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!((all.row(1), all.row(2)), (Some(&[3.0, 4.0][..]), None));
        let some = Embeddings::from_some_rows(2, vec![1.0, 2.0], &[false, true]);
        assert_eq!((some.len(), some.row(0), some.row(1)), (2, None, Some(&[1.0, 2.0][..])));
    }
}
