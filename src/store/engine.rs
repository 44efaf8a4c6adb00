//! The only file that knows which database: a SQLite file in the state folder, or PostgreSQL by its URL.
//!
//! Opening makes or migrates the tables; two processes that start at once do it one after the other (SQLite: a lock on
//! the folder; PostgreSQL: an advisory lock).

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{
    AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _,
    SqlStr,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{sleep, timeout};
use url::Url;

use crate::domain::secret::Secret;

pub(super) const DATABASE_FILE: &str = "tunegate.db";
/// For the tables to be made or migrated, another process that does so included.
const MIGRATION_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a lock that another process holds.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// Bytes of a page of SQLite's. A commit writes each page that it touches whole, and those of the ledger touch few bytes
/// of many: a quarter of the default is a quarter of the writing. A file that is there already keeps its own.
const PAGE_BYTES: u64 = 1_024;
/// SQLite folds its write-ahead log into the file when it has so many pages, 64 MiB, and whoever commits waits for the
/// disk: it comes to that only where `Store::checkpoint` is not called.
const CHECKPOINT_PAGES: u64 = 65_536;

/// Every step of the tables' shape, in order; a step that was released never changes.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "keys and pins", include_str!("migrations/0001_keys_and_pins.sql")),
    (2, "teams and keys", include_str!("migrations/0002_teams_and_keys.sql")),
    (3, "prices", include_str!("migrations/0003_prices.sql")),
    (4, "ledger", include_str!("migrations/0004_ledger.sql")),
    (5, "budgets", include_str!("migrations/0005_budgets.sql")),
    (6, "spend days", include_str!("migrations/0006_spend_days.sql")),
    (7, "prompts", include_str!("migrations/0007_prompts.sql")),
    (8, "files", include_str!("migrations/0008_files.sql")),
    (9, "fine-tuning jobs", include_str!("migrations/0009_fine_tuning_jobs.sql")),
    (10, "model registry", include_str!("migrations/0010_registry.sql")),
    (11, "hosting", include_str!("migrations/0011_hosting.sql")),
    (12, "evaluations", include_str!("migrations/0012_evaluations.sql")),
    (13, "captures", include_str!("migrations/0013_captures.sql")),
    (14, "hosting watch", include_str!("migrations/0014_hosting_watch.sql")),
    (15, "compute", include_str!("migrations/0015_compute.sql")),
    (16, "erasures", include_str!("migrations/0016_erasures.sql")),
    (17, "feedback of models", include_str!("migrations/0017_feedback_of_models.sql")),
];

/// Where the rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file in this folder.
    Folder(PathBuf),
    /// A PostgreSQL database, by its URL.
    Postgres(Secret),
}

/// What a written ledger entry survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The end of this process, `kill -9` included. A power cut may lose the last entries: on SQLite those since the
    /// last checkpoint, on PostgreSQL those of the last 0.6 s (three times `wal_writer_delay`; a crash of the server
    /// itself loses them, too). Never an earlier entry without all later ones.
    #[default]
    Process,
    /// A power cut: each group of entries waits for the disk.
    Power,
}

/// How the database is reached and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Which one.
    pub location: Location,
    /// Connections in the pool; the ledger's writer has one of its own beside them.
    pub connections: u32,
    /// How long a query waits for a connection.
    pub acquire_timeout: Duration,
    /// How long a query itself may take; on SQLite also how long it waits for another writer.
    pub statement_timeout: Duration,
    /// What a written ledger entry survives.
    pub durability: Durability,
}

impl DatabaseConfig {
    /// Connections unless the operator says otherwise.
    pub const CONNECTIONS: u32 = 8;
    /// Each of the two waits unless the operator says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// A database with the default limits.
    pub const fn at(location: Location) -> Self {
        Self {
            location,
            connections: Self::CONNECTIONS,
            acquire_timeout: Self::TIMEOUT,
            statement_timeout: Self::TIMEOUT,
            durability: Durability::Process,
        }
    }

    /// The SQLite file in a folder, with the default limits.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self::at(Location::Folder(folder.into()))
    }
}

