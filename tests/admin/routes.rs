//! `/admin/v1/routes`, its explanations, and the commands that ask for them.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::TUNEGATE;
use crate::support::provider::UPSTREAM_KEY;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat};

const ROUTES: &str = "/admin/v1/routes";

/// What the families of metrics begin with that a request moves: what was asked, refused, tried, counted, charged and
/// kept. What the gateway looks at in the background, whenever it comes to it, is not among them.
const OF_REQUESTS: [&str; 20] = [
    "tunegate_requests",
    "tunegate_responses",
    "tunegate_failures",
    "tunegate_refusals",
    "tunegate_request_duration",
    "tunegate_overhead",
    "tunegate_in_flight",
    "tunegate_tokens",
    "tunegate_upstream_errors",
    "tunegate_retries",
    "tunegate_fallbacks",
    "tunegate_sheds",
    "tunegate_breaker",
    "tunegate_deployment_in_flight",
    "tunegate_deployment_waiting",
    "tunegate_cost_usd",
    "tunegate_unpriced",
    "tunegate_ledger_entries",
    "tunegate_ledger_open_holds",
    "tunegate_cache_requests",
];

/// Five deployments of different price and power, and plans over them.
fn lab(provider: &SimulatedProvider) -> Setup {
    let url = provider.url();
    let deployment = |name: &str, input: &str, output: &str, lines: &str| {
        format!(
            "\n[deployments.{name}]\nprovider = \"lab\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n\
             price = {{ input_per_1m_usd = \"{input}\", output_per_1m_usd = \"{output}\" }}\n{lines}\n"
        )
    };
    let sections = [
        format!(
            "\n[providers.lab]\nkind = \"openai\"\nbase_url = \"{url}/v1\"\napi_key = {{ file = \"upstream.key\" }}\n"
        ),
        deployment("dear", "2", "8", ""),
        deployment("cheap", "0.1", "0.4", "quality = 0.75"),
        deployment("plain", "0.01", "0.02", "capabilities = []"),
        deployment("short", "0.01", "0.02", "context_window = 16"),
        deployment("spent", "0.05", "0.05", ""),
        "\n[budgets.spent]\nlimit_usd = \"0.000000001\"\nwindow = \"total\"\nscope = { deployment = \"spent\" }\n\
         \n[models.bot]\naliases = [\"helper\"]\n\
         plan = { cheapest = [\"dear\", \"cheap\", \"plain\", \"short\", \"spent\"] }\nlabels = { next = \"dear\" }\n\
         \n[models.split.plan]\nsticky = [\"header:x-conversation\", \"end_user\"]\n\
         weighted = [{ share = 90, to = \"cheap\" }, { share = 10, to = \"dear\" }]\n\
         \n[models.cases.plan]\nwhen = [{ if = { team = \"sales\" }, to = \"dear\" }]\n\
         \n[models.long]\nplan = \"short\"\nlonger_context = [\"cheap\", \"dear\"]\n\
         \n[models.\"lab/*\"]\ndeployments = [\"cheap\"]\n"
            .to_owned(),
    ];
    Setup::bare().file("upstream.key", UPSTREAM_KEY).and(&sections.concat()).watched(provider)
}

fn explain(model: &str, body: &Value) -> Call {
    Call::post(&format!("{ROUTES}/{model}/explain"), body)
}

/// A request with a tool and a cap, so that what is expected of it is known.
fn with_tool() -> Value {
    let mut body = chat("bot", "Where is my parcel? I have waited for it since Monday.");
    body["max_tokens"] = json!(20);
    body["tools"] =
        json!([{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]);
    body
}

fn names(explanation: &Value, member: &str) -> Vec<String> {
    let rows = explanation[member].as_array().unwrap_or_else(|| panic!("{explanation}"));
    rows.iter().map(|row| row["deployment"].as_str().expect("a name").to_owned()).collect()
}

fn row<'e>(explanation: &'e Value, deployment: &str) -> &'e Value {
    let rows = ["order", "out"].into_iter().filter_map(|member| explanation[member].as_array()).flatten();
    rows.into_iter().find(|row| row["deployment"] == deployment).unwrap_or_else(|| panic!("{explanation}"))
}

