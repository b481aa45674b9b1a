//! JSON shapes of the administration of a database: what the server answers below `/_admin`, and what its clients read.
//!
//! Times are RFC 3339, in UTC, or seconds where the name says so.

pub mod explain;
pub mod find;
pub mod indexes;
pub mod jobs;
pub mod keys;
pub mod memory;
pub mod schemas;
