//! Asks a provider whether it would serve us, for `tunegate check-config --probe`.

use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::http::Pools;
use super::model_list::model_list;
use crate::clock;
use crate::domain::catalog::Provider;

/// How long a provider has for its list of models.
const LIMIT: Duration = Duration::from_secs(15);

/// Returns what the provider says when it is asked for its models, in a few words; else why it can't be asked.
pub async fn probe(provider: &Provider) -> Result<String, String> {
    let upstream = Upstream::new(Arc::new(provider.clone()), &Arc::new(Pools::default()));
    let authorization =
        upstream.authorization(clock::monotonic()).await.map_err(|error| error.to_string())?;
    let listed =
        model_list(&upstream.link, &authorization, LIMIT).await.map_err(|error| error.to_string())?;
    match listed.len() {
        1 => Ok("it serves us 1 model".to_owned()),
        models => Ok(format!("it serves us {models} models")),
    }
}
