//! Objects of a request, read by name: what nobody has taken at the end is refused by name.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Untranslatable, Why};

/// Where a value stands in the request; written out only where it is refused.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'p> {
    /// The body itself.
    Body,
    /// A member of an object.
    Member(&'p Self, &'p str),
    /// An item of an array.
    Item(&'p Self, usize),
}

impl<'p> Path<'p> {
    /// A member of what stands here.
    pub(super) const fn member<'q>(&'q self, name: &'q str) -> Path<'q>
    where
        'p: 'q,
    {
        Path::Member(self, name)
    }

    /// An item of what stands here.
    pub(super) const fn item<'q>(&'q self, at: usize) -> Path<'q>
    where
        'p: 'q,
    {
        Path::Item(self, at)
    }

    /// Refuses what stands here.
    pub(super) fn refused(&self, why: Why) -> Untranslatable {
        Untranslatable { param: self.to_string(), why }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("body"),
            Self::Member(Path::Body, name) => f.write_str(name),
            Self::Member(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, at) => write!(f, "{of}[{at}]"),
        }
    }
}

/// The members of one object, in order. Each is taken by its name; `null` counts as absent.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value::<&RawValue>()?));
        }
        Ok(Object(members))
    }
}

impl<'a> Object<'a> {
    /// Reads a whole body.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, Untranslatable> {
        let read: Result<Self, _> = serde_json::from_slice(body);
        read.map_err(|_| Path::Body.refused(Why::Expected("one JSON object")))?.each_once(&Path::Body)
    }

    /// Reads the object at `path`.
    pub(super) fn read(value: &'a RawValue, path: &Path<'_>) -> Result<Self, Untranslatable> {
        let read: Result<Self, _> = serde_json::from_str(value.get());
        read.map_err(|_| path.refused(Why::Expected("an object")))?.each_once(path)
    }

    fn each_once(self, path: &Path<'_>) -> Result<Self, Untranslatable> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(self),
            Some(pair) => Err(path.member(pair[0]).refused(Why::Twice)),
        }
    }

    /// Takes a member.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.0.remove(at);
        (value.get() != "null").then_some(value)
    }

    /// Looks at a member without taking it.
    pub(super) fn peek(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (value.get() != "null").then_some(value.get())
    }

    /// Takes a member that must be there.
    pub(super) fn need(&mut self, name: &str, path: &Path<'_>) -> Result<&'a RawValue, Untranslatable> {
        self.take(name).ok_or_else(|| path.member(name).refused(Why::Missing))
    }

    /// Takes a text.
    pub(super) fn text(
        &mut self,
        name: &str,
        path: &Path<'_>,
    ) -> Result<Option<&'a RawValue>, Untranslatable> {
        self.take(name).map(|value| as_text(value, &path.member(name))).transpose()
    }

    /// Takes a text that must be there.
    pub(super) fn need_text(&mut self, name: &str, path: &Path<'_>) -> Result<&'a RawValue, Untranslatable> {
        as_text(self.need(name, path)?, &path.member(name))
    }

    /// Takes a text and reads it, to compare it with names.
    pub(super) fn word(
        &mut self,
        name: &str,
        path: &Path<'_>,
    ) -> Result<Option<Cow<'a, str>>, Untranslatable> {
        self.take(name).map(|value| as_word(value, &path.member(name))).transpose()
    }

    /// Takes a member that means nothing here when it has one of these values, and is refused with any other.
    pub(super) fn only(
        &mut self,
        name: &str,
        harmless: &[&str],
        why: Why,
        path: &Path<'_>,
    ) -> Result<(), Untranslatable> {
        match self.take(name) {
            Some(value) if !harmless.contains(&value.get()) => Err(path.member(name).refused(why)),
            _ => Ok(()),
        }
    }

    /// Refuses the first member that nobody has taken.
    pub(super) fn ends(mut self, path: &Path<'_>) -> Result<(), Untranslatable> {
        self.0.retain(|(_, value)| value.get() != "null");
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(path.member(name).refused(Why::NoEqual)),
        }
    }
}

/// A value that must be a text, as it is written.
pub(super) fn as_text<'a>(value: &'a RawValue, path: &Path<'_>) -> Result<&'a RawValue, Untranslatable> {
    match value.get().starts_with('"') {
        true => Ok(value),
        false => Err(path.refused(Why::Expected("a string"))),
    }
}

/// A value that must be a text, read.
pub(super) fn as_word<'a>(value: &'a RawValue, path: &Path<'_>) -> Result<Cow<'a, str>, Untranslatable> {
    let read: Result<Name<'a>, _> = serde_json::from_str(value.get());
    read.map(|Name(word)| word).map_err(|_| path.refused(Why::Expected("a string")))
}

/// The items of a value that must be an array.
pub(super) fn as_array<'a>(
    value: &'a RawValue,
    path: &Path<'_>,
) -> Result<Vec<&'a RawValue>, Untranslatable> {
    serde_json::from_str(value.get()).map_err(|_| path.refused(Why::Expected("an array")))
}
