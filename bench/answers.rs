//! How far the memory of kept answers is from its bound, and how quick they are: `cargo bench --bench answers`.
//!
//! Puts in 1,000,000 answers of mixed sizes, with the allocator of the real program, and fails where the process has
//! grown by 10 % more or less than the bound says.

#![expect(clippy::print_stdout, reason = "a program for a person")]

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use tunegate::config;
use tunegate::domain::cache::key::{CacheKey, KeyedOn, Tenant, cache_key};
use tunegate::domain::catalog::Deployment;
use tunegate::domain::endpoint::Endpoint;
use tunegate::domain::money::Usd;
use tunegate::domain::request::InferenceRequest;
use tunegate::domain::usage::{TokenCounts, Usage, UsageSource};
use tunegate::gateway::answers::{Answers, Config, Kept, KeptBody, Purge};
use tunegate::telemetry::metrics::{self, Metrics};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 1_000_000;
const BOUND: u64 = 256 << 20;
/// Answers from 0.3 to 8 KiB.
const SIZES: std::ops::Range<u64> = 300..8_192;
/// How far the memory may be from the bound, percent.
const MOST_OFF: f64 = 10.0;

fn main() -> ExitCode {
    let config = config::load(None, &BTreeMap::new()).expect("the built-in configuration");
    let deployment = config.catalog.deployments.values().next().expect("the local one");
    let metrics = Arc::new(Metrics::new(metrics::Config::default()).expect("metrics"));
    let answers = Answers::new(Config { max_bytes: BOUND, ..Config::default() }, metrics);
    let names = ["m0", "m1", "d", "p", "2026-11-01"].map(Arc::from);
    // what is allocated once, is
    for number in 0..1_000 {
        answers.keep(key(number, deployment), answer(number, &names));
    }
    answers.purge(&Purge::default(), 0);
    let before = resident_bytes();
    let begun = now();
    for number in 0..ENTRIES {
        answers.keep(key(number, deployment), answer(number, &names));
    }
    let took = begun.elapsed();
    let standing = answers.standing();
    let grown = resident_bytes().saturating_sub(before);
    let off = (grown as f64 / BOUND as f64 - 1.0) * 100.0;
    println!("kept {ENTRIES} answers in {took:.1?}: {} are left", standing.entries);
    println!(
        "bound {} MiB, weighed {} MiB, the process has grown by {} MiB: {off:+.1} %",
        BOUND >> 20,
        standing.bytes >> 20,
        grown >> 20
    );
    hits(&answers, deployment);
    let begun = now();
    let gone = answers.purge(&Purge { model: Some("m0".to_owned()), ..Purge::default() }, 0);
    println!("purged {gone} answers of one model in {:.1?}", begun.elapsed());
    match off.abs() <= MOST_OFF {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// How long it takes to make a key and find its answer.
fn hits(answers: &Answers, deployment: &Deployment) {
    let rounds = 200_000;
    let begun = now();
    let found = (0..rounds).filter(|round| {
        let key = key(ENTRIES - 1 - round % 1_000, deployment);
        answers.find(&key, 1, None).is_some()
    });
    let found = found.count();
    let took = begun.elapsed();
    println!(
        "{found} hits of {rounds} in {took:.1?}: {:.1} µs each",
        took.as_secs_f64() * 1e6 / rounds as f64
    );
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}

fn key(number: u64, deployment: &Deployment) -> CacheKey {
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"system","content":"You are helpful."}},{{"role":"user","content":"Question {number}"}}],"temperature":0}}"#
    );
    let request =
        InferenceRequest::parse(Endpoint::ChatCompletions, Bytes::from(body), None).expect("a request");
    cache_key(
        &request,
        &KeyedOn {
            asked: &request,
            tenant: Tenant::Team("t"),
            namespace: None,
            deployment,
            upstream_model: "m",
            prompt: None,
            default_cap: None,
            beta: None,
            model: "m",
        },
    )
}

/// An answer of a size that is as good as drawn. Names are those of the catalog, shared by all.
fn answer(number: u64, names: &[Arc<str>; 5]) -> Kept {
    let [one, other, deployment, provider, price] = names;
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let size = usize::try_from(SIZES.start + mixed % (SIZES.end - SIZES.start)).expect("small");
    let body = Bytes::from(vec![b'a'; size]);
    let value = HeaderValue::try_from(format!("req_{number}")).expect("a header");
    Kept {
        endpoint: Endpoint::ChatCompletions,
        body: if number.is_multiple_of(2) { KeptBody::Whole(body) } else { KeptBody::Stream(body) },
        headers: vec![
            (HeaderName::from_static("openai-processing-ms"), HeaderValue::from_static("420")),
            (HeaderName::from_static("x-request-id"), value),
        ],
        model: Arc::clone(if number.is_multiple_of(2) { one } else { other }),
        deployment: Arc::clone(deployment),
        provider: Arc::clone(provider),
        prompt: None,
        key_id: Arc::clone(provider),
        usage: Usage::new(TokenCounts::default(), UsageSource::Reported),
        cost: Usd::ZERO,
        price: Arc::clone(price),
        kept_at_ms: 0,
        until_ms: i64::try_from(Duration::from_secs(3_600).as_millis()).expect("small"),
    }
}

/// What the process has in memory.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4_096
}
