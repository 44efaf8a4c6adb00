//! Holds and settlements: the one door to the ledger for everything that costs money.
//!
//! A request asks for a hold; one writer decides on all budgets at once and writes the hold into the journal, together
//! with whatever else came in meanwhile. Only what is durable is granted. What ends a hold is written the same way, after the
//! answer is out. A [`Reservation`] ends exactly once: settled, released, or by being dropped.

mod desk;
mod drafts;
pub mod journal;
mod liveness;
pub mod stored;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use self::desk::{Backlog, Define, Desk, End, Ended, Proof, Wanted};
use self::journal::Journal;
use self::writer::{Writer, work};
use crate::clock;
use crate::domain::bound::UpperBound;
use crate::domain::budget::watch::{Look, Watched};
use crate::domain::budget::{Books, Budget, Crossing, Drift, Exceeded, Grant, Overview, Spent, Standing};
use crate::domain::ledger::{Attribution, Entry, Seq};
use crate::domain::money::Usd;
use crate::domain::prompt::Injected;
use crate::domain::usage::{TokenCounts, UsageSource};
use crate::telemetry::metrics::{LedgerStands, Metrics};

/// Holds that may wait to be decided; beyond, requests are refused.
const QUEUE: usize = 16_384;
/// How long what ends a hold waits for others to be written with.
const LINGER: Duration = Duration::from_millis(5);
/// How often others' entries are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a request waits for its hold to be durable; longer than the database's own limits.
const HOLD_LIMIT: Duration = Duration::from_secs(12);
/// Bookings without a hold that may wait to be written while the database is away. They carry no money that a budget
/// has not seen; beyond, they are dropped and counted.
const LOOSE: usize = 65_536;
/// Counters of budgets that are watched in one go: requests wait for the books meanwhile, for a tenth of a millisecond.
const WATCHED: usize = 500;

/// What the ledger needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long another process may be silent before its holds are settled for it.
    pub lease: Duration,
    /// How long a hold may wait for the holds of other requests to end.
    pub hold_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), hold_wait: Duration::ZERO }
    }
}

/// What a hold is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The request's id.
    pub request_id: Arc<str>,
    /// Whom and what it is booked on.
    pub attribution: Arc<Attribution>,
    /// The most it can cost.
    pub bound: UpperBound,
    /// The most tokens it can use.
    pub tokens: TokenCounts,
    /// The version of the price.
    pub price: Arc<str>,
}

/// A hold that no process owns: a fine-tuning job's, which lasts for days, and whose row says what becomes of it. It is
/// open until [`Ledger::end_standing`] ends it, however many processes come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingHold {
    /// Its entry in the ledger.
    pub seq: Seq,
    /// What is held.
    pub held: Usd,
}

/// What a request used, and what that cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Its tokens.
    pub tokens: TokenCounts,
    /// How they are known.
    pub source: UsageSource,
    /// Their cost.
    pub cost: Usd,
    /// What others paid of it, or an answer that was shared would have cost.
    pub saved: Usd,
    /// What a stored prompt was of it.
    pub injected: Option<Arc<Injected>>,
    /// What was not seen costs something: somebody may know better, as the provider's console.
    pub open: bool,
}

impl Settlement {
    /// Of a request that paid all its cost itself.
    pub const fn new(tokens: TokenCounts, source: UsageSource, cost: Usd) -> Self {
        Self { tokens, source, cost, saved: Usd::ZERO, injected: None, open: false }
    }
}

/// Why nothing is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// A budget has not enough.
    #[error("budget `{}` has not enough left", .0.budget)]
    Exceeded(Box<Exceeded>),
    /// The database can't be written, so nothing may be spent.
    #[error("the ledger can't be written: {0}")]
    Unavailable(String),
}

/// Why an entry is not booked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Somebody else has corrected the same entry first.
    #[error("entry {0} has been corrected meanwhile: look at it again")]
    Corrected(Seq),
    /// The hold that it ends has ended before.
    #[error("the hold {0} has ended already")]
    Ended(Seq),
    /// A deployment's period, or a job, was charged before.
    #[error("{0} has been charged already")]
    Charged(Arc<str>),
    /// It can't be written.
    #[error(transparent)]
    Unwritten(#[from] HoldError),
}

/// What happened that somebody may want to know.
#[derive(Debug, Clone)]
pub enum Happened {
    /// These entries were written, in one go that took so long; how long is not known where its answer was lost.
    Wrote(Vec<Arc<Entry>>, Option<Duration>),
    /// Another process had written first; the decision was made again.
    Conflict,
    /// Nothing could be written.
    Failed(String),
    /// It can be written again.
    Recovered,
    /// An entry is durable that spends or saves money.
    Booked(Arc<Entry>),
    /// A provider billed beyond what was held.
    Overshot(Arc<Entry>),
    /// A threshold of a budget is reached.
    Crossed(Box<Crossing>),
    /// Another process is gone; so many of its holds were charged whole.
    Orphans(usize),
    /// A booking without money was dropped: the database has been away for too long.
    Dropped,
}

