use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::domain::catalog::OpenAi;
use crate::domain::catalog::Provider;
use crate::domain::catalog::tests::deployment;

/// A value, whatever the way it is written.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Null,
    Bool(bool),
    /// So many times a power of ten.
    Number(i64, i32),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Picks the way in which something is written.
struct Style(u64);

impl Style {
    fn pick(&mut self, of: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % of
    }

    fn space(&mut self, out: &mut String) {
        out.push_str(["", "", "", " ", "\n", "\t", "\r\n  "][usize::try_from(self.pick(7)).expect("small")]);
    }

    fn text(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            let short = match character {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' => Some("\\/"),
                '\n' => Some("\\n"),
                '\t' => Some("\\t"),
                _ => None,
            };
            let must = matches!(character, '"' | '\\') || character < ' ';
            match (self.pick(3), short) {
                (0, _) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let digits = format!("\\u{unit:04x}");
                        out.push_str(&if self.pick(2) == 0 { digits } else { digits.replace('a', "A") });
                    }
                }
                (1, Some(short)) => out.push_str(short),
                (_, Some(short)) if must => out.push_str(short),
                _ if must => out.push_str(&format!("\\u{:04x}", u32::from(character))),
                _ => out.push(character),
            }
        }
        out.push('"');
    }

    fn number(&mut self, digits: i64, power: i32, out: &mut String) {
        let zeros = |count: i32| "0".repeat(usize::try_from(count).expect("no less than 0"));
        let plain = match power {
            0.. if digits == 0 => "0".to_owned(),
            0.. => format!("{digits}{}", zeros(power)),
            _ => {
                let (sign, padded) =
                    (if digits < 0 { "-" } else { "" }, format!("{}{}", zeros(-power), digits.abs()));
                let (whole, fraction) =
                    padded.split_at(padded.len() - usize::try_from(-power).expect("more than 0"));
                let whole = whole.trim_start_matches('0');
                format!("{sign}{}.{fraction}", if whole.is_empty() { "0" } else { whole })
            }
        };
        match self.pick(5) {
            0 => out.push_str(&format!("{digits}e{power}")),
            1 => out.push_str(&format!("{digits}.0E{power:+}")),
            2 if digits != 0 => out.push_str(&format!("{digits}0e{}", power - 1)),
            3 if plain.contains('.') => out.push_str(&format!("{plain}00")),
            3 => out.push_str(&format!("{plain}.0")),
            _ => out.push_str(&plain),
        }
    }

    fn tree(&mut self, tree: &Tree, out: &mut String) {
        match tree {
            Tree::Null => out.push_str("null"),
            Tree::Bool(is) => out.push_str(&is.to_string()),
            Tree::Number(digits, power) => self.number(*digits, *power, out),
            Tree::Text(text) => self.text(text, out),
            Tree::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    self.space(out);
                    self.tree(item, out);
                    self.space(out);
                }
                out.push(']');
            }
            Tree::Object(members) => self.object(members, out),
        }
    }

    fn object(&mut self, members: &[(String, Tree)], out: &mut String) {
        out.push('{');
        for (at, (name, value)) in members.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { "," });
            self.space(out);
            self.text(name, out);
            self.space(out);
            out.push(':');
            self.space(out);
            self.tree(value, out);
            self.space(out);
        }
        out.push('}');
    }

    fn request(mut self, members: &[(String, Tree)]) -> InferenceRequest {
        let mut out = String::new();
        self.object(members, &mut out);
        parsed(Endpoint::ChatCompletions, &out)
    }
}

fn parsed(endpoint: Endpoint, body: &str) -> InferenceRequest {
    InferenceRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()), None)
        .unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// What has to be equal, by trees: not a word of it is shared with the rule.
