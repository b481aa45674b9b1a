//! For tests only: generators, the naive oracle, and a disk that remembers every sync.
//!
//! The oracle shares no code with what it judges beyond the types: its meaning of filters is written
//! down again, from the truth table in `docs/guide/filters.md`.

mod generate;
mod oracle;
mod recording;

pub use generate::{Generator, Operation};
pub use oracle::{Oracle, OracleRecord, filter_matches};
pub use recording::{CrashImage, Recorder};
