//! Questions that mean the same, compared by the real model in the worker.

use std::path::Path;

use serde_json::{Value, json};

use super::{CHAT, did, keeping, key, question};
use crate::support::{Answer, Call, SimulatedProvider, TestGateway, eventually};

const ASKED: &str = "How do I reset my password?";
const SAME: &str = "How can I reset my password?";
const OTHER: &str = "What does delivery to Norway cost?";

/// A gateway whose worker compares, with the chats in front of a simulated provider.
fn comparing(provider: &SimulatedProvider, semantic: &str) -> TestGateway {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let chat = models.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let embedding = models.join("all-MiniLM-L6-v2");
    assert!(embedding.is_dir(), "no model at {}: run `make model`", embedding.display());
    let worker = format!("model_file = {chat:?}\nembedding_model = {embedding:?}\nthreads = 1");
    // so slow as this machine may be just now
    let setup = keeping(provider, &format!("ttl_s = 60, semantic = {{ {semantic} }}"))
        .and("[cache]\nembed_timeout_ms = 1000\n")
        .worker(&worker);
    let mut gateway = TestGateway::with(setup).start();
    let body = json!({"model": "all-minilm-l6-v2", "input": "ready?"});
    // its first vectors take longer than those behind them
    for _ in 0..3 {
        eventually("the worker compares", || {
            (gateway.post("/v1/embeddings", &body).status == 200).then_some(())
        });
    }
    // the worker writes no bill
    gateway.is_audited();
    gateway
}

fn similarity(answer: &Answer) -> f64 {
    answer.header("x-tunegate-cache-similarity").expect("told").parse().expect("a number")
}

#[test]
fn a_question_that_means_the_same_gets_the_answer() {
    let provider = SimulatedProvider::start();
    let gateway = comparing(&provider, "threshold = 0.9");
    let asked = gateway.post(CHAT, &question(ASKED)).expect(200);
    assert_eq!(did(&asked).0, "miss");
    let same = gateway.post(CHAT, &question(SAME)).expect(200);
    assert_eq!(did(&same).0, "semantic");
    assert_eq!(same.body, asked.body);
    assert!((0.9..1.0).contains(&similarity(&same)), "{}", similarity(&same));
    let outcome = gateway.outcome_of(&same.request_id());
    assert_eq!((&outcome["cache"]["result"], &outcome["usage"]), (&json!("semantic"), &Value::Null));
    assert_eq!(did(&gateway.post(CHAT, &question(OTHER)).expect(200)).0, "miss");
    assert_eq!(did(&gateway.post(CHAT, &question(ASKED)).expect(200)).0, "hit", "word for word");

    // every other part must be equal
    let with = |changes: Value| {
        let mut body = question(SAME);
        for (name, value) in changes.as_object().expect("members") {
            body[name] = value.clone();
        }
        body
    };
    let turn = |role: &str, words: &str| json!({"role": role, "content": words});
    for changes in [
        json!({"messages": [turn("system", "Be brief."), turn("user", SAME)]}),
        json!({"messages": [turn("user", "Hello"), turn("assistant", "Hi"), turn("user", SAME)]}),
        json!({"seed": 7}),
        json!({"max_tokens": 5}),
        json!({"cache": {"namespace": "mine"}}),
    ] {
        let answer = gateway.post(CHAT, &with(changes.clone())).expect(200);
        assert_eq!(did(&answer).0, "miss", "{changes}");
    }
    let other = key(&gateway, &json!({"alias": "other"}));
    let answer = gateway.call(Call::post(CHAT, &question("How could I reset my password?")).bearer(&other));
    assert_eq!(did(&answer.expect(200)).0, "miss", "another tenant");
    let journal = gateway.settled_journal(|journal| journal.0.iter().any(|entry| entry.kind == "cache_hit"));
    assert_eq!(journal.0.iter().filter(|entry| entry.kind == "cache_hit").count(), 2);
}

#[test]
fn in_shadow_it_only_measures() {
    let provider = SimulatedProvider::start();
    let gateway = comparing(&provider, "threshold = 0.9, shadow = true");
    for words in [ASKED, SAME] {
        assert_eq!(did(&gateway.post(CHAT, &question(words)).expect(200)).0, "miss");
    }
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    for line in [
        "tunegate_semantic_lookups_total{model=\"kept\",result=\"shadow\"} 1",
        "tunegate_semantic_lookups_total{model=\"kept\",result=\"empty\"} 1",
        "tunegate_semantic_similarity_count{model=\"kept\"} 1",
        "tunegate_semantic_entries 2",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[test]
fn without_a_worker_in_time_questions_are_asked() {
    let provider = SimulatedProvider::start();
    let gateway = comparing(&provider, "threshold = 0.9");
    let long = format!("{} {ASKED}", "word ".repeat(1_000));
    assert_eq!(did(&gateway.post(CHAT, &question(&long)).expect(200)).0, "miss");
    assert_eq!(
        did(&gateway.post(CHAT, &question(&long)).expect(200)).0,
        "hit",
        "what is equal needs no comparing"
    );
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    assert!(metrics.contains("tunegate_semantic_failures_total{code=\"too_long\"} 1"), "{metrics}");
}
