//! Requests that the gateway itself makes, for an operator: they go the way of all others, so that keys, limits, budgets,
//! retries and the ledger hold for them, and nothing is asked unmetered. Nothing of them is kept in the response cache, or
//! to train on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::admit::Admitted;
use super::inference::{Arrival, Gateway};
use super::limited::RateHeaders;
use super::prepare::Asker;
use super::presence::Client;
use super::record::Record;
use super::refusal::{Nobody, Refusal};
use super::reply::{Body, NoAnswer};
use crate::clock;
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::RequestId;
use crate::domain::money::Usd;
use crate::domain::usage::TokenCounts;
use crate::provider::{self, Fault};

/// The status of a refusal; the doors know it.
pub type StatusOf = fn(&Refusal) -> u16;

/// Neither looked up nor kept.
const UNCACHED: &[u8] = b"no-cache, no-store";

/// A request of our own.
pub struct OwnRequest {
    /// Who asks, and so who pays.
    pub admitted: Admitted,
    /// What is asked: a chat, or how likely a known answer is.
    pub endpoint: Endpoint,
    /// Its body.
    pub body: Bytes,
    /// What it is marked with.
    pub tags: Vec<Arc<str>>,
    /// The only deployment that may be asked.
    pub only: Option<Arc<str>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct OwnAnswer {
    /// The answer.
    pub body: Bytes,
    /// Who gave it.
    pub deployment: Option<Arc<str>>,
    /// What it cost, attempts that failed included.
    pub cost: Usd,
    /// What it used.
    pub tokens: TokenCounts,
    /// How long it took.
    pub took: Duration,
}

/// Why nothing came of it.
#[derive(Debug, Clone)]
pub enum NoOwnAnswer {
    /// It may be otherwise in a moment.
    Passing(String, Usd),
    /// This request will not be answered.
    Refused(String, Usd),
    /// No request of its kind will be: its payer has no money, its model is not there.
    Never(String, Usd),
}

/// Nobody's connection: it never breaks.
struct Ourselves;

impl Client for Ourselves {
    async fn left(&mut self) {
        std::future::pending::<()>().await;
    }
}

impl Gateway {
    /// Asks in the gateway's own name.
    ///
    /// # Errors
    ///
    /// Why there is no answer, and what that cost all the same.
    pub async fn ask_own(
        self: &Arc<Self>,
        request: OwnRequest,
        status_of: StatusOf,
    ) -> Result<OwnAnswer, NoOwnAnswer> {
        let OwnRequest { admitted, endpoint, body, tags, only } = request;
        let (now_ms, began) = (clock::unix_ms(), clock::monotonic());
        let mut record = Record::begin(&self.book, &RequestId::new(now_ms, rand::random()), now_ms, began);
        record.endpoint(endpoint);
        record.admitted(&admitted);
        match self.limits.place() {
            Ok(place) => record.placed(place),
            Err(refusal) => return Err(refused(endpoint, &refusal, record, status_of)),
        }
        let arrival = Arrival {
            endpoint,
            model_in_path: None,
            body,
            rate_headers: RateHeaders::OpenAi,
            headers: Vec::new(),
            route_headers: Vec::new(),
            tags,
            cache_control: vec![UNCACHED.to_vec()],
            prompt: None,
            variables: None,
            only,
            asker: Asker::Ourselves,
        };
        let reply = match Box::pin(self.infer(admitted, arrival, record, &mut Ourselves)).await {
            Ok(reply) => reply,
            Err(NoAnswer::Refused(ended)) => {
                return Err(refused(endpoint, &ended.refusal, ended.record, status_of));
            }
            Err(NoAnswer::Gone) => return Err(NoOwnAnswer::Passing("it was cut off".to_owned(), Usd::ZERO)),
        };
        let took = clock::monotonic().saturating_duration_since(began);
        let Body::Whole { body, record, ending } = reply.body else {
            return Err(NoOwnAnswer::Refused("a stream came that nobody asked for".to_owned(), Usd::ZERO));
        };
        let cost = record.cost(clock::unix_ms()).map(|(cost, _)| cost).or(record.spent()).unwrap_or_default();
        let answer =
            OwnAnswer { body, deployment: record.deployment().cloned(), cost, tokens: record.tokens(), took };
        record.ended(ending, reply.status);
        match reply.status {
            200..=299 => Ok(answer),
            status => Err(NoOwnAnswer::Refused(provider::message(status, &answer.body), answer.cost)),
        }
    }
}

/// Ends the record of a refusal, and says whether it is worth asking again.
fn refused(endpoint: Endpoint, refusal: &Refusal, record: Box<Record>, status_of: StatusOf) -> NoOwnAnswer {
    let (words, cost) = (refusal.to_string(), record.spent().unwrap_or_default());
    record.refused(refusal, status_of(refusal));
    match refusal {
        Refusal::Limited(_)
        | Refusal::Overloaded(_)
        | Refusal::Busy { .. }
        | Refusal::LedgerAway(_)
        | Refusal::Upstream { .. }
        | Refusal::UpstreamFault { fault: Fault::Wait | Fault::Transient, .. } => {
            NoOwnAnswer::Passing(words, cost)
        }
        // what others hold comes back, most of it
        Refusal::Budget { exceeded, .. } if exceeded.may_wait => NoOwnAnswer::Passing(words, cost),
        Refusal::NoCandidate { out, .. } => match Nobody::of(out) {
            Nobody::Rested { .. } | Nobody::Now { .. } => NoOwnAnswer::Passing(words, cost),
            _ => NoOwnAnswer::Refused(words, cost),
        },
        // a server that knows no scores may know all else
        Refusal::UpstreamFault { fault: Fault::DeploymentMissing, .. } if endpoint == Endpoint::Score => {
            NoOwnAnswer::Refused(words, cost)
        }
        Refusal::Budget { .. }
        | Refusal::KeyEnded { .. }
        | Refusal::UnknownModel(_)
        | Refusal::EndpointNotServed { .. }
        | Refusal::Unpriced { .. }
        | Refusal::UpstreamFault { fault: Fault::Auth | Fault::DeploymentMissing | Fault::Quota, .. } => {
            NoOwnAnswer::Never(words, cost)
        }
        _ => NoOwnAnswer::Refused(words, cost),
    }
}
