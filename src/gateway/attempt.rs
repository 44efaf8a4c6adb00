//! One attempt at one deployment: a place there, the hold, the request, and the answer's beginning.
//!
//! Whatever fails here before a byte of the answer went to the client is settled here, and may be tried again elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::asking::{Asking, ERROR_BYTES, our_trouble, redirected};
use super::board::{Stay, Unready};
use super::forms::Form;
use super::means::Means;
use super::meter::{self, Answer, AnswerBody, Followed, passed};
use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::prompts::is_mismatch;
use super::record::{Asked, Record};
use super::refusal::Refusal;
use super::reserve::{Reserved, Unpaid};
use super::settle::{Computing, Facts};
use super::trace;
use super::visit::{Purpose, Visit};
use crate::clock;
use crate::domain::catalog::Deployment;
use crate::domain::fault::Fault;
use crate::domain::outcome::Ending;
use crate::domain::patience::{QuotaSeen, wait_asked};
use crate::domain::request::OutputCap;
use crate::domain::retry::Failure;
use crate::domain::route::Chosen;
use crate::domain::stream::StreamReader;
use crate::domain::usage::Usage;
use crate::provider::{self, CapNamed};
use crate::upstream::http::Exchange;
use crate::upstream::{Phase, Upstream, UpstreamError};

/// How to go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Only where there is a place at once: another deployment may have one.
    AtOnce,
    /// By the queue.
    Queued,
}

/// How an attempt went.
pub(super) enum Attempted {
    /// An answer for the client.
    Answered(Box<Answer>),
    /// No other attempt can follow.
    Ended(Refusal, Box<Record>),
    /// Another may.
    Failed(Box<Failed>, Box<Record>),
}

/// An attempt that came to nothing; it is settled.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// How long the upstream wants us to wait.
    pub(super) wait_asked: Option<Duration>,
    /// What the client hears if no other follows.
    pub(super) told: Told,
    /// What stood against it before it was sent.
    pub(super) unready: Option<Unready>,
    /// A budget wants a cheaper one.
    pub(super) cheaper: bool,
    /// Whether the same deployment may do at another time.
    pub(super) again: bool,
}

/// What a client hears of a failed attempt.
pub(super) enum Told {
    /// Our words.
    Refusal(Refusal),
    /// The upstream's.
    Answer(ToldAnswer),
}

/// An upstream's no, for the client.
pub(super) struct ToldAnswer {
    status: u16,
    fault: Fault,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl ToldAnswer {
    /// The answer that tells it.
    pub(super) fn into_answer(self, record: Box<Record>) -> Answer {
        let mut headers = self.headers;
        headers.extend(meter::failed(&record));
        let body = AnswerBody::Whole { body: self.body, record, ending: Ending::UpstreamError };
        Answer { status: self.status, headers, body, output_cap: None }
    }
}

impl Told {
    /// Whether the request is to blame, not the deployment.
    pub(super) const fn is_requests_fault(&self) -> bool {
        match self {
            Self::Refusal(refusal) => refusal.blames_upstream().is_none(),
            Self::Answer(answer) => !matches!(answer.fault, Fault::Wait | Fault::Transient),
        }
    }

    /// Why, in one word.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refusal(refusal) => refusal.code(),
            Self::Answer(answer) => answer.fault.code(),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::Answer(answer) => {
                write!(f, "answered {}: {}", answer.status, provider::message(answer.status, &answer.body))
            }
        }
    }
}

/// Makes one attempt. `deadline` is when everything must be over.
pub(super) async fn make<C: Client>(
    means: Means<'_>,
    prepared: &Prepared,
    chosen: &Chosen,
    entry: Entry,
    deadline: Instant,
    presence: &mut Presence<'_, C>,
    mut record: Box<Record>,
) -> Attempted {
    let deployment = &chosen.deployment;
    record.note(|outcome| outcome.deployment = Some(Arc::clone(&deployment.name)));
    let (Some(upstream), Ok(form)) = (prepared.live.upstream(deployment), prepared.forms.of(deployment))
    else {
        // both were there when it was drawn
        let refusal = Refusal::UnknownModel(prepared.forms.asked().model.as_str().to_owned());
        return Failed::unsent(refusal).with(record);
    };
    let attempt = Attempt {
        means,
        prepared,
        deployment,
        upstream,
        form,
        model: prepared.resolved.upstream_model(deployment),
        deadline,
        sent: AtomicBool::new(false),
    };
    record.waits();
    let stay = tokio::select! {
        biased;
        entered = attempt.enter(entry) => entered,
        () = presence.left() => return Attempted::Ended(Refusal::ClientGone, record),
    };
    record.goes_on();
    let stay = match stay {
        Ok(stay) => stay,
        Err(unready) => return attempt.unready(unready, record),
    };
    let since = clock::monotonic();
    match attempt.pay(presence, &mut record).await {
        Ok(output_cap) => attempt.send(stay, output_cap, presence, record).await,
        Err(Unmade::Unpaid(Unpaid::Refused(refusal))) => Attempted::Ended(refusal, record),
        Err(Unmade::Unpaid(Unpaid::PassedOver { refusal, cheaper })) => {
            Failed { cheaper, again: false, ..Failed::unsent(refusal) }.with(record)
        }
        Err(Unmade::Unreachable(error)) => {
            attempt.visit(stay, None, since).failed(error.code());
            record.asks(attempt.asked(), since);
            record.attempt_ended(None);
            Failed::unsent(attempt.refusal(error)).with(record)
        }
    }
}

