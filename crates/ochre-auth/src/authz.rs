//! The file that Chroma 0.4 to 0.6 took for authorisation: roles with actions, users with roles and tokens.

use std::collections::{BTreeMap, BTreeSet};

use yaml_rust2::{Yaml, YamlLoader};

use crate::permission::Permission;

/// What such a file says.
#[derive(Clone, Debug, Default)]
pub struct Authz {
    /// Of each role what it may.
    pub roles: BTreeMap<String, BTreeSet<Permission>>,
    /// The users.
    pub users: Vec<AuthzUser>,
}

/// A user of such a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct AuthzUser {
    pub id: String,
    pub role: Option<String>,
    /// The only tenant, unless it is `*`.
    pub tenant: Option<String>,
    /// The only databases, if any are named.
    pub databases: Vec<String>,
    pub tokens: Vec<String>,
}

/// What an action of Chroma's stands for.
fn permission(action: &str) -> Option<Permission> {
    use Permission as P;
    Some(match action {
        "system:reset" => P::SystemReset,
        "tenant:create_tenant" | "tenant:update_tenant" => P::TenantWrite,
        "tenant:get_tenant" => P::TenantRead,
        "db:create_database" | "db:delete_database" => P::DatabaseWrite,
        "db:get_database" | "db:list_databases" => P::DatabaseRead,
        "db:list_collections" | "db:count_collections" | "collection:get_collection" => P::CollectionRead,
        "db:create_collection"
        | "db:get_or_create_collection"
        | "collection:delete_collection"
        | "collection:update_collection" => P::CollectionWrite,
        "collection:add" | "collection:delete" | "collection:update" | "collection:upsert" => P::RecordWrite,
        "collection:get" | "collection:query" | "collection:count" | "collection:search" => P::RecordRead,
        _ => return None,
    })
}

/// The largest file that is read, in bytes.
const YAML_BYTES_MAX: usize = 1 << 20;
/// A file may name anchors so often: names of names would grow beyond all memory.
const ALIASES_MAX: usize = 10;

/// Refuses a YAML text that would take far more memory than it has characters.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn check_yaml(text: &str) -> Result<(), String> {
    if text.len() > YAML_BYTES_MAX {
        return Err(format!("it has {} bytes, more than the limit of {YAML_BYTES_MAX}", text.len()));
    }
    if aliases(text) > ALIASES_MAX {
        return Err(format!("it names anchors more than {ALIASES_MAX} times, each of which is copied: write them out"));
    }
    Ok(())
}

/// How often a YAML text may name an anchor, counted generously: a `*` with a name behind and nothing before.
fn aliases(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_alias = |at: &usize| {
        let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
        let after = bytes.get(at + 1).copied().unwrap_or(b' ');
        bytes[*at] == b'*'
            && (before.is_ascii_whitespace() || b"[,:{-".contains(&before))
            && !after.is_ascii_whitespace()
            && !b",[]{}".contains(&after)
    };
    (0..bytes.len()).filter(is_alias).count()
}

