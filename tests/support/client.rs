//! A blocking HTTP/1.1 client that hides nothing: it sends what it is told to, keeps every byte that comes back, and
//! knows whether an answer came to its proper end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::sse;
use super::wait::LIMIT;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a JSON body.
    pub(crate) fn post(target: &str, body: &Value) -> Self {
        Self::new("POST", target).body("application/json", body.to_string().as_bytes())
    }

    pub(crate) fn body(mut self, content_type: &str, bytes: &[u8]) -> Self {
        self.body = Some(bytes.to_vec());
        self.header("content-type", content_type)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Whether it says who asks.
    pub(crate) fn has_credential(&self) -> bool {
        let names = ["authorization", "api-key", "x-api-key"];
        self.headers.iter().any(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
    }

    fn wire(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: gateway.test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// How an answer's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing promised.
    Clean,
    /// The connection was closed or reset before.
    Broken,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Answer {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON ({error}), status {}: {}", self.status, self.text()),
        }
    }

    /// The id under which this request's Outcome is found.
    #[track_caller]
    pub(crate) fn request_id(&self) -> String {
        match self.header("x-request-id") {
            Some(id) => id.to_owned(),
            None => panic!("no x-request-id in {:?}", self.headers),
        }
    }

    /// Fails with the body unless the status is the expected one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "the body was: {}", self.text());
        self
    }

    /// Fails unless this is our error: status, code, OpenAI's envelope and a request id. Returns the error object.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: impl Into<Value>) -> Value {
        assert_eq!(self.status, status, "the body was: {}", self.text());
        self.request_id();
        let error = self.json()["error"].clone();
        for member in ["message", "type", "param", "code"] {
            assert!(error.get(member).is_some(), "no {member} in the envelope: {}", self.text());
        }
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", self.text());
        assert!(error["type"].is_string(), "{}", self.text());
        assert_eq!(error["code"], code.into(), "{}", self.text());
        error
    }

    /// Fails unless the status and the error's code are these, whoever says so.
    #[track_caller]
    pub(crate) fn expect_status_and_code(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "the body was: {}", self.text());
        assert_eq!(self.json()["error"]["code"], code, "{}", self.text());
    }

    /// The events of a stream.
    pub(crate) fn events(&self) -> Vec<sse::Event> {
        sse::events(&self.body)
    }
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    /// So many bytes are still to come.
    Length(usize),
    Chunked,
    UntilClose,
}