/// Why a request is not sent to a deployment.
enum Unmade {
    Unpaid(Unpaid),
    Unreachable(UpstreamError),
}

impl From<Unpaid> for Unmade {
    fn from(unpaid: Unpaid) -> Self {
        Self::Unpaid(unpaid)
    }
}

impl Failed {
    fn unsent(refusal: Refusal) -> Self {
        Self {
            failure: Failure::NothingSent,
            wait_asked: None,
            told: Told::Refusal(refusal),
            unready: None,
            cheaper: false,
            again: true,
        }
    }

    /// Notes it as a failed attempt; one that was not asked, for our own reasons, has not failed.
    pub(super) fn is_noted(&self, deployment: &Deployment, record: &mut Record) {
        if self.again {
            let told = &self.told;
            record.attempt_failed(&deployment.name, told.code(), told.is_requests_fault(), told);
        }
    }

    fn with(self, record: Box<Record>) -> Attempted {
        Attempted::Failed(Box::new(self), record)
    }
}

struct Attempt<'a> {
    means: Means<'a>,
    prepared: &'a Prepared,
    deployment: &'a Arc<Deployment>,
    upstream: &'a Arc<Upstream>,
    form: Form,
    /// The provider's own name of the model.
    model: Arc<str>,
    deadline: Instant,
    /// Whether the upstream may have seen any of it.
    sent: AtomicBool,
}

