//! Which deployment made a stored response or a file: a later request that names it must go there, and only its own key
//! may.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::admit::Admitted;
use super::refusal::Refusal;
use crate::clock;
use crate::domain::request::{InferenceRequest, RequestError};
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

    /// The pin of an answer of this key's.
    pub async fn find(&self, id: &str, key: &Admitted) -> Option<Arc<Pin>> {
        self.look_up(id).await.filter(|pin| pin.key_id == *key.key.id)
    }

    /// The deployment a request must go to, by what it names; nothing when it names nothing that we know.
    ///
    /// # Errors
    ///
    /// When it names a response that is not there, something of another key's, or things of two deployments.
    pub async fn bound_to(
        &self,
        request: &InferenceRequest,
        key: &Admitted,
    ) -> Result<Option<String>, Refusal> {
        let mut bound: Option<String> = None;
        if let Some(id) = &request.previous_response_id {
            let unknown = || Refusal::UnknownResponse(id.clone());
            bound = Some(self.find(id, key).await.ok_or_else(unknown)?.deployment.clone());
        }
        for id in request.conversation.iter().chain(request.file_ids()).cloned() {
            // one that we do not know was made elsewhere, with the provider's own key
            let Some(pin) = self.look_up(&id).await else { continue };
            if pin.key_id != *key.key.id {
                return Err(match request.conversation.as_ref() == Some(&id) {
                    true => Refusal::UnknownResponse(id),
                    false => Refusal::UnknownFile(id),
                });
            }
            match &bound {
                Some(other) if *other != pin.deployment => {
                    let why = "it names responses, conversations or files of two deployments; one request goes to one of them";
                    return Err(RequestError::Invalid { param: "input", why }.into());
                }
                _ => bound = Some(pin.deployment.clone()),
            }
        }
        Ok(bound)
    }

    async fn look_up(&self, id: &str) -> Option<Arc<Pin>> {
        if let Some(pin) = self.cache.get(id) {
            return Some(pin);
        }
        match self.rows.find(id).await {
            Ok(found) => found.map(Arc::new),
            Err(error) => {
                tracing::error!(%error, "a response's deployment could not be looked up");
                None
            }
        }
    }
}
