//! What happened to a job, a line each. One process writes at a time: the trainer while it runs, the desk before and after.
//!
//! A line that a kill cut off is dropped at the next opening. A run that goes on from a checkpoint drops the steps behind
//! it: it computes them once more, to the same figures, and tells them under the same ids.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memchr::memrchr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::folder;

/// What is looked at for the last figures: some ten events.
const TAIL_BYTES: u64 = 4 << 10;
/// How much is read at once on the way from a journal's end to its beginning, bytes.
const BLOCK_BYTES: u64 = 64 << 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Event {
    pub(in crate::worker) id: String,
    /// Seconds since 1970 UTC.
    pub(in crate::worker) created_at: i64,
    pub(in crate::worker) level: Level,
    pub(in crate::worker) message: String,
    /// Figures of a step; none for a message.
    #[serde(default)]
    pub(in crate::worker) metrics: Option<Metrics>,
}

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::worker) enum Level {
    Info,
    Warn,
    Error,
}

/// Figures of a step. Losses are nats a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Metrics {
    pub(in crate::worker) step: u64,
    pub(in crate::worker) total_steps: u64,
    pub(in crate::worker) train_loss: f64,
    pub(in crate::worker) train_mean_token_accuracy: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::worker) full_valid_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::worker) full_valid_mean_token_accuracy: Option<f64>,
    pub(in crate::worker) learning_rate: f64,
    pub(in crate::worker) tokens_per_second: f64,
    /// Seconds to the end, at this speed.
    pub(in crate::worker) eta_seconds: u64,
    /// Tokens up to this step, as [`Run::trained_tokens`](super::record::Run): what it has cost, should no checkpoint
    /// follow. Not told.
    #[serde(default)]
    pub(in crate::worker) trained_tokens: u64,
    /// Time computed up to this step, ms, as [`Run::busy_ms`](super::record::Run). Not told.
    #[serde(default)]
    pub(in crate::worker) busy_ms: u64,
}

/// The members of [`Metrics`] that are ours alone.
const UNTOLD: [&str; 2] = ["trained_tokens", "busy_ms"];

/// An open journal.
#[derive(Debug)]
pub(in crate::worker) struct Journal {
    file: File,
    path: PathBuf,
    /// The job's id, without its prefix: events are called after it.
    job: String,
    /// How many messages there are: the next one is called so.
    messages: usize,
}

impl Journal {
    /// Opens or begins the journal of `job`, without what is cut off at its end.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn open(path: &Path, job: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let whole = whole_lines(&mut file)?;
        if file.metadata()?.len() > whole {
            file.set_len(whole)?;
        }
        let messages = read(path)?.iter().filter(|event| event.metrics.is_none()).count();
        let job = job.rsplit('-').next().unwrap_or_default().to_owned();
        Ok(Self { file, path: path.to_path_buf(), job, messages })
    }

    /// Drops the figures of the steps behind `step`.
    ///
    /// # Errors
    /// As the system says; then the journal is as it was.
    pub(in crate::worker) fn rewind(self, step: u64) -> io::Result<Self> {
        let Self { path, job, messages, .. } = self;
        let is_kept = |event: &Event| event.metrics.as_ref().is_none_or(|metrics| metrics.step <= step);
        let kept = read(&path)?.into_iter().filter(is_kept);
        let mut text = Vec::new();
        for event in kept {
            serde_json::to_writer(&mut text, &event)?;
            text.push(b'\n');
        }
        folder::write(&path, &text)?;
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        Ok(Self { file, path, job, messages })
    }

    /// Tells something.
    ///
    /// # Errors
    /// As the system says, such as that the disk is full.
    pub(in crate::worker) fn say(&mut self, at_s: i64, level: Level, message: &str) -> io::Result<()> {
        let id = format!("ftevent-{}m{}", self.job, self.messages);
        self.messages += 1;
        self.add(&Event { id, created_at: at_s, level, message: message.to_owned(), metrics: None })
    }

    /// Tells the figures of a step.
    ///
    /// # Errors
    /// As the system says, such as that the disk is full.
    pub(in crate::worker) fn measure(&mut self, at_s: i64, metrics: Metrics) -> io::Result<()> {
        let Metrics { step, total_steps, train_loss, .. } = metrics;
        let mut message = format!("Step {step}/{total_steps}: training loss={train_loss:.4}");
        if let Some(loss) = metrics.full_valid_loss {
            message += &format!(", full validation loss={loss:.4}");
        }
        // the same step has the same id, however often it is computed
        let id = format!("ftevent-{}s{step}", self.job);
        self.add(&Event { id, created_at: at_s, level: Level::Info, message, metrics: Some(metrics) })
    }

    fn add(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Has everything on the disk.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Bytes up to the end of the last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut whole = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.by_ref().read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            return Ok(whole);
        }
        whole += length;
    }
}

