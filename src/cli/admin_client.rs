//! A client of the admin API for one request at a time: blocking, HTTP/1.1, to the configured admin address.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConfigOption;
use crate::app::banner::reachable;
use crate::config::{self, ProcessEnvironment, state};
use crate::domain::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For each read and write.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Between the members of a form; no line of JSON begins so.
const BOUNDARY: &str = "tunegate-4f0c9c1d8b7e46d2a95b";
const MAX_HEAD_BYTES: u64 = 64 << 10;
const MAX_BODY_BYTES: u64 = 16 << 20;

/// Asks a running gateway.
pub(super) struct AdminClient {
    address: SocketAddr,
    key: Option<Secret>,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl AdminClient {
    /// Takes the address and the key from the configuration; a key that is not configured, from the state folder.
    pub(super) fn new(config: &ConfigOption) -> anyhow::Result<Self> {
        let access = config::load_admin_access(config.path().as_deref(), &ProcessEnvironment)?;
        let key = match access.key {
            Some(key) => Some(key),
            None => state::read_admin_key(&access.state_dir)?,
        };
        Ok(Self { address: reachable(access.listen), key })
    }

    /// Asks as an application does, with a virtual key, where the gateway serves them: `http://HOST:PORT`.
    pub(super) fn of_applications(url: &str, key: Secret) -> anyhow::Result<Self> {
        let parsed = url::Url::parse(url).ok().filter(|parsed| parsed.scheme() == "http");
        let Some(parsed) = parsed else {
            bail!("{url} is no http address: name the gateway's own, such as http://127.0.0.1:8080");
        };
        let address = parsed.socket_addrs(|| None).with_context(|| format!("{url} leads nowhere"))?;
        let address = *address.first().with_context(|| format!("{url} leads nowhere"))?;
        Ok(Self { address, key: Some(key) })
    }

    /// For what anybody may ask.
    pub(super) fn without_key(self) -> Self {
        Self { key: None, ..self }
    }

    /// Sends one request and reads the whole answer.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Reply> {
        let mut stream = self.connect()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = self.head(method, path, "application/json", body.len() as u64);
        stream
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())
            .context("the gateway did not take the request")?;
        read_reply(BufReader::new(stream)).with_context(|| format!("no sound answer from {}", self.address))
    }

    /// Sends a file to train with, as a form, and reads the whole answer. The file is read as it is sent.
    pub(super) fn upload(&self, path: &str, file: &Path) -> anyhow::Result<Reply> {
        let name = file.file_name().map(|name| name.to_string_lossy().replace(['"', '\\', '\r', '\n'], "_"));
        let unreadable = || format!("{} can't be read", file.display());
        let mut content = File::open(file).with_context(unreadable)?;
        let front = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--{BOUNDARY}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             content-type: application/octet-stream\r\n\r\n",
            name.unwrap_or_default()
        );
        let back = format!("\r\n--{BOUNDARY}--\r\n");
        let bytes = content.metadata().with_context(unreadable)?.len();
        let length = bytes + (front.len() + back.len()) as u64;
        let mut stream = self.connect()?;
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let sent = stream
            .write_all(self.head("POST", path, &kind, length).as_bytes())
            .and_then(|()| stream.write_all(front.as_bytes()))
            .and_then(|()| io::copy(&mut content, &mut stream).map(drop))
            .and_then(|()| stream.write_all(back.as_bytes()));
        // one that is refused is answered before it is read to its end
        let reply = read_reply(BufReader::new(stream));
        sent.or_else(|error| if reply.is_ok() { Ok(()) } else { Err(error) })
            .context("the gateway did not take the file")?;
        reply.with_context(|| format!("no sound answer from {}", self.address))
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT).map_err(|error| {
            anyhow!("no gateway is running at {}: start it with `tunegate serve` ({error})", self.address)
        })?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(stream)
    }

    fn head(&self, method: &str, path: &str, kind: &str, body_len: u64) -> String {
        let authorization = self
            .key
            .as_ref()
            .map(|key| format!("authorization: Bearer {}\r\n", key.expose()))
            .unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept: application/json\r\n{authorization}\
             content-type: {kind}\r\ncontent-length: {body_len}\r\n\r\n",
            self.address
        )
    }
}

impl Reply {
    /// The answer as JSON, if its status is the one expected; else what the gateway says against it.
    pub(super) fn read<T: DeserializeOwned>(&self, status: u16) -> anyhow::Result<T> {
        if self.status == 401 {
            bail!(
                "the gateway refused the admin key ({}): use the configuration and state folder that it runs with",
                self.message()
            );
        }
        if self.status != status {
            bail!("{}", self.message());
        }
        serde_json::from_slice(&self.body).context("an answer that this version does not understand")
    }

    /// The answer as it came, if its status is the one expected; else what the gateway says against it.
    pub(super) fn text(&self, status: u16) -> anyhow::Result<&str> {
        if self.status != status {
            self.read::<Value>(status)?;
        }
        std::str::from_utf8(&self.body).context("an answer that is no text")
    }

