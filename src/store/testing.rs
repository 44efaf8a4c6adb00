//! One behaviour suite for every database: SQLite in a temporary folder, and PostgreSQL where its programs are installed
//! (a server of our own, one for the test process). A second database never gets a copy of a test.

pub(crate) mod postgres;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Executor as _;
use tempfile::TempDir;

use self::postgres::Server;
use super::engine::{DatabaseConfig, Location};
use super::open::Store;
use crate::domain::secret::Secret;

/// A fresh database.
pub(crate) struct TestDatabase {
    /// How it is opened; a test may change it.
    pub(crate) config: DatabaseConfig,
    /// SQLite's folder, removed with it.
    _folder: Option<TempDir>,
}

impl TestDatabase {
    /// A SQLite file of its own.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { config: DatabaseConfig::in_folder(folder.path()), _folder: Some(folder) }
    }

    /// A database of its own on a PostgreSQL server.
    pub(crate) async fn on(server: &Server) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
        let config = |name: &str| DatabaseConfig::at(Location::Postgres(Secret::new(server.url(name))));
        sqlx::any::install_default_drivers();
        let admin = sqlx::AnyPool::connect(&server.url("postgres")).await.expect("the server's own database");
        admin
            .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .expect("a database is made");
        admin.close().await;
        Self { config: config(&name), _folder: None }
    }

    /// Opens it, once more too: as another process would, or after a restart.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.config).await.expect("the store opens")
    }

    /// Whether it is SQLite.
    pub(crate) const fn is_sqlite(&self) -> bool {
        matches!(self.config.location, Location::Folder(_))
    }
}

/// The server that all suites of this process share, or why there is none.
pub(crate) fn shared() -> Result<&'static Server, &'static str> {
    static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
    SHARED.get_or_init(Server::start).as_ref().map_err(String::as_str)
}

/// Runs a suite on each database, each time on a fresh one.
pub(crate) async fn for_each_database(suite: impl AsyncFn(&TestDatabase)) {
    println!("on SQLite");
    suite(&TestDatabase::sqlite()).await;
    match shared() {
        Ok(server) => {
            println!("on PostgreSQL");
            suite(&TestDatabase::on(server).await).await;
        }
        Err(reason) => println!("skipped on PostgreSQL: {reason}"),
    }
}
