//! From a checked request to tokens: what it costs is known here, before it is accepted.

use std::sync::Arc;

use tunegate_engine::adapter::Adapter;
use tunegate_engine::train::Example;

use super::adapters::{Adapters, ShelfError};
use super::model::Model;
use super::text::{ChatTemplate, Message, TemplateError, TokenizerError};
use super::tuning::rows;
use super::wire::{ChatRequest, CompletionRequest, Endpoint, Generation, Prompt, Refusal, ScoreRequest};

/// A request that the scheduler can take.
pub(super) struct Prepared {
    pub(super) endpoint: Endpoint,
    /// The name of the model that answers.
    pub(super) model: String,
    /// What makes it of the base model; none of the base model itself.
    pub(super) adapter: Option<Arc<Adapter>>,
    /// Not empty, all ids known, and at least one position of the context is left.
    pub(super) prompt: Vec<u32>,
    /// The most tokens of the answer: what was asked for, or what is left of the context.
    pub(super) most: usize,
    pub(super) generation: Generation,
}

/// A known answer whose likelihood is asked for.
pub(super) struct Known {
    /// The name of the model that is asked.
    pub(super) model: String,
    /// What makes it of the base model; none of the base model itself.
    pub(super) adapter: Option<Arc<Adapter>>,
    /// The conversation up to the last token that counts, without it. Not empty, within the context.
    pub(super) read: Vec<u32>,
    /// What follows each of them, where that counts.
    pub(super) next: Vec<Option<u32>>,
}

/// What there is to answer with.
#[derive(Clone, Copy)]
pub(super) struct Served<'w> {
    pub(super) model: &'w Model,
    /// None where nothing is trained here.
    pub(super) adapters: Option<&'w Adapters>,
}

impl Served<'_> {
    /// The name of the model that is meant by `asked`, and its adapter. May wait for a disk.
    pub(super) fn find(&self, asked: &str) -> Result<(String, Option<Arc<Adapter>>), Refusal> {
        if self.model.is_called(asked) {
            return Ok((self.model.name.clone(), None));
        }
        let unknown = || Refusal::unknown_model(asked);
        let adapters = self.adapters.ok_or_else(unknown)?;
        let name = adapters.find(asked).ok_or_else(unknown)?.name;
        let loaded = adapters.load(&name).map_err(|error: ShelfError| {
            tracing::error!(%error, "an adapter can't be served");
            Refusal::broken_adapter(&name, &error.to_string())
        })?;
        Ok((name, Some(loaded.ok_or_else(unknown)?)))
    }
}

/// Prepares a chat: renders the model's template, then tokenises.
pub(super) fn chat(served: Served<'_>, body: &[u8]) -> Result<Prepared, Refusal> {
    let request = ChatRequest::parse(body)?;
    let found = served.find(&request.model)?;
    let prompt = chat_prompt(served.model, &request.messages)?;
    prepared(served.model, found, Endpoint::Chat, prompt, request.generation)
}

/// Prepares a completion: tokenises, or checks the ids.
pub(super) fn completion(served: Served<'_>, body: &[u8]) -> Result<Prepared, Refusal> {
    let request = CompletionRequest::parse(body)?;
    let found = served.find(&request.model)?;
    let model = served.model;
    let prompt = match request.prompt {
        Prompt::Tokens(tokens) => {
            let unknown =
                tokens.iter().position(|token| *token as usize >= model.texts.tokenizer.vocabulary());
            if let Some(at) = unknown {
                return Err(Refusal::invalid(
                    &format!("prompt[{at}]"),
                    "the token id is outside the vocabulary",
                ));
            }
            tokens
        }
        Prompt::Text(text) => {
            check_size(model, text.len(), Endpoint::Completion)?;
            let mut prompt: Vec<u32> = model.texts.tokenizer.beginning().into_iter().collect();
            prompt.extend(model.texts.tokenizer.encode(&text).map_err(|error| broken(&error))?);
            prompt
        }
    };
    if prompt.is_empty() {
        return Err(Refusal::invalid("prompt", "it must not be empty"));
    }
    prepared(model, found, Endpoint::Completion, prompt, request.generation)
}

