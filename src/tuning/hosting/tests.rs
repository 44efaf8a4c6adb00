//! The clock over a real ledger: what is booked, by whom, and how often.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::domain::budget::{Action, Budget, Scope};
use crate::domain::catalog::{Hosted, Pricing, Provider};
use crate::domain::hosting::{Billing, DAY_MS};
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::price::{Hosting as HostingPrice, Price};
use crate::domain::window::Window;
use crate::gateway::ledger::stored::StoredJournal;
use crate::gateway::ledger::{self, BookError};
use crate::gateway::retirements;
use crate::store::hosting::{ChargeRow, Source};
use crate::store::ledger::{LedgerFilter, LedgerPages};
use crate::store::prices::PriceRows;
use crate::store::testing::TestDatabase;
use crate::upstream::arm::ArmState;

/// A process of a house: its clock, and what it heard.
struct House {
    store: Store,
    hosting: Hosting,
    told: Arc<Mutex<Vec<Alert>>>,
    writer: tokio::task::JoinHandle<()>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

fn usd(text: &str) -> Usd {
    Usd::parse(text).expect("an amount")
}

fn at(clock: &str) -> i64 {
    format!("2023-11-01T{clock}:00Z").parse::<jiff::Timestamp>().expect("a moment").as_millisecond()
}

fn hosted(from: &str, until: Option<&str>) -> Hosted {
    Hosted { sku: None, from_ms: Some(at(from)), until_ms: until.map(at) }
}

/// A deployment at 7 dollars an hour, and 0 in the developer tier.
fn deployment(name: &str, hosted: Hosted) -> Deployment {
    let plain = crate::domain::catalog::tests::deployment(name, &format!("{name}-up"));
    let mut price = Price::free("a test");
    price.terms.hosting = Some(HostingPrice {
        any: Some(usd("7")),
        by_sku: BTreeMap::from([("DeveloperTier".into(), Usd::ZERO)]),
        billing: Some(Billing::StartedHours),
    });
    let pricing = Pricing::Explicit { price: Arc::new(price), version: "v1".into() };
    let provider = Arc::new(Provider { name: "azure".into(), ..(*plain.provider).clone() });
    Deployment { hosted, pricing, provider, ..(*plain).clone() }
}

fn catalog(deployments: Vec<Deployment>) -> Catalog {
    let all = deployments.into_iter().map(|one| (Arc::clone(&one.name), Arc::new(one)));
    let all: BTreeMap<_, _> = all.collect();
    let providers = all.values().map(|one| (Arc::clone(&one.provider.name), Arc::clone(&one.provider)));
    Catalog::new(providers.collect(), all.clone(), Vec::new())
}

impl House {
    async fn with(database: &TestDatabase, process: &str, deployments: Vec<Deployment>) -> Self {
        let store = database.open().await;
        let (ledger, writer) = Ledger::new(
            StoredJournal::new(&store),
            process.into(),
            ledger::Config::default(),
            Arc::new(|_| {}),
        );
        #[expect(clippy::disallowed_methods, reason = "it ends with the house")]
        let writer = tokio::spawn(writer);
        let told: Arc<Mutex<Vec<Alert>>> = Arc::default();
        let heard = Arc::clone(&told);
        let means = Means {
            catalog: Arc::new(LiveCatalog::new(catalog(deployments))),
            prices: Arc::new(Prices::open(PriceRows::new(&store), Arc::default()).await.expect("prices")),
            ledger: Arc::new(ledger),
            retirements: Arc::new(Retirements::new(retirements::Config::default())),
            tell: Arc::new(move |alert| heard.lock().push(alert)),
            metrics: Arc::new(Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics")),
        };
        let hosting = Hosting::new(Config::default(), means, &store, process.into());
        hosting.lease.keep(clock::monotonic()).await.expect("asked");
        Self { store, hosting, told, writer }
    }

    async fn look(&self, clock: &str) {
        self.hosting.look(at(clock)).await.expect("looked");
    }

    async fn list(&self, clock: &str, found: &[ArmDeployment]) {
        self.hosting.follow_list(&"azure".into(), found, at(clock)).await.expect("followed");
        self.look(clock).await;
    }

    async fn stand(&self, now_ms: i64) {
        self.hosting.stand(now_ms, true, &mut Asking::new()).await.expect("told");
    }

    /// What was booked, in order.
    async fn entries(&self) -> Vec<Entry> {
        let all = LedgerPages::new(&self.store).page(&LedgerFilter::default(), 500).await.expect("read");
        all.into_iter().rev().collect()
    }

    async fn booked(&self) -> Usd {
        self.entries().await.iter().map(Entry::spends).sum()
    }
}

fn found(name: &str, created: Option<&str>, sku: &str, state: ArmState) -> ArmDeployment {
    ArmDeployment {
        name: name.into(),
        model: "gpt-35-turbo-0613.ft-0a1b".into(),
        version: Some("1".into()),
        sku: Some(sku.into()),
        capacity: Some(50),
        state,
        created_at_ms: created.map(at),
        operation: None,
        raw: json!({}),
    }
}

#[tokio::test]
async fn what_the_configuration_says_is_charged_hour_by_hour() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:50", None))]).await;
    for (clock, want) in [("10:50", "0"), ("10:51", "7"), ("11:50", "7"), ("11:51", "14"), ("13:10", "21")] {
        house.look(clock).await;
        house.look(clock).await;
        assert_eq!(house.booked().await, usd(want), "at {clock}");
    }
    let entries = house.entries().await;
    assert_eq!(entries.len(), 3);
    let first = &entries[0];
    assert_eq!((first.kind, first.at_ms, &*first.price), (EntryKind::Hosting, at("10:50"), "v1"));
    assert_eq!(*first.request_id, *format!("hosting:support:{}:{}", at("10:50"), at("10:50")));
    let on = &first.attribution;
    assert_eq!((&*on.deployment, &*on.provider, on.purpose), ("support", "azure", Purpose::Hosting));
    let report = house.hosting.report(at("13:10")).await.expect("a report");
    assert_eq!((report[0].charged_usd, report[0].usd_per_hour), (usd("21"), Some(usd("7"))));
    assert_eq!(report[0].ends_at_ms, None);
    let leaves = catalog(vec![deployment("support", hosted("10:50", Some("20:00")))]);
    house.hosting.means.catalog.replace(leaves);
    house.look("13:11").await;
    let report = house.hosting.report(at("13:11")).await.expect("a report");
    assert_eq!((report[0].until_ms, report[0].ends_at_ms), (None, Some(at("20:00"))));
}

#[tokio::test]
async fn behind_a_pause_nothing_is_lost_and_nothing_comes_twice() {
    let database = TestDatabase::sqlite();
    let deployments = || vec![deployment("support", hosted("00:30", Some("20:00")))];
    let first = House::with(&database, "a", deployments()).await;
    first.look("02:00").await;
    first.hosting.lease.free().await;
    drop(first);
    let second = House::with(&database, "b", deployments()).await;
    second.look("23:00").await;
    // 19 h 30 min
    assert_eq!((second.booked().await, second.entries().await.len()), (usd("140"), 20));
    second.look("23:30").await;
    assert_eq!(second.entries().await.len(), 20);
}

/// The period that begins when `support` stands, as a process that was cut off has left it.
fn cut_off() -> ChargeRow {
    let rate = Rate { per_hour: usd("7"), billing: Billing::StartedHours };
    let (since_ms, until_ms) = (at("10:50"), at("11:50"));
    ChargeRow {
        deployment: "support".to_owned(),
        charge: crate::domain::hosting::Charge {
            since_ms,
            from_ms: since_ms,
            until_ms,
            rate,
            cost: usd("7"),
        },
        price: "v1".to_owned(),
        provider: "azure".to_owned(),
        team: String::new(),
        seq: 0,
    }
}

fn entry_of_it() -> Entry {
    let on = Arc::new(attribution("support", "azure", None));
    let id = format!("hosting:support:{}:{}", at("10:50"), at("10:50"));
    Entry { cost: usd("7"), ..Entry::drafted(EntryKind::Hosting, at("10:50"), id.into(), on) }
}

#[tokio::test]
async fn wherever_a_process_was_cut_off_the_next_one_goes_on() {
    for is_booked in [false, true] {
        let database = TestDatabase::sqlite();
        let deployments = || vec![deployment("support", hosted("10:50", None))];
        let dead = House::with(&database, "a", deployments()).await;
        assert!(dead.hosting.rows.intend(&cut_off()).await.expect("written"));
        if is_booked {
            dead.hosting.means.ledger.book(entry_of_it()).await.expect("booked");
        }
        dead.hosting.lease.free().await;
        drop(dead);
        let next = House::with(&database, "b", deployments()).await;
        next.look("11:00").await;
        next.look("11:01").await;
        assert_eq!(next.booked().await, usd("7"), "booked before: {is_booked}");
        assert!(next.hosting.rows.unbooked().await.expect("read").is_empty());
    }
}

#[tokio::test]
async fn two_who_both_take_the_clock_for_theirs_book_once() {
    let database = TestDatabase::sqlite();
    let deployments = || vec![deployment("support", hosted("10:50", None))];
    let first = House::with(&database, "a", deployments()).await;
    let second = House::with(&database, "b", deployments()).await;
    // what was written before it first read, it looks up
    second.hosting.means.ledger.define(Vec::new(), Vec::new(), 0).await.expect("read");
    first.look("11:00").await;
    let twice = second.hosting.means.ledger.book(entry_of_it()).await;
    assert!(matches!(twice, Err(BookError::Charged(_))), "{twice:?}");
    second.look("12:00").await;
    assert_eq!(second.booked().await, usd("7"), "it does not have the lease");
}

#[tokio::test]
async fn the_list_starts_and_stops_the_clock() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", Hosted::default())]).await;
    let stands = || found("support-up", Some("10:50"), "Standard", ArmState::Stands);
    let coming = found("support-up", Some("10:50"), "Standard", ArmState::Coming);
    let base = ArmDeployment {
        model: "gpt-35-turbo".into(),
        ..found("base", Some("01:00"), "Standard", ArmState::Stands)
    };
    house.list("10:52", &[coming, base]).await;
    assert_eq!(house.booked().await, Usd::ZERO, "it does not stand yet");
    house.list("11:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("7"), "since it was made");
    house.look("12:30").await;
    assert_eq!(house.booked().await, usd("7"), "nobody has seen it since");
    house.list("13:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("21"));
    let going = found("support-up", Some("10:50"), "Standard", ArmState::Going);
    house.list("13:05", &[going]).await;
    house.list("13:10", &[]).await;
    assert_eq!(house.booked().await, usd("21"));
    let report = house.hosting.report(at("13:11")).await.expect("a report");
    assert_eq!((report[0].until_ms, report[0].source), (Some(at("13:10")), "arm"));
    // it was there all the time: one reading lacked it
    house.list("15:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("35"), "10:50 to 15:00");
    house.list("15:10", &[]).await;
    // made anew under the same name
    house.list("16:10", &[found("support-up", Some("16:00"), "Standard", ArmState::Stands)]).await;
    assert_eq!(house.booked().await, usd("42"));
}

#[tokio::test]
async fn what_was_charged_beyond_the_end_is_given_back_and_taken_again() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
    house.look("15:30").await;
    assert_eq!(house.booked().await, usd("42"));
    let says = |hosted| house.hosting.means.catalog.replace(catalog(vec![deployment("support", hosted)]));
    says(hosted("10:00", Some("12:30")));
    house.look("15:31").await;
    house.look("15:32").await;
    assert_eq!(house.booked().await, usd("21"));
    let corrections: Vec<Entry> =
        house.entries().await.into_iter().filter(|entry| entry.kind == EntryKind::Adjustment).collect();
    assert_eq!(corrections.len(), 3, "an adjustment a period, none of the periods is touched");
    assert!(corrections.iter().all(|entry| entry.cost == -usd("7") && entry.of > 0), "{corrections:?}");
    says(hosted("10:00", None));
    house.look("15:33").await;
    assert_eq!(house.booked().await, usd("42"), "it stood after all");
    says(Hosted::default());
    house.look("15:40").await;
    house.look("20:00").await;
    assert_eq!(house.booked().await, usd("42"), "nobody says any more that it stands");
}

#[tokio::test]
async fn a_correction_that_was_cut_off_is_not_booked_twice() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
    house.look("10:30").await;
    let entries = house.entries().await;
    let correction = Entry {
        of: entries[0].seq,
        cost: -usd("7"),
        ..Entry::drafted(
            EntryKind::Adjustment,
            at("10:00"),
            Arc::clone(&entries[0].request_id),
            Arc::clone(&entries[0].attribution),
        )
    };
    house.hosting.means.ledger.book(correction).await.expect("booked");
    let row = house.hosting.rows.standing(0).await.expect("read").remove(0);
    house.hosting.end(row, at("10:00")).await.expect("ended");
    assert_eq!(house.booked().await, Usd::ZERO);
    assert_eq!(house.entries().await.len(), 2);
}

#[tokio::test]
async fn a_developer_deployment_costs_nothing_and_ends_after_a_day() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", Hosted::default())]).await;
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
    assert_eq!(house.hosting.means.retirements.of(known, "support-up"), None);
}

#[tokio::test]
async fn what_nobody_uses_and_what_the_budget_lacks_is_said_once_a_day() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", Hosted::default())]).await;
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
        house.stand(at("00:00") + later * 3_600_000).await;
    }
    let told: Vec<_> = house.told.lock().drain(..).collect();
    let [Alert::HostedIdle(idle)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*idle.deployment, idle.idle_hours, idle.deleted_at_ms), ("support", 72, None));
    house.stand(at("00:00") + 12 * DAY_MS).await;
    let told: Vec<_> = house.told.lock().drain(..).collect();
    let [Alert::HostedIdle(idle)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(idle.deleted_at_ms, Some(at("00:00") + 15 * DAY_MS));
    let report = house.hosting.report(at("00:00") + 12 * DAY_MS).await.expect("a report");
    assert!(report[0].idle && report[0].idle_since_ms == Some(at("00:00")));

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
