use proptest::prelude::*;

use super::Ended::{AtItsCap, ByItself};
use super::*;

fn of(prompt: u64, cached: u64, completion: u64) -> TokenCounts {
    TokenCounts { prompt, cached, completion, ..TokenCounts::default() }
}

/// Numbers spread evenly over 0..1, the same in each run.
struct Spread(u64);

impl Spread {
    fn next(&mut self) -> f64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A length whose mean is `mean` and whose standard deviation is 0.42 of it: a product of two between 0.5 and 1.5.
    fn length(&mut self, mean: f64) -> u64 {
        let product: f64 = (0..2).map(|_| 0.5 + self.next()).product();
        (mean * product).round() as u64
    }
}

fn mean_of(learned: &Learned, cap: Option<u64>) -> f64 {
    Expectation { route: learned, deployment: learned }.mean_output_milli(cap).expect("seen") as f64 / MILLI
}

#[test]
fn two_thousand_answers_tell_the_mean_and_it_follows() {
    let mut off_in_all = 0.0;
    for seed in 0..20 {
        let mut spread = Spread(seed * 1_000_003);
        let mut learned = Learned::default();
        (0..2_000).for_each(|_| learned.note(&of(100, 0, spread.length(400.0)), ByItself));
        let off = mean_of(&learned, None) / 400.0 - 1.0;
        // three standard errors: 0.42 / sqrt(1,850), so many answers count in full
        assert!(off.abs() < 0.03, "seed {seed}: off by {off}");
        off_in_all += off.abs();
        // a new prompt: answers are four times as long
        let at = |learned: &Learned| mean_of(learned, None);
        (0..2_000).for_each(|_| learned.note(&of(100, 0, spread.length(1_600.0)), ByItself));
        assert!(at(&learned) > 1_050.0, "seed {seed}: {} after 2,000", at(&learned));
        (0..8_000).for_each(|_| learned.note(&of(100, 0, spread.length(1_600.0)), ByItself));
        assert!((at(&learned) / 1_600.0 - 1.0).abs() < 0.03, "seed {seed}: {} after 10,000", at(&learned));
        assert!(learned.samples() <= 2_000);
    }
    assert!(off_in_all / 20.0 < 0.012, "off by {} as a rule", off_in_all / 20.0);
}

#[test]
fn our_own_worker_takes_its_time_for_a_token() {
    let timed = |prompt, completion, compute_us| TokenCounts { compute_us, ..of(prompt, 0, completion) };
    let mut learned = Learned::default();
    assert_eq!(learned.compute_ns_per_token(), None);
    learned.note(&timed(90, 10, 0), ByItself);
    assert_eq!(learned.compute_ns_per_token(), None, "of another machine");
    let mut learned = Learned::default();
    learned.note(&timed(90, 10, 1_000), ByItself);
    assert_eq!(learned.compute_ns_per_token(), Some(10_000));
    learned.note(&timed(0, 100, 5_000), AtItsCap);
    let both = learned.compute_ns_per_token().expect("seen");
    assert!(
        (30_000..30_100).contains(&both),
        "6,000 µs for 200 tokens, the newer ones a little more: {both}"
    );
    learned.fade(0.5);
    assert_eq!(learned.compute_ns_per_token(), Some(both), "what counts less is no quicker");
}

#[test]
fn a_cap_cuts_what_is_longer() {
    let mut learned = Learned::default();
    let lengths: Vec<u64> = {
        let mut spread = Spread(7);
        (0..2_000).map(|_| spread.length(300.0)).collect()
    };
    // twice, the other way around the second time: then the younger half weighs as the whole
    lengths.iter().chain(lengths.iter().rev()).for_each(|length| learned.note(&of(1, 0, *length), ByItself));
    for cap in [50, 150, 300, 600, 5_000] {
        let want = lengths.iter().map(|length| (*length).min(cap) as f64).sum::<f64>() / 2_000.0;
        let found = mean_of(&learned, Some(cap));
        assert!((found / want - 1.0).abs() < 0.03, "cap {cap}: {found}, not {want}");
        assert!(found <= cap as f64);
    }
    assert_eq!(mean_of(&learned, Some(0)), 0.0);
}

