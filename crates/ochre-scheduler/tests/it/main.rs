//! The crate's integration tests.

mod cron;
mod harness;
mod policies;
mod properties;
mod surface;
