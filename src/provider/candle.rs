//! Our own worker's dialect: OpenAI's, on a unix socket or an internal address.

use super::Asks;
use crate::domain::endpoint::Endpoint;

/// The worker.
pub(super) struct Candle;

impl Asks for Candle {
    fn path(&self, base_path: &str, endpoint: Endpoint, _upstream_model: &str) -> String {
        format!("{base_path}/{}", endpoint.path())
    }

    fn stored_path(&self, base_path: &str, tail: &str) -> String {
        format!("{base_path}/{tail}")
    }

    fn model_in_body(&self, _endpoint: Endpoint) -> bool {
        true
    }

    fn knows_completion_cap(&self) -> bool {
        false
    }
}
