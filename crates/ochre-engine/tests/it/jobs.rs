//! What the database does by itself: each debt is made through the API, and gone once its schedule came.

use std::path::Path;
use std::time::{Duration, Instant};

use ochre_engine::model::Space;
use ochre_engine::scheduler::{JobState, Kind, Status};
use ochre_engine::{Collection, Database, DeleteRequest, GetRequest, NewRecords, Options, QueryRequest, Strategy};
use ochre_testkit::{Generator, Oracle};
use serde_json::json;

use crate::support::{PATIENCE, collection, same_answers, same_records, small, step};

/// Nothing runs by itself but `jobs`, each by its schedule: a fifth of a second, or every second.
fn only(jobs: &[&str]) -> Options {
    const CRON: [&str; 3] = ["check", "full-vacuum", "orphans"];
    const ALL: [&str; 14] = [
        "check",
        "checkpoint",
        "compact",
        "full-vacuum",
        "history-prune",
        "index-rebuild",
        "index-sync",
        "log-prune",
        "memory",
        "optimize",
        "orphans",
        "schema-audit",
        "sweep",
        "vacuum",
    ];
    let mut options = Options { background: true, ..small() };
    for job in ALL {
        let change = options.jobs.entry(job.into()).or_default();
        change.insert("enabled".into(), json!(jobs.contains(&job)));
        if CRON.contains(&job) {
            change.insert("cron".into(), json!("* * * * * *"));
        } else {
            change.insert("interval".into(), json!("200ms"));
        }
        change.insert("policies".into(), json!({"class": "urgent"}));
    }
    options
}

/// Waits until something holds that a schedule has to bring about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < patience, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Adds so many records, with a document of a kilobyte each.
fn fill(collection: &Collection, count: usize) {
    for first in (0..count).step_by(100) {
        let numbers = first..(first + 100).min(count);
        let embeddings = numbers.clone().map(|number| [number as f32, (number % 7) as f32, 1.0, 0.5]);
        let documents = numbers.clone().map(|number| format!("{number} ").repeat(200));
        let records = NewRecords::new(numbers.map(|number| number.to_string()), embeddings).documents(documents);
        collection.upsert(records).unwrap();
    }
}

fn delete(collection: &Collection, numbers: std::ops::Range<usize>) {
    let ids = numbers.map(|number| number.to_string()).collect();
    collection.delete(DeleteRequest { ids: Some(ids), ..DeleteRequest::default() }).unwrap();
}

/// Opens with only these jobs, makes a debt, and waits until it is gone; the job must have run by its schedule
/// or a signal.
fn check(
    job: &str, also: &[&str], change: impl FnOnce(Options) -> Options, make: impl FnOnce(&Database, &Path),
    is_gone: impl Fn(&Database, &Path) -> bool,
) {
    let folder = tempfile::tempdir().unwrap();
    let jobs: Vec<&str> = [job].iter().chain(also).copied().collect();
    let options = change(only(&jobs));
    let database = Database::open_with(folder.path(), options).unwrap();
    let scheduler = database.scheduler();
    scheduler.pause(job).unwrap();
    make(&database, folder.path());
    assert!(!is_gone(&database, folder.path()), "{job}: there is no debt to begin with");
    scheduler.resume(job).unwrap();
    eventually(job, || is_gone(&database, folder.path()));
    eventually(job, || {
        let history = scheduler.history(job, 100).unwrap();
        history.iter().any(|run| run.kind != Kind::Manual && run.status == Status::Succeeded)
    });
    database.close();
    assert!(ochre_engine::check(folder.path()).unwrap().is_clean());
}

#[test]
fn index_sync_moves_what_was_written_into_the_graph() {
    let notes = |database: &Database| database.collection("notes").unwrap();
    check(
        "index-sync",
        &[],
        |options| options,
        |database, _| fill(&database.create_collection("notes").unwrap(), 500),
        |database, _| {
            let mut request = QueryRequest::nearest_to([7.0, 0.0, 1.0, 0.5]).k(3);
            request.hint = Some(Strategy::Graph);
            let plan = notes(database).query(&request).unwrap().plans[0];
            plan.strategy == Strategy::Graph && plan.unindexed == 0
        },
    );
}

#[test]
fn a_collection_that_outlives_its_database_handle_is_maintained() {
    let database = Database::ephemeral_with(Options { background: true, ..crate::support::small() }).unwrap();
    let notes = database.create_collection("notes").unwrap();
    drop(database);
    fill(&notes, 200);
    notes.count().unwrap();
    eventually("the graph", || notes.graph_nodes().unwrap() >= 200 && notes.index_progress().unwrap().1 == 0);
}

