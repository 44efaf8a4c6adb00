//! The operator's webhook: told of what needs a person, signed so that nobody else can tell it anything.

use crate::domain::catalog::Address;
use crate::domain::secret::Secret;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its host.
    pub address: Address,
    /// The value of `Host`.
    pub authority: String,
    /// The path and the query: a token may be in them, so they are never logged.
    pub path: String,
    /// Signs what is sent.
    pub secret: Option<Secret>,
}
