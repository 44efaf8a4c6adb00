use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::Notify;

use super::*;
use crate::control::reports::Reports;
use crate::domain::catalog::tests::deployment as candle;
use crate::domain::catalog::{Deployment, Model};
use crate::domain::deployment::OnUnpriced;
use crate::domain::ids::ModelName;
use crate::domain::key::{Rights, Terms, Tuning, VirtualKey};
use crate::domain::price::read::sheets;
use crate::domain::provider::{AzureV1, Dialect, OpenAi, Provider};
use crate::domain::registry::{Hosted, HostedState};
use crate::domain::route::Plan;
use crate::store::hosting::HostingRows;
use crate::store::prices::PriceRows;
use crate::store::testing::TestDatabase;

const V1: &str = "ft:gpt-4.1-mini-2025-04-14:acme:cat:A1";
const V2: &str = "ft:gpt-4.1-mini-2025-04-14:acme::B2";
const ON_AZURE: &str = "gpt-4.1-mini-2025-04-14.ft-b044a9d3";

/// A provider that does as it is told, and what was asked of it.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    stands: Mutex<HashMap<String, StandState>>,
    answers: Mutex<bool>,
    refuses: Mutex<bool>,
    deletes_none: Mutex<bool>,
    /// Where there is one, a deletion says that it has come, and waits.
    held: Mutex<Option<Arc<Held>>>,
}

/// A call that waits.
#[derive(Default)]
struct Held {
    has_come: Notify,
    goes_on: Notify,
}

impl Fake {
    fn note(&self, what: String) -> Result<(), OutsideError> {
        self.asked.lock().push(what);
        match *self.refuses.lock() {
            false => Ok(()),
            true => Err(OutsideError::Refused {
                provider: "azure".into(),
                status: 400,
                message: "no quota".to_owned(),
                code: None,
            }),
        }
    }
}

type Done<'a, T> = BoxFuture<'a, Result<T, OutsideError>>;

impl AtProviders for Fake {
    fn delete_model<'a>(&'a self, provider: &'a str, name: &'a str) -> Done<'a, bool> {
        if *self.deletes_none.lock() {
            return async move { Err(OutsideError::DeletesNone(provider.into())) }.boxed();
        }
        let held = self.held.lock().take();
        let delete = async move {
            if let Some(held) = held {
                held.has_come.notify_one();
                held.goes_on.notified().await;
            }
            self.note(format!("delete {name}")).map(|()| true)
        };
        delete.boxed()
    }

    fn deploy<'a>(&'a self, _: &'a str, hosted: &'a Hosted) -> Done<'a, ()> {
        let deploy = async move {
            self.note(format!("deploy {} of {} on {}", hosted.name, hosted.model, hosted.tier.sku()))?;
            self.stands.lock().insert(hosted.name.to_string(), StandState::UnderWay);
            Ok(())
        };
        deploy.boxed()
    }

    fn look<'a>(&'a self, _: &'a str, name: &'a str) -> Done<'a, Option<Stand>> {
        let stand = self.stands.lock().get(name).cloned();
        async move { Ok(stand.map(|state| Stand { state, created_at_ms: Some(1_000) })) }.boxed()
    }

    fn undeploy<'a>(&'a self, _: &'a str, name: &'a str) -> Done<'a, ()> {
        let undeploy = async move {
            self.note(format!("undeploy {name}"))?;
            self.stands.lock().remove(name);
            Ok(())
        };
        undeploy.boxed()
    }

    fn answers<'a>(&'a self, _: &'a str, _: &'a str) -> Done<'a, bool> {
        let answers = *self.answers.lock();
        async move { Ok(answers) }.boxed()
    }
}

/// A registry over a database of its own.
struct Bench {
    registry: Registry,
    fake: Arc<Fake>,
    live: Arc<Mutex<Catalog>>,
    /// What the hosting clock knows of.
    clock: HostingRows,
    _database: TestDatabase,
}

fn name(text: &str) -> ModelName {
    ModelName::parse(text).expect("a name")
}

