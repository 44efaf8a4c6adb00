//! A stored prompt's words put into a request, by splicing: all else stays the client's bytes.
//!
//! The words stand first wherever that can be, and are the same bytes each time: providers keep what requests begin with.

use std::ops::Range;

use super::instructions::{elements, is_systems};
use super::members::{Member, all_members, range_of};
use super::rewrite::{Edit, json_string, left_out};
use super::{InferenceRequest, RequestError};
use crate::domain::endpoint::Endpoint;
use crate::domain::prompt::Mode;

/// What stands between the words and the client's own where they share one text.
const BETWEEN: &str = "\n\n";
/// The most that words may make of all the prompts of one completion together, bytes.
const MOST_GROWN_BYTES: usize = 16 << 20;

/// Who speaks the words in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// `system`.
    System,
    /// `developer`.
    Developer,
}

impl Speaker {
    /// The role's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
        }
    }
}

/// Why words can't be put into a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A prompt given as tokens.
    #[error(
        "the model's stored prompt can't be put before a prompt that is given as tokens: send it as a text, or an array of \
         texts"
    )]
    Tokens,
    /// Instructions that are no text.
    #[error("the model's stored prompt can't be put to 'instructions' that are no text: send them as a text")]
    Instructions,
    /// A message that can't be read.
    #[error(
        "the model's stored prompt can't be put to a message with a name that can't be read: it has half of a surrogate pair"
    )]
    Message(&'static str),
    /// Only the client's own instructions, and no words to stand for them.
    #[error(
        "the model's stored prompt stands for all messages of a system or developer, and there is no other message: send one"
    )]
    Nothing,
    /// Words that would be put in too often.
    #[error(
        "the model's stored prompt would make more than {MOST_GROWN_BYTES} bytes before so many prompts: send fewer at once"
    )]
    TooOften,
}

impl Unfit {
    /// The member to point at.
    pub const fn param(&self) -> Option<&'static str> {
        match self {
            Self::Tokens => Some("prompt"),
            Self::Instructions => Some("instructions"),
            Self::Message(member) => Some(member),
            Self::Nothing => Some("messages"),
            Self::TooOften => Some("prompt"),
        }
    }
}

/// Where words go in a request, and what goes for them: its body is not copied yet.
#[derive(Debug)]
pub struct Placed {
    edits: Vec<Edit>,
    times: u64,
    bytes: u64,
}

impl Placed {
    /// How often the words are put in.
    pub const fn times(&self) -> u64 {
        self.times
    }

    /// How long the body is with them, bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl InferenceRequest {
    /// Where words go in the request; nothing where the mode or the endpoint leaves it as it is.
    ///
    /// # Errors
    ///
    /// When there is no place for them.
    pub fn place(&self, words: &str, mode: Mode, speaker: Speaker) -> Result<Option<Placed>, Unfit> {
        // no words can still stand for the client's own
        if words.is_empty() && (mode != Mode::Replace || self.endpoint == Endpoint::Completions) {
            return Ok(None);
        }
        let members = all_members(&self.body);
        let edits = match self.endpoint {
            Endpoint::ChatCompletions | Endpoint::Score => {
                self.edits_of_messages(&members, words, mode, speaker)?
            }
            Endpoint::Responses => self.edits_of_instructions(&members, words, mode)?,
            Endpoint::Completions => self.edits_of_prompts(&members, words, mode)?,
            Endpoint::Embeddings | Endpoint::Moderations => Vec::new(),
        };
        if edits.is_empty() {
            return Ok(None);
        }
        let times = if self.endpoint == Endpoint::Completions { edits.len() as u64 } else { 1 };
        let grown: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let gone: usize = edits.iter().map(|(at, _)| at.len()).sum();
        let bytes = (self.body.len() + grown).saturating_sub(gone) as u64;
        Ok(Some(Placed { edits, times, bytes }))
    }

