//! What a request is about: tenant, database and collection, as its path and the pattern of its route name them.

use std::borrow::Cow;

use axum::extract::Request;
use ochre_auth::Target;
use ochre_engine::{DEFAULT_DATABASE, DEFAULT_TENANT, Database};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// What a path names. A part that is no text is left out: then it takes a grant on all of its kind to get to the
/// handler, which refuses it.
#[derive(Default)]
pub(super) struct Place {
    pub(super) tenant: Option<String>,
    pub(super) database: Option<String>,
    /// The collection as the request says it: all that an answer may repeat.
    pub(super) given: Option<String>,
    /// The names of the collections that may be meant. By its name it is one; by its id another; a collection may be named like
    /// the id of another, and some routes take the one and some the other: then both.
    pub(super) collections: Vec<String>,
}

impl Place {
    pub(super) fn of(request: &Request, route: &str, database: &Database) -> Self {
        // As the router decodes it: nothing but percent signs means anything.
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(Cow::into_owned);
        let mut place = Self::default();
        for (pattern, part) in route.split('/').zip(request.uri().path().split('/')) {
            match pattern {
                "{tenant}" => place.tenant = decoded(part),
                "{database}" => place.database = decoded(part),
                "{collection}" => place.given = decoded(part),
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
                place.tenant = named("tenant", DEFAULT_TENANT);
            }
            if !names("{database}") {
                place.database = named("database", DEFAULT_DATABASE);
            }
        }
        if let (Some(tenant), Some(home), Some(given)) = (&place.tenant, &place.database, &place.given) {
            if database.collection_in(tenant, home, given).is_ok() {
                place.collections.push(given.clone());
            }
            if let Ok(id) = Uuid::parse_str(given)
                && let Ok(row) = database.collection_by_id(id).and_then(|collection| collection.info())
                && row.tenant == *tenant
                && row.database == *home
                && row.name != *given
            {
                place.collections.push(row.name.clone());
            }
            if place.collections.is_empty() {
                place.collections.push(given.clone());
            }
        }
        place
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
    pub(super) fn said(&self) -> Target<'_> {
        Target { tenant: self.tenant.as_deref(), database: self.database.as_deref(), collection: self.given.as_deref() }
    }
}
