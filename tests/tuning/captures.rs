//! Traffic that is kept to train a successor on: what becomes a row, whose it is, what people say about it, and that no
//! request ever feels it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::key_of;
use crate::support::gateway::TUNEGATE;
use crate::support::journal::Session;
use crate::support::{
    Answer, Call, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, sse, streamed_chat,
};

const CHAT: &str = "/v1/chat/completions";
const FEEDBACK: &str = "/v1/tunegate/feedback";
const CAPTURED: &str = "/admin/v1/datasets/captured";
const FROM_TRAFFIC: &str = "/admin/v1/datasets/from-traffic";

/// The usual catalog, a model `kept` whose traffic is kept as `capture` says, and a stored prompt before its deployment's
/// requests.
fn keeping(provider: &SimulatedProvider, capture: &str) -> Setup {
    provider.charges("acme-free", 0, 0);
    Setup::in_front_of(provider).and(&format!(
        r#"
[deployments.own]
provider = "openai"
model = "acme-free"
price = {{ input_per_1m_usd = "0", output_per_1m_usd = "0" }}
prompt = {{ name = "cat" }}

[models.kept]
deployments = ["own"]
aliases = ["keeper"]
capture = {{ {capture} }}

[models.kept-and-cached]
deployments = ["support-v3"]
cache = {{ any_temperature = true }}
capture = {{ sample = 1.0 }}
"#
    ))
}

#[track_caller]
fn start(provider: &SimulatedProvider, capture: &str) -> TestGateway {
    let gateway = TestGateway::with(keeping(provider, capture)).start();
    let prompt = json!({"name": "cat", "text": "You are a cat.", "label": "production"});
    gateway.admin(Call::post("/admin/v1/prompts", &prompt)).expect(201);
    gateway
}

/// How many exchanges of a model are kept.
#[track_caller]
fn kept(gateway: &TestGateway, model: &str) -> u64 {
    let told = gateway.admin(Call::get(CAPTURED)).expect(200).json();
    let all = told["data"].as_array().expect("a list");
    all.iter().filter(|one| one["model"] == model).map(|one| one["rows"].as_u64().expect("a number")).sum()
}

#[track_caller]
fn await_kept(gateway: &TestGateway, model: &str, rows: u64) {
    eventually(&format!("{rows} rows of {model}"), || (kept(gateway, model) == rows).then_some(()));
}

