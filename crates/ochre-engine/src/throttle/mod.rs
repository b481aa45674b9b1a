//! Requests first: how busy the machine is with requests, and what that leaves to maintenance.

pub(crate) mod admission;
pub(crate) mod host;
pub(crate) mod load_monitor;
pub(crate) mod work_lock;
