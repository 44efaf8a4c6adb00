use proptest::prelude::*;
use serde_json::{Value, json};

use super::book::{Found, PriceBook, Unpriced, Warning};
use super::rates::Class;
use super::read::{RowDraft, alone, moment, over, sheets};
use super::*;
use crate::domain::catalog::tests::deployment;
use crate::domain::catalog::{Deployment, Dialect, OnUnpriced, Pricing, Provider, ProviderKind};

fn ms(text: &str) -> i64 {
    moment(text).expect(text)
}

fn usd(text: &str) -> Usd {
    Usd::parse(text).expect(text)
}

/// A book from rows without the file around them.
fn book(models: &Value, aliases: &Value) -> PriceBook {
    let file = json!({"version": "v", "models": models, "aliases": aliases});
    let sheets = sheets(&file).unwrap_or_else(|problems| panic!("{problems:?}"));
    PriceBook::new(&sheets, &[], 0).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn price(written: &Value) -> Price {
    alone(written).unwrap_or_else(|problems| panic!("{written}: {problems:?}"))
}

fn refused(written: &Value) -> String {
    let problems = alone(written).expect_err(&written.to_string());
    problems.iter().map(|problem| format!("{}: {}\n", problem.path, problem.message)).collect()
}

fn tokens(prompt: u64, completion: u64) -> TokenCounts {
    TokenCounts { prompt, completion, ..TokenCounts::default() }
}

fn small() -> PriceBook {
    book(
        &json!([
            {"provider": "openai", "model": "gpt-4o", "periods": [
                {"from": "2024-05-13", "until": "2024-10-02", "input_per_1m_usd": "5", "output_per_1m_usd": "15"},
                {"from": "2024-10-02", "input_per_1m_usd": "2.50", "cached_input_per_1m_usd": "1.25",
                 "output_per_1m_usd": "10"}]},
            {"provider": "openai", "model": "gpt-3.5-turbo-0613", "periods": [
                {"input_per_1k_usd": "0.0015", "output_per_1k_usd": "0.0020"}]},
            {"provider": "openai", "model": "ft:gpt-4o-2024-08-06", "base": "gpt-4o", "periods": [
                {"from": "2024-08-20", "input_per_1m_usd": "3.75", "output_per_1m_usd": "15",
                 "training_per_1m_usd": "25", "shutdown": "2027-01-14"}]},
            {"provider": "openai", "model": "curie:ft-*", "periods": [
                {"until": "2024-01-04", "input_per_1m_usd": "12", "output_per_1m_usd": "12"}]},
            {"provider": "azure", "model": "gpt-35-turbo-0613.ft-*", "base": "gpt-3.5-turbo-0613", "periods": [
                {"from": "2023-10-16", "until": "2024-06-01", "input_per_1m_usd": "1.6", "output_per_1m_usd": "2",
                 "training_per_hour_usd": "102", "hosting_per_hour_usd": "7"},
                {"from": "2024-06-01", "training_per_1m_usd": "8"}]},
            {"provider": "azure", "model": "*.ft-*", "periods": [
                {"from": "2025-07-01", "hosting_per_hour_usd_by_sku": {"Standard": "1.70", "DeveloperTier": "0"}}]},
        ]),
        &json!({
            "openai": {"ft:gpt-4o": "ft:gpt-4o-2024-08-06", "gpt-4o-latest": "gpt-4o"},
            "azure": {"gpt-35-turbo": "gpt-3.5-turbo-0613"},
        }),
    )
}

#[test]
fn a_name_leads_to_its_row() {
    use ProviderKind::{Azure, Candle, OpenAi};
    let book = small();
    for (kind, model, base, row) in [
        (OpenAi, "gpt-4o", None, Some("gpt-4o")),
        (OpenAi, "gpt-4o-2024-11-20", None, Some("gpt-4o")),
        (OpenAi, "gpt-4o-latest", None, Some("gpt-4o")),
        (OpenAi, "gpt-4o-mini", None, None),
        (OpenAi, "ft:gpt-4o-2024-08-06:acme::x", None, Some("ft:gpt-4o-2024-08-06")),
        (OpenAi, "ft:gpt-4o-2024-08-06:acme:bot:x:ckpt-step-9", None, Some("ft:gpt-4o-2024-08-06")),
        (OpenAi, "ft:gpt-4o:acme:bot:x", None, Some("ft:gpt-4o-2024-08-06")),
        // the same family without its date is another model
        (OpenAi, "ft:gpt-4o-2024-05-13:acme:bot:x", None, None),
        (OpenAi, "curie:ft-acme-2022-02-02", None, Some("curie:ft-*")),
        (OpenAi, "ada:ft-acme-2022-02-02", None, None),
        (OpenAi, "our-alias", Some("gpt-4o"), Some("ft:gpt-4o-2024-08-06")),
        (OpenAi, "our-alias", Some("gpt-3.5-turbo-0613"), None),
        (Azure, "gpt-35-turbo-0613.ft-0a1b", None, Some("gpt-35-turbo-0613.ft-*")),
        (Azure, "gpt-35-turbo-0613.ft-0a1b-suffix", None, Some("gpt-35-turbo-0613.ft-*")),
        (Azure, "gpt-4o-2024-08-06.ft-0a1b", None, Some("gpt-4o.ft-*")),
        (Azure, "support-eu", Some("gpt-4o-2024-08-06.ft-0a1b"), Some("gpt-4o.ft-*")),
        (Azure, "support-eu", Some("gpt-4o"), Some("gpt-4o")),
        (Azure, "gpt-4o", Some("gpt-35-turbo"), Some("gpt-3.5-turbo-0613")),
        (Azure, "gpt-4o", Some("unknown"), None),
        (Azure, "support-eu", None, None),
        (Azure, "unknown.ft-0a1b", None, None),
        (Candle, "gpt-4o", Some("gpt-4o"), None),
    ] {
        let found = book.find(kind, model, base, ms("2026-11-22")).ok();
        assert_eq!(found.as_ref().map(|found| &*found.row), row, "{model} {base:?}");
    }
}

#[test]
fn a_period_is_a_question_of_time() {
    let book = small();
    let find = |model: &str, at: &str| book.find(ProviderKind::OpenAi, model, None, ms(at));
    let input = |found: &Found| found.price.tokens.standard().of(Class::Input).per_million();
    for (at, want) in [
        ("2024-05-13", "5.00"),
        ("2024-10-01T23:59:59.999Z", "5.00"),
        ("2024-10-02", "2.50"),
        ("2030-01-01", "2.50"),
    ] {
        let found = find("gpt-4o", at).expect(at);
        assert_eq!((input(&found).as_str(), found.warning), (want, None), "{at}");
    }
    assert!(matches!(find("gpt-4o", "2024-05-12"), Err(Unpriced::NotYet { .. })));
    let gone = find("curie:ft-acme-x", "2026-11-22").expect("the last known");
    assert_eq!(gone.warning, Some(Warning::LastKnown { ended_ms: ms("2024-01-04") }));
    let off = find("ft:gpt-4o:a::x", "2027-01-14").expect("the last known");
    assert_eq!(off.warning, Some(Warning::LastKnown { ended_ms: ms("2027-01-14") }));
}

#[test]
fn azure_bills_tokens_like_the_base_and_hours_beside() {
    let book = small();
    let find = |model: &str, at: &str| {
        book.find(ProviderKind::Azure, model, None, ms(at)).unwrap_or_else(|error| panic!("{error}")).price
    };
    let own = find("gpt-35-turbo-0613.ft-0a1b", "2023-11-01");
    assert_eq!(own.cost(&tokens(1_000_000, 0), ServiceTier::Default), usd("1.60"));
    assert_eq!(own.training_time_cost(5_400), Some(usd("153")));
    assert_eq!(own.hosting_cost(3_601, None), Some(usd("14")), "a started hour");
    let based = find("gpt-35-turbo-0613.ft-0a1b", "2024-07-01");
    assert_eq!(based.cost(&tokens(1_000_000, 0), ServiceTier::Default), usd("1.50"));
    assert_eq!(based.terms.tokens_of.as_deref(), Some("openai/gpt-3.5-turbo-0613"));
    assert_eq!(based.training_cost(45_000 * 3, 0, 0), Some(usd("1.08")));
    let any = find("gpt-4o-2024-08-06.ft-0a1b", "2026-11-22");
    assert_eq!(any.hosting_cost(720 * 3_600, Some("Standard")), Some(usd("1224")));
    assert_eq!(any.hosting_cost(3_600, Some("DeveloperTier")), Some(Usd::ZERO));
    assert_eq!(any.hosting_cost(3_600, Some("ProvisionedManaged")), None);
}

#[test]
fn free_training_is_by_the_account_and_day() {
    let price =
        price(&json!({"input_per_1m_usd": "0.30", "output_per_1m_usd": "1.20", "training_per_1m_usd": "3",
        "free_training": {"tokens_per_day": 2_000_000, "until": "2024-09-23"}}));
    for (tokens, at, used_today, cost) in [
        (2_000_000, "2024-09-22T23:59:59Z", 0, "0"),
        (3_000_000, "2024-09-22", 0, "3"),
        (1_000_000, "2024-09-22", 1_500_000, "1.50"),
        (1_000_000, "2024-09-22", 9_000_000, "3"),
        (1_000_000, "2024-09-23", 0, "3"),
    ] {
        assert_eq!(price.training_cost(tokens, ms(at), used_today), Some(usd(cost)), "{tokens} {at}");
    }
}

#[test]
fn pain_11_a_fine_tuned_model_is_never_free_and_never_its_base() {
    let book = small();
    let find = |model: &str| book.find(ProviderKind::OpenAi, model, None, ms("2026-11-22"));
    let tuned = find("ft:gpt-4o-2024-08-06:acme::B2:ckpt-step-200").expect("priced");
    assert_eq!(tuned.price.cost(&tokens(1_000_000, 0), ServiceTier::Default), usd("3.75"));
    // its base has a row, it has none
    assert!(matches!(find("ft:gpt-3.5-turbo-0613:acme::x"), Err(Unpriced::Unknown { .. })));
    // an override on the family counts for its models
    let over = over(
        ProviderKind::OpenAi,
        "ft:gpt-4o-2024-08-06",
        &json!({"input_per_1m_usd": "4", "output_per_1m_usd": "16"}),
    )
    .expect("sound");
    let with = book_with(&[over], 1);
    let found = with.find(ProviderKind::OpenAi, "ft:gpt-4o:acme::x", None, ms("2026-11-22")).expect("priced");
    assert_eq!(found.price.cost(&tokens(1_000_000, 0), ServiceTier::Default), usd("4"));
    assert_eq!(&*found.version, "v+1");
}

fn book_with(overrides: &[RowDraft], changes: i64) -> PriceBook {
    let file = json!({"version": "v", "models": [
        {"provider": "openai", "model": "gpt-4o", "periods": [
            {"from": "2024-05-13", "input_per_1m_usd": "2.50", "output_per_1m_usd": "10"}]},
        {"provider": "openai", "model": "ft:gpt-4o-2024-08-06", "periods": [
            {"from": "2024-08-20", "input_per_1m_usd": "3.75", "output_per_1m_usd": "15"}]}],
        "aliases": {"openai": {"ft:gpt-4o": "ft:gpt-4o-2024-08-06"}}});
    let sheets = sheets(&file).expect("sound");
    PriceBook::new(&sheets, overrides, changes).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn pain_12_an_unknown_model_is_not_silently_free() {
    let book = small();
    let of =
        |on_unpriced: OnUnpriced| Deployment { on_unpriced, ..(*deployment("d", "secret-model")).clone() };
    let find = |on_unpriced| book.price_of(&of(on_unpriced), "secret-model", ms("2026-11-22"));
    let error = find(OnUnpriced::Deny).expect_err("refused").to_string();
    assert!(
        error.contains("no price is known for \"secret-model\"") && error.contains("price_model"),
        "{error}"
    );
    let cap = find(OnUnpriced::Cap("gpt-4o".into())).expect("the cap price");
    assert_eq!(cap.warning, Some(Warning::Cap));
    assert_eq!(cap.price.cost(&tokens(1_000_000, 0), ServiceTier::Default), usd("2.50"));
    assert!(find(OnUnpriced::Cap("none".into())).is_err(), "a cap that is not there refuses");
    let allowed = find(OnUnpriced::Allow).expect("allowed");
    assert_eq!((allowed.warning, &*allowed.version), (Some(Warning::Unpriced), "unpriced"));
    let zero = Arc::new(price(&json!({"input_per_1m_usd": "0", "output_per_1m_usd": "0"})));
    let pricing = Pricing::Explicit { price: zero, version: "config:d".into() };
    let local = Deployment { pricing, ..of(OnUnpriced::Deny) };
    let found = book.price_of(&local, "secret-model", ms("2026-11-22")).expect("written out");
    assert_eq!((found.warning, &*found.version), (None, "config:d"), "a price of 0 is a price");
    let named = Deployment { pricing: Pricing::Row("openai/ft:gpt-4o".into()), ..of(OnUnpriced::Deny) };
    let found = book.price_of(&named, "secret-model", ms("2026-11-22")).expect("named");
    assert_eq!(&*found.row, "ft:gpt-4o-2024-08-06");
}

#[test]
fn our_own_worker_costs_what_is_set_for_its_model_or_for_the_base_of_it_and_else_nothing() {
    let rows = json!([{"provider": "candle", "model": "small", "periods": [
        {"from": "2026-11-01", "compute_per_hour_usd": "3.6"}]}]);
    let book = book(&rows, &json!({}));
    let nothing = Arc::new(price(&json!({"input_per_1m_usd": "0", "output_per_1m_usd": "0"})));
    let pricing = Pricing::Presumed { price: nothing, version: "config:d".into() };
    let plain = deployment("d", "small");
    let provider = Provider { dialect: Dialect::Candle, ..(*plain.provider).clone() };
    let own = Deployment { pricing, provider: Arc::new(provider), ..(*plain).clone() };
    let second = TokenCounts { compute_us: 1_000_000, ..TokenCounts::default() };
    for (model, at, want) in [
        ("small", "2026-11-22", "0.001"),
        ("ft:small:local:cat:ab", "2026-11-22", "0.001"),
        ("ft:small:local:cat:ab:ckpt-step-3", "2026-11-22", "0.001"),
        ("ft:large:local:cat:ab", "2026-11-22", "0"),
        ("large", "2026-11-22", "0"),
        ("small", "2026-10-22", "0"),
    ] {
        let found = book.price_of(&own, model, ms(at)).expect("it has a price in any case");
        assert_eq!(found.price.cost(&second, ServiceTier::Default), usd(want), "{model} {at}");
    }
}

#[test]
fn pain_13_a_broken_file_changes_nothing_and_an_override_stands() {
    let broken = json!({"version": "v", "modles": [], "models": [
        {"provider": "opnai", "model": "m", "periods": [{"input_per_1m_usd": 2.5, "output_per_1m_usd": "x"}]},
        {"provider": "openai", "model": "n", "periods": [
            {"until": "2024-02-30"},
            {"from": "2024-01-01", "input_per_1m_usd": "1", "output_per_1m_usd": "1"},
            {"from": "2025-01-01", "until": "2024-01-01", "input_per_1m_usd": "1"}]},
        {"provider": "openai", "model": "n", "periods": []}]});
    let paths: Vec<String> =
        sheets(&broken).expect_err("broken").into_iter().map(|problem| problem.path).collect();
    let want = [
        "models[0].periods[0].input_per_1m_usd",
        "models[0].periods[0].output_per_1m_usd",
        "models[0].provider",
        "models[1].periods[0].input_per_1m_usd",
        "models[1].periods[0].until",
        "models[1].periods[2].output_per_1m_usd",
        "models[1].periods[2].until",
        "models[2].model",
        "models[2].periods",
        "modles",
    ];
    let mut paths = paths;
    paths.dedup();
    paths.retain(|path| want.contains(&path.as_str()));
    assert_eq!(paths, want);
    let cheaper = over(
        ProviderKind::OpenAi,
        "gpt-4o",
        &json!({"from": "2026-01-01", "until": "2026-02-01", "input_per_1m_usd": "1", "output_per_1m_usd": "2"}),
    );
    let with = book_with(&[cheaper.expect("sound")], 3);
    let input = |at: &str| {
        let found = with.find(ProviderKind::OpenAi, "gpt-4o", None, ms(at)).expect(at);
        (found.price.tokens.standard().of(Class::Input).per_million(), found.version.to_string())
    };
    for (at, want) in [("2025-12-31", "2.50"), ("2026-01-15", "1.00"), ("2026-02-01", "2.50")] {
        assert_eq!(input(at), (want.to_owned(), "v+3".to_owned()), "{at}");
    }
}

#[test]
fn our_own_machine_costs_by_its_time() {
    let own = price(&json!({"compute_per_hour_usd": "0.36"}));
    let used = |compute_us| TokenCounts { compute_us, ..tokens(1_000_000, 1_000_000) };
    for (micros, cost) in [(0, "0"), (1, "0.000000001"), (1_000_000, "0.0001"), (3_600_000_000, "0.36")] {
        assert_eq!(own.cost(&used(micros), ServiceTier::Default), usd(cost), "{micros}");
        assert_eq!(own.cost_of_many(&used(micros), 9, ServiceTier::Default), usd(cost), "{micros}");
    }
    // training is the same machine's time, unless it has a price of its own
    assert_eq!(own.training_time_cost(100), Some(usd("0.01")));
    let apart = price(&json!({"compute_per_hour_usd": "0.36", "training_per_hour_usd": "3.6"}));
    assert_eq!(apart.training_time_cost(100), Some(usd("0.1")));
    // and tokens beside it
    let both =
        price(&json!({"compute_per_hour_usd": "0.36", "input_per_1m_usd": "1", "output_per_1m_usd": "2"}));
    assert_eq!(both.cost(&used(1_000_000), ServiceTier::Default), usd("3.0001"));
    assert_eq!(price(&json!({"compute_per_hour_usd": "0"})).cost(&used(9), ServiceTier::Default), Usd::ZERO);
    for (written, said) in [
        (
            json!({"compute_per_hour_usd": "0.00001"}),
            "compute_per_hour_usd: 0.00001 USD an hour is beyond belief",
        ),
        (json!({"compute_per_hour_usd": "20000"}), "beyond belief (0.0001 to 10000.00, or \"0\")"),
        (json!({"compute_per_hour_usd": 0.36}), "an amount is written as text"),
        (json!({"compute_per_hour_usd": "0.36", "input_per_1m_usd": "1"}), "output_per_1m_usd: missing"),
    ] {
        let found = refused(&written);
        assert!(found.contains(said), "{written} should say {said:?}, but says\n{found}");
    }
    let body = json!({"compute_per_hour_usd": "0.36"});
    assert!(over(ProviderKind::Candle, "m", &body).is_ok());
    let elsewhere = over(ProviderKind::OpenAi, "m", &body).expect_err("not theirs");
    assert!(elsewhere[0].message.contains("only for candle"), "{elsewhere:?}");
}

#[test]
fn pain_14_a_price_in_another_unit_is_refused() {
    let with = |input: (&str, &str), output: (&str, &str)| json!({input.0: input.1, output.0: output.1});
    let (million, out_million) = ("input_per_1m_usd", "output_per_1m_usd");
    for (written, said) in [
        (with((million, "0.0000025"), (out_million, "10")), "input_per_1m_usd: 0.0000025 USD per 1,000,000"),
        (with((million, "0.0005"), (out_million, "10")), "off by 1000"),
        (with((million, "2500"), (out_million, "10")), "more than 2000 USD per 1M"),
        (
            with(("input_per_1k_usd", "2.5"), (out_million, "10")),
            "input_per_1k_usd: 2.5 USD per 1,000 tokens",
        ),
        (with((million, "0.0025"), (out_million, "10")), "output_per_1m_usd: 1000 times the input's price"),
        (with((million, "10"), (out_million, "0.004")), "input_per_1m_usd: 1000 times the output's price"),
        (json!({million: 2.5, out_million: "10"}), "an amount is written as text"),
        (json!({million: "1", "input_per_1k_usd": "1", out_million: "1"}), "keep one of the two"),
        (json!({million: "1", out_million: "1", "hosting_per_hour_usd": "0.001"}), "is it in another unit?"),
        (json!({million: "1", out_million: "1", "cached_input_per_1m_usd": "2"}), "dearer than fresh input"),
        (json!({million: "1", out_million: "1", "input": "2"}), "input: unknown key"),
        (json!({million: "1"}), "output_per_1m_usd: missing"),
        (json!({"training_per_1m_usd": "1"}), "input_per_1m_usd: missing"),
    ] {
        let found = refused(&written);
        assert!(found.contains(said), "{written} should say {said:?}, but says\n{found}");
    }
    let known = price(&with((million, "2.50"), (out_million, "10")));
    let per_thousand = price(&with((million, "0.0025"), (out_million, "0.01")));
    let far = per_thousand.far_from(&known).expect("a thousandth");
    assert!(far.contains("0.0025 USD per 1M tokens of input") && far.contains("per 1K"), "{far}");
    assert_eq!(price(&with((million, "1"), (out_million, "5"))).far_from(&known), None);
}

#[test]
fn pain_15_cached_tokens_are_not_fresh() {
    let price =
        price(&json!({"input_per_1m_usd": "2", "cached_input_per_1m_usd": "0.50", "output_per_1m_usd": "8",
        "cache_write_per_1m_usd": "2.50"}));
    let chat = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 900_000}});
    let responses = json!({"input_tokens": 1_000_000, "output_tokens": 0,
        "input_tokens_details": {"cached_tokens": 900_000, "cache_write_tokens": 50_000}});
    for (usage, want) in [(chat, "0.65"), (responses, "0.675")] {
        let counts = TokenCounts::from_json(&usage).expect("a usage");
        assert_eq!(price.cost(&counts, ServiceTier::Default), usd(want), "{usage}");
        let lines = price.breakdown(&counts, ServiceTier::Default);
        let classes: Vec<&str> = lines.iter().map(|line| line.class.name()).collect();
        assert!(classes.contains(&"cached_input"), "the classes are shown: {classes:?}");
    }
}

