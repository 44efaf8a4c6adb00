//! `tunegate dataset`: training files, checked and repaired. Offline, but for `augment` and for
//! what is made of kept traffic, which ask the running gateway.

mod augment;
mod check;
mod new_file;
mod repair;
mod traffic;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::progress::{Line, bar};

/// Options of `tunegate dataset`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say what is wrong with a training file, and what it would cost. Exit code 1 when a provider would refuse it.
    Check(check::Options),
    /// Make a training file and a validation file of one; rows with the same prompt stay together.
    Split {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The share of the rows that goes into the validation file.
        #[arg(long, value_name = "SHARE", default_value = "0.1")]
        validation: f64,
        /// Draws the rows: the same one draws the same rows again.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        seed: u64,
        /// The new training file.
        #[arg(long, value_name = "FILE")]
        training_out: PathBuf,
        /// The new validation file.
        #[arg(long, value_name = "FILE")]
        validation_out: PathBuf,
    },
    /// Drop rows that repeat an earlier one.
    Dedupe {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also drop rows that say nearly the same.
        #[arg(long)]
        near: bool,
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put words such as `[EMAIL]` in the place of personal data and keys.
    Mask {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Bring rows of older forms into today's: functions to tools, completions to chats.
    Convert {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The words of the system that all rows get; an empty file takes them out.
        #[arg(long, value_name = "FILE")]
        system_prompt_file: Option<PathBuf>,
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Add rows in which the user says the same in other words, as a model of the gateway puts it.
    ///
    /// Asks the running gateway, whose key pays for it. The new rows are listed in FILE.augmented.json beside the new file.
    Augment(augment::Options),
    /// Make a training file of traffic that is kept (`capture` of a model), and store it in the gateway.
    ///
    /// Asks the running gateway. docs/DISTIL.md has the whole way from an ending model to its successor.
    FromTraffic(traffic::FromTraffic),
    /// Show how much traffic is kept, and what people thought of it. Asks the running gateway.
    Captured(traffic::Captured),
    /// Delete kept traffic: that of which all that is given is true. Asks the running gateway.
    Forget(traffic::Forget),
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    match &options.action {
        Action::Check(options) => check::run(options),
        Action::Split { file, validation, seed, training_out, validation_out } => {
            repair::split(file, *validation, *seed, training_out, validation_out)
        }
        Action::Dedupe { file, near, out } => repair::dedupe(file, *near, out),
        Action::Mask { file, out } => repair::mask(file, out),
        Action::Convert { file, system_prompt_file, out } => {
            repair::convert(file, system_prompt_file.as_deref(), out)
        }
        Action::Augment(options) => augment::run(options),
        Action::FromTraffic(options) => traffic::from_traffic(options),
        Action::Captured(options) => traffic::captured(options),
        Action::Forget(options) => traffic::forget(options),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("{} can't be read", path.display()))
}

/// `1,234` and a word, in the plural where there is not one.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Digits in groups of three: `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How far a long run has come, on a terminal.
struct Progress {
    total: u64,
    line: Line,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total: total.max(1), line: Line::new(io::stderr().is_terminal()) }
    }

    fn tell(&self, done: u64) {
        const WIDTH: u64 = 40;
        let percent = done.min(self.total) * 100 / self.total;
        self.line.draw(&format!("{} {percent:>3} %", bar(done, self.total, WIDTH)));
    }
}

/// A source that tells how far it was read.
struct Watched<'p> {
    source: File,
    progress: &'p Progress,
    done: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.done += read as u64;
        self.progress.tell(self.done);
        Ok(read)
    }
}
