//! A stream: metered as it passes, settled at its end. Its first event is waited for before the client gets anything, so
//! that another deployment can still be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue};
use pingora::time::sleep;
use serde::de::IgnoredAny;

use super::{Answer, AnswerBody, Followed, Following, is_framed, passed};
use crate::clock;
use crate::domain::fault::Fault;
use crate::domain::leaving::{Leaving, leaving};
use crate::domain::outcome::Ending;
use crate::domain::priced::Priced;
use crate::domain::stream::StreamReader;
use crate::domain::translate::ResponsesStream;
use crate::domain::usage::Usage;
use crate::gateway::capture::Capturing;
use crate::gateway::pins::Pins;
use crate::gateway::presence::{Client, Presence};
use crate::gateway::record::Record;
use crate::gateway::settle::Facts;
use crate::gateway::visit::Visit;
use crate::provider;
use crate::sse;
use crate::upstream::UpstreamError;
use crate::upstream::http::Exchange;

/// So long the first event is waited for before the client gets the head. After that it must not be left in silence: what
/// stands between it and us may give it up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of comments that are kept back before the first event; a provider that sends more is not waited for.
const MOST_COMMENTS: usize = 64 << 10;

/// Chunks that are still read, without waiting for any, of a stream that is stopped.
const MOST_UNREAD: usize = 64;

/// Waits for a stream's first event.
pub(super) async fn begin<C: Client>(
    following: Following<'_>,
    presence: &mut Presence<'_, C>,
    mut record: Box<Record>,
) -> Followed {
    let Following {
        facts, exchange, usage_injected, shared, deadline, visit, pins, response, capturing, ..
    } = following;
    let status = exchange.status();
    let headers = passed(exchange.headers(), &facts.deployment, "text/event-stream; charset=utf-8");
    let framed = is_framed(&exchange);
    // counted only where it is needed: that takes a while
    let unanswered = facts.clone();
    let priced = record.bill().map(|bill| bill.priced().clone());
    let translator = response.map(|it| ResponsesStream::new(it.echo, it.id, it.created_at_s));
    // what is translated ends with its usage, whoever asked for it
    let as_it_came = shared || translator.is_some();
    let reader =
        StreamReader::new(facts.request.endpoint, usage_injected && !as_it_came).told_by(facts.told_by());
    let reader = if as_it_came { reader } else { reader.priced(priced) };
    let mut metered = Metered {
        facts,
        exchange: Some(exchange),
        reader,
        translator,
        deadline,
        framed,
        record: None,
        visit: Some(visit),
        pins: Arc::clone(pins),
        capturing,
        has_begun: false,
        comments: BytesMut::new(),
        first: None,
    };
    let wait = record.if_dropped(|| Some(unanswered.unanswered()));
    let first = tokio::select! {
        biased;
        first = metered.first_event() => Some(first),
        () = presence.left() => None,
        () = sleep(PATIENCE) => {
            wait.ends();
            return Followed::Answer(Box::new(metered.with(record, None).into_answer(status, headers)));
        }
    };
    let ended = match first {
        Some(Ok(Some(bytes))) => match amiss(&bytes) {
            None => {
                wait.ends();
                metered.begun();
                record.first_chunk();
                let metered = metered.with(record, Some(bytes));
                return Followed::Answer(Box::new(metered.into_answer(status, headers)));
            }
            Some(amiss) => amiss,
        },
        Some(Ok(None)) => Ended::Broke(UpstreamError::Broken("its stream is empty".to_owned())),
        Some(Err(error)) => Ended::Broke(error),
        None => Ended::ClientGone,
    };
    match &ended {
        Ended::ClientGone => metered.stop().await,
        Ended::Fault(fault, _) => metered.give_up(Why::Refused(*fault)).await,
        Ended::Broke(error) => metered.give_up(Why::Failed(error.code())).await,
    }
    wait.ends();
    let usage = metered.usage();
    match &ended {
        Ended::ClientGone => record.usage(usage),
        Ended::Fault(..) | Ended::Broke(_) => record.attempt_over(Some(usage)),
    }
    match ended {
        Ended::ClientGone => Followed::ClientGone(record),
        Ended::Fault(fault, words) => Followed::Fault(fault, words, record),
        Ended::Broke(error) => Followed::Broke(error, record),
    }
}

/// How a stream ended of which the client got nothing.
enum Ended {
    ClientGone,
    Fault(Fault, String),
    Broke(UpstreamError),
}

