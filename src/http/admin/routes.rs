//! `/admin/v1/routes`: where each name leads, how its deployments stand, and why a request would go where it goes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{self, Name};
use super::query::moment;
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::form::{Form, Problem};
use crate::control::keys::KeysError;
use crate::control::teams::TeamsError;
use crate::domain::catalog::Resolved;
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::ModelName;
use crate::domain::label::{MAX_TAGS, TAG_RULE, tag_is_good};
use crate::domain::request::InferenceRequest;
use crate::gateway::admit::Admitted;
use crate::gateway::{Explanation, Question};
use crate::http::{respond, router};

/// By one of these a body is known that is the request itself.
const OF_REQUESTS: [&str; 3] = ["messages", "input", "prompt"];

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/routes", get(list))
        .route("/admin/v1/routes/{model}", get(show))
        .route("/admin/v1/routes/{model}/explain", post(explain))
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    Json(json!({"object": "list", "data": admin.gateway.routes()})).into_response()
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    admin.gateway.route(&name).map_or_else(|| unknown(&name), |route| Json(route).into_response())
}

fn unknown(name: &str) -> Response {
    let words = format!("no model, alias or pattern of the catalog leads {name:?} anywhere");
    error(StatusCode::NOT_FOUND, &words, "model_not_found")
}

/// An explanation, and what the client would be told where nobody can be asked.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    explanation: Explanation,
    refusal: Option<Value>,
}

async fn explain(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let model = ModelName::parse(&name).ok();
    let resolved = model.as_ref().and_then(|model| admin.gateway.catalog.load().catalog.resolve(model));
    let Some((model, resolved)) = model.zip(resolved) else { return unknown(&name) };
    let body = match body::read(&body) {
        Ok(body) => enveloped(body),
        Err(refused) => return *refused,
    };
    let question = match question(&admin, &body, &model, &resolved).await {
        Ok(question) => question,
        Err(refused) => return *refused,
    };
    match admin.gateway.explain(question).await {
        Ok(explanation) => {
            let refusal = explanation.refusal.as_ref().map(|refusal| {
                let status = respond::status(refusal).as_u16();
                json!({"status": status, "code": refusal.code(), "message": refusal.to_string()})
            });
            Json(Told { explanation, refusal }).into_response()
        }
        Err(refusal) => router::refused(&refusal),
    }
}

/// A body that is the request itself, put where an envelope has it.
fn enveloped(body: Value) -> Value {
    match OF_REQUESTS.iter().any(|member| body.get(member).is_some()) {
        true => json!({"request": body}),
        false => body,
    }
}

/// Reads what is asked: every problem is told at once.
async fn question(
    admin: &Admin,
    body: &Value,
    model: &ModelName,
    resolved: &Resolved,
) -> Result<Question, Box<Response>> {
    let named = |member: &str| body.get(member).and_then(Value::as_str);
    let key = match named("key") {
        Some(name) => Some(key(admin, name, model, resolved).await?),
        None => None,
    };
    let team = match named("team") {
        Some(name) => Some(team(admin, name).await?),
        None => None,
    };
    let read = read(body, model, key, team);
    read.map_err(|problems| Box::new(invalid("nothing can be explained of what was sent", &problems)))
}

/// Whose request it would be, or why it can't be theirs.
type Whose = Result<Admitted, String>;

async fn key(
    admin: &Admin,
    name: &str,
    model: &ModelName,
    resolved: &Resolved,
) -> Result<Whose, Box<Response>> {
    let now_ms = clock::unix_ms();
    let listed = match admin.keys.get(name, now_ms).await {
        Ok(listed) => listed,
        Err(why @ KeysError::Unknown(_)) => return Ok(Err(why.to_string())),
        Err(why) => return Err(Box::new(store_failed(&why))),
    };
    let ended = |at_ms: Option<i64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
    let allowed = &listed.key.terms.models;
    Ok(if listed.key.revoked_at_ms.is_some() || ended(listed.key.terms.expires_at_ms) {
        Err(format!("the key {name} is revoked or has expired: whatever it asks is refused"))
    } else if !resolved.is_for(model, &listed.key) {
        let models = allowed.iter().collect::<Vec<_>>().join(", ");
        Err(format!("the key {name} may not ask for this model, only for {models}"))
    } else {
        Ok(Admitted { key: Arc::new(listed.key), team: listed.team })
    })
}

async fn team(admin: &Admin, name: &str) -> Result<Whose, Box<Response>> {
    match admin.teams.get(name).await {
        Ok(listed) => Ok(Ok(Admitted::operator(Some(listed.team)))),
        Err(why @ TeamsError::Unknown(_)) => Ok(Err(why.to_string())),
        Err(why) => Err(Box::new(store_failed(&why))),
    }
}

