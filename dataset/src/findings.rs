//! The checks beyond the format: rows beside each other, and what they say.

mod near;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::check::{rows_are, rows_have};
use crate::figures::Histogram;
use crate::hash;
use crate::json::Json;
use crate::language;
use crate::personal::{self, Kind};
use crate::report::{Finding, KEPT_LINES, LanguageRows, Side, SystemPrompt, Warning};
use crate::row::{Format, Message, Row};
pub(crate) use near::Signatures;

/// Rows that are compared for near duplicates; of larger files a sample.
const NEAR_ROWS: usize = 200_000;
/// Rows that are compared exactly; of larger files those of a part of all prompts.
const EXACT_ROWS: usize = 2_000_000;
/// Different system prompts that are told apart.
const SYSTEM_PROMPTS: usize = 1_000;
/// The longest system prompt whose text is kept, and the most bytes of all of them.
const SYSTEM_TEXT_BYTES: usize = 64 << 10;
const SYSTEM_TEXTS_BYTES: usize = 8 << 20;
/// Groups that are told with their lines, and lines of each.
const KEPT_GROUPS: usize = 20;
const KEPT_GROUP_LINES: usize = 10;
/// Answers this many times the range between the quartiles above the third quartile are outliers (Tukey's far fence).
const FENCE: f64 = 3.0;
/// Fewer answers have no outliers, and shorter ones are none.
const OUTLIERS_FROM_ROWS: u64 = 20;
const OUTLIERS_FROM_TOKENS: u64 = 50;
/// A language with less than this share of the answers is a stray, percent.
const STRAY_PERCENT: u64 = 10;

/// What is remembered of a row.
#[derive(Debug, Clone, Copy)]
struct Seen {
    line: u32,
    side: Side,
    whole: u64,
    prompt: u64,
    answer: u64,
}

/// A row in the sample for near duplicates.
#[derive(Debug, Clone, Copy)]
struct Near {
    line: u32,
    side: Side,
    draw: u64,
}

/// Lines on which something was found.
#[derive(Debug, Clone, Default)]
struct Hits {
    count: u64,
    lines: Vec<u64>,
}

impl Hits {
    fn add(&mut self, line: u64) {
        self.count += 1;
        if self.lines.len() < KEPT_LINES {
            self.lines.push(line);
        }
    }
}

/// How often something is said as the system.
#[derive(Debug)]
struct Spoken {
    rows: u64,
    first_line: u64,
    sha256: String,
    text: Option<String>,
}

/// What is remembered while the files are read.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    seen: Vec<Seen>,
    /// Prompts whose hash ends with so many zeros are remembered.
    seen_level: u32,
    near: Vec<Near>,
    signatures: Signatures,
    near_level: u32,
    /// Rows of both files.
    rows: u64,
    validation_rows: u64,
    spoken: HashMap<u64, Spoken>,
    spoken_bytes: usize,
    spoken_beyond: u64,
    empty: Hits,
    equal: Hits,
    answers: Histogram,
    longest: BinaryHeap<Reverse<(u64, u64)>>,
    personal: BTreeMap<Kind, Hits>,
    languages: BTreeMap<&'static str, Hits>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Vec<Finding>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) system_prompt: Option<SystemPrompt>,
    pub(crate) languages: Vec<LanguageRows>,
}

/// The hash of what a row asks: the texts before its answer, white space trimmed.
pub(crate) fn prompt_hash(row: &Row<'_>) -> u64 {
    said(row.prompt(), 1)
}

/// The hash of all that a row says.
pub(crate) fn row_hash(row: &Row<'_>) -> u64 {
    let tools = row.tools.iter().fold(2, |state, tool| hash::of(state, tool.written().as_bytes()));
    hash::mix(said(&row.messages, tools), row.answer_at as u64)
}

