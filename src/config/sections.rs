//! `[server]`, `[admin]`, `[state]`, `[database]`, `[log]`, `[metrics]`, `[worker]` and `[retirements]`: one check each.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use ::http::StatusCode;
use url::Url;

use crate::domain::secret::Secret;
use crate::gateway::retirements;
use crate::http::config as http;
use crate::store::{DatabaseConfig, Location};
use crate::telemetry::{log, metrics};
use crate::upstream::worker;

use super::file;
use super::problem::{Checker, Place};
use super::values::{self, duration, in_range, name_is_good, readable_pem, secret};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);
const DEFAULT_STATE_DIR: &str = "./var";
const DEFAULT_MODEL_FILE: &str = "./models/SmolLM2-135M-Instruct.Q4_1.gguf";
const DEFAULT_WORKER_NAME: &str = "smollm2-135m";
const DEFAULT_EMBEDDING_MODEL: &str = "./models/all-MiniLM-L6-v2";
const DEFAULT_EMBEDDING_NAME: &str = "all-minilm-l6-v2";
const DEFAULT_MAX_BATCH: usize = 8;
const DEFAULT_QUEUE: usize = 32;
const DEFAULT_ORGANIZATION: &str = "local";
const DEFAULT_DRAIN: Duration = Duration::from_secs(60);

const BODY_BYTES: RangeInclusive<usize> = 1 << 10..=1 << 30;
const THREADS: RangeInclusive<usize> = 0..=1_024;
const BATCH: RangeInclusive<usize> = 1..=256;
const QUEUE: RangeInclusive<usize> = 0..=100_000;
const CONNECTIONS: RangeInclusive<u32> = 2..=256;
/// Longest time for running answers after SIGTERM, ms: an hour.
const MAX_DRAIN_TIMEOUT_MS: u64 = 3_600_000;
/// Shortest admin key we take from an operator, characters.
const MIN_ADMIN_KEY_LEN: usize = 16;
/// Teams and budgets that get a label of their own.
const LABEL_VALUES: RangeInclusive<usize> = 0..=10_000;
/// Longest path of a unix socket, bytes (`sun_path` without its final zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How often a provider is asked for its list of models, ms.
const POLL_MS: RangeInclusive<u64> = 1_000..=values::MAX_MS;
const DEFAULT_POLL_MS: u64 = 6 * 3_600_000;
/// Ten years: nobody plans ahead for longer.
const MAX_WARN_DAYS: u64 = 3_660;

/// How the control plane is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccess {
    /// The admin address.
    pub listen: SocketAddr,
    /// The key from the configuration; without one it is in the state folder.
    pub key: Option<Secret>,
    /// Database, pepper, admin key, worker socket.
    pub state_dir: PathBuf,
}

/// Checks `[admin]` and `[state]`.
pub(super) fn admin(file: &file::File, checker: &mut Checker<'_>) -> AdminAccess {
    let place = Place::top("admin");
    let listen =
        address(&place.key("listen"), file.admin.listen.as_deref(), checker).unwrap_or(DEFAULT_ADMIN_LISTEN);
    let key = file.admin.key.as_ref().and_then(|source| secret(&place.key("key"), source, checker));
    if key.as_ref().is_some_and(|key| key.expose().len() < MIN_ADMIN_KEY_LEN) {
        checker
            .wrong(&place.key("key"), format!("too easy to guess: at least {MIN_ADMIN_KEY_LEN} characters"));
    }
    if !listen.ip().is_loopback() && file.admin.key.is_none() {
        checker.wrong(
            &place.key("listen"),
            format!("{listen} can be reached from other machines: set admin.key, or listen on 127.0.0.1"),
        );
    }
    let state_dir = file.state.dir.clone().unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    if state_dir.as_os_str().is_empty() {
        checker.wrong(&Place::top("state").key("dir"), "empty: name a folder that only tunegate uses");
    }
    AdminAccess { listen, key, state_dir }
}

