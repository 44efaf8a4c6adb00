//! What an evaluation is to ask, as an operator writes it and as its row keeps it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::form::{Form, Problem};
use crate::domain::evaluation::gate::MOST_RULES;
use crate::domain::evaluation::{Gate, Rule, Schema};

/// Most models of one evaluation.
const MOST_MODELS: usize = 8;
/// Most rows of the file that are asked.
const MOST_ROWS: u64 = 10_000;
/// Rows of the file that are asked unless somebody says otherwise.
const USUAL_ROWS: u64 = 200;
/// Most questions at once.
const MOST_AT_ONCE: u64 = 32;
/// Questions at once unless somebody says otherwise.
const USUAL_AT_ONCE: u64 = 4;
/// Longest words for a judge, characters.
const MOST_JUDGE_CHARS: usize = 20_000;
/// Largest seed: one that every JSON reader keeps.
const MOST_SEED: u64 = 1 << 53;
/// Most output tokens that may be asked for.
const MOST_OUTPUT: u64 = 1 << 20;

/// Who pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Payer {
    /// No key and no team: the budgets over everything hold.
    Operator,
    /// A team, by its alias.
    Team(String),
    /// A key, by its id.
    Key(String),
}

/// A model that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    /// As the operator has named it.
    pub(super) name: Arc<str>,
    /// The model that is asked for.
    pub(super) model: Arc<str>,
    /// The only deployment of it that is asked.
    pub(super) only: Option<Arc<str>>,
    /// Whether its loss is asked for, and somebody it leads to can tell it.
    #[serde(default)]
    pub(super) scored: bool,
}

/// A model that marks the answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Judge {
    /// The model that is asked for.
    pub(super) model: Arc<str>,
    /// What it is told.
    pub(super) prompt: Option<String>,
}

/// Everything that is to be asked. Rows of an earlier version are read, too: a member that is added has a `serde(default)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The id of the held-out file.
    pub(super) file: Option<String>,
    /// Its SHA-256.
    pub(super) sha256: Option<String>,
    /// Rows of it that are asked, at most.
    pub(super) rows: u64,
    /// What rows and orders are drawn by.
    pub(super) seed: u64,
    /// Whether the general set is asked.
    pub(super) general: bool,
    /// Whether the loss of the file's answers is asked for.
    #[serde(default)]
    pub(super) loss: bool,
    /// The models; the others are compared with the first.
    pub(super) models: Vec<Candidate>,
    /// Who marks the answers.
    pub(super) judge: Option<Judge>,
    /// What answers are held against.
    pub(super) schema: Option<Value>,
    /// What is asked of the models.
    pub(super) gate: Vec<String>,
    /// Who pays.
    pub(super) payer: Payer,
    /// Questions at once.
    pub(super) concurrency: u64,
    /// The temperature that is asked for; none leaves it to the model.
    pub(super) temperature: Option<f64>,
    /// The cap on each answer.
    pub(super) max_output_tokens: Option<u64>,
    /// Whether the words of the answers stay.
    pub(super) keep_answers: bool,
}

/// What an operator wants, before anything was looked up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    /// The plan, with the models as they were named.
    pub(super) plan: Plan,
    /// The route whose deployments may be named.
    pub(super) route: Option<String>,
    /// Whether a gate was named; else it is the route's.
    pub(super) has_gate: bool,
}

impl Plan {
    /// The rules that are asked.
    pub(super) fn gate(&self) -> Gate {
        // they were read when the plan was made
        Gate::new(self.gate.iter().filter_map(|rule| rule.parse().ok()).collect())
    }

    /// What answers are held against, ready to be asked.
    pub(super) fn schema(&self) -> Option<Schema> {
        self.schema.as_ref().and_then(|schema| Schema::read(schema).ok())
    }
}

impl Order {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(super) fn read(body: &Value) -> Result<Self, Vec<Problem>> {
        let form = Form::new(body);
        let text = |name: &str| form.text(name).flatten().map(ToOwned::to_owned);
        let number = |name: &str, range, usual| form.number(name, range).flatten().unwrap_or(usual);
        let yes = |name: &str| {
            let read = form.read(name, |value| value.as_bool().ok_or("true or false stands here"));
            read.flatten().unwrap_or(false)
        };
        let (file, general) = (text("file"), yes("general"));
        if file.is_none() && !general && !form.has("file") {
            form.wrong(
                "file",
                "missing: the id of an uploaded file, or `general: true` for the general set alone",
            );
        }
        let gate = form.list("gate", MOST_RULES, str::parse::<Rule>);
        let models = models(&form);
        for (at, rule) in gate.iter().flatten().enumerate() {
            let base = models.first().map(|base| &*base.name);
            if rule.compares_with().is_some_and(|named| Some(named) != base) {
                let what = "the base is the first of `models`: name that, or write `base`";
                form.wrong(&format!("gate[{at}]"), what);
            }
        }
        let plan = Plan {
            file,
            sha256: None,
            rows: number("rows", 1..=MOST_ROWS, USUAL_ROWS),
            seed: number("seed", 0..=MOST_SEED, 0),
            general,
            loss: yes("loss"),
            models,
            judge: judge(&form),
            schema: schema(&form),
            gate: gate.iter().flatten().map(ToString::to_string).collect(),
            payer: payer(&form),
            concurrency: number("concurrency", 1..=MOST_AT_ONCE, USUAL_AT_ONCE),
            temperature: temperature(&form),
            max_output_tokens: form.number("max_output_tokens", 1..=MOST_OUTPUT).flatten(),
            keep_answers: yes("keep_answers"),
        };
        let order = Self { plan, route: text("route"), has_gate: form.has("gate") };
        form.finish(order)
    }
}

