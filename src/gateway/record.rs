//! The Outcome in the making. It writes itself exactly once: when it is ended, or when it is dropped on the way.

mod attempts;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

pub(super) use attempts::Asked;

use super::admit::Admitted;
use super::limited::{RateHeaders, Standings};
use super::limits::{Entered, Place};
use super::refusal::{CODES, Refusal};
use super::reserve::Bill;
use crate::clock;
use crate::domain::cache::Cached;
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::RequestId;
use crate::domain::money::Usd;
use crate::domain::outcome::{Ending, FailedAttempt, Outcome};
use crate::domain::trace::{Trace, TraceId};
use crate::domain::usage::{TokenCounts, Usage};
use crate::telemetry::metrics::{self, Metrics};

/// How many outcomes the list of recent requests keeps.
const RECENT: usize = 1_000;

/// Where outcomes are written: metrics, the log, and the list of recent requests.
pub struct Book {
    metrics: Arc<Metrics>,
    /// Who makes spans of them, if anybody does; never waits.
    spans: Option<Spans>,
    recent: Mutex<VecDeque<Arc<Outcome>>>,
}

/// Takes an outcome whose spans are kept.
pub type Spans = Box<dyn Fn(&Arc<Outcome>) + Send + Sync>;

impl Book {
    /// An empty book.
    pub fn new(metrics: Arc<Metrics>, spans: Option<Spans>) -> Self {
        Self { metrics, spans, recent: Mutex::new(VecDeque::with_capacity(64)) }
    }

    /// The metrics it counts in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The last outcomes, newest first.
    pub fn recent(&self, limit: usize) -> Vec<Arc<Outcome>> {
        self.recent.lock().iter().rev().take(limit).cloned().collect()
    }

    /// One of the last outcomes.
    pub fn find(&self, id: &str) -> Option<Arc<Outcome>> {
        self.recent.lock().iter().rev().find(|outcome| outcome.request_id == id).cloned()
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.metrics.requests.in_flight.get()).unwrap_or(0)
    }

    /// Counts the tokens of an attempt.
    fn used(&self, outcome: &Outcome, usage: &Usage) {
        if let Some(deployment) = &outcome.deployment {
            let model = outcome.model.as_deref().unwrap_or(metrics::NONE);
            self.metrics.upstreams.used(model, deployment, usage);
        }
    }

    fn write(&self, outcome: Outcome) {
        self.metrics.ended(&outcome);
        log(&outcome);
        let outcome = Arc::new(outcome);
        if let Some(spans) = &self.spans
            && outcome.trace.as_ref().is_some_and(|trace| trace.sampled)
        {
            spans(&outcome);
        }
        let mut recent = self.recent.lock();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(outcome);
    }
}

fn log(outcome: &Outcome) {
    if !tracing::enabled!(target: "tunegate::request", tracing::Level::INFO) {
        return;
    }
    let tokens = outcome.usage.map(|usage| usage.tokens).unwrap_or_default();
    tracing::info!(
        target: "tunegate::request",
        request_id = outcome.request_id,
        trace_id = outcome.trace_id.map(tracing::field::display),
        endpoint = outcome.endpoint,
        key = outcome.key.as_deref(),
        team = outcome.team.as_deref(),
        model = outcome.model.as_deref(),
        deployment = outcome.deployment.as_deref(),
        stream = outcome.stream,
        ending = outcome.ending.name(),
        status = outcome.status,
        code = outcome.code,
        prompt_tokens = tokens.prompt,
        completion_tokens = tokens.completion,
        usage_source = outcome.usage.map(|usage| usage.source.name()),
        cost_usd = outcome.cost.map(tracing::field::display),
        duration_us = outcome.duration_us,
        overhead_us = outcome.overhead_us,
        first_byte_us = outcome.first_byte_us,
        attempts = outcome.attempts.len(),
        failed_attempts = outcome.failed_attempts.len(),
        "request"
    );
}

