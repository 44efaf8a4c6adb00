//! What a request or a training example says as the system: the messages of the roles `system` and `developer`.

use serde_json::value::RawValue;

use super::InferenceRequest;
use super::members::{all_members, given};
use crate::domain::endpoint::Endpoint;

/// Whether a message, or an item of a response's input, speaks as the system. One that names its role twice does if it
/// says so once: servers differ in which they take.
pub(super) fn is_systems(message: &[u8]) -> bool {
    all_members(message).iter().any(|member| {
        let role = || serde_json::from_slice::<String>(&message[member.value_at.clone()]);
        member.name == "role" && role().is_ok_and(|role| role == "system" || role == "developer")
    })
}

/// The elements of an array as they were written; nothing where it is none.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// The text of the leading messages that speak as the system, joined by line breaks; empty where there is none. Nothing
/// where `messages` is no array.
pub fn system_message(messages: &RawValue) -> Option<String> {
    let messages = elements(messages.get())?;
    let leading = messages.iter().take_while(|message| is_systems(message.get().as_bytes()));
    let texts: Vec<String> = leading.map(|message| text_of(message.get())).collect();
    Some(texts.join("\n"))
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
    /// What it says as the system, empty where that is nothing; none where its endpoint knows no such thing.
    pub fn system_message(&self) -> Option<String> {
        let wanted = match self.endpoint {
            Endpoint::ChatCompletions => "messages",
            Endpoint::Responses => "instructions",
            Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations => return None,
        };
        let members = all_members(&self.body);
        let Some(member) = members.iter().find(|member| member.name == wanted) else {
            return Some(String::new());
        };
        let value: &RawValue = serde_json::from_slice(&self.body[member.value_at.clone()]).ok()?;
        match self.endpoint {
            Endpoint::ChatCompletions => system_message(value),
            _ => given(Some(value)).map_or(Some(String::new()), |text| serde_json::from_str(text).ok()),
        }
    }
}
