//! One long-lived connection apart from the pool: the ledger's writer waits for nobody else's query.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{AnyConnection, Connection as _};

use super::engine::{Commit, Marks, Opener, within};

/// The server's own limit strikes first: its error says more.
const GRACE: Duration = Duration::from_millis(500);

/// The connection. It connects when it is first used, and again after any failure but that of a unique value: what state
/// the old one is in can't be known.
#[derive(Debug)]
pub struct Connection {
    opener: Arc<Opener>,
    live: Option<AnyConnection>,
}

impl Connection {
    pub(super) const fn new(opener: Arc<Opener>) -> Self {
        Self { opener, live: None }
    }

    /// Closes it, within the limits of one query; used again, it connects again.
    pub(super) async fn close(&mut self) {
        if let Some(live) = self.live.take() {
            let _ = within(self.opener.statement_timeout(), live.close()).await;
        }
    }

    /// How the values of a long statement are marked.
    pub(super) fn marks(&self) -> Marks {
        self.opener.marks()
    }

    /// Runs one piece of work within the limits of one query. Cut off on the way, or late, it leaves no half-used
    /// connection behind; whether a statement that was late is carried out can't be known.
    pub(super) async fn run<T: Send>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    ) -> Result<T, sqlx::Error> {
        self.opener.must_be_in_place()?;
        let mut connection = match self.live.take() {
            Some(live) => live,
            None => self.opener.connect(Commit::Ledger).await?,
        };
        let working = async {
            let _turn = self.opener.turns().take().await;
            work(&mut connection).await
        };
        let done = within(self.opener.statement_timeout() + GRACE, working).await;
        let is_sound = match &done {
            Ok(_) => true,
            Err(sqlx::Error::Database(error)) => error.is_unique_violation(),
            Err(_) => false,
        };
        if is_sound {
            self.live = Some(connection);
        }
        done
    }
}
