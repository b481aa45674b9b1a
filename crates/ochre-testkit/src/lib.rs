//! For tests only: generators, data of difficult shapes, the naive oracle, and a disk that remembers every sync.
//!
//! The oracle shares no code with what it checks beyond the types: its meaning of filters is written
//! down again, from the truth table in `docs/guide/filters.md`.

mod generate;
mod oracle;
mod recording;
mod search;
mod shapes;

pub use generate::{Generator, Operation};
pub use oracle::{Oracle, OracleRecord, filter_matches};
pub use recording::{CrashImage, Recorder};
pub use search::{NaiveSearch, bm25_distances, random_rank};
pub use shapes::{Shape, shapes};
