//! What deciding and asking need of the gateway, handed down in one hand.

use std::sync::Arc;
use std::time::Instant;

use super::board::Board;
use super::capture::Capturer;
use super::pins::Pins;
use super::reserve::Money;
use super::retirements::Retirements;
use super::retries::Retries;

/// What asking deployments takes.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub money: &'a Money,
    pub board: &'a Arc<Board>,
    pub retries: &'a Retries,
    pub pins: &'a Arc<Pins>,
    pub retirements: &'a Retirements,
    pub capturer: &'a Capturer,
}

/// What is looked at to decide, at one moment.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub board: &'a Board,
    pub money: &'a Money,
    pub retirements: &'a Retirements,
    pub now_ms: i64,
    pub now: Instant,
    /// What the dice of each draw begin at.
    pub random: u64,
}

impl<'a> Means<'a> {
    /// What is looked at to decide.
    pub(super) fn sources(self, now_ms: i64, now: Instant) -> Sources<'a> {
        let Means { money, board, retirements, .. } = self;
        Sources { board, money, retirements, now_ms, now, random: rand::random() }
    }
}
