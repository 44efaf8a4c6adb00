//! Fine-tuning: jobs and how they get on, the files they learn from, and what they cost. The label of a job's id is
//! `ftjob`: Prometheus has a `job` of its own on all that it scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::buckets;
use super::declare::metrics;
use super::exact::{self, DollarCounterVec, DollarGaugeVec};
use super::labels::Seats;
use super::table::Table;
use crate::domain::catalog::Catalog;
use crate::domain::ledger::{Entry, Purpose};
use crate::domain::money::Usd;
use crate::domain::tuning::JobStatus;

/// What comes of asking a provider how a job stands.
const POLLED: [&str; 4] = ["ok", "refused", "not_found", "unreachable"];
/// How a training file stands.
const FILES: [&str; 3] = ["checking", "processed", "error"];
/// What a check of a data set ends with.
const CHECKED: [&str; 2] = ["processed", "error"];
/// Jobs that have series of their own at one time.
const MOST_JOBS: usize = 20;

metrics! {
    /// What is said of fine-tuning.
    struct Families {
        /// Fine-tuning jobs by provider and status, those that have ended among them.
        jobs: Table = "tunegate_tuning_jobs" ["provider", "status"];
        /// Jobs that have ended, by how.
        ended: IntCounterVec = "tunegate_tuning_jobs_ended_total" ["provider", "status"];
        /// Seconds from a job's creation to its end.
        duration: HistogramVec = "tunegate_tuning_job_duration_seconds" ["provider"] in buckets::JOB_SECONDS;
        /// Tokens that jobs were trained on and billed for; those of each epoch count.
        trained: IntCounterVec = "tunegate_tuning_trained_tokens_total" ["provider"];
        /// What jobs have cost, USD, as the ledger has it; corrections downwards are credits.
        cost: DollarCounterVec = "tunegate_tuning_cost_usd_total" ["provider"];
        /// What is held for jobs that have not been settled, USD.
        held: DollarGaugeVec = "tunegate_tuning_held_usd" ["provider"];
        /// Seconds since the active job changed that has been without a change for longest; 0 without one.
        silent: GaugeVec = "tunegate_tuning_silent_seconds" ["provider"];
        /// Times that a provider was asked how a job stands, by what came of it.
        polls: IntCounterVec = "tunegate_tuning_polls_total" ["provider", "result"];
        /// Files that are kept, by status.
        files: IntGaugeVec = "tunegate_tuning_files" ["status"];
        /// Bytes of all kept files; content that is kept once counts once.
        bytes: IntGauge = "tunegate_tuning_file_bytes";
        /// The bound of those bytes.
        limit: IntGauge = "tunegate_tuning_file_limit_bytes";
        /// Data sets that were checked, by what came of it.
        checks: IntCounterVec = "tunegate_dataset_checks_total" ["result"];
        /// Seconds that checking a data set took.
        check_duration: Histogram = "tunegate_dataset_check_duration_seconds" in buckets::CHECK_SECONDS;
        /// 1, with whose a job is and what it trains: of jobs whose progress is told.
        info: Table = "tunegate_tuning_job_info" ["ftjob", "provider", "base"];
        /// The last step of a job that is known.
        step: Table = "tunegate_tuning_job_step" ["ftjob"];
        /// How many steps a job has.
        steps: Table = "tunegate_tuning_job_steps" ["ftjob"];
        /// The loss on training data at that step.
        train_loss: Table = "tunegate_tuning_job_train_loss" ["ftjob"];
        /// The loss on validation data, as it was measured last.
        valid_loss: Table = "tunegate_tuning_job_valid_loss" ["ftjob"];
        /// The part of training tokens that was foretold at that step, 0 to 1.
        accuracy: Table = "tunegate_tuning_job_token_accuracy" ["ftjob"];
    }
}

/// How far a job is. What its provider does not say is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The provider's name in the catalog.
    pub provider: Arc<str>,
    /// What is trained: the provider's own name of the base model.
    pub base: Arc<str>,
    /// The last step that is known.
    pub step: Option<u64>,
    /// How many there are.
    pub steps: Option<u64>,
    /// On training data.
    pub train_loss: Option<f64>,
    /// On validation data.
    pub valid_loss: Option<f64>,
    /// Of training tokens, 0 to 1.
    pub token_accuracy: Option<f64>,
}

