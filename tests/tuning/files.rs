//! Training files and uploads: by whom they are found, what is refused, and what is left after a kill.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::multipart::Form;
use crate::support::{Answer, Call, Connection, Setup, TestGateway, eventually};

const FILES: &str = "/v1/files";
const UPLOADS: &str = "/v1/uploads";

/// A key, of a team if one is named; `right` as the admin API names it.
#[track_caller]
fn key(gateway: &TestGateway, team: Option<&str>, right: &str) -> String {
    if let Some(team) = team {
        let made = gateway.admin(Call::post("/admin/v1/teams", &json!({"alias": team})));
        assert!(matches!(made.status, 201 | 409), "{}", made.text());
    }
    let alias = format!("{}-{right}", team.unwrap_or("alone"));
    let body = json!({"alias": alias, "team": team, "rights": {"tuning": right}});
    let made = gateway.admin(Call::post("/admin/v1/keys", &body)).expect(201).json();
    made["key"].as_str().expect("shown once").to_owned()
}

fn rows(count: usize) -> Vec<u8> {
    let row = |number| {
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"Number?\"}},\
             {{\"role\":\"assistant\",\"content\":\"It is {number}.\"}}]}}\n"
        )
    };
    (0..count).map(row).collect::<String>().into_bytes()
}

fn form(target: &str, form: &Form) -> Call {
    Call::new("POST", target).body(&form.content_type(), &form.bytes())
}

fn upload(purpose: &str, name: &str, bytes: &[u8]) -> Form {
    Form::new().field("purpose", purpose).file("file", name, bytes)
}

#[track_caller]
fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Everything in the folder of files but empty folders.
pub(super) fn on_disk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for below in fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()) {
        for file in fs::read_dir(below).expect("a folder") {
            found.push(file.expect("an entry").path().display().to_string());
        }
    }
    found
}

#[test]
fn a_file_lives_from_its_upload_to_its_end() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let key = key(&gateway, Some("cats"), "write");
    let call = |call: Call| gateway.call(call.bearer(&key));
    let bytes = rows(10);
    // the articles' purpose and any name; today's purpose, with the file first
    let old = call(form(FILES, &upload("fine_tune", "my data", &bytes))).expect(200);
    let new = Form::new().file("file", "猫.jsonl", &bytes).field("purpose", "fine-tune");
    let new = new.field("expires_after[anchor]", "created_at").field("expires_after[seconds]", "3600");
    let new = call(form(FILES, &new)).expect(200).json();
    assert_eq!(
        (&new["object"], &new["purpose"], &new["status"]),
        (&json!("file"), &json!("fine-tune"), &json!("uploaded"))
    );
    assert_eq!((&new["bytes"], &new["filename"]), (&json!(bytes.len()), &json!("猫.jsonl")));
    let created_at = new["created_at"].as_i64().expect("seconds");
    assert_eq!(new["expires_at"], created_at + 3_600);
    let old = id(&old);
    let shown = eventually("the file is checked", || {
        let shown = call(Call::get(&format!("{FILES}/{old}"))).expect(200).json();
        (shown["status"] == "processed").then_some(shown)
    });
    assert_eq!((&shown["filename"], &shown["expires_at"]), (&json!("my data"), &Value::Null));
    for prefix in ["/v1", "", "/openai/v1", "/openai"] {
        let list =
            call(Call::get(&format!("{prefix}/files?purpose=fine-tune&limit=1&api-version=2024-10-21")));
        let list = list.expect(200).json();
        assert_eq!((&list["has_more"], &list["data"][0]["id"]), (&json!(true), &new["id"]), "{prefix}");
        assert_eq!((&list["first_id"], &list["last_id"]), (&new["id"], &new["id"]));
    }
    let content = call(Call::get(&format!("{FILES}/{old}/content"))).expect(200);
    assert_eq!((&content.body, content.header("content-type")), (&bytes, Some("application/octet-stream")));
    let outcome = gateway.outcome_of(&content.request_id());
    assert_eq!((&outcome["ending"], &outcome["team"]), (&json!("served"), &json!("cats")), "{outcome:#}");
    let report = call(Call::get(&format!("{FILES}/{old}/report"))).expect(200).json();
    assert_eq!(report["report"]["examples"], 10);
    assert_eq!(on_disk(&gateway.folder().join("state/files")).len(), 1, "kept once");
    for id in [old.as_str(), new["id"].as_str().expect("an id")] {
        let gone = call(Call::new("DELETE", &format!("{FILES}/{id}"))).expect(200).json();
        assert_eq!(gone, json!({"id": id, "object": "file", "deleted": true}));
        let unknown = call(Call::get(&format!("{FILES}/{id}"))).expect_error(404, "not_found");
        assert_eq!(unknown["message"], format!("No such File object: {id}"));
    }
    assert_eq!(on_disk(&gateway.folder().join("state/files")).len(), 0);
}

