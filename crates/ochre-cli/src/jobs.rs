//! `ochre jobs`: what maintains a running server's database, as tables and a progress bar.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value as Json;

use crate::ask::Server;
use crate::output::{Exit, Output, table, text};
use crate::run::Settings;

/// How often a run is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Characters of a progress bar.
const BAR: usize = 30;

/// List, run, pause and resume the jobs that maintain a running server's database
#[derive(clap::Subcommand)]
pub(crate) enum Jobs {
    /// List every job: its state, when it is due, how its last run ended
    List(Ask),
    /// Show a job: its schedule, policies, knobs, and how it stands
    Show(AskFor),
    /// Run a job as soon as possible, and wait until it has ended
    Run(Start),
    /// Stop a job's run at its next step
    Cancel(AskFor),
    /// Run a job no more until it is resumed
    Pause(AskFor),
    /// Run a paused or broken job again
    Resume(AskFor),
    /// List a job's last runs, newest first
    History(AskFor),
}

/// Which server.
#[derive(clap::Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    settings: Settings,
    /// Print the server's answer as it is
    #[arg(long)]
    json: bool,
}

/// Which job of which server.
#[derive(clap::Args)]
pub(crate) struct AskFor {
    /// The job
    name: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    of: AskFor,
    /// Do not wait until it has ended
    #[arg(long)]
    detach: bool,
}

impl Jobs {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Self::List(ask) => list(ask, output),
            Self::Show(of) => of.show("", output, show),
            Self::History(of) => of.show("?history=100", output, history),
            Self::Run(start) => start.run(output),
            Self::Cancel(of) => of.tell("cancel", output),
            Self::Pause(of) => of.tell("pause", output),
            Self::Resume(of) => of.tell("resume", output),
        }
    }
}

impl AskFor {
    fn path(&self) -> String {
        format!("/_admin/jobs/{}", self.name)
    }

    fn show(
        self, query: &str, output: &mut Output, show: fn(&Json, &mut Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<Exit> {
        let path = self.path() + query;
        let server = Server::named_by(self.ask.settings)?;
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
        let server = Server::named_by(self.ask.settings)?;
        let body = server.post(&path)?;
        if self.ask.json {
            output.data(&body)?;
            return Ok(Exit::Ok);
        }
        let job: Json = serde_json::from_str(&body).context("the answer is no JSON")?;
        output.words(&format!("{} is {}", self.name, text(&job["state"])));
        Ok(Exit::Ok)
    }
}

fn list(ask: Ask, output: &mut Output) -> anyhow::Result<Exit> {
    let server = Server::named_by(ask.settings)?;
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
                Json::Null => job["last_look"]["reason"].as_str().map_or("-".into(), |reason| format!("- ({reason})")),
                outcome => format!("{} ({})", text(outcome), text(&job["last_message"])),
            };
            let progress =
                if job["progress"].is_null() { String::new() } else { format!(": {}", progress(&job["progress"])) };
            let next = text(&job["next_runs"][0]);
            [text(&job["name"]), text(&job["state"]) + &progress, text(&job["trigger"]), seconds(&next), outcome]
        })
        .collect();
    table(["job", "state", "trigger", "next run", "last outcome"], &rows, output)?;
    Ok(Exit::Ok)
}

fn show(job: &Json, output: &mut Output) -> anyhow::Result<()> {
    output.data(&format!("{}: {}", text(&job["name"]), text(&job["about"])))?;
    let mut line = |name: &str, value: &str| output.data(&format!("  {name:18} {value}"));
    line("state", &text(&job["state"]))?;
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
    if let Some(reason) = job["last_look"]["reason"].as_str() {
        line("last look", &format!("{} nothing to do: {reason}", seconds(&text(&job["last_look"]["at"]))))?;
    }
    line("failures in a row", &text(&job["failures"]))?;
    output.data("  policies")?;
    for (name, value) in job["policies"].as_object().into_iter().flatten() {
        output.data(&format!("    {name:16} {}", text(value)))?;
    }
    output.data("  knobs")?;
    for (name, knob) in job["knobs"].as_object().into_iter().flatten() {
        output.data(&format!("    {name:16} {:12} {}", text(&knob["value"]), text(&knob["about"])))?;
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
    pub(crate) fn waiting_for(name: &str, settings: Settings) -> Self {
        Self { of: AskFor { name: name.to_owned(), ask: Ask { settings, json: false } }, detach: false }
    }

    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let (path, is_json) = (self.of.path(), self.of.ask.json);
        let server = Server::named_by(self.of.ask.settings)?;
        let ask = || -> anyhow::Result<(Json, String)> {
            let body = server.get(&format!("{path}?history=1"))?;
            Ok((serde_json::from_str(&body).context("the answer is no JSON")?, body))
        };
        let manual = |job: &Json| (job["history"][0]["kind"] == "manual").then(|| text(&job["history"][0]["started"]));
        let (before, _) = ask()?;
        let started = server.post(&format!("{path}/run"))?;
        if self.detach && is_json {
            output.data(&started)?;
            return Ok(Exit::Ok);
        }
        if self.detach {
            output.words(&format!("{} runs as soon as possible", self.of.name));
            return Ok(Exit::Ok);
        }
        let (is_terminal, mut shown) = (std::io::stderr().is_terminal(), 0);
        loop {
            std::thread::sleep(ASK_EVERY);
            let (job, body) = ask()?;
            let last = &job["history"][0];
            // A raised run goes on as the next one.
            let is_over = !last["ended"].is_null() && last["status"] != "raised";
            if manual(&job).is_some() && manual(&job) != manual(&before) && is_over {
                if shown > 0 {
                    output.redraw(&" ".repeat(shown));
                    output.redraw("");
                }
                let ended = format!("{}: {}", text(&last["status"]), text(&last["message"]));
                output.data(if is_json { &body } else { &ended })?;
                return Ok(if last["status"] == "succeeded" { Exit::Ok } else { Exit::Failed });
            }
            if is_terminal {
                let line = format!("{} {}", text(&job["state"]), progress(&job["progress"]));
                output.redraw(&format!("{line:shown$}"));
                shown = line.chars().count();
            }
        }
    }
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

/// A time without its fractions of a second.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or(time.to_owned(), |(whole, _)| format!("{whole}Z"))
}
