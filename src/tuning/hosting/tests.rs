//! The clock over a real ledger: what is booked, by whom, and how often.

mod charges;
mod lists;
mod watching;

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::domain::bound::UpperBound;
use crate::domain::budget::{Action, Budget, Scope};
use crate::domain::catalog::{ArmAccount, Entra, Hosted, Pricing, Provider, Training};
use crate::domain::hosting::{Billing, DAY_MS};
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::price::{Hosting as HostingPrice, Price};
use crate::domain::usage::{TokenCounts, UsageSource};
use crate::domain::window::Window;
use crate::gateway::ledger::stored::StoredJournal;
use crate::gateway::ledger::{self, Ask, BookError, Settlement};
use crate::gateway::retirements;
use crate::store::hosting::{ChargeRow, Source, Watch};
use crate::store::ledger::{LedgerFilter, LedgerPages};
use crate::store::prices::PriceRows;
use crate::store::spend::SpendRows;
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

/// The same, at an account whose list is read.
fn listed(name: &str, hosted: Hosted) -> Deployment {
    let plain = deployment(name, hosted);
    let arm = ArmAccount {
        endpoint: "https://management.azure.com".into(),
        subscription_id: "s".into(),
        resource_group: "g".into(),
        account: "a".into(),
        api_version: "2025-09-01".into(),
        credential: Entra::TokenFile { path: "/x".into() },
        poll: Duration::from_secs(600),
    };
    let training = Some(Training { arm: Some(arm), ..Training::default() });
    Deployment { provider: Arc::new(Provider { training, ..(*plain.provider).clone() }), ..plain }
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

    /// The same, where it was watched since a moment whether `support` is used, which was made at midnight.
    async fn stand_watched(&self, idle_from_ms: i64, now_ms: i64) {
        let watch = Watch { idle_from_ms, at_ms: now_ms - 60_000 };
        self.hosting.rows.watch("support", at("00:00"), watch).await.expect("written");
        self.stand(now_ms).await;
    }

    async fn stand(&self, now_ms: i64) {
        let (asking, _) = mpsc::unbounded_channel();
        self.hosting.stand(now_ms, true, &asking).await.expect("told");
    }

    fn says(&self, deployments: Vec<Deployment>) {
        self.hosting.means.catalog.replace(catalog(deployments));
    }

    /// All stands: on what they are booked, since when, until when.
    async fn stands(&self) -> Vec<(String, i64, Option<i64>)> {
        let rows = self.hosting.rows.standing(0).await.expect("read");
        rows.into_iter().map(|row| (row.deployment, row.since_ms, row.until_ms)).collect()
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
