use serde_json::{Value, json};

use super::super::testing::FakeServer;
use super::*;
use crate::domain::catalog::{AzureV1, Dialect, OpenAi, Training};
use crate::domain::tuning::JobStatus;

#[expect(clippy::needless_pass_by_value, reason = "it is written where it is given")]
fn ok(body: Value) -> (u16, &'static str, String) {
    (200, "content-type: application/json\r\n", body.to_string())
}

fn openai() -> Dialect {
    Dialect::OpenAi(OpenAi::default())
}

fn azure() -> Dialect {
    Dialect::AzureV1(AzureV1::default())
}

async fn trainer(dialect: Dialect, answers: Vec<(u16, &'static str, String)>) -> (FakeServer, Trainer) {
    let server = FakeServer::answering(answers).await;
    let trainer = Trainer::new(server.upstream(dialect, Training::default()));
    (server, trainer)
}

fn job(id: &str, training_file: &str, ours: Option<&str>) -> Value {
    json!({"id": id, "status": "running", "training_file": training_file, "metadata": {"tunegate_job": ours}})
}

#[tokio::test]
async fn a_large_file_is_sent_whole_from_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kept");
    let content = b"{\"messages\":[]}\n".repeat(200_000);
    std::fs::write(&path, &content).expect("written");
    let answer = json!({"id": "file-9", "filename": "ftjob-1.jsonl", "status": "uploaded"});
    let (server, trainer) = trainer(openai(), vec![ok(answer)]).await;
    let sent = trainer.upload(&path, content.len() as u64, "ftjob-1.jsonl", "fine-tune").await.expect("sent");
    assert_eq!((&*sent.id, &*sent.filename), ("file-9", "ftjob-1.jsonl"));
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "POST /v1/files");
    assert!(asked.head.contains("authorization: bearer k3y"), "{}", asked.head);
    let found = memchr::memmem::find(&asked.body, &content).expect("all of it");
    let front = String::from_utf8_lossy(&asked.body[..found]).into_owned();
    assert!(front.contains("name=\"purpose\"\r\n\r\nfine-tune\r\n"), "{front}");
    assert!(front.contains("filename=\"ftjob-1.jsonl\""), "{front}");
    let boundary = front.lines().next().expect("a boundary").to_owned();
    assert!(asked.body.ends_with(format!("\r\n{boundary}--\r\n").as_bytes()));

    let gone = trainer.upload(&folder.path().join("x"), 1, "x", "fine-tune").await.expect_err("no file");
    assert!(matches!(gone, TrainerError::File(_)) && !gone.may_have_been_done(), "{gone:?}");
    assert_eq!(server.asked().len(), 1, "nobody was asked");
}

#[tokio::test]
async fn a_job_is_made_read_and_ended() {
    let running = job("ftjob-7", "file-1", Some("ftjob-ours"));
    let ended = json!({"id": "ftjob-7", "status": "cancelled"});
    let (server, trainer) = trainer(openai(), vec![ok(running.clone()), ok(running), ok(ended)]).await;
    let order = JobOrder {
        job_id: "ftjob-ours".into(),
        model: "gpt-4.1-mini".into(),
        training_file: "file-1".into(),
        ..JobOrder::default()
    };
    let made = trainer.create(&order).await.expect("made");
    assert_eq!((&*made.id, made.ours.as_deref()), ("ftjob-7", Some("ftjob-ours")));
    assert_eq!(trainer.job("ftjob-7").await.expect("there").status, JobStatus::Running);
    assert_eq!(trainer.cancel("ftjob-7").await.expect("ended").status, JobStatus::Cancelled);
    let lines: Vec<String> = server.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/fine_tuning/jobs",
            "GET /v1/fine_tuning/jobs/ftjob-7",
            "POST /v1/fine_tuning/jobs/ftjob-7/cancel"
        ]
    );
}

#[tokio::test]
async fn a_job_is_found_again_on_any_page() {
    let page = |jobs: Value, more: bool| ok(json!({"data": jobs, "has_more": more}));
    let others = json!([job("ftjob-9", "file-9", Some("ftjob-other")), job("ftjob-8", "file-1", None)]);
    let ours = json!([job("ftjob-7", "file-1", Some("ftjob-ours"))]);
    let (server, at_openai) = trainer(openai(), vec![page(others.clone(), true), page(ours, false)]).await;
    let found = at_openai.find_job("ftjob-ours", "file-1").await.expect("a list").expect("found");
    assert_eq!(&*found.id, "ftjob-7", "OpenAI's training file may be of many jobs: only our id counts");
    assert_eq!(server.asked()[1].line, "GET /v1/fine_tuning/jobs?limit=100&after=ftjob-8");

    let (_server, at_azure) = trainer(azure(), vec![page(others.clone(), false)]).await;
    let found = at_azure.find_job("ftjob-ours", "file-1").await.expect("a list").expect("found");
    assert_eq!(&*found.id, "ftjob-8", "Azure's is of this job alone");
    let (_server, nobody) = trainer(openai(), vec![page(others, false)]).await;
    assert_eq!(nobody.find_job("ftjob-ours", "file-1").await, Ok(None));
}

#[tokio::test]
async fn a_file_is_found_by_its_name() {
    let list = json!({"data": [{"id": "f1", "filename": "a"}, {"id": "f2", "filename": "b"}]});
    let (_server, trainer) = trainer(openai(), vec![ok(list.clone()), ok(list)]).await;
    assert_eq!(trainer.find_file("b").await.expect("a list").map(|file| file.id), Some("f2".into()));
    assert_eq!(trainer.find_file("c").await, Ok(None));
}

