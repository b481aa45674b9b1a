//! Every job, killed at each of its steps, and met by a full disk at each of its writes: the database opens clean,
//! holds what it held, and the job does its work the next time.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ochre_engine::model::Space;
use ochre_engine::scheduler::{
    Admission, Class, Governor, JobState, LocalScheduler, Run, SchedulerConfig, SchedulerRegistry, Status,
};
use ochre_engine::{Database, Function, IndexDefinition, NewRecords, Options};
use ochre_testkit::{Generator, Oracle, Recorder};
use serde_json::json;

use crate::support::{PATIENCE, collection, copy, recorded, same_records, small, step};

/// Every job, in groups of about equal length.
const JOBS: [&[&str]; 3] = [
    &[
        "index-sync",
        "index-rebuild",
        "metadata-indexes",
        "functions",
        "memory",
        "optimize",
        "history-prune",
        "orphans",
        "schema-audit",
    ],
    &["compact", "vacuum", "full-vacuum", "checkpoint", "log-prune", "sweep", "check"],
    &["erase", "backup", "backup-incremental", "backup-retention", "backup-verify"],
];
#[test]
fn every_job_is_killed() {
    let database = Database::ephemeral().unwrap();
    let mut all: Vec<String> = database.scheduler().jobs().into_iter().map(|job| job.name).collect();
    let mut killed: Vec<&str> = JOBS.iter().copied().flatten().copied().collect();
    all.sort();
    killed.sort_unstable();
    assert_eq!(all, killed);
}

/// Steps at which a job is killed: all of the first, then ever fewer.
const STEPS: [usize; 12] = [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 41, 60];

/// All jobs off, so that only what is run by hand runs; and something to do for each in small steps.
fn by_hand(target: &Path) -> Options {
    let mut options =
        Options { background: true, backup_target: Some(target.to_string_lossy().into_owned()), ..small() };
    for job in JOBS.iter().copied().flatten() {
        let change = options.jobs.entry((*job).into()).or_default();
        change.insert("enabled".into(), json!(false));
        change.insert("policies".into(), json!({"class": "urgent", "retries": 0}));
    }
    options
        .setting("vacuum", "step_pages", 4)
        .setting("log-prune", "entries", 1)
        .setting("backup-retention", "chains", 1)
        .setting("index-rebuild", "dead_share", 0.01)
}

/// A database with a debt of every kind, made by a random life.
fn indebted(home: &Path, target: &Path) -> Oracle {
    let database = Database::open_with(home, by_hand(target)).unwrap();
    let tests = collection(&database, Space::L2);
    let (mut generator, mut oracle) = (Generator::new(77, 40, 3000), Oracle::default());
    let run = |job: &str| drop(run(&database, job));
    for round in 0..150 {
        step(&tests, &mut oracle, generator.operation(60));
        if round == 90 {
            // Its records are to be merged with those that it shared.
            tests.fork("passing-fork").unwrap();
        }
        match round {
            50 => run("index-sync"),
            60 | 100 => run("backup"),
            80 | 120 => run("backup-incremental"),
            _ => {}
        }
    }
    tests.attach_function("counts", Function::Statistics, "counted").unwrap();
    let by_key = json!({"index_name": "by_key", "collection": "tests", "columns": ["a", "b"]});
    database.create_metadata_index(&IndexDefinition::from_json(by_key).unwrap()).unwrap();
    let passing = database.create_collection("passing").unwrap();
    let ids = (0..200).map(|number| number.to_string());
    let embeddings = (0..200).map(|number| [number as f32, 1.0]);
    let documents = (0..200).map(|number| format!("{number} ").repeat(500));
    passing.add(NewRecords::new(ids, embeddings).documents(documents)).unwrap();
    for name in ["passing", "passing-fork"] {
        database.delete_collection_in("default_tenant", "default_database", name).unwrap();
    }
    drop(tests);
    database.close();
    let stray = home.join("cache/00000000-0000-4000-8000-000000000000");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("graph.writing"), [0; 999]).unwrap();
    oracle
}

