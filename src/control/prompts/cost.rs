//! What a prompt cost, and what its other versions would have cost on the same traffic.
//!
//! Only the fixed words are counted anew, with each deployment's own table: a version's text with its variables empty. The
//! stored counts say the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use crate::domain::catalog::Catalog;
use crate::domain::money::Usd;
use crate::domain::prompt::cost::Traffic;
use crate::domain::prompt::template::{Template, Values};
use crate::domain::prompt::{Prompt, PromptVersion};
use crate::domain::tokens::TokenCounter;
use crate::store::spend::{PromptPlace, PromptSums};

/// Versions that are compared unasked: the latest ones, and those with labels.
const COMPARED: usize = 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostQuery {
    /// The first day, days since 1970-01-01, UTC.
    pub from_day: i64,
    /// The last day.
    pub to_day: i64,
    /// The only version to compare with.
    pub compare: Option<u32>,
}

/// What a prompt cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostReport {
    /// The prompt's name.
    pub prompt: Arc<str>,
    /// In all.
    pub sums: Traffic,
    /// By day, version and place.
    pub days: Vec<DayCost>,
    /// By version.
    pub versions: Vec<VersionCost>,
}

/// One line of the stored sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCost {
    /// Which version, when, where.
    pub place: PromptPlace,
    /// What it cost there.
    pub sums: Traffic,
}

/// What one version cost, and what others would have cost instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCost {
    /// Its number.
    pub version: u32,
    /// In all.
    pub sums: Traffic,
    /// The others, by their numbers.
    pub instead: Vec<Instead>,
}

/// What another version would have cost on the same traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instead {
    /// Its number.
    pub version: u32,
    /// How many tokens there would have been.
    pub tokens: i64,
    /// What those would have cost.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
    /// How much less that is; negative where it is more.
    #[serde(rename = "saved_usd")]
    pub saved: Usd,
}

/// Tokens of the fixed words, each counted once.
struct Fixed<'p> {
    prompt: &'p Prompt,
    words: BTreeMap<u32, Arc<str>>,
    counted: HashMap<(u32, TokenCounter), u64>,
}

impl<'p> Fixed<'p> {
    fn new(prompt: &'p Prompt) -> Self {
        Self { prompt, words: BTreeMap::new(), counted: HashMap::new() }
    }

    fn tokens(&mut self, number: u32, counter: TokenCounter) -> u64 {
        if let Some(tokens) = self.counted.get(&(number, counter)) {
            return *tokens;
        }
        let Some(version) = self.prompt.versions.get(&number) else { return 0 };
        let words = self.words.entry(number).or_insert_with(|| fixed_words(version));
        let tokens = counter.count_text(words);
        self.counted.insert((number, counter), tokens);
        tokens
    }
}

/// A version's words with its variables empty.
fn fixed_words(version: &PromptVersion) -> Arc<str> {
    let empty = version.variables.iter().map(|variable| (Arc::clone(&variable.name), variable.kind.empty()));
    let template = Template::compile(&version.text, &version.variables).ok();
    let words = template.and_then(|template| template.render(&Values::default().or(empty)).ok());
    // a text that can do nothing without its values
    words.unwrap_or_else(|| Arc::clone(&version.text))
}

/// Adds the days up and compares the versions.
pub(super) fn report(
    name: &str,
    prompt: &Prompt,
    query: CostQuery,
    days: &[(PromptPlace, PromptSums)],
    catalog: &Catalog,
) -> CostReport {
    let days: Vec<DayCost> = days
        .iter()
        .map(|(place, sums)| {
            let PromptSums { requests, tokens, cost } = *sums;
            DayCost { place: place.clone(), sums: Traffic { requests, tokens, cost } }
        })
        .collect();
    let mut used = BTreeMap::<u32, Vec<&DayCost>>::new();
    for day in &days {
        used.entry(u32::try_from(day.place.version).unwrap_or(0)).or_default().push(day);
    }
    let others = compared(prompt, query.compare);
    let mut fixed = Fixed::new(prompt);
    let versions = used.iter().map(|(version, days)| {
        // of a version that is not there nothing can be counted
        let others = others.iter().filter(|other| *other != version && prompt.versions.contains_key(version));
        let instead = others.map(|other| instead(*version, *other, days, &mut fixed, catalog));
        VersionCost { version: *version, instead: instead.collect(), sums: sum(days.iter().copied()) }
    });
    let versions = versions.collect();
    CostReport { prompt: name.into(), sums: sum(&days), days, versions }
}

/// The versions that are compared with.
fn compared(prompt: &Prompt, only: Option<u32>) -> BTreeSet<u32> {
    match only {
        Some(only) => BTreeSet::from([only]),
        None => {
            let latest = prompt.versions.keys().rev().take(COMPARED);
            latest.chain(prompt.labels.values()).copied().collect()
        }
    }
}

fn instead(version: u32, other: u32, days: &[&DayCost], fixed: &mut Fixed<'_>, catalog: &Catalog) -> Instead {
    let mut found = Instead { version: other, tokens: 0, cost: Usd::ZERO, saved: Usd::ZERO };
    for day in days {
        let deployment = catalog.deployments.get(&*day.place.deployment);
        // one that is gone is counted with the table of the latest models
        let counter = deployment.map_or_else(
            || TokenCounter::estimating(&day.place.deployment),
            |deployment| TokenCounter::expecting(deployment, &deployment.upstream_model),
        );
        let (was, would_be) = (fixed.tokens(version, counter), fixed.tokens(other, counter));
        let saved = day.sums.saved(was, would_be);
        found.tokens = found.tokens.saturating_add(day.sums.tokens_instead(was, would_be));
        found.saved += saved;
        found.cost += day.sums.cost - saved;
    }
    found
}

fn sum<'d>(days: impl IntoIterator<Item = &'d DayCost>) -> Traffic {
    days.into_iter().fold(Traffic::default(), |sum, day| Traffic {
        requests: sum.requests.saturating_add(day.sums.requests),
        tokens: sum.tokens.saturating_add(day.sums.tokens),
        cost: sum.cost + day.sums.cost,
    })
}
