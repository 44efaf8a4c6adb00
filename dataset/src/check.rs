//! The walk over a file: each line is read, judged and counted, and forgotten.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use crate::figures::{Histogram, default_epochs};
use crate::findings::Survey;
use crate::json::Json;
use crate::lines::{Line, Lines, Oddities};
use crate::report::{KEPT_ERRORS, KEPT_LINES, Problem, Report, Side, Warning};
use crate::row::{self, Expected, Fault, Format, Oddity, Role, Row, Seen};
use crate::tokens::{IMAGE, of_row};
use crate::{Count, Options};

/// Read at once, bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// A line of so many bytes is looked at twice before it becomes a tree in memory.
const LARGE_LINE_BYTES: usize = 1 << 20;
/// Most values in one line: each takes some 40 bytes of memory.
const MAX_VALUES: usize = 1_000_000;
/// How often the progress is told, bytes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Why a line is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Each reason.
    pub faults: Vec<Fault>,
}

impl Rejected {
    /// The first reason, with its place.
    pub fn words(&self) -> String {
        match self.faults.first() {
            Some(Fault { path, message }) if path.is_empty() => message.clone(),
            Some(Fault { path, message }) => format!("{path}: {message}"),
            None => String::new(),
        }
    }
}

/// A row that a provider takes.
#[derive(Debug, Clone, Copy)]
pub struct Sound<'l> {
    /// The line, without its break.
    pub raw: &'l [u8],
    /// Its value.
    pub value: &'l Json<'l>,
    /// What it means.
    pub row: &'l Row<'l>,
}

/// A file's rows, one after the other.
pub struct Rows<R> {
    lines: Lines<BufReader<R>>,
    expected: Expected,
    max_line_bytes: usize,
}

impl<R: Read> Rows<R> {
    /// Reads rows as `options` expects them.
    pub fn new(source: R, options: &Options) -> Self {
        Self {
            lines: Lines::new(BufReader::with_capacity(BUFFER_BYTES, source), options.max_line_bytes),
            expected: Expected {
                format: options.format,
                completions: options.completions_allowed,
                images: options.images_allowed,
            },
            max_line_bytes: options.max_line_bytes,
        }
    }

    /// Bytes read so far.
    pub const fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// What was odd about the bytes so far.
    pub const fn oddities(&self) -> Oddities {
        self.lines.oddities
    }

    /// Hands the next row's line number, value and meaning on, or why it is none. Nothing at the end of the file.
    ///
    /// # Errors
    ///
    /// The source's own.
    pub fn next_row<T>(
        &mut self,
        take: impl FnOnce(u64, Result<Sound<'_>, Rejected>, Seen) -> T,
    ) -> io::Result<Option<T>> {
        let Some((number, line)) = self.lines.next_line()? else { return Ok(None) };
        let (raw, value) = match line {
            Line::Whole(line) => (line, parsed(line)),
            Line::TooLong(bytes) => (
                &[][..],
                Err(format!(
                    "{bytes} bytes, where a line may have {}: it was not read; is a line break missing?",
                    self.max_line_bytes
                )),
            ),
        };
        let value = match value {
            Ok(value) => value,
            Err(message) => return Ok(Some(take(number, Err(rejected(message)), Seen::default()))),
        };
        let mut seen = Seen::default();
        let Some(row) = row::read(&value, self.expected, &mut seen) else {
            let faults = std::mem::take(&mut seen.faults);
            return Ok(Some(take(number, Err(Rejected { faults }), seen)));
        };
        // a file has one kind of rows: that of its first
        self.expected.format = Some(row.format);
        Ok(Some(take(number, Ok(Sound { raw, value: &value, row: &row }), seen)))
    }
}

fn rejected(message: String) -> Rejected {
    Rejected { faults: vec![Fault { path: String::new(), message }] }
}

/// A line's value.
fn parsed(line: &[u8]) -> Result<Json<'_>, String> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        format!(
            "not UTF-8: byte {:#04x} at column {}: save the file as UTF-8",
            line.get(at).copied().unwrap_or_default(),
            at + 1
        )
    })?;
    if line.len() > LARGE_LINE_BYTES && memchr::memchr3_iter(b',', b'[', b'{', line).count() > MAX_VALUES {
        return Err(format!("more than {MAX_VALUES} values in one row"));
    }
    serde_json::from_str(text).map_err(|error| {
        let (column, why) = (error.column(), error.to_string());
        let why = why.split(" at line ").next().unwrap_or_default();
        format!("not JSON: {why} at column {column}: a row is one JSON object on one line")
    })
}

/// A kind of oddity over the whole file.
#[derive(Debug, Default)]
struct Odd {
    count: u64,
    lines: Vec<u64>,
}

