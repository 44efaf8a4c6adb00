//! What a provider lists, and what others have seen, sets and stops the clock.

use super::*;

#[tokio::test]
async fn the_list_starts_and_stops_the_clock() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    let stands = || found("support-up", Some("10:50"), "Standard", ArmState::Stands);
    let coming = found("support-up", Some("10:50"), "Standard", ArmState::Coming);
    let base = ArmDeployment {
        model: "gpt-35-turbo".into(),
        ..found("base", Some("01:00"), "Standard", ArmState::Stands)
    };
    house.list("10:52", &[coming, base]).await;
    assert_eq!(house.booked().await, Usd::ZERO, "it does not stand yet");
    house.list("11:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("7"), "since it was made");
    house.look("12:30").await;
    assert_eq!(house.booked().await, usd("7"), "nobody has seen it since");
    house.list("13:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("21"));
    let going = found("support-up", Some("10:50"), "Standard", ArmState::Going);
    house.list("13:05", &[going]).await;
    house.list("13:10", &[]).await;
    assert_eq!(house.booked().await, usd("21"));
    let report = house.hosting.report(at("13:11")).await.expect("a report");
    assert_eq!((report[0].until_ms, report[0].source), (Some(at("13:10")), "arm"));
    // it was there all the time: one reading lacked it
    house.list("15:00", &[stands()]).await;
    assert_eq!(house.booked().await, usd("35"), "10:50 to 15:00");
    house.list("15:10", &[]).await;
    // made anew under the same name
    house.list("16:10", &[found("support-up", Some("16:00"), "Standard", ArmState::Stands)]).await;
    assert_eq!(house.booked().await, usd("42"));
}

#[tokio::test]
async fn what_was_charged_beyond_the_end_is_given_back_and_taken_again() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
    house.look("15:30").await;
    assert_eq!(house.booked().await, usd("42"));
    let says = |hosted| house.says(vec![deployment("support", hosted)]);
    says(hosted("10:00", Some("12:30")));
    house.look("15:31").await;
    house.look("15:32").await;
    assert_eq!(house.booked().await, usd("21"));
    let corrections: Vec<Entry> =
        house.entries().await.into_iter().filter(|entry| entry.kind == EntryKind::Adjustment).collect();
    assert_eq!(corrections.len(), 3, "an adjustment a period, none of the periods is touched");
    assert!(corrections.iter().all(|entry| entry.cost == -usd("7") && entry.of > 0), "{corrections:?}");
    says(hosted("10:00", None));
    house.look("15:33").await;
    assert_eq!(house.booked().await, usd("42"), "it stood after all");
    says(Hosted::default());
    house.look("15:40").await;
    house.look("20:00").await;
    assert_eq!(house.booked().await, usd("42"), "nobody says any more that it stands");
}

#[tokio::test]
async fn an_end_that_is_said_days_later_stops_what_stands() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
    house.look("12:30").await;
    let late = |minutes: i64| at("12:30") + 3 * DAY_MS + minutes * 60_000;
    house.hosting.look(late(0)).await.expect("looked");
    assert_eq!(house.booked().await, usd("469"), "67 hours at most in one look");
    house.says(vec![deployment("support", hosted("10:00", Some("12:30")))]);
    // whoever should give it back loses its lease
    house.hosting.lease.free().await;
    house.hosting.look(late(1)).await.expect("looked");
    assert_eq!(house.stands().await[0].2, None, "nothing is given back yet: it is not over");
    house.hosting.lease.keep(clock::monotonic()).await.expect("asked");
    for minutes in [2, 3] {
        house.hosting.look(late(minutes)).await.expect("looked");
        assert_eq!(house.booked().await, usd("21"));
        assert_eq!(house.stands().await[0].2, Some(at("12:30")));
    }
}

#[tokio::test]
async fn what_is_called_otherwise_keeps_its_stand() {
    for is_listed in [false, true] {
        let database = TestDatabase::sqlite();
        let house = House::with(&database, "a", Vec::new()).await;
        let called = |name: &str| match is_listed {
            true => Deployment { name: name.into(), ..listed("l", Hosted::default()) },
            false => Deployment { name: name.into(), ..deployment("c", hosted("10:00", None)) },
        };
        let stands = [found("l-up", Some("10:00"), "Standard", ArmState::Stands)];
        for (name, clock) in [("one", "10:30"), ("other", "11:30"), ("third", "12:30")] {
            house.says(vec![called(name)]);
            match is_listed {
                true => house.list(clock, &stands).await,
                false => house.look(clock).await,
            }
        }
        assert_eq!(house.booked().await, usd("21"), "listed: {is_listed}");
        let entries = house.entries().await;
        let corrected = entries.iter().find(|entry| entry.kind == EntryKind::Adjustment);
        assert!(corrected.is_none(), "{corrected:?}");
        let on: Vec<&str> = entries.iter().map(|entry| &*entry.attribution.deployment).collect();
        assert!(on.iter().all(|name| *name == "one"), "{on:?}");
    }
}

