//! The forms of one request: as the client sent it, and as a chat completion for the deployments that speak only that.

use std::sync::{Arc, OnceLock};

use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::route::Out;
use crate::domain::translate::{Untranslatable, chat_of};

/// A request as one deployment gets it.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// The request.
    pub(super) request: Arc<InferenceRequest>,
    /// Whether it was a Responses request, and its answer must become a response again.
    pub(super) translated: bool,
}

/// All forms of one request; what nobody needs is not made.
#[derive(Debug)]
pub(super) struct Forms {
    asked: Arc<InferenceRequest>,
    chat: OnceLock<Result<Arc<InferenceRequest>, Untranslatable>>,
}

impl Forms {
    /// Of a request as it came.
    pub(super) fn new(asked: InferenceRequest) -> Self {
        Self { asked: Arc::new(asked), chat: OnceLock::new() }
    }

    /// As it came.
    pub(super) const fn asked(&self) -> &Arc<InferenceRequest> {
        &self.asked
    }

    /// As a deployment gets it.
    pub(super) fn of(&self, deployment: &Deployment) -> Result<Form, Out> {
        let endpoint = self.asked.endpoint;
        if deployment.endpoints.contains(&endpoint) {
            return Ok(Form { request: Arc::clone(&self.asked), translated: false });
        }
        if endpoint != Endpoint::Responses || !deployment.endpoints.contains(&Endpoint::ChatCompletions) {
            return Err(Out::Endpoint(endpoint.name()));
        }
        match self.chat.get_or_init(|| self.as_chat()) {
            Ok(request) => Ok(Form { request: Arc::clone(request), translated: true }),
            Err(why) => Err(Out::Untranslatable {
                member: why.param.as_str().into(),
                why: why.why.to_string().into(),
            }),
        }
    }

    fn as_chat(&self) -> Result<Arc<InferenceRequest>, Untranslatable> {
        let body = chat_of(self.asked.body())?;
        let model = Some(self.asked.model.as_str());
        let parsed = InferenceRequest::parse(Endpoint::ChatCompletions, body, model);
        parsed.map(Arc::new).map_err(Untranslatable::from)
    }
}
