//! Rows: what outlives a restart. Carries values and decides nothing. One SQL text for SQLite and PostgreSQL, values
//! always bound; ids are text, times are ms since 1970 UTC, there are no booleans (sqlx's `Any` reads none).

pub mod audit;
mod engine;
pub mod installation;
pub mod keys;
pub mod pins;
pub mod teams;
mod values;

pub use engine::{Store, StoreError};
