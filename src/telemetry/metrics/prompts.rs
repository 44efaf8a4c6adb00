//! Stored prompts: what is put into requests, and what that costs.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::declare::metrics;
use super::exact::{self, DollarCounterVec};
use super::labels::{Bounded, Seats};
use super::table::Table;
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::ledger::Entry;
use crate::domain::prompt::PromptBook;
use crate::domain::route::Route;

metrics! {
    /// What is counted of prompts.
    struct Families {
        /// Requests that were sent with a stored prompt; each attempt counts.
        requests: IntCounterVec = "tunegate_prompt_requests_total" ["prompt", "model", "deployment"];
        /// Tokens of stored prompts that were sent with them.
        tokens: IntCounterVec = "tunegate_prompt_tokens_total" ["prompt", "model", "deployment"];
        /// The part of cost that stored prompts were, USD, as the ledger has it.
        cost: DollarCounterVec = "tunegate_prompt_cost_usd_total" ["prompt", "model", "deployment"];
        /// Requests that were sent with another prompt than the fine-tuned model was trained with; each attempt counts.
        mismatches: IntCounterVec = "tunegate_prompt_mismatches_total" ["model", "deployment"];
        /// The number of the version that a label of a prompt points at.
        versions: Table = "tunegate_prompt_label_version" ["prompt", "label"];
    }
}

/// Stored prompts.
pub struct Prompts {
    families: Families,
    /// Prompts that have a label of their own.
    names: Bounded,
    /// Labels of prompts that have a series of their own, each with its prompt.
    labels: Seats<(Arc<str>, Arc<str>)>,
}

