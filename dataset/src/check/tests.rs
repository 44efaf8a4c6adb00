use super::*;
use crate::{check, figures};
use std::io::Empty;

/// A token a byte.
struct Bytes;

impl Count for Bytes {
    fn tokens(&self, text: &str) -> usize {
        text.len()
    }
}

fn chat(question: &str, answer: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"{answer}"}}]}}"#
    )
}

fn ten() -> String {
    (0..10).map(|row| chat(&format!("question {row}"), &format!("answer {row}")) + "\n").collect()
}

fn of(file: &[u8], options: &Options) -> Report {
    check(file, None::<Empty>, options, &Bytes, &mut |_| {}).expect("read")
}

fn words(report: &Report) -> Vec<String> {
    report.errors.iter().map(Problem::words).collect()
}

#[test]
fn a_sound_file_has_its_figures() {
    let mut told = Vec::new();
    let file = ten();
    let report =
        check(file.as_bytes(), None::<Empty>, &Options::default(), &Bytes, &mut |bytes| told.push(bytes))
            .expect("read");
    assert_eq!(words(&report), Vec::<String>::new());
    assert!(report.is_trainable());
    // 3 + (3 + 4 + 10) + (3 + 9 + 8)
    assert_eq!((report.examples, report.rows, report.billed_tokens), (10, 10, 400));
    assert_eq!((report.epochs, report.total_billed_tokens), (10, 4_000));
    assert_eq!((report.missing_system, report.missing_user, report.over_limit), (10, 0, 0));
    assert_eq!((report.messages.mean, report.assistant_tokens.total), (2.0, 80));
    assert_eq!((report.format, report.bytes), (Some(Format::Chat), file.len() as u64));
    assert_eq!(told, [file.len() as u64]);
    let found =
        figures(file.as_bytes(), &Options { epochs: Some(2), row_limit: 39, ..Options::default() }, &Bytes)
            .expect("read");
    assert_eq!((found.billed_tokens, found.total_billed_tokens, found.over_limit), (390, 780, 10));
}

#[test]
fn what_is_wrong_with_the_bytes_is_named() {
    let few = Options { min_examples: 1, max_line_bytes: 200, ..Options::default() };
    let sound = chat("q", "a");
    let long = chat(&"x".repeat(300), "a");
    for (file, want) in [
        (b"".to_vec(), vec!["the file has no rows".to_owned()]),
        (b"\n \n\r\n".to_vec(), vec!["the file has no rows".to_owned()]),
        (
            format!("{sound}\n{{\"messages\":\n").into_bytes(),
            vec!["line 2: not JSON: EOF while parsing a value at column 12: a row is one JSON object on one line".to_owned()],
        ),
        (
            format!("[{sound},\n{sound}]").into_bytes(),
            vec![
                "line 1: not JSON: EOF while parsing a value at column 81: a row is one JSON object on one line".to_owned(),
                "line 2: not JSON: trailing characters at column 80: a row is one JSON object on one line".to_owned(),
            ],
        ),
        (
            b"{\"messages\":\"\xff\"}".to_vec(),
            vec!["line 1: not UTF-8: byte 0xff at column 14: save the file as UTF-8".to_owned()],
        ),
        (
            format!("{sound}\n{long}").into_bytes(),
            vec![format!(
                "line 2: {} bytes, where a line may have 200: it was not read; is a line break missing?",
                long.len()
            )],
        ),
        (
            format!("{sound}\n{{\"prompt\":\"a\",\"completion\":\"b\"}}").into_bytes(),
            vec!["line 2: this is a completion row where chat rows are expected: a file has one kind".to_owned()],
        ),
        (
            format!("{}{}", "[".repeat(150), "]".repeat(40)).into_bytes(),
            vec![
                "line 1: not JSON: recursion limit exceeded at column 128: a row is one JSON object on one line".to_owned(),
            ],
        ),
    ] {
        let report = of(&file, &few);
        assert_eq!(words(&report), want, "{}", String::from_utf8_lossy(&file));
        assert!(!report.is_trainable());
    }
}

#[test]
fn nine_rows_are_too_few() {
    let file: String = ten().lines().take(9).map(|line| format!("{line}\n")).collect();
    let report = of(file.as_bytes(), &Options::default());
    let want = "9 rows, where a training file needs at least 10: 50 to 100 are recommended";
    assert_eq!(words(&report), [want]);
    assert_eq!(report.first_error_message().as_deref(), Some(want));
    // a validation file may be as short as it likes, but not empty
    let with = |validation: &str| {
        check(ten().as_bytes(), Some(validation.as_bytes()), &Options::default(), &Bytes, &mut |_| {})
            .expect("read")
    };
    assert_eq!(words(&with(&chat("new", "new"))), Vec::<String>::new());
    assert_eq!(words(&with("")), ["validation file, the file has no rows"]);
    assert_eq!(
        words(&with("{}")),
        ["validation file, line 1, messages: missing: a row has a list of messages"]
    );
}

