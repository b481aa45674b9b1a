//! What schedulers refuse, what they keep, and that implementations can be swapped by name.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{
    Error, JobState, LocalScheduler, ScheduleOptions, Scheduler, SchedulerConfig, SchedulerRegistry, Task, Timestamp,
};
use serde_json::{Map, Value, json};

use crate::harness::{Scripted, World, every_minute};

fn parts() -> SchedulerConfig {
    let tasks: Vec<Arc<dyn Task>> = vec![Scripted::idle("tidy"), Scripted::idle("sweep")];
    SchedulerConfig::new(tasks, "test".into())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn implementations_are_made_by_name_and_others_can_be_added() {
    let mut implementations = SchedulerRegistry::default();
    for name in ["local", "memory", "off"] {
        assert_eq!(implementations.make(name, parts()).expect(name).implementation(), name);
    }
    let error = implementations.make("cluster", parts()).err().expect("not there").to_string();
    assert!(error.contains("cluster") && error.contains("local, memory, off"), "{error}");
    implementations.register("mine", |parts| Ok(Arc::new(LocalScheduler::new("mine", parts)?)));
    assert_eq!(implementations.make("mine", parts()).expect("registered").implementation(), "mine");
}

#[test]
fn a_scheduler_that_is_off_lists_jobs_and_says_so() {
    let scheduler = SchedulerRegistry::default().make("off", parts()).expect("there");
    scheduler.schedule_cron("tidy", "@daily", ScheduleOptions::default()).expect("lists");
    let status = scheduler.job("tidy").expect("listed");
    assert!(status.state == JobState::Off && status.next_runs.is_empty());
    assert!(matches!(scheduler.run_now("tidy"), Err(Error::Off)));
}

#[test]
fn bad_schedules_are_refused_and_say_why() {
    let scheduler = SchedulerRegistry::default().make("memory", parts()).expect("there");
    let refused = |result: Result<_, Error>, parts: &[&str]| {
        let error = result.map(|_: ochre_scheduler::JobHandle<'_>| ()).expect_err("refused").to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error} has no {part}"));
    };
    let options = ScheduleOptions::default;
    refused(scheduler.schedule_interval("tidy", Duration::ZERO, options()), &["interval", "0s"]);
    refused(scheduler.schedule_cron("tidy", "0 25 * * *", options()), &["hour", "25"]);
    let mars = ScheduleOptions { zone: Some("Mars/Base".into()), ..options() };
    refused(scheduler.schedule_cron("tidy", "@daily", mars), &["time zone", "Mars/Base"]);
    refused(scheduler.schedule_once("tidy", None, None, options()), &["delay or a time"]);
    let both = scheduler.schedule_once("tidy", Some(Duration::ZERO), Some(Timestamp::from_micros(0)), options());
    refused(both, &["not both"]);
    refused(scheduler.schedule_cron("tydy", "@daily", options()), &["tydy", "did you mean 'tidy'"]);
    let setting = ScheduleOptions { settings: object(json!({"dead_shar": 0.2})), ..options() };
    refused(scheduler.schedule_cron("tidy", "@daily", setting), &["dead_shar", "did you mean 'dead_share'"]);
    scheduler.schedule_cron("tidy", "@daily", options()).expect("at last");
    refused(scheduler.schedule_cron("tidy", "@daily", options()), &["tidy", "already"]);
}

#[test]
fn a_change_is_all_or_nothing_and_outlives_a_restart() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    for (change, part) in [
        (json!({"interval": "30s", "knobs": {"step_bytes": -1}}), "step_bytes"),
        (json!({"interval": "30s", "knobs": {"step_bites": 1}}), "did you mean 'step_bytes'"),
        (json!({"interval": "30s", "policies": {"timeuot": "1m"}}), "did you mean 'timeout'"),
        (json!({"interval": "30s", "policies": {"overlap": "never"}}), "never"),
        (json!({"interval": "30s", "cron": "@daily"}), "one of"),
        (json!({"intervall": "30s"}), "did you mean 'interval'"),
        (json!({"interval": "0s"}), "interval"),
        (json!({"cron": "* * * *"}), "4 fields"),
        (json!({"cron": "@daily", "zone": "Nowhere"}), "Nowhere"),
        (json!({"enabled": "yes"}), "true or false"),
        (json!({"once": "2020-01-01T00:00:00Z"}), "has passed"),
        (json!({"once": "2030-01-01T00:00:00Z", "delay": "1m"}), "one of"),
        (json!({"delay": "soon"}), "soon"),
    ] {
        let error = scheduler.alter("tidy", &object(change)).expect_err("refused").to_string();
        assert!(error.contains(part), "{error} has no {part}");
        assert_eq!(scheduler.job("tidy").expect("listed").trigger, "every 1m");
    }
    let change = json!({"interval": "30s", "knobs": {"step_bytes": 5}, "policies": {"timeout": "2m"}});
    scheduler.alter("tidy", &object(change)).expect("changes");
    drop(scheduler);
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    let status = scheduler.job("tidy").expect("listed");
    let timeout = status.policies.timeout.to_string();
    assert_eq!(
        (status.trigger.as_str(), &status.settings["step_bytes"], timeout.as_str()),
        ("every 30s", &json!(5), "2m")
    );
    // A configuration that says something new wins.
    drop(scheduler);
    let scheduler = world.scheduler(&[task]);
    let hour = Duration::from_secs(3600);
    scheduler.schedule_interval("tidy", hour, ScheduleOptions::default()).expect("schedules");
    assert_eq!(scheduler.job("tidy").expect("listed").trigger, "every 1h");
}

#[test]
fn a_new_expression_keeps_its_zone_and_a_delay_counts_from_now() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    let tokyo = ScheduleOptions { zone: Some("Asia/Tokyo".into()), ..ScheduleOptions::default() };
    scheduler.schedule_cron("tidy", "0 3 * * *", tokyo).expect("schedules");
    let change = |change| scheduler.alter("tidy", &object(change)).expect("changes");
    let next = |status: ochre_scheduler::JobStatus| status.next_runs.first().map(ToString::to_string);
    let at_four = next(change(json!({"cron": "0 4 * * *"}))).expect("it comes");
    assert!(at_four.ends_with("T19:00:00Z"), "four in the morning in Tokyo, not {at_four}");
    let at_five = next(change(json!({"cron": "0 5 * * *", "zone": "UTC"}))).expect("it comes");
    assert!(at_five.ends_with("T05:00:00Z"), "{at_five}");
    let later = world.now() + Duration::from_secs(90);
    assert_eq!(next(change(json!({"delay": "90s"}))), Some(later.to_string()));
    world.pass(&scheduler, 100);
    assert_eq!(task.ran(), 1);
}

