//! Training files: each content is kept once on disk, and belongs to whoever has a row that names it.
//!
//! For other rooms of the plane: [`Files::find`] and [`Files::list`] for a caller, [`Files::hold`] and [`Files::release`]
//! for a job that needs a file until it ends, [`Files::held`] and [`Files::path`] to read it meanwhile, deleted or not,
//! [`Files::put_bytes`] for what a job makes, [`Files::report`] for what the check found.

mod check;
mod receiving;
mod sweep;
mod uploads;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

pub use self::check::{Asked, Checker, Told};
use self::receiving::Shares;
pub use self::receiving::{Most, Receiving};
pub use self::uploads::{Begun, Completion, PART_BYTES};

use super::{Noun, TuningError};
use crate::domain::key::Tuning;
use crate::domain::tuning::{Caller, FileStatus, Id, Owner, Purpose, TrainingFile};
use crate::store::files::{Count, FileRows, Order, Wanted};
use crate::store::folder::{Folder, Kept};
use crate::store::uploads::UploadRows;
use crate::store::{Store, StoreError};

/// Files that are listed at once, at most and unasked (OpenAI's limit).
pub const MOST_LISTED: i64 = 10_000;
/// Contents that are received at once.
const RECEIVED_AT_ONCE: usize = 64;
/// Of these, one owner's: nobody slow keeps all others out.
const RECEIVED_OF_ONE: usize = 8;
/// Checks that operators ask for, at once.
const CHECKED_AT_ONCE: usize = 2;

/// Where files are, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder of contents. Gateways that share a database share it, too.
    pub folder: PathBuf,
    /// The longest file, bytes.
    pub max_file_bytes: u64,
    /// All contents together, bytes.
    pub max_folder_bytes: u64,
}

impl Config {
    /// The longest file unless the operator says otherwise: OpenAI's limit.
    pub const FILE_BYTES: u64 = 512 << 20;
    /// All of them together.
    pub const FOLDER_BYTES: u64 = 20 << 30;
}

/// The files.
#[derive(Debug)]
pub struct Files {
    config: Config,
    rows: FileRows,
    uploads: UploadRows,
    folder: Folder,
    /// Bytes that are being received, and no row has them yet.
    coming: Arc<AtomicU64>,
    places: Arc<Semaphore>,
    /// How many of them each owner has.
    shares: Shares,
    checks: Arc<Semaphore>,
    /// Told when a file waits to be checked.
    waits: Notify,
}

/// What an upload says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its name, as it is kept.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How long it is kept, ms; none until it is deleted.
    pub expires_after_ms: Option<i64>,
}

/// Which files a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What for; none for all.
    pub purpose: Option<Purpose>,
    /// In which order.
    pub order: Order,
    /// The id of the file before them.
    pub after: Option<String>,
    /// At most so many, 1 to [`MOST_LISTED`].
    pub limit: i64,
}

/// Some of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// They.
    pub files: Vec<TrainingFile>,
    /// Whether there are more.
    pub has_more: bool,
}

/// Refuses a caller that lacks a right.
///
/// # Errors
///
/// [`TuningError::Forbidden`].
pub fn must_may(caller: &Caller, needs: Tuning) -> Result<(), TuningError> {
    let has = caller.right();
    if has >= needs { Ok(()) } else { Err(TuningError::Forbidden { needs, has }) }
}

/// What is said when our database fails; why stands in the log.
fn stored(error: &StoreError) -> TuningError {
    tracing::error!(%error, "the store failed the training files");
    TuningError::Unavailable(
        "the gateway's database can't be used right now: try again in a moment".to_owned(),
    )
}

/// What is said when our disk fails; why stands in the log.
fn on_disk(error: &io::Error) -> TuningError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            tracing::error!(%error, "the disk of the training files is full");
            TuningError::StorageFull(
                "the gateway's disk is full, and nothing of this was kept: delete files that nobody needs, or ask your \
                 operator for more room"
                    .to_owned(),
            )
        }
        _ => {
            tracing::error!(%error, "the folder of training files failed");
            TuningError::Unavailable(
                "the gateway's folder of files can't be used right now: try again in a moment".to_owned(),
            )
        }
    }
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, TuningError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| on_disk(&error)),
        Err(error) => Err(on_disk(&io::Error::other(error))),
    }
}

impl Files {
    /// The files of a store, in the configured folder, which is made where there is none.
    ///
    /// # Errors
    ///
    /// When the folder can't be made.
    pub fn open(config: Config, store: &Store) -> io::Result<Self> {
        let folder = Folder::open(&config.folder)?;
        Ok(Self {
            rows: FileRows::new(store),
            uploads: UploadRows::new(store),
            folder,
            config,
            coming: Arc::default(),
            shares: Shares::default(),
            places: Arc::new(Semaphore::new(RECEIVED_AT_ONCE)),
            checks: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
            waits: Notify::new(),
        })
    }

