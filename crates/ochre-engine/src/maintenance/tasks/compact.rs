//! `compact`: seals vector segments and rewrites those with many dead vectors.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};
use ochre_store::{Statistics, Upkeep, free_bytes};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

/// Dead bytes for which the segment being written is sealed early.
const DEAD_BYTES_MIN: u64 = 1 << 20;

pub(crate) struct Compact(pub(crate) WeakInner);

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn is_due(sizes: &Statistics, dead_share: f64, seal_bytes: u64) -> bool {
    let open_share = share(sizes.open_segment_dead_bytes, sizes.open_segment_bytes);
    sizes.most_dead_share > dead_share
        || sizes.open_segment_bytes >= seal_bytes
        || sizes.open_segment_dead_bytes >= DEAD_BYTES_MIN && open_share > dead_share
}

impl Task for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn description(&self) -> &'static str {
        "rewrites vector segments that hold many dead vectors, regrouped by collection"
    }

    fn defaults(&self) -> Defaults {
        every(10, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "dead_share",
                description: "rewrite a segment once this share of its vectors is dead",
                default: SettingValue::Share(0.3),
            },
            Setting {
                name: "seal_bytes",
                description: "seal the segment being written once it has this many bytes: sealed ones are mapped",
                default: SettingValue::Count(32 << 20),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["segments"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let sizes = self.0.open()?.store.statistics()?;
        let text = format!("{} of {} bytes of vectors are dead", sizes.dead_vector_bytes, sizes.segment_bytes);
        let is_due = is_due(&sizes, settings.share("dead_share"), settings.count("seal_bytes"));
        Ok(if is_due { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let (dead_share, min_bytes) = (context.settings().share("dead_share"), context.settings().count("seal_bytes"));
        let _segments = inner.segments.hold(context, "waiting for a backup")?;
        context.step(at("sealing", 0))?;
        inner.store.upkeep(Upkeep::SealVectors { min_bytes, dead_share_max: dead_share })?;
        let before = inner.store.statistics()?;
        let mut segments = 0;
        loop {
            context.step(at("segments rewritten", segments))?;
            // A rewrite needs as much room as a segment takes, until the old one goes.
            let room = inner.directory.as_deref().and_then(free_bytes);
            if let Some(free) = room.filter(|free| *free < inner.settings.segment_bytes.min(before.segment_bytes)) {
                return Err(Failure::Failed(format!(
                    "{free} bytes are free on the disk, and rewriting a segment takes up to {}: free some space",
                    inner.settings.segment_bytes.min(before.segment_bytes)
                )));
            }
            if !inner.store.upkeep(Upkeep::CompactVectors { dead_share_max: dead_share })? {
                break;
            }
            segments += 1;
            // Views let go of the old files.
            inner.indexing.relocate_moved()?;
        }
        inner.indexing.relocate_moved()?;
        let after = inner.store.statistics()?.segment_bytes;
        Ok(format!("rewrote {segments} segments: {} bytes before, {after} after", before.segment_bytes))
    }
}
