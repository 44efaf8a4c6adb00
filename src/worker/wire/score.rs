//! `POST /v1/tunegate/score`: how likely an answer is that is already known. Not OpenAI's, so only the gateway asks it.

use serde::Serialize;

use super::chat::messages;
use super::fields::{Fields, is_empty_list};
use super::{Refusal, Usage};
use crate::worker::text::Message;

/// A checked request.
#[derive(Debug, PartialEq)]
pub(in crate::worker) struct ScoreRequest {
    /// The model asked for; not looked up yet.
    pub(in crate::worker) model: String,
    /// At least two; the last is the answer.
    pub(in crate::worker) messages: Vec<Message>,
}

impl ScoreRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// With a 400 that names the member at fault.
    pub(in crate::worker) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::body(body)?;
        let model = fields.required_text("model")?;
        let messages = messages(&mut fields)?;
        for name in ["tools", "functions"] {
            fields.refuse(name, is_empty_list)?;
        }
        fields.ignore(&["metadata", "safety_identifier", "user"]);
        fields.finish()?;
        match messages.as_slice() {
            [_, .., last] if last.role == "assistant" => Ok(Self { model, messages }),
            _ => Err(Refusal::invalid("messages", "the last one must be the assistant's, behind others")),
        }
    }
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(in crate::worker) struct Score<'a> {
    object: &'static str,
    model: &'a str,
    system_fingerprint: &'a str,
    /// Of the answer, the one that ends it among them.
    tokens: usize,
    /// What they are surprising by, all together: −Σ ln p, nats.
    loss_sum: f64,
    usage: Usage,
}

impl<'a> Score<'a> {
    /// Of an answer of so many `tokens`, and what reading all of it took.
    pub(in crate::worker) const fn new(
        (model, system_fingerprint): (&'a str, &'a str),
        (tokens, loss_sum): (usize, f64),
        usage: Usage,
    ) -> Self {
        Self { object: "tunegate.score", model, system_fingerprint, tokens, loss_sum, usage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_the_answer() {
        let parse = |body: &str| ScoreRequest::parse(body.as_bytes());
        let asked = r#"{"role":"user","content":"q"}"#;
        let answer = r#"{"role":"assistant","content":"a"}"#;
        let good = format!(r#"{{"model":"m","messages":[{asked},{answer}],"tools":[],"user":"u"}}"#);
        let request = parse(&good).unwrap();
        assert_eq!((request.model.as_str(), request.messages[1].content.as_str()), ("m", "a"));
        for (body, param) in [
            (format!(r#"{{"model":"m","messages":[{answer},{asked}]}}"#), "messages"),
            (format!(r#"{{"model":"m","messages":[{answer}]}}"#), "messages"),
            (format!(r#"{{"messages":[{asked},{answer}]}}"#), "model"),
            (format!(r#"{{"model":"m","messages":[{asked},{answer}],"tools":[{{}}]}}"#), "tools"),
            (format!(r#"{{"model":"m","messages":[{asked},{answer}],"temperature":0}}"#), "temperature"),
        ] {
            let refused = parse(&body).unwrap_err().to_json();
            assert!(refused.contains(&format!(r#""param":"{param}""#)), "{body}: {refused}");
        }
    }
}
