//! What the local worker sees of itself. It is a process of its own, with a registry of its own; the gateway passes the
//! text of the one that it runs on (`passed`).

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::declare::metrics;
use super::{buckets, written};

/// The worker's name among OpenTelemetry's providers.
const PROVIDER: &str = "candle";
/// Whether the gateway's own worker answers; not in a registry, since its worth is known only behind our own text.
const UP: &str = "tunegate_worker_up";

/// All that a worker writes, with its kinds: what the gateway takes from it.
pub(super) const FAMILIES: [(&str, &str); 26] = [
    ("gen_ai_server_request_duration_seconds", "histogram"),
    ("gen_ai_server_time_per_output_token_seconds", "histogram"),
    ("gen_ai_server_time_to_first_token_seconds", "histogram"),
    ("tunegate_worker_active", "gauge"),
    ("tunegate_worker_adapter_bytes", "gauge"),
    ("tunegate_worker_adapter_bytes_limit", "gauge"),
    ("tunegate_worker_adapter_evictions_total", "counter"),
    ("tunegate_worker_adapter_loads_total", "counter"),
    ("tunegate_worker_adapters", "gauge"),
    ("tunegate_worker_adapters_resident", "gauge"),
    ("tunegate_worker_adapters_resident_limit", "gauge"),
    ("tunegate_worker_batch_limit", "gauge"),
    ("tunegate_worker_batch_size", "histogram"),
    ("tunegate_worker_cpu_seconds_total", "counter"),
    ("tunegate_worker_denied_total", "counter"),
    ("tunegate_worker_kv_tokens", "gauge"),
    ("tunegate_worker_kv_tokens_limit", "gauge"),
    ("tunegate_worker_queue", "gauge"),
    ("tunegate_worker_queue_limit", "gauge"),
    ("tunegate_worker_resident_memory_bytes", "gauge"),
    ("tunegate_worker_step_duration_seconds", "histogram"),
    ("tunegate_worker_tokens_total", "counter"),
    ("tunegate_worker_training_jobs", "gauge"),
    ("tunegate_worker_training_loss", "gauge"),
    ("tunegate_worker_training_steps_total", "counter"),
    ("tunegate_worker_training_tokens_per_second", "gauge"),
];

metrics! {
    /// The worker at work.
    struct Work {
        /// Seconds from the whole request to the last token; error_type is empty where it went well.
        duration: HistogramVec = "gen_ai_server_request_duration_seconds" [
            "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"
        ] in buckets::SECONDS;
        /// Seconds from the whole request to the first token, queue and prompt included.
        first_token: HistogramVec = "gen_ai_server_time_to_first_token_seconds" [
            "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"
        ] in buckets::FIRST_TOKEN_SECONDS;
        /// Seconds between two tokens of an answer, its mean behind the first.
        between_tokens: HistogramVec = "gen_ai_server_time_per_output_token_seconds" [
            "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"
        ] in buckets::TOKEN_SECONDS;
        /// Requests that wait for their turn.
        queue: IntGauge = "tunegate_worker_queue";
        /// Requests that may wait.
        queue_limit: IntGauge = "tunegate_worker_queue_limit";
        /// Answers being computed.
        active: IntGauge = "tunegate_worker_active";
        /// Answers that may be computed together.
        batch_limit: IntGauge = "tunegate_worker_batch_limit";
        /// Tokens held in memory for the answers being computed, with the room that is kept for what they may become.
        kv_tokens: IntGauge = "tunegate_worker_kv_tokens";
        /// Tokens that may be held in memory.
        kv_tokens_limit: IntGauge = "tunegate_worker_kv_tokens_limit";
        /// Answers advanced in one step, those whose prompt is read among them.
        batch_size: Histogram = "tunegate_worker_batch_size" in buckets::ANSWERS;
        /// Seconds of one step: a pass over the weights.
        step: Histogram = "tunegate_worker_step_duration_seconds" in buckets::STEP_SECONDS;
        /// Tokens computed: of prompts, of answers, and of texts that became vectors.
        tokens: IntCounterVec = "tunegate_worker_tokens_total" ["class"];
        /// Adapters on disk: each is a model of its own.
        adapters: IntGauge = "tunegate_worker_adapters";
        /// Adapters in memory.
        adapters_resident: IntGauge = "tunegate_worker_adapters_resident";
        /// Adapters that may be in memory; 0 where none are served.
        adapters_resident_limit: IntGauge = "tunegate_worker_adapters_resident_limit";
        /// Memory of the adapters in it, bytes.
        adapter_bytes: IntGauge = "tunegate_worker_adapter_bytes";
        /// Memory that adapters may take, bytes; 0 where none are served.
        adapter_bytes_limit: IntGauge = "tunegate_worker_adapter_bytes_limit";
        /// Adapters put out of memory to make room for others.
        adapter_evictions: IntCounter = "tunegate_worker_adapter_evictions_total";
        /// Adapters read from disk because a request asked for them.
        adapter_loads: IntCounter = "tunegate_worker_adapter_loads_total";
        /// Fine-tuning jobs that have not ended, by how they stand.
        training_jobs: IntGaugeVec = "tunegate_worker_training_jobs" ["status"];
        /// Steps of local training that were computed.
        training_steps: IntCounter = "tunegate_worker_training_steps_total";
        /// Loss of the last step of the job that is trained, nats a token; 0 while none is.
        training_loss: Gauge = "tunegate_worker_training_loss";
        /// Tokens a second of the last step of the job that is trained; 0 while none is.
        training_speed: Gauge = "tunegate_worker_training_tokens_per_second";
        /// Requests turned away, by why.
        denied: IntCounterVec = "tunegate_worker_denied_total" ["reason"];
    }
}

