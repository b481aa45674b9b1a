//! Backups hold exactly what was committed at their position, whole or in increments, and say what is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ochre_engine::model::Space;
use ochre_engine::scheduler::{Run, Status};
use ochre_engine::{
    BackupKind, Collection, Database, DeleteRequest, DirectoryTarget, Error, GetRequest, Include, Manifest, NewRecords,
    Options, Repository, RestoreAt, RestoreOptions,
};
use ochre_testkit::{Generator, Oracle};
use serde_json::json;

use crate::support::{PATIENCE, collection, same_records, small, step};

pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// Jobs run only when they are told to.
    pub(crate) fn options(&self) -> Options {
        let mut options =
            Options { background: true, backup_target: Some(self.target().display().to_string()), ..small() };
        for job in ["backup", "backup-incremental", "backup-retention", "backup-verify"] {
            options.jobs.entry(job.into()).or_default().insert("cron".into(), json!("0 0 1 1 *"));
        }
        options
    }

    pub(crate) fn open(&self) -> Database {
        Database::open_with(self.home(), self.options()).unwrap()
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::new(Arc::new(DirectoryTarget::new(self.target())))
    }

    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        let (manifests, faults) = self.repository().manifests().unwrap();
        assert_eq!(faults.0, Vec::<String>::new());
        manifests
    }

    /// Restores, and opens what was restored once it was checked.
    pub(crate) fn restore(&self, name: &str, at: RestoreAt) -> Result<Database, Error> {
        let directory = self.folder.path().join(name);
        self.repository().restore(&RestoreOptions { at, ..RestoreOptions::default() }, &directory)?;
        let report = ochre_engine::check(&directory).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        Database::open_with(&directory, small())
    }
}

/// Runs a job and waits until it has ended; a run that is raised goes on as the next.
pub(crate) fn run(database: &Database, job: &str) -> Run {
    let last = || database.scheduler().history(job, 1).unwrap().pop();
    let before = last().map(|run| run.fence);
    database.scheduler().run_now(job).unwrap();
    let patience = Instant::now() + PATIENCE;
    loop {
        let is_over = |run: &Run| Some(run.fence) != before && run.ended.is_some() && run.status != Status::Escalated;
        if let Some(run) = last().filter(is_over) {
            return run;
        }
        assert!(Instant::now() < patience, "{job} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn succeed(database: &Database, job: &str) -> String {
    let run = run(database, job);
    assert_eq!(run.status, Status::Succeeded, "{job}: {}", run.message);
    run.message
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[test]
fn every_backup_of_a_busy_life_restores_to_its_own_moment() {
    let scene = Scene::new();
    let (mut generator, mut oracle) = (Generator::new(7, 40, 3000), Oracle::default());
    let database = scene.open();
    let tests = collection(&database, Space::L2);
    let mut moments: BTreeMap<String, Oracle> = BTreeMap::new();
    for round in 0..240 {
        let operation = generator.operation(60);
        step(&tests, &mut oracle, operation);
        if round % 20 == 19 {
            // The stamp in a backup's id counts seconds.
            succeed(&database, if round == 139 { "backup" } else { "backup-incremental" });
            moments.insert(scene.manifests().last().unwrap().id.clone(), oracle.clone());
            succeed(&database, "compact");
        }
    }
    let manifests = scene.manifests();
    let kinds: Vec<BackupKind> = manifests.iter().map(|manifest| manifest.kind).collect();
    assert_eq!((kinds.len(), kinds.iter().filter(|kind| **kind == BackupKind::Full).count()), (12, 2), "{kinds:?}");
    for (index, manifest) in manifests.iter().enumerate() {
        let restored = scene.restore(&format!("at-{index}"), RestoreAt::Position(manifest.position)).unwrap();
        same_records(&collection(&restored, Space::L2), &moments[&manifest.id]);
        // What was restored is a database like any other.
        let again = collection(&restored, Space::L2);
        let mut oracle = moments[&manifest.id].clone();
        for _ in 0..10 {
            let operation = generator.operation(60);
            step(&again, &mut oracle, operation);
        }
        restored.maintain().unwrap();
        same_records(&again, &oracle);
    }
}

/// Also ends a test that fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_under_write_load_holds_a_state_that_was_acknowledged() {
    let scene = Scene::new();
    let database = scene.open();
    let notes = database.create_collection("notes").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One writer counts: record n is written only after n - 1 was acknowledged.
        let writer = scope.spawn(|| {
            let mut count = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let number = count as f32;
                notes.add(NewRecords::new([count.to_string()], [[number, number]])).unwrap();
                count += 1;
            }
            count
        });
        let stop_at_end = StopAtEnd(&stop);
        for round in 0..4 {
            let before = notes.count().unwrap();
            succeed(&database, if round == 0 { "backup" } else { "backup-incremental" });
            let after = notes.count().unwrap();
            let restored = scene.restore(&format!("round-{round}"), RestoreAt::Latest).unwrap();
            let restored = restored.collection("notes").unwrap();
            let records = restored.get(&GetRequest { include: Include::ALL, ..GetRequest::default() }).unwrap();
            let manifest = scene.manifests().pop().unwrap();
            assert_eq!(records.len() as u64, manifest.collections[0].records);
            assert!((before..=after).contains(&(records.len() as u64)), "{before} {} {after}", records.len());
            for (number, record) in records.iter().enumerate() {
                assert_eq!(record.id, number.to_string());
                assert_eq!(record.embedding.as_deref(), Some(&[number as f32, number as f32][..]));
            }
        }
        drop(stop_at_end);
        assert!(writer.join().unwrap() > 0);
    });
}

