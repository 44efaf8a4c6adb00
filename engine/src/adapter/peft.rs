//! Adapters on disk, as PEFT has them: `adapter_config.json` and `adapter_model.safetensors` in a folder.
//!
//! A folder that comes from elsewhere is read with suspicion: what PEFT would compute otherwise than this engine is
//! refused with the name of the setting, and the tensors must be exactly those that the settings select. (Format: PEFT
//! 0.21, `tuners/lora/config.py` and `utils/save_and_load.py`.)

mod settings;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::draft::Draft;
use super::{AdapterError, AdapterLimits, LoraPair, LoraWeights, Target};
use crate::gguf::Shape;
use crate::tensors::{Tensors, TensorsError};
use settings::Settings;

/// The file of the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file of the numbers.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The file of the numbers that PEFT wrote until 2023.
const PICKLE_FILE: &str = "adapter_model.bin";
/// The longest file of settings that is read; PEFT writes about 1 KiB.
const MOST_CONFIG_BYTES: u64 = 1 << 20;

impl From<TensorsError> for AdapterError {
    fn from(error: TensorsError) -> Self {
        match error {
            TensorsError::Io(error) => Self::Io(error),
            TensorsError::Malformed(why) => Self::Malformed(format!("{WEIGHTS_FILE}: {why}")),
            TensorsError::Unsupported(why) => Self::Unsupported(format!("{WEIGHTS_FILE}: {why}")),
        }
    }
}

/// Which of a pair's two matrices.
#[derive(Clone, Copy)]
enum Side {
    A,
    B,
}

/// Reads the adapter in `folder` for a model of this shape.
///
/// A layer that the settings leave out on purpose (`layers_to_transform`, a pattern, `exclude_modules`) gets zeros.
///
/// # Errors
/// If a file cannot be read, is broken, too large, made for another model, or asks for what this engine does not
/// compute.
pub fn read(folder: &Path, shape: &Shape, limits: AdapterLimits) -> Result<LoraWeights, AdapterError> {
    let settings = Settings::parse(&read_config(&folder.join(CONFIG_FILE))?)?;
    within("rank", settings.rank as u64, limits.rank as u64)?;
    let path = folder.join(WEIGHTS_FILE);
    if folder.join(PICKLE_FILE).exists() && !path.exists() {
        return Err(AdapterError::Unsupported(format!(
            "its numbers are in {PICKLE_FILE}, a pickle, which runs code when it is read: save it again with PEFT's \
             save_pretrained(safe_serialization=True), which writes {WEIGHTS_FILE}"
        )));
    }
    within("size in bytes", regular_file_size(&path)?, limits.size_bytes)?;
    let config = settings.config(shape)?;
    let mut file = Tensors::open(&path)?;
    check_names(&file.names(), &settings, shape)?;
    let mut pairs = Vec::with_capacity(shape.layers * config.targets.len());
    for layer in 0..shape.layers {
        for target in &config.targets {
            pairs.push(match settings.selects(layer, *target) {
                true => read_pair(&mut file, layer, *target, config.rank, shape)?,
                false => no_pair(layer, *target, config.rank, shape),
            });
        }
    }
    let weights = LoraWeights { config, pairs };
    weights.check(shape)?;
    Ok(weights)
}

fn within(what: &'static str, found: u64, most: u64) -> Result<(), AdapterError> {
    if found > most { Err(AdapterError::TooLarge { what, found, most }) } else { Ok(()) }
}

/// Returns the size of a file, and refuses what is none: reading a pipe would wait for ever.
fn regular_file_size(path: &Path) -> Result<u64, AdapterError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            AdapterError::Malformed(format!("there is no {name} in its folder"))
        }
        _ => error.into(),
    })?;
    if !metadata.is_file() {
        return Err(AdapterError::Malformed("one of its files is no regular file".to_owned()));
    }
    Ok(metadata.len())
}

