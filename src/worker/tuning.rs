//! Training on this machine: jobs, the files they learn from, and the process that trains.
//!
//! [`desk`] keeps the jobs and starts one [`trainer`] after the other. Between the two there is only the job's
//! [`folder`]: so either may be killed at any moment. What a job is trained with is decided in [`settings`], what it
//! learns from in [`rows`]; [`journal`] tells what happened.

pub(super) mod desk;
pub(super) mod folder;
pub(super) mod journal;
pub(super) mod limits;
pub(super) mod record;
pub(super) mod rows;
pub(super) mod settings;
pub(super) mod shelf;
pub(super) mod trainer;
