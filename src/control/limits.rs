//! Limits and tags as operators write them, of keys and of teams alike.

use serde_json::{Value, json};

use super::form::{Form, Given};
use crate::domain::label::{TAG_RULE, tag_is_good};
use crate::domain::limit::{MAX_QUOTA, RateLimits};

/// What an operator wants of limits; what was left out is none.
#[derive(Default)]
pub(super) struct LimitsChange {
    requests_per_minute: Given<u64>,
    tokens_per_minute: Given<u64>,
    concurrent: Given<u64>,
}

impl LimitsChange {
    /// Reads the member `limits`.
    pub(super) fn read(form: &Form<'_>) -> Self {
        let read = form.object("limits", |limits| Self {
            requests_per_minute: limits.number("requests_per_minute", 1..=MAX_QUOTA),
            tokens_per_minute: limits.number("tokens_per_minute", 1..=MAX_QUOTA),
            concurrent: limits.number("concurrent", 1..=MAX_QUOTA),
        });
        let none =
            Self { requests_per_minute: Some(None), tokens_per_minute: Some(None), concurrent: Some(None) };
        read.map_or_else(Self::default, |limits| limits.unwrap_or(none))
    }

    /// The limits with these changes.
    pub(super) fn applied_to(self, limits: RateLimits) -> RateLimits {
        RateLimits {
            requests_per_minute: self.requests_per_minute.unwrap_or(limits.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(limits.tokens_per_minute),
            concurrent: self.concurrent.unwrap_or(limits.concurrent),
        }
    }
}

/// Limits as operators read and write them.
pub(super) fn limits_json(limits: &RateLimits) -> Value {
    json!({
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
    })
}

/// Reads a tag.
pub(super) fn tag(text: &str) -> Result<String, &'static str> {
    if tag_is_good(text) { Ok(text.to_owned()) } else { Err(TAG_RULE) }
}
