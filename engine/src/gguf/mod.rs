//! One GGUF file: its metadata, the shape of its model, its tensors' bytes.
//!
//! The file is untrusted. Nothing is allocated for a number the file claims before the file has been seen to
//! be long enough to hold it, every offset is checked, and a file we cannot serve is an error that names why.
//! (candle's own reader allocates what the file asks for, and panics where an offset overflows.)

mod metadata;
mod rewrite;
mod shape;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

pub use metadata::Value;
use metadata::{Bounded, read_metadata};
pub(crate) use rewrite::Changed;
pub use shape::Shape;

/// Why a model file cannot be served. Always the file's fault, never worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read.
    #[error("cannot read the model file: {0}")]
    Io(#[from] io::Error),
    /// It is not GGUF, or is cut short, or contradicts itself.
    #[error("not a sound GGUF file: {0}")]
    Malformed(String),
    /// It is sound, but this engine does not run it.
    #[error("this model cannot be served: {0}")]
    Unsupported(String),
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Four bytes a number.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 32 numbers: an f16 scale, 16 bytes of nibbles.
    Q4_0,
    /// 32 numbers: an f16 scale, an f16 minimum, 16 bytes of nibbles.
    Q4_1,
    /// 32 numbers in 22 bytes.
    Q5_0,
    /// 32 numbers in 24 bytes.
    Q5_1,
    /// 32 numbers: an f16 scale, 32 signed bytes.
    Q8_0,
    /// 256 numbers in 84 bytes.
    Q2K,
    /// 256 numbers in 110 bytes.
    Q3K,
    /// 256 numbers in 144 bytes.
    Q4K,
    /// 256 numbers in 176 bytes.
    Q5K,
    /// 256 numbers in 210 bytes.
    Q6K,
}

impl Format {
    /// Returns the format of ggml's type number.
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Returns the numbers of a block and the bytes it takes.
    const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }
}

/// One tensor, as the file stores it.
#[derive(Debug)]
pub struct RawTensor {
    /// How `bytes` are to be read.
    pub format: Format,
    /// Rows (outputs); 1 for a vector.
    pub rows: usize,
    /// Numbers in a row (inputs); a whole number of blocks.
    pub columns: usize,
    /// The blocks, row by row.
    pub bytes: Vec<u8>,
}

struct TensorPlace {
    /// Its place in the file's list.
    index: usize,
    code: u32,
    dimensions: Vec<u64>,
    offset: u64,
}

/// An open model file.
pub struct Gguf {
    reader: BufReader<File>,
    length: u64,
    metadata: HashMap<String, Value>,
    /// Where the metadata end and the list of tensors begins.
    metadata_end: u64,
    places: HashMap<String, TensorPlace>,
    alignment: u64,
    data_start: u64,
}

const MAGIC: [u8; 4] = *b"GGUF";

