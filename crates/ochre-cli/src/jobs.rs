//! `ochre jobs`: what maintains a running server's database, as tables and a progress bar.

use std::io::IsTerminal;
use std::time::Duration;

use ochre_wire::admin::jobs::{Held, JobAnswer, JobList, JobSummary, LastCheck, Progress, Run, Setting};
use serde_json::{Map, Value as Json};

use crate::client::{Connection, Server, encoded, parsed};
use crate::output::{Exit, Output, seconds, table, text};

/// How often a run is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Characters of a progress bar.
const BAR: usize = 30;

/// List, run, pause and resume the jobs that maintain a running server's database
#[derive(clap::Subcommand)]
pub(crate) enum Jobs {
    /// List every job: its state, when it is due, how its last run ended
    List(ServerArguments),
    /// Show a job: its schedule, policies, settings, and its state
    Show(JobArguments),
    /// Run a job as soon as possible, and wait until it has ended
    Run(Start),
    /// Stop a running job at its next step
    Cancel(JobArguments),
    /// Pause a job until it is resumed
    Pause(JobArguments),
    /// Run a paused or broken job again
    Resume(JobArguments),
    /// List a job's last runs, newest first
    History(JobArguments),
    /// Change when a job runs
    Schedule(Reschedule),
    /// Reset a job's schedule, policies and settings to those of the configuration, or the defaults
    Reset(JobArguments),
}

/// Which server.
#[derive(clap::Args)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's response as JSON
    #[arg(long)]
    json: bool,
}

/// Which job of which server.
#[derive(clap::Args)]
pub(crate) struct JobArguments {
    /// The job
    name: String,
    #[command(flatten)]
    ask: ServerArguments,
}

#[derive(clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    of: JobArguments,
    /// Return at once instead of waiting until the run has ended
    #[arg(long)]
    detach: bool,
}

#[derive(clap::Args)]
pub(crate) struct Reschedule {
    #[command(flatten)]
    of: JobArguments,
    /// At a fixed interval: 30s, 5m, 2h, 7d
    #[arg(long, value_name = "DURATION", group = "when")]
    interval: Option<String>,
    /// By calendar, such as "0 3 * * *"
    #[arg(long, value_name = "EXPRESSION", group = "when")]
    cron: Option<String>,
    /// The time zone of the cron expression, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Once, at a time to come (RFC 3339), beside its schedule
    #[arg(long, value_name = "TIME", group = "when")]
    once: Option<String>,
    /// Once, so long from now, beside its schedule: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", group = "when")]
    delay: Option<String>,
}

impl Jobs {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::List(ask) => list(ask, output),
            Self::Show(of) => of.show("", output, show),
            Self::History(of) => of.show("?history=100", output, history),
            Self::Run(start) => start.run(output),
            Self::Schedule(change) => change.run(output),
            Self::Reset(of) => of.reset(output),
            Self::Cancel(of) => of.tell("cancel", output),
            Self::Pause(of) => of.tell("pause", output),
            Self::Resume(of) => of.tell("resume", output),
        }
    }
}

impl JobArguments {
    fn path(&self) -> String {
        format!("/_admin/jobs/{}", encoded(&self.name))
    }

