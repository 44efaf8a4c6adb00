use super::*;
use crate::domain::catalog::{AzureClassic, AzureV1, OpenAi, Training, TrainingType};
use crate::domain::tuning::{JobStatus, ProviderFileStatus, TrainingEvent};

fn provider(dialect: Dialect, base_path: &str, training_type: Option<TrainingType>) -> Provider {
    let plain = crate::domain::catalog::tests::deployment("d", "m");
    let training = Some(Training { training_type, ..Training::default() });
    Provider { dialect, base_path: base_path.to_owned(), training, ..(*plain.provider).clone() }
}

fn openai() -> Provider {
    let account = OpenAi { organization: Some("org-1".to_owned()), project: None };
    provider(Dialect::OpenAi(account), "/v1", None)
}

fn v1(training_type: Option<TrainingType>) -> Provider {
    provider(Dialect::AzureV1(AzureV1 { api_version: Some("preview".to_owned()) }), "", training_type)
}

fn classic() -> Provider {
    let dialect = AzureClassic { api_version: "2024-10-21".to_owned() };
    provider(Dialect::AzureClassic(dialect), "", None)
}

fn body(outgoing: &Outgoing) -> Value {
    serde_json::from_slice(outgoing.body.as_ref().expect("a body")).expect("JSON")
}

#[test]
fn each_call_has_its_path() {
    let (openai, v1, classic) = (openai(), v1(None), classic());
    let table = [
        (get_job(&openai, "ftjob-1"), "GET /v1/fine_tuning/jobs/ftjob-1"),
        (get_job(&v1, "ftjob-1"), "GET /openai/v1/fine_tuning/jobs/ftjob-1?api-version=preview"),
        (get_job(&classic, "ftjob-1"), "GET /openai/fine_tuning/jobs/ftjob-1?api-version=2024-10-21"),
        (get_job(&openai, "a/../b?c"), "GET /v1/fine_tuning/jobs/a%2F..%2Fb%3Fc"),
        (list_jobs(&openai, None), "GET /v1/fine_tuning/jobs?limit=100"),
        (list_jobs(&openai, Some("x y")), "GET /v1/fine_tuning/jobs?limit=100&after=x%20y"),
        (
            list_jobs(&classic, Some("x")),
            "GET /openai/fine_tuning/jobs?limit=100&after=x&api-version=2024-10-21",
        ),
        (list_events(&openai, "j", Some("e")), "GET /v1/fine_tuning/jobs/j/events?limit=100&after=e"),
        (list_checkpoints(&openai, "j", None), "GET /v1/fine_tuning/jobs/j/checkpoints?limit=100"),
        (act(&openai, "j", Action::Cancel), "POST /v1/fine_tuning/jobs/j/cancel"),
        (act(&v1, "j", Action::Pause), "POST /openai/v1/fine_tuning/jobs/j/pause?api-version=preview"),
        (act(&openai, "j", Action::Resume), "POST /v1/fine_tuning/jobs/j/resume"),
        (list_files(&openai, None), "GET /v1/files?purpose=fine-tune&limit=10000"),
        (list_files(&v1, None), "GET /openai/v1/files?purpose=fine-tune&api-version=preview"),
        (get_file(&openai, "f"), "GET /v1/files/f"),
        (get_content(&openai, "f"), "GET /v1/files/f/content"),
        (delete_file(&openai, "f"), "DELETE /v1/files/f"),
        (get_model(&openai, "ft:gpt-4.1:acme:a/b:x"), "GET /v1/models/ft:gpt-4.1:acme:a%2Fb:x"),
        (delete_model(&openai, "ft:gpt-4.1:acme:a/b:x"), "DELETE /v1/models/ft:gpt-4.1:acme:a%2Fb:x"),
        (moderate(&openai, &["a"]), "POST /v1/moderations"),
    ];
    for (outgoing, want) in table {
        assert_eq!(format!("{} {}", outgoing.method, outgoing.path), want);
        // without a length some servers would wait for a body
        assert_eq!(outgoing.body.is_some(), outgoing.method == Method::POST, "{want}");
    }
    let organization =
        list_jobs(&openai, None).headers.into_iter().find(|(name, _)| name == "openai-organization");
    assert_eq!(organization.expect("sent along").1, "org-1");
    assert_eq!(body(&moderate(&openai, &["a", "b"]))["input"], json!(["a", "b"]));
}

