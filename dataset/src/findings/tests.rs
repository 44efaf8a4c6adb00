use std::io::Empty;

use proptest::prelude::*;

use crate::report::Report;
use crate::{Count, Options, check};

/// A token a character.
struct Characters;

impl Count for Characters {
    fn tokens(&self, text: &str) -> usize {
        text.chars().count()
    }
}

fn chat(system: &str, question: &str, answer: &str) -> String {
    let system = match system {
        "" => String::new(),
        words => format!(r#"{{"role":"system","content":"{words}"}},"#),
    };
    format!(
        r#"{{"messages":[{system}{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"{answer}"}}]}}"#
    )
}

fn report(training: &[String], validation: Option<&[String]>) -> Report {
    let options = Options { min_examples: 0, ..Options::default() };
    let training = training.join("\n");
    match validation {
        None => check(training.as_bytes(), None::<Empty>, &options, &Characters, &mut |_| {}),
        Some(rows) => {
            let rows = rows.join("\n");
            check(training.as_bytes(), Some(rows.as_bytes()), &options, &Characters, &mut |_| {})
        }
    }
    .expect("read")
}

fn found<'r>(report: &'r Report, kind: &str) -> (u64, &'r [u64], &'r [Vec<u64>]) {
    let finding = report.finding(kind).unwrap_or_else(|| panic!("{kind}: {:?}", report.findings));
    assert_eq!(
        finding.count > 0,
        report.warnings.iter().any(|warning| warning.kind == kind),
        "what is found is warned of: {kind}"
    );
    (finding.count, &finding.lines, &finding.groups)
}

const LONG: &str = "Please tell me the whole story of the cat who lived on the red roof above the old bakery";

#[test]
fn rows_beside_each_other() {
    let rows = [
        chat("", LONG, "one"),
        chat("", "short", "a"),
        chat("", "short", "b"),
        chat("", &format!("{LONG}!"), "one"),
        chat("", "short", "a"),
        chat("", "something else entirely, such as trains", "c"),
    ];
    let report = report(&rows, None);
    assert_eq!(found(&report, "exact_duplicates"), (1, &[5][..], &[vec![2, 5]][..]));
    let (count, lines, groups) = found(&report, "near_duplicates");
    assert_eq!((count, lines), (2, &[4, 5][..]));
    assert!(groups.contains(&vec![1, 4]), "{groups:?}");
    assert_eq!(found(&report, "contradictions"), (1, &[2, 3, 5][..], &[vec![2, 3, 5]][..]));
    assert!(report.finding("leakage").is_none(), "there is no validation file");
}

#[test]
fn what_the_validation_file_shares_is_a_leak() {
    let training = [chat("", LONG, "one"), chat("", "short", "a"), chat("", "trains and stations", "c")];
    let validation = [
        chat("", "short", "another answer"),
        chat("", "nothing of the kind", "x"),
        chat("", &format!("{LONG}!"), "one"),
        chat("", "nothing of the kind", "x"),
    ];
    let report = report(&training, Some(&validation));
    assert_eq!(found(&report, "leakage"), (2, &[1, 3][..], &[vec![1, 2], vec![3, 1]][..]));
    assert_eq!(found(&report, "exact_duplicates").0, 0, "those of the validation file are its own");
    assert_eq!(report.examples, 3);
}

#[test]
fn the_words_of_the_system() {
    let rows =
        [chat("Be kind", "a", "1"), chat("Be curt", "b", "2"), chat("Be kind", "c", "3"), chat("", "d", "4")];
    let report = report(&rows, None);
    assert_eq!(found(&report, "inconsistent_system_prompts"), (2, &[2, 4][..], &[][..]));
    let prompt = report.system_prompt.expect("a prompt");
    assert_eq!((prompt.text.as_deref(), prompt.rows, prompt.distinct), (Some("Be kind"), 2, 3));
    assert_eq!(prompt.sha256, "3470ac9226324807f169ba825c26806b9d4952f79d180c61ec048f7100736d69");
}

