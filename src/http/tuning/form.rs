//! A form with a file in it, read as it comes: what is no file is short, and the file is handed on piece by piece.
//!
//! The whole may take its time, as long as bytes keep coming: each read has `server.body_read_timeout_ms`, and each
//! `server.body_total_timeout_ms` has to bring a mebibyte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use http::header;
use multer::{Field, Multipart};

use crate::clock;
use crate::gateway::Refusal;
use crate::http::config::Limits;
use crate::http::exchange::Exchange;
use crate::tuning::TuningError;

/// What has to come in each stretch of the total time-out, bytes.
const PACE_BYTES: usize = 1 << 20;
/// The longest value that is no file, bytes.
const MOST_VALUE_BYTES: usize = 4 << 10;
/// What a form may have beside its file's bytes: heads, boundaries, values.
const MOST_BESIDE_BYTES: usize = 64 << 10;
/// What the parser may hold of what it was given and has not handed on.
const MOST_HELD_BYTES: usize = 1 << 20;
/// Members of a form.
const MOST_MEMBERS: usize = 32;

/// A form on its way in.
pub(super) struct Form<'r> {
    multipart: Multipart<'r>,
    /// What the parser was given and has not handed on.
    held: Arc<AtomicUsize>,
    members: usize,
}

/// A member of a form.
pub(super) struct Member<'r> {
    /// Its name.
    pub(super) name: String,
    /// The name of its file, if it has one.
    pub(super) filename: Option<String>,
    field: Field<'r>,
    held: Arc<AtomicUsize>,
}

impl<'r> Form<'r> {
    /// Begins to read the body as a form whose file has at most so many bytes. `too_large` is said of a longer one.
    pub(super) async fn begin(
        exchange: &'r mut Exchange,
        limits: &'r Limits,
        max_bytes: u64,
        too_large: impl FnOnce() -> TuningError,
    ) -> Result<Self, TuningError> {
        let kind = exchange.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary =
            kind.and_then(|kind| multer::parse_boundary(kind).ok()).ok_or_else(|| TuningError::Invalid {
                message:
                    "the body has to be a form: send Content-Type: multipart/form-data with its boundary"
                        .to_owned(),
                param: None,
                code: "invalid_value",
            })?;
        if exchange.announced().is_some_and(|length| length > max_bytes + MOST_BESIDE_BYTES as u64) {
            return Err(too_large());
        }
        exchange.await_body().await.map_err(|refusal| of_body(&refusal))?;
        let held = Arc::new(AtomicUsize::new(0));
        let pieces =
            Pieces { exchange, limits, pace: Pace::new(clock::monotonic()), held: Arc::clone(&held) };
        let body = stream::unfold(pieces, async |mut pieces: Pieces<'r>| {
            let piece = pieces.next().await.transpose()?;
            Some((piece, pieces))
        });
        Ok(Self { multipart: Multipart::new(OneByOne::new(body), boundary), held, members: 0 })
    }

    /// The next member; nothing at the form's end.
    pub(super) async fn next(&mut self) -> Result<Option<Member<'r>>, TuningError> {
        let Some(field) = self.multipart.next_field().await.map_err(wrong)? else { return Ok(None) };
        self.members += 1;
        if self.members > MOST_MEMBERS {
            return Err(unreadable(&format!("it has more than {MOST_MEMBERS} members")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let filename = field.file_name().map(ToOwned::to_owned);
        Ok(Some(Member { name, filename, field, held: Arc::clone(&self.held) }))
    }
}

impl Member<'_> {
    /// More of what it holds; nothing at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, TuningError> {
        let piece = self.field.chunk().await.map_err(wrong)?;
        if let Some(piece) = &piece {
            // what the parser holds of heads and boundaries is never given back: they are few
            let back = |held: usize| Some(held.saturating_sub(piece.len()));
            let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
        Ok(piece)
    }

    /// All of it, as a short text.
    pub(super) async fn text(mut self) -> Result<String, TuningError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MOST_VALUE_BYTES {
                return Err(TuningError::invalid(
                    &self.name,
                    format!("'{}' is longer than {MOST_VALUE_BYTES} bytes", self.name),
                ));
            }
        }
        String::from_utf8(bytes)
            .map_err(|_| TuningError::invalid(&self.name, format!("'{}' is not UTF-8", self.name)))
    }
}

