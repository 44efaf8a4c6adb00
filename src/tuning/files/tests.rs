use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::domain::key::{Rights, Terms, VirtualKey};
use crate::domain::tuning::UploadStatus;
use crate::store::testing::{TestDatabase, for_each_database};

const HOUR_MS: i64 = 3_600_000;

struct Place {
    root: TempDir,
    store: Store,
    files: Arc<Files>,
}

async fn place(database: &TestDatabase, max_folder_bytes: u64) -> Place {
    let root = tempfile::tempdir().expect("a folder");
    let store = database.open().await;
    let config = Config { folder: root.path().to_owned(), max_file_bytes: 1 << 20, max_folder_bytes };
    let files = Arc::new(Files::open(config, &store).expect("opened"));
    Place { root, store, files }
}

impl Place {
    /// What lies in the folder, drafts too.
    fn on_disk(&self) -> BTreeSet<String> {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        let folder = Folder::open(self.root.path()).expect("opened");
        folder.older_than(later).expect("read").into_iter().collect()
    }

    /// Another process on the same database and folder.
    fn another(&self) -> Files {
        Files::open(self.files.config.clone(), &self.store).expect("opened")
    }
}

fn key(id: &str, team: Option<&str>, tuning: Tuning) -> Caller {
    let terms = Terms {
        team: team.map(Into::into),
        rights: Rights { tuning, ..Rights::default() },
        ..Terms::default()
    };
    let key = VirtualKey {
        id: id.into(),
        alias: id.into(),
        last_four: String::new(),
        created_at_ms: 0,
        revoked_at_ms: None,
        terms,
    };
    Caller::Key { key: Arc::new(key), team: None }
}

fn operator() -> Caller {
    Caller::Operator { team: None }
}

fn named(name: &str) -> NewFile {
    NewFile { filename: name.to_owned(), purpose: Purpose::FineTune, expires_after_ms: None }
}

async fn put(files: &Files, caller: &Caller, bytes: &[u8], now_ms: i64) -> TrainingFile {
    let mut received = files.receive(caller).await.expect("begun");
    for piece in bytes.chunks(3) {
        received.push(Bytes::copy_from_slice(piece)).await.expect("taken");
    }
    files.create(caller, received, named("a.jsonl"), now_ms).await.expect("kept")
}

async fn read(files: &Files, caller: &Caller, id: &str) -> Vec<u8> {
    let file = files.find(caller, id).await.expect("found");
    fs::read(files.path(&file).await.expect("a place")).expect("read")
}

#[tokio::test]
async fn equal_contents_are_kept_once_and_until_the_last_has_gone() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (one, other) = (key("key_1", None, Tuning::Write), key("key_2", Some("ops"), Tuning::Write));
        let first = put(&place.files, &one, b"the same", 1).await;
        let second = put(&place.another(), &other, b"the same", 2).await;
        assert_eq!((first.sha256.as_str(), place.on_disk().len()), (second.sha256.as_str(), 1));
        assert_eq!(place.files.count().await.expect("counted"), Count { by_status: [2, 0, 0], bytes: 8 });
        place.files.delete(&one, &first.id, 3).await.expect("deleted");
        assert_eq!(read(&place.files, &other, &second.id).await, b"the same");
        place.files.delete(&other, &second.id, 3).await.expect("deleted");
        assert_eq!(place.on_disk(), BTreeSet::new());
        let again = place.files.delete(&other, &second.id, 3).await.expect_err("gone");
        assert_eq!(again, TuningError::not_found(Noun::File, &second.id));
    })
    .await;
}

