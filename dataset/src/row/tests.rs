use super::*;

/// What is said of a row, as a model takes it that is trained with everything.
fn said(line: &str, expected: Expected) -> (Vec<String>, Vec<Oddity>) {
    let value: Json<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut seen = Seen::default();
    let row = read(&value, expected, &mut seen);
    assert_eq!(row.is_some(), seen.faults.is_empty(), "{line}");
    (
        seen.faults.into_iter().map(|fault| format!("{} | {}", fault.path, fault.message)).collect(),
        seen.oddities,
    )
}

const ANY: Expected = Expected { format: None, completions: true, images: true };

/// A chat of these messages before a sound answer.
fn chat_of(messages: &str) -> String {
    format!(r#"{{"messages":[{messages},{{"role":"assistant","content":"ok"}}]}}"#)
}

/// A chat with a question and these members of the answer.
fn answered(members: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"q"}},{{"role":"assistant",{members}}}]}}"#)
}

/// A chat that calls `f`, which these tools define.
fn calling(tools: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","function_call":{{"name":"f","arguments":"{{}}"}}}}]{tools}}}"#
    )
}

/// A chat that calls nothing, with these tools.
fn defining(tools: &str) -> String {
    answered(r#""content":"x""#).replace("]}", &format!("]{tools}}}"))
}

fn preferring(input: &str, preferred: &str, other: &str) -> String {
    format!(r#"{{"input":{input},"preferred_output":{preferred},"non_preferred_output":{other}}}"#)
}

#[test]
fn each_fault_has_its_place_and_its_words() {
    const ROLES: &str = "one of system, developer, user, assistant, tool, function";
    const CALL: &str =
        r#""tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]"#;
    let input = r#"{"messages":[{"role":"user","content":"q"}]}"#;
    let yes = r#"[{"role":"assistant","content":"yes"}]"#;
    let roles = |path: &str, what: &str| format!("{path} | {what}: {ROLES}");
    let at = |path: &str, what: &str| format!("{path} | {what}");
    let cases: Vec<(String, String)> = vec![
        ("[]".into(), at("", "a row is an object, not an array")),
        ("null".into(), at("", "a row is an object, not null")),
        ("3".into(), at("", "a row is an object, not a number")),
        ("\"x\"".into(), at("", "a row is an object, not a string")),
        ("true".into(), at("", "a row is an object, not a boolean")),
        ("{}".into(), at("messages", "missing: a row has a list of messages")),
        (r#"{"message":[]}"#.into(), at("messages", "missing: a row has a list of messages")),
        (r#"{"messages":[]}"#.into(), at("messages", "the list of messages is empty")),
        (r#"{"messages":{}}"#.into(), at("messages", "a list of messages is needed, not an object")),
        (r#"{"messages":"hi"}"#.into(), at("messages", "a list of messages is needed, not a string")),
        (r#"{"messages":null}"#.into(), at("messages", "a list of messages is needed, not null")),
        (
            r#"{"messages":[{"role":"user","content":"q"}]}"#.into(),
            at("messages", "no message of the assistant: there is nothing to learn"),
        ),
        (chat_of("1"), at("messages[0]", "a message is an object, not a number")),
        (chat_of(r#"{"content":"x"}"#), roles("messages[0].role", "missing")),
        (chat_of(r#"{"role":"boss","content":"x"}"#), roles("messages[0].role", r#""boss" is no role"#)),
        (chat_of(r#"{"role":"User","content":"x"}"#), roles("messages[0].role", r#""User" is no role"#)),
        (chat_of(r#"{"role":null,"content":"x"}"#), roles("messages[0].role", "null is no role")),
        (chat_of(r#"{"role":["user"],"content":"x"}"#), roles("messages[0].role", "an array is no role")),
        (
            chat_of(r#"{"role":"user"}"#),
            at("messages[0].content", "missing: only a message that calls a tool may have none"),
        ),
        (
            chat_of(r#"{"role":"user","content":null}"#),
            at("messages[0].content", "null, but only a message that calls a tool may have none"),
        ),
        (
            chat_of(r#"{"role":"user","content":7}"#),
            at("messages[0].content", "content is a string or a list of parts, not a number"),
        ),
        (
            chat_of(r#"{"role":"user","content":{"text":"x"}}"#),
            at("messages[0].content", "content is a string or a list of parts, not an object"),
        ),
        (chat_of(r#"{"role":"user","content":[]}"#), at("messages[0].content", "the list of parts is empty")),
        (
            chat_of(r#"{"role":"user","content":["x"]}"#),
            at("messages[0].content[0].type", "missing: a part says its type, such as text"),
        ),
        (
            chat_of(r#"{"role":"user","content":[{"type":"text"}]}"#),
            at("messages[0].content[0].text", "missing: a text part has a string `text`"),
        ),
        (
            chat_of(r#"{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}"#),
            at(
                "messages[0].content[0].type",
                r#""input_audio" is no part of a training example: text, or image_url in the user's messages"#,
            ),
        ),
        (
            chat_of(
                r#"{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}"#,
            ),
            at("messages[0].content[0]", "an image may stand only in a message of the user"),
        ),
        (
            chat_of(r#"{"role":"user","content":[{"type":"image_url","image_url":{}}]}"#),
            at("messages[0].content[0].image_url.url", "missing: the image's address"),
        ),
        (
            chat_of(
                r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///x.png"}}]}"#,
            ),
            at(
                "messages[0].content[0].image_url.url",
                "an image is an http(s) address or a data URL of PNG, JPEG or WebP in base64",
            ),
        ),
        (
            chat_of(
                r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/gif;base64,AA"}}]}"#,
            ),
            at(
                "messages[0].content[0].image_url.url",
                "an image is an http(s) address or a data URL of PNG, JPEG or WebP in base64",
            ),
        ),
        (
            chat_of(r#"{"role":"user","content":[{"type":"refusal","refusal":"x"}]}"#),
            at(
                "messages[0].content[0].type",
                r#""refusal" is no part of a training example: text, or image_url in the user's messages"#,
            ),
        ),
        (
            answered(r#""content":[{"type":"refusal"}]"#),
            at("messages[1].content[0].refusal", "missing: a refusal is a string"),
        ),
        (
            chat_of(r#"{"role":"user","content":"x","mood":"good"}"#),
            at("messages[0].mood", "no member of a message is called so: take it out"),
        ),
        (
            chat_of(r#"{"role":"user","content":"x","name":7}"#),
            at("messages[0].name", "a name is a string, not a number"),
        ),
        (
            chat_of(r#"{"role":"user","content":"x","weight":1}"#),
            at("messages[0].weight", "only messages of the assistant have a weight"),
        ),
        (answered(r#""content":"x","weight":2"#), at("messages[1].weight", "a weight is 0 or 1, not 2")),
        (answered(r#""content":"x","weight":-1"#), at("messages[1].weight", "a weight is 0 or 1, not -1")),
        (answered(r#""content":"x","weight":0.5"#), at("messages[1].weight", "a weight is 0 or 1, not 0.5")),
        (
            answered(r#""content":"x","weight":"1""#),
            at("messages[1].weight", r#"a weight is 0 or 1, not "1""#),
        ),
        (
            answered(r#""content":"x","weight":true"#),
            at("messages[1].weight", "a weight is 0 or 1, not true"),
        ),
        (
            answered(r#""content":"x","weight":null"#),
            at("messages[1].weight", "a weight is 0 or 1, not null"),
        ),
        (
            answered(CALL),
            at(
                "messages[1].tool_calls[0].function.name",
                r#""f" is called, but the row defines no tools: add `tools`"#,
            ),
        ),
        (
            calling(r#","tools":[{"type":"function","function":{"name":"g"}}]"#),
            at(
                "messages[1].function_call.name",
                r#""f" is called, but not among the tools that the row defines"#,
            ),
        ),
        (
            calling(""),
            at(
                "messages[1].function_call.name",
                r#""f" is called, but the row defines no tools: add `tools`"#,
            ),
        ),
        (
            answered(r#""tool_calls":[]"#),
            at("messages[1].tool_calls", "the list of calls is empty: leave it out"),
        ),
        (
            answered(r#""tool_calls":{}"#),
            at("messages[1].tool_calls", "a list of calls is needed, not an object"),
        ),
        (
            answered(r#""tool_calls":[{"type":"custom","id":"a"}]"#),
            at("messages[1].tool_calls[0].type", r#"a call of a training example has the type "function""#),
        ),
        (
            answered(r#""tool_calls":[{"type":"function","id":"a"}]"#),
            at("messages[1].tool_calls[0].function", "missing: which function is called with what"),
        ),
        (
            answered(r#""function_call":"f""#),
            at("messages[1].function_call", "a call is an object with `name` and `arguments`, not a string"),
        ),
        (
            chat_of(r#"{"role":"user","content":"x","function_call":{"name":"f","arguments":"{}"}}"#),
            at("messages[0].function_call", "only messages of the assistant call tools"),
        ),
        (
            chat_of(r#"{"role":"tool","content":"x"}"#),
            at("messages[0].tool_call_id", "missing: a tool's message says which call it answers"),
        ),
        (
            chat_of(r#"{"role":"tool","content":"x","tool_call_id":7}"#),
            at("messages[0].tool_call_id", "an id is a string, not a number"),
        ),
        (
            chat_of(r#"{"role":"user","content":"x","tool_call_id":"c"}"#),
            at("messages[0].tool_call_id", "only a tool's message answers a call"),
        ),
        (
            chat_of(r#"{"role":"function","content":"x"}"#),
            at("messages[0].name", "missing: a function's message says which function it is of"),
        ),
        (
            defining(r#","functions":{"name":"f"}"#),
            at("functions", "a list of definitions is needed, not an object"),
        ),
        (defining(r#","functions":[{}]"#), at("functions[0].name", "missing: a function has a name")),
        (
            calling(r#","functions":[{"name":"f"},{"name":"a b"}]"#),
            at("functions[1].name", "a function's name has 1 to 64 of a-z, A-Z, 0-9, _ and -"),
        ),
        (
            calling(r#","functions":[{"name":"f","parameters":"none"}]"#),
            at("functions[0].parameters", "parameters are a JSON schema, an object, not a string"),
        ),
        (
            calling(r#","functions":[{"name":"f","description":1}]"#),
            at("functions[0].description", "a description is a string, not a number"),
        ),
        (
            calling(r#","functions":[{"name":"f"}],"tools":[{"name":"g"}]"#),
            at("tools[0].type", r#"a tool of a training example has the type "function""#),
        ),
        (
            calling(r#","functions":[{"name":"f"}],"tools":[{"type":"function"}]"#),
            at("tools[0].function", "missing: what the function is called and takes"),
        ),
        (
            calling(r#","functions":[{"name":"f"}],"parallel_tool_calls":"no""#),
            at("parallel_tool_calls", r#"true or false, not "no""#),
        ),
        (preferring("[]", yes, yes), at("input", "an object with `messages` is needed, not an array")),
        (preferring("{}", yes, yes), at("input.messages", "missing: what is asked")),
        (
            format!(r#"{{"preferred_output":{yes},"non_preferred_output":{yes}}}"#),
            at("input", "missing: an object with `messages`"),
        ),
        (
            format!(r#"{{"input":{input},"preferred_output":{yes}}}"#),
            at("non_preferred_output", "missing: a list with one message of the assistant"),
        ),
        (
            preferring(input, r#"[{"role":"user","content":"x"}]"#, yes),
            at("preferred_output", "exactly one message, and that of the assistant, is needed"),
        ),
        (
            preferring(
                input,
                yes,
                r#"[{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]"#,
            ),
            at("non_preferred_output", "exactly one message, and that of the assistant, is needed"),
        ),
        (preferring(input, yes, "[]"), at("non_preferred_output", "the list of messages is empty")),
        (
            preferring(input, "\"yes\"", yes),
            at("preferred_output", "a list of messages is needed, not a string"),
        ),
        (
            r#"{"prompt":"x"}"#.into(),
            at("completion", "missing: a completion row has `prompt` and `completion`"),
        ),
        (r#"{"prompt":1,"completion":"x"}"#.into(), at("prompt", "a string is needed, not a number")),
        (r#"{"prompt":"x","completion":["y"]}"#.into(), at("completion", "a string is needed, not an array")),
    ];
    assert!(cases.len() >= 60, "{}", cases.len());
    for (line, want) in cases {
        assert_eq!(said(&line, ANY).0, [want], "{line}");
    }
}

#[test]
fn all_faults_of_a_row_are_named() {
    let line = r#"{"messages":[{"role":"boss","content":"x"},{"role":"assistant","content":1,"weight":3}]}"#;
    let paths: Vec<String> = said(line, ANY)
        .0
        .iter()
        .map(|fault| fault.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(paths[..3], ["messages[0].role", "messages[1].weight", "messages[1].content"]);
}

#[test]
fn a_model_takes_its_own_kind_of_rows() {
    let expect = |format, completions, images| Expected { format, completions, images };
    let chat = answered(r#""content":"x""#);
    let image =
        chat_of(r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}"#);
    let completion = r#"{"prompt":"x","completion":"y"}"#;
    let asked = r#"{"messages":[{"role":"user","content":"q"}],"answer":42}"#;
    for (line, expected, want) in [
        (&*chat, expect(Some(Format::Chat), true, true), ""),
        (
            &*chat,
            expect(Some(Format::Preference), true, true),
            " | this is a chat row where preference rows are expected: a file has one kind",
        ),
        (&*image, expect(None, true, true), ""),
        (
            &*image,
            expect(None, true, false),
            "messages[0].content[0] | this model is not trained with images: take them out, or choose one that takes them",
        ),
        (completion, expect(None, true, true), ""),
        (
            completion,
            expect(None, false, true),
            "messages | missing: this model is trained with chats, not with completions; `tunegate dataset convert` makes \
             chats of them",
        ),
        (
            &*chat,
            expect(Some(Format::Completion), true, true),
            " | this is a chat row where completion rows are expected: a file has one kind",
        ),
        (
            "{}",
            expect(Some(Format::Completion), true, true),
            "prompt | missing: a completion row has `prompt` and `completion`",
        ),
        (
            "{}",
            expect(Some(Format::Preference), true, true),
            "input | missing: a preference row has `input`, `preferred_output`, `non_preferred_output`",
        ),
        (asked, expect(Some(Format::Reinforcement), true, true), ""),
        (
            &*chat,
            expect(Some(Format::Reinforcement), true, true),
            "messages | the last message of a reinforcement row is the user's",
        ),
    ] {
        assert_eq!(said(line, expected).0.first().map_or("", String::as_str), want, "{line}");
    }
}

#[test]
fn what_is_odd_passes() {
    use Oddity::*;
    let defined = r#","tools":[{"type":"function","function":{"name":"f"}}]"#;
    let yes = r#"[{"role":"assistant","content":"yes"}]"#;
    for (line, odd) in [
        (calling(r#","functions":[{"name":"f","description":null}]"#), vec![OldFunctions]),
        (calling(defined), vec![OldFunctions]),
        (
            format!(
                r#"{{"messages":[{{"role":"user","content":"q","name":"u"}},
                {{"role":"assistant","content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{"}}}}]}},
                {{"role":"tool","tool_call_id":"d","content":"r"}},{{"role":"assistant","content":"x","weight":1.0}}]{defined}}}"#
            ),
            vec![ArgumentsNoJson, NoSuchCall],
        ),
        (answered(r#""content":"","refusal":null,"audio":null"#), vec![]),
        (answered(r#""content":null,"refusal":"no""#), vec![]),
        (answered(r#""content":"x","weight":0"#), vec![NothingTrained]),
        (
            r#"{"messages":[{"role":"developer","content":"d"},{"role":"assistant","content":"a"},{"role":"user","content":"q"}],"id":7}"#
                .to_owned(),
            vec![UnknownMember, EndsWithoutAnswer],
        ),
        (
            format!(
                r#"{{"input":{{"messages":[{{"role":"user","content":"q"}}],"tools":[],"parallel_tool_calls":true}},"preferred_completion":{yes},"non_preferred_completion":{yes}}}"#
            ),
            vec![PreferredCompletion],
        ),
        (r#"{"prompt":"","completion":" x","id":1}"#.to_owned(), vec![UnknownMember]),
    ] {
        let (faults, oddities) = said(&line, ANY);
        assert_eq!(faults, Vec::<String>::new(), "{line}");
        assert_eq!(oddities, odd, "{line}");
    }
}

#[test]
fn the_words_of_the_system_are_those_of_the_leading_messages() {
    for (messages, system) in [
        (
            r#"{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]}"#,
            "a\nbc",
        ),
        (r#"{"role":"user","content":"q"},{"role":"system","content":"late"}"#, ""),
        (r#"{"role":"system","content":"a"}"#, "a"),
    ] {
        let line = chat_of(messages);
        let value = serde_json::from_str(&line).expect("JSON");
        let row = read(&value, ANY, &mut Seen::default()).expect("a row");
        assert_eq!(row.system(), system);
    }
}
