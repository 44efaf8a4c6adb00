//! The only file that knows which database: a SQLite file in the state folder.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Executor as _, SqlStr};
use url::Url;

const DATABASE_FILE: &str = "tunegate.db";
/// One writer at a time is SQLite's rule; the others read.
const CONNECTIONS: u32 = 4;
/// How long a query waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for another writer, survives a crash of ours (not of the machine's power) without an fsync for each row.
const SQLITE_PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                              PRAGMA foreign_keys = ON;";

/// Every step of the tables' shape, in order; a step that was released never changes.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "keys and pins", include_str!("migrations/0001_keys_and_pins.sql")),
    (2, "teams and keys", include_str!("migrations/0002_teams_and_keys.sql")),
];

/// Why rows can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be made.
    #[error("can't make the database {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// The path is none that a database URL can carry.
    #[error("the database's path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    /// The database said no.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables can't be brought into today's shape.
    #[error("the database can't be migrated (made by a newer tunegate?): {0}")]
    Migration(#[from] MigrateError),
    /// A row with the same unique value is there.
    #[error("there is such a row already")]
    Taken,
    /// A row holds what we never write.
    #[error("the row of {0} is damaged")]
    Damaged(String),
}

/// The rows, behind a pool of connections. A clone is another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
}

impl Store {
    /// Opens the database in the state folder, and makes or migrates it. Needs a tokio runtime.
    pub async fn open(state_dir: &Path) -> Result<Self, StoreError> {
        install_default_drivers();
        let url = sqlite_url(&state_dir.join(DATABASE_FILE))?;
        let options = AnyConnectOptions::from_url(&url)?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_with(options)
            .await?;
        migrator().run(&pool).await?;
        Ok(Self { pool })
    }

    /// The pool, for the files of this room.
    pub(super) const fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Waits for running queries and closes all connections; SQLite then folds its write-ahead log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(SQLITE_PRAGMAS).await.map(drop)
}

fn migrator() -> Migrator {
    let step = |(version, description, sql): (i64, &'static str, &'static str)| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.into_iter().map(step).collect())
}

/// Makes the file for us alone, if it is not there, and names it as a URL.
fn sqlite_url(path: &Path) -> Result<Url, StoreError> {
    let failed = |error| StoreError::File { path: path.to_owned(), error };
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let absolute = path::absolute(path).map_err(failed)?;
    let file = Url::from_file_path(&absolute).map_err(|()| StoreError::Path(absolute))?;
    let text = format!("sqlite://{}?mode=rw", file.path());
    Url::parse(&text).map_err(|_| StoreError::Path(path.to_owned()))
}

/// Whether a failure is that of a unique value that is there already.
pub(super) fn or_taken(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => StoreError::Taken,
        _ => StoreError::Database(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn opens_twice_in_an_odd_folder() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a b?c#%20é");
        std::fs::create_dir(&folder).expect("made");
        for _ in 0..2 {
            let store = Store::open(&folder).await.expect("opened");
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
        let error = Store::open(&parent.path().join("none")).await.expect_err("no folder");
        assert!(error.to_string().contains("can't make the database"), "{error}");
    }
}