#[test]
fn answers_that_are_empty_or_far_too_long() {
    let mut rows: Vec<String> =
        (0..30).map(|row| chat("", &format!("q{row}"), &"word ".repeat(10 + row % 5))).collect();
    rows.push(chat("", "long", &"word ".repeat(400)));
    rows.push(chat("", "empty", " \\n"));
    let first = report(&rows, None);
    assert_eq!(found(&first, "outlier_answers"), (1, &[31][..], &[][..]));
    assert_eq!(found(&first, "empty_answers"), (1, &[32][..], &[][..]));
    let few = report(&rows[25..], None);
    assert_eq!(found(&few, "outlier_answers").0, 0, "from 20 rows on");
}

#[test]
fn personal_data_and_languages() {
    let mut rows: Vec<String> =
        (0..20).map(|row| chat("", &format!("質問{row}"), "猫は屋根の上が好きだにゃ")).collect();
    rows.push(chat("", "mail neko@example.com or b@example.com", "The cat is on the roof and it is happy"));
    rows.push(chat("", "4111 1111 1111 1111", "猫だにゃ。電話は 090-1234-5678"));
    let report = report(&rows, None);
    assert_eq!(found(&report, "personal_email"), (1, &[21][..], &[][..]));
    assert_eq!(found(&report, "personal_card"), (1, &[22][..], &[][..]));
    assert_eq!(found(&report, "personal_phone"), (1, &[22][..], &[][..]));
    assert_eq!(found(&report, "secret_key").0, 0);
    assert_eq!(found(&report, "language_mix"), (1, &[21][..], &[][..]));
    let languages: Vec<(&str, u64)> =
        report.languages.iter().map(|language| (language.language.as_str(), language.rows)).collect();
    assert_eq!(languages, [("ja", 21), ("en", 1)]);
}

#[test]
fn two_answers_that_say_the_same_have_nothing_to_prefer() {
    let row = |one: &str, other: &str| {
        format!(
            r#"{{"input":{{"messages":[{{"role":"user","content":"q"}}]}},"preferred_output":[{{"role":"assistant","content":"{one}"}}],"non_preferred_output":[{{"role":"assistant","content":"{other}"}}]}}"#
        )
    };
    let report = report(&[row("a", "b"), row("c", "c"), row("d", "a")], None);
    assert_eq!(found(&report, "equal_answers"), (1, &[2][..], &[][..]));
    assert!(report.finding("contradictions").is_none(), "a preference has several answers to a prompt");
}

proptest! {
    /// Against counting by hand: rows of a few questions and answers.
    #[test]
    fn exact_findings_agree_with_comparing_each_with_each(
        rows in prop::collection::vec((0_u8..5, 0_u8..3), 1..40),
        others in prop::collection::vec((0_u8..8, 0_u8..3), 1..10),
    ) {
        let line = |(question, answer): &(u8, u8)| chat("", &format!("q{question}"), &format!("a{answer}"));
        let training: Vec<String> = rows.iter().map(line).collect();
        let validation: Vec<String> = others.iter().map(line).collect();
        let report = report(&training, Some(&validation));
        let repeated = (0..rows.len()).filter(|at| rows[..*at].contains(&rows[*at])).count();
        prop_assert_eq!(found(&report, "exact_duplicates").0, repeated as u64);
        let asked: std::collections::BTreeSet<u8> = rows.iter().map(|(question, _)| *question).collect();
        let answers = |question: u8| {
            rows.iter().filter(|row| row.0 == question).map(|row| row.1).collect::<std::collections::BTreeSet<u8>>()
        };
        let contradicted = asked.iter().filter(|question| answers(**question).len() > 1).count();
        prop_assert_eq!(found(&report, "contradictions").0, contradicted as u64);
        let leaked = others.iter().filter(|(question, _)| asked.contains(question)).count();
        prop_assert_eq!(found(&report, "leakage").0, leaked as u64);
    }
}