/// Fine-tuning.
pub struct Tuning {
    families: Families,
    /// Providers whose gauges are there.
    providers: Mutex<BTreeSet<Arc<str>>>,
    /// Jobs by their ids.
    progress: Mutex<BTreeMap<Arc<str>, Progress>>,
    /// Jobs that have series of their own.
    seats: Seats<Arc<str>>,
}

impl Tuning {
    pub(super) fn new(
        registry: &Registry,
        overflows: impl Fn(&str) -> IntCounter,
    ) -> Result<Self, prometheus::Error> {
        let families = Families::declared(registry)?;
        for status in FILES {
            families.files.with_label_values(&[status]);
        }
        for result in CHECKED {
            families.checks.with_label_values(&[result]);
        }
        Ok(Self {
            families,
            providers: Mutex::default(),
            progress: Mutex::default(),
            seats: Seats::new(MOST_JOBS, overflows("tuning_job")),
        })
    }

    /// Lets the series of the catalog's providers begin at 0; gauges of those that have left it go.
    pub(super) fn born(&self, catalog: &Catalog) {
        let now: BTreeSet<Arc<str>> = catalog.providers.keys().cloned().collect();
        let before = std::mem::replace(&mut *self.providers.lock(), now.clone());
        for gone in before.difference(&now) {
            // an error says that it was never there
            let _ = self.families.silent.remove_label_values(&[&**gone]);
            let _ = self.families.held.remove_label_values(&[&**gone]);
        }
        for provider in &now {
            self.provider_born(provider);
        }
        if before.is_empty() {
            self.jobs(&BTreeMap::new());
        }
    }

    fn provider_born(&self, provider: &str) {
        for status in JobStatus::ALL.into_iter().filter(|status| status.is_final()) {
            self.families.ended.with_label_values(&[provider, status.name()]);
        }
        for result in POLLED {
            self.families.polls.with_label_values(&[provider, result]);
        }
        self.families.duration.with_label_values(&[provider]);
        self.families.trained.with_label_values(&[provider]);
        self.families.cost.with_label_values(&[provider]);
        self.families.held.with_label_values(&[provider]);
        self.families.silent.with_label_values(&[provider]);
    }

    /// Counts a job that has ended: how, how long it took from its creation, and the tokens that are billed.
    pub fn ended(&self, provider: &str, status: JobStatus, took: Duration, tokens: u64) {
        self.families.ended.with_label_values(&[provider, status.name()]).inc();
        self.families.duration.with_label_values(&[provider]).observe(took.as_secs_f64());
        self.families.trained.with_label_values(&[provider]).inc_by(tokens);
    }

    /// Says how many jobs there are, by provider and status; those that are not named are none.
    pub fn jobs(&self, counts: &BTreeMap<(Arc<str>, JobStatus), u64>) {
        let providers = self.providers.lock().clone();
        let none = providers.iter().flat_map(|provider| JobStatus::ALL.map(|status| ((provider, status), 0)));
        let mut rows: BTreeMap<(&Arc<str>, JobStatus), u64> = none.collect();
        rows.extend(counts.iter().map(|((provider, status), count)| ((provider, *status), *count)));
        let told = rows.into_iter().map(|((provider, status), count)| {
            let labels: [&str; 2] = [provider, status.name()];
            (labels, count as f64)
        });
        self.families.jobs.replace(told);
    }

    /// Says for how long the active job of a provider that is silent for longest has not changed; zero without one.
    pub fn silent(&self, provider: &str, time: Duration) {
        self.families.silent.with_label_values(&[provider]).set(time.as_secs_f64());
    }

    /// Says nothing more of how jobs stand: another process does. The highest of all processes' gauges is what is shown.
    pub fn stood_down(&self) {
        self.jobs(&BTreeMap::new());
        let providers = self.providers.lock().clone();
        for provider in &providers {
            self.held(provider, Usd::ZERO);
            self.silent(provider, Duration::ZERO);
        }
    }