#[test]
fn tiers_and_long_inputs_have_their_prices() {
    let price =
        price(&json!({"input_per_1m_usd": "4", "cached_input_per_1m_usd": "0.40", "output_per_1m_usd": "20",
        "cache_write_per_1m_usd": "5",
        "batch": {"input_per_1m_usd": "2", "output_per_1m_usd": "10"},
        "priority": {"factor": "1.75"},
        "long_context": {"above_tokens": 1000, "input_per_1m_usd": "8", "output_per_1m_usd": "30"}}));
    let cost = |prompt, cached, tier| {
        let counts = TokenCounts { prompt, cached, completion: 10, ..TokenCounts::default() };
        price.cost(&counts, tier).nanos()
    };
    for (prompt, cached, tier, nanos) in [
        (1_000, 0, ServiceTier::Default, 4_000_000 + 200_000),
        (1_000, 0, ServiceTier::Flex, 4_000_000 + 200_000),
        (1_000, 0, ServiceTier::Batch, 2_000_000 + 100_000),
        (1_000, 1_000, ServiceTier::Batch, 400_000 + 100_000),
        (1_000, 0, ServiceTier::Priority, 7_000_000 + 350_000),
        // one token more, and all of them are dearer
        (1_001, 0, ServiceTier::Default, 8_008_000 + 300_000),
        (1_001, 0, ServiceTier::Batch, 8_008_000 + 300_000),
        (1_001, 0, ServiceTier::Priority, 8_008_000 + 350_000),
        (1_001, 1_001, ServiceTier::Default, 800_800 + 300_000),
    ] {
        assert_eq!(cost(prompt, cached, tier), nanos, "{prompt} {cached} {}", tier.name());
    }
    let dearest = |input, tier| price.dearest_input(input, tier).per_million();
    assert_eq!(dearest(1_000, ServiceTier::Default), "5.00", "a cache write");
    assert_eq!(dearest(1_000, ServiceTier::Flex), "5.00", "a server may ignore a cheaper tier");
    assert_eq!(dearest(1_000, ServiceTier::Priority), "8.75");
    assert_eq!(dearest(1_001, ServiceTier::Default), "10.00");
    assert_eq!(price.dearest_output(1_001, ServiceTier::Priority).per_million(), "35.00");
    for (text, asked, served) in [
        (None, ServiceTier::Priority, ServiceTier::Default),
        (Some("auto"), ServiceTier::Priority, ServiceTier::Default),
        (Some("default"), ServiceTier::Default, ServiceTier::Default),
        (Some("flex"), ServiceTier::Flex, ServiceTier::Flex),
        (Some("fast"), ServiceTier::Priority, ServiceTier::Priority),
        (Some("new-word"), ServiceTier::Priority, ServiceTier::Priority),
    ] {
        assert_eq!((ServiceTier::asked(text), ServiceTier::served(text)), (asked, served), "{text:?}");
    }
}

