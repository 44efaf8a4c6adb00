//! Models: their plans, and the names that lead to them.

use std::time::Duration;

use crate::domain::cache::{Joiners, Policy, Scope};
use crate::domain::capture;
use crate::domain::catalog::Model;
use crate::domain::endpoint::Endpoint;
use crate::domain::retry;
use crate::domain::route::{
    CHEAPEST_PROBES, Ceiling, Condition, HeaderIs, Measure, Plan, Ramp, StickyBy, TokenRange,
};

use super::*;

/// Four deployments, and a model over a `*`.
pub(super) const DEPLOYMENTS: &str = r#"
[worker]
enabled = false
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[deployments.a]
provider = "p"
model = "gpt-4.1"
quality = 0.9
context_window = 1000
capabilities = ["tools", "images"]
[deployments.b]
provider = "p"
model = "gpt-4o"
quality = 0.5
context_window = 2000
capabilities = ["tools"]
[deployments.c]
provider = "p"
model = "gpt-4.1-mini"
[deployments.star]
provider = "p"
model = "*"
[models."any/*"]
deployments = ["star"]
"#;

fn with(text: &str) -> Config {
    good(&format!("{DEPLOYMENTS}{text}"), &[])
}

fn model(config: &Config, name: &str) -> Arc<Model> {
    config.catalog.resolve(&ModelName::parse(name).expect(name)).expect(name).model
}

/// A plan in a few signs: deployments by name, everything else by its kind.
fn shape(plan: &Plan) -> String {
    let all = |plans: &[Plan]| plans.iter().map(shape).collect::<Vec<_>>().join(" ");
    match plan {
        Plan::To(deployment) => deployment.name.to_string(),
        Plan::Ordered(plans) => format!("({})", all(plans)),
        Plan::Pool(plans) => format!("pool({})", all(plans)),
        Plan::Cheapest(cheapest) => format!("cheapest({})", all(&cheapest.among)),
        Plan::Fastest(fastest) => format!("fastest({})", all(&fastest.among)),
        Plan::Weighted(weighted) => {
            let parts =
                weighted.choices.iter().map(|(share, plan)| format!("{}:{}", share.weight, shape(plan)));
            format!("weighted({})", parts.collect::<Vec<_>>().join(" "))
        }
        Plan::When(when) => {
            let cases = when.cases.iter().map(|(_, plan)| shape(plan)).collect::<Vec<_>>().join(" ");
            match &when.otherwise {
                Some(plan) => format!("when({cases} else {})", shape(plan)),
                None => format!("when({cases})"),
            }
        }
    }
}

#[test]
fn a_gate_is_of_the_model_and_has_sound_defaults() {
    let config = with("[models.bot]\ndeployments = [\"a\"]\ngate.rules = [\"min exact 0.8\"]\n");
    let model = model(&config, "bot");
    let gate = model.gate.as_ref().expect("a gate");
    assert_eq!((gate.rows, gate.max_age_ms, gate.rules.rules().len()), (20, 90 * 86_400_000, 1));
}

