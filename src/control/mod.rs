//! The control plane: what operators do.

pub mod audit;
mod directory;
pub mod form;
pub mod keys;
pub mod pepper;
mod random;
pub mod teams;

pub use directory::{Directory, DirectoryError, LiveKeys};
