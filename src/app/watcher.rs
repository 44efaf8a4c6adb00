//! Asks the providers, beside the requests, for their lists of models: when models end, and whether a provider is there
//! at all. Whatever a provider answers, or does not, requests go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::{sleep, timeout};

use super::services::stopping;
use crate::clock;
use crate::domain::catalog::{Deployment, Provider, ProviderKind};
use crate::domain::retirement::Stage;
use crate::gateway::Gateway;
use crate::gateway::board::Health;
use crate::gateway::catalog::Live;
use crate::telemetry::metrics::Metrics;
use crate::upstream::http::{Link, Pools};
use crate::upstream::{ListError, ListedModel, Phase, Upstream, UpstreamError, model_list};

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(200);
/// For one question.
const LIMIT: Duration = Duration::from_secs(10);
/// The first questions come within so long of the start: not all gateways of a house ask at one moment.
const FIRST_WITHIN: Duration = Duration::from_secs(15);
/// Providers that are asked at once; each answer may take some memory.
const AT_ONCE: usize = 8;

/// Does it.
pub(super) struct Watcher {
    pub(super) gateway: Arc<Gateway>,
    pub(super) metrics: Arc<Metrics>,
    /// How often each list is asked for; none: only where a deployment wants to be checked.
    pub(super) every: Option<Duration>,
}

/// An answer to the question.
type Listed = Result<Vec<ListedModel>, ListError>;

/// What is asked of one provider, and when.
struct Round {
    upstream: Arc<Upstream>,
    /// Its deployments that want to be checked.
    checked: Vec<Arc<Deployment>>,
    every: Duration,
    /// None while it is being asked.
    next: Option<Instant>,
    /// What went wrong the last time: it is said once.
    trouble: Option<String>,
}

/// All rounds by the provider's name, for one snapshot of the catalog.
#[derive(Default)]
struct Rounds {
    of: BTreeMap<Arc<str>, Round>,
    live: Option<Arc<Live>>,
    /// How far each deployment was when that was said last.
    stages: BTreeMap<Arc<str>, Stage>,
}

#[async_trait]
impl BackgroundService for Watcher {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // connections of our own: a check is to find out whether new ones can be made
        let pools = Pools::default();
        let mut rounds = Rounds::default();
        let mut asked: FuturesUnordered<BoxFuture<'static, (Arc<Upstream>, Listed)>> =
            FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = sleep(LOOK) => {}
                Some((upstream, listed)) = asked.next(), if !asked.is_empty() => {
                    self.heard(&mut rounds, &upstream, &listed);
                }
            }
            self.follow(&mut rounds);
            let now = clock::monotonic();
            for round in rounds.of.values_mut() {
                if asked.len() < AT_ONCE && round.next.is_some_and(|next| next <= now) {
                    round.next = None;
                    let link = Link::new(Arc::clone(round.upstream.provider()), &pools);
                    asked.push(Box::pin(ask(Arc::clone(&round.upstream), link)));
                }
            }
        }
    }
}

/// Asks one provider.
async fn ask(upstream: Arc<Upstream>, link: Link) -> (Arc<Upstream>, Listed) {
    let listed = async {
        let authorization = upstream.authorization(clock::monotonic()).await?;
        model_list(&link, &authorization, LIMIT).await
    };
    let listed = timeout(LIMIT, listed).await;
    let too_late = |_| Err(UpstreamError::Timeout(Phase::Total).into());
    let listed = listed.unwrap_or_else(too_late);
    (upstream, listed)
}

impl Watcher {
    /// Follows the catalog: who is to be asked, and how often. Who is known keeps its turn.
    fn follow(&self, rounds: &mut Rounds) {
        let live = self.gateway.catalog.load();
        if rounds.live.as_ref().is_some_and(|known| Arc::ptr_eq(known, &live)) {
            return;
        }
        let now = clock::monotonic();
        let mut of = BTreeMap::new();
        for upstream in live.upstreams() {
            let provider = upstream.provider();
            let Some((every, checked)) = self.turn(&live, provider) else { continue };
            let before = rounds.of.remove(&provider.name);
            let known = before.filter(|round| Arc::ptr_eq(&round.upstream, upstream) && round.every == every);
            let round = match known {
                Some(known) => Round { checked, ..known },
                None => {
                    let first = every.min(FIRST_WITHIN).mul_f64(rand::random());
                    let upstream = Arc::clone(upstream);
                    Round { upstream, checked, every, next: Some(now + first), trouble: None }
                }
            };
            of.insert(Arc::clone(&provider.name), round);
        }
        self.gateway.retirements.forget_others(&live.catalog);
        rounds.of = of;
        rounds.live = Some(live);
        self.say_stages(rounds);
    }