/// What was asked of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerOperation {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    TextCompletion,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/tunegate/score`
    Score,
}

impl WorkerOperation {
    /// Those that answer with tokens.
    const GENERATING: [Self; 2] = [Self::Chat, Self::TextCompletion];

    /// Its name in OpenTelemetry's conventions.
    const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Score => "score",
        }
    }
}

/// How a request ended that a worker had accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnding {
    /// With its whole answer.
    Finished,
    /// The engine broke.
    Failed,
    /// Its time was over, or its client read nothing for too long.
    Late,
    /// The worker ended.
    Stopped,
    /// Its client left.
    ClientGone,
}

impl WorkerEnding {
    const ALL: [Self; 5] = [Self::Finished, Self::Failed, Self::Late, Self::Stopped, Self::ClientGone];

    /// The value of `error_type`, empty where nothing went wrong.
    const fn error_type(self) -> &'static str {
        match self {
            Self::Finished => "",
            Self::Failed => "engine_failed",
            Self::Late => "request_timeout",
            Self::Stopped => "server_is_stopping",
            Self::ClientGone => "client_gone",
        }
    }
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerDenial {
    /// The queue was full.
    Full,
    /// The worker ends.
    Stopping,
}

impl WorkerDenial {
    const ALL: [Self; 2] = [Self::Full, Self::Stopping];

    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Stopping => "stopping",
        }
    }
}

/// How a job of local training may stand before it ends.
const TRAINING_STATUSES: [&str; 3] = ["queued", "running", "paused"];

/// How full a worker is, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Requests that wait.
    pub queue: usize,
    /// Answers being computed.
    pub active: usize,
    /// Tokens held in memory.
    pub kv_tokens: usize,
}

/// The metrics of a worker's process. What a step tells takes no lock.
pub struct WorkerMetrics {
    registry: Registry,
    model: Box<str>,
    /// That of the model that makes vectors; empty where there is none.
    embedding_model: Box<str>,
    work: Work,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
}

