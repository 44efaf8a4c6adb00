//! THE LINE: one inference request, top to bottom.
//!
//! Each step takes the value of the one before and returns the next: admitted → prepared → attempt → answer. However
//! it ends, one Outcome is written.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::admit::{Admitted, KeyRing};
use super::answers::Answers;
use super::board::Board;
use super::capture::Capturer;
use super::catalog::LiveCatalog;
use super::flights::Flights;
use super::limited::{RateHeaders, replace_upstreams};
use super::limits::Limits;
use super::means::Means;
use super::pins::Pins;
use super::prepare::{Asked, Asker, Beside, Prepared};
use super::presence::{Client, Presence};
use super::prompts::{LivePrompts, PromptWish};
use super::record::{Book, Record, Refused};
use super::refusal::Refusal;
use super::reply::{NoAnswer, Reply};
use super::reserve::Money;
use super::retirements::Retirements;
use super::retries::Retries;
use super::semantic::Semantic;
use crate::clock;
use crate::domain::cache::Directives;
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::trace::SampleRatio;

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
    /// How many retries are left.
    pub retries: Retries,
    /// Answers that are kept.
    pub answers: Arc<Answers>,
    /// Calls that are shared.
    pub flights: Arc<Flights>,
    /// Questions that mean the same, where they can be compared.
    pub semantic: Option<Semantic>,
    /// Stored prompts.
    pub prompts: Arc<LivePrompts>,
    /// The share of new traces that is kept, where traces are made.
    pub sampling: Option<SampleRatio>,
    /// Answers on their way into data sets.
    pub capturer: Capturer,
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
    /// Its headers that the catalog's routes look at: name in lower case, value.
    pub route_headers: Vec<(Arc<str>, String)>,
    /// The tags that the application put on it.
    pub tags: Vec<Arc<str>>,
    /// Its `Cache-Control`.
    pub cache_control: Vec<Vec<u8>>,
    /// The stored prompt that it names.
    pub prompt: Option<String>,
    /// Values for the variables of stored prompts, as JSON.
    pub variables: Option<String>,
    /// The only deployment that may be asked.
    pub only: Option<Arc<str>>,
    /// Who wants its answer.
    pub asker: Asker,
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
        self: &Arc<Self>,
        admitted: Admitted,
        arrival: Arrival,
        mut record: Box<Record>,
        client: &mut C,
    ) -> Result<Reply, NoAnswer> {
        let prepared = match self.prepare(admitted, arrival, &mut record).await {
            Ok(prepared) => prepared,
            Err(refusal) => return Err(Refused::new(refusal, record).into()),
        };
        let rate_headers = record.rate_headers().to_vec();
        let mut presence = Presence::new(client);
        let mut answer = self.answered(prepared, &mut presence, record).await?;
        replace_upstreams(&mut answer.headers, &rate_headers);
        Ok(answer)
    }

    /// What asking deployments takes.
    pub(super) fn means(&self) -> Means<'_> {
        Means {
            money: &self.money,
            board: &self.board,
            retries: &self.retries,
            pins: &self.pins,
            retirements: &self.retirements,
            capturer: &self.capturer,
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
        let (request, consumed) = request.consume()?;
        let wish =
            Directives::read(arrival.cache_control.iter().map(Vec::as_slice), consumed.cache.as_ref())?;
        record.note(|outcome| {
            outcome.asked = Some(request.model.as_str().into());
            outcome.stream = request.stream;
        });
        let bound = self.pins.bound_to(&request, &admitted).await?;
        let bound = bound.or_else(|| arrival.only.as_deref().map(ToOwned::to_owned));
        let beside = Beside {
            headers: arrival.headers,
            route_headers: arrival.route_headers,
            tags: arrival.tags,
            wish,
            prompt: PromptWish::read(arrival.prompt, arrival.variables.as_deref(), consumed.variables)?,
            asker: arrival.asker,
        };
        let asked = Asked::new(admitted, self.catalog.load(), self.prompts.load(), request, beside, bound)?;
        record.note(|outcome| outcome.model = Some(Arc::clone(&asked.attribution.model)));
        let sources = self.means().sources(clock::unix_ms(), clock::monotonic());
        let prepared = asked.prepare(sources).await?;
        self.enter(&prepared, arrival.rate_headers, record)?;
        Ok(prepared)
    }

    /// Takes from all limits that apply.
    fn enter(&self, prepared: &Prepared, style: RateHeaders, record: &mut Record) -> Result<(), Refusal> {
        let (tokens, now) = (prepared.tokens, clock::monotonic());
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
