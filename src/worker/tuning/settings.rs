//! What a job is trained with: the hyperparameters that were asked for, and the rules of those that were left to us.
//!
//! Rules of `auto` (docs/LOCAL-TUNING.md has the sweep behind them):
//!
//! * `n_epochs`: 2;
//! * `batch_size`: 1 below 128 rows, then one in 128, at most 16;
//! * `learning_rate_multiplier`: 1, of 0.001 for examples and 0.0001 for preferences.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tunegate_engine::adapter::{LoraConfig, Target};
use tunegate_engine::train::{Decay, Method, Settings as Training};

use crate::domain::tuning::request::{Epochs, JobRequest, MethodKind};
use crate::worker::wire::Refusal;

/// What a multiplier of 1 stands for, for examples. The prototype's, of rank 8 and one row a step.
const RATE_OF_EXAMPLES: f64 = 1e-3;
/// The same for preferences, which unlearn the rest at higher ones.
const RATE_OF_PREFERENCES: f64 = 1e-4;
/// The share of all steps in which the rate rises.
const WARMUP: f64 = 0.05;
/// Where gradients are cut off, by their common length.
const CLIP: f64 = 1.0;
/// How far preferences may lead from the base: OpenAI's default.
const BETA: f64 = 0.1;
/// Epochs where nobody says: the sweep of docs/LOCAL-TUNING.md.
const AUTO_EPOCHS: u64 = 2;
/// Rows for one more row in a batch.
const ROWS_A_BATCH: u64 = 128;
const LARGEST_AUTO_BATCH: u64 = 16;

/// What a job asks for; what is none is chosen once the rows are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Asked {
    pub(in crate::worker) kind: Kind,
    pub(in crate::worker) epochs: Option<u64>,
    pub(in crate::worker) batch: Option<u64>,
    pub(in crate::worker) rate_multiplier: Option<f64>,
    pub(in crate::worker) beta: Option<f64>,
    pub(in crate::worker) rank: usize,
    pub(in crate::worker) alpha: f64,
    pub(in crate::worker) dropout: f64,
    pub(in crate::worker) targets: Vec<String>,
}

/// How a model learns here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::worker) enum Kind {
    /// From examples.
    Supervised,
    /// From preferences.
    Dpo,
}

impl From<Kind> for MethodKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Supervised => Self::Supervised,
            Kind::Dpo => Self::Dpo,
        }
    }
}

/// What a job is trained with, all of it known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Plan {
    pub(in crate::worker) epochs: u64,
    pub(in crate::worker) batch: u64,
    pub(in crate::worker) rate_multiplier: f64,
}

impl Asked {
    /// Reads what we act on out of a checked request.
    ///
    /// # Errors
    /// What a local model can't be trained with.
    pub(in crate::worker) fn of(request: &JobRequest) -> Result<Self, Refusal> {
        let kind = match request.kind {
            MethodKind::Supervised => Kind::Supervised,
            MethodKind::Dpo => Kind::Dpo,
            MethodKind::Reinforcement => {
                return Err(Refusal::unsupported_value(
                    "method.type",
                    "is not `supervised` or `dpo`, which are what local models learn by",
                ));
            }
        };
        let words = Words { request, kind: request.kind };
        if words.number("prompt_loss_weight")?.is_some_and(|weight| weight != 0.0) {
            return Err(Refusal::unsupported_value(
                "hyperparameters.prompt_loss_weight",
                "is not 0: only answers are learned here",
            ));
        }
        let epochs = match request.epochs {
            Epochs::Auto => None,
            Epochs::Of(epochs) => Some(epochs),
        };
        let rank = words.whole("lora_r")?.unwrap_or(8);
        let asked = Self {
            kind,
            epochs,
            batch: words.whole("batch_size")?,
            rate_multiplier: words.number("learning_rate_multiplier")?,
            beta: words.number("beta")?,
            rank: usize::try_from(rank).unwrap_or(usize::MAX),
            alpha: words.number("lora_alpha")?.unwrap_or(2.0 * as_real(rank)),
            dropout: words.number("lora_dropout")?.unwrap_or(0.0),
            targets: words.targets()?,
        };
        asked.lora().map_err(|why| Refusal::invalid("hyperparameters", &why))?;
        Ok(asked)
    }

    /// The adapter's form.
    ///
    /// # Errors
    /// Why there is no such adapter.
    pub(in crate::worker) fn lora(&self) -> Result<LoraConfig, String> {
        let targets = self.targets.iter().filter_map(|name| target(name)).collect();
        LoraConfig::new(self.rank, self.alpha, self.dropout, targets).map_err(|error| error.to_string())
    }

    /// Chooses what was left to us, by the rows of the training file.
    pub(in crate::worker) fn plan(&self, rows: u64) -> Plan {
        Plan {
            epochs: self.epochs.unwrap_or(AUTO_EPOCHS),
            batch: self
                .batch
                .unwrap_or_else(|| (rows / ROWS_A_BATCH).clamp(1, LARGEST_AUTO_BATCH))
                .min(rows.max(1)),
            rate_multiplier: self.rate_multiplier.unwrap_or(1.0),
        }
    }

    /// What the engine trains with.
    ///
    /// # Errors
    /// As [`Asked::lora`].
    pub(in crate::worker) fn training(&self, plan: &Plan, rows: u64, seed: u64) -> Result<Training, String> {
        let (rate, method) = match self.kind {
            Kind::Supervised => (RATE_OF_EXAMPLES, Method::Sft),
            Kind::Dpo => (RATE_OF_PREFERENCES, Method::Dpo { beta: self.beta.unwrap_or(BETA) }),
        };
        Ok(Training {
            lora: self.lora()?,
            learning_rate: rate * plan.rate_multiplier,
            warmup: WARMUP,
            decay: Decay::Linear,
            weight_decay: 0.0,
            clip: CLIP,
            seed,
            total_steps: plan.steps(rows),
            method,
        })
    }