fn said(messages: &[Message<'_>], seed: u64) -> u64 {
    messages.iter().fold(seed, |state, message| {
        let state = hash::mix(state, message.role as u64);
        let mut state = hash::of(state, message.text.trim().as_bytes());
        for (name, value) in message.members {
            if matches!(name.as_ref(), "tool_calls" | "function_call")
                || (name == "content" && matches!(value, Json::List(_)))
            {
                state = hash::of(state, value.written().as_bytes());
            }
        }
        state
    })
}

/// What is compared for near duplicates: all but the system's words, which all rows may share.
pub(crate) fn compared<'r>(row: &'r Row<'_>) -> impl Iterator<Item = &'r str> {
    row.messages.iter().filter(|message| !message.role.is_systems()).map(|message| &*message.text)
}

const fn ends_with_zeros(number: u64, zeros: u32) -> bool {
    number.trailing_zeros() >= zeros
}

impl Survey {
    /// Looks at a row.
    pub(crate) fn add(&mut self, side: Side, line: u64, row: &Row<'_>, answer_tokens: u64) {
        self.rows += 1;
        let short_line = u32::try_from(line).unwrap_or(u32::MAX);
        let whole = row_hash(row);
        let answer = row.answer().map_or(0, |answer| said(std::slice::from_ref(answer), 3));
        self.remember(Seen { line: short_line, side, whole, prompt: prompt_hash(row), answer });
        self.remember_near(Near { line: short_line, side, draw: hash::mix(line, side as u64) }, row);
        if side == Side::Validation {
            self.validation_rows += 1;
            return;
        }
        self.hear(line, row);
        self.judge_answer(line, row, answer_tokens);
        self.look_for_personal(line, row);
        if let Some(answer) = row.answer() {
            self.languages.entry(language::of(&answer.text)).or_default().add(line);
        }
    }

    fn remember(&mut self, seen: Seen) {
        if !ends_with_zeros(seen.prompt, self.seen_level) {
            return;
        }
        self.seen.push(seen);
        if self.seen.len() > EXACT_ROWS {
            self.seen_level += 1;
            self.seen.retain(|seen| ends_with_zeros(seen.prompt, self.seen_level));
        }
    }

    fn remember_near(&mut self, near: Near, row: &Row<'_>) {
        if !ends_with_zeros(near.draw, self.near_level) {
            return;
        }
        self.near.push(near);
        self.signatures.add(compared(row));
        if self.near.len() > NEAR_ROWS {
            self.near_level += 1;
            let (near, level) = (&self.near, self.near_level);
            self.signatures.retain(|place| ends_with_zeros(near[place].draw, level));
            self.near.retain(|near| ends_with_zeros(near.draw, level));
        }
    }

    fn hear(&mut self, line: u64, row: &Row<'_>) {
        if row.format == Format::Completion {
            return;
        }
        let text = row.system();
        let key = hash::of(4, text.as_bytes());
        if let Some(spoken) = self.spoken.get_mut(&key) {
            spoken.rows += 1;
            return;
        }
        if self.spoken.len() >= SYSTEM_PROMPTS {
            self.spoken_beyond += 1;
            return;
        }
        let keeps = text.len() <= SYSTEM_TEXT_BYTES && self.spoken_bytes + text.len() <= SYSTEM_TEXTS_BYTES;
        let sha256 = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = keeps.then(|| text.into_owned());
        self.spoken_bytes += text.as_ref().map_or(0, String::len);
        self.spoken.insert(key, Spoken { rows: 1, first_line: line, sha256, text });
    }

    fn judge_answer(&mut self, line: u64, row: &Row<'_>, answer_tokens: u64) {
        let Some(answer) = row.answer() else { return };
        let calls = answer.members.iter().any(|(name, value)| {
            matches!(name.as_ref(), "tool_calls" | "function_call" | "refusal") && !value.is_null()
        });
        if answer.text.trim().is_empty() && !calls {
            self.empty.add(line);
        }
        if row.format == Format::Preference
            && let [one, other] = &row.messages[row.answer_at..]
            && said(std::slice::from_ref(one), 3) == said(std::slice::from_ref(other), 3)
        {
            self.equal.add(line);
        }
        self.answers.add(answer_tokens);
        if answer_tokens >= OUTLIERS_FROM_TOKENS {
            self.longest.push(Reverse((answer_tokens, line)));
            if self.longest.len() > KEPT_LINES {
                self.longest.pop();
            }
        }
    }

    fn look_for_personal(&mut self, line: u64, row: &Row<'_>) {
        let mut kinds: Vec<Kind> = Vec::new();
        for message in &row.messages {
            kinds.extend(personal::find(&message.text).into_iter().map(|found| found.kind));
        }
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            self.personal.entry(kind).or_default().add(line);
        }
    }

    /// What was found.
    pub(crate) fn finish(mut self, format: Option<Format>, examples: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let duplicates = self.exact_duplicates();
        outcome.tell(
            duplicates,
            "they are trained on (and billed) more often than the others; `tunegate dataset dedupe` drops them",
        );
        let (near, near_leaks) = self.near_duplicates();
        outcome
            .tell(near, "look at some, and drop what teaches nothing new: `tunegate dataset dedupe --near`");
        if self.validation_rows > 0 {
            let leakage = self.leakage(&near_leaks);
            outcome.tell(
                leakage,
                "the validation figures would be too good; `tunegate dataset split` keeps equal prompts on one side",
            );
        }
        if format != Some(Format::Preference) {
            let contradictions = self.contradictions();
            outcome.tell(contradictions, "the model would learn to guess; keep the better answer of each");
        }
        if format != Some(Format::Completion) && examples > 0 {
            let (finding, prompt) = self.system_prompts(examples);
            outcome.system_prompt = Some(prompt);
            outcome.tell(
                finding,
                "the model answers best to the words that it was trained with; use one system prompt \
                 (`tunegate dataset convert --system-prompt-file`), unless the difference is meant",
            );
        }
        self.about_answers(format, &mut outcome);
        self.about_persons(examples, &mut outcome);
        self.about_languages(examples, &mut outcome);
        outcome
    }

    /// Rows that were compared exactly.
    fn compared_exactly(&self) -> u64 {
        self.of(Side::Training).count() as u64
    }

    fn exact_method(&self, what: &str) -> String {
        match self.seen_level {
            0 => what.to_owned(),
            level => {
                format!("{what}; of the prompts one in {} is looked at, chosen by its hash", 1_u64 << level)
            }
        }
    }

    fn exact_duplicates(&mut self) -> Finding {
        let (count, lines, groups) = {
            let training: Vec<(u64, u32)> =
                self.of(Side::Training).map(|seen| (seen.whole, seen.line)).collect();
            repeated(training)
        };
        Finding {
            kind: "exact_duplicates".to_owned(),
            method: self.exact_method(
                "64-bit hash of all roles, texts, calls and tools, white space at the ends left out",
            ),
            threshold: "equal".to_owned(),
            rows_examined: self.compared_exactly(),
            words: format!("{count} rows say the same as an earlier row"),
            count,
            lines,
            groups,
        }
    }

    fn of(&self, side: Side) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.side == side)
    }

    /// Rows of the training file that are near an earlier one, and pairs of a row of the validation file with one of the
    /// training file.
    fn near_duplicates(&self) -> (Finding, Vec<(u32, u32)>) {
        let first = self.signatures.groups();
        let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, first) in first.iter().enumerate() {
            groups.entry(*first).or_default().push(place);
        }
        let (mut hits, mut shown, mut leaks) = (Hits::default(), Vec::new(), Vec::new());
        for places in groups.values().filter(|places| places.len() > 1) {
            let lines = |side: Side| {
                places
                    .iter()
                    .map(|place| self.near[*place])
                    .filter(move |near| near.side == side)
                    .map(|near| near.line)
            };
            let training: Vec<u32> = lines(Side::Training).collect();
            training.iter().skip(1).for_each(|line| hits.add(u64::from(*line)));
            if training.len() > 1 && shown.len() < KEPT_GROUPS {
                shown.push(training.iter().take(KEPT_GROUP_LINES).map(|line| u64::from(*line)).collect());
            }
            if let Some(of_training) = training.first() {
                leaks.extend(lines(Side::Validation).map(|line| (line, *of_training)));
            }
        }
        hits.lines.sort_unstable();
        let sample = match self.near_level {
            0 => String::new(),
            level => format!(
                "; a sample of {} of {} rows, one in {}, chosen by a hash of their line numbers",
                self.near.len(),
                self.rows,
                1_u64 << level
            ),
        };
        let finding = Finding {
            kind: "near_duplicates".to_owned(),
            method: format!("{}{sample}", near::METHOD),
            threshold: near::THRESHOLD.to_owned(),
            rows_examined: self.near.len() as u64,
            words: format!("{} rows say nearly or exactly the same as an earlier row", hits.count),
            count: hits.count,
            lines: hits.lines,
            groups: shown,
        };
        (finding, leaks)
    }

    fn leakage(&self, near: &[(u32, u32)]) -> Finding {
        let mut first_with: HashMap<u64, u32> = HashMap::new();
        for seen in self.of(Side::Training) {
            first_with.entry(seen.prompt).or_insert(seen.line);
        }
        let mut leaks: BTreeMap<u32, u32> = near.iter().copied().collect();
        for seen in self.of(Side::Validation) {
            if let Some(line) = first_with.get(&seen.prompt) {
                leaks.insert(seen.line, *line);
            }
        }
        let mut hits = Hits::default();
        leaks.keys().for_each(|line| hits.add(u64::from(*line)));
        let groups =
            leaks.iter().take(KEPT_GROUPS).map(|(one, other)| vec![u64::from(*one), u64::from(*other)]);
        Finding {
            kind: "leakage".to_owned(),
            method: self.exact_method("rows of the validation file whose prompt, or nearly all of whose text, is in the training file"),
            threshold: format!("equal prompt, or {}", near::THRESHOLD),
            rows_examined: self.validation_rows,
            words: format!("{} rows of the validation file are in the training file, too", hits.count),
            count: hits.count,
            lines: hits.lines,
            groups: groups.collect(),
        }
    }

    fn contradictions(&mut self) -> Finding {
        let mut training: Vec<Seen> = self.of(Side::Training).copied().collect();
        training.sort_unstable_by_key(|seen| (seen.prompt, seen.line));
        let mut groups: Vec<Vec<u64>> = training
            .chunk_by(|one, other| one.prompt == other.prompt)
            .filter(|group| group.iter().any(|seen| seen.answer != group[0].answer))
            .map(|group| group.iter().take(KEPT_GROUP_LINES).map(|seen| u64::from(seen.line)).collect())
            .collect();
        groups.sort_unstable();
        let count = groups.len() as u64;
        let mut lines: Vec<u64> = groups.iter().flatten().copied().take(KEPT_LINES).collect();
        lines.sort_unstable();
        groups.truncate(KEPT_GROUPS);
        Finding {
            kind: "contradictions".to_owned(),
            method: self
                .exact_method("equal hash of all that stands before the answer, another hash of the answer"),
            threshold: "equal prompt, different answer".to_owned(),
            rows_examined: self.compared_exactly(),
            words: format!("{count} prompts have answers that differ"),
            count,
            lines,
            groups,
        }
    }

    fn system_prompts(&mut self, examples: u64) -> (Finding, SystemPrompt) {
        let distinct = self.spoken.len() as u64 + u64::from(self.spoken_beyond > 0);
        let spoken = std::mem::take(&mut self.spoken);
        let mut all: Vec<Spoken> = spoken.into_values().collect();
        all.sort_unstable_by_key(|spoken| (Reverse(spoken.rows), spoken.first_line));
        let mut lines: Vec<u64> = all.iter().skip(1).map(|spoken| spoken.first_line).collect();
        lines.sort_unstable();
        lines.truncate(KEPT_LINES);
        let most = all.into_iter().next();
        let rows = most.as_ref().map_or(0, |most| most.rows);
        let count = examples.saturating_sub(rows);
        let finding = Finding {
            kind: "inconsistent_system_prompts".to_owned(),
            method: format!(
                "the leading messages of the system, compared byte by byte; up to {SYSTEM_PROMPTS} are told apart, `lines` \
                 has the first of each"
            ),
            threshold: "another one than most rows have".to_owned(),
            rows_examined: examples,
            words: format!(
                "{count} rows have another system prompt than the {rows} with the most frequent one"
            ),
            count,
            lines,
            groups: Vec::new(),
        };
        let prompt = SystemPrompt {
            sha256: most.as_ref().map(|most| most.sha256.clone()).unwrap_or_default(),
            text: most.and_then(|most| most.text),
            rows,
            distinct,
        };
        (finding, prompt)
    }

    fn about_answers(&mut self, format: Option<Format>, outcome: &mut Outcome) {
        let (empty, equal) = (std::mem::take(&mut self.empty), std::mem::take(&mut self.equal));
        let rows = self.answers.rows();
        let finding = Finding {
            kind: "empty_answers".to_owned(),
            method: "the answer has neither text nor a call".to_owned(),
            threshold: "nothing but white space".to_owned(),
            rows_examined: rows,
            words: format!("{} an empty answer", rows_have(empty.count)),
            count: empty.count,
            lines: empty.lines,
            groups: Vec::new(),
        };
        outcome.tell(finding, "the model would learn to say nothing; write an answer or drop them");
        if format == Some(Format::Preference) {
            let finding = Finding {
                kind: "equal_answers".to_owned(),
                method: "hash of both answers".to_owned(),
                threshold: "equal".to_owned(),
                rows_examined: rows,
                words: format!("{} two answers that say the same", rows_have(equal.count)),
                count: equal.count,
                lines: equal.lines,
                groups: Vec::new(),
            };
            outcome.tell(finding, "there is nothing to prefer; drop them");
        }
        let (first, third) = (self.answers.quantile(0.25), self.answers.quantile(0.75));
        let fence = (third + FENCE * (third - first)).max(OUTLIERS_FROM_TOKENS as f64);
        let count = if rows < OUTLIERS_FROM_ROWS { 0 } else { self.answers.above(fence) };
        let longest = std::mem::take(&mut self.longest).into_iter();
        let mut lines: Vec<u64> = longest
            .filter(|Reverse((tokens, _))| *tokens as f64 > fence)
            .map(|Reverse((_, line))| line)
            .collect();
        lines.sort_unstable();
        if count == 0 {
            lines.clear();
        }
        let finding = Finding {
            kind: "outlier_answers".to_owned(),
            method: format!(
                "tokens of the answer above the third quartile by more than {FENCE} times the range between the quartiles \
                 (Tukey's far fence); from {OUTLIERS_FROM_ROWS} rows on"
            ),
            threshold: format!("more than {fence} tokens"),
            rows_examined: rows,
            words: format!("{} an answer far longer than the others", rows_have(count)),
            count,
            lines,
            groups: Vec::new(),
        };
        outcome.tell(finding, "look whether they belong here: each costs as much as many others");
    }

    fn about_persons(&mut self, examples: u64, outcome: &mut Outcome) {
        let mut personal = std::mem::take(&mut self.personal);
        for kind in Kind::ALL {
            let hits = personal.remove(&kind).unwrap_or_default();
            let finding = Finding {
                kind: kind.name().to_owned(),
                method: kind.method().to_owned(),
                threshold: "one".to_owned(),
                rows_examined: examples,
                words: format!("{} what look like {}", rows_have(hits.count), kind.plural()),
                count: hits.count,
                lines: hits.lines,
                groups: Vec::new(),
            };
            let advice = match kind {
                Kind::Key => {
                    "a model repeats what it has learned: revoke them, and mask them with `tunegate dataset mask`"
                }
                _ => {
                    "a model repeats what it has learned: mask them with `tunegate dataset mask`, unless they are made up"
                }
            };
            outcome.tell(finding, advice);
        }
    }

    fn about_languages(&mut self, examples: u64, outcome: &mut Outcome) {
        let languages = std::mem::take(&mut self.languages);
        let mut all: Vec<LanguageRows> = languages
            .iter()
            .map(|(language, hits)| LanguageRows { language: (*language).to_owned(), rows: hits.count })
            .collect();
        all.sort_by_key(|language| Reverse(language.rows));
        let is_stray = |rows: u64| rows * 100 < examples * STRAY_PERCENT;
        let strays: Vec<&LanguageRows> = all
            .iter()
            .filter(|language| {
                is_stray(language.rows) && !["und", "latin"].contains(&language.language.as_str())
            })
            .collect();
        let named: Vec<String> =
            strays.iter().map(|stray| format!("{} ({})", stray.language, stray.rows)).collect();
        let count = strays.iter().map(|stray| stray.rows).sum();
        let mut lines: Vec<u64> = strays
            .iter()
            .filter_map(|stray| languages.get(stray.language.as_str()))
            .flat_map(|hits| hits.lines.iter().copied())
            .collect();
        lines.sort_unstable();
        lines.truncate(KEPT_LINES);
        let finding = Finding {
            kind: "language_mix".to_owned(),
            method: "the script of an answer's letters, and small words among languages of Latin script; the first 2,000 \
                     characters"
                .to_owned(),
            threshold: format!("a language of less than {STRAY_PERCENT} % of the answers"),
            rows_examined: examples,
            words: match named.is_empty() {
                true => "no language is rare among the answers".to_owned(),
                false => format!("{} answered in a language that is rare here: {}", rows_are(count), named.join(", ")),
            },
            count,
            lines,
            groups: Vec::new(),
        };
        outcome.languages = all;
        outcome.tell(
            finding,
            "the model may answer in it unasked; translate or drop them, unless they are meant",
        );
    }
}

