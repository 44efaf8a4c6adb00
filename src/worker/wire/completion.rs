//! `POST /v1/completions`: the request.

use serde_json::Value;

use super::fields::{Fields, kind};
use super::{Generation, Refusal};

/// What is to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) enum Prompt {
    /// Text. Control tokens in it are text too; who wants them sends ids.
    Text(String),
    /// Token ids; not checked against the vocabulary yet.
    Tokens(Vec<u32>),
}

/// A checked request.
#[derive(Debug, PartialEq)]
pub(in crate::worker) struct CompletionRequest {
    /// The model asked for; not looked up yet.
    pub(in crate::worker) model: String,
    /// What is to be continued.
    pub(in crate::worker) prompt: Prompt,
    /// How to answer.
    pub(in crate::worker) generation: Generation,
}

/// OpenAI's default for this endpoint.
const DEFAULT_MOST: usize = 16;

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// With a 400 that names the member at fault.
    pub(in crate::worker) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::body(body)?;
        let model = fields.required_text("model")?;
        let prompt = prompt(fields.take("prompt").ok_or_else(|| Refusal::missing("prompt"))?)?;
        let mut generation = Generation::take(&mut fields)?;
        generation.most = generation.most.or(Some(DEFAULT_MOST));
        if fields.flag("echo")? == Some(true) {
            return Err(Refusal::unsupported_value("echo", "must be false with this model"));
        }
        if fields.whole("best_of")?.is_some_and(|best_of| best_of != 1) {
            return Err(Refusal::unsupported_value("best_of", "must be 1 with this model"));
        }
        fields.refuse("suffix", |suffix| suffix == "")?;
        fields.refuse("logprobs", |_| false)?;
        fields.finish()?;
        Ok(Self { model, prompt, generation })
    }
}

fn prompt(value: Value) -> Result<Prompt, Refusal> {
    const WANTED: &str = "a string, an array of one string or an array of token ids";
    let list = match value {
        Value::String(text) => return Ok(Prompt::Text(text)),
        Value::Array(list) => list,
        other => return Err(Refusal::wrong_type("prompt", WANTED, kind(&other))),
    };
    match list.first() {
        None => return Err(Refusal::invalid("prompt", "it must not be empty")),
        Some(Value::Number(_)) => {}
        Some(_) if list.len() > 1 => {
            return Err(Refusal::unsupported_value(
                "prompt",
                "must be one prompt: send several requests instead",
            ));
        }
        Some(Value::String(text)) => return Ok(Prompt::Text(text.clone())),
        Some(Value::Array(inner)) if inner.iter().all(Value::is_number) => {
            return prompt(Value::Array(inner.clone()));
        }
        Some(other) => return Err(Refusal::wrong_type("prompt[0]", WANTED, kind(other))),
    }
    let id = |(index, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Refusal::invalid(&format!("prompt[{index}]"), "expected a token id"))
    };
    list.iter().enumerate().map(id).collect::<Result<_, _>>().map(Prompt::Tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(prompt: &Value) -> Result<Prompt, Refusal> {
        let body = json!({"model": "m", "prompt": prompt}).to_string();
        CompletionRequest::parse(body.as_bytes()).map(|request| request.prompt)
    }

    #[test]
    fn prompts() {
        assert_eq!(parse(&json!("a")).unwrap(), Prompt::Text("a".into()));
        assert_eq!(parse(&json!(["a"])).unwrap(), Prompt::Text("a".into()));
        assert_eq!(parse(&json!([1, 2])).unwrap(), Prompt::Tokens(vec![1, 2]));
        assert_eq!(parse(&json!([[1, 2]])).unwrap(), Prompt::Tokens(vec![1, 2]));
        for bad in [
            json!(["a", "b"]),
            json!([]),
            json!([[]]),
            json!([[[1]]]),
            json!([1, "a"]),
            json!([-1]),
            json!([1.5]),
            json!([4_294_967_296u64]),
            json!(7),
            json!({}),
            json!(null),
        ] {
            let refusal = parse(&bad).unwrap_err();
            assert!(refusal.to_json().contains(r#""param":"prompt"#), "{bad}: {}", refusal.to_json());
        }
    }

    #[test]
    fn what_is_not_built_is_refused() {
        for (member, value) in [
            ("echo", json!(true)),
            ("best_of", json!(2)),
            ("suffix", json!("x")),
            ("logprobs", json!(1)),
            ("logprobs", json!(0)),
            ("n", json!(2)),
            ("surprise", json!(1)),
        ] {
            let body = json!({"model": "m", "prompt": "p", member: value}).to_string();
            let refusal = CompletionRequest::parse(body.as_bytes()).unwrap_err().to_json();
            assert!(refusal.contains(&format!(r#""param":"{member}""#)), "{refusal}");
        }
        let defaults = CompletionRequest::parse(br#"{"model":"m","prompt":"p","suffix":null}"#).unwrap();
        assert_eq!(defaults.generation.most, Some(16));
    }
}
