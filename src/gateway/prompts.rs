//! Stored prompts in the line: which one a request gets, with which values, and what it says then.
//!
//! A request reads one shelf, swapped whole when prompts change. Words are rendered before anybody is asked: a request that
//! can't be given its prompt is refused, and never sent without it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::domain::catalog::{Deployment, ProviderKind, Resolved};
use crate::domain::key::Terms;
use crate::domain::model_name::makes_unseen_tokens;
use crate::domain::outcome::Blamed;
use crate::domain::prompt::hash::sha256_of;
use crate::domain::prompt::template::{InvalidValues, RenderError, Template, Values};
use crate::domain::prompt::{Injection, Mode, PromptBook, PromptRef, PromptVersion, Role, TrainedWith};
use crate::domain::request::{Speaker, Unfit};
use crate::domain::tokens::{QUICK_BYTES, TokenCounter};

/// Where requests find the prompts of this moment.
#[derive(Default)]
pub struct LivePrompts {
    shelf: ArcSwap<Shelf>,
}

impl LivePrompts {
    /// Puts other prompts in force. Versions that were there are not compiled again: they never change.
    pub fn publish(&self, book: PromptBook) {
        let before = self.shelf.load();
        let versions = book.prompts.values().flat_map(|prompt| prompt.versions.values());
        let ready = versions.map(|version| {
            let place = (Arc::clone(&version.prompt), version.number);
            let known = before.ready.get(&place).filter(|known| known.version == *version);
            (place, known.cloned().unwrap_or_else(|| Arc::new(Ready::new(version))))
        });
        let ready = ready.collect();
        self.shelf.store(Arc::new(Shelf { book, ready }));
    }

    /// The prompts of this moment.
    pub fn load(&self) -> Arc<Shelf> {
        self.shelf.load_full()
    }
}

/// All prompts at one moment, ready to be rendered.
#[derive(Default)]
pub struct Shelf {
    book: PromptBook,
    ready: HashMap<(Arc<str>, u32), Arc<Ready>>,
}

impl Shelf {
    fn find(&self, wanted: &PromptRef) -> Option<&Arc<Ready>> {
        let version = self.book.find(wanted)?;
        self.ready.get(&(Arc::clone(&version.prompt), version.number))
    }

    /// The prompts themselves.
    pub const fn book(&self) -> &PromptBook {
        &self.book
    }
}

/// One version.
struct Ready {
    version: Arc<PromptVersion>,
    /// As it is told: `support@3`.
    told: Arc<str>,
    /// None where it does not compile: such a one is not stored, but may have been by another release.
    template: Option<Template>,
    /// How many tokens its words are, where they are always the same.
    counted: Mutex<Vec<(TokenCounter, u64)>>,
}

impl Ready {
    fn new(version: &Arc<PromptVersion>) -> Self {
        let template = Template::compile(&version.text, &version.variables);
        if let Err(error) = &template {
            tracing::error!(prompt = %version.prompt, version = version.number, "it can't be put in: {error}");
        }
        Self {
            version: Arc::clone(version),
            told: format!("{}@{}", version.prompt, version.number).into(),
            template: template.ok(),
            counted: Mutex::default(),
        }
    }
}

/// What a request says about stored prompts.
#[derive(Debug, Default)]
pub(super) struct PromptWish {
    /// The one it names.
    named: Option<String>,
    /// Values of its body, then of its header: the first counts.
    values: Vec<Map<String, Value>>,
}

impl PromptWish {
    /// Reads what came in headers and in the body's `metadata.tunegate`.
    pub(super) fn read(
        named: Option<String>,
        header: Option<&str>,
        body: Option<Value>,
    ) -> Result<Self, Unput> {
        let mut values = Vec::new();
        if let Some(body) = body {
            values.push(Values::read(body).map_err(|why| Unput::Values("metadata.tunegate", why))?);
        }
        if let Some(header) = header {
            values.push(Values::read_text(header).map_err(|why| Unput::Values("x-tunegate-variables", why))?);
        }
        Ok(Self { named, values })
    }
}

