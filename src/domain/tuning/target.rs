//! Who trains a base model: its name decides.
//!
//! `azure/RESOURCE/MODEL`, `local/MODEL` and `PROVIDER/MODEL` say it themselves. A name without a provider in front goes
//! to the one whose `training.models` fits best: an exact name before a pattern, a longer pattern before a shorter one,
//! OpenAI itself before a server that only speaks its language.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::domain::catalog::{Catalog, Provider, ProviderKind, Training};
use crate::domain::endpoint::Endpoint;
use crate::domain::fine_tuned_name::{FineTunedName, Form};

/// What OpenAI trains, newest first.
///
/// Source: the spec of 2026-08-21 and the price page of November 2026.
const OPENAI_TRAINS: [&str; 9] = [
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "o4-mini",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-3.5-turbo",
    "davinci-002",
    "babbage-002",
];
/// What Azure trains of OpenAI's models, under its own names.
///
/// Source: the table of models in Microsoft's fine-tuning pages, 2026-03.
const AZURE_TRAINS: [&str; 6] = [
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano-2025-04-14",
    "o4-mini-2025-04-16",
    "gpt-4o-2024-08-06",
    "gpt-4o-mini-2024-07-18",
];
/// The host of OpenAI itself.
const OPENAI: &str = "api.openai.com";
/// What stands in front of a resource.
const AZURE: &str = "azure";

/// A base model and who trains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who trains.
    pub provider: Arc<Provider>,
    /// The provider's own name of the base model.
    pub model: Arc<str>,
}

/// The name that leads here whatever else is configured.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.provider.training.as_ref().and_then(|training| training.resource.as_deref()) {
            Some(resource) => write!(f, "{AZURE}/{resource}/{}", self.model),
            None => write!(f, "{}/{}", self.provider.name, self.model),
        }
    }
}

/// Why a name leads to nobody who trains. For the client who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No provider trains it.
    #[error("no provider here trains {asked:?}: {}", ways(.known))]
    Nobody {
        /// The name.
        asked: String,
        /// What may stand in front of a name.
        known: Vec<String>,
    },
    /// More than one provider trains it.
    #[error("more than one provider here trains {asked:?}: ask for {}", .choices.join(" or "))]
    Several {
        /// The name.
        asked: String,
        /// Names that say which.
        choices: Vec<String>,
    },
    /// There is no such Azure resource.
    #[error("there is no Azure resource {resource:?} here: {}", ways(.known))]
    NoResource {
        /// What stands where the resource stands.
        resource: String,
        /// What may stand in front of a name.
        known: Vec<String>,
    },
}

fn ways(known: &[String]) -> String {
    match known {
        [] => "nobody trains at all".to_owned(),
        some => format!("write {}", some.join(" or ")),
    }
}

/// Everybody who trains.
#[derive(Debug, Clone)]
pub struct Targets {
    providers: Vec<Arc<Provider>>,
    /// The models of our workers, which train what they serve.
    served: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl Targets {
    /// Those of a catalog.
    pub fn of(catalog: &Catalog) -> Self {
        let providers: Vec<_> =
            catalog.providers.values().filter(|one| one.training.is_some()).map(Arc::clone).collect();
        let mut served: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for deployment in catalog.deployments.values() {
            let answers = deployment.endpoints.iter().any(|endpoint| *endpoint != Endpoint::Embeddings);
            let is_base = !deployment.upstream_model.contains('*') && !deployment.lineage().fine_tuned;
            if deployment.provider.dialect.kind() == ProviderKind::Candle && answers && is_base {
                let models = served.entry(Arc::clone(&deployment.provider.name)).or_default();
                models.push(Arc::clone(&deployment.upstream_model));
            }
        }
        Self { providers, served }
    }

    /// Who trains a model that is asked for by this name.
    ///
    /// # Errors
    ///
    /// When nobody does, or more than one.
    pub fn resolve(&self, asked: &str) -> Result<Target, TargetError> {
        if let Some((front, model)) = asked.split_once('/')
            && !asked.starts_with("ft:")
            && !model.is_empty()
            && let Some(found) = self.in_front(asked, front, model)
        {
            return found;
        }
        self.bare(asked)
    }

    /// Every base model that is known to be trained by somebody here. A provider may train more: its names are not all
    /// known.
    pub fn all(&self) -> impl Iterator<Item = Target> + '_ {
        self.providers.iter().flat_map(|provider| {
            let target = |model: &str| Target { provider: Arc::clone(provider), model: model.into() };
            self.trained_by(provider).into_iter().map(target)
        })
    }

