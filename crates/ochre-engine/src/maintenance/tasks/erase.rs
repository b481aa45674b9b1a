//! `erase`: makes sure that what was deleted or replaced is gone from the disk, not only from answers.
//!
//! Freed pages of the database are overwritten as they are freed. What is left is the write-ahead log, which
//! keeps old pages until it is cut, vectors in segments that are not worth compacting, and what caches derived
//! from them: codes in graphs, trigrams in text segments. After a run none of that is left of anything deleted
//! before it began.

use std::collections::HashSet;

use ochre_scheduler::{Clock, Context, Defaults, Failure, Readiness, SystemClock, Task, TaskSettings};
use ochre_store::{CollectionRow, HeldByForks, Upkeep};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every, part};

/// How often the write-ahead log is tried to be cut while readers keep it.
const CUTS_MAX: usize = 10;

pub(crate) struct Erase(pub(crate) WeakInner);

impl Task for Erase {
    fn name(&self) -> &'static str {
        "erase"
    }

    fn description(&self) -> &'static str {
        "removes every trace of deleted and replaced records from files and caches; its interval bounds how long they last"
    }

    fn defaults(&self) -> Defaults {
        every(24 * 3600, |_| {})
    }

    fn locks(&self) -> &'static [&'static str] {
        &["graphs", "segments", "metadata-indexes", "backup"]
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let (sizes, debt) = (inner.store.statistics()?, inner.store.debt()?);
        let text = format!(
            "{} bytes of dead vectors, {} deleted collections, {} bytes of write-ahead log",
            sizes.dead_vector_bytes, debt.deleted_collections, sizes.wal_bytes
        );
        // Records that all forks have deleted count nowhere.
        let is_clean =
            sizes.dead_vector_bytes == 0 && debt.deleted_collections == 0 && sizes.wal_bytes == 0 && !debt.has_forks;
        Ok(if is_clean { Readiness::Idle(text) } else { Readiness::Ready(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let began = SystemClock.now();
        loop {
            context.step(at("sweeping deleted collections", 0))?;
            if !inner.store.upkeep(Upkeep::SweepDeleted)? && !inner.store.upkeep(Upkeep::PurgeUnread)? {
                break;
            }
        }
        let segments = {
            let _segments = inner.segments.hold(context, "waiting for a backup")?;
            if inner.store.statistics()?.open_segment_dead_bytes > 0 {
                inner.store.upkeep(Upkeep::SealVectors { min_bytes: 1, dead_share_max: 1.0 })?;
            }
            let mut segments = 0;
            loop {
                context.step(at("segments rewritten", segments))?;
                if !inner.store.upkeep(Upkeep::CompactVectors { dead_share_max: 0.0 })? {
                    break segments;
                }
                segments += 1;
                inner.indexing.relocate_moved()?;
            }
        };
        let _graphs = inner.indexing.graphs.hold(context, "waiting for other work on graphs")?;
        inner.indexing.relocate_moved()?;
        let (mut seen, mut caches) = (HashSet::new(), 0);
        // A fork that was made meanwhile may have begun with files of before.
        loop {
            let rows: Vec<CollectionRow> =
                inner.store.all_collections()?.into_iter().filter(|row| seen.insert(row.number)).collect();
            if rows.is_empty() {
                break;
            }
            let all = rows.len();
            for (index, row) in rows.into_iter().enumerate() {
                if inner.collections.cache.has(row.id) {
                    context.step(part("collections whose caches were looked at", index, all))?;
                    let had_dead = inner.indexing.erase_caches(&row, context)?;
                    caches += usize::from(inner.metadata_indexes.erase_index_segments(&row, context)? || had_dead);
                }
            }
        }
        for cut in 0.. {
            context.step(at("cutting the write-ahead log", cut))?;
            inner.store.upkeep(Upkeep::Checkpoint { truncate: true })?;
            if inner.store.statistics()?.wal_bytes == 0 {
                break;
            }
            if cut == CUTS_MAX {
                return Err(Failure::Failed("the write-ahead log is in use by long reads and could not be cut".into()));
            }
        }
        let held: String = inner.store.held_by_forks()?.iter().map(still_held).collect();
        Ok(format!(
            "what was deleted before {began} is gone from the disk: rewrote {segments} segments and the caches of {caches} collections{held}"
        ))
    }
}

/// What was deleted from a collection and is there still, since its forks or its source have it.
fn still_held(held: &HeldByForks) -> String {
    let HeldByForks { collection, records, forks } = held;
    format!("; not gone: {records} records of '{collection}', which '{}' still has", forks.join("', '"))
}
