//! `cargo run --release -p ochre-fuzz -- [TARGET …] [--seconds N] [--seed S]`: inputs that are nearly right, made from a seed,
//! for everything that reads bytes from outside. A panic, or an answer that lies, ends the run with the seed that shows it.
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let (seconds, seed) = (option("--seconds").unwrap_or(60), option("--seed").unwrap_or_else(|| fastrand::u64(..)));
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| is_target(argument)).collect();
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, _)| named.is_empty() || named.contains(name)).collect();
    let each = Duration::from_secs(seconds) / u32::try_from(chosen.len().max(1)).unwrap_or(1);
    let mut is_sound = true;
    for (name, target) in chosen {
        is_sound &= run(name, *target, seed, each);
    }
    if !is_sound {
        std::process::exit(1);
    }
}

fn is_target(argument: &str) -> bool {
    TARGETS.iter().any(|(name, _)| *name == argument)
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
