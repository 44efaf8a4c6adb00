use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::catalog::{OpenAi, Provider};
use serde_json::{Value, json};

use crate::domain::catalog::tests::deployment;

/// As a bound counts it on a deployment of OpenAI's.
fn bounded(model: &str, endpoint: Endpoint, body: &Value) -> Counted {
    let mut deployment = (*deployment("d", model)).clone();
    let openai = Dialect::OpenAi(OpenAi::default());
    deployment.provider = Arc::new(Provider { dialect: openai, ..(*deployment.provider).clone() });
    TokenCounter::bounding(&deployment, model).count(endpoint, body.to_string().as_bytes())
}

fn chat(content: &Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

fn input(model: &str, endpoint: Endpoint, body: &Value) -> u64 {
    TokenCounter::estimating(model).count(endpoint, body.to_string().as_bytes()).input
}

#[test]
fn fine_tuned_names_count_as_their_base() {
    for (model, want) in [
        ("ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY", Encoding::O200k),
        ("ft:gpt-4o-mini-2024-07-18:acme::id:ckpt-step-10", Encoding::O200k),
        ("ft:gpt-3.5-turbo-0613:acme::id", Encoding::Cl100k),
        ("gpt-4.1-mini-2025-04-14.ft-b044a9d3cf9c4228b5d393567f693b83", Encoding::O200k),
        ("gpt-35-turbo", Encoding::Cl100k),
        ("gpt-4-0613", Encoding::Cl100k),
        ("gpt-oss-20b", Encoding::O200kHarmony),
        ("text-embedding-3-small", Encoding::Cl100k),
        ("something-new", Encoding::O200k),
    ] {
        assert_eq!(Encoding::of_model(model), want, "{model}");
    }
}

/// The vectors of OpenAI's cookbook, whose counts are the API's own.
fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/tokens/vectors.json")).expect("JSON")
}

#[test]
fn the_cookbooks_requests_count_as_the_api_counts_them() {
    for case in ["messages_case", "tools_case"] {
        let body = vectors()[case].take();
        let expected = body["expected_prompt_tokens"].as_object().expect("counts").clone();
        assert!(expected.len() >= 4);
        for (model, want) in expected {
            assert_eq!(json!(input(&model, Endpoint::ChatCompletions, &body)), want, "{case} {model}");
            assert!(
                bounded("unknown", Endpoint::ChatCompletions, &body).input > want.as_u64().expect("a count")
            );
        }
    }
}

#[test]
fn the_cookbooks_strings_have_their_tokens() {
    let strings = vectors()["strings"].take();
    for (name, encoding) in
        [("cl100k_base", Encoding::Cl100k), ("p50k_base", Encoding::P50k), ("o200k_base", Encoding::O200k)]
    {
        for (text, tokens) in strings[name].as_object().expect("strings") {
            assert_eq!(
                encoding.count(text),
                tokens.as_array().expect("tokens").len() as u64,
                "{name} {text}"
            );
        }
    }
}

#[test]
fn a_text_beyond_all_sense_is_bounded_and_not_counted() {
    let sensible = "word ".repeat(1_000);
    let counter = TokenCounter::estimating("gpt-4");
    assert_eq!(counter.count_text(&sensible), 1_001);
    let most = "word ".repeat(COUNTED_BYTES / 5 + 1);
    let counted = counter.count_text(&most[..COUNTED_BYTES]);
    assert!(counted < COUNTED_BYTES as u64 / 4, "{counted}");
    let beyond = most.len() - COUNTED_BYTES;
    assert_eq!(counter.count_text(&most), counted + beyond as u64);
}

#[test]
fn other_inputs_count_what_is_in_them() {
    let count = |endpoint, body: Value| input("gpt-4", endpoint, &body);
    assert_eq!(count(Endpoint::Embeddings, json!({"input": ["hello world", "hello"]})), 3);
    assert_eq!(count(Endpoint::Embeddings, json!({"input": [1, 2, 3]})), 3);
    assert_eq!(count(Endpoint::Completions, json!({"prompt": "hello world"})), 2);
    assert!(count(Endpoint::Responses, json!({"input": "hello", "instructions": "hi"})) >= 2);
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}]});
    assert_eq!(count(Endpoint::ChatCompletions, image), 3 + 3 + 1 + 85 + 8 * 170);
}

