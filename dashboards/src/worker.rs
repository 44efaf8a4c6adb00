//! The local worker: whether it keeps up, how fast it is, what it needs, what it trains.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{Over, growth, max, rates, ratio, select, sum};
use crate::page::{Link, Page};
use crate::panel::{Panel, words};
use crate::unit::Unit;

/// How full something is that has a limit.
const FULL: Steps = Steps::rising(&[(0.8, "orange"), (0.95, "red")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Worker,
        "The model that runs here: whether it keeps up with its requests, how fast it reads and writes, what of the \
         machine it needs, and the adapters that are trained and served beside it.",
        vec![
            Row::new("Now", now()),
            Row::new("What clients feel", felt()),
            Row::new("Load", load()),
            Row::new("Work", work()),
            Row::new("Local training", training()),
            Row::new("Adapters", adapters()),
        ],
    )
}

/// A gauge of its limit: 1 is full.
fn filled(gauge: &str, limit: &str, by: &str) -> String {
    let part = |metric: &str| sum(by, &select(&format!("tunegate_worker_{metric}"), ""));
    ratio(&part(gauge), &part(limit))
}

fn routing() -> Link {
    Link::to(Page::Routing)
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat(
            words(
                "Worker",
                "Whether the gateway's own worker answers. Down: its log says why; too little memory is the usual \
                 cause.",
            ),
            Unit::State,
            routing(),
        )
        .query("worker", format!("min({})", select("tunegate_worker_up", "")))
        .mapping(&[("0", "down", "red"), ("1", "up", "green")])
        .empty("not the gateway's"),
        Panel::stat(
            words(
                "Starts",
                "Its starts in this time range. More than you know of: it dies. See its memory, and the kernel's log \
                 for the OOM killer.",
            ),
            Unit::Count,
            routing(),
        )
        .query("starts", growth("tunegate_worker_starts_total", "", ""))
        .decimals(0)
        .steps(Steps::rising(&[(1.5, "orange"), (3.0, "red")])),
        Panel::stat(
            words(
                "Queue",
                "Requests that wait, of those that may. Full: the next is turned away. Let the route fall back, or \
                 give it more cores.",
            ),
            Unit::Share,
            routing(),
        )
        .query("queue", filled("queue", "queue_limit", ""))
        .decimals(0)
        .steps(FULL),
        Panel::stat(
            words(
                "Batch",
                "Answers being computed, of those that may be at once. Full is good as long as the queue is short.",
            ),
            Unit::Share,
            routing(),
        )
        .query("batch", filled("active", "batch_limit", ""))
        .decimals(0),
        Panel::stat(
            words(
                "KV memory",
                "Tokens held for answers under way, of those that may be. Full: requests wait though the batch has \
                 room. Raise the limit if there is memory.",
            ),
            Unit::Share,
            routing(),
        )
        .query("kv", filled("kv_tokens", "kv_tokens_limit", ""))
        .decimals(0)
        .steps(FULL),
        Panel::stat(
            words("Written", "Tokens written a second, of all answers together: what the machine gives."),
            Unit::TokensPerSecond,
            Link::to(Page::Models),
        )
        .query("written", rates("tunegate_worker_tokens_total", "class=\"completion\"", ""))
        .decimals(1),
        Panel::stat(
            words("Memory", "Resident memory of the worker: weights, KV memory, buffers. It should stand still."),
            Unit::Bytes,
            routing(),
        )
        .query("memory", sum("", &select("tunegate_worker_resident_memory_bytes", ""))),
        Panel::stat(
            words(
                "Processor",
                "Cores in use by the worker. Fewer than it has while it is busy: something else runs on the machine, \
                 or memory is too slow.",
            ),
            Unit::Cores,
            routing(),
        )
        .query("cores", rates("tunegate_worker_cpu_seconds_total", "", ""))
        .decimals(1),
    ]
}