#[test]
fn index_sync_moves_few_vectors_once_they_have_waited() {
    let options = |options: Options| options.setting("index-sync", "tail_age", "300ms");
    check(
        "index-sync",
        &[],
        options,
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            fill(&notes, 500);
            database.scheduler().resume("index-sync").unwrap();
            eventually("the first graph", || notes.index_progress().unwrap().1 == 0);
            database.scheduler().pause("index-sync").unwrap();
            fill(&notes, 503);
        },
        |database, _| database.collection("notes").unwrap().index_progress().unwrap() == (503, 0),
    );
}

#[test]
fn index_rebuild_replaces_a_graph_that_is_mostly_dead() {
    check(
        "index-rebuild",
        &["index-sync"],
        |options| options,
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            fill(&notes, 600);
            eventually("a graph", || notes.index_progress().unwrap().0 == 600);
            delete(&notes, 0..300);
        },
        |database, _| database.collection("notes").unwrap().graph_nodes().unwrap() == 300,
    );
}

#[test]
fn sweep_removes_what_is_left_of_deleted_collections() {
    check(
        "sweep",
        &[],
        |options| options,
        |database, _| {
            fill(&database.create_collection("notes").unwrap(), 300);
            database.delete_collection_in("default_tenant", "default_database", "notes").unwrap();
        },
        |database, _| database.debt().unwrap().deleted_collections == 0,
    );
}

#[test]
fn vacuum_gives_free_pages_back() {
    check(
        "vacuum",
        &[],
        |options| options,
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            fill(&notes, 4000);
            delete(&notes, 0..3900);
        },
        |database, folder| {
            let file = std::fs::metadata(folder.join("ochre.sqlite3")).unwrap().len();
            database.statistics().unwrap().free_bytes <= 1 << 20 && file < 3 << 20
        },
    );
}

#[test]
fn full_vacuum_runs_where_it_is_enabled() {
    check(
        "full-vacuum",
        &[],
        |options| options,
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            fill(&notes, 4000);
            delete(&notes, 0..3900);
        },
        |database, _| database.statistics().unwrap().free_bytes < 64 << 10,
    );
}

#[test]
fn checkpoint_keeps_the_write_ahead_log_short() {
    check(
        "checkpoint",
        &[],
        |options| {
            options.setting("checkpoint", "wal_bytes", 1 << 20).setting("checkpoint", "wal_bytes_urgent", 1 << 20)
        },
        |database, _| fill(&database.create_collection("notes").unwrap(), 3000),
        |database, _| database.statistics().unwrap().wal_bytes < 1 << 20,
    );
}

#[test]
fn log_prune_forgets_what_nobody_needs() {
    check(
        "log-prune",
        &[],
        |options| options.setting("log-prune", "entries", 100),
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            for round in 0..1200 {
                notes.upsert(NewRecords::new(["a"], [[round as f32, 0.0]])).unwrap();
            }
        },
        |database, _| database.debt().unwrap().prunable_entries == 0,
    );
}

#[test]
fn compact_rewrites_segments_that_are_mostly_dead() {
    check(
        "compact",
        &["index-sync"],
        |options| options,
        |database, _| {
            let notes = database.create_collection("notes").unwrap();
            for round in 0..20u16 {
                let embeddings = (0..200u16).map(|number| [f32::from(number), f32::from(round), 1.0, 2.0]);
                notes.upsert(NewRecords::new((0..200).map(|number| number.to_string()), embeddings)).unwrap();
            }
        },
        |database, _| {
            let sizes = database.statistics().unwrap();
            sizes.dead_vector_bytes < 20 << 10 && sizes.segment_bytes < 60 << 10
        },
    );
}

#[test]
fn memory_unloads_what_nobody_uses() {
    check(
        "memory",
        &[],
        |options| options.setting("memory", "idle_unload_graph", "100ms").setting("memory", "idle_unload", "100ms"),
        |database, _| fill(&database.create_collection("notes").unwrap(), 300),
        |database, _| database.memory().is_empty(),
    );
}

#[test]
fn orphans_are_removed() {
    let planted = |folder: &Path| folder.join("cache/00000000-0000-4000-8000-000000000000");
    check(
        "orphans",
        &[],
        |options| options,
        |_, folder| {
            std::fs::create_dir_all(planted(folder)).unwrap();
            std::fs::write(planted(folder).join("graph.snapshot"), "left over").unwrap();
        },
        |_, folder| !planted(folder).exists(),
    );
}

#[test]
fn history_prune_forgets_old_runs() {
    let count = |database: &Database| database.scheduler().history("optimize", 1000).unwrap().len();
    check(
        "history-prune",
        &["optimize"],
        |mut options| {
            let policies = json!({"class": "urgent", "history_max": 3});
            options.jobs.entry("optimize".into()).or_default().insert("policies".into(), policies);
            options
        },
        |database, _| {
            eventually("some runs", || count(database) > 8);
            database.scheduler().pause("optimize").unwrap();
        },
        |database, _| count(database) <= 4,
    );
}

