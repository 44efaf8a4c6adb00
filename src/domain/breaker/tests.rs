use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    consecutive: 5,
    ratio_percent: 50,
    least: 10,
    window: Duration::from_secs(30),
    cooldown: Duration::from_secs(5),
    longest_cooldown: Duration::from_secs(30),
    probes: 2,
    quota_cooldown: Duration::from_secs(300),
};

fn asked(breaker: &mut Breaker, well: bool, now_ms: i64) -> State {
    let permit = breaker.permit(now_ms).expect("it admits");
    match well {
        true => breaker.succeeded(&POLICY, permit, now_ms),
        false => breaker.failed(&POLICY, permit, now_ms),
    }
    breaker.state(now_ms)
}

#[test]
fn failures_open_it_within_ten() {
    let open = State::Open { until_ms: 5_000 };
    for (outcomes, want) in [
        ("fffff", open),
        ("ffff", State::Closed),
        ("ffffsffff", State::Closed),
        // half of ten
        ("sfsfsfsfsf", open),
        ("sfsfsfsfs", State::Closed),
        ("ssssssfffsf", State::Closed),
        ("sssssfffff", open),
    ] {
        let mut breaker = Breaker::default();
        for (at, outcome) in outcomes.chars().enumerate() {
            assert_eq!(breaker.state(0), State::Closed, "{outcomes} before {at}");
            asked(&mut breaker, outcome == 's', 0);
        }
        assert_eq!(breaker.state(0), want, "{outcomes}");
    }
}

#[test]
fn outcomes_leave_the_window() {
    for (later_ms, want) in [(26_999, State::Open { until_ms: 31_999 }), (30_000, State::Closed)] {
        let mut breaker = Breaker::default();
        for well in [false, false, false, false, true, false, false, false, true] {
            asked(&mut breaker, well, 0);
        }
        assert_eq!(asked(&mut breaker, false, later_ms), want, "{later_ms}");
    }
}

#[test]
fn two_good_probes_close_it() {
    let mut breaker = opened(0);
    assert_eq!(breaker.permit(4_999), Err(State::Open { until_ms: 5_000 }));
    assert_eq!(breaker.state(5_000), State::HalfOpen { probing: false });
    assert_eq!(asked(&mut breaker, true, 5_000), State::HalfOpen { probing: false });
    assert_eq!(asked(&mut breaker, true, 5_000), State::Closed);
    // all before is forgotten
    assert_eq!(asked(&mut breaker, false, 5_000), State::Closed);
}

fn opened(now_ms: i64) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        asked(&mut breaker, false, now_ms);
    }
    breaker
}

#[test]
fn each_failed_probe_doubles_the_pause() {
    let mut breaker = opened(0);
    let mut now_ms = 5_000;
    for pause_ms in [10_000, 20_000, 30_000, 30_000] {
        assert_eq!(asked(&mut breaker, false, now_ms), State::Open { until_ms: now_ms + pause_ms });
        now_ms += pause_ms;
    }
    asked(&mut breaker, true, now_ms);
    assert_eq!(asked(&mut breaker, true, now_ms), State::Closed);
    for _ in 0..5 {
        asked(&mut breaker, false, now_ms);
    }
    assert_eq!(breaker.state(now_ms), State::Open { until_ms: now_ms + 5_000 }, "closing forgets the probes");
}

#[test]
fn one_probe_at_a_time_and_looking_is_none() {
    let mut breaker = opened(0);
    for _ in 0..3 {
        assert!(breaker.state(5_000).admits());
    }
    let probe = breaker.permit(5_000).expect("a probe");
    assert!(probe.is_probe());
    assert_eq!(breaker.permit(5_000), Err(State::HalfOpen { probing: true }));
    breaker.abandoned(probe);
    let second = breaker.permit(5_000).expect("its place is free again");
    // a stream that has begun well is a good probe, and its end is that of any request
    let rest = breaker.answered(&POLICY, second, 5_000);
    assert!(!rest.is_probe());
    assert_eq!(asked(&mut breaker, true, 5_000), State::Closed);
    breaker.failed(&POLICY, rest, 5_000);
    assert_eq!(breaker.state(5_000), State::Closed, "one failure");
    let plain = breaker.permit(5_000).expect("closed");
    assert_eq!(breaker.answered(&POLICY, plain, 5_000), Permit { opened: 1, probe: false });
}