/// Told what happens, by whoever writes: must not wait.
pub type Observer = Arc<dyn Fn(Happened) + Send + Sync>;

/// The ledger, for the request's side.
pub struct Ledger {
    shared: Arc<Shared>,
    books: Arc<Mutex<Books>>,
    hold_wait: Duration,
}

/// What requests, reservations and the ticker share.
struct Shared {
    desk: Mutex<Desk<Box<Writer>>>,
    /// Woken when there will be something to do later.
    ticker: Notify,
    /// Bookings without a hold that are not written yet.
    loose: AtomicUsize,
    observer: Observer,
}

/// Where what ends a hold is handed in: it can be done from a `drop`.
#[derive(Clone)]
struct Ends(Arc<Shared>);

impl Ends {
    fn push(&self, end: End) {
        let ended = Ended { end, since: clock::monotonic() };
        let first = {
            let mut desk = self.0.desk.lock();
            desk.ends.push_back(ended);
            !std::mem::replace(&mut desk.lingers, true)
        };
        // the first waits for company, the others go with it
        if first {
            self.0.ticker.notify_one();
        }
    }
}

impl Ledger {
    /// The ledger over a journal, and the task that does what nobody waits for: whoever runs it owns it.
    pub fn new<J: Journal>(
        journal: J,
        instance: Arc<str>,
        config: Config,
        observer: Observer,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            ticker: Notify::new(),
            loose: AtomicUsize::new(0),
            observer: Arc::clone(&observer),
        });
        let books = Arc::<Mutex<Books>>::default();
        let ends = Ends(Arc::clone(&shared));
        let writer = Writer::new(Box::new(journal), instance, config, observer, Arc::clone(&books), ends);
        shared.desk.lock().writer = Some(Box::new(writer));
        let ledger = Self { shared: Arc::clone(&shared), books, hold_wait: config.hold_wait };
        (ledger, tick(shared, config.lease))
    }

    /// Holds the most that a request can cost. When this returns, the hold is durable.
    ///
    /// # Errors
    ///
    /// When a budget has not enough, or nothing can be written.
    pub async fn hold(&self, ask: Ask) -> Result<Reservation, HoldError> {
        self.hold_instead(ask, None).await
    }

    /// Holds another amount instead of a standing hold's: the old one is released and the new one laid in one append, or
    /// nothing is changed. What the old one held counts as free for the new one.
    ///
    /// # Errors
    ///
    /// When a budget has not enough, or nothing can be written: then the old one stands as it stood.
    pub async fn rehold(&self, ask: Ask, instead_of: Seq) -> Result<Reservation, HoldError> {
        self.hold_instead(ask, Some(instead_of)).await
    }

    async fn hold_instead(&self, ask: Ask, instead_of: Option<Seq>) -> Result<Reservation, HoldError> {
        let (reply, answer) = oneshot::channel();
        let since = clock::monotonic();
        let wanted = Wanted { ask, instead_of, since, wait: self.hold_wait, until: None, reply };
        self.put(|desk| match desk.holds.len() < QUEUE {
            true => {
                desk.holds.push_back(Box::new(wanted));
                Ok(())
            }
            false => Err(HoldError::Unavailable("too many wait for it".to_owned())),
        })?;
        let late = |_| Err(HoldError::Unavailable("it took too long".to_owned()));
        timeout(HOLD_LIMIT, answer).await.map_or_else(late, |answer| answer.unwrap_or_else(|_| Err(ending())))
    }

    /// The standing holds of a job, as the books have them: how they are found again behind a crash.
    pub fn standing(&self, job_id: &str) -> Vec<StandingHold> {
        let books = self.books.lock();
        let own = books.open_holds().filter(|hold| hold.stands() && *hold.request_id == *job_id);
        own.map(|hold| StandingHold { seq: hold.seq, held: hold.held }).collect()
    }

    /// Ends a standing hold: at what was used, or released at nothing. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`BookError::Ended`] where it has ended before, by whomever; when nothing can be written.
    pub async fn end_standing(&self, seq: Seq, settlement: Option<Settlement>) -> Result<Seq, BookError> {
        let hold = self.books.lock().open_hold(seq).cloned().ok_or(BookError::Ended(seq))?;
        self.book(drafts::settled(&hold, settlement.as_ref())).await
    }

    /// Puts something on the desk, and starts the writer if it is free.
    fn put(
        &self,
        place: impl FnOnce(&mut Desk<Box<Writer>>) -> Result<(), HoldError>,
    ) -> Result<(), HoldError> {
        let writer = {
            let mut desk = self.shared.desk.lock();
            if desk.closed || desk.closing.is_some() {
                return Err(ending());
            }
            place(&mut desk)?;
            desk.writer.take()
        };
        if let Some(writer) = writer {
            #[expect(clippy::disallowed_methods, reason = "closing the ledger waits for the writer")]
            tokio::spawn(work(Arc::clone(&self.shared), writer));
        }
        Ok(())
    }

    /// Books what had no hold because it costs nothing: a free deployment's usage, an answer from the cache.
    pub fn book_loose(&self, entry: Entry) {
        if self.shared.loose.fetch_add(1, Ordering::Relaxed) >= LOOSE {
            self.shared.loose.fetch_sub(1, Ordering::Relaxed);
            return (self.shared.observer)(Happened::Dropped);
        }
        Ends(Arc::clone(&self.shared)).push(End::Loose(Box::new(entry)));
    }

    /// Books an entry that is not a request's: a correction, training, hosting. Returns its number.
    ///
    /// # Errors
    ///
    /// When it can't be written, or corrects what is corrected already.
    pub async fn book(&self, entry: Entry) -> Result<Seq, BookError> {
        let (reply, answer) = oneshot::channel();
        self.put(|desk| {
            desk.bookings.push_back((Box::new(entry), reply));
            Ok(())
        })?;
        answer.await.unwrap_or_else(|_| Err(ending().into()))
    }

    /// Replaces the budgets. `history` is what was spent up to the entry `until`, as far back as the windows of the
    /// new ones reach; what was written since then is added here.
    ///
    /// # Errors
    ///
    /// When the journal can't be read.
    pub async fn define(
        &self,
        budgets: Vec<Arc<Budget>>,
        history: Vec<Spent>,
        until: Seq,
    ) -> Result<(), HoldError> {
        let (reply, answer) = oneshot::channel();
        self.put(|desk| {
            desk.defines.push_back(Define { budgets, history, until, reply });
            Ok(())
        })?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Rebuilds the counters of all budgets from the ledger, and returns those that are not what it says. `history` is
    /// what was spent up to the entry `until`, as far back as their windows reach.
    ///
    /// # Errors
    ///
    /// When the journal can't be read.
    pub async fn prove(&self, history: Vec<Spent>, until: Seq) -> Result<Vec<Drift>, HoldError> {
        let (reply, answer) = oneshot::channel();
        self.put(|desk| {
            desk.proofs.push_back(Proof { history, until, reply });
            Ok(())
        })?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// The budgets in force.
    pub fn budgets(&self) -> Vec<Arc<Budget>> {
        self.books.lock().budgets().cloned().collect()
    }

    /// Waits until everything that was handed in is written; nothing more is taken.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        let closing = self.put(|desk| {
            desk.closing = Some(reply);
            Ok(())
        });
        if closing.is_ok() {
            let _ = answer.await;
        }
        self.shared.ticker.notify_one();
    }

    /// The least that is left of any budget that applies, once a request's hold has become its cost.
    pub fn left_after(&self, reservation: &Reservation, cost: Usd, now_ms: i64) -> Option<Usd> {
        let left = self.left_for(&reservation.hold.attribution, now_ms)?;
        Some(left + reservation.hold.held - cost)
    }

    /// The least that is left of any budget that applies.
    pub fn left_for(&self, on: &Attribution, now_ms: i64) -> Option<Usd> {
        let books = self.books.lock();
        books.left_for(on, books.time(now_ms))
    }

    /// Whether any budget in force is for deployments or providers of its own.
    pub fn has_budgets_of_deployments(&self) -> bool {
        self.books.lock().has_budgets_of_deployments()
    }

    /// All budgets at a glance.
    pub fn overview(&self, now_ms: i64) -> Vec<Overview> {
        let mut books = self.books.lock();
        let now_ms = books.advance(now_ms);
        books.overview(now_ms)
    }

    /// How some counters of a budget stand, in the order of their subjects: at most `limit` of those behind `after`,
    /// and whether there are more. Nothing where no such budget is in force.
    pub fn page(
        &self,
        budget: &str,
        after: Option<&str>,
        limit: usize,
        now_ms: i64,
    ) -> Option<(Vec<Standing>, bool)> {
        let mut books = self.books.lock();
        let now_ms = books.advance(now_ms);
        books.page(budget, after, limit, now_ms)
    }

    /// The budgets of a list whose counters have to be rebuilt from history.
    pub fn new_among(&self, budgets: &[Arc<Budget>]) -> Vec<Arc<Budget>> {
        self.books.lock().new_among(budgets).into_iter().cloned().collect()
    }

    /// How all budgets stand. Taken in slices, between which requests are decided on: however many counters there are,
    /// none waits long.
    pub async fn watch(&self, now_ms: i64) -> Vec<Watched> {
        let mut look = Look::at(now_ms);
        while self.go_on(&mut look) {
            tokio::task::yield_now().await;
        }
        look.ends()
    }

    fn go_on(&self, look: &mut Look) -> bool {
        let books = self.books.lock();
        let more = books.go_on(look, WATCHED);
        // whoever waits has it next, not we again
        MutexGuard::unlock_fair(books);
        more
    }

    /// Holds that are open, and their sum: of all processes.
    pub fn open_holds(&self) -> (usize, Usd) {
        self.books.lock().held()
    }

    /// What waits to be written.
    fn backlog(&self) -> Backlog {
        self.shared.desk.lock().backlog()
    }

    /// Writes into the metrics how the ledger stands.
    pub fn publish(&self, metrics: &Metrics, now: Instant) {
        let (backlog, (open, held)) = (self.backlog(), self.open_holds());
        let lag = backlog.oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        metrics.ledger.stands(LedgerStands { lag, holds: backlog.holds, ends: backlog.ends, open, held });
    }
}

