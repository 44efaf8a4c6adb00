//! Traces: a span of each request and one of each attempt, as a collector gets them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::CHAT;
use crate::support::collector::{Collector, Seen, attributes};
use crate::support::provider::UPSTREAM_KEY;
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn caller(sampled: bool) -> String {
    format!("00-{TRACE}-{SPAN}-{:02x}", u8::from(sampled))
}

fn traced(provider: &SimulatedProvider, collector: &Collector, lines: &str) -> TestGateway {
    TestGateway::with(Setup::in_front_of(provider).and(&collector.section(lines))).start()
}

/// The attributes that a table names.
fn picked(span: &Seen, want: &Value) -> Value {
    let want = want.as_object().expect("an object");
    want.keys().map(|key| (key.clone(), span.attributes.get(key).cloned().unwrap_or_default())).collect()
}

/// A span begins and ends within its parent.
#[track_caller]
fn lies_within(child: &Seen, parent: &Seen) {
    assert!(
        parent.from <= child.from && child.from <= child.to && child.to <= parent.to,
        "{child:?}\n{parent:?}"
    );
}

#[test]
fn a_request_is_a_span_and_each_attempt_is_its_child() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    let lines = "service_name = \"gate\"\nresource = { \"deployment.environment.name\" = \"test\" }\n\
                 headers = { authorization = { file = \"otlp.key\" } }";
    let setup = Setup::in_front_of(&provider).and(&collector.section(lines));
    let gateway = TestGateway::with(setup.file("otlp.key", "Bearer otlp secret")).start();
    let call = |body| {
        let call =
            Call::post(CHAT, &body).header("traceparent", &caller(true)).header("tracestate", "a=1, b=2");
        gateway.call(call).expect(200)
    };
    let answer = call(streamed_chat("support-bot", "hi"));
    let sent = provider.last_request();
    let spans = collector.spans_of(&answer.request_id());
    let [own, attempt] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((&*own.name, own.is_server, own.has_failed), ("POST /v1/chat/completions", true, false));
    assert_eq!((&*own.trace, &*own.parent, &*own.state), (TRACE, SPAN, "a=1,b=2"));
    // sampled, and the parent is another process's
    assert_eq!((own.flags, attempt.flags), (0x301, 0x101));
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["trace_id"], TRACE);
    let want = json!({
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "tunegate.key": "default", "tunegate.model": "support-bot", "tunegate.deployment": "support-v3",
        "tunegate.ending": "served", "tunegate.stream": true, "tunegate.attempts": 1, "error.type": null,
        "tunegate.code": null, "tunegate.team": null, "tunegate.endpoint": "chat.completions",
    });
    assert_eq!(picked(own, &want), want);
    let cost = own.attributes["tunegate.cost_usd"].as_str().expect("money is text");
    assert_eq!(cost.parse::<f64>().ok(), outcome["cost_usd"].as_f64());
    let model = "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY";
    assert_eq!((attempt.name.clone(), attempt.is_server), (format!("chat {model}"), false));
    assert_eq!((&*attempt.trace, &*attempt.parent, &*attempt.state), (TRACE, &*own.id, "a=1,b=2"));
    let port: u16 = provider.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let want = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": model,
        "gen_ai.request.stream": true, "server.address": "127.0.0.1", "server.port": port,
        "gen_ai.usage.input_tokens": outcome["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": outcome["usage"]["completion_tokens"],
        "http.response.status_code": 200, "tunegate.usage_source": "reported", "error.type": null,
    });
    assert_eq!(picked(attempt, &want), want);
    let first = attempt.attributes["gen_ai.response.time_to_first_chunk"].as_f64().expect("seconds");
    assert!(first > 0.0 && first <= Duration::from_nanos(attempt.to - attempt.from).as_secs_f64(), "{first}");
    lies_within(attempt, own);
    // what the upstream sees is the attempt's span
    assert_eq!(sent.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", attempt.id)));
    assert_eq!(sent.header("tracestate"), Some("a=1,b=2"));

    let whole = collector.spans_of(&call(chat("azure-bot", "hi")).request_id());
    assert_eq!(whole[1].attributes["gen_ai.provider.name"], "azure.ai.openai");
    assert!(!whole[1].attributes.contains_key("gen_ai.response.time_to_first_chunk"));
    let request = collector.requests().pop().expect("a batch");
    assert_eq!((request.method.as_str(), request.path()), ("POST", "/v1/traces"));
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("authorization"), Some("Bearer otlp secret"));
    let mut messages = collector.messages();
    let resource = messages.remove(0).resource_spans.remove(0).resource.expect("a resource");
    let want = json!({
        "service.name": "gate", "service.version": env!("CARGO_PKG_VERSION"), "deployment.environment.name": "test",
    });
    assert_eq!(Value::Object(attributes(resource.attributes)), want);
}

