//! Cron expressions, in a time zone.
//!
//! Five fields (minute, hour, day of month, month, day of week), six with seconds first, seven with a year
//! last; names, lists, ranges, steps, `L`, `W`, `#`, `?`, `+` and the nicknames from `@hourly` to `@yearly`:
//! the Open Cron Pattern Specification, with Vixie's rules for daylight saving time.
//!
//! - Day of month and day of week, both restricted, mean either of them; `*/n` counts as restricted.
//! - Steps begin again with each hour, day, month: `*/7` in minutes goes 0, 7, … 56, 0.
//! - A fixed time of day runs exactly once a day: in a gap at the first instant after it, in an overlap in
//!   the first pass. A list of times is as many fixed times. Any other pattern follows real time, through
//!   both passes.
//!
//! `croner` does the search. What it leaves open is closed here: fields are checked first, so that an error
//! names its field, lists of times are split, and a day that a zone left out altogether is found.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::CronParser;
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::time::Timestamp;

/// The longest expression that is read, in bytes.
const LENGTH_MAX: usize = 128;
/// Times of day that a list is split into, at most.
const SPLIT_MAX: usize = 64;

/// A cron expression with the zone whose clock it means.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct CronExpression {
    text: String,
    zone_name: String,
    zone: TimeZone,
    /// One for each time of day, if the times of day are a list.
    patterns: Vec<Cron>,
    /// Day of month and day of week are both restricted.
    is_either_day: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    expression: String,
    zone: String,
}

impl TryFrom<Stored> for CronExpression {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self, Error> {
        Self::parse(&stored.expression, &stored.zone)
    }
}

impl From<CronExpression> for Stored {
    fn from(cron: CronExpression) -> Self {
        Self { expression: cron.text, zone: cron.zone_name }
    }
}

impl PartialEq for CronExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone_name == other.zone_name
    }
}

impl fmt::Debug for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone_name)
    }
}

impl CronExpression {
    /// Reads an expression; `zone` is a name of the IANA time zone database, such as `UTC` or `Europe/Berlin`.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the field that is wrong and what it may be.
    pub fn parse(text: &str, zone: &str) -> Result<Self, Error> {
        let zone_name = zone.trim().to_owned();
        let zone = find_zone(&zone_name)?;
        if text.len() > LENGTH_MAX {
            return Err(invalid(format!("it has {} bytes; at most {LENGTH_MAX} are read", text.len())));
        }
        let text = text.trim().to_owned();
        let expanded = nickname(&text)?.unwrap_or(&text);
        let fields: Vec<&str> = expanded.split_ascii_whitespace().collect();
        check_fields(&fields, &text)?;
        let parser = CronParser::new();
        let parse = |pattern: &str| parser.parse(pattern).map_err(|error| invalid(format!("'{text}': {error}")));
        parse(expanded)?;
        let patterns = split_times(&fields).iter().map(|pattern| parse(pattern)).collect::<Result<_, _>>()?;
        let days = &fields[fields.len().clamp(5, 6) - 3..];
        let is_either_day =
            ![days[0], days[2]].iter().any(|field| matches!(*field, "*" | "?")) && !days[2].starts_with('+');
        Ok(Self { text, zone_name, zone, patterns, is_either_day })
    }

    /// The expression as it was given.
    pub fn expression(&self) -> &str {
        &self.text
    }

