use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::domain::catalog::tests::deployment;
use crate::domain::catalog::{
    AzureV1, Deployment, Dialect, OpenAi, Pricing, Provider, Training as Trains, TrainingType,
};
use crate::domain::economics::{Lesson, Load};
use crate::domain::money::Usd;
use crate::domain::price::book::PriceBook;
use crate::domain::price::read::{alone, moment, sheets};
use crate::domain::usage::TokenCounts;
use crate::store::jobs::Ran;

/// The price file that is shipped.
fn book() -> PriceBook {
    let text = include_str!("../../../config/prices.toml");
    let tree = config::Config::builder().add_source(config::File::from_str(text, config::FileFormat::Toml));
    let tree = tree.build().and_then(config::Config::try_deserialize).expect("TOML");
    PriceBook::new(&sheets(&tree).expect("sound"), &[], 0).expect("sound")
}

fn ms(text: &str) -> i64 {
    moment(text).unwrap_or_else(|| panic!("{text}"))
}

fn usd(text: &str) -> Usd {
    Usd::parse(text).expect(text)
}

fn provider(name: &str, dialect: Dialect, trains: Trains) -> Arc<Provider> {
    let plain = (*deployment("d", "m").provider).clone();
    Arc::new(Provider { name: name.into(), dialect, training: Some(trains), ..plain })
}

fn target(provider: &Arc<Provider>, model: &str) -> Target {
    Target { provider: Arc::clone(provider), model: model.into() }
}

fn openai() -> Arc<Provider> {
    provider("openai", Dialect::OpenAi(OpenAi::default()), Trains::default())
}

fn azure(training_type: Option<TrainingType>) -> Arc<Provider> {
    let trains = Trains { resource: Some("acme".into()), training_type, ..Trains::default() };
    provider("azure", Dialect::AzureV1(AzureV1::default()), trains)
}

fn local(tokens_per_second: Option<u64>) -> Arc<Provider> {
    provider("local", Dialect::Candle, Trains { tokens_per_second, ..Trains::default() })
}

/// A catalog with one deployment, of a worker's model at a price.
fn serving(provider: &Arc<Provider>, model: &str, price: &serde_json::Value) -> Catalog {
    let price = Arc::new(alone(price).expect("a price"));
    let pricing = Pricing::Explicit { price, version: "v".into() };
    let plain = (*deployment(model, model)).clone();
    let one = Deployment { provider: Arc::clone(provider), pricing, ..plain };
    Catalog::new(BTreeMap::new(), BTreeMap::from([(model.into(), Arc::new(one))]), Vec::new())
}

/// 100,000 tokens in 500 rows, a quarter of it answers, three passes.
fn studied() -> Studied {
    Studied {
        examples: 500,
        lesson: Lesson { billed_tokens: 100_000, epochs: 3 },
        tokens: 100_000,
        assistant_tokens: 25_000,
        system_prompt_tokens: 50,
    }
}

fn nobody_knows() -> Traffic {
    Traffic { source: Source::Dataset, route: None, load: None, note: "no traffic".to_owned() }
}

/// 10,000 requests a month.
fn month() -> Traffic {
    let tokens = TokenCounts { prompt: 4_000_000, completion: 1_000_000, ..TokenCounts::default() };
    let load = Some(Load { requests: 10_000, tokens });
    Traffic { source: Source::Given, route: None, load, note: String::new() }
}

fn quoted(targets: &[Target], catalog: &Catalog, at: &str, traffic: Traffic, terms: Terms) -> Quote {
    let book = book();
    let market = Market { catalog, book: &book, at_ms: ms(at), trained: None, paces: None };
    quote(targets, &market, traffic, terms, &mut |_| Ok(studied()))
}

fn cost(quote: &TargetQuote) -> Option<Usd> {
    quote.training.known().map(|training| training.tuition.cost)
}

fn why<T>(figure: &Figure<T>) -> &str {
    match figure {
        Figure::Known(_) => "",
        Figure::Unknown { unknown } => unknown,
    }
}

