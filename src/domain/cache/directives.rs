//! What a request itself says about the cache: in `Cache-Control` as RFC 9111 has it, or in its body's member `cache`
//! in LiteLLM's form.

use std::time::Duration;

use serde_json::Value;

use super::Directives;

/// Longest namespace, bytes.
const MAX_NAMESPACE_BYTES: usize = 64;
/// What stands for any number of seconds that is larger (RFC 9111, 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// A directive that can't be followed: always the client's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for '{param}': {why}")]
pub struct DirectiveError {
    /// The header, or the member by its path: `cache.ttl`.
    pub param: String,
    /// What is wrong, and what to give.
    pub why: &'static str,
}

impl Directives {
    /// What the header's values and the body's member say together.
    ///
    /// # Errors
    ///
    /// The first one that can't be followed.
    pub fn read<'a>(
        headers: impl IntoIterator<Item = &'a [u8]>,
        body: Option<&Value>,
    ) -> Result<Self, DirectiveError> {
        let mut all = body.map(Self::of_body).transpose()?.unwrap_or_default();
        for header in headers {
            all = all.and(Self::of_header(header)?);
        }
        Ok(all)
    }

    /// Reads one value of `Cache-Control`. What is unknown is ignored (RFC 9111, 5.2.3).
    fn of_header(value: &[u8]) -> Result<Self, DirectiveError> {
        let mut read = Self::default();
        for directive in split_outside_quotes(value) {
            let (name, argument) = match directive.iter().position(|byte| *byte == b'=') {
                Some(at) => (&directive[..at], Some(&directive[at + 1..])),
                None => (directive, None),
            };
            match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"no-cache" => read.no_cache = true,
                b"no-store" => read.no_store = true,
                b"max-age" => {
                    let why = "max-age wants a whole number of seconds: max-age=60";
                    let error = || DirectiveError { param: "Cache-Control".to_owned(), why };
                    let seconds = argument.and_then(delta_seconds).ok_or_else(error)?;
                    read = read.and(Self::no_older_than(seconds));
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// Reads the member `cache` of a body.
    fn of_body(cache: &Value) -> Result<Self, DirectiveError> {
        let whole = |why| DirectiveError { param: "cache".to_owned(), why };
        let members = match cache {
            Value::Null => return Ok(Self::default()),
            Value::Object(members) => members,
            _ => return Err(whole("expected an object, such as {\"no-cache\": true}")),
        };
        let mut read = Self::default();
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let wrong = |why| DirectiveError { param: format!("cache.{name}"), why };
            let boolean = || value.as_bool().ok_or_else(|| wrong("expected true or false"));
            let seconds = || value.as_u64().ok_or_else(|| wrong("expected a whole number of seconds"));
            match name.as_str() {
                "no-cache" => read.no_cache |= boolean()?,
                "no-store" => read.no_store |= boolean()?,
                "s-maxage" => read = read.and(Self::no_older_than(seconds()?)),
                "ttl" => match seconds()? {
                    0 => read.no_store = true,
                    seconds => read.ttl = Some(Duration::from_secs(seconds.min(MOST_SECONDS))),
                },
                "namespace" => read.namespace = Some(namespace(value).map_err(wrong)?),
                // LiteLLM's switch where the cache is off unless asked for; off is off here too
                "use-cache" => {
                    let off = !boolean()?;
                    read.no_cache |= off;
                    read.no_store |= off;
                }
                _ => {
                    return Err(wrong(
                        "not known: give ttl, s-maxage, no-cache, no-store, namespace or use-cache",
                    ));
                }
            }
        }
        Ok(read)
    }

    /// A kept answer may be so old; 0 is none at all.
    fn no_older_than(seconds: u64) -> Self {
        match seconds {
            0 => Self { no_cache: true, ..Self::default() },
            _ => {
                let max_age = Some(Duration::from_secs(seconds.min(MOST_SECONDS)));
                Self { max_age, ..Self::default() }
            }
        }
    }

    /// Both; the stricter holds.
    fn and(self, other: Self) -> Self {
        let stricter = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        Self {
            no_cache: self.no_cache || other.no_cache,
            no_store: self.no_store || other.no_store,
            max_age: stricter(self.max_age, other.max_age),
            ttl: stricter(self.ttl, other.ttl),
            namespace: self.namespace.or(other.namespace),
        }
    }
}

fn namespace(value: &Value) -> Result<String, &'static str> {
    let name = value.as_str().filter(|name| (1..=MAX_NAMESPACE_BYTES).contains(&name.len()));
    name.map(str::to_owned).ok_or("expected a text of 1 to 64 bytes")
}

