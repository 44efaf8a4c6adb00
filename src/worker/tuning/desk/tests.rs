//! What is decided at the desk, without a trainer.

use std::fs;

use tunegate_engine::adapter::peft;

use super::turns::{MOST_TRIES, Tries};
use super::*;
use crate::telemetry::metrics::Occupancy;
use crate::worker::adapters::AdapterBounds;
use crate::worker::adapters::tests::{SHAPE, weights};
use crate::worker::shelved::Card;
use crate::worker::tuning::record::{Outcome, Sums};
use crate::worker::tuning::settings::Plan;
use crate::worker::tuning::shelf::Stored;

/// A desk whose jobs nobody trains, with a file to train on.
fn desk(place: &tempfile::TempDir) -> TuningDesk {
    let folder = Folder::open(place.path()).expect("opened");
    let (adapters, training, metrics) = tools(&folder);
    let shelf = Shelf::new(&folder);
    keep(&shelf, "file-1", "fine-tune");
    let (state, news) = (Mutex::default(), Condvar::new());
    let _claim = folder.claim().expect("free");
    let inner = Inner { folder, _claim, shelf, adapters, training, metrics, state, news };
    TuningDesk { inner: Arc::new(inner), thread: None }
}

fn claimed(folder: Folder) -> (Folder, Claim) {
    let claim = folder.claim().expect("free");
    (folder, claim)
}

/// What a desk works with.
fn tools(folder: &Folder) -> (Arc<Adapters>, Training, Arc<WorkerMetrics>) {
    let most = Occupancy { queue: 1, active: 1, kv_tokens: 1 };
    let metrics = Arc::new(WorkerMetrics::new("small", None, most).expect("metrics"));
    let bounds = AdapterBounds::default();
    let adapters = Adapters::open(&folder.adapters(), "small", SHAPE, bounds, Arc::clone(&metrics));
    let training = Training {
        // a job that is begun all the same dies, which its record shows
        program: "/bin/false".into(),
        model_file: "none".into(),
        organization: "local".to_owned(),
        threads: NonZeroUsize::MIN,
        memory_mib: 1,
        longest_row: 1,
        checkpoint_every: Duration::ZERO,
    };
    (Arc::new(adapters.expect("opened")), training, metrics)
}

fn keep(shelf: &Shelf, id: &str, purpose: &str) {
    fs::write(shelf.content(id), "{}").expect("written");
    let (id, filename, purpose) = (id.to_owned(), "a".to_owned(), purpose.to_owned());
    shelf.keep(&Stored { id, bytes: 2, created_at: 1, filename, purpose }).expect("kept");
}

fn create(desk: &TuningDesk) -> Result<Record, String> {
    desk.create(br#"{"model": "small", "training_file": "file-1"}"#).map_err(|refusal| refusal.to_json())
}

#[test]
fn a_job_that_is_paused_or_called_off_just_before_its_turn_is_not_begun() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for (wish, status, told) in [
        (Wish::Pause, Status::Paused, "The job is paused"),
        (Wish::Cancel, Status::Cancelled, "The job was cancelled"),
    ] {
        let id = create(&desk).expect("taken in").id;
        let chosen = desk.inner.next().expect("its turn");
        assert_eq!(chosen.id, id);
        desk.inner.wish(&id, wish).expect("heard");
        desk.inner.train(&chosen).expect("left alone");
        let record = desk.find(&id).expect("still there");
        assert_eq!((record.status, record.started_at, record.deaths), (status, None, 0), "{wish:?}");
        assert_eq!(desk.events(&id, None, 1).expect("read").items[0].message, told);
        if status == Status::Paused {
            desk.resume(&id).expect("resumed");
            assert_eq!(desk.inner.next().expect("its turn").id, id, "what is resumed has its turn");
            desk.cancel(&id).expect("called off");
        }
    }
}

