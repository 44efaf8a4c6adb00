//! Who writes the journal. There is one writer, and whoever has something to write and finds it free takes it along; so a
//! lone request waits for no other task. It alone decides on holds: whatever has come in is decided against the books,
//! appended in one go, and granted when it is durable. What ends a hold waits a moment for a hold to go with.
//!
//! The number of the next entry is also the claim to be up to date: if another process has written one of that number,
//! nothing was appended; its entries are read and all is decided again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::desk::{Backlog, Booked, Define, Desk, End, Ended, Proof, Wanted};
use super::drafts::{corrects, ending, hold, once, settled};
use super::journal::{AppendError, BATCH, Journal};
use super::liveness::Liveness;
use super::{BookError, Config, Ends, Happened, HoldError, Observer, Reservation, Shared};
use crate::clock;
use crate::domain::budget::{Books, Exceeded, Grant, Spent};
use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::money::Usd;

/// Entries read at once.
const PAGE: usize = 500;
/// Requests that may wait for others' holds to end.
const WAITING: usize = 1_000;
/// How often one batch may lose against other processes before its requests are told to come again.
const LOST_RACES: u32 = 64;
/// After a failure nothing is tried for so long, doubling up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// So long after an append has failed, no beat says that the ledger can be written: what is asked for until then is
/// tried, and says it. Behind that it does, or an idle process that is sent nothing would never be ready again.
const DOUBT: Duration = BACKOFF.1.saturating_mul(2);
/// How long the last entries are tried while the process ends.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A request that waits for others' holds to end.
struct Waiting {
    wanted: Box<Wanted>,
    until: Instant,
}

impl Waiting {
    /// It waits no longer for money; from now on it waits to be written.
    fn ends(self, now: Instant) -> Box<Wanted> {
        let mut wanted = self.wanted;
        wanted.since = now;
        wanted
    }
}

/// What one append is for.
#[derive(Default)]
struct Batch {
    entries: Vec<Arc<Entry>>,
    /// For each entry, the hold that it ended.
    ended: Vec<Option<Arc<Entry>>>,
    ends: Vec<Ended>,
    holds: Vec<(Box<Wanted>, Arc<Entry>, Grant)>,
    refused: Vec<(Box<Wanted>, Box<Exceeded>)>,
    bookings: Vec<(Box<Entry>, Booked, Seq)>,
}

/// The writer.
pub(super) struct Writer {
    journal: Box<dyn Journal>,
    instance: Arc<str>,
    observer: Observer,
    books: Arc<Mutex<Books>>,
    /// Handed to each reservation.
    handle: Ends,
    /// The last entry that the books have taken in; none before the journal could be read.
    head: Option<Seq>,
    todo_ends: VecDeque<Ended>,
    todo_holds: VecDeque<Box<Wanted>>,
    todo_bookings: VecDeque<(Box<Entry>, Booked)>,
    todo_defines: VecDeque<Define>,
    todo_proofs: VecDeque<Proof>,
    waiting: VecDeque<Waiting>,
    /// Entries that were corrected since the journal was first read: none is corrected twice. They are few.
    corrected: HashSet<Seq>,
    /// Hours of deployments, and jobs, that were charged since the journal was first read: none is twice. They are few.
    charged: HashSet<Arc<str>>,
    liveness: Liveness,
    beat: i64,
    /// Entries of ours may be in the journal that the books don't have.
    uncertain: bool,
    backoff: Option<(Duration, Instant)>,
    /// When an append failed, unless one has succeeded since.
    append_failed: Option<Instant>,
    closing: Option<(oneshot::Sender<()>, Instant)>,
}

/// Closes the desk should the writer be lost on the way, by a panic or with its runtime: whoever waits is told at once.
struct Loan {
    shared: Arc<Shared>,
    returned: bool,
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.returned {
            return;
        }
        let waiting = {
            let closed = Desk { closed: true, ..Desk::default() };
            std::mem::replace(&mut *self.shared.desk.lock(), closed)
        };
        // told without the lock
        drop(waiting);
        (self.shared.observer)(Happened::Failed("its writer is lost: start again".to_owned()));
    }
}

