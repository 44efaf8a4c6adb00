//! Who asks, and may they.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::refusal::Refusal;
use crate::domain::key::{KeyHash, KeyHasher, VirtualKey};
use crate::domain::secret::Secret;

/// The live keys by their hashes, as the control plane last published them.
pub struct KeyRing {
    hasher: KeyHasher,
    keys: ArcSwap<HashMap<KeyHash, Arc<VirtualKey>>>,
}

/// A request whose sender we know.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Whose it is.
    pub key: Arc<VirtualKey>,
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
    pub fn publish(&self, keys: HashMap<KeyHash, Arc<VirtualKey>>) {
        self.keys.store(Arc::new(keys));
    }

    /// Admits a request by the credential it carries.
    pub fn admit(&self, credential: Option<&str>) -> Result<Admitted, Refusal> {
        let presented = credential.filter(|text| !text.is_empty()).ok_or(Refusal::NoKey)?;
        match self.keys.load().get(&self.hash(presented)) {
            Some(key) => Ok(Admitted { key: Arc::clone(key) }),
            None => Err(Refusal::WrongKey(masked(presented))),
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
        });
        assert_eq!(ring.admit(None).err(), Some(Refusal::NoKey));
        assert_eq!(ring.admit(Some("")).err(), Some(Refusal::NoKey));
        assert!(matches!(ring.admit(Some(key.expose())), Err(Refusal::WrongKey(_))));
        ring.publish(HashMap::from([(ring.hash(key.expose()), whose)]));
        assert_eq!(ring.admit(Some(key.expose())).expect("published").key.alias.as_ref(), "me");
        ring.publish(HashMap::new());
        assert!(ring.admit(Some(key.expose())).is_err(), "revoked at once");
    }

    #[test]
    fn an_error_never_shows_a_whole_key() {
        assert_eq!(masked("sk-proj-0123456789abcdef"), "sk-pro***cdef");
        assert_eq!(masked("short"), "***");
        assert_eq!(masked("ééééééééééééé"), "***");
    }
}
