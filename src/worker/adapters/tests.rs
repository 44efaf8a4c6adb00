//! What is loaded, let go and refused.

use tunegate_engine::adapter::{LoraPair, LoraWeights};

use super::*;
use crate::telemetry::metrics::Occupancy;

/// A small model's.
pub(in crate::worker) const SHAPE: Shape = Shape {
    width: 32,
    hidden: 64,
    layers: 2,
    heads: 2,
    kv_heads: 1,
    head_width: 16,
    vocabulary: 10,
    context: 64,
    epsilon: 1e-5,
    rope_base: 1e4,
};

pub(in crate::worker) fn weights(rank: usize) -> LoraWeights {
    let config = LoraConfig::new(rank, 8.0, 0.0, vec![Target::Query]).expect("a form");
    let pair = |layer| LoraPair {
        layer,
        target: Target::Query,
        a: vec![0.5; rank * SHAPE.width],
        b: vec![0.25; SHAPE.query_width() * rank],
    };
    LoraWeights { config, pairs: (0..SHAPE.layers).map(pair).collect() }
}

fn card(name: &str) -> Card {
    Card { name: name.to_owned(), base: "small".to_owned(), created_at: 1, job: None }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("adapters")).expect("made");
        Self { folder }
    }

    fn open(&self, bounds: AdapterBounds) -> Adapters {
        let most = Occupancy { queue: 1, active: 1, kv_tokens: 1 };
        let metrics = Arc::new(WorkerMetrics::new("small", None, most).expect("metrics"));
        Adapters::open(&self.folder.path().join("adapters"), "small", SHAPE, bounds, metrics).expect("opened")
    }

    fn trained(&self, rank: usize) -> PathBuf {
        let path = self.folder.path().join(format!("trained-{rank}"));
        peft::write(&path, &weights(rank), &SHAPE, "small").expect("written");
        path
    }
}

#[test]
fn those_asked_for_last_are_in_memory() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds { resident: 2, ..AdapterBounds::default() });
    let from = place.trained(4);
    for name in ["a", "b", "c"] {
        adapters.publish(&from, name, card(name)).expect("published");
    }
    let load = |name: &str| adapters.load(name).expect("read").expect("there");
    let a = load("a");
    load("b");
    assert!(Arc::ptr_eq(&a, &load("a")), "from memory");
    load("c");
    assert!(Arc::ptr_eq(&a, &load("a")), "b went, since a was asked for later");
    assert_eq!(adapters.state().resident.len(), 2);
    let full = Occupancy { queue: 0, active: 0, kv_tokens: 0 };
    let told = String::from_utf8(adapters.metrics.text(full)).expect("text");
    for line in [
        "tunegate_worker_adapters_resident 2",
        "tunegate_worker_adapters_resident_limit 2",
        "tunegate_worker_adapter_evictions_total 1",
        "tunegate_worker_adapter_loads_total 3",
    ] {
        assert!(told.lines().any(|written| written == line), "{line} in\n{told}");
    }
    assert!(adapters.load("d").expect("nothing").is_none());
}

#[test]
fn one_that_is_deleted_serves_who_has_it_and_nobody_else() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds::default());
    adapters.publish(&place.trained(4), "x", card("x")).expect("published");
    let held = adapters.load("x").expect("read").expect("there");
    assert!(adapters.delete("x").expect("deleted"));
    assert!(!adapters.delete("x").expect("gone"));
    assert!(adapters.find("local/x").is_none() && held.size_bytes() > 0);
    assert_eq!(fs::read_dir(place.folder.path().join("adapters")).expect("a folder").count(), 0);
}

#[test]
fn one_that_can_not_be_deleted_is_served_on() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds::default());
    adapters.publish(&place.trained(4), "x", card("x")).expect("published");
    // no folder goes into the place of a file
    let in_the_way = place.folder.path().join("adapters/x.gone");
    fs::write(&in_the_way, "").expect("written");
    for _ in 0..2 {
        assert!(adapters.delete("x").is_err());
        assert_eq!(adapters.find("x"), Some(card("x")), "it would be back at the next start");
        assert!(adapters.load("x").expect("read").is_some());
    }
    fs::remove_file(in_the_way).expect("removed");
    assert!(adapters.delete("x").expect("deleted"));
    assert_eq!(place.open(AdapterBounds::default()).all(), []);
}

#[test]
fn one_that_is_deleted_can_be_brought_again() {
    let place = Place::new();
    let (from, folder) = (place.trained(4), place.folder.path().join("adapters"));
    let adapters = place.open(AdapterBounds::default());
    for _ in 0..2 {
        shelved::import(&from, &folder, &SHAPE, &card("x")).expect("imported");
        adapters.state().looked = None;
        assert!(adapters.find("x").is_some(), "served under the name of before");
        assert!(adapters.delete("x").expect("deleted"));
        adapters.state().looked = None;
        assert_eq!(adapters.find("x"), None);
    }
}

#[test]
fn a_card_that_can_not_be_read_now_is_read_later() {
    let place = Place::new();
    let folder = place.folder.path().join("adapters");
    shelved::import(&place.trained(4), &folder, &SHAPE, &card("x")).expect("imported");
    let at = fs::read_dir(&folder).expect("a folder").next().expect("an entry").expect("read").path();
    let card_file = at.join("tunegate.json");
    let text = fs::read(&card_file).expect("a card");
    fs::remove_file(&card_file).expect("removed");
    // a folder can't be read as a file is: an error of the system
    fs::create_dir(&card_file).expect("made");
    let adapters = place.open(AdapterBounds::default());
    assert_eq!(adapters.find("x"), None);
    fs::remove_dir(&card_file).expect("removed");
    fs::write(&card_file, text).expect("written");
    adapters.state().looked = None;
    assert_eq!(adapters.find("x"), Some(card("x")));
}

