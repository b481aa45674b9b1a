//! `schema-audit`: counts how records stand to the schemas that collections declare.

use std::sync::Arc;

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Task, TaskSettings, Timestamp};
use ochre_schema::Compliance;
use ochre_store::CollectionRow;

use crate::inner::{Inner, WeakInner};
use crate::introspect::validate::{RULE_IDS, ValidationContext, validation_mode};
use crate::maintenance::job::{every, part};
use crate::schemas::{Audit, unix_seconds};

pub(crate) struct SchemaAudit(pub(crate) WeakInner);

impl Task for SchemaAudit {
    fn name(&self) -> &'static str {
        "schema-audit"
    }

    fn description(&self) -> &'static str {
        "counts how records stand to the schemas that collections declare"
    }

    fn defaults(&self) -> Defaults {
        every(300, |policies| policies.class = ochre_scheduler::Class::Idle)
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let due = due(&inner)?.len();
        let text = format!("{due} collections declare a schema and changed since they were audited");
        Ok(if due > 0 { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let (mut validated, mut broken, mut drifted) = (0, 0, Vec::new());
        let rows = due(&inner)?;
        for row in &rows {
            let compliance = audit(&inner, row, context)?;
            validated += compliance.validated;
            broken += compliance.validated - compliance.compliant;
            if compliance.compliant < compliance.validated {
                drifted.push(row.name.clone());
            }
        }
        let drift = if drifted.is_empty() { String::new() } else { format!(": in {}", drifted.join(", ")) };
        Ok(format!("{} collections: {broken} of {validated} records break their schema{drift}", rows.len()))
    }
}

/// The collections whose records or schema changed since they were audited.
fn due(inner: &Inner) -> Result<Vec<CollectionRow>, Failure> {
    let mut rows = inner.store.all_collections()?;
    rows.retain(|row| row.declaration.as_ref().is_some_and(|declaration| declaration.schema.is_some()));
    let reader = inner.store.read()?;
    let mut due = Vec::new();
    for row in rows {
        let position = reader.head(row.number)?.map_or(0, |head| head.position);
        if inner.schemas.audit(&row).is_none_or(|audit| audit.position != position) {
            due.push(row);
        }
    }
    Ok(due)
}

fn audit(inner: &Inner, row: &CollectionRow, context: &Context<'_>) -> Result<Compliance, Failure> {
    let (Some(declaration), Some(schema)) = (&row.declaration, inner.schemas.of(row).map_err(crate::Error::from)?)
    else {
        return Ok(Compliance::default());
    };
    let validating =
        ValidationContext { schema: &schema, mode: validation_mode(declaration.mode()), deadline: None, ids: RULE_IDS };
    let mut compliance = Compliance::default();
    let (mut first, mut chunks, mut done) = (None, 1, 0);
    while done < chunks {
        context.step(part("slices of records validated", done, chunks))?;
        // A state of its own for each slice: an audit must not hold back the write-ahead log.
        let snapshot = inner.collections.snapshot(row)?;
        first.get_or_insert(snapshot.view.position());
        chunks = snapshot.view.live().chunk_count();
        let slice = snapshot.view.live().within(done..done + 1);
        inner.introspection.validate_stored(&snapshot, &slice, &validating, &mut compliance)?;
        done += 1;
    }
    let mut compliance = compliance.finish();
    compliance.position = first.unwrap_or(0);
    compliance.audited_at = Some(Timestamp::from_seconds(unix_seconds()).to_string());
    let position = compliance.position;
    let declaration = Arc::clone(declaration);
    inner.schemas.audited(row.number, Audit { declaration, position, compliance: compliance.clone() });
    Ok(compliance)
}