#[tokio::test]
async fn nobody_finds_anothers_file_but_an_operator() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let files = &place.files;
        let (mine, colleague) =
            (key("key_1", Some("a"), Tuning::Write), key("key_2", Some("a"), Tuning::Read));
        let (foreign, nothing) =
            (key("key_3", Some("b"), Tuning::DeleteModels), key("key_4", Some("a"), Tuning::None));
        let file = put(files, &mine, b"x", 1).await;
        for (caller, finds) in [(&mine, true), (&colleague, true), (&operator(), true), (&foreign, false)] {
            assert_eq!(files.find(caller, &file.id).await.is_ok(), finds);
            assert_eq!(files.content(caller, &file.id).await.is_ok(), finds);
            let all = Listing { purpose: None, order: Order::Descending, after: None, limit: 10 };
            assert_eq!(files.list(caller, &all).await.expect("listed").files.len(), usize::from(finds));
            let behind = Listing { after: Some(file.id.clone()), ..all };
            assert_eq!(files.list(caller, &behind).await.is_ok(), finds, "an id says nothing to others");
        }
        let refused = files.find(&nothing, &file.id).await.expect_err("no right");
        assert_eq!(refused, TuningError::Forbidden { needs: Tuning::Read, has: Tuning::None });
        let refused = files.delete(&colleague, &file.id, 1).await.expect_err("may not");
        assert_eq!(refused, TuningError::Forbidden { needs: Tuning::Write, has: Tuning::Read });
        assert!(files.receive(&colleague).await.is_err());
        let unknown = files.delete(&foreign, &file.id, 1).await.expect_err("not theirs");
        assert_eq!(unknown, TuningError::not_found(Noun::File, &file.id));
    })
    .await;
}

#[tokio::test]
async fn files_are_listed_in_pages() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let caller = key("key_1", None, Tuning::Write);
        let mut made = Vec::new();
        // two of them in the same millisecond
        for at_ms in [1, 2, 2, 3] {
            made.push((at_ms, put(&place.files, &caller, b"x", at_ms).await.id));
        }
        made.sort();
        for order in [Order::Ascending, Order::Descending] {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let listing =
                    Listing { purpose: Some(Purpose::FineTune), order, after: after.clone(), limit: 3 };
                let page = place.files.list(&caller, &listing).await.expect("listed");
                found.extend(page.files.iter().map(|file| (file.created_at_ms, file.id.clone())));
                after = page.files.last().map(|file| file.id.clone());
                if !page.has_more {
                    break;
                }
                assert_eq!(page.files.len(), 3);
            }
            if order == Order::Descending {
                found.reverse();
            }
            assert_eq!(found, made);
        }
        let results = Listing {
            purpose: Some(Purpose::FineTuneResults),
            order: Order::Ascending,
            after: None,
            limit: 3,
        };
        assert!(place.files.list(&caller, &results).await.expect("listed").files.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_a_job_needs_stays_until_it_ends() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let file = put(files, &caller, b"needed", 1).await;
        for job in ["ftjob-1", "ftjob-1", "ftjob-2"] {
            files.hold(&file.id, job).await.expect("held");
        }
        files.delete(&caller, &file.id, 2).await.expect("deleted");
        assert!(files.find(&caller, &file.id).await.is_err(), "nobody sees it");
        assert!(files.hold(&file.id, "ftjob-3").await.is_err(), "no new job gets it");
        files.hold(&file.id, "ftjob-2").await.expect("noted before it was deleted");
        files.release("ftjob-3").await.expect("nothing");
        let held = files.held(&file.id).await.expect("held");
        assert_eq!(fs::read(files.path(&held).await.expect("a place")).expect("there"), b"needed");
        files.sweep(HOUR_MS, clock::machine_ms()).await.expect("swept");
        files.release("ftjob-1").await.expect("released");
        assert_eq!(place.on_disk().len(), 1);
        files.release("ftjob-2").await.expect("released");
        assert_eq!(place.on_disk(), BTreeSet::new());
        assert!(files.held(&file.id).await.is_err());
    })
    .await;
}

