//! Hours of the day, on some days of the week, in a time zone: `mon-fri 22:00-06:00 Europe/Berlin`.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cron::find_zone;
use crate::error::Error;
use crate::time::Timestamp;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Hours of the day in a time zone, UTC unless named, on some days of the week, all unless named. Hours that
/// run past midnight belong to the day on which they begin.
#[derive(Clone)]
pub struct Window {
    text: String,
    /// Monday first.
    days: [bool; 7],
    /// Minutes of the day; the second is not within.
    from: u16,
    to: u16,
    zone: TimeZone,
}

impl Window {
    /// Whether a point in time is within it.
    pub fn contains(&self, time: Timestamp) -> bool {
        let local = time.timestamp().to_zoned(self.zone.clone());
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let today = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
        let yesterday = (today + 6) % 7;
        if self.from < self.to {
            self.days[today] && (self.from..self.to).contains(&minute)
        } else {
            self.days[today] && minute >= self.from || self.days[yesterday] && minute < self.to
        }
    }
}

impl Window {
    /// The next times, within eight days, at which it begins.
    pub(crate) fn beginnings(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.times(self.from, after)
    }

    /// The next times, within eight days, at which it ends.
    pub(crate) fn ends(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.times(self.to, after)
    }

    /// A minute of each of the next days.
    fn times(&self, minute: u16, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        let today = after.timestamp().to_zoned(self.zone.clone()).date();
        (0..=8_i64).filter_map(move |days| {
            let midnight = today.checked_add(jiff::Span::new().days(days)).ok()?.at(0, 0, 0, 0);
            let time = midnight.checked_add(jiff::Span::new().minutes(i64::from(minute))).ok()?;
            let time = Timestamp::from(time.to_zoned(self.zone.clone()).ok()?.timestamp());
            (time > after).then_some(time)
        })
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid {
            what: "window",
            reason: format!("'{text}': {reason}; write it like '22:00-06:00' or 'mon-fri 22:00-06:00 Europe/Berlin'"),
        };
        let mut parts = text.split_ascii_whitespace().peekable();
        let mut days = [true; 7];
        if let Some(listed) = parts.next_if(|part| !part.contains(':')) {
            days = [false; 7];
            for item in listed.to_ascii_lowercase().split(',') {
                let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or_else(|| invalid("unknown day"));
                let (first, last) = item.split_once('-').unwrap_or((item, item));
                let (first, last) = (day(first)?, day(last)?);
                (0..=(last + 7 - first) % 7).for_each(|step| days[(first + step) % 7] = true);
            }
        }
        let (from, to) =
            parts.next().and_then(|hours| hours.split_once('-')).ok_or_else(|| invalid("it has no hours"))?;
        let minute = |clock: &str| {
            let (hour, minute) = clock.split_once(':')?;
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
        };
        let (Some(from), Some(to)) = (minute(from), minute(to)) else { return Err(invalid("no such hours")) };
        if from == to {
            return Err(invalid("it is empty"));
        }
        let zone = find_zone(parts.next().unwrap_or("UTC"))?;
        match parts.next() {
            Some(_) => Err(invalid("there is something after the time zone")),
            None => Ok(Self { text: text.to_owned(), days, from, to, zone }),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(window: &str, time: &str, expected: bool) {
        let window: Window = window.parse().expect(window);
        assert_eq!(window.contains(time.parse().expect(time)), expected, "{window} at {time}");
    }

    #[test]
    fn hours_past_midnight_belong_to_the_day_they_begin() {
        // 2026-11-20 is a Friday.
        check("fri 22:00-06:00", "2026-11-20T23:00:00Z", true);
        check("fri 22:00-06:00", "2026-11-21T05:59:00Z", true);
        check("fri 22:00-06:00", "2026-11-21T06:00:00Z", false);
        check("fri 22:00-06:00", "2026-11-20T05:00:00Z", false);
        check("sat-mon 00:00-24:00", "2026-11-22T12:00:00Z", true);
        check("sat-mon 00:00-24:00", "2026-11-24T12:00:00Z", false);
        check("08:00-09:00 Asia/Kolkata", "2026-11-20T02:45:00Z", true);
    }

    #[test]
    fn bad_windows_say_what_is_wrong() {
        for (text, part) in [
            ("", "no hours"),
            ("25:00-26:00", "no such hours"),
            ("08:00-08:00", "empty"),
            ("fun 08:00-09:00", "unknown day"),
            ("08:00-09:00 Nowhere", "time zone"),
            ("08:00-09:00 UTC daily", "after the time zone"),
        ] {
            let error = text.parse::<Window>().expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
