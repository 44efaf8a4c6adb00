//! The usual answers: what OpenAI and Azure send when nothing goes wrong, one word a token.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};

use super::super::server::Request;
use super::Manner;
use super::endpoints::{Asked, House};
use super::errors::Trouble;

/// A part of a body that is sent in one go.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Tokens made for it.
    pub(super) tokens: u64,
    /// Whether it tells the gateway the usage.
    pub(super) tells_usage: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Whole { bytes: Vec<u8>, tokens: u64 },
    Stream(Vec<Piece>),
}

/// An answer before anything goes wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    /// Tokens of the input; nothing when the request costs nothing.
    pub(super) prompt: Option<u64>,
    pub(super) reasoning: u64,
}

impl Content {
    /// An answer that costs nothing.
    pub(super) fn free(status: u16, content_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: Body::Whole { bytes, tokens: 0 },
            prompt: None,
            reasoning: 0,
        }
    }

    pub(super) fn trouble(trouble: Trouble) -> Self {
        let mut content =
            Self::free(trouble.status, "application/json", trouble.body.to_string().into_bytes());
        content.headers.extend(trouble.headers);
        content
    }

    fn made(body: Body, prompt: u64, reasoning: u64) -> Self {
        let kind = match body {
            Body::Whole { .. } => "application/json",
            Body::Stream(_) => "text/event-stream; charset=utf-8",
        };
        Self {
            status: 200,
            headers: vec![
                ("content-type".to_owned(), kind.to_owned()),
                ("openai-processing-ms".to_owned(), "12".to_owned()),
                ("x-ratelimit-remaining-requests".to_owned(), "4999".to_owned()),
            ],
            body,
            prompt: Some(prompt),
            reasoning,
        }
    }
}

fn json_content(value: &Value) -> Content {
    Content::free(200, "application/json", value.to_string().into_bytes())
}

/// Answers a request the way the provider would.
pub(super) fn usual(
    asked: &Asked,
    request: &Request,
    model: &str,
    number: usize,
    manner: &Manner,
    stored: &mut BTreeMap<String, Value>,
) -> Content {
    if let Some(trouble) = refusal(asked.house, request, manner) {
        return Content::trouble(trouble);
    }
    if request.method != "POST" {
        return read_only(asked, request, stored);
    }
    let body = request.json();
    let is_served = |name: &str| manner.models.iter().any(|known| known == name);
    if !manner.models.is_empty() && !asked.model(request).is_some_and(|name| is_served(&name)) {
        return Content::trouble(match asked.is_azure() {
            true => Trouble::azure_deployment_not_found(),
            false => Trouble::model_not_found(model),
        });
    }
    if asked.operation == "chat/completions" && body["messages"].as_array().is_some_and(Vec::is_empty) {
        return Content::trouble(Trouble::no_messages());
    }
    let scene = Scene { asked, body: &body, model, number, manner };
    let mut content = match asked.operation.as_str() {
        "chat/completions" => scene.chat(),
        "completions" => scene.completions(),
        "embeddings" => scene.embeddings(),
        "responses" => scene.responses(stored),
        "moderations" => scene.moderations(),
        "tunegate/score" => scene.score(),
        _ => Content::trouble(Trouble::openai(404, "invalid_request_error", None, "Unknown request URL")),
    };
    content.headers.push(("x-request-id".to_owned(), format!("req_upstream_{number}")));
    content
}

/// Why a credential is not good here, or the address is none.
pub(super) fn refusal(house: House, request: &Request, manner: &Manner) -> Option<Trouble> {
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let is_azure = house != House::OpenAi;
    let shown = match house {
        House::AzureClassic | House::AzureV1 => request.header("api-key").or(bearer),
        House::OpenAi => bearer,
    };
    if !shown.is_some_and(|shown| manner.credential.iter().any(|good| good == shown)) {
        return Some(match is_azure {
            true => Trouble::azure_unauthorized(),
            false => Trouble::unauthorized(),
        });
    }
    if house == House::AzureClassic && request.query("api-version").is_none() {
        return Some(Trouble::azure_resource_not_found());
    }
    None
}

fn read_only(asked: &Asked, request: &Request, stored: &mut BTreeMap<String, Value>) -> Content {
    let not_found =
        || Content::trouble(Trouble::openai(404, "invalid_request_error", None, "No such object"));
    let Some(id) = asked.operation.strip_prefix("responses/") else { return not_found() };
    match request.method.as_str() {
        "GET" => stored.get(id).map_or_else(not_found, json_content),
        "DELETE" => stored.remove(id).map_or_else(not_found, |_| {
            json_content(&json!({"id": id, "object": "response", "deleted": true}))
        }),
        _ => not_found(),
    }
}

