//! Budgets: those that the configuration declares and those that operators make, as one list for the ledger.
//!
//! Every change is written first, then read back whole and put in force; so what other processes have changed is seen,
//! too. A change is told to the operator once it is in force here; others take it over within half a minute.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::domain::budget::Budget;
use crate::store::StoreError;
use crate::store::budgets::BudgetRows;

/// All budgets.
pub type List = Vec<Arc<Budget>>;

/// Puts a list of budgets in force; the error is why that was not possible now.
pub type Enforce = Box<dyn Fn(List) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum BudgetsError {
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The budgets are kept, but what was spent of them could not be read: they are put in force as soon as it can.
    #[error("the budgets are not in force yet: {0}")]
    NotInForce(String),
}

/// Declared and stored budgets.
pub struct Budgets {
    rows: BudgetRows,
    declared: ArcSwap<Vec<Budget>>,
    known: ArcSwap<List>,
    enforce: Enforce,
    /// What is in force; held while rows and list change together.
    in_force: Mutex<Option<Arc<List>>>,
}

impl Budgets {
    /// Reads the stored budgets and puts all in force.
    ///
    /// # Errors
    ///
    /// When the database can't be read: without its budgets nothing should be served.
    pub async fn open(
        rows: BudgetRows,
        declared: Vec<Budget>,
        enforce: Enforce,
    ) -> Result<Self, BudgetsError> {
        let budgets = Self {
            rows,
            declared: ArcSwap::from_pointee(declared),
            known: ArcSwap::default(),
            enforce,
            in_force: Mutex::default(),
        };
        budgets.refresh().await?;
        for words in budgets.clashes(&budgets.declared.load()) {
            tracing::warn!("{words}");
        }
        Ok(budgets)
    }

    /// Takes over the budgets that a new configuration declares. They are in force at the next refresh.
    ///
    /// # Errors
    ///
    /// A line for each that contradicts a stored one; nothing has changed then.
    pub fn declare(&self, budgets: Vec<Budget>) -> Result<(), Vec<String>> {
        // what contradicted before is no news
        let before = self.clashes(&self.declared.load());
        let problems: Vec<String> =
            self.clashes(&budgets).into_iter().filter(|words| !before.contains(words)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        self.declared.store(Arc::new(budgets));
        Ok(())
    }

    /// Reads all again, for what another process has changed, and puts it in force.
    pub async fn refresh(&self) -> Result<(), BudgetsError> {
        let mut in_force = self.in_force.lock().await;
        self.read_and_enforce(&mut in_force).await
    }

    /// What was known last: declared budgets, then the others, each by name.
    pub fn list(&self) -> Arc<List> {
        self.known.load_full()
    }

    async fn read_and_enforce(&self, in_force: &mut Option<Arc<List>>) -> Result<(), BudgetsError> {
        let stored = self.rows.all().await?;
        let declared = self.declared.load();
        // a declared budget hides a stored one of its name
        let is_free = |budget: &Budget| declared.iter().all(|other| other.name != budget.name);
        let stored = stored.into_iter().filter(is_free);
        let all: List = declared.iter().cloned().chain(stored).map(Arc::new).collect();
        let all = Arc::new(all);
        self.known.store(Arc::clone(&all));
        if in_force.as_ref() == Some(&all) {
            return Ok(());
        }
        // cut off in here, or failed, it is done once more
        *in_force = None;
        (self.enforce)(Vec::clone(&all)).await.map_err(BudgetsError::NotInForce)?;
        *in_force = Some(all);
        Ok(())
    }

    /// What speaks against these declared budgets beside those that are stored, a line each.
    fn clashes(&self, declared: &[Budget]) -> Vec<String> {
        let known = self.known.load();
        let stored: Vec<_> = known.iter().filter(|budget| !budget.declared).collect();
        let mut lines = Vec::new();
        for budget in declared {
            for other in &stored {
                if budget.name == other.name {
                    lines.push(format!(
                        "budgets.{}: there is a stored budget of that name: delete it, or rename one",
                        budget.name
                    ));
                } else if let Some(words) = budget.against(other) {
                    lines.push(format!("budgets.{}: {words}", budget.name));
                }
            }
        }
        lines
    }
}
