//! The real `openai` packages, for Python and for Node, against a running gateway. Their tests are in `tests/clients/`;
//! `make setup` installs what they need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::provider::Trouble;
use crate::support::{Setup, SimulatedProvider, TestGateway, eventually};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tool, or nothing when `TUNEGATE_SKIP_CLIENTS` gives a reason to go without.
pub(crate) fn installed(tool: PathBuf) -> Option<PathBuf> {
    if tool.exists() {
        return Some(tool);
    }
    match std::env::var("TUNEGATE_SKIP_CLIENTS") {
        Ok(reason) if !reason.is_empty() => {
            println!("skipped without {}: {reason}", tool.display());
            None
        }
        _ => panic!(
            "{} is missing: `make setup` installs it; TUNEGATE_SKIP_CLIENTS=REASON goes without",
            tool.display()
        ),
    }
}

/// Models whose one answer is an error, so that the clients see each of their error classes.
fn with_troubles(mut setup: Setup, providers: &mut Vec<SimulatedProvider>) -> Setup {
    for (name, trouble) in [
        ("rate-limited", Trouble::rate_limited(1).with_header("x-should-retry", "false")),
        ("too-long", Trouble::bad_request()),
        ("broken", Trouble::server_error().with_header("x-should-retry", "false")),
    ] {
        let provider = SimulatedProvider::start();
        for _ in 0..16 {
            provider.fails(trouble.clone());
        }
        setup =
            setup.model(name, &format!("{}/v1", provider.url()), "api_key = { file = \"upstream.key\" }", "");
        providers.push(provider);
    }
    setup
}

/// Runs a client's test suite with nothing but the two settings that an application changes.
fn run(command: Command) {
    let provider = SimulatedProvider::start();
    let mut others = Vec::new();
    let money = "\n[budgets.ample]\nlimit_usd = \"1000\"\nwindow = \"month\"\n\
                 [models.spent]\ndeployments = [\"support-v3\"]\n\
                 [models.kept]\ndeployments = [\"support-v3\"]\ncache = { ttl_s = 60, tool_calls = true }\n\
                 [budgets.spent]\nlimit_usd = \"0\"\nwindow = \"month\"\nscope = { model = \"spent\" }\n";
    let setup = with_troubles(Setup::in_front_of(&provider), &mut others).and(money);
    let gateway = TestGateway::with(setup).start();
    succeeds(command, &gateway);
    assert!(provider.requests().len() > 5, "the suite asked nothing");
}

/// Runs a client's tests against a gateway.
fn succeeds(command: Command, gateway: &TestGateway) {
    succeeds_with(command, gateway, gateway.key());
}

/// The same with a key of the test's choice.
pub(crate) fn succeeds_with(mut command: Command, gateway: &TestGateway, key: &str) {
    let output = command
        .env("OPENAI_BASE_URL", format!("{}/v1", gateway.url()))
        .env("OPENAI_API_KEY", key)
        .env("AZURE_OPENAI_ENDPOINT", gateway.url())
        .env("AZURE_OPENAI_API_KEY", key)
        .env("OPENAI_API_VERSION", "2024-10-21")
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
}

#[test]
fn openai_for_python() {
    let Some(python) = installed(root().join(".venv/bin/python")) else { return };
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients/python"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    run(command);
}

#[test]
fn openai_for_python_gets_embeddings_of_the_local_worker() {
    let Some(python) = installed(root().join(".venv/bin/python")) else { return };
    let (file, vectors) = (crate::worker::model_file(), crate::worker::embedding_model());
    let worker = format!("model_file = {file:?}\nembedding_model = {vectors:?}\nthreads = 1");
    let mut gateway = TestGateway::with(Setup::bare().worker(&worker)).start();
    let question = serde_json::json!({"model": "all-minilm-l6-v2", "input": "hello"});
    eventually("a vector", || (gateway.post("/v1/embeddings", &question).status == 200).then_some(()));
    let outcome = gateway.last_outcome();
    assert_eq!(
        (&outcome["usage"]["source"], &outcome["usage"]["prompt_tokens"]),
        (&"reported".into(), &1.into())
    );
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients/local"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    succeeds(command, &gateway);
    gateway.signal(libc::SIGTERM);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
}

#[test]
fn openai_for_node() {
    let folder = root().join("tests/clients/node");
    let Some(node) = installed(folder.join("node_modules/.bin/node")) else { return };
    let mut command = Command::new(node);
    command.args(["--test", "--test-concurrency=1"]).current_dir(folder);
    run(command);
}
