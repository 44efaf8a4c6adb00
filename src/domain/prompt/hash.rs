//! Which words a model was trained with: the hash of its training file's system message.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::domain::request::system_message;

/// SHA-256 of words, 64 hex digits in lower case.
pub fn sha256_of(words: &str) -> String {
    hex(&Sha256::digest(words.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The system message of one line of a training file in OpenAI's chat format, empty where it has none; nothing where it
/// is no such line.
pub fn system_message_of(line: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Example<'a> {
        #[serde(borrow)]
        messages: &'a RawValue,
    }
    let example: Example<'_> = serde_json::from_str(line).ok()?;
    system_message(example.messages)
}

/// What a training file was found to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untaught {
    /// It has no examples.
    #[error("it has no examples")]
    Empty,
    /// A line that is no example.
    #[error("line {0} is no example of a chat: JSON with an array 'messages'")]
    Line(usize),
    /// Its examples were not all trained with the same words.
    #[error("{differ} of {examples} examples have another system message than the first")]
    Differ {
        /// How many.
        differ: usize,
        /// Of how many.
        examples: usize,
    },
}

/// The hash of the system message that all lines of a training file share.
pub fn taught_by(lines: &str) -> Result<String, Untaught> {
    let mut first: Option<String> = None;
    let (mut examples, mut differ) = (0, 0);
    for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let said = system_message_of(line).ok_or(Untaught::Line(at + 1))?;
        examples += 1;
        match &first {
            None => first = Some(said),
            Some(first) => differ += usize::from(*first != said),
        }
    }
    match first {
        None => Err(Untaught::Empty),
        Some(_) if differ > 0 => Err(Untaught::Differ { differ, examples }),
        Some(said) => Ok(sha256_of(&said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_system_message_or_none_is_known() {
        let with = |words: &str| {
            format!(r#"{{"messages":[{{"role":"system","content":"{words}"}},{{"role":"user"}}]}}"#)
        };
        let parts =
            r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"Be kind"}]}],"tools":[]}"#;
        let (kind, curt) = (with("Be kind"), with("Be curt"));
        for (lines, taught) in [
            (vec![&*kind, "", parts], Ok(sha256_of("Be kind"))),
            (vec![r#"{"messages":[{"role":"user","content":"x"}]}"#], Ok(sha256_of(""))),
            (vec![&*kind, &*curt, &*kind, &*curt], Err(Untaught::Differ { differ: 2, examples: 4 })),
            (vec![&*kind, r#"{"prompt":"x","completion":"y"}"#], Err(Untaught::Line(2))),
            (vec!["", " "], Err(Untaught::Empty)),
        ] {
            assert_eq!(taught_by(&lines.join("\n")), taught, "{lines:?}");
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_of(""), empty);
    }
}
