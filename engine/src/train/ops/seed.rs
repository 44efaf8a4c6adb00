//! Where a backward pass begins.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Real, for_its_kind};

/// A scalar, always 0, whose gradient is the one given: the graph behind a tensor goes backward from there.
///
/// So a long graph is gone through piece by piece, and what a piece kept is freed before the next begins.
pub(in crate::train) struct Seed {
    /// The gradient of the tensor that this is applied to, of its shape.
    pub(in crate::train) gradient: Tensor,
}

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn nothing<T: Real>() -> Result<(CpuStorage, Shape)> {
            Ok((T::to_cpu_storage_owned(vec![T::zero()]), Shape::from(())))
        }
        if layout.shape() != self.gradient.shape() {
            candle_core::bail!(
                "a gradient of the shape {:?} for {:?}",
                self.gradient.shape(),
                layout.shape()
            );
        }
        for_its_kind!(storage, nothing())
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, _one: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient.clone()))
    }
}
