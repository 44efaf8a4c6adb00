//! Evaluations through the door: figures that are known beforehand, `kill -9` in the middle, who pays, and gates.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tunegate::domain::evaluation::general;

use super::{Tuner, at_openai, id, key_of, upload};
use crate::support::gateway::TUNEGATE;
use crate::support::journal::Session;
use crate::support::provider::Trouble;
use crate::support::{
    Answer, Call, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, training_rows,
};

const EVALUATIONS: &str = "/admin/v1/evaluations";
const FILES: &str = "/admin/v1/files";
/// The provider's names of the deployments `old` and `new`.
const OLD: &str = "gpt-4.1-mini-2025-04-14";
const NEW: &str = "gpt-4.1-nano-2025-04-14";
/// The shortest leases there are.
const SHORT_LEASES: &str = "\n[ledger]\nlease_ms = 1000\n";

/// Two models of one deployment each, a route with both, and a judge.
fn setup(provider: &SimulatedProvider) -> Setup {
    at_openai(provider).and(&format!(
        "\n[deployments.old]\nprovider = \"openai\"\nmodel = \"{OLD}\"\n\
         \n[deployments.new]\nprovider = \"openai\"\nmodel = \"{NEW}\"\n\
         \n[deployments.judge]\nprovider = \"openai\"\nmodel = \"gpt-4.1-2025-04-14\"\n\
         \n[models.bot]\ndeployments = [\"old\", \"new\"]\n\
         \n[models.old-bot]\ndeployments = [\"old\"]\n\
         \n[models.new-bot]\ndeployments = [\"new\"]\n\
         \n[models.judge]\ndeployments = [\"judge\"]\n"
    ))
}

/// Ten rows: `Question 3 of ten?` is answered by `Answer 3.`
fn rows() -> Vec<u8> {
    let row = |number: u32| {
        json!({"messages": [
            {"role": "user", "content": format!("Question {number} of ten?")},
            {"role": "assistant", "content": format!("Answer {number}."), "weight": 1},
        ]})
    };
    (0..10).map(|number| format!("{}\n", row(number))).collect::<String>().into_bytes()
}

/// The number of a question.
fn number(asked: &str) -> Option<u32> {
    asked.strip_prefix("Question ")?.split(' ').next()?.parse().ok()
}

/// The old model says 8 of 10 right, to the letter; the new one 7, of which the old one knows 6, and the eighth in other
/// words.
fn says(model: &str, asked: &str) -> Option<String> {
    let number = number(asked)?;
    let right = format!("Answer {number}.");
    Some(match (model, number) {
        (OLD, 0..=7) | (NEW, 2..=8) => right,
        (NEW, 1) => format!("the ANSWER {number}"),
        _ => "I do not know.".to_owned(),
    })
}

#[track_caller]
fn held_out(gateway: &TestGateway) -> String {
    id(&gateway.admin(upload(FILES, &rows())).expect(200).json())
}

#[track_caller]
fn evaluate(gateway: &TestGateway, body: &Value) -> String {
    id(&gateway.admin(Call::post(EVALUATIONS, body)).expect(201).json())
}

#[track_caller]
fn shown(gateway: &TestGateway, id: &str) -> Value {
    gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}"))).expect(200).json()
}

#[track_caller]
fn until(gateway: &TestGateway, id: &str, status: &str) -> Value {
    eventually(&format!("{id} is {status}"), || {
        let shown = shown(gateway, id);
        (shown["status"] == status).then_some(shown)
    })
}

#[track_caller]
fn report(gateway: &TestGateway, id: &str) -> Value {
    until(gateway, id, "succeeded");
    gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/report"))).expect(200).json()
}

/// How often each question of the file was asked of the provider.
fn asked(provider: &SimulatedProvider) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for request in provider.requests() {
        let words = request.json()["messages"][0]["content"].as_str().map(str::to_owned).unwrap_or_default();
        if let Some(number) = number(&words) {
            counts[number as usize] += 1;
        }
    }
    counts
}

