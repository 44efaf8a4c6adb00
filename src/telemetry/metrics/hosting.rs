//! Deployments that are billed by the hour: what they have cost, what they cost now, and who uses them.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::declare::metrics;
use super::exact::{self, DollarCounterVec, dollars};
use super::labels::{Bounded, Seats};
use super::table::Table;
use crate::domain::catalog::{Catalog, Dialect};
use crate::domain::ledger::{Entry, Purpose};
use crate::domain::money::Usd;

/// What comes of reading an account's list of deployments.
const READ: [&str; 2] = ["ok", "failed"];

metrics! {
    /// What is said of hosted deployments.
    struct Families {
        /// What hosting has cost, USD, as the ledger has it; corrections downwards are credits.
        cost: DollarCounterVec = "tunegate_hosting_cost_usd_total" ["deployment", "provider"];
        /// What a deployment that stands costs by the hour, USD, used or not.
        per_hour: Table = "tunegate_hosting_usd_per_hour" ["deployment"];
        /// Seconds since a hosted deployment was used, or since a gateway watches, as far as one did.
        idle: Table = "tunegate_hosted_idle_seconds" ["deployment"];
        /// When a hosted deployment ends, seconds since 1970 UTC; not there where it has no end.
        ends: Table = "tunegate_hosted_ends_timestamp_seconds" ["deployment"];
        /// Times that an account's list of deployments was read, by what came of it.
        reads: IntCounterVec = "tunegate_hosting_reads_total" ["provider", "result"];
    }
}

/// A deployment that stands and is billed by the hour.
#[derive(Debug, Clone, PartialEq)]
pub struct HostedNow {
    /// Its name.
    pub deployment: Arc<str>,
    /// Whose it is.
    pub provider: Arc<str>,
    /// What an hour of it costs.
    pub per_hour: Usd,
    /// Since it was used last, or since a gateway watches, as far as one did.
    pub idle: Duration,
    /// When it ends by itself, ms since 1970 UTC.
    pub ends_at_ms: Option<i64>,
}

/// Hosted deployments.
pub struct Hosting {
    families: Families,
    /// Deployments whose cost has a series of its own.
    names: Bounded,
    /// Those that stand, and have series of their own.
    seats: Seats<Arc<str>>,
}

