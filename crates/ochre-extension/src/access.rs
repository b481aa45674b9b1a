//! Who asks, and what they may do.

use std::sync::Arc;

use ochre_auth::{Grant, Permission, Principal, Roles, Target};

use crate::failure::Failure;

/// Who asks. Everything is refused that is not granted; a place in which nothing is granted is as if it were not there.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Arc<Principal>,
    batch_records: Option<usize>,
}

impl Caller {
    /// Somebody with grants, who may write so many records in one request.
    pub const fn new(principal: Arc<Principal>, batch_records: Option<usize>) -> Self {
        Self { principal, batch_records }
    }

    /// Whoever there is while nobody is asked who they are: everything is allowed, also what extensions bring.
    pub fn unrestricted(roles: &Roles) -> Self {
        Self::new(Arc::new(Principal { name: String::new(), grants: vec![Grant::admin(roles)] }), None)
    }

    /// Whoever asks for what needs nobody.
    pub fn anonymous() -> Self {
        Self::new(Arc::new(Principal { name: String::new(), grants: Vec::new() }), None)
    }

    /// Name and grants.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Refuses a write of more records than the caller's key allows.
    ///
    /// # Errors
    /// [`Failure`] with 400.
    pub fn check_batch(&self, records: usize) -> Result<(), Failure> {
        match self.batch_records.filter(|most| records > *most) {
            Some(most) => Err(Failure::invalid(format!(
                "{records} records in one request are more than this key's limit of {most}; send smaller batches"
            ))),
            None => Ok(()),
        }
    }

    /// Whether something may be done to a collection.
    pub fn may(&self, permission: Permission, tenant: &str, database: &str, collection: &str) -> bool {
        self.principal.may(permission, target(tenant, database, collection))
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
        if self.principal.may(permission, target) {
            return Ok(());
        }
        let said = Target { collection: Some(given), ..target };
        Err(if self.principal.can_see(target) { Self::forbidden(permission) } else { Self::hidden(said) })
    }

    /// As [`Caller::check`], for any place.
    ///
    /// # Errors
    /// As [`Caller::check`].
    pub fn check_in(&self, permission: Permission, target: Target<'_>) -> Result<(), Failure> {
        if self.principal.may(permission, target) {
            return Ok(());
        }
        Err(if self.principal.can_see(target) { Self::forbidden(permission) } else { Self::hidden(target) })
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