#[test]
fn the_figures_are_exact_and_paid_for_like_any_request() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gateway = TestGateway::with(setup(&provider)).start();
    key_of(&gateway, "support", "read");
    let file = held_out(&gateway);
    let body = json!({"file": file, "models": ["old-bot", "new-bot"], "key": "support-read", "keep_answers": true,
        "gate": ["min exact 0.7", "not worse than base by more than 0.05 exact"]});
    let id = evaluate(&gateway, &body);
    let found = report(&gateway, &id);
    let [old, new] = [0, 1].map(|at| found["models"][at].clone());
    for (model, measure, value) in [
        (&old, "exact", 0.8),
        (&old, "token_f1", 0.8),
        (&new, "exact", 0.7),
        (&new, "normalised", 0.7),
        (&new, "contains", 0.8),
        (&new, "token_f1", 0.8),
    ] {
        assert_eq!(model["measures"][measure]["value"], value, "{measure}: {model:#}");
    }
    assert_eq!((&new["deployments"]["new"], &new["failed"]), (&json!(10), &json!(0)));
    let exact = found["comparisons"].as_array().into_iter().flatten().find(|one| one["measure"] == "exact");
    let exact = exact.expect("both have it");
    assert_eq!(
        (&exact["better"], &exact["worse"], &exact["difference"]["value"]),
        (&json!(1), &json!(2), &json!(-0.1))
    );
    let rules: Vec<Value> = found["gate"][0]["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| rule["passed"].clone())
        .collect();
    assert_eq!((&found["gate"][0]["model"], rules), (&json!("new-bot"), vec![json!(true), json!(false)]));

    // what it says that it cost is what the ledger has on the key's team
    let total = found["cost_usd"].as_f64().filter(|total| *total > 0.0).expect("a cost");
    eventually("the same sum in the report of what was spent", || {
        let spent = gateway.admin(Call::get("/admin/v1/spend?by=team")).expect(200).json();
        let of_team = spent["data"].as_array()?.iter().find(|row| row["team"] == "support")?.clone();
        of_team["cost_usd"].as_f64().filter(|spent| (spent - total).abs() < 1e-12)
    });
    let request = provider.last_request().json();
    assert_eq!((&request["temperature"], &request["messages"][0].get("weight")), (&json!(0), &None));

    let markdown = gateway
        .admin(Call::get(&format!("{EVALUATIONS}/{id}/report")).header("accept", "text/markdown"))
        .expect(200)
        .text();
    assert!(
        markdown.contains("| old-bot (base) |") && markdown.contains("new-bot does not pass."),
        "{markdown}"
    );
    let answers = gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/answers?model=1"))).expect(200).json();
    assert_eq!(answers["data"][1]["said"]["text"], "the ANSWER 1", "{answers:#}");
    let audit = gateway.admin(Call::get("/admin/v1/audit?limit=20")).expect(200).text();
    assert!(audit.contains("evaluation.create"), "{audit}");
}

/// Models of a worker beside those of OpenAI: `tiny-old` says what the old one says, `tiny-new` what the new one says.
fn beside_a_worker(provider: &SimulatedProvider) -> Setup {
    provider.knows(|model, asked| match model {
        "tiny-old" => says(OLD, asked),
        "tiny-new" => says(NEW, asked),
        other => says(other, asked),
    });
    let deployment = |name: &str| {
        provider.charges(name, 1_000, 2_000);
        format!(
            "\n[deployments.{name}]\nprovider = \"local\"\nmodel = \"{name}\"\n\
             price = {{ input_per_1m_usd = \"1\", output_per_1m_usd = \"2\" }}\n\
             \n[models.{name}-bot]\ndeployments = [\"{name}\"]\n"
        )
    };
    setup(provider)
        .and(&format!(
            "\n[providers.local]\nkind = \"candle\"\nbase_url = \"{}/v1\"\n\
             api_key = {{ file = \"upstream.key\" }}\n",
            provider.url()
        ))
        .and(&["tiny-old", "tiny-new"].map(deployment).concat())
        .and("\n[models.mixed]\ndeployments = [\"old\", \"tiny-old\"]\n")
}