#[test]
fn a_handle_does_what_the_scheduler_does() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    let handle = scheduler.schedule_cron("tidy", "0 3 * * *", ScheduleOptions::default()).expect("schedules");
    let next: Vec<String> = handle.next_times(2).expect("known").iter().map(ToString::to_string).collect();
    assert_eq!(next, ["2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"]);
    handle.pause().expect("known");
    handle.resume().expect("known");
    handle.run_now().expect("known");
    world.pass(&scheduler, 1);
    assert_eq!((handle.history(10).expect("known").len(), task.ran()), (1, 1));
}

#[test]
fn a_started_scheduler_runs_jobs_by_itself_and_stops_them() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = Scripted::new("tidy", move |context| {
        loop {
            let _ = sender.send(());
            std::thread::sleep(Duration::from_millis(5));
            context.step(ochre_scheduler::Progress::default())?;
        }
    });
    let scheduler = SchedulerRegistry::default()
        .make("memory", SchedulerConfig::new(vec![task as Arc<dyn Task>], "test".into()))
        .expect("there");
    let soon = Some(Duration::from_millis(20));
    scheduler.schedule_once("tidy", soon, None, ScheduleOptions::default()).expect("schedules");
    scheduler.start().expect("starts");
    receiver.recv_timeout(Duration::from_secs(300)).expect("it runs");
    assert_eq!(scheduler.job("tidy").expect("listed").state, JobState::Running);
    scheduler.stop();
    let last = scheduler.job("tidy").expect("listed").last_run.expect("it ended");
    assert_eq!(last.status, ochre_scheduler::Status::Interrupted);
}