/// The directives of a header's value; a comma between quotes separates nothing.
fn split_outside_quotes(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    })
}

/// A number of seconds, in quotes or not (RFC 9111, 5.2).
fn delta_seconds(argument: &[u8]) -> Option<u64> {
    let text = argument.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits)?;
    // more than a u64 holds is the most, too
    Some(number.parse().unwrap_or(MOST_SECONDS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(header: &str, body: Option<&Value>) -> Result<Directives, String> {
        Directives::read([header.as_bytes()], body).map_err(|error| error.to_string())
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_header_says_what_rfc_9111_lets_it() {
        let none = Directives::default;
        for (header, want) in [
            ("", none()),
            ("no-cache", Directives { no_cache: true, ..none() }),
            ("No-Store , NO-CACHE", Directives { no_cache: true, no_store: true, ..none() }),
            ("max-age=60", Directives { max_age: seconds(60), ..none() }),
            ("max-age=\"60\", max-age=7", Directives { max_age: seconds(7), ..none() }),
            ("max-age=0", Directives { no_cache: true, ..none() }),
            ("max-age=99999999999999999999999", Directives { max_age: seconds(MOST_SECONDS), ..none() }),
            ("only-if-cached, private=\"no-cache, no-store\", min-fresh=x,,", none()),
            ("x=\"\\\", no-store\"", none()),
        ] {
            assert_eq!(of(header, None), Ok(want), "{header:?}");
        }
        for header in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon", "no-cache, max-age=+1"]
        {
            let error = of(header, None).expect_err(header);
            assert!(error.starts_with("invalid value for 'Cache-Control': max-age wants"), "{error}");
        }
    }

    #[test]
    fn the_body_says_what_litellm_lets_it() {
        let none = Directives::default;
        for (cache, want) in [
            (json!(null), none()),
            (
                json!({"ttl": 5, "use-cache": true, "no-store": false}),
                Directives { ttl: seconds(5), ..none() },
            ),
            (json!({"ttl": 0}), Directives { no_store: true, ..none() }),
            (json!({"s-maxage": 9, "no-cache": null}), Directives { max_age: seconds(9), ..none() }),
            (json!({"s-maxage": 0}), Directives { no_cache: true, ..none() }),
            (json!({"namespace": "a"}), Directives { namespace: Some("a".to_owned()), ..none() }),
            (json!({"use-cache": false}), Directives { no_cache: true, no_store: true, ..none() }),
        ] {
            assert_eq!(of("", Some(&cache)), Ok(want), "{cache}");
        }
        for (cache, param) in [
            (json!([]), "'cache'"),
            (json!("no-cache"), "'cache'"),
            (json!({"ttl": -1}), "'cache.ttl'"),
            (json!({"ttl": 1.5}), "'cache.ttl'"),
            (json!({"s-maxage": "9"}), "'cache.s-maxage'"),
            (json!({"no-cache": 1}), "'cache.no-cache'"),
            (json!({"no-store": "yes"}), "'cache.no-store'"),
            (json!({"namespace": ""}), "'cache.namespace'"),
            (json!({"namespace": "a".repeat(65)}), "'cache.namespace'"),
            (json!({"max-age": 1}), "'cache.max-age'"),
        ] {
            let error = of("", Some(&cache)).expect_err(param);
            assert!(error.contains(param), "{cache}: {error}");
        }
    }

    #[test]
    fn of_two_the_stricter_holds() {
        let body = json!({"s-maxage": 10, "ttl": 9, "no-cache": true});
        let both = of("max-age=60, no-store", Some(&body));
        let want = Directives {
            no_cache: true,
            no_store: true,
            max_age: seconds(10),
            ttl: seconds(9),
            namespace: None,
        };
        assert_eq!(both, Ok(want));
    }
}
