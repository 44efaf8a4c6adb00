use std::sync::Arc;

use super::*;
use crate::domain::catalog::{Address, AzureClassic, AzureV1, Credential, OpenAi};
use crate::domain::secret::Secret;

fn provider(dialect: Dialect, base_path: &str) -> Provider {
    Provider {
        name: Arc::from("p"),
        dialect,
        address: Address::Host { host: "h".into(), port: 443, tls: true },
        base_path: base_path.into(),
        authority: "h".into(),
        credential: Credential::None,
        ca_file: None,
        http2: true,
        training: None,
    }
}

fn deployment(dialect: Dialect, base_path: &str, model: &str) -> Deployment {
    let provider = Arc::new(provider(dialect, base_path));
    Deployment { provider, ..(*crate::domain::catalog::tests::deployment("d", model)).clone() }
}

fn request(endpoint: Endpoint, stream: bool) -> InferenceRequest {
    let body = format!(r#"{{"model":"bot","messages":[1],"prompt":"x","input":"x","stream":{stream}}}"#);
    InferenceRequest::parse(endpoint, body.into(), None).expect("right")
}

#[test]
fn each_dialect_has_its_paths_and_keys() {
    use Endpoint::{ChatCompletions, Embeddings, Responses};
    let openai = Dialect::OpenAi(OpenAi { organization: Some("org-1".into()), project: None });
    let v1 = Dialect::AzureV1(AzureV1 { api_version: None });
    let preview = Dialect::AzureV1(AzureV1 { api_version: Some("preview".into()) });
    let classic = Dialect::AzureClassic(AzureClassic { api_version: "2024-10-21".into() });
    let table = [
        (openai.clone(), "/v1", ChatCompletions, "/v1/chat/completions", "authorization"),
        (Dialect::Candle, "/v1", ChatCompletions, "/v1/chat/completions", "authorization"),
        (v1, "", ChatCompletions, "/openai/v1/chat/completions", "api-key"),
        (preview, "", Responses, "/openai/v1/responses?api-version=preview", "api-key"),
        (
            classic.clone(),
            "",
            Embeddings,
            "/openai/deployments/my%20dep/embeddings?api-version=2024-10-21",
            "api-key",
        ),
        (classic, "/gw", Responses, "/gw/openai/responses?api-version=2024-10-21", "api-key"),
    ];
    for (dialect, base, endpoint, path, header) in table {
        let deployment = deployment(dialect, base, "my dep");
        let provider = &deployment.provider;
        let out = inference(&deployment, &request(endpoint, false), "my dep", None, CapNamed::ByClient);
        assert_eq!(out.path, path);
        let body: serde_json::Value = serde_json::from_slice(&out.body.expect("a body")).expect("JSON");
        assert_eq!(body["model"], "my dep");
        let key = Authorization::ApiKey(Secret::new("k"));
        let (name, value) = authorize(provider, &key).expect("a header");
        assert_eq!(name, header);
        assert_eq!(value, if header == "api-key" { "k" } else { "Bearer k" });
        let (name, value) = authorize(provider, &Authorization::Bearer(Secret::new("t"))).expect("a header");
        assert_eq!((name.as_str(), value.to_str().ok()), ("authorization", Some("Bearer t")));
    }
    let headers = inference(
        &deployment(openai, "/v1", "m"),
        &request(ChatCompletions, false),
        "m",
        None,
        CapNamed::ByClient,
    )
    .headers;
    assert_eq!(headers[0].0, "openai-organization");
}

#[test]
fn usage_is_asked_for_where_the_dialect_knows_it() {
    let classic = |version: &str| Dialect::AzureClassic(AzureClassic { api_version: version.into() });
    for (dialect, endpoint, stream, want) in [
        (classic("2024-10-21"), Endpoint::ChatCompletions, true, true),
        (classic("2024-09-01-preview"), Endpoint::ChatCompletions, true, true),
        (classic("2024-06-01"), Endpoint::ChatCompletions, true, false),
        (Dialect::Candle, Endpoint::ChatCompletions, false, false),
        (Dialect::Candle, Endpoint::Completions, true, true),
        (Dialect::Candle, Endpoint::Responses, true, false),
    ] {
        let out = inference(
            &deployment(dialect, "", "m"),
            &request(endpoint, stream),
            "m",
            None,
            CapNamed::ByClient,
        );
        assert_eq!(out.usage_injected, want);
        let body = String::from_utf8(out.body.expect("a body").to_vec()).expect("text");
        assert_eq!(body.contains("include_usage"), want);
    }
}

#[test]
fn stored_responses_keep_their_query() {
    let classic = Dialect::AzureClassic(AzureClassic { api_version: "v".into() });
    let out = stored(&provider(classic, ""), Method::GET, "responses/resp_1?include[]=x");
    assert_eq!(out.path, "/openai/responses/resp_1?include[]=x&api-version=v");
}

#[test]
fn a_cap_goes_under_the_name_that_the_model_takes() {
    use Endpoint::{ChatCompletions, Completions, Responses};
    let openai = || Dialect::OpenAi(OpenAi::default());
    let classic = |version: &str| Dialect::AzureClassic(AzureClassic { api_version: version.into() });
    let v1 = || Dialect::AzureV1(AzureV1 { api_version: None });
    for (dialect, endpoint, model, base, reasoning, want) in [
        (openai(), ChatCompletions, "gpt-4o", None, false, "max_tokens"),
        (openai(), ChatCompletions, "ft:gpt-4.1-mini-2025-04-14:acme::x", None, false, "max_tokens"),
        (openai(), ChatCompletions, "o4-mini", None, true, "max_completion_tokens"),
        (openai(), ChatCompletions, "llama-3.1-8b", None, false, "max_tokens"),
        (openai(), ChatCompletions, "qwen-3", None, true, "max_completion_tokens"),
        // an operator may say that it does not reason; its name is taken for the cap all the same
        (openai(), ChatCompletions, "gpt-5-chat-latest", None, false, "max_completion_tokens"),
        (openai(), ChatCompletions, "gpt-6-sol", None, true, "max_completion_tokens"),
        (openai(), Completions, "davinci-002", None, false, "max_tokens"),
        (openai(), Responses, "gpt-4o", None, false, "max_output_tokens"),
        (openai(), Responses, "o3", None, true, "max_output_tokens"),
        (v1(), ChatCompletions, "support-eu", Some("gpt-4.1-mini"), false, "max_tokens"),
        (v1(), ChatCompletions, "thinker-eu", Some("o3-mini"), true, "max_completion_tokens"),
        (
            classic("2024-10-21"),
            ChatCompletions,
            "thinker-eu",
            Some("o3-mini"),
            true,
            "max_completion_tokens",
        ),
        (classic("2024-06-01"), ChatCompletions, "thinker-eu", Some("o3-mini"), true, "max_tokens"),
        (Dialect::Candle, ChatCompletions, "local", None, true, "max_tokens"),
    ] {
        let mut deployment = deployment(dialect, "/v1", model);
        deployment.base_model = base.map(str::to_owned);
        deployment.reasoning = reasoning;
        let cap = output_cap(&deployment, endpoint, model, 50);
        assert_eq!(cap.name.name(), want, "{model} {endpoint:?}");
        let outgoing =
            inference(&deployment, &request(endpoint, false), model, Some(cap), CapNamed::ByClient);
        let body: serde_json::Value = serde_json::from_slice(&outgoing.body.expect("a body")).expect("JSON");
        assert_eq!(body[want], 50, "{body}");
    }
}

#[test]
fn the_clients_cap_travels_under_the_name_that_is_taken() {
    let openai = || Dialect::OpenAi(OpenAi::default());
    let classic = |version: &str| Dialect::AzureClassic(AzureClassic { api_version: version.into() });
    let v1 = || Dialect::AzureV1(AzureV1 { api_version: None });
    const OLD: &str = r#"{"model":"m","max_tokens":9,"messages":[1]}"#;
    const NEW: &str = r#"{"model":"m","max_completion_tokens":9,"messages":[1]}"#;
    for (dialect, model, base, reasoning, of_old, of_new) in [
        (openai(), "gpt-4.1", None, false, OLD, NEW),
        (openai(), "o4-mini", None, true, NEW, NEW),
        (openai(), "ft:o4-mini-2025-04-16:acme::x", None, true, NEW, NEW),
        // an unknown server's own model that thinks: nobody knows that it refuses a name
        (openai(), "qwen-3", None, true, OLD, NEW),
        (v1(), "support-eu", Some("gpt-4.1-mini"), false, OLD, NEW),
        (v1(), "thinker-eu", Some("o3-mini"), true, NEW, NEW),
        (v1(), "thinker-eu", None, true, NEW, NEW),
        (classic("2024-06-01"), "support-eu", None, false, OLD, OLD),
        (Dialect::Candle, "local", None, false, OLD, OLD),
    ] {
        let mut deployment = deployment(dialect, "/v1", model);
        deployment.base_model = base.map(str::to_owned);
        deployment.reasoning = reasoning;
        for (body, want) in [(OLD, of_old), (NEW, of_new)] {
            let request = InferenceRequest::parse(Endpoint::ChatCompletions, body.into(), None);
            let outgoing = inference(&deployment, &request.expect("right"), model, None, CapNamed::ByClient);
            let want = want.replace("\"m\"", &format!("\"{model}\""));
            assert_eq!(outgoing.body.expect("a body"), want, "{model}");
        }
    }
}

#[test]
fn a_cap_that_we_named_travels_under_the_name_that_is_taken() {
    const NEW: &str = r#"{"model":"m","max_completion_tokens":9,"messages":[1]}"#;
    let request = InferenceRequest::parse(Endpoint::ChatCompletions, NEW.into(), None).expect("right");
    for (reasoning, want) in [(false, "max_tokens"), (true, "max_completion_tokens")] {
        // a server that knows only the old name would take the new one for no cap at all
        let mut deployment = deployment(Dialect::OpenAi(OpenAi::default()), "/v1", "m");
        deployment.reasoning = reasoning;
        let sent = inference(&deployment, &request, "m", None, CapNamed::ByUs).body.expect("a body");
        assert_eq!(sent, NEW.replace("max_completion_tokens", want));
    }
}

#[test]
fn what_a_deployment_does_not_take_is_dropped_only_where_the_operator_says_so() {
    let body = r#"{"model":"m","messages":[1],"seed":7,"logit_bias":{"1":2}}"#;
    let request = InferenceRequest::parse(Endpoint::ChatCompletions, body.into(), None).expect("right");
    let mut deployment = deployment(Dialect::Candle, "/v1", "m");
    deployment.unsupported = vec!["logit_bias".into(), "seed".into()];
    let sent = |deployment: &Deployment| {
        inference(deployment, &request, "m", None, CapNamed::ByClient).body.expect("a body")
    };
    assert_eq!(sent(&deployment), body);
    deployment.on_unsupported = OnUnsupported::Drop;
    assert_eq!(sent(&deployment), r#"{"model":"m","messages":[1]}"#);
}

#[test]
fn azure_bills_what_its_filter_has_read() {
    let filtered = br#"{"error":{"code":"content_filter","message":"m"}}"#;
    let azure = Dialect::AzureV1(AzureV1::default());
    let openai = Dialect::OpenAi(OpenAi::default());
    for (dialect, status, body, billed) in [
        (&azure, 400, &filtered[..], true),
        (&azure, 408, b"", true),
        (&azure, 400, b"{}", false),
        (&azure, 429, &filtered[..], false),
        (&openai, 400, &filtered[..], false),
    ] {
        assert_eq!(bills_refusal(dialect, status, body), billed, "{status}");
    }
}
