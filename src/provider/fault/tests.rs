use super::*;

fn openai(kind: &str, code: &str) -> String {
    json!({"error": {"message": "m", "type": kind, "param": null, "code": code}}).to_string()
}

/// OpenAI's shape without a code: the words must do.
fn words(message: &str) -> String {
    json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}})
        .to_string()
}

fn microsoft(code: &str) -> String {
    json!({"error": {"code": code, "message": "m"}}).to_string()
}

#[test]
fn errors_fall_on_whom_they_should() {
    let invalid = |code: &str| openai("invalid_request_error", code);
    let table = [
        // our credential
        (401, invalid("invalid_api_key"), Fault::Auth),
        (403, invalid("unsupported_country_region_territory"), Fault::Auth),
        (401, r#"{"statusCode":401,"message":"Access denied"}"#.to_owned(), Fault::Auth),
        (401, microsoft("PermissionDenied"), Fault::Auth),
        (403, microsoft("AccessDenied"), Fault::Auth),
        // not there
        (404, invalid("model_not_found"), Fault::DeploymentMissing),
        (403, invalid("model_not_found"), Fault::DeploymentMissing),
        (400, invalid("model_not_found"), Fault::DeploymentMissing),
        (404, microsoft("DeploymentNotFound"), Fault::DeploymentMissing),
        (404, microsoft("404"), Fault::DeploymentMissing),
        (404, "<html>".to_owned(), Fault::DeploymentMissing),
        (410, microsoft("ModelDeprecated"), Fault::DeploymentMissing),
        (404, invalid("previous_response_not_found"), Fault::Told),
        // never on this account
        (429, openai("insufficient_quota", "insufficient_quota"), Fault::Quota),
        (429, openai("insufficient_quota", "credit_balance_exhausted"), Fault::Quota),
        (429, openai("insufficient_quota", "organization_spend_limit_exceeded"), Fault::Quota),
        (429, openai("requests", "project_spend_limit_exceeded"), Fault::Quota),
        (429, microsoft("InsufficientQuota"), Fault::Quota),
        (403, openai("insufficient_quota", ""), Fault::Quota),
        (402, String::new(), Fault::Quota),
        // later
        (429, openai("tokens", "rate_limit_exceeded"), Fault::Wait),
        (429, openai("rate_limit_error", "slow_down"), Fault::Wait),
        (429, microsoft("429"), Fault::Wait),
        (429, microsoft("NoCapacity"), Fault::Wait),
        (429, String::new(), Fault::Wait),
        (503, openai("service_unavailable_error", "server_is_overloaded"), Fault::Wait),
        // by itself
        (500, openai("server_error", ""), Fault::Transient),
        (500, microsoft("InternalServerError"), Fault::Transient),
        (503, microsoft("ServiceUnavailable"), Fault::Transient),
        (502, "<html>".to_owned(), Fault::Transient),
        (504, microsoft("Timeout"), Fault::Transient),
        (408, microsoft("Timeout"), Fault::Transient),
        (409, microsoft("conflict"), Fault::Transient),
        (424, microsoft("FailedDependency"), Fault::Transient),
        (520, String::new(), Fault::Transient),
        (529, openai("overloaded_error", ""), Fault::Transient),
        // a content filter
        (400, microsoft("content_filter"), Fault::ContentFilter),
        (400, invalid("content_policy_violation"), Fault::ContentFilter),
        (400, invalid("invalid_prompt"), Fault::ContentFilter),
        (400, microsoft("contentFilter"), Fault::ContentFilter),
        // what a model does not know
        (400, invalid("unsupported_parameter"), Fault::Unsupported),
        (400, invalid("unsupported_value"), Fault::Unsupported),
        (400, invalid("unknown_parameter"), Fault::Unsupported),
        (400, microsoft("OperationNotSupported"), Fault::Unsupported),
        (400, words("Unrecognized request argument supplied: max_completion_tokens"), Fault::Unsupported),
        (422, r#"{"detail":"Extra inputs are not permitted"}"#.to_owned(), Fault::Unsupported),
        (501, String::new(), Fault::Unsupported),
        // the request's own fault
        (400, invalid("invalid_value"), Fault::Told),
        (400, invalid("missing_required_parameter"), Fault::Told),
        (400, microsoft("BadRequest"), Fault::Told),
        (400, "<html>".to_owned(), Fault::Told),
        (413, String::new(), Fault::Told),
        (422, words("unprocessable"), Fault::Told),
    ];
    for (status, body, want) in table {
        assert_eq!(fault(status, body.as_bytes()), want, "{status} {body}");
    }
}

#[test]
fn a_request_that_is_alone_too_much_needs_another_deployment() {
    let message = "Request too large for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000, Requested \
                   40120. The input or output tokens must be reduced in order to run successfully.";
    let body = |message: &str| {
        json!({"error": {"message": message, "type": "tokens", "param": null, "code": "rate_limit_exceeded"}})
            .to_string()
    };
    assert_eq!(fault(429, body(message).as_bytes()), Fault::TooLarge);
    assert_eq!(fault(413, body(message).as_bytes()), Fault::TooLarge);
    let reached = "Rate limit reached for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000, Used \
                   18928, Requested 11159. Please try again in 174ms.";
    assert_eq!(fault(429, body(reached).as_bytes()), Fault::Wait);
}

#[test]
fn a_prompt_that_is_too_long_is_known_by_code_or_words() {
    let coded = |code: Value, param: &str, message: &str| {
        json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}})
            .to_string()
    };
    let words = |message: &str| coded(Value::Null, "messages", message);
    let long = Fault::ContextLength;
    for (status, body, want) in [
        (400, coded(json!("context_length_exceeded"), "messages", "m"), long),
        (400, microsoft("context_length_exceeded"), long),
        (400, coded(json!("string_above_max_length"), "messages[0].content", "string too long"), long),
        (400, coded(json!("string_above_max_length"), "input", "string too long"), long),
        (400, coded(json!("string_above_max_length"), "metadata.note", "string too long"), Fault::Told),
        // OpenAI
        (
            400,
            words("This model's maximum context length is 8192 tokens, however you requested 9000 tokens"),
            long,
        ),
        (400, words("Your input exceeds the context window of this model. Please adjust your input."), long),
        // vLLM
        (
            400,
            coded(
                json!(400),
                "",
                "This model's maximum context length is 4096 tokens. However, you requested 5000",
            ),
            long,
        ),
        (
            400,
            coded(
                json!(400),
                "",
                "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            ),
            long,
        ),
        // SGLang
        (
            400,
            words("The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
            long,
        ),
        // llama.cpp, now and before
        (
            400,
            json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "m"}}).to_string(),
            long,
        ),
        (500, words("the request exceeds the available context size. try increasing the context size"), long),
        // TGI
        (
            422,
            r#"{"error":"Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"}"#
                .into(),
            long,
        ),
        (
            422,
            r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."}"#
                .into(),
            long,
        ),
        // only the answer that is asked for is too long
        (
            400,
            words("max_tokens is too large: 100000. This model supports at most 16384 completion tokens"),
            Fault::Told,
        ),
    ] {
        assert_eq!(fault(status, body.as_bytes()), want, "{status} {body}");
    }
}

