//! The local worker is wanted, but its model file is not there: the gateway runs all the same, and says what to do.

use crate::support::{Setup, SimulatedProvider, TestGateway, chat, eventually};

#[test]
fn the_gateway_serves_what_it_can_and_says_how_to_get_the_model() {
    let provider = SimulatedProvider::start();
    let worker = "enabled = true\nmodel_file = \"no-such-model.gguf\"\nname = \"smollm2-135m\"";
    let gateway = TestGateway::with(Setup::in_front_of(&provider).worker(worker)).start();
    for words in ["no-such-model.gguf", "make model"] {
        eventually("the missing file by its name, and the way to get it", || {
            gateway.log().contains(words).then_some(())
        });
    }
    gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
    let answer = gateway.post("/v1/chat/completions", &chat("smollm2-135m", "hi"));
    assert!(matches!(answer.status, 404 | 502 | 503), "{}: {}", answer.status, answer.text());
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
}
