//! What an evaluation found: quality with its intervals, cost and speed of each model, and each compared with the base row
//! by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::gate::{Gate, Verdict};
use super::general::Question;
use super::interval::{Estimate, percentile};
use super::measure::{Measure, Scores};
use crate::domain::money::Usd;

/// What is said of a measure that a model's provider can't tell.
pub const NOT_AVAILABLE: &str = "not available at this provider";
/// Reasons of failures that are told of a model.
const TOLD_FAILURES: usize = 3;

/// A set of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The rows of the file.
    HeldOut,
    /// The general set.
    General,
    /// The judge's marks.
    Judge,
    /// How likely the known answers of the file are.
    Loss,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HeldOut, Self::General, Self::Judge, Self::Loss];

    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeldOut => "held_out",
            Self::General => "general",
            Self::Judge => "judge",
            Self::Loss => "loss",
        }
    }

    /// Whether it is of answers that the models gave.
    const fn is_answered(self) -> bool {
        matches!(self, Self::HeldOut | Self::General)
    }

    /// Reads back what [`Part::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Which set its question is of.
    pub part: Part,
    /// The question's number in it.
    pub row: u32,
    /// The number of the model. A judge's mark is kept for each model; what it cost, with that of the first.
    pub model: usize,
    /// What it was measured at.
    pub scores: Scores,
    /// Why there is no answer.
    pub failed: Option<String>,
    /// Which deployment answered.
    pub deployment: Option<Arc<str>>,
    /// How long that took, ms.
    pub latency_ms: u64,
    /// What it cost, tries that failed included.
    pub cost: Usd,
    /// Tokens asked.
    pub prompt_tokens: u64,
    /// Tokens answered.
    pub completion_tokens: u64,
}

/// Whether the others are compared with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// They are: it was named first.
    Base,
    /// It is compared.
    Challenger,
}

/// How long answers took, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_ms: Option<u64>,
    /// 95 of a hundred took no longer.
    pub p95_ms: Option<u64>,
}

/// What was found of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Its name, as it was asked for.
    pub model: Arc<str>,
    /// What it is in the comparison.
    pub role: Role,
    /// Questions that it was asked.
    pub asked: u64,
    /// Questions that it has not answered; each counts as wrong.
    pub failed: u64,
    /// Why, the first few.
    pub failures: Vec<String>,
    /// Which deployments have answered, and how often.
    pub deployments: BTreeMap<Arc<str>, u64>,
    /// Its quality.
    pub measures: BTreeMap<Measure, Estimate>,
    /// Its quality on the general set, by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub general: BTreeMap<String, Estimate>,
    /// How its loss was found, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossReport>,
    /// How long its answers took.
    pub latency: Latency,
    /// What all of it cost.
    pub cost_usd: Usd,
    /// What a thousand answers cost; rounded up.
    pub usd_per_1000: Option<Usd>,
    /// Tokens asked.
    pub prompt_tokens: u64,
    /// Tokens answered.
    pub completion_tokens: u64,
}

/// What finding a model's loss came to; the loss itself is among its measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossReport {
    /// Whether its provider can tell it. Only local workers can.
    pub available: bool,
    /// e to the power of its loss: among so many tokens it might as well have thrown a die.
    pub perplexity: Option<Estimate>,
    /// Rows whose loss did not come.
    pub unmeasured: u64,
    /// Why, the first few.
    pub failures: Vec<String>,
    /// What all of it cost; not in what its answers cost.
    pub cost_usd: Usd,
}

/// A model beside the base, over the rows that both were measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model.
    pub model: Arc<str>,
    /// What was measured.
    pub measure: Measure,
    /// The model's figure less the base's, row by row.
    pub difference: Estimate,
    /// Rows on which the model is better.
    pub better: u64,
    /// Rows on which it is worse.
    pub worse: u64,
}

/// What the judge did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// Its model.
    pub model: Arc<str>,
    /// Rows that it marked.
    pub marked: u64,
    /// Rows whose marks could not be read, or never came.
    pub unmarked: u64,
    /// What that cost.
    pub cost_usd: Usd,
}