#[test]
fn the_published_examples_come_out() {
    let none = Catalog::default();
    for (target, at, seconds, want) in [
        // OpenAI's own of August 2023
        (target(&openai(), "gpt-3.5-turbo"), "2023-09-01", None, "2.40"),
        // Azure by the hour: 1 h 20 min in steps of a quarter
        (target(&azure(None), "gpt-35-turbo"), "2023-11-01", Some(4_800), "153"),
        // and by the token since June 2024
        (target(&azure(None), "gpt-35-turbo"), "2024-07-01", None, "2.40"),
        // free up to and including 23 September 2024
        (target(&openai(), "gpt-4o-mini"), "2024-09-23T23:59:59Z", None, "0"),
        (target(&openai(), "gpt-4o-mini"), "2024-09-24", None, "0.90"),
        (target(&openai(), "gpt-4.1-mini"), "2026-11-22", None, "1.50"),
        (target(&azure(None), "gpt-4.1-2025-04-14"), "2026-11-22", None, "0.60"),
        (target(&azure(Some(TrainingType::DeveloperTier)), "gpt-4.1-2025-04-14"), "2026-11-22", None, "0.30"),
        // a fine-tuned model that is trained further
        (target(&openai(), "ft:gpt-4.1-mini-2025-04-14:acme::B2xY"), "2026-11-22", None, "1.50"),
    ] {
        let terms = Terms { training_seconds: seconds, ..Terms::default() };
        let found = quoted(std::slice::from_ref(&target), &none, at, nobody_knows(), terms);
        assert_eq!(
            cost(&found.targets[0]),
            Some(usd(want)),
            "{target} {at}: {:?}",
            found.targets[0].training
        );
    }
}

#[test]
fn what_was_trained_that_day_is_not_free_once_more() {
    let (none, book) = (Catalog::default(), book());
    // two million tokens a day were free, and 300,000 are asked for
    for (billed, want, words) in [
        (None, "0", "as if nothing else was trained"),
        (Some(0), "0", "are all there"),
        (Some(1_800_000), "0.30", "have trained 1800000 tokens"),
        (Some(2_500_000), "0.90", "have trained 2500000 tokens"),
    ] {
        let mini = target(&openai(), "gpt-4o-mini");
        let row = |provider: &str| (provider.to_owned(), "ft:gpt-4o-mini-2024-07-18".to_owned());
        let trained = billed.map(|billed| Trained([(row("openai"), billed), (row("other"), 9)].into()));
        let market = Market {
            catalog: &none,
            book: &book,
            at_ms: ms("2024-09-20"),
            trained: trained.as_ref(),
            paces: None,
        };
        let found = quote(&[mini], &market, nobody_knows(), Terms::default(), &mut |_| Ok(studied()));
        let found = &found.targets[0];
        assert_eq!(cost(found), Some(usd(want)), "{billed:?}: {:?}", found.training);
        assert!(found.notes.iter().any(|note| note.contains(words)), "{billed:?}: {:?}", found.notes);
    }
}

#[test]
fn a_machine_of_ones_own_is_paid_by_its_time() {
    let per_hour = |usd: &str| {
        json!({"input_per_1m_usd": "0", "output_per_1m_usd": "0", "training_per_hour_usd": usd,
            "training_increment_seconds": 1})
    };
    // 300,000 tokens at 400 a second are 750 s
    for (pace, price, want, seconds) in [
        (Some(400), per_hour("0.72"), Some("0.15"), Some(750)),
        (Some(400), per_hour("0"), Some("0"), Some(750)),
        (None, per_hour("0"), Some("0"), None),
        (Some(400), json!({"compute_per_hour_usd": "0.72"}), Some("0.15"), Some(750)),
        (Some(400), json!({"input_per_1m_usd": "0", "output_per_1m_usd": "0"}), Some("0"), Some(750)),
        (Some(400), json!({"input_per_1m_usd": "1", "output_per_1m_usd": "1"}), None, None),
    ] {
        let worker = local(pace);
        let catalog = serving(&worker, "smollm2-135m", &price);
        let targets = [target(&worker, "smollm2-135m")];
        let found = quoted(&targets, &catalog, "2026-11-22", nobody_knows(), Terms::default());
        let training = found.targets[0].training.known();
        let time = training.and_then(|training| training.tuition.time).map(|time| time.seconds);
        assert_eq!((cost(&found.targets[0]), time), (want.map(usd), seconds), "{price}");
    }
}

