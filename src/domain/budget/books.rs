//! The fold of the ledger over all budgets, and the decision on a hold.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use super::counter::{Counter, Sums};
use super::{Action, Budget};
use crate::domain::bound::{LEAST_CLAMPED_TOKENS, UpperBound};
use crate::domain::ledger::{Attribution, Entry, EntryKind, Seq};
use crate::domain::money::Usd;

/// The most that is held where no budget applies. A bound beyond it is a mistake of the client's in its caps, and a few
/// of them would stop every sum at its largest value.
const MOST_UNBUDGETED: Usd = Usd::dollars(100_000);
/// Counters of one budget that are tidied at once: requests wait for the books meanwhile.
const TIDIED: usize = 2_000;

/// Money that was spent earlier: what a budget's counters are rebuilt from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Whom it is booked on.
    pub attribution: Arc<Attribution>,
    /// The moment it counts for, ms since 1970 UTC.
    pub at_ms: i64,
    /// How much.
    pub cost: Usd,
}

/// A hold that may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How much is held.
    pub amount: Usd,
    /// The output cap of each choice that this is enough for, tokens.
    pub output_cap: u64,
    /// Whether a budget has lowered the cap.
    pub clamped: bool,
}

/// Why nothing is held: one budget has not enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exceeded {
    /// Its name.
    #[serde(rename = "name")]
    pub budget: Arc<str>,
    /// Which money it is for, in words.
    pub scope: String,
    /// Whose counter; empty where there is only one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub subject: Arc<str>,
    /// How its money comes back, in words.
    pub window: String,
    /// What it asks to be done.
    #[serde(skip)]
    pub action: Action,
    /// Its limit now.
    #[serde(rename = "limit_usd")]
    pub limit: Usd,
    /// Spent of it.
    #[serde(rename = "spent_usd")]
    pub spent: Usd,
    /// Held of it.
    #[serde(rename = "reserved_usd")]
    pub reserved: Usd,
    /// Wanted of it.
    #[serde(rename = "wanted_usd")]
    pub wanted: Usd,
    /// When enough will have come back, ms since 1970 UTC; none where it never does.
    #[serde(rename = "resets_at", serialize_with = "in_seconds")]
    pub resets_at_ms: Option<i64>,
    /// Whether only the holds of other requests stand in the way.
    #[serde(skip)]
    pub may_wait: bool,
}

/// A time as clients read it, seconds since 1970 UTC: not before it.
fn in_seconds<S: serde::Serializer>(at_ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_ms.map(|ms| -(-ms).div_euclid(1_000)).serialize(serializer)
}

/// How a counter of a budget stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The budget's name.
    pub budget: Arc<str>,
    /// Whose counter; empty where there is only one.
    pub subject: Arc<str>,
    /// The limit now.
    #[serde(rename = "limit_usd")]
    pub limit: Usd,
    /// Spent of it.
    #[serde(rename = "spent_usd")]
    pub spent: Usd,
    /// Held of it.
    #[serde(rename = "reserved_usd")]
    pub reserved: Usd,
    /// Left of it; negative when a provider billed beyond its hold.
    #[serde(rename = "left_usd")]
    pub left: Usd,
    /// When everything spent now has come back, ms since 1970 UTC.
    pub resets_at_ms: Option<i64>,
}

/// A budget at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// The budget.
    pub budget: Arc<Budget>,
    /// How many counters something was booked on.
    pub counters: usize,
    /// How its counter stands, where there is only one.
    pub standing: Option<Standing>,
}

/// A counter that is not what the ledger says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// As it stands.
    pub in_force: Standing,
    /// As the ledger has it.
    pub by_the_ledger: Standing,
}

/// A threshold that spending has reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Crossing {
    /// Which one, percent of the limit.
    pub percent: u8,
    /// How the counter stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// A budget and its counters by subject.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) budget: Arc<Budget>,
    /// In a changing order, which has places: so that many can be read in slices.
    pub(super) counters: IndexMap<Arc<str>, Counter>,
    /// The counters before this place are tidied next.
    untidied: usize,
}

/// All budgets, and all holds that are open: of this process and of all others on the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Books {
    pub(super) kept: Vec<Kept>,
    /// Goes up when the budgets are replaced.
    pub(super) edition: u64,
    open: BTreeMap<Seq, Arc<Entry>>,
    /// What the open holds hold, nano-dollars. Their sum must come back to nothing, so it never stops at a largest value.
    held_nanos: i128,
    /// Time does not go back here, whatever a clock does.
    latest_ms: i64,
}

impl Books {
    /// Whether any budget is for deployments or providers of its own.
    pub fn has_budgets_of_deployments(&self) -> bool {
        let scopes = self.kept.iter().map(|kept| &kept.budget.scope);
        scopes.into_iter().any(|scope| scope.deployment.is_some() || scope.provider.is_some())
    }

