//! The forms of one request: as the client sent it, with a stored prompt's words in it for the deployments that get one,
//! and each as a chat completion for the deployments that speak only that.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::prompts::{Asking, Shelf, Unput, Words, speaker};
use crate::domain::catalog::{Deployment, INSTRUCTIONS};
use crate::domain::endpoint::Endpoint;
use crate::domain::prompt::{Injection, Mode};
use crate::domain::request::{InferenceRequest, Placed, RequestError, Speaker};
use crate::domain::route::Out;
use crate::domain::tokens::{QUICK_BYTES, TokenCounter};
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
    pub(super) put: Option<Arc<PutIn>>,
}

/// Words that were put in.
#[derive(Debug)]
pub(super) struct PutIn {
    /// The words.
    pub(super) words: Words,
    /// How often: a completion may have several prompts.
    times: u64,
    /// What the client says before them.
    before: Option<String>,
    /// What was counted, by whom.
    counted: Mutex<Vec<(TokenCounter, PutTokens)>>,
}

/// How many tokens words are that were put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PutTokens {
    /// In all.
    pub(super) tokens: u64,
    /// How many stand before them.
    pub(super) before: u64,
}

impl PutIn {
    /// Counts them, once for each counter; long ones on a thread for that.
    pub(super) async fn count(self: &Arc<Self>, counter: TokenCounter) -> PutTokens {
        let before = self.before.as_ref().map_or(0, String::len);
        let is_quick = self.words.is_quick(counter) && before <= QUICK_BYTES;
        if is_quick || self.known(counter).is_some() {
            return self.count_here(counter);
        }
        let put = Arc::clone(self);
        let counting = tokio::task::spawn_blocking(move || put.count_here(counter));
        // a byte-level encoding never makes more tokens than there are bytes
        let bytes = |text: usize| u64::try_from(text).unwrap_or(u64::MAX);
        let tokens = bytes(self.words.text().len()).saturating_mul(self.times);
        counting.await.unwrap_or(PutTokens { tokens, before: bytes(before) })
    }

    /// Counts them on this thread, unless that was done.
    pub(super) fn count_here(&self, counter: TokenCounter) -> PutTokens {
        if let Some(known) = self.known(counter) {
            return known;
        }
        let tokens = self.words.tokens(counter).saturating_mul(self.times);
        let before = self.before.as_ref().map_or(0, |before| counter.count_text(before));
        let counted = PutTokens { tokens, before };
        self.counted.lock().push((counter, counted));
        counted
    }

    fn known(&self, counter: TokenCounter) -> Option<PutTokens> {
        let all = self.counted.lock();
        all.iter().find(|(known, _)| *known == counter).map(|(_, counted)| *counted)
    }
}

/// The request as it came.
#[derive(Debug)]
struct Bare {
    request: Arc<InferenceRequest>,
    chat: Chat,
}

/// A translation, made when it is first asked for.
type Chat = OnceLock<Result<Arc<InferenceRequest>, Untranslatable>>;

fn as_chat(request: &InferenceRequest) -> Result<Arc<InferenceRequest>, Untranslatable> {
    let body = chat_of(request.body())?;
    let parsed = InferenceRequest::parse(Endpoint::ChatCompletions, body, Some(request.model.as_str()));
    parsed.map(Arc::new).map_err(Untranslatable::from)
}

/// Words, and where they go in the request. A copy of it with them in it is made when it is first asked for: most
/// deployments are only looked at.
#[derive(Debug)]
struct Worded {
    put: Arc<PutIn>,
    placed: Placed,
    request: OnceLock<Result<Arc<InferenceRequest>, RequestError>>,
    chat: Chat,
}

/// All forms of one request; one that nobody needs is not made.
#[derive(Debug)]
pub(super) struct Forms {
    asked: Bare,
    /// With words in it.
    worded: Vec<Worded>,
    /// Which of them deployments get that don't get it as it came: by their names.
    of: Vec<(Arc<str>, usize)>,
}

/// Whether a deployment can get requests of an endpoint, as they came or translated.
fn is_served(deployment: &Deployment, endpoint: Endpoint) -> bool {
    let translated = endpoint == Endpoint::Responses;
    deployment.serves(endpoint) || (translated && deployment.endpoints.contains(&Endpoint::ChatCompletions))
}

