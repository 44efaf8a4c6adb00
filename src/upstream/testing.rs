//! A server on a real socket for tests of calls: it gives the answers that it was told, and remembers what it was asked.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Upstream;
use super::http::Pools;
use crate::domain::catalog::{Address, Credential, Dialect, Provider, Training};
use crate::domain::secret::Secret;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Method, path and query.
    pub(super) line: String,
    /// The head in small letters.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// The server. It answers one request after the other, each on the next connection.
pub(super) struct FakeServer {
    pub(super) address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeServer {
    /// A server that gives these answers: a status, headers as they stand on the wire, and a body. An answer of status
    /// 0 is none: it hangs up.
    pub(super) async fn answering(answers: Vec<(u16, &'static str, String)>) -> Self {
        Self::answering_with(|_| answers).await
    }

    /// As [`FakeServer::answering`], for answers that hold its own address.
    pub(super) async fn answering_with(
        answers: impl FnOnce(std::net::SocketAddr) -> Vec<(u16, &'static str, String)>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, answers) = (Arc::clone(&asked), answers(address));
        #[expect(clippy::disallowed_methods, reason = "the test's server ends with the test")]
        let task = tokio::spawn(async move {
            for (status, headers, body) in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let request = read(&mut stream).await;
                seen.lock().push(request);
                if status == 0 {
                    continue;
                }
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.expect("answered");
                stream.write_all(body.as_bytes()).await.expect("answered");
            }
        });
        Self { address, asked, task }
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// A handle to it as a provider.
    pub(super) fn upstream(&self, dialect: Dialect, training: Training) -> Arc<Upstream> {
        let plain = crate::domain::catalog::tests::deployment("d", "m");
        let provider = Provider {
            dialect,
            address: Address::Host {
                host: self.address.ip().to_string(),
                port: self.address.port(),
                tls: false,
            },
            authority: self.address.to_string(),
            credential: Credential::ApiKey(Secret::new("k3y")),
            training: Some(training),
            ..(*plain.provider).clone()
        };
        Arc::new(Upstream::new(Arc::new(provider), &Arc::new(Pools::default())))
    }
}

async fn read(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let end = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read(&mut chunk).await.expect("a head");
        assert!(read > 0, "cut off");
        bytes.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |text| text.parse().expect("a number"));
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        let read = stream.read(&mut chunk).await.expect("a body");
        assert!(read > 0, "cut off");
        body.extend_from_slice(&chunk[..read]);
    }
    Asked { line, head, body }
}
