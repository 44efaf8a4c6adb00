//! Virtual keys: made, listed and revoked by operators, and found by the data plane in a map that is swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::sync::Mutex;

use crate::domain::key::{KeyHash, VirtualKey, last_four, mint};
use crate::domain::secret::Secret;
use crate::store::keys::KeyRow;
use crate::store::{Store, StoreError};

/// The alias of the key that is made at the first start.
const FIRST_ALIAS: &str = "default";
/// What an id starts with. No alias may: a key can be named by either.
const ID_PREFIX: &str = "key_";
const MAX_ALIAS_BYTES: usize = 64;

type Live = HashMap<KeyHash, Arc<VirtualKey>>;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The operator's mistake.
    #[error("an alias has 1 to 64 of A-Z a-z 0-9 . _ - and does not start with {ID_PREFIX}")]
    Alias,
    /// The operator's mistake.
    #[error("there is a live key with the alias {0}")]
    AliasTaken(String),
    /// The operator's mistake.
    #[error("there is no key with the id or alias {0}")]
    Unknown(String),
    /// The machine's.
    #[error("no random bits: {0}")]
    Random(rand::rand_core::OsError),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All virtual keys.
pub struct Keys {
    store: Store,
    pepper: Secret,
    live: ArcSwap<Live>,
    /// Held while rows and map change together.
    changing: Mutex<()>,
}

impl Keys {
    /// Reads the live keys.
    pub async fn open(store: Store, pepper: Secret) -> Result<Self, KeysError> {
        let keys = Self { store, pepper, live: ArcSwap::default(), changing: Mutex::new(()) };
        keys.refresh().await?;
        Ok(keys)
    }

    /// Returns the live key that was presented: one hash and one look-up, no lock, no wait.
    pub fn find(&self, presented: &str) -> Option<Arc<VirtualKey>> {
        self.live.load().get(&KeyHash::of(presented, &self.pepper)).map(Arc::clone)
    }

    /// Makes a key. The secret is told here and never again.
    pub async fn create(&self, alias: &str, now_ms: i64) -> Result<(VirtualKey, Secret), KeysError> {
        if !alias_is_good(alias) {
            return Err(KeysError::Alias);
        }
        let secret = mint(random()?);
        let key = VirtualKey {
            id: format!("{ID_PREFIX}{}", hex(random::<12>()?)).into(),
            alias: alias.into(),
            last_four: last_four(&secret),
            created_at_ms: now_ms,
            revoked_at_ms: None,
        };
        let row = KeyRow { key, hash: KeyHash::of(secret.expose(), &self.pepper) };
        let _changing = self.changing.lock().await;
        self.store.insert_key(&row).await.map_err(|error| match error {
            StoreError::Taken => KeysError::AliasTaken(alias.to_owned()),
            other => KeysError::Store(other),
        })?;
        self.change(|live| {
            live.insert(row.hash, Arc::new(row.key.clone()));
        });
        Ok((row.key, secret))
    }

    /// Makes the first key of an installation; nothing when there has ever been one.
    pub async fn ensure_first_key(&self, now_ms: i64) -> Result<Option<(VirtualKey, Secret)>, KeysError> {
        if !self.store.keys().await?.is_empty() {
            return Ok(None);
        }
        self.create(FIRST_ALIAS, now_ms).await.map(Some)
    }

    /// Returns all keys, revoked ones too, in the order they were made.
    pub async fn list(&self) -> Result<Vec<VirtualKey>, KeysError> {
        Ok(self.store.keys().await?.into_iter().map(|row| row.key).collect())
    }

    /// Revokes a key by its id, or a live one by its alias; from here on nobody is let in by it. Once more does no
    /// harm: the first time stands.
    pub async fn revoke(&self, id_or_alias: &str, now_ms: i64) -> Result<VirtualKey, KeysError> {
        let _changing = self.changing.lock().await;
        let rows = self.store.keys().await?;
        let named = |row: &KeyRow| {
            &*row.key.id == id_or_alias || (&*row.key.alias == id_or_alias && row.key.revoked_at_ms.is_none())
        };
        let Some(KeyRow { mut key, hash }) = rows.into_iter().find(named) else {
            return Err(KeysError::Unknown(id_or_alias.to_owned()));
        };
        // Out of the map first: should this be cut off before the row is written, nobody is let in who was not to be.
        let mut was_live = None;
        self.change(|live| was_live = live.remove(&hash));
        match self.store.revoke_key(&key.id, now_ms).await {
            Ok(true) => key.revoked_at_ms = Some(now_ms),
            Ok(false) => {}
            Err(error) => {
                self.change(|live| live.extend(was_live.map(|key| (hash, key))));
                return Err(error.into());
            }
        }
        Ok(key)
    }

