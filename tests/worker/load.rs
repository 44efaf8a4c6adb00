//! Many clients, impatient clients, deaf clients.

use super::*;

/// An answer that takes long: hot sampling rarely ends it, and the limit is far.
fn long(seed: u64) -> Value {
    let members = json!({"temperature": 2, "seed": seed, "max_tokens": 6000, "stream": true});
    with(question("Write a very long story."), &members)
}

#[tokio::test]
async fn who_leaves_is_forgotten() {
    let worker = Worker::start(&[]);
    let mut stream = worker.post("/v1/chat/completions", &long(1)).await;
    assert!(stream.chunk().await.unwrap().is_some());
    worker.until_active(1).await;
    drop(stream);
    worker.until_active(0).await;

    // The same for one who waits for a whole answer.
    let body = with(long(2), &json!({"stream": false}));
    let waiting = worker.post("/v1/chat/completions", &body);
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    worker.until_active(0).await;
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let worker = Worker::start(&["--max-batch", "1", "--queue", "1"]);
    let mut first = worker.post("/v1/chat/completions", &long(1)).await;
    assert!(first.chunk().await.unwrap().is_some());
    let body = long(2);
    let second = worker.post("/v1/chat/completions", &body);
    tokio::pin!(second);
    let queued = eventually("one waits", async || worker.health().await["queued"] == 1);
    tokio::select! {
        _ = &mut second => panic!("the second overtook the first"),
        () = queued => {}
    }
    let third = worker.post("/v1/chat/completions", &long(3)).await;
    assert_eq!(third.status(), 429);
    assert_eq!(third.headers()["retry-after"], "1");
    let error: Value = third.json().await.unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["type"]),
        (&json!("rate_limit_exceeded"), &json!("rate_limit_error"))
    );
    // The first leaves, the second moves up.
    drop(first);
    let mut second = second.await;
    assert!(second.chunk().await.unwrap().is_some());
}

#[tokio::test]
async fn short_questions_pass_long_answers_and_long_prompts() {
    let worker = Worker::start(&["--max-batch", "4"]);
    let mut long_answer = worker.post("/v1/chat/completions", &long(1)).await;
    assert!(long_answer.chunk().await.unwrap().is_some());
    let long_prompt = with(question(&"The cat sat on the mat. ".repeat(400)), &json!({"max_tokens": 1}));
    let reading = worker.post("/v1/chat/completions", &long_prompt);
    tokio::pin!(reading);
    let asking = async {
        worker.until_active(2).await;
        let answer = worker.chat(&question("What is the capital of France?")).await;
        assert_eq!(content(&answer), "The capital of France is Paris.");
        // Meanwhile the long answer went on.
        assert!(long_answer.chunk().await.unwrap().is_some());
        // The long ones go on; the answer is out a moment before its place is free.
        worker.until_active(2).await;
    };
    tokio::select! {
        _ = &mut reading => panic!("the long prompt was read before one question was answered"),
        () = asking => {}
    }
}

#[tokio::test]
async fn a_request_has_a_time_limit() {
    let worker = Worker::start(&["--request-limit-s", "3"]);
    let response = worker.post("/v1/chat/completions", &with(long(1), &json!({"stream": false}))).await;
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], "request_timeout");
    // In a stream the status is spent: the error is the last event, and there is no [DONE].
    let stream = worker.post("/v1/chat/completions", &long(1)).await.text().await.unwrap();
    let last = stream.trim_end().rsplit("\n\n").next().unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "request_timeout");
}

#[tokio::test]
async fn large_requests_that_wait_for_a_thread_are_bounded() {
    let worker = Worker::start(&["--max-batch", "1", "--queue", "1"]);
    let large = question(&"far too long ".repeat(2_000_000));
    let answers =
        futures_util::future::join_all((0..8).map(|_| worker.post("/v1/chat/completions", &large))).await;
    let count = |status| answers.iter().filter(|answer| answer.status() == status).count();
    let (turned_away, too_long) = (count(429), count(400));
    assert!(turned_away > 0 && too_long > 0, "{turned_away} {too_long}");
    assert_eq!(turned_away + too_long, 8);
    worker.chat(&with(question("Hi"), &json!({"max_tokens": 1}))).await;
}
