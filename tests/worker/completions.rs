//! `POST /v1/completions`, `GET /v1/models`

use super::*;

#[tokio::test]
async fn text_and_ids_are_continued_alike() {
    let worker = Worker::start(&[]);
    let ask = async |prompt: Value| -> Value {
        let body = json!({"model": "smollm2-135m", "prompt": prompt, "temperature": 0});
        let response = worker.post("/v1/completions", &body).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    };
    let text = ask(json!("Hello, world!")).await;
    assert_eq!(text["object"], "text_completion");
    assert_eq!(text["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&text["usage"]["prompt_tokens"], &text["usage"]["completion_tokens"]),
        (&json!(4), &json!(16))
    );
    for same in [json!(["Hello, world!"]), json!([19556, 28, 905, 17]), json!([[19556, 28, 905, 17]])] {
        assert_eq!(ask(same).await["choices"], text["choices"]);
    }
    let body = json!({"model": "smollm2-135m", "prompt": "Hello, world!", "temperature": 0, "stream": true});
    let stream = worker.post("/v1/completions", &body).await.text().await.unwrap();
    let pieces: Vec<Value> = events(&stream);
    let joined: String = pieces.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, text["choices"][0]["text"].as_str().unwrap());
    assert!(pieces.iter().all(|event| event["object"] == "text_completion"));
    assert_eq!(pieces.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn the_context_is_filled_to_its_end() {
    let worker = Worker::start(&["--kv-budget-tokens", "128"]);
    let ask = async |length: usize| {
        let body = json!({"model": "smollm2-135m", "prompt": vec![504; length], "max_tokens": 1000, "seed": 1,
            "temperature": 2});
        worker.post("/v1/completions", &body).await
    };
    let full: Value = ask(127).await.json().await.unwrap();
    assert_eq!(full["usage"]["completion_tokens"], 1);
    let filled: Value = ask(120).await.json().await.unwrap();
    assert_eq!(filled["usage"]["total_tokens"], 128);
    assert_eq!(filled["choices"][0]["finish_reason"], "length");
    let beyond = ask(128).await;
    assert_eq!(beyond.status(), 400);
    let error: Value = beyond.json().await.unwrap();
    assert_eq!(error["error"]["code"], "context_length_exceeded");
    assert_eq!(error["error"]["param"], "prompt");
}

#[tokio::test]
async fn models() {
    let worker = Worker::start(&["--name", "cat:v1"]);
    let list: Value = worker.get("/v1/models").await.json().await.unwrap();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("cat:v1")));
    for name in ["cat:v1", "cat%3Av1", "local/cat:v1", "local%2Fcat:v1"] {
        let model: Value = worker.get(&format!("/v1/models/{name}")).await.json().await.unwrap();
        assert_eq!((&model["id"], &model["object"]), (&json!("cat:v1"), &json!("model")), "{name}");
    }
    assert_eq!(worker.get("/v1/models/dog").await.status(), 404);
}
