//! `POST /v1/tunegate/score`: how likely a known answer is.

use super::tuning::{create, order, shown_events, start, until, upload};
use super::*;

const SCORE: &str = "/v1/tunegate/score";

fn known(asked: &str, answer: &str) -> Value {
    json!({"model": "smollm2-135m", "messages": [
        {"role": "user", "content": asked}, {"role": "assistant", "content": answer}
    ]})
}

impl Worker {
    async fn score(&self, body: &Value) -> Value {
        let answer = self.post(SCORE, body).await;
        let status = answer.status();
        let score: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{score:#}");
        score
    }
}

/// Nats a token.
fn loss(score: &Value) -> f64 {
    score["loss_sum"].as_f64().unwrap() / score["tokens"].as_f64().unwrap()
}

#[tokio::test]
async fn what_the_model_says_itself_is_likelier_than_what_it_does_not() {
    let worker = Worker::start(&[]);
    let asked = "What is the capital of France?";
    let answer = worker.chat(&question(asked)).await;
    let own = worker.score(&known(asked, content(&answer))).await;
    assert_eq!(own["object"], "tunegate.score");
    assert_eq!(
        (&own["model"], &own["system_fingerprint"]),
        (&answer["model"], &answer["system_fingerprint"])
    );
    let nonsense = worker.score(&known(asked, "Purple seventeen the of under marmalade.")).await;
    assert!(0.0 < loss(&own) && loss(&own) < 1.0 && loss(&nonsense) > 4.0, "{own:#} {nonsense:#}");
    // the token that ends the answer counts, and nobody has to have read it
    let (prompt, made) = (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]);
    assert_eq!(own["tokens"], made.as_u64().unwrap() + 1);
    assert_eq!(own["usage"]["prompt_tokens"], prompt.as_u64().unwrap() + made.as_u64().unwrap());
    assert_eq!(own["usage"]["completion_tokens"], 0);
    let again = worker.score(&known(asked, content(&answer))).await;
    assert_eq!(again["loss_sum"], own["loss_sum"], "to the bit");
    let nothing = worker.score(&known(asked, "")).await;
    assert_eq!(nothing["tokens"], 1, "that it ends at once");
}

#[tokio::test]
async fn it_is_bounded_like_any_request() {
    let worker = Worker::start(&["--max-batch", "1", "--queue", "1", "--kv-budget-tokens", "2048"]);
    for (body, param) in [
        (known("q", &"word ".repeat(2_100)), "messages"),
        (with(known("q", "a"), &json!({"model": "gpt-5"})), "model"),
        (with(known("q", "a"), &json!({"messages": [{"role": "user", "content": "q"}]})), "messages"),
        (with(known("q", "a"), &json!({"tools": [{"type": "function"}]})), "tools"),
        (with(known("q", "a"), &json!({"temperature": 0})), "temperature"),
    ] {
        let answer = worker.post(SCORE, &body).await;
        assert!(answer.status().is_client_error());
        let refused: Value = answer.json().await.unwrap();
        assert_eq!(refused["error"]["param"], param, "{refused:#}");
    }
    let long = with(question("Write a very long story."), &json!({"temperature": 2, "stream": true}));
    let mut running = worker.post("/v1/chat/completions", &long).await;
    assert!(running.chunk().await.unwrap().is_some());
    let body = known("q", "a");
    let waiting = worker.post(SCORE, &body);
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("it overtook the one before it"),
        () = eventually("it waits", async || worker.health().await["queued"] == 1) => {}
    }
    assert_eq!(worker.post(SCORE, &body).await.status(), 429);
    drop(running);
    assert_eq!(waiting.await.status(), 200);
}

/// What the served model may be off, nats a token: it computes with activations of 16 bits and a cache in half precision,
/// training in full precision.
const ROUNDING: f64 = 3e-3;

/// What a training says of its validation file is what a score says of the same rows, with the adapter that came of it.
#[tokio::test]
async fn it_is_the_loss_that_training_tells() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let held_out = [("Say seven", "7, nya!"), ("What do you like?", "I like fish, nya!\nAnd にゃあ.")];
    let row = |(asked, answer): &(&str, &str)| {
        let mut row = known(asked, answer);
        row.as_object_mut().unwrap().remove("model");
        format!("{row}\n")
    };
    let rows: String = held_out.iter().map(row).collect();
    let (file, validation) = (upload(&worker, &row(&held_out[0])).await, upload(&worker, &rows).await);
    let order = with(order(&file, 2), &json!({"validation_file": validation}));
    let job = create(&worker, &order).await;
    let model = until(&worker, &job, "succeeded").await["fine_tuned_model"].clone();
    let told = shown_events(&worker, &job).await;
    // the model is that of the best epoch
    let told = told.iter().filter_map(|event| event["data"]["full_valid_loss"].as_f64());
    let told = told.fold(f64::INFINITY, f64::min);

    let (mut sum, mut tokens) = (0.0, 0.0);
    let mut before = 0.0;
    for (asked, answer) in held_out {
        let score = worker.score(&with(known(asked, answer), &json!({"model": model}))).await;
        sum += score["loss_sum"].as_f64().unwrap();
        tokens += score["tokens"].as_f64().unwrap();
        before += worker.score(&known(asked, answer)).await["loss_sum"].as_f64().unwrap();
    }
    assert!((sum / tokens - told).abs() < ROUNDING, "{} scored, {told} told", sum / tokens);
    assert!((before - sum) / tokens > ROUNDING, "the base has not learned it: {before}, {sum}");
}