#[test]
fn retries_and_fallbacks_are_children_of_one_request() {
    let (first, second, collector) =
        (SimulatedProvider::start(), SimulatedProvider::start(), Collector::start());
    let closed = SimulatedProvider::closed();
    let credential = "api_key = { file = \"upstream.key\" }";
    let setup = Setup::bare()
        .patient()
        .file("upstream.key", UPSTREAM_KEY)
        .model("gone", &format!("{}/v1", closed.url()), credential, "")
        .model("ill", &format!("{}/v1", first.url()), credential, "")
        .model("well", &format!("{}/v1", second.url()), credential, "")
        .and(
            "\n[models.all]\ndeployments = [\"gone\", \"ill\", \"well\"]\n\
             retry = { attempts = 5, same = 1, first_wait_ms = 1, longest_wait_ms = 5 }\n",
        )
        .watched(&first)
        .watched(&second)
        .and(&collector.section(""));
    let gateway = TestGateway::with(setup).start();
    first.always(Reply::trouble(crate::support::provider::Trouble::server_error()));
    let answer = gateway.post(CHAT, &chat("all", "hi")).expect(200);
    let spans = collector.spans_of(&answer.request_id());
    let (own, attempts) = spans.split_first().expect("spans");
    let told: Vec<_> = attempts
        .iter()
        .map(|span| {
            (span.attributes["tunegate.deployment"].as_str(), span.attributes.get("error.type").is_some())
        })
        .collect();
    assert_eq!(told.first(), Some(&(Some("gone"), true)), "{told:?}");
    assert_eq!(told.last(), Some(&(Some("well"), false)), "{told:?}");
    assert!(told.iter().filter(|(deployment, _)| *deployment == Some("ill")).count() >= 2, "{told:?}");
    for pair in attempts.windows(2) {
        assert!(pair[0].to <= pair[1].from, "one after the other: {pair:#?}");
        assert!(pair[0].has_failed);
        lies_within(&pair[0], own);
    }
    let ids: std::collections::BTreeSet<&str> = attempts.iter().map(|span| &*span.id).collect();
    assert_eq!(ids.len(), attempts.len());
    assert_eq!(own.attributes["tunegate.attempts"], attempts.len());
    assert_eq!(gateway.outcome_of(&answer.request_id())["attempts"], attempts.len());
    // a trace of our own, and each upstream saw its own attempt
    assert_eq!(own.parent, "");
    let seen = first.requests().into_iter().chain(second.requests());
    let seen: Vec<String> =
        seen.map(|request| request.header("traceparent").expect("a parent").to_owned()).collect();
    let want: Vec<String> =
        attempts[1..].iter().map(|span| format!("00-{}-{}-01", own.trace, span.id)).collect();
    assert_eq!(seen, want);
}

#[test]
fn refusals_and_failures_have_spans_too() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    let gateway = traced(&provider, &collector, "");
    let stranger = Call::post(CHAT, &chat("support-bot", "hi")).bearer("sk-tg-nobody");
    let refused = gateway.call(stranger).expect(401).request_id();
    let unknown = gateway.post("/v1/made/up/by/a/client", &json!({})).expect(404).request_id();
    let models = gateway.get("/v1/models").expect(200).request_id();
    provider.replies(Reply::usual().hangs_up());
    let broken = gateway.post(CHAT, &chat("support-bot", "hi")).expect(502).request_id();
    provider.replies(Reply::usual().resets_after_events(2));
    let cut = gateway.post(CHAT, &streamed_chat("support-bot", "hi"));
    for (id, name, failed, code, attempts) in [
        (&refused, "POST /v1/chat/completions", false, json!("invalid_api_key"), 0),
        (&unknown, "POST", false, json!("unsupported_endpoint"), 0),
        (&models, "GET /v1/models", false, json!(null), 0),
        (&broken, "POST /v1/chat/completions", true, json!("upstream_broke"), 1),
        (&cut.request_id(), "POST /v1/chat/completions", true, json!("upstream_broke"), 1),
    ] {
        let spans = collector.spans_of(id);
        let own = &spans[0];
        assert_eq!((&*own.name, own.has_failed, spans.len() - 1), (name, failed, attempts), "{spans:#?}");
        assert_eq!(own.attributes.get("tunegate.code").cloned().unwrap_or_default(), code);
        assert_eq!(own.attributes.contains_key("error.type"), failed);
        for attempt in &spans[1..] {
            assert!(
                attempt.has_failed && attempt.attributes["error.type"] == "upstream_broke",
                "{attempt:?}"
            );
        }
    }
}

#[test]
fn a_caller_decides_for_its_trace_and_the_share_for_others() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    let gateway = traced(&provider, &collector, "sample_ratio = 0");
    let ask = |parent: Option<&str>| {
        let call = Call::post(CHAT, &chat("support-bot", "hi"));
        let call = parent.map_or(call.clone(), |parent| call.header("traceparent", parent));
        let answer = gateway.call(call).expect(200);
        (answer.request_id(), provider.last_request().header("traceparent").expect("one").to_owned())
    };
    // a parent that is not kept, one that is not valid, none: not kept, and upstreams are told so
    let (not_kept, told) = ask(Some(&caller(false)));
    assert!(
        told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00") && !told.contains(SPAN),
        "{told}"
    );
    for parent in [Some("00-junk"), None] {
        let (_, told) = ask(parent);
        assert!(told.ends_with("-00") && !told.contains(TRACE), "{told}");
    }
    assert_eq!(gateway.outcome_of(&not_kept)["trace_id"], TRACE);
    let (kept, told) = ask(Some(&caller(true)));
    assert!(told.ends_with("-01"));
    collector.spans_of(&kept);
    assert_eq!(collector.spans().iter().filter(|span| span.is_server).count(), 1, "only that one");
}

