//! `POST /v1/embeddings`: the request and the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::Refusal;
use super::fields::{Fields, kind};

/// The most texts of one request, as with OpenAI.
const MOST_TEXTS: usize = 2_048;

/// How the numbers of a vector are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum VectorForm {
    /// As JSON numbers.
    Float,
    /// As base64 of f32, the lowest byte first: what the openai packages ask for.
    Base64,
}

/// A checked request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) struct EmbeddingRequest {
    /// The model asked for; not looked up yet.
    pub(in crate::worker) model: String,
    /// From 1 to 2,048 texts, none empty, each with its place in the request.
    pub(in crate::worker) texts: Vec<(String, String)>,
    /// How the vectors are to be written.
    pub(in crate::worker) form: VectorForm,
}

impl EmbeddingRequest {
    /// Reads a body for a model whose vectors have so many `dimensions`.
    ///
    /// # Errors
    /// With a 400 that names the member at fault.
    pub(in crate::worker) fn parse(body: &[u8], dimensions: usize) -> Result<Self, Refusal> {
        let mut fields = Fields::body(body)?;
        let model = fields.required_text("model")?;
        let texts = texts(fields.take("input").ok_or_else(|| Refusal::missing("input"))?)?;
        let form = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => VectorForm::Float,
            Some("base64") => VectorForm::Base64,
            Some(other) => {
                let reason = format!("'{other}' is not one of 'float' and 'base64'");
                return Err(Refusal::invalid("encoding_format", &reason));
            }
        };
        if fields.count("dimensions")?.is_some_and(|asked| asked != dimensions) {
            let reason = format!("must be {dimensions} with this model");
            return Err(Refusal::unsupported_value("dimensions", &reason));
        }
        fields.ignore(&["user"]);
        fields.finish()?;
        Ok(Self { model, texts, form })
    }
}

fn texts(input: Value) -> Result<Vec<(String, String)>, Refusal> {
    const WANTED: &str = "a string or an array of strings";
    let list = match input {
        Value::String(text) => return Ok(vec![one(text, "input".to_owned())?]),
        Value::Array(list) => list,
        other => return Err(Refusal::wrong_type("input", WANTED, kind(&other))),
    };
    if list.is_empty() {
        return Err(Refusal::invalid("input", "expected an array with at least one string"));
    }
    if list.len() > MOST_TEXTS {
        let reason = format!("{} texts; at most {MOST_TEXTS} are taken", list.len());
        return Err(Refusal::invalid("input", &reason));
    }
    let text = |(index, value)| {
        let path = format!("input[{index}]");
        match value {
            Value::String(text) => one(text, path),
            Value::Number(_) | Value::Array(_) => {
                Err(Refusal::unsupported_value("input", "must be text: this model takes no token ids"))
            }
            other => Err(Refusal::wrong_type(&path, "a string", kind(&other))),
        }
    };
    list.into_iter().enumerate().map(text).collect()
}

fn one(text: String, path: String) -> Result<(String, String), Refusal> {
    if text.is_empty() { Err(Refusal::invalid(&path, "it must not be empty")) } else { Ok((text, path)) }
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Embedding<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding<'a> {
    object: &'static str,
    index: usize,
    embedding: Written<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    /// How long was computed, microseconds: `domain::usage::COMPUTE_MEMBER`. Not OpenAI's.
    tunegate_compute_us: u64,
}

/// Returns the answer as JSON, member for member in OpenAI's order.
pub(in crate::worker) fn embeddings_json(
    model: &str,
    vectors: &[Vec<f32>],
    form: VectorForm,
    tokens: usize,
    compute_us: u64,
) -> String {
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = match form {
            VectorForm::Float => Written::Float(vector),
            VectorForm::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Written::Base64(STANDARD.encode(bytes))
            }
        };
        Embedding { object: "embedding", index, embedding }
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens, tunegate_compute_us: compute_us };
    let list = List { object: "list", data: data.collect(), model, usage };
    serde_json::to_string(&list).expect("plain structs with text keys always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(members: &Value) -> Result<EmbeddingRequest, Refusal> {
        let mut body = json!({"model": "m", "input": "a"});
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        EmbeddingRequest::parse(body.to_string().as_bytes(), 384)
    }

    fn read(members: &Value) -> (Vec<String>, VectorForm) {
        let request = parse(members).unwrap();
        (request.texts.into_iter().map(|(text, _)| text).collect(), request.form)
    }

    #[test]
    fn what_is_taken() {
        let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(&json!({})), (text(&["a"]), VectorForm::Float));
        assert_eq!(read(&json!({"input": ["a", "b"]})), (text(&["a", "b"]), VectorForm::Float));
        let all = json!({"encoding_format": "base64", "dimensions": 384, "user": "u"});
        assert_eq!(read(&all), (text(&["a"]), VectorForm::Base64));
        assert_eq!(read(&json!({"input": vec!["x"; 2_048]})).0.len(), 2_048);
    }

    #[test]
    fn what_is_refused_names_the_member() {
        for (members, want) in [
            (json!({"input": null}), "Missing required parameter: 'input'"),
            (json!({"input": ""}), "'input': it must not be empty"),
            (json!({"input": ["a", ""]}), "'input[1]': it must not be empty"),
            (json!({"input": []}), "'input': expected an array with at least one string"),
            (json!({"input": vec!["x"; 2_049]}), "'input': 2049 texts; at most 2048 are taken"),
            (json!({"input": [1, 2]}), "'input' must be text: this model takes no token ids"),
            (json!({"input": [[1, 2]]}), "'input' must be text: this model takes no token ids"),
            (json!({"input": ["a", true]}), "'input[1]': expected a string, but got a boolean"),
            (json!({"input": {}}), "'input': expected a string or an array of strings, but got an object"),
            (json!({"dimensions": 256}), "'dimensions' must be 384 with this model"),
            (json!({"encoding_format": "int8"}), "'int8' is not one of 'float' and 'base64'"),
            (json!({"surprise": 1}), "Unknown parameter: 'surprise'"),
        ] {
            let refusal = parse(&members).unwrap_err().to_json();
            assert!(refusal.contains(want), "{members}: {refusal}");
        }
    }

    #[test]
    fn answers_byte_for_byte() {
        let vectors = [vec![1.0, -0.5], vec![0.1, 0.0]];
        assert_eq!(
            embeddings_json("m", &vectors, VectorForm::Float, 7, 1_200),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,-0.5]},{"object":"embedding","index":1,"embedding":[0.1,0.0]}],"model":"m","usage":{"prompt_tokens":7,"total_tokens":7,"tunegate_compute_us":1200}}"#
        );
        let base64 = embeddings_json("m", &vectors[..1], VectorForm::Base64, 7, 1_200);
        assert!(base64.contains(r#""embedding":"AACAPwAAAL8=""#), "{base64}");
    }
}