impl Prompts {
    /// Room for so many prompts, and so many of their labels.
    pub(super) fn new(
        registry: &Registry,
        most: usize,
        overflows: impl Fn(&str) -> IntCounter,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            families: Families::declared(registry)?,
            names: Bounded::new(most, overflows("prompt")),
            labels: Seats::new(most, overflows("prompt_label")),
        })
    }

    /// Lets the series of prompts that the catalog puts in begin at 0, and those of models that are bound to one.
    pub(super) fn born(&self, catalog: &Catalog) {
        for model in catalog.models() {
            for route in model.routes() {
                for deployment in &route.deployments {
                    self.pair_born(model.name.as_str(), route, deployment);
                }
            }
        }
    }

    fn pair_born(&self, model: &str, route: &Route, deployment: &Deployment) {
        if let Some(injection) = deployment.prompt.as_ref().or(route.prompt.as_ref()) {
            let labels = [self.names.label(&injection.prompt.name), model, &*deployment.name];
            self.families.requests.with_label_values(&labels);
            self.families.tokens.with_label_values(&labels);
            self.families.cost.with_label_values(&labels);
        }
        if deployment.trained_with.is_some() {
            self.families.mismatches.with_label_values(&[model, &*deployment.name]);
        }
    }

    /// Counts a request that is sent with a prompt of so many tokens; `prompt` is its name alone.
    pub fn injected(&self, prompt: &str, model: &str, deployment: &str, tokens: u64) {
        let labels = [self.names.label(prompt), model, deployment];
        self.families.requests.with_label_values(&labels).inc();
        self.families.tokens.with_label_values(&labels).inc_by(tokens);
    }

    /// Counts what a prompt was of an entry's cost.
    pub fn spent(&self, entry: &Entry) {
        let Some(injected) = &entry.injected else { return };
        let name = injected.prompt.split_once('@').map_or(&*injected.prompt, |(name, _)| name);
        let on = &*entry.attribution;
        let labels = [self.names.label(name), &*on.model, &*on.deployment];
        exact::add(&self.families.cost.with_label_values(&labels), injected.cost);
    }

    /// Counts a request that is sent with another prompt than its deployment was trained with.
    pub fn mismatched(&self, model: &str, deployment: &str) {
        self.families.mismatches.with_label_values(&[model, deployment]).inc();
    }

    /// Says which versions all labels point at.
    pub fn labels(&self, book: &PromptBook) {
        self.names.seat(book.prompts.keys().map(|name| &**name));
        let labels = book.prompts.iter().flat_map(|(name, prompt)| {
            prompt.labels.iter().map(|(label, version)| ((name.clone(), label.clone()), *version))
        });
        let all: Vec<_> = labels.collect();
        let keys: Vec<_> = all.iter().map(|(key, _)| key.clone()).collect();
        let seated = self.labels.seated(&keys);
        let rows = all.iter().filter(|(key, _)| seated.contains(key));
        self.families
            .versions
            .replace(rows.map(|((prompt, label), version)| ([&**prompt, &**label], f64::from(*version))));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::catalog::Model;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::ids::ModelName;
    use crate::domain::ledger::{Attribution, EntryKind};
    use crate::domain::money::Usd;
    use crate::domain::prompt::{Injected, Injection, Mode, Prompt, PromptRef, Role, TrainedWith};
    use crate::domain::route::Plan;
    use crate::domain::usage::TokenCounts;

    fn prompts(most: usize) -> (Registry, Prompts) {
        let registry = Registry::new();
        let overflows = |_: &str| IntCounter::new("overflows", "Overflows.").expect("a counter");
        let prompts = Prompts::new(&registry, most, overflows).expect("declared");
        (registry, prompts)
    }

    fn lines(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let of = |line: &str| line.strip_prefix("tunegate_prompt_").map(str::to_owned);
        text.lines().filter_map(of).collect()
    }

    fn bound(name: &str, own: Option<&str>, trained: Option<&str>) -> Arc<Deployment> {
        let plain = deployment(name, "gpt-4.1");
        Arc::new(Deployment {
            prompt: own.map(injection),
            trained_with: trained.map(|sha256| TrainedWith::Words(sha256.into())),
            ..(*plain).clone()
        })
    }

    fn injection(prompt: &str) -> Arc<Injection> {
        let prompt = PromptRef::parse(prompt).expect("a reference");
        Arc::new(Injection { prompt, mode: Mode::default(), role: Role::default() })
    }

    #[test]
    fn what_the_catalog_puts_in_begins_at_nothing() {
        let name = ModelName::parse("bot").expect("a name");
        let both = [bound("own", Some("terse@2"), Some("ab")), bound("plain", None, None)];
        let plan = Plan::Ordered(both.map(Plan::To).into());
        let route = Route { prompt: Some(injection("support")), ..Route::new(plan.clone()) };
        let bare = Model::plain(ModelName::parse("bare").expect("a name"), plan);
        let bot = Model { route: Arc::new(route), ..bare.clone() };
        let (registry, prompts) = prompts(9);
        let catalog = Catalog::new(BTreeMap::new(), BTreeMap::new(), vec![Model { name, ..bot }, bare]);
        prompts.born(&catalog);
        let mut wanted = Vec::new();
        for (family, least) in [("cost_usd_total", 0), ("mismatches_total", 1), ("requests_total", 0)] {
            let all = [
                r#"deployment="own",model="bare",prompt="terse""#,
                r#"deployment="own",model="bot",prompt="terse""#,
                r#"deployment="plain",model="bot",prompt="support""#,
            ];
            let of_bound = [r#"deployment="own",model="bare""#, r#"deployment="own",model="bot""#];
            let labels = if least == 1 { of_bound.as_slice() } else { &all };
            wanted.extend(labels.iter().map(|labels| format!("{family}{{{labels}}} 0")));
        }
        let found = lines(&registry);
        let tokens = |line: &&String| !line.starts_with("tokens_total");
        assert_eq!(found.iter().filter(tokens).collect::<Vec<_>>(), wanted.iter().collect::<Vec<_>>());
        assert_eq!(found.len(), wanted.len() + 3);
    }

    #[test]
    fn prompts_without_a_label_of_their_own_share_one() {
        let (registry, prompts) = prompts(1);
        for (prompt, tokens) in [("a", 100), ("b", 20), ("c", 3), ("a", 100)] {
            prompts.injected(prompt, "bot", "d", tokens);
        }
        for (prompt, nanos) in [("a@3", 1_500), ("b@1", 30), ("c@1", 4), ("a@4", 500)] {
            prompts.spent(&entry(Some((prompt, nanos))));
        }
        prompts.spent(&entry(None));
        let of = |family: &str, prompt: &str, number: &str| {
            format!(r#"{family}{{deployment="d",model="bot",prompt="{prompt}"}} {number}"#)
        };
        let wanted = [
            of("cost_usd_total", "a", "0.000002"),
            of("cost_usd_total", "other", "0.000000034"),
            of("requests_total", "a", "2"),
            of("requests_total", "other", "2"),
            of("tokens_total", "a", "200"),
            of("tokens_total", "other", "23"),
        ];
        assert_eq!(lines(&registry), wanted);
    }

    fn entry(injected: Option<(&str, i64)>) -> Entry {
        let on = Attribution { model: "bot".into(), deployment: "d".into(), ..Attribution::default() };
        let injected = injected.map(|(prompt, nanos)| {
            Arc::new(Injected { prompt: prompt.into(), tokens: 1, cost: Usd::from_nanos(nanos) })
        });
        Entry {
            seq: 1,
            kind: EntryKind::Usage,
            at_ms: 0,
            written_at_ms: 0,
            of: 0,
            request_id: Arc::default(),
            instance: Arc::default(),
            attribution: Arc::new(on),
            tokens: TokenCounts::default(),
            source: None,
            held: Usd::ZERO,
            cost: Usd::dollars(1),
            saved: Usd::ZERO,
            price: Arc::default(),
            note: None,
            injected,
        }
    }

    #[test]
    fn a_label_is_said_while_it_is_there() {
        let (registry, prompts) = prompts(2);
        let book = |all: &[(&str, &[(&str, u32)])]| PromptBook {
            prompts: all
                .iter()
                .map(|(name, labels)| {
                    let labels = labels.iter().map(|(label, version)| (Arc::from(*label), *version));
                    (Arc::from(*name), Prompt { versions: BTreeMap::new(), labels: labels.collect() })
                })
                .collect(),
        };
        let of = |prompt: &str, label: &str, version: u32| {
            format!(r#"label_version{{label="{label}",prompt="{prompt}"}} {version}"#)
        };
        prompts.labels(&book(&[("a", &[("candidate", 4), ("production", 3)]), ("b", &[("production", 1)])]));
        assert_eq!(lines(&registry), [of("a", "candidate", 4), of("a", "production", 3)]);
        prompts.labels(&book(&[("a", &[("production", 4)]), ("b", &[("production", 1)])]));
        assert_eq!(lines(&registry), [of("a", "production", 4), of("b", "production", 1)]);
        prompts.labels(&PromptBook::default());
        assert_eq!(lines(&registry), [""; 0]);
    }
}