#[test]
fn a_machine_of_ones_own_is_quoted_at_its_measured_pace() {
    let worker = local(None);
    let catalog = serving(&worker, "smollm2-135m", &json!({"compute_per_hour_usd": "0.72"}));
    let ran =
        Ran { provider: "local".into(), base: "smollm2-135m".into(), tokens: 40_000, computed_seconds: 100 };
    let (book, paces) = (book(), Paces::of(&[ran]));
    let market = Market {
        catalog: &catalog,
        book: &book,
        at_ms: ms("2026-11-22"),
        trained: None,
        paces: Some(&paces),
    };
    let mut traffic = month();
    let quoted = |traffic: &Traffic| {
        let targets = [target(&worker, "smollm2-135m")];
        let mut found = quote(&targets, &market, traffic.clone(), Terms::default(), &mut |_| Ok(studied()));
        found.targets.remove(0)
    };
    let found = quoted(&traffic);
    assert_eq!(cost(&found), Some(usd("0.15")), "300,000 tokens at 400 a second");
    // nobody has measured what this traffic takes there
    let served = &found.ways[0].month;
    assert!(why(served).contains("was never served by a machine of ours"), "{served:?}");
    assert_eq!(found.cheapest, None);
    if let Some(load) = &mut traffic.load {
        load.tokens.compute_us = 7_200_000_000;
    }
    let bill = quoted(&traffic).bill(Way::FineTune).map(|bill| bill.month.tokens);
    assert_eq!(bill, Some(usd("1.44")), "two hours");
}

#[test]
fn what_is_not_known_is_never_nothing() {
    let none = Catalog::default();
    for (target, words) in [
        (target(&openai(), "gpt-9"), "set it with `tunegate prices set ft:gpt-9 --training USD"),
        (target(&azure(None), "gpt-9"), "set it with `tunegate prices set gpt-9.ft-* --provider azure"),
        (
            target(&azure(None), "gpt-4o-mini"),
            "set it with `tunegate prices set gpt-4o-mini.ft-* --provider azure",
        ),
        (target(&local(Some(9)), "smollm2-135m"), "set it with `price = {"),
    ] {
        let found = quoted(std::slice::from_ref(&target), &none, "2026-11-22", month(), Terms::default());
        let quote = &found.targets[0];
        assert!(why(&quote.training).contains(words), "{target}: {:?}", quote.training);
        assert_eq!((cost(quote), quote.bill(Way::FineTune), quote.cheapest), (None, None, None));
        assert!(found.answer.contains("nobody here can train"), "{}", found.answer);
    }
    // listed for other types, and dearer here
    let regional = target(&azure(Some(TrainingType::Standard)), "gpt-4.1-2025-04-14");
    let found = quoted(&[regional], &none, "2026-11-22", month(), Terms::default());
    let words = why(&found.targets[0].training);
    assert!(
        words.contains("as `standard` has no price: set it with `tunegate prices set gpt-4.1"),
        "{words}"
    );
    // Azure said nothing of hosting then
    let silent = target(&azure(None), "gpt-4-0613");
    let found = quoted(&[silent], &none, "2024-07-01", month(), Terms::default());
    let hosted = &found.targets[0];
    assert!(cost(hosted).is_some() && hosted.hosting_month_usd.known().is_none(), "{hosted:?}");
    assert_eq!((hosted.bill(Way::FineTune), hosted.cheapest), (None, None));
    let unread = |_: &Target| Err("the file is broken".to_owned());
    let book = book();
    let market = Market { catalog: &none, book: &book, at_ms: ms("2026-11-22"), trained: None, paces: None };
    let targets = [target(&openai(), "gpt-4.1-mini")];
    let found = quote(&targets, &market, month(), Terms::default(), &mut { unread });
    assert_eq!(why(&found.targets[0].training), "the file is broken");
}

