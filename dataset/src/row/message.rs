//! The messages of a row.

use std::borrow::Cow;
use std::collections::HashSet;

use super::tools::{self, Tools};
use super::{Expected, Oddity, Seen, shown};
use crate::json::Json;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The system, as older models call it.
    System,
    /// The same, as newer models call it.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
    /// The same, as of 2023.
    Function,
}

const ROLES: [(&str, Role); 6] = [
    ("system", Role::System),
    ("developer", Role::Developer),
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("tool", Role::Tool),
    ("function", Role::Function),
];

impl Role {
    /// Whether it is the system's.
    pub const fn is_systems(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

/// One message that a provider takes.
#[derive(Debug)]
pub struct Message<'v> {
    /// Who speaks.
    pub role: Role,
    /// What is said: the content, or the texts of its parts one behind the other.
    pub text: Cow<'v, str>,
    /// Its members as they were written; none of a completion row, whose texts stand alone.
    pub members: &'v [(Cow<'v, str>, Json<'v>)],
    /// Whether the model learns it; true for all but the assistant's messages of weight 0.
    pub trained: bool,
}

/// Members of a message that OpenAI's recipe and the newer guides know.
const MEMBERS: [&str; 9] =
    ["role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal", "audio"];

/// Reads a list of messages; none where it is no list or empty.
pub(super) fn list<'v>(
    list: &'v Json<'v>,
    path: &str,
    tools: &Tools<'v>,
    expected: Expected,
    seen: &mut Seen,
) -> Option<Vec<Message<'v>>> {
    let Some(elements) = list.list() else {
        seen.fault(path, format!("a list of messages is needed, not {}", list.kind()));
        return None;
    };
    if elements.is_empty() {
        seen.fault(path, "the list of messages is empty");
        return None;
    }
    let mut calls = HashSet::new();
    let mut messages = Vec::with_capacity(elements.len());
    for (at, element) in elements.iter().enumerate() {
        let reader = Reader { path: format!("{path}[{at}]"), tools, expected };
        messages.extend(reader.message(element, &mut calls, seen));
    }
    Some(messages)
}

struct Reader<'t, 'v> {
    path: String,
    tools: &'t Tools<'v>,
    expected: Expected,
}

