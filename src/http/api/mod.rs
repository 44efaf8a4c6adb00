//! The data address: inference straight to the gateway, everything else to a router.

pub(super) mod health;
pub(super) mod inference;
pub(super) mod models;
pub(super) mod requests;
pub(super) mod route;
pub(super) mod stored;
pub(super) mod trace;

use http::{HeaderMap, header};

/// The credential a client shows: `Authorization: Bearer`, `api-key` or `x-api-key`, the first that is there.
pub(super) fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| text("api-key")).or_else(|| text("x-api-key")).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn a_key_is_found_in_three_places() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect::<HeaderMap>()
        };
        for (pairs, want) in [
            (&[("authorization", "Bearer k")][..], Some("k")),
            (&[("authorization", "bearer  k ")], Some("k")),
            (&[("api-key", "k")], Some("k")),
            (&[("x-api-key", "k")], Some("k")),
            (&[("authorization", "Basic abc"), ("api-key", "k")], Some("k")),
            (&[("authorization", "Bearer a"), ("api-key", "b")], Some("a")),
            (&[("authorization", "Bearer ")], None),
            (&[("api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(credential(&headers(pairs)), want, "{pairs:?}");
        }
    }
}
