//! Virtual keys: made, listed and revoked by operators, and published to
//! the data plane whenever they change.

use std::collections::HashMap;
use std::sync::Arc;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::sync::Mutex;

use crate::domain::key::{KeyHash, LiveKey, Terms, VirtualKey, last_four, mint};
use crate::domain::secret::Secret;
use crate::store::StoreError;
use crate::store::keys::{KeyRow, KeyRows};

/// The alias of the key that is made at the first start.
const FIRST_ALIAS: &str = "default";
/// What an id starts with. No alias may: a key can be named by either.
const ID_PREFIX: &str = "key_";
const MAX_ALIAS_BYTES: usize = 64;

/// The live keys by their hashes.
pub type LiveKeys = HashMap<KeyHash, LiveKey>;

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
    rows: KeyRows,
    pepper: Secret,
    /// The live keys as they were last published; held while rows and map change together.
    live: Mutex<LiveKeys>,
    publish: Box<dyn Fn(LiveKeys) + Send + Sync>,
}

impl Keys {
    /// Reads the live keys. They are published now and after each change, before the change is told to the operator.
    pub async fn open(
        rows: KeyRows,
        pepper: Secret,
        publish: impl Fn(LiveKeys) + Send + Sync + 'static,
    ) -> Result<Self, KeysError> {
        let keys = Self { rows, pepper, live: Mutex::default(), publish: Box::new(publish) };
        keys.refresh().await?;
        Ok(keys)
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
            terms: Terms::default(),
        };
        let row = KeyRow { key, hash: KeyHash::of(secret.expose(), &self.pepper) };
        let mut live = self.live.lock().await;
        self.rows.insert(&row).await.map_err(|error| match error {
            StoreError::Taken => KeysError::AliasTaken(alias.to_owned()),
            other => KeysError::Store(other),
        })?;
        live.insert(row.hash, alone(row.key.clone()));
        (self.publish)(live.clone());
        Ok((row.key, secret))
    }

    /// Makes the first key of an installation; nothing when there has ever been one.
    pub async fn ensure_first_key(&self, now_ms: i64) -> Result<Option<(VirtualKey, Secret)>, KeysError> {
        if !self.rows.all().await?.is_empty() {
            return Ok(None);
        }
        self.create(FIRST_ALIAS, now_ms).await.map(Some)
    }

    /// Returns all keys, revoked ones too, in the order they were made.
    pub async fn list(&self) -> Result<Vec<VirtualKey>, KeysError> {
        Ok(self.rows.all().await?.into_iter().map(|row| row.key).collect())
    }

    /// Revokes a key by its id, or a live one by its alias; from here on nobody is let in by it. Once more does no
    /// harm: the first time stands.
    pub async fn revoke(&self, id_or_alias: &str, now_ms: i64) -> Result<VirtualKey, KeysError> {
        let mut live = self.live.lock().await;
        let rows = self.rows.all().await?;
        let named = |row: &KeyRow| {
            &*row.key.id == id_or_alias || (&*row.key.alias == id_or_alias && row.key.revoked_at_ms.is_none())
        };
        let Some(KeyRow { mut key, hash }) = rows.into_iter().find(named) else {
            return Err(KeysError::Unknown(id_or_alias.to_owned()));
        };
        // Out of the map first: should this be cut off before the row is written, nobody is let in who was not to be.
        let was_live = live.remove(&hash);
        (self.publish)(live.clone());
        match self.rows.revoke(&key.id, now_ms).await {
            Ok(true) => key.revoked_at_ms = Some(now_ms),
            Ok(false) => {}
            Err(error) => {
                live.extend(was_live.map(|key| (hash, key)));
                (self.publish)(live.clone());
                return Err(error.into());
            }
        }
        Ok(key)
    }

    /// Reads the live keys again, for changes that another process has made.
    pub async fn refresh(&self) -> Result<(), KeysError> {
        let mut live = self.live.lock().await;
        let rows = self.rows.all().await?;
        let rows = rows.into_iter().filter(|row| row.key.revoked_at_ms.is_none());
        *live = rows.map(|row| (row.hash, alone(row.key))).collect();
        (self.publish)(live.clone());
        Ok(())
    }
}

fn alone(key: VirtualKey) -> LiveKey {
    LiveKey { key: Arc::new(key), team: None, secret_until_ms: None }
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
    use std::ops::Deref;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::store::{DatabaseConfig, Store};

    const PEPPER: &str = "pepper";

    struct Installation {
        folder: tempfile::TempDir,
    }

    /// Keys, and what was published last.
    struct Started {
        keys: Keys,
        published: Arc<ArcSwap<LiveKeys>>,
    }

    impl Installation {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        async fn start(&self) -> Started {
            let store = Store::open(&DatabaseConfig::in_folder(self.folder.path())).await.expect("opened");
            let published = Arc::new(ArcSwap::default());
            let publish = {
                let published = Arc::clone(&published);
                move |live| published.store(Arc::new(live))
            };
            let keys = Keys::open(KeyRows::new(&store), Secret::new(PEPPER), publish).await.expect("read");
            Started { keys, published }
        }
    }

    impl Started {
        fn find(&self, presented: &Secret) -> Option<Arc<VirtualKey>> {
            self.published
                .load()
                .get(&KeyHash::of(presented.expose(), &Secret::new(PEPPER)))
                .map(|live| Arc::clone(&live.key))
        }
    }

    impl Deref for Started {
        type Target = Keys;

        fn deref(&self) -> &Keys {
            &self.keys
        }
    }

    #[tokio::test]
    async fn a_key_lives_from_create_to_revoke_and_over_a_restart() {
        let installation = Installation::new();
        let keys = installation.start().await;
        let (made, secret) = keys.create("support", 1_000).await.expect("made");
        assert!(made.id.starts_with("key_") && made.id.len() == 28, "{}", made.id);
        assert!(secret.expose().ends_with(&made.last_four));
        assert_eq!(keys.find(&secret).as_deref(), Some(&made));
        assert_eq!(keys.find(&Secret::new("sk-tg-other")), None);
        assert_eq!(installation.start().await.find(&secret).as_deref(), Some(&made), "after a restart");

        let revoked = keys.revoke("support", 2_000).await.expect("revoked");
        assert_eq!(revoked.revoked_at_ms, Some(2_000));
        assert_eq!(keys.find(&secret), None, "gone at once");
        assert_eq!(installation.start().await.find(&secret), None, "after a restart");
        assert_eq!(keys.revoke(&made.id, 3_000).await.expect("once more").revoked_at_ms, Some(2_000));
        assert!(matches!(keys.revoke("support", 3_000).await, Err(KeysError::Unknown(_))));
        assert_eq!(keys.list().await.expect("listed"), [revoked]);
    }

    #[tokio::test]
    async fn a_change_elsewhere_is_seen_after_a_refresh() {
        let installation = Installation::new();
        let (here, there) = (installation.start().await, installation.start().await);
        let (_, secret) = there.create("support", 1).await.expect("made");
        assert_eq!(here.find(&secret), None);
        here.refresh().await.expect("read");
        assert!(here.find(&secret).is_some());
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
        assert_eq!((&*first.alias, keys.find(&secret).is_some()), (FIRST_ALIAS, true));
        assert!(keys.ensure_first_key(2).await.expect("asked").is_none());
        keys.revoke(&first.id, 3).await.expect("revoked");
        assert!(
            installation.start().await.ensure_first_key(4).await.expect("asked").is_none(),
            "not after a revoke"
        );
    }
}
