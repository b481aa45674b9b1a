//! Forks: random families of collections against copies in memory, through upkeep, reopening and backups.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use ochre_model::{Embeddings, RecordBatch, WriteKind};
use ochre_store::{
    Copy, Error, FORKS_MAX, MemoryStore, Parts, Selection, SqliteOptions, SqliteStore, Store, Upkeep, check,
};
use uuid::Uuid;

use super::{batch, collection, delete, on_every_store, rows, write};

/// Pseudo-random numbers: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }
}

/// A record as it should be.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    id: String,
    document: String,
    vector: Vec<f32>,
}

/// What a collection should hold, by offset.
#[derive(Clone, Default)]
struct Naive {
    number: u32,
    id: Uuid,
    family: Uuid,
    next_offset: u32,
    position: u64,
    records: BTreeMap<u32, Expected>,
}

impl Naive {
    fn offset(&self, id: &str) -> Option<u32> {
        self.records.iter().find(|(_, record)| record.id == id).map(|(offset, _)| *offset)
    }

    fn put(&mut self, id: &str, document: &str, vector: Option<Vec<f32>>, kind: WriteKind) {
        match (self.offset(id), kind) {
            (Some(_), WriteKind::Add) | (None, WriteKind::Update) => {}
            (Some(offset), _) => {
                let record = self.records.get_mut(&offset).unwrap();
                document.clone_into(&mut record.document);
                record.vector = vector.unwrap_or_else(|| record.vector.clone());
            }
            (None, _) => {
                let record = Expected {
                    id: id.into(),
                    document: document.into(),
                    vector: vector.expect("new records have one"),
                };
                self.records.insert(self.next_offset, record);
                self.next_offset += 1;
            }
        }
    }

    /// Compares every way of reading with what should be there.
    fn compare(&self, store: &dyn Store) {
        let reader = store.read().unwrap();
        let head = reader.head(self.number).unwrap().unwrap();
        let expected_head = (self.records.len() as u64, self.next_offset, self.position);
        assert_eq!((head.records, head.next_offset, head.position), expected_head);
        let mut vectors: HashMap<u64, Vec<f32>> = HashMap::new();
        for block in reader.vector_blocks(self.number).unwrap() {
            for (row, id) in block.ids().iter().enumerate() {
                vectors.insert(*id, block.row(row).unwrap().to_vec());
            }
        }
        let mut scanned = Vec::new();
        let visit = &mut |row: ochre_store::RowRef<'_>| {
            scanned.push((row.offset, row.id.to_owned(), vectors[&row.vector_id].clone()));
            ControlFlow::Continue(())
        };
        reader.scan(self.number, visit).unwrap();
        let expected: Vec<_> = self.records.iter().map(|(o, r)| (*o, r.id.clone(), r.vector.clone())).collect();
        assert_eq!(scanned, expected);
        let every: Vec<u32> = (0..self.next_offset + 2).collect();
        let sparse: Vec<u32> = every.iter().rev().step_by(5).copied().collect();
        for offsets in [every, sparse] {
            let expected: Vec<(u32, String)> = offsets
                .iter()
                .filter_map(|offset| Some((*offset, self.records.get(offset)?.document.clone())))
                .collect();
            let (mut read, mut documents) = (Vec::new(), Vec::new());
            let parts = Parts { document: true, ..Parts::default() };
            let visit = &mut |row: ochre_store::RowRef<'_>| {
                read.push((row.offset, row.document.unwrap().to_owned()));
                ControlFlow::Continue(())
            };
            reader.rows(self.number, &offsets, parts, visit).unwrap();
            assert_eq!(read, expected);
            if offsets.is_sorted() {
                let visit = &mut |offset, document: &str| documents.push((offset, document.to_owned()));
                reader.documents(self.number, &offsets, visit).unwrap();
                assert_eq!(documents, expected);
            }
        }
        for number in 0..IDS {
            let id = format!("r{number}");
            let found = reader.offsets(self.number, &mut std::iter::once(&*id)).unwrap();
            assert_eq!(found, Vec::from_iter(self.offset(&id)), "{id}");
        }
    }
}

/// So many ids are used.
const IDS: usize = 60;

