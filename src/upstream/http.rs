//! pingora's connector under a provider: pooled connections (HTTP/1.1, h2 by ALPN, unix sockets), one exchange each.
//!
//! Every wait here has a limit. What is known of pingora 0.9.1 and worked around: it resolves names with a blocking
//! call that panics, so addresses are resolved here; its pool key ignores the trusted roots, so each set of roots has
//! a connector of its own; it does not verify a certificate without a server name, so TLS needs one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::{HttpSession as H1Session, http_req_header_to_wire};
use pingora::protocols::{ALPN, Stream};
use pingora::time::timeout;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType};
use tokio::io::AsyncWriteExt as _;

use super::body::FileBody;
use super::error::{Phase, UpstreamError};
use super::idle::Idle;
use crate::clock;
use crate::domain::catalog::{Address, Provider, Timeouts};
use crate::provider::Outgoing;

/// How long an idle h2 connection stays in pingora's pool.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// Requests that share one h2 connection.
const MAX_H2_STREAMS: usize = 100;
/// Between two pings on an h2 connection: one that died in silence would go on taking requests until TCP gives it up.
const H2_PING: Duration = Duration::from_secs(30);
/// An h2 body goes out in slices, so that the write time-out watches progress and not size.
const WRITE_SLICE: usize = 256 << 10;
/// An h1 body up to this size is copied behind its head: one write, and one TLS record, for both.
const ONE_WRITE: usize = 16 << 10;
/// What has come already is handed on together, up to about this much.
const JOINED: usize = 32 << 10;
/// How much of an unread answer is worth reading to keep its connection.
const DISCARD_LIMIT: usize = 64 << 10;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_millis(200);
/// For TLS to say good-bye to an upstream that may not be reading.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// A kept connection that its upstream has closed says so within a round trip. One that dies later has been worked on,
/// which may be billed: that request is not sent again.
const STALE_LIMIT: Duration = Duration::from_millis(500);
/// Addresses of one name that are tried in turn.
const MAX_ADDRESSES: usize = 4;

/// The connection pools of a process: one for each set of trusted roots.
#[derive(Default)]
pub struct Pools {
    by_roots: Mutex<HashMap<Option<PathBuf>, Arc<Connector>>>,
    groups: AtomicU64,
}

impl Pools {
    fn connector(&self, roots: Option<&PathBuf>) -> Arc<Connector> {
        let mut pools = self.by_roots.lock();
        let pool = pools.entry(roots.cloned()).or_insert_with(|| {
            let mut options = ConnectorOptions::new(256);
            options.ca_file = roots.map(|path| path.to_string_lossy().into_owned());
            Arc::new(Connector::new(Some(options)))
        });
        Arc::clone(pool)
    }
}

/// How a provider is reached: its addresses, and the connections that wait for a request.
pub struct Link {
    provider: Arc<Provider>,
    connector: Arc<Connector>,
    /// h1 connections; those of h2 are in the connector.
    idle: Arc<Idle>,
    /// Keeps this link's connections apart from those of others in the connector.
    group: u64,
    peers: ArcSwapOption<Vec<HttpPeer>>,
}

impl Link {
    /// A link that has not connected yet.
    pub fn new(provider: Arc<Provider>, pools: &Pools) -> Self {
        let connector = pools.connector(provider.ca_file.as_ref());
        let group = pools.groups.fetch_add(1, Ordering::Relaxed) + 1;
        Self { provider, connector, idle: Arc::default(), group, peers: ArcSwapOption::empty() }
    }

    /// Closes the connections that are of no more use.
    pub fn sweep(&self) {
        self.idle.sweep(clock::monotonic());
    }

    /// The provider behind it.
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Looks the provider's name up again; the addresses found before stay when that fails.
    pub async fn resolve(&self, limit: Duration) -> Result<Arc<Vec<HttpPeer>>, UpstreamError> {
        let peers = match &self.provider.address {
            Address::Unix(path) => {
                let peer = HttpPeer::new_uds(&path.to_string_lossy(), false, String::new())
                    .map_err(|error| UpstreamError::Resolve(error.to_string()))?;
                vec![self.with_options(peer, false)]
            }
            Address::Host { host, port, tls } => {
                let found = timeout(limit, tokio::net::lookup_host((host.as_str(), *port)))
                    .await
                    .map_err(|_| UpstreamError::Timeout(Phase::Connect))?
                    .map_err(|error| UpstreamError::Resolve(format!("{host}: {error}")))?;
                let found: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
                if found.is_empty() {
                    return Err(UpstreamError::Resolve(format!("{host}: no address")));
                }
                let name = if *tls { host.clone() } else { String::new() };
                found
                    .into_iter()
                    .map(|address| self.with_options(HttpPeer::new(address, *tls, name.clone()), *tls))
                    .collect()
            }
        };
        let peers = Arc::new(peers);
        self.peers.store(Some(Arc::clone(&peers)));
        Ok(peers)
    }

