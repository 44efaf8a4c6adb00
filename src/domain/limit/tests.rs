use proptest::prelude::*;

use super::*;

#[test]
fn three_a_minute() {
    let mut meter = Meter::default();
    for (at_ms, taken, remaining, reset_ms) in [
        (0, Ok(()), 2, 20_000),
        (0, Ok(()), 1, 40_000),
        (0, Ok(()), 0, 60_000),
        (0, Err(Short::Wait(20_000)), 0, 60_000),
        (19_999, Err(Short::Wait(1)), 0, 40_001),
        (20_000, Ok(()), 0, 60_000),
        (20_000, Err(Short::Wait(20_000)), 0, 60_000),
        (80_000, Ok(()), 2, 20_000),
        // a clock that steps back stops the leak, and no more
        (70_000, Ok(()), 1, 40_000),
        (71_000, Ok(()), 0, 59_000),
    ] {
        let checked = meter.check(3, 1, at_ms);
        assert_eq!(checked, taken, "at {at_ms}");
        if checked.is_ok() {
            meter.take_for_good(3, 1, at_ms);
        }
        assert_eq!(meter.standing(3, at_ms), Standing { limit: 3, remaining, reset_ms }, "at {at_ms}");
    }
}

#[test]
fn many_at_once_and_the_true_number_later() {
    let mut meter = Meter::default();
    let standing = |meter: &mut Meter, at_ms| meter.standing(6_000, at_ms).remaining;
    assert_eq!(meter.check(6_000, 6_001, 0), Err(Short::TooMany));
    let first = meter.take(6_000, 5_000, 0);
    assert_eq!(standing(&mut meter, 0), 1_000);
    assert_eq!(meter.check(6_000, 2_000, 0), Err(Short::Wait(10_000)), "100 leak in a second");
    meter.settle(6_000, first, 5_000, 1_000, 1_000);
    assert_eq!(standing(&mut meter, 1_000), 5_100, "the rest came back");
    meter.settle(6_000, first, 5_000, 1_000, 1_000);
    assert_eq!(standing(&mut meter, 1_000), 5_100, "once");
    let second = meter.take(6_000, 5_000, 1_000);
    meter.settle(6_000, second, 5_000, 9_000, 1_000);
    assert_eq!(standing(&mut meter, 1_000), 0, "a debt");
    assert_eq!(meter.check(6_000, 1, 1_000), Err(Short::Wait(39_010)));
    assert_eq!(meter.check(6_000, 1, 40_010), Ok(()));
}

#[test]
fn what_has_leaked_away_does_not_come_back() {
    let mut meter = Meter::default();
    let early = meter.take(100, 100, 0);
    let late = meter.take(100, 50, 60_000); // all of the first has leaked
    meter.settle(100, early, 100, 0, 60_000);
    assert_eq!(meter.standing(100, 60_000).remaining, 50, "the second is still there");
    meter.settle(100, late, 50, 50, 60_000);
    assert!(!meter.is_idle(100, 60_000));
    assert!(meter.is_idle(100, 90_000));
}

#[test]
fn the_largest_figures_do_not_overflow() {
    let mut meter = Meter::default();
    for at_ms in [0, 1, i64::MAX, i64::MIN, 5] {
        let id = meter.take(MAX_QUOTA, u64::MAX, at_ms);
        meter.settle(MAX_QUOTA, id, u64::MAX, u64::MAX, at_ms);
        meter.take_for_good(u64::MAX, u64::MAX, at_ms);
        assert!(meter.check(u64::MAX, u64::MAX, at_ms).is_err());
        assert_eq!(meter.standing(1, at_ms).remaining, 0);
    }
}

/// What was taken truly, and when it was.
#[derive(Debug, Clone)]
struct Ask {
    /// After the one before, ms.
    after_ms: i64,
    reserved: u64,
    used: u64,
    /// After how many other requests it is settled.
    settled_after: usize,
}

fn ask(quota: u64) -> impl Strategy<Value = Ask> {
    (0..30_000_i64, 1..=quota, 0..=100_u64, 0..6_usize).prop_map(
        |(after_ms, reserved, share, settled_after)| Ask {
            after_ms,
            reserved,
            used: reserved * share / 100,
            settled_after,
        },
    )
}

proptest! {
    /// The promise: in any stretch of time, at most the quota and what leaks meanwhile.
    #[test]
    fn never_more_than_the_quota_and_what_leaks(
        (quota, asks) in (1..200_u64).prop_flat_map(|quota| (Just(quota), prop::collection::vec(ask(quota), 1..60))),
    ) {
        let mut meter = Meter::default();
        let mut now_ms = 0;
        let mut open: Vec<(usize, u64, u64, u64)> = Vec::new();
        let mut taken: Vec<(i64, u64)> = Vec::new();
        for ask in asks {
            now_ms += ask.after_ms;
            let (due, kept) = open.into_iter().partition::<Vec<_>, _>(|(left, ..)| *left == 0);
            open = kept.into_iter().map(|(left, id, reserved, used)| (left - 1, id, reserved, used)).collect();
            for (_, id, reserved, used) in due {
                meter.settle(quota, id, reserved, used, now_ms);
            }
            match meter.check(quota, ask.reserved, now_ms) {
                Ok(()) => {
                    let id = meter.take(quota, ask.reserved, now_ms);
                    open.push((ask.settled_after, id, ask.reserved, ask.used));
                    taken.push((now_ms, ask.used));
                }
                Err(Short::Wait(ms)) => {
                    // exact: a moment earlier it would not do
                    prop_assert!(meter.clone().check(quota, ask.reserved, now_ms + i64::try_from(ms)?).is_ok());
                    prop_assert!(meter.clone().check(quota, ask.reserved, now_ms + i64::try_from(ms)? - 1).is_err());
                }
                Err(Short::TooMany) => prop_assert!(false, "never above the quota"),
            }
        }
        for (first, (from_ms, _)) in taken.iter().enumerate() {
            let mut sum = 0;
            for (at_ms, used) in &taken[first..] {
                sum += used;
                let elapsed_ms = u64::try_from(at_ms - from_ms)?;
                prop_assert!(sum * 60_000 <= quota * (60_000 + elapsed_ms), "{sum} in {elapsed_ms} ms of {quota}");
            }
        }
    }

    /// A reservation that turns out right is never felt: what is left is as if only the truth had been taken.
    #[test]
    fn what_comes_back_is_never_more_than_was_too_much(
        quota in 1..200_u64, asks in prop::collection::vec((0..5_000_i64, 0..100_u64, 0..=100_u64), 1..40),
    ) {
        let (mut reserved, mut truth) = (Meter::default(), Meter::default());
        let mut now_ms = 0;
        for (after_ms, cells, share) in asks {
            now_ms += after_ms;
            let used = cells * share / 100;
            let id = reserved.take(quota, cells, now_ms);
            truth.take_for_good(quota, used, now_ms);
            prop_assert!(reserved.standing(quota, now_ms).remaining <= truth.standing(quota, now_ms).remaining);
            reserved.settle(quota, id, cells, used, now_ms);
            prop_assert_eq!(reserved.standing(quota, now_ms), truth.standing(quota, now_ms));
        }
    }
}
