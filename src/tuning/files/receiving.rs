//! A content on its way in: bounded, hashed and written as it comes, off the async threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{Files, RECEIVED_OF_ONE, blocking, stored};
use crate::domain::tuning::Owner;
use crate::store::folder::{Draft, Folder, Kept};
use crate::tuning::TuningError;

/// How much is gathered before it is written: what one content takes of memory, and what came beyond.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// How long a content may be, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// A file.
    File(u64),
    /// A part of an upload.
    Part(u64),
}

impl Most {
    const fn bytes(self) -> u64 {
        match self {
            Self::File(bytes) | Self::Part(bytes) => bytes,
        }
    }

    /// What is said of one that is longer.
    pub(super) fn passed(self) -> TuningError {
        TuningError::TooLarge(match self {
            Self::File(bytes) => {
                format!("the file is larger than the {bytes} bytes that this gateway takes: split it")
            }
            Self::Part(bytes) => format!("a part has at most {bytes} bytes: send smaller ones"),
        })
    }
}

/// A content on its way in. Dropped before it is kept, nothing of it stays.
#[derive(Debug)]
pub struct Receiving {
    most: Most,
    /// Out while a write runs, and after one has failed.
    draft: Option<Draft>,
    chunks: Vec<Bytes>,
    waiting: usize,
    room: Room,
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// How many contents of each owner are on their way.
pub(super) type Shares = Arc<Mutex<HashMap<Owner, usize>>>;

/// One of an owner's contents on their way, counted until this is dropped.
#[derive(Debug)]
struct Share {
    shares: Shares,
    owner: Owner,
}

impl Share {
    /// One more of an owner's; nothing where it has as many as it may.
    fn take(shares: &Shares, owner: Owner) -> Option<Self> {
        let mut counts = shares.lock();
        let count = counts.entry(owner.clone()).or_default();
        if *count >= RECEIVED_OF_ONE {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { shares: Arc::clone(shares), owner })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.lock();
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

/// What a content takes of the folder before a row has it.
#[derive(Debug)]
pub(super) struct Room {
    coming: Arc<AtomicU64>,
    taken: u64,
    /// What rows had when it began.
    kept: u64,
    most: u64,
}

impl Room {
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), TuningError> {
        self.taken += bytes;
        let coming = self.coming.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match self.kept.saturating_add(coming) > self.most {
            false => Ok(()),
            true => Err(TuningError::StorageFull(format!(
                "the gateway keeps at most {} bytes of files, and this would be more: delete files that nobody needs, or \
                 ask your operator to raise tuning.max_folder_bytes",
                self.most
            ))),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.coming.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Receiving {
    /// Takes more of it. Returns once what has to be written is.
    ///
    /// # Errors
    ///
    /// When it becomes too long, there is no room, or the disk fails.
    pub async fn push(&mut self, chunk: Bytes) -> Result<(), TuningError> {
        self.room.grow(chunk.len() as u64)?;
        if self.room.taken > self.most.bytes() {
            return Err(self.most.passed());
        }
        self.waiting += chunk.len();
        self.chunks.push(chunk);
        if self.waiting < WRITTEN_AT_ONCE {
            return Ok(());
        }
        self.flush().await
    }

    /// How much has come, bytes.
    pub const fn bytes(&self) -> u64 {
        self.room.taken
    }

    async fn flush(&mut self) -> Result<(), TuningError> {
        let chunks = std::mem::take(&mut self.chunks);
        self.waiting = 0;
        let Some(mut draft) = self.draft.take() else { return Err(broken()) };
        let write = move || {
            chunks.iter().try_for_each(|chunk| draft.write(chunk))?;
            Ok(draft)
        };
        self.draft = Some(blocking(write).await?);
        Ok(())
    }

    async fn settle(mut self, folder: Folder) -> Result<(Kept, Room), TuningError> {
        self.flush().await?;
        let draft = self.draft.take().ok_or_else(broken)?;
        let random = rand::random();
        let kept = blocking(move || draft.keep(&folder, random)).await?;
        let room = std::mem::replace(&mut self.room, Room::none());
        Ok((kept, room))
    }
}

impl Room {
    fn none() -> Self {
        Self { coming: Arc::default(), taken: 0, kept: 0, most: 0 }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // unlinking what is long takes its time
        if let Some(draft) = self.draft.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn_blocking(move || drop(draft)));
        }
    }
}

/// What is said of a content whose writing failed before.
fn broken() -> TuningError {
    TuningError::Unavailable("the file could not be written: send it again".to_owned())
}

impl Files {
    /// Begins to receive a content that is not too long: one of an owner's, or of our own.
    pub(super) async fn receive_at_most(
        &self,
        owner: Option<Owner>,
        most: Most,
    ) -> Result<Receiving, TuningError> {
        let share = owner.map(|owner| Share::take(&self.shares, owner).ok_or_else(|| {
            TuningError::Busy(format!(
                "{RECEIVED_OF_ONE} of your files are on their way to the gateway, as many as it receives of one owner at \
                 once: send this one when another has come"
            ))
        }));
        let share = share.transpose()?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            TuningError::Busy(
                "the gateway receives as many files at once as it may: try again in a moment".to_owned(),
            )
        })?;
        let room = self.room().await?;
        let (folder, random) = (self.folder.clone(), rand::random());
        let draft = blocking(move || folder.begin(random)).await?;
        Ok(Receiving {
            most,
            draft: Some(draft),
            chunks: Vec::new(),
            waiting: 0,
            room,
            _place: place,
            _share: share,
        })
    }

    /// What the folder has left for one more.
    pub(super) async fn room(&self) -> Result<Room, TuningError> {
        let kept = self.rows.bytes().await.map_err(|error| stored(&error))?;
        let mut room =
            Room { coming: Arc::clone(&self.coming), taken: 0, kept, most: self.config.max_folder_bytes };
        room.grow(0)?;
        Ok(room)
    }

    /// Gives what was received its place. The room that it took is given back once its row is written.
    pub(super) async fn settle(&self, received: Receiving) -> Result<(Kept, Room), TuningError> {
        received.settle(self.folder.clone()).await
    }
}
