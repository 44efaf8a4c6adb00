//! A job as OpenAI is asked for it. Our worker and servers of OpenAI's kind take the same.

use serde_json::{Map, Value};

use super::OUR_JOB;
use crate::domain::tuning::JobOrder;

/// The body of a new job: what the client wrote, and our own id of it.
pub(super) fn order(order: &JobOrder) -> Value {
    let mut body = common(order);
    let mut set = |member: &str, value: &Option<Value>| {
        if let Some(value) = value {
            body.insert(member.to_owned(), value.clone());
        }
    };
    set("method", &order.method);
    set("hyperparameters", &order.hyperparameters);
    set("integrations", &order.integrations);
    let mut metadata = order.metadata.clone();
    metadata.insert(OUR_JOB.to_owned(), Value::from(&*order.job_id));
    body.insert("metadata".to_owned(), metadata.into());
    body.into()
}

/// What every dialect has.
pub(super) fn common(order: &JobOrder) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(&*order.model));
    body.insert("training_file".to_owned(), Value::from(&*order.training_file));
    if let Some(file) = &order.validation_file {
        body.insert("validation_file".to_owned(), Value::from(&**file));
    }
    if let Some(suffix) = &order.suffix {
        body.insert("suffix".to_owned(), Value::from(&**suffix));
    }
    if let Some(seed) = order.seed {
        body.insert("seed".to_owned(), seed.into());
    }
    body
}
