//! The body that a job is asked for with: read whole, each mistake told with its parameter. What the provider acts on and
//! we don't stays as the client wrote it.
//!
//! Source: OpenAI's specification 2.3.0 (2026-08-21), `POST /fine_tuning/jobs`; the forms of August 2023 and Azure's are
//! taken, too.

mod method;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::wire::JobOrder;
use crate::domain::ids::{ModelName, ModelNameError};

pub use method::{Epochs, MethodKind};

/// The key of metadata under which a provider keeps our own id of a job.
pub const OUR_METADATA: &str = "tunegate_job";
/// The most pairs of metadata: OpenAI takes 16, and one is ours.
const MOST_METADATA: usize = 15;
const LONGEST_METADATA_KEY: usize = 64;
const LONGEST_METADATA_VALUE: usize = 512;
const LONGEST_SUFFIX: usize = 64;
const MOST_INTEGRATIONS: usize = 5;
const LARGEST_SEED: i64 = 2_147_483_647;
/// Longest name of a file in a body, bytes.
const LONGEST_FILE_ID: usize = 128;

/// What we read at the top of a body; everything else is refused, so that a misspelt one does not pass unseen.
const MEMBERS: [&str; 11] = [
    "model",
    "training_file",
    "validation_file",
    "suffix",
    "seed",
    "method",
    "hyperparameters",
    "integrations",
    "metadata",
    // Azure's, by its own spelling and by OpenAI's manner
    "trainingType",
    "training_type",
];

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobRequestError {
    /// The parameter, such as `method.dpo.hyperparameters.beta`; none where the whole is wrong.
    pub param: Option<String>,
    /// OpenAI's code for it.
    pub code: &'static str,
    /// What is wrong and what to write.
    pub message: String,
}

impl JobRequestError {
    fn new(param: &str, code: &'static str, message: impl Display) -> Self {
        Self { param: Some(param.to_owned()), code, message: message.to_string() }
    }

    pub(super) fn invalid(param: &str, why: impl Display) -> Self {
        Self::new(param, "invalid_value", format!("invalid value for '{param}': {why}"))
    }

    pub(super) fn wrong_type(param: &str, expected: &str) -> Self {
        Self::new(param, "invalid_type", format!("invalid type for '{param}': expected {expected}"))
    }

    pub(super) fn missing(param: &str) -> Self {
        Self::new(param, "missing_required_parameter", format!("missing required parameter: '{param}'"))
    }

    pub(super) fn unknown(param: &str) -> Self {
        Self::new(param, "unsupported_parameter", format!("unknown parameter: '{param}'"))
    }
}

/// A job as a client asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// The base model, or a fine-tuned one to go on from.
    pub model: ModelName,
    /// Our id of the training file.
    pub training_file: Arc<str>,
    /// Our id of the validation file.
    pub validation_file: Option<Arc<str>>,
    /// What the model's name shall hold.
    pub suffix: Option<Arc<str>>,
    /// For a run that can be repeated.
    pub seed: Option<i64>,
    /// How it is trained.
    pub kind: MethodKind,
    /// How often the data is gone through.
    pub epochs: Epochs,
    /// `method`, as written; none where only top-level `hyperparameters` were.
    pub method: Option<Value>,
    /// Top-level `hyperparameters`, as written.
    pub hyperparameters: Option<Value>,
    /// `integrations`, as written.
    pub integrations: Option<Value>,
    /// `metadata`, as written; texts only.
    pub metadata: Option<Map<String, Value>>,
    /// Azure's `trainingType`: what kind of capacity trains.
    pub training_type: Option<Arc<str>>,
}

impl JobRequest {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, JobRequestError> {
        let whole = |why: String| JobRequestError { param: None, code: "invalid_json", message: why };
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| whole(format!("the body is not one valid JSON object: {error}")))?;
        let Value::Object(members) = body else {
            return Err(whole("the body is not one JSON object".to_owned()));
        };
        if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(JobRequestError::unknown(name));
        }
        let members = Members(&members);
        let model = members.text("model")?.ok_or_else(|| JobRequestError::missing("model"))?;
        let model = ModelName::parse(model)
            .map_err(|error: ModelNameError| JobRequestError::invalid("model", error))?;
        let training_file =
            file_id(&members, "training_file")?.ok_or_else(|| JobRequestError::missing("training_file"))?;
        let validation_file = file_id(&members, "validation_file")?;
        if validation_file.as_ref() == Some(&training_file) {
            return Err(JobRequestError::invalid(
                "validation_file",
                "it is the training file: what is trained on can't validate",
            ));
        }
        let method = members.get("method");
        let hyperparameters = members.get("hyperparameters");
        let (kind, epochs) = method::read(method, hyperparameters)?;
        Ok(Self {
            model,
            training_file,
            validation_file,
            suffix: suffix(&members)?,
            seed: seed(&members)?,
            kind,
            epochs,
            method: method.cloned(),
            hyperparameters: hyperparameters.cloned(),
            integrations: integrations(&members)?,
            metadata: metadata(&members)?,
            training_type: training_type(&members)?,
        })
    }

    /// The order for a provider, without the provider's ids of the files.
    pub fn order(&self, job_id: &Arc<str>, model: &Arc<str>, seed: i64) -> JobOrder {
        JobOrder {
            job_id: Arc::clone(job_id),
            model: Arc::clone(model),
            suffix: self.suffix.clone(),
            seed: Some(self.seed.unwrap_or(seed)),
            method: self.method.clone(),
            hyperparameters: self.hyperparameters.clone(),
            integrations: self.integrations.clone(),
            metadata: self.metadata.clone().unwrap_or_default(),
            training_type: self.training_type.clone(),
            ..JobOrder::default()
        }
    }
}