fn read_config(path: &Path) -> Result<Vec<u8>, AdapterError> {
    within("settings in bytes", regular_file_size(path)?, MOST_CONFIG_BYTES)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_CONFIG_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fails unless the file holds both matrices of every layer that is selected, and nothing else.
fn check_names(found: &[String], settings: &Settings, shape: &Shape) -> Result<(), AdapterError> {
    let places = (0..shape.layers).flat_map(|layer| Target::ALL.map(|target| (layer, target)));
    let selected = places.filter(|(layer, target)| settings.selects(*layer, *target));
    let wanted: HashSet<String> = selected
        .flat_map(|(layer, target)| [Side::A, Side::B].map(|side| tensor_name(layer, target, side)))
        .collect();
    if let Some(stranger) = found.iter().find(|name| !wanted.contains(*name)) {
        return Err(AdapterError::Malformed(format!(
            "{WEIGHTS_FILE} holds {stranger}, which is not one of the {} tensors that its settings select in \
             a model of {} layers",
            wanted.len(),
            shape.layers
        )));
    }
    let found: HashSet<&String> = found.iter().collect();
    match wanted.iter().filter(|name| !found.contains(name)).min() {
        None => Ok(()),
        Some(missing) => Err(AdapterError::Malformed(format!("{WEIGHTS_FILE} does not hold {missing}"))),
    }
}

fn tensor_name(layer: usize, target: Target, side: Side) -> String {
    let side = match side {
        Side::A => "A",
        Side::B => "B",
    };
    format!("base_model.model.{}.lora_{side}.weight", module_name(layer, target))
}

/// Returns the name of a linear layer in Hugging Face's `LlamaForCausalLM`.
fn module_name(layer: usize, target: Target) -> String {
    format!("model.layers.{layer}.{}.{}", target.module(), target.name())
}

fn read_pair(
    file: &mut Tensors,
    layer: usize,
    target: Target,
    rank: usize,
    shape: &Shape,
) -> Result<LoraPair, AdapterError> {
    let a = file.read(&tensor_name(layer, target, Side::A), &[rank, target.width_in(shape)])?;
    let theirs = file.read(&tensor_name(layer, target, Side::B), &[target.width_out(shape), rank])?;
    let mut b = vec![0.0; theirs.len()];
    for (row, numbers) in theirs.chunks_exact(rank).enumerate() {
        b[gguf_row(row, target, shape) * rank..][..rank].copy_from_slice(numbers);
    }
    Ok(LoraPair { layer, target, a, b })
}

fn no_pair(layer: usize, target: Target, rank: usize, shape: &Shape) -> LoraPair {
    let (a, b) = (vec![0.0; rank * target.width_in(shape)], vec![0.0; rank * target.width_out(shape)]);
    LoraPair { layer, target, a, b }
}

/// Returns where GGUF has the output that Hugging Face has in row `row`.
///
/// Channels are rotated in pairs: Hugging Face keeps the first ones of all pairs of a head before the second ones, GGUF
/// keeps pairs together.
fn gguf_row(row: usize, target: Target, shape: &Shape) -> usize {
    if !target.is_rotated() {
        return row;
    }
    let (head, channel) = (row / shape.head_width, row % shape.head_width);
    let pairs = shape.head_width / 2;
    head * shape.head_width + 2 * (channel % pairs) + channel / pairs
}

/// Writes the adapter as a new folder, which must not exist yet or be empty: whole, or not at all.
///
/// # Errors
/// If the weights are not those of a model of this shape, or a file cannot be written.
pub fn write(
    folder: &Path,
    weights: &LoraWeights,
    shape: &Shape,
    base_model: &str,
) -> Result<(), AdapterError> {
    weights.check(shape)?;
    let draft = Draft::of(folder)?;
    fs::create_dir_all(draft.path())?;
    write_files(draft.path(), weights, shape, base_model)?;
    Ok(draft.publish()?)
}

fn write_files(folder: &Path, weights: &LoraWeights, shape: &Shape, base_model: &str) -> io::Result<()> {
    let mut config = File::create(folder.join(CONFIG_FILE))?;
    config.write_all(&settings::text(&weights.config, base_model)?)?;
    config.sync_all()?;
    let mut file = BufWriter::new(File::create(folder.join(WEIGHTS_FILE))?);
    write_weights(&mut file, weights, shape)?;
    file.into_inner()?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Writes the numbers as they come; safetensors' own writer goes through a file that only its owner can read.
fn write_weights(file: &mut impl Write, weights: &LoraWeights, shape: &Shape) -> io::Result<()> {
    let mut header = header(weights, shape)?;
    // The numbers begin at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let rank = weights.config.rank;
    for pair in &weights.pairs {
        write_numbers(file, &pair.a)?;
        for row in 0..pair.target.width_out(shape) {
            write_numbers(file, &pair.b[gguf_row(row, pair.target, shape) * rank..][..rank])?;
        }
    }
    Ok(())
}

fn header(weights: &LoraWeights, shape: &Shape) -> io::Result<Vec<u8>> {
    let (rank, mut end, mut tensors) = (weights.config.rank, 0, Vec::new());
    for LoraPair { layer, target, .. } in &weights.pairs {
        let sides = [(Side::A, [rank, target.width_in(shape)]), (Side::B, [target.width_out(shape), rank])];
        for (side, [rows, columns]) in sides {
            let start = end;
            end += rows * columns * size_of::<f32>();
            let (dtype, shape) = (Dtype::F32, vec![rows, columns]);
            let place = TensorInfo { dtype, shape, data_offsets: (start, end) };
            tensors.push((tensor_name(*layer, *target, side), place));
        }
    }
    // PEFT's own reader asks for the word.
    let words = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(words), tensors).map_err(io::Error::other)?;
    Ok(serde_json::to_vec(&metadata)?)
}

fn write_numbers(file: &mut impl Write, numbers: &[f32]) -> io::Result<()> {
    numbers.iter().try_for_each(|number| file.write_all(&number.to_le_bytes()))
}

#[cfg(test)]
mod tests;
