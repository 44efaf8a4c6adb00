//! How budgets stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{IntCounter, Registry};

use super::declare::metrics;
use super::exact::dollars;
use super::labels::{NONE, OTHER, Seats};
use super::table::Table;
use crate::domain::budget::watch::{Counters, Crowd, Figures, LEVELS, Watched};
use crate::domain::money::Usd;

metrics! {
    /// The gauges of budgets.
    struct Gauges {
        /// The limit of a budget's counter, USD, a raise included.
        limit: Table = "tunegate_budget_limit_usd" ["budget", "subject"];
        /// Spent of it, USD.
        spent: Table = "tunegate_budget_spent_usd" ["budget", "subject"];
        /// Held of it for requests being served, USD.
        reserved: Table = "tunegate_budget_reserved_usd" ["budget", "subject"];
        /// Left of it, USD.
        left: Table = "tunegate_budget_left_usd" ["budget", "subject"];
        /// Spent at the end of the window, USD, if it goes on as since its start; of a rolling or endless one, spent now.
        projected: Table = "tunegate_budget_projected_usd" ["budget", "subject"];
        /// The length of a budget's window, seconds.
        window: Table = "tunegate_budget_window_seconds" ["budget"];
        /// When the window of a calendar's budget ends, seconds since 1970 UTC.
        resets: Table = "tunegate_budget_reset_timestamp_seconds" ["budget"];
        /// Keys or end users that a budget for each of them has counted.
        counters: Table = "tunegate_budget_counters" ["budget"];
        /// How many of them have spent and hold as much of their limit.
        above: Table = "tunegate_budget_counters_above" ["budget", "percent"];
        /// Spent and held of the limit where it is most, 0 to 1 and above.
        worst: Table = "tunegate_budget_worst_ratio" ["budget"];
    }
}

/// The gauges of budgets, and who has one of its own.
pub(super) struct Budgets {
    gauges: Gauges,
    /// Budgets with a label.
    named: Seats<Arc<str>>,
    /// Teams and models of budgets for each of them, with a label.
    subjects: Seats<(Arc<str>, Arc<str>)>,
}

/// What is written of keys or end users.
#[derive(Default)]
struct Line {
    counters: usize,
    above: [usize; 2],
    worst: f64,
}

impl Budgets {
    /// Room for so many budgets, and for so many teams and models of theirs.
    pub(super) fn new(
        registry: &Registry,
        most: usize,
        overflows: &IntCounter,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            gauges: Gauges::declared(registry)?,
            named: Seats::new(most, overflows.clone()),
            subjects: Seats::new(most, overflows.clone()),
        })
    }

    /// Says how all of them stand. Those without a label are one: their money is summed, their worst is the worst.
    pub(super) fn stand(&self, all: &[Watched]) {
        let names: Vec<Arc<str>> = all.iter().map(|watched| Arc::clone(&watched.budget.name)).collect();
        let named = self.named.seated(&names);
        let pairs: Vec<_> = all.iter().flat_map(pairs).collect();
        let subjects = self.subjects.seated(&pairs);
        let mut figures = BTreeMap::<[&str; 2], Figures>::new();
        let mut lines = BTreeMap::<&str, Line>::new();
        for watched in all {
            let own = named.contains(&watched.budget.name);
            let budget = if own { &*watched.budget.name } else { OTHER };
            match &watched.counters {
                Counters::Counted(crowd) => add_crowd(lines.entry(budget).or_default(), crowd),
                Counters::Listed(listed) => {
                    for (subject, found) in listed {
                        let pair = (Arc::clone(&watched.budget.name), Arc::clone(subject));
                        let label = match watched.budget.scope.each {
                            _ if !own => OTHER,
                            None => "",
                            Some(_) if !subjects.contains(&pair) => OTHER,
                            Some(_) if subject.is_empty() => NONE,
                            Some(_) => subject,
                        };
                        let sum = figures.entry([budget, label]);
                        sum.and_modify(|sum| add(sum, found)).or_insert(*found);
                    }
                }
            }
        }
        self.write(&figures, &lines);
        let own = || all.iter().filter(|watched| named.contains(&watched.budget.name));
        let seconds = |watched: &Watched| watched.window_seconds.map(|seconds| seconds as f64);
        let resets = |watched: &Watched| watched.resets_at_ms.map(|at_ms| at_ms.div_euclid(1_000) as f64);
        let rows = |of: fn(&Watched) -> Option<f64>| {
            own().filter_map(move |watched| Some(([&*watched.budget.name], of(watched)?)))
        };
        self.gauges.window.replace(rows(seconds));
        self.gauges.resets.replace(rows(resets));
    }

    fn write(&self, figures: &BTreeMap<[&str; 2], Figures>, lines: &BTreeMap<&str, Line>) {
        let money = |of: fn(&Figures) -> Usd| {
            figures.iter().map(move |(labels, figures)| (*labels, dollars(of(figures))))
        };
        self.gauges.limit.replace(money(|figures| figures.limit));
        self.gauges.spent.replace(money(|figures| figures.spent));
        self.gauges.reserved.replace(money(|figures| figures.reserved));
        self.gauges.left.replace(money(|figures| figures.left));
        self.gauges.projected.replace(money(|figures| figures.projected));
        self.gauges.counters.replace(lines.iter().map(|(budget, line)| ([*budget], line.counters as f64)));
        self.gauges.worst.replace(lines.iter().map(|(budget, line)| ([*budget], line.worst)));
        let percents = LEVELS.map(|level| level.to_string());
        self.gauges.above.replace(lines.iter().flat_map(|(budget, line)| {
            percents.iter().zip(line.above).map(|(percent, above)| ([*budget, &**percent], above as f64))
        }));
    }
}