/// Does what nobody waits for: beats, looks at what others have written, and writes what has ended.
async fn tick(shared: Arc<Shared>, lease: Duration) {
    let mut next_beat = clock::monotonic();
    let mut next_look = next_beat;
    let mut written_at: Option<Instant> = None;
    loop {
        let now = clock::monotonic();
        let writer = {
            let mut desk = shared.desk.lock();
            if desk.closed {
                return;
            }
            if now >= next_beat {
                next_beat = now + lease / 5;
                desk.beat_due = true;
            }
            if now >= next_look {
                next_look = now + LOOK_EVERY;
                desk.look_due = true;
            }
            // what has come since is written a moment after the first of it, if no hold has taken it along
            if written_at.is_some_and(|at| at <= now) {
                written_at = None;
                desk.lingers = false;
                desk.ends_due |= !desk.ends.is_empty();
            } else if desk.lingers {
                written_at = written_at.or(Some(now + LINGER));
            }
            let due = desk.wake_at.is_some_and(|at| at <= now);
            if due || desk.ends_due || desk.beat_due || desk.look_due { desk.writer.take() } else { None }
        };
        if let Some(writer) = writer {
            work(Arc::clone(&shared), writer).await;
            continue;
        }
        let wake_at = {
            let desk = shared.desk.lock();
            // while another works with the writer, what is due is its to do
            let wake_at = desk.wake_at.filter(|_| desk.writer.is_some());
            [written_at, wake_at]
                .into_iter()
                .flatten()
                .chain([next_beat, next_look])
                .min()
                .unwrap_or(next_look)
        };
        let patience = wake_at.saturating_duration_since(clock::monotonic());
        let _ = timeout(patience, shared.ticker.notified()).await;
    }
}