/// How often answers of a model came to that.
#[track_caller]
fn counted(gateway: &TestGateway, model: &str, result: &str) -> u64 {
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let name = format!("tunegate_captures_total{{model=\"{model}\",result=\"{result}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// It is counted a moment after it is kept.
#[track_caller]
fn await_counted(gateway: &TestGateway, model: &str, result: &str, count: u64) {
    let what = format!("{count} of {model} that are {result}");
    eventually(&what, || (counted(gateway, model, result) == count).then_some(()));
}

/// The rows of a file made of traffic.
#[track_caller]
fn rows(gateway: &TestGateway, order: &Value) -> Vec<Value> {
    let made = gateway.admin(Call::post(FROM_TRAFFIC, order)).expect(200).json();
    let id = made["file"].as_str().expect("an id");
    let content = gateway.admin(Call::get(&format!("/admin/v1/files/{id}/content"))).expect(200).text();
    let rows: Vec<Value> = content.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(made["rows"], rows.len(), "{made}");
    rows
}

fn ask(gateway: &TestGateway, key: &str, words: &str) -> Answer {
    gateway.call(Call::post(CHAT, &chat("kept", words)).bearer(key)).expect(200)
}

#[track_caller]
fn say(gateway: &TestGateway, key: &str, said: &Value) -> Answer {
    gateway.call(Call::post(FEEDBACK, said).bearer(key))
}

/// What the user says in a row.
fn asked(row: &Value) -> &str {
    let messages = row["messages"].as_array().expect("messages");
    messages.iter().rfind(|message| message["role"] == "user").expect("a user")["content"]
        .as_str()
        .expect("a text")
}

#[test]
fn a_route_s_own_answers_become_the_training_file_of_its_successor() {
    let provider = SimulatedProvider::start();
    provider.says("Meow to bob@example.org !");
    let gateway = start(&provider, "sample = 1.0");
    let key = key_of(&gateway, "support", "read");
    let whole = ask(&gateway, &key, "I am ada@example.org");
    let streamed =
        gateway.call(Call::post(CHAT, &streamed_chat("kept", "as a stream")).bearer(&key)).expect(200);
    let mut tools = chat("kept", "with a tool");
    tools["tools"] =
        json!([{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]);
    gateway.call(Call::post(CHAT, &tools).bearer(&key)).expect(200);
    for number in 0..8 {
        ask(&gateway, &key, &format!("question {number}"));
    }
    await_kept(&gateway, "kept", 11);
    await_counted(&gateway, "kept", "kept", 11);
    // by the request's id and by the answer's; the last word counts
    let id = whole.json()["id"].clone();
    say(&gateway, &key, &json!({"id": id, "rating": "down"})).expect(200);
    let up = json!({"request_id": whole.request_id(), "rating": 1, "comment": "mail eve@example.org"});
    let heard = say(&gateway, &key, &up).expect(200).json();
    assert_eq!(
        heard,
        json!({"object": "tunegate.feedback", "request_id": whole.request_id(), "rating": "up", "kept": true})
    );
    let better =
        json!({"request_id": streamed.request_id(), "rating": "down", "correction": "Purr. eve@example.org"});
    say(&gateway, &key, &better).expect(200);

    let all = rows(&gateway, &json!({"route": "kept", "team": "support"}));
    assert_eq!(all.len(), 11);
    let of = |words: &str| {
        all.iter().find(|row| asked(row).contains(words)).unwrap_or_else(|| panic!("no {words}"))
    };
    let said = |content: &str| json!({"role": "assistant", "content": content});
    assert_eq!(
        of("I am")["messages"],
        json!([
            {"role": "system", "content": "You are a cat."},
            {"role": "user", "content": "I am [EMAIL]"},
            said("Meow to [EMAIL] !"),
        ]),
        "with the words that the deployment got, and masked"
    );
    assert_eq!(of("as a stream")["messages"][2], said("Purr. [EMAIL]"), "corrected");
    let called = &of("with a tool");
    assert_eq!(called["messages"][2]["tool_calls"][0]["function"]["name"], "find", "{called}");
    assert_eq!(called["tools"], tools["tools"]);
    for (feedback, want) in [("up", 2), ("not-down", 11), ("corrected", 1)] {
        assert_eq!(rows(&gateway, &json!({"route": "kept", "feedback": feedback})).len(), want, "{feedback}");
    }
    let pairs = rows(&gateway, &json!({"route": "kept", "preference": true}));
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0]["preferred_output"], json!([said("Purr. [EMAIL]")]));
    assert_eq!(pairs[0]["non_preferred_output"], json!([said("Meow to [EMAIL] !")]));
    assert_eq!(rows(&gateway, &json!({"route": "kept", "limit": 3})).len(), 3);
    // the team finds its own file, checked as any other
    let mine = eventually("a checked file", || {
        let files = gateway.call(Call::get("/v1/files").bearer(&key)).expect(200).json();
        files["data"].as_array()?.iter().find(|file| file["status"] == "processed").cloned()
    });
    assert_eq!((&mine["filename"], &mine["purpose"]), (&json!("kept-traffic.jsonl"), &json!("fine-tune")));
    let log = gateway.admin(Call::get("/admin/v1/audit")).expect(200).text();
    assert!(log.contains("capture.export") && !log.contains("Meow"), "{log}");
    // nothing of it is on the disk unmasked, or in the log
    let state = gateway.folder().join("state");
    for file in ["tunegate.db", "tunegate.db-wal"] {
        let bytes = std::fs::read(state.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for name in ["ada@", "bob@", "eve@"] {
            assert!(!text.contains(name), "{name} in {file}");
        }
    }
    let log = gateway.log();
    assert!(!log.contains("Purr") && !log.contains("Meow") && !log.contains("example.org"), "{log}");
}

#[test]
fn only_whole_answers_of_real_calls_are_kept() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0, max_row_bytes = 2000");
    let post = |body: &Value| gateway.post(CHAT, body);
    // cut off by the provider, in the middle, or by the client's own cap
    provider.replies(Reply::usual().resets_after_events(2));
    drop(post(&streamed_chat("kept", "breaks off")));
    let cut = json!({"id": "x", "object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hal"}, "finish_reason": "length"}]});
    provider.replies(Reply::json(200, &cut).billed(1, 1));
    post(&chat("kept", "is cut")).expect(200);
    await_counted(&gateway, "kept", "unfinished", 2);
    post(&chat("kept", &"long ".repeat(400))).expect(200);
    await_counted(&gateway, "kept", "too_large", 1);
    let mut private = chat("kept", "is private");
    private["store"] = false.into();
    post(&private).expect(200);
    await_counted(&gateway, "kept", "opted_out", 1);
    // what comes from the cache was not answered anew; its answer is the first one's
    let answers = ["miss", "hit"].map(|did| {
        let answer = post(&chat("kept-and-cached", "the same")).expect(200);
        assert_eq!(answer.header("x-tunegate-cache"), Some(did));
        answer
    });
    await_kept(&gateway, "kept-and-cached", 1);
    let hear = |said: &Value| gateway.post(FEEDBACK, said).expect(200).json();
    let [paid, hit] = answers;
    let of_hit = hear(&json!({"request_id": hit.request_id(), "rating": "up"}));
    assert_eq!((&of_hit["kept"], &of_hit["request_id"]), (&json!(false), &json!(hit.request_id())));
    let of_answer = hear(&json!({"id": hit.json()["id"], "rating": "up"}));
    assert_eq!((&of_answer["kept"], &of_answer["request_id"]), (&json!(true), &json!(paid.request_id())));
    // a model without `capture` is left alone
    post(&chat("support-bot", "is nobody's business")).expect(200);
    assert_eq!((kept(&gateway, "kept"), kept(&gateway, "support-bot")), (0, 0));
    let error =
        gateway.admin(Call::post(FROM_TRAFFIC, &json!({"route": "kept"}))).expect_error(409, "conflict");
    assert!(error["message"].as_str().is_some_and(|words| words.contains("dataset captured")), "{error}");
}

