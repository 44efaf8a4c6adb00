//! Deployments.

use std::time::Duration;

use crate::domain::breaker;
use crate::domain::capability::Capability;
use crate::domain::catalog::{OnClientGone, OnUnsupported, Queue};
use crate::domain::endpoint::Endpoint;

use super::*;

#[test]
fn deployments_take_their_manners_from_the_provider() {
    let config = good(
        &format!(
            "{NO_WORKER}
            [providers.p]
            kind = \"openai\"
            base_url = \"http://127.0.0.1:1/v1\"
            on_client_gone = \"drain\"
            timeouts = {{ connect_ms = 1000, total_ms = 9000 }}
            [deployments.a]
            provider = \"p\"
            model = \"o4-mini\"
            [deployments.b]
            provider = \"p\"
            model = \"m\"
            base_model = \"gpt-4.1\"
            endpoints = [\"embeddings\"]
            max_output_tokens = 7
            default_output_tokens = 5
            on_client_gone = \"abort\"
            drain_ms = 0
            timeouts.total_ms = 5000
            [models.m]
            deployments = [\"a\", \"b\"]"
        ),
        &[],
    );
    let (a, b) = (&config.catalog.deployments["a"], &config.catalog.deployments["b"]);
    let seconds = Duration::from_secs;
    assert_eq!(
        (a.timeouts.connect, a.timeouts.total, a.timeouts.first_byte),
        (seconds(1), seconds(9), seconds(600))
    );
    assert_eq!((b.timeouts.connect, b.timeouts.total), (seconds(1), seconds(5)));
    assert_eq!((a.on_client_gone, b.on_client_gone), (OnClientGone::Drain, OnClientGone::Abort));
    assert_eq!((a.drain, b.drain), (seconds(30), Duration::ZERO));
    assert_eq!((a.reasoning, b.reasoning), (true, false));
    assert_eq!((a.endpoints.len(), b.endpoints.as_slice()), (5, &[Endpoint::Embeddings][..]));
    assert_eq!((a.max_output_tokens, b.max_output_tokens), (None, Some(7)));
    assert_eq!((a.default_output_tokens, b.default_output_tokens), (4_096, 5));
    assert_eq!(b.model_identity(), "gpt-4.1");
}

const PROVIDERS: &str = "[worker]\nenabled = false\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
    [providers.w]\nkind = \"candle\"\nbase_url = \"unix:/x\"\n";

#[test]
fn what_a_deployment_can_do_and_how_much() {
    let text = format!(
        "{PROVIDERS}
        [deployments.a]
        provider = \"p\"
        model = \"ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY\"
        context_window = 128000
        capabilities = [\"tools\", \"audio\"]
        quality = 0.925
        retires = \"2027-01-14\"
        limits = {{ requests_per_minute = 10, concurrent = 2 }}
        queue = {{ places = 3, wait_ms = 0 }}
        unsupported = [\"logit_bias\"]
        on_unsupported = \"drop\"
        breaker = {{ consecutive_failures = 1, failure_percent = 20, longest_cooldown_ms = 1000 }}
        health_check_ms = 1000
        [deployments.b]
        provider = \"w\"
        model = \"m\"
        quality = 1
        retires = \"2001-09-09T01:46:40Z\"
        [deployments.c]
        provider = \"p\"
        model = \"ft:*\"
        [deployments.d]
        provider = \"p\"
        model = \"gpt-4.1-2025-04-14.ft-0a1b\"
        direct = false"
    );
    let config = good(&text, &[]);
    let of = |name: &str| &config.catalog.deployments[name];
    let (a, b) = (of("a"), of("b"));
    assert_eq!((a.direct, b.direct, of("c").direct, of("d").direct), (true, false, false, false));
    assert_eq!((a.context_window, b.context_window), (Some(128_000), None));
    assert_eq!(a.capabilities.as_deref(), Some(&[Capability::Tools, Capability::Audio][..]));
    assert_eq!((b.capabilities.as_deref(), &of("c").capabilities), (Some(&[][..]), &None));
    assert_eq!((a.quality, b.quality, of("c").quality), (Some(925), Some(1_000), None));
    assert_eq!((a.retires_at_ms, b.retires_at_ms), (Some(1_799_884_800_000), Some(1_000_000_000_000)));
    assert_eq!((a.limits.requests_per_minute, a.limits.concurrent), (Some(10), Some(2)));
    assert_eq!((a.queue, b.queue), (Queue { places: 3, wait: Duration::ZERO }, Queue::default()));
    assert_eq!(
        (a.unsupported.as_slice(), a.on_unsupported),
        (&["logit_bias".into()][..], OnUnsupported::Drop)
    );
    let second = Duration::from_secs(1);
    let breaker = breaker::Policy {
        consecutive: 1,
        ratio_percent: 20,
        cooldown: second,
        longest_cooldown: second,
        ..breaker::Policy::default()
    };
    assert_eq!((a.breaker, b.breaker), (breaker, breaker::Policy::default()));
    assert_eq!((a.health_check_every, b.health_check_every), (Some(second), None));
    let direct = resolve(&config, "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY").expect("by its own name");
    assert_eq!(&*direct.1, "a");
    assert_eq!(resolve(&config, "gpt-4.1-2025-04-14.ft-0a1b"), None);
    let about = |name: &str| {
        let place = format!("deployments.{name}");
        config.notices.iter().filter(|notice| notice.starts_with(&place)).cloned().collect::<Vec<_>>()
    };
    assert!(about("a").is_empty(), "nobody leads there, but it can be asked for: {:?}", about("a"));
    let ended = "deployments.b.retires: it ended on 2001-09-09T01:46:40Z: no request is sent there";
    assert!(about("b").contains(&ended.to_owned()), "{:?}", about("b"));
    assert!(about("b").contains(&"deployments.b: no model leads here".to_owned()), "{:?}", about("b"));
}

#[test]
fn what_a_deployment_may_not_say() {
    for (written, said) in [
        ("model = \"x-*\"\ndirect = true", "direct: behind a `*` there is no one name to ask for"),
        ("context_window = 0", "context_window: 0 is out of bounds: 1 to 1000000000"),
        (
            "capabilities = [\"tools\", \"vision\"]",
            "capabilities[1]: \"vision\" is no capability: there is tools, images, json_schema, audio",
        ),
        ("capabilities = [\"tools\", \"tools\"]", "capabilities[1]: tools is listed twice"),
        ("quality = 0.9255", "quality: a number from 0 to 1 stands here, with at most three decimals"),
        ("quality = 92", "quality: a number from 0 to 1 stands here, with at most three decimals"),
        (
            "retires = \"soon\"",
            "retires: no day: write one such as \"2026-12-01\" (0:00 UTC), or \"2026-12-01T12:00:00Z\"",
        ),
        ("limits.tokens_per_minute = 0", "limits.tokens_per_minute: 0 is out of bounds: 1 to 10000000000000"),
        ("queue.places = 5", "queue: means nothing without limits.concurrent: nobody waits there"),
        (
            "limits.concurrent = 1\nqueue = { places = 100001 }",
            "queue.places: 100001 is out of bounds: 0 to 100000",
        ),
        (
            "limits.concurrent = 1\nqueue = { wait_ms = 600001 }",
            "queue.wait_ms: 600001 is out of bounds: 0 to 600000",
        ),
        (
            "unsupported = [\"max_tokens\"]",
            "unsupported[0]: max_tokens can't be left out: no request goes without",
        ),
        (
            "unsupported = [\"a.b\"]",
            "unsupported[0]: a top-level member of requests stands here, such as \"logit_bias\"",
        ),
        ("unsupported = [\"seed\", \"seed\"]", "unsupported[1]: seed is listed twice"),
        ("on_unsupported = \"drop\"", "on_unsupported: means nothing without `unsupported`"),
        ("breaker.consecutive_failures = 0", "breaker.consecutive_failures: 0 is out of bounds: 1 to 10000"),
        ("breaker.failure_percent = 101", "breaker.failure_percent: 101 is out of bounds: 1 to 100"),
        ("breaker.probes = 0", "breaker.probes: 0 is out of bounds: 1 to 10000"),
        (
            "breaker.window_ms = 0",
            "breaker.window_ms: 0 ms leaves no time at all: leave the key out for the default",
        ),
        ("breaker.cooldown_ms = 120001", "breaker.cooldown_ms: more than longest_cooldown_ms, 120000"),
        ("breaker.cooldown = 1", "breaker.cooldown: unknown key; config/full.toml lists every key"),
        (
            "health_check_ms = 999",
            "health_check_ms: 999 is too often: at least 1000, or leave it out for none",
        ),
    ] {
        let model = if written.starts_with("model") { "" } else { "model = \"m\"\n" };
        let text = format!("{PROVIDERS}[deployments.d]\nprovider = \"p\"\n{model}{written}");
        assert_eq!(wrong(&text), [format!("deployments.d.{said}")], "{written}");
    }
    let odd = wrong(&format!(
        "{PROVIDERS}[deployments.d]\nprovider = \"p\"\nmodel = \"m\"\non_unsupported = \"ignore\""
    ));
    assert!(odd[0].starts_with("deployments.d.on_unsupported: "), "{odd:?}");
}
