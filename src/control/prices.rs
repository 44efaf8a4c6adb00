//! Prices: the file's, with the operator's overrides over them; published whole to the data plane at each change.
//!
//! The file is read-only here. Each change of an override makes a version of its own, and none is ever rewritten: the
//! ledger names the version that it used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::audit::{self, Actor};
use super::random::NoRandom;
use crate::domain::catalog::ProviderKind;
use crate::domain::price::book::PriceBook;
use crate::domain::price::read::{Draft, Problem, RowDraft, Sheets, over};
use crate::store::StoreError;
use crate::store::prices::{PriceChangeRow, PriceRows};

/// How often another process may be faster before we give up.
const ATTEMPTS: usize = 8;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// The operator's mistakes, all of them.
    #[error("the price was not taken; nothing was changed")]
    Wrong(Vec<Problem>),
    /// The operator's mistake: only the file has it.
    #[error(
        "the price of {0} stands in the price file and is read-only here: put an override over it, or change the file \
         and reload"
    )]
    InFile(String),
    /// The operator's mistake.
    #[error("there is no price of {0}")]
    Unknown(String),
    /// The machine has no random bits for the audit log.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// Others change prices all the time.
    #[error("other processes changed the prices meanwhile: try again")]
    Contended,
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Name = (ProviderKind, Arc<str>);

/// The overrides as they stand after some change.
#[derive(Debug, Clone, Default)]
struct Overrides {
    changes: i64,
    /// All that are stored; one that this version can't read is not among the rows.
    names: BTreeSet<Name>,
    rows: BTreeMap<Name, RowDraft>,
}

/// What the book is made of.
struct Made {
    sheets: Arc<Sheets>,
    overrides: Overrides,
}

/// All prices.
pub struct Prices {
    rows: PriceRows,
    made: Mutex<Made>,
    now: Arc<ArcSwap<PriceBook>>,
    /// Held by who changes an override, so that one process makes one change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Prices {
    /// Reads the overrides and lays them over the file's prices.
    ///
    /// # Errors
    ///
    /// When the database fails, or when the file's own rows contradict each other.
    pub async fn open(rows: PriceRows, sheets: Arc<Sheets>) -> Result<Self, PricesError> {
        let book = PriceBook::new(&sheets, &[], 0).map_err(PricesError::Wrong)?;
        let made = Mutex::new(Made { sheets, overrides: Overrides::default() });
        let now = Arc::new(ArcSwap::from_pointee(book));
        let prices = Self { rows, made, now, changing: tokio::sync::Mutex::default() };
        prices.refresh().await?;
        Ok(prices)
    }

    /// The prices of this moment.
    pub fn load(&self) -> Arc<PriceBook> {
        self.now.load_full()
    }

    /// What the data plane reads.
    pub fn live(&self) -> Arc<ArcSwap<PriceBook>> {
        Arc::clone(&self.now)
    }

    /// Takes the prices of another file, all of them or none. Says whether anything changed.
    ///
    /// # Errors
    ///
    /// When its rows contradict each other.
    pub fn replace(&self, sheets: Arc<Sheets>) -> Result<bool, PricesError> {
        let mut made = self.made.lock();
        if made.sheets == sheets {
            return Ok(false);
        }
        PriceBook::new(&sheets, &[], 0).map_err(PricesError::Wrong)?;
        made.sheets = sheets;
        self.publish(&made);
        Ok(true)
    }

    /// Reads the overrides again, for changes that another process has made.
    pub async fn refresh(&self) -> Result<(), PricesError> {
        let known = self.made.lock().overrides.changes;
        let changes = self.rows.after(known).await?;
        if !changes.is_empty() {
            self.follow(&changes);
        }
        Ok(())
    }

    /// Puts a price over a model's. The new version counts when this returns.
    pub async fn set(
        &self,
        provider: ProviderKind,
        model: &str,
        body: &Value,
        now_ms: i64,
    ) -> Result<Arc<PriceBook>, PricesError> {
        over(provider, model, body).map_err(PricesError::Wrong)?;
        self.change((provider, model.into()), Some(body.to_string()), now_ms).await
    }

    /// Takes an override away; what the file says counts again.
    pub async fn remove(
        &self,
        provider: ProviderKind,
        model: &str,
        now_ms: i64,
    ) -> Result<Arc<PriceBook>, PricesError> {
        self.change((provider, model.into()), None, now_ms).await
    }

