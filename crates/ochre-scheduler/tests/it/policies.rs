//! What policies do, each in its own scene on a virtual clock.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{
    Failure, Interval, JobState, Kind, LocalScheduler, Misfire, Overlap, Readiness, Scheduler, Status, declare,
};
use parking_lot::Mutex;

use crate::harness::{Mortal, Scripted, World, at, every_minute, options};

fn minutes(runs: &[ochre_scheduler::Run]) -> Vec<u64> {
    runs.iter().map(|run| run.scheduled_at.since(at("2026-11-21T00:00:00Z")).as_secs() / 60).collect()
}

/// Runs for two minutes, is away for so long, and goes on for two; the minutes that ran.
fn after_absence(
    seconds: u64, change: impl Fn(&mut ochre_scheduler::Policies),
) -> (Vec<u64>, ochre_scheduler::Counters) {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", &change);
    world.pass(&scheduler, 120);
    drop(scheduler);
    world.clock.advance(Duration::from_secs(seconds));
    let scheduler = world.scheduler(&[task]);
    every_minute(&scheduler, "tidy", &change);
    world.pass(&scheduler, 120);
    let counters = scheduler.job("tidy").expect("listed").counters;
    (minutes(&world.runs("tidy")), counters)
}

#[test]
fn missed_times_are_run_once_however_late() {
    let (ran, counters) = after_absence(600, |_| {});
    assert_eq!(ran, [1, 2, 12, 13, 14]);
    assert_eq!((counters.ran, counters.coalesced, counters.missed), (5, 9, 0));
}

#[test]
fn missed_times_are_skipped_past_their_grace() {
    let grace = |seconds| {
        move |policies: &mut ochre_scheduler::Policies| {
            (policies.misfire, policies.grace) = (Misfire::Skip, Interval(Duration::from_secs(seconds)));
        }
    };
    let (ran, counters) = after_absence(630, grace(10));
    assert_eq!(ran, [1, 2, 13, 14]);
    assert_eq!((counters.ran, counters.missed), (4, 10));
    let (ran, counters) = after_absence(630, grace(40));
    assert_eq!(ran, [1, 2, 12, 13, 14]);
    assert_eq!((counters.ran, counters.missed), (5, 9));
}

#[test]
fn missed_times_are_caught_up_to_a_cap() {
    let (ran, counters) = after_absence(600, |policies| (policies.misfire, policies.catch_up) = (Misfire::All, 3));
    assert_eq!(ran, [1, 2, 10, 11, 12, 13, 14]);
    assert_eq!((counters.ran, counters.missed), (7, 7));
}

#[test]
fn ten_years_of_absence_cost_no_more_than_a_minute() {
    let (ran, counters) = after_absence(10 * 365 * 86_400, |_| {});
    assert_eq!(ran.len(), 5);
    assert_eq!(counters.coalesced, 10 * 365 * 1440 - 1);
    let (ran, _) = after_absence(10 * 365 * 86_400, |policies| policies.misfire = Misfire::All);
    assert_eq!(ran.len(), 2 + 10 + 2);
}

/// A run of 150 seconds, due every minute; the tally and the statuses after it ended.
fn overlapping(overlap: Overlap) -> (ochre_scheduler::Counters, Vec<Status>) {
    let world = Arc::new(World::new(true));
    let inner: Arc<Mutex<Option<Arc<ochre_scheduler::LocalScheduler>>>> = Arc::default();
    let is_first = Mutex::new(true);
    let (seen, reach) = (Arc::clone(&world), Arc::clone(&inner));
    let task = Scripted::new("slow", move |context| {
        if std::mem::take(&mut *is_first.lock()) {
            for _ in 0..5 {
                seen.clock.advance(Duration::from_secs(30));
                let scheduler = reach.lock().clone().expect("set before it runs");
                scheduler.poll().expect("the store works");
                context.step(ochre_scheduler::Progress::default())?;
            }
        }
        Ok("done".into())
    });
    let scheduler = Arc::new(world.scheduler(&[task]));
    *inner.lock() = Some(Arc::clone(&scheduler));
    every_minute(&scheduler, "slow", |policies| policies.overlap = overlap);
    world.clock.advance(Duration::from_secs(60));
    scheduler.poll().expect("the store works");
    inner.lock().take();
    let counters = scheduler.job("slow").expect("listed").counters;
    (counters, world.runs("slow").iter().map(|run| run.status).collect())
}