impl WorkerMetrics {
    /// All of them, registered and at 0, of a worker that serves one `model` and may become as full as `most`.
    /// What is told of vectors is there where it has an `embedding_model`, too.
    ///
    /// # Errors
    ///
    /// When one is declared twice, or wrongly.
    pub fn new(
        model: &str,
        embedding_model: Option<&str>,
        most: Occupancy,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let work = Work::declared(&registry)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(own_process::OwnProcess::new()?))?;
        set(&work.queue_limit, most.queue);
        set(&work.batch_limit, most.active);
        set(&work.kv_tokens_limit, most.kv_tokens);
        for reason in WorkerDenial::ALL {
            work.denied.with_label_values(&[reason.name()]);
        }
        for status in TRAINING_STATUSES {
            work.training_jobs.with_label_values(&[status]);
        }
        let [prompt_tokens, completion_tokens] =
            ["prompt", "completion"].map(|class| work.tokens.with_label_values(&[class]));
        let (model, vectors) = (model.into(), embedding_model.unwrap_or_default().into());
        let metrics =
            Self { registry, model, embedding_model: vectors, work, prompt_tokens, completion_tokens };
        if embedding_model.is_some() {
            metrics.embedded(0);
            for ending in WorkerEnding::ALL {
                metrics.duration(WorkerOperation::Embeddings, ending);
            }
        }
        for ending in WorkerEnding::ALL {
            metrics.duration(WorkerOperation::Score, ending);
        }
        for operation in WorkerOperation::GENERATING {
            for ending in WorkerEnding::ALL {
                metrics.duration(operation, ending);
            }
            metrics.of(&metrics.work.first_token, operation);
            metrics.of(&metrics.work.between_tokens, operation);
        }
        Ok(metrics)
    }

    fn of(&self, family: &HistogramVec, operation: WorkerOperation) -> Histogram {
        family.with_label_values(&[operation.name(), PROVIDER, &self.model])
    }

    fn duration(&self, operation: WorkerOperation, ending: WorkerEnding) -> Histogram {
        let model = match operation {
            WorkerOperation::Chat | WorkerOperation::TextCompletion | WorkerOperation::Score => &self.model,
            WorkerOperation::Embeddings => &self.embedding_model,
        };
        let labels = [operation.name(), PROVIDER, model, ending.error_type()];
        self.work.duration.with_label_values(&labels)
    }

    /// Counts a request that was turned away.
    pub fn denied(&self, why: WorkerDenial) {
        self.work.denied.with_label_values(&[why.name()]).inc();
    }

    /// Observes a step that advanced so many answers.
    pub fn stepped(&self, answers: usize, took: Duration) {
        self.work.batch_size.observe(answers as f64);
        self.work.step.observe(took.as_secs_f64());
    }

    /// Tells how many adapters there are, how many of them in memory, and their bytes there.
    pub fn adapters(&self, all: usize, resident: usize, bytes: usize) {
        set(&self.work.adapters, all);
        set(&self.work.adapters_resident, resident);
        set(&self.work.adapter_bytes, bytes);
    }

    /// Tells how many adapters may be in memory, and their bytes there.
    pub fn adapter_limits(&self, resident: usize, bytes: usize) {
        set(&self.work.adapters_resident_limit, resident);
        set(&self.work.adapter_bytes_limit, bytes);
    }

    /// Counts an adapter that was put out of memory to make room.
    pub fn adapter_evicted(&self) {
        self.work.adapter_evictions.inc();
    }

    /// Counts an adapter that was read from disk.
    pub fn adapter_loaded(&self) {
        self.work.adapter_loads.inc();
    }

    /// Tells how many jobs wait, run and pause.
    pub fn training_jobs(&self, counts: [usize; 3]) {
        for (status, count) in TRAINING_STATUSES.into_iter().zip(counts) {
            set(&self.work.training_jobs.with_label_values(&[status]), count);
        }
    }

    /// Tells how the job that is trained does: loss, and tokens a second.
    pub fn trains(&self, loss: f64, tokens_per_second: f64) {
        self.work.training_loss.set(loss);
        self.work.training_speed.set(tokens_per_second);
    }

    /// Counts steps of training that were computed.
    pub fn trained(&self, steps: u64) {
        self.work.training_steps.inc_by(steps);
    }

    /// Counts tokens of a prompt that were read.
    pub fn read(&self, tokens: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
    }

    /// Counts tokens of texts that became vectors.
    pub fn embedded(&self, tokens: usize) {
        self.work.tokens.with_label_values(&["embedding"]).inc_by(tokens as u64);
    }

    /// Counts a token of an answer.
    pub fn wrote(&self) {
        self.completion_tokens.inc();
    }

    /// Observes the first token of an answer.
    pub fn first_token(&self, operation: WorkerOperation, after: Duration) {
        self.of(&self.work.first_token, operation).observe(after.as_secs_f64());
    }

    /// Observes the time between two tokens of an answer.
    pub fn between_tokens(&self, operation: WorkerOperation, mean: Duration) {
        self.of(&self.work.between_tokens, operation).observe(mean.as_secs_f64());
    }

    /// Observes the end of a request.
    pub fn ended(&self, operation: WorkerOperation, ending: WorkerEnding, after: Duration) {
        self.duration(operation, ending).observe(after.as_secs_f64());
    }

    /// The text that Prometheus reads, of a worker that is as full as this.
    pub fn text(&self, now: Occupancy) -> Vec<u8> {
        set(&self.work.queue, now.queue);
        set(&self.work.active, now.active);
        set(&self.work.kv_tokens, now.kv_tokens);
        written(&self.registry)
    }
}

