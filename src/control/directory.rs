//! Who there is: keys and teams as this process knows them, and what the data plane is told of them.
//!
//! Every change is written first, then read back whole and published; so what other processes have changed is seen,
//! too. Reads of the data plane never wait for it, nor for the database.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};

use crate::domain::key::{KeyHash, LiveKey, VirtualKey};
use crate::domain::limit::RateLimits;
use crate::domain::team::{Origin, TEAM_ID_PREFIX, Team};
use crate::store::StoreError;
use crate::store::keys::{KeyRow, KeyRows};
use crate::store::teams::TeamRows;

/// The live keys by the hashes of their secrets.
pub type LiveKeys = HashMap<KeyHash, LiveKey>;

/// Why the directory can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What there is at a moment.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// All keys, revoked ones too, in the order they were made.
    pub(super) keys: Vec<KeyRow>,
    /// Declared teams, then the others, archived ones too, in the order they were made.
    pub(super) teams: Vec<Arc<Team>>,
}

impl Known {
    /// A key by its id, or a live one by its alias.
    pub(super) fn key(&self, id_or_alias: &str) -> Option<&KeyRow> {
        let by_id = self.keys.iter().find(|row| *row.key.id == *id_or_alias);
        by_id.or_else(|| self.keys.iter().find(|row| row.key.is_named(id_or_alias)))
    }

    /// A team by its id, or one that is not archived by its alias. A declared one hides a stored one of its name.
    pub(super) fn team(&self, id_or_alias: &str) -> Option<&Arc<Team>> {
        let by_id = self.teams.iter().find(|team| *team.id == *id_or_alias);
        by_id.or_else(|| self.teams.iter().find(|team| team.is_named(id_or_alias)))
    }

    /// The team that owns a key. One that is declared no longer keeps its name, and has no limits.
    pub(super) fn team_of(&self, key: &VirtualKey) -> Option<Arc<Team>> {
        let id = key.terms.team.as_deref()?;
        let missing = || {
            let alias = id.strip_prefix(TEAM_ID_PREFIX).unwrap_or(id);
            Arc::new(Team::declared(alias, RateLimits::default(), Vec::new()))
        };
        Some(self.team(id).map_or_else(missing, Arc::clone))
    }

    /// The live keys of a team.
    pub(super) fn keys_of(&self, team_id: &str) -> impl Iterator<Item = &VirtualKey> {
        let owned = move |key: &&VirtualKey| key.terms.team.as_deref() == Some(team_id);
        self.keys.iter().map(|row| &row.key).filter(|key| key.revoked_at_ms.is_none()).filter(owned)
    }

    fn live(&self) -> LiveKeys {
        let mut live = LiveKeys::new();
        for row in self.keys.iter().filter(|row| row.key.revoked_at_ms.is_none()) {
            let (key, team) = (Arc::new(row.key.clone()), self.team_of(&row.key));
            let secret =
                |until| LiveKey { key: Arc::clone(&key), team: team.clone(), secret_until_ms: until };
            for retired in &row.retired {
                live.insert(retired.hash, secret(Some(retired.until_ms)));
            }
            live.insert(row.hash, secret(None));
        }
        live
    }
}

/// Keys and teams, shared by those who change them.
pub struct Directory {
    pub(super) key_rows: KeyRows,
    pub(super) team_rows: TeamRows,
    declared: ArcSwap<Vec<Team>>,
    known: ArcSwap<Known>,
    /// Held while rows and what is known change together.
    changing: Mutex<()>,
    publish: Box<dyn Fn(LiveKeys) + Send + Sync>,
}

/// The right to change: one at a time.
pub(super) struct Changing<'d> {
    directory: &'d Directory,
    _only_one: MutexGuard<'d, ()>,
}

