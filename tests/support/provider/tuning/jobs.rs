//! Jobs and what comes of them: from the order to the model, one state at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::answers::words;
use super::super::endpoints::House;
use super::super::errors::Trouble;
use super::files::{FileState, Files, first_broken_line, rows};
use super::time::{Beat, Pace};
use super::{Account, Answered, Asked, Dialect, Ids, Route, Served, Workshop, azure, list, openai, page};

/// Fewest rows of a training file.
const LEAST_ROWS: usize = 10;
/// Most of the steps of an epoch that are told in events of their own.
const MOST_TOLD_STEPS: u64 = 100;
/// How long an epoch takes, as far as `estimated_finish` says, seconds.
const EPOCH_SECONDS: i64 = 600;
/// What the organisation is called in the names of its models.
const ORGANISATION: &str = "acme";

/// How a job stands. The words for it are the dialect's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Validating,
    Queued,
    Running,
    Pausing,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    /// Whether nothing more happens.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) param: Option<String>,
}

/// Something that happened to a job.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) is_warning: bool,
    /// `message`, `metrics` or `moderation_checks`.
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) data: Value,
}

/// The model as it was after an epoch.
#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) step: u64,
    pub(super) name: String,
    pub(super) metrics: Value,
}

/// A fine-tuned model.
#[derive(Debug, Clone)]
pub(super) struct Tuned {
    pub(super) name: String,
    pub(super) account: Account,
    pub(super) base: String,
    pub(super) job: String,
    pub(super) created_s: i64,
    pub(super) is_deleted: bool,
}

/// A job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) account: Account,
    pub(crate) status: Status,
    /// The base model, as the provider dates it.
    pub(crate) base: String,
    pub(crate) training_file: String,
    pub(crate) validation_file: Option<String>,
    pub(crate) metadata: Value,
    /// What it was ordered with, as it came.
    pub(crate) order: Value,
    /// Tokens of the training file; 0 before it was read.
    pub(crate) tokens_per_epoch: u64,
    pub(crate) epochs_done: u64,
    pub(crate) fine_tuned_model: Option<String>,
    pub(super) created_s: i64,
    /// When it began to run.
    pub(super) started_s: Option<i64>,
    pub(super) finished_s: Option<i64>,
    pub(super) estimated_finish_s: Option<i64>,
    /// `supervised`, `dpo` or `reinforcement`.
    pub(super) method: String,
    /// Each a number or `"auto"`.
    pub(super) hyperparameters: Map<String, Value>,
    pub(super) seed: Value,
    pub(super) result_files: Vec<String>,
    pub(super) error: Option<JobError>,
    pub(super) events: Vec<Event>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) tells_tokens: bool,
    /// How long it says that it computed, as only our worker does.
    pub(super) compute_seconds: Option<u64>,
    /// The name that its training file was uploaded under.
    training_name: String,
    training: Arc<Vec<u8>>,
    rows: u64,
    doom: Option<(Status, JobError)>,
    beat: Beat,
}

impl Job {
    /// What the job says it has trained: nothing before its end.
    pub(crate) fn trained_tokens(&self) -> Option<u64> {
        let is_told = self.tells_tokens && self.status == Status::Succeeded;
        is_told.then_some(self.tokens_per_epoch * self.epochs_done)
    }