    /// How often a provider is asked, and for which of its deployments that is a check; none where nobody wants it.
    fn turn(&self, live: &Live, provider: &Provider) -> Option<(Duration, Vec<Arc<Deployment>>)> {
        let all = live.catalog.deployments.values();
        let served: Vec<_> = all.filter(|deployment| deployment.provider.name == provider.name).collect();
        let is_listed = provider.dialect.kind() != ProviderKind::Candle && !served.is_empty();
        let checked: Vec<_> = served
            .into_iter()
            .filter(|deployment| deployment.health_check_every.is_some())
            .cloned()
            .collect();
        let checks = checked.iter().filter_map(|deployment| deployment.health_check_every);
        let every = self.every.filter(|_| is_listed).into_iter().chain(checks).min()?;
        Some((every, checked))
    }

    /// Takes an answer over. One of a provider that has left the catalog meanwhile says nothing.
    fn heard(&self, rounds: &mut Rounds, upstream: &Arc<Upstream>, listed: &Listed) {
        let provider = upstream.provider();
        let Some(round) = rounds.of.get_mut(&provider.name) else { return };
        if !Arc::ptr_eq(&round.upstream, upstream) {
            return;
        }
        let now = clock::monotonic();
        // a tenth earlier or later: questions that met once do not meet for ever
        round.next = Some(now + round.every.mul_f64(0.9 + 0.2 * rand::random::<f64>()));
        self.metrics.upstreams.polled(&provider.name, result(listed));
        if let Some(health) = health(listed) {
            for deployment in &round.checked {
                self.gateway.board.checked(deployment, health, now);
            }
        }
        let changed = match listed {
            Ok(list) => self.gateway.retirements.tell(provider, list),
            Err(_) => false,
        };
        let trouble = listed.as_ref().err().map(ToString::to_string);
        if trouble != round.trouble {
            say_trouble(provider, listed);
            round.trouble = trouble;
        }
        if changed {
            self.say_stages(rounds);
        }
    }

    /// Says, once a stage, which deployments come to their end.
    fn say_stages(&self, rounds: &mut Rounds) {
        let Some(live) = &rounds.live else { return };
        let (retirements, now_ms) = (&self.gateway.retirements, clock::unix_ms());
        for (name, deployment) in &live.catalog.deployments {
            let Some(retirement) = retirements.of(deployment, &deployment.upstream_model) else { continue };
            let stage = retirements.stage(&retirement, now_ms);
            let before = rounds.stages.insert(Arc::clone(name), stage).unwrap_or(Stage::Active);
            if stage > before {
                tracing::warn!(
                    deployment = %name,
                    retires_on = retirement.day(),
                    said_by = retirement.source.name(),
                    "a deployment's model is about to end, or has ended: move its traffic to another"
                );
            }
        }
        rounds.stages.retain(|name, _| live.catalog.deployments.contains_key(name));
    }
}

/// What came of a question, in a word.
fn result(listed: &Listed) -> &'static str {
    match listed {
        Ok(_) => "listed",
        Err(ListError::Refused { .. }) => "refused",
        Err(ListError::NoList | ListError::Upstream(UpstreamError::TooLarge(_))) => "no_list",
        Err(ListError::Upstream(_)) => "unreachable",
    }
}

/// What that says about a provider's health; nothing where it answers, but not whether it would serve us.
fn health(listed: &Listed) -> Option<Health> {
    match listed {
        Ok(_) => Some(Health::Well),
        Err(ListError::Refused { status: 500.., .. }) => Some(Health::Ill),
        Err(ListError::Upstream(UpstreamError::TooLarge(_))) => None,
        Err(ListError::Upstream(_)) => Some(Health::Ill),
        Err(ListError::Refused { .. } | ListError::NoList) => None,
    }
}

/// Says that something else than before came of a question. Many servers have no list, which is nobody's trouble.
fn say_trouble(provider: &Provider, listed: &Listed) {
    match listed {
        Ok(_) => tracing::info!(provider = %provider.name, "the provider lists its models again"),
        Err(ListError::Refused { status: 404 | 405 | 501, .. }) => {
            tracing::debug!(provider = %provider.name, "the provider has no list of models");
        }
        Err(error) => {
            tracing::warn!(provider = %provider.name, %error, "the provider does not list its models");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_keep_requests_from_being_served_is_ill() {
        let refused = |status| Err(ListError::Refused { status, words: String::new() });
        let upstream = |error| Err(ListError::Upstream(error));
        for (listed, word, want) in [
            (Ok(Vec::new()), "listed", Some(Health::Well)),
            (refused(500), "refused", Some(Health::Ill)),
            (refused(503), "refused", Some(Health::Ill)),
            (refused(401), "refused", None),
            (refused(404), "refused", None),
            (refused(429), "refused", None),
            (Err(ListError::NoList), "no_list", None),
            (upstream(UpstreamError::TooLarge(1)), "no_list", None),
            (upstream(UpstreamError::Timeout(Phase::FirstByte)), "unreachable", Some(Health::Ill)),
            (upstream(UpstreamError::Connect("refused".into())), "unreachable", Some(Health::Ill)),
        ] {
            assert_eq!((result(&listed), health(&listed)), (word, want), "{listed:?}");
        }
    }
}
