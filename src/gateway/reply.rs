//! What a client gets: an answer of its own, or its view of one that several share.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::meter::{Answer, AnswerBody, Metered, Next};
use super::record::{Record, Refused};
use super::shared::Shared;
use crate::domain::outcome::Ending;

/// A request that ends without an answer.
pub enum NoAnswer {
    /// We say no.
    Refused(Box<Refused>),
    /// Nobody is there to be told, or nothing is left to be said; its outcome is written, or will be.
    Gone,
}

impl From<Box<Refused>> for NoAnswer {
    fn from(refused: Box<Refused>) -> Self {
        Self::Refused(refused)
    }
}

/// A reply to a client.
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, content type included.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Body,
}

/// A reply's body.
pub enum Body {
    /// All of it, settled; the record is ended by whoever writes it.
    Whole {
        /// The bytes.
        body: Bytes,
        /// The outcome, but for its end.
        record: Box<Record>,
        /// How it ends if the client gets all of it.
        ending: Ending,
    },
    /// As it comes.
    Stream(Streamed),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let Answer { status, headers, body, .. } = answer;
        let body = match body {
            AnswerBody::Whole { body, record, ending } => Body::Whole { body, record, ending },
            AnswerBody::Stream(metered) => Body::Stream(Streamed(Way::Own(metered))),
        };
        Self { status, headers, body }
    }
}

/// An answer that comes piece by piece.
pub struct Streamed(Way);

enum Way {
    /// Of an upstream that was asked for this request alone.
    Own(Box<Metered>),
    /// Of a call that several may share.
    Shared(Box<Shared>),
}

impl Streamed {
    /// A view of a call that several may share.
    pub(super) fn shared(shared: Shared) -> Self {
        Self(Way::Shared(Box::new(shared)))
    }

    /// The next bytes. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next {
        match &mut self.0 {
            Way::Own(metered) => metered.next().await,
            Way::Shared(shared) => shared.next().await,
        }
    }

    /// From now on the client is waited for.
    pub fn waits(&mut self) {
        match &mut self.0 {
            Way::Own(metered) => metered.waits(),
            Way::Shared(shared) => shared.waits(),
        }
    }

    /// The wait is over.
    pub fn goes_on(&mut self) {
        match &mut self.0 {
            Way::Own(metered) => metered.goes_on(),
            Way::Shared(shared) => shared.goes_on(),
        }
    }

    /// Ends the record after the client got everything.
    pub fn served(self, status: u16) {
        match self.0 {
            Way::Own(metered) => metered.served(status),
            Way::Shared(shared) => shared.served(status),
        }
    }

    /// Ends the record after [`Next::Broke`].
    pub fn broken(self, status: u16) {
        match self.0 {
            Way::Own(metered) => metered.broken(status),
            Way::Shared(shared) => shared.broken(status),
        }
    }

    /// The client has left.
    pub async fn client_left(self, status: u16) {
        match self.0 {
            Way::Own(metered) => metered.client_left(status).await,
            Way::Shared(shared) => shared.client_left(status),
        }
    }
}
