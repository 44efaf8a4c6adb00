//! `tunegate serve` with its own worker and the real model: one command, and a real answer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::observability::promtool_is_content;
use crate::support::{Call, Setup, TestGateway, eventually, sse};

const PATH: &str = "/v1/chat/completions";
const MODEL: &str = "smollm2-135m";

fn gateway_with(more: &str) -> TestGateway {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = asked.unwrap_or(usual);
    assert!(file.is_file(), "no model at {}: run `make model`", file.display());
    let worker = format!("model_file = {file:?}\nname = \"{MODEL}\"\nthreads = 1\n{more}");
    TestGateway::with(Setup::bare().worker(&worker)).start()
}

fn gateway() -> TestGateway {
    gateway_with("")
}

fn question(model: &str, stream: bool) -> Value {
    let ask = "What is the capital of France?";
    json!({"model": model, "temperature": 0, "stream": stream, "messages": [{"role": "user", "content": ask}]})
}

/// The workers of this gateway: children started in its folder.
fn workers(gateway: &TestGateway) -> Vec<i32> {
    let folder = gateway.folder().canonicalize().expect("a folder");
    let processes = std::fs::read_dir("/proc").expect("proc");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == folder);
        ours && line.split(|byte| *byte == 0).nth(1) == Some(b"worker")
    })
    .collect()
}

#[track_caller]
fn answers(gateway: &TestGateway) -> Value {
    eventually("an answer of the worker", || {
        let answer = gateway.post(PATH, &question(MODEL, false));
        (answer.status == 200).then(|| answer.json())
    })
}

fn end(mut gateway: TestGateway) {
    gateway.signal(libc::SIGTERM);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
    eventually("the end of its worker", || workers(&gateway).is_empty().then_some(()));
}

#[test]
fn a_real_model_answers_whole_and_streamed_and_is_metered_exactly() {
    let gateway = gateway();
    let answer = answers(&gateway);
    assert_eq!(answer["choices"][0]["message"]["content"], "The capital of France is Paris.");
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"]["source"], "reported");
    assert_eq!(outcome["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens"]);
    assert_eq!(outcome["usage"]["completion_tokens"], answer["usage"]["completion_tokens"]);
    let stream = gateway.post(PATH, &question("local/smollm2-135m", true)).expect(200);
    assert_eq!(sse::spoken(&stream.events()), "The capital of France is Paris.");
    end(gateway);
}

#[test]
fn its_machine_costs_by_the_hour() {
    // a microsecond is a nano-dollar
    let gateway = gateway_with("price = { compute_per_hour_usd = \"3.6\" }");
    let answer = answers(&gateway);
    let told = answer["usage"]["tunegate_compute_us"].as_i64().expect("its time");
    assert!(told > 0, "{answer:#}");
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"]["compute_us"], told);
    let mut long = question(MODEL, true);
    long["messages"][0]["content"] = "Write a very long story about a ship.".into();
    let mut open = gateway.open(PATH, &long);
    open.await_events(4);
    let id = open.request_id();
    drop(open);
    let left = gateway.outcome_of(&id);
    assert_eq!((&left["ending"], &left["usage"]["source"]), (&json!("client_gone"), &json!("estimated")));
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 2);
    journal.check();
    gateway.books_agree();
    let [whole, left] = &journal.usages()[..] else { panic!("two of them: {journal:#?}") };
    assert_eq!((whole.cost, i64::try_from(whole.compute_us)), (told, Ok(told)), "{whole:#?}");
    assert!(left.compute_us > 0 && Ok(left.cost) == i64::try_from(left.compute_us), "{left:#?}");
    end(gateway);
}

