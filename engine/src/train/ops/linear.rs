//! Linear layers whose matrix is frozen, with a low-rank pair beside it or without.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Real, for_its_kind, numbers, tensor};
use crate::kernels::frozen::Frozen;
use crate::pool::Pool;
use crate::random::Random;

/// A frozen matrix and the threads that multiply it.
pub(in crate::train) struct Weight<T> {
    matrix: Frozen<T>,
    pool: Arc<Mutex<Pool>>,
}

impl<T: Real> Weight<T> {
    /// Packs rows of `inputs` numbers, a row an output.
    pub(in crate::train) fn new(inputs: usize, rows: &[T], pool: &Arc<Mutex<Pool>>) -> Self {
        Self { matrix: Frozen::new(inputs, rows), pool: Arc::clone(pool) }
    }

    /// Returns row `output`: a token's embedding.
    pub(in crate::train) fn row(&self, output: usize) -> impl Iterator<Item = T> {
        self.matrix.row(output)
    }

    /// Returns the outputs.
    pub(in crate::train) fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// Returns `x · Wᵀ`.
    pub(in crate::train) fn forth(&self, x: &[T]) -> Vec<T> {
        // A pool is whole again after a panic, so its lock may be taken all the same.
        self.matrix.forth(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner), x)
    }

    /// Returns `g · W`.
    pub(in crate::train) fn back(&self, gradient: &[T]) -> Vec<T> {
        self.matrix.back(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner), gradient)
    }
}

/// `y = x · Wᵀ`: a gradient for `x` only.
pub(in crate::train) struct Linear<T> {
    /// The matrix.
    pub(in crate::train) weight: Arc<Weight<T>>,
}

impl<T: Real> CustomOp1 for Linear<T> {
    fn name(&self) -> &'static str {
        "frozen linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.weight.forth(numbers::<T>(x, layout)?);
        Ok((T::to_cpu_storage_owned(y), Shape::from((layout.shape().dims2()?.0, self.weight.outputs()))))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(back(&self.weight, gradient)?))
    }
}

/// Returns `g · W`.
fn back<T: Real>(weight: &Arc<Weight<T>>, gradient: &Tensor) -> Result<Tensor> {
    gradient.contiguous()?.apply_op1_no_bwd(&Back { weight: Arc::clone(weight) })
}

/// The gradient of `x` from that of `x · Wᵀ`.
struct Back<T> {
    weight: Arc<Weight<T>>,
}

impl<T: Real> CustomOp1 for Back<T> {
    fn name(&self) -> &'static str {
        "frozen linear, backward"
    }

    fn cpu_fwd(&self, gradient: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let slopes = self.weight.back(numbers::<T>(gradient, layout)?);
        Ok((
            T::to_cpu_storage_owned(slopes),
            Shape::from((layout.shape().dims2()?.0, self.weight.matrix.inputs())),
        ))
    }
}

/// `y = x · Wᵀ + scale · (drop(x) · Aᵀ) · Bᵀ`: gradients for `x`, `A` and `B`.
pub(in crate::train) struct Adapted<T> {
    /// The frozen matrix.
    pub(in crate::train) weight: Arc<Weight<T>>,
    /// What the pair's answer is multiplied with.
    pub(in crate::train) scale: f64,
    /// What the pair does not see in this step.
    pub(in crate::train) dropout: Option<Dropout>,
}

impl<T> Adapted<T> {
    fn seen(&self, x: &Tensor) -> Result<Tensor> {
        match &self.dropout {
            None => Ok(x.clone()),
            Some(dropout) => x.contiguous()?.apply_op1_no_bwd(dropout),
        }
    }
}

impl<T: Real> CustomOp3 for Adapted<T> {
    fn name(&self) -> &'static str {
        "adapted linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut y = self.weight.forth(numbers::<T>(x, x_layout)?);
        let (x, a, b) = (tensor(x, x_layout)?, tensor(a, a_layout)?, tensor(b, b_layout)?);
        let narrow = (self.seen(&x)?.matmul(&a.t()?)? * self.scale)?;
        let beside = narrow.matmul(&b.t()?)?;
        for (y, beside) in y.iter_mut().zip(beside.flatten_all()?.to_vec1::<T>()?) {
            *y += beside;
        }
        Ok((T::to_cpu_storage_owned(y), beside.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let trained = x.track_op();
        // Detached, or the backward pass would lay a graph of its own behind every product.
        let (x, a, b) = (x.detach(), a.detach(), b.detach());
        let seen = self.seen(&x)?;
        let narrow = (seen.matmul(&a.t()?)? * self.scale)?;
        let narrow_gradient = (gradient.matmul(&b)? * self.scale)?;
        let for_a = narrow_gradient.t()?.matmul(&seen)?;
        let for_b = gradient.t()?.matmul(&narrow)?;
        // What comes straight from the embedding needs no gradient.
        let for_x = if trained {
            let beside = self.seen(&narrow_gradient.matmul(&a)?)?;
            Some((back(&self.weight, gradient)? + beside)?)
        } else {
            None
        };
        Ok((for_x, Some(for_a), Some(for_b)))
    }
}

/// Sets numbers to zero by chance and makes up for it in the others; the same ones whenever it is asked.
#[derive(Clone, Copy)]
pub(in crate::train) struct Dropout {
    /// The share that is set to zero, from 0 up to 1.
    pub(in crate::train) rate: f64,
    /// What the chance comes from.
    pub(in crate::train) seed: u64,
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn drop<T: Real>(dropout: &Dropout, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
            let mut random = Random::new(dropout.seed);
            let kept = T::from_f64(1.0 / (1.0 - dropout.rate));
            let drop = |x: &T| if random.unit() < dropout.rate { T::zero() } else { *x * kept };
            let y = numbers::<T>(x, layout)?.iter().map(drop).collect();
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        }
        for_its_kind!(x, drop(self, x, layout))
    }
}