#[test]
fn an_overlapping_time_is_skipped_queued_replaces_or_runs_beside() {
    use Status::{Cancelled, Succeeded};
    let (counters, runs) = overlapping(Overlap::Skip);
    assert_eq!((counters.ran, counters.overlapped, runs), (1, 2, vec![Succeeded]));
    let (counters, runs) = overlapping(Overlap::Queue);
    assert_eq!((counters.ran, counters.overlapped, runs), (2, 1, vec![Succeeded, Succeeded]));
    let (counters, runs) = overlapping(Overlap::CancelRunning);
    assert_eq!((counters.ran, runs), (2, vec![Cancelled, Succeeded]));
    let (counters, runs) = overlapping(Overlap::Allow);
    assert_eq!((counters.ran, counters.overlapped, runs.len()), (3, 0, 3));
}

#[test]
fn missed_times_are_caught_up_one_after_another_however_long_each_takes() {
    let world = Arc::new(World::new(true));
    let task = Scripted::new("slow", |_| Ok("done".into()));
    let scheduler = world.scheduler(std::slice::from_ref(&task));
    every_minute(&scheduler, "slow", |_| {});
    drop(scheduler);
    world.clock.advance(Duration::from_secs(3600));
    let reach: Arc<Mutex<Option<Arc<ochre_scheduler::LocalScheduler>>>> = Arc::default();
    let inner = Arc::clone(&reach);
    // Asked what is due while it runs, as the scheduler's own thread is.
    let task = Scripted::new("slow", move |_| {
        if let Some(scheduler) = inner.lock().clone() {
            scheduler.poll().expect("the store works");
        }
        Ok("done".into())
    });
    let scheduler = Arc::new(world.scheduler(&[task]));
    every_minute(&scheduler, "slow", |policies| (policies.misfire, policies.catch_up) = (Misfire::All, 3));
    world.clock.advance(Duration::from_secs(3600));
    *reach.lock() = Some(Arc::clone(&scheduler));
    scheduler.poll().expect("the store works");
    reach.lock().take();
    let counters = scheduler.job("slow").expect("listed").counters;
    assert_eq!((counters.ran, counters.missed, counters.overlapped), (3, 57, 0));
}