#[test]
fn rights_are_asked_for_and_others_find_nothing() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let (write, read) = (key(&gateway, Some("a"), "write"), key(&gateway, Some("a"), "read"));
    let (none, foreign) = (key(&gateway, Some("a"), "none"), key(&gateway, Some("b"), "delete_models"));
    let call = |call: Call, key: &str| gateway.call(call.bearer(key));
    let sent = form(FILES, &upload("fine-tune", "a.jsonl", &rows(10)));
    let file = id(&call(sent.clone(), &write).expect(200));
    let one = format!("{FILES}/{file}");
    let begun = json!({"filename": "a", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/jsonl"});
    let begun = id(&call(Call::post(UPLOADS, &begun), &write).expect(200));
    let part = form(&format!("{UPLOADS}/{begun}/parts"), &Form::new().file("data", "a", b"abc"));
    let (complete, cancel) = (format!("{UPLOADS}/{begun}/complete"), format!("{UPLOADS}/{begun}/cancel"));
    let reading = [
        Call::get(FILES),
        Call::get(&one),
        Call::get(&format!("{one}/content")),
        Call::get(&format!("{one}/report")),
    ];
    let writing = [
        Call::new("DELETE", &one),
        part,
        Call::post(&complete, &json!({"part_ids": ["part_1"]})),
        Call::new("POST", &cancel),
    ];
    for asked in reading.iter().chain(&writing).chain([&sent]) {
        let refused = call(asked.clone(), &none).expect_error(403, "tuning_not_allowed");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("--tuning")), "{refused}");
    }
    for asked in &reading {
        call(asked.clone(), &read).expect(200);
    }
    for asked in writing.iter().chain([&sent]) {
        let refused = call(asked.clone(), &read).expect_error(403, "tuning_not_allowed");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("tuning = write")), "{refused}");
    }
    for asked in reading.iter().skip(1).chain(&writing) {
        call(asked.clone(), &foreign).expect_error(404, "not_found");
    }
    assert_eq!(call(Call::get(FILES), &foreign).expect(200).json()["data"], json!([]));
    // an operator sees all, and may act for a team
    let all = gateway.admin(Call::get("/admin/v1/files")).expect(200).json();
    assert_eq!((&all["data"][0]["id"], all["data"].as_array().map(Vec::len)), (&json!(file), Some(1)));
    let teams = |team: &str| gateway.admin(Call::get(&format!("/admin/v1/files?team={team}")));
    assert_eq!(teams("b").expect(200).json()["data"], json!([]));
    assert_eq!(teams("a").expect(200).json()["data"][0]["id"], file);
    teams("nobody").expect(400);
    let theirs =
        gateway.admin(form("/admin/v1/files?team=b", &upload("fine-tune", "b", &rows(10)))).expect(200);
    call(Call::get(&format!("{FILES}/{}", id(&theirs))), &foreign).expect(200);
    let keyless = gateway.connect().call(&Call::get(FILES));
    keyless.expect_error(401, "invalid_api_key");
}

