//! Budgets: those that the configuration declares and those that operators make, as one list for the ledger.
//!
//! Every change is written first, then read back whole and put in force; so what other processes have changed is seen,
//! too. A change is told to the operator once it is in force here; others take it over within half a minute.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::audit::{self, Actor};
use super::form::{Form, Problem};
use super::random::NoRandom;
use crate::domain::budget::draft::{Draft, DraftRaise, check_name};
use crate::domain::budget::{Action, Budget, Each, Raise, Scope};
use crate::domain::ledger::Purpose;
use crate::domain::money::Usd;
use crate::store::StoreError;
use crate::store::budgets::BudgetRows;

/// All budgets.
pub type List = Vec<Arc<Budget>>;

/// Puts a list of budgets in force; the error is why that was not possible now.
pub type Enforce = Box<dyn Fn(List) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Says what a scope names that the catalog does not have: the member, and words.
pub type Unknown = Box<dyn Fn(&Scope) -> Vec<(&'static str, String)> + Send + Sync>;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum BudgetsError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// The operator's mistake.
    #[error("there is a budget with the name {0}: choose another, or change that one")]
    NameTaken(String),
    /// The operator's mistake.
    #[error("there is no budget with the name {0}")]
    Unknown(String),
    /// The operator's mistake.
    #[error("the budget {0} is declared in the configuration: change [budgets.{0}] there, then reload")]
    Declared(String),
    /// The operator's mistake.
    #[error("the budget {0} is not raised: there is nothing to end")]
    NotRaised(String),
    /// Another process was faster.
    #[error("the budget {0} was changed by somebody else at the same moment: look at it, then try again")]
    Raced(String),
    /// The machine's.
    #[error(transparent)]
    Random(#[from] NoRandom),
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
    unknown: Unknown,
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
        unknown: Unknown,
        enforce: Enforce,
    ) -> Result<Self, BudgetsError> {
        let budgets = Self {
            rows,
            declared: ArcSwap::from_pointee(declared),
            known: ArcSwap::default(),
            unknown,
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

    /// Returns a budget by its name, as it was known last.
    pub fn get(&self, name: &str) -> Result<Arc<Budget>, BudgetsError> {
        let known = self.known.load();
        let found = known.iter().find(|budget| *budget.name == *name);
        found.map(Arc::clone).ok_or_else(|| BudgetsError::Unknown(name.to_owned()))
    }

    /// Makes a budget as a body says.
    pub async fn create(&self, body: &Value, now_ms: i64) -> Result<Arc<Budget>, BudgetsError> {
        let mut change = self.change().await?;
        let budget = self.read_body(None, body)?;
        if self.get(&budget.name).is_ok() {
            return Err(BudgetsError::NameTaken(budget.name.to_string()));
        }
        let told = audit::row(Actor::Admin, "budget.create", &budget.name, &detail(&budget), now_ms)?;
        match self.rows.insert(&budget, now_ms, &told).await {
            Err(StoreError::Taken) => return Err(BudgetsError::Raced(budget.name.to_string())),
            done => done?,
        }
        self.read_and_enforce(&mut change).await?;
        self.get(&budget.name)
    }

    /// Replaces a budget as a body says: what is not in it has its default again. Only a raise stays as it is.
    pub async fn replace(&self, name: &str, body: &Value, now_ms: i64) -> Result<Arc<Budget>, BudgetsError> {
        let mut change = self.change().await?;
        let before = self.changeable(name)?;
        let budget = self.read_body(Some(&before), body)?;
        let what = json!({"before": detail(&before), "after": detail(&budget)});
        let told = audit::row(Actor::Admin, "budget.replace", name, &what, now_ms)?;
        match self.rows.replace(&budget, &told).await {
            Ok(true) => {}
            Ok(false) | Err(StoreError::Taken) => return Err(BudgetsError::Raced(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
        self.read_and_enforce(&mut change).await?;
        self.get(name)
    }

    /// Deletes a budget: from here on its money is limited by the others only.
    pub async fn delete(&self, name: &str, now_ms: i64) -> Result<Arc<Budget>, BudgetsError> {
        let mut change = self.change().await?;
        let before = self.changeable(name)?;
        let told = audit::row(Actor::Admin, "budget.delete", name, &detail(&before), now_ms)?;
        if !self.rows.delete(name, &told).await? {
            return Err(BudgetsError::Raced(name.to_owned()));
        }
        self.read_and_enforce(&mut change).await?;
        Ok(before)
    }

    /// Raises a budget for a while, as a body says; an earlier raise is replaced.
    pub async fn raise(&self, name: &str, body: &Value, now_ms: i64) -> Result<Arc<Budget>, BudgetsError> {
        let change = self.change().await?;
        let before = self.changeable(name)?;
        let raise = read_raise(&before, body, now_ms).map_err(BudgetsError::Invalid)?;
        self.set_raise(change, "budget.raise", &before, Some(raise), now_ms).await
    }

    /// Ends a raise before its time.
    pub async fn end_raise(&self, name: &str, now_ms: i64) -> Result<Arc<Budget>, BudgetsError> {
        let change = self.change().await?;
        let before = self.changeable(name)?;
        if before.raise.is_none() {
            return Err(BudgetsError::NotRaised(name.to_owned()));
        }
        self.set_raise(change, "budget.end_raise", &before, None, now_ms).await
    }

    async fn set_raise(
        &self,
        mut change: Change<'_>,
        action: &str,
        before: &Budget,
        raise: Option<Raise>,
        now_ms: i64,
    ) -> Result<Arc<Budget>, BudgetsError> {
        let after = Budget { raise, ..before.clone() };
        let what = json!({"before": detail(before), "after": detail(&after)});
        let told = audit::row(Actor::Admin, action, &before.name, &what, now_ms)?;
        if !self.rows.set_raise(&before.name, raise, &told).await? {
            return Err(BudgetsError::Raced(before.name.to_string()));
        }
        self.read_and_enforce(&mut change).await?;
        self.get(&before.name)
    }

    /// Waits until nobody else here changes anything, and sees what other processes have changed.
    async fn change(&self) -> Result<Change<'_>, BudgetsError> {
        let change = self.in_force.lock().await;
        self.read().await?;
        Ok(change)
    }

    fn changeable(&self, name: &str) -> Result<Arc<Budget>, BudgetsError> {
        let budget = self.get(name)?;
        if budget.declared { Err(BudgetsError::Declared(name.to_owned())) } else { Ok(budget) }
    }

    /// The budget that a body describes, in the place of another or a new one.
    fn read_body(&self, before: Option<&Budget>, body: &Value) -> Result<Budget, BudgetsError> {
        let form = Form::new(body);
        let name = read_name(&form, before);
        let draft = read_draft(&form);
        let unread = |path: &str| {
            let none = match path {
                "limit_usd" => draft.limit_usd.is_none(),
                "window" => draft.window.is_none(),
                _ => false,
            };
            // one complaint about a member is enough
            none && body.get(path).is_some_and(|value| !value.is_null())
        };
        let mut complain = |path: &str, what: &dyn std::fmt::Display| {
            if !unread(path) {
                form.wrong(path, what);
            }
        };
        let budget = draft.check(name, false, &mut complain);
        for (member, words) in (self.unknown)(&draft.scope) {
            form.wrong(&format!("scope.{member}"), words);
        }
        let budget = budget.map(|budget| Budget { raise: before.and_then(|before| before.raise), ..budget });
        if let Some(budget) = &budget {
            let raised = budget.raise.map_or(Usd::ZERO, |raise| raise.by);
            if let Err(words) = DraftRaise::fits(budget.limit, raised) {
                form.wrong("limit_usd", words);
            }
            let known = self.known.load();
            let others = known.iter().filter(|other| other.name != budget.name);
            for words in others.filter_map(|other| budget.against(other)) {
                form.wrong("scope", words);
            }
        }
        let budget = form.finish(budget).map_err(BudgetsError::Invalid)?;
        // without a budget there was something wrong
        budget.ok_or_else(|| BudgetsError::Invalid(Vec::new()))
    }

    /// Reads all again: what is known is what the rows and the configuration say.
    async fn read(&self) -> Result<Arc<List>, BudgetsError> {
        let stored = self.rows.all().await?;
        let declared = self.declared.load();
        // a declared budget hides a stored one of its name
        let is_free = |budget: &Budget| declared.iter().all(|other| other.name != budget.name);
        let stored = stored.into_iter().filter(is_free);
        let all: Arc<List> = Arc::new(declared.iter().cloned().chain(stored).map(Arc::new).collect());
        self.known.store(Arc::clone(&all));
        Ok(all)
    }

    async fn read_and_enforce(&self, in_force: &mut Option<Arc<List>>) -> Result<(), BudgetsError> {
        let all = self.read().await?;
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

/// The right to change: one at a time. It knows what is in force.
type Change<'b> = MutexGuard<'b, Option<Arc<List>>>;

fn read_name<'a>(form: &Form<'a>, before: Option<&'a Budget>) -> &'a str {
    let given = form.text("name").flatten();
    let Some(before) = before else {
        match given.map(check_name) {
            None => form.wrong("name", "missing: write your name for the budget"),
            Some(Err(rule)) => form.wrong("name", rule),
            Some(Ok(())) => {}
        }
        return given.unwrap_or_default();
    };
    if given.is_some_and(|given| *given != *before.name) {
        form.wrong("name", "a budget keeps its name: make another one");
    }
    &before.name
}

fn read_draft(form: &Form<'_>) -> Draft {
    let text = |name: &str| form.text(name).flatten().map(str::to_owned);
    let percents = |value: &Value| -> Result<Vec<u64>, &'static str> {
        let list = value.as_array().ok_or("not a list of numbers")?;
        list.iter().map(|level| level.as_u64().ok_or("each is a whole number of 1 to 100")).collect()
    };
    Draft {
        limit_usd: amount(form, "limit_usd"),
        window: text("window"),
        time_zone: text("time_zone"),
        scope: form.object("scope", read_scope).flatten().unwrap_or_default(),
        alert_at_percent: form.read("alert_at_percent", percents).flatten(),
        action: form.read("action", variant::<Action>).flatten().unwrap_or_default(),
        raise: None,
    }
}

fn read_scope(form: &Form<'_>) -> Scope {
    let name = |name: &str| form.text(name).flatten().map(Arc::from);
    Scope {
        team: name("team"),
        key: name("key"),
        end_user: name("end_user"),
        tag: name("tag"),
        model: name("model"),
        deployment: name("deployment"),
        provider: name("provider"),
        purpose: form.read("purpose", variant::<Purpose>).flatten(),
        each: form.read("each", variant::<Each>).flatten(),
    }
}

fn read_raise(budget: &Budget, body: &Value, now_ms: i64) -> Result<Raise, Vec<Problem>> {
    let form = Form::new(body);
    let until = form.text("until").flatten().map(str::to_owned);
    let draft = DraftRaise { by_usd: amount(&form, "by_usd"), until };
    let mut complain = |path: &str, what: &dyn std::fmt::Display| {
        let given = if path == "until" { draft.until.is_some() } else { draft.by_usd.is_some() };
        if given || body.get(path).is_none_or(Value::is_null) {
            form.wrong(path, what);
        }
    };
    let raise = draft.check("", Some(budget.limit), &mut complain);
    if raise.is_some_and(|raise| raise.until_ms <= now_ms) {
        form.wrong("until", "this moment is over: write one to come");
    }
    // without a raise there was something wrong
    form.finish(raise)?.ok_or_else(Vec::new)
}

/// An amount as it was written: a text, or the text of a number.
fn amount(form: &Form<'_>, name: &str) -> Option<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("not an amount in USD: write \"12.50\""),
    };
    form.read(name, text).flatten()
}

/// A variant by its name; what is none is told with those that there are.
fn variant<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

/// A budget as operators read it.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    name: &'a str,
    declared: bool,
    scope: &'a Scope,
    limit_usd: Usd,
    window: String,
    time_zone: Option<&'a str>,
    alert_at_percent: &'a [u8],
    action: Action,
    raise: Option<RaiseView>,
}

/// A raise as operators read it.
#[derive(Debug, Serialize)]
struct RaiseView {
    by_usd: Usd,
    until: String,
}

impl<'a> From<&'a Budget> for View<'a> {
    fn from(budget: &'a Budget) -> Self {
        let until = |ms| Timestamp::from_millisecond(ms).map(|at| at.to_string()).unwrap_or_default();
        Self {
            name: &budget.name,
            declared: budget.declared,
            scope: &budget.scope,
            limit_usd: budget.limit,
            window: budget.window.to_string(),
            time_zone: budget.window.zone_name(),
            alert_at_percent: &budget.alert_at,
            action: budget.action,
            raise: budget.raise.map(|raise| RaiseView { by_usd: raise.by, until: until(raise.until_ms) }),
        }
    }
}

/// What the audit log keeps of a budget.
fn detail(budget: &Budget) -> Value {
    json!(View::from(budget))
}

#[cfg(test)]
mod tests;