fn what_matters(members: &[(String, Tree)]) -> Vec<(String, Tree)> {
    const NOTHING: [&str; 10] = [
        "model",
        "stream",
        "stream_options",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "metadata",
        "store",
    ];
    fn plain(tree: &Tree) -> Tree {
        match tree {
            Tree::Number(0, _) => Tree::Number(0, 0),
            Tree::Number(digits, power) if digits % 10 == 0 => plain(&Tree::Number(digits / 10, power + 1)),
            Tree::Array(items) => Tree::Array(items.iter().map(plain).collect()),
            Tree::Object(members) => {
                Tree::Object(members.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
            }
            other => other.clone(),
        }
    }
    let mut left: Vec<(String, Tree)> = members
        .iter()
        .filter(|(name, value)| !NOTHING.contains(&name.as_str()) && *value != Tree::Null)
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect();
    left.sort_by(|(one, _), (other, _)| one.cmp(other));
    left
}

fn trees() -> impl Strategy<Value = Tree> {
    let text = proptest::collection::vec(
        prop_oneof![
            Just('a'),
            Just('b'),
            Just('"'),
            Just('\\'),
            Just('/'),
            Just('\n'),
            Just('é'),
            Just('漢'),
            Just('🎉'),
            Just('\u{1}')
        ],
        0..4,
    )
    .prop_map(|characters| characters.into_iter().collect::<String>());
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        (-30_i64..300, -3_i32..4).prop_map(|(digits, power)| Tree::Number(digits, power)),
        text.clone().prop_map(Tree::Text),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::Array),
            proptest::collection::vec((text.clone(), inner), 0..4).prop_map(Tree::Object),
        ]
    })
}

/// The members of a chat request: one of each that we read, others as often as they come.
fn requests() -> impl Strategy<Value = Vec<(String, Tree)>> {
    let told_once = ["user", "metadata", "tools", "safety_identifier"];
    const OTHERS: [&str; 7] = ["temperature", "seed", "store", "x", "y", "prompt_cache_key", "é\"\n"];
    let once = proptest::collection::vec(proptest::option::of(trees()), told_once.len());
    let any = proptest::collection::vec((proptest::sample::select(&OTHERS[..]), trees()), 0..5);
    (trees(), once, any).prop_map(move |(message, once, any)| {
        let fixed = [
            ("model".to_owned(), Tree::Text("m".to_owned())),
            ("messages".to_owned(), Tree::Array(vec![message, Tree::Text("hi".to_owned())])),
        ];
        let once = told_once.iter().zip(once).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
        let any = any.into_iter().map(|(name, value)| (name.to_owned(), value));
        fixed.into_iter().chain(once).chain(any).collect()
    })
}

/// The same, or nearly.
fn changed(mut members: Vec<(String, Tree)>, how: u64, at: usize, other: &Tree) -> Vec<(String, Tree)> {
    let place = at % members.len();
    match how {
        0 => members.reverse(),
        1 => members.rotate_left(place),
        2 => members.push(("y".to_owned(), other.clone())),
        3 if members[place].0 != "model" && members[place].0 != "messages" => drop(members.remove(place)),
        4 if members[place].0 != "model" && members[place].0 != "messages" => {
            members[place].1 = other.clone();
        }
        5 => swap_within(&mut members[place].1, at),
        6 => nudge(&mut members[place].1),
        7 => members.push(("prompt_cache_options".to_owned(), other.clone())),
        _ => {}
    }
    members
}

/// Swaps two neighbours somewhere below.
fn swap_within(tree: &mut Tree, at: usize) {
    match tree {
        Tree::Array(items) if items.len() > 1 => {
            let first = at % (items.len() - 1);
            items.swap(first, first + 1);
        }
        Tree::Object(members) if members.len() > 1 => {
            let first = at % (members.len() - 1);
            members.swap(first, first + 1);
        }
        Tree::Array(items) => items.iter_mut().for_each(|item| swap_within(item, at)),
        Tree::Object(members) => members.iter_mut().for_each(|(_, value)| swap_within(value, at)),
        _ => {}
    }
}

/// Changes the first leaf a little.
fn nudge(tree: &mut Tree) {
    match tree {
        Tree::Null => *tree = Tree::Bool(false),
        Tree::Bool(is) => *is = !*is,
        Tree::Number(digits, _) => *digits += 1,
        Tree::Text(text) => text.push('a'),
        Tree::Array(items) => match items.first_mut() {
            Some(first) => nudge(first),
            None => items.push(Tree::Null),
        },
        Tree::Object(members) => match members.first_mut() {
            Some((_, value)) => nudge(value),
            None => members.push((String::new(), Tree::Null)),
        },
    }
}

fn on<'a>(asked: &'a InferenceRequest, deployment: &'a Deployment) -> KeyedOn<'a> {
    KeyedOn {
        asked,
        tenant: Tenant::Team("t"),
        namespace: None,
        deployment,
        upstream_model: "u",
        prompt: None,
        default_cap: None,
        beta: None,
        model: "m",
    }
}

