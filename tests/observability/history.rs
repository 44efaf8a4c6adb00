//! A week that never was: every series that a live gateway exports, back for seven days at stated rates, as OpenMetrics
//! text for `promtool tsdb create-blocks-from openmetrics`.
//!
//! Counters grow by a whole number at each step, more by day than by night and the same each day, so that any increase
//! is known; what a histogram observes lies around a middle of its own.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::support::exposition::{Exposition, Family, Labels, Sample, braces};
use crate::support::prometheus::{Span, Target, now_seconds};

/// Between two samples, seconds.
pub(super) const STEP: i64 = 900;
const DAY: i64 = 86_400;
const STEPS: i64 = 7 * DAY / STEP;

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Week {
    /// Its last sample, seconds since 1970 UTC.
    pub(super) until: i64,
}

/// How a value moves.
#[derive(Debug, Clone)]
enum Motion {
    /// A counter: so much for each unit of the day's wave, in units of 1/scale.
    Grows { pace: i64, scale: i64 },
    /// A bucket of a histogram: this share of all observations; `pace` of them for each unit of the wave.
    Observes { pace: i64, share: f64 },
    /// A histogram's sum: so much for each observation.
    Sums { pace: i64, mean: f64 },
    /// As it is.
    Stands(f64),
    /// From nothing at midnight to so much at the next one.
    Climbs(f64),
    /// What is left of so much, while that climbs.
    Sinks { from: f64, by: f64 },
    /// As busy as the day, so much at its height.
    Waves(f64),
    /// The last midnight.
    Midnight,
    /// One more each day.
    Counts,
}

impl Week {
    /// The one that has just ended.
    pub(super) fn just_ended() -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let now = now_seconds() as i64;
        Self { until: now / STEP * STEP }
    }

    /// From a day after its beginning, so that ranges of up to a day are covered, by the hour.
    pub(super) fn span(self) -> Span {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let [from, until] = [self.until - 6 * DAY, self.until].map(|seconds| seconds as f64);
        Span { from, until, step: 3_600.0 }
    }

    /// Writes all that the exposition names; returns how many samples that are.
    pub(super) fn write(self, exposition: &Exposition, target: &Target, file: &Path) -> usize {
        let mut out = BufWriter::new(std::fs::File::create(file).expect("a file for the history"));
        let of_target = |labels: &Labels| {
            let mut labels = labels.clone();
            labels.insert("job".to_owned(), target.job.to_owned());
            labels.insert("instance".to_owned(), target.address.to_string());
            braces(&labels)
        };
        let mut samples = 0;
        let mut text = String::new();
        for family in exposition.0.iter().chain([&up()]) {
            let named = match family.kind.as_str() {
                "counter" => family.name.trim_end_matches("_total"),
                _ => &family.name,
            };
            writeln!(out, "# TYPE {named} {}", family.kind).expect("written");
            for sample in family.samples.iter().filter(|sample| !was_never_observed(family, sample)) {
                let motion = motion(family, sample);
                let labels = of_target(&sample.labels);
                text.clear();
                let mut wave = 0;
                for step in 0..=STEPS {
                    let at = self.until - (STEPS - step) * STEP;
                    let _ = writeln!(text, "{}{labels} {} {at}", sample.name, motion.at(at, wave));
                    wave += busyness(at);
                    samples += 1;
                }
                out.write_all(text.as_bytes()).expect("written");
            }
        }
        out.write_all(b"# EOF\n").and_then(|()| out.flush()).expect("written");
        samples
    }
}

/// Whether it is of a histogram that live traffic did not touch: at 0 for a week, it says nothing, at twenty lines each.
fn was_never_observed(family: &Family, sample: &Sample) -> bool {
    if family.kind != "histogram" {
        return false;
    }
    let mut labels = sample.labels.clone();
    labels.remove("le");
    let counts = format!("{}_count", family.name);
    let its_count = |one: &&Sample| one.name == counts && one.labels == labels;
    family.samples.iter().find(its_count).is_none_or(|count| count.value() == 0.0)
}