#[test]
fn a_file_is_framed_and_its_name_breaks_nothing() {
    let upload = upload(&openai(), "a\"\r\nx: é.jsonl", "fine-tune", "BOUND");
    assert_eq!(upload.outgoing.path, "/v1/files");
    let content_type = upload.outgoing.headers.iter().find(|(name, _)| *name == header::CONTENT_TYPE);
    assert_eq!(content_type.expect("a type").1, "multipart/form-data; boundary=BOUND");
    let whole = [upload.front.as_ref(), b"{}\n", upload.back.as_ref()].concat();
    let want = "--BOUND\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
                --BOUND\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a___x:__.jsonl\"\r\n\
                content-type: application/octet-stream\r\n\r\n{}\n\r\n--BOUND--\r\n";
    assert_eq!(String::from_utf8(whole).expect("text"), want);
}

fn order() -> JobOrder {
    let json = |value: Value| Some(value);
    JobOrder {
        job_id: "ftjob-ours".into(),
        model: "gpt-4.1-mini".into(),
        training_file: "file-1".into(),
        validation_file: Some("file-2".into()),
        suffix: Some("eu".into()),
        seed: Some(7),
        method: json(json!({
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.1}},
        })),
        hyperparameters: json(json!({"n_epochs": "auto", "prompt_loss_weight": 0.01})),
        integrations: None,
        metadata: json!({"team": "a"}).as_object().cloned().expect("an object"),
        training_type: None,
    }
}

#[test]
fn an_order_is_written_in_each_dialect() {
    let written =
        |provider: &Provider, order: &JobOrder| body(&create(provider, order).expect("words for it"));
    let at_openai = written(&openai(), &order());
    assert_eq!(
        at_openai,
        json!({
            "model": "gpt-4.1-mini", "training_file": "file-1", "validation_file": "file-2", "suffix": "eu", "seed": 7,
            "method": order().method, "hyperparameters": order().hyperparameters,
            "metadata": {"team": "a", "tunegate_job": "ftjob-ours"},
        })
    );
    let plain =
        JobOrder { job_id: "j".into(), model: "m".into(), training_file: "f".into(), ..JobOrder::default() };
    let want = json!({"model": "m", "training_file": "f", "metadata": {"tunegate_job": "j"}});
    assert_eq!(written(&openai(), &plain), want);
    assert_eq!(written(&provider(Dialect::Candle, "/v1", None), &plain), want);

    let at_v1 = written(&v1(Some(TrainingType::DeveloperTier)), &order());
    assert_eq!((&at_v1["trainingType"], &at_v1["method"]), (&json!("developerTier"), &at_openai["method"]));
    assert!(at_v1.get("metadata").is_none(), "Azure keeps none");
    let asked = JobOrder { training_type: Some("globalstandard".into()), ..order() };
    let said = written(&v1(Some(TrainingType::DeveloperTier)), &asked);
    assert_eq!(said["trainingType"], "globalstandard", "the client's word goes first");
    let at_classic = written(&classic(), &order());
    assert_eq!(
        at_classic["hyperparameters"],
        json!({"n_epochs": 3, "learning_rate_multiplier": 0.1, "prompt_loss_weight": 0.01}),
        "numbers only, and the method's before the older ones"
    );
    assert!(at_classic.get("method").is_none() && at_classic.get("trainingType").is_none());
    assert_eq!(written(&classic(), &plain), json!({"model": "m", "training_file": "f"}));
}