#[test]
fn a_stream_that_is_left_stops_the_worker_and_is_counted() {
    let gateway = gateway();
    answers(&gateway);
    let mut long = question(MODEL, true);
    long["messages"][0]["content"] = "Write a very long story about a ship.".into();
    long["temperature"] = 1.into();
    let mut open = gateway.open(PATH, &long);
    open.await_events(4);
    drop(open);
    let outcome = eventually("the outcome of the left stream", || {
        gateway.notice_departures();
        Some(gateway.last_outcome()).filter(|outcome| outcome["ending"] == "client_gone")
    });
    assert_eq!(outcome["usage"]["source"], "estimated");
    assert!(outcome["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens >= 3), "{outcome}");
    assert!(
        outcome["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| (10..80).contains(&tokens)),
        "{outcome}"
    );
    end(gateway);
}

#[test]
fn a_worker_that_died_is_started_again() {
    let gateway = gateway();
    answers(&gateway);
    let ready = || gateway.get("/readyz").expect(200).json();
    assert_eq!(ready(), json!({"status": "ok", "checks": {"database": "ok", "worker": "ok"}}));
    let first = workers(&gateway);
    assert_eq!(first.len(), 1);
    // SAFETY: a plain system call on a process that the gateway under test owns.
    unsafe { libc::kill(first[0], libc::SIGKILL) };
    eventually("that it is missed", || (ready()["checks"]["worker"] == "starting").then_some(()));
    let second = eventually("another worker", || {
        Some(workers(&gateway)).filter(|now| now.len() == 1 && *now != first)
    });
    answers(&gateway);
    assert_eq!(workers(&gateway), second);
    assert_eq!(ready()["status"], "ok");
    end(gateway);
}

#[test]
fn an_operator_says_while_it_runs_what_its_machine_costs() {
    let gateway = gateway();
    answers(&gateway);
    // a microsecond is a nano-dollar
    let price = json!({"compute_per_hour_usd": "3.6"}).to_string();
    let path = format!("/admin/v1/prices/candle/{MODEL}");
    let set = gateway.admin(Call::new("PUT", &path).body("application/json", price.as_bytes()));
    assert!(matches!(set.status, 200 | 201), "{}", set.text());
    let answer = gateway.post(PATH, &question(MODEL, false)).expect(200);
    let computed = answer.json()["usage"]["tunegate_compute_us"].as_i64().expect("microseconds");
    let journal = gateway.settled_journal(|journal| journal.usages().iter().any(|usage| usage.cost > 0));
    let usage = journal.usages().into_iter().find(|usage| usage.cost > 0).expect("it costs something");
    assert_eq!((usage.cost, usage.source.as_str()), (computed, "reported"));
    end(gateway);
}

/// The gateway's metrics, once the worker is in them.
#[track_caller]
fn metrics_with_worker(gateway: &TestGateway) -> String {
    eventually("the worker in the metrics", || {
        let text = gateway.admin(Call::get("/metrics")).expect(200).text();
        text.contains("\ntunegate_worker_up 1\n").then_some(text)
    })
}

#[test]
fn its_metrics_are_in_the_gateways_while_it_lives() {
    let gateway = gateway();
    answers(&gateway);
    let text = metrics_with_worker(&gateway);
    let mut families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    families.sort_unstable();
    assert!(families.windows(2).all(|pair| pair[0] != pair[1]), "twice: {families:?}");
    let theirs =
        |family: &&&str| family.starts_with("gen_ai_server_") || family.starts_with("tunegate_worker_");
    assert_eq!(families.iter().filter(theirs).count(), 28, "docs/METRICS.md, \"The worker\": {families:?}");
    let labels = "{error_type=\"\",gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"candle\",\
                  gen_ai_request_model=\"smollm2-135m\"}";
    let count = format!("\ngen_ai_server_request_duration_seconds_count{labels} 1\n");
    assert!(text.contains(&count), "{text}");
    assert!(text.contains("\ntunegate_worker_starts_total 1\n"), "{text}");
    promtool_is_content(&text);

    let worker = workers(&gateway)[0];
    // SAFETY: a plain system call on a process that the gateway under test owns.
    unsafe { libc::kill(worker, libc::SIGSTOP) };
    let asked = std::time::Instant::now();
    let stuck = gateway.admin(Call::get("/metrics")).expect(200).text();
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(stuck.contains("\ntunegate_worker_up 0\n") && !stuck.contains("gen_ai_server_"), "{stuck}");
    // SAFETY: as above.
    unsafe { libc::kill(worker, libc::SIGKILL) };
    let killed = gateway.admin(Call::get("/metrics")).expect(200).text();
    let gone = ["tunegate_worker_up 0", "tunegate_worker_starts_total 2"];
    assert!(killed.lines().any(|line| gone.contains(&line)), "{killed}");
    let again = metrics_with_worker(&gateway);
    assert!(again.contains("\ntunegate_worker_starts_total 2\n"), "{again}");
    assert!(again.contains(&count.replace("} 1", "} 0")), "another process, from 0:\n{again}");
    end(gateway);
}

#[test]
fn an_upgrade_hands_the_one_worker_over() {
    let mut gateway = gateway();
    answers(&gateway);
    let before = workers(&gateway);
    let mut old = gateway.upgrade();
    let status = eventually("the end of the old process", || {
        assert!(workers(&gateway).len() <= 1, "never two");
        old.has_ended()
    });
    assert!(status.success(), "{status}:\n{}", old.log());
    answers(&gateway);
    assert_eq!(workers(&gateway), before, "the same worker:\n{}", gateway.log());
    end(gateway);
}
