//! Who may go on: asked before every step of every job.

use std::time::Duration;

use crate::policy::Class;

/// The answer to whether a step may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// Not yet: ask again after this.
    Wait(Duration),
}

/// Decides when maintenance may work, so that whatever else goes on comes first.
pub trait Governor: Send + Sync {
    /// Called on a run's own thread before it begins: the place to lower its priority.
    fn begin(&self, class: Class) {
        let _ = class;
    }

    /// Whether runs that are not urgent get next to nothing: those that have waited for long are started over as
    /// more urgent ones.
    fn is_crowded(&self) -> bool {
        false
    }

    /// Whether a step of this class may begin; it has waited for `waited`.
    fn admit(&self, class: Class, waited: Duration) -> Admission;

    /// A step took this long; how long to pause before the next.
    fn pause(&self, class: Class, took: Duration) -> Duration;
}

/// Lets everything go on at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGovernor;

impl Governor for NoGovernor {
    fn admit(&self, _: Class, _: Duration) -> Admission {
        Admission::Go
    }

    fn pause(&self, _: Class, _: Duration) -> Duration {
        Duration::ZERO
    }
}
