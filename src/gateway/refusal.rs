//! Every way we say no. Which status that is, `http/respond.rs` decides.

use std::sync::Arc;

use super::board::{Full, Unready};
use super::limited::Limited;
use super::prompts::Unput;
use crate::domain::breaker::State;
use crate::domain::budget::Exceeded;
use crate::domain::cache::directives::DirectiveError;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::Blamed;
use crate::domain::request::RequestError;
use crate::domain::route::{Out, left_alone};
use crate::domain::unboundable::Unboundable;
use crate::provider::Fault;
use crate::upstream::UpstreamError;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credential came with it.
    #[error(
        "no API key was given: send yours as `Authorization: Bearer sk-tg-…`; `tunegate keys create --alias NAME` makes one"
    )]
    NoKey,
    /// A credential we do not know.
    #[error("incorrect API key provided: {0}")]
    WrongKey(String),
    /// A credential that was good once.
    #[error("this API key expired on {}: use a newer one", date(*.ended_at_ms))]
    KeyEnded {
        /// When, ms since 1970 UTC.
        ended_at_ms: i64,
    },
    /// A limit stands against it.
    #[error("{0}")]
    Limited(Box<Limited>),
    /// This process serves as much at once as it may.
    #[error("the gateway serves as many {0} at once as it may: try again in a moment")]
    Overloaded(&'static str),
    /// The body is wrong.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// What it says about the response cache can't be followed.
    #[error(transparent)]
    CacheControl(#[from] DirectiveError),
    /// No such model in the catalog, or none for this key: which of the two is not told.
    #[error(
        "the model `{0}` does not exist or you do not have access to it; GET /v1/models lists those you may use"
    )]
    UnknownModel(String),
    /// The model is there, but not for this endpoint.
    #[error("the model `{model}` is not served by {endpoint}")]
    EndpointNotServed {
        /// The asked name.
        model: String,
        /// The endpoint's name.
        endpoint: &'static str,
    },
    /// No stored response of this key's has that id.
    #[error("no response `{0}` of yours is stored here")]
    UnknownResponse(String),
    /// No request of this key's has that id.
    #[error("no request `{0}` of yours is known here; ids are those of the header x-request-id")]
    UnknownRequest(String),
    /// A file of another key's.
    #[error("no file `{0}` of yours is known here")]
    UnknownFile(String),
    /// A path that is not metered.
    #[error("`{0}` is not an endpoint of this gateway: nothing is passed through unmetered")]
    UnsupportedEndpoint(String),
    /// The path is right, the method is not.
    #[error("method {method} is not allowed here; use {allowed}")]
    MethodNotAllowed {
        /// What was sent.
        method: String,
        /// What may be sent.
        allowed: &'static str,
    },
    /// The body is larger than we take.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not come in time.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// The body broke off.
    #[error("the request body broke off before its end")]
    BodyBroken,
    /// A framing that two servers may read in two ways.
    #[error("the request's framing is refused: {0}")]
    Framing(&'static str),
    /// A budget has not enough left.
    #[error("{}", spent(.exceeded))]
    Budget {
        /// Which one, and its figures.
        exceeded: Box<Exceeded>,
        /// When enough comes back, seconds from now; none where it never does.
        retry_after_s: Option<u64>,
        /// What the operator wants such a request answered with.
        status: u16,
    },
    /// Under a hard budget, a request whose cost has no bound.
    #[error(
        "{0} can't be bounded in cost before it is sent, and a budget applies to this key: leave it out, or ask your \
         operator for a key with the right `unbounded_cost`"
    )]
    Unbounded(Unboundable),
    /// Nobody knows what the deployment costs.
    #[error(
        "deployment `{deployment}` is not asked, as nothing is served here that can't be charged: {words}"
    )]
    Unpriced {
        /// Which one.
        deployment: Arc<str>,
        /// Why there is no price.
        words: String,
    },
    /// What would have to be paid for can't be booked.
    #[error("the ledger can't be written right now, and nothing is served unpaid for: try again in a moment")]
    LedgerAway(String),
    /// No answer from the deployment.
    #[error("deployment `{deployment}` could not answer: {error}")]
    Upstream {
        /// Which one was asked last.
        deployment: Arc<str>,
        /// What went wrong.
        error: UpstreamError,
    },
    /// The deployment refused us, not the client.
    #[error("deployment `{deployment}` {}: {message}", blame(*.fault))]
    UpstreamFault {
        /// Which one.
        deployment: Arc<str>,
        /// Why.
        fault: Fault,
        /// Its status.
        status: u16,
        /// Its words, without any credential.
        message: String,
    },
    /// No deployment of the route can serve it.
    #[error("no deployment of the model `{model}` can serve this request: {}", reasons(.out))]
    NoCandidate {
        /// The asked name.
        model: String,
        /// Each deployment and why not; none where no condition of the route holds.
        out: Vec<(Arc<str>, Out)>,
    },
    /// The deployment takes no more just now.
    #[error("deployment `{deployment}` {}", busy(.unready))]
    Busy {
        /// Which one was tried last.
        deployment: Arc<str>,
        /// What stands against it.
        unready: Unready,
    },
    /// A stored prompt can't be put in.
    #[error("{0}")]
    Prompt(Box<Unput>),
    /// The client left; nobody reads this.
    #[error("the client left")]
    ClientGone,
}

