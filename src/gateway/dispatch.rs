//! Asks the deployments in their order until one answers.
//!
//! For now the next one is asked only when the one before can't have seen the request; what an upstream itself said is
//! final. A token that Entra no longer honours is renewed once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::time::timeout;

use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::record::Record;
use super::refusal::Refusal;
use super::reserve::{Money, Reserved, Unpaid};
use super::settle::{self, SentTo};
use crate::clock;
use crate::domain::catalog::{Deployment, Timeouts};
use crate::domain::leaving::{Leaving, leaving};
use crate::domain::request::OutputCap;
use crate::provider::{self, Fault, Outgoing};
use crate::upstream::http::Exchange;
use crate::upstream::{Phase, Upstream, UpstreamError};

/// How much of an upstream's error we read.
const ERROR_BYTES: usize = 1 << 20;
/// What we tell upstreams we are.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tunegate/", env!("CARGO_PKG_VERSION")));

/// An upstream that has answered.
pub(super) struct Attempt {
    /// Which one.
    pub deployment: Arc<Deployment>,
    /// What it says.
    pub reply: Reply,
    /// Whether it makes tokens that the client does not see.
    pub unseen: bool,
    /// When everything must be over.
    pub deadline: Instant,
    /// The cap on the output that we wrote into the request.
    pub output_cap: Option<OutputCap>,
}

/// What an upstream says.
pub(super) enum Reply {
    /// Yes: the answer is on its way.
    Answer {
        /// Where it comes from.
        exchange: Box<Exchange>,
        /// Whether its usage chunk was asked for by us alone.
        usage_injected: bool,
    },
    /// No, for a reason the client shall hear.
    Told {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: HeaderMap,
        /// Its error, in OpenAI's envelope.
        body: Bytes,
    },
}

/// Why no upstream has answered.
pub(super) struct Unanswered {
    /// What the client is told.
    pub refusal: Refusal,
    /// The deployment that may have begun to work.
    pub sent_to: Option<SentTo>,
}

/// Asks until one answers. A client that leaves meanwhile ends the asking, unless its answer must be paid for anyway.
pub(super) async fn ask<C: Client>(
    money: &Money,
    prepared: &Prepared,
    presence: &mut Presence<'_, C>,
    record: &mut Record,
) -> Result<Attempt, Unanswered> {
    let mut last: Option<Refusal> = None;
    for deployment in &prepared.order {
        // the last of them is blamed where the refusal is written
        if let Some(passed_over) = last.take() {
            record.blame(&passed_over);
        }
        record.note(|outcome| outcome.deployment = Some(Arc::clone(&deployment.name)));
        let Some(upstream) = prepared.live.upstream(deployment) else { continue };
        let model = prepared.resolved.upstream_model(deployment);
        let output_cap = match pay(money, prepared, deployment, upstream, &model, presence, record).await {
            Ok(output_cap) => output_cap,
            Err(Unpaid::Refused(refusal)) => return Err(Unanswered { refusal, sent_to: None }),
            Err(Unpaid::PassedOver(refusal)) => {
                last = Some(refusal);
                continue;
            }
        };
        let outgoing = provider::inference(deployment, &prepared.request, &model, output_cap);
        let asking = Asking {
            deployment,
            unseen: deployment.makes_unseen_tokens(&model),
            upstream,
            outgoing: &outgoing,
            headers: &prepared.headers,
            deadline: clock::monotonic() + deployment.timeouts.total,
            sent: AtomicBool::new(false),
        };
        if let Some(bill) = record.bill() {
            bill.sent();
        }
        let wait = record.if_dropped(|| Some(settle::unanswered(prepared, &asking.sent_to()?)));
        let answered = asking.watched(prepared.request.stream, presence).await;
        wait.ends();
        let refusal = match answered {
            Ok(exchange) => {
                let usage_injected = outgoing.usage_injected;
                return judge(&asking, exchange, usage_injected, output_cap, record).await;
            }
            Err(Refusal::Upstream { error, .. }) if error.nothing_was_sent() => {
                last = Some(asking.refusal(error));
                record.owes_nothing();
                continue;
            }
            Err(refusal) => refusal,
        };
        return Err(Unanswered { refusal, sent_to: asking.sent_to() });
    }
    let refusal = last.unwrap_or_else(|| Refusal::UnknownModel(prepared.request.model.as_str().to_owned()));
    Err(Unanswered { refusal, sent_to: None })
}

/// Holds what the request can cost on a deployment, and connects meanwhile. The cap that must be written upstream.
async fn pay<C: Client>(
    money: &Money,
    prepared: &Prepared,
    deployment: &Arc<Deployment>,
    upstream: &Upstream,
    model: &str,
    presence: &mut Presence<'_, C>,
    record: &mut Record,
) -> Result<Option<OutputCap>, Unpaid> {
    let (request_id, book) = (record.request_id(), Arc::clone(record.book()));
    let held = async {
        let hold = money.reserve(prepared, deployment, model, &request_id, book.metrics());
        // a refusal does not wait for a connection that it does not need
        tokio::try_join!(hold, async { Ok(upstream.link.warm(deployment.timeouts.connect).await) })
    };
    let both = tokio::select! {
        biased;
        both = held => both,
        // what may have been held meanwhile is released: nobody has taken it over
        () = presence.left() => return Err(Unpaid::Refused(Refusal::ClientGone)),
    };
    let (Reserved { bill, output_cap }, warm) = both?;
    if let Err(error) = warm {
        bill.settle(None);
        let deployment = Arc::clone(&deployment.name);
        return Err(Unpaid::PassedOver(Refusal::Upstream { deployment, error }));
    }
    record.owes(bill);
    Ok(output_cap)
}

