//! The key-value part of a GGUF file.

use std::collections::HashMap;
use std::io::Read;

use super::{GgufError, malformed};

/// One metadata value. Numbers of all widths are one kind here: no reader of ours cares.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// A real number.
    Real(f64),
    /// True or false.
    Flag(bool),
    /// A text; bytes that are not UTF-8 were replaced.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of whole numbers.
    Numbers(Vec<i64>),
    /// A list of another kind: read past, not kept.
    Skipped,
}

impl Value {
    /// Returns the value as a number from 0 up.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Returns the value as a real number; whole ones count.
    pub fn real(&self) -> Option<f64> {
        match self {
            Self::Real(x) => Some(*x),
            Self::Number(n) => Some(*n as f64),
            _ => None,
        }
    }

    /// Returns the value as true or false.
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

/// A reader that knows how many bytes are left, so that no claim of the file is believed unseen.
pub(super) struct Bounded<'a, R> {
    reader: &'a mut R,
    position: u64,
    length: u64,
}

impl<'a, R: Read> Bounded<'a, R> {
    pub(super) fn new(reader: &'a mut R, length: u64) -> Self {
        Self { reader, position: 0, length }
    }

    /// Returns how many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn claim(&mut self, count: u64) -> Result<(), GgufError> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.length);
        self.position = end.ok_or_else(|| malformed("it is cut short"))?;
        Ok(())
    }

    /// Fails unless `count` items of at least `least` bytes each can still follow.
    fn expect(&self, count: u64, least: u64) -> Result<(), GgufError> {
        let left = self.length - self.position;
        if count.checked_mul(least).is_none_or(|size| size > left) {
            return Err(malformed("a list is longer than the file"));
        }
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    pub(super) fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        self.claim(length)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| malformed("a text is too long"))?];
        self.reader.read_exact(&mut bytes)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }
}

/// Reads `count` pairs.
pub(super) fn read_metadata<R: Read>(
    source: &mut Bounded<'_, R>,
    count: u64,
) -> Result<HashMap<String, Value>, GgufError> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = source.text()?;
        let kind = source.u32()?;
        let value = read_value(source, kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(malformed(format!("the key {key} comes twice")));
        }
    }
    Ok(metadata)
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

fn read_value<R: Read>(source: &mut Bounded<'_, R>, kind: u32) -> Result<Value, GgufError> {
    match kind {
        TEXT => Ok(Value::Text(source.text()?)),
        LIST => read_list(source),
        _ => read_scalar(source, kind),
    }
}

fn read_scalar<R: Read>(source: &mut Bounded<'_, R>, kind: u32) -> Result<Value, GgufError> {
    Ok(match kind {
        0 => Value::Number(i64::from(u8::from_le_bytes(source.bytes()?))),
        1 => Value::Number(i64::from(i8::from_le_bytes(source.bytes()?))),
        2 => Value::Number(i64::from(u16::from_le_bytes(source.bytes()?))),
        3 => Value::Number(i64::from(i16::from_le_bytes(source.bytes()?))),
        4 => Value::Number(i64::from(source.u32()?)),
        5 => Value::Number(i64::from(i32::from_le_bytes(source.bytes()?))),
        6 => Value::Real(f64::from(f32::from_le_bytes(source.bytes()?))),
        7 => Value::Flag(source.bytes::<1>()? != [0]),
        10 => Value::Number(
            i64::try_from(source.u64()?).map_err(|_| malformed("a number is larger than can be"))?,
        ),
        11 => Value::Number(i64::from_le_bytes(source.bytes()?)),
        12 => Value::Real(f64::from_le_bytes(source.bytes()?)),
        other => return Err(malformed(format!("the value type {other} is unknown"))),
    })
}

fn read_list<R: Read>(source: &mut Bounded<'_, R>) -> Result<Value, GgufError> {
    let (kind, count) = (source.u32()?, source.u64()?);
    if kind == TEXT {
        source.expect(count, 8)?;
        return Ok(Value::Texts((0..count).map(|_| source.text()).collect::<Result<_, _>>()?));
    }
    if kind == LIST {
        return Err(GgufError::Unsupported("its metadata holds lists of lists".to_owned()));
    }
    source.expect(count, 1)?;
    let mut numbers = Vec::new();
    let mut whole = true;
    for _ in 0..count {
        match read_scalar(source, kind)? {
            Value::Number(n) => numbers.push(n),
            _ => whole = false,
        }
    }
    Ok(if whole { Value::Numbers(numbers) } else { Value::Skipped })
}