/// Where the rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's id.
    pub id: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Rows that were drawn.
    pub rows: u64,
    /// Rows that it has.
    pub of: u64,
}

/// All that was found. Reports of an earlier version are read, too: a member that is added has a `serde(default)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The evaluation's id.
    pub evaluation: String,
    /// The held-out file.
    pub file: Option<Source>,
    /// Questions of the general set.
    pub general: u64,
    /// What rows and orders were drawn by.
    pub seed: u64,
    /// The models; the base first.
    pub models: Vec<ModelReport>,
    /// Each model beside the base.
    pub comparisons: Vec<Comparison>,
    /// The judge, where there was one.
    pub judge: Option<JudgeReport>,
    /// How each model but the base came out of the gate; where there is only one model, that one.
    pub gate: Vec<Verdict>,
    /// What all of it cost.
    pub cost_usd: Usd,
}

/// What a report is made of, beside the answers.
#[derive(Debug)]
pub struct Facts<'f> {
    /// The evaluation's id.
    pub evaluation: &'f str,
    /// The held-out file.
    pub file: Option<Source>,
    /// The general set, where it was asked.
    pub general: &'f [Question],
    /// What rows and orders were drawn by.
    pub seed: u64,
    /// The models; the base first.
    pub models: &'f [Arc<str>],
    /// The judge's model.
    pub judge: Option<&'f Arc<str>>,
    /// Whether each model's provider can tell its loss, where that was asked for.
    pub loss: Option<&'f [bool]>,
    /// What is asked of them.
    pub gate: &'f Gate,
}

impl Report {
    /// Puts all answers together.
    pub fn of(facts: Facts<'_>, kept: &[Kept]) -> Self {
        let models: Vec<ModelReport> =
            (0..facts.models.len()).map(|at| model_report(&facts, at, kept)).collect();
        let comparisons = (1..models.len()).flat_map(|at| compared(&facts, at, kept)).collect();
        let judge = facts.judge.map(|model| judge_report(model, kept));
        let cost_usd = kept.iter().map(|one| one.cost).sum();
        let mut report = Self {
            evaluation: facts.evaluation.to_owned(),
            file: facts.file,
            general: facts.general.len() as u64,
            seed: facts.seed,
            models,
            comparisons,
            judge,
            gate: Vec::new(),
            cost_usd,
        };
        if !facts.gate.is_empty() {
            let names = facts.models.iter().skip(usize::from(facts.models.len() > 1));
            report.gate = names.filter_map(|name| facts.gate.judge(&report, name)).collect();
        }
        report
    }

    /// The model that the others are compared with.
    pub fn base(&self) -> Option<&ModelReport> {
        self.models.first()
    }
}

/// The answers of a model itself.
fn answers(kept: &[Kept], model: usize) -> impl Iterator<Item = &Kept> {
    kept.iter().filter(move |one| one.model == model && one.part.is_answered())
}

/// The first few reasons, each once.
fn reasons<'k>(of: impl Iterator<Item = &'k Kept>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for why in of.filter_map(|one| one.failed.as_ref()) {
        if told.len() < TOLD_FAILURES && !told.contains(why) {
            told.push(why.clone());
        }
    }
    told
}

/// A measure of a model by question.
fn measured(kept: &[Kept], model: usize, measure: Measure) -> BTreeMap<(Part, u32), f64> {
    let of = kept.iter().filter(|one| one.model == model);
    of.filter_map(|one| Some(((one.part, one.row), *one.scores.get(&measure)?))).collect()
}

fn estimate(measure: Measure, values: &[f64], seed: u64) -> Option<Estimate> {
    match measure.is_yes_or_no() {
        true => Estimate::of_share(values),
        false => Estimate::of_mean(values, seed),
    }
}