#[test]
fn a_probe_that_began_well_and_breaks_opens_it_again() {
    let mut breaker = opened(0);
    let probe = breaker.permit(5_000).expect("a probe");
    let rest = breaker.answered(&POLICY, probe, 5_000);
    breaker.failed(&POLICY, rest, 6_000);
    assert_eq!(breaker.state(6_000), State::Open { until_ms: 16_000 });
}

#[test]
fn what_was_sent_before_the_opening_says_nothing_after_it() {
    let mut breaker = Breaker::default();
    let mut early: Vec<Permit> = (0..9).map(|_| breaker.permit(0).expect("closed")).collect();
    for _ in 0..5 {
        asked(&mut breaker, false, 0);
    }
    breaker.succeeded(&POLICY, early.pop().expect("one"), 1_000);
    breaker.failed(&POLICY, early.pop().expect("one"), 1_000);
    assert_eq!(breaker.state(1_000), State::Open { until_ms: 5_000 });
    for permit in early.drain(..5) {
        breaker.succeeded(&POLICY, permit, 5_000);
    }
    let probe = breaker.permit(5_000).expect("a probe");
    breaker.abandoned(early.pop().expect("one"));
    assert_eq!(breaker.state(5_000), State::HalfOpen { probing: true }, "another's place is not given back");
    breaker.failed(&POLICY, early.pop().expect("one"), 5_000);
    breaker.succeeded(&POLICY, probe, 5_000);
    assert_eq!(asked(&mut breaker, true, 5_000), State::Closed);
}

#[test]
fn a_cool_down_stands_beside_it() {
    let mut breaker = Breaker::default();
    breaker.cool_down(3_000);
    breaker.cool_down(2_000);
    assert_eq!(breaker.permit(2_999), Err(State::CoolingDown { until_ms: 3_000 }));
    assert_eq!(State::CoolingDown { until_ms: 3_000 }.wait_ms(1_000), 2_000);
    assert_eq!(breaker.state(3_000), State::Closed);
    let mut breaker = opened(0);
    breaker.cool_down(9_000);
    assert_eq!(breaker.state(0), State::Open { until_ms: 9_000 }, "the longer one is told");
    assert_eq!(breaker.state(6_000), State::CoolingDown { until_ms: 9_000 });
    assert_eq!(breaker.state(9_000), State::HalfOpen { probing: false });
}

