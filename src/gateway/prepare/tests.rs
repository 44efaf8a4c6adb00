//! What routing costs a request. `make bench` runs it: nothing here fails because something is slow.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::domain::budget::{Action, Budget, Scope};
use crate::domain::catalog::tests::deployment;
use crate::domain::catalog::{Address, AzureV1, Credential, Deployment, Dialect, Model, OpenAi, Provider};
use crate::domain::ids::ModelName;
use crate::domain::learned::Ended;
use crate::domain::money::Usd;
use crate::domain::price::book::PriceBook;
use crate::domain::price::read;
use crate::domain::route::{
    CHEAPEST_PROBES, Ceiling, Cheapest, Dice, FASTEST_PROBES, Fastest, Measure, Plan, Share, StickyBy,
    Weighted, salt,
};
use crate::domain::speed::Observation;
use crate::domain::usage::TokenCounts;
use crate::domain::window::Window;
use crate::gateway::counts::Counts;
use crate::gateway::lab::{Lab, like};

const ROUTES: usize = 100;
const DEPLOYMENTS: usize = 10;
/// Requests are timed in batches of as many as there are routes.
const BATCHES: usize = 200;
const HEADER: &str = "x-conversation-id";

/// Fine-tunes and plain models, whose prices stand in the book that is built in.
const MODELS: [(&str, &str); 4] = [
    ("openai", "ft:gpt-4.1-mini-2025-04-14:acme:support"),
    ("azure", "gpt-4.1-mini-2025-04-14.ft-0a1b2c3d-support"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme:support"),
    ("openai", "gpt-4.1-mini"),
];

fn built_in() -> PriceBook {
    let text = include_str!("../../../config/prices.toml");
    let tree = config::Config::builder().add_source(config::File::from_str(text, config::FileFormat::Toml));
    let tree = tree.build().and_then(config::Config::try_deserialize).expect("TOML");
    let sheets = read::sheets(&tree).expect("sound prices");
    PriceBook::new(&sheets, &[], 0).expect("sound prices")
}

fn provider(name: &str) -> Arc<Provider> {
    let (dialect, host) = match name {
        "azure" => (Dialect::AzureV1(AzureV1::default()), "acme.openai.azure.com"),
        _ => (Dialect::OpenAi(OpenAi::default()), "api.openai.com"),
    };
    Arc::new(Provider {
        name: name.into(),
        dialect,
        address: Address::Host { host: host.into(), port: 443, tls: true },
        base_path: "/v1".into(),
        authority: host.into(),
        credential: Credential::None,
        ca_file: None,
        http2: true,
        training: None,
    })
}

/// The deployments of one route.
fn deployments(route: usize) -> Vec<Arc<Deployment>> {
    let one = |number: usize| {
        let (account, model) = MODELS[number % MODELS.len()];
        let model = match model.strip_prefix("ft:") {
            Some(_) => format!("{model}:B{route}x{number}"),
            None => model.to_owned(),
        };
        like(&deployment(&format!("support-{route}-{number}"), &model), |one| {
            one.provider = provider(account);
            one.quality = Some(900);
            one.context_window = Some(1_000_000);
            one.limits.tokens_per_minute = Some(1 << 40);
        })
    };
    (0..DEPLOYMENTS).map(one).collect()
}

/// The kinds of plans, each over the deployments of one route.
fn plan(kind: &str, among: Vec<Plan>) -> Plan {
    let share =
        |(number, plan)| (Share { weight: 10, ramp: None, id: salt(&format!("choice-{number}")) }, plan);
    match kind {
        "one" => among.into_iter().next().expect("ten"),
        "weighted, sticky" => Plan::Weighted(Weighted {
            choices: among.into_iter().enumerate().map(share).collect(),
            sticky: vec![StickyBy::Header(HEADER.into())],
        }),
        "fastest" => Plan::Fastest(Fastest {
            among,
            by: Measure::Whole,
            min_quality: Some(800),
            probe_per_mille: FASTEST_PROBES,
        }),
        "pool" => Plan::Pool(among),
        "ordered" => Plan::Ordered(among),
        _ => Plan::Cheapest(Cheapest {
            among,
            min_quality: Some(800),
            ceiling: Ceiling { first_token: None, whole: Some(Duration::from_secs(60)) },
            probe_per_mille: CHEAPEST_PROBES,
        }),
    }
}

/// A budget of one deployment: then each is asked for what it has left.
fn budget(deployment: &str) -> Arc<Budget> {
    Arc::new(Budget {
        name: format!("of-{deployment}").into(),
        scope: Scope { deployment: Some(deployment.into()), ..Scope::default() },
        limit: Usd::dollars(1_000_000),
        window: Window::Total,
        alert_at: Vec::new(),
        action: Action::Refuse,
        raise: None,
        declared: false,
    })
}

/// A hundred routes of which everything has been learned.
async fn lab(kind: &str) -> Lab {
    let model = |route: usize| {
        let among = deployments(route).into_iter().map(Plan::To).collect();
        Model::plain(ModelName::parse(&format!("bot-{route}")).expect("a name"), plan(kind, among))
    };
    let lab = Lab::new((0..ROUTES).map(model).collect(), built_in()).await;
    let mut dice = Dice::new(1);
    for model in lab.live.catalog.models() {
        for deployment in &model.route.deployments {
            for _ in 0..40 {
                let completion = 50 + dice.roll() % 500;
                let tokens = TokenCounts { prompt: 1_000, cached: 100, completion, ..TokenCounts::default() };
                lab.board.note_usage(model.name.as_str(), &deployment.name, &tokens, Ended::ByItself);
                let stay = lab.board.try_enter(deployment, 10, lab.at(Duration::ZERO)).expect("a place");
                let total_us = 500_000 + completion * 5_000;
                let speed = Observation::Stream { ttft_us: 500_000, total_us, tokens: completion };
                stay.succeeded(Some(speed), lab.at(Duration::ZERO));
            }
        }
    }
    if kind == "cheapest, budgets of deployments" {
        let budgets = (0..4).map(|number| budget(&format!("support-0-{number}"))).collect();
        lab.money.ledger.define(budgets, Vec::new(), 0).await.expect("defined");
    }
    lab
}

/// What this thread has used of its core, ns: waiting for other processes does not count.
fn own_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

#[tokio::test]
#[ignore = "a measurement, for `make bench`"]
async fn routing_costs() {
    for kind in [
        "one",
        "ordered",
        "weighted, sticky",
        "pool",
        "fastest",
        "cheapest",
        "cheapest, budgets of deployments",
    ] {
        let lab = lab(kind).await;
        let content = "How do I change the address of an order that has left already? ".repeat(15);
        let ask = |route: usize| {
            Lab::request(&format!("bot-{route}"), &content, r#","max_tokens":400,"temperature":0.2"#)
        };
        let headers = [(HEADER, "conversation-7")];
        let requests: Vec<_> = (0..ROUTES).map(ask).collect();
        let mut counts: Vec<Counts> = Vec::new();
        for request in &requests {
            counts.push(lab.asked(request.clone(), &headers).count(false).await);
        }
        let mut dice = Dice::new(2);
        let (mut took, mut cpu_ns): (Vec<Duration>, u64) = (Vec::with_capacity(BATCHES * ROUTES), 0);
        // the first tenth warms up
        for batch in 0..BATCHES + BATCHES / 10 {
            let one = |_| {
                let route = (dice.roll() % ROUTES as u64) as usize;
                (route, requests[route].clone(), dice.roll())
            };
            let all: Vec<_> = (0..ROUTES).map(one).collect();
            let before = own_cpu_ns();
            let batch_took = all.into_iter().map(|(route, request, random)| {
                let begun = clock::monotonic();
                let asked = lab.asked(request, &headers);
                let sources = lab.sources(Duration::from_millis(batch as u64), random);
                let drawn = asked.draw(&asked.resolved.route, &counts[route], sources);
                assert_eq!(drawn.order.len(), if kind == "one" { 1 } else { DEPLOYMENTS }, "{kind}");
                drop((drawn, asked));
                clock::monotonic().saturating_duration_since(begun)
            });
            let batch_took: Vec<Duration> = batch_took.collect();
            if batch >= BATCHES / 10 {
                cpu_ns += own_cpu_ns() - before;
                took.extend(batch_took);
            }
        }
        took.sort();
        let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e6;
        let cpu_us = cpu_ns as f64 / 1e3 / took.len() as f64;
        let line = serde_json::json!({"plan": kind, "cpu_us": cpu_us, "p50_us": at(50), "p99_us": at(99)});
        println!("{line}");
    }
}
