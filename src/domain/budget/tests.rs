//! Budgets against a plain recount: whatever happens in whatever order, no window is above its ceiling, nothing is held
//! at rest, and a fold from the start gives the same books.

use std::sync::Arc;

use proptest::prelude::*;

use super::draft::Draft;
use super::*;
use crate::domain::bound::UpperBound;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::{Cost, PerToken};
use crate::domain::usage::TokenCounts;

const NOON: i64 = 1_795_348_800_000; // 2026-11-22T12:00:00Z

fn budget(
    name: &str,
    scope: Scope,
    nanos: i64,
    window: &str,
    zone: Option<&str>,
    action: Action,
) -> Arc<Budget> {
    Arc::new(Budget {
        name: name.into(),
        scope,
        limit: Usd::from_nanos(nanos),
        window: Window::parse(window, zone).expect("a window"),
        alert_at: vec![50, 80, 100],
        action,
        raise: None,
        declared: false,
    })
}

fn on(key: &str, team: &str, user: &str) -> Arc<Attribution> {
    let named = |name: &str| (!name.is_empty()).then(|| Arc::from(name));
    Arc::new(Attribution {
        key_id: format!("key_{key}").into(),
        key: key.into(),
        team: named(team),
        end_user: named(user),
        tags: vec!["prod".into()],
        model: "bot".into(),
        deployment: "bot-v1".into(),
        provider: "openai".into(),
        purpose: Purpose::Inference,
    })
}

/// So many nano-dollars of input, and one for each token of output.
fn bound(input: u64, cap: u64, clampable: bool) -> UpperBound {
    let nano = PerToken::from_picos(1_000).expect("a price");
    UpperBound {
        fixed: Cost::default().and(input, nano),
        per_output_token: nano,
        output_cap: cap,
        choices: 1,
        clampable,
    }
}

fn entry(
    seq: i64,
    kind: EntryKind,
    of: i64,
    at_ms: i64,
    on: &Arc<Attribution>,
    held: Usd,
    cost: Usd,
) -> Arc<Entry> {
    Arc::new(Entry {
        seq,
        kind,
        at_ms,
        written_at_ms: at_ms,
        of,
        request_id: format!("req_{seq}").into(),
        instance: "here".into(),
        attribution: Arc::clone(on),
        tokens: TokenCounts::default(),
        source: None,
        held,
        cost,
        saved: Usd::ZERO,
        price: "test".into(),
        note: None,
        injected: None,
    })
}

fn books(budgets: Vec<Arc<Budget>>) -> Books {
    let mut books = Books::default();
    books.define(budgets, &[], NOON);
    books
}

fn nanos(nanos: i64) -> Usd {
    Usd::from_nanos(nanos)
}

#[test]
fn a_scope_covers_what_it_names() {
    let asked = on("app", "acme", "user-1");
    let named = |name: &str| Some(Arc::from(name));
    for (scope, covers) in [
        (Scope::default(), true),
        (Scope { team: named("acme"), ..Scope::default() }, true),
        (Scope { team: named("other"), ..Scope::default() }, false),
        (Scope { key: named("app"), ..Scope::default() }, true),
        (Scope { key: named("key_app"), ..Scope::default() }, true),
        (Scope { end_user: named("user-2"), ..Scope::default() }, false),
        (
            Scope { tag: named("prod"), model: named("bot"), provider: named("openai"), ..Scope::default() },
            true,
        ),
        (Scope { tag: named("dev"), ..Scope::default() }, false),
        (Scope { purpose: Some(Purpose::Training), ..Scope::default() }, false),
        (Scope { purpose: Some(Purpose::Inference), each: Some(Each::Key), ..Scope::default() }, true),
    ] {
        assert_eq!(scope.covers(&asked), covers, "{scope}");
    }
    assert_eq!(Scope::default().to_string(), "everything");
    let scope = Scope { team: named("acme"), each: Some(Each::EndUser), ..Scope::default() };
    assert_eq!(scope.to_string(), "team acme, each end user");
}