/// Checks `[server]`, together with the admin address.
pub(super) fn server(
    server: &file::Server,
    admin_listen: SocketAddr,
    budget_exceeded: StatusCode,
    checker: &mut Checker<'_>,
) -> http::Config {
    let place = Place::top("server");
    let listen = address(&place.key("listen"), server.listen.as_deref(), checker).unwrap_or(DEFAULT_LISTEN);
    let h2c_listen = address(&place.key("h2c_listen"), server.h2c_listen.as_deref(), checker);
    if let Some(h2c) = h2c_listen.filter(|h2c| !h2c.ip().is_loopback()) {
        checker.notice(
            &place.key("h2c_listen"),
            format!("{h2c} speaks plain-text HTTP/2 to other machines: keep it on an internal network"),
        );
    }
    check_distinct(listen, admin_listen, h2c_listen, checker);
    let tls = server.tls.as_ref().and_then(|pair| tls(&place.key("tls"), pair, checker));
    http::Config {
        listen,
        admin_listen,
        tls,
        h2c_listen,
        threads: threads(&place.key("threads"), server.threads, 0, checker),
        limits: limits(&place, server, checker),
        budget_exceeded,
        drain_timeout: values::duration_up_to(
            &place.key("drain_timeout_ms"),
            server.drain_timeout_ms,
            DEFAULT_DRAIN,
            MAX_DRAIN_TIMEOUT_MS,
            checker,
        ),
    }
}

fn limits(place: &Place, server: &file::Server, checker: &mut Checker<'_>) -> http::Limits {
    let default = http::Limits::default();
    let mut time =
        |key: &str, value: Option<u64>, default: Duration| duration(&place.key(key), value, default, checker);
    let head_timeout = time("head_timeout_ms", server.head_timeout_ms, default.head_timeout);
    let body_read_timeout =
        time("body_read_timeout_ms", server.body_read_timeout_ms, default.body_read_timeout);
    let body_total_timeout =
        time("body_total_timeout_ms", server.body_total_timeout_ms, default.body_total_timeout);
    let keepalive_timeout =
        time("keepalive_timeout_ms", server.keepalive_timeout_ms, default.keepalive_timeout);
    let keepalive = server.sse_keepalive_ms.filter(|ms| *ms > 0);
    let sse_keepalive =
        keepalive.map(|ms| duration(&place.key("sse_keepalive_ms"), Some(ms), Duration::ZERO, checker));
    if body_read_timeout > body_total_timeout {
        checker.wrong(
            &place.key("body_read_timeout_ms"),
            "longer than body_total_timeout_ms: it would never apply",
        );
    }
    http::Limits {
        max_body_bytes: in_range(
            &place.key("max_body_bytes"),
            server.max_body_bytes,
            default.max_body_bytes,
            BODY_BYTES,
            checker,
        ),
        head_timeout,
        body_read_timeout,
        body_total_timeout,
        keepalive_timeout,
        sse_keepalive,
    }
}

fn tls(place: &Place, pair: &file::Tls, checker: &mut Checker<'_>) -> Option<http::Tls> {
    let mut file = |key: &str, path: &Option<PathBuf>, label: &str| match path {
        Some(path) => {
            readable_pem(&place.key(key), path, label, checker);
            Some(path.clone())
        }
        None => {
            checker.wrong(&place.key(key), "missing: TLS needs cert_file and key_file");
            None
        }
    };
    let cert_file = file("cert_file", &pair.cert_file, "CERTIFICATE");
    let key_file = file("key_file", &pair.key_file, "PRIVATE KEY");
    Some(http::Tls { cert_file: cert_file?, key_file: key_file? })
}

fn address(place: &Place, text: Option<&str>, checker: &mut Checker<'_>) -> Option<SocketAddr> {
    let text = text?;
    let parsed = text.trim().parse().ok();
    if parsed.is_none() {
        checker.wrong(
            place,
            format!("{text:?} is no address: write an IP address and a port, such as 127.0.0.1:8080"),
        );
    }
    parsed
}

fn check_distinct(listen: SocketAddr, admin: SocketAddr, h2c: Option<SocketAddr>, checker: &mut Checker<'_>) {
    let place = Place::top("server");
    if collide(listen, admin) {
        checker.wrong(&Place::top("admin").key("listen"), format!("{admin} is taken by server.listen"));
    }
    let Some(h2c) = h2c else { return };
    for (other, name) in [(listen, "server.listen"), (admin, "admin.listen")] {
        if collide(h2c, other) {
            checker.wrong(&place.key("h2c_listen"), format!("{h2c} is taken by {name}"));
        }
    }
}

