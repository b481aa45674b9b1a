//! `index-rebuild`: builds graphs anew, beside those that serve: where many nodes are dead, where parameters
//! changed, where samples find too little.

use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};

use crate::inner::WeakInner;
use crate::maintenance::job::{every, part};

pub(crate) struct IndexRebuild(pub(crate) WeakInner);

impl Task for IndexRebuild {
    fn name(&self) -> &'static str {
        "index-rebuild"
    }

    fn about(&self) -> &'static str {
        "builds graphs anew that decayed or whose parameters changed, beside those that serve"
    }

    fn defaults(&self) -> Defaults {
        every(30, |_| {})
    }

    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob {
                name: "dead_share",
                about: "build a graph anew once this share of its nodes was replaced or deleted",
                default: KnobValue::Share(0.2),
            },
            Knob {
                name: "dead_share_urgent",
                about: "put off no longer once this share of its nodes was replaced or deleted",
                default: KnobValue::Share(0.6),
            },
            Knob {
                name: "recall",
                about: "build a graph anew if a sample of records finds less than this share of its neighbours",
                default: KnobValue::Share(0.8),
            },
            Knob {
                name: "sample",
                about: "records searched for to measure recall, whenever a graph grew by half; 0: never",
                default: KnobValue::Count(20),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["graphs"]
    }

    fn look(&self, knobs: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let decayed = inner.indexing.decayed(knobs.share("dead_share"), knobs.count("sample") > 0);
        Ok(match decayed.first() {
            None => Look::Nothing("no graph has decayed".into()),
            Some(worst) if worst.dead_share > knobs.share("dead_share_urgent") => Look::Urgent(worst.why.clone()),
            Some(worst) => Look::Work(worst.why.clone()),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let knobs = context.knobs();
        let _graphs = inner.indexing.graphs.hold(context, "waiting for other work on graphs")?;
        let decayed = inner.indexing.decayed(knobs.share("dead_share"), knobs.count("sample") > 0);
        let (mut rebuilt, all) = (0, decayed.len());
        for (index, decayed) in decayed.into_iter().enumerate() {
            context.step(part("collections looked at", index, all))?;
            let is_poor = decayed.is_to_be_sampled
                && inner.indexing.recall(decayed.number, knobs.count("sample") as usize, context)?
                    < knobs.share("recall");
            if !decayed.is_to_be_sampled || is_poor {
                inner.indexing.rebuild_index(decayed.number, context)?;
                rebuilt += 1;
            }
        }
        Ok(format!("built {rebuilt} graphs anew"))
    }
}
