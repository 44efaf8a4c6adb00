//! Can they pay: the most that a request can cost on a deployment is held before that deployment is asked. A fallback
//! is held anew, at its own price.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::admit::Admitted;
use super::counts::Counts;
use super::forms::{Form, PutTokens};
use super::ledger::{Ask, HoldError, Ledger, Reservation, Settlement};
use super::prepare::Asker;
use super::refusal::Refusal;
use super::settle::LARGEST_OUTPUT_TOKENS;
use crate::clock;
use crate::domain::alert::{Alert, Unpriced};
use crate::domain::bound::{CapSource, TokenBound, UpperBound, output_cap, token_bound};
use crate::domain::budget::{Action, Exceeded};
use crate::domain::catalog::Deployment;
use crate::domain::ledger::{Attribution, Entry, EntryKind};
use crate::domain::money::{Cost, PerToken, Usd};
use crate::domain::price::book::{PriceBook, Warning};
use crate::domain::priced::Priced;
use crate::domain::prompt::Injected;
use crate::domain::request::OutputCap;
use crate::domain::service_tier::ServiceTier;
use crate::domain::tokens::{Counted, QUICK_BYTES, TokenCounter};
use crate::domain::usage::{TokenCounts, Usage, UsageSource};
use crate::provider;
use crate::store::ledger::LedgerPages;
use crate::telemetry::metrics::Metrics;

/// A request is counted exactly unless every budget has this many times its rough bound left: then so many could be in
/// flight without one being refused for the roughness of another.
const AMPLE: i64 = 10_000;

/// What a request costs is held, booked and told here.
pub struct Money {
    /// Holds and settlements.
    pub ledger: Arc<Ledger>,
    /// The prices of this moment.
    pub prices: Arc<ArcSwap<PriceBook>>,
    /// What the ledger has, for reading.
    pub entries: LedgerPages,
    /// What a request without money is answered with.
    pub exceeded_status: u16,
    /// Told what people should hear of: must not wait.
    pub alert: Box<dyn Fn(Alert) + Send + Sync>,
}

/// A request that is paid for on one deployment.
pub(super) struct Reserved {
    pub(super) bill: Bill,
    /// The cap that must be written into the request.
    pub(super) output_cap: Option<OutputCap>,
}

/// What a request owes on one deployment, until it is settled. Dropped, it is released, or charged whole once it was
/// sent.
pub(super) struct Bill {
    ledger: Arc<Ledger>,
    request_id: Arc<str>,
    at_ms: i64,
    attribution: Arc<Attribution>,
    priced: Priced,
    /// The stored prompt in it.
    put: Option<Put>,
    /// None where nothing costs anything.
    reservation: Option<Reservation>,
}

/// A stored prompt's words in a request.
#[derive(Debug, Clone)]
pub(super) struct Put {
    /// Which version.
    pub(super) prompt: Arc<str>,
    /// How many tokens they are.
    pub(super) tokens: u64,
    /// How many stand before them.
    before: u64,
}

impl Put {
    async fn of(wanted: Wanted<'_>) -> Option<Self> {
        let put = wanted.form.put.as_ref()?;
        let counter = TokenCounter::expecting(wanted.deployment, wanted.upstream_model);
        let PutTokens { tokens, before } = put.count(counter).await;
        Some(Self { prompt: Arc::clone(put.words.prompt()), tokens, before })
    }
}

/// Why a deployment is not asked.
pub(super) enum Unpaid {
    /// The request ends here.
    Refused(Refusal),
    /// Another deployment may do.
    PassedOver {
        /// Why this one does not.
        refusal: Refusal,
        /// A budget wants a cheaper one; else this one has no price.
        cheaper: bool,
    },
}

/// What is to be paid for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Whose request it is.
    pub(super) admitted: &'a Admitted,
    /// Who wants its answer.
    pub(super) asker: Asker,
    /// Whom it is booked on; the deployment is added.
    pub(super) attribution: &'a Attribution,
    /// What was counted of it.
    pub(super) counts: &'a Counts,
    /// The request as the deployment gets it.
    pub(super) form: &'a Form,
    pub(super) deployment: &'a Arc<Deployment>,
    /// The provider's own name of the model.
    pub(super) upstream_model: &'a str,
}

