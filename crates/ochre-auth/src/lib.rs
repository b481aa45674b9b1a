//! Who may do what: permissions, roles, grants of roles on patterns of names, keys and passwords.
//!
//! Everything is denied that no grant allows. No I/O: where keys are kept and which request needs which permission is
//! decided elsewhere.

mod authz;
mod grant;
mod key;
mod password;
mod permission;

pub use authz::{Authz, AuthzUser, check_yaml};
pub use grant::{Grant, InvalidGrant, Principal, Roles, Target};
pub use key::{ApiKey, KeyHash, KeySecret};
pub use password::{Htpasswd, InvalidHtpasswd};
pub use permission::{OwnPermission, Permission, UnknownPermission};