    /// A hyperparameter once it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.hyperparameters.get(name).and_then(Value::as_u64)
    }

    /// The job of the gateway's that its training file was uploaded for, by the file's name.
    pub(super) fn named_after(&self) -> Option<&str> {
        self.training_name.strip_suffix(".jsonl").filter(|name| name.starts_with("ftjob-"))
    }

    pub(super) fn suffix(&self) -> Option<&str> {
        self.order["suffix"].as_str()
    }

    fn epochs(&self) -> u64 {
        self.number("n_epochs").unwrap_or(1)
    }

    fn steps_per_epoch(&self) -> u64 {
        self.rows.div_ceil(self.number("batch_size").unwrap_or(1).max(1)).max(1)
    }

    fn says(&mut self, ids: &mut Ids, now_s: i64, kind: &'static str, message: String, data: Value) {
        let event =
            Event { id: ids.next("ftevent-"), created_s: now_s, is_warning: false, kind, message, data };
        self.events.push(event);
    }

    fn message(&mut self, ids: &mut Ids, now_s: i64, message: &str) {
        self.says(ids, now_s, "message", message.to_owned(), Value::Null);
    }

    fn end(&mut self, status: Status, now_s: i64) {
        self.status = status;
        self.finished_s = Some(now_s);
        self.estimated_finish_s = None;
    }

    fn fail(&mut self, ids: &mut Ids, now_s: i64, error: JobError) {
        let message = format!("The job failed: {}", error.message);
        self.message(ids, now_s, &message);
        if let Some(event) = self.events.last_mut() {
            event.is_warning = true;
        }
        self.error = Some(error);
        self.end(Status::Failed, now_s);
    }

    /// What is wrong with the training file, as the provider says it.
    fn flaw(&self) -> Option<JobError> {
        let invalid = |message: String| JobError {
            code: match self.account {
                Account::OpenAi => "invalid_training_file".to_owned(),
                Account::Azure => "jsonlValidationFailed".to_owned(),
            },
            message,
            param: Some("training_file".to_owned()),
        };
        if let Some(line) = first_broken_line(&self.training) {
            return Some(invalid(format!(
                "The job failed due to an invalid training file. Expected file to have JSONL format, where every \
                 line is a valid JSON dictionary. Line {line} is not a dictionary."
            )));
        }
        let rows = rows(&self.training).count();
        (rows < LEAST_ROWS).then(|| {
            invalid(format!(
                "Training file has {rows} example(s), but must have at least {LEAST_ROWS} examples"
            ))
        })
    }

    /// Reads the files and turns `auto` into numbers.
    fn is_validated(&mut self, auto_epochs: u64, counted: Option<u64>) {
        let rows: Vec<Value> = rows(&self.training).flatten().collect();
        self.rows = rows.len() as u64;
        self.tokens_per_epoch = counted.unwrap_or_else(|| rows.iter().map(tokens_of).sum());
        let auto = [
            ("n_epochs", json!(auto_epochs)),
            ("batch_size", json!((self.rows / 500).max(1))),
            ("learning_rate_multiplier", json!(2.0)),
        ];
        for (name, number) in auto {
            let value = self.hyperparameters.entry(name).or_insert_with(|| json!("auto"));
            if !value.is_number() || value.as_i64() == Some(-1) {
                *value = number;
            }
        }
    }

    fn trains_an_epoch(&mut self, ids: &mut Ids, now_s: i64, dialect: Dialect) {
        let (steps, total) = (self.steps_per_epoch(), self.steps_per_epoch() * self.epochs());
        let done = self.epochs_done * steps;
        let skipped = steps.saturating_sub(MOST_TOLD_STEPS);
        for step in done + 1 + skipped..=done + steps {
            let metrics = metrics(step, total, self.validation_file.is_some());
            let message = format!("Step {step}/{total}: training loss={:.2}", loss(step));
            self.says(ids, now_s, "metrics", message, metrics);
        }
        self.epochs_done += 1;
        if dialect == Dialect::August2023 && self.account == Account::OpenAi {
            // checkpoints came in April 2024
            return;
        }
        let step = self.epochs_done * steps;
        let name = format!("{}:ckpt-step-{step}", self.model_name());
        let checkpoint = Checkpoint {
            id: ids.next(match self.account {
                Account::OpenAi => "ftckpt_",
                Account::Azure => "ftchkpt-",
            }),
            created_s: now_s,
            step,
            name,
            metrics: metrics(step, total, self.validation_file.is_some()),
        };
        self.message(ids, now_s, &format!("Checkpoint created at step {step}"));
        self.checkpoints.push(checkpoint);
        // the last three are kept
        let old = self.checkpoints.len().saturating_sub(3);
        self.checkpoints.drain(..old);
    }

    /// What the model is or will be called.
    fn model_name(&self) -> String {
        let suffix = self.suffix().unwrap_or_default();
        let digits: String = self.id.chars().filter(char::is_ascii_alphanumeric).collect();
        match self.account {
            Account::OpenAi => {
                let short = &digits[digits.len().saturating_sub(8)..];
                format!("ft:{}:{ORGANISATION}:{suffix}:{short}", self.base)
            }
            Account::Azure => {
                let hex = self.id.trim_start_matches("ftjob-");
                let tail = if suffix.is_empty() { String::new() } else { format!("-{suffix}") };
                format!("{}.ft-{hex}{tail}", self.base)
            }
        }
    }

    fn result_csv(&self) -> String {
        let header = match self.account {
            Account::OpenAi => "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
            Account::Azure => {
                "step,train_loss,train_mean_token_accuracy,valid_loss,validation_mean_token_accuracy,\
                 full_valid_loss,full_valid_mean_token_accuracy"
            }
        };
        let empty = ",".repeat(header.matches(',').count() - 2);
        let steps = 1..=self.steps_per_epoch() * self.epochs_done;
        let lines = steps.map(|step| format!("{step},{:.5},{:.2}{empty}\n", loss(step), accuracy(step)));
        format!("{header}\n{}", lines.collect::<String>())
    }
}

