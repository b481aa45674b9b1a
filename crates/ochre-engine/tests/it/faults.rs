//! The n-th operation on the disk fails: the answer is never a lie, reads go on, and writes come back.

use ochre_engine::model::Space;
use ochre_engine::{Database, Error, StoreError};
use ochre_testkit::{Generator, Oracle, Recorder};

use crate::support::{apply, collection, recorded, same_records};

/// Lets every n-th operation of a workload fail in turn.
fn check(full: bool) {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new();
    let database = Database::open_with(folder.path(), recorded(&recorder)).unwrap();
    let tests = collection(&database, Space::L2);
    let mut generator = Generator::new(31, 6, 200);
    let mut oracle = Oracle::default();
    let (mut failed, mut unknown) = (0, 0);
    for round in 0..250 {
        recorder.fail_once(round % 23, full);
        let operation = generator.operation(8);
        let mut after = oracle.clone();
        match apply(&tests, &mut after, operation.clone()) {
            Ok(()) => oracle = after,
            Err(Error::Store(StoreError::OutcomeUnknown { .. })) => unknown += 1,
            Err(Error::Store(error)) => {
                let is_full = matches!(error, StoreError::Full { .. });
                assert!(!full || is_full, "a full disk is called that: {error}");
                failed += 1;
            }
            Err(other) => panic!("{other}"),
        }
        recorder.stop_failing();
        // "Refused" means that nothing is there, "done" that everything is; also after reopening.
        same_records(&tests, &oracle);
    }
    assert!(failed > 20, "the faults were met: {failed}");
    assert_eq!(unknown, 0, "one failed operation never leaves the outcome open");
    drop(tests);
    drop(database);
    let report = ochre_engine::check(folder.path()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let database = Database::open(folder.path()).unwrap();
    same_records(&collection(&database, Space::L2), &oracle);
}

#[test]
fn a_failing_disk_never_makes_an_answer_a_lie() {
    check(false);
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_of_them_stays() {
    check(true);
}