impl From<Unput> for Refusal {
    fn from(why: Unput) -> Self {
        Self::Prompt(Box::new(why))
    }
}

fn spent(exceeded: &Exceeded) -> String {
    let Exceeded { budget, limit, spent, reserved, wanted, .. } = exceeded;
    let whose =
        if exceeded.subject.is_empty() { String::new() } else { format!(" for `{}`", exceeded.subject) };
    let advice = match exceeded.resets_at_ms {
        Some(at_ms) => format!("ask for fewer output tokens, or come again after {}", date(at_ms)),
        None => "waiting does not help: ask for fewer output tokens, or your operator for more".to_owned(),
    };
    format!(
        "budget `{budget}`{whose} ({}, {}) has not enough left for this request: {spent} USD spent and {reserved} USD \
         held of {limit} USD, {wanted} USD wanted; {advice}",
        exceeded.scope, exceeded.window
    )
}

/// What it comes to that no deployment can serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody<'a> {
    /// The request is for none of them.
    ForThisRequest,
    /// It is too long for all of them.
    OfItsLength,
    /// None takes one of its members.
    WithThatMember(&'a str),
    /// What it names is not theirs.
    WhoMadeIt,
    /// All asked for time.
    Rested {
        /// When the first may be asked again, ms.
        for_ms: u64,
    },
    /// Something is wrong with them, not with the request.
    Now {
        /// When the first may be asked again, ms; none where nobody knows.
        for_ms: Option<u64>,
    },
}

impl<'a> Nobody<'a> {
    /// By the reasons of all deployments.
    pub fn of(out: &'a [(Arc<str>, Out)]) -> Self {
        let mut reasons = out.iter().map(|(_, out)| out);
        let all = |is: fn(&Out) -> bool| out.iter().all(|(_, out)| is(out));
        if !all(Out::is_requests_fault) {
            let for_ms = out.iter().filter_map(|(_, out)| out.over_in_ms()).min();
            return match for_ms.filter(|_| all(|out| matches!(out, Out::CoolingDown { .. }))) {
                Some(for_ms) => Self::Rested { for_ms },
                None => Self::Now { for_ms },
            };
        }
        if out.is_empty() {
            return Self::ForThisRequest;
        }
        if all(|out| matches!(out, Out::ContextWindow { .. } | Out::Endpoint(_))) {
            return Self::OfItsLength;
        }
        if all(|out| matches!(out, Out::Bound)) {
            return Self::WhoMadeIt;
        }
        let member = reasons.find_map(|out| match out {
            Out::Unsupported(member) | Out::Untranslatable { member, .. } => Some(&**member),
            _ => None,
        });
        member.map_or(Self::ForThisRequest, Self::WithThatMember)
    }
}