#[test]
fn a_time_to_run_once_comes_beside_the_schedule_and_is_never_dropped_in_silence() {
    let change = |text: &str| serde_json::from_str(text).expect(text);
    let world = World::new(true);
    let task = Scripted::idle("tidy");
    let scheduler = world.scheduler(std::slice::from_ref(&task));
    scheduler.schedule_interval("tidy", Duration::from_secs(3600), options(|_| {})).expect("schedules");
    scheduler.alter("tidy", &change(r#"{"delay": "10m"}"#)).expect("a time to come");
    scheduler.alter("tidy", &change(r#"{"once": "2026-11-21T00:20:00Z"}"#)).expect("a time to come");
    let status = scheduler.job("tidy").expect("listed");
    assert_eq!(status.trigger, "every 1h");
    let next: Vec<_> = status.next_runs.iter().take(3).map(|time| time.since(world.now()).as_secs() / 60).collect();
    assert_eq!(next, [10, 20, 60]);
    let refused = scheduler.alter("tidy", &change(r#"{"once": "2026-11-20T00:00:00Z"}"#)).expect_err("it has passed");
    assert!(refused.to_string().contains("has passed"), "{refused}");
    world.pass(&scheduler, 3600);
    assert_eq!(minutes(&world.runs("tidy")), [10, 20, 60]);
    assert_eq!(scheduler.job("tidy").expect("listed").counters.ran, 3);
    // Missed while nobody could run it, it follows the misfire policy.
    for (misfire, ran, missed) in [("latest", 5, 0), ("skip", 4, 1)] {
        let world = World::new(true);
        let scheduler = world.scheduler(&[Scripted::idle("tidy")]);
        let often = |policies: &mut ochre_scheduler::Policies| policies.grace = Interval(Duration::from_secs(60));
        scheduler.schedule_interval("tidy", Duration::from_secs(3600), options(often)).expect("schedules");
        scheduler.alter("tidy", &change(&format!(r#"{{"policies": {{"misfire": "{misfire}"}}}}"#))).expect("a policy");
        world.pass(&scheduler, 3 * 3600);
        scheduler.alter("tidy", &change(r#"{"delay": "10m"}"#)).expect("a time to come");
        drop(scheduler);
        world.clock.advance(Duration::from_secs(3600 - 30));
        let scheduler = world.scheduler(&[Scripted::idle("tidy")]);
        scheduler.schedule_interval("tidy", Duration::from_secs(3600), options(often)).expect("schedules");
        world.pass(&scheduler, 60);
        let counters = scheduler.job("tidy").expect("listed").counters;
        assert_eq!((counters.ran, counters.missed), (ran, missed), "{misfire}");
    }
    // Taken back, and gone with everything else that was changed.
    scheduler.alter("tidy", &change(r#"{"delay": "10m", "policies": {"priority": 7}}"#)).expect("a time to come");
    assert!(scheduler.alter("tidy", &change(r#"{"once": null}"#)).expect("taken back").pending.is_empty());
    scheduler.alter("tidy", &change(r#"{"delay": "10m", "policies": {"priority": 7}}"#)).expect("a time to come");
    scheduler.alter("tidy", &change(r#"{"interval": "5m"}"#)).expect("an interval");
    let status = scheduler.reset("tidy").expect("known");
    assert_eq!((status.trigger.as_str(), status.policies.priority, status.pending.len()), ("every 1h", 0, 0));
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let world = World::new(true);
    let mut task = Scripted::idle("tidy");
    Arc::get_mut(&mut task).expect("nobody else has it").locks = &["segments"];
    let scheduler = world.scheduler(&[task]);
    let overlapping = scheduler.schedule_interval(
        "tidy",
        Duration::from_secs(60),
        options(|policies| policies.overlap = Overlap::Allow),
    );
    let error = overlapping.err().expect("it needs its lock").to_string();
    assert!(error.contains("both need segments"), "{error}");
    let early = scheduler.schedule_once("tidy", None, Some(world.now() - Duration::from_secs(1)), options(|_| {}));
    let error = early.err().expect("it has passed").to_string();
    assert!(error.contains("has passed"), "{error}");
    every_minute(&scheduler, "tidy", |_| {});
    for (change, words) in [
        (r#"{"policies": {"overlap": "allow"}}"#, "both need segments"),
        (r#"{"policies": {"catch_up": 0}}"#, "catch_up is 0"),
        (r#"{"settings": {"step_bytes": 0}}"#, "at least 1"),
    ] {
        let change = serde_json::from_str(change).expect(change);
        let error = scheduler.alter("tidy", &change).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_time_to_run_once_stays_in_the_configuration_after_it_ran() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let configured = |scheduler: &LocalScheduler, change: &str| {
        let change = serde_json::from_str(change).expect(change);
        declare(scheduler, &*task, &change).map(|_| scheduler.job("tidy").expect("listed"))
    };
    let once = r#"{"once": "2026-11-21T00:10:00Z"}"#;
    let first = world.scheduler(&[Arc::clone(&task)]);
    configured(&first, once).expect("a time to come");
    world.pass(&first, 1200);
    assert_eq!(task.ran(), 1);
    // The configuration says the same, then something else of the same job: both of a time that has passed.
    for change in [once, r#"{"once": "2026-11-21T00:10:00Z", "policies": {"priority": 7}}"#] {
        let later = world.scheduler(&[Arc::clone(&task)]);
        assert_eq!(configured(&later, change).expect(change).state, JobState::Finished);
        world.pass(&later, 1200);
    }
    assert_eq!(task.ran(), 1, "it ran once");
    // A scheduler that forgets cannot know whether it ran; of one that remembers it is a mistake.
    let new = World::new(true);
    new.clock.advance(Duration::from_secs(3600));
    let remembers = Mortal::new(Arc::clone(&new.store) as _, i64::MAX, false);
    let error = configured(&new.scheduler_on(&[Arc::clone(&task)], remembers), once);
    assert!(error.expect_err("it never ran").to_string().contains("has passed"));
    let forgetful = new.scheduler(&[Arc::clone(&task)]);
    assert_eq!(configured(&forgetful, once).expect("it may have run").state, JobState::Finished);
}

#[test]
fn a_job_that_is_due_and_does_not_run_says_what_holds_it_and_until_when() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    let held = || scheduler.job("tidy").expect("listed");
    every_minute(&scheduler, "tidy", |policies| policies.windows = vec!["02:00-04:00".parse().expect("a window")]);
    world.pass(&scheduler, 120);
    let status = held();
    assert_eq!(status.state, JobState::Held);
    let Some(why) = status.held else { panic!("it says why") };
    assert!(why.reason.contains("outside its windows 02:00-04:00"), "{why:?}");
    assert_eq!(why.until, Some(at("2026-11-21T02:00:00Z")));
    let quiet = r#"{"policies": {"windows": null, "quiet_hours": ["23:00-00:30", "00:15-01:00"]}}"#;
    scheduler.alter("tidy", &serde_json::from_str(quiet).expect(quiet)).expect("policies");
    let Some(why) = held().held else { panic!("it says why") };
    assert!(why.reason.contains("quiet hours 23:00-00:30"), "{why:?}");
    assert_eq!(why.until, Some(at("2026-11-21T01:00:00Z")));
    world.pass(&scheduler, 3600);
    assert_eq!((held().state, held().held, task.ran() > 0), (JobState::Scheduled, None, true));
}

#[test]
fn a_job_can_be_added_and_removed_with_all_that_is_known_of_it() {
    let (world, first, later) = (World::new(true), Scripted::idle("first"), Scripted::idle("later"));
    let scheduler = world.scheduler(&[first]);
    assert!(scheduler.schedule_interval("later", Duration::from_secs(60), options(|_| {})).is_err());
    scheduler.add_task(Arc::clone(&later) as _).expect("its name is free");
    assert!(scheduler.add_task(Arc::clone(&later) as _).is_err(), "a name is one task's");
    every_minute(&scheduler, "later", |_| {});
    world.pass(&scheduler, 60);
    assert_eq!((later.ran(), world.runs("later").len()), (1, 1));
    scheduler.remove("later").expect("known");
    assert!(scheduler.job("later").is_err() && scheduler.remove("later").is_err());
    world.pass(&scheduler, 600);
    assert_eq!((later.ran(), world.runs("later").len()), (1, 0));
}

#[test]
fn a_failure_is_tried_again_later_and_later_until_the_job_is_broken() {
    let (world, task) = (World::new(true), Scripted::new("fails", |_| Err(Failure::Failed("no disk".into()))));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    let change = |policies: &mut ochre_scheduler::Policies| {
        (policies.retries, policies.retry_delay) = (3, Interval(Duration::from_secs(10)));
        policies.broken_after = 6;
    };
    scheduler.schedule_interval("fails", Duration::from_secs(3600), options(change)).expect("schedules");
    world.pass(&scheduler, 3600);
    let first = world.runs("fails")[0].started;
    world.pass(&scheduler, 3599);
    let starts: Vec<u64> = world.runs("fails").iter().map(|run| run.started.since(first).as_secs()).collect();
    assert_eq!(starts, [0, 10, 30, 70]);
    world.pass(&scheduler, 36_000);
    let status = scheduler.job("fails").expect("listed");
    assert_eq!((status.state, status.failures, task.ran()), (JobState::Broken, 6, 6));
    assert_eq!(status.last_run.expect("it ran").message, "no disk");
    scheduler.resume("fails").expect("known");
    world.pass(&scheduler, 3600);
    assert!(task.ran() > 6, "a resumed job runs again");
}

#[test]
fn a_panic_is_a_failure_of_one_run() {
    let (world, task) = (World::new(true), Scripted::new("panics", |_| panic!("out of luck")));
    let scheduler = world.scheduler(&[task]);
    every_minute(&scheduler, "panics", |policies| policies.retries = 0);
    world.pass(&scheduler, 60);
    let run = &world.runs("panics")[0];
    assert!(run.status == Status::Failed && run.message.contains("out of luck"), "{run:?}");
}

#[test]
fn an_end_that_the_store_does_not_take_is_recorded_once_it_does() {
    let world = World::new(true);
    let store = Mortal::new(Arc::clone(&world.store) as Arc<dyn ochre_scheduler::JobStore>, i64::MAX, false);
    let fails = Arc::clone(&store);
    // The disk is full just when the first run ends.
    let first = std::sync::Once::new();
    let task = Scripted::new("job", move |_| {
        first.call_once(|| fails.die());
        Ok("done".into())
    });
    let scheduler = world.scheduler_on(&[Arc::clone(&task)], Arc::clone(&store) as Arc<dyn ochre_scheduler::JobStore>);
    every_minute(&scheduler, "job", |_| {});
    world.clock.set(world.now() + Duration::from_secs(60));
    scheduler.poll().unwrap();
    for _ in 0..2 {
        assert!(scheduler.poll().is_err(), "nothing can be stored");
    }
    let states = || world.runs("job").iter().map(|run| run.status).collect::<Vec<_>>();
    assert_eq!((states(), task.ran()), (vec![Status::Running], 1));
    store.revive();
    scheduler.poll().unwrap();
    assert_eq!((states(), task.ran()), (vec![Status::Succeeded], 1), "recorded, and not run again");
    world.pass(&scheduler, 60);
    assert_eq!((states(), task.ran()), (vec![Status::Succeeded; 2], 2));
}

#[test]
fn a_run_past_its_timeout_stops_at_its_next_step() {
    let world = Arc::new(World::new(true));
    let seen = Arc::clone(&world);
    let task = Scripted::new("slow", move |context| {
        for _ in 0..1000 {
            seen.clock.advance(Duration::from_secs(1));
            context.step(ochre_scheduler::Progress::default())?;
        }
        Ok("never".into())
    });
    let scheduler = world.scheduler(&[task]);
    every_minute(&scheduler, "slow", |policies| {
        (policies.timeout, policies.retries) = (Interval(Duration::from_secs(5)), 0);
    });
    world.clock.advance(Duration::from_secs(60));
    scheduler.poll().expect("the store works");
    let run = &world.runs("slow")[0];
    assert_eq!((run.status, run.ended.expect("ended").since(run.started)), (Status::TimedOut, Duration::from_secs(6)));
}

#[test]
fn a_look_that_finds_nothing_is_recorded_with_its_reason_and_is_no_run() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    *task.look.lock() = Readiness::Idle("all is tidy".into());
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    world.pass(&scheduler, 300);
    let status = scheduler.job("tidy").expect("listed");
    assert_eq!(
        (status.last_check.expect("it looked").reason.as_str(), status.counters.nothing_to_do),
        ("all is tidy", 5)
    );
    assert!(task.ran() == 0 && world.runs("tidy").is_empty());
}

#[test]
fn windows_and_quiet_hours_hold_runs_back_except_urgent_ones() {
    let (world, task) = (World::new(true), Scripted::idle("night"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "night", |policies| {
        policies.windows = vec!["02:00-04:00".parse().expect("a window")];
        policies.quiet_hours = vec!["03:00-03:30".parse().expect("a window")];
    });
    world.pass(&scheduler, 2 * 3600 - 1);
    assert_eq!(task.ran(), 0, "before its window");
    world.pass(&scheduler, 3600);
    assert_eq!(task.ran(), 60, "within it");
    world.pass(&scheduler, 1700);
    assert_eq!(task.ran(), 60, "quiet hours");
    *task.look.lock() = Readiness::Urgent("a hard limit".into());
    scheduler.poll().expect("the store works");
    assert_eq!(task.ran(), 61, "urgent");
}

#[test]
fn tasks_that_share_a_lock_never_run_at_once() {
    let world = Arc::new(World::new(true));
    let inner: Arc<Mutex<Option<Arc<ochre_scheduler::LocalScheduler>>>> = Arc::default();
    let reach = Arc::clone(&inner);
    let mut holder = Scripted::new("holder", move |_| {
        reach.lock().clone().expect("set").poll().expect("the store works");
        Ok("done".into())
    });
    let mut other = Scripted::idle("other");
    Arc::get_mut(&mut holder).expect("not shared yet").locks = &["disk"];
    Arc::get_mut(&mut other).expect("not shared yet").locks = &["disk"];
    let scheduler = Arc::new(world.scheduler(&[holder, Arc::clone(&other)]));
    *inner.lock() = Some(Arc::clone(&scheduler));
    every_minute(&scheduler, "holder", |policies| policies.priority = 1);
    every_minute(&scheduler, "other", |_| {});
    world.clock.advance(Duration::from_secs(60));
    scheduler.poll().expect("the store works");
    inner.lock().take();
    let order: Vec<u64> = ["holder", "other"].iter().map(|job| world.runs(job)[0].fence).collect();
    let ended = world.runs("holder")[0].ended.expect("ended");
    assert!(order[0] < order[1] && ended <= world.runs("other")[0].started);
}

#[test]
fn a_paused_job_runs_only_by_hand_and_misses_what_passes() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    scheduler.pause("tidy").expect("known");
    world.pass(&scheduler, 300);
    let status = scheduler.job("tidy").expect("listed");
    assert!(task.ran() == 0 && status.state == JobState::Paused && status.next_runs.is_empty());
    scheduler.run_now("tidy").expect("known");
    scheduler.run_now("tidy").expect("twice is once");
    world.pass(&scheduler, 1);
    assert_eq!((task.ran(), world.runs("tidy")[0].kind), (1, Kind::Manual));
    scheduler.resume("tidy").expect("known");
    world.pass(&scheduler, 30);
    let counters = scheduler.job("tidy").expect("listed").counters;
    assert_eq!((task.ran(), counters.missed), (1, 5));
    world.pass(&scheduler, 60);
    assert_eq!(task.ran(), 2);
}

#[test]
fn a_clock_set_back_far_does_not_stop_jobs_for_as_long() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    world.pass(&scheduler, 120);
    world.clock.set(at("2025-01-01T00:00:00Z"));
    world.pass(&scheduler, 120);
    assert!(task.ran() >= 3, "ran {} times", task.ran());
    // A little back: what was done is not done again.
    let ran = task.ran();
    let now = world.now();
    world.clock.set(now - Duration::from_secs(90));
    world.pass(&scheduler, 60);
    assert_eq!(task.ran(), ran);
}

#[test]
fn jitter_spreads_starts_the_same_way_every_time_and_never_past_the_next() {
    let starts = || {
        let (world, task) = (World::new(true), Scripted::idle("tidy"));
        let scheduler = world.scheduler(&[task]);
        every_minute(&scheduler, "tidy", |policies| policies.jitter = 1.0);
        world.pass(&scheduler, 1200);
        let late = |run: &ochre_scheduler::Run| run.started.since(run.scheduled_at);
        world.runs("tidy").iter().map(late).collect::<Vec<_>>()
    };
    let (first, second) = (starts(), starts());
    assert!(first.len() >= 18 && first == second);
    assert!(first.iter().all(|late| *late < Duration::from_secs(60)));
    assert!(first.iter().max() > first.iter().min());
}

#[test]
fn a_signal_makes_a_job_look_before_its_time() {
    let (world, task) = (World::new(true), Scripted::idle("tidy"));
    let scheduler = world.scheduler(&[Arc::clone(&task)]);
    every_minute(&scheduler, "tidy", |_| {});
    world.pass(&scheduler, 10);
    scheduler.signal("tidy");
    world.pass(&scheduler, 1);
    assert_eq!((task.ran(), world.runs("tidy")[0].kind), (1, Kind::Signalled));
    world.pass(&scheduler, 40);
    assert_eq!(task.ran(), 1, "once");
}

#[test]
fn history_keeps_the_last_run_and_the_last_failure() {
    use ochre_scheduler::JobStore;
    let fails = Mutex::new(true);
    let task = Scripted::new("tidy", move |_| {
        if std::mem::take(&mut *fails.lock()) { Err(Failure::Failed("once".into())) } else { Ok("done".into()) }
    });
    let world = World::new(true);
    let scheduler = world.scheduler(&[task]);
    every_minute(&scheduler, "tidy", |policies| policies.retries = 0);
    world.pass(&scheduler, 1200);
    while world.store.prune("tidy", world.now(), 5, 3).expect("in memory") > 0 {}
    let runs = world.runs("tidy");
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [Status::Failed, Status::Succeeded]);
}

/// Never any room, but for what is urgent.
struct Crowded;

impl ochre_scheduler::Governor for Crowded {
    fn is_crowded(&self) -> bool {
        true
    }

    fn admit(&self, _: ochre_scheduler::Class, _: Duration) -> ochre_scheduler::Admission {
        ochre_scheduler::Admission::Go
    }

    fn pause(&self, _: ochre_scheduler::Class, _: Duration) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_run_that_gets_too_little_done_goes_on_as_urgent_and_ends() {
    let world = World::new(true);
    let task = Scripted::new("long", |context| {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(1));
            context.step(ochre_scheduler::Progress::default())?;
        }
        Ok("done".into())
    });
    let parts = ochre_scheduler::SchedulerConfig {
        store: Arc::clone(&world.store) as _,
        clock: Arc::clone(&world.clock) as _,
        governor: Arc::new(Crowded),
        ..ochre_scheduler::SchedulerConfig::new(vec![task], "crowded".into())
    };
    let scheduler = ochre_scheduler::LocalScheduler::new("local", parts).expect("one task");
    every_minute(&scheduler, "long", |policies| {
        (policies.class, policies.max_defer) = (ochre_scheduler::Class::Idle, Interval(Duration::from_millis(3)));
    });
    world.pass(&scheduler, 60);
    let statuses: Vec<Status> = world.runs("long").iter().map(|run| run.status).collect();
    assert_eq!(statuses, [Status::Escalated, Status::Succeeded]);
}

/// Keeps idle runs waiting for ever, and lets others go on.
struct NoRoomForIdle;

impl ochre_scheduler::Governor for NoRoomForIdle {
    fn admit(&self, class: ochre_scheduler::Class, _: Duration) -> ochre_scheduler::Admission {
        match class {
            ochre_scheduler::Class::Idle => ochre_scheduler::Admission::Wait(Duration::from_millis(20)),
            _ => ochre_scheduler::Admission::Go,
        }
    }

    fn pause(&self, _: ochre_scheduler::Class, _: Duration) -> Duration {
        Duration::ZERO
    }
}

/// Waits until a task has run.
fn wait_for(task: &Scripted) {
    let began = std::time::Instant::now();
    while task.ran() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} does not run", task.name);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn runs_that_wait_for_room_keep_no_other_from_running() {
    let tasks = ["first", "second", "third"].map(Scripted::idle);
    let all = tasks.iter().map(|task| Arc::clone(task) as Arc<dyn ochre_scheduler::Task>).collect();
    let parts = ochre_scheduler::SchedulerConfig {
        governor: Arc::new(NoRoomForIdle),
        ..ochre_scheduler::SchedulerConfig::new(all, "me".into())
    };
    let scheduler = ochre_scheduler::LocalScheduler::new("local", parts).unwrap();
    let second = Duration::from_secs(1);
    for (job, class) in [
        ("first", ochre_scheduler::Class::Idle),
        ("second", ochre_scheduler::Class::Idle),
        ("third", ochre_scheduler::Class::Normal),
    ] {
        let change = |policies: &mut ochre_scheduler::Policies| {
            (policies.class, policies.max_defer) = (class, Interval(Duration::from_secs(3600)));
        };
        scheduler.schedule_interval(job, second, options(change)).unwrap();
    }
    scheduler.start().unwrap();
    wait_for(&tasks[2]);
    scheduler.stop();
    assert_eq!((tasks[0].ran(), tasks[1].ran()), (0, 0));
}

#[test]
fn what_is_urgent_runs_although_all_places_are_taken() {
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy = |name| {
        let is_over = Arc::clone(&is_over);
        Scripted::new(name, move |context| {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                context.step(ochre_scheduler::Progress::default())?;
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok("done".into())
        })
    };
    let (first, second, urgent, usual) =
        (busy("first"), busy("second"), Scripted::idle("urgent"), Scripted::idle("usual"));
    *urgent.look.lock() = Readiness::Urgent("now".into());
    let all =
        [&first, &second, &urgent, &usual].map(|task| Arc::clone(task) as Arc<dyn ochre_scheduler::Task>).to_vec();
    let scheduler =
        ochre_scheduler::LocalScheduler::new("local", ochre_scheduler::SchedulerConfig::new(all, "me".into())).unwrap();
    for (job, priority) in [("first", 9), ("second", 9)] {
        scheduler
            .schedule_interval(job, Duration::from_millis(10), options(|policies| policies.priority = priority))
            .unwrap();
    }
    scheduler.start().unwrap();
    wait_for(&first);
    wait_for(&second);
    for job in ["urgent", "usual"] {
        scheduler.schedule_interval(job, Duration::from_millis(10), options(|_| {})).unwrap();
    }
    wait_for(&urgent);
    assert_eq!(usual.ran(), 0, "others wait");
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    wait_for(&usual);
    scheduler.stop();
}
