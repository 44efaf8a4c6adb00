//! Files and uploads: kept in memory, byte for byte.

use std::sync::Arc;

use serde_json::Value;

use super::super::super::multipart;
use super::super::endpoints::House;
use super::super::errors::Trouble;
use super::time::{Beat, Pace};
use super::{Account, Answered, Asked, Route, Served, Workshop, azure, list, openai, page};

/// What files may be uploaded for.
const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];
/// The largest file.
const MOST_BYTES: usize = 512 * 1024 * 1024;
/// How long an upload stays open at OpenAI, seconds.
const UPLOAD_SECONDS: i64 = 3_600;

/// How a file stands. OpenAI's are processed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileState {
    Pending,
    Running,
    Processed,
    /// With what is wrong.
    Error(String),
}

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct StoredFile {
    pub(crate) id: String,
    pub(crate) account: Account,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) created_s: i64,
    pub(crate) state: FileState,
    beat: Beat,
}

impl StoredFile {
    const fn is_under_way(&self) -> bool {
        matches!(self.state, FileState::Pending | FileState::Running)
    }

    fn step(&mut self) {
        self.state = match self.state {
            FileState::Pending => FileState::Running,
            FileState::Running => match first_broken_line(&self.bytes) {
                Some(line) if self.purpose == "fine-tune" => {
                    FileState::Error(format!("jsonlValidationFailed: line {line} is not a JSON object."))
                }
                _ => FileState::Processed,
            },
            FileState::Processed | FileState::Error(_) => return,
        }
    }
}

/// The first line that is no JSON object, counted from 1.
pub(super) fn first_broken_line(bytes: &[u8]) -> Option<usize> {
    rows(bytes).position(|row| !row.is_some_and(|row| row.is_object())).map(|at| at + 1)
}

/// The rows of a JSONL file; nothing for one that is no JSON.
pub(super) fn rows(bytes: &[u8]) -> impl Iterator<Item = Option<Value>> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| serde_json::from_slice(line).ok())
}

/// How an upload in parts stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadState {
    Pending,
    Completed,
    Cancelled,
}

/// A file that comes in parts.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) id: String,
    account: Account,
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) bytes: u64,
    pub(super) created_s: i64,
    pub(super) expires_s: i64,
    pub(super) state: UploadState,
    parts: Vec<(String, Vec<u8>)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) stored: Vec<StoredFile>,
    uploads: Vec<Upload>,
}

impl Files {
    pub(super) fn move_on(&mut self, pace: Pace, now_ms: i64, polled: Option<&str>) {
        for file in self.stored.iter_mut().filter(|file| file.is_under_way()) {
            for _ in 0..file.beat.steps(pace, now_ms, polled == Some(file.id.as_str())) {
                file.step();
            }
        }
    }

    pub(super) fn step(&mut self) {
        self.stored.iter_mut().for_each(StoredFile::step);
    }

    /// A file of an account.
    pub(super) fn find(&self, account: Account, id: &str) -> Option<&StoredFile> {
        self.stored.iter().find(|file| file.account == account && file.id == id)
    }

    /// Keeps what the provider itself has written.
    pub(super) fn keep_result(&mut self, id: String, account: Account, bytes: Vec<u8>, now_s: i64) {
        self.stored.push(StoredFile {
            id,
            account,
            filename: "step_metrics.csv".to_owned(),
            purpose: "fine-tune-results".to_owned(),
            bytes: Arc::new(bytes),
            created_s: now_s,
            state: FileState::Processed,
            beat: Beat::since(now_s * 1_000),
        });
    }
}

impl Workshop {
    pub(super) fn serve_files(&mut self, asked: &Asked<'_>) -> Answered {
        match asked.route {
            Route::UploadFile => self.upload_file(asked),
            Route::ListFiles => Ok(self.list_files(asked)),
            Route::CreateUpload => self.create_upload(asked),
            Route::AddPart => self.add_part(asked),
            Route::CompleteUpload => self.complete_upload(asked),
            Route::CancelUpload => self.cancel_upload(asked),
            _ => self.serve_file(asked),
        }
    }

