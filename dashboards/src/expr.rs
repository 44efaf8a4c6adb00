//! Expressions: how each figure is asked for, written once.
//!
//! Every selector is narrowed to the job and the instances on the screen. Counters and histograms are summed over the
//! instances; gauges that are read from the ledger are the same in all gateways of a database, so of those the
//! greatest counts, once a job.

/// Over which time a rate is taken.
#[derive(Clone, Copy)]
pub(crate) enum Over {
    /// A point of a graph.
    Interval,
    /// The time range of the dashboard: one figure for all of it.
    Range,
}

impl Over {
    fn window(self) -> &'static str {
        match self {
            Over::Interval => "$__rate_interval",
            Over::Range => "$__range",
        }
    }

    /// Returns the rate of a counter, a second.
    pub(crate) fn rate(self, metric: &str, matchers: &str) -> String {
        format!("rate({}[{}])", select(metric, matchers), self.window())
    }

    /// Returns what a counter grew by.
    pub(crate) fn increase(self, metric: &str, matchers: &str) -> String {
        format!("increase({}[{}])", select(metric, matchers), self.window())
    }

    /// Returns the quantile `q` of a histogram for each value of `by`.
    pub(crate) fn quantile(self, q: f64, histogram: &str, matchers: &str, by: &str) -> String {
        let le = if by.is_empty() { "le".to_owned() } else { format!("{by}, le") };
        let rates = sum(&le, &self.rate(&format!("{histogram}_bucket"), matchers));
        format!("histogram_quantile({q}, {rates})")
    }
}

/// Returns the selector of a metric, narrowed to what is on the screen.
pub(crate) fn select(metric: &str, matchers: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { ", " };
    format!("{metric}{{job=~\"$job\", instance=~\"$instance\"{comma}{matchers}}}")
}

/// Returns the sum for each value of `by`.
pub(crate) fn sum(by: &str, inner: &str) -> String {
    aggregate("sum", by, inner)
}

/// Returns the greatest for each value of `by`.
pub(crate) fn max(by: &str, inner: &str) -> String {
    aggregate("max", by, inner)
}

fn aggregate(operation: &str, by: &str, inner: &str) -> String {
    if by.is_empty() { format!("{operation}({inner})") } else { format!("{operation} by ({by}) ({inner})") }
}

/// Returns the rate of a counter, summed for each value of `by`.
pub(crate) fn rates(metric: &str, matchers: &str, by: &str) -> String {
    sum(by, &Over::Interval.rate(metric, matchers))
}

/// Returns what a counter grew by over the dashboard's range, summed for each value of `by`.
pub(crate) fn growth(metric: &str, matchers: &str, by: &str) -> String {
    sum(by, &Over::Range.increase(metric, matchers))
}

/// Returns one expression over another; nothing where the other is 0.
pub(crate) fn ratio(part: &str, whole: &str) -> String {
    format!("({part}) / ({whole} > 0)")
}

/// Returns dollars a second of each series of the ledger's counters, corrections taken off; not every cost has some.
pub(crate) fn net_cost(over: Over, matchers: &str) -> String {
    let cost = over.rate("tunegate_cost_usd_total", matchers);
    let credit = over.rate("tunegate_credit_usd_total", matchers);
    format!("({cost} - ({credit} or 0 * {cost}))")
}

/// Returns dollars an hour, corrections taken off, for each value of `by`.
pub(crate) fn cost_per_hour(matchers: &str, by: &str) -> String {
    format!("3600 * {}", sum(by, &net_cost(Over::Interval, matchers)))
}

/// Returns a gauge that all gateways of a database read from it: the greatest of its instances.
///
/// `labels` are all that the metric has.
pub(crate) fn shared(metric: &str, matchers: &str, labels: &str) -> String {
    let comma = if labels.is_empty() { "" } else { ", " };
    max(&format!("job{comma}{labels}"), &select(metric, matchers))
}

/// Returns what the ledger has, in dollars, summed for each value of `by`.
pub(crate) fn spend(matchers: &str, by: &str) -> String {
    sum(by, &shared("tunegate_spend_usd", matchers, "window, team, model, deployment, provider, kind"))
}

/// Returns what a budget's counters say, in dollars.
pub(crate) fn budget(metric: &str, matchers: &str) -> String {
    shared(&format!("tunegate_budget_{metric}_usd"), matchers, "budget, subject")
}

/// Returns how much of its limit each counter of a budget has spent and holds; none of keys and end users are there.
pub(crate) fn used(matchers: &str) -> String {
    let taken = format!("{} + {}", budget("spent", matchers), budget("reserved", matchers));
    ratio(&taken, &budget("limit", matchers))
}

/// Returns how much of its limit each budget has spent and holds, for each value of `by`, which has no more labels than
/// `job`, `budget`, `subject`. Keys and end users have no label: of a budget for each of them it is the fullest counter.
pub(crate) fn fullest(matchers: &str, by: &str) -> String {
    let each = shared("tunegate_budget_worst_ratio", matchers, "budget");
    max(by, &format!("{} or {each}", used(matchers)))
}

/// Returns the share of requests that failed by no fault of their sender.
pub(crate) fn failed(over: Over, matchers: &str, by: &str) -> String {
    ratio(
        &sum(by, &over.rate("tunegate_failures_total", matchers)),
        &sum(by, &over.rate("tunegate_requests_total", matchers)),
    )
}

/// Results of requests that no upstream was asked for.
pub(crate) const FROM_CACHE: &str = "result=~\"hit|joined|semantic\"";

/// Returns the share of requests that the response cache served, of those that it was not left alone for.
pub(crate) fn hit_rate(over: Over, matchers: &str, by: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { ", " };
    let of = |results: &str| {
        sum(by, &over.rate("tunegate_cache_requests_total", &format!("{matchers}{comma}{results}")))
    };
    ratio(&of(FROM_CACHE), &of("result!=\"bypass\""))
}

/// Returns the dollars an hour that answers from the cache would have cost.
pub(crate) fn saved_per_hour(matchers: &str, by: &str) -> String {
    format!("3600 * {}", rates("tunegate_saved_usd_total", matchers, by))
}

/// Returns the dollars an hour that stored prompts are of the cost.
pub(crate) fn prompts_per_hour(matchers: &str, by: &str) -> String {
    format!("3600 * {}", rates("tunegate_prompt_cost_usd_total", matchers, by))
}

/// Returns the days that are left to each deployment's model.
pub(crate) fn days_to_retirement(matchers: &str) -> String {
    let end = select("tunegate_deployment_retirement_timestamp_seconds", matchers);
    format!("min by (deployment) ({end} - time()) / 86400")
}
