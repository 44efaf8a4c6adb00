//! What a step does, what it refuses, and what chance it takes.

use tunegate_engine::adapter::{LoraConfig, Target};
use tunegate_engine::train::{Decay, Example, Method, Pair, Row, Settings, TrainError, Trainer};

use crate::tiny::{BLOCKS, Folder, SHAPE, Stored, adapter, example, open, settings};

fn trainer(folder: &Folder, settings: Settings) -> Trainer {
    Trainer::new(&mut open(&folder.model(&SHAPE, Stored::F32)), settings, None).unwrap()
}

#[test]
fn pitfall_09_tensors_beside_quantised_matrices_learn() {
    let folder = Folder::new("quantised");
    let model = folder.model(&BLOCKS, Stored::Q8_0);
    let mut trainer = Trainer::new(&mut open(&model), settings(Method::Sft, 0.0, 8), None).unwrap();
    let before = trainer.weights().clone();
    let row = example(1, 12);
    // In the first step B is nothing, so only B learns; then both.
    for _ in 0..2 {
        trainer.step(&[Row::Example(&row)]).unwrap();
    }
    for (before, after) in before.pairs.iter().zip(&trainer.weights().pairs) {
        assert_ne!(before.a, after.a, "A of {:?} in layer {}", before.target, before.layer);
        assert_ne!(before.b, after.b, "B of {:?} in layer {}", before.target, before.layer);
    }
}

#[test]
fn pitfall_14_chance_is_the_seeds() {
    let folder = Folder::new("seeds");
    let learn = |seed: u64| {
        let mut trainer = trainer(&folder, Settings { seed, ..settings(Method::Sft, 0.3, 8) });
        let row = example(1, 12);
        let steps: Vec<_> = (0..3).map(|_| trainer.step(&[Row::Example(&row)]).unwrap()).collect();
        (steps, trainer.weights().clone())
    };
    let first = learn(1);
    assert_eq!(first, learn(1));
    let second = learn(2);
    assert_ne!(first.1.pairs[0].a, second.1.pairs[0].a);
    // Dropout is drawn anew in each step, and not at all where it is 0.
    let losses = |dropout: f64| {
        let settings = Settings { learning_rate: 1e-300, ..settings(Method::Sft, dropout, 8) };
        let model = folder.model(&SHAPE, Stored::F32);
        let mut trainer = Trainer::new(&mut open(&model), settings, Some(&adapter(&SHAPE, 3))).unwrap();
        let row = example(1, 12);
        [(); 2].map(|()| trainer.step(&[Row::Example(&row)]).unwrap().loss)
    };
    let [first, second] = losses(0.0);
    assert_eq!(first, second, "a rate of nothing moves nothing");
    let [first, second] = losses(0.3);
    assert_ne!(first, second);
}

#[test]
fn an_order_is_the_seeds_and_the_epochs() {
    let settings = settings(Method::Sft, 0.0, 8);
    let order = settings.order(0, 40);
    assert_eq!(order, settings.order(0, 40));
    assert_ne!(order, settings.order(1, 40));
    assert_ne!(order, Settings { seed: 6, ..settings.clone() }.order(0, 40));
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..40).collect::<Vec<_>>());
    assert!(settings.order(0, 0).is_empty());
}

#[test]
fn the_learning_rate_rises_and_falls() {
    let rates = |warmup, decay| -> Vec<f64> {
        let settings = Settings { learning_rate: 1.0, warmup, decay, ..settings(Method::Sft, 0.0, 8) };
        (0..8).map(|step| (settings.rate(step) * 1000.0).round() / 1000.0).collect()
    };
    assert_eq!(rates(0.25, Decay::Linear), [0.5, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167]);
    assert_eq!(rates(0.0, Decay::Cosine), [1.0, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]);
    assert_eq!(rates(0.1, Decay::Constant), [1.0; 8]);
    assert_eq!(rates(1.0, Decay::Linear), [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]);
}

#[test]
fn rows_are_learned() {
    let folder = Folder::new("learned");
    let mut trainer = trainer(&folder, settings(Method::Sft, 0.0, 60));
    let rows = [example(1, 12), example(2, 9)];
    let rows: Vec<Row<'_>> = rows.iter().map(Row::Example).collect();
    let before = trainer.evaluate(&rows).unwrap();
    let mut last = None;
    for number in 1..=60 {
        let step = trainer.step(&rows).unwrap();
        assert_eq!((step.step, step.tokens, step.trained_tokens), (number, 21, before.tokens));
        last = Some(step);
    }
    let after = trainer.evaluate(&rows).unwrap();
    assert!(after.loss < 0.5 * before.loss, "{before:?} {after:?}");
    assert!(after.accuracy > before.accuracy, "{before:?} {after:?}");
    assert!(last.unwrap().learning_rate < 0.001);
    assert!(matches!(trainer.step(&rows), Err(TrainError::Finished(60))));
}