/// Why a stored prompt is not put in. Nothing is sent without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unput {
    /// The request names one that is not there.
    #[error(
        "there is no stored prompt `{0}`: write NAME, NAME@LABEL or NAME@NUMBER of one that you may name"
    )]
    Unknown(String),
    /// The request names one that its key may not.
    #[error("this key may not name the stored prompt `{0}`: its operator says which it may")]
    NotAllowed(String),
    /// The model's own prompt is not there: its operator's fault.
    #[error(
        "the stored prompt `{0}` that this model is sent with is not there, and nothing is sent without it: its operator \
         has to store it, or to set its label"
    )]
    Absent(String),
    /// The values are none.
    #[error("{0}: {1}")]
    Values(&'static str, InvalidValues),
    /// They don't fit the variables.
    #[error("{error}: give values in the body's `metadata.tunegate` or in the header `x-tunegate-variables`")]
    Render {
        /// Which version.
        prompt: Arc<str>,
        /// What is wrong.
        error: RenderError,
    },
    /// There is no place for it in the request.
    #[error("{0}")]
    Unfit(#[from] Unfit),
}

impl Unput {
    /// The code in the client's envelope.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) | Self::Absent(_) => "prompt_not_found",
            Self::NotAllowed(_) => "prompt_not_allowed",
            Self::Render { error: RenderError::Missing(_), .. } => "prompt_variable_missing",
            Self::Values(..) | Self::Render { .. } => "prompt_variable_invalid",
            Self::Unfit(_) => "prompt_unfit",
        }
    }

    /// What of the request to point at.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Unknown(_) | Self::NotAllowed(_) => Some("x-tunegate-prompt"),
            Self::Absent(_) => None,
            Self::Values(place, _) => Some(place),
            Self::Render { error, .. } => error.variable(),
            Self::Unfit(why) => why.param(),
        }
    }

    /// Whose fault it is, where it is not the sender's.
    pub const fn blames(&self) -> Option<Blamed> {
        match self {
            Self::Absent(_) => Some(Blamed::Gateway),
            _ => None,
        }
    }
}

/// Words for one request.
pub(super) struct Words {
    ready: Arc<Ready>,
    text: Arc<str>,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // no word of a prompt: values may be in it
        f.debug_struct("Words").field("prompt", &self.ready.told).finish_non_exhaustive()
    }
}

impl Words {
    /// Which version they are: `support@3`.
    pub(super) fn prompt(&self) -> &Arc<str> {
        &self.ready.told
    }

    /// The prompt's name alone.
    pub(super) fn name(&self) -> &str {
        &self.ready.version.prompt
    }

    /// What they say.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How many tokens they are.
    pub(super) fn tokens(&self, counter: TokenCounter) -> u64 {
        if let Some(tokens) = self.known(counter) {
            return tokens;
        }
        let tokens = counter.count_text(&self.text);
        if self.are_fixed() {
            self.ready.counted.lock().push((counter, tokens));
        }
        tokens
    }

    /// Whether they are counted in less time than another thread takes to take over.
    pub(super) fn is_quick(&self, counter: TokenCounter) -> bool {
        self.text.len() <= QUICK_BYTES || self.known(counter).is_some()
    }

    /// Whether they are the same each time.
    fn are_fixed(&self) -> bool {
        self.ready.template.as_ref().is_some_and(|template| !template.has_variables())
    }

    fn known(&self, counter: TokenCounter) -> Option<u64> {
        let all = self.ready.counted.lock();
        let found = all.iter().find(|(known, _)| *known == counter).map(|(_, tokens)| *tokens);
        found.filter(|_| self.are_fixed())
    }
}

/// Whose request it is, where it leads, and what it says about prompts.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) terms: &'a Terms,
    pub(super) resolved: &'a Resolved,
    pub(super) wish: &'a PromptWish,
}

