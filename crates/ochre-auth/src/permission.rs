//! What may be permitted.

use std::fmt;
use std::str::FromStr;

/// What a request may need, in the order of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it; docs/guide/security.md has them all")]
pub enum Permission {
    TenantRead,
    TenantWrite,
    DatabaseRead,
    DatabaseWrite,
    CollectionRead,
    CollectionWrite,
    RecordRead,
    RecordWrite,
    SchemaRead,
    SchemaWrite,
    IntrospectRead,
    IntrospectValues,
    IndexRead,
    IndexWrite,
    JobRead,
    JobWrite,
    SystemRead,
    SystemReset,
    KeyRead,
    KeyWrite,
    ToolUse,
    /// One that an extension brings.
    Own(OwnPermission),
}

/// A permission that an extension brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnPermission {
    /// Its name: the extension's, and what is done, such as `notes:read`.
    pub name: &'static str,
    /// The built-in roles that have it beside `admin`.
    pub roles: &'static [&'static str],
    /// Whether requests that need it are noted in the audit log.
    pub is_audited: bool,
}

impl Permission {
    /// One that an extension brings; `name` is the extension's and what is done, such as `notes:read`, and `roles` are
    /// the built-in roles that have it beside `admin`.
    pub const fn own(name: &'static str, roles: &'static [&'static str]) -> Self {
        Self::Own(OwnPermission { name, roles, is_audited: false })
    }

    /// All of them, without those of extensions.
    pub const ALL: [Self; 21] = [
        Self::TenantRead,
        Self::TenantWrite,
        Self::DatabaseRead,
        Self::DatabaseWrite,
        Self::CollectionRead,
        Self::CollectionWrite,
        Self::RecordRead,
        Self::RecordWrite,
        Self::SchemaRead,
        Self::SchemaWrite,
        Self::IntrospectRead,
        Self::IntrospectValues,
        Self::IndexRead,
        Self::IndexWrite,
        Self::JobRead,
        Self::JobWrite,
        Self::SystemRead,
        Self::SystemReset,
        Self::KeyRead,
        Self::KeyWrite,
        Self::ToolUse,
    ];

    /// Its name: a resource and what is done with it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TenantRead => "tenant:read",
            Self::TenantWrite => "tenant:write",
            Self::DatabaseRead => "database:read",
            Self::DatabaseWrite => "database:write",
            Self::CollectionRead => "collection:read",
            Self::CollectionWrite => "collection:write",
            Self::RecordRead => "record:read",
            Self::RecordWrite => "record:write",
            Self::SchemaRead => "schema:read",
            Self::SchemaWrite => "schema:write",
            Self::IntrospectRead => "introspect:read",
            Self::IntrospectValues => "introspect:values",
            Self::IndexRead => "index:read",
            Self::IndexWrite => "index:write",
            Self::JobRead => "job:read",
            Self::JobWrite => "job:write",
            Self::SystemRead => "system:read",
            Self::SystemReset => "system:reset",
            Self::KeyRead => "key:read",
            Self::KeyWrite => "key:write",
            Self::ToolUse => "tool:use",
            Self::Own(own) => own.name,
        }
    }

    /// Whether using it changes what is administered, rather than records: such requests are audited.
    pub const fn is_audited(self) -> bool {
        matches!(
            self,
            Self::TenantWrite
                | Self::DatabaseWrite
                | Self::CollectionWrite
                | Self::SchemaWrite
                | Self::IndexWrite
                | Self::JobWrite
                | Self::SystemReset
                | Self::KeyWrite
                | Self::Own(OwnPermission { is_audited: true, .. })
        )
    }

    /// Whether any grant within a tenant or database implies it: it says no more than that this exists.
    pub(crate) const fn is_implied_by_nested_grants(self) -> bool {
        matches!(self, Self::TenantRead | Self::DatabaseRead)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission '{name}'; there are {known}, and names such as record:* or *")]
pub struct UnknownPermission {
    /// What was written.
    pub name: String,
    /// Those there are.
    pub known: String,
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(name: &str) -> Result<Self, UnknownPermission> {
        one(name, &Self::ALL)
    }
}

fn one(name: &str, known: &[Permission]) -> Result<Permission, UnknownPermission> {
    let found = known.iter().find(|permission| permission.name() == name).copied();
    found.ok_or_else(|| unknown(name, known))
}

fn unknown(name: &str, known: &[Permission]) -> UnknownPermission {
    let names: Vec<&str> = known.iter().map(|permission| permission.name()).collect();
    UnknownPermission { name: name.to_owned(), known: names.join(", ") }
}

/// The permissions that a name stands for: one, all of a resource (`record:*`), or all (`*`).
pub(crate) fn named(name: &str, known: &[Permission]) -> Result<Vec<Permission>, UnknownPermission> {
    if name == "*" {
        return Ok(known.to_vec());
    }
    let Some(resource) = name.strip_suffix('*').filter(|resource| resource.ends_with(':')) else {
        return Ok(vec![one(name, known)?]);
    };
    let found: Vec<Permission> =
        known.iter().copied().filter(|permission| permission.name().starts_with(resource)).collect();
    if found.is_empty() { Err(unknown(name, known)) } else { Ok(found) }
}
