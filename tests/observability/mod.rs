//! What an operator sees: rules and alerts in Prometheus' own tools, dashboards, and the metrics that they ask for.

mod contract;
mod dashboards;
mod linter;
