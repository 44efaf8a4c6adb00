//! The commands: one file for each family. The only floor, with `app`, that may print and use `anyhow`.

#[cfg(feature = "candle")]
mod adapters;
mod admin_client;
mod budgets;
mod cache;
mod check_config;
mod dataset;
mod eval;
mod evaluations;
mod explain;
mod files;
mod healthcheck;
mod hosting;
mod jobs;
mod keys;
mod ledger;
mod models;
mod price;
mod prices;
mod progress;
mod prompts;
mod quote;
mod reload;
mod routes;
mod serve;
mod spend;
mod table;
mod teams;
#[cfg(feature = "candle")]
mod worker;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config;

/// A cost-aware gateway for fine-tuned language models.
///
/// `tunegate serve` starts it; without any configuration it serves one small local model, and OpenAI and Azure OpenAI
/// where the environment has their keys.
#[derive(Parser)]
#[command(name = "tunegate", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the gateway.
    ///
    /// Serves until SIGTERM, after which running answers may finish (`server.drain_timeout_ms`), or until SIGINT.
    Serve(serve::Options),
    /// Check a configuration and say all that is wrong with it.
    ///
    /// Reads it as `serve` would, environment included. Exit code 1 when anything is wrong.
    CheckConfig(check_config::Options),
    /// Check training files and repair them: figures, duplicates, leaks, personal data.
    ///
    /// Offline, but for `augment` and kept traffic. docs/DATASETS.md has each check with its method.
    #[command(alias = "datasets")]
    Dataset(dataset::Options),
    /// Compute what something costs, line by line, offline.
    ///
    /// Uses the prices of the configuration, else the built-in ones; overrides of the admin API are not asked for.
    Price(price::Options),
    /// Show prices, put overrides over them, import other lists.
    ///
    /// All but `import` ask the running gateway at `admin.listen`, with the admin key.
    Prices(prices::Options),
    /// Say what a training file costs to train and to serve on every target, beside a longer prompt.
    ///
    /// A file on disk is counted and priced here; `--route` asks the running gateway for the traffic, and a stored file is
    /// quoted by it.
    Quote(Box<quote::Options>),
    /// Show where each name leads and how its deployments stand.
    ///
    /// Asks the running gateway.
    Routes(routes::Options),
    /// Say where a request would go and why: candidate by candidate, with what it would cost there.
    ///
    /// Asks the running gateway. Nothing is sent to any provider, held or counted.
    Explain(explain::Options),
    /// Show what was spent, by key, team, model, day and more.
    ///
    /// Asks the running gateway. Sums are by quarters of an hour, UTC.
    Spend(spend::Options),
    /// Read the ledger: entries, one request's, what is unconfirmed; audit it.
    ///
    /// Asks the running gateway.
    Ledger(ledger::Options),
    /// Upload, list, show and delete training files.
    ///
    /// Asks the running gateway.
    #[command(alias = "file")]
    Files(files::Options),
    /// Make, list, watch, pause and cancel fine-tuning jobs.
    ///
    /// Asks the running gateway.
    #[command(alias = "job")]
    Jobs(jobs::Options),
    /// Ask several models what is known, and say which is better: quality, cost and speed, and a gate.
    ///
    /// Asks the running gateway, which asks the models on its own way: metered and paid. docs/EVALUATION.md has each
    /// measure.
    Eval(Box<eval::Options>),
    /// List and show evaluations, their reports and answers; cancel one.
    ///
    /// Asks the running gateway.
    #[command(alias = "evaluation")]
    Evaluations(evaluations::Options),
    /// Show what costs by the hour: since when it stands, who pays, and who uses it.
    ///
    /// Asks the running gateway.
    Hosting(hosting::Options),
    /// Make, list, change, rotate and revoke the keys that applications use.
    ///
    /// Asks the running gateway at `admin.listen`, with the configured admin key or the one in the state folder.
    #[command(alias = "key")]
    Keys(keys::Options),
    /// Make, list, change and archive the teams that own keys.
    Teams(teams::Options),
    /// Make, list, replace, raise and delete budgets, and see how they stand.
    Budgets(budgets::Options),
    /// Keep system prompts in numbered versions: add, label, compare, render them, and see what they cost.
    ///
    /// Asks the running gateway.
    #[command(alias = "prompt")]
    Prompts(prompts::Options),
    /// Show what fine-tuning jobs have made, move it onto routes and back, deploy and delete it.
    ///
    /// Asks the running gateway.
    #[command(alias = "model")]
    Models(models::Options),
    /// Show how many answers are kept, and let some go.
    ///
    /// Asks the running gateway.
    Cache(cache::Options),
    /// Have the running gateway read its configuration again.
    ///
    /// Requests that run keep what they began with. A configuration with anything wrong in it changes nothing.
    Reload(reload::Options),
    /// Ask the running gateway whether it is ready; the exit code is the answer.
    ///
    /// GET /readyz on the admin address: 0 when it is ready, 1 when it is not or does not run.
    Healthcheck(healthcheck::Options),
    /// List, import and export fine-tuned models of the local worker.
    #[cfg(feature = "candle")]
    #[command(alias = "adapter")]
    Adapters(adapters::Options),
    /// Serve one model file over OpenAI's API (the local backend).
    #[cfg(feature = "candle")]
    Worker(worker::Options),
    /// Train one job; started by the worker.
    #[cfg(feature = "candle")]
    #[command(hide = true)]
    Trainer(worker::Trainer),
}

