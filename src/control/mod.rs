//! The control plane: what operators do.

pub mod keys;
pub mod prices;
