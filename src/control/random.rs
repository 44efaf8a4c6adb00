//! Random bits for secrets and ids.

use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// The operating system has no random bits.
#[derive(Debug, thiserror::Error)]
#[error("no random bits: {0}")]
pub struct NoRandom(rand::rand_core::OsError);

/// So many random bytes.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(NoRandom)?;
    Ok(bytes)
}

/// A new id: a prefix and 24 hex digits.
pub(super) fn id(prefix: &str) -> Result<String, NoRandom> {
    Ok(format!("{prefix}{}", hex(&bytes::<12>()?)))
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
