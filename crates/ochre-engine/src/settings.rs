//! What the options of a database come to for what is below it: plain values, without its extensions.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use ochre_scheduler::{JobObserver, SchedulerRegistry};
use serde_json::{Map, Value};

use crate::backup::manifest::BackupTrust;
use crate::backup::target::BackupTargets;

/// The options of an open database; what each means is said at [`Options`](crate::Options).
pub(crate) struct Settings {
    pub(crate) map_segments: bool,
    pub(crate) graph_records_min: usize,
    pub(crate) snapshot_verified_bytes_max: u64,
    pub(crate) exact_records_max: usize,
    pub(crate) text_unindexed_max: usize,
    pub(crate) unindexed_bytes_max: usize,
    pub(crate) unindexed_wait_ms: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) unindexed_filters: UnindexedFilters,
    pub(crate) unindexed_records_max: usize,
    pub(crate) backup_target: Option<String>,
    pub(crate) backup_targets: Arc<BackupTargets>,
    pub(crate) backup_accept_foreign: bool,
    pub(crate) backup_trust: BackupTrust,
    pub(crate) scheduler: String,
    pub(crate) schedulers: Arc<SchedulerRegistry>,
    pub(crate) job_observer: Option<JobObserver>,
    pub(crate) jobs: BTreeMap<String, Map<String, Value>>,
    pub(crate) background: bool,
}

/// What becomes of a filter that no declared index answers, in a collection that is not small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnindexedFilters {
    /// It is answered by scanning columns.
    #[default]
    Allow,
    /// It is answered, and told.
    Warn,
    /// It is refused.
    Deny,
}

impl FromStr for UnindexedFilters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "allow" => Self::Allow,
            "warn" => Self::Warn,
            "deny" => Self::Deny,
            _ => return Err("must be allow, warn or deny".into()),
        })
    }
}