impl Gguf {
    /// Reads the header of `path`; tensors are read when asked for.
    ///
    /// # Errors
    /// If the file cannot be read or is not a sound GGUF file of version 2 or 3.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::new(file);
        let mut source = Bounded::new(&mut reader, length);
        if source.bytes::<4>()? != MAGIC {
            return Err(malformed("it does not begin with GGUF"));
        }
        let version = source.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Unsupported(format!("GGUF version {version} (2 and 3 are)")));
        }
        let (tensors, pairs) = (source.u64()?, source.u64()?);
        let metadata = read_metadata(&mut source, pairs)?;
        let metadata_end = source.position();
        let places = read_places(&mut source, tensors)?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(value) => value
                .number()
                .filter(|n| n.is_power_of_two() && *n <= 1 << 20)
                .ok_or_else(|| malformed("general.alignment is not a power of two"))?,
        };
        let data_start = source.position().next_multiple_of(alignment);
        Ok(Self { reader, length, metadata, metadata_end, places, alignment, data_start })
    }

    /// Returns the metadata value under `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// Returns the text under `key`.
    ///
    /// # Errors
    /// If it is missing or not a text.
    pub fn text(&self, key: &str) -> Result<&str, GgufError> {
        match self.value(key) {
            Some(Value::Text(text)) => Ok(text),
            Some(_) => Err(malformed(format!("{key} is not a text"))),
            None => Err(malformed(format!("{key} is missing"))),
        }
    }

    /// Returns the list of texts under `key`.
    ///
    /// # Errors
    /// If it is missing or not a list of texts.
    pub fn texts(&self, key: &str) -> Result<&[String], GgufError> {
        match self.value(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            Some(_) => Err(malformed(format!("{key} is not a list of texts"))),
            None => Err(malformed(format!("{key} is missing"))),
        }
    }

    /// Returns the whole number under `key`.
    ///
    /// # Errors
    /// If it is missing, negative or not a whole number.
    pub fn number(&self, key: &str) -> Result<u64, GgufError> {
        let value = self.value(key).ok_or_else(|| malformed(format!("{key} is missing")))?;
        value.number().ok_or_else(|| malformed(format!("{key} is not a whole number")))
    }

    /// Returns the list of whole numbers under `key`.
    ///
    /// # Errors
    /// If it is missing or not a list of whole numbers.
    pub fn numbers(&self, key: &str) -> Result<&[i64], GgufError> {
        match self.value(key) {
            Some(Value::Numbers(numbers)) => Ok(numbers),
            Some(_) => Err(malformed(format!("{key} is not a list of whole numbers"))),
            None => Err(malformed(format!("{key} is missing"))),
        }
    }

    /// Whether the file holds the tensor `name`.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Reads the tensor `name`, which must be `rows` × `columns` (a vector has one row).
    ///
    /// # Errors
    /// If it is missing, of another shape or a type we do not read, or reaches beyond the file's end.
    pub fn tensor(&mut self, name: &str, rows: usize, columns: usize) -> Result<RawTensor, GgufError> {
        self.rows(name, (rows, columns), 0..rows)
    }

    /// Reads some rows of the tensor `name`, which must be of this shape: rows and columns.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub(crate) fn rows(
        &mut self,
        name: &str,
        (rows, columns): (usize, usize),
        wanted: Range<usize>,
    ) -> Result<RawTensor, GgufError> {
        let place =
            self.places.get(name).ok_or_else(|| malformed(format!("the tensor {name} is missing")))?;
        let format = place.format(name)?;
        let shape = if rows == 1 { vec![columns as u64] } else { vec![columns as u64, rows as u64] };
        if place.dimensions != shape {
            let found = &place.dimensions;
            return Err(malformed(format!("the tensor {name} has the shape {found:?}, not {shape:?}")));
        }
        let (start, size) = self.extent(name, place)?;
        // Whole rows of a size that fits into the file.
        let row = size / rows.max(1) as u64;
        let (first, count) = (wanted.start.min(rows), wanted.len().min(rows - wanted.start.min(rows)));
        let mut bytes = vec![0; count * row as usize];
        self.reader.seek(SeekFrom::Start(start + first as u64 * row))?;
        self.reader.read_exact(&mut bytes)?;
        Ok(RawTensor { format, rows: count, columns, bytes })
    }

    /// Returns where a tensor begins in the file and its bytes.
    fn extent(&self, name: &str, place: &TensorPlace) -> Result<(u64, u64), GgufError> {
        let (numbers, bytes) = place.format(name)?.block();
        let columns = place.dimensions[0];
        if !columns.is_multiple_of(numbers as u64) {
            return Err(malformed(format!("rows of {name} are no whole number of blocks")));
        }
        let row = (columns / numbers as u64).checked_mul(bytes as u64);
        let size =
            place.dimensions[1..].iter().try_fold(row, |size, n| Some(size?.checked_mul(*n))).flatten();
        let start = self.data_start.checked_add(place.offset);
        let (Some(size), Some(start)) = (size, start) else {
            return Err(malformed(format!("the tensor {name} is larger than can be")));
        };
        if start.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(malformed(format!("the tensor {name} reaches beyond the end of the file")));
        }
        Ok((start, size))
    }
}

impl TensorPlace {
    fn format(&self, name: &str) -> Result<Format, GgufError> {
        Format::from_code(self.code).ok_or_else(|| {
            GgufError::Unsupported(format!("the tensor {name} has the ggml type {}", self.code))
        })
    }
}

fn read_places(
    source: &mut Bounded<'_, BufReader<File>>,
    count: u64,
) -> Result<HashMap<String, TensorPlace>, GgufError> {
    let mut places = HashMap::new();
    for index in 0..count as usize {
        let name = source.text()?;
        let rank = source.u32()?;
        if rank == 0 || rank > 4 {
            return Err(malformed(format!("the tensor {name} has {rank} dimensions")));
        }
        let mut dimensions = Vec::with_capacity(4);
        for _ in 0..rank {
            dimensions.push(source.u64()?);
        }
        // Trailing ones carry nothing: [576, 1] is a vector.
        while dimensions.len() > 1 && dimensions.last() == Some(&1) {
            dimensions.pop();
        }
        let place = TensorPlace { index, code: source.u32()?, dimensions, offset: source.u64()? };
        if places.insert(name.clone(), place).is_some() {
            return Err(malformed(format!("two tensors are called {name}")));
        }
    }
    Ok(places)
}

fn malformed(reason: impl Into<String>) -> GgufError {
    GgufError::Malformed(reason.into())
}

#[cfg(test)]
mod tests;
