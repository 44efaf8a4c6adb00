//! The commands: one file for each family. The only floor, with `app`, that may print and use `anyhow`.

#[cfg(feature = "candle")]
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A cost-aware gateway for fine-tuned language models.
#[derive(Parser)]
#[command(name = "tunegate", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve one model file over OpenAI's API (the local backend).
    #[cfg(feature = "candle")]
    Worker(worker::Options),
}

/// Parses the arguments, runs the command and says how it ended.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        #[cfg(feature = "candle")]
        Command::Worker(options) => worker::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn fail(error: &anyhow::Error) {
    eprintln!("tunegate: {error:#}");
}
