use proptest::prelude::*;

use super::*;
use crate::domain::capability::Capability;
use crate::domain::catalog::tests::deployment as candle;
use crate::domain::key::{Terms, VirtualKey};
use crate::domain::money::Usd;
use crate::domain::provider::{AzureV1, Dialect, OpenAi};
use crate::domain::registry::{Hosted, Stage, SystemPrompt, Tier, Variant};

const V1: &str = "ft:gpt-4.1-mini-2025-04-14:acme:v1:A1";
const V2: &str = "ft:gpt-4.1-mini-2025-04-14:acme:v2:B2";
const V2_STEP: &str = "ft:gpt-4.1-mini-2025-04-14:acme:v2:B2:ckpt-step-40";
const ON_AZURE: &str = "gpt-4.1-mini-2025-04-14.ft-b044a9d3";

fn name(text: &str) -> ModelName {
    ModelName::parse(text).expect("a name")
}

fn provider(name: &str, dialect: Dialect) -> Arc<Provider> {
    Arc::new(Provider { name: name.into(), dialect, ..(*candle("d", "m").provider).clone() })
}

fn of(provider: &Arc<Provider>, name: &str, upstream: &str) -> Arc<Deployment> {
    let plain = Deployment::plain(name.into(), Arc::clone(provider), upstream.into());
    Arc::new(Deployment { context_window: Some(1_000), ..plain })
}

/// A route `bot` over two deployments, a pattern, a model with requirements, and three providers.
fn base() -> Catalog {
    let openai = provider("openai", Dialect::OpenAi(OpenAi::default()));
    let azure = provider("azure", Dialect::AzureV1(AzureV1::default()));
    let local = provider("local", Dialect::Candle);
    let (mini, any) = (of(&openai, "mini", "gpt-4.1-mini-2025-04-14"), of(&openai, "any", "*"));
    let (eu, small) = (of(&azure, "eu", "eu"), of(&local, "small", "smollm2"));
    let free = Deployment { pricing: crate::domain::catalog::Pricing::Row("own".into()), ..(*small).clone() };
    let small = Arc::new(free);
    let deployments = [&mini, &any, &eu, &small].map(|one| (Arc::clone(&one.name), Arc::clone(one)));
    let to = |one: &Arc<Deployment>| Plan::To(Arc::clone(one));
    let mut bot = Model::plain(name("bot"), Plan::Ordered(vec![to(&mini), to(&eu)]));
    bot.aliases = vec![name("helpdesk")];
    let tools = Model { requires: vec![Capability::Tools], ..Model::plain(name("tools"), to(&mini)) };
    let labelled = Model {
        labels: [(CANDIDATE.into(), Arc::new(Route::new(to(&eu))))].into(),
        ..Model::plain(name("labelled"), to(&mini))
    };
    let models = vec![bot, tools, labelled, Model::plain(name("*"), to(&any))];
    let providers = [openai, azure, local].map(|one| (Arc::clone(&one.name), one));
    Catalog::new(providers.into(), deployments.into(), models)
}

fn model(name: &str, provider: &str, base: &str) -> Registered {
    Registered {
        name: name.into(),
        owner: Owner::Team("team_a".into()),
        provider: provider.into(),
        base: base.into(),
        job_id: "ftjob-1".into(),
        dataset_sha256: "ab".into(),
        system_prompt: Some(SystemPrompt::new("Be a cat.")),
        trained_tokens: Some(300_000),
        cost: Usd::from_nanos(2_400_000_000),
        price_version: "v1".into(),
        checkpoints: Vec::new(),
        created_at_ms: 1,
        finished_at_ms: 2,
        retired_at_ms: None,
        bound: None,
        hosted: Vec::new(),
    }
}

fn hosted(name: &str, model: &str, tier: Tier, state: HostedState) -> Hosted {
    Hosted {
        name: name.into(),
        model: model.into(),
        tier,
        capacity: 50,
        state,
        why: None,
        wished_at_ms: 0,
        ends_at_ms: tier.ends_at_ms(0),
    }
}

