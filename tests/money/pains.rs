//! What gateways like this one have got wrong with money, one test for each. The table stands in the module above.

use serde_json::{Value, json};

use super::{
    ANSWER_NANOS, ANSWER_TOKENS, CHAT, KEY, TOKEN_NANOS, budget, capped, decided, nanos, nanos_of, of_user,
    paid, usd,
};
use crate::support::journal::Session;
use crate::support::setup::FINE_TUNED;
use crate::support::{
    Answer, Call, Connection, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually,
};

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:9/v1";
const SPENT: &str = "project_spend_limit_exceeded";

fn cost(answer: &Answer) -> i64 {
    nanos_of(answer.header("x-tunegate-cost-usd").expect("a cost"))
}

fn left(answer: &Answer) -> i64 {
    nanos_of(answer.header("x-tunegate-budget-left-usd").expect("what is left"))
}

/// The statuses of many requests that were sent at once.
fn at_once(gateway: &TestGateway, bodies: &[Value]) -> Vec<u16> {
    let sent: Vec<Connection> = bodies.iter().map(|body| gateway.send(CHAT, body)).collect();
    sent.into_iter().map(|mut connection| connection.answer().status).collect()
}

#[test]
fn pain_01_the_first_requests_of_an_unknown_end_user_are_no_exception() {
    let provider = SimulatedProvider::start();
    let each = budget("users", 3 * ANSWER_NANOS, "scope = { each = \"end_user\" }");
    let gateway = TestGateway::with(paid(&provider).and(&each)).start();
    for user in ["ann", "bob"] {
        let bodies = vec![of_user(capped("paid", ANSWER_TOKENS), user); 20];
        let served = at_once(&gateway, &bodies).into_iter().filter(|status| *status == 200).count();
        assert_eq!(served, 3, "{user}");
    }
    let refused = gateway.post(CHAT, &of_user(capped("paid", ANSWER_TOKENS), "bob"));
    assert_eq!(refused.expect_error(429, SPENT)["budget"]["subject"], "bob");
}

#[test]
fn pain_03_a_restart_counts_what_the_ledger_says() {
    let provider = SimulatedProvider::start();
    let limit = 100 * ANSWER_NANOS;
    let mut gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    for _ in 0..5 {
        gateway.post(CHAT, &capped("paid", 50)).expect(200);
    }
    gateway.stop();
    gateway.start_again();
    let answer = gateway.post(CHAT, &capped("paid", 50)).expect(200);
    assert_eq!(left(&answer), limit - 6 * ANSWER_NANOS);
    gateway.books_agree();
}

#[test]
fn pain_04_a_database_that_fails_neither_opens_nor_empties_a_budget() {
    let provider = SimulatedProvider::start();
    let limits = "\n[database]\nacquire_timeout_ms = 3000\nstatement_timeout_ms = 3000\n";
    let setup = paid(&provider).and(&budget("all", 3 * ANSWER_NANOS, "")).and(limits);
    let gateway = TestGateway::with(setup).start();
    let body = capped("paid", ANSWER_TOKENS);
    let ask = || decided(|| gateway.post(CHAT, &body));
    for _ in 0..2 {
        ask().expect(200);
    }
    gateway.settled_journal(|journal| journal.usages().len() == 2);
    let mut other = Session::on(&gateway.database_url());
    other.run("BEGIN IMMEDIATE");
    gateway.post(CHAT, &body).expect_error(503, "ledger_unavailable");
    other.run("ROLLBACK");
    assert_eq!(left(&ask().expect(200)), 0, "the refused one has cost nothing");
    ask().expect_error(429, SPENT);
}

#[test]
fn pain_06_a_free_model_with_a_paid_fallback_cannot_spend_without_limit() {
    let provider = SimulatedProvider::start();
    let free = "model = \"acme-free\"\nprice = { input_per_1m_usd = \"0\", output_per_1m_usd = \"0\" }";
    let setup = paid(&provider)
        .model_as("free", DEAD, KEY, free)
        .and("\n[models.both]\ndeployments = [\"free\", \"paid\"]\n")
        .and(&budget("all", 3 * ANSWER_NANOS, ""));
    let gateway = TestGateway::with(setup).start();
    let statuses = at_once(&gateway, &vec![capped("both", ANSWER_TOKENS); 20]);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 17, "{statuses:?}");
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 3);
    assert!(journal.0.iter().all(|entry| entry.deployment == "paid"), "{journal:#?}");
    assert_eq!(provider.requests().len(), 3);
}