/// The scores that the provider was asked for.
fn scored(provider: &SimulatedProvider) -> Vec<Value> {
    let all = provider.requests();
    let scores = all.iter().filter(|request| request.path() == "/v1/tunegate/score");
    scores.map(|request| request.json()).collect()
}

#[test]
fn a_worker_s_loss_is_measured_compared_and_paid_and_nobody_else_s_is_made_up() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(beside_a_worker(&provider)).start();
    key_of(&gateway, "support", "read");
    let body = json!({"file": held_out(&gateway), "models": ["tiny-old-bot", "tiny-new-bot", "old-bot"],
        "loss": true, "key": "support-read", "gate": ["max loss 1", "not worse than base by more than 0.1 loss"]});
    let id = evaluate(&gateway, &body);
    let found = report(&gateway, &id);
    assert_eq!(shown(&gateway, &id)["questions"], 50, "thirty answers, twenty losses");
    let [old, new, elsewhere] = [0, 1, 2].map(|at| &found["models"][at]);
    // half a nat of what it would say itself, two of the rest: eight of ten, and seven
    assert_eq!(
        (&old["measures"]["loss"]["value"], &old["measures"]["loss"]["rows"]),
        (&json!(0.8), &json!(10))
    );
    assert_eq!(new["measures"]["loss"]["value"], 0.95);
    let perplexity = old["loss"]["perplexity"]["value"].as_f64().expect("a perplexity");
    assert!((perplexity - 0.8_f64.exp()).abs() < 1e-5, "{old:#}");
    assert_eq!((&old["asked"], &old["failed"]), (&json!(10), &json!(0)), "its answers alone");
    assert_eq!((&elsewhere["loss"]["available"], elsewhere["measures"].get("loss")), (&json!(false), None));
    let compared: Vec<&Value> = found["comparisons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["measure"] == "loss")
        .collect();
    assert_eq!(compared.len(), 1, "{found:#}");
    let (better, worse) = (&compared[0]["better"], &compared[0]["worse"]);
    assert_eq!((better, worse, &compared[0]["difference"]["value"]), (&json!(1), &json!(2), &json!(0.15)));
    let verdict = |at: usize| {
        let rules = found["gate"][at]["rules"].as_array().expect("rules").iter();
        rules.map(|rule| rule["passed"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(verdict(0), [true, false]);
    assert_eq!(verdict(1), [false, false]);
    assert_eq!(found["gate"][1]["rules"][0]["words"], "loss is not available at this provider");

    // six words a row, at a thousand nano-dollars each
    assert_eq!(old["loss"]["cost_usd"], 0.000_06);
    let total = found["cost_usd"].as_f64().expect("a cost");
    eventually("the same sum in the report of what was spent", || {
        let spent = gateway.admin(Call::get("/admin/v1/spend?by=team")).expect(200).json();
        let of_team = spent["data"].as_array()?.iter().find(|row| row["team"] == "support")?.clone();
        of_team["cost_usd"].as_f64().filter(|spent| (spent - total).abs() < 1e-12)
    });
    let asked = scored(&provider);
    assert_eq!(asked.len(), 20);
    assert!(asked.iter().all(|body| body["messages"][1]["role"] == "assistant"), "{asked:?}");
    assert!(
        asked.iter().all(|body| body.get("temperature").is_none() && body["messages"][1]["weight"].is_null())
    );
    let markdown = gateway
        .admin(Call::get(&format!("{EVALUATIONS}/{id}/report")).header("accept", "text/markdown"))
        .expect(200)
        .text();
    assert!(markdown.contains("Loss, old-bot: not available at this provider."), "{markdown}");
    let answers =
        gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/answers?part=loss"))).expect(200).json();
    assert_eq!(answers["data"].as_array().map(Vec::len), Some(20));
    // no client gets there
    for path in ["/v1/tunegate/score", "/v1/score"] {
        gateway.call(Call::post(path, &asked[0])).expect(404);
    }
}

#[test]
fn a_rule_about_loss_asks_for_it_and_rows_with_tools_have_none() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(beside_a_worker(&provider)).start();
    let with_tool = json!({"messages": [{"role": "user", "content": "Question 3 of ten?"},
        {"role": "assistant", "content": "Answer 3."}], "parallel_tool_calls": false,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]});
    let rows = [rows(), format!("{with_tool}\n").into_bytes()].concat();
    let file = id(&gateway.admin(upload(FILES, &rows)).expect(200).json());
    let body = json!({"file": file, "route": "mixed", "models": ["old", "tiny-old"], "gate": ["max loss 2"]});
    let found = report(&gateway, &evaluate(&gateway, &body));
    let [old, tiny] = [0, 1].map(|at| &found["models"][at]);
    assert_eq!((&old["loss"]["available"], &tiny["loss"]["available"]), (&json!(false), &json!(true)));
    assert_eq!(tiny["measures"]["loss"]["rows"], 10, "{tiny:#}");
    assert_eq!(found["gate"][0]["passed"], false, "a row of eleven went unanswered: no tools at a worker");
    assert_eq!(found["gate"][0]["rules"][0]["passed"], true, "{found:#}");
}

#[test]
fn a_server_without_scores_answers_all_else_and_passes_no_rule_about_loss() {
    let of_old_worker = Trouble::openai(404, "invalid_request_error", Some("unknown_url"), "Invalid URL");
    for no in [of_old_worker, Trouble::model_not_found("tiny-old")].map(Reply::trouble) {
        let provider = SimulatedProvider::start();
        let gateway = TestGateway::with(beside_a_worker(&provider)).start();
        // ten answers and a loss come; the other nine losses don't
        for _ in 0..11 {
            provider.replies(Reply::usual());
        }
        provider.always(no);
        let body = json!({"file": held_out(&gateway), "models": ["tiny-old-bot"], "concurrency": 1,
            "gate": ["max loss 9"]});
        let found = report(&gateway, &evaluate(&gateway, &body));
        let loss = &found["models"][0]["loss"];
        assert_eq!((&loss["unmeasured"], &found["models"][0]["failed"]), (&json!(9), &json!(0)), "{found:#}");
        assert_eq!(found["gate"][0]["passed"], false, "{found:#}");
        let words = &found["gate"][0]["rules"][0]["words"];
        assert_eq!(words, "the loss of tiny-old-bot was measured on 1 of 10 rows");
        assert_eq!(scored(&provider).len(), 10, "each was asked once");
        // nobody who asks for an answer feels it
        provider.always(Reply::usual());
        gateway.post("/v1/chat/completions", &chat("tiny-old-bot", "Question 2 of ten?")).expect(200);
    }
}

#[test]
fn deployments_of_a_route_are_asked_each_alone() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gateway = TestGateway::with(setup(&provider)).start();
    let body =
        json!({"file": held_out(&gateway), "route": "bot", "models": ["old", "new"], "rows": 4, "seed": 3});
    let found = report(&gateway, &evaluate(&gateway, &body));
    for (at, deployment) in [(0, "old"), (1, "new")] {
        assert_eq!(found["models"][at]["deployments"], json!({deployment: 4}), "{found:#}");
    }
    assert_eq!((&found["file"]["rows"], &found["file"]["of"]), (&json!(4), &json!(10)));
    let again = report(&gateway, &evaluate(&gateway, &body));
    assert_eq!(
        again["models"][1]["measures"], found["models"][1]["measures"],
        "the same rows by the same seed"
    );
}

