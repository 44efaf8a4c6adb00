//! Virtual keys: our credentials. A key is 256 random bits, shown once and kept as a hash. What its owner may do is here,
//! too: until when, which models, how much at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use super::allowed::{AllowedModels, AllowedPrompts};
use super::cache::KeyUse;
use super::limit::RateLimits;
use super::money::Usd;
use super::secret::Secret;
use super::team::Team;

/// What every key starts with; secret scanners look for it.
pub const KEY_PREFIX: &str = "sk-tg-";
/// What a key's id starts with. No alias may: a key can be named by either.
pub const KEY_ID_PREFIX: &str = "key_";
/// What is hashed to tell one pepper from another; no key looks like it.
const PEPPER_CHECK: &str = "tunegate: which pepper is this?";

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

    /// A value that tells this pepper from another, and nothing else about it.
    pub fn check_value(&self) -> String {
        self.hash(PEPPER_CHECK).to_hex()
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

/// What a key may do with fine-tuning; each right holds those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tuning {
    /// Nothing.
    #[default]
    None,
    /// See its files and jobs.
    Read,
    /// Upload files, start and cancel jobs.
    Write,
    /// Delete what its jobs made.
    DeleteModels,
}

impl Tuning {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Read, Self::Write, Self::DeleteModels];

    /// The name in rows and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
            Self::DeleteModels => "delete_models",
        }
    }

    /// Reads back what [`Tuning::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tuning| tuning.name() == name)
    }
}

/// What a key may do beyond asking models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// With fine-tuning.
    pub tuning: Tuning,
    /// Requests whose cost has no bound (a stored conversation, a file, a hosted tool) are let through under a hard
    /// budget, with this much held beyond what can be counted; without it they are refused.
    pub unbounded_cost: Option<Usd>,
}

/// What an operator decides about a key; all of it can be changed later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The id of the team that owns it.
    pub team: Option<Arc<str>>,
    /// From when on it is refused, ms since 1970 UTC.
    pub expires_at_ms: Option<i64>,
    /// Which models it may ask.
    pub models: AllowedModels,
    /// What else it may do.
    pub rights: Rights,
    /// On everything that it asks; sorted, each once.
    pub tags: Vec<Arc<str>>,
    /// What it may ask in a minute and at once.
    pub limits: RateLimits,
    /// Which stored prompts its requests may name themselves.
    pub prompts: AllowedPrompts,
    /// Values for the variables of stored prompts, by name.
    pub variables: Arc<BTreeMap<Arc<str>, Value>>,
    /// How far it may use the response cache.
    pub cache: KeyUse,
}

/// A virtual key as everybody but its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualKey {
    /// `key_` and 24 hex digits; stable over rotations, safe to print.
    pub id: Arc<str>,
    /// The operator's name for it, unique among live keys.
    pub alias: Arc<str>,
    /// The last four characters of the key.
    pub last_four: String,
    /// When it was made, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it was revoked, ms since 1970 UTC.
    pub revoked_at_ms: Option<i64>,
    /// What it may do.
    pub terms: Terms,
}

impl VirtualKey {
    /// Whether it stands for an operator who asks as nobody, and is shown all.
    pub fn is_nobodys(&self) -> bool {
        self.id.is_empty() && self.terms.team.is_none()
    }

    /// Whether a name is this key's: its id, or its alias while it is not revoked.
    pub fn is_named(&self, id_or_alias: &str) -> bool {
        *self.id == *id_or_alias || (*self.alias == *id_or_alias && self.revoked_at_ms.is_none())
    }
}

/// What a presented secret stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    /// Whose it is.
    pub key: Arc<VirtualKey>,
    /// The team that owns the key.
    pub team: Option<Arc<Team>>,
    /// Until when this secret is good, ms since 1970 UTC: one that was rotated away ends with its grace period.
    pub secret_until_ms: Option<i64>,
}

impl LiveKey {
    /// When it ended: the key, or this secret of it. Nothing while both are good.
    pub fn ended_at_ms(&self, now_ms: i64) -> Option<i64> {
        let ends = [self.key.terms.expires_at_ms, self.secret_until_ms];
        ends.into_iter().flatten().min().filter(|end| *end <= now_ms)
    }
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

    #[test]
    fn a_key_and_a_secret_end_at_their_moment() {
        for (expires, secret_until, now, ended) in [
            (None, None, i64::MAX, None),
            (Some(10), None, 9, None),
            (Some(10), None, 10, Some(10)),
            (None, Some(5), 5, Some(5)),
            (Some(10), Some(5), 4, None),
            (Some(10), Some(50), 20, Some(10)),
        ] {
            let terms = Terms { expires_at_ms: expires, ..Terms::default() };
            let key = VirtualKey {
                id: "key_1".into(),
                alias: "a".into(),
                last_four: "abcd".to_owned(),
                created_at_ms: 0,
                revoked_at_ms: None,
                terms,
            };
            let live = LiveKey { key: Arc::new(key), team: None, secret_until_ms: secret_until };
            assert_eq!(live.ended_at_ms(now), ended, "{expires:?} {secret_until:?} at {now}");
        }
    }

    #[test]
    fn rights_are_in_order_and_survive_their_names() {
        assert!(Tuning::ALL.is_sorted());
        for tuning in Tuning::ALL {
            assert_eq!(Tuning::from_name(tuning.name()), Some(tuning));
        }
    }
}