impl Wanted<'_> {
    /// Whom it is booked on.
    pub(super) fn attribution(&self) -> Attribution {
        Attribution {
            deployment: Arc::clone(&self.deployment.name),
            provider: Arc::clone(&self.deployment.provider.name),
            ..self.attribution.clone()
        }
    }
}

impl Money {
    /// Holds what a request can cost on a deployment.
    pub(super) async fn reserve(
        &self,
        wanted: Wanted<'_>,
        request_id: &Arc<str>,
        metrics: &Metrics,
    ) -> Result<Reserved, Unpaid> {
        let Wanted { form, deployment, upstream_model, .. } = wanted;
        let at_ms = clock::unix_ms();
        let found = self.prices.load().price_of(deployment, upstream_model, at_ms).map_err(|unpriced| {
            metrics.money.unpriced(&deployment.name);
            let (deployment, words) = (Arc::clone(&deployment.name), unpriced.to_string());
            Unpaid::PassedOver { refusal: Refusal::Unpriced { deployment, words }, cheaper: false }
        })?;
        if matches!(found.warning, Some(Warning::Unpriced | Warning::Cap)) {
            metrics.money.unpriced(&deployment.name);
            (self.alert)(Alert::Unpriced(Unpriced {
                model: Arc::clone(&wanted.attribution.model),
                deployment: Arc::clone(&deployment.name),
                upstream_model: upstream_model.into(),
            }));
        }
        let asked = form.request.service_tier();
        let priced = Priced::of(found, deployment, ServiceTier::served(asked));
        let attribution = Arc::new(wanted.attribution());
        let bill = Bill {
            ledger: Arc::clone(&self.ledger),
            request_id: Arc::clone(request_id),
            at_ms,
            attribution,
            priced,
            put: Put::of(wanted).await,
            reservation: None,
        };
        if bill.priced.is_free() {
            return Ok(Reserved { bill, output_cap: None });
        }
        self.hold(bill, wanted, at_ms).await
    }

    /// The most that a request can cost on a deployment: what would be held for it. Nothing is.
    ///
    /// # Errors
    ///
    /// When that has no bound and a budget applies.
    pub(super) async fn most(
        &self,
        wanted: Wanted<'_>,
        priced: &Priced,
        now_ms: i64,
    ) -> Result<Usd, Refusal> {
        if priced.is_free() {
            return Ok(Usd::ZERO);
        }
        let left = self.ledger.left_for(&wanted.attribution(), now_ms);
        Ok(Asked { wanted, priced, left }.bound().await?.0.amount())
    }

    /// The cap that is written into a request without one of its own, where a budget applies to it; none where it goes
    /// as it is.
    pub(super) fn default_cap(&self, wanted: Wanted<'_>, now_ms: i64) -> Option<u64> {
        let Wanted { form, deployment, upstream_model, .. } = wanted;
        let (cap, source) = output_cap(&form.request, deployment);
        if source != CapSource::Default {
            return None;
        }
        let found = self.prices.load().price_of(deployment, upstream_model, now_ms).ok()?;
        let asked = ServiceTier::served(form.request.service_tier());
        let priced = Priced::of(found, deployment, asked);
        let held = !priced.is_free() && self.ledger.left_for(&wanted.attribution(), now_ms).is_some();
        held.then_some(cap)
    }

