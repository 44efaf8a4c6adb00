//! OpenAI's wire: what a request may say, and the exact shape of answers and errors.
//!
//! A request is honoured to the letter or refused: nothing it asks for is dropped in silence. Only parameters that
//! cannot change the answer (`user`, `metadata`, …) are accepted and ignored.

mod answer;
mod chat;
mod completion;
mod embedding;
mod fields;
mod generation;
mod refusal;
mod score;

pub(super) use answer::{Answer, Endpoint, FinishReason, ModelList, ModelObject, Usage};
pub(super) use chat::ChatRequest;
pub(super) use completion::{CompletionRequest, Prompt};
pub(super) use embedding::{EmbeddingRequest, VectorForm, embeddings_json};
pub(super) use fields::model_of;
pub(super) use generation::Generation;
pub(super) use refusal::Refusal;
pub(super) use score::{Score, ScoreRequest};
