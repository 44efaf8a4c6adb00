//! What chat and completions have in common: how an answer is to be made and sent.

use serde_json::Value;
use tunegate_engine::Sampling;

use super::Refusal;
use super::fields::{Fields, is_zero, kind};

/// How an answer is made and sent.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::worker) struct Generation {
    /// The most tokens of the answer; `None` for as many as the context holds.
    pub(in crate::worker) most: Option<usize>,
    /// How tokens are chosen; without a seed, one was drawn.
    pub(in crate::worker) sampling: Sampling,
    /// Texts before which the answer ends.
    pub(in crate::worker) stops: Vec<String>,
    /// Whether it is sent while it is made.
    pub(in crate::worker) stream: bool,
    /// Whether a stream ends with its usage.
    pub(in crate::worker) stream_usage: bool,
}

/// Members that no answer depends on.
const WITHOUT_EFFECT: [&str; 8] = [
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "parallel_tool_calls",
];

impl Generation {
    /// Takes the common members.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, Refusal> {
        fields.ignore(&WITHOUT_EFFECT);
        refuse_choices(fields)?;
        let stream = fields.flag("stream")?.unwrap_or(false);
        Ok(Self {
            most: most(fields)?,
            sampling: Sampling {
                temperature: fields.real("temperature", 0.0, 2.0)?.unwrap_or(1.0) as f32,
                top_p: fields.real("top_p", 0.0, 1.0)?.unwrap_or(1.0) as f32,
                seed: fields.whole("seed")?.map_or_else(rand::random, i64::cast_unsigned),
            },
            stops: stops(fields)?,
            stream,
            stream_usage: stream_options(fields, stream)?,
        })
    }
}

/// Refuses several answers and changed odds, which are not built.
fn refuse_choices(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.whole("n")?.is_some_and(|n| n != 1) {
        return Err(Refusal::unsupported_value("n", "must be 1 with this model"));
    }
    for penalty in ["presence_penalty", "frequency_penalty"] {
        if fields.real(penalty, -2.0, 2.0)?.is_some_and(|penalty| penalty != 0.0) {
            return Err(Refusal::unsupported_value(penalty, "must be 0 with this model"));
        }
    }
    fields.refuse("logit_bias", |bias| bias.as_object().is_some_and(serde_json::Map::is_empty))?;
    fields.refuse("top_logprobs", is_zero)
}

fn most(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let (old, new) = (fields.count("max_tokens")?, fields.count("max_completion_tokens")?);
    if old.is_some() && new.is_some() {
        return Err(Refusal::invalid(
            "max_tokens",
            "it cannot be given together with 'max_completion_tokens'",
        ));
    }
    Ok(old.or(new))
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let stops = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) if stops.len() <= 4 => {
            let mut texts = Vec::with_capacity(stops.len());
            for (index, stop) in stops.into_iter().enumerate() {
                match stop {
                    Value::String(stop) => texts.push(stop),
                    other => {
                        return Err(Refusal::wrong_type(&format!("stop[{index}]"), "a string", kind(&other)));
                    }
                }
            }
            texts
        }
        Some(Value::Array(_)) => {
            return Err(Refusal::invalid("stop", "expected an array of at most 4 strings"));
        }
        Some(other) => {
            return Err(Refusal::wrong_type("stop", "a string or an array of strings", kind(&other)));
        }
    };
    if stops.iter().any(String::is_empty) {
        return Err(Refusal::invalid("stop", "a stop sequence must not be empty"));
    }
    Ok(stops)
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(Refusal::invalid("stream_options", "it is only allowed when 'stream' is true"));
    }
    let mut options = Fields::nested(options, "stream_options")?;
    let usage = options.flag("include_usage")?.unwrap_or(false);
    if options.flag("include_obfuscation")?.unwrap_or(false) {
        return Err(Refusal::unsupported_value("stream_options.include_obfuscation", "must be false"));
    }
    options.finish()?;
    Ok(usage)
}
