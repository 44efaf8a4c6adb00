//! Asks the deployments in their order until one answers: the same again, the next, or the end, as
//! [`retry::after`] decides. Nothing is tried again once a byte of the answer has gone to the
//! client. Each attempt is held and settled on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::time::sleep;

use super::attempt::{self, Attempted, Entry, Failed, Told};
use super::board::Unready;
use super::candidates::longest_total;
use super::means::Means;
use super::meter::Answer;
use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::record::{Record, Refused};
use super::refusal::Refusal;
use crate::clock;
use crate::domain::retry::{self, Failure, Situation, Step};
use crate::domain::route::Chosen;

/// Asks until one answers. A client that leaves meanwhile ends the asking, unless its answer must be paid for anyway.
///
/// # Errors
///
/// With what the client is told, and the open record.
pub(super) async fn ask<C: Client>(
    means: Means<'_>,
    prepared: &Prepared,
    presence: &mut Presence<'_, C>,
    mut record: Box<Record>,
) -> Result<Box<Answer>, Box<Refused>> {
    let mut round = Round::new(means, prepared);
    means.retries.request(&prepared.attribution.model);
    let mut before: Option<Arc<str>> = None;
    loop {
        let Some((chosen, entry)) = round.current() else {
            return round.gives_up(record);
        };
        if before
            .replace(Arc::clone(&chosen.deployment.name))
            .is_some_and(|before| before != chosen.deployment.name)
        {
            record.book().metrics().upstreams.fell_back(&prepared.attribution.model);
        }
        let deadline = round.deadline.min(clock::monotonic() + chosen.deployment.timeouts.total);
        let attempted = attempt::make(means, prepared, &chosen, entry, deadline, presence, record).await;
        let failed = match attempted {
            Attempted::Answered(answer) => return Ok(answer),
            Attempted::Ended(refusal, record) => return Err(Refused::new(refusal, record)),
            Attempted::Failed(failed, open) => {
                record = open;
                *failed
            }
        };
        failed.is_noted(&chosen.deployment, &mut record);
        if presence.is_gone() {
            // it was read on for what it costs; nobody waits for another answer
            return Err(Refused::new(Refusal::ClientGone, record));
        }
        if let Some(after) = round.learns(failed, &record) {
            record.waits();
            tokio::select! {
                biased;
                () = presence.left() => return Err(Refused::new(Refusal::ClientGone, record)),
                () = sleep(after) => record.goes_on(),
            }
        }
    }
}

/// Where a request stands among its deployments.
struct Round<'a> {
    means: Means<'a>,
    prepared: &'a Prepared,
    /// Who is asked, from `at` on.
    order: Vec<Chosen>,
    at: usize,
    /// Those that had no place; they are waited for when no other is left.
    full: Vec<Chosen>,
    entry: Entry,
    /// How often it was sent, all deployments together.
    sent: u32,
    /// How often the current one was tried.
    on_this: u32,
    deadline: Instant,
    /// Who has refused it for its length or its content: not asked again for the same.
    refused_by: Vec<Arc<str>>,
    /// What the client hears if nobody answers.
    told: Option<Told>,
    /// It is over.
    stopped: bool,
}

impl<'a> Round<'a> {
    fn new(means: Means<'a>, prepared: &'a Prepared) -> Self {
        let total = longest_total(prepared.order.iter().map(|chosen| &chosen.deployment));
        Self {
            means,
            prepared,
            order: prepared.order.clone(),
            at: 0,
            full: Vec::new(),
            entry: Entry::AtOnce,
            sent: 0,
            on_this: 1,
            deadline: clock::monotonic() + total,
            refused_by: Vec::new(),
            told: None,
            stopped: false,
        }
    }

    /// Whom to ask now, and whether to wait for a place.
    fn current(&mut self) -> Option<(Chosen, Entry)> {
        if self.stopped {
            return None;
        }
        if self.at >= self.order.len() && !self.full.is_empty() {
            let full = std::mem::take(&mut self.full);
            self.begin(full, Entry::Queued);
        }
        self.order.get(self.at).map(|chosen| (chosen.clone(), self.entry))
    }

    fn begin(&mut self, order: Vec<Chosen>, entry: Entry) {
        (self.order, self.at, self.on_this, self.entry) = (order, 0, 1, entry);
    }