/// Whoever fetches a result anew finds the first one, also where another has it meanwhile with other words.
#[tokio::test]
async fn what_is_put_under_one_id_is_one_file() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let put = |bytes: &'static [u8], now_ms| {
            let new = NewFile { purpose: Purpose::FineTuneResults, ..named("step_metrics.csv") };
            files.put_bytes("file-r".to_owned(), caller.owner(), new, Bytes::from_static(bytes), now_ms)
        };
        let first = put(b"step\n", 3).await.expect("kept");
        let again = put(b"step\n1\n", 9).await.expect("found");
        assert_eq!((&again.id, &again.sha256, again.created_at_ms), (&first.id, &first.sha256, 3));
        assert_eq!(read(files, &caller, "file-r").await, b"step\n");
        assert_eq!(place.on_disk().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_file_goes_when_its_time_is_over() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let new = NewFile { expires_after_ms: Some(HOUR_MS), ..named("a") };
        let file = files
            .put_bytes("file-x".to_owned(), caller.owner(), new, Bytes::from_static(b"x"), 5)
            .await
            .expect("kept");
        assert_eq!(file.expires_at_ms, Some(HOUR_MS + 5));
        files.sweep(HOUR_MS + 4, 0).await.expect("swept");
        assert!(files.find(&caller, &file.id).await.is_ok());
        files.sweep(HOUR_MS + 5, 0).await.expect("swept");
        assert!(files.find(&caller, &file.id).await.is_err());
        assert_eq!(place.on_disk(), BTreeSet::new());
    })
    .await;
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_leaves_nothing() {
    for_each_database(async |database| {
        let place = place(database, 1_000).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        put(files, &caller, &[1; 600], 1).await;
        let mut first = files.receive(&caller).await.expect("begun");
        first.push(vec![2; 300].into()).await.expect("there is room");
        // together with what is on its way
        let mut second = files.receive(&caller).await.expect("begun");
        let full = second.push(vec![3; 101].into()).await.expect_err("too much");
        assert!(matches!(full, TuningError::StorageFull(_)), "{full}");
        drop(second);
        files.create(&caller, first, named("b"), 1).await.expect("kept");
        let mut third = files.receive(&caller).await.expect("begun");
        third.push(vec![3; 100].into()).await.expect("just enough");
        drop(third);
        assert_eq!(files.count().await.expect("counted").bytes, 900);
        // drafts that were given up are unlinked behind our back
        for _ in 0..1_000 {
            if place.on_disk().len() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(place.on_disk().len(), 2);
        assert_eq!(files.coming.load(std::sync::atomic::Ordering::Relaxed), 0);
    })
    .await;
}

#[tokio::test]
async fn one_owner_does_not_take_every_place() {
    let database = TestDatabase::sqlite();
    let place = place(&database, 1 << 20).await;
    let files = &place.files;
    let (one, colleague) = (key("key_1", Some("a"), Tuning::Write), key("key_2", Some("a"), Tuning::Write));
    let mut coming = Vec::new();
    for _ in 0..RECEIVED_OF_ONE {
        coming.push(files.receive(&one).await.expect("begun"));
    }
    let busy = files.receive(&colleague).await.expect_err("of the same team");
    assert!(matches!(busy, TuningError::Busy(_)), "{busy}");
    let other = files.receive(&key("key_3", None, Tuning::Write)).await.expect("another's");
    coming.pop();
    coming.push(files.receive(&colleague).await.expect("one has come"));
    drop((coming, other));
    assert!(files.shares.lock().is_empty());
}

#[tokio::test]
async fn a_file_has_a_longest_length() {
    let database = TestDatabase::sqlite();
    let place = place(&database, 4 << 20).await;
    let caller = key("key_1", None, Tuning::Write);
    let mut most = place.files.receive(&caller).await.expect("begun");
    most.push(vec![0; 1 << 20].into()).await.expect("just enough");
    let more = most.push(Bytes::from_static(b"x")).await.expect_err("too long");
    assert!(matches!(more, TuningError::TooLarge(_)), "{more}");
}

#[tokio::test]
async fn what_a_crash_has_left_is_swept_and_nothing_else() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let file = put(files, &caller, b"kept", 1).await;
        // being written, by this process
        let mut written = files.receive(&caller).await.expect("begun");
        written.push(Bytes::from_static(b"on its way")).await.expect("taken");
        // a draft, and a content whose row was never written
        fs::write(place.root.path().join("drafts/0123"), "left").expect("written");
        fs::create_dir_all(place.root.path().join("ab")).expect("made");
        fs::write(place.root.path().join("ab/cdef-1"), "left").expect("written");
        // what is not ours
        fs::write(place.root.path().join("README"), "mine").expect("written");
        let now_ms = clock::machine_ms();
        assert_eq!(files.sweep(1, now_ms).await.expect("swept"), 0, "it is too young to be judged");
        assert_eq!(files.sweep(1, now_ms + HOUR_MS).await.expect("swept"), 2);
        assert_eq!(read(files, &caller, &file.id).await, b"kept");
        files.create(&caller, written, named("b"), 1).await.expect("kept");
        assert_eq!(files.sweep(1, now_ms + HOUR_MS).await.expect("swept"), 0);
        assert!(place.root.path().join("README").exists());
    })
    .await;
}

