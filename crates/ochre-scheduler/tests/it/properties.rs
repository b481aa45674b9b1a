//! What holds whatever happens: crashes at every call of the store, restarts, pauses, jumps of the clock, and
//! two schedulers on one store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{Failure, JobStatus, JobStore, LocalScheduler, Misfire, Readiness, Run, Scheduler, Status};

use crate::harness::{Mortal, Scripted, World, every_minute};

/// No run twice, fences that grow, and every scheduled time in one place of the tally.
fn check(world: &World, task: &Scripted, status: &JobStatus, context: &str) {
    let runs = world.runs(task.name);
    let keys: BTreeSet<_> = runs.iter().map(|run| (run.scheduled_at, run.kind, run.attempt)).collect();
    assert_eq!(keys.len(), runs.len(), "{context}: a run twice");
    assert!(task.ran() <= runs.len() as u64, "{context}: ran {} times for {} runs", task.ran(), runs.len());
    assert!(runs.windows(2).all(|two| two[0].fence < two[1].fence), "{context}: fences");
    let firsts = |run: &&Run| run.kind == ochre_scheduler::Kind::Scheduled && run.attempt == 1;
    assert_eq!(runs.iter().filter(firsts).count() as u64, status.counters.ran, "{context}: tally of runs");
}

/// Nominal times dealt with, all together.
fn dealt_with(status: &JobStatus) -> u64 {
    let counters = status.counters;
    counters.ran + counters.coalesced + counters.nothing_to_do + counters.missed + counters.overlapped
}

#[test]
fn a_crash_at_any_call_of_the_store_loses_no_run_and_repeats_none() {
    for calls in 0..24 {
        for is_done in [false, true] {
            let (world, task) = (World::new(true), Scripted::idle("tidy"));
            let context = format!("death at call {calls}, {}", if is_done { "after it" } else { "before it" });
            let mortal = Mortal::new(Arc::clone(&world.store) as Arc<dyn JobStore>, calls, is_done);
            let scheduler = world.scheduler_on(&[Arc::clone(&task)], Arc::clone(&mortal) as Arc<dyn JobStore>);
            let hour = Duration::from_secs(60);
            let declared = scheduler.schedule_interval("tidy", hour, crate::harness::options(|_| {})).is_ok();
            for _ in 0..5 {
                world.clock.advance(Duration::from_secs(60));
                if !declared || mortal.is_dead() || scheduler.poll().is_err() {
                    break;
                }
            }
            drop(scheduler);
            // The next life.
            let scheduler = world.scheduler(&[Arc::clone(&task)]);
            every_minute(&scheduler, "tidy", |_| {});
            world.pass(&scheduler, 200);
            let status = scheduler.job("tidy").expect("listed");
            check(&world, &task, &status, &context);
            let runs = world.runs("tidy");
            assert!(runs.iter().all(|run| run.status != Status::Running), "{context}: a run left under way");
            // Whatever was lost was tried again.
            for lost in runs.iter().filter(|run| run.status == Status::Lost) {
                let is_again = |run: &&Run| run.scheduled_at == lost.scheduled_at && run.attempt == lost.attempt + 1;
                assert!(runs.iter().any(|run| is_again(&run)), "{context}: {lost:?} was not tried again");
            }
            let next = status.next_runs[0];
            assert!(next > world.now() && next.since(world.now()) <= Duration::from_secs(60), "{context}: {next}");
        }
    }
}

#[test]
fn random_lives_keep_every_nominal_time_exactly_once() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let misfire = [Misfire::Latest, Misfire::All, Misfire::Skip][rng.usize(0..3)];
        let is_unreliable = rng.bool();
        let fails = std::sync::atomic::AtomicU64::new(0);
        let task = Scripted::new("tidy", move |_| {
            let turn = fails.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if is_unreliable && turn.is_multiple_of(3) {
                Err(Failure::Failed("now and then".into()))
            } else {
                Ok("done".into())
            }
        });
        let world = World::new(true);
        let begin = world.now();
        let declare = |scheduler: &LocalScheduler| {
            every_minute(scheduler, "tidy", |policies| {
                (policies.misfire, policies.broken_after) = (misfire, 0);
            });
        };
        let mut scheduler = world.scheduler(&[Arc::clone(&task)]);
        declare(&scheduler);
        for step in 0..60 {
            match rng.u8(0..10) {
                0..=3 => world.pass(&scheduler, rng.u64(1..300)),
                4 => world.clock.advance(Duration::from_secs(rng.u64(1..100_000))),
                5 => {
                    let look =
                        if rng.bool() { Readiness::Idle("none".into()) } else { Readiness::Ready("some".into()) };
                    *task.look.lock() = look;
                }
                6 => scheduler.pause("tidy").expect("known"),
                7 => scheduler.resume("tidy").expect("known"),
                8 => drop(scheduler.run_now("tidy").expect("known")),
                _ => {
                    // A crash: what only memory had is gone.
                    std::mem::forget(std::mem::replace(&mut scheduler, world.scheduler(&[Arc::clone(&task)])));
                    declare(&scheduler);
                }
            }
            let status = scheduler.job("tidy").expect("listed");
            check(&world, &task, &status, &format!("seed {seed}, step {step}"));
        }
        scheduler.resume("tidy").expect("known");
        world.pass(&scheduler, 4000);
        let status = scheduler.job("tidy").expect("listed");
        check(&world, &task, &status, &format!("seed {seed}, end"));
        assert!(status.next_runs[0] > world.now(), "seed {seed}: something is due and does not run");
        let passed = status.next_runs[0].since(begin).as_secs() / 60 - 1;
        assert_eq!(dealt_with(&status), passed, "seed {seed}: {:?}", status.counters);
    }
}

