//! An answer as it grows, and the response it is.

use serde::Serialize;
use serde_json::value::RawValue;

use super::chat::{Chat, ToolCall, Usage};
use super::echo::Echo;
use super::text::{Escaped, Joined};

/// Which response an answer is.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// What of the request it repeats.
    pub(super) echo: Echo,
    /// Its id, `resp_…`.
    pub(super) id: String,
    /// When it was asked for, seconds since 1970 UTC.
    pub(super) created_at_s: i64,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// More may come.
    InProgress,
    /// All of it is there.
    Completed,
    /// It was cut.
    Incomplete,
    /// The response failed.
    Failed,
}

/// Why an answer was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cut {
    /// The cap on its output.
    MaxOutputTokens,
    /// A content filter.
    ContentFilter,
}

impl Cut {
    /// What a chat's `finish_reason` tells; nothing where the answer is whole.
    pub(super) fn of(finish_reason: &str) -> Option<Self> {
        match finish_reason {
            "length" => Some(Self::MaxOutputTokens),
            "content_filter" => Some(Self::ContentFilter),
            _ => None,
        }
    }
}

/// A message or a call.
#[derive(Debug)]
pub(super) struct Item {
    /// Made of the response's id and its own place.
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) made: Made,
}

/// What an item is.
#[derive(Debug)]
pub(super) enum Made {
    /// Words.
    Message(Vec<Part>),
    /// A call of a function.
    Call(Call),
}

/// A piece of a message.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) text: Escaped,
    pub(super) logprobs: Joined,
}

/// Whether the model answers or refuses to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It answers.
    Text,
    /// It refuses.
    Refusal,
}

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call {
    /// Under which the chat's pieces of it come.
    pub(super) index: u64,
    pub(super) call_id: Escaped,
    pub(super) name: Escaped,
    pub(super) arguments: Escaped,
}

/// What was answered so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) items: Vec<Item>,
    model: Option<Box<RawValue>>,
    service_tier: Option<Box<RawValue>>,
    usage: Option<Usage>,
    pub(super) cut: Option<Cut>,
}

impl Answer {
    /// Takes what stands beside the choices. Azure's first chunk has an empty model.
    pub(super) fn note(&mut self, chat: &Chat<'_>) {
        if let Some(model) = chat.model.filter(|model| !model.is_empty()) {
            self.model.get_or_insert_with(|| model.kept());
        }
        if let Some(tier) = chat.service_tier {
            self.service_tier = Some(tier.kept());
        }
        if let Some(usage) = chat.usage.and_then(Usage::read) {
            self.usage = Some(usage);
        }
    }

    /// Begins a message; returns its place.
    pub(super) fn begin_message(&mut self, frame: &Frame) -> usize {
        self.begin(frame, "msg", Made::Message(Vec::new()))
    }

    /// Begins a call; returns its place. A server that names none of its calls gets the item's id for a name.
    pub(super) fn begin_call(&mut self, frame: &Frame, mut call: Call) -> usize {
        if call.call_id.is_empty() {
            call.call_id = Escaped::plain(&frame.item_id("fc", self.items.len()));
        }
        self.begin(frame, "fc", Made::Call(call))
    }

    fn begin(&mut self, frame: &Frame, prefix: &str, made: Made) -> usize {
        let at = self.items.len();
        self.items.push(Item { id: frame.item_id(prefix, at), status: Status::InProgress, made });
        at
    }

    /// The call that a piece belongs to, by its place: the last one under its index. Later pieces have no id; another
    /// id under the same index is another call, as some servers count all of them as the first.
    pub(super) fn call_of(&self, piece: &ToolCall<'_>) -> Option<usize> {
        let index = piece.index.unwrap_or_default();
        let of_index = |item: &Item| matches!(&item.made, Made::Call(call) if call.index == index);
        let at = self.items.iter().rposition(of_index)?;
        let Made::Call(call) = &self.items[at].made else { return None };
        let is_same = piece.id.filter(|id| !id.is_empty()).is_none_or(|id| call.call_id.is(id));
        is_same.then_some(at)
    }

    /// Ends what is still open and returns its places. What was cut is the last of it.
    pub(super) fn end(&mut self, cut: Option<Cut>) -> Vec<usize> {
        self.cut = cut;
        let last = self.items.len().saturating_sub(1);
        let mut ended = Vec::new();
        for (at, item) in self.items.iter_mut().enumerate() {
            if item.status == Status::InProgress {
                let is_cut = cut.is_some() && at == last;
                item.status = if is_cut { Status::Incomplete } else { Status::Completed };
                ended.push(at);
            }
        }
        ended
    }

    /// The response this is, at its end.
    pub(super) fn response<'a>(&'a self, frame: &'a Frame) -> Response<'a> {
        let status = if self.cut.is_some() { Status::Incomplete } else { Status::Completed };
        Response { status, usage: self.usage.as_ref(), ..self.begun(frame) }
    }

