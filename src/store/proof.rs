//! Proves the books: reads the whole journal in one snapshot, adds it up again, and says every difference.

use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt as _;
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};

use super::engine::StoreError;
use super::ledger;
use super::open::Store;
use super::spend::{
    AFTER_ATTRIBUTION, DIFFERENT_DAYS, HEADS, Heads, PromptDays, booked_on, heads, on_columns, sum_columns,
    summed_columns, sums,
};
use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::money::Usd;
use crate::domain::spend::Sums;

/// Entries read at once.
const PAGE: usize = 2_000;
/// Differences that are told; what is wrong beyond them is counted.
const TOLD: usize = 100;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// How far the journal is worked up.
    #[serde(flatten)]
    pub heads: Heads,
    /// The first entry that is kept; 0 for none.
    pub first_seq: Seq,
    /// The last one.
    pub last_seq: Seq,
    /// Entries that were read.
    pub entries: i64,
    /// Holds that have no end yet.
    pub open_holds: usize,
    /// What they hold.
    #[serde(rename = "held_usd")]
    pub held: Usd,
    /// The sums of the kept entries and of those that were cleaned up.
    pub sums: Sums,
    /// What does not agree, a line each; at most 100.
    pub differences: Vec<String>,
    /// How many there are.
    pub difference_count: usize,
}

/// What the entries add up to, while they are read.
#[derive(Default)]
struct Reading {
    first: Seq,
    last: Seq,
    entries: i64,
    open: BTreeMap<Seq, Entry>,
    /// By attribution, up to the last entry that is in the slots.
    folded: HashMap<String, Sums>,
    all: Sums,
    /// What stored prompts cost, up to the same entry.
    prompts: PromptDays,
    differences: Vec<String>,
    difference_count: usize,
}

/// The journal and its sums, for the proof.
#[derive(Debug, Clone)]
pub struct Books {
    store: Store,
}

impl Books {
    /// The books of a store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Adds everything up again: entries and closings equal the slots for each attribution, the slots of each day equal
    /// the sums by day, what entries say of stored prompts is in their days, numbers have no gap, each hold has at most one end, with its amount and its attribution, and what is reserved is what the open holds hold.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        self.store.pool().snapshot(|connection| audit(connection).boxed()).await
    }
}

async fn audit(connection: &mut AnyConnection) -> Result<Audit, StoreError> {
    let heads = heads(&sqlx::query(HEADS).fetch_one(&mut *connection).await?)?;
    let mut reading = Reading { last: heads.closed, ..Reading::default() };
    loop {
        let rows = ledger::after(reading.last, PAGE).fetch_all(&mut *connection).await?;
        for row in &rows {
            reading.take(ledger::entry(row)?, &heads);
        }
        if rows.len() < PAGE {
            break;
        }
    }
    let stray: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM ledger WHERE seq <= $1")
        .bind(heads.closed)
        .fetch_one(&mut *connection)
        .await?;
    if stray > 0 {
        reading.differ(format!("{stray} entries up to {} are kept although they were closed", heads.closed));
    }
    let closings = by_attribution(
        connection,
        concat!("SELECT ", on_columns!(), ", ", sum_columns!(), ", booked_on FROM ledger_closings"),
    );
    for (on, (_, sums)) in closings.await? {
        reading.folded.entry(on).or_default().add(&sums);
        reading.all.add(&sums);
    }
    let slots = by_attribution(
        connection,
        concat!(
            "SELECT ",
            on_columns!(),
            ", ",
            summed_columns!(),
            ", booked_on FROM spend_slots GROUP BY booked_on, ",
            on_columns!()
        ),
    );
    reading.compare(slots.await?);
    for row in sqlx::query(DIFFERENT_DAYS).fetch_all(&mut *connection).await? {
        let usd = |column| row.try_get(column).map(Usd::from_nanos);
        let (day, days, slots): (i64, _, _) = (row.try_get(0)?, usd(6)?, usd(7)?);
        let account = (1..6).map(|column| row.try_get::<String, _>(column));
        let account = account.collect::<Result<Vec<_>, _>>()?.join(" ");
        reading.differ(format!(
            "day {day} since 1970, {account}: the sums by day say {days} USD, the slots {slots}"
        ));
    }
    let prompts = std::mem::take(&mut reading.prompts);
    for difference in prompts.differences(heads.closed > 0, connection).await? {
        reading.differ(difference);
    }
    Ok(reading.end(heads))
}

