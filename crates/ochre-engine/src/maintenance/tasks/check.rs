//! `check`: reads everything that is stored, against its checksums and itself, and compares what is held in
//! memory with it.

use ochre_scheduler::{Class, Context, Defaults, Failure, Interval, Misfire, Progress, Readiness, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::cron;

pub(crate) struct Check(pub(crate) WeakInner);

impl Task for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn description(&self) -> &'static str {
        "reads everything that is stored against its checksums, and compares memory with it"
    }

    fn defaults(&self) -> Defaults {
        cron("0 5 * * SUN", true, |policies| {
            (policies.class, policies.misfire) = (Class::Idle, Misfire::Latest);
            (policies.timeout, policies.retries) = (Interval(std::time::Duration::from_secs(2 * 3600)), 0);
        })
    }

    fn locks(&self) -> &'static [&'static str] {
        &["segments"]
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        self.0.open().map(|_| Readiness::Ready("it is time".into()))
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let _segments = inner.segments.hold(context, "waiting for a backup")?;
        let mut stopped = None;
        let report = inner.store.scrub(&mut |what, done| {
            let step = context.step(Progress { done, total: None, what: format!("{what} checked") });
            stopped = step.err();
            stopped.is_none()
        })?;
        let Some(report) = report else { return Err(stopped.map_or(Failure::Failed("stopped".into()), Failure::from)) };
        let mut findings: Vec<String> =
            report.findings.iter().map(|finding| format!("{}: {}", finding.file, finding.problem)).collect();
        findings.extend(inner.queries.compare_views()?);
        if !findings.is_empty() {
            return Err(Failure::Failed(format!("found damage: {}", findings.join("; "))));
        }
        Ok(format!(
            "{} collections, {} records and {} vectors are sound",
            report.collections, report.records, report.vectors
        ))
    }
}
