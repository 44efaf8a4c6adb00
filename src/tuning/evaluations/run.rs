//! Who asks: one process of all that share a database, by its lease; a few evaluations at once, in the order in which they
//! were asked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use super::ask::{Asked, Given, Whom, halts_within};
use super::plan::Plan;
use super::rows::{self, Drawn, NotDrawn};
use super::trouble::{Patience, wrong};
use super::{EvaluationError, Evaluations, plan_of};
use crate::clock;
use crate::domain::evaluation::general::{self, Question};
use crate::domain::evaluation::measure::scores;
use crate::domain::evaluation::report::{Facts, Source};
use crate::domain::evaluation::{Kept, Measure, Part, Report, Schema, Scores};
use crate::domain::money::Usd;
use crate::gateway::admit::Admitted;
use crate::store::StoreError;
use crate::store::evaluations::{AnswerRow, Ended, EvaluationRow, EvaluationStatus};

/// Between two looks for an evaluation that waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks whether it is still wanted.
const WANTED_EVERY: Duration = Duration::from_millis(500);
/// After the database has failed, before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why no more questions are asked.
enum Over {
    /// Nobody wants it any more.
    Cancelled,
    /// It can't go on: why.
    Failed(String),
}

/// An evaluation that is being asked.
pub(super) struct Work<'w> {
    pub(super) row: &'w EvaluationRow,
    pub(super) plan: Plan,
    pub(super) payer: Admitted,
    pub(super) drawn: Drawn,
    pub(super) questions: Vec<Question>,
    pub(super) schema: Option<Schema>,
    pub(super) halt: &'w watch::Receiver<bool>,
    over: Mutex<Option<Over>>,
    /// Whether the lease was lost on the way.
    lost: AtomicBool,
}

/// What those who ask in this process know of each other.
#[derive(Default)]
struct Shared {
    /// The evaluations that somebody asks. Held while the next one is chosen, so that none is asked twice.
    taken: tokio::sync::Mutex<BTreeSet<String>>,
    patience: Mutex<Patience>,
}

/// A question, and the number of the model that it is for.
#[derive(Debug, Clone, Copy)]
struct Task {
    part: Part,
    row: u32,
    model: usize,
}

