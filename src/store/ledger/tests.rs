use std::sync::Arc;

use super::*;
use crate::clock;
use crate::domain::ledger::{Attribution, Purpose};
use crate::domain::money::Usd;
use crate::domain::prompt::Injected;
use crate::domain::usage::TokenCounts;
use crate::store::testing::{TestDatabase, for_each_database, shared};
use crate::store::{DatabaseConfig, Durability};

/// An entry with something in every column.
fn full(seq: Seq, kind: EntryKind, of: Seq) -> Entry {
    let attribution = Attribution {
        key_id: "key_1".into(),
        key: "app".into(),
        team: Some("support".into()),
        end_user: Some("u'1\"; DROP TABLE ledger; --".into()),
        tags: vec!["cost/centre=7".into(), "env:prod".into()],
        model: "support-bot".into(),
        deployment: "support-v3".into(),
        provider: "openai".into(),
        purpose: Purpose::Inference,
    };
    Entry {
        seq,
        kind,
        at_ms: 1_700_000_000_000 + seq,
        written_at_ms: 1_700_000_000_500 + seq,
        of,
        request_id: format!("req_{}", if of > 0 { of } else { seq }).into(),
        instance: "i-1".into(),
        attribution: Arc::new(attribution),
        tokens: TokenCounts {
            prompt: 1,
            cached: 2,
            cache_write: 3,
            audio_prompt: 4,
            completion: 5,
            reasoning: 6,
            audio_completion: 7,
            compute_us: 8,
        },
        source: Some(UsageSource::Reported),
        held: Usd::from_nanos(8),
        cost: Usd::from_nanos(-9),
        saved: Usd::from_nanos(10),
        price: "prices@2026-11-22".into(),
        note: Some("because\nof é".into()),
        injected: Some(Arc::new(Injected {
            prompt: "support@3".into(),
            tokens: 11,
            cost: Usd::from_nanos(12),
        })),
    }
}

fn hold(seq: Seq) -> Entry {
    Entry { source: None, note: None, injected: None, ..full(seq, EntryKind::Hold, 0) }
}

fn usage(seq: Seq, of: Seq) -> Entry {
    full(seq, EntryKind::Usage, of)
}

