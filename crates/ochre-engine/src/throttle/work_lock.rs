//! Locks of what only one may work on at a time: graphs, and segment files. Whoever waits for one can be stopped.
//!
//! Requests never take them.

use std::time::Duration;

use ochre_scheduler::{Context, Failure, Progress};
use parking_lot::{Mutex, MutexGuard};

/// How long the lock is waited for without a step.
const WAIT: Duration = Duration::from_millis(200);

/// A lock that jobs hold over many steps.
#[derive(Default)]
pub(crate) struct WorkLock(Mutex<()>);

impl WorkLock {
    /// Keeps everybody else from the work; `what` is shown while it is waited for.
    pub(crate) fn hold(&self, context: &Context<'_>, what: &str) -> Result<MutexGuard<'_, ()>, Failure> {
        loop {
            if let Some(guard) = self.0.try_lock_for(WAIT) {
                return Ok(guard);
            }
            context.step(Progress { done: 0, total: None, what: what.to_owned() })?;
        }
    }

    /// As [`WorkLock::hold`], for who cannot be stopped: while the database is closed, or maintained by hand.
    pub(crate) fn hold_patiently(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }
}
