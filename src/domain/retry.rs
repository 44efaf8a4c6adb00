//! What comes after a failed attempt: the same deployment again, another one, or the end. And the budget of retries,
//! which keeps them from becoming the load that an upstream dies of.
//!
//! Nothing here is asked once a byte of the answer has gone to the client.

use std::time::Duration;

use super::fault::Fault;

/// How often and how patiently a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many times it is sent, the first included, all deployments together.
    pub attempts: u32,
    /// How many times one deployment is asked again before the next; the last one is asked as long as `attempts` lasts.
    pub same: u32,
    /// The wait before the first retry on the same deployment; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait; an upstream that asks for more is not waited for.
    pub longest_wait: Duration,
    /// Whether what a content filter has stopped goes to the deployments that are set aside for it.
    pub on_content_filter: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 3,
            same: 1,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(5),
            on_content_filter: false,
        }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The upstream can't have seen it: no name, no connection, no credential, no price, no place.
    NothingSent,
    /// It was sent; the answer did not come, broke off or could not be read.
    Broke,
    /// It was sent; the answer took too long.
    TimedOut,
    /// The upstream said no.
    Fault(Fault),
}

/// Where a request stands after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// How many times it was sent, all deployments together.
    pub sent: u32,
    /// How many times the last deployment was tried, sent or not; at least 1.
    pub on_this: u32,
    /// How long the upstream wants us to wait ([`super::patience::wait_asked`]).
    pub wait_asked: Option<Duration>,
    /// Whether another deployment could be asked.
    pub others_left: bool,
    /// What is left until everything must be over.
    pub time_left: Duration,
    /// Whether the retry budget has one left ([`RetryBudget::allows`]).
    pub budget_allows: bool,
    /// Random bits: they spread the waits.
    pub jitter: u64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The same deployment again; it takes one from the retry budget.
    Same {
        /// The wait before.
        after: Duration,
    },
    /// The next deployment, at once.
    Next,
    /// Only a deployment with a longer context.
    Longer,
    /// Only a deployment that is set aside for what a content filter has stopped.
    Filtered,
    /// The client is told.
    Stop,
}

/// What comes after a failed attempt.
///
/// Another deployment is better than a wait, but a passing failure is asked again once, quickly, where the upstream
/// named no wait: a fallback may be dearer, and its prompt cache is cold. What took too long is never asked again.
pub fn after(failure: Failure, now: &Situation, policy: &Policy) -> Step {
    // one that was not sent anywhere has used up no attempt
    let exhausted = now.sent >= policy.attempts && failure != Failure::NothingSent;
    if exhausted || now.time_left.is_zero() {
        return Step::Stop;
    }
    let next = if now.others_left { Step::Next } else { Step::Stop };
    let again = || now.again(policy).unwrap_or(next);
    match failure {
        Failure::NothingSent | Failure::Broke | Failure::Fault(Fault::Wait) if now.others_left => Step::Next,
        Failure::NothingSent | Failure::Broke | Failure::Fault(Fault::Wait) => again(),
        Failure::Fault(Fault::Transient) if !now.others_left => again(),
        Failure::Fault(Fault::Transient) if now.wait_asked.is_none() && now.on_this <= policy.same => again(),
        Failure::TimedOut
        | Failure::Fault(
            Fault::Transient | Fault::Auth | Fault::DeploymentMissing | Fault::Quota | Fault::TooLarge,
        ) => next,
        Failure::Fault(Fault::ContextLength) => Step::Longer,
        Failure::Fault(Fault::ContentFilter) if policy.on_content_filter => Step::Filtered,
        Failure::Fault(Fault::ContentFilter | Fault::Unsupported | Fault::Told) => Step::Stop,
    }
}

impl Situation {
    /// The same deployment again, where attempts, time and budget allow it.
    fn again(&self, policy: &Policy) -> Option<Step> {
        if !self.budget_allows || self.sent.max(self.on_this) >= policy.attempts {
            return None;
        }
        let after = match self.wait_asked {
            Some(asked) if asked > policy.longest_wait => return None,
            // never earlier than asked, and not all at once
            Some(asked) => asked.saturating_add(part(asked / 10, self.jitter)),
            None => {
                let doubled = 1_u32.checked_shl(self.on_this.saturating_sub(1)).unwrap_or(u32::MAX);
                let wait = policy.first_wait.saturating_mul(doubled).min(policy.longest_wait);
                wait.saturating_sub(part(wait / 4, self.jitter))
            }
        };
        (after < self.time_left).then_some(Step::Same { after })
    }
}