#[test]
fn a_model_takes_its_checkpoints_along_and_nothing_else() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds::default());
    let from = place.trained(4);
    let of = |name: &str, job: Option<&str>| Card { job: job.map(ToOwned::to_owned), ..card(name) };
    for (id, card) in [
        ("a", of("ft:m:o:s:1", Some("ftjob-1"))),
        ("b", of("ft:m:o:s:1:ckpt-step-3", Some("ftjob-1"))),
        ("c", of("ft:m:o:s:1:ckpt-step-6", Some("ftjob-1"))),
        ("d", of("ft:m:o:s:2:ckpt-step-6", Some("ftjob-2"))),
        ("e", of("ft:m:o:s:1:ckpt-step-9", None)),
    ] {
        adapters.publish(&from, id, card).expect("published");
    }
    assert!(adapters.delete_model("ft:m:o:s:2:ckpt-step-6").expect("deleted"));
    assert_eq!(adapters.all().len(), 4, "a checkpoint is deleted alone");
    assert!(adapters.delete_model("ft:m:o:s:1").expect("deleted"));
    assert!(!adapters.delete_model("ft:m:o:s:1").expect("gone"));
    assert_eq!(adapters.all(), [of("ft:m:o:s:1:ckpt-step-9", None)], "an imported one has no job");
    assert_eq!(fs::read_dir(place.folder.path().join("adapters")).expect("a folder").count(), 1);
}

#[test]
fn one_that_many_ask_for_is_read_once() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds::default());
    adapters.publish(&place.trained(64), "x", card("x")).expect("published");
    let all_at_once = std::sync::Barrier::new(4);
    let load = || {
        all_at_once.wait();
        adapters.load("x").expect("read").expect("there")
    };
    let loaded: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().expect("loaded")).collect()
    });
    assert!(loaded.iter().all(|adapter| Arc::ptr_eq(adapter, &loaded[0])), "one copy for all");
    assert!(adapters.resident("local/x").is_some() && adapters.state().reading.is_empty());
    assert!(adapters.resident("y").is_none());
}

#[test]
fn what_is_too_large_is_not_published() {
    let place = Place::new();
    let adapters = place.open(AdapterBounds { rank: 4, ..AdapterBounds::default() });
    assert!(matches!(adapters.publish(&place.trained(8), "x", card("x")), Err(ShelfError::Adapter { .. })));
    let adapters = place.open(AdapterBounds { bytes: 100, ..AdapterBounds::default() });
    assert!(adapters.publish(&place.trained(4), "x", card("x")).is_err());
    assert_eq!(adapters.all(), []);
}

#[test]
fn what_would_not_be_served_is_known_before_it_is_trained() {
    let place = Place::new();
    let size = |rank| fs::metadata(place.trained(rank).join(shelved::WEIGHTS_FILE)).expect("a file").len();
    let bytes = usize::try_from(size(8)).expect("small");
    for (bounds, rank, says) in [
        (AdapterBounds::default(), 128, None),
        (AdapterBounds::default(), 129, Some("rank is 129, and at most 128")),
        (AdapterBounds { bytes: bytes - 1, ..AdapterBounds::default() }, 8, Some("size in bytes is")),
        (AdapterBounds { bytes: bytes + 4096, ..AdapterBounds::default() }, 8, None),
    ] {
        let taken = place.open(bounds).takes(&weights(rank).config).map_err(|error| error.to_string());
        match says {
            None => assert_eq!(taken, Ok(()), "{bounds:?}"),
            Some(words) => assert!(taken.expect_err(words).contains(words), "{bounds:?}"),
        }
    }
}

#[test]
fn what_the_system_is_to_blame_for_is_tried_again() {
    let io = || io::Error::from(io::ErrorKind::StorageFull);
    let name = || "x".to_owned();
    let wrong = |source| ShelfError::Adapter { name: name(), source };
    for (error, is_system) in [
        (ShelfError::System { path: PathBuf::new(), source: io() }, true),
        (wrong(AdapterError::Io(io())), true),
        (wrong(AdapterError::Malformed(name())), false),
        (ShelfError::TooLarge { name: name(), bytes: 2, most: 1 }, false),
        (ShelfError::TooMany, false),
    ] {
        let told = error.to_string();
        assert_eq!(error.into_system().is_ok(), is_system, "{told}");
    }
}

#[test]
fn a_start_finds_what_there_is_and_later_what_was_put_there() {
    let place = Place::new();
    let from = place.trained(4);
    place.open(AdapterBounds::default()).publish(&from, "x", card("x")).expect("published");
    let folder = place.folder.path().join("adapters");
    fs::create_dir(folder.join("half.new")).expect("made");
    let adapters = place.open(AdapterBounds::default());
    assert_eq!(adapters.all(), [card("x")]);
    assert!(!folder.join("half.new").exists());
    shelved::import(&from, &folder, &SHAPE, &card("y")).expect("imported");
    adapters.state().looked = None;
    assert_eq!(adapters.find("y"), Some(card("y")));
    let other = Card { base: "other".to_owned(), ..card("z") };
    shelved::import(&from, &folder, &SHAPE, &other).expect("imported");
    adapters.state().looked = None;
    assert_eq!(adapters.find("z"), None);
}
