//! What is known of each deployment at this moment, for one request: what its route is drawn from.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{Board, Expected};
use super::catalog::Live;
use super::counts::Counts;
use super::forms::Forms;
use super::reserve::Money;
use super::retirements::Retirements;
use crate::domain::breaker::State;
use crate::domain::capability::Capability;
use crate::domain::catalog::{Deployment, OnUnsupported, Resolved};
use crate::domain::ledger::Attribution;
use crate::domain::money::Usd;
use crate::domain::price::book::PriceBook;
use crate::domain::priced::Priced;
use crate::domain::request::InferenceRequest;
use crate::domain::retirement::Stage;
use crate::domain::route::{Dice, Late, Out, Seen, Sight};
use crate::domain::service_tier::ServiceTier;
use crate::domain::usage::TokenCounts;

/// The output that is expected of a route nobody has used yet, tokens.
const UNKNOWN_OUTPUT: u64 = 256;

/// One look at all deployments of a route.
pub(super) struct Look<'a> {
    pub(super) board: &'a Board,
    pub(super) money: &'a Money,
    pub(super) retirements: &'a Retirements,
    pub(super) prices: Arc<PriceBook>,
    pub(super) live: &'a Live,
    pub(super) resolved: &'a Resolved,
    pub(super) forms: &'a Forms,
    pub(super) counts: &'a Counts,
    pub(super) attribution: &'a Attribution,
    /// The deployment that made what the request names.
    pub(super) bound: Option<&'a str>,
    /// Whether prices are wanted.
    pub(super) costs: bool,
    /// What the request needs beyond plain text, filled at the first deployment that can't do all.
    pub(super) needs: OnceCell<Vec<Capability>>,
    /// The tokens that limits take it for.
    pub(super) tokens: u64,
    pub(super) now_ms: i64,
    pub(super) now: Instant,
    pub(super) dice: Dice,
    /// Filled at the first deployment that asks.
    pub(super) budgets: OnceCell<Budgets>,
}

/// What budgets say before a deployment is chosen.
pub(super) enum Budgets {
    /// None is for deployments or providers of its own.
    OfNoDeployment,
    /// Some are; so much is left for the request on any deployment, none where no budget applies to it.
    OfDeployments(Option<Usd>),
}

/// One deployment, and what is found out about it once.
pub(super) struct Candidate<'a> {
    deployment: &'a Arc<Deployment>,
    upstream_model: Arc<str>,
    expected: Expected,
}

/// What a request needs beyond plain text.
fn needs_of(request: &InferenceRequest) -> Vec<Capability> {
    let all = [
        (request.has_tools(), Capability::Tools),
        (request.has_images(), Capability::Images),
        (request.wants_json_schema(), Capability::JsonSchema),
        (request.has_audio(), Capability::Audio),
    ];
    all.into_iter().filter_map(|(needed, capability)| needed.then_some(capability)).collect()
}

impl Sight for Look<'_> {
    fn see(&mut self, deployment: &Arc<Deployment>) -> Seen {
        let candidate = self.candidate(deployment);
        let (mut seen, standing) = self.standing(&candidate);
        let (retired, retiring) = self.retirement(&candidate);
        let out = match self.cant(&candidate) {
            Ok(request) => self.price(&candidate, &request, &mut seen).err(),
            Err(out) => Some(out),
        };
        seen.out = out.or(retired).or(standing);
        seen.late = seen.late.or(retiring).or_else(|| self.over_budget(deployment, seen.cost));
        seen
    }

    fn random(&mut self) -> u64 {
        self.dice.roll()
    }
}

