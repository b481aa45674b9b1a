//! Keys: 256 random bits in a text, of which only a keyed hash is kept.
//!
//! A slow hash would protect words that people choose; of a random number nobody guesses even a fast one, and a slow
//! one would cost every request.

/// What every key begins with, so that it is recognised where it does not belong.
const PREFIX: &str = "ochre_";
/// Hexadecimal digits of a key's id.
const ID_DIGITS: usize = 12;
/// Random bytes of a key.
const SECRET_BYTES: usize = 32;

/// What hashes are made with: random, kept beside them, one for each database.
#[derive(Clone)]
pub struct KeySecret([u8; 32]);

/// A hash of a key. Comparing two takes the same time whatever they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(blake3::Hash);

/// A new key.
pub struct ApiKey {
    /// What is kept with the hash, and shown in lists.
    pub id: String,
    /// What the client sends: shown once.
    pub text: String,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl KeySecret {
    /// A new secret.
    pub fn new() -> Self {
        Self(random())
    }

    /// A secret that was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To be kept.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of a key.
    pub fn hash(&self, key: &str) -> KeyHash {
        KeyHash(blake3::keyed_hash(&self.0, key.as_bytes()))
    }
}

impl Default for KeySecret {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyHash {
    /// A hash that was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }

    /// To be kept.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl ApiKey {
    /// A new key.
    pub fn new() -> Self {
        let id = hex(&random::<{ ID_DIGITS / 2 }>());
        let text = format!("{PREFIX}{id}_{}", hex(&random::<SECRET_BYTES>()));
        Self { id, text }
    }

    /// The id that a text names, if it has the form of a key.
    pub fn id_of(text: &str) -> Option<&str> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (id.len() == ID_DIGITS && secret.len() == 2 * SECRET_BYTES && is_hex(id) && is_hex(secret)).then_some(id)
    }
}

impl Default for ApiKey {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_an_id_and_only_its_own_hash() {
        let (secret, key, other) = (KeySecret::new(), ApiKey::new(), ApiKey::new());
        assert_eq!(ApiKey::id_of(&key.text), Some(key.id.as_str()));
        assert!(secret.hash(&key.text) == secret.hash(&key.text));
        assert!(secret.hash(&key.text) != secret.hash(&other.text));
        assert!(secret.hash(&key.text) != KeySecret::new().hash(&key.text), "another database");
        assert!(KeyHash::from_bytes(*secret.hash(&key.text).as_bytes()) == secret.hash(&key.text));
        for forged in [
            "",
            "ochre_",
            "ochre_x_y",
            "Bearer x",
            &key.text[1..],
            &key.text[..key.text.len() - 1],
            &format!("{}0", key.text),
        ] {
            assert_eq!(ApiKey::id_of(forged), None, "{forged}");
        }
    }
}
