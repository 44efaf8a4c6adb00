//! A whole answer: read to its end before the client gets any of it, so that another deployment can still be asked.

use std::io::Read as _;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Answer, AnswerBody, Followed, Following, is_event_stream, is_framed, is_plain, money, passed};
use crate::domain::endpoint::Endpoint;
use crate::domain::file_ids::file_ids;
use crate::domain::outcome::Ending;
use crate::domain::priced::Priced;
use crate::domain::service_tier::ServiceTier;
use crate::domain::stream::StreamReader;
use crate::domain::translate::response_of;
use crate::domain::usage::{TokenCounts, Usage, UsageSource};
use crate::gateway::presence::{Client, Presence};
use crate::gateway::record::Record;
use crate::gateway::settle::Facts;
use crate::provider;
use crate::upstream::UpstreamError;

/// The largest whole answer we keep.
const WHOLE_BYTES: usize = 64 << 20;

/// What we read of a whole answer.
#[derive(Default, Deserialize)]
struct WholeAnswer {
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// What a whole answer turned out to be.
struct Taken {
    /// For the client.
    body: Bytes,
    usage: Option<TokenCounts>,
    served: Option<ServiceTier>,
    /// Of stored responses and files.
    ids: Vec<String>,
    /// It is not what was asked for.
    wrong: Option<UpstreamError>,
    /// It carries an error.
    is_error: bool,
}

/// Reads a whole answer, and settles it where it is none.
pub(super) async fn read<C: Client>(
    following: Following<'_>,
    kind: &str,
    encoding: &str,
    presence: &mut Presence<'_, C>,
    mut record: Box<Record>,
) -> Followed {
    let Following {
        facts,
        mut exchange,
        usage_injected,
        shared,
        deadline,
        visit,
        pins,
        response,
        capturing,
        ..
    } = following;
    let usage_injected = usage_injected && !shared;
    let between = facts.deployment.timeouts.between_chunks;
    let wait = record.if_dropped(|| Some(facts.unconfirmed()));
    let bytes = {
        let mut reading = std::pin::pin!(exchange.whole(WHOLE_BYTES, between, deadline));
        tokio::select! {
            biased;
            bytes = &mut reading => bytes,
            // paid for whether we read it or not: only its end says how much
            () = presence.left() => reading.await,
        }
    };
    wait.ends();
    let framed = is_framed(&exchange);
    let read = bytes.and_then(|body| plain(body, encoding)).map(|body| match is_event_stream(kind) {
        true => Taken::streamed(&facts, body, usage_injected, &record_price(&mut record)),
        false => Taken::plain(&facts, body, framed),
    });
    let status = exchange.status();
    let mut headers = passed(exchange.headers(), &facts.deployment, kind);
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            record.attempt_over(Some(facts.unconfirmed()));
            exchange.abort().await;
            visit.failed(error.code());
            return Followed::Broke(error, record);
        }
    };
    let usage = usage(&facts, &read);
    // cut off from here on, it is settled at that
    record.usage(usage);
    exchange.release().await;
    // `"error": {}` beside an answer is none
    let fault = read.is_error.then(|| provider::fault_of_event(&read.body)).flatten();
    let heard = read.body.clone();
    let body = match (read.wrong, response) {
        (Some(wrong), _) => Err(wrong),
        (None, Some(response)) if fault.is_none() => {
            let made = response_of(&read.body, &response.echo, &response.id, response.created_at_s);
            made.map_err(|unreadable| UpstreamError::Broken(unreadable.to_string()))
        }
        (None, _) => Ok(read.body),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            record.attempt_over(Some(usage));
            visit.failed(error.code());
            return Followed::Broke(error, record);
        }
    };
    if let Some(fault) = fault {
        // no provider bills an error, unless it says what it used
        record.attempt_over((usage.source == UsageSource::Reported).then_some(usage));
        visit.refused(fault, None);
        return Followed::Fault(fault, provider::message(status, &body), record);
    }
    if let Some(capturing) = capturing {
        capturing.ends_with(heard, is_event_stream(kind));
    }
    visit.ended(Some(&usage));
    record.attempt_ended(Some(usage));
    for id in read.ids.into_iter().chain(facts.conversation()) {
        pins.remember(id, &facts.admitted, &facts.deployment.name).await;
    }
    headers.extend(money(&record));
    let ending = if presence.is_gone() { Ending::ClientGone } else { Ending::Served };
    let body = AnswerBody::Whole { body, record, ending };
    Followed::Answer(Box::new(Answer { status, headers, body, output_cap: None }))
}