fn reasons(out: &[(Arc<str>, Out)]) -> String {
    if out.is_empty() {
        return "none of its route's conditions holds for it".to_owned();
    }
    let each = out.iter().map(|(deployment, out)| format!("`{deployment}`: {out}"));
    each.collect::<Vec<_>>().join("; ")
}

fn busy(unready: &Unready) -> String {
    match unready {
        Unready::Shut { state: State::CoolingDown { .. }, .. } => "asked us to come again later".to_owned(),
        Unready::Shut { cause, .. } => format!("is not asked for a while: {}", left_alone(cause)),
        Unready::Quota { .. } => "has no quota left at its provider for this request just now".to_owned(),
        Unready::Full(Full { at_once, waiting, .. }) => format!(
            "serves {at_once} {} at once, as many as it may, and {waiting} wait for a place: try again later",
            if *at_once == 1 { "request" } else { "requests" }
        ),
    }
}

const fn blame(fault: Fault) -> &'static str {
    match fault {
        Fault::Auth => "refused the gateway's credential (not your key)",
        Fault::DeploymentMissing => "is not there at its provider",
        Fault::Quota => "has used up the quota of the gateway's account (not yours)",
        Fault::Wait => "is asked too much at once",
        Fault::TooLarge => "takes less in a minute than this request alone",
        Fault::Transient => "failed",
        Fault::ContextLength => "has a context shorter than this request",
        Fault::ContentFilter => "stopped the request by its content filter",
        Fault::Unsupported | Fault::Told => "refused the request",
    }
}

/// A moment as a person reads it, such as `2026-11-22T05:00:00Z`.
fn date(ms: i64) -> String {
    let moment = jiff::Timestamp::from_second(ms.div_euclid(1_000));
    moment.map_or_else(|_| format!("{ms} ms since 1970"), |moment| moment.to_string())
}

/// All codes of refusals, for metrics that are born at 0.
pub const CODES: [&str; 46] = [
    "client_gone",
    "content_filter",
    "context_length_exceeded",
    "deployment_full",
    "deployment_quota",
    "duplicate_parameter",
    "file_not_found",
    "invalid_api_key",
    "invalid_cache_control",
    "invalid_framing",
    "invalid_json",
    "invalid_type",
    "invalid_value",
    "ledger_unavailable",
    "method_not_allowed",
    "missing_required_parameter",
    "model_not_found",
    "no_deployment",
    "overloaded",
    "project_spend_limit_exceeded",
    "prompt_not_allowed",
    "prompt_not_found",
    "prompt_unfit",
    "prompt_variable_invalid",
    "prompt_variable_missing",
    "rate_limit_exceeded",
    "request_incomplete",
    "request_not_found",
    "request_timeout",
    "request_too_large",
    "response_not_found",
    "unbounded_cost",
    "unpriced_model",
    "unsupported_endpoint",
    "unsupported_parameter",
    "unsupported_request",
    "upstream_auth_failed",
    "upstream_broke",
    "upstream_deployment_missing",
    "upstream_failed",
    "upstream_quota",
    "upstream_rate_limited",
    "upstream_refused",
    "upstream_timeout",
    "upstream_too_large",
    "upstream_unreachable",
];

