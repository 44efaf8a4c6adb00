//! The rules, pure: no clock, randomness, socket, file or SQL. Times are arguments, and most tests live here.

pub mod alert;
pub mod allowed;
pub mod bound;
pub mod budget;
pub mod catalog;
pub mod endpoint;
pub mod file_ids;
pub mod fine_tuned_name;
pub mod ids;
pub mod key;
pub mod label;
pub mod leaving;
pub mod ledger;
pub mod limit;
pub mod model_name;
pub mod money;
pub mod outcome;
pub mod price;
pub mod request;
pub mod secret;
pub mod spend;
pub mod stream;
pub mod team;
pub mod tokens;
pub mod usage;
pub mod window;