#[tokio::test]
async fn another_beginning_is_another_stand() {
    for (corrected, want) in [("09:00", "28"), ("11:00", "21"), ("12:45", "28")] {
        let database = TestDatabase::sqlite();
        let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
        house.look("12:30").await;
        assert_eq!(house.booked().await, usd("21"));
        house.says(vec![deployment("support", hosted(corrected, None))]);
        house.look("12:50").await;
        house.look("12:51").await;
        assert_eq!(house.booked().await, usd(want), "from {corrected}");
        house.says(vec![deployment("support", Hosted::default())]);
        house.look("12:55").await;
        assert_eq!(house.booked().await, usd(want), "taken out behind {corrected}");
    }
}

#[tokio::test]
async fn no_hour_is_charged_as_the_configuration_has_it_and_as_the_list_has_it() {
    for (created, want) in [("10:00", "21"), ("09:30", "28"), ("11:15", "28")] {
        let database = TestDatabase::sqlite();
        let told = hosted("10:00", None);
        let house = House::with(&database, "a", vec![deployment("support", told.clone())]).await;
        house.look("12:30").await;
        house.says(vec![listed("support", told)]);
        house.look("12:35").await;
        assert_eq!(house.booked().await, usd("21"), "nobody has read the list yet");
        let stands = || found("Support-UP", Some(created), "Standard", ArmState::Stands);
        house.list("12:40", &[stands()]).await;
        house.list("12:50", &[stands()]).await;
        assert_eq!(house.booked().await, usd(want), "made at {created}");
        // and back again: the account is read no more
        house.says(vec![deployment("support", Hosted::default())]);
        house.look("18:00").await;
        assert_eq!(house.booked().await, usd(want), "nobody says that it stands");
        let stands = house.stands().await;
        assert!(stands.iter().all(|(_, _, until)| until.is_some()), "{stands:?}");
        house.says(vec![deployment("support", hosted(created, None))]);
        house.look("18:10").await;
        let hours = (at("18:10") - at(created)).div_euclid(3_600_000) + 1;
        let before = if created == "11:15" { 2 } else { 0 };
        assert_eq!(house.booked().await, Usd::dollars(7 * (hours + before)), "since {created}");
    }
}

#[tokio::test]
async fn another_name_of_the_provider_is_no_second_stand() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    let stands = || {
        let portal = found("portal", Some("10:10"), "Standard", ArmState::Stands);
        [found("support-up", Some("10:00"), "Standard", ArmState::Stands), portal]
    };
    let renamed = |price_of: Deployment| {
        let provider = Provider { name: "europe".into(), ..(*price_of.provider).clone() };
        Deployment { provider: Arc::new(provider), ..price_of }
    };
    let both = || {
        let portal = Deployment { upstream_model: "portal".into(), ..listed("later", Hosted::default()) };
        vec![listed("support", Hosted::default()), portal]
    };
    house.list("12:30", &stands()).await;
    // what is made at the portal has a price once it is in the configuration
    house.says(both());
    house.look("12:31").await;
    assert_eq!(house.booked().await, usd("42"), "three hours each");
    house.says(both().into_iter().map(renamed).collect());
    house.look("12:40").await;
    for clock in ["12:50", "12:55"] {
        house.hosting.follow_list(&"europe".into(), &stands(), at(clock)).await.expect("followed");
        house.look(clock).await;
    }
    assert_eq!(house.booked().await, usd("42"));
    let want = [("azure/portal".to_owned(), at("10:10"), None), ("support".to_owned(), at("10:00"), None)];
    assert_eq!(house.stands().await, want);
}

#[tokio::test]
async fn what_the_configuration_tells_days_behind_the_list_is_no_second_stand() {
    for (seconds, days) in [(-40, 0), (-40, 5), (0, 0), (25, 0), (25, 5)] {
        let database = TestDatabase::sqlite();
        let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
        house.list("12:30", &[found("support-up", Some("10:00"), "Standard", ArmState::Stands)]).await;
        assert_eq!(house.booked().await, usd("21"));
        house.says(vec![deployment("support", Hosted::default())]);
        house.look("12:45").await;
        let told = Hosted { from_ms: Some(at("10:00") + seconds * 1_000), ..hosted("10:00", None) };
        house.says(vec![deployment("support", told)]);
        // 64 hours at most in one look
        for _ in 0..3 {
            house.hosting.look(at("12:50") + days * DAY_MS).await.expect("looked");
        }
        assert_eq!(house.booked().await, Usd::dollars(7 * (3 + 24 * days)), "{seconds} s, {days} days");
        let open = house.stands().await.into_iter().filter(|(_, _, until)| until.is_none());
        assert_eq!(open.count(), 1);
    }
}

