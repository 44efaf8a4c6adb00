//! Whether the pepper is the one that the keys were hashed with. With another, every key would be void and nobody told.

use crate::domain::key::KeyHasher;
use crate::domain::secret::Secret;
use crate::store::StoreError;
use crate::store::installation::InstallationRows;
use crate::store::keys::KeyRows;

/// Why a pepper is refused.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// Keys are live that were hashed with another.
    #[error(
        "the pepper in the state folder is not the one that the database's {live_keys} live keys were hashed with: put \
         the old file `pepper` back; `tunegate serve --accept-new-pepper` goes on with this one and voids those keys"
    )]
    Another {
        /// How many keys would be void.
        live_keys: usize,
    },
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks the pepper, and notes the first one. Another is taken where no key would be lost, or where the operator says
/// so; whether it voids keys is returned.
pub async fn check(
    installation: &InstallationRows,
    keys: &KeyRows,
    pepper: &Secret,
    accept_another: bool,
) -> Result<bool, PepperError> {
    let value = KeyHasher::new(pepper).check_value();
    if installation.pepper_check_or(&value).await? == value {
        return Ok(false);
    }
    let live_keys = keys.all().await?.iter().filter(|row| row.key.revoked_at_ms.is_none()).count();
    if live_keys > 0 && !accept_another {
        return Err(PepperError::Another { live_keys });
    }
    installation.set_pepper_check(&value).await?;
    Ok(live_keys > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::Directory;
    use crate::control::keys::Keys;
    use crate::store::teams::TeamRows;
    use crate::store::{DatabaseConfig, Store};

    #[tokio::test]
    async fn another_pepper_is_refused_while_keys_are_live() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&DatabaseConfig::in_folder(folder.path())).await.expect("opened");
        let (installation, rows) = (InstallationRows::new(&store), KeyRows::new(&store));
        let (old, new) = (Secret::new("old"), Secret::new("new"));
        let checked = async |pepper: &Secret, accept| check(&installation, &rows, pepper, accept).await;
        assert!(!checked(&old, false).await.expect("the first"));
        assert!(!checked(&new, false).await.expect("no key is lost"));
        assert!(!checked(&old, false).await.expect("no key is lost"));
        let directory = Directory::open(rows.clone(), TeamRows::new(&store), Vec::new(), |_| {}).await;
        let keys = Keys::new(Arc::new(directory.expect("read")), old.clone());
        keys.ensure_first_key(1).await.expect("made").expect("the first");
        assert!(!checked(&old, false).await.expect("the same"));
        let words = checked(&new, false).await.expect_err("another").to_string();
        assert!(words.contains("1 live keys") && words.contains("put the old file"), "{words}");
        assert!(checked(&new, true).await.expect("accepted"), "a key is void");
        assert!(!checked(&new, false).await.expect("the same"));
    }
}
