//! One contract for every job store: the same checks run on SQLite and in memory.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{
    Finished, JobStore, Kind, MemoryJobStore, Policies, Run, Schedule, Status, SystemClock, Tally, Time, Trigger,
};
use ochre_store::{SqliteOptions, SqliteStore};

const LEASE: Duration = Duration::from_secs(30);

fn on_every_store(check: impl Fn(&dyn JobStore)) {
    let folder = tempfile::tempdir().unwrap();
    check(&SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
    check(&MemoryJobStore::new(Arc::new(SystemClock), true));
}

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn schedule() -> Schedule {
    Schedule {
        name: "tidy".into(),
        trigger: Trigger::cron("30 2 * * MON-FRI", "Europe/Berlin").unwrap(),
        policies: Policies::default(),
        knobs: serde_json::Map::new(),
        declared: serde_json::Value::Null,
        is_enabled: true,
        is_paused: false,
        is_broken: false,
        next: Some(at(60)),
        pending: Vec::new(),
        last_nominal: None,
        last_run: None,
        last_look: None,
        tally: Tally::default(),
        failures: 0,
        version: 0,
    }
}

fn run(nominal: i64) -> Run {
    Run {
        job: "tidy".into(),
        nominal: at(nominal),
        kind: Kind::Scheduled,
        attempt: 1,
        owner: "me".into(),
        fence: 0,
        lease_until: at(0),
        started: at(nominal),
        ended: None,
        status: Status::Running,
        message: "there is work".into(),
        progress: None,
        coalesced: 0,
    }
}

fn stored(store: &dyn JobStore) -> Schedule {
    store.load().unwrap().remove(0)
}

fn ended(run: Run, status: Status) -> Run {
    Run { status, ended: Some(at(1000)), ..run }
}

#[test]
fn a_schedule_is_saved_only_over_the_version_it_was_read_at() {
    on_every_store(|store| {
        assert!(store.save(&schedule()).unwrap());
        let read = stored(store);
        assert_eq!(read, Schedule { version: 1, ..schedule() });
        assert!(!store.save(&schedule()).unwrap(), "another is there");
        assert!(store.save(&Schedule { is_paused: true, ..read.clone() }).unwrap());
        assert!(!store.save(&read).unwrap(), "it has changed");
        assert!(stored(store).is_paused);
    });
}

#[test]
fn a_run_begins_once_and_together_with_its_schedule() {
    on_every_store(|store| {
        store.save(&schedule()).unwrap();
        let read = stored(store);
        let moved = Schedule { next: Some(at(120)), ..read.clone() };
        let first = store.begin(&moved, &run(60), LEASE).unwrap().expect("the first");
        assert!(store.begin(&moved, &run(60), LEASE).unwrap().is_none(), "an older version");
        let read = stored(store);
        assert_eq!(read.next, Some(at(120)));
        assert!(store.begin(&read, &run(60), LEASE).unwrap().is_none(), "the same run");
        assert_eq!(stored(store).version, read.version, "who loses changes nothing");
        let second = store.begin(&read, &run(120), LEASE).unwrap().expect("another");
        assert!(second.fence > first.fence);
        let history = store.history("tidy", 10).unwrap();
        assert_eq!(history.iter().map(|run| run.fence).collect::<Vec<_>>(), [second.fence, first.fence]);
    });
}

#[test]
fn only_the_holder_of_a_run_can_end_it_and_once() {
    on_every_store(|store| {
        store.save(&schedule()).unwrap();
        let run = store.begin(&stored(store), &run(60), LEASE).unwrap().expect("the first");
        assert!(store.beat(&run, LEASE).unwrap());
        let thief = Run { fence: run.fence + 1, ..run.clone() };
        assert!(!store.beat(&thief, LEASE).unwrap());
        let end = ended(run.clone(), Status::Succeeded);
        let finish = |schedule: &Schedule, run: &Run| store.finish(schedule, run).unwrap();
        assert_eq!(finish(&stored(store), &ended(thief, Status::Succeeded)), Finished::NotHeld);
        assert_eq!(finish(&schedule(), &end), Finished::Changed);
        assert_eq!(finish(&stored(store), &end), Finished::Done);
        assert_eq!(finish(&stored(store), &end), Finished::NotHeld);
        assert!(!store.beat(&run, LEASE).unwrap());
        assert_eq!(store.history("tidy", 1).unwrap(), [end]);
    });
}

#[test]
fn what_another_owner_left_under_way_is_abandoned() {
    on_every_store(|store| {
        store.save(&schedule()).unwrap();
        let run = store.begin(&stored(store), &run(60), LEASE).unwrap().expect("the first");
        assert!(store.abandoned("me").unwrap().is_empty());
        assert_eq!(store.abandoned("another").unwrap(), [run]);
    });
}

#[test]
fn pruning_keeps_the_last_run_and_the_last_failure() {
    on_every_store(|store| {
        store.save(&schedule()).unwrap();
        for nominal in 1..=10 {
            let run = store.begin(&stored(store), &run(nominal), LEASE).unwrap().expect("a new one");
            let status = if nominal == 3 { Status::Failed } else { Status::Succeeded };
            store.finish(&stored(store), &ended(run, status)).unwrap();
        }
        assert_eq!(store.prune("tidy", at(0), 6, 2).unwrap(), 2, "a step");
        while store.prune("tidy", at(0), 6, 2).unwrap() > 0 {}
        let nominals = |runs: Vec<Run>| runs.iter().map(|run| run.nominal.as_micros() / 1_000_000).collect::<Vec<_>>();
        assert_eq!(nominals(store.history("tidy", 20).unwrap()), [10, 9, 8, 7, 6, 5, 3]);
        store.prune("tidy", at(2000), 100, 100).unwrap();
        assert_eq!(nominals(store.history("tidy", 20).unwrap()), [10, 3]);
    });
}
