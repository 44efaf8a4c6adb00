//! Puts together what money needs: the ledger and its task, the prices, the budgets.

use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use super::happenings;
use crate::config::Config;
use crate::control::budgets::{Budgets, Enforce, List};
use crate::control::prices::Prices;
use crate::control::reports::Reports;
use crate::gateway::ledger::stored::StoredJournal;
use crate::gateway::ledger::{Happened, Ledger};
use crate::store::Store;
use crate::store::budgets::BudgetRows;
use crate::store::prices::PriceRows;
use crate::telemetry::metrics::Metrics;

/// What has been opened.
pub(super) struct Opened {
    pub(super) ledger: Arc<Ledger>,
    pub(super) prices: Arc<Prices>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) reports: Arc<Reports>,
    /// Taken by whoever tells people.
    pub(super) alerts: Mutex<Option<Receiver<Happened>>>,
    /// Ends when the ledger is closed.
    _writer: JoinHandle<()>,
}

/// Opens all of it; the ledger's task runs on the current runtime, which is the store's.
pub(super) async fn open(config: &Config, store: &Store, metrics: &Arc<Metrics>) -> anyhow::Result<Opened> {
    let (observer, alerts) = happenings::observer(Arc::clone(metrics));
    let instance = format!("gw_{:016x}", rand::random::<u64>());
    let (ledger, writer) = Ledger::new(StoredJournal::new(store), instance.into(), config.ledger, observer);
    #[expect(clippy::disallowed_methods, reason = "the warden closes the ledger, and so ends its task")]
    let writer = tokio::spawn(writer);
    let ledger = Arc::new(ledger);
    let prices = Prices::open(PriceRows::new(store), Arc::clone(&config.prices)).await?;
    let enforce = enforce(&ledger);
    let budgets = Budgets::open(BudgetRows::new(store), config.budgets.clone(), enforce).await?;
    Ok(Opened {
        ledger,
        prices: Arc::new(prices),
        budgets: Arc::new(budgets),
        reports: Arc::new(Reports::new(store, config.ledger_kept)),
        alerts: Mutex::new(Some(alerts)),
        _writer: writer,
    })
}

fn enforce(ledger: &Arc<Ledger>) -> Enforce {
    let ledger = Arc::clone(ledger);
    Box::new(move |budgets: List| {
        let ledger = Arc::clone(&ledger);
        let define =
            async move { ledger.define(budgets, Vec::new(), 0).await.map_err(|error| error.to_string()) };
        define.boxed()
    })
}
