//! One binary for all tests that go through a door; modules mirror the endpoints.

#[cfg(test)]
#[cfg(feature = "candle")]
mod worker;