#[tokio::test]
async fn events_are_told_once_and_in_order() {
    let list = |ids: &[i64], more: bool| {
        let event =
            |id: &i64| json!({"id": format!("e{id}"), "created_at": id, "message": "m", "level": "info"});
        ok(json!({"data": ids.iter().map(event).collect::<Vec<_>>(), "has_more": more}))
    };
    let ids =
        |events: Vec<TrainingEvent>| events.into_iter().map(|event| event.id.to_string()).collect::<Vec<_>>();
    // OpenAI's list: the newest first; what is known ends the walk
    let (server, newest_first) = trainer(
        openai(),
        vec![list(&[6, 5], true), list(&[4, 3], true), list(&[6, 5], true), list(&[4, 3], true)],
    )
    .await;
    assert_eq!(ids(newest_first.events("j", Some("e3"), 10).await.expect("events")), ["e4", "e5", "e6"]);
    assert_eq!(server.asked()[1].line, "GET /v1/fine_tuning/jobs/j/events?limit=100&after=e5");
    assert_eq!(ids(newest_first.events("j", Some("e3"), 2).await.expect("events")), ["e4", "e5"]);
    // Azure's: the oldest first
    let (_server, oldest_first) = trainer(azure(), vec![list(&[1, 2], true), list(&[3, 4], false)]).await;
    assert_eq!(ids(oldest_first.events("j", Some("e2"), 10).await.expect("events")), ["e3", "e4"]);
    let (_server, all) = trainer(openai(), vec![list(&[2, 1], false)]).await;
    assert_eq!(ids(all.events("j", None, 10).await.expect("events")), ["e1", "e2"]);
}

#[tokio::test]
async fn each_no_says_what_it_means() {
    let error = |status: u16, headers, code: &str, message: &str| {
        let error =
            json!({"message": message, "type": "invalid_request_error", "param": "model", "code": code});
        (status, headers, json!({ "error": error }).to_string())
    };
    let table = [
        (error(400, "", "invalid_model", "no such model"), false, false, None),
        (error(403, "", "training_not_available", "no more"), false, false, None),
        (error(409, "", "conflict", "busy"), false, true, None),
        (error(429, "retry-after: 7\r\n", "rate_limit_exceeded", "slower"), false, true, Some(7_000)),
        (
            error(429, "retry-after-ms: 70\r\nretry-after: 7\r\n", "rate_limit_exceeded", "slower"),
            false,
            true,
            Some(70),
        ),
        (error(429, "", "insufficient_quota", "pay"), false, false, None),
        (error(503, "", "x", "later"), true, true, None),
        ((502, "", "<html>".to_owned()), true, true, None),
        ((200, "", "<html>".to_owned()), true, true, None),
        ((0, "", String::new()), true, true, None),
    ];
    for (answer, may_be_done, later, wait_ms) in table {
        let shown = format!("{answer:?}");
        let (_server, trainer) = trainer(openai(), vec![answer]).await;
        let error = trainer.create(&JobOrder::default()).await.expect_err(&shown);
        assert_eq!(
            (error.may_have_been_done(), error.may_go_well_later(), error.wait_ms()),
            (may_be_done, later, wait_ms),
            "{shown}: {error:?}"
        );
        assert!(!error.to_string().contains("k3y"), "{error}");
    }
    let (server, away) = trainer(openai(), Vec::new()).await;
    drop(server);
    let error = away.job("j").await.expect_err("nobody there");
    assert!(!error.may_have_been_done() && error.may_go_well_later(), "{error:?}");
}

#[tokio::test]
async fn what_is_not_there_is_no_wrong_path() {
    let not_there = json!({"error": {"message": "No such job", "type": "invalid_request_error"}});
    let wrong_path = json!({"error": {"code": "404", "message": "Resource not found"}});
    let (_server, trainer) =
        trainer(azure(), vec![(404, "", not_there.to_string()), (404, "", wrong_path.to_string())]).await;
    assert_eq!(trainer.job("j").await, Err(TrainerError::NotFound("No such job".to_owned())));
    let error = trainer.job("j").await.expect_err("a wrong version");
    assert!(matches!(&error, TrainerError::Refused(refused) if refused.status == 404), "{error:?}");
}

#[tokio::test]
async fn small_things_are_asked_and_bounded() {
    let table = "step,train_loss\n1,0.5\n";
    let checkpoint =
        |id: &str, step: u64| json!({"id": id, "step_number": step, "fine_tuned_model_checkpoint": "m"});
    let (_server, trainer) = trainer(
        openai(),
        vec![
            (200, "", table.to_owned()),
            (200, "", table.to_owned()),
            ok(json!({"id": "f", "object": "file", "deleted": true})),
            ok(json!({"id": "m", "deleted": false})),
            ok(json!({"results": [{"flagged": true}]})),
            ok(json!({"data": [checkpoint("b", 20), checkpoint("a", 10)], "has_more": false})),
        ],
    )
    .await;
    assert_eq!(trainer.file_content("f", 100).await.expect("content"), table.as_bytes());
    let large = trainer.file_content("f", 10).await.expect_err("too large");
    assert!(matches!(large, TrainerError::Unreadable(_)), "{large:?}");
    assert_eq!(trainer.delete_file("f").await, Ok(()));
    assert!(trainer.delete_model("m").await.is_err());
    assert_eq!(trainer.moderate(&["x"]).await, Ok(vec![true]));
    let steps: Vec<u64> =
        trainer.checkpoints("j").await.expect("a list").into_iter().map(|one| one.step).collect();
    assert_eq!(steps, [10, 20]);
}