fn quantiles(panel: Panel, histogram: &str, matchers: &str) -> Panel {
    [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)].into_iter().fold(panel, |panel, (name, q)| {
        panel.query(name, Over::Interval.quantile(q, histogram, matchers, ""))
    })
}

fn felt() -> Vec<Panel> {
    let models = || Link::to(Page::Models);
    vec![
        quantiles(
            Panel::graph(
                words(
                    "Time to first token",
                    "Queue and prompt included. Rising with an empty queue: longer prompts. With a full one: too much \
                     load.",
                ),
                Unit::Seconds,
                models(),
            ),
            "gen_ai_server_time_to_first_token_seconds",
            "",
        ),
        quantiles(
            Panel::graph(
                words(
                    "Time per output token",
                    "Mean of an answer behind its first token. Above 0.1 s it is slower than people read: fewer \
                     answers at once, or a smaller model.",
                ),
                Unit::Seconds,
                models(),
            ),
            "gen_ai_server_time_per_output_token_seconds",
            "",
        ),
        quantiles(
            Panel::graph(
                words(
                    "Request duration",
                    "From the whole request to the last token, of requests that went well.",
                ),
                Unit::Seconds,
                models(),
            ),
            "gen_ai_server_request_duration_seconds",
            "error_type=\"\"",
        ),
        Panel::graph(
            words(
                "Denied and failed",
                "Requests turned away: `full` is load, `stopping` a restart. And those that failed, by type. The \
                 route's next deployment takes them.",
            ),
            Unit::RequestsPerSecond,
            routing(),
        )
        .query("denied: {{reason}}", rates("tunegate_worker_denied_total", "", "reason"))
        .query(
            "failed: {{error_type}}",
            rates("gen_ai_server_request_duration_seconds_count", "error_type!=\"\"", "error_type"),
        ),
    ]
}

fn load() -> Vec<Panel> {
    let gauge = |metric: &str| sum("", &select(&format!("tunegate_worker_{metric}"), ""));
    vec![
        Panel::graph(
            words("Queue", "Requests that wait, and how many may. At the limit they are turned away."),
            Unit::Count,
            routing(),
        )
        .query("waiting", gauge("queue"))
        .query("limit", gauge("queue_limit"))
        .decimals(0)
        .size(8, 9),
        Panel::graph(
            words("Answers at once", "Answers being computed, and how many may be."),
            Unit::Count,
            routing(),
        )
        .query("active", gauge("active"))
        .query("limit", gauge("batch_limit"))
        .decimals(0)
        .size(8, 9),
        Panel::graph(
            words("KV memory", "Tokens held in memory for the answers under way, and how many may be."),
            Unit::Tokens,
            routing(),
        )
        .query("held", gauge("kv_tokens"))
        .query("limit", gauge("kv_tokens_limit"))
        .decimals(0)
        .size(8, 9),
    ]
}

fn work() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Tokens",
                "Tokens computed a second. Prompts are read many at a time, answers written one by one: so 100 of \
                 the one cost less than 100 of the other.",
            ),
            Unit::TokensPerSecond,
            Link::to(Page::Models),
        )
        .query("{{class}}", rates("tunegate_worker_tokens_total", "", "class")),
        quantiles(
            Panel::graph(
                words(
                    "Time of a step",
                    "One pass over the weights. It sets how fast every answer is written; it grows with the batch \
                     and with prompts being read.",
                ),
                Unit::Seconds,
                routing(),
            ),
            "tunegate_worker_step_duration_seconds",
            "",
        ),
        Panel::heatmap(
            words(
                "Answers in a step",
                "How many answers were advanced at once. Mostly 1: there is room for more load at little cost in \
                 speed.",
            ),
            Unit::Count,
            routing(),
        )
        .query("{{le}}", rates("tunegate_worker_batch_size_bucket", "", "le")),
        Panel::graph(
            words(
                "Cores",
                "Cores in use by the worker, by instance. With its steps: whether it computes or waits.",
            ),
            Unit::Cores,
            routing(),
        )
        .query("{{instance}}", rates("tunegate_worker_cpu_seconds_total", "", "instance"))
        .decimals(2),
        Panel::stacked(
            words(
                "Whose time it is",
                "The share of the machine's time that was computed for each deployment, as the gateway books it: what \
                 `compute_per_hour_usd` is charged for. Close to 1: more requests only wait longer.",
            ),
            Unit::Share,
            Link::to(Page::Spend),
        )
        .query("{{deployment}}", rates("tunegate_compute_seconds_total", "", "deployment")),
    ]
}