    /// The providers that train.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.iter()
    }

    fn trained_by<'a>(&'a self, provider: &'a Provider) -> Vec<&'a str> {
        let models = training(provider).models.iter().map(|name| &**name);
        let exact = models.clone().filter(|name| !name.ends_with('*') && !name.starts_with("ft:"));
        let mut names: Vec<&str> = match provider.dialect.kind() {
            ProviderKind::OpenAi => {
                let fits = |known: &&str| models.clone().any(|pattern| fit(pattern, known).is_some());
                OPENAI_TRAINS.into_iter().filter(fits).collect()
            }
            ProviderKind::Azure if training(provider).models.is_empty() => AZURE_TRAINS.into(),
            ProviderKind::Azure => Vec::new(),
            ProviderKind::Candle => {
                self.served.get(&provider.name).into_iter().flatten().map(|name| &**name).collect()
            }
        };
        for name in exact {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// A name with something in front; none where that is no provider's name nor a kind's, but part of the model's.
    fn in_front(&self, asked: &str, front: &str, model: &str) -> Option<Result<Target, TargetError>> {
        let to = |provider: &Arc<Provider>, model: &str| {
            Ok(Target { provider: Arc::clone(provider), model: model.into() })
        };
        if front == AZURE
            && let Some((resource, model)) = model.split_once('/')
        {
            let is_it = |provider: &&Arc<Provider>| {
                let known = training(provider).resource.as_deref();
                known.is_some_and(|known| known.eq_ignore_ascii_case(resource))
            };
            let found: Vec<_> = self.providers.iter().filter(is_it).collect();
            return Some(match found.as_slice() {
                [] => Err(TargetError::NoResource { resource: resource.to_owned(), known: self.ways() }),
                [one] => to(one, model),
                some => Err(several(asked, some, model)),
            });
        }
        if let Some(provider) = self.providers.iter().find(|provider| *provider.name == *front) {
            return Some(to(provider, model));
        }
        let kind = match front {
            AZURE => ProviderKind::Azure,
            "local" | "candle" => ProviderKind::Candle,
            "openai" => ProviderKind::OpenAi,
            _ => return None,
        };
        let of_kind: Vec<_> =
            self.providers.iter().filter(|provider| provider.dialect.kind() == kind).collect();
        match of_kind.as_slice() {
            [] => None,
            [one] => Some(to(one, model)),
            some => Some(Err(several(asked, some, model))),
        }
    }

    /// A name with nothing in front.
    fn bare(&self, asked: &str) -> Result<Target, TargetError> {
        let is_azures = FineTunedName::parse(asked).is_some_and(|name| name.form == Form::Azure);
        let fits = |provider: &Arc<Provider>| {
            let kind = provider.dialect.kind();
            if is_azures {
                return (kind == ProviderKind::Azure).then_some(0);
            }
            let served = self.served.get(&provider.name).into_iter().flatten();
            let names = training(provider).models.iter().chain(served);
            names.filter_map(|pattern| fit(pattern, asked)).max()
        };
        let all: Vec<_> = self.providers.iter().filter_map(|one| Some((fits(one)?, one))).collect();
        let best = all.iter().map(|(fit, _)| *fit).max();
        let mut found: Vec<_> =
            all.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, one)| one).collect();
        if found.len() > 1 && found.iter().any(|provider| provider.authority == OPENAI) {
            found.retain(|provider| provider.authority == OPENAI);
        }
        match found.as_slice() {
            [] => Err(TargetError::Nobody { asked: asked.to_owned(), known: self.ways() }),
            [one] => Ok(Target { provider: Arc::clone(one), model: asked.into() }),
            some => Err(several(asked, some, asked)),
        }
    }

    /// What may stand in front of a model's name.
    fn ways(&self) -> Vec<String> {
        let way = |provider: &Arc<Provider>| {
            Target { provider: Arc::clone(provider), model: "MODEL".into() }.to_string()
        };
        self.providers.iter().map(way).collect()
    }
}

