//! An adapter worked into its base model: a GGUF file of its own, for servers that know no adapters.
//!
//! Only the adapted matrices are written anew, `W + s·B·A`, a few rows at a time; all else is copied byte for byte. Their
//! sum is rounded once more, so the merged model answers almost, not exactly, as base and adapter do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::f16;

use super::draft::Draft;
use super::{AdapterError, LoraPair, LoraWeights};
use crate::gguf::{Changed, Gguf, GgufError, Shape};
use crate::kernels::BLOCK;
use crate::weights::{numbers, quantize};

/// Numbers of a matrix that are held at once.
const PIECE: usize = 1 << 20;

/// How the merged matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergedFormat {
    /// Two bytes a number: nearest to base and adapter.
    F16,
    /// 34 bytes for 32 numbers: half as large, and coarser.
    Q8_0,
}

impl MergedFormat {
    /// Returns ggml's number of the type.
    const fn code(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    const fn size_bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F16 => 2 * numbers,
            Self::Q8_0 => numbers / BLOCK as u64 * 34,
        }
    }

    fn encode(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            Self::F16 => numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect(),
            Self::Q8_0 => quantize(numbers),
        }
    }
}

/// Why nothing was merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The base model can't be used.
    #[error(transparent)]
    Model(#[from] GgufError),
    /// The adapter can't be used with it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The new file cannot be written.
    #[error("cannot write the merged model: {0}")]
    Io(#[from] io::Error),
    /// A merged number is larger than its format holds.
    #[error("a number of {0} is too large for the merged model")]
    Overflow(String),
}

/// Writes `base` with the adapter worked into it as `place`, which must not exist yet: whole, or not at all.
///
/// # Errors
/// If the base model can't be read, the adapter is not for it, or the file can't be written.
pub fn merge(
    base: &Path,
    weights: &LoraWeights,
    place: &Path,
    format: MergedFormat,
) -> Result<(), MergeError> {
    let mut gguf = Gguf::open(base)?;
    let shape = Shape::read(&gguf)?;
    weights.check(&shape)?;
    let pairs: HashMap<String, &LoraPair> = weights
        .pairs
        .iter()
        .filter(|pair| pair.adds_something())
        .map(|pair| (pair.target.gguf_name(pair.layer), pair))
        .collect();
    let mut changed = HashMap::new();
    for (name, pair) in &pairs {
        let (rows, columns) = (pair.target.width_out(&shape), pair.target.width_in(&shape));
        if !columns.is_multiple_of(BLOCK) {
            return Err(GgufError::Unsupported(format!("rows of {name} are no multiple of {BLOCK}")).into());
        }
        let size = format.size_bytes((rows * columns) as u64);
        changed.insert(name.clone(), Changed { code: format.code(), size });
    }
    let draft = Draft::of(place)?;
    let mut out = BufWriter::new(File::create(draft.path())?);
    gguf.rewrite(&mut out, &changed, |gguf, name, out| {
        let pair = pairs.get(name).ok_or_else(|| GgufError::Malformed(format!("{name} has no pair")))?;
        write_merged(gguf, name, pair, weights.config.scale(), &shape, format, out)
    })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(draft.publish()?)
}

/// Writes one matrix with its pair added, some rows after the other.
fn write_merged(
    gguf: &mut Gguf,
    name: &str,
    pair: &LoraPair,
    scale: f64,
    shape: &Shape,
    format: MergedFormat,
    out: &mut dyn Write,
) -> Result<(), MergeError> {
    let (rows, columns) = (pair.target.width_out(shape), pair.target.width_in(shape));
    let rank = pair.a.len() / columns;
    let at_once = (PIECE / columns).max(1);
    for first in (0..rows).step_by(at_once) {
        let end = rows.min(first + at_once);
        let piece = gguf.rows(name, (rows, columns), first..end)?;
        let mut merged = numbers(name, &piece)?;
        for (row, b) in merged.chunks_exact_mut(columns).zip(pair.b[first * rank..].chunks_exact(rank)) {
            add_product(row, b, &pair.a, scale);
        }
        let bytes = format.encode(&merged);
        if !merged.iter().all(|number| f16::from_f32(*number).is_finite()) {
            return Err(MergeError::Overflow(name.to_owned()));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// `row += scale · b·A`
fn add_product(row: &mut [f32], b: &[f32], a: &[f32], scale: f64) {
    for (b, a) in b.iter().zip(a.chunks_exact(row.len())) {
        let factor = (scale * f64::from(*b)) as f32;
        for (number, a) in row.iter_mut().zip(a) {
            *number += factor * a;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use candle_core::quantized::GgmlDType;

    use super::*;
    use crate::adapter::tests::{SHAPE, weights};
    use crate::adapter::{Adapter, Target};
    use crate::cache::Cache;
    use crate::forward::{Engine, Item, Wanted};
    use crate::kernels::Activation;
    use crate::pool::Pool;
    use crate::tiny::{Tiny, tensors};

    /// A file that goes with the test.
    struct Merged(PathBuf);

    impl Merged {
        fn beside(tiny: &Tiny) -> Self {
            Self(tiny.path.with_extension("merged.gguf"))
        }
    }

    impl Drop for Merged {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn logits(path: &Path, adapter: Option<&LoraWeights>) -> Vec<f32> {
        let engine = Engine::load(&mut Gguf::open(path).unwrap(), Activation::Bits16).unwrap();
        let adapter = adapter.map(|weights| Adapter::new(weights, &SHAPE).unwrap());
        let mut cache = Cache::new(&SHAPE);
        let tokens: Vec<u32> = (0..20).map(|i| i * 7 % 80).collect();
        let item =
            Item { tokens: &tokens, cache: &mut cache, wanted: Wanted::Logits, adapter: adapter.as_ref() };
        let mut pool = Pool::new(std::num::NonZeroUsize::MIN).unwrap();
        engine.forward(&mut pool, &mut [item]).unwrap().pop().unwrap().unwrap()
    }

    fn gap(found: &[f32], exact: &[f32]) -> f32 {
        let square: f32 = found.iter().zip(exact).map(|(a, b)| (a - b).powi(2)).sum();
        (square / exact.iter().map(|x| x * x).sum::<f32>()).sqrt()
    }

    #[test]
    fn the_merged_model_is_base_and_adapter() {
        let weights = weights(&SHAPE, 4, &[Target::Query, Target::Key, Target::Down], 3);
        for kind in [GgmlDType::Q4_1, GgmlDType::F32] {
            for (format, most) in [(MergedFormat::F16, 1e-3), (MergedFormat::Q8_0, 2e-2)] {
                let tiny = Tiny::new(kind, 1);
                let merged = Merged::beside(&tiny);
                merge(&tiny.path, &weights, &merged.0, format).unwrap();
                let (mut old, mut new) = (tiny.open(), Gguf::open(&merged.0).unwrap());
                for (name, rows, columns) in tensors(&SHAPE) {
                    let before = old.tensor(&name, rows, columns).unwrap();
                    let after = new.tensor(&name, rows, columns).unwrap();
                    let pair = weights.pairs.iter().find(|pair| pair.target.gguf_name(pair.layer) == name);
                    let Some(pair) = pair else {
                        assert_eq!((before.format, before.bytes), (after.format, after.bytes), "{name}");
                        continue;
                    };
                    let mut exact = numbers(&name, &before).unwrap();
                    for (index, exact) in exact.iter_mut().enumerate() {
                        let (row, column) = (index / columns, index % columns);
                        *exact += (0..4)
                            .map(|r| 2.0 * pair.b[row * 4 + r] * pair.a[r * columns + column])
                            .sum::<f32>();
                    }
                    let found = gap(&numbers(&name, &after).unwrap(), &exact);
                    assert!(found < most, "{kind:?} {format:?} {name}: {found}");
                }
                // The engine rounds what is not quantised to 8 bits.
                let found = gap(&logits(&merged.0, None), &logits(&tiny.path, Some(&weights)));
                assert!(found < 0.03, "{kind:?} {format:?}: {found}");
                assert!(gap(&logits(&tiny.path, None), &logits(&tiny.path, Some(&weights))) > 0.1);
            }
        }
    }

    #[test]
    fn metadata_are_copied_and_tensors_aligned() {
        let tiny = Tiny::new(GgmlDType::Q4_1, 1);
        let merged = Merged::beside(&tiny);
        let weights = weights(&SHAPE, 2, &[Target::Up], 3);
        merge(&tiny.path, &weights, &merged.0, MergedFormat::F16).unwrap();
        let (old, new) = (fs::read(&tiny.path).unwrap(), fs::read(&merged.0).unwrap());
        let end = old.windows(17).position(|bytes| bytes == b"token_embd.weight").unwrap();
        assert_eq!(old[..end], new[..end]);
        // Two matrices of 160 × 64 in two bytes instead of 20 bytes a block of 32.
        assert_eq!(new.len(), old.len() + 2 * 160 * 64 * 2 - 2 * 160 * 64 / 32 * 20);
        assert_eq!(new.len() % 32, 0);
    }

    #[test]
    fn nothing_is_left_of_what_fails() {
        let tiny = Tiny::new(GgmlDType::Q8_0, 1);
        let merged = Merged::beside(&tiny);
        let sound = weights(&SHAPE, 2, &[Target::Up], 3);
        let mut broken = sound.clone();
        broken.pairs.pop();
        let refused = merge(&tiny.path, &broken, &merged.0, MergedFormat::F16);
        assert!(matches!(refused, Err(MergeError::Adapter(_))));
        let mut huge = sound.clone();
        huge.pairs[0].a[0] = 1e30;
        let refused = merge(&tiny.path, &huge, &merged.0, MergedFormat::Q8_0);
        assert!(matches!(refused, Err(MergeError::Overflow(name)) if name == "blk.0.ffn_up.weight"));
        let refused = merge(&tiny.path, &sound, &tiny.path, MergedFormat::F16);
        assert!(matches!(refused, Err(MergeError::Io(_))), "over its own base");
        assert!(!merged.0.exists());
        let name = merged.0.file_name().unwrap().to_str().unwrap();
        assert!(!merged.0.with_file_name(format!(".{name}.draft")).exists());
        tiny.open();
    }
}