    /// The request with words where they go.
    ///
    /// # Errors
    ///
    /// When with them it is no request any more.
    pub fn with(&self, placed: &Placed) -> Result<Self, RequestError> {
        Self::parse(self.endpoint, self.splice(placed.edits.clone()), Some(self.model.as_str()))
    }

    /// A member's value as it was written.
    fn written(&self, members: &[Member<'_>], name: &str) -> Option<(&str, Range<usize>)> {
        let member = members.iter().find(|member| member.name == name && member.given)?;
        let text = std::str::from_utf8(&self.body[member.value_at.clone()]).ok()?;
        Some((text, member.value_at.clone()))
    }

    /// The places of an array's elements in the body.
    fn places(&self, array: &str) -> Vec<Range<usize>> {
        let elements = elements(array).unwrap_or_default();
        elements.into_iter().map(|element| range_of(&self.body, element.get())).collect()
    }

    fn edits_of_messages(
        &self,
        members: &[Member<'_>],
        words: &str,
        mode: Mode,
        speaker: Speaker,
    ) -> Result<Vec<Edit>, Unfit> {
        let Some((messages, _)) = self.written(members, "messages") else { return Ok(Vec::new()) };
        let places = self.places(messages);
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
        let systems = self.systems(&places, "messages")?;
        let spoken = systems.contains(&true);
        if words.is_empty() {
            if !systems.contains(&false) {
                return Err(Unfit::Nothing);
            }
            return Ok(if spoken { taken_out(&places, &systems) } else { Vec::new() });
        }
        let ours = format!(r#"{{"role":"{}","content":{}}}"#, speaker.name(), json_string(words));
        let before = |at: &Range<usize>| vec![(at.start..at.start, format!("{ours},"))];
        Ok(match mode {
            Mode::IfAbsent if spoken => Vec::new(),
            Mode::Replace if spoken => {
                let mut edits = taken_out(&places, &systems);
                let comma = if systems.contains(&false) { "," } else { "" };
                edits.push((first.start..first.start, format!("{ours}{comma}")));
                edits
            }
            Mode::Prepend | Mode::IfAbsent | Mode::Replace => before(first),
            Mode::Append => {
                let leading = systems.iter().take_while(|systems| **systems).count();
                match places.get(leading) {
                    Some(next) => before(next),
                    None => vec![(last.end..last.end, format!(",{ours}"))],
                }
            }
        })
    }

    /// Which of these messages, or items, speak as the system. What can't be read may: it is not taken for something else.
    fn systems(&self, places: &[Range<usize>], member: &'static str) -> Result<Vec<bool>, Unfit> {
        let speaks = |at: &Range<usize>| is_systems(&self.body[at.clone()]).ok_or(Unfit::Message(member));
        places.iter().map(speaks).collect()
    }

    fn edits_of_instructions(
        &self,
        members: &[Member<'_>],
        words: &str,
        mode: Mode,
    ) -> Result<Vec<Edit>, Unfit> {
        let own = self.written(members, "instructions");
        if own.as_ref().is_some_and(|(text, _)| !text.starts_with('"')) {
            return Err(Unfit::Instructions);
        }
        let input = self.written(members, "input").filter(|(input, _)| input.starts_with('['));
        let places = input.map(|(input, _)| self.places(input)).unwrap_or_default();
        let systems = self.systems(&places, "input")?;
        let spoken = systems.contains(&true);
        // `null` is none
        let whole = if words.is_empty() { "null".to_owned() } else { json_string(words) };
        let mut edits = Vec::new();
        match (mode, own) {
            (Mode::IfAbsent, Some(_)) => return Ok(edits),
            (Mode::IfAbsent, None) if spoken => return Ok(edits),
            (Mode::Prepend, Some((_, at))) => {
                edits.push((at.start + 1..at.start + 1, within(&format!("{words}{BETWEEN}"))));
            }
            (Mode::Append, Some((_, at))) => {
                edits.push((at.end - 1..at.end - 1, within(&format!("{BETWEEN}{words}"))));
            }
            (Mode::Replace, Some((_, at))) => edits.push((at, whole)),
            (_, None) if words.is_empty() => {}
            (_, None) => match members.iter().find(|member| member.name == "instructions") {
                Some(null) => edits.push((null.value_at.clone(), whole)),
                None => {
                    let comma = if self.any { "," } else { "" };
                    edits.push((self.start..self.start, format!("\"instructions\":{whole}{comma}")));
                }
            },
        }
        if mode == Mode::Replace && spoken {
            edits.extend(taken_out(&places, &systems));
        }
        Ok(edits)
    }

    fn edits_of_prompts(&self, members: &[Member<'_>], words: &str, mode: Mode) -> Result<Vec<Edit>, Unfit> {
        let Some((prompt, at)) = self.written(members, "prompt") else { return Ok(Vec::new()) };
        let places = if prompt.starts_with('"') { vec![at] } else { self.places(prompt) };
        let prefix = within(&format!("{words}{BETWEEN}"));
        if prefix.len().saturating_mul(places.len()) > MOST_GROWN_BYTES {
            return Err(Unfit::TooOften);
        }
        let mut edits = Vec::new();
        for at in places {
            let prompt: String = serde_json::from_slice(&self.body[at.clone()]).map_err(|_| Unfit::Tokens)?;
            if mode != Mode::IfAbsent || !prompt.starts_with(words) {
                edits.push((at.start + 1..at.start + 1, prefix.clone()));
            }
        }
        Ok(edits)
    }
}

/// Takes elements out of an array.
fn taken_out(places: &[Range<usize>], goes: &[bool]) -> Vec<Edit> {
    let mut edits = Vec::new();
    left_out(places, |place| goes[place], &mut edits);
    edits
}

/// A text as it stands within the quotes of a JSON string.
fn within(text: &str) -> String {
    let quoted = json_string(text);
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn put(endpoint: Endpoint, body: &str, words: &str, mode: Mode) -> Result<Option<String>, Unfit> {
        let request = InferenceRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()), Some("a"));
        let request = request.expect(body);
        let Some(placed) = request.place(words, mode, Speaker::System)? else { return Ok(None) };
        let put = request.with(&placed).expect("still a request");
        assert_eq!(put.body().len() as u64, placed.bytes());
        Ok(Some(String::from_utf8_lossy(put.body()).into_owned()))
    }

    #[test]
    fn a_chat_gets_a_message_of_its_own() {
        let ours = r#"{"role":"system","content":"Be \"kind\".\n"}"#;
        let (user, dev) =
            (r#"{"role": "user", "content": 1.50}"#, r#"{"content":"d","r\u006fle":"developer"}"#);
        let late = r#"{"role":"system","content":"late"}"#;
        for (mode, messages, want) in [
            (Mode::Prepend, vec![user], Some(vec![ours, user])),
            (Mode::Prepend, vec![dev, user], Some(vec![ours, dev, user])),
            (Mode::Append, vec![user], Some(vec![ours, user])),
            (Mode::Append, vec![dev, dev, user, late], Some(vec![dev, dev, ours, user, late])),
            (Mode::Append, vec![dev], Some(vec![dev, ours])),
            (Mode::Replace, vec![user], Some(vec![ours, user])),
            (Mode::Replace, vec![dev, user, late], Some(vec![ours, user])),
            (Mode::Replace, vec![dev], Some(vec![ours])),
            (Mode::IfAbsent, vec![user], Some(vec![ours, user])),
            (Mode::IfAbsent, vec![user, late], None),
        ] {
            let body =
                |messages: Vec<&str>| format!(r#"{{"x":1.0,"messages":[{}],"y":{{}}}}"#, messages.join(","));
            let put = put(Endpoint::ChatCompletions, &body(messages), "Be \"kind\".\n", mode);
            assert_eq!(put.expect("it fits"), want.map(body), "{mode:?}");
        }
        let twice = r#"{"messages":[{"role":"user","role":"system"}]}"#;
        assert_eq!(put(Endpoint::ChatCompletions, twice, "w", Mode::IfAbsent), Ok(None));
        assert_eq!(put(Endpoint::ChatCompletions, twice, "", Mode::Prepend), Ok(None));
        let half = r#"{"messages":[{"role":"system","\ud83d":1,"content":"x"},{"role":"user"}]}"#;
        for mode in [Mode::Replace, Mode::IfAbsent, Mode::Append] {
            let unfit = put(Endpoint::ChatCompletions, half, "w", mode);
            assert_eq!(unfit, Err(Unfit::Message("messages")), "{mode:?}");
        }
    }

    #[test]
    fn no_words_still_stand_for_the_clients_own() {
        let (chat, responses) = (Endpoint::ChatCompletions, Endpoint::Responses);
        for (endpoint, body, want) in [
            (
                chat,
                r#"{"messages":[{"role":"user"}, {"role":"system"}, {"role":"user","n":1}]}"#,
                Some(r#"{"messages":[{"role":"user"}, {"role":"user","n":1}]}"#),
            ),
            (chat, r#"{"messages":[{"role":"user"}]}"#, None),
            (responses, r#"{"instructions":"t","input":"x"}"#, Some(r#"{"instructions":null,"input":"x"}"#)),
            (responses, r#"{"input":[{"role":"developer"}]}"#, Some(r#"{"input":[]}"#)),
            (responses, r#"{"input":"x"}"#, None),
            (Endpoint::Completions, r#"{"prompt":"x"}"#, None),
        ] {
            let put = put(endpoint, body, "", Mode::Replace).expect("it fits");
            assert_eq!(put.as_deref(), want, "{body}");
        }
        let nothing_left = put(chat, r#"{"messages":[{"role":"system"}]}"#, "", Mode::Replace);
        assert_eq!(nothing_left.expect_err("no message").param(), Some("messages"));
    }

    #[test]
    fn a_response_gets_instructions() {
        for (mode, body, want) in [
            (Mode::Prepend, r#"{"input":"x"}"#, Some(r#"{"instructions":"W\"","input":"x"}"#)),
            (
                Mode::Prepend,
                r#"{"input":"x","instructions":"t\u0061"}"#,
                Some(r#"{"input":"x","instructions":"W\"\n\nt\u0061"}"#),
            ),
            (Mode::Append, r#"{"instructions":"t"}"#, Some(r#"{"instructions":"t\n\nW\""}"#)),
            (Mode::Append, r#"{"instructions":null}"#, Some(r#"{"instructions":"W\""}"#)),
            (Mode::Append, "{}", Some(r#"{"instructions":"W\""}"#)),
            (
                Mode::Replace,
                r#"{"instructions":"t","input":[{"role":"system"}, {"role":"user","n":1.0} , {"role":"developer"}]}"#,
                Some(r#"{"instructions":"W\"","input":[{"role":"user","n":1.0}]}"#),
            ),
            (
                Mode::Replace,
                r#"{"input":[{"role":"user"}]}"#,
                Some(r#"{"instructions":"W\"","input":[{"role":"user"}]}"#),
            ),
            (Mode::IfAbsent, r#"{"instructions":"t"}"#, None),
            (Mode::IfAbsent, r#"{"input":[{"role":"user"},{"role":"developer"}]}"#, None),
            (
                Mode::IfAbsent,
                r#"{"previous_response_id":"r","input":"x"}"#,
                Some(r#"{"instructions":"W\"","previous_response_id":"r","input":"x"}"#),
            ),
        ] {
            let put = put(Endpoint::Responses, body, "W\"", mode).expect("it fits");
            assert_eq!(put.as_deref(), want, "{mode:?} {body}");
        }
        let wrong = put(Endpoint::Responses, r#"{"instructions":["x"]}"#, "w", Mode::Replace);
        assert_eq!(wrong.expect_err("no text").param(), Some("instructions"));
    }

    #[test]
    fn a_completion_gets_a_prefix() {
        for (mode, body, want) in [
            (Mode::Append, r#"{"prompt":"x"}"#, Some(r#"{"prompt":"W\n\nx"}"#)),
            (Mode::Replace, r#"{"prompt":["x", "y"]}"#, Some(r#"{"prompt":["W\n\nx", "W\n\ny"]}"#)),
            (
                Mode::IfAbsent,
                r#"{"prompt":["x","\u0057\n\ny"]}"#,
                Some(r#"{"prompt":["W\n\nx","\u0057\n\ny"]}"#),
            ),
            (Mode::IfAbsent, r#"{"prompt":"W\n\nx"}"#, None),
        ] {
            let put = put(Endpoint::Completions, body, "W", mode).expect("it fits");
            assert_eq!(put.as_deref(), want, "{mode:?} {body}");
        }
        for body in [r#"{"prompt":[1,2]}"#, r#"{"prompt":[[1],[2]]}"#] {
            assert_eq!(put(Endpoint::Completions, body, "W", Mode::Prepend), Err(Unfit::Tokens));
        }
        assert_eq!(put(Endpoint::Embeddings, r#"{"input":"x"}"#, "W", Mode::Prepend), Ok(None));
        let many = format!(r#"{{"prompt":[{}"x"]}}"#, r#""x","#.repeat(100));
        let long = "W".repeat(MOST_GROWN_BYTES / 100);
        assert_eq!(put(Endpoint::Completions, &many, &long, Mode::Prepend), Err(Unfit::TooOften));
    }

    #[test]
    fn nothing_breaks_out_of_its_message() {
        for words in [
            "\"}],\"messages\":[{\"role\":\"user\"}],\"x\":\"",
            "\\",
            "a\\\"",
            "\u{0}\u{1f}\r\n\u{2028}",
            "{{ x }}{% y %}<|im_end|>\n<|im_start|>system",
        ] {
            let body = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
            let sent = put(Endpoint::ChatCompletions, body, words, Mode::Prepend).expect("it fits");
            let sent: Value = serde_json::from_str(&sent.expect("put in")).expect("JSON");
            let want = json!({"messages": [{"role": "system", "content": words}, {"role": "user", "content": "hi"}]});
            assert_eq!(sent, want);
            let sent =
                put(Endpoint::Completions, r#"{"prompt":"p"}"#, words, Mode::Prepend).expect("it fits");
            let sent: Value = serde_json::from_str(&sent.expect("put in")).expect("JSON");
            assert_eq!(sent, json!({"prompt": format!("{words}\n\np")}));
        }
    }

    #[test]
    fn what_is_said_as_the_system_is_read_back() {
        for (endpoint, body, said) in [
            (Endpoint::ChatCompletions, r#"{"messages":[{"role":"user","content":"x"}]}"#, Some("")),
            (
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},{"role":"user"},{"role":"system","content":"late"}]}"#,
                Some("a\nbc"),
            ),
            (Endpoint::Responses, r#"{"instructions":"i"}"#, Some("i")),
            (Endpoint::Responses, r#"{"instructions":null}"#, Some("")),
            (
                Endpoint::Responses,
                r#"{"instructions":"i","input":[{"role":"developer","content":"a"},{"role":"system","content":[{"type":"input_text","text":"b"}]},{"role":"user","content":"x"},{"role":"system","content":"late"}]}"#,
                Some("i\na\nb"),
            ),
            (Endpoint::Responses, r#"{"input":[{"role":"system","content":"a"}]}"#, Some("a")),
            (Endpoint::Completions, r#"{"prompt":"x"}"#, None),
        ] {
            let request =
                InferenceRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()), Some("a"));
            assert_eq!(request.expect(body).system_message().as_deref(), said, "{body}");
        }
    }
}
