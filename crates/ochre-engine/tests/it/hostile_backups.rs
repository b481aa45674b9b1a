//! A target where somebody else can write: whatever is put there, nothing outside is read, written or removed, memory
//! and disk stay bounded, no SQL of it runs, and the refusal says what is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ochre_engine::scheduler::Status;
use ochre_engine::tables::{Connection, OpenFlags};
use ochre_engine::{
    BackupTrust, Database, DirectoryTarget, ExtensionTables, Manifest, Repository, RestoreAt, RestoreOptions,
};
use serde_json::{Value, json};

use crate::backup::{Scene, fill, run, succeed};
use crate::support::copy;

/// A database with a full backup and an increment of it, and tables of an extension that were changed between them.
struct Attack {
    scene: Scene,
    database: Database,
}

const NOTES: &str = "CREATE TABLE notes_text (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID";
const MORE: &str = "ALTER TABLE notes_text ADD COLUMN more TEXT";

impl Attack {
    fn new() -> Self {
        let scene = Scene::new();
        let database = scene.open();
        fill(&database.create_collection("notes").unwrap(), 0..50);
        database.extend("notes", &[NOTES]).unwrap();
        succeed(&database, "backup");
        database.extend("notes", &[NOTES, MORE]).unwrap();
        database.change_tables(|tables| tables.execute("INSERT INTO notes_text VALUES ('a', 'b', 'c')", [])).unwrap();
        fill(&database.collection("notes").unwrap(), 40..60);
        succeed(&database, "backup-incremental");
        Self { scene, database }
    }

    fn manifest_path(&self, kind: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.scene.target().join("manifests")).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.display().to_string().contains(kind)).unwrap()
    }

    /// Changes a manifest, and gives it the hash that belongs to it.
    fn change_manifest(&self, kind: &str, change: impl FnOnce(&mut Value)) {
        let path = self.manifest_path(kind);
        let mut stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut stored["manifest"]);
        let hash = blake3::hash(stored["manifest"].to_string().as_bytes()).to_hex().to_string();
        stored["hash"] = hash.into();
        std::fs::write(path, stored.to_string()).unwrap();
    }

    fn put_chunk(&self, bytes: &[u8]) -> String {
        let hash = blake3::hash(bytes).to_hex().to_string();
        let path = self.scene.target().join("chunks").join(&hash[..2]);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(&hash), zstd::bulk::compress(bytes, 1).unwrap()).unwrap();
        hash
    }

    /// Changes the SQLite file of a backup by SQL, and everything that names it.
    fn change_database(&self, kind: &str, sql: &str) {
        let stored: Value = serde_json::from_slice(&std::fs::read(self.manifest_path(kind)).unwrap()).unwrap();
        let file = &stored["manifest"]["files"][0];
        let bytes = file["chunks"].as_array().unwrap().iter().flat_map(|chunk| {
            let hash = chunk.as_str().unwrap();
            let packed = std::fs::read(self.scene.target().join("chunks").join(&hash[..2]).join(hash)).unwrap();
            zstd::stream::decode_all(&*packed).unwrap()
        });
        let path = self.scene.folder.path().join("changed.sqlite3");
        std::fs::write(&path, bytes.collect::<Vec<u8>>()).unwrap();
        // With the checksums of pages that belong to it.
        let connection = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "ochre").unwrap();
        connection.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let changed = std::fs::read(&path).unwrap();
        let chunks: Vec<String> = changed.chunks(4 << 20).map(|chunk| self.put_chunk(chunk)).collect();
        self.change_manifest(kind, |manifest| {
            let before = manifest["files"][0]["bytes"].as_u64().unwrap();
            manifest["bytes"] = (manifest["bytes"].as_u64().unwrap() - before + changed.len() as u64).into();
            manifest["files"][0]["bytes"] = changed.len().into();
            manifest["files"][0]["chunks"] = json!(chunks);
        });
    }

    fn restore(&self) -> Result<Manifest, String> {
        let tables = vec![ExtensionTables { name: "notes".into(), migrations: vec![NOTES, MORE] }];
        let options = RestoreOptions { tables, ..RestoreOptions::default() };
        let directory = self.scene.folder.path().join("restored");
        let restored = self.scene.repository().restore(&options, &directory).map_err(|error| error.to_string());
        if let Ok(manifest) = &restored {
            let report = ochre_engine::check_with(&directory, &options.extensions, &options.tables).unwrap();
            assert!(report.is_clean(), "{:?}", report.findings);
            assert_eq!(manifest.collections[0].records, 60);
            std::fs::remove_dir_all(&directory).unwrap();
        }
        assert!(!directory.exists(), "nothing half restored stays");
        restored
    }

    /// Restoring and the verification job both refuse, for this reason; nothing else was made in the folder.
    fn refused(&self, words: &str) {
        let error = self.restore().map(|manifest| manifest.id).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
        let verified = run(&self.database, "backup-verify");
        assert_eq!(verified.status, Status::Failed, "{words}: {}", verified.message);
        assert!(verified.message.contains(words), "{words}: {}", verified.message);
        let mut names: Vec<String> = std::fs::read_dir(self.scene.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name != "changed.sqlite3")
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["home", "target"]);
    }
}