/// Whether two addresses can't both be listened on. Port 0 means any free one.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && overlap
}

/// Threads; 0 stands for every core but `spare`.
fn threads(place: &Place, asked: Option<usize>, spare: usize, checker: &mut Checker<'_>) -> usize {
    match in_range(place, asked, 0, THREADS, checker) {
        0 => available_parallelism().map_or(1, |cores| cores.get().saturating_sub(spare).max(1)),
        some => some,
    }
}

/// Checks `[database]`.
pub(super) fn database(
    section: &file::Database,
    state_dir: &Path,
    checker: &mut Checker<'_>,
) -> DatabaseConfig {
    let place = Place::top("database");
    let url = section.url.as_ref().and_then(|source| secret(&place.key("url"), source, checker));
    let url = url.filter(|url| {
        let good = is_postgres_url(url.expose());
        if !good {
            checker.wrong(
                &place.key("url"),
                "no URL of PostgreSQL: it looks like postgres://USER:PASSWORD@HOST:5432/DATABASE",
            );
        }
        good
    });
    let mut time =
        |key: &str, value: Option<u64>| duration(&place.key(key), value, DatabaseConfig::TIMEOUT, checker);
    let acquire_timeout = time("acquire_timeout_ms", section.acquire_timeout_ms);
    let statement_timeout = time("statement_timeout_ms", section.statement_timeout_ms);
    DatabaseConfig {
        location: url.map_or_else(|| Location::Folder(state_dir.to_owned()), Location::Postgres),
        connections: in_range(
            &place.key("connections"),
            section.connections,
            DatabaseConfig::CONNECTIONS,
            CONNECTIONS,
            checker,
        ),
        acquire_timeout,
        statement_timeout,
        durability: section.durability.unwrap_or_default(),
    }
}

fn is_postgres_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

/// Checks `[log]`.
pub(super) fn log(section: &file::Log, checker: &mut Checker<'_>) -> log::Config {
    let mut config = log::Config { format: section.format.unwrap_or_default(), ..log::Config::default() };
    if let Some(level) = &section.level {
        if let Err(reason) = log::check_filter(level) {
            checker.wrong(
                &Place::top("log").key("level"),
                format!(
                    "{reason}: write error, warn, info, debug, trace, or a filter such as info,tunegate=debug"
                ),
            );
        }
        config.filter.clone_from(level);
    }
    config
}

/// Checks `[worker]`; nothing when there is none to start.
pub(super) fn worker(
    section: &file::Worker,
    state_dir: &Path,
    checker: &mut Checker<'_>,
) -> Option<worker::Config> {
    let place = Place::top("worker");
    let built_in = cfg!(feature = "candle");
    if section.enabled == Some(true) && !built_in {
        checker.wrong(
            &place.key("enabled"),
            "built without candle: set it to false, or build with the feature `candle`",
        );
    }
    let name = section.name.as_deref().unwrap_or(DEFAULT_WORKER_NAME);
    if !name_is_good(name) {
        checker.wrong(&place.key("name"), values::NAME_RULE);
    }
    let enabled = section.enabled.unwrap_or(built_in);
    let embedding = embedding(section, &place, name, enabled, checker);
    let config = worker::Config {
        model_file: section.model_file.clone().unwrap_or_else(|| DEFAULT_MODEL_FILE.into()),
        name: name.into(),
        embedding,
        socket: state_dir.join("worker.sock"),
        threads: threads(&place.key("threads"), section.threads, 1, checker),
        max_batch: in_range(&place.key("max_batch"), section.max_batch, DEFAULT_MAX_BATCH, BATCH, checker),
        queue: in_range(&place.key("queue"), section.queue, DEFAULT_QUEUE, QUEUE, checker),
        tuning: worker_tuning(section, &place, state_dir, checker),
    };
    if !enabled {
        return None;
    }
    if config.socket.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        checker.wrong(
            &Place::top("state").key("dir"),
            format!(
                "too long for the worker's socket: at most {MAX_SOCKET_PATH_BYTES} bytes with /worker.sock"
            ),
        );
    }
    Some(config)
}