/// The outcome of one request while it is served.
pub struct Record {
    /// Nothing once it is written.
    outcome: Option<Outcome>,
    /// What it owes on the deployment that is asked now.
    bill: Option<Bill>,
    /// What the attempt that was just over used.
    over: Option<(Usage, Usd)>,
    /// What all attempts that are over cost.
    spent: Option<Usd>,
    /// Whether the upstream's fault that ends it is counted already.
    blamed: bool,
    id: RequestId,
    started: Instant,
    /// For the upstream, the client or a queue.
    waited: Duration,
    /// Since when it waits for one of them.
    waits_since: Option<Instant>,
    book: Arc<Book>,
    /// Its place among the requests being served.
    place: Option<Place>,
    /// What it took from its limits.
    entered: Option<Entered>,
    /// What a limited key is told of its limits.
    rate_headers: Vec<(HeaderName, HeaderValue)>,
}

impl Record {
    /// Begins with what the door knows. Boxed: every step of the line hands it on.
    pub fn begin(book: &Arc<Book>, id: &RequestId, at_ms: i64, started: Instant) -> Box<Self> {
        book.metrics.requests.in_flight.inc();
        let outcome = Outcome::begun(id.as_str().to_owned(), at_ms);
        Box::new(Self {
            outcome: Some(outcome),
            bill: None,
            over: None,
            spent: None,
            blamed: false,
            id: id.clone(),
            started,
            waited: Duration::ZERO,
            waits_since: None,
            book: Arc::clone(book),
            place: None,
            entered: None,
            rate_headers: Vec::new(),
        })
    }

    /// Notes more about the request.
    pub fn note(&mut self, with: impl FnOnce(&mut Outcome)) {
        if let Some(outcome) = &mut self.outcome {
            with(outcome);
        }
    }

    /// Notes which endpoint it is for.
    pub fn endpoint(&mut self, endpoint: Endpoint) {
        self.note(|outcome| outcome.endpoint = endpoint.name());
    }

    /// Notes the trace it is part of, and where it stands in it if we make spans.
    pub fn traced(&mut self, id: TraceId, trace: Option<Trace>) {
        self.note(|outcome| (outcome.trace_id, outcome.trace) = (Some(id), trace));
    }