    /// The name of the zone whose clock it means.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// What a reader may not expect of this expression.
    pub fn warning(&self) -> Option<&'static str> {
        self.is_either_day.then_some(
            "day of month and day of week are both restricted: the job runs on days that match either of them",
        )
    }

    /// The first time after `after`; `None` if there is none.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Expressions know no fractions of a second.
        let start = jiff::Timestamp::from_second(after.timestamp().as_second()).ok()?;
        let start = if Timestamp::from(start) > after { start - Duration::from_secs(1) } else { start };
        let start = start.to_zoned(self.zone.clone());
        let next = self.patterns.iter().filter_map(|pattern| self.next_of(pattern, &start)).min();
        next.map(Timestamp::from).filter(|next| *next > after)
    }

    /// The last time at or before `until`; `None` if there is none.
    pub fn previous(&self, until: Timestamp) -> Option<Timestamp> {
        let start = until.timestamp().to_zoned(self.zone.clone());
        let found = self.patterns.iter().filter_map(|pattern| pattern.find_previous_occurrence(&start, true).ok());
        found.map(|found| Timestamp::from(found.timestamp())).filter(|found| *found <= until).max()
    }

    fn next_of(&self, pattern: &Cron, start: &Zoned) -> Option<jiff::Timestamp> {
        match pattern.find_next_occurrence(start, false) {
            Ok(next) if next.timestamp() > start.timestamp() => Some(next.timestamp()),
            _ => self.next_by_calendar(pattern, start),
        }
    }

    /// Where the search gives up, as at a day that the zone left out: looks for dates in the calendar, and
    /// for the instant each of them was.
    fn next_by_calendar(&self, pattern: &Cron, start: &Zoned) -> Option<jiff::Timestamp> {
        let mut civil: DateTime = start.datetime();
        // One step finds what a gap hides; another is needed if that was before `start`.
        for _ in 0..4 {
            civil = pattern.find_next_occurrence(&civil, false).ok()?;
            let ambiguous = self.zone.to_ambiguous_timestamp(civil);
            let later = ambiguous.compatible().ok()?;
            let instant = if let AmbiguousOffset::Gap { .. } = ambiguous.offset() {
                self.zone.preceding(later + Duration::from_nanos(1)).next().map_or(later, |gap| gap.timestamp())
            } else {
                later
            };
            if instant > start.timestamp() {
                return Some(instant);
            }
        }
        None
    }
}

/// The zone of this name.
pub(crate) fn find_zone(name: &str) -> Result<TimeZone, Error> {
    let zone = TimeZone::get(name).ok().filter(|_| !name.is_empty());
    zone.ok_or_else(|| Error::Invalid {
        what: "time zone",
        reason: format!("'{name}' is not in the time zone database; use a name such as UTC or Europe/Berlin"),
    })
}

fn invalid(reason: String) -> Error {
    Error::Invalid { what: "cron expression", reason }
}

fn nickname(text: &str) -> Result<Option<&'static str>, Error> {
    if !text.starts_with('@') {
        return Ok(None);
    }
    match text.to_ascii_lowercase().as_str() {
        "@hourly" => Ok(Some("0 * * * *")),
        "@daily" | "@midnight" => Ok(Some("0 0 * * *")),
        "@weekly" => Ok(Some("0 0 * * 0")),
        "@monthly" => Ok(Some("0 0 1 * *")),
        "@yearly" | "@annually" => Ok(Some("0 0 1 1 *")),
        "@reboot" => Err(invalid("'@reboot' has no time; schedule the job once, with a delay of 0".into())),
        other if other.starts_with("@every") => Err(invalid(format!("'{text}' is no calendar time; use an interval"))),
        _ => Err(invalid(format!("'{text}' is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly"))),
    }
}

/// What a field may hold.
struct Field {
    name: &'static str,
    from: u32,
    to: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 7] = [
    Field { name: "second", from: 0, to: 59, names: &[] },
    Field { name: "minute", from: 0, to: 59, names: &[] },
    Field { name: "hour", from: 0, to: 23, names: &[] },
    Field { name: "day-of-month", from: 1, to: 31, names: &[] },
    Field { name: "month", from: 1, to: 12, names: MONTHS },
    Field { name: "day-of-week", from: 0, to: 7, names: DAYS },
    Field { name: "year", from: 1, to: 9999, names: &[] },
];