impl Asking<'_> {
    /// Whether any of its deployments gets a prompt.
    pub(super) fn gets_any(&self) -> bool {
        let own = |deployment: &Arc<Deployment>| deployment.prompt.is_some();
        self.wish.named.is_some() || self.resolved.route.prompt.is_some() || self.deployments().any(own)
    }

    /// All deployments that it may be sent to.
    pub(super) fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let model = &self.resolved.model;
        let set_aside = model.longer_context.iter().chain(&model.content_filtered);
        std::iter::once(&self.resolved.route).chain(set_aside).flat_map(|route| &route.deployments)
    }

    /// The prompt that it names itself.
    pub(super) fn named(&self, shelf: &Shelf) -> Result<Option<PromptRef>, Unput> {
        let Some(text) = &self.wish.named else { return Ok(None) };
        let named = PromptRef::parse(text).ok_or_else(|| Unput::Unknown(text.clone()))?;
        if !self.terms.prompts.allows(&named.name) {
            return Err(Unput::NotAllowed(text.clone()));
        }
        match shelf.find(&named) {
            Some(_) => Ok(Some(named)),
            None => Err(Unput::Unknown(text.clone())),
        }
    }

    /// What a deployment gets. A prompt that the request names stands in its place, as it would have been put in.
    pub(super) fn injection(&self, deployment: &Deployment, named: Option<&PromptRef>) -> Option<Injection> {
        let own = deployment.prompt.as_ref().or(self.resolved.route.prompt.as_ref());
        match (named, own) {
            (None, own) => own.map(|own| (**own).clone()),
            (Some(named), Some(own)) => Some(Injection { prompt: named.clone(), ..(**own).clone() }),
            (Some(named), None) => {
                Some(Injection { prompt: named.clone(), mode: Mode::Prepend, role: Role::Auto })
            }
        }
    }

    /// A prompt's words with this request's values.
    pub(super) fn words(&self, shelf: &Shelf, wanted: &PromptRef) -> Result<Words, Unput> {
        let ready = shelf.find(wanted).ok_or_else(|| Unput::Absent(wanted.to_string()))?;
        let template = ready.template.as_ref().ok_or_else(|| Unput::Absent(ready.told.to_string()))?;
        let rendered = template.render(&self.values(template));
        let text = rendered.map_err(|error| Unput::Render { prompt: Arc::clone(&ready.told), error })?;
        Ok(Words { ready: Arc::clone(ready), text })
    }

    /// What was given for the variables of a prompt; everything else that was given is not touched.
    fn values(&self, of: &Template) -> Values {
        let said = self.wish.values.iter().fold(Values::default(), |values, more| {
            let named = |name: &Arc<str>| Some((Arc::clone(name), more.get(&**name)?.clone()));
            values.or(of.names().filter_map(named))
        });
        said.or(self.terms.variables.iter().map(|(name, value)| (Arc::clone(name), value.clone())))
    }
}

/// Who speaks the words on a deployment: reasoning models of OpenAI take developers' messages for what systems' were.
pub(super) fn speaker(role: Role, deployment: &Deployment, upstream_model: &str) -> Speaker {
    match role {
        Role::System => Speaker::System,
        Role::Developer => Speaker::Developer,
        Role::Auto => {
            let openais =
                matches!(deployment.provider.dialect.kind(), ProviderKind::OpenAi | ProviderKind::Azure);
            let identity = deployment.base_model.as_deref().unwrap_or(upstream_model);
            match openais && makes_unseen_tokens(identity) {
                true => Speaker::Developer,
                false => Speaker::System,
            }
        }
    }
}

/// Whether what is said as the system is other than what a model was trained with; none where that can't be known.
pub(super) fn is_mismatch(
    shelf: &Shelf,
    trained: &TrainedWith,
    said: Option<&str>,
    words: Option<&Words>,
) -> Option<bool> {
    let said = said?;
    Some(match trained {
        TrainedWith::Words(sha256) => sha256_of(said) != **sha256,
        TrainedWith::Version(wanted) => {
            let version = shelf.book.find(wanted)?;
            match words {
                // the same version with other values is the same prompt
                Some(words) if *words.ready.version == **version => said != words.text(),
                _ => sha256_of(said) != *version.sha256,
            }
        }
    })
}
