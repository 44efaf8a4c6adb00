//! The providers' lists of models: when models end, told to operators and clients; and lists that are good for nothing.

use serde_json::{Value, json};

use crate::support::setup::FINE_TUNED;
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually};

const SOON: &str = "poll_ms = 1000";

/// The value of a metric's series.
fn metric(gateway: &TestGateway, series: &str) -> Option<i64> {
    let text = gateway.admin(Call::get("/metrics")).expect(200).text();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn ends(gateway: &TestGateway, deployment: &str) -> Option<i64> {
    let name = "tunegate_deployment_retirement_timestamp_seconds";
    metric(gateway, &format!("{name}{{deployment=\"{deployment}\"}}"))
}

fn polls(gateway: &TestGateway, provider: &str, result: &str) -> i64 {
    let labels = format!("{{provider=\"{provider}\",result=\"{result}\"}}");
    metric(gateway, &format!("tunegate_upstream_polls_total{labels}")).unwrap_or(0)
}

fn list(models: &[Value]) -> Reply {
    Reply::json(200, &json!({"object": "list", "data": models}))
}

#[test]
fn what_a_provider_says_of_a_models_end_is_told_on() {
    let provider = SimulatedProvider::start();
    let tuned = json!({"id": FINE_TUNED, "object": "model", "shutdown_date": "2077-01-14"});
    provider.lists(list(&[json!({"id": "gpt-4o", "shutdown_date": null}), tuned]));
    let gateway = TestGateway::with(Setup::in_front_of(&provider).retirements(SOON)).start();
    let at = eventually("the day in the metrics", || ends(&gateway, "support-v3"));
    assert_eq!(at, 3_377_808_000, "2077-01-14T00:00:00Z");
    assert_eq!(ends(&gateway, "support-azure"), None, "nobody said anything of it");
    for name in ["support-bot", FINE_TUNED] {
        let model = gateway.get(&format!("/v1/models/{name}")).expect(200).json();
        assert_eq!(model["shutdown_date"], "2077-01-14", "{name}");
    }
    let all = gateway.get("/v1/models").expect(200).json();
    let dated = |row: &&Value| row.get("shutdown_date").is_some();
    let dated: Vec<&str> = all["data"]
        .as_array()
        .expect("rows")
        .iter()
        .filter(dated)
        .filter_map(|row| row["id"].as_str())
        .collect();
    assert_eq!(dated, [FINE_TUNED, "support-bot"]);
    // a day may be moved
    provider.lists(list(&[json!({"id": FINE_TUNED, "shutdown_date": "2078-01-14"})]));
    eventually("the other day", || ends(&gateway, "support-v3").filter(|other| *other > at));
    // and taken back
    provider.lists(list(&[json!({"id": FINE_TUNED, "shutdown_date": null})]));
    eventually("no day", || ends(&gateway, "support-v3").is_none().then_some(()));
    gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
}

#[test]
fn azures_list_says_it_in_seconds() {
    let provider = SimulatedProvider::start();
    let model = json!({"id": "support-eu", "lifecycle_status": "generally-available",
        "deprecation": {"fine_tune": 3_300_000_000_i64, "inference": 3_377_808_000_i64}});
    provider.lists(list(&[model]));
    let gateway = TestGateway::with(Setup::in_front_of(&provider).retirements(SOON)).start();
    for deployment in ["support-azure", "support-classic"] {
        let at = eventually("the day in the metrics", || ends(&gateway, deployment));
        assert_eq!(at, 3_377_808_000, "{deployment}");
    }
    for path in ["/v1/models", "/openai/v1/models", "/openai/models?api-version=2024-10-21"] {
        eventually(path, || provider.requests().iter().any(|asked| asked.target == path).then_some(()));
    }
}

#[test]
fn a_list_that_is_good_for_nothing_harms_nothing() {
    let huge = format!(r#"{{"data":[{{"id":"{}"}}]}}"#, "x".repeat(9 << 20));
    for (what, reply, result) in [
        ("no list", Reply::usual(), "refused"),
        ("trouble", Reply::json(500, &json!({"error": {"message": "down"}})), "refused"),
        ("no JSON", Reply::body(200, "text/html", b"<html>".to_vec()), "no_list"),
        ("another form", Reply::json(200, &json!({"data": {"id": 5}})), "no_list"),
        ("too large", Reply::body(200, "application/json", huge.into_bytes()), "no_list"),
        ("half a list", list(&[]).resets_after_bytes(9), "unreachable"),
        ("silence", Reply::usual().hangs(), "unreachable"),
    ] {
        let provider = SimulatedProvider::start();
        provider.lists(reply);
        let gateway = TestGateway::with(Setup::in_front_of(&provider).retirements(SOON)).start();
        eventually(what, || (provider.requests().len() >= 3).then_some(()));
        gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
        eventually(what, || (polls(&gateway, "openai", result) >= 1).then_some(()));
        gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
        assert_eq!(ends(&gateway, "support-v3"), None, "{what}");
    }
}

#[test]
fn nobody_is_asked_who_is_not_to_be() {
    let (provider, other) = (SimulatedProvider::start(), SimulatedProvider::start());
    let quiet = TestGateway::with(Setup::in_front_of(&provider)).start();
    let asking = TestGateway::with(Setup::in_front_of(&other).retirements(SOON)).start();
    eventually("the other's questions", || (other.requests().len() >= 6).then_some(()));
    assert!(provider.requests().is_empty(), "with poll_ms = 0 no list is asked for");
    drop((quiet, asking));
}

/// The day so many days from now.
fn day(days: i64) -> String {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    today.saturating_add(jiff::Span::new().days(days)).to_string()
}

#[test]
fn clients_hear_of_the_end_and_then_nobody_is_sent_there() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).retirements(SOON);
    let gateway = TestGateway::with(setup).start();
    let answer = gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
    assert!(answer.header("sunset").is_none() && answer.header("x-tunegate-warning").is_none());
    let ends_on = |day: &str| provider.lists(list(&[json!({"id": FINE_TUNED, "shutdown_date": day})]));
    let soon = day(30);
    ends_on(&soon);
    eventually("the day", || ends(&gateway, "support-v3"));
    let answer = gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
    let warning = format!("deployment support-v3 retires on {soon}");
    assert_eq!(answer.header("x-tunegate-warning"), Some(warning.as_str()));
    assert!(answer.header("sunset").is_some_and(|date| date.ends_with(" 00:00:00 GMT")));
    ends_on(&day(-1));
    let refused = eventually("a refusal", || {
        let answer = gateway.post("/v1/chat/completions", &chat("support-bot", "hi"));
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("support-v3"), "{}", refused.text());
    let paths = provider.requests().iter().filter(|request| request.method == "POST").count();
    gateway.post("/v1/chat/completions", &chat("support-bot", "hi"));
    assert_eq!(provider.requests().iter().filter(|request| request.method == "POST").count(), paths);
}

#[test]
fn checks_open_a_breaker_and_end_its_wait() {
    let provider = SimulatedProvider::start();
    provider.lists(Reply::json(500, &json!({"error": {"message": "down"}})));
    let url = format!("{}/v1", provider.url());
    let key = "api_key = { file = \"upstream.key\" }";
    let checked = "health_check_ms = 1000\nbreaker = { consecutive_failures = 2, cooldown_ms = 60000 }";
    let setup = Setup::in_front_of(&provider).model("checked", &url, key, checked);
    let gateway = TestGateway::with(setup).start();
    let state = || metric(&gateway, "tunegate_breaker_state{deployment=\"checked\"}");
    eventually("an open breaker", || (state() == Some(2)).then_some(()));
    provider.lists(list(&[]));
    eventually("a half-open one", || (state() == Some(1)).then_some(()));
    assert_eq!(metric(&gateway, "tunegate_breaker_state{deployment=\"support-v3\"}"), Some(0));
    for _ in 0..2 {
        gateway.post("/v1/chat/completions", &chat("checked", "hi")).expect(200);
    }
    assert_eq!(state(), Some(0));
}