#[test]
fn all_budgets_hold_or_none() {
    let named = |name: &str| Some(Arc::from(name));
    let all = budget("all", Scope::default(), 1_000, "total", None, Action::Refuse);
    let team =
        budget("team", Scope { team: named("acme"), ..Scope::default() }, 300, "day", None, Action::Refuse);
    let mut books = books(vec![all, team]);
    let acme = on("a", "acme", "");
    let grant = books.decide(&acme, &bound(100, 100, true), NOON).expect("enough");
    assert_eq!(grant, Grant { amount: nanos(200), output_cap: 100, clamped: false });
    let hold = entry(1, EntryKind::Hold, 0, NOON, &acme, grant.amount, Usd::ZERO);
    books.apply(&hold);
    let exceeded = books.decide(&acme, &bound(1, 100, true), NOON).expect_err("100 left");
    assert_eq!((&*exceeded.budget, exceeded.reserved, exceeded.wanted), ("team", nanos(200), nanos(101)));
    assert!(exceeded.may_wait, "only a hold is in the way");
    assert!(exceeded.spent + exceeded.reserved + exceeded.wanted > exceeded.limit);
    assert!(books.decide(&on("b", "other", ""), &bound(1, 799, true), NOON).is_ok());
    assert!(books.decide(&on("b", "other", ""), &bound(1, 800, true), NOON).is_err());
    books.apply(&entry(2, EntryKind::Usage, 1, NOON, &acme, nanos(200), nanos(250)));
    let exceeded = books.decide(&acme, &bound(1, 100, true), NOON).expect_err("50 left");
    assert!(!exceeded.may_wait);
    assert_eq!((books.reserved(), books.open_holds().count()), (Usd::ZERO, 0));
    assert!(books.decide(&acme, &bound(1, 299, true), NOON + 12 * 3_600_000).is_ok(), "a new day");
}

#[test]
fn a_clamp_leaves_a_cap_that_is_worth_it() {
    let mut books = books(vec![budget("clamp", Scope::default(), 1_000, "total", None, Action::Clamp)]);
    let me = on("a", "", "");
    for (input, cap, want) in [
        (100, 900, Some((900, false))),
        (100, 4_096, Some((900, true))),
        (936, 4_096, Some((64, true))),
        (937, 4_096, None),
        (990, 10, Some((10, false))),
        (991, 10, None),
        (1_000, 0, Some((0, false))),
        (1_001, 0, None),
    ] {
        let grant = books.decide(&me, &bound(input, cap, true), NOON);
        assert_eq!(grant.ok().map(|grant| (grant.output_cap, grant.clamped)), want, "{input} {cap}");
    }
    assert!(books.decide(&me, &bound(100, 4_096, false), NOON).is_err(), "a cap that can't be written");
    books.apply(&entry(1, EntryKind::Usage, 0, NOON, &me, Usd::ZERO, nanos(1_200)));
    assert!(books.decide(&me, &bound(0, 64, true), NOON).is_err());
    assert_eq!(books.left_for(&me, NOON), Some(nanos(-200)));
}

#[test]
fn each_end_user_has_the_whole_limit_from_the_first_request_on() {
    let scope = Scope { each: Some(Each::EndUser), ..Scope::default() };
    let mut books = books(vec![budget("each", scope, 100, "day", None, Action::Refuse)]);
    for user in ["one", "two", ""] {
        let asked = on("a", "", user);
        let grant = books.decide(&asked, &bound(100, 0, false), NOON).expect("the first");
        books.apply(&entry(user.len() as i64, EntryKind::Hold, 0, NOON, &asked, grant.amount, Usd::ZERO));
        assert!(books.decide(&asked, &bound(1, 0, false), NOON).is_err(), "{user}");
    }
}

#[test]
fn a_raise_ends_by_itself() {
    let base = budget("b", Scope::default(), 100, "total", None, Action::Refuse);
    let raised = Budget { raise: Some(Raise { by: nanos(50), until_ms: NOON + 10 }), ..(*base).clone() };
    let mut books = books(vec![base]);
    let me = on("a", "", "");
    books.apply(&entry(1, EntryKind::Usage, 0, NOON, &me, Usd::ZERO, nanos(100)));
    books.define(vec![Arc::new(raised)], &[], NOON);
    assert!(books.decide(&me, &bound(50, 0, false), NOON).is_ok(), "and what was spent is still known");
    assert!(books.decide(&me, &bound(51, 0, false), NOON).is_err());
    assert!(books.decide(&me, &bound(1, 0, false), NOON + 10).is_err());
}

#[test]
fn a_refusal_says_when_money_comes_back() {
    let mut books = books(vec![budget("b", Scope::default(), 100, "rolling 1h", None, Action::Refuse)]);
    let me = on("a", "", "");
    for (seq, minute) in [(1, 0), (2, 10), (3, 20)] {
        let at = NOON + minute * 60_000;
        books.apply(&entry(seq, EntryKind::Usage, 0, at, &me, Usd::ZERO, nanos(30)));
    }
    let when = |wanted| {
        let now = NOON + 30 * 60_000;
        books.decide(&me, &bound(wanted, 0, false), now).expect_err("too much").resets_at_ms
    };
    let minute = |minute: i64| Some(NOON + minute * 60_000);
    assert_eq!((when(40), when(41), when(100), when(101)), (minute(60), minute(70), minute(80), None));
}