impl Directory {
    /// Reads keys and teams. The live keys are published now and after each change, before the change is told to the
    /// operator.
    pub async fn open(
        key_rows: KeyRows,
        team_rows: TeamRows,
        declared: Vec<Team>,
        publish: impl Fn(LiveKeys) + Send + Sync + 'static,
    ) -> Result<Self, DirectoryError> {
        let directory = Self {
            key_rows,
            team_rows,
            declared: ArcSwap::from_pointee(declared),
            known: ArcSwap::default(),
            changing: Mutex::default(),
            publish: Box::new(publish),
        };
        directory.refresh().await?;
        for (alias, keys) in directory.abandoned(&directory.declared.load()) {
            tracing::warn!(
                team = alias,
                keys,
                "live keys belong to a team that is declared no longer: it has no limits"
            );
        }
        Ok(directory)
    }

    /// Reads all again, for what another process has changed.
    pub async fn refresh(&self) -> Result<(), DirectoryError> {
        self.change().await.refresh().await
    }

    /// Takes over the teams that a new configuration declares. They apply at the next refresh.
    ///
    /// # Errors
    ///
    /// A line for each declared team that is gone but owns live keys; nothing has changed then.
    pub fn declare(&self, teams: Vec<Team>) -> Result<(), Vec<String>> {
        let said = |(alias, keys): (String, usize)| {
            format!(
                "teams.{alias}: gone, but {keys} live keys belong to it: revoke them, or move them to another team"
            )
        };
        // what was gone before is no news
        let before = self.abandoned(&self.declared.load());
        let problems: Vec<String> =
            self.abandoned(&teams).into_iter().filter(|team| !before.contains(team)).map(said).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        self.declared.store(Arc::new(teams));
        Ok(())
    }

    /// Teams that own live keys but are neither stored nor among these, and how many keys.
    fn abandoned(&self, declared: &[Team]) -> Vec<(String, usize)> {
        let known = self.known();
        let is_there = |id: &str| {
            let stored = known.teams.iter().any(|team| team.origin == Origin::Stored && *team.id == *id);
            stored || declared.iter().any(|team| *team.id == *id)
        };
        let mut lost: HashMap<String, usize> = HashMap::new();
        for row in known.keys.iter().filter(|row| row.key.revoked_at_ms.is_none()) {
            if let Some(id) = row.key.terms.team.as_deref().filter(|id| !is_there(id)) {
                *lost.entry(id.strip_prefix(TEAM_ID_PREFIX).unwrap_or(id).to_owned()).or_default() += 1;
            }
        }
        let mut lost: Vec<_> = lost.into_iter().collect();
        lost.sort();
        lost
    }

    /// What was known last.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Waits until nobody else changes anything.
    pub(super) async fn change(&self) -> Changing<'_> {
        Changing { directory: self, _only_one: self.changing.lock().await }
    }
}

impl Changing<'_> {
    /// Reads all again and publishes it.
    pub(super) async fn refresh(&self) -> Result<(), DirectoryError> {
        let Directory { key_rows, team_rows, declared, known, .. } = self.directory;
        let keys = key_rows.all().await?;
        let declared = declared.load();
        let stored = team_rows.all().await?;
        let teams = declared.iter().cloned().chain(stored).map(Arc::new).collect();
        let now = Arc::new(Known { keys, teams });
        (self.directory.publish)(now.live());
        known.store(now);
        Ok(())
    }

    /// What is known at this moment, changes of other processes included.
    pub(super) async fn known(&self) -> Result<Arc<Known>, DirectoryError> {
        self.refresh().await?;
        Ok(self.directory.known())
    }

    /// Shuts out a key at once, before its row is written: should that be cut off, nobody is let in who was not to be.
    pub(super) fn shut_out(&self, key_id: &str) {
        let mut live = self.directory.known().live();
        live.retain(|_, live| *live.key.id != *key_id);
        (self.directory.publish)(live);
    }

    /// Lets in again whom [`Changing::shut_out`] has shut out.
    pub(super) fn let_in(&self) {
        (self.directory.publish)(self.directory.known().live());
    }
}
