//! A job as Azure's two APIs are asked for it, and its words made into OpenAI's.
//!
//! Azure keeps no `metadata` in its dated versions: our own id of a job does not travel, the training file tells.

use serde_json::{Map, Value};

use super::NotTaken;
use super::openai::common;
use crate::domain::tuning::JobOrder;

/// Columns of Azure's result files and members of its figures, and OpenAI's names for them.
const COLUMNS: [(&str, &str); 2] = [
    ("train_mean_token_accuracy", "train_accuracy"),
    ("validation_mean_token_accuracy", "valid_mean_token_accuracy"),
];

/// The body of a new job for the v1 API.
pub(super) fn order_v1(order: &JobOrder, training_type: Option<&str>) -> Value {
    let mut body = typed(order, training_type);
    let members = [
        ("method", &order.method),
        ("hyperparameters", &order.hyperparameters),
        ("integrations", &order.integrations),
    ];
    for (member, value) in members {
        if let Some(value) = value {
            body.insert(member.to_owned(), value.clone());
        }
    }
    body.into()
}

/// The body of a new job for a dated version: supervised training only, and every hyperparameter a number.
pub(super) fn order_classic(order: &JobOrder, training_type: Option<&str>) -> Result<Value, NotTaken> {
    let only_v1 = |param, what: &str| NotTaken {
        param,
        message: format!("Azure's classic API takes {what}: set api = \"v1\" for this provider"),
    };
    if order.integrations.as_ref().and_then(Value::as_array).is_some_and(|some| !some.is_empty()) {
        return Err(only_v1("integrations", "no integrations"));
    }
    let mut hyperparameters = numbers(order.hyperparameters.as_ref());
    if let Some(method) = &order.method {
        if method.get("type").and_then(Value::as_str) != Some("supervised") {
            return Err(only_v1("method", "no method but supervised training"));
        }
        let inner = method.get("supervised").and_then(|inner| inner.get("hyperparameters"));
        hyperparameters.extend(numbers(inner));
    }
    let mut body = typed(order, training_type);
    if !hyperparameters.is_empty() {
        body.insert("hyperparameters".to_owned(), hyperparameters.into());
    }
    Ok(body.into())
}

fn typed(order: &JobOrder, training_type: Option<&str>) -> Map<String, Value> {
    let mut body = common(order);
    if let Some(training_type) = training_type {
        body.insert("trainingType".to_owned(), training_type.into());
    }
    body
}

/// The hyperparameters that are numbers: `auto` is said by saying nothing.
fn numbers(written: Option<&Value>) -> Map<String, Value> {
    let all = written.and_then(Value::as_object).into_iter().flatten();
    all.filter(|(_, value)| value.is_number()).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The first line of a result file, with OpenAI's names for its columns.
pub(super) fn header(line: &str) -> String {
    let renamed = |column: &str| {
        let known = COLUMNS.iter().find(|(azure, _)| *azure == column.trim());
        known.map_or_else(|| column.to_owned(), |(_, openai)| (*openai).to_owned())
    };
    line.split(',').map(renamed).collect::<Vec<_>>().join(",")
}

/// The figures of an event or a checkpoint, with OpenAI's names. There `train_mean_token_accuracy` is OpenAI's too.
pub(super) fn figures(figures: &mut Value) {
    let Some(members) = figures.as_object_mut() else { return };
    let (azure, openai) = COLUMNS[1];
    if let Some(value) = members.remove(azure) {
        members.entry(openai).or_insert(value);
    }
}
