//! A team's files, uploads, jobs and models are its own: to another team they do not exist, and a key does no more than
//! its right allows. Every route of the training plane is in one table.

use serde_json::{Value, json};

use super::{FILES, JOBS, Tuner, at_openai, id, key_of, upload};
use crate::support::provider::tuning::{Pace, Status};
use crate::support::{Call, SimulatedProvider, TestGateway, chat, training_rows};

/// What a team has.
struct Belongings {
    file: String,
    upload: String,
    job: String,
    model: String,
}

/// A route that names something, and the least right that it needs.
struct Row {
    right: &'static str,
    method: &'static str,
    path: String,
    body: Option<Value>,
}

fn row(right: &'static str, method: &'static str, path: &str, body: Option<Value>) -> Row {
    Row { right, method, path: path.to_owned(), body }
}

impl Row {
    fn call(&self, prefix: &str) -> Call {
        if self.path.ends_with("/parts") {
            let form = crate::support::multipart::Form::new().file("data", "blob", b"x");
            let call = Call::new(self.method, &format!("{prefix}/{}", self.path));
            return call.body(&form.content_type(), &form.bytes());
        }
        let call = Call::new(self.method, &format!("{prefix}/{}", self.path));
        match &self.body {
            Some(body) => call.body("application/json", body.to_string().as_bytes()),
            None => call,
        }
    }
}

/// Every route that names a thing.
fn routes(of: &Belongings) -> Vec<Row> {
    let Belongings { file, upload, job, model } = of;
    let (file, upload, job) =
        (format!("files/{file}"), format!("uploads/{upload}"), format!("fine_tuning/jobs/{job}"));
    vec![
        row("read", "GET", &file, None),
        row("read", "GET", &format!("{file}/content"), None),
        row("write", "DELETE", &file, None),
        row("write", "POST", &format!("{upload}/parts"), None),
        row("write", "POST", &format!("{upload}/complete"), Some(json!({"part_ids": ["part_x"]}))),
        // right and owner come before what was sent
        row("write", "POST", &format!("{upload}/complete"), Some(json!({"part_ids": 3}))),
        row("write", "POST", &format!("{upload}/cancel"), Some(json!({}))),
        row("read", "GET", &job, None),
        row("read", "GET", &format!("{job}/events"), None),
        row("read", "GET", &format!("{job}/checkpoints"), None),
        row("write", "POST", &format!("{job}/pause"), Some(json!({}))),
        row("write", "POST", &format!("{job}/resume"), Some(json!({}))),
        row("write", "POST", &format!("{job}/cancel"), Some(json!({}))),
        row("delete_models", "DELETE", &format!("models/{}", model.replace(':', "%3A")), None),
    ]
}

