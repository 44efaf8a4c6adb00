//! Puts together what money needs: the ledger and its task, the prices, the budgets.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::alerts::{self, Alerts, Teller};
use super::happenings;
use crate::clock;
use crate::config::Config;
use crate::control::budgets::{Budgets, Enforce, List};
use crate::control::prices::Prices;
use crate::control::reports::Reports;
use crate::domain::budget::Scope;
use crate::domain::budget::draft::unknown_names;
use crate::domain::budget::reach::Reach;
use crate::gateway::catalog::LiveCatalog;
use crate::gateway::ledger::Ledger;
use crate::gateway::ledger::stored::StoredJournal;
use crate::http::admin::Prove;
use crate::store::Store;
use crate::store::budgets::BudgetRows;
use crate::store::history::History;
use crate::store::prices::PriceRows;
use crate::telemetry::metrics::Metrics;

/// What has been opened.
pub(super) struct Opened {
    pub(super) ledger: Arc<Ledger>,
    /// This process, in the ledger and in leases.
    pub(super) instance: Arc<str>,
    /// Whether it could be written last.
    pub(super) written: Arc<AtomicBool>,
    pub(super) prices: Arc<Prices>,
    pub(super) budgets: Arc<Budgets>,
    /// Takes what people should hear of.
    pub(super) alerts: Alerts,
    /// Tells them; taken when the services are started.
    pub(super) teller: Mutex<Option<Teller>>,
    pub(super) reports: Arc<Reports>,
    /// Ends when the ledger is closed.
    _writer: JoinHandle<()>,
}

/// Opens all of it; the ledger's task runs on the current runtime, which is the store's.
pub(super) async fn open(
    config: &Config,
    catalog: &Arc<LiveCatalog>,
    store: &Store,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Opened> {
    let (alerts, teller) = alerts::alerts(config.webhook.clone(), metrics);
    let written = Arc::new(AtomicBool::new(true));
    let observer = happenings::observer(Arc::clone(metrics), alerts.clone(), Arc::clone(&written));
    let instance: Arc<str> = format!("gw_{:016x}", rand::random::<u64>()).into();
    let (ledger, writer) =
        Ledger::new(StoredJournal::new(store), Arc::clone(&instance), config.ledger, observer);
    #[expect(clippy::disallowed_methods, reason = "the warden closes the ledger, and so ends its task")]
    let writer = tokio::spawn(writer);
    let ledger = Arc::new(ledger);
    let prices = Prices::open(PriceRows::new(store), Arc::clone(&config.prices)).await?;
    let enforce = enforce(&ledger, History::new(store));
    let unknown = {
        let catalog = Arc::clone(catalog);
        Box::new(move |scope: &Scope| unknown_names(scope, &catalog.load().catalog))
    };
    let budgets = Budgets::open(BudgetRows::new(store), config.budgets.clone(), unknown, enforce).await?;
    Ok(Opened {
        ledger,
        instance,
        written,
        prices: Arc::new(prices),
        budgets: Arc::new(budgets),
        alerts,
        teller: Mutex::new(Some(teller)),
        reports: Arc::new(Reports::new(store, config.ledger_kept)),
        _writer: writer,
    })
}

/// Compares the budgets with the ledger, from which their counters are rebuilt.
pub(super) fn proof(ledger: &Arc<Ledger>, store: &Store) -> Prove {
    let (ledger, history) = (Arc::clone(ledger), History::new(store));
    Arc::new(move || {
        let (ledger, history) = (Arc::clone(&ledger), history.clone());
        let prove = async move {
            let budgets = ledger.budgets();
            let reach = Reach::of(budgets.iter().map(|budget| &**budget), clock::unix_ms());
            let (spent, until) = history.read(&reach).await.map_err(|error| error.to_string())?;
            ledger.prove(spent, until).await.map_err(|error| error.to_string())
        };
        prove.boxed()
    })
}

/// Puts budgets in force: what was spent in the windows of new ones is read first, the ledger adds what came later.
fn enforce(ledger: &Arc<Ledger>, history: History) -> Enforce {
    let ledger = Arc::clone(ledger);
    Box::new(move |budgets: List| {
        let (ledger, history) = (Arc::clone(&ledger), history.clone());
        let define = async move {
            let new = ledger.new_among(&budgets);
            let reach = Reach::of(new.iter().map(|budget| &**budget), clock::unix_ms());
            let (spent, until) = history.read(&reach).await.map_err(|error| error.to_string())?;
            ledger.define(budgets, spent, until).await.map_err(|error| error.to_string())
        };
        define.boxed()
    })
}