    /// Takes one entry of the ledger in.
    pub fn apply(&mut self, entry: &Arc<Entry>) {
        self.add(entry, entry.spends(), entry.reserves());
        if entry.kind == EntryKind::Hold {
            self.opens(Arc::clone(entry));
        } else if entry.kind.ends_a_hold() {
            self.closes(entry.of);
        }
    }

    fn opens(&mut self, hold: Arc<Entry>) {
        self.held_nanos += i128::from(hold.held.nanos());
        if let Some(before) = self.open.insert(hold.seq, hold) {
            self.held_nanos -= i128::from(before.held.nanos());
        }
    }

    fn closes(&mut self, hold: Seq) {
        if let Some(hold) = self.open.remove(&hold) {
            self.held_nanos -= i128::from(hold.held.nanos());
        }
    }

    /// Takes an entry out again that could not be written. `ended` is the hold that it had ended.
    pub fn revert(&mut self, entry: &Entry, ended: Option<Arc<Entry>>) {
        self.add(entry, -entry.spends(), -entry.reserves());
        if entry.kind == EntryKind::Hold {
            self.closes(entry.seq);
        }
        if let Some(hold) = ended {
            self.opens(hold);
        }
    }

    fn add(&mut self, entry: &Entry, spent: Usd, reserved: Usd) {
        if spent == Usd::ZERO && reserved == Usd::ZERO {
            return;
        }
        for kept in self.kept.iter_mut().filter(|kept| kept.budget.scope.covers(&entry.attribution)) {
            let subject = kept.budget.scope.subject(&entry.attribution);
            let bucket = kept.budget.window.bucket(entry.at_ms);
            kept.counters.entry(subject).or_default().add(bucket, spent, reserved);
        }
    }

    /// The time a hold counts for: the clock's, but never before what it was last.
    pub fn advance(&mut self, clock_ms: i64) -> i64 {
        self.latest_ms = self.latest_ms.max(clock_ms);
        self.latest_ms
    }

    /// The same time, for who only looks: a clock that is ahead moves nothing.
    pub fn time(&self, clock_ms: i64) -> i64 {
        self.latest_ms.max(clock_ms)
    }

    /// A hold that is open.
    pub fn open_hold(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.open.get(&seq)
    }

    /// All holds that are open, oldest first.
    pub fn open_holds(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.open.values()
    }

    /// How many holds are open, and what they hold.
    pub fn held(&self) -> (usize, Usd) {
        let nanos = i64::try_from(self.held_nanos).unwrap_or(i64::MAX);
        (self.open.len(), Usd::from_nanos(nanos))
    }

    /// Decides on a hold: all budgets that apply have the money, or the one that has not is told. `now_ms` is
    /// what [`Books::advance`] said.
    pub fn decide(&self, on: &Attribution, bound: &UpperBound, now_ms: i64) -> Result<Grant, Box<Exceeded>> {
        let wanted = bound.amount();
        let mut output_cap = bound.output_cap;
        let mut lacking: Option<Box<Exceeded>> = None;
        let mut budgeted = false;
        for kept in self.kept.iter().filter(|kept| kept.budget.scope.covers(on)) {
            budgeted = true;
            let sums = kept.sums(on, now_ms);
            let left = kept.budget.limit_at(now_ms) - sums.spent - sums.reserved;
            if wanted <= left {
                continue;
            }
            let least = LEAST_CLAMPED_TOKENS.min(bound.output_cap);
            let clamped = match kept.budget.action {
                Action::Clamp => bound.cap_within(left).filter(|cap| *cap >= least),
                Action::Refuse | Action::Downgrade => None,
            };
            match clamped {
                Some(cap) => output_cap = output_cap.min(cap),
                None => {
                    let exceeded = kept.exceeded(on, sums, wanted, now_ms);
                    // one that waiting does not help comes before one that it might
                    if lacking.as_ref().is_none_or(|other| other.may_wait && !exceeded.may_wait) {
                        lacking = Some(Box::new(exceeded));
                    }
                }
            }
        }
        let amount = bound.at_cap(output_cap);
        match lacking {
            Some(exceeded) => Err(exceeded),
            None => Ok(Grant {
                amount: if budgeted { amount } else { amount.min(MOST_UNBUDGETED) },
                output_cap,
                clamped: output_cap < bound.output_cap,
            }),
        }
    }

    /// The least that is left of any budget that applies.
    pub fn left_for(&self, on: &Attribution, now_ms: i64) -> Option<Usd> {
        let covering = self.kept.iter().filter(|kept| kept.budget.scope.covers(on));
        let left = covering.map(|kept| {
            let sums = kept.sums(on, now_ms);
            kept.budget.limit_at(now_ms) - sums.spent - sums.reserved
        });
        left.min()
    }