/// One word is one token: of messages, outputs, prompts and completions.
fn tokens_of(row: &Value) -> u64 {
    ["messages", "prompt", "completion", "preferred_output", "non_preferred_output"]
        .iter()
        .map(|name| words(&row[*name]))
        .sum::<u64>()
        + words(&row["input"]["messages"])
}

#[expect(clippy::cast_precision_loss, reason = "a made-up figure")]
fn loss(step: u64) -> f64 {
    (2_100.0 / (1.0 + step as f64 / 10.0)).round() / 1_000.0
}

fn accuracy(step: u64) -> f64 {
    ((1.0 - loss(step) / 4.0) * 1_000.0).round() / 1_000.0
}

fn metrics(step: u64, total: u64, is_validated: bool) -> Value {
    let mut metrics = json!({"step": step, "total_steps": total, "train_loss": loss(step),
        "train_mean_token_accuracy": accuracy(step)});
    if is_validated {
        metrics["valid_loss"] = loss(step).into();
        metrics["valid_mean_token_accuracy"] = accuracy(step).into();
    }
    metrics
}

/// All jobs and models.
#[derive(Debug)]
pub(super) struct Jobs {
    /// Oldest first.
    pub(super) all: Vec<Job>,
    pub(super) models: Vec<Tuned>,
    /// Nobody may create one any more.
    pub(super) is_closed: bool,
    pub(super) auto_epochs: u64,
    pub(super) counted: Option<u64>,
    /// Whether `trained_tokens` is told at the end.
    pub(super) tells_tokens: bool,
    pub(super) compute_seconds: Option<u64>,
    /// Result files of each job.
    pub(super) results: usize,
    dooms: VecDeque<(Status, JobError)>,
}