    /// Where it stands in its trace, if we make spans.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.outcome.as_ref()?.trace.as_ref()
    }

    /// Keeps its place until it is written.
    pub fn placed(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Keeps what it took from its limits until it is written; then it is settled.
    pub(super) fn entered(&mut self, entered: Entered) {
        self.entered = Some(entered);
    }

    /// Notes what its client is told of its limits.
    pub(super) fn limited(&mut self, standings: &Standings, style: RateHeaders) {
        self.rate_headers = standings.headers(style);
    }

    /// Notes what the response cache did. What was saved was not paid: such a request costs nothing but its share, if
    /// it has one.
    pub(super) fn cached(&mut self, cached: Cached, share: Usd) {
        if cached.saved.is_some() {
            self.spent = Some(self.spent.unwrap_or_default() + share);
        }
        self.note(|outcome| outcome.cache = Some(cached));
    }

    /// Its answer's usage, and what that costs at which version of the price; nothing before there is one.
    pub(super) fn answered(&self) -> Option<(Usage, Usd, Arc<str>)> {
        let (bill, usage) = (self.bill.as_ref()?, self.outcome.as_ref()?.usage?);
        Some((usage, bill.cost(&usage), Arc::clone(&bill.priced().version)))
    }

    /// What its answer used; nothing before there is one.
    pub(super) fn tokens(&self) -> TokenCounts {
        self.outcome.as_ref().and_then(|outcome| outcome.usage).map(|usage| usage.tokens).unwrap_or_default()
    }

    /// Settles an answer that others have paid a part of.
    pub(super) fn settles(&mut self, others: Usd) {
        let Some((usage, cost, _)) = self.answered() else { return };
        if let Some(bill) = self.bill.take() {
            self.spent = Some(self.spent.unwrap_or_default() + (cost - others));
            bill.settle_shared(&usage, others);
        }
    }

    /// Which stored prompt was put in.
    pub(super) fn prompt(&self) -> Option<&Arc<str>> {
        self.outcome.as_ref()?.prompt.as_ref()
    }

    /// How many tokens of a stored prompt were put in.
    pub(super) fn injected_tokens(&self) -> Option<u64> {
        self.outcome.as_ref()?.injected_tokens
    }

    /// Which deployment answered, or was asked last.
    pub(super) fn deployment(&self) -> Option<&Arc<str>> {
        self.outcome.as_ref()?.deployment.as_ref()
    }

    /// What its client is told of its limits, with every answer.
    pub fn rate_headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.rate_headers
    }

    /// Notes what was used.
    pub fn usage(&mut self, usage: Usage) {
        self.note(|outcome| outcome.usage = Some(usage));
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> Arc<str> {
        Arc::clone(self.id.shared())
    }

    /// Takes over what is owed on the deployment that is asked next.
    pub(super) fn owes(&mut self, bill: Bill) {
        self.bill = Some(bill);
    }

    /// The attempt is over without an answer for the client: it is settled at what it used, if anything.
    pub(super) fn attempt_over(&mut self, usage: Option<Usage>) {
        self.attempt_ended(usage);
        self.note(|outcome| outcome.usage = None);
        let Some(bill) = self.bill.take() else { return };
        if let Some(usage) = usage {
            let cost = bill.cost(&usage);
            self.over = Some((usage, cost));
            self.spent = Some(self.spent.unwrap_or_default() + cost);
            if let Some(outcome) = &self.outcome {
                self.book.used(outcome, &usage);
            }
        }
        bill.settle(usage.as_ref());
    }

    /// Notes, counts and logs an attempt that came to nothing.
    pub(super) fn attempt_failed(
        &mut self,
        deployment: &Arc<str>,
        code: &'static str,
        is_requests_fault: bool,
        told: &dyn fmt::Display,
    ) {
        self.book.metrics.upstreams.failed(deployment, code);
        if !is_requests_fault {
            tracing::warn!(request_id = %self.id, %deployment, code, "{told}");
        }
        self.blamed = true;
        let (usage, cost) = self.over.take().unzip();
        let deployment = Arc::clone(deployment);
        self.note(|outcome| {
            attempts::failed_last(outcome, &deployment, code);
            outcome.failed_attempts.push(FailedAttempt { deployment, code, usage, cost });
        });
    }

    /// What the attempts that are over cost.
    pub(super) const fn spent(&self) -> Option<Usd> {
        self.spent
    }

    /// How many attempts came to nothing so far.
    pub(super) fn failed_attempts(&self) -> usize {
        self.outcome.as_ref().map_or(0, |outcome| outcome.failed_attempts.len())
    }

    /// What is owed on the deployment that is asked now.
    pub(super) const fn bill(&mut self) -> Option<&mut Bill> {
        self.bill.as_mut()
    }

    /// What the usage so far costs, failed attempts included, and the least that is then left of any budget; nothing
    /// before anything was used.
    pub(super) fn cost(&self, now_ms: i64) -> Option<(Usd, Option<Usd>)> {
        let bill = self.bill.as_ref()?;
        let cost = bill.cost(self.outcome.as_ref()?.usage.as_ref()?);
        Some((self.spent.unwrap_or_default() + cost, bill.left_after(cost, now_ms)))
    }

    /// Books a wait for the upstream at what `usage` says, should the request be dropped before the wait is over.
    pub(super) fn if_dropped<F: Fn() -> Option<Usage>>(&mut self, usage: F) -> IfDropped<'_, F> {
        self.waits();
        IfDropped { record: self, usage, over: false }
    }

    /// From now on the upstream, the client or a queue is waited for: time that is not ours. Cut off on the way, the
    /// wait lasts until the record is written.
    pub fn waits(&mut self) {
        self.waits_for_since(clock::monotonic());
    }

    /// The same since an earlier moment.
    pub(super) fn waits_for_since(&mut self, since: Instant) {
        self.waits_since.get_or_insert(since);
    }

    /// The wait is over.
    pub fn goes_on(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.waited += clock::monotonic().saturating_duration_since(since);
        }
    }

    /// Notes who asks; an operator has no key.
    pub fn admitted(&mut self, admitted: &Admitted) {
        self.note(|outcome| {
            if !admitted.key.id.is_empty() {
                outcome.key = Some(Arc::clone(&admitted.key.alias));
                outcome.key_id = Some(Arc::clone(&admitted.key.id));
            }
            outcome.team = admitted.team.as_ref().map(|team| Arc::clone(&team.alias));
        });
    }

    /// Notes the moment of the upstream's first byte.
    pub fn first_byte(&mut self) {
        let after = micros_since(self.started);
        self.note(|outcome| outcome.first_byte_us = Some(after));
    }

    /// The book it will be written in.
    pub fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Counts and logs what an upstream did wrong, if one did.
    fn blame(&self, refusal: &Refusal) {
        if let Some(deployment) = refusal.blames_upstream() {
            self.book.metrics.upstreams.failed(deployment, refusal.code());
            tracing::warn!(%deployment, code = refusal.code(), "{refusal}");
        }
    }

    /// Writes a refusal, with the status the client got.
    pub fn refused(mut self: Box<Self>, refusal: &Refusal, status: u16) {
        if !self.blamed {
            self.blame(refusal);
        }
        let ending = match refusal {
            Refusal::ClientGone => Ending::ClientGone,
            Refusal::Upstream { error, .. } if error.nothing_was_sent() => Ending::Refused,
            Refusal::Upstream { .. } => Ending::UpstreamBroke,
            Refusal::UpstreamFault { .. } => Ending::UpstreamError,
            _ => Ending::Refused,
        };
        debug_assert!(CODES.contains(&refusal.code()), "{} is not born", refusal.code());
        self.note(|outcome| (outcome.code, outcome.blames) = (Some(refusal.code()), refusal.blames()));
        self.ended(ending, status);
    }

    /// Writes the end.
    pub fn ended(mut self: Box<Self>, ending: Ending, status: u16) {
        self.note(|outcome| {
            outcome.ending = ending;
            outcome.status = status;
        });
        // dropping writes it
    }
}