/// What a scrape adds of its own.
fn up() -> Family {
    let sample = Sample { name: "up".to_owned(), labels: Labels::new(), text: "1".to_owned() };
    Family { name: "up".to_owned(), kind: "gauge".to_owned(), help: String::new(), samples: vec![sample] }
}

/// 2 in the small hours, 18 in the afternoon, UTC.
fn busyness(at: i64) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "less than a day")]
    let of_day = at.rem_euclid(DAY) as f64 / DAY as f64;
    #[expect(clippy::cast_possible_truncation, reason = "between 2 and 18")]
    let level = (10.0 - 8.0 * (std::f64::consts::TAU * (of_day - 1.0 / 8.0)).cos()).round() as i64;
    level
}

impl Motion {
    /// The value at a time, with the sum of the day's wave so far.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn at(&self, at: i64, wave: i64) -> f64 {
        let of_day = at.rem_euclid(DAY) as f64 / DAY as f64;
        match *self {
            Self::Grows { pace, scale } => (pace * wave) as f64 / scale as f64,
            Self::Observes { pace, share } => ((pace * wave) as f64 * share).floor(),
            Self::Sums { pace, mean } => (pace * wave) as f64 * mean,
            Self::Stands(value) => value,
            Self::Climbs(most) => most * of_day,
            Self::Sinks { from, by } => from - by * of_day,
            Self::Waves(most) => (most * busyness(at) as f64 / 18.0).round(),
            Self::Midnight => at.div_euclid(DAY) as f64 * DAY as f64,
            Self::Counts => at.div_euclid(DAY).rem_euclid(100) as f64,
        }
    }
}

/// The same number for the same text, 0 to 1.
fn spread(text: &str) -> f64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    f64::from(u16::try_from(mixed >> 48).expect("16 bits")) / f64::from(u16::MAX)
}

/// What tells apart who is asked: a model's series belong together.
fn who(sample: &Sample) -> String {
    [sample.label("model"), sample.label("deployment"), sample.label("endpoint")].concat()
}

fn motion(family: &Family, sample: &Sample) -> Motion {
    let lot = spread(&sample.to_string());
    match family.kind.as_str() {
        "counter" => counted(sample, lot),
        "histogram" => observed(family, sample),
        _ => standing(sample, lot),
    }
}

/// A whole number from one to so many.
fn up_to(most: f64, lot: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "small")]
    let picked = (1.0 + lot * (most - 1.0)).round() as i64;
    picked
}

fn counted(sample: &Sample, lot: f64) -> Motion {
    let (most, scale) = match sample.name.as_str() {
        "tunegate_cost_usd_total" => (2_000_000.0, 1_000_000_000),
        "tunegate_saved_usd_total" | "tunegate_prompt_cost_usd_total" => (600_000.0, 1_000_000_000),
        // corrections, overshoots and the like are small beside it
        name if name.ends_with("_usd_total") => (20_000.0, 1_000_000_000),
        "tunegate_tokens_total" | "tunegate_worker_tokens_total" => (2_000.0, 1),
        "tunegate_prompt_tokens_total" => (700.0, 1),
        "tunegate_prompt_requests_total" => (4.0, 1),
        "tunegate_cache_requests_total" | "tunegate_semantic_lookups_total" => {
            (usual(sample.label("result")), 1)
        }
        "tunegate_requests_total" if sample.label("ending") == "served" => (40.0, 1),
        "tunegate_responses_total" if sample.label("status") == "200" => (80.0, 1),
        name if name.ends_with("_seconds_total") => (50.0, 10),
        // what goes wrong does so now and then
        _ => return Motion::Grows { pace: 1, scale: up_to(60.0, lot) },
    };
    Motion::Grows { pace: up_to(most, lot), scale }
}

/// How many requests come to a result of the cache, at the most.
fn usual(result: &str) -> f64 {
    match result {
        "hit" | "served" => 40.0,
        "miss" | "shadow" | "below" => 20.0,
        "joined" | "semantic" | "bypass" => 6.0,
        _ => 1.0,
    }
}

