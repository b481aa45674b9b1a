//! What is known of the backups that were taken, and of the target they go to.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ochre_scheduler::{Failure, Timestamp};
use ochre_store::Store;
use parking_lot::Mutex;

use crate::backup::folders::database_text;
use crate::backup::manifest::Manifest;
use crate::backup::repository::Repository;
use crate::settings::Settings;
use crate::throttle::work_lock::WorkLock;

/// Whoever takes backups, and what is known of those that were taken.
pub(crate) struct Backups {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Arc<Settings>,
    pub(super) directory: Option<PathBuf>,
    pub(super) segments: Arc<WorkLock>,
    /// The backups at the configured target, once it was opened.
    pub(super) repository: OnceLock<Repository>,
    /// Held while a backup is taken: there is one place to prepare one.
    pub(super) alone: Mutex<()>,
    /// Shared with the thread that examines the target.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    last_taken: Option<Timestamp>,
    /// Why none can be taken to the target.
    problem: Option<String>,
    /// Whether the target was looked at, or a backup taken.
    is_examined: bool,
}

impl Backups {
    pub(crate) fn new(
        store: &Arc<dyn Store>, settings: &Arc<Settings>, directory: Option<PathBuf>, segments: Arc<WorkLock>,
    ) -> Self {
        let (store, settings) = (Arc::clone(store), Arc::clone(settings));
        Self {
            store,
            settings,
            directory,
            segments,
            repository: OnceLock::new(),
            alone: Mutex::default(),
            state: Arc::default(),
        }
    }

    /// Notes that a backup was taken.
    pub(super) fn note_taken(&self, at: Timestamp) {
        *self.state.lock() = State { last_taken: Some(at), problem: None, is_examined: true };
    }

    /// When the last one was taken that can be read.
    pub(crate) fn last_taken(&self) -> Option<Timestamp> {
        self.state.lock().last_taken
    }

    /// Why none can be taken to the target, as far as is known.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }
}

impl Backups {
    /// The backups at the configured target.
    pub(crate) fn repository(&self) -> Result<&Repository, Failure> {
        if let Some(repository) = self.repository.get() {
            return Ok(repository);
        }
        let target = self.settings.backup_target.as_deref().filter(|target| !target.is_empty());
        let Some(target) = target else {
            return Err(Failure::Failed("no target is configured: set `target` in the section [backup]".into()));
        };
        let trust = self.settings.backup_trust.clone();
        let repository = Repository::new(self.settings.backup_targets.open(target)?).trusting(trust);
        Ok(self.repository.get_or_init(|| repository))
    }

    /// Fails if the last backup at a target is another database's: this one would go on with its history.
    pub(super) fn check_target(&self, repository: &Repository, manifests: &[Manifest]) -> Result<(), Failure> {
        let own = database_text(self.store.database_id()?);
        if self.settings.backup_accept_foreign { Ok(()) } else { check_owner(&own, repository, manifests) }
    }

    /// Looks whether backups can be taken to the target, if one is configured, on a thread of its own: it may be far
    /// away. What is wrong is logged, and told of the jobs. The database can be closed meanwhile.
    pub(crate) fn examine_target(&self) {
        let options = &self.settings;
        let Some(target) = options.backup_target.clone().filter(|target| !target.is_empty()) else { return };
        let (targets, trust) = (Arc::clone(&options.backup_targets), options.backup_trust.clone());
        let (own, accepts_foreign) = (self.store.database_id().map(database_text), options.backup_accept_foreign);
        let examine = move || -> Result<Option<Timestamp>, Failure> {
            let own = own?;
            let repository = Repository::new(targets.open(&target)?).trusting(trust);
            let (manifests, faults) = repository.manifests()?;
            if let Some(fault) = faults.0.first() {
                tracing::warn!(fault, "a backup cannot be read");
            }
            if !accepts_foreign {
                check_owner(&own, &repository, &manifests)?;
            }
            repository.try_writing(&own)?;
            Ok(manifests.last().and_then(|last| last.taken_at.parse().ok()))
        };
        let weak = Arc::downgrade(&self.state);
        let note = move || {
            let examined = examine();
            let problem = match &examined {
                Err(Failure::Failed(problem)) => Some(problem.clone()),
                _ => None,
            };
            if let Some(problem) = &problem {
                tracing::warn!(problem, "backups cannot be taken");
            }
            let Some(state) = weak.upgrade() else { return };
            let mut state = state.lock();
            if !state.is_examined {
                *state = State { last_taken: examined.ok().flatten(), problem, is_examined: true };
            }
        };
        if let Err(error) = std::thread::Builder::new().name("ochre-backup-target".into()).spawn(note) {
            tracing::warn!(%error, "could not look whether backups can be taken");
        }
    }
}

/// Fails if the last backup at a target is not of this database.
fn check_owner(own: &str, repository: &Repository, manifests: &[Manifest]) -> Result<(), Failure> {
    let Some(last) = manifests.last() else { return Ok(()) };
    match &last.database {
        Some(other) if *other != own => Err(Failure::Failed(format!(
            "{} holds backups of another database ({other}, and this one is {own}; the last is {}): choose another target, or set backup.accept_foreign if this database takes its place, as after a restore",
            repository.describe(),
            last.id
        ))),
        _ => Ok(()),
    }
}