fn set(gauge: &IntGauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Puts what the gateway's own worker says behind the gateway's own text: that it answers, and its answer as
/// [`super::passed()`] let it through; or that there is none.
pub fn with_worker(mut text: Vec<u8>, answer: Option<&str>) -> Vec<u8> {
    let help = "1 where the gateway's own worker answers, else 0.";
    let up = u8::from(answer.is_some());
    text.extend_from_slice(format!("# HELP {UP} {help}\n# TYPE {UP} gauge\n{UP} {up}\n").as_bytes());
    text.extend_from_slice(answer.unwrap_or_default().as_bytes());
    text
}

#[cfg(target_os = "linux")]
mod own_process {
    use prometheus::core::{Collector, Desc};
    use prometheus::process_collector::ProcessCollector;
    use prometheus::{Error, proto};

    /// What is told of a process, as the collector calls it and as we do: one text has the gateway's `process_*`, too.
    const NAMES: [(&str, &str, &str); 2] = [
        (
            "process_resident_memory_bytes",
            "tunegate_worker_resident_memory_bytes",
            "Memory of the worker, bytes.",
        ),
        ("process_cpu_seconds_total", "tunegate_worker_cpu_seconds_total", "CPU seconds of the worker."),
    ];

    /// The worker's process under names of its own.
    pub(super) struct OwnProcess {
        inner: ProcessCollector,
        descriptions: Vec<Desc>,
    }

    impl OwnProcess {
        pub(super) fn new() -> Result<Self, Error> {
            let described = |(_, name, help): (&str, &str, &str)| {
                Desc::new(name.to_owned(), help.to_owned(), Vec::new(), std::collections::HashMap::new())
            };
            let descriptions = NAMES.into_iter().map(described).collect::<Result<_, _>>()?;
            Ok(Self { inner: ProcessCollector::for_self(), descriptions })
        }
    }

    impl Collector for OwnProcess {
        fn desc(&self) -> Vec<&Desc> {
            self.descriptions.iter().collect()
        }

        fn collect(&self) -> Vec<proto::MetricFamily> {
            let mut families = self.inner.collect();
            families.retain_mut(|family| {
                let Some((_, name, help)) = NAMES.iter().find(|(theirs, ..)| *theirs == family.name()) else {
                    return false;
                };
                family.set_name((*name).to_owned());
                family.set_help((*help).to_owned());
                true
            });
            families
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Config, Metrics, passed};

    fn metrics() -> WorkerMetrics {
        let most = Occupancy { queue: 32, active: 8, kv_tokens: 65_536 };
        WorkerMetrics::new("a \"model\"\\", Some("mini"), most).expect("metrics")
    }

    fn text(metrics: &WorkerMetrics) -> String {
        let now = Occupancy { queue: 3, active: 2, kv_tokens: 640 };
        String::from_utf8(metrics.text(now)).expect("text")
    }

    #[test]
    fn all_are_born_listed_and_passed_on_as_they_are() {
        let text = text(&metrics());
        let written: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert_eq!(written, FAMILIES);
        assert_eq!(passed(&text).as_deref(), Ok(&*text));
        for line in [
            "tunegate_worker_queue 3",
            "tunegate_worker_queue_limit 32",
            "tunegate_worker_active 2",
            "tunegate_worker_batch_limit 8",
            "tunegate_worker_kv_tokens 640",
            "tunegate_worker_kv_tokens_limit 65536",
            "tunegate_worker_denied_total{reason=\"full\"} 0",
            "tunegate_worker_tokens_total{class=\"completion\"} 0",
            "tunegate_worker_tokens_total{class=\"embedding\"} 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
        for operation in ["chat", "text_completion"] {
            let series = format!("gen_ai_operation_name=\"{operation}\",gen_ai_provider_name=\"candle\"");
            let born = text.lines().filter(|line| line.contains("_count{") && line.contains(&series));
            assert_eq!(born.count(), WorkerEnding::ALL.len() + 2);
        }
    }

    #[test]
    fn no_name_is_the_gateways_too() {
        let gateway = Metrics::new(Config::default()).expect("metrics");
        assert!(Work::declared(&gateway.registry).is_ok());
    }

    #[test]
    fn a_worker_that_does_not_answer_is_down() {
        let joined = |answer| String::from_utf8(with_worker(b"ours 1\n".to_vec(), answer)).expect("text");
        assert!(joined(None).ends_with("# TYPE tunegate_worker_up gauge\ntunegate_worker_up 0\n"));
        assert!(joined(Some("theirs 2\n")).ends_with("\ntunegate_worker_up 1\ntheirs 2\n"));
        assert!(joined(None).starts_with("ours 1\n# HELP tunegate_worker_up "));
    }
}
