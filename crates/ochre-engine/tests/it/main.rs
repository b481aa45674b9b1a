//! The engine as an embedder uses it.
#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod backup;
mod budgets;
mod crash;
mod damage;
mod erasure;
mod extensions;
mod faults;
mod forks;
mod formats;
mod functions;
mod graph;
mod hostile_backups;
mod jobs;
mod kills;
mod metadata_indexes;
mod model;
mod ordering;
mod records;
mod schemas;
mod search;
mod shapes;
mod space;
mod support;
mod text;
mod transactions;
mod views;
