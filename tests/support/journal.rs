//! The ledger's rows as they stand in the database, read by SQL of our own, and what must be true of them.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AnyConnection, Connection as _, Executor as _, Row as _};

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) at_ms: i64,
    pub(crate) ends: Option<i64>,
    pub(crate) corrects: Option<i64>,
    pub(crate) request_id: String,
    pub(crate) instance: String,
    /// Everything that it is booked on, in one text.
    pub(crate) booked_on: String,
    pub(crate) end_user: String,
    /// `inference`, `training` or `hosting`.
    pub(crate) purpose: String,
    pub(crate) deployment: String,
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    pub(crate) compute_us: u64,
    pub(crate) source: String,
    pub(crate) held: i64,
    pub(crate) cost: i64,
    pub(crate) saved: i64,
}

impl Entry {
    /// Whether it is of a fine-tuning job.
    pub(crate) fn is_training(&self) -> bool {
        self.purpose == "training"
    }
}

/// All of them, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(pub(crate) Vec<Entry>);

const ROWS: &str = "SELECT seq, kind, at_ms, ends_seq, corrects_seq, request_id, instance, end_user, purpose, deployment,
        key_id || '/' || team || '/' || end_user || '/' || tags || '/' || model || '/' || deployment || '/' || provider
            || '/' || purpose || '/' || price AS booked_on,
        prompt, completion, compute_us, source, held_nanos, cost_nanos, saved_nanos FROM ledger ORDER BY seq";

impl Journal {
    /// Reads it; nothing when the database does not answer just now.
    pub(crate) fn read(url: &str) -> Option<Self> {
        sqlx::any::install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let rows = runtime.block_on(async {
            let mut connection = AnyConnection::connect(url).await.ok()?;
            let rows = sqlx::query(ROWS).fetch_all(&mut connection).await.ok();
            connection.close().await.ok();
            rows
        })?;
        let entries = rows.iter().map(|row| {
            let text = |name: &str| row.get::<String, _>(name);
            let number = |name: &str| row.get::<i64, _>(name);
            let count = |name: &str| u64::try_from(number(name)).expect("no negative count");
            Entry {
                seq: number("seq"),
                kind: text("kind"),
                at_ms: number("at_ms"),
                ends: row.get("ends_seq"),
                corrects: row.get("corrects_seq"),
                request_id: text("request_id"),
                instance: text("instance"),
                booked_on: text("booked_on"),
                end_user: text("end_user"),
                purpose: text("purpose"),
                deployment: text("deployment"),
                prompt: count("prompt"),
                completion: count("completion"),
                compute_us: count("compute_us"),
                source: text("source"),
                held: number("held_nanos"),
                cost: number("cost_nanos"),
                saved: number("saved_nanos"),
            }
        });
        Some(Self(entries.collect()))
    }

    /// The holds of requests that nothing has ended.
    pub(crate) fn open_holds(&self) -> Vec<&Entry> {
        self.all_open_holds().filter(|entry| !entry.is_training()).collect()
    }

    /// The holds of fine-tuning jobs that nothing has ended: they outlive requests and processes.
    pub(crate) fn standing_holds(&self) -> Vec<&Entry> {
        self.all_open_holds().filter(|entry| entry.is_training()).collect()
    }

    fn all_open_holds(&self) -> impl Iterator<Item = &Entry> {
        let ended: BTreeSet<i64> = self.0.iter().filter_map(|entry| entry.ends).collect();
        self.0.iter().filter(move |entry| entry.kind == "hold" && !ended.contains(&entry.seq))
    }

    /// What was used, each with its corrections.
    pub(crate) fn usages(&self) -> Vec<Entry> {
        let mut corrections: BTreeMap<i64, Vec<&Entry>> = BTreeMap::new();
        for entry in self.0.iter().filter(|entry| entry.kind == "adjustment") {
            corrections.entry(entry.corrects.expect("what it corrects")).or_default().push(entry);
        }
        let mut usages: Vec<Entry> = self
            .0
            .iter()
            .filter(|entry| matches!(entry.kind.as_str(), "usage" | "training"))
            .cloned()
            .collect();
        for usage in &mut usages {
            for correction in usage.ends.and_then(|hold| corrections.get(&hold)).into_iter().flatten() {
                usage.cost += correction.cost;
                (usage.prompt, usage.completion) = (correction.prompt, correction.completion);
                usage.source = "corrected".to_owned();
            }
        }
        usages
    }

    /// All that was spent, nano-dollars.
    pub(crate) fn spent(&self) -> i64 {
        self.0.iter().map(|entry| entry.cost).sum()
    }

    /// What must be true at rest: numbers without gaps, and each hold ended once, by an entry that gives back just what
    /// was held and is booked on the same. The holds of jobs that go on may be open.
    #[track_caller]
    pub(crate) fn check(&self) {
        let mut holds: BTreeMap<i64, &Entry> = BTreeMap::new();
        let mut held = 0;
        for (at, entry) in (1..).zip(&self.0) {
            assert_eq!(entry.seq, at, "a gap before {entry:#?}");
            match entry.kind.as_str() {
                "hold" => {
                    assert_eq!((entry.cost, entry.ends), (0, None), "{entry:#?}");
                    held += entry.held;
                    holds.insert(entry.seq, entry);
                }
                "usage" | "release" => {
                    held -= entry.held;
                    assert!(entry.cost >= 0 && (entry.kind == "usage" || entry.cost == 0), "{entry:#?}");
                    let Some(ends) = entry.ends else {
                        // what is free is booked without a hold
                        assert_eq!((entry.cost, entry.held), (0, 0), "{entry:#?}");
                        continue;
                    };
                    let hold = holds.remove(&ends).unwrap_or_else(|| panic!("ended twice: {entry:#?}"));
                    let of = |entry: &Entry| {
                        (entry.held, entry.at_ms, entry.booked_on.clone(), entry.request_id.clone())
                    };
                    assert_eq!(of(hold), of(entry), "{hold:#?} is ended by {entry:#?}");
                }
                "training" => assert_eq!((entry.held, entry.ends), (0, None), "{entry:#?}"),
                "adjustment" => assert!(entry.corrects.is_some() && entry.held == 0, "{entry:#?}"),
                "cache_hit" => {
                    assert_eq!((entry.cost, entry.held, entry.ends), (0, 0, None), "{entry:#?}");
                    assert!(entry.saved >= 0, "{entry:#?}");
                }
                "hosting" => assert!(entry.cost > 0 && entry.held == 0 && entry.ends.is_none(), "{entry:#?}"),
                other => panic!("no test makes a {other}: {entry:#?}"),
            }
        }
        holds.retain(|_, hold| {
            if hold.is_training() {
                held -= hold.held;
            }
            !hold.is_training()
        });
        assert!(holds.is_empty(), "open holds: {holds:#?}");
        assert_eq!(held, 0, "the sum of holds at rest");
    }
}

/// Runs SQL of the test's own on a connection of its own, which lives as long as this does.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    connection: AnyConnection,
}

impl Session {
    #[track_caller]
    pub(crate) fn on(url: &str) -> Self {
        sqlx::any::install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(AnyConnection::connect(url)).expect("a connection");
        Self { runtime, connection }
    }

    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) {
        let Self { runtime, connection } = self;
        // the test's own words
        let statement = sqlx::AssertSqlSafe(sql.to_owned());
        runtime.block_on(connection.execute(statement)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}
