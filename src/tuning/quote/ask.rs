//! What somebody wants quoted: read whole, every mistake told at once.

use serde_json::Value;

use super::{FEW_SHOT, MONTHS, Prompts, RETRIEVED, SKU, Studied, Terms};
use crate::control::form::{Form, Problem};
use crate::domain::catalog::Catalog;
use crate::domain::economics::{Lesson, Load};
use crate::domain::price::read::moment;
use crate::domain::tuning::target::{Target, Targets};
use crate::domain::usage::TokenCounts;

/// More than anything real, and far from where sums stop.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// Targets that may be asked for by name.
const MOST_TARGETS: usize = 50;

/// The data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A stored file, by its id.
    File(String),
    /// Its figures, whoever has counted them: the same for all targets.
    Figures(Studied),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The data set.
    pub data: Data,
    /// Passes over it; none: as many as a provider is thought to make.
    pub epochs: Option<u32>,
    /// Whose last 30 days stand for the traffic.
    pub route: Option<String>,
    /// A month's traffic, said by whoever asks.
    pub traffic: Option<Load>,
    /// Base models, as a job would name them; none for all.
    pub targets: Vec<String>,
    /// For which moment, ms since 1970 UTC; none for now.
    pub at_ms: Option<i64>,
    /// What is taken for granted.
    pub terms: Terms,
}

impl Ask {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Vec<Problem>> {
        let form = Form::new(body);
        let number = |name: &str, from: u64, to: u64| form.number(name, from..=to).flatten();
        let file = form.text("file").flatten().map(|id| Data::File(id.to_owned()));
        let figures = form.object("figures", figures).flatten().map(Data::Figures);
        match (&file, &figures) {
            (Some(_), Some(_)) => form.wrong("figures", "contradicts `file`: keep one"),
            (None, None) if !form.has("file") && !form.has("figures") => {
                form.wrong("file", "missing: the id of a stored file, or its `figures`");
            }
            _ => {}
        }
        let route = form.text("route").flatten().map(str::to_owned);
        let traffic = form.object("traffic", traffic).flatten();
        if route.is_some() && traffic.is_some() {
            form.wrong("traffic", "contradicts `route`: keep one");
        }
        let prompts = form.read("traffic_prompts", |value| match value.as_str() {
            Some("short") => Ok(Prompts::Short),
            Some("long") => Ok(Prompts::Long),
            _ => Err("not short (as a fine-tuned model's) or long (with the base model's examples)"),
        });
        let at_ms = form.read("at", |value| {
            value.as_str().and_then(moment).ok_or("no day: write one such as 2026-11-21")
        });
        let targets = form.list("targets", MOST_TARGETS, |name| match name.trim() {
            "" => Err("empty"),
            name => Ok(name.to_owned()),
        });
        let terms = Terms {
            months: number("months", 1, 120).unwrap_or(MONTHS),
            few_shot: number("few_shot", 0, 1_000).unwrap_or(FEW_SHOT),
            prompt_tokens: number("prompt_tokens", 0, 10_000_000),
            retrieval_tokens: number("retrieval_tokens", 0, 10_000_000).unwrap_or(RETRIEVED),
            traffic_prompts: prompts.flatten().unwrap_or_default(),
            training_seconds: number("training_seconds", 1, 100_000_000),
            sku: form.text("sku").flatten().unwrap_or(SKU).to_owned(),
        };
        let by_rows = terms.prompt_tokens.is_none() && terms.few_shot > 0;
        if by_rows && matches!(figures, Some(Data::Figures(figures)) if figures.examples == 0) {
            form.wrong(
                "figures.examples",
                "missing: how many rows, as a longer prompt has `few_shot` of them; or say `prompt_tokens`",
            );
        }
        let epochs = number("epochs", 1, 100).and_then(|epochs| u32::try_from(epochs).ok());
        let data = file.or(figures);
        let read = data.map(|data| Self {
            data,
            epochs,
            route,
            traffic,
            targets: targets.unwrap_or_default(),
            at_ms: at_ms.flatten(),
            terms,
        });
        match form.finish(read)? {
            Some(ask) => Ok(ask),
            None => Err(vec![Problem { path: "file".to_owned(), message: "missing".to_owned() }]),
        }
    }
}