impl Forms {
    /// Of a request as it came, with the prompts of all deployments that it may be sent to.
    ///
    /// # Errors
    ///
    /// When one of them can't be put in.
    pub(super) fn new(asked: InferenceRequest, shelf: &Shelf, asking: Asking<'_>) -> Result<Self, Unput> {
        let asked = Bare { request: Arc::new(asked), chat: OnceLock::new() };
        let mut forms = Self { asked, worded: Vec::new(), of: Vec::new() };
        let takes_words = matches!(
            forms.asked.request.endpoint,
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Completions | Endpoint::Score
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
        let endpoint = self.asked.request.endpoint;
        // what one can't get that is never asked is nobody's fault
        for deployment in asking.deployments().filter(|deployment| is_served(deployment, endpoint)) {
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
                    let at = self.place(words, injection.mode, speaker)?;
                    known.push((injection, speaker, at));
                    at
                }
            };
            self.of.extend(at.map(|at| (Arc::clone(&deployment.name), at)));
        }
        Ok(())
    }

    fn place(&mut self, words: Words, mode: Mode, speaker: Speaker) -> Result<Option<usize>, Unput> {
        let asked = &self.asked.request;
        let Some(placed) = asked.place(words.text(), mode, speaker)? else { return Ok(None) };
        let before = match (mode, asked.endpoint) {
            (Mode::Append, Endpoint::ChatCompletions | Endpoint::Score) => asked.system_message(),
            (Mode::Append, Endpoint::Responses) => asked.instructions(),
            _ => None,
        };
        let before = before.filter(|said| !said.is_empty());
        let put = Arc::new(PutIn { words, times: placed.times(), before, counted: Mutex::default() });
        self.worded.push(Worded { put, placed, request: OnceLock::new(), chat: OnceLock::new() });
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

    fn worded(&self, wording: usize) -> Option<&Worded> {
        wording.checked_sub(1).and_then(|at| self.worded.get(at))
    }

    fn request(&self, wording: usize) -> Result<&Arc<InferenceRequest>, &RequestError> {
        match self.worded(wording) {
            None => Ok(&self.asked.request),
            Some(Worded { placed, request, .. }) => {
                request.get_or_init(|| self.asked.request.with(placed).map(Arc::new)).as_ref()
            }
        }
    }

    /// The request with these words, before any translation: for counting.
    pub(super) fn worded_as(&self, wording: usize) -> &Arc<InferenceRequest> {
        // one that can't be made is not sent
        self.request(wording).unwrap_or(&self.asked.request)
    }

    /// How long it is with these words, bytes.
    pub(super) fn bytes_of(&self, wording: usize) -> u64 {
        let asked = self.asked.request.body().len() as u64;
        self.worded(wording).map_or(asked, |worded| worded.placed.bytes())
    }

    /// How long its longest form is, bytes.
    pub(super) fn most_bytes(&self) -> u64 {
        (0..=self.worded.len()).map(|wording| self.bytes_of(wording)).max().unwrap_or_default()
    }

    /// What to look at to know whether a deployment can serve it: as it came, or translated. Words that are put in are no
    /// part of what a deployment can lack but where it does not take the member that they stand in.
    pub(super) fn look(&self, deployment: &Deployment) -> Result<Arc<InferenceRequest>, Out> {
        match self.comes_as_asked(deployment)? {
            true => Ok(Arc::clone(&self.asked.request)),
            false => self.of(deployment).map(|form| form.request),
        }
    }

    /// Whether a deployment gets it without a translation.
    fn comes_as_asked(&self, deployment: &Deployment) -> Result<bool, Out> {
        let endpoint = self.asked.request.endpoint;
        let as_asked = deployment.serves(endpoint);
        if !is_served(deployment, endpoint) {
            return Err(Out::Endpoint(endpoint.name()));
        }
        let worded = self.wording_of(deployment) > 0;
        if as_asked && worded && endpoint == Endpoint::Responses && deployment.takes_no_instructions() {
            return Err(Out::Unsupported(INSTRUCTIONS.into()));
        }
        Ok(as_asked)
    }

    /// As a deployment gets it.
    pub(super) fn of(&self, deployment: &Deployment) -> Result<Form, Out> {
        let as_asked = self.comes_as_asked(deployment)?;
        let wording = self.wording_of(deployment);
        let worded = self.worded(wording);
        let put = || worded.map(|worded| Arc::clone(&worded.put));
        let request = self.request(wording).map_err(|why| Out::Untranslatable {
            member: why.param().unwrap_or_default().into(),
            why: why.to_string().into(),
        })?;
        if as_asked {
            return Ok(Form { request: Arc::clone(request), translated: false, wording, put: put() });
        }
        let chat = worded.map_or(&self.asked.chat, |worded| &worded.chat);
        match chat.get_or_init(|| as_chat(request)) {
            Ok(request) => Ok(Form { request: Arc::clone(request), translated: true, wording, put: put() }),
            Err(why) => Err(Out::Untranslatable {
                member: why.param.as_str().into(),
                why: why.why.to_string().into(),
            }),
        }
    }
}
