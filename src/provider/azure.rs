//! Azure OpenAI's two dialects. Both name a deployment, not a model.
//!
//! Source: Azure inference 2024-10-21 and the v1 API (`…/openai/v1`), both read on 2026-11-21.

use http::HeaderName;

use super::{Asks, segment, with_version};
use crate::domain::catalog::{AzureClassic, AzureV1};
use crate::domain::endpoint::Endpoint;

/// The first dated version that knows `stream_options`.
const STREAM_OPTIONS_SINCE: &str = "2024-09-01";
/// The first dated version that knows `max_completion_tokens`.
const COMPLETION_CAP_SINCE: &str = "2024-09-01";

const fn api_key() -> HeaderName {
    HeaderName::from_static("api-key")
}

impl Asks for AzureV1 {
    fn path(&self, base_path: &str, endpoint: Endpoint, _upstream_model: &str) -> String {
        self.stored_path(base_path, endpoint.path())
    }

    fn stored_path(&self, base_path: &str, tail: &str) -> String {
        with_version(format!("{base_path}/openai/v1/{tail}"), self.api_version.as_deref())
    }

    fn model_in_body(&self, _endpoint: Endpoint) -> bool {
        true
    }

    fn key_header(&self) -> HeaderName {
        api_key()
    }
}

impl Asks for AzureClassic {
    fn path(&self, base_path: &str, endpoint: Endpoint, upstream_model: &str) -> String {
        let path = match endpoint.azure_deployment_bound() {
            true => {
                format!("{base_path}/openai/deployments/{}/{}", segment(upstream_model), endpoint.path())
            }
            false => format!("{base_path}/openai/{}", endpoint.path()),
        };
        with_version(path, Some(&self.api_version))
    }

    fn stored_path(&self, base_path: &str, tail: &str) -> String {
        with_version(format!("{base_path}/openai/{tail}"), Some(&self.api_version))
    }

    /// The path decides where it names the deployment; the body's model is ignored there, but a catalog's name that
    /// means nothing to Azure must not travel either.
    fn model_in_body(&self, _endpoint: Endpoint) -> bool {
        true
    }

    fn knows_usage_option(&self) -> bool {
        self.api_version.as_str() >= STREAM_OPTIONS_SINCE
    }

    fn knows_completion_cap(&self) -> bool {
        self.api_version.as_str() >= COMPLETION_CAP_SINCE
    }

    fn key_header(&self) -> HeaderName {
        api_key()
    }
}