pub(crate) fn fill(collection: &Collection, numbers: std::ops::Range<u32>) {
    let mut rng = fastrand::Rng::with_seed(u64::from(numbers.start));
    let embeddings: Vec<Vec<f32>> = numbers.clone().map(|_| (0..64).map(|_| rng.f32()).collect()).collect();
    let documents: Vec<String> = numbers.clone().map(|_| (0..300).map(|_| rng.alphanumeric()).collect()).collect();
    let ids = numbers.map(|number| number.to_string());
    collection.upsert(NewRecords::new(ids, embeddings).documents(documents)).unwrap();
}

#[test]
fn an_increment_ships_little_more_than_what_changed() {
    let scene = Scene::new();
    let database = scene.open();
    let notes = database.create_collection("notes").unwrap();
    fill(&notes, 0..4000);
    succeed(&database, "backup");
    fill(&notes, 100..500);
    // A record is a vector of 256 bytes and a document of 300, and neither can be compressed much.
    let changed = 400 * (256 + 300);
    succeed(&database, "backup-incremental");
    let increment = scene.manifests().pop().unwrap();
    assert_eq!(increment.kind, BackupKind::Incremental);
    assert!(increment.shipped_bytes < 2 * changed, "{} bytes for {changed}", increment.shipped_bytes);
    // A rewrite of the files by compaction is no change.
    succeed(&database, "compact");
    fill(&notes, 0..10);
    succeed(&database, "backup-incremental");
    assert!(scene.manifests().pop().unwrap().shipped_bytes < 40_000);
    // A second full backup finds most of its chunks there.
    let before = bytes(&scene.target());
    succeed(&database, "backup");
    assert!(bytes(&scene.target()) - before < before);
}

#[test]
fn a_full_backup_in_the_second_of_an_increment_is_the_newer_of_the_two() {
    let scene = Scene::new();
    let database = scene.open();
    let notes = database.create_collection("notes").unwrap();
    fill(&notes, 0..50);
    succeed(&database, "backup");
    for round in 0..5 {
        fill(&notes, round * 10..round * 10 + 5);
        succeed(&database, "backup-incremental");
        succeed(&database, "backup");
        let last = scene.manifests().pop().unwrap();
        assert_eq!(last.kind, BackupKind::Full);
        assert!(succeed(&database, "backup-verify").contains(&last.id));
    }
}