    fn show(
        self, query: &str, output: &mut Output, show: fn(&JobAnswer, &mut Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<Exit> {
        let path = self.path() + query;
        let server = Server::named_by(self.ask.connection, output)?;
        let body = server.get(&path)?;
        if self.ask.json {
            output.data(&body)?;
        } else {
            show(&parsed(&body)?, output)?;
        }
        Ok(Exit::Ok)
    }

    fn tell(self, action: &str, output: &mut Output) -> anyhow::Result<Exit> {
        let path = format!("{}/{action}", self.path());
        let server = Server::named_by(self.ask.connection, output)?;
        let body = server.post(&path)?;
        if self.ask.json {
            output.data(&body)?;
            return Ok(Exit::Ok);
        }
        let job: JobSummary = parsed(&body)?;
        output.status(&format!("{} is {}", self.name, job.state));
        Ok(Exit::Ok)
    }
}

fn list(ask: ServerArguments, output: &mut Output) -> anyhow::Result<Exit> {
    let server = Server::named_by(ask.connection, output)?;
    let body = server.get("/_admin/jobs")?;
    if ask.json {
        output.data(&body)?;
        return Ok(Exit::Ok);
    }
    let JobList { jobs, .. } = parsed(&body)?;
    let rows: Vec<[String; 5]> = jobs.iter().map(row).collect();
    table(["job", "state", "trigger", "next run", "last outcome"], &rows, output)?;
    Ok(Exit::Ok)
}

/// A job as a row of the table.
fn row(job: &JobSummary) -> [String; 5] {
    let outcome = match (&job.last_outcome, &job.last_check) {
        (Some(outcome), _) => format!("{outcome} ({})", job.last_message.as_deref().unwrap_or_default()),
        (None, Some(check)) => format!("- ({})", check.reason),
        (None, None) => "-".to_owned(),
    };
    let progress = job.progress.as_ref().map_or(String::new(), |done| format!(": {}", progress(done)));
    let held = job.held.as_ref().map(|held| &held.reason).or(job.warning.as_ref());
    let held = held.map_or(String::new(), |reason| format!(" ({reason})"));
    let next = job.next_runs.first().map_or(String::new(), |next| seconds(next));
    [job.name.clone(), format!("{}{held}{progress}", job.state), job.trigger.clone(), next, outcome]
}

fn show(job: &JobAnswer, output: &mut Output) -> anyhow::Result<()> {
    let JobAnswer { summary, policies, settings, failures, history, .. } = job;
    output.data(&format!("{}: {}", summary.name, summary.description))?;
    let mut line = |name: &str, value: &str| output.data(&format!("  {name:18} {value}"));
    line("state", &summary.state)?;
    if let Some(Held { reason, until }) = &summary.held {
        let until = until.as_ref().map_or(String::new(), |until| format!(", until {}", seconds(until)));
        line("held", &format!("{reason}{until}"))?;
    }
    line("trigger", &summary.trigger)?;
    if let Some(warning) = &summary.warning {
        line("warning", warning)?;
    }
    let next: Vec<String> = summary.next_runs.iter().map(|time| seconds(time)).collect();
    line("next runs", &next.join(", "))?;
    if let Some(done) = &summary.progress {
        line("progress", &progress(done))?;
    }
    if let Some(last) = history.iter().flatten().next() {
        line("last run", &format!("{} {}: {}", seconds(&last.started), last.status, last.message))?;
    }
    if let Some(LastCheck { at, reason }) = &summary.last_check {
        line("last check", &format!("{} nothing to do: {reason}", seconds(at)))?;
    }
    line("failures in a row", &failures.to_string())?;
    output.data("  policies")?;
    for (name, value) in policies {
        output.data(&format!("    {name:16} {}", text(value)))?;
    }
    output.data("  settings")?;
    for (name, Setting { value, description }) in settings {
        let description = description.as_deref().unwrap_or("-");
        output.data(&format!("    {name:16} {:12} {description}", text(value)))?;
    }
    Ok(())
}

fn history(job: &JobAnswer, output: &mut Output) -> anyhow::Result<()> {
    let row = |run: &Run| {
        let took = run.seconds.map_or("-".into(), |took| format!("{took:.1} s"));
        let kind = format!("{} {}", run.kind, run.attempt);
        [seconds(&run.started), took, kind, run.status.clone(), run.message.clone()]
    };
    let rows: Vec<[String; 5]> = job.history.iter().flatten().map(row).collect();
    table(["started", "took", "kind, attempt", "status", "message"], &rows, output)
}

impl Start {
    /// Of this job, to be waited for.
    pub(crate) fn waiting_for(name: &str, connection: Connection) -> Self {
        Self {
            of: JobArguments { name: name.to_owned(), ask: ServerArguments { connection, json: false } },
            detach: false,
        }
    }

    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let (path, is_json) = (self.of.path(), self.of.ask.json);
        let server = Server::named_by(self.of.ask.connection, output)?;
        let body = server.post(&format!("{path}/run"))?;
        if self.detach {
            if is_json {
                output.data(&body)?;
            } else {
                output.status(&format!("{} runs as soon as possible", self.of.name));
            }
            return Ok(Exit::Ok);
        }
        // Of runs by hand there are few, however often the schedule is due.
        let scheduled_at = parsed::<JobSummary>(&body)?.requested.unwrap_or_default();
        let is_it = |kind: &str, time: &str| kind == "manual" && time == scheduled_at;
        let of_it = |run: &&Run| is_it(&run.kind, &run.scheduled_at);
        let (is_terminal, mut shown) = (std::io::stderr().is_terminal(), 0);
        loop {
            std::thread::sleep(ASK_EVERY);
            let body = server.get(&format!("{path}?kind=manual&history=20"))?;
            let JobAnswer { summary, policies, pending, running, history, .. } = parsed(&body)?;
            let runs = history.unwrap_or_default();
            // An escalated run goes on as the next one.
            let last = runs.iter().find(of_it).filter(|run| run.ended.is_some() && run.status != "escalated");
            let is_to_come = || pending.iter().any(|pending| is_it(&pending.kind, &pending.scheduled_at));
            let is_under_way = || running.iter().any(|run| of_it(&run));
            if let Some(last) = last
                && !is_to_come()
            {
                if shown > 0 {
                    output.redraw(&" ".repeat(shown));
                    output.redraw("");
                }
                let ended = format!("{}: {}", last.status, last.message);
                output.data(if is_json { &body } else { &ended })?;
                return Ok(if last.status == "succeeded" { Exit::Ok } else { Exit::Failed });
            }
            anyhow::ensure!(
                last.is_some() || is_to_come() || is_under_way() || runs.iter().any(|run| of_it(&run)),
                "the run of {scheduled_at} ended, and how is not in the job's history any more: `history_max` is {}",
                policies["history_max"]
            );
            if is_terminal {
                let held = summary.held.map_or(String::new(), |held| format!(" ({})", held.reason));
                let done = summary.progress.as_ref().map_or(String::new(), progress);
                let line = format!("{}{held} {done}", summary.state);
                output.redraw(&format!("{line:shown$}"));
                shown = line.chars().count();
            }
        }
    }
}

impl Reschedule {
    fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let given = [
            ("interval", self.interval),
            ("cron", self.cron),
            ("zone", self.zone),
            ("once", self.once),
            ("delay", self.delay),
        ];
        let change: Map<String, Json> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
        anyhow::ensure!(!change.is_empty(), "say when: --interval, --cron, --once or --delay");
        let path = self.of.path();
        let server = Server::named_by(self.of.ask.connection, output)?;
        let body = server.ask("PATCH", &path, Some(&Json::Object(change).to_string()))?;
        scheduled(&body, self.of.ask.json, output)
    }
}