fn upload_of(bytes: u64) -> Begun {
    Begun {
        filename: "big.jsonl".to_owned(),
        purpose: Purpose::FineTune,
        bytes,
        mime_type: "text/jsonl".to_owned(),
        expires_after_ms: None,
    }
}

async fn part(files: &Files, caller: &Caller, upload: &str, bytes: &[u8]) -> Result<String, TuningError> {
    let mut received = files.receive_part(caller, upload, 1).await?;
    received.push(Bytes::copy_from_slice(bytes)).await?;
    Ok(files.add_part(caller, upload, received, 1).await?.id)
}

#[tokio::test]
async fn an_upload_becomes_a_file_of_its_parts_in_their_order() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", Some("a"), Tuning::Write));
        let upload = files.begin_upload(&caller, upload_of(5), 1).await.expect("begun");
        assert_eq!((upload.status, upload.expires_at_ms), (UploadStatus::Pending, HOUR_MS + 1));
        // at once, by two gateways; the second part was lost on its way back, and came again
        let another = place.another();
        let (first, second, lost) = tokio::join!(
            part(files, &caller, &upload.id, b"abc"),
            part(&another, &caller, &upload.id, b"de"),
            part(files, &caller, &upload.id, b"de"),
        );
        let (first, second, lost) = (first.expect("kept"), second.expect("kept"), lost.expect("kept"));
        let complete = async |ids: &[&String], md5: Option<&str>| {
            let part_ids = ids.iter().map(|id| (*id).clone()).collect();
            let completion = Completion { part_ids, md5: md5.map(ToOwned::to_owned) };
            files.complete_upload(&caller, &upload.id, &completion, 2).await
        };
        let odd = "part_x".to_owned();
        for (ids, md5, said) in [
            (vec![&first], None, "3 bytes"),
            (vec![&first, &second, &lost], None, "7 bytes"),
            (vec![&first, &first], None, "No such Upload part"),
            (vec![&first, &odd], None, "No such Upload part: part_x"),
            (vec![&second, &first], Some("ab56b4d92b40713acc5af89985d4b786"), "the MD5 "),
        ] {
            let error = complete(&ids, md5).await.expect_err(said).to_string();
            assert!(error.contains(said), "{error}");
        }
        let md5 = Some("AB56B4D92B40713ACC5AF89985D4B786");
        let (upload, file) = complete(&[&first, &second], md5).await.expect("completed");
        assert_eq!((upload.status, upload.file_id.as_ref()), (UploadStatus::Completed, Some(&file.id)));
        assert_eq!(read(files, &caller, &file.id).await, b"abcde");
        assert_eq!(place.on_disk().len(), 1, "the parts are gone");
        for error in [
            complete(&[&first, &second], None).await.map(drop).expect_err("twice"),
            part(files, &caller, &upload.id, b"x").await.map(drop).expect_err("too late"),
            files.cancel_upload(&caller, &upload.id, 2).await.map(drop).expect_err("too late"),
        ] {
            assert_eq!(error.to_string(), "the upload is completed: begin another");
        }
        let foreign = key("key_2", Some("b"), Tuning::Write);
        let error = files.cancel_upload(&foreign, &upload.id, 2).await.expect_err("not theirs");
        assert_eq!(error, TuningError::not_found(Noun::Upload, &upload.id));
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_ends_otherwise_leaves_nothing() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let given_up = files.begin_upload(&caller, upload_of(4), 1).await.expect("begun");
        part(files, &caller, &given_up.id, b"ab").await.expect("kept");
        let too_much = part(files, &caller, &given_up.id, b"1234567").await.expect_err("more than twice");
        assert_eq!(too_much.param(), Some("data"), "{too_much}");
        assert_eq!(place.on_disk().len(), 1);
        let cancelled = files.cancel_upload(&caller, &given_up.id, 2).await.expect("cancelled");
        assert_eq!((cancelled.status, place.on_disk().len()), (UploadStatus::Cancelled, 0));
        let forgotten = files.begin_upload(&caller, upload_of(4), 1).await.expect("begun");
        part(files, &caller, &forgotten.id, b"ab").await.expect("kept");
        let late = files.cancel_upload(&caller, &forgotten.id, HOUR_MS + 1).await.expect_err("expired");
        assert!(late.to_string().contains("has expired"), "{late}");
        files.sweep(HOUR_MS, 0).await.expect("swept");
        assert_eq!(place.on_disk().len(), 1);
        files.sweep(HOUR_MS + 1, 0).await.expect("swept");
        assert_eq!(place.on_disk().len(), 0);
        for (hours, known) in [(24, true), (25, false)] {
            files.sweep(hours * HOUR_MS + 1, 0).await.expect("swept");
            let row = files.uploads.find(&forgotten.id).await.expect("read");
            assert_eq!(row.is_some(), known, "after {hours} hours");
        }
        let long = files.begin_upload(&caller, upload_of((1 << 20) + 1), 1).await.expect_err("too long");
        assert!(matches!(long, TuningError::TooLarge(_)), "{long}");
    })
    .await;
}

