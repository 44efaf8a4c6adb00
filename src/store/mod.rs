//! Rows: what outlives a restart. Carries values and decides nothing. One SQL text for SQLite and PostgreSQL, values
//! always bound; ids are text, times are ms since 1970 UTC, there are no booleans (sqlx's `Any` reads none).

pub mod audit;
pub mod budgets;
pub mod captures;
mod connection;
mod contents;
mod engine;
pub mod evaluations;
pub mod files;
pub mod folder;
pub mod history;
pub mod hosting;
pub mod installation;
pub mod instances;
pub mod jobs;
pub mod keys;
pub mod leases;
pub mod ledger;
mod open;
pub mod pins;
mod pool;
pub mod prices;
pub mod prompts;
pub mod proof;
pub mod registry;
pub mod spend;
pub mod teams;
#[cfg(test)]
pub(crate) mod testing;
pub mod uploads;
mod values;

pub use connection::Connection;
pub use engine::{DatabaseConfig, Durability, Location, StoreError};
pub use open::Store;