/// Prepares the scoring of a chat's last message: the tokens that a training would learn, and no others, count.
pub(super) fn score(served: Served<'_>, body: &[u8]) -> Result<Known, Refusal> {
    let ScoreRequest { model: asked, messages } = ScoreRequest::parse(body)?;
    let (name, adapter) = served.find(&asked)?;
    let model = served.model;
    check_chat(model, &messages)?;
    let example = rows::example(&model.texts, &messages, &[messages.len() - 1])
        .map_err(|why| Refusal::invalid("messages", &why))?;
    let (read, next) = foretold(example);
    if read.is_empty() {
        return Err(Refusal::invalid("messages", "they render to nothing"));
    }
    if read.len() > model.context {
        return Err(Refusal::context_exceeded(model.context, read.len(), Endpoint::Chat.prompt_member()));
    }
    Ok(Known { model: name, adapter, read, next })
}

/// What is read of an example, and what of it is to be foretold from that; nothing behind the last token that counts.
fn foretold(Example { tokens: mut read, weights }: Example) -> (Vec<u32>, Vec<Option<u32>>) {
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or_default();
    let next = (1..=last).map(|at| (weights[at] > 0.0).then_some(read[at])).collect();
    read.truncate(last);
    (read, next)
}

/// Refuses what is far too long before any work is spent on it.
fn check_size(model: &Model, text_bytes: usize, endpoint: Endpoint) -> Result<(), Refusal> {
    let fewest = model.texts.tokenizer.fewest(text_bytes);
    if fewest >= model.context {
        return Err(Refusal::context_exceeded(model.context, fewest, endpoint.prompt_member()));
    }
    Ok(())
}

/// Refuses messages that are far too long, or that the model can't be asked; returns what renders them.
fn check_chat<'m>(model: &'m Model, messages: &[Message]) -> Result<&'m ChatTemplate, Refusal> {
    let Some(template) = &model.texts.template else {
        return Err(Refusal::unsupported_value("model", "has no chat template: use /v1/completions"));
    };
    check_size(model, messages.iter().map(|message| message.content.len()).sum(), Endpoint::Chat)?;
    // A message takes a few tokens even when it is empty.
    if messages.len() > model.context {
        return Err(Refusal::context_exceeded(model.context, messages.len(), Endpoint::Chat.prompt_member()));
    }
    Ok(template)
}

fn chat_prompt(model: &Model, messages: &[Message]) -> Result<Vec<u32>, Refusal> {
    let template = check_chat(model, messages)?;
    let rendered = template.render(messages).map_err(|error| match error {
        TemplateError::Refused(reason) => Refusal::invalid("messages", &reason),
        other => Refusal::invalid("messages", &other.to_string()),
    })?;
    let mut prompt = model
        .texts
        .tokenizer
        .encode_rendered(&rendered.text, rendered.guard)
        .map_err(|error| broken(&error))?;
    if let Some(beginning) = model.texts.tokenizer.beginning()
        && prompt.first() != Some(&beginning)
    {
        prompt.insert(0, beginning);
    }
    if prompt.is_empty() {
        return Err(Refusal::invalid("messages", "they render to nothing"));
    }
    Ok(prompt)
}

fn prepared(
    model: &Model,
    (name, adapter): (String, Option<Arc<Adapter>>),
    endpoint: Endpoint,
    prompt: Vec<u32>,
    generation: Generation,
) -> Result<Prepared, Refusal> {
    if prompt.len() >= model.context {
        return Err(Refusal::context_exceeded(model.context, prompt.len(), endpoint.prompt_member()));
    }
    let left = model.context - prompt.len();
    let most = generation.most.map_or(left, |most| most.min(left));
    Ok(Prepared { endpoint, model: name, adapter, prompt, most, generation })
}

fn broken(error: &TokenizerError) -> Refusal {
    tracing::error!(%error, "the tokenizer failed on a request");
    Refusal::failed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_foretold_from_what_stands_before_it() {
        for (tokens, weights, read, next) in [
            (
                &[5, 6, 7, 8, 9][..],
                &[0.0, 0.0, 1.0, 1.0, 0.0][..],
                &[5, 6, 7][..],
                &[None, Some(7), Some(8)][..],
            ),
            (&[5, 6, 7], &[0.0, 1.0, 0.0], &[5], &[Some(6)]),
            (&[5, 6], &[1.0, 0.0], &[], &[]),
            (&[5, 6], &[0.0, 0.0], &[], &[]),
        ] {
            let found = foretold(Example { tokens: tokens.to_vec(), weights: weights.to_vec() });
            assert_eq!(found, (read.to_vec(), next.to_vec()), "{tokens:?} {weights:?}");
        }
    }
}
