//! Every refusal is OpenAI's envelope.

use super::*;

/// Checks the envelope and returns `(code, param)`.
async fn envelope(response: reqwest::Response) -> (Value, Value) {
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.keys().len(), 4);
    assert!(error["message"].is_string() && error["type"].is_string());
    (error["code"].clone(), error["param"].clone())
}

#[tokio::test]
async fn envelopes() {
    let worker = Worker::start(&[]);
    let url = format!("{}/v1/chat/completions", worker.base);

    for (body, code, param) in [
        (with(question("x"), &json!({"model": "gpt-4"})), json!("model_not_found"), json!("model")),
        (with(question("x"), &json!({"surprise": 1})), json!("unknown_parameter"), json!("surprise")),
        (with(question("x"), &json!({"n": 2})), json!("unsupported_value"), json!("n")),
        (json!([]), json!(null), json!(null)),
        (question(&"far too long ".repeat(4_000)), json!("context_length_exceeded"), json!("messages")),
        (question(&"x".repeat(20_000_000)), json!("context_length_exceeded"), json!("messages")),
    ] {
        let response = worker.post("/v1/chat/completions", &body).await;
        let status = if code == "model_not_found" { 404 } else { 400 };
        assert_eq!(response.status(), status, "{code}");
        assert_eq!(envelope(response).await, (code, param));
    }

    for body in ["", "{", "\u{0}", "{\"model\": \"smollm2-135m\", \"messages\": [{]}"] {
        let response = worker.client.post(&url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(envelope(response).await, (json!(null), json!(null)));
    }

    let large = worker.client.post(&url).body(vec![b' '; (32 << 20) + 1]).send().await.unwrap();
    assert_eq!(large.status(), 413);
    assert_eq!(envelope(large).await.0, "request_too_large");

    for (path, status, code) in [
        ("/", 404, "unknown_url"),
        ("/v1/moderations", 404, "unknown_url"),
        ("/v1/completions", 405, "method_not_supported"),
        // there may be jobs at the next start: that there are none would be believed
        ("/v1/fine_tuning/jobs", 503, "tuning_not_enabled"),
        ("/v1/fine_tuning/jobs/ftjob-1", 503, "tuning_not_enabled"),
        ("/v1/fine_tuning/jobs/ftjob-1/events", 503, "tuning_not_enabled"),
    ] {
        let response = worker.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(envelope(response).await.0, code);
    }
    let job = worker.post("/v1/fine_tuning/jobs", &json!({})).await;
    assert_eq!((job.status().as_u16(), envelope(job).await.0), (404, json!("tuning_not_enabled")));
    let stop = worker.post("/internal/stop?grace_ms=soon", &json!({})).await;
    assert_eq!((stop.status().as_u16(), envelope(stop).await.1), (400, json!("grace_ms")));
    assert_eq!(worker.health().await["status"], "ok");
}

#[tokio::test]
async fn the_context_message_is_openais() {
    let worker = Worker::start(&["--kv-budget-tokens", "128"]);
    let response = worker.post("/v1/chat/completions", &question(&"cat ".repeat(200))).await;
    let error: Value = response.json().await.unwrap();
    assert_eq!(
        error["error"]["message"],
        "This model's maximum context length is 128 tokens. However, your messages resulted in 231 tokens. Please \
         reduce the length of the messages."
    );
}
