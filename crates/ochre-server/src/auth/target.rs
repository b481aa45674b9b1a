//! What a request is about: tenant, database and collection, as its path and the pattern of its route name them.

use std::borrow::Cow;

use axum::extract::Request;
use ochre_auth::Target;
use ochre_engine::{Collection, DEFAULT_DATABASE, DEFAULT_TENANT, Database};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// What a path names. A part that is no text is left out: then it takes a grant on all of its kind to get to the
/// handler, which refuses it.
#[derive(Default)]
pub(super) struct RequestTarget {
    pub(super) tenant: Option<String>,
    pub(super) database: Option<String>,
    /// The collection as the request says it: all that an answer may repeat.
    pub(super) raw: Option<String>,
    /// The names of the collections that may be meant. By its name it is one; by its id another; a collection may be
    /// named like the id of another, and some routes take the one and some the other: then both.
    pub(super) collections: Vec<String>,
}

impl RequestTarget {
    /// What a request names; which collections that may be is still to be found.
    pub(super) fn of(request: &Request, route: &str) -> Self {
        // As the router decodes it: nothing but percent signs means anything.
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(Cow::into_owned);
        let mut target = Self::default();
        for (pattern, part) in route.split('/').zip(request.uri().path().split('/')) {
            match pattern {
                "{tenant}" => target.tenant = decoded(part),
                "{database}" => target.database = decoded(part),
                "{collection}" => target.raw = decoded(part),
                _ => {}
            }
        }
        let names = |part: &str| route.split('/').any(|own| own == part);
        if names("{collection}") {
            // What the path does not name, the query does, or it is the default one.
            let query = request.uri().query().unwrap_or_default();
            let named = |name: &str, default: &str| {
                let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
                Some(found.map_or_else(|| default.to_owned(), |(_, value)| value.into_owned()))
            };
            if !names("{tenant}") {
                target.tenant = named("tenant", DEFAULT_TENANT);
            }
            if !names("{database}") {
                target.database = named("database", DEFAULT_DATABASE);
            }
        }
        target
    }

    /// Finds the collections that may be meant.
    pub(super) async fn resolved(mut self, database: &Database) -> Self {
        if self.find_in_memory(database) {
            return self;
        }
        // SQLite is read: not on a thread that serves connections.
        let database = database.clone();
        let found = tokio::task::spawn_blocking(move || {
            self.find(&database);
            self
        });
        // Of a search that panicked nothing is known: then nothing is granted but what is granted on everything.
        found.await.unwrap_or_default()
    }

    /// Finds the collections that may be meant, if the catalog has in memory what is needed for that; whether it had.
    fn find_in_memory(&mut self, database: &Database) -> bool {
        let (Some(tenant), Some(home), Some(raw)) = (&self.tenant, &self.database, &self.raw) else { return true };
        let Some(is_named) = database.has_collection_in_memory(tenant, home, raw) else { return false };
        let by_id = match Uuid::parse_str(raw).map(|id| database.collection_in_memory(id)) {
            Ok(None) => return false,
            Ok(Some(collection)) => Some(collection),
            Err(_) => None,
        };
        self.note(is_named, by_id);
        true
    }

    /// As [`RequestTarget::find_in_memory`], reading what is not there.
    fn find(&mut self, database: &Database) {
        let (Some(tenant), Some(home), Some(raw)) = (&self.tenant, &self.database, &self.raw) else { return };
        let is_named = database.collection_in(tenant, home, raw).is_ok();
        let by_id = Uuid::parse_str(raw).ok().and_then(|id| database.collection_by_id(id).ok());
        self.note(is_named, by_id);
    }

    /// Notes the collection of the given name, if there is one, and the one of the given id.
    fn note(&mut self, is_named: bool, by_id: Option<Collection>) {
        let Some(raw) = &self.raw else { return };
        if is_named {
            self.collections.push(raw.clone());
        }
        if let Some(row) = by_id.and_then(|collection| collection.info().ok())
            && Some(&row.tenant) == self.tenant.as_ref()
            && Some(&row.database) == self.database.as_ref()
            && row.name != *raw
        {
            self.collections.push(row.name.clone());
        }
        if self.collections.is_empty() {
            self.collections.push(raw.clone());
        }
    }

    /// Everything that may be meant.
    pub(super) fn targets(&self) -> Vec<Target<'_>> {
        let home = Target { tenant: self.tenant.as_deref(), database: self.database.as_deref(), collection: None };
        if self.collections.is_empty() {
            return vec![home];
        }
        self.collections.iter().map(|name| Target { collection: Some(name), ..home }).collect()
    }

    /// What an answer may say of it.
    pub(super) fn display(&self) -> Target<'_> {
        Target { tenant: self.tenant.as_deref(), database: self.database.as_deref(), collection: self.raw.as_deref() }
    }
}