fn seqs(entries: &[Entry]) -> Vec<Seq> {
    entries.iter().map(|entry| entry.seq).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back() {
    for_each_database(async |database| {
        let store = database.open().await;
        let mut rows = LedgerRows::new(&store);
        assert_eq!(rows.head().await.expect("read"), 0);
        let nobody = Entry {
            attribution: Arc::default(),
            source: None,
            note: None,
            injected: None,
            ..full(2, EntryKind::Adjustment, 1)
        };
        let written = [hold(1), nobody, usage(3, 1)];
        rows.append(&written).await.expect("written");
        rows.append::<Entry>(&[]).await.expect("nothing to do");
        assert_eq!(rows.head().await.expect("read"), 3);
        assert_eq!(rows.after(0, 10).await.expect("read"), written);
        assert_eq!(seqs(&rows.after(1, 1).await.expect("read")), [2]);
        store.close().await;
        let again = database.open().await;
        assert_eq!(LedgerRows::new(&again).after(0, 10).await.expect("read"), written, "after a restart");
    })
    .await;
}

#[tokio::test]
async fn the_second_process_to_write_a_number_is_told_and_nothing_of_it_is_there() {
    for_each_database(async |database| {
        let store = database.open().await;
        let (mut here, mut there) = (LedgerRows::new(&store), LedgerRows::new(&store));
        here.append(&[hold(1), hold(2)]).await.expect("written");
        let late = there.append(&[hold(2), hold(3)]).await;
        assert!(matches!(late, Err(AppendError::Conflict)), "{late:?}");
        assert_eq!(there.head().await.expect("read"), 2);
        there.append(&[hold(3)]).await.expect("written once it has caught up");
    })
    .await;
}

/// Two that race for every number: each of their entries is there once, and the numbers have no gap.
#[tokio::test]
async fn racing_processes_leave_no_gap_and_lose_nothing() {
    const EACH: usize = 40;
    for_each_database(async |database| {
        let writer = async |name: &str| {
            let store = database.open().await;
            let mut rows = LedgerRows::new(&store);
            for _ in 0..EACH {
                loop {
                    let seq = rows.head().await.expect("read") + 1;
                    let entry = Entry { instance: name.into(), ..hold(seq) };
                    match rows.append(&[entry]).await {
                        Ok(()) => break,
                        Err(AppendError::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            store.close().await;
        };
        tokio::join!(writer("a"), writer("b"), writer("c"));
        let store = database.open().await;
        let entries = LedgerRows::new(&store).after(0, 1_000).await.expect("read");
        assert_eq!(seqs(&entries), (1..=3 * EACH as i64).collect::<Vec<_>>());
        for name in ["a", "b", "c"] {
            assert_eq!(entries.iter().filter(|entry| &*entry.instance == name).count(), EACH);
        }
    })
    .await;
}

#[tokio::test]
async fn a_hold_ends_once() {
    for_each_database(async |database| {
        let store = database.open().await;
        let mut rows = LedgerRows::new(&store);
        rows.append(&[hold(1), hold(2), usage(3, 1)]).await.expect("written");
        let twice = rows.append(&[full(4, EntryKind::Release, 2), full(5, EntryKind::Release, 1)]).await;
        assert!(matches!(twice, Err(AppendError::EndedBefore)), "{twice:?}");
        assert_eq!(seqs(&rows.open_holds(0).await.expect("read")), [2], "all or none");
        let corrections = [full(4, EntryKind::Adjustment, 3), full(5, EntryKind::Adjustment, 3)];
        rows.append(&corrections).await.expect("a correction is no end");
        rows.append(&[usage(6, 0), usage(7, 0)]).await.expect("what had no hold ends none");
        assert!(rows.open_holds(3).await.expect("read").is_empty(), "none from there on");
    })
    .await;
}

#[tokio::test]
async fn a_request_is_found_with_its_end_and_its_corrections() {
    for_each_database(async |database| {
        let store = database.open().await;
        let mut rows = LedgerRows::new(&store);
        rows.append(&[hold(1), hold(2), usage(3, 2), usage(4, 1)]).await.expect("written");
        let correction = Entry { request_id: "req_1".into(), ..full(5, EntryKind::Adjustment, 4) };
        rows.append(&[correction]).await.expect("written");
        let pages = LedgerPages::new(&store);
        assert_eq!(seqs(&pages.by_request("req_1").await.expect("read")), [1, 4, 5]);
        assert!(pages.by_request("req_9").await.expect("read").is_empty());
        assert_eq!(pages.get(2).await.expect("read"), Some(hold(2)));
        assert_eq!(pages.get(9).await.expect("read"), None);
    })
    .await;
}

#[tokio::test]
async fn pages_are_filtered_and_come_latest_first() {
    for_each_database(async |database| {
        let store = database.open().await;
        let mut rows = LedgerRows::new(&store);
        let other = |seq: Seq, change: fn(&mut Attribution)| {
            let mut entry = usage(seq, 0);
            change(Arc::make_mut(&mut entry.attribution));
            entry
        };
        let written = [
            hold(1),
            usage(2, 1),
            other(3, |on| on.key_id = "key_2".into()),
            other(4, |on| on.tags = vec!["env:prod-eu".into()]),
            other(5, |on| on.tags = vec!["ENV:PROD".into()]),
            other(6, |on| on.team = None),
            Entry { source: Some(UsageSource::Unconfirmed), ..usage(7, 0) },
            full(8, EntryKind::CacheHit, 0),
        ];
        rows.append(&written).await.expect("written");
        let pages = LedgerPages::new(&store);
        let text = |text: &str| Some(text.to_owned());
        let all = LedgerFilter::default;
        for (filter, want) in [
            (all(), &[8, 7, 6, 5, 4, 3, 2][..]),
            (LedgerFilter { key: text("key_2"), ..all() }, &[3]),
            (LedgerFilter { key: text("app"), before: Some(4), ..all() }, &[3, 2]),
            (LedgerFilter { team: text("support"), from_ms: Some(1_700_000_000_006), ..all() }, &[8, 7]),
            (LedgerFilter { tag: text("env:prod"), until_ms: Some(1_700_000_000_007), ..all() }, &[6, 3, 2]),
            (LedgerFilter { kind: Some(EntryKind::Hold), ..all() }, &[1]),
            (LedgerFilter { kind: Some(EntryKind::CacheHit), ..all() }, &[8]),
            (LedgerFilter { source: Some(UsageSource::Unconfirmed), ..all() }, &[7]),
            (LedgerFilter { model: text("x' OR '1' = '1"), ..all() }, &[]),
            (LedgerFilter { deployment: text("support-v3"), provider: text("azure"), ..all() }, &[]),
        ] {
            assert_eq!(seqs(&pages.page(&filter, 100).await.expect("read")), want, "{filter:?}");
        }
        assert_eq!(seqs(&pages.page(&all(), 2).await.expect("read")), [8, 7]);
    })
    .await;
}

#[tokio::test]
async fn what_is_unconfirmed_is_listed_until_it_is_corrected() {
    for_each_database(async |database| {
        let store = database.open().await;
        let mut rows = LedgerRows::new(&store);
        let doubtful = |seq: Seq, of: Seq| Entry { source: Some(UsageSource::Unconfirmed), ..usage(seq, of) };
        rows.append(&[hold(1), hold(2), hold(3), doubtful(4, 1), doubtful(5, 2), doubtful(6, 3)])
            .await
            .expect("written");
        let pages = LedgerPages::new(&store);
        assert_eq!(seqs(&pages.unconfirmed(None, 10).await.expect("read")), [6, 5, 4]);
        assert_eq!(seqs(&pages.unconfirmed(Some(6), 1).await.expect("read")), [5]);
        assert_eq!(pages.count_unconfirmed().await.expect("counted"), 3);
        // by the settlement's number, and by that of its hold
        rows.append(&[full(7, EntryKind::Adjustment, 4), full(8, EntryKind::Adjustment, 2)])
            .await
            .expect("written");
        assert_eq!(seqs(&pages.unconfirmed(None, 10).await.expect("read")), [6]);
        assert_eq!(pages.count_unconfirmed().await.expect("counted"), 1);
    })
    .await;
}

/// Not run with the others: `cargo test --release --lib appends_a_second -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn appends_a_second() {
    for durability in [Durability::Process, Durability::Power] {
        let mut database = TestDatabase::sqlite();
        database.config.durability = durability;
        measure(&format!("SQLite, {durability:?}"), &database.config).await;
        match shared() {
            Ok(server) => {
                let mut database = TestDatabase::on(server).await;
                database.config.durability = durability;
                measure(&format!("PostgreSQL, {durability:?}"), &database.config).await;
            }
            Err(reason) => println!("skipped: {reason}"),
        }
    }
}

async fn measure(name: &str, config: &DatabaseConfig) {
    const CALLS: i64 = 1_000;
    let store = Store::open(config).await.expect("opened");
    let mut rows = LedgerRows::new(&store);
    let mut seq = 0;
    for size in [1, 8, 32, 64] {
        let mut times = Vec::new();
        let begun = clock::monotonic();
        for _ in 0..CALLS {
            // half of them holds, half their ends, as under load
            let entries: Vec<Entry> = (1..=size)
                .map(|n| if (seq + n) % 2 == 1 { hold(seq + n) } else { usage(seq + n, seq + n - 1) })
                .collect();
            seq += size;
            let call = clock::monotonic();
            rows.append(&entries).await.expect("written");
            times.push(call.elapsed().as_micros());
        }
        let seconds = begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let rows_a_second = (CALLS * size) as f64 / seconds;
        println!(
            "{name}: {size:>2} rows a call: {rows_a_second:>8.0} rows/s, p50 {} us, p99 {} us",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }
}
