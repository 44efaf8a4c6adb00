//! One question of an evaluation: asked until it is answered, or will not be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Evaluations;
use crate::clock;
use crate::domain::endpoint::Endpoint;
use crate::domain::evaluation::Said;
use crate::domain::money::Usd;
use crate::domain::usage::TokenCounts;
use crate::gateway::admit::Admitted;
use crate::gateway::{NoOwnAnswer, OwnAnswer, OwnRequest};

/// What requests of evaluations are marked with, in the ledger and in reports of what was spent.
const TAG: &str = "evaluation";
/// How often a question is asked that others' load, a limit or an outage stands against; each such time the gateway has
/// already tried as its routes say.
const TRIES: u32 = 8;
/// Before the second try; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// At most.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Longest reason that is kept, characters.
const MOST_REASON_CHARS: usize = 500;

/// What became of a question.
pub(super) enum Asked {
    /// An answer.
    Answered(Answered),
    /// No answer to this question, why, and what that cost.
    Failed(String, Usd),
    /// No question of this kind will be answered: why.
    Never(String),
    /// The process is to end before there is an answer.
    Halted,
}

/// An answer, read.
pub(super) struct Answered {
    pub(super) given: Given,
    pub(super) deployment: Option<Arc<str>>,
    pub(super) cost: Usd,
    pub(super) tokens: TokenCounts,
    pub(super) took: Duration,
}

/// What was answered.
pub(super) enum Given {
    /// Words.
    Said(Said),
    /// The loss of words that are known, nats a token.
    Loss(f64),
}

/// Whom to ask, for whom, and how.
#[derive(Clone, Copy)]
pub(super) struct Whom<'w> {
    /// The model.
    pub(super) model: &'w str,
    /// The only deployment.
    pub(super) only: Option<&'w Arc<str>>,
    /// Who pays.
    pub(super) payer: &'w Admitted,
    /// The temperature that is asked for.
    pub(super) temperature: Option<f64>,
    /// The cap on the answer.
    pub(super) most_tokens: Option<u64>,
}

impl Evaluations {
    /// Asks one question.
    pub(super) async fn ask(
        &self,
        whom: Whom<'_>,
        asked: &Map<String, Value>,
        halt: &watch::Receiver<bool>,
    ) -> Asked {
        self.put(whom, Endpoint::ChatCompletions, body(&whom, asked), halt).await
    }

    /// Asks how likely the last message of a conversation is.
    pub(super) async fn score(
        &self,
        whom: Whom<'_>,
        told: &Map<String, Value>,
        halt: &watch::Receiver<bool>,
    ) -> Asked {
        let mut body = Map::from_iter([("model".to_owned(), Value::from(whom.model))]);
        body.extend(told.clone());
        self.put(whom, Endpoint::Score, Value::Object(body).to_string().into(), halt).await
    }

    async fn put(
        &self,
        whom: Whom<'_>,
        endpoint: Endpoint,
        body: Bytes,
        halt: &watch::Receiver<bool>,
    ) -> Asked {
        let (mut spent, mut wait) = (Usd::ZERO, FIRST_WAIT);
        for tried in 1..=TRIES {
            let Some(admitted) = self.still(whom.payer) else {
                return Asked::Never("the key that pays has been revoked, or its time is over".to_owned());
            };
            let request = OwnRequest {
                admitted,
                endpoint,
                body: body.clone(),
                tags: vec![TAG.into()],
                only: whom.only.cloned(),
            };
            match self.gateway.ask_own(request, self.status_of).await {
                Ok(answer) => return read(endpoint, answer, spent),
                Err(NoOwnAnswer::Refused(why, cost)) => return Asked::Failed(short(&why), spent + cost),
                Err(NoOwnAnswer::Never(why, _)) => return Asked::Never(short(&why)),
                Err(NoOwnAnswer::Passing(why, cost)) => {
                    spent += cost;
                    if tried == TRIES {
                        return Asked::Failed(short(&why), spent);
                    }
                }
            }
            if halts_within(halt, wait).await {
                return Asked::Halted;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Asked::Halted
    }

    /// Who pays, as they are at this moment: a key may have been changed or revoked since the evaluation began.
    fn still(&self, payer: &Admitted) -> Option<Admitted> {
        match payer.key.id.is_empty() {
            true => Some(payer.clone()),
            false => self.gateway.keys.on_behalf_of(&payer.key.id, clock::unix_ms()),
        }
    }
}

/// Waits, but not beyond the process's end. Whether that has come.
pub(super) async fn halts_within(halt: &watch::Receiver<bool>, wait: Duration) -> bool {
    let mut halt = halt.clone();
    tokio::time::timeout(wait, halt.wait_for(|halted| *halted)).await.is_ok()
}

fn body(whom: &Whom<'_>, asked: &Map<String, Value>) -> Bytes {
    let mut body = Map::from_iter([("model".to_owned(), Value::from(whom.model))]);
    body.extend(asked.clone());
    if let Some(temperature) = whom.temperature {
        // a whole number is written as one: some servers take no `0.0`
        let whole = (temperature.fract() == 0.0).then(|| Value::from(temperature as i64));
        body.insert("temperature".to_owned(), whole.unwrap_or_else(|| temperature.into()));
    }
    if let Some(most) = whom.most_tokens {
        body.insert("max_completion_tokens".to_owned(), most.into());
    }
    Value::Object(body).to_string().into()
}

fn read(endpoint: Endpoint, answer: OwnAnswer, spent: Usd) -> Asked {
    let cost = spent + answer.cost;
    let read: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let (given, missing) = match endpoint {
        Endpoint::Score => (loss(&read).map(Given::Loss), "an answer without a loss"),
        _ => {
            let message = read.pointer("/choices/0/message");
            (message.map(|message| Given::Said(Said::of(message))), "an answer without a message")
        }
    };
    match given {
        None => Asked::Failed(missing.to_owned(), cost),
        Some(given) => Asked::Answered(Answered {
            given,
            deployment: answer.deployment,
            cost,
            tokens: answer.tokens,
            took: answer.took,
        }),
    }
}

/// The mean over the tokens that count.
fn loss(score: &Value) -> Option<f64> {
    let (tokens, sum) = (score["tokens"].as_u64()?, score["loss_sum"].as_f64()?);
    (tokens > 0 && sum >= 0.0).then(|| sum / tokens as f64)
}

fn short(why: &str) -> String {
    why.chars().filter(|letter| *letter != '\0').take(MOST_REASON_CHARS).collect()
}
