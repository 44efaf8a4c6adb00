//! Between text and tokens.
//!
//! What a user writes is text, whatever it looks like: only the model file's own template may open or close a
//! message. Hence [`Tokenizer`] knows two ways in, and [`ChatTemplate`] marks what came from outside.

mod detokenizer;
mod stops;
mod template;
mod tokenizer;
mod transcript;

pub(super) use template::{ChatTemplate, Message, TemplateError};
pub(super) use tokenizer::{Tokenizer, TokenizerError};
pub(super) use transcript::Transcript;