#[test]
fn a_part_of_the_requests_is_drawn_by_their_ids() {
    const ASKED: usize = 40;
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 0.5");
    let key = key_of(&gateway, "support", "read");
    let mut drawn = BTreeSet::new();
    for number in 0..ASKED {
        let id = ask(&gateway, &key, &format!("question {number}")).request_id();
        // the same draw, made again: it says whether a row is there, or on its way
        if say(&gateway, &key, &json!({"request_id": id, "rating": "up"})).expect(200).json()["kept"] == true
        {
            drawn.insert(format!("question {number}"));
        }
    }
    assert!((5..ASKED - 5).contains(&drawn.len()), "{}", drawn.len());
    await_kept(&gateway, "kept", drawn.len() as u64);
    let found = rows(&gateway, &json!({"route": "kept", "feedback": "up"}));
    assert_eq!(found.iter().map(|row| asked(row).to_owned()).collect::<BTreeSet<_>>(), drawn);
}

#[test]
fn nobody_sees_or_judges_another_team_s_traffic() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0");
    let (ours, colleague) = (key_of(&gateway, "ours", "read"), key_of(&gateway, "ours", "write"));
    let theirs = key_of(&gateway, "theirs", "delete_models");
    let answer = ask(&gateway, &ours, "our secret");
    ask(&gateway, &theirs, "their secret");
    await_kept(&gateway, "kept", 2);
    for id in
        [answer.request_id(), answer.json()["id"].as_str().expect("an id").to_owned(), "req_0".to_owned()]
    {
        say(&gateway, &theirs, &json!({"id": id, "rating": "down"})).expect_error(404, "not_found");
    }
    say(&gateway, &colleague, &json!({"request_id": answer.request_id(), "rating": "up"})).expect(200);
    gateway
        .call(Call::post(FEEDBACK, &json!({})).bearer("sk-tg-nobody"))
        .expect_error(401, "invalid_api_key");
    say(&gateway, &ours, &json!({"rating": "up"})).expect_error(400, "missing_required_parameter");
    let of = |team: &str| rows(&gateway, &json!({"route": "kept", "team": team}));
    let found = of("ours");
    assert_eq!((found.len(), asked(&found[0])), (1, "our secret"));
    let files = gateway.call(Call::get("/v1/files").bearer(&theirs)).expect(200).json();
    assert_eq!(files["data"], json!([]), "the file is the other team's");
    assert_eq!(rows(&gateway, &json!({"route": "kept"})).len(), 2, "the operator's own has both");
    gateway
        .admin(Call::post(FROM_TRAFFIC, &json!({"route": "kept", "team": "nobody"})))
        .expect_error(404, "team_not_found");
    let wrong =
        gateway.admin(Call::post(FROM_TRAFFIC, &json!({"limit": 0, "feedback": "good"}))).expect(422).json();
    assert_eq!(wrong["errors"].as_array().map(Vec::len), Some(3), "{wrong}");
}