/// Works with the writer until nobody waits for it, then puts it back on the desk.
pub(super) async fn work(shared: Arc<Shared>, mut writer: Box<Writer>) {
    let mut loan = Loan { shared: Arc::clone(&shared), returned: false };
    loop {
        let (beat, look) = writer.take(&mut shared.desk.lock());
        if beat {
            writer.live().await;
        }
        if look {
            writer.look().await;
        }
        writer.define().await;
        writer.prove().await;
        writer.write().await;
        writer.give_up_waiting(clock::monotonic());
        if writer.is_over() {
            let _ = writer.journal.ended(&writer.instance).await;
            writer.journal.close().await;
            let mut desk = shared.desk.lock();
            desk.closed = true;
            loan.returned = true;
            if let Some((reply, _)) = writer.closing.take() {
                let _ = reply.send(());
            }
            return;
        }
        let mut desk = shared.desk.lock();
        let more = !writer.is_failing() && writer.has_todo();
        if !more && !desk.is_urgent() {
            desk.wake_at = writer.wake_at();
            desk.taken = writer.backlog();
            let wake = desk.wake_at.is_some();
            desk.writer = Some(writer);
            loan.returned = true;
            drop(desk);
            if wake {
                shared.ticker.notify_one();
            }
            return;
        }
    }
}

/// Decides on a hold. One that takes another's place is decided on as if that were released: the entry that does it comes
/// with the grant. The books are as before.
fn decide(books: &mut Books, wanted: &Wanted, now_ms: i64) -> Result<(Grant, Option<Entry>), Box<Exceeded>> {
    let Wanted { ask, instead_of, .. } = wanted;
    let old = instead_of.and_then(|seq| books.open_hold(seq).cloned());
    let Some(old) = old else {
        return books.decide(&ask.attribution, &ask.bound, now_ms).map(|grant| (grant, None));
    };
    let release = settled(&old, None);
    books.apply(&Arc::new(release.clone()));
    let decided = books.decide(&ask.attribution, &ask.bound, now_ms);
    books.revert(&release, Some(old));
    decided.map(|grant| (grant, Some(release)))
}

impl Writer {
    pub(super) fn new(
        journal: Box<dyn Journal>,
        instance: Arc<str>,
        config: Config,
        observer: Observer,
        books: Arc<Mutex<Books>>,
        handle: Ends,
    ) -> Self {
        Self {
            journal,
            liveness: Liveness::new(Arc::clone(&instance), config.lease),
            instance,
            observer,
            books,
            handle,
            head: None,
            todo_ends: VecDeque::new(),
            todo_holds: VecDeque::new(),
            todo_bookings: VecDeque::new(),
            todo_defines: VecDeque::new(),
            todo_proofs: VecDeque::new(),
            waiting: VecDeque::new(),
            corrected: HashSet::new(),
            charged: HashSet::new(),
            beat: 0,
            uncertain: false,
            backoff: None,
            append_failed: None,
            closing: None,
        }
    }

    /// Takes from the desk what there is to do. Whether it is time to beat, and to look.
    fn take(&mut self, desk: &mut Desk<Box<Self>>) -> (bool, bool) {
        self.todo_ends.append(&mut desk.ends);
        desk.ends_due = false;
        self.todo_bookings.append(&mut desk.bookings);
        self.todo_defines.append(&mut desk.defines);
        self.todo_proofs.append(&mut desk.proofs);
        self.todo_holds.append(&mut desk.holds);
        desk.taken = self.backlog();
        if let Some(reply) = desk.closing.take() {
            self.closing = Some((reply, clock::monotonic() + CLOSE_LIMIT));
        }
        (std::mem::take(&mut desk.beat_due), std::mem::take(&mut desk.look_due))
    }