    /// Holds an equal share of the most that a request can cost on a deployment, of so many who pay it together. Nothing
    /// is held where nothing costs anything.
    ///
    /// # Errors
    ///
    /// When that has no bound, or a budget has not enough for the share.
    pub(super) async fn hold_share(
        &self,
        wanted: Wanted<'_>,
        among: usize,
        request_id: &Arc<str>,
    ) -> Result<Option<Reservation>, Refusal> {
        let Wanted { form, deployment, upstream_model, .. } = wanted;
        let now_ms = clock::unix_ms();
        // without a price nobody could have led
        let Ok(found) = self.prices.load().price_of(deployment, upstream_model, now_ms) else {
            return Ok(None);
        };
        let asked = ServiceTier::served(form.request.service_tier());
        let priced = Priced::of(found, deployment, asked);
        if priced.is_free() {
            return Ok(None);
        }
        let most = self.most(wanted, &priced, now_ms).await?;
        let among = i64::try_from(among).unwrap_or(i64::MAX).max(1);
        let share = Usd::from_nanos(most.nanos().saturating_add(among - 1) / among);
        let ask = Ask {
            request_id: Arc::clone(request_id),
            attribution: Arc::new(wanted.attribution()),
            bound: UpperBound {
                fixed: Cost::default().and_usd(share),
                per_output_token: PerToken::default(),
                output_cap: 0,
                choices: 0,
                clampable: false,
            },
            tokens: TokenCounts::default(),
            price: priced.version,
        };
        let held = self.ledger.hold(ask).await;
        held.map(Some).map_err(|error| match self.unpaid(error, now_ms) {
            Unpaid::Refused(refusal) | Unpaid::PassedOver { refusal, .. } => refusal,
        })
    }

    async fn hold(&self, mut bill: Bill, wanted: Wanted<'_>, now_ms: i64) -> Result<Reserved, Unpaid> {
        let Wanted { form, deployment, upstream_model, .. } = wanted;
        let left = self.ledger.left_for(&bill.attribution, now_ms);
        let asked = Asked { wanted, priced: &bill.priced, left };
        let (mut bound, tokens) = asked.bound().await.map_err(Unpaid::Refused)?;
        // what is measured is answered as it was asked, or not at all
        bound.clampable &= wanted.asker == Asker::Application;
        let ask = Ask {
            request_id: Arc::clone(&bill.request_id),
            attribution: Arc::clone(&bill.attribution),
            bound,
            tokens: TokenCounts {
                prompt: tokens.input,
                completion: tokens.output_cap.saturating_mul(tokens.choices),
                compute_us: bill.priced.most_us,
                ..TokenCounts::default()
            },
            price: Arc::clone(&bill.priced.version),
        };
        let unpaid = |error| match (self.unpaid(error, now_ms), wanted.asker) {
            // a cheaper deployment would be measured in the name of this one
            (Unpaid::PassedOver { refusal, .. }, Asker::Ourselves) => Unpaid::Refused(refusal),
            (unpaid, _) => unpaid,
        };
        let reservation = self.ledger.hold(ask).await.map_err(unpaid)?;
        let grant = *reservation.grant();
        bill.reservation = Some(reservation);
        let must_cap = grant.clamped || (left.is_some() && tokens.cap_source == CapSource::Default);
        let output_cap = must_cap.then(|| {
            provider::output_cap(deployment, form.request.endpoint, upstream_model, grant.output_cap)
        });
        Ok(Reserved { bill, output_cap })
    }

    fn unpaid(&self, error: HoldError, now_ms: i64) -> Unpaid {
        match error {
            HoldError::Unavailable(words) => Unpaid::Refused(Refusal::LedgerAway(words)),
            HoldError::Exceeded(exceeded) => {
                let downgrade = exceeded.action == Action::Downgrade;
                let refusal = self.exceeded(exceeded, now_ms);
                match downgrade {
                    true => Unpaid::PassedOver { refusal, cheaper: true },
                    false => Unpaid::Refused(refusal),
                }
            }
        }
    }

    fn exceeded(&self, exceeded: Box<Exceeded>, now_ms: i64) -> Refusal {
        let wait_ms = exceeded.resets_at_ms.map(|at| (at - now_ms).max(0));
        let retry_after_s =
            wait_ms.and_then(|wait| u64::try_from(wait).ok()).map(|wait| wait.div_ceil(1_000));
        Refusal::Budget { exceeded, retry_after_s, status: self.exceeded_status }
    }
}

