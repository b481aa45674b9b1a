//! `cargo run --release -p ochre-fuzz -- [TARGET …] [--seconds N] [--seed S]`: inputs that are nearly right, made from
//! a seed, for everything that reads bytes from outside. A panic, or an answer that lies, ends the run with the seed
//! that shows it.
//!
//! Stable Rust, no instrumentation: inputs are made by structure rather than found by coverage.
#![expect(clippy::print_stdout, reason = "this is a command")]

mod backups;
mod files;
mod json;
mod requests;
mod schemas;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// One kind of input; each call makes one and feeds it.
type Target = fn(&mut State, &mut fastrand::Rng) -> Fed;

/// What became of an input.
pub(crate) enum Fed {
    Accepted,
    Refused,
}

/// What targets keep between inputs.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) backups: Option<backups::Backups>,
    pub(crate) files: Option<files::Files>,
}

const TARGETS: &[(&str, Target)] = &[
    ("bodies", requests::bodies),
    ("filters", requests::filters),
    ("patterns", requests::patterns),
    ("schemas", schemas::schemas),
    ("expressions", schemas::expressions),
    ("manifests", backups::manifests),
    ("chunks", backups::chunks),
    ("files", files::files),
];

/// What the command line asks for.
struct Plan {
    targets: Vec<&'static (&'static str, Target)>,
    /// For all targets together.
    seconds: u64,
    seed: u64,
}

fn main() {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(message) => {
            println!("{message}");
            std::process::exit(2);
        }
    };
    let each = Duration::from_secs(plan.seconds) / u32::try_from(plan.targets.len()).unwrap_or(u32::MAX);
    let mut is_sound = true;
    for (name, target) in plan.targets {
        is_sound &= run(name, *target, plan.seed, each);
    }
    if !is_sound {
        std::process::exit(1);
    }
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan { targets: Vec::new(), seconds: 60, seed: fastrand::u64(..) };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{argument} needs a whole number after it"))
        };
        match argument.as_str() {
            "--seconds" => plan.seconds = number()?,
            "--seed" => plan.seed = number()?,
            name => plan.targets.push(TARGETS.iter().find(|(target, _)| *target == name).ok_or_else(usage)?),
        }
    }
    if plan.targets.is_empty() {
        plan.targets = TARGETS.iter().collect();
    }
    Ok(plan)
}

fn usage() -> String {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    format!(
        "ochre-fuzz [TARGET …] [--seconds N] [--seed S]\n\nFeeds targets with inputs that are nearly right, for N seconds in all (60). \
         A panic ends the target\nwith the seed that shows it again, and the command with 1.\n\nTargets: {}; all of them if none is named.",
        names.join(", ")
    )
}

/// Feeds a target for a time; whether it stood.
fn run(name: &str, target: Target, seed: u64, time: Duration) -> bool {
    let (began, mut inputs, mut accepted) = (Instant::now(), 0u64, 0u64);
    let mut state = State::default();
    while began.elapsed() < time {
        let input_seed = seed.wrapping_add(inputs);
        let mut rng = fastrand::Rng::with_seed(input_seed);
        match std::panic::catch_unwind(AssertUnwindSafe(|| target(&mut state, &mut rng))) {
            Ok(Fed::Accepted) => accepted += 1,
            Ok(Fed::Refused) => {}
            Err(_) => {
                println!("{name}: input {inputs} panicked; again with: {name} --seed {input_seed} --seconds 1");
                return false;
            }
        }
        inputs += 1;
    }
    println!("{name}: {inputs} inputs, {accepted} accepted, no panic; peak {} MB; seed {seed}", peak_megabytes());
    true
}

/// The largest resident memory of the process so far.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