/// A connection to a server.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    #[track_caller]
    pub(crate) fn to(address: SocketAddr) -> Self {
        match TcpStream::connect(address) {
            Ok(stream) => Self::over(stream),
            Err(error) => panic!("no connection to {address}: {error}"),
        }
    }

    /// Nothing while nobody listens there.
    pub(crate) fn reach(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).ok().map(Self::over)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).expect("a read timeout");
        stream.set_write_timeout(Some(LIMIT)).expect("a write timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, buffer: Vec::new() }
    }

    /// Writes bytes as they are. A server may have closed already: that shows when reading.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Sends a request and reads nothing.
    pub(crate) fn send(&mut self, call: &Call) {
        self.write(&call.wire());
    }

    /// Sends a request and reads the whole answer.
    #[track_caller]
    pub(crate) fn call(&mut self, call: &Call) -> Answer {
        self.write(&call.wire());
        self.answer()
    }

    /// Sends a request; nothing when the server closes instead of answering.
    #[track_caller]
    pub(crate) fn try_call(&mut self, call: &Call) -> Option<Answer> {
        self.send(call);
        self.last_words()
    }

    /// Reads a whole answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        match self.last_words() {
            Some(answer) => answer,
            None => panic!("closed without an answer; read: {}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// Sends a request and reads the head; the body is read as the test wants it.
    #[track_caller]
    pub(crate) fn open(mut self, call: &Call) -> Open {
        self.write(&call.wire());
        self.opened()
    }

    /// Reads a head; the body is read as the test wants it.
    #[track_caller]
    pub(crate) fn opened(mut self) -> Open {
        let Some((status, headers)) = self.head() else {
            panic!("closed without an answer; read: {}", String::from_utf8_lossy(&self.buffer));
        };
        let framing = framing(status, &headers);
        Open { connection: self, status, headers, framing, body: Vec::new(), end: None }
    }

    /// The next answer, or nothing when the server closes instead.
    #[track_caller]
    pub(crate) fn last_words(&mut self) -> Option<Answer> {
        let (status, headers) = self.head()?;
        let mut framing = framing(status, &headers);
        let mut body = Vec::new();
        let end = self.read_body(&mut framing, &mut body, |_| false).expect("read to an end");
        Some(Answer { status, headers, body, end })
    }

    /// Whether the server closes without another byte; fails when it sends something or stays.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        assert!(self.buffer.is_empty(), "bytes are left: {}", String::from_utf8_lossy(&self.buffer));
        !self.fill()
    }

    /// Reads more; false when the other side is at its end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no byte within {LIMIT:?}; read: {}", String::from_utf8_lossy(&self.buffer))
            }
            Err(_) => false,
        }
    }

    #[track_caller]
    fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        loop {
            let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
                if !self.fill() {
                    return None;
                }
                continue;
            };
            let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
            let head = String::from_utf8(head).expect("a head in UTF-8");
            let mut lines = head.trim_end().split("\r\n");
            let status_line = lines.next().unwrap_or_default();
            let Some(status) = status_line.split(' ').nth(1).and_then(|word| word.parse().ok()) else {
                panic!("no status line: {status_line}");
            };
            if status == 100 {
                continue;
            }
            let header = |line: &str| {
                line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            };
            return Some((status, lines.filter_map(header).collect()));
        }
    }

    /// Reads body bytes until `enough` or the end; nothing when it was enough before the end.
    #[track_caller]
    fn read_body(
        &mut self,
        framing: &mut Framing,
        body: &mut Vec<u8>,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Option<End> {
        loop {
            if enough(body) {
                return None;
            }
            match framing {
                Framing::Length(0) => return Some(End::Clean),
                Framing::Length(left) => {
                    let n = self.buffer.len().min(*left);
                    body.extend(self.buffer.drain(..n));
                    *left -= n;
                    if n > 0 {
                        continue;
                    }
                }
                Framing::UntilClose => body.append(&mut self.buffer),
                Framing::Chunked => match self.next_chunk() {
                    Some(chunk) if chunk.is_empty() => return Some(End::Clean),
                    Some(chunk) => {
                        body.extend(chunk);
                        continue;
                    }
                    None => {}
                },
            }
            if !self.fill() {
                return Some(match framing {
                    Framing::UntilClose => End::Clean,
                    _ => End::Broken,
                });
            }
        }
    }

    /// A whole chunk from the buffer.
    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = self.buffer.windows(2).position(|w| w == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.buffer[..line_end]).into_owned();
        let Ok(size) = usize::from_str_radix(line.trim(), 16) else { panic!("no chunk size: {line}") };
        let (from, to) = (line_end + 2, line_end + 2 + size);
        if self.buffer.len() < to + 2 {
            return None;
        }
        let chunk = self.buffer[from..to].to_vec();
        self.buffer.drain(..to + 2);
        Some(chunk)
    }
}

/// An answer whose body is still being read. Dropping it closes the connection at once.
pub(crate) struct Open {
    connection: Connection,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    framing: Framing,
    body: Vec<u8>,
    end: Option<End>,
}

impl Open {
    /// Reads until so many events have arrived; fails when the stream ends before.
    #[track_caller]
    pub(crate) fn await_events(&mut self, count: usize) {
        self.await_body(|body| sse::events(body).len() >= count);
    }

    /// Reads until the body so far is as wanted; fails when it ends before.
    #[track_caller]
    pub(crate) fn await_body(&mut self, enough: impl Fn(&[u8]) -> bool) {
        self.end = self.connection.read_body(&mut self.framing, &mut self.body, &enough);
        assert!(
            self.end.is_none() || enough(&self.body),
            "the answer ended {:?} too early: {}",
            self.end,
            String::from_utf8_lossy(&self.body)
        );
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<sse::Event> {
        sse::events(&self.body)
    }

    /// The id under which this request's Outcome is found.
    #[track_caller]
    pub(crate) fn request_id(&self) -> String {
        let head = Answer {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
            end: End::Clean,
        };
        head.request_id()
    }

    /// Reads to the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Answer {
        let end = match self.end {
            Some(end) => end,
            None => self
                .connection
                .read_body(&mut self.framing, &mut self.body, |_| false)
                .expect("read to an end"),
        };
        Answer { status: self.status, headers: self.headers, body: self.body, end }
    }
}

fn framing(status: u16, headers: &[(String, String)]) -> Framing {
    let value =
        |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    if status == 204 || status == 304 {
        return Framing::Length(0);
    }
    if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Framing::Chunked;
    }
    match value("content-length").and_then(|length| length.parse().ok()) {
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}
