//! A fixed set of short questions, English and Japanese, that any usable model answers. What a fine-tuned model answers
//! worse than its base was forgotten in training.

use serde::Deserialize;
use serde_json::{Map, json};

use super::words::contains;

const QUESTIONS: &str = include_str!("general.jsonl");

/// A question with a checkable answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// `en` or `ja`.
    pub language: Language,
    /// What is asked.
    pub question: String,
    /// An answer is right that has one of these in it, from word to word.
    pub accept: Vec<String>,
}

/// The language of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    En,
    /// Japanese.
    Ja,
}

impl Language {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ja => "ja",
        }
    }

    /// How a short answer is asked for.
    const fn manner(self) -> &'static str {
        match self {
            Self::En => "Answer in a few words.",
            Self::Ja => "短く答えてください。",
        }
    }
}

impl Question {
    /// The request, but for the model.
    pub fn asked(&self) -> Map<String, serde_json::Value> {
        let words = format!("{} {}", self.question, self.language.manner());
        Map::from_iter([("messages".to_owned(), json!([{"role": "user", "content": words}]))])
    }

    /// Whether an answer is right.
    pub fn is_answered_by(&self, text: &str) -> bool {
        self.accept.iter().any(|accepted| contains(text, accepted))
    }
}

/// All questions, always the same and in the same order.
pub fn questions() -> Vec<Question> {
    QUESTIONS.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_sound_and_no_answer_stands_in_it() {
        let questions = questions();
        assert_eq!(questions.len(), QUESTIONS.lines().count(), "a line can't be read");
        assert!(questions.len() >= 40);
        for language in [Language::En, Language::Ja] {
            assert!(questions.iter().filter(|one| one.language == language).count() >= 20, "{language:?}");
        }
        for one in &questions {
            assert!(!one.accept.is_empty(), "{}", one.question);
            assert!(
                !one.is_answered_by(&one.question),
                "it can be answered by repeating it: {}",
                one.question
            );
            assert!(one.accept.iter().all(|accepted| one.is_answered_by(accepted)), "{}", one.question);
            let asked = |other: &&Question| other.question == one.question;
            assert_eq!(questions.iter().filter(asked).count(), 1, "{}", one.question);
        }
    }
}