/// Prices of all shapes, from figures in tenths of a US cent per 1M tokens.
fn any_price() -> impl Strategy<Value = Price> {
    let figure = || 10..100_000_u32;
    let optional = || proptest::option::of(figure());
    let rest = (optional(), optional(), optional(), optional(), optional());
    (figure(), figure(), 0..=100_u32, rest, 1..2_000_u64).prop_filter_map(
        "within the band",
        |(input, output, cached_percent, (write, reasoning, audio, priority, long), above_tokens)| {
            let text = |tenths: u32| format!("{}.{:03}", tenths / 1_000, tenths % 1_000);
            let mut written = json!({"input_per_1m_usd": text(input), "output_per_1m_usd": text(output),
                "cached_input_per_1m_usd": text(input * cached_percent / 100)});
            let mut add = |key: &str, figure: Option<u32>| {
                if let Some(figure) = figure {
                    written[key] = text(figure).into();
                }
            };
            add("cache_write_per_1m_usd", write);
            add("reasoning_per_1m_usd", reasoning);
            add("audio_input_per_1m_usd", audio);
            add("audio_output_per_1m_usd", audio);
            if let Some(priority) = priority {
                written["priority"] = json!({"input_per_1m_usd": text(priority)});
                written["flex"] = json!({"factor": "0.5"});
            }
            if let Some(long) = long {
                written["long_context"] =
                    json!({"above_tokens": above_tokens, "input_per_1m_usd": text(long)});
            }
            alone(&written).ok()
        },
    )
}