/// Which configuration a command reads.
#[derive(Args)]
struct ConfigOption {
    /// The configuration's file [default: ./tunegate.toml, else ./config/tunegate.toml, else built-in defaults]
    // its id is its own: a command's `--file` of the same id would be taken for it
    #[arg(id = "configuration", long = "config", short = 'c', value_name = "FILE", global = true)]
    file: Option<PathBuf>,
}

impl ConfigOption {
    /// The named file, else the usual one, if there is one.
    fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| config::usual_file(Path::new("")))
    }
}

/// Parses the arguments, runs the command and says how it ended.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::CheckConfig(options) => check_config::run(&options),
        Command::Dataset(options) => dataset::run(&options),
        Command::Price(options) => price::run(&options),
        Command::Prices(options) => prices::run(&options),
        Command::Quote(options) => quote::run(&options),
        Command::Routes(options) => routes::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Spend(options) => spend::run(&options),
        Command::Ledger(options) => ledger::run(&options),
        Command::Eval(options) => eval::run(&options),
        Command::Evaluations(options) => evaluations::run(&options),
        Command::Hosting(options) => hosting::run(&options),
        Command::Files(options) => files::run(&options),
        Command::Jobs(options) => jobs::run(&options),
        Command::Keys(options) => keys::run(&options),
        Command::Teams(options) => teams::run(&options),
        Command::Budgets(options) => budgets::run(&options),
        Command::Prompts(options) => prompts::run(&options),
        Command::Models(options) => models::run(&options),
        Command::Cache(options) => cache::run(&options),
        Command::Reload(options) => reload::run(&options),
        Command::Healthcheck(options) => healthcheck::run(&options),
        #[cfg(feature = "candle")]
        Command::Adapters(options) => adapters::run(&options),
        #[cfg(feature = "candle")]
        Command::Worker(options) => worker::run(options),
        #[cfg(feature = "candle")]
        Command::Trainer(options) => worker::train(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&format!("tunegate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The command's answer: what a script may read. A reader that has had enough, as `head` has, is no failure.
fn say(text: &str) {
    if let Err(error) = deliver(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn(&format!("tunegate: the answer could not be written: {error}"));
    }
}

/// An answer that must not be lost.
fn deliver(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A word beside the answer, for the person.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn warn(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn no_other_file_is_taken_for_the_configuration() {
        for (line, configuration) in [
            ("tunegate prompts add support --file support.md", None),
            ("tunegate prompts add support --file support.md -c a.toml", Some("a.toml")),
            ("tunegate prompts hash --file train.jsonl", None),
            ("tunegate prices import litellm.json --litellm --out prices.toml", None),
        ] {
            let mut matches = Arguments::command().get_matches_from(line.split(' '));
            while let Some((_, below)) = matches.remove_subcommand() {
                matches = below;
            }
            let found = matches.try_get_one::<PathBuf>("configuration").ok().flatten();
            assert_eq!(found.map(PathBuf::as_path), configuration.map(Path::new), "{line}");
        }
    }

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
        for line in [
            "tunegate serve",
            "tunegate serve --config a.toml --upgrade",
            "tunegate check-config -c a.toml --probe",
            "tunegate keys create --alias app --team ops --model a --model b/* --rpm 3 --expires-at 2027-01-31T00:00:00Z",
            "tunegate key list --config a.toml",
            "tunegate keys list --json",
            "tunegate keys create --alias b --prompt a --prompt s-* --variable tone=kind --variable n=3 --cache read_only",
            "tunegate keys update app --clear variables --clear prompts --clear cache",
            "tunegate keys update app --clear limits --clear team --tuning write --unbounded-cost-usd 0.5",
            "tunegate keys rotate app --grace-hours 0",
            "tunegate key revoke app",
            "tunegate price gpt-4o --input 1000 --output 10 --cached 5 --at 2025-01-01 --tier flex",
            "tunegate dataset check a.jsonl --model gpt-4o-mini --epochs 3 --format json --validation b.jsonl --fast",
            "tunegate dataset split a.jsonl --validation 0.2 --seed 7 --training-out t.jsonl --validation-out v.jsonl",
            "tunegate dataset dedupe a.jsonl --near --out b.jsonl",
            "tunegate dataset mask a.jsonl --out b.jsonl",
            "tunegate dataset convert a.jsonl --system-prompt-file cat.md --out b.jsonl",
            "tunegate dataset augment a.jsonl --model bot --per-row 2 --gateway http://127.0.0.1:8080 --key-file k --out b.jsonl",
            "tunegate dataset from-traffic --route bot --deployment v3 --team ops --from 2026-11-01 --feedback not-down --dedupe",
            "tunegate dataset from-traffic --route bot --preference --limit 500 --json",
            "tunegate dataset captured --json",
            "tunegate dataset forget --user u-17 --team ops",
            "tunegate prices list --provider azure",
            "tunegate quote cat.jsonl --route support-bot --epochs 3 --target gpt-4.1-mini --target local/m --format json",
            "tunegate quote file-1 --few-shot 3 --months 6 --training-minutes 80 --sku DeveloperTier --at 2023-11-01",
            "tunegate routes",
            "tunegate routes openai/gpt-4o --json",
            "tunegate explain bot - --team ops --tag a --tag b --header x-a=b --at 2027-01-14",
            "tunegate explain bot --prompt hi --key app --endpoint responses --json",
            "tunegate spend --by team,day --from 2026-11-01 --csv",
            "tunegate ledger list --key app --json",
            "tunegate ledger audit",
            "tunegate ledger unconfirmed --limit 5",
            "tunegate ledger show req_1",
            "tunegate prices set gpt-4o --input 2.50 --output 10",
            "tunegate prices import litellm.json --litellm --out prices.toml",
            "tunegate teams create --alias ops --tag a=b --tpm 1000 --concurrent 4",
            "tunegate teams update ops --clear-limits",
            "tunegate teams archive ops --json",
            "tunegate budgets list --json",
            "tunegate budgets show users --after u-17",
            "tunegate budgets create ops --limit 5 --window day --team ops --each key --alert-at 50 --alert-at 90",
            "tunegate budgets set ops --limit 0.50 --window month --time-zone Europe/Zurich --action clamp",
            "tunegate budgets raise ops --by 5 --until 2026-12-01T00:00:00Z",
            "tunegate budgets raise ops --end",
            "tunegate budgets delete ops",
            "tunegate prompts list --json",
            "tunegate prompts show support@3",
            "tunegate prompts add support --file support.md --label candidate --note shorter --author ann",
            "tunegate prompts label support@production 4 --expected 3 --note better",
            "tunegate prompts label support@candidate --remove",
            "tunegate prompts diff support 3 4",
            "tunegate prompts diff support candidate",
            "tunegate prompts history support",
            "tunegate prompts render support@3 --variable tone=kind --variable list=[1]",
            "tunegate prompts cost support --from 2026-11-01 --to 2026-11-22 --compare 2 --json",
            "tunegate prompts archive support",
            "tunegate prompt sync --folder prompts",
            "tunegate prompts hash --file train.jsonl",
            "tunegate models list --json",
            "tunegate models show ft:gpt-4.1:acme::x",
            "tunegate models promote ft:gpt-4.1:acme::x --route bot --bind-prompt --note better",
            "tunegate models promote ft:gpt-4.1:acme::x --route bot --to canary --percent 5 --bind-prompt cat",
            "tunegate models canary ft:gpt-4.1:acme::x --route bot --percent 20",
            "tunegate models promote ft:gpt-4.1:acme::x --route bot --evaluation eval_1 --gate rule --force",
            "tunegate eval held.jsonl --models bot,ft:x --general --judge m --rows 50 --seed 7 --wait --format markdown",
            "tunegate eval file-1 --route bot --models a,b --schema s.json --key app --temperature none --keep-answers",
            "tunegate eval --general --models bot --team ops --concurrency 8 --max-output-tokens 99",
            "tunegate evaluations list --json",
            "tunegate evaluations report eval_1 --format markdown",
            "tunegate evaluations answers eval_1 --part held_out --model 1",
            "tunegate evaluation cancel eval_1",
            "tunegate models rollback --route bot --author ann",
            "tunegate models retire ft:gpt-4.1:acme::x",
            "tunegate models history --route bot",
            "tunegate models bind-prompt ft:gpt-4.1:acme::x --name cat --mode replace",
            "tunegate models bind-prompt ft:gpt-4.1:acme::x --remove",
            "tunegate models deploy gpt-4.1.ft-0a1b --name support-ft --tier developer --capacity 50",
            "tunegate models deployments",
            "tunegate models undeploy support-ft --force",
            "tunegate model delete ft:gpt-4.1:acme::x",
            "tunegate cache show --json",
            "tunegate cache purge --model bot --older-than 60",
            "tunegate cache purge --all",
            "tunegate files upload train.jsonl --team ops",
            "tunegate files list --json",
            "tunegate file show file-1",
            "tunegate files delete file-1",
            "tunegate reload",
            "tunegate healthcheck --config a.toml",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        let whither = ["tunegate", "prompts", "label", "support@production"];
        assert!(Arguments::try_parse_from(whither).is_err(), "to which version?");
        let half = ["tunegate", "budgets", "raise", "ops", "--by", "5"];
        assert!(Arguments::try_parse_from(half).is_err(), "until when?");
        assert!(Arguments::try_parse_from(["tunegate", "keys", "create"]).is_err(), "an alias is needed");
        assert!(Arguments::try_parse_from(["tunegate", "cache", "purge"]).is_err(), "which answers?");
        assert!(Arguments::try_parse_from(["tunegate", "dataset", "forget"]).is_err(), "whose?");
        for named in ["--user", "--request-id", "--team", "--route"] {
            let nobody = ["tunegate", "dataset", "forget", named, ""];
            assert!(Arguments::try_parse_from(nobody).is_err(), "{named} of a variable that is not set");
        }
        assert!(Arguments::try_parse_from(["tunegate", "explain", "bot"]).is_err(), "of which request?");
    }
}