impl Jobs {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            models: Vec::new(),
            is_closed: false,
            auto_epochs: 3,
            counted: None,
            tells_tokens: true,
            compute_seconds: None,
            results: 1,
            dooms: VecDeque::new(),
        }
    }

    pub(super) fn next_fails(&mut self, at: Status, code: &str, message: &str) {
        let error = JobError { code: code.to_owned(), message: message.to_owned(), param: None };
        self.dooms.push_back((at, error));
    }

    /// Which jobs move on, and by how many states.
    pub(super) fn due(&mut self, pace: Pace, now_ms: i64, polled: Option<&str>) -> Vec<(usize, i64)> {
        let under_way = self.all.iter_mut().enumerate().filter(|(_, job)| !job.status.is_end());
        let due = |(at, job): (usize, &mut Job)| {
            (at, job.beat.steps(pace, now_ms, polled == Some(job.id.as_str())))
        };
        under_way.map(due).filter(|(_, steps)| *steps > 0).collect()
    }

    /// Moves a job on by one state.
    pub(super) fn step(&mut self, at: usize, now_s: i64, files: &mut Files, ids: &mut Ids, dialect: Dialect) {
        let (auto_epochs, counted) = (self.auto_epochs, self.counted);
        let job = &mut self.all[at];
        if job.doom.as_ref().is_some_and(|(at, _)| *at == job.status)
            && let Some((_, error)) = job.doom.take()
        {
            return job.fail(ids, now_s, error);
        }
        match job.status {
            Status::Validating => {
                if let Some(error) = job.flaw() {
                    return job.fail(ids, now_s, error);
                }
                job.is_validated(auto_epochs, counted);
                job.status = Status::Queued;
                job.message(
                    ids,
                    now_s,
                    match job.account {
                        Account::OpenAi => "Files validated, moving job to queued state",
                        Account::Azure => "Job enqueued. Waiting for jobs ahead to complete.",
                    },
                );
            }
            Status::Queued => {
                job.status = Status::Running;
                job.started_s = Some(now_s);
                let epochs = i64::try_from(job.epochs()).expect("few epochs");
                job.estimated_finish_s = Some(now_s + epochs * EPOCH_SECONDS);
                job.message(
                    ids,
                    now_s,
                    match (job.account, dialect) {
                        (Account::Azure, _) => "Job started.",
                        (Account::OpenAi, Dialect::Today) => "Fine-tuning job started",
                        (Account::OpenAi, Dialect::August2023) => "Fine tuning job started",
                    },
                );
            }
            Status::Running if job.epochs_done < job.epochs() => job.trains_an_epoch(ids, now_s, dialect),
            Status::Running => self.succeeds(at, now_s, files, ids, dialect),
            Status::Pausing => {
                job.status = Status::Paused;
                job.message(ids, now_s, "Fine-tuning job paused");
            }
            Status::Paused | Status::Succeeded | Status::Failed | Status::Cancelled => {}
        }
    }

    fn succeeds(&mut self, at: usize, now_s: i64, files: &mut Files, ids: &mut Ids, dialect: Dialect) {
        let job = &mut self.all[at];
        let name = job.model_name();
        if job.account == Account::OpenAi && dialect == Dialect::Today {
            let checks = json!({"blocked": false, "results": [{"flagged": false, "category": "harassment/threatening"}]});
            job.says(
                ids,
                now_s,
                "moderation_checks",
                "Moderation checks for snapshot passed.".to_owned(),
                checks,
            );
        }
        for _ in 0..self.results {
            let result = ids.next("file-");
            files.keep_result(result.clone(), job.account, job.result_csv().into_bytes(), now_s);
            job.result_files.push(result);
        }
        job.fine_tuned_model = Some(name.clone());
        job.message(ids, now_s, &format!("New fine-tuned model created: {name}"));
        job.message(
            ids,
            now_s,
            match (job.account, dialect) {
                (Account::Azure, _) => "Job succeeded.",
                (Account::OpenAi, Dialect::Today) => "The job has successfully completed",
                (Account::OpenAi, Dialect::August2023) => "Fine tuning job successfully completed",
            },
        );
        job.end(Status::Succeeded, now_s);
        let tuned = |name: &str| Tuned {
            name: name.to_owned(),
            account: job.account,
            base: job.base.clone(),
            job: job.id.clone(),
            created_s: now_s,
            is_deleted: false,
        };
        let names = job.checkpoints.iter().map(|checkpoint| checkpoint.name.as_str());
        self.models.extend(names.chain([name.as_str()]).map(tuned));
    }
}

/// The dated name of a model, at a time.
fn snapshot(model: &str, now_s: i64) -> String {
    const YEAR_2024_S: i64 = 1_704_067_200;
    let dated = match model {
        "gpt-3.5-turbo" if now_s < YEAR_2024_S => "gpt-3.5-turbo-0613",
        "gpt-3.5-turbo" => "gpt-3.5-turbo-0125",
        "gpt-4o-mini" => "gpt-4o-mini-2024-07-18",
        "gpt-4o" => "gpt-4o-2024-08-06",
        "gpt-4.1" => "gpt-4.1-2025-04-14",
        "gpt-4.1-mini" => "gpt-4.1-mini-2025-04-14",
        "gpt-4.1-nano" => "gpt-4.1-nano-2025-04-14",
        other => other,
    };
    dated.to_owned()
}