#[test]
fn what_was_not_tampered_with_restores_with_the_newer_tables_of_extensions() {
    let attack = Attack::new();
    attack.restore().unwrap();
    succeed(&attack.database, "backup-verify");
    // Whoever does not know the extension cannot make its newer tables, and runs nobody else's definition of them.
    let directory = attack.scene.folder.path().join("x");
    let error = attack.scene.repository().restore(&RestoreOptions::default(), &directory).unwrap_err().to_string();
    assert!(error.contains("extension 'notes'") && error.contains("the program that has it"), "{error}");
    let full = attack.scene.manifests()[0].id.clone();
    attack.scene.restore("full", RestoreAt::Id(full)).unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../outside", "/tmp/ochre-outside", "segments/../../outside", "lock"] {
        let attack = Attack::new();
        attack.change_manifest("full", |manifest| manifest["files"][1]["name"] = name.into());
        let (_, faults) = attack.scene.repository().manifests().unwrap();
        assert!(faults.0[0].contains("which no full backup has"), "{faults:?}");
        attack.refused("which is not there");
    }
    let attack = Attack::new();
    attack.change_manifest("incremental", |manifest| manifest["id"] = "../../home".into());
    let (manifests, faults) = attack.scene.repository().manifests().unwrap();
    assert!(manifests.len() == 1 && faults.0[0].contains("../../home"), "{faults:?}");
    assert!(run(&attack.database, "backup-retention").message.contains("nothing is removed"));
    assert!(attack.scene.home().exists());
}

#[test]
fn chains_that_come_back_to_themselves_end() {
    let attack = Attack::new();
    let id = attack.scene.manifests().pop().unwrap().id;
    attack.change_manifest("incremental", |manifest| manifest["parent"] = id.clone().into());
    let (_, faults) = attack.scene.repository().manifests().unwrap();
    assert!(faults.0[0].contains("cannot continue"), "{faults:?}");
    // Two that continue each other.
    let attack = Attack::new();
    let id = attack.scene.manifests().pop().unwrap().id;
    let twin = id.replacen("2", "1", 1);
    let target = attack.scene.target().join("manifests");
    std::fs::copy(target.join(format!("{id}.json")), target.join(format!("{id}.copy"))).unwrap();
    attack.change_manifest("incremental.json", |manifest| {
        manifest["id"] = twin.clone().into();
        manifest["parent"] = id.clone().into();
    });
    std::fs::rename(target.join(format!("{id}.json")), target.join(format!("{twin}.json"))).unwrap();
    std::fs::rename(target.join(format!("{id}.copy")), target.join(format!("{id}.json"))).unwrap();
    let path = target.join(format!("{id}.json"));
    let mut stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    stored["manifest"]["parent"] = twin.into();
    stored["hash"] = blake3::hash(stored["manifest"].to_string().as_bytes()).to_hex().to_string().into();
    std::fs::write(path, stored.to_string()).unwrap();
    attack.refused("which continues it in turn");
}

#[test]
fn chunks_that_unpack_to_more_than_they_should_are_refused_before_they_do() {
    let attack = Attack::new();
    let bomb = attack.put_chunk(&vec![0; 64 << 20]);
    attack.change_manifest("full", |manifest| manifest["files"][0]["chunks"][0] = bomb.into());
    attack.refused("it does not unpack to");
    // A whole backup may claim any size too.
    let attack = Attack::new();
    let zeros = attack.put_chunk(&vec![0; 4 << 20]);
    let count = 300_000u64;
    attack.change_manifest("full", |manifest| {
        let before = manifest["files"][0]["bytes"].as_u64().unwrap();
        manifest["files"][0]["bytes"] = (count << 22).into();
        manifest["bytes"] = (manifest["bytes"].as_u64().unwrap() - before + (count << 22)).into();
        manifest["files"][0]["chunks"] = vec![zeros; usize::try_from(count).unwrap()].into();
    });
    let error = attack.restore().unwrap_err();
    assert!(error.contains("are free"), "{error}");
}

