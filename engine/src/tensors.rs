//! A safetensors file: names to tensors, read one at a time, so that no second copy of all of them is ever in memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

/// Bytes of the number that stands before the header.
pub(crate) const LENGTH_BYTES: u64 = 8;
/// The longest header that is read; that of a model with a hundred tensors has 10 KiB.
const MOST_HEADER_BYTES: u64 = 16 << 20;
/// Bytes read at a time; a whole number of numbers.
const PIECE: usize = 64 << 10;

/// Why a file of tensors can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TensorsError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is cut short, or contradicts itself or what was expected.
    #[error("{0}")]
    Malformed(String),
    /// Its numbers are of a kind that is not read.
    #[error("{0}")]
    Unsupported(String),
}

/// An open file.
pub(crate) struct Tensors {
    file: BufReader<File>,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl Tensors {
    /// Opens the file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, TensorsError> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER_BYTES.min(size_bytes) {
            return Err(TensorsError::Malformed(format!("its header claims {length} bytes")));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header)?;
        // Reading it checks that the tensors lie one behind the other, each as long as its shape says.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| TensorsError::Malformed(format!("its header: {error}")))?;
        let start = LENGTH_BYTES + length;
        if start.checked_add(metadata.data_len() as u64) != Some(size_bytes) {
            return Err(TensorsError::Malformed("it is cut short, or too long".to_owned()));
        }
        Ok(Self { file, metadata, start })
    }

    /// Returns the names of all tensors, in the order of the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Reads the tensor `name`, which must have this shape, whatever the width of its numbers.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorsError> {
        let malformed = |why: String| TensorsError::Malformed(format!("the tensor {name} {why}"));
        let info = self.metadata.info(name).ok_or_else(|| malformed("is missing".to_owned()))?;
        let width = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                let why = format!("the tensor {name} is {other:?}; F32, F16 and BF16 are read");
                return Err(TensorsError::Unsupported(why));
            }
        };
        if info.shape != shape {
            return Err(malformed(format!("has the shape {:?}, not {shape:?}", info.shape)));
        }
        let (from, to) = info.data_offsets;
        self.file.seek(SeekFrom::Start(self.start + from as u64))?;
        let mut numbers = Vec::with_capacity((to - from) / width);
        let mut piece = vec![0; PIECE.min(to - from)];
        let mut left = to - from;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE)];
            self.file.read_exact(piece)?;
            widen(info.dtype, piece, &mut numbers);
            left -= piece.len();
        }
        Ok(numbers)
    }
}

/// Appends the numbers of `bytes`, which are of one of the three kinds that are read.
fn widen(dtype: Dtype, bytes: &[u8], numbers: &mut Vec<f32>) {
    let (fours, twos) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
    match dtype {
        Dtype::F16 => numbers.extend(twos.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
        Dtype::BF16 => numbers.extend(twos.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
        _ => numbers.extend(fours.iter().map(|bytes| f32::from_le_bytes(*bytes))),
    }
}
