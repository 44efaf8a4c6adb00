//! Draws a plan: from a tree to one order, and for each deployment that is not in it the reason why.

use std::fmt;
use std::sync::Arc;

use super::share::ranked;
use super::{Ceiling, Cheapest, Facts, Fastest, Measure, Plan, Weighted, When};
use crate::domain::capability::Capability;
use crate::domain::deployment::Deployment;
use crate::domain::money::Usd;

/// From so many answers on, much is known of a deployment: [`Cheapest`] sends it a tenth of the probes.
const ENOUGH_SAMPLES: u32 = 150;
/// Fewer answers say little: one in a hundred is ten times as long as the others.
const FEW_SAMPLES: u32 = 10;
/// Of 1,000 requests, so many go at most to deployments that were too slow lately, to see whether they still are.
const SLOW_PROBES: u64 = 5;

/// Where a plan has a ceiling, a deployment of whose answers few have ended gets as many requests at once as that; at
/// least so many.
const UNTRIED_AT_ONCE: u32 = 10;

/// Why a deployment can't serve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// It does not serve the endpoint.
    Endpoint(&'static str),
    /// It made none of the stored state that the request names.
    Bound,
    /// It can't do what the request needs.
    Lacks(Capability),
    /// Input and output are longer than its context.
    ContextWindow {
        /// Tokens that the request needs, at least.
        needs: u64,
        /// Tokens that there is room for.
        has: u64,
    },
    /// Its provider has ended it.
    Retired {
        /// When, ms since 1970 UTC.
        at_ms: i64,
    },
    /// Too many of its answers went wrong.
    BreakerOpen {
        /// When it is tried again, ms from now.
        for_ms: u64,
        /// What went wrong there last: a closed set.
        cause: &'static str,
    },
    /// It told us to come again later.
    CoolingDown {
        /// When, ms from now.
        for_ms: u64,
    },
    /// Nobody knows what it costs.
    Unpriced(String),
    /// It does not take a member of the request.
    Unsupported(Box<str>),
    /// It speaks chat alone, and a member of the request has no word there.
    Untranslatable {
        /// Its path.
        member: Box<str>,
        /// Why not, and what helps.
        why: Box<str>,
    },
    /// Its answers are not good enough.
    Quality {
        /// Its score; none where nobody said.
        has: Option<u16>,
        /// The least.
        floor: u16,
    },
}

impl Out {
    /// The reason in one word: a closed set, for labels and tools.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Bound => "bound_elsewhere",
            Self::Lacks(_) => "capability",
            Self::ContextWindow { .. } => "context_window",
            Self::Retired { .. } => "retired",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::CoolingDown { .. } => "cooling_down",
            Self::Unpriced(_) => "unpriced",
            Self::Unsupported(_) => "unsupported_parameter",
            Self::Untranslatable { .. } => "untranslatable_parameter",
            Self::Quality { .. } => "quality",
        }
    }

    /// Whether the request itself is what can't be served, so that no waiting helps.
    pub const fn is_requests_fault(&self) -> bool {
        matches!(
            self,
            Self::Endpoint(_)
                | Self::Bound
                | Self::Lacks(_)
                | Self::ContextWindow { .. }
                | Self::Unsupported(_)
                | Self::Untranslatable { .. }
        )
    }

    /// When it is over by itself, ms from now; none where waiting does not help.
    pub const fn over_in_ms(&self) -> Option<u64> {
        match self {
            Self::BreakerOpen { for_ms, .. } | Self::CoolingDown { for_ms } => Some(*for_ms),
            _ => None,
        }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "it does not serve {name}"),
            Self::Bound => f.write_str("what the request names was made by another deployment"),
            Self::Lacks(capability) => write!(f, "it can't do {}", capability.name()),
            Self::ContextWindow { needs, has } => {
                write!(f, "{needs} tokens are needed, its context window has {has}")
            }
            Self::Retired { at_ms } => write!(f, "its provider has ended it on {}", day(*at_ms)),
            Self::BreakerOpen { for_ms, cause } => {
                write!(f, "{}; it is tried again in {} s", left_alone(cause), for_ms.div_ceil(1_000))
            }
            Self::CoolingDown { for_ms } => {
                write!(f, "it asked us to come again in {} s", for_ms.div_ceil(1_000))
            }
            Self::Unpriced(why) => write!(f, "it has no price: {why}"),
            Self::Unsupported(member) => write!(f, "it does not take '{member}'"),
            Self::Untranslatable { member, why } => {
                write!(f, "'{member}' can't be said in its chat API: {why}")
            }
            Self::Quality { has: Some(has), floor } => {
                write!(f, "its quality is {}, at least {} is wanted", score(*has), score(*floor))
            }
            Self::Quality { has: None, floor } => {
                write!(f, "it has no quality score, at least {} is wanted", score(*floor))
            }
        }
    }
}

