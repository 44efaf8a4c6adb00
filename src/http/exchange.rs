//! One pingora session as one request and one answer. Every read and write has a limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::time::timeout;

use super::config::Limits;
use super::respond;
use crate::domain::ids::RequestId;
use crate::gateway::limits::Place;
use crate::gateway::{Client, Refusal};

/// A client that takes none of its answer for so long has left.
const WRITE_STALL: Duration = Duration::from_secs(120);
/// How much of an answer is written at a time.
const WRITE_SLICE: usize = 256 << 10;
/// How much is reserved for a body when only its first bytes have come: address space, not yet memory.
const FIRST_RESERVE: usize = 1 << 20;

/// What is left to do with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It may carry another request.
    Reuse,
    /// It must be closed: h1 without the last chunk, h2 by a reset.
    Close,
}

/// Why an answer could not be written: the client has left or does not read.
#[derive(Debug)]
pub(super) struct Unwritten;

/// A request being answered.
pub(super) struct Exchange {
    session: ServerSession,
    /// The value of `x-request-id`.
    pub(super) id: RequestId,
    /// Its body did not come as it should: nothing behind it can be trusted to be a request.
    body_lost: bool,
}

impl Exchange {
    /// Takes over a session whose head was read.
    pub(super) fn new(mut session: ServerSession, id: RequestId) -> Self {
        session.set_write_timeout(Some(WRITE_STALL));
        session.set_total_drain_timeout(Some(Duration::from_secs(5)));
        // a pipelined request waits its turn; without this any early byte kills the answer under way
        session.set_pipelining_enabled(true);
        Self { session, id, body_lost: false }
    }

    pub(super) fn method(&self) -> &http::Method {
        &self.session.req_header().method
    }

    pub(super) fn uri(&self) -> &http::Uri {
        &self.session.req_header().uri
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.session.req_header().headers
    }

    /// The head as an `http` one, for the router.
    pub(super) fn parts(&self) -> http::request::Parts {
        self.session.req_header().as_owned_parts()
    }

    fn is_http_10(&self) -> bool {
        self.session.req_header().version == Version::HTTP_10
    }