#[test]
fn what_the_classic_api_has_no_words_for_is_said() {
    let dpo = JobOrder { method: Some(json!({"type": "dpo", "dpo": {}})), ..order() };
    let wandb = JobOrder { integrations: Some(json!([{"type": "wandb"}])), ..order() };
    for (order, param) in [(dpo, "method"), (wandb, "integrations")] {
        let error = create(&classic(), &order).expect_err(param);
        assert_eq!(error.param, param);
        assert!(error.message.contains("set api = \"v1\""), "{}", error.message);
        create(&v1(None), &order).expect("v1 takes it");
    }
}

/// The job of OpenAI's specification, as it runs.
const RUNNING: &str = r#"{"object":"fine_tuning.job","id":"ftjob-Q1","model":"gpt-4.1-mini-2025-04-14",
    "created_at":1767225600,"finished_at":null,"fine_tuned_model":null,"organization_id":"org-1","status":"running",
    "training_file":"file-9aB","validation_file":null,"result_files":[],"trained_tokens":null,
    "estimated_finish":1767229200,"seed":683058546,
    "hyperparameters":{"n_epochs":3,"batch_size":4,"learning_rate_multiplier":2.0},
    "method":{"type":"supervised","supervised":{"hyperparameters":{"n_epochs":3,"batch_size":4,"learning_rate_multiplier":2.0}}},
    "integrations":[],"metadata":{"tunegate_job":"ftjob-ours"},"error":{"code":null,"message":null,"param":null},
    "user_provided_suffix":"eu","usage_metrics":null,"shared_with_openai":false,"eval_id":null}"#;

#[test]
fn a_job_that_runs_is_read() {
    let job = job(ProviderKind::OpenAi, RUNNING.as_bytes()).expect("a job");
    assert_eq!(
        (&*job.id, job.status, job.ours.as_deref()),
        ("ftjob-Q1", JobStatus::Running, Some("ftjob-ours"))
    );
    assert_eq!((job.created_at, job.finished_at), (Some(1_767_225_600), None));
    assert_eq!((job.estimated_finish, job.seed), (Some(1_767_229_200), Some(683_058_546)));
    assert_eq!((job.epochs, job.batch_size, job.trained_tokens), (Some(3), Some(4), None));
    assert_eq!((job.model, job.error, job.training_file.as_deref()), (None, None, Some("file-9aB")));
    assert_eq!(job.raw["user_provided_suffix"], "eu", "what we don't know is kept");
}

/// A member of a job, and what is read from it.
type Read<'a> = (&'a str, &'a dyn Fn(&crate::domain::tuning::ProviderJob) -> Value, Value);