/// A check that runs.
pub(crate) struct Check<'c> {
    options: Options,
    count: &'c dyn Count,
    progress: &'c mut dyn FnMut(u64),
    errors: Vec<Problem>,
    error_count: u64,
    odd: BTreeMap<Oddity, Odd>,
    tokens: Histogram,
    assistant: Histogram,
    messages: Histogram,
    over_limit: u64,
    over_limit_lines: Vec<u64>,
    billed: u64,
    cut: u64,
    missing_system: u64,
    missing_user: u64,
    survey: Option<Survey>,
}

/// What one file was.
struct Walked {
    rows: u64,
    examples: u64,
    bytes: u64,
    oddities: Oddities,
    format: Option<Format>,
}

impl<'c> Check<'c> {
    pub(crate) fn new(options: &Options, count: &'c dyn Count, progress: &'c mut dyn FnMut(u64)) -> Self {
        Self {
            options: *options,
            count,
            progress,
            errors: Vec::new(),
            error_count: 0,
            odd: BTreeMap::new(),
            tokens: Histogram::default(),
            assistant: Histogram::default(),
            messages: Histogram::default(),
            over_limit: 0,
            over_limit_lines: Vec::new(),
            billed: 0,
            cut: 0,
            missing_system: 0,
            missing_user: 0,
            survey: (!options.fast).then(Survey::default),
        }
    }

    pub(crate) fn run(mut self, source: impl Read, validation: Option<impl Read>) -> io::Result<Report> {
        let walked = self.walk(source, Side::Training, 0)?;
        if let Some(validation) = validation {
            // the validation file has the same kind of rows
            self.options.format = self.options.format.or(walked.format);
            self.walk(validation, Side::Validation, walked.bytes)?;
        }
        Ok(self.report(&walked))
    }

    fn walk(&mut self, source: impl Read, side: Side, bytes_before: u64) -> io::Result<Walked> {
        let mut rows = Rows::new(source, &self.options);
        let (mut examples, mut all, mut format, mut told) = (0, 0, None, 0);
        while let Some(found) = rows.next_row(|line, row, seen| self.row(side, line, row, seen))? {
            all += 1;
            examples += u64::from(found.is_some());
            format = format.or(found);
            if rows.bytes() - told >= PROGRESS_BYTES {
                told = rows.bytes();
                (self.progress)(bytes_before + told);
            }
        }
        (self.progress)(bytes_before + rows.bytes());
        if all == 0 {
            self.fail(side, None, Fault { path: String::new(), message: "the file has no rows".to_owned() });
        } else if side == Side::Training && all < self.options.min_examples {
            let message = format!(
                "{all} {}, where a training file needs at least {}: 50 to 100 are recommended",
                if all == 1 { "row" } else { "rows" },
                self.options.min_examples
            );
            self.fail(side, None, Fault { path: String::new(), message });
        }
        Ok(Walked { rows: all, examples, bytes: rows.bytes(), oddities: rows.oddities(), format })
    }

    /// Takes one row in; its format, if it is sound.
    fn row(&mut self, side: Side, line: u64, row: Result<Sound<'_>, Rejected>, seen: Seen) -> Option<Format> {
        let row = match row {
            Ok(sound) => sound.row,
            Err(rejected) => {
                self.error_count += seen.more_faults;
                rejected.faults.into_iter().for_each(|fault| self.fail(side, Some(line), fault));
                return None;
            }
        };
        let tokens = of_row(row, self.count);
        if side == Side::Training {
            for oddity in seen.oddities {
                let odd = self.odd.entry(oddity).or_default();
                odd.count += 1;
                if odd.lines.len() < KEPT_LINES {
                    odd.lines.push(line);
                }
            }
            self.figures(line, row, tokens.all, tokens.assistant);
        }
        if let Some(survey) = &mut self.survey {
            survey.add(side, line, row, tokens.answer);
        }
        Some(row.format)
    }

    fn figures(&mut self, line: u64, row: &Row<'_>, all: u64, assistant: u64) {
        let limit = self.options.row_limit as u64;
        self.tokens.add(all);
        self.assistant.add(assistant);
        self.messages.add(row.messages.len() as u64);
        if all > limit {
            self.over_limit += 1;
            if self.over_limit_lines.len() < KEPT_LINES {
                self.over_limit_lines.push(line);
            }
        }
        self.billed += all.min(limit);
        self.cut += all.saturating_sub(limit);
        if row.format != Format::Completion {
            let has = |role: fn(Role) -> bool| row.messages.iter().any(|message| role(message.role));
            self.missing_system += u64::from(!has(Role::is_systems));
            self.missing_user += u64::from(!has(|role| role == Role::User));
        }
    }

    fn fail(&mut self, file: Side, line: Option<u64>, fault: Fault) {
        self.error_count += 1;
        if self.errors.len() < KEPT_ERRORS {
            self.errors.push(Problem { file, line, path: fault.path, message: fault.message });
        }
    }