impl Workshop {
    pub(super) fn serve_jobs(&mut self, asked: &Asked<'_>) -> Answered {
        match asked.route {
            Route::CreateJob => self.create_job(asked),
            Route::ListJobs => Ok(self.list_jobs(asked)),
            Route::GetModel | Route::DeleteModel => self.serve_model(asked),
            _ => self.serve_job(asked),
        }
    }

    fn shown_job(&self, house: House, job: &Job) -> Value {
        let result = job.result_files.first().and_then(|id| self.files.find(job.account, id));
        match house {
            House::OpenAi => openai::job(job, self.dialect, result),
            House::AzureClassic => azure::job(job),
            House::AzureV1 => azure::job_v1(job),
        }
    }

    /// What is wrong with an order, in the words of the house.
    fn refusal_of(&self, asked: &Asked<'_>, order: &Value) -> Option<Trouble> {
        if self.jobs.is_closed {
            let message =
                "Fine-tuning is being wound down: this organization can no longer create training jobs.";
            return Some(Trouble::openai(
                403,
                "invalid_request_error",
                Some("training_not_available"),
                message,
            ));
        }
        let too_long = order["suffix"].as_str().is_some_and(|suffix| {
            let most = if asked.house == House::AzureClassic { 40 } else { 64 };
            suffix.is_empty() || suffix.chars().count() > most
        });
        if too_long {
            return Some(asked.invalid("The suffix is too long or empty.", Some("suffix")));
        }
        for name in ["training_file", "validation_file"] {
            if let Some(id) = order[name].as_str() {
                let Some(file) = self.files.find(asked.account(), id) else {
                    return Some(asked.invalid(&format!("invalid {name}: {id}"), Some(name)));
                };
                if file.purpose != "fine-tune" {
                    let message = format!("'{id}' has the wrong purpose: '{}'", file.purpose);
                    return Some(asked.invalid(&message, Some(name)));
                }
                if file.state != FileState::Processed {
                    return Some(Trouble::azure(
                        400,
                        "invalidPayload",
                        &format!("The file {id} is not ready to be used: {:?}.", file.state),
                    ));
                }
            }
        }
        let hyperparameters = hyperparameters(order);
        let fits = |value: &Value| match value {
            Value::String(text) => text == "auto" && asked.house != House::AzureClassic,
            Value::Number(_) => value.as_i64().is_some_and(|number| (1..=50).contains(&number)),
            _ => false,
        };
        let epochs = hyperparameters.get("n_epochs").filter(|value| !value.is_null());
        if epochs.is_some_and(|epochs| !fits(epochs)) {
            return Some(asked.invalid("n_epochs is out of range", Some("hyperparameters.n_epochs")));
        }
        if order["metadata"].as_object().is_some_and(|metadata| metadata.len() > 16) {
            return Some(asked.invalid("Too many metadata members: 16 are allowed", Some("metadata")));
        }
        None
    }