/// The teams or models of a budget for each of them.
fn pairs(watched: &Watched) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    let listed = match &watched.counters {
        Counters::Listed(listed) if watched.budget.scope.each.is_some() => Some(listed),
        Counters::Listed(_) | Counters::Counted(_) => None,
    };
    let subjects = listed.into_iter().flat_map(BTreeMap::keys);
    subjects.map(|subject| (Arc::clone(&watched.budget.name), Arc::clone(subject)))
}

fn add(sum: &mut Figures, more: &Figures) {
    sum.limit += more.limit;
    sum.spent += more.spent;
    sum.reserved += more.reserved;
    sum.left += more.left;
    sum.projected += more.projected;
}

fn add_crowd(line: &mut Line, crowd: &Crowd) {
    line.counters += crowd.counters;
    for (above, more) in line.above.iter_mut().zip(crowd.above) {
        *above += more;
    }
    line.worst = line.worst.max(ratio(crowd));
}

/// How much of the limit is taken where that is most. A limit of nothing is taken whole by who comes.
fn ratio(crowd: &Crowd) -> f64 {
    match (crowd.limit.is_some(), crowd.counters) {
        (true, _) => dollars(crowd.most) / dollars(crowd.limit),
        (false, 0) => 0.0,
        (false, _) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::draft::Draft;
    use crate::domain::budget::{Budget, Each};

    fn budget(name: &str, each: Option<Each>) -> Arc<Budget> {
        let draft =
            Draft { limit_usd: Some("10".to_owned()), window: Some("day".to_owned()), ..Draft::default() };
        let mut budget =
            draft.check(name, true, &mut |path, what| panic!("{path}: {what}")).expect("a budget");
        budget.scope.each = each;
        Arc::new(budget)
    }

    fn watched(name: &str, each: Option<Each>, counters: Counters) -> Watched {
        Watched {
            budget: budget(name, each),
            window_seconds: Some(86_400),
            resets_at_ms: Some(7_000),
            counters,
        }
    }

    fn listed(subjects: &[(&str, i64)]) -> Counters {
        let of = |(subject, spent): &(&str, i64)| {
            let (limit, spent, reserved) = (Usd::dollars(10), Usd::dollars(*spent), Usd::from_nanos(1));
            let left = limit - spent - reserved;
            (Arc::from(*subject), Figures { limit, spent, reserved, left, projected: spent + spent })
        };
        Counters::Listed(subjects.iter().map(of).collect())
    }

    fn counted(counters: usize, above: [usize; 2], most: i64) -> Counters {
        Counters::Counted(Crowd { counters, above, limit: Usd::dollars(10), most: Usd::dollars(most) })
    }

    fn lines(registry: &Registry, name: &str) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        text.lines().filter(of).map(|line| line[name.len()..].to_owned()).collect()
    }

    #[test]
    fn each_has_its_own_series_and_the_rest_share_one() {
        let registry = Registry::new();
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let budgets = Budgets::new(&registry, 2, &overflows).expect("declared");
        let first = [
            watched("all", None, listed(&[("", 1)])),
            watched("teams", Some(Each::Team), listed(&[("", 2), ("a", 3), ("b", 4)])),
        ];
        budgets.stand(&first);
        let spent = |registry: &Registry| lines(registry, "tunegate_budget_spent_usd");
        let want = [
            r#"{budget="all",subject=""} 1"#,
            r#"{budget="teams",subject="a"} 3"#,
            r#"{budget="teams",subject="none"} 2"#,
            r#"{budget="teams",subject="other"} 4"#,
        ];
        assert_eq!((spent(&registry), overflows.get()), (want.map(str::to_owned).to_vec(), 1));
        let left = lines(&registry, "tunegate_budget_left_usd");
        assert_eq!(left[0], r#"{budget="all",subject=""} 8.999999999"#);
        assert_eq!(lines(&registry, "tunegate_budget_reset_timestamp_seconds")[0], r#"{budget="all"} 7"#);

        // one budget and one team go, others come: who was there keeps its label, then they have one in their order
        let then = [
            watched("users", Some(Each::EndUser), counted(100, [7, 2], 12)),
            watched("keys", Some(Each::Key), counted(10, [1, 1], 15)),
            watched("x", None, listed(&[("", 5)])),
            watched("y", None, listed(&[("", 6)])),
            watched("teams", Some(Each::Team), listed(&[("a", 3), ("b", 4), ("c", 1)])),
        ];
        budgets.stand(&then);
        let want = [
            r#"{budget="other",subject="other"} 11"#,
            r#"{budget="teams",subject="a"} 3"#,
            r#"{budget="teams",subject="b"} 4"#,
            r#"{budget="teams",subject="other"} 1"#,
        ];
        assert_eq!(spent(&registry), want);
        assert_eq!(
            lines(&registry, "tunegate_budget_limit_usd")[0],
            r#"{budget="other",subject="other"} 20"#
        );
        assert_eq!(
            lines(&registry, "tunegate_budget_worst_ratio"),
            [r#"{budget="keys"} 1.5"#, r#"{budget="other"} 1.2"#]
        );
        assert_eq!(
            lines(&registry, "tunegate_budget_counters"),
            [r#"{budget="keys"} 10"#, r#"{budget="other"} 100"#]
        );
        assert_eq!(
            lines(&registry, "tunegate_budget_counters_above"),
            [
                r#"{budget="keys",percent="100"} 1"#,
                r#"{budget="keys",percent="80"} 1"#,
                r#"{budget="other",percent="100"} 2"#,
                r#"{budget="other",percent="80"} 7"#,
            ]
        );
        budgets.stand(&[]);
        assert_eq!((spent(&registry), lines(&registry, "tunegate_budget_counters")), (vec![], vec![]));
    }
}
