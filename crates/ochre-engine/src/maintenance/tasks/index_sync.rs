//! `index-sync`: moves new vectors into graphs and new documents into text segments, and refreshes snapshots.

use std::time::Duration;

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};

use crate::indexing::graph::Pending;
use crate::inner::WeakInner;
use crate::maintenance::job::every;

pub(crate) struct IndexSync(pub(crate) WeakInner);

impl Task for IndexSync {
    fn name(&self) -> &'static str {
        crate::collection::dirty::INDEX_SYNC
    }

    fn description(&self) -> &'static str {
        "moves new vectors into graphs and new documents into text segments, and refreshes snapshots"
    }

    fn defaults(&self) -> Defaults {
        every(5, |policies| {
            (policies.priority, policies.jitter) = (10, 0.0);
            policies.max_defer = ochre_scheduler::Interval(Duration::from_secs(60));
        })
    }

    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            name: "unindexed_age",
            description: "vectors wait for more to be moved together at most this long",
            default: SettingValue::Seconds(30),
        }]
    }

    fn renamed_settings(&self) -> &'static [(&'static str, &'static str)] {
        &[("unindexed_age", "tail_age")]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["graphs"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        if inner.collections.dirty.has_moved() {
            return Ok(Readiness::Ready("vectors were moved".into()));
        }
        let (mut waiting, mut due) = (0, Vec::new());
        for (number, since) in inner.collections.dirty.changed() {
            // Taken off the list first: what changes from here on puts it back.
            inner.collections.dirty.clear_dirty(number);
            let pending = inner.indexing.pending(number, since, settings.span("unindexed_age"));
            if !matches!(pending, Pending::Nothing) {
                inner.collections.dirty.put_back(number, since);
            }
            match pending {
                Pending::Nothing => {}
                Pending::Later(vectors) => waiting += vectors,
                Pending::Now(why) => due.push(why),
                Pending::Urgent(why) => return Ok(Readiness::Urgent(why)),
            }
        }
        Ok(match due.pop() {
            Some(why) => Readiness::Ready(why),
            None => Readiness::Idle(format!("{waiting} vectors wait for more")),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let _graphs = inner.indexing.graphs.hold(context, "waiting for other work on graphs")?;
        inner.indexing.relocate_moved()?;
        let (mut collections, mut failed) = (0, None);
        for (number, since) in inner.collections.dirty.changed() {
            if matches!(
                inner.indexing.pending(number, since, context.settings().span("unindexed_age")),
                Pending::Later(_)
            ) {
                continue;
            }
            inner.collections.dirty.clear_dirty(number);
            let synced = inner
                .indexing
                .sync_index(number, false, context)
                .and_then(|()| Ok(inner.indexing.sync_text(number, false)?));
            match synced {
                Ok(()) => collections += 1,
                Err(Failure::Stopped(stop)) => {
                    inner.collections.dirty.mark_dirty(number);
                    return Err(stop.into());
                }
                Err(Failure::Failed(reason)) => {
                    inner.collections.dirty.mark_dirty(number);
                    failed = Some(reason);
                }
            }
        }
        match failed {
            Some(reason) => Err(Failure::Failed(reason)),
            None => Ok(format!("brought {collections} collections up to date")),
        }
    }
}
