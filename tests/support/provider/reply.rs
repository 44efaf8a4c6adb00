//! What a test asks a provider to do with a request: the usual answer or fixed bytes, and what goes wrong with them.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::super::server::After;
use super::super::sums::gzip;
use super::answers::{Body, Content, Piece};
use super::errors::Trouble;

/// Something a reply waits for until the test opens it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets everything through, now and later.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("the gate outlives its waiters");
    }
}

#[derive(Debug, Clone)]
enum Words {
    Usual,
    Fixed(Content),
    /// Bytes instead of an HTTP answer.
    Raw(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before the head.
    Head,
    /// After so many bytes of the body.
    Bytes(usize),
    /// After so many events of a stream.
    Events(usize),
}

#[derive(Debug, Clone)]
enum Stop {
    Hang,
    End(After),
    EndAfter(Duration),
    Pause(Duration),
    /// The rest is not sent; the body's framing ends as it should.
    LeaveOut,
    Wait(Gate),
}

/// What comes after the pieces that were written.
enum Rest {
    /// The body's proper end.
    End,
    /// Nothing.
    Broken(After),
}

/// What the next request gets.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    words: Words,
    stops: Vec<(Place, Stop)>,
    headers: Vec<(String, String)>,
    length_off: i64,
    gzip: bool,
    drip: Option<(usize, Duration)>,
    ahead: u64,
    tells_usage: bool,
    after: After,
}

/// One thing the provider does.
#[derive(Debug)]
pub(super) enum Step {
    /// Tokens that are on the bill from here on.
    Make {
        prompt: u64,
        completion: u64,
        reasoning: u64,
    },
    Write(Vec<u8>),
    /// The gateway knows the usage from here on.
    UsageSent,
    Pause(Duration),
    Wait(Gate),
    Hang,
}

/// A reply in steps.
#[derive(Debug)]
pub(super) struct Performance {
    pub(super) steps: Vec<Step>,
    pub(super) after: After,
    /// Tokens made beyond those sent, when the gateway leaves.
    pub(super) ahead: u64,
}

impl Reply {
    fn new(words: Words) -> Self {
        Self {
            words,
            stops: Vec::new(),
            headers: Vec::new(),
            length_off: 0,
            gzip: false,
            drip: None,
            ahead: 0,
            tells_usage: true,
            after: After::KeepAlive,
        }
    }

    /// What an unscripted request gets.
    pub(crate) fn usual() -> Self {
        Self::new(Words::Usual)
    }

