//! `index-rebuild`: rebuilds graphs, beside those that serve: where many nodes are dead, where parameters
//! changed, where samples find too little.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::{every, part};

pub(crate) struct IndexRebuild(pub(crate) WeakInner);

impl Task for IndexRebuild {
    fn name(&self) -> &'static str {
        "index-rebuild"
    }

    fn description(&self) -> &'static str {
        "rebuilds graphs that decayed or whose parameters changed, beside those that serve"
    }

    fn defaults(&self) -> Defaults {
        every(30, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "dead_share",
                description: "rebuild a graph once this share of its nodes was replaced or deleted",
                default: SettingValue::Share(0.2),
            },
            Setting {
                name: "dead_share_urgent",
                description: "put off no longer once this share of its nodes was replaced or deleted",
                default: SettingValue::Share(0.6),
            },
            Setting {
                name: "recall",
                description: "rebuild a graph if a sample of records finds less than this share of its neighbours",
                default: SettingValue::Share(0.8),
            },
            Setting {
                name: "sample",
                description: "records searched for to measure recall, whenever a graph grew by half; 0: never",
                default: SettingValue::Count(20),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["graphs"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let rebuild_candidates =
            inner.indexing.rebuild_candidates(settings.share("dead_share"), settings.count("sample") > 0);
        Ok(match rebuild_candidates.first() {
            None => Readiness::Idle("no graph has decayed".into()),
            Some(worst) if worst.dead_share > settings.share("dead_share_urgent") => {
                Readiness::Urgent(worst.why.clone())
            }
            Some(worst) => Readiness::Ready(worst.why.clone()),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let settings = context.settings();
        let _graphs = inner.indexing.graphs.hold(context, "waiting for other work on graphs")?;
        let rebuild_candidates =
            inner.indexing.rebuild_candidates(settings.share("dead_share"), settings.count("sample") > 0);
        let (mut rebuilt, all) = (0, rebuild_candidates.len());
        for (index, rebuild_candidates) in rebuild_candidates.into_iter().enumerate() {
            context.step(part("collections looked at", index, all))?;
            let is_poor = rebuild_candidates.is_to_be_sampled
                && inner.indexing.recall(rebuild_candidates.number, settings.count("sample") as usize, context)?
                    < settings.share("recall");
            if !rebuild_candidates.is_to_be_sampled || is_poor {
                inner.indexing.rebuild_index(rebuild_candidates.number, context)?;
                rebuilt += 1;
            }
        }
        Ok(format!("rebuilt {rebuilt} graphs"))
    }
}