/// Why rows can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be made.
    #[error("can't make the database {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The path is none that a database URL can carry.
    #[error("the database's path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    /// The configured URL can't be used. It is not repeated: it may hold a password.
    #[error("database.url is no URL of PostgreSQL")]
    Url,
    /// The database said no, or nothing in time.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables can't be brought into today's shape.
    #[error("the database can't be migrated (made by a newer tunegate?): {0}")]
    Migration(#[from] MigrateError),
    /// A row with the same unique value is there.
    #[error("there is such a row already")]
    Taken,
    /// What was read kept changing.
    #[error("the ledger's sums change too fast to be read")]
    Moving,
    /// A row holds what we never write.
    #[error("the row of {0} is damaged")]
    Damaged(String),
}

impl StoreError {
    /// Whether the database won't have a value, such as a zero character in PostgreSQL's texts: no wait helps. Class 22 of
    /// SQLSTATE (PostgreSQL 17, appendix A).
    pub fn is_about_values(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code.len() == 5 && code.starts_with("22"))
    }
}

/// How the values of a statement are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `?`, in the order of the text.
    Unnamed,
    /// `$1`, `$2`, …
    Numbered,
}

/// How a connection commits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Commit {
    /// As rows that are not the ledger's: survives what the database survives, without a wait for each on SQLite.
    Usual,
    /// As the configured durability says.
    Ledger,
}

/// Opens connections to one database.
pub(super) struct Opener {
    config: DatabaseConfig,
    pub(super) options: AnyConnectOptions,
    /// The SQLite file that was opened; none for PostgreSQL.
    file: Option<OpenedFile>,
    pub(super) turns: Turns,
}

/// Whose turn it is to write. One writer at a time is SQLite's rule; one that finds another at it sleeps, for a
/// millisecond at first and then for longer and longer. Those of this process wait for each other here instead.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Option<Arc<Mutex<()>>>);

impl Turns {
    /// Waits for one's turn; with PostgreSQL, whose writers need none, for nothing.
    pub(super) async fn take(&self) -> Option<OwnedMutexGuard<()>> {
        match &self.0 {
            Some(turn) => Some(Arc::clone(turn).lock_owned().await),
            None => None,
        }
    }
}

/// A file, as its path and its file system know it.
struct OpenedFile {
    path: PathBuf,
    /// Device and inode, once it was written to: before, a file system in layers may still copy it.
    identity: OnceLock<(u64, u64)>,
}

impl OpenedFile {
    fn found(&self) -> Option<(u64, u64)> {
        let found = fs::metadata(&self.path).ok()?;
        Some((found.dev(), found.ino()))
    }

