//! Roles, and grants of them on tenants, databases and collections by pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::permission::{OwnPermission, Permission, UnknownPermission, named};

/// What a request is about: what it does not name is all of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Target<'a> {
    pub tenant: Option<&'a str>,
    pub database: Option<&'a str>,
    pub collection: Option<&'a str>,
}

/// The roles there are: permissions under a name.
#[derive(Clone, Debug)]
pub struct Roles {
    roles: BTreeMap<String, BTreeSet<Permission>>,
    known: Vec<Permission>,
}

impl Default for Roles {
    /// The built-in ones: `reader`, `writer`, `schema-manager`, `operator` and `admin`, each of the first three with
    /// what the one before it may.
    fn default() -> Self {
        use Permission as P;
        let reader = [
            P::TenantRead,
            P::DatabaseRead,
            P::CollectionRead,
            P::RecordRead,
            P::SchemaRead,
            P::IntrospectRead,
            P::IntrospectValues,
            P::ToolUse,
        ];
        let writer = reader.into_iter().chain([P::RecordWrite]);
        let manager = writer.clone().chain([P::CollectionWrite, P::SchemaWrite, P::IndexRead, P::IndexWrite]);
        // Whoever keeps the server running need not see what is in it.
        let operator = [
            P::TenantRead,
            P::DatabaseRead,
            P::CollectionRead,
            P::SchemaRead,
            P::IntrospectRead,
            P::IndexRead,
            P::IndexWrite,
            P::JobRead,
            P::JobWrite,
            P::SystemRead,
        ];
        let roles = BTreeMap::from([
            ("reader".into(), BTreeSet::from(reader)),
            ("writer".into(), writer.collect()),
            ("schema-manager".into(), manager.collect()),
            ("operator".into(), BTreeSet::from(operator)),
            ("admin".into(), BTreeSet::from(P::ALL)),
        ]);
        Self { roles, known: P::ALL.to_vec() }
    }
}

impl Roles {
    /// Adds the permissions of extensions, to `admin` and to the built-in roles that they name.
    pub fn extend(&mut self, own: impl IntoIterator<Item = OwnPermission>) {
        for own in own {
            let permission = Permission::Own(own);
            self.known.push(permission);
            for role in own.roles.iter().chain(&["admin"]) {
                if let Some(permissions) = self.roles.get_mut(*role) {
                    permissions.insert(permission);
                }
            }
        }
    }

    /// Adds a role, or gives one that exists other permissions; each a name such as `record:read`, `record:*` or `*`.
    ///
    /// # Errors
    /// [`UnknownPermission`].
    pub fn define(&mut self, name: &str, permissions: &[String]) -> Result<(), UnknownPermission> {
        let found: Result<Vec<_>, _> = permissions.iter().map(|permission| named(permission, &self.known)).collect();
        self.roles.insert(name.to_owned(), found?.into_iter().flatten().collect());
        Ok(())
    }

    /// The roles' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// What a role may.
    pub fn permissions(&self, name: &str) -> Option<&BTreeSet<Permission>> {
        self.roles.get(name)
    }

    /// A grant as it is written: a role, and where it holds: `reader`, `writer:tenant`, `writer:tenant/database`,
    /// `writer:tenant/database/collection`, each part a pattern in which `*` stands for any characters.
    ///
    /// # Errors
    /// [`InvalidGrant`] says what is wrong with it.
    pub fn grant(&self, written: &str) -> Result<Grant, InvalidGrant> {
        let invalid = |problem: String| InvalidGrant { written: written.to_owned(), problem };
        let (role, place) = written.split_once(':').unwrap_or((written, "*"));
        let permissions = self.roles.get(role).ok_or_else(|| {
            invalid(format!("there is no role '{role}'; there are {}", self.names().collect::<Vec<_>>().join(", ")))
        })?;
        let parts: Vec<&str> = place.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(invalid(
                "expected role:tenant/database/collection, each a name or a pattern such as films-*".into(),
            ));
        }
        let part = |index: usize| parts.get(index).copied().unwrap_or("*").to_owned();
        Ok(Grant {
            role: role.to_owned(),
            permissions: permissions.clone(),
            tenant: part(0),
            database: part(1),
            collection: part(2),
        })
    }
}

/// A grant that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grant '{written}': {problem}")]
pub struct InvalidGrant {
    /// What was written.
    pub written: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Permissions where they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    role: String,
    permissions: BTreeSet<Permission>,
    tenant: String,
    database: String,
    collection: String,
}

impl Grant {
    /// Everything that roles know of, everywhere: the role `admin`.
    pub fn admin(roles: &Roles) -> Self {
        let (any, permissions) = (|| "*".to_owned(), roles.known.iter().copied().collect());
        Self { role: "admin".into(), permissions, tenant: any(), database: any(), collection: any() }
    }

    /// The role.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Whether it reaches into a place at all.
    fn touches(&self, target: Target<'_>) -> bool {
        let within = |pattern: &str, name: Option<&str>| name.is_none_or(|name| matches(pattern, name));
        within(&self.tenant, target.tenant)
            && within(&self.database, target.database)
            && within(&self.collection, target.collection)
    }

    /// Whether it holds in all of a place: what the target does not name must not be restricted.
    fn covers(&self, target: Target<'_>) -> bool {
        let holds = |pattern: &str, name: Option<&str>| name.map_or(pattern == "*", |name| matches(pattern, name));
        holds(&self.tenant, target.tenant)
            && holds(&self.database, target.database)
            && holds(&self.collection, target.collection)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}/{}", self.role, self.tenant, self.database, self.collection)
    }
}

