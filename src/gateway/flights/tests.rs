//! Who boards when, and what they get.

use std::pin::pin;

use futures_util::FutureExt as _;

use super::*;
use crate::domain::cache::key::some_key;
use crate::gateway::presence::Client;
use crate::telemetry::metrics::Config;

fn flights(most_bytes: usize) -> Arc<Flights> {
    let metrics = Metrics::new(Config::default()).expect("metrics");
    let flights = Flights::new(Arc::new(metrics), most_bytes);
    Arc::new(Flights { patience: Duration::from_millis(50), ..flights })
}

fn head() -> Arc<Head> {
    Arc::new(Head { leads: Vec::new(), joins: Vec::new(), status: 200, priced: None })
}

fn led(flights: &Arc<Flights>, stream: bool) -> (Pilot, Follower) {
    match flights.board(some_key(1), stream, || None) {
        Ok(Boarding::Leads(pilot, follower)) => (pilot, follower),
        _ => panic!("nobody leads yet"),
    }
}

fn joined(flights: &Arc<Flights>) -> Option<Follower> {
    match flights.board(some_key(1), true, || None) {
        Ok(Boarding::Joins(follower)) => Some(follower),
        _ => None,
    }
}

/// What is there for a follower now.
fn read(follower: &mut Follower, into: &mut Vec<u8>) -> bool {
    while let Some(piece) = follower.next().now_or_never() {
        match piece {
            Piece::Bytes(bytes) => into.extend_from_slice(&bytes),
            Piece::End => return true,
            Piece::Broke(_) => panic!("nothing broke"),
        }
    }
    false
}

#[tokio::test]
async fn whoever_joins_when_and_reads_how_fast_gets_all_of_it() {
    for seed in 0..300_u64 {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |below: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % below
        };
        let flights = flights(1 << 20);
        let (pilot, leader) = led(&flights, true);
        pilot.begins(head());
        let (mut sent, mut following) = (Vec::new(), vec![(leader, Vec::new())]);
        for number in 0..40_u8 {
            match roll(5) {
                0 => following.extend(joined(&flights).map(|follower| (follower, Vec::new()))),
                1 if following.len() > 1 => {
                    let gone = usize::try_from(roll(following.len() as u64)).expect("few");
                    drop(following.remove(gone));
                }
                2 => {
                    let at = usize::try_from(roll(following.len() as u64)).expect("few");
                    let (follower, got) = &mut following[at];
                    assert!(!read(follower, got));
                }
                _ => {
                    let piece = vec![number; usize::try_from(roll(50)).expect("few") + 1];
                    sent.extend_from_slice(&piece);
                    pilot.brings(piece.into()).await;
                }
            }
        }
        assert_eq!(pilot.all().as_deref(), Some(&*sent), "{seed}");
        drop(pilot.closes());
        pilot.flight.state.lock().phase = Phase::Failed;
        pilot.flight.came.send_replace(());
        for (follower, got) in &mut following {
            while let Some(Piece::Bytes(bytes)) = follower.next().now_or_never() {
                got.extend_from_slice(&bytes);
            }
            assert_eq!(*got, sent, "{seed}");
        }
    }
}

#[tokio::test]
async fn who_comes_when_all_have_left_leads_anew() {
    let flights = flights(1 << 20);
    let (pilot, leader) = led(&flights, true);
    drop(leader);
    assert!(pilot.crowd().left().now_or_never().is_some());
    assert!(matches!(flights.board(some_key(1), true, || None), Ok(Boarding::Leads(..))));
}

#[tokio::test]
async fn a_sealed_call_is_nobodys_but_its_leaders() {
    let flights = flights(1 << 20);
    let (pilot, mut leader) = led(&flights, false);
    let (mut one, mut other) = (joined(&flights).expect("open"), joined(&flights).expect("open"));
    pilot.seal();
    pilot.begins(head());
    assert!(matches!(one.begun().await, Begun::Failed));
    assert!(other.landed().await.is_none());
    assert!(matches!(leader.begun().await, Begun::Stream(_)));
}

#[tokio::test]
async fn beyond_its_bound_a_call_waits_for_the_slowest_and_then_lets_it_go() {
    let flights = flights(10);
    let (pilot, mut leader) = led(&flights, true);
    let mut slow = joined(&flights).expect("open");
    pilot.begins(head());
    let mut got = Vec::new();
    for _ in 0..3 {
        let mut bringing = pin!(pilot.brings(Bytes::from_static(b"12345678")));
        while bringing.as_mut().now_or_never().is_none() {
            read(&mut leader, &mut got);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    read(&mut leader, &mut got);
    assert_eq!(got.len(), 24);
    assert!(matches!(slow.next().await, Piece::Broke(_)), "it was let go");
    assert!(slow.landed().now_or_never().is_some_and(|landed| landed.is_none()));
    assert!(joined(&flights).is_none(), "too long to be joined");
}

#[tokio::test]
async fn a_pilot_that_is_cut_off_leaves_nobody_waiting() {
    let flights = flights(1 << 20);
    let (pilot, mut leader) = led(&flights, true);
    let mut other = joined(&flights).expect("open");
    drop(pilot);
    assert!(matches!(leader.begun().await, Begun::Failed));
    assert!(matches!(other.begun().await, Begun::Failed));
}