    /// A status and a JSON body; nothing is billed.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::body(status, "application/json", body.to_string().into_bytes())
    }

    /// A status and a body; nothing is billed.
    pub(crate) fn body(status: u16, content_type: &str, bytes: Vec<u8>) -> Self {
        Self::new(Words::Fixed(Content::free(status, content_type, bytes)))
    }

    /// One of the errors that providers really send.
    pub(crate) fn trouble(trouble: Trouble) -> Self {
        let mut reply = Self::json(trouble.status, &trouble.body);
        reply.headers = trouble.headers;
        reply
    }

    /// A recorded event stream, each piece a chunk of its own; billed with the given counts.
    pub(crate) fn stream(pieces: Vec<Vec<u8>>, prompt: u64, completion: u64) -> Self {
        let mut pieces: Vec<Piece> =
            pieces.into_iter().map(|bytes| Piece { bytes, tokens: 0, tells_usage: false }).collect();
        if let Some(last) = pieces.last_mut() {
            last.tells_usage = true;
        }
        if let Some(first) = pieces.first_mut() {
            first.tokens = completion;
        }
        Self::new(Words::Fixed(Content {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())],
            body: Body::Stream(pieces),
            prompt: Some(prompt),
            reasoning: 0,
        }))
    }

    /// Leaves open what the answer used: the gateway's books need not agree to the token.
    pub(crate) fn without_usage(mut self) -> Self {
        self.tells_usage = false;
        self
    }

    /// Puts a fixed answer on the bill, as one that told its usage.
    pub(crate) fn billed(mut self, prompt: u64, completion: u64) -> Self {
        if let Words::Fixed(content) = &mut self.words {
            content.prompt = Some(prompt);
            if let Body::Whole { tokens, .. } = &mut content.body {
                *tokens = completion;
            }
        }
        self
    }

    /// Bytes instead of an HTTP answer, then the connection is closed.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        let mut reply = Self::new(Words::Raw(bytes.to_vec()));
        reply.after = After::Close;
        reply
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends nothing, ever.
    pub(crate) fn hangs(self) -> Self {
        self.stop(Place::Head, Stop::Hang)
    }

    /// Closes the connection before a single byte.
    pub(crate) fn hangs_up(self) -> Self {
        self.stop(Place::Head, Stop::End(After::Close))
    }

    /// Closes the connection after a while, before a single byte.
    pub(crate) fn hangs_up_after(self, pause: Duration) -> Self {
        self.stop(Place::Head, Stop::EndAfter(pause))
    }

    /// Sends nothing before the gate is open.
    pub(crate) fn waits_for(self, gate: &Gate) -> Self {
        self.stop(Place::Head, Stop::Wait(gate.clone()))
    }

    /// Sends its first byte so late.
    pub(crate) fn begins_after(self, pause: Duration) -> Self {
        self.stop(Place::Head, Stop::Pause(pause))
    }

    /// Falls silent after so many events.
    pub(crate) fn hangs_after_events(self, events: usize) -> Self {
        self.stop(Place::Events(events), Stop::Hang)
    }

    /// Waits for the gate after so many events.
    pub(crate) fn waits_after_events(self, events: usize, gate: &Gate) -> Self {
        self.stop(Place::Events(events), Stop::Wait(gate.clone()))
    }

    /// Closes the connection after so many events, with no terminating chunk.
    pub(crate) fn closes_after_events(self, events: usize) -> Self {
        self.stop(Place::Events(events), Stop::End(After::Close))
    }

    /// RST after so many bytes of the body.
    pub(crate) fn resets_after_bytes(self, bytes: usize) -> Self {
        self.stop(Place::Bytes(bytes), Stop::End(After::Reset))
    }

    /// RST before a single byte.
    pub(crate) fn resets(self) -> Self {
        self.stop(Place::Head, Stop::End(After::Reset))
    }

    /// RST after so many events.
    pub(crate) fn resets_after_events(self, events: usize) -> Self {
        self.stop(Place::Events(events), Stop::End(After::Reset))
    }

    /// Falls silent after so many bytes of the body.
    pub(crate) fn hangs_after_bytes(self, bytes: usize) -> Self {
        self.stop(Place::Bytes(bytes), Stop::Hang)
    }

    /// Ends after so many events as if that were all: the framing is whole, the answer is not.
    pub(crate) fn ends_after_events(self, events: usize) -> Self {
        self.stop(Place::Events(events), Stop::LeaveOut)
    }

    /// Waits for the gate after so many bytes of the body.
    pub(crate) fn waits_after_bytes(self, bytes: usize, gate: &Gate) -> Self {
        self.stop(Place::Bytes(bytes), Stop::Wait(gate.clone()))
    }

    /// States a Content-Length that is wrong by so many bytes, and closes after the body.
    pub(crate) fn states_length_off_by(mut self, bytes: i64) -> Self {
        self.length_off = bytes;
        self.after = After::Close;
        self
    }

    /// Compresses the body, whatever was asked for.
    pub(crate) fn gzipped(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// Sends so many bytes at a time, with a pause after each.
    pub(crate) fn drips(mut self, bytes: usize, pause: Duration) -> Self {
        self.drip = Some((bytes, pause));
        self
    }

    /// Has made so many more tokens than it sent, whenever the gateway leaves.
    pub(crate) fn runs_ahead_by(mut self, tokens: u64) -> Self {
        self.ahead = tokens;
        self
    }

    /// Closes the kept-alive connection right after the answer, without having said so.
    pub(crate) fn then_closes(mut self) -> Self {
        self.after = After::Close;
        self
    }

    fn stop(mut self, place: Place, stop: Stop) -> Self {
        self.stops.push((place, stop));
        self
    }

    fn stop_at(&self, place: impl Fn(Place) -> bool) -> Option<&Stop> {
        self.stops.iter().find(|(at, _)| place(*at)).map(|(_, stop)| stop)
    }

    /// Whether the test wrote the answer itself, its counts included.
    pub(super) const fn is_written_out(&self) -> bool {
        !matches!(self.words, Words::Usual)
    }

    /// Turns the reply into steps.
    pub(super) fn rehearse(self, usual: Content) -> Performance {
        let mut steps = Vec::new();
        let content = match &self.words {
            Words::Usual => usual,
            Words::Fixed(content) => content.clone(),
            Words::Raw(bytes) => {
                steps.push(Step::Make { prompt: 1, completion: 0, reasoning: 0 });
                steps.push(Step::Write(bytes.clone()));
                return Performance { steps, after: self.after, ahead: 0 };
            }
        };
        // Whoever was sent a request may have begun to work on it, and bills that.
        if let Some(prompt) = content.prompt {
            steps.push(Step::Make { prompt, completion: 0, reasoning: content.reasoning });
        }
        match self.stop_at(|place| matches!(place, Place::Head)) {
            Some(Stop::End(after)) => return Performance { steps, after: *after, ahead: 0 },
            Some(Stop::EndAfter(pause)) => {
                steps.push(Step::Pause(*pause));
                return Performance { steps, after: After::Close, ahead: 0 };
            }
            Some(Stop::Hang) => steps.push(Step::Hang),
            Some(Stop::Wait(gate)) => steps.push(Step::Wait(gate.clone())),
            Some(Stop::Pause(pause)) => steps.push(Step::Pause(*pause)),
            Some(Stop::LeaveOut) | None => {}
        }
        let after = self.write_answer(content, &mut steps);
        Performance { steps, after, ahead: self.ahead }
    }

    fn write_answer(&self, content: Content, steps: &mut Vec<Step>) -> After {
        let mut head = format!("HTTP/1.1 {} {}\r\n", content.status, "As It Is");
        for (name, value) in content.headers.iter().chain(&self.headers) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let (pieces, chunked) = match content.body {
            Body::Whole { mut bytes, tokens } => {
                if self.gzip {
                    bytes = gzip(&bytes);
                    head.push_str("content-encoding: gzip\r\n");
                }
                let stated = i64::try_from(bytes.len()).expect("a small body") + self.length_off;
                head.push_str(&format!("content-length: {stated}\r\n"));
                (vec![Piece { bytes, tokens, tells_usage: true }], false)
            }
            Body::Stream(mut pieces) => {
                if self.gzip {
                    pieces = compress(pieces);
                    head.push_str("content-encoding: gzip\r\n");
                }
                head.push_str("transfer-encoding: chunked\r\n");
                (pieces, true)
            }
        };
        head.push_str("\r\n");
        steps.push(Step::Write(head.into_bytes()));
        if let Rest::Broken(after) = self.write_pieces(pieces, chunked, steps) {
            return after;
        }
        if chunked {
            steps.push(Step::Write(b"0\r\n\r\n".to_vec()));
        }
        self.after
    }

    /// Writes the pieces up to where a stop ends them.
    fn write_pieces(&self, pieces: Vec<Piece>, chunked: bool, steps: &mut Vec<Step>) -> Rest {
        let mut sent = 0;
        for (event, piece) in pieces.into_iter().enumerate() {
            if let Some(rest) = self.pause_at(|place| matches!(place, Place::Events(n) if n == event), steps)
            {
                return rest;
            }
            if piece.tokens > 0 {
                steps.push(Step::Make { prompt: 0, completion: piece.tokens, reasoning: 0 });
            }
            let here = sent..=sent + piece.bytes.len();
            let cut = self.stops.iter().find_map(|(place, _)| match place {
                Place::Bytes(n) if here.contains(n) => Some(*n - sent),
                _ => None,
            });
            // uncut, all of it is written below
            let (first, second) = piece.bytes.split_at(cut.unwrap_or(0));
            self.write_bytes(first, chunked, steps);
            if let Some(at) = cut
                && let Some(rest) =
                    self.pause_at(|place| matches!(place, Place::Bytes(n) if n == sent + at), steps)
            {
                return rest;
            }
            // noted before the last byte leaves: whoever reads it may look at the bill at once
            if piece.tells_usage && self.tells_usage {
                steps.push(Step::UsageSent);
            }
            self.write_bytes(second, chunked, steps);
            sent += piece.bytes.len();
        }
        Rest::End
    }

    fn pause_at(&self, place: impl Fn(Place) -> bool, steps: &mut Vec<Step>) -> Option<Rest> {
        match self.stop_at(place)? {
            Stop::End(after) => return Some(Rest::Broken(*after)),
            Stop::EndAfter(pause) => {
                steps.push(Step::Pause(*pause));
                return Some(Rest::Broken(After::Close));
            }
            Stop::LeaveOut => return Some(Rest::End),
            Stop::Pause(pause) => steps.push(Step::Pause(*pause)),
            Stop::Hang => steps.push(Step::Hang),
            Stop::Wait(gate) => steps.push(Step::Wait(gate.clone())),
        }
        None
    }

    fn write_bytes(&self, bytes: &[u8], chunked: bool, steps: &mut Vec<Step>) {
        let (size, pause) = self.drip.unwrap_or((usize::MAX, Duration::ZERO));
        for part in bytes.chunks(size) {
            let mut wire = part.to_vec();
            if chunked {
                wire = format!("{:x}\r\n", part.len()).into_bytes();
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            steps.push(Step::Write(wire));
            if !pause.is_zero() {
                steps.push(Step::Pause(pause));
            }
        }
    }
}

/// One compressed piece in place of many.
fn compress(pieces: Vec<Piece>) -> Vec<Piece> {
    let tokens = pieces.iter().map(|piece| piece.tokens).sum();
    let tells_usage = pieces.iter().any(|piece| piece.tells_usage);
    let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
    vec![Piece { bytes: gzip(&bytes), tokens, tells_usage }]
}