/// A request that was refused; the door answers, then ends the record with the status it chose.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The outcome, but for its end.
    pub record: Box<Record>,
}

impl Refused {
    /// A refusal, and the record it ends.
    pub(super) fn new(refusal: Refusal, record: Box<Record>) -> Box<Self> {
        Box::new(Self { refusal, record })
    }
}

/// A wait during which a request costs something.
pub(super) struct IfDropped<'r, F: Fn() -> Option<Usage>> {
    record: &'r mut Record,
    usage: F,
    over: bool,
}

impl<F: Fn() -> Option<Usage>> IfDropped<'_, F> {
    /// The wait is over: the usage is noted by whoever waited.
    pub(super) fn ends(mut self) {
        self.over = true;
    }
}

impl<F: Fn() -> Option<Usage>> Drop for IfDropped<'_, F> {
    fn drop(&mut self) {
        self.record.goes_on();
        if !self.over
            && let Some(usage) = (self.usage)()
        {
            self.record.usage(usage);
        }
    }
}

/// The tokens of the answer and of all attempts before it.
fn tokens_of(outcome: &Outcome) -> u64 {
    let failed = outcome.failed_attempts.iter().filter_map(|attempt| attempt.usage);
    let all =
        failed.chain(outcome.usage).map(|usage| usage.tokens.prompt.saturating_add(usage.tokens.completion));
    all.fold(0, u64::saturating_add)
}

fn micros_since(started: Instant) -> u64 {
    micros_between(started, clock::monotonic())
}

fn micros_between(from: Instant, to: Instant) -> u64 {
    micros(to.saturating_duration_since(from))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(mut outcome) = self.outcome.take() {
            outcome.duration_us = micros_since(self.started);
            self.goes_on();
            outcome.overhead_us = outcome.duration_us.saturating_sub(micros(self.waited));
            if let Some(usage) = &outcome.usage {
                self.book.used(&outcome, usage);
            }
            outcome.cost = self.spent;
            if let Some(bill) = self.bill.take() {
                let own = outcome.usage.as_ref().map(|usage| bill.cost(usage));
                outcome.cost = own.map_or(self.spent, |own| Some(self.spent.unwrap_or_default() + own));
                bill.settle(outcome.usage.as_ref());
            }
            attempts::end_last(&mut outcome);
            if let Some(entered) = self.entered.take() {
                entered.settle(tokens_of(&outcome), clock::monotonic());
            }
            if outcome.usage.is_none() {
                outcome.usage = outcome.failed_attempts.last().and_then(|attempt| attempt.usage);
            }
            self.place = None;
            let metrics = Arc::clone(&self.book.metrics);
            self.book.write(outcome);
            // last: whoever sees nothing in flight finds every outcome written
            metrics.requests.in_flight.dec();
        }
    }
}
