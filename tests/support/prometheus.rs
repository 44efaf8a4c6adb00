//! A real Prometheus: Debian's, as a child of the test, with a history of the test's own and a gateway to scrape.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::Value;

use super::client::{Call, Connection};
use super::exposition::{Labels, braces};
use super::ports::free_port;
use super::wait::{eventually, within_limit};
use crate::observability::prometheus_tool;

/// How often it scrapes and evaluates its rules. A scrape may take as long, and on a busy machine one takes more than a
/// second.
const SCRAPE: Duration = Duration::from_secs(3);
/// One block for the whole history: promtool reads its input once for each.
const LONGEST_BLOCK: &str = "--max-block-duration=4000h";

/// What it scrapes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) job: &'static str,
    pub(crate) address: SocketAddr,
}

/// What it starts with.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    /// Rule files; copied, and evaluated as often as it scrapes.
    pub(crate) rules: Vec<PathBuf>,
    /// OpenMetrics text.
    pub(crate) history: Option<PathBuf>,
    /// For how long a sample stands for what comes after it, minutes.
    pub(crate) lookback_min: u64,
}

/// A running server; killed when dropped.
pub(crate) struct Prometheus {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    connection: Mutex<Option<Connection>>,
}

/// One series of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Seconds since 1970 UTC, and what it was then.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    /// The newest value.
    pub(crate) fn last(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |(_, value)| *value)
    }

    /// Its labels as Prometheus writes them.
    pub(crate) fn name(&self) -> String {
        braces(&self.labels)
    }
}

/// A window of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Seconds since 1970 UTC.
    pub(crate) from: f64,
    pub(crate) until: f64,
    /// Seconds.
    pub(crate) step: f64,
}

/// Seconds since 1970 UTC.
pub(crate) fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

