use super::*;
use crate::store::testing::for_each_database;

fn row(number: i64) -> CaptureRow {
    CaptureRow {
        request_id: format!("req_{number}"),
        owner: "team:a".to_owned(),
        end_user: String::new(),
        model: "bot".to_owned(),
        deployment: "v3".to_owned(),
        upstream: "ft:gpt".to_owned(),
        answer_id: format!("chatcmpl-{number}"),
        prompt_hash: format!("hash-{number}"),
        at_ms: number,
        until_ms: number + 1_000,
        masked: 0,
        prompt: "{}".to_owned(),
        answer: "{}".to_owned(),
    }
}

fn all() -> Filter {
    Filter {
        model: "bot".to_owned(),
        deployment: None,
        owner: None,
        from_ms: 0,
        to_ms: i64::MAX,
        wanted: Wanted::Any,
    }
}

fn says(number: i64, rating: Rating, correction: &str) -> FeedbackRow {
    FeedbackRow {
        request_id: format!("req_{number}"),
        owner: "team:a".to_owned(),
        model: "bot".to_owned(),
        said: Feedback { rating, comment: String::new(), correction: correction.to_owned() },
        at_ms: number,
        until_ms: number + 1_000,
    }
}

async fn found(rows: &CaptureRows, filter: &Filter) -> Vec<i64> {
    let (mut found, mut before): (Vec<i64>, Option<(i64, String)>) = (Vec::new(), None);
    loop {
        let at = before.as_ref().map(|(ms, id)| (*ms, id.as_str()));
        let page = rows.page(filter, at).await.expect("read");
        let Some(last) = page.last() else { return found };
        before = Some((last.row.at_ms, last.row.request_id.clone()));
        found.extend(page.iter().map(|told| told.row.at_ms));
    }
}

#[tokio::test]
async fn exchanges_are_found_by_all_that_a_filter_says() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let mut written: Vec<CaptureRow> = (1..=5).map(row).collect();
        written[1].deployment = "azure".to_owned();
        written[2].owner = "team:b".to_owned();
        written[3].model = "other".to_owned();
        rows.insert(&written).await.expect("written");
        // twice is once
        rows.insert(&written[..1]).await.expect("written");
        for said in [says(1, Rating::Up, ""), says(2, Rating::Down, ""), says(5, Rating::Down, "better")] {
            rows.say(&said).await.expect("written");
        }
        // of somebody else's request nobody else's word counts
        let others = FeedbackRow { owner: "team:c".to_owned(), ..says(1, Rating::Down, "") };
        rows.say(&others).await.expect("ignored");
        rows.say(&FeedbackRow { request_id: "req_3".to_owned(), ..others }).await.expect("ignored");
        for (filter, want) in [
            (all(), &[5, 3, 2, 1][..]),
            (Filter { deployment: Some("azure".to_owned()), ..all() }, &[2]),
            (Filter { owner: Some("team:b".to_owned()), ..all() }, &[3]),
            (Filter { from_ms: 2, to_ms: 5, ..all() }, &[3, 2]),
            (Filter { wanted: Wanted::Up, ..all() }, &[5, 1]),
            (Filter { wanted: Wanted::NotDown, ..all() }, &[5, 3, 1]),
            (Filter { wanted: Wanted::Corrected, ..all() }, &[5]),
            (Filter { model: "none".to_owned(), ..all() }, &[]),
        ] {
            assert_eq!(found(&rows, &filter).await, want, "{filter:?}");
        }
        let counts = rows.counts().await.expect("read");
        let bot: Vec<_> = counts.iter().map(|one| (&*one.deployment, one.rows, one.up, one.down)).collect();
        assert_eq!(bot, [("azure", 1, 0, 1), ("v3", 3, 1, 1), ("v3", 1, 0, 0)]);
        assert_eq!((counts[1].bytes, counts[1].oldest_ms, counts[1].newest_ms), (12, 1, 5));
        // by either id, and only by whom it belongs to
        for (owner, id, want) in [
            ("team:a", "req_1", Some("req_1")),
            ("team:a", "chatcmpl-1", Some("req_1")),
            ("team:b", "req_1", None),
            ("team:a", "req_9", None),
        ] {
            let known = rows.known(owner, id).await.expect("read");
            assert_eq!(known.map(|known| known.request_id).as_deref(), want, "{owner} {id}");
        }
    })
    .await;
}