/// What a bound is drawn from.
struct Asked<'a> {
    wanted: Wanted<'a>,
    priced: &'a Priced,
    /// The least that is left of any budget; none where no budget applies.
    left: Option<Usd>,
}

impl Asked<'_> {
    /// The upper bound in money, and in tokens.
    async fn bound(&self) -> Result<(UpperBound, TokenBound), Refusal> {
        let Wanted { counts, form, deployment, upstream_model, .. } = self.wanted;
        let counter = TokenCounter::bounding(deployment, upstream_model);
        let (request, bytes) = (&form.request, counter.in_bytes());
        let rough = self.tokens(|| bytes.count(request.endpoint, request.body()))?;
        let bound = self.money(&rough);
        let ample =
            self.left.is_none_or(|left| bound.0.amount().nanos().saturating_mul(AMPLE) <= left.nanos());
        if ample || rough.surcharged {
            return Ok(bound);
        }
        // what was counted to choose is not counted again, unless other words are sent
        let shared = (!form.translated).then(|| counts.counted(form.wording, counter)).flatten();
        let counted = if let Some(counted) = shared {
            counted
        } else if request.body().len() <= QUICK_BYTES {
            counter.count(request.endpoint, request.body())
        } else {
            let (endpoint, body) = (request.endpoint, request.body().clone());
            let counting = tokio::task::spawn_blocking(move || counter.count(endpoint, &body));
            // a counter that fails is no reason not to bound
            counting.await.unwrap_or_else(|_| bytes.count(request.endpoint, request.body()))
        };
        let exact = self.tokens(|| counted)?;
        Ok(self.money(&exact))
    }

    fn tokens(&self, count: impl FnOnce() -> Counted) -> Result<Tokens, Refusal> {
        let request = &self.wanted.form.request;
        let counted = token_bound(request, self.wanted.deployment, count);
        let allowed = self.wanted.admitted.key.terms.rights.unbounded_cost;
        match (counted, self.left, allowed) {
            (Ok(bound), Some(_), _) => Ok(Tokens { bound, surcharge: Usd::ZERO, surcharged: false }),
            // nobody's budget is at stake: the request's words are not touched
            (Ok(bound), None, _) => {
                Ok(Tokens { bound: self.uncapped(bound), surcharge: Usd::ZERO, surcharged: false })
            }
            (Err(why), Some(_), None) => Err(Refusal::Unbounded(why)),
            (Err(_), left, allowed) => {
                let (output_cap, cap_source) = output_cap(request, self.wanted.deployment);
                let bound = TokenBound {
                    // a byte-level encoding never makes more tokens than there are bytes
                    input: request.body().len() as u64,
                    audio_input: 0,
                    output_cap,
                    choices: request.choices(),
                    extra_output: 0,
                    clampable: output_cap > 0,
                    cap_source,
                };
                let bound = if left.is_some() { bound } else { self.uncapped(bound) };
                Ok(Tokens { bound, surcharge: allowed.unwrap_or_default(), surcharged: true })
            }
        }
    }

    /// A cap that nobody writes into the request is no bound: the model's own is.
    fn uncapped(&self, bound: TokenBound) -> TokenBound {
        let model_cap = self.wanted.deployment.max_output_tokens.unwrap_or(LARGEST_OUTPUT_TOKENS);
        match bound.cap_source {
            CapSource::Default => TokenBound { output_cap: model_cap, ..bound },
            // a client may ask for more than any model makes
            CapSource::Client => TokenBound { output_cap: bound.output_cap.min(model_cap), ..bound },
            CapSource::Legacy16 | CapSource::NoOutput => bound,
        }
    }

    fn money(&self, tokens: &Tokens) -> (UpperBound, TokenBound) {
        let (price, bound) = (&self.priced.price, &tokens.bound);
        let tier = ServiceTier::asked(self.wanted.form.request.service_tier());
        let output = price.dearest_output(bound.input, tier);
        let fixed = Cost::default()
            .and(bound.input, price.dearest_input(bound.input, tier))
            .and(bound.extra_output, output)
            .and_usd(price.computing(self.priced.most_us).round_up())
            .and_usd(tokens.surcharge);
        let bound_in_money = UpperBound {
            fixed,
            per_output_token: output,
            output_cap: bound.output_cap,
            choices: bound.choices,
            clampable: bound.clampable,
        };
        (bound_in_money, tokens.bound)
    }
}

