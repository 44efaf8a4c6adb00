//! What a request or a training example says as the system: the messages of the roles `system` and `developer`.

use serde_json::value::RawValue;

use super::InferenceRequest;
use super::members::{Member, all_members, given, members_of};
use crate::domain::endpoint::Endpoint;

/// Whether a message, or an item of a response's input, speaks as the system; none where it can't be read. One that names
/// its role twice does if it says so once: servers differ in which they take.
pub(super) fn is_systems(message: &[u8]) -> Option<bool> {
    let members = members_of(message).ok()?;
    let says_so = |member: &Member<'_>| {
        let role = serde_json::from_slice::<String>(&message[member.value_at.clone()]);
        member.name == "role" && role.is_ok_and(|role| role == "system" || role == "developer")
    };
    Some(members.iter().any(says_so))
}

/// The elements of an array as they were written; nothing where it is none.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// The text of the leading messages that speak as the system, joined by line breaks; empty where there is none. Nothing
/// where `messages` is no array.
pub fn system_message(messages: &RawValue) -> Option<String> {
    Some(leading(elements(messages.get())?).join("\n"))
}

/// What each of the leading messages, or items of an input, that speak as the system says.
fn leading(messages: Vec<&RawValue>) -> Vec<String> {
    let speaks = |message: &&RawValue| is_systems(message.get().as_bytes()) == Some(true);
    messages.into_iter().take_while(speaks).map(|message| text_of(message.get())).collect()
}

/// What a message says: its text, or the texts of its parts one behind the other.
fn text_of(message: &str) -> String {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<Part>),
    }
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(default)]
        text: String,
    }
    let members = all_members(message.as_bytes());
    let content = members.iter().rfind(|member| member.name == "content");
    let content = content.and_then(|content| serde_json::from_str(&message[content.value_at.clone()]).ok());
    match content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => parts.into_iter().map(|part| part.text).collect(),
        None => String::new(),
    }
}

impl InferenceRequest {
    /// What it says as the system, empty where that is nothing; none where its endpoint knows no such thing. Of a response
    /// that is its instructions, and the items that its input begins with.
    pub fn system_message(&self) -> Option<String> {
        match self.endpoint {
            Endpoint::ChatCompletions | Endpoint::Score => match self.value_of("messages") {
                Some(messages) => system_message(messages),
                None => Some(String::new()),
            },
            Endpoint::Responses => {
                let own = self.instructions()?;
                let items = self.value_of("input").and_then(|input| elements(input.get()));
                let said = items.map(leading).unwrap_or_default();
                let all = Some(own).filter(|own| !own.is_empty()).into_iter().chain(said);
                Some(all.collect::<Vec<_>>().join("\n"))
            }
            Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations => None,
        }
    }

    /// A response's `instructions`, empty where there are none; none where they are no text.
    pub fn instructions(&self) -> Option<String> {
        let Some(written) = given(self.value_of("instructions")) else { return Some(String::new()) };
        serde_json::from_str(written).ok()
    }

    fn value_of(&self, name: &str) -> Option<&RawValue> {
        let members = all_members(&self.body);
        let member = members.iter().find(|member| member.name == name)?;
        serde_json::from_slice(&self.body[member.value_at.clone()]).ok()
    }
}
