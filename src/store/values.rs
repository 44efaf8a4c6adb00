//! Values as columns hold them: lists as JSON, limits as numbers that may be missing.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::engine::StoreError;
use crate::domain::limit::RateLimits;

/// A number for a column.
pub(super) fn optional(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// A list for a column.
pub(super) fn text_list(list: &[Arc<str>]) -> String {
    serde_json::json!(list).to_string()
}

/// A list from a column of the row that `id` names.
pub(super) fn texts(row: &AnyRow, column: &str, id: &str) -> Result<Vec<String>, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Damaged(id.to_owned()))
}

/// The limits in a row.
pub(super) fn limits(row: &AnyRow) -> Result<RateLimits, StoreError> {
    let number = |column: &str| -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = row.try_get(column)?;
        Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
    };
    Ok(RateLimits {
        requests_per_minute: number("requests_per_minute")?,
        tokens_per_minute: number("tokens_per_minute")?,
        concurrent: number("concurrent")?,
    })
}
