//! One row of a training file: what a provider reads in it, and why it would refuse it.
//!
//! Source: OpenAI's guides on supervised, vision and preference fine-tuning and its cookbook's "data preparation and
//! analysis", read on 2026-11-21. Only what the provider refuses is a fault; all else is an oddity, and passes.

mod answers;
mod message;
mod tools;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::report::KEPT_ERRORS;
pub use message::{Message, Role};

/// What kind of example a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `messages` with at least one of the assistant's: supervised fine-tuning, tool calls and images included.
    Chat,
    /// `input` with `preferred_output` and `non_preferred_output`: DPO.
    Preference,
    /// `messages` that end with the user's, and whatever a grader reads.
    Reinforcement,
    /// `prompt` and `completion`, for babbage-002 and davinci-002.
    Completion,
}

impl Format {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Preference => "preference",
            Self::Reinforcement => "reinforcement",
            Self::Completion => "completion",
        }
    }
}

/// What may stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The only format that is taken; none where the row decides.
    pub format: Option<Format>,
    /// Whether the model takes completions.
    pub completions: bool,
    /// Whether the model takes images.
    pub images: bool,
}

/// Why a provider would refuse a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which member, such as `messages[1].role`; empty for the whole row.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// What is unusual about a row but accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    /// A member beside those that the provider reads.
    UnknownMember,
    /// `preferred_completion`, as one description of the API called `preferred_output`.
    PreferredCompletion,
    /// All answers have the weight 0.
    NothingTrained,
    /// The last message is not the assistant's.
    EndsWithoutAnswer,
    /// The arguments of a call are no JSON.
    ArgumentsNoJson,
    /// A tool's message answers no call before it.
    NoSuchCall,
    /// An image, whose tokens are guessed.
    Image,
    /// `functions` or `function_call`.
    OldFunctions,
}

/// A row that a provider takes.
#[derive(Debug)]
pub struct Row<'v> {
    /// What kind of example.
    pub format: Format,
    /// All messages in order; of a preference its input, the preferred and the other answer; of a completion its prompt
    /// and its completion.
    pub messages: Vec<Message<'v>>,
    /// Which of them is the answer that is learned (the last, where there are more); one past the end where none is.
    pub answer_at: usize,
    /// Definitions of tools and functions.
    pub tools: Vec<&'v Json<'v>>,
}

impl Row<'_> {
    /// What the model reads before the answer.
    pub fn prompt(&self) -> &[Message<'_>] {
        &self.messages[..self.answer_at.min(self.messages.len())]
    }

    /// The answer that is learned.
    pub fn answer(&self) -> Option<&Message<'_>> {
        self.messages.get(self.answer_at)
    }

    /// What the leading messages that speak as the system say, joined by line breaks; empty where there are none.
    pub fn system(&self) -> Cow<'_, str> {
        let mut leading = self.messages.iter().take_while(|message| message.role.is_systems());
        let Some(first) = leading.next() else { return Cow::Borrowed("") };
        leading.fold(Cow::Borrowed(&*first.text), |all, next| Cow::Owned(format!("{all}\n{}", next.text)))
    }
}

/// What was seen while a row was read.
#[derive(Debug, Default)]
pub struct Seen {
    /// Why it is refused, the first thousand; none for a row that is taken.
    pub faults: Vec<Fault>,
    /// How many faults there are beyond those.
    pub more_faults: u64,
    /// What is odd about it, each once.
    pub oddities: Vec<Oddity>,
}

impl Seen {
    fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.faults.len() == KEPT_ERRORS {
            self.more_faults += 1;
            return;
        }
        self.faults.push(Fault { path: path.into(), message: message.into() });
    }

    fn odd(&mut self, oddity: Oddity) {
        if !self.oddities.contains(&oddity) {
            self.oddities.push(oddity);
        }
    }
}

