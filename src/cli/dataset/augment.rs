//! `tunegate dataset augment`: the user's words put otherwise by a model of the running gateway. Its answers are metered
//! like any others, and paid by the key.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tunegate_dataset::repair::{RepairError, augment};

use super::new_file::NewFile;
use super::{Progress, Watched, counted, open};
use crate::cli::admin_client::AdminClient;
use crate::cli::say;
use crate::config::{Environment as _, ProcessEnvironment};
use crate::domain::secret::Secret;

/// The environment variable of the key.
const KEY_VARIABLE: &str = "TUNEGATE_KEY";

/// Options of `tunegate dataset augment`.
#[derive(Args)]
pub(super) struct Options {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The model that finds other words, by its name at the gateway.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// New rows for each row, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    per_row: u32,
    /// Where the gateway serves applications.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// A file with a virtual key [default: the environment's TUNEGATE_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The new file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let gateway = AdminClient::of_applications(&options.gateway, key(options)?)?;
    let mut list_path = options.out.clone().into_os_string();
    list_path.push(".augmented.json");
    let (mut new, mut list) = (NewFile::create(&options.out)?, NewFile::create(list_path.as_ref())?);
    let (tokens, augmented) = {
        let source = open(&options.file)?;
        let progress = Progress::new(source.metadata()?.len());
        let source = Watched { source, progress: &progress, done: 0 };
        let tokens = Cell::new(0);
        let mut rephrase = |words: &str| {
            let (answer, used) = ask(&gateway, &options.model, words)
                .map_err(|error| RepairError::Impossible(format!("{error:#}")))?;
            tokens.set(tokens.get() + used);
            Ok(answer)
        };
        let rows = tunegate_dataset::Options::default();
        let augmented = augment::write(source, &rows, options.per_row, &mut rephrase, &mut new)?;
        (tokens.get(), augmented)
    };
    let told = json!({"model": options.model, "tokens": tokens, "rows": augmented.new});
    writeln!(list, "{told}")?;
    new.finish()?;
    list.finish()?;
    say(&format!(
        "{}: {} and {} new; {} skipped, {} not taken; {} used",
        options.out.display(),
        counted(augmented.rows, "row", "rows"),
        counted(augmented.new.len() as u64, "is", "are"),
        counted(augmented.skipped, "row was", "rows were"),
        counted(augmented.refused, "answer was", "answers were"),
        counted(tokens, "token", "tokens"),
    ));
    Ok(())
}

fn key(options: &Options) -> anyhow::Result<Secret> {
    let text = match &options.key_file {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?
        }
        None => ProcessEnvironment.get(KEY_VARIABLE).with_context(|| {
            format!("a virtual key is needed: --key-file, or {KEY_VARIABLE} in the environment")
        })?,
    };
    Ok(Secret::new(text.trim()))
}

/// The words put otherwise, and the tokens that took.
fn ask(gateway: &AdminClient, model: &str, words: &str) -> anyhow::Result<(String, u64)> {
    let body = augment::request(model, words);
    let reply = gateway.ask("POST", "/v1/chat/completions", Some(&body))?;
    if reply.status != 200 {
        bail!("the gateway did not answer ({}): {}", reply.status, reply.message());
    }
    let answer: Value = reply.read(200)?;
    let said = answer["choices"][0]["message"]["content"].as_str().context("an answer without words")?;
    Ok((said.to_owned(), answer["usage"]["total_tokens"].as_u64().unwrap_or_default()))
}
