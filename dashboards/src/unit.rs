//! Units of panels: a closed list, so that no panel has an id that Grafana does not know.

/// What a number is, as Grafana formats it.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// US dollars.
    Usd,
    /// Seconds; Grafana shows ms, min or h where that reads better.
    Seconds,
    /// Whole days.
    Days,
    /// A share from 0 to 1, shown in percent.
    Share,
    /// A factor: 2 is twice as much.
    Times,
    /// Requests a second.
    RequestsPerSecond,
    /// Anything else a second.
    PerSecond,
    /// Tokens a second.
    TokensPerSecond,
    /// Tokens.
    Tokens,
    /// Bytes, by 1024.
    Bytes,
    /// Processor cores.
    Cores,
    /// A number of things.
    Count,
    /// A state, shown by its mapping.
    State,
}

impl Unit {
    /// Returns the id by which Grafana knows it (@grafana/data, `valueFormats/categories`), or a free suffix.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Unit::Usd => "currencyUSD",
            Unit::Seconds => "s",
            Unit::Days => "d",
            Unit::Share => "percentunit",
            Unit::Times => "suffix:×",
            Unit::RequestsPerSecond => "reqps",
            Unit::PerSecond => "cps",
            Unit::TokensPerSecond => "suffix: tok/s",
            Unit::Tokens => "suffix: tok",
            Unit::Bytes => "bytes",
            Unit::Cores => "suffix: cores",
            Unit::Count => "short",
            Unit::State => "none",
        }
    }
}