impl Evaluations {
    /// Asks until `stop`; whoever runs this owns it. What is being asked by then is still answered.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (sender, halt) = watch::channel(false);
        let lead = async {
            tokio::select! {
                () = stop => {}
                () = self.beat() => {}
            }
            sender.send_replace(true);
            self.wake.notify_one();
        };
        let shared = Shared::default();
        let all = join_all((0..self.at_once).map(|_| self.work(&halt, &shared)));
        tokio::join!(lead, all);
        self.lease.free().await;
    }

    /// Keeps the lease, for ever.
    async fn beat(&self) {
        loop {
            match self.lease.keep(clock::monotonic()).await {
                Ok(leads) => self.tell_standing(leads).await,
                Err(error) => tracing::debug!(%error, "the lease of who evaluates can't be kept right now"),
            }
            sleep(self.lease.beat_every()).await;
        }
    }

    /// Says in the metrics how many have not ended; who has no lease says nothing.
    async fn tell_standing(&self, leads: bool) {
        if !leads {
            return self.metrics.evaluations.stood_down();
        }
        if let Ok(counts) = self.rows.count().await {
            self.metrics.evaluations.stand(counts.into_iter().map(|(status, count)| (status.name(), count)));
        }
    }

    /// Takes one evaluation after the other.
    async fn work(&self, halt: &watch::Receiver<bool>, shared: &Shared) {
        while !*halt.borrow() {
            if !self.lease.is_ours(clock::monotonic()) {
                // whoever asks meanwhile may get on
                *shared.patience.lock() = Patience::default();
                self.wait(halt).await;
                continue;
            }
            match self.take(shared).await {
                Ok(Some(row)) => {
                    match Box::pin(self.carry_out(&row, shared, halt)).await {
                        Ok(()) => shared.patience.lock().renewed(&row.id),
                        Err(error) => {
                            self.stumbles(&row.id, &error, &shared.patience).await;
                            // it is nobody else's either for so long: those behind it go on
                            halts_within(halt, AFTER_FAILURE).await;
                        }
                    }
                    shared.taken.lock().await.remove(&row.id);
                }
                Ok(None) => self.wait(halt).await,
                Err(StoreError::Damaged(id)) => {
                    let error = StoreError::Damaged(id.clone()).into();
                    self.stumbles(&id, &error, &shared.patience).await;
                    halts_within(halt, AFTER_FAILURE).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "evaluations that wait can't be read; it is tried again");
                    self.wait(halt).await;
                }
            }
        }
    }

    /// The next evaluation that nobody asks yet.
    async fn take(&self, shared: &Shared) -> Result<Option<EvaluationRow>, StoreError> {
        let mut taken = shared.taken.lock().await;
        let row = self.rows.next(&taken).await?;
        taken.extend(row.as_ref().map(|row| row.id.clone()));
        Ok(row)
    }

    async fn wait(&self, halt: &watch::Receiver<bool>) {
        tokio::select! {
            () = self.wake.notified() => {}
            _ = halts_within(halt, LOOK_EVERY) => {}
        }
    }

    /// Takes an evaluation as far as it goes.
    async fn carry_out(
        &self,
        row: &EvaluationRow,
        shared: &Shared,
        halt: &watch::Receiver<bool>,
    ) -> Result<(), EvaluationError> {
        if row.is_cancelled {
            return self.ended(row, &Over::Cancelled).await;
        }
        self.rows.begin(&row.id, clock::unix_ms()).await?;
        let plan = plan_of(row)?;
        let payer = self.admitted(&plan.payer).await?;
        self.are_known(&plan)?;
        let drawn = self.drawn(&plan).await?;
        shared.patience.lock().renewed(&row.id);
        let work = Work {
            row,
            questions: if plan.general { general::questions() } else { Vec::new() },
            schema: plan.schema(),
            plan,
            payer,
            drawn,
            halt,
            over: Mutex::default(),
            lost: AtomicBool::new(false),
        };
        self.ask_all(&work).await?;
        if work.stands_still() {
            // whoever has the lease next goes on
            return Ok(());
        }
        let over = work.over.lock().take();
        match over {
            Some(over) => self.ended(row, &over).await,
            None => self.report_on(work).await,
        }
    }

    /// The rows that are asked.
    async fn drawn(&self, plan: &Plan) -> Result<Drawn, EvaluationError> {
        let Some(id) = &plan.file else { return Ok(Drawn { cases: Vec::new(), of: 0 }) };
        let file = self.files.held(id).await?;
        let (path, seed, most) = (self.files.path(&file).await?, plan.seed, plan.rows);
        match tokio::task::spawn_blocking(move || rows::draw(&path, seed, most)).await {
            Ok(Ok(drawn)) => Ok(drawn),
            // it could be asked when the evaluation was made: by other rules than ours
            Ok(Err(NotDrawn::Row(why))) => Err(wrong("file", format!("nothing can be asked of it: {why}"))),
            Ok(Err(NotDrawn::Disk(error))) => Err(super::create::unreadable(&error)),
            Err(error) => Err(super::create::unreadable(&error)),
        }
    }

    /// Asks what has no answer yet, then the judge.
    async fn ask_all(&self, work: &Work<'_>) -> Result<(), StoreError> {
        let mut cancels = self.cancels.subscribe();
        let watched = async {
            while !self.rows.is_cancelled(&work.row.id).await.unwrap_or(false) {
                tokio::select! {
                    () = sleep(WANTED_EVERY) => {}
                    _ = cancels.changed() => {}
                }
            }
            *work.over.lock() = Some(Over::Cancelled);
        };
        let asked = async {
            let kept = self.rows.answers(&work.row.id).await?;
            let there: BTreeSet<(Part, u32, usize)> =
                kept.iter().map(|one| (one.kept.part, one.kept.row, one.kept.model)).collect();
            let left =
                work.tasks().into_iter().filter(|task| !there.contains(&(task.part, task.row, task.model)));
            let at_once = usize::try_from(work.plan.concurrency).unwrap_or(1);
            stream::iter(left).for_each_concurrent(at_once, |task| self.answer(work, task)).await;
            if let Some(judge) = &work.plan.judge
                && !work.is_over()
            {
                self.judge_all(work, judge).await?;
            }
            Ok(())
        };
        // what is being asked when it is cancelled is paid for: its answer is waited for
        let mut asked = std::pin::pin!(asked);
        tokio::select! {
            done = &mut asked => done,
            () = watched => asked.await,
        }
    }

    /// Asks one question of one model, and keeps what comes.
    async fn answer(&self, work: &Work<'_>, task: Task) {
        if work.is_over() || !self.may_ask(work) {
            return;
        }
        let candidate = &work.plan.models[task.model];
        let whom = Whom {
            model: &candidate.model,
            only: candidate.only.as_ref(),
            payer: &work.payer,
            temperature: work.plan.temperature,
            most_tokens: work.plan.max_output_tokens,
        };
        let row = task.row as usize;
        let asked = match task.part {
            Part::General => self.ask(whom, &work.questions[row].asked(), work.halt).await,
            Part::HeldOut | Part::Judge => self.ask(whom, &work.drawn.cases[row].asked, work.halt).await,
            Part::Loss => match work.drawn.cases[row].told() {
                Some(told) => self.score(whom, &told, work.halt).await,
                None => return,
            },
        };
        let measured = |answer: &AnswerRow| match task.part {
            Part::General => {
                let said = answer.said.as_ref();
                let is_right = said.is_some_and(|said| work.questions[row].is_answered_by(&said.text));
                Scores::from([(Measure::General, if is_right { 1.0 } else { 0.0 })])
            }
            Part::HeldOut | Part::Judge => {
                scores(&work.drawn.cases[row], answer.said.as_ref(), work.schema.as_ref())
            }
            // what did not come is not measured: no number is the worst
            Part::Loss => answer.kept.scores.clone(),
        };
        let Task { part, row, model } = task;
        if let Some(mut answer) = work.kept(part, row, model, asked) {
            answer.kept.scores = measured(&answer);
            if !work.keeps_words() {
                answer.said = None;
            }
            self.metrics.evaluations.answered(answer.kept.failed.is_none());
            self.keep(work, &answer).await;
        }
    }

    /// Whether it is still this process's to ask.
    pub(super) fn may_ask(&self, work: &Work<'_>) -> bool {
        let ours = self.lease.is_ours(clock::monotonic());
        if !ours {
            work.lost.store(true, Ordering::Relaxed);
        }
        ours
    }

    /// Writes an answer that was paid for; tries for as long as the process lives.
    pub(super) async fn keep(&self, work: &Work<'_>, answer: &AnswerRow) {
        while let Err(error) = self.rows.keep(&work.row.id, answer).await {
            tracing::warn!(%error, evaluation = work.row.id, "an answer can't be kept right now; it is tried again");
            if halts_within(work.halt, AFTER_FAILURE).await {
                return;
            }
        }
    }

    async fn report_on(&self, work: Work<'_>) -> Result<(), EvaluationError> {
        let kept: Vec<Kept> =
            self.rows.answers(&work.row.id).await?.into_iter().map(|one| one.kept).collect();
        let (id, plan, questions) = (work.row.id.clone(), work.plan.clone(), work.questions);
        let source = plan.file.clone().zip(plan.sha256.clone()).map(|(id, sha256)| Source {
            id,
            sha256,
            rows: work.drawn.cases.len() as u64,
            of: work.drawn.of,
        });
        // thousands of rows are drawn from again and again
        let drawing = tokio::task::spawn_blocking(move || {
            let models: Vec<Arc<str>> = plan.models.iter().map(|one| Arc::clone(&one.name)).collect();
            let scored: Vec<bool> = plan.models.iter().map(|one| one.scored).collect();
            let facts = Facts {
                evaluation: &id,
                file: source,
                general: &questions,
                seed: plan.seed,
                models: &models,
                judge: plan.judge.as_ref().map(|judge| &judge.model),
                loss: plan.loss.then_some(&*scored),
                gate: &plan.gate(),
            };
            Report::of(facts, &kept)
        });
        match drawing.await {
            Ok(report) => {
                for verdict in &report.gate {
                    self.metrics.evaluations.judged(verdict.passed);
                }
                self.end(work.row, EvaluationStatus::Succeeded, String::new(), Some(report)).await
            }
            Err(error) => {
                self.ended(work.row, &Over::Failed(format!("no report could be made: {error}"))).await
            }
        }
    }

    async fn ended(&self, row: &EvaluationRow, over: &Over) -> Result<(), EvaluationError> {
        match over {
            Over::Cancelled => self.end(row, EvaluationStatus::Cancelled, String::new(), None).await,
            Over::Failed(why) => self.end(row, EvaluationStatus::Failed, why.clone(), None).await,
        }
    }

    async fn end(
        &self,
        row: &EvaluationRow,
        status: EvaluationStatus,
        why: String,
        report: Option<Report>,
    ) -> Result<(), EvaluationError> {
        let keeps_words = plan_of(row).is_ok_and(|plan| plan.keep_answers);
        let ended = Ended { status, why, report, keeps_words, at_ms: clock::unix_ms() };
        Ok(self.close(&row.id, &ended).await?)
    }

    /// Writes how one ended.
    pub(super) async fn close(&self, id: &str, ended: &Ended) -> Result<(), StoreError> {
        if self.rows.end(id, ended).await? {
            let status = ended.status.name();
            self.metrics.evaluations.ended(status);
            tracing::info!(evaluation = id, status, why = ended.why, "an evaluation has ended");
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Every question, each model in turn, so that all are asked under the same conditions.
    fn tasks(&self) -> Vec<Task> {
        let held_out = (0..self.drawn.cases.len()).map(|row| (Part::HeldOut, row));
        let general = (0..self.questions.len()).map(|row| (Part::General, row));
        let scorable = if self.plan.loss { self.drawn.scorable().collect() } else { Vec::new() };
        let loss = scorable.into_iter().map(|row| (Part::Loss, row));
        let models = &self.plan.models;
        let tasks = held_out.chain(general).chain(loss).flat_map(|(part, row)| {
            let row = u32::try_from(row).unwrap_or(u32::MAX);
            let asked = models.iter().enumerate().filter(move |(_, one)| part != Part::Loss || one.scored);
            asked.map(move |(model, _)| Task { part, row, model })
        });
        tasks.collect()
    }

    /// Whether words are needed once they are measured.
    const fn keeps_words(&self) -> bool {
        self.plan.keep_answers || self.plan.judge.is_some()
    }

    /// Whether the process ends, or the lease is another's.
    fn stands_still(&self) -> bool {
        *self.halt.borrow() || self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.stands_still() || self.over.lock().is_some()
    }

    /// Nothing known yet.
    pub(super) const fn blank(&self) -> Kept {
        Kept {
            part: Part::HeldOut,
            row: 0,
            model: 0,
            scores: Scores::new(),
            failed: None,
            deployment: None,
            latency_ms: 0,
            cost: Usd::ZERO,
            prompt_tokens: 0,
            completion_tokens: 0,
        }
    }

    /// What is to be kept of what became of a question; nothing where it is to be asked again, or nothing more is.
    pub(super) fn kept(&self, part: Part, row: u32, model: usize, asked: Asked) -> Option<AnswerRow> {
        let blank = Kept { part, row, model, ..self.blank() };
        match asked {
            Asked::Answered(answer) => {
                let (said, scores) = match answer.given {
                    Given::Said(said) => (Some(said), Scores::new()),
                    Given::Loss(loss) => (None, Scores::from([(Measure::Loss, loss)])),
                };
                let kept = Kept {
                    scores,
                    deployment: answer.deployment,
                    latency_ms: u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
                    cost: answer.cost,
                    prompt_tokens: answer.tokens.prompt,
                    completion_tokens: answer.tokens.completion,
                    ..blank
                };
                Some(AnswerRow { kept, said })
            }
            Asked::Failed(why, cost) => {
                Some(AnswerRow { kept: Kept { failed: Some(why), cost, ..blank }, said: None })
            }
            Asked::Never(why) => {
                self.over.lock().get_or_insert(Over::Failed(why));
                None
            }
            Asked::Halted => None,
        }
    }
}