#[tokio::test]
async fn many_pages_have_each_exchange_once() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        // all within three moments: the id decides, too
        let written: Vec<CaptureRow> =
            (0..2 * PAGE + 7).map(|number| CaptureRow { at_ms: number % 3, ..row(number) }).collect();
        for batch in written.chunks(50) {
            rows.insert(batch).await.expect("written");
        }
        assert_eq!(found(&rows, &all()).await.len(), written.len());
    })
    .await;
}

#[tokio::test]
async fn the_better_answer_is_one_to_the_same_prompt_of_the_same_owner() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let same = |number| CaptureRow { prompt_hash: "same".to_owned(), ..row(number) };
        let theirs = CaptureRow { owner: "team:b".to_owned(), ..same(3) };
        rows.insert(&[same(1), same(2), theirs, row(4)]).await.expect("written");
        let theirs = FeedbackRow { owner: "team:b".to_owned(), ..says(3, Rating::Up, "") };
        for said in [says(1, Rating::Down, ""), theirs, says(4, Rating::Up, "")] {
            rows.say(&said).await.expect("written");
        }
        assert!(rows.better(&same(1)).await.expect("read").is_none());
        rows.say(&says(2, Rating::Up, "")).await.expect("written");
        let better = rows.better(&same(1)).await.expect("read");
        assert_eq!(better.map(|told| told.row.request_id).as_deref(), Some("req_2"));
    })
    .await;
}

