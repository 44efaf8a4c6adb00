//! The worker's computation.