fn key(request: &InferenceRequest) -> CacheKey {
    cache_key(request, &on(request, &deployment("d", "u")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn two_requests_share_exactly_when_all_that_matters_is_equal(
        one in requests(),
        how in 0_u64..9,
        at in any::<usize>(),
        other in trees(),
        styles in any::<(u64, u64)>(),
    ) {
        let two = changed(one.clone(), how, at, &other);
        let twice = two.iter().filter(|(name, _)| name == "messages").count() > 1;
        // what a model is asked with must be there to be asked at all
        prop_assume!(!twice && two.iter().any(|(name, value)| {
            name == "messages" && matches!(value, Tree::Array(items) if !items.is_empty())
        }) && two.iter().any(|(name, value)| name == "model" && matches!(value, Tree::Text(_))));
        let equal = what_matters(&one) == what_matters(&two);
        let keys = (key(&Style(styles.0).request(&one)), key(&Style(styles.1).request(&two)));
        prop_assert_eq!(keys.0 == keys.1, equal, "{:?}\n{:?}", one, two);
    }

    #[test]
    fn requests_that_have_nothing_to_do_with_each_other_share_nothing(
        one in requests(), two in requests(), styles in any::<(u64, u64)>(),
    ) {
        let equal = what_matters(&one) == what_matters(&two);
        let keys = (key(&Style(styles.0).request(&one)), key(&Style(styles.1).request(&two)));
        prop_assert_eq!(keys.0 == keys.1, equal);
    }
}

#[test]
fn what_is_written_otherwise_is_the_same_and_what_is_not_is_not() {
    for (one, other, same) in [
        ("1", "1.0", true),
        ("1", "10e-1", true),
        ("0.10", "1E-1", true),
        ("0", "-0.0e5", true),
        ("100", "1e2", true),
        ("1e2", "1e3", false),
        ("-1", "1", false),
        ("9007199254740993", "9007199254740992", false),
        ("0.1", "0.10000000000000000001", false),
        ("1e99999999999999999999", "1e99999999999999999999", true),
        ("1e99999999999999999999", "10e99999999999999999998", false),
        ("\"a\"", "\"\\u0061\"", true),
        ("\"\\ud83c\\udf89\"", "\"🎉\"", true),
        ("\"\\ud83c\"", "\"\\udf89\"", false),
        ("\"\\ud83c\"", "\"\\uD83C\"", true),
        ("\"1\"", "1", false),
        ("\"null\"", "null", false),
        ("null", "null", true),
        ("[]", "{}", false),
        ("[1,2]", "[12]", false),
        ("[[1],2]", "[[1,2]]", false),
        ("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", false),
        ("{\"a\":1}", "{\"a\":null}", false),
        ("{\"a\":\"b\"}", "[\"a\",\"b\"]", false),
        ("true", "false", false),
    ] {
        let of = |value: &str| {
            key(&parsed(
                Endpoint::ChatCompletions,
                &format!(r#"{{"model":"m","messages":["a"],"x":{value}}}"#),
            ))
        };
        assert_eq!(of(one) == of(other), same, "{one} and {other}");
    }
}

#[test]
fn nobody_shares_with_another_tenant_deployment_prompt_or_name() {
    let request = parsed(Endpoint::ChatCompletions, r#"{"model":"m","messages":["a"]}"#);
    let plain = deployment("d", "u");
    let other = |change: fn(&mut Deployment)| {
        let mut other = (*plain).clone();
        change(&mut other);
        other
    };
    let provider = |change: fn(&mut Provider)| {
        let mut provider = (*plain.provider).clone();
        change(&mut provider);
        Deployment { provider: Arc::new(provider), ..(*plain).clone() }
    };
    let deployments = [
        other(|one| one.name = "e".into()),
        other(|one| one.base_model = Some("gpt-4.1".to_owned())),
        other(|one| one.model_version = Some("2".into())),
        provider(|one| one.name = "q".into()),
        provider(|one| one.address = Address::Unix("/x".into())),
        provider(|one| one.base_path = "/v2".to_owned()),
        provider(|one| one.dialect = Dialect::OpenAi(OpenAi::default())),
        provider(|one| {
            one.dialect = Dialect::OpenAi(OpenAi { project: Some("p".to_owned()), ..OpenAi::default() });
        }),
        provider(|one| {
            one.dialect = Dialect::OpenAi(OpenAi { organization: Some("p".to_owned()), ..OpenAi::default() });
        }),
    ];
    let usual = on(&request, &plain);
    let mut all = vec![
        usual,
        KeyedOn { tenant: Tenant::Team("u"), ..usual },
        KeyedOn { tenant: Tenant::Key("t"), ..usual },
        KeyedOn { tenant: Tenant::Shared, ..usual },
        KeyedOn { namespace: Some(""), ..usual },
        KeyedOn { namespace: Some("n"), ..usual },
        KeyedOn { upstream_model: "v", ..usual },
        KeyedOn { prompt: Some("support@3"), ..usual },
        KeyedOn { prompt: Some("support@4"), ..usual },
        KeyedOn { default_cap: Some(4_096), ..usual },
        KeyedOn { beta: Some(b"assistants=v2"), ..usual },
        KeyedOn { model: "n", ..usual },
    ];
    all.extend(deployments.iter().map(|deployment| KeyedOn { deployment, ..usual }));
    let keys: Vec<CacheKey> = all.iter().map(|on| cache_key(&request, on)).collect();
    for (at, key) in keys.iter().enumerate() {
        let first = keys.iter().position(|known| known == key);
        assert_eq!(first, Some(at), "{:?}", all[at]);
    }
}

#[test]
fn a_response_repeats_what_it_was_asked_with() {
    let of = |members: &str| {
        let body = format!(r#"{{"model":"m","input":"a","store":false{members}}}"#);
        key(&parsed(Endpoint::Responses, &body))
    };
    let plain = of("");
    for (members, same) in [
        (r#","stream":true"#, true),
        (r#","stream":true,"stream_options":{"include_obfuscation":false}"#, true),
        (r#","metadata":{"a":"b"}"#, false),
        (r#","user":"u""#, false),
        (r#","safety_identifier":"u""#, false),
        (r#","prompt_cache_key":"k""#, false),
        (r#","metadata":null"#, true),
    ] {
        assert_eq!(of(members) == plain, same, "{members}");
    }
    // also where the deployment gets a chat, in which not all of it stands
    let chat =
        parsed(Endpoint::ChatCompletions, r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
    let translated = |members: &str| {
        let body = format!(r#"{{"model":"m","input":"a","store":false{members}}}"#);
        let asked = parsed(Endpoint::Responses, &body);
        cache_key(&chat, &on(&asked, &deployment("d", "u")))
    };
    assert_ne!(translated(""), translated(r#","metadata":{"a":"b"}"#));
    assert_eq!(translated(""), translated(r#","stream":true"#));
    assert_ne!(translated(""), key(&chat));
}

#[test]
fn members_that_a_deployment_does_not_get_don_t_matter() {
    let plain = deployment("d", "u");
    let drops = Deployment {
        unsupported: vec!["seed".into(), "messages".into()],
        on_unsupported: OnUnsupported::Drop,
        ..(*plain).clone()
    };
    let of = |deployment: &Deployment, message: &str, seed: u8| {
        let body = format!(r#"{{"model":"m","messages":["{message}"],"seed":{seed}}}"#);
        let request = parsed(Endpoint::ChatCompletions, &body);
        cache_key(&request, &on(&request, deployment))
    };
    assert_eq!(of(&drops, "a", 1), of(&drops, "a", 2));
    assert_ne!(of(&drops, "a", 1), of(&drops, "b", 1), "what can't be dropped matters");
    assert_ne!(of(&plain, "a", 1), of(&plain, "a", 2));
}

#[test]
fn the_last_turn_alone_may_differ_in_meaning() {
    let of = |endpoint, body: &str| {
        let request = parsed(endpoint, body);
        semantic_key(&request, &on(&request, &deployment("d", "u")))
    };
    let chat = |messages: &str| {
        of(Endpoint::ChatCompletions, &format!(r#"{{"model":"m","messages":{messages},"temperature":0}}"#))
    };
    let asked = r#"[{"role":"system","content":"s"},{"role":"user","content":"Where is it?"}]"#;
    let (key, words) = chat(asked).expect("a question");
    assert_eq!(words, "Where is it?");
    for (messages, same) in [
        (r#"[{"role":"system","content":"s"},{"role":"user","content":"Where's it?"}]"#, true),
        (r#"[{"role":"system","content":"s"},{"content":"é","role":"user"}]"#, true),
        (r#"[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"x"}]}]"#, true),
        (r#"[{"role":"system","content":"t"},{"role":"user","content":"Where is it?"}]"#, false),
        (r#"[{"role":"user","content":"Where is it?"}]"#, false),
        (r#"[{"role":"system","content":"s"},{"role":"user","content":"x","name":"n"}]"#, false),
        (r#"[{"role":"user","content":"s"},{"role":"user","content":"Where is it?"}]"#, false),
    ] {
        assert_eq!(chat(messages).expect("a question").0 == key, same, "{messages}");
    }
    for messages in [
        r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#,
        r#"[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"u"}}]}]"#,
        r#"[{"role":"user","content":[{"type":"text","text":"x","prompt_cache_breakpoint":{}}]}]"#,
        r#"[{"role":"user","content":" "}]"#,
        r#"[{"role":"user","content":[]}]"#,
        r#"[{"role":"user","role":"system","content":"a"}]"#,
        r#"[{"role":"user"}]"#,
        r#"["a"]"#,
    ] {
        assert_eq!(chat(messages), None, "{messages}");
    }
    let response =
        |input: &str| of(Endpoint::Responses, &format!(r#"{{"model":"m","input":{input},"store":false}}"#));
    let (key, words) = response(r#""Where is it?""#).expect("a question");
    assert_eq!((words.as_str(), response(r#""Where's it?""#).expect("a question").0), ("Where is it?", key));
    let item =
        r#"[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]}]"#;
    assert_eq!(response(item).expect("a question").1, "a\nb");
    assert_eq!(response(r#"[{"type":"item_reference","role":"user","content":"a"}]"#), None);
    assert_eq!(of(Endpoint::Completions, r#"{"model":"m","prompt":"a"}"#), None);
    // what is asked exactly and what is compared have nothing to do with each other
    let request = parsed(Endpoint::Responses, r#"{"model":"m","input":"?","store":false}"#);
    let deployment = deployment("d", "u");
    let on = on(&request, &deployment);
    assert_ne!(semantic_key(&request, &on).expect("a question").0, cache_key(&request, &on));
}

#[test]
fn a_key_is_shown_as_32_digits_and_read_back() {
    let key = key(&parsed(Endpoint::ChatCompletions, r#"{"model":"m","messages":["a"]}"#));
    let shown = key.to_string();
    assert_eq!(CacheKey::read_shown(&shown), Some(key.shown()));
    for wrong in [
        "",
        "0",
        &shown[1..],
        &format!("{shown}0"),
        &shown.replace(|_: char| true, "g"),
        "+1".repeat(16).as_str(),
    ] {
        assert_eq!(CacheKey::read_shown(wrong), None, "{wrong}");
    }
}

/// Not a bound but a figure: `cargo test --release --lib domain::cache::key -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_fast_keys_are_made() {
    let prose = "The quick brown fox jumps over the lazy dog. It said: \\\"no\\\"\\n".repeat(16);
    for (what, body) in [
        ("prose", format!(r#"{{"model":"m","messages":[{}{{"role":"user","content":"x"}}]}}"#, format!(r#"{{"role":"user","content":"{prose}"}},"#).repeat(1_000))),
        ("tokens", format!(r#"{{"model":"m","messages":[{}]}}"#, vec!["1234"; 200_000].join(","))),
        ("small", r#"{"model":"m","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Where is my order?"}],"temperature":0}"#.to_owned()),
    ] {
        let request = parsed(Endpoint::ChatCompletions, &body);
        let deployment = deployment("d", "u");
        let on = on(&request, &deployment);
        let rounds = 20_000_000 / body.len().max(2_000);
        #[expect(clippy::disallowed_methods, reason = "a measurement")]
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(cache_key(std::hint::black_box(&request), &on));
        }
        let took = begun.elapsed();
        let each = took / u32::try_from(rounds).expect("few");
        println!("{what}: {} bytes, {each:?} each, {:.0} MB/s", body.len(), (body.len() * rounds) as f64 / took.as_secs_f64() / 1e6);
    }
}
