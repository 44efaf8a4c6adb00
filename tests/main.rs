//! Everything that is tested through the door: one binary, whose modules mirror the endpoints.
//!
//! Each test has a gateway process of its own (`support::gateway`) in front of a simulated provider on a real socket
//! (`support::provider`), and audits the books when it ends. Tests are plain blocking code: dropping a connection
//! closes it there and then.

#![expect(clippy::disallowed_methods, reason = "tests read the clock and own their tasks")]

#[cfg(test)]
mod admin;
#[cfg(test)]
mod api;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod money;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod process;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod shipped;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tuning;
#[cfg(test)]
#[cfg(feature = "candle")]
mod worker;
