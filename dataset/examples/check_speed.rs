//! Megabytes a second of the check: `speed FILE… [--mib N]`; rows are made of the paragraphs of text files, until there are
//! N MiB (64).
//!
//! Run it with `--release`. Prints the better of two rounds, by encoding, and the most memory that the process had.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a stopwatch for people")]

use std::error::Error;
use std::io::{Empty, Write as _};
use std::time::Instant;

use tiktoken_rs::{cl100k_base_singleton, o200k_base_singleton};
use tunegate_dataset::pieces::{PieceCounter, Split};
use tunegate_dataset::{Options, check, hash};

fn cl100k(piece: &str) -> usize {
    cl100k_base_singleton().count_ordinary(piece)
}

fn o200k(piece: &str) -> usize {
    o200k_base_singleton().count_ordinary(piece)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mib = arguments.iter().position(|word| word == "--mib").map(|at| arguments[at + 1].parse::<usize>());
    let files = arguments.split(|word| word == "--mib").next().unwrap_or_default();
    let rows = rows(files, mib.transpose()?.unwrap_or(64) << 20)?;
    println!("{} rows, {} MiB", rows.iter().filter(|byte| **byte == b'\n').count(), rows.len() >> 20);
    for (name, split) in [("o200k", Split::O200k), ("cl100k", Split::Cl100k)] {
        let count = match split {
            Split::O200k => o200k as fn(&str) -> usize,
            Split::Cl100k => cl100k,
        };
        count("the tables are built before");
        for fast in [true, false] {
            let mut best = 0.0_f64;
            for _ in 0..2 {
                let counter = PieceCounter::new(split, count);
                let options = Options { fast, ..Options::default() };
                let start = Instant::now();
                let report = check(rows.as_slice(), None::<Empty>, &options, &counter, &mut |_| {})?;
                best = best.max(rows.len() as f64 / 1e6 / start.elapsed().as_secs_f64());
                assert_eq!(report.error_count, 0, "{:?}", report.errors.first());
            }
            let what = if fast { "--fast" } else { "all checks" };
            println!("{name}, {what}: {best:.1} MB/s");
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}

/// Chats of paragraphs drawn from the files.
fn rows(files: &[String], bytes: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut paragraphs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)?;
        let own = text.split("\n\n").filter(|paragraph| paragraph.len() > 40).map(str::to_owned);
        paragraphs.extend(own);
    }
    let mut rows = Vec::with_capacity(bytes + (1 << 20));
    let mut drawn = 0;
    while rows.len() < bytes {
        let mut draw = || {
            drawn += 1;
            &paragraphs[(hash::mix(1, drawn) % paragraphs.len() as u64) as usize]
        };
        let row = serde_json::json!({"messages": [
            {"role": "system", "content": "You answer questions about a gateway."},
            {"role": "user", "content": draw()},
            {"role": "assistant", "content": format!("{} {}", draw(), draw())},
        ]});
        writeln!(rows, "{row}")?;
    }
    Ok(rows)
}
