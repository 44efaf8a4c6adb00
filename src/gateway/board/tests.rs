use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::clock;
use crate::domain::catalog::{Model, Queue, tests::deployment};
use crate::domain::ids::ModelName;
use crate::domain::limit::RateLimits;
use crate::domain::patience::QuotaSeen;
use crate::domain::route::Plan;
use crate::domain::speed::Observation;

const LONG: Duration = Duration::from_secs(60);

fn with_room(name: &str, at_once: u64, places: u32) -> Arc<Deployment> {
    let limits = RateLimits { concurrent: Some(at_once), ..RateLimits::default() };
    Arc::new(Deployment { limits, queue: Queue { places, wait: LONG }, ..(*deployment(name, "m")).clone() })
}

fn catalog(deployments: &[&Arc<Deployment>]) -> Catalog {
    let all = deployments.iter().map(|one| (Arc::clone(&one.name), Arc::clone(one)));
    let name = ModelName::parse("support-bot").expect("a name");
    let plan = Plan::Ordered(deployments.iter().map(|one| Plan::To(Arc::clone(one))).collect());
    Catalog::new(BTreeMap::new(), all.collect(), vec![Model::plain(name, plan)])
}

fn board(deployments: &[&Arc<Deployment>]) -> (Board, Arc<Metrics>, Instant) {
    let metrics = Arc::new(Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics"));
    let now = clock::monotonic();
    (Board::new(&catalog(deployments), Arc::clone(&metrics), now), metrics, now)
}

fn polled<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn entered(polled: Poll<Result<Stay, Unready>>) -> Stay {
    match polled {
        Poll::Ready(entered) => entered.expect("a place"),
        Poll::Pending => panic!("still waiting"),
    }
}

#[tokio::test]
async fn first_come_first_served_and_who_leaves_makes_room() {
    let one = with_room("d", 1, 3);
    let (board, _, now) = board(&[&one]);
    let inside = board.enter(&one, 1, LONG, now).await.expect("a place");
    let mut first = pin!(board.enter(&one, 1, LONG, now));
    let mut second = Box::pin(board.enter(&one, 1, LONG, now));
    let mut third = pin!(board.enter(&one, 1, LONG, now));
    assert!(polled(first.as_mut()).is_pending() && polled(second.as_mut()).is_pending());
    assert!(polled(third.as_mut()).is_pending());
    assert!(matches!(board.try_enter(&one, 1, now), Err(Unready::Full(full)) if full.waiting == 3));
    let full = board.enter(&one, 1, LONG, now).await.expect_err("full");
    assert_eq!(full, Unready::Full(Full { retry_after_ms: 1_000, waiting: 3, queue: 3, at_once: 1 }));
    drop(second);
    assert_eq!(board.standing(&one, 1, now).waiting, 2);
    drop(inside);
    let inside = entered(polled(first.as_mut()));
    assert!(polled(third.as_mut()).is_pending());
    assert!(board.try_enter(&one, 1, now).is_err(), "nobody overtakes");
    drop(inside);
    drop(entered(polled(third.as_mut())));
    let standing = board.standing(&one, 1, now);
    assert_eq!((standing.in_flight, standing.waiting, standing.has_place()), (0, 0, true));
}

#[tokio::test]
async fn a_place_handed_to_somebody_who_has_left_goes_on() {
    let one = with_room("d", 1, 3);
    let (board, _, now) = board(&[&one]);
    let inside = board.try_enter(&one, 1, now).expect("a place");
    let mut gone = Box::pin(board.enter(&one, 1, LONG, now));
    let mut next = pin!(board.enter(&one, 1, LONG, now));
    assert!(polled(gone.as_mut()).is_pending() && polled(next.as_mut()).is_pending());
    drop(inside);
    // the place is its own already, but it never looks
    drop(gone);
    drop(entered(polled(next.as_mut())));
    assert_eq!(board.standing(&one, 1, now).in_flight, 0);
}

#[tokio::test]
async fn a_wait_ends() {
    let mut one = (*with_room("d", 1, 3)).clone();
    one.queue.wait = Duration::from_millis(20);
    let one = Arc::new(one);
    let (board, metrics, now) = board(&[&one]);
    let _inside = board.try_enter(&one, 1, now).expect("a place");
    for longest in [LONG, Duration::from_millis(1), Duration::ZERO] {
        let full = board.enter(&one, 1, longest, now).await.expect_err("full");
        assert!(matches!(full, Unready::Full(full) if full.waiting == 0), "{full:?}");
    }
    assert_eq!(board.standing(&one, 1, now).waiting, 0);
    assert_eq!(metrics.upstreams.sheds("d").get(), 3);
}

#[tokio::test]
async fn a_reload_changes_the_room_and_keeps_who_is_there() {
    let one = with_room("d", 1, 3);
    let (board, _, now) = board(&[&one]);
    let inside = board.try_enter(&one, 1, now).expect("a place");
    let mut first = pin!(board.enter(&one, 1, LONG, now));
    let mut second = pin!(board.enter(&one, 1, LONG, now));
    assert!(polled(first.as_mut()).is_pending() && polled(second.as_mut()).is_pending());
    board.replace(&catalog(&[&with_room("d", 2, 3)]), now);
    let first = entered(polled(first.as_mut()));
    assert!(polled(second.as_mut()).is_pending());
    board.replace(&catalog(&[&with_room("d", 1, 3)]), now);
    drop(inside);
    assert!(polled(second.as_mut()).is_pending(), "there is one place now, and it is taken");
    drop(first);
    drop(entered(polled(second.as_mut())));
    assert_eq!(board.standing(&one, 1, now).in_flight, 0);
}

#[tokio::test]
async fn who_waits_is_sent_elsewhere_when_the_way_is_shut() {
    let seconds = Duration::from_secs;
    let ends: [fn(Stay, Instant); 2] =
        [|stay, now| stay.told_to_wait(Duration::from_secs(60), now), |stay, now| stay.out_of_quota(now)];
    for (end, wait) in ends.into_iter().zip([seconds(60), seconds(300)]) {
        let one = with_room("d", 1, 3);
        let (board, _, now) = board(&[&one]);
        let inside = board.try_enter(&one, 1, now).expect("a place");
        let mut waits = pin!(board.enter(&one, 1, LONG, now));
        assert!(polled(waits.as_mut()).is_pending());
        end(inside, now);
        let Poll::Ready(Err(Unready::Shut { wait_ms, .. })) = polled(waits.as_mut()) else {
            panic!("it still waits")
        };
        assert!(u128::from(wait_ms).abs_diff(wait.as_millis()) < 5_000, "{wait_ms}");
        assert_eq!(board.standing(&one, 1, now).in_flight, 0);
    }
}

#[test]
fn a_dead_one_is_left_alone_and_two_probes_bring_it_back() {
    let one = deployment("d", "m");
    let (board, metrics, now) = board(&[&one]);
    let mut sent = 0;
    while let Ok(stay) = board.try_enter(&one, 1, now) {
        sent += 1;
        stay.failed("transient", now);
    }
    assert_eq!(sent, 5);
    board.publish(now);
    let shown = || String::from_utf8(metrics.text()).expect("text");
    assert!(shown().contains("tunegate_breaker_state{deployment=\"d\"} 2"));
    let later = now + Duration::from_secs(5);
    let mut probe = board.try_enter(&one, 1, later).expect("a probe");
    assert!(probe.is_probe() && !board.standing(&one, 1, later).breaker.admits());
    assert!(board.try_enter(&one, 1, later).is_err(), "one at a time");
    // the first event of a stream says enough: the next probe need not wait for its end
    probe.answered(later);
    drop(board.try_enter(&one, 1, later).expect("another probe, which its client leaves"));
    let second = board.try_enter(&one, 1, later).expect("its place is free");
    let measured = Observation::Whole { total_us: 1_000, tokens: 0 };
    second.succeeded(Some(measured), later);
    assert_eq!(board.standing(&one, 1, later).breaker, State::Closed);
    assert_eq!(board.standing(&one, 1, later).speed.map(|speed| speed.ttft_us), Some(1_000));
    probe.succeeded(None, later);
    board.publish(later);
    assert!(shown().contains("tunegate_breaker_state{deployment=\"d\"} 0"));
    assert!(shown().contains("tunegate_deployment_in_flight{deployment=\"d\"} 0"));
}

#[test]
fn a_quota_is_used_up_and_headers_correct_it() {
    let mut one = (*deployment("d", "m")).clone();
    one.limits.tokens_per_minute = Some(1_000);
    let one = Arc::new(one);
    let (board, _, now) = board(&[&one]);
    let stay = board.try_enter(&one, 800, now).expect("it fits");
    assert_eq!(board.standing(&one, 500, now).quota_wait_ms, 18_000);
    assert_eq!(board.try_enter(&one, 500, now).expect_err("too much"), Unready::Quota { wait_ms: 18_000 });
    let seen = QuotaSeen { limit_tokens: Some(4_000), remaining_tokens: Some(400), ..QuotaSeen::default() };
    stay.seen(&seen, now);
    assert_eq!(board.standing(&one, 1, now).quota_left_permille, Some(100));
}

#[test]
fn what_is_known_outlives_a_reload_unless_it_is_another_model() {
    let (one, two) = (deployment("one", "m"), deployment("two", "m"));
    let (board, metrics, now) = board(&[&one, &two]);
    let tokens = TokenCounts { prompt: 10, completion: 30, ..TokenCounts::default() };
    let learn = |name: &str| board.note_usage("support-bot", &name.into(), &tokens, Ended::ByItself);
    let samples = |name| board.expected("support-bot", name, None).samples;
    let shut = |one| !board.standing(one, 1, now).breaker.admits();
    let stop = |one| board.try_enter(one, 1, now).expect("a place").out_of_quota(now);
    (0..3).for_each(|_| learn("one"));
    learn("unheard-of");
    board.note_usage("no-such-model", &"one".into(), &tokens, Ended::ByItself);
    assert_eq!((samples("one"), samples("unheard-of"), samples("two")), (3, 0, 0));
    assert_eq!(board.expected("support-bot", "two", None).output_milli, Some(30_000), "by the other's");
    assert_eq!(board.expected("no-such-model", "one", None), Expected::default());
    assert_eq!(board.lengths("support-bot").map(|lengths| (lengths.p50, lengths.p99)), Some((29, 31)));
    stop(&one);
    board.replace(&catalog(&[&one, &two]), now);
    assert!(shut(&one) && !shut(&two) && samples("one") == 3);
    let other = deployment("one", "another");
    board.replace(&catalog(&[&other, &two]), now);
    assert!(!shut(&other) && samples("one") == 0);
    // one that is gone is not remembered, and a request that still has it harms nobody
    stop(&two);
    board.publish(now);
    board.replace(&catalog(&[&other]), now);
    board.publish(now);
    let text = String::from_utf8(metrics.text()).expect("text");
    assert!(text.contains("tunegate_breaker_state{deployment=\"one\"} 0"));
    assert!(!text.contains("tunegate_breaker_state{deployment=\"two\"}"));
    stop(&two);
    board.replace(&catalog(&[&other, &two]), now);
    assert!(!shut(&two));
}

#[test]
fn when_to_come_again_is_what_the_queue_will_take() {
    for (served, at_once, waiting, want_ms) in [
        (vec![], 2, 3, 1_000),
        (vec![4_000], 2, 3, 8_000),
        (vec![4_000; 9], 4, 0, 1_000),
        (vec![30_000], 1, 3, 60_000),
        (vec![100, 3_300], 1, 9, 2_000),
    ] {
        let mut places = places::Places::default();
        assert!(places.set(Some(at_once), Queue { places: 99, wait: LONG }).is_empty());
        served.iter().for_each(|ms| places.note(Duration::from_millis(*ms)));
        let queue: Vec<_> = (0..waiting).map(|_| places.join().expect("room")).collect();
        assert_eq!(places.full().retry_after_ms, want_ms, "{served:?} {at_once} {waiting}");
        drop(queue);
    }
}

/// Ten threads with a runtime each, as pingora has them, and 10,000 requests of which many leave on the way.
#[test]
fn never_more_inside_than_there_are_places_and_nothing_leaks() {
    const AT_ONCE: u32 = 8;
    const QUEUE: u32 = 50;
    let one = with_room("d", AT_ONCE.into(), QUEUE);
    let (board, _, now) = board(&[&one]);
    let (inside, served) = (AtomicU32::new(0), AtomicU64::new(0));
    let request = async |bits: u64| {
        let patience = Duration::from_micros(bits % 4_000);
        let entering = board.enter(&one, 1, LONG, clock::monotonic());
        let entered = match bits % 7 {
            // leaves at once, in the queue or not
            0 => return drop(polled(pin!(entering).as_mut())),
            1 | 2 => match tokio::time::timeout(patience, entering).await {
                Ok(entered) => entered,
                Err(_left) => return,
            },
            _ => entering.await,
        };
        let standing = board.standing(&one, 1, now);
        assert!(standing.waiting <= QUEUE && standing.in_flight <= AT_ONCE, "{standing:?}");
        let Ok(stay) = entered else { return };
        assert!(inside.fetch_add(1, Ordering::SeqCst) < AT_ONCE);
        served.fetch_add(1, Ordering::Relaxed);
        if bits.is_multiple_of(3) {
            tokio::time::sleep(patience / 8).await;
        } else {
            tokio::task::yield_now().await;
        }
        inside.fetch_sub(1, Ordering::SeqCst);
        match bits % 5 {
            0 => drop(stay),
            _ => stay.succeeded(None, clock::monotonic()),
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..10_u64 {
            let request = &request;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    for batch in 0..50_u64 {
                        let each = (0..20_u64).map(|n| {
                            let number =
                                (thread * 1_000 + batch * 20 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                            request(number >> 20)
                        });
                        join_all(each).await;
                    }
                });
            });
        }
    });
    let standing = board.standing(&one, 1, now);
    assert_eq!((standing.in_flight, standing.waiting), (0, 0));
    assert!(served.load(Ordering::Relaxed) > 1_000, "{served:?}");
    let all: Vec<Stay> = (0..AT_ONCE).map_while(|_| board.try_enter(&one, 1, now).ok()).collect();
    assert_eq!(all.len(), AT_ONCE as usize, "every place is there again");
}
