//! Virtual keys: our credentials. A key is 256 random bits, shown once and kept as a hash.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::secret::Secret;

/// What every key starts with; secret scanners look for it.
pub const KEY_PREFIX: &str = "sk-tg-";

/// HMAC-SHA256 of a key with the installation's pepper. Keys are random, so no slow hash is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// Hashes keys with one pepper, whose own part of the work is done once.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    /// A hasher of one installation.
    pub fn new(pepper: &Secret) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        Self(Hmac::new_from_slice(pepper.expose().as_bytes()).expect("any length will do"))
    }

    /// Hashes a presented key.
    pub fn hash(&self, key: &str) -> KeyHash {
        KeyHash(self.0.clone().chain_update(key.as_bytes()).finalize().into_bytes().into())
    }
}

impl KeyHash {
    /// Hashes a presented key.
    pub fn of(key: &str, pepper: &Secret) -> Self {
        KeyHasher::new(pepper).hash(key)
    }

    /// 64 hex digits, as stored.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads back what [`KeyHash::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A virtual key as everybody but its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualKey {
    /// `key_` and 24 hex digits; stable, safe to print.
    pub id: Arc<str>,
    /// The operator's name for it, unique among live keys.
    pub alias: Arc<str>,
    /// The last four characters of the key.
    pub last_four: String,
    /// When it was made, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it was revoked, ms since 1970 UTC.
    pub revoked_at_ms: Option<i64>,
}

/// Writes a new key from 256 random bits.
pub fn mint(random: [u8; 32]) -> Secret {
    Secret::new(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// The last four characters, for lists.
pub fn last_four(key: &Secret) -> String {
    let text = key.expose();
    text.get(text.len().saturating_sub(4)..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_43_characters_of_256_bits_behind_the_prefix() {
        let key = mint([7; 32]);
        assert!(key.expose().starts_with(KEY_PREFIX));
        assert_eq!(key.expose().len(), KEY_PREFIX.len() + 43);
        assert_eq!(last_four(&key).len(), 4);
    }

    #[test]
    fn hashes_depend_on_the_pepper_and_survive_hex() {
        let one = KeyHash::of("sk-tg-x", &Secret::new("a"));
        assert_ne!(one, KeyHash::of("sk-tg-x", &Secret::new("b")));
        assert_eq!(KeyHash::from_hex(&one.to_hex()), Some(one));
        assert_eq!(KeyHash::from_hex("zz"), None);
    }
}
