//! When the models behind deployments end: what the providers' lists of models say lately, beside what the operator and
//! the published days say.
//!
//! Requests ask here, a background service tells. What a provider has said stays until it says otherwise: a model that
//! has left its list has not come back to life.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};

use crate::domain::catalog::{Catalog, Deployment, Provider};
use crate::domain::retirement::{Retirement, RetirementSource, Stage, listed_as, retirement_of};
use crate::telemetry::metrics::Metrics;
use crate::upstream::ListedModel;

/// Most models of one provider whose days are kept: far more than any has, and a list is not trusted to end.
const MOST_MODELS: usize = 10_000;

/// Two ends that are no further apart are one, told by two.
const SAME_END_MS: i64 = 3_600_000;

/// RFC 8594.
static SUNSET: HeaderName = HeaderName::from_static("sunset");
static WARNING: HeaderName = HeaderName::from_static("x-tunegate-warning");

/// How the end of a model is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// So long before it a deployment is asked last.
    pub lead: Duration,
    /// So long before it clients are told.
    pub warn: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { lead: Duration::from_secs(86_400), warn: Duration::from_secs(60 * 86_400) }
    }
}

/// What one provider has said.
#[derive(Debug, Clone)]
struct Days {
    /// Another account may have other models.
    provider: Arc<Provider>,
    of: HashMap<Box<str>, i64>,
}

/// When models end.
#[derive(Debug)]
pub struct Retirements {
    config: Config,
    /// By the provider's name; none where it has named no day.
    told: ArcSwap<BTreeMap<Arc<str>, Days>>,
    /// When deployments end by their kind, by their names; ms since 1970 UTC.
    kinds: ArcSwap<HashMap<Arc<str>, i64>>,
}

impl Retirements {
    /// Without a word from any provider.
    pub fn new(config: Config) -> Self {
        Self { config, told: ArcSwap::default(), kinds: ArcSwap::default() }
    }

    /// When a deployment's model ends, if anybody knows.
    pub fn of(&self, deployment: &Deployment, upstream_model: &str) -> Option<Retirement> {
        let told = self.told.load();
        let days = told.get(&deployment.provider.name);
        let at_ms = days.and_then(|days| {
            listed_as(deployment, upstream_model).find_map(|name| days.of.get(name).copied())
        });
        let found = retirement_of(deployment, upstream_model, at_ms);
        let kind = self.kinds.load().get(&deployment.name).copied();
        let kind = kind.map(|at_ms| Retirement { at_ms, source: RetirementSource::Kind });
        match (found, kind) {
            // what comes first; where others say the same day, how it is met is the kind's
            (Some(found), Some(kind)) => {
                Some(if found.at_ms < kind.at_ms.saturating_sub(SAME_END_MS) { found } else { kind })
            }
            (found, kind) => found.or(kind),
        }
    }

    /// Takes over which deployments end by their kind, and when.
    pub fn end_by_kind(&self, ends: HashMap<Arc<str>, i64>) {
        if **self.kinds.load() != ends {
            self.kinds.store(Arc::new(ends));
        }
    }

    /// How far a deployment is on its way to that end; `now_ms` is ms since 1970 UTC.
    pub fn stage(&self, retirement: &Retirement, now_ms: i64) -> Stage {
        retirement.stage(now_ms, self.config.lead, self.config.warn)
    }