impl Authz {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_yaml(text)?;
        let documents = YamlLoader::load_from_str(text).map_err(|error| format!("it is no YAML: {error}"))?;
        let Some(root) = documents.first() else { return Err("it is empty".into()) };
        let mut authz = Self::default();
        if let Yaml::Hash(roles) = &root["roles_mapping"] {
            for (name, role) in roles {
                let name = name.as_str().ok_or("roles_mapping: a role has a name")?;
                let actions = role["actions"].as_vec().ok_or_else(|| format!("role '{name}': actions is no list"))?;
                let mut permissions = BTreeSet::new();
                for action in actions {
                    let action = action.as_str().ok_or_else(|| format!("role '{name}': an action is a text"))?;
                    let found = permission(action).or_else(|| action.parse().ok());
                    permissions.insert(found.ok_or_else(|| format!("role '{name}': there is no action '{action}'"))?);
                }
                authz.roles.insert(name.to_owned(), permissions);
            }
        }
        for user in root["users"].as_vec().into_iter().flatten() {
            let text = |key: &str| user[key].as_str().map(str::to_owned);
            let id = text("id").ok_or("users: a user has an id")?;
            let tokens = user["tokens"].as_vec().into_iter().flatten();
            let tokens = tokens.map(|token| token.as_str().or_else(|| token["token"].as_str()).map(str::to_owned));
            let tokens: Option<Vec<String>> = tokens.collect();
            let tokens = tokens.ok_or_else(|| format!("user '{id}': a token is a text, or has a text under token"))?;
            if tokens.iter().any(String::is_empty) {
                return Err(format!("user '{id}': a token is empty"));
            }
            // What is there restricts: read wrongly it must not come to mean no restriction.
            let tenant = match &user["tenant"] {
                Yaml::BadValue | Yaml::Null => None,
                Yaml::String(tenant) if tenant == "*" => None,
                Yaml::String(tenant) if !tenant.is_empty() && !tenant.contains('/') => Some(tenant.clone()),
                _ => {
                    return Err(format!(
                        "user '{id}': tenant is a text without /, in quotes if it looks like a number"
                    ));
                }
            };
            let databases = match &user["databases"] {
                Yaml::BadValue | Yaml::Null => Vec::new(),
                Yaml::String(all) if all == "*" => Vec::new(),
                Yaml::Array(list) if !list.is_empty() => {
                    let names =
                        list.iter().map(|name| name.as_str().filter(|name| !name.is_empty() && !name.contains('/')));
                    let names: Option<Vec<&str>> = names.collect();
                    let names = names.ok_or_else(|| {
                        format!("user '{id}': databases are texts without /, in quotes if they look like numbers")
                    })?;
                    names.into_iter().map(str::to_owned).collect()
                }
                _ => return Err(format!("user '{id}': databases is a list of names; leave it out for all of them")),
            };
            let role = text("role");
            if let Some(role) = role.as_ref().filter(|role| !authz.roles.contains_key(*role)) {
                return Err(format!("user '{id}': there is no role '{role}' in roles_mapping"));
            }
            authz.users.push(AuthzUser { role, tenant, databases, tokens, id });
        }
        Ok(authz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_would_grow_beyond_all_memory_are_refused() {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..40 {
            text += &format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1);
        }
        assert!(Authz::parse(&text).unwrap_err().contains("anchors"));
        assert!(Authz::parse(&"#".repeat(2 << 20)).unwrap_err().contains("limit"));
        assert_eq!(aliases("a: *b\nc: '*'\nd: films-*\ne: [*b, *c]\n"), 3);
    }

    #[test]
    fn files_of_older_servers_are_understood() {
        let text = "
resource_type_action: [system:reset, db:create_collection]
roles_mapping:
  admin: {actions: [system:reset, db:create_collection, collection:get_collection, collection:add, collection:query]}
  read: {actions: [tenant:get_tenant, db:get_database, db:list_collections, collection:get, 'introspect:read']}
users:
- {id: root, role: admin, tokens: [{token: root-token, secret: my_secret}]}
- id: ro
  role: read
  tenant: acme
  databases: [main]
  tokens: [ro-token, other]
";
        let authz = Authz::parse(text).unwrap();
        assert!(authz.roles["admin"].contains(&Permission::RecordWrite));
        assert!(!authz.roles["read"].contains(&Permission::RecordWrite));
        assert!(authz.roles["read"].contains(&Permission::IntrospectRead));
        assert_eq!(authz.users[0].tokens, ["root-token"]);
        assert_eq!(
            (authz.users[1].tenant.as_deref(), &authz.users[1].databases[..]),
            (Some("acme"), &["main".to_owned()][..])
        );
        for (text, words) in [
            ("[", "no YAML"),
            ("roles_mapping: {a: {actions: [fly]}}", "no action 'fly'"),
            ("users: [{role: a}]", "has an id"),
            ("users: [{id: a, role: b}]", "no role 'b'"),
            ("users: [{id: a, tokens: ['']}]", "token is empty"),
            ("users: [{id: a, tenant: 42}]", "tenant is a text"),
            ("users: [{id: a, tenant: a/b}]", "tenant is a text"),
            ("users: [{id: a, databases: [2024]}]", "in quotes"),
            ("users: [{id: a, databases: main}]", "is a list"),
            ("users: [{id: a, databases: []}]", "is a list"),
            ("users: [{id: a, tokens: [{x: y}]}]", "a token is a text"),
        ] {
            let error = Authz::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
