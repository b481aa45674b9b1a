//! What is damaged or lost is noticed: a database that has lost what was acknowledged is not opened by itself, nothing
//! that might be data is deleted, and no damaged page, block or file ever becomes an answer.

use std::path::{Path, PathBuf};

use ochre_engine::model::{Metadata, Space};
use ochre_engine::tables::Connection;
use ochre_engine::{
    Collection, Database, Error, GetRequest, Include, NewRecords, Options, QueryRequest, StoreError, check,
};

use crate::support::{collection, copy, small};

/// A directory as `kill -9` leaves it: copied while the database is open, its log not yet in the database file.
struct Killed {
    folder: tempfile::TempDir,
    home: PathBuf,
}

fn add(records: &Collection, numbers: std::ops::Range<u32>) {
    let mut rng = fastrand::Rng::with_seed(numbers.start.into());
    let embeddings: Vec<Vec<f32>> = numbers.clone().map(|_| (0..16).map(|_| rng.f32()).collect()).collect();
    let long = |number: u32| if number.is_multiple_of(40) { 400 } else { 2 };
    let documents: Vec<String> = numbers.clone().map(|n| format!("word{n} ").repeat(long(n))).collect();
    let metadatas = numbers.clone().map(|n| Metadata::from_text(&format!(r#"{{"n":{n},"s":"v{}"}}"#, n % 7)).unwrap());
    let ids = numbers.clone().map(|number| format!("id{number}"));
    let new = NewRecords::new(ids, embeddings).documents(documents).metadatas(metadatas.collect::<Vec<_>>());
    records.upsert(new).unwrap();
}

impl Killed {
    /// A database with every kind of page and file in it.
    fn new(is_settled: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (open, home) = (folder.path().join("open"), folder.path().join("killed"));
        let database = Database::open_with(&open, options()).unwrap();
        let records = collection(&database, Space::L2);
        for first in (0..300).step_by(50) {
            add(&records, first..first + 50);
        }
        if is_settled {
            database.maintain().unwrap();
            // Other embeddings than before, and few: most pages are only in the database file.
            for number in 10..13 {
                add(&records, number..number + 1);
            }
            let request = ochre_engine::DeleteRequest {
                ids: Some((100..103).map(|number| format!("id{number}")).collect()),
                ..Default::default()
            };
            records.delete(request).unwrap();
        }
        copy(&open, &home);
        drop(records);
        drop(database);
        Self { folder, home }
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        let _ = std::fs::remove_dir_all(&to);
        copy(&self.home, &to);
        to
    }
}

fn options() -> Options {
    Options { snapshot_verified_bytes_max: 0, ..small() }
}

fn open(directory: &Path) -> Result<Database, Error> {
    Database::open_with(directory, options())
}

fn lost(directory: &Path) -> String {
    let before = files(directory);
    let error = open(directory).map(drop).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Lost { .. })), "{error}");
    assert!(files(directory) == before, "nothing is changed by refusing");
    let report = check(directory).unwrap();
    assert!(!report.is_clean());
    error.to_string()
}

/// Every file with its content, but for those that SQLite makes to read others.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") && !path.display().to_string().ends_with("-shm") {
            let content = std::fs::read(&path).unwrap();
            if !(content.is_empty() && path.ends_with("ochre.sqlite3-wal")) {
                found.push((path, content));
            }
        }
    }
    found.sort();
    found
}

/// All that can be asked of the records.
fn answers(database: &Database) -> Result<String, Error> {
    let records = database.collection("tests")?;
    let all = records.get(&GetRequest { include: Include::ALL, ..GetRequest::default() })?;
    let mut text = format!("{} ", records.count()?);
    for record in &all {
        let metadata = record.metadata.as_ref().map(|metadata| metadata.as_json().to_owned());
        text += &format!("{} {:?} {:?} {metadata:?};", record.id, record.embedding, record.document);
    }
    for record in all.iter().step_by(17) {
        let nearest = records.query(&QueryRequest::nearest_to(record.embedding.clone().unwrap()).k(5))?;
        let hits = nearest.results[0].iter().map(|hit| format!("{} {}", hit.record.id, hit.distance));
        text += &hits.collect::<Vec<_>>().join(" ");
        let one = records.get(&GetRequest { ids: Some(vec![record.id.clone()]), ..GetRequest::default() })?;
        text += &format!("{};", one.len());
    }
    Ok(text)
}

