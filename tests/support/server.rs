//! A small HTTP/1.1 server on a real socket, written out by hand, so that a test decides about every byte and about how
//! a connection ends. It runs on a thread of its own: a test may block while it serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What a TLS client sends first. Plain servers answer that with 400, in plain text.
const TLS_HANDSHAKE: u8 = 0x16;

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as sent.
    pub(crate) target: String,
    /// Names as sent, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Counts the connections of this server, from 0.
    pub(crate) connection: usize,
}

impl Request {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// One parameter of the query, not decoded.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// The other side has closed its end.
#[derive(Debug)]
pub(crate) struct PeerGone;

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    /// RST instead of FIN.
    Reset,
}

/// Answers requests.
#[async_trait]
pub(crate) trait Handler: Send + Sync + 'static {
    async fn answer(&self, request: Request, wire: &mut Wire) -> After;
}

/// One connection, as the handler may use it.
pub(crate) struct Wire {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Wire {
    /// Sends bytes at once, unless the peer has left.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), PeerGone> {
        if self.has_left() {
            return Err(PeerGone);
        }
        self.stream.write_all(bytes).await.map_err(|_| PeerGone)
    }

    /// Waits for something, unless the peer leaves meanwhile.
    pub(crate) async fn wait_for<T>(&mut self, thing: impl Future<Output = T>) -> Result<T, PeerGone> {
        tokio::pin!(thing);
        loop {
            tokio::select! {
                found = &mut thing => return Ok(found),
                _ = self.stream.readable() => if self.has_left() { return Err(PeerGone) },
            }
        }
    }

    fn has_left(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    }

    async fn fill(&mut self) -> Result<(), PeerGone> {
        match self.stream.read_buf(&mut self.pending).await {
            Ok(0) | Err(_) => Err(PeerGone),
            Ok(_) => Ok(()),
        }
    }

    async fn next_request(&mut self, connection: usize) -> Result<Request, PeerGone> {
        let head_end = loop {
            if self.pending.first() == Some(&TLS_HANDSHAKE) {
                self.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await?;
                return Err(PeerGone);
            }
            if let Some(at) = self.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.pending.drain(..head_end).collect();
        let head = String::from_utf8(head).map_err(|_| PeerGone)?;
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: Vec::new(),
            connection,
        };
        if request.header("expect").is_some() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = match request.header("content-length").and_then(|n| n.parse::<usize>().ok()) {
            Some(length) => {
                while self.pending.len() < length {
                    self.fill().await?;
                }
                self.pending.drain(..length).collect()
            }
            None if request.header("transfer-encoding").is_some() => self.chunked_body().await?,
            None => Vec::new(),
        };
        Ok(request)
    }

    async fn chunked_body(&mut self) -> Result<Vec<u8>, PeerGone> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = self.pending.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                self.fill().await?;
            };
            let size = std::str::from_utf8(&self.pending[..line_end]).ok().and_then(|text| {
                usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16).ok()
            });
            let size = size.ok_or(PeerGone)?;
            let whole = line_end + 2 + size + 2;
            while self.pending.len() < whole {
                self.fill().await?;
            }
            body.extend_from_slice(&self.pending[line_end + 2..line_end + 2 + size]);
            self.pending.drain(..whole);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// A running server; stops when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of the loopback address.
    pub(crate) fn start(handler: Arc<dyn Handler>) -> Self {
        Self::start_on(0, handler)
    }

    /// Listens on a port of the loopback address.
    pub(crate) fn start_on(port: u16, handler: Arc<dyn Handler>) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], port)), handler)
    }

    /// Listens there.
    pub(crate) fn start_at(address: SocketAddr, handler: Arc<dyn Handler>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("simulated".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime for the simulated server");
                runtime.block_on(async move {
                    let listener = TcpListener::bind(address).await.expect("a free port");
                    tell.send(listener.local_addr().expect("an address")).expect("the test waits");
                    tokio::select! {
                        () = accept(listener, handler) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_timeout(Duration::ZERO);
            })
            .expect("a thread for the simulated server");
        let address = told.recv().expect("the simulated server listens");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the simulated server failed: see its message above");
        }
    }
}

async fn accept(listener: TcpListener, handler: Arc<dyn Handler>) {
    let mut connections = tokio::task::JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(converse(stream, number, Arc::clone(&handler)));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, number: usize, handler: Arc<dyn Handler>) {
    stream.set_nodelay(true).ok();
    let mut wire = Wire { stream, pending: Vec::new() };
    while let Ok(request) = wire.next_request(number).await {
        match handler.answer(request, &mut wire).await {
            After::KeepAlive => {}
            After::Close => return,
            After::Reset => {
                // Bytes that were written first must have left, or RST would swallow them.
                wire.stream.ready(Interest::WRITABLE).await.ok();
                wire.stream.set_zero_linger().ok();
                return;
            }
        }
    }
}
