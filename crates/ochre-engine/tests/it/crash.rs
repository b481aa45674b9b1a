//! Power fails at every sync of a workload: the database opens, is clean, and holds every acknowledged
//! write and no part of any other.

use ochre_engine::Database;
use ochre_engine::model::Space;
use ochre_testkit::{CrashImage, Generator, Oracle, Recorder};

use crate::support::{apply, collection, recorded, small};

#[test]
fn a_crash_at_any_sync_loses_nothing_acknowledged_and_keeps_nothing_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let recorder = Recorder::new();
    let database = Database::open_with(&home, recorded(&recorder)).unwrap();
    let tests = collection(&database, Space::L2);
    let mut generator = Generator::new(21, 8, 120);
    // The state after each operation, and the event at which it was acknowledged.
    let mut history = vec![(recorder.len(), Oracle::default())];
    for round in 0..60 {
        let mut oracle = history.last().unwrap().1.clone();
        let operation = generator.operation(12);
        apply(&tests, &mut oracle, operation).unwrap();
        history.push((recorder.len(), oracle));
        if round % 9 == 8 {
            // Sealing, compaction and sweeping are crash points like any other.
            database.maintain().unwrap();
        }
    }
    let (mut images, mut cut_short) = (0, 0);
    for at in recorder.syncs().into_iter().filter(|at| *at > history[0].0) {
        // Right before and right after the sync, with all that a disk may have made of the rest.
        for (point, image) in [
            (at, CrashImage::OnlySynced),
            (at, CrashImage::Torn),
            (at, CrashImage::Everything),
            (at + 1, CrashImage::OnlySynced),
        ] {
            let place = folder.path().join("crashed");
            recorder.lay_out(point, image, &home, &place).unwrap();
            let reopened = Database::open_with(&place, small()).unwrap();
            let tests = collection(&reopened, Space::L2);
            let found = held(&tests);
            let acknowledged = history.iter().rposition(|(event, _)| *event <= point).unwrap();
            let next = (acknowledged + 1).min(history.len() - 1);
            let is = |index: usize| found == expected(&history[index].1);
            assert!(is(acknowledged) || is(next), "event {point} ({image:?}): neither state {acknowledged} nor {next}");
            cut_short += usize::from(!is(next));
            drop(tests);
            drop(reopened);
            let report = ochre_engine::check(&place).unwrap();
            assert!(report.is_clean(), "event {point} ({image:?}): {:?}", report.findings);
            std::fs::remove_dir_all(&place).unwrap();
            images += 1;
        }
    }
    assert!(images > 300 && cut_short > 50, "{images} crashes, {cut_short} of them before the commit");
}

/// A collection's records in a form that compares.
type Held = Vec<(String, Vec<u32>, Option<String>, Option<String>, Option<String>)>;

fn held(collection: &ochre_engine::Collection) -> Held {
    let request = ochre_engine::GetRequest { include: ochre_engine::Include::ALL, ..Default::default() };
    let records = collection.get(&request).unwrap().into_iter();
    records
        .map(|record| {
            let bits = record.embedding.unwrap().iter().map(|x| x.to_bits()).collect();
            let metadata = record.metadata.map(|m| m.as_json().to_owned()).filter(|text| text != "{}");
            (record.id, bits, metadata, record.document, record.uri)
        })
        .collect()
}

fn expected(oracle: &Oracle) -> Held {
    let records = oracle.records.iter();
    records
        .map(|record| {
            let bits = record.embedding.iter().map(|x| x.to_bits()).collect();
            let metadata = record.metadata.as_ref().map(ochre_engine::model::Metadata::to_text);
            (record.id.clone(), bits, metadata, record.document.clone(), record.uri.clone())
        })
        .collect()
}
