//! What a job does: a named task with its defaults, a check whether there is anything to do, and a run.

use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::Error;
use crate::nearest::nearest;
use crate::policy::Policies;
use crate::trigger::Interval;

/// A unit of maintenance that can be scheduled by name.
///
/// A task takes no input but its settings. It finds in the state of the world whether there is anything to do,
/// does it in bounded steps with a [`Context::step`] before each, and may be killed anywhere.
pub trait Task: Send + Sync {
    /// Its name, in kebab-case.
    fn name(&self) -> &str;
    /// What it does, in a sentence.
    fn description(&self) -> &str;
    /// When it runs unless configured otherwise.
    fn defaults(&self) -> Defaults;
    /// What can be set about it.
    fn settings(&self) -> &'static [Setting] {
        &[]
    }
    /// Settings that had another name before, which is still taken: the name, and the one before.
    fn renamed_settings(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// Those of its settings that count what a step does, and so cannot be 0.
    fn positive_settings(&self) -> &'static [&'static str] {
        &[]
    }
    /// Names of what it must have to itself: tasks that share one never run at once.
    fn locks(&self) -> &'static [&'static str] {
        &[]
    }
    /// Something that keeps it from working, as far as is known before it is due.
    fn warning(&self) -> Option<String> {
        None
    }
    /// Whether there is anything to do. Cheap.
    ///
    /// # Errors
    /// Anything; counts as a failed run.
    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure>;
    /// Does it; the text says what was done.
    ///
    /// # Errors
    /// [`Failure::Stopped`] as [`Context::step`] returns it, or whatever went wrong.
    fn run(&self, context: &Context<'_>) -> Result<String, Failure>;
}

/// When a task runs unless configured otherwise, and how.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// When it checks.
    pub when: When,
    /// Whether it is on at all.
    pub is_enabled: bool,
    /// Its policies.
    pub policies: Policies,
}

impl Defaults {
    /// On, and every so often, with the default policies.
    pub fn every(interval: std::time::Duration) -> Self {
        Self { when: When::Every(Interval(interval)), is_enabled: true, policies: Policies::default() }
    }
}

/// When to check, before there is a clock to anchor it.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// Every so often.
    Every(Interval),
    /// By a cron expression, in UTC or the zone given.
    Cron(String, String),
}

/// Whether there is something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing to do, and why.
    Idle(String),
    /// Something to do, and why.
    Ready(String),
    /// Something that cannot wait: a hard limit was passed.
    Urgent(String),
}

/// Why a run did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It was told to stop.
    Stopped(Stop),
    /// It failed.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Why a run has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Someone cancelled it.
    Cancelled,
    /// It took longer than its policies allow.
    TimedOut,
    /// The scheduler is stopping; the run goes on after the next start.
    Closing,
    /// It gets too little done beside requests; it goes on as an urgent run.
    Escalated,
    /// Another process took the run over.
    LeaseLost,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

/// Something that can be set about a task.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name, in `snake_case`.
    pub name: &'static str,
    /// What it does, with its unit.
    pub description: &'static str,
    /// What it is unless set.
    pub default: SettingValue,
}

/// The kinds of values that settings have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SettingValue {
    /// A number of things or bytes.
    Count(u64),
    /// A number between 0 and 1.
    Share(f64),
    /// A length of time, in seconds.
    Seconds(u64),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(&'static str),
}

impl SettingValue {
    fn to_json(self) -> Value {
        match self {
            Self::Count(count) => count.into(),
            Self::Share(share) => share.into(),
            Self::Seconds(seconds) => Interval(std::time::Duration::from_secs(seconds)).to_string().into(),
            Self::Flag(flag) => flag.into(),
            Self::Text(text) => text.into(),
        }
    }

    /// Why a value cannot be one of this kind.
    fn check(self, value: &Value) -> Result<(), &'static str> {
        let fits = match self {
            Self::Count(_) => value.is_u64(),
            Self::Share(_) => value.as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)),
            Self::Seconds(_) => value.as_str().is_some_and(|text| text.parse::<Interval>().is_ok()),
            Self::Flag(_) => value.is_boolean(),
            Self::Text(_) => value.is_string(),
        };
        let wanted = match self {
            Self::Count(_) => "a whole number of at least 0",
            Self::Share(_) => "a number between 0 and 1",
            Self::Seconds(_) => "a length of time such as \"30s\" or \"5m\"",
            Self::Flag(_) => "true or false",
            Self::Text(_) => "a text",
        };
        if fits { Ok(()) } else { Err(wanted) }
    }
}

/// The settings of a task with their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSettings(Map<String, Value>);

impl TaskSettings {
    /// The defaults of a task, with some values set.
    ///
    /// # Errors
    /// [`Error::UnknownSetting`] with the nearest name there is; [`Error::Invalid`] for a value of the wrong kind.
    pub fn new(task: &dyn Task, set: &Map<String, Value>) -> Result<Self, Error> {
        let mut all: Map<String, Value> =
            task.settings().iter().map(|setting| (setting.name.to_owned(), setting.default.to_json())).collect();
        for (name, value) in set {
            let setting = Self::find(task, name)?;
            setting.default.check(value).map_err(|wanted| Error::Invalid {
                what: "setting",
                reason: format!("'{name}' of job '{}' is {value}; it has to be {wanted}", task.name()),
            })?;
            all.insert(setting.name.to_owned(), value.clone());
        }
        Ok(Self(all))
    }

    /// The setting of this name.
    pub(crate) fn find(task: &dyn Task, name: &str) -> Result<&'static Setting, Error> {
        let renamed = task.renamed_settings().iter().find(|(_, old)| *old == name);
        let name = renamed.map_or(name, |(new, _)| new);
        task.settings().iter().find(|setting| setting.name == name).ok_or_else(|| Error::UnknownSetting {
            job: task.name().to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, task.settings().iter().map(|setting| setting.name)),
        })
    }

    /// A number of things or bytes.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// A number between 0 and 1.
    pub fn share(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// A length of time.
    pub fn span(&self, name: &str) -> std::time::Duration {
        let span = self.0.get(name).and_then(Value::as_str).and_then(|text| text.parse::<Interval>().ok());
        span.unwrap_or_default().0
    }

    /// Yes or no.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A text.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// All of them, by name.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}
