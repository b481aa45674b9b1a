//! What the jobs of the database have in common.

use std::time::Duration;

use ochre_scheduler::{Class, Defaults, Policies, Progress, When};

/// Every so many seconds, on, with these policies.
pub(crate) fn every(seconds: u64, change: impl FnOnce(&mut Policies)) -> Defaults {
    let mut defaults = Defaults::every(Duration::from_secs(seconds));
    change(&mut defaults.policies);
    defaults
}

/// By a cron expression in UTC, with these policies.
pub(crate) fn cron(expression: &str, is_enabled: bool, change: impl FnOnce(&mut Policies)) -> Defaults {
    let mut policies = Policies { class: Class::Idle, ..Policies::default() };
    change(&mut policies);
    Defaults { when: When::Cron(expression.into(), "UTC".into()), is_enabled, policies }
}

/// Progress without a known end.
pub(crate) fn at(what: &str, done: usize) -> Progress {
    Progress { done: done as u64, total: None, what: what.to_owned() }
}

/// Progress by parts.
pub(crate) fn part(what: &str, done: usize, total: usize) -> Progress {
    Progress { done: done as u64, total: Some(total as u64), what: what.to_owned() }
}
