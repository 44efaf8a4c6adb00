//! The worker's own metrics, fetched where it listens when somebody asks for ours. A worker that hangs or talks
//! nonsense costs that answer a moment, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::time::timeout;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::clock;
use crate::telemetry::metrics::passed;

/// How long one scrape waits, others before it included.
const LIMIT: Duration = Duration::from_millis(500);
/// An answer, its head included: the worker's has some 40 KiB.
const MOST_BYTES: usize = 1 << 20;
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";

/// Asks one worker, once at a time.
pub struct Scrape {
    socket: PathBuf,
    last: Mutex<Last>,
}

/// How the last question ended.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    answer: Option<Arc<str>>,
    /// Whether it was told that the worker talks nonsense.
    told: bool,
}

/// Why there is nothing to pass on.
#[derive(Debug, thiserror::Error)]
enum Silence {
    /// It does not answer, which the supervisor finds out, too.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It answers, but not as a worker of ours does.
    #[error("{0}")]
    Nonsense(String),
}

impl Scrape {
    /// For the worker that listens at `socket`; nothing is asked yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, last: Mutex::default() }
    }

    /// Returns what passes of the worker's text; nothing where it does not answer in time, or not in the format. Who
    /// comes while somebody asks gets the same answer.
    pub async fn text(&self) -> Option<Arc<str>> {
        timeout(LIMIT, self.shared(clock::monotonic())).await.unwrap_or_default()
    }

    async fn shared(&self, came: Instant) -> Option<Arc<str>> {
        let mut last = self.last.lock().await;
        if last.at.is_some_and(|at| at >= came) {
            return last.answer.clone();
        }
        let asked = ask(&self.socket).await;
        if let Err(Silence::Nonsense(why)) = &asked
            && !last.told
        {
            tracing::warn!(why, "the worker's metrics are not passed on");
        }
        last.told = matches!(asked, Err(Silence::Nonsense(_)));
        last.at = Some(clock::monotonic());
        last.answer = asked.ok();
        last.answer.clone()
    }
}

async fn ask(socket: &Path) -> Result<Arc<str>, Silence> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    stream.take(most + 1).read_to_end(&mut answer).await?;
    if answer.len() > MOST_BYTES {
        return Err(Silence::Nonsense(format!("its answer is larger than {MOST_BYTES} bytes")));
    }
    let body = body(&answer).map_err(|why| Silence::Nonsense(why.to_owned()))?;
    passed(body).map(Arc::from).map_err(|why| Silence::Nonsense(why.to_string()))
}

/// The body of a whole answer that went well.
fn body(answer: &[u8]) -> Result<&str, &'static str> {
    let answer = std::str::from_utf8(answer).map_err(|_| "its answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("its answer has no end of the head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err("its status is not 200");
    }
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.trim().parse::<usize>().ok());
    if length == Some(body.len()) { Ok(body) } else { Err("its answer is cut off") }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::UnixListener;
    use tokio::task::JoinHandle;

    use super::*;

    const GOOD: &str = "# TYPE tunegate_worker_queue gauge\ntunegate_worker_queue 3\n";

    /// A worker that answers with these bytes, or never.
    struct StandIn {
        scrape: Arc<Scrape>,
        asked: Arc<AtomicUsize>,
        task: JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    impl StandIn {
        fn new(answer: Option<Vec<u8>>) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = folder.path().join("worker.sock");
            let listener = UnixListener::bind(&socket).expect("a socket");
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let serving = async move {
                let mut hanging = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let mut request = vec![0; REQUEST.len()];
                    stream.read_exact(&mut request).await.expect("a request");
                    assert_eq!(request, REQUEST);
                    match &answer {
                        // a reader that has enough may leave
                        Some(answer) => drop(stream.write_all(answer).await),
                        None => hanging.push(stream),
                    }
                }
            };
            #[expect(clippy::disallowed_methods, reason = "the stand-in's task ends with its test")]
            let task = tokio::spawn(serving);
            Self { scrape: Arc::new(Scrape::new(socket)), asked, task, _folder: folder }
        }
    }

    impl Drop for StandIn {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn answer(status: &str, length: usize, body: &str) -> Option<Vec<u8>> {
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
    }

    #[tokio::test]
    async fn only_a_whole_and_well_formed_answer_passes() {
        let large = "x 1\n".repeat(MOST_BYTES / 4);
        let mine = "# TYPE mine gauge\nmine 1\n";
        for (name, answer, want) in [
            ("good", answer("200 OK", GOOD.len(), GOOD), Some(GOOD)),
            ("not of the list", answer("200 OK", mine.len(), mine), Some("")),
            ("an error", answer("500 Internal Server Error", GOOD.len(), GOOD), None),
            ("cut off", answer("200 OK", GOOD.len() + 1, GOOD), None),
            ("too long", answer("200 OK", large.len(), &large), None),
            ("garbled", answer("200 OK", 2, "?\n"), None),
            ("no HTTP", Some(b"hello".to_vec()), None),
            ("no text", Some(vec![0xff; 64]), None),
            ("nothing", Some(Vec::new()), None),
            ("silence", None, None),
        ] {
            let worker = StandIn::new(answer);
            assert_eq!(worker.scrape.text().await.as_deref(), want, "{name}");
        }
        let nobody = Scrape::new("/nowhere/worker.sock".into());
        assert_eq!(nobody.text().await, None);
    }

    #[tokio::test]
    async fn many_scrapes_of_a_worker_that_hangs_end_in_time_and_ask_one_by_one() {
        let worker = StandIn::new(None);
        let begun = clock::monotonic();
        let scrapes = (0..50).map(|_| worker.scrape.text());
        let answers = futures_util::future::join_all(scrapes).await;
        assert!(answers.iter().all(Option::is_none));
        assert!(begun.elapsed() < LIMIT * 4, "{:?}", begun.elapsed());
        assert!(worker.asked.load(Ordering::SeqCst) <= 2, "{:?}", worker.asked);
    }

    #[tokio::test]
    async fn who_comes_meanwhile_shares_the_answer_and_who_comes_later_gets_another() {
        let worker = StandIn::new(answer("200 OK", GOOD.len(), GOOD));
        let scrapes = (0..50).map(|_| worker.scrape.text());
        let answers = futures_util::future::join_all(scrapes).await;
        assert!(answers.iter().all(|answer| answer.as_deref() == Some(GOOD)));
        assert_eq!(worker.asked.load(Ordering::SeqCst), 1);
        assert_eq!(worker.scrape.text().await.as_deref(), Some(GOOD));
        assert_eq!(worker.asked.load(Ordering::SeqCst), 2);
    }
}