    /// Begins to receive a new file of the caller's, before any of its bytes is read.
    ///
    /// # Errors
    ///
    /// When the caller may not, or there is no room.
    pub async fn receive(&self, caller: &Caller) -> Result<Receiving, TuningError> {
        must_may(caller, Tuning::Write)?;
        self.receive_at_most(Some(caller.owner()), Most::File(self.config.max_file_bytes)).await
    }

    /// Keeps what was received, as a new file of the caller's. Its check begins by itself.
    ///
    /// # Errors
    ///
    /// When it could not be kept; nothing of it stays then.
    pub async fn create(
        &self,
        caller: &Caller,
        received: Receiving,
        new: NewFile,
        now_ms: i64,
    ) -> Result<TrainingFile, TuningError> {
        must_may(caller, Tuning::Write)?;
        self.keep(Id::File.mint(rand::random()), caller.owner(), received, new, now_ms).await
    }

    /// Keeps bytes of our own as a new file of an id: what a job has made. One that is there already is told.
    ///
    /// # Errors
    ///
    /// As [`Files::create`].
    pub async fn put_bytes(
        &self,
        id: String,
        owner: Owner,
        new: NewFile,
        bytes: Bytes,
        now_ms: i64,
    ) -> Result<TrainingFile, TuningError> {
        if let Some(file) = self.rows.find(&id).await.map_err(|error| stored(&error))? {
            return Ok(file);
        }
        let mut received = self.receive_at_most(None, Most::File(self.config.max_file_bytes)).await?;
        received.push(bytes).await?;
        self.keep(id, owner, received, new, now_ms).await
    }

    async fn keep(
        &self,
        id: String,
        owner: Owner,
        received: Receiving,
        new: NewFile,
        now_ms: i64,
    ) -> Result<TrainingFile, TuningError> {
        let (mut kept, _room) = self.settle(received).await?;
        let file = TrainingFile { id, ..new_file(owner, &kept, new, now_ms) };
        let lost = self.lost(&kept.sha256).await?;
        // before the row is on its way: who asks may be cut off, and the row be written all the same
        kept.leave();
        let written = self.rows.insert(&file, &kept.place, lost).await;
        self.written(&kept, written).await?;
        self.waits.notify_one();
        Ok(file)
    }

    /// Where a content should lie and does not; nothing where it is there, or nobody has it yet. No place is used twice:
    /// what is lost once stays lost.
    async fn lost(&self, sha256: &str) -> Result<Option<String>, TuningError> {
        let place = self.rows.place(sha256).await.map_err(|error| stored(&error))?;
        let Some(place) = place else { return Ok(None) };
        let (folder, looked_at) = (self.folder.clone(), place.clone());
        if blocking(move || folder.has(&looked_at)).await? {
            return Ok(None);
        }
        tracing::warn!(place, "the content of a file is gone from its folder; the new copy takes its place");
        Ok(Some(place))
    }

    /// Ends the writing of a content that was left, and whose row was written, or was not.
    async fn written(&self, kept: &Kept, place: Result<String, StoreError>) -> Result<(), TuningError> {
        match place {
            Ok(place) if place == kept.place => Ok(()),
            // somebody had it before: once is enough
            Ok(_) => {
                self.unlink(kept.place.clone()).await;
                Ok(())
            }
            // the row may be there all the same; if it is not, the content is swept
            Err(error) => Err(stored(&error)),
        }
    }

    /// Finds a file of the caller's.
    ///
    /// # Errors
    ///
    /// When the caller may not, or has none of that id.
    pub async fn find(&self, caller: &Caller, id: &str) -> Result<TrainingFile, TuningError> {
        must_may(caller, Tuning::Read)?;
        let found = self.rows.find(id).await.map_err(|error| stored(&error))?;
        found.filter(|file| caller.finds(&file.owner)).ok_or_else(|| TuningError::not_found(Noun::File, id))
    }

    /// Lists files of the caller's.
    ///
    /// # Errors
    ///
    /// When the caller may not, or has no file that the list is to begin behind.
    pub async fn list(&self, caller: &Caller, asked: &Listing) -> Result<Listed, TuningError> {
        must_may(caller, Tuning::Read)?;
        let owner = caller.scope();
        let wanted = Wanted {
            owner: owner.as_ref(),
            purpose: asked.purpose,
            order: asked.order,
            after: asked.after.as_deref(),
            // one more than asked, to know whether there are more
            limit: asked.limit + 1,
        };
        let found = self.rows.list(wanted).await.map_err(|error| stored(&error))?;
        let Some(mut files) = found else {
            return Err(TuningError::invalid("after", "no file of yours has the id in `after`"));
        };
        let most = usize::try_from(asked.limit).unwrap_or_default();
        let has_more = files.len() > most;
        files.truncate(most);
        Ok(Listed { files, has_more })
    }

