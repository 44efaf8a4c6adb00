//! Answers to questions that mean the same: the last turn of a chat is compared by what it means, everything else must
//! be equal. English only, as the model that compares is (all-MiniLM-L6-v2).
//!
//! A question becomes a vector in the worker, within a few milliseconds or not at all: who can't be compared in time is
//! asked as if there were no such thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::answers::{Answers, Kept};
use crate::clock;
use crate::domain::cache::Semantic as Policy;
use crate::domain::cache::key::CacheKey;
use crate::telemetry::metrics::Metrics;
use crate::upstream::embedder::Embedder;

/// Most questions that one is compared with; of more the oldest go.
const MOST_COMPARED: usize = 256;
/// What a question takes beside its vector, bytes.
const ENTRY_BYTES: usize = 96;
/// What a group of questions takes beside them, bytes.
const GROUP_BYTES: usize = 600;
/// Of the bytes that answers may take, the questions may take one in so many.
const SHARE: u64 = 10;

/// Questions that were answered, to be compared with.
pub struct Semantic {
    embedder: Embedder,
    /// For a vector.
    limit: Duration,
    /// All questions that differ in their last turn alone.
    groups: Cache<CacheKey, Arc<Group>>,
    /// How many questions there are.
    count: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

/// Questions that may stand for one another, oldest first.
type Group = Vec<Question>;

#[derive(Clone)]
struct Question {
    /// Of length 1.
    meaning: Arc<[f32]>,
    /// What its answer is kept under.
    key: CacheKey,
}

/// A question as it is compared.
pub(super) struct Compared {
    /// With which it may be compared.
    group: CacheKey,
    meaning: Arc<[f32]>,
}

impl Semantic {
    /// With no question yet. `answers_bytes` is what all answers may take.
    pub fn new(embedder: Embedder, limit: Duration, answers_bytes: u64, metrics: Arc<Metrics>) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let groups = Cache::builder()
            .max_capacity(answers_bytes / SHARE)
            .weigher(|_: &CacheKey, group: &Arc<Group>| {
                let each = |question: &Question| question.meaning.len() * size_of::<f32>() + ENTRY_BYTES;
                let bytes = GROUP_BYTES + group.iter().map(each).sum::<usize>();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, group: Arc<Group>, _| {
                counted.fetch_sub(group.len() as u64, Ordering::Relaxed);
            })
            .build();
        Self { embedder, limit, groups, count, metrics }
    }

    /// What a question means; nothing where that can't be had in time.
    pub(super) async fn compared(&self, model: &str, group: CacheKey, words: &str) -> Option<Compared> {
        let since = clock::monotonic();
        let meaning = self.embedder.embed(words, self.limit).await;
        let cache = &self.metrics.cache;
        cache.embedded(clock::monotonic().saturating_duration_since(since));
        match meaning {
            Ok(meaning) => Some(Compared { group, meaning }),
            Err(error) => {
                cache.embed_failed(error.code());
                cache.looked(model, "failed", None);
                None
            }
        }
    }

    /// The kept answer to the nearest question, and how near it is: none where none is near enough, or where it is only
    /// measured what would be served.
    pub(super) fn nearest(
        &self,
        model: &str,
        asked: &Compared,
        policy: Policy,
        answers: &Answers,
        max_age: Option<Duration>,
    ) -> Option<(Arc<Kept>, f32)> {
        let group = self.groups.get(&asked.group).unwrap_or_default();
        let mut near: Vec<(f32, CacheKey)> =
            group.iter().map(|other| (cosine(&asked.meaning, &other.meaning), other.key)).collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let threshold = f32::from(policy.threshold_per_mille) / 1_000.0;
        let nearest = near.first().map(|(similarity, _)| *similarity);
        // what has expired since is none
        let mut good = near.iter().take_while(|(similarity, _)| *similarity >= threshold);
        let found = good.find_map(|(similarity, key)| {
            answers.find(key, clock::unix_ms(), max_age).map(|kept| (kept, *similarity))
        });
        let result = match (&found, nearest) {
            (Some(_), _) if policy.shadow => "shadow",
            (Some(_), _) => "served",
            (None, Some(_)) => "below",
            (None, None) => "empty",
        };
        self.metrics.cache.looked(model, result, nearest);
        found.filter(|_| !policy.shadow)
    }

    /// Remembers a question whose answer is kept under a key.
    pub(super) fn remember(&self, asked: &Compared, key: CacheKey) {
        let question = Question { meaning: Arc::clone(&asked.meaning), key };
        self.groups.entry(asked.group).and_upsert_with(|group| {
            let mut questions = group.map_or_else(Group::new, |group| (*group.into_value()).clone());
            questions.retain(|other| other.key != question.key);
            if questions.len() >= MOST_COMPARED {
                questions.remove(0);
            }
            questions.push(question.clone());
            self.count.fetch_add(questions.len() as u64, Ordering::Relaxed);
            Arc::new(questions)
        });
        self.metrics.cache.semantic_entries(self.count.load(Ordering::Relaxed));
    }
}

/// How near two vectors of length 1 are: 1 where they are one, 0 where they have nothing to do with each other.
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}
