//! Files that models are trained on, the results of jobs, and uploads in parts.
//!
//! Source: OpenAI's specification 2.3.0 (2026-08-21), `/files` and `/uploads`.

use serde::{Deserialize, Serialize};

use super::owner::Owner;

/// The longest that a file may be kept for before it goes by itself, seconds: 30 days.
pub const LONGEST_EXPIRY_S: u64 = 2_592_000;
/// The shortest, seconds: an hour.
pub const SHORTEST_EXPIRY_S: u64 = 3_600;
/// How long an upload may take, ms.
pub const UPLOAD_LIFE_MS: i64 = 3_600_000;
/// The longest name of a file, bytes.
pub const MAX_FILENAME_BYTES: usize = 512;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A model is trained on it.
    FineTune,
    /// A job made it.
    FineTuneResults,
}

impl Purpose {
    /// OpenAI's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FineTune => "fine-tune",
            Self::FineTuneResults => "fine-tune-results",
        }
    }

    /// Reads back what [`Purpose::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FineTune, Self::FineTuneResults].into_iter().find(|purpose| purpose.name() == name)
    }

    /// Reads what an upload says. The articles of 2023 write `fine_tune`.
    ///
    /// # Errors
    ///
    /// With words for the client, when such files are not kept here.
    pub fn of_upload(word: &str) -> Result<Self, String> {
        match word {
            "fine-tune" | "fine_tune" => Ok(Self::FineTune),
            "assistants" | "batch" | "vision" | "user_data" | "evals" => Err(format!(
                "files with the purpose '{word}' are not kept by this gateway: it takes 'fine-tune'"
            )),
            _ => Err(format!("'{}' is not one of ['fine-tune'] - 'purpose'", cut(word))),
        }
    }
}

/// How the check of a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileStatus {
    /// It is not over.
    Checking,
    /// The file may be trained on.
    Processed,
    /// It may not; its details say why.
    Error,
}

impl FileStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Checking, Self::Processed, Self::Error];

    /// The name in rows and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Processed => "processed",
            Self::Error => "error",
        }
    }

    /// OpenAI's word.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Checking => "uploaded",
            Self::Processed => "processed",
            Self::Error => "error",
        }
    }

    /// Reads back what [`FileStatus::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A file as its owner has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingFile {
    /// `file-…`
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// As it was uploaded.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How long it is, bytes.
    pub bytes: u64,
    /// Of its content, 64 hex digits.
    pub sha256: String,
    /// How its check stands.
    pub status: FileStatus,
    /// What is wrong with it.
    pub status_details: Option<String>,
    /// When it was uploaded, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it goes by itself, ms since 1970 UTC.
    pub expires_at_ms: Option<i64>,
    /// Of the system prompt that its rows have, 64 hex digits; none before it was checked, or where they have none.
    pub system_prompt_sha256: Option<String>,
}

/// How an upload in parts stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UploadStatus {
    /// Parts may come.
    Pending,
    /// It is a file now.
    Completed,
    /// It was given up.
    Cancelled,
    /// Nobody completed it in time.
    Expired,
}

impl UploadStatus {
    const ALL: [Self; 4] = [Self::Pending, Self::Completed, Self::Cancelled, Self::Expired];

    /// OpenAI's word, also the name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads back what [`UploadStatus::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A file that comes in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// `upload_…`
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// The name of the file to be.
    pub filename: String,
    /// What the file is for.
    pub purpose: Purpose,
    /// The media type that the client says it has.
    pub mime_type: String,
    /// How long the file will be, bytes.
    pub bytes: u64,
    /// How it stands.
    pub status: UploadStatus,
    /// What it became.
    pub file_id: Option<String>,
    /// How long the file is kept, ms.
    pub file_expires_after_ms: Option<i64>,
    /// When it was begun, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// Until when it may be completed, ms since 1970 UTC.
    pub expires_at_ms: i64,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    /// `part_…`
    pub id: String,
    /// Of which upload.
    pub upload_id: String,
    /// Of its content, 64 hex digits.
    pub sha256: String,
    /// How long it is, bytes.
    pub bytes: u64,
    /// When it came, ms since 1970 UTC.
    pub created_at_ms: i64,
}

/// A client's word, as far as it is repeated to it.
fn cut(word: &str) -> String {
    word.chars().take(64).collect()
}

/// A file's name as it is kept: without a path, without control characters, and not too long.
///
/// # Errors
///
/// With words for the client, when nothing of it is left, or too much.
pub fn filename(text: &str) -> Result<String, String> {
    let name = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    match name.trim() {
        "" => Err("the file has no name: send one, such as filename=\"train.jsonl\"".to_owned()),
        long if long.len() > MAX_FILENAME_BYTES => {
            Err(format!("the file's name is longer than {MAX_FILENAME_BYTES} bytes"))
        }
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for purpose in [Purpose::FineTune, Purpose::FineTuneResults] {
            assert_eq!(Purpose::from_name(purpose.name()), Some(purpose));
        }
        for status in FileStatus::ALL {
            assert_eq!(FileStatus::from_name(status.name()), Some(status));
        }
        for status in UploadStatus::ALL {
            assert_eq!(UploadStatus::from_name(status.name()), Some(status));
        }
    }

    #[test]
    fn what_an_upload_may_be_for() {
        for word in ["fine-tune", "fine_tune"] {
            assert_eq!(Purpose::of_upload(word), Ok(Purpose::FineTune));
        }
        for (word, said) in [
            ("batch", "are not kept by this gateway: it takes 'fine-tune'"),
            ("fine-tune-results", "is not one of ['fine-tune']"),
            ("", "is not one of ['fine-tune']"),
        ] {
            let error = Purpose::of_upload(word).expect_err(word);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        for (text, want) in [
            ("train.jsonl", Some("train.jsonl")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\data\\猫.jsonl", Some("猫.jsonl")),
            (" a\r\nb ", Some("ab")),
            ("", None),
            ("a/", None),
            ("\u{7f}", None),
        ] {
            assert_eq!(filename(text).ok().as_deref(), want, "{text:?}");
        }
        assert!(filename(&"a".repeat(MAX_FILENAME_BYTES + 1)).is_err());
    }
}