#[test]
fn kill_9_in_the_middle_asks_no_answered_row_again() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gate = Gate::new();
    for _ in 0..5 {
        provider.replies(Reply::usual());
    }
    provider.always(Reply::usual().waits_for(&gate));
    let mut gateway = TestGateway::with(setup(&provider).and(SHORT_LEASES)).start();
    let body = json!({"file": held_out(&gateway), "models": ["old-bot"], "concurrency": 1});
    let id = evaluate(&gateway, &body);
    eventually("five answers, and a sixth question at the provider", || {
        (shown(&gateway, &id)["answers"] == 5 && provider.requests().len() == 6).then_some(())
    });
    gateway.kill();
    gate.open();
    provider.always(Reply::usual());
    gateway.start_again();
    let found = report(&gateway, &id);
    // only the one that was on its way is asked once more: nobody knows whether it was answered
    let mut counts = asked(&provider);
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(found["models"][0]["measures"]["exact"]["value"], 0.8);
    assert_eq!(shown(&gateway, &id)["answers"], 10);
}

#[test]
fn a_long_one_holds_up_no_other_and_both_go_on_after_a_kill() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gate = Gate::new();
    provider.always(Reply::usual().waits_for(&gate));
    let mut gateway = TestGateway::with(setup(&provider).and(SHORT_LEASES)).start();
    let body = json!({"file": held_out(&gateway), "models": ["old-bot"], "concurrency": 1});
    let all = [0; 3].map(|_| evaluate(&gateway, &body));
    provider.await_requests(2);
    let mut stand = all.each_ref().map(|id| shown(&gateway, id)["status"].to_string());
    stand.sort();
    assert_eq!(stand, ["\"queued\"", "\"running\"", "\"running\""], "the third waits");
    gateway.kill();
    gate.open();
    provider.always(Reply::usual());
    gateway.start_again();
    for id in &all {
        assert_eq!(report(&gateway, id)["models"][0]["measures"]["exact"]["value"], 0.8);
    }
    let questions: usize = asked(&provider).into_iter().sum();
    assert_eq!(questions, 3 * 10 + 2, "only what was on its way is asked once more");
}

