//! How a job is trained: `method`, or the `hyperparameters` that stood in its place before December 2024.

use serde_json::{Map, Value};

use super::{JobRequestError, Members};

/// The most epochs.
const MOST_EPOCHS: u64 = 50;
/// The largest rank of an adapter.
const LARGEST_RANK: u64 = 256;
/// Longest list of an adapter's matrices, bytes.
const LONGEST_MODULES: usize = 256;
/// The largest batch.
const LARGEST_BATCH: u64 = 256;

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// On examples.
    Supervised,
    /// On pairs of a better and a worse answer.
    Dpo,
    /// On the marks of a grader.
    Reinforcement,
}

impl MethodKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Supervised, Self::Dpo, Self::Reinforcement];

    /// OpenAI's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervised => "supervised",
            Self::Dpo => "dpo",
            Self::Reinforcement => "reinforcement",
        }
    }

    /// Reads back what [`MethodKind::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How often the data is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    /// The provider chooses.
    Auto,
    /// So often.
    Of(u64),
}

/// Reads both members. The one inside `method` counts; told twice, both must say the same.
pub(super) fn read(
    method: Option<&Value>,
    top: Option<&Value>,
) -> Result<(MethodKind, Epochs), JobRequestError> {
    let top_epochs = match top {
        Some(top) => hyperparameters("hyperparameters", MethodKind::Supervised, top)?,
        None => None,
    };
    let Some(method) = method else {
        return Ok((MethodKind::Supervised, top_epochs.unwrap_or(Epochs::Auto)));
    };
    let (kind, epochs) = read_method(method)?;
    match (epochs, top_epochs) {
        (Some(inner), Some(outer)) if inner != outer => Err(JobRequestError::invalid(
            "hyperparameters",
            "`method` says something else: write them there only",
        )),
        (epochs, top_epochs) => Ok((kind, epochs.or(top_epochs).unwrap_or(Epochs::Auto))),
    }
}

fn read_method(method: &Value) -> Result<(MethodKind, Option<Epochs>), JobRequestError> {
    let object = method.as_object().ok_or_else(|| JobRequestError::wrong_type("method", "an object"))?;
    let members = Members(object);
    let word = members.get("type").ok_or_else(|| JobRequestError::missing("method.type"))?;
    let kind = word.as_str().and_then(MethodKind::from_name).ok_or_else(|| {
        JobRequestError::invalid("method.type", "write `supervised`, `dpo` or `reinforcement`")
    })?;
    for (name, value) in object {
        if name != "type" && name != kind.name() && !value.is_null() {
            let param = format!("method.{name}");
            return Err(match MethodKind::from_name(name) {
                Some(_) => JobRequestError::invalid(&param, format!("`method.type` is `{}`", kind.name())),
                None => JobRequestError::unknown(&param),
            });
        }
    }
    let at = format!("method.{}", kind.name());
    let Some(settings) = members.get(kind.name()) else {
        return match kind {
            MethodKind::Reinforcement => Err(JobRequestError::missing(&format!("{at}.grader"))),
            MethodKind::Supervised | MethodKind::Dpo => Ok((kind, None)),
        };
    };
    let settings = settings.as_object().ok_or_else(|| JobRequestError::wrong_type(&at, "an object"))?;
    Ok((kind, read_settings(&at, kind, settings)?))
}

fn read_settings(
    at: &str,
    kind: MethodKind,
    settings: &Map<String, Value>,
) -> Result<Option<Epochs>, JobRequestError> {
    let members = Members(settings);
    // the words of a grader are its provider's: they grow faster than we could follow
    let taken: &[&str] = match kind {
        MethodKind::Reinforcement => &["hyperparameters", "grader", "response_format"],
        MethodKind::Supervised | MethodKind::Dpo => &["hyperparameters"],
    };
    if let Some(name) = settings.keys().find(|name| !taken.contains(&name.as_str())) {
        return Err(JobRequestError::unknown(&format!("{at}.{name}")));
    }
    if kind == MethodKind::Reinforcement {
        let param = format!("{at}.grader");
        match members.get("grader") {
            None => return Err(JobRequestError::missing(&param)),
            Some(grader) if !grader.get("type").is_some_and(Value::is_string) => {
                return Err(JobRequestError::missing(&format!("{param}.type")));
            }
            Some(_) => {}
        }
    }
    match members.get("hyperparameters") {
        Some(values) => hyperparameters(&format!("{at}.hyperparameters"), kind, values),
        None => Ok(None),
    }
}