#[test]
fn cut_answers_do_not_make_the_others_look_short() {
    let mut spread = Spread(11);
    let (mut learned, mut sum) = (Learned::default(), 0);
    for number in 0..6_000 {
        let length = spread.length(400.0);
        sum += length;
        // every third comes with a cap, which two of three reach
        match number % 3 {
            0 if length >= 300 => learned.note(&of(1, 0, 300), AtItsCap),
            _ => learned.note(&of(1, 0, length), ByItself),
        }
    }
    let (found, want) = (mean_of(&learned, None), sum as f64 / 6_000.0);
    assert!((found / want - 1.0).abs() < 0.03, "{found}, not {want}");
    assert!(mean_of(&learned, Some(300)) <= 300.0);
    // where none was longer, nobody knows more than was seen
    let mut all_cut = Learned::default();
    (0..100).for_each(|_| all_cut.note(&of(1, 0, 300), AtItsCap));
    assert!((mean_of(&all_cut, None) - 300.0).abs() < 0.01);
}

#[test]
fn percentiles_are_within_a_class() {
    let mut learned = Learned::default();
    assert_eq!(learned.percentile(50), None);
    (1..=1_000).for_each(|length| learned.note(&of(1, 0, 1 + (length * 617) % 1_000), ByItself));
    for (percent, want) in [(50, 500.0), (90, 900.0), (99, 990.0)] {
        let found = learned.percentile(percent).expect("seen") as f64;
        assert!((found / want - 1.0).abs() < 0.13, "p{percent}: {found}");
    }
    let mut few = Learned::default();
    [0, 1, 2, 3, 3].into_iter().for_each(|length| few.note(&of(1, 0, length), ByItself));
    // the older ones count a little less
    assert_eq!([15, 35, 55, 75, 100].map(|percent| few.percentile(percent)), [0, 1, 2, 3, 3].map(Some));
}

#[test]
fn classes_follow_each_other_without_a_gap() {
    for length in (0..5_000).chain([65_535, 65_536, 1_000_000]) {
        let (least, most) = BOUNDS[class_of(length)];
        assert!(least <= length as f64 && length as f64 <= most, "{length} in {least}..={most}");
    }
    assert_eq!(class_of(u64::MAX), CLASSES - 1);
}

#[test]
fn little_known_is_taken_for_the_rest() {
    let many = |n: u64, output: u64, cached: u64| {
        let mut learned = Learned::default();
        (0..n).for_each(|_| learned.note(&of(100, cached, output), ByItself));
        learned
    };
    let route = many(500, 100, 20);
    for (own, output, cached) in [
        (many(0, 0, 0), 100.0, 200),
        // as much as the route's word: half way
        (many(5, 300, 80), 200.0, 500),
        (many(45, 300, 80), 280.0, 740),
    ] {
        let expectation = Expectation { route: &route, deployment: &own };
        let mean = expectation.mean_output_milli(None).expect("seen") as f64 / MILLI;
        assert!((mean - output).abs() < 1.0, "{mean}, not {output}");
        assert!(expectation.cached_permille().expect("seen").abs_diff(cached) <= 3);
    }
    let none = Learned::default();
    let nothing = Expectation { route: &none, deployment: &none };
    assert_eq!((nothing.mean_output_milli(None), nothing.cached_permille()), (None, None));
}

proptest! {
    #[test]
    fn whatever_is_told_it_stays_within_what_was_told(
        told in proptest::collection::vec((any::<u64>(), any::<u64>(), 0..(1_u64 << 40)), 1..50),
        cap in proptest::option::of(0..(1_u64 << 41)),
    ) {
        let mut learned = Learned::default();
        told.iter().for_each(|(prompt, cached, completion)| learned.note(&of(*prompt, *cached, *completion), ByItself));
        let most = told.iter().map(|told| told.2).max().expect("one");
        let least = told.iter().map(|told| told.2).min().expect("one");
        let mean = mean_of(&learned, None);
        prop_assert!(mean <= most as f64 * 1.000_001 && mean * 1.000_001 + 1.0 >= least as f64);
        let cut = mean_of(&learned, cap);
        prop_assert!(cut <= mean * 1.000_001 + 0.001 && cap.is_none_or(|cap| cut <= cap as f64 + 0.001));
        let both = Expectation { route: &learned, deployment: &learned };
        prop_assert!(both.cached_permille().expect("seen") <= 1_000);
        prop_assert!(learned.percentile(50) <= learned.percentile(90));
        prop_assert!(learned.percentile(90) <= learned.percentile(99));
    }
}
