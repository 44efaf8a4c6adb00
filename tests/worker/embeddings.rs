//! `POST /v1/embeddings` of the real worker, with the real model.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tunegate::upstream::embedder::{EmbedError, Embedder};

use super::*;

const PATH: &str = "/v1/embeddings";
const MODEL: &str = "all-minilm-l6-v2";
/// Two that say the same in other words, and one about something else.
const TEXTS: [&str; 3] = [
    "How do I reset my password?",
    "I forgot my password, how can I change it?",
    "The recipe needs two eggs and a cup of flour.",
];

fn start(more: &[&str]) -> Worker {
    let folder = embedding_model();
    Worker::start(&[&["--embedding-model", folder.to_str().unwrap()], more].concat())
}

fn asked(input: &Value) -> Value {
    json!({"model": MODEL, "input": input})
}

/// A request that keeps the worker busy for long.
fn long() -> Value {
    asked(&json!(vec!["a ".repeat(250); 2_000]))
}

fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    let rows = answer["data"].as_array().unwrap();
    let numbers = |row: &Value| match &row["embedding"] {
        Value::String(text) => {
            let bytes = STANDARD.decode(text).unwrap();
            bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
        }
        list => serde_json::from_value(list.clone()).unwrap(),
    };
    rows.iter().map(numbers).collect()
}

/// Of vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!((a.len(), b.len()), (384, 384));
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Worker {
    async fn embeddings(&self, body: &Value) -> Value {
        let response = self.post(PATH, body).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// What the metrics say of a series.
    async fn told(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    /// Tokens that became vectors.
    async fn tokens(&self) -> f64 {
        self.told("tunegate_worker_tokens_total{class=\"embedding\"}").await
    }

    async fn embeddings_ended(&self, error_type: &str) -> f64 {
        let series = format!(
            "gen_ai_server_request_duration_seconds_count{{error_type=\"{error_type}\",\
             gen_ai_operation_name=\"embeddings\",gen_ai_provider_name=\"candle\",\
             gen_ai_request_model=\"{MODEL}\"}}"
        );
        self.told(&series).await
    }
}

#[tokio::test]
async fn answers_have_openais_shape_and_mean_something() {
    let worker = start(&[]);
    let answer = worker.embeddings(&asked(&json!(TEXTS))).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(MODEL)));
    for (index, row) in answer["data"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&row["object"], &row["index"]), (&json!("embedding"), &json!(index)));
    }
    // 7, 11 and 11, without the two that open and close each.
    assert_eq!(timeless(&answer["usage"]).0, json!({"prompt_tokens": 29, "total_tokens": 29}));

    let found = vectors(&answer);
    let (same, other) = (cosine(&found[0], &found[1]), cosine(&found[0], &found[2]));
    assert!((same - 0.8939).abs() < 1e-3, "the reference has 0.8939, not {same}");
    assert!((other - 0.0383).abs() < 1e-3, "the reference has 0.0383, not {other}");
    assert!(found.iter().all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-5));

    let base64 = with(asked(&json!(TEXTS)), &json!({"encoding_format": "base64", "dimensions": 384}));
    assert_eq!(vectors(&worker.embeddings(&base64).await), found, "to the last bit");
    let alone = worker.embeddings(&with(asked(&json!(TEXTS[1])), &json!({"user": "u"}))).await;
    assert_eq!(vectors(&alone)[0], found[1], "whatever stands beside it");

    let list: Value = worker.get("/v1/models").await.json().await.unwrap();
    let names: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["smollm2-135m", MODEL]);
    let model: Value = worker.get("/v1/models/local/all-minilm-l6-v2").await.json().await.unwrap();
    assert_eq!((&model["id"], &model["owned_by"]), (&json!(MODEL), &json!("local")));

    assert_eq!(worker.embeddings_ended("").await, 3.0);
    assert_eq!(worker.tokens().await, 83.0, "with the two that open and close each of seven texts");
}

