use std::sync::Arc;

use super::*;
use crate::domain::catalog::Provider;
use crate::domain::catalog::tests::deployment as plain;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 2027-01-14.
const END: i64 = 1_799_884_800_000;

fn at(host: &str, upstream: &str, base_model: Option<&str>) -> Deployment {
    let plain = plain("d", upstream);
    let address = Address::Host { host: host.into(), port: 443, tls: true };
    let provider = Arc::new(Provider { address, ..(*plain.provider).clone() });
    Deployment { provider, base_model: base_model.map(str::to_owned), ..(*plain).clone() }
}

fn days(found: Option<Retirement>) -> Option<String> {
    found.map(|retirement| retirement.day())
}

#[test]
fn fine_tunes_end_as_was_published() {
    let openai = |base: &str| format!("ft:{base}:acme:bot:B2xY");
    let azure = |base: &str| format!("{base}.ft-0a1b2c");
    for (host, model, base_model, want) in [
        ("api.openai.com", openai("gpt-4.1-mini-2025-04-14"), None, Some("2027-01-14")),
        ("api.openai.com", openai("gpt-4.1-2025-04-14"), None, Some("2027-01-14")),
        ("api.openai.com", openai("gpt-4o-2024-08-06"), None, Some("2027-01-14")),
        ("api.openai.com", openai("gpt-4o-2024-11-20"), None, Some("2027-01-14")),
        ("api.openai.com", openai("gpt-4o-2024-05-13"), None, Some("2026-10-23")),
        ("eu.api.openai.com", openai("gpt-4o-mini-2024-07-18"), None, Some("2027-01-14")),
        ("api.openai.com", openai("gpt-4.1-nano-2025-04-14"), None, Some("2026-10-23")),
        ("api.openai.com", openai("o4-mini-2025-04-16"), None, Some("2026-10-23")),
        ("api.openai.com", openai("gpt-3.5-turbo-0125"), None, Some("2026-10-23")),
        ("api.openai.com", openai("gpt-3.5-turbo"), None, Some("2026-10-23")),
        ("api.openai.com", openai("gpt-4-0613"), None, Some("2026-10-23")),
        ("api.openai.com", openai("babbage-002"), None, Some("2026-10-23")),
        ("api.openai.com", "curie:ft-acme-2022-01-02-03-04-05".to_owned(), None, Some("2024-01-04")),
        ("api.openai.com", openai("gpt-9"), None, None),
        ("api.openai.com", "gpt-4.1-mini-2025-04-14".to_owned(), None, None),
        ("x.openai.azure.com", azure("gpt-4o-2024-08-06"), None, Some("2027-10-01")),
        ("x.openai.azure.com", azure("gpt-4.1-nano-2025-04-14"), None, Some("2027-10-14")),
        ("x.services.ai.azure.com", azure("o4-mini-2025-04-16"), None, Some("2027-10-16")),
        ("x.openai.azure.com", "eu".to_owned(), Some("gpt-4.1-2025-04-14.ft-0a"), Some("2027-10-14")),
        // a base alone does not say whether what was deployed is a fine-tune
        ("x.openai.azure.com", "eu".to_owned(), Some("gpt-4.1-2025-04-14"), None),
        ("vllm.internal", openai("gpt-4.1-mini-2025-04-14"), None, None),
        ("not-api.openai.com", openai("gpt-4.1-mini-2025-04-14"), None, None),
        ("api.openai.com.example", openai("gpt-4.1-mini-2025-04-14"), None, None),
    ] {
        let found = retirement_of(&at(host, &model, base_model), &model, None);
        assert_eq!(days(found).as_deref(), want, "{model} at {host}");
        assert!(found.is_none_or(|found| found.source == RetirementSource::Published), "{model}");
    }
}