/// One deployment being asked.
struct Asking<'a> {
    deployment: &'a Arc<Deployment>,
    unseen: bool,
    upstream: &'a Arc<Upstream>,
    outgoing: &'a Outgoing,
    headers: &'a [(HeaderName, HeaderValue)],
    deadline: Instant,
    /// Whether the upstream may have seen any of it.
    sent: AtomicBool,
}

impl Asking<'_> {
    async fn watched<C: Client>(
        &self,
        stream: bool,
        presence: &mut Presence<'_, C>,
    ) -> Result<Exchange, Refusal> {
        let mut opening = pin!(self.open());
        let opened = tokio::select! {
            biased;
            opened = &mut opening => Some(opened),
            () = presence.left() => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None if !self.sent.load(Ordering::Relaxed) => return Err(Refusal::ClientGone),
            None => match leaving(self.deployment, stream, self.unseen) {
                Leaving::Abort => return Err(Refusal::ClientGone),
                Leaving::ReadOn(limit) => {
                    timeout(limit, opening).await.unwrap_or(Err(UpstreamError::Timeout(Phase::Total)))
                }
            },
        };
        opened.map_err(|error| self.refusal(error))
    }

    /// Itself, where it may have begun to work.
    fn sent_to(&self) -> Option<SentTo> {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.then(|| SentTo { deployment: Arc::clone(self.deployment), unseen: self.unseen })
    }

    fn refusal(&self, error: UpstreamError) -> Refusal {
        Refusal::Upstream { deployment: Arc::clone(&self.deployment.name), error }
    }

    async fn open(&self) -> Result<Exchange, UpstreamError> {
        let exchange = open(
            self.upstream,
            self.outgoing,
            self.headers,
            &self.deployment.timeouts,
            self.deadline,
            &self.sent,
        );
        exchange.await
    }
}

/// Opens an exchange with our credential; one that is refused and can be renewed is renewed, once.
pub(super) async fn open(
    upstream: &Upstream,
    outgoing: &Outgoing,
    client_headers: &[(HeaderName, HeaderValue)],
    timeouts: &Timeouts,
    deadline: Instant,
    sent: &AtomicBool,
) -> Result<Exchange, UpstreamError> {
    let mut renewed = false;
    loop {
        let authorization = upstream.authorization(clock::monotonic()).await?;
        let mut headers = Vec::with_capacity(client_headers.len() + 4);
        headers.extend_from_slice(client_headers);
        headers.push((header::USER_AGENT, USER_AGENT));
        // a compressed stream can't be read as it passes
        headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        headers.extend(provider::authorize(upstream.provider(), &authorization));
        let exchange = upstream.link.open(outgoing, &headers, timeouts, deadline, sent).await?;
        if exchange.status() == 401 && !renewed && upstream.refused(&authorization, clock::monotonic()) {
            renewed = true;
            exchange.discard().await;
            continue;
        }
        return Ok(exchange);
    }
}

/// Sorts an answer's head: on its way, the client's to hear, or our trouble.
async fn judge(
    asking: &Asking<'_>,
    mut exchange: Exchange,
    usage_injected: bool,
    output_cap: Option<OutputCap>,
    record: &mut Record,
) -> Result<Attempt, Unanswered> {
    record.first_byte();
    let status = exchange.status();
    record.note(|outcome| outcome.upstream_status = Some(status));
    let (deployment, unseen, deadline) = (Arc::clone(asking.deployment), asking.unseen, asking.deadline);
    if status < 300 {
        return Ok(Attempt {
            deployment,
            reply: Reply::Answer { exchange: Box::new(exchange), usage_injected },
            unseen,
            deadline,
            output_cap,
        });
    }
    let between = deployment.timeouts.between_chunks.min(Duration::from_secs(30));
    let body = exchange.whole(ERROR_BYTES, between, deadline).await.unwrap_or_default();
    let headers = exchange.headers().clone();
    exchange.release().await;
    if status < 400 {
        return Err(Unanswered { refusal: redirected(&deployment, status), sent_to: None });
    }
    match provider::fault(status, &body) {
        fault if !fault.is_our_trouble() => {
            let body = provider::envelope(status, &body);
            Ok(Attempt {
                deployment,
                reply: Reply::Told { status, headers, body },
                unseen,
                deadline,
                output_cap,
            })
        }
        fault => Err(Unanswered { refusal: our_trouble(&deployment, fault, status, &body), sent_to: None }),
    }
}

/// A redirect: followed, it would carry our credential elsewhere.
pub(super) fn redirected(deployment: &Deployment, status: u16) -> Refusal {
    Refusal::UpstreamFault {
        deployment: Arc::clone(&deployment.name),
        fault: Fault::DeploymentMissing,
        status,
        message: "its base URL answers with a redirect: check it".to_owned(),
    }
}

/// An upstream's no to us, which is none to the client.
pub(super) fn our_trouble(deployment: &Deployment, fault: Fault, status: u16, body: &[u8]) -> Refusal {
    let message = provider::message(status, body);
    Refusal::UpstreamFault { deployment: Arc::clone(&deployment.name), fault, status, message }
}