    /// Takes in how an attempt failed; a wait before the same deployment is asked again.
    fn learns(&mut self, failed: Failed, record: &Record) -> Option<Duration> {
        let Failed { failure, wait_asked, told, unready, cheaper, again } = failed;
        let failed_on = self.order[self.at].clone();
        if failure != Failure::NothingSent {
            self.sent += 1;
        }
        if let Some(Unready::Full(_) | Unready::Quota { .. }) = unready
            && self.entry == Entry::AtOnce
        {
            self.full.push(failed_on.clone());
        }
        // that it is left alone now says less than why
        if self.told.is_none() || !matches!(unready, Some(Unready::Shut { .. })) {
            self.told = Some(told);
        }
        let retries = self.means.retries;
        let mut situation = Situation {
            sent: self.sent,
            on_this: self.on_this,
            wait_asked,
            others_left: self.at + 1 < self.order.len() || !self.full.is_empty(),
            time_left: self.deadline.saturating_duration_since(clock::monotonic()),
            budget_allows: again && retries.allows(&self.prepared.attribution.model),
            jitter: rand::random(),
        };
        let policy = &self.prepared.resolved.model.retry;
        let mut step = retry::after(failure, &situation, policy);
        if matches!(step, Step::Same { .. }) && !retries.take(&self.prepared.attribution.model) {
            // another request has taken the last one since
            situation.budget_allows = false;
            step = retry::after(failure, &situation, policy);
        }
        match step {
            Step::Same { after } => {
                self.on_this += 1;
                record.book().metrics().upstreams.retried(&failed_on.deployment.name);
                return Some(after);
            }
            Step::Next => self.next(cheaper),
            Step::Longer => {
                let longer = self.longer_than(&failed_on);
                self.set_aside(longer);
            }
            Step::Filtered => {
                let unfiltered = self.without_who_refused(&failed_on, self.prepared.filtered.clone());
                self.set_aside(unfiltered);
            }
            Step::Stop => self.stopped = true,
        }
        None
    }

    fn next(&mut self, cheaper: bool) {
        (self.at, self.on_this) = (self.at + 1, 1);
        if cheaper && self.at < self.order.len() {
            let now = clock::monotonic();
            let sources = self.means.sources(clock::unix_ms(), now);
            let rest = self.prepared.by_cost(&self.order[self.at..], sources);
            self.order.splice(self.at.., rest);
        }
    }

    /// Goes on with deployments that are there for just this failure.
    fn set_aside(&mut self, order: Vec<Chosen>) {
        if order.is_empty() {
            self.stopped = true;
            return;
        }
        self.full.clear();
        self.begin(order, Entry::AtOnce);
    }

    /// Who has a longer context: what is set aside for it, then the rest of the order.
    fn longer_than(&mut self, failed_on: &Chosen) -> Vec<Chosen> {
        let had = failed_on.deployment.context_window;
        let is_longer = |chosen: &&Chosen| match (chosen.deployment.context_window, had) {
            (Some(window), Some(had)) => window > had,
            _ => false,
        };
        let rest = self.order[self.at + 1..].iter().filter(is_longer);
        let longer = self.prepared.longer.iter().chain(rest).cloned().collect();
        self.without_who_refused(failed_on, longer)
    }

    /// Each once, without those that have refused this request for what it is.
    fn without_who_refused(&mut self, failed_on: &Chosen, order: Vec<Chosen>) -> Vec<Chosen> {
        self.refused_by.push(Arc::clone(&failed_on.deployment.name));
        let mut left: Vec<Chosen> = Vec::new();
        for chosen in order {
            let name = &chosen.deployment.name;
            if !self.refused_by.contains(name) && left.iter().all(|known| known.deployment.name != *name) {
                left.push(chosen);
            }
        }
        left
    }

    fn gives_up(self, record: Box<Record>) -> Result<Box<Answer>, Box<Refused>> {
        let refusal = match self.told {
            Some(Told::Answer(told)) => return Ok(Box::new(told.into_answer(record))),
            Some(Told::Refusal(refusal)) => refusal,
            None => Refusal::UnknownModel(self.prepared.forms.asked().model.as_str().to_owned()),
        };
        Err(Refused::new(refusal, record))
    }
}