#[test]
fn so_many_jobs_wait_and_no_more() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    let first = create(&desk).expect("taken in");
    for at in 1..MOST_OPEN {
        let id = format!("ftjob-{at}");
        desk.inner.state().jobs.insert(id.clone(), Record { id, ..first.clone() });
    }
    let refused = create(&desk).expect_err("one too many");
    assert!(
        refused.contains("There are 100 fine-tuning jobs that have not ended: wait, or cancel some."),
        "{refused}"
    );
    desk.cancel(&first.id).expect("called off");
    create(&desk).expect("there is a place again");
}

#[test]
fn the_job_that_ended_first_is_forgotten_with_all_that_it_left() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    let first = create(&desk).expect("taken in");
    let folder = desk.inner.folder.job(&first.id);
    keep(desk.shelf(), "file-r", "fine-tune-results");
    for at in 0..MOST_JOBS {
        let id = if at == 0 { first.id.clone() } else { format!("ftjob-{at}") };
        let ended = Record {
            id: id.clone(),
            status: Status::Succeeded,
            finished_at: i64::try_from(at).ok(),
            result_file: (at == 0).then(|| "file-r".to_owned()),
            ..first.clone()
        };
        desk.inner.state().jobs.insert(id, ended);
    }
    create(&desk).expect("taken in");
    assert_eq!(desk.all().expect("readable").len(), MOST_JOBS);
    assert!(desk.find(&first.id).is_err() && !folder.path().exists());
    assert_eq!(desk.shelf().all().expect("listed").len(), 1, "the file that was handed in stays");
}

#[test]
fn a_paused_job_that_is_called_off_leaves_no_checkpoint() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    let id = create(&desk).expect("taken in").id;
    desk.pause(&id).expect("paused");
    let folder = desk.inner.folder.job(&id);
    for left in [folder.checkpoint(3), folder.epoch(3)] {
        fs::create_dir_all(left).expect("made");
    }
    desk.cancel(&id).expect("called off");
    let left = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("one").file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["events.jsonl", "job.json"]);
}

/// A job whose trainer has left these words, and an epoch behind step 3.
fn told_of(desk: &TuningDesk, outcome: &Outcome) -> String {
    let id = create(desk).expect("taken in").id;
    let folder = desk.inner.folder.job(&id);
    let epoch = Epoch {
        step: 3,
        created_at: 1,
        train_loss: 0.5,
        train_accuracy: 0.5,
        valid_loss: None,
        valid_accuracy: None,
    };
    let run = Run {
        rows: 3,
        plan: Plan { epochs: 1, batch: 1, rate_multiplier: 1.0 },
        model: None,
        step: 3,
        trained_tokens: 30,
        busy_ms: 3_000,
        epochs: vec![epoch],
        sums: Sums::default(),
    };
    folder::write_json(&folder.run(), &run).expect("written");
    fs::create_dir_all(folder.epochs()).expect("made");
    peft::write(&folder.epoch(3), &weights(4), &SHAPE, "small").expect("written");
    folder::write_json(&folder.outcome(), outcome).expect("written");
    id
}

fn stands(desk: &TuningDesk, id: &str, status: Status, wish: Option<Wish>) -> Record {
    let mut state = desk.inner.state();
    let record = state.jobs.get_mut(id).expect("a job");
    (record.status, record.wish) = (status, wish);
    record.clone()
}

/// Nothing can be served any more: there is a file in the place of the folder of adapters.
fn break_adapters(desk: &TuningDesk) {
    fs::remove_dir_all(desk.inner.folder.adapters()).expect("removed");
    fs::write(desk.inner.folder.adapters(), "").expect("written");
}

fn mend_adapters(desk: &TuningDesk) {
    fs::remove_file(desk.inner.folder.adapters()).expect("removed");
    fs::create_dir(desk.inner.folder.adapters()).expect("made");
}

fn last_words(desk: &TuningDesk, id: &str) -> String {
    desk.events(id, None, 1).expect("read").items[0].message.clone()
}

