//! What operators send: the name in a path, and a body of JSON.

use std::convert::Infallible;
use std::fmt;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::response::Response;
use http::request::Parts;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::error;

/// The name in the path; what is no UTF-8 names nothing.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(name.map(|Path(name)| name).unwrap_or_default()))
    }
}

/// A body of JSON, no member of which is there twice: which of the two would count?
pub(super) fn read(body: &[u8]) -> Result<Value, Box<Response>> {
    serde_json::from_slice::<Once>(body).map(|Once(value)| value).map_err(|why| {
        error(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {why}"), "invalid_json").into()
    })
}

/// A value without repeated members.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once(Value::Null))
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self, E> {
        Ok(Self(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self, E> {
        Ok(Self(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self, E> {
        Ok(Self(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self, E> {
        Ok(Self(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self, E> {
        Ok(Self(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        let mut list = Vec::new();
        while let Some(Self(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Self(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut object = Map::new();
        while let Some((name, Self(value))) = members.next_entry::<String, Self>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(format!("the member {name:?} is there twice")));
            }
            object.insert(name, value);
        }
        Ok(Self(object.into()))
    }
}

/// A body of JSON that may be left out.
pub(super) fn read_or_empty(body: &[u8]) -> Result<Value, Box<Response>> {
    if body.is_empty() { Ok(json!({})) } else { read(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_there_twice_is_no_body() {
        let whole = r#"{"a":[1,-2,0.5,"x",true,null,{"b":{}}]}"#;
        assert_eq!(read(whole.as_bytes()).expect("sound").to_string(), whole);
        for twice in [r#"{"a":1,"a":2}"#, r#"{"a":[{"b":1,"b":1}]}"#, "{", ""] {
            assert!(read(twice.as_bytes()).is_err(), "{twice}");
        }
    }
}
