//! Validates records by a schema: those that are stored, or a batch that might be.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use ochre_index::Bitmap;
use ochre_model::{Metadata, ValidationType, budget};
use ochre_schema::{Compliance, MetadataSchema, Subject, prepare, violations};
use ochre_store::{CollectionRow, Parts};
use serde_json::Value as Json;

use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;
use crate::introspect::Introspection;

/// Records validated between two looks at the clock.
const VALIDATED_AT_ONCE: usize = 1000;
/// Ids listed with each broken rule.
pub(crate) const RULE_IDS: usize = 20;

/// What to validate by what.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// The schema, as it would be declared; the declared one if absent.
    pub schema: Option<Json>,
    /// How strictly; as declared if absent.
    pub mode: Option<ValidationType>,
    /// A batch that is not stored; the stored records if absent.
    pub batch: Option<Vec<Candidate>>,
}

/// A record that might be written.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Candidate {
    pub id: String,
    pub metadata: Option<Metadata>,
    pub document: Option<String>,
}

impl Introspection {
    /// Validates stored records, or a batch, by a schema.
    pub(crate) fn validate(&self, row: &CollectionRow, validation: &Validation) -> Result<Compliance, Error> {
        let _request = self.monitor.enter();
        let schema = match &validation.schema {
            Some(written) => Arc::new(self.schemas.parse(written)?),
            None => self.schemas.of(row)?.ok_or_else(|| {
                Error::invalid(format!("collection '{}' declares no schema; give one to validate by", row.name))
            })?,
        };
        let declared = row.declaration.as_ref().filter(|declared| declared.schema.is_some());
        let declared = declared.map_or(ValidationType::Strict, |declared| declared.mode());
        let mode = validation_mode(validation.mode.unwrap_or(declared));
        if let Some(batch) = &validation.batch {
            let mut compliance = Compliance::default();
            for Candidate { id, metadata, document } in batch {
                budget::check()?;
                let mut metadata = metadata.clone();
                prepare(&schema, mode, true, &mut metadata);
                let subject =
                    Subject { id, metadata: metadata.as_ref(), document: document.as_deref(), embedding: None };
                compliance.count(id, &violations(&schema, mode, self.schemas.functions(), &subject), RULE_IDS);
            }
            return Ok(compliance.finish());
        }
        let snapshot = self.collections.snapshot(row)?;
        let validating = ValidationContext { schema: &schema, mode, deadline: None, ids: RULE_IDS };
        let mut compliance = Compliance::at(snapshot.view.position());
        self.validate_stored(&snapshot, snapshot.view.live(), &validating, &mut compliance)?;
        Ok(compliance.finish())
    }

    /// Validates the records at these offsets, and adds them up in `compliance`.
    pub(crate) fn validate_stored(
        &self, snapshot: &ReadSnapshot<'_>, offsets: &Bitmap, validating: &ValidationContext<'_>,
        compliance: &mut Compliance,
    ) -> Result<(), Error> {
        let offsets: Vec<u32> = offsets.iter().collect();
        let parts = Parts { metadata: true, document: validating.schema.looks_beyond_metadata(), uri: false };
        let mut damaged = None;
        for offsets in offsets.chunks(VALIDATED_AT_ONCE) {
            budget::check()?;
            if validating.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                break;
            }
            snapshot.reader.rows(snapshot.number, offsets, parts, &mut |row| {
                let metadata = match row.metadata.map(Metadata::from_text).transpose() {
                    Ok(metadata) => metadata,
                    Err(error) => {
                        damaged = Some(Error::Damaged(format!("record '{}': {error}", row.id)));
                        return ControlFlow::Break(());
                    }
                };
                let embedding =
                    validating.schema.embedding.as_ref().and_then(|_| snapshot.view.vector(row.offset).ok());
                let subject = Subject {
                    id: row.id,
                    metadata: metadata.as_ref(),
                    document: row.document,
                    embedding: embedding.map(|(vector, _)| vector),
                };
                let found = violations(validating.schema, validating.mode, self.schemas.functions(), &subject);
                compliance.count(row.id, &found, validating.ids);
                ControlFlow::Continue(())
            })?;
        }
        damaged.map_or(Ok(()), Err)
    }
}

/// By what records are validated, and how long.
pub(crate) struct ValidationContext<'a> {
    pub(crate) schema: &'a MetadataSchema,
    pub(crate) mode: ValidationType,
    pub(crate) deadline: Option<Instant>,
    pub(crate) ids: usize,
}

/// The mode whose rules say whether records comply: where nothing is enforced, undeclared keys are no fault.
pub(crate) fn validation_mode(mode: ValidationType) -> ValidationType {
    if mode == ValidationType::None { ValidationType::Lax } else { mode }
}