    /// What it has taken and not written.
    fn backlog(&self) -> Backlog {
        Backlog::of(&self.todo_holds, &self.todo_ends)
    }

    fn has_todo(&self) -> bool {
        !self.todo_ends.is_empty() || !self.todo_holds.is_empty() || !self.todo_bookings.is_empty()
    }

    /// When there will be something to do without anybody asking.
    fn wake_at(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        let again =
            self.backoff.map(|(_, until)| until).filter(|_| self.has_todo() || self.closing.is_some());
        waiting.into_iter().chain(again).min()
    }

    /// Whether the process ends and everything is written that can be.
    fn is_over(&self) -> bool {
        let Some((_, limit)) = &self.closing else { return false };
        !self.has_todo() || clock::monotonic() >= *limit
    }

    fn is_failing(&self) -> bool {
        self.backoff.is_some_and(|(_, until)| clock::monotonic() < until)
    }

    fn failed(&mut self, words: &str) {
        let before = self.backoff.map_or(BACKOFF.0 / 2, |(wait, _)| wait);
        let wait = (before * 2).min(BACKOFF.1);
        self.backoff = Some((wait, clock::monotonic() + wait));
        self.uncertain = true;
        (self.observer)(Happened::Failed(words.to_owned()));
    }

    fn succeeded(&mut self) {
        self.append_failed = None;
        if self.backoff.take().is_some() {
            (self.observer)(Happened::Recovered);
        }
    }

    /// Beats, sees who else does, and settles the holds of those who are gone.
    async fn live(&mut self) {
        self.beat += 1;
        let open_from = self.open_from();
        let beats = match self.journal.beat(&self.instance, self.beat, open_from).await {
            Ok(()) => self.journal.beats().await,
            Err(error) => Err(error),
        };
        let now = clock::monotonic();
        let beats = match beats {
            Ok(beats) => beats,
            // one that can be read and not written shows here, also where nobody needs it
            Err(error) => {
                if !self.is_failing() {
                    self.failed(&error.to_string());
                }
                return;
            }
        };
        let in_doubt = self.uncertain || self.append_failed.is_some_and(|at| now < at + DOUBT);
        if !self.is_failing() && !in_doubt {
            self.succeeded();
        }
        let orphans = {
            let books = self.books.lock();
            // a standing hold is nobody's to lose
            let owned = || books.open_holds().filter(|hold| !hold.stands());
            let owners: HashSet<Arc<str>> = owned().map(|hold| Arc::clone(&hold.instance)).collect();
            self.liveness.see(&beats, &owners, now);
            let gone = self.liveness.gone(now);
            let of_the_gone = owned().filter(|hold| gone.contains(&hold.instance));
            of_the_gone.cloned().collect::<Vec<_>>()
        };
        let handed_in: HashSet<Seq> = self.todo_ends.iter().filter_map(|ended| ended.end.hold()).collect();
        let orphans: Vec<_> = orphans.into_iter().filter(|hold| !handed_in.contains(&hold.seq)).collect();
        if !orphans.is_empty() {
            (self.observer)(Happened::Orphans(orphans.len()));
            self.todo_ends
                .extend(orphans.into_iter().map(|hold| Ended { end: End::Orphan(hold), since: now }));
        }
        self.bury(now).await;
    }

    /// Forgets the processes that are gone and own nothing any more.
    async fn bury(&mut self, now: Instant) {
        for instance in self.liveness.gone(now) {
            let owns = self.books.lock().open_holds().any(|hold| !hold.stands() && hold.instance == instance);
            if !owns {
                let _ = self.journal.ended(&instance).await;
            }
        }
    }

    /// The first entry that may be an open hold of ours.
    fn open_from(&self) -> Seq {
        let books = self.books.lock();
        let own = books.open_holds().find(|hold| hold.instance == self.instance).map(|hold| hold.seq);
        own.unwrap_or_else(|| self.head.map_or(1, |head| head + 1))
    }