fn nanos(amount: &Value) -> f64 {
    (amount.as_f64().expect("an amount") * 1e9).round()
}

#[test]
fn every_candidate_is_told_with_its_price_and_its_reason() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let told = gateway.admin(explain("bot", &with_tool())).expect(200).json();
    assert_eq!(names(&told, "order"), ["cheap", "dear", "spent"], "{told}");
    assert_eq!(names(&told, "out"), ["plain", "short"]);
    assert_eq!((&told["facts"]["tools"], &told["facts"]["key"]), (&json!(true), &Value::Null));
    assert_eq!(told["refusal"], Value::Null);
    assert!(told["words"].as_str().is_some_and(|words| words.starts_with("the cheapest of dear, cheap")));
    for (name, input_nanos, output_nanos) in [("cheap", 100.0, 400.0), ("dear", 2_000.0, 8_000.0)] {
        let row = row(&told, name);
        let (input, output) = (&row["expected"]["input"], &row["expected"]["output"]);
        assert_eq!((input, output), (&told["facts"]["input_tokens"], &json!(20)), "{row}");
        let input = input.as_f64().expect("tokens");
        assert!(input > 20.0, "{input}");
        let cost = nanos(&row["expected_cost_usd"]);
        assert!((cost - (input * input_nanos + 20.0 * output_nanos)).abs() < 0.5, "{cost} for {row}");
        assert!(nanos(&row["upper_bound_usd"]) >= cost, "{row}");
        assert_eq!((&row["late"], &row["breaker"]), (&Value::Null, &json!("closed")));
    }
    assert_eq!(row(&told, "cheap")["position"], 1);
    assert_eq!(row(&told, "cheap")["quality"], 0.75);
    assert_eq!(row(&told, "plain")["code"], "capability");
    let short = row(&told, "short");
    assert_eq!(short["code"], "context_window");
    assert!(short["why"].as_str().is_some_and(|why| why.contains("its context window has 16")), "{short}");
    let spent = row(&told, "spent");
    assert_eq!((&spent["late"]["code"], nanos(&spent["budget_left_usd"])), (&json!("budget"), 1.0));
    assert!(provider.exchanges().is_empty(), "nothing was sent");
}

#[test]
fn an_explanation_takes_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let counted = || {
        let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
        let moved = |line: &&str| OF_REQUESTS.iter().any(|family| line.starts_with(family));
        let ours: Vec<_> = metrics.lines().filter(moved).map(str::to_owned).collect();
        for family in OF_REQUESTS {
            assert!(metrics.lines().any(|line| line.starts_with(family)), "no {family}");
        }
        ours
    };
    let before = counted();
    let far = json!({"request": with_tool(), "at": "2090-01-01"});
    for body in [with_tool(), far] {
        gateway.admin(explain("bot", &body)).expect(200);
    }
    assert_eq!(counted(), before);
    let entries = gateway.admin(Call::get("/admin/v1/ledger")).expect(200).json();
    assert_eq!(entries["data"], json!([]));
    assert!(gateway.outcomes().is_empty() && provider.exchanges().is_empty());
}

#[test]
fn what_is_too_long_is_told_to_go_where_requests_do() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let told = gateway.admin(explain("long", &with_tool())).expect(200).json();
    assert_eq!(
        (names(&told, "order"), names(&told, "out")),
        (vec!["cheap".to_owned(), "dear".to_owned()], vec!["short".to_owned()],)
    );
    let mut brief = chat("long", "hi");
    brief["max_tokens"] = json!(1);
    let told = gateway.admin(explain("long", &brief)).expect(200).json();
    assert_eq!(
        (names(&told, "order"), &told["longer_context"]),
        (vec!["short".to_owned()], &json!(["cheap", "dear"]))
    );
}