impl JobArguments {
    fn reset(self, output: &mut Output) -> anyhow::Result<Exit> {
        let path = format!("{}/schedule", self.path());
        let body = Server::named_by(self.ask.connection, output)?.ask("DELETE", &path, None)?;
        scheduled(&body, self.ask.json, output)
    }
}

/// Says when a job runs from now on.
fn scheduled(body: &str, is_json: bool, output: &mut Output) -> anyhow::Result<Exit> {
    if is_json {
        output.data(body)?;
        return Ok(Exit::Ok);
    }
    let JobSummary { name, trigger, next_runs, .. } = parsed(body)?;
    let next = next_runs.first().map_or("it is not due any more".to_owned(), |next| format!("next {}", seconds(next)));
    output.status(&format!("{name} runs {trigger}; {next}"));
    Ok(Exit::Ok)
}

/// A bar if the end is known, else a count.
fn progress(Progress { done, total, what }: &Progress) -> String {
    match total.filter(|total| *total > 0) {
        None => format!("{done} {what}"),
        Some(total) => {
            let full = usize::try_from((*done).min(total) * BAR as u64 / total).unwrap_or(BAR);
            format!("[{}{}] {done} of {total} {what}", "#".repeat(full), ".".repeat(BAR - full))
        }
    }
}
