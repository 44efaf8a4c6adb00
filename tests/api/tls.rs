//! TLS at the data address (HTTP/1.1 and h2 by ALPN), h2c where it is opted in, and TLS to an upstream with roots of
//! its own. The client is curl, which speaks all of them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Reply, Setup, SimulatedProvider, TestGateway, free_port};

/// A certificate for localhost that is its own root.
fn certified(setup: Setup) -> Setup {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    setup
        .file("tls.crt", &made.cert.pem())
        .file("tls.key", &made.signing_key.serialize_pem())
        .server("tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" }\n")
}

struct Said {
    version: String,
    status: String,
    body: String,
}

/// Asks with curl.
#[track_caller]
fn curl(gateway: &TestGateway, url: &str, options: &[&str], body: &Value) -> Said {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--no-buffer", "--max-time", "20"])
        .args(["--write-out", "\n%{http_version} %{http_code}"])
        .args(options)
        .args(["--header", &format!("Authorization: Bearer {}", gateway.key())])
        .args(["--header", "Content-Type: application/json", "--data", &body.to_string(), url])
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (body, last) = text.rsplit_once('\n').expect("curl's own line");
    let (version, status) = last.split_once(' ').expect("two words");
    Said { version: version.to_owned(), status: status.to_owned(), body: body.to_owned() }
}

fn chat(stream: bool) -> Value {
    json!({"model": "support-bot", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})
}

#[test]
fn a_certificate_brings_both_versions_and_streams_in_each() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(certified(Setup::in_front_of(&provider))).start();
    let url = format!("https://localhost:{}/v1/chat/completions", gateway.address().port());
    let root = gateway.folder().join("tls.crt");
    let root = root.to_str().expect("a plain path");
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let whole = curl(&gateway, &url, &[option, "--cacert", root], &chat(false));
        assert_eq!((&*whole.version, &*whole.status), (version, "200"), "{}", whole.body);
        let answer: Value = serde_json::from_str(&whole.body).expect("JSON");
        assert_eq!(answer["object"], "chat.completion");
        let stream = curl(&gateway, &url, &[option, "--cacert", root], &chat(true));
        assert_eq!((&*stream.version, &*stream.status), (version, "200"));
        assert!(stream.body.trim_end().ends_with("data: [DONE]"), "{}", stream.body);
        let refused =
            curl(&gateway, &url, &[option, "--cacert", root], &json!({"model": "nobody", "messages": [{}]}));
        assert_eq!((&*refused.version, &*refused.status), (version, "404"), "{}", refused.body);
    }
    let big = json!({"model": "support-bot", "messages": [{"role": "user", "content": "x".repeat(100_000)}]});
    let large = curl(&gateway, &url, &["--http2", "--cacert", root], &big);
    assert_eq!(large.status, "200", "{}", large.body);
}

#[test]
fn plain_text_h2_is_spoken_only_where_it_was_opted_in() {
    let provider = SimulatedProvider::start();
    let port = free_port();
    let setup = Setup::in_front_of(&provider).server(&format!("h2c_listen = \"127.0.0.1:{port}\"\n"));
    let gateway = TestGateway::with(setup).start();
    let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
    for stream in [false, true] {
        let said = curl(&gateway, &url, &["--http2-prior-knowledge"], &chat(stream));
        assert_eq!((&*said.version, &*said.status), ("2", "200"), "{}", said.body);
    }
}

#[test]
fn a_break_in_mid_stream_is_told_and_then_resets_the_stream() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(certified(Setup::in_front_of(&provider))).start();
    let url = format!("https://localhost:{}/v1/chat/completions", gateway.address().port());
    let root = gateway.folder().join("tls.crt");
    let broken_h2_stream = Some(92);
    for _ in 0..10 {
        provider.replies(Reply::usual().closes_after_events(3));
        let output = Command::new("curl")
            .args(["--silent", "--no-buffer", "--max-time", "20", "--http2", "--cacert"])
            .arg(&root)
            .args(["--header", &format!("Authorization: Bearer {}", gateway.key())])
            .args(["--header", "Content-Type: application/json", "--data", &chat(true).to_string(), &url])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), broken_h2_stream, "{text}");
        assert!(text.contains("upstream_broke"), "the error event comes first: {text}");
    }
}

#[test]
fn an_upstream_behind_a_private_root_is_reached_by_tls_in_both_versions() {
    let provider = SimulatedProvider::start();
    let far = TestGateway::with(certified(Setup::in_front_of(&provider))).start();
    let root = std::fs::read_to_string(far.folder().join("tls.crt")).expect("the certificate");
    let base = format!("https://localhost:{}/v1", far.address().port());
    let credentials = "api_key = { file = \"far.key\" }";
    let trusted = |http2: bool| format!("{credentials}\nca_file = \"far.crt\"\nhttp2 = {http2}");
    let rename = "model = \"support-bot\"\nprice_model = \"ft:gpt-4.1-mini-2025-04-14\"";
    let setup = Setup::bare()
        .file("far.crt", &root)
        .file("far.key", far.key())
        .model_as("by-h2", &base, &trusted(true), rename)
        .model_as("by-h1", &base, &trusted(false), rename)
        .model_as("distrusted", &base, credentials, rename)
        .watched(&provider);
    let near = TestGateway::with(setup).start();
    for model in ["by-h2", "by-h1"] {
        for stream in [false, true] {
            let body =
                json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
            let answer = near.post("/v1/chat/completions", &body).expect(200);
            assert!(stream || answer.json()["object"] == "chat.completion");
        }
    }
    let body = json!({"model": "distrusted", "messages": [{"role": "user", "content": "Hi"}]});
    near.post("/v1/chat/completions", &body).expect_error(502, "upstream_unreachable");
}