    /// Says what is wrong with the head's framing.
    pub(super) fn wrong_framing(&self) -> Option<&'static str> {
        let head = self.session.req_header();
        let raw = self.session.as_http1().map(|session| session.get_headers_raw_bytes());
        let version = if raw.is_some() { head.version } else { Version::HTTP_2 };
        super::framing::wrong(version, &head.headers, raw.as_deref())
    }

    /// Reads the whole body. Room for it is taken before it is read, as far as its head says how much that is.
    pub(super) async fn body(
        &mut self,
        limits: &Limits,
        max_bytes: usize,
        mut room: Option<&mut Place>,
    ) -> Result<Bytes, Refusal> {
        let length = self.announced().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > max_bytes) {
            return Err(Refusal::TooLarge(max_bytes));
        }
        if let (Some(length), Some(room)) = (length, room.take_if(|_| length.is_some())) {
            room.grow(length)?;
        }
        self.await_body().await?;
        let reading = self.read_body(limits, max_bytes, length.unwrap_or(0), room);
        timeout(limits.body_total_timeout, reading).await.unwrap_or(Err(Refusal::BodyTimeout))
    }

    /// How long the body is, bytes, if its head says so.
    pub(super) fn announced(&self) -> Option<u64> {
        self.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Lets a client send its body that waits to be let. From here on each read of it has its own limit.
    pub(super) async fn await_body(&mut self) -> Result<(), Refusal> {
        if self.headers().contains_key(header::EXPECT) && !self.is_http_10() {
            self.session.write_continue_response().await.map_err(|_| Refusal::BodyBroken)?;
        }
        self.session.set_read_timeout(None);
        Ok(())
    }

    /// Reads the next piece of a body; nothing at its end.
    pub(super) async fn piece(&mut self, limit: Duration) -> Result<Option<Bytes>, Refusal> {
        let read = match timeout(limit, self.session.read_request_body()).await {
            Ok(read) => read.map_err(|_| Refusal::BodyBroken),
            Err(_) => Err(Refusal::BodyTimeout),
        };
        self.body_lost |= read.is_err();
        read
    }

    async fn read_body(
        &mut self,
        limits: &Limits,
        max_bytes: usize,
        length: usize,
        mut room: Option<&mut Place>,
    ) -> Result<Bytes, Refusal> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let Some(chunk) = self.piece(limits.body_read_timeout).await? else { break };
            if first.len() + all.len() + chunk.len() > max_bytes {
                return Err(Refusal::TooLarge(max_bytes));
            }
            if let Some(room) = &mut room {
                room.grow(chunk.len())?;
            }
            if first.is_empty() && all.is_empty() {
                first = chunk; // a small body comes in one piece and is not copied
                continue;
            }
            if all.is_empty() {
                all.reserve(length.min(max_bytes).min(first.len() + FIRST_RESERVE));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    fn head(
        &self,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<ResponseHeader, Unwritten> {
        let mut head =
            ResponseHeader::build_no_case(status, Some(headers.len() + 4)).map_err(|_| Unwritten)?;
        for (name, value) in headers {
            head.append_header(name, value).map_err(|_| Unwritten)?;
        }
        // the second is never an upstream's own
        for name in
            [HeaderName::from_static("x-request-id"), HeaderName::from_static("x-tunegate-request-id")]
        {
            head.insert_header(name, self.id.as_str()).map_err(|_| Unwritten)?;
        }
        Ok(head)
    }

    /// Answers in one piece.
    pub(super) async fn whole(
        &mut self,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<(), Unwritten> {
        let mut head = self.head(status, headers)?;
        head.insert_header(header::CONTENT_LENGTH, body.len()).map_err(|_| Unwritten)?;
        self.session.write_response_header(Box::new(head)).await.map_err(|_| Unwritten)?;
        let mut rest = if *self.method() == http::Method::HEAD { Bytes::new() } else { body };
        // in slices: the write time-out then watches whether the client reads, not how large the answer is
        while rest.len() > WRITE_SLICE {
            let slice = rest.split_to(WRITE_SLICE);
            self.session.write_response_body(slice, false).await.map_err(|_| Unwritten)?;
        }
        self.session.write_response_body(rest, true).await.map_err(|_| Unwritten)
    }

    /// Answers with a refusal. A body that was not read to its end closes the connection.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) -> Done {
        self.refuse_with(refusal, &[]).await
    }

    /// The same with more headers.
    pub(super) async fn refuse_with(
        &mut self,
        refusal: &Refusal,
        more: &[(HeaderName, HeaderValue)],
    ) -> Done {
        if matches!(
            refusal,
            Refusal::TooLarge(_) | Refusal::BodyTimeout | Refusal::BodyBroken | Refusal::Framing(_)
        ) {
            self.body_lost = true;
        }
        let headers = [respond::headers(refusal), more.to_vec()].concat();
        self.refuse_plainly(respond::status(refusal), headers, respond::body(refusal)).await
    }

    /// Answers with an error. A body that was not read to its end closes the connection.
    pub(super) async fn refuse_plainly(
        &mut self,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Done {
        let body_left = self.body_lost || !self.session.is_body_done() && !self.session.is_body_empty();
        if body_left {
            self.session.set_keepalive(None);
        }
        let written = self.whole(status, headers, body).await;
        match (written, body_left) {
            (Ok(()), false) => Done::Reuse,
            (Ok(()), true) => {
                self.linger().await;
                Done::Close
            }
            (Err(Unwritten), _) => Done::Close,
        }
    }

    /// Takes in what the client is still sending, for a moment: closing on unread bytes would reset the connection and
    /// destroy the answer on its way.
    async fn linger(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.session.read_request_body().await {} };
        let _ = timeout(Duration::from_millis(500), rest).await;
    }

    /// Begins an answer whose length is known: all of it has to be written, or the connection is closed.
    pub(super) async fn begin_sized(
        &mut self,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        bytes: u64,
    ) -> Result<(), Unwritten> {
        let mut head = self.head(status, headers)?;
        head.insert_header(header::CONTENT_LENGTH, bytes).map_err(|_| Unwritten)?;
        self.session.write_response_header(Box::new(head)).await.map_err(|_| Unwritten)
    }

    /// Begins a streamed answer.
    pub(super) async fn begin_stream(
        &mut self,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(), Unwritten> {
        let mut head = self.head(status, headers)?;
        head.insert_header(header::CACHE_CONTROL, "no-cache").map_err(|_| Unwritten)?;
        head.insert_header(HeaderName::from_static("x-accel-buffering"), "no").map_err(|_| Unwritten)?;
        // without it an h1 answer ends with its connection, which is all an HTTP/1.0 client knows; h2 strips it
        if !self.is_http_10() {
            head.insert_header(header::TRANSFER_ENCODING, "chunked").map_err(|_| Unwritten)?;
        }
        self.session.write_response_header(Box::new(head)).await.map_err(|_| Unwritten)
    }

    /// Writes more of a stream; it leaves at once.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Unwritten> {
        self.session.write_response_body(bytes, false).await.map_err(|_| Unwritten)
    }

    /// Ends a stream well.
    pub(super) async fn end_stream(&mut self) -> Result<(), Unwritten> {
        self.session.finish_body().await.map_err(|_| Unwritten)
    }

    /// The session back, for its end.
    pub(super) fn into_session(self) -> ServerSession {
        self.session
    }
}

impl Client for Exchange {
    /// h1: the client has closed its side (half-closing counts as leaving); h2: it has reset the stream.
    async fn left(&mut self) {
        if let Err(error) = self.session.read_body_or_idle(true).await
            && *error.etype() == ErrorType::ConnectError
        {
            // bytes behind the request: a next request that can't be kept; this answer goes on
            self.session.set_keepalive(None);
            std::future::pending::<()>().await;
        }
    }
}
