//! Live handles to deployments: sockets, credentials, the worker process. Carries values and decides nothing.

mod error;
pub mod http;
pub mod worker;

pub use error::{Phase, UpstreamError};
