//! The control plane: what operators do.

pub mod budgets;
pub mod keys;
pub mod prices;
