//! Who asks, and may they.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::refusal::Refusal;
use crate::domain::key::{KeyHash, KeyHasher, LiveKey, Terms, VirtualKey};
use crate::domain::secret::Secret;
use crate::domain::team::Team;

/// The live keys by their hashes, as the control plane last published them.
pub struct KeyRing {
    hasher: KeyHasher,
    keys: ArcSwap<HashMap<KeyHash, LiveKey>>,
}

/// A request whose sender we know.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Whose it is.
    pub key: Arc<VirtualKey>,
    /// The team that owns the key.
    pub team: Option<Arc<Team>>,
}

impl Admitted {
    /// An operator who asks what would become of a request, of a team's or of nobody's: there is no key, and so nothing
    /// that a key may not.
    pub fn operator(team: Option<Arc<Team>>) -> Self {
        let terms = Terms { team: team.as_ref().map(|team| Arc::clone(&team.id)), ..Terms::default() };
        let key = VirtualKey {
            id: "".into(),
            alias: "".into(),
            last_four: String::new(),
            created_at_ms: 0,
            revoked_at_ms: None,
            terms,
        };
        Self { key: Arc::new(key), team }
    }
}

impl KeyRing {
    /// A ring without keys.
    pub fn new(pepper: &Secret) -> Self {
        Self { hasher: KeyHasher::new(pepper), keys: ArcSwap::default() }
    }

    /// The hash that a key is stored under.
    pub fn hash(&self, key: &str) -> KeyHash {
        self.hasher.hash(key)
    }

    /// Replaces all keys at once; a key that is not among them is refused from now on.
    pub fn publish(&self, keys: HashMap<KeyHash, LiveKey>) {
        self.keys.store(Arc::new(keys));
    }

    /// Admits what is asked on a key's behalf, by its id or alias; none where no live key has that name.
    pub fn on_behalf_of(&self, id_or_alias: &str, now_ms: i64) -> Option<Admitted> {
        let keys = self.keys.load();
        let is_it = |live: &&LiveKey| live.key.is_named(id_or_alias) && live.ended_at_ms(now_ms).is_none();
        let live = keys.values().find(is_it)?;
        Some(Admitted { key: Arc::clone(&live.key), team: live.team.clone() })
    }

    /// Admits a request by the credential it carries.
    pub fn admit(&self, credential: Option<&str>, now_ms: i64) -> Result<Admitted, Refusal> {
        let presented = credential.filter(|text| !text.is_empty()).ok_or(Refusal::NoKey)?;
        let keys = self.keys.load();
        let found = keys.get(&self.hash(presented));
        let live = found.ok_or_else(|| Refusal::WrongKey(masked(presented)))?;
        match live.ended_at_ms(now_ms) {
            Some(ended_at_ms) => Err(Refusal::KeyEnded { ended_at_ms }),
            None => Ok(Admitted { key: Arc::clone(&live.key), team: live.team.clone() }),
        }
    }
}

/// A key as an error may show it: what it begins with and its last four characters.
fn masked(key: &str) -> String {
    let shown = |text: Option<&str>| text.filter(|text| text.is_ascii()).unwrap_or_default().to_owned();
    match key.len() {
        0..=16 => "***".to_owned(),
        length => format!("{}***{}", shown(key.get(..6)), shown(key.get(length - 4..))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::mint;

    #[test]
    fn only_published_keys_are_admitted() {
        let ring = KeyRing::new(&Secret::new("pepper"));
        let key = mint([1; 32]);
        let whose = Arc::new(VirtualKey {
            id: "key_1".into(),
            alias: "me".into(),
            last_four: "abcd".into(),
            created_at_ms: 0,
            revoked_at_ms: None,
            terms: Terms { expires_at_ms: Some(1_000), ..Terms::default() },
        });
        let live = LiveKey { key: whose, team: None, secret_until_ms: None };
        assert_eq!(ring.admit(None, 0).err(), Some(Refusal::NoKey));
        assert_eq!(ring.admit(Some(""), 0).err(), Some(Refusal::NoKey));
        assert!(matches!(ring.admit(Some(key.expose()), 0), Err(Refusal::WrongKey(_))));
        ring.publish(HashMap::from([(ring.hash(key.expose()), live)]));
        assert_eq!(ring.admit(Some(key.expose()), 999).expect("published").key.alias.as_ref(), "me");
        let ended = ring.admit(Some(key.expose()), 1_000).expect_err("expired");
        assert_eq!(ended.to_string(), "this API key expired on 1970-01-01T00:00:01Z: use a newer one");
        ring.publish(HashMap::new());
        assert!(ring.admit(Some(key.expose()), 0).is_err(), "revoked at once");
    }

    #[test]
    fn an_error_never_shows_a_whole_key() {
        assert_eq!(masked("sk-proj-0123456789abcdef"), "sk-pro***cdef");
        assert_eq!(masked("short"), "***");
        assert_eq!(masked("ééééééééééééé"), "***");
    }
}