#[test]
fn whose_it_is_counts() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    gateway.admin(Call::post("/admin/v1/teams", &json!({"alias": "sales"}))).expect(201);
    let key = json!({"alias": "shop", "team": "sales", "tags": ["web"], "models": ["cases"]});
    gateway.admin(Call::post("/admin/v1/keys", &key)).expect(201);
    let request = chat("cases", "hi");
    let of = |body: Value| gateway.admin(explain("cases", &body)).expect(200).json();

    let nobody = of(json!({"request": request}));
    assert_eq!((names(&nobody, "order"), names(&nobody, "out")), (Vec::new(), vec!["dear".to_owned()]));
    assert_eq!(row(&nobody, "dear")["code"], "condition");
    assert_eq!(
        (&nobody["refusal"]["status"], &nobody["refusal"]["code"]),
        (&json!(400), &json!("unsupported_request"))
    );
    let team = of(json!({"request": request, "team": "sales"}));
    assert_eq!((&team["facts"]["key"], names(&team, "order")), (&Value::Null, vec!["dear".to_owned()]));
    let key = of(json!({"request": request, "key": "shop", "tags": ["beta"]}));
    assert_eq!(names(&key, "order"), ["dear"]);
    assert_eq!(
        (&key["facts"]["key"], &key["facts"]["team"], &key["facts"]["tags"]),
        (&json!("shop"), &json!("sales"), &json!(["beta", "web"]))
    );
    let refused = gateway.admin(explain("bot", &json!({"request": request, "key": "shop"})));
    let text = refused.expect(422).text();
    assert!(text.contains("may not ask for this model, only for cases"), "{text}");
}

#[test]
fn a_conversation_is_told_what_keeps_it_where() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let of = |more: Value| {
        let mut body = json!({"request": chat("split", "hi")});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        gateway.admin(explain("split", &body)).expect(200).json()
    };
    let note = |told: &Value| told["notes"][0].as_str().expect("a note").to_owned();
    assert!(note(&of(json!({}))).contains("it is drawn anew each time"));
    for (more, by) in [
        (json!({"end_user": "u-1"}), "end_user"),
        (json!({"end_user": "u-1", "headers": {"X-Conversation": "c-7"}}), "header:x-conversation"),
    ] {
        let told = of(more.clone());
        let first = names(&told, "order")[0].clone();
        assert_eq!(told["plan"]["kept_by"], by);
        assert_eq!(note(&told), format!("its {by} keeps this request's conversation on: {first}"));
        assert_eq!(names(&of(more), "order")[0], first, "and stays there");
    }
    let choices = &of(json!({}))["plan"]["choices"];
    assert_eq!((&choices[0]["percent"], &choices[1]["percent"]), (&json!(90.0), &json!(10.0)));
}

#[test]
fn unknown_models_and_every_mistake_in_a_body_are_told() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    for nobody in ["nobody", "lab%2F", "%ff", "bot@nowhere"] {
        gateway.admin(Call::get(&format!("{ROUTES}/{nobody}"))).expect_error(404, "model_not_found");
        gateway.admin(explain(nobody, &with_tool())).expect_error(404, "model_not_found");
    }
    let wrong = json!({
        "request": {"stream": "yes"}, "endpoint": "images", "key": "nobody", "team": "nobody", "tags": ["a b"],
        "headers": {"x": 1}, "at": "soon", "odd": 1, "end_user": 7,
    });
    let refused = gateway.admin(explain("bot", &wrong)).expect(422).json();
    let errors = refused["errors"].as_array().expect("errors");
    let paths: BTreeSet<&str> = errors.iter().filter_map(|error| error["path"].as_str()).collect();
    let want = ["at", "end_user", "endpoint", "headers", "key", "odd", "request.messages", "tags[0]", "team"];
    assert_eq!(paths, want.into());
    let no_json = Call::new("POST", &format!("{ROUTES}/bot/explain")).body("application/json", b"{");
    gateway.admin(no_json).expect_error(400, "invalid_json");
    let mut stored = json!({"input": "on", "previous_response_id": "resp_nowhere"});
    stored["max_output_tokens"] = json!(16);
    gateway.admin(explain("bot", &stored)).expect_error(404, "response_not_found");
}

