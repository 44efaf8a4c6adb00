//! What the door sees.

use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::buckets;
use super::declare::metrics;
use super::labels::{NONE, OTHER};
use crate::domain::catalog::Model;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{Blamed, Ending, Outcome};

/// Statuses that have a label; 0 is for who left before one.
static STATUSES: [(u16, &str); 23] = [
    (0, "0"),
    (200, "200"),
    (400, "400"),
    (401, "401"),
    (402, "402"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (411, "411"),
    (412, "412"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

metrics! {
    /// Requests, as their senders see them.
    pub struct Requests {
        /// Requests by endpoint, the catalog's model and how they ended.
        requests: IntCounterVec = "tunegate_requests_total" ["endpoint", "model", "ending"];
        /// Requests that failed by no fault of their sender, by whose fault it was.
        failures: IntCounterVec = "tunegate_failures_total" ["model", "fault"];
        /// Answers by endpoint and status; 0 for a client that left before one.
        responses: IntCounterVec = "tunegate_responses_total" ["endpoint", "status"];
        /// Requests that got an error of ours, by its code.
        refusals: IntCounterVec = "tunegate_refusals_total" ["code"];
        /// Seconds from the first byte at the door to the end of the answer.
        duration: HistogramVec = "tunegate_request_duration_seconds" ["endpoint", "model"] in buckets::SECONDS;
        /// Seconds of a request in which neither its upstream nor its client nor a queue was waited for.
        overhead: HistogramVec = "tunegate_overhead_seconds" ["endpoint"] in buckets::OWN_SECONDS;
        /// Requests being served now.
        pub in_flight: IntGauge = "tunegate_in_flight_requests";
    }
}

impl Requests {
    pub(super) fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let requests = Self::declared(registry)?;
        for endpoint in Endpoint::ALL.map(Endpoint::name) {
            for (_, status) in STATUSES {
                requests.responses.with_label_values(&[endpoint, status]);
            }
            requests.overhead.with_label_values(&[endpoint]);
        }
        for ending in Ending::ALL {
            requests.requests.with_label_values(&[OTHER, NONE, ending.name()]);
        }
        requests.fails(NONE);
        Ok(requests)
    }

    /// Lets the series of a refusal begin at 0.
    pub fn refuses(&self, codes: impl IntoIterator<Item = &'static str>) {
        for code in codes {
            self.refusals.with_label_values(&[code]);
        }
    }

    /// Lets the series of a model begin at 0, at the endpoints that its deployments serve.
    pub(super) fn born(&self, model: &Model) {
        let name = model.name.as_str();
        self.fails(name);
        for endpoint in Endpoint::ALL {
            let deployments = model.routes().flat_map(|route| &route.deployments);
            if !deployments.into_iter().any(|deployment| deployment.endpoints.contains(&endpoint)) {
                continue;
            }
            for ending in Ending::ALL {
                self.requests.with_label_values(&[endpoint.name(), name, ending.name()]);
            }
            self.duration.with_label_values(&[endpoint.name(), name]);
        }
    }

    fn fails(&self, model: &str) {
        for fault in Blamed::ALL {
            self.failures.with_label_values(&[model, fault.name()]);
        }
    }

    /// Counts a request that has ended.
    pub(super) fn ended(&self, outcome: &Outcome) {
        let endpoint = if outcome.endpoint.is_empty() { OTHER } else { outcome.endpoint };
        let model = outcome.model.as_deref().unwrap_or(NONE);
        self.requests.with_label_values(&[endpoint, model, outcome.ending.name()]).inc();
        if let Some(fault) = outcome.blamed() {
            self.failures.with_label_values(&[model, fault.name()]).inc();
        }
        self.responses.with_label_values(&[endpoint, label_of(outcome.status)]).inc();
        if let Some(code) = outcome.code {
            self.refusals.with_label_values(&[code]).inc();
        }
        self.duration.with_label_values(&[endpoint, model]).observe(seconds(outcome.duration_us));
        self.overhead.with_label_values(&[endpoint]).observe(seconds(outcome.overhead_us));
    }
}

/// The label of a status; those that nobody has planned for share one.
fn label_of(status: u16) -> &'static str {
    STATUSES.iter().find(|(known, _)| *known == status).map_or(OTHER, |(_, label)| label)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
