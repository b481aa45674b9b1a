//! An open database, wired together: who owns what. Arrows go down: `Inner` knows its owners, none of them knows
//! `Inner`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use ochre_scheduler::{Failure, JobStore, Scheduler, Stop};
use ochre_store::{Disk, ExtensionTables, Store};
use parking_lot::Mutex;

use crate::backup::state::Backups;
use crate::cache_dir::CacheDir;
use crate::catalog::Catalog;
use crate::collection::Collections;
use crate::collection::dirty::DirtySet;
use crate::collection::eviction::MemoryBudget;
use crate::functions::Functions;
use crate::indexing::Indexing;
use crate::introspect::Introspection;
use crate::metadata_index::MetadataIndexes;
use crate::query::Queries;
use crate::schemas::Schemas;
use crate::settings::Settings;
use crate::throttle::admission::AdmissionControl;
use crate::throttle::load_monitor::LoadMonitor;
use crate::throttle::work_lock::WorkLock;
use crate::write::Writes;

/// What handles and jobs share.
pub(crate) struct Inner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) collections: Arc<Collections>,
    pub(crate) queries: Arc<Queries>,
    pub(crate) writes: Arc<Writes>,
    pub(crate) indexing: Indexing,
    pub(crate) metadata_indexes: MetadataIndexes,
    pub(crate) functions: Functions,
    pub(crate) introspection: Introspection,
    pub(crate) backups: Backups,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) admission: Arc<AdmissionControl>,
    pub(crate) segments: Arc<WorkLock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) directory: Option<PathBuf>,
    /// Tables of extensions, and those that are kept beside them.
    pub(crate) tables: Mutex<Vec<ExtensionTables>>,
    /// Where jobs are kept, if they are.
    jobs: Option<Arc<dyn JobStore>>,
    /// What runs jobs; set before anybody has the database.
    scheduler: OnceLock<Arc<dyn Scheduler>>,
}

impl Inner {
    /// Wires the owners of a database together.
    pub(crate) fn new(
        store: Arc<dyn Store>, disk: &Arc<dyn Disk>, jobs: Option<Arc<dyn JobStore>>, directory: Option<&Path>,
        settings: Settings, memory: MemoryBudget, schemas: Schemas,
    ) -> Self {
        let (settings, schemas) = (Arc::new(settings), Arc::new(schemas));
        let (monitor, dirty) = (Arc::new(LoadMonitor::default()), Arc::new(DirtySet::default()));
        let directory = directory.map(Path::to_owned);
        let admission = Arc::new(AdmissionControl::new(
            Arc::clone(&monitor),
            memory.limit(),
            Arc::clone(&store),
            directory.clone(),
        ));
        let cache = Arc::new(CacheDir::new(directory.as_deref(), disk, &settings, memory.limit()));
        let catalog = Arc::new(Catalog::new(Arc::clone(&store), Arc::clone(&schemas)));
        let collections = Collections::new(Arc::clone(&catalog), Arc::clone(&settings), cache, dirty, memory);
        let collections = Arc::new(collections);
        let queries = Arc::new(Queries::new(&collections, Arc::clone(&monitor)));
        let writes = Arc::new(Writes::new(&queries, Arc::clone(&monitor)));
        let segments = Arc::new(WorkLock::default());
        Self {
            indexing: Indexing::new(&collections, Arc::clone(&admission)),
            metadata_indexes: MetadataIndexes::new(&collections),
            functions: Functions::new(&collections, &writes),
            writes,
            introspection: Introspection::new(&queries, monitor),
            backups: Backups::new(&store, &settings, directory.clone(), Arc::clone(&segments)),
            catalog,
            collections,
            queries,
            schemas,
            admission,
            segments,
            store,
            settings,
            directory,
            tables: Mutex::default(),
            jobs,
            scheduler: OnceLock::new(),
        }
    }

    /// Lets `scheduler` run the jobs. Called once.
    pub(crate) fn connect(&self, scheduler: &Arc<dyn Scheduler>) {
        let _ = self.scheduler.set(Arc::clone(scheduler));
        self.collections.dirty.connect(Arc::downgrade(scheduler));
    }

    /// What runs the jobs.
    ///
    /// # Panics
    /// Never: it is there before anybody has the database.
    pub(crate) fn scheduler(&self) -> &dyn Scheduler {
        &**self.scheduler.get().expect("set when the database was opened")
    }

    /// Where jobs are kept, if they are.
    pub(crate) fn jobs(&self) -> Option<&Arc<dyn JobStore>> {
        self.jobs.as_ref()
    }

    /// Writes what makes the next opening fast.
    pub(crate) fn write_before_closing(&self) {
        self.indexing.write_snapshots();
        if let Err(error) = self.metadata_indexes.save_usage() {
            tracing::warn!(%error, "could not keep how often metadata indexes were used");
        }
    }
}

/// How a job reaches the database, which may be closing.
#[derive(Clone)]
pub(crate) struct WeakInner(pub(crate) Weak<Inner>);

impl WeakInner {
    /// The database, for as long as one step takes: it does not close meanwhile.
    pub(crate) fn open(&self) -> Result<Arc<Inner>, Failure> {
        self.0.upgrade().ok_or(Failure::Stopped(Stop::Closing))
    }
}
