//! The source of tunegate's Grafana dashboards: typed panels in, JSON out.
//!
//! `make dashboards` writes what [`all`] returns to `dashboards/*.json`; a test holds the two equal. Nobody edits the
//! JSON. What an expression means is written once, in `expr`; a dashboard is one file here and says what is asked,
//! how it is shown and what to do about it. All over the metrics of docs/METRICS.md, without recording rules, so that
//! a dashboard works in a Prometheus that knows no rules of ours.
//!
//! The model is Grafana's Classic one: it is what files are provisioned from, and every Grafana since 10 reads it.

mod cache;
mod colours;
mod dashboard;
mod expr;
mod fine_tuned;
mod models;
mod overview;
mod page;
mod panel;
mod prompts;
mod routing;
mod spend;
mod table;
mod tuning;
mod unit;
mod variable;
mod worker;

pub use dashboard::Dashboard;

/// The share of requests that may fail by no fault of their sender: 1 less the objective of 99.5 %.
pub const ERROR_BUDGET: f64 = 0.005;

/// Every dashboard, in the order in which they are read.
#[must_use]
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        models::dashboard(),
        spend::dashboard(),
        cache::dashboard(),
        prompts::dashboard(),
        routing::dashboard(),
        tuning::dashboard(),
        worker::dashboard(),
    ]
}
