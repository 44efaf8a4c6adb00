//! The control plane: what operators do.

pub mod audit;
pub mod budgets;
mod directory;
pub mod form;
pub mod keys;
pub mod ledger;
mod limits;
pub mod pepper;
pub mod prices;
pub mod prompts;
pub(crate) mod random;
pub mod reports;
pub mod teams;

pub use directory::{Directory, DirectoryError, LiveKeys};
