//! Exchanges become rows, away from the requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Captures;
use crate::domain::capture::CaptureResult;
use crate::domain::capture::example::{Answer, example, opted_out};
use crate::domain::prompt::hash::sha256_of;
use crate::gateway::capture::{Captured, Heard, Queued};
use crate::store::captures::CaptureRow;

/// Exchanges that are written together, at most.
const BATCH: usize = 16;
/// And their bytes: the ledger waits for no longer write.
const BATCH_BYTES: usize = 512 << 10;
/// How long a batch waits for more.
const LINGER: Duration = Duration::from_millis(100);
/// Between two tries, while the database fails; doubled up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Tries of one batch. Meanwhile the queue fills, and what finds no place is let go.
const TRIES: u32 = 20;

/// What was taken out of the queue in one go.
#[derive(Default)]
struct Batch {
    exchanges: Vec<Captured>,
    /// Who wants to know when it is written.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Captures {
    /// Writes what is put down, until nobody can put anything down any more.
    pub async fn write(&self, mut queue: Receiver<Queued>) {
        while let Some(batch) = next(&mut queue).await {
            let made = tokio::task::spawn_blocking(move || {
                let made: Vec<_> = batch.exchanges.iter().map(made).collect();
                (made, batch.waiting)
            });
            // making rows fails only where it panics, and then nobody waits for them any more
            let Ok((made, waiting)) = made.await else { continue };
            self.keep(made).await;
            for waits in waiting {
                let _ = waits.send(());
            }
        }
    }

    /// Writes rows, a few at a time; counts each, and what was none.
    async fn keep(&self, made: Vec<(Arc<str>, Result<CaptureRow, CaptureResult>)>) {
        let mut rows = VecDeque::new();
        for (model, made) in made {
            match made {
                Ok(row) => rows.push_back((model, row)),
                Err(why) => self.metrics.captures.ended(&model, why),
            }
        }
        while !rows.is_empty() {
            let (mut together, mut models, mut bytes) = (Vec::new(), Vec::new(), 0);
            while bytes < BATCH_BYTES
                && let Some((model, row)) = rows.pop_front()
            {
                bytes += row.prompt.len() + row.answer.len();
                together.push(row);
                models.push(model);
            }
            let results = self.insert(&together).await;
            for (model, result) in models.iter().zip(results) {
                self.metrics.captures.ended(model, result);
            }
        }
    }

    /// Tries until all is written, or far too often. What became of each row.
    async fn insert(&self, rows: &[CaptureRow]) -> Vec<CaptureResult> {
        let mut wait = FIRST_WAIT;
        for tried in 1..=TRIES {
            match self.rows.insert_each(rows).await {
                Ok(refused) => {
                    if !refused.is_empty() {
                        tracing::warn!(
                            rows = refused.len(),
                            "traffic was not kept: the database won't have it"
                        );
                    }
                    let became = |at| match refused.contains(&at) {
                        true => CaptureResult::Failed,
                        false => CaptureResult::Kept,
                    };
                    return (0..rows.len()).map(became).collect();
                }
                Err(error) if tried == 1 => {
                    tracing::warn!(%error, "traffic can't be kept right now; it is tried again");
                }
                Err(_) => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
        tracing::warn!(rows = rows.len(), "traffic was not kept: the database did not take it");
        vec![CaptureResult::Failed; rows.len()]
    }
}

/// What has come within a moment of its first; nothing when no more can come.
async fn next(queue: &mut Receiver<Queued>) -> Option<Batch> {
    let mut batch = Batch::default();
    batch.takes(queue.recv().await?);
    while batch.exchanges.len() < BATCH && batch.waiting.is_empty() {
        match timeout(LINGER, queue.recv()).await {
            Ok(Some(queued)) => batch.takes(queued),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

impl Batch {
    fn takes(&mut self, queued: Queued) {
        match queued {
            Queued::Exchange(exchange) => self.exchanges.push(*exchange),
            Queued::Until(waits) => self.waiting.push(waits),
        }
    }
}

/// A row of an exchange, with its model's name.
fn made(captured: &Captured) -> (Arc<str>, Result<CaptureRow, CaptureResult>) {
    (Arc::clone(&captured.model), row(captured))
}

fn row(captured: &Captured) -> Result<CaptureRow, CaptureResult> {
    if opted_out(captured.asked.body()) {
        return Err(CaptureResult::OptedOut);
    }
    let answer = match &captured.answer {
        Heard::Whole(whole) => Answer::Whole(whole),
        Heard::Stream(events) => Answer::Stream(events),
    };
    let sent = &captured.sent;
    let made = example(sent.endpoint, sent.body(), &answer, &captured.policy)?;
    Ok(CaptureRow {
        request_id: captured.request_id.to_string(),
        owner: captured.owner.to_string(),
        end_user: captured.end_user.as_deref().map(sha256_of).unwrap_or_default(),
        model: captured.model.to_string(),
        deployment: captured.deployment.name.to_string(),
        upstream: captured.upstream_model.to_string(),
        answer_id: made.answer_id,
        prompt_hash: made.prompt_hash,
        at_ms: captured.at_ms,
        until_ms: captured.at_ms.saturating_add(captured.policy.retention_ms),
        masked: i64::try_from(made.masked).unwrap_or(i64::MAX),
        prompt: made.prompt,
        answer: made.answer,
    })
}
