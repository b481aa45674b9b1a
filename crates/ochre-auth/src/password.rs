//! Users with passwords, as Apache's `htpasswd -B` writes them.

use std::collections::BTreeMap;

/// Users and the hashes of their passwords.
#[derive(Clone, Debug, Default)]
pub struct Htpasswd {
    users: BTreeMap<String, String>,
    /// A hash of nobody's password, compared with where there is no user, so that it takes as long.
    nobody: String,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidHtpasswd {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// bcrypt looks at no more than this, in bytes.
const PASSWORD_MAX: usize = 72;

impl Htpasswd {
    /// Reads `user:hash` lines; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`InvalidHtpasswd`] for a line that is not of that form, or a hash that is not bcrypt's.
    pub fn parse(text: &str) -> Result<Self, InvalidHtpasswd> {
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |problem| InvalidHtpasswd { line: number + 1, problem };
            let (user, hash) = line.split_once(':').ok_or_else(|| invalid("expected user:hash"))?;
            if user.is_empty() {
                return Err(invalid("the user has no name"));
            }
            let is_bcrypt =
                ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) && hash.len() == 60;
            if !is_bcrypt {
                return Err(invalid("the hash is not bcrypt's; make it with htpasswd -B"));
            }
            users.insert(user.to_owned(), hash.to_owned());
        }
        let cost = users.values().filter_map(|hash: &String| hash.get(4..6)?.parse().ok()).max().unwrap_or(10);
        // At a cost that takes too long it would not be a hash of ours.
        let nobody = if users.is_empty() { String::new() } else { bcrypt::hash("nobody", cost).unwrap_or_default() };
        Ok(Self { users, nobody })
    }

    /// The users.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Whether a user has this password. Takes as long where there is no such user.
    pub fn verify(&self, user: &str, password: &str) -> bool {
        let known = self.users.get(user);
        let fits = password.len() <= PASSWORD_MAX && !password.contains('\0');
        let is_right = bcrypt::verify(password, known.unwrap_or(&self.nobody)).unwrap_or(false);
        is_right && known.is_some() && fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_their_passwords_alone() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Htpasswd::parse(&format!("# people\n\nali:{hash}\n")).unwrap();
        assert!(users.verify("ali", "open sesame"));
        for (user, password) in
            [("ali", "open"), ("ali", ""), ("baba", "open sesame"), ("", ""), ("ali", &"x".repeat(100))]
        {
            assert!(!users.verify(user, password), "{user} {password}");
        }
        for (text, words) in [("ali", "line 1: expected"), (":x", "no name"), ("\nali:{SHA}x", "line 2: the hash")] {
            assert!(Htpasswd::parse(text).unwrap_err().to_string().contains(words), "{text}");
        }
    }
}
