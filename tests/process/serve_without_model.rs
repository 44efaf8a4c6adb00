//! The local worker is wanted, but its model file is not there: the gateway runs all the same, and says what to do.

use crate::support::{Setup, SimulatedProvider, TestGateway, chat};

#[test]
fn the_gateway_serves_what_it_can_and_says_how_to_get_the_model() {
    let provider = SimulatedProvider::start();
    let worker = "enabled = true\nmodel_file = \"no-such-model.gguf\"\nname = \"smollm2-135m\"";
    let gateway = TestGateway::with(Setup::in_front_of(&provider).worker(worker)).start();
    let log = gateway.log();
    assert!(log.contains("no-such-model.gguf"), "the missing file is not named:\n{log}");
    assert!(log.contains("make model"), "the way to get it is not told:\n{log}");
    gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
    let answer = gateway.post("/v1/chat/completions", &chat("smollm2-135m", "hi"));
    assert!(matches!(answer.status, 404 | 502 | 503), "{}: {}", answer.status, answer.text());
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
}
