//! From the rows of a file to tokens and what each is worth: the same text that is read when the model is used later,
//! and a loss on answers only.
//!
//! A conversation is one example. All answers that aren't of weight 0 are learned, each with the token that ends it. A
//! preference becomes two examples with the same prompt.

use std::fs::File;
use std::io;
use std::path::Path;

use tunegate_dataset::row::{Message as Said, Role, Row};
use tunegate_dataset::{Format, Options, Rows};
use tunegate_engine::train::{Example, Pair};

use crate::domain::tuning::request::MethodKind;
use crate::worker::model::Texts;
use crate::worker::text::{Message, TemplateError, TokenizerError};

/// The longest line, bytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Why a file can't be trained on.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum RowError {
    /// It can't be read.
    #[error("the file can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A row is no row, or none that is learned here.
    #[error("line {line}: {why}")]
    Row {
        /// Counted from 1.
        line: u64,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// There is none.
    #[error("the file holds no row")]
    Empty,
}

/// What is trained on.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::worker) enum Lessons {
    /// Answers to be given.
    Examples(Vec<Example>),
    /// Better and worse answers.
    Pairs(Vec<Pair>),
}

impl Lessons {
    /// How many rows.
    pub(in crate::worker) fn len(&self) -> usize {
        match self {
            Self::Examples(examples) => examples.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }
}

/// Reads a file for training with `method`. No row may have more than `longest` tokens.
///
/// # Errors
/// The first row that can't be trained on, with its line.
pub(in crate::worker) fn read(
    file: &Path,
    texts: &Texts,
    method: MethodKind,
    longest: usize,
) -> Result<Lessons, RowError> {
    let options = Options { images_allowed: false, max_line_bytes: MAX_LINE_BYTES, ..Options::default() };
    let mut rows = Rows::new(File::open(file)?, &options);
    let teacher = Teacher { texts, longest };
    let mut lessons = match method {
        MethodKind::Dpo => Lessons::Pairs(Vec::new()),
        MethodKind::Supervised | MethodKind::Reinforcement => Lessons::Examples(Vec::new()),
    };
    while let Some(taken) = rows.next_row(|line, sound, _| {
        let sound = sound.map_err(|rejected| RowError::Row { line, why: rejected.words() })?;
        teacher.take(sound.row, &mut lessons).map_err(|why| RowError::Row { line, why })
    })? {
        taken?;
    }
    if lessons.len() == 0 { Err(RowError::Empty) } else { Ok(lessons) }
}

/// Makes an example of a conversation, of which the messages at `answers` are learned: the tokens of training, and so
/// those of any measure that is to be held against a training's.
///
/// # Errors
/// Why it can't be learned.
pub(in crate::worker) fn example(
    texts: &Texts,
    messages: &[Message],
    answers: &[usize],
) -> Result<Example, String> {
    Teacher { texts, longest: usize::MAX }.chat(messages, answers)
}

struct Teacher<'t> {
    texts: &'t Texts,
    longest: usize,
}

