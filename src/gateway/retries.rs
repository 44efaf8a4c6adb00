//! The retry budgets: each model's own, so that one with a bad day can't use up the retries of another.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::retry::RetryBudget;

/// All budgets. There are no more than entries of the catalog.
#[derive(Debug, Default)]
pub struct Retries {
    of: Mutex<HashMap<Arc<str>, RetryBudget>>,
}

impl Retries {
    /// A request of a model is sent for the first time.
    pub(super) fn request(&self, model: &Arc<str>) {
        self.with(model, RetryBudget::request);
    }

    /// Whether one more retry is left.
    pub(super) fn allows(&self, model: &Arc<str>) -> bool {
        self.with(model, |budget| budget.allows())
    }

    /// Takes a retry.
    pub(super) fn take(&self, model: &Arc<str>) -> bool {
        self.with(model, RetryBudget::take)
    }

    fn with<T>(&self, model: &Arc<str>, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut all = self.of.lock();
        match all.get_mut(model) {
            Some(budget) => act(budget),
            None => act(all.entry(Arc::clone(model)).or_default()),
        }
    }
}