impl Attempt<'_> {
    async fn enter(&self, entry: Entry) -> Result<Stay, Unready> {
        let (board, tokens, now) = (self.means.board, self.prepared.tokens, clock::monotonic());
        match entry {
            Entry::AtOnce => board.try_enter(self.deployment, tokens, now),
            Entry::Queued => {
                let longest = self.deadline.saturating_duration_since(now);
                board.enter(self.deployment, tokens, longest, now).await
            }
        }
    }

    fn unready(&self, unready: Unready, record: Box<Record>) -> Attempted {
        let refusal = Refusal::Busy { deployment: Arc::clone(&self.deployment.name), unready };
        Failed { unready: Some(unready), again: false, ..Failed::unsent(refusal) }.with(record)
    }

    /// Holds what the request can cost on the deployment, and connects meanwhile. The cap that must be written upstream.
    async fn pay<C: Client>(
        &self,
        presence: &mut Presence<'_, C>,
        record: &mut Record,
    ) -> Result<Option<OutputCap>, Unmade> {
        let (request_id, book) = (record.request_id(), Arc::clone(record.book()));
        let wanted = self.prepared.wanted(&self.form, self.deployment, &self.model);
        let mut held_at = None;
        let held = async {
            let hold = async {
                let held = self.means.money.reserve(wanted, &request_id, book.metrics()).await;
                held_at = Some(clock::monotonic());
                held
            };
            let limit = self.deployment.timeouts.connect;
            // a refusal does not wait for a connection that it does not need
            tokio::try_join!(hold, async { Ok(self.upstream.link.warm(limit).await) })
        };
        let both = tokio::select! {
            biased;
            both = held => Some(both),
            // what may have been held meanwhile is released: nobody has taken it over
            () = presence.left() => None,
        };
        if let Some(held_at) = held_at {
            // from there on only the connection was waited for
            record.waits_for_since(held_at);
            record.goes_on();
        }
        let Some(both) = both else { return Err(Unpaid::Refused(Refusal::ClientGone).into()) };
        let (Reserved { bill, output_cap }, warm) = both?;
        if let Err(error) = warm {
            bill.settle(None);
            return Err(Unmade::Unreachable(error));
        }
        let put = bill.put().cloned();
        record.note(|outcome| {
            outcome.injected_tokens = put.as_ref().map(|put| put.tokens);
            outcome.prompt = put.map(|put| put.prompt);
        });
        record.owes(bill);
        Ok(output_cap)
    }

    async fn send<C: Client>(
        self,
        stay: Stay,
        output_cap: Option<OutputCap>,
        presence: &mut Presence<'_, C>,
        mut record: Box<Record>,
    ) -> Attempted {
        let named = if self.form.translated { CapNamed::ByUs } else { CapNamed::ByClient };
        let outgoing =
            provider::inference(self.deployment, &self.form.request, &self.model, output_cap, named);
        let span = record.asks(self.asked(), clock::monotonic());
        let asking = Asking {
            deployment: self.deployment,
            unseen: self.deployment.makes_unseen_tokens(&self.model),
            upstream: self.upstream,
            outgoing: &outgoing,
            headers: &trace::headers(&self.prepared.headers, record.trace(), span),
            deadline: self.deadline,
            sent: &self.sent,
        };
        let visit = self.visit(stay, output_cap, clock::monotonic());
        self.counts_prompt(&record);
        if let Some(bill) = record.bill() {
            bill.sent();
        }
        let bills_time = record.bill().is_some_and(|bill| bill.priced().bills_time());
        let facts = self.facts(asking.unseen, bills_time);
        let wait = record.if_dropped(|| asking.was_sent().then(|| facts.unanswered()));
        let answered = asking.watched(self.form.request.stream, presence).await;
        wait.ends();
        match answered {
            Ok(exchange) => {
                let usage_injected = outgoing.usage_injected;
                self.judge(visit, exchange, facts, usage_injected, output_cap, presence, record).await
            }
            Err(Refusal::Upstream { error, .. }) => {
                self.unanswered(visit, error, &facts, presence.is_gone(), record)
            }
            Err(refusal) => {
                // the client has left
                if asking.was_sent() {
                    record.usage(facts.unanswered());
                }
                Attempted::Ended(refusal, record)
            }
        }
    }

    /// Counts the stored prompt that is sent, and whether the model hears other words than it was trained with.
    fn counts_prompt(&self, record: &Record) {
        let (metrics, model) = (&record.book().metrics().prompts, &self.prepared.attribution.model);
        if let (Some(put), Some(tokens)) = (&self.form.put, record.injected_tokens()) {
            metrics.injected(put.words.name(), model, &self.deployment.name, tokens);
        }
        let Some(trained) = &self.deployment.trained_with else { return };
        let said = self.form.request.system_message();
        let words = self.form.put.as_ref().map(|put| &put.words);
        if is_mismatch(&self.prepared.shelf, trained, said.as_deref(), words) == Some(true) {
            metrics.mismatched(model, &self.deployment.name);
        }
    }

    fn asked(&self) -> Asked<'_> {
        let request = &self.form.request;
        Asked {
            deployment: self.deployment,
            model: &self.model,
            endpoint: request.endpoint,
            stream: request.stream,
        }
    }

    /// A visit that begins at a moment.
    fn visit(&self, stay: Stay, output_cap: Option<OutputCap>, at: Instant) -> Visit {
        let request = &self.form.request;
        let cap = output_cap.map(|cap| cap.tokens).or_else(|| request.output_cap());
        let cap = cap.map(|cap| cap.saturating_mul(request.choices()));
        Visit::new(stay, Arc::clone(self.means.board), self.purpose(), cap, at)
    }

    fn purpose(&self) -> Purpose {
        Purpose {
            model: Arc::clone(&self.prepared.attribution.model),
            deployment: Arc::clone(self.deployment),
            endpoint: self.form.request.endpoint,
            stream: self.form.request.stream,
        }
    }

    fn facts(&self, unseen: bool, bills_time: bool) -> Facts {
        Facts {
            admitted: self.prepared.admitted.clone(),
            request: Arc::clone(&self.form.request),
            deployment: Arc::clone(self.deployment),
            unseen,
            prompt_tokens: None,
            computing: Computing::begun(bills_time, clock::monotonic()),
        }
    }

    fn refusal(&self, error: UpstreamError) -> Refusal {
        Refusal::Upstream { deployment: Arc::clone(&self.deployment.name), error }
    }

    /// No head of an answer has come.
    fn unanswered(
        &self,
        visit: Visit,
        error: UpstreamError,
        facts: &Facts,
        client_gone: bool,
        mut record: Box<Record>,
    ) -> Attempted {
        match client_gone {
            // it may be our patience that has ended, and nothing of its own
            true => drop(visit),
            false => visit.failed(error.code()),
        }
        let failure = match &error {
            error if error.nothing_was_sent() => Failure::NothingSent,
            UpstreamError::Timeout(_) => Failure::TimedOut,
            _ => Failure::Broke,
        };
        let usage = (failure != Failure::NothingSent).then(|| facts.unanswered());
        if client_gone {
            if let Some(usage) = usage {
                record.usage(usage);
            }
            return Attempted::Ended(Refusal::ClientGone, record);
        }
        record.attempt_over(usage);
        Failed { failure, ..Failed::unsent(self.refusal(error)) }.with(record)
    }

    /// Sorts an answer's head: on its way, or a no.
    #[expect(clippy::too_many_arguments, reason = "all that is known when a head has come")]
    async fn judge<C: Client>(
        &self,
        visit: Visit,
        exchange: Exchange,
        facts: Facts,
        usage_injected: bool,
        output_cap: Option<OutputCap>,
        presence: &mut Presence<'_, C>,
        mut record: Box<Record>,
    ) -> Attempted {
        record.first_byte();
        let status = exchange.status();
        record.upstream_status(status);
        visit.stay().seen(&quota_seen(exchange.headers()), clock::monotonic());
        if status >= 300 {
            return self.refused(visit, exchange, &facts, record).await;
        }
        let capturer = self.means.capturer;
        let sent = &self.form.request;
        let capturing = capturer.begin(self.prepared, self.deployment, sent, &self.model, &record);
        let echo = self.form.translated.then(|| self.prepared.forms.asked());
        let following = meter::Following {
            facts,
            exchange: Box::new(exchange),
            usage_injected,
            shared: self.prepared.shared,
            deadline: self.deadline,
            visit,
            pins: self.means.pins,
            response: echo.map(|asked| meter::Response::of(asked, &record)),
            output_cap,
            notices: self.notices(),
            capturing,
        };
        // boxed: the largest of a request's states, and gone once a stream has begun
        match Box::pin(meter::follow(following, presence, record)).await {
            Followed::Answer(answer) => Attempted::Answered(answer),
            Followed::ClientGone(record) => Attempted::Ended(Refusal::ClientGone, record),
            Followed::Fault(fault, words, record) => {
                let refusal = Refusal::UpstreamFault {
                    deployment: Arc::clone(&self.deployment.name),
                    fault,
                    status,
                    message: words,
                };
                Failed { failure: Failure::Fault(fault), ..Failed::unsent(refusal) }.with(record)
            }
            Followed::Broke(error, record) => {
                let timed_out = matches!(error, UpstreamError::Timeout(Phase::BetweenChunks | Phase::Total));
                let failure = if timed_out { Failure::TimedOut } else { Failure::Broke };
                Failed { failure, ..Failed::unsent(self.refusal(error)) }.with(record)
            }
        }
    }

    /// What its clients should know of the deployment.
    fn notices(&self) -> Vec<(HeaderName, HeaderValue)> {
        let retirements = self.means.retirements;
        let retirement = retirements.of(self.deployment, &self.model);
        let headers = retirement
            .and_then(|retirement| retirements.headers(&self.deployment.name, &retirement, clock::unix_ms()));
        headers.map_or_else(Vec::new, Vec::from)
    }

    /// An upstream's no.
    async fn refused(
        &self,
        visit: Visit,
        mut exchange: Exchange,
        facts: &Facts,
        mut record: Box<Record>,
    ) -> Attempted {
        let status = exchange.status();
        let between = self.deployment.timeouts.between_chunks.min(Duration::from_secs(30));
        record.waits();
        let body = exchange.whole(ERROR_BYTES, between, self.deadline).await.unwrap_or_default();
        record.goes_on();
        let headers = exchange.headers().clone();
        exchange.release().await;
        if status < 400 {
            visit.refused(Fault::DeploymentMissing, None);
            record.attempt_over(None);
            let failure = Failure::Fault(Fault::DeploymentMissing);
            return Failed { failure, ..Failed::unsent(redirected(self.deployment, status)) }.with(record);
        }
        let fault = provider::fault(status, &body);
        let wait_asked = asked_to_wait(&headers);
        visit.refused(fault, wait_asked);
        let billed = provider::bills_refusal(&self.deployment.provider.dialect, status, &body);
        record.attempt_over(billed.then(|| self.billed_refusal(facts)));
        let told = match fault.is_our_trouble() {
            true => Told::Refusal(our_trouble(self.deployment, fault, status, &body)),
            false => Told::Answer(ToldAnswer {
                status,
                fault,
                headers: passed(&headers, self.deployment, "application/json"),
                body: provider::envelope(status, &body),
            }),
        };
        Failed {
            failure: Failure::Fault(fault),
            wait_asked,
            told,
            unready: None,
            cheaper: false,
            again: true,
        }
        .with(record)
    }

    /// A provider that bills what it refuses has read the input alone.
    fn billed_refusal(&self, facts: &Facts) -> Usage {
        facts.estimated(&mut StreamReader::new(self.form.request.endpoint, false))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn quota_seen(headers: &HeaderMap) -> QuotaSeen {
    QuotaSeen::read(|name| text(headers, name))
}

fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    wait_asked(text(headers, "retry-after-ms"), text(headers, "retry-after"), clock::unix_ms())
}