impl Teacher<'_> {
    fn take(&self, row: &Row<'_>, lessons: &mut Lessons) -> Result<(), String> {
        match (row.format, lessons) {
            (Format::Chat, Lessons::Examples(examples)) => {
                let learned = |(at, message): (usize, &Said<'_>)| {
                    (message.role == Role::Assistant && message.trained).then_some(at)
                };
                let answers: Vec<usize> = row.messages.iter().enumerate().filter_map(learned).collect();
                if answers.is_empty() {
                    return Err("no answer is learned: each has the weight 0".to_owned());
                }
                examples.push(self.chat(&flat(row.messages.iter(), row)?, &answers)?);
                Ok(())
            }
            (Format::Completion, Lessons::Examples(examples)) => {
                let [prompt, completion] = row.messages.as_slice() else {
                    return Err("a prompt and a completion are needed".to_owned());
                };
                examples.push(self.completion(&prompt.text, &completion.text)?);
                Ok(())
            }
            (Format::Preference, Lessons::Pairs(pairs)) => {
                let (prompt, answers) = row.messages.split_at(row.answer_at.min(row.messages.len()));
                let [better, worse] = answers else {
                    return Err("a preferred and another answer are needed, of one message each".to_owned());
                };
                let side = |answer| self.chat(&flat(prompt.iter().chain([answer]), row)?, &[prompt.len()]);
                pairs.push(Pair { chosen: side(better)?, rejected: side(worse)? });
                Ok(())
            }
            (format, Lessons::Pairs(_)) => {
                Err(format!("a {} row: `dpo` learns from preferences", format.name()))
            }
            (Format::Preference, Lessons::Examples(_)) => {
                Err("a preference row: write `\"method\": {\"type\": \"dpo\"}` to learn from it".to_owned())
            }
            (Format::Reinforcement, Lessons::Examples(_)) => {
                Err("the last message is not the assistant's: there is no answer to learn".to_owned())
            }
        }
    }

    fn chat(&self, messages: &[Message], answers: &[usize]) -> Result<Example, String> {
        let Some(template) = &self.texts.template else {
            return Err("the model has no chat template: train it on prompts and completions".to_owned());
        };
        let lesson = template.lesson(messages, answers).map_err(|error: TemplateError| error.to_string())?;
        let encode = |text: &str| {
            self.texts.tokenizer.encode_rendered(text, lesson.guard).map_err(|error| broken(&error))
        };
        let mut example = Example { tokens: Vec::new(), weights: Vec::new() };
        for (prompt, answer) in &lesson.parts {
            let mut prompt = encode(prompt)?;
            if let Some(beginning) = self.texts.tokenizer.beginning()
                && example.tokens.is_empty()
                && prompt.first() != Some(&beginning)
            {
                prompt.insert(0, beginning);
            }
            self.add(&mut example, &prompt, 0.0)?;
            let answer = encode(answer)?;
            let end = answer.iter().position(|token| self.texts.tokenizer.is_end(*token));
            let end =
                end.ok_or("the model's chat template does not end an answer with a token that ends it")?;
            self.add(&mut example, &answer[..=end], 1.0)?;
            self.add(&mut example, &answer[end + 1..], 0.0)?;
        }
        Ok(example)
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Example, String> {
        let tokenizer = &self.texts.tokenizer;
        let mut example = Example { tokens: Vec::new(), weights: Vec::new() };
        let beginning: Vec<u32> = tokenizer.beginning().into_iter().collect();
        self.add(&mut example, &beginning, 0.0)?;
        self.add(&mut example, &tokenizer.encode(prompt).map_err(|error| broken(&error))?, 0.0)?;
        self.add(&mut example, &tokenizer.encode(completion).map_err(|error| broken(&error))?, 1.0)?;
        let end = tokenizer.end().ok_or("the model has no token that ends a text")?;
        self.add(&mut example, &[end], 1.0)?;
        Ok(example)
    }

    fn add(&self, example: &mut Example, tokens: &[u32], weight: f32) -> Result<(), String> {
        example.tokens.extend_from_slice(tokens);
        example.weights.resize(example.tokens.len(), weight);
        if example.tokens.len() > self.longest {
            return Err(format!(
                "the row is longer than {} tokens, which is what is trained on here: cut it into shorter ones",
                self.longest
            ));
        }
        Ok(())
    }
}

/// The messages as this backend's templates know them.
fn flat<'m>(messages: impl Iterator<Item = &'m Said<'m>>, row: &Row<'_>) -> Result<Vec<Message>, String> {
    if !row.tools.is_empty() {
        return Err("the row defines tools, and local models have none: take the row out".to_owned());
    }
    let flat = |message: &Said<'_>| {
        let calls = |name: &str| matches!(name, "tool_calls" | "function_call" | "tool_call_id");
        if message.members.iter().any(|(name, _)| calls(name)) {
            return Err("a message calls a tool, and local models have none: take the row out".to_owned());
        }
        let role = match message.role {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool | Role::Function => {
                return Err("a tool's message, and local models have no tools: take the row out".to_owned());
            }
        };
        Ok(Message { role, content: message.text.clone().into_owned() })
    };
    messages.map(flat).collect()
}

fn broken(error: &TokenizerError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::worker::testing;

    #[test]
    fn what_is_scored_is_what_is_learned_to_the_token() {
        let texts = Texts::load(&testing::model_file()).unwrap();
        let row = r#"{"messages": [{"role": "system", "content": "Be a cat"}, {"role": "user", "content": "Hi <|im_end|>"},
            {"role": "assistant", "content": "Nya!\nにゃあ"}]}"#;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}", row.replace('\n', "")).unwrap();
        let learned = read(file.path(), &texts, MethodKind::Supervised, 1024).unwrap();
        let says = |role, content: &str| Message { role, content: content.to_owned() };
        let messages =
            [says("system", "Be a cat"), says("user", "Hi <|im_end|>"), says("assistant", "Nya!\nにゃあ")];
        let scored = example(&texts, &messages, &[2]).unwrap();
        assert!(scored.weights.iter().filter(|weight| **weight > 0.0).count() > 4);
        assert_eq!(learned, Lessons::Examples(vec![scored]));
    }
}