#[test]
fn what_is_trained_and_can_not_be_served_is_called_off_or_paused_all_the_same() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    break_adapters(&desk);
    for (wish, status) in [(Wish::Cancel, Status::Cancelled), (Wish::Pause, Status::Paused)] {
        let id = told_of(&desk, &Outcome::Succeeded { step: 3 });
        let running = stands(&desk, &id, Status::Running, None);
        assert!(desk.inner.train(&running).is_err(), "it is tried again");
        let running = stands(&desk, &id, Status::Running, Some(wish));
        desk.inner.train(&running).expect("as it is wished");
        let record = desk.find(&id).expect("still there");
        assert_eq!((record.status, record.wish), (status, None));
        let is_kept = desk.inner.folder.job(&id).outcome().exists();
        assert_eq!(is_kept, wish == Wish::Pause, "{wish:?}");
        if wish == Wish::Pause {
            mend_adapters(&desk);
            let resumed = desk.resume(&id).expect("resumed");
            desk.inner.train(&resumed).expect("served");
            assert_eq!(desk.find(&id).expect("still there").status, Status::Succeeded);
        }
    }
}

#[test]
fn what_is_called_off_is_served_no_more_though_it_was_published_in_part() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for is_paused in [false, true] {
        let id = told_of(&desk, &Outcome::Succeeded { step: 3 });
        let record = stands(&desk, &id, Status::Running, None);
        let name = record.model_name("small", "local");
        // the model can be put where it belongs, its curve can't
        let curve = desk.shelf().content(&conclude::curve_of(&record));
        fs::create_dir_all(curve.join("in the way")).expect("made");
        assert!(desk.inner.train(&record).is_err(), "it is tried again");
        assert!(desk.inner.adapters.find(&name).is_some(), "published");
        match is_paused {
            true => {
                assert!(desk.inner.set_aside(&id, &TrainingTrouble::Disk));
                desk.cancel(&id).expect("called off");
            }
            false => {
                let running = stands(&desk, &id, Status::Running, Some(Wish::Cancel));
                desk.inner.train(&running).expect("as it is wished");
            }
        }
        assert_eq!(desk.find(&id).expect("still there").status, Status::Cancelled);
        assert!(desk.inner.adapters.find(&name).is_none(), "{is_paused}");
    }
}

#[test]
fn what_is_trained_and_can_not_be_served_for_a_minute_lets_others_have_their_turn() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    break_adapters(&desk);
    let id = told_of(&desk, &Outcome::Succeeded { step: 3 });
    let record = stands(&desk, &id, Status::Running, None);
    let mut tries = Tries::default();
    for _ in 1..MOST_TRIES {
        assert!(!desk.inner.has_its_turn(&record, &mut tries));
        assert_eq!(desk.find(&id).expect("still there").status, Status::Running);
    }
    assert!(desk.inner.has_its_turn(&record, &mut tries));
    assert_eq!(desk.find(&id).expect("still there").status, Status::Paused);
    let words = last_words(&desk, &id);
    assert!(words.contains("All is trained, but the model can't be served"), "{words}");
    mend_adapters(&desk);
    let resumed = desk.resume(&id).expect("resumed");
    assert!(desk.inner.has_its_turn(&resumed, &mut tries));
    assert_eq!(desk.find(&id).expect("still there").status, Status::Succeeded);
}

#[test]
fn room_on_a_disk_is_waited_for_as_long_as_it_takes() {
    let full = TrainingTrouble::System(io::ErrorKind::StorageFull.into());
    let broken = TrainingTrouble::System(io::ErrorKind::Other.into());
    let mut tries = Tries::default();
    assert!((0..100).all(|_| !tries.are_over("a", &full)));
    assert!((1..MOST_TRIES).all(|_| !tries.are_over("a", &broken)));
    assert!(!tries.are_over("a", &TrainingTrouble::Died));
    assert!(!tries.are_over("b", &broken), "another job");
    assert!((1..MOST_TRIES).all(|_| !tries.are_over("a", &broken)));
    assert!(tries.are_over("a", &broken));
}