#[test]
fn definitions_of_a_backup_are_compared_and_never_run() {
    let outside = std::env::temp_dir().join(format!("ochre-outside-{}", std::process::id()));
    let attach = format!("ATTACH ''{0}'' AS x; CREATE TABLE x.t (a)", outside.display());
    for (sql, words) in [
        (format!("INSERT INTO definitions VALUES ('notes_x', '{attach}')"), "otherwise than its version 2"),
        ("UPDATE definitions SET sql = 'DROP TABLE records'".into(), "otherwise than its version"),
        ("UPDATE extensions SET version = 99 WHERE name = 'notes'".into(), "knows versions up to 2"),
        ("UPDATE extensions SET name = 'x'' OR ' WHERE name = 'notes'".into(), "no name of one"),
        ("ALTER TABLE notes_text ADD COLUMN \"x\"\") SELECT 1; --\" TEXT".into(), "a column 'x\") SELECT 1; --'"),
        ("ALTER TABLE tenants ADD COLUMN \"name) SELECT 1\"".into(), "a column 'name) SELECT 1'"),
        (
            "ALTER TABLE records RENAME TO meta_x; CREATE VIEW records AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS row FROM n".into(),
            "no table 'records'",
        ),
        ("CREATE TRIGGER t AFTER INSERT ON records BEGIN SELECT 1; END".into(), "has a trigger 't'"),
        ("DROP TABLE touched".into(), "no table 'touched'"),
        ("UPDATE vectors SET dimension = 0".into(), "dimension of 0"),
        ("UPDATE vectors SET dimension = 4000000000".into(), "dimension of 4000000000"),
        ("UPDATE vectors SET data = zeroblob(3)".into(), "has 3 bytes"),
    ] {
        let attack = Attack::new();
        attack.change_database("incremental", &sql);
        attack.refused(words);
        assert!(!outside.exists(), "{sql}");
    }
    for (sql, words) in [
        ("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END", "the trigger 't'"),
        ("CREATE TRIGGER notes_t AFTER INSERT ON records BEGIN DELETE FROM records; END", "the trigger 'notes_t'"),
        ("CREATE VIEW v AS SELECT 1", "the view 'v'"),
        ("DROP INDEX records_by_id", "the index 'records_by_id' is missing"),
        ("ALTER TABLE records ADD COLUMN x AS (zeroblob(1000000000))", "the table 'records'"),
    ] {
        let attack = Attack::new();
        attack.change_database("full", sql);
        attack.refused(words);
    }
}

#[test]
fn with_a_key_only_backups_made_with_it_are_restored_continued_and_removed() {
    let attack = Attack::new();
    let target = Arc::new(DirectoryTarget::new(attack.scene.target()));
    let keyed = |accept| {
        let trust = BackupTrust::with_key("mine").accepting_unsigned(accept);
        Repository::new(Arc::clone(&target) as Arc<_>).trusting(trust)
    };
    let directory = attack.scene.folder.path().join("keyed");
    let error = keyed(false).restore(&RestoreOptions::default(), &directory).unwrap_err().to_string();
    assert!(error.contains("--accept-unsigned"), "{error}");
    let options = RestoreOptions { at: RestoreAt::Id(attack.scene.manifests()[0].id.clone()), ..Default::default() };
    keyed(true).restore(&options, &directory).unwrap();
    drop(attack.database);
    let options = attack.scene.options();
    let options = ochre_engine::Options { backup_trust: BackupTrust::with_key("mine"), ..options };
    let database = Database::open_with(attack.scene.home(), options).unwrap();
    fill(&database.collection("notes").unwrap(), 0..5);
    // What is not signed is not continued, nor removed, nor does it count as verified.
    succeed(&database, "backup-incremental");
    let (manifests, faults) = keyed(false).manifests().unwrap();
    assert!(manifests.len() == 1 && manifests[0].parent.is_none() && faults.0.len() == 2, "{faults:?}");
    assert!(run(&database, "backup-retention").message.contains("nothing is removed"));
    std::fs::create_dir_all(attack.scene.target().join("verified")).unwrap();
    std::fs::write(attack.scene.target().join("verified").join(&manifests[0].id), "").unwrap();
    let verified = run(&database, "backup-verify");
    assert!(verified.status == Status::Failed && verified.message.contains("is refused"), "{}", verified.message);
    for fault in attack.scene.repository().manifests().unwrap().0 {
        if fault.id != manifests[0].id {
            std::fs::remove_file(attack.scene.target().join(format!("manifests/{}.json", fault.id))).unwrap();
        }
    }
    succeed(&database, "backup-verify");
}

/// Written by version 0.1.0 before 27 November 2026: a full backup and an increment, manifests with spaces in them.
#[test]
fn backups_of_older_versions_restore() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backup-v1"), &target);
    let repository = Repository::new(Arc::new(DirectoryTarget::new(&target)));
    assert_eq!(repository.verify_all().unwrap(), (2, ochre_engine::Faults::default()));
    let directory = folder.path().join("restored");
    repository.restore(&RestoreOptions::default(), &directory).unwrap();
    assert!(ochre_engine::check(&directory).unwrap().is_clean());
    let notes = Database::open(&directory).unwrap().collection("notes").unwrap();
    assert_eq!(notes.count().unwrap(), 3);
}