/// Runs a job by hand and waits until it has ended; none if it could not be noted that it shall run, or if nothing of
/// it is seen for as long as this: on a full disk its end may not have been written down.
fn try_run(database: &Database, job: &str, quiet: Duration) -> Option<Run> {
    let last = || database.scheduler().history(job, 1).ok()?.pop();
    let before = last().map(|run| run.fence);
    database.scheduler().run_now(job).ok()?;
    let (mut seen, patience) = (Instant::now(), Instant::now() + PATIENCE);
    loop {
        if let Some(run) = last().filter(|run| Some(run.fence) != before && run.ended.is_some()) {
            return Some(run);
        }
        let status = database.scheduler().job(job).unwrap();
        if status.running.is_some() || status.state == JobState::Waiting {
            seen = Instant::now();
        } else if seen.elapsed() > quiet {
            return None;
        }
        assert!(Instant::now() < patience, "{job} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`try_run`] on a disk that works, until it succeeds: backups have stamps of a second, and one that was cut short
/// may have taken it.
fn run(database: &Database, job: &str) -> Run {
    for _ in 0..3 {
        let run = try_run(database, job, PATIENCE).unwrap();
        if !run.message.contains("same second") {
            return run;
        }
        std::thread::sleep(Duration::from_millis(1000));
    }
    panic!("{job}: the second does not pass")
}

/// Ends the process, as kill -9 does, at a step.
struct Deadly {
    left: AtomicUsize,
}

impl Governor for Deadly {
    fn admit(&self, _: Class, _: Duration) -> Admission {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::abort();
        }
        Admission::Go
    }

    fn pause(&self, _: Class, _: Duration) -> Duration {
        Duration::ZERO
    }
}

/// What the process does that is killed: `OCHRE_TEST_KILL` is home, target, job and step, a line each.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child() {
    let Ok(order) = std::env::var("OCHRE_TEST_KILL") else { return };
    let [home, target, job, step] = order.lines().collect::<Vec<_>>()[..] else { panic!("four lines: {order}") };
    let left = step.parse().unwrap();
    let mut schedulers = SchedulerRegistry::default();
    schedulers.register("deadly", move |parts| {
        let governor = Arc::new(Deadly { left: AtomicUsize::new(left) });
        Ok(Arc::new(LocalScheduler::new("deadly", SchedulerConfig { governor, ..parts })?))
    });
    let options =
        Options { scheduler: "deadly".into(), schedulers: Arc::new(schedulers), ..by_hand(Path::new(target)) };
    let database = Database::open_with(home, options).unwrap();
    let ended = run(&database, job);
    assert_eq!(ended.status, Status::Succeeded, "{job}: {}", ended.message);
    database.close();
}

fn kill_at_each_step(jobs: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (home, target) = (folder.path().join("home"), folder.path().join("target"));
    let oracle = indebted(&home, &target);
    let (mut killed, mut ended) = (0, 0);
    for job in jobs {
        for step in STEPS {
            let (here, there) = (folder.path().join("a"), folder.path().join("b"));
            copy(&home, &here);
            copy(&target, &there);
            let order = format!("{}\n{}\n{job}\n{step}", here.display(), there.display());
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--ignored", "kills::child"])
                .env("OCHRE_TEST_KILL", order)
                .output()
                .unwrap();
            let is_killed = !child.status.success();
            if is_killed {
                let words = String::from_utf8_lossy(&child.stderr);
                assert!(child.status.code().is_none(), "{job} at step {step}: it failed rather than died: {words}");
            }
            // Opening sorts out what the process left; then everything is there, and the job does its work.
            let database = Database::open_with(&here, by_hand(&there)).unwrap();
            same_records(&collection(&database, Space::L2), &oracle);
            let again = run(&database, job);
            assert_eq!(again.status, Status::Succeeded, "{job} after step {step}: {}", again.message);
            same_records(&collection(&database, Space::L2), &oracle);
            database.close();
            let report = ochre_engine::check(&here).unwrap();
            assert!(report.is_clean(), "{job} at step {step}: {:?}", report.findings);
            std::fs::remove_dir_all(&here).unwrap();
            std::fs::remove_dir_all(&there).unwrap();
            (killed, ended) = (killed + usize::from(is_killed), ended + usize::from(!is_killed));
            if !is_killed {
                break;
            }
        }
    }
    assert!(killed >= jobs.len(), "jobs must die at a step: {killed} did, {ended} came to their end");
}

#[test]
fn jobs_of_the_index_may_be_killed_at_each_step() {
    kill_at_each_step(JOBS[0]);
}

#[test]
fn jobs_of_the_files_may_be_killed_at_each_step() {
    kill_at_each_step(JOBS[1]);
}

#[test]
fn jobs_of_backups_may_be_killed_at_each_step() {
    kill_at_each_step(JOBS[2]);
}

#[test]
fn a_disk_that_is_full_at_any_write_of_a_job_costs_nothing_but_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (home, target) = (folder.path().join("home"), folder.path().join("target"));
    let oracle = indebted(&home, &target);
    let (mut met, mut failed) = (0, 0);
    for job in [
        "compact",
        "vacuum",
        "full-vacuum",
        "checkpoint",
        "log-prune",
        "sweep",
        "erase",
        "backup-incremental",
        "metadata-indexes",
    ] {
        for write in [0, 5, 11, 16, 23, 40] {
            let here = folder.path().join("a");
            copy(&home, &here);
            let recorder = Recorder::new();
            let by_hand = by_hand(&target);
            let options = Options {
                background: true,
                jobs: by_hand.jobs.clone(),
                backup_target: by_hand.backup_target.clone(),
                ..recorded(&recorder)
            };
            let database = Database::open_with(&here, options).unwrap();
            recorder.fail_once(write, true);
            let ended = try_run(&database, job, Duration::from_millis(500));
            met += usize::from(recorder.stop_failing());
            if let Some(ended) = ended.filter(|run| run.status != Status::Succeeded) {
                failed += 1;
                let words = ended.message.to_lowercase();
                let is_told = ["space", "full", "same second"].iter().any(|word| words.contains(word));
                assert!(is_told, "{job} at write {write}: {words}");
            }
            same_records(&collection(&database, Space::L2), &oracle);
            let again = run(&database, job);
            assert_eq!(again.status, Status::Succeeded, "{job} after write {write}: {}", again.message);
            database.close();
            assert!(ochre_engine::check(&here).unwrap().is_clean());
            std::fs::remove_dir_all(&here).unwrap();
        }
    }
    // How many of the writes are those of the job depends on what the threads of the database do meanwhile.
    assert!(met > 20 && failed > 1, "the full disk was met {met} times, and made {failed} runs fail");
}
