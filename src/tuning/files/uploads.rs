//! Uploads in parts: begun, filled by parts in any order and at once, completed in the order that the client says.

use std::collections::HashMap;

use super::{Files, Most, NewFile, Receiving, blocking, must_may, new_file, stored};
use crate::domain::key::Tuning;
use crate::domain::tuning::{
    Caller, Id, Purpose, TrainingFile, UPLOAD_LIFE_MS, Upload, UploadPart, UploadStatus,
};
use crate::store::uploads::{Added, Bounds};
use crate::tuning::{Noun, TuningError};

/// The longest part, bytes (OpenAI's limit).
pub const PART_BYTES: u64 = 64 << 20;
/// Parts of one upload.
const MOST_PARTS: i64 = 1_000;

/// What is said of an upload that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The name of the file to be, as it is kept.
    pub filename: String,
    /// What the file is for.
    pub purpose: Purpose,
    /// How long it will be, bytes.
    pub bytes: u64,
    /// The media type that the client says it has.
    pub mime_type: String,
    /// How long the file is kept, ms.
    pub expires_after_ms: Option<i64>,
}

/// What is said of an upload that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Its parts, in the order of the file.
    pub part_ids: Vec<String>,
    /// What the file's MD5 has to be, 32 hex digits.
    pub md5: Option<String>,
}

impl Files {
    /// Begins an upload.
    ///
    /// # Errors
    ///
    /// When the caller may not, or the file would be too long.
    pub async fn begin_upload(
        &self,
        caller: &Caller,
        begun: Begun,
        now_ms: i64,
    ) -> Result<Upload, TuningError> {
        must_may(caller, Tuning::Write)?;
        if begun.bytes > self.config.max_file_bytes {
            return Err(Most::File(self.config.max_file_bytes).passed());
        }
        let upload = Upload {
            id: Id::Upload.mint(rand::random()),
            owner: caller.owner(),
            filename: begun.filename,
            purpose: begun.purpose,
            mime_type: begun.mime_type,
            bytes: begun.bytes,
            status: UploadStatus::Pending,
            file_id: None,
            file_expires_after_ms: begun.expires_after_ms,
            created_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(UPLOAD_LIFE_MS),
        };
        self.uploads.insert(&upload).await.map_err(|error| stored(&error))?;
        Ok(upload)
    }

    /// Finds an upload of the caller's that may still be changed.
    ///
    /// # Errors
    ///
    /// When the caller may not, has none of that id, or it has ended.
    pub async fn pending_upload(
        &self,
        caller: &Caller,
        id: &str,
        now_ms: i64,
    ) -> Result<Upload, TuningError> {
        must_may(caller, Tuning::Write)?;
        let found = self.uploads.find(id).await.map_err(|error| stored(&error))?;
        let found = found.filter(|upload| caller.finds(&upload.owner));
        let upload = found.ok_or_else(|| TuningError::not_found(Noun::Upload, id))?;
        match upload.status {
            UploadStatus::Pending if upload.expires_at_ms > now_ms => Ok(upload),
            UploadStatus::Pending => Err(over(UploadStatus::Expired)),
            other => Err(over(other)),
        }
    }

    /// Begins to receive a part.
    ///
    /// # Errors
    ///
    /// When the upload is not the caller's or takes no more, or there is no room.
    pub async fn receive_part(
        &self,
        caller: &Caller,
        upload_id: &str,
        now_ms: i64,
    ) -> Result<Receiving, TuningError> {
        let upload = self.pending_upload(caller, upload_id, now_ms).await?;
        self.receive_at_most(Some(upload.owner), Most::Part(PART_BYTES)).await
    }

    /// Keeps a part that was received.
    ///
    /// # Errors
    ///
    /// When the upload takes no more; nothing of the part stays then.
    pub async fn add_part(
        &self,
        caller: &Caller,
        upload_id: &str,
        received: Receiving,
        now_ms: i64,
    ) -> Result<UploadPart, TuningError> {
        let upload = self.pending_upload(caller, upload_id, now_ms).await?;
        let (mut kept, _room) = self.settle(received).await?;
        let part = UploadPart {
            id: Id::Part.mint(rand::random()),
            upload_id: upload.id,
            sha256: kept.sha256.clone(),
            bytes: kept.bytes,
            created_at_ms: now_ms,
        };
        // a part that was lost on its way back to the client comes again
        let twice = i64::try_from(upload.bytes.saturating_mul(2)).unwrap_or(i64::MAX);
        let bounds = Bounds { parts: MOST_PARTS, bytes: twice };
        let lost = self.lost(&kept.sha256).await?;
        kept.leave();
        match self.uploads.add_part(&part, &kept.place, lost, bounds).await {
            Ok(Added::Refused) => {
                self.unlink(kept.place.clone()).await;
                self.pending_upload(caller, upload_id, now_ms).await?;
                Err(TuningError::invalid(
                    "data",
                    format!(
                        "the upload is to have {} bytes, and takes twice that in at most {MOST_PARTS} parts: begin another",
                        upload.bytes
                    ),
                ))
            }
            Ok(Added::At(place)) => self.written(&kept, Ok(place)).await.map(|()| part),
            Err(error) => self.written(&kept, Err(error)).await.map(|()| part),
        }
    }

