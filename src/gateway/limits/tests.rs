use std::time::Duration;

use super::*;
use crate::domain::ids::ModelName;
use crate::domain::key::{Terms, VirtualKey};
use crate::domain::route::Plan;
use crate::domain::team::Team;

fn per_minute(requests: u64) -> RateLimits {
    RateLimits { requests_per_minute: Some(requests), ..RateLimits::default() }
}

fn at_once(requests: u64) -> RateLimits {
    RateLimits { concurrent: Some(requests), ..RateLimits::default() }
}

fn tokens(tokens: u64) -> RateLimits {
    RateLimits { tokens_per_minute: Some(tokens), ..RateLimits::default() }
}

fn admitted(id: &str, key: RateLimits, team: RateLimits) -> Admitted {
    let key = VirtualKey {
        id: id.into(),
        alias: format!("alias-of-{id}").into(),
        last_four: "abcd".to_owned(),
        created_at_ms: 0,
        revoked_at_ms: None,
        terms: Terms { limits: key, ..Terms::default() },
    };
    Admitted { key: Arc::new(key), team: Some(Arc::new(Team::declared("ops", team, Vec::new()))) }
}

fn model(limits: RateLimits) -> Model {
    let name = ModelName::parse("support-bot").expect("a name");
    Model { limits, ..Model::plain(name, Plan::Ordered(Vec::new())) }
}

fn limits() -> (Arc<Limits>, Instant) {
    let now = clock::monotonic();
    (Arc::new(Limits::new(Config { max_in_flight: 2, max_body_bytes: 10 }, now)), now)
}

fn none() -> RateLimits {
    RateLimits::default()
}

#[test]
fn all_limits_are_taken_from_or_none_is() {
    let (limits, now) = limits();
    let (generous, tight) = (per_minute(100), per_minute(1));
    let asks = admitted("key_1", generous, none());
    let enter = |model: &Model| limits.enter(&asks, model, 5, now);
    let first = enter(&model(tight)).expect("fits");
    assert_eq!(first.standings().requests.map(|left| left.remaining), Some(0), "the tightest is told");
    for _ in 0..3 {
        let limited = enter(&model(tight)).expect_err("the model's minute is full");
        assert_eq!((limited.scope, limited.used, limited.retry_after_ms), (Scope::Model, 1, Some(60_000)));
    }
    let second = enter(&model(none())).expect("fits");
    let left = second.standings().requests.expect("limited");
    assert_eq!(left.remaining, 98, "refusals have taken nothing from the key");
}

#[test]
fn a_team_limits_all_its_keys_together() {
    let (limits, now) = limits();
    let enter = |id| limits.enter(&admitted(id, none(), per_minute(2)), &model(none()), 1, now);
    let _first = enter("key_1").expect("fits");
    let _second = enter("key_2").expect("fits");
    let limited = enter("key_3").expect_err("full").to_string();
    assert_eq!(
        limited,
        "Rate limit reached for team `ops` on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in 30s."
    );
}

#[test]
fn requests_at_once_are_given_back_however_they_end() {
    let (limits, now) = limits();
    let asks = admitted("key_1", at_once(2), none());
    let enter = || limits.enter(&asks, &model(none()), 1, now);
    let (first, second) = (enter().expect("fits"), enter().expect("fits"));
    let limited = enter().expect_err("two at once");
    assert_eq!((limited.limit, limited.most, limited.used), (Limit::Concurrent, 2, 2));
    first.settle(1, now);
    let third = enter().expect("one has ended");
    drop(second);
    let _fourth = enter().expect("one was dropped");
    drop(third);
}

#[test]
fn tokens_that_were_not_used_come_back() {
    let (limits, now) = limits();
    let asks = admitted("key_1", tokens(100), none());
    let enter = |tokens| limits.enter(&asks, &model(none()), tokens, now);
    let left = |entered: &Entered| entered.standings().tokens.map(|standing| standing.remaining);
    let first = enter(80).expect("fits");
    assert_eq!(left(&first), Some(20));
    let limited = enter(30).expect_err("too much for now");
    assert_eq!((limited.limit, limited.retry_after_ms), (Limit::Tokens, Some(6_000)));
    first.settle(10, now);
    let second = enter(30).expect("fits now");
    assert_eq!(left(&second), Some(60));
    second.settle(90, now);
    assert_eq!(left(&enter(0).expect("nothing is asked for")), Some(0), "more is taken, too");
    let never = enter(101).expect_err("more than a minute's").to_string();
    assert!(
        never.starts_with("Request too large for key `alias-of-key_1` on tokens per min (TPM): Limit 100"),
        "{never}"
    );
}

#[test]
fn the_longest_wait_is_told() {
    let (limits, now) = limits();
    let asks = admitted("key_1", per_minute(60), per_minute(2));
    for _ in 0..2 {
        drop(limits.enter(&asks, &model(per_minute(30)), 1, now).expect("fits"));
    }
    let later = now + Duration::from_millis(100);
    let limited = limits.enter(&asks, &model(per_minute(30)), 1, later).expect_err("full");
    assert_eq!((limited.scope, limited.retry_after_ms), (Scope::Team, Some(29_900)));
    let then = later + Duration::from_millis(29_900);
    assert!(limits.enter(&asks, &model(per_minute(30)), 1, then).is_ok(), "and it is enough");
}

#[test]
fn idle_meters_are_thrown_away_and_others_are_not() {
    let (limits, now) = limits();
    let busy = limits.enter(&admitted("busy", at_once(1), none()), &model(none()), 1, now).expect("fits");
    for number in 0..3 * FIRST_SWEEP {
        let asks = admitted(&format!("key_{number}"), per_minute(60), none());
        let at = now + Duration::from_secs(number as u64);
        drop(limits.enter(&asks, &model(none()), 1, at).expect("fits"));
    }
    let kept = limits.meters.lock().of.len();
    assert!(kept <= FIRST_SWEEP + 1, "{kept}");
    assert!(limits.enter(&admitted("busy", at_once(1), none()), &model(none()), 1, now).is_err());
    drop(busy);
}

#[test]
fn places_and_bytes_are_given_back() {
    let (limits, _) = limits();
    let mut first = limits.place().expect("a place");
    let mut second = limits.place().expect("a place");
    assert_eq!(limits.place().err(), Some(Refusal::Overloaded("requests")));
    first.grow(7).expect("room");
    assert_eq!(second.grow(4).err(), Some(Refusal::Overloaded("bytes of requests")));
    second.grow(3).expect("room");
    drop(first);
    second.grow(7).expect("room again");
    drop(limits.place().expect("a place again"));
}