/// Why a stream is not read on.
enum Why {
    /// It says no.
    Refused(Fault),
    /// It failed: our code.
    Failed(&'static str),
}

/// What is wrong with the first that came of a stream, if anything is: an error among its events, or no JSON.
fn amiss(first: &Bytes) -> Option<Ended> {
    let (mut found, mut is_first) = (None, true);
    sse::Splitter::new().push(first.clone(), |piece| {
        let sse::Piece::Event(event) = piece else { return };
        let Some(json) = sse::data(&event).filter(|json| **json != *b"[DONE]") else { return };
        let amiss = match provider::fault_of_event(&json) {
            Some(fault) => Some(Ended::Fault(fault, provider::message(200, &json))),
            None if std::mem::take(&mut is_first) && serde_json::from_slice::<IgnoredAny>(&json).is_err() => {
                Some(Ended::Broke(UpstreamError::Broken("its first event is no JSON".to_owned())))
            }
            None => None,
        };
        found = found.take().or(amiss);
    });
    found
}

/// Whether there is more than comments in whole events.
fn has_event(events: &Bytes) -> bool {
    let mut found = false;
    sse::Splitter::new().push(events.clone(), |piece| {
        found |= matches!(&piece, sse::Piece::Event(event) if sse::data(event).is_some());
    });
    found
}

/// A stream being metered. It settles itself at its end; dropped on the way, it settles at what was counted.
pub struct Metered {
    facts: Facts,
    /// Nothing once it has ended.
    exchange: Option<Box<Exchange>>,
    reader: StreamReader,
    /// Makes a response of it, where one was asked for.
    translator: Option<ResponsesStream>,
    deadline: Instant,
    /// Whether the transport tells an end from a break.
    framed: bool,
    /// Nothing before the first event, and once it is written.
    record: Option<Box<Record>>,
    /// Nothing once it is over.
    visit: Option<Visit>,
    pins: Arc<Pins>,
    /// Listens to it, where it may become a row of a data set.
    capturing: Option<Capturing>,
    /// Whether an event has come.
    has_begun: bool,
    /// Comments that came before the first event and are not handed on yet.
    comments: BytesMut,
    /// What has come behind them and is not handed on yet.
    first: Option<Bytes>,
}

/// The next of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes for the client: whole events.
    Bytes(Bytes),
    /// The end; it is settled.
    End,
    /// It broke off: an error event for the client, whose connection must then end uncleanly. It is settled.
    Broke(Bytes),
}

impl Metered {
    /// What its tokens cost, where that is told with them.
    pub(in crate::gateway) fn priced(&mut self) -> Option<Priced> {
        let told = self.translator.is_none();
        let bill = self.record.as_mut().and_then(|record| record.bill()).filter(|_| told)?;
        Some(bill.priced().clone())
    }

