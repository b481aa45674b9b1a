//! Who asks, and what they may do: grants, and the limits of their key.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use ochre_auth::{Permission, Principal, Roles, Target};
use ochre_engine::{Collection, CollectionRow, Database, GetRequest};
use ochre_extension::{Access, Failure};
use tokio::sync::OwnedMutexGuard;

use super::keys::Key;
use super::target::RequestTarget;
use crate::error::ApiError;

/// What the audit log says of an answer beside the request: which key, index or schema.
#[derive(Clone)]
pub(crate) struct Audited(pub(crate) serde_json::Value);

/// Who asks, with what limits their key has.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(super) who: ochre_extension::Caller,
    pub(super) key: Option<Arc<Key>>,
}

impl Deref for Caller {
    type Target = ochre_extension::Caller;

    fn deref(&self) -> &Self::Target {
        &self.who
    }
}

impl Caller {
    pub(super) fn new(principal: Arc<Principal>, key: Option<Arc<Key>>) -> Self {
        let batch_records = key.as_ref().and_then(|key| key.limits().batch_records).map(|most| most as usize);
        Self { who: ochre_extension::Caller::new(principal, batch_records), key }
    }

    /// Waits for others with this key that make collections, if it limits how many there are. To be awaited before room
    /// for work is taken, and held until the collection is made.
    pub(crate) async fn count_collections(&self) -> Option<OwnedMutexGuard<()>> {
        let key = self.key.as_ref().filter(|key| key.limits().collections.is_some())?;
        Some(key.counting_collections().await)
    }

    /// As [`Caller::count_collections`], for writing records.
    pub(crate) async fn count_records(&self) -> Option<OwnedMutexGuard<()>> {
        let key = self.key.as_ref().filter(|key| key.limits().collection_records.is_some())?;
        Some(key.counting_records().await)
    }

    /// Refuses one more collection than the key allows.
    pub(crate) fn check_collections(
        &self, database: &Database, tenant: &str, home: &str, name: &str,
    ) -> Result<(), ApiError> {
        let most = self.key.as_ref().and_then(|key| key.limits().collections);
        let Some(most) = most else { return Ok(()) };
        let may_make =
            |row: &&CollectionRow| self.may(Permission::CollectionWrite, &row.tenant, &row.database, &row.name);
        let is_there = database.collection_in(tenant, home, name).is_ok();
        if !is_there && database.all_collections()?.iter().filter(may_make).count() >= most as usize {
            return Err(ApiError::invalid(format!(
                "there are as many collections as this key's limit of {most}; delete some, or ask for a key with a higher one"
            )));
        }
        Ok(())
    }

    /// Refuses new records that would make a collection hold more than the key allows. Those that are there already may
    /// be written again.
    pub(crate) fn check_records(&self, collection: &Collection, ids: &[String]) -> Result<(), ApiError> {
        let most = self.key.as_ref().and_then(|key| key.limits().collection_records);
        let Some(most) = most else { return Ok(()) };
        let held = collection.count()?;
        if held + ids.len() as u64 > u64::from(most) {
            let raw: HashSet<&String> = ids.iter().collect();
            let new = raw.len() - collection.get(&GetRequest::of(raw.iter().copied()))?.len();
            if new > 0 && held + new as u64 > u64::from(most) {
                // Not how many: whoever may only write must not learn which are there.
                return Err(ApiError::invalid(format!(
                    "the collection would hold more records than this key's limit of {most}; delete some, or ask for a key with a higher one"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a new collection of so many records, if that is more than the key allows.
    pub(crate) fn check_count(&self, records: u64) -> Result<(), ApiError> {
        match self.key.as_ref().and_then(|key| key.limits().collection_records) {
            Some(most) if records > u64::from(most) => Err(ApiError::invalid(format!(
                "the collection would hold {records} records, more than this key's limit of {most}; ask for a key with a higher one"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether its key limits how many records a collection may hold.
    pub(crate) fn limits_records(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.limits().collection_records.is_some())
    }

    /// Lets handlers know who asks: those of the server and those that are streamed.
    pub(super) fn enter(self, request: &mut Request) {
        request.extensions_mut().insert(self.who.clone());
        request.extensions_mut().insert(self);
    }

    /// Whether a request may pass.
    pub(super) fn authorize(&self, access: Option<Access>, target: &RequestTarget) -> Result<(), ApiError> {
        let who = self.principal();
        let refused = |permission| {
            let is_seen = target.targets().iter().all(|target| who.can_see(*target));
            let said = target.display();
            let failure = if is_seen {
                ochre_extension::Caller::forbidden(permission)
            } else {
                ochre_extension::Caller::hidden(said)
            };
            Err(failure.into())
        };
        match access {
            Some(Access::Public | Access::Authenticated) => Ok(()),
            Some(Access::Scope(permission)) => {
                let allows = target.targets().iter().all(|target| who.may(permission, *target));
                if allows { Ok(()) } else { refused(permission) }
            }
            Some(Access::Any(permission)) => {
                let allows = target.targets().iter().all(|target| who.may_somewhere(permission, *target));
                if allows { Ok(()) } else { refused(permission) }
            }
            Some(Access::Either(permission, instead)) => {
                let allows = |permission| target.targets().iter().all(|target| who.may_somewhere(permission, *target));
                if allows(permission) || allows(instead) { Ok(()) } else { refused(permission) }
            }
            // What is in no table is for those who may do everything.
            None if Permission::ALL.into_iter().all(|permission| who.may(permission, Target::default())) => Ok(()),
            None => Err(Failure::forbidden("Permission denied.").into()),
        }
    }

    /// Fails unless everything in these grants may be done everywhere: nobody grants what they do not have.
    pub(crate) fn check_grants(&self, roles: &Roles, grants: &[String]) -> Result<(), ApiError> {
        for grant in grants.iter().filter_map(|grant| roles.grant(grant).ok()) {
            let lacking = roles.permissions(grant.role()).into_iter().flatten();
            let lacking = lacking.copied().find(|permission| !self.principal().may(*permission, Target::default()));
            if let Some(permission) = lacking {
                let text = format!(
                    "Permission denied: {grant} grants {permission}, which you do not have everywhere yourself"
                );
                return Err(Failure::forbidden(text).into());
            }
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Without the guard nobody is let in.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::internal("the request passed no guard"))
    }
}
