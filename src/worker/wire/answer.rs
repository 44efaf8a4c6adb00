//! Answers, whole and in chunks, member for member in OpenAI's order.

use serde::Serialize;

/// Which of the two shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

impl Endpoint {
    /// Returns the member that holds the prompt.
    pub(in crate::worker) fn prompt_member(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::worker) enum FinishReason {
    /// The model ended it, or a stop sequence came.
    Stop,
    /// The limit or the end of the context was reached.
    Length,
}

/// Tokens used, and the time that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::worker) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    /// How long was computed for it, microseconds: `domain::usage::COMPUTE_MEMBER`. Not OpenAI's.
    tunegate_compute_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

impl Usage {
    /// Of a prompt as rendered, an answer without the token that ended it, and the time that was computed for both.
    pub(in crate::worker) fn new(prompt_tokens: usize, completion_tokens: usize, compute_us: u64) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        // Prompts are not reused yet.
        let prompt_tokens_details = PromptDetails { cached_tokens: 0 };
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens,
            prompt_tokens_details,
            tunegate_compute_us: compute_us,
        }
    }
}

/// What all chunks of one answer share.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Answer {
    pub(in crate::worker) endpoint: Endpoint,
    pub(in crate::worker) id: String,
    /// Seconds since 1970.
    pub(in crate::worker) created: i64,
    pub(in crate::worker) model: String,
    pub(in crate::worker) fingerprint: String,
    /// Whether a stream ends with its usage; then all other chunks say `"usage":null`.
    pub(in crate::worker) stream_usage: bool,
}

#[derive(Serialize)]
struct Body<'a, C> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    system_fingerprint: &'a str,
    choices: &'a [C],
    /// Absent, `null` or there.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: u32,
    message: ChatMessage<'a>,
    logprobs: (),
    finish_reason: FinishReason,
}

#[derive(Serialize)]
struct ChatMessage<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
    annotations: [(); 0],
}

#[derive(Serialize)]
struct ChatDelta<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: (),
    finish_reason: Option<FinishReason>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<()>,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: u32,
    logprobs: (),
    finish_reason: Option<FinishReason>,
}

impl Answer {
    /// Returns the whole answer as JSON.
    pub(in crate::worker) fn whole(&self, text: &str, finish_reason: FinishReason, usage: Usage) -> String {
        match self.endpoint {
            Endpoint::Chat => {
                let message = ChatMessage { role: "assistant", content: text, refusal: (), annotations: [] };
                let choice = ChatChoice { index: 0, message, logprobs: (), finish_reason };
                self.json("chat.completion", &[choice], Some(Some(usage)))
            }
            Endpoint::Completion => self.text_json(text, Some(finish_reason), Some(Some(usage))),
        }
    }

    /// Returns the event that opens a stream, if the endpoint has one.
    pub(in crate::worker) fn opening(&self) -> Option<String> {
        let delta = Delta { role: Some("assistant"), content: Some(""), refusal: Some(()) };
        (self.endpoint == Endpoint::Chat).then(|| event(&self.delta_json(delta, None)))
    }

    /// Returns the event of a piece of text.
    pub(in crate::worker) fn piece(&self, text: &str) -> String {
        event(&match self.endpoint {
            Endpoint::Chat => self.delta_json(Delta { content: Some(text), ..Delta::default() }, None),
            Endpoint::Completion => self.text_json(text, None, self.no_usage()),
        })
    }

    /// Returns the events that close a stream.
    pub(in crate::worker) fn closing(&self, finish_reason: FinishReason, usage: Usage) -> String {
        let mut out = event(&match self.endpoint {
            Endpoint::Chat => self.delta_json(Delta::default(), Some(finish_reason)),
            Endpoint::Completion => self.text_json("", Some(finish_reason), self.no_usage()),
        });
        if self.stream_usage {
            let none: &[ChatDelta<'_>] = &[];
            out += &event(&self.json(self.chunk_object(), none, Some(Some(usage))));
        }
        out + "data: [DONE]\n\n"
    }

    fn no_usage(&self) -> Option<Option<Usage>> {
        self.stream_usage.then_some(None)
    }

    fn chunk_object(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        }
    }

