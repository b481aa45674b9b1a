//! What a run has: its settings, and the place where it gives way, is stopped, and reports how far it is.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::governor::{Admission, Governor, NoGovernor};
use crate::policy::Class;
use crate::store::Progress;
use crate::task::{Stop, TaskSettings};

/// No wait for the governor is longer than this without a look around.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a run has.
pub struct Context<'a> {
    settings: &'a TaskSettings,
    class: Class,
    max_defer: Duration,
    governor: &'a dyn Governor,
    control: Arc<Control>,
    /// Renews the lease, and says why the run has to stop.
    renew_lease: &'a dyn Fn(&Control) -> Option<Stop>,
    began: Instant,
    step_began: Cell<Option<Instant>>,
}

/// What the scheduler and a run share.
pub(crate) struct Control {
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    stop: Option<Stop>,
    progress: Option<Progress>,
    last_step: Instant,
    /// Waits for the governor.
    is_waiting: bool,
}

impl Control {
    pub(crate) fn new() -> Self {
        let state = State { stop: None, progress: None, last_step: Instant::now(), is_waiting: false };
        Self { state: Mutex::new(state), woken: Condvar::new() }
    }

    /// Tells the run to stop at its next step; the first reason counts.
    pub(crate) fn stop(&self, reason: Stop) {
        self.state.lock().stop.get_or_insert(reason);
        self.woken.notify_all();
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.state.lock().progress.clone()
    }

    /// How long ago the last step began; nothing while the governor makes it wait.
    pub(crate) fn silence(&self) -> Duration {
        let state = self.state.lock();
        if state.is_waiting { Duration::ZERO } else { state.last_step.elapsed() }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.state.lock().is_waiting
    }

    fn wait(&self, duration: Duration) {
        let mut state = self.state.lock();
        if state.stop.is_none() {
            self.woken.wait_for(&mut state, duration);
        }
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        settings: &'a TaskSettings, class: Class, max_defer: Duration, governor: &'a dyn Governor,
        control: Arc<Control>, renew_lease: &'a dyn Fn(&Control) -> Option<Stop>,
    ) -> Self {
        Self {
            settings,
            class,
            max_defer,
            governor,
            control,
            renew_lease,
            began: Instant::now(),
            step_began: Cell::new(None),
        }
    }

    /// A context that nothing stops and nothing holds up: to run a task without a scheduler.
    pub fn unhurried(settings: &'a TaskSettings) -> Self {
        let control = Arc::new(Control::new());
        Self::new(settings, Class::Urgent, Duration::ZERO, &NoGovernor, control, &|_| None)
    }

    /// What is set about the task.
    pub fn settings(&self) -> &TaskSettings {
        self.settings
    }

    /// Begins a step: waits until there is room for it. Call it before every step, holding no lock.
    ///
    /// # Errors
    /// Why the run has to stop; return it.
    pub fn step(&self, progress: Progress) -> Result<(), Stop> {
        if let Some(began) = self.step_began.take() {
            let pause = self.governor.pause(self.class, began.elapsed());
            if !pause.is_zero() {
                self.control.wait(pause);
            }
        }
        self.control.state.lock().progress = Some(progress);
        let began_waiting = Instant::now();
        let admitted = loop {
            if let Some(stop) = self.must_stop() {
                break Err(stop);
            }
            let is_late = self.class < Class::Urgent && self.began.elapsed() > self.max_defer;
            if is_late && self.governor.is_crowded() {
                break Err(Stop::Escalated);
            }
            let waited = began_waiting.elapsed();
            let class = if waited > self.max_defer { self.class.raised() } else { self.class };
            match self.governor.admit(class, waited) {
                Admission::Go => break Ok(()),
                Admission::Wait(wait) => {
                    self.control.state.lock().is_waiting = true;
                    self.control.wait(wait.min(WAIT_MAX));
                }
            }
        };
        let mut state = self.control.state.lock();
        (state.is_waiting, state.last_step) = (false, Instant::now());
        self.step_began.set(Some(state.last_step));
        admitted
    }

    /// Why the run has to stop, if it has to: for a look inside a long step.
    pub fn must_stop(&self) -> Option<Stop> {
        if let Some(stop) = self.control.state.lock().stop {
            return Some(stop);
        }
        (self.renew_lease)(&self.control)
    }
}
