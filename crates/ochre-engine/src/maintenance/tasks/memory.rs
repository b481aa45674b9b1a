//! `memory`: unloads what nobody used for a while, keeps within the limit, and gives memory back.

use ochre_kernels::give_back_memory;
use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};
use crate::throttle::host::resident_bytes;

pub(crate) struct MemoryTask(pub(crate) WeakInner);

impl Task for MemoryTask {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn about(&self) -> &'static str {
        "unloads idle collections, keeps memory within its limit, and gives freed memory back"
    }

    fn defaults(&self) -> Defaults {
        every(10, |_| {})
    }

    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob {
                name: "idle_unload",
                about: "a collection that no request used for so long is unloaded; the next request reads it again",
                default: KnobValue::Seconds(300),
            },
            Knob {
                name: "idle_unload_graph",
                about: "the same for a collection with a graph, which takes longer to read",
                default: KnobValue::Seconds(3600),
            },
            Knob {
                name: "high_share",
                about: "collections are unloaded, those first that were used longest ago, above this share of the limit",
                default: KnobValue::Share(0.8),
            },
            Knob { name: "low_share", about: "until this share of the limit is used", default: KnobValue::Share(0.7) },
        ]
    }

    fn look(&self, knobs: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let (resident, limit) = (resident_bytes(), inner.collections.memory_limit());
        let text = format!("{resident} bytes are resident, of at most {limit}");
        let share = resident as f64 / limit.max(1) as f64;
        let is_idle =
            inner.collections.idle_collections(knobs.span("idle_unload"), knobs.span("idle_unload_graph")) > 0;
        Ok(if share > 0.95 {
            Look::Urgent(text)
        } else if share > knobs.share("high_share") || is_idle {
            Look::Work(text)
        } else if inner.collections.may_hold_memory() {
            Look::Work("much was freed".into())
        } else {
            Look::Nothing(text)
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let knobs = context.knobs();
        let before = resident_bytes();
        context.step(at("idle collections unloaded", 0))?;
        let mut unloaded = inner.collections.unload_idle(knobs.span("idle_unload"), knobs.span("idle_unload_graph"));
        let share = |share: f64| (inner.collections.memory_limit() as f64 * share) as u64;
        if before > share(knobs.share("high_share")) {
            context.step(at("collections unloaded", unloaded))?;
            unloaded += inner.collections.make_room(share(knobs.share("low_share")));
        }
        context.step(at("collections unloaded", unloaded))?;
        inner.collections.note_memory_given_back();
        give_back_memory();
        let after = resident_bytes();
        Ok(format!("unloaded {unloaded} collections; {before} bytes were resident, {after} are"))
    }
}