#[test]
fn what_was_forgotten_is_seen() {
    let provider = SimulatedProvider::start();
    provider.knows(|model, asked| {
        let questions = general::questions();
        let question = questions.iter().find(|one| asked.starts_with(&one.question))?;
        let is_japanese = question.language == general::Language::Ja;
        Some(match model == OLD || !is_japanese {
            true => format!("It is {}.", question.accept[0]),
            false => "にゃあ".to_owned(),
        })
    });
    let gateway = TestGateway::with(setup(&provider)).start();
    let body = json!({"general": true, "models": ["old-bot", "new-bot"],
        "gate": ["not worse than base by more than 0.1 general"]});
    let found = report(&gateway, &evaluate(&gateway, &body));
    let [old, new] = [0, 1].map(|at| &found["models"][at]);
    assert_eq!(old["measures"]["general"]["value"], 1.0, "{old:#}");
    assert_eq!((&new["general"]["en"]["value"], &new["general"]["ja"]["value"]), (&json!(1.0), &json!(0.0)));
    assert_eq!(found["gate"][0]["passed"], false, "{found:#}");
}

#[test]
fn a_judge_marks_without_knowing_who_said_what() {
    let provider = SimulatedProvider::start();
    provider.knows(|model, asked| {
        let Ok(shown) = serde_json::from_str::<Value>(asked) else { return says(model, asked) };
        let wanted = &shown["reference"]["text"];
        let answers = shown["answers"].as_object()?;
        let marks = answers
            .iter()
            .map(|(letter, said)| (letter.clone(), json!(if said["text"] == *wanted { 5 } else { 2 })));
        Some(Value::Object(marks.collect()).to_string())
    });
    let gateway = TestGateway::with(setup(&provider)).start();
    let body = json!({"file": held_out(&gateway), "models": ["old-bot", "new-bot"],
        "judge": {"model": "judge", "prompt": "Be strict."}});
    let id = evaluate(&gateway, &body);
    let found = report(&gateway, &id);
    let mark = |at: usize| found["models"][at]["measures"]["judge"]["value"].as_f64().expect("a mark");
    assert!((mark(0) - 4.4).abs() < 1e-9 && (mark(1) - 4.1).abs() < 1e-9, "{found:#}");
    assert_eq!((&found["judge"]["marked"], &found["judge"]["unmarked"]), (&json!(10), &json!(0)));
    let answers = gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/answers"))).expect(200).text();
    assert!(!answers.contains("I do not know"), "no words stay that nobody wants: {answers}");
}