#[test]
fn check_finds_damage_while_the_database_is_open_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open_with(folder.path(), only(&["check"])).unwrap();
    let notes = database.create_collection("notes").unwrap();
    fill(&notes, 300);
    let last = || database.scheduler().history("check", 1).unwrap().pop();
    eventually("a clean check", || last().is_some_and(|run| run.status == Status::Succeeded));
    let segment = std::fs::read_dir(folder.path().join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, bytes).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    eventually("the damage is found", || {
        last().is_some_and(|run| run.status == Status::Failed && run.message.contains(name))
    });
    assert_eq!(notes.count().unwrap(), 300, "what does not need it goes on");
    assert_eq!(notes.get(&GetRequest::default()).unwrap().len(), 300);
}

#[test]
fn jobs_and_their_history_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Database::open_with(folder.path(), only(&["optimize"])).unwrap();
    let database = open();
    eventually("a run", || !database.scheduler().history("optimize", 1).unwrap().is_empty());
    let change = json!({"interval": "1h", "policies": {"priority": 7}});
    database.scheduler().alter("optimize", change.as_object().unwrap()).unwrap();
    database.scheduler().pause("optimize").unwrap();
    let before = database.scheduler().history("optimize", 100).unwrap().len();
    database.close();
    let database = open();
    let job = database.scheduler().job("optimize").unwrap();
    assert_eq!((job.state, job.trigger.as_str(), job.policies.priority), (JobState::Paused, "every 1h", 7));
    assert_eq!(database.scheduler().history("optimize", 100).unwrap().len(), before);
}

#[test]
fn a_misnamed_job_or_knob_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |options: Options| Database::open_with(folder.path(), options).map(drop).unwrap_err().to_string();
    let error = refused(Options::default().setting("vacum", "free_share", 0.1));
    assert!(error.contains("vacum") && error.contains("did you mean 'vacuum'"), "{error}");
    let error = refused(Options::default().setting("vacuum", "free_shar", 0.1));
    assert!(error.contains("free_shar") && error.contains("did you mean 'free_share'"), "{error}");
    let error = refused(Options { scheduler: "cluster".into(), ..Options::default() });
    assert!(error.contains("cluster") && error.contains("local"), "{error}");
    Database::open(folder.path()).unwrap();
}

/// Random operations against the model while every job runs all the time, is run by hand, and cancelled.
fn answers_stay(space: Space, seed: u64, steps: usize) {
    let folder = tempfile::tempdir().unwrap();
    let every = ["check", "checkpoint", "compact", "history-prune", "index-rebuild", "index-sync", "log-prune"];
    let jobs = [&every[..], &["memory", "optimize", "orphans", "sweep", "vacuum"]].concat();
    let options = || {
        let mut options = only(&jobs)
            .setting("memory", "idle_unload", "1ms")
            .setting("memory", "idle_unload_graph", "100ms")
            .setting("index-sync", "tail_age", "20ms")
            .setting("log-prune", "entries", 1)
            .setting("vacuum", "free_share", 0.0);
        for job in jobs.iter().filter(|job| !["check", "orphans"].contains(job)) {
            options.jobs.entry((*job).into()).or_default().insert("interval".into(), json!("20ms"));
        }
        options
    };
    let (mut generator, mut oracle) = (Generator::new(seed, 40, 3000), Oracle::default());
    let mut database = Database::open_with(folder.path(), options()).unwrap();
    for _ in 0..steps {
        let tests = collection(&database, space);
        let operation = generator.operation(60);
        step(&tests, &mut oracle, operation);
        same_answers(&tests, &oracle, space, &mut generator);
        let job = *generator.rng.choice(&jobs).unwrap();
        match generator.rng.u8(0..20) {
            0..=3 => drop(database.scheduler().run_now(job).unwrap()),
            4..=7 => database.scheduler().cancel(job).unwrap(),
            8 => same_records(&tests, &oracle),
            9 => {
                // Closing stops every run at whatever step it is.
                drop(tests);
                database.close();
                database = Database::open_with(folder.path(), options()).unwrap();
            }
            _ => {}
        }
    }
    same_records(&collection(&database, space), &oracle);
    let ended = |job: &str, status| {
        database.scheduler().history(job, 1000).unwrap().iter().filter(|run| run.status == status).count()
    };
    // A workload during which nothing was maintained proves nothing.
    for job in ["index-sync", "memory", "compact", "index-rebuild"] {
        assert!(ended(job, Status::Succeeded) > 0, "{job} never ran");
    }
    for job in &jobs {
        assert_eq!(ended(job, Status::Failed), 0, "{job}: {:?}", database.scheduler().history(job, 5).unwrap());
    }
    database.close();
    assert!(ochre_engine::check(folder.path()).unwrap().is_clean());
}

#[test]
fn maintenance_never_changes_an_answer() {
    answers_stay(Space::L2, 41, 700);
}

#[test]
fn maintenance_never_changes_an_answer_in_cosine() {
    answers_stay(Space::Cosine, 42, 500);
}
