//! Refusal → status and OpenAI's envelope. The only status codes of the data plane stand here.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::domain::breaker::State;
use crate::domain::budget::Exceeded;
use crate::gateway::board::Unready;
use crate::gateway::prompts::Unput;
use crate::gateway::{Nobody, Refusal};
use crate::provider::Fault;
use crate::tuning::TuningError;
use crate::upstream::UpstreamError;

/// A client is told when to come again only where it may as well wait, seconds.
const LONGEST_WAIT_S: u64 = 3_600;

/// The status of a refusal.
pub(super) fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoKey | Refusal::WrongKey(_) | Refusal::KeyEnded { .. } => StatusCode::UNAUTHORIZED,
        Refusal::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Request(_) | Refusal::CacheControl(_) | Refusal::Framing(_) | Refusal::BodyBroken => {
            StatusCode::BAD_REQUEST
        }
        Refusal::UnknownModel(_)
        | Refusal::EndpointNotServed { .. }
        | Refusal::UnknownResponse(_)
        | Refusal::UnknownRequest(_)
        | Refusal::UnknownFile(_)
        | Refusal::UnsupportedEndpoint(_) => StatusCode::NOT_FOUND,
        Refusal::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Refusal::Upstream { error: UpstreamError::Timeout(_), .. } => StatusCode::GATEWAY_TIMEOUT,
        Refusal::UpstreamFault { fault: Fault::Quota | Fault::Transient, .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Refusal::UpstreamFault { fault: Fault::Wait | Fault::TooLarge, .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::UpstreamFault {
            fault: Fault::ContextLength | Fault::ContentFilter | Fault::Unsupported | Fault::Told,
            ..
        } => StatusCode::BAD_REQUEST,
        Refusal::Upstream { .. } | Refusal::UpstreamFault { .. } => StatusCode::BAD_GATEWAY,
        Refusal::Budget { status, .. } => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
        }
        Refusal::Unbounded(_) => StatusCode::BAD_REQUEST,
        Refusal::Prompt(why) => match **why {
            Unput::Unknown(_) => StatusCode::NOT_FOUND,
            Unput::NotAllowed(_) => StatusCode::FORBIDDEN,
            Unput::Absent(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Unput::Values(..) | Unput::Render { .. } | Unput::Unfit(_) => StatusCode::BAD_REQUEST,
        },
        Refusal::Unpriced { .. } => StatusCode::FORBIDDEN,
        Refusal::LedgerAway(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NoCandidate { out, .. } => match Nobody::of(out) {
            Nobody::ForThisRequest | Nobody::OfItsLength | Nobody::WithThatMember(_) | Nobody::WhoMadeIt => {
                StatusCode::BAD_REQUEST
            }
            Nobody::Rested { .. } => StatusCode::TOO_MANY_REQUESTS,
            Nobody::Now { .. } => StatusCode::SERVICE_UNAVAILABLE,
        },
        // it asked for time: as where nobody is asked at all for that reason
        Refusal::Busy { unready: Unready::Shut { state: State::CoolingDown { .. }, .. }, .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Refusal::Busy { unready: Unready::Shut { .. }, .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        // nobody reads it; nginx's number for it is known to operators
        Refusal::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
    }
}

/// OpenAI's `type` for a status.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        other if other.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// An error in OpenAI's envelope.
pub(super) fn envelope(status: StatusCode, message: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    envelope_json(status, message, param, code).to_string().into()
}

/// The same, for those who add to it.
pub(super) fn envelope_json(
    status: StatusCode,
    message: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Value {
    json!({"error": {"message": message, "type": kind(status), "param": param, "code": code}})
}

/// The body of a refusal.
pub(super) fn body(refusal: &Refusal) -> Bytes {
    if let Refusal::Budget { exceeded, .. } = refusal {
        return budget_envelope(refusal, exceeded);
    }
    let mut body =
        envelope_json(status(refusal), &refusal.to_string(), refusal.param(), Some(refusal.code()));
    if let Refusal::Limited(limited) = refusal {
        body["error"]["type"] = limited.limit.kind().into();
    }
    body.to_string().into()
}

/// OpenAI's own words for an account without money, which careful clients take for "stop", and our figures beside them.
fn budget_envelope(refusal: &Refusal, exceeded: &Exceeded) -> Bytes {
    let error = json!({"error": {
        "message": refusal.to_string(),
        "type": "insufficient_quota",
        "param": null,
        "code": refusal.code(),
        "budget": exceeded,
    }});
    error.to_string().into()
}

/// The status of what the training plane refuses.
pub(super) fn tuning_status(error: &TuningError) -> StatusCode {
    match error {
        TuningError::NotFound { .. } | TuningError::NoSuchRoute(_) => StatusCode::NOT_FOUND,
        TuningError::Forbidden { .. } | TuningError::Unpriced(_) => StatusCode::FORBIDDEN,
        TuningError::Invalid { .. } => StatusCode::BAD_REQUEST,
        TuningError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        TuningError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        TuningError::Conflict { .. } => StatusCode::CONFLICT,
        TuningError::Budget { .. } => StatusCode::TOO_MANY_REQUESTS,
        // what the provider says of the request is the client's to hear; of us, it is not
        TuningError::Provider { status: 400 | 404 | 409 | 422, .. } => StatusCode::BAD_REQUEST,
        TuningError::Provider { status: 403, .. } => StatusCode::FORBIDDEN,
        TuningError::Provider { status: 429, .. } => StatusCode::TOO_MANY_REQUESTS,
        TuningError::Provider { .. } | TuningError::ProviderAway { .. } => StatusCode::BAD_GATEWAY,
        TuningError::StorageFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        TuningError::Busy(_) | TuningError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The body of what the training plane refuses.
pub(super) fn tuning_body(error: &TuningError) -> Bytes {
    let mut body = envelope_json(tuning_status(error), &error.to_string(), error.param(), Some(error.code()));
    if let TuningError::Budget { exceeded, .. } = error {
        body["error"]["type"] = "insufficient_quota".into();
        body["error"]["budget"] = json!(exceeded);
    }
    body.to_string().into()
}

/// Its headers.
pub(super) fn tuning_headers(error: &TuningError) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let no_retry = matches!(error, TuningError::Budget { .. } | TuningError::StorageFull(_));
    if no_retry {
        headers.push((HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false")));
    }
    if matches!(error, TuningError::Busy(_)) {
        headers.push((header::RETRY_AFTER, HeaderValue::from_static("5")));
    }
    headers
}

/// The headers of a refusal. Clients retry every 5xx unless told not to; where no retry can help, they are told.
pub(super) fn headers(refusal: &Refusal) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if let Refusal::Budget { retry_after_s: Some(wait @ ..=LONGEST_WAIT_S), .. } = refusal {
        headers.push((header::RETRY_AFTER, HeaderValue::from(*wait)));
    }
    if no_retry_helps(refusal) {
        headers.push((HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false")));
    }
    if let Some(ms) = retry_after_ms(refusal) {
        headers.push((header::RETRY_AFTER, ms.div_ceil(1_000).into()));
        headers.push((HeaderName::from_static("retry-after-ms"), ms.into()));
    }
    if let Refusal::MethodNotAllowed { allowed, .. } = refusal {
        headers.push((header::ALLOW, HeaderValue::from_static(allowed)));
    }
    if let Some(name) = refusal.blames_upstream()
        && let Ok(name) = HeaderValue::from_str(name)
    {
        headers.push((HeaderName::from_static("x-tunegate-deployment"), name));
    }
    headers
}

/// Whether coming again is of no use.
fn no_retry_helps(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::UpstreamFault { fault, .. } => !matches!(fault, Fault::Transient | Fault::Wait),
        Refusal::Budget { .. } | Refusal::Unpriced { .. } => true,
        Refusal::Limited(limited) => limited.retry_after_ms.is_none(),
        Refusal::NoCandidate { out, .. } => matches!(Nobody::of(out), Nobody::Now { for_ms: None }),
        _ => false,
    }
}

/// When to come again.
fn retry_after_ms(refusal: &Refusal) -> Option<u64> {
    match refusal {
        Refusal::Limited(limited) => limited.retry_after_ms,
        Refusal::Overloaded(_) => Some(1_000),
        Refusal::Busy { unready, .. } => Some(unready.retry_after_ms().max(1_000)),
        Refusal::NoCandidate { out, .. } => match Nobody::of(out) {
            Nobody::Rested { for_ms } | Nobody::Now { for_ms: Some(for_ms) } => Some(for_ms.max(1_000)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Phase;
    use std::sync::Arc;

    #[test]
    fn each_refusal_has_its_status_and_code() {
        let deployment = || Arc::<str>::from("d");
        let upstream = |error| Refusal::Upstream { deployment: deployment(), error };
        let fault = |fault| Refusal::UpstreamFault {
            deployment: deployment(),
            fault,
            status: 1,
            message: "m".into(),
        };
        for (refusal, status, code) in [
            (Refusal::NoKey, 401, "invalid_api_key"),
            (Refusal::WrongKey("x".into()), 401, "invalid_api_key"),
            (Refusal::KeyEnded { ended_at_ms: 0 }, 401, "invalid_api_key"),
            (Refusal::UnknownModel("x".into()), 404, "model_not_found"),
            (Refusal::UnsupportedEndpoint("/v1/batches".into()), 404, "unsupported_endpoint"),
            (Refusal::Overloaded("requests"), 503, "overloaded"),
            (Refusal::TooLarge(1), 413, "request_too_large"),
            (Refusal::BodyTimeout, 408, "request_timeout"),
            (upstream(UpstreamError::Connect("refused".into())), 502, "upstream_unreachable"),
            (upstream(UpstreamError::Timeout(Phase::FirstByte)), 504, "upstream_timeout"),
            (upstream(UpstreamError::Broken("x".into())), 502, "upstream_broke"),
            (fault(Fault::Auth), 502, "upstream_auth_failed"),
            (fault(Fault::DeploymentMissing), 502, "upstream_deployment_missing"),
            (fault(Fault::Quota), 503, "upstream_quota"),
        ] {
            assert_eq!(super::status(&refusal).as_u16(), status, "{refusal}");
            let body: Value = serde_json::from_slice(&body(&refusal)).expect("JSON");
            assert_eq!(body["error"]["code"], code);
            assert!(body["error"]["type"].is_string() && body["error"]["message"].is_string());
            assert!(body["error"].get("param").is_some());
        }
    }
}
