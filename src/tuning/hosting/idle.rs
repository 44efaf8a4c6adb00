//! Who uses what stands: what the ledger has of its requests, and how long a gateway was there to book them.

use super::follow::is_of;
use super::{Hosting, LOOKED_BACK_MS};
use crate::domain::catalog::Catalog;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Watch};

/// Where nobody has watched for longer, ms, that time is not counted as idle: who asked meanwhile asked elsewhere.
const UNWATCHED_MS: i64 = 5 * 60_000;

/// Since when nobody has used a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unused {
    /// When it was last used, or else since when it stands, ms since 1970 UTC.
    pub(super) since_ms: i64,
    /// The same, but only time counts in which a gateway watched.
    pub(super) idle_since_ms: i64,
}

impl Hosting {
    /// Since when nobody has used a deployment; none where requests to it may be booked elsewhere: it is not in the
    /// catalog.
    pub(super) async fn unused(
        &self,
        catalog: &Catalog,
        row: &HostedRow,
        now_ms: i64,
    ) -> Result<Option<Unused>, StoreError> {
        let known = catalog.deployments.values().filter(|known| is_of(row, known));
        let mut names: Vec<&str> = known.map(|known| &*known.name).collect();
        if names.is_empty() {
            return Ok(None);
        }
        // it may have been called otherwise when it was first seen
        if !catalog.deployments.contains_key(&*row.deployment) {
            names.push(&row.deployment);
        }
        let key = (row.deployment.clone(), row.since_ms);
        let last = self.state.lock().used.get(&key).copied();
        // only what is new is looked through; at first as far back as matters
        let mut since_ms = last.unwrap_or(row.since_ms.max(now_ms - LOOKED_BACK_MS));
        for name in names {
            since_ms = self.rows.last_used(name, since_ms).await?.unwrap_or(since_ms);
        }
        self.state.lock().used.insert(key, since_ms);
        let watch = self.rows.watched(&row.deployment, row.since_ms).await?;
        Ok(Some(Unused { since_ms, idle_since_ms: idle_from(watch, now_ms).max(since_ms) }))
    }
}

/// From when on a deployment is idle that nobody uses, as far as it was watched; at first from now on.
fn idle_from(watch: Option<Watch>, now_ms: i64) -> i64 {
    watch.map_or(now_ms, |watch| {
        let away_ms = now_ms - watch.at_ms;
        watch.idle_from_ms + if away_ms > UNWATCHED_MS { away_ms } else { 0 }
    })
}