#[test]
fn a_budget_ends_it_and_an_operator_can() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let budget =
        "\n[budgets.support]\nlimit_usd = \"0.000001\"\nwindow = \"total\"\nscope = { team = \"support\" }\n";
    let gateway = TestGateway::with(setup(&provider).and(budget)).start();
    key_of(&gateway, "support", "read");
    let file = held_out(&gateway);
    let id = evaluate(&gateway, &json!({"file": file, "models": ["old-bot"], "team": "support"}));
    let failed = until(&gateway, &id, "failed");
    assert!(failed["why"].as_str().is_some_and(|why| why.contains("budget `support`")), "{failed:#}");
    assert!(provider.requests().is_empty());
    let report = gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/report")));
    report.expect_error(409, "no_report");

    let gate = Gate::new();
    provider.always(Reply::usual().waits_for(&gate));
    let id = evaluate(&gateway, &json!({"file": file, "models": ["old-bot"], "concurrency": 1}));
    provider.await_requests(1);
    let cancel = || gateway.admin(Call::post(&format!("{EVALUATIONS}/{id}/cancel"), &json!({})));
    assert_eq!(cancel().expect(200).json()["cancelling"], true);
    gate.open();
    let ended = until(&gateway, &id, "cancelled");
    assert!(ended["answers"].as_u64().is_some_and(|answers| answers < 10), "{ended:#}");
    cancel().expect_error(409, "evaluation_ended");
}

/// What others hold of a budget comes back; and what is measured is what was asked of whom it was asked of.
#[test]
fn holds_only_delay_it_and_no_budget_changes_what_is_measured() {
    for action in ["refuse", "clamp", "downgrade"] {
        let provider = SimulatedProvider::start();
        provider.knows(says);
        let gate = Gate::new();
        provider.replies(Reply::usual().waits_for(&gate));
        // enough for one question's hold, and for what all of them cost
        let budget = format!(
            "\n[budgets.support]\nlimit_usd = \"0.004\"\nwindow = \"total\"\naction = \"{action}\"\nscope = {{ team = \"support\" }}\n"
        );
        let gateway = TestGateway::with(setup(&provider).and(&budget)).start();
        key_of(&gateway, "support", "read");
        let body = json!({"file": held_out(&gateway), "models": ["bot"], "team": "support", "max_output_tokens": 1000});
        let id = evaluate(&gateway, &body);
        provider.await_requests(1);
        eventually(&format!("{action}: a question that finds no money"), || {
            let asked = gateway.admin(Call::get("/admin/v1/requests")).expect(200).text();
            asked.contains("project_spend_limit_exceeded").then_some(())
        });
        gate.open();
        let found = report(&gateway, &id);
        assert_eq!(found["models"][0]["deployments"], json!({"old": 10}), "{action}: {found:#}");
        assert_eq!((&found["models"][0]["failed"], asked(&provider)), (&json!(0), vec![1; 10]), "{action}");
        for request in provider.requests() {
            let body = request.json();
            assert_eq!(
                (&body["model"], &body["max_completion_tokens"]),
                (&json!(OLD), &json!(1000)),
                "{action}"
            );
        }
    }
}