fn base(route: &str) -> Catalog {
    let provider = |name: &str, dialect| {
        Arc::new(Provider { name: name.into(), dialect, ..(*candle("d", "m").provider).clone() })
    };
    let openai = provider("openai", Dialect::OpenAi(OpenAi::default()));
    let azure = provider("azure", Dialect::AzureV1(AzureV1::default()));
    let mini =
        Arc::new(Deployment::plain("mini".into(), Arc::clone(&openai), "gpt-4.1-mini-2025-04-14".into()));
    let mut bot = Model::plain(name(route), Plan::To(Arc::clone(&mini)));
    bot.aliases = vec![name("helpdesk")];
    let any = Deployment {
        on_unpriced: OnUnpriced::Allow,
        ..Deployment::plain("any".into(), Arc::clone(&openai), "*".into())
    };
    let any = Arc::new(any);
    let pattern = Model::plain(name("*"), Plan::To(Arc::clone(&any)));
    let eu = Arc::new(Deployment::plain("eu".into(), Arc::clone(&azure), "mini-eu".into()));
    let providers = [openai, azure].map(|one| (Arc::clone(&one.name), one));
    let deployments = [mini, any, eu].map(|one| (Arc::clone(&one.name), one));
    Catalog::new(providers.into(), deployments.into(), vec![bot, pattern])
}

