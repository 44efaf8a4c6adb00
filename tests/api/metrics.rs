//! What requests leave in the metrics, seen at the admin address.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::exposition::Exposition;
use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat};

const CHAT: &str = "/v1/chat/completions";
const DURATION: &str = "gen_ai_client_operation_duration_seconds";
const FIRST_CHUNK: &str = "gen_ai_client_operation_time_to_first_chunk_seconds";
const BETWEEN: &str = "gen_ai_client_operation_time_per_output_chunk_seconds";

fn read(gateway: &TestGateway) -> Exposition {
    Exposition::read(&gateway.admin(Call::get("/metrics")).expect(200).text())
}

fn count(metrics: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics.sum(&format!("{name}_count"), labels)
}

/// A fine-tuned model behind two deployments, asked in their order.
fn in_order(first: &SimulatedProvider, second: &SimulatedProvider) -> Setup {
    let deployment = |name: &str, provider: &SimulatedProvider| {
        format!(
            "\n[providers.{name}]\nkind = \"openai\"\nbase_url = \"{}/v1\"\napi_key = {{ file = \"upstream.key\" }}\n\
             \n[deployments.{name}]\nprovider = \"{name}\"\nmodel = \"ft:gpt-4.1-mini-2025-04-14:acme:bot:{name}\"\n",
            provider.url()
        )
    };
    let sections = [
        deployment("first", first),
        deployment("second", second),
        "\n[models.bot]\nplan = [\"first\", \"second\"]\n".to_owned(),
    ]
    .concat();
    let setup = Setup::bare().patient().file("upstream.key", UPSTREAM_KEY).and(&sections).watched(first);
    if std::ptr::eq(first, second) { setup } else { setup.watched(second) }
}

#[test]
fn each_attempt_is_observed_once_with_what_came_of_it() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    first.replies(Reply::trouble(Trouble::rate_limited(60)));
    let gateway = TestGateway::with(in_order(&first, &second)).start();
    gateway.post(CHAT, &chat("bot", "hi")).expect(200);
    gateway.outcomes();
    let metrics = read(&gateway);
    let of = |deployment| [("model", "bot"), ("deployment", deployment)];
    let [a, b] = of("first");
    assert_eq!(count(&metrics, DURATION, &[a, b, ("error_type", "upstream_rate_limited")]), 1.0);
    assert_eq!(count(&metrics, DURATION, &[a, b, ("error_type", "")]), 0.0);
    let [a, b] = of("second");
    let well = [
        a,
        b,
        ("error_type", ""),
        ("gen_ai_operation_name", "chat"),
        ("gen_ai_provider_name", "openai"),
        ("gen_ai_request_model", "ft:gpt-4.1-mini-2025-04-14:acme:bot:second"),
        ("server_address", "127.0.0.1"),
    ];
    assert_eq!(count(&metrics, DURATION, &well), 1.0);
    assert_eq!(count(&metrics, FIRST_CHUNK, &[a, b]), 0.0, "no stream, no chunks");
    assert_eq!(metrics.sum("tunegate_fallbacks_total", &[("model", "bot")]), 1.0);
    let errors = [("deployment", "first"), ("kind", "upstream_rate_limited")];
    assert_eq!(metrics.sum("tunegate_upstream_errors_total", &errors), 1.0);
    // what the provider reported, in both forms
    let usage = gateway.last_outcome()["usage"].clone();
    for (kind, class, tokens) in
        [("input", "prompt", &usage["prompt_tokens"]), ("output", "completion", &usage["completion_tokens"])]
    {
        let tokens = tokens.as_f64().expect("tokens");
        let seen = metrics.sum("gen_ai_client_token_usage_sum", &[a, b, ("gen_ai_token_type", kind)]);
        assert_eq!(seen, tokens, "{kind}");
        let counted = [a, b, ("class", class), ("source", "reported")];
        assert_eq!(metrics.sum("tunegate_tokens_total", &counted), tokens, "{class}");
    }
}

#[test]
fn the_chunks_of_a_stream_are_timed() {
    let provider = SimulatedProvider::start();
    provider.says("one two three four");
    provider.replies(Reply::usual().begins_after(Duration::from_millis(60)));
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    gateway.post(CHAT, &streamed_chat("bot", "hi")).expect(200);
    gateway.outcomes();
    let metrics = read(&gateway);
    let first = [("model", "bot"), ("deployment", "first"), ("gen_ai_operation_name", "chat")];
    assert_eq!(count(&metrics, FIRST_CHUNK, &first), 1.0);
    let waited = metrics.sum(&format!("{FIRST_CHUNK}_sum"), &first);
    assert!((0.06..5.0).contains(&waited), "{waited}");
    let took = metrics.sum(&format!("{DURATION}_sum"), &first);
    let between = metrics.sum(&format!("{BETWEEN}_sum"), &first);
    assert!(
        took >= waited + between,
        "{took} s, of which {waited} s to the first chunk, {between} s behind it"
    );
}