/// Those that name nothing, and make or list things.
fn open_routes() -> Vec<Row> {
    let begin =
        json!({"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1, "mime_type": "application/jsonl"});
    vec![
        row("read", "GET", "files", None),
        row("read", "GET", "fine_tuning/jobs", None),
        row("write", "POST", "files", Some(json!({}))),
        row("write", "POST", "uploads", Some(begin)),
        row("write", "POST", "uploads", Some(json!({"filename": 3}))),
        row(
            "write",
            "POST",
            "fine_tuning/jobs",
            Some(json!({"model": "gpt-4.1-mini", "training_file": "file-x"})),
        ),
    ]
}

/// A finished job and its model, a running job, a file and an open upload.
fn furnish(tuner: &Tuner<'_>, provider: &SimulatedProvider) -> Belongings {
    let first = tuner.job("gpt-4.1-mini");
    let model =
        tuner.await_status(&first, "succeeded")["fine_tuned_model"].as_str().expect("a name").to_owned();
    provider.tuning().pace(Pace::Manual);
    let job = tuner.job("gpt-4.1-mini");
    crate::support::eventually("the second job", || (provider.tuning().jobs().len() == 2).then_some(()));
    provider.tuning().until(Status::Running);
    tuner.await_status(&job, "running");
    let begin =
        json!({"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 1, "mime_type": "application/jsonl"});
    let upload = id(&tuner.call(Call::post("/v1/uploads", &begin)).expect(200).json());
    Belongings { file: tuner.file(), upload, job, model }
}

#[test]
fn another_team_finds_nothing_on_any_route() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let belongings = furnish(&tuner, &provider);
    let foreign = key_of(&gateway, "sales", "delete_models");
    let calls = provider.tuning().calls().len();
    for prefix in ["/v1", "", "/openai/v1"] {
        for row in routes(&belongings) {
            let answer = gateway.call(row.call(prefix).bearer(&foreign));
            assert_eq!(answer.status, 404, "{} {prefix}/{}: {}", row.method, row.path, answer.text());
        }
    }
    // no more than for something that never was
    for row in routes(&belongings).iter().filter(|row| row.method == "GET") {
        let theirs = gateway.call(row.call("/v1").bearer(&foreign)).text();
        let never = row.path.replace(&belongings.file, "file-0").replace(&belongings.job, "ftjob-0");
        let nobodys = gateway.call(Call::get(&format!("/v1/{never}")).bearer(&foreign)).text();
        let blind = |text: &str, name: &str| text.replace(name, "ID");
        let theirs = blind(&blind(&theirs, &belongings.file), &belongings.job);
        assert_eq!(theirs, blind(&blind(&nobodys, "file-0"), "ftjob-0"), "{}", row.path);
    }
    for list in [FILES, JOBS] {
        let listed = gateway.call(Call::get(list).bearer(&foreign)).expect(200).json();
        assert_eq!(listed["data"], json!([]), "{list}");
    }
    let order = json!({"model": "gpt-4.1-mini", "training_file": belongings.file});
    let refused = gateway.call(Call::post(JOBS, &order).bearer(&foreign));
    assert!(matches!(refused.status, 400 | 404), "{}: {}", refused.status, refused.text());
    let order = json!({"model": belongings.model, "training_file": id(&gateway
        .call(upload(FILES, &training_rows(10)).bearer(&foreign)).expect(200).json())});
    let refused = gateway.call(Call::post(JOBS, &order).bearer(&foreign));
    assert!(matches!(refused.status, 400 | 404), "{}: {}", refused.status, refused.text());
    let ask = Call::post("/v1/chat/completions", &chat(&belongings.model, "hi"));
    gateway.call(ask.clone().bearer(&foreign)).expect_error(404, "model_not_found");
    let listed = gateway.call(Call::get("/v1/models").bearer(&foreign)).expect(200);
    assert!(!listed.text().contains(&belongings.model), "{}", listed.text());
    tuner.call(ask).expect(200);
    let later = provider.tuning().calls().split_off(calls);
    let polls = later.iter().filter(|call| call.method == "GET").count();
    assert_eq!(later.len(), polls, "the provider was asked to do something: {later:#?}");
    tuner.call(Call::post(&format!("{JOBS}/{}/cancel", belongings.job), &json!({}))).expect(200);
    tuner.await_status(&belongings.job, "cancelled");
}

#[test]
fn a_key_does_no_more_than_its_right() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let belongings = Belongings {
        file: "file-x".to_owned(),
        upload: "upload_x".to_owned(),
        job: "ftjob-x".to_owned(),
        model: "ft:gpt-4.1-mini-2025-04-14:acme::x".to_owned(),
    };
    let rank =
        |right: &str| ["none", "read", "write", "delete_models"].iter().position(|known| *known == right);
    for right in ["none", "read", "write"] {
        let key = key_of(&gateway, "support", right);
        let rows = routes(&belongings).into_iter().chain(open_routes());
        for row in rows {
            let answer = gateway.call(row.call("/v1").bearer(&key));
            let (what, is_allowed) =
                (format!("{right}: {} {}", row.method, row.path), rank(row.right) <= rank(right));
            match is_allowed {
                false => drop(answer.expect_error(403, "tuning_not_allowed")),
                true => assert_ne!(answer.status, 403, "{what}: {}", answer.text()),
            }
        }
    }
    // a key that was made without a word about it
    gateway.get(FILES).expect_error(403, "tuning_not_allowed");
    assert_eq!(provider.tuning().calls().len(), 0);
}

#[test]
fn an_operator_sees_all_teams_and_acts_for_one() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let belongings = furnish(&tuner, &provider);
    for row in routes(&belongings).iter().filter(|row| row.method == "GET") {
        gateway.admin(row.call("/admin/v1")).expect(200);
        gateway.admin(Call::get(&format!("/admin/v1/{}", row.path)).bearer(&tuner.key)).expect(401);
    }
    let made = gateway.admin(upload("/admin/v1/files?team=support", &training_rows(10))).expect(200).json();
    tuner.get(&format!("{FILES}/{}", id(&made)));
    let own = gateway.admin(upload("/admin/v1/files", &training_rows(10))).expect(200).json();
    tuner.call(Call::get(&format!("{FILES}/{}", id(&own)))).expect(404);
    let ids = |list: Value| list["data"].as_array().expect("a list").iter().map(id).collect::<Vec<_>>();
    let all = ids(gateway.admin(Call::get("/admin/v1/files")).expect(200).json());
    assert!(all.contains(&id(&own)) && all.contains(&id(&made)) && all.contains(&belongings.file), "{all:?}");
    let theirs = ids(gateway.admin(Call::get("/admin/v1/files?team=support")).expect(200).json());
    assert!(!theirs.contains(&id(&own)) && theirs.contains(&id(&made)), "{theirs:?}");
    gateway.admin(Call::get("/admin/v1/files?team=nobody")).expect(400);
    let cancel = format!("/admin/v1/fine_tuning/jobs/{}/cancel", belongings.job);
    gateway.admin(Call::post(&cancel, &json!({}))).expect(200);
    tuner.await_status(&belongings.job, "cancelled");
}

#[test]
fn what_an_operator_does_is_in_the_audit_log() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let rows = training_rows(10);
    // what a team does itself is not
    let (file, job) = (tuner.file(), tuner.job("gpt-4.1-mini"));
    let own = id(&gateway.admin(upload("/admin/v1/files", &rows)).expect(200).json());
    gateway.admin(Call::new("DELETE", &format!("/admin/v1/files/{file}"))).expect(200);
    gateway.admin(Call::new("DELETE", "/admin/v1/files/file-none")).expect(404);
    let begin = json!({"filename": "a.jsonl", "purpose": "fine-tune", "bytes": rows.len(),
        "mime_type": "application/jsonl"});
    let begin = Call::post("/admin/v1/uploads?team=support", &begin);
    let begun = id(&gateway.admin(begin.clone()).expect(200).json());
    let form = crate::support::multipart::Form::new().file("data", "blob", &rows);
    let part = Call::new("POST", &format!("/admin/v1/uploads/{begun}/parts"))
        .body(&form.content_type(), &form.bytes());
    let part = id(&gateway.admin(part).expect(200).json());
    let complete = Call::post(&format!("/admin/v1/uploads/{begun}/complete"), &json!({"part_ids": [part]}));
    let whole = gateway.admin(complete).expect(200).json();
    let given_up = id(&gateway.admin(begin).expect(200).json());
    gateway.admin(Call::post(&format!("/admin/v1/uploads/{given_up}/cancel"), &json!({}))).expect(200);
    gateway.admin(Call::post(&format!("/admin/v1/fine_tuning/jobs/{job}/cancel"), &json!({}))).expect(200);

    let log = gateway.admin(Call::get("/admin/v1/audit")).expect(200).json();
    let mut entries: Vec<&Value> = log["data"].as_array().expect("entries").iter().collect();
    entries.retain(|entry| {
        let action = entry["action"].as_str().expect("an action");
        ["file.", "upload.", "job."].iter().any(|noun| action.starts_with(noun))
    });
    entries.reverse();
    let found: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| (entry["action"].as_str().expect("text"), entry["subject"].as_str().expect("text")))
        .collect();
    assert_eq!(
        found,
        [
            ("file.create", own.as_str()),
            ("file.delete", &file),
            ("upload.create", &begun),
            ("upload.complete", &begun),
            ("upload.create", &given_up),
            ("upload.cancel", &given_up),
            ("job.cancel", &job),
        ]
    );
    assert!(entries.iter().all(|entry| entry["actor"] == "admin"));
    assert_eq!(
        (&entries[0]["detail"]["owner"], &entries[0]["detail"]["bytes"]),
        (&json!("operator"), &json!(rows.len()))
    );
    let owner = entries[1]["detail"]["owner"].as_str().expect("whose it was");
    assert!(owner.starts_with("team:"), "{owner}");
    assert_eq!(entries[3]["detail"]["file"], whole["file"]["id"]);
}