/// An object's members by name; `null` is as good as nothing.
pub(super) struct Members<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Members<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, JobRequestError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| JobRequestError::wrong_type(name, "a string"))
    }
}

fn file_id(members: &Members<'_>, name: &str) -> Result<Option<Arc<str>>, JobRequestError> {
    let Some(id) = members.text(name)? else { return Ok(None) };
    match id {
        "" => Err(JobRequestError::invalid(name, "it is empty: write the id of an uploaded file, `file-…`")),
        long if long.len() > LONGEST_FILE_ID => {
            Err(JobRequestError::invalid(name, "no file has so long an id"))
        }
        id => Ok(Some(id.into())),
    }
}

fn suffix(members: &Members<'_>) -> Result<Option<Arc<str>>, JobRequestError> {
    let Some(suffix) = members.text("suffix")? else { return Ok(None) };
    let invalid = |why: &str| Err(JobRequestError::invalid("suffix", why));
    match suffix {
        "" => invalid("it is empty: leave it out instead"),
        long if long.chars().count() > LONGEST_SUFFIX => invalid("it has more than 64 characters"),
        odd if odd.contains(':') || odd.chars().any(char::is_control) => {
            invalid("it becomes a part of the model's name, so it holds no colon and no control character")
        }
        good => Ok(Some(good.into())),
    }
}

fn seed(members: &Members<'_>) -> Result<Option<i64>, JobRequestError> {
    let Some(value) = members.get("seed") else { return Ok(None) };
    let Some(seed) = value.as_i64() else {
        return Err(JobRequestError::wrong_type("seed", "a whole number"));
    };
    match (0..=LARGEST_SEED).contains(&seed) {
        true => Ok(Some(seed)),
        false => Err(JobRequestError::invalid("seed", format!("it is not within 0 and {LARGEST_SEED}"))),
    }
}

fn training_type(members: &Members<'_>) -> Result<Option<Arc<str>>, JobRequestError> {
    let (azure, other) = (members.text("trainingType")?, members.text("training_type")?);
    if azure.is_some() && other.is_some() {
        return Err(JobRequestError::invalid("trainingType", "it is given twice, in two spellings"));
    }
    let Some(word) = azure.or(other) else { return Ok(None) };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match word.len() <= 64 && !word.is_empty() && word.bytes().all(fits) {
        true => Ok(Some(word.into())),
        false => Err(JobRequestError::invalid(
            "trainingType",
            "write `standard`, `globalstandard` or `developerTier`",
        )),
    }
}

fn integrations(members: &Members<'_>) -> Result<Option<Value>, JobRequestError> {
    let Some(value) = members.get("integrations") else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| JobRequestError::wrong_type("integrations", "an array"))?;
    if list.len() > MOST_INTEGRATIONS {
        return Err(JobRequestError::invalid("integrations", "there are more than 5"));
    }
    for (index, integration) in list.iter().enumerate() {
        let at = format!("integrations[{index}]");
        let given = integration.as_object().ok_or_else(|| JobRequestError::wrong_type(&at, "an object"))?;
        let given = Members(given);
        match given.get("type").and_then(Value::as_str) {
            None => return Err(JobRequestError::missing(&format!("{at}.type"))),
            Some("wandb") => {}
            Some(_) => {
                return Err(JobRequestError::invalid(&format!("{at}.type"), "only `wandb` is known"));
            }
        }
        let project = given.get("wandb").and_then(|wandb| wandb.get("project")).and_then(Value::as_str);
        if project.is_none_or(str::is_empty) {
            return Err(JobRequestError::missing(&format!("{at}.wandb.project")));
        }
    }
    Ok((!list.is_empty()).then(|| value.clone()))
}

fn metadata(members: &Members<'_>) -> Result<Option<Map<String, Value>>, JobRequestError> {
    let Some(value) = members.get("metadata") else { return Ok(None) };
    let pairs = value.as_object().ok_or_else(|| JobRequestError::wrong_type("metadata", "an object"))?;
    if pairs.len() > MOST_METADATA {
        return Err(JobRequestError::invalid(
            "metadata",
            format!(
                "there are more than {MOST_METADATA} pairs: the provider takes 16, and one is the gateway's"
            ),
        ));
    }
    for (key, value) in pairs {
        let param = format!("metadata.{key}");
        if key == OUR_METADATA {
            return Err(JobRequestError::invalid(&param, "the gateway writes this one"));
        }
        if key.is_empty() || key.chars().count() > LONGEST_METADATA_KEY {
            return Err(JobRequestError::invalid("metadata", "a key has 1 to 64 characters"));
        }
        let text = value.as_str().ok_or_else(|| JobRequestError::wrong_type(&param, "a string"))?;
        if text.chars().count() > LONGEST_METADATA_VALUE {
            return Err(JobRequestError::invalid(&param, "it has more than 512 characters"));
        }
    }
    Ok(Some(pairs.clone()))
}