/// A random part of a stretch of time.
fn part(whole: Duration, jitter: u64) -> Duration {
    let (sixteen_bits, parts) = (jitter & 0xFFFF, 0x1_0000);
    // at most 65,535 of 65,536 parts of it
    let nanos = whole.as_nanos() * u128::from(sixteen_bits) / parts;
    u64::try_from(nanos).map_or(whole, Duration::from_nanos)
}

/// What a retry costs, in the budget's own unit: ten requests pay for one.
const RETRY: u32 = 10;
/// Retries that are there before any request has paid for one.
pub const RETRY_RESERVE: u32 = 10;
/// Retries that can be saved up.
pub const MOST_RETRIES: u32 = 100;

/// How many retries on the same deployment are left: one for ten requests, so that the worst day of an upstream does
/// not bring it twice the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// Tenths of a retry.
    tenths: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tenths: RETRY_RESERVE * RETRY }
    }
}

impl RetryBudget {
    /// A request is sent for the first time: it pays for a tenth of a retry.
    pub fn request(&mut self) {
        self.tenths = (self.tenths + 1).min(MOST_RETRIES * RETRY);
    }

    /// Whether a retry is left.
    pub const fn allows(&self) -> bool {
        self.tenths >= RETRY
    }

    /// Takes a retry, where one is left.
    pub fn take(&mut self) -> bool {
        let left = self.tenths.checked_sub(RETRY);
        self.tenths = left.unwrap_or(self.tenths);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS_250: Step = Step::Same { after: Duration::from_millis(250) };

    /// A first attempt that failed while others could be asked, time and budget abound, and no dice are thrown.
    fn first() -> Situation {
        Situation {
            sent: 1,
            on_this: 1,
            wait_asked: None,
            others_left: true,
            time_left: Duration::from_secs(60),
            budget_allows: true,
            jitter: 0,
        }
    }

    fn alone() -> Situation {
        Situation { others_left: false, ..first() }
    }

    fn asked(ms: u64) -> Situation {
        Situation { wait_asked: Some(Duration::from_millis(ms)), ..first() }
    }

    #[test]
    fn each_failure_has_its_next_step() {
        use Fault::{
            Auth, ContentFilter, ContextLength, DeploymentMissing, Quota, Told, TooLarge, Transient,
            Unsupported, Wait,
        };
        for (failure, with_others, without) in [
            (Failure::NothingSent, Step::Next, MS_250),
            (Failure::Broke, Step::Next, MS_250),
            (Failure::TimedOut, Step::Next, Step::Stop),
            (Failure::Fault(Transient), MS_250, MS_250),
            (Failure::Fault(Wait), Step::Next, MS_250),
            (Failure::Fault(Auth), Step::Next, Step::Stop),
            (Failure::Fault(DeploymentMissing), Step::Next, Step::Stop),
            (Failure::Fault(Quota), Step::Next, Step::Stop),
            (Failure::Fault(TooLarge), Step::Next, Step::Stop),
            (Failure::Fault(ContextLength), Step::Longer, Step::Longer),
            (Failure::Fault(ContentFilter), Step::Stop, Step::Stop),
            (Failure::Fault(Unsupported), Step::Stop, Step::Stop),
            (Failure::Fault(Told), Step::Stop, Step::Stop),
        ] {
            let policy = Policy::default();
            assert_eq!(after(failure, &first(), &policy), with_others, "{failure:?} with others");
            assert_eq!(after(failure, &alone(), &policy), without, "{failure:?} without");
            // time and, where something was sent, attempts end all of it
            let late = Situation { time_left: Duration::ZERO, ..first() };
            assert_eq!(after(failure, &late, &policy), Step::Stop, "{failure:?} late");
            let third = Situation { sent: 3, ..first() };
            let want = if failure == Failure::NothingSent { Step::Next } else { Step::Stop };
            assert_eq!(after(failure, &third, &policy), want, "{failure:?} after three");
            // without budget there is no second try
            let poor = Situation { budget_allows: false, ..alone() };
            assert!(
                !matches!(after(failure, &poor, &policy), Step::Same { .. }),
                "{failure:?} without budget"
            );
        }
        let policy = Policy { on_content_filter: true, ..Policy::default() };
        assert_eq!(after(Failure::Fault(ContentFilter), &alone(), &policy), Step::Filtered);
    }

    #[test]
    fn waits_double_obey_and_end() {
        let policy = Policy { attempts: 9, ..Policy::default() };
        let same = |ms| Step::Same { after: Duration::from_millis(ms) };
        let tried = |on_this| Situation { sent: on_this, on_this, ..alone() };
        let transient = Failure::Fault(Fault::Transient);
        let wait = Failure::Fault(Fault::Wait);
        for (failure, now, want) in [
            // doubling up to the longest wait
            (transient, tried(1), same(250)),
            (transient, tried(2), same(500)),
            (transient, tried(5), same(4_000)),
            (transient, tried(6), same(5_000)),
            (transient, tried(8), same(5_000)),
            (transient, tried(9), Step::Stop),
            // the same once, then the next
            (transient, Situation { on_this: 2, sent: 2, ..first() }, Step::Next),
            (transient, Situation { budget_allows: false, ..first() }, Step::Next),
            // an upstream that names a wait is left alone meanwhile
            (transient, asked(100), Step::Next),
            (transient, Situation { others_left: false, ..asked(900) }, same(900)),
            (wait, asked(100), Step::Next),
            (wait, Situation { others_left: false, ..asked(100) }, same(100)),
            (wait, Situation { others_left: false, ..asked(5_000) }, same(5_000)),
            (wait, Situation { others_left: false, ..asked(5_001) }, Step::Stop),
            (wait, Situation { others_left: false, ..asked(86_400_000) }, Step::Stop),
            // a wait must end in time
            (wait, Situation { time_left: Duration::from_millis(900), ..tried(3) }, Step::Stop),
            (wait, Situation { time_left: Duration::from_millis(1_001), ..tried(3) }, same(1_000)),
            (transient, Situation { time_left: Duration::from_millis(250), ..first() }, Step::Next),
            // one that can't be reached is not asked for ever
            (Failure::NothingSent, Situation { sent: 0, on_this: 8, ..alone() }, same(5_000)),
            (Failure::NothingSent, Situation { sent: 0, on_this: 9, ..alone() }, Step::Stop),
        ] {
            assert_eq!(after(failure, &now, &policy), want, "{failure:?} {now:?}");
        }
        let never = Policy { same: 0, ..policy };
        assert_eq!(after(transient, &first(), &never), Step::Next);
        let once = Policy { attempts: 1, ..policy };
        assert_eq!(after(transient, &alone(), &once), Step::Stop);
        assert_eq!(after(Failure::NothingSent, &alone(), &once), Step::Stop);
    }

    proptest! {
        /// Our own waits are only shortened, by a quarter at most; those that were asked for only lengthened, by a tenth.
        #[test]
        fn jitter_spreads_within_its_bounds(jitter: u64, on_this in 1..40_u32, asked_ms in 1..5_000_u64) {
            let policy = Policy { attempts: 99, ..Policy::default() };
            let failure = Failure::Fault(Fault::Wait);
            let now = Situation { jitter, on_this, sent: on_this, ..alone() };
            let Step::Same { after: ours } = after(failure, &now, &policy) else {
                return Err(TestCaseError::fail("no retry"));
            };
            let plain = Duration::from_millis(250_u64.saturating_mul(1 << (on_this - 1)).min(5_000));
            prop_assert!(ours <= plain && ours >= plain * 3 / 4, "{ours:?} of {plain:?}");
            let wait = Duration::from_millis(asked_ms);
            let Step::Same { after: theirs } = after(failure, &Situation { wait_asked: Some(wait), ..now }, &policy) else {
                return Err(TestCaseError::fail("no retry"));
            };
            prop_assert!(theirs >= wait && theirs <= wait * 11 / 10, "{theirs:?} of {wait:?}");
        }

        /// Retries are a tenth of the requests at most, beyond the reserve, in whatever order they come.
        #[test]
        fn retries_are_a_tenth_of_the_requests(tries in proptest::collection::vec(any::<bool>(), 0..5_000)) {
            let mut budget = RetryBudget::default();
            let (mut requests, mut retries) = (0_u32, 0_u32);
            for wants_retry in tries {
                if wants_retry {
                    let allowed = budget.allows();
                    prop_assert_eq!(budget.take(), allowed);
                    retries += u32::from(allowed);
                } else {
                    budget.request();
                    requests += 1;
                }
                prop_assert!(retries <= requests / 10 + RETRY_RESERVE);
            }
        }
    }

    #[test]
    fn retries_are_not_saved_up_for_ever() {
        let mut budget = RetryBudget::default();
        (0..100_000).for_each(|_| budget.request());
        let taken = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(taken, MOST_RETRIES as usize);
    }
}
