//! What a person should hear of, beside the log: a JSON object for the operator's webhook. No word of a prompt is in it.

use std::sync::Arc;

use serde::Serialize;

use super::budget::Crossing;
use super::ledger::Entry;
use super::money::Usd;

/// Something a person should hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Alert {
    /// Spending has reached a threshold of a budget.
    BudgetThreshold(Box<Crossing>),
    /// A provider billed beyond what was held.
    Overshoot(Overshoot),
    /// A request was let through to what has no price.
    Unpriced(Unpriced),
    /// A deployment that costs by the hour is not used.
    HostedIdle(HostedIdle),
    /// Deployments that cost by the hour will use up a budget within a day.
    HostingBudget(HostingBudget),
}

/// A deployment that costs by the hour, used or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostedIdle {
    /// The deployment.
    pub deployment: Arc<str>,
    /// Whose it is.
    pub provider: Arc<str>,
    /// What an hour of it costs.
    #[serde(rename = "usd_per_hour")]
    pub per_hour: Usd,
    /// For how long nobody has used it, hours.
    pub idle_hours: i64,
    /// When its provider takes it away if nobody does, ms since 1970 UTC; none where that is far, or never.
    pub deleted_at_ms: Option<i64>,
}

/// A budget that hours of deployments will use up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostingBudget {
    /// The deployment that costs most of those that it pays for.
    pub deployment: Arc<str>,
    /// Who pays; none for nobody.
    pub team: Option<Arc<str>>,
    /// What a day of all of them costs.
    #[serde(rename = "usd_per_day")]
    pub per_day: Usd,
    /// The least that is left of any budget that pays.
    #[serde(rename = "left_usd")]
    pub left: Usd,
}

/// A provider's bill beyond the hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overshoot {
    /// The request.
    pub request_id: Arc<str>,
    /// The alias of its key.
    pub key: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// Which deployment billed.
    pub deployment: Arc<str>,
    /// What was held.
    #[serde(rename = "held_usd")]
    pub held: Usd,
    /// What it cost.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
    /// The difference.
    #[serde(rename = "excess_usd")]
    pub excess: Usd,
}

/// What has no price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unpriced {
    /// The model that was asked for: the catalog's entry.
    pub model: Arc<str>,
    /// The deployment.
    pub deployment: Arc<str>,
    /// The name that has no price.
    pub upstream_model: Arc<str>,
}

impl Alert {
    /// A bill beyond its hold.
    pub fn overshoot(entry: &Entry) -> Self {
        Self::Overshoot(Overshoot {
            request_id: Arc::clone(&entry.request_id),
            key: Arc::clone(&entry.attribution.key),
            model: Arc::clone(&entry.attribution.model),
            deployment: Arc::clone(&entry.attribution.deployment),
            held: entry.held,
            cost: entry.cost,
            excess: entry.cost - entry.held,
        })
    }

    /// The name in JSON and labels.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::BudgetThreshold(_) => "budget_threshold",
            Self::Overshoot(_) => "overshoot",
            Self::Unpriced(_) => "unpriced",
            Self::HostedIdle(_) => "hosted_idle",
            Self::HostingBudget(_) => "hosting_budget",
        }
    }

    /// Of what one in a while is enough: the deployment. Nothing for what is told each time.
    pub const fn repeats_for(&self) -> Option<&Arc<str>> {
        match self {
            Self::BudgetThreshold(_) | Self::HostedIdle(_) | Self::HostingBudget(_) => None,
            Self::Overshoot(overshoot) => Some(&overshoot.deployment),
            Self::Unpriced(unpriced) => Some(&unpriced.deployment),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::budget::Standing;

    fn crossing() -> Alert {
        let standing = Standing {
            budget: "team".into(),
            subject: "acme".into(),
            limit: Usd::dollars(10),
            spent: Usd::dollars(8),
            reserved: Usd::ZERO,
            left: Usd::dollars(2),
            resets_at_ms: Some(5),
        };
        Alert::BudgetThreshold(Box::new(Crossing { percent: 80, standing }))
    }

    #[test]
    fn an_alert_is_one_flat_object() {
        let found: Value =
            serde_json::from_str(&serde_json::to_string(&crossing()).expect("JSON")).expect("JSON");
        let want = json!({
            "kind": "budget_threshold", "percent": 80, "budget": "team", "subject": "acme", "limit_usd": 10.0,
            "spent_usd": 8.0, "reserved_usd": 0.0, "left_usd": 2.0, "resets_at_ms": 5,
        });
        assert_eq!(found, want);
        assert_eq!(found["kind"], crossing().kind());
    }
}