fn record_price(record: &mut Record) -> Option<Priced> {
    record.bill().map(|bill| bill.priced().clone())
}

fn usage(facts: &Facts, read: &Taken) -> Usage {
    match read.usage {
        Some(tokens) => facts.reported(tokens, read.served),
        // moderations are free and report nothing
        None if facts.request.endpoint == Endpoint::Moderations && read.wrong.is_none() => {
            Usage::new(TokenCounts::default(), UsageSource::Reported)
        }
        None => facts.unconfirmed(),
    }
}

impl Taken {
    /// A stream that had to be read whole.
    fn streamed(facts: &Facts, body: Bytes, usage_injected: bool, priced: &Option<Priced>) -> Self {
        let mut reader = StreamReader::new(facts.request.endpoint, usage_injected)
            .told_by(facts.told_by())
            .priced(priced.clone());
        let body: Bytes = [reader.push(body), reader.finish()].concat().into();
        let stored = facts.request.endpoint == Endpoint::Responses;
        let ids =
            if stored { reader.take_ids().into_iter().chain(file_ids(&body)).collect() } else { Vec::new() };
        Self { usage: reader.usage(), served: reader.served(), ids, wrong: None, is_error: false, body }
    }

    fn plain(facts: &Facts, body: Bytes, framed: bool) -> Self {
        let (answer, wrong) = match serde_json::from_slice::<WholeAnswer>(&body) {
            Ok(answer) => (answer, None),
            Err(error) if error.is_eof() && !framed => {
                (WholeAnswer::default(), Some("the connection was closed"))
            }
            Err(_) => (WholeAnswer::default(), Some("its answer is no JSON object")),
        };
        let stored = facts.request.endpoint == Endpoint::Responses;
        let ids = match stored && wrong.is_none() {
            true => answer.id.into_iter().chain(file_ids(&body)).collect(),
            false => Vec::new(),
        };
        Self {
            usage: answer.usage.as_ref().and_then(|usage| TokenCounts::told_by(facts.told_by(), usage)),
            served: answer.service_tier.as_deref().map(|tier| ServiceTier::served(Some(tier))),
            ids,
            wrong: wrong.map(|wrong| UpstreamError::Broken(wrong.to_owned())),
            is_error: answer.error.is_some(),
            body,
        }
    }
}

/// The bytes of a whole answer. We ask for no compression; a server that compresses all the same is understood.
fn plain(body: Bytes, encoding: &str) -> Result<Bytes, UpstreamError> {
    if is_plain(encoding) {
        return Ok(body);
    }
    let mut out = Vec::new();
    let limit = WHOLE_BYTES as u64 + 1;
    let read = match encoding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(&*body).take(limit).read_to_end(&mut out),
        "deflate" => flate2::read::ZlibDecoder::new(&*body).take(limit).read_to_end(&mut out),
        other => return Err(UpstreamError::Broken(format!("it is compressed with {other}, unasked"))),
    };
    match read {
        Ok(_) if out.len() > WHOLE_BYTES => Err(UpstreamError::TooLarge(WHOLE_BYTES)),
        Ok(_) => Ok(out.into()),
        Err(_) => Err(UpstreamError::Broken("its compression is damaged".to_owned())),
    }
}
