//! The judge of an evaluation at work: row by row, once all models have answered.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::Evaluations;
use super::ask::Whom;
use super::plan::Judge;
use super::run::Work;
use crate::domain::evaluation::{Case, Kept, Measure, Part, Said, Scores, judge};
use crate::store::StoreError;
use crate::store::evaluations::AnswerRow;

impl Evaluations {
    /// Has every row marked that is not yet.
    pub(super) async fn judge_all(&self, work: &Work<'_>, by: &Judge) -> Result<(), StoreError> {
        let kept = self.rows.answers(&work.row.id).await?;
        let marked: BTreeSet<u32> = kept
            .iter()
            .filter(|one| one.kept.part == Part::Judge && one.kept.model == 0)
            .map(|one| one.kept.row)
            .collect();
        let mut answers: BTreeMap<u32, BTreeMap<usize, Said>> = BTreeMap::new();
        for one in kept.into_iter().filter(|one| one.kept.part == Part::HeldOut && one.kept.failed.is_none())
        {
            if let Some(said) = one.said {
                answers.entry(one.kept.row).or_default().insert(one.kept.model, said);
            }
        }
        let rows = 0..u32::try_from(work.drawn.cases.len()).unwrap_or(u32::MAX);
        let left = rows.filter(|row| !marked.contains(row));
        let at_once = usize::try_from(work.plan.concurrency).unwrap_or(1);
        let none = BTreeMap::new();
        let marking = stream::iter(left)
            .for_each_concurrent(at_once, |row| self.mark(work, by, row, answers.get(&row).unwrap_or(&none)));
        marking.await;
        Ok(())
    }

    /// Has one row marked. Who has not answered gets the worst mark, unseen.
    async fn mark(&self, work: &Work<'_>, by: &Judge, row: u32, answers: &BTreeMap<usize, Said>) {
        if work.is_over() || !self.may_ask(work) {
            return;
        }
        let models: Vec<usize> = answers.keys().copied().collect();
        let order = judge::order(&models, work.plan.seed, row);
        let shown: Vec<&Said> = order.iter().filter_map(|model| answers.get(model)).collect();
        let mut first = Kept { part: Part::Judge, row, model: 0, ..work.blank() };
        let mut marks = BTreeMap::new();
        if !shown.is_empty() {
            let case: &Case = &work.drawn.cases[row as usize];
            let asked = judge::request(by.prompt.as_deref(), case, &shown);
            // a cap that is meant for the answers would cut its marks off
            let whom = Whom {
                model: &by.model,
                only: None,
                payer: &work.payer,
                temperature: work.plan.temperature,
                most_tokens: None,
            };
            let asked = self.ask(whom, &asked, work.halt).await;
            let Some(AnswerRow { kept, said }) = work.kept(Part::Judge, row, 0, asked) else { return };
            first = kept;
            match said.and_then(|said| judge::marks(&said.text, shown.len())) {
                Some(given) => marks = order.into_iter().zip(given).collect(),
                None if first.failed.is_none() => first.failed = Some("its marks can't be read".to_owned()),
                None => {}
            }
        }
        // that of the first model has the cost, and says that the row is done: it is written last
        for model in (0..work.plan.models.len()).rev() {
            let mut kept = match model {
                0 => first.clone(),
                _ => Kept { part: Part::Judge, row, model, failed: first.failed.clone(), ..work.blank() },
            };
            if first.failed.is_none() {
                let mark = marks.get(&model).copied().unwrap_or(1);
                kept.scores = Scores::from([(Measure::Judge, f64::from(mark))]);
            }
            self.keep(work, &AnswerRow { kept, said: None }).await;
        }
    }
}
