//! Stored prompts: words with variables, under a name, in numbered versions that never change, and labels that point at
//! one of them. A fine-tuned model answers best with the very words it was trained with.

pub mod cost;
pub mod fidelity;
pub mod hash;
pub mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::label::alias_is_good;
use super::money::Usd;

/// The rule of prompts' names and labels, in words.
pub const NAME_RULE: &str =
    "1 to 64 of A-Z a-z 0-9 . _ -, and not a number alone: a number behind the @ is a version";
/// The label that a prompt is taken by where nothing else is said.
pub const PRODUCTION: &str = "production";
/// Longest text of a version, bytes.
pub const MAX_TEXT_BYTES: usize = 256 << 10;
/// Most variables of one version.
pub const MAX_VARIABLES: usize = 64;
/// Most versions of one prompt.
pub const MAX_VERSIONS: u32 = 10_000;

/// Whether a text can name a prompt or a label.
pub fn name_is_good(name: &str) -> bool {
    alias_is_good(name, "@") && !name.bytes().all(|byte| byte.is_ascii_digit())
}

/// One version of a prompt; it never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptVersion {
    /// The prompt's name.
    pub prompt: Arc<str>,
    /// 1, 2, 3, …
    pub number: u32,
    /// The words, with variables in them.
    pub text: Arc<str>,
    /// What stands in the words, in written order, each name once.
    pub variables: Vec<Variable>,
    /// SHA-256 of the words, 64 hex digits.
    pub sha256: Arc<str>,
    /// Who wrote it.
    pub author: Arc<str>,
    /// Why.
    pub note: Arc<str>,
    /// When it was made, ms since 1970 UTC.
    pub created_at_ms: i64,
}

/// What a variable holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableKind {
    /// A text.
    #[default]
    Text,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list of texts.
    List,
}

impl VariableKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Number, Self::Boolean, Self::List];

    /// The name in rows, files and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
        }
    }

    /// Reads back what [`VariableKind::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A value of this kind with nothing in it.
    pub fn empty(self) -> Value {
        match self {
            Self::Text => "".into(),
            Self::Number => 0.into(),
            Self::Boolean => false.into(),
            Self::List => Value::Array(Vec::new()),
        }
    }
}

/// A variable of a version's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name: a letter or `_`, then letters, digits and `_`, 64 at most.
    pub name: Arc<str>,
    /// What it holds.
    #[serde(default, rename = "type")]
    pub kind: VariableKind,
    /// What it holds where nobody says; without it somebody has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// A prompt with all its versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    /// By their numbers.
    pub versions: BTreeMap<u32, Arc<PromptVersion>>,
    /// Which version each label points at.
    pub labels: BTreeMap<Arc<str>, u32>,
}

/// Which version of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pick {
    /// The one that a label points at.
    Label(Arc<str>),
    /// The one with a number.
    Version(u32),
}

/// A prompt and which version of it: `support`, `support@candidate`, `support@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptRef {
    /// The prompt's name.
    pub name: Arc<str>,
    /// Which version.
    pub pick: Pick,
}

impl PromptRef {
    /// Reads `NAME`, `NAME@LABEL` or `NAME@NUMBER`; nothing where it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, pick) = match text.split_once('@') {
            None => (text, Pick::Label(PRODUCTION.into())),
            Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, Pick::Version(number.parse().ok().filter(|number| *number > 0)?))
            }
            Some((name, label)) if name_is_good(label) => (name, Pick::Label(label.into())),
            Some(_) => return None,
        };
        name_is_good(name).then(|| Self { name: name.into(), pick })
    }
}

impl fmt::Display for PromptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pick {
            Pick::Label(label) => write!(f, "{}@{label}", self.name),
            Pick::Version(number) => write!(f, "{}@{number}", self.name),
        }
    }
}

/// Where the words go beside what the client says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Before all of it.
    Prepend,
    /// Behind the client's own instructions.
    Append,
    /// Instead of the client's own instructions.
    Replace,
    /// Where the client brings no instructions of its own.
    #[default]
    IfAbsent,
}

/// Who speaks the words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// As the model wants: `developer` for OpenAI's reasoning models, else `system`.
    #[default]
    Auto,
    /// `system`.
    System,
    /// `developer`.
    Developer,
}

/// Which prompt is put in, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Injection {
    /// Which.
    pub prompt: PromptRef,
    /// Where.
    pub mode: Mode,
    /// As whom.
    pub role: Role,
}

/// What a fine-tuned model was trained with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainedWith {
    /// SHA-256 of the training file's system message, 64 hex digits in lower case.
    Words(Arc<str>),
    /// A stored version.
    Version(PromptRef),
}

/// What a request's put-in words were, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// Which version: `support@3`.
    pub prompt: Arc<str>,
    /// How many tokens they are.
    pub tokens: u64,
    /// The part of the request's cost that they are.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
}

/// All prompts at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptBook {
    /// By name.
    pub prompts: BTreeMap<Arc<str>, Prompt>,
}

impl PromptBook {
    /// The version that is meant, if there is one.
    pub fn find(&self, wanted: &PromptRef) -> Option<&Arc<PromptVersion>> {
        let prompt = self.prompts.get(&wanted.name)?;
        let number = match &wanted.pick {
            Pick::Label(label) => prompt.labels.get(label)?,
            Pick::Version(number) => number,
        };
        prompt.versions.get(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_a_label_or_a_version() {
        for (text, read) in [
            ("support", Some("support@production")),
            ("support@candidate", Some("support@candidate")),
            ("support@3", Some("support@3")),
            ("support@0", None),
            ("support@", None),
            ("support@a b", None),
            ("3", None),
            ("support@3@4", None),
            ("", None),
        ] {
            assert_eq!(PromptRef::parse(text).map(|found| found.to_string()).as_deref(), read, "{text}");
        }
    }
}
