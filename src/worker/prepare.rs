//! From a checked request to tokens: what it costs is known here, before it is accepted.

use super::model::Model;
use super::text::{Message, TemplateError, TokenizerError};
use super::wire::{ChatRequest, CompletionRequest, Endpoint, Generation, Prompt, Refusal};

/// A request that the scheduler can take.
pub(super) struct Prepared {
    pub(super) endpoint: Endpoint,
    /// Not empty, all ids known, and at least one position of the context is left.
    pub(super) prompt: Vec<u32>,
    /// The most tokens of the answer: what was asked for, or what is left of the context.
    pub(super) most: usize,
    pub(super) generation: Generation,
}

/// Prepares a chat: renders the model's template, then tokenises.
pub(super) fn chat(model: &Model, body: &[u8]) -> Result<Prepared, Refusal> {
    let request = ChatRequest::parse(body)?;
    check_model(model, &request.model)?;
    let prompt = chat_prompt(model, &request.messages)?;
    prepared(model, Endpoint::Chat, prompt, request.generation)
}

/// Prepares a completion: tokenises, or checks the ids.
pub(super) fn completion(model: &Model, body: &[u8]) -> Result<Prepared, Refusal> {
    let request = CompletionRequest::parse(body)?;
    check_model(model, &request.model)?;
    let prompt = match request.prompt {
        Prompt::Tokens(tokens) => {
            let unknown = tokens.iter().position(|token| *token as usize >= model.tokenizer.vocabulary());
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
            let mut prompt: Vec<u32> = model.tokenizer.beginning().into_iter().collect();
            prompt.extend(model.tokenizer.encode(&text).map_err(|error| broken(&error))?);
            prompt
        }
    };
    if prompt.is_empty() {
        return Err(Refusal::invalid("prompt", "it must not be empty"));
    }
    prepared(model, Endpoint::Completion, prompt, request.generation)
}

fn check_model(model: &Model, asked: &str) -> Result<(), Refusal> {
    if model.is_called(asked) { Ok(()) } else { Err(Refusal::unknown_model(asked)) }
}

/// Refuses what is far too long before any work is spent on it.
fn check_size(model: &Model, text_bytes: usize, endpoint: Endpoint) -> Result<(), Refusal> {
    let fewest = model.tokenizer.fewest(text_bytes);
    if fewest >= model.context {
        return Err(Refusal::context_exceeded(model.context, fewest, endpoint.prompt_member()));
    }
    Ok(())
}

fn chat_prompt(model: &Model, messages: &[Message]) -> Result<Vec<u32>, Refusal> {
    let Some(template) = &model.template else {
        return Err(Refusal::unsupported_value("model", "has no chat template: use /v1/completions"));
    };
    check_size(model, messages.iter().map(|message| message.content.len()).sum(), Endpoint::Chat)?;
    // A message takes a few tokens even when it is empty.
    if messages.len() > model.context {
        return Err(Refusal::context_exceeded(model.context, messages.len(), Endpoint::Chat.prompt_member()));
    }
    let rendered = template.render(messages).map_err(|error| match error {
        TemplateError::Refused(reason) => Refusal::invalid("messages", &reason),
        other => Refusal::invalid("messages", &other.to_string()),
    })?;
    let mut prompt =
        model.tokenizer.encode_rendered(&rendered.text, rendered.guard).map_err(|error| broken(&error))?;
    if let Some(beginning) = model.tokenizer.beginning()
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
    endpoint: Endpoint,
    prompt: Vec<u32>,
    generation: Generation,
) -> Result<Prepared, Refusal> {
    if prompt.len() >= model.context {
        return Err(Refusal::context_exceeded(model.context, prompt.len(), endpoint.prompt_member()));
    }
    let left = model.context - prompt.len();
    let most = generation.most.map_or(left, |most| most.min(left));
    Ok(Prepared { endpoint, prompt, most, generation })
}

fn broken(error: &TokenizerError) -> Refusal {
    tracing::error!(%error, "the tokenizer failed on a request");
    Refusal::failed()
}
