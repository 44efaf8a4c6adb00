//! Whether somebody still waits for the answer.

use std::future::Future;

/// The client's end of a request.
pub trait Client: Send {
    /// Resolves when the client has left; never while it waits. May be dropped and called again.
    fn left(&mut self) -> impl Future<Output = ()> + Send;
}

/// A client that is asked until it has left, and not any more after that.
pub(super) struct Presence<'c, C> {
    client: &'c mut C,
    gone: bool,
}

impl<'c, C: Client> Presence<'c, C> {
    /// A client that is there.
    pub(super) const fn new(client: &'c mut C) -> Self {
        Self { client, gone: false }
    }

    /// Whether it has left.
    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Resolves once: at the moment the client leaves.
    pub(super) async fn left(&mut self) {
        if self.gone {
            std::future::pending::<()>().await;
        }
        self.client.left().await;
        self.gone = true;
    }
}