#[test]
fn routes_are_listed_with_their_deployments() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let listed = gateway.admin(Call::get(ROUTES)).expect(200).json();
    let models: Vec<&str> = listed["data"]
        .as_array()
        .expect("models")
        .iter()
        .filter_map(|route| route["model"].as_str())
        .collect();
    assert_eq!(models, ["bot", "cases", "long", "split", "lab/*"]);
    for name in ["bot", "helper", "bot@next"] {
        let bot = gateway.admin(Call::get(&format!("{ROUTES}/{name}"))).expect(200).json();
        assert_eq!(bot, listed["data"][0], "{name}");
    }
    let bot = &listed["data"][0];
    assert_eq!((&bot["aliases"], &bot["labels"][0]["words"]), (&json!(["helper"]), &json!("dear")));
    let dear = &bot["deployments"][0];
    assert_eq!(
        (&dear["deployment"], &dear["breaker"], &dear["in_flight"]),
        (&json!("dear"), &json!("closed"), &json!(0))
    );
    for name in ["lab%2F*", "lab%2Fgpt-4o"] {
        let pattern = gateway.admin(Call::get(&format!("{ROUTES}/{name}"))).expect(200).json();
        assert_eq!(pattern["model"], "lab/*", "{name}");
    }

    let document = gateway.admin(Call::get("/admin/v1/openapi.json")).expect(200).json();
    let told = |schema: &str| {
        let properties = document["components"]["schemas"][schema]["properties"].as_object();
        properties.expect(schema).keys().cloned().collect::<BTreeSet<_>>()
    };
    let members =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(members(bot), told("Route"));
    assert_eq!(members(dear), told("Deployment"));
    let explained = gateway.admin(explain("bot", &with_tool())).expect(200).json();
    assert_eq!(members(&explained), told("RouteExplanation"));
    let both = &members(&explained["order"][0]) | &members(&explained["out"][0]);
    assert_eq!(both, told("Candidate"));
}

#[test]
fn the_command_line_says_what_the_api_says() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(lab(&provider)).start();
    let run = |arguments: &[&str]| {
        let done = Command::new(TUNEGATE)
            .args(arguments)
            .args(["--config", "tunegate.toml"])
            .current_dir(gateway.folder())
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.success(), text(&done.stdout), text(&done.stderr))
    };
    std::fs::write(gateway.folder().join("request.json"), with_tool().to_string()).expect("written");
    for (arguments, words) in [
        (&["routes"][..], &["MODEL", "helper", "5/5", "the cheapest of dear"][..]),
        (&["routes", "lab/gpt-4o"], &["lab/*: cheap", "DEPLOYMENT", "closed"]),
        (&["explain", "bot", "request.json"], &["WHY", "out, context_window", "late, budget", "0.000"]),
        (&["explain", "split", "--prompt", "hi", "--end-user", "u-1"], &["its end_user keeps"]),
        (&["explain", "cases", "--prompt", "hi"], &["out, condition", "the client is told 400"]),
        (&["explain", "bot", "--prompt", "hi", "--json"], &["\"expected_cost_usd\":0.00"]),
    ] {
        let (good, said, warned) = run(arguments);
        assert!(good, "{arguments:?}: {warned}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    let (good, _, warned) = run(&["explain", "bot", "--prompt", "hi", "--key", "nobody"]);
    assert!(!good && warned.contains("key: there is no key"), "{warned}");
}