#[test]
fn an_alert_is_given_once_for_each_threshold() {
    let mut books = books(vec![budget("b", Scope::default(), 100, "day", None, Action::Refuse)]);
    let me = on("a", "", "");
    let mut told = Vec::new();
    for (seq, cost) in [(1, 49), (2, 1), (3, 1), (4, 40), (5, 20), (6, 20)] {
        books.apply(&entry(seq, EntryKind::Usage, 0, NOON, &me, Usd::ZERO, nanos(cost)));
        told.extend(books.crossings(&me, NOON).into_iter().map(|crossing| (seq, crossing.percent)));
    }
    assert_eq!(told, [(2, 50), (4, 80), (5, 100)]);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Ask {
        who: usize,
        input: u64,
        cap: u64,
    },
    /// Ends one of the open holds, with a cost of so many percent of it (beyond 100: the provider bills too much).
    End {
        which: usize,
        percent: i64,
    },
    Release {
        which: usize,
    },
    Clock {
        by_ms: i64,
    },
    Tidy,
    Restart,
    /// An entry could not be written.
    Fail {
        who: usize,
        input: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let clock = prop_oneof![
        1_000..120_000_i64,
        Just(-3_600_000),
        Just(3_600_000),
        Just(13 * 3_600_000),
        Just(31 * 86_400_000),
    ];
    let step = prop_oneof![
        6 => (0..4_usize, 0..60_u64, 0..80_u64).prop_map(|(who, input, cap)| Step::Ask { who, input, cap }),
        4 => (any::<usize>(), 0..=100_i64).prop_map(|(which, percent)| Step::End { which, percent }),
        2 => any::<usize>().prop_map(|which| Step::Release { which }),
        2 => clock.prop_map(|by_ms| Step::Clock { by_ms }),
        1 => Just(Step::Tidy),
        1 => Just(Step::Restart),
        1 => (0..4_usize, 0..60_u64).prop_map(|(who, input)| Step::Fail { who, input }),
    ];
    prop::collection::vec(step, 1..120)
}

fn all_kinds() -> Vec<Arc<Budget>> {
    let named = |name: &str| Some(Arc::from(name));
    vec![
        budget("all", Scope::default(), 2_000, "total", None, Action::Refuse),
        budget("hour", Scope::default(), 400, "rolling 1h", None, Action::Clamp),
        budget(
            "day",
            Scope { team: named("acme"), ..Scope::default() },
            300,
            "day",
            Some("Europe/Zurich"),
            Action::Clamp,
        ),
        budget(
            "month",
            Scope { each: Some(Each::EndUser), ..Scope::default() },
            500,
            "month",
            Some("America/New_York"),
            Action::Refuse,
        ),
        budget("week", Scope { key: named("b"), ..Scope::default() }, 350, "week", None, Action::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 2_000 }))]

    #[test]
    fn never_above_the_ceiling_and_never_lost(steps in steps()) {
        let senders = [on("a", "acme", "u1"), on("b", "acme", "u2"), on("b", "", ""), on("c", "", "u1")];
        let mut books = books(all_kinds());
        let mut journal: Vec<Arc<Entry>> = Vec::new();
        // the night in which Zurich's clocks go back
        let mut clock = 1_792_884_000_000_i64;
        let mut last = 0;
        for step in steps {
            let now = books.advance(clock);
            prop_assert!(now >= last, "time went back");
            last = now;
            let seq = journal.len() as i64 + 1;
            let nth_open = |books: &Books, which: usize| {
                let open: Vec<_> = books.open_holds().cloned().collect();
                (!open.is_empty()).then(|| Arc::clone(&open[which % open.len()]))
            };
            match step {
                Step::Ask { who, input, cap } => {
                    let asked = &senders[who];
                    let bound = bound(input, cap, true);
                    match books.decide(asked, &bound, now) {
                        Ok(grant) => {
                            prop_assert!(grant.amount <= bound.amount() && grant.output_cap <= cap);
                            let hold = entry(seq, EntryKind::Hold, 0, now, asked, grant.amount, Usd::ZERO);
                            books.apply(&hold);
                            journal.push(hold);
                        }
                        Err(exceeded) => {
                            prop_assert!(exceeded.spent + exceeded.reserved + exceeded.wanted > exceeded.limit);
                        }
                    }
                }
                Step::End { which, percent } => if let Some(hold) = nth_open(&books, which) {
                    let cost = nanos(hold.held.nanos() * percent / 100);
                    let end = entry(seq, EntryKind::Usage, hold.seq, hold.at_ms, &hold.attribution, hold.held, cost);
                    books.apply(&end);
                    journal.push(end);
                },
                Step::Release { which } => if let Some(hold) = nth_open(&books, which) {
                    let end = entry(seq, EntryKind::Release, hold.seq, hold.at_ms, &hold.attribution, hold.held, Usd::ZERO);
                    books.apply(&end);
                    journal.push(end);
                },
                Step::Clock { by_ms } => clock += by_ms,
                Step::Tidy => books.tidy(clock),
                Step::Restart => books = refolded(&journal, now),
                Step::Fail { who, input } => {
                    let before = books.standings(now);
                    let hold = entry(seq, EntryKind::Hold, 0, now, &senders[who], nanos(input as i64), Usd::ZERO);
                    books.apply(&hold);
                    let end = entry(seq + 1, EntryKind::Usage, seq, now, &senders[who], hold.held, nanos(7));
                    books.apply(&end);
                    books.revert(&end, Some(Arc::clone(&hold)));
                    books.revert(&hold, None);
                    prop_assert_eq!(money(&before), money(&books.standings(now)));
                }
            }
            for (budget, standings) in books.standings(now) {
                for standing in standings {
                    prop_assert!(standing.left >= Usd::ZERO, "{} is above: {standing:?}", budget.name);
                    prop_assert!(standing.reserved >= Usd::ZERO && standing.spent >= Usd::ZERO);
                }
            }
        }
        let now = books.advance(clock);
        prop_assert_eq!(money(&books.standings(now)), money(&refolded(&journal, now).standings(now)), "ledger = budgets");
        prop_assert_eq!(recounted(&journal, now), money(&books.standings(now)), "budgets = a plain recount");
        let open: Vec<_> = books.open_holds().cloned().collect();
        for hold in open {
            let seq = journal.len() as i64 + 1;
            let end = entry(seq, EntryKind::Release, hold.seq, hold.at_ms, &hold.attribution, hold.held, Usd::ZERO);
            books.apply(&end);
            journal.push(end);
        }
        prop_assert_eq!(books.reserved(), Usd::ZERO, "holds at rest");
    }
}