/// Ten rows that any model can be trained on, and a broken one.
fn rows(broken: bool) -> Vec<u8> {
    let row =
        r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello, number N."}]}"#;
    let rows = (0..10).map(|number| row.replace('N', &number.to_string()));
    let mut text: Vec<String> = rows.collect();
    if broken {
        text[4] = "{\"messages\": [".to_owned();
    }
    text.join("\n").into_bytes()
}

#[tokio::test]
async fn a_file_is_checked_behind_the_clients_back() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let told: Arc<Mutex<Vec<FileStatus>>> = Arc::default();
        let checker = |told: &Arc<Mutex<Vec<FileStatus>>>| {
            let told = Arc::clone(told);
            Checker::new(
                Arc::clone(files),
                Box::new(move |status, _| told.lock().expect("whole").push(status)),
            )
        };
        let mut first = checker(&told);
        let now = clock::monotonic();
        assert!(!first.step(now).await.expect("looked"), "nothing waits");
        let (sound, broken) =
            (put(files, &caller, &rows(false), 1).await, put(files, &caller, &rows(true), 2).await);
        assert_eq!(sound.status, FileStatus::Checking);
        assert!(first.step(now).await.expect("checked") && first.step(now).await.expect("checked"));
        assert!(!first.step(now).await.expect("looked"));
        let sound = files.find(&caller, &sound.id).await.expect("there");
        assert_eq!((sound.status, sound.status_details), (FileStatus::Processed, None));
        let report = files.report(&sound.id).await.expect("read").expect("there");
        assert_eq!(report["examples"], 10);
        let broken = files.find(&caller, &broken.id).await.expect("there");
        assert_eq!(broken.status, FileStatus::Error);
        let details = broken.status_details.expect("why");
        assert!(details.starts_with("line 5"), "{details}");
        assert_eq!(*told.lock().expect("whole"), [FileStatus::Processed, FileStatus::Error]);
        let results = NewFile { purpose: Purpose::FineTuneResults, ..named("results.csv") };
        let results = files
            .put_bytes("file-r".to_owned(), caller.owner(), results, Bytes::from_static(b"step\n"), 3)
            .await;
        assert_eq!(results.expect("kept").status, FileStatus::Processed, "nothing to check");
    })
    .await;
}

