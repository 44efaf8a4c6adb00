//! From the tensors of a file to matrices ready to multiply.

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use half::f16;

use crate::gguf::{Format, Gguf, GgufError, RawTensor};
use crate::kernels::{BLOCK, Packed, Packing};

/// Reads and packs the matrix `name`. Types without a kernel become `Q8_0`, which costs memory, not quality.
pub(crate) fn matrix(gguf: &mut Gguf, name: &str, rows: usize, columns: usize) -> Result<Packed, GgufError> {
    let tensor = gguf.tensor(name, rows, columns)?;
    if !columns.is_multiple_of(BLOCK) {
        return Err(GgufError::Unsupported(format!("rows of {name} are no multiple of {BLOCK}")));
    }
    Ok(match tensor.format {
        Format::Q4_1 => Packed::new(Packing::Q4_1, rows, columns, &tensor.bytes),
        Format::Q8_0 => Packed::new(Packing::Q8_0, rows, columns, &tensor.bytes),
        _ => Packed::new(Packing::Q8_0, rows, columns, &quantize(&numbers(name, &tensor)?)),
    })
}

/// Reads the vector `name` in full precision.
pub(crate) fn vector(gguf: &mut Gguf, name: &str, length: usize) -> Result<Vec<f32>, GgufError> {
    let tensor = gguf.tensor(name, 1, length)?;
    numbers(name, &tensor)
}

/// Returns the tensor's numbers, row by row.
pub(crate) fn numbers(name: &str, tensor: &RawTensor) -> Result<Vec<f32>, GgufError> {
    let pairs = tensor.bytes.as_chunks::<2>().0;
    let kind = match tensor.format {
        Format::F32 => {
            return Ok(tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
        }
        Format::F16 => return Ok(pairs.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Format::Bf16 => {
            return Ok(pairs.iter().map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect());
        }
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q2K => GgmlDType::Q2K,
        Format::Q3K => GgmlDType::Q3K,
        Format::Q4K => GgmlDType::Q4K,
        Format::Q5K => GgmlDType::Q5K,
        Format::Q6K => GgmlDType::Q6K,
    };
    let shape = vec![tensor.rows, tensor.columns];
    // The block sizes of `Format` are candle's (a test holds that), so the bytes suffice.
    qtensor_from_ggml(kind, &tensor.bytes, shape, &Device::Cpu)
        .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1())
        .map_err(|error| GgufError::Malformed(format!("the tensor {name}: {error}")))
}

/// Rounds rows of whole blocks to `Q8_0`: an f16 scale and 32 signed bytes a block.
pub(crate) fn quantize(numbers: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(numbers.len() / BLOCK * 34);
    for block in numbers.as_chunks::<BLOCK>().0 {
        let largest = block.iter().fold(0f32, |a, b| a.max(b.abs()));
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
        out.extend(scale.to_le_bytes());
        // `as` saturates, should the scale's own rounding push a number beyond 127.
        out.extend(block.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Tensor, quantized::QTensor};

    #[test]
    fn types_without_a_kernel_are_read_as_candle_reads_them() {
        let kinds = [
            (Format::Q4_0, GgmlDType::Q4_0),
            (Format::Q4_1, GgmlDType::Q4_1),
            (Format::Q5_0, GgmlDType::Q5_0),
            (Format::Q5_1, GgmlDType::Q5_1),
            (Format::Q8_0, GgmlDType::Q8_0),
            (Format::Q2K, GgmlDType::Q2K),
            (Format::Q3K, GgmlDType::Q3K),
            (Format::Q4K, GgmlDType::Q4K),
            (Format::Q5K, GgmlDType::Q5K),
            (Format::Q6K, GgmlDType::Q6K),
            (Format::F16, GgmlDType::F16),
            (Format::Bf16, GgmlDType::BF16),
            (Format::F32, GgmlDType::F32),
        ];
        let source = Tensor::randn(0f32, 1.0, (4, 512), &Device::Cpu).unwrap();
        for (format, kind) in kinds {
            let theirs = QTensor::quantize(&source, kind).unwrap();
            let tensor =
                RawTensor { format, rows: 4, columns: 512, bytes: theirs.data().unwrap().into_owned() };
            let ours = numbers("t", &tensor).unwrap();
            let theirs: Vec<f32> =
                theirs.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(ours, theirs, "{format:?}");
        }
    }

    #[test]
    fn rounding_keeps_eight_bits() {
        let numbers: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let packed = Packed::new(Packing::Q8_0, 1, 64, &quantize(&numbers));
        let mut back = vec![0.0; 64];
        packed.row(0, &mut back);
        for (a, b) in numbers.iter().zip(back) {
            assert!((a - b).abs() < 3.0 / 127.0 * 0.6);
        }
    }
}