    /// `hyperparameters` as OpenAI tells them: numbers where they are known, `auto` else.
    pub(in crate::worker) fn told(&self, plan: Option<&Plan>) -> Value {
        let told = |number: Option<Value>| number.unwrap_or_else(|| "auto".into());
        let mut told = json!({
            "n_epochs": told(plan.map(|plan| plan.epochs.into()).or(self.epochs.map(Value::from))),
            "batch_size": told(plan.map(|plan| plan.batch.into()).or(self.batch.map(Value::from))),
            "learning_rate_multiplier":
                told(plan.map(|plan| plan.rate_multiplier.into()).or(self.rate_multiplier.map(Value::from))),
            "lora_r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "lora_trainable_modules": self.targets.join(","),
        });
        if self.kind == Kind::Dpo {
            told["beta"] = self.beta.unwrap_or(BETA).into();
        }
        told
    }
}

impl Plan {
    /// Steps of one epoch.
    pub(in crate::worker) const fn steps_an_epoch(&self, rows: u64) -> u64 {
        rows.div_ceil(self.batch)
    }

    /// Steps of the whole run.
    pub(in crate::worker) const fn steps(&self, rows: u64) -> u64 {
        self.steps_an_epoch(rows) * self.epochs
    }
}

fn target(name: &str) -> Option<Target> {
    Target::ALL.into_iter().find(|target| target.name() == name)
}

fn as_real(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// The hyperparameters of a request, which has checked their types.
struct Words<'r> {
    request: &'r JobRequest,
    kind: MethodKind,
}

impl Words<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        let method = self.request.method.as_ref();
        let inner = method.and_then(|method| method.get(self.kind.name())?.get("hyperparameters")?.get(name));
        let outer = self.request.hyperparameters.as_ref().and_then(|values| values.get(name));
        inner.or(outer).filter(|value| !value.is_null() && *value != "auto")
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| Refusal::wrong_type(name, "a number", "something else"))
    }

    fn whole(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        // the request has checked that it is one
        Ok(format!("{number:.0}").parse().ok())
    }

    fn targets(&self) -> Result<Vec<String>, Refusal> {
        let all = || Target::ALL.iter().map(|target| target.name().to_owned()).collect();
        let Some(value) = self.get("lora_trainable_modules") else { return Ok(all()) };
        let text = value
            .as_str()
            .ok_or_else(|| Refusal::wrong_type("lora_trainable_modules", "a string", "something else"))?;
        if text == "all-linear" {
            return Ok(all());
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if target(name).is_none() {
                let known: Vec<_> = Target::ALL.iter().map(|target| target.name()).collect();
                return Err(Refusal::invalid(
                    "lora_trainable_modules",
                    &format!("`{name}` is none of {}, nor is the whole `all-linear`", known.join(", ")),
                ));
            }
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hyperparameters: &str) -> Result<Asked, Refusal> {
        let body =
            format!(r#"{{"model": "m", "training_file": "file-1", "hyperparameters": {hyperparameters}}}"#);
        Asked::of(&JobRequest::parse(body.as_bytes()).expect("a request"))
    }

    #[test]
    fn what_is_left_to_us_follows_the_rows() {
        let asked = asked("{}").expect("good");
        for (rows, epochs, batch, steps) in [
            (1, 2, 1, 2),
            (10, 2, 1, 20),
            (15, 2, 1, 30),
            (30, 2, 1, 60),
            (256, 2, 2, 256),
            (9000, 2, 16, 1126),
        ] {
            let plan = asked.plan(rows);
            assert_eq!((plan.epochs, plan.batch, plan.steps(rows)), (epochs, batch, steps), "{rows} rows");
        }
    }

    #[test]
    fn what_is_asked_for_is_kept() {
        let asked = asked(
            r#"{"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5, "lora_r": 4,
                "lora_trainable_modules": "q_proj, v_proj"}"#,
        )
        .expect("good");
        let plan = asked.plan(9);
        assert_eq!((plan.epochs, plan.batch, plan.steps_an_epoch(9)), (2, 4, 3));
        assert_eq!((asked.rank, asked.alpha), (4, 8.0));
        assert_eq!(asked.targets, ["q_proj", "v_proj"]);
        let training = asked.training(&plan, 9, 1).expect("an adapter");
        assert!((training.learning_rate - 0.0005).abs() < 1e-12);
        assert_eq!(training.total_steps, 6);
        assert_eq!(asked.told(Some(&plan))["n_epochs"], 2);
        assert_eq!(asked.told(None)["batch_size"], 4);
    }

    #[test]
    fn what_local_models_do_not_learn_by_is_refused() {
        for (hyperparameters, words) in [
            (r#"{"prompt_loss_weight": 0.1}"#, "only answers are learned"),
            (r#"{"lora_trainable_modules": "q_proj,head"}"#, "`head` is none of q_proj"),
            (r#"{"lora_r": 0}"#, "lora_r"),
        ] {
            let parsed = JobRequest::parse(
                format!(r#"{{"model": "m", "training_file": "f", "hyperparameters": {hyperparameters}}}"#)
                    .as_bytes(),
            );
            let told = match parsed {
                Ok(request) => Asked::of(&request).expect_err(hyperparameters).to_json(),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(words), "{told}");
        }
    }
}
