//! Live handles to deployments: sockets, credentials, the worker process. Carries values and decides nothing.

pub mod credential;
mod error;
pub mod http;
mod probe;
pub mod worker;

pub use error::{Phase, UpstreamError};
pub use probe::probe;
