//! What the ledger has, of all processes on the database: written whole, as it was read last.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::Registry;

use super::declare::metrics;
use super::exact::dollars;
use super::labels::{Bounded, NONE, OTHER};
use super::money::kind;
use super::table::Table;
use super::upstreams::deployments_of;
use crate::domain::catalog::Catalog;
use crate::domain::ledger::Purpose;
use crate::domain::money::Usd;
use crate::domain::spend::recent::{Recent, Spending};

metrics! {
    /// The ledger's own sums.
    pub(super) struct Spend {
        /// What the ledger has for today, 7 and 30 days (UTC, today included) and the month, USD.
        spend: Table = "tunegate_spend_usd" ["window", "team", "model", "deployment", "provider", "kind"];
        /// When that was read, seconds since 1970 UTC.
        refreshed: Table = "tunegate_spend_refreshed_timestamp_seconds";
    }
}

/// Team, model, deployment, provider, kind.
type Labels<'a> = [&'a str; 5];

impl Spend {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::declared(registry)
    }

    /// Replaces what was read before. At most so many accounts, the dearest, have series of their own; what the catalog
    /// names is there from the start.
    pub(super) fn is(
        &self,
        all: &[Spending],
        catalog: &Catalog,
        teams: &Bounded,
        most: usize,
        read_at_ms: i64,
    ) {
        teams.seat(all.iter().map(|spending| &*spending.team));
        let mut sums = BTreeMap::<Labels<'_>, [Usd; 4]>::new();
        for spending in all {
            add(sums.entry(labels_of(spending, teams)).or_default(), spending.cost);
        }
        let mut kept = dearest(sums, most);
        for model in catalog.models() {
            for deployment in deployments_of(model) {
                let usage = kind(Purpose::Inference);
                let provider = &*deployment.provider.name;
                kept.entry([NONE, model.name.as_str(), &deployment.name, provider, usage]).or_default();
            }
        }
        self.spend.replace(kept.iter().flat_map(|([team, model, deployment, provider, kind], cost)| {
            let of = |(recent, cost): (Recent, Usd)| {
                ([recent.name(), *team, *model, *deployment, *provider, *kind], dollars(cost))
            };
            Recent::ALL.into_iter().zip(*cost).map(of)
        }));
        self.refreshed.replace([([], read_at_ms.div_euclid(1_000) as f64)]);
    }
}

fn labels_of<'a>(on: &'a Spending, teams: &Bounded) -> Labels<'a> {
    let named = |name: &'a str| if name.is_empty() { NONE } else { name };
    [teams.label(&on.team), named(&on.model), named(&on.deployment), named(&on.provider), kind(on.purpose)]
}

fn add(sum: &mut [Usd; 4], more: [Usd; 4]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// The dearest, and the rest as one of each kind.
fn dearest<'a>(sums: BTreeMap<Labels<'a>, [Usd; 4]>, most: usize) -> BTreeMap<Labels<'a>, [Usd; 4]> {
    if sums.len() <= most {
        return sums;
    }
    let mut order: Vec<_> = sums.iter().map(|(labels, cost)| (cost.iter().max(), *labels)).collect();
    // stable: the labels' order stays among equals
    order.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    let own: BTreeSet<Labels<'a>> = order.into_iter().take(most).map(|(_, labels)| labels).collect();
    let mut kept = BTreeMap::<Labels<'a>, [Usd; 4]>::new();
    for (labels, cost) in sums {
        let kind = labels[4];
        let labels = if own.contains(&labels) { labels } else { [OTHER, OTHER, OTHER, OTHER, kind] };
        add(kept.entry(labels).or_default(), cost);
    }
    kept
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    fn spending(team: &str, model: &str, purpose: Purpose, today: i64) -> Spending {
        Spending {
            team: team.to_owned(),
            model: model.to_owned(),
            deployment: format!("{model}-1"),
            provider: "openai".to_owned(),
            purpose,
            cost: [today, 7, 30, 100].map(Usd::from_nanos),
        }
    }

    fn today(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let start = "tunegate_spend_usd{";
        let of = |line: &&str| line.starts_with(start) && line.contains("window=\"today\"");
        let short = |line: &str| line[start.len()..].replace(",window=\"today\"}", "");
        text.lines().filter(of).map(short).collect()
    }

    #[test]
    fn the_dearest_have_their_own_and_nothing_is_lost() {
        let registry = Registry::new();
        let spend = Spend::new(&registry).expect("declared");
        let teams = Bounded::new(1, IntCounter::new("overflows", "Overflows.").expect("a counter"));
        let none = Catalog::default();
        assert_eq!(today(&registry), [""; 0]);
        let all = [
            spending("c", "m", Purpose::Inference, 1_000),
            spending("b", "m", Purpose::Inference, 3_000),
            spending("a", "m", Purpose::Inference, 5_000),
            spending("", "n", Purpose::Training, 200),
            spending("", "n", Purpose::Inference, 150),
        ];
        spend.is(&all, &none, &teams, 10, 7_999);
        let want = [
            r#"deployment="m-1",kind="usage",model="m",provider="openai",team="a" 0.000005"#,
            r#"deployment="m-1",kind="usage",model="m",provider="openai",team="other" 0.000004"#,
            r#"deployment="n-1",kind="training",model="n",provider="openai",team="none" 0.0000002"#,
            r#"deployment="n-1",kind="usage",model="n",provider="openai",team="none" 0.00000015"#,
        ];
        let mut found = today(&registry);
        found.sort();
        assert_eq!(found, want);
        spend.is(&all, &none, &teams, 2, 7_999);
        let mut found = today(&registry);
        found.sort();
        let rest = |kind: &str, usd: &str| {
            format!(r#"deployment="other",kind="{kind}",model="other",provider="other",team="other" {usd}"#)
        };
        let kept = [want[0].to_owned(), want[1].to_owned()];
        let others = [rest("training", "0.0000002"), rest("usage", "0.00000015")];
        assert_eq!(found, [kept, others].concat());
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        assert!(text.contains("\ntunegate_spend_refreshed_timestamp_seconds 7\n"), "{text}");
        // what has left the ledger's windows has no series
        spend.is(&[], &none, &teams, 2, 8_000);
        assert_eq!(today(&registry), [""; 0]);
    }
}