/// Reads a row's value; none where it has faults.
pub fn read<'v>(value: &'v Json<'v>, expected: Expected, seen: &mut Seen) -> Option<Row<'v>> {
    if value.object().is_none() {
        seen.fault("", format!("a row is an object, not {}", value.kind()));
        return None;
    }
    let format = format_of(value, expected, seen)?;
    let row = match format {
        Format::Chat | Format::Reinforcement => chat(value, format, expected, seen),
        Format::Preference => answers::preference(value, expected, seen),
        Format::Completion => answers::completion(value, seen),
    };
    row.filter(|_| seen.faults.is_empty())
}

/// Which format a row has by its members. One of another than the expected one is refused.
fn format_of(value: &Json<'_>, expected: Expected, seen: &mut Seen) -> Option<Format> {
    let has = |name: &str| value.get(name).is_some();
    let found = if has("messages") {
        match expected.format {
            Some(Format::Reinforcement) => Some(Format::Reinforcement),
            _ => Some(Format::Chat),
        }
    } else if has("input") || has("preferred_output") || has("preferred_completion") {
        Some(Format::Preference)
    } else if has("prompt") || has("completion") {
        Some(Format::Completion)
    } else {
        None
    };
    if found == Some(Format::Completion) && !expected.completions {
        seen.fault(
            "messages",
            "missing: this model is trained with chats, not with completions; `tunegate dataset convert` makes chats of \
             them",
        );
        return None;
    }
    match (found, expected.format) {
        (Some(found), None) => Some(found),
        (Some(found), Some(wanted)) if found == wanted => Some(found),
        (Some(found), Some(wanted)) => {
            let (found, wanted) = (found.name(), wanted.name());
            seen.fault(
                "",
                format!("this is a {found} row where {wanted} rows are expected: a file has one kind"),
            );
            None
        }
        (None, None | Some(Format::Chat | Format::Reinforcement)) => {
            seen.fault("messages", "missing: a row has a list of messages");
            None
        }
        (None, Some(Format::Preference)) => {
            seen.fault(
                "input",
                "missing: a preference row has `input`, `preferred_output`, `non_preferred_output`",
            );
            None
        }
        (None, Some(Format::Completion)) => {
            seen.fault("prompt", "missing: a completion row has `prompt` and `completion`");
            None
        }
    }
}

/// Members of a chat row that the provider reads.
const CHAT_MEMBERS: [&str; 4] = ["messages", "tools", "parallel_tool_calls", "functions"];

fn chat<'v>(value: &'v Json<'v>, format: Format, expected: Expected, seen: &mut Seen) -> Option<Row<'v>> {
    if format == Format::Chat {
        note_unknown(value, &CHAT_MEMBERS, seen);
    }
    let tools = tools::defined(value, "", seen);
    let list = value.get("messages")?;
    let messages = message::list(list, "messages", &tools, expected, seen)?;
    let last_answer = messages.iter().rposition(|message| message.role == Role::Assistant);
    if format == Format::Chat {
        match last_answer {
            None => seen.fault("messages", "no message of the assistant: there is nothing to learn"),
            Some(at) => {
                if at + 1 < messages.len() {
                    seen.odd(Oddity::EndsWithoutAnswer);
                }
                if messages.iter().all(|message| message.role != Role::Assistant || !message.trained) {
                    seen.odd(Oddity::NothingTrained);
                }
            }
        }
    } else if messages.last().is_some_and(|last| last.role != Role::User) {
        seen.fault("messages", "the last message of a reinforcement row is the user's");
    }
    let answer_at = match format {
        Format::Chat => last_answer.unwrap_or(messages.len()),
        _ => messages.len(),
    };
    Some(Row { format, messages, answer_at, tools: tools.definitions })
}

fn note_unknown(value: &Json<'_>, known: &[&str], seen: &mut Seen) {
    let members = value.object().unwrap_or_default();
    if members.iter().any(|(name, _)| !known.contains(&name.as_ref())) {
        seen.odd(Oddity::UnknownMember);
    }
}

/// A value as it stands in a message to people: short, in quotes where it is a string.
fn shown(value: &Json<'_>) -> String {
    const MOST: usize = 40;
    match value {
        Json::Text(text) => format!("{:?}", text.chars().take(MOST).collect::<String>()),
        Json::List(_) | Json::Object(_) => value.kind().to_owned(),
        other => other.written(),
    }
}

#[cfg(test)]
mod tests;