#[test]
fn what_is_no_training_file_is_refused_or_kept_with_its_reason() {
    let gateway = TestGateway::with(Setup::bare().and("\n[tuning]\nmax_file_bytes = 100000\n")).start();
    let key = key(&gateway, None, "write");
    let call = |call: Call| gateway.call(call.bearer(&key));
    let data = rows(10);
    let file = || Form::new().file("file", "a", &data);
    for (sent, status, said) in [
        (upload("batch", "a", &data), 400, "it takes 'fine-tune'"),
        (upload("nonsense", "a", &data), 400, "not one of"),
        (file(), 400, "Missing required parameter: 'purpose'"),
        (Form::new().field("purpose", "fine-tune"), 400, "Missing required parameter: 'file'"),
        (file().field("purpose", "fine-tune").field("extra", "x"), 400, "argument supplied: extra"),
        (file().file("file", "b", &data), 400, "more than one file"),
        (upload("fine-tune", "", &data), 400, "has no name"),
        (file().field("purpose", "fine-tune").field("expires_after[seconds]", "9"), 400, "anchor"),
        (upload("fine-tune", "a", &vec![b'x'; 100_001]), 413, "larger than the 100000 bytes"),
        (upload("fine-tune", "a", &vec![b'x'; 1_000_000]), 413, "larger than the 100000 bytes"),
    ] {
        let answer = call(form(FILES, &sent));
        assert_eq!(answer.status, status, "{}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(said), "{message}");
    }
    for (kind, body) in [
        ("application/json", "{}".to_owned()),
        ("multipart/form-data", "--X--".to_owned()),
        (
            "multipart/form-data; boundary=X",
            "--X\r\nContent-Disposition: form-data; name=\"file\"".to_owned(),
        ),
        ("multipart/form-data; boundary=X", "--X\r\n".to_owned() + &"a".repeat(99_000)),
    ] {
        call(Call::new("POST", FILES).body(kind, body.as_bytes())).expect_error(400, "invalid_value");
    }
    for (bytes, said) in
        [(&b""[..], "no rows"), (&b"{\"messages\": [\n"[..], "line 1"), (&b"\xff\xfe\n"[..], "line 1")]
    {
        let file = id(&call(form(FILES, &upload("fine-tune", "a", bytes))).expect(200));
        let shown = eventually("it is checked", || {
            let shown = call(Call::get(&format!("{FILES}/{file}"))).expect(200).json();
            (shown["status"] == "error").then_some(shown)
        });
        assert!(shown["status_details"].as_str().is_some_and(|text| text.contains(said)), "{shown}");
    }
    for (query, param) in
        [("limit=0", "limit"), ("order=up", "order"), ("after=file-x", "after"), ("purpose=x", "purpose")]
    {
        assert_eq!(
            call(Call::get(&format!("{FILES}?{query}"))).expect_error(400, "invalid_value")["param"],
            param
        );
    }
    call(Call::new("PUT", FILES)).expect_error(404, "unsupported_endpoint");
    eventually("only what was kept is on disk", || {
        (on_disk(&gateway.folder().join("state/files")).len() == 3).then_some(())
    });
}

#[test]
fn a_file_comes_in_parts() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let key = key(&gateway, None, "write");
    let call = |call: Call| gateway.call(call.bearer(&key));
    let data = rows(1_000);
    let begin = json!({"filename": "big.jsonl", "purpose": "fine-tune", "bytes": data.len(), "mime_type": "text/jsonl"});
    let upload = call(Call::post(UPLOADS, &begin)).expect(200).json();
    assert_eq!((&upload["object"], &upload["status"]), (&json!("upload"), &json!("pending")));
    let (created_at, expires_at) = (upload["created_at"].as_i64(), upload["expires_at"].as_i64());
    assert_eq!(expires_at.zip(created_at).map(|(end, begin)| end - begin), Some(3_600));
    let at = format!("{UPLOADS}/{}", upload["id"].as_str().expect("an id"));
    let parts: Vec<String> = std::thread::scope(|scope| {
        let send = |bytes: &[u8]| {
            let answer =
                call(form(&format!("{at}/parts"), &Form::new().file("data", "part", bytes))).expect(200);
            assert_eq!(answer.json()["object"], "upload.part");
            id(&answer)
        };
        let sent: Vec<_> = data.chunks(30_000).map(|bytes| scope.spawn(move || send(bytes))).collect();
        sent.into_iter().map(|thread| thread.join().expect("sent")).collect()
    });
    let complete = |ids: &[String]| call(Call::post(&format!("{at}/complete"), &json!({"part_ids": ids})));
    let short = complete(&parts[1..]).expect_error(400, "invalid_value");
    assert_eq!(short["param"], "part_ids");
    let whole = complete(&parts).expect(200).json();
    assert_eq!((&whole["status"], &whole["file"]["filename"]), (&json!("completed"), &json!("big.jsonl")));
    let file = whole["file"]["id"].as_str().expect("a file");
    assert_eq!(call(Call::get(&format!("{FILES}/{file}/content"))).expect(200).body, data);
    call(Call::new("POST", &format!("{at}/cancel"))).expect_error(400, "invalid_value");
    let other = id(&call(Call::post(UPLOADS, &begin)).expect(200));
    let cancelled = call(Call::new("POST", &format!("{UPLOADS}/{other}/cancel"))).expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
}