    /// The words of an error: OpenAI's envelope, a list of errors, or whatever stands there.
    pub(super) fn message(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = json.pointer("/error/message").and_then(Value::as_str).map(str::to_owned);
        let list = json.get("errors").or_else(|| json.pointer("/error/errors")).and_then(Value::as_array);
        let lines: Vec<String> = list.into_iter().flatten().map(error_line).collect();
        match (message, lines.is_empty()) {
            (Some(message), true) => message,
            (Some(message), false) => format!("{message}\n{}", lines.join("\n")),
            (None, false) => lines.join("\n"),
            (None, true) => {
                let text = String::from_utf8_lossy(&self.body);
                let text = text.trim();
                let start: String =
                    text.chars().take(500).filter(|c| !c.is_control() || *c == '\n').collect();
                if start.is_empty() { format!("status {}", self.status) } else { start }
            }
        }
    }
}

fn error_line(error: &Value) -> String {
    let member = |name: &str| error.get(name).and_then(Value::as_str);
    match (error.as_str(), member("path"), member("message")) {
        (Some(text), ..) => format!("  {text}"),
        (None, Some(path), Some(message)) => format!("  {path}: {message}"),
        _ => format!("  {error}"),
    }
}

/// A text as one segment of a path.
pub(super) fn path_segment(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.bytes()
        .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// How the end of a body is known.
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

fn read_reply(stream: impl Read) -> anyhow::Result<Reply> {
    let mut stream = BufReader::new(stream);
    let mut head = stream.by_ref().take(MAX_HEAD_BYTES);
    let status_line = read_line(&mut head)?;
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| anyhow!("{status_line:?} is no HTTP"))?;
    let mut framing = Framing::Close;
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| anyhow!("a header without a colon"))?;
        match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", length) => {
                framing = Framing::Length(length.parse().context("content-length")?);
            }
            ("transfer-encoding", coding) if coding.eq_ignore_ascii_case("chunked") => {
                framing = Framing::Chunked;
            }
            _ => {}
        }
    }
    let body = match framing {
        Framing::Length(length) => read_exactly(&mut stream, length)?,
        Framing::Chunked => read_chunks(&mut stream)?,
        Framing::Close => {
            let mut body = Vec::new();
            stream.take(MAX_BODY_BYTES).read_to_end(&mut body)?;
            body
        }
    };
    Ok(Reply { status, body })
}

fn read_line(stream: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(whole.trim_end_matches('\r').to_owned()),
        None => bail!("it broke off"),
    }
}

fn read_exactly(stream: &mut impl Read, length: u64) -> anyhow::Result<Vec<u8>> {
    if length > MAX_BODY_BYTES {
        bail!("it is larger than {MAX_BODY_BYTES} bytes");
    }
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        bail!("it broke off");
    }
    Ok(body)
}

fn read_chunks(stream: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).context("the size of a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        if (body.len() as u64).saturating_add(size) > MAX_BODY_BYTES {
            bail!("it is larger than {MAX_BODY_BYTES} bytes");
        }
        body.extend(read_exactly(stream, size)?);
        read_line(stream)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn replies_of_each_framing() {
        for (wire, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}and more", Some("{}")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
                Some("{}"),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n{}", Some("{}")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\nffffffffffffffff\r\n", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("SSH-2.0\r\n\r\n", None),
            ("", None),
        ] {
            let reply = read_reply(wire.as_bytes());
            assert_eq!(
                reply.ok().map(|reply| (reply.status, reply.body)),
                body.map(|b| (200, b.into())),
                "{wire:?}"
            );
        }
    }

    #[test]
    fn errors_in_words() {
        for (status, body, words) in [
            (409, r#"{"error":{"message":"taken"}}"#, "taken"),
            (400, r#"{"error":{"message":"2 wrong"},"errors":["a: x","b: y"]}"#, "2 wrong\n  a: x\n  b: y"),
            (422, r#"{"error":{"message":"1"},"errors":[{"path":"a.b","message":"x"}]}"#, "1\n  a.b: x"),
            (503, "draining\n", "draining"),
            (502, "", "status 502"),
        ] {
            let reply = Reply { status, body: body.into() };
            assert_eq!(reply.message(), words);
            assert_eq!(reply.read::<Value>(200).expect_err("no 200").to_string(), words);
        }
        let refused = Reply { status: 401, body: Vec::new() };
        assert!(
            refused
                .read::<Value>(200)
                .expect_err("no 200")
                .to_string()
                .starts_with("the gateway refused the admin key")
        );
    }

    #[test]
    fn a_request_goes_out_and_its_answer_comes_in() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = vec![0; 4096];
            let mut len = 0;
            while !request[..len].ends_with(b"{\"alias\":\"a\"}") {
                len += stream.read(&mut request[len..]).expect("a request");
            }
            stream
                .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 8\r\n\r\n{\"id\":1}")
                .expect("answered");
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        let client = AdminClient { address, key: Some(Secret::new("sk-tg-admin-x")) };
        let reply = client
            .ask("POST", "/admin/v1/keys", Some(&serde_json::json!({ "alias": "a" })))
            .expect("answered");
        assert_eq!(reply.read::<Value>(201).expect("JSON")["id"], 1);
        let request = server.join().expect("served");
        assert!(request.starts_with("POST /admin/v1/keys HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer sk-tg-admin-x\r\n"), "{request}");

        let error = client.ask("GET", "/readyz", None).expect_err("nobody listens any more").to_string();
        assert!(
            error.contains("no gateway is running at 127.0.0.1:") && error.contains("tunegate serve"),
            "{error}"
        );
    }

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(path_segment("team.app-1_x"), "team.app-1_x");
        assert_eq!(path_segment("a/b c"), "a%2Fb%20c");
    }
}