fn registry() -> Vec<Registered> {
    let step = Variant {
        step: 40,
        name: V2_STEP.into(),
        created_at_ms: Some(2_000),
        metrics: serde_json::Value::Null,
    };
    let ready = |name: &str, tier| hosted(name, ON_AZURE, tier, HostedState::Ready);
    let deployments = vec![
        ready("try", Tier::Developer),
        ready("support-ft", Tier::Standard),
        hosted("soon", ON_AZURE, Tier::Standard, HostedState::Creating),
    ];
    vec![
        model(V1, "openai", "gpt-4.1-mini"),
        Registered { checkpoints: vec![step], ..model(V2, "openai", V1) },
        Registered { hosted: deployments, ..model(ON_AZURE, "azure", "azure/acme/gpt-4.1-mini") },
        model("ft:smollm2:cat:1", "local", "local/smollm2"),
    ]
}

fn on(route: &str, placement: Placement) -> Assignment {
    Assignment { route: route.into(), placement }
}

fn key(team: &str) -> VirtualKey {
    VirtualKey {
        id: "key_1".into(),
        alias: "k".into(),
        last_four: String::new(),
        created_at_ms: 0,
        revoked_at_ms: None,
        terms: Terms { team: Some(team.into()), ..Terms::default() },
    }
}

#[test]
fn nothing_registered_leaves_the_catalog_as_it_is() {
    let laid = overlay(&base(), &[], &[]);
    assert_eq!((laid.catalog, laid.troubles), (base(), Vec::new()));
    let emptied = overlay(&base(), &[], &[on("bot", Placement::default())]);
    assert_eq!((emptied.catalog, emptied.troubles), (base(), Vec::new()), "an empty placement is none");
}

#[test]
fn a_model_is_asked_by_its_own_name_and_only_by_its_owner() {
    let Overlaid { catalog, troubles } = overlay(&base(), &registry(), &[]);
    assert_eq!(troubles, []);
    for (asked, deployment, upstream) in [
        (V1, V1, V1),
        (V2_STEP, V2_STEP, V2_STEP),
        (ON_AZURE, "support-ft", "support-ft"),
        ("support-ft", "support-ft", "support-ft"),
        ("try", "support-ft", "support-ft"),
        ("ft:smollm2:cat:1", "ft:smollm2:cat:1", "ft:smollm2:cat:1"),
    ] {
        let found = catalog.resolve(&name(asked)).expect("found");
        let first = &found.route.deployments[0];
        assert_eq!((&*first.name, &*found.upstream_model(first)), (deployment, upstream), "{asked}");
        assert!(found.is_for(&name(asked), &key("team_a")), "{asked}");
        assert!(!found.is_for(&name(asked), &key("team_b")), "{asked}");
    }
    // what is not ready is nobody's to ask: the pattern takes it for a name of OpenAI's
    let soon = catalog.resolve(&name("soon")).expect("the pattern");
    assert_eq!(soon.model.name.as_str(), "*");
}

#[test]
fn no_pattern_leads_others_to_a_model() {
    let mut base = base();
    let any = Arc::clone(&base.deployments["any"]);
    let models: Vec<Model> = base.models().map(|model| (**model).clone()).collect();
    let prefixed = Model::plain(name("openai/*"), Plan::To(any));
    base = Catalog::new(base.providers, base.deployments, models.into_iter().chain([prefixed]).collect());
    let laid = overlay(&base, &registry(), &[]).catalog;
    let asked = name(&format!("openai/{V1}"));
    let found = laid.resolve(&asked).expect("the pattern");
    assert!(found.is_for(&asked, &key("team_a")) && !found.is_for(&asked, &key("team_b")));
    let other = name("openai/gpt-4o");
    assert!(laid.resolve(&other).expect("the pattern").is_for(&other, &key("team_b")));
}