    fn report(self, walked: &Walked) -> Report {
        let epochs = self.options.epochs.unwrap_or_else(|| default_epochs(walked.examples));
        let mut warnings = of_bytes(walked.oddities);
        warnings.extend(self.odd.into_iter().map(|(oddity, odd)| Warning {
            kind: kind(oddity).to_owned(),
            count: odd.count,
            message: words(oddity, odd.count),
            lines: odd.lines,
        }));
        let limit = self.options.row_limit as u64;
        if self.over_limit > 0 {
            warnings.push(Warning {
                kind: "over_limit".to_owned(),
                count: self.over_limit,
                lines: self.over_limit_lines,
                message: format!(
                    "{} longer than the {limit} tokens that the model takes in a row: {} tokens at their ends would be \
                     cut off and not learned; shorten or split these rows",
                    rows_are(self.over_limit),
                    self.cut
                ),
            });
        }
        if self.missing_user > 0 {
            warnings.push(Warning {
                kind: "missing_user".to_owned(),
                count: self.missing_user,
                lines: Vec::new(),
                message: format!(
                    "{} without a message of the user: is that meant so?",
                    rows_are(self.missing_user)
                ),
            });
        }
        let found =
            self.survey.map(|survey| survey.finish(walked.format, walked.examples)).unwrap_or_default();
        warnings.extend(found.warnings);
        Report {
            examples: walked.examples,
            errors: self.errors,
            error_count: self.error_count,
            warnings,
            tokens: self.tokens.distribution(),
            assistant_tokens: self.assistant.distribution(),
            messages: self.messages.distribution(),
            over_limit: self.over_limit,
            billed_tokens: self.billed,
            epochs,
            total_billed_tokens: self.billed.saturating_mul(u64::from(epochs)),
            cost_usd_by_target: BTreeMap::new(),
            format: walked.format,
            rows: walked.rows,
            bytes: walked.bytes,
            row_limit: limit,
            cut_tokens: self.cut,
            missing_system: self.missing_system,
            missing_user: self.missing_user,
            system_prompt: found.system_prompt,
            languages: found.languages,
            findings: found.findings,
        }
    }
}

/// `1 row is`, `2 rows are`.
pub(crate) fn rows_are(rows: u64) -> String {
    if rows == 1 { "1 row is".to_owned() } else { format!("{rows} rows are") }
}

/// `1 row has`, `2 rows have`.
pub(crate) fn rows_have(rows: u64) -> String {
    if rows == 1 { "1 row has".to_owned() } else { format!("{rows} rows have") }
}

fn of_bytes(oddities: Oddities) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind: &str, count: u64, message: &str| {
        if count > 0 {
            let (kind, message) = (kind.to_owned(), message.to_owned());
            warnings.push(Warning { kind, count, lines: Vec::new(), message });
        }
    };
    warn(
        "byte_order_mark",
        u64::from(oddities.byte_order_mark),
        "the file begins with a byte order mark: it is accepted, but save it without one",
    );
    warn(
        "carriage_returns",
        oddities.carriage_returns,
        "lines end with CR LF: that is accepted, but save the file with LF alone",
    );
    warn("blank_lines", oddities.blank_lines, "blank lines are skipped: take them out");
    warnings
}

const fn kind(oddity: Oddity) -> &'static str {
    match oddity {
        Oddity::UnknownMember => "unknown_members",
        Oddity::PreferredCompletion => "preferred_completion",
        Oddity::NothingTrained => "nothing_trained",
        Oddity::EndsWithoutAnswer => "ends_without_answer",
        Oddity::ArgumentsNoJson => "arguments_no_json",
        Oddity::NoSuchCall => "no_such_call",
        Oddity::Image => "images",
        Oddity::OldFunctions => "old_functions",
    }
}

fn words(oddity: Oddity, rows: u64) -> String {
    let have = rows_have(rows);
    match oddity {
        Oddity::UnknownMember => {
            format!(
                "{have} members that the provider does not read: take them out, some providers refuse them"
            )
        }
        Oddity::PreferredCompletion => format!(
            "{have} `preferred_completion`, which providers call `preferred_output`: `tunegate dataset convert` renames it"
        ),
        Oddity::NothingTrained => {
            format!(
                "{have} only answers of weight 0: nothing is learned from them, but they are billed; drop them"
            )
        }
        Oddity::EndsWithoutAnswer => {
            format!(
                "{have} messages behind the last answer: they are billed and teach nothing; end with the answer"
            )
        }
        Oddity::ArgumentsNoJson => {
            format!("{have} arguments of a call that are no JSON: the model would learn to write such")
        }
        Oddity::NoSuchCall => {
            format!("{have} a tool's message whose `tool_call_id` is of no call before it: correct the id")
        }
        Oddity::Image => format!(
            "{have} images: each is counted as {IMAGE} tokens (85 in low detail); what is billed depends on its size"
        ),
        Oddity::OldFunctions => format!(
            "{have} `functions` or `function_call`: they are accepted; `tunegate dataset convert` makes `tools` of them"
        ),
    }
}

#[cfg(test)]
mod tests;