#[tokio::test]
async fn what_is_lost_is_told_and_can_be_uploaded_again() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let first = put(files, &caller, &rows(false), 1).await;
        fs::remove_file(files.path(&first).await.expect("a place")).expect("lost");
        let mut checker = Checker::new(Arc::clone(files), Box::new(|_, _| {}));
        assert!(checker.step(clock::monotonic()).await.expect("checked"));
        let first = files.find(&caller, &first.id).await.expect("there");
        let details = first.status_details.expect("why");
        assert!(first.status == FileStatus::Error && details.contains("upload it again"), "{details}");
        let second = put(files, &caller, &rows(false), 2).await;
        assert!(checker.step(clock::monotonic()).await.expect("checked"));
        let status = files.find(&caller, &second.id).await.expect("there").status;
        assert_eq!((status, place.on_disk().len()), (FileStatus::Processed, 1));
        assert_eq!(read(files, &caller, &first.id).await, rows(false), "whoever had it has it again");
        // a part and a whole that were lost, too
        let upload = files.begin_upload(&caller, upload_of(3), 1).await.expect("begun");
        let lost = put(files, &caller, b"abc", 3).await;
        fs::remove_file(files.path(&lost).await.expect("a place")).expect("lost");
        let part_ids = vec![part(files, &caller, &upload.id, b"abc").await.expect("kept")];
        let completion = Completion { part_ids, md5: None };
        let (_, whole) = files.complete_upload(&caller, &upload.id, &completion, 4).await.expect("completed");
        assert_eq!(read(files, &caller, &whole.id).await, b"abc");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_now_is_checked_later() {
    let database = TestDatabase::sqlite();
    let place = place(&database, 1 << 20).await;
    let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
    let file = put(files, &caller, &rows(false), 1).await;
    let path = files.path(&file).await.expect("a place");
    // reading a folder is an error, but not that there is none
    fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("made unreadable");
    let mut checker = Checker::new(Arc::clone(files), Box::new(|_, _| {}));
    let now = clock::monotonic();
    assert!(checker.step(now).await.expect("tried"));
    assert!(!checker.step(now).await.expect("looked"), "not at once again");
    assert_eq!(files.find(&caller, &file.id).await.expect("there").status, FileStatus::Checking);
    fs::remove_dir(&path).and_then(|()| fs::write(&path, rows(false))).expect("back");
    assert!(checker.step(now + Duration::from_secs(60)).await.expect("checked"));
    assert_eq!(files.find(&caller, &file.id).await.expect("there").status, FileStatus::Processed);
}

#[tokio::test]
async fn a_check_that_is_given_back_is_anybodys_at_once() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let file = put(files, &caller, &rows(false), 1).await;
        let checker = || Checker::new(Arc::clone(files), Box::new(|_, _| {}));
        let (ending, mut next) = (checker(), checker());
        let waiting = files.rows.waiting(1).await.expect("read").remove(0);
        assert!(files.rows.claim(&waiting, &ending.name).await.expect("asked"));
        let now = clock::monotonic();
        assert!(!next.step(now).await.expect("looked"), "somebody checks it");
        next.give_back().await;
        assert!(!next.step(now).await.expect("looked"), "another's is not ours to give");
        ending.give_back().await;
        assert!(next.step(now).await.expect("checked"));
        assert_eq!(files.find(&caller, &file.id).await.expect("there").status, FileStatus::Processed);
    })
    .await;
}

#[tokio::test]
async fn a_check_that_falls_silent_is_taken_over() {
    for_each_database(async |database| {
        let place = place(database, 1 << 20).await;
        let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
        let file = put(files, &caller, &rows(false), 1).await;
        let waiting = files.rows.waiting(1).await.expect("read").remove(0);
        assert!(files.rows.claim(&waiting, "dead").await.expect("asked"));
        assert!(!files.rows.claim(&waiting, "late").await.expect("asked"), "somebody else was first");
        let mut checker = Checker::new(Arc::clone(files), Box::new(|_, _| {}));
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!checker.step(at(0)).await.expect("looked"), "somebody checks it");
        assert!(!checker.step(at(19)).await.expect("looked"));
        assert!(files.rows.beat(&file.id, "dead").await.expect("asked"), "it was only slow");
        assert!(!checker.step(at(20)).await.expect("looked"));
        assert!(checker.step(at(40)).await.expect("checked"), "now it has been silent");
        assert!(!files.rows.beat(&file.id, "dead").await.expect("asked"), "it is told");
        assert_eq!(files.find(&caller, &file.id).await.expect("there").status, FileStatus::Processed);
    })
    .await;
}