    fn delta_json(&self, delta: Delta<'_>, finish_reason: Option<FinishReason>) -> String {
        let choice = ChatDelta { index: 0, delta, logprobs: (), finish_reason };
        self.json(self.chunk_object(), &[choice], self.no_usage())
    }

    fn text_json(
        &self,
        text: &str,
        finish_reason: Option<FinishReason>,
        usage: Option<Option<Usage>>,
    ) -> String {
        let choice = TextChoice { text, index: 0, logprobs: (), finish_reason };
        self.json("text_completion", &[choice], usage)
    }

    fn json<C: Serialize>(
        &self,
        object: &'static str,
        choices: &[C],
        usage: Option<Option<Usage>>,
    ) -> String {
        let body = Body {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            service_tier: (self.endpoint == Endpoint::Chat).then_some("default"),
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
        };
        serde_json::to_string(&body).expect("plain structs with text keys always serialise")
    }
}

/// Returns one server-sent event.
pub(in crate::worker) fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// `GET /v1/models/{id}`
#[derive(Debug, Clone, Serialize)]
pub(in crate::worker) struct ModelObject {
    /// The name it answers to.
    pub(in crate::worker) id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

impl ModelObject {
    /// Describes the model, served since `created`, in seconds since 1970.
    pub(in crate::worker) fn new(id: String, created: i64) -> Self {
        Self { id, object: "model", created, owned_by: "local" }
    }
}

/// `GET /v1/models`
#[derive(Debug, Serialize)]
pub(in crate::worker) struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

impl ModelList {
    /// Lists the models.
    pub(in crate::worker) fn new(data: Vec<ModelObject>) -> Self {
        Self { object: "list", data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::COMPUTE_MEMBER;

    fn answer(endpoint: Endpoint, stream_usage: bool) -> Answer {
        let (id, model, fingerprint) = ("chatcmpl-1".to_owned(), "m".to_owned(), "fp_1".to_owned());
        Answer { endpoint, id, created: 5, model, fingerprint, stream_usage }
    }

    const HEAD: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","service_tier":"default","system_fingerprint":"fp_1","choices":["#;

    #[test]
    fn a_chat_stream_byte_for_byte() {
        let answer = answer(Endpoint::Chat, false);
        let opening = r#"{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}"#;
        assert_eq!(answer.opening().unwrap(), format!("{HEAD}{opening}\n\n"));
        let piece = r#"{"index":0,"delta":{"content":"Hi\n"},"logprobs":null,"finish_reason":null}]}"#;
        assert_eq!(answer.piece("Hi\n"), format!("{HEAD}{piece}\n\n"));
        let closing = r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
        let found = answer.closing(FinishReason::Stop, Usage::new(3, 2, 9));
        assert_eq!(found, format!("{HEAD}{closing}\n\ndata: [DONE]\n\n"));
    }

    #[test]
    fn usage_comes_last_when_asked_for() {
        let answer = answer(Endpoint::Chat, true);
        assert!(answer.piece("a").ends_with("}],\"usage\":null}\n\n"));
        let found = answer.closing(FinishReason::Length, Usage::new(3, 2, 90_001));
        let usage = r#"],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"tunegate_compute_us":90001}}"#;
        assert!(found.ends_with(&format!("{HEAD}{usage}\n\ndata: [DONE]\n\n")), "{found}");
    }

    #[test]
    fn whole_answers() {
        let chat = answer(Endpoint::Chat, false).whole("Paris", FinishReason::Stop, Usage::new(3, 1, 7));
        assert_eq!(
            chat,
            r#"{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"m","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"message":{"role":"assistant","content":"Paris","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":0},"tunegate_compute_us":7}}"#
        );
        let text =
            answer(Endpoint::Completion, false).whole(" blue", FinishReason::Length, Usage::new(3, 1, 7));
        assert!(text.contains(r#""object":"text_completion""#) && !text.contains("service_tier"));
        assert!(
            text.contains(
                r#""choices":[{"text":" blue","index":0,"logprobs":null,"finish_reason":"length"}]"#
            )
        );
        assert!(answer(Endpoint::Completion, false).opening().is_none());
        assert!(text.contains(COMPUTE_MEMBER), "the gateway reads that name");
    }
}
