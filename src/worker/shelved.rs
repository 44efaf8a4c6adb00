//! Adapters on disk: a folder each, in PEFT's form, with a card that says whose it is. Here for the worker that serves
//! them, and for the command line that brings and takes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tunegate_engine::Shape;
pub use tunegate_engine::adapter::peft::{CONFIG_FILE, WEIGHTS_FILE};
use tunegate_engine::adapter::{AdapterError, AdapterLimits, LoraWeights, MOST_RANK, peft};

use super::tuning::folder;

/// The file beside PEFT's own that says whose adapter it is.
const CARD: &str = "tunegate.json";
/// What is taken where nobody serves yet; who serves has bounds of its own.
const ANY: AdapterLimits = AdapterLimits { rank: MOST_RANK, size_bytes: 4 << 30 };

/// An adapter on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What requests call it.
    pub name: String,
    /// The name of the model it was trained on.
    pub base: String,
    /// Seconds since 1970 UTC.
    pub created_at: i64,
    /// The job that made it, if one of ours did.
    pub job: Option<String>,
}

/// Reads the card of the adapter at `path`; none where there is none.
///
/// # Errors
/// If it can't be read, or is none.
pub fn card(path: &Path) -> io::Result<Option<Card>> {
    folder::read_json(&path.join(CARD))
}

/// Returns all adapters in `folder`, oldest first. What is no adapter is left out.
///
/// # Errors
/// If the folder can't be read.
pub fn all(folder: &Path) -> io::Result<Vec<(Card, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_whole(&path)
            && let Ok(Some(card)) = card(&path)
        {
            all.push((card, path));
        }
    }
    all.sort_by(|(a, _), (b, _)| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(all)
}

/// Whether `path` is neither half written nor half removed.
pub(super) fn is_whole(path: &Path) -> bool {
    path.extension().is_none() && path.is_dir()
}

/// Reads the adapter at `path`.
///
/// # Errors
/// If it is broken, or of another model.
pub fn read(path: &Path, shape: &Shape) -> Result<LoraWeights, AdapterError> {
    peft::read(path, shape, ANY)
}

/// Copies the adapter at `source`, which was trained elsewhere, into `folder`, as what `card` says.
///
/// # Errors
/// If it is broken or of another model, or can't be copied; then nothing is there.
pub fn import(source: &Path, folder: &Path, shape: &Shape, card: &Card) -> Result<(), AdapterError> {
    read(source, shape)?;
    let digest = Sha256::digest(&card.name);
    let id = digest[..8].iter().fold("imported-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
    Ok(place(source, folder, &id, card, Taken::Copied)?)
}

/// How files are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Whoever has them may change them.
    Copied,
    /// They never change: they are had twice in the room of once, where the file system knows how.
    Shared,
}

/// Takes the adapter at `from` into `folder`, under the name `id`: whole, or not at all.
pub(super) fn place(from: &Path, folder: &Path, id: &str, card: &Card, taken: Taken) -> io::Result<()> {
    let (new, to) = (folder.join(format!("{id}.new")), folder.join(id));
    let placed = take(from, &new, card, taken).and_then(|()| fs::rename(&new, &to));
    if placed.is_err() {
        let _ = folder::remove(&new);
    }
    placed.and_then(|()| folder::sync_folder_of(&to))
}

fn take(from: &Path, to: &Path, card: &Card, taken: Taken) -> io::Result<()> {
    folder::remove(to)?;
    fs::create_dir_all(to)?;
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        if taken == Taken::Copied || fs::hard_link(from.join(file), to.join(file)).is_err() {
            fs::copy(from.join(file), to.join(file))?;
        }
        fs::File::open(to.join(file))?.sync_all()?;
    }
    folder::write_json(&to.join(CARD), card)
}