#[tokio::test]
async fn what_is_refused_is_told_as_openai_tells_it() {
    let worker = start(&[]);
    for (body, status, code, param, part) in [
        (with(asked(&json!("a")), &json!({"model": "smollm2-135m"})), 404, "model_not_found", "model", ""),
        (asked(&json!([1, 2, 3])), 400, "unsupported_value", "input", "no token ids"),
        (asked(&json!([[1, 2, 3]])), 400, "unsupported_value", "input", "no token ids"),
        (asked(&json!([])), 400, "invalid_value", "input", "at least one"),
        (asked(&json!(["a", ""])), 400, "invalid_value", "input[1]", "empty"),
        (asked(&json!(vec!["a"; 2_049])), 400, "invalid_value", "input", "at most 2048"),
        (asked(&json!("word ".repeat(300))), 400, "context_length_exceeded", "input", "254 tokens"),
        (
            with(asked(&json!("a")), &json!({"dimensions": 256})),
            400,
            "unsupported_value",
            "dimensions",
            "384",
        ),
    ] {
        let response = worker.post(PATH, &body).await;
        assert_eq!(response.status(), status);
        let error = response.json::<Value>().await.unwrap()["error"].take();
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    assert_eq!(worker.get(PATH).await.status(), 405);

    let without = Worker::start(&[]);
    let response = without.post(PATH, &asked(&json!("a"))).await;
    assert_eq!(response.status(), 404);
    assert!(response.text().await.unwrap().contains("--embedding-model"));
}

/// Does something while a request is computed that takes minutes; then its client leaves.
async fn beside_a_book(worker: &Worker, doing: impl Future<Output = ()>) {
    let beside = async {
        eventually("that it is read", async || worker.tokens().await > 1_000.0).await;
        doing.await;
    };
    let body = long();
    tokio::select! {
        answer = worker.post(PATH, &body) => panic!("read so soon: {}", answer.status()),
        () = beside => {}
    }
    let ended = async || worker.embeddings_ended("client_gone").await == 1.0;
    eventually("its end, long before its last text", ended).await;
}

#[tokio::test]
async fn a_question_is_answered_while_a_book_is_read() {
    let worker = start(&[]);
    beside_a_book(&worker, async {
        assert_eq!(worker.post(PATH, &asked(&json!("a"))).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_says_so_and_is_no_others() {
    let worker = start(&["--queue", "0"]);
    beside_a_book(&worker, async {
        let response = worker.post(PATH, &asked(&json!("a"))).await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        let answer = worker.chat(&question("What is the capital of France?")).await;
        assert_eq!(content(&answer), "The capital of France is Paris.");
    })
    .await;
    assert_eq!(worker.post(PATH, &asked(&json!("a"))).await.status(), 200);
}

#[tokio::test]
async fn an_answer_that_is_written_holds_up_no_vector() {
    let worker = start(&[]);
    let story = with(question("Write a very long story."), &json!({"temperature": 2, "stream": true}));
    let mut stream = worker.post("/v1/chat/completions", &story).await;
    assert!(stream.chunk().await.unwrap().is_some());
    for _ in 0..5 {
        assert_eq!(vectors(&worker.embeddings(&asked(&json!("a"))).await).len(), 1);
    }
    assert_eq!(worker.health().await["active"], 1, "it was written all the while");
    drop(stream);
}

#[tokio::test]
async fn a_worker_says_what_is_wrong_with_an_embedding_model() {
    let empty = tempfile::tempdir().unwrap();
    let model = embedding_model();
    for (arguments, part) in [
        (vec!["--embedding-model", "/nowhere"], "run `make model`"),
        (vec!["--embedding-model", empty.path().to_str().unwrap()], "cannot read the embedding model"),
        (
            vec!["--embedding-model", model.to_str().unwrap(), "--embedding-name", "smollm2-135m"],
            "both called smollm2-135m",
        ),
    ] {
        let output = command(&[&["--listen", "127.0.0.1:0"], &*arguments].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn the_gateways_embedder_gets_the_same_vectors_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("worker.sock");
    let listen = format!("unix:{}", socket.display());
    let model = embedding_model();
    let arguments = ["--listen", &listen, "--embedding-model", model.to_str().unwrap()];
    let (mut process, _) = spawn(&arguments);
    let embedder = Arc::new(Embedder::new(socket.clone(), MODEL.into()));
    let embed = async |text: &str| embedder.embed(text, PATIENCE).await;

    let mut found = Vec::new();
    for text in TEXTS {
        found.push(embed(text).await.unwrap());
    }
    assert!((cosine(&found[0], &found[1]) - 0.8939).abs() < 1e-3);
    let together = futures_util::future::join_all(TEXTS.map(embed)).await;
    assert!(together.iter().zip(&found).all(|(one, other)| one.as_ref() == Ok(other)));

    assert_eq!(embed(&"a ".repeat(300)).await, Err(EmbedError::TooLong), "counted by the worker");
    assert_eq!(embed(&"a".repeat(2_001)).await, Err(EmbedError::TooLong), "counted here");
    assert_eq!(embed("").await.unwrap_err().code(), "refused");
    let other = Embedder::new(socket, "nobody".into());
    assert!(
        matches!(other.embed("a", PATIENCE).await, Err(EmbedError::Refused(why)) if why.contains("nobody"))
    );
    let at_once = embedder.embed("a", Duration::ZERO).await;
    assert_eq!(at_once, Err(EmbedError::Late));
    assert!(embed("a").await.is_ok(), "a question that was given up spoils none after it");

    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(embed("a").await, Err(EmbedError::Away));
}
