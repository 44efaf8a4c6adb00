//! A stream that several requests may share, as one of them gets it: its own usage chunk, its own cost, its own end.

use bytes::Bytes;

use super::flights::{Follower, Joiner, Landed, LeaderEnd, Piece};
use super::joiners::Aboard;
use super::meter::Next;
use super::record::Record;
use crate::domain::outcome::Ending;
use crate::domain::stream::StreamReader;
use crate::sse;

/// One request's view of a shared stream.
pub(super) struct Shared {
    follower: Follower,
    /// Takes out what the client did not ask for, and tells what it pays.
    reader: StreamReader,
    who: Who,
    has_ended: bool,
}

/// Whose view it is.
enum Who {
    /// Of who came first: its outcome flies with the call, and comes back at its end.
    Leader(Option<(Box<Record>, Ending)>),
    /// Of who joined.
    Joiner {
        /// Its own outcome; nothing once it is written.
        record: Option<Box<Record>>,
        /// What books it, where the flight does not.
        aboard: Aboard,
        /// How it is booked then.
        unbooked: Option<Joiner>,
    },
}

impl Shared {
    /// As the leader gets it.
    pub(super) const fn led(follower: Follower, reader: StreamReader) -> Self {
        Self { follower, reader, who: Who::Leader(None), has_ended: false }
    }

    /// As a joiner gets it.
    pub(super) fn joined(
        follower: Follower,
        reader: StreamReader,
        record: Box<Record>,
        aboard: Aboard,
        unbooked: Option<Joiner>,
    ) -> Self {
        let who = Who::Joiner { record: Some(record), aboard, unbooked };
        Self { follower, reader, who, has_ended: false }
    }

    /// The next bytes. May be dropped while it waits, and called again.
    pub(super) async fn next(&mut self) -> Next {
        if self.has_ended {
            return Next::End;
        }
        // of a leader the call itself keeps the time
        self.waits();
        let next = loop {
            match self.follower.next().await {
                Piece::Bytes(bytes) => {
                    let own = self.reader.push(bytes);
                    if !own.is_empty() {
                        break Next::Bytes(own);
                    }
                }
                Piece::End => {
                    self.has_ended = true;
                    self.ends();
                    let rest = self.reader.finish();
                    break if rest.is_empty() { Next::End } else { Next::Bytes(rest) };
                }
                Piece::Broke(event) => {
                    self.has_ended = true;
                    self.ends();
                    break Next::Broke(event_or_own(event));
                }
            }
        };
        self.goes_on();
        next
    }

    /// Takes back what flew with the call, and books what nobody has booked.
    fn ends(&mut self) {
        let landed = self.follower.has_landed();
        match &mut self.who {
            Who::Leader(end) => {
                if let Some(LeaderEnd::Answered(record, ending)) = self.follower.leaders_end() {
                    *end = Some((record, ending));
                }
            }
            Who::Joiner { record: Some(record), aboard, unbooked } => {
                if let Some(Landed::Asked(asked)) = landed {
                    aboard.lands(record, unbooked.take(), &asked);
                } else if let Some(share) = self.follower.share_of_broken() {
                    aboard.breaks(record, unbooked.take().is_some(), share);
                }
            }
            Who::Joiner { .. } => {}
        }
    }

    fn record(&mut self) -> Option<&mut Box<Record>> {
        match &mut self.who {
            Who::Leader(Some((record, _))) => Some(record),
            Who::Joiner { record, .. } => record.as_mut(),
            Who::Leader(None) => None,
        }
    }

    /// From now on the client is waited for.
    pub(super) fn waits(&mut self) {
        if let Some(record) = self.record() {
            record.waits();
        }
    }

    /// The wait is over.
    pub(super) fn goes_on(&mut self) {
        if let Some(record) = self.record() {
            record.goes_on();
        }
    }

    /// Ends the record after the client got everything.
    pub(super) fn served(self, status: u16) {
        let ending = match self.reader.has_failed() {
            true => Ending::UpstreamBroke,
            false => Ending::Served,
        };
        self.written(ending, status);
    }

    /// Ends the record after a break.
    pub(super) fn broken(self, status: u16) {
        self.written(Ending::UpstreamBroke, status);
    }

    /// The client has left; the call goes on while others follow it. A leader's outcome is written where the call ends.
    pub(super) fn client_left(self, status: u16) {
        self.written(Ending::ClientGone, status);
    }

    fn written(self, ending: Ending, status: u16) {
        match self.who {
            Who::Leader(Some((record, flown))) => {
                let ending = if ending == Ending::Served { flown } else { ending };
                record.ended(ending, status);
            }
            Who::Leader(None) => {}
            Who::Joiner { record, .. } => {
                let Some(mut record) = record else { return };
                if ending == Ending::UpstreamBroke {
                    record.note(|outcome| outcome.code = Some("upstream_broke"));
                }
                record.ended(ending, status);
            }
        }
    }
}

/// The event that says why it broke off; our own where the call was cut off with us.
fn event_or_own(event: Bytes) -> Bytes {
    if !event.is_empty() {
        return event;
    }
    let error = serde_json::json!({"error": {
        "message": "the gateway is being stopped; ask again", "type": "server_error", "param": null, "code": "upstream_broke",
    }});
    sse::event(&error.to_string())
}
