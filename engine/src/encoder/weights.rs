//! A safetensors file: names to tensors, read one at a time, so that no second copy of all of them is ever in memory.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::EncoderError;

/// Bytes of the number that stands before the header.
const LENGTH_BYTES: u64 = 8;
/// The longest header that is read; that of a model with a hundred tensors has 10 KiB.
const MOST_HEADER_BYTES: u64 = 16 << 20;
/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// An open file.
pub(super) struct Weights {
    file: BufReader<File>,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl Weights {
    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, EncoderError> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER_BYTES.min(size_bytes) {
            return Err(EncoderError::Malformed(format!("its header claims {length} bytes")));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header)?;
        // Reading it checks that the tensors lie one behind the other, each as long as its shape says.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| EncoderError::Malformed(format!("its header: {error}")))?;
        let start = LENGTH_BYTES + length;
        if start + metadata.data_len() as u64 != size_bytes {
            return Err(EncoderError::Malformed("it is cut short, or too long".to_owned()));
        }
        Ok(Self { file, metadata, start })
    }

    /// Reads the tensor `name`, which must have this shape.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let malformed = |why: String| EncoderError::Malformed(format!("the tensor {name} {why}"));
        let info = self.metadata.info(name).ok_or_else(|| malformed("is missing".to_owned()))?;
        if info.dtype != Dtype::F32 {
            return Err(EncoderError::Unsupported(format!("the tensor {name} is {:?}, not F32", info.dtype)));
        }
        if info.shape != shape {
            return Err(malformed(format!("has the shape {:?}, not {shape:?}", info.shape)));
        }
        let (from, to) = info.data_offsets;
        self.file.seek(SeekFrom::Start(self.start + from as u64))?;
        let mut numbers = Vec::with_capacity((to - from) / 4);
        let mut piece = vec![0; PIECE];
        let mut left = to - from;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE)];
            self.file.read_exact(piece)?;
            numbers.extend(piece.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            left -= piece.len();
        }
        Ok(numbers)
    }
}