/// As Azure sends it, in three spellings.
fn azure_filter(inner: &str) -> Value {
    json!({"error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": null, "param": "prompt", "code": "content_filter", "status": 400,
        inner: {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": true, "severity": "high"}},
        },
    }})
}

#[test]
fn azures_filter_is_known_in_all_its_spellings_and_its_findings_are_told() {
    for inner in ["innererror", "inner_error"] {
        let mut body = azure_filter(inner);
        assert_eq!(fault(400, body.to_string().as_bytes()), Fault::ContentFilter);
        body["error"]["code"] = "BadRequest".into();
        assert_eq!(fault(400, body.to_string().as_bytes()), Fault::ContentFilter, "by its inner code alone");
        let told: Value = serde_json::from_slice(&envelope(400, &body.to_string().into())).expect("JSON");
        assert_eq!(told["error"][inner], body["error"][inner]);
        assert_eq!(told["error"]["type"], "invalid_request_error");
        assert_eq!(told["error"]["param"], "prompt");
    }
}

#[test]
fn an_error_event_is_known_without_a_status() {
    let table = [
        // chat and completions
        (
            json!({"error": {"message": "The server had an error", "type": "server_error", "param": null, "code": null}}),
            Some(Fault::Transient),
        ),
        (
            json!({"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}),
            Some(Fault::Wait),
        ),
        (
            json!({"error": {"message": "Request too large for x", "type": "tokens", "code": "rate_limit_exceeded"}}),
            Some(Fault::TooLarge),
        ),
        (
            json!({"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}),
            Some(Fault::Quota),
        ),
        (
            json!({"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}}),
            Some(Fault::ContextLength),
        ),
        (
            json!({"error": {"message": "m", "type": "invalid_request_error", "code": null}}),
            Some(Fault::Told),
        ),
        (
            json!({"error": {"message": "m", "type": "invalid_request_error", "code": "model_not_found"}}),
            Some(Fault::DeploymentMissing),
        ),
        (json!({"error": {"message": "m", "code": "unsupported_value"}}), Some(Fault::Unsupported)),
        (json!({"error": {"message": "m", "type": "authentication_error"}}), Some(Fault::Auth)),
        (azure_filter("innererror"), Some(Fault::ContentFilter)),
        // vLLM and others have the status in the code
        (json!({"error": {"message": "m", "type": "BadRequestError", "code": 400}}), Some(Fault::Told)),
        (json!({"error": {"message": "m", "code": 502}}), Some(Fault::Transient)),
        (json!({"error": {"message": "m", "code": "429"}}), Some(Fault::Wait)),
        (json!({"error": "out of memory"}), Some(Fault::Transient)),
        // responses
        (
            json!({"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": null, "sequence_number": 1}),
            Some(Fault::Wait),
        ),
        (
            json!({"type": "error", "code": "server_error", "message": "m", "param": null}),
            Some(Fault::Transient),
        ),
        (
            json!({"type": "error", "error": {"type": "invalid_request_error", "code": null, "message": "m"}}),
            Some(Fault::Told),
        ),
        (
            json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "m"}}}),
            Some(Fault::Transient),
        ),
        (
            json!({"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "m"}}}),
            Some(Fault::ContentFilter),
        ),
        (
            json!({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "m"}}}),
            Some(Fault::Wait),
        ),
        (
            json!({"type": "response.failed", "response": {"status": "failed", "error": null}}),
            Some(Fault::Transient),
        ),
        // no errors
        (json!({"type": "response.created", "response": {"status": "in_progress", "error": null}}), None),
        (json!({"choices": [{"delta": {"content": "\"error\""}}]}), None),
        (json!({"choices": [], "error": null}), None),
        (json!({"choices": [], "error": {}}), None),
        (json!({"choices": [{"delta": {"content": "error"}}]}), None),
        (json!(["error"]), None),
    ];
    for (event, want) in table {
        assert_eq!(fault_of_event(event.to_string().as_bytes()), want, "{event}");
    }
    assert_eq!(fault_of_event(br#"{"error":{"#), None, "no JSON is no error of the upstream's");
    assert_eq!(fault_of_event(b"[DONE]"), None);
}

#[test]
fn an_upstreams_words_never_carry_a_key() {
    let body = json!({"error": {"message": "Incorrect API key provided: sk-proj-abc***xyz. See 0123456789abcdef01234567"}});
    assert_eq!(message(401, body.to_string().as_bytes()), "Incorrect API key provided: *** See ***");
}

#[test]
fn the_client_always_gets_openais_envelope() {
    let own = Bytes::from(r#"{"error":{"message":"m","type":"x","param":null,"code":1},"extra":2}"#);
    assert_eq!(envelope(400, &own), own);
    for (status, body, message, code) in [
        (429, r#"{"error":{"code":"429","message":"wait"}}"#, "wait", json!("429")),
        (401, r#"{"statusCode":401,"message":"denied"}"#, "denied", json!("401")),
        (422, r#"{"detail":"no such field"}"#, "no such field", Value::Null),
        (
            400,
            r#"{"error":{"message":{"not":"text"},"type":7}}"#,
            "the upstream answered 400 without a message",
            Value::Null,
        ),
        (500, "<html>", "the upstream answered 500 without a message", Value::Null),
        (500, r#"{"error":"plain"}"#, "plain", Value::Null),
        (500, r#"{"error":null,"message":"told"}"#, "told", Value::Null),
    ] {
        let out: Value = serde_json::from_slice(&envelope(status, &Bytes::from(body))).expect("JSON");
        assert_eq!(out["error"]["message"], message);
        assert_eq!(out["error"]["code"], code);
        assert!(out["error"]["type"].is_string() && out["error"].get("param").is_some());
    }
}
