//! Which models, and which stored prompts, a key may ask for.

use std::sync::Arc;

use super::ids::{ModelName, ModelNameError};
use super::prompt::name_is_good;

/// Most names and patterns on one key.
pub const MAX_ALLOWED: usize = 256;

/// Why a text is no name or pattern of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No model can have that name.
    #[error(transparent)]
    Name(#[from] ModelNameError),
    /// More than one `*`.
    #[error("a pattern has one `*`")]
    Stars,
}

/// The names that a key may ask for, exact or with one `*`; none of them stands for all models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedModels(Vec<ModelName>);

impl AllowedModels {
    /// From checked patterns; sorted, each once.
    pub fn new(mut patterns: Vec<ModelName>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        Self(patterns)
    }

    /// Checks one name or pattern.
    pub fn pattern(text: &str) -> Result<ModelName, PatternError> {
        let name = ModelName::parse(text)?;
        if text.matches('*').count() > 1 {
            return Err(PatternError::Stars);
        }
        Ok(name)
    }

    /// Whether a client that asks for this name may have it.
    pub fn allows(&self, asked: &ModelName) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| fits(pattern.as_str(), asked.as_str()))
    }

    /// The names and patterns as text; none for all models.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(ModelName::as_str)
    }
}

/// The stored prompts that a key's requests may name themselves, exact or with one `*`; none of them stands for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedPrompts(Vec<Arc<str>>);

impl AllowedPrompts {
    /// From checked patterns; sorted, each once.
    pub fn new(mut patterns: Vec<Arc<str>>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        Self(patterns)
    }

    /// Checks one name or pattern.
    pub fn pattern(text: &str) -> Option<Arc<str>> {
        let without_star = text.replacen('*', "x", 1);
        name_is_good(&without_star).then(|| text.into())
    }

    /// Whether a request may name this prompt.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, name))
    }

    /// The names and patterns as text; none for no prompt.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (patterns, asked, allowed) in [
            (&[][..], "anything", true),
            (&["support-bot"], "support-bot", true),
            (&["support-bot"], "support-bot-2", false),
            (&["a", "openai/*"], "openai/gpt-4o", true),
            (&["openai/*"], "azure/gpt-4o", false),
            (&["ft:*:acme"], "ft:gpt-4.1:acme", true),
            (&["ab*ba"], "aba", false),
            (&["ab*ba"], "abba", true),
            (&["*"], "x", true),
            (&["Support-bot"], "support-bot", false),
        ] {
            let patterns = patterns.iter().map(|text| AllowedModels::pattern(text).expect("a pattern"));
            let models = AllowedModels::new(patterns.collect());
            assert_eq!(
                models.allows(&ModelName::parse(asked).expect("a name")),
                allowed,
                "{models:?} {asked}"
            );
        }
        assert_eq!(AllowedModels::pattern("a*b*"), Err(PatternError::Stars));
        assert_eq!(AllowedModels::pattern(""), Err(PatternError::Name(ModelNameError::Empty)));
    }

    #[test]
    fn no_prompt_is_allowed_unless_it_is_said() {
        let allowed = |patterns: &[&str]| {
            AllowedPrompts::new(
                patterns.iter().map(|text| AllowedPrompts::pattern(text).expect("a pattern")).collect(),
            )
        };
        for (patterns, name, may) in [
            (&[][..], "support", false),
            (&["support"], "support", true),
            (&["support"], "support-2", false),
            (&["support-*"], "support-2", true),
            (&["*"], "anything", true),
        ] {
            assert_eq!(allowed(patterns).allows(name), may, "{patterns:?} {name}");
        }
        for text in ["a b", "**", "", "a@1"] {
            assert_eq!(AllowedPrompts::pattern(text), None, "{text}");
        }
    }
}