#[tokio::test]
async fn two_clocks_may_differ() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    let stands = || [found("support-up", Some("10:05"), "Standard", ArmState::Stands)];
    for (clock, want) in [("10:00", "0"), ("10:04", "0"), ("10:10", "7"), ("11:04", "7"), ("11:06", "14")] {
        house.list(clock, &stands()).await;
        assert_eq!(house.booked().await, usd(want), "by our clock at {clock}");
    }
    assert_eq!(house.stands().await, [("support".to_owned(), at("10:05"), None)]);
    // made anew a moment later: another stand, with an hour of its own
    house.list("11:20", &[found("support-up", Some("11:08"), "Standard", ArmState::Stands)]).await;
    assert_eq!(house.booked().await, usd("21"));
    assert_eq!(house.stands().await[0].2, Some(at("11:08")));
}

#[tokio::test]
async fn what_the_registry_has_seen_goes_before_a_list_on_its_way() {
    let database = TestDatabase::sqlite();
    let known = Deployment { upstream_model: "Cat-ft".into(), ..listed("cat-ft", Hosted::default()) };
    let house = House::with(&database, "a", vec![known]).await;
    let witness = Witness::new(&house.store);
    let made = Made {
        name: "cat-ft",
        provider: "azure",
        model: "gpt-35-turbo-0613.ft-0a1b",
        sku: "Standard",
        since_ms: at("10:50"),
    };
    let stands = || found("Cat-FT", Some("10:50"), "Standard", ArmState::Stands);
    witness.made(made, at("10:52")).await.expect("written");
    house.list("10:51", &[]).await;
    house.list("10:58", &[stands()]).await;
    witness.made(made, at("10:59")).await.expect("asked");
    assert_eq!(house.stands().await, [("cat-ft".to_owned(), at("10:50"), None)], "one stand");
    house.list("11:40", &[stands()]).await;
    witness.gone("azure", "cat-ft", at("11:39")).await.expect("asked");
    assert_eq!(house.stands().await[0].2, None, "it was seen since");
    witness.gone("azure", "cat-ft", at("11:45")).await.expect("written");
    let gone = ("cat-ft".to_owned(), at("10:50"), Some(at("11:45")));
    for clock in ["11:44", "11:45"] {
        house.list(clock, &[stands()]).await;
        assert_eq!(house.stands().await, std::slice::from_ref(&gone), "asked for at {clock}");
    }
    witness.made(made, at("11:46")).await.expect("asked");
    house.list("11:55", &[ArmDeployment { state: ArmState::Going, ..stands() }]).await;
    assert_eq!(house.stands().await, [gone]);
    assert_eq!(house.booked().await, usd("7"));
    house.list("12:05", &[stands()]).await;
    assert_eq!(house.stands().await, [("cat-ft".to_owned(), at("10:50"), None)], "it was not gone");
    assert_eq!(house.booked().await, usd("14"));
}

#[tokio::test]
async fn what_a_witness_saw_go_is_charged_however_late() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("support", Hosted::default())]).await;
    house.list("11:00", &[found("support-up", Some("10:50"), "Standard", ArmState::Stands)]).await;
    assert_eq!(house.booked().await, usd("7"));
    Witness::new(&house.store).gone("azure", "support-up", at("13:10")).await.expect("written");
    for days in [3, 4] {
        house.hosting.look(at("13:10") + days * DAY_MS).await.expect("looked");
        assert_eq!(house.booked().await, usd("21"), "10:50 to 13:10");
    }
}

#[tokio::test]
async fn what_went_while_nobody_looked_is_charged_to_the_first_list_without_it() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![listed("Standard", Hosted::default())]).await;
    let two = ["Standard", "DeveloperTier"];
    let two = two.map(|sku| found(&format!("{sku}-up"), Some("10:00"), sku, ArmState::Stands));
    house.list("10:10", &two).await;
    house.hosting.follow_list(&"azure".into(), &[], at("10:00") + 3 * DAY_MS).await.expect("followed");
    let ends: Vec<i64> = house.stands().await.iter().filter_map(|(_, _, until)| *until).collect();
    assert_eq!(ends, [at("10:00") + 3 * DAY_MS, at("10:00") + DAY_MS], "by the list, and by its kind");
    house.hosting.look(at("10:00") + 3 * DAY_MS).await.expect("looked");
    house.hosting.look(at("10:01") + 3 * DAY_MS).await.expect("looked");
    assert_eq!(house.booked().await, Usd::dollars(7 * 72));
}

#[tokio::test]
async fn a_correction_that_was_cut_off_is_not_booked_twice() {
    let database = TestDatabase::sqlite();
    let house = House::with(&database, "a", vec![deployment("support", hosted("10:00", None))]).await;
    house.look("10:30").await;
    let entries = house.entries().await;
    let correction = Entry {
        of: entries[0].seq,
        cost: -usd("7"),
        ..Entry::drafted(
            EntryKind::Adjustment,
            at("10:00"),
            Arc::clone(&entries[0].request_id),
            Arc::clone(&entries[0].attribution),
        )
    };
    house.hosting.means.ledger.book(correction).await.expect("booked");
    let row = house.hosting.rows.standing(0).await.expect("read").remove(0);
    assert!(house.hosting.end(row, at("10:00")).await.expect("ended"));
    assert_eq!(house.booked().await, Usd::ZERO);
    assert_eq!(house.entries().await.len(), 2);
}
