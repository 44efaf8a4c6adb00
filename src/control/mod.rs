//! The control plane: what operators do.

pub mod budgets;
pub mod keys;
pub mod ledger;
pub mod prices;
pub mod reports;