#[test]
fn one_that_can_t_go_on_ends_or_waits_and_stands_in_nobody_s_way() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let one_by_one = setup(&provider).and("\n[evaluations]\nat_once = 1\n");
    let gateway = TestGateway::with(one_by_one).start();
    let body = json!({"file": held_out(&gateway), "models": ["old-bot"], "concurrency": 1});
    let [first, damaged, last] = [0; 3].map(|_| evaluate(&gateway, &body));
    provider.await_requests(1);
    let spoil = format!("UPDATE evaluations SET plan = 'nonsense' WHERE id = '{damaged}'");
    Session::on(&gateway.database_url()).run(&spoil);
    // the folder of files is away when the last one is begun
    let state = gateway.folder().join("state");
    fs::rename(state.join("files"), state.join("away")).expect("moved");
    gate.open();
    until(&gateway, &first, "succeeded");
    let failed = until(&gateway, &damaged, "failed");
    assert!(failed["why"].as_str().is_some_and(|why| why.contains("can't be read")), "{failed:#}");
    eventually("the last one can't go on", || {
        gateway.log().lines().any(|line| line.contains(&last) && line.contains("right now")).then_some(())
    });
    fs::rename(state.join("away"), state.join("files")).expect("moved");
    report(&gateway, &last);
}

#[test]
fn answers_come_in_pages_and_a_wait_has_an_end() {
    let provider = SimulatedProvider::start();
    provider.knows(says);
    let gateway = TestGateway::with(setup(&provider)).start();
    let id = evaluate(&gateway, &json!({"file": held_out(&gateway), "models": ["old-bot", "new-bot"]}));
    report(&gateway, &id);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway
            .admin(Call::get(&format!("{EVALUATIONS}/{id}/answers?limit=7{after}")))
            .expect(200)
            .json();
        for answer in page["data"].as_array().expect("answers") {
            seen.push((answer["question"].as_u64(), answer["model"].as_u64()));
        }
        assert_eq!(page["has_more"], page["next"].is_string(), "{page}");
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let all: Vec<_> = (0..10).flat_map(|row| [(Some(row), Some(0)), (Some(row), Some(1))]).collect();
    assert_eq!(seen, all);
    let odd = gateway.admin(Call::get(&format!("{EVALUATIONS}/{id}/answers?after=held_out.1")));
    odd.expect_error(400, "invalid_query");

    let tunegate = |line: &str| {
        let mut command = Command::new(TUNEGATE);
        let command = command.args(line.split(' ')).args(["--config", "tunegate.toml"]);
        command.current_dir(gateway.folder()).output().expect("the binary under test starts")
    };
    let listed = tunegate(&format!("evaluations answers {id} --json"));
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(20), "{listed}");
    let gate = Gate::new();
    provider.always(Reply::usual().waits_for(&gate));
    let waited = tunegate("eval --general --models old-bot --wait --timeout 0");
    let told = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert!(!waited.status.success() && told.contains("it goes on"), "{told}");
    provider.always(Reply::usual());
    gate.open();
    eventually("it goes on, and ends", || {
        let list = gateway.admin(Call::get(EVALUATIONS)).expect(200).json();
        (list["data"][0]["status"] == "succeeded").then_some(())
    });
}

#[test]
fn every_mistake_is_told_before_anything_is_asked() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(setup(&provider)).start();
    let body = json!({"file": "file-none", "models": ["old-bot", "nobody"], "judge": {"model": "nobody"}, "team": "nobody"});
    let refused = gateway.admin(Call::post(EVALUATIONS, &body));
    refused.expect_error(422, "invalid_body");
    let paths: Vec<Value> =
        refused.json()["errors"].as_array().into_iter().flatten().map(|one| one["path"].clone()).collect();
    assert_eq!(paths, ["file", "judge.model", "models[1]", "team"], "{}", refused.text());
    let file = id(&gateway.admin(upload(FILES, b"{\"messages\": []}\n")).expect(200).json());
    let refused = gateway.admin(Call::post(EVALUATIONS, &json!({"file": file, "models": ["old-bot"]})));
    assert!(refused.text().contains("line 1"), "{}", refused.text());
    gateway.admin(Call::get(&format!("{EVALUATIONS}/eval_none"))).expect_error(404, "evaluation_not_found");
    assert!(provider.requests().is_empty());
}

