//! Which deployment made a stored response: a later request that names it must go there, and only its own key may.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::admit::Admitted;
use crate::clock;
use crate::store::pins::{Pin, PinRows};

/// Pins kept in memory; the rest is in the store.
const CACHED: u64 = 10_000;
/// How long one stays there.
const CACHED_FOR: Duration = Duration::from_secs(3_600);

/// The pins, cached in front of the store.
pub struct Pins {
    rows: PinRows,
    cache: Cache<String, Arc<Pin>>,
}

impl Pins {
    /// Pins over the store's rows.
    pub fn new(rows: PinRows) -> Self {
        let cache = Cache::builder().max_capacity(CACHED).time_to_live(CACHED_FOR).build();
        Self { rows, cache }
    }

    /// Remembers who made an answer. A failing store is logged: the answer itself is not lost for it.
    pub async fn remember(&self, id: String, key: &Admitted, deployment: &Arc<str>) {
        let pin = Pin {
            id: id.clone(),
            key_id: key.key.id.to_string(),
            deployment: deployment.to_string(),
            created_at_ms: clock::unix_ms(),
        };
        if let Err(error) = self.rows.insert(&pin).await {
            tracing::error!(%error, "a response's deployment could not be stored");
        }
        self.cache.insert(id, Arc::new(pin));
    }

    /// The deployment that made an answer of this key's.
    pub async fn find(&self, id: &str, key: &Admitted) -> Option<Arc<Pin>> {
        let pin = match self.cache.get(id) {
            Some(pin) => pin,
            None => match self.rows.find(id).await {
                Ok(found) => Arc::new(found?),
                Err(error) => {
                    tracing::error!(%error, "a response's deployment could not be looked up");
                    return None;
                }
            },
        };
        (pin.key_id == *key.key.id).then_some(pin)
    }
}
