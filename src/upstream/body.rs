//! A request's body that is too large for memory: a file, with a few bytes before and behind it.

use std::io::{self, SeekFrom};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// How much of the file is in memory at a time.
const PIECE: usize = 256 << 10;

/// The body. It is read once from its start to its end, or from its start again.
pub(super) struct FileBody {
    front: Bytes,
    file: File,
    /// Of the file.
    bytes: u64,
    back: Bytes,
    next: Next,
    /// Why the file could not be read on.
    broken: Option<String>,
}

/// What comes next.
enum Next {
    Front,
    /// So many bytes of the file are left.
    File(u64),
    Back,
    Nothing,
}

impl FileBody {
    /// A file that has exactly so many bytes.
    pub(super) async fn open(path: &Path, bytes: u64, front: Bytes, back: Bytes) -> io::Result<Self> {
        let file = File::open(path).await?;
        let found = file.metadata().await?.len();
        if found != bytes {
            return Err(io::Error::other(format!("it has {found} bytes, not {bytes}")));
        }
        Ok(Self { front, file, bytes, back, next: Next::Front, broken: None })
    }

    /// Its length, bytes.
    pub(super) const fn length(&self) -> u64 {
        self.bytes + self.front.len() as u64 + self.back.len() as u64
    }

    /// Why the file could not be read on, if so.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Starts again.
    pub(super) async fn rewind(&mut self) {
        self.next = Next::Front;
        self.broken = self.file.seek(SeekFrom::Start(0)).await.err().map(|error| error.to_string());
    }

    /// The next piece, never an empty one; none at the end, or where the file can't be read.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = match self.next {
                _ if self.broken.is_some() => return None,
                Next::Front => {
                    self.next = Next::File(self.bytes);
                    self.front.clone()
                }
                Next::File(0) => {
                    self.next = Next::Back;
                    continue;
                }
                Next::File(left) => match self.read(left).await {
                    Ok(piece) => {
                        self.next = Next::File(left - piece.len() as u64);
                        piece
                    }
                    Err(error) => {
                        self.broken = Some(error.to_string());
                        return None;
                    }
                },
                Next::Back => {
                    self.next = Next::Nothing;
                    self.back.clone()
                }
                Next::Nothing => return None,
            };
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }

    async fn read(&mut self, left: u64) -> io::Result<Bytes> {
        let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut piece = BytesMut::with_capacity(want);
        while piece.len() < want {
            let room = (want - piece.len()) as u64;
            if (&mut self.file).take(room).read_buf(&mut piece).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"));
            }
        }
        Ok(piece.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(body: &mut FileBody) -> (Vec<u8>, usize) {
        let (mut bytes, mut largest) = (Vec::new(), 0);
        while let Some(piece) = body.next().await {
            largest = largest.max(piece.len());
            bytes.extend_from_slice(&piece);
        }
        (bytes, largest)
    }

    #[tokio::test]
    async fn a_file_goes_out_in_pieces_and_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("train.jsonl");
        let content = b"0123456789".repeat(70_000);
        std::fs::write(&path, &content).expect("written");
        let open = || FileBody::open(&path, content.len() as u64, "front".into(), "back".into());
        let mut body = open().await.expect("opened");
        assert_eq!(body.length(), content.len() as u64 + 9);
        let whole = [b"front".as_slice(), &content, b"back"].concat();
        for _ in 0..2 {
            let (bytes, largest) = all(&mut body).await;
            assert!(bytes == whole && largest <= PIECE, "{} of {}, {largest}", bytes.len(), whole.len());
            body.rewind().await;
        }
        assert!(FileBody::open(&path, 1, Bytes::new(), Bytes::new()).await.is_err(), "another length");

        let mut shorter = open().await.expect("opened");
        std::fs::write(&path, "x").expect("written");
        assert!(all(&mut shorter).await.0.len() < whole.len());
        assert_eq!(shorter.broken(), Some("it has become shorter"));
    }
}