/// A random write to one collection, done to both.
fn random_write(random: &mut Random, store: &dyn Store, naive: &mut Naive) {
    let ids: Vec<String> = (0..1 + random.below(12)).map(|_| format!("r{}", random.below(IDS))).collect();
    let before = naive.records.clone();
    match random.below(5) {
        0 => {
            let selection = Selection::Ids(ids.clone());
            delete(store, naive.id, selection).unwrap();
            naive.records.retain(|_, record| !ids.contains(&record.id));
        }
        // Documents only, so that a row refers to a vector of the layer below.
        1 => {
            let documents = ids.iter().map(|_| Some(format!("text {}", random.below(1000)))).collect::<Vec<_>>();
            let batch = RecordBatch { ids: ids.clone(), documents: Some(documents.clone()), ..RecordBatch::default() };
            write(store, naive.id, WriteKind::Update, batch).unwrap();
            for (id, document) in ids.iter().zip(documents) {
                naive.put(id, &document.unwrap(), None, WriteKind::Update);
            }
        }
        kind => {
            let kind = [WriteKind::Add, WriteKind::Upsert, WriteKind::Update][kind - 2];
            let values: Vec<f32> = ids.iter().flat_map(|_| [random.below(1000) as f32, 1.0]).collect();
            let documents: Vec<_> = ids.iter().map(|_| Some(format!("text {}", random.below(1000)))).collect();
            let batch = RecordBatch {
                ids: ids.clone(),
                embeddings: Some(Embeddings::from_rows(2, values.clone())),
                documents: Some(documents.clone()),
                ..RecordBatch::default()
            };
            write(store, naive.id, kind, batch).unwrap();
            for (row, (id, document)) in ids.iter().zip(documents).enumerate() {
                naive.put(id, &document.unwrap(), Some(values[row * 2..row * 2 + 2].to_vec()), kind);
            }
        }
    }
    naive.position += u64::from(naive.records != before);
}

fn upkeep(random: &mut Random, store: &dyn Store) {
    let step = match random.below(6) {
        0 => Upkeep::SweepDeleted,
        1 => Upkeep::SealVectors { min_bytes: 1, dead_share_max: 0.0 },
        2 => Upkeep::CompactVectors { dead_share_max: 0.0 },
        3 => Upkeep::PurgeUnread,
        _ => Upkeep::MergeLayers,
    };
    store.upkeep(step).unwrap();
}

/// Everything that can be swept and merged.
fn upkeep_to_the_end(store: &dyn Store) {
    for step in [Upkeep::SweepDeleted, Upkeep::MergeLayers, Upkeep::PurgeUnread] {
        while store.upkeep(step).unwrap() {}
    }
}

/// One random change of a family.
fn change(random: &mut Random, store: &dyn Store, family: &mut Vec<Naive>, made: &mut usize) {
    let chosen = random.below(family.len());
    match random.below(12) {
        0 if family.len() < 8 => {
            *made += 1;
            let row = store.fork_collection(family[chosen].id, &format!("fork {made}")).unwrap();
            assert_eq!(row.family, family[chosen].family, "they descend from the same collection");
            family.push(Naive { number: row.number, id: row.id, ..family[chosen].clone() });
        }
        1 if family.len() > 1 => {
            store.delete_collection(family.remove(chosen).id).unwrap();
        }
        2..=4 => upkeep(random, store),
        _ => random_write(random, store, &mut family[chosen]),
    }
}

fn new_family(store: &dyn Store) -> Vec<Naive> {
    let row = collection(store, "source");
    vec![Naive { number: row.number, id: row.id, family: row.id, ..Naive::default() }]
}

#[test]
fn forks_and_their_source_never_see_each_others_writes() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let directory = folder.path().join(seed.to_string());
        let open = || SqliteStore::open(&directory, SqliteOptions::default()).unwrap();
        let (mut random, mut store, mut made) = (Random(seed), open(), 0);
        let mut family = new_family(&store);
        for step in 0..150 {
            change(&mut random, &store, &mut family, &mut made);
            if step % 10 == 0 {
                family.iter().for_each(|naive| naive.compare(&store));
            }
            if step % 50 == 49 {
                drop(store);
                let report = check(&directory, &[]).unwrap();
                assert!(report.findings.is_empty(), "seed {seed}, step {step}: {:?}", report.findings);
                store = open();
            }
        }
        family.iter().for_each(|naive| naive.compare(&store));
        upkeep_to_the_end(&store);
        while store.upkeep(Upkeep::CompactVectors { dead_share_max: 0.0 }).unwrap() {}
        family.iter().for_each(|naive| naive.compare(&store));
        let report = store.scrub(&mut |_, _| true).unwrap().unwrap();
        assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
    }
}