#[test]
fn no_money_opens_it_for_long() {
    let mut breaker = opened(0);
    breaker.open_for(POLICY.quota_cooldown, 1_000);
    assert_eq!(breaker.state(1_000), State::Open { until_ms: 301_000 });
    breaker.open_for(Duration::from_secs(1), 2_000);
    assert_eq!(breaker.state(2_000), State::Open { until_ms: 301_000 }, "never shorter");
    asked(&mut breaker, true, 301_000);
    assert_eq!(asked(&mut breaker, true, 301_000), State::Closed);
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Ask,
    Succeed(usize),
    Fail(usize),
    Abandon(usize),
    Answer(usize),
    NoMoney,
    Later(i64),
    Pass(i64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Ask),
        3 => any::<usize>().prop_map(Act::Succeed),
        6 => any::<usize>().prop_map(Act::Fail),
        2 => any::<usize>().prop_map(Act::Abandon),
        1 => any::<usize>().prop_map(Act::Answer),
        1 => Just(Act::NoMoney),
        1 => (0..20_000_i64).prop_map(Act::Later),
        4 => (0..20_000_i64).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Whatever comes: one probe at a time, and when all that was sent has ended it is never shut for ever.
    #[test]
    fn never_two_probes_and_never_stuck(acts in proptest::collection::vec(act(), 1..200)) {
        let mut breaker = Breaker::default();
        let mut held: Vec<Permit> = Vec::new();
        let mut now_ms = 0_i64;
        for act in acts {
            let before = breaker.state(now_ms);
            let pick = |which: usize, held: &mut Vec<Permit>| {
                (!held.is_empty()).then(|| held.swap_remove(which % held.len()))
            };
            match act {
                Act::Ask => match breaker.permit(now_ms) {
                    Ok(permit) => held.push(permit),
                    Err(state) => prop_assert_eq!(state, before),
                },
                Act::Succeed(which) => if let Some(permit) = pick(which, &mut held) {
                    let old = permit.opened != breaker.opened;
                    let probe = permit.is_probe();
                    breaker.succeeded(&POLICY, permit, now_ms);
                    if old || !probe {
                        prop_assert_eq!(breaker.state(now_ms), before, "only a probe closes it");
                    }
                },
                Act::Fail(which) => if let Some(permit) = pick(which, &mut held) {
                    breaker.failed(&POLICY, permit, now_ms);
                },
                Act::Abandon(which) => if let Some(permit) = pick(which, &mut held) {
                    breaker.abandoned(permit);
                },
                Act::Answer(which) => if let Some(permit) = pick(which, &mut held) {
                    held.push(breaker.answered(&POLICY, permit, now_ms));
                },
                Act::NoMoney => breaker.open_for(POLICY.quota_cooldown, now_ms),
                Act::Later(ms) => breaker.cool_down(now_ms + ms),
                Act::Pass(ms) => now_ms += ms,
            }
            let probes = held.iter().filter(|permit| permit.is_probe() && permit.opened == breaker.opened);
            prop_assert!(probes.count() <= 1);
        }
        for permit in held {
            breaker.abandoned(permit);
        }
        now_ms += 301_000;
        prop_assert!(breaker.state(now_ms).admits(), "{:?}", breaker);
        if breaker.state(now_ms) != State::Closed {
            asked(&mut breaker, true, now_ms);
            if breaker.state(now_ms) != State::Closed {
                asked(&mut breaker, true, now_ms);
            }
        }
        prop_assert_eq!(breaker.state(now_ms), State::Closed);
    }

    /// A deployment of which nothing succeeds is shut after ten, whatever their order in time.
    #[test]
    fn a_dead_one_is_shut_within_ten(gaps in proptest::collection::vec(0..60_000_i64, 10)) {
        let mut breaker = Breaker::default();
        let (mut now_ms, mut asked) = (0, 0);
        for gap in gaps {
            now_ms += gap;
            let Ok(permit) = breaker.permit(now_ms) else { break };
            asked += 1;
            breaker.failed(&POLICY, permit, now_ms);
            if matches!(breaker.state(now_ms), State::Open { .. }) {
                break;
            }
        }
        prop_assert_eq!(asked, 5);
    }
}

#[test]
fn checks_open_it_and_end_the_wait_they_have_seen_the_reason_for() {
    let (open, half) = (State::Open { until_ms: 5_000 }, State::HalfOpen { probing: false });
    // f, s: a request; i, w: a check; all at 1 s but the opening ones, at 0 s
    for (at_first, then, want) in [
        ("iiiii", "", open),
        ("iiii", "", State::Closed),
        // a request that goes well says more than a list of models
        ("iiiisiiii", "", State::Closed),
        // and a list says nothing about requests that fail
        ("ffffwf", "", open),
        ("fffff", "w", open),
        ("fffff", "ww", open),
        ("iiiii", "w", half),
        ("fffff", "iw", half),
        // a check finds it ill again: as a probe that failed
        ("iiiii", "wi", State::Open { until_ms: 11_000 }),
        ("iiiii", "wiw", half),
        ("iiiii", "wss", State::Closed),
    ] {
        let mut breaker = Breaker::default();
        let mut tell = |what: char, now_ms: i64| match what {
            'i' => breaker.found_ill(&POLICY, now_ms),
            'w' => breaker.found_well(now_ms),
            _ => drop(asked(&mut breaker, what == 's', now_ms)),
        };
        at_first.chars().for_each(|what| tell(what, 0));
        then.chars().for_each(|what| tell(what, 1_000));
        assert_eq!(breaker.state(1_000), want, "{at_first} {then}");
    }
}

#[test]
fn a_check_takes_nothing_from_a_probe_under_way_nor_from_a_cool_down() {
    let mut breaker = Breaker::default();
    breaker.open_for(Duration::from_secs(1), 0);
    let probe = breaker.permit(1_000).expect("a probe");
    breaker.found_ill(&POLICY, 1_000);
    assert_eq!(breaker.state(1_000), State::HalfOpen { probing: true });
    breaker.abandoned(probe);
    breaker.cool_down(9_000);
    breaker.found_well(2_000);
    assert_eq!(breaker.state(2_000), State::CoolingDown { until_ms: 9_000 });
}
