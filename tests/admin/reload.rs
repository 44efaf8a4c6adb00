//! Reloads: whole or not at all, and no request in flight notices.

use serde_json::json;

use crate::support::{
    Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, sse, streamed_chat,
};

const PATH: &str = "/v1/chat/completions";

fn with_another_model(setup: &Setup) -> Setup {
    setup.clone().and("[models.newcomer]\ndeployments = [\"support-v3\"]\n")
}

#[test]
fn a_new_model_is_there_after_a_reload_by_the_admin_api() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(setup.clone()).start();
    gateway.post(PATH, &chat("newcomer", "hi")).expect_error(404, "model_not_found");
    gateway.rewrite(&with_another_model(&setup));
    let answer = gateway.reload();
    assert!(matches!(answer.status, 200 | 204), "{}: {}", answer.status, answer.text());
    gateway.post(PATH, &chat("newcomer", "hi")).expect(200);
}

#[test]
fn a_new_model_is_there_after_sighup() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(setup.clone()).start();
    gateway.rewrite(&with_another_model(&setup));
    gateway.signal(libc::SIGHUP);
    eventually("the new model", || (gateway.post(PATH, &chat("newcomer", "hi")).status == 200).then_some(()));
}

#[test]
fn a_mistake_changes_nothing_and_every_mistake_is_named() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(setup.clone()).start();
    let mistakes = with_another_model(&setup).and(
        "[models.lost]\ndeployments = [\"nowhere\"]\n[deployments.orphan]\nprovider = \"nobody\"\nmodel = \"x\"\n",
    );
    gateway.rewrite(&mistakes);
    let answer = gateway.reload();
    assert!(matches!(answer.status, 400 | 409 | 422), "{}: {}", answer.status, answer.text());
    for word in ["nowhere", "nobody"] {
        assert!(answer.text().contains(word), "{word} is not named: {}", answer.text());
    }
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    gateway.post(PATH, &chat("newcomer", "hi")).expect_error(404, "model_not_found");
}

#[test]
fn a_stream_goes_on_while_its_model_is_taken_away() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    gateway.rewrite(&Setup::bare());
    gateway.reload();
    gateway.post(PATH, &chat("support-bot", "hi")).expect_error(404, "model_not_found");
    gate.open();
    let answer = open.finish();
    assert_eq!(sse::spoken(&answer.events()), "Four crates fit on the pallet.");
    assert_eq!(gateway.outcome_of(&answer.request_id())["ending"], json!("served"));
}

#[test]
fn requests_during_many_reloads_all_succeed() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    std::thread::scope(|scope| {
        let gateway = &gateway;
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    for _ in 0..30 {
                        gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
                    }
                })
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            assert!(matches!(gateway.reload().status, 200 | 204));
        }
    });
    assert_eq!(provider.requests().len(), 60);
}

#[test]
fn prompts_are_there_before_the_models_that_name_them() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(with_another_model(&setup)).start();
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..5 {
        std::fs::write(folder.path().join(format!("words-{round}.md")), "Be kind.").expect("written");
        let prompts = setup.clone().and(&format!("[prompts]\nfolder = {:?}\n", folder.path()));
        let prompted =
            with_another_model(&prompts).and(&format!("prompt = {{ name = \"words-{round}\" }}\n"));
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                eventually("the new prompt", || {
                    let answer = gateway.post(PATH, &chat("newcomer", "hi")).expect(200);
                    let put = answer.header("x-tunegate-prompt").map(str::to_owned);
                    (put == Some(format!("words-{round}@1"))).then_some(())
                });
            });
            gateway.rewrite(&prompted);
            match round % 2 {
                0 => drop(gateway.reload().expect(200)),
                _ => gateway.signal(libc::SIGHUP),
            }
            asking.join().expect("no request was refused");
        });
    }
    let log = gateway.log();
    assert!(!log.contains("which is not there"), "{log}");
}

#[test]
fn an_emptied_file_does_not_empty_the_catalog() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    std::fs::write(gateway.folder().join("tunegate.toml"), "").expect("an empty file");
    let answer = gateway.reload();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("is empty"), "{}", answer.text());
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
}