#[test]
fn forks_in_memory_are_as_those_on_disk() {
    for seed in 0..5 {
        let (mut random, store, mut made) = (Random(seed), MemoryStore::default(), 0);
        let mut family = new_family(&store);
        for _ in 0..150 {
            change(&mut random, &store, &mut family, &mut made);
        }
        family.iter().for_each(|naive| naive.compare(&store));
    }
}

/// Applies a copy and what changed since, and compares the family that comes out.
fn restore(whole: &Copy, increments: &[Copy], directory: &Path, family: &[Naive]) {
    for file in &whole.files {
        let target = directory.join(&file.name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file.path, &target).unwrap();
        let copied = std::fs::File::options().write(true).open(target).unwrap();
        copied.set_len(file.bytes).unwrap();
    }
    SqliteStore::examine_restored(directory, &[]).unwrap();
    for increment in increments {
        SqliteStore::apply_increment(directory, &increment.files[0].path, &[]).unwrap();
    }
    let store = SqliteStore::open(directory, SqliteOptions::default()).unwrap();
    family.iter().for_each(|naive| naive.compare(&store));
    drop(store);
    let report = check(directory, &[]).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn backups_and_their_increments_hold_forks() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..12 {
        let at = |name: &str| folder.path().join(format!("{seed}-{name}"));
        let store = SqliteStore::open(&at("database"), SqliteOptions::default()).unwrap();
        let (mut random, mut made, mut family) = (Random(seed), 0, new_family(&store));
        let mut steps = |family: &mut Vec<Naive>| {
            for _ in 0..40 {
                change(&mut random, &store, family, &mut made);
            }
        };
        steps(&mut family);
        let whole = store.copy_whole(&at("whole")).unwrap();
        // Segments are copied while nothing compacts them.
        let kept = at("kept");
        let files = whole.files.iter().map(|file| {
            let path = kept.join(&file.name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(&file.path, &path).unwrap();
            ochre_store::CopiedFile { path, ..file.clone() }
        });
        let whole = Copy { files: files.collect(), ..whole.clone() };
        restore(&whole, &[], &at("restored"), &family);
        steps(&mut family);
        let first = store.copy_changes(&whole, &at("first")).unwrap();
        restore(&whole, std::slice::from_ref(&first), &at("restored with one"), &family);
        steps(&mut family);
        let second = store.copy_changes(&first, &at("second")).unwrap();
        restore(&whole, &[first, second], &at("restored with two"), &family);
    }
}

#[test]
fn a_fork_takes_no_space_and_what_it_shares_goes_with_its_last_reader() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let source = collection(&store, "source");
    for start in (0..5_000).step_by(500) {
        let ids: Vec<String> = (start..start + 500).map(|id| format!("{id:04}-{}", "x".repeat(200))).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        write(&store, source.id, WriteKind::Add, batch(&ids, 0.0)).unwrap();
    }
    let used = || {
        store.upkeep(Upkeep::Checkpoint { truncate: true }).unwrap();
        let sizes = store.statistics().unwrap();
        (sizes.database_bytes - sizes.free_bytes, sizes.segment_bytes - sizes.dead_vector_bytes)
    };
    let before = used();
    let forks: Vec<_> =
        (0..10).map(|number| store.fork_collection(source.id, &format!("fork {number}")).unwrap()).collect();
    let with_forks = used();
    assert!(with_forks.0 < before.0 + (64 << 10), "ten forks took {} bytes", with_forks.0 - before.0);
    assert_eq!(with_forks.1, before.1);
    store.delete_collection(source.id).unwrap();
    for fork in &forks[1..] {
        store.delete_collection(fork.id).unwrap();
    }
    upkeep_to_the_end(&store);
    assert_eq!(rows(&store, forks[0].number).len(), 5_000, "the last reader has everything");
    assert_eq!(used().1, before.1);
    assert!(!store.debt().unwrap().has_mergeable_layers);
    store.delete_collection(forks[0].id).unwrap();
    upkeep_to_the_end(&store);
    while store.upkeep(Upkeep::SealVectors { min_bytes: 1, dead_share_max: 1.0 }).unwrap() {}
    while store.upkeep(Upkeep::CompactVectors { dead_share_max: 0.0 }).unwrap() {}
    let after = used();
    assert!(after.0 < before.0 / 10, "{} of {} bytes are left", after.0, before.0);
    assert_eq!(store.statistics().unwrap().segment_count, 0);
}

