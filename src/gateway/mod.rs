//! The data plane: one inference request in a straight line, from a known sender to a settled answer.

pub mod admit;
pub mod answers;
mod asking;
mod attempt;
pub mod board;
mod candidates;
pub mod catalog;
mod counts;
mod dispatch;
mod explain;
mod forms;
mod inference;
#[cfg(test)]
mod lab;
pub mod ledger;
pub mod limited;
pub mod limits;
mod means;
mod meter;
pub mod pins;
mod prepare;
mod presence;
pub mod record;
mod refusal;
mod requests;
mod reserve;
mod resolve;
pub mod retirements;
pub mod retries;
mod routes;
mod settle;
mod stored;
mod trace;
mod visit;

pub use explain::{Candidate, ExpectedTokens, Explanation, FactsReport, Question, Reason};
pub use inference::{Arrival, Gateway};
pub use meter::{Answer, AnswerBody, Metered, Next};
pub use presence::Client;
pub use record::Refused;
pub use refusal::{CODES as REFUSAL_CODES, Nobody, Refusal};
pub use requests::RequestReport;
pub use reserve::Money;
pub use resolve::{Resolution, ResolveError};
pub use routes::{DeploymentReport, LabelReport, PlanReport, RouteReport};
pub use stored::Stored;