impl Outcome {
    /// Adds a finding; a warning with it, where something was found.
    fn tell(&mut self, finding: Finding, advice: &str) {
        if finding.count > 0 {
            self.warnings.push(Warning {
                kind: finding.kind.clone(),
                count: finding.count,
                lines: finding.lines.clone(),
                message: format!("{}: {advice}", finding.words),
            });
        }
        self.findings.push(finding);
    }
}

/// Rows that repeat an earlier one: how many, their lines, and groups of equal ones.
fn repeated(mut rows: Vec<(u64, u32)>) -> (u64, Vec<u64>, Vec<Vec<u64>>) {
    rows.sort_unstable();
    let mut lines: Vec<u64> = Vec::new();
    let mut groups: Vec<Vec<u64>> = Vec::new();
    for group in rows.chunk_by(|one, other| one.0 == other.0).filter(|group| group.len() > 1) {
        lines.extend(group.iter().skip(1).map(|(_, line)| u64::from(*line)));
        groups.push(group.iter().take(KEPT_GROUP_LINES).map(|(_, line)| u64::from(*line)).collect());
    }
    let count = lines.len() as u64;
    lines.sort_unstable();
    lines.truncate(KEPT_LINES);
    groups.sort_unstable();
    groups.truncate(KEPT_GROUPS);
    (count, lines, groups)
}

#[cfg(test)]
mod tests;