fn read(
    body: &Value,
    model: &ModelName,
    key: Option<Whose>,
    team: Option<Whose>,
) -> Result<Question, Vec<Problem>> {
    let form = Form::new(body);
    if key.is_some() && team.is_some() {
        form.wrong("team", "contradicts `key`: a key has its own team");
    }
    let whose = |name: &str, found: Option<Whose>| {
        form.read(name, |value| match value.as_str() {
            Some(_) => found.unwrap_or_else(|| Err("not a text".to_owned())),
            None => Err("not a text".to_owned()),
        })
    };
    let (key, team) = (whose("key", key).flatten(), whose("team", team).flatten());
    let endpoint = form.read("endpoint", endpoint).flatten();
    let end_user = form.text("end_user").flatten().map(Arc::from);
    let rule = |tag| if tag_is_good(tag) { Ok(Arc::from(tag)) } else { Err(TAG_RULE) };
    let tags = form.list("tags", MAX_TAGS, rule).unwrap_or_default();
    let headers = form.read("headers", headers).flatten().unwrap_or_default();
    let at_ms = form.read("at", |value| {
        let at = value.as_str().and_then(moment);
        at.ok_or("no time: write 2026-11-22 or 2026-11-22T13:45:00Z")
    });
    let request = form.read("request", |value| value.as_object().ok_or("not a JSON object")).flatten();
    let request = match request {
        Some(request) => parsed(request, endpoint, model, &form),
        None => {
            if body.get("request").is_none_or(Value::is_null) {
                form.wrong("request", "missing: the request's body, as a client would send it");
            }
            None
        }
    };
    let whose = key.or(team).unwrap_or_else(|| Admitted::operator(None));
    let at_ms = at_ms.flatten();
    let Some(request) = request else { return form.finish(()).and_then(|()| Err(Vec::new())) };
    form.finish(Question { whose, request, end_user, tags, headers, at_ms })
}

/// The request, read as at the data address; the model in the path wins.
fn parsed(
    request: &Map<String, Value>,
    endpoint: Option<Endpoint>,
    model: &ModelName,
    form: &Form<'_>,
) -> Option<InferenceRequest> {
    let endpoint = endpoint.unwrap_or_else(|| usual_endpoint(request));
    let bytes = Value::Object(request.clone()).to_string().into();
    match InferenceRequest::parse(endpoint, bytes, Some(model.as_str())) {
        Ok(request) => Some(request),
        Err(why) => {
            let place = why.param().map_or_else(|| "request".to_owned(), |param| format!("request.{param}"));
            form.wrong(&place, why);
            None
        }
    }
}

/// Where a request of these members is usually sent.
fn usual_endpoint(request: &Map<String, Value>) -> Endpoint {
    let has = |member: &str| request.contains_key(member);
    match (has("messages"), has("input"), request.get("prompt")) {
        (false, true, _) => Endpoint::Responses,
        (false, false, Some(Value::String(_) | Value::Array(_))) => Endpoint::Completions,
        _ => Endpoint::ChatCompletions,
    }
}

fn endpoint(value: &Value) -> Result<Endpoint, String> {
    let found = Endpoint::ALL.into_iter().find(|endpoint| value.as_str() == Some(endpoint.name()));
    found.ok_or_else(|| format!("not one of {}", Endpoint::ALL.map(Endpoint::name).join(", ")))
}

/// Headers as routes look at them: names in lower case.
fn headers(value: &Value) -> Result<Vec<(Arc<str>, String)>, String> {
    let given = value.as_object().ok_or("not an object of texts")?;
    let wrong: Vec<&str> =
        given.iter().filter(|(_, value)| !value.is_string()).map(|(name, _)| name.as_str()).collect();
    if !wrong.is_empty() {
        return Err(format!("not texts: {}", wrong.join(", ")));
    }
    let text = |(name, value): (&String, &Value)| {
        (name.to_ascii_lowercase().into(), value.as_str().unwrap_or_default().to_owned())
    };
    Ok(given.iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_members() {
        for (members, endpoint) in [
            (json!({"messages": []}), Endpoint::ChatCompletions),
            (json!({"input": "x"}), Endpoint::Responses),
            (json!({"prompt": {"id": "pmpt_1"}, "input": "x"}), Endpoint::Responses),
            (json!({"prompt": "x"}), Endpoint::Completions),
            (json!({"prompt": ["x"]}), Endpoint::Completions),
            (json!({}), Endpoint::ChatCompletions),
        ] {
            assert_eq!(usual_endpoint(members.as_object().expect("an object")), endpoint, "{members}");
        }
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let model = ModelName::parse("m").expect("a name");
        let nobody = || Some(Err("there is no such key".to_owned()));
        let paths = |body: Value, key, team| -> Vec<String> {
            let problems = read(&enveloped(body), &model, key, team).err().unwrap_or_default();
            problems.into_iter().map(|problem| problem.path).collect()
        };
        let whole = json!({"request": {"messages": [{}]}, "endpoint": "chat.completions", "end_user": "u",
            "tags": ["a"], "headers": {"X-A": "b"}, "at": "2027-01-14"});
        assert!(paths(whole, None, None).is_empty());
        assert!(paths(json!({"messages": [{}]}), None, None).is_empty());
        let wrong = json!({"request": {"stream": 1}, "endpoint": "images", "end_user": 1, "tags": ["a b"],
            "headers": {"x": 1}, "at": "soon", "key": "k", "odd": 1});
        assert_eq!(
            paths(wrong, nobody(), None),
            ["at", "end_user", "endpoint", "headers", "key", "odd", "request.messages", "tags[0]"]
        );
        assert_eq!(paths(json!({}), None, None), ["request"]);
        assert_eq!(paths(json!({"request": []}), None, None), ["request"]);
        assert_eq!(paths(json!({"messages": [{}], "stream": 1}), None, None), ["request.stream"]);
        let both = json!({"request": {"messages": [{}]}, "key": "k", "team": "t"});
        let operator = || Some(Ok(Admitted::operator(None)));
        assert_eq!(paths(both, operator(), operator()), ["team"]);
    }

    #[test]
    fn names_of_headers_are_in_lower_case() {
        let read = headers(&json!({"X-Beta": "On"})).expect("texts");
        assert_eq!(read, [("x-beta".into(), "On".to_owned())]);
    }
}
