//! `tunegate check-config`.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::serve::date;
use super::{ConfigOption, say, warn};
use crate::clock;
use crate::config::{self, Config, ProcessEnvironment};
use crate::control::prompts::FileDraft;
use crate::domain::catalog::{Address, Model, Provider};
use crate::domain::prompt::fidelity::warnings;
use crate::domain::prompt::hash::sha256_of;
use crate::domain::prompt::{Prompt, PromptBook, PromptVersion};
use crate::domain::route::Told;
use crate::upstream;

/// Options of `tunegate check-config`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,

    /// Also ask each provider whether it would serve us
    #[arg(long)]
    probe: bool,

    /// As of this moment, such as 2027-01-14: which models have ended by then, which price periods hold
    #[arg(long, value_name = "MOMENT", value_parser = date)]
    as_of: Option<i64>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(at_ms) = options.as_of {
        clock::pretend(at_ms);
    }
    let path = options.config.path();
    let config = config::load(path.as_deref(), &ProcessEnvironment)?;
    for notice in &config.notices {
        warn(&format!("note: {notice}"));
    }
    for warning in warnings(&config.catalog, &filed(&config.prompts), false) {
        warn(&format!("note: {warning}"));
    }
    if options.probe {
        probe_all(&config)?;
    }
    for model in config.catalog.models() {
        say(&line(model));
    }
    say(&summary(&config));
    Ok(())
}

/// The prompts of files alone, each as the version that its label will point at: which number it gets nobody knows yet.
fn filed(files: &[FileDraft]) -> PromptBook {
    let mut book = PromptBook::default();
    for FileDraft { draft, .. } in files {
        let version = PromptVersion {
            prompt: Arc::clone(&draft.name),
            number: 0,
            text: Arc::clone(&draft.text),
            variables: draft.variables.clone(),
            sha256: sha256_of(&draft.text).into(),
            author: Arc::clone(&draft.author),
            note: Arc::clone(&draft.note),
            created_at_ms: 0,
        };
        let prompt = Prompt {
            versions: BTreeMap::from([(version.number, Arc::new(version))]),
            labels: draft.label.iter().map(|label| (Arc::clone(label), 0)).collect(),
        };
        book.prompts.insert(Arc::clone(&draft.name), prompt);
    }
    book
}

fn summary(config: &Config) -> String {
    let catalog = &config.catalog;
    let models = catalog.models().count();
    let counts = [
        counted(catalog.providers.len(), "provider"),
        counted(catalog.deployments.len(), "deployment"),
        counted(models, "model"),
    ];
    let source = match &config.source {
        Some(path) => path.display().to_string(),
        None => "built-in defaults".to_owned(),
    };
    format!("ok: {} ({source})", counts.join(", "))
}

/// A model's names, and where they lead.
fn line(model: &Model) -> String {
    let aliases = model.aliases.iter().map(|alias| alias.as_str().to_owned());
    let labels = model.labels.keys().map(|label| format!("@{label}"));
    let names = aliases.chain(labels).collect::<Vec<_>>();
    let also = if names.is_empty() { String::new() } else { format!(" (also {})", names.join(", ")) };
    format!("{}{also}: {}", model.name, Told::of(&model.route.plan, None, clock::unix_ms()))
}

fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn probe_all(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start a runtime")?;
    let mut failed = 0;
    for (name, provider) in &config.catalog.providers {
        if is_our_worker(config, provider) {
            say(&format!("{name}: not running; `tunegate serve` starts it"));
            continue;
        }
        match runtime.block_on(probe(provider)) {
            Ok(answer) => say(&format!("{name}: {answer}")),
            Err(reason) => {
                failed += 1;
                warn(&format!("{name}: {reason}"));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} would not serve us", counted(config.catalog.providers.len(), "provider"));
    }
    Ok(())
}

/// Whether it is the worker that `serve` will start, and nobody has yet.
fn is_our_worker(config: &Config, provider: &Provider) -> bool {
    let Address::Unix(path) = &provider.address else { return false };
    config.worker.as_ref().is_some_and(|worker| worker.socket == **path) && UnixStream::connect(path).is_err()
}

async fn probe(provider: &Provider) -> Result<String, String> {
    upstream::probe(provider).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn models_on_one_line_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tunegate.toml");
        let text = r#"
            worker.enabled = false
            providers.p = { kind = "openai", base_url = "http://127.0.0.1:1/v1" }
            deployments.a = { provider = "p", model = "gpt-4.1" }
            deployments.b = { provider = "p", model = "ft:gpt-4.1:acme::x" }
            models.listed.deployments = ["a", "b"]
            models.one.plan = "a"
            models.one.aliases = ["uno"]
            models.one.labels = { old = "b" }
            models.pooled.plan = { pool = ["a", { cheapest = ["a", ["b"]] }] }
            models.quick.plan = { fastest = ["a", "b"] }
            [models.split.plan]
            weighted = [{ share = 9, to = "a", ramp = { to = 0, from = "2096-12-01", until = "2096-12-02" } }, { share = 1, to = ["b", "a"] }]
            sticky = ["header:x-c", "end_user", "key"]
            [models.which.plan]
            when = [
              { if = { team = "t", key = "k", tag = "g", header = { x = true }, endpoint = "responses", input_tokens = { at_least = 1 } }, to = "a" },
              { if = { tools = true, images = false, json_schema = true, stream = false }, to = ["b", "a"] },
            ]
            otherwise = "b"
        "#;
        std::fs::write(&path, text).expect("written");
        let config = config::load(Some(&path), &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
        let lines: Vec<String> = config.catalog.models().map(|model| line(model)).collect();
        assert_eq!(
            lines,
            [
                "ft:gpt-4.1:acme::x: b",
                "listed: a, then b",
                "one (also uno, @old): a",
                "pooled: a pool of a, (the cheapest of a, b)",
                "quick: the fastest of a, b by whole answer",
                "split: by shares: a 90 % → 0 %, (b, then a) 10 % → 100 %; kept by header:x-c, else end_user, else key",
                "which: if team is t, key is k, tag is g, header x is there, endpoint is responses, input is at least \
                 1 tokens: a; if with tools, without images, with a JSON schema, without a stream: (b, then a); \
                 otherwise b",
            ]
        );
    }
}
