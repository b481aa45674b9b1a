//! The server in process: requests go through every layer but the network, over a database in memory.
#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod api;
mod forks;
mod functions;
mod indexes;
mod jobs;
mod records;
mod schemas;
mod search;
mod security;
mod support;
mod transactions;
