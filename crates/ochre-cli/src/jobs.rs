//! `ochre jobs`: what maintains a running server's database, as tables and a progress bar.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value as Json};

use crate::client::{Connection, Server, encoded};
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
        self, query: &str, output: &mut Output, show: fn(&Json, &mut Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<Exit> {
        let path = self.path() + query;
        let server = Server::named_by(self.ask.connection, output)?;
        let body = server.get(&path)?;
        if self.ask.json {
            output.data(&body)?;
        } else {
            show(&serde_json::from_str(&body).context("the answer is no JSON")?, output)?;
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
        let job: Json = serde_json::from_str(&body).context("the answer is no JSON")?;
        output.status(&format!("{} is {}", self.name, text(&job["state"])));
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
    let answer: Json = serde_json::from_str(&body).context("the answer is no JSON")?;
    let jobs = answer["jobs"].as_array().context("the answer names no jobs")?;
    let rows: Vec<[String; 5]> = jobs
        .iter()
        .map(|job| {
            let outcome = match &job["last_outcome"] {
                Json::Null => job["last_check"]["reason"].as_str().map_or("-".into(), |reason| format!("- ({reason})")),
                outcome => format!("{} ({})", text(outcome), text(&job["last_message"])),
            };
            let progress =
                if job["progress"].is_null() { String::new() } else { format!(": {}", progress(&job["progress"])) };
            let next = text(&job["next_runs"][0]);
            let held = job["held"]["reason"].as_str().or(job["warning"].as_str());
            let held = held.map_or(String::new(), |reason| format!(" ({reason})"));
            [
                text(&job["name"]),
                text(&job["state"]) + &held + &progress,
                text(&job["trigger"]),
                seconds(&next),
                outcome,
            ]
        })
        .collect();
    table(["job", "state", "trigger", "next run", "last outcome"], &rows, output)?;
    Ok(Exit::Ok)
}

fn show(job: &Json, output: &mut Output) -> anyhow::Result<()> {
    output.data(&format!("{}: {}", text(&job["name"]), text(&job["description"])))?;
    let mut line = |name: &str, value: &str| output.data(&format!("  {name:18} {value}"));
    line("state", &text(&job["state"]))?;
    if let Some(reason) = job["held"]["reason"].as_str() {
        let until = job["held"]["until"].as_str().map_or(String::new(), |until| format!(", until {}", seconds(until)));
        line("held", &format!("{reason}{until}"))?;
    }
    line("trigger", &text(&job["trigger"]))?;
    if let Some(warning) = job["warning"].as_str() {
        line("warning", warning)?;
    }
    let next: Vec<String> =
        job["next_runs"].as_array().into_iter().flatten().map(|time| seconds(&text(time))).collect();
    line("next runs", &next.join(", "))?;
    if !job["progress"].is_null() {
        line("progress", &progress(&job["progress"]))?;
    }
    let last = &job["history"][0];
    if !last.is_null() {
        line(
            "last run",
            &format!("{} {}: {}", seconds(&text(&last["started"])), text(&last["status"]), text(&last["message"])),
        )?;
    }
    if let Some(reason) = job["last_check"]["reason"].as_str() {
        line("last check", &format!("{} nothing to do: {reason}", seconds(&text(&job["last_check"]["at"]))))?;
    }
    line("failures in a row", &text(&job["failures"]))?;
    output.data("  policies")?;
    for (name, value) in job["policies"].as_object().into_iter().flatten() {
        output.data(&format!("    {name:16} {}", text(value)))?;
    }
    output.data("  settings")?;
    for (name, setting) in job["settings"].as_object().into_iter().flatten() {
        output.data(&format!("    {name:16} {:12} {}", text(&setting["value"]), text(&setting["description"])))?;
    }
    Ok(())
}

fn history(job: &Json, output: &mut Output) -> anyhow::Result<()> {
    let runs = job["history"].as_array().context("the answer has no history")?;
    let rows: Vec<[String; 5]> = runs
        .iter()
        .map(|run| {
            let took = run["seconds"].as_f64().map_or("-".into(), |took| format!("{took:.1} s"));
            let kind = format!("{} {}", text(&run["kind"]), text(&run["attempt"]));
            [seconds(&text(&run["started"])), took, kind, text(&run["status"]), text(&run["message"])]
        })
        .collect();
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
        let started: Json =
            serde_json::from_str(&server.post(&format!("{path}/run"))?).context("the answer is no JSON")?;
        if self.detach {
            if is_json {
                output.data(&started.to_string())?;
            } else {
                output.status(&format!("{} runs as soon as possible", self.of.name));
            }
            return Ok(Exit::Ok);
        }
        // Of runs by hand there are few, however often the schedule is due.
        let scheduled_at = text(&started["requested"]);
        let of_it = |entry: &&Json| entry["kind"] == "manual" && text(&entry["scheduled_at"]) == scheduled_at;
        let (is_terminal, mut shown) = (std::io::stderr().is_terminal(), 0);
        loop {
            std::thread::sleep(ASK_EVERY);
            let body = server.get(&format!("{path}?kind=manual&history=20"))?;
            let job: Json = serde_json::from_str(&body).context("the answer is no JSON")?;
            let mut runs = job["history"].as_array().into_iter().flatten().filter(of_it);
            // A raised run goes on as the next one.
            let last = runs.next().filter(|run| !run["ended"].is_null() && run["status"] != "escalated");
            let is_to_come = || job["pending"].as_array().into_iter().flatten().any(|pending| of_it(&pending));
            let is_under_way = || of_it(&&job["running"]);
            if let Some(last) = last
                && !is_to_come()
            {
                if shown > 0 {
                    output.redraw(&" ".repeat(shown));
                    output.redraw("");
                }
                let ended = format!("{}: {}", text(&last["status"]), text(&last["message"]));
                output.data(if is_json { &body } else { &ended })?;
                return Ok(if last["status"] == "succeeded" { Exit::Ok } else { Exit::Failed });
            }
            anyhow::ensure!(
                last.is_some()
                    || is_to_come()
                    || is_under_way()
                    || job["history"].as_array().is_none_or(|runs| runs.iter().any(|run| of_it(&run))),
                "the run of {scheduled_at} ended, and how is not in the job's history any more: `history_max` is {}",
                job["policies"]["history_max"]
            );
            if is_terminal {
                let held = job["held"]["reason"].as_str().map_or(String::new(), |reason| format!(" ({reason})"));
                let line = format!("{}{held} {}", text(&job["state"]), progress(&job["progress"]));
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
    let job: Json = serde_json::from_str(body).context("the answer is no JSON")?;
    let next = job["next_runs"][0]
        .as_str()
        .map_or("it is not due any more".to_owned(), |next| format!("next {}", seconds(next)));
    output.status(&format!("{} runs {}; {next}", text(&job["name"]), text(&job["trigger"])));
    Ok(Exit::Ok)
}

/// A bar if the end is known, else a count.
fn progress(progress: &Json) -> String {
    let (Some(done), what) = (progress["done"].as_u64(), text(&progress["what"])) else { return String::new() };
    match progress["total"].as_u64().filter(|total| *total > 0) {
        None => format!("{done} {what}"),
        Some(total) => {
            let full = usize::try_from(done.min(total) * BAR as u64 / total).unwrap_or(BAR);
            format!("[{}{}] {done} of {total} {what}", "#".repeat(full), ".".repeat(BAR - full))
        }
    }
}
