//! A few threads that work on one loop together.
//!
//! The forward pass opens some two hundred parallel loops a token, each some ten microseconds long, so the
//! threads must be at hand at once; but a gateway may share the machine, so they must not spin for long.
//! Hence: a thread looks for work for about a tenth of a millisecond, then sleeps. And the caller never waits
//! for a thread that has not begun: work is taken in small bites, and a thread that the machine did not let
//! run simply takes none. On a busy machine two threads are then no slower than one.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Looks for work before a thread sleeps; about 100 µs.
const LOOKS: u32 = 4_000;
/// Bites of each thread in one loop: few enough to be cheap, enough that nobody waits long for the last.
const BITES: usize = 6;

/// The threads of one engine. The caller's own thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// `generation << 32 | OPEN | helpers inside`.
    state: AtomicU64,
    job: UnsafeCell<Job>,
    cursor: AtomicUsize,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

// SAFETY: `job` is written by the owner of the pool only while the state is closed and no helper is inside,
// and read by helpers only between entering an open state and leaving it.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only as described above.
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

#[derive(Clone, Copy)]
struct Job {
    body: *const (),
    call: unsafe fn(*const (), Range<usize>),
    units: usize,
    bite: usize,
}

/// # Safety
/// `body` must point to a live `F`.
unsafe fn call<F: Fn(Range<usize>)>(body: *const (), range: Range<usize>) {
    // SAFETY: by this function's contract.
    unsafe { (*body.cast::<F>())(range) }
}

impl Pool {
    /// Starts `threads - 1` helpers.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let helpers = threads.get() - 1;
        let idle = Job { body: std::ptr::null(), call: call::<fn(Range<usize>)>, units: 0, bite: 1 };
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(idle),
            cursor: AtomicUsize::new(0),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, helpers: Vec::with_capacity(helpers) };
        for index in 0..helpers {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("engine-{}", index + 1));
            pool.helpers.push(builder.spawn(move || shared.help(index))?);
        }
        Ok(pool)
    }

    /// Calls `body` with ranges that together cover `0..units`, on all threads; returns when all is done.
    ///
    /// No range is shorter than `grain`, but the last; a loop of one grain runs here alone.
    ///
    /// # Panics
    /// If `body` panics, with its payload; the pool stays usable.
    pub fn run<F: Fn(Range<usize>) + Sync>(&mut self, units: usize, grain: usize, body: F) {
        if self.helpers.is_empty() || units <= grain {
            if units > 0 {
                body(0..units);
            }
            return;
        }
        let bite = units.div_ceil((self.helpers.len() + 1) * BITES).max(grain);
        let job = Job { body: (&raw const body).cast(), call: call::<F>, units, bite };
        self.open(job);
        // Closes the job on every way out, so that `body` outlives its last use.
        let closing = Closing(&self.shared);
        self.shared.work(job);
        drop(closing);
        let payload = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    fn open(&mut self, job: Job) {
        // SAFETY: `&mut self` and the last `Closing` say that the state is closed and nobody is inside.
        unsafe { *self.shared.job.get() = job };
        self.shared.cursor.store(0, Ordering::Relaxed);
        let generation = (self.shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        // Sequentially consistent with the helper's "asleep, then look once more".
        self.shared.state.store(generation << 32 | OPEN, Ordering::SeqCst);
        for (asleep, helper) in self.shared.asleep.iter().zip(&self.helpers) {
            if asleep.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches every panic of its work, so there is nothing to learn from the result.
            let _ = helper.join();
        }
    }
}

struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while self.0.state.load(Ordering::Acquire) & INSIDE > 0 {
            looks += 1;
            if looks < LOOKS { spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Shared {
    /// Takes bites until none is left.
    fn work(&self, job: Job) {
        loop {
            let start = self.cursor.fetch_add(job.bite, Ordering::Relaxed);
            if start >= job.units {
                return;
            }
            // SAFETY: the job is open or this thread is inside it, so its body is alive.
            unsafe { (job.call)(job.body, start..job.units.min(start + job.bite)) };
        }
    }

    fn help(&self, index: usize) {
        let mut done = 0;
        while let Some(state) = self.next(index, done) {
            let entered = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_err() {
                continue;
            }
            done = state >> 32;
            // SAFETY: this thread is inside an open job, so nobody writes the cell.
            let job = unsafe { *self.job.get() };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work(job))) {
                // Let the others find nothing more to do.
                self.cursor.store(job.units, Ordering::Relaxed);
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits for an open job other than `done` and returns the state seen, or `None` at the end.
    fn next(&self, index: usize, done: u64) -> Option<u64> {
        let fresh = |state: u64| state & OPEN > 0 && state >> 32 != done;
        let mut looks = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if fresh(state) {
                return Some(state);
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            looks += 1;
            if looks < LOOKS {
                spin_loop();
                continue;
            }
            self.asleep[index].store(true, Ordering::SeqCst);
            if !fresh(self.state.load(Ordering::SeqCst)) && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep[index].store(false, Ordering::SeqCst);
            looks = 0;
        }
    }
}

/// A slice that several threads write at once, each in places of its own.
pub(crate) struct Parts<'a, N = f32> {
    start: *mut N,
    length: usize,
    slice: PhantomData<&'a mut [N]>,
}

// SAFETY: `part` asks its callers for disjoint places.
unsafe impl<N: Send> Sync for Parts<'_, N> {}

impl<'a, N> Parts<'a, N> {
    pub(crate) fn new(slice: &'a mut [N]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// Returns `length` numbers from `at`; panics beyond the end.
    ///
    /// # Safety
    /// No two parts that live at the same time may overlap.
    #[expect(clippy::mut_from_ref, reason = "that is its purpose; the contract keeps the parts apart")]
    pub(crate) unsafe fn part(&self, at: usize, length: usize) -> &mut [N] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a part beyond the end");
        // SAFETY: within the slice by the line above, alone by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn every_unit_once() {
        for threads in [1, 2, 3, 8] {
            let mut pool = pool(threads);
            for units in [0, 1, 2, 7, 100, 1000] {
                let seen: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                pool.run(units, 1, |range| {
                    for unit in range {
                        seen[unit].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {units}");
            }
        }
    }

    #[test]
    fn many_short_loops() {
        let mut pool = pool(4);
        let sum = AtomicUsize::new(0);
        for _ in 0..20_000 {
            pool.run(16, 1, |range| {
                sum.fetch_add(range.len(), Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 320_000);
    }

    #[test]
    fn survives_a_panic() {
        let mut pool = pool(3);
        for broken in 0..50 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, 1, |range| assert!(!range.contains(&broken), "unit {broken}"));
            }));
            assert!(outcome.is_err());
            let count = AtomicUsize::new(0);
            pool.run(50, 1, |range| {
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 50);
        }
    }
}
