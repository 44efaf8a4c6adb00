//! Ends of kinds, idle deployments, and what is said of them.

use super::*;

#[tokio::test]
async fn a_developer_deployment_costs_nothing_and_ends_after_a_day() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    let developer = found("support-up", Some("10:00"), "developertier", ArmState::Stands);
    house.list("18:00", &[developer]).await;
    house.stand(at("18:00")).await;
    assert_eq!(house.booked().await, Usd::ZERO);
    let live = house.hosting.means.catalog.load();
    let known = &live.catalog.deployments["support"];
    let end = house.hosting.means.retirements.of(known, "support-up").expect("an end");
    assert_eq!(end.at_ms, at("10:00") + DAY_MS);
    assert!(house.told.lock().is_empty(), "nothing is warned of: it is free");
    house.list("19:00", &[]).await;
    house.stand(at("19:00")).await;
    assert_eq!(house.hosting.means.retirements.of(known, "support-up"), None, "somebody took it away");
    let anew = found("support-up", Some("20:00"), "DeveloperTier", ArmState::Stands);
    house.list("20:10", &[anew]).await;
    let late = at("20:10") + DAY_MS;
    house.hosting.follow_list(&"azure".into(), &[], late).await.expect("followed");
    house.stand(late).await;
    let end = house.hosting.means.retirements.of(known, "support-up").expect("nobody is there any more");
    assert_eq!(end.at_ms, at("20:00") + DAY_MS);
}

#[tokio::test]
async fn the_end_of_a_kind_is_that_of_what_the_catalog_names_now() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("trial", Hosted::default())]).await;
    let developer = |name: &str| found(name, Some("10:00"), "DeveloperTier", ArmState::Stands);
    house.list("10:10", &[developer("trial-up"), developer("portal")]).await;
    let names = || {
        let named = |name: &str, up: &str| Deployment {
            upstream_model: up.into(),
            ..listed(name, Hosted::default())
        };
        // one is called otherwise, one is new in the catalog, and a known name leads elsewhere
        vec![named("renamed", "trial-up"), named("later", "PORTAL"), named("trial", "other")]
    };
    house.says(names());
    let end = async |name: &str, now_ms: i64| {
        house.stand(now_ms).await;
        let live = house.hosting.means.catalog.load();
        let known = &live.catalog.deployments[name];
        house.hosting.means.retirements.of(known, &known.upstream_model).map(|end| end.at_ms)
    };
    let late = at("10:30") + DAY_MS;
    for now_ms in [at("10:11"), late] {
        if now_ms == late {
            house.hosting.follow_list(&"azure".into(), &[], late).await.expect("followed");
        }
        for (name, want) in [("renamed", true), ("later", true), ("trial", false)] {
            let want = want.then(|| at("10:00") + DAY_MS);
            assert_eq!(end(name, now_ms).await, want, "{name} at {now_ms}");
        }
    }
}

#[tokio::test]
async fn only_what_was_watched_is_idle() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", Vec::new()).await;
    let stands = || [found("support-up", Some("00:00"), "Standard", ArmState::Stands)];
    let late = |hours: i64, minutes: i64| at("00:00") + (hours * 60 + minutes) * 60_000;
    house.hosting.follow_list(&"azure".into(), &stands(), late(80, 0)).await.expect("followed");
    house.stand(late(80, 0)).await;
    // the same deployment twice in the catalog, days behind its making
    let other = Deployment { upstream_model: "Support-UP".into(), ..listed("another", Hosted::default()) };
    house.says(vec![other, listed("support", Hosted::default())]);
    let idle_since = async |now_ms: i64| {
        let report = house.hosting.report(now_ms).await.expect("a report");
        assert!(!report[0].idle, "at {now_ms}");
        report[0].idle_since_ms
    };
    assert_eq!(idle_since(late(90, 0)).await, Some(late(90, 0)), "nobody has watched yet");
    for minutes in [0, 4, 8] {
        house.stand(late(90, minutes)).await;
        assert_eq!(idle_since(late(90, minutes)).await, Some(late(90, 0)));
    }
    // no gateway for a hundred hours
    house.stand(late(190, 8)).await;
    assert_eq!(idle_since(late(190, 10)).await, Some(late(190, 0)), "eight minutes were watched");
    assert!(house.told.lock().is_empty());
}