#[test]
fn a_gate_stands_before_promotion() {
    let provider = SimulatedProvider::start();
    provider.knows(|model, asked| if model.starts_with("ft:") { says(NEW, asked) } else { says(OLD, asked) });
    let gated =
        |rules: &str| setup(&provider).and(&format!("\n[models.bot.gate]\nrules = [{rules}]\nrows = 10\n"));
    let strict = "\"min exact 0.6\", \"not worse than base by more than 0.05 exact\"";
    let gateway = TestGateway::with(gated(strict)).start();
    let model = {
        let tuner = Tuner::new(&gateway);
        let job = tuner.job(OLD);
        tuner.await_status(&job, "succeeded")["fine_tuned_model"].as_str().expect("a model").to_owned()
    };
    let trained_on = id(&gateway.admin(upload(FILES, &training_rows(10))).expect(200).json());
    let place = format!("/admin/v1/models/{}", model.replace(':', "%3A"));
    let promote = |more: Value| -> Answer {
        let mut body = json!({"route": "bot"});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        gateway.admin(Call::post(&format!("{place}/promote"), &body))
    };
    // a candidate gets no requests of the route
    promote(json!({"to": "candidate"})).expect(200);
    let refused = promote(json!({"to": "canary"})).expect_error(409, "gate_not_passed");
    assert!(refused.to_string().contains("tunegate eval"), "{refused}");

    let file = held_out(&gateway);
    let judge =
        |base: &str| report(&gateway, &evaluate(&gateway, &json!({"file": file, "models": [base, model]})));
    report(&gateway, &evaluate(&gateway, &json!({"file": trained_on, "models": ["bot", model]})));
    let own = promote(json!({"to": "canary"})).expect_error(409, "gate_not_passed");
    assert!(own.to_string().contains("the very file that it was trained on"), "{own}");
    judge("judge");
    let foreign = promote(json!({"to": "canary"})).expect_error(409, "gate_not_passed");
    assert!(foreign.to_string().contains("does not stand there"), "{foreign}");
    let found = judge("bot");
    let worse = promote(json!({"to": "canary"})).expect_error(409, "gate_not_passed");
    assert!(worse.to_string().contains("-0.1 against bot"), "{worse}");
    assert_eq!(found["gate"].as_array().map(Vec::len), Some(1), "the route's own gate: {found:#}");

    gateway.rewrite(&gated("\"min exact 0.6\", \"not worse than base by more than 0.1 exact\""));
    gateway.reload().expect(200);
    let harder =
        promote(json!({"to": "canary", "gate": ["min exact 0.9"]})).expect_error(409, "gate_not_passed");
    assert!(harder.to_string().contains("min exact 0.9"), "{harder}");
    promote(json!({"to": "canary"})).expect(200);
    gateway.post("/v1/chat/completions", &chat("bot", "Question 2 of ten?")).expect(200);
    promote(json!({"to": "production", "gate": ["min exact 0.9"], "force": true})).expect(200);
    let audit = gateway.admin(Call::get("/admin/v1/audit?limit=20")).expect(200).text();
    assert!(audit.contains("forced") && audit.contains("min exact 0.9"), "{audit}");
    let shown = gateway.admin(Call::get(&place)).expect(200).json();
    let evaluations = shown["evaluations"].as_array().expect("evaluations");
    assert_eq!((evaluations.len(), &evaluations[0]["against"]), (3, &json!("bot")), "{shown:#}");
    assert_eq!(evaluations[0]["found"]["measures"]["exact"]["value"], 0.7);
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    for line in [
        "tunegate_gated_promotions_total{result=\"forced\"} 1",
        "tunegate_gated_promotions_total{result=\"passed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}
