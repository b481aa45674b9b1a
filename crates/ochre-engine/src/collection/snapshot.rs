//! A consistent snapshot of a collection: what the store holds and the view of the very same position.

use std::ops::ControlFlow;
use std::sync::Arc;

use ochre_index::View;
use ochre_model::budget;
use ochre_store::{Error as StoreError, Parts, Reader};

use crate::collection::record::{Include, Record, visible};
use crate::error::Error;
use crate::metadata_index::registry::Registry;

/// A store snapshot with the view of the same position.
pub(crate) struct ReadSnapshot<'a> {
    pub(crate) reader: Box<dyn Reader + 'a>,
    pub(crate) view: Arc<View>,
    pub(crate) number: u32,
    /// The declared indexes, which count how often they are used.
    pub(crate) registry: &'a Registry,
}

impl ReadSnapshot<'_> {
    /// Fails if the collection never was at a position, or one of these records was inserted or changed after it.
    pub(crate) fn check_unchanged(&self, offsets: &[u32], since: Option<u64>) -> Result<(), Error> {
        let Some(since) = since else { return Ok(()) };
        if since > self.view.position() {
            return Err(Error::invalid_field(
                "read_token",
                "the collection has not come so far; use the token of a read of it",
            ));
        }
        let mut changed = None;
        self.reader.rows(self.number, offsets, Parts::default(), &mut |row| {
            changed = (row.position > since).then(|| row.id.to_owned());
            if changed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        changed.map_or(Ok(()), |id| {
            Err(Error::Store(StoreError::StaleRead(format!(
                "record '{id}' has been changed since the read that read_token is of: read again without it"
            ))))
        })
    }

    /// Reads these records, which the snapshot has, by ascending offset.
    pub(crate) fn fetch(
        &self, offsets: &[u32], include: Include, visit: &mut dyn FnMut(u32, Record),
    ) -> Result<(), Error> {
        let parts =
            Parts { metadata: include.metadatas, document: include.documents, uri: include.uris || include.metadatas };
        let mut damaged = None;
        let mut seen = 0;
        self.reader.rows(self.number, offsets, parts, &mut |row| {
            seen += 1;
            if let Err(exceeded) = budget::check() {
                damaged = Some(exceeded.into());
                return ControlFlow::Break(());
            }
            let embedding = if include.embeddings {
                match self.view.vector(row.offset) {
                    Ok((vector, _)) => Some(vector.to_vec()),
                    Err(error) => {
                        damaged = Some(Error::Damaged(format!(
                            "the embedding of record '{}' cannot be read: {error}",
                            row.id
                        )));
                        return ControlFlow::Break(());
                    }
                }
            } else {
                None
            };
            let record = Record {
                id: row.id.to_owned(),
                embedding,
                metadata: if include.metadatas { visible(row.metadata, row.uri.is_some()) } else { None },
                document: row.document.map(str::to_owned),
                uri: row.uri.filter(|_| include.uris).map(str::to_owned),
            };
            if let Err(exceeded) = budget::charge(record.answer_bytes()) {
                damaged = Some(exceeded.into());
                return ControlFlow::Break(());
            }
            visit(row.offset, record);
            ControlFlow::Continue(())
        })?;
        match damaged {
            Some(error) => Err(error),
            // The view and the rows are of one position, so this would be a bug or damage, never a race.
            None if seen != offsets.len() => Err(Error::Damaged(format!(
                "{} of {} records are missing from the database",
                offsets.len() - seen,
                offsets.len()
            ))),
            None => Ok(()),
        }
    }
}