fn check_fields(fields: &[&str], text: &str) -> Result<(), Error> {
    if !(5..=7).contains(&fields.len()) {
        return Err(invalid(format!(
            "'{text}' has {} fields; there are 5 (minute, hour, day of month, month, day of week), 6 with seconds first, 7 with a year last",
            fields.len()
        )));
    }
    let first = usize::from(fields.len() == 5);
    for (field, kind) in fields.iter().zip(&FIELDS[first..]) {
        kind.check(field)
            .map_err(|reason| invalid(format!("the {} field '{field}' of '{text}': {reason}", kind.name)))?;
    }
    Ok(())
}

impl Field {
    fn check(&self, text: &str) -> Result<(), String> {
        let is_weekday = self.name == "day-of-week";
        let text = text.strip_prefix('+').filter(|_| is_weekday).unwrap_or(text);
        text.split(',').try_for_each(|item| self.check_item(item))
    }

    fn check_item(&self, item: &str) -> Result<(), String> {
        if item.is_empty() {
            return Err("a list has an empty item".into());
        }
        let (is_day, is_weekday) = (self.name == "day-of-month", self.name == "day-of-week");
        let upper = item.to_ascii_uppercase();
        if (is_day || is_weekday) && upper == "?" || is_day && matches!(upper.as_str(), "L" | "LW") {
            return Ok(());
        }
        if is_day && let Some(day) = upper.strip_suffix('W') {
            return self.check_number(day);
        }
        if is_weekday && let Some(day) = upper.strip_suffix('L') {
            return self.check_number(day);
        }
        if is_weekday && let Some((day, nth)) = upper.split_once('#') {
            return match nth {
                "1" | "2" | "3" | "4" | "5" | "L" => self.check_number(day),
                _ => Err(format!("'#{nth}' is none of the first to the fifth of a month")),
            };
        }
        let (base, step) = upper.split_once('/').map_or((upper.as_str(), None), |(base, step)| (base, Some(step)));
        if let Some(step) = step {
            match step.parse::<u32>() {
                Ok(1..) if base == "*" || base.contains('-') => {}
                Ok(1..) => return Err(format!("a step needs a range before it: {base}-{}/{step}", self.to)),
                _ => return Err(format!("'{step}' is no step of at least 1")),
            }
        }
        match base.split_once('-') {
            _ if base == "*" => Ok(()),
            None => self.check_number(base),
            Some((low, high)) => {
                self.check_number(low)?;
                self.check_number(high)?;
                if self.number(low) > self.number(high) {
                    return Err(format!("the range {low}-{high} runs backwards"));
                }
                Ok(())
            }
        }
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| *name == text).and_then(|index| u32::try_from(index).ok());
        named.map(|index| self.from + index).or_else(|| text.parse().ok())
    }

    fn check_number(&self, text: &str) -> Result<(), String> {
        let is_plain =
            !text.is_empty() && (text.bytes().all(|byte| byte.is_ascii_digit()) || self.names.contains(&text));
        match self.number(text).filter(|_| is_plain) {
            Some(number) if (self.from..=self.to).contains(&number) => Ok(()),
            Some(number) => Err(format!("{number} is not between {} and {}", self.from, self.to)),
            None if self.names.is_empty() => Err(format!("'{text}' is not a number")),
            None => Err(format!("'{text}' is neither a number nor one of {}", self.names.join(", "))),
        }
    }
}

/// One pattern for each time of day if seconds, minutes and hours are lists of numbers; else the pattern.
fn split_times(fields: &[&str]) -> Vec<String> {
    let times = fields.len().clamp(5, 6) - 3;
    let lists: Vec<Vec<&str>> = fields[..times].iter().map(|field| field.split(',').collect()).collect();
    let is_list = lists.iter().flatten().all(|item| item.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_list || lists.iter().map(Vec::len).product::<usize>() > SPLIT_MAX {
        return vec![fields.join(" ")];
    }
    let rest = fields[times..].join(" ");
    let mut patterns = vec![String::new()];
    for list in &lists {
        patterns =
            patterns.iter().flat_map(|pattern| list.iter().map(move |item| format!("{pattern}{item} "))).collect();
    }
    patterns.iter().map(|pattern| format!("{pattern}{rest}")).collect()
}