#[test]
fn a_directory_copied_without_its_log_is_not_taken_for_an_empty_database() {
    for is_settled in [false, true] {
        let killed = Killed::new(is_settled);
        let whole = killed.copy("whole");
        assert!(check(&whole).unwrap().is_clean(), "{:?}", check(&whole).unwrap());
        let expected = answers(&open(&whole).unwrap()).unwrap();
        // Also without the head file, which databases of older versions do not have.
        for has_head in [true, false] {
            let home = killed.copy("copied");
            std::fs::remove_file(home.join("ochre.sqlite3-wal")).unwrap();
            if !has_head {
                std::fs::remove_file(home.join("head")).unwrap();
            }
            let error = lost(&home);
            assert!(error.contains("ochre.sqlite3-wal was left out") && error.contains("--accept-loss"), "{error}");
            // Accepted, the loss goes no further than what is missing, and nothing else is thrown away.
            let segments: u64 = segment_bytes(&home);
            let database = Database::open_with(&home, Options { accept_loss: true, ..options() }).unwrap();
            let kept = segment_bytes(&home) + segment_bytes(&home.join("quarantine"));
            assert!(kept >= segments, "{kept} of {segments} bytes");
            let records = collection(&database, Space::L2);
            let left = records.count().unwrap();
            assert_eq!(left, if is_settled { 300 } else { 0 });
            add(&records, 0..300);
            assert_eq!(records.count().unwrap(), 300);
            drop(records);
            database.close();
            assert!(segment_bytes(&home.join("quarantine")) > 0, "what was set aside stays");
            let report = check(&home).unwrap();
            assert!(report.is_clean() && report.notes[0].contains("quarantine"), "{report:?}");
        }
        // Put back, it is whole.
        let home = killed.copy("put-back");
        let log = home.join("ochre.sqlite3-wal");
        std::fs::rename(&log, home.join("elsewhere")).unwrap();
        lost(&home);
        std::fs::rename(home.join("elsewhere"), &log).unwrap();
        assert_eq!(answers(&open(&home).unwrap()).unwrap(), expected);
    }
}

fn segment_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| match path.is_dir() {
            true => segment_bytes(&path),
            false if path.display().to_string().contains(".seg") => path.metadata().unwrap().len(),
            false => 0,
        })
        .sum()
}

#[test]
fn a_catalog_from_elsewhere_or_from_before_is_refused() {
    let killed = Killed::new(true);
    let catalog = |home: &Path, bytes: &[u8]| {
        std::fs::remove_file(home.join("ochre.sqlite3-wal")).unwrap();
        std::fs::write(home.join("ochre.sqlite3"), bytes).unwrap();
    };
    let home = killed.copy("emptied");
    catalog(&home, b"");
    assert!(lost(&home).contains("is missing or empty"));
    let home = killed.copy("removed");
    catalog(&home, b"");
    std::fs::remove_file(home.join("ochre.sqlite3")).unwrap();
    assert!(lost(&home).contains("is missing or empty"));
    let home = killed.copy("one-byte");
    catalog(&home, b"x");
    assert!(lost(&home).contains("holds nothing"));
    // Another program's file, and one of ours that is new.
    let home = killed.copy("foreign");
    catalog(&home, b"");
    Connection::open(home.join("ochre.sqlite3")).unwrap().execute_batch("CREATE TABLE mine (id)").unwrap();
    let before = std::fs::read(home.join("ochre.sqlite3")).unwrap();
    let error = open(&home).map(drop).unwrap_err().to_string();
    assert!(error.contains("no ochre database"), "{error}");
    assert!(!check(&home).unwrap().is_clean());
    assert_eq!(std::fs::read(home.join("ochre.sqlite3")).unwrap(), before);
    let home = killed.copy("blank");
    catalog(&home, b"");
    Connection::open(home.join("ochre.sqlite3")).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap();
    assert!(lost(&home).contains("holds nothing"));
    let home = killed.copy("new");
    let other = killed.folder.path().join("other");
    Database::open_with(&other, options()).unwrap().close();
    catalog(&home, &std::fs::read(other.join("ochre.sqlite3")).unwrap());
    assert!(lost(&home).contains("of another history"));
    // With the loss accepted everything of it is kept, and a new database begins.
    let segments = segment_bytes(&home);
    for name in ["removed", "one-byte", "foreign"] {
        let home = killed.folder.path().join(name);
        let database = Database::open_with(&home, Options { accept_loss: true, ..options() }).unwrap();
        assert!(database.all_collections().unwrap().is_empty());
        add(&collection(&database, Space::L2), 0..10);
        drop(database);
        assert!(segment_bytes(&home.join("quarantine")) == segments, "{name}");
    }
    // In a folder without any of ours, another program's file is left alone too.
    let alone = killed.folder.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    Connection::open(alone.join("ochre.sqlite3")).unwrap().execute_batch("CREATE TABLE mine (id)").unwrap();
    assert!(open(&alone).is_err());
}

