//! How a name becomes a deployment: shares that keep to their figures and to their conversations, labels, aliases,
//! conditions, prices, and names that are no model's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CHAT, MODEL, deployment, lab, model, question, served, streamed};
use crate::support::provider::Trouble;
use crate::support::setup::FINE_TUNED;
use crate::support::{Answer, Call, Reply, Setup, SimulatedProvider, TestGateway, eventually};

/// Deployments by name, each before a provider of its own.
struct Fleet {
    setup: Setup,
    providers: BTreeMap<&'static str, SimulatedProvider>,
}

impl Fleet {
    fn of(names: &[&'static str]) -> Self {
        names
            .iter()
            .fold(Self { setup: lab(), providers: BTreeMap::new() }, |fleet, name| fleet.with(name, ""))
    }

    /// One more, with lines for its section.
    fn with(mut self, name: &'static str, lines: &str) -> Self {
        let provider = SimulatedProvider::start();
        let section = deployment(name, &format!("{}/v1", provider.url()), lines);
        self.setup = self.setup.and(&section).watched(&provider);
        self.providers.insert(name, provider);
        self
    }

    fn model(mut self, name: &str, lines: &str) -> Self {
        self.setup = self.setup.and(&model(name, lines));
        self
    }

    fn start(&self) -> TestGateway {
        TestGateway::with(self.setup.clone()).start()
    }

    /// Requests at the provider of a deployment.
    fn asked(&self, name: &str) -> usize {
        self.providers[name].requests().len()
    }
}

/// Which deployment answered.
#[track_caller]
fn by(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-tunegate-deployment").expect("the deployment's name").to_owned()
}

/// Nine in ten, and one in ten.
const CANARY: &str = "weighted = [{ share = 90, to = \"stable\" }, { share = 10, to = \"candidate\" }]";

#[test]
fn a_canary_gets_its_share() {
    let fleet = Fleet::of(&["stable", "candidate"]).model("bot", &format!("plan = {{ {CANARY} }}"));
    let gateway = fleet.start();
    let mut connection = gateway.connect();
    let call = gateway.signed(Call::post(CHAT, &question("bot", "somebody")));
    for _ in 0..500 {
        connection.call(&call).expect(200);
    }
    // four standard deviations of 6.7 to either side of 50: wrong once in 16,000 runs
    let candidate = fleet.asked("candidate");
    assert!((24..=76).contains(&candidate), "{candidate} of 500");
    assert_eq!(fleet.asked("stable") + candidate, 500);
}

#[test]
fn a_conversation_never_flips() {
    let even = "weighted = [{ share = 50, to = \"stable\" }, { share = 50, to = \"candidate\" }]";
    let fleet = Fleet::of(&["stable", "candidate"])
        .model("by-user", &format!("plan = {{ {even}, sticky = [\"end_user\"] }}"))
        .model("by-header", &format!("plan = {{ {even}, sticky = [\"header:x-conversation\"] }}"));
    let gateway = fleet.start();
    let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
    for user in (0..20).map(|at| format!("user-{at}")) {
        let first = by(&gateway.post(CHAT, &question("by-user", &user)));
        for _ in 1..10 {
            assert_eq!(by(&gateway.post(CHAT, &question("by-user", &user))), first, "{user}");
        }
        *chosen.entry(first).or_default() += 1;
    }
    // all on one side by chance: once in 500,000 names, and these names are always the same
    assert_eq!(chosen.len(), 2, "{chosen:?}");
    for conversation in ["a", "b", "c", "d", "e"] {
        let call = |user: &str| {
            Call::post(CHAT, &question("by-header", user)).header("x-conversation", conversation)
        };
        let first = by(&gateway.call(call("one")));
        assert_eq!(by(&gateway.call(call("two"))), first, "{conversation}");
    }
}

#[test]
fn a_share_falls_back_to_the_others() {
    let fleet = Fleet::of(&["stable", "candidate"]).model(
        "bot",
        "plan = { weighted = [{ share = 0, to = \"stable\" }, { share = 1, to = \"candidate\" }] }",
    );
    let gateway = fleet.start();
    fleet.providers["candidate"].always(Reply::trouble(Trouble::rate_limited(60)));
    for _ in 0..3 {
        assert_eq!(by(&gateway.post(CHAT, &question("bot", "somebody"))), "stable");
    }
    assert_eq!(fleet.asked("candidate"), 1, "it has asked for a minute");
}

#[test]
fn labels_and_aliases_are_names_of_their_own() {
    let lines = "deployments = [\"stable\"]\naliases = [\"helper\"]\nlabels = { candidate = \"candidate\" }";
    let fleet = Fleet::of(&["stable", "candidate"]).model("bot", lines);
    let gateway = fleet.start();
    for (name, deployment) in [("bot", "stable"), ("helper", "stable"), ("bot@candidate", "candidate")] {
        let answer = gateway.post(CHAT, &question(name, "somebody"));
        assert_eq!(by(&answer), deployment, "{name}");
    }
    assert_eq!(gateway.post(CHAT, &question("bot@nothing", "somebody")).status, 404);
}

#[test]
fn the_providers_own_name_can_be_asked_for_directly() {
    let (provider, hidden) = (SimulatedProvider::start(), "ft:gpt-4.1-mini-2025-04-14:acme:secret:C3yZ");
    let url = format!("{}/v1", provider.url());
    let setup = lab()
        .and(&served("open", &url, FINE_TUNED, "direct = true"))
        .and(&served("shut", &url, hidden, "direct = false"))
        .and(&model("bot", "deployments = [\"shut\"]"))
        .watched(&provider);
    let gateway = TestGateway::with(setup).start();
    assert_eq!(by(&gateway.post(CHAT, &question(FINE_TUNED, "somebody"))), "open");
    assert_eq!(provider.last_request().json()["model"], FINE_TUNED);
    gateway.post(CHAT, &question(hidden, "somebody")).expect_error(404, "model_not_found");
}

#[test]
fn conditions_look_at_the_request() {
    let plan = "plan = { when = [\
        { if = { header = { x-tier = \"gold\" } }, to = \"gold\" }, \
        { if = { tools = true }, to = \"handy\" }, \
        { if = { stream = true }, to = \"live\" }], otherwise = \"plain\" }";
    let fleet = Fleet::of(&["gold", "handy", "live", "plain"]).model("bot", plan);
    let gateway = fleet.start();
    let ask = |body: &Value, tier: &str| by(&gateway.call(Call::post(CHAT, body).header("x-tier", tier)));
    let mut with_tools = question("bot", "somebody");
    with_tools["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {}}}]);
    assert_eq!(ask(&question("bot", "somebody"), "silver"), "plain");
    assert_eq!(ask(&question("bot", "somebody"), "gold"), "gold");
    assert_eq!(ask(&with_tools, "gold"), "gold", "the first that holds");
    assert_eq!(ask(&with_tools, "silver"), "handy");
    assert_eq!(ask(&streamed("bot", "somebody"), "silver"), "live");
}

#[test]
fn a_pattern_keeps_the_asked_name_on_every_deployment() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = lab()
        .and(&served("first", &format!("{}/v1", first.url()), "*", ""))
        .and(&served("second", &format!("{}/v1", second.url()), "*", ""))
        .and(&model("any/*", "deployments = [\"first\", \"second\"]"))
        .watched(&first)
        .watched(&second);
    let gateway = TestGateway::with(setup).start();
    first.fails(Trouble::rate_limited_silently());
    assert_eq!(by(&gateway.post(CHAT, &question(&format!("any/{MODEL}"), "somebody"))), "second");
    for provider in [&first, &second] {
        assert_eq!(provider.last_request().json()["model"], MODEL);
    }
}

/// The price of a deployment, USD per 1M tokens, which its provider charges, too.
fn priced(fleet: Fleet, name: &'static str, usd: u64, more: &str) -> Fleet {
    let price = format!("price = {{ input_per_1m_usd = \"{usd}\", output_per_1m_usd = \"{usd}\" }}\n{more}");
    let fleet = fleet.with(name, &price);
    fleet.providers[name].charges(MODEL, usd * 1_000, usd * 1_000);
    fleet
}

#[test]
fn the_cheapest_is_asked_and_the_next_when_its_breaker_is_open() {
    let breaker = "breaker = { consecutive_failures = 2, cooldown_ms = 60000 }";
    let fleet = priced(priced(Fleet::of(&[]), "dear", 30, ""), "cheap", 1, breaker);
    let fleet = priced(fleet, "middle", 5, "");
    let fleet = fleet.model(
        "bot",
        "plan = { cheapest = [\"dear\", \"cheap\", \"middle\"], probe_percent = 0 }\nretry = { same = 0 }",
    );
    let gateway = fleet.start();
    for _ in 0..5 {
        assert_eq!(by(&gateway.post(CHAT, &question("bot", "somebody"))), "cheap");
    }
    fleet.providers["cheap"].always(Reply::trouble(Trouble::server_error()));
    for _ in 0..6 {
        assert_eq!(by(&gateway.post(CHAT, &question("bot", "somebody"))), "middle");
    }
    assert_eq!((fleet.asked("cheap"), fleet.asked("middle"), fleet.asked("dear")), (5 + 2, 6, 0));
}

#[test]
fn quality_comes_before_price() {
    let fleet = priced(priced(Fleet::of(&[]), "poor", 1, "quality = 0.4"), "good", 30, "quality = 0.9");
    let fleet = fleet
        .model("bot", "plan = { cheapest = [\"poor\", \"good\"], min_quality = 0.8, probe_percent = 0 }");
    let gateway = fleet.start();
    assert_eq!(by(&gateway.post(CHAT, &question("bot", "somebody"))), "good");
}

#[test]
fn the_fastest_is_found_by_its_answers_and_asked_most() {
    let plan = "plan = { fastest = [\"slow\", \"quick\"], by = \"first_token\", probe_percent = 20 }";
    let fleet = Fleet::of(&["slow", "quick"]).model("bot", plan);
    fleet.providers["slow"].always(Reply::usual().begins_after(Duration::from_millis(150)));
    let gateway = fleet.start();
    let ask = || by(&gateway.post(CHAT, &streamed("bot", "somebody")));
    eventually("a look at the other", || (ask() == "quick").then_some(()));
    // 32 of 40 are expected, give or take 2.5
    let quick = (0..40).filter(|_| ask() == "quick").count();
    assert!((20..=40).contains(&quick), "{quick} of 40");
}

#[test]
fn a_pool_asks_where_quota_is_left() {
    let fleet = Fleet::of(&["spent", "fresh"]).model("bot", "plan = { pool = [\"spent\", \"fresh\"] }");
    // a minute for all of it: what is spent stays so for seconds
    let with_left = |limit: &str, left: &str| {
        Reply::usual()
            .with_header("x-ratelimit-limit-tokens", limit)
            .with_header("x-ratelimit-remaining-tokens", left)
            .with_header("x-ratelimit-reset-tokens", "60")
    };
    fleet.providers["spent"].always(with_left("100", "0"));
    fleet.providers["fresh"].always(with_left("10000", "9000"));
    let gateway = fleet.start();
    let ask = || by(&gateway.post(CHAT, &question("bot", "somebody")));
    eventually("an answer of the one whose quota is spent", || (ask() == "spent").then_some(()));
    for _ in 0..20 {
        assert_eq!(ask(), "fresh");
    }
    assert_eq!(fleet.asked("spent"), 1);
}
