//! Who asks, and whether they may: credentials, the guard before every route, limits and the audit log.
//!
//! Invariants:
//! - With authentication on, a request reaches a handler only through [`guard`], with a [`Caller`] that holds what the
//!   table asks.
//! - A place in which nothing is granted to the caller is answered as if it were not there.

mod audit;
mod browser;
mod caller;
mod credentials;
mod guard;
mod keys;
mod limits;
mod target;

pub(crate) use self::caller::{Audited, Caller};
pub use self::credentials::Auth;
pub(crate) use self::guard::{Guard, guard};
pub use self::keys::{KeyError, Keys, Maker, NewKey, key_tables};
pub(crate) use self::limits::current_room;
#[cfg(test)]
pub(crate) use self::limits::{ROOM, Usage};