#[test]
fn what_is_wished_of_a_job_that_waits_stands_also_while_its_model_is_served() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for (wish, status) in [(Wish::Cancel, Status::Cancelled), (Wish::Pause, Status::Paused)] {
        let id = told_of(&desk, &Outcome::Succeeded { step: 3 });
        let folder = desk.inner.folder.job(&id);
        let ending = desk.inner.ending(desk.find(&id).expect("a job"), Some(&folder)).expect("served");
        let name = desk.find(&id).expect("a job").model_name("small", "local");
        assert!(desk.inner.adapters.find(&name).is_some());
        desk.inner.wish(&id, wish).expect("heard");
        desk.inner.enter(Status::Queued, ending).expect("left alone");
        assert_eq!(desk.find(&id).expect("a job").status, status);
        assert_eq!(desk.inner.adapters.find(&name).is_some(), wish == Wish::Pause, "{wish:?}");
        if wish == Wish::Pause {
            let resumed = desk.resume(&id).expect("resumed");
            desk.inner.train(&resumed).expect("served");
            assert_eq!(desk.find(&id).expect("a job").status, Status::Succeeded);
        }
    }
    // the curve of the one that was called off is gone, too
    let purposes = desk.shelf().all().expect("listed").into_iter().map(|file| file.purpose);
    assert_eq!(purposes.filter(|purpose| purpose == "fine-tune-results").count(), 1);
}

#[test]
fn a_word_that_a_trainer_may_say_again_is_not_heard_twice_and_its_last_word_is_not_lost() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for (outcome, is_kept) in [
        (Outcome::Paused, false),
        (Outcome::Waits { message: "mend it".to_owned() }, false),
        (Outcome::Succeeded { step: 3 }, true),
        (Outcome::Failed { code: "a".to_owned(), message: "b".to_owned() }, true),
    ] {
        let id = told_of(&desk, &outcome);
        let folder = desk.inner.folder.job(&id);
        // in the place of a kill: how it stands can't be written
        fs::create_dir(folder.job().with_extension("new")).expect("made");
        let record = stands(&desk, &id, Status::Running, None);
        assert!(matches!(desk.inner.train(&record), Err(TrainingTrouble::Disk)), "{outcome:?}");
        assert_eq!(folder.outcome().exists(), is_kept, "{outcome:?}");
        desk.inner.state().jobs.remove(&id);
    }
}

#[test]
fn what_is_left_over_and_can_not_be_removed_is_no_reason_not_to_serve() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(place.path()).expect("opened");
    let (adapters, training, metrics) = tools(&folder);
    fs::remove_dir(folder.files()).expect("removed");
    fs::write(folder.files(), "").expect("written");
    let desk = TuningDesk::start(claimed(folder), adapters, training, metrics).expect("started");
    assert!(desk.is_alive());
}

#[test]
fn a_job_that_can_not_be_read_is_not_told_to_be_none() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(place.path()).expect("opened");
    let broken = folder.job("ftjob-1");
    fs::create_dir(broken.path()).expect("made");
    fs::write(broken.job(), "{").expect("written");
    let (adapters, training, metrics) = tools(&folder);
    let desk = TuningDesk::start(claimed(folder), adapters, training, metrics).expect("started");
    for (id, want) in [
        ("ftjob-1", Refusal::unreadable_job("ftjob-1")),
        ("ftjob-2", Refusal::unknown_job("ftjob-2")),
        ("../jobs/ftjob-1", Refusal::unknown_job("../jobs/ftjob-1")),
    ] {
        for found in [desk.find(id), desk.cancel(id), desk.pause(id), desk.resume(id)] {
            assert_eq!(found, Err(want.clone()));
        }
    }
    let unreadable = Refusal::unreadable_job("ftjob-1");
    assert_eq!(desk.all(), Err(unreadable.clone()), "who looks for it there would order it again");
    assert_eq!(desk.delete_file("file-any"), Err(unreadable), "it may need it");
}