    fn serve_file(&mut self, asked: &Asked<'_>) -> Answered {
        let missing = || asked.not_found(&format!("No such File object: {}", asked.id));
        let file = self.files.find(asked.account(), &asked.id).ok_or_else(missing)?;
        match asked.route {
            Route::FileContent => {
                let is_result = file.purpose == "fine-tune-results" && file.account == Account::OpenAi;
                let bytes = match is_result {
                    true => openai::result_content(&file.bytes),
                    false => file.bytes.to_vec(),
                };
                Ok(Served::bytes(200, "application/octet-stream", bytes))
            }
            Route::DeleteFile => {
                self.files.stored.retain(|file| file.id != asked.id);
                Ok(Served::ok(&openai::deleted(&asked.id, "file")))
            }
            _ => Ok(Served::ok(&self.shown_file(asked.house, file))),
        }
    }

    fn shown_file(&self, house: House, file: &StoredFile) -> Value {
        match house {
            House::OpenAi => openai::file(file),
            House::AzureClassic | House::AzureV1 => azure::file(file),
        }
    }

    fn upload_file(&mut self, asked: &Asked<'_>) -> Answered {
        let content_type = asked.request.header("content-type").unwrap_or_default();
        let parts = multipart::parts(content_type, &asked.request.body)
            .ok_or_else(|| asked.invalid("Expected a multipart/form-data body.", None))?;
        let purpose = parts.iter().find(|part| part.name == "purpose");
        let purpose = purpose.map(|part| String::from_utf8_lossy(&part.bytes).into_owned());
        let purpose =
            purpose.ok_or_else(|| asked.invalid("'purpose' is a required property", Some("purpose")))?;
        let file = parts.into_iter().find(|part| part.name == "file" && part.filename.is_some());
        let file = file.ok_or_else(|| asked.invalid("'file' is a required property", Some("file")))?;
        let filename = file.filename.unwrap_or_default();
        let file = self.store(asked, filename, &purpose, file.bytes)?;
        Ok(self.created_file(asked, &file))
    }

    /// 201 and where it is, in Azure's classic API; 200 elsewhere.
    fn created_file(&self, asked: &Asked<'_>, file: &StoredFile) -> Served {
        let shown = self.shown_file(asked.house, file);
        match asked.house {
            House::AzureClassic => azure::created(asked, "files", &file.id, &shown),
            House::OpenAi | House::AzureV1 => Served::ok(&shown),
        }
    }

    fn store(
        &mut self,
        asked: &Asked<'_>,
        filename: String,
        purpose: &str,
        bytes: Vec<u8>,
    ) -> Result<StoredFile, Trouble> {
        if !PURPOSES.contains(&purpose) {
            let message = format!("'{purpose}' is not one of {PURPOSES:?} - 'purpose'");
            return Err(asked.invalid(&message, Some("purpose")));
        }
        if purpose == "fine-tune" && !filename.ends_with(".jsonl") {
            let message =
                format!("Invalid file format: '{filename}'. A file to fine-tune with ends in .jsonl.");
            return Err(asked.invalid(&message, Some("file")));
        }
        if bytes.is_empty() || bytes.len() > MOST_BYTES {
            return Err(asked.invalid("A file has 1 byte at least and 512 MB at most.", Some("file")));
        }
        let (account, now_ms) = (asked.account(), self.now_ms());
        let id = match account {
            Account::OpenAi => self.ids.next("file-"),
            Account::Azure => format!("file-{}", self.ids.hex()),
        };
        let state = match account {
            Account::OpenAi => FileState::Processed,
            Account::Azure => FileState::Pending,
        };
        let file = StoredFile {
            id,
            account,
            filename,
            purpose: purpose.to_owned(),
            bytes: Arc::new(bytes),
            created_s: now_ms / 1_000,
            state,
            beat: Beat::since(now_ms),
        };
        self.files.stored.push(file.clone());
        Ok(file)
    }