#[tokio::test]
async fn each_name_of_a_deployment_counts_as_its_use() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", Vec::new()).await;
    let other = Deployment { upstream_model: "Support-UP".into(), ..listed("zeta", Hosted::default()) };
    house.says(vec![listed("support", Hosted::default()), other]);
    let now_ms = clock::unix_ms();
    let since_ms = now_ms - 200 * 3_600_000;
    let made = found("support-up", None, "Standard", ArmState::Stands);
    let made = ArmDeployment { created_at_ms: Some(since_ms), ..made };
    house.hosting.follow_list(&"azure".into(), &[made], now_ms).await.expect("followed");
    let watch = Watch { idle_from_ms: since_ms, at_ms: now_ms };
    house.hosting.rows.watch("support", since_ms, watch).await.expect("written");
    assert!(house.hosting.report(now_ms).await.expect("a report")[0].idle, "nobody has asked it");

    let on = attribution("zeta", "azure", None);
    let on = Attribution { purpose: Purpose::Inference, ..on };
    let ask = Ask {
        request_id: "req".into(),
        attribution: Arc::new(on),
        bound: UpperBound::fixed(Usd::ZERO),
        tokens: TokenCounts::default(),
        price: "v1".into(),
    };
    let ledger = &house.hosting.means.ledger;
    let held = ledger.hold(ask).await.expect("held");
    let used = Settlement::new(TokenCounts::default(), UsageSource::Reported, usd("0.01"));
    held.settle(used);
    ledger.close().await;
    SpendRows::new(&house.store).fold_next(100).await.expect("added up");
    let report = house.hosting.report(clock::unix_ms()).await.expect("a report");
    assert!(!report[0].idle, "asked under its other name");
}

#[tokio::test]
async fn what_nobody_uses_and_what_the_budget_lacks_is_said_once_a_day() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    let budget = Budget {
        name: "all".into(),
        scope: Scope::default(),
        limit: usd("400"),
        window: Window::Total,
        alert_at: Vec::new(),
        action: Action::Refuse,
        raise: None,
        declared: false,
    };
    house.hosting.means.ledger.define(vec![Arc::new(budget)], Vec::new(), 0).await.expect("defined");
    let stands = found("support-up", Some("00:00"), "Standard", ArmState::Stands);
    house.list("10:00", &[stands]).await;
    house.stand(at("10:00")).await;
    assert!(house.told.lock().is_empty(), "enough is left for a day, and it is new");
    for later in [71, 72, 73] {
        house.stand_watched(at("10:00"), at("10:00") + later * 3_600_000).await;
    }
    let told: Vec<_> = house.told.lock().drain(..).collect();
    let [Alert::HostedIdle(idle)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*idle.deployment, idle.idle_hours, idle.deleted_at_ms), ("support", 72, None));
    house.stand_watched(at("10:00"), at("00:00") + 12 * DAY_MS).await;
    let told: Vec<_> = house.told.lock().drain(..).collect();
    let [Alert::HostedIdle(idle)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(idle.deleted_at_ms, Some(at("00:00") + 15 * DAY_MS));
    let report = house.hosting.report(at("00:00") + 12 * DAY_MS).await.expect("a report");
    assert!(report[0].idle && report[0].idle_since_ms == Some(at("10:00")));

    let seen = |hours: i64| HostedRow {
        deployment: "support".to_owned(),
        since_ms: at("00:00"),
        provider: "azure".to_owned(),
        upstream: "support-up".to_owned(),
        model: "gpt-35-turbo-0613.ft-0a1b".to_owned(),
        sku: "Standard".to_owned(),
        source: Source::Arm,
        seen_ms: at("00:00") + hours * 3_600_000,
        until_ms: None,
    };
    house.hosting.rows.put(&seen(40)).await.expect("written");
    house.hosting.look(at("00:00") + 40 * 3_600_000).await.expect("looked");
    assert_eq!(house.booked().await, usd("280"), "charged, whatever the budget says");
    house.stand(at("00:00") + 40 * 3_600_000).await;
    let told: Vec<_> = house.told.lock().drain(..).collect();
    let [Alert::HostingBudget(lacks)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((lacks.left, lacks.per_day), (usd("120"), usd("168")));
}