/// Why a deployment is left alone, by what went wrong there last.
pub fn left_alone(cause: &str) -> String {
    match cause {
        "quota" => "the gateway's account there has no money or quota left".to_owned(),
        "auth" => "it refuses the gateway's credential".to_owned(),
        "deployment_missing" => "its provider does not know it".to_owned(),
        "health_check" => "its provider does not answer health checks".to_owned(),
        "" => "too much went wrong there".to_owned(),
        other => format!("too much went wrong there ({other})"),
    }
}

/// A score of 0 to 1,000 as operators write it, 0 to 1.
pub(super) fn score(per_mille: u16) -> String {
    let digits = format!("{}.{:03}", per_mille / 1_000, per_mille % 1_000);
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn day(ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(ms);
    moment.map_or_else(|_| format!("{ms} ms"), |moment| moment.strftime("%Y-%m-%d").to_string())
}

/// Why a deployment is asked only after all that have no such reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Its answers are expected to take longer than the plan wants.
    Slow {
        /// What they take, µs.
        expected_us: u64,
        /// What they may take, µs.
        ceiling_us: u64,
    },
    /// Nobody knows yet how long its answers take, and enough requests are there to find out.
    Untried {
        /// How many.
        in_flight: u32,
    },
    /// Its provider ends it soon.
    Retiring {
        /// When, ms since 1970 UTC.
        at_ms: i64,
    },
    /// As much is asked of it as its provider lets us.
    QuotaSpent {
        /// When there is more, ms from now.
        for_ms: u64,
    },
    /// It serves as many at once as it may.
    Full,
    /// A budget of its own has less left than the request is expected to cost; the hold decides.
    Budget {
        /// What is left.
        left: Usd,
        /// What is expected.
        wanted: Usd,
    },
}

impl Late {
    /// The reason in one word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Slow { .. } => "slow",
            Self::Untried { .. } => "untried",
            Self::Retiring { .. } => "retiring",
            Self::QuotaSpent { .. } => "quota_spent",
            Self::Full => "full",
            Self::Budget { .. } => "budget",
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { expected_us, ceiling_us } => write!(
                f,
                "{} ms are expected, the plan wants at most {} ms",
                expected_us.div_ceil(1_000),
                ceiling_us / 1_000
            ),
            Self::Untried { in_flight } => {
                write!(f, "how fast it is will be known when some of its {in_flight} requests have ended")
            }
            Self::Retiring { at_ms } => write!(f, "its provider ends it on {}", day(*at_ms)),
            Self::QuotaSpent { for_ms } => {
                write!(f, "its provider's quota is spent for {} s", for_ms.div_ceil(1_000))
            }
            Self::Full => f.write_str("it serves as many at once as it may"),
            Self::Budget { left, wanted } => {
                write!(f, "a budget of its own has {left} USD left, about {wanted} USD are expected")
            }
        }
    }
}

/// What is known of a deployment at this moment, for this request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Why it can't serve it.
    pub out: Option<Out>,
    /// Why it should be asked late.
    pub late: Option<Late>,
    /// What the request is expected to cost there.
    pub cost: Option<Usd>,
    /// When its first token is expected, µs.
    pub first_token_us: Option<u64>,
    /// How long each further token takes, µs.
    pub per_token_us: Option<u64>,
    /// When the answer's end is expected, µs.
    pub whole_us: Option<u64>,
    /// Requests that it serves just now.
    pub in_flight: u32,
    /// How much of its provider's quota is left, of 1,000; none where nobody knows.
    pub quota_left: Option<u16>,
    /// How many answers to this route were seen of it lately.
    pub samples: u32,
}

/// Who knows the deployments.
pub trait Sight {
    /// What is known of one.
    fn see(&mut self, deployment: &Arc<Deployment>) -> Seen;
    /// Random bits.
    fn random(&mut self) -> u64;
    /// Whether a share of the requests goes elsewhere first, to learn.
    fn probes(&self) -> bool {
        true
    }
}

/// A deployment in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which one.
    pub deployment: Arc<Deployment>,
    /// What was known of it.
    pub seen: Seen,
    /// Why it stands behind others.
    pub late: Option<Late>,
}

/// A plan, drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Whom to ask, in this order.
    pub order: Vec<Chosen>,
    /// Whom not, and why.
    pub out: Vec<(Arc<Deployment>, Out, Seen)>,
}

