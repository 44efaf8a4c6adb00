use super::*;
use serde_json::{Value, json};

fn input(model: &str, endpoint: Endpoint, body: &Value) -> u64 {
    TokenCounter::estimating(model).count(endpoint, body.to_string().as_bytes()).input
}

#[test]
fn fine_tuned_names_count_as_their_base() {
    for (model, want) in [
        ("ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY", Encoding::O200k),
        ("ft:gpt-4o-mini-2024-07-18:acme::id:ckpt-step-10", Encoding::O200k),
        ("ft:gpt-3.5-turbo-0613:acme::id", Encoding::Cl100k),
        ("gpt-4.1-mini-2025-04-14.ft-b044a9d3cf9c4228b5d393567f693b83", Encoding::O200k),
        ("gpt-35-turbo", Encoding::Cl100k),
        ("gpt-4-0613", Encoding::Cl100k),
        ("gpt-oss-20b", Encoding::O200kHarmony),
        ("text-embedding-3-small", Encoding::Cl100k),
        ("something-new", Encoding::O200k),
    ] {
        assert_eq!(Encoding::of_model(model), want, "{model}");
    }
}

#[test]
fn the_cookbooks_messages_count_as_the_api_counts_them() {
    let text = |role: &str, name: Option<&str>, content: &str| match name {
        Some(name) => json!({"role": role, "name": name, "content": content}),
        None => json!({"role": role, "content": content}),
    };
    let messages = json!([
        text(
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
        ),
        text("system", Some("example_user"), "New synergies will help drive top-line growth."),
        text("system", Some("example_assistant"), "Things working well together will increase revenue."),
        text(
            "system",
            Some("example_user"),
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."
        ),
        text(
            "system",
            Some("example_assistant"),
            "Let's talk later when we're less busy about how to do better."
        ),
        text(
            "user",
            None,
            "This late pivot means we don't have time to boil the ocean for the client deliverable."
        ),
    ]);
    let body = json!({"messages": messages});
    for (model, want) in
        [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)]
    {
        assert_eq!(input(model, Endpoint::ChatCompletions, &body), want, "{model}");
    }
}

#[test]
fn a_text_beyond_all_sense_is_bounded_and_not_counted() {
    let sensible = "word ".repeat(1_000);
    let counter = TokenCounter::estimating("gpt-4");
    assert_eq!(counter.count_text(&sensible), 1_001);
    let long = " ".repeat(COUNTED_BYTES + 1);
    assert_eq!(counter.count_text(&long), COUNTED_BYTES as u64 + 1);
}

#[test]
fn other_inputs_count_what_is_in_them() {
    let count = |endpoint, body: Value| input("gpt-4", endpoint, &body);
    assert_eq!(count(Endpoint::Embeddings, json!({"input": ["hello world", "hello"]})), 3);
    assert_eq!(count(Endpoint::Embeddings, json!({"input": [1, 2, 3]})), 3);
    assert_eq!(count(Endpoint::Completions, json!({"prompt": "hello world"})), 2);
    assert!(count(Endpoint::Responses, json!({"input": "hello", "instructions": "hi"})) >= 2);
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}]});
    assert_eq!(count(Endpoint::ChatCompletions, image), 3 + 3 + 1 + 85 + 8 * 170);
}

#[test]
fn an_input_that_is_hard_to_read_is_not_free() {
    let nest = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#""half \ud83d""#, "1e999", &nest] {
        let message = r#"{"role":"user","content":"hello world"}"#;
        let beside = format!(r#"{{"messages":[{message}],"x":{odd}}}"#);
        let within = format!(r#"{{"messages":[{message},{{"role":"user","content":{odd}}}]}}"#);
        for (body, unboundable) in [(beside, None), (within, Some(Unboundable::Unreadable))] {
            let counted =
                TokenCounter::estimating("gpt-4o").count(Endpoint::ChatCompletions, body.as_bytes());
            assert!(counted.input >= 6, "{odd}: {counted:?}");
            assert_eq!(counted.unboundable, unboundable, "{odd}");
        }
    }
}
