//! A pool of connections whose every query ends: answered, refused, or given up at its limit. A connection that was given
//! up on is closed, never returned: a server that hangs would keep it for ever.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use sqlx::any::{AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Either, Execute, Executor, SqlStr};

use super::engine::{StoreError, Turns, within};

/// The server's own limit strikes first: its error says more.
const GRACE: Duration = Duration::from_millis(500);
/// For everything that one snapshot is read for.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);

/// The pool. A clone is another handle to the same one. `&Pool` runs queries like sqlx's own; their rows are gathered
/// before the first is handed out, so each query bounds how many it reads.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    connections: AnyPool,
    limit: Duration,
    /// What begins a transaction that sees one state of the tables.
    snapshot: &'static str,
    turns: Turns,
}

impl Pool {
    pub(super) fn new(
        connections: AnyPool,
        statement_timeout: Duration,
        snapshot: &'static str,
        turns: Turns,
    ) -> Self {
        Self { connections, limit: statement_timeout + GRACE, snapshot, turns }
    }

    pub(super) async fn close(&self) {
        self.connections.close().await;
    }

    /// Runs work in one transaction: all of it, or nothing. The whole of it has the time of one query.
    pub(super) async fn transaction<T: Send>(
        &self,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    ) -> Result<T, sqlx::Error> {
        let mut lease = self.lease().await?;
        let done = within(self.limit, async {
            let _turn = self.turns.take().await;
            let mut transaction = lease.connection().begin().await?;
            let value = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        });
        let done = done.await;
        lease.end(&done);
        done
    }

    /// Reads in one transaction that sees the tables as they are at its beginning, whatever is written meanwhile. It may
    /// take as long as [`SNAPSHOT_LIMIT`].
    pub(super) async fn snapshot<T: Send>(
        &self,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut lease = self.lease().await?;
        let reading = async {
            let mut transaction = lease.connection().begin_with(self.snapshot).await?;
            let value = work(&mut transaction).await;
            transaction.rollback().await?;
            Ok(value)
        };
        let done = within(SNAPSHOT_LIMIT, reading).await;
        lease.end(&done);
        done?
    }

    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let connection = self.connections.acquire().await?;
        Ok(Lease { connection: Some(connection), ended: false })
    }
}

/// A connection on loan. Dropped before its query ended, it is closed.
struct Lease {
    /// There until the drop.
    connection: Option<PoolConnection<Any>>,
    ended: bool,
}

impl Lease {
    #[expect(clippy::expect_used, reason = "only the drop takes it out")]
    fn connection(&mut self) -> &mut PoolConnection<Any> {
        self.connection.as_mut().expect("it is there until the drop")
    }

    /// Notes how the query ended: only a connection that answered goes back to the pool.
    fn end<T>(&mut self, done: &Result<T, sqlx::Error>) {
        self.ended = matches!(done, Ok(_) | Err(sqlx::Error::Database(_)));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.ended
        {
            drop(connection.detach());
        }
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let gather = async move {
            let mut lease = self.lease().await?;
            let steps = async {
                let mut steps = Vec::new();
                let mut running = lease.connection().fetch_many(query);
                while let Some(step) = running.next().await {
                    steps.push(step?);
                }
                Ok(steps)
            };
            let done = within(self.limit, steps).await;
            lease.end(&done);
            done
        };
        let steps = gather.map(|done| match done {
            Ok(steps) => stream::iter(steps.into_iter().map(Ok)).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        steps.flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let fetch = async move {
            let mut lease = self.lease().await?;
            let done = within(self.limit, lease.connection().fetch_optional(query)).await;
            lease.end(&done);
            done
        };
        fetch.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let prepare = async move {
            let mut lease = self.lease().await?;
            let done = within(self.limit, lease.connection().prepare_with(sql, parameters)).await;
            lease.end(&done);
            done
        };
        prepare.boxed()
    }
}
