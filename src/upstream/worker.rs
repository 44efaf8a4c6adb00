//! The local worker, as a supervised child: started, started again with growing pauses, and told to stop.
//!
//! The bond is a connection that we hold open (`GET /internal/supervise`): a worker that nobody holds ends by itself,
//! so a killed gateway leaves none behind. It also makes the hand-over of an upgrade simple: the new process takes hold
//! of the running worker before the old one lets go, and there is never a second one.

mod scrape;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pingora::time::{sleep, timeout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

pub use self::scrape::Scrape;
use crate::clock;
use crate::telemetry::metrics::Metrics;

/// How the local worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The GGUF file; checked when the worker is started, not when the configuration is read.
    pub model_file: PathBuf,
    /// The model's name.
    pub name: Arc<str>,
    /// What it makes vectors of texts with, if it does.
    pub embedding: Option<Embedding>,
    /// Where it listens: a socket in the state folder.
    pub socket: PathBuf,
    /// Its threads.
    pub threads: usize,
    /// Requests decoded together.
    pub max_batch: usize,
    /// Requests that wait.
    pub queue: usize,
    /// Where it keeps what it trains; none where it trains nothing.
    pub tuning: Option<Tuning>,
}

/// How a worker trains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Holds its jobs and the adapters that it serves.
    pub folder: PathBuf,
    /// What stands for us in the names of models.
    pub organization: Arc<str>,
    /// What a training may allocate, MiB.
    pub memory_mib: u64,
    /// The longest row, tokens.
    pub longest_row: usize,
    /// Adapters held in memory.
    pub max_adapters: usize,
}

/// The embedding model of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Its folder; it was there when the configuration was read.
    pub folder: PathBuf,
    /// Its name.
    pub name: Arc<str>,
}

/// How the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Being started, or between two starts.
    Starting,
    /// Answering.
    Ready,
    /// There is no model file; looked for again every few seconds.
    NoModel,
}

/// How the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The worker ends too.
    Stop,
    /// Another process has taken hold of the worker.
    HandOver,
}

/// The first pause before another start; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A worker that lived so long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(60);
/// For a start: reading a model of some GiB from a slow disk.
const START_LIMIT: Duration = Duration::from_secs(300);
/// For a request to the worker's own endpoints.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a worker that is starting.
const LOOK: Duration = Duration::from_millis(25);
/// Between two looks for a missing model file.
const LOOK_FOR_MODEL: Duration = Duration::from_secs(3);
/// A worker gives a sign of life every 3 s; one that gives none for so long hangs.
const SILENCE: Duration = Duration::from_secs(30);
/// For a worker that was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Keeps one worker running.
pub struct Supervisor {
    config: Config,
    /// Our own binary, as it was when we started.
    binary: PathBuf,
    metrics: Arc<Metrics>,
    /// Whether a worker that runs already is taken over: only in an upgrade.
    adopts: bool,
    state: watch::Sender<WorkerState>,
}

/// A worker in our hold.
struct Held {
    /// Nothing when we took it over from another process.
    child: Option<Child>,
    bond: UnixStream,
}

impl Supervisor {
    /// A supervisor that has not started anything. In an upgrade it `adopts` the worker that runs.
    pub fn new(config: Config, binary: PathBuf, metrics: Arc<Metrics>, adopts: bool) -> Self {
        Self { config, binary, metrics, adopts, state: watch::Sender::new(WorkerState::Starting) }
    }

    /// How the worker is, now and from now on.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }

    /// Keeps a worker running until `farewell` says how to part.
    pub async fn run(&self, mut farewell: watch::Receiver<Option<Farewell>>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = clock::monotonic();
            let held = tokio::select! {
                held = self.hold() => held,
                _ = farewell.wait_for(Option::is_some) => return,
            };
            match held {
                Ok(mut held) => {
                    self.state.send_replace(WorkerState::Ready);
                    tracing::info!(model = %self.config.name, adopted = held.child.is_none(), "the worker answers");
                    let parting = tokio::select! {
                        () = held.ended(SILENCE) => None,
                        parting = farewell.wait_for(Option::is_some) => parting.ok().and_then(|parting| *parting),
                    };
                    self.state.send_replace(WorkerState::Starting);
                    match parting {
                        Some(Farewell::HandOver) => return,
                        Some(Farewell::Stop) => return self.stop(held).await,
                        None => tracing::error!("the worker ended; it is started again"),
                    }
                }
                Err(why) => tracing::error!(%why, "the worker can't be started"),
            }
            if started.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                _ = farewell.wait_for(Option::is_some) => return,
            }
        }
    }

    /// Takes hold of a worker that runs, or starts one; returns when it answers.
    async fn hold(&self) -> Result<Held, String> {
        if let Ok(bond) = self.bond().await {
            let mut held = Held { child: None, bond };
            if self.adopts {
                self.wait_until_healthy(None).await?;
                return Ok(held);
            }
            // left by a gateway that was killed: it may serve another file, or with other limits
            let told = self.ask("POST", "/internal/stop?grace_ms=0").await;
            if timeout(STOP_LIMIT, held.ended(SILENCE)).await.is_err() {
                return Err(format!("a worker of an earlier gateway does not end ({told:?})"));
            }
        }
        while !self.config.model_file.is_file() {
            self.state.send_replace(WorkerState::NoModel);
            sleep(LOOK_FOR_MODEL).await;
        }
        self.state.send_replace(WorkerState::Starting);
        let mut child = self.spawn().map_err(|error| error.to_string())?;
        self.metrics.process.worker_starts.inc();
        let late = || Err(format!("it did not answer within {} s", START_LIMIT.as_secs()));
        match timeout(START_LIMIT, self.started(&mut child)).await.unwrap_or_else(|_| late()) {
            Ok(bond) => Ok(Held { child: Some(child), bond }),
            Err(why) => {
                // left behind, it would keep its memory, and the next one from the socket
                let _ = child.kill().await;
                Err(why)
            }
        }
    }

    /// Waits until a child answers.
    async fn started(&self, child: &mut Child) -> Result<UnixStream, String> {
        let bond = loop {
            match self.bond().await {
                Ok(bond) => break bond,
                Err(_) => still_runs(child)?,
            }
            sleep(LOOK).await;
        };
        self.wait_until_healthy(Some(child)).await?;
        Ok(bond)
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.binary);
        command
            .arg("worker")
            .arg("--model-file")
            .arg(&self.config.model_file)
            .arg("--name")
            .arg(&*self.config.name)
            .arg("--listen")
            .arg(format!("unix:{}", self.config.socket.display()))
            .arg("--threads")
            .arg(self.config.threads.to_string())
            .arg("--max-batch")
            .arg(self.config.max_batch.to_string())
            .arg("--queue")
            .arg(self.config.queue.to_string())
            .arg("--supervised");
        if let Some(Embedding { folder, name }) = &self.config.embedding {
            command.arg("--embedding-model").arg(folder).arg("--embedding-name").arg(&**name);
        }
        if let Some(tuning) = &self.config.tuning {
            command
                .arg("--tuning-folder")
                .arg(&tuning.folder)
                .args(["--tuning-organization", &tuning.organization])
                .args(["--tuning-memory-mib", &tuning.memory_mib.to_string()])
                .args(["--tuning-longest-row", &tuning.longest_row.to_string()])
                .args(["--max-adapters", &tuning.max_adapters.to_string()]);
        }
        command
            // a signal to our group, such as Ctrl-C, is ours to handle: the worker is told when its time has come
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
    }

    /// Opens the connection that keeps a worker alive.
    async fn bond(&self) -> std::io::Result<UnixStream> {
        let mut bond = UnixStream::connect(&self.config.socket).await?;
        bond.write_all(b"GET /internal/supervise HTTP/1.1\r\nHost: worker\r\n\r\n").await?;
        let mut first = [0; 12];
        let read = timeout(ASK_LIMIT, bond.read_exact(&mut first)).await;
        match read {
            Ok(Ok(_)) if first == *b"HTTP/1.1 200" => Ok(bond),
            Ok(Err(error)) => Err(error),
            _ => Err(std::io::Error::other("it is not a worker of ours")),
        }
    }

    async fn wait_until_healthy(&self, mut child: Option<&mut Child>) -> Result<(), String> {
        let started = clock::monotonic();
        loop {
            if self.ask("GET", "/health").await.is_ok_and(|status| status == 200) {
                return Ok(());
            }
            if let Some(child) = child.as_deref_mut() {
                still_runs(child)?;
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("it did not answer within {} s", START_LIMIT.as_secs()));
            }
            sleep(LOOK).await;
        }
    }

    /// Asks one of the worker's own endpoints for its status.
    async fn ask(&self, method: &str, path: &str) -> std::io::Result<u16> {
        let asking = async {
            let mut stream = UnixStream::connect(&self.config.socket).await?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await?;
            let status = std::str::from_utf8(&head[9..12]).ok().and_then(|status| status.parse().ok());
            status.ok_or_else(|| std::io::Error::other("no HTTP"))
        };
        timeout(ASK_LIMIT, asking).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// Tells the worker to end, waits for it, and kills it if it does not.
    async fn stop(&self, mut held: Held) {
        let told = self.ask("POST", "/internal/stop?grace_ms=1000").await;
        if timeout(STOP_LIMIT, held.ended(SILENCE)).await.is_ok() {
            return;
        }
        tracing::warn!(?told, "the worker did not stop in time");
        if let Some(child) = &mut held.child
            && let Err(error) = child.kill().await
        {
            tracing::error!(%error, "the worker can't be killed");
        }
    }
}