    /// Opens the content of a caller's file.
    ///
    /// # Errors
    ///
    /// As [`Files::find`], or when the content can't be read.
    pub async fn content(&self, caller: &Caller, id: &str) -> Result<(TrainingFile, File), TuningError> {
        let file = self.find(caller, id).await?;
        let path = self.path(&file).await?;
        let content = blocking(move || File::open(path)).await?;
        Ok((file, content))
    }

    /// Where the content of a file lies, for as long as there is a row of it.
    ///
    /// # Errors
    ///
    /// When there is none any more.
    pub async fn path(&self, file: &TrainingFile) -> Result<PathBuf, TuningError> {
        let place = self.rows.place(&file.sha256).await.map_err(|error| stored(&error))?;
        let place = place.ok_or_else(|| TuningError::not_found(Noun::File, &file.id))?;
        Ok(self.folder.path(&place))
    }

    /// What the check of a file found, as JSON; nothing before it is over.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn report(&self, id: &str) -> Result<Option<serde_json::Value>, TuningError> {
        let text = self.rows.report(id).await.map_err(|error| stored(&error))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Deletes a file of the caller's, and tells it as it was. Its content goes once nobody has it and no job needs it.
    ///
    /// # Errors
    ///
    /// As [`Files::find`]; the caller needs the right to write.
    pub async fn delete(&self, caller: &Caller, id: &str, now_ms: i64) -> Result<TrainingFile, TuningError> {
        must_may(caller, Tuning::Write)?;
        let file = self.find(caller, id).await?;
        match self.rows.delete(&file.id, now_ms).await {
            Ok(true) => {}
            Ok(false) => return Err(TuningError::not_found(Noun::File, id)),
            Err(error) => return Err(stored(&error)),
        }
        self.purge(&file.id).await;
        Ok(file)
    }

    /// Takes a deleted file away that no job needs. What fails here is swept later.
    async fn purge(&self, id: &str) {
        match self.rows.purge(id).await {
            Ok(Some(place)) => self.unlink(place).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, file = id, "a deleted file stays for now; it is tried again");
            }
        }
    }

    async fn unlink(&self, place: String) {
        let folder = self.folder.clone();
        // said in the log; it is swept later
        let _ = blocking(move || folder.remove(&place)).await;
    }

    /// Notes that a job needs a file: its content stays until [`Files::release`], whoever deletes the file. Noting it
    /// twice is noting it once, and goes well after the file was deleted, too.
    ///
    /// # Errors
    ///
    /// When the file is not there.
    pub async fn hold(&self, id: &str, job_id: &str) -> Result<(), TuningError> {
        match self.rows.hold(id, job_id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(TuningError::not_found(Noun::File, id)),
            Err(error) => Err(stored(&error)),
        }
    }

    /// Finds a file that some job holds, deleted or not.
    ///
    /// # Errors
    ///
    /// When its row is gone.
    pub async fn held(&self, id: &str) -> Result<TrainingFile, TuningError> {
        let found = self.rows.find_used(id).await.map_err(|error| stored(&error))?;
        found.ok_or_else(|| TuningError::not_found(Noun::File, id))
    }

    /// Notes that a job needs its files no longer.
    ///
    /// # Errors
    ///
    /// When the database fails; the files stay then.
    pub async fn release(&self, job_id: &str) -> Result<(), TuningError> {
        let files = self.rows.release(job_id).await.map_err(|error| stored(&error))?;
        for id in &files {
            self.purge(id).await;
        }
        Ok(())
    }

    /// How many files there are, and what they take.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn count(&self) -> Result<Count, StoreError> {
        self.rows.count().await
    }

    /// What is said of a file that is too long.
    pub fn too_large(&self) -> TuningError {
        Most::File(self.config.max_file_bytes).passed()
    }

    /// What is said of a part that is too long.
    pub fn part_too_large() -> TuningError {
        Most::Part(PART_BYTES).passed()
    }

    /// How they are bounded.
    pub const fn config(&self) -> &Config {
        &self.config
    }
}

/// The row of a content that was just kept.
fn new_file(owner: Owner, kept: &Kept, new: NewFile, now_ms: i64) -> TrainingFile {
    TrainingFile {
        id: Id::File.mint(rand::random()),
        owner,
        filename: new.filename,
        purpose: new.purpose,
        bytes: kept.bytes,
        sha256: kept.sha256.clone(),
        // what a job made is as it is
        status: match new.purpose {
            Purpose::FineTune => FileStatus::Checking,
            Purpose::FineTuneResults => FileStatus::Processed,
        },
        status_details: None,
        created_at_ms: now_ms,
        expires_at_ms: new.expires_after_ms.map(|after| now_ms.saturating_add(after)),
        system_prompt_sha256: None,
    }
}

#[cfg(test)]
mod tests;
