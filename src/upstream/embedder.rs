//! Vectors for the gateway itself, from its own worker: asked over the worker's socket, on connections that are kept,
//! within a limit that the caller sets. It never makes a request wait for longer, and never queues: who can't be
//! served now is told so at once, and does without.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
// pingora's own rounds up to 10 ms: too coarse for limits of 50.
use tokio::time::timeout;

/// Questions at once: the worker computes them one batch after the other.
const AT_ONCE: usize = 8;
/// The longest text, characters: the model reads some 250 tokens, so what is longer would be refused there.
const MOST_CHARACTERS: usize = 2_000;
/// An answer, its head included: one vector has 2 KiB.
const MOST_BYTES: usize = 256 << 10;
/// What is read at a time.
const PIECE: usize = 8 << 10;

/// Why there is no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The worker does not answer, or is about to stop.
    #[error("the worker does not answer")]
    Away,
    /// It did not answer in time.
    #[error("the worker did not answer in time")]
    Late,
    /// Too much is asked at once, of us or of the worker.
    #[error("too much is asked at once")]
    Busy,
    /// The text is longer than the model reads.
    #[error("the text is longer than the model reads")]
    TooLong,
    /// The worker says no, or answers what is no vector.
    #[error("{0}")]
    Refused(String),
}

impl EmbedError {
    /// One word for logs and labels.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::TooLong => "too_long",
            Self::Refused(_) => "refused",
        }
    }
}

/// Asks one worker.
pub struct Embedder {
    socket: PathBuf,
    model: Arc<str>,
    /// Connections that nobody uses, at most one a question.
    idle: Mutex<Vec<UnixStream>>,
    places: Semaphore,
}

/// An answer's status and body, and whether its connection can be used again.
struct Answer {
    status: u16,
    body: Vec<u8>,
    keeps: bool,
}

/// What went wrong with a connection.
enum Broken {
    /// Closed before a byte of the answer: one that was kept for too long ends so.
    Unanswered,
    /// Anything else.
    Otherwise(EmbedError),
}

impl Embedder {
    /// For the worker that listens at `socket`, and its model of that name; nothing is asked yet.
    pub fn new(socket: PathBuf, model: Arc<str>) -> Self {
        Self { socket, model, idle: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// Returns a text's vector, of length 1. Dropped, it takes its question back.
    ///
    /// # Errors
    /// Why there is none. Nothing is tried again; `Busy` and `TooLong` are known without asking.
    pub async fn embed(&self, text: &str, limit: Duration) -> Result<Arc<[f32]>, EmbedError> {
        if text.chars().nth(MOST_CHARACTERS).is_some() {
            return Err(EmbedError::TooLong);
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(EmbedError::Busy) };
        let answer = timeout(limit, self.ask(text)).await.map_err(|_| EmbedError::Late)??;
        vector(&answer)
    }

    async fn ask(&self, text: &str) -> Result<Answer, EmbedError> {
        let body = json!({"model": &*self.model, "input": text, "encoding_format": "base64"}).to_string();
        let request = format!(
            "POST /v1/embeddings HTTP/1.1\r\nHost: worker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let kept = self.idle.lock().pop();
        if let Some(stream) = kept {
            match self.on(stream, request.as_bytes()).await {
                Ok(answer) => return Ok(answer),
                Err(Broken::Otherwise(error)) => return Err(error),
                Err(Broken::Unanswered) => {}
            }
        }
        let stream = connect(&self.socket).await?;
        match self.on(stream, request.as_bytes()).await {
            Ok(answer) => Ok(answer),
            Err(Broken::Otherwise(error)) => Err(error),
            Err(Broken::Unanswered) => Err(EmbedError::Away),
        }
    }

    /// Asks on a connection, and keeps it where it can be used again.
    async fn on(&self, mut stream: UnixStream, request: &[u8]) -> Result<Answer, Broken> {
        stream.write_all(request).await.map_err(|_| Broken::Unanswered)?;
        let answer = read(&mut stream).await?;
        if answer.keeps {
            self.idle.lock().push(stream);
        }
        Ok(answer)
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, EmbedError> {
    UnixStream::connect(socket).await.map_err(|_| EmbedError::Away)
}

/// Reads one answer of known length.
async fn read(stream: &mut UnixStream) -> Result<Answer, Broken> {
    let nonsense = |why: &str| Broken::Otherwise(EmbedError::Refused(format!("the worker's answer {why}")));
    let mut bytes = Vec::with_capacity(PIECE);
    let (status, keeps, start, length) = loop {
        if !more(stream, &mut bytes).await? {
            return Err(nonsense("is too large"));
        }
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end]).map_err(|_| nonsense("is no text"))?;
            let (status, length, keeps) = head_of(head).ok_or_else(|| nonsense("is no HTTP"))?;
            break (status, keeps, end + 4, length);
        }
    };
    while bytes.len() - start < length {
        if !more(stream, &mut bytes).await? {
            return Err(nonsense("is too large"));
        }
    }
    let mut body = bytes.split_off(start);
    // What comes behind an answer belongs to no question.
    let keeps = keeps && body.len() == length;
    body.truncate(length);
    Ok(Answer { status, body, keeps })
}

/// Reads a piece more; says whether it is still of a reasonable size.
async fn more(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> Result<bool, Broken> {
    bytes.reserve(PIECE);
    match stream.read_buf(bytes).await {
        Ok(0) | Err(_) if bytes.is_empty() => Err(Broken::Unanswered),
        Ok(0) | Err(_) => Err(Broken::Otherwise(EmbedError::Away)),
        Ok(_) => Ok(bytes.len() <= MOST_BYTES),
    }
}

/// The status, the length of the body, and whether the connection stays open.
fn head_of(head: &str) -> Option<(u16, usize, bool)> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (mut length, mut keeps) = (None, true);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            keeps = !value.eq_ignore_ascii_case("close");
        }
    }
    Some((status, length?, keeps))
}