#[tokio::test]
async fn an_operator_has_a_file_checked_for_a_model() {
    let database = TestDatabase::sqlite();
    let place = place(&database, 1 << 20).await;
    let (files, caller) = (&place.files, key("key_1", None, Tuning::Write));
    let file = put(files, &caller, &rows(false), 1).await;
    let asked = Asked {
        file: file.id.clone(),
        model: "gpt-4o-mini".to_owned(),
        validation_file: Some(file.id.clone()),
        epochs: Some(2),
    };
    let report = files.check_for(&operator(), &asked).await.expect("checked");
    assert_eq!((report.examples, report.epochs), (10, 2));
    let foreign = key("key_2", None, Tuning::Read);
    assert!(files.check_for(&foreign, &asked).await.is_err());
    let _all = files.checks.acquire_many(2).await.expect("free");
    let busy = files.check_for(&caller, &asked).await.expect_err("enough");
    assert!(matches!(busy, TuningError::Busy(_)), "{busy}");
}

/// What may happen to the files of two gateways.
#[derive(Debug, Clone)]
enum Step {
    /// One of a few contents is uploaded.
    Put(u8),
    /// One of the files is deleted.
    Delete(usize),
    /// A job needs one of the files.
    Hold(usize, u8),
    /// A job ends.
    Release(u8),
    /// A gateway sweeps, as if an hour had passed.
    Sweep,
    /// A crash leaves a content whose row was not written.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(Step::Put),
        3 => (0..8_usize).prop_map(Step::Delete),
        2 => (0..8_usize, 0..3_u8).prop_map(|(file, job)| Step::Hold(file, job)),
        2 => (0..3_u8).prop_map(Step::Release),
        1 => Just(Step::Sweep),
        1 => (0..4_u8).prop_map(Step::Crash),
    ]
}

async fn play(steps: Vec<Step>) {
    let database = TestDatabase::sqlite();
    let place = place(&database, 1 << 20).await;
    let gateways = [Arc::clone(&place.files), Arc::new(place.another())];
    let caller = key("key_1", None, Tuning::Write);
    // what is to be there: visible files, and for each file the jobs that need it
    let mut visible: Vec<(TrainingFile, u8)> = Vec::new();
    let mut needed: BTreeMap<String, (u8, BTreeSet<u8>)> = BTreeMap::new();
    let mut left = 0;
    for (number, step) in steps.into_iter().enumerate() {
        let files = &gateways[number % 2];
        match step {
            Step::Put(content) => {
                let file = put(files, &caller, &[content; 7], 1).await;
                needed.insert(file.id.clone(), (content, BTreeSet::new()));
                visible.push((file, content));
            }
            Step::Delete(at) if at < visible.len() => {
                let (file, _) = visible.remove(at);
                files.delete(&caller, &file.id, 2).await.expect("deleted");
            }
            Step::Hold(at, job) if at < visible.len() => {
                let (file, _) = &visible[at];
                files.hold(&file.id, &format!("ftjob-{job}")).await.expect("held");
                needed.get_mut(&file.id).expect("known").1.insert(job);
            }
            Step::Release(job) => {
                files.release(&format!("ftjob-{job}")).await.expect("released");
                for (_, jobs) in needed.values_mut() {
                    jobs.remove(&job);
                }
            }
            Step::Sweep => {
                files.sweep(1, clock::machine_ms() + HOUR_MS).await.expect("swept");
                left = 0;
            }
            Step::Crash(content) => {
                let mut received = files.receive(&caller).await.expect("begun");
                received.push(vec![content; 7].into()).await.expect("taken");
                files.settle(received).await.expect("kept").0.leave();
                left += 1;
            }
            Step::Delete(_) | Step::Hold(..) => {}
        }
        needed.retain(|id, (_, jobs)| !jobs.is_empty() || visible.iter().any(|(file, _)| file.id == *id));
        for (id, (content, _)) in &needed {
            let file = files.held(id).await.expect("its row is there");
            let path = files.path(&file).await.expect("its place is known");
            assert_eq!(fs::read(path).expect("its content is there"), [*content; 7]);
        }
        let contents: BTreeSet<u8> = needed.values().map(|(content, _)| *content).collect();
        assert_eq!(place.on_disk().len(), contents.len() + left, "each content once, and nothing else");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_content_is_lost_and_none_is_left_over(steps in proptest::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(play(steps));
    }
}