#[test]
fn forks_are_refused_with_a_reason_and_leave_nothing() {
    on_every_store(|store| {
        let source = collection(store, "source");
        write(store, source.id, WriteKind::Add, batch(&["a"], 0.0)).unwrap();
        assert!(matches!(store.fork_collection(source.id, "source"), Err(Error::AlreadyExists { .. })));
        assert!(matches!(store.fork_collection(Uuid::new_v4(), "fork"), Err(Error::NotFound { .. })));
        for number in 0..FORKS_MAX {
            store.fork_collection(source.id, &format!("fork {number}")).unwrap();
        }
        let refused = store.fork_collection(source.id, "one more").unwrap_err().to_string();
        assert!(refused.contains("256 forks"), "{refused}");
        assert_eq!(store.count_family(source.family).unwrap(), FORKS_MAX as u64 + 1);
        store.delete_collection(source.id).unwrap();
        let of_a_fork = store.collection("default_tenant", "default_database", "fork 3").unwrap().unwrap();
        assert_eq!(of_a_fork.family, source.id);
        store.fork_collection(of_a_fork.id, "one more").unwrap();
    });
}

#[test]
fn forks_that_come_and_go_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let source = collection(&store, "source");
    write(&store, source.id, WriteKind::Add, batch(&["a", "b"], 0.0)).unwrap();
    for number in 0..30 {
        let fork = store.fork_collection(source.id, "fork").unwrap();
        if number % 3 == 0 {
            write(&store, source.id, WriteKind::Upsert, batch(&["a"], number as f32)).unwrap();
        }
        store.delete_collection(fork.id).unwrap();
        upkeep_to_the_end(&store);
    }
    while store.upkeep(Upkeep::SealVectors { min_bytes: 1, dead_share_max: 1.0 }).unwrap() {}
    while store.upkeep(Upkeep::CompactVectors { dead_share_max: 0.0 }).unwrap() {}
    // One more merge forgets the numbers that no vector lies under any more.
    let fork = store.fork_collection(source.id, "fork").unwrap();
    write(&store, source.id, WriteKind::Upsert, batch(&["a"], -1.0)).unwrap();
    store.delete_collection(fork.id).unwrap();
    upkeep_to_the_end(&store);
    let count = |sql: &str| {
        let mut count = 0i64;
        store.read_tables(&mut |c| c.query_row(sql, [], |row| row.get(0)).map(|n| count = n)).unwrap();
        count
    };
    assert!(count("SELECT count(*) FROM merged_layers") <= 3);
    assert_eq!(count("SELECT count(*) FROM layers"), 1);
    assert_eq!(rows(&store, source.number).len(), 2);
    let report = store.scrub(&mut |_, _| true).unwrap().unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn layers_that_lie_in_a_circle_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let source = collection(&store, "source");
    write(&store, source.id, WriteKind::Add, batch(&["a"], 0.0)).unwrap();
    store.fork_collection(source.id, "fork").unwrap();
    let own = format!("UPDATE layers SET base = {0} WHERE number = {0}", source.number);
    store.change_tables(&mut |connection| connection.execute_batch(&own)).unwrap();
    drop(store);
    let found = check(folder.path(), &[]).unwrap().findings;
    assert!(found.iter().any(|found| found.problem.contains("above itself")), "{found:?}");
    let refused = SqliteStore::open(folder.path(), SqliteOptions::default()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("above itself"), "{refused}");
}

