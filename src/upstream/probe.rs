//! Asks a provider whether it would serve us, for `tunegate check-config --probe`.

use crate::domain::catalog::Provider;

/// Returns what the provider says when it is asked for its models, in a few words; else why it can't be asked.
pub async fn probe(_provider: &Provider) -> Result<String, String> {
    Err("probing is not built in yet".to_owned())
}