    async fn change(
        &self,
        (provider, model): Name,
        body: Option<String>,
        now_ms: i64,
    ) -> Result<Arc<PriceBook>, PricesError> {
        let _one_at_a_time = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            let change = {
                let made = self.made.lock();
                let change = PriceChangeRow {
                    change: made.overrides.changes + 1,
                    provider: provider.name().to_owned(),
                    model: model.to_string(),
                    body: body.clone(),
                    at_ms: now_ms,
                };
                made.would_take(&change)?;
                change
            };
            let action = if body.is_some() { "price.set" } else { "price.remove" };
            let subject = format!("{}/{model}", provider.name());
            let detail = json!({"change": change.change, "price": body.as_deref().map(written)});
            let audit = audit::row(Actor::Admin, action, &subject, &detail, now_ms)?;
            match self.rows.append(&change, &audit).await {
                Ok(()) => {
                    self.follow(&[change]);
                    return Ok(self.load());
                }
                // another process was faster: look at what it did, and decide again
                Err(StoreError::Taken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PricesError::Contended)
    }

    fn follow(&self, changes: &[PriceChangeRow]) {
        let mut made = self.made.lock();
        for change in changes {
            // somebody else may have read it meanwhile
            if change.change > made.overrides.changes {
                made.overrides.follow(change);
            }
        }
        self.publish(&made);
    }

    /// Puts the book together and publishes it. Should the overrides no longer fit the file's rows, they are left out
    /// and that is said: the file was checked, and it is the newer word.
    fn publish(&self, made: &Made) {
        let book = made.overrides.over(&made.sheets).or_else(|problems| {
            tracing::error!(?problems, "the overrides of prices do not fit the price file: none is used");
            PriceBook::new(&made.sheets, &[], made.overrides.changes)
        });
        if let Ok(book) = book {
            self.now.store(Arc::new(book));
        }
    }
}

impl Made {
    /// Whether a change is one: the whole book with it must be sound.
    fn would_take(&self, change: &PriceChangeRow) -> Result<(), PricesError> {
        let mut next = self.overrides.clone();
        let before = next.names.len();
        next.follow(change);
        if change.body.is_none() && next.names.len() == before {
            return Err(self.not_ours(&change.provider, &change.model));
        }
        let changed = |row: &&RowDraft| row.provider.name() == change.provider && *row.model == *change.model;
        if let (Some(draft), Some(known)) =
            (next.rows.values().find(changed), self.sheets.rows.iter().find(changed))
        {
            check_beside(known, draft)?;
        }
        next.over(&self.sheets).map(drop).map_err(PricesError::Wrong)
    }

    fn not_ours(&self, provider: &str, model: &str) -> PricesError {
        let shown = format!("{provider}/{model}");
        let in_file =
            self.sheets.rows.iter().any(|row| row.provider.name() == provider && *row.model == *model);
        if in_file { PricesError::InFile(shown) } else { PricesError::Unknown(shown) }
    }
}

/// Refuses what is far from the file's last price of the same model: most likely another unit.
fn check_beside(known: &RowDraft, draft: &RowDraft) -> Result<(), PricesError> {
    let Some(known) = known.periods.last().and_then(Draft::price) else { return Ok(()) };
    let far = draft.periods.iter().enumerate().filter_map(|(index, period)| {
        let message = period.price()?.far_from(&known)?;
        Some(Problem { path: format!("periods[{index}]"), message })
    });
    let far: Vec<Problem> = far.collect();
    if far.is_empty() { Ok(()) } else { Err(PricesError::Wrong(far)) }
}

impl Overrides {
    fn follow(&mut self, change: &PriceChangeRow) {
        self.changes = change.change;
        let Some(provider) = ProviderKind::from_name(&change.provider) else {
            tracing::error!(change = change.change, "an override of an unknown kind of provider is not used");
            return;
        };
        let name: Name = (provider, change.model.as_str().into());
        self.rows.remove(&name);
        let Some(body) = &change.body else {
            self.names.remove(&name);
            return;
        };
        self.names.insert(name.clone());
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        match over(provider, &change.model, &body) {
            Ok(draft) => drop(self.rows.insert(name, draft)),
            Err(problems) => {
                tracing::error!(model = %change.model, ?problems, "a stored price can't be read and is not used");
            }
        }
    }

