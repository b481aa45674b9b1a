//! A job of one's own on the database's scheduler: `cargo run --release -p ochre-engine --example schedules`.

use std::sync::Arc;
use std::time::Duration;

use ochre_engine::scheduler::{Context, Defaults, Failure, Progress, Readiness, ScheduleOptions, Task, TaskSettings};
use ochre_engine::{Database, WeakDatabase};

/// Counts the collections there are.
struct Count {
    name: &'static str,
    database: WeakDatabase,
}

impl Task for Count {
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        "counts the collections there are"
    }

    fn defaults(&self) -> Defaults {
        Defaults::every(Duration::from_secs(3600))
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        Ok(Readiness::Ready("it is due".into()))
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        context.step(Progress { done: 0, total: None, what: "counting".into() })?;
        let count = self.database.open()?.all_collections()?.len();
        Ok(format!("there are {count}"))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("ochre-schedules-{}", std::process::id()));
    let database = Database::open(&folder)?;
    database.create_collection("notes")?;
    let scheduler = database.scheduler();
    for name in ["count-often", "count-nightly", "count-once"] {
        scheduler.add_task(Arc::new(Count { name, database: database.downgrade() }))?;
    }
    scheduler.schedule_interval("count-often", Duration::from_secs(60), ScheduleOptions::default())?;
    let berlin = ScheduleOptions { zone: Some("Europe/Berlin".into()), ..ScheduleOptions::default() };
    let nightly = scheduler.schedule_cron("count-nightly", "0 3 * * *", berlin)?;
    let once =
        scheduler.schedule_once("count-once", Some(Duration::from_millis(100)), None, ScheduleOptions::default())?;
    report(&format!("nightly at {}", nightly.next_times(1)?[0]));
    while once.history(1)?.first().is_none_or(|run| run.ended.is_none()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    report(&format!("once: {}", once.history(1)?[0].message));
    database.close();
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn report(line: &str) {
    println!("{line}");
}
