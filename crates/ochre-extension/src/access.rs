//! Who asks, and what they may do.

use std::sync::Arc;

use ochre_auth::{Grant, Permission, Principal, Roles, Target};

use crate::failure::Failure;

/// Who asks. Everything is refused that is not granted; a place in which nothing is granted is as if it were not there.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Principal>);

impl Caller {
    /// Somebody with grants.
    pub const fn new(principal: Arc<Principal>) -> Self {
        Self(principal)
    }

    /// Whoever there is while nobody is asked who they are: everything is allowed, also what extensions bring.
    pub fn anybody(roles: &Roles) -> Self {
        Self(Arc::new(Principal { name: String::new(), grants: vec![Grant::admin(roles)] }))
    }

    /// Whoever asks for what needs nobody.
    pub fn nobody() -> Self {
        Self(Arc::new(Principal { name: String::new(), grants: Vec::new() }))
    }

    /// Name and grants.
    pub fn principal(&self) -> &Principal {
        &self.0
    }

    /// Whether something may be done to a collection.
    pub fn may(&self, permission: Permission, tenant: &str, database: &str, collection: &str) -> bool {
        self.0.may(permission, target(tenant, database, collection))
    }

    /// Fails unless something may be done to a collection: as if it were not there, if nothing may.
    ///
    /// # Errors
    /// [`Failure`] with 403 or 404.
    pub fn check(&self, permission: Permission, tenant: &str, database: &str, collection: &str) -> Result<(), Failure> {
        self.check_in(permission, target(tenant, database, collection))
    }

    /// As [`Caller::check`], of a collection that the request names in another way: an answer repeats only that.
    ///
    /// # Errors
    /// As [`Caller::check`].
    pub fn check_given(&self, permission: Permission, target: Target<'_>, given: &str) -> Result<(), Failure> {
        if self.0.may(permission, target) {
            return Ok(());
        }
        let said = Target { collection: Some(given), ..target };
        Err(if self.0.sees(target) { Self::forbidden(permission) } else { Self::hidden(said) })
    }

    /// As [`Caller::check`], for any place.
    ///
    /// # Errors
    /// As [`Caller::check`].
    pub fn check_in(&self, permission: Permission, target: Target<'_>) -> Result<(), Failure> {
        if self.0.may(permission, target) {
            return Ok(());
        }
        Err(if self.0.sees(target) { Self::forbidden(permission) } else { Self::hidden(target) })
    }

    /// What somebody is told who may not.
    pub fn forbidden(permission: Permission) -> Failure {
        Failure::forbidden(format!("Permission denied: this needs {permission}"))
    }

    /// What somebody is told of a place in which nothing is granted to them.
    pub fn hidden(target: Target<'_>) -> Failure {
        match target {
            Target { collection: Some(name), .. } => Failure::not_found(format!("Collection [{name}] does not exist.")),
            Target { database: Some(name), .. } => Failure::not_found(format!("Database [{name}] not found")),
            Target { tenant: Some(name), .. } => Failure::not_found(format!("Tenant [{name}] not found")),
            _ => Failure::forbidden("Permission denied."),
        }
    }
}

const fn target<'a>(tenant: &'a str, database: &'a str, collection: &'a str) -> Target<'a> {
    Target { tenant: Some(tenant), database: Some(database), collection: Some(collection) }
}