    fn list_files(&self, asked: &Asked<'_>) -> Served {
        let purpose = asked.parameter("purpose");
        let mut listed: Vec<&StoredFile> = self
            .files
            .stored
            .iter()
            .filter(|file| file.account == asked.account())
            .filter(|file| purpose.as_ref().is_none_or(|purpose| *purpose == file.purpose))
            .collect();
        if asked.parameter("order").as_deref() != Some("asc") {
            listed.reverse();
        }
        if asked.house == House::AzureClassic {
            // no pages there
            let all: Vec<Value> = listed.into_iter().map(azure::file).collect();
            return Served::ok(&serde_json::json!({"object": "list", "data": all}));
        }
        let after = asked.parameter("after");
        let (listed, more) = page(listed, |file| &file.id, after.as_deref(), asked.limit(10_000));
        let shown: Vec<Value> = listed.iter().map(|file| self.shown_file(asked.house, file)).collect();
        let ends = [listed.first(), listed.last()].map(|file| file.map(|file| file.id.clone()));
        let mut list = list(&shown, more);
        let [first, last] = ends;
        list["first_id"] = first.into();
        list["last_id"] = last.into();
        Served::ok(&list)
    }

    fn create_upload(&mut self, asked: &Asked<'_>) -> Answered {
        let body = asked.json()?;
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let missing =
            |name: &str| asked.invalid(&format!("Missing required parameter: '{name}'."), Some(name));
        let (filename, purpose) = (text("filename"), text("purpose"));
        text("mime_type").ok_or_else(|| missing("mime_type"))?;
        let now_s = self.now_ms() / 1_000;
        let upload = Upload {
            id: self.ids.next("upload_"),
            account: asked.account(),
            filename: filename.ok_or_else(|| missing("filename"))?,
            purpose: purpose.ok_or_else(|| missing("purpose"))?,
            bytes: body["bytes"].as_u64().ok_or_else(|| missing("bytes"))?,
            created_s: now_s,
            expires_s: now_s + UPLOAD_SECONDS,
            state: UploadState::Pending,
            parts: Vec::new(),
        };
        let shown = openai::upload(&upload, None);
        self.files.uploads.push(upload);
        Ok(Served::ok(&shown))
    }

    /// The upload of a call that is still open.
    fn open_upload(&mut self, asked: &Asked<'_>) -> Result<&mut Upload, Trouble> {
        let now_s = self.now_ms() / 1_000;
        let mut uploads = self.files.uploads.iter_mut();
        let upload = uploads.find(|upload| upload.id == asked.id && upload.account == asked.account());
        let upload = upload.ok_or_else(|| asked.not_found(&format!("Upload {} not found", asked.id)))?;
        if upload.state != UploadState::Pending || upload.expires_s <= now_s {
            return Err(asked.invalid(&format!("Upload {} is not pending", asked.id), None));
        }
        Ok(upload)
    }

    fn add_part(&mut self, asked: &Asked<'_>) -> Answered {
        let content_type = asked.request.header("content-type").unwrap_or_default();
        let parts = multipart::parts(content_type, &asked.request.body).unwrap_or_default();
        let data = parts.into_iter().find(|part| part.name == "data");
        let data = data.ok_or_else(|| asked.invalid("'data' is a required property", Some("data")))?;
        let (id, now_s) = (self.ids.next("part_"), self.now_ms() / 1_000);
        let upload = self.open_upload(asked)?;
        upload.parts.push((id.clone(), data.bytes));
        Ok(Served::ok(&openai::part(&id, &upload.id, now_s)))
    }

    fn complete_upload(&mut self, asked: &Asked<'_>) -> Answered {
        let body = asked.json()?;
        let wanted = body["part_ids"].as_array().cloned().unwrap_or_default();
        let upload = self.open_upload(asked)?.clone();
        let mut bytes = Vec::new();
        for id in &wanted {
            let part = upload.parts.iter().find(|(part, _)| id == part);
            let unknown = || asked.invalid(&format!("Part {id} is not in this upload"), Some("part_ids"));
            bytes.extend_from_slice(&part.ok_or_else(unknown)?.1);
        }
        if bytes.len() as u64 != upload.bytes {
            let message = format!("The parts have {} bytes, not {}", bytes.len(), upload.bytes);
            return Err(asked.invalid(&message, Some("bytes")));
        }
        let file = self.store(asked, upload.filename.clone(), &upload.purpose, bytes)?;
        let upload = self.open_upload(asked)?;
        upload.state = UploadState::Completed;
        let shown = openai::upload(upload, Some(&file));
        Ok(Served::ok(&shown))
    }

    fn cancel_upload(&mut self, asked: &Asked<'_>) -> Answered {
        let upload = self.open_upload(asked)?;
        upload.state = UploadState::Cancelled;
        Ok(Served::ok(&openai::upload(upload, None)))
    }
}