#[test]
fn targets_that_close_say_so() {
    let none = Catalog::default();
    let turbo = target(&openai(), "gpt-3.5-turbo");
    for (at, want) in
        [("2024-01-01", Standing::Open), ("2026-09-01", Standing::Closing), ("2026-11-22", Standing::Closed)]
    {
        let found = quoted(std::slice::from_ref(&turbo), &none, at, nobody_knows(), Terms::default());
        let quote = &found.targets[0];
        assert_eq!(quote.standing, want, "{at}: {:?}", quote.notes);
        assert_eq!(
            quote.notes.iter().any(|note| note.contains("2026-10-23")),
            want != Standing::Open,
            "{at}"
        );
    }
    // who is closed comes last, however cheap
    let targets = [turbo, target(&openai(), "gpt-4.1")];
    let found = quoted(&targets, &none, "2026-11-22", nobody_knows(), Terms::default());
    let names: Vec<&str> = found.targets.iter().map(|quote| quote.base.as_str()).collect();
    assert_eq!(names, ["gpt-4.1", "gpt-3.5-turbo"]);
}

#[test]
fn prompt_retrieval_or_fine_tune() {
    let none = Catalog::default();
    let targets = [target(&azure(None), "gpt-4.1-2025-04-14"), target(&openai(), "gpt-4.1-mini")];
    let terms = Terms { prompt_tokens: Some(2_000), ..Terms::default() };
    let found = quoted(&targets, &none, "2026-11-22", month(), terms.clone());
    let [mini, hosted] = &found.targets[..] else { panic!("{found:?}") };
    assert_eq!((mini.base.as_str(), mini.cheapest), ("gpt-4.1-mini", Some(Way::Prompt)));
    let total = |quote: &TargetQuote, way: Way| quote.bill(way).map(|bill| bill.total_usd);
    // 24M × 0.40 + 1M × 1.60; 19M × 0.40 + 1.60; 4M × 0.80 + 1M × 3.20 + 1.50 / 12
    assert_eq!(total(mini, Way::Prompt), Some(usd("11.20")));
    assert_eq!(mini.ways[0].cached_usd, Some(usd("5.20")), "20M of it from the cache at 0.10");
    assert_eq!(total(mini, Way::Retrieval), Some(usd("9.20")));
    assert_eq!(total(mini, Way::FineTune), Some(usd("6.525")));
    // hosting for 720 hours at 1.70, tokens at the base's price
    assert_eq!(hosted.hosting_month_usd, Figure::Known(usd("1224")));
    assert_eq!(total(hosted, Way::FineTune), Some(usd("1240.05")));
    let words = &found.break_even[0].words;
    assert!(words.contains("openai/gpt-4.1-mini is cheaper than azure/acme/gpt-4.1"), "{words}");
    // 0.125 USD of training a month against 2,000 tokens more in each request of 500
    let meeting = &mini.break_even[0];
    let want = "a longer prompt is cheaper up to 130,208 tokens a month, then fine-tuning";
    assert_eq!((meeting.words.as_str(), meeting.requests_a_month), (want, Some(260)));
    assert!(found.answer.contains("11.20 USD with a longer prompt"), "{}", found.answer);

    // the same traffic, its prompts long already
    let long = Terms { traffic_prompts: Prompts::Long, prompt_tokens: Some(300), ..terms };
    let found = quoted(&targets[1..], &none, "2026-11-22", month(), long);
    assert_eq!(total(&found.targets[0], Way::Prompt), Some(usd("3.20")));
    assert_eq!(total(&found.targets[0], Way::FineTune), Some(usd("4.125")));
}

#[test]
fn without_traffic_the_rows_say_what_requests_are_like() {
    let none = Catalog::default();
    let targets = [target(&openai(), "gpt-4.1-mini"), target(&azure(None), "gpt-4.1-2025-04-14")];
    let found = quoted(&targets, &none, "2026-11-22", nobody_knows(), Terms::default());
    for quote in &found.targets {
        assert_eq!((quote.bill(Way::FineTune), quote.cheapest), (None, None));
        assert_eq!(quote.break_even.len(), 2, "{quote:?}");
    }
    assert!(found.answer.contains("no traffic"), "{}", found.answer);
    let json = serde_json::to_value(&found).expect("JSON");
    assert!(json["targets"][0]["ways"][2]["month"]["unknown"].is_string(), "{json}");
    assert_eq!(json["targets"][1]["training"]["cost_usd"], json!(1.5));
}