    /// The response this is, broken off. What was open is incomplete.
    pub(super) fn failed<'a>(&'a mut self, frame: &'a Frame, failure: Failure<'a>) -> Response<'a> {
        for item in self.items.iter_mut().filter(|item| item.status == Status::InProgress) {
            item.status = Status::Incomplete;
        }
        let error = Some(failure);
        Response { status: Status::Failed, usage: self.usage.as_ref(), error, ..self.begun(frame) }
    }

    /// The response this is, on its way.
    pub(super) fn begun<'a>(&'a self, frame: &'a Frame) -> Response<'a> {
        let echo = &frame.echo;
        Response {
            id: &frame.id,
            object: "response",
            created_at: frame.created_at_s,
            status: Status::InProgress,
            background: false,
            error: None,
            incomplete_details: self.cut.map(|reason| IncompleteDetails { reason }),
            instructions: &echo.instructions,
            max_output_tokens: &echo.max_output_tokens,
            max_tool_calls: (),
            model: self.model.as_deref().unwrap_or(&echo.model),
            output: self.items.iter().map(Item::shown).collect(),
            parallel_tool_calls: &echo.parallel_tool_calls,
            previous_response_id: (),
            prompt_cache_key: &echo.prompt_cache_key,
            prompt_cache_retention: &echo.prompt_cache_retention,
            reasoning: Reasoning { effort: &echo.effort, summary: () },
            safety_identifier: &echo.safety_identifier,
            service_tier: self.service_tier.as_deref(),
            store: false,
            temperature: &echo.temperature,
            text: TextFormat { format: &echo.format, verbosity: echo.verbosity.as_deref() },
            tool_choice: &echo.tool_choice,
            tools: &echo.tools,
            top_logprobs: &echo.top_logprobs,
            top_p: &echo.top_p,
            truncation: "disabled",
            usage: None,
            user: &echo.user,
            metadata: &echo.metadata,
        }
    }
}

impl Frame {
    fn item_id(&self, prefix: &str, at: usize) -> String {
        let own = self.id.strip_prefix("resp_").unwrap_or(&self.id);
        format!("{prefix}_{own}_{at}")
    }
}

impl Item {
    /// The item as it is told.
    pub(super) fn shown(&self) -> ShownItem<'_> {
        let Self { id, status, made } = self;
        match made {
            Made::Message(parts) => ShownItem::Message {
                id,
                status: *status,
                role: "assistant",
                content: parts.iter().map(Part::shown).collect(),
            },
            Made::Call(Call { call_id, name, arguments, .. }) => {
                ShownItem::FunctionCall { id, status: *status, call_id, name, arguments }
            }
        }
    }
}

impl Part {
    /// A part of which nothing has been said.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, text: Escaped::default(), logprobs: Joined::default() }
    }

    /// The part as it is told.
    pub(super) const fn shown(&self) -> ShownPart<'_> {
        let Self { kind, text, logprobs } = self;
        match kind {
            Kind::Text => ShownPart::OutputText { text, annotations: [], logprobs },
            Kind::Refusal => ShownPart::Refusal { refusal: text },
        }
    }
}

/// An item of a response's `output`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ShownItem<'a> {
    /// `OutputMessage`.
    Message { id: &'a str, status: Status, role: &'static str, content: Vec<ShownPart<'a>> },
    /// `FunctionToolCall`.
    FunctionCall {
        id: &'a str,
        status: Status,
        call_id: &'a Escaped,
        name: &'a Escaped,
        arguments: &'a Escaped,
    },
}

/// A part of a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ShownPart<'a> {
    /// `OutputTextContent`.
    OutputText { text: &'a Escaped, annotations: [(); 0], logprobs: &'a Joined },
    /// `RefusalContent`.
    Refusal { refusal: &'a Escaped },
}

/// The object `response`.
#[derive(Debug, Serialize)]
pub(super) struct Response<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    pub(super) status: Status,
    background: bool,
    error: Option<Failure<'a>>,
    incomplete_details: Option<IncompleteDetails>,
    instructions: &'a RawValue,
    max_output_tokens: &'a RawValue,
    max_tool_calls: (),
    model: &'a RawValue,
    output: Vec<ShownItem<'a>>,
    parallel_tool_calls: &'a RawValue,
    previous_response_id: (),
    prompt_cache_key: &'a RawValue,
    prompt_cache_retention: &'a RawValue,
    reasoning: Reasoning<'a>,
    safety_identifier: &'a RawValue,
    service_tier: Option<&'a RawValue>,
    store: bool,
    temperature: &'a RawValue,
    text: TextFormat<'a>,
    tool_choice: &'a RawValue,
    tools: &'a RawValue,
    top_logprobs: &'a RawValue,
    top_p: &'a RawValue,
    truncation: &'static str,
    usage: Option<&'a Usage>,
    user: &'a RawValue,
    metadata: &'a RawValue,
}

/// Why a response failed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Failure<'a> {
    /// One that `ResponseErrorCode` knows.
    pub(super) code: &'static str,
    pub(super) message: &'a str,
}

impl<'a> Failure<'a> {
    /// A failure with the code of a response that comes nearest.
    pub(super) fn of(code: &str, message: &'a str) -> Self {
        let known = ["rate_limit_exceeded", "invalid_prompt"].into_iter().find(|known| *known == code);
        Self { code: known.unwrap_or("server_error"), message }
    }
}

#[derive(Debug, Serialize)]
struct IncompleteDetails {
    reason: Cut,
}

#[derive(Debug, Serialize)]
struct Reasoning<'a> {
    effort: &'a RawValue,
    summary: (),
}

#[derive(Debug, Serialize)]
struct TextFormat<'a> {
    format: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<&'a RawValue>,
}