    /// Counts an answer to the question how a job stands: `ok`, `refused`, `not_found`, `unreachable`.
    pub fn polled(&self, provider: &str, result: &'static str) {
        self.families.polls.with_label_values(&[provider, result]).inc();
    }

    /// Says what is held for a provider's jobs.
    pub fn held(&self, provider: &str, amount: Usd) {
        self.families.held.with_label_values(&[provider]).set(amount.into());
    }

    /// Says which files are kept, by status (`checking`, `processed`, `error`), and how much room they take of how much
    /// there is.
    pub fn files(&self, counts: &BTreeMap<&'static str, u64>, bytes: u64, limit: u64) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for status in FILES {
            let count = counts.get(status).copied().unwrap_or_default();
            self.families.files.with_label_values(&[status]).set(number(count));
        }
        self.families.bytes.set(number(bytes));
        self.families.limit.set(number(limit));
    }

    /// Counts a data set that was checked: `processed` or `error`.
    pub fn checked(&self, result: &'static str, took: Duration) {
        self.families.checks.with_label_values(&[result]).inc();
        self.families.check_duration.observe(took.as_secs_f64());
    }

    /// Counts what an entry spends on training.
    pub(super) fn spent(&self, entry: &Entry) {
        if entry.attribution.purpose == Purpose::Training {
            let provider = &*entry.attribution.provider;
            exact::add(&self.families.cost.with_label_values(&[provider]), entry.spends());
        }
    }

    /// Says how far a job is. It has series of its own until it is forgotten, while it is one of the first twenty.
    pub fn progress(&self, job: &str, progress: Progress) {
        let mut jobs = self.progress.lock();
        jobs.insert(job.into(), progress);
        self.tell(&jobs);
    }

    /// Takes a job's series away.
    pub fn forget(&self, job: &str) {
        let mut jobs = self.progress.lock();
        if jobs.remove(job).is_some() {
            self.tell(&jobs);
        }
    }

    fn tell(&self, jobs: &BTreeMap<Arc<str>, Progress>) {
        let all: Vec<Arc<str>> = jobs.keys().cloned().collect();
        let seated = self.seats.seated(&all);
        let told: Vec<(&str, &Progress)> = jobs
            .iter()
            .filter(|(job, _)| seated.contains(*job))
            .map(|(job, progress)| (&**job, progress))
            .collect();
        let infos = told.iter().map(|(job, now)| ([*job, &*now.provider, &*now.base], 1.0));
        self.families.info.replace(infos);
        let rows = |of: fn(&Progress) -> Option<f64>| {
            told.iter().filter_map(move |(job, now)| Some(([*job], of(now)?)))
        };
        self.families.step.replace(rows(|now| now.step.map(|step| step as f64)));
        self.families.steps.replace(rows(|now| now.steps.map(|steps| steps as f64)));
        self.families.train_loss.replace(rows(|now| now.train_loss));
        self.families.valid_loss.replace(rows(|now| now.valid_loss));
        self.families.accuracy.replace(rows(|now| now.token_accuracy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::Provider;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::ledger::{Attribution, EntryKind};

    fn tuning() -> (Registry, Tuning, IntCounter) {
        let registry = Registry::new();
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let tuning = Tuning::new(&registry, |_| overflows.clone()).expect("declared");
        (registry, tuning, overflows)
    }

    fn catalog(providers: &[&str]) -> Catalog {
        let like = &deployment("d", "gpt-4.1").provider;
        let of = |name: &&str| {
            let name: Arc<str> = (*name).into();
            (name.clone(), Arc::new(Provider { name, ..(**like).clone() }))
        };
        Catalog::new(providers.iter().map(of).collect(), BTreeMap::new(), Vec::new())
    }

    fn lines(registry: &Registry, name: &str) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of).map(|line| line[name.len()..].to_owned()).collect()
    }

    #[test]
    fn providers_begin_at_nothing_and_their_gauges_go_with_them() {
        let (registry, tuning, _) = tuning();
        tuning.born(&catalog(&["azure", "openai"]));
        assert_eq!(lines(&registry, "tunegate_tuning_jobs").len(), 2 * JobStatus::ALL.len());
        assert_eq!(lines(&registry, "tunegate_tuning_jobs_ended_total").len(), 2 * 3);
        tuning.silent("azure", Duration::from_millis(1_500));
        tuning.held("azure", Usd::from_nanos(2_400_000_001));
        let running = (Arc::from("azure"), JobStatus::Running);
        tuning.jobs(&BTreeMap::from([(running, 3)]));
        let azure = |rest: &str| format!(r#"{{provider="azure"}} {rest}"#);
        let openai = r#"{provider="openai"} 0"#.to_owned();
        assert_eq!(lines(&registry, "tunegate_tuning_silent_seconds"), [azure("1.5"), openai.clone()]);
        assert_eq!(lines(&registry, "tunegate_tuning_held_usd"), [azure("2.400000001"), openai.clone()]);
        let counts = lines(&registry, "tunegate_tuning_jobs");
        assert!(counts.contains(&r#"{provider="azure",status="running"} 3"#.to_owned()), "{counts:?}");
        tuning.born(&catalog(&["openai"]));
        assert_eq!(lines(&registry, "tunegate_tuning_silent_seconds"), std::slice::from_ref(&openai));
        assert_eq!(lines(&registry, "tunegate_tuning_held_usd"), [openai]);
        tuning.jobs(&BTreeMap::new());
        assert_eq!(lines(&registry, "tunegate_tuning_jobs").len(), JobStatus::ALL.len());
    }

    #[test]
    fn twenty_jobs_are_told_of_until_they_are_forgotten() {
        let (registry, tuning, overflows) = tuning();
        let at = |step: u64| Progress {
            provider: "openai".into(),
            base: "gpt-4.1-mini".into(),
            step: Some(step),
            train_loss: Some(0.25),
            ..Progress::default()
        };
        for job in 0..=MOST_JOBS {
            tuning.progress(&format!("ftjob-{job:02}"), at(7));
        }
        tuning.progress("ftjob-00", at(8));
        let steps = lines(&registry, "tunegate_tuning_job_step");
        assert_eq!((steps.len(), overflows.get()), (MOST_JOBS, 1));
        assert_eq!(steps[0], r#"{ftjob="ftjob-00"} 8"#);
        assert_eq!(lines(&registry, "tunegate_tuning_job_steps"), [""; 0], "nobody has said how many");
        let info = r#"{base="gpt-4.1-mini",ftjob="ftjob-00",provider="openai"} 1"#;
        assert_eq!(lines(&registry, "tunegate_tuning_job_info")[0], info);
        tuning.forget("ftjob-00");
        let steps = lines(&registry, "tunegate_tuning_job_step");
        assert_eq!(steps.len(), MOST_JOBS, "who had no seat has one now");
        assert_eq!(steps[MOST_JOBS - 1], format!(r#"{{ftjob="ftjob-{MOST_JOBS}"}} 7"#));
        for job in 0..=MOST_JOBS {
            tuning.forget(&format!("ftjob-{job:02}"));
        }
        assert_eq!(lines(&registry, "tunegate_tuning_job_step"), [""; 0]);
    }

    #[test]
    fn what_training_spends_is_exact() {
        let (registry, tuning, _) = tuning();
        for (purpose, nanos) in [
            (Purpose::Training, 2_400_000_000),
            (Purpose::Training, 1),
            (Purpose::Training, -5),
            (Purpose::Hosting, 7),
        ] {
            let on = Attribution { provider: "openai".into(), purpose, ..Attribution::default() };
            let entry = Entry::drafted(EntryKind::Usage, 0, "ftjob-1".into(), Arc::new(on));
            tuning.spent(&Entry { cost: Usd::from_nanos(nanos), ..entry });
        }
        let cost = lines(&registry, "tunegate_tuning_cost_usd_total");
        assert_eq!(cost, [r#"{provider="openai"} 2.400000001"#]);
    }
}
