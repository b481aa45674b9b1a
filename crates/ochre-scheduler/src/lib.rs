//! Runs named tasks by interval, by cron expression or once: persisted, with policies, one step at a time.
//!
//! A [`Task`] looks whether there is anything to do, and does it in steps; a [`Scheduler`] decides when,
//! a [`Governor`] whether there is room for the next step, a [`JobStore`] remembers. None of it knows what
//! the tasks are for.

mod clock;
mod context;
mod cron;
mod definition;
mod error;
mod event;
mod governor;
mod local;
mod memory;
mod nearest;
mod off;
mod policy;
mod scheduler;
mod store;
mod task;
mod time;
mod trigger;
mod window;

pub use clock::{Clock, SystemClock, VirtualClock};
pub use context::Context;
pub use cron::CronExpression;
pub use error::Error;
pub use event::{JobEvent, JobEventKind, JobObserver};
pub use governor::{Admission, Governor, NoGovernor};
pub use local::LocalScheduler;
pub use memory::MemoryJobStore;
pub use nearest::{nearest, unknown_member};
pub use off::OffScheduler;
pub use policy::{Class, Misfire, Overlap, Policies};
pub use scheduler::{
    Held, JobHandle, JobState, JobStatus, ScheduleOptions, Scheduler, SchedulerConfig, SchedulerRegistry, declare,
};
pub use store::{Counters, Finished, JobStore, Kind, LastCheck, Pending, Progress, Run, Schedule, Status};
pub use task::{Defaults, Failure, Readiness, Setting, SettingValue, Stop, Task, TaskSettings, When};
pub use time::Timestamp;
pub use trigger::{Interval, Trigger};
pub use window::Window;