#[test]
fn collections_that_come_and_go_between_backups_are_as_they_were() {
    let scene = Scene::new();
    let database = scene.open();
    for name in ["kept", "goes", "changes"] {
        fill(&database.create_collection(name).unwrap(), 0..50);
    }
    succeed(&database, "backup");
    database.delete_collection_in("default_tenant", "default_database", "goes").unwrap();
    succeed(&database, "sweep");
    fill(&database.create_collection("new").unwrap(), 0..30);
    let changes = database.collection("changes").unwrap();
    changes
        .delete(DeleteRequest { ids: Some((0..20).map(|n: u32| n.to_string()).collect()), ..DeleteRequest::default() })
        .unwrap();
    // More commits than the log would keep if nobody held it.
    for round in 0..1100u32 {
        fill(&changes, round % 40 + 20..round % 40 + 21);
    }
    succeed(&database, "log-prune");
    succeed(&database, "backup-incremental");
    let count = |database: &Database, name: &str| database.collection(name).unwrap().count().unwrap();
    let restored = scene.restore("after", RestoreAt::Latest).unwrap();
    assert_eq!((count(&restored, "kept"), count(&restored, "new"), count(&restored, "changes")), (50, 30, 40));
    assert!(restored.collection("goes").is_err());
    let before = scene.restore("before", RestoreAt::Id(scene.manifests()[0].id.clone())).unwrap();
    assert_eq!((count(&before, "kept"), count(&before, "goes"), count(&before, "changes")), (50, 50, 50));
    // One collection alone.
    let directory = scene.folder.path().join("alone");
    let options =
        RestoreOptions { at: RestoreAt::Latest, collection: Some("changes".into()), ..RestoreOptions::default() };
    scene.repository().restore(&options, &directory).unwrap();
    let alone = Database::open_with(&directory, small()).unwrap();
    assert_eq!((alone.all_collections().unwrap().len(), count(&alone, "changes")), (1, 40));
    let options =
        RestoreOptions { at: RestoreAt::Latest, collection: Some("nowhere".into()), ..RestoreOptions::default() };
    let error = scene.repository().restore(&options, &scene.folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn a_damaged_chunk_is_found_by_verification_and_named() {
    let scene = Scene::new();
    let database = scene.open();
    fill(&database.create_collection("notes").unwrap(), 0..500);
    succeed(&database, "backup");
    let message = succeed(&database, "backup-verify");
    assert!(message.contains("restored and checked"), "{message}");
    let manifest = scene.manifests().pop().unwrap();
    let chunk = manifest.files.iter().find(|file| file.name.ends_with(".seg")).unwrap().chunks[0].clone();
    let path = scene.target().join(format!("chunks/{}/{chunk}", &chunk[..2]));
    let whole = std::fs::read(&path).unwrap();
    for damage in ["flipped", "cut", "gone"] {
        match damage {
            "flipped" => {
                let mut bytes = whole.clone();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            "cut" => std::fs::write(&path, &whole[..whole.len() / 2]).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let run = run(&database, "backup-verify");
        assert_eq!(run.status, Status::Failed, "{damage}");
        assert!(run.message.contains(&chunk) && run.message.contains(&manifest.id), "{damage}: {}", run.message);
        let directory = scene.folder.path().join("damaged");
        let error = scene.repository().restore(&RestoreOptions::default(), &directory).unwrap_err().to_string();
        assert!(error.contains(&chunk), "{error}");
        assert!(!directory.exists(), "nothing half restored is left");
    }
    let path = scene.target().join(format!("manifests/{}.json", manifest.id));
    let text = std::fs::read_to_string(&path).unwrap().replace("\"position\":", "\"position\":1");
    std::fs::write(&path, text).unwrap();
    let (manifests, faults) = scene.repository().manifests().unwrap();
    assert!(manifests.is_empty() && faults.0[0].contains(&manifest.id), "{faults:?}");
    // The next backup does not build on what cannot be read.
    fill(&database.collection("notes").unwrap(), 0..5);
    succeed(&database, "backup-incremental");
    assert_eq!(scene.repository().manifests().unwrap().0.pop().unwrap().kind, BackupKind::Full);
}

#[test]
fn retention_keeps_the_last_chain_and_the_last_that_was_verified() {
    let scene = Scene::new();
    let database = scene.open();
    let notes = database.create_collection("notes").unwrap();
    let chain = |first: u32| {
        fill(&notes, first..first + 20);
        succeed(&database, "backup");
        fill(&notes, first + 20..first + 30);
        succeed(&database, "backup-incremental");
    };
    chain(0);
    chain(100);
    let change = json!({"knobs": {"chains": 1}});
    database.scheduler().alter("backup-retention", change.as_object().unwrap()).unwrap();
    succeed(&database, "backup-retention");
    assert_eq!(scene.manifests().len(), 4, "without one that is known to restore none is given up");
    succeed(&database, "backup-verify");
    let verified = scene.manifests().pop().unwrap().id;
    succeed(&database, "backup-retention");
    assert_eq!(scene.manifests().len(), 2);
    chain(200);
    chain(300);
    let before = bytes(&scene.target());
    succeed(&database, "backup-retention");
    let ids: Vec<String> = scene.manifests().into_iter().map(|manifest| manifest.id).collect();
    assert!(ids.len() == 4 && ids.contains(&verified), "the last and the last verified: {ids:?}");
    assert!(bytes(&scene.target()) < before, "chunks that nobody names are removed");
    for id in ids {
        scene.restore(&id, RestoreAt::Id(id.clone())).unwrap();
    }
}

#[test]
fn bad_targets_and_requests_say_what_is_wrong() {
    let scene = Scene::new();
    std::fs::write(scene.target(), "a file, where a directory should be").unwrap();
    let database = scene.open();
    fill(&database.create_collection("notes").unwrap(), 0..5);
    let patience = Instant::now() + PATIENCE;
    while database.scheduler().job("backup").unwrap().warning.is_none_or(|warning| !warning.contains("target")) {
        assert!(Instant::now() < patience, "nothing is said of the target before a backup is due");
        std::thread::sleep(Duration::from_millis(10));
    }
    let failed = run(&database, "backup");
    assert!(failed.status == Status::Failed && failed.message.contains("target"), "{}", failed.message);
    std::fs::remove_file(scene.target()).unwrap();
    let restore = |options: &RestoreOptions, directory: &Path| {
        scene.repository().restore(options, directory).map(drop).unwrap_err().to_string()
    };
    let error = restore(&RestoreOptions::default(), &scene.folder.path().join("x"));
    assert!(error.contains("any backup"), "{error}");
    succeed(&database, "backup");
    let error = restore(&RestoreOptions::default(), &scene.home());
    assert!(error.contains("not empty"), "{error}");
    let early = RestoreOptions { at: "2020-01-01T00:00:00Z".parse().unwrap(), ..RestoreOptions::default() };
    let error = restore(&early, &scene.folder.path().join("x"));
    assert!(error.contains("2020-01-01"), "{error}");
    let error = "yesterday".parse::<RestoreAt>().unwrap_err().to_string();
    assert!(error.contains("yesterday") && error.contains("RFC 3339"), "{error}");
    let options = Options { backup_target: Some("ftp://host/x".into()), ..small() };
    let other =
        Database::open_with(scene.folder.path().join("other"), Options { background: true, ..options }).unwrap();
    let message = run(&other, "backup").message;
    assert!(message.contains("ftp"), "{message}");
    let own = scene.folder.path().join("own");
    let inside = Options { backup_target: Some(own.join("backups").display().to_string()), ..small() };
    let error = Database::open_with(&own, inside).map(drop).unwrap_err().to_string();
    assert!(error.contains("lies in the database's own directory") && !own.exists(), "{error}");
    std::fs::write(&own, "no database").unwrap();
    let error = Database::open_with(&own, small()).map(drop).unwrap_err().to_string();
    assert!(error.contains("own is a file"), "{error}");
    let plain =
        Database::open_with(scene.folder.path().join("plain"), Options { background: true, ..small() }).unwrap();
    let message = run(&plain, "backup").message;
    assert!(message.contains("[backup]"), "{message}");
}

#[test]
fn a_restore_that_is_interrupted_leaves_nothing_that_is_taken_for_a_database() {
    let scene = Scene::new();
    let database = scene.open();
    let tests = collection(&database, Space::L2);
    tests.add(NewRecords::new(["a"], [[1.0, 2.0]])).unwrap();
    succeed(&database, "backup");
    // What one that was killed leaves: part of the files, and the mark.
    let partial = scene.folder.path().join("restored.partial");
    std::fs::create_dir_all(&partial).unwrap();
    std::fs::copy(scene.home().join("ochre.sqlite3"), partial.join("ochre.sqlite3")).unwrap();
    std::fs::write(partial.join("restore.unfinished"), "").unwrap();
    let error = Database::open_with(&partial, small()).err().expect("it is refused").to_string();
    assert!(error.contains("interrupted restore") && error.contains("restore again"), "{error}");
    // The next one begins again, and gives it its name when it is whole.
    let restored = scene.restore("restored", RestoreAt::Latest).unwrap();
    assert_eq!(restored.collection("tests").unwrap().count().unwrap(), 1);
    assert!(!partial.exists() && !scene.folder.path().join("restored/restore.unfinished").exists());
    // A directory of somebody's is not touched, and one that fails leaves nothing.
    std::fs::create_dir_all(scene.folder.path().join("other.partial")).unwrap();
    let error = scene.restore("other", RestoreAt::Latest).err().expect("it is refused").to_string();
    assert!(error.contains("is in the way"), "{error}");
    std::fs::remove_dir_all(scene.target().join("chunks")).unwrap();
    assert!(scene.restore("third", RestoreAt::Latest).is_err());
    assert!(!scene.folder.path().join("third").exists() && !scene.folder.path().join("third.partial").exists());
    // An empty directory that is there is restored into as it is: a disk may be mounted there. An interrupted one
    // begins again.
    let empty = scene.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&empty, scene.folder.path().join("link")).unwrap();
    assert!(scene.restore("empty", RestoreAt::Latest).is_err());
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "nothing is left of one that failed");
    succeed(&database, "backup");
    std::fs::write(empty.join("restore.unfinished"), "").unwrap();
    std::fs::write(empty.join("ochre.sqlite3"), "half").unwrap();
    let error = Database::open_with(&empty, small()).err().expect("it is refused").to_string();
    assert!(error.contains("interrupted restore"), "{error}");
    #[cfg(unix)]
    let name = "link";
    #[cfg(not(unix))]
    let name = "empty";
    assert_eq!(scene.restore(name, RestoreAt::Latest).unwrap().collection("tests").unwrap().count().unwrap(), 1);
    // While one is under way another is refused.
    let busy = scene.folder.path().join("busy");
    std::fs::create_dir(&busy).unwrap();
    let mark = std::fs::File::create(busy.join("restore.unfinished")).unwrap();
    mark.try_lock().unwrap();
    let error = scene.restore("busy", RestoreAt::Latest).err().expect("it is refused").to_string();
    assert!(error.contains("under way"), "{error}");
}

#[test]
fn a_restored_copy_does_not_go_on_with_the_backups_of_the_original() {
    let scene = Scene::new();
    let database = scene.open();
    let tests = collection(&database, Space::L2);
    tests.add(NewRecords::new(["a"], [[1.0, 2.0]])).unwrap();
    succeed(&database, "backup");
    let own = scene.manifests()[0].database.clone().unwrap();
    scene.restore("copy", RestoreAt::Latest).unwrap().close();
    let copy = |accept: bool| {
        let options = Options { backup_accept_foreign: accept, ..scene.options() };
        Database::open_with(scene.folder.path().join("copy"), options).unwrap()
    };
    let foreign = copy(false);
    collection_of(&foreign).add(NewRecords::new(["b"], [[1.0, 2.0]])).unwrap();
    for job in ["backup", "backup-incremental"] {
        let run = run(&foreign, job);
        assert_eq!(run.status, Status::Failed);
        assert!(run.message.contains(&own) && run.message.contains("backup.accept_foreign"), "{}", run.message);
    }
    // It is said before a job is due.
    let patience = Instant::now() + PATIENCE;
    while foreign.scheduler().job("backup").unwrap().warning.is_none_or(|warning| !warning.contains(&own)) {
        assert!(Instant::now() < patience, "nothing is said of the target");
        std::thread::sleep(Duration::from_millis(10));
    }
    foreign.close();
    // The original goes on; whoever says that it is gone goes on in its place, with a chain of its own.
    succeed(&database, "backup-incremental");
    database.close();
    let successor = copy(true);
    assert!(succeed(&successor, "backup-incremental").contains("-full"));
    let last = scene.manifests().pop().unwrap();
    assert!(last.kind == BackupKind::Full && last.database.is_some_and(|id| id != own));
    assert_eq!(successor.scheduler().job("backup").unwrap().warning, None);
    assert!(successor.last_backup().is_some());
}

fn collection_of(database: &Database) -> Collection {
    database.collection("tests").unwrap()
}

#[test]
fn schedules_that_were_changed_are_restored_from_any_backup() {
    let scene = Scene::new();
    let database = scene.open();
    let tests = collection(&database, Space::L2);
    tests.add(NewRecords::new(["a"], [[1.0, 2.0]])).unwrap();
    let every = |interval: &str| {
        let change = json!({"interval": interval, "policies": {"priority": 7}}).as_object().unwrap().clone();
        database.scheduler().alter("vacuum", &change).unwrap();
    };
    every("7m");
    succeed(&database, "backup");
    every("11m");
    tests.add(NewRecords::new(["b"], [[1.0, 2.0]])).unwrap();
    succeed(&database, "backup-incremental");
    let [full, increment] = &scene.manifests()[..] else { panic!("two backups") };
    for (name, manifest, trigger) in [("full", full, "every 7m"), ("increment", increment, "every 11m")] {
        let directory = scene.folder.path().join(name);
        let options = RestoreOptions { at: RestoreAt::Id(manifest.id.clone()), ..RestoreOptions::default() };
        scene.repository().restore(&options, &directory).unwrap();
        let restored = Database::open_with(&directory, Options { backup_target: None, ..scene.options() }).unwrap();
        let status = restored.scheduler().job("vacuum").unwrap();
        assert_eq!((status.trigger.as_str(), status.policies.priority), (trigger, 7));
        let now = ochre_engine::scheduler::Clock::now(&ochre_engine::scheduler::SystemClock);
        assert!(status.next_runs[0] > now, "nothing is due that was due before");
    }
}

/// A directory in front of which something happens before each object is put.
struct Watched<F> {
    inner: DirectoryTarget,
    before_put: F,
}

impl<F: Fn(&str) -> Result<(), Error> + Send + Sync> ochre_engine::BackupTarget for Watched<F> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        (self.before_put)(name)?;
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.inner.get(name, limit)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        self.inner.delete(name)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// The options of a scene whose backups go to a directory through this.
fn watched(scene: &Scene, before_put: impl Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static) -> Options {
    let (target, mut targets) = (scene.target(), ochre_engine::BackupTargets::default());
    targets.register("watched", move |_| {
        Ok(Arc::new(Watched { inner: DirectoryTarget::new(&target), before_put: before_put.clone() }))
    });
    Options { backup_targets: Arc::new(targets), backup_target: Some("watched://x".into()), ..scene.options() }
}

#[test]
fn compaction_goes_on_while_a_backup_is_uploaded_and_the_backup_is_whole() {
    let scene = Scene::new();
    let (is_held, puts) = (Arc::new(AtomicBool::new(true)), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (held, counted) = (Arc::clone(&is_held), Arc::clone(&puts));
    let options = watched(&scene, move |name| {
        if name.starts_with("chunks/") {
            counted.fetch_add(1, Ordering::SeqCst);
            while held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    });
    let database = Database::open_with(scene.home(), options).unwrap();
    let tests = collection(&database, Space::L2);
    let ids = |from: usize| (from..from + 2000).map(|n| format!("r{n}")).collect::<Vec<_>>();
    for from in (0..8000).step_by(2000) {
        tests.add(NewRecords::new(ids(from), (0..2000).map(|n| [n as f32, from as f32]))).unwrap();
    }
    database.scheduler().run_now("backup").unwrap();
    let patience = Instant::now() + PATIENCE;
    while puts.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < patience, "no upload began");
        std::thread::sleep(Duration::from_millis(5));
    }
    // While a chunk is on its way most records go, and their vectors with them.
    for from in (0..6000).step_by(2000) {
        tests.delete(DeleteRequest { ids: Some(ids(from)), ..DeleteRequest::default() }).unwrap();
    }
    succeed(&database, "compact");
    assert!(database.scheduler().job("backup").unwrap().running.is_some(), "the backup is still under way");
    is_held.store(false, Ordering::SeqCst);
    while database.scheduler().job("backup").unwrap().running.is_some() {
        assert!(Instant::now() < patience, "the backup does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let restored = scene.restore("restored", RestoreAt::Latest).unwrap();
    assert_eq!((restored.collection("tests").unwrap().count().unwrap(), tests.count().unwrap()), (8000, 2000));
}

/// What a crash, a full disk or a broken connection leaves of a backup at any point: after some objects the target
/// takes no more.
#[test]
fn a_backup_that_ends_at_any_object_harms_no_other_and_the_next_is_whole() {
    let scene = Scene::new();
    let puts_left = Arc::new(std::sync::atomic::AtomicI64::new(i64::MAX));
    let left = Arc::clone(&puts_left);
    let options = watched(&scene, move |name| {
        if left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(Error::Backup(format!("{name}: the target is gone")));
        }
        Ok(())
    });
    let database = Database::open_with(scene.home(), options).unwrap();
    let tests = collection(&database, Space::L2);
    let add = |number: usize| tests.add(NewRecords::new([format!("r{number}")], [[number as f32, 1.0]])).unwrap();
    add(0);
    succeed(&database, "backup");
    let (mut held, mut failed) = (1, 0);
    for job in ["backup", "backup-incremental"] {
        for puts in 0.. {
            add(held + failed);
            let before = scene.manifests().len();
            puts_left.store(puts, Ordering::SeqCst);
            let ended = run(&database, job).status;
            puts_left.store(i64::MAX, Ordering::SeqCst);
            let restored = scene.restore(&format!("{job}-{puts}"), RestoreAt::Latest).unwrap();
            let count = restored.collection("tests").unwrap().count().unwrap();
            if ended == Status::Succeeded {
                // All that was written meanwhile is in the first that comes to its end.
                (held, failed) = (held + failed + 1, 0);
                assert_eq!((count, scene.manifests().len()), (held as u64, before + 1), "{job}, {puts} objects");
                assert!(puts > 1, "{job} puts more than one object");
                break;
            }
            failed += 1;
            assert_eq!((count, scene.manifests().len()), (held as u64, before), "{job}, {puts} objects");
        }
    }
    assert_eq!(scene.repository().verify_all().unwrap().1.0, Vec::<String>::new());
}