/// The body, piece by piece.
struct Pieces<'r> {
    exchange: &'r mut Exchange,
    limits: &'r Limits,
    pace: Pace,
    held: Arc<AtomicUsize>,
}

impl Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let Some(piece) = self.exchange.piece(self.limits.body_read_timeout).await.map_err(Unread::Body)?
        else {
            return Ok(None);
        };
        if !self.pace.keeps(piece.len(), clock::monotonic(), self.limits) {
            return Err(Unread::Body(Refusal::BodyTimeout));
        }
        match self.held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > MOST_HELD_BYTES {
            true => Err(Unread::Heads),
            false => Ok(Some(piece)),
        }
    }
}

/// Why a form is not read on.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("{0}")]
    Body(Refusal),
    #[error("the heads of its members are too long")]
    Heads,
}

/// Whether bytes keep coming.
struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0 }
    }

    /// Counts what has come. Whether it is enough.
    fn keeps(&mut self, bytes: usize, now: Instant, limits: &Limits) -> bool {
        self.bytes += bytes;
        if self.bytes >= PACE_BYTES {
            *self = Self::new(now);
        }
        now.saturating_duration_since(self.since) <= limits.body_total_timeout
    }
}

/// A stream that has nothing more right after each item: the parser takes all that there is before it hands anything on,
/// which of a fast client would be the whole file.
struct OneByOne<S> {
    inner: Pin<Box<S>>,
    given: bool,
}

impl<S> OneByOne<S> {
    fn new(inner: S) -> Self {
        Self { inner: Box::pin(inner), given: false }
    }
}

impl<S: Stream> Stream for OneByOne<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if std::mem::take(&mut self.given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.inner.as_mut().poll_next(context);
        self.given = matches!(next, Poll::Ready(Some(_)));
        next
    }
}

/// What is said of a body that did not come as it should.
fn of_body(refusal: &Refusal) -> TuningError {
    match refusal {
        Refusal::BodyTimeout => TuningError::TooSlow(refusal.to_string()),
        _ => TuningError::Invalid { message: refusal.to_string(), param: None, code: "request_incomplete" },
    }
}

fn wrong(error: multer::Error) -> TuningError {
    match error {
        multer::Error::StreamReadFailed(why) => match why.downcast::<Unread>() {
            Ok(unread) => match *unread {
                Unread::Body(refusal) => of_body(&refusal),
                Unread::Heads => unreadable(&unread.to_string()),
            },
            Err(why) => unreadable(&why.to_string()),
        },
        multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } => {
            unreadable("it ends before its last boundary")
        }
        multer::Error::IncompleteHeaders => unreadable("the head of a member breaks off"),
        other => unreadable(&other.to_string()),
    }
}

fn unreadable(why: &str) -> TuningError {
    TuningError::Invalid {
        message: format!("the form can't be read: {why}"),
        param: None,
        code: "invalid_value",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn bytes_have_to_keep_coming() {
        let limits = Limits { body_total_timeout: Duration::from_secs(10), ..Limits::default() };
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        for (bytes, seconds, keeps) in [
            (1, 9, true),
            (PACE_BYTES, 10, true), // from here on ten more
            (1, 20, true),
            (1, 21, false),
            (PACE_BYTES, 22, true),
            (0, 33, false),
        ] {
            assert_eq!(pace.keeps(bytes, at(seconds), &limits), keeps, "{bytes} after {seconds} s");
        }
    }

    #[tokio::test]
    async fn a_form_is_parsed_as_it_comes() {
        let text = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n";
        let body = std::iter::once(Bytes::from_static(text.as_bytes()))
            .chain((0..1_000).map(|_| Bytes::from(vec![b'x'; 64 << 10])))
            .chain([Bytes::from_static(b"\r\n--X--\r\n")]);
        let given = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&given);
        let body = stream::iter(body).map(move |piece| {
            counted.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, Unread>(piece)
        });
        let mut multipart = Multipart::new(OneByOne::new(body), "X");
        let mut field = multipart.next_field().await.expect("sound").expect("a member");
        let mut taken = 0;
        while let Some(piece) = field.chunk().await.expect("sound") {
            taken += piece.len();
            let held = given.load(Ordering::Relaxed) - taken;
            assert!(held < 256 << 10, "{held} bytes are held");
        }
        assert_eq!(taken, 1_000 * (64 << 10));
    }
}
