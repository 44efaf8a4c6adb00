//! `POST /v1/tunegate/feedback`: what people thought of an answer, told by the application that asked for it.

use http::Method;
use serde_json::{Map, Value, json};

use super::{Answer, TuningDesk, body};
use crate::clock;
use crate::domain::capture::{Feedback, MOST_TEXT_BYTES, Rating};
use crate::domain::tuning::Caller;
use crate::gateway::ServedRequest;
use crate::http::config::Limits;
use crate::http::exchange::Exchange;
use crate::tuning::TuningError;

/// The members that are read.
const MEMBERS: [&str; 5] = ["request_id", "id", "rating", "comment", "correction"];
/// The longest id, bytes.
const MOST_ID_BYTES: usize = 256;

/// Takes what is said about an answer.
pub(super) async fn hear(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
) -> Result<Answer, TuningError> {
    if exchange.method() != Method::POST {
        return Err(TuningError::NoSuchRoute(format!(
            "{} is not what feedback is told by: POST it",
            exchange.method()
        )));
    }
    let told = body(exchange, limits).await?;
    let (id, said) = read(told.as_ref().and_then(Value::as_object))?;
    let rating = said.rating;
    let served = served(desk, caller, &id).await?;
    let heard = desk.captures.hear(&caller.owner(), &id, said, served, clock::unix_ms()).await?;
    Ok(Answer::Json(json!({
        "object": "tunegate.feedback",
        "request_id": heard.request_id,
        "rating": rating.name(),
        "kept": heard.kept,
    })))
}

/// The request as the gateway knows it, where it is the caller's team's own.
async fn served(desk: &TuningDesk, caller: &Caller, id: &str) -> Result<Option<ServedRequest>, TuningError> {
    let Caller::Key { key, team } = caller else { return Ok(None) };
    let found = desk.gateway.own_request(key, team.as_deref(), id).await;
    found.map_err(|refusal| TuningError::Unavailable(refusal.to_string()))
}

fn read(told: Option<&Map<String, Value>>) -> Result<(String, Feedback), TuningError> {
    let Some(told) = told else {
        return Err(TuningError::Invalid {
            message: "send a JSON object with `request_id` and `rating`".to_owned(),
            param: None,
            code: "invalid_value",
        });
    };
    if let Some(unknown) = told.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let message = format!("there is no such member: feedback has {}", MEMBERS.join(", "));
        return Err(TuningError::invalid(&unknown.chars().take(64).collect::<String>(), message));
    }
    let id = match (text(told, "request_id", MOST_ID_BYTES)?, text(told, "id", MOST_ID_BYTES)?) {
        (Some(_), Some(_)) => {
            return Err(TuningError::invalid("id", "say `request_id` or `id`, not both"));
        }
        (Some(id), None) | (None, Some(id)) => id,
        (None, None) => return Err(TuningError::missing("request_id")),
    };
    let rating = told.get("rating").ok_or_else(|| TuningError::missing("rating"))?;
    let wrong = || TuningError::invalid("rating", "a rating is \"up\" or \"down\", or 1 or -1");
    let said = Feedback {
        rating: Rating::from_json(rating).ok_or_else(wrong)?,
        comment: text(told, "comment", MOST_TEXT_BYTES)?.unwrap_or_default(),
        correction: text(told, "correction", MOST_TEXT_BYTES)?.unwrap_or_default(),
    };
    Ok((id, said))
}

/// A text that may be missing, `null` or empty: then it is none.
fn text(told: &Map<String, Value>, name: &str, most: usize) -> Result<Option<String>, TuningError> {
    match told.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > most => {
            Err(TuningError::invalid(name, format!("longer than {most} bytes")))
        }
        // PostgreSQL keeps none
        Some(Value::String(text)) if text.contains('\0') => {
            Err(TuningError::invalid(name, "a zero character stands in it"))
        }
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(TuningError::invalid(name, "not a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_may_say() {
        let read = |told: &Value| read(told.as_object());
        let (id, said) =
            read(&json!({"id": "chatcmpl-1", "rating": -1, "comment": "no", "correction": "yes"}))
                .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (&*id, said.rating, &*said.comment, &*said.correction),
            ("chatcmpl-1", Rating::Down, "no", "yes")
        );
        let long = "a".repeat(MOST_TEXT_BYTES + 1);
        for (told, param) in [
            (json!([]), None),
            (json!({"rating": "up"}), Some("request_id")),
            (json!({"request_id": "", "rating": "up"}), Some("request_id")),
            (json!({"request_id": 1, "rating": "up"}), Some("request_id")),
            (json!({"request_id": "a", "id": "b", "rating": "up"}), Some("id")),
            (json!({"request_id": "a"}), Some("rating")),
            (json!({"request_id": "a", "rating": "good"}), Some("rating")),
            (json!({"request_id": "a", "rating": "up", "comment": ["x"]}), Some("comment")),
            (json!({"request_id": "a", "rating": "up", "correction": long}), Some("correction")),
            (json!({"request_id": "a", "rating": "up", "corection": "x"}), Some("corection")),
            (json!({"request_id": "a\0", "rating": "up"}), Some("request_id")),
            (json!({"id": "\0", "rating": "up"}), Some("id")),
            (json!({"request_id": "a", "rating": "up", "comment": "x\0y"}), Some("comment")),
            (json!({"request_id": "a", "rating": "up", "correction": "\0"}), Some("correction")),
        ] {
            let Err(error) = read(&told) else { panic!("{told}") };
            assert_eq!(error.param(), param, "{told}");
        }
    }
}
