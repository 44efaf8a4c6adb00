//! Health, readiness and `/metrics`.

use crate::support::{Call, Connection, Setup, SimulatedProvider, TestGateway, chat, streamed_chat};

#[test]
fn health_needs_no_key_on_either_address() {
    let gateway = TestGateway::with(Setup::bare()).start();
    for address in [gateway.address(), gateway.admin_address()] {
        for path in ["/livez", "/readyz", "/healthz"] {
            Connection::to(address).call(&Call::get(path)).expect(200);
        }
    }
}

fn metrics(gateway: &TestGateway) -> String {
    let answer = gateway.admin(Call::get("/metrics")).expect(200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    answer.text()
}

#[test]
fn metrics_are_well_formed_and_know_only_the_catalogs_names() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    gateway.post("/v1/chat/completions", &chat("support-bot", "hi")).expect(200);
    gateway.post("/v1/chat/completions", &streamed_chat("openai/made-up-by-a-client", "hi")).expect(200);
    gateway.post("/v1/chat/completions", &chat("also-made-up", "hi")).expect_error(404, "model_not_found");
    gateway.outcomes();
    let text = metrics(&gateway);
    assert!(!text.contains("made-up"), "a client can make up labels:\n{text}");
    assert!(!text.contains(gateway.key()));
    assert!(!text.contains("tunegate_worker_up"), "there is no worker:\n{text}");
    let mut samples = std::collections::BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(value.parse::<f64>().is_ok() || value == "+Inf", "{line}");
        assert!(samples.insert(series.to_owned()), "twice: {series}");
        let name = series.split('{').next().unwrap_or_default();
        let ours = ["tunegate_", "gen_ai_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(ours, "a stray name: {name}");
        let documented = ["", "_bucket", "_sum", "_count"].iter().any(|suffix| {
            name.strip_suffix(suffix).is_some_and(|base| text.contains(&format!("# HELP {base} ")))
        });
        assert!(documented, "no help for {name}");
    }
    let counted =
        samples.iter().any(|series| series.contains("support-v3") || series.contains("support-bot"));
    assert!(counted, "no sample names the model or its deployment:\n{text}");
}
