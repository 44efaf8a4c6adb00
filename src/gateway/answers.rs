//! The answers that are kept, in memory, bounded by bytes. What was asked for longest ago goes first.
//!
//! Who may see an answer is in its key; nothing here looks at who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::Serialize;

use crate::domain::cache::key::CacheKey;
use crate::domain::endpoint::Endpoint;
use crate::domain::money::Usd;
use crate::domain::usage::Usage;
use crate::telemetry::metrics::Metrics;

/// What an entry takes beside its answer, bytes: its place in the table and in the orders of use and of expiry, and
/// itself. Measured by `cargo bench --bench answers`.
const ENTRY_BYTES: usize = 850;
/// The allocator rounds up: its sizes are an eighth apart, so half of that on average.
const ROUNDED_UP: usize = 16;

/// An answer of more than this part of all is large: some 64 are put in before moka looks at its bound.
const LARGE: u64 = 1_000;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The bound of all kept answers together, bytes of memory.
    pub max_bytes: u64,
    /// A larger answer is not kept.
    pub max_answer_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_answer_bytes: 4 << 20 }
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptBody {
    /// All of it.
    Whole(Bytes),
    /// A stream's events, its usage among them.
    Stream(Bytes),
}

impl KeptBody {
    /// Its bytes.
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Whole(bytes) | Self::Stream(bytes) => bytes,
        }
    }
}

/// A kept answer, and all that is told with it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it answers.
    pub endpoint: Endpoint,
    /// The answer.
    pub body: KeptBody,
    /// The answer's own headers that clients are told.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The catalog's entry.
    pub model: Arc<str>,
    /// Which deployment gave it.
    pub deployment: Arc<str>,
    /// Whose that is.
    pub provider: Arc<str>,
    /// The stored prompt that was put in: `support@3`.
    pub prompt: Option<Arc<str>>,
    /// The id of the key that paid for it.
    pub key_id: Arc<str>,
    /// What it used.
    pub usage: Usage,
    /// What it cost.
    pub cost: Usd,
    /// The version of the price it was computed with.
    pub price: Arc<str>,
    /// When it was kept, ms since 1970 UTC.
    pub kept_at_ms: i64,
    /// Until when it is served, ms since 1970 UTC.
    pub until_ms: i64,
}

impl Kept {
    /// How old it is.
    pub fn age(&self, now_ms: i64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.kept_at_ms).max(0).unsigned_abs())
    }

    /// The memory it takes, bytes.
    fn weight(&self) -> u32 {
        let headers: usize = self.headers.iter().map(|(_, value)| 80 + value.len()).sum();
        let bytes = self.body.bytes().len();
        u32::try_from(bytes + bytes / ROUNDED_UP + headers + ENTRY_BYTES).unwrap_or(u32::MAX)
    }
}

/// Which answers go: those that all of it is true of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Purge {
    /// Of this catalog's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Given by this deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// Paid for by the key with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Given to this stored prompt, any version of it; or to one: `support@3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Older than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Duration>,
    /// The one whose key is shown so.
    #[serde(skip)]
    pub entry: Option<[u8; 16]>,
}

impl Purge {
    fn means(&self, key: &CacheKey, kept: &Kept, now_ms: i64) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        let is_prompt = |wanted: &String| {
            let prompt = kept.prompt.as_deref().unwrap_or_default();
            prompt == wanted || prompt.split_once('@').is_some_and(|(name, _)| name == wanted)
        };
        is(&self.model, &kept.model)
            && is(&self.deployment, &kept.deployment)
            && is(&self.key_id, &kept.key_id)
            && self.prompt.as_ref().is_none_or(is_prompt)
            && self.older_than.is_none_or(|age| kept.age(now_ms) > age)
            && self.entry.is_none_or(|entry| key.shown() == entry)
    }
}

/// How much is kept at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// How many answers.
    pub entries: u64,
    /// The memory they take.
    pub bytes: u64,
    /// The most that they may take.
    pub limit_bytes: u64,
}

/// How much is kept of one model's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfModel {
    /// The catalog's entry.
    pub model: Arc<str>,
    /// How many answers.
    pub entries: u64,
    /// The memory they take.
    pub bytes: u64,
}