#[tokio::test]
async fn what_is_over_goes_in_batches_and_the_oldest_of_too_many() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let written: Vec<CaptureRow> = (1..=BATCH + 10).map(row).collect();
        for batch in written.chunks(50) {
            rows.insert(batch).await.expect("written");
        }
        rows.say(&says(1, Rating::Up, "")).await.expect("written");
        assert_eq!(rows.sweep(1_000, i64::MIN).await.expect("swept"), 0);
        assert_eq!(rows.sweep(1_001, i64::MIN).await.expect("swept"), 2, "a row and what was said about it");
        assert_eq!(rows.sweep(i64::MAX, i64::MIN).await.expect("swept"), BATCH.unsigned_abs(), "a batch");
        assert_eq!(rows.trim("bot", 0, 9).await.expect("trimmed"), 0);
        assert_eq!(rows.trim("bot", 0, 6).await.expect("trimmed"), 3);
        assert_eq!(rows.trim("other", i64::MAX, 0).await.expect("trimmed"), 0);
        assert_eq!(rows.trim("bot", BATCH + 10, 6).await.expect("trimmed"), 5, "by its model's time");
        assert_eq!(found(&rows, &all()).await, [BATCH + 10]);
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_names_is_erased_with_what_was_said_about_it() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let none = Erasure::default;
        let ada = Some("ada".to_owned());
        for (erasure, left) in [
            (Erasure { request_id: Some("req_1".to_owned()), ..none() }, &[3, 2][..]),
            (Erasure { end_user: ada.clone(), ..none() }, &[3]),
            (Erasure { owner: Some("team:b".to_owned()), ..none() }, &[2, 1]),
            (Erasure { end_user: ada.clone(), owner: Some("team:b".to_owned()), ..none() }, &[3, 2, 1]),
            (Erasure { model: Some("bot".to_owned()), ..none() }, &[]),
        ] {
            let mut written: Vec<CaptureRow> = (1..=3).map(row).collect();
            written[0].end_user = "ada".to_owned();
            written[1].end_user = "ada".to_owned();
            written[2].owner = "team:b".to_owned();
            rows.insert(&written).await.expect("written");
            rows.say(&says(1, Rating::Up, "")).await.expect("written");
            let erased = rows.erase(&erasure).await.expect("erased");
            let stays = found(&rows, &all()).await;
            assert_eq!((stays.as_slice(), erased), (left, 3 - left.len() as u64), "{erasure:?}");
            let up = found(&rows, &Filter { wanted: Wanted::Up, ..all() }).await;
            assert_eq!(up.len(), usize::from(stays.contains(&1)), "{erasure:?}");
            rows.erase(&Erasure { model: Some("bot".to_owned()), ..none() }).await.expect("erased");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_said_goes_with_its_exchange_or_without_one() {
    for_each_database(async |database| {
        let store = database.open().await;
        let rows = CaptureRows::new(&store);
        let said = async || -> i64 {
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM feedback");
            count.fetch_one(store.pool()).await.expect("read")
        };
        let long = |number| FeedbackRow { until_ms: i64::MAX, ..says(number, Rating::Up, "better") };
        rows.insert(&[row(1), row(2), row(3)]).await.expect("written");
        for number in 1..=3 {
            rows.say(&long(number)).await.expect("written");
        }
        assert_eq!((rows.trim("bot", 0, 2).await.expect("trimmed"), said().await), (1, 2));
        assert_eq!(
            (rows.sweep(1_002, i64::MIN).await.expect("swept"), said().await),
            (2, 1),
            "with the exchange's time"
        );
        // of one that never comes, and of one that stays
        rows.insert(&[CaptureRow { until_ms: i64::MAX, ..row(4) }]).await.expect("written");
        for number in [4, 8] {
            rows.say(&long(number)).await.expect("written");
        }
        let swept = rows.sweep(AWAITED_MS + 7, i64::MIN).await.expect("swept");
        assert_eq!((swept, said().await), (2, 2), "the third by its time, and its words");
        assert_eq!((rows.sweep(AWAITED_MS + 8, i64::MIN).await.expect("swept"), said().await), (1, 1));
        // what nobody has looked at for days goes, too, once somebody does
        rows.say(&long(9)).await.expect("written");
        assert_eq!((rows.sweep(4 * DAY_MS, 3 * DAY_MS).await.expect("swept"), said().await), (0, 2));
        assert_eq!((rows.sweep(4 * DAY_MS, i64::MIN).await.expect("swept"), said().await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn what_comes_after_its_erasure_is_let_go() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let none = Erasure::default;
        let of = |user: &str, number| CaptureRow { end_user: user.to_owned(), ..row(number) };
        let forget = Erasure { end_user: Some("ada".to_owned()), owner: Some("team:a".to_owned()), ..none() };
        rows.note_erasure(&forget, 3).await.expect("written");
        rows.note_erasure(&forget, 5).await.expect("written");
        let theirs = CaptureRow { owner: "team:b".to_owned(), ..of("ada", 4) };
        rows.insert(&[of("ada", 2), of("bob", 3), theirs, of("ada", 5), of("ada", 6)])
            .await
            .expect("written");
        assert_eq!(found(&rows, &all()).await, [6, 4, 3]);
        rows.note_erasure(&Erasure { request_id: Some("req_7".to_owned()), ..none() }, 8)
            .await
            .expect("written");
        rows.insert(&[row(7), row(8)]).await.expect("written");
        assert_eq!(found(&rows, &all()).await, [8, 6, 4, 3]);
        let swept = rows.sweep(DAY_MS + 5, i64::MIN).await.expect("swept");
        assert_eq!(swept, 4 + 1, "all rows are over, and the first note");
        rows.insert(&[of("ada", 5), row(7)]).await.expect("written");
        assert_eq!(found(&rows, &all()).await, [5], "nothing is on its way any more, and one note is left");
    })
    .await;
}

#[tokio::test]
async fn what_is_written_in_the_moment_of_its_erasure_goes_with_a_sweep() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let of =
            |user: &str, number| CaptureRow { end_user: user.to_owned(), until_ms: i64::MAX, ..row(number) };
        // whoever writes at the same moment sees no note, and is not seen by the erasure
        rows.insert(&[of("ada", 4), of("ada", 5), of("ada", 6), of("bob", 3)]).await.expect("written");
        rows.note_erasure(&Erasure { end_user: Some("ada".to_owned()), ..Erasure::default() }, 5)
            .await
            .expect("written");
        let late = ERASED_AGAIN_MS + 5;
        assert_eq!(rows.erase_late(late).await.expect("looked"), 0, "a note of long ago");
        assert_eq!(rows.erase_late(late - 1).await.expect("erased"), 2);
        assert_eq!(found(&rows, &all()).await, [6, 3], "what came later, and another's");
    })
    .await;
}