#[test]
fn every_spelling_of_a_job_is_read() {
    let status = |job: &crate::domain::tuning::ProviderJob| json!(job.status.name());
    let files = |job: &crate::domain::tuning::ProviderJob| {
        json!(job.result_files.iter().map(|id| &**id).collect::<Vec<_>>())
    };
    let epochs = |job: &crate::domain::tuning::ProviderJob| json!(job.epochs);
    let told = |job: &crate::domain::tuning::ProviderJob| json!(job.hyperparameters);
    let tokens = |job: &crate::domain::tuning::ProviderJob| json!(job.trained_tokens);
    let error = |job: &crate::domain::tuning::ProviderJob| {
        json!(job.error.as_ref().map(|error| [&error.code, &error.message, &error.param]))
    };
    let table: &[Read<'_>] = &[
        (r#""status":"notRunning""#, &status, json!("queued")),
        (r#""status":"pending""#, &status, json!("queued")),
        (r#""status":"created""#, &status, json!("queued")),
        (r#""status":"pausing""#, &status, json!("pausing")),
        (r#""status":"reticulating""#, &status, json!("running")),
        (r#""result_files":["file-1","file-2"]"#, &files, json!(["file-1", "file-2"])),
        (r#""result_files":[{"id":"file-1","object":"file"},7,{"x":1}]"#, &files, json!(["file-1"])),
        (r#""result_files":null"#, &files, json!([])),
        (r#""hyperparameters":{"n_epochs":-1}"#, &epochs, Value::Null),
        (r#""hyperparameters":{"n_epochs":-1}"#, &told, json!({"n_epochs": "auto"})),
        (
            r#""hyperparameters":{"n_epochs":"auto","batch_size":null}"#,
            &told,
            json!({"n_epochs": "auto", "batch_size": "auto"}),
        ),
        (r#""hyperparameters":{"n_epochs":4.0}"#, &epochs, json!(4)),
        (r#""hyperparameters":null"#, &told, Value::Null),
        (
            r#""hyperparameters":null,"method":{"type":"dpo","dpo":{"hyperparameters":{"n_epochs":2,"beta":0.1}}}"#,
            &epochs,
            json!(2),
        ),
        (
            r#""hyperparameters":{"n_epochs":1},"method":{"type":"supervised","supervised":{"hyperparameters":{"n_epochs":5}}}"#,
            &epochs,
            json!(5),
        ),
        (r#""method":{"type":"supervised"},"hyperparameters":{"n_epochs":1}"#, &epochs, json!(1)),
        (r#""trained_tokens":1234"#, &tokens, json!(1_234)),
        (r#""trained_tokens":1234.0"#, &tokens, json!(1_234)),
        (r#""trained_tokens":null"#, &tokens, Value::Null),
        (r#""error":null"#, &error, Value::Null),
        (r#""error":{}"#, &error, Value::Null),
        (r#""error":{"code":"","message":""}"#, &error, Value::Null),
        (
            r#""error":{"code":"jsonlValidationFailed","message":"no","target":"training_file"}"#,
            &error,
            json!(["jsonlValidationFailed", "no", "training_file"]),
        ),
        (r#""error":{"code":7,"message":"no"}"#, &error, json!(["7", "no", null])),
    ];
    for (members, read, want) in table {
        let status = if members.contains("\"status\"") { "" } else { ",\"status\":\"running\"" };
        let text = format!(r#"{{"id":"ftjob-1"{status},{members}}}"#);
        let found = job(ProviderKind::OpenAi, text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(read(&found), *want, "{text}");
    }
    for none in
        ["", "[]", "{}", r#"{"id":"x"}"#, r#"{"status":"running"}"#, r#"{"id":"..","status":"running"}"#]
    {
        assert_eq!(job(ProviderKind::OpenAi, none.as_bytes()), None, "{none}");
    }
}

#[test]
fn a_list_goes_on_until_it_says_that_it_does_not() {
    let list = |members: &str| {
        format!(r#"{{"object":"list","data":[{RUNNING},{{"odd":1}},{{"id":"ftjob-0"}}]{members}}}"#)
    };
    for (members, next) in [
        (r#","has_more":true"#, Some("ftjob-0")),
        (r#","has_more":true,"last_id":"z""#, Some("z")),
        (r#","has_more":false,"last_id":"z""#, None),
        ("", None),
    ] {
        let page = jobs(ProviderKind::OpenAi, list(members).as_bytes()).expect("a list");
        assert_eq!((page.items.len(), page.next.as_deref()), (1, next), "{members}");
    }
    let none = jobs(ProviderKind::OpenAi, br#"{"data":[],"has_more":true}"#).expect("a list");
    assert_eq!(none.next, None, "nothing to go on from");
    assert!(
        jobs(ProviderKind::OpenAi, br#"{"data":{}}"#).is_none()
            && jobs(ProviderKind::OpenAi, b"<html>").is_none()
    );
}

#[test]
fn a_file_is_ready_broken_or_neither() {
    use ProviderFileStatus::{Broken, Pending, Ready};
    use ProviderKind::{Azure, OpenAi};
    for (kind, status, want) in [
        (OpenAi, r#""processed""#, Ready),
        (OpenAi, r#""uploaded""#, Ready),
        (OpenAi, "null", Ready),
        (OpenAi, r#""pending""#, Pending),
        (Azure, r#""uploaded""#, Pending),
        (Azure, r#""running""#, Pending),
        (Azure, r#""processed""#, Ready),
        (Azure, r#""error""#, Broken),
        (Azure, r#""deleted""#, Broken),
    ] {
        let text = format!(
            r#"{{"id":"file-1","bytes":null,"filename":"a.jsonl","status":{status},"status_details":"line 3"}}"#
        );
        let found = file(kind, text.as_bytes()).expect("a file");
        assert_eq!((found.status, &*found.filename), (want, "a.jsonl"), "{kind:?} {status}");
        assert_eq!(found.why.as_deref(), (want == Broken).then_some("line 3"), "{kind:?} {status}");
    }
    for (details, why) in [(r#"{"message":"m","code":1}"#, "m"), (r#"{"code":1}"#, r#"{"code":1}"#)] {
        let text = format!(r#"{{"id":"f","status":"error","status_details":{details}}}"#);
        assert_eq!(file(Azure, text.as_bytes()).expect("a file").why.as_deref(), Some(why));
    }
    let listed = files(OpenAi, br#"{"data":[{"id":"f","filename":"x"}],"has_more":false}"#).expect("a list");
    assert_eq!(listed.items.len(), 1);
}

fn event_ids(events: &[TrainingEvent]) -> Vec<&str> {
    events.iter().map(|event| &*event.id).collect()
}

#[test]
fn events_come_oldest_first_whoever_tells_them() {
    let list = |events: &[(&str, i64)]| {
        let events = events
            .iter()
            .map(|(id, at)| json!({"id": id, "created_at": at, "message": "m", "level": "info"}));
        let list = json!({"data": events.collect::<Vec<_>>(), "has_more": false});
        super::events(list.to_string().as_bytes()).expect("a list").items
    };
    use ProviderKind::{Azure, OpenAi};
    for (kind, told, want) in [
        (OpenAi, &[("c", 3), ("b", 2), ("a", 1)][..], ["a", "b", "c"]),
        (OpenAi, &[("c", 2), ("b", 2), ("a", 1)], ["a", "b", "c"]),
        (OpenAi, &[("c", 1), ("b", 1), ("a", 1)], ["a", "b", "c"]),
        (Azure, &[("a", 1), ("b", 2), ("c", 3)], ["a", "b", "c"]),
        (Azure, &[("a", 1), ("b", 1), ("c", 1)], ["a", "b", "c"]),
        (Azure, &[("c", 3), ("b", 2), ("a", 1)], ["a", "b", "c"]),
    ] {
        assert_eq!(event_ids(&in_order(kind, list(told))), want, "{kind:?} {told:?}");
    }
}

#[test]
fn an_event_and_a_checkpoint_have_openais_words() {
    let text = r#"{"data":[
        {"object":"fine_tuning.job.event","id":"ftevent-7","created_at":1767226000,"level":"warning","type":"metrics",
         "message":"Step 3","data":{"step":3,"train_loss":0.1,"validation_mean_token_accuracy":0.9}},
        {"id":"ft-event-8","created_at":1767226001.0,"level":"info","message":"Job started.","data":{}},
        {"id":"e9","level":"fatal","message":null,"data":null}]}"#;
    let events = super::events(text.as_bytes()).expect("a list").items;
    let told: Vec<_> = events.iter().map(|event| (&*event.level, &*event.kind, event.created_at)).collect();
    assert_eq!(
        told,
        [("warn", "metrics", 1_767_226_000), ("info", "message", 1_767_226_001), ("info", "message", 0)]
    );
    assert_eq!(events[0].data, json!({"step": 3, "train_loss": 0.1, "valid_mean_token_accuracy": 0.9}));
    assert_eq!((&events[1].data, &events[2].data), (&json!({}), &Value::Null));

    let text = r#"{"data":[
        {"id":"ftckpt_5","created_at":1767226100,"fine_tuning_job_id":"j","step_number":200,
         "fine_tuned_model_checkpoint":"ft:m:acme:eu:B2xY:ckpt-step-200","metrics":{"step":200,"train_loss":0.31}},
        {"id":"ftchkpt-6","created_at":1,"fine_tuned_model_checkpoint":"m.ft-1:ckpt-step-10",
         "metrics":{"step":10.0,"validation_mean_token_accuracy":0.9}},
        {"id":"x","step_number":1}],"first_id":"ftckpt_5","last_id":"x","has_more":true}"#;
    let page = super::checkpoints(text.as_bytes()).expect("a list");
    let told: Vec<_> = page.items.iter().map(|one| (&*one.id, one.step, &*one.model)).collect();
    assert_eq!(
        told,
        [("ftckpt_5", 200, "ft:m:acme:eu:B2xY:ckpt-step-200"), ("ftchkpt-6", 10, "m.ft-1:ckpt-step-10")]
    );
    assert_eq!(page.items[1].metrics["valid_mean_token_accuracy"], 0.9);
    assert_eq!(page.next.as_deref(), Some("x"));
}

#[test]
fn a_result_file_is_a_plain_table_with_openais_columns() {
    let ours = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,1.52347,0.0,,\n";
    let azure = "step,train_loss,train_mean_token_accuracy,valid_loss,validation_mean_token_accuracy,full_valid_loss,\
                 full_valid_mean_token_accuracy\r\n1,1.5,0.1,,,,\r\n";
    let translated = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss,\
                      full_valid_mean_token_accuracy\r\n1,1.5,0.1,,,,\r\n";
    let coded = {
        use base64::Engine as _;
        let mut text = base64::engine::general_purpose::STANDARD.encode(ours);
        text.insert(20, '\n');
        text
    };
    let jsonl = "{\"messages\":[]}\n";
    for (content, want) in [
        (ours.to_owned(), ours),
        (coded, ours),
        (azure.to_owned(), translated),
        (format!("\u{feff}{ours}"), ours),
        (jsonl.to_owned(), jsonl),
        ("aGVsbG8=".to_owned(), "aGVsbG8="),
        (String::new(), ""),
        ("step,".to_owned(), "step,"),
    ] {
        assert_eq!(result_file(content.clone().into()), Bytes::from(want.to_owned()), "{content}");
    }
}

#[test]
fn judgements_are_about_each_text() {
    let body = br#"{"id":"modr-1","results":[{"flagged":false},{"flagged":true}]}"#;
    assert_eq!(flagged(body, 2), Some(vec![false, true]));
    assert_eq!(flagged(body, 1), None);
    assert_eq!(flagged(br#"{"results":[{}]}"#, 1), None);
}

#[test]
fn a_refusal_keeps_its_words_but_no_key() {
    for (status, body, code, message, param) in [
        (
            400,
            r#"{"error":{"message":"file file-abcdefghijklmnopqrstuvwx is invalid","type":"invalid_request_error","param":"training_file","code":"invalid_training_file"}}"#,
            Some("invalid_training_file"),
            "file file-abcdefghijklmnopqrstuvwx is invalid",
            Some("training_file"),
        ),
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-abc***z.","code":"invalid_api_key"}}"#,
            Some("invalid_api_key"),
            "Incorrect API key provided: ***",
            None,
        ),
        (
            401,
            r#"{"error":{"code":"401","message":"Access denied for 0123456789abcdef0123456789abcdef."}}"#,
            None,
            "Access denied for ***",
            None,
        ),
        (409, r#"{"error":{"code":"conflict","message":"busy"}}"#, Some("conflict"), "busy", None),
        (403, r#"{"statusCode":403,"message":"no"}"#, None, "no", None),
        (502, "<html>", None, "the upstream answered 502 without a message", None),
    ] {
        let said = crate::provider::said(status, body.as_bytes());
        assert_eq!(
            (said.code.as_deref(), &*said.message, said.param.as_deref()),
            (code, message, param),
            "{body}"
        );
    }
}