/// Sums by attribution, with how it is told to a person.
async fn by_attribution(
    connection: &mut AnyConnection,
    sql: &'static str,
) -> Result<HashMap<String, (String, Sums)>, StoreError> {
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let read = rows.iter().map(|row| {
        let on: String = row.try_get("booked_on")?;
        let told = (0..AFTER_ATTRIBUTION).map(|column| row.try_get::<String, _>(column));
        let told = told.collect::<Result<Vec<_>, _>>()?.join(" ").replace('\n', ",");
        Ok((on, (told, sums(row, AFTER_ATTRIBUTION)?)))
    });
    read.collect()
}

impl Reading {
    fn differ(&mut self, words: String) {
        self.difference_count += 1;
        if self.differences.len() < TOLD {
            self.differences.push(words);
        }
    }

    fn take(&mut self, entry: Entry, heads: &Heads) {
        let seq = entry.seq;
        if seq != self.last + 1 {
            self.differ(format!("entries {} to {} are missing", self.last + 1, seq - 1));
        }
        if self.entries == 0 {
            self.first = seq;
        }
        self.last = seq;
        self.entries += 1;
        let sums = Sums::of(&entry);
        self.all.add(&sums);
        if seq <= heads.folded {
            self.folded.entry(booked_on(&entry.attribution)).or_default().add(&sums);
            self.prompts.count(&entry);
        }
        if entry.kind == EntryKind::Hold {
            self.open.insert(seq, entry);
        } else if entry.kind.ends_a_hold() && entry.of > 0 {
            self.end_hold(&entry, heads);
        }
    }

    fn end_hold(&mut self, end: &Entry, heads: &Heads) {
        let (seq, of) = (end.seq, end.of);
        match self.open.remove(&of) {
            Some(hold) if hold.held != end.held => {
                self.differ(format!(
                    "entry {seq} gives back {}, its hold {of} holds {}",
                    end.held, hold.held
                ));
            }
            Some(hold) if hold.attribution != end.attribution => {
                self.differ(format!("entry {seq} is not booked on what its hold {of} is booked on"));
            }
            // a hold may be cleaned up before its end
            None if of > heads.closed => {
                self.differ(format!("entry {seq} ends hold {of}, which has ended or is not there"));
            }
            Some(_) | None => {}
        }
    }

    fn compare(&mut self, slots: HashMap<String, (String, Sums)>) {
        let mut folded = std::mem::take(&mut self.folded);
        for (on, (told, sums)) in slots {
            let entries = folded.remove(&on).unwrap_or_default();
            if entries != sums {
                self.differ(format!(
                    "{told}: the entries say {} USD in {} entries, the slots {} USD in {}",
                    entries.cost, entries.entries, sums.cost, sums.entries
                ));
            }
        }
        for sums in folded.into_values() {
            self.differ(format!("{} USD in {} entries are in no slot", sums.cost, sums.entries));
        }
    }

    fn end(mut self, heads: Heads) -> Audit {
        if self.last < heads.folded {
            self.differ(format!("entries {} to {} are missing", self.last + 1, heads.folded));
        }
        if let Some(hold) = self.open.keys().next().copied().filter(|hold| *hold <= heads.settled) {
            self.differ(format!("hold {hold} is open, before {} that is taken for settled", heads.settled));
        }
        let held: Usd = self.open.values().map(|hold| hold.held).sum();
        if held != self.all.reserved {
            self.differ(format!("{} USD are reserved, the open holds hold {held}", self.all.reserved));
        }
        Audit {
            heads,
            first_seq: self.first,
            last_seq: self.last,
            entries: self.entries,
            open_holds: self.open.len(),
            held,
            sums: self.all,
            differences: self.differences,
            difference_count: self.difference_count,
        }
    }
}