fn tuning() -> Link {
    Link::to(Page::Tuning)
}

fn training() -> Vec<Panel> {
    let gauge = |metric: &str| max("instance", &select(&format!("tunegate_worker_training_{metric}"), ""));
    vec![
        Panel::stacked(
            words(
                "Local jobs by status",
                "One is trained after the other. Many queued: give the worker more threads, or train some elsewhere. \
                 `tunegate jobs list` names them.",
            ),
            Unit::Count,
            tuning(),
        )
        .query("{{status}}", sum("status", &select("tunegate_worker_training_jobs", "")))
        .decimals(0),
        Panel::graph(
            words(
                "Training loss",
                "Of the last step of the job that is trained, nats a token; 0 while none is. It swings with the rows of \
                 a step; over an epoch it should fall. It climbs: a lower learning_rate_multiplier.",
            ),
            Unit::Count,
            tuning(),
        )
        .query("{{instance}}", gauge("loss"))
        .decimals(3),
        Panel::graph(
            words(
                "Speed of training",
                "Tokens a second of the last step. It falls while requests are answered: both share the cores. \
                 `tunegate jobs watch JOB` says how long it takes yet.",
            ),
            Unit::TokensPerSecond,
            tuning(),
        )
        .query("{{instance}}", gauge("tokens_per_second"))
        .decimals(0),
        Panel::graph(
            words(
                "Steps per minute",
                "None while a job runs: it reads its rows, or it stalls. Its events and the worker's log say more.",
            ),
            Unit::Count,
            tuning(),
        )
        .query(
            "{{instance}}",
            format!("60 * {}", rates("tunegate_worker_training_steps_total", "", "instance")),
        )
        .decimals(1),
    ]
}

fn adapters() -> Vec<Panel> {
    let gauge = |metric: &str| sum("", &select(&format!("tunegate_worker_{metric}"), ""));
    let models = || Link::to(Page::Models);
    vec![
        Panel::stat(
            words(
                "Adapter memory",
                "Bytes of adapters in memory, of those that may be. Full is well as long as few are put out of it.",
            ),
            Unit::Share,
            models(),
        )
        .query("adapters", filled("adapter_bytes", "adapter_bytes_limit", ""))
        .decimals(1)
        .empty("none are served"),
        Panel::graph(
            words(
                "Adapters",
                "Fine-tuned models on the worker's disk, those in memory, and how many may be. One that is not in \
                 memory is read when it is asked for.",
            ),
            Unit::Count,
            models(),
        )
        .query("on disk", gauge("adapters"))
        .query("in memory", gauge("adapters_resident"))
        .query("limit", gauge("adapters_resident_limit"))
        .decimals(0),
        Panel::graph(
            words("Memory of adapters", "Bytes of adapters in memory, and how many there may be."),
            Unit::Bytes,
            models(),
        )
        .query("in memory", gauge("adapter_bytes"))
        .query("limit", gauge("adapter_bytes_limit")),
        Panel::graph(
            words(
                "Loads and evictions per minute",
                "Adapters read from disk, and those that had to go for them. Many of both: more are in use than there \
                 is room for. Raise `worker.max_adapters`; of a worker on its own, `--max-adapter-mib` too.",
            ),
            Unit::Count,
            models(),
        )
        .query("loads", format!("60 * {}", rates("tunegate_worker_adapter_loads_total", "", "")))
        .query("evictions", format!("60 * {}", rates("tunegate_worker_adapter_evictions_total", "", "")))
        .decimals(1),
    ]
}