    /// Takes in what others have written.
    async fn look(&mut self) {
        if self.is_failing() {
            return;
        }
        // a database that is locked or full can be read: only what is written says that it can be written again
        if let Err(error) = self.catch_up().await {
            self.failed(&error.to_string());
        }
        let now = clock::unix_ms();
        self.books.lock().tidy(now);
    }

    async fn catch_up(&mut self) -> Result<(), AppendError> {
        let mut head = match self.head {
            Some(head) => head,
            None => {
                let (seq, open) = self.journal.start().await?;
                let mut books = self.books.lock();
                for hold in open {
                    books.apply(&Arc::new(hold));
                }
                seq
            }
        };
        if self.uncertain && self.head.is_some() {
            self.must_have(head).await?;
        }
        self.head = Some(head);
        loop {
            let entries = self.journal.after(head, PAGE).await?;
            let last = entries.len() < PAGE;
            let (mut ours, mut ended) = (Vec::new(), Vec::new());
            for entry in entries {
                head = entry.seq;
                let entry = Arc::new(entry);
                let hold = self.take_in(&entry);
                if entry.instance == self.instance {
                    ours.push(entry);
                    ended.push(hold);
                }
            }
            self.head = Some(head);
            // of an append whose answer was lost, nobody has been told
            if !ours.is_empty() {
                self.tell(&ours, &ended, None);
            }
            if last {
                self.uncertain = false;
                return Ok(());
            }
        }
    }

    /// Fails for good where a database came back without its last entries: after a crash of PostgreSQL's, or on its
    /// stand-in. Numbers behind the lost ones would leave a gap, and no claim to be up to date would hold any more.
    async fn must_have(&mut self, head: Seq) -> Result<(), AppendError> {
        let last = self.journal.head().await?;
        if last >= head {
            return Ok(());
        }
        let words = format!(
            "the database has lost the entries {} to {head}: start again, or put them back",
            last.saturating_add(1)
        );
        Err(AppendError::Failed(words))
    }

    /// One entry that the books did not have: another process's, or one of ours that seemed to have failed. Returns the
    /// hold that it ended.
    fn take_in(&mut self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        self.corrected.extend(corrects(entry));
        self.charged.extend(once(entry).cloned());
        let ended = {
            let mut books = self.books.lock();
            let ended = books.open_hold(entry.of).filter(|_| entry.kind.ends_a_hold()).cloned();
            if entry.kind.ends_a_hold() && ended.is_none() {
                // of a hold from before we began to read: only what it spent counts
                books.apply(&Arc::new(Entry { held: Usd::ZERO, ..(**entry).clone() }));
            } else {
                books.apply(entry);
            }
            ended
        };
        if entry.instance == self.instance {
            self.need_not_write(entry);
        }
        ended
    }