fn model_report(facts: &Facts<'_>, at: usize, kept: &[Kept]) -> ModelReport {
    let asked = answers(kept, at).count() as u64;
    let mut deployments: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for deployment in answers(kept, at).filter_map(|one| one.deployment.as_ref()) {
        *deployments.entry(Arc::clone(deployment)).or_default() += 1;
    }
    let measures = Measure::ALL.into_iter().filter_map(|measure| {
        let values: Vec<f64> = measured(kept, at, measure).into_values().collect();
        Some((measure, estimate(measure, &values, facts.seed)?))
    });
    let measures: BTreeMap<Measure, Estimate> = measures.collect();
    let failed = answers(kept, at).filter(|one| one.failed.is_some()).count() as u64;
    let answered = asked - failed;
    let cost_usd: Usd = answers(kept, at).map(|one| one.cost).sum();
    ModelReport {
        model: Arc::clone(&facts.models[at]),
        role: if at == 0 { Role::Base } else { Role::Challenger },
        asked,
        failed,
        failures: reasons(answers(kept, at)),
        deployments,
        loss: loss_report(facts, at, kept, measures.get(&Measure::Loss)),
        measures,
        general: by_language(facts.general, kept, at),
        latency: latency(kept, at),
        cost_usd,
        usd_per_1000: per_1000(cost_usd, answered),
        prompt_tokens: answers(kept, at).map(|one| one.prompt_tokens).sum(),
        completion_tokens: answers(kept, at).map(|one| one.completion_tokens).sum(),
    }
}

fn loss_report(facts: &Facts<'_>, at: usize, kept: &[Kept], loss: Option<&Estimate>) -> Option<LossReport> {
    let available = *facts.loss?.get(at)?;
    let of = || kept.iter().filter(move |one| one.model == at && one.part == Part::Loss);
    Some(LossReport {
        available,
        perplexity: loss.map(|loss| loss.through(f64::exp)),
        unmeasured: of().filter(|one| one.failed.is_some()).count() as u64,
        failures: reasons(of()),
        cost_usd: of().map(|one| one.cost).sum(),
    })
}

/// What a thousand answers cost, rounded up; none where there is no answer.
fn per_1000(cost: Usd, answered: u64) -> Option<Usd> {
    let answered = i128::from(answered);
    let nanos = (i128::from(cost.nanos()) * 1_000 + answered - 1).checked_div(answered)?;
    Some(Usd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)))
}

fn latency(kept: &[Kept], model: usize) -> Latency {
    let answered = answers(kept, model).filter(|one| one.failed.is_none());
    let mut took: Vec<u64> = answered.map(|one| one.latency_ms).collect();
    took.sort_unstable();
    Latency { p50_ms: percentile(&took, 500), p95_ms: percentile(&took, 950) }
}

fn by_language(questions: &[Question], kept: &[Kept], model: usize) -> BTreeMap<String, Estimate> {
    let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for ((_, row), value) in measured(kept, model, Measure::General) {
        if let Some(question) = questions.get(row as usize) {
            values.entry(question.language.name()).or_default().push(value);
        }
    }
    let of = |(name, values): (&str, Vec<f64>)| Some((name.to_owned(), Estimate::of_share(&values)?));
    values.into_iter().filter_map(of).collect()
}

/// A model beside the base, in each measure that both have.
fn compared(facts: &Facts<'_>, at: usize, kept: &[Kept]) -> Vec<Comparison> {
    let of = |measure: Measure| {
        let (base, own) = (measured(kept, 0, measure), measured(kept, at, measure));
        let differences: Vec<f64> =
            own.iter().filter_map(|(question, value)| Some(value - base.get(question)?)).collect();
        let count =
            |is: fn(&f64) -> bool| differences.iter().filter(|difference| is(difference)).count() as u64;
        let (higher, lower) = (count(|difference| *difference > 0.0), count(|difference| *difference < 0.0));
        let (better, worse) = if measure.is_better_lower() { (lower, higher) } else { (higher, lower) };
        Some(Comparison {
            model: Arc::clone(&facts.models[at]),
            measure,
            difference: Estimate::of_mean(&differences, facts.seed)?,
            better,
            worse,
        })
    };
    Measure::ALL.into_iter().filter_map(of).collect()
}

