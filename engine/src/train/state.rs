//! A training on disk: all that a later process needs to go on as if nothing had been.
//!
//! One file, put in place by one rename, so there is always a whole one. Chance is drawn from the seed and the step's
//! number, so there is no more of it to keep than that number.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use super::optimizer::Moments;
use super::{Settings, TrainError, Trainer};
use crate::adapter::LoraWeights;
use crate::gguf::Gguf;

/// The file's name in its folder.
const NAME: &str = "training.safetensors";
/// What a file says it is.
const KIND: &str = "tunegate training 1";
/// The longest that a file may be beside its numbers: its header, with the names of the tensors.
const MOST_HEADER_BYTES: usize = 8 << 20;

impl Trainer {
    /// Writes all that is needed to go on into `folder`, which is made where it is missing.
    ///
    /// Whoever is stopped on the way leaves the state of before.
    ///
    /// # Errors
    /// If it cannot be written; the state of before is then still there.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        fs::create_dir_all(folder)?;
        let mut tensors: Vec<(String, &[f32])> = Vec::new();
        for (name, tensor) in named(&self.weights) {
            tensors.push((format!("{name}.weight"), tensor));
        }
        for ((name, _), moments) in named(&self.weights).zip(&self.moments) {
            tensors.push((format!("{name}.first"), &moments.first));
            tensors.push((format!("{name}.second"), &moments.second));
        }
        for (name, tensor) in self.reference.iter().flat_map(named) {
            tensors.push((format!("{name}.reference"), tensor));
        }
        let bytes: Vec<(String, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, numbers)| (name, numbers.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(name, bytes)| {
            Ok((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(unsound)?))
        });
        let views: Vec<_> = views.collect::<Result<_, TrainError>>()?;
        let about = HashMap::from([
            ("kind".to_owned(), KIND.to_owned()),
            ("step".to_owned(), self.step.to_string()),
            ("training".to_owned(), self.identity()),
        ]);
        replace(folder, &safetensors::serialize(views, Some(about)).map_err(unsound)?)
    }

    /// Goes on with a training that was saved in `folder`.
    ///
    /// # Errors
    /// If there is none, it is broken, or it is of other settings or a model of another shape.
    pub fn resume(gguf: &mut Gguf, settings: Settings, folder: &Path) -> Result<Self, TrainError> {
        let mut trainer = Self::new(gguf, settings, None)?;
        let numbers: usize = trainer.moments.iter().map(|moments| moments.first.len()).sum();
        let bytes = read(&folder.join(NAME), numbers * 4 * 4 + MOST_HEADER_BYTES)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unsound)?;
        let about = header.metadata().as_ref();
        let about = |key: &str| about.and_then(|about| about.get(key)).map_or("", String::as_str);
        if about("kind") != KIND {
            return Err(TrainError::State(format!("it is not a {KIND}")));
        }
        let (ours, theirs) = (trainer.identity(), about("training"));
        if ours != theirs {
            return Err(TrainError::State(format!("it is of the training {theirs}, not {ours}")));
        }
        let step = about("step").parse();
        trainer.step = step.map_err(|_| TrainError::State("its step is not a number".to_owned()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(unsound)?;
        if tensors.names().iter().any(|name| name.ends_with(".reference")) {
            let mut reference = trainer.weights.clone();
            fill(&tensors, "reference", &mut reference)?;
            trainer.reference = Some(reference);
        }
        fill(&tensors, "weight", &mut trainer.weights)?;
        let names: Vec<String> = named(&trainer.weights).map(|(name, _)| name).collect();
        for (name, Moments { first, second }) in names.iter().zip(&mut trainer.moments) {
            put(&tensors, &format!("{name}.first"), first)?;
            put(&tensors, &format!("{name}.second"), second)?;
        }
        Ok(trainer)
    }

    /// Returns what two trainings have in common if one may go on with what the other saved.
    fn identity(&self) -> String {
        let shape = &self.base.shape;
        json!({
            "settings": self.settings.named(),
            "model": {
                "width": shape.width, "hidden": shape.hidden, "layers": shape.layers, "heads": shape.heads,
                "kv_heads": shape.kv_heads, "vocabulary": shape.vocabulary,
            },
        })
        .to_string()
    }
}

/// Returns every tensor of an adapter with its name, in the order of the pairs, A before B.
fn named(weights: &LoraWeights) -> impl Iterator<Item = (String, &[f32])> {
    weights.pairs.iter().flat_map(|pair| {
        let name = format!("{}.{}", pair.layer, pair.target.name());
        [(format!("{name}.a"), &pair.a[..]), (format!("{name}.b"), &pair.b[..])]
    })
}

/// Reads the tensors that are called so into an adapter.
fn fill(tensors: &SafeTensors<'_>, what: &str, weights: &mut LoraWeights) -> Result<(), TrainError> {
    for pair in &mut weights.pairs {
        let name = format!("{}.{}", pair.layer, pair.target.name());
        put(tensors, &format!("{name}.a.{what}"), &mut pair.a)?;
        put(tensors, &format!("{name}.b.{what}"), &mut pair.b)?;
    }
    Ok(())
}

/// Reads a tensor over the numbers that are there, as many as it must have.
fn put(tensors: &SafeTensors<'_>, name: &str, numbers: &mut [f32]) -> Result<(), TrainError> {
    let tensor = tensors.tensor(name).map_err(unsound)?;
    if tensor.dtype() != Dtype::F32 || tensor.data().len() != numbers.len() * 4 {
        return Err(TrainError::State(format!("its {name} is not {} numbers", numbers.len())));
    }
    for (number, bytes) in numbers.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
        *number = f32::from_le_bytes(*bytes);
    }
    Ok(())
}

/// Reads a file that may be so long at most.
fn read(path: &Path, most: usize) -> Result<Vec<u8>, TrainError> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(TrainError::State(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Puts the file in place of the one before.
fn replace(folder: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = folder.join(format!("{NAME}.partial"));
    let written = (|| {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, folder.join(NAME))
    })();
    if let Err(error) = written {
        // On a full disk, half a state would take the room of what has to be said about it.
        let _ = fs::remove_file(&partial);
        return Err(error.into());
    }
    // The rename itself is on disk only when the folder is.
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unsound(error: safetensors::SafeTensorError) -> TrainError {
    TrainError::State(error.to_string())
}