/// The targets that are asked for, else all that anybody here is known to train.
///
/// # Errors
///
/// Each name that leads to none.
pub fn targets(catalog: &Catalog, asked: &[String]) -> Result<Vec<Target>, Vec<Problem>> {
    let known = Targets::of(catalog);
    if asked.is_empty() {
        return Ok(known.all().collect());
    }
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for (index, name) in asked.iter().enumerate() {
        match known.resolve(name) {
            Ok(target) => found.push(target),
            Err(why) => {
                problems.push(Problem { path: format!("targets[{index}]"), message: why.to_string() });
            }
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn figures(form: &Form<'_>) -> Studied {
    let given = |name: &str| form.number(name, 0..=MOST_TOKENS).flatten();
    let billed_tokens = given("billed_tokens");
    if billed_tokens.is_none() && !form.has("billed_tokens") {
        form.wrong("billed_tokens", "missing: tokens of all rows, each up to the model's limit");
    }
    let billed_tokens = billed_tokens.unwrap_or_default();
    let tokens = given("tokens").unwrap_or(billed_tokens);
    Studied {
        examples: given("examples").unwrap_or_default(),
        lesson: Lesson { billed_tokens, epochs: given("epochs").unwrap_or(3).clamp(1, 100) },
        tokens,
        assistant_tokens: given("assistant_tokens").unwrap_or_default().min(tokens),
        system_prompt_tokens: given("system_prompt_tokens").unwrap_or_default(),
    }
}

fn traffic(form: &Form<'_>) -> Load {
    let given = |name: &str| {
        let number = form.number(name, 0..=MOST_TOKENS).flatten();
        if number.is_none() && !form.has(name) && name != "cached_tokens" {
            form.wrong(name, "missing: so many a month");
        }
        number.unwrap_or_default()
    };
    let (requests, prompt) = (given("requests"), given("prompt_tokens"));
    let tokens = TokenCounts {
        prompt,
        cached: given("cached_tokens").min(prompt),
        completion: given("completion_tokens"),
        ..TokenCounts::default()
    };
    Load { requests, tokens }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(body: &Value) -> Vec<String> {
        let found = Ask::read(body).err().unwrap_or_default();
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn every_mistake_is_told() {
        for (body, want) in [
            (json!({"file": "file-1"}), &[][..]),
            (json!({"figures": {"billed_tokens": 100_000, "examples": 9}, "route": "bot", "epochs": 3}), &[]),
            (json!({"figures": {"billed_tokens": 100_000}, "few_shot": 0}), &[]),
            (json!({"figures": {"billed_tokens": 100_000}, "prompt_tokens": 900}), &[]),
            (
                json!({"figures": {"billed_tokens": 100_000}}),
                &[
                    "figures.examples: missing: how many rows, as a longer prompt has `few_shot` of them; or say \
                   `prompt_tokens`",
                ],
            ),
            (json!({}), &["file: missing: the id of a stored file, or its `figures`"]),
            (
                json!({"file": "file-1", "figures": {"examples": 1, "x": 1}}),
                &[
                    "figures: contradicts `file`: keep one",
                    "figures.billed_tokens: missing: tokens of all rows, each up to the model's limit",
                    "figures.x: no such member",
                ],
            ),
            (
                json!({"file": 1, "route": "bot", "traffic": {"requests": 1, "prompt_tokens": 2, "completion_tokens": 3},
                    "epochs": 0, "months": 0, "at": "soon", "traffic_prompts": "medium", "targets": [""]}),
                &[
                    "at: no day: write one such as 2026-11-21",
                    "epochs: not a whole number of 1 to 100",
                    "file: not a text",
                    "months: not a whole number of 1 to 120",
                    "targets[0]: empty",
                    "traffic: contradicts `route`: keep one",
                    "traffic_prompts: not short (as a fine-tuned model's) or long (with the base model's examples)",
                ],
            ),
            (
                json!({"file": "file-1", "traffic": {}}),
                &[
                    "traffic.completion_tokens: missing: so many a month",
                    "traffic.prompt_tokens: missing: so many a month",
                    "traffic.requests: missing: so many a month",
                ],
            ),
        ] {
            assert_eq!(problems(&body), want, "{body}");
        }
    }

    #[test]
    fn what_is_left_out_is_the_usual() {
        let ask =
            Ask::read(&json!({"file": "file-1", "few_shot": 0, "sku": "DeveloperTier"})).expect("sound");
        let terms = Terms { few_shot: 0, sku: "DeveloperTier".to_owned(), ..Terms::default() };
        assert_eq!((ask.terms, ask.epochs, ask.data), (terms, None, Data::File("file-1".to_owned())));
    }
}