/// All kept answers.
pub struct Answers {
    kept: Cache<CacheKey, Arc<Kept>>,
    config: Config,
    /// How often answers were let go by somebody.
    purges: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Each answer goes at its own moment.
struct AtItsEnd;

impl Expiry<CacheKey, Arc<Kept>> for AtItsEnd {
    fn expire_after_create(&self, _: &CacheKey, kept: &Arc<Kept>, _: Instant) -> Option<Duration> {
        Some(lasts(kept))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        kept: &Arc<Kept>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(lasts(kept))
    }
}

fn lasts(kept: &Kept) -> Duration {
    Duration::from_millis(kept.until_ms.saturating_sub(kept.kept_at_ms).max(0).unsigned_abs())
}

impl Answers {
    /// With nothing kept.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        let told = Arc::clone(&metrics);
        metrics.cache.limit(config.max_bytes);
        let kept = Cache::builder()
            .max_capacity(config.max_bytes)
            .weigher(|_: &CacheKey, kept: &Arc<Kept>| kept.weight())
            // what was paid for last is worth as much as what is asked for often: nothing is turned away at the door
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AtItsEnd)
            .eviction_listener(move |_, _, cause| told.cache.evicted(cause_name(cause)))
            .build();
        Self { kept, config, purges: AtomicU64::new(0), metrics }
    }

    /// The answer under a key, if it still may be served and is not older than that.
    pub fn find(&self, key: &CacheKey, now_ms: i64, max_age: Option<Duration>) -> Option<Arc<Kept>> {
        let kept = self.kept.get(key)?;
        let fresh = now_ms < kept.until_ms && max_age.is_none_or(|most| kept.age(now_ms) <= most);
        fresh.then_some(kept)
    }

    /// How often answers were let go: what was asked for before the last time may be just such a one.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::SeqCst)
    }

    /// The metrics it counts in.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The size of the largest answer that is kept, bytes.
    pub fn most_answer_bytes(&self) -> usize {
        usize::try_from(self.config.max_answer_bytes).unwrap_or(usize::MAX)
    }

    /// Whether an answer of so many bytes is kept.
    pub const fn takes(&self, bytes: usize) -> bool {
        bytes as u64 <= self.config.max_answer_bytes
    }

    /// Keeps an answer; one that is too large is not kept. Its bytes are copied: they may be a piece of something larger.
    pub fn keep(&self, key: CacheKey, mut kept: Kept) -> bool {
        if !self.takes(kept.body.bytes().len()) || kept.until_ms <= kept.kept_at_ms {
            return false;
        }
        kept.body = match kept.body {
            KeptBody::Whole(bytes) => KeptBody::Whole(Bytes::copy_from_slice(&bytes)),
            KeptBody::Stream(bytes) => KeptBody::Stream(Bytes::copy_from_slice(&bytes)),
        };
        let own = |(name, value): &(HeaderName, HeaderValue)| {
            Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        // theirs, too
        kept.headers = kept.headers.iter().filter_map(own).collect();
        let is_large = u64::from(kept.weight()) > self.config.max_bytes / LARGE;
        self.kept.insert(key, Arc::new(kept));
        if is_large {
            // what goes for it goes now: else a few of them might stand above the bound for a while
            self.kept.run_pending_tasks();
        }
        self.metrics.cache.holds(self.kept.weighted_size(), self.kept.entry_count());
        true
    }

    /// Lets answers go, at once; returns how many. Looks at all of them: not for an async thread.
    pub fn purge(&self, purge: &Purge, now_ms: i64) -> u64 {
        // first: what lands from here on is not kept
        self.purges.fetch_add(1, Ordering::SeqCst);
        let mut gone = 0;
        for (key, kept) in &self.kept {
            if purge.means(&key, &kept, now_ms) {
                self.kept.invalidate(&*key);
                gone += 1;
            }
        }
        self.standing();
        gone
    }

    /// How much is kept of each model's answers, by name. Looks at all of them: not for an async thread.
    pub fn by_model(&self) -> Vec<OfModel> {
        let mut sums: BTreeMap<Arc<str>, (u64, u64)> = BTreeMap::new();
        for (_, kept) in &self.kept {
            let (entries, bytes) = sums.entry(Arc::clone(&kept.model)).or_default();
            *entries += 1;
            *bytes += u64::from(kept.weight());
        }
        sums.into_iter().map(|(model, (entries, bytes))| OfModel { model, entries, bytes }).collect()
    }

    /// How much is kept now; what has expired goes, and metrics are told.
    pub fn standing(&self) -> Standing {
        self.kept.run_pending_tasks();
        let (bytes, entries) = (self.kept.weighted_size(), self.kept.entry_count());
        self.metrics.cache.holds(bytes, entries);
        Standing { entries, bytes, limit_bytes: self.config.max_bytes }
    }
}

