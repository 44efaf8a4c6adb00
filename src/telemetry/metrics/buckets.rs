//! Bounds of histograms.

/// Seconds of an operation: OpenTelemetry's fourteen (GenAI conventions, November 2026), and three for who waits up to
/// ten minutes.
pub(super) const SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36,
];

/// Seconds between two chunks, and to the first one: OpenTelemetry's fourteen.
pub(super) const CHUNK_SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Tokens of one request: OpenTelemetry's fourteen.
pub(super) const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Seconds of a transaction: a disk's or a network's, up to the database's own limits.
pub(super) const WRITE_SECONDS: &[f64] = &[
    0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Seconds of our own work.
pub(super) const OWN_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025, 0.05, 0.1, 0.5,
    1.0,
];

/// Seconds to the first token on our own engine: OpenTelemetry's sixteen, and two for who waits in its queue.
pub(super) const FIRST_TOKEN_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];

/// Seconds between two tokens of our own engine: OpenTelemetry's thirteen.
pub(super) const TOKEN_SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// Seconds of one pass over the weights.
pub(super) const STEP_SECONDS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56];

/// Answers of one step.
pub(super) const ANSWERS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// Seconds that an answer may have been kept.
pub(super) const AGE_SECONDS: &[f64] =
    &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0];

/// Cosines of two questions: fine where thresholds are.
pub(super) const SIMILARITY: &[f64] =
    &[0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0];

/// Seconds of an embedding, which has 50 ms unless the operator says otherwise.
pub(super) const EMBED_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 1.0];

/// Seconds of a fine-tuning job: minutes to two days.
pub(super) const JOB_SECONDS: &[f64] = &[
    60.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 5_400.0, 7_200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0,
    172_800.0,
];

/// Seconds of checking a data set: a few lines to 512 MiB.
pub(super) const CHECK_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
