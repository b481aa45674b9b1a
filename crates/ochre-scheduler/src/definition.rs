//! A job as it is defined: trigger, policies and settings, and how a change of them is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::nearest::nearest;
use crate::policy::{Overlap, Policies};
use crate::scheduler::{JobState, JobStatus, ScheduleOptions};
use crate::store::Counters;
use crate::task::{Task, TaskSettings};
use crate::time::Timestamp;
use crate::trigger::{Interval, Trigger};

/// How `settings` were spelt in versions before; still accepted, and how a stored definition has them.
const OLD_SETTINGS: &str = "knobs";

/// A job as it is defined.
#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) trigger: Trigger,
    pub(crate) policies: Policies,
    /// Those that are set.
    pub(crate) set: Map<String, Value>,
    /// All of them.
    pub(crate) settings: TaskSettings,
    pub(crate) is_enabled: bool,
}

/// Tasks by name.
pub(crate) type Tasks = BTreeMap<String, Arc<dyn Task>>;

/// The tasks by name.
pub(crate) fn collect_tasks(tasks: &[Arc<dyn Task>]) -> Result<Tasks, Error> {
    let mut by_name = BTreeMap::new();
    for task in tasks {
        if by_name.insert(task.name().to_owned(), Arc::clone(task)).is_some() {
            return Err(Error::Duplicate(task.name().to_owned()));
        }
    }
    Ok(by_name)
}

/// The task of a name.
pub(crate) fn find_task(tasks: &Tasks, name: &str) -> Result<Arc<dyn Task>, Error> {
    tasks.get(name).cloned().ok_or_else(|| Error::UnknownJob {
        name: name.to_owned(),
        nearest: nearest(name, tasks.keys().map(String::as_str)),
    })
}

impl Definition {
    pub(crate) fn new(task: &dyn Task, trigger: Trigger, options: ScheduleOptions) -> Result<Self, Error> {
        let settings = TaskSettings::new(task, &options.settings)?;
        check_policies(task, &options.policies)?;
        check_settings(task, &settings, options.settings.keys())?;
        let (policies, set, is_enabled) = (options.policies, options.settings, !options.is_disabled);
        Ok(Self { trigger, policies, set, settings, is_enabled })
    }

    /// What tells this definition from another, whenever it was made.
    pub(crate) fn declared(&self) -> Value {
        let trigger =
            self.trigger.every().map_or_else(|| json!(self.trigger), |every| json!({"every": Interval(every)}));
        json!({"trigger": trigger, "policies": self.policies, OLD_SETTINGS: self.set, "enabled": self.is_enabled})
    }

    /// This definition with a change: any of `interval`, `cron` (with `zone`), `once` or `delay`; `enabled`;
    /// `policies` and `settings`, of which those named are changed, and `null` means the default. A time to run once
    /// is the trigger of what this gives; that it comes beside a recurring one is the caller's to see to.
    pub(crate) fn changed(&self, task: &dyn Task, change: &Map<String, Value>, now: Timestamp) -> Result<Self, Error> {
        const KEYS: [&str; 8] = ["interval", "cron", "zone", "once", "delay", "enabled", "policies", "settings"];
        if let Some(key) = change.keys().find(|key| !KEYS.contains(&key.as_str()) && *key != OLD_SETTINGS) {
            let hint = nearest(key, KEYS.into_iter()).map(|near| format!("; did you mean '{near}'?"));
            let reason = format!("'{key}' cannot be changed{}; {} can", hint.unwrap_or_default(), KEYS.join(", "));
            return Err(Error::Invalid { what: "change", reason });
        }
        let mut changed = self.clone();
        if let Some(trigger) = self.changed_trigger(change, now)? {
            changed.trigger = trigger;
        }
        if let Some(enabled) = change.get("enabled") {
            changed.is_enabled = enabled.as_bool().ok_or_else(|| wrong("enabled", "true or false", enabled))?;
        }
        if let Some(policies) = change.get("policies") {
            changed.policies = self.changed_policies(task, policies)?;
        }
        for (member, settings) in
            change.iter().filter(|(member, _)| ["settings", OLD_SETTINGS].contains(&member.as_str()))
        {
            let settings = object(member, settings)?;
            for (name, value) in settings {
                let own = TaskSettings::find(task, name)?.name;
                changed.set.remove(name);
                match value {
                    Value::Null => changed.set.remove(own),
                    value => changed.set.insert(own.to_owned(), value.clone()),
                };
            }
            changed.settings = TaskSettings::new(task, &changed.set)?;
            check_settings(task, &changed.settings, settings.keys())?;
        }
        Ok(changed)
    }

