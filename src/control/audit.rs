//! The audit log: who changed what, and when. A change and its entry are written together, or neither is. No secret is
//! ever in it.

use serde_json::Value;

use super::random::{self, NoRandom};
use crate::store::StoreError;
use crate::store::audit::{AuditRow, AuditRows};

/// Most entries of one page.
pub const MAX_PAGE: u32 = 1_000;

/// Who makes changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Whoever holds the admin key.
    Admin,
    /// The gateway itself.
    Gateway,
}

impl Actor {
    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Gateway => "gateway",
        }
    }
}

/// Makes a row of a change, for the store to write together with the change. `action` is a noun and a verb, such as
/// `key.create`; `subject` is an id.
pub fn row(
    actor: Actor,
    action: &str,
    subject: &str,
    detail: &Value,
    now_ms: i64,
) -> Result<AuditRow, NoRandom> {
    // 48 bits of time, then 48 random ones: in order of time, and never twice the same
    let id = format!("audit_{now_ms:012x}{}", random::hex(&random::bytes::<6>()?));
    Ok(AuditRow {
        id,
        at_ms: now_ms,
        actor: actor.name().to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail: detail.to_string(),
    })
}

/// The log, for those who read it.
pub struct AuditLog {
    rows: AuditRows,
}

impl AuditLog {
    /// The log in a store.
    pub const fn new(rows: AuditRows) -> Self {
        Self { rows }
    }

    /// Notes what an operator did that was written elsewhere.
    ///
    /// # Errors
    ///
    /// The database's, or the machine's lack of random bits, in words.
    pub async fn note(&self, action: &str, subject: &str, detail: &Value, now_ms: i64) -> Result<(), String> {
        let row = row(Actor::Admin, action, subject, detail, now_ms).map_err(|error| error.to_string())?;
        self.rows.insert(&row).await.map_err(|error| error.to_string())
    }

    /// At most so many entries, newest first: the last ones, or those before an id.
    pub async fn page(&self, before: Option<&str>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.rows.page(before, i64::from(limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time() {
        let at = |ms| row(Actor::Admin, "key.create", "key_1", &Value::Null, ms).expect("random bits").id;
        let ids = [at(0), at(255), at(256), at(1_795_000_000_000), at(1_795_000_000_001)];
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 30), "{ids:?}");
    }
}