    /// How every counter stands; a budget for which nothing was booked stands once, at nothing.
    #[cfg(test)]
    pub fn standings(&self, now_ms: i64) -> Vec<(Arc<Budget>, Vec<Standing>)> {
        let of = |kept: &Kept| {
            let mut subjects: Vec<&Arc<str>> = kept.counters.keys().collect();
            subjects.sort();
            let mut standings: Vec<Standing> =
                subjects.into_iter().map(|subject| kept.standing(subject, now_ms)).collect();
            if standings.is_empty() && kept.budget.scope.each.is_none() {
                standings.push(kept.standing(&Arc::default(), now_ms));
            }
            (Arc::clone(&kept.budget), standings)
        };
        self.kept.iter().map(of).collect()
    }

    /// Every budget with the number of its counters, and how its counter stands where there is only one.
    pub fn overview(&self, now_ms: i64) -> Vec<Overview> {
        let of = |kept: &Kept| Overview {
            budget: Arc::clone(&kept.budget),
            counters: kept.counters.len(),
            standing: kept.budget.scope.each.is_none().then(|| kept.standing(&Arc::default(), now_ms)),
        };
        self.kept.iter().map(of).collect()
    }

    /// How the counters of a budget stand, in the order of their subjects: at most `limit` of those behind `after`,
    /// and whether there are more. Nothing where there is no such budget.
    pub fn page(
        &self,
        budget: &str,
        after: Option<&str>,
        limit: usize,
        now_ms: i64,
    ) -> Option<(Vec<Standing>, bool)> {
        let kept = self.kept.iter().find(|kept| *kept.budget.name == *budget)?;
        // the first ones of many: never all of them in order
        let mut first: BinaryHeap<&Arc<str>> = BinaryHeap::new();
        let mut more = false;
        for subject in kept.counters.keys().filter(|subject| after.is_none_or(|after| ***subject > *after)) {
            first.push(subject);
            if first.len() > limit {
                first.pop();
                more = true;
            }
        }
        let subjects = first.into_sorted_vec();
        Some((subjects.into_iter().map(|subject| kept.standing(subject, now_ms)).collect(), more))
    }

    /// The budgets.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.kept.iter().map(|kept| &kept.budget)
    }

    /// The alerts to give after a booking on these.
    pub fn crossings(&mut self, on: &Attribution, now_ms: i64) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for kept in self.kept.iter_mut().filter(|kept| kept.budget.scope.covers(on)) {
            let budget = Arc::clone(&kept.budget);
            let subject = budget.scope.subject(on);
            let Some(counter) = kept.counters.get_mut(&subject) else { continue };
            let spent = counter.sums(&budget.window, now_ms).spent;
            if let Some(percent) = counter.alert(&budget.alert_at, spent, budget.limit_at(now_ms)) {
                crossings.push(Crossing { percent, standing: kept.standing(&subject, now_ms) });
            }
        }
        crossings
    }

    /// Replaces the budgets. One that counts as before keeps its counters; the others' are rebuilt from `history`,
    /// which must hold what was spent in any of their windows, and from the holds that are open. What has been reached
    /// already is not alerted again.
    pub fn define(&mut self, budgets: Vec<Arc<Budget>>, history: &[Spent], now_ms: i64) {
        self.edition += 1;
        let mut before = std::mem::take(&mut self.kept);
        for budget in budgets {
            let same = before
                .iter()
                .position(|kept| kept.budget.name == budget.name && kept.budget.counts_like(&budget));
            let kept = match same {
                Some(at) => Kept { budget, ..before.swap_remove(at) },
                None => Kept::rebuilt(budget, history, self.open.values(), now_ms),
            };
            self.kept.push(kept);
        }
    }

    /// The budgets of a list whose counters would have to be rebuilt.
    pub fn new_among<'a>(&self, budgets: &'a [Arc<Budget>]) -> Vec<&'a Arc<Budget>> {
        let is_known = |budget: &Budget| {
            self.kept.iter().any(|kept| kept.budget.name == budget.name && kept.budget.counts_like(budget))
        };
        budgets.iter().filter(|budget| !is_known(budget)).collect()
    }

    /// Rebuilds all counters from what the ledger has, and returns those that differ.
    pub fn drifts(&self, history: &[Spent], now_ms: i64) -> Vec<Drift> {
        let rebuilt =
            |kept: &Kept| Kept::rebuilt(Arc::clone(&kept.budget), history, self.open.values(), now_ms);
        let mut drifts = Vec::new();
        for (kept, rebuilt) in self.kept.iter().map(|kept| (kept, rebuilt(kept))) {
            let subjects: BTreeSet<&Arc<str>> = kept.counters.keys().chain(rebuilt.counters.keys()).collect();
            for subject in subjects {
                let (in_force, by_the_ledger) =
                    (kept.standing(subject, now_ms), rebuilt.standing(subject, now_ms));
                if in_force != by_the_ledger {
                    drifts.push(Drift { in_force, by_the_ledger });
                }
            }
        }
        drifts
    }

    /// Forgets what no longer counts; of many counters the next few.
    pub fn tidy(&mut self, now_ms: i64) {
        let now_ms = self.advance(now_ms);
        for kept in &mut self.kept {
            kept.tidy(now_ms, TIDIED);
        }
    }

    /// What is held on each budget, whenever: zero at rest.
    #[cfg(test)]
    pub fn reserved(&self) -> Usd {
        self.kept.iter().flat_map(|kept| kept.counters.values()).map(Counter::reserved).sum()
    }
}