/// Reads all events, oldest first; none where there is no journal. What is cut off at the end is left out.
///
/// # Errors
/// As the system says.
pub(in crate::worker) fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Reads events from the end: the first `limit` behind the one called `after`, newest first, and whether there are more.
/// Of a long journal only what is newer than that is gone through.
///
/// # Errors
/// As the system says.
pub(in crate::worker) fn newest(
    path: &Path,
    after: Option<&str>,
    limit: usize,
) -> io::Result<(Vec<Event>, bool)> {
    let mut lines = match File::open(path) {
        Ok(file) => Backwards::new(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        Err(error) => return Err(error),
    };
    if let Some(after) = after {
        // the id stands first in each line: those that were had already need not be parsed
        let beginning = format!("{{\"id\":{},", serde_json::to_string(after)?);
        while let Some(line) = lines.previous()? {
            if line.starts_with(beginning.as_bytes()) {
                break;
            }
        }
    }
    let mut events = Vec::new();
    while let Some(line) = lines.previous()? {
        let Ok(event) = serde_json::from_slice(&line) else { continue };
        if events.len() == limit {
            return Ok((events, true));
        }
        events.push(event);
    }
    Ok((events, false))
}

/// The whole lines of a file, from its end. What is cut off there is left out.
struct Backwards {
    file: File,
    /// Where that which is held begins in the file.
    at: u64,
    /// Read, and not given out.
    held: Vec<u8>,
}

impl Backwards {
    fn new(file: File) -> io::Result<Self> {
        let at = file.metadata()?.len();
        Ok(Self { file, at, held: Vec::new() })
    }

    fn previous(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memrchr(b'\n', &self.held) {
                // behind the last line's end something may be cut off
                self.held.truncate(end + 1);
                if let Some(before) = memrchr(b'\n', &self.held[..end]) {
                    return Ok(Some(self.held.split_off(before + 1)));
                }
                if self.at == 0 {
                    return Ok(Some(std::mem::take(&mut self.held)));
                }
            } else if self.at == 0 {
                return Ok(None);
            }
            self.read_on()?;
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let size = self.at.min(BLOCK_BYTES);
        self.at -= size;
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut block = Vec::new();
        (&self.file).take(size).read_to_end(&mut block)?;
        block.append(&mut self.held);
        self.held = block;
        Ok(())
    }
}

/// The figures told last, of the last few events; none where there are none, or they can't be read.
pub(in crate::worker) fn last_metrics(path: &Path) -> Option<Metrics> {
    let mut file = File::open(path).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let lines = tail.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let events = lines.filter_map(|line| serde_json::from_slice::<Event>(line).ok());
    events.filter_map(|event| event.metrics).next_back()
}

impl Event {
    /// As OpenAI writes it.
    pub(in crate::worker) fn told(&self) -> Value {
        let data = match &self.metrics {
            Some(metrics) => {
                let mut figures = serde_json::to_value(metrics).unwrap_or_default();
                if let Some(figures) = figures.as_object_mut() {
                    figures.retain(|name, _| !UNTOLD.contains(&name.as_str()));
                }
                figures
            }
            None => Value::Object(Map::new()),
        };
        serde_json::json!({
            "object": "fine_tuning.job.event",
            "id": self.id,
            "created_at": self.created_at,
            "level": self.level,
            "message": self.message,
            "type": if self.metrics.is_some() { "metrics" } else { "message" },
            "data": data,
        })
    }
}

/// The curve as OpenAI writes it into a result file.
pub(in crate::worker) fn curve(events: &[Event]) -> String {
    let mut text = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n".to_owned();
    let figure = |figure: Option<f64>| figure.map(|figure| format!("{figure:.5}")).unwrap_or_default();
    for metrics in events.iter().filter_map(|event| event.metrics.as_ref()) {
        text += &format!(
            "{},{:.5},{:.5},{},{}\n",
            metrics.step,
            metrics.train_loss,
            metrics.train_mean_token_accuracy,
            figure(metrics.full_valid_loss),
            figure(metrics.full_valid_mean_token_accuracy),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Metrics {
        Metrics { step, total_steps: 9, train_loss: 0.5, ..Metrics::default() }
    }

    fn messages(path: &Path) -> Vec<String> {
        read(path).expect("read").into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn a_cut_off_line_is_dropped_and_steps_are_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, "ftjob-ab").expect("opened");
        journal.say(1, Level::Info, "begun").expect("written");
        for at in 1..=3 {
            journal.measure(2, step(at)).expect("written");
        }
        drop(journal);
        let text = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &text[..text.len() - 7]).expect("cut");
        assert_eq!(messages(&path).len(), 3, "the third step is cut off");

        let mut journal = Journal::open(&path, "ftjob-ab").expect("opened").rewind(1).expect("rewound");
        for at in 2..=3 {
            journal.measure(3, step(at)).expect("written");
        }
        journal.sync().expect("synced");
        let told = messages(&path);
        assert_eq!(told[0], "begun");
        assert_eq!(
            told[1..],
            (1..=3).map(|at| format!("Step {at}/9: training loss=0.5000")).collect::<Vec<_>>()
        );
        let ids: Vec<_> = read(&path).expect("read").into_iter().map(|event| event.id).collect();
        assert_eq!(ids, ["ftevent-abm0", "ftevent-abs1", "ftevent-abs2", "ftevent-abs3"]);
    }

    #[test]
    fn a_long_journal_is_paged_from_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        assert_eq!(newest(&path, None, 3).expect("no journal"), (Vec::new(), false));
        // several blocks, and lines that lie across their bounds
        let count = 2_000;
        let mut journal = Journal::open(&path, "ftjob-ab").expect("opened");
        for at in 1..=count {
            journal.measure(2, step(at)).expect("written");
        }
        assert!(std::fs::metadata(&path).expect("a file").len() > 3 * BLOCK_BYTES);
        let mut all = read(&path).expect("read");
        all.reverse();
        for (after, limit, from) in [
            (None, 1, 0),
            (None, 5_000, 0),
            (Some(count), 20, 1),
            (Some(7), 3, 1_994),
            (Some(4), 3, 1_997),
            (Some(1), 3, 2_000),
            (Some(9_999), 3, 2_000),
        ] {
            let after = after.map(|step| format!("ftevent-abs{step}"));
            let (events, has_more) = newest(&path, after.as_deref(), limit).expect("read");
            let expected: Vec<_> = all.iter().skip(from).take(limit).cloned().collect();
            assert_eq!(events, expected, "{after:?} {limit}");
            assert_eq!(has_more, all.len() > from + limit, "{after:?} {limit}");
        }
        let text = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &text[..text.len() - 7]).expect("cut");
        assert_eq!(
            newest(&path, None, 1).expect("read"),
            (vec![all[1].clone()], true),
            "cut off is left out"
        );
        std::fs::write(&path, "{").expect("written");
        assert_eq!(newest(&path, None, 1).expect("read"), (Vec::new(), false));
    }

    #[test]
    fn what_a_step_has_cost_is_kept_and_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, "ftjob-ab").expect("opened");
        journal.measure(2, Metrics { trained_tokens: 30, busy_ms: 900, ..step(1) }).expect("written");
        let last = last_metrics(&path).expect("a step");
        assert_eq!((last.trained_tokens, last.busy_ms), (30, 900));
        let told = read(&path).expect("read")[0].told();
        assert_eq!((&told["data"]["step"], told["data"].get("busy_ms")), (&1.into(), None));
        assert_eq!(told["data"].get("trained_tokens"), None);
        // of a worker before
        let old: Metrics = serde_json::from_str(
            r#"{"step": 1, "total_steps": 9, "train_loss": 0.5, "train_mean_token_accuracy": 0.5, "learning_rate": 0.1,
            "tokens_per_second": 9.0, "eta_seconds": 1}"#,
        )
        .expect("read");
        assert_eq!((old.trained_tokens, old.busy_ms), (0, 0));
    }

    #[test]
    fn the_curve_has_openais_columns() {
        let mut last = step(2);
        last.full_valid_loss = Some(0.25);
        let event = |metrics| Event {
            id: String::new(),
            created_at: 0,
            level: Level::Info,
            message: String::new(),
            metrics: Some(metrics),
        };
        assert_eq!(
            curve(&[event(step(1)), event(last)]),
            "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n\
             1,0.50000,0.00000,,\n2,0.50000,0.00000,0.25000,\n"
        );
    }
}