#[test]
fn the_operator_is_believed_first_then_the_provider() {
    let model = "ft:gpt-4.1-mini-2025-04-14:acme:bot:B2xY";
    for (operator, told, want) in [
        (Some(5), Some(6), Some((5, RetirementSource::Operator))),
        (None, Some(6), Some((6, RetirementSource::Provider))),
        (None, None, Some((END, RetirementSource::Published))),
    ] {
        let deployment = Deployment { retires_at_ms: operator, ..at("api.openai.com", model, None) };
        let found = retirement_of(&deployment, model, told).map(|found| (found.at_ms, found.source));
        assert_eq!(found, want);
    }
    assert_eq!(retirement_of(&at("vllm.internal", model, None), model, None), None);
}

#[test]
fn behind_a_star_the_asked_name_counts() {
    let any = at("api.openai.com", "*", None);
    assert_eq!(days(retirement_of(&any, "ft:gpt-4o:acme::x", None)).as_deref(), Some("2027-01-14"));
    assert_eq!(retirement_of(&any, "*", None), None);
}

#[test]
fn the_end_comes_in_stages() {
    let (lead, warn) = (Duration::from_secs(86_400), Duration::from_secs(60 * 86_400));
    for (before_ms, stage, published) in [
        (61 * DAY_MS, Stage::Active, Stage::Active),
        (60 * DAY_MS + 1, Stage::Active, Stage::Active),
        (60 * DAY_MS, Stage::Warned, Stage::Warned),
        (DAY_MS + 1, Stage::Warned, Stage::Warned),
        (DAY_MS, Stage::Leaving, Stage::Leaving),
        (1, Stage::Leaving, Stage::Leaving),
        (0, Stage::Retired, Stage::Leaving),
        (-400 * DAY_MS, Stage::Retired, Stage::Leaving),
    ] {
        for (source, want) in [
            (RetirementSource::Operator, stage),
            (RetirementSource::Provider, stage),
            (RetirementSource::Published, published),
        ] {
            let found = Retirement { at_ms: END, source }.stage(END - before_ms, lead, warn);
            assert_eq!(found, want, "{before_ms} ms before, {source:?}");
        }
    }
}

#[test]
fn no_moment_is_too_far_away() {
    let retirement = |at_ms| Retirement { at_ms, source: RetirementSource::Operator };
    for (at_ms, now_ms, want) in [
        (i64::MIN, 0, Stage::Retired),
        (i64::MAX, 0, Stage::Active),
        (0, i64::MAX, Stage::Retired),
        (i64::MAX, i64::MAX, Stage::Retired),
    ] {
        let found = retirement(at_ms).stage(now_ms, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(found, want, "{at_ms} at {now_ms}");
        assert!(!retirement(at_ms).day().is_empty());
    }
}

#[test]
fn days_and_seconds_are_read_or_not_taken_for_moments() {
    assert_eq!(day_ms("2027-01-14"), Some(END));
    assert_eq!(seconds_ms(END / 1_000), Some(END));
    for day in
        ["", "2027-1-14", "2027-02-30", "14.01.2027", "2027-01-14T00:00:00Z", "1970-01-01", "2019-12-31"]
    {
        assert_eq!(day_ms(day), None, "{day}");
    }
    for seconds in [0, -1, 1, END, i64::MAX, i64::MIN] {
        assert_eq!(seconds_ms(seconds), None, "{seconds}");
    }
}

#[test]
fn a_list_may_name_the_model_its_base_or_the_deployments_fine_tune() {
    for (model, base_model, want) in [
        ("gpt-4o", None, vec!["gpt-4o"]),
        ("ft:gpt-4o:acme::x", None, vec!["ft:gpt-4o:acme::x", "gpt-4o"]),
        ("gpt-4o.ft-0a", None, vec!["gpt-4o.ft-0a"]),
        ("eu", Some("gpt-4o.ft-0a"), vec!["eu", "gpt-4o.ft-0a"]),
        ("eu", Some("gpt-4o"), vec!["eu"]),
    ] {
        let deployment = at("x", model, base_model);
        assert_eq!(listed_as(&deployment, model).collect::<Vec<_>>(), want, "{model}");
    }
}