#[tokio::test]
async fn the_moment_of_an_erasure_is_never_set_back() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let all_of_it = Erasure { model: Some("bot".to_owned()), ..Erasure::default() };
        for at_ms in [5, 3, 4] {
            rows.note_erasure(&all_of_it, at_ms).await.expect("written");
        }
        rows.insert(&[row(5), row(6)]).await.expect("written");
        assert_eq!(found(&rows, &all()).await, [6]);
    })
    .await;
}

#[tokio::test]
async fn words_about_answers_are_bounded_as_the_answers_are() {
    for_each_database(async |database| {
        let store = database.open().await;
        let rows = CaptureRows::new(&store);
        let said = async || -> Vec<i64> {
            let kept = sqlx::query_scalar("SELECT at_ms FROM feedback WHERE model = 'bot' ORDER BY at_ms");
            kept.fetch_all(store.pool()).await.expect("read")
        };
        for number in 1..=BATCH + 5 {
            rows.say(&says(number, Rating::Up, "")).await.expect("written");
        }
        let others = FeedbackRow { model: "other".to_owned(), ..says(BATCH + 6, Rating::Up, "") };
        rows.say(&others).await.expect("written");
        assert_eq!(rows.trim("bot", 0, BATCH + 5).await.expect("trimmed"), 0);
        assert_eq!(rows.trim("bot", 0, 2).await.expect("trimmed"), BATCH.unsigned_abs(), "a batch");
        assert_eq!(rows.trim("bot", 0, 2).await.expect("trimmed"), 3);
        assert_eq!(said().await, [BATCH + 4, BATCH + 5], "the newest stay");
        assert_eq!(rows.trim("other", 0, 1).await.expect("trimmed"), 0);
    })
    .await;
}

#[tokio::test]
async fn how_much_there_is_is_read_from_an_index() {
    for_each_database(async |database| {
        let store = database.open().await;
        let rows = CaptureRows::new(&store);
        let other = CaptureRow { model: "other".to_owned(), ..row(3) };
        rows.insert(&[row(1), row(2), other]).await.expect("written");
        let sizes = rows.sizes().await.expect("read");
        let sizes: Vec<_> = sizes.iter().map(|size| (&*size.model, size.rows, size.bytes)).collect();
        assert_eq!(sizes, [("bot", 2, 8), ("other", 1, 4)]);
        if database.is_sqlite() {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {SIZES}")));
            let steps = plan.fetch_all(store.pool()).await.expect("a plan");
            let steps: Vec<String> = steps.iter().map(|step| step.try_get("detail").expect("text")).collect();
            assert_eq!(steps, ["SCAN captures USING COVERING INDEX captures_size"]);
        }
    })
    .await;
}

#[tokio::test]
async fn one_that_the_database_won_t_have_takes_no_other_along() {
    for_each_database(async |database| {
        let rows = CaptureRows::new(&database.open().await);
        let odd = CaptureRow { answer_id: "a zero \0 in it".to_owned(), ..row(2) };
        let refused = rows.insert_each(&[row(1), odd, row(3)]).await.expect("written");
        // SQLite has it
        let (want, left) =
            if database.is_sqlite() { (&[][..], &[3, 2, 1][..]) } else { (&[1][..], &[3, 1][..]) };
        assert_eq!((refused.as_slice(), found(&rows, &all()).await.as_slice()), (want, left));
    })
    .await;
}
