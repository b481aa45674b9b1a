//! `/metrics`: numbers for Prometheus, made when they are asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use ochre_engine::Database;
use ochre_engine::scheduler::{JobState, JobStatus};
use ochre_extension::{Access, Description, Permission};

use super::served::Served;
use crate::app::App;
use crate::error::ApiError;
use crate::exposition::Exposition;

pub(super) fn operations() -> Vec<Served> {
    vec![Served::new(
        Description::get("/metrics", "Metrics in the Prometheus format", Access::Scope(Permission::SystemRead))
            .answers(200, "string"),
        metrics,
    )]
}

async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let requests = app.requests().render();
    let text = app.run(move |database| Ok(requests + &render(database)?)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn render(database: &Database) -> Result<String, ApiError> {
    let mut out = Exposition::default();
    let (sizes, debt) = (database.statistics()?, database.debt()?);
    out.metric("ochre_disk_bytes", "gauge", "Bytes on disk, by part");
    for (part, bytes) in
        [("database", sizes.database_bytes), ("wal", sizes.wal_bytes), ("segments", sizes.segment_bytes)]
    {
        out.value("ochre_disk_bytes", &[("part", part)], bytes as f64);
    }
    out.metric("ochre_debt", "gauge", "What maintenance has yet to work off, in the unit of its kind");
    for (kind, owed) in [
        ("free_bytes", sizes.free_bytes),
        ("dead_vector_bytes", sizes.dead_vector_bytes),
        ("prunable_entries", debt.prunable_entries),
        ("deleted_collections", debt.deleted_collections),
    ] {
        out.value("ochre_debt", &[("kind", kind)], owed as f64);
    }
    out.metric("ochre_memory_bytes", "gauge", "Bytes of memory that loaded collections hold, by part");
    let loaded = database.memory();
    let sum = |part: fn(&ochre_engine::Memory) -> usize| loaded.iter().map(|(_, memory)| part(memory)).sum::<usize>();
    for (part, bytes) in [
        ("vectors", sum(|memory| memory.vectors)),
        ("indexes", sum(|memory| memory.indexes)),
        ("quantized", sum(|memory| memory.quantized)),
        ("links", sum(|memory| memory.links)),
        ("columns", sum(|memory| memory.columns)),
        ("text", sum(|memory| memory.text)),
        ("locations", sum(|memory| memory.locations)),
    ] {
        out.value("ochre_memory_bytes", &[("part", part)], bytes as f64);
    }
    out.single("ochre_collections_loaded", "gauge", "Collections in memory", loaded.len() as f64);
    let (unindexed, unreachable) = database.unindexed_vectors();
    out.single(
        "ochre_vectors_unindexed",
        "gauge",
        "Vectors of loaded collections that wait for a graph",
        unindexed as f64,
    );
    out.single(
        "ochre_vectors_unreachable",
        "gauge",
        "Vectors of loaded collections that searches of the graph were found to miss; they are scanned",
        unreachable as f64,
    );
    if let Some(taken) = database.last_backup() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let age = now.saturating_sub(taken.cast_unsigned());
        out.single("ochre_backup_age_seconds", "gauge", "How long ago the last backup was taken", age as f64);
    }
    let (resident, limit) = database.resident();
    out.single(
        "ochre_resident_bytes",
        "gauge",
        "Resident memory of the process, mapped files included",
        resident as f64,
    );
    out.single("ochre_memory_limit_bytes", "gauge", "The limit that resident memory is kept below", limit as f64);
    out.single("ochre_pressure", "gauge", "How much maintenance gives way to requests, 0 to 100", database.pressure());
    out.metric("ochre_schema_violations_total", "counter", "How often rules of schemas were broken, by outcome");
    for found in database.violation_counts() {
        let labels = [
            ("collection", found.collection.as_str()),
            ("key", found.key.as_str()),
            ("rule", found.rule),
            ("outcome", found.outcome.name()),
        ];
        out.value("ochre_schema_violations_total", &labels, found.count as f64);
    }
    jobs(&mut out, &database.scheduler().jobs());
    Ok(out.finish())
}

/// A number of a job.
type OfJob = fn(&JobStatus) -> Option<f64>;

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn jobs(out: &mut Exposition, jobs: &[JobStatus]) {
    const STATES: [(&str, JobState); 9] = [
        ("scheduled", JobState::Scheduled),
        ("held", JobState::Held),
        ("running", JobState::Running),
        ("waiting", JobState::Waiting),
        ("stuck", JobState::Stuck),
        ("paused", JobState::Paused),
        ("broken", JobState::Broken),
        ("off", JobState::Off),
        ("finished", JobState::Finished),
    ];
    out.metric("ochre_job_state", "gauge", "1 for the state a job is in");
    for job in jobs {
        for (name, state) in STATES {
            let value = f64::from(u8::from(job.state == state));
            out.value("ochre_job_state", &[("job", &job.name), ("state", name)], value);
        }
    }
    out.metric("ochre_job_times_total", "counter", "Times a job was due, by what became of them");
    for job in jobs {
        let counters = job.counters;
        for (what, count) in [
            ("ran", counters.ran),
            ("coalesced", counters.coalesced),
            ("nothing_to_do", counters.nothing_to_do),
            ("missed", counters.missed),
            ("overlapped", counters.overlapped),
        ] {
            out.value("ochre_job_times_total", &[("job", &job.name), ("what", what)], count as f64);
        }
    }
    let numbers: [(&str, &str, OfJob); 5] = [
        ("ochre_job_failures", "Runs of a job that failed since one succeeded", |job| Some(f64::from(job.failures))),
        ("ochre_job_last_success", "1 if the last run of a job succeeded", |job| {
            Some(f64::from(u8::from(!job.last_run.as_ref()?.status.is_failure())))
        }),
        ("ochre_job_last_end_seconds", "When the last run of a job ended, in seconds since 1970", |job| {
            Some(job.last_run.as_ref()?.ended?.as_micros() as f64 / 1e6)
        }),
        ("ochre_job_last_duration_seconds", "How long the last run of a job took", |job| {
            let run = job.last_run.as_ref()?;
            Some(run.ended?.since(run.started).as_secs_f64())
        }),
        ("ochre_job_progress", "Units that the run under way has done", |job| Some(job.progress.as_ref()?.done as f64)),
    ];
    for (name, help, number) in numbers {
        out.metric(name, "gauge", help);
        for job in jobs {
            if let Some(value) = number(job) {
                out.value(name, &[("job", &job.name)], value);
            }
        }
    }
}