#[test]
fn a_check_leaves_nothing_behind() {
    let killed = Killed::new(true);
    let home = killed.copy("closed");
    open(&home).unwrap().close();
    let names = || {
        let entries = std::fs::read_dir(&home).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    assert!(check(&home).unwrap().is_clean());
    assert_eq!(names(), before);
}

#[test]
fn remains_of_a_crash_are_moved_aside_until_the_next_write() {
    let killed = Killed::new(true);
    let expected = answers(&open(&killed.copy("whole")).unwrap()).unwrap();
    let home = killed.copy("home");
    let last = std::fs::read_dir(home.join("segments")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let stray = home.join("segments/00000099.seg");
    std::fs::copy(&last, &stray).unwrap();
    let database = open(&home).unwrap();
    assert!(!stray.exists() && home.join("quarantine/00000099.seg").exists());
    assert_eq!(answers(&database).unwrap(), expected);
    assert!(home.join("quarantine/00000099.seg").exists(), "reading proves nothing");
    add(&collection(&database, Space::L2), 500..501);
    assert!(!home.join("quarantine/00000099.seg").exists());
}

#[test]
fn a_second_owner_stops_writing_before_it_harms_anything() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let first = open(&home).unwrap();
    let records = collection(&first, Space::L2);
    add(&records, 0..100);
    std::fs::remove_file(home.join("lock")).unwrap();
    let second = open(&home).unwrap();
    let others = collection(&second, Space::L2);
    add(&others, 100..200);
    let new = NewRecords::new(["x"], [[0.0; 16]]);
    let error = records.upsert(new.clone()).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::WritesStopped { .. })), "{error}");
    assert!(error.to_string().contains("another process wrote"), "{error}");
    // For good: it never comes to know where the other stands.
    assert!(records.upsert(new).is_err() && first.create_collection("y").is_err());
    assert!(first.maintain().is_err());
    add(&others, 200..300);
    drop((records, first));
    second.maintain().unwrap();
    assert_eq!(others.count().unwrap(), 300);
    drop(others);
    second.close();
    let report = check(&home).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_missing_folder_of_segments_is_named() {
    let killed = Killed::new(true);
    let home = killed.copy("home");
    std::fs::remove_dir_all(home.join("segments")).unwrap();
    assert!(lost(&home).contains("segments/ is missing"));
    // While it is open: no write is acknowledged that would go with the process.
    let home = killed.copy("removed");
    let database = open(&home).unwrap();
    let records = collection(&database, Space::L2);
    std::fs::remove_dir_all(home.join("segments")).unwrap();
    for number in 0..3 {
        let error = records.upsert(NewRecords::new([format!("x{number}")], [[0.5; 16]])).unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Corrupt { .. })), "{error}");
        assert!(error.to_string().contains("removed while the database is open"), "{error}");
    }
    assert!(records.get(&GetRequest::default()).is_ok());
}

#[test]
fn a_database_without_checksums_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("v3");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v3"), &home);
    let report = check(&home).unwrap();
    assert!(report.is_clean() && report.notes[0].contains("no checksums"), "{report:?}");
    let database = Database::open_with(&home, small()).unwrap();
    assert_eq!(database.collection("notes").unwrap().count().unwrap(), 2);
    assert!(database.statistics().unwrap().has_checksums);
    add(&collection(&database, Space::L2), 0..50);
    database.close();
    let report = check(&home).unwrap();
    assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    // Every page of it is covered from now on.
    let path = home.join("ochre.sqlite3");
    let whole = std::fs::read(&path).unwrap();
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096 + 77 * page % 4096] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        assert!(!check(&home).unwrap().is_clean(), "page {}", page + 1);
    }
}

/// Files of a database with the weight that each has among those that are damaged.
fn choose(rng: &mut fastrand::Rng, home: &Path) -> PathBuf {
    let kind = rng.u32(..10);
    let mut names: Vec<PathBuf> = files(home).into_iter().map(|(path, _)| path).collect();
    let wanted = match kind {
        0..4 => "ochre.sqlite3",
        4 | 5 => "ochre.sqlite3-wal",
        6 => "head",
        7 | 8 => ".seg",
        _ => "cache",
    };
    names.retain(|name| {
        let name = name.strip_prefix(home).unwrap().display().to_string();
        if wanted == "cache" { name.starts_with(wanted) } else { name.ends_with(wanted) }
    });
    names[rng.usize(..names.len())].clone()
}

