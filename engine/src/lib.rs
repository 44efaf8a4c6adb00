//! The forward pass of the local worker and its training: pure computation, no HTTP, no clock, no global state.
//!
//! It is a package of its own so that debug builds can compile it optimised while the rest of tunegate
//! stays quick to build. candle reads and converts the quantised types; the multiplication is ours, because
//! candle has no SIMD for the `Q4_1` files we serve and none for rows that are not a multiple of 256 long.
//!
//! * [`gguf`]: one model file, read with suspicion;
//! * [`Engine`]: many sequences in one step, prompt chunks and decode steps mixed;
//! * [`adapter`]: fine-tunes as thin matrices beside the model's, one for each sequence if need be;
//! * [`Cache`]: what one sequence remembers, in 16 bits;
//! * [`Encoder`]: texts to vectors, with a BERT-like model in full precision;
//! * [`Sampler`]: from logits to one token, the same one for the same seed;
//! * [`train`]: an adapter for the model, step by step, resumable to the bit;
//! * [`Pool`]: as many threads as the caller allows, and none that spins for long.
//!
//! A sequence's logits depend neither on its neighbours in a step nor on how its prompt was cut into chunks:
//! every row is computed by the same operations in the same order, so a seed gives the same answer on a
//! busy machine as on an idle one. (Machines with and without AVX-512 differ in the last bits.)

pub mod adapter;
mod attention;
mod cache;
mod encoder;
mod forward;
pub mod gguf;
mod kernels;
mod pool;
mod random;
mod sampler;
mod tensors;
#[cfg(test)]
mod tiny;
pub mod train;
mod weights;

pub use adapter::Adapter;
pub use cache::Cache;
pub use encoder::{EncodeError, Encoder, EncoderError};
pub use forward::{Engine, ForwardError, Item, Wanted};
pub use gguf::{Gguf, GgufError, Shape};
pub use kernels::Activation;
pub use pool::Pool;
pub use sampler::{Sampler, Sampling};
