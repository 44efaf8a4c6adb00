//! The deciding parts of a gateway without its doors and its upstreams, for tests that bring their own time and dice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::admit::Admitted;
use super::board::Board;
use super::catalog::{Live, LiveCatalog};
use super::ledger::stored::StoredJournal;
use super::ledger::{self, Ledger};
use super::means::Sources;
use super::prepare::{Asked, Beside};
use super::reserve::Money;
use super::retirements::{self, Retirements};
use crate::clock;
use crate::domain::catalog::{Catalog, Deployment, Model};
use crate::domain::endpoint::Endpoint;
use crate::domain::key::{Terms, VirtualKey};
use crate::domain::price::book::PriceBook;
use crate::domain::request::InferenceRequest;
use crate::store::ledger::LedgerPages;
use crate::store::testing::TestDatabase;
use crate::telemetry::metrics::Metrics;

/// Everything that a request's order is drawn from.
pub(super) struct Lab {
    pub(super) live: Arc<Live>,
    pub(super) board: Arc<Board>,
    pub(super) money: Money,
    retirements: Retirements,
    admitted: Admitted,
    /// The beginning of its time.
    started: Instant,
    _database: TestDatabase,
}

impl Lab {
    /// Nothing was asked yet.
    pub(super) async fn new(models: Vec<Model>, prices: PriceBook) -> Self {
        let all = models.iter().flat_map(|model| &model.route.deployments);
        let deployments = all.map(|one| (Arc::clone(&one.name), Arc::clone(one))).collect();
        let live = LiveCatalog::new(Catalog::new([].into(), deployments, models)).load();
        let started = clock::monotonic();
        let metrics = Arc::new(Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics"));
        let database = TestDatabase::sqlite();
        let store = database.open().await;
        let journal = StoredJournal::new(&store);
        let (ledger, _) = Ledger::new(journal, "lab".into(), ledger::Config::default(), Arc::new(|_| {}));
        let money = Money {
            ledger: Arc::new(ledger),
            prices: Arc::new(ArcSwap::from_pointee(prices)),
            entries: LedgerPages::new(&store),
            exceeded_status: 429,
            alert: Box::new(|_| {}),
        };
        let key = VirtualKey {
            id: "key_1".into(),
            alias: "web".into(),
            last_four: "abcd".into(),
            created_at_ms: 0,
            revoked_at_ms: None,
            terms: Terms::default(),
        };
        Self {
            board: Arc::new(Board::new(&live.catalog, metrics, started)),
            live,
            money,
            retirements: Retirements::new(retirements::Config::default()),
            admitted: Admitted { key: Arc::new(key), team: None },
            started,
            _database: database,
        }
    }

    /// Its clock, so long after the beginning.
    pub(super) fn at(&self, since: Duration) -> Instant {
        self.started + since
    }

    /// What a request's order is drawn from at that time.
    pub(super) fn sources(&self, since: Duration, random: u64) -> Sources<'_> {
        let since_ms = i64::try_from(since.as_millis()).expect("a short test");
        Sources {
            board: &self.board,
            money: &self.money,
            retirements: &self.retirements,
            now_ms: 1_800_000_000_000 + since_ms,
            now: self.at(since),
            random,
        }
    }

    /// A chat request, with other members beside its messages.
    pub(super) fn request(model: &str, content: &str, members: &str) -> InferenceRequest {
        let body =
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{content}"}}]{members}}}"#);
        InferenceRequest::parse(Endpoint::ChatCompletions, Bytes::from(body), None).expect("a request")
    }

    /// The request with its route.
    pub(super) fn asked(&self, request: InferenceRequest, headers: &[(&str, &str)]) -> Asked {
        let header = |(name, value): &(&str, &str)| ((*name).into(), (*value).to_owned());
        let route_headers = headers.iter().map(header).collect();
        let beside = Beside { route_headers, ..Beside::default() };
        let live = Arc::clone(&self.live);
        let asked = Asked::new(self.admitted.clone(), live, Arc::default(), request, beside, None);
        asked.unwrap_or_else(|refusal| panic!("{refusal}"))
    }
}

/// A deployment like another, with what a test is about.
pub(super) fn like(plain: &Arc<Deployment>, change: impl FnOnce(&mut Deployment)) -> Arc<Deployment> {
    let mut one = (**plain).clone();
    change(&mut one);
    Arc::new(one)
}
