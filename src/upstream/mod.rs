//! Live handles to deployments: sockets, credentials, the worker process. Carries values and decides nothing.

pub mod worker;