/// Somebody who asks: a name, and what is granted.
#[derive(Clone, Debug)]
pub struct Principal {
    /// For logs.
    pub name: String,
    /// What is granted; nothing else is allowed.
    pub grants: Vec<Grant>,
}

impl Principal {
    /// Whether something may be done in all of a place. Reading of a tenant or a database that it exists takes any
    /// grant inside.
    pub fn may(&self, permission: Permission, target: Target<'_>) -> bool {
        self.grants.iter().filter(|grant| grant.permissions.contains(&permission)).any(|grant| {
            if permission.is_implied_by_nested_grants() { grant.touches(target) } else { grant.covers(target) }
        })
    }

    /// Whether something may be done in some part of a place.
    pub fn may_somewhere(&self, permission: Permission, target: Target<'_>) -> bool {
        self.grants.iter().any(|grant| grant.permissions.contains(&permission) && grant.touches(target))
    }

    /// Whether anything at all is granted in a place: if not, it must not be told that the place exists.
    pub fn can_see(&self, target: Target<'_>) -> bool {
        self.grants.iter().any(|grant| grant.touches(target))
    }

    /// The one tenant that everything is granted in, if there is just one.
    pub fn tenant(&self) -> Option<&str> {
        one(self.grants.iter().map(|grant| grant.tenant.as_str()))
    }

    /// The databases that something is granted in by name.
    pub fn databases(&self) -> Vec<&str> {
        let names: BTreeSet<&str> =
            self.grants.iter().map(|grant| grant.database.as_str()).filter(|name| !name.contains('*')).collect();
        names.into_iter().collect()
    }
}

fn one<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = names.next().filter(|name| !name.contains('*'))?;
    names.all(|name| name == first).then_some(first)
}

/// Whether a name is as a pattern says, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(tenant: &'a str, database: &'a str, collection: &'a str) -> Target<'a> {
        let part = |text: &'a str| (!text.is_empty()).then_some(text);
        Target { tenant: part(tenant), database: part(database), collection: part(collection) }
    }

    fn who(grants: &[&str]) -> Principal {
        let roles = Roles::default();
        Principal { name: "test".into(), grants: grants.iter().map(|grant| roles.grant(grant).unwrap()).collect() }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("films", "films", true),
            ("films", "films2", false),
            ("films-*", "films-1", true),
            ("films-*", "films", false),
            ("*-films", "my-films", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_grant_allows() {
        use Permission as P;
        let nobody = who(&[]);
        let reader = who(&["reader:acme/main/films-*", "writer:acme/scratch"]);
        for permission in P::ALL {
            assert!(!nobody.may(permission, at("acme", "main", "films-1")), "{permission}");
            assert!(!nobody.can_see(at("acme", "", "")));
        }
        assert!(reader.may(P::RecordRead, at("acme", "main", "films-1")));
        assert!(!reader.may(P::RecordRead, at("acme", "main", "books")));
        assert!(!reader.may(P::RecordRead, at("acme", "main", "")), "not all collections");
        assert!(reader.may_somewhere(P::CollectionRead, at("acme", "main", "")));
        assert!(!reader.may(P::RecordWrite, at("acme", "main", "films-1")));
        assert!(reader.may(P::RecordWrite, at("acme", "scratch", "anything")));
        assert!(reader.may(P::TenantRead, at("acme", "", "")) && !reader.may(P::TenantRead, at("other", "", "")));
        assert!(
            reader.may(P::DatabaseRead, at("acme", "main", "")) && !reader.may(P::DatabaseRead, at("acme", "x", ""))
        );
        assert!(!reader.may(P::SystemRead, Target::default()) && !reader.can_see(at("acme", "main", "books")));
        assert_eq!((reader.tenant(), reader.databases()), (Some("acme"), vec!["main", "scratch"]));
        let admin = who(&["admin"]);
        assert!(P::ALL.into_iter().all(|permission| admin.may(permission, Target::default())));
        assert_eq!((admin.tenant(), admin.databases()), (None, vec![]));
        // Ruling a tenant is not ruling the server.
        let tenant = who(&["admin:acme"]);
        assert!(tenant.may(P::DatabaseWrite, at("acme", "new", "")) && !tenant.may(P::SystemReset, Target::default()));
        assert!(!tenant.may(P::KeyWrite, Target::default()) && !tenant.may(P::JobWrite, Target::default()));
    }

    #[test]
    fn bad_grants_and_permissions_are_told() {
        let mut roles = Roles::default();
        for (written, words) in [
            ("king", "there is no role 'king'"),
            ("reader:", "a name or a pattern"),
            ("reader:a/b/c/d", "expected role"),
            ("reader:a//c", "expected role"),
        ] {
            let error = roles.grant(written).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        roles.define("auditor", &["*:read".into()]).unwrap_err();
        assert!(roles.define("annotator", &["notes:read".into()]).unwrap_err().to_string().contains("tool:use"));
        let own = OwnPermission { name: "notes:read", roles: &["reader"], is_audited: false };
        roles.extend([own]);
        roles.define("annotator", &["notes:*".into()]).unwrap();
        for (role, has_it) in [("annotator", true), ("reader", true), ("admin", true), ("writer", false)] {
            assert_eq!(roles.permissions(role).unwrap().contains(&Permission::Own(own)), has_it, "{role}");
        }
        assert!(
            Principal { name: String::new(), grants: vec![Grant::admin(&roles)] }
                .may(Permission::Own(own), Target::default())
        );
        roles.define("auditor", &["schema:*".into(), "record:read".into()]).unwrap();
        let found: Vec<&str> =
            roles.permissions("auditor").unwrap().iter().map(|permission| permission.name()).collect();
        assert_eq!(found, ["record:read", "schema:read", "schema:write"]);
    }
}