#[test]
fn pain_07_no_route_skips_the_budget() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider).and(&budget("all", 1, ""))).start();
    let mut bodies = vec![("embeddings", json!({"model": "embedder", "input": "hi"}))];
    for stream in [false, true] {
        for (path, member) in
            [("completions", json!({"prompt": "hi"})), ("responses", json!({"input": "hi"}))]
        {
            let mut body = member;
            (body["model"], body["stream"]) = ("support-bot".into(), stream.into());
            bodies.push((path, body));
        }
        for model in ["support-bot", "openai/gpt-4o"] {
            let mut body = chat(model, "hi");
            body["stream"] = stream.into();
            bodies.push(("chat/completions", body));
        }
    }
    for (path, body) in bodies {
        gateway.post(&format!("/v1/{path}"), &body).expect_error(429, SPENT);
        let azure = Call::post(&format!("/openai/v1/{path}"), &body).header("api-key", gateway.key());
        gateway.call(azure).expect_error(429, SPENT);
    }
    let classic = "/openai/deployments/support-bot/chat/completions?api-version=2024-10-21";
    gateway
        .call(Call::post(classic, &chat("support-bot", "hi")).header("api-key", gateway.key()))
        .expect_error(429, SPENT);
    assert!(provider.requests().is_empty(), "nobody was asked");
    assert!(gateway.journal().0.is_empty(), "and nothing was written");
}

#[test]
fn pain_09_a_threshold_fires_at_its_figure_and_the_refusal_says_whose() {
    let provider = SimulatedProvider::start();
    let window = "alert_at_percent = [50]\nscope = { model = \"paid\" }";
    let setup = paid(&provider).and(&budget("models", 10 * ANSWER_NANOS, window));
    let gateway = TestGateway::with(setup).start();
    let told = || gateway.log().matches("a budget has reached a threshold").count();
    for number in 1..=10 {
        gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).expect(200);
        gateway.settled_journal(|journal| journal.usages().len() == number);
        if number < 5 {
            assert_eq!(told(), 0, "{number} of 10 are spent");
        }
    }
    eventually("one alert", || (told() == 1).then_some(()));
    let refused = gateway.post(CHAT, &capped("paid", ANSWER_TOKENS));
    let figures = refused.expect_error(429, SPENT)["budget"].clone();
    assert_eq!((&figures["name"], &figures["scope"]), (&json!("models"), &json!("model paid")), "{figures}");
    assert_eq!(nanos(&figures["limit_usd"]), 10 * ANSWER_NANOS);
}

#[test]
fn pain_10_the_cost_is_known_before_anybody_is_asked() {
    let provider = SimulatedProvider::start();
    let limit = 1_000_000 * ANSWER_NANOS;
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    let held = |body: &Value| {
        let id = gateway.post(CHAT, body).expect(200).request_id();
        let journal = gateway.settled_journal(|journal| journal.0.iter().any(|e| e.request_id == id));
        journal.0.iter().find(|entry| entry.request_id == id && entry.kind == "hold").expect("a hold").held
    };
    assert_eq!(held(&capped("paid", 100)), 100 * TOKEN_NANOS);
    let mut two = capped("paid", 100);
    two["n"] = json!(2);
    assert_eq!(held(&two), 200 * TOKEN_NANOS);
    // no cap: the deployment's own is written upstream, and told
    let uncapped = chat("paid", "hi");
    assert_eq!(held(&uncapped), 4_096 * TOKEN_NANOS);
    let sent = provider.last_request().json();
    let written = sent.get("max_completion_tokens").or_else(|| sent.get("max_tokens"));
    assert_eq!(written, Some(&json!(4_096)), "{sent}");
    let answer = gateway.post(CHAT, &uncapped).expect(200);
    assert_eq!(answer.header("x-tunegate-output-cap"), Some("4096"));
    // what can't be bounded is not asked at all
    let asked = provider.requests().len();
    let searching = json!({"model": "paid", "max_tokens": 5, "web_search_options": {}, "messages": [{"role": "user", "content": "hi"}]});
    gateway.post(CHAT, &searching).expect_error(400, "unbounded_cost");
    assert_eq!(provider.requests().len(), asked);
}