#[test]
fn a_client_that_leaves_ends_its_attempt() {
    let provider = SimulatedProvider::start();
    provider.replies(Reply::usual().hangs_after_events(1));
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    let mut open = gateway.open(CHAT, &streamed_chat("bot", "hi"));
    open.await_events(1);
    drop(open);
    gateway.outcomes();
    let metrics = read(&gateway);
    let gone = [("deployment", "first"), ("error_type", "client_gone")];
    assert_eq!(count(&metrics, DURATION, &gone), 1.0);
    assert_eq!(metrics.sum("tunegate_failures_total", &[]), 0.0, "it left by itself");
}

#[test]
fn a_slow_upstream_is_no_overhead_of_ours() {
    const SLOW: Duration = Duration::from_millis(400);
    let provider = SimulatedProvider::start();
    provider.replies(Reply::usual().begins_after(SLOW));
    provider.replies(Reply::usual().begins_after(SLOW));
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    gateway.post(CHAT, &chat("bot", "hi")).expect(200);
    gateway.post(CHAT, &streamed_chat("bot", "hi")).expect(200);
    for outcome in gateway.outcomes() {
        let (took, own) = (outcome["duration_us"].as_u64(), outcome["overhead_us"].as_u64());
        let (took, own) = (took.expect("a duration"), own.expect("an overhead"));
        assert!(took >= 400_000, "{outcome}");
        assert!(own > 0 && own <= took - 390_000, "{own} us of {took} us are said to be our own");
    }
    let metrics = read(&gateway);
    assert_eq!(count(&metrics, "tunegate_overhead_seconds", &[("endpoint", "chat.completions")]), 2.0);
    assert!(metrics.sum("tunegate_request_duration_seconds_sum", &[("model", "bot")]) >= 0.8);
}

/// Of what requests are asked, and what is then counted as whose fault.
#[test]
fn failures_are_those_that_no_sender_is_to_blame_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    let faults = || {
        let metrics = read(&gateway);
        let of = |fault| metrics.sum("tunegate_failures_total", &[("fault", fault)]);
        (of("gateway"), of("upstream"))
    };
    gateway.post(CHAT, &chat("bot", "hi")).expect(200);
    gateway.post(CHAT, &chat("unknown", "hi")).expect(404);
    gateway.post(CHAT, &json!({"model": "bot"})).expect(400);
    gateway.call(Call::post(CHAT, &chat("bot", "hi")).bearer("sk-wrong")).expect(401);
    gateway.outcomes();
    assert_eq!(faults(), (0.0, 0.0));
    provider.always(Reply::trouble(Trouble::server_error()));
    let answer = gateway.post(CHAT, &chat("bot", "hi"));
    assert!(answer.status >= 500, "{}", answer.text());
    gateway.outcomes();
    assert_eq!(faults(), (0.0, 1.0));
    let metrics = read(&gateway);
    let status = answer.status.to_string();
    let answered = |status: &str| {
        metrics.sum("tunegate_responses_total", &[("endpoint", "chat.completions"), ("status", status)])
    };
    assert_eq!((answered("200"), answered("404"), answered("401")), (1.0, 1.0, 1.0));
    assert_eq!(answered(&status), 1.0);
}

#[test]
fn whoever_waits_out_a_providers_time_out_is_not_to_blame() {
    let provider = SimulatedProvider::start();
    provider.always(Reply::trouble(Trouble::rate_limited(60)));
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    for _ in 0..3 {
        gateway.post(CHAT, &chat("bot", "hi")).expect(429);
    }
    gateway.outcomes();
    let metrics = read(&gateway);
    assert_eq!(metrics.sum("tunegate_failures_total", &[("fault", "upstream")]), 3.0);
    assert!(metrics.sum("tunegate_breaker_state", &[("deployment", "first")]) == 3.0, "it cools down");
}

#[test]
fn an_attempt_that_reaches_nobody_is_one_all_the_same() {
    let (closed, open) = (SimulatedProvider::closed(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_order(&closed, &open)).start();
    gateway.post(CHAT, &chat("bot", "hi")).expect(200);
    gateway.outcomes();
    let unreachable = [("deployment", "first"), ("error_type", "upstream_unreachable")];
    assert!(count(&read(&gateway), DURATION, &unreachable) >= 1.0);
}

#[test]
fn a_reload_says_so_and_brings_new_names() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(in_order(&provider, &provider)).start();
    let before = read(&gateway);
    assert_eq!(before.sum("tunegate_config_reloads_total", &[]), 0.0);
    assert!(before.samples("tunegate_route_info", &[("model", "later")]).is_empty());
    let path = gateway.folder().join("tunegate.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, format!("{text}\n[models.later]\nplan = \"second\"\n")).expect("written");
    gateway.admin(Call::post("/admin/v1/reload", &Value::Null)).expect(200);
    let after = eventually("the new model's series", || {
        let metrics = read(&gateway);
        (!metrics.samples("tunegate_route_info", &[("model", "later")]).is_empty()).then_some(metrics)
    });
    assert_eq!(after.sum("tunegate_config_reloads_total", &[("result", "ok")]), 1.0);
    assert!(
        !after.samples("tunegate_requests_total", &[("model", "later"), ("ending", "served")]).is_empty()
    );
    std::fs::write(&path, "nonsense").expect("written");
    gateway.admin(Call::post("/admin/v1/reload", &Value::Null)).expect(400);
    assert_eq!(read(&gateway).sum("tunegate_config_reloads_total", &[("result", "refused")]), 1.0);
}