/// A chain in which each fork is written to before it is forked: the most layers there can be.
#[test]
fn forks_of_forks_are_read_through_all_their_layers() {
    on_every_store(|store| {
        let mut newest = Naive::default();
        let row = collection(store, "0");
        (newest.number, newest.id) = (row.number, row.id);
        for number in 1..40 {
            write(store, newest.id, WriteKind::Upsert, batch(&[&format!("r{number}"), "r0"], number as f32)).unwrap();
            newest.position += 1;
            for (row, id) in [format!("r{number}"), "r0".into()].iter().enumerate() {
                newest.put(id, "", Some(vec![(number + row) as f32, 1.0]), WriteKind::Upsert);
            }
            let fork = store.fork_collection(newest.id, &number.to_string()).unwrap();
            (newest.number, newest.id) = (fork.number, fork.id);
        }
        let last = rows(store, newest.number);
        assert_eq!(last.len(), newest.records.len());
        let expected: Vec<(u32, &str)> = newest.records.iter().map(|(offset, r)| (*offset, &*r.id)).collect();
        assert_eq!(last.iter().map(|(id, offset, _)| (*offset, &**id)).collect::<Vec<_>>(), expected);
        // All but the last one go: their layers become one.
        for number in 0..39 {
            let row = store.collection("default_tenant", "default_database", &number.to_string()).unwrap().unwrap();
            store.delete_collection(row.id).unwrap();
        }
        upkeep_to_the_end(store);
        assert_eq!(rows(store, newest.number), last);
    });
}

#[test]
fn what_no_fork_reads_any_more_is_removed_and_what_one_does_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let source = collection(&store, "source");
    let secret = |text: &str| RecordBatch { documents: Some(vec![Some(text.into())]), ..batch(&["a"], 1.0) };
    write(&store, source.id, WriteKind::Add, secret("the secret of before")).unwrap();
    write(&store, source.id, WriteKind::Add, batch(&["b", "c"], 2.0)).unwrap();
    let forks = ["first", "second"].map(|name| store.fork_collection(source.id, name).unwrap());
    let all = [&source, &forks[0], &forks[1]];
    let is_on_disk = || {
        while store.upkeep(Upkeep::PurgeUnread).unwrap() {}
        store.upkeep(Upkeep::Checkpoint { truncate: true }).unwrap();
        let bytes = std::fs::read(folder.path().join("ochre.sqlite3")).unwrap();
        bytes.windows(20).any(|window| window == b"the secret of before")
    };
    assert!(is_on_disk());
    assert_eq!(store.held_by_forks().unwrap(), []);
    delete(&store, source.id, Selection::Ids(vec!["a".into()])).unwrap();
    let text_only = RecordBatch { embeddings: None, ..secret("another text") };
    write(&store, forks[0].id, WriteKind::Update, text_only).unwrap();
    assert!(is_on_disk(), "the second fork reads it");
    let held = store.held_by_forks().unwrap();
    let expected = [("source", 1, vec!["second".to_owned()]), ("first", 1, vec!["second".to_owned()])];
    assert_eq!(held.iter().map(|h| (&*h.collection, h.records, h.forks.clone())).collect::<Vec<_>>(), expected);
    delete(&store, forks[1].id, Selection::Ids(vec!["a".into()])).unwrap();
    assert!(!is_on_disk());
    assert_eq!(store.held_by_forks().unwrap(), []);
    store.upkeep(Upkeep::SealVectors { min_bytes: 1, dead_share_max: 1.0 }).unwrap();
    while store.upkeep(Upkeep::CompactVectors { dead_share_max: 0.0 }).unwrap() {}
    assert_eq!(all.map(|row| rows(&store, row.number).len()), [2, 3, 2]);
    assert_eq!(vector(&store, forks[0].number, "a"), [1.0, 1.0], "its vector is the one of before");
    drop(store);
    assert!(check(folder.path(), &[]).unwrap().findings.is_empty());
}

/// The vector of a record.
fn vector(store: &dyn Store, number: u32, id: &str) -> Vec<f32> {
    let (reader, mut found) = (store.read().unwrap(), None);
    let visit = &mut |row: ochre_store::RowRef<'_>| {
        found = found.or((row.id == id).then_some(row.vector_id));
        ControlFlow::Continue(())
    };
    reader.scan(number, visit).unwrap();
    let blocks = reader.vector_blocks(number).unwrap();
    let mut rows = blocks.iter().filter_map(|b| Some(b.row(b.ids().binary_search(&found?).ok()?).unwrap().to_vec()));
    rows.next().unwrap()
}