fn judge_report(model: &Arc<str>, kept: &[Kept]) -> JudgeReport {
    // the entry of the first model stands for the row
    let judged = || kept.iter().filter(|one| one.part == Part::Judge && one.model == 0);
    let unmarked = judged().filter(|one| one.failed.is_some()).count() as u64;
    JudgeReport {
        model: Arc::clone(model),
        marked: judged().count() as u64 - unmarked,
        unmarked,
        cost_usd: judged().map(|one| one.cost).sum(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn kept(model: usize, row: u32, exact: f64) -> Kept {
        Kept {
            part: Part::HeldOut,
            row,
            model,
            scores: Scores::from([(Measure::Exact, exact)]),
            failed: None,
            deployment: Some("d".into()),
            latency_ms: 10 * (model as u64 + 1),
            cost: Usd::from_nanos(10_000),
            prompt_tokens: 3,
            completion_tokens: 2,
        }
    }

    /// Ten rows: the model `old` answers so many exactly, each `new-N` loses and wins so many against it.
    pub(in super::super) fn report(right: u32, others: &[(u32, u32)]) -> Report {
        let yes = |is: bool| if is { 1.0 } else { 0.0 };
        let mut all: Vec<Kept> = (0..10).map(|row| kept(0, row, yes(row < right))).collect();
        for (at, (lost, won)) in others.iter().enumerate() {
            let is = |row: u32| (row >= *lost && row < right) || (row >= right && row < right + won);
            all.extend((0..10).map(|row| kept(at + 1, row, yes(is(row)))));
        }
        let names = (0..others.len()).map(|at| Arc::from(format!("new-{at}")));
        let models: Vec<Arc<str>> = std::iter::once("old".into()).chain(names).collect();
        Report::of(facts(&models, &Gate::default()), &all)
    }

    fn facts<'f>(models: &'f [Arc<str>], gate: &'f Gate) -> Facts<'f> {
        Facts {
            evaluation: "eval_1",
            file: None,
            general: &[],
            seed: 7,
            models,
            judge: None,
            loss: None,
            gate,
        }
    }

    /// Models `m0`, `m1`, … whose known answers have these losses, where their providers tell them.
    pub(in super::super) fn losses(of: &[[f64; 3]], available: &[bool]) -> Report {
        let mut all: Vec<Kept> = (0..of.len()).map(|model| kept(model, 0, 1.0)).collect();
        for (model, losses) in of.iter().enumerate().filter(|(model, _)| available[*model]) {
            for (row, loss) in (0..).zip(losses) {
                let scores = Scores::from([(Measure::Loss, *loss)]);
                all.push(Kept { part: Part::Loss, scores, ..kept(model, row, 0.0) });
            }
        }
        let models: Vec<Arc<str>> = (0..of.len()).map(|at| format!("m{at}").into()).collect();
        let gate = Gate::default();
        Report::of(Facts { loss: Some(available), ..facts(&models, &gate) }, &all)
    }

    #[test]
    fn loss_stands_beside_the_answers_and_is_no_answer() {
        let mut found = losses(&[[2.0, 3.0, 1.0], [1.0, 2.0, 1.5], [0.0; 3]], &[true, true, false]);
        let of = &found.models[0];
        assert_eq!((of.asked, of.prompt_tokens, of.cost_usd.nanos()), (1, 3, 10_000), "of answers only");
        assert_eq!((of.measures[&Measure::Loss].value, of.measures[&Measure::Loss].rows), (2.0, 3));
        let loss = of.loss.clone().expect("asked for");
        let perplexity = loss.perplexity.expect("measured");
        assert!((perplexity.value - 2.0_f64.exp()).abs() < 1e-5 && perplexity.low < perplexity.value);
        assert_eq!((loss.available, loss.unmeasured, loss.cost_usd.nanos()), (true, 0, 30_000));
        assert_eq!(found.cost_usd.nanos(), 9 * 10_000, "all of it");
        let compared = found.comparisons.iter().find(|one| one.measure == Measure::Loss).expect("compared");
        assert_eq!((compared.better, compared.worse, compared.difference.value), (2, 1, -0.5));
        let elsewhere = found.models.remove(2);
        assert!(!elsewhere.measures.contains_key(&Measure::Loss), "never 0");
        assert!(!elsewhere.loss.expect("asked for").available);
        assert_eq!(report(8, &[]).models[0].loss, None, "nobody has asked");

        let too_long = Some("too long".to_owned());
        let lost = Kept { part: Part::Loss, failed: too_long, scores: Scores::new(), ..kept(0, 1, 0.0) };
        let (names, gate) = (["m".into()], Gate::default());
        let facts = Facts { loss: Some(&[true]), ..facts(&names, &gate) };
        let found = Report::of(facts, &[kept(0, 0, 1.0), lost]);
        let loss = found.models[0].loss.clone().expect("asked for");
        assert_eq!((loss.unmeasured, loss.perplexity, loss.failures.len()), (1, None, 1));
        assert_eq!(found.models[0].failed, 0, "its answer came");
    }

    #[test]
    fn quality_cost_and_speed_stand_beside_each_other() {
        let found = report(8, &[(2, 1)]);
        let new = &found.models[1];
        assert_eq!((new.asked, new.failed, new.role), (10, 0, Role::Challenger));
        assert_eq!((new.measures[&Measure::Exact].value, new.measures.len()), (0.7, 1));
        assert_eq!(new.latency, Latency { p50_ms: Some(20), p95_ms: Some(20) });
        assert_eq!((new.cost_usd.nanos(), new.usd_per_1000), (100_000, Some(Usd::from_nanos(10_000_000))));
        assert_eq!((new.prompt_tokens, new.completion_tokens, new.deployments["d"]), (30, 20, 10));
        let [compared] = &found.comparisons[..] else { panic!("{:?}", found.comparisons) };
        assert_eq!((compared.better, compared.worse, compared.difference.value), (1, 2, -0.1));
        assert_eq!(found.cost_usd.nanos(), 200_000);
    }

    #[test]
    fn what_went_unanswered_counts_as_wrong_and_is_told() {
        let mut all: Vec<Kept> = (0..4).map(|row| kept(0, row, 1.0)).collect();
        all[3].failed = Some("too long".to_owned());
        all[3].scores.insert(Measure::Exact, 0.0);
        let report = Report::of(facts(&["m".into()], &Gate::default()), &all);
        let model = &report.models[0];
        assert_eq!((model.failed, model.failures.as_slice()), (1, &["too long".to_owned()][..]));
        assert_eq!(model.measures[&Measure::Exact].value, 0.75);
        assert_eq!(model.usd_per_1000, Some(Usd::from_nanos(13_333_334)), "of the three that came");
    }

    #[test]
    fn a_gate_is_for_all_but_the_base_or_for_the_only_one() {
        let gate = Gate::new(vec!["min exact 0.9".parse().expect("a rule")]);
        let all: Vec<Kept> = (0..3).flat_map(|model| [kept(model, 0, 1.0)]).collect();
        let passed = |models: &[Arc<str>]| -> Vec<String> {
            let report = Report::of(facts(models, &gate), &all);
            report.gate.iter().map(|verdict| format!("{} {}", verdict.model, verdict.passed)).collect()
        };
        assert_eq!(passed(&["a".into()]), ["a true"]);
        assert_eq!(passed(&["a".into(), "b".into(), "c".into()]), ["b true", "c true"]);
    }

    #[test]
    fn a_report_of_the_first_version_is_read() {
        let text = r#"{"evaluation":"eval_1","file":{"id":"file-1","sha256":"ab","rows":1,"of":2},"general":0,"seed":0,
            "models":[{"model":"a","role":"base","asked":1,"failed":0,"failures":[],"deployments":{"d":1},"measures":{
            "exact":{"value":1.0,"low":0.2,"high":1.0,"rows":1}},"latency":{"p50_ms":5,"p95_ms":5},"cost_usd":0.1,
            "usd_per_1000":100.0,"prompt_tokens":1,"completion_tokens":1}],"comparisons":[],"judge":{"model":"j","marked":1,
            "unmarked":0,"cost_usd":0.0},"gate":[{"model":"a","passed":true,"rules":[{"rule":"min exact 0","passed":true,
            "words":"1"}]}],"cost_usd":0.1}"#;
        let report: Report = serde_json::from_str(text).expect("a report");
        assert_eq!((report.models[0].asked, report.gate[0].passed), (1, true));
    }

    #[test]
    fn a_report_survives_being_written() {
        let found = report(8, &[(2, 1), (0, 0)]);
        let text = serde_json::to_string(&found).expect("JSON");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), found);
    }
}
