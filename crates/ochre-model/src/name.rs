//! The rules for names of tenants, databases and collections: Chroma's, with Chroma's words.

use std::net::IpAddr;

/// A name outside the rules; the text says which rule and what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Wrong length or a character that is not allowed where it stands.
    #[error(
        "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], starting and ending with a character in [a-zA-Z0-9]. Got: {0}"
    )]
    Shape(String),
    /// Contains `..`.
    #[error("Expected a name that does not contains two consecutive periods (..). Got {0}")]
    Periods(String),
    /// Parses as an IP address.
    #[error("Expected a name that is not a valid ip address. Got {0}")]
    IpAddress(String),
    /// A tenant's name under three characters.
    #[error("Validation error: length [{{\"min\": Number(3), \"value\": String({0:?})}}]")]
    TenantTooShort(String),
}

/// Checks a collection's name: 3 to 512 of `[a-zA-Z0-9._-]`, alphanumeric at both ends, no `..`, no IP
/// address. One `+` is allowed when both halves are names (a topology prefix).
///
/// # Errors
/// [`InvalidName`] naming the rule that was broken.
pub fn check_collection_name(name: &str) -> Result<(), InvalidName> {
    match name.split_once('+') {
        Some((left, right)) if name.len() <= 512 => {
            check_plain(left)?;
            check_plain(right)
        }
        _ => check_plain(name),
    }
}

/// Checks a database's name; the same rules as for collections.
///
/// # Errors
/// [`InvalidName`] naming the rule that was broken.
pub fn check_database_name(name: &str) -> Result<(), InvalidName> {
    check_collection_name(name)
}

/// Checks a tenant's name: at least three characters, any of them.
///
/// # Errors
/// [`InvalidName::TenantTooShort`].
pub fn check_tenant_name(name: &str) -> Result<(), InvalidName> {
    if name.chars().count() < 3 {
        return Err(InvalidName::TenantTooShort(name.to_owned()));
    }
    Ok(())
}

fn check_plain(name: &str) -> Result<(), InvalidName> {
    let bytes = name.as_bytes();
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let ends =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    if !(3..=512).contains(&bytes.len()) || !ends || !bytes.iter().copied().all(inner) {
        return Err(InvalidName::Shape(name.to_owned()));
    }
    if name.contains("..") {
        return Err(InvalidName::Periods(name.to_owned()));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(InvalidName::IpAddress(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_inside_the_rules_pass() {
        for name in ["abc", "a.b", "a-b_c.d", "123", "abc+def", &"x".repeat(512)] {
            assert_eq!(check_collection_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_outside_the_rules_are_refused_with_the_rule() {
        for name in ["", "ab", "abc ", "-abc", "abc.", "a/b", "ünïcode", "a+bc", &"x".repeat(513)] {
            assert!(matches!(check_collection_name(name), Err(InvalidName::Shape(_))), "{name}");
        }
        assert!(matches!(check_collection_name("a..b"), Err(InvalidName::Periods(_))));
        assert!(matches!(check_collection_name("1.2.3.4"), Err(InvalidName::IpAddress(_))));
        assert!(check_tenant_name("ab").is_err());
    }
}