#[derive(Deserialize)]
struct Embeddings {
    data: [Embedding; 1],
}

#[derive(Deserialize)]
struct Embedding {
    embedding: String,
}

#[derive(Deserialize)]
struct Failure {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
    code: Option<String>,
}

fn vector(answer: &Answer) -> Result<Arc<[f32]>, EmbedError> {
    if answer.status != 200 {
        return Err(refused(answer));
    }
    let nonsense = || EmbedError::Refused("the worker's answer holds no vector".to_owned());
    let read: Embeddings = serde_json::from_slice(&answer.body).map_err(|_| nonsense())?;
    let [Embedding { embedding }] = read.data;
    let bytes = STANDARD.decode(embedding).map_err(|_| nonsense())?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    let vector: Arc<[f32]> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
    // One number that is none would spoil every comparison with the vector.
    let sound = rest.is_empty() && !vector.is_empty() && vector.iter().all(|number| number.is_finite());
    if sound { Ok(vector) } else { Err(nonsense()) }
}

fn refused(answer: &Answer) -> EmbedError {
    let said = serde_json::from_slice::<Failure>(&answer.body).ok().map(|failure| failure.error);
    match (answer.status, said) {
        (429, _) => EmbedError::Busy,
        (503, _) => EmbedError::Away,
        (_, Some(said)) if said.code.as_deref() == Some("context_length_exceeded") => EmbedError::TooLong,
        (_, Some(said)) => EmbedError::Refused(said.message),
        (status, None) => EmbedError::Refused(format!("the worker answers with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UnixListener;
    use tokio::task::JoinSet;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What a stand-in does with one connection.
    #[derive(Clone)]
    enum Way {
        /// Answers every question so.
        Says(Vec<u8>),
        /// Answers one question, and closes behind it without a word.
        Once(Vec<u8>),
        Hangs,
    }

    struct StandIn {
        embedder: Arc<Embedder>,
        connections: Arc<AtomicUsize>,
        _serving: JoinSet<()>,
        _folder: tempfile::TempDir,
    }

    impl StandIn {
        fn new(way: &Way) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = folder.path().join("worker.sock");
            let listener = UnixListener::bind(&socket).expect("a socket");
            let connections = Arc::new(AtomicUsize::new(0));
            let (counted, way) = (Arc::clone(&connections), way.clone());
            let mut serving = JoinSet::new();
            serving.spawn(async move {
                let mut open = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    open.spawn(serve(stream, way.clone()));
                }
            });
            let embedder = Arc::new(Embedder::new(socket, "mini".into()));
            Self { embedder, connections, _serving: serving, _folder: folder }
        }

        async fn embed(&self) -> Result<Arc<[f32]>, EmbedError> {
            self.embedder.embed("hello", LIMIT).await
        }
    }

    async fn serve(mut stream: UnixStream, way: Way) {
        let mut question = vec![0; 4096];
        while stream.read(&mut question).await.is_ok_and(|read| read > 0) {
            match &way {
                Way::Says(answer) => drop(stream.write_all(answer).await),
                Way::Once(answer) => {
                    drop(stream.write_all(answer).await);
                    return;
                }
                Way::Hangs => std::future::pending().await,
            }
        }
    }

    fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
    }

    fn good(headers: &str) -> Vec<u8> {
        let numbers = STANDARD.encode([1f32.to_le_bytes(), (-0.5f32).to_le_bytes()].concat());
        answer("200 OK", headers, &json!({"data": [{"embedding": numbers}]}).to_string())
    }

    #[tokio::test]
    async fn connections_are_kept_while_they_last() {
        for (way, connections) in [
            (Way::Says(good("")), 1),
            (Way::Says(good("Connection: close\r\n")), 3),
            (Way::Once(good("")), 3),
        ] {
            let worker = StandIn::new(&way);
            for _ in 0..3 {
                assert_eq!(worker.embed().await.as_deref(), Ok(&[1.0, -0.5][..]));
            }
            assert_eq!(worker.connections.load(Ordering::SeqCst), connections);
        }
    }

    #[tokio::test]
    async fn every_other_end_has_its_word() {
        let error = |status: &str, code: &str| {
            let body = json!({"error": {"message": "told", "type": "t", "param": null, "code": code}});
            Way::Says(answer(status, "", &body.to_string()))
        };
        let data =
            |data: serde_json::Value| Way::Says(answer("200 OK", "", &json!({"data": data}).to_string()));
        let nan = STANDARD.encode(f32::NAN.to_le_bytes());
        for (name, way, code) in [
            ("full", error("429 Too Many Requests", "rate_limit_exceeded"), "busy"),
            ("stopping", error("503 Service Unavailable", "server_is_stopping"), "away"),
            ("too long", error("400 Bad Request", "context_length_exceeded"), "too_long"),
            ("no such model", error("404 Not Found", "model_not_found"), "refused"),
            ("no envelope", Way::Says(answer("500 Oops", "", "x")), "refused"),
            ("no vectors", data(json!([])), "refused"),
            ("too many", data(json!([{"embedding": ""}, {"embedding": ""}])), "refused"),
            ("empty", data(json!([{"embedding": ""}])), "refused"),
            ("half a number", data(json!([{"embedding": "AAA="}])), "refused"),
            ("no number", data(json!([{"embedding": nan}])), "refused"),
            ("no base64", data(json!([{"embedding": "?"}])), "refused"),
            ("no HTTP", Way::Says(b"hello\r\n\r\n".to_vec()), "refused"),
            ("no length", Way::Says(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), "refused"),
            ("endless", Way::Says(vec![b'x'; MOST_BYTES + PIECE]), "refused"),
            ("cut off", Way::Once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()), "away"),
            ("silent", Way::Once(Vec::new()), "away"),
        ] {
            let found = StandIn::new(&way).embed().await.expect_err(name);
            assert_eq!(found.code(), code, "{name}: {found}");
        }
        let nobody = Embedder::new("/nowhere/worker.sock".into(), "mini".into());
        assert_eq!(nobody.embed("hello", LIMIT).await, Err(EmbedError::Away));
    }

    #[tokio::test]
    async fn nobody_waits_beyond_the_limit_or_behind_others() {
        let worker = StandIn::new(&Way::Hangs);
        let late = worker.embedder.embed("hello", Duration::from_millis(20)).await;
        assert_eq!(late, Err(EmbedError::Late));
        let questions = (0..AT_ONCE + 1).map(|_| worker.embedder.embed("hello", Duration::from_millis(50)));
        let ends = futures_util::future::join_all(questions).await;
        assert_eq!(ends.iter().filter(|end| **end == Err(EmbedError::Busy)).count(), 1, "{ends:?}");
        assert_eq!(ends.iter().filter(|end| **end == Err(EmbedError::Late)).count(), AT_ONCE, "{ends:?}");
        let again = worker.embedder.embed("hello", Duration::from_millis(20)).await;
        assert_eq!(again, Err(EmbedError::Late), "places come back");
    }

    #[tokio::test]
    async fn a_long_text_is_refused_without_asking() {
        let worker = StandIn::new(&Way::Says(good("")));
        let most = "é".repeat(MOST_CHARACTERS);
        assert!(worker.embedder.embed(&most, LIMIT).await.is_ok());
        let longer = worker.embedder.embed(&format!("{most}é"), LIMIT).await;
        assert_eq!((longer, worker.connections.load(Ordering::SeqCst)), (Err(EmbedError::TooLong), 1));
    }
}