/// Checks each, and returns the epochs where they are said.
fn hyperparameters(at: &str, kind: MethodKind, values: &Value) -> Result<Option<Epochs>, JobRequestError> {
    let object = values.as_object().ok_or_else(|| JobRequestError::wrong_type(at, "an object"))?;
    let mut epochs = None;
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let param = format!("{at}.{name}");
        let range = range_of(kind, name).ok_or_else(|| JobRequestError::unknown(&param))?;
        if matches!(range, Range::Effort | Range::Modules) {
            range.check_word(&param, value)?;
            continue;
        }
        if value == "auto" {
            epochs = epochs.or((name == "n_epochs").then_some(Epochs::Auto));
            continue;
        }
        let number = range.check(&param, value)?;
        if name == "n_epochs" {
            epochs = Some(Epochs::Of(number));
        }
    }
    Ok(epochs)
}

/// What a hyperparameter may be.
enum Range {
    /// A whole number of 1 to so much.
    Whole(u64),
    /// A number above the first, up to the second.
    Above(f64, f64),
    /// A number of 0 and more.
    FromZero,
    /// One of a few words.
    Effort,
    /// Names of a model's matrices.
    Modules,
}

fn range_of(kind: MethodKind, name: &str) -> Option<Range> {
    let reinforcement = kind == MethodKind::Reinforcement;
    Some(match name {
        "n_epochs" => Range::Whole(MOST_EPOCHS),
        "batch_size" => Range::Whole(LARGEST_BATCH),
        "learning_rate_multiplier" => Range::Above(0.0, f64::INFINITY),
        "beta" if kind == MethodKind::Dpo => Range::Above(0.0, 2.0),
        "compute_multiplier" if reinforcement => Range::Above(0.000_01, 10.0),
        "eval_interval" | "eval_samples" if reinforcement => Range::Whole(u64::MAX),
        "reasoning_effort" if reinforcement => Range::Effort,
        // of adapters, as other servers than OpenAI's know them: our own worker does
        "lora_r" if !reinforcement => Range::Whole(LARGEST_RANK),
        "lora_alpha" if !reinforcement => Range::Above(0.0, f64::INFINITY),
        "lora_dropout" if !reinforcement => Range::FromZero,
        "lora_trainable_modules" if !reinforcement => Range::Modules,
        // of the first API and of Azure's
        "prompt_loss_weight" if kind == MethodKind::Supervised => Range::FromZero,
        _ => return None,
    })
}

impl Range {
    /// Checks a number, and returns it where it is whole.
    fn check(&self, param: &str, value: &Value) -> Result<u64, JobRequestError> {
        let number =
            value.as_f64().ok_or_else(|| JobRequestError::wrong_type(param, "a number or \"auto\""))?;
        let fits = match self {
            Self::Whole(most) => return whole(param, value, *most),
            Self::Above(least, most) => number > *least && number <= *most,
            Self::FromZero => number >= 0.0,
            Self::Effort | Self::Modules => false,
        };
        match (fits, self) {
            (true, _) => Ok(0),
            (false, Self::Above(least, most)) if most.is_finite() => {
                Err(JobRequestError::invalid(param, format!("it is not above {least} and at most {most}")))
            }
            (false, Self::Above(least, _)) => {
                Err(JobRequestError::invalid(param, format!("it is not above {least}")))
            }
            (false, _) => Err(JobRequestError::invalid(param, "it is below 0")),
        }
    }

    fn check_word(&self, param: &str, value: &Value) -> Result<(), JobRequestError> {
        match value.as_str() {
            Some(names)
                if matches!(self, Self::Modules) && !names.is_empty() && names.len() <= LONGEST_MODULES =>
            {
                Ok(())
            }
            _ if matches!(self, Self::Modules) => {
                Err(JobRequestError::invalid(param, "write `all-linear`, or names such as `q_proj,v_proj`"))
            }
            Some("default" | "low" | "medium" | "high") => Ok(()),
            _ => Err(JobRequestError::invalid(param, "write `default`, `low`, `medium` or `high`")),
        }
    }
}

/// A whole number; `3.0` is one, as some clients write it.
fn whole(param: &str, value: &Value, most: u64) -> Result<u64, JobRequestError> {
    let number = value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
        format!("{number:.0}").parse().ok()
    });
    match number {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        _ if most == u64::MAX => {
            Err(JobRequestError::invalid(param, "it is not a whole number of 1 or more"))
        }
        _ => Err(JobRequestError::invalid(
            param,
            format!("it is not a whole number of 1 to {most}, nor \"auto\""),
        )),
    }
}