    fn create_job(&mut self, asked: &Asked<'_>) -> Answered {
        let order = asked.json()?;
        let missing =
            |name: &str| asked.invalid(&format!("Missing required parameter: '{name}'."), Some(name));
        let model = order["model"].as_str().ok_or_else(|| missing("model"))?;
        let training_file = order["training_file"].as_str().ok_or_else(|| missing("training_file"))?;
        if let Some(trouble) = self.refusal_of(asked, &order) {
            return Err(trouble);
        }
        let (now_ms, account) = (self.now_ms(), asked.account());
        let made = self.jobs.models.iter().find(|tuned| tuned.name == model && !tuned.is_deleted);
        let base = made.map_or_else(|| snapshot(model, now_ms / 1_000), |tuned| tuned.base.clone());
        if !self.charges.trains(&base) || base.starts_with("ft:") {
            return Err(match account {
                Account::OpenAi => {
                    let message =
                        format!("Model {model} is not available for fine-tuning or does not exist.");
                    Trouble::openai(400, "invalid_request_error", Some("model_not_available"), &message)
                }
                Account::Azure => {
                    asked.invalid("The specified base model does not support fine-tuning.", None)
                }
            });
        }
        let file = self.files.find(account, training_file).ok_or_else(|| missing("training_file"))?;
        let method = order["method"]["type"].as_str().unwrap_or("supervised").to_owned();
        let (training_name, training) = (file.filename.clone(), Arc::clone(&file.bytes));
        let id = match account {
            Account::OpenAi => self.ids.next("ftjob-"),
            Account::Azure => format!("ftjob-{}", self.ids.hex()),
        };
        let job = Job {
            id: id.clone(),
            account,
            status: Status::Validating,
            base,
            training_file: training_file.to_owned(),
            validation_file: order["validation_file"].as_str().map(str::to_owned),
            metadata: order["metadata"].clone(),
            tokens_per_epoch: 0,
            epochs_done: 0,
            fine_tuned_model: None,
            created_s: now_ms / 1_000,
            started_s: None,
            finished_s: None,
            estimated_finish_s: None,
            method,
            hyperparameters: hyperparameters(&order),
            seed: order
                .get("seed")
                .filter(|seed| seed.is_number())
                .cloned()
                .unwrap_or_else(|| json!(683_058_546)),
            result_files: Vec::new(),
            error: None,
            events: Vec::new(),
            checkpoints: Vec::new(),
            tells_tokens: self.jobs.tells_tokens,
            compute_seconds: self.jobs.compute_seconds,
            training_name,
            training,
            rows: 0,
            doom: self.jobs.dooms.pop_front(),
            beat: Beat::since(now_ms),
            order,
        };
        self.jobs.all.push(job);
        let ids = &mut self.ids;
        let job = self.jobs.all.last_mut().expect("just pushed");
        job.message(ids, now_ms / 1_000, &format!("Created fine-tuning job: {id}"));
        let validating = format!("Validating training file: {}", job.training_file);
        job.message(ids, now_ms / 1_000, &validating);
        let job = self.jobs.all.last().expect("just pushed");
        let shown = self.shown_job(asked.house, job);
        Ok(match asked.house {
            House::AzureClassic => azure::created(asked, "fine_tuning/jobs", &id, &shown),
            House::OpenAi | House::AzureV1 => Served::ok(&shown),
        })
    }