#[test]
fn pain_11_a_fine_tuned_model_costs_what_its_family_costs() {
    let provider = SimulatedProvider::start();
    let gateway =
        TestGateway::with(Setup::in_front_of(&provider).and(&budget("all", 1_000_000_000, ""))).start();
    for model in ["support-bot", FINE_TUNED] {
        let answer = gateway.post(CHAT, &chat(model, "how many crates fit")).expect(200);
        assert_eq!(cost(&answer), 4 * 800 + 6 * 3_200, "0.80 and 3.20 USD per 1M tokens: {model}");
    }
}

#[test]
fn pain_12_an_unknown_model_is_not_free() {
    let provider = SimulatedProvider::start();
    let setup =
        paid(&provider).model_as("mystery", &format!("{}/v1", provider.url()), KEY, "model = \"who-knows\"");
    let gateway = TestGateway::with(setup).start();
    let error = gateway.post(CHAT, &chat("mystery", "hi")).expect_error(403, "unpriced_model");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("mystery")), "{error}");
    assert!(provider.requests().is_empty());
    let metrics = gateway.admin(Call::get("/metrics")).text();
    assert!(metrics.contains("tunegate_unpriced_requests_total{deployment=\"mystery\"} 1"), "{metrics}");
}

#[test]
fn pain_13_a_broken_price_file_changes_nothing() {
    let provider = SimulatedProvider::start();
    let prices =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prices.toml")).expect("prices");
    let setup = Setup::in_front_of(&provider)
        .and("\n[prices]\nfile = \"prices.toml\"\n")
        .file("prices.toml", &prices);
    let gateway = TestGateway::with(setup).start();
    let before = cost(&gateway.post(CHAT, &chat("support-bot", "hi")).expect(200));
    let file = gateway.folder().join("prices.toml");
    for broken in ["", "[[models]]\nmodel = ", &prices.replace("input_per_1m_usd", "input_per_token_usd")] {
        std::fs::write(&file, broken).expect("written");
        assert!(gateway.reload().status >= 400, "{}", &broken[..broken.len().min(40)]);
        assert_eq!(cost(&gateway.post(CHAT, &chat("support-bot", "hi")).expect(200)), before);
    }
    let versions: std::collections::BTreeSet<String> = gateway
        .journal()
        .0
        .into_iter()
        .filter_map(|e| e.booked_on.rsplit('/').next().map(str::to_owned))
        .collect();
    assert_eq!(versions.len(), 1, "each row names the prices it was computed with: {versions:?}");
}

#[test]
fn pain_14_a_price_in_another_unit_is_refused() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(setup.clone()).start();
    for price in ["0.0000004", "400"] {
        let deployment = format!(
            "model = \"gpt-4.1-mini\"\nprice = {{ input_per_1m_usd = \"{price}\", output_per_1m_usd = \"1.60\" }}"
        );
        gateway.rewrite(&setup.clone().model_as("odd", DEAD, KEY, &deployment));
        let answer = gateway.reload();
        assert!(answer.status >= 400 && answer.text().contains("per token"), "{}", answer.text());
    }
    gateway.post(CHAT, &chat("odd", "hi")).expect_error(404, "model_not_found");
}

#[test]
fn pain_15_cached_tokens_are_not_fresh_ones() {
    let provider = SimulatedProvider::start();
    let gateway =
        TestGateway::with(Setup::in_front_of(&provider).and(&budget("all", 1_000_000_000, ""))).start();
    let usage = json!({"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010,
        "prompt_tokens_details": {"cached_tokens": 900}});
    let whole = json!({"object": "chat.completion", "choices": [], "usage": usage});
    provider.replies(Reply::json(200, &whole).billed(1_000, 10));
    let answer = gateway.post(CHAT, &capped("drainer", 10)).expect(200);
    // 0.40, cached 0.10, output 1.60 USD per 1M tokens
    assert_eq!(cost(&answer), 100 * 400 + 900 * 100 + 10 * 1_600);
}