#[test]
fn the_preferred_answer_gains() {
    let folder = Folder::new("preferred");
    let mut trainer = trainer(&folder, settings(Method::Dpo { beta: 0.5 }, 0.0, 40));
    let pairs = [
        Pair { chosen: example(1, 12), rejected: example(2, 9) },
        Pair { chosen: example(3, 8), rejected: example(4, 10) },
    ];
    let rows: Vec<Row<'_>> = pairs.iter().map(Row::Pair).collect();
    // An adapter that changes nothing yet prefers nothing.
    let before = trainer.evaluate(&rows).unwrap();
    assert!((before.loss - 2f64.ln()).abs() < 1e-6 && before.accuracy == 0.0, "{before:?}");
    for _ in 0..40 {
        trainer.step(&rows).unwrap();
    }
    let after = trainer.evaluate(&rows).unwrap();
    assert!(after.loss < 0.1 && after.accuracy == 1.0, "{after:?}");
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let folder = Folder::new("finite");
    let model = folder.model(&SHAPE, Stored::F32);
    let mut start = adapter(&SHAPE, 3);
    for pair in &mut start.pairs {
        pair.b.iter_mut().for_each(|x| *x = 1e30 * x.signum());
        pair.a.iter_mut().for_each(|x| *x = 1e30 * x.signum());
    }
    let mut trainer = Trainer::new(&mut open(&model), settings(Method::Sft, 0.0, 8), Some(&start)).unwrap();
    let row = example(1, 12);
    for _ in 0..2 {
        let error = trainer.step(&[Row::Example(&row)]).unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { step: 1 }), "{error}");
    }
    assert!(matches!(trainer.evaluate(&[Row::Example(&row)]), Err(TrainError::NotFinite { .. })));
    assert_eq!((trainer.weights().pairs.as_slice(), trainer.steps()), (&start.pairs[..], 0));
}

#[test]
fn what_cannot_be_learned_from_is_refused_before_anything_is_computed() {
    let folder = Folder::new("refused");
    let mut trainer = trainer(&folder, settings(Method::Sft, 0.0, 8));
    let before = trainer.weights().clone();
    let fine = example(1, 12);
    let longest = Example { tokens: vec![1; SHAPE.context + 1], weights: vec![1.0; SHAPE.context + 1] };
    let long = Example { tokens: vec![1; SHAPE.context + 2], weights: vec![1.0; SHAPE.context + 2] };
    let pair = Pair { chosen: fine.clone(), rejected: fine.clone() };
    for (row, want) in [(Row::Example(&long), "beyond the context of 48"), (Row::Pair(&pair), "it is a pair")]
    {
        let error = trainer.step(&[Row::Example(&fine), row]).unwrap_err();
        assert!(matches!(error, TrainError::Row { index: 1, .. }), "{error}");
        assert!(error.to_string().contains(want), "{error}");
        assert!(trainer.evaluate(&[row]).is_err());
    }
    assert!(matches!(trainer.step(&[]), Err(TrainError::NoRows)));
    assert_eq!((trainer.weights(), trainer.steps()), (&before, 0));
    trainer.step(&[Row::Example(&longest)]).unwrap();
}

#[test]
fn settings_out_of_range_are_refused() {
    let folder = Folder::new("settings");
    let model = folder.model(&SHAPE, Stored::F32);
    let fine = || settings(Method::Sft, 0.0, 8);
    let cases: [(&str, Settings); 8] = [
        ("learning rate", Settings { learning_rate: 0.0, ..fine() }),
        ("learning rate", Settings { learning_rate: f64::NAN, ..fine() }),
        ("warm-up", Settings { warmup: 1.5, ..fine() }),
        ("weight decay", Settings { weight_decay: -0.1, ..fine() }),
        ("gradient", Settings { clip: f64::INFINITY, ..fine() }),
        ("steps", Settings { total_steps: 0, ..fine() }),
        ("beta", Settings { method: Method::Dpo { beta: 0.0 }, ..fine() }),
        ("beta", Settings { method: Method::Dpo { beta: f64::NAN }, ..fine() }),
    ];
    for (want, settings) in cases {
        let error = Trainer::new(&mut open(&model), settings, None).err().unwrap().to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
    let lora = |rank, targets: &[Target]| LoraConfig::new(rank, 6.0, 0.0, targets.to_vec()).unwrap();
    for (want, lora) in [("rank", lora(4, &Target::ALL)), ("targets", lora(3, &[Target::Query]))] {
        let settings = Settings { lora, ..fine() };
        let error = Trainer::new(&mut open(&model), settings, Some(&adapter(&SHAPE, 3))).err().unwrap();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    let other = adapter(&BLOCKS, 3);
    assert!(Trainer::new(&mut open(&model), fine(), Some(&other)).is_err(), "of another model");
}