    fn list_jobs(&self, asked: &Asked<'_>) -> Served {
        let query = asked.query();
        let is_wanted = |job: &&Job| {
            query.iter().all(|(name, value)| {
                if name == "metadata" && value == "null" {
                    return job.metadata.as_object().is_none_or(Map::is_empty);
                }
                let key = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']'));
                // Azure's dated API has no such filter, and takes no notice
                key.is_none_or(|key| asked.account() == Account::Azure || job.metadata[key] == value.as_str())
            })
        };
        let own = self.jobs.all.iter().rev().filter(|job| job.account == asked.account());
        let listed: Vec<&Job> = own.filter(is_wanted).collect();
        let after = asked.parameter("after");
        let (listed, more) = page(listed, |job| &job.id, after.as_deref(), asked.limit(20));
        let shown: Vec<Value> = listed.into_iter().map(|job| self.shown_job(asked.house, job)).collect();
        Served::ok(&list(&shown, more))
    }

    fn serve_job(&mut self, asked: &Asked<'_>) -> Answered {
        let (now_s, account) = (self.now_ms() / 1_000, asked.account());
        let at = self.jobs.all.iter().position(|job| job.id == asked.id && job.account == account);
        let missing = || match account {
            Account::OpenAi => {
                let message = format!("Could not find fine tune: {}", asked.id);
                let mut trouble =
                    Trouble::openai(404, "invalid_request_error", Some("fine_tune_not_found"), &message);
                trouble.body["error"]["param"] = "fine_tune_id".into();
                trouble
            }
            Account::Azure => Trouble::azure(404, "notFound", "The specified job does not exist."),
        };
        let at = at.ok_or_else(missing)?;
        let is_classic = asked.house == House::AzureClassic;
        let (ids, job) = (&mut self.ids, &mut self.jobs.all[at]);
        match asked.route {
            Route::JobEvents => return Ok(events(asked, job)),
            Route::JobCheckpoints => return Ok(checkpoints(asked, job)),
            Route::DeleteJob if is_classic && job.status.is_end() => {
                self.jobs.all.remove(at);
                return Ok(Served::empty(204));
            }
            Route::DeleteJob if is_classic => {
                return Err(Trouble::azure(409, "conflict", "The job has not come to its end."));
            }
            Route::DeleteJob => return Err(asked.not_found("Unknown request URL: no job can be deleted")),
            Route::PauseJob | Route::ResumeJob if is_classic => {
                return Err(Trouble::azure_resource_not_found());
            }
            Route::CancelJob => {
                if job.status.is_end() {
                    let message = format!("Job has already completed: {}", job.id);
                    return Err(asked.invalid(&message, None));
                }
                job.message(ids, now_s, "Fine-tuning job cancelled");
                job.end(Status::Cancelled, now_s);
            }
            Route::PauseJob => {
                if job.status != Status::Running || job.epochs_done == 0 {
                    return Err(
                        asked.invalid("Only a job that runs, and has done a step, can be paused.", None)
                    );
                }
                job.status = Status::Pausing;
                job.message(ids, now_s, "Fine-tuning job is pausing");
            }
            Route::ResumeJob => {
                if job.status != Status::Paused {
                    return Err(asked.invalid("Only a paused job can be resumed.", None));
                }
                job.status = Status::Running;
                job.message(ids, now_s, "Fine-tuning job resumed");
            }
            _ => {}
        }
        let job = &self.jobs.all[at];
        Ok(Served::ok(&self.shown_job(asked.house, job)))
    }

    fn serve_model(&mut self, asked: &Asked<'_>) -> Answered {
        let account = asked.account();
        let is_deployed = self.arm.serves(&asked.id);
        let mut models = self.jobs.models.iter_mut().filter(|model| model.account == account);
        let found = models.find(|model| model.name == asked.id && !model.is_deleted);
        let missing = || match account {
            Account::OpenAi => Trouble::model_not_found(&asked.id),
            Account::Azure => Trouble::azure(404, "notFound", "The specified model does not exist."),
        };
        let model = found.ok_or_else(missing)?;
        if asked.route == Route::GetModel {
            return Ok(Served::ok(&match account {
                Account::OpenAi => openai::model(model),
                Account::Azure => azure::model(model),
            }));
        }
        if asked.house == House::AzureClassic {
            return Err(Trouble::azure_resource_not_found());
        }
        if is_deployed {
            return Err(Trouble::azure(409, "conflict", "The model has a deployment: delete that first."));
        }
        model.is_deleted = true;
        Ok(Served::ok(&openai::deleted(&asked.id, "model")))
    }
}

/// Those of the method, or those at the top of older orders.
fn hyperparameters(order: &Value) -> Map<String, Value> {
    let method = order["method"]["type"].as_str().unwrap_or("supervised");
    let of_method = order["method"][method]["hyperparameters"].as_object();
    of_method.or_else(|| order["hyperparameters"].as_object()).cloned().unwrap_or_default()
}

/// Newest first at OpenAI; Azure shows them in their order.
fn events(asked: &Asked<'_>, job: &Job) -> Served {
    let mut listed: Vec<&Event> = job.events.iter().collect();
    if job.account == Account::OpenAi {
        listed.reverse();
    }
    let after = asked.parameter("after");
    let (listed, more) = page(listed, |event| &event.id, after.as_deref(), asked.limit(20));
    let shown: Vec<Value> = listed.into_iter().map(|event| openai::event(event, job.account)).collect();
    Served::ok(&list(&shown, more))
}

/// Newest first.
fn checkpoints(asked: &Asked<'_>, job: &Job) -> Served {
    let listed: Vec<&Checkpoint> = job.checkpoints.iter().rev().collect();
    let after = asked.parameter("after");
    let (listed, more) = page(listed, |checkpoint| &checkpoint.id, after.as_deref(), asked.limit(10));
    let ends = [listed.first(), listed.last()].map(|checkpoint| checkpoint.map(|found| found.id.clone()));
    let shown: Vec<Value> =
        listed.into_iter().map(|checkpoint| openai::checkpoint(checkpoint, &job.id)).collect();
    let mut list = list(&shown, more);
    let [first, last] = ends;
    list["first_id"] = first.into();
    list["last_id"] = last.into();
    Served::ok(&list)
}
