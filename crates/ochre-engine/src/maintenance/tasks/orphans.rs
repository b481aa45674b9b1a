//! `orphans`: removes derived files that belong to nothing.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, cron};

pub(crate) struct Orphans(pub(crate) WeakInner);

impl Task for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn description(&self) -> &'static str {
        "removes derived files of collections that are no more, and files whose writing was cut short"
    }

    fn defaults(&self) -> Defaults {
        cron("30 3 * * *", true, |policies| policies.class = ochre_scheduler::Class::Normal)
    }

    fn locks(&self) -> &'static [&'static str] {
        &["graphs", "metadata-indexes"]
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let orphaned_files = self.0.open()?.collections.count_orphaned_files();
        let text = format!("{orphaned_files} derived files belong to nothing");
        Ok(if orphaned_files > 0 { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        context.step(at("removing", 0))?;
        let _graphs = inner.indexing.graphs.hold(context, "waiting for other work on graphs")?;
        Ok(format!("removed {} files and folders", inner.collections.remove_orphaned_files()))
    }
}
