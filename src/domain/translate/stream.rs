//! A chat stream as the events of a response, as they come.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{
    Answer, Call, Cut, Failure, Frame, Item, Kind, Made, Part, Response, ShownItem, ShownPart, Status,
};
use super::chat::{Chat, Fault, ToolCall};
use super::echo::Echo;
use super::text::{Escaped, Joined, Text};
use crate::sse::{self, Piece, Splitter};

/// The longest answer that is kept, bytes; as long as a whole answer may be. A longer one fails.
const MOST_KEPT_BYTES: usize = 64 << 20;

/// Turns a chat stream into the events of a response.
///
/// All words of the answer are kept until the end, because its last events repeat them: at most 64 MiB.
#[derive(Debug)]
pub struct ResponsesStream {
    splitter: Splitter,
    frame: Frame,
    answer: Answer,
    /// The message that goes on, by its place.
    message: Option<usize>,
    kept_bytes: usize,
    stage: Stage,
    events: Events,
}

/// How far the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No choice has come yet.
    Waiting,
    /// Words come.
    Answering,
    /// The answer is whole; its usage may follow.
    Answered,
    /// The last event is out.
    Completed,
    /// The last event is out: it says that the response failed.
    Failed,
}

/// Events as bytes, counted.
#[derive(Debug, Default)]
struct Events {
    written: Vec<u8>,
    next: u64,
}

impl Events {
    /// Writes an event: its type, its number and the members of `body`, which is an object.
    fn write(&mut self, kind: &'static str, body: &impl Serialize) {
        // a vector takes all that is written
        let number = self.next;
        let _ =
            write!(self.written, "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number}");
        let brace = self.written.len();
        serde_json::to_writer(&mut self.written, body).expect("texts and numbers can always be written");
        self.written[brace] = b',';
        self.written.extend_from_slice(b"\n\n");
        self.next += 1;
    }

    /// An event about an item.
    fn item(&mut self, kind: &'static str, output_index: usize, item: &Item) {
        self.write(kind, &OfItem { output_index, item: item.shown() });
    }

    /// An event about the last part of a message.
    fn part(&mut self, kind: &'static str, item_id: &str, output_index: usize, parts: &[Part]) {
        let Some(part) = parts.last() else { return };
        let content_index = parts.len() - 1;
        self.write(kind, &OfPart { item_id, output_index, content_index, part: part.shown() });
    }

    /// All that is said at the end of the last part of a message, if there is one.
    fn part_done(&mut self, item_id: &str, output_index: usize, parts: &[Part]) {
        let Some(Part { kind, text, logprobs }) = parts.last() else { return };
        let content_index = parts.len() - 1;
        match kind {
            Kind::Text => {
                let body = TextDone { item_id, output_index, content_index, text, logprobs };
                self.write("response.output_text.done", &body);
            }
            Kind::Refusal => {
                let body = RefusalDone { item_id, output_index, content_index, refusal: text };
                self.write("response.refusal.done", &body);
            }
        }
        self.part("response.content_part.done", item_id, output_index, parts);
    }

    /// All that is said at the end of an item.
    fn item_done(&mut self, output_index: usize, item: &Item) {
        match &item.made {
            Made::Message(parts) => self.part_done(&item.id, output_index, parts),
            Made::Call(Call { name, arguments, .. }) => {
                let body = ArgumentsDone { item_id: &item.id, output_index, name, arguments };
                self.write("response.function_call_arguments.done", &body);
            }
        }
        self.item("response.output_item.done", output_index, item);
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.written).into()
    }
}

#[derive(Serialize)]
struct OfResponse<'a> {
    response: Response<'a>,
}

#[derive(Serialize)]
struct OfItem<'a> {
    output_index: usize,
    item: ShownItem<'a>,
}

#[derive(Serialize)]
struct OfPart<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    part: ShownPart<'a>,
}

/// What is new of a part, or of the arguments of a call.
#[derive(Serialize)]
struct Delta<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    delta: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a Joined>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obfuscation: Option<Text<'a>>,
}

#[derive(Serialize)]
struct TextDone<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    text: &'a Escaped,
    logprobs: &'a Joined,
}

#[derive(Serialize)]
struct RefusalDone<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    refusal: &'a Escaped,
}

