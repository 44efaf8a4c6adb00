//! Whether a request's messages hold a part of some kind, such as an image. What a text says is not looked at.

use std::fmt;

use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::members::Key;

/// Whether something within `messages` or `input` has one of these as its `type`. What can't be read is taken for it.
pub(super) fn any_of(json: &[u8], kinds: &[&str]) -> bool {
    // in a text the quotes would be escaped: nearly every request is done with here
    let quoted =
        |kind: &str, at: usize| at > 0 && json[at - 1] == b'"' && json.get(at + kind.len()) == Some(&b'"');
    let named = |kind: &&str| memmem::find_iter(json, *kind).any(|at| quoted(kind, at));
    if !kinds.iter().any(named) {
        return false;
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.deserialize_map(Top { kinds }).unwrap_or(true)
}

/// The body: only what is said to the model is looked at, not the schema of a tool.
struct Top<'k> {
    kinds: &'k [&'k str],
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key_seed(Key)? {
            match &*key {
                "messages" | "input" => {
                    found |= map.next_value_seed(Seek { kinds: self.kinds, is_type: false })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Any value, and all that is in it.
#[derive(Clone, Copy)]
struct Seek<'k> {
    kinds: &'k [&'k str],
    /// Whether it is the value of a `type`.
    is_type: bool,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.is_type && self.kinds.contains(&text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(here) = elements.next_element_seed(Self { is_type: false, ..self })? {
            found |= here;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(key) = members.next_key_seed(Key)? {
            found |= members.next_value_seed(Self { is_type: key == "type", ..self })?;
        }
        Ok(found)
    }
}