#[test]
fn an_operator_does_all_of_it_on_the_command_line() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0");
    let tunegate = |line: &str| {
        let output = Command::new(TUNEGATE)
            .args(line.split(' '))
            .args(["--config", "tunegate.toml"])
            .current_dir(gateway.folder())
            .output()
            .expect("the binary under test starts");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(tunegate("dataset captured").contains("no traffic is kept"));
    for _ in 0..2 {
        ask_plainly(&gateway, "the same");
    }
    await_kept(&gateway, "kept", 2);
    let told = tunegate("dataset captured");
    assert!(told.lines().count() == 2 && told.contains("own"), "{told}");
    let made = tunegate("dataset from-traffic --route kept --deployment own --feedback not-down --dedupe");
    assert!(
        made.contains("kept-traffic.jsonl): 1 rows") && made.contains("1 left out: they repeat"),
        "{made}"
    );
    assert!(
        tunegate("dataset forget --route keeper").starts_with("2 exchanges are gone"),
        "by its alias, too"
    );
    assert_eq!(kept(&gateway, "kept"), 0);
}

#[test]
fn an_evaluation_is_nobody_s_traffic() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0");
    let body = json!({"general": true, "models": ["kept"], "judge": {"model": "kept"}});
    let made = gateway.admin(Call::post("/admin/v1/evaluations", &body)).expect(201).json();
    let place = format!("/admin/v1/evaluations/{}", made["id"].as_str().expect("an id"));
    eventually("its end", || {
        let shown = gateway.admin(Call::get(&place)).expect(200).json();
        (shown["status"] == "succeeded").then_some(())
    });
    ask_plainly(&gateway, "an application's");
    await_kept(&gateway, "kept", 1);
    let found = rows(&gateway, &json!({"route": "kept"}));
    assert_eq!(found.iter().map(asked).collect::<Vec<_>>(), ["an application's"]);
    await_counted(&gateway, "kept", "kept", 1);
}

#[test]
fn what_must_go_is_gone() {
    let provider = SimulatedProvider::start();
    let mut gateway = start(&provider, "sample = 1.0, max_rows = 3");
    let key = key_of(&gateway, "support", "read");
    let mut of_hers = chat("kept", "ottoline asks");
    of_hers["user"] = "ottoline".into();
    gateway.call(Call::post(CHAT, &of_hers).bearer(&key)).expect(200);
    // two names, the first of which counts; one that is longer than what is kept of it
    let (known, long) = ("k".repeat(600), "l".repeat(600));
    let mut of_two = chat("kept", "known by two names");
    (of_two["user"], of_two["safety_identifier"]) = ("other".into(), known.as_str().into());
    gateway.call(Call::post(CHAT, &of_two).bearer(&key)).expect(200);
    let mut of_long = chat("kept", "known by a long name");
    of_long["user"] = long.as_str().into();
    gateway.call(Call::post(CHAT, &of_long).bearer(&key)).expect(200);
    let one = ask(&gateway, &key, "one").request_id();
    for words in ["two", "three", "four", "five"] {
        ask(&gateway, &key, words);
    }
    let erase = |what: &str| {
        let erased = gateway.admin(Call::new("DELETE", &format!("{CAPTURED}?{what}"))).expect(200).json();
        erased["erased"].as_u64().expect("a number")
    };
    // what is on its way goes, too: nothing was waited for
    assert_eq!(erase("user=ottoline"), 1);
    assert_eq!(["other", &known, &long].map(|name| erase(&format!("user={name}"))), [0, 1, 1]);
    assert_eq!(
        (erase("user=ottoline"), erase(&format!("request_id={one}")), erase("team=support&model=none")),
        (0, 1, 0)
    );
    assert_eq!(kept(&gateway, "kept"), 4);
    // all that is said must be true of it: what is empty says nothing, and would take everybody's
    for nobody in ["", "?user=&model=kept", "?user=", "?request_id=&team=support", "?team=&model=kept"] {
        let what = format!("{CAPTURED}{nobody}");
        gateway.admin(Call::new("DELETE", &what)).expect_error(400, "invalid_query");
    }
    assert_eq!(kept(&gateway, "kept"), 4);
    let log = gateway.admin(Call::get("/admin/v1/audit")).expect(200).text();
    assert!(log.contains("capture.erase") && !log.contains("ottoline"), "{log}");
    // a sweep at the start: the oldest of too many, and what is over
    gateway.stop();
    gateway.start_again();
    await_kept(&gateway, "kept", 3);
    let newest = rows(&gateway, &json!({"route": "kept"}));
    assert_eq!(newest.iter().map(asked).collect::<Vec<_>>(), ["five", "four", "three"]);
    gateway.stop();
    Session::on(&gateway.database_url()).run("UPDATE captures SET until_ms = 1 WHERE prompt LIKE '%four%'");
    gateway.start_again();
    await_kept(&gateway, "kept", 2);
    assert_eq!(erase_all(&gateway), 2);
}