    /// The next bytes. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Next::Bytes(first);
        }
        match self.advance().await {
            Ok(Some(bytes)) => {
                // comments are no beginning
                if !self.has_begun && has_event(&bytes) {
                    self.begun();
                }
                Next::Bytes(bytes)
            }
            Ok(None) => Next::End,
            Err(error) => self.broke(&error).await,
        }
    }

    /// What comes first that is more than a comment: a provider that is about to fail sends those, too.
    async fn first_event(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while let Some(bytes) = self.advance().await? {
            if has_event(&bytes) || self.comments.len() + bytes.len() > MOST_COMMENTS {
                return Ok(Some(bytes));
            }
            self.comments.extend_from_slice(&bytes);
        }
        Ok(None)
    }

    /// The answer has begun, and well.
    fn begun(&mut self) {
        self.has_begun = true;
        if let Some(visit) = &mut self.visit {
            visit.first();
        }
        if let Some(record) = &mut self.record {
            record.first_chunk();
        }
    }

    /// The next bytes for the client, or nothing at the end, which settles it.
    async fn advance(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let Some(exchange) = &mut self.exchange else { return Ok(None) };
            // before the first event somebody else has the record
            if let Some(record) = &mut self.record {
                record.waits();
            }
            let chunk = exchange.chunk(self.facts.deployment.timeouts.between_chunks, self.deadline).await;
            self.goes_on();
            match chunk? {
                Some(chunk) => {
                    if let Some(visit) = &mut self.visit {
                        visit.chunk(clock::monotonic());
                    }
                    self.capturing = self.capturing.take().and_then(|capturing| capturing.hears(&chunk));
                    let out = self.hears(chunk);
                    self.first = Some(self.translated(out));
                    // whoever drops this here finds it again
                    self.remember().await;
                    let out = self.first.take().unwrap_or_default();
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
                None => {
                    let rest = self.reader.finish();
                    if !self.reader.is_complete() && !self.reader.has_failed() {
                        let why = if self.framed {
                            "its stream ends too early"
                        } else {
                            "the connection was closed"
                        };
                        return Err(UpstreamError::Broken(why.to_owned()));
                    }
                    let mut rest = self.translated(rest);
                    if let Some(translator) = &mut self.translator {
                        rest = [rest, translator.finish()].concat().into();
                        if !translator.is_ended() {
                            return Err(UpstreamError::Broken(
                                "its stream does not say why it ends".to_owned(),
                            ));
                        }
                    }
                    let usage = self.usage();
                    if let Some(record) = &mut self.record {
                        record.usage(usage);
                        record.attempt_ended(Some(usage));
                    }
                    self.over(usage);
                    self.first = Some(rest);
                    if let Some(exchange) = self.exchange.take() {
                        exchange.release().await;
                    }
                    return Ok(self.first.take().filter(|rest| !rest.is_empty()));
                }
            }
        }
    }

    /// Takes in what has come, and how long our worker says it has computed so far.
    fn hears(&mut self, chunk: Bytes) -> Bytes {
        let out = self.reader.push(chunk);
        if let Some(told_us) = self.reader.take_computed_us() {
            self.facts.computing = self.facts.computing.told(told_us, clock::monotonic());
        }
        out
    }

    /// From now on the client is waited for.
    pub fn waits(&mut self) {
        if let Some(record) = &mut self.record {
            record.waits();
        }
    }

    /// The wait is over.
    pub fn goes_on(&mut self) {
        if let Some(record) = &mut self.record {
            record.goes_on();
        }
    }

    /// Whether the stream itself says that it failed.
    fn has_failed(&self) -> bool {
        self.reader.has_failed() || self.translator.as_ref().is_some_and(ResponsesStream::has_failed)
    }

    fn translated(&mut self, bytes: Bytes) -> Bytes {
        match &mut self.translator {
            Some(translator) if !bytes.is_empty() => translator.push(bytes),
            _ => bytes,
        }
    }

    /// The end of the visit: it went well unless the stream itself says otherwise.
    fn over(&mut self, usage: Usage) {
        if let Some(capturing) = self.capturing.take() {
            match self.has_failed() {
                true => capturing.broke(),
                false => capturing.ends(),
            }
        }
        let Some(visit) = self.visit.take() else { return };
        match self.has_failed() {
            true => visit.failed("upstream_broke"),
            false => visit.ended(Some(&usage)),
        }
    }

    /// Stops a stream that is not worth reading on: it broke off, or said no.
    async fn give_up(&mut self, why: Why) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abort().await;
        }
        match (self.visit.take(), why) {
            (Some(visit), Why::Refused(fault)) => visit.refused(fault, None),
            (Some(visit), Why::Failed(code)) => visit.failed(code),
            (None, _) => {}
        }
    }

    /// The stream as the client gets it, from its first event on.
    fn with(mut self, record: Box<Record>, first: Option<Bytes>) -> Self {
        self.record = Some(record);
        let first = first.or_else(|| self.first.take());
        self.first = match self.comments.is_empty() {
            true => first,
            false => Some([self.comments.split().freeze(), first.unwrap_or_default()].concat().into()),
        };
        if self.exchange.is_none() {
            // that was all of it
            self.settle_usage();
        }
        self
    }

    fn into_answer(self, status: u16, headers: Vec<(HeaderName, HeaderValue)>) -> Answer {
        let body = AnswerBody::Stream(Box::new(self));
        Answer { status, headers, body, output_cap: None }
    }

    /// Ends the record after the client got everything; an error event of the upstream's is no good end.
    pub fn served(self, status: u16) {
        if let Some((record, ending)) = self.after_the_end() {
            record.ended(ending, status);
        }
    }

    /// The outcome after [`Next::End`], and how it ended.
    pub(in crate::gateway) fn after_the_end(mut self) -> Option<(Box<Record>, Ending)> {
        let mut record = self.record.take()?;
        if !self.has_failed() {
            return Some((record, Ending::Served));
        }
        record.book().metrics().upstreams.failed(&self.facts.deployment.name, "upstream_broke");
        record.note(|outcome| outcome.code = Some("upstream_broke"));
        Some((record, Ending::UpstreamBroke))
    }

    /// Ends the record after [`Next::Broke`].
    pub fn broken(self, status: u16) {
        if let Some((record, ending)) = self.after_a_break() {
            record.ended(ending, status);
        }
    }

    /// The outcome after [`Next::Broke`], and how it ended.
    pub(in crate::gateway) fn after_a_break(mut self) -> Option<(Box<Record>, Ending)> {
        let mut record = self.record.take()?;
        record.note(|outcome| outcome.code = Some("upstream_broke"));
        Some((record, Ending::UpstreamBroke))
    }

    /// The client has left: stops the upstream or reads on to its usage, then settles.
    pub async fn client_left(self, status: u16) {
        if let Some(record) = self.left_alone().await {
            record.ended(Ending::ClientGone, status);
        }
    }

    /// Nobody waits any more: stops the upstream or reads on to its usage. The outcome, with what was used.
    pub(in crate::gateway) async fn left_alone(mut self) -> Option<Box<Record>> {
        if let Some(capturing) = self.capturing.take() {
            capturing.broke();
        }
        self.stop().await;
        self.settle_usage();
        self.record.take()
    }

    /// Nobody waits for the answer any more.
    async fn stop(&mut self) {
        let visible = !self.reader.streamed().text.is_empty();
        let Some(mut exchange) = self.exchange.take() else { return };
        match leaving(&self.facts.deployment, true, self.facts.unseen && !visible) {
            Leaving::Abort => {
                self.read_what_has_come(&mut exchange);
                exchange.abort().await;
            }
            Leaving::ReadOn(limit) => {
                let deadline = self.deadline.min(clock::monotonic() + limit);
                let between = self.facts.deployment.timeouts.between_chunks;
                while let Ok(Some(chunk)) = exchange.chunk(between, deadline).await {
                    drop(self.hears(chunk));
                    if self.reader.usage().is_some() {
                        break;
                    }
                }
                exchange.discard().await;
            }
        }
    }

    /// Takes in what has come already and was not read yet: the usage may be in it, and all of it is billed.
    fn read_what_has_come(&mut self, exchange: &mut Exchange) {
        let between = self.facts.deployment.timeouts.between_chunks;
        for _ in 0..MOST_UNREAD {
            match exchange.chunk(between, self.deadline).now_or_never() {
                Some(Ok(Some(chunk))) => drop(self.hears(chunk)),
                _ => return,
            }
        }
    }

    async fn broke(&mut self, error: &UpstreamError) -> Next {
        let request_id = self.record.as_ref().map(|record| record.request_id());
        let request_id = request_id.as_deref();
        if let Some(capturing) = self.capturing.take() {
            capturing.broke();
        }
        tracing::warn!(request_id, deployment = %self.facts.deployment.name, %error, "a stream broke off");
        self.give_up(Why::Failed("upstream_broke")).await;
        if let Some(record) = &self.record {
            record.book().metrics().upstreams.failed(&self.facts.deployment.name, "upstream_broke");
        }
        self.settle_usage();
        let message = format!("deployment `{}` ended in mid-stream: {error}", self.facts.deployment.name);
        if let Some(translator) = &mut self.translator {
            return Next::Broke(translator.broke(&message, "upstream_broke"));
        }
        let error = serde_json::json!({"error": {
            "message": message, "type": "server_error", "param": null, "code": "upstream_broke",
        }});
        Next::Broke(sse::event(&error.to_string()))
    }

    async fn remember(&mut self) {
        let ids = self.reader.take_ids();
        // with the response's own id, which comes first
        let conversation = if ids.is_empty() { None } else { self.facts.conversation() };
        for id in ids.into_iter().chain(conversation) {
            self.pins.remember(id, &self.facts.admitted, &self.facts.deployment.name).await;
        }
    }

    fn settle_usage(&mut self) {
        if self.record.is_none() {
            return;
        }
        let usage = self.usage();
        if let Some(record) = &mut self.record {
            record.usage(usage);
        }
    }

    /// What it used, as far as it was read.
    fn usage(&mut self) -> Usage {
        match self.reader.usage() {
            Some(tokens) => self.facts.reported(tokens, self.reader.served()),
            // whatever is visible, the thoughts before it are not, and they are billed
            None if self.facts.unseen => self.facts.unconfirmed(),
            None => self.facts.estimated(&mut self.reader),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.settle_usage(); // of a record that nobody has ended
    }
}