#[test]
fn an_input_that_is_hard_to_read_is_not_free() {
    let nest = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for odd in [r#""half \ud83d""#, "1e999", &nest] {
        let message = r#"{"role":"user","content":"hello world"}"#;
        let beside = format!(r#"{{"messages":[{message}],"x":{odd}}}"#);
        let within = format!(r#"{{"messages":[{message},{{"role":"user","content":{odd}}}]}}"#);
        for (body, unboundable) in [(beside, None), (within, Some(Unboundable::Unreadable))] {
            let counted =
                TokenCounter::estimating("gpt-4o").count(Endpoint::ChatCompletions, body.as_bytes());
            assert!(counted.input >= 6, "{odd}: {counted:?}");
            assert_eq!(counted.unboundable, unboundable, "{odd}");
        }
    }
}

#[test]
fn a_bound_needs_the_models_own_table() {
    let hi = chat(&json!("hello world"));
    let counted = |model: &str| bounded(model, Endpoint::ChatCompletions, &hi).input;
    assert_eq!(counted("gpt-4o"), 3 + 3 + 1 + 2);
    assert_eq!(counted("ft:gpt-4.1-mini-2025-04-14:acme::x"), 9);
    // adapter is not of ada
    for unknown in ["support-eu", "adapter-v3", "llama-3.1-8b", "gpt-7"] {
        assert_eq!(counted(unknown), 64 + 8 + 4 + 11, "{unknown}");
    }
    let worker = TokenCounter::bounding(&deployment("d", "gpt-4o"), "gpt-4o");
    assert_eq!(worker.count_text("hello world"), 11, "the worker has a table of its own");
}

#[test]
fn what_the_request_does_not_tell_is_found_wherever_it_stands() {
    use Endpoint::{ChatCompletions, Responses};
    let item = |item: Value| json!({"input": [{"role": "user", "content": "hi"}, item]});
    let part = |part: Value| item(json!({"role": "user", "content": [part]}));
    let tools = |tool: Value| json!({"input": "hi", "tools": [tool]});
    for (endpoint, body, want) in [
        (Responses, item(json!({"type": "item_reference", "id": "msg_1"})), Some(Unboundable::StoredItem)),
        (Responses, item(json!({"id": "msg_1"})), Some(Unboundable::StoredItem)),
        (Responses, item(json!({"type": null, "id": "msg_1"})), Some(Unboundable::StoredItem)),
        (Responses, item(json!({"id": "msg_1", "role": "assistant", "content": "x"})), None),
        (
            Responses,
            item(json!({"type": "reasoning", "id": "rs_1", "summary": []})),
            Some(Unboundable::StoredItem),
        ),
        (Responses, item(json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"})), None),
        (Responses, item(json!({"type": "web_search_call", "id": "ws_1"})), Some(Unboundable::UnknownPart)),
        (
            Responses,
            item(json!({"type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}"})),
            None,
        ),
        (Responses, part(json!({"type": "input_file", "file_id": "file-1"})), Some(Unboundable::File)),
        (
            Responses,
            part(json!({"type": "input_file", "file_url": "https://x/y.pdf"})),
            Some(Unboundable::File),
        ),
        (Responses, part(json!({"type": "input_file", "file_data": "JVBERi0="})), Some(Unboundable::File)),
        (Responses, part(json!({"type": "input_image", "file_id": "file-1"})), None),
        (Responses, part(json!({"type": "input_text", "text": "\"file_id\": 1"})), None),
        (Responses, part(json!({"type": "input_hologram"})), Some(Unboundable::UnknownPart)),
        (
            ChatCompletions,
            chat(&json!([{"type": "file", "file": {"file_id": "file-1"}}])),
            Some(Unboundable::File),
        ),
        (
            ChatCompletions,
            json!({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}),
            Some(Unboundable::StoredItem),
        ),
        (ChatCompletions, json!({"messages": [{"role": "assistant", "audio": null, "content": "x"}]}), None),
        (Responses, tools(json!({"type": "web_search"})), Some(Unboundable::HostedTool)),
        (Responses, tools(json!({"type": "mcp", "server_url": "https://x"})), Some(Unboundable::HostedTool)),
        (Responses, tools(json!({"type": "function", "name": "f", "parameters": {}})), None),
        (Responses, tools(json!({"type": "custom", "name": "f"})), None),
        (Responses, tools(json!({"name": "f"})), Some(Unboundable::HostedTool)),
        (Responses, json!({"input": "hi", "tools": {}}), Some(Unboundable::UnknownPart)),
        (Responses, json!({"input": "hi", "tools": null}), None),
    ] {
        assert_eq!(bounded("gpt-4o", endpoint, &body).unboundable, want, "{body}");
    }
    let escaped = br#"{"input":[{"role":"user","content":[{"file\u005fid":"file-1"}]}]}"#;
    let counted = TokenCounter::estimating("gpt-4o").count(Responses, escaped);
    assert_eq!(counted.unboundable, Some(Unboundable::File));
    let searching = bounded("gpt-4o-search-preview", ChatCompletions, &chat(&json!("hi")));
    assert_eq!(searching.unboundable, Some(Unboundable::WebSearch));
}

#[test]
fn what_is_shown_to_the_model_counts_and_the_rest_does_not() {
    let plain = input("gpt-4o", Endpoint::ChatCompletions, &chat(&json!("hi")));
    let with = |member: &str, value: Value| {
        let mut body = chat(&json!("hi"));
        body[member] = value;
        input("gpt-4o", Endpoint::ChatCompletions, &body)
    };
    for (member, value) in [
        ("metadata", json!({"a": "a long text that nobody reads"})),
        ("user", json!("somebody")),
        ("tool_choice", json!("auto")),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([])),
        ("tools", json!(null)),
        ("functions", json!(null)),
        ("stop", json!(["a", "b"])),
    ] {
        assert_eq!(with(member, value), plain, "{member}");
    }
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    for (member, value) in [
        ("response_format", schema.clone()),
        ("tool_choice", json!({"type": "function", "function": {"name": "f"}})),
        ("functions", json!([{"name": "f"}])),
    ] {
        assert!(with(member, value) > plain + 8, "{member}");
    }
    let formatted = json!({"input": "hi", "text": {"format": schema}});
    let unformatted = json!({"input": "hi", "text": {"format": {"type": "text"}, "verbosity": "low"}});
    let responses = |body: &Value| input("gpt-4o", Endpoint::Responses, body);
    assert_eq!(responses(&unformatted), responses(&json!({"input": "hi"})));
    assert!(responses(&formatted) > responses(&unformatted) + 32);
    let completion = json!({"prompt": "hello world", "suffix": "hello"});
    assert_eq!(input("gpt-4", Endpoint::Completions, &completion), 3);
}

#[test]
fn a_nested_tool_counts_as_its_json() {
    let tool = |address: Value| {
        let properties = json!({"address": address});
        json!({"messages": [], "tools": [{"type": "function", "function": {
            "name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": properties}}}]})
    };
    let count = |body: &Value| input("gpt-4o", Endpoint::ChatCompletions, body);
    let flat = count(&tool(json!({"type": "string", "description": "Where."})));
    let deep =
        json!({"type": "object", "properties": {"street": {"type": "string", "description": "The street."}}});
    assert!(count(&tool(deep)) > flat + 20);
}

#[test]
fn a_prediction_is_output_and_no_input() {
    let mut body = chat(&json!("hi"));
    let plain = input("gpt-4o", Endpoint::ChatCompletions, &body);
    body["prediction"] = json!({"type": "content", "content": [{"type": "text", "text": "hello world"}]});
    let counted = bounded("gpt-4o", Endpoint::ChatCompletions, &body);
    assert_eq!((counted.input, counted.predicted, counted.unboundable), (plain, 2, None));
}

#[test]
fn a_sound_is_never_more_tokens_than_bytes() {
    let sound = json!({"data": "UklGRg==".repeat(100), "format": "wav"});
    let counted = bounded(
        "gpt-4o",
        Endpoint::ChatCompletions,
        &chat(&json!([{"type": "input_audio", "input_audio": sound}])),
    );
    assert!(counted.audio >= 800 && counted.input >= counted.audio, "{counted:?}");
}

/// Texts that make the splitting expression or the merging work hard.
fn hostile() -> Vec<String> {
    let rare = (0..400).filter_map(|offset| char::from_u32(0x12000 + offset)).collect::<String>();
    let pieces = [
        " ",
        "\t",
        "\n",
        " \n",
        "\r\n ",
        "a",
        "A",
        "aA",
        "Aa",
        "1",
        "é",
        "e\u{301}",
        "\u{301}",
        "中",
        "'s",
        "'S",
        "!",
        "/\n",
        "ı",
        "\u{200d}",
        "👩\u{200d}👩",
        "<|endoftext|>",
        "ﷺ",
        "\u{0}",
        &rare,
    ];
    pieces.iter().map(|piece| piece.repeat(100_000 / piece.len())).collect()
}

#[test]
fn hostile_texts_are_counted_without_harm() {
    for text in hostile() {
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let tokens = encoding.count(&text);
            assert!(tokens > 0 && tokens <= text.len() as u64, "{:?}", text.chars().next());
        }
    }
}

#[test]
fn one_request_is_counted_only_so_far() {
    let counter = TokenCounter::estimating("gpt-4o");
    let words = "word ".repeat(COUNTED_BYTES / 10);
    let body = json!({"messages": [{"content": words}, {"content": words}, {"content": words}]}).to_string();
    let counted = counter.count(Endpoint::ChatCompletions, body.as_bytes()).input;
    let one = counter.count_text(&words);
    let all = 3 + 3 * 3 + 2 * one + words.len() as u64;
    // a few bytes less for each text
    assert!(counted.abs_diff(all) < 64, "{counted} {all}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes bound every table, whatever the text, and messages around it.
    #[test]
    fn bytes_are_an_upper_bound(texts in proptest::collection::vec("\\PC{0,60}|\\s{0,40}|.{0,40}", 1..5), name in "[a-z]{0,8}") {
        let messages: Vec<Value> = texts
            .iter()
            .map(|text| json!({"role": "user", "name": name, "content": [{"type": "text", "text": text}]}))
            .collect();
        let body = json!({"messages": messages});
        let bound = bounded("unknown", Endpoint::ChatCompletions, &body).input;
        for model in ["gpt-4o", "gpt-4"] {
            prop_assert!(input(model, Endpoint::ChatCompletions, &body) <= bound, "{model}");
        }
    }

    /// Cut into pieces, a long text never counts less than whole.
    #[test]
    fn pieces_never_count_less_than_the_whole(piece in "\\PC{1,12}|\\s{1,6}|[a-zA-Z ]{1,20}") {
        let text = piece.repeat(150_000 / piece.len());
        // a run of white space as long as this is what the expression gives up on
        prop_assume!(!piece.trim().is_empty());
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            prop_assert!(encoding.count(&text) >= encoding.table().count_ordinary(&text) as u64);
        }
    }

    /// Whatever the JSON, counting ends, and never in nothing where there is text.
    #[test]
    fn any_json_is_counted(body in any_json()) {
        for endpoint in Endpoint::ALL {
            for model in ["gpt-4o", "unknown"] {
                bounded(model, endpoint, &body);
            }
            let counted = TokenCounter::estimating("gpt-4o").count(endpoint, body.to_string().as_bytes());
            prop_assert!(counted.audio <= counted.input);
        }
    }

    #[test]
    fn any_bytes_are_counted(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in Endpoint::ALL {
            let counted = TokenCounter::estimating("gpt-4o").count(endpoint, &body);
            prop_assert!(counted.input <= body.len() as u64 * 3 + 64);
        }
    }
}

/// Objects with the members that the count looks at, in every wrong place.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "data:image/png;base64,[A-Za-z0-9+/]{0,40}".prop_map(Value::from),
        prop::sample::select(vec!["function", "input_image", "reasoning", "text", "low"])
            .prop_map(Value::from),
    ];
    let keys = vec![
        "messages",
        "input",
        "prompt",
        "content",
        "type",
        "id",
        "role",
        "name",
        "tools",
        "functions",
        "function",
        "parameters",
        "properties",
        "image_url",
        "url",
        "detail",
        "file_id",
        "input_audio",
        "audio",
        "arguments",
        "encrypted_content",
        "text",
        "format",
        "prediction",
        "tool_choice",
        "response_format",
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..6).prop_map(
                |map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            ),
        ]
    })
}