/// Around a middle that belongs to the family and to who is asked.
fn observed(family: &Family, sample: &Sample) -> Motion {
    if family.name == "tunegate_semantic_similarity" {
        return alike(sample);
    }
    let middle = match family.name.as_str() {
        "gen_ai_client_token_usage" => 600.0,
        name if name.contains("chunk") && name.contains("per_output") => 0.02,
        name if name.contains("per_output_token") => 0.06,
        name if name.contains("first") => 0.3,
        name if name.contains("overhead") || name.contains("write") => 0.000_8,
        name if name.contains("batch_size") => 3.0,
        "tunegate_cache_age_seconds" => 600.0,
        "tunegate_tuning_job_duration_seconds" => 1_800.0,
        "tunegate_semantic_embed_duration_seconds" => 0.012,
        name if name.contains("step") => 0.04,
        _ => 1.6,
    };
    let lot = spread(&who(sample));
    let middle = middle * (0.5 + lot);
    let pace = up_to(200.0, spread(&format!("{lot}")));
    if sample.name.ends_with("_sum") {
        return Motion::Sums { pace, mean: middle * 1.2 };
    }
    let share = match sample.label("le") {
        "" | "+Inf" => 1.0,
        bound => {
            let bound: f64 = bound.parse().expect("a bound");
            1.0 / (1.0 + (bound / middle).powi(-3))
        }
    };
    Motion::Observes { pace, share }
}

/// Two clouds: most questions have little to do with any other, some say the same in other words.
fn alike(sample: &Sample) -> Motion {
    let pace = 40;
    if sample.name.ends_with("_sum") {
        return Motion::Sums { pace, mean: 0.75 };
    }
    let share = match sample.label("le") {
        "" | "+Inf" => 1.0,
        bound => {
            let bound: f64 = bound.parse().expect("a bound");
            let below = |middle: f64, steepness: f64| 1.0 / (1.0 + ((middle - bound) * steepness).exp());
            (0.65 * below(0.62, 20.0) + 0.35 * below(0.95, 90.0)).min(1.0)
        }
    };
    Motion::Observes { pace, share }
}

fn standing(sample: &Sample, lot: f64) -> Motion {
    let live = sample.value();
    let spent = 0.55 + 0.4 * spread(sample.label("budget"));
    let limit = 40.0;
    match sample.name.as_str() {
        "tunegate_spend_usd" => match sample.label("window") {
            "today" => Motion::Climbs(12.0 * lot),
            "7d" => Motion::Stands(84.0 * lot),
            _ => Motion::Stands(300.0 * lot),
        },
        "tunegate_config_loaded_timestamp_seconds" => Motion::Midnight,
        "tunegate_budget_limit_usd" => Motion::Stands(limit),
        "tunegate_budget_spent_usd" => Motion::Climbs(limit * spent),
        "tunegate_budget_left_usd" => Motion::Sinks { from: limit, by: limit * spent },
        "tunegate_budget_projected_usd" => Motion::Stands(limit * spent),
        "tunegate_in_flight_requests" | "tunegate_deployment_in_flight" => Motion::Waves(12.0 * lot),
        "tunegate_worker_queue" | "tunegate_worker_active" => Motion::Waves(8.0),
        "tunegate_worker_kv_tokens" => Motion::Waves(6_000.0),
        "tunegate_cache_bytes" => Motion::Waves(900_000.0),
        "tunegate_cache_entries" | "tunegate_semantic_entries" => Motion::Waves(400.0),
        "tunegate_cache_flights" | "tunegate_cache_followers" => Motion::Waves(9.0 * (0.2 + lot)),
        "tunegate_prompt_label_version" => Motion::Counts,
        _ => Motion::Stands(live),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_like_the_next_and_busy_in_the_afternoon() {
        let day: Vec<i64> = (0..DAY / STEP).map(|step| busyness(step * STEP)).collect();
        let next: Vec<i64> = (0..DAY / STEP).map(|step| busyness(DAY + step * STEP)).collect();
        assert_eq!(day, next);
        assert_eq!((day.iter().min(), day.iter().max()), (Some(&2), Some(&18)));
    }

    #[test]
    fn spread_is_even_enough() {
        let all: Vec<f64> = (0..100).map(|at| spread(&format!("series {at}"))).collect();
        let low = all.iter().filter(|lot| **lot < 0.5).count();
        assert!((30..70).contains(&low), "{low} of 100 below the middle");
    }
}