fn models(form: &Form<'_>) -> Vec<Candidate> {
    let named = form.list("models", MOST_MODELS, |name| match name {
        "" => Err("a name is missing"),
        name => Ok(Arc::<str>::from(name)),
    });
    // what is wrong with a list that can't be read was told
    let Some(named) = named.or_else(|| (!form.has("models")).then(Vec::new)) else { return Vec::new() };
    if named.is_empty() {
        form.wrong(
            "models",
            "missing: the names of the models; the first is what the others are compared with",
        );
    }
    let twice = named.iter().enumerate().any(|(at, name)| named[..at].contains(name));
    if twice {
        form.wrong("models", "a model stands there twice");
    }
    let candidate = |name: Arc<str>| Candidate { model: Arc::clone(&name), name, only: None, scored: false };
    named.into_iter().map(candidate).collect()
}

fn judge(form: &Form<'_>) -> Option<Judge> {
    let judge = form.object("judge", |judge| {
        let model = judge.text("model").flatten().unwrap_or_default();
        if model.is_empty() {
            judge.wrong("model", "missing: which model marks the answers?");
        }
        let prompt = judge.text("prompt").flatten();
        if prompt.is_some_and(|prompt| prompt.chars().count() > MOST_JUDGE_CHARS) {
            judge.wrong("prompt", format!("longer than {MOST_JUDGE_CHARS} characters"));
        }
        Judge { model: model.into(), prompt: prompt.map(ToOwned::to_owned) }
    });
    judge.flatten()
}

fn schema(form: &Form<'_>) -> Option<Value> {
    form.read("schema", |value| Schema::read(value).map(|_| value.clone())).flatten()
}

fn payer(form: &Form<'_>) -> Payer {
    match (form.text("key").flatten(), form.text("team").flatten()) {
        (Some(_), Some(_)) => {
            form.wrong("team", "contradicts `key`: a key pays, and with it its team, or a team alone");
            Payer::Operator
        }
        (Some(key), None) => Payer::Key(key.to_owned()),
        (None, Some(team)) => Payer::Team(team.to_owned()),
        (None, None) => Payer::Operator,
    }
}

/// 0 where nothing is said; `null` leaves it to the model.
fn temperature(form: &Form<'_>) -> Option<f64> {
    let read = form.read("temperature", |value| {
        value
            .as_f64()
            .filter(|value| (0.0..=2.0).contains(value))
            .ok_or("a number of 0 to 2, or null, stands here")
    });
    match read {
        None => Some(0.0),
        Some(read) => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_smallest_order_has_sound_defaults() {
        let order = Order::read(&json!({"file": "file-1", "models": ["a", "b"]})).expect("an order");
        let plan = &order.plan;
        assert_eq!((plan.rows, plan.seed, plan.general, plan.concurrency), (200, 0, false, 4));
        assert_eq!((plan.temperature, &plan.payer, order.has_gate), (Some(0.0), &Payer::Operator, false));
        assert!(!plan.loss && !plan.models[0].scored);
        let names: Vec<&str> = plan.models.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["a", "b"]);
        let left =
            Order::read(&json!({"general": true, "models": ["a"], "temperature": null})).expect("an order");
        assert_eq!(left.plan.temperature, None);
        let text = serde_json::to_string(plan).expect("JSON");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("a plan"), *plan);
    }

    #[test]
    fn a_plan_of_the_first_version_is_read() {
        let text = r#"{"file":"file-1","sha256":"ab","rows":200,"seed":0,"general":false,"models":[{"name":"a","model":"a",
            "only":null}],"judge":{"model":"j","prompt":null},"schema":null,"gate":["min exact 0.8"],"payer":{"team":"ops"},
            "concurrency":4,"temperature":0.0,"max_output_tokens":null,"keep_answers":false}"#;
        let plan: Plan = serde_json::from_str(text).expect("a plan");
        assert_eq!((plan.rows, &plan.payer, plan.models.len()), (200, &Payer::Team("ops".to_owned()), 1));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let body = json!({"models": ["a", "a"], "rows": 0, "gate": ["min exact 0.8", "be good"], "judge": {},
            "schema": {"type": "x"}, "key": "k", "team": "t", "temperature": 3, "x": 1});
        let problems = Order::read(&body).expect_err("mistakes");
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let want = ["file", "gate[1]", "judge.model", "models", "rows", "schema", "team", "temperature", "x"];
        assert_eq!(paths, want);
        let rules = ["not worse than a by more than 0 exact", "not worse than b by more than 0 exact"];
        let body = json!({"file": "f", "models": ["a", "b"], "gate": rules});
        let other = Order::read(&body).expect_err("b is not the base");
        assert_eq!((other.len(), other[0].path.as_str()), (1, "gate[1]"), "{other:?}");
        let none = Order::read(&json!({"file": "f", "models": []})).expect_err("no models");
        assert_eq!(none.len(), 1, "{none:?}");
    }
}