impl Held {
    /// Resolves when the worker has ended. One that gives no sign of life for `silence` is helped to.
    async fn ended(&mut self, silence: Duration) {
        let last = last_sign(&mut self.bond, silence);
        let Some(child) = &mut self.child else {
            last.await;
            return;
        };
        tokio::select! {
            status = child.wait() => {
                if let Ok(status) = status && !status.success() {
                    tracing::error!(%status, "the worker failed");
                }
            }
            Sign::Overdue = last => {
                tracing::error!("the worker hangs: it is killed");
                if let Err(error) = child.kill().await {
                    tracing::error!(%error, "the worker can't be killed");
                }
            }
        }
    }
}

/// How the signs of life came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The connection has ended: the worker ends, or has ended.
    Closed,
    /// None has come for too long.
    Overdue,
}

/// Reads signs of life until there are no more.
async fn last_sign(bond: &mut UnixStream, silence: Duration) -> Sign {
    let mut sink = [0; 256];
    loop {
        match timeout(silence, bond.read(&mut sink)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => return Sign::Closed,
            Err(_) => return Sign::Overdue,
        }
    }
}

fn still_runs(child: &mut Child) -> Result<(), String> {
    match child.try_wait() {
        Ok(None) => Ok(()),
        Ok(Some(status)) => Err(format!("it ended at once ({status}); see its own words above")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(child: Option<Child>) -> (Held, UnixStream) {
        let (bond, other) = UnixStream::pair().expect("a pair");
        (Held { child, bond }, other)
    }

    fn long_lived() -> Child {
        Command::new("sleep").arg("600").kill_on_drop(true).spawn().expect("a child")
    }

    #[tokio::test]
    async fn a_worker_that_gives_no_sign_of_life_is_killed() {
        let (mut held, mut other) = held(Some(long_lived()));
        other.write_all(b": here\n\n").await.expect("written");
        held.ended(Duration::from_millis(50)).await;
        let status = held.child.as_mut().expect("a child").wait().await.expect("its status");
        assert!(!status.success(), "{status}");
    }

    #[tokio::test]
    async fn a_worker_that_says_good_bye_has_its_time() {
        let (mut held, other) = held(Some(long_lived()));
        drop(other);
        let ended = timeout(Duration::from_millis(200), held.ended(Duration::from_millis(10))).await;
        assert!(ended.is_err(), "only its end counts");
    }

    #[tokio::test]
    async fn a_worker_of_somebody_elses_has_ended_when_it_is_silent_or_gone() {
        let (mut silent, other) = held(None);
        silent.ended(Duration::from_millis(10)).await;
        drop(other);
        silent.ended(Duration::from_secs(600)).await;
    }
}