#[test]
fn plans_are_read() {
    for (plan, read) in [
        (r#""a""#, "a"),
        (r#"["a", "b"]"#, "(a b)"),
        (r#"{ ordered = ["a", ["b", "c"]] }"#, "(a (b c))"),
        (r#"{ pool = ["a", "deployment:b"] }"#, "pool(a b)"),
        (r#"{ cheapest = ["a", "b"] }"#, "cheapest(a b)"),
        (r#"{ fastest = ["a", { pool = ["b", "c"] }] }"#, "fastest(a pool(b c))"),
        (
            r#"{ weighted = [{ share = 9, to = "a" }, { share = 1, to = ["b", "c"] }] }"#,
            "weighted(9:a 1:(b c))",
        ),
        (r#"{ when = [{ if = { stream = true }, to = "a" }] }"#, "when(a)"),
        (r#"{ when = [{ if = { stream = true }, to = "a" }], otherwise = "b" }"#, "when(a else b)"),
        (r#""other""#, "(b c)"),
        (r#"["a", "other"]"#, "(a (b c))"),
        (r#"["model:other", "other@beta"]"#, "((b c) c)"),
        // its own name, where a deployment has it, too
        (r#"["m@spare", "a"]"#, "(a a)"),
    ] {
        let config = with(&format!(
            "[models.m]\nplan = {plan}\nlabels.spare = \"a\"\n\
             [models.other]\ndeployments = [\"b\", \"c\"]\nlabels.beta = \"c\""
        ));
        assert_eq!(shape(&model(&config, "m").route.plan), read, "{plan}");
    }
}

#[test]
fn a_name_of_a_deployment_and_a_model_is_told_apart() {
    let text = |plan: &str, of_a: &str| format!("[models.m]\nplan = {plan}\n[models.a]\nplan = {of_a}");
    for (plan, of_a, read) in [
        (r#"["a", "c"]"#, r#"["a", "b"]"#, None),
        (r#"["deployment:a", "c"]"#, r#"["a", "b"]"#, Some("(a c)")),
        (r#"["model:a", "c"]"#, r#"["a", "b"]"#, Some("((a b) c)")),
    ] {
        match read {
            Some(read) => {
                assert_eq!(shape(&model(&with(&text(plan, of_a)), "m").route.plan), read, "{plan}");
            }
            None => assert_eq!(
                wrong(&format!("{DEPLOYMENTS}{}", text(plan, of_a))),
                ["models.m.plan[0]: a is a deployment and a model: write \"deployment:a\" or \"model:a\""]
            ),
        }
    }
    let same = with("[models.m]\nplan = [\"a\", \"c\"]\n[models.a]\ndeployments = [\"a\"]");
    assert_eq!(shape(&model(&same, "m").route.plan), "(a c)", "both lead to the same");
    let pattern = with("[models.\"any/x-*\"]\nplan = [\"any/*\"]");
    assert_eq!(shape(&model(&pattern, "any/x-1").route.plan), "((star))");
}

#[test]
fn all_of_a_plan_is_read() {
    let config = with(
        r#"
        [models.split]
        plan = { weighted = [{ share = 90, to = "a", ramp = { to = 0, from = "2026-12-01", until = 2026-12-20T12:00:00Z } }, { share = 10, to = "b" }], sticky = ["header:X-Conversation-Id", "end_user", "key"] }
        [models.cheap]
        plan = { cheapest = ["a", "b"], min_quality = 0.855, max_first_token_ms = 500, max_latency_ms = 9000 }
        [models.fast]
        plan = { fastest = ["a", "b"], by = "tokens_per_second", min_quality = 0.5, probe_percent = 2.5 }
        [models.facts.plan]
        when = [
          { if = { team = "sales", key = ["web", "app"], tag = "env:prod", header = { X-Beta = ["on", "1"], x-any = true, x-one = "1" } }, to = "a" },
          { if = { endpoint = "responses", input_tokens = { at_least = 5 }, tools = true, images = false, json_schema = true, stream = true }, to = "b" },
          { if = { input_tokens = { at_most = 7 } }, to = "c" },
        ]
        "#,
    );
    let plan = |name: &str| model(&config, name).route.plan.clone();
    let Plan::Weighted(split) = plan("split") else { panic!("a split") };
    let ramp = Ramp { to: 0, from_ms: 1_796_083_200_000, until_ms: 1_797_768_000_000 };
    assert_eq!((split.choices[0].0.weight, split.choices[0].0.ramp), (90, Some(ramp)));
    assert_eq!((split.choices[1].0.weight, split.choices[1].0.ramp), (10, None));
    assert_eq!(
        split.sticky,
        [StickyBy::Header("x-conversation-id".into()), StickyBy::EndUser, StickyBy::Key]
    );
    let Plan::Cheapest(cheap) = plan("cheap") else { panic!("the cheapest") };
    let ms = Duration::from_millis;
    assert_eq!(cheap.ceiling, Ceiling { first_token: Some(ms(500)), whole: Some(ms(9_000)) });
    assert_eq!((cheap.min_quality, cheap.probe_per_mille), (Some(855), CHEAPEST_PROBES));
    let Plan::Fastest(fast) = plan("fast") else { panic!("the fastest") };
    assert_eq!((fast.by, fast.min_quality, fast.probe_per_mille), (Measure::TokensPerSecond, Some(500), 25));
    let Plan::When(when) = plan("facts") else { panic!("conditions") };
    let header = |name: &str, values: &[&str]| HeaderIs {
        name: name.into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    };
    let mut first = when.cases[0].0.clone();
    first.headers.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        first,
        Condition {
            teams: vec!["sales".into()],
            keys: vec!["web".into(), "app".into()],
            tags: vec!["env:prod".into()],
            headers: vec![header("x-any", &[]), header("x-beta", &["on", "1"]), header("x-one", &["1"])],
            ..Condition::default()
        }
    );
    assert_eq!(
        when.cases[1].0,
        Condition {
            endpoints: vec![Endpoint::Responses],
            input_tokens: Some(TokenRange { at_least: 5, at_most: None }),
            tools: Some(true),
            images: Some(false),
            json_schema: Some(true),
            stream: Some(true),
            ..Condition::default()
        }
    );
    assert_eq!(when.cases[2].0.input_tokens, Some(TokenRange { at_least: 0, at_most: Some(7) }));
    assert_eq!(config.catalog.headers.len(), 4, "{:?}", config.catalog.headers);
}

#[test]
fn names_and_manners_of_models() {
    let config = with(
        "[models.m]\nplan = \"a\"\naliases = [\"n\", \"team/o\"]\nrequires = [\"tools\"]\n\
         labels = { beta = \"b\", old = [\"a\", \"b\"] }\nlonger_context = \"b\"\ncontent_filtered = \"a\"\n\
         retry = { attempts = 5, longest_wait_ms = 100 }\nlimits.concurrent = 3\n\
         [models.plain]\ndeployments = [\"c\"]",
    );
    let found = model(&config, "m");
    for (asked, plan) in
        [("m", "a"), ("n", "a"), ("team/o", "a"), ("m@beta", "b"), ("m@old", "(a b)"), ("plain", "(c)")]
    {
        let resolved = config.catalog.resolve(&ModelName::parse(asked).expect(asked)).expect(asked);
        assert_eq!(shape(&resolved.route.plan), plan, "{asked}");
    }
    assert_eq!(found.limits.concurrent, Some(3));
    let aside =
        |route: &Option<Arc<crate::domain::route::Route>>| route.as_ref().map(|route| shape(&route.plan));
    assert_eq!(aside(&found.longer_context).as_deref(), Some("b"));
    assert_eq!(aside(&found.content_filtered).as_deref(), Some("a"));
    let short = Duration::from_millis(100);
    assert_eq!(
        found.retry,
        retry::Policy {
            attempts: 5,
            first_wait: short,
            longest_wait: short,
            on_content_filter: true,
            ..retry::Policy::default()
        }
    );
    assert_eq!(model(&config, "plain").retry, retry::Policy::default());
}

#[test]
fn the_order_of_choices_and_other_models_do_not_move_a_conversation() {
    let ids = |text: &str, name: &str| {
        let Plan::Weighted(weighted) = model(&with(text), name).route.plan.clone() else { panic!("a split") };
        let of = |(share, plan): &(crate::domain::route::Share, Plan)| (shape(plan), share.id);
        weighted.choices.iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let text = |choices: &str| format!("[models.m]\nplan = {{ weighted = [{choices}] }}");
    let (a, b) = (r#"{ share = 1, to = "a" }"#, r#"{ share = 2, to = "b" }"#);
    let first = ids(&text(&format!("{a}, {b}")), "m");
    assert_eq!(ids(&text(&format!("{b}, {a}")), "m"), first);
    let fallback = ids(&text(&format!(r#"{a}, {{ share = 2, to = ["deployment:b", "c"] }}"#)), "m");
    assert_eq!(fallback["(b c)"], first["b"], "a fallback moves nobody");
    let other = ids(&text(&format!("{a}, {b}")).replace("models.m", "models.n"), "n");
    assert_ne!(other["a"], first["a"], "two models draw apart");
    let nested = text(&format!(
        r#"{{ share = 1, to = {{ weighted = [{a}, {b}] }} }}, {{ share = 1, to = ["a", "c"] }}"#
    ));
    let outer = ids(&nested, "m");
    let Plan::Weighted(weighted) = model(&with(&nested), "m").route.plan.clone() else { panic!("a split") };
    let Plan::Weighted(inner) = &weighted.choices[0].1 else { panic!("a split within") };
    let mut all: Vec<u64> =
        outer.into_values().chain(inner.choices.iter().map(|(share, _)| share.id)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4, "choices of one place and of another have nothing in common");
}

#[test]
fn what_works_in_plans_but_should_be_known() {
    for (text, notices) in [
        ("[models.m]\nplan = [\"a\", \"b\", \"c\"]", &[][..]),
        ("[models.m]\nplan = [\"a\", \"b\"]", &["deployments.c: no model leads here"][..]),
        (
            "[models.m]\nplan = { weighted = [{ share = 1, to = [\"a\", \"b\", \"c\"] }] }",
            &["models.m.plan.weighted: one choice gets everything, whatever its share: name two"],
        ),
        (
            "[deployments.x]\nprovider = \"p\"\nmodel = \"mine\"\n[models.m]\nplan = { cheapest = [\"x\", [\"a\", \"b\", \"c\"]] }",
            &[
                "deployments.x: its requests are refused: no price is known for \"mine\"",
                "models.m.plan.cheapest: x has no known price: it is never asked here",
            ],
        ),
    ] {
        let found = with(text).notices;
        let starts = found.len() == notices.len()
            && found.iter().zip(notices).all(|(found, notice)| found.starts_with(notice));
        assert!(starts, "{text}\n{found:#?}");
    }
}

#[test]
fn what_is_usual_holds_where_nothing_else_is_said() {
    let config = with(
        "[routing]\nretry = { attempts = 7, same = 3 }\nbreaker.probes = 4\n[deployments.b.breaker]\nwindow_ms = 1\n\
         [models.m]\nplan = [\"a\", \"b\"]\n[models.n]\nplan = \"c\"\nretry.same = 0",
    );
    let tries = |name: &str| (model(&config, name).retry.attempts, model(&config, name).retry.same);
    assert_eq!((tries("m"), tries("n")), ((7, 3), (7, 0)));
    let breaker = |name: &str| config.catalog.deployments[name].breaker;
    assert_eq!((breaker("a").probes, breaker("b").probes), (4, 4));
    assert_eq!(breaker("b").window, Duration::from_millis(1));
}

#[test]
fn all_routes_of_a_model_keep_answers_as_it_says() {
    let text = "[models.m]\nplan = \"smollm2-135m\"\nlabels = { old = \"smollm2-135m\" }\n\
                longer_context = \"smollm2-135m\"\n\
                cache = { ttl_s = 5, scope = \"key\", any_temperature = true, tool_calls = true, joiners = \"share\" }\n\
                [models.plain]\nplan = \"m\"";
    let config = good(text, &[]);
    let of = |name: &str| config.catalog.models().find(|model| model.name.as_str() == name).expect("a model");
    let want = Policy {
        ttl: Duration::from_secs(5),
        scope: Scope::Key,
        any_temperature: true,
        tool_calls: true,
        joiners: Joiners::Share,
        semantic: None,
    };
    let kept: Vec<_> = of("m").routes().map(|route| route.cache.as_deref().cloned()).collect();
    assert_eq!(kept, vec![Some(want); 3]);
    // a plan that leads through another model keeps nothing for that
    assert!(of("plain").routes().all(|route| route.cache.is_none()));
}

#[test]
fn what_is_kept_of_a_model_s_traffic() {
    let text = "[models.m]\ndeployments = [\"smollm2-135m\"]\n\
                capture = { sample = 0.25, retention_days = 7, mask = false, max_rows = 9, max_row_bytes = 2048, \
                deployments = [\"smollm2-135m\"] }\n\
                [models.usual]\ndeployments = [\"smollm2-135m\"]\ncapture = {}\n\
                [models.plain]\ndeployments = [\"smollm2-135m\"]";
    let config = good(text, &[]);
    let of = |name: &str| {
        let model = config.catalog.models().find(|model| model.name.as_str() == name).expect("a model");
        model.capture.as_deref().cloned()
    };
    let want = capture::Policy {
        sample_ppm: 250_000,
        retention_ms: 7 * capture::DAY_MS,
        mask: false,
        max_rows: 9,
        max_row_bytes: 2_048,
        deployments: Some(vec!["smollm2-135m".into()]),
    };
    assert_eq!(of("m"), Some(want));
    let usual = of("usual").expect("kept");
    assert_eq!((usual.sample_ppm, usual.mask, usual.deployments), (100_000, true, None));
    assert_eq!(of("plain"), None, "off unless a model says so");
}