/// The books after a restart: spending as history, open holds as entries.
fn refolded(journal: &[Arc<Entry>], now: i64) -> Books {
    let mut books = Books::default();
    let ended = |seq: i64| journal.iter().any(|entry| entry.of == seq);
    for hold in journal.iter().filter(|entry| entry.kind == EntryKind::Hold && !ended(entry.seq)) {
        books.apply(hold);
    }
    let spent = journal.iter().filter(|entry| entry.cost != Usd::ZERO);
    let history: Vec<Spent> = spent
        .map(|entry| Spent {
            attribution: Arc::clone(&entry.attribution),
            at_ms: entry.at_ms,
            cost: entry.cost,
        })
        .collect();
    books.advance(now);
    books.define(all_kinds(), &history, now);
    books
}

type Money = Vec<(String, Usd, Usd)>;

/// Name and subject, spent and reserved, of every counter that is not at nothing.
fn money(standings: &[(Arc<Budget>, Vec<Standing>)]) -> Money {
    let all = standings.iter().flat_map(|(_, standings)| standings);
    let mut money: Money = all
        .filter(|standing| standing.spent != Usd::ZERO || standing.reserved != Usd::ZERO)
        .map(|standing| {
            (format!("{}/{}", standing.budget, standing.subject), standing.spent, standing.reserved)
        })
        .collect();
    money.sort();
    money
}

/// The same, by going through the whole journal for each counter.
fn recounted(journal: &[Arc<Entry>], now: i64) -> Money {
    let mut sums: std::collections::BTreeMap<String, (Usd, Usd)> = std::collections::BTreeMap::new();
    for budget in all_kinds() {
        let first = budget.window.first_bucket(now);
        for entry in journal.iter().filter(|entry| budget.scope.covers(&entry.attribution)) {
            if budget.window.bucket(entry.at_ms) >= first {
                let name = format!("{}/{}", budget.name, budget.scope.subject(&entry.attribution));
                let sum = sums.entry(name).or_default();
                sum.0 += entry.spends();
                sum.1 += entry.reserves();
            }
        }
    }
    let some =
        sums.into_iter().filter(|(_, (spent, reserved))| *spent != Usd::ZERO || *reserved != Usd::ZERO);
    some.map(|(name, (spent, reserved))| (name, spent, reserved)).collect()
}

#[test]
fn what_no_budget_covers_is_held_up_to_a_sum_that_can_be_added() {
    let mut books = Books::default();
    let endless = UpperBound { choices: u64::MAX, ..bound(1, u64::MAX, false) };
    let granted = books.decide(&Attribution::default(), &endless, 0).expect("nobody's money");
    assert_eq!(granted.amount, Usd::dollars(100_000));
    let budget =
        Draft { limit_usd: Some("1000000".to_owned()), window: Some("total".to_owned()), ..Draft::default() };
    let budget = budget.check("all", true, &mut |path, what| panic!("{path}: {what}")).expect("a budget");
    books.define(vec![Arc::new(budget)], &[], 0);
    let refused = books.decide(&Attribution::default(), &endless, 0).expect_err("not under a budget");
    assert_eq!(refused.wanted, Usd::MAX);
}