#[test]
fn a_pattern_leads_others_to_a_model_by_no_other_provider_either() {
    let base = base();
    let second = provider("openai-b", Dialect::OpenAi(OpenAi::default()));
    let azure = provider("azure-b", Dialect::AzureV1(AzureV1::default()));
    // a route knows its deployments by their names
    let to = |provider: &Arc<Provider>, upstream: &str| {
        Plan::To(of(provider, &format!("to {upstream}"), upstream))
    };
    let either = Plan::Ordered(vec![to(&second, "no-*"), to(&second, "*")]);
    let patterns = [("b/*", to(&second, "*")), ("az/*", to(&azure, "*")), ("either/*", either)];
    let patterns = patterns.map(|(pattern, plan)| Model::plain(name(pattern), plan));
    let models = base.models().map(|model| (**model).clone()).chain(patterns).collect();
    let providers = base.providers.into_iter().chain([(Arc::clone(&second.name), second)]).collect();
    let base = Catalog::new(providers, base.deployments, models);
    let renamed = registry().into_iter().map(|model| Registered { provider: "old".into(), ..model });
    for registered in [registry(), renamed.collect()] {
        let laid = overlay(&base, &registered, &[]).catalog;
        for (asked, is_owned) in [
            (format!("b/{V1}"), true),
            (format!("b/{}", V1.to_uppercase()), true),
            (format!("either/{V2_STEP}"), true),
            ("az/support-ft".to_owned(), true),
            ("az/Support-FT".to_owned(), true),
            ("az/soon".to_owned(), true),
            ("b/support-ft".to_owned(), false),
            ("b/gpt-4o".to_owned(), false),
        ] {
            let asked = name(&asked);
            let found = laid.resolve(&asked).expect("the pattern");
            assert!(found.is_for(&asked, &key("team_a")), "{asked:?}");
            assert_eq!(found.is_for(&asked, &key("team_b")), !is_owned, "{asked:?}");
        }
    }
}

#[test]
fn a_deployment_is_like_the_one_of_its_base_and_knows_its_words() {
    let registry = registry();
    let catalog = overlay(&base(), &registry, &[]).catalog;
    let first = &catalog.deployments[V1];
    assert_eq!(first.context_window, Some(1_000), "as its base");
    assert_eq!(first.trained_with, registry[0].trained_with());
    assert_eq!(first.base_model, None, "its name tells");
    let azure = &catalog.deployments["support-ft"];
    assert_eq!(azure.base_model.as_deref(), Some(ON_AZURE), "a deployment's name tells no price");
    assert_eq!(azure.model_version.as_deref(), Some(ON_AZURE));
    assert_eq!(catalog.deployments["try"].retires_at_ms, Some(86_400_000));
    let local = &catalog.deployments["ft:smollm2:cat:1"];
    assert_eq!(local.pricing, base().deployments["small"].pricing, "our machine costs what it costs");
}

#[test]
fn moves_are_seen_in_plans() {
    let told = |placement: Placement, asked: &str| {
        let laid = overlay(&base(), &registry(), &[on("bot", placement)]);
        assert_eq!(laid.troubles, []);
        let found = laid.catalog.resolve(&name(asked)).expect("found");
        crate::domain::route::Told::of(&found.route.plan, None, 0).to_string()
    };
    let plain = told(Placement::default(), "bot");
    let candidate = Placement::default().moved(&V1.into(), Stage::Candidate, 1).expect("a move");
    assert_eq!(told(candidate.clone(), "bot"), plain, "nobody else sees it");
    for asked in ["bot@candidate", "helpdesk@candidate"] {
        assert_eq!(told(candidate.clone(), asked), V1);
    }
    let canary = candidate.moved(&V1.into(), Stage::Canary, 10).expect("a move");
    let words = told(canary.clone(), "bot");
    assert!(words.contains("10 %") && words.contains(V1) && words.contains("end_user"), "{words}");
    let production = canary.moved(&V1.into(), Stage::Production, 1).expect("a move");
    let next = production.moved(&V2.into(), Stage::Production, 1).expect("a move");
    let laid = overlay(&base(), &registry(), &[on("bot", next)]).catalog;
    let route = laid.resolve(&name("helpdesk")).expect("found").route;
    let order: Vec<&str> = route.deployments.iter().map(|one| &*one.name).collect();
    assert_eq!(order, [V2, V1, "mini", "eu"], "the one before it, then what the configuration says");
}

