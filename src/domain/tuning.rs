//! Fine-tuning: whose files, jobs and models are, how a job stands, and what passes between us and a provider. What is
//! written here is OpenAI's form, whatever the provider's own is.
//!
//! Source: OpenAI's specification 2.3.0 (2026-08-21), `/files`, `/uploads` and `/fine_tuning`.

pub mod bill;
mod file;
mod ids;
pub mod lifecycle;
mod owner;
pub mod request;
mod status;
pub mod target;
mod wire;

pub use file::{
    FileStatus, LONGEST_EXPIRY_S, MAX_FILENAME_BYTES, Purpose, SHORTEST_EXPIRY_S, TrainingFile,
    UPLOAD_LIFE_MS, Upload, UploadPart, UploadStatus, filename,
};
pub use ids::Id;
pub use owner::{Caller, Owner, UnknownOwner};
pub use status::JobStatus;
pub use wire::{
    COMPUTE_SECONDS, Checkpoint, JobError, JobOrder, ProviderFile, ProviderFileStatus, ProviderJob,
    TrainingEvent,
};
