//! How a database is opened: every option with its default.

use std::collections::BTreeMap;
use std::sync::Arc;

use ochre_scheduler::{JobObserver, SchedulerRegistry};
use ochre_store::{Disk, RealDisk};
use serde_json::{Map, Value};

use crate::backup::manifest::BackupTrust;
use crate::backup::target::BackupTargets;
use crate::extension::StoreExtension;
use crate::metadata_index::extension::metadata_indexes;
use crate::settings::{Settings, UnindexedFilters};

/// How to open a [`Database`](crate::Database).
#[derive(Clone)]
pub struct Options {
    /// Where segment files go; tests put a recording disk here.
    pub disk: Arc<dyn Disk>,
    /// The SQLite VFS; the platform's own if absent.
    pub vfs: Option<String>,
    /// Map sealed vector segments and database pages into memory. Turn it off on network file systems.
    pub map_segments: bool,
    /// Size at which a vector segment is sealed, in bytes; where memory is small, a quarter of the memory limit if that
    /// is less.
    pub segment_bytes: u64,
    /// Collections with fewer records have no graph: measuring all is faster.
    pub graph_records_min: usize,
    /// CacheDir of graphs up to this many bytes are read through before they are used; larger ones are used at once,
    /// and read through in the background.
    pub snapshot_verified_bytes_max: u64,
    /// Up to this many matches of a filter are all compared exactly, without a look at the graph or its codes.
    pub exact_records_max: usize,
    /// Documents that are read when a text is looked for; once there are more, they are indexed.
    pub text_unindexed_max: usize,
    /// Vectors that may wait outside the graph, in bytes; writes wait past it.
    pub unindexed_bytes_max: usize,
    /// How long a write waits for vectors to be indexed before it is refused, in milliseconds.
    pub unindexed_wait_ms: u64,
    /// Bytes of memory that may be resident, mapped files included; 80 % of what the process may use if absent.
    /// Near it collections are unloaded, at it writes wait.
    pub memory_limit: Option<u64>,
    /// The scheduler implementation: one of `schedulers`.
    pub scheduler: String,
    /// The scheduler implementations there are.
    pub schedulers: Arc<SchedulerRegistry>,
    /// Told of jobs that fail, break and recover.
    pub job_observer: Option<JobObserver>,
    /// What differs from the defaults of jobs, by their names, in the form of
    /// [`Scheduler::alter`](ochre_scheduler::Scheduler::alter).
    pub jobs: BTreeMap<String, Map<String, Value>>,
    /// Where backups go: a directory, or a URL of a kind that `backup_targets` knows. None are taken if absent.
    pub backup_target: Option<String>,
    /// The kinds of backup targets there are.
    pub backup_targets: Arc<BackupTargets>,
    /// Take backups although the target holds another database's, whose place this one takes.
    pub backup_accept_foreign: bool,
    /// Which backups there are believed; new ones are signed with its key.
    pub backup_trust: BackupTrust,
    /// Validators that schemas may name.
    pub validators: ochre_schema::Functions,
    /// What becomes of filters that no declared index answers.
    pub unindexed_filters: UnindexedFilters,
    /// In collections of at most so many records they are always answered.
    pub unindexed_records_max: usize,
    /// What extends it, in the order in which they are opened.
    pub extensions: Vec<Arc<dyn StoreExtension>>,
    /// Open a database that has lost what was acknowledged, and go on with what is there; what no longer belongs to it
    /// is kept in its folder `quarantine`. Without, such a database is not opened.
    pub accept_loss: bool,
    /// Run maintenance by itself. Without, call `Database::maintain`.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            vfs: None,
            map_segments: true,
            segment_bytes: 256 << 20,
            graph_records_min: 10_000,
            snapshot_verified_bytes_max: 64 << 20,
            exact_records_max: 64,
            text_unindexed_max: 2000,
            unindexed_bytes_max: 512 << 20,
            unindexed_wait_ms: 30_000,
            memory_limit: None,
            scheduler: "local".into(),
            schedulers: Arc::default(),
            job_observer: None,
            jobs: BTreeMap::new(),
            backup_target: None,
            backup_targets: Arc::default(),
            backup_accept_foreign: false,
            backup_trust: BackupTrust::default(),
            validators: ochre_schema::Functions::default(),
            unindexed_filters: UnindexedFilters::default(),
            unindexed_records_max: 10_000,
            extensions: vec![metadata_indexes()],
            accept_loss: false,
            background: true,
        }
    }
}

impl Options {
    /// Sets a setting of a job.
    #[must_use]
    pub fn setting(mut self, job: &str, setting: &str, value: impl Into<Value>) -> Self {
        let job = self.jobs.entry(job.to_owned()).or_default();
        let settings = job.entry("settings").or_insert_with(|| Value::Object(Map::new()));
        settings[setting] = value.into();
        self
    }

    /// Those of them that are plain values.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            map_segments: self.map_segments,
            graph_records_min: self.graph_records_min,
            snapshot_verified_bytes_max: self.snapshot_verified_bytes_max,
            exact_records_max: self.exact_records_max,
            text_unindexed_max: self.text_unindexed_max,
            unindexed_bytes_max: self.unindexed_bytes_max,
            unindexed_wait_ms: self.unindexed_wait_ms,
            segment_bytes: self.segment_bytes,
            unindexed_filters: self.unindexed_filters,
            unindexed_records_max: self.unindexed_records_max,
            backup_target: self.backup_target.clone(),
            backup_targets: self.backup_targets.clone(),
            backup_accept_foreign: self.backup_accept_foreign,
            backup_trust: self.backup_trust.clone(),
            scheduler: self.scheduler.clone(),
            schedulers: self.schedulers.clone(),
            job_observer: self.job_observer.clone(),
            jobs: self.jobs.clone(),
            background: self.background,
        }
    }
}
