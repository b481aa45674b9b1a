//! When a job is due: every so often, by calendar, or once.
//!
//! Times are nominal: computed from the trigger alone, never from when something ran, so nothing drifts,
//! and what fell due while nobody looked is found without counting through it.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cron::CronExpression;
use crate::error::Error;
use crate::time::{Timestamp, micros};

/// The longest interval.
const INTERVAL_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);
/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// How far missed times of a cron expression are counted.
const COUNT_MAX: u64 = 1000;

/// When a job is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// At every multiple of `every` from `anchor`, after it and, if the clock was set back, before it.
    Interval {
        /// Between 10 ms and ten years.
        every: Interval,
        /// One of the times.
        anchor: Timestamp,
    },
    /// By calendar.
    Cron(CronExpression),
    /// At one time.
    Once(Timestamp),
}

impl Trigger {
    /// Every so often, counted from `anchor`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for less than 10 ms or more than ten years.
    pub fn interval(every: Duration, anchor: Timestamp) -> Result<Self, Error> {
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&every) {
            return Err(Error::Invalid {
                what: "interval",
                reason: format!("{} is not between {} and 10 years", Interval(every), Interval(INTERVAL_MIN)),
            });
        }
        Ok(Self::Interval { every: Interval(every), anchor })
    }

    /// By a cron expression in a time zone.
    ///
    /// # Errors
    /// As [`CronExpression::parse`].
    pub fn cron(expression: &str, zone: &str) -> Result<Self, Error> {
        CronExpression::parse(expression, zone).map(Self::Cron)
    }

    /// Once, after a delay or at a time: one of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] if both are given, or neither.
    pub fn once(now: Timestamp, delay: Option<Duration>, at: Option<Timestamp>) -> Result<Self, Error> {
        match (delay, at) {
            (Some(delay), None) => Ok(Self::Once(now + delay)),
            (None, Some(at)) => Ok(Self::Once(at)),
            (None, None) => Err(Error::Invalid { what: "schedule", reason: "give a delay or a time to run at".into() }),
            (Some(_), Some(_)) => {
                Err(Error::Invalid { what: "schedule", reason: "give a delay or a time to run at, not both".into() })
            }
        }
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Interval { every, anchor } => {
                let (every, passed) = (micros(every.0), after.as_micros().saturating_sub(anchor.as_micros()));
                let steps = passed.div_euclid(every).saturating_add(1);
                Some(Timestamp::from_micros(anchor.as_micros().saturating_add(steps.saturating_mul(every))))
                    .filter(|next| *next > after)
            }
            Self::Cron(cron) => cron.next(after),
            Self::Once(at) => Some(*at).filter(|at| *at > after),
        }
    }

    /// The last time at or before `now`, given one that is: `due`.
    pub fn latest(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let latest = match self {
            Self::Interval { every, anchor } => {
                let (every, passed) = (micros(every.0), now.as_micros().saturating_sub(anchor.as_micros()));
                Timestamp::from_micros(anchor.as_micros().saturating_add(passed.div_euclid(every) * every))
            }
            Self::Cron(cron) => cron.previous(now).unwrap_or(due),
            Self::Once(at) => *at,
        };
        if latest > now { due } else { latest.max(due) }
    }

    /// How many times there are after `from` and up to `to`; of a cron expression at most 1000 are counted.
    pub fn count(&self, from: Timestamp, to: Timestamp) -> u64 {
        match self {
            Self::Interval { every, anchor } => {
                let step = |time: Timestamp| (time.as_micros() - anchor.as_micros()).div_euclid(micros(every.0));
                step(to).saturating_sub(step(from)).max(0).cast_unsigned()
            }
            _ => {
                let (mut count, mut at) = (0, from);
                while count < COUNT_MAX
                    && let Some(next) = self.next(at).filter(|next| *next <= to)
                {
                    (count, at) = (count + 1, next);
                }
                count
            }
        }
    }

    /// The interval, if it has one.
    pub fn every(&self) -> Option<Duration> {
        match self {
            Self::Interval { every, .. } => Some(every.0),
            _ => None,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval { every, .. } => write!(f, "every {every}"),
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::Once(at) => write!(f, "once at {at}"),
        }
    }
}

/// A length of time as people write it: `30s`, `5m`, `1h 30m`, `2d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        write!(f, "{span:#}")
    }
}

impl std::str::FromStr for Interval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Invalid {
            what: "duration",
            reason: format!("'{text}' is no length of time; write it like 500ms, 30s, 5m, 2h or 7d"),
        };
        // Days are no fixed length where clocks change, so `jiff` leaves them out; here they are 24 hours.
        if let Some(days) = text.trim().strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok()) {
            return Ok(Self(Duration::from_secs(u64::from(days) * 86_400)));
        }
        let span: SignedDuration = text.trim().parse().map_err(|_| invalid())?;
        Duration::try_from(span).map(Self).map_err(|_| invalid())
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn intervals_are_counted_from_their_anchor_whatever_was_late() {
        let trigger = Trigger::interval(Duration::from_secs(60), at(7)).expect("valid");
        assert_eq!(trigger.next(at(-100)), Some(at(-53)));
        assert_eq!(trigger.next(at(7)), Some(at(67)));
        assert_eq!(trigger.next(at(1000)), Some(at(1027)));
        assert_eq!(trigger.latest(at(67), at(1000)), at(967));
        assert_eq!(trigger.count(at(67), at(967)), 15);
        let far = Timestamp::from_micros(i64::MAX);
        assert_eq!(trigger.next(far), None);
        assert!(trigger.latest(at(67), far) <= far);
    }

    #[test]
    fn a_schedule_needs_exactly_one_of_delay_and_time() {
        assert!(Trigger::once(at(0), None, None).is_err());
        assert!(Trigger::once(at(0), Some(Duration::ZERO), Some(at(1))).is_err());
        assert_eq!(Trigger::once(at(5), Some(Duration::from_secs(1)), None).ok(), Some(Trigger::Once(at(6))));
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        let error = Trigger::interval(Duration::ZERO, at(0)).expect_err("no interval").to_string();
        assert!(error.contains("interval") && error.contains("10ms"), "{error}");
    }

    #[test]
    fn lengths_of_time_are_read_as_they_are_written() {
        for text in ["500ms", "30s", "5m", "2h", "1h 30m"] {
            assert_eq!(text.parse::<Interval>().expect(text).to_string(), text);
        }
        assert_eq!("7d".parse::<Interval>().expect("days").0, Duration::from_secs(7 * 86_400));
        for text in ["", "-5s", "5", "soon", "1month"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
