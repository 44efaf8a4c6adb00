//! What the provider charges: its own price list, apart from ours.

/// Nano-dollars for each token of input and of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) input_nanos: u64,
    pub(crate) output_nanos: u64,
}

/// The list: the longest name that a model's name begins with has its price. USD per 1M tokens × 1,000, from the
/// providers' own pages.
const LIST: [(&str, Price); 7] = [
    ("ft:gpt-3.5-turbo", Price { input_nanos: 3_000, output_nanos: 6_000 }),
    ("ft:gpt-4o-mini-2024-07-18:", Price { input_nanos: 300, output_nanos: 1_200 }),
    ("ft:gpt-4.1-mini-2025-04-14:", Price { input_nanos: 800, output_nanos: 3_200 }),
    ("gpt-4.1-mini", Price { input_nanos: 400, output_nanos: 1_600 }),
    ("o4-mini", Price { input_nanos: 1_100, output_nanos: 4_400 }),
    ("acme-embeddings", Price { input_nanos: 20, output_nanos: 0 }),
    ("support-eu", Price { input_nanos: 400, output_nanos: 1_600 }),
];

/// The price of a model, if it is on the list.
pub(super) fn listed(model: &str) -> Option<Price> {
    let named = LIST.iter().filter(|(name, _)| model.starts_with(name));
    named.max_by_key(|(name, _)| name.len()).map(|(_, price)| *price)
}

impl Price {
    /// What so many tokens cost, nano-dollars.
    pub(crate) const fn of(self, prompt: u64, completion: u64) -> u64 {
        prompt * self.input_nanos + completion * self.output_nanos
    }
}
