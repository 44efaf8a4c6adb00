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

fn under(body: &str, only: CapName, ours: Option<u64>) -> String {
    let output_cap = ours.map(|tokens| OutputCap { name: only, tokens });
    let rewrite = Rewrite { output_cap, only_cap: Some(only), ..Rewrite::default() };
    String::from_utf8(chat(body).expect(body).rewritten(rewrite).to_vec()).expect("text")
}

#[test]
fn one_cap_is_left_under_the_only_name_that_is_taken() {
    use CapName::{MaxCompletionTokens as New, MaxTokens as Old};
    let table = [
        // (body, the name, our own cap, want)
        (r#"{"model":"a","messages":[{}]}"#, New, None, r#"{"model":"a","messages":[{}]}"#),
        (
            r#"{"model":"a","messages":[{}]}"#,
            New,
            Some(50),
            r#"{"max_completion_tokens":50,"model":"a","messages":[{}]}"#,
        ),
        (
            r#"{ "max_tokens" : 9 ,"model":"a","messages":[{"max_tokens":9}]}"#,
            New,
            None,
            r#"{ "max_completion_tokens" : 9 ,"model":"a","messages":[{"max_tokens":9}]}"#,
        ),
        (
            r#"{"model":"a","messages":[{}],"max_completion_tokens":900}"#,
            Old,
            Some(50),
            r#"{"model":"a","messages":[{}],"max_tokens":50}"#,
        ),
        (
            r#"{"model":"a","max_tokens":9,"messages":[{}]}"#,
            Old,
            Some(50),
            r#"{"model":"a","max_tokens":9,"messages":[{}]}"#,
        ),
        (
            r#"{"model":"a","max\u005ftokens":9,"messages":[{}]}"#,
            New,
            None,
            r#"{"model":"a","max_completion_tokens":9,"messages":[{}]}"#,
        ),
        (
            r#"{"model":"a","max_tokens":null,"messages":[{}]}"#,
            New,
            None,
            r#"{"model":"a","max_completion_tokens":null,"messages":[{}]}"#,
        ),
        (
            r#"{"model":"a","max_tokens":null,"messages":[{}]}"#,
            New,
            Some(50),
            r#"{"model":"a","max_completion_tokens":50,"messages":[{}]}"#,
        ),
        // both names: the lower one, and the name that is taken
        (
            r#"{"max_tokens":9,"model":"a","messages":[{}],"max_completion_tokens":20}"#,
            New,
            None,
            r#"{"model":"a","messages":[{}],"max_completion_tokens":9}"#,
        ),
        (
            r#"{"max_tokens":9,"model":"a","messages":[{}],"max_completion_tokens":20}"#,
            Old,
            None,
            r#"{"max_tokens":9,"model":"a","messages":[{}]}"#,
        ),
        (
            r#"{"model":"a","max_tokens":null,"max_completion_tokens":20,"messages":[{}]}"#,
            Old,
            Some(15),
            r#"{"model":"a","max_tokens":15,"messages":[{}]}"#,
        ),
        (
            r#"{"model":"a","max_tokens":null,"max_completion_tokens":20,"messages":[{}]}"#,
            New,
            None,
            r#"{"model":"a","max_completion_tokens":20,"messages":[{}]}"#,
        ),
    ];
    for (body, only, ours, want) in table {
        assert_eq!(under(body, only, ours), want, "{body} {only:?}");
    }
}

fn dropping(body: &str, names: &[&str]) -> String {
    let dropped: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
    let rewrite = Rewrite { model: Some("b"), dropped: &dropped, ..Rewrite::default() };
    String::from_utf8(chat(body).expect(body).rewritten(rewrite).to_vec()).expect("text")
}

#[test]
fn members_are_left_out_wherever_they_stand() {
    const REST: &str = r#""model":"b","messages":[{"seed":1}]"#;
    for (body, want) in [
        (r#"{"seed":7,REST}"#, r#"{REST}"#),
        (r#"{REST,"seed":7}"#, r#"{REST}"#),
        (r#"{"x":1,"seed":7,REST}"#, r#"{"x":1,REST}"#),
        (r#"{ "seed" : 7 , "user" :"u"  ,REST }"#, r#"{ REST }"#),
        (r#"{ "x":1 , "seed" : [7,{"a":"\"}"}] ,REST , "user":"u" }"#, r#"{ "x":1 ,REST }"#),
        (r#"{"seed":7,"x":1,"user":"u",REST}"#, r#"{"x":1,REST}"#),
        // keys with escapes, and values that look like keys
        (r#"{"se\u0065d":7,"\"seed\\":1,REST}"#, r#"{"\"seed\\":1,REST}"#),
        (r#"{"x":"\"seed\":1","seed":null,REST}"#, r#"{"x":"\"seed\":1",REST}"#),
        // twice, and not at all
        (r#"{"logprobs":1,"seed":1,"seed":2,REST,"seed":3}"#, r#"{"logprobs":1,REST}"#),
        (r#"{REST}"#, r#"{REST}"#),
    ] {
        let (body, want) = (body.replace("REST", REST), want.replace("REST", REST));
        assert_eq!(dropping(&body, &["seed", "user"]), want, "{body}");
    }
    // what the request lives on stays
    let body = r#"{"model":"b","messages":[{}],"max_tokens":5,"service_tier":"flex"}"#;
    assert_eq!(dropping(body, &["model", "messages", "max_tokens", "service_tier"]), body);
    // what is added stands before what is left out
    let request =
        InferenceRequest::parse(Endpoint::Responses, r#"{"seed":7}"#.into(), Some("a")).expect("right");
    let dropped: [Box<str>; 1] = ["seed".into()];
    let rewrite = Rewrite { model: Some("b"), dropped: &dropped, ..Rewrite::default() };
    assert_eq!(request.rewritten(rewrite), r#"{"model":"b"}"#);
}

#[test]
fn members_are_found_at_the_top_only() {
    let names: Vec<Box<str>> = ["seed", "user", "logprobs"].map(Into::into).to_vec();
    for (members, want) in [
        ("", vec![]),
        (r#","seed":7"#, vec!["seed"]),
        (r#","us\u0065r":"u","seed":0"#, vec!["seed", "user"]),
        (r#","seed":null,"x":{"user":1},"y":"\"user\":1""#, vec![]),
    ] {
        let body = format!(r#"{{"model":"a","messages":[{{"user":1}}]{members}}}"#);
        assert_eq!(chat(&body).expect("right").members_of(&names), want, "{body}");
    }
}

#[test]
fn what_a_request_needs_is_seen_and_words_are_not_taken_for_it() {
    use Endpoint::{ChatCompletions, Embeddings, Responses};
    let image = r#"{"model":"a","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#;
    let sound = r#"{"model":"a","messages":[{"role":"user","content":[{"image_url":1,"type" : "input_audio","input_audio":{}}]}]}"#;
    let none = "";
    for (endpoint, body, want) in [
        (ChatCompletions, r#"{"model":"a","messages":[{"content":"hi"}]}"#, none),
        (ChatCompletions, image, "images"),
        (ChatCompletions, sound, "audio"),
        (
            Responses,
            r#"{"model":"a","input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}"#,
            "images",
        ),
        (
            Responses,
            r#"{"model":"a","input":[{"type":"function_call_output","output":[{"type":"input_image"}]}]}"#,
            "images",
        ),
        (
            Responses,
            r#"{"model":"a","input":[{"type":"computer_call_output","output":{"type":"computer_screenshot"}}]}"#,
            "images",
        ),
        // a text about images, also one that is nothing but the word
        (ChatCompletions, r#"{"model":"a","messages":[{"content":"{\"type\":\"image_url\"}"}]}"#, none),
        (
            ChatCompletions,
            r#"{"model":"a","messages":[{"content":"image_url"},{"content":[{"type":"text","text":"input_audio"}]}]}"#,
            none,
        ),
        (Responses, r#"{"model":"a","input":"input_image","metadata":{"type":"input_image"}}"#, none),
        // the schema of a tool
        (
            ChatCompletions,
            r#"{"model":"a","messages":[{}],"tools":[{"parameters":{"type":"image_url"}}]}"#,
            "tools",
        ),
        // deeper than anybody reads, or unreadable: taken for it
        (ChatCompletions, r#"{"model":"a","messages":[{"content":"image_url","n":1e999}]}"#, "images"),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"tools":[ ]}"#, none),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"tools":null,"functions":[]}"#, none),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"functions":[{"name":"f"}]}"#, "tools"),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"modalities":["text","audio"]}"#, "audio"),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"modalities":["text"]}"#, none),
        (
            ChatCompletions,
            r#"{"model":"a","messages":[{}],"response_format":{"json_schema":{"type":"x"},"type":"json_schema"}}"#,
            "schema",
        ),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"response_format":{"type":"json_object"}}"#, none),
        (ChatCompletions, r#"{"model":"a","messages":[{}],"response_format":"json_schema"}"#, none),
        (
            Responses,
            r#"{"model":"a","input":"x","text":{"format":{"type":"json_schema","schema":{}}}}"#,
            "schema",
        ),
        (Responses, r#"{"model":"a","input":"x","text":{"verbosity":"low"}}"#, none),
        (Responses, r#"{"model":"a","input":"x","text":null}"#, none),
        (Embeddings, r#"{"model":"a","input":["image_url"]}"#, none),
    ] {
        let request = InferenceRequest::parse(endpoint, body.into(), None).expect(body);
        let found = [
            (request.has_tools(), "tools"),
            (request.has_images(), "images"),
            (request.has_audio(), "audio"),
            (request.wants_json_schema(), "schema"),
        ];
        let found: Vec<&str> = found.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        assert_eq!(found.join(" "), want, "{body}");
    }
}

proptest! {
    /// Whatever is left out, the rest is what it was, in its order.
    #[test]
    fn what_is_not_left_out_stays(
        members in proptest::collection::vec(("[a-e]", "[ \t]{0,2}", "(7|null|\"[,}\\[{ ]{0,3}\"|\\[1, 2\\]|\\{\"a\":1\\})"), 0..8),
        dropped in proptest::collection::vec("[a-e]", 0..4),
        model_at in 0..9_usize,
    ) {
        let mut all: Vec<(String, String)> =
            members.iter().map(|(name, space, value)| (name.clone(), format!("{space}\"{name}\"{space}:{space}{value}"))).collect();
        all.insert(model_at.min(all.len()), ("messages".to_owned(), "\"messages\":[{}]".to_owned()));
        let joined = |kept: &[&(String, String)]| kept.iter().map(|(_, text)| text.trim().to_owned()).collect::<Vec<_>>().join(",");
        let body = format!("{{{}}}", all.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(","));
        let kept: Vec<_> = all.iter().filter(|(name, _)| !dropped.contains(name)).collect();
        let dropped: Vec<Box<str>> = dropped.iter().map(|name| name.as_str().into()).collect();
        let request = InferenceRequest::parse(Endpoint::ChatCompletions, body.into(), Some("m")).expect("right");
        let out = request.rewritten(Rewrite { dropped: &dropped, ..Rewrite::default() });
        let plain = |text: &str| text.replace([' ', '\t'], "");
        let out = plain(std::str::from_utf8(&out).expect("text"));
        prop_assert_eq!(out, format!("{{{}}}", plain(&joined(&kept))));
    }

    /// A lone cap is never higher than what was held for, under whichever name it must travel.
    #[test]
    fn the_one_cap_that_travels_is_within_the_bound(
        old in proptest::option::of(proptest::option::of(1..200_u64)),
        new in proptest::option::of(proptest::option::of(1..200_u64)),
        ours in proptest::option::of(1..200_u64),
        wants_old: bool,
    ) {
        let written = |name: &str, value: Option<Option<u64>>| value.map_or(String::new(), |value| {
            format!(",\"{name}\":{}", value.map_or("null".to_owned(), |tokens| tokens.to_string()))
        });
        let body = format!(
            "{{\"model\":\"a\",\"messages\":[{{}}]{}{}}}", written("max_tokens", old), written("max_completion_tokens", new)
        );
        let (only, other) = match wants_old {
            true => (CapName::MaxTokens, CapName::MaxCompletionTokens),
            false => (CapName::MaxCompletionTokens, CapName::MaxTokens),
        };
        let out: Value = serde_json::from_str(&under(&body, only, ours)).expect("still JSON");
        let lowest = [old.flatten(), new.flatten(), ours].into_iter().flatten().min();
        prop_assert_eq!(out.get(only.name()).and_then(Value::as_u64), lowest);
        prop_assert!(out.get(other.name()).is_none());
    }

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
