//! Hour after hour, whatever cuts a process off.

use super::*;

#[tokio::test]
async fn what_the_configuration_says_is_charged_hour_by_hour() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:50", None))]).await;
    for (clock, want) in [("10:50", "0"), ("10:51", "7"), ("11:50", "7"), ("11:51", "14"), ("13:10", "21")] {
        house.look(clock).await;
        house.look(clock).await;
        assert_eq!(house.booked().await, usd(want), "at {clock}");
    }
    let entries = house.entries().await;
    assert_eq!(entries.len(), 3);
    let first = &entries[0];
    assert_eq!((first.kind, first.at_ms, &*first.price), (EntryKind::Hosting, at("10:50"), "v1"));
    assert_eq!(*first.request_id, *format!("hosting:support:{}:{}", at("10:50"), at("10:50")));
    let on = &first.attribution;
    assert_eq!((&*on.deployment, &*on.provider, on.purpose), ("support", "azure", Purpose::Hosting));
    let report = house.hosting.report(at("13:10")).await.expect("a report");
    assert_eq!((report[0].charged_usd, report[0].usd_per_hour), (usd("21"), Some(usd("7"))));
    assert_eq!(report[0].ends_at_ms, None);
    let leaves = catalog(vec![deployment("support", hosted("10:50", Some("20:00")))]);
    house.hosting.means.catalog.replace(leaves);
    house.look("13:11").await;
    let report = house.hosting.report(at("13:11")).await.expect("a report");
    assert_eq!((report[0].until_ms, report[0].ends_at_ms), (None, Some(at("20:00"))));
}

#[tokio::test]
async fn behind_a_pause_nothing_is_lost_and_nothing_comes_twice() {
    let database = TestDatabase::sqlite();
    let deployments = || vec![deployment("support", hosted("00:30", Some("20:00")))];
    let first = House::with(&database, "a", deployments()).await;
    first.look("02:00").await;
    first.hosting.lease.free().await;
    drop(first);
    let second = House::with(&database, "b", deployments()).await;
    second.look("23:00").await;
    // 19 h 30 min
    assert_eq!((second.booked().await, second.entries().await.len()), (usd("140"), 20));
    second.look("23:30").await;
    assert_eq!(second.entries().await.len(), 20);
    let months_later = at("23:30") + 60 * DAY_MS;
    second.hosting.sweep(months_later).await;
    assert_eq!(second.hosting.rows.charged_beyond("support", at("00:30"), 0).await.expect("read").len(), 1);
    second.hosting.look(months_later).await.expect("looked");
    assert_eq!(second.entries().await.len(), 20, "it is still in the configuration");
}

/// The period that begins when `support` stands, as a process that was cut off has left it.
fn cut_off() -> ChargeRow {
    let rate = Rate { per_hour: usd("7"), billing: Billing::StartedHours };
    let (since_ms, until_ms) = (at("10:50"), at("11:50"));
    ChargeRow {
        deployment: "support".to_owned(),
        charge: crate::domain::hosting::Charge {
            since_ms,
            from_ms: since_ms,
            until_ms,
            rate,
            cost: usd("7"),
        },
        price: "v1".to_owned(),
        provider: "azure".to_owned(),
        team: String::new(),
        seq: 0,
    }
}

fn entry_of_it() -> Entry {
    let on = Arc::new(attribution("support", "azure", None));
    let id = format!("hosting:support:{}:{}", at("10:50"), at("10:50"));
    Entry { cost: usd("7"), ..Entry::drafted(EntryKind::Hosting, at("10:50"), id.into(), on) }
}

#[tokio::test]
async fn wherever_a_process_was_cut_off_the_next_one_goes_on() {
    for is_booked in [false, true] {
        let database = TestDatabase::sqlite();
        let deployments = || vec![deployment("support", hosted("10:50", None))];
        let dead = House::with(&database, "a", deployments()).await;
        assert!(dead.hosting.rows.intend(&cut_off()).await.expect("written"));
        if is_booked {
            dead.hosting.means.ledger.book(entry_of_it()).await.expect("booked");
        }
        dead.hosting.lease.free().await;
        drop(dead);
        let next = House::with(&database, "b", deployments()).await;
        next.look("11:00").await;
        next.look("11:01").await;
        assert_eq!(next.booked().await, usd("7"), "booked before: {is_booked}");
        assert!(next.hosting.rows.unbooked().await.expect("read").is_empty());
    }
}

#[tokio::test]
async fn two_who_both_take_the_clock_for_theirs_book_once() {
    let database = TestDatabase::sqlite();
    let deployments = || vec![deployment("support", hosted("10:50", None))];
    let first = House::with(&database, "a", deployments()).await;
    let second = House::with(&database, "b", deployments()).await;
    // what was written before it first read, it looks up
    second.hosting.means.ledger.define(Vec::new(), Vec::new(), 0).await.expect("read");
    first.look("11:00").await;
    let twice = second.hosting.means.ledger.book(entry_of_it()).await;
    assert!(matches!(twice, Err(BookError::Charged(_))), "{twice:?}");
    second.look("12:00").await;
    assert_eq!(second.booked().await, usd("7"), "it does not have the lease");
}