#[track_caller]
fn erase_all(gateway: &TestGateway) -> u64 {
    let erased = gateway.admin(Call::new("DELETE", &format!("{CAPTURED}?model=kept"))).expect(200).json();
    erased["erased"].as_u64().expect("a number")
}

#[test]
fn no_request_waits_for_a_database_that_hangs() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0");
    ask_plainly(&gateway, "before");
    await_kept(&gateway, "kept", 1);
    let mut other = Session::on(&gateway.database_url());
    other.run("BEGIN IMMEDIATE");
    let begun = Instant::now();
    for number in 0..50 {
        ask_plainly(&gateway, &format!("while it hangs {number}"));
    }
    let streamed = gateway.post(CHAT, &streamed_chat("kept", "a stream, too")).expect(200);
    assert!(streamed.events().last().is_some_and(sse::Event::is_done));
    let took = begun.elapsed();
    // each would wait for seconds, if any waited for the database
    assert!(took < Duration::from_secs(20), "51 answers took {took:?}");
    other.run("ROLLBACK");
    await_kept(&gateway, "kept", 52);
}

fn ask_plainly(gateway: &TestGateway, words: &str) {
    gateway.post(CHAT, &chat("kept", words)).expect(200);
}

#[test]
fn a_kill_loses_at_most_what_is_on_its_way() {
    let provider = SimulatedProvider::start();
    let mut gateway = start(&provider, "sample = 1.0");
    for number in 0..10 {
        ask_plainly(&gateway, &format!("first {number}"));
    }
    await_kept(&gateway, "kept", 10);
    for number in 0..5 {
        ask_plainly(&gateway, &format!("second {number}"));
    }
    gateway.kill();
    gateway.start_again();
    let after = kept(&gateway, "kept");
    assert!((10..=15).contains(&after), "{after}");
    let found = rows(&gateway, &json!({"route": "kept"}));
    let first = found.iter().filter(|row| asked(row).starts_with("first")).count();
    assert_eq!(
        (found.len() as u64, first),
        (after, 10),
        "each once, and none of those that were written is lost"
    );
    // what costs nothing is booked when there is time: a kill loses some of it
    gateway.is_audited();
}

#[test]
fn a_stop_loses_nothing() {
    let provider = SimulatedProvider::start();
    let mut gateway = start(&provider, "sample = 1.0");
    for number in 0..5 {
        ask_plainly(&gateway, &format!("question {number}"));
    }
    // at once: nothing is waited for
    gateway.signal(libc::SIGTERM);
    assert!(gateway.await_exit().success());
    gateway.start_again();
    assert_eq!(kept(&gateway, "kept"), 5);
}

#[test]
fn a_reload_switches_it_on_and_off() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "sample = 1.0");
    ask_plainly(&gateway, "on");
    await_kept(&gateway, "kept", 1);
    let off = keeping(&provider, "sample = 1.0, deployments = [\"support-v3\"]");
    gateway.rewrite(&off);
    assert_eq!(gateway.reload().expect(200).json()["restart_needed"], json!([]));
    ask_plainly(&gateway, "off: another deployment's are kept");
    gateway.rewrite(&keeping(&provider, "sample = 1.0"));
    gateway.reload().expect(200);
    ask_plainly(&gateway, "on again");
    await_kept(&gateway, "kept", 2);
    let found = rows(&gateway, &json!({"route": "kept"}));
    assert_eq!(found.iter().map(asked).collect::<Vec<_>>(), ["on again", "on"]);
}