#[test]
fn what_has_no_place_is_told_and_left_out() {
    let production = |model: &str| Placement { production: Some(model.into()), ..Placement::default() };
    let candidate = |model: &str| Placement { candidate: Some(model.into()), ..Placement::default() };
    let text = |trouble: &Trouble| trouble.to_string();
    for (registered, assignment, said) in [
        (registry(), on("gone", production(V1)), "there is no model gone"),
        (registry(), on("*", production(V1)), "there is no model *"),
        (registry(), on("bot", production("ft:nobody")), "nobody serves it"),
        (registry(), on("tools", production("ft:smollm2:cat:1")), "can't do what `requires`"),
        (registry(), on("labelled", candidate(V1)), "has a label candidate"),
        (vec![model(V1, "gone", "x")], on("bot", Placement::default()), "made by the provider gone"),
        (
            vec![Registered {
                hosted: vec![hosted("mini", ON_AZURE, Tier::Standard, HostedState::Ready)],
                ..model(ON_AZURE, "azure", "x")
            }],
            on("bot", Placement::default()),
            "has another of that name",
        ),
    ] {
        let laid = overlay(&base(), &registered, &[assignment]);
        assert!(
            laid.troubles.iter().any(|trouble| text(trouble).contains(said)),
            "{said}: {:?}",
            laid.troubles
        );
        for route in ["bot", "tools", "labelled", "labelled@candidate"] {
            let (before, after) = (base().resolve(&name(route)), laid.catalog.resolve(&name(route)));
            assert_eq!(before, after, "{said}: {route} is as before");
        }
    }
}

#[test]
fn the_configurations_own_deployment_stands_for_a_model() {
    let base = base();
    let own = of(&base.providers["openai"], "support-v1", V1);
    let mut deployments = base.deployments.clone();
    deployments.insert(Arc::clone(&own.name), Arc::clone(&own));
    let models = base.models().map(|model| (**model).clone()).chain([Model::plain(name(V1), Plan::To(own))]);
    let base = Catalog::new(base.providers.clone(), deployments, models.collect());
    let laid = overlay(&base, &[model(V1, "openai", "gpt-4.1-mini")], &[]);
    assert_eq!(laid.troubles, []);
    let found = laid.catalog.resolve(&name(V1)).expect("found");
    assert_eq!(&*found.route.deployments[0].name, "support-v1");
    assert!(found.is_for(&name(V1), &key("team_b")), "the operator gave it to all");
    assert!(!laid.catalog.deployments.contains_key(V1));
}

/// All plans of a route.
fn all<'p>(plan: &'p Plan, found: &mut Vec<&'p Plan>) {
    found.push(plan);
    for part in plan.parts() {
        all(part, found);
    }
}

fn step() -> impl Strategy<Value = (&'static str, usize, Stage, u8)> {
    let route = prop::sample::select(vec!["bot", "tools", "labelled", "gone", "*"]);
    let to = prop::sample::select(vec![Stage::Candidate, Stage::Canary, Stage::Production]);
    (route, 0_usize..6, to, 0_u8..=120)
}

proptest! {
    #[test]
    fn no_moves_ever_make_an_unsound_plan(steps in prop::collection::vec(step(), 0..12)) {
        let names = [V1, V2, V2_STEP, ON_AZURE, "ft:smollm2:cat:1", "ft:nobody"];
        let mut placed: BTreeMap<&str, Placement> = BTreeMap::new();
        for (route, model, to, percent) in steps {
            let at = placed.entry(route).or_default();
            if let Ok(next) = at.moved(&names[model].into(), to, percent) {
                *at = next;
            }
        }
        let assignments: Vec<Assignment> =
            placed.into_iter().map(|(route, placement)| on(route, placement)).collect();
        let laid = overlay(&base(), &registry(), &assignments).catalog;
        prop_assert_eq!(&laid, &overlay(&base(), &registry(), &assignments).catalog);
        for model in base().models() {
            prop_assert!(laid.models().any(|laid| laid.name == model.name), "no route is lost");
        }
        for model in laid.models() {
            for route in model.routes() {
                prop_assert!(!route.deployments.is_empty());
                for deployment in &route.deployments {
                    prop_assert_eq!(laid.deployments.get(&deployment.name), Some(deployment));
                    prop_assert!(model.requires.iter().all(|wanted| deployment.can(*wanted)));
                }
                let mut plans = Vec::new();
                all(&route.plan, &mut plans);
                for plan in plans {
                    let Plan::Weighted(weighted) = plan else { continue };
                    let sum: u32 = weighted.choices.iter().map(|(share, _)| share.weight).sum();
                    prop_assert_eq!(sum, 100);
                    prop_assert!(weighted.choices.iter().all(|(share, _)| (1..=99).contains(&share.weight)));
                }
            }
        }
    }
}