#[derive(Serialize)]
struct ArgumentsDone<'a> {
    item_id: &'a str,
    output_index: usize,
    name: &'a Escaped,
    arguments: &'a Escaped,
}

/// An error event: its members, and the object that OpenAI's servers send and its clients raise.
#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    param: (),
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'a str,
    param: (),
    code: &'a str,
}

impl ResponsesStream {
    /// Begins at the start of a chat stream. `id` is the caller's, `resp_…`; `created_at_s` is when it was asked for,
    /// seconds since 1970 UTC.
    pub fn new(echo: Echo, id: String, created_at_s: i64) -> Self {
        Self {
            splitter: Splitter::new(),
            frame: Frame { echo, id, created_at_s },
            answer: Answer::default(),
            message: None,
            kept_bytes: 0,
            stage: Stage::Waiting,
            events: Events::default(),
        }
    }

    /// Takes what came of the chat stream and returns the events it makes, whole ones; often none.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        let mut pieces = Vec::new();
        self.splitter.push(chunk, |piece| pieces.push(piece));
        for piece in pieces {
            // the rest of a line end ends nothing of ours
            let Piece::Event(event) = piece else { continue };
            self.take(&event);
        }
        self.events.take()
    }

    /// What is left when the chat stream has ended. Where [`ResponsesStream::is_ended`] says no after that, the answer
    /// is not whole: the stream [`broke`](ResponsesStream::broke).
    pub fn finish(&mut self) -> Bytes {
        if let Some(rest) = self.splitter.finish() {
            self.take(&rest);
        }
        self.complete();
        self.events.take()
    }

    /// Ends a stream that broke off: an error event and the failed response. Nothing where it has ended already.
    ///
    /// `code` is the error's; a response knows only some of them, any other is its `server_error`.
    pub fn broke(&mut self, message: &str, code: &str) -> Bytes {
        self.fail(message, "server_error", code);
        self.events.take()
    }

    /// Whether the last event is out, good or bad.
    pub const fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Completed | Stage::Failed)
    }

    /// Whether the last event says that the response failed.
    pub const fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed)
    }

    /// Takes one event of the chat stream.
    fn take(&mut self, event: &[u8]) {
        if self.is_ended() {
            return;
        }
        let Some(json) = sse::data(event) else {
            // a comment: a sign of life for whoever waits
            return self.events.written.extend_from_slice(event);
        };
        if json.starts_with(b"[DONE]") {
            return self.complete();
        }
        let chat: Chat<'_> = match serde_json::from_slice(&json) {
            Ok(chat) => chat,
            Err(error) => {
                let message = format!("the upstream sent an event that is no chunk of a chat: {error}");
                return self.fail(&message, "server_error", "upstream_broke");
            }
        };
        if let Some(error) = chat.error {
            return self.fault(error);
        }
        self.answer.note(&chat);
        let Some(choice) = chat.choices.as_ref().and_then(|choices| choices.first()) else { return };
        self.begin();
        if self.stage == Stage::Answered {
            return;
        }
        let mut padding = chat.obfuscation;
        if let Some(said) = &choice.delta {
            if let Some(text) = said.content.filter(|text| !text.is_empty()) {
                self.words(Kind::Text, text, &choice.logprobs(), padding.take());
            }
            if let Some(text) = said.refusal.filter(|text| !text.is_empty()) {
                self.words(Kind::Refusal, text, &Joined::default(), padding.take());
            }
            for call in said.tool_calls.iter().flatten() {
                self.call(call, padding.take());
            }
        }
        if self.kept_bytes > MOST_KEPT_BYTES {
            let message = format!("the answer is longer than {MOST_KEPT_BYTES} bytes");
            return self.fail(&message, "server_error", "answer_too_large");
        }
        if let Some(reason) = &choice.finish_reason {
            self.end(Cut::of(reason));
        }
    }

    /// The first two events, once.
    fn begin(&mut self) {
        if self.stage != Stage::Waiting {
            return;
        }
        self.stage = Stage::Answering;
        for kind in ["response.created", "response.in_progress"] {
            self.events.write(kind, &OfResponse { response: self.answer.begun(&self.frame) });
        }
    }

    /// Adds words to the message.
    fn words(&mut self, kind: Kind, delta: Text<'_>, logprobs: &Joined, obfuscation: Option<Text<'_>>) {
        let output_index = match self.message {
            Some(at) => at,
            None => {
                let at = self.answer.begin_message(&self.frame);
                self.events.item("response.output_item.added", at, &self.answer.items[at]);
                *self.message.insert(at)
            }
        };
        let Item { id, made: Made::Message(parts), .. } = &mut self.answer.items[output_index] else {
            return;
        };
        if parts.last().is_none_or(|part| part.kind != kind) {
            self.events.part_done(id, output_index, parts);
            parts.push(Part::new(kind));
            self.events.part("response.content_part.added", id, output_index, parts);
        }
        let content_index = parts.len() - 1;
        let part = &mut parts[content_index];
        let name = match kind {
            Kind::Text => "response.output_text.delta",
            Kind::Refusal => "response.refusal.delta",
        };
        let told = (kind == Kind::Text).then_some(logprobs);
        let content_index = Some(content_index);
        let body = Delta { item_id: id, output_index, content_index, delta, logprobs: told, obfuscation };
        self.events.write(name, &body);
        self.kept_bytes += part.text.push(delta) + part.logprobs.append(logprobs);
    }

    /// Adds a piece of a call. Pieces of several calls may come in turns: each call stays open to the end.
    fn call(&mut self, piece: &ToolCall<'_>, obfuscation: Option<Text<'_>>) {
        let function = piece.function.as_ref();
        let name = function.and_then(|function| function.name);
        let output_index = match self.answer.call_of(piece) {
            Some(at) => at,
            None => {
                self.end_message();
                let (index, call_id) = (piece.index.unwrap_or_default(), Escaped::of(piece.id));
                let call = Call { index, call_id, name: Escaped::of(name), arguments: Escaped::default() };
                let at = self.answer.begin_call(&self.frame, call);
                self.events.item("response.output_item.added", at, &self.answer.items[at]);
                at
            }
        };
        let Item { id: item_id, made: Made::Call(call), .. } = &mut self.answer.items[output_index] else {
            return;
        };
        let delta = function.and_then(|function| function.arguments).filter(|delta| !delta.is_empty());
        let Some(delta) = delta else { return };
        let body = Delta { item_id, output_index, content_index: None, delta, logprobs: None, obfuscation };
        self.events.write("response.function_call_arguments.delta", &body);
        self.kept_bytes += call.arguments.push(delta);
    }

    /// Ends the message that goes on: calls follow.
    fn end_message(&mut self) {
        let Some(at) = self.message.take() else { return };
        self.answer.items[at].status = Status::Completed;
        self.events.item_done(at, &self.answer.items[at]);
    }

    /// Ends all that is open: the chat has said why it stopped.
    fn end(&mut self, cut: Option<Cut>) {
        self.stage = Stage::Answered;
        let open = self.answer.end(cut);
        for at in open {
            self.events.item_done(at, &self.answer.items[at]);
        }
    }

    /// The last event of an answer that is whole.
    fn complete(&mut self) {
        if self.stage != Stage::Answered {
            return;
        }
        self.stage = Stage::Completed;
        let kind = match self.answer.cut {
            None => "response.completed",
            Some(_) => "response.incomplete",
        };
        self.events.write(kind, &OfResponse { response: self.answer.response(&self.frame) });
    }

    /// An error that the upstream tells.
    fn fault(&mut self, error: &RawValue) {
        let fault: Fault = serde_json::from_str(error.get()).unwrap_or_default();
        let kind = fault.r#type.as_deref().unwrap_or("server_error");
        let code = match &fault.code {
            Some(serde_json::Value::String(code)) => code.clone(),
            Some(serde_json::Value::Number(code)) => code.to_string(),
            _ => kind.to_owned(),
        };
        self.fail(fault.message.as_deref().unwrap_or("the upstream failed in mid-stream"), kind, &code);
    }

    /// The last events of an answer that failed.
    fn fail(&mut self, message: &str, kind: &str, code: &str) {
        if self.is_ended() {
            return;
        }
        self.begin();
        self.stage = Stage::Failed;
        let error = ErrorObject { message, r#type: kind, param: (), code };
        self.events.write("error", &Error { code, message, param: (), error });
        let failure = Failure::of(code, message);
        let response = self.answer.failed(&self.frame, failure);
        self.events.write("response.failed", &OfResponse { response });
    }
}