#[test]
fn byte_order_marks_and_carriage_returns_pass_with_a_warning() {
    let file = format!("\u{feff}{}\r\n", ten().replace('\n', "\r\n"));
    let report = of(file.as_bytes(), &Options { fast: true, ..Options::default() });
    assert_eq!(words(&report), Vec::<String>::new());
    let kinds: Vec<(&str, u64)> =
        report.warnings.iter().map(|warning| (warning.kind.as_str(), warning.count)).collect();
    assert_eq!(kinds, [("byte_order_mark", 1), ("carriage_returns", 11), ("blank_lines", 1)]);
}

#[test]
fn errors_beyond_the_first_thousand_are_counted() {
    let report = of("{}\n".repeat(1_500).as_bytes(), &Options::default());
    assert_eq!((report.errors.len(), report.error_count, report.examples), (1_000, 1_500, 0));
    assert_eq!(
        report.first_error_message().as_deref(),
        Some("line 1, messages: missing: a row has a list of messages (and 1499 more)")
    );
}

#[test]
fn a_row_full_of_errors_is_no_trouble() {
    let line = format!("{{\"messages\":[{}1]}}", "1,".repeat(4_999));
    let report = of(line.as_bytes(), &Options { min_examples: 0, ..Options::default() });
    // the last is that nobody answers
    assert_eq!((report.errors.len(), report.error_count), (1_000, 5_001));
}

#[test]
fn a_line_of_a_gigabyte_is_an_error_and_never_held() {
    let endless = io::repeat(b'x').take(1 << 30);
    let report = check(endless, None::<Empty>, &Options::default(), &Bytes, &mut |_| {}).expect("read");
    assert_eq!(
        words(&report)[0],
        "line 1: 1073741824 bytes, where a line may have 16777216: it was not read; is a line break missing?"
    );
}

#[test]
fn a_line_of_too_many_values_is_refused() {
    let line = format!("{{\"messages\":[{}0]}}", "0,".repeat(1_000_001));
    let report = of(line.as_bytes(), &Options::default());
    assert_eq!(words(&report)[0], "line 1: more than 1000000 values in one row");
}

#[test]
fn rows_that_are_cut_are_named() {
    let report = of(ten().as_bytes(), &Options { row_limit: 39, ..Options::default() });
    let warning = report.warnings.iter().find(|warning| warning.kind == "over_limit").expect("a warning");
    assert_eq!((warning.count, warning.lines.len(), report.cut_tokens), (10, 10, 10));
    assert_eq!(
        warning.message,
        "10 rows are longer than the 39 tokens that the model takes in a row: 10 tokens at their ends would be cut off and \
         not learned; shorten or split these rows"
    );
}

#[test]
fn everything_that_is_told_is_in_the_documentation() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DATASETS.md");
    let documented = std::fs::read_to_string(path).expect("docs/DATASETS.md");
    let row = r#"{"input":{"messages":[{"role":"user","content":"q"}]},
        "preferred_output":[{"role":"assistant","content":"a"}],
        "non_preferred_output":[{"role":"assistant","content":"b"}]}"#
        .replace('\n', "");
    let preferences = of(row.as_bytes(), &Options::default());
    let chats = check(ten().as_bytes(), Some(ten().as_bytes()), &Options::default(), &Bytes, &mut |_| {})
        .expect("read");
    let mut kinds: Vec<String> = [preferences, chats]
        .into_iter()
        .flat_map(|report| report.findings)
        .map(|finding| finding.kind)
        .chain(
            of("\u{feff}\r\n".as_bytes(), &Options::default())
                .warnings
                .into_iter()
                .map(|warning| warning.kind),
        )
        .collect();
    let oddities = [
        Oddity::UnknownMember,
        Oddity::PreferredCompletion,
        Oddity::NothingTrained,
        Oddity::EndsWithoutAnswer,
        Oddity::ArgumentsNoJson,
        Oddity::NoSuchCall,
        Oddity::Image,
        Oddity::OldFunctions,
    ];
    kinds.extend(oddities.map(|oddity| kind(oddity).to_owned()));
    assert!(kinds.len() > 24, "{kinds:?}");
    for kind in kinds {
        assert!(documented.contains(&format!("`{kind}`")), "{kind} is not in docs/DATASETS.md");
    }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let report = of(ten().as_bytes(), &Options::default());
    let text = serde_json::to_string(&report).expect("JSON");
    for member in [
        "examples",
        "errors",
        "warnings",
        "tokens",
        "assistant_tokens",
        "messages",
        "over_limit",
        "billed_tokens",
        "epochs",
        "total_billed_tokens",
        "cost_usd_by_target",
    ] {
        assert!(text.contains(&format!("\"{member}\":")), "{member}");
    }
    assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
}
