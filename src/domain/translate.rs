//! Stateless Responses requests for a deployment that speaks only chat completions: the request becomes a chat
//! completion that asks the same, its answer, whole or streamed, becomes a response.
//!
//! Nothing is lost silently. A member that no chat completion can ask for is refused by its name, an unknown one too.
//! Texts, schemas and numbers travel as they were written: members are moved, their values stay the same bytes.
//!
//! Source: OpenAI API 2.3.0, `CreateResponse`, `CreateChatCompletionRequest`, `Response`, `ResponseStreamEvent`.

mod answer;
mod chat;
mod echo;
mod input;
mod object;
mod request;
mod stream;
mod text;
mod tools;
mod whole;

use std::fmt;

use super::request::RequestError;

pub use echo::Echo;
pub use request::chat_of;
pub use stream::ResponsesStream;
pub use whole::{Unreadable, response_of};

/// A member of a Responses request that no chat completion can ask for: the client's to leave out, or to send to a
/// model whose deployments serve Responses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{param}' can't be asked of a deployment that speaks only chat completions: {why}")]
pub struct Untranslatable {
    /// The path of the member, such as `tools[1].type`.
    pub param: String,
    /// Why not.
    pub why: Why,
}

/// Why a member can't be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Chat completions have no equal of it.
    NoEqual,
    /// It names what a provider has stored.
    Stored,
    /// It asks that the answer be stored.
    CanNotStore,
    /// A thought of the turn that goes on.
    Thought,
    /// It is needed and not there.
    Missing,
    /// It is of another type than this.
    Expected(&'static str),
    /// It is there twice.
    Twice,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEqual => f.write_str("chat completions have no equal of it; leave it out"),
            Self::Stored => f.write_str("it names what a provider has stored; send the content itself"),
            Self::CanNotStore => {
                f.write_str("the answer can't be stored there; leave it out or set it to false")
            }
            Self::Thought => {
                f.write_str("thoughts of the turn that goes on can't be handed over; leave it out")
            }
            Self::Missing => f.write_str("it is missing"),
            Self::Expected(expected) => write!(f, "expected {expected}"),
            Self::Twice => f.write_str("it is given twice; give it once"),
        }
    }
}

impl From<RequestError> for Untranslatable {
    fn from(error: RequestError) -> Self {
        Self { param: error.param().unwrap_or("input").to_owned(), why: Why::NoEqual }
    }
}

#[cfg(test)]
mod tests;