/// A bound in tokens, and what is held beyond it for what it can't tell.
struct Tokens {
    bound: TokenBound,
    surcharge: Usd,
    /// Whether it is an operator's guess.
    surcharged: bool,
}

impl Bill {
    /// The price, for what is told with the answer.
    pub(super) const fn priced(&self) -> &Priced {
        &self.priced
    }

    /// The stored prompt in it.
    pub(super) const fn put(&self) -> Option<&Put> {
        self.put.as_ref()
    }

    /// What the stored prompt was of the whole cost, whoever pays it.
    fn injected(&self, usage: &Usage, cost: Usd) -> Option<Arc<Injected>> {
        let Put { prompt, tokens, before } = self.put.as_ref()?;
        let (tokens, part) = self.priced.part(&usage.tokens, usage.served, *tokens, *before);
        Some(Arc::new(Injected { prompt: Arc::clone(prompt), tokens, cost: part.min(cost) }))
    }

    /// What a usage costs: what is not confirmed costs all that is held, but for time that our machine can't have computed.
    pub(super) fn cost(&self, usage: &Usage) -> Usd {
        match (&self.reservation, usage.source) {
            (Some(reservation), UsageSource::Unconfirmed) => {
                let [most, used] =
                    [self.priced.most_us, usage.tokens.compute_us].map(|us| self.priced.time(us));
                reservation.grant().amount - (most - used).or_zero()
            }
            _ => self.priced.cost(&usage.tokens, usage.served),
        }
    }

    /// The least that is left of any budget once this is settled at a cost.
    pub(super) fn left_after(&self, cost: Usd, now_ms: i64) -> Option<Usd> {
        match &self.reservation {
            Some(reservation) => self.ledger.left_after(reservation, cost, now_ms),
            None => self.ledger.left_for(&self.attribution, now_ms),
        }
    }

    /// The upstream may see the request from now on.
    pub(super) fn sent(&mut self) {
        if let Some(reservation) = &mut self.reservation {
            reservation.sent();
        }
    }

    /// Ends it at what was used, of which others have paid so much.
    pub(super) fn settle_shared(self, usage: &Usage, others: Usd) {
        self.end(Some(usage), others);
    }

    /// Ends it: at what was used, or at nothing.
    pub(super) fn settle(self, usage: Option<&Usage>) {
        self.end(usage, Usd::ZERO);
    }

    fn end(self, usage: Option<&Usage>, others: Usd) {
        let cost = usage.map(|usage| self.cost(usage) - others);
        let injected = usage.zip(cost).and_then(|(usage, cost)| self.injected(usage, cost + others));
        match (self.reservation, usage.zip(cost)) {
            (Some(reservation), Some((usage, cost))) => {
                // all that is held for time is known in the end; what is held for tokens is not
                let open = usage.source == UsageSource::Unconfirmed
                    && reservation.grant().amount > self.priced.time(self.priced.most_us);
                let settlement = Settlement::new(usage.tokens, usage.source, cost);
                reservation.settle(Settlement { saved: others, injected, open, ..settlement });
            }
            (Some(reservation), None) => reservation.release(),
            (None, Some((usage, cost))) => {
                let entry = Entry::drafted(EntryKind::Usage, self.at_ms, self.request_id, self.attribution);
                self.ledger.book_loose(Entry {
                    tokens: usage.tokens,
                    source: Some(usage.source),
                    cost,
                    price: self.priced.version,
                    injected,
                    ..entry
                });
            }
            (None, None) => {}
        }
    }
}