impl Bench {
    async fn new() -> Self {
        let database = TestDatabase::sqlite();
        let store = database.open().await;
        let (fake, live) = (Arc::<Fake>::default(), Arc::<Mutex<Catalog>>::default());
        let hosting = json!({"Standard": "1.70", "DeveloperTier": "0"});
        let period = json!({"input_per_1m_usd": "0.4", "output_per_1m_usd": "1.6", "hosting_per_hour_usd_by_sku": hosting});
        let row = json!({"provider": "azure", "model": "gpt-4.1-mini-2025-04-14.ft-*", "periods": [period]});
        let sheets = sheets(&json!({"version": "v1", "models": [row]})).expect("prices");
        let prices = Prices::open(PriceRows::new(&store), Arc::new(sheets)).await.expect("prices");
        let reports = Arc::new(Reports::new(&store, None));
        let prompts = Prompts::open(&store, reports, Vec::new(), |_| {}, 0).await.expect("prompts");
        let shown = Arc::clone(&live);
        let publish = move |catalog: Catalog| {
            let mut live = shown.lock();
            let changed = *live != catalog;
            *live = catalog;
            changed
        };
        let parts = Parts {
            store: &store,
            catalog: base("bot"),
            prompts: Arc::new(prompts),
            prices: Arc::new(prices),
            outside: Arc::<Fake>::clone(&fake),
            canary_percent: 10,
            metrics: Arc::new(Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics")),
            publish: Box::new(publish),
        };
        let registry = Registry::open(parts).await.expect("opened");
        for (name, provider) in [(V1, "openai"), (V2, "openai"), (ON_AZURE, "azure")] {
            registry.register(finished(name, provider)).await.expect("registered");
        }
        Self { registry, fake, live, clock: HostingRows::new(&store), _database: database }
    }

    fn order(&self, asked: &str) -> Vec<String> {
        let found = self.live.lock().resolve(&name(asked)).expect("it leads somewhere");
        found.route.deployments.iter().map(|one| one.name.to_string()).collect()
    }

    async fn promote(&self, model: &str, body: Value) -> Result<Moved, RegistryError> {
        self.registry.promote(model, &body).await
    }

    async fn rollback(&self) -> Result<Moved, RegistryError> {
        self.registry.rollback(&json!({"route": "bot", "note": "worse"})).await
    }
}

fn checkpoint(step: u64, model: &str) -> Checkpoint {
    Checkpoint { id: "ftckpt_1".into(), created_at: 0, step, model: model.into(), metrics: Value::Null }
}

fn finished(name: &str, provider: &str) -> Finished {
    Finished {
        name: name.into(),
        owner: Owner::Team("team_a".into()),
        provider: provider.into(),
        base: "gpt-4.1-mini".into(),
        job_id: "ftjob-1".into(),
        dataset_sha256: "ab".into(),
        system_prompt: Some("You are a cheerful cat.".into()),
        checkpoints: vec![checkpoint(40, &format!("{name}:ckpt-step-40")), checkpoint(80, name)],
        price_version: "v1".into(),
        trained_tokens: Some(300_000),
        cost: Usd::from_nanos(2_400_000_000),
        results: Some("step,train_loss\n1,0.5\n".to_owned()),
        created_at_ms: 1,
        finished_at_ms: 2,
    }
}

fn caller(team: &str, tuning: Tuning) -> Caller {
    let key = VirtualKey {
        id: "key_1".into(),
        alias: "k".into(),
        last_four: String::new(),
        created_at_ms: 0,
        revoked_at_ms: None,
        terms: Terms {
            team: Some(team.into()),
            rights: Rights { tuning, ..Rights::default() },
            ..Terms::default()
        },
    };
    Caller::Key { key: Arc::new(key), team: None }
}

#[tokio::test]
async fn a_model_goes_up_and_each_step_can_be_undone() {
    let bench = Bench::new().await;
    let before = bench.live.lock().clone();
    let route = || json!({"route": "helpdesk"});
    bench.promote(V1, route()).await.expect("a candidate");
    assert_eq!(
        (bench.order("bot"), bench.order("bot@candidate")),
        (vec!["mini".to_owned()], vec![V1.to_owned()])
    );
    let canary = bench.promote(V1, route()).await.expect("a canary");
    assert!(canary.plan.contains("10 %"), "{}", canary.plan);
    assert_eq!(bench.order("bot"), ["mini", V1]);
    bench.promote(V1, json!({"route": "bot", "percent": 30})).await.expect("a larger one");
    bench.promote(V1, route()).await.expect("production");
    assert_eq!(bench.order("bot"), [V1, "mini"]);
    let again = bench.promote(V1, route()).await.expect_err("it is there");
    assert!(matches!(again, RegistryError::NoMove(NoMove::There { .. })), "{again}");
    bench.promote(V2, json!({"route": "bot", "to": "production"})).await.expect("the next one");
    assert_eq!(bench.order("bot"), [V2, V1, "mini"]);
    let listed = bench.registry.get(V2).await.expect("listed");
    assert_eq!((listed.stage, listed.routes[0].percent), (Stage::Production, 100));

    let retired = bench.registry.retire(V2, &json!({})).await.expect("retired");
    assert_eq!((retired.stage, bench.order("bot")), (Stage::Retired, vec![V1.to_owned(), "mini".to_owned()]));
    bench.rollback().await.expect("back");
    assert_eq!(bench.order("bot"), [V2, V1, "mini"]);
    assert_eq!(
        bench.registry.get(V2).await.expect("listed").stage,
        Stage::Production,
        "it is retired no more"
    );
    for want in [vec![V1, "mini"], vec!["mini", V1], vec!["mini", V1], vec!["mini"], vec!["mini"]] {
        bench.rollback().await.expect("back");
        assert_eq!(bench.order("bot"), want);
    }
    let nothing = bench.rollback().await.expect_err("all is undone");
    assert!(matches!(nothing, RegistryError::NothingToUndo(_)), "{nothing}");
    assert_eq!(*bench.live.lock(), before);
    let moves = bench.registry.moves(Some("bot")).await.expect("history");
    assert_eq!(moves.len(), 12);
    assert_eq!((moves[0].undoes, &*moves[0].note), (Some(1), "worse"));
}

#[tokio::test]
async fn what_can_not_be_is_said_and_changes_nothing() {
    let bench = Bench::new().await;
    let before = bench.live.lock().clone();
    for (model, body, said) in [
        ("ft:nobody", json!({"route": "bot"}), "no registered model"),
        (V1, json!({"route": "nowhere"}), "is no route"),
        (V1, json!({"route": "*"}), "is no route"),
        (V1, json!({"route": V2}), "is no route"),
        (ON_AZURE, json!({"route": "bot"}), "nobody serves it"),
        (V1, json!({}), "1 thing is wrong"),
        (V1, json!({"route": 1, "to": "top", "percent": 0, "x": 1}), "4 things are wrong"),
        (V1, json!({"route": "bot", "to": "production", "percent": 5}), "1 thing is wrong"),
    ] {
        let error = bench.promote(model, body.clone()).await.expect_err("refused").to_string();
        assert!(error.contains(said), "{body}: {error}");
    }
    assert_eq!(*bench.live.lock(), before);
    assert_eq!(bench.registry.moves(None).await.expect("history"), []);
}

#[tokio::test]
async fn a_second_registration_changes_nothing_and_a_checkpoint_is_a_model_too() {
    let bench = Bench::new().await;
    let other = Finished { base: "other".into(), ..finished(V1, "openai") };
    bench.registry.register(other).await.expect("it is there");
    let listed = bench.registry.get(&format!("{V1}:ckpt-step-40")).await.expect("by its checkpoint");
    assert_eq!((&*listed.model.base, listed.model.checkpoints.len()), ("gpt-4.1-mini", 1));
    assert_eq!(bench.registry.curve(V1).await.expect("read").len(), 1);
    bench.promote(&format!("{V1}:ckpt-step-40"), json!({"route": "bot"})).await.expect("a candidate");
    assert_eq!(bench.order("bot@candidate"), [format!("{V1}:ckpt-step-40")]);
}

#[test]
fn of_many_checkpoints_the_last_are_kept() {
    // the latest first, as the table has them, and the model itself among them
    let made = (1..=20).rev().map(|step| match step {
        20 => checkpoint(20, V1),
        step => checkpoint(step, &format!("{V1}:ckpt-step-{step}")),
    });
    let model = registered(Finished { checkpoints: made.collect(), ..finished(V1, "openai") });
    let steps: Vec<u64> = model.checkpoints.iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!(steps, (4..=19).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_reload_keeps_what_was_moved() {
    let bench = Bench::new().await;
    bench.promote(V1, json!({"route": "bot", "to": "production"})).await.expect("production");
    assert!(!bench.registry.rebase(base("bot"), 10), "the same again");
    assert!(bench.registry.rebase(base("other"), 10), "the route is gone");
    assert_eq!(bench.order("other"), ["mini"]);
    assert!(bench.registry.rebase(base("bot"), 10), "and back");
    assert_eq!(bench.order("bot"), [V1, "mini"]);
}

#[tokio::test]
async fn words_are_bound_as_a_stored_prompt() {
    let bench = Bench::new().await;
    let bound = bench.registry.bind(V1, &json!({"mode": "replace"})).await.expect("bound");
    assert_eq!(bound.model.bound.map(|bound| bound.prompt.to_string()).as_deref(), Some("cat@1"));
    assert!(bench.live.lock().deployments[V1].prompt.is_some());
    let job = bench.registry.bind(V2, &json!({})).await.expect("bound");
    assert_eq!(job.model.bound.map(|bound| bound.prompt.to_string()).as_deref(), Some("ftjob-1@1"));
    bench.registry.unbind(V1).await.expect("unbound");
    assert!(bench.live.lock().deployments[V1].prompt.is_none());
    let error = bench.registry.bind(V1, &json!({"name": "a b", "mode": "x"})).await.expect_err("no name");
    assert!(matches!(&error, RegistryError::Invalid(problems) if problems.len() == 2), "{error}");
}

#[tokio::test]
async fn only_its_owner_deletes_a_model_that_nobody_asks_for() {
    let bench = Bench::new().await;
    let (owner, foreign) = (caller("team_a", Tuning::DeleteModels), caller("team_b", Tuning::DeleteModels));
    let refused = |caller: Caller, model: &'static str| {
        let registry = &bench.registry;
        async move { registry.delete(&caller, model).await.expect_err("refused") }
    };
    let weak = refused(caller("team_a", Tuning::Write), V1).await;
    assert!(matches!(weak, TuningError::Forbidden { .. }), "{weak}");
    assert!(matches!(refused(foreign.clone(), V1).await, TuningError::NotFound { .. }));
    assert!(matches!(refused(owner.clone(), "ft:nobody").await, TuningError::NotFound { .. }));
    let checkpoint = refused(owner.clone(), "ft:gpt-4.1-mini-2025-04-14:acme:cat:A1:ckpt-step-40").await;
    assert!(checkpoint.to_string().contains("is a checkpoint of"), "{checkpoint}");
    bench.promote(V1, json!({"route": "bot", "to": "canary"})).await.expect("a canary");
    let asked_for = refused(owner.clone(), V1).await.to_string();
    assert!(asked_for.contains("the route bot") && asked_for.contains("models retire"), "{asked_for}");
    assert_eq!(*bench.fake.asked.lock(), Vec::<String>::new(), "no provider has heard of it");

    bench.promote(V1, json!({"route": "bot", "to": "candidate"})).await.expect("a candidate");
    *bench.fake.refuses.lock() = true;
    assert!(matches!(refused(owner.clone(), V1).await, TuningError::Provider { .. }));
    *bench.fake.refuses.lock() = false;
    bench.registry.delete(&owner, V1).await.expect("deleted");
    assert_eq!(bench.order("bot"), ["mini"]);
    assert!(bench.registry.get(V1).await.is_err());
    assert_eq!(bench.order(V1), ["any"], "the pattern has it, as any name");
    *bench.fake.deletes_none.lock() = true;
    let kept = refused(owner.clone(), ON_AZURE).await;
    assert!(matches!(&kept, TuningError::Conflict { message, .. } if message.contains("portal")), "{kept}");
    assert!(bench.registry.get(ON_AZURE).await.is_ok(), "it is its owner's as long as it is there");
    assert!(matches!(refused(owner, V1).await, TuningError::NotFound { .. }));
    let maker = bench.registry.maker_of(&foreign, V2);
    assert!(matches!(maker, Err(TuningError::NotFound { .. })), "{maker:?}");
    let its = bench.registry.maker_of(&Caller::Operator { team: None }, V2).expect("its");
    assert_eq!(its.as_deref(), Some("openai"));
}

#[tokio::test]
async fn a_model_that_its_provider_is_deleting_gets_nowhere() {
    let bench = Bench::new().await;
    let owner = caller("team_a", Tuning::DeleteModels);
    bench.promote(V1, json!({"route": "bot", "to": "production"})).await.expect("production");
    bench.rollback().await.expect("back");
    let (held, moved) = (Arc::<Held>::default(), || json!({"route": "bot", "to": "canary"}));
    *bench.fake.held.lock() = Some(Arc::clone(&held));
    let meanwhile = async {
        held.has_come.notified().await;
        let checkpoint = format!("{V1}:ckpt-step-40");
        for name in [V1, checkpoint.as_str()] {
            let refused = bench.promote(name, moved()).await.expect_err("it goes");
            assert!(refused.to_string().contains("is being deleted"), "{refused}");
        }
        let again = bench.registry.delete(&owner, V1).await.expect_err("once");
        assert!(again.to_string().contains("is being deleted already"), "{again}");
        bench.promote(V2, moved()).await.expect("another");
        held.goes_on.notify_one();
    };
    let (deleted, ()) = tokio::join!(bench.registry.delete(&owner, V1), meanwhile);
    deleted.expect("deleted");
    assert_eq!(bench.order("bot"), ["mini", V2]);
    // one that its provider keeps may be moved again
    *bench.fake.deletes_none.lock() = true;
    bench.registry.delete(&owner, ON_AZURE).await.expect_err("it stays");
    *bench.fake.deletes_none.lock() = false;
    bench.registry.delete(&owner, ON_AZURE).await.expect("it may be tried again");
}

#[tokio::test]
async fn a_model_knows_what_those_before_it_were_trained_on() {
    let bench = Bench::new().await;
    let trained = |name: &str, base: &str, dataset: &str| Finished {
        base: base.into(),
        dataset_sha256: dataset.into(),
        ..finished(name, "openai")
    };
    // from a checkpoint, from that in turn, and from itself by name
    for one in [
        trained("ft:child", &format!("{V1}:ckpt-step-40"), "cd"),
        trained("ft:grandchild", "ft:child", "ef"),
        trained("ft:circle", "ft:circle", "gh"),
        trained("ft:orphan", "ft:deleted", "ij"),
    ] {
        bench.registry.register(one).await.expect("registered");
    }
    let known = bench.registry.read_alone().await.expect("read");
    for (model, dataset, want) in [
        ("ft:grandchild", "ef", Some("ft:grandchild")),
        ("ft:grandchild", "cd", Some("ft:child")),
        ("ft:grandchild", "ab", Some(V1)),
        ("ft:child", "ef", None),
        (V1, "cd", None),
        ("ft:circle", "ab", None),
        ("ft:orphan", "ab", None),
    ] {
        let of = find(&known, model).expect("registered");
        let found = gate::trained_on(&known, of, dataset).map(|one| &*one.name);
        assert_eq!(found, want, "{model} on {dataset}");
    }
}

#[tokio::test]
async fn a_deployment_is_asked_for_watched_used_and_taken_away() {
    let bench = Bench::new().await;
    let order = |tier: &str| json!({"name": "support-ft", "tier": tier, "capacity": 50});
    let direct = bench.registry.deploy(V1, &order("developer")).await.expect_err("not there");
    assert!(direct.to_string().contains("by its own name"), "{direct}");
    *bench.fake.refuses.lock() = true;
    let refused = bench.registry.deploy(ON_AZURE, &order("standard")).await.expect_err("no quota");
    assert!(refused.to_string().contains("no quota"), "{refused}");
    *bench.fake.refuses.lock() = false;
    assert_eq!(bench.registry.deployments().await.expect("read"), [], "nothing is left of it");
    for (there, asked) in [("Support-FT", "Support-FT"), ("other", "mini-eu"), ("other", "Mini-EU")] {
        bench.fake.stands.lock().insert(there.to_owned(), StandState::Made);
        let order = json!({"name": asked, "tier": "standard"});
        let taken = bench.registry.deploy(ON_AZURE, &order).await.expect_err("it is another's");
        assert!(taken.to_string().contains("another deployment"), "{asked}: {taken}");
    }
    assert_eq!(bench.registry.deployments().await.expect("read"), [], "no row is written");
    let asked = bench.registry.deploy(ON_AZURE, &order("standard")).await.expect("asked for");
    assert_eq!(asked.row.hosted.state, HostedState::Creating);
    assert!(
        asked.warning.contains("1.7 USD an hour") || asked.warning.contains("1.70 USD an hour"),
        "{}",
        asked.warning
    );
    let taken = bench.registry.deploy(ON_AZURE, &order("developer")).await.expect_err("its name is taken");
    assert!(taken.to_string().contains("another deployment"), "{taken}");

    let state = async || {
        bench.registry.step().await.expect("stepped");
        let rows = bench.registry.deployments().await.expect("read");
        rows.first().map(|row| row.hosted.state)
    };
    let told = async || {
        let rows = bench.clock.standing(0).await.expect("read");
        rows.into_iter().map(|row| (row.deployment, row.since_ms, row.until_ms)).collect::<Vec<_>>()
    };
    assert_eq!(state().await, Some(HostedState::Creating));
    assert_eq!(told().await, [], "it does not stand yet");
    bench.fake.stands.lock().insert("support-ft".to_owned(), StandState::Made);
    assert_eq!(state().await, Some(HostedState::Warming));
    assert_eq!(told().await, [("support-ft".to_owned(), 1_000, None)], "its hours begin when it was made");
    assert_eq!(state().await, Some(HostedState::Warming), "requests find nobody yet");
    *bench.fake.answers.lock() = true;
    assert_eq!(state().await, Some(HostedState::Ready));
    assert_eq!(bench.order(ON_AZURE), ["support-ft"]);
    let sku = bench.live.lock().deployments["support-ft"].hosted.sku.clone();
    assert_eq!(sku.as_deref(), Some("Standard"), "the hosting clock is told");

    bench.promote(ON_AZURE, json!({"route": "bot", "to": "production"})).await.expect("production");
    let in_use = bench.registry.undeploy("support-ft", &json!({})).await.expect_err("it is in use");
    assert!(in_use.to_string().contains("only deployment"), "{in_use}");
    let deployed = bench.registry.delete(&Caller::Operator { team: None }, ON_AZURE).await;
    assert!(matches!(deployed, Err(TuningError::Conflict { .. })), "{deployed:?}");
    bench.registry.undeploy("support-ft", &json!({"force": true})).await.expect("leaving");
    assert_eq!(bench.order("bot"), ["mini"], "who is leaving is asked no more");
    let left_ms = crate::clock::unix_ms();
    assert_eq!(state().await, None);
    let told = told().await;
    assert!(matches!(told[..], [(_, 1_000, Some(gone))] if gone >= left_ms), "its hours end: {told:?}");
    let nobody = bench.registry.undeploy("support-ft", &json!({})).await;
    assert!(matches!(nobody, Err(RegistryError::NoDeployment(_))), "{nobody:?}");
}

#[tokio::test]
async fn a_developer_deployment_says_its_end_and_a_failure_its_reason() {
    let bench = Bench::new().await;
    let order = json!({"name": "try-it", "tier": "developer"});
    let asked = bench.registry.deploy(ON_AZURE, &order).await.expect("asked for");
    assert!(asked.warning.contains("24 hours"), "{}", asked.warning);
    assert_eq!(asked.cost.per_hour, Some(Usd::ZERO));
    bench.fake.stands.lock().insert("try-it".to_owned(), StandState::Made);
    bench.registry.step().await.expect("stepped");
    let row = bench.registry.deployments().await.expect("read").remove(0);
    assert_eq!(row.hosted.ends_at_ms, Some(1_000 + 86_400_000), "a day from when the provider has made it");
    bench.registry.undeploy("try-it", &json!({})).await.expect("leaving");
    bench.registry.step().await.expect("stepped");

    bench.registry.deploy(ON_AZURE, &order).await.expect("again");
    let why = StandState::Failed("Azure says: Failed".to_owned());
    bench.fake.stands.lock().insert("try-it".to_owned(), why);
    bench.registry.step().await.expect("stepped");
    let row = bench.registry.deployments().await.expect("read").remove(0);
    assert_eq!(
        (row.hosted.state, row.hosted.why.as_deref()),
        (HostedState::Failed, Some("Azure says: Failed"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn as_many_rollbacks_as_moves_bring_the_catalog_back(
        steps in prop::collection::vec((0_usize..2, 0_usize..4, 1_u8..=99), 0..8)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let bench = Bench::new().await;
            let mut seen = vec![bench.live.lock().clone()];
            for (model, to, percent) in steps {
                let model = [V1, V2][model];
                let body = match to {
                    0 => json!({"route": "bot", "to": "candidate"}),
                    1 => json!({"route": "bot", "to": "canary", "percent": percent}),
                    _ => json!({"route": "bot", "to": "production"}),
                };
                let is_moved = match to {
                    3 => {
                        let moves = bench.registry.moves(None).await.expect("history").len();
                        bench.registry.retire(model, &json!({})).await.expect("retired");
                        bench.registry.moves(None).await.expect("history").len() > moves
                    }
                    _ => bench.promote(model, body).await.is_ok(),
                };
                if is_moved {
                    seen.push(bench.live.lock().clone());
                }
            }
            while let Some(now) = seen.pop() {
                assert_eq!(*bench.live.lock(), now);
                assert_eq!(bench.rollback().await.is_ok(), !seen.is_empty());
            }
        });
    }
}

#[tokio::test]
async fn a_stale_row_takes_no_newer_deployment_away() {
    let bench = Bench::new().await;
    let order = json!({"name": "try-it", "tier": "developer"});
    bench.registry.deploy(ON_AZURE, &order).await.expect("asked for");
    let left = bench.registry.undeploy("try-it", &json!({})).await.expect("leaving");
    bench.registry.step().await.expect("gone");
    tokio::time::sleep(Duration::from_millis(2)).await;
    bench.registry.deploy(ON_AZURE, &order).await.expect("a newer one");
    bench.fake.stands.lock().insert("try-it".to_owned(), StandState::Made);
    bench.registry.step().await.expect("as many changes as the old one has seen");
    let before = bench.registry.deployments().await.expect("read");
    assert_eq!(left.version, before[0].version, "only its wish tells it from the old one");
    bench.fake.asked.lock().clear();
    bench
        .registry
        .step_one(&left, crate::clock::unix_ms())
        .await
        .expect("another gateway's, with its old row");
    assert_eq!(*bench.fake.asked.lock(), Vec::<String>::new(), "nothing is deleted");
    assert_eq!(bench.registry.deployments().await.expect("read"), before);
}

#[tokio::test]
async fn a_wish_of_a_process_that_died_is_asked_again() {
    let bench = Bench::new().await;
    let hosted = Hosted {
        name: "lost".into(),
        model: ON_AZURE.into(),
        tier: crate::domain::registry::Tier::Developer,
        capacity: 1,
        state: HostedState::Wished,
        why: None,
        wished_at_ms: 0,
        ends_at_ms: None,
    };
    let row = HostedRow {
        hosted,
        provider: "azure".into(),
        registered: ON_AZURE.into(),
        changed_at_ms: 0,
        version: 1,
    };
    bench.registry.rows.write(vec![Change::Host(Box::new(row))], &[]).await.expect("written");
    bench.registry.refresh().await.expect("read");
    tokio::time::timeout(Duration::from_secs(20), bench.registry.step())
        .await
        .expect("in time")
        .expect("stepped");
    assert_eq!(*bench.fake.asked.lock(), [format!("deploy lost of {ON_AZURE} on DeveloperTier")]);
}
