//! A simulated OpenAI and Azure, with the whole life of files, fine-tuning jobs and deployments, for demonstrations and
//! measurements: `cargo run --example simulated-provider -- --openai 127.0.0.1:18080 --azure 127.0.0.1:18081 --pace 2s`.
//!
//! It is the one that the tests stand on, and costs nothing. Stop it with Ctrl-C: it forgets everything.

#![expect(clippy::disallowed_methods, reason = "a simulator reads the clock")]
#![expect(clippy::panic, clippy::print_stdout, reason = "a tool for the terminal, and code that tests share")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

#[path = "../tests/support"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support {
    pub(crate) mod multipart;
    mod ports;
    pub(crate) mod provider;
    mod server;
    mod sums;
    mod wait;
}

use support::provider::tuning::Pace;
use support::provider::{SimulatedProvider, UPSTREAM_KEY};

/// A simulated OpenAI and Azure on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where OpenAI listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18080")]
    openai: SocketAddr,
    /// Where Azure listens: its data plane, its control plane and its token endpoint.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18081")]
    azure: SocketAddr,
    /// How long a file, a job or a deployment stays in each of its states, such as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pace: Duration,
}

/// `500ms`, `2s` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("no number in {text}"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        other => Err(format!("unknown unit {other:?}: ms, s or m")),
    }
}

/// The part of a configuration that uses them.
fn configuration(arguments: &Arguments) -> String {
    let Arguments { openai, azure, .. } = arguments;
    format!(
        r#"[providers.openai]
kind = "openai"
base_url = "http://{openai}/v1"
api_key = {{ env = "SIMULATED_KEY" }}

[providers.azure]
kind = "azure"
base_url = "http://{azure}"
api = "v1"
api_key = {{ env = "SIMULATED_KEY" }}

[providers.azure.training]
resource = "simulated"

[providers.azure.training.arm]
subscription_id = "00000000-0000-0000-0000-000000000000"
resource_group = "simulated"
account = "simulated"
endpoint = "http://{azure}"
poll_ms = 2000
entra = {{ kind = "client_secret", tenant_id = "any", client_id = "any", client_secret = {{ env = "SIMULATED_KEY" }}, authority = "http://{azure}" }}

[tuning]
poll_ms = 1000
poll_max_ms = 5000
"#
    )
}

fn main() {
    let arguments = Arguments::parse();
    let providers: Vec<SimulatedProvider> =
        [arguments.openai, arguments.azure].into_iter().map(SimulatedProvider::start_at).collect();
    for provider in &providers {
        provider.tuning().pace(Pace::Every(arguments.pace));
    }
    println!(
        "# A simulated OpenAI at http://{}/v1 and Azure at http://{}.",
        arguments.openai, arguments.azure
    );
    println!("# Their key is {UPSTREAM_KEY}: export SIMULATED_KEY={UPSTREAM_KEY}. For the configuration:\n");
    println!("{}", configuration(&arguments));
    println!(
        "# Jobs ask for `gpt-4.1-mini` or `azure/simulated/gpt-4.1-2025-04-14`; docs/TUNING.md has the whole flow."
    );
    loop {
        std::thread::park();
    }
}