#[test]
fn what_was_computed_behind_the_last_checkpoint_is_charged_when_a_job_is_called_off() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for status in [Status::Running, Status::Paused] {
        let id = told_of(&desk, &Outcome::Paused);
        let folder = desk.inner.folder.job(&id);
        let metrics =
            journal::Metrics { step: 5, trained_tokens: 50, busy_ms: 5_000, ..journal::Metrics::default() };
        let mut journal = Journal::open(&folder.events(), &id).expect("opened");
        journal.measure(1, metrics).expect("written");
        let record = stands(&desk, &id, status, None);
        desk.cancel(&id).expect("heard");
        if status == Status::Running {
            desk.inner.train(&Record { wish: Some(Wish::Cancel), ..record }).expect("called off");
        }
        assert_eq!(desk.find(&id).expect("a job").status, Status::Cancelled);
        let run = desk.run_of(&id).expect("read").expect("a run");
        assert_eq!((run.trained_tokens, run.busy_ms, run.step), (50, 5_000, 3), "{status:?}");
    }
}

#[test]
fn another_model_of_the_same_name_is_not_trained_on() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    let from = place.path().join("peft");
    peft::write(&from, &weights(4), &SHAPE, "small").expect("written");
    let adapters = &desk.inner.adapters;
    let card = |created_at, job: Option<&str>| Card {
        name: "ft:x".to_owned(),
        base: "small".to_owned(),
        created_at,
        job: job.map(ToOwned::to_owned),
    };
    for (before, after, is_begun) in [
        (card(1, None), card(1, None), true),
        (card(1, None), card(2, None), false),
        (card(1, Some("ftjob-1")), card(1, Some("ftjob-2")), false),
    ] {
        adapters.publish(&from, "x", before).expect("published");
        let order = br#"{"model": "ft:x", "training_file": "file-1"}"#;
        let record = desk.create(order).expect("taken in");
        assert!(adapters.delete("ft:x").expect("deleted"));
        adapters.publish(&from, "x", after.clone()).expect("published");
        assert_eq!(desk.inner.begin(&record).expect("decided"), is_begun, "{after:?}");
        let status = desk.find(&record.id).expect("a job").status;
        assert_eq!(status, if is_begun { Status::Running } else { Status::Failed });
        assert!(adapters.delete("ft:x").expect("deleted"));
    }
}

#[test]
fn a_file_is_there_when_its_job_is_taken_in_and_as_long_as_the_job_is_open() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    for (id, member) in [("file-2", "training_file"), ("file-3", "validation_file")] {
        keep(desk.shelf(), id, "fine-tune");
        let order = serde_json::json!({"model": "small", "training_file": "file-1", member: id}).to_string();
        let job = desk.create(order.as_bytes()).expect("taken in");
        assert_eq!(desk.delete_file(id), Err(Refusal::file_in_use(id, &job.id)));
        desk.cancel(&job.id).expect("called off");
        desk.delete_file(id).expect("deleted");
        // as one that comes between the look at its files and this
        assert_eq!(desk.inner.admit(job).err(), Some(Refusal::unknown_file(member, id)));
    }
}

#[test]
fn an_epoch_that_is_deleted_while_its_job_runs_does_not_come_back() {
    let place = tempfile::tempdir().expect("a folder");
    let desk = desk(&place);
    let id = told_of(&desk, &Outcome::Paused);
    let folder = desk.inner.folder.job(&id);
    let (record, run) = (desk.find(&id).expect("a job"), desk.run_of(&id).expect("read").expect("a run"));
    let name = record.checkpoint_name("small", "local", 3);
    let served = || desk.inner.adapters.find(&name).is_some();
    for _ in 0..2 {
        desk.inner.publish_epochs(&record, &folder, &run).expect("served");
        assert!(served());
    }
    assert!(desk.inner.adapters.delete(&name).expect("deleted"));
    desk.inner.publish_epochs(&record, &folder, &run).expect("left alone");
    assert!(!served());
}
