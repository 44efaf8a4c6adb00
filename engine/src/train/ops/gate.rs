//! The gate of the feed-forward part.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Real, for_its_kind, numbers};

/// `y = silu(gate) · up`, number by number.
pub(in crate::train) struct Gated;

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(gate, forward(gate, gate_layout, up, up_layout))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let both = gate.apply_op3_no_bwd(up, &gradient.contiguous()?, &Backward)?;
        Ok((Some(both.get(0)?), Some(both.get(1)?)))
    }
}

fn forward<T: Real>(
    gate: &CpuStorage,
    gate_layout: &Layout,
    up: &CpuStorage,
    up_layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (gate, up) = (numbers::<T>(gate, gate_layout)?, numbers::<T>(up, up_layout)?);
    let y = gate.iter().zip(up).map(|(gate, up)| *gate * open(*gate) * *up).collect();
    Ok((T::to_cpu_storage_owned(y), gate_layout.shape().clone()))
}

/// Returns how far the gate is open: the logistic function.
fn open<T: Real>(gate: T) -> T {
    T::one() / (T::one() + (T::zero() - gate).exp())
}

/// The gradients of gate and up, one behind the other.
struct Backward;

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "gated, backward"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(gate, backward([(gate, gate_layout), (up, up_layout), (gradient, gradient_layout)]))
    }
}

fn backward<T: Real>([gate, up, gradient]: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
    let shape: Vec<usize> = [&[2], gate.1.dims()].concat();
    let (gate, up) = (numbers::<T>(gate.0, gate.1)?, numbers::<T>(up.0, up.1)?);
    let gradient = numbers::<T>(gradient.0, gradient.1)?;
    let mut slopes = vec![T::zero(); 2 * gate.len()];
    let (gates, ups) = slopes.split_at_mut(gate.len());
    for (index, (gate, up)) in gate.iter().zip(up).enumerate() {
        let open = open(*gate);
        let silu = *gate * open;
        gates[index] = gradient[index] * *up * (open + silu * (T::one() - open));
        ups[index] = gradient[index] * silu;
    }
    Ok((T::to_cpu_storage_owned(slopes), Shape::from(shape)))
}
