use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::catalog::tests::deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::route::share::{Share, StickyBy, mix, salt};
use crate::domain::route::{CHEAPEST_PROBES, Ceiling, Condition};

/// What is known, by name; random bits from a counter.
struct Known {
    of: BTreeMap<&'static str, Seen>,
    looks: usize,
    random: u64,
}

impl Known {
    fn new<const N: usize>(of: [(&'static str, Seen); N]) -> Self {
        Self { of: of.into_iter().collect(), looks: 0, random: 0 }
    }
}

impl Sight for Known {
    fn see(&mut self, deployment: &Arc<Deployment>) -> Seen {
        self.looks += 1;
        self.of.get(&*deployment.name).cloned().unwrap_or_default()
    }

    fn random(&mut self) -> u64 {
        self.random += 1;
        mix(self.random)
    }
}

fn facts() -> Facts<'static> {
    Facts {
        endpoint: Endpoint::ChatCompletions,
        key: "web",
        team: None,
        end_user: None,
        tags: &[],
        headers: &[],
        tools: false,
        images: false,
        json_schema: false,
        stream: false,
        input_tokens: 0,
    }
}

fn to(name: &str) -> Plan {
    Plan::To(deployment(name, name))
}

fn scored(name: &str, quality: u16) -> Plan {
    let plain = deployment(name, name);
    Plan::To(Arc::new(Deployment { quality: Some(quality), ..(*plain).clone() }))
}

fn cost(nanos: i64) -> Seen {
    Seen { cost: Some(Usd::from_nanos(nanos)), samples: 1_000, ..Seen::default() }
}

fn cheapest(among: Vec<Plan>) -> Cheapest {
    Cheapest { among, min_quality: None, ceiling: Ceiling::default(), probe_per_mille: 0 }
}

fn fastest(among: Vec<Plan>, probe_per_mille: u16) -> Plan {
    Plan::Fastest(Fastest { among, by: Measure::Whole, min_quality: None, probe_per_mille })
}

fn names(drawn: &Drawn) -> Vec<&str> {
    drawn.order.iter().map(|chosen| &*chosen.deployment.name).collect()
}

fn drawn(plan: &Plan, known: &mut Known) -> Drawn {
    draw(plan, &facts(), 0, known)
}

#[test]
fn as_written_without_those_that_cant_each_once() {
    let out = Seen { out: Some(Out::Lacks(Capability::Tools)), ..Seen::default() };
    let late = Seen { late: Some(Late::Full), ..Seen::default() };
    let mut known = Known::new([("b", out), ("c", late)]);
    let plan = Plan::Ordered(vec![to("c"), to("a"), to("b"), to("d"), to("a"), to("b")]);
    let drawn = drawn(&plan, &mut known);
    assert_eq!(names(&drawn), ["a", "d", "c"]);
    assert_eq!(known.looks, 4, "each is looked at once");
    assert_eq!(drawn.out.len(), 1);
    assert_eq!(drawn.out[0].1, Out::Lacks(Capability::Tools));
    assert_eq!(drawn.order[2].late, Some(Late::Full));
}

#[test]
fn the_cheapest_first_unless_it_is_not_good_or_fast_enough() {
    let mut known = Known::new([
        ("cheap", cost(1)),
        ("middle", Seen { first_token_us: Some(900_000), ..cost(2) }),
        ("dear", cost(3)),
        ("unknown", Seen { samples: 1_000, ..Seen::default() }),
    ]);
    let plan = Plan::Cheapest(Cheapest {
        min_quality: Some(800),
        ceiling: Ceiling { first_token: Some(Duration::from_millis(500)), whole: None },
        ..cheapest(vec![
            scored("unknown", 900),
            scored("dear", 800),
            scored("middle", 900),
            scored("cheap", 799),
            to("unscored"),
        ])
    });
    let drawn = drawn(&plan, &mut known);
    assert_eq!(names(&drawn), ["dear", "unknown", "middle"]);
    assert_eq!(drawn.order[2].late, Some(Late::Slow { expected_us: 900_000, ceiling_us: 500_000 }));
    let out: Vec<_> = drawn.out.iter().map(|(deployment, out, _)| (&*deployment.name, out.clone())).collect();
    assert_eq!(
        out,
        [
            ("cheap", Out::Quality { has: Some(799), floor: 800 }),
            ("unscored", Out::Quality { has: None, floor: 800 })
        ]
    );
}

#[test]
fn where_a_ceiling_counts_few_go_to_whom_nobody_knows() {
    let old = Seen { whole_us: Some(1), in_flight: 99, ..cost(2) };
    for (ceiling, in_flight, whole_us, samples, first) in [
        (Some(8), 9, None, 0, "new"),
        (Some(8), 10, None, 0, "old"),
        (Some(8), 10, Some(1), 9, "old"),
        (Some(8), 40, Some(1), 40, "old"),
        (Some(8), 40, Some(1), 41, "new"),
        (Some(8), 500, Some(1), 150, "new"),
        (None, 10, None, 0, "new"),
    ] {
        let ceiling = Ceiling { whole: ceiling.map(Duration::from_secs), first_token: None };
        let plan = Plan::Cheapest(Cheapest { ceiling, ..cheapest(vec![to("new"), to("old")]) });
        let new = Seen { in_flight, whole_us, samples, ..cost(1) };
        let mut known = Known::new([("new", new), ("old", old.clone())]);
        assert_eq!(
            names(&drawn(&plan, &mut known))[0],
            first,
            "{ceiling:?} {in_flight} {whole_us:?} {samples}"
        );
    }
}

#[test]
fn one_that_is_not_good_enough_here_may_be_elsewhere() {
    let plan = Plan::Ordered(vec![
        Plan::Cheapest(Cheapest { min_quality: Some(500), ..cheapest(vec![to("a")]) }),
        to("a"),
    ]);
    let drawn = drawn(&plan, &mut Known::new([]));
    assert_eq!(names(&drawn), ["a"]);
    assert!(drawn.out.is_empty());
}

#[test]
fn the_fastest_first_and_the_others_now_and_then() {
    let whole = |us| Seen { whole_us: Some(us), ..Seen::default() };
    let mut known = Known::new([("a", whole(300)), ("b", whole(100)), ("c", whole(200))]);
    assert_eq!(
        names(&drawn(&fastest(vec![to("a"), to("b"), to("c"), to("new")], 0), &mut known)),
        ["b", "c", "a", "new"]
    );
    let plan = fastest(vec![to("a"), to("b"), to("c"), to("new")], 50);
    let mut first = BTreeMap::<String, u32>::new();
    for _ in 0..20_000 {
        let drawn = drawn(&plan, &mut known);
        assert_eq!(drawn.order.len(), 4);
        *first.entry(names(&drawn)[0].to_owned()).or_default() += 1;
    }
    let probes = 20_000 - first["b"];
    // 1,000 expected; three standard deviations are 92
    assert!((908..=1_092).contains(&probes), "{first:?}");
    assert!(["a", "c", "new"].into_iter().all(|name| first[name] > 250), "{first:?}");
}

#[test]
fn cheap_probes_go_only_to_what_may_be_the_cheapest() {
    let plan =
        Plan::Cheapest(Cheapest { probe_per_mille: 1_000, ..cheapest(vec![to("a"), to("b"), to("c")]) });
    // how much dearer it seems, after how many answers
    for (nanos, samples, probed) in [
        (1_230, 149, true),
        (1_250, 149, false),
        (1_100, 149, true),
        (1_630, 30, true),
        (1_640, 30, false),
        (3_820, 11, true),
        (3_820, 12, false),
        (3_840, 0, false),
        (i64::MAX, 0, false),
    ] {
        let seen = Seen { samples, ..cost(nanos) };
        let mut known = Known::new([("a", cost(1_000)), ("b", seen), ("c", cost(9_000))]);
        let want = if probed { "b" } else { "a" };
        assert_eq!(names(&drawn(&plan, &mut known))[0], want, "{nanos} after {samples}");
    }
    // one that is known gets a tenth of them
    let mut known = Known::new([("a", cost(1_000)), ("b", Seen { samples: 150, ..cost(1_100) })]);
    let plan = Plan::Cheapest(Cheapest { probe_per_mille: 1_000, ..cheapest(vec![to("a"), to("b")]) });
    let probes = (0..20_000).filter(|_| names(&drawn(&plan, &mut known))[0] == "b").count();
    assert!(probes.abs_diff(2_000) <= 127, "{probes}: three standard deviations are 127");
}

#[test]
fn now_and_then_one_that_was_slow_is_asked_again() {
    let slow = |nanos| Seen { whole_us: Some(9_000_000), ..cost(nanos) };
    let mut known = Known::new([("a", cost(1_000)), ("b", slow(900)), ("c", slow(1_100))]);
    let plan = |probe_per_mille| {
        let among = vec![to("a"), to("b"), to("c")];
        let ceiling = Ceiling { whole: Some(Duration::from_secs(8)), first_token: None };
        Plan::Cheapest(Cheapest { ceiling, probe_per_mille, ..cheapest(among) })
    };
    let mut first = BTreeMap::<String, u32>::new();
    for _ in 0..20_000 {
        *first.entry(names(&drawn(&plan(CHEAPEST_PROBES), &mut known))[0].to_owned()).or_default() += 1;
    }
    // 100 expected; three standard deviations are 30
    assert!((70..=130).contains(&first["b"]), "{first:?}");
    assert!(!first.contains_key("c"), "it would not be the cheapest: {first:?}");
    for _ in 0..2_000 {
        assert_eq!(names(&drawn(&plan(0), &mut known)), ["a", "b", "c"]);
    }
}

#[test]
fn nested_plans_count_by_their_first() {
    let mut known = Known::new([("a", cost(5)), ("b", cost(1)), ("c", cost(3))]);
    let nested = Plan::Ordered(vec![to("a"), to("b")]);
    let plan = Plan::Cheapest(cheapest(vec![nested, to("c")]));
    assert_eq!(names(&drawn(&plan, &mut known)), ["c", "a", "b"]);
}

#[test]
fn a_split_keeps_its_shares_and_its_conversations() {
    let share = |weight, id: &str| Share { weight, ramp: None, id: salt(id) };
    let weighted = |sticky| {
        let choices = vec![(share(90, "stable"), to("stable")), (share(10, "canary"), to("canary"))];
        Plan::Weighted(Weighted { choices, sticky })
    };
    let mut known = Known::new([]);
    let mut canary = 0;
    for _ in 0..20_000 {
        let drawn = drawn(&weighted(Vec::new()), &mut known);
        assert_eq!(drawn.order.len(), 2, "the other is its fallback");
        canary += u32::from(names(&drawn)[0] == "canary");
    }
    assert!((1_873..=2_127).contains(&canary), "{canary}"); // three standard deviations
    let sticky = weighted(vec![StickyBy::Header("x-session".into()), StickyBy::EndUser]);
    let mut canaries = 0;
    for user in 0..2_000 {
        let name = format!("user-{user}");
        let facts = Facts { end_user: Some(&name), ..facts() };
        let first = names(&draw(&sticky, &facts, 0, &mut known))[0].to_owned();
        canaries += u32::from(first == "canary");
        for _ in 0..5 {
            assert_eq!(names(&draw(&sticky, &facts, 0, &mut known))[0], first);
        }
    }
    assert!((160..=240).contains(&canaries), "{canaries}");
}

#[test]
fn a_pool_goes_where_quota_is_left() {
    let left = |quota_left| Seen { quota_left, ..Seen::default() };
    let mut known =
        Known::new([("full", left(Some(1_000))), ("low", left(Some(99))), ("none", left(Some(0)))]);
    let plan = Plan::Pool(vec![to("none"), to("low"), to("full")]);
    let mut first = BTreeMap::<String, u32>::new();
    for _ in 0..10_000 {
        *first.entry(names(&drawn(&plan, &mut known))[0].to_owned()).or_default() += 1;
    }
    assert!(first["full"] > 8_900 && first["low"] > 750, "{first:?}");
    assert!(first.get("none").copied().unwrap_or_default() < 30, "{first:?}");
}

#[test]
fn cases_are_tried_in_order() {
    let stream = Condition { stream: Some(true), ..Condition::default() };
    let plan = |otherwise: Option<Plan>| {
        Plan::When(When { cases: vec![(stream.clone(), to("a"))], otherwise: otherwise.map(Box::new) })
    };
    let streamed = Facts { stream: true, ..facts() };
    let mut known = Known::new([]);
    assert_eq!(names(&draw(&plan(None), &streamed, 0, &mut known)), ["a"]);
    assert_eq!(names(&draw(&plan(Some(to("b"))), &facts(), 0, &mut known)), ["b"]);
    let nothing = draw(&plan(None), &facts(), 0, &mut known);
    assert_eq!(nothing, Drawn::default());
}