impl Prometheus {
    /// Imports the history and starts; waits until it is ready. Nothing where Prometheus may be gone without.
    #[track_caller]
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        let (program, promtool) = (prometheus_tool("prometheus")?, prometheus_tool("promtool")?);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let blocks = folder.path().join("blocks");
        fs::create_dir(&blocks).expect("a folder for the blocks");
        if let Some(history) = &plan.history {
            import(&promtool, history, &blocks);
        }
        let config = folder.path().join("prometheus.yml");
        fs::write(&config, configuration(plan, folder.path())).expect("the configuration");
        check(Command::new(&promtool).args(["check", "config"]).arg(&config));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", blocks.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--query.lookback-delta={}m", plan.lookback_min.max(1)))
            .arg("--storage.tsdb.retention.time=30d")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let mut server = Self { child, folder, address, connection: Mutex::new(None) };
        server.await_ready();
        Some(server)
    }

    #[track_caller]
    fn await_ready(&mut self) {
        let address = self.address;
        eventually("a Prometheus that is ready", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("Prometheus ended at its start, {status}:\n{}", self.log());
            }
            let answer = Connection::reach(address)?.try_call(&Call::get("/-/ready"))?;
            (answer.status == 200).then_some(())
        });
    }

    /// Everything it has printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What its API answers; its own words where that is an error.
    pub(crate) fn api(&self, path: &str, form: &[(&str, &str)]) -> Result<Value, String> {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let target = format!("/api/v1/{path}");
        let call = match form.is_empty() {
            true => Call::get(&target),
            false => Call::new("POST", &target)
                .body("application/x-www-form-urlencoded", pairs.join("&").as_bytes()),
        };
        let mut kept = self.connection.lock();
        let connection = kept.get_or_insert_with(|| Connection::to(self.address));
        let answer = connection.call(&call);
        if answer.header("connection") == Some("close") {
            *kept = None;
        }
        let body = answer.json();
        match body["status"].as_str() {
            Some("success") => Ok(body["data"].clone()),
            _ => Err(format!("{}: {}", answer.status, body["error"].as_str().unwrap_or_default())),
        }
    }

    /// The value of an expression at a moment.
    pub(crate) fn query(&self, expression: &str, at: f64) -> Result<Vec<Series>, String> {
        let answer = self.api("query", &[("query", expression), ("time", &at.to_string())])?;
        Ok(series(&answer))
    }

    /// Its values over a span.
    pub(crate) fn query_range(&self, expression: &str, span: Span) -> Result<Vec<Series>, String> {
        let Span { from, until, step } = span;
        let [from, until, step] = [from, until, step].map(|seconds| seconds.to_string());
        let form = [("query", expression), ("start", &*from), ("end", &*until), ("step", &*step)];
        Ok(series(&self.api("query_range", &form)?))
    }

    /// The values that a label has in the series of a selector, over a span.
    pub(crate) fn label_values(
        &self,
        label: &str,
        selector: &str,
        span: Span,
    ) -> Result<Vec<String>, String> {
        let (from, until) = (span.from.to_string(), span.until.to_string());
        let form = [("match[]", selector), ("start", &*from), ("end", &*until)];
        let series = self.api("series", &form)?;
        let values = series.as_array().into_iter().flatten().filter_map(|labels| labels[label].as_str());
        let distinct: std::collections::BTreeSet<String> = values.map(str::to_owned).collect();
        Ok(distinct.into_iter().collect())
    }

    /// Every rule as it stands, recording rules and alerts.
    #[track_caller]
    pub(crate) fn rules(&self) -> Vec<Value> {
        let answer = self.api("rules", &[]).expect("the rules");
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Waits until each target was well scraped so many times more, and fails with its last error if one can't be.
    #[track_caller]
    pub(crate) fn await_scrapes(&self, count: usize) {
        // they are known a moment after it is ready
        let mut last = self.await_scrape(|times| !times.is_empty());
        for _ in 0..count {
            last = self.await_scrape(|now| now.iter().zip(&last).all(|(now, last)| now != last));
        }
    }

    /// When each target was scraped last, as soon as that is as wanted and none of them failed then: one slow scrape is
    /// no failure.
    #[track_caller]
    fn await_scrape(&self, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut problem = String::new();
        let times = within_limit(|| {
            let answer = self.api("targets", &[]).expect("the targets");
            let targets = answer["activeTargets"].as_array().cloned().unwrap_or_default();
            for target in &targets {
                let error = target["lastError"].as_str().unwrap_or_default();
                if !error.is_empty() {
                    problem = format!("{} can't be scraped: {error}", target["scrapeUrl"]);
                    return None;
                }
            }
            problem.clear();
            let times: Vec<Value> = targets.iter().map(|target| target["lastScrape"].clone()).collect();
            is_wanted(&times).then_some(times)
        });
        times.unwrap_or_else(|| panic!("waited in vain for a scrape of every target: {problem}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- Prometheus' log ----\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a command that must go well.
#[track_caller]
fn check(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let said =
        [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}", said.concat());
    said.concat()
}

/// Makes blocks of OpenMetrics text.
#[track_caller]
fn import(promtool: &Path, history: &Path, blocks: &Path) {
    let mut command = Command::new(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics", LONGEST_BLOCK]);
    check(command.arg(history).arg(blocks));
}

/// The configuration's text. The rules are copied into the folder, their own intervals left out.
fn configuration(plan: &Plan, folder: &Path) -> String {
    let seconds = SCRAPE.as_secs();
    let mut text =
        format!("global: {{ scrape_interval: {seconds}s, evaluation_interval: {seconds}s }}\nrule_files:\n");
    for file in &plan.rules {
        let rules = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let lines = rules.lines().filter(|line| !line.trim_start().starts_with("interval:"));
        let name = file.file_name().expect("a file's name").to_string_lossy().into_owned();
        fs::write(folder.join(&name), lines.collect::<Vec<_>>().join("\n")).expect("a rule file");
        text.push_str(&format!("  - {name}\n"));
    }
    text.push_str("scrape_configs:\n");
    for Target { job, address } in &plan.targets {
        text.push_str(&format!(
            "  - {{ job_name: {job}, static_configs: [{{ targets: [\"{address}\"] }}] }}\n"
        ));
    }
    text
}

/// The series of a vector, a matrix or a scalar.
fn series(answer: &Value) -> Vec<Series> {
    let point = |pair: &Value| -> Option<(f64, f64)> {
        let text = pair[1].as_str()?;
        let value = match text {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            other => other.parse().ok()?,
        };
        Some((pair[0].as_f64()?, value))
    };
    let result = &answer["result"];
    if answer["resultType"] == "scalar" {
        return vec![Series { labels: Labels::new(), points: point(result).into_iter().collect() }];
    }
    let rows = result.as_array().into_iter().flatten();
    rows.map(|row| Series {
        labels: row["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        points: match row["values"].as_array() {
            Some(values) => values.iter().filter_map(point).collect(),
            None => point(&row["value"]).into_iter().collect(),
        },
    })
    .collect()
}