    fn over(&self, sheets: &Sheets) -> Result<PriceBook, Vec<Problem>> {
        let rows: Vec<RowDraft> = self.rows.values().cloned().collect();
        PriceBook::new(sheets, &rows, self.changes)
    }
}

/// What was written, as JSON again: for the audit log.
fn written(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::price::rates::Class;
    use crate::domain::price::read::sheets;
    use crate::store::testing::TestDatabase;

    fn file(version: &str, input: &str) -> Arc<Sheets> {
        let file = json!({"version": version, "models": [{"provider": "openai", "model": "gpt-4o",
            "periods": [{"input_per_1m_usd": input, "output_per_1m_usd": "10"}]}]});
        Arc::new(sheets(&file).expect("sound"))
    }

    async fn open(database: &TestDatabase) -> Prices {
        let rows = PriceRows::new(&database.open().await);
        Prices::open(rows, file("v1", "2.50")).await.expect("read")
    }

    fn input(prices: &Prices, model: &str) -> Option<(String, String)> {
        let found = prices.load().find(ProviderKind::OpenAi, model, None, 0).ok()?;
        Some((found.price.tokens.standard().of(Class::Input).per_million(), found.version.to_string()))
    }

    fn said(input: &str, version: &str) -> Option<(String, String)> {
        Some((input.to_owned(), version.to_owned()))
    }

    #[tokio::test]
    async fn an_override_stands_over_a_reload_a_restart_and_a_removal_ends_it() {
        let database = TestDatabase::sqlite();
        let (here, there) = (open(&database).await, open(&database).await);
        assert_eq!(input(&here, "gpt-4o"), said("2.50", "v1"));
        let body = json!({"input_per_1m_usd": "2", "output_per_1m_usd": "8"});
        here.set(ProviderKind::OpenAi, "gpt-4o", &body, 1).await.expect("set");
        assert_eq!(input(&here, "gpt-4o"), said("2.00", "v1+1"));
        // pain 13: an override is not lost when the file is read again
        assert!(here.replace(file("v2", "3")).expect("replaced"));
        assert_eq!(input(&here, "gpt-4o"), said("2.00", "v2+1"));
        assert_eq!(input(&open(&database).await, "gpt-4o"), said("2.00", "v1+1"), "after a restart");

        // the other process has not seen the first change: its own becomes the second
        there.set(ProviderKind::OpenAi, "mine", &body, 2).await.expect("set");
        assert_eq!(input(&there, "gpt-4o"), said("2.00", "v1+2"));
        here.refresh().await.expect("read");
        assert_eq!(input(&here, "mine"), said("2.00", "v2+2"));

        here.remove(ProviderKind::OpenAi, "gpt-4o", 3).await.expect("removed");
        assert_eq!(input(&here, "gpt-4o"), said("3.00", "v2+3"));
        let again = here.remove(ProviderKind::OpenAi, "gpt-4o", 4).await;
        assert!(matches!(again, Err(PricesError::InFile(_))));
        let unknown = here.remove(ProviderKind::OpenAi, "nobody's", 4).await;
        assert!(matches!(unknown, Err(PricesError::Unknown(_))));
    }

    #[tokio::test]
    async fn what_is_wrong_changes_nothing() {
        let database = TestDatabase::sqlite();
        let prices = open(&database).await;
        for (body, problems) in [
            (json!([]), 1),
            (json!({"input_per_1m_usd": 2, "output_per_1m_usd": 1.5, "outptu": "1"}), 2),
            (json!({"input_per_1k_usd": "2.50", "output_per_1k_usd": "10"}), 2),
            (json!({"input_per_1m_usd": "0.0025", "output_per_1m_usd": "0.01"}), 1),
            (json!({"hosting_per_hour_usd": "1.70"}), 1),
        ] {
            let error = prices.set(ProviderKind::OpenAi, "gpt-4o", &body, 1).await.expect_err("refused");
            let PricesError::Wrong(found) = error else { panic!("{error}") };
            assert_eq!(found.len(), problems, "{body}: {found:?}");
        }
        assert_eq!(input(&prices, "gpt-4o"), said("2.50", "v1"));
    }
}