/// How the worker trains; nothing where it does not.
fn worker_tuning(
    section: &file::Worker,
    place: &Place,
    state_dir: &Path,
    checker: &mut Checker<'_>,
) -> Option<worker::Tuning> {
    let organization = section.tuning_organization.as_deref().unwrap_or(DEFAULT_ORGANIZATION);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if organization.is_empty() || organization.len() > 64 || !organization.bytes().all(fits) {
        checker.wrong(
            &place.key("tuning_organization"),
            "it becomes a part of models' names: 1 to 64 letters, digits, `-` and `_`",
        );
    }
    let mut number = |key: &str, value: Option<usize>, default: usize, range: RangeInclusive<usize>| {
        in_range(&place.key(key), value, default, range, checker)
    };
    let memory_mib = number("tuning_memory_mib", section.tuning_memory_mib, 4096, 256..=1 << 20);
    let tuning = worker::Tuning {
        folder: state_dir.join("local"),
        organization: organization.into(),
        memory_mib: memory_mib as u64,
        longest_row: number("tuning_longest_row", section.tuning_longest_row, 1024, 16..=131_072),
        max_adapters: number("max_adapters", section.max_adapters, 32, 1..=10_000),
    };
    section.tuning.unwrap_or(true).then_some(tuning)
}

/// What the worker makes vectors with; nothing, and a line that says so, where there is no such folder.
fn embedding(
    section: &file::Worker,
    place: &Place,
    worker_name: &str,
    enabled: bool,
    checker: &mut Checker<'_>,
) -> Option<worker::Embedding> {
    let name = section.embedding_name.as_deref().unwrap_or(DEFAULT_EMBEDDING_NAME);
    if !name_is_good(name) {
        checker.wrong(&place.key("embedding_name"), values::NAME_RULE);
    }
    if name == worker_name {
        checker.wrong(&place.key("embedding_name"), format!("{name:?} is worker.name, too: one of each"));
    }
    let folder = section.embedding_model.clone().unwrap_or_else(|| DEFAULT_EMBEDDING_MODEL.into());
    if !enabled || folder.as_os_str().is_empty() {
        return None;
    }
    if folder.is_dir() {
        return Some(worker::Embedding { folder, name: name.into() });
    }
    let missing = format!("{} is not there: no embeddings; `make model` fetches it", folder.display());
    checker.notice(&place.key("embedding_model"), missing);
    None
}

/// Checks `[metrics]`.
pub(super) fn metrics(section: &file::Metrics, checker: &mut Checker<'_>) -> metrics::Config {
    let default = metrics::Config::default().max_label_values;
    let key = Place::top("metrics").key("max_label_values");
    let most = section.max_label_values.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    metrics::Config { max_label_values: in_range(&key, most, default, LABEL_VALUES, checker) }
}

/// Checks `[retirements]`: how the end of a model is met, and how often the providers are asked for it, if at all.
pub(super) fn retirements(
    section: &file::Retirements,
    checker: &mut Checker<'_>,
) -> (retirements::Config, Option<Duration>) {
    let place = Place::top("retirements");
    let default = retirements::Config::default();
    let poll = &place.key("poll_ms");
    let every = match section.poll_ms {
        Some(0) => None,
        Some(ms) => Some(in_range(poll, Some(ms), *POLL_MS.start(), POLL_MS, checker)),
        None => Some(DEFAULT_POLL_MS),
    };
    let lead = values::duration_up_to(
        &place.key("lead_ms"),
        section.lead_ms,
        default.lead,
        MAX_WARN_DAYS * values::MAX_MS,
        checker,
    );
    let days = section
        .warn_days
        .map(|days| in_range(&place.key("warn_days"), Some(days), 0, 0..=MAX_WARN_DAYS, checker) * 86_400);
    let warn = days.map_or(default.warn, Duration::from_secs);
    (retirements::Config { lead, warn }, every.map(Duration::from_millis))
}
