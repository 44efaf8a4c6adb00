//! `GET /metrics` of the real worker.

use super::*;
use crate::observability::promtool_is_content;

/// Every family of docs/METRICS.md that the worker itself has, with its kind.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md")).unwrap();
    let section = text.split("\n## The worker\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut families = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let names = cells[1].split(", ").map(|name| name.trim_matches('`').to_owned());
        let kinds: Vec<&str> = cells[2].split(", ").collect();
        for (at, name) in names.enumerate() {
            families.push((name, kinds[at.min(kinds.len() - 1)].to_owned()));
        }
    }
    families
        .retain(|(name, _)| !["tunegate_worker_up", "tunegate_worker_starts_total"].contains(&name.as_str()));
    families.sort();
    families
}

impl Worker {
    async fn metrics(&self) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        answer.text().await.unwrap()
    }
}

/// What a text says of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn of(family: &str, error_type: Option<&str>, operation: &str) -> String {
    let error_type = error_type.map_or_else(String::new, |kind| format!("error_type=\"{kind}\","));
    format!(
        "{family}{{{error_type}gen_ai_operation_name=\"{operation}\",gen_ai_provider_name=\"candle\",\
         gen_ai_request_model=\"smollm2-135m\"}}"
    )
}

#[tokio::test]
async fn traffic_of_every_kind_is_told_as_the_contract_says() {
    let worker = Worker::start(&["--max-batch", "2", "--queue", "1"]);
    let before = worker.metrics().await;
    let families: Vec<(String, String)> = before
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    assert_eq!(families, documented());
    let durations = "gen_ai_server_request_duration_seconds_count";
    assert_eq!(value(&before, &of(durations, Some(""), "text_completion")), 0.0, "born at 0");

    let answer = worker.chat(&question("What is the capital of France?")).await;
    let prompt = json!({"model": "smollm2-135m", "prompt": "The sea is", "max_tokens": 5, "temperature": 0});
    let completed: Value = worker.post("/v1/completions", &prompt).await.json().await.unwrap();
    let body = with(question("Write a very long story."), &json!({"temperature": 2, "stream": true}));
    let mut first = worker.post("/v1/chat/completions", &body).await;
    assert!(first.chunk().await.unwrap().is_some());
    let second = worker.post("/v1/chat/completions", &body).await;
    let waiting = worker.post("/v1/chat/completions", &body);
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("it overtook those before it"),
        () = eventually("one waits", async || worker.health().await["queued"] == 1) => {}
    }
    assert_eq!(worker.post("/v1/chat/completions", &body).await.status(), 429);

    let during = worker.metrics().await;
    assert_eq!(value(&during, "tunegate_worker_active"), 2.0);
    assert_eq!(value(&during, "tunegate_worker_batch_limit"), 2.0);
    assert_eq!(value(&during, "tunegate_worker_queue"), 1.0);
    assert_eq!(value(&during, "tunegate_worker_queue_limit"), 1.0);
    assert_eq!(value(&during, "tunegate_worker_denied_total{reason=\"full\"}"), 1.0);
    let (held, most) =
        (value(&during, "tunegate_worker_kv_tokens"), value(&during, "tunegate_worker_kv_tokens_limit"));
    assert!(held > 0.0 && held <= most, "{held} of {most}");
    assert!(
        value(&during, "tunegate_worker_batch_size_bucket{le=\"1\"}")
            < value(&during, "tunegate_worker_batch_size_count")
    );
    drop((first, second));
    drop(waiting.await);
    worker.until_active(0).await;

    let after = worker.metrics().await;
    assert_eq!(value(&after, &of(durations, Some(""), "chat")), 1.0);
    assert_eq!(value(&after, &of(durations, Some(""), "text_completion")), 1.0);
    assert_eq!(value(&after, &of(durations, Some("client_gone"), "chat")), 3.0);
    assert_eq!(value(&after, "tunegate_worker_active"), 0.0);
    assert_eq!(value(&after, "tunegate_worker_kv_tokens"), 0.0);
    let completions = of("gen_ai_server_time_to_first_token_seconds_sum", None, "text_completion");
    let first_token = value(&after, &completions);
    let between =
        value(&after, &of("gen_ai_server_time_per_output_token_seconds_sum", None, "text_completion"));
    let whole = value(&after, &of("gen_ai_server_request_duration_seconds_sum", Some(""), "text_completion"));
    assert!(0.0 < between && 0.0 < first_token, "{between}, {first_token}");
    // Five tokens: one, and four behind it. Sums of floats differ in their last digits.
    assert!(first_token + 4.0 * between <= whole + 1e-6, "{first_token} + 4 × {between} > {whole}");
    let usage = |member: &str| {
        let of = |answer: &Value| answer["usage"][member].as_f64().unwrap();
        of(&answer) + of(&completed)
    };
    assert!(value(&after, "tunegate_worker_tokens_total{class=\"prompt\"}") > usage("prompt_tokens"));
    assert!(value(&after, "tunegate_worker_tokens_total{class=\"completion\"}") > usage("completion_tokens"));
    let (steps, passes) = (
        value(&after, "tunegate_worker_batch_size_count"),
        value(&after, "tunegate_worker_step_duration_seconds_count"),
    );
    assert!(steps == passes && steps > usage("completion_tokens"), "{steps}, {passes}");
    assert!(
        value(&after, "tunegate_worker_resident_memory_bytes") > 50e6,
        "the model alone has a hundred MB"
    );
    assert!(value(&after, "tunegate_worker_cpu_seconds_total") >= 0.0);
    promtool_is_content(&after);
}

#[tokio::test]
async fn what_answers_are_told_of_the_time_is_all_of_the_steps() {
    let worker = Worker::start(&[]);
    let ask = |words: &str, cap| with(question(words), &json!({"max_completion_tokens": cap, "seed": 1}));
    let (one, two, three) = (
        ask("Count from one to a hundred.", 30),
        ask("Tell me of a ship.", 12),
        ask(&"Tell me of all ships. ".repeat(30), 3),
    );
    let (one, two, three) = tokio::join!(worker.chat(&one), worker.chat(&two), worker.chat(&three));
    let times = [one, two, three].map(|answer| timeless(&answer["usage"]).1);
    worker.until_active(0).await;
    let after = worker.metrics().await;
    let steps_us = value(&after, "tunegate_worker_step_duration_seconds_sum") * 1e6;
    let steps = value(&after, "tunegate_worker_step_duration_seconds_count");
    let shared_us: u64 = times.iter().sum();
    // of each step less than a microsecond is nobody's
    let unshared_us = steps_us - shared_us as f64;
    assert!((-1.0..=steps + 1.0).contains(&unshared_us), "{times:?} of {steps_us} µs in {steps} steps");
}
