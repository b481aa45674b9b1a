//! Thousands of random operations against the naive model, with reopening and maintenance in between.

use ochre_engine::model::Space;
use ochre_engine::{Database, Plan, Strategy};
use ochre_testkit::{Generator, Oracle};

use crate::support::{collection, open, same_answers, same_records, small, step};

/// How often each way of finding an answer was used.
#[derive(Debug, Default)]
struct Ways {
    exact: usize,
    scan: usize,
    graph: usize,
    unindexed: usize,
    reopened_with_graph: usize,
    rebuilt: usize,
    reopened_with_text: usize,
}

impl Ways {
    fn count(&mut self, plan: Plan) {
        match plan.strategy {
            Strategy::Graph => {
                self.graph += 1;
                self.unindexed += usize::from(plan.unindexed > 0);
            }
            Strategy::Scan | Strategy::GraphThenScan => self.scan += 1,
            Strategy::Exact => self.exact += 1,
            Strategy::Empty | Strategy::Postings | Strategy::Terms => {}
        }
    }
}

/// Runs a workload on a durable database.
fn check(space: Space, seed: u64, steps: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut generator = Generator::new(seed, 40, 3000);
    let mut oracle = Oracle::default();
    let mut ways = Ways::default();
    let mut database = open(folder.path());
    for round in 0..steps {
        let tests = collection(&database, space);
        let operation = generator.operation(60);
        step(&tests, &mut oracle, operation);
        ways.count(same_answers(&tests, &oracle, space, &mut generator));
        let mut reopen = false;
        match generator.rng.u8(0..30) {
            0 => {
                let before = tests.graph_nodes().unwrap();
                database.maintain().unwrap();
                ways.rebuilt += usize::from(before > 0 && tests.graph_nodes().unwrap() < before);
            }
            1 => reopen = true,
            2 => same_records(&tests, &oracle),
            _ => {}
        }
        drop(tests);
        let is_checked = round % 200 == 199;
        if reopen || is_checked {
            database.close();
            if is_checked {
                let report = ochre_engine::check(folder.path()).unwrap();
                assert!(report.is_clean(), "{:?}", report.findings);
            }
            database = open(folder.path());
            let tests = collection(&database, space);
            same_records(&tests, &oracle);
            ways.reopened_with_text += usize::from(tests.memory().unwrap().text > 0);
            ways.reopened_with_graph += usize::from(tests.index_progress().unwrap().0 > 0);
        }
    }
    same_records(&collection(&database, space), &oracle);
    // A workload that never reaches a path proves nothing about it.
    assert!(ways.exact > 0 && ways.scan > 0 && ways.graph > 0 && ways.unindexed > 0, "{ways:?}");
    assert!(ways.reopened_with_graph > 0 && ways.reopened_with_text > 0 && ways.rebuilt > 0, "{ways:?}");
}

#[test]
fn a_durable_database_answers_as_the_model_does_in_l2() {
    check(Space::L2, 1, 900);
}

#[test]
fn a_durable_database_answers_as_the_model_does_in_cosine() {
    check(Space::Cosine, 2, 900);
}

#[test]
fn a_durable_database_answers_as_the_model_does_in_ip() {
    check(Space::Ip, 3, 900);
}

#[test]
fn an_ephemeral_database_answers_as_the_model_does() {
    let mut generator = Generator::new(4, 5, 500);
    let mut oracle = Oracle::default();
    let database = Database::ephemeral_with(small()).unwrap();
    let tests = collection(&database, Space::L2);
    for round in 0..800 {
        let operation = generator.operation(40);
        step(&tests, &mut oracle, operation);
        same_answers(&tests, &oracle, Space::L2, &mut generator);
        if round % 50 == 0 {
            database.maintain().unwrap();
            same_records(&tests, &oracle);
        }
    }
}