/// Why an answer went, in labels.
const fn cause_name(cause: RemovalCause) -> &'static str {
    match cause {
        RemovalCause::Expired => "expired",
        RemovalCause::Explicit => "purged",
        RemovalCause::Replaced => "replaced",
        RemovalCause::Size => "size",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::{TokenCounts, UsageSource};
    use crate::telemetry::metrics;

    fn answers(max_bytes: u64) -> Answers {
        let metrics = Metrics::new(metrics::Config::default()).expect("metrics");
        Answers::new(Config { max_bytes, max_answer_bytes: 10_000 }, Arc::new(metrics))
    }

    fn kept(body: &'static [u8], at_ms: i64) -> Kept {
        Kept {
            endpoint: Endpoint::ChatCompletions,
            body: KeptBody::Whole(Bytes::from_static(body)),
            headers: Vec::new(),
            model: "m".into(),
            deployment: "d".into(),
            provider: "p".into(),
            prompt: Some("support@3".into()),
            key_id: "key_1".into(),
            usage: Usage::new(TokenCounts::default(), UsageSource::Reported),
            cost: Usd::ZERO,
            price: "v".into(),
            kept_at_ms: at_ms,
            until_ms: at_ms + 60_000,
        }
    }

    fn key(number: u8) -> CacheKey {
        CacheKey::numbered(number)
    }

    /// How many went, by the cause.
    fn gone(answers: &Answers, cause: &str) -> bool {
        let text = String::from_utf8(answers.metrics.text()).expect("text");
        !text.contains(&format!("tunegate_cache_evictions_total{{cause=\"{cause}\"}} 0\n"))
    }

    #[test]
    fn an_answer_is_found_while_it_is_young_enough() {
        let answers = answers(1 << 20);
        assert!(answers.keep(key(1), kept(b"a", 1_000)));
        let found = |now_ms, max_age_s: Option<u64>| {
            answers.find(&key(1), now_ms, max_age_s.map(Duration::from_secs)).map(|kept| kept.age(now_ms))
        };
        assert_eq!(found(1_000, None), Some(Duration::ZERO));
        assert_eq!(found(6_000, Some(5)), Some(Duration::from_secs(5)));
        assert_eq!(found(6_001, Some(5)), None);
        assert_eq!(found(60_999, None), Some(Duration::from_millis(59_999)));
        assert_eq!(found(61_000, None), None, "its time is over");
        assert_eq!(found(0, Some(0)), Some(Duration::ZERO), "a clock that stepped back makes nothing old");
        assert!(answers.find(&key(2), 1_000, None).is_none());
        // what is kept anew stands instead
        assert!(answers.keep(key(1), kept(b"b", 2_000)));
        let body = answers.find(&key(1), 2_000, None).expect("kept").body.bytes().clone();
        assert_eq!(&body[..], b"b");
        assert_eq!(answers.standing().entries, 1);
        assert!(gone(&answers, "replaced"));
    }

    #[test]
    fn what_is_too_large_or_over_at_once_is_not_kept() {
        let answers = answers(1 << 20);
        assert!(!answers.keep(key(1), kept(&[0; 10_001], 0)));
        assert!(answers.keep(key(2), kept(&[0; 10_000], 0)));
        assert!(!answers.keep(key(3), Kept { until_ms: 0, ..kept(b"a", 0) }));
        assert_eq!(answers.standing().entries, 1);
    }

    #[test]
    fn the_bound_holds_and_what_was_asked_for_longest_ago_goes_first() {
        let answers = answers(100_000);
        for number in 0..100 {
            answers.keep(key(number), kept(&[0; 4_000], 0));
            // asked for again and again
            assert!(answers.find(&key(0), 0, None).is_some(), "{number}");
            // who was used last is noted in batches, which are longer than this
            answers.standing();
        }
        let standing = answers.standing();
        assert!((60_000..=100_000).contains(&standing.bytes), "{standing:?}");
        assert!(answers.find(&key(99), 0, None).is_some() && answers.find(&key(1), 0, None).is_none());
        assert!(gone(&answers, "size"));
    }

    #[test]
    fn what_is_purged_is_gone_at_once() {
        let all = || {
            let answers = answers(1 << 20);
            answers.keep(key(1), kept(b"a", 0));
            answers.keep(key(2), Kept { model: "n".into(), key_id: "key_2".into(), ..kept(b"a", 0) });
            answers.keep(key(3), Kept { deployment: "e".into(), prompt: None, ..kept(b"a", 50_000) });
            answers.keep(key(4), Kept { prompt: Some("support@4".into()), ..kept(b"a", 50_000) });
            answers
        };
        let some = |text: &str| Some(text.to_owned());
        let none = Purge::default;
        for (purge, want) in [
            (none(), &[1, 2, 3, 4][..]),
            (Purge { model: some("m"), ..none() }, &[1, 3, 4]),
            (Purge { deployment: some("e"), ..none() }, &[3]),
            (Purge { key_id: some("key_2"), ..none() }, &[2]),
            (Purge { prompt: some("support"), ..none() }, &[1, 2, 4]),
            (Purge { prompt: some("support@3"), ..none() }, &[1, 2]),
            (Purge { prompt: some("supp"), ..none() }, &[]),
            (Purge { older_than: Some(Duration::from_secs(10)), ..none() }, &[1, 2]),
            (Purge { older_than: Some(Duration::from_secs(55)), ..none() }, &[]),
            (Purge { entry: Some(key(4).shown()), ..none() }, &[4]),
            (Purge { model: some("m"), prompt: some("support"), ..none() }, &[1, 4]),
            (Purge { model: some("x"), ..none() }, &[]),
        ] {
            let answers = all();
            let count = answers.purge(&purge, 55_000);
            let gone: Vec<u8> =
                (1..=4).filter(|number| answers.find(&key(*number), 55_000, None).is_none()).collect();
            assert_eq!((gone.as_slice(), count), (want, want.len() as u64), "{purge:?}");
            assert_eq!(answers.standing().entries, 4 - count);
        }
        let answers = all();
        let of = |model: &str, entries: u64| {
            let bytes = entries * u64::from(kept(b"a", 0).weight());
            OfModel { model: model.into(), entries, bytes }
        };
        assert_eq!(answers.by_model(), [of("m", 3), of("n", 1)]);
    }
}
