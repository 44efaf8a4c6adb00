//! What a client reads when the provider says no, answers nonsense, or cannot be asked.

use serde_json::json;

use crate::support::provider::Trouble;
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, chat, streamed_chat};

const PATH: &str = "/v1/chat/completions";

#[test]
fn errors_that_are_the_clients_business_pass_on_as_they_are() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let last = Trouble::rate_limited(20);
    for trouble in [
        Trouble::bad_request(),
        Trouble::server_error(),
        Trouble::overloaded(),
        Trouble::openai(422, "invalid_request_error", None, "unprocessable"),
        last.clone(),
    ] {
        for body in [streamed_chat("support-bot", "hi"), chat("support-bot", "hi")] {
            provider.fails(trouble.clone());
            let answer = gateway.post(PATH, &body).expect(trouble.status);
            assert_eq!(answer.json(), trouble.body);
            for (name, value) in &trouble.headers {
                assert_eq!(answer.header(name), Some(value.as_str()), "{name}");
            }
            let outcome = gateway.outcome_of(&answer.request_id());
            assert_eq!(outcome["ending"], "upstream_error", "{outcome:#}");
            assert_eq!(outcome["upstream_status"], trouble.status, "{outcome:#}");
            assert_eq!(outcome["usage"], json!(null), "{outcome:#}");
            if trouble.status == last.status {
                // it wants to be left alone now
                break;
            }
        }
    }
    assert_eq!(provider.requests().len(), 9, "nothing was asked twice");
    let again = gateway.post(PATH, &chat("support-bot", "hi"));
    let error = again.expect_error(429, "rate_limit_exceeded");
    assert!(error["message"].as_str().is_some_and(|words| words.contains("support-v3")), "{error}");
    let wait: u64 = again.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a wait");
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(provider.requests().len(), 9, "and it is");
}

#[test]
fn errors_that_are_the_operators_business_are_told_as_ours() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (trouble, status, code) in [
        (Trouble::unauthorized(), 502, "upstream_auth_failed"),
        (Trouble::forbidden(), 502, "upstream_auth_failed"),
        (Trouble::model_not_found("ft:x"), 502, "upstream_deployment_missing"),
        (Trouble::azure_deployment_not_found(), 502, "upstream_deployment_missing"),
        (Trouble::quota_used_up(), 503, "upstream_quota"),
    ] {
        provider.fails(trouble);
        let answer = gateway.post(PATH, &chat("support-bot", "hi"));
        let error = answer.expect_error(status, code);
        assert!(error["message"].as_str().is_some_and(|text| text.contains("support-v3")), "{error}");
        assert!(!answer.text().contains("upst****"), "the provider's words about our key: {error}");
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!((&outcome["code"], &outcome["usage"]), (&json!(code), &json!(null)), "{outcome:#}");
    }
}

#[test]
fn a_wrong_upstream_key_is_not_the_clients_fault() {
    let provider = SimulatedProvider::start();
    provider.knows_only(&["another-key"]);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    gateway.post(PATH, &chat("support-bot", "hi")).expect_error(502, "upstream_auth_failed");
    gateway.post(PATH, &chat("azure-bot", "hi")).expect_error(502, "upstream_auth_failed");
}

#[test]
fn a_deployment_that_is_gone_is_named() {
    let provider = SimulatedProvider::start();
    provider.serves_only(&["another-model"]);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (model, deployment) in
        [("support-bot", "support-v3"), ("azure-bot", "support-azure"), ("classic-bot", "support-classic")]
    {
        let error = gateway.post(PATH, &chat(model, "hi")).expect_error(502, "upstream_deployment_missing");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(deployment)), "{error}");
    }
}

#[test]
fn nobody_at_home_is_502_with_the_deployments_name() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).model("dead", "http://127.0.0.1:9/v1", "", "");
    let gateway = TestGateway::with(setup).start();
    for body in [chat("dead", "hi"), streamed_chat("dead", "hi")] {
        let answer = gateway.post(PATH, &body);
        let error = answer.expect_error(502, "upstream_unreachable");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("dead")), "{error}");
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!((&outcome["deployment"], &outcome["usage"]), (&json!("dead"), &json!(null)));
        assert_eq!(outcome["ending"], "refused", "{outcome:#}");
    }
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let line = "tunegate_upstream_errors_total{deployment=\"dead\",kind=\"upstream_unreachable\"} 2\n";
    assert!(metrics.contains(line), "each failure is counted once:\n{metrics}");
}

#[test]
fn a_provider_that_answers_no_http_is_502() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200",
    ] {
        provider.replies(Reply::raw(bytes));
        let answer = gateway.post(PATH, &chat("support-bot", "hi"));
        assert_eq!(answer.status, 502, "{}: {}", String::from_utf8_lossy(bytes), answer.text());
        assert!(answer.json()["error"]["code"].is_string(), "{}", answer.text());
    }
}

#[test]
fn a_whole_answer_that_is_cut_short_is_502_and_still_booked() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for reply in [Reply::usual().states_length_off_by(10), Reply::usual().resets_after_bytes(40)] {
        provider.replies(reply);
        let answer = gateway.post(PATH, &chat("support-bot", "hi"));
        answer.expect_error(502, "upstream_broke");
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!(outcome["ending"], "upstream_broke", "{outcome:#}");
        assert!(outcome["usage"].is_object(), "the provider has billed it: {outcome:#}");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_must_be_whole() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let whole = r#"{"object":"chat.completion","choices":[]}"#;
    let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
    provider.replies(Reply::raw(format!("{head}{whole}").as_bytes()).then_closes());
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    provider.replies(Reply::raw(format!("{head}{}", &whole[..30]).as_bytes()).then_closes());
    gateway.post(PATH, &chat("support-bot", "hi")).expect_error(502, "upstream_broke");
}

#[test]
fn bytes_beyond_the_stated_length_are_not_the_next_answer() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}\
                     HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"evil\":1}";
    provider.replies(Reply::raw(smuggled));
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    let next = gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    assert!(!next.text().contains("evil"), "{}", next.text());
}

#[test]
fn an_answer_without_json_is_none_and_is_booked_all_the_same() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::body(200, "text/plain", b"hello".to_vec()).billed(1, 1).without_usage());
    let answer = gateway.post(PATH, &chat("support-bot", "hi"));
    let outcome = gateway.outcome_of(&answer.request_id());
    answer.expect_error(502, "upstream_broke");
    assert_eq!(outcome["usage"]["source"], "unconfirmed", "{outcome:#}");
}
