//! Rows: what outlives a restart. Carries values and decides nothing. One SQL text for SQLite and PostgreSQL, values
//! always bound; ids are text, times are ms since 1970 UTC, there are no booleans (sqlx's `Any` reads none).

mod engine;
pub mod keys;
pub mod pins;
pub mod prices;

pub use engine::{Store, StoreError};
