//! THE LINE: one inference request, top to bottom.
//!
//! Each step takes the value of the one before and returns the next: admitted → prepared → attempt → answer. However
//! it ends, one Outcome is written.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::admit::{Admitted, KeyRing};
use super::board::Board;
use super::catalog::LiveCatalog;
use super::dispatch::{self, Unanswered};
use super::limited::{RateHeaders, replace_upstreams};
use super::limits::Limits;
use super::meter::{self, Answer};
use super::pins::Pins;
use super::prepare::{Prepared, prepare};
use super::presence::{Client, Presence};
use super::record::{Book, Record};
use super::refusal::Refusal;
use super::reserve::Money;
use super::retirements::Retirements;
use super::settle;
use crate::clock;
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;

/// The data plane.
pub struct Gateway {
    /// Who may ask.
    pub keys: Arc<KeyRing>,
    /// What may be asked.
    pub catalog: Arc<LiveCatalog>,
    /// How that stands just now.
    pub board: Arc<Board>,
    /// How much of it.
    pub limits: Arc<Limits>,
    /// How it ended.
    pub book: Arc<Book>,
    /// Who made which stored response.
    pub pins: Arc<Pins>,
    /// When models end.
    pub retirements: Arc<Retirements>,
    /// What it costs.
    pub money: Money,
}

/// An inference request as it came through the door.
pub struct Arrival {
    /// Which endpoint it is for.
    pub endpoint: Endpoint,
    /// The model an Azure-shaped path names.
    pub model_in_path: Option<String>,
    /// Its body.
    pub body: Bytes,
    /// How its door writes what is left of a limit.
    pub rate_headers: RateHeaders,
    /// Its headers that travel on to the upstream.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The tags that the application put on it.
    pub tags: Vec<Arc<str>>,
}

/// A request that was refused; the door answers, then ends the record with the status it chose.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The outcome, but for its end.
    pub record: Record,
}

impl Gateway {
    /// Finds out who asks.
    pub fn admit(&self, credential: Option<&str>, now_ms: i64) -> Result<Admitted, Refusal> {
        self.keys.admit(credential, now_ms)
    }

    /// Serves one request of a sender we know.
    ///
    /// # Errors
    ///
    /// With the reason for the client and the open record.
    pub async fn infer<C: Client>(
        &self,
        admitted: Admitted,
        arrival: Arrival,
        mut record: Record,
        client: &mut C,
    ) -> Result<Answer, Box<Refused>> {
        let refused = |(refusal, record)| Box::new(Refused { refusal, record });
        let prepared = match self.prepare(admitted, arrival, &mut record).await {
            Ok(prepared) => prepared,
            Err(refusal) => return Err(refused((refusal, record))),
        };
        let rate_headers = record.rate_headers().to_vec();
        let mut presence = Presence::new(client);
        match dispatch::ask(&self.money, &prepared, &mut presence, &mut record).await {
            Ok(attempt) => {
                let followed = meter::follow(prepared, attempt, &mut presence, record, &self.pins).await;
                let mut answer = followed.map_err(refused)?;
                replace_upstreams(&mut answer.headers, &rate_headers);
                Ok(answer)
            }
            Err(Unanswered { refusal, sent_to }) => {
                if let Some(sent_to) = sent_to {
                    record.usage(settle::unanswered(&prepared, &sent_to));
                }
                Err(refused((refusal, record)))
            }
        }
    }

    async fn prepare(
        &self,
        admitted: Admitted,
        arrival: Arrival,
        record: &mut Record,
    ) -> Result<Prepared, Refusal> {
        let request =
            InferenceRequest::parse(arrival.endpoint, arrival.body, arrival.model_in_path.as_deref())?;
        record.note(|outcome| {
            outcome.asked = Some(request.model.as_str().into());
            outcome.stream = request.stream;
        });
        let bound = self.pins.bound_to(&request, &admitted).await?;
        let prepared =
            prepare(admitted, self.catalog.load(), request, arrival.headers, arrival.tags, bound.as_deref())?;
        record.note(|outcome| outcome.model = Some(prepared.resolved.model.name.as_str().into()));
        self.enter(&prepared, arrival.rate_headers, record)?;
        Ok(prepared)
    }

    /// Takes from all limits that apply.
    fn enter(&self, prepared: &Prepared, style: RateHeaders, record: &mut Record) -> Result<(), Refusal> {
        let (tokens, now) = (estimated_tokens(&prepared.request), clock::monotonic());
        match self.limits.enter(&prepared.admitted, &prepared.resolved.model, tokens, now) {
            Ok(entered) => {
                record.limited(entered.standings(), style);
                record.entered(entered);
                Ok(())
            }
            Err(limited) => {
                record.limited(&limited.standings, style);
                Err(Refusal::Limited(limited))
            }
        }
    }
}

/// The tokens that limits take a request for until its true number is known: four bytes a token, and the output that it
/// asks for at most.
fn estimated_tokens(request: &InferenceRequest) -> u64 {
    let output = request.output_cap().unwrap_or(0).saturating_mul(request.choices());
    (request.body().len() as u64).div_ceil(4).saturating_add(output)
}
