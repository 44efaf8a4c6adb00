//! `/admin/v1/ledger`: entries in pages, one request's, what is unconfirmed, the audit. For reading only.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Serialize;

use super::body::{self, Name};
use super::csv::{self, Line};
use super::query::{Asked, Given};
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::form::{Form, Problem};
use crate::control::ledger::{LedgerPage, MAX_PAGE};
use crate::domain::budget::Drift;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::usage::MOST_TOKENS;
use crate::domain::usage::UsageSource;
use crate::gateway::ledger::BookError;
use crate::gateway::{Resolution, ResolveError};
use crate::store::StoreError;
use crate::store::ledger::LedgerFilter;
use crate::store::proof::Audit;

/// Longest note on a correction, characters.
const MAX_NOTE_CHARS: usize = 500;
/// How many entries are listed unasked.
const SHOWN: usize = 100;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/ledger", get(page))
        .route("/admin/v1/ledger/unconfirmed", get(unconfirmed))
        .route("/admin/v1/ledger/audit", get(audit))
        .route("/admin/v1/ledger/{request_or_seq}", get(show))
        .route("/admin/v1/ledger/{request_or_seq}/resolve", post(resolve))
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

/// Reads `format`.
pub(super) fn format(asked: &mut Asked) -> Format {
    let name = |format| match format {
        Format::Json => "json",
        Format::Csv => "csv",
    };
    asked.word("format", &[Format::Json, Format::Csv], name).unwrap_or(Format::Json)
}

/// A page as JSON.
#[derive(Serialize)]
struct List {
    object: &'static str,
    has_more: bool,
    data: Vec<Entry>,
}

async fn page(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let sources = [UsageSource::Reported, UsageSource::Estimated, UsageSource::Unconfirmed];
    let filter = LedgerFilter {
        key: asked.text("key"),
        team: asked.text("team"),
        end_user: asked.text("end_user"),
        tag: asked.text("tag"),
        model: asked.text("model"),
        deployment: asked.text("deployment"),
        provider: asked.text("provider"),
        kind: asked.word("kind", &EntryKind::ALL, EntryKind::name),
        source: asked.word("source", &sources, UsageSource::name),
        from_ms: asked.time("from"),
        until_ms: asked.time("until"),
        before: asked.number("before", i64::MAX),
    };
    let (limit, format) = (limit(&mut asked), format(&mut asked));
    if let Err(refused) = asked.end() {
        return *refused;
    }
    answer(admin.ledger.page(&filter, limit).await, format)
}

async fn unconfirmed(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let before = asked.number("before", i64::MAX);
    let (limit, format) = (limit(&mut asked), format(&mut asked));
    if let Err(refused) = asked.end() {
        return *refused;
    }
    answer(admin.ledger.unconfirmed(before, limit).await, format)
}

fn limit(asked: &mut Asked) -> usize {
    let limit = asked.number("limit", i64::try_from(MAX_PAGE).unwrap_or(i64::MAX));
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(SHOWN)
}

async fn show(State(admin): State<Arc<Admin>>, name: Result<Path<String>, PathRejection>) -> Response {
    // what is no UTF-8 names nothing
    let name = name.map(|Path(name)| name).unwrap_or_default();
    match admin.ledger.show(&name).await {
        Ok(entries) if entries.is_empty() => {
            let words =
                format!("there is no request and no entry {name:?} in the ledger, or it was cleaned up");
            error(StatusCode::NOT_FOUND, &words, "entry_not_found")
        }
        Ok(entries) => answer(Ok(LedgerPage { entries, has_more: false }), Format::Json),
        Err(why) => store_failed(&why),
    }
}

/// Reads what an unconfirmed entry really was: one of three.
fn resolution(body: &serde_json::Value) -> Result<(Resolution, Option<String>), Vec<Problem>> {
    let form = Form::new(body);
    let tokens = form.object("tokens", |tokens| {
        let input = tokens.number("input", 0..=MOST_TOKENS).flatten();
        let output = tokens.number("output", 0..=MOST_TOKENS).flatten();
        if input.is_none() || output.is_none() {
            tokens.wrong("", "give both `input` and `output`");
        }
        Resolution::Tokens { input: input.unwrap_or(0), output: output.unwrap_or(0) }
    });
    let cost = form.usd("cost_usd").flatten().map(Resolution::Cost);
    let release = form.read("release", |value| match value.as_bool() {
        Some(true) => Ok(Resolution::Release),
        _ => Err("only `true` means something"),
    });
    let note = form.text("note").flatten().map(|note| note.chars().take(MAX_NOTE_CHARS).collect());
    let mut given: Vec<Resolution> =
        [tokens.flatten(), cost, release.flatten()].into_iter().flatten().collect();
    if given.len() != 1 {
        form.wrong("", "give one of `tokens`, `cost_usd` and `release`");
    }
    form.finish((given.pop().unwrap_or(Resolution::Release), note))
}