    /// An entry of ours that seemed to have failed is in the journal.
    fn need_not_write(&mut self, entry: &Arc<Entry>) {
        match entry.kind {
            // its request was told that it has no hold
            EntryKind::Hold => {
                let end = End::Settle { hold: Arc::clone(entry), settlement: None };
                self.todo_ends.push_back(Ended { end, since: clock::monotonic() });
            }
            kind if kind.ends_a_hold() || kind == EntryKind::Adjustment => {
                self.todo_ends.retain(|ended| ended.end.hold() != Some(entry.of));
            }
            // what it books may stand in the queue as well: the same request's, of the same kind
            _ => {
                let same = |ended: &Ended| matches!(&ended.end, End::Loose(loose) if loose.kind == entry.kind && loose.request_id == entry.request_id);
                if let Some(at) = self.todo_ends.iter().position(same) {
                    self.todo_ends.remove(at);
                    self.handle.0.loose.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn define(&mut self) {
        if self.is_failing() {
            return;
        }
        while let Some(Define { budgets, mut history, until, reply }) = self.todo_defines.pop_front() {
            let since = match self.catch_up().await {
                Ok(()) => self.spent_since(until).await,
                Err(error) => Err(error),
            };
            let done = match since {
                Ok(since) => {
                    history.extend(since);
                    let mut books = self.books.lock();
                    // who has given up may ask anew at once, and counts on what is in force then
                    if !reply.is_closed() {
                        let now = books.advance(clock::unix_ms());
                        books.define(budgets, &history, now);
                    }
                    Ok(())
                }
                Err(error) => {
                    self.failed(&error.to_string());
                    Err(HoldError::Unavailable(error.to_string()))
                }
            };
            let _ = reply.send(done);
        }
    }

    async fn prove(&mut self) {
        while let Some(Proof { mut history, until, reply }) = self.todo_proofs.pop_front() {
            let since = match self.catch_up().await {
                Ok(()) => self.spent_since(until).await,
                Err(error) => Err(error),
            };
            let found = since.map(|since| {
                history.extend(since);
                let mut books = self.books.lock();
                let now = books.advance(clock::unix_ms());
                books.drifts(&history, now)
            });
            let _ = reply.send(found.map_err(|error| HoldError::Unavailable(error.to_string())));
        }
    }

    /// What the books have taken in behind an entry.
    async fn spent_since(&mut self, until: Seq) -> Result<Vec<Spent>, AppendError> {
        let head = self.head.unwrap_or(0);
        let (mut from, mut spent) = (until, Vec::new());
        while from < head {
            let entries = self.journal.after(from, PAGE).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq;
            let counted =
                entries.into_iter().filter(|entry| entry.seq <= head && entry.spends() != Usd::ZERO);
            spent.extend(counted.map(|entry| Spent {
                cost: entry.spends(),
                at_ms: entry.at_ms,
                attribution: entry.attribution,
            }));
        }
        Ok(spent)
    }

    /// Writes what there is, as long as it can be written.
    async fn write(&mut self) {
        let mut lost = 0;
        while !self.is_failing() {
            if (self.uncertain || self.head.is_none())
                && let Err(error) = self.catch_up().await
            {
                self.failed(&error.to_string());
                break;
            }
            let mut batch = self.stage();
            if !batch.refused.is_empty() && self.liveness.has_others() && lost == 0 {
                // what the others have given back since we last looked may be enough
                lost = 1;
                self.take_back(&mut batch);
                if let Err(error) = self.catch_up().await {
                    self.failed(&error.to_string());
                    break;
                }
                continue;
            }
            if batch.entries.is_empty() {
                self.answer_refused(batch);
                return;
            }
            let began = clock::monotonic();
            match self.journal.append(&batch.entries).await {
                Ok(()) => {
                    self.succeeded();
                    self.commit(batch, clock::monotonic().saturating_duration_since(began));
                    // many batches after an outage: they are seen to go down
                    if self.has_todo() {
                        self.handle.0.desk.lock().taken = self.backlog();
                    }
                    lost = 0;
                }
                Err(AppendError::Conflict) => {
                    (self.observer)(Happened::Conflict);
                    self.take_back(&mut batch);
                    lost += 1;
                    if let Err(error) = self.catch_up().await {
                        self.failed(&error.to_string());
                    } else if lost > LOST_RACES {
                        self.refuse_all("other gateways write all the time");
                    }
                }
                Err(AppendError::Failed(words)) => {
                    self.take_back(&mut batch);
                    self.append_failed = Some(clock::monotonic());
                    self.failed(&words);
                }
            }
        }
        if self.is_failing() {
            self.refuse_all("the database failed");
        }
    }

    fn refuse_all(&mut self, words: &str) {
        let unavailable = || HoldError::Unavailable(words.to_owned());
        for wanted in self.todo_holds.drain(..) {
            let _ = wanted.reply.send(Err(unavailable()));
        }
        for (_, reply) in self.todo_bookings.drain(..) {
            let _ = reply.send(Err(unavailable().into()));
        }
        for define in self.todo_defines.drain(..) {
            let _ = define.reply.send(Err(unavailable()));
        }
    }

    /// Decides on what there is, up to one batch; the books have taken it in when this returns.
    fn stage(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut seq = self.head.unwrap_or(0);
        let mut books = self.books.lock();
        let clock_ms = clock::unix_ms();
        let now_ms = books.advance(clock_ms);
        let mut add = |batch: &mut Batch, books: &mut Books, entry: Entry| {
            seq += 1;
            let entry = Arc::new(Entry {
                seq,
                written_at_ms: clock_ms,
                instance: Arc::clone(&self.instance),
                ..entry
            });
            let ended = books.open_hold(entry.of).filter(|_| entry.kind.ends_a_hold()).cloned();
            books.apply(&entry);
            batch.ended.push(ended);
            batch.entries.push(Arc::clone(&entry));
            entry
        };
        let mut freed = false;
        while batch.entries.len() < BATCH
            && let Some(ended) = self.todo_ends.pop_front()
        {
            // somebody has said meanwhile what it was
            let is_known = |entry: &Entry| {
                corrects(entry).is_some_and(|of| {
                    self.corrected.contains(&of)
                        || batch.entries.iter().any(|other| corrects(other) == Some(of))
                })
            };
            if let Some(entry) = ending(&ended.end, &books).filter(|entry| !is_known(entry)) {
                freed |= entry.kind.ends_a_hold();
                add(&mut batch, &mut books, entry);
            }
            batch.ends.push(ended);
        }
        while batch.entries.len() < BATCH
            && let Some((entry, reply)) = self.todo_bookings.pop_front()
        {
            if entry.kind.ends_a_hold() && books.open_hold(entry.of).is_none() {
                let _ = reply.send(Err(BookError::Ended(entry.of)));
                continue;
            }
            // two operators, or two gateways, at once
            if let Some(of) = corrects(&entry)
                && (self.corrected.contains(&of)
                    || batch.entries.iter().any(|other| corrects(other) == Some(of)))
            {
                let _ = reply.send(Err(BookError::Corrected(of)));
                continue;
            }
            // two processes that both take the clock for theirs, or an append whose answer was lost
            if let Some(of) = once(&entry)
                && (self.charged.contains(of) || batch.entries.iter().any(|other| once(other) == Some(of)))
            {
                let _ = reply.send(Err(BookError::Charged(Arc::clone(of))));
                continue;
            }
            let written = add(&mut batch, &mut books, (*entry).clone());
            batch.bookings.push((entry, reply, written.seq));
        }
        if freed || self.liveness.has_others() {
            // those who waited come before those who come now
            let now = clock::monotonic();
            for waiting in self.waiting.drain(..).rev() {
                self.todo_holds.push_front(waiting.ends(now));
            }
        }
        // a hold in another's place is two entries
        let fits = |batch: &Batch, wanted: &Wanted| {
            batch.entries.len() + 1 + usize::from(wanted.instead_of.is_some()) <= BATCH
        };
        while let Some(wanted) = self.todo_holds.pop_front_if(|wanted| fits(&batch, wanted)) {
            if wanted.reply.is_closed() {
                continue;
            }
            match decide(&mut books, &wanted, now_ms) {
                Ok((grant, release)) => {
                    if let Some(release) = release {
                        add(&mut batch, &mut books, release);
                    }
                    let hold = add(&mut batch, &mut books, hold(&wanted.ask, &grant, now_ms));
                    batch.holds.push((wanted, hold, grant));
                }
                Err(exceeded) => batch.refused.push((wanted, exceeded)),
            }
        }
        batch
    }

    /// Takes a batch out of the books again; what was to be written stands at the front of its queue.
    fn take_back(&mut self, batch: &mut Batch) {
        let mut books = self.books.lock();
        let entries = std::mem::take(&mut batch.entries);
        let ended = std::mem::take(&mut batch.ended);
        for (entry, ended) in entries.iter().zip(ended).rev() {
            books.revert(entry, ended);
        }
        for end in batch.ends.drain(..).rev() {
            self.todo_ends.push_front(end);
        }
        for (entry, reply, _) in batch.bookings.drain(..).rev() {
            self.todo_bookings.push_front((entry, reply));
        }
        for (wanted, _) in batch.refused.drain(..).rev() {
            self.todo_holds.push_front(wanted);
        }
        for (wanted, ..) in batch.holds.drain(..).rev() {
            self.todo_holds.push_front(wanted);
        }
    }

    /// The batch is durable.
    fn commit(&mut self, mut batch: Batch, took: Duration) {
        self.head = batch.entries.last().map(|entry| entry.seq).or(self.head);
        self.corrected.extend(batch.entries.iter().filter_map(|entry| corrects(entry)));
        self.charged.extend(batch.entries.iter().filter_map(|entry| once(entry)).cloned());
        for (wanted, hold, grant) in batch.holds.drain(..) {
            let reservation = Reservation::new(hold, grant, self.handle.clone());
            // one that nobody waits for any more is dropped here, and so released
            let _ = wanted.reply.send(Ok(reservation));
        }
        for (_, reply, seq) in batch.bookings.drain(..) {
            let _ = reply.send(Ok(seq));
        }
        let loose = batch.ends.iter().filter(|ended| matches!(ended.end, End::Loose(_))).count();
        self.handle.0.loose.fetch_sub(loose, Ordering::Relaxed);
        self.tell(&batch.entries, &batch.ended, Some(took));
        self.answer_refused(batch);
    }

    /// Tells of entries of ours that are durable, and of the holds that they ended. How long they took is not known
    /// where the answer was lost.
    fn tell(&self, entries: &[Arc<Entry>], ended: &[Option<Arc<Entry>>], took: Option<Duration>) {
        (self.observer)(Happened::Wrote(entries.to_vec(), took));
        let now_ms = clock::unix_ms();
        for (entry, ended) in entries.iter().zip(ended) {
            if entry.kind == EntryKind::Hold || entry.kind == EntryKind::Release {
                continue;
            }
            (self.observer)(Happened::Booked(Arc::clone(entry)));
            if ended.as_ref().is_some_and(|hold| entry.cost > hold.held) {
                (self.observer)(Happened::Overshot(Arc::clone(entry)));
            }
            let crossings = self.books.lock().crossings(&entry.attribution, now_ms);
            for crossing in crossings {
                (self.observer)(Happened::Crossed(Box::new(crossing)));
            }
        }
    }

    /// Tells who was refused, or lets them wait.
    fn answer_refused(&mut self, batch: Batch) {
        let now = clock::monotonic();
        for (mut wanted, exceeded) in batch.refused {
            let until = *wanted.until.get_or_insert(now + wanted.wait);
            if exceeded.may_wait && until > now && self.waiting.len() < WAITING {
                self.waiting.push_back(Waiting { wanted, until });
            } else {
                let _ = wanted.reply.send(Err(HoldError::Exceeded(exceeded)));
            }
        }
    }

    fn give_up_waiting(&mut self, now: Instant) {
        let mut books = self.books.lock();
        let now_ms = books.advance(clock::unix_ms());
        let (over, waiting): (VecDeque<_>, _) =
            self.waiting.drain(..).partition(|waiting| waiting.until <= now);
        self.waiting = waiting;
        for waiting in over {
            let wanted = waiting.ends(now);
            match decide(&mut books, &wanted, now_ms) {
                Err(exceeded) => drop(wanted.reply.send(Err(HoldError::Exceeded(exceeded)))),
                Ok(_) => self.todo_holds.push_back(wanted),
            }
        }
    }
}