/// Draws a plan for a request.
pub fn draw(plan: &Plan, facts: &Facts<'_>, now_ms: i64, sight: &mut impl Sight) -> Drawn {
    let mut drawing = Drawing { facts, now_ms, sight, known: Vec::new(), out: Vec::new() };
    let placed = drawing.of(plan);
    drawing.finish(placed)
}

/// A deployment's place in an order.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// Which of the known.
    at: usize,
    late: Option<Late>,
}

struct Drawing<'a, S> {
    facts: &'a Facts<'a>,
    now_ms: i64,
    sight: &'a mut S,
    known: Vec<(Arc<Deployment>, Seen)>,
    out: Vec<(usize, Out)>,
}

impl<S: Sight> Drawing<'_, S> {
    fn of(&mut self, plan: &Plan) -> Vec<Placed> {
        match plan {
            Plan::To(deployment) => self.one(deployment),
            Plan::Ordered(plans) => plans.iter().flat_map(|plan| self.of(plan)).collect(),
            Plan::Weighted(weighted) => self.weighted(weighted),
            Plan::Cheapest(cheapest) => self.cheapest(cheapest),
            Plan::Fastest(fastest) => self.fastest(fastest),
            Plan::Pool(plans) => self.pool(plans),
            Plan::When(when) => self.when(when),
        }
    }

    fn one(&mut self, deployment: &Arc<Deployment>) -> Vec<Placed> {
        let found = self.known.iter().position(|(known, _)| known.name == deployment.name);
        let at = found.unwrap_or_else(|| {
            self.known.push((Arc::clone(deployment), self.sight.see(deployment)));
            self.known.len() - 1
        });
        let seen = &self.known[at].1;
        match seen.out.clone() {
            Some(out) => {
                self.out.push((at, out));
                Vec::new()
            }
            None => vec![Placed { at, late: seen.late }],
        }
    }

    fn weighted(&mut self, weighted: &Weighted) -> Vec<Placed> {
        let drawn = weighted.drawn(self.facts, self.sight.random(), self.now_ms);
        drawn.into_iter().flat_map(|at| self.of(&weighted.choices[at].1)).collect()
    }

    fn pool(&mut self, plans: &[Plan]) -> Vec<Placed> {
        let members: Vec<Vec<Placed>> = plans.iter().map(|plan| self.of(plan)).collect();
        let left = |placed: &Placed| u64::from(self.known[placed.at].1.quota_left.unwrap_or(1_000)) + 1;
        let weights = members.iter().enumerate().map(|(at, member)| {
            let left = member.first().map_or(0, left);
            (at as u64, left)
        });
        let seed = self.sight.random();
        ranked(seed, weights).into_iter().flat_map(|at| members[at].clone()).collect()
    }

    fn when(&mut self, when: &When) -> Vec<Placed> {
        let case = when.cases.iter().find(|(condition, _)| condition.holds(self.facts));
        match case.map(|(_, plan)| plan).or(when.otherwise.as_deref()) {
            Some(plan) => self.of(plan),
            None => Vec::new(),
        }
    }

    fn cheapest(&mut self, cheapest: &Cheapest) -> Vec<Placed> {
        let mut among = self.good_enough(&cheapest.among, cheapest.min_quality);
        for placed in among.iter_mut().flatten() {
            let seen = &self.known[placed.at].1;
            placed.late = placed.late.or_else(|| too_slow(seen, cheapest.ceiling));
        }
        let cost = |seen: &Seen| seen.cost.map_or(i64::MAX, Usd::nanos);
        self.sort(&mut among, |seen| cost(seen).unsigned_abs());
        let best = among.first().and_then(|part| part.first()).map(|first| cost(&self.known[first.at].1));
        let random = self.sight.random();
        let roll = random % 1_000;
        let (may_be_slow, may_be_known) =
            (roll < SLOW_PROBES, roll < u64::from(cheapest.probe_per_mille) / 10);
        let worth = |placed: &Placed, seen: &Seen| match (best, placed.late) {
            (Some(best), None) => {
                (may_be_known || seen.samples < ENOUGH_SAMPLES) && may_be_cheapest(seen, best)
            }
            (Some(best), Some(Late::Slow { .. })) => may_be_slow && cost(seen) < best,
            _ => false,
        };
        self.probe(&mut among, cheapest.probe_per_mille, random, worth);
        among.concat()
    }

    fn fastest(&mut self, fastest: &Fastest) -> Vec<Placed> {
        let mut among = self.good_enough(&fastest.among, fastest.min_quality);
        let by = fastest.by;
        let takes = |seen: &Seen| match by {
            Measure::Whole => seen.whole_us,
            Measure::FirstToken => seen.first_token_us,
            Measure::TokensPerSecond => seen.per_token_us,
        };
        self.sort(&mut among, |seen| takes(seen).unwrap_or(u64::MAX));
        let random = self.sight.random();
        self.probe(&mut among, fastest.probe_per_mille, random, |placed, _| placed.late.is_none());
        among.concat()
    }

    /// The parts that are left, without the deployments that are not good enough.
    fn good_enough(&mut self, plans: &[Plan], floor: Option<u16>) -> Vec<Vec<Placed>> {
        let mut parts: Vec<Vec<Placed>> = plans.iter().map(|plan| self.of(plan)).collect();
        if let Some(floor) = floor {
            let (known, out) = (&self.known, &mut self.out);
            for part in &mut parts {
                part.retain(|placed| {
                    let has = known[placed.at].0.quality;
                    let good = has.is_some_and(|has| has >= floor);
                    if !good {
                        out.push((placed.at, Out::Quality { has, floor }));
                    }
                    good
                });
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// By what is known of the first deployment of each part; late ones behind the others.
    fn sort(&self, parts: &mut [Vec<Placed>], by: impl Fn(&Seen) -> u64) {
        parts.sort_by_key(|part| {
            part.first().map(|placed| (placed.late.is_some(), by(&self.known[placed.at].1)))
        });
    }

    /// Lets a share of requests go first to another part than the best.
    fn probe(
        &self,
        parts: &mut [Vec<Placed>],
        per_mille: u16,
        random: u64,
        worth: impl Fn(&Placed, &Seen) -> bool,
    ) {
        if !self.sight.probes() || random % 1_000 >= u64::from(per_mille) {
            return;
        }
        let other = |(at, part): (usize, &Vec<Placed>)| {
            let first = part.first()?;
            (at > 0 && worth(first, &self.known[first.at].1)).then_some(at)
        };
        let others: Vec<usize> = parts.iter().enumerate().filter_map(other).collect();
        if let Some(most) = u64::try_from(others.len()).ok().filter(|most| *most > 0)
            && let Ok(drawn) = usize::try_from((random >> 32) % most)
        {
            parts[..=others[drawn]].rotate_right(1);
            // one that was slow is asked in time all the same: that is the probe
            parts[0][0].late = None;
        }
    }

    fn finish(self, mut placed: Vec<Placed>) -> Drawn {
        // stable: late ones keep their order among themselves
        placed.sort_by_key(|placed| placed.late.is_some());
        let mut taken = vec![false; self.known.len()];
        let mut drawn = Drawn::default();
        for Placed { at, late } in placed {
            if !std::mem::replace(&mut taken[at], true) {
                let (deployment, seen) = self.known[at].clone();
                drawn.order.push(Chosen { deployment, seen, late });
            }
        }
        for (at, out) in self.out {
            if !std::mem::replace(&mut taken[at], true) {
                let (deployment, seen) = self.known[at].clone();
                drawn.out.push((deployment, out, seen));
            }
        }
        drawn
    }
}

/// What of a ceiling stands against a deployment.
fn too_slow(seen: &Seen, ceiling: Ceiling) -> Option<Late> {
    let expected = [(seen.first_token_us, ceiling.first_token), (seen.whole_us, ceiling.whole)];
    expected.into_iter().find_map(|(expected, ceiling)| {
        let ceiling_us = u64::try_from(ceiling?.as_micros()).ok()?;
        match expected {
            Some(expected_us) if expected_us > ceiling_us => Some(Late::Slow { expected_us, ceiling_us }),
            Some(_) if seen.samples >= ENOUGH_SAMPLES => None,
            // the answers that end first are the short ones: they do not tell how long the others take
            Some(_) | None => {
                let at_once = seen.samples.max(UNTRIED_AT_ONCE);
                (seen.in_flight >= at_once).then_some(Late::Untried { in_flight: seen.in_flight })
            }
        }
    })
}

/// Whether a deployment that seems dearer than the best may be the cheapest after all.
///
/// The fewer of its answers were seen, the further off it may seem: with a standard error of about 1.3 / √answers, a
/// little more than twice that. So each one gets some probes in inverse proportion to how much dearer it is, and what they cost is bounded.
fn may_be_cheapest(seen: &Seen, best: i64) -> bool {
    let Some(cost) = seen.cost else { return false };
    let (cost, best) = (i128::from(cost.nanos()), i128::from(best));
    let gap = (cost - best).max(0);
    let known = i128::from(seen.samples.saturating_sub(FEW_SAMPLES).max(1));
    gap.saturating_mul(gap).saturating_mul(known) <= best.saturating_mul(best).saturating_mul(8)
}

#[cfg(test)]
mod tests;
