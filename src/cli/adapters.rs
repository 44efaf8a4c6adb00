//! `tunegate adapters`: what the local worker has trained, and what comes from elsewhere or goes there. Works on the
//! worker's folder: no gateway need run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tunegate_engine::adapter::merge::{MergedFormat, merge};
use tunegate_engine::{Gguf, Shape};

use super::say;
use super::table::{Column, date, number, table, text};
use crate::clock;
use crate::worker::shelved::{self, Card};

/// Fine-tuned models on this machine's disk.
#[derive(Args)]
pub(super) struct Options {
    /// The folder of a worker's training (`--tuning-folder`); the gateway keeps it in `state.dir`/local.
    #[arg(long, value_name = "PATH", default_value = "var/local", global = true)]
    folder: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the adapters that are served beside the base model.
    List,
    /// Serve an adapter that was trained elsewhere: a folder in PEFT's form.
    ///
    /// It is checked against the model and copied; a running worker finds it within a second.
    Import(Import),
    /// Write an adapter for others: as PEFT's folder, or worked into its base model as one GGUF file.
    Export(Export),
}

#[derive(Args)]
struct Import {
    /// Holds `adapter_config.json` and `adapter_model.safetensors`.
    source: PathBuf,

    /// What requests call it, such as `ft:smollm2-135m:acme:cat:1`.
    #[arg(long, value_name = "NAME")]
    name: String,

    /// The model it was trained on, as the worker calls it.
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m")]
    base: String,

    /// The base model's GGUF file.
    #[arg(long, value_name = "PATH", default_value = "models/SmolLM2-135M-Instruct.Q4_1.gguf")]
    model_file: PathBuf,
}

#[derive(Args)]
struct Export {
    /// The adapter's name, as `list` shows it.
    name: String,

    /// Where it is written; nothing may be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,

    /// What is written.
    #[arg(long, value_name = "FORM", default_value = "peft")]
    form: Form,

    /// The base model's GGUF file, for a merged one.
    #[arg(long, value_name = "PATH", default_value = "models/SmolLM2-135M-Instruct.Q4_1.gguf")]
    model_file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// The adapter alone, in PEFT's form.
    Peft,
    /// The base model with the adapter in it, whose merged matrices have 16 bits.
    GgufF16,
    /// The same with 8 bits.
    GgufQ8,
}

/// Lists, imports or exports.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let adapters = options.folder.join("adapters");
    match &options.command {
        Command::List => list(&adapters),
        Command::Import(import) => import.run(&adapters),
        Command::Export(export) => export.run(&adapters),
    }
}

fn all(adapters: &Path) -> anyhow::Result<Vec<(Card, PathBuf)>> {
    shelved::all(adapters).with_context(|| {
        format!("{}: no folder of a worker's training; name it with --folder", adapters.display())
    })
}

fn list(adapters: &Path) -> anyhow::Result<()> {
    let row = |(card, path): (Card, PathBuf)| {
        let bytes = fs::metadata(path.join(shelved::WEIGHTS_FILE)).map_or(0, |metadata| metadata.len());
        json!({
            "name": card.name,
            "base": card.base,
            "kib": bytes >> 10,
            "created_at": card.created_at,
            "job": card.job.unwrap_or_else(|| "imported".to_owned()),
        })
    };
    let rows: Vec<Value> = all(adapters)?.into_iter().map(row).collect();
    say(&table(
        &[
            Column("NAME", |row| text(&row["name"])),
            Column("BASE", |row| text(&row["base"])),
            Column("KIB", |row| number(&row["kib"])),
            Column("CREATED", |row| date(&row["created_at"])),
            Column("JOB", |row| text(&row["job"])),
        ],
        &rows,
    ));
    Ok(())
}

impl Import {
    fn run(&self, adapters: &Path) -> anyhow::Result<()> {
        let Self { source, name, base, model_file } = self;
        let fits = name.starts_with("ft:")
            && name.len() <= 200
            && name.chars().all(|letter| letter.is_ascii_graphic());
        if !fits || name.contains('/') {
            bail!("the name {name:?} is none of a fine-tuned model: write ft:BASE:ORGANIZATION:SUFFIX:ID");
        }
        if all(adapters)?.iter().any(|(card, _)| card.name == *name) {
            bail!("there is an adapter called {name} already: choose another name");
        }
        let gguf = Gguf::open(model_file).with_context(|| model_file.display().to_string())?;
        let shape = Shape::read(&gguf).with_context(|| model_file.display().to_string())?;
        let card =
            Card { name: name.clone(), base: base.clone(), created_at: clock::unix_ms() / 1000, job: None };
        shelved::import(source, adapters, &shape, &card).with_context(|| source.display().to_string())?;
        say(&format!("{name} is served by a worker of {base} from now on\n"));
        Ok(())
    }
}

impl Export {
    fn run(&self, adapters: &Path) -> anyhow::Result<()> {
        let Some((_, path)) = all(adapters)?.into_iter().find(|(card, _)| card.name == self.name) else {
            bail!("there is no adapter called {}: `tunegate adapters list` shows which there are", self.name);
        };
        if self.out.exists() {
            bail!("{} is there already: nothing is overwritten", self.out.display());
        }
        let form = match self.form {
            Form::Peft => {
                copy(&path, &self.out).with_context(|| self.out.display().to_string())?;
                say(&format!("{} is written\n", self.out.display()));
                return Ok(());
            }
            Form::GgufF16 => MergedFormat::F16,
            Form::GgufQ8 => MergedFormat::Q8_0,
        };
        let gguf = Gguf::open(&self.model_file).with_context(|| self.model_file.display().to_string())?;
        let shape = Shape::read(&gguf).with_context(|| self.model_file.display().to_string())?;
        let weights = shelved::read(&path, &shape).with_context(|| path.display().to_string())?;
        merge(&self.model_file, &weights, &self.out, form).with_context(|| self.out.display().to_string())?;
        say(&format!("{} is written\n", self.out.display()));
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in [shelved::CONFIG_FILE, shelved::WEIGHTS_FILE] {
        fs::copy(from.join(file), to.join(file))?;
    }
    Ok(())
}