    /// Reads the live keys again, for changes that another process has made.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        let _changing = self.changing.lock().await;
        let rows = self.store.keys().await?;
        let live = rows.into_iter().filter(|row| row.key.revoked_at_ms.is_none());
        self.live.store(Arc::new(live.map(|row| (row.hash, Arc::new(row.key))).collect()));
        Ok(())
    }

    /// Changes the map; only with `changing` held.
    fn change(&self, change: impl FnOnce(&mut Live)) {
        let mut live = Live::clone(&self.live.load());
        change(&mut live);
        self.live.store(Arc::new(live));
    }
}

fn alias_is_good(alias: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_ALIAS_BYTES).contains(&alias.len()) && alias.bytes().all(fits) && !alias.starts_with(ID_PREFIX)
}

fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(KeysError::Random)?;
    Ok(bytes)
}

fn hex(bytes: [u8; 12]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Installation {
        folder: tempfile::TempDir,
    }

    impl Installation {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        async fn start(&self) -> Keys {
            let store = Store::open(self.folder.path()).await.expect("opened");
            Keys::open(store, Secret::new("pepper")).await.expect("read")
        }
    }

    #[tokio::test]
    async fn a_key_lives_from_create_to_revoke_and_over_a_restart() {
        let installation = Installation::new();
        let keys = installation.start().await;
        let (made, secret) = keys.create("support", 1_000).await.expect("made");
        assert!(made.id.starts_with("key_") && made.id.len() == 28, "{}", made.id);
        assert!(secret.expose().ends_with(&made.last_four));
        assert_eq!(keys.find(secret.expose()).as_deref(), Some(&made));
        assert_eq!(keys.find("sk-tg-other"), None);
        assert_eq!(
            installation.start().await.find(secret.expose()).as_deref(),
            Some(&made),
            "after a restart"
        );

        let revoked = keys.revoke("support", 2_000).await.expect("revoked");
        assert_eq!(revoked.revoked_at_ms, Some(2_000));
        assert_eq!(keys.find(secret.expose()), None, "gone at once");
        assert_eq!(installation.start().await.find(secret.expose()), None, "after a restart");
        assert_eq!(keys.revoke(&made.id, 3_000).await.expect("once more").revoked_at_ms, Some(2_000));
        assert!(matches!(keys.revoke("support", 3_000).await, Err(KeysError::Unknown(_))));
        assert_eq!(keys.list().await.expect("listed"), [revoked]);
    }

    #[tokio::test]
    async fn a_change_elsewhere_is_seen_after_a_refresh() {
        let installation = Installation::new();
        let (here, there) = (installation.start().await, installation.start().await);
        let (_, secret) = there.create("support", 1).await.expect("made");
        assert_eq!(here.find(secret.expose()), None);
        here.refresh().await.expect("read");
        assert!(here.find(secret.expose()).is_some());
    }

    #[tokio::test]
    async fn an_alias_is_checked_and_free_again_after_its_key() {
        let installation = Installation::new();
        let keys = installation.start().await;
        for (alias, good) in [
            ("a", true),
            ("team.app_1-x", true),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
            ("", false),
            ("a b", false),
            ("é", false),
            ("key_1", false),
        ] {
            assert_eq!(keys.create(alias, 1).await.is_ok(), good, "{alias}");
        }
        assert!(matches!(keys.create("a", 1).await, Err(KeysError::AliasTaken(_))));
        keys.revoke("a", 2).await.expect("revoked");
        keys.create("a", 3).await.expect("free again");
    }

    #[tokio::test]
    async fn the_first_key_is_made_once() {
        let installation = Installation::new();
        let keys = installation.start().await;
        let (first, secret) = keys.ensure_first_key(1).await.expect("asked").expect("made");
        assert_eq!((&*first.alias, keys.find(secret.expose()).is_some()), (FIRST_ALIAS, true));
        assert!(keys.ensure_first_key(2).await.expect("asked").is_none());
        keys.revoke(&first.id, 3).await.expect("revoked");
        assert!(
            installation.start().await.ensure_first_key(4).await.expect("asked").is_none(),
            "not after a revoke"
        );
    }
}
