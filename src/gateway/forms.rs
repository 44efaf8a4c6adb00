//! The forms of one request: as the client sent it, with a stored prompt's words in it for the deployments that get one,
//! and each as a chat completion for the deployments that speak only that.

use std::sync::{Arc, OnceLock};

use super::prompts::{Asking, Shelf, Unput, Words, speaker};
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::prompt::{Injection, Mode};
use crate::domain::request::{InferenceRequest, Speaker};
use crate::domain::route::Out;
use crate::domain::tokens::TokenCounter;
use crate::domain::translate::{Untranslatable, chat_of};

/// A request as one deployment gets it.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// The request.
    pub(super) request: Arc<InferenceRequest>,
    /// Whether it was a Responses request, and its answer must become a response again.
    pub(super) translated: bool,
    /// Which of the request's words it has: what was counted is found by it.
    pub(super) wording: usize,
    /// The stored prompt's words that were put in.
    pub(super) put: Option<PutIn>,
}

/// Words that were put in.
#[derive(Debug, Clone)]
pub(super) struct PutIn {
    /// The words.
    pub(super) words: Arc<Words>,
    /// How often: a completion may have several prompts.
    times: u64,
    /// What the client says before them.
    before: Option<Arc<str>>,
}

impl PutIn {
    /// How many tokens they are in all.
    pub(super) fn tokens(&self, counter: TokenCounter) -> u64 {
        self.words.tokens(counter).saturating_mul(self.times)
    }

    /// How many tokens stand before them.
    pub(super) fn tokens_before(&self, counter: TokenCounter) -> u64 {
        self.before.as_ref().map_or(0, |before| counter.count_text(before))
    }
}

/// The request with some words in it, or as it came, and its translation where somebody needs it.
#[derive(Debug)]
struct Wording {
    request: Arc<InferenceRequest>,
    put: Option<PutIn>,
    chat: OnceLock<Result<Arc<InferenceRequest>, Untranslatable>>,
}

impl Wording {
    const fn bare(request: Arc<InferenceRequest>) -> Self {
        Self { request, put: None, chat: OnceLock::new() }
    }

    fn as_chat(&self) -> Result<Arc<InferenceRequest>, Untranslatable> {
        let body = chat_of(self.request.body())?;
        let model = Some(self.request.model.as_str());
        let parsed = InferenceRequest::parse(Endpoint::ChatCompletions, body, model);
        parsed.map(Arc::new).map_err(Untranslatable::from)
    }
}

/// All forms of one request; a translation that nobody needs is not made.
#[derive(Debug)]
pub(super) struct Forms {
    /// As it came.
    asked: Wording,
    /// With words in it.
    worded: Vec<Wording>,
    /// Which of them deployments get that don't get it as it came: by their names.
    of: Vec<(Arc<str>, usize)>,
}

impl Forms {
    /// Of a request as it came, with the prompts of all deployments that it may be sent to.
    ///
    /// # Errors
    ///
    /// When one of them can't be put in.
    pub(super) fn new(asked: InferenceRequest, shelf: &Shelf, asking: Asking<'_>) -> Result<Self, Unput> {
        let mut forms = Self { asked: Wording::bare(Arc::new(asked)), worded: Vec::new(), of: Vec::new() };
        let takes_words = matches!(
            forms.asked.request.endpoint,
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Completions
        );
        if takes_words && asking.gets_any() {
            forms.put_in(shelf, asking)?;
        }
        Ok(forms)
    }

    fn put_in(&mut self, shelf: &Shelf, asking: Asking<'_>) -> Result<(), Unput> {
        let named = asking.named(shelf)?;
        // what was put in already; nothing where the request stays as it came
        let mut known: Vec<(Injection, Speaker, Option<usize>)> = Vec::new();
        for deployment in asking.deployments() {
            if self.of.iter().any(|(name, _)| *name == deployment.name) {
                continue;
            }
            let Some(injection) = asking.injection(deployment, named.as_ref()) else { continue };
            let speaker = speaker(injection.role, deployment, &asking.resolved.upstream_model(deployment));
            let same = known.iter().find(|(other, voice, _)| *other == injection && *voice == speaker);
            let at = match same {
                Some((.., at)) => *at,
                None => {
                    let words = asking.words(shelf, &injection.prompt)?;
                    let at = self.worded(words, injection.mode, speaker)?;
                    known.push((injection, speaker, at));
                    at
                }
            };
            self.of.extend(at.map(|at| (Arc::clone(&deployment.name), at)));
        }
        Ok(())
    }

    fn worded(&mut self, words: Words, mode: Mode, speaker: Speaker) -> Result<Option<usize>, Unput> {
        let asked = &self.asked.request;
        let Some((request, times)) = asked.with_words(words.text(), mode, speaker)? else { return Ok(None) };
        let before = match (mode, asked.endpoint) {
            (Mode::Append, Endpoint::ChatCompletions) => asked.system_message(),
            (Mode::Append, Endpoint::Responses) => asked.instructions(),
            _ => None,
        };
        let before = before.filter(|said| !said.is_empty()).map(Arc::from);
        let put = Some(PutIn { words: Arc::new(words), times, before });
        self.worded.push(Wording { request: Arc::new(request), put, chat: OnceLock::new() });
        Ok(Some(self.worded.len()))
    }

    /// As it came.
    pub(super) const fn asked(&self) -> &Arc<InferenceRequest> {
        &self.asked.request
    }

    /// Which words a deployment gets; 0 is as the request came.
    pub(super) fn wording_of(&self, deployment: &Deployment) -> usize {
        self.of.iter().find(|(name, _)| *name == deployment.name).map_or(0, |(_, wording)| *wording)
    }

    /// The request with these words, before any translation.
    pub(super) fn worded_as(&self, wording: usize) -> &Arc<InferenceRequest> {
        &self.wording(wording).request
    }

    fn wording(&self, wording: usize) -> &Wording {
        wording.checked_sub(1).and_then(|at| self.worded.get(at)).unwrap_or(&self.asked)
    }

    /// How long its longest form is, bytes.
    pub(super) fn most_bytes(&self) -> u64 {
        let all = std::iter::once(&self.asked).chain(&self.worded);
        all.map(|form| form.request.body().len() as u64).max().unwrap_or_default()
    }

    /// As a deployment gets it.
    pub(super) fn of(&self, deployment: &Deployment) -> Result<Form, Out> {
        let wording = self.wording_of(deployment);
        let (form, put) = (self.wording(wording), || self.wording(wording).put.clone());
        let endpoint = form.request.endpoint;
        if deployment.endpoints.contains(&endpoint) {
            return Ok(Form { request: Arc::clone(&form.request), translated: false, wording, put: put() });
        }
        if endpoint != Endpoint::Responses || !deployment.endpoints.contains(&Endpoint::ChatCompletions) {
            return Err(Out::Endpoint(endpoint.name()));
        }
        match form.chat.get_or_init(|| form.as_chat()) {
            Ok(request) => Ok(Form { request: Arc::clone(request), translated: true, wording, put: put() }),
            Err(why) => Err(Out::Untranslatable {
                member: why.param.as_str().into(),
                why: why.why.to_string().into(),
            }),
        }
    }
}