#[test]
fn pain_21_no_word_of_a_prompt_and_no_refusal_fills_the_database() {
    let provider = SimulatedProvider::start();
    provider.says("rhubarb rhubarb");
    let limit = 2 * ANSWER_NANOS;
    let mut gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    let mut body = capped("paid", ANSWER_TOKENS);
    body["messages"][0]["content"] = "the quick brown xylophone".into();
    gateway.post(CHAT, &body).expect(200);
    let rows = gateway.settled_journal(|journal| journal.usages().len() == 1).0.len();
    let greedy = capped("paid", 1_000);
    for _ in 0..50 {
        gateway.post(CHAT, &greedy).expect_error(429, SPENT);
    }
    assert_eq!(gateway.journal().0.len(), rows, "a refusal is a metric and no row");
    gateway.stop();
    let state = gateway.folder().join("state");
    for file in std::fs::read_dir(state).expect("the state folder") {
        let bytes = std::fs::read(file.expect("a file").path()).unwrap_or_default();
        let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        assert!(!has(b"xylophone") && !has(b"rhubarb"), "words are kept");
    }
}

#[test]
fn what_a_provider_bills_beyond_the_bound_is_booked_and_told() {
    let provider = SimulatedProvider::start();
    let limit = 10 * ANSWER_NANOS;
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 75, "total_tokens": 76});
    let whole = json!({"object": "chat.completion", "choices": [], "usage": usage});
    provider.replies(Reply::json(200, &whole).billed(1, 75));
    let answer = gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).expect(200);
    assert_eq!((cost(&answer), left(&answer)), (75 * TOKEN_NANOS, limit - 75 * TOKEN_NANOS));
    eventually("a word about it", || gateway.log().contains("beyond the upper bound").then_some(()));
    gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).expect_error(429, SPENT);
}

#[test]
fn a_budget_that_clamps_lowers_the_cap_to_what_is_left() {
    let provider = SimulatedProvider::start();
    let limit = 100 * TOKEN_NANOS;
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, "action = \"clamp\""))).start();
    let answer = gateway.post(CHAT, &capped("paid", 1_000)).expect(200);
    assert_eq!(answer.header("x-tunegate-output-cap"), Some("100"));
    let sent = provider.last_request().json();
    assert!([&sent["max_tokens"], &sent["max_completion_tokens"]].contains(&&json!(100)), "{sent}");
    let mut served = 1;
    while gateway.post(CHAT, &capped("paid", 1_000)).status == 200 {
        served += 1;
        gateway.settled_journal(|journal| journal.usages().len() == served);
    }
    let left = limit - gateway.journal().spent();
    assert!((0..64 * TOKEN_NANOS).contains(&left), "under 64 tokens nothing is clamped: {} left", usd(left));
}

#[test]
fn a_budget_that_downgrades_asks_the_cheaper_deployment() {
    let provider = SimulatedProvider::start();
    let cheap = "model = \"acme-cheap\"\nprice = { input_per_1m_usd = \"0\", output_per_1m_usd = \"10\" }";
    provider.charges("acme-cheap", 0, 10_000);
    let setup = paid(&provider)
        .model_as("cheap", &format!("{}/v1", provider.url()), KEY, cheap)
        .and("\n[models.both]\ndeployments = [\"paid\", \"cheap\"]\n")
        .and(&budget("all", ANSWER_NANOS + ANSWER_NANOS / 2, "action = \"downgrade\""));
    let gateway = TestGateway::with(setup).start();
    let asked: Vec<String> = (1..=3)
        .map(|number| {
            let answer = gateway.post(CHAT, &capped("both", ANSWER_TOKENS)).expect(200);
            gateway.settled_journal(|journal| journal.usages().len() == number);
            answer.header("x-tunegate-deployment").unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(asked, ["paid", "cheap", "cheap"]);
}

#[test]
fn a_refusal_does_not_wait_for_a_connection() {
    // it takes connections, and never says a word of TLS
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("https://127.0.0.1:{}/v1", silent.local_addr().expect("an address").port());
    let setup = Setup::bare()
        .model("bot", &base, "api_key = { env = \"PATH\" }\ntimeouts = { connect_ms = 20000 }", "")
        .and(&budget("all", 1, ""));
    let gateway = TestGateway::with(setup).start();
    let began = std::time::Instant::now();
    gateway.post(CHAT, &chat("bot", "hi")).expect_error(429, SPENT);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}
