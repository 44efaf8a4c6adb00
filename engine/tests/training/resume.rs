//! A training that is left and gone on with is the same to the bit as one that was not.

use std::fs;

use tunegate_engine::adapter::{LoraConfig, LoraWeights, Target};
use tunegate_engine::train::{Method, Pair, Row, Settings, Step, TrainError, Trainer};

use crate::tiny::{BLOCKS, Folder, SHAPE, Stored, adapter, example, open, settings};

/// Makes the next step of a training of examples or of pairs.
fn step(trainer: &mut Trainer) -> Step {
    let at = trainer.steps() as usize;
    let pair = Pair { chosen: example(at, 12), rejected: example(at + 5, 9) };
    match trainer.settings().method {
        Method::Sft => trainer.step(&[Row::Example(&pair.chosen), Row::Example(&pair.rejected)]),
        Method::Dpo { .. } => trainer.step(&[Row::Pair(&pair)]),
    }
    .unwrap()
}

fn bits(weights: &LoraWeights) -> Vec<u32> {
    weights.pairs.iter().flat_map(|pair| pair.a.iter().chain(&pair.b)).map(|x| x.to_bits()).collect()
}

#[test]
fn pitfall_13_moments_are_kept_so_a_resumed_training_is_the_same_to_the_bit() {
    let folder = Folder::new("resumed");
    let model = folder.model(&SHAPE, Stored::F32);
    let start = adapter(&SHAPE, 3);
    for (method, start) in
        [(Method::Sft, None), (Method::Dpo { beta: 0.5 }, None), (Method::Dpo { beta: 0.5 }, Some(&start))]
    {
        let settings = settings(method, 0.2, 6);
        let begin = || Trainer::new(&mut open(&model), settings.clone(), start).unwrap();
        let mut straight = begin();
        let steps: Vec<Step> = (0..6).map(|_| step(&mut straight)).collect();
        for left in 0..6 {
            let mut before = begin();
            for _ in 0..left {
                step(&mut before);
            }
            before.save(&folder.0).unwrap();
            let mut after = Trainer::resume(&mut open(&model), settings.clone(), &folder.0).unwrap();
            assert_eq!(bits(after.weights()), bits(before.weights()));
            let rest: Vec<Step> = (left..6).map(|_| step(&mut after)).collect();
            assert_eq!(rest, steps[left..], "{method:?}, left after {left}");
            assert_eq!(bits(after.weights()), bits(straight.weights()), "{method:?}, left after {left}");
        }
    }
}

#[test]
fn what_is_not_this_training_is_refused() {
    let folder = Folder::new("others");
    let model = folder.model(&SHAPE, Stored::F32);
    let ours = settings(Method::Sft, 0.2, 6);
    let resume = |settings: Settings| Trainer::resume(&mut open(&model), settings, &folder.0);
    assert!(matches!(resume(ours.clone()), Err(TrainError::Io(_))), "nothing was saved yet");
    Trainer::new(&mut open(&model), ours.clone(), None).unwrap().save(&folder.0).unwrap();
    resume(ours.clone()).unwrap();
    let lora = LoraConfig::new(3, 6.0, 0.2, vec![Target::Query]).unwrap();
    for other in [
        Settings { seed: 6, ..ours.clone() },
        Settings { learning_rate: 0.02, ..ours.clone() },
        Settings { total_steps: 7, ..ours.clone() },
        Settings { method: Method::Dpo { beta: 0.5 }, ..ours.clone() },
        Settings { lora, ..ours },
    ] {
        let error = resume(other).err().unwrap();
        assert!(matches!(&error, TrainError::State(why) if why.contains("it is of the training")), "{error}");
    }
    let other = Folder::new("others-model").model(&BLOCKS, Stored::Q8_0);
    assert!(!other.exists(), "the folder is gone with its test");
    let other = Folder::new("others-model");
    let mut other = open(&other.model(&BLOCKS, Stored::Q8_0));
    assert!(matches!(Trainer::resume(&mut other, ours, &folder.0), Err(TrainError::State(_))));
}

#[test]
fn a_broken_state_is_an_error() {
    let folder = Folder::new("broken");
    let model = folder.model(&SHAPE, Stored::F32);
    let settings = settings(Method::Sft, 0.0, 6);
    Trainer::new(&mut open(&model), settings.clone(), None).unwrap().save(&folder.0).unwrap();
    let path = folder.0.join("training.safetensors");
    let whole = fs::read(&path).unwrap();
    let resume = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Trainer::resume(&mut open(&model), settings.clone(), &folder.0)
    };
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        assert!(resume(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(resume(&[&whole[..], &[0]].concat()).is_err(), "one byte more");
    let names = |from: &str, to: &str| -> Vec<u8> {
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat()
    };
    assert!(resume(&names("0.q_proj.a.first", "0.q_proj.a.fIrst")).is_err(), "a missing tensor");
    assert!(resume(&names("tunegate training 1", "tunegate training 2")).is_err(), "another kind");
    assert!(resume(&names("\"step\":\"0\"", "\"step\":\"x\"")).is_err(), "no step");
    resume(&whole).unwrap();
}