/// Counts words: a string's, a list's, or those of messages and parts. A token's number counts as one.
pub(super) fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(members) => ["content", "text", "arguments", "output"]
            .iter()
            .filter_map(|name| members.get(*name))
            .map(words)
            .sum(),
        _ => 0,
    }
}

/// Splits an answer into its tokens: each word with the space before it.
fn tokens(text: &str) -> Vec<String> {
    let spaced = |(i, word): (usize, &str)| if i == 0 { word.to_owned() } else { format!(" {word}") };
    text.split(' ').enumerate().map(spaced).collect()
}

/// A data line and its blank line.
fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// Both lines of an event, as the Responses API writes them.
fn event(value: &Value) -> Vec<u8> {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default()).into_bytes()
}

fn piece(bytes: Vec<u8>, tokens: u64) -> Piece {
    Piece { bytes, tokens, tells_usage: false }
}

struct Scene<'a> {
    asked: &'a Asked,
    body: &'a Value,
    model: &'a str,
    number: usize,
    manner: &'a Manner,
}

impl Scene<'_> {
    fn streams(&self) -> bool {
        self.body["stream"] == json!(true)
    }

    fn asks_usage(&self) -> bool {
        self.body["stream_options"]["include_usage"] == json!(true)
    }

    /// The answer's tokens, cut at the cap, and why it ended.
    fn speech(&self) -> (Vec<String>, &'static str) {
        let asked =
            self.body["messages"].as_array().and_then(|messages| messages.last()?["content"].as_str());
        let known = self.manner.knowledge.as_ref().and_then(|known| (known.0)(self.model, asked?));
        let mut spoken = tokens(known.as_deref().unwrap_or(&self.manner.words));
        let cap = ["max_completion_tokens", "max_tokens", "max_output_tokens"]
            .iter()
            .find_map(|name| self.body[*name].as_u64());
        match cap {
            Some(cap) if (spoken.len() as u64) > cap => {
                spoken.truncate(usize::try_from(cap).unwrap_or(usize::MAX));
                (spoken, "length")
            }
            _ => (spoken, "stop"),
        }
    }

    fn usage(&self, prompt: u64, visible: u64) -> Value {
        let reasoning = self.manner.reasoning;
        let completion = visible + reasoning;
        let mut usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0}});
        if let Some(compute_us) = self.manner.compute_us {
            usage["tunegate_compute_us"] = compute_us.into();
        }
        usage
    }

    fn chat(&self) -> Content {
        let prompt = words(&self.body["messages"]);
        let n = self.body["n"].as_u64().unwrap_or(1);
        if self.body["tools"].is_array() {
            return self.tool_call(prompt);
        }
        let (spoken, finish) = self.speech();
        let made = spoken.len() as u64 * n;
        if self.streams() {
            let mut pieces =
                self.chat_opening(&json!({"role": "assistant", "content": "", "refusal": null}), n);
            for token in &spoken {
                for index in 0..n {
                    let chunk = self.chat_chunk(index, &json!({"content": token}), &Value::Null);
                    pieces.push(piece(data(&chunk), 1));
                }
            }
            return self.chat_ending(pieces, n, finish, prompt, made);
        }
        let text: String = spoken.concat();
        let choices: Vec<Value> = (0..n)
            .map(|index| {
                json!({"index": index, "logprobs": null, "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, "refusal": null, "annotations": []}})
            })
            .collect();
        self.chat_whole(&choices, prompt, made)
    }

    /// Calls the first tool, with arguments in fragments.
    fn tool_call(&self, prompt: u64) -> Content {
        let name = self.body["tools"][0]["function"]["name"].clone();
        let fragments = ["{\"city\":", "\"Zürich\"", "}"];
        if self.streams() {
            let call = json!({"index": 0, "id": "call_1", "type": "function",
                "function": {"name": name, "arguments": ""}});
            let delta = json!({"role": "assistant", "content": null, "tool_calls": [call]});
            let mut pieces = self.chat_opening(&delta, 1);
            for fragment in fragments {
                let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]});
                pieces.push(piece(data(&self.chat_chunk(0, &delta, &Value::Null)), 1));
            }
            return self.chat_ending(pieces, 1, "tool_calls", prompt, fragments.len() as u64);
        }
        let call = json!({"id": "call_1", "type": "function",
            "function": {"name": name, "arguments": fragments.concat()}});
        let choice = json!({"index": 0, "logprobs": null, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]}});
        self.chat_whole(&[choice], prompt, fragments.len() as u64)
    }

    fn chat_whole(&self, choices: &[Value], prompt: u64, made: u64) -> Content {
        let mut answer = json!({"id": format!("chatcmpl-{}", self.number), "object": "chat.completion",
            "created": 1_767_225_600, "model": self.model, "choices": choices,
            "usage": self.usage(prompt, made), "service_tier": "default", "system_fingerprint": "fp_9d1c"});
        if self.asked.is_azure() {
            answer["prompt_filter_results"] = prompt_filter();
        }
        let body = Body::Whole { bytes: answer.to_string().into_bytes(), tokens: made };
        Content::made(body, prompt, self.manner.reasoning)
    }

    /// The first chunks: Azure's with nothing but the filter's result, then each choice's role.
    fn chat_opening(&self, delta: &Value, n: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.asked.is_azure() {
            let chunk = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
                "prompt_filter_results": prompt_filter()});
            pieces.push(piece(data(&chunk), 0));
        }
        for index in 0..n {
            pieces.push(piece(data(&self.chat_chunk(index, delta, &Value::Null)), 0));
        }
        pieces
    }

    fn chat_chunk(&self, index: u64, delta: &Value, finish: &Value) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish});
        self.chunk(&json!([choice]), Value::Null)
    }

    fn chunk(&self, choices: &Value, usage: Value) -> Value {
        let mut chunk = json!({"id": format!("chatcmpl-{}", self.number), "object": "chat.completion.chunk",
            "created": 1_767_225_600, "model": self.model, "service_tier": "default",
            "system_fingerprint": "fp_9d1c", "choices": choices});
        if self.asks_usage() {
            chunk["usage"] = usage;
        }
        chunk["obfuscation"] = "q8Zt".into();
        chunk
    }

    fn chat_ending(&self, mut pieces: Vec<Piece>, n: u64, finish: &str, prompt: u64, made: u64) -> Content {
        for index in 0..n {
            pieces.push(piece(data(&self.chat_chunk(index, &json!({}), &finish.into())), 0));
        }
        if self.asks_usage() {
            let bytes = data(&self.chunk(&json!([]), self.usage(prompt, made)));
            pieces.push(Piece { bytes, tokens: 0, tells_usage: true });
        }
        pieces.push(piece(b"data: [DONE]\n\n".to_vec(), 0));
        Content::made(Body::Stream(pieces), prompt, self.manner.reasoning)
    }

    fn completions(&self) -> Content {
        let prompt = words(&self.body["prompt"]);
        let (spoken, finish) = self.speech();
        let answer = |text: &str, finish: Value| {
            json!({"id": format!("cmpl-{}", self.number), "object": "text_completion",
                "created": 1_767_225_600, "model": self.model,
                "choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": finish}]})
        };
        let made = spoken.len() as u64;
        if !self.streams() {
            let mut whole = answer(&spoken.concat(), finish.into());
            whole["usage"] = self.usage(prompt, made);
            let body = Body::Whole { bytes: whole.to_string().into_bytes(), tokens: made };
            return Content::made(body, prompt, self.manner.reasoning);
        }
        let with_usage = |mut chunk: Value, usage: Value| {
            if self.asks_usage() {
                chunk["usage"] = usage;
            }
            chunk
        };
        let mut pieces: Vec<Piece> = spoken
            .iter()
            .map(|token| piece(data(&with_usage(answer(token, Value::Null), Value::Null)), 1))
            .collect();
        pieces.push(piece(data(&with_usage(answer("", finish.into()), Value::Null)), 0));
        if self.asks_usage() {
            let mut last = with_usage(answer("", Value::Null), self.usage(prompt, made));
            last["choices"] = json!([]);
            pieces.push(Piece { bytes: data(&last), tokens: 0, tells_usage: true });
        }
        pieces.push(piece(b"data: [DONE]\n\n".to_vec(), 0));
        Content::made(Body::Stream(pieces), prompt, self.manner.reasoning)
    }

    fn embeddings(&self) -> Content {
        let input = &self.body["input"];
        let prompt = words(input);
        let count = match input {
            Value::Array(items) if !items.iter().all(Value::is_number) => items.len(),
            _ => 1,
        };
        let vector = [0.25_f32, -0.5, 1.0];
        let embedding = match self.body["encoding_format"].as_str() {
            Some("base64") => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            _ => json!(vector),
        };
        let rows: Vec<Value> = (0..count)
            .map(|index| json!({"object": "embedding", "index": index, "embedding": embedding}))
            .collect();
        let answer = json!({"object": "list", "model": self.model, "data": rows,
            "usage": {"prompt_tokens": prompt, "total_tokens": prompt}});
        let body = Body::Whole { bytes: answer.to_string().into_bytes(), tokens: 0 };
        Content::made(body, prompt, 0)
    }

    /// Free: on the bill with nothing. What has a word that the test has named is flagged.
    fn moderations(&self) -> Content {
        let input = &self.body["input"];
        let texts = input.as_array().map_or_else(|| std::slice::from_ref(input), Vec::as_slice);
        let result = |text: &Value| {
            let flagged =
                text.as_str().is_some_and(|text| self.manner.flagged.iter().any(|word| text.contains(word)));
            json!({"flagged": flagged, "categories": {"hate": flagged}, "category_scores": {"hate": 0.01}})
        };
        let results: Vec<Value> = texts.iter().map(result).collect();
        let answer = json!({"id": format!("modr-{}", self.number), "model": self.model, "results": results});
        Content::made(Body::Whole { bytes: answer.to_string().into_bytes(), tokens: 0 }, 0, 0)
    }

    /// As a worker tells it: half a nat a token of what it would say itself, two of anything else.
    fn score(&self) -> Content {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [.., asked, told] = messages else {
            return Content::trouble(Trouble::openai(400, "invalid_request_error", None, "No answer"));
        };
        let own = self.manner.knowledge.as_ref();
        let own = own.and_then(|known| (known.0)(self.model, asked["content"].as_str()?));
        let (prompt, tokens) = (words(&self.body["messages"]), words(told) + 1);
        let halves = if own.as_deref() == told["content"].as_str() { tokens } else { 4 * tokens };
        let loss_sum = halves as f64 / 2.0;
        let answer = json!({"object": "tunegate.score", "model": self.model, "tokens": tokens,
            "loss_sum": loss_sum, "usage": self.usage(prompt, 0)});
        Content::made(Body::Whole { bytes: answer.to_string().into_bytes(), tokens: 0 }, prompt, 0)
    }

    fn responses(&self, stored: &mut BTreeMap<String, Value>) -> Content {
        let prompt = words(&self.body["input"]) + words(&self.body["instructions"]);
        let (spoken, _) = self.speech();
        let made = spoken.len() as u64;
        let reasoning = self.manner.reasoning;
        let (id, item) = (format!("resp_{}", self.number), format!("msg_{}", self.number));
        let shell = |status: &str, output: Value, usage: Value| {
            json!({"id": id, "object": "response", "created_at": 1_767_225_600, "status": status,
                "error": null, "incomplete_details": null, "model": self.model, "output": output,
                "parallel_tool_calls": true, "previous_response_id": self.body["previous_response_id"],
                "tool_choice": "auto", "tools": [], "metadata": {}, "usage": usage})
        };
        let message = |text: &str, status: &str| {
            json!({"type": "message", "id": item, "status": status, "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
        };
        let usage = json!({"input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made + reasoning, "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": prompt + made + reasoning});
        let text = spoken.concat();
        let finished = shell("completed", json!([message(&text, "completed")]), usage);
        if self.body["store"] != json!(false) {
            stored.insert(id.clone(), finished.clone());
        }
        if !self.streams() {
            let body = Body::Whole { bytes: finished.to_string().into_bytes(), tokens: made };
            return Content::made(body, prompt, reasoning);
        }
        let started = shell("in_progress", json!([]), Value::Null);
        let place = json!({"item_id": item, "output_index": 0, "content_index": 0});
        let at_place = |kind: &str, name: &str, value: Value| {
            let mut event = place.clone();
            event["type"] = kind.into();
            event[name] = value;
            event
        };
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        let mut events = vec![
            (json!({"type": "response.created", "response": started}), 0),
            (json!({"type": "response.in_progress", "response": started}), 0),
            (
                json!({"type": "response.output_item.added", "output_index": 0,
                "item": {"type": "message", "id": item, "status": "in_progress", "role": "assistant",
                    "content": []}}),
                0,
            ),
            (at_place("response.content_part.added", "part", part), 0),
        ];
        for token in &spoken {
            let mut delta = at_place("response.output_text.delta", "delta", token.as_str().into());
            delta["logprobs"] = json!([]);
            events.push((delta, 1));
        }
        let mut done = at_place("response.output_text.done", "text", text.as_str().into());
        done["logprobs"] = json!([]);
        events.push((done, 0));
        let part = json!({"type": "output_text", "text": text, "annotations": []});
        events.push((at_place("response.content_part.done", "part", part), 0));
        events.push((
            json!({"type": "response.output_item.done", "output_index": 0,
            "item": message(&text, "completed")}),
            0,
        ));
        events.push((json!({"type": "response.completed", "response": finished}), 0));
        let last = events.len() - 1;
        let pieces = events.into_iter().enumerate().map(|(sequence, (mut value, tokens))| {
            value["sequence_number"] = sequence.into();
            Piece { bytes: event(&value), tokens, tells_usage: sequence == last }
        });
        Content::made(Body::Stream(pieces.collect()), prompt, reasoning)
    }
}

fn prompt_filter() -> Value {
    json!([{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": false, "severity": "safe"}}}])
}

#[test]
fn an_answer_is_split_into_words_that_join_again() {
    assert_eq!(tokens("Four crates fit."), ["Four", " crates", " fit."]);
    assert_eq!(tokens("a b").concat(), "a b");
}