    /// Puts the parts together to a file of the caller's.
    ///
    /// # Errors
    ///
    /// When a part is not there, or the whole is not what was said; the upload stays as it is then.
    pub async fn complete_upload(
        &self,
        caller: &Caller,
        id: &str,
        completion: &Completion,
        now_ms: i64,
    ) -> Result<(Upload, TrainingFile), TuningError> {
        let mut upload = self.pending_upload(caller, id, now_ms).await?;
        let parts = self.ordered(&upload, &completion.part_ids).await?;
        let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        if bytes != upload.bytes {
            return Err(TuningError::invalid(
                "part_ids",
                format!("the parts have {bytes} bytes, and the upload is to have {}", upload.bytes),
            ));
        }
        let mut room = self.room().await?;
        room.grow(bytes)?;
        let mut paths = Vec::new();
        for part in &parts {
            let place = self.uploads_place(part).await?;
            paths.push(self.folder.path(&place));
        }
        let (folder, begun, kept) = (self.folder.clone(), rand::random(), rand::random());
        let hashed = completion.md5.is_some();
        let mut kept = blocking(move || {
            let draft = folder.begin(begun)?;
            let mut draft = if hashed { draft.with_md5() } else { draft };
            paths.iter().try_for_each(|path| draft.append(path))?;
            draft.keep(&folder, kept)
        })
        .await?;
        let found = kept.md5.clone().unwrap_or_default();
        if let Some(md5) = completion.md5.as_deref().filter(|md5| !md5.eq_ignore_ascii_case(&found)) {
            return Err(TuningError::invalid(
                "md5",
                format!("the parts in this order have the MD5 {found}, not {md5}: send them again"),
            ));
        }
        let new = NewFile {
            filename: upload.filename.clone(),
            purpose: upload.purpose,
            expires_after_ms: upload.file_expires_after_ms,
        };
        let file = new_file(upload.owner.clone(), &kept, new, now_ms);
        let lost = self.lost(&kept.sha256).await?;
        kept.leave();
        match self.uploads.complete(id, &file, &kept.place, lost).await {
            Ok(None) => {
                self.unlink(kept.place.clone()).await;
                self.pending_upload(caller, id, now_ms).await?;
                return Err(over(UploadStatus::Completed));
            }
            Ok(Some(place)) => self.written(&kept, Ok(place)).await?,
            Err(error) => self.written(&kept, Err(error)).await?,
        }
        self.remove_parts(id).await;
        self.waits.notify_one();
        (upload.status, upload.file_id) = (UploadStatus::Completed, Some(file.id.clone()));
        Ok((upload, file))
    }

    /// Gives an upload up. Its parts go.
    ///
    /// # Errors
    ///
    /// When it is not the caller's, or has ended.
    pub async fn cancel_upload(&self, caller: &Caller, id: &str, now_ms: i64) -> Result<Upload, TuningError> {
        let mut upload = self.pending_upload(caller, id, now_ms).await?;
        if !self.uploads.cancel(id).await.map_err(|error| stored(&error))? {
            self.pending_upload(caller, id, now_ms).await?;
        }
        self.remove_parts(id).await;
        upload.status = UploadStatus::Cancelled;
        Ok(upload)
    }

    /// The parts of an upload in an order. Each id once: a part is no two places of the file.
    async fn ordered(&self, upload: &Upload, ids: &[String]) -> Result<Vec<UploadPart>, TuningError> {
        let parts = self.uploads.parts(&upload.id).await.map_err(|error| stored(&error))?;
        let mut parts: HashMap<String, UploadPart> =
            parts.into_iter().map(|part| (part.id.clone(), part)).collect();
        let part = |id: &String| parts.remove(id).ok_or_else(|| TuningError::not_found(Noun::Part, id));
        ids.iter().map(part).collect()
    }

    async fn uploads_place(&self, part: &UploadPart) -> Result<String, TuningError> {
        let place = self.rows.place(&part.sha256).await.map_err(|error| stored(&error))?;
        place.ok_or_else(|| TuningError::not_found(Noun::Part, &part.id))
    }

    /// Takes the parts of an upload away that has ended. What fails here is swept later.
    async fn remove_parts(&self, upload_id: &str) {
        let parts = self.uploads.parts(upload_id).await.unwrap_or_default();
        for part in parts {
            match self.uploads.remove_part(&part.id).await {
                Ok(Some(place)) => self.unlink(place).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the parts of an upload stay for now; it is tried again");
                }
            }
        }
    }
}

/// What is said of an upload that has ended.
fn over(status: UploadStatus) -> TuningError {
    let message = match status {
        UploadStatus::Expired => {
            "the upload was not completed within an hour and has expired: begin another".to_owned()
        }
        other => format!("the upload is {}: begin another", other.name()),
    };
    TuningError::Invalid { message, param: None, code: "invalid_value" }
}
