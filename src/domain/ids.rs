//! Names and ids, each its own type, checked where it is born.

use std::fmt;
use std::sync::Arc;

/// The id of one request at our door, `req_` and 32 hex digits, the first 12 of them the time; the value of `x-request-id`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Makes the id from the time, ms since 1970 UTC, and 80 random bits: later ids sort behind earlier ones, so that the
    /// ledger's index of them grows at its end.
    pub fn new(at_ms: i64, random: u128) -> Self {
        Self(format!("req_{:012x}{:020x}", at_ms & 0xffff_ffff_ffff, random >> 48).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as text that is shared.
    pub const fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest model name we take, in bytes. Azure and OpenAI names stay far below.
pub const MAX_MODEL_NAME_BYTES: usize = 256;

/// Why a text is no model name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModelNameError {
    /// Nothing in it.
    #[error("a model name can't be empty")]
    Empty,
    /// More than [`MAX_MODEL_NAME_BYTES`].
    #[error("a model name has at most {MAX_MODEL_NAME_BYTES} bytes")]
    TooLong,
    /// Control characters.
    #[error("a model name has no control characters")]
    Control,
}

/// The name a client asks for: 1 to 256 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, ModelNameError> {
        match text {
            "" => Err(ModelNameError::Empty),
            long if long.len() > MAX_MODEL_NAME_BYTES => Err(ModelNameError::TooLong),
            odd if odd.chars().any(char::is_control) => Err(ModelNameError::Control),
            good => Ok(Self(good.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
