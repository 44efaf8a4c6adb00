//! The check's figures against those of OpenAI's published recipe, as `recipe.py` computed them, to the last digit.

use std::io::Empty;
use std::path::Path;

use serde::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};
use tiktoken_rs::{cl100k_base_singleton, o200k_base_singleton};
use tunegate_dataset::pieces::{PieceCounter, Split};
use tunegate_dataset::report::Report;
use tunegate_dataset::{Options, check};

fn cl100k(piece: &str) -> usize {
    cl100k_base_singleton().count_ordinary(piece)
}

fn o200k(piece: &str) -> usize {
    o200k_base_singleton().count_ordinary(piece)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checked(split: Split, count: fn(&str) -> usize) -> Report {
    let cats = std::fs::read(root().join("../examples/datasets/cat.jsonl")).expect("the set of examples");
    let options = Options { row_limit: 16_385, ..Options::default() };
    let counter = PieceCounter::new(split, count);
    check(cats.as_slice(), None::<Empty>, &options, &counter, &mut |_| {}).expect("read")
}

#[test]
fn the_figures_agree_to_the_last_digit() {
    let golden = std::fs::read_to_string(root().join("tests/recipe.json")).expect("the recipe's figures");
    let ours = json!({
        "cl100k_base": figures(&checked(Split::Cl100k, cl100k)),
        "o200k_base": figures(&checked(Split::O200k, o200k)),
    });
    // as text, as Python wrote it: a reader of JSON may lose a float's last digit
    let mut text = Vec::new();
    let mut writer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" "));
    ours.serialize(&mut writer).expect("written");
    assert_eq!(String::from_utf8(text).expect("UTF-8"), golden.trim_end());
}

fn figures(report: &Report) -> Value {
    assert_eq!(report.error_count, 0, "{:?}", report.errors);
    json!({
        "examples": report.examples,
        "errors": {},
        "missing_system": report.missing_system,
        "missing_user": report.missing_user,
        "messages": report.messages,
        "tokens": report.tokens,
        "assistant_tokens": report.assistant_tokens,
        "over_limit": report.over_limit,
        "billed_tokens": report.billed_tokens,
        "epochs": report.epochs,
        "total_billed_tokens": report.total_billed_tokens,
    })
}

#[test]
fn the_cats_are_fit_to_be_trained_on() {
    let report = checked(Split::O200k, o200k);
    assert!(report.is_trainable());
    assert_eq!(report.first_error_message(), None);
    let prompt = report.system_prompt.as_ref().expect("a system prompt");
    assert_eq!((prompt.rows, prompt.distinct), (15, 1));
    assert_eq!(report.languages[0].language, "ja");
    // one answer is in English, as it was asked for: a word of warning, no error
    let warned: Vec<&str> = report.warnings.iter().map(|warning| warning.kind.as_str()).collect();
    assert_eq!(warned, ["language_mix"], "{:?}", report.warnings);
    assert!(report.findings.len() >= 10, "{:?}", report.findings);
    assert!(
        report.findings.iter().all(|finding| !finding.method.is_empty() && !finding.threshold.is_empty())
    );
}