#[test]
fn two_schedulers_on_one_store_run_each_time_once_also_when_one_dies() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (world, task) = (World::new(false), Scripted::idle("tidy"));
        let mut nodes: Vec<LocalScheduler> = (0..2).map(|_| world.scheduler(&[Arc::clone(&task)])).collect();
        nodes.iter().for_each(|node| every_minute(node, "tidy", |_| {}));
        for _ in 0..80 {
            world.clock.advance(Duration::from_secs(rng.u64(0..90)));
            let node = rng.usize(0..2);
            if rng.u8(0..12) == 0 {
                // It dies in the middle of something, and comes back as someone else.
                let mortal = Mortal::new(Arc::clone(&world.store) as Arc<dyn JobStore>, rng.i64(1..6), rng.bool());
                let dying = world.scheduler_on(&[Arc::clone(&task)], mortal as Arc<dyn JobStore>);
                if dying.schedule_interval("tidy", Duration::from_secs(60), crate::harness::options(|_| {})).is_ok() {
                    let _ = dying.poll();
                }
                nodes[node] = world.scheduler(&[Arc::clone(&task)]);
                every_minute(&nodes[node], "tidy", |_| {});
            }
            nodes[node].poll().expect("the store works");
        }
        world.clock.advance(Duration::from_secs(61));
        for node in &nodes {
            node.poll().expect("the store works");
        }
        let runs = world.runs("tidy");
        let keys: BTreeSet<_> = runs.iter().map(|run| (run.scheduled_at, run.kind, run.attempt)).collect();
        assert_eq!(keys.len(), runs.len(), "seed {seed}");
        assert!(task.ran() <= runs.len() as u64, "seed {seed}: {} for {} runs", task.ran(), runs.len());
        assert!(runs.iter().all(|run| run.status != Status::Running || run.lease_until >= world.now()), "seed {seed}");
        assert!(runs.windows(2).all(|two| two[0].fence < two[1].fence), "seed {seed}: fences");
    }
}

#[test]
fn whoever_lost_its_lease_cannot_end_the_run() {
    let world = World::new(false);
    let (task, rescue) = (Scripted::idle("tidy"), Scripted::idle("tidy"));
    let (first, second) = (world.scheduler(&[Arc::clone(&task)]), world.scheduler(&[Arc::clone(&rescue)]));
    every_minute(&first, "tidy", |_| {});
    every_minute(&second, "tidy", |_| {});
    // The first begins a run and is not heard of for longer than its lease.
    world.clock.advance(Duration::from_secs(60));
    let schedules = world.store.load().expect("in memory");
    let run = Run {
        job: "tidy".into(),
        scheduled_at: world.now(),
        kind: ochre_scheduler::Kind::Scheduled,
        attempt: 1,
        owner: "sleeper".into(),
        fence: 0,
        lease_until: world.now(),
        started: world.now(),
        ended: None,
        status: Status::Running,
        message: String::new(),
        progress: None,
        coalesced: 0,
    };
    let held = world.store.begin(&schedules[0], &run, Duration::from_secs(30)).expect("in memory").expect("first");
    world.clock.advance(Duration::from_secs(31));
    second.poll().expect("the store works");
    let after = world.runs("tidy");
    assert_eq!(after[0].status, Status::Lost);
    assert!(!world.store.renew_lease(&held, Duration::from_secs(30)).expect("in memory"), "its lease is gone");
    let late = Run { status: Status::Succeeded, ended: Some(world.now()), ..held };
    let schedule = world.store.load().expect("in memory").remove(0);
    let finished = world.store.finish(&schedule, &late).expect("in memory");
    assert_eq!(finished, ochre_scheduler::Finished::NotHeld);
}
