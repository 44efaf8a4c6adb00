//! Fine-tuned deployments beside the base models that they were trained from.
//!
//! `tunegate_deployment_info` says of each deployment what its base is; a base model's is its own name. So one and the
//! same figure is taken for the fine-tuned, each by itself, and for their bases, all deployments of one together.

use crate::expr::{Over, net_cost, ratio, select, sum};

/// What is on the screen: models, and the deployments that they lead to.
pub(crate) const PICKED: &str = "model=~\"$model\", deployment=~\"$deployment\"";

/// Which side of the comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Fine-tuned deployments, one by one: labels `deployment`, `base`.
    Tuned,
    /// Their base models: label `base`.
    Base,
}

impl Side {
    /// The labels that figures of this side have.
    fn by(self) -> &'static str {
        match self {
            Side::Tuned => "deployment, base",
            Side::Base => "base",
        }
    }

    /// Keeps the series of this side's deployments, and gives each the label `base`.
    fn of(self, series: &str) -> String {
        let matchers = match self {
            Side::Tuned => "fine_tuned=\"true\"",
            Side::Base => "fine_tuned=\"false\"",
        };
        let info = select("tunegate_deployment_info", matchers);
        format!("{series} * on (job, instance, deployment) group_left (base) {info}")
    }

    /// Only what is on the screen; bases are taken whole, whatever model leads to them.
    fn picked(self, matchers: &str) -> String {
        match self {
            Side::Tuned if matchers.is_empty() => PICKED.to_owned(),
            Side::Tuned => format!("{matchers}, {PICKED}"),
            Side::Base => matchers.to_owned(),
        }
    }

    fn rates(self, over: Over, metric: &str, matchers: &str) -> String {
        sum(self.by(), &self.of(&over.rate(metric, &self.picked(matchers))))
    }

    /// Answers a second that went well.
    fn answers(self, over: Over) -> String {
        self.rates(over, "gen_ai_client_operation_duration_seconds_count", "error_type=\"\"")
    }

    /// Dollars a second for usage, corrections taken off.
    fn usage(self, over: Over) -> String {
        sum(self.by(), &self.of(&net_cost(over, &self.picked("kind=\"usage\""))))
    }

    /// How many requests were sent there over the range.
    pub(crate) fn requests(self) -> String {
        let metric = "gen_ai_client_operation_duration_seconds_count";
        sum(self.by(), &self.of(&Over::Range.increase(metric, &self.picked(""))))
    }

    /// The share of requests sent there that came to nothing, by no wish of the client's or stop of the gateway's.
    pub(crate) fn errors(self, over: Over) -> String {
        let metric = "gen_ai_client_operation_duration_seconds_count";
        let all = self.rates(over, metric, "");
        let failed = self.rates(over, metric, "error_type!=\"\", error_type!~\"client_gone|interrupted\"");
        // an error's series is born with the first of its kind
        ratio(&format!("{failed} or 0 * {all}"), &all)
    }

    /// The quantile `q` of a histogram of the upstream, in its unit.
    pub(crate) fn quantile(self, over: Over, q: f64, histogram: &str, matchers: &str) -> String {
        let bucket = format!("{histogram}_bucket");
        let rates = self.of(&over.rate(&bucket, &self.picked(matchers)));
        format!("histogram_quantile({q}, {})", sum(&format!("{}, le", self.by()), &rates))
    }

    /// Tokens a second that an answer comes with: written ones over the time from sending to the end.
    pub(crate) fn speed(self, over: Over) -> String {
        let written = self.rates(over, "tunegate_tokens_total", "class=\"completion\"");
        let busy = self.rates(over, "gen_ai_client_operation_duration_seconds_sum", "error_type=\"\"");
        ratio(&written, &busy)
    }

    /// Dollars for 1,000 tokens, read and written.
    pub(crate) fn cost_per_1k(self, over: Over) -> String {
        let tokens = self.rates(over, "tunegate_tokens_total", "class=~\"prompt|completion\"");
        format!("1000 * {}", ratio(&self.usage(over), &tokens))
    }

    /// Dollars for an answer.
    pub(crate) fn cost_per_request(self, over: Over) -> String {
        ratio(&self.usage(over), &self.answers(over))
    }
}

/// The latency of an answer that went well, in seconds.
pub(crate) fn latency(side: Side, over: Over, q: f64) -> String {
    side.quantile(over, q, "gen_ai_client_operation_duration_seconds", "error_type=\"\"")
}

/// The time to the first chunk of a stream, in seconds.
pub(crate) fn first_chunk(side: Side, over: Over, q: f64) -> String {
    side.quantile(over, q, "gen_ai_client_operation_time_to_first_chunk_seconds", "")
}

/// A figure of each fine-tuned deployment over the same of its base: 1 is as the base, 2 is twice as much.
pub(crate) fn against_base(figure: impl Fn(Side) -> String) -> String {
    format!("({}) / on (base) group_left () ({} > 0)", figure(Side::Tuned), figure(Side::Base))
}

/// Days that are left to a fine-tuned deployment's model.
pub(crate) fn days_left() -> String {
    let end = select("tunegate_deployment_retirement_timestamp_seconds", "deployment=~\"$deployment\"");
    let tuned = Side::Tuned.of(&format!("({end} - time())"));
    format!("min by (deployment, base) ({tuned}) / 86400")
}