    fn with_options(&self, mut peer: HttpPeer, tls: bool) -> HttpPeer {
        peer.group_key = self.group;
        peer.options.idle_timeout = Some(POOL_IDLE);
        peer.options.max_h2_streams = MAX_H2_STREAMS;
        peer.options.h2_ping_interval = Some(H2_PING);
        peer.options.alpn = if tls && self.provider.http2 { ALPN::H2H1 } else { ALPN::H1 };
        peer
    }

    /// Connects while the caller waits for something else, if no connection waits for a request.
    ///
    /// # Errors
    ///
    /// When no address can be reached: nothing can be sent.
    pub async fn warm(&self, limit: Duration) -> Result<(), UpstreamError> {
        let peers = match self.peers.load_full() {
            Some(peers) => peers,
            None => self.resolve(limit).await?,
        };
        let mut last = Ok(());
        for peer in peers.iter() {
            if self.idle.has(peer.reuse_hash()) {
                return Ok(());
            }
            match self.line(peer, limit).await {
                Ok((Line::H1(stream), _)) => {
                    self.idle.put_new(stream, peer.reuse_hash(), clock::monotonic());
                    return Ok(());
                }
                // a stream of h2 that is dropped leaves its connection in the connector's pool
                Ok((Line::H2(_), _)) => return Ok(()),
                Err(error) => last = Err(error),
            }
        }
        last
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// `headers` are all headers but `Host` and the body's length. A pooled connection that turns out dead at once is
    /// replaced once. `sent` is set as soon as the upstream may have seen any of the request.
    pub async fn open(
        &self,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        timeouts: &Timeouts,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> Result<Exchange, UpstreamError> {
        let mut payload = Payload::Whole(outgoing.body.clone());
        self.open_with(&mut payload, outgoing, headers, timeouts, deadline, sent).await
    }

    /// As [`Link::open`], but a request that the upstream may have seen is never sent again, however dead its connection
    /// was: for what must not be done twice.
    pub(super) async fn open_once(
        &self,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        timeouts: &Timeouts,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> Result<Exchange, UpstreamError> {
        let mut payload = Payload::Once(outgoing.body.clone());
        self.open_with(&mut payload, outgoing, headers, timeouts, deadline, sent).await
    }

    /// As [`Link::open_once`], with a file as the body: it is never in memory as a whole. `timeouts.between_chunks` is for
    /// each piece of it, so that a large file takes its time and a dead upstream does not.
    pub(super) async fn open_file(
        &self,
        body: &mut FileBody,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        timeouts: &Timeouts,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> Result<Exchange, UpstreamError> {
        let mut payload = Payload::File(body);
        self.open_with(&mut payload, outgoing, headers, timeouts, deadline, sent).await
    }

    async fn open_with(
        &self,
        payload: &mut Payload<'_>,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        timeouts: &Timeouts,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> Result<Exchange, UpstreamError> {
        let peers = match self.peers.load_full() {
            Some(peers) => peers,
            None => self.resolve(timeouts.connect).await?,
        };
        let mut last = UpstreamError::Resolve("no address".to_owned());
        for at in 0..peers.len() {
            match self.open_at(&peers, at, payload, outgoing, headers, timeouts, deadline, sent).await {
                Err(error) if error.nothing_was_sent() => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments of `open_with`, and which address")]
    async fn open_at(
        &self,
        peers: &Arc<Vec<HttpPeer>>,
        at: usize,
        payload: &mut Payload<'_>,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        timeouts: &Timeouts,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> Result<Exchange, UpstreamError> {
        let peer = &peers[at];
        for _ in 0..2 {
            let limit = timeouts.connect.min(left(deadline)?);
            let (line, reused) = self.line(peer, limit).await?;
            let head = self.head(outgoing, headers, payload.length())?;
            sent.store(true, Ordering::Relaxed);
            let sending = line.send(peer, head, payload, timeouts.between_chunks);
            let Ok((mut session, written)) = timeout(left(deadline)?, sending).await else {
                return Err(UpstreamError::Timeout(Phase::Total));
            };
            if let Some(why) = payload.broken() {
                return Err(UpstreamError::Broken(format!("the file behind the request: {why}")));
            }
            let sent_at = clock::monotonic();
            // an early refusal may close our sending side: its answer is still there to be read
            let limit = timeouts.first_byte.min(left(deadline)?);
            match timeout(limit, read_head(&mut session)).await {
                Err(_) if left(deadline).is_err() => return Err(UpstreamError::Timeout(Phase::Total)),
                Err(_) => return Err(UpstreamError::Timeout(Phase::FirstByte)),
                Ok(Ok(())) => {
                    return Ok(Exchange {
                        session,
                        connector: Arc::clone(&self.connector),
                        idle: Arc::clone(&self.idle),
                        peers: Arc::clone(peers),
                        at,
                        intact: written.is_ok(),
                        held: None,
                    });
                }
                Ok(Err(mut error)) => {
                    let at_once = clock::monotonic().saturating_duration_since(sent_at) < STALE_LIMIT;
                    let stale = reused && at_once && payload.may_be_sent_again();
                    error.retry.decide_reuse(stale); // it panics while undecided
                    if !(stale && error.retry()) {
                        let error = written.err().unwrap_or(error);
                        return Err(broken(&error));
                    }
                }
            }
        }
        Err(UpstreamError::Broken("two pooled connections in a row were dead".to_owned()))
    }

    /// A line for one exchange, and whether it has served others before.
    async fn line(&self, peer: &HttpPeer, limit: Duration) -> Result<(Line, bool), UpstreamError> {
        if let Some((stream, used)) = self.idle.take(peer.reuse_hash(), clock::monotonic()) {
            return Ok((Line::H1(stream), used));
        }
        let opened = timeout(limit, self.connector.get_http_session(peer))
            .await
            .map_err(|_| UpstreamError::Timeout(Phase::Connect))?
            .map_err(|error| connect_error(&error))?;
        Ok(match opened {
            (HttpSession::H1(session), reused) => (Line::H1(session.into_inner()), reused),
            (session, reused) => (Line::H2(Box::new(session)), reused),
        })
    }

    fn head(
        &self,
        outgoing: &Outgoing,
        headers: &[(HeaderName, HeaderValue)],
        length: Option<u64>,
    ) -> Result<Box<RequestHeader>, UpstreamError> {
        let bad = |error: Box<Error>| UpstreamError::Broken(error.to_string());
        let mut head = RequestHeader::build_no_case(
            outgoing.method.clone(),
            outgoing.path.as_bytes(),
            Some(8 + headers.len()),
        )
        .map_err(bad)?;
        head.insert_header(header::HOST, self.provider.authority.as_str()).map_err(bad)?;
        for (name, value) in outgoing.headers.iter().chain(headers) {
            head.insert_header(name.clone(), value.clone()).map_err(bad)?;
        }
        if let Some(length) = length {
            // without it an h1 request has no body
            head.insert_header(header::CONTENT_LENGTH, length).map_err(bad)?;
        }
        Ok(Box::new(head))
    }
}

/// What is left until the deadline.
fn left(deadline: Instant) -> Result<Duration, UpstreamError> {
    let left = deadline.saturating_duration_since(clock::monotonic());
    if left.is_zero() { Err(UpstreamError::Timeout(Phase::Total)) } else { Ok(left) }
}

fn broken(error: &Error) -> UpstreamError {
    UpstreamError::Broken(error.etype().as_str().to_owned())
}

fn connect_error(error: &Error) -> UpstreamError {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            UpstreamError::Timeout(Phase::Connect)
        }
        kind => UpstreamError::Connect(kind.as_str().to_owned()),
    }
}

/// A request's body.
enum Payload<'a> {
    /// In memory; none sends none.
    Whole(Option<Bytes>),
    /// The same, of something that must not be done twice.
    Once(Option<Bytes>),
    /// In a file. What it makes must not be made twice.
    File(&'a mut FileBody),
}

impl Payload<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(body) | Self::Once(body) => body.as_ref().map(|body| body.len() as u64),
            Self::File(body) => Some(body.length()),
        }
    }

    /// Why it could not be sent to its end, where that is our own fault.
    fn broken(&self) -> Option<&str> {
        match self {
            Self::Whole(_) | Self::Once(_) => None,
            Self::File(body) => body.broken(),
        }
    }

    /// Whether a kept connection that turns out dead may be replaced by another: it may also have died of the request.
    const fn may_be_sent_again(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

/// What a request can be sent on.
enum Line {
    H1(Stream),
    /// One stream of a connection.
    H2(Box<HttpSession<()>>),
}

impl Line {
    /// Sends a request. What was sent may have an answer even where not all of it could be sent.
    async fn send(
        self,
        peer: &HttpPeer,
        head: Box<RequestHeader>,
        payload: &mut Payload<'_>,
        stall: Duration,
    ) -> (HttpSession<()>, Result<(), Box<Error>>) {
        match self {
            Self::H1(mut stream) => {
                let written = match payload {
                    Payload::Whole(body) | Payload::Once(body) => {
                        send_h1(&mut stream, &head, body.clone().unwrap_or_default(), stall).await
                    }
                    // boxed: few requests have one, and all would be the larger for it
                    Payload::File(body) => Box::pin(send_file_h1(&mut stream, &head, body, stall)).await,
                };
                (HttpSession::H1(H1Session::new_with_options(stream, peer)), written)
            }
            Self::H2(mut session) => {
                session.set_write_timeout(Some(stall));
                let written = match payload {
                    Payload::Whole(body) | Payload::Once(body) => {
                        send_h2(&mut session, head, body.clone().unwrap_or_default()).await
                    }
                    Payload::File(body) => Box::pin(send_file_h2(&mut session, head, body)).await,
                };
                (*session, written)
            }
        }
    }
}

/// Head and body in one write where they fit; pingora's own client makes two of them, and its peer wakes twice.
async fn send_h1(
    stream: &mut Stream,
    head: &RequestHeader,
    mut body: Bytes,
    stall: Duration,
) -> Result<(), Box<Error>> {
    let mut wire = http_req_header_to_wire(head).ok_or_else(|| {
        Error::explain(ErrorType::InvalidHTTPHeader, "the path can't stand in a request line")
    })?;
    if body.len() <= ONE_WRITE {
        wire.extend_from_slice(&std::mem::take(&mut body));
    }
    write_all(stream, wire.chain(body), stall).await?;
    flush(stream, stall).await
}

/// Writes all of it; each write has the whole limit.
async fn write_all(stream: &mut Stream, mut rest: impl Buf, stall: Duration) -> Result<(), Box<Error>> {
    while rest.has_remaining() {
        let written = timeout(stall, stream.write_buf(&mut rest)).await;
        let written = written.map_err(|_| Error::new(ErrorType::WriteTimedout))?;
        if written.map_err(write_error)? == 0 {
            return Err(Error::new(ErrorType::WriteError));
        }
    }
    Ok(())
}

async fn flush(stream: &mut Stream, stall: Duration) -> Result<(), Box<Error>> {
    timeout(stall, stream.flush())
        .await
        .map_err(|_| Error::new(ErrorType::WriteTimedout))?
        .map_err(write_error)
}

/// A file, piece by piece: each has the whole limit, so that progress counts and not size.
async fn send_file_h1(
    stream: &mut Stream,
    head: &RequestHeader,
    body: &mut FileBody,
    stall: Duration,
) -> Result<(), Box<Error>> {
    body.rewind().await;
    send_h1(stream, head, Bytes::new(), stall).await?;
    while let Some(piece) = body.next().await {
        write_all(stream, piece, stall).await?;
    }
    flush(stream, stall).await
}

/// As [`send_file_h1`]. What could not be read to its end is left open: a part must not look whole.
async fn send_file_h2(
    session: &mut HttpSession<()>,
    head: Box<RequestHeader>,
    body: &mut FileBody,
) -> Result<(), Box<Error>> {
    body.rewind().await;
    session.write_request_header(head).await?;
    while let Some(piece) = body.next().await {
        session.write_request_body(piece, false).await?;
    }
    match body.broken() {
        None => session.finish_request_body().await,
        Some(_) => Err(Error::new(ErrorType::WriteError)),
    }
}

fn write_error(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "sending the request", error)
}

async fn send_h2(
    session: &mut HttpSession<()>,
    head: Box<RequestHeader>,
    mut body: Bytes,
) -> Result<(), Box<Error>> {
    session.write_request_header(head).await?;
    while !body.is_empty() {
        let slice = body.split_to(body.len().min(WRITE_SLICE));
        session.write_request_body(slice, body.is_empty()).await?;
    }
    session.finish_request_body().await
}

/// Reads heads until the final one.
async fn read_head(session: &mut HttpSession<()>) -> Result<(), Box<Error>> {
    loop {
        session.read_response_header().await?;
        if session.response_header().is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
    }
}

/// An upstream that has answered with a head. Dropping it closes the connection (h1) or resets the stream (h2).
pub struct Exchange {
    session: HttpSession<()>,
    connector: Arc<Connector>,
    idle: Arc<Idle>,
    peers: Arc<Vec<HttpPeer>>,
    at: usize,
    /// The request went out completely; only then may the connection serve another.
    intact: bool,
    /// The end, good or bad, where it came right behind the last bytes: it is told next.
    held: Option<Result<(), UpstreamError>>,
}

impl Exchange {
    /// The answer's status.
    pub fn status(&self) -> u16 {
        self.session.response_header().map_or(502, |head| head.status.as_u16())
    }

    /// The answer's headers.
    pub fn headers(&self) -> &HeaderMap {
        static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        self.session.response_header().map_or(&NONE, |head| &head.headers)
    }

    /// Whether it runs over h2, which frames every body.
    pub fn is_h2(&self) -> bool {
        self.session.as_http2().is_some()
    }

    /// The next bytes of the answer, all that have come; nothing at its end. May be dropped while it waits.
    pub async fn chunk(
        &mut self,
        between_chunks: Duration,
        deadline: Instant,
    ) -> Result<Option<Bytes>, UpstreamError> {
        if let Some(held) = self.held.take() {
            return held.map(|()| None);
        }
        let limit = between_chunks.min(left(deadline)?);
        match timeout(limit, self.session.read_response_body()).await {
            Ok(Ok(Some(first))) => Ok(Some(self.joined(first))),
            Ok(read) => read.map_err(|error| broken(&error)),
            Err(_) if left(deadline).is_err() => Err(UpstreamError::Timeout(Phase::Total)),
            Err(_) => Err(UpstreamError::Timeout(Phase::BetweenChunks)),
        }
    }

    /// `first` and what has come behind it, without waiting: a burst of events becomes one write to the client.
    fn joined(&mut self, first: Bytes) -> Bytes {
        let mut all = BytesMut::new();
        while first.len() + all.len() < JOINED {
            match self.session.read_response_body().now_or_never() {
                None => break,
                Some(Ok(Some(more))) => {
                    if all.is_empty() {
                        all.reserve(JOINED.min(4 * (first.len() + more.len())));
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&more);
                }
                Some(end) => {
                    self.held = Some(end.map(drop).map_err(|error| broken(&error)));
                    break;
                }
            }
        }
        if all.is_empty() { first } else { all.freeze() }
    }

    /// Reads the whole answer, at most `limit` bytes of it.
    pub async fn whole(
        &mut self,
        limit: usize,
        between_chunks: Duration,
        deadline: Instant,
    ) -> Result<Bytes, UpstreamError> {
        let mut first = Bytes::new();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = self.chunk(between_chunks, deadline).await? {
            if first.len() + rest.len() + chunk.len() > limit {
                return Err(UpstreamError::TooLarge(limit));
            }
            match (first.is_empty(), rest.is_empty()) {
                (true, true) => first = chunk,
                (_, true) => {
                    rest.reserve(first.len() + 2 * chunk.len());
                    rest.extend_from_slice(&first);
                    rest.extend_from_slice(&chunk);
                    first = Bytes::new();
                }
                _ => rest.extend_from_slice(&chunk),
            }
        }
        Ok(if rest.is_empty() { first } else { rest.into() })
    }

    /// Gives the connection back after the answer was read to its end.
    pub async fn release(self) {
        if !self.intact {
            return;
        }
        let peer = &self.peers[self.at];
        let released = async {
            match self.session {
                HttpSession::H1(mut h1) => {
                    h1.respect_keepalive();
                    if let Some(stream) = h1.reuse().await {
                        self.idle.put(stream, peer.reuse_hash(), clock::monotonic());
                    }
                }
                other => self.connector.release_http_session(other, peer, peer.idle_timeout()).await,
            }
        };
        let _ = timeout(CLOSE_LIMIT, released).await;
    }

    /// Ends an exchange whose answer is of no more use: a short rest is read so that the connection lives on.
    pub async fn discard(mut self) {
        let rest = async {
            let mut seen = 0;
            if let Some(held) = self.held.take() {
                return held.is_ok();
            }
            while let Ok(Some(chunk)) = self.session.read_response_body().await {
                seen += chunk.len();
                if seen > DISCARD_LIMIT {
                    return false;
                }
            }
            true
        };
        match timeout(DISCARD_TIME, rest).await.unwrap_or(false) {
            true => self.release().await,
            false => self.abort().await,
        }
    }

    /// Stops the answer now: h1 closes its connection, h2 resets the stream.
    pub async fn abort(mut self) {
        let _ = timeout(CLOSE_LIMIT, self.session.shutdown()).await;
    }
}