async fn resolve(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let body = match body::read(&body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let (resolution, note) = match resolution(&body) {
        Ok(read) => read,
        Err(problems) => return invalid("the entry was not resolved; nothing was changed", &problems),
    };
    // one after the other: what is resolved is unconfirmed no more
    let _turn = admin.resolving.lock().await;
    let entry = match admin.ledger.unconfirmed_entry(&name).await {
        Ok(Some(entry)) => entry,
        Ok(None) => {
            let words = format!(
                "no entry of {name:?} is unconfirmed; `tunegate ledger unconfirmed` lists those that are"
            );
            return error(StatusCode::NOT_FOUND, &words, "entry_not_found");
        }
        Err(why) => return store_failed(&why),
    };
    match admin.gateway.resolve(&entry, resolution, note.as_deref()).await {
        Ok(correction) => {
            let detail = serde_json::json!({"corrects": entry.seq, "cost_usd": correction.cost});
            if let Err(why) =
                admin.audit.note("ledger.resolve", &entry.request_id, &detail, clock::unix_ms()).await
            {
                tracing::error!(error = %why, "a correction is booked but missing in the audit log");
            }
            Json(correction).into_response()
        }
        Err(ResolveError::Ledger(BookError::Unwritten(why))) => unavailable(&why.to_string()),
        Err(why) => error(StatusCode::CONFLICT, &why.to_string(), "not_resolvable"),
    }
}

async fn audit(State(admin): State<Arc<Admin>>) -> Response {
    let audit = match admin.ledger.audit().await {
        Ok(audit) => audit,
        Err(why) => return store_failed(&why),
    };
    match (admin.prove)().await {
        Ok(drifts) => Json(Audited { audit, budget_drifts: drifts }).into_response(),
        Err(why) => unavailable(&why),
    }
}

/// The ledger can't be asked now.
fn unavailable(why: &str) -> Response {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!("the ledger can't be read right now: {why}"),
        "ledger_unavailable",
    )
}

/// The proof.
#[derive(Serialize)]
struct Audited {
    #[serde(flatten)]
    audit: Audit,
    /// Counters of budgets that are not what the ledger says.
    budget_drifts: Vec<Drift>,
}

fn answer(page: Result<LedgerPage, StoreError>, format: Format) -> Response {
    match page {
        Ok(LedgerPage { entries, .. }) if format == Format::Csv => as_csv(&entries),
        Ok(LedgerPage { entries, has_more }) => {
            Json(List { object: "list", has_more, data: entries }).into_response()
        }
        Err(why) => store_failed(&why),
    }
}

fn as_csv(entries: &[Entry]) -> Response {
    let head = [
        "seq",
        "kind",
        "at_ms",
        "written_at_ms",
        "of",
        "request_id",
        "key_id",
        "key",
        "team",
        "end_user",
        "tags",
        "model",
        "deployment",
        "provider",
        "purpose",
        "prompt_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "source",
        "held_usd",
        "cost_usd",
        "saved_usd",
        "price",
        "note",
        "injected_prompt",
        "injected_tokens",
        "injected_usd",
        "compute_us",
    ];
    csv::answer(&head, entries.iter().map(line))
}

fn line(entry: &Entry) -> Line {
    let (on, injected) = (&entry.attribution, entry.injected.as_deref());
    Line::default()
        .value(&entry.seq)
        .value(&entry.kind.name())
        .value(&entry.at_ms)
        .value(&entry.written_at_ms)
        .value(&entry.of)
        .text(&entry.request_id)
        .text(&on.key_id)
        .text(&on.key)
        .text(on.team.as_deref().unwrap_or_default())
        .text(on.end_user.as_deref().unwrap_or_default())
        .text(&on.tags.join(" "))
        .text(&on.model)
        .text(&on.deployment)
        .text(&on.provider)
        .value(&on.purpose.name())
        .value(&entry.tokens.prompt)
        .value(&entry.tokens.cached)
        .value(&entry.tokens.cache_write)
        .value(&entry.tokens.completion)
        .value(&entry.tokens.reasoning)
        .value(&entry.source.map_or("", UsageSource::name))
        .value(&entry.held)
        .value(&entry.cost)
        .value(&entry.saved)
        .text(&entry.price)
        .text(entry.note.as_deref().unwrap_or_default())
        .text(injected.map(|injected| &*injected.prompt).unwrap_or_default())
        .value(&injected.map_or(0, |injected| injected.tokens))
        .value(&injected.map_or(Usd::ZERO, |injected| injected.cost))
        .value(&entry.tokens.compute_us)
}
