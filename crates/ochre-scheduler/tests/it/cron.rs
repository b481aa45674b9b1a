//! When cron expressions fire: fixed cases, and properties near the transitions of nine zones.

use std::time::Duration;

use ochre_scheduler::{CronExpression, Timestamp};
use serde::Deserialize;

/// A case: the times after `after`, exclusively, or that the expression is refused.
#[derive(Deserialize)]
struct Case {
    id: String,
    expr: String,
    tz: String,
    after: Timestamp,
    expected: Vec<Timestamp>,
    expect_error: bool,
}

#[test]
fn every_case_fires_when_it_should() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/cron-cases.json")).expect("the fixture");
    assert_eq!(cases.len(), 85);
    let mut wrong = Vec::new();
    for case in cases {
        let got = match CronExpression::parse(&case.expr, &case.tz) {
            Err(_) if case.expect_error => continue,
            Err(error) => Err(error.to_string()),
            Ok(cron) => {
                let mut times = vec![case.after];
                while times.len() <= case.expected.len().max(1)
                    && let Some(next) = cron.next(times[times.len() - 1])
                {
                    times.push(next);
                }
                Ok(times.split_off(1))
            }
        };
        if case.expect_error || got.as_ref().ok() != Some(&case.expected) {
            wrong.push(format!("{}: expected {:?}, got {got:?}", case.id, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_error_names_the_field_and_what_it_may_be() {
    let check = |expression: &str, parts: &[&str]| {
        let error = CronExpression::parse(expression, "UTC").expect_err(expression).to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error} has no {part}"));
    };
    check("61 * * * *", &["minute", "61", "between 0 and 59"]);
    check("* 24 * * *", &["hour", "24", "between 0 and 23"]);
    check("* * * FOO *", &["month", "FOO", "JAN"]);
    check("* * * * 1#6", &["day-of-week", "#6"]);
    check("5/10 * * * *", &["minute", "5-59/10"]);
    check("* * * *", &["4 fields"]);
    check("@every 5m", &["interval"]);
    check(&"*".repeat(200), &["200 bytes"]);
    let error = CronExpression::parse("* * * * *", "Mars/Olympus").expect_err("no such zone").to_string();
    assert!(error.contains("time zone") && error.contains("Mars/Olympus"), "{error}");
}

#[test]
fn restricting_both_days_is_warned_of() {
    let warning = |expression| CronExpression::parse(expression, "UTC").expect("valid").warning();
    assert!(warning("0 0 */2 * MON").is_some());
    assert!(warning("0 0 1 * *").is_none() && warning("0 0 ? * MON").is_none() && warning("0 0 1 * +MON").is_none());
}

const ZONES: [&str; 9] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Santiago",
    "Africa/Cairo",
    "Pacific/Apia",
    "Asia/Kolkata",
];

fn random_expression(rng: &mut fastrand::Rng) -> String {
    let mut field = |low: u32, high: u32, wild: u8| match rng.u8(0..10) {
        n if n < wild => "*".to_owned(),
        9 => format!("*/{}", rng.u32(1..=high)),
        8 => format!("{low}-{}", rng.u32(low..=high)),
        7 => format!("{},{}", rng.u32(low..=high), rng.u32(low..=high)),
        _ => rng.u32(low..=high).to_string(),
    };
    format!("{} {} {} {} {}", field(0, 59, 2), field(0, 23, 3), field(1, 28, 8), field(1, 12, 8), field(0, 6, 8))
}

/// Days around the changes of clocks in the zones above.
const CHANGES: [&str; 8] = [
    "2026-03-08T00:00:00Z",
    "2026-03-28T12:00:00Z",
    "2026-04-04T00:00:00Z",
    "2026-04-23T12:00:00Z",
    "2026-09-05T12:00:00Z",
    "2026-10-03T06:00:00Z",
    "2026-10-24T12:00:00Z",
    "2011-12-29T12:00:00Z",
];

#[test]
fn times_move_forward_without_holes_through_every_change_of_clocks() {
    let mut rng = fastrand::Rng::with_seed(3);
    for round in 0..1500 {
        let (expression, zone) = (random_expression(&mut rng), ZONES[round % ZONES.len()]);
        let cron = CronExpression::parse(&expression, zone).expect("a random expression is valid");
        let base: Timestamp = CHANGES[rng.usize(0..CHANGES.len())].parse().expect("a time");
        let start = base + Duration::from_secs(rng.u64(0..2 * 86_400));
        let Some(next) = cron.next(start) else { continue };
        let context = || format!("'{expression}' in {zone} after {start}: {next}");
        assert!(next > start, "{}", context());
        // Between now and then nothing else fires: any moment in between has the same next time.
        let between = next.since(start);
        for _ in 0..6 {
            let moment =
                start + Duration::from_micros(rng.u64(0..u64::try_from(between.as_micros()).expect("short").max(1)));
            assert_eq!(cron.next(moment), Some(next), "{} but not from {moment}", context());
        }
        let after = cron.next(next);
        assert!(after.is_none_or(|after| after > next), "{}", context());
        // The last time up to a moment is one that does fire, and no later than it.
        if let Some(previous) = cron.previous(next) {
            assert!(previous <= next, "{}", context());
        }
    }
}

#[test]
fn an_expression_survives_being_stored() {
    let cron = CronExpression::parse("30 2 * * MON-FRI", "Europe/Berlin").expect("valid");
    let stored = serde_json::to_string(&cron).expect("stores");
    let read: CronExpression = serde_json::from_str(&stored).expect("reads");
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
    assert_eq!((read.next(now), read.to_string()), (cron.next(now), cron.to_string()));
}