    /// What an answer's headers tell of the end of the deployment that gave it; nothing while it is far.
    pub fn headers(
        &self,
        deployment: &str,
        retirement: &Retirement,
        now_ms: i64,
    ) -> Option<[(HeaderName, HeaderValue); 2]> {
        if self.stage(retirement, now_ms) == Stage::Active {
            return None;
        }
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(retirement.at_ms).ok()?))?;
        let sunset = HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok()?;
        let warning = format!("deployment {deployment} retires on {}", retirement.day());
        Some([(SUNSET.clone(), sunset), (WARNING.clone(), HeaderValue::from_str(&warning).ok()?)])
    }

    /// Takes over what a provider's list says. Returns whether that changes anything.
    pub fn tell(&self, provider: &Arc<Provider>, list: &[ListedModel]) -> bool {
        let told = self.told.load();
        let same = told.get(&provider.name).filter(|days| days.provider == *provider);
        let mut of = same.map(|days| days.of.clone()).unwrap_or_default();
        let before = of.clone();
        for ListedModel { id, ends_ms } in list {
            match ends_ms {
                None => drop(of.remove(id)),
                Some(ends_ms) if of.len() < MOST_MODELS || of.contains_key(id) => {
                    of.insert(id.clone(), *ends_ms);
                }
                Some(_) => {}
            }
        }
        if of == before && same.is_some() {
            return false;
        }
        let changed = of != before;
        let mut all = (**told).clone();
        all.insert(Arc::clone(&provider.name), Days { provider: Arc::clone(provider), of });
        self.told.store(Arc::new(all));
        changed
    }

    /// Writes into the metrics when the models of a catalog's deployments end.
    pub fn publish(&self, catalog: &Catalog, metrics: &Metrics) {
        metrics.upstreams.retire(catalog.deployments.iter().filter_map(|(name, deployment)| {
            Some((&**name, self.of(deployment, &deployment.upstream_model)?.at_ms))
        }));
    }

    /// Forgets what was said by providers that are not those of a catalog.
    pub fn forget_others(&self, catalog: &Catalog) {
        let told = self.told.load();
        let stays = |name: &Arc<str>, days: &Days| catalog.providers.get(name) == Some(&days.provider);
        if told.iter().all(|(name, days)| stays(name, days)) {
            return;
        }
        let mut all = (**told).clone();
        all.retain(|name, days| stays(name, days));
        self.told.store(Arc::new(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::retirement::day_ms;

    const DAY_MS: i64 = 86_400_000;

    fn told(model: &str, day: Option<&str>) -> ListedModel {
        ListedModel { id: model.into(), ends_ms: day.and_then(day_ms) }
    }

    fn day(all: &Retirements, deployment: &Deployment, model: &str) -> Option<String> {
        all.of(deployment, model).map(|retirement| retirement.day())
    }

    #[test]
    fn what_a_provider_has_said_stays_until_it_says_otherwise() {
        let all = Retirements::new(Config::default());
        let (tuned, any) = (deployment("d", "ft:x:acme::1"), deployment("any", "*"));
        let provider = &tuned.provider;
        for (list, changes, wants) in [
            (vec![], false, None),
            (vec![told("x", Some("2027-03-01"))], true, Some("2027-03-01")),
            (vec![told("x", Some("2027-03-01"))], false, Some("2027-03-01")),
            // its own day goes before its base's
            (vec![told("ft:x:acme::1", Some("2027-02-01"))], true, Some("2027-02-01")),
            (vec![told("other", None)], false, Some("2027-02-01")),
            (vec![told("ft:x:acme::1", None)], true, Some("2027-03-01")),
            (vec![told("x", Some("2027-04-01"))], true, Some("2027-04-01")),
            (vec![told("x", None)], true, None),
        ] {
            assert_eq!(all.tell(provider, &list), changes, "{list:?}");
            assert_eq!(day(&all, &tuned, "ft:x:acme::1").as_deref(), wants, "{list:?}");
            assert_eq!(day(&all, &any, "ft:x:acme::1").as_deref(), wants, "{list:?}");
        }
    }

    #[test]
    fn the_operators_word_goes_before_the_providers() {
        let all = Retirements::new(Config::default());
        let plain = deployment("d", "m");
        all.tell(&plain.provider, &[told("m", Some("2027-03-01"))]);
        let found = all.of(&plain, "m").map(|found| found.source);
        assert_eq!(found, Some(RetirementSource::Provider));
        let own = Deployment { retires_at_ms: Some(5), ..(*plain).clone() };
        let found = all.of(&own, "m").map(|found| (found.at_ms, found.source));
        assert_eq!(found, Some((5, RetirementSource::Operator)));
    }

    #[test]
    fn what_lives_for_a_day_is_asked_until_its_last_hour() {
        let all = Retirements::new(Config::default());
        let plain = deployment("d", "m");
        let end = day_ms("2027-03-01").expect("a day");
        all.end_by_kind(HashMap::from([("d".into(), end)]));
        let found = all.of(&plain, "m").expect("an end");
        assert_eq!((found.at_ms, found.source), (end, RetirementSource::Kind));
        for (hours, want) in [
            (24, Stage::Active),
            (7, Stage::Active),
            (6, Stage::Warned),
            (1, Stage::Leaving),
            (0, Stage::Retired),
        ] {
            assert_eq!(all.stage(&found, end - hours * 3_600_000), want, "{hours} hours before");
        }
        all.tell(&plain.provider, &[told("m", Some("2027-02-01"))]);
        assert_eq!(day(&all, &plain, "m").as_deref(), Some("2027-02-01"), "what comes first");
        all.tell(&plain.provider, &[told("m", None)]);
        let own = Deployment { retires_at_ms: Some(end), ..(*plain).clone() };
        let found = all.of(&own, "m").map(|found| found.source);
        assert_eq!(found, Some(RetirementSource::Kind), "who deployed it may say the same");
        all.end_by_kind(HashMap::new());
        assert_eq!(all.of(&plain, "m"), None);
    }

    #[test]
    fn another_account_under_the_same_name_has_said_nothing() {
        let all = Retirements::new(Config::default());
        let plain = deployment("d", "m");
        all.tell(&plain.provider, &[told("m", Some("2027-03-01"))]);
        let catalog = |provider: Provider| {
            let providers = BTreeMap::from([(Arc::clone(&provider.name), Arc::new(provider))]);
            Catalog::new(providers, BTreeMap::new(), Vec::new())
        };
        all.forget_others(&catalog((*plain.provider).clone()));
        assert!(all.of(&plain, "m").is_some());
        let other = Provider { authority: "other".to_owned(), ..(*plain.provider).clone() };
        all.forget_others(&catalog(other));
        assert!(all.of(&plain, "m").is_none());
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let all = Retirements::new(Config::default());
        let plain = deployment("d", "m1");
        let list: Vec<ListedModel> =
            (0..MOST_MODELS + 5).map(|n| told(&format!("m{n}"), Some("2027-03-01"))).collect();
        all.tell(&plain.provider, &list);
        assert_eq!(all.told.load()[&plain.provider.name].of.len(), MOST_MODELS);
        // those that are known can still change
        assert!(all.tell(&plain.provider, &[told("m1", Some("2027-04-01"))]));
    }

    #[test]
    fn clients_are_told_ahead_of_time() {
        let all = Retirements::new(Config::default());
        let retirement =
            Retirement { at_ms: day_ms("2027-01-14").expect("a day"), source: RetirementSource::Operator };
        assert_eq!(all.headers("support-v3", &retirement, retirement.at_ms - 61 * DAY_MS), None);
        for before in [60 * DAY_MS, 0, -DAY_MS] {
            let headers = all.headers("support-v3", &retirement, retirement.at_ms - before);
            let found = headers.expect("headers").map(|(name, value)| format!("{name}: {value:?}"));
            assert_eq!(
                found,
                [
                    r#"sunset: "Thu, 14 Jan 2027 00:00:00 GMT""#,
                    r#"x-tunegate-warning: "deployment support-v3 retires on 2027-01-14""#
                ]
            );
        }
        let beyond = Retirement { at_ms: i64::MIN, ..retirement };
        assert_eq!(all.headers("d", &beyond, 0), None, "no date that a header could say");
    }
}
