//! The data address.
