//! The forward pass of the local worker: pure computation, no HTTP, no clock, no global state.
//!
//! It is a package of its own so that debug builds can compile it optimised while the rest of tunegate
//! stays quick to build. candle reads and converts the quantised types; the multiplication is ours, because
//! candle has no SIMD for the `Q4_1` files we serve and none for rows that are not a multiple of 256 long.
//!
//! * [`gguf`]: one model file, read with suspicion;
//! * [`Engine`]: many sequences in one step, prompt chunks and decode steps mixed;
//! * [`Cache`]: what one sequence remembers, in 16 bits;
//! * [`Encoder`]: texts to vectors, with a BERT-like model in full precision;
//! * [`Sampler`]: from logits to one token, the same one for the same seed;
//! * [`Pool`]: as many threads as the caller allows, and none that spins for long.
//!
//! A sequence's logits depend neither on its neighbours in a step nor on how its prompt was cut into chunks:
//! every row is computed by the same operations in the same order, so a seed gives the same answer on a
//! busy machine as on an idle one. (Machines with and without AVX-512 differ in the last bits.)

mod attention;
mod cache;
mod encoder;
mod forward;
pub mod gguf;
mod kernels;
mod pool;
mod sampler;
mod weights;

pub use cache::Cache;
pub use encoder::{EncodeError, Encoder, EncoderError};
pub use forward::{Engine, ForwardError, Item};
pub use gguf::{Gguf, GgufError, Shape};
pub use kernels::Activation;
pub use pool::Pool;
pub use sampler::{Sampler, Sampling};
