//! The operations of the training graph, each with a backward pass of its own.
//!
//! candle's fused norm, softmax and rotation and all its quantised products run without one and cut the graph in
//! silence, and its plain matrix product differentiates frozen weights too, and keeps what it found. These do neither:
//! every operation gives a gradient to every argument that may be trained, and to no other.

mod attention;
mod gate;
mod linear;
mod norm;
mod seed;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor, WithDType};

use crate::kernels::frozen::Number;

pub(super) use attention::{Angles, Attention};
pub(super) use gate::Gated;
pub(super) use linear::{Adapted, Dropout, Linear, Weight};
pub(super) use norm::Norm;
pub(super) use seed::Seed;

/// A kind of number that is computed in: f32 for training, f64 where gradients are checked.
pub(super) trait Real: WithDType + Number {
    /// Returns e to this power.
    fn exp(self) -> Self;
    /// Returns the square root.
    fn sqrt(self) -> Self;
}

impl Real for f32 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn exp(self) -> Self {
        self.exp()
    }

    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

/// Calls a function that is generic over [`Real`] with the kind of number that a storage holds.
macro_rules! for_its_kind {
    ($storage:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => $function::<f32>($($argument),*),
            candle_core::CpuStorage::F64(_) => $function::<f64>($($argument),*),
            _ => candle_core::bail!("training computes in f32 or f64 only"),
        }
    };
}

use for_its_kind;

/// Returns the numbers of an argument, which must lie one behind the other.
fn numbers<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        candle_core::bail!("an argument's numbers are not in their order")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[from..to])
}

/// Returns an argument as a tensor outside of the graph.
fn tensor(storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    fn copy<T: Real>(storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
        Tensor::from_slice(numbers::<T>(storage, layout)?, layout.shape(), &Device::Cpu)
    }
    for_its_kind!(storage, copy(storage, layout))
}

/// Returns a result's numbers and shape, as candle wants them of an operation.
fn result(tensor: &Tensor) -> Result<(CpuStorage, candle_core::Shape)> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(numbers) if layout.start_offset() == 0 => Ok((numbers.clone(), layout.shape().clone())),
        _ => candle_core::bail!("a result is not where it should be"),
    }
}

#[cfg(test)]
mod tests;