/// Where to damage a database file: in a page of a kind that was not hit more often than others.
fn place(rng: &mut fastrand::Rng, bytes: &[u8], hits: &mut std::collections::BTreeMap<u8, usize>) -> usize {
    let kind = |page: usize| bytes[page * 4096 + if page == 0 { 100 } else { 0 }];
    let page = (0..20)
        .map(|_| rng.usize(..bytes.len() / 4096))
        .min_by_key(|page| hits.get(&kind(*page)).copied().unwrap_or(0))
        .unwrap();
    *hits.entry(kind(page)).or_default() += 1;
    page * 4096 + rng.usize(..4096)
}

#[test]
fn a_thousand_flips_cuts_and_removals_are_found_or_change_no_answer() {
    let killed = Killed::new(true);
    let original = killed.copy("original");
    let expected = answers(&open(&killed.copy("whole")).unwrap()).unwrap();
    let seed = std::env::var("OCHRE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(18);
    println!("OCHRE_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut hits = std::collections::BTreeMap::new();
    let (mut found, mut harmless) = (0, 0);
    for round in 0..1000 {
        let path = choose(&mut rng, &original);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let name = path.strip_prefix(&original).unwrap().display().to_string();
        let what = match rng.u32(..20) {
            0 => {
                std::fs::remove_file(&path).unwrap();
                "removed".to_owned()
            }
            1 => {
                bytes.truncate(rng.usize(..whole.len().max(1)));
                format!("cut to {} of {}", bytes.len(), whole.len())
            }
            2 if name == "ochre.sqlite3" => {
                let page = rng.usize(..bytes.len() / 4096) * 4096;
                let other = rng.usize(..bytes.len() / 4096) * 4096;
                bytes.copy_within(other..other + 4096, page);
                format!("page at {page} replaced by that at {other}")
            }
            _ => {
                let at =
                    if name == "ochre.sqlite3" { place(&mut rng, &whole, &mut hits) } else { rng.usize(..whole.len()) };
                bytes[at] ^= 1 << rng.u32(..8);
                format!("byte {at} of {}", whole.len())
            }
        };
        let is_changed = what == "removed" || bytes != whole;
        if what != "removed" {
            std::fs::write(&path, &bytes).unwrap();
        }
        let report = check(&original).unwrap();
        if report.is_clean() {
            let opened = killed.folder.path().join("opened");
            let _ = std::fs::remove_dir_all(&opened);
            copy(&original, &opened);
            let database = open(&opened).unwrap_or_else(|error| panic!("{round}: {name} {what}: {error}"));
            assert!(answers(&database).unwrap() == expected, "{round}: {name} {what} was not found");
            harmless += usize::from(is_changed);
        } else {
            found += 1;
        }
        std::fs::write(&path, &whole).unwrap();
    }
    println!("{found} found, {harmless} harmless; kinds of pages: {hits:?}");
    // The others hit pages that the log has a newer copy of, and places that hold nothing.
    assert!(found > 600, "{found} found, {harmless} harmless");
    assert!(hits.len() >= 5, "leaves and inner pages of tables and indexes, and others: {hits:?}");
}

#[test]
fn a_damaged_page_is_an_error_with_a_name_and_never_an_answer() {
    let killed = Killed::new(true);
    let home = killed.copy("settled");
    open(&home).unwrap().close();
    let path = home.join("ochre.sqlite3");
    let whole = std::fs::read(&path).unwrap();
    let expected = answers(&open(&killed.copy("whole")).unwrap()).unwrap();
    let mut named = 0;
    for page in 0..whole.len() / 4096 {
        let home = killed.copy("damaged");
        std::fs::remove_file(home.join("ochre.sqlite3-wal")).unwrap();
        std::fs::copy(killed.folder.path().join("settled/head"), home.join("head")).unwrap();
        let mut bytes = whole.clone();
        bytes[page * 4096 + 1000 + page % 3000] ^= 0x10;
        std::fs::write(home.join("ochre.sqlite3"), bytes).unwrap();
        for folder in ["segments", "cache"] {
            std::fs::remove_dir_all(home.join(folder)).unwrap();
            copy(&killed.folder.path().join("settled").join(folder), &home.join(folder));
        }
        match open(&home).and_then(|database| answers(&database)) {
            Ok(answer) => assert!(answer == expected, "page {}", page + 1),
            Err(error) => {
                assert!(error.to_string().contains("does not match its checksum"), "page {}: {error}", page + 1);
                named += 1;
            }
        }
    }
    assert!(named > whole.len() / 4096 / 3, "{named} of {}", whole.len() / 4096);
}
