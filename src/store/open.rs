//! Opens the database: the handle through which all rows are read and written.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use tokio::time::timeout;

use super::connection::Connection;
use super::engine::{Commit, DatabaseConfig, Location, Opener, StoreError};
use super::pool::Pool;

/// For connections to be closed at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// From this size on the log begins anew, for which writers wait.
const LONG_LOG_BYTES: u64 = 16 << 20;

/// The rows, behind a pool of connections. A clone is another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    opener: Arc<Opener>,
}

impl Store {
    /// Opens the database, and makes or migrates its tables. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When it can't be reached within its limits, or was made by a newer version.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, StoreError> {
        install_default_drivers();
        let opener = Arc::new(Opener::new(config)?);
        opener.migrate().await?;
        opener.remember_file();
        let (preparing, keeping) = (Arc::clone(&opener), Arc::clone(&opener));
        let pool = AnyPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(config.acquire_timeout)
            .after_connect(move |connection, _| {
                let opener = Arc::clone(&preparing);
                Box::pin(async move { opener.prepare(connection, Commit::Usual).await })
            })
            .before_acquire(move |_, _| {
                let in_place = keeping.must_be_in_place();
                Box::pin(async move { in_place.map(|()| true) })
            })
            .connect_with(opener.options.clone())
            .await?;
        let snapshot = match config.location {
            Location::Folder(_) => "BEGIN",
            Location::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Self { pool: Pool::new(pool, config.statement_timeout, snapshot, opener.turns.clone()), opener })
    }

    /// The pool, for the files of this room. Every query through it ends within its limits.
    pub(super) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A connection apart from the pool, with the configured durability, for the ledger's writer. It connects when it is
    /// first used, and again when it was lost.
    pub fn dedicated(&self) -> Connection {
        Connection::new(Arc::clone(&self.opener))
    }

    /// Folds SQLite's write-ahead log into the file: most of it while others write, and the rest in a moment in which
    /// they wait, if the log has become long. PostgreSQL does that by itself.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(log) = self.opener.log_bytes().filter(|bytes| *bytes > 0) else { return Ok(()) };
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_all(&self.pool).await?;
        if log >= LONG_LOG_BYTES {
            let _turn = self.opener.turns.take().await;
            sqlx::query("PRAGMA wal_checkpoint(RESTART)").fetch_all(&self.pool).await?;
        }
        Ok(())
    }

    /// Waits for running queries and closes all connections; SQLite then folds its write-ahead log into the file. Gives
    /// up after 5 s.
    pub async fn close(&self) {
        let _ = timeout(CLOSE_LIMIT, self.pool.close()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use futures_util::FutureExt as _;
    use sqlx::Executor as _;

    use super::*;
    use crate::domain::secret::Secret;
    use crate::store::engine::{DATABASE_FILE, Durability, MIGRATIONS};
    use crate::store::testing::postgres::Server;
    use crate::store::testing::{TestDatabase, for_each_database};

    #[tokio::test]
    async fn opens_twice_in_an_odd_folder() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a b?c#%20é");
        std::fs::create_dir(&folder).expect("made");
        for _ in 0..2 {
            let store = Store::open(&DatabaseConfig::in_folder(&folder)).await.expect("opened");
            let mode: String =
                sqlx::query_scalar("PRAGMA journal_mode").fetch_one(store.pool()).await.expect("a mode");
            assert_eq!(mode, "wal");
            store.close().await;
        }
        let file = folder.join(DATABASE_FILE);
        assert_eq!(std::fs::metadata(file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_missing_folder_is_said() {
        let parent = tempfile::tempdir().expect("a folder");
        let config = DatabaseConfig::in_folder(parent.path().join("none"));
        let error = Store::open(&config).await.expect_err("no folder");
        assert!(error.to_string().contains("can't make the database"), "{error}");
    }

    /// What a connection says of how it commits.
    async fn commits(connection: &mut Connection, sqlite: bool) -> String {
        let sql = match sqlite {
            true => "PRAGMA synchronous",
            false => "SELECT current_setting('synchronous_commit')",
        };
        let row = connection.run(|c| c.fetch_one(sql).boxed()).await.expect("a row");
        let number = sqlx::Row::try_get::<i64, _>(&row, 0).map(|number| number.to_string());
        number.or_else(|_| sqlx::Row::try_get(&row, 0)).expect("a number or a word")
    }

    #[tokio::test]
    async fn the_ledgers_connection_commits_as_it_is_configured() {
        for_each_database(async |database| {
            let mut config = database.config.clone();
            for (durability, sqlite, postgres) in
                [(Durability::Process, "1", "off"), (Durability::Power, "2", "on")]
            {
                config.durability = durability;
                let store = Store::open(&config).await.expect("opened");
                let want = if database.is_sqlite() { sqlite } else { postgres };
                assert_eq!(commits(&mut store.dedicated(), database.is_sqlite()).await, want);
                store.close().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn processes_that_start_at_once_migrate_once() {
        for_each_database(async |database| {
            let opened = futures_util::future::join_all((0..6).map(|_| Store::open(&database.config))).await;
            for store in opened {
                store.expect("opened").close().await;
            }
            let store = database.open().await;
            let steps: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations")
                .fetch_one(store.pool())
                .await
                .expect("counted");
            assert_eq!(steps, i64::try_from(MIGRATIONS.len()).expect("few"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        for_each_database(async |database| {
            let store = database.open().await;
            store
                .pool()
                .execute("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1")
                .await
                .expect("written");
            store.close().await;
            let error = Store::open(&database.config).await.expect_err("newer");
            assert!(error.to_string().contains("made by a newer tunegate?"), "{error}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_transaction_is_all_or_nothing() {
        for_each_database(async |database| {
            let store = database.open().await;
            store.pool().execute("CREATE TABLE t (n BIGINT PRIMARY KEY)").await.expect("made");
            let twice = |second: i64| {
                store.pool().transaction(move |connection| {
                    async move {
                        for n in [1, second] {
                            let insert = sqlx::query("INSERT INTO t (n) VALUES ($1)").bind(n);
                            insert.execute(&mut *connection).await?;
                        }
                        Ok(())
                    }
                    .boxed()
                })
            };
            let count = async || {
                let counted = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM t");
                counted.fetch_one(store.pool()).await.expect("counted")
            };
            twice(1).await.expect_err("the same number twice");
            assert_eq!(count().await, 0);
            twice(2).await.expect("written");
            assert_eq!(count().await, 2);
        })
        .await;
    }

    #[tokio::test]
    async fn another_writer_is_waited_for_but_not_for_ever() {
        let mut database = TestDatabase::sqlite();
        database.config.statement_timeout = Duration::from_millis(100);
        let store = database.open().await;
        let mut blocker = store.opener.connect(Commit::Usual).await.expect("connected");
        blocker.execute("BEGIN IMMEDIATE").await.expect("begun");
        let write = "DELETE FROM pins";
        let error = store.pool().execute(write).await.expect_err("locked");
        assert!(error.to_string().contains("locked"), "{error}");
        let mut dedicated = store.dedicated();
        dedicated.run(|c| c.execute(write).boxed()).await.expect_err("locked");
        blocker.execute("COMMIT").await.expect("ended");
        store.pool().execute(write).await.expect("free again");
        dedicated.run(|c| c.execute(write).boxed()).await.expect("free again");
    }

    /// PAINS 24: a paused database hung all requests of a sibling.
    #[tokio::test]
    async fn a_hanging_database_is_an_error_within_the_limits_and_comes_back() {
        let server = match Server::start() {
            Ok(server) => server,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let mut database = TestDatabase::on(&server).await;
        database.config.acquire_timeout = Duration::from_millis(300);
        database.config.statement_timeout = Duration::from_millis(300);
        let store = database.open().await;
        let mut dedicated = store.dedicated();
        let read = "SELECT COUNT(*) FROM pins";
        dedicated.run(|c| c.execute(read).boxed()).await.expect("answered");
        server.freeze();
        let begun = crate::clock::monotonic();
        // more than there are connections: none is kept for ever by a query that was given up
        for _ in 0..DatabaseConfig::CONNECTIONS + 2 {
            store.pool().execute(read).await.expect_err("no answer");
        }
        dedicated.run(|c| c.execute(read).boxed()).await.expect_err("no answer");
        Store::open(&database.config).await.expect_err("no answer");
        let waited = begun.elapsed();
        server.thaw();
        assert!(waited < Duration::from_secs(20), "{waited:?}");
        store.pool().execute(read).await.expect("answered again");
        dedicated.run(|c| c.execute(read).boxed()).await.expect("answered again");
        drop(server);
        store.pool().execute(read).await.expect_err("gone");
        Store::open(&database.config).await.expect_err("gone");
    }

    #[tokio::test]
    async fn a_slow_statement_is_ended_by_the_server() {
        let server = match crate::store::testing::shared() {
            Ok(server) => server,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let mut database = TestDatabase::on(server).await;
        database.config.statement_timeout = Duration::from_millis(50);
        let store = database.open().await;
        let error = store.pool().execute("SELECT pg_sleep(10)").await.expect_err("too slow");
        assert!(error.to_string().contains("statement timeout"), "{error}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let url = Secret::new("postgres://u:hunter2@localhost/db");
        let opener = Opener::new(&DatabaseConfig::at(Location::Postgres(url))).expect("a URL");
        assert!(!format!("{opener:?}").contains("hunter2"));
    }
}