fn training(provider: &Provider) -> &Training {
    static NONE: std::sync::LazyLock<Training> = std::sync::LazyLock::new(Training::default);
    provider.training.as_ref().unwrap_or(&NONE)
}

/// How well a name fits an exact name or a pattern; none when it does not.
fn fit(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix).then_some(prefix.len()),
        None => (pattern == name).then_some(usize::MAX),
    }
}

fn several(asked: &str, providers: &[&Arc<Provider>], model: &str) -> TargetError {
    // by the providers' names, which are never alike: resources may be
    let choices = providers.iter().map(|provider| format!("{}/{model}", provider.name)).collect();
    TargetError::Several { asked: asked.to_owned(), choices }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::catalog::{AzureV1, Deployment, Dialect, OpenAi};

    fn provider(name: &str, dialect: Dialect, authority: &str, training: Training) -> Arc<Provider> {
        let plain = (*deployment("d", "m").provider).clone();
        let authority = authority.to_owned();
        Arc::new(Provider { name: name.into(), dialect, authority, training: Some(training), ..plain })
    }

    fn models(names: &[&str]) -> Training {
        Training { models: names.iter().map(|name| (*name).into()).collect(), ..Training::default() }
    }

    fn resource(name: &str, names: &[&str]) -> Training {
        Training { resource: Some(name.into()), ..models(names) }
    }

    const USUAL: [&str; 5] = ["gpt-*", "o4-*", "babbage-002", "davinci-002", "ft:*"];

    fn targets() -> Targets {
        let openai = || Dialect::OpenAi(OpenAi::default());
        let azure = || Dialect::AzureV1(AzureV1::default());
        let worker = provider("local", Dialect::Candle, "localhost", models(&[]));
        let on = |name: &str, model: &str, endpoints: &[Endpoint]| {
            let plain = (*deployment(name, model)).clone();
            let endpoints = endpoints.to_vec();
            (name.into(), Arc::new(Deployment { provider: Arc::clone(&worker), endpoints, ..plain }))
        };
        let providers = [
            provider("openai", openai(), OPENAI, models(&USUAL)),
            provider("vllm", openai(), "gpu:8000", models(&["gpt-*", "gpt-oss-*", "meta-llama/*"])),
            provider("eu", azure(), "acme-eu.openai.azure.com", resource("acme-eu", &[])),
            provider("us", azure(), "acme-us.openai.azure.com", resource("acme-us", &["phi-4"])),
            Arc::clone(&worker),
            Arc::new(Provider { training: None, ..(*worker).clone() }),
        ];
        let providers: BTreeMap<_, _> =
            providers.into_iter().rev().map(|one| (Arc::clone(&one.name), one)).collect();
        let deployments = [
            on("smollm2-135m", "smollm2-135m", &[Endpoint::ChatCompletions]),
            on("tuned", "ft:smollm2-135m:acme::x", &[Endpoint::ChatCompletions]),
            on("vectors", "minilm", &[Endpoint::Embeddings]),
            on("any", "*", &[Endpoint::ChatCompletions]),
        ];
        Targets::of(&Catalog::new(providers, deployments.into(), Vec::new()))
    }

    #[test]
    fn a_name_says_who_trains() {
        let targets = targets();
        for (asked, provider, model, named) in [
            ("gpt-4.1-mini", "openai", "gpt-4.1-mini", "openai/gpt-4.1-mini"),
            ("gpt-3.5-turbo", "openai", "gpt-3.5-turbo", "openai/gpt-3.5-turbo"),
            ("ft:gpt-4.1:acme:a/b:x", "openai", "ft:gpt-4.1:acme:a/b:x", "openai/ft:gpt-4.1:acme:a/b:x"),
            ("openai/gpt-4.1", "openai", "gpt-4.1", "openai/gpt-4.1"),
            ("gpt-oss-20b", "vllm", "gpt-oss-20b", "vllm/gpt-oss-20b"),
            ("vllm/gpt-4.1", "vllm", "gpt-4.1", "vllm/gpt-4.1"),
            ("meta-llama/Llama-3", "vllm", "meta-llama/Llama-3", "vllm/meta-llama/Llama-3"),
            ("azure/acme-eu/gpt-4.1", "eu", "gpt-4.1", "azure/acme-eu/gpt-4.1"),
            ("azure/ACME-US/gpt-4.1", "us", "gpt-4.1", "azure/acme-us/gpt-4.1"),
            ("us/gpt-4.1", "us", "gpt-4.1", "azure/acme-us/gpt-4.1"),
            ("phi-4", "us", "phi-4", "azure/acme-us/phi-4"),
            ("local/smollm2-135m", "local", "smollm2-135m", "local/smollm2-135m"),
            ("smollm2-135m", "local", "smollm2-135m", "local/smollm2-135m"),
        ] {
            let target = targets.resolve(asked).unwrap_or_else(|error| panic!("{asked}: {error}"));
            assert_eq!((&*target.provider.name, &*target.model), (provider, model), "{asked}");
            assert_eq!(target.to_string(), named, "{asked}");
            assert_eq!(targets.resolve(named).as_ref(), Ok(&target), "{named}");
        }
    }

    #[test]
    fn what_leads_to_nobody_says_what_would() {
        let targets = targets();
        for (asked, says) in [
            ("claude", "no provider here trains \"claude\": write azure/acme-eu/MODEL or"),
            ("nobody/gpt-4.1", "no provider here trains"),
            ("local/", "no provider here trains"),
            ("", "no provider here trains"),
            ("minilm", "no provider here trains"),
            ("azure/other/gpt-4.1", "there is no Azure resource \"other\" here: write azure/acme-eu/MODEL"),
            (
                "azure/gpt-4.1",
                "more than one provider here trains \"azure/gpt-4.1\": ask for eu/gpt-4.1 or us/",
            ),
            (
                "gpt-4.1-2025-04-14.ft-0a1b",
                "more than one provider here trains \"gpt-4.1-2025-04-14.ft-0a1b\": ask for eu/",
            ),
        ] {
            let error = targets.resolve(asked).expect_err(asked).to_string();
            assert!(error.starts_with(says), "{asked}: {error}");
        }
        let error = Targets::of(&Catalog::default()).resolve("gpt-4.1").expect_err("nobody").to_string();
        assert_eq!(error, "no provider here trains \"gpt-4.1\": nobody trains at all");
    }

    #[test]
    fn the_only_one_of_a_kind_needs_no_name() {
        let of = |one: Arc<Provider>| {
            let providers = BTreeMap::from([(Arc::clone(&one.name), one)]);
            Targets::of(&Catalog::new(providers, BTreeMap::new(), Vec::new()))
        };
        let eu = of(provider("eu", Dialect::AzureV1(AzureV1::default()), "h", resource("acme", &[])));
        for asked in ["azure/gpt-4.1.ft-0a1b", "gpt-4.1.ft-0a1b", "eu/gpt-4.1.ft-0a1b"] {
            let target = eu.resolve(asked).expect(asked);
            let model = asked.rsplit('/').next().expect("a name");
            assert_eq!((&*target.provider.name, &*target.model), ("eu", model), "{asked}");
        }
        let node = of(provider("gpu-node", Dialect::Candle, "h", models(&[])));
        assert_eq!(&*node.resolve("local/smollm2-135m").expect("found").model, "smollm2-135m");
    }

    #[test]
    fn every_known_target_is_listed_once_and_found_by_its_name() {
        let targets = targets();
        let all: Vec<String> = targets.all().map(|target| target.to_string()).collect();
        for name in [
            "openai/gpt-4.1-mini",
            "openai/gpt-3.5-turbo",
            "azure/acme-eu/gpt-4.1-2025-04-14",
            "azure/acme-us/phi-4",
        ] {
            assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
        }
        assert!(!all.iter().any(|name| name.contains("minilm") || name.contains("ft:")), "{all:?}");
        for target in targets.all() {
            assert_eq!(targets.resolve(&target.to_string()), Ok(target));
        }
        assert_eq!(targets.providers().count(), 5);
    }
}