    fn changed_trigger(&self, change: &Map<String, Value>, now: Timestamp) -> Result<Option<Trigger>, Error> {
        let text = |key: &'static str| {
            let given = change.get(key).filter(|value| key != "once" || !value.is_null());
            given.map(|value| value.as_str().ok_or_else(|| wrong(key, "a text", value))).transpose()
        };
        let (interval, cron, once, zone) = (text("interval")?, text("cron")?, text("once")?, text("zone")?);
        let delay = text("delay")?;
        if [interval, cron, once, delay].iter().flatten().count() > 1 {
            let reason = "give one of interval, cron, once and delay".into();
            return Err(Error::Invalid { what: "schedule", reason });
        }
        if let Some(delay) = delay {
            return Trigger::once(now, Some(delay.parse::<Interval>()?.0), None).map(Some);
        }
        match (interval, cron, once, zone, &self.trigger) {
            (Some(every), ..) => Trigger::interval(every.parse::<Interval>()?.0, now).map(Some),
            (_, Some(expression), ..) => {
                let own = match &self.trigger {
                    Trigger::Cron(cron) => Some(cron.zone()),
                    Trigger::Interval { .. } | Trigger::Once(_) => None,
                };
                let trigger = Trigger::cron(expression, zone.or(own).unwrap_or("UTC"))?;
                if trigger.next(now).is_none() {
                    let reason = format!("'{expression}' never comes: no year has such a day");
                    return Err(Error::Invalid { what: "cron expression", reason });
                }
                Ok(Some(trigger))
            }
            (_, _, Some(at), ..) => Trigger::once(now, None, Some(at.parse()?)).map(Some),
            (_, _, _, Some(zone), Trigger::Cron(cron)) => Trigger::cron(cron.expression(), zone).map(Some),
            (_, _, _, Some(_), _) => {
                Err(Error::Invalid { what: "schedule", reason: "only a cron expression has a zone".into() })
            }
            _ => Ok(None),
        }
    }

    fn changed_policies(&self, task: &dyn Task, change: &Value) -> Result<Policies, Error> {
        let (mut all, defaults) = (json!(self.policies), json!(Policies::default()));
        for (name, value) in object("policies", change)? {
            let Some(default) = defaults.get(name) else {
                let known = defaults.as_object().into_iter().flat_map(Map::keys);
                let hint = nearest(name, known.map(String::as_str)).map(|near| format!("; did you mean '{near}'?"));
                let reason = format!("there is no policy '{name}'{}", hint.unwrap_or_default());
                return Err(Error::Invalid { what: "policy", reason });
            };
            let value = if value.is_null() { default } else { value };
            let mut alone = defaults.clone();
            alone[name] = value.clone();
            let refused = |error| Error::Invalid { what: "policy", reason: format!("'{name}' is {value}: {error}") };
            serde_json::from_value::<Policies>(alone).map_err(refused)?;
            all[name] = value.clone();
        }
        let policies: Policies = serde_json::from_value(all)
            .map_err(|error| Error::Invalid { what: "policy", reason: error.to_string() })?;
        check_policies(task, &policies)?;
        Ok(policies)
    }

    pub(crate) fn status(&self, task: &dyn Task, state: JobState) -> JobStatus {
        let warning = match &self.trigger {
            Trigger::Cron(cron) => cron.warning().map(str::to_owned),
            _ => None,
        };
        let warnings: Vec<String> = task.warning().into_iter().chain(warning).collect();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        JobStatus {
            name: task.name().to_owned(),
            description: task.description().to_owned(),
            state,
            trigger: self.trigger.to_string(),
            schedule: Some(self.trigger.clone()),
            warning,
            next_runs: Vec::new(),
            running: None,
            last_run: None,
            last_check: None,
            held: None,
            pending: Vec::new(),
            progress: None,
            counters: Counters::default(),
            failures: 0,
            policies: self.policies.clone(),
            settings: self.settings.as_map().clone(),
            settings_descriptions: task.settings().iter().map(|setting| (setting.name, setting.description)).collect(),
        }
    }
}

fn check_policies(task: &dyn Task, policies: &Policies) -> Result<(), Error> {
    if policies.overlap == Overlap::Allow && !task.locks().is_empty() {
        let reason = format!(
            "overlap is allow, but two runs of job '{}' cannot work at once: both need {}; use queue, skip or cancel-running",
            task.name(),
            task.locks().join(", ")
        );
        return Err(Error::Invalid { what: "policy", reason });
    }
    if policies.catch_up == 0 {
        let reason =
            "catch_up is 0, so that misfire all would run none of the missed times; use at least 1, or misfire skip"
                .into();
        return Err(Error::Invalid { what: "policy", reason });
    }
    if !(0.0..=1.0).contains(&policies.jitter) {
        let reason = format!("jitter is {}; it has to be between 0 and 1", policies.jitter);
        return Err(Error::Invalid { what: "policy", reason });
    }
    if policies.timeout.0.is_zero() {
        let reason = "timeout is 0s; it has to be longer, or no run ever succeeds".into();
        return Err(Error::Invalid { what: "policy", reason });
    }
    Ok(())
}

/// Refuses values of the settings named that a task cannot work with.
fn check_settings<'a>(
    task: &dyn Task, settings: &TaskSettings, named: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    for name in named {
        if task.positive_settings().contains(&name.as_str()) && settings.count(name) == 0 {
            let reason = format!(
                "'{name}' of job '{}' is 0, so that no step would do anything; it has to be at least 1",
                task.name()
            );
            return Err(Error::Invalid { what: "setting", reason });
        }
    }
    Ok(())
}

fn object<'a>(name: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| wrong(name, "an object", value))
}

fn wrong(name: &str, wanted: &str, value: &Value) -> Error {
    Error::Invalid { what: "change", reason: format!("'{name}' is {value}; it has to be {wanted}") }
}