#[test]
fn a_kill_in_the_middle_of_an_upload_leaves_nothing() {
    let mut gateway = TestGateway::with(Setup::bare()).start();
    let key = key(&gateway, None, "write");
    let folder = gateway.folder().join("state/files");
    let mut connection = gateway.connect();
    connection.write(
        format!(
            "POST {FILES} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: multipart/form-data; \
             boundary=X\r\ncontent-length: 50000000\r\n\r\n--X\r\ncontent-disposition: form-data; name=\"file\"; \
             filename=\"a\"\r\n\r\n"
        )
        .as_bytes(),
    );
    connection.write(&vec![b'x'; 3 << 20]);
    let draft = eventually("something of it is on disk", || {
        let found = on_disk(&folder).pop()?;
        (fs::metadata(&found).ok()?.len() > 1 << 20).then_some(found)
    });
    gateway.kill();
    let old = SystemTime::now() - Duration::from_secs(120);
    fs::File::options().write(true).open(&draft).and_then(|file| file.set_modified(old)).expect("made old");
    gateway.start_again();
    let list = gateway.call(Call::get(FILES).bearer(&key)).expect(200).json();
    assert_eq!(list["data"], json!([]));
    eventually("it is swept", || (!Path::new(&draft).exists()).then_some(()));
}

#[test]
fn a_slow_upload_is_not_cut_off_but_one_that_stalls_is() {
    let limits = "body_read_timeout_ms = 3000\nbody_total_timeout_ms = 3000";
    let gateway = TestGateway::with(Setup::bare().server(limits)).start();
    let key = key(&gateway, None, "write");
    let head = |length: usize| {
        format!(
            "POST {FILES} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: multipart/form-data; \
             boundary=X\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let body = upload("fine-tune", "a", &vec![b'\n'; 8 << 20]).bytes();
    let boundary = upload("", "", b"").content_type();
    let boundary = boundary.split("boundary=").nth(1).expect("a boundary");
    let mut connection = gateway.connect();
    connection.write(head(body.len()).replace("boundary=X", &format!("boundary={boundary}")).as_bytes());
    let began = std::time::Instant::now();
    for piece in body.chunks(1 << 20) {
        connection.write(piece);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(began.elapsed() > Duration::from_millis(3_500), "longer than the limit of a body");
    connection.answer().expect(200);
    let mut stalled: Connection = gateway.connect();
    stalled.write(head(1 << 20).as_bytes());
    stalled.write(b"--X\r\n");
    stalled.answer().expect_error(408, "request_timeout");
}

#[test]
fn two_gateways_have_the_same_files() {
    let Some((server, name)) = crate::money::postgres() else { return };
    let mut gateway = TestGateway::with(Setup::bare().on(&server.url(&name))).start();
    // before the other one starts: it reads keys of others only now and then
    let key = key(&gateway, None, "write");
    let replica = gateway.replica();
    let at = |address, call: Call| Connection::to(address).call(&call.bearer(&key));
    let (one, other) = (gateway.address(), replica.address());
    eventually("the replica knows the key", || (at(other, Call::get(FILES)).status == 200).then_some(()));
    let data = rows(500);
    let sent = form(FILES, &upload("fine-tune", "a", &data));
    let files: Vec<String> = std::thread::scope(|scope| {
        let send = |address| id(&at(address, sent.clone()).expect(200));
        let sent: Vec<_> = [one, other, one, other].map(|address| scope.spawn(move || send(address))).into();
        sent.into_iter().map(|thread| thread.join().expect("sent")).collect()
    });
    assert_eq!(on_disk(&gateway.folder().join("state/files")).len(), 1, "kept once");
    for file in &files {
        let path = format!("{FILES}/{file}");
        eventually("one of the two has checked it", || {
            (at(other, Call::get(&path)).expect(200).json()["status"] == "processed").then_some(())
        });
        assert_eq!(at(other, Call::get(&format!("{path}/content"))).expect(200).body, data);
        at(one, Call::new("DELETE", &path)).expect(200);
        at(other, Call::get(&path)).expect(404);
    }
    assert_eq!(on_disk(&gateway.folder().join("state/files")).len(), 0);
    replica.stop();
}

#[test]
fn a_data_set_is_checked_for_a_model() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let file = id(&gateway.admin(form("/admin/v1/files", &upload("fine-tune", "a", &rows(10)))).expect(200));
    let check = |body: &Value| gateway.admin(Call::post("/admin/v1/datasets/check", body));
    let report = check(&json!({"file": file, "model": "gpt-4o-mini", "epochs": 3})).expect(200).json();
    assert_eq!(
        (&report["examples"], &report["epochs"], &report["error_count"]),
        (&json!(10), &json!(3), &json!(0))
    );
    let wrong = check(&json!({"model": 1, "epochs": 0, "x": 1})).expect(422).json();
    let places: Vec<_> =
        wrong["errors"].as_array().into_iter().flatten().map(|one| one["path"].clone()).collect();
    assert_eq!(places, ["epochs", "file", "model", "x"], "{wrong}");
    check(&json!({"file": "file-x", "model": "gpt-4o"})).expect(404);
}