impl Kept {
    fn rebuilt<'a>(
        budget: Arc<Budget>,
        history: &[Spent],
        open: impl Iterator<Item = &'a Arc<Entry>>,
        now_ms: i64,
    ) -> Self {
        let mut counters: IndexMap<Arc<str>, Counter> = IndexMap::new();
        let mut add = |on: &Attribution, at_ms: i64, spent: Usd, reserved: Usd| {
            if budget.scope.covers(on) {
                let counter = counters.entry(budget.scope.subject(on)).or_default();
                counter.add(budget.window.bucket(at_ms), spent, reserved);
            }
        };
        let first = budget.window.first_bucket(now_ms);
        for spent in history.iter().filter(|spent| budget.window.bucket(spent.at_ms) >= first) {
            add(&spent.attribution, spent.at_ms, spent.cost, Usd::ZERO);
        }
        for hold in open {
            add(&hold.attribution, hold.at_ms, Usd::ZERO, hold.held);
        }
        for counter in counters.values_mut() {
            let spent = counter.sums(&budget.window, now_ms).spent;
            counter.alert(&budget.alert_at, spent, budget.limit_at(now_ms));
        }
        Self { budget, counters, untidied: 0 }
    }

    /// Forgets what no longer counts, of so many counters at most. From the end: what takes the place of one that goes
    /// has been looked at.
    fn tidy(&mut self, now_ms: i64, most: usize) {
        let first = self.budget.window.first_bucket(now_ms);
        let all = self.counters.len();
        let end = if self.untidied == 0 { all } else { self.untidied.min(all) };
        self.untidied = end.saturating_sub(most);
        for place in (self.untidied..end).rev() {
            if self.counters.get_index_mut(place).is_some_and(|(_, counter)| counter.tidy(first)) {
                self.counters.swap_remove_index(place);
            }
        }
    }

    fn sums(&self, on: &Attribution, now_ms: i64) -> Sums {
        let counter = match self.budget.scope.each {
            None => self.counters.get(""),
            Some(_) => self.counters.get(&self.budget.scope.subject(on)),
        };
        counter.map(|counter| counter.sums(&self.budget.window, now_ms)).unwrap_or_default()
    }

    fn standing(&self, subject: &Arc<str>, now_ms: i64) -> Standing {
        let counter = self.counters.get(subject);
        let sums = counter.map(|counter| counter.sums(&self.budget.window, now_ms)).unwrap_or_default();
        let limit = self.budget.limit_at(now_ms);
        Standing {
            budget: Arc::clone(&self.budget.name),
            subject: Arc::clone(subject),
            limit,
            spent: sums.spent,
            reserved: sums.reserved,
            left: limit - sums.spent - sums.reserved,
            resets_at_ms: self.budget.window.resets_at(now_ms),
        }
    }

    fn exceeded(&self, on: &Attribution, sums: Sums, wanted: Usd, now_ms: i64) -> Exceeded {
        let (subject, limit) = (self.budget.scope.subject(on), self.budget.limit_at(now_ms));
        let needed = sums.spent + sums.reserved + wanted - limit;
        let window = &self.budget.window;
        let resets_at_ms = match self.counters.get(&subject) {
            _ if wanted > limit => None, // no wait helps
            Some(counter) => counter.frees_at(window, needed, now_ms),
            None => window.resets_at(now_ms),
        };
        Exceeded {
            budget: Arc::clone(&self.budget.name),
            scope: self.budget.scope.to_string(),
            subject,
            window: format!("{window:?}"),
            action: self.budget.action,
            limit,
            spent: sums.spent,
            reserved: sums.reserved,
            wanted,
            resets_at_ms,
            may_wait: sums.spent + wanted <= limit,
        }
    }
}
