use proptest::prelude::*;

use super::*;

fn stream(ttft_us: u64, per_token_us: u64, tokens: u64) -> Observation {
    Observation::Stream { ttft_us, total_us: ttft_us + per_token_us * (tokens - 1), tokens }
}

fn whole(ttft_us: u64, per_token_us: u64, tokens: u64) -> Observation {
    Observation::Whole { total_us: ttft_us + per_token_us * (tokens - 1), tokens }
}

#[test]
fn streams_and_wholes_show_the_same_speed() {
    for kind in [stream, whole] {
        let mut meter = Meter::default();
        for tokens in [10, 500, 40, 200, 90] {
            meter.note(kind(200_000, 9_000, tokens), 0);
        }
        let speed = meter.estimate(0).expect("measured");
        assert!(speed.ttft_us.abs_diff(200_000) < 5, "{speed:?}");
        assert_eq!(speed.per_token_us, 9_000);
        assert!(speed.expected_us(101).abs_diff(1_100_000) < 10, "{speed:?}");
    }
}

#[test]
fn what_can_not_be_seen_is_not_made_up() {
    for (observations, want) in [
        (vec![], None),
        // of one length: all the time is the tokens'
        (vec![whole(0, 1_000, 11), whole(0, 1_000, 11)], Some((0, 1_000))),
        // embeddings have no tokens
        (vec![Observation::Whole { total_us: 700, tokens: 0 }], Some((700, 0))),
        (vec![Observation::Stream { ttft_us: 700, total_us: 900, tokens: 1 }], Some((700, 0))),
        (vec![Observation::Stream { ttft_us: 700, total_us: 600, tokens: 3 }], Some((600, 0))),
        // longer ones that were quicker make no negative time
        (
            vec![
                Observation::Whole { total_us: 3_000, tokens: 1 },
                Observation::Whole { total_us: 1_000, tokens: 9 },
            ],
            Some((2_000, 0)),
        ),
        // those of which there are more speak
        (vec![stream(5_000, 10, 9), whole(0, 1_000, 11), whole(0, 1_000, 11)], Some((0, 1_000))),
        (vec![stream(5_000, 10, 9), whole(0, 1_000, 11)], Some((5_000, 10))),
    ] {
        let mut meter = Meter::default();
        for observation in &observations {
            meter.note(*observation, 0);
        }
        let found = meter.estimate(0).map(|speed| (speed.ttft_us, speed.per_token_us));
        assert_eq!(found, want, "{observations:?}");
    }
}

#[test]
fn a_slow_past_is_not_for_ever() {
    let mut meter = Meter::default();
    for _ in 0..32 {
        meter.note(stream(5_000_000, 50_000, 100), 0);
    }
    let weight = |meter: &Meter, now_ms| meter.estimate(now_ms).map(|speed| speed.weight);
    assert_eq!(weight(&meter, 0), Some(32.0));
    assert_eq!(weight(&meter, 600_000), Some(8.0), "two half-lives");
    assert_eq!(weight(&meter, 3_600_000), None, "twelve");
    // after 25 minutes one new measurement counts as much as all the old ones
    meter.note(stream(100_000, 1_000, 100), 1_500_000);
    let speed = meter.estimate(1_500_000).expect("measured");
    assert_eq!((speed.ttft_us, speed.per_token_us, speed.weight), (2_550_000, 25_500, 2.0));
}

#[test]
fn one_very_long_answer_does_not_speak_for_all() {
    let mut meter = Meter::default();
    (0..30).for_each(|_| meter.note(stream(500_000, 10_000, 201), 0));
    meter.note(stream(500_000, 30_000, 16_001), 0);
    // 6,000 tokens at 10 ms and 256 at 30
    assert_eq!(meter.estimate(0).map(|speed| speed.per_token_us), Some(10_818));
}

#[test]
fn where_many_answers_come_tens_show_a_change() {
    let mut meter = Meter::default();
    (0..10_000).for_each(|_| meter.note(stream(1_000_000, 10_000, 100), 0));
    let ttft_ms = |meter: &Meter| meter.estimate(0).map_or(0, |speed| speed.ttft_us / 1_000);
    assert_eq!(ttft_ms(&meter), 1_000);
    (0..35).for_each(|_| meter.note(stream(9_000_000, 10_000, 100), 0));
    assert!((4_900..5_200).contains(&ttft_ms(&meter)), "half of the way: {}", ttft_ms(&meter));
    assert!(meter.estimate(0).is_some_and(|speed| speed.weight <= 50.0));
    assert!(meter.estimate(46 * 60_000).is_none(), "forgotten");
}

proptest! {
    #[test]
    fn it_stays_a_number(
        observations in proptest::collection::vec((any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()), 0..60),
        tokens in any::<u64>(),
    ) {
        let mut meter = Meter::default();
        let mut now_ms = 0_i64;
        for (is_stream, ttft_us, total_us, tokens, gap) in observations {
            now_ms += i64::from(gap);
            meter.note(match is_stream {
                true => Observation::Stream { ttft_us, total_us, tokens },
                false => Observation::Whole { total_us, tokens },
            }, now_ms);
            // a measurement that has just come is known
            let speed = meter.estimate(now_ms).expect("measured");
            prop_assert!(speed.weight.is_finite() && speed.weight >= 1.0);
            prop_assert!(speed.ttft_us <= LONGEST_US && speed.per_token_us <= LONGEST_US);
            prop_assert!(speed.expected_us(tokens) >= speed.ttft_us);
        }
        prop_assert!(meter.estimate(i64::MAX).is_none());
        let _ = tokens;
    }
}