impl<'v> Reader<'_, 'v> {
    fn at(&self, member: &str) -> String {
        format!("{}.{member}", self.path)
    }

    fn message(
        &self,
        value: &'v Json<'v>,
        calls: &mut HashSet<&'v str>,
        seen: &mut Seen,
    ) -> Option<Message<'v>> {
        let Some(members) = value.object() else {
            seen.fault(&self.path, format!("a message is an object, not {}", value.kind()));
            return None;
        };
        for (name, _) in members {
            if !MEMBERS.contains(&name.as_ref()) {
                seen.fault(self.at(name), "no member of a message is called so: take it out");
            }
        }
        let role = self.role(value, seen)?;
        if let Some(name) = value.get("name").filter(|name| name.text().is_none()) {
            seen.fault(self.at("name"), format!("a name is a string, not {}", name.kind()));
        }
        let trained = self.weight(value, role, seen);
        let called = self.calls(value, role, calls, seen);
        self.answers_a_call(value, role, calls, seen);
        let text = self.content(value, role, called, seen);
        Some(Message { role, text: text?, members, trained })
    }

    fn role(&self, value: &Json<'_>, seen: &mut Seen) -> Option<Role> {
        const KNOWN: &str = "one of system, developer, user, assistant, tool, function";
        let Some(role) = value.get("role") else {
            seen.fault(self.at("role"), format!("missing: {KNOWN}"));
            return None;
        };
        let found = ROLES.iter().find(|(name, _)| role.text() == Some(name)).map(|(_, role)| *role);
        if found.is_none() {
            seen.fault(self.at("role"), format!("{} is no role: {KNOWN}", shown(role)));
        }
        found
    }

    /// Whether the message is learned.
    fn weight(&self, value: &Json<'_>, role: Role, seen: &mut Seen) -> bool {
        let Some(weight) = value.get("weight") else { return true };
        if role != Role::Assistant {
            seen.fault(self.at("weight"), "only messages of the assistant have a weight");
            return true;
        }
        let number = match weight {
            Json::Number(number) => number.as_f64(),
            _ => None,
        };
        if number != Some(0.0) && number != Some(1.0) {
            seen.fault(self.at("weight"), format!("a weight is 0 or 1, not {}", shown(weight)));
        }
        number != Some(0.0)
    }

    /// Whether the message calls a tool.
    fn calls(&self, value: &'v Json<'v>, role: Role, ids: &mut HashSet<&'v str>, seen: &mut Seen) -> bool {
        let mut called = false;
        for name in ["tool_calls", "function_call"] {
            let Some(call) = value.get(name).filter(|call| !call.is_null()) else { continue };
            called = true;
            let path = self.at(name);
            if role != Role::Assistant {
                seen.fault(path, "only messages of the assistant call tools");
            } else if name == "tool_calls" {
                tools::read_calls(call, &path, self.tools, ids, seen);
            } else {
                seen.odd(Oddity::OldFunctions);
                tools::read_function_call(call, &path, self.tools, seen);
            }
        }
        called
    }

    /// A tool's message says which call it answers.
    fn answers_a_call(&self, value: &Json<'_>, role: Role, calls: &HashSet<&str>, seen: &mut Seen) {
        let id = value.get("tool_call_id").filter(|id| !id.is_null());
        match (role, id) {
            (Role::Tool, Some(Json::Text(id))) => {
                if !calls.contains(id.as_ref()) {
                    seen.odd(Oddity::NoSuchCall);
                }
            }
            (Role::Tool, Some(other)) => {
                seen.fault(self.at("tool_call_id"), format!("an id is a string, not {}", other.kind()));
            }
            (Role::Tool, None) => {
                seen.fault(self.at("tool_call_id"), "missing: a tool's message says which call it answers");
            }
            (_, Some(_)) => seen.fault(self.at("tool_call_id"), "only a tool's message answers a call"),
            (_, None) => {}
        }
        if role == Role::Function && value.get("name").is_none() {
            seen.fault(self.at("name"), "missing: a function's message says which function it is of");
        }
    }

    fn content(
        &self,
        value: &'v Json<'v>,
        role: Role,
        called: bool,
        seen: &mut Seen,
    ) -> Option<Cow<'v, str>> {
        let refused = value.get("refusal").is_some_and(|refusal| refusal.text().is_some());
        match value.get("content") {
            Some(Json::Text(text)) => Some(Cow::Borrowed(text)),
            Some(Json::List(parts)) => Some(self.parts(parts, role, seen)),
            None | Some(Json::Null) if called || refused => Some(Cow::Borrowed("")),
            None => {
                seen.fault(self.at("content"), "missing: only a message that calls a tool may have none");
                None
            }
            Some(Json::Null) => {
                seen.fault(self.at("content"), "null, but only a message that calls a tool may have none");
                None
            }
            Some(other) => {
                let kind = other.kind();
                seen.fault(self.at("content"), format!("content is a string or a list of parts, not {kind}"));
                None
            }
        }
    }

    fn parts(&self, parts: &'v [Json<'v>], role: Role, seen: &mut Seen) -> Cow<'v, str> {
        let mut text = String::new();
        if parts.is_empty() {
            seen.fault(self.at("content"), "the list of parts is empty");
        }
        for (at, part) in parts.iter().enumerate() {
            let path = self.at(&format!("content[{at}]"));
            match part.get("type").and_then(Json::text) {
                Some("text") => match part.get("text").and_then(Json::text) {
                    Some(own) => text.push_str(own),
                    None => seen.fault(format!("{path}.text"), "missing: a text part has a string `text`"),
                },
                Some("refusal") if role == Role::Assistant => {
                    if part.get("refusal").and_then(Json::text).is_none() {
                        seen.fault(format!("{path}.refusal"), "missing: a refusal is a string");
                    }
                }
                Some("image_url") => self.image(part, &path, role, seen),
                Some(other) => {
                    let other = shown(&Json::Text(Cow::Borrowed(other)));
                    seen.fault(
                        format!("{path}.type"),
                        format!("{other} is no part of a training example: text, or image_url in the user's messages"),
                    );
                }
                None => seen.fault(format!("{path}.type"), "missing: a part says its type, such as text"),
            }
        }
        Cow::Owned(text)
    }

    fn image(&self, part: &Json<'_>, path: &str, role: Role, seen: &mut Seen) {
        if role != Role::User {
            seen.fault(path, "an image may stand only in a message of the user");
            return;
        }
        if !self.expected.images {
            seen.fault(
                path,
                "this model is not trained with images: take them out, or choose one that takes them",
            );
            return;
        }
        seen.odd(Oddity::Image);
        let url = part.get("image_url").and_then(|image| image.get("url")).and_then(Json::text);
        let fits = |url: &str| {
            let lower = url.get(..32.min(url.len())).unwrap_or(url).to_ascii_lowercase();
            let kinds = ["data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,"];
            lower.starts_with("https://")
                || lower.starts_with("http://")
                || kinds.iter().any(|kind| lower.starts_with(kind))
        };
        match url {
            Some(url) if fits(url) => {}
            Some(_) => seen.fault(
                format!("{path}.image_url.url"),
                "an image is an http(s) address or a data URL of PNG, JPEG or WebP in base64",
            ),
            None => seen.fault(format!("{path}.image_url.url"), "missing: the image's address"),
        }
    }
}