proptest! {
    #[test]
    fn no_usage_within_the_bound_costs_more_than_the_bound(
        price in any_price(),
        bound in (0..4_000_u64, 0..4_000_u64),
        parts in prop::array::uniform7(0..5_000_u64),
        time in (0..1_u64 << 32, 0..1_u64 << 32, 0..1_i64 << 40),
        asked in 0..4_usize, served in 0..4_usize,
    ) {
        let (asked, served) = (ServiceTier::ALL[asked], ServiceTier::ALL[served]);
        prop_assume!(served <= asked.max(ServiceTier::Default));
        let counts = TokenCounts {
            prompt: parts[0].min(bound.0), cached: parts[1], cache_write: parts[2], audio_prompt: parts[3],
            completion: parts[4].min(bound.1), reasoning: parts[5], audio_completion: parts[6],
            compute_us: time.0.min(time.1),
        };
        let mut price = price;
        price.terms.compute_hour = Some(Usd::from_nanos(time.2));
        let held = price
            .computing(time.1)
            .and(bound.0, price.dearest_input(bound.0, asked))
            .and(bound.1, price.dearest_output(bound.0, asked))
            .round_up();
        prop_assert!(price.cost(&counts, served) <= held, "{counts:?} {asked:?} {served:?}");
        let lines = price.breakdown(&counts, served);
        let tokens: u64 = lines.iter().map(|line| line.tokens).sum();
        prop_assert_eq!(tokens, counts.prompt + counts.completion, "each token is in one class");
    }
}