impl Look<'_> {
    /// A deployment, with what all the rest is found out by.
    pub(super) fn candidate<'d>(&self, deployment: &'d Arc<Deployment>) -> Candidate<'d> {
        let (model, asked) = (self.resolved.model.name.as_str(), self.forms.asked());
        let cap = asked.output_cap().map(|cap| cap.saturating_mul(asked.choices()));
        Candidate {
            deployment,
            upstream_model: self.resolved.upstream_model(deployment),
            expected: self.board.expected(model, &deployment.name, cap),
        }
    }

    /// What the request itself rules out.
    fn cant(&self, candidate: &Candidate<'_>) -> Result<Arc<InferenceRequest>, Out> {
        let deployment = candidate.deployment;
        if self.bound.is_some_and(|bound| bound != &*deployment.name) {
            return Err(Out::Bound);
        }
        let request = self.forms.look(deployment)?;
        // a long body is searched for images only where somebody can't see them
        if deployment.capabilities.is_some() {
            let needs = self.needs.get_or_init(|| needs_of(self.forms.asked()));
            if let Some(lacks) = needs.iter().find(|capability| !deployment.can(**capability)) {
                return Err(Out::Lacks(*lacks));
            }
        }
        if deployment.on_unsupported == OnUnsupported::Refuse
            && let Some(member) = request.members_of(&deployment.unsupported).first()
        {
            return Err(Out::Unsupported((*member).into()));
        }
        if let Some(has) = deployment.context_window {
            let needs = self.context(candidate, &request);
            if needs > has {
                return Err(Out::ContextWindow { needs, has });
            }
        }
        Ok(request)
    }

    /// Whether its provider has ended it, or does so soon.
    fn retirement(&self, candidate: &Candidate<'_>) -> (Option<Out>, Option<Late>) {
        let retirement = self.retirements.of(candidate.deployment, &candidate.upstream_model);
        let Some(retirement) = retirement else { return (None, None) };
        let at_ms = retirement.at_ms;
        match self.retirements.stage(&retirement, self.now_ms) {
            Stage::Active | Stage::Warned => (None, None),
            Stage::Leaving => (None, Some(Late::Retiring { at_ms })),
            Stage::Retired => (Some(Out::Retired { at_ms }), None),
        }
    }

    fn input(&self, candidate: &Candidate<'_>) -> u64 {
        self.counts.input(self.live, self.forms, candidate.deployment, &candidate.upstream_model)
    }

    /// The least that the request needs of a context: its input, and one token of output or what it asks for.
    fn context(&self, candidate: &Candidate<'_>, request: &InferenceRequest) -> u64 {
        let output = request.output_cap().unwrap_or(1);
        self.input(candidate).saturating_add(output)
    }

    /// How it stands, and what of that rules it out.
    fn standing(&self, candidate: &Candidate<'_>) -> (Seen, Option<Out>) {
        let standing = self.board.standing(candidate.deployment, self.tokens, self.now);
        let for_ms = standing.wait_ms.max(1);
        let out = match standing.breaker {
            State::Open { .. } | State::HalfOpen { probing: true } => {
                Some(Out::BreakerOpen { for_ms, cause: standing.cause })
            }
            State::CoolingDown { .. } => Some(Out::CoolingDown { for_ms }),
            State::Closed | State::HalfOpen { probing: false } => None,
        };
        let late = match standing.quota_wait_ms {
            _ if !standing.has_place() => Some(Late::Full),
            0 => None,
            for_ms => Some(Late::QuotaSpent { for_ms }),
        };
        let output = candidate.expected.output_milli.map(|milli| milli.div_ceil(1_000));
        let output = output.unwrap_or_else(|| self.guessed_output());
        let speed = standing.speed;
        let seen = Seen {
            out: None,
            late,
            cost: None,
            first_token_us: speed.map(|speed| speed.ttft_us),
            per_token_us: speed.map(|speed| speed.per_token_us),
            whole_us: speed.map(|speed| speed.expected_us(output)),
            in_flight: standing.in_flight,
            quota_left: standing.quota_left_permille,
            samples: u32::try_from(candidate.expected.samples).unwrap_or(u32::MAX),
        };
        (seen, out)
    }

    fn guessed_output(&self) -> u64 {
        self.forms.asked().output_cap().map_or(UNKNOWN_OUTPUT, |cap| cap.min(UNKNOWN_OUTPUT))
    }

    /// What the request is expected to cost.
    fn price(
        &self,
        candidate: &Candidate<'_>,
        request: &InferenceRequest,
        seen: &mut Seen,
    ) -> Result<(), Out> {
        if !self.costs {
            return Ok(());
        }
        let priced = self.priced(candidate, request)?;
        seen.cost = Some(priced.cost(&self.expected_tokens(candidate, request), None));
        Ok(())
    }

    /// The price that the request would be booked at.
    pub(super) fn priced(
        &self,
        candidate: &Candidate<'_>,
        request: &InferenceRequest,
    ) -> Result<Priced, Out> {
        let found = self.prices.price_of(candidate.deployment, &candidate.upstream_model, self.now_ms);
        let found = found.map_err(|unpriced| Out::Unpriced(unpriced.to_string()))?;
        let asked = ServiceTier::served(request.service_tier());
        Ok(Priced::of(found, candidate.deployment, asked))
    }

    /// The tokens that are expected of the request and its answer, and our worker's time for them.
    pub(super) fn expected_tokens(
        &self,
        candidate: &Candidate<'_>,
        request: &InferenceRequest,
    ) -> TokenCounts {
        let expected = candidate.expected;
        let prompt = self.input(candidate);
        let cached = u64::from(expected.cached_permille.unwrap_or(0)).saturating_mul(prompt) / 1_000;
        let completion = match expected.output_milli {
            Some(milli) => milli.div_ceil(1_000),
            None => self.guessed_output().saturating_mul(request.choices()),
        };
        let compute_ns = expected.compute_ns_per_token.unwrap_or(0);
        let compute_us = prompt.saturating_add(completion).saturating_mul(compute_ns).div_ceil(1_000);
        TokenCounts { prompt, cached, completion, compute_us, ..TokenCounts::default() }
    }

    /// A budget of the deployment or its provider alone that has less left than is needed.
    fn over_budget(&self, deployment: &Deployment, cost: Option<Usd>) -> Option<Late> {
        let ledger = &self.money.ledger;
        let budgets = self.budgets.get_or_init(|| match ledger.has_budgets_of_deployments() {
            true => Budgets::OfDeployments(ledger.left_for(self.attribution, self.now_ms)),
            false => Budgets::OfNoDeployment,
        });
        let Budgets::OfDeployments(anyway) = *budgets else { return None };
        let on = Attribution {
            deployment: Arc::clone(&deployment.name),
            provider: Arc::clone(&deployment.provider.name),
            ..self.attribution.clone()
        };
        let left = ledger.left_for(&on, self.now_ms)?;
        let wanted = cost.unwrap_or_default();
        let is_its_own = anyway.is_none_or(|anyway| left < anyway);
        (is_its_own && (left < wanted || left <= Usd::ZERO)).then_some(Late::Budget { left, wanted })
    }
}

/// How long a deployment may take for everything, and so a request on all of an order.
pub(super) fn longest_total<'a>(order: impl Iterator<Item = &'a Arc<Deployment>>) -> Duration {
    order.map(|deployment| deployment.timeouts.total).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