impl Refusal {
    /// The code in the client's envelope, in logs and in metrics: a closed set.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey | Self::WrongKey(_) | Self::KeyEnded { .. } => "invalid_api_key",
            Self::Limited(_) => "rate_limit_exceeded",
            Self::Overloaded(_) => "overloaded",
            Self::Request(error) => error.code().unwrap_or("invalid_json"),
            Self::CacheControl(_) => "invalid_cache_control",
            Self::UnknownModel(_) | Self::EndpointNotServed { .. } => "model_not_found",
            Self::UnknownResponse(_) => "response_not_found",
            Self::UnknownRequest(_) => "request_not_found",
            Self::UnknownFile(_) => "file_not_found",
            Self::UnsupportedEndpoint(_) => "unsupported_endpoint",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::TooLarge(_) => "request_too_large",
            Self::BodyTimeout => "request_timeout",
            Self::BodyBroken => "request_incomplete",
            Self::Framing(_) => "invalid_framing",
            Self::Budget { .. } => "project_spend_limit_exceeded",
            Self::Unbounded(_) => "unbounded_cost",
            Self::Unpriced { .. } => "unpriced_model",
            Self::LedgerAway(_) => "ledger_unavailable",
            Self::Upstream { error, .. } => error.code(),
            Self::UpstreamFault { fault, .. } => fault.code(),
            Self::NoCandidate { out, .. } => match Nobody::of(out) {
                Nobody::ForThisRequest => "unsupported_request",
                Nobody::OfItsLength => "context_length_exceeded",
                Nobody::WithThatMember(_) => "unsupported_parameter",
                Nobody::WhoMadeIt => "invalid_value",
                Nobody::Rested { .. } => "rate_limit_exceeded",
                Nobody::Now { .. } => "no_deployment",
            },
            Self::Busy { unready: Unready::Full(_), .. } => "deployment_full",
            Self::Busy { unready: Unready::Quota { .. }, .. } => "deployment_quota",
            Self::Busy { unready: Unready::Shut { state: State::CoolingDown { .. }, .. }, .. } => {
                "rate_limit_exceeded"
            }
            Self::Busy { unready: Unready::Shut { .. }, .. } => "no_deployment",
            Self::Prompt(why) => why.code(),
            Self::ClientGone => "client_gone",
        }
    }

    /// The member of the request to point at.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Request(error) => error.param(),
            Self::CacheControl(error) => Some(&error.param),
            Self::UnknownModel(_) | Self::EndpointNotServed { .. } | Self::Unpriced { .. } => Some("model"),
            Self::Unbounded(why) => why.param(),
            Self::Prompt(why) => why.param(),
            Self::NoCandidate { out, .. } => match Nobody::of(out) {
                Nobody::WithThatMember(member) => Some(member),
                Nobody::WhoMadeIt => Some("model"),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whose fault it is, where it is not the sender's: what an error budget counts. A time-out of a provider's that all
    /// of a route wait out is the provider's.
    pub fn blames(&self) -> Option<Blamed> {
        match self {
            Self::Overloaded(_) | Self::LedgerAway(_) | Self::Busy { unready: Unready::Full(_), .. } => {
                Some(Blamed::Gateway)
            }
            Self::Prompt(why) => why.blames(),
            Self::Busy { .. } | Self::Upstream { .. } => Some(Blamed::Upstream),
            Self::UpstreamFault { fault, .. } => {
                let theirs = matches!(fault, Fault::Wait | Fault::Transient) || fault.is_our_trouble();
                theirs.then_some(Blamed::Upstream)
            }
            Self::NoCandidate { out, .. } => match Nobody::of(out) {
                Nobody::Rested { .. } | Nobody::Now { .. } => Some(Blamed::Upstream),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether an upstream is to blame: logged as a warning and counted by deployment.
    pub const fn blames_upstream(&self) -> Option<&Arc<str>> {
        match self {
            Self::Upstream { deployment, .. } | Self::UpstreamFault { deployment, .. } => Some(deployment),
            _ => None,
        }
    }

    /// A model that exists, asked at an endpoint it does not serve.
    pub fn endpoint_not_served(model: &str, endpoint: Endpoint) -> Self {
        Self::EndpointNotServed { model: model.to_owned(), endpoint: endpoint.name() }
    }
}