#[test]
fn without_tracing_the_callers_headers_pass_as_they_came() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let call = Call::post(CHAT, &chat("support-bot", "hi"));
    let call = call.header("traceparent", &caller(true)).header("tracestate", "a=1, b=2");
    let answer = gateway.call(call).expect(200);
    let sent = provider.last_request();
    assert_eq!(sent.header("traceparent"), Some(&*caller(true)));
    assert_eq!(sent.header("tracestate"), Some("a=1, b=2"));
    assert_eq!(gateway.outcome_of(&answer.request_id())["trace_id"], TRACE);
    let answer = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    assert_eq!(provider.last_request().header("traceparent"), None);
    assert_eq!(gateway.outcome_of(&answer.request_id()).get("trace_id"), None);
}

#[test]
fn no_word_and_no_secret_is_in_any_span() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    provider.says("Xylophonanswer");
    let gateway = traced(&provider, &collector, "");
    let mut last = String::new();
    for body in [chat("support-bot", "Xylophonprompt"), streamed_chat("azure-bot", "Xylophonprompt")] {
        last = gateway.post(CHAT, &body).expect(200).request_id();
    }
    provider
        .replies(Reply::json(400, &json!({"error": {"message": "Xylophonerror", "code": "Xylophoncode"}})));
    gateway.post(CHAT, &chat("support-bot", "Xylophonprompt")).expect(400);
    let mut body = chat("Xylophonmodel", "Xylophonprompt");
    body["user"] = json!("Xylophonuser");
    gateway.post("/v1/Xylophonpath?Xylophonquery", &body).expect(404);
    gateway.post(CHAT, &body).expect(404);
    let stranger = Call::post(CHAT, &body).bearer("sk-tg-Xylophonkey").header("user-agent", "Xylophonagent");
    let wrong = gateway.call(stranger).expect(401).request_id();
    collector.spans_of(&last);
    collector.spans_of(&wrong);
    let admin_key = std::fs::read_to_string(gateway.folder().join("state/admin_key")).expect("a key");
    for request in collector.requests() {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        for word in ["Xylophon", UPSTREAM_KEY, gateway.key(), admin_key.trim()] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}

fn dropped(gateway: &TestGateway) -> u64 {
    let text = gateway.admin(Call::get("/metrics")).expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix("tunegate_spans_dropped_total "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn a_collector_that_is_gone_is_missed_by_nobody() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    let gateway = traced(&provider, &collector, "queue = 3\ntimeout_ms = 200");
    assert_eq!(dropped(&gateway), 0);
    collector.stops();
    let said = "spans are dropped until the collector takes them";
    eventually("that it is noticed", || {
        gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
        gateway.log().contains(said).then_some(())
    });
    let begun = Instant::now();
    for _ in 0..20 {
        gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    }
    // the tries of one batch take longer than two seconds
    assert!(begun.elapsed() < Duration::from_secs(30), "the collector was waited for");
    eventually("a full queue", || (dropped(&gateway) >= 20).then_some(()));
    collector.resumes();
    eventually("spans again", || {
        let id = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id();
        let spans = collector.spans();
        let found = spans.iter().any(|span| span.attributes.get("tunegate.request_id") == Some(&json!(id)));
        (found || gateway.log().contains("the collector takes spans again")).then_some(())
    });
    assert_eq!(gateway.log().matches(said).count(), 1, "said once");
    assert!(gateway.log().contains("127.0.0.1"), "and of whom");
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    let mut gateway = traced(&provider, &collector, "");
    let id = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id();
    gateway.outcome_of(&id);
    gateway.stop();
    let sent = collector.spans();
    assert!(
        sent.iter().any(|span| span.attributes.get("tunegate.request_id") == Some(&json!(id))),
        "{sent:#?}"
    );
}

#[test]
fn a_collector_that_asks_for_time_is_asked_again() {
    let (provider, collector) = (SimulatedProvider::start(), Collector::start());
    collector.answers(503);
    let gateway = traced(&provider, &collector, "");
    let id = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id();
    eventually("a first try", || (collector.refused() > 0).then_some(()));
    collector.answers(200);
    collector.spans_of(&id);
    assert_eq!(dropped(&gateway), 0);
    collector.answers(400);
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    eventually("that it is given up", || (dropped(&gateway) == 2).then_some(()));
    eventually("the reason", || gateway.log().contains("it answered 400").then_some(()));
}