fn ending() -> HoldError {
    HoldError::Unavailable("this process is ending".to_owned())
}

/// What is held for one request on one deployment. Ends once.
#[must_use = "a hold is settled or released"]
pub struct Reservation {
    hold: Arc<Entry>,
    grant: Grant,
    ends: Ends,
    /// Whether the upstream may have seen the request.
    sent: bool,
    ended: bool,
}

impl Reservation {
    const fn new(hold: Arc<Entry>, grant: Grant, ends: Ends) -> Self {
        Self { hold, grant, ends, sent: false, ended: false }
    }

    /// What was granted.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Its entry in the ledger.
    pub const fn hold(&self) -> &Arc<Entry> {
        &self.hold
    }

    /// The upstream may have seen the request: dropped from here on, it is charged whole.
    pub const fn sent(&mut self) {
        self.sent = true;
    }

    /// Ends it at what was used.
    pub fn settle(mut self, settlement: Settlement) {
        self.end(Some(settlement));
    }

    /// It is open until somebody ends it by its number: for a fine-tuning job, whose own row owns it. For nothing else, as
    /// others' holds end with their process.
    pub fn stands(mut self) -> StandingHold {
        debug_assert!(self.hold.stands(), "only a job's hold stands");
        self.ended = true;
        StandingHold { seq: self.hold.seq, held: self.hold.held }
    }

    /// Ends it at nothing: the upstream was not asked, or did not do anything.
    pub fn release(mut self) {
        self.end(None);
    }

    fn end(&mut self, settlement: Option<Settlement>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.ends.push(End::Settle { hold: Arc::clone(&self.hold), settlement });
        }
    }
}

impl Drop for Reservation {
    /// Nobody said what was used: nothing if it was never sent, else all that is held, unconfirmed.
    fn drop(&mut self) {
        let whole = Settlement::new(self.hold.tokens, UsageSource::Unconfirmed, self.hold.held);
        self.end(self.sent.then_some(whole));
    }
}
