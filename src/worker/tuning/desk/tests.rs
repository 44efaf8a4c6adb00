//! What is decided at the desk, without a trainer.

use std::fs;

use super::*;
use crate::telemetry::metrics::Occupancy;
use crate::worker::adapters::AdapterBounds;
use crate::worker::adapters::tests::SHAPE;
use crate::worker::tuning::shelf::Stored;

/// A desk whose jobs nobody trains, with a file to train on.
fn desk(place: &tempfile::TempDir) -> TuningDesk {
    let folder = Folder::open(place.path()).expect("opened");
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
    let shelf = Shelf::new(&folder);
    keep(&shelf, "file-1", "fine-tune");
    let inner = Inner {
        folder,
        shelf,
        adapters: Arc::new(adapters.expect("opened")),
        training,
        metrics,
        state: Mutex::default(),
        news: Condvar::new(),
    };
    TuningDesk { inner: Arc::new(inner), thread: None }
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
    assert_eq!(desk.all().len(), MOST_JOBS);
    assert!(desk.find(&first.id).is_none() && !folder.path().exists());
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