impl Hosting {
    /// Room for so many deployments.
    pub(super) fn new(
        registry: &Registry,
        most: usize,
        overflows: impl Fn(&str) -> IntCounter,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            families: Families::declared(registry)?,
            names: Bounded::new(most, overflows("hosted")),
            seats: Seats::new(most, overflows("hosted")),
        })
    }

    /// Lets the series of accounts that have a list of deployments begin at 0.
    pub(super) fn born(&self, catalog: &Catalog) {
        for provider in catalog.providers.values() {
            if matches!(provider.dialect, Dialect::AzureV1(_) | Dialect::AzureClassic(_)) {
                for result in READ {
                    self.families.reads.with_label_values(&[&*provider.name, result]);
                }
            }
        }
    }

    /// Counts what an entry spends on hosting.
    pub(super) fn accrued(&self, entry: &Entry) {
        let on = &*entry.attribution;
        if on.purpose == Purpose::Hosting {
            let labels = [self.names.label(&on.deployment), &*on.provider];
            exact::add(&self.families.cost.with_label_values(&labels), entry.spends());
        }
    }

    /// Says which deployments stand; others have no gauges any more. Their cost begins at 0.
    pub fn stands(&self, all: &[HostedNow]) {
        for hosted in all {
            let labels = [self.names.label(&hosted.deployment), &*hosted.provider];
            self.families.cost.with_label_values(&labels);
        }
        let names: Vec<Arc<str>> = all.iter().map(|hosted| hosted.deployment.clone()).collect();
        let seated = self.seats.seated(&names);
        let told: Vec<&HostedNow> = all.iter().filter(|hosted| seated.contains(&hosted.deployment)).collect();
        let rows = |of: fn(&HostedNow) -> Option<f64>| {
            told.iter().filter_map(move |hosted| Some(([&*hosted.deployment], of(hosted)?)))
        };
        self.families.per_hour.replace(rows(|hosted| Some(dollars(hosted.per_hour))));
        self.families.idle.replace(rows(|hosted| Some(hosted.idle.as_secs_f64())));
        self.families
            .ends
            .replace(rows(|hosted| hosted.ends_at_ms.map(|at_ms| at_ms.div_euclid(1_000) as f64)));
    }

    /// Counts a reading of an account's list of deployments, and whether it went well.
    pub fn read(&self, provider: &str, ok: bool) {
        let result = if ok { READ[0] } else { READ[1] };
        self.families.reads.with_label_values(&[provider, result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::{Attribution, EntryKind};

    fn hosting(most: usize) -> (Registry, Hosting) {
        let registry = Registry::new();
        let overflows = |_: &str| IntCounter::new("overflows", "Overflows.").expect("a counter");
        let hosting = Hosting::new(&registry, most, overflows).expect("declared");
        (registry, hosting)
    }

    fn lines(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        text.lines().filter_map(|line| line.strip_prefix("tunegate_host").map(str::to_owned)).collect()
    }

    fn hosted(deployment: &str, ends_at_ms: Option<i64>) -> HostedNow {
        HostedNow {
            deployment: deployment.into(),
            provider: "azure".into(),
            per_hour: Usd::from_nanos(1_700_000_000),
            idle: Duration::from_secs(90),
            ends_at_ms,
        }
    }

    #[test]
    fn what_stands_is_said_while_it_stands() {
        let (registry, hosting) = hosting(2);
        hosting.stands(&[hosted("a", None), hosted("b", Some(7_999)), hosted("c", None)]);
        let cost = |deployment: &str, usd: &str| {
            format!(r#"ing_cost_usd_total{{deployment="{deployment}",provider="azure"}} {usd}"#)
        };
        let born = [cost("a", "0"), cost("b", "0"), cost("other", "0")];
        let stand = [
            r#"ed_ends_timestamp_seconds{deployment="b"} 7"#,
            r#"ed_idle_seconds{deployment="a"} 90"#,
            r#"ed_idle_seconds{deployment="b"} 90"#,
        ];
        let rates = [r#"ing_usd_per_hour{deployment="a"} 1.7"#, r#"ing_usd_per_hour{deployment="b"} 1.7"#];
        let all = [stand.map(str::to_owned).to_vec(), born.to_vec(), rates.map(str::to_owned).to_vec()];
        assert_eq!(lines(&registry), all.concat());
        hosting.stands(&[]);
        assert_eq!(lines(&registry), born, "what was spent stays");
    }

    #[test]
    fn hours_are_counted_to_the_nano_dollar() {
        let (registry, hosting) = hosting(1);
        for (deployment, purpose, nanos) in [
            ("a", Purpose::Hosting, 16_333_333_334),
            ("a", Purpose::Hosting, -5),
            ("b", Purpose::Hosting, 7),
            ("a", Purpose::Inference, 9),
        ] {
            let deployment = deployment.into();
            let on = Attribution { deployment, provider: "azure".into(), purpose, ..Attribution::default() };
            let entry = Entry::drafted(EntryKind::Hosting, 0, "hosting:a:0".into(), Arc::new(on));
            hosting.accrued(&Entry { cost: Usd::from_nanos(nanos), ..entry });
        }
        hosting.read("azure", true);
        hosting.read("azure", false);
        let want = [
            r#"ing_cost_usd_total{deployment="a",provider="azure"} 16.333333334"#,
            r#"ing_cost_usd_total{deployment="other",provider="azure"} 0.000000007"#,
            r#"ing_reads_total{provider="azure",result="failed"} 1"#,
            r#"ing_reads_total{provider="azure",result="ok"} 1"#,
        ];
        assert_eq!(lines(&registry), want);
    }
}
