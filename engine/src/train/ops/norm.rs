//! The root mean square norm.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Real, for_its_kind, numbers};

/// `y = x / rms(x) · weight`, row by row; the weight is frozen.
#[derive(Clone, Copy)]
pub(in crate::train) struct Norm {
    /// Added to the mean square before the root is taken.
    pub(in crate::train) epsilon: f64,
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(x, forward(self.epsilon, x, x_layout, weight, weight_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(x.apply_op3_no_bwd(weight, &gradient.contiguous()?, &Backward(*self))?), None))
    }
}

fn forward<T: Real>(
    epsilon: f64,
    x: &CpuStorage,
    x_layout: &Layout,
    weight: &CpuStorage,
    weight_layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (x, weight) = (numbers::<T>(x, x_layout)?, numbers::<T>(weight, weight_layout)?);
    let mut y = vec![T::zero(); x.len()];
    for (x, y) in x.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len())) {
        let scale = scale(x, epsilon);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = *x * scale * *weight;
        }
    }
    Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
}

/// Returns one by the root mean square.
fn scale<T: Real>(x: &[T], epsilon: f64) -> T {
    let square = x.iter().fold(T::zero(), |sum, x| sum + *x * *x);
    T::one() / (square / T::from_f64(x.len() as f64) + T::from_f64(epsilon)).sqrt()
}

/// The gradient of `x`, from `x`, the weight and the gradient of `y`.
struct Backward(Norm);

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        "norm, backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let arguments = [(x, x_layout), (weight, weight_layout), (gradient, gradient_layout)];
        for_its_kind!(x, backward(self.0.epsilon, arguments))
    }
}

/// With r the scale and n the width: `dx = r · (w ∘ g) − x · r³ / n · Σ (w ∘ g ∘ x)`.
fn backward<T: Real>(
    epsilon: f64,
    [x, weight, gradient]: [(&CpuStorage, &Layout); 3],
) -> Result<(CpuStorage, Shape)> {
    let shape = x.1.shape().clone();
    let (x, weight) = (numbers::<T>(x.0, x.1)?, numbers::<T>(weight.0, weight.1)?);
    let gradient = numbers::<T>(gradient.0, gradient.1)?;
    let width = weight.len();
    let mut slopes = vec![T::zero(); x.len()];
    let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
    for ((x, gradient), slopes) in rows.zip(slopes.chunks_exact_mut(width)) {
        let scale = scale(x, epsilon);
        let mut along = T::zero();
        for ((x, gradient), weight) in x.iter().zip(gradient).zip(weight) {
            along += *x * *gradient * *weight;
        }
        let along = along * scale * scale * scale / T::from_f64(width as f64);
        for (((slope, x), gradient), weight) in slopes.iter_mut().zip(x).zip(gradient).zip(weight) {
            *slope = scale * *weight * *gradient - *x * along;
        }
    }
    Ok((T::to_cpu_storage_owned(slopes), shape))
}
