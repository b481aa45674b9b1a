//! `memory`: unloads what nobody used for a while, keeps within the limit, and gives memory back.

use ochre_kernels::trim_heap;
use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};
use crate::throttle::host::resident_bytes;

pub(crate) struct MemoryTask(pub(crate) WeakInner);

impl Task for MemoryTask {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn description(&self) -> &'static str {
        "unloads idle collections, keeps memory within its limit, and gives freed memory back"
    }

    fn defaults(&self) -> Defaults {
        every(10, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "idle_unload",
                description: "a collection that no request used for so long is unloaded; the next request reads it again",
                default: SettingValue::Seconds(300),
            },
            Setting {
                name: "idle_unload_graph",
                description: "the same for a collection with a graph, which takes longer to read",
                default: SettingValue::Seconds(3600),
            },
            Setting {
                name: "high_share",
                description: "collections are unloaded, those first that were used longest ago, above this share of the limit",
                default: SettingValue::Share(0.8),
            },
            Setting {
                name: "low_share",
                description: "until this share of the limit is used",
                default: SettingValue::Share(0.7),
            },
        ]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let (resident, limit) = (resident_bytes(), inner.collections.memory_limit());
        let text = format!("{resident} bytes are resident, of at most {limit}");
        let share = resident as f64 / limit.max(1) as f64;
        let is_idle =
            inner.collections.idle_collections(settings.span("idle_unload"), settings.span("idle_unload_graph")) > 0;
        Ok(if share > 0.95 {
            Readiness::Urgent(text)
        } else if share > settings.share("high_share") || is_idle {
            Readiness::Ready(text)
        } else if inner.collections.may_hold_memory() {
            Readiness::Ready("much was freed".into())
        } else {
            Readiness::Idle(text)
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let settings = context.settings();
        let before = resident_bytes();
        context.step(at("idle collections unloaded", 0))?;
        let mut unloaded =
            inner.collections.evict_idle(settings.span("idle_unload"), settings.span("idle_unload_graph"));
        let share = |share: f64| (inner.collections.memory_limit() as f64 * share) as u64;
        if before > share(settings.share("high_share")) {
            context.step(at("collections unloaded", unloaded))?;
            unloaded += inner.collections.evict(share(settings.share("low_share")));
        }
        context.step(at("collections unloaded", unloaded))?;
        inner.collections.mark_trimmed();
        trim_heap();
        let after = resident_bytes();
        Ok(format!("unloaded {unloaded} collections; {before} bytes were resident, {after} are"))
    }
}