    fn is_in_place(&self) -> bool {
        self.identity.get().is_none_or(|identity| self.found() == Some(*identity))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the options hold the URL with its password
        f.debug_struct("Opener").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Opener {
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let (url, file) = match &config.location {
            Location::Folder(folder) => {
                let path = folder.join(DATABASE_FILE);
                (sqlite_url(&path)?, Some(OpenedFile { path, identity: OnceLock::new() }))
            }
            Location::Postgres(url) => (Url::parse(url.expose()).map_err(|_| StoreError::Url)?, None),
        };
        let turns = Turns(file.is_some().then(Arc::default));
        Ok(Self { config: config.clone(), options: AnyConnectOptions::from_url(&url)?, file, turns })
    }

    /// Notes which file it is that has been opened.
    pub(super) fn remember_file(&self) {
        if let Some(file) = &self.file
            && let Some(found) = file.found()
        {
            file.identity.get_or_init(|| found);
        }
    }

    /// Fails once the SQLite file is no longer where it was opened. An open connection would go on writing into a file
    /// that was moved or deleted, and nobody would find those rows again.
    pub(super) fn must_be_in_place(&self) -> Result<(), sqlx::Error> {
        match &self.file {
            Some(file) if !file.is_in_place() => Err(sqlx::Error::Io(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "{} is no longer the file that was opened: put it back, or start again",
                    file.path.display()
                ),
            ))),
            _ => Ok(()),
        }
    }

    /// How long SQLite's write-ahead log is.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        let file = self.file.as_ref()?;
        let log = PathBuf::from(format!("{}-wal", file.path.display()));
        fs::metadata(log).map(|found| found.len()).ok()
    }

    /// Whose turn it is to write.
    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// How long one query of a connection apart from the pool may take.
    pub(super) const fn statement_timeout(&self) -> Duration {
        self.config.statement_timeout
    }

    /// How the values of a long statement are marked. SQLite looks a numbered one up by its name, through all others, each
    /// time it is bound: 64 rows of 30 columns took 7 ms, unnamed ones 1 ms.
    pub(super) const fn marks(&self) -> Marks {
        match self.config.location {
            Location::Folder(_) => Marks::Unnamed,
            Location::Postgres(_) => Marks::Numbered,
        }
    }

    /// Opens one connection, within the time that a query waits for one.
    pub(super) async fn connect(&self, commit: Commit) -> Result<AnyConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            self.prepare(&mut connection, commit).await?;
            Ok(connection)
        };
        within(self.config.acquire_timeout, connecting).await
    }

    /// Sets the limits and the durability of a new connection.
    pub(super) async fn prepare(
        &self,
        connection: &mut AnyConnection,
        commit: Commit,
    ) -> Result<(), sqlx::Error> {
        self.must_be_in_place()?;
        let wait_ms = self.config.statement_timeout.as_millis();
        let for_power = self.config.durability == Durability::Power;
        match &self.config.location {
            Location::Folder(_) => {
                let synchronous = if for_power { "FULL" } else { "NORMAL" };
                // a pragma takes no bound values: a number and a word of ours
                let pragmas = format!(
                    "PRAGMA busy_timeout = {wait_ms}; PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; \
                     PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; \
                     PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;"
                );
                connection.execute(AssertSqlSafe(pragmas)).await.map(drop)
            }
            Location::Postgres(_) => {
                let at_once = matches!(commit, Commit::Ledger) && !for_power;
                sqlx::query(
                    "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false),
                            set_config('idle_in_transaction_session_timeout', $1, false),
                            set_config('synchronous_commit', $2, false)",
                )
                .bind(wait_ms.to_string())
                .bind(if at_once { "off" } else { "on" })
                .execute(connection)
                .await
                .map(drop)
            }
        }
    }

    /// Brings the tables into today's shape, one process after the other.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let migrating = async {
            let _alone = self.alone().await?;
            // without the limits of `prepare`: it may wait for another process, and for long tables
            let mut connection = within(self.config.acquire_timeout, self.options.connect()).await?;
            if matches!(self.config.location, Location::Folder(_)) {
                self.prepare(&mut connection, Commit::Usual).await?;
            }
            migrator(&self.config.location).run(&mut connection).await?;
            Ok(connection.close().await?)
        };
        match timeout(MIGRATION_LIMIT, migrating).await {
            Ok(done) => done,
            Err(_) => Err(late(MIGRATION_LIMIT).into()),
        }
    }

    /// Locks a SQLite file's folder until the lock is dropped; PostgreSQL's migrations lock themselves.
    async fn alone(&self) -> Result<Option<File>, StoreError> {
        let Location::Folder(folder) = &self.config.location else { return Ok(None) };
        let failed = |error| StoreError::File { path: folder.join(DATABASE_FILE), error };
        let lock = File::open(folder).map_err(failed)?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => sleep(LOCK_LOOK).await,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// Waits for a piece of work, but not for long.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> sqlx::Error {
    let words = format!("no answer within {} ms", limit.as_millis());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

/// The steps. What PostgreSQL calls a BIGINT is, as SQLite's INTEGER PRIMARY KEY, the row's own number: the journal is
/// written without an index for it.
fn migrator(location: &Location) -> Migrator {
    let step = |(version, description, sql): (i64, &'static str, &'static str)| {
        let sql = match location {
            Location::Folder(_) => {
                AssertSqlSafe(sql.replace("BIGINT NOT NULL PRIMARY KEY", "INTEGER NOT NULL PRIMARY KEY"))
                    .into_sql_str()
            }
            Location::Postgres(_) => SqlStr::from_static(sql),
        };
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().copied().map(step).collect())
}

/// Makes the file for us alone, if it is not there, and names it as a URL.
fn sqlite_url(path: &Path) -> Result<Url, StoreError> {
    let failed = |error| StoreError::File { path: path.to_owned(), error };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        // not opened here: closing it would drop the locks that SQLite holds in this process
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
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
