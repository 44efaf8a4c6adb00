//! Log lines: to stderr, as text or JSON. Pingora and sqlx speak through `log`; their lines come here too, from
//! warnings up.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Libraries whose own news is of no use to an operator.
const QUIET: &str = "pingora=warn,sqlx=warn,h2=warn,rustls=warn";

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How lines are written.
    pub format: Format,
    /// A level, or a filter such as `info,tunegate=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, filter: "info".to_owned() }
    }
}

/// Why logging can't begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error("no log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else has begun it.
    #[error("logging has begun already: {0}")]
    Begun(#[from] tracing_subscriber::util::TryInitError),
}

/// Says why a text is no filter.
pub fn check_filter(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("empty".to_owned());
    }
    filter(text).map(drop).map_err(|error| format!("{text:?} is no log filter ({error})"))
}

/// Sends all log lines of this process to stderr, from now on.
pub fn init(config: &Config) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        Format::Text => lines.finish().try_init()?,
        Format::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// The operator's filter over our own: theirs wins where both speak of the same library. A bare `error` or `off`
/// stays as quiet as it says.
fn filter(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let text = text.trim();
    let quieter_than_ours = matches!(text.to_ascii_lowercase().as_str(), "error" | "off");
    let directives = if quieter_than_ours { text.to_owned() } else { format!("{QUIET},{text}") };
    EnvFilter::builder().parse(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters() {
        for (text, good) in [
            ("info", true),
            ("WARN", true),
            ("off", true),
            ("info,tunegate=debug,pingora_core=trace", true),
            ("", false),
            ("tunegate=loud", false),
        ] {
            assert_eq!(check_filter(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_asked() {
        for (text, directives) in [
            ("error", "error"),
            ("debug", "pingora=warn,sqlx=warn,rustls=warn,h2=warn,debug"),
            ("info,sqlx=debug", "pingora=warn,sqlx=debug,rustls=warn,h2=warn,info"),
        ] {
            let written = filter(text).expect(text).to_string();
            let sorted = |text: &str| {
                let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(sorted(&written), sorted(directives), "{text}");
        }
    }
}
