//! OpenAI's own dialect, which most other servers speak too.

use http::{HeaderName, HeaderValue};

use super::Asks;
use crate::domain::catalog::OpenAi;
use crate::domain::endpoint::Endpoint;

impl Asks for OpenAi {
    fn path(&self, base_path: &str, endpoint: Endpoint, _upstream_model: &str) -> String {
        format!("{base_path}/{}", endpoint.path())
    }

    fn stored_path(&self, base_path: &str, tail: &str) -> String {
        format!("{base_path}/{tail}")
    }

    fn model_in_body(&self, _endpoint: Endpoint) -> bool {
        true
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let organization = HeaderName::from_static("openai-organization");
        let project = HeaderName::from_static("openai-project");
        [(organization, &self.organization), (project, &self.project)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value.as_deref()?).ok()?)))
            .collect()
    }
}
