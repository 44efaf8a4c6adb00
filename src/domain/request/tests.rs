use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn chat(body: &str) -> Result<InferenceRequest, RequestError> {
    InferenceRequest::parse(Endpoint::ChatCompletions, Bytes::copy_from_slice(body.as_bytes()), None)
}

#[test]
fn reads_what_we_act_on() {
    let request = chat(
        r#" {"stream":true,"messages":[{"role":"user","content":"hi"}],"model":"a","n":2,"max_tokens":10,
            "stream_options":{"include_usage":true}} "#,
    )
    .expect("it is right");
    assert_eq!(request.model.as_str(), "a");
    assert!(request.stream && request.usage_asked);
    assert_eq!(request.most_output(1_000), 20);
}

#[test]
fn the_most_output_counts_every_choice_that_is_made() {
    let most = |endpoint, body: &str| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        InferenceRequest::parse(endpoint, body, None).expect("right").most_output(1_000)
    };
    for (endpoint, body, want) in [
        (Endpoint::ChatCompletions, r#"{"model":"a","messages":[{}]}"#, 1_000),
        (Endpoint::ChatCompletions, r#"{"model":"a","messages":[{}],"n":3}"#, 3_000),
        (Endpoint::ChatCompletions, r#"{"model":"a","messages":[{}],"n":3,"max_tokens":5000}"#, 3_000),
        (Endpoint::ChatCompletions, r#"{"model":"a","messages":[{}],"max_completion_tokens":7}"#, 7),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","messages":[{}],"n":18446744073709551615}"#,
            crate::domain::usage::MOST_TOKENS,
        ),
        (Endpoint::Completions, r#"{"model":"a","prompt":"x"}"#, 16),
        (Endpoint::Completions, r#"{"model":"a","prompt":[1,2,3]}"#, 16),
        (Endpoint::Completions, r#"{"model":"a","prompt":["x","y"],"n":2}"#, 64),
        (Endpoint::Completions, r#"{"model":"a","prompt":[[1],[2]],"n":1,"best_of":4,"max_tokens":3}"#, 24),
        (Endpoint::Completions, r#"{"model":"a","prompt":"x","echo":true,"max_tokens":0}"#, 0),
        (Endpoint::Embeddings, r#"{"model":"a","input":["x","y"]}"#, 0),
    ] {
        assert_eq!(most(endpoint, body), want, "{body}");
    }
}

#[test]
fn a_responses_id_has_a_bound() {
    let asked = |length: usize| {
        let body =
            json!({"model": "a", "input": "x", "previous_response_id": "r".repeat(length)}).to_string();
        InferenceRequest::parse(Endpoint::Responses, body.into(), None).map(|request| request.model)
    };
    assert!(asked(256).is_ok());
    assert_eq!(asked(257).expect_err("too long").param(), Some("previous_response_id"));
}

#[test]
fn refuses_with_the_member_that_is_wrong() {
    for (body, param) in [
        ("", None),
        ("nonsense", None),
        ("[]", None),
        (r#"{"model":"a","messages":[{}]} x"#, None),
        (r#"{"model":"a","messages":[{}]"#, None),
        (r#"{"messages":[{}]}"#, Some("model")),
        (r#"{"model":null,"messages":[{}]}"#, Some("model")),
        (r#"{"model":7,"messages":[{}]}"#, Some("model")),
        (r#"{"model":"","messages":[{}]}"#, Some("model")),
        (r#"{"model":"a"}"#, Some("messages")),
        (r#"{"model":"a","messages":null}"#, Some("messages")),
        (r#"{"model":"a","messages":"hi"}"#, Some("messages")),
        (r#"{"model":"a","messages":[ ]}"#, Some("messages")),
        (r#"{"model":"a","messages":[{}],"stream":"yes"}"#, Some("stream")),
        (r#"{"model":"a","messages":[{}],"stream":1}"#, Some("stream")),
        (r#"{"model":"a","messages":[{}],"max_tokens":-1}"#, Some("max_tokens")),
        (r#"{"model":"a","messages":[{}],"max_tokens":0}"#, Some("max_tokens")),
        (r#"{"model":"a","messages":[{}],"max_completion_tokens":"5"}"#, Some("max_completion_tokens")),
        (r#"{"model":"a","messages":[{}],"n":1.5}"#, Some("n")),
        (r#"{"model":"a","messages":[{}],"stream_options":{}}"#, Some("stream_options")),
        (r#"{"model":"a","messages":[{}],"stream":true,"stream_options":[]}"#, Some("stream_options")),
        (r#"{"model":"a","messages":[{}],"model":"b"}"#, Some("model")),
        (r#"{"model":"a","messages":[{}],"mod\u0065l":"b"}"#, Some("model")),
        (r#"{"model":"a","messages":[{}],"max_tokens":1,"max_tokens":9}"#, Some("max_tokens")),
    ] {
        let error = chat(body).expect_err(body);
        assert_eq!(error.param(), param, "{body}: {error}");
    }
    let body = Bytes::from_static(b"{\"model\":\"\xff\",\"messages\":[{}]}");
    assert!(matches!(
        InferenceRequest::parse(Endpoint::ChatCompletions, body, None),
        Err(RequestError::NotJson(_))
    ));
}

#[test]
fn a_path_names_the_model_before_the_body() {
    let body = Bytes::from_static(br#"{"messages":[{}]}"#);
    let request =
        InferenceRequest::parse(Endpoint::ChatCompletions, body, Some("dep")).expect("no model is needed");
    assert_eq!(request.model.as_str(), "dep");
    assert_eq!(
        request.rewritten(Rewrite { model: Some("real"), ask_usage: false, ..Rewrite::default() }),
        r#"{"model":"real","messages":[{}]}"#
    );
}

#[test]
fn rewrites_only_what_must_change() {
    let table = [
        // (body, rewrite, want)
        (
            r#"{"model":"a","messages":[{"x":1.50}],"zzz":{"b":1,"a":2}}"#,
            Rewrite { model: Some("ft:b"), ask_usage: true, ..Rewrite::default() },
            r#"{"model":"ft:b","messages":[{"x":1.50}],"zzz":{"b":1,"a":2}}"#,
        ),
        (
            r#"{"model":"a","stream":true,"messages":[{}]}"#,
            Rewrite { model: Some("a"), ask_usage: true, ..Rewrite::default() },
            r#"{"stream_options":{"include_usage":true},"model":"a","stream":true,"messages":[{}]}"#,
        ),
        (
            r#"{"stream_options":null,"stream":true,"messages":[{}],"model":"a"}"#,
            Rewrite { model: Some("c"), ask_usage: true, ..Rewrite::default() },
            r#"{"stream_options":{"include_usage":true},"stream":true,"messages":[{}],"model":"c"}"#,
        ),
        (
            r#"{"stream_options":{"include_obfuscation":false},"stream":true,"messages":[{}],"model":"a"}"#,
            Rewrite { model: None, ask_usage: true, ..Rewrite::default() },
            r#"{"stream_options":{"include_obfuscation":false,"include_usage":true},"stream":true,"messages":[{}],"model":"a"}"#,
        ),
    ];
    for (body, rewrite, want) in table {
        assert_eq!(chat(body).expect(body).rewritten(rewrite), want);
    }
    let same = chat(r#"{"model":"a","messages":[{}]}"#).expect("right");
    let out = same.rewritten(Rewrite { model: Some("a"), ask_usage: true, ..Rewrite::default() });
    assert_eq!(out.as_ptr(), same.body().as_ptr(), "nothing changed, nothing copied");
}

fn capped(endpoint: Endpoint, body: &str, name: CapName, tokens: u64) -> String {
    let request =
        InferenceRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()), None).expect(body);
    let output_cap = Some(OutputCap { name, tokens });
    String::from_utf8(request.rewritten(Rewrite { output_cap, ..Rewrite::default() }).to_vec()).expect("text")
}

#[test]
fn a_cap_is_lowered_where_it_stands_or_written_where_there_is_none() {
    use CapName::{MaxCompletionTokens, MaxOutputTokens, MaxTokens};
    for (endpoint, body, name, want) in [
        // no cap, and caps that are null
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","messages":[{}]}"#,
            MaxTokens,
            r#"{"max_tokens":50,"model":"a","messages":[{}]}"#,
        ),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","max_completion_tokens" : null ,"messages":[{}]}"#,
            MaxCompletionTokens,
            r#"{"model":"a","max_completion_tokens" : 50 ,"messages":[{}]}"#,
        ),
        (
            Endpoint::ChatCompletions,
            r#"{"max_tokens":null,"model":"a","messages":[{}]}"#,
            MaxCompletionTokens,
            r#"{"max_completion_tokens":50,"max_tokens":null,"model":"a","messages":[{}]}"#,
        ),
        // the client's own names stay, and so do its lower caps
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","max_tokens":9000,"messages":[{}]}"#,
            MaxCompletionTokens,
            r#"{"model":"a","max_tokens":50,"messages":[{}]}"#,
        ),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","max_tokens":51,"messages":[{}],"max_completion_tokens":10}"#,
            MaxTokens,
            r#"{"model":"a","max_tokens":50,"messages":[{}],"max_completion_tokens":10}"#,
        ),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","max_tokens":900,"messages":[{"max_tokens":900}],"max_completion_tokens":null}"#,
            MaxCompletionTokens,
            r#"{"model":"a","max_tokens":50,"messages":[{"max_tokens":900}],"max_completion_tokens":null}"#,
        ),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"a","max_tokens":50,"messages":[{}]}"#,
            MaxTokens,
            r#"{"model":"a","max_tokens":50,"messages":[{}]}"#,
        ),
        (
            Endpoint::Completions,
            r#"{"model":"a","prompt":"x"}"#,
            MaxTokens,
            r#"{"max_tokens":50,"model":"a","prompt":"x"}"#,
        ),
        (
            Endpoint::Completions,
            r#"{"model":"a","prompt":"x","max_tokens":0}"#,
            MaxTokens,
            r#"{"model":"a","prompt":"x","max_tokens":0}"#,
        ),
        (
            Endpoint::Responses,
            r#"{"model":"a","max_output_tokens":100,"max_tokens":"not ours"}"#,
            MaxOutputTokens,
            r#"{"model":"a","max_output_tokens":50,"max_tokens":"not ours"}"#,
        ),
    ] {
        assert_eq!(capped(endpoint, body, name, 50), want, "{body}");
    }
}

#[test]
fn facts_at_the_top_are_read() {
    let responses = |members: &str| {
        let body = format!(r#"{{"model":"a","input":"x"{members}}}"#);
        InferenceRequest::parse(Endpoint::Responses, body.into(), None).expect(members)
    };
    for (members, want) in [
        ("", None),
        (r#","previous_response_id":"resp_1""#, Some(Unboundable::StoredConversation)),
        (r#","previous_response_id":null,"conversation":null,"prompt":null"#, None),
        (r#","conversation":{"id":"conv_1"}"#, Some(Unboundable::StoredConversation)),
        (r#","prompt":{"id":"pmpt_1"}"#, Some(Unboundable::StoredPrompt)),
        (r#","web_search_options":{}"#, Some(Unboundable::WebSearch)),
        (r#","context_management":[]"#, Some(Unboundable::ContextManagement)),
        (r#","modalities":["text"]"#, None),
        (r#","modalities":["text","audio"]"#, Some(Unboundable::AudioOutput)),
        (r#","modalities":"audio""#, Some(Unboundable::AudioOutput)),
        (r#","conv\u0065rsation":"c""#, Some(Unboundable::StoredConversation)),
        (r#","store":true"#, None),
    ] {
        assert_eq!(responses(members).unboundable(), want, "{members}");
    }
    let prompt = Bytes::from_static(br#"{"model":"a","prompt":"x"}"#);
    let completion = InferenceRequest::parse(Endpoint::Completions, prompt, None).expect("right");
    assert_eq!(completion.unboundable(), None);
    let long = "é".repeat(400);
    for (members, user, tier) in [
        (r#","user":"u1","service_tier":"flex""#.to_owned(), Some("u1"), Some("flex")),
        (r#","user":"u1","safety_identifier":"s1""#.to_owned(), Some("s1"), None),
        (r#","user":"u1","safety_identifier":"","service_tier":null"#.to_owned(), Some("u1"), None),
        (r#","user":7"#.to_owned(), None, None),
        (r#","user":"""#.to_owned(), None, None),
        (format!(r#","user":"{long}""#), Some(&long[..512]), None),
    ] {
        let request = responses(&members);
        assert_eq!((request.end_user(), request.service_tier()), (user, tier), "{members}");
    }
    let tagged = responses(r#","metadata":{"team":"red","n":1,"\u0061":"b"}"#);
    assert_eq!(tagged.metadata("team").as_deref(), Some("red"));
    assert_eq!(tagged.metadata("a").as_deref(), Some("b"));
    assert_eq!((tagged.metadata("n"), tagged.metadata("other")), (None, None));
    assert_eq!(responses(r#","metadata":[1]"#).metadata("team"), None);
    assert_eq!(responses("").metadata("team"), None);
}

proptest! {
    /// Whatever else is in the body survives a rewrite, and the new model is in it.
    #[test]
    fn a_rewrite_keeps_the_rest(
        keys in proptest::collection::btree_map("[a-z\"\\\\é ]{1,8}", "[ -~é]{0,12}", 0..6),
        model in "[ -~é]{1,20}",
        target in "[ -~é]{1,20}",
        stream in any::<bool>(),
    ) {
        let mut body = serde_json::Map::new();
        for (key, value) in keys {
            body.insert(format!("x_{key}"), Value::from(value));
        }
        body.insert("model".into(), model.clone().into());
        body.insert("messages".into(), json!([{"role": "user", "content": model}]));
        body.insert("stream".into(), stream.into());
        let request = chat(&Value::from(body.clone()).to_string()).expect("right");
        let out = request.rewritten(Rewrite { model: Some(&target), ask_usage: true, ..Rewrite::default() });
        let out: Value = serde_json::from_slice(&out).expect("still JSON");
        body.insert("model".into(), target.into());
        if stream {
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        prop_assert_eq!(out, Value::from(body));
    }

    /// A cap changes the caps and no other byte.
    #[test]
    fn a_cap_leaves_all_other_bytes_untouched(
        before in "[ \t]{0,3}\"[a-k]{1,6}\" ?: ?(1\\.50|\"é\\\\u0061\"|\\[1, 2\\])",
        old in proptest::option::of(proptest::option::of(1..200_u64)),
        new in proptest::option::of(proptest::option::of(1..200_u64)),
        cap in 1..200_u64,
    ) {
        let written = |name: &str, value: Option<Option<u64>>| value.map_or(String::new(), |value| {
            let value = value.map_or("null".to_owned(), |tokens| tokens.to_string());
            format!(",\"{name}\" : {value} ")
        });
        let body = |old, new| format!(
            "{{{before},\"model\":\"a\",\"messages\":[{{}}]{}{}}}", written("max_tokens", old), written("max_completion_tokens", new)
        );
        let lowered = |value: Option<Option<u64>>| value.map(|value| value.map(|tokens: u64| tokens.min(cap)));
        let got = capped(Endpoint::ChatCompletions, &body(old, new), CapName::MaxCompletionTokens, cap);
        let none_given = old.flatten().is_none() && new.flatten().is_none();
        let want = match (none_given, new) {
            (false, _) => body(lowered(old), lowered(new)),
            (true, Some(_)) => body(old, Some(Some(cap))),
            (true, None) => body(old, None).replacen('{', &format!("{{\"max_completion_tokens\":{cap},"), 1),
        };
        prop_assert_eq!(&got, &want);
        let again = chat(&got).expect("still right");
        prop_assert!(again.output_cap().is_some_and(|tokens| tokens <= cap));
    }
}
